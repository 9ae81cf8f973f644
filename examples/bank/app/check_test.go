package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// signer makes the results of an issuer, with a key that its key set has.
type signer struct{ key jose.JSONWebKey }

func newSigner(t *testing.T) signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{jose.JSONWebKey{Key: private, KeyID: "k", Algorithm: string(jose.ES256), Use: "sig"}}
}

func (s signer) keys(w http.ResponseWriter) {
	json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{s.key.Public()}}) //nolint:errcheck,errchkjson // the test sees that
}

// result is of the transaction txn_1 of alice, with what is changed about it.
func (s signer) result(t *testing.T, typ, issuer string, change map[string]any) string {
	t.Helper()
	record := `{"amount":"129.90","currency":"EUR","payees":[{"iban":"DE02100100109307118603","name":"Gas AG"}]}`
	sum := sha256.Sum256([]byte(record))
	claims := map[string]any{
		"iss": issuer, "aud": "bank", "sub": "alice", "jti": "1", "exp": time.Now().Add(time.Minute).Unix(), "txn": "txn_1", "status": "approved",
		"transaction": json.RawMessage(record), "transaction_sha256": base64.RawURLEncoding.EncodeToString(sum[:]),
	}
	maps.Copy(claims, change)
	by, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := by.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func ordered() *payment {
	return &payment{Amount: "129.90", Currency: "EUR", Payee: "Gas AG", IBAN: "DE02100100109307118603", Transaction: "txn_1", customer: "alice", State: "asked"}
}

const receipt = "txn-receipt+jwt"

// A result is acted upon for the one transaction that was asked about, of the customer who asked.
func TestCheck(t *testing.T) { // TX-11
	t.Parallel()
	by := newSigner(t)
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { by.keys(w) }))
	t.Cleanup(keys.Close)
	p := &provider{cfg: Config{Issuer: "https://login.example", ClientID: "bank"}}
	p.metadata.Keys = keys.URL
	want := ordered()
	result := func(typ string, change map[string]any) string { return by.result(t, typ, p.cfg.Issuer, change) }
	if _, err := p.check(t.Context(), result(receipt, nil), want); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"another customer's":     result(receipt, map[string]any{"sub": "bob"}),
		"another transaction":    result(receipt, map[string]any{"txn": "txn_2"}),
		"another application's":  result(receipt, map[string]any{"aud": "shop"}),
		"another issuer's":       result(receipt, map[string]any{"iss": "https://evil.example"}),
		"too old":                result(receipt, map[string]any{"exp": time.Now().Add(-time.Second).Unix()}),
		"no approval":            result(receipt, map[string]any{"status": "refused"}),
		"another hash":           result(receipt, map[string]any{"transaction_sha256": "x"}),
		"another record":         result(receipt, map[string]any{"transaction": json.RawMessage(`{"amount":"129.91"}`)}),
		"another kind of token":  result("JWT", nil),
		"no signature of theirs": result(receipt, nil)[:100],
	} {
		if _, err := p.check(t.Context(), token, want); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// lossy is an issuer whose answers get lost. Each request to a path is answered by the next of its answers, and by the last of them from then on.
func lossy(t *testing.T, by signer, answers map[string][]http.HandlerFunc) (*bank, *provider) {
	t.Helper()
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		next := answers[r.URL.Path]
		if len(next) > 1 {
			answers[r.URL.Path] = next[1:]
		}
		mu.Unlock()
		switch {
		case len(next) > 0:
			next[0](w, r)
		case r.URL.Path == "/keys":
			by.keys(w)
		case r.URL.Path == "/token":
			answer(http.StatusOK, `{"access_token":"t"}`)(w, r)
		}
	}))
	t.Cleanup(server.Close)
	key := newSigner(t).key
	p := &provider{cfg: Config{Issuer: server.URL, ClientID: "bank", Key: key}}
	p.metadata.Keys, p.metadata.Token = server.URL+"/keys", server.URL+"/token"
	return &bank{cfg: p.cfg, provider: p, used: map[string]bool{}}, p
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(body)) //nolint:errcheck // the test sees that
	}
}

