package oidc

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/lib/pq"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/keyring"
)

// accessTokenAlg signs access tokens: a signature of RS256 costs as much as 24 of these.
const accessTokenAlg = string(jose.ES256)

// maxToken bounds what is parsed as a token of ours.
const maxToken = 8 << 10

// grant is a row of grants, with the database's time.
type grant struct {
	ID        uuid.UUID      `db:"id"`
	ClientID  string         `db:"client_id"`
	Sub       string         `db:"sub"`
	Person    *uuid.UUID     `db:"subscriber_id"`
	SID       *string        `db:"sid"`
	Scopes    pq.StringArray `db:"scopes"`
	ACR       *string        `db:"acr"`
	AMR       pq.StringArray `db:"amr"`
	AuthTime  *time.Time     `db:"auth_time"`
	Claims    []byte         `db:"claims"`
	Details   []byte         `db:"details"`
	Payment   *uuid.UUID     `db:"transaction_id"`
	Record    []byte         `db:"transaction_hash"` // of Payment
	ExpiresAt time.Time      `db:"expires_at"`
	Now       time.Time      `db:"now"`
}

// grantColumns of a row g.
const grantColumns = `g.id, g.client_id, g.sub, g.subscriber_id, g.sid, g.scopes, g.acr, g.amr, g.auth_time, g.claims, g.details, g.transaction_id, (SELECT t.hash FROM transactions t WHERE t.id = g.transaction_id) AS transaction_hash, g.expires_at, wall() AS now`

// authentication are the claims that say what happened: OpenID Connect Core section 2, RFC 9068 section 2.2.1. They are the same in every token of
// a grant.
type authentication struct {
	ACR      string   `json:"acr,omitempty"`
	AMR      []string `json:"amr,omitempty"`
	AuthTime int64    `json:"auth_time,omitempty"`
	SID      string   `json:"sid,omitempty"`
	// Transaction is the payment that the grant rests on: RFC 8417 section 2.2 has the name. SHA256 is the hash of its record, as in its signed result.
	Transaction string `json:"txn,omitempty"`
	SHA256      string `json:"transaction_sha256,omitempty"`
}

func (g *grant) authentication() (a authentication) {
	if g.Person == nil {
		return a
	}
	if g.ACR != nil {
		a.ACR = *g.ACR
	}
	if g.AuthTime != nil {
		a.AuthTime = g.AuthTime.Unix()
	}
	if g.SID != nil {
		a.SID = *g.SID
	}
	if g.Payment != nil {
		a.Transaction, a.SHA256 = transaction.PublicID(*g.Payment), base64.RawURLEncoding.EncodeToString(g.Record)
	}
	a.AMR = g.AMR
	return a
}

// accessClaims are those of RFC 9068 section 2.2.
type accessClaims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	ClientID string `json:"client_id"`
	IssuedAt int64  `json:"iat"`
	Expiry   int64  `json:"exp"`
	ID       string `json:"jti"`
	Scope    string `json:"scope,omitempty"`
	bound
	authentication
}

// bound is what else a token says of itself: what was allowed beside scopes (RFC 9396 section 9), and the key that it works with alone (RFC 9449 section 6).
type bound struct {
	Details      json.RawMessage `json:"authorization_details,omitempty"`
	Confirmation *confirmation   `json:"cnf,omitempty"`
}

type confirmation struct {
	Thumbprint string `json:"jkt"`
}

func boundTo(key *string, details []byte) bound {
	b := bound{Details: details}
	if key != nil {
		b.Confirmation = &confirmation{*key}
	}
	return b
}

// key is the thumbprint of the key; "": whoever has the token may use it.
func (b bound) key() string {
	if b.Confirmation == nil {
		return ""
	}
	return b.Confirmation.Thumbprint
}

// tokenID makes the jti of a signed access token: the grant's id and 128 random bits. It says nothing to anybody else, and lets this server's own
// endpoints see at once whether the grant still stands.
func tokenID(g uuid.UUID) string {
	raw := make([]byte, 32)
	copy(raw, g[:])
	rand.Read(raw[16:]) //nolint:errcheck // it never fails
	return base64.RawURLEncoding.EncodeToString(raw)
}

// grantOf reads the grant out of a jti of [tokenID].
func grantOf(id string) (uuid.UUID, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(raw) != 32 || base64.RawURLEncoding.EncodeToString(raw) != id {
		return uuid.Nil, false
	}
	return uuid.UUID(raw[:16]), true
}

// accessToken is a new access token of a grant. For a client that wants opaque ones it was stored already, in the statement that found the grant.
func (p *Provider) accessToken(c *caller, g *grant, scopes []string, details []byte, opaque string) (string, error) {
	if c.Registration.AccessTokenFormat == "opaque" {
		return opaque, nil
	}
	return p.sign(accessTokenAlg, true, accessClaims{
		Issuer: p.Issuer, Subject: g.Sub, Audience: p.Issuer, ClientID: c.ID, IssuedAt: g.Now.Unix(),
		Expiry: p.accessExpiry(g).Unix(), ID: tokenID(g.ID), Scope: strings.Join(scopes, " "), bound: boundTo(c.key(), details), authentication: g.authentication(),
	})
}

