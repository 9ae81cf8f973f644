package oidc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/lib/pq"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// server is the back channel, as the library calls it.
type server struct {
	op.UnimplementedServer
	*Provider
}

// standing is the SQL condition under which grant g is still worth something: neither revoked nor over, its client and its subscriber as they were, and
// its session not ended unless it was given for the time that nobody is there. A grant that is being stored while its session ends is not among those
// that sign-out revokes.
func standing() string {
	return `g.revoked_at IS NULL AND g.expires_at > wall() AND EXISTS (SELECT FROM clients k WHERE k.id = g.client_id AND k.disabled_at IS NULL)
		AND (g.subscriber_id IS NULL OR ` + authn.StandingSQL("g.subscriber_id", "g.created_at") + `)
		AND ('offline_access' = ANY(g.scopes) OR NOT ` + authn.EndedSQL("g.session_id") + `)`
}

// issuedTokens are the secrets that a statement stores for a token response.
type issuedTokens struct {
	refresh, opaque         string
	refreshHash, opaqueHash []byte
}

func newTokens() (t issuedTokens) {
	t.refresh, t.refreshHash = newToken()
	t.opaque, t.opaqueHash = newToken()
	return t
}

// storeOpaque adds part `opaque`: the access token of grant part g, for clients that want opaque ones.
func (p *Provider) storeOpaque(q *postgres.Query, c *Client, t issuedTokens, scopes string) {
	if c.Registration.AccessTokenFormat != "opaque" {
		return
	}
	q.With("opaque", fmt.Sprintf(`
		INSERT INTO access_tokens (hash, expires_at, grant_id, scopes)
		SELECT %s, least(wall() + make_interval(secs => %s), g.expires_at), g.id, %s FROM g`,
		q.Bind(t.opaqueHash)+"::bytea", q.Bind(p.Lives.AccessToken.Seconds())+"::float8", scopes))
}

// CodeExchange implements op.Server: one statement redeems the code, stores what follows from it, and ends the grant of a code that is used a second time.
func (s *server) CodeExchange(ctx context.Context, r *op.ClientRequest[zoidc.AccessTokenRequest]) (*op.Response, error) {
	resp, err := s.redeem(ctx, r.Client.(libraryClient).Client, r.Data)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	return resp, nil
}

func (p *Provider) redeem(ctx context.Context, c *Client, in *zoidc.AccessTokenRequest) (*op.Response, error) {
	ctx = context.WithoutCancel(ctx) // a caller that hangs up must not leave the outcome in doubt
	tokens, challenge := newTokens(), ""
	if in.CodeVerifier != "" {
		if !isCodeVerifier(in.CodeVerifier) {
			challenge = "-" // matches nothing
		} else {
			sum := sha256.Sum256([]byte(in.CodeVerifier))
			challenge = base64.RawURLEncoding.EncodeToString(sum[:])
		}
	}
	q := new(postgres.Query)
	// Locked, so that whoever comes second at the same moment waits and then sees the use that was first.
	q.With("seen", fmt.Sprintf("SELECT * FROM authz_codes WHERE hash = %s AND client_id = %s FOR UPDATE", q.Bind(hashed(in.Code))+"::bytea", q.Bind(c.ID)+"::text"))
	q.With("won", fmt.Sprintf(`
		UPDATE authz_codes c SET redeemed_at = wall() FROM seen
		 WHERE c.hash = seen.hash AND c.created_at = seen.created_at AND c.redeemed_at IS NULL AND c.expires_at > wall()
		RETURNING c.grant_id, c.nonce, convert_to(c.redirect_uri, 'UTF8') = %s AND c.code_challenge = %s AS is_right`,
		q.Bind([]byte(in.RedirectURI))+"::bytea", q.Bind(challenge)+"::text")) // bytes: what was sent need not be text
	q.With("g", "SELECT "+grantColumns+", won.nonce FROM grants g JOIN won ON won.grant_id = g.id WHERE won.is_right AND "+standing())
	q.With("refresh", fmt.Sprintf(`
		INSERT INTO refresh_tokens (hash, grant_id, client_id, expires_at)
		SELECT %s, g.id, g.client_id, g.expires_at FROM g WHERE 'offline_access' = ANY(g.scopes) AND %s RETURNING hash`,
		q.Bind(tokens.refreshHash)+"::bytea", q.Bind(c.may(zoidc.GrantTypeRefreshToken))+"::bool"))
	p.storeOpaque(q, c, tokens, "g.scopes")
	// A second use, or a use with the wrong proof by the right client: what the code gave, and might yet give, ends.
	// A statement that waited began before the use that it waited for, hence the later of the two times.
	q.With("misused", "SELECT grant_id, redeemed_at AS used_at FROM seen WHERE redeemed_at IS NOT NULL UNION ALL SELECT grant_id, NULL FROM won WHERE NOT is_right")
	q.With("ended", `
		UPDATE grants g SET revoked_at = greatest(wall(), m.used_at), revoke_reason = 'code_misused'
		  FROM misused m WHERE g.id = m.grant_id AND g.revoked_at IS NULL RETURNING g.id, g.subscriber_id, g.client_id`)
	audit.Record(ctx, q, "ended", audit.Event{Name: "grant.revoke", Outcome: audit.Refused, Reason: "code_misused", Actor: "client"},
		audit.Expressions{"subject": "ended.subscriber_id", "client_id": "ended.client_id", "object": "ended.id::text"})
	audit.Record(ctx, q, "g", audit.Event{Name: "token.issue", Outcome: audit.Success, Reason: "authorization_code", Actor: "client", Client: c.ID},
		audit.Expressions{"subject": "g.subscriber_id", "object": "g.id::text"})
	q.Finally("SELECT g.*, EXISTS (SELECT FROM refresh) AS refreshable FROM g")
	var row struct {
		grant
		Nonce       *string `db:"nonce"`
		Refreshable bool    `db:"refreshable"`
	}
	if err := p.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, p.invalidGrant(ctx, c, zoidc.GrantTypeCode, codeCause(c, in.Code, in.RedirectURI, challenge))
	} else if err != nil {
		return nil, fmt.Errorf("redeem code: %w", err)
	}
	if !row.Refreshable {
		tokens.refresh = ""
	}
	return p.respond(ctx, c, &row.grant, row.Scopes, tokens, row.Nonce)
}

