package oidc_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/oidc"
)

// resource asks UserInfo with a token under a scheme.
func (w *world) resource(t testing.TB, base, scheme, token string, change ...func(*http.Request)) *answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/userinfo", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", scheme+" "+token)
	for _, c := range change {
		c(req)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: string(body)}
}

// with is a proof for UserInfo, of a token.
func (w *world) with(t testing.TB, key jose.JSONWebKey, token string, change map[string]any) func(*http.Request) {
	t.Helper()
	all := map[string]any{"ath": athOf(token)}
	maps.Copy(all, change)
	return proven(w.proof(t, key, http.MethodGet, "/userinfo", all))
}

func athOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestBoundTokens(t *testing.T) { // PAR-2, PAR-3
	t.Parallel()
	w := newWorld(t)
	later := func(t *testing.T) { t.Helper(); w.DB.Advance(t, 25*time.Hour) } // a day has ten texts
	// bound gives tokens that are bound to a key.
	bound := func(t *testing.T, client string, key jose.JSONWebKey) *tokens {
		t.Helper()
		later(t)
		b := w.browser()
		code := b.signIn(t, b.authorize(t, w.pushed(t, client, set("scope", "openid offline_access")))).param("code")
		got := w.token(t, client, redeem(client, code), w.by(t, key))
		if got.status != http.StatusOK || got.Type != "DPoP" {
			t.Fatalf("%s: %d %s", client, got.status, got.raw)
		}
		return got
	}
	refusedAt := func(t *testing.T, what string, a *answer, code string) {
		t.Helper()
		challenge := a.header.Get("WWW-Authenticate")
		if a.status != http.StatusUnauthorized || !strings.HasPrefix(challenge, `DPoP error="`+code+`"`) || !strings.Contains(challenge, `algs="ES256 PS256 EdDSA"`) {
			t.Errorf("%s: %d %s %q; want 401 with %s", what, a.status, a.body, challenge, code)
		}
	}

	t.Run("TK-28", func(t *testing.T) {
		for _, client := range []string{"web", "spa", "other", "bank"} { // confidential, public, opaque tokens, FAPI
			key := newKey(t)
			got := bound(t, client, key)
			if a := w.resource(t, w.server.URL, "DPoP", got.Access, w.with(t, key, got.Access, nil)); a.status != http.StatusOK || !strings.Contains(a.body, `"sub"`) {
				t.Errorf("%s, by its key: %d %s %v", client, a.status, a.body, a.header)
			}
			refusedAt(t, client+", as Bearer", w.resource(t, w.server.URL, "Bearer", got.Access), "invalid_token")
			refusedAt(t, client+", as Bearer with a proof", w.resource(t, w.server.URL, "Bearer", got.Access, w.with(t, key, got.Access, nil)), "invalid_token")
			refusedAt(t, client+", by another key", w.resource(t, w.server.URL, "DPoP", got.Access, w.with(t, newKey(t), got.Access, nil)), "invalid_token")
			refusedAt(t, client+", without a proof", w.resource(t, w.server.URL, "DPoP", got.Access), "invalid_dpop_proof")
			if strings.Count(got.Access, ".") == 2 {
				claims, _ := w.claims(t, got.Access)
				if cnf, _ := claims["cnf"].(map[string]any); cnf["jkt"] != thumbprint(t, key) {
					t.Errorf("%s: the token says %v", client, claims)
				}
			}
			if client != "spa" {
				says := w.introspect(t, client, got.Access)
				if cnf, _ := says["cnf"].(map[string]any); says["active"] != true || cnf["jkt"] != thumbprint(t, key) || says["token_type"] != "DPoP" {
					t.Errorf("%s: introspection says %v", client, says)
				}
			}
		}
		free := w.signedIn(t, "web")
		refusedAt(t, "a token that is not bound, as DPoP", w.resource(t, w.server.URL, "DPoP", free.Access, w.with(t, newKey(t), free.Access, nil)), "invalid_token")
		a := w.resource(t, w.server.URL, "Basic", free.Access)
		if challenges := a.header.Values("WWW-Authenticate"); a.status != http.StatusUnauthorized || len(challenges) != 2 || challenges[0] != "Bearer" || !strings.HasPrefix(challenges[1], "DPoP algs=") {
			t.Errorf("another scheme: %d %v", a.status, challenges)
		}
	})

	t.Run("TK-29", func(t *testing.T) {
		key := newKey(t)
		got := bound(t, "web", key)
		_, replica := w.replica(t, w.DB.Open(t))
		again := w.with(t, key, got.Access, nil)
		if a := w.resource(t, w.server.URL, "DPoP", got.Access, again); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
		refusedAt(t, "the same again", w.resource(t, w.server.URL, "DPoP", got.Access, again), "invalid_dpop_proof")
		refusedAt(t, "at another replica", w.resource(t, replica.URL, "DPoP", got.Access, again), "invalid_dpop_proof")

		proof := w.by(t, key)
		next := w.token(t, "web", refresh(got.Refresh), proof)
		refused(t, "the same at the token endpoint", w.token(t, "web", refresh(next.Refresh), proof), http.StatusBadRequest, "invalid_dpop_proof")
		refused(t, "with what was used as well", w.token(t, "web", refresh(got.Refresh), proof), http.StatusBadRequest, "invalid_dpop_proof")
		if next = w.token(t, "web", refresh(next.Refresh), w.by(t, key)); next.status != http.StatusOK { // nothing had happened
			t.Errorf("afterwards: %d %s", next.status, next.raw)
		}
		push := proven(w.proof(t, key, http.MethodPost, "/par", nil))
		if got := w.push(t, "web", request("web"), push); got.status != http.StatusCreated {
			t.Errorf("%d %s", got.status, got.raw)
		}
		notPushed(t, "the same at PAR", w.push(t, "web", request("web"), push), http.StatusBadRequest, "invalid_dpop_proof")
		var recorded int
		if err := w.DB.GetContext(t.Context(), &recorded, "SELECT count(*) FROM audit_events WHERE event = 'dpop.check' AND outcome = 'refused' AND reason = 'replayed'"); err != nil || recorded != 5 {
			t.Errorf("%d records of 5 refusals, %v", recorded, err)
		}
	})

	t.Run("TK-29 at once", func(t *testing.T) {
		key := newKey(t)
		got := bound(t, "web", key)
		_, replica := w.replica(t, w.DB.Open(t))
		proof := w.by(t, key)
		var wg sync.WaitGroup
		barrier, results := make(chan struct{}), make(chan *tokens, 200)
		for i := range 200 {
			base := w.server.URL
			if i%2 == 1 {
				base = replica.URL
			}
			wg.Go(func() {
				<-barrier
				results <- w.tokenAt(t, base, "web", url.Values{"grant_type": {"client_credentials"}}, proof)
			})
		}
		close(barrier)
		wg.Wait()
		close(results)
		won := 0
		for got := range results {
			switch {
			case got.status == http.StatusOK:
				won++
			case got.status != http.StatusBadRequest || got.Error != "invalid_dpop_proof":
				t.Errorf("answered %d %s", got.status, got.raw)
			}
		}
		var grants int
		if err := w.DB.GetContext(t.Context(), &grants, "SELECT count(*) FROM grants WHERE subscriber_id IS NULL"); err != nil || won != 1 || grants != 1 {
			t.Errorf("%d of 200 parallel uses of one proof won and left %d grants, %v; want 1", won, grants, err)
		}
		if w.introspect(t, "web", got.Access)["active"] != true {
			t.Error("another token of the client ended")
		}
	})

	t.Run("TK-30 C2-11", func(t *testing.T) {
		key := newKey(t)
		got := bound(t, "web", key)
		sign := func(alg jose.SignatureAlgorithm, key any, headers map[jose.HeaderKey]any, embed bool) string {
			options := &jose.SignerOptions{EmbedJWK: embed, ExtraHeaders: headers}
			return signed(t, alg, key, options, map[string]any{"jti": uuid.NewString(), "htm": "GET", "htu": issuer + "/userinfo", "iat": w.DB.Now(t).Unix(), "ath": athOf(got.Access)})
		}
		other := newKey(t)
		typ := map[jose.HeaderKey]any{"typ": "dpop+jwt"}
		rs, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		private, err := json.Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		good := w.proof(t, key, "GET", "/userinfo", map[string]any{"ath": athOf(got.Access)})
		for name, change := range map[string]func(*http.Request){
			"no typ":               proven(sign(jose.ES256, key.Key, nil, true)),
			"typ JWT":              proven(sign(jose.ES256, key.Key, map[jose.HeaderKey]any{"typ": "JWT"}, true)),
			"HS256":                proven(sign(jose.HS256, make([]byte, 32), map[jose.HeaderKey]any{"typ": "dpop+jwt", "jwk": key.Public()}, false)),
			"RS256":                proven(sign(jose.RS256, rs, typ, true)),
			"ES384":                proven(sign(jose.ES384, p384, typ, true)),
			"none":                 proven(base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"dpop+jwt","alg":"none"}`)) + good[strings.Index(good, "."):strings.LastIndex(good, ".")+1]),
			"private key":          proven(sign(jose.ES256, key.Key, map[jose.HeaderKey]any{"typ": "dpop+jwt", "jwk": json.RawMessage(private)}, false)),
			"no key":               proven(sign(jose.ES256, key.Key, typ, false)),
			"the key of others":    proven(sign(jose.ES256, key.Key, map[jose.HeaderKey]any{"typ": "dpop+jwt", "jwk": other.Public()}, false)),
			"a second key":         proven(sign(jose.ES256, key.Key, map[jose.HeaderKey]any{"typ": "dpop+jwt", "x5u": "https://evil.example"}, true)),
			"two headers":          proven(good, good),
			"two in one":           proven(good + ", " + good),
			"no JWS":               proven("x"),
			"empty":                proven(""),
			"altered signature":    proven(good[:len(good)-4] + "AAAA"),
			"JSON serialization":   proven(`{"payload":"e30","signatures":[]}`),
			"10 000 dots":          proven(strings.Repeat(".", 8<<10)),
			"htm PUT":              w.with(t, key, got.Access, map[string]any{"htm": "PUT"}),
			"htm in small letters": w.with(t, key, got.Access, map[string]any{"htm": "get"}),
			"no htm":               w.with(t, key, got.Access, map[string]any{"htm": nil}),
			"htu other host":       w.with(t, key, got.Access, map[string]any{"htu": "https://rp.example/userinfo"}),
			"htu other port":       w.with(t, key, got.Access, map[string]any{"htu": "https://login.example:8443/userinfo"}),
			"htu http":             w.with(t, key, got.Access, map[string]any{"htu": "http://login.example/userinfo"}),
			"htu other path":       w.with(t, key, got.Access, map[string]any{"htu": issuer + "/oauth/token"}),
			"htu other case":       w.with(t, key, got.Access, map[string]any{"htu": issuer + "/UserInfo"}),
			"htu with user":        w.with(t, key, got.Access, map[string]any{"htu": "https://x@login.example/userinfo"}),
			"no htu":               w.with(t, key, got.Access, map[string]any{"htu": nil}),
			"iat an hour ago":      w.with(t, key, got.Access, map[string]any{"iat": w.DB.Now(t).Add(-time.Hour).Unix()}),
			"iat in an hour":       w.with(t, key, got.Access, map[string]any{"iat": w.DB.Now(t).Add(time.Hour).Unix()}),
			"iat 61 s ago":         w.with(t, key, got.Access, map[string]any{"iat": w.DB.Now(t).Add(-62 * time.Second).Unix()}),
			"iat in 20 s":          w.with(t, key, got.Access, map[string]any{"iat": w.DB.Now(t).Add(20 * time.Second).Unix()}),
			"iat text":             w.with(t, key, got.Access, map[string]any{"iat": "now"}),
			"no iat":               w.with(t, key, got.Access, map[string]any{"iat": nil}),
			"no jti":               w.with(t, key, got.Access, map[string]any{"jti": nil}),
			"jti too long":         w.with(t, key, got.Access, map[string]any{"jti": strings.Repeat("x", 201)}),
			"no ath":               w.with(t, key, got.Access, map[string]any{"ath": nil}),
			"ath of another":       w.with(t, key, got.Access, map[string]any{"ath": athOf("x")}),
		} {
			refusedAt(t, name, w.resource(t, w.server.URL, "DPoP", got.Access, change), "invalid_dpop_proof")
			if name == "no ath" || name == "ath of another" || strings.HasPrefix(name, "htm") || strings.HasPrefix(name, "htu") {
				continue
			}
			refused(t, name+" at the token endpoint", w.token(t, "web", refresh(got.Refresh), change), http.StatusBadRequest, "invalid_dpop_proof")
		}
		_, ed, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*http.Request){
			"htu in capital letters, with its port": w.with(t, key, got.Access, map[string]any{"htu": "HTTPS://LOGIN.example:443/userinfo"}),
			"htu with query and fragment":           w.with(t, key, got.Access, map[string]any{"htu": issuer + "/userinfo?a=b#c"}),
			"iat 8 s ahead":                         w.with(t, key, got.Access, map[string]any{"iat": w.DB.Now(t).Add(8 * time.Second).Unix()}),
			"iat 50 s ago":                          w.with(t, key, got.Access, map[string]any{"iat": w.DB.Now(t).Add(-50 * time.Second).Unix()}),
			"more claims":                           w.with(t, key, got.Access, map[string]any{"nbf": 1, "exp": 2, "aud": "x", "more": []int{1}}),
		} {
			if a := w.resource(t, w.server.URL, "DPoP", got.Access, change); a.status != http.StatusOK {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
		if a := w.resource(t, w.server.URL, "dpop", got.Access, w.with(t, key, got.Access, nil)); a.status != http.StatusOK { // C2-14
			t.Errorf("the scheme in small letters: %d %s", a.status, a.body)
		}
		for alg, private := range map[jose.SignatureAlgorithm]any{jose.PS256: rs, jose.EdDSA: ed} {
			options := (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt")
			proof := signed(t, alg, private, options, map[string]any{"jti": uuid.NewString(), "htm": "POST", "htu": issuer + "/oauth/token", "iat": w.DB.Now(t).Unix()})
			if got := w.token(t, "web", url.Values{"grant_type": {"client_credentials"}}, proven(proof)); got.status != http.StatusOK || got.Type != "DPoP" {
				t.Errorf("%s: %d %s", alg, got.status, got.raw)
			}
		}
	})

	t.Run("C2-10 a code that is bound", func(t *testing.T) {
		key := newKey(t)
		code := func(t *testing.T, v func() url.Values) string {
			t.Helper()
			later(t)
			b := w.browser()
			return b.signIn(t, b.authorize(t, v())).param("code")
		}
		pushed := func(form url.Values, change ...func(*http.Request)) url.Values {
			t.Helper()
			got := w.push(t, "web", form, change...)
			if got.status != http.StatusCreated {
				t.Fatalf("%d %s", got.status, got.raw)
			}
			return url.Values{"client_id": {"web"}, "request_uri": {got.RequestURI}}
		}
		at := func() func(*http.Request) { return proven(w.proof(t, key, http.MethodPost, "/par", nil)) }
		for name, v := range map[string]func() url.Values{
			"by dpop_jkt of the browser": func() url.Values { return request("web", set("dpop_jkt", thumbprint(t, key))) },
			"by dpop_jkt that is pushed": func() url.Values { return pushed(request("web", set("dpop_jkt", thumbprint(t, key)))) },
			"by a proof at PAR":          func() url.Values { return pushed(request("web"), at()) },
			"by both":                    func() url.Values { return pushed(request("web", set("dpop_jkt", thumbprint(t, key))), at()) },
		} {
			if got := w.token(t, "web", redeem("web", code(t, v)), w.by(t, key)); got.status != http.StatusOK || got.Type != "DPoP" {
				t.Errorf("%s: %d %s", name, got.status, got.raw)
			}
			refused(t, name+", without a proof", w.token(t, "web", redeem("web", code(t, v))), http.StatusBadRequest, "invalid_grant")
			w.logs.Reset()
			refused(t, name+", by another key", w.token(t, "web", redeem("web", code(t, v)), w.by(t, newKey(t))), http.StatusBadRequest, "invalid_grant")
			if !strings.Contains(w.logs.String(), "cause=dpop_key ") {
				t.Errorf("the log lacks the cause: %s", w.logs)
			}
		}
		notPushed(t, "dpop_jkt and a proof that differ", w.push(t, "web", request("web", set("dpop_jkt", thumbprint(t, newKey(t)))), at()), http.StatusBadRequest, "invalid_dpop_proof")
		for _, jkt := range []string{"", "x", thumbprint(t, key) + "A", strings.Repeat("=", 43)} {
			if a := w.browser().authorize(t, request("web", set("dpop_jkt", jkt))); a.param("error") != "invalid_request" {
				t.Errorf("dpop_jkt %q: %q", jkt, a.location)
			}
		}
	})

	t.Run("OAU-8 refresh tokens of public clients", func(t *testing.T) {
		key := newKey(t)
		got := bound(t, "spa", key)
		refused(t, "without a proof", w.token(t, "spa", refresh(got.Refresh)), http.StatusBadRequest, "invalid_grant")
		refused(t, "by another key", w.token(t, "spa", refresh(got.Refresh), w.by(t, newKey(t))), http.StatusBadRequest, "invalid_grant")
		next := w.token(t, "spa", refresh(got.Refresh), w.by(t, key)) // whoever has only the token could not end it either
		if next.status != http.StatusOK || next.Type != "DPoP" || next.Refresh == "" || next.Refresh == got.Refresh {
			t.Fatalf("by its key: %d %s", next.status, next.raw)
		}
		refused(t, "the next, by another key", w.token(t, "spa", refresh(next.Refresh), w.by(t, newKey(t))), http.StatusBadRequest, "invalid_grant")
		refused(t, "used twice", w.token(t, "spa", refresh(got.Refresh), w.by(t, key)), http.StatusBadRequest, "invalid_grant") // TK-19
		refused(t, "its successor", w.token(t, "spa", refresh(next.Refresh), w.by(t, key)), http.StatusBadRequest, "invalid_grant")
	})

	t.Run("C2-12 refresh tokens of confidential clients", func(t *testing.T) {
		got := bound(t, "bank", newKey(t))
		for range 3 { // kept, and worth nothing without the client: any key of it will do
			w.DB.Advance(t, 30*time.Second)
			key := newKey(t)
			again := w.token(t, "bank", refresh(got.Refresh), w.by(t, key))
			if again.status != http.StatusOK || again.Refresh != "" || again.Type != "DPoP" {
				t.Fatalf("%d %s", again.status, again.raw)
			}
			if a := w.resource(t, w.server.URL, "DPoP", again.Access, w.with(t, key, again.Access, nil)); a.status != http.StatusOK {
				t.Errorf("its access token: %d %s", a.status, a.body)
			}
		}
		refused(t, "without a proof", w.token(t, "bank", refresh(got.Refresh)), http.StatusBadRequest, "invalid_dpop_proof")
		refused(t, "another client's", w.token(t, "web", refresh(got.Refresh), w.by(t, newKey(t))), http.StatusBadRequest, "invalid_grant")
		if status, _, body := w.post(t, w.server.URL, "/oauth/revoke", "bank", url.Values{"token": {got.Refresh}}); status != http.StatusOK {
			t.Fatal(status, body)
		}
		refused(t, "revoked", w.token(t, "bank", refresh(got.Refresh), w.by(t, newKey(t))), http.StatusBadRequest, "invalid_grant")
	})

	t.Run("SPA may send proofs and read nonces", func(t *testing.T) {
		status, header, _ := w.post(t, w.server.URL, "/par", "spa", nil, func(r *http.Request) {
			r.Method = http.MethodOptions
			r.Header.Set("Origin", "https://spa.example")
		})
		if status != http.StatusNoContent || !strings.Contains(header.Get("Access-Control-Allow-Headers"), "DPoP") || !strings.Contains(header.Get("Access-Control-Expose-Headers"), "DPoP-Nonce") {
			t.Errorf("%d %v", status, header)
		}
	})
}

func TestNonces(t *testing.T) { // RFC 9449 sections 8 and 9
	t.Parallel()
	w := newWorld(t)
	w.change = func(cfg *oidc.Config) { cfg.DPoPNonce = true }
	w.provider, w.server = w.replica(t, w.DB.DB)
	key := newKey(t)
	form := url.Values{"grant_type": {"client_credentials"}}
	try := func(nonce any, more map[string]any) *tokens {
		return w.token(t, "web", form, proven(w.proof(t, key, http.MethodPost, "/oauth/token", changed(map[string]any{"nonce": nonce}, more))))
	}
	wants := func(what string, got *tokens) string {
		t.Helper()
		refused(t, what, got, http.StatusBadRequest, "use_dpop_nonce")
		if got.header.Get("DPoP-Nonce") == "" {
			t.Errorf("%s: no nonce was given", what)
		}
		return got.header.Get("DPoP-Nonce")
	}
	nonce := wants("without", try(nil, nil))
	good := try(nonce, nil)
	if good.status != http.StatusOK || good.header.Get("DPoP-Nonce") == "" {
		t.Fatalf("%d %s", good.status, good.raw)
	}
	if got := try(nonce, map[string]any{"iat": w.DB.Now(t).Add(-time.Hour).Unix()}); got.status != http.StatusOK { // the nonce tells its age, whatever the client's clock says
		t.Errorf("with a clock that is an hour late: %d %s", got.status, got.raw)
	}
	for _, wrong := range []string{"x", nonce + "A", "B" + nonce[1:], nonce[:len(nonce)-4] + "AAAA", base64.RawURLEncoding.EncodeToString(make([]byte, 40))} {
		wants(wrong, try(wrong, nil))
	}
	_, replica := w.replica(t, w.DB.Open(t))
	if got := w.tokenAt(t, replica.URL, "web", form, proven(w.proof(t, key, http.MethodPost, "/oauth/token", map[string]any{"nonce": nonce}))); got.status != http.StatusOK {
		t.Errorf("at another replica: %d %s", got.status, got.raw)
	}
	if got := w.push(t, "web", request("web"), proven(w.proof(t, key, http.MethodPost, "/par", nil))); got.Error != "use_dpop_nonce" || got.header.Get("DPoP-Nonce") == "" {
		t.Errorf("PAR: %d %s", got.status, got.raw)
	}
	a := w.resource(t, w.server.URL, "DPoP", good.Access, w.with(t, key, good.Access, nil))
	if a.status != http.StatusUnauthorized || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), `DPoP error="use_dpop_nonce"`) || a.header.Get("DPoP-Nonce") == "" {
		t.Errorf("UserInfo: %d %s %v", a.status, a.body, a.header)
	}
	w.DB.Advance(t, 6*time.Minute)
	wants("six minutes old", try(nonce, nil))
}

func TestBoundTokensWithoutDatabase(t *testing.T) { // F-25
	t.Parallel()
	w := newWorld(t)
	now := w.DB.Now(t)
	w.change = func(cfg *oidc.Config) { cfg.Now = func() time.Time { return now } }
	w.provider, w.server = w.replica(t, w.DB.DB)
	key := newKey(t)
	form := url.Values{"grant_type": {"client_credentials"}}
	got := w.token(t, "web", form, w.by(t, key))
	proofs := []func(*http.Request){w.by(t, key), w.with(t, key, got.Access, nil)}
	w.DB.Outage(t)
	refused(t, "token endpoint", w.token(t, "web", form, proofs[0]), http.StatusServiceUnavailable, "temporarily_unavailable")
	if a := w.resource(t, w.server.URL, "DPoP", got.Access, proofs[1]); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "temporarily_unavailable") {
		t.Errorf("UserInfo: %d %s", a.status, a.body)
	}
}
