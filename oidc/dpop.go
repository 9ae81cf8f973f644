package oidc

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Bounds on DPoP proofs: RFC 9449 section 11.1.
const (
	proofLife = time.Minute     // after iat
	nonceLife = 5 * time.Minute // a proof with a nonce of ours is as old as that, whatever the client's clock says
	maxProof  = 8 << 10
)

// proofAlgs are those that proofs may be signed with: FAPI 2.0 Security Profile section 5.4.
var proofAlgs = []jose.SignatureAlgorithm{jose.ES256, jose.PS256, jose.EdDSA}

// Schemes of RFC 9449 section 7.1 and RFC 6750, as token_type too.
const schemeDPoP = "DPoP"

func errProof(description string) *zoidc.Error {
	return &zoidc.Error{ErrorType: "invalid_dpop_proof", Description: description}
}

// proof is a DPoP proof that is right in everything, but for whether it was seen before: the statement that does what was asked stores it, see [caller.spend].
type proof struct {
	key  string // thumbprint of the key that signed it, RFC 7638
	hash []byte
}

// proofClaims are those of RFC 9449 section 4.2.
type proofClaims struct {
	ID       string           `json:"jti"`
	Method   string           `json:"htm"`
	URI      string           `json:"htu"`
	IssuedAt *jwt.NumericDate `json:"iat"`
	Token    string           `json:"ath"`
	Nonce    string           `json:"nonce"`
}

// readProof checks the DPoP proof of a request to one of our endpoints, nil if there is none: RFC 9449 section 4.3. token is the access token that came along, "" at the
// token endpoint.
func (p *Provider) readProof(ctx context.Context, header http.Header, method, path, token string) (*proof, error) {
	values := header.Values("DPoP")
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > 1 || len(values[0]) > maxProof {
		return nil, errProof("send one DPoP proof")
	}
	raw := values[0]
	signed, err := jose.ParseSignedCompact(raw, proofAlgs)
	if err != nil || len(signed.Signatures) != 1 {
		return nil, errProof("the proof is not a JWS that is signed with ES256, PS256 or EdDSA")
	}
	protected := signed.Signatures[0].Protected
	key := protected.JSONWebKey
	switch {
	case protected.ExtraHeaders[jose.HeaderType] != "dpop+jwt":
		return nil, errProof("the proof is not of typ dpop+jwt")
	case key == nil || checkKeys(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{*key}}) != nil || !plainHeader(raw, "jwk"):
		return nil, errProof("the proof has to bring its public key, and no other")
	}
	payload, err := signed.Verify(key)
	var claims proofClaims
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return nil, errProof("the proof is not signed by its key")
	}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, errProof("the proof has to bring its public key, and no other")
	}
	switch {
	case claims.ID == "" || len(claims.ID) > 200:
		return nil, errProof("jti is missing or too long")
	case claims.Method != method || !p.isEndpoint(claims.URI, path):
		return nil, errProof("htm and htu are not this request")
	case claims.IssuedAt == nil:
		return nil, errProof("iat is missing")
	case token != "" && claims.Token != s256(token):
		return nil, errProof("ath is not the hash of the access token")
	}
	now := p.Now()
	if p.DPoPNonce || claims.Nonce != "" {
		if !p.knowsNonce(claims.Nonce, now) {
			channelOf(ctx).Header().Set("DPoP-Nonce", p.nonce(now))
			return nil, &zoidc.Error{ErrorType: "use_dpop_nonce", Description: "put the nonce of the header DPoP-Nonce into the proof"}
		}
	} else if iat := claims.IssuedAt.Time(); iat.After(now.Add(clockSkew)) || now.After(iat.Add(proofLife)) {
		return nil, errProof("iat is not now")
	}
	made := &proof{key: base64.RawURLEncoding.EncodeToString(thumbprint)}
	made.hash = hashed(made.key + " " + claims.ID)
	return made, nil
}

// isEndpoint compares the address in a proof with that of an endpoint, as RFC 3986 section 6.2.3 does, without query and fragment.
func (p *Provider) isEndpoint(given, path string) bool {
	u, err := url.Parse(given)
	if err != nil || u.User != nil {
		return false
	}
	own, err := url.Parse(p.Issuer + path)
	if err != nil {
		return false
	}
	return strings.EqualFold(u.Scheme, own.Scheme) && authority(u) == authority(own) && u.EscapedPath() == own.EscapedPath()
}

