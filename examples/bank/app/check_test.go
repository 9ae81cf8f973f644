package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A result is acted upon for the one transaction that was asked about, of the customer who asked.
func TestCheck(t *testing.T) { // TX-11
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := jose.JSONWebKey{Key: private, KeyID: "k", Algorithm: string(jose.ES256), Use: "sig"}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}}) //nolint:errcheck,errchkjson // the test sees that
	}))
	t.Cleanup(keys.Close)
	p := &provider{cfg: Config{Issuer: "https://login.example", ClientID: "bank"}}
	p.metadata.Keys = keys.URL
	want := &payment{Amount: "129.90", Currency: "EUR", Payee: "Gas AG", IBAN: "DE02100100109307118603", Transaction: "txn_1", customer: "alice"}
	result := func(typ string, change map[string]any) string {
		record := `{"amount":"129.90","currency":"EUR","payees":[{"iban":"DE02100100109307118603","name":"Gas AG"}]}`
		sum := sha256.Sum256([]byte(record))
		claims := map[string]any{
			"iss": "https://login.example", "aud": "bank", "sub": "alice", "jti": "1", "exp": time.Now().Add(time.Minute).Unix(), "txn": "txn_1", "status": "approved",
			"transaction": json.RawMessage(record), "transaction_sha256": base64.RawURLEncoding.EncodeToString(sum[:]),
		}
		for name, value := range change {
			claims[name] = value
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
		if err != nil {
			t.Fatal(err)
		}
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		compact, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	const typ = "txn-receipt+jwt"
	if _, err := p.check(t.Context(), result(typ, nil), want); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"another customer's":     result(typ, map[string]any{"sub": "bob"}),
		"another transaction":    result(typ, map[string]any{"txn": "txn_2"}),
		"another application's":  result(typ, map[string]any{"aud": "shop"}),
		"another issuer's":       result(typ, map[string]any{"iss": "https://evil.example"}),
		"too old":                result(typ, map[string]any{"exp": time.Now().Add(-time.Second).Unix()}),
		"no approval":            result(typ, map[string]any{"status": "refused"}),
		"another hash":           result(typ, map[string]any{"transaction_sha256": "x"}),
		"another record":         result(typ, map[string]any{"transaction": json.RawMessage(`{"amount":"129.91"}`)}),
		"another kind of token":  result("JWT", nil),
		"no signature of theirs": result(typ, nil)[:100],
	} {
		if _, err := p.check(t.Context(), token, want); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
