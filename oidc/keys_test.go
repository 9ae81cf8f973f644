package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/oidc"
)

// newKey makes a private key for ES256.
func newKey(t testing.TB) jose.JSONWebKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: private}
}

func thumbprint(t testing.TB, key jose.JSONWebKey) string {
	t.Helper()
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// signed signs claims.
func signed(t testing.TB, alg jose.SignatureAlgorithm, key any, options *jose.SignerOptions, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// assertion is one by which client bank authenticates. A claim that is changed to nil is left out.
func (w *world) assertion(t testing.TB, change map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": "bank", "sub": "bank", "aud": issuer, "jti": uuid.NewString()}
	if _, told := change["exp"]; !told {
		claims["exp"] = w.DB.Now(t).Unix() + 60
	}
	return signed(t, jose.ES256, w.bankKey.Key, nil, changed(claims, change))
}

func changed(claims, change map[string]any) map[string]any {
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// proof is a DPoP proof for a request. A claim that is changed to nil is left out.
func (w *world) proof(t testing.TB, key jose.JSONWebKey, method, path string, change map[string]any) string {
	t.Helper()
	claims := map[string]any{"jti": uuid.NewString(), "htm": method, "htu": issuer + path}
	if _, told := change["iat"]; !told {
		claims["iat"] = w.DB.Now(t).Unix()
	}
	options := (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt")
	return signed(t, jose.ES256, key.Key, options, changed(claims, change))
}

// proven adds proofs to a request.
func proven(proofs ...string) func(*http.Request) {
	return func(r *http.Request) {
		for _, proof := range proofs {
			r.Header.Add("DPoP", proof)
		}
	}
}

// by proves possession of key to the token endpoint.
func (w *world) by(t testing.TB, key jose.JSONWebKey) func(*http.Request) {
	t.Helper()
	return proven(w.proof(t, key, http.MethodPost, "/oauth/token", nil))
}

// Other packages' results are signed with a key that is published, under a type of their own.
func TestSignAs(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	keys := &oidc.Keys{DB: db.DB, Seal: keyring.Ephemeral()}
	if _, err := keys.SignAs("txn-receipt+jwt", []byte("{}")); !errors.Is(err, oidc.ErrNoKey) {
		t.Errorf("without a key: error = %v, want ErrNoKey", err)
	}
	if err := keys.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	token, err := keys.SignAs("txn-receipt+jwt", []byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || signed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType] != "txn-receipt+jwt" {
		t.Fatalf("%+v, %v", signed, err)
	}
	var public []byte
	if err := db.GetContext(t.Context(), &public, "SELECT public FROM signing_keys WHERE kid = $1", signed.Signatures[0].Protected.KeyID); err != nil {
		t.Fatal(err)
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(public); err != nil {
		t.Fatal(err)
	}
	if payload, err := signed.Verify(jwk); err != nil || string(payload) != `{"a":1}` {
		t.Errorf("%s, %v", payload, err)
	}
}
