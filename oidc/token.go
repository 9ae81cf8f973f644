package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
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

// storeOpaque adds part `opaque`: the access token of grant part g, for clients that want opaque ones. scopes is an SQL expression.
func (p *Provider) storeOpaque(q *postgres.Query, c *caller, t issuedTokens, scopes string, less narrowed) {
	if c.Registration.AccessTokenFormat != "opaque" {
		return
	}
	details := "g.details"
	if less != nil {
		details = q.Bind(string(less)) + "::json"
	}
	q.With("opaque", fmt.Sprintf(`
		INSERT INTO access_tokens (hash, expires_at, grant_id, scopes, details, dpop_jkt)
		SELECT %s, least(wall() + make_interval(secs => %s), g.expires_at), g.id, %s, %s, %s FROM g`,
		q.Bind(t.opaqueHash)+"::bytea", q.Bind(p.Lives.AccessToken.Seconds())+"::float8", scopes, details, q.Bind(c.key())+"::text"))
}

// CodeExchange implements op.Server: one statement redeems the code, stores what follows from it, and ends the grant of a code that is used a second time.
func (s *server) CodeExchange(ctx context.Context, r *op.ClientRequest[zoidc.AccessTokenRequest]) (*op.Response, error) {
	c := r.Client.(libraryClient).caller
	if err := s.prove(ctx, c, r.Header); err != nil {
		return nil, s.refuse(ctx, err)
	}
	resp, err := s.redeem(ctx, c, r.Data, r.Form)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	return resp, nil
}

func (p *Provider) redeem(ctx context.Context, c *caller, in *zoidc.AccessTokenRequest, form url.Values) (*op.Response, error) {
	ctx = context.WithoutCancel(ctx) // a caller that hangs up must not leave the outcome in doubt
	tokens, challenge := newTokens(), ""
	if in.CodeVerifier != "" {
		if !isCodeVerifier(in.CodeVerifier) {
			challenge = "-" // matches nothing
		} else {
			challenge = s256(in.CodeVerifier)
		}
	}
	less, err := p.narrowed(ctx, c, "authz_codes", in.Code, form)
	if err != nil {
		return nil, err
	}
	q := new(postgres.Query)
	c.spend(q)
	key := q.Bind(c.key()) + "::text"
	// Locked, so that whoever comes second at the same moment waits and then sees the use that was first.
	q.With("seen", fmt.Sprintf("SELECT * FROM authz_codes WHERE hash = %s AND client_id = %s FOR UPDATE", q.Bind(hashed(in.Code))+"::bytea", q.Bind(c.ID)+"::text"))
	q.With("won", fmt.Sprintf(`
		UPDATE authz_codes c SET redeemed_at = wall() FROM seen
		 WHERE c.hash = seen.hash AND c.created_at = seen.created_at AND c.redeemed_at IS NULL AND c.expires_at > wall()
		RETURNING c.grant_id, c.nonce, convert_to(c.redirect_uri, 'UTF8') = %s AND c.code_challenge = %s AND (c.dpop_jkt IS NULL OR c.dpop_jkt = coalesce(%s, '')) AS is_right`,
		q.Bind([]byte(in.RedirectURI))+"::bytea", q.Bind(challenge)+"::text", key)) // bytes: what was sent need not be text
	q.With("g", "SELECT "+grantColumns+", won.nonce FROM grants g JOIN won ON won.grant_id = g.id WHERE won.is_right AND "+standing())
	q.With("refresh", fmt.Sprintf(`
		INSERT INTO refresh_tokens (hash, grant_id, client_id, expires_at, dpop_jkt)
		SELECT %s, g.id, g.client_id, g.expires_at, CASE WHEN %s THEN %s END FROM g WHERE 'offline_access' = ANY(g.scopes) AND %s RETURNING hash`,
		q.Bind(tokens.refreshHash)+"::bytea", q.Bind(c.public())+"::bool", key, q.Bind(c.may(zoidc.GrantTypeRefreshToken))+"::bool"))
	p.storeOpaque(q, c, tokens, "g.scopes", less)
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
		return nil, p.spent(ctx, c, fmt.Errorf("redeem code: %w", err))
	}
	if !row.Refreshable {
		tokens.refresh = ""
	}
	return p.respond(ctx, c, &row.grant, row.Scopes, less.of(&row.grant), tokens, row.Nonce)
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

// narrowed is what of authorization_details an access token gets; nil: all that the grant has.
type narrowed json.RawMessage

func (n narrowed) of(g *grant) json.RawMessage {
	if n == nil {
		return g.Details
	}
	return json.RawMessage(n)
}

