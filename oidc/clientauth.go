package oidc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Bounds on client assertions: RFC 7523 section 3, FAPI 2.0 Security Profile section 5.3.2.1.
const (
	maxAssertionLife = 5 * time.Minute
	clockSkew        = 10 * time.Second
	maxAssertion     = 16 << 10
)

// VerifyClient implements op.Server: the client has proved to be itself by exactly the method that it registered.
func (s *server) VerifyClient(ctx context.Context, r *op.Request[op.ClientCredentials]) (op.Client, error) {
	c, err := s.authenticate(ctx, r.Header, r.Form, r.Data)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	return libraryClient{c}, nil
}

// authenticate finds the client and checks its proof, but for whether an assertion was used before: see [caller.spend].
func (p *Provider) authenticate(ctx context.Context, header http.Header, form url.Values, given *op.ClientCredentials) (*caller, error) {
	used := zoidc.AuthMethodNone
	switch {
	case header.Get("Authorization") != "":
		used = zoidc.AuthMethodBasic
	case given.ClientAssertion != "":
		used = zoidc.AuthMethodPrivateKeyJWT
	case given.ClientSecret != "":
		used = zoidc.AuthMethodPost
	}
	id := given.ClientID
	if used == zoidc.AuthMethodBasic && form.Has("client_id") && form.Get("client_id") != id {
		return nil, errInvalidRequest("client_id differs from the authenticated client")
	}
	var assertion *assertion
	if used == zoidc.AuthMethodPrivateKeyJWT {
		var err error
		if assertion, err = parseAssertion(given.ClientAssertion); err != nil {
			return nil, errInvalidClient()
		}
		if id != "" && id != assertion.claims.Subject {
			return nil, errInvalidClient()
		}
		id = assertion.claims.Subject
	}
	c, err := p.Clients.Get(ctx, id)
	if errors.Is(err, ErrNoClient) {
		return nil, p.wrongClient(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	if c.DisabledAt != nil || c.Registration.AuthMethod != used {
		return nil, p.wrongClient(ctx, c.ID)
	}
	switch used {
	case zoidc.AuthMethodBasic, zoidc.AuthMethodPost:
		given := sha256.Sum256([]byte(given.ClientSecret))
		if len(c.SecretHash) == 0 || subtle.ConstantTimeCompare(given[:], c.SecretHash) != 1 {
			return nil, p.wrongClient(ctx, c.ID)
		}
	case zoidc.AuthMethodPrivateKeyJWT:
		if !p.isRight(c, assertion) {
			return nil, p.wrongClient(ctx, c.ID)
		}
	}
	return &caller{Client: c, assertion: assertion}, nil
}

// wrongClient counts a failure against the address and records it. Secrets of 256 bits cannot be guessed; what is bounded is the work and the
// log. The right secret works from everywhere at any time.
func (p *Provider) wrongClient(ctx context.Context, id string) error {
	hit := limits.Hit{Window: p.secretFailures, Key: []byte("unknown")}
	if source := audit.From(ctx).Source; source.IsValid() {
		hit.Key = limits.SourceKey(source)
	}
	q := new(postgres.Query)
	q.With("failed", "SELECT 1")
	limits.Take(q, "failed", hit)
	q.With("recorded", "SELECT 1 FROM limit_taken WHERE allowed")
	audit.Record(ctx, q, "recorded", audit.Event{Name: "client.authenticate", Outcome: audit.Refused, Actor: "client", Object: printable(id)}, nil)
	q.Finally("SELECT allowed FROM limit_taken")
	var allowed bool
	if err := p.DB.Get(ctx, &allowed, q); err != nil {
		return fmt.Errorf("count a failed client authentication: %w", err)
	}
	if !allowed {
		return op.NewStatusError(&zoidc.Error{ErrorType: zoidc.InvalidClient, Description: "too many failed client authentications from this address"}, http.StatusTooManyRequests)
	}
	return errInvalidClient()
}

// printable keeps what a stranger sent fit for a record.
func printable(s string) string {
	if !isScopeToken(s) {
		return ""
	}
	return s
}

// assertion is a client assertion, RFC 7523 section 2.2, whose signature has not been checked.
type assertion struct {
	token  *jwt.JSONWebToken
	claims jwt.Claims
	listed bool // aud is an array
}

func parseAssertion(raw string) (*assertion, error) {
	if len(raw) > maxAssertion {
		return nil, errors.New("assertion too large")
	}
	if !plainHeader(raw) {
		return nil, errors.New("the header brings a key")
	}
	token, err := jwt.ParseSigned(raw, assertionAlgs)
	if err != nil {
		return nil, err
	}
	a := &assertion{token: token}
	var audience struct {
		Raw json.RawMessage `json:"aud"`
	}
	if err := token.UnsafeClaimsWithoutVerification(&a.claims, &audience); err != nil {
		return nil, err
	}
	a.listed = !bytes.HasPrefix(audience.Raw, []byte(`"`))
	if a.claims.Subject == "" || a.claims.Issuer != a.claims.Subject {
		return nil, errors.New("iss and sub are not the client")
	}
	return a, nil
}

// isRight checks signature, audience and times: RFC 7523 section 3, RFC 9126 section 2, and for its clients FAPI 2.0 Security Profile sections 5.3.2.1 and 5.4.
func (p *Provider) isRight(c *Client, a *assertion) bool {
	strict := c.Registration.Profile == ProfileFAPI2
	if c.Registration.Keys == nil || len(a.token.Headers) != 1 || strict && a.token.Headers[0].Algorithm == string(jose.RS256) {
		return false
	}
	verified := false
	for _, key := range c.Registration.Keys.Keys {
		if id := a.token.Headers[0].KeyID; id != "" && key.KeyID != "" && key.KeyID != id {
			continue
		}
		if a.token.Claims(key.Key, &a.claims) == nil {
			verified = true
			break
		}
	}
	now, claims := p.Now(), a.claims
	audience := len(claims.Audience) == 1 && claims.Audience[0] == p.Issuer && !(strict && a.listed) ||
		!strict && len(claims.Audience) == 1 && (claims.Audience[0] == p.Issuer+tokenPath || claims.Audience[0] == p.Issuer+pushPath || claims.Audience[0] == p.Issuer+askBackPath)
	switch {
	case !verified, !audience, claims.ID == "", len(claims.ID) > 200, claims.Expiry == nil,
		!now.Before(claims.Expiry.Time().Add(clockSkew)),
		claims.Expiry.Time().After(now.Add(maxAssertionLife + clockSkew)),
		claims.NotBefore != nil && claims.NotBefore.Time().After(now.Add(clockSkew)),
		claims.IssuedAt != nil && claims.IssuedAt.Time().After(now.Add(clockSkew)):
		return false
	}
	return true
}

// libraryClient shows a client to the library as it wants to see one.
type libraryClient struct{ *caller }

// The methods below implement op.Client. The library uses id, method and grants; what it would decide by the others is decided here.

func (c libraryClient) GetID() string          { return c.ID }
func (c libraryClient) RedirectURIs() []string { return c.Registration.RedirectURIs }
func (c libraryClient) PostLogoutRedirectURIs() []string {
	return c.Registration.PostLogoutRedirectURIs
}
func (c libraryClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c libraryClient) AuthMethod() zoidc.AuthMethod        { return c.Registration.AuthMethod }
func (c libraryClient) ResponseTypes() []zoidc.ResponseType {
	return []zoidc.ResponseType{zoidc.ResponseTypeCode}
}
func (c libraryClient) GrantTypes() []zoidc.GrantType        { return c.Registration.GrantTypes }
func (c libraryClient) LoginURL(string) string               { return "" }
func (c libraryClient) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeJWT }
func (c libraryClient) IDTokenLifetime() time.Duration       { return 0 }
func (c libraryClient) DevMode() bool                        { return false }
func (c libraryClient) IsScopeAllowed(string) bool           { return false }
func (c libraryClient) IDTokenUserinfoClaimsAssertion() bool { return false }
func (c libraryClient) ClockSkew() time.Duration             { return 0 }

//nolint:staticcheck // the library names it
func (c libraryClient) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func([]string) []string { return nil }
}
func (c libraryClient) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func([]string) []string { return nil }
}