// isCodeVerifier checks the form of RFC 7636 section 4.1.
func isCodeVerifier(s string) bool {
	if len(s) < 43 || len(s) > 128 {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~') {
			return false
		}
	}
	return true
}

// respond mints the tokens of a grant.
func (p *Provider) respond(ctx context.Context, c *Client, g *grant, scopes []string, tokens issuedTokens, nonce *string) (*op.Response, error) {
	access, err := p.accessToken(c, g, scopes, tokens.opaque)
	if err != nil {
		return nil, err
	}
	response := &zoidc.AccessTokenResponse{
		AccessToken: access, TokenType: zoidc.BearerToken, RefreshToken: tokens.refresh,
		ExpiresIn: uint64(p.accessExpiry(g).Sub(g.Now).Seconds()), Scope: scopes, //nolint:gosec // it is positive
	}
	if g.Person != nil && slices.Contains(scopes, zoidc.ScopeOpenID) {
		profile, err := p.idTokenProfile(ctx, c, g)
		if err != nil {
			return nil, err
		}
		if response.IDToken, err = p.idToken(c, g, nonce, access, profile); err != nil {
			return nil, err
		}
	}
	return op.NewResponse(response), nil
}

// RefreshToken implements op.Server: one statement rotates the token. A token that is used a second time ends the whole line.
func (s *server) RefreshToken(ctx context.Context, r *op.ClientRequest[zoidc.RefreshTokenRequest]) (*op.Response, error) {
	resp, err := s.rotate(ctx, r.Client.(libraryClient).Client, r.Data)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	return resp, nil
}