// accessExpiry is never later than the grant's own.
func (p *Provider) accessExpiry(g *grant) time.Time {
	if at := g.Now.Add(p.Lives.AccessToken); at.Before(g.ExpiresAt) {
		return at
	}
	return g.ExpiresAt
}

// idToken is the ID Token of a grant: OpenID Connect Core section 2. profile are the claims that were asked for it by name.
func (p *Provider) idToken(c *Client, g *grant, nonce *string, accessToken string, profile map[string]any) (string, error) {
	claims := map[string]any{}
	for name, value := range profile {
		claims[name] = value
	}
	for name, value := range map[string]any{"iss": p.Issuer, "sub": g.Sub, "aud": c.ID, "iat": g.Now.Unix(), "exp": g.Now.Add(p.Lives.IDToken).Unix()} {
		claims[name] = value
	}
	a := g.authentication()
	claims["acr"], claims["amr"], claims["auth_time"] = a.ACR, a.AMR, a.AuthTime
	if a.SID != "" { // who confirmed something for an application that is elsewhere has no session with it
		claims["sid"] = a.SID
	}
	if nonce != nil {
		claims["nonce"] = *nonce
	}
	if a.Transaction != "" {
		claims["txn"], claims["transaction_sha256"] = a.Transaction, a.SHA256
	}
	claims["at_hash"] = atHash(c.Registration.IDTokenAlg, accessToken)
	return p.sign(c.Registration.IDTokenAlg, false, claims)
}

// atHash is the left half of the hash that belongs to the algorithm: OpenID Connect Core section 3.1.3.6.
func atHash(alg, accessToken string) string {
	if alg == string(jose.EdDSA) { // Ed25519 hashes with SHA-512
		sum := sha512.Sum512([]byte(accessToken))
		return base64.RawURLEncoding.EncodeToString(sum[:32])
	}
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (p *Provider) sign(alg string, access bool, claims any) (string, error) {
	s, err := p.Keys.signer(alg)
	if err != nil {
		return "", fmt.Errorf("sign with %s: %w", alg, err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	with := s.Signer
	if access {
		with = s.at
	}
	signed, err := with.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign with %s: %w", alg, err)
	}
	return signed.CompactSerialize()
}

// errNotOurs says that a token was not signed by this provider, or not for this use.
var errNotOurs = errors.New("oidc: not a token of this provider")

// plainHeader reports whether the header of a JWS neither brings a key nor says where one is, nor asks to be read otherwise than others. Keys are
// configuration: RFC 8725 section 3.10. It reads the header itself, because the library keeps x5c from its callers.
func plainHeader(raw string, except ...string) bool {
	encoded, _, _ := strings.Cut(raw, ".")
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	var header map[string]json.RawMessage
	if err != nil || json.Unmarshal(data, &header) != nil {
		return false
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "zip"} {
		if _, has := header[name]; has && !slices.Contains(except, name) {
			return false
		}
	}
	return true
}

// verify checks that raw is a JWT of this provider with the given typ, by a published key and the algorithm of that key, and decodes it into claims.
func (p *Provider) verify(raw, typ string, claims any) error {
	if len(raw) > maxToken || strings.Count(raw, ".") != 2 {
		return errNotOurs
	}
	signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA})
	if err != nil || len(signed.Signatures) != 1 {
		return errNotOurs
	}
	header := signed.Signatures[0].Protected
	if header.ExtraHeaders[jose.HeaderType] != typ || !plainHeader(raw) {
		return errNotOurs
	}
	key, ok := p.Keys.key(header.KeyID)
	if !ok || key.Algorithm != header.Algorithm {
		return errNotOurs
	}
	payload, err := signed.Verify(key)
	if err != nil || json.Unmarshal(payload, claims) != nil {
		return errNotOurs
	}
	return nil
}

// hintClaims are what is read of an ID Token that comes back as a hint.
type hintClaims struct {
	Issuer   string         `json:"iss"`
	Subject  string         `json:"sub"`
	Audience zoidc.Audience `json:"aud"`
	SID      string         `json:"sid"`
}

// hint reads an ID Token that this provider issued, expired or not.
func (p *Provider) hint(raw string) (claims hintClaims, err error) {
	if err := p.verify(raw, "JWT", &claims); err != nil {
		return claims, err
	}
	if claims.Issuer != p.Issuer || len(claims.Audience) != 1 || claims.Subject == "" {
		return claims, errNotOurs
	}
	return claims, nil
}

// newToken makes a bearer secret and what is stored of it.
func newToken() (token string, hash []byte) {
	token = keyring.Token()
	return token, hashed(token)
}