func lost(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// While nothing is said of the payment the bank goes on asking: an answer that got lost, and a server that is down for a moment, are no refusal.
func TestAwait(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]http.HandlerFunc{
		"transaction_failed": answer(http.StatusBadRequest, `{"error":"access_denied","error_description":"transaction_failed"}`),
		"expired_token":      answer(http.StatusBadRequest, `{"error":"expired_token"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			b, p := lossy(t, newSigner(t), map[string][]http.HandlerFunc{"/token": {
				lost, answer(http.StatusBadGateway, "<h1>Bad Gateway</h1>"), answer(http.StatusServiceUnavailable, `{"error":"temporarily_unavailable"}`), answer(http.StatusBadRequest, `{"error":"authorization_pending"}`), lost,
				func(w http.ResponseWriter, r *http.Request) { asked.Add(1); last(w, r) },
			}})
			paying := ordered()
			b.await(t.Context(), p, &session{subject: "alice"}, paying, "request", time.Millisecond, time.Now().Add(time.Hour))
			if paying.State != "not approved" || !strings.Contains(paying.Problem, name) || asked.Load() != 1 {
				t.Errorf("%+v", paying)
			}
		})
	}
	b, p := lossy(t, newSigner(t), map[string][]http.HandlerFunc{"/token": {lost}})
	paying := ordered()
	b.await(t.Context(), p, &session{subject: "alice"}, paying, "request", time.Millisecond, time.Now())
	if paying.State != "not approved" {
		t.Errorf("beyond its time: %+v", paying)
	}
}

// What became of a payment is read when its page is opened, whatever answer got lost before.
func TestAgain(t *testing.T) {
	t.Parallel()
	by := newSigner(t)
	for name, want := range map[string]struct {
		state, problem string
		answer         func(issuer string) string
	}{
		"pending": {"asked", "", func(string) string { return `{"id":"txn_1","status":"pending"}` }},
		"approved": {"approved", "", func(issuer string) string {
			return `{"id":"txn_1","status":"approved","result":"` + by.result(t, receipt, issuer, nil) + `"}`
		}},
		"approved by somebody else": {"asked", "of another customer", func(issuer string) string {
			return `{"id":"txn_1","status":"approved","result":"` + by.result(t, receipt, issuer, map[string]any{"sub": "bob"}) + `"}`
		}},
		"expired": {"not approved", "expired", func(string) string { return `{"id":"txn_1","status":"expired"}` }},
		"reported": {"not approved", "You said that you did not ask for this", func(string) string {
			return `{"id":"txn_1","status":"refused","reason":"user_reported","reported_at":"2026-01-02T03:04:05Z"}`
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var issuer string
			b, p := lossy(t, by, map[string][]http.HandlerFunc{"/v1/transactions/txn_1": {answer(http.StatusBadGateway, "<h1>Bad Gateway</h1>"), answer(http.StatusServiceUnavailable, "{}"), func(w http.ResponseWriter, r *http.Request) {
				answer(http.StatusOK, want.answer(issuer))(w, r)
			}}})
			issuer = p.cfg.Issuer
			paying := ordered()
			for range 2 {
				if b.again(t.Context(), paying); paying.State != "asked" || paying.Problem != "" {
					t.Fatalf("without an answer: %+v", paying)
				}
			}
			if b.again(t.Context(), paying); paying.State != want.state || !strings.Contains(paying.Problem, want.problem) || (paying.Evidence != nil) != (want.state == "approved") {
				t.Errorf("%+v", paying)
			}
			if b.again(t.Context(), paying); paying.State != want.state {
				t.Errorf("read once more: %+v", paying)
			}
		})
	}
}
