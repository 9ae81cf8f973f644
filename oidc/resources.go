package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/lib/pq"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// scopeClaims are the claims that a scope asks for: OpenID Connect Core section 5.4.
func scopeClaims(scope string) []string {
	switch scope {
	case zoidc.ScopeProfile:
		return []string{"name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture", "website", "gender",
			"birthdate", "zoneinfo", "locale", "updated_at"}
	case zoidc.ScopeEmail:
		return []string{"email", "email_verified"}
	case zoidc.ScopeAddress:
		return []string{"address"}
	case zoidc.ScopePhone:
		return []string{"phone_number", "phone_number_verified"}
	}
	return nil
}

// scopeOf is the scope that brings a claim; "" for a claim that is no part of a profile.
func scopeOf(claim string) string {
	for _, scope := range Scopes() {
		if slices.Contains(scopeClaims(scope), claim) {
			return scope
		}
	}
	return ""
}

// profileClaims lists all claims that a profile can have.
func profileClaims() (all []string) {
	for _, scope := range Scopes() {
		all = append(all, scopeClaims(scope)...)
	}
	return all
}

// found is an access token that is good now.
type found struct {
	grant
	Token   pq.StringArray `db:"token_scopes"`
	Expires int64          `db:"expires"`
	Issued  int64          `db:"issued"`
	JTI     string         `db:"-"`
	Kind    string         `db:"kind"` // access_token or refresh_token
	Key     *string        `db:"dpop_jkt"`
	Allowed []byte         `db:"token_details"`
}

// find looks a token up for c, signed or opaque, in one round trip; nil when it is not good. Refresh tokens are found only if withRefresh.
func (p *Provider) find(ctx context.Context, c *caller, token string, withRefresh bool) (*found, error) {
	if len(token) > maxToken {
		return nil, nil
	}
	q := new(postgres.Query)
	c.spend(q)
	var claims accessClaims
	if strings.Contains(token, ".") {
		if err := p.verify(token, "at+jwt", &claims); err != nil || claims.Issuer != p.Issuer || claims.Audience != p.Issuer {
			return nil, nil //nolint:nilerr // what is not a token of ours is no fault of ours
		}
		id, ok := grantOf(claims.ID)
		if !ok {
			return nil, nil
		}
		q.Finally(fmt.Sprintf(`SELECT %s, %s AS token_scopes, %s AS expires, %s AS issued, 'access_token' AS kind, NULL AS dpop_jkt, NULL AS token_details FROM grants g
			WHERE g.id = %s AND %s AND to_timestamp(%s) > wall()
			  AND NOT EXISTS (SELECT FROM access_tokens r WHERE r.hash = %s AND r.revoked_at IS NOT NULL)`,
			grantColumns, q.Bind(pq.Array(strings.Fields(claims.Scope)))+"::text[]", q.Bind(claims.Expiry)+"::bigint", q.Bind(claims.IssuedAt)+"::bigint",
			q.Bind(id)+"::uuid", standing(), q.Bind(claims.Expiry)+"::float8", q.Bind(hashed(claims.ID))+"::bytea"))
	} else {
		hash := q.Bind(hashed(token)) + "::bytea"
		statement := fmt.Sprintf(`SELECT %s, t.scopes AS token_scopes, extract(epoch FROM t.expires_at)::bigint AS expires,
			extract(epoch FROM t.created_at)::bigint AS issued, 'access_token' AS kind, t.dpop_jkt, t.details AS token_details FROM access_tokens t JOIN grants g ON g.id = t.grant_id
			WHERE t.hash = %s AND t.expires_at > wall() AND t.revoked_at IS NULL AND %s`, grantColumns, hash, standing())
		if withRefresh {
			statement += fmt.Sprintf(` UNION ALL SELECT %s, g.scopes, extract(epoch FROM t.expires_at)::bigint, extract(epoch FROM t.created_at)::bigint, 'refresh_token', t.dpop_jkt, g.details
				FROM refresh_tokens t JOIN grants g ON g.id = t.grant_id
				WHERE t.hash = %s AND t.expires_at > wall() AND t.used_at IS NULL AND %s`, grantColumns, hash, standing())
		}
		q.Finally(statement)
	}
	f := new(found)
	if err := p.DB.Get(ctx, f, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, p.spent(ctx, c, fmt.Errorf("look up token: %w", err))
	}
	if f.JTI = claims.ID; f.JTI != "" {
		f.Allowed = claims.Details
		if key := claims.key(); key != "" {
			f.Key = &key
		}
	}
	return f, nil
}