func (p *Provider) rotate(ctx context.Context, c *Client, in *zoidc.RefreshTokenRequest) (*op.Response, error) {
	ctx = context.WithoutCancel(ctx)
	for _, scope := range in.Scopes {
		if !isScopeToken(scope) {
			return nil, &zoidc.Error{ErrorType: zoidc.InvalidScope, Description: "a scope is not one of RFC 6749 section 3.3"}
		}
	}
	tokens := newTokens()
	q := new(postgres.Query)
	asked := "r.scopes"
	if len(in.Scopes) > 0 {
		asked = q.Bind(pq.Array([]string(in.Scopes))) + "::text[]"
	}
	// Locked, as a code is: a token that is used twice at the same moment ends its line like one that is used twice in a row (RFC 9700 section 4.14.2). A thief
	// who is as fast as the client must not be what keeps the theft unseen, and here nothing tells the two apart from a client that asks twice. The latter
	// signs in again; there is no grace in which both would go on, because then two lines live.
	q.With("seen", fmt.Sprintf("SELECT * FROM refresh_tokens WHERE hash = %s AND client_id = %s FOR UPDATE", q.Bind(hashed(in.RefreshToken))+"::bytea", q.Bind(c.ID)+"::text"))
	q.With("r", "SELECT g.id, g.scopes FROM grants g JOIN seen ON seen.grant_id = g.id WHERE seen.used_at IS NULL AND seen.expires_at > wall() AND "+standing())
	q.With("fits", fmt.Sprintf("SELECT id, %[1]s AS asked FROM r WHERE %[1]s <@ r.scopes", asked))
	q.With("won", `
		UPDATE refresh_tokens t SET used_at = wall() FROM seen, fits
		 WHERE t.hash = seen.hash AND t.used_at IS NULL RETURNING t.grant_id, t.expires_at, fits.asked`)
	q.With("next", fmt.Sprintf(`
		INSERT INTO refresh_tokens (hash, grant_id, client_id, expires_at) SELECT %s, grant_id, %s, expires_at FROM won`,
		q.Bind(tokens.refreshHash)+"::bytea", q.Bind(c.ID)+"::text"))
	q.With("g", "SELECT "+grantColumns+", won.asked FROM grants g JOIN won ON won.grant_id = g.id")
	p.storeOpaque(q, c, tokens, "g.asked")
	q.With("ended", `
		UPDATE grants g SET revoked_at = greatest(wall(), seen.used_at), revoke_reason = 'refresh_token_reused'
		  FROM seen WHERE g.id = seen.grant_id AND seen.used_at IS NOT NULL AND g.revoked_at IS NULL RETURNING g.id, g.subscriber_id, g.client_id`)
	audit.Record(ctx, q, "ended", audit.Event{Name: "grant.revoke", Outcome: audit.Refused, Reason: "refresh_token_reused", Actor: "client"},
		audit.Expressions{"subject": "ended.subscriber_id", "client_id": "ended.client_id", "object": "ended.id::text"})
	audit.Record(ctx, q, "g", audit.Event{Name: "token.issue", Outcome: audit.Success, Reason: "refresh_token", Actor: "client", Client: c.ID},
		audit.Expressions{"subject": "g.subscriber_id", "object": "g.id::text"})
	// One row, or none: the grant, or a mark that more was asked for than it has.
	q.Finally(`SELECT g.*, false AS too_much FROM g UNION ALL
		SELECT r.id, '', '', NULL, NULL, r.scopes, NULL, NULL, NULL, NULL, wall(), wall(), r.scopes, true FROM r WHERE NOT EXISTS (SELECT FROM fits)`)
	var row struct {
		grant
		Asked   pq.StringArray `db:"asked"`
		TooMuch bool           `db:"too_much"`
	}
	if err := p.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, p.invalidGrant(ctx, c, zoidc.GrantTypeRefreshToken, refreshCause(c, in.RefreshToken))
	} else if err != nil {
		return nil, fmt.Errorf("rotate refresh token: %w", err)
	}
	if row.TooMuch {
		return nil, &zoidc.Error{ErrorType: zoidc.InvalidScope, Description: "a scope was asked for that was never granted"}
	}
	return p.respond(ctx, c, &row.grant, row.Asked, tokens, nil)
}

// ClientCredentialsExchange implements op.Server: the grant is the client's own, without a person.
func (s *server) ClientCredentialsExchange(ctx context.Context, r *op.ClientRequest[zoidc.ClientCredentialsRequest]) (*op.Response, error) {
	c := r.Client.(libraryClient).Client
	scopes := []string{}
	for _, scope := range c.scopes(r.Data.Scope) {
		if scope != zoidc.ScopeOpenID && scope != zoidc.ScopeOfflineAccess { // there is nobody to tell of, nor to be away
			scopes = append(scopes, scope)
		}
	}
	tokens := newTokens()
	q := new(postgres.Query)
	q.With("g", fmt.Sprintf(`
		INSERT INTO grants AS g (id, client_id, sub, scopes, expires_at)
		SELECT %s, k.id, k.id, %s, wall() + make_interval(secs => %s) FROM clients k WHERE k.id = %s AND k.disabled_at IS NULL FOR SHARE
		RETURNING %s`,
		q.Bind(uuid.New())+"::uuid", q.Bind(pq.Array(scopes))+"::text[]", q.Bind(s.Lives.AccessToken.Seconds())+"::float8", q.Bind(c.ID)+"::text", grantColumns))
	s.storeOpaque(q, c, tokens, "g.scopes")
	audit.Record(ctx, q, "g", audit.Event{Name: "token.issue", Outcome: audit.Success, Reason: "client_credentials", Actor: "client", Client: c.ID},
		audit.Expressions{"object": "g.id::text"})
	q.Finally("SELECT * FROM g")
	var g grant
	if err := s.DB.Get(ctx, &g, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, s.refuse(ctx, errInvalidClient())
	} else if err != nil {
		return nil, s.refuse(ctx, fmt.Errorf("grant to client: %w", err))
	}
	tokens.refresh = "" // RFC 6749 section 4.4.3
	resp, err := s.respond(ctx, c, &g, scopes, tokens, nil)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	return resp, nil
}