// authority is host and port, without the port that is meant without it.
func authority(u *url.URL) string {
	host := strings.ToLower(u.Host)
	return strings.TrimSuffix(host, map[string]string{"https": ":443", "http": ":80"}[strings.ToLower(u.Scheme)])
}

// s256 is how RFC 7636 section 4.2 and RFC 9449 section 4.2 write a SHA-256.
func s256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// isThumbprint checks the form of dpop_jkt: RFC 9449 section 10.
func isThumbprint(s string) bool {
	sum, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(sum) == sha256.Size
}

const nonceLabel = "dpop nonce"

// nonce is what proofs are to have in them: the time, and that it was we who said it. No replica has to remember one.
func (p *Provider) nonce(now time.Time) string {
	at := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))
	return base64.RawURLEncoding.EncodeToString(append(at, p.Keys.Seal.Hash(nonceLabel, at)...))
}

func (p *Provider) knowsNonce(nonce string, now time.Time) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(raw) <= 8 {
		return false
	}
	at := time.Unix(int64(binary.BigEndian.Uint64(raw[:8])), 0)
	if at.After(now.Add(clockSkew)) || now.After(at.Add(nonceLife)) {
		return false
	}
	for _, want := range p.Keys.Seal.Hashes(nonceLabel, raw[:8]) {
		if hmac.Equal(raw[8:], want) {
			return true
		}
	}
	return false
}

// caller is whoever calls the back channel: a client that has proved to be itself, perhaps with a key of its own.
type caller struct {
	*Client
	assertion *assertion // nil: it authenticated otherwise
	proof     *proof     // nil: tokens are for whoever has them
}

// prove reads the proof that comes to the token endpoint, and misses one of a client whose tokens have to be bound.
func (p *Provider) prove(ctx context.Context, c *caller, header http.Header) (err error) {
	c.proof, err = p.readProof(ctx, header, http.MethodPost, tokenPath, "")
	if err == nil && c.proof == nil && c.Registration.DPoPBound {
		return errProof("this client has to send a DPoP proof")
	}
	return err
}

// key is the thumbprint that tokens are bound to; nil: none.
func (c *caller) key() *string {
	if c.proof == nil {
		return nil
	}
	return &c.proof.key
}

// spend adds to q the single use of what came with the request. Were it there already, the whole statement fails and nothing has happened: see [Provider.spent].
func (c *caller) spend(q *postgres.Query) {
	if c.assertion != nil {
		q.With("assertion_used", fmt.Sprintf("INSERT INTO client_assertions (client_id, jti_hash, expires_at) VALUES (%s, %s, %s)", q.Bind(c.ID)+"::text",
			q.Bind(hashed(c.assertion.claims.ID))+"::bytea", q.Bind(c.assertion.claims.Expiry.Time().Add(time.Minute))+"::timestamptz"))
	}
	if c.proof != nil {
		q.With("proof_used", fmt.Sprintf("INSERT INTO dpop_proofs (hash, expires_at) VALUES (%s, wall() + make_interval(secs => %s))",
			q.Bind(c.proof.hash)+"::bytea", q.Bind((nonceLife+time.Minute).Seconds())+"::float8"))
	}
}

// spent tells the errors of a statement with [caller.spend] apart: what came with the request was used before, or something else.
func (p *Provider) spent(ctx context.Context, c *caller, err error) error {
	violation := pq.As(err, pqerror.UniqueViolation)
	if violation == nil {
		return err
	}
	switch violation.Table {
	case "client_assertions":
		return p.wrongClient(ctx, c.ID)
	case "dpop_proofs":
		q := new(postgres.Query)
		q.With("refused", "SELECT 1")
		id := ""
		if c.Client != nil {
			id = c.ID
		}
		audit.Record(ctx, q, "refused", audit.Event{Name: "dpop.check", Outcome: audit.Refused, Reason: "replayed", Actor: "client", Client: id}, nil)
		q.Finally("SELECT 1")
		if _, err := p.DB.Run(ctx, q); err != nil {
			return fmt.Errorf("record a replayed proof: %w", err)
		}
		return errProof("the proof was used before")
	}
	return err
}