// present finds the access token of a request to a resource of ours. A token that is bound to a key comes under the scheme DPoP with a proof by that key, any other
// under Bearer: RFC 9449 section 7.
func (s *server) present(ctx context.Context, header http.Header, path, token string) (*found, error) {
	channel, c := channelOf(ctx), new(caller)
	if channel.bound {
		var err error
		if c.proof, err = s.readProof(ctx, header, channel.method, path, token); err == nil && c.proof == nil {
			err = errProof("send a DPoP proof")
		}
		if err != nil {
			return nil, s.challenge(ctx, err)
		}
	}
	f, err := s.find(ctx, c, token, false)
	if err != nil {
		return nil, s.challenge(ctx, err)
	}
	if f == nil {
		return nil, s.challenge(ctx, errInvalidToken())
	}
	if (f.Key != nil) != channel.bound || channel.bound && *f.Key != c.proof.key {
		channel.bound = true // and told how to come
		return nil, s.challenge(ctx, errInvalidToken())
	}
	return f, nil
}

// challenge is [Provider.refuse] for a resource: what is wrong with a proof is 401 there, under the scheme that the token came by.
func (s *server) challenge(ctx context.Context, err error) error {
	err = s.refuse(ctx, err)
	e, ok := errors.AsType[*zoidc.Error](err)
	if channel := channelOf(ctx); ok && channel.bound {
		channel.challenge = dpopChallenge(string(e.ErrorType))
		if e.ErrorType != temporarilyUnavailable && e.ErrorType != zoidc.ServerError {
			return op.NewStatusError(e, http.StatusUnauthorized)
		}
	}
	return err
}

// Application is the id of the client that an access token was issued to, to act for itself (RFC 6749 section 4.4); "" for a token that is good for nothing, for one that a person is
// behind, and for one that is bound to a key: those come with a proof, to other endpoints.
func (p *Provider) Application(ctx context.Context, token string) (string, error) {
	f, err := p.find(ctx, new(caller), token, false)
	if f == nil || err != nil || f.Person != nil || f.Key != nil {
		return "", err
	}
	return f.ClientID, nil
}

