package oidc

import (
	"context"
	"errors"
	"fmt"

	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// codeCause is a query for why client c could not redeem a code: what the statement that refused it left behind. A code that came with the wrong
// proof is used up by that, so that the proof is looked at first.
func codeCause(c *caller, code, redirectURI, challenge string) *postgres.Query {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`SELECT CASE WHEN client_id <> %s THEN 'other_client' WHEN redirect_uri <> %s THEN 'redirect_uri' WHEN code_challenge <> %s THEN 'code_verifier'
		WHEN dpop_jkt <> %s THEN 'dpop_key' WHEN redeemed_at IS NOT NULL THEN 'used' WHEN expires_at <= wall() THEN 'expired' ELSE 'grant_ended' END
		FROM authz_codes WHERE hash = %s ORDER BY created_at DESC LIMIT 1`,
		q.Bind(c.ID)+"::text", q.Bind(redirectURI)+"::text", q.Bind(challenge)+"::text", "coalesce("+q.Bind(c.key())+"::text, '')", q.Bind(hashed(code))+"::bytea"))
	return q
}

// refreshCause is a query for why client c could not use a refresh token.
func refreshCause(c *caller, token string) *postgres.Query {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`SELECT CASE WHEN client_id <> %s THEN 'other_client' WHEN dpop_jkt <> %s THEN 'dpop_key' WHEN used_at IS NOT NULL THEN 'used' WHEN expires_at <= wall() THEN 'expired' ELSE 'grant_ended' END
		FROM refresh_tokens WHERE hash = %s LIMIT 1`, q.Bind(c.ID)+"::text", "coalesce("+q.Bind(c.key())+"::text, '')", q.Bind(hashed(token))+"::bytea"))
	return q
}

// invalidGrant refuses a grant. The caller learns no more than that (RFC 6749 section 5.2); the log says why, for the application's developer.
func (p *Provider) invalidGrant(ctx context.Context, c *caller, grant zoidc.GrantType, why *postgres.Query) *zoidc.Error {
	cause := "unknown"
	if err := p.DB.Get(ctx, &cause, why); err != nil && !errors.Is(err, postgres.ErrNotFound) {
		cause = "not_looked_up"
	}
	p.Log.WarnContext(ctx, "grant refused", "grant_type", string(grant), "cause", cause, "client_id", c.ID, "request_id", audit.From(ctx).RequestID)
	return errInvalidGrant()
}