// narrowed reads the authorization_details of a token request. It has to know first what was allowed by the code or token, of table, that came along; what it
// finds cannot change until that is redeemed, because grants keep what they were made with.
func (p *Provider) narrowed(ctx context.Context, c *caller, table, secret string, form url.Values) (narrowed, error) {
	if !form.Has("authorization_details") {
		return nil, nil
	}
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf("SELECT coalesce(g.details, '[]') FROM %s t JOIN grants g ON g.id = t.grant_id WHERE t.hash = %s AND t.client_id = %s LIMIT 1",
		table, q.Bind(hashed(secret))+"::bytea", q.Bind(c.ID)+"::text"))
	var allowed json.RawMessage
	switch err := p.DB.Get(ctx, &allowed, q); {
	case errors.Is(err, postgres.ErrNotFound): // refused later, for that
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up what was allowed: %w", err)
	}
	asked, e := p.narrow(ctx, c.Client, allowed, form.Get("authorization_details"))
	if e != nil {
		return nil, e
	}
	return narrowed(asked), nil
}

// tokenResponse is that of RFC 6749 section 5.1 and RFC 9396 section 7.
type tokenResponse struct {
	zoidc.AccessTokenResponse
	Details json.RawMessage `json:"authorization_details,omitempty"`
}

// respond mints the tokens of a grant.
func (p *Provider) respond(ctx context.Context, c *caller, g *grant, scopes []string, details json.RawMessage, tokens issuedTokens, nonce *string) (*op.Response, error) {
	access, err := p.accessToken(c, g, scopes, details, tokens.opaque)
	if err != nil {
		return nil, err
	}
	response := &tokenResponse{Details: details, AccessTokenResponse: zoidc.AccessTokenResponse{
		AccessToken: access, TokenType: zoidc.BearerToken, RefreshToken: tokens.refresh,
		ExpiresIn: uint64(p.accessExpiry(g).Sub(g.Now).Seconds()), Scope: scopes, //nolint:gosec // it is positive
	}}
	if c.proof != nil {
		response.TokenType = schemeDPoP
	}
	if g.Person != nil && slices.Contains(scopes, zoidc.ScopeOpenID) {
		profile, err := p.idTokenProfile(ctx, c.Client, g)
		if err != nil {
			return nil, err
		}
		if response.IDToken, err = p.idToken(c.Client, g, nonce, access, profile); err != nil {
			return nil, err
		}
	}
	return op.NewResponse(response), nil
}

// RefreshToken implements op.Server: one statement rotates the token. A token that is used a second time ends the whole line. A confidential client whose access
// tokens are bound to its key keeps its refresh token, which is worth nothing without its authentication: FAPI 2.0 Security Profile section 5.3.2.1.
func (s *server) RefreshToken(ctx context.Context, r *op.ClientRequest[zoidc.RefreshTokenRequest]) (*op.Response, error) {
	c := r.Client.(libraryClient).caller
	if err := s.prove(ctx, c, r.Header); err != nil {
		return nil, s.refuse(ctx, err)
	}
	resp, err := s.rotate(ctx, c, r.Data, r.Form)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	return resp, nil
}

