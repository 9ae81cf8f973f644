package oidc

import (
	"context"
	"errors"
	"net/http"

	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// Errors of RFC 6749 section 5.2 and RFC 6750 section 3.1 that the library does not name.
const (
	temporarilyUnavailable = "temporarily_unavailable"
	invalidToken           = "invalid_token"
)

// retryAfter is what callers are told while the database cannot answer, in seconds.
const retryAfter = "5"

// Descriptions are constants in the character set of RFC 6749 section 5.2: nothing that was sent comes back in them.

func errInvalidRequest(description string) *zoidc.Error {
	return &zoidc.Error{ErrorType: zoidc.InvalidRequest, Description: description}
}

func errInvalidClient() *zoidc.Error {
	return &zoidc.Error{ErrorType: zoidc.InvalidClient, Description: "client authentication failed"}
}

func errInvalidGrant() *zoidc.Error {
	return &zoidc.Error{ErrorType: zoidc.InvalidGrant, Description: "the grant is not valid, or not any more"}
}

func errInvalidToken() *zoidc.Error {
	return &zoidc.Error{ErrorType: invalidToken, Description: "the access token is not valid, or not any more"}
}

// refuse turns every error into what the caller may know: a protocol error as it is, anything else logged and a bare one in its place.
func (p *Provider) refuse(ctx context.Context, err error) error {
	if status, ok := errors.AsType[op.StatusError](err); ok {
		return status
	}
	if e, ok := errors.AsType[*zoidc.Error](err); ok {
		status := http.StatusBadRequest
		switch e.ErrorType {
		case zoidc.InvalidClient, invalidToken:
			status = http.StatusUnauthorized
		case temporarilyUnavailable:
			status = http.StatusServiceUnavailable
		}
		return op.NewStatusError(e, status)
	}
	p.Log.ErrorContext(ctx, "request failed", "error", err)
	if postgres.Unavailable(err) || errors.Is(err, context.Canceled) {
		return op.NewStatusError(&zoidc.Error{ErrorType: temporarilyUnavailable}, http.StatusServiceUnavailable)
	}
	return op.NewStatusError(zoidc.ErrServerError(), http.StatusInternalServerError)
}