// Caller is the client that a request to another API of ours comes from, and the scopes of its token: an access token that it got for itself (RFC 6749 section 4.4), as a bearer token or with a
// proof by the key that it is bound to (RFC 9449 section 7). "": the token is missing or good for nothing, which the header WWW-Authenticate of w says then.
func (p *Provider) Caller(w http.ResponseWriter, r *http.Request) (client string, scopes []string, err error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	bound := strings.EqualFold(scheme, schemeDPoP)
	if !bound && !strings.EqualFold(scheme, zoidc.BearerToken) || token == "" || len(r.Header.Values("Authorization")) != 1 {
		w.Header().Set("WWW-Authenticate", zoidc.BearerToken)
		w.Header().Add("WWW-Authenticate", dpopChallenge(""))
		return "", nil, nil
	}
	refuse := func(code string) {
		w.Header().Set("WWW-Authenticate", zoidc.BearerToken+` error="`+code+`"`)
		if bound {
			w.Header().Set("WWW-Authenticate", dpopChallenge(code))
		}
	}
	c := new(caller)
	ctx := context.WithValue(r.Context(), channelKey{}, &backChannel{ResponseWriter: w})
	if bound {
		c.proof, err = p.readProof(ctx, r.Header, r.Method, r.URL.EscapedPath(), token)
		if err == nil && c.proof == nil {
			err = errProof("a proof is missing")
		}
	}
	var f *found
	if err == nil {
		f, err = p.find(ctx, c, token, false)
	}
	if e, ok := errors.AsType[*zoidc.Error](err); ok && e.ErrorType != temporarilyUnavailable && e.ErrorType != zoidc.ServerError {
		refuse(string(e.ErrorType))
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	if f == nil || f.Person != nil || (f.Key != nil) != bound || bound && *f.Key != c.proof.key {
		refuse(invalidToken)
		return "", nil, nil
	}
	return f.ClientID, f.Token, nil
}

// UserInfo implements op.Server: OpenID Connect Core section 5.3.
func (s *server) UserInfo(ctx context.Context, r *op.Request[zoidc.UserInfoRequest]) (*op.Response, error) {
	f, err := s.present(ctx, r.Header, userinfoPath, r.Data.AccessToken)
	if err != nil {
		return nil, err
	}
	if f.Person == nil || !slices.Contains(f.Token, zoidc.ScopeOpenID) {
		return nil, s.refuse(ctx, errInvalidToken())
	}
	c, err := s.Clients.Get(ctx, f.ClientID)
	if errors.Is(err, ErrNoClient) {
		return nil, s.refuse(ctx, errInvalidToken())
	}
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	wanted := []string{}
	for _, scope := range c.scopes(f.Token) { // the registration as it is now
		wanted = append(wanted, scopeClaims(scope)...)
	}
	var claims claimsRequest
	if len(f.Claims) > 0 && json.Unmarshal(f.Claims, &claims) == nil {
		for name := range claims.within(c.Registration.Scopes).UserInfo {
			wanted = append(wanted, name)
		}
	}
	profile, err := s.SignIns.ProfileOf(ctx, *f.Person)
	if errors.Is(err, authn.ErrNoSubscriber) {
		return nil, s.refuse(ctx, errInvalidToken())
	}
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	answer := pick(profile, wanted)
	answer["sub"] = f.Sub
	return op.NewResponse(answer), nil
}

// idTokenProfile are the claims that were asked for by name in the ID Token. Nothing personal is in it otherwise.
func (p *Provider) idTokenProfile(ctx context.Context, c *Client, g *grant) (map[string]any, error) {
	var claims claimsRequest
	if len(g.Claims) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(g.Claims, &claims); err != nil {
		return nil, fmt.Errorf("claims of grant: %w", err)
	}
	var wanted []string
	for name := range claims.within(c.Registration.Scopes).IDToken {
		wanted = append(wanted, name)
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	profile, err := p.SignIns.ProfileOf(ctx, *g.Person)
	if err != nil {
		return nil, err
	}
	return pick(profile, wanted), nil
}

// pick takes of a profile what is wanted and there. Empty values are left out: OpenID Connect Core section 5.3.2.
func pick(profile authn.Profile, wanted []string) map[string]any {
	all := profileClaims()
	picked := map[string]any{}
	for _, name := range wanted {
		if value, ok := profile[name]; ok && value != nil && value != "" && slices.Contains(all, name) {
			picked[name] = value
		}
	}
	return picked
}

// introspection is the answer of RFC 7662 section 2.2.
type introspection struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	Expiry    int64  `json:"exp,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	ID        string `json:"jti,omitempty"`
	bound
	*authentication
}

// Introspect implements op.Server. A client learns of its own tokens only.
func (s *server) Introspect(ctx context.Context, r *op.Request[op.IntrospectionRequest]) (*op.Response, error) {
	c, err := s.authenticate(ctx, r.Header, r.Form, r.Data.ClientCredentials)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	f, err := s.find(ctx, c, r.Data.Token, true)
	if err != nil {
		return nil, s.refuse(ctx, err)
	}
	if f == nil || f.ClientID != c.ID || c.public() {
		return op.NewResponse(introspection{}), nil
	}
	a := f.authentication()
	answer := introspection{Active: true, Scope: strings.Join(f.Token, " "), ClientID: f.ClientID, Expiry: f.Expires, IssuedAt: f.Issued, Subject: f.Sub,
		Issuer: s.Issuer, ID: f.JTI, bound: boundTo(f.Key, f.Allowed), authentication: &a}
	if f.Kind == "access_token" {
		answer.TokenType, answer.Audience = zoidc.BearerToken, s.Issuer
		if f.Key != nil {
			answer.TokenType = schemeDPoP
		}
	}
	return op.NewResponse(answer), nil
}

// Revocation implements op.Server: RFC 7009. A refresh token takes its whole grant along; an access token goes alone. Tokens of others, and
// what is no token, are answered alike and left as they are.
func (s *server) Revocation(ctx context.Context, r *op.ClientRequest[zoidc.RevocationRequest]) (*op.Response, error) {
	c, token := r.Client.(libraryClient).caller, r.Data.Token
	ctx = context.WithoutCancel(ctx)
	if len(token) > maxToken {
		return op.NewResponse(struct{}{}), nil
	}
	q := new(postgres.Query)
	c.spend(q)
	client := q.Bind(c.ID) + "::text"
	var claims accessClaims
	if strings.Contains(token, ".") {
		id := uuid.Nil
		if s.verify(token, "at+jwt", &claims) == nil && claims.Issuer == s.Issuer {
			id, _ = grantOf(claims.ID)
		}
		q.With("revoked", fmt.Sprintf(`
			INSERT INTO access_tokens (hash, expires_at, grant_id, scopes, revoked_at)
			SELECT %s, to_timestamp(%s), g.id, '{}', wall() FROM grants g WHERE g.id = %s AND g.client_id = %s RETURNING grant_id AS id`,
			q.Bind(hashed(claims.ID))+"::bytea", q.Bind(claims.Expiry)+"::float8", q.Bind(id)+"::uuid", client))
	} else {
		hash := q.Bind(hashed(token)) + "::bytea"
		q.With("opaque", fmt.Sprintf(`
			UPDATE access_tokens t SET revoked_at = coalesce(t.revoked_at, wall()) FROM grants g
			 WHERE t.hash = %s AND g.id = t.grant_id AND g.client_id = %s RETURNING g.id`, hash, client))
		q.With("family", fmt.Sprintf(`
			UPDATE grants g SET revoked_at = coalesce(g.revoked_at, wall()), revoke_reason = coalesce(g.revoke_reason, 'revoked_by_client')
			  FROM refresh_tokens t WHERE t.hash = %s AND t.grant_id = g.id AND t.client_id = %s RETURNING g.id`, hash, client))
		q.With("revoked", "SELECT id FROM opaque UNION ALL SELECT id FROM family")
	}
	audit.Record(ctx, q, "revoked", audit.Event{Name: "token.revoke", Outcome: audit.Success, Actor: "client", Client: c.ID},
		audit.Expressions{"object": "revoked.id::text"})
	q.Finally("SELECT 1 FROM revoked")
	if _, err := s.DB.Run(ctx, q); err != nil {
		return nil, s.refuse(ctx, s.spent(ctx, c, fmt.Errorf("revoke token: %w", err))) // never 200 while the token still works
	}
	return op.NewResponse(struct{}{}), nil
}

// Keys implements op.Server.
func (s *server) Keys(context.Context, *op.Request[struct{}]) (*op.Response, error) {
	return op.NewResponse(s.Provider.Keys.public()), nil
}

// backDiscovery is the metadata of CIBA Core 1.0 section 4.
type backDiscovery struct {
	Endpoint    string   `json:"backchannel_authentication_endpoint"`
	Modes       []string `json:"backchannel_token_delivery_modes_supported"`
	RequestAlgs []string `json:"backchannel_authentication_request_signing_alg_values_supported"`
	UserCode    bool     `json:"backchannel_user_code_parameter_supported"`
}

// discovery is the metadata of OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2, RFC 9126 section 5, RFC 9207 section 3, RFC 9396 section 10 and
// RFC 9449 section 5.1.
type discovery struct {
	zoidc.DiscoveryConfiguration
	PushEndpoint string   `json:"pushed_authorization_request_endpoint"`
	RequirePush  bool     `json:"require_pushed_authorization_requests"`
	DetailTypes  []string `json:"authorization_details_types_supported,omitempty"`
	ProofAlgs    []string `json:"dpop_signing_alg_values_supported"`
	IssParameter bool     `json:"authorization_response_iss_parameter_supported"`
	Prompts      []string `json:"prompt_values_supported"` // Initiating User Registration 1.0 section 3
	*backDiscovery
}

// Discovery implements op.Server.
func (s *server) Discovery(context.Context, *op.Request[struct{}]) (*op.Response, error) {
	methods := []zoidc.AuthMethod{zoidc.AuthMethodBasic, zoidc.AuthMethodPost, zoidc.AuthMethodPrivateKeyJWT}
	var algs, proofs []string
	for _, alg := range assertionAlgs {
		algs = append(algs, string(alg))
	}
	for _, alg := range proofAlgs {
		proofs = append(proofs, string(alg))
	}
	var locales zoidc.Locales
	for _, l := range s.Locales {
		locales = append(locales, zoidc.ParseLocales([]string{l})...)
	}
	var back *backDiscovery
	grants := grantTypes()
	if s.Backchannel != nil {
		back = &backDiscovery{Endpoint: s.Issuer + askBackPath, Modes: []string{DeliveryPoll, DeliveryPing}}
		for _, alg := range requestAlgs {
			back.RequestAlgs = append(back.RequestAlgs, string(alg))
		}
	} else {
		grants = slices.DeleteFunc(grants, func(g zoidc.GrantType) bool { return g == GrantTypeCIBA })
	}
	return op.NewResponse(discovery{
		DiscoveryConfiguration: zoidc.DiscoveryConfiguration{
			Issuer: s.Issuer, AuthorizationEndpoint: s.Issuer + authorizePath, TokenEndpoint: s.Issuer + tokenPath,
			IntrospectionEndpoint: s.Issuer + introspectPath, UserinfoEndpoint: s.Issuer + userinfoPath, RevocationEndpoint: s.Issuer + revokePath,
			EndSessionEndpoint: s.Issuer + endSessionPath, JwksURI: s.Issuer + jwksPath,
			ScopesSupported: Scopes(), ResponseTypesSupported: []string{string(zoidc.ResponseTypeCode)}, ResponseModesSupported: []string{"query", "form_post"},
			GrantTypesSupported: grants, ACRValuesSupported: s.Levels.Supported(s.SignIns.Reach()), SubjectTypesSupported: []string{"public"},
			IDTokenSigningAlgValuesSupported: idTokenAlgs, ClaimTypesSupported: []string{"normal"},
			ClaimsSupported:                   append([]string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash"}, profileClaims()...),
			ClaimsParameterSupported:          true,
			TokenEndpointAuthMethodsSupported: append(slices.Clone(methods), zoidc.AuthMethodNone), TokenEndpointAuthSigningAlgValuesSupported: algs,
			RevocationEndpointAuthMethodsSupported: append(slices.Clone(methods), zoidc.AuthMethodNone), RevocationEndpointAuthSigningAlgValuesSupported: algs,
			IntrospectionEndpointAuthMethodsSupported: methods, IntrospectionEndpointAuthSigningAlgValuesSupported: algs,
			CodeChallengeMethodsSupported: []zoidc.CodeChallengeMethod{zoidc.CodeChallengeMethodS256},
			UILocalesSupported:            locales,
		},
		PushEndpoint: s.Issuer + pushPath, RequirePush: s.RequirePush, DetailTypes: s.detailTypes(), ProofAlgs: proofs,
		IssParameter: true, Prompts: []string{"none", "login", "consent"}, backDiscovery: back,
	}), nil
}