func (p *Provider) rotate(ctx context.Context, c *caller, in *zoidc.RefreshTokenRequest, form url.Values) (*op.Response, error) {
	ctx = context.WithoutCancel(ctx)
	for _, scope := range in.Scopes {
		if !isScopeToken(scope) {
			return nil, &zoidc.Error{ErrorType: zoidc.InvalidScope, Description: "a scope is not one of RFC 6749 section 3.3"}
		}
	}
	less, err := p.narrowed(ctx, c, "refresh_tokens", in.RefreshToken, form)
	if err != nil {
		return nil, err
	}
	tokens, keeps := newTokens(), !c.public() && c.Registration.DPoPBound
	q := new(postgres.Query)
	c.spend(q)
	key := q.Bind(c.key()) + "::text"
	asked := "r.scopes"
	if len(in.Scopes) > 0 {
		asked = q.Bind(pq.Array([]string(in.Scopes))) + "::text[]"
	}
	// Locked, as a code is: a token that is used twice at the same moment ends its line like one that is used twice in a row (RFC 9700 section 4.14.2). A thief
	// who is as fast as the client must not be what keeps the theft unseen, and here nothing tells the two apart from a client that asks twice. The latter
	// signs in again; there is no grace in which both would go on, because then two lines live.
	q.With("seen", fmt.Sprintf("SELECT * FROM refresh_tokens WHERE hash = %s AND client_id = %s FOR UPDATE", q.Bind(hashed(in.RefreshToken))+"::bytea", q.Bind(c.ID)+"::text"))
	q.With("r", "SELECT g.id, g.scopes FROM grants g JOIN seen ON seen.grant_id = g.id WHERE seen.used_at IS NULL AND seen.expires_at > wall() AND (seen.dpop_jkt IS NULL OR seen.dpop_jkt = coalesce("+key+", '')) AND "+standing())
	q.With("fits", fmt.Sprintf("SELECT id, %[1]s AS asked FROM r WHERE %[1]s <@ r.scopes", asked))
	if keeps {
		tokens.refresh = ""
		q.With("won", "SELECT seen.grant_id, fits.asked FROM seen, fits")
	} else {
		q.With("won", `
			UPDATE refresh_tokens t SET used_at = wall() FROM seen, fits
			 WHERE t.hash = seen.hash AND t.used_at IS NULL RETURNING t.grant_id, t.expires_at, t.dpop_jkt, fits.asked`)
		q.With("next", fmt.Sprintf(`
			INSERT INTO refresh_tokens (hash, grant_id, client_id, expires_at, dpop_jkt)
			SELECT %s, grant_id, %s, expires_at, CASE WHEN %s THEN %s END FROM won`,
			q.Bind(tokens.refreshHash)+"::bytea", q.Bind(c.ID)+"::text", q.Bind(c.public())+"::bool", key))
	}
	q.With("g", "SELECT "+grantColumns+", won.asked FROM grants g JOIN won ON won.grant_id = g.id")
	p.storeOpaque(q, c, tokens, "g.asked", less)
	q.With("ended", `
		UPDATE grants g SET revoked_at = greatest(wall(), seen.used_at), revoke_reason = 'refresh_token_reused'
		  FROM seen WHERE g.id = seen.grant_id AND seen.used_at IS NOT NULL AND g.revoked_at IS NULL RETURNING g.id, g.subscriber_id, g.client_id`)
	audit.Record(ctx, q, "ended", audit.Event{Name: "grant.revoke", Outcome: audit.Refused, Reason: "refresh_token_reused", Actor: "client"},
		audit.Expressions{"subject": "ended.subscriber_id", "client_id": "ended.client_id", "object": "ended.id::text"})
	audit.Record(ctx, q, "g", audit.Event{Name: "token.issue", Outcome: audit.Success, Reason: "refresh_token", Actor: "client", Client: c.ID},
		audit.Expressions{"subject": "g.subscriber_id", "object": "g.id::text"})
	// One row, or none: the grant, or a mark that more was asked for than it has.
	q.Finally(`SELECT g.*, false AS too_much FROM g UNION ALL
		SELECT r.id, '', '', NULL, NULL, r.scopes, NULL, NULL, NULL, NULL, NULL, NULL, NULL, wall(), wall(), r.scopes, true FROM r WHERE NOT EXISTS (SELECT FROM fits)`)
	var row struct {
		grant
		Asked   pq.StringArray `db:"asked"`
		TooMuch bool           `db:"too_much"`
	}
	if err := p.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, p.invalidGrant(ctx, c, zoidc.GrantTypeRefreshToken, refreshCause(c, in.RefreshToken))
	} else if err != nil {
		return nil, p.spent(ctx, c, fmt.Errorf("rotate refresh token: %w", err))
	}
	if row.TooMuch {
		return nil, &zoidc.Error{ErrorType: zoidc.InvalidScope, Description: "a scope was asked for that was never granted"}
	}
	return p.respond(ctx, c, &row.grant, row.Asked, less.of(&row.grant), tokens, nil)
}

// ClientCredentialsExchange implements op.Server: the grant is the client's own, without a person.
func (s *server) ClientCredentialsExchange(ctx context.Context, r *op.ClientRequest[zoidc.ClientCredentialsRequest]) (*op.Response, error) {
	c := r.Client.(libraryClient).caller
	if err := s.prove(ctx, c, r.Header); err != nil {
		return nil, s.refuse(ctx, err)
	}
	if r.Form.Has("authorization_details") {
		return nil, s.refuse(ctx, errDetails("details are allowed by a person, and there is none"))
	}
	scopes := []string{}
	for _, scope := range c.scopes(r.Data.Scope) {
		if scope != zoidc.ScopeOpenID && scope != zoidc.ScopeOfflineAccess { // there is nobody to tell of, nor to be away
			scopes = append(scopes, scope)
		}
	}
	tokens := newTokens()
	q := new(postgres.Query)
	c.spend(q)
	q.With("g", fmt.Sprintf(`
		INSERT INTO grants AS g (id, client_id, sub, scopes, expires_at)
		SELECT %s, k.id, k.id, %s, wall() + make_interval(secs => %s) FROM clients k WHERE k.id = %s AND k.disabled_at IS NULL FOR SHARE
		RETURNING %s`,
		q.Bind(uuid.New())+"::uuid", q.Bind(pq.Array(scopes))+"::text[]", q.Bind(s.Lives.AccessToken.Seconds())+"::float8", q.Bind(c.ID)+"::text", grantColumns))
	s.storeOpaque(q, c, tokens, "g.scopes", nil)
	audit.Record(ctx, q, "g", audit.Event{Name: "token.issue", Outcome: audit.Success, Reason: "client_credentials", Actor: "client", Client: c.ID},
		audit.Expressions{"object": "g.id::text"})
	q.Finally("SELECT * FROM g")
	var g grant
	if err := s.DB.Get(ctx, &g, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, s.refuse(ctx, errInvalidClient())
	} else if err != nil {
		return nil, s.refuse(ctx, s.spent(ctx, c, fmt.Errorf("grant to client: %w", err)))
	}
	tokens.refresh = "" // RFC 6749 section 4.4.3
	resp, err := s.respond(ctx, c, &g, scopes, nil, tokens, nil)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	return resp, nil
}
