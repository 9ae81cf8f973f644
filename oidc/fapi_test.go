package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/oidc"
)

func TestFAPIRegistration(t *testing.T) { // FAP-1, FAP-2
	t.Parallel()
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := func(key any, alg string) *jose.JSONWebKeySet {
		return &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, Algorithm: alg}}}
	}
	ec := mustKey(t)
	for name, tt := range map[string]struct {
		change func(*oidc.Registration)
		want   string // "": it is in order
	}{
		"as it should be":     {func(*oidc.Registration) {}, ""},
		"RSA for PS256":       {func(r *oidc.Registration) { r.Keys = keys(rs.Public(), "PS256") }, ""},
		"RSA for RS256":       {func(r *oidc.Registration) { r.Keys = keys(rs.Public(), "RS256") }, "jwks: profile fapi2"},
		"P-384":               {func(r *oidc.Registration) { r.Keys = keys(p384.Public(), "") }, "jwks: profile fapi2"},
		"no keys":             {func(r *oidc.Registration) { r.Keys = nil }, "jwks: private_key_jwt needs"},
		"secret":              {func(r *oidc.Registration) { r.AuthMethod = zoidc.AuthMethodBasic }, "token_endpoint_auth_method: profile fapi2"},
		"public":              {func(r *oidc.Registration) { r.AuthMethod = zoidc.AuthMethodNone }, "token_endpoint_auth_method: profile fapi2"},
		"not pushed":          {func(r *oidc.Registration) { r.RequirePush = false }, "require_pushed_authorization_requests"},
		"not bound":           {func(r *oidc.Registration) { r.DPoPBound = false }, "dpop_bound_access_tokens"},
		"RS256 for ID Tokens": {func(r *oidc.Registration) { r.IDTokenAlg = "RS256" }, "id_token_signed_response_alg"},
		"EdDSA for ID Tokens": {func(r *oidc.Registration) { r.IDTokenAlg = "EdDSA" }, ""},
		"plain http":          {func(r *oidc.Registration) { r.AllowHTTP, r.RedirectURIs = true, []string{"http://bank.example/cb"} }, "allow_http: profile fapi2"},
		"loopback": {func(r *oidc.Registration) {
			r.ApplicationType, r.RedirectURIs = "native", []string{"http://127.0.0.1/cb"}
		}, "redirect_uris: profile fapi2"},
		"scheme of its own":    {func(r *oidc.Registration) { r.ApplicationType, r.RedirectURIs = "native", []string{"com.example:/cb"} }, "redirect_uris: profile fapi2"},
		"an unknown profile":   {func(r *oidc.Registration) { r.Profile = "fapi1" }, "profile: use fapi2"},
		"a type with a space":  {func(r *oidc.Registration) { r.DetailTypes = []string{"a b"} }, "authorization_details_types"},
		"payment accounts too": {func(r *oidc.Registration) { r.PaymentAccount = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := oidc.Registration{Name: "Bank", RedirectURIs: []string{"https://bank.example/cb"}, Profile: oidc.ProfileFAPI2, Keys: keys(ec.Public(), ""), RequirePush: true, DPoPBound: true}
			r.Complete()
			tt.change(&r)
			err := r.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
	r := oidc.Registration{Name: "Bank", RedirectURIs: []string{"https://bank.example/cb"}, Profile: oidc.ProfileFAPI2}
	r.Complete()
	if err := r.Validate(); err == nil || strings.Count(err.Error(), "\n") != 2 { // keys, pushed requests, bound tokens
		t.Errorf("everything that is missing is told at once: %v", err)
	}
}

func TestFAPIClient(t *testing.T) { // FAP-1 to FAP-5, TK-14, TK-15
	t.Parallel()
	w := newWorld(t)
	later := func(t *testing.T) { t.Helper(); w.DB.Advance(t, 25*time.Hour) } // a day has ten texts

	t.Run("the whole way", func(t *testing.T) {
		later(t)
		key, b := newKey(t), w.browser()
		back := b.signIn(t, b.authorize(t, w.pushed(t, "bank", set("scope", "openid offline_access"), set("nonce", strings.Repeat("n", 64)), details("["+one+"]"))))
		if back.param("iss") != issuer || back.param("state") != "the state" || !strings.HasPrefix(back.location, "https://bank.example/cb?") {
			t.Fatalf("answered %d %q", back.status, back.location)
		}
		got := w.token(t, "bank", redeem("bank", back.param("code")), w.by(t, key))
		if got.status != http.StatusOK || got.Type != "DPoP" || got.Refresh == "" {
			t.Fatalf("%d %s", got.status, got.raw)
		}
		claims, header := w.claims(t, got.ID)
		if header.Algorithm != "ES256" || claims["nonce"] != strings.Repeat("n", 64) { // C2-3
			t.Errorf("ID Token: %s %v", header.Algorithm, claims)
		}
		w.hasDetails(t, "redeemed", got, "["+one+"]")
		w.DB.Advance(t, time.Second)
		refused(t, "C2-7: the code again", w.token(t, "bank", redeem("bank", back.param("code")), w.by(t, key)), http.StatusBadRequest, "invalid_grant")
		refused(t, "C2-7: its refresh token", w.token(t, "bank", refresh(got.Refresh), w.by(t, key)), http.StatusBadRequest, "invalid_grant")
	})

	t.Run("AZ-10 no exemption from PKCE", func(t *testing.T) {
		w := newWorld(t)
		w.change = func(cfg *oidc.Config) { cfg.NoPKCE = []string{"bank"} }
		w.provider, w.server = w.replica(t, w.DB.DB)
		notPushed(t, "without PKCE", w.push(t, "bank", request("bank", drop("code_challenge"), drop("code_challenge_method"))), http.StatusBadRequest, "invalid_request")
	})

	t.Run("C2-6", func(t *testing.T) {
		for _, change := range []func(url.Values){drop("code_verifier"), set("code_verifier", verifier+"x")} {
			later(t)
			b := w.browser()
			code := b.signIn(t, b.authorize(t, w.pushed(t, "bank"))).param("code")
			refused(t, "verifier", w.token(t, "bank", redeem("bank", code, change), w.by(t, newKey(t))), http.StatusBadRequest, "invalid_grant")
		}
	})

	t.Run("C2-10 missing proof", func(t *testing.T) {
		later(t)
		b := w.browser()
		code := b.signIn(t, b.authorize(t, w.pushed(t, "bank"))).param("code")
		refused(t, "no proof", w.token(t, "bank", redeem("bank", code)), http.StatusBadRequest, "invalid_dpop_proof")
		refused(t, "no proof, without a person", w.token(t, "bank", url.Values{"grant_type": {"client_credentials"}}), http.StatusBadRequest, "invalid_dpop_proof")
		if got := w.token(t, "bank", redeem("bank", code), w.by(t, newKey(t))); got.status != http.StatusOK { // it cost nothing
			t.Errorf("with one: %d %s", got.status, got.raw)
		}
	})

	t.Run("TK-14 C2-8", func(t *testing.T) {
		now := w.DB.Now(t).Unix()
		push := func(n int, change map[string]any) *pushing {
			return w.push(t, "bank", request("bank", set("client_assertion", w.assertion(t, change))), func(r *http.Request) { r.Header.Set("X-Test-From", fmt.Sprintf("10.0.0.%d", n)) })
		}
		for n, change := range []map[string]any{
			{"aud": issuer + "/oauth/token"}, {"aud": issuer + "/par"}, {"aud": []string{issuer}}, {"aud": []string{issuer, issuer}}, {"aud": issuer + "/"}, {"aud": nil},
			{"exp": now - 300}, {"exp": nil}, {"exp": now + 7200}, {"sub": nil}, {"sub": "web"}, {"iss": "web"}, {"nbf": now + 120}, {"iat": now + 120}, {"jti": nil},
		} {
			notPushed(t, fmt.Sprint(change), push(n, change), http.StatusUnauthorized, "invalid_client")
		}
		for n, change := range []map[string]any{{"iat": now + 8, "nbf": now + 8}, {"exp": now + 240}} {
			if got := push(100+n, change); got.status != http.StatusCreated {
				t.Errorf("%v: %d %s", change, got.status, got.raw)
			}
		}
		// Every other client may name the endpoints as well: RFC 9126 section 2.
		r := registration(t, w, "bank")
		r.Profile = ""
		w.register(t, "keyed", r)
		for _, aud := range []any{issuer, issuer + "/oauth/token", issuer + "/par", []string{issuer}} {
			form := request("bank", set("client_id", "keyed"), set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
				set("client_assertion", w.assertion(t, map[string]any{"aud": aud, "iss": "keyed", "sub": "keyed"})))
			if got := w.push(t, "nobody", form); got.status != http.StatusCreated {
				t.Errorf("aud %v: %d %s", aud, got.status, got.raw)
			}
		}
	})

	t.Run("FAP-2 RS256", func(t *testing.T) {
		rs, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		r := registration(t, w, "bank")
		r.Keys = &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: rs.Public()}}}
		w.register(t, "rsa", r)
		for alg, want := range map[jose.SignatureAlgorithm]int{jose.RS256: http.StatusUnauthorized, jose.PS256: http.StatusCreated} {
			assertion := signed(t, alg, rs, nil, map[string]any{"iss": "rsa", "sub": "rsa", "aud": issuer, "jti": uuid.NewString(), "exp": w.DB.Now(t).Unix() + 60})
			form := request("bank", set("client_id", "rsa"), set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), set("client_assertion", assertion))
			if got := w.push(t, "nobody", form); got.status != want {
				t.Errorf("%s: %d %s, want %d", alg, got.status, got.raw, want)
			}
		}
	})

	t.Run("TK-15", func(t *testing.T) {
		_, replica := w.replica(t, w.DB.Open(t))
		assertion := w.assertion(t, nil)
		if got := w.push(t, "bank", request("bank", set("client_assertion", assertion))); got.status != http.StatusCreated {
			t.Fatal(got.raw)
		}
		form := url.Values{"grant_type": {"client_credentials"}, "client_assertion": {assertion}}
		refused(t, "at PAR, then at the token endpoint", w.tokenAt(t, replica.URL, "bank", form, w.by(t, newKey(t))), http.StatusUnauthorized, "invalid_client")
		notPushed(t, "at PAR again", w.push(t, "bank", request("bank", set("client_assertion", assertion))), http.StatusUnauthorized, "invalid_client")
		for _, path := range []string{"/oauth/introspect", "/oauth/revoke"} {
			if status, _, body := w.post(t, replica.URL, path, "bank", url.Values{"token": {"x"}, "client_assertion": {assertion}}); status != http.StatusUnauthorized {
				t.Errorf("then at %s: %d %s", path, status, body)
			}
		}

		assertion = w.assertion(t, nil)
		var wg sync.WaitGroup
		results := make(chan int, 20)
		for i := range 20 {
			wg.Go(func() {
				from := func(r *http.Request) { r.Header.Set("X-Test-From", fmt.Sprintf("10.0.1.%d", i)) }
				results <- w.push(t, "bank", request("bank", set("client_assertion", assertion)), from).status
			})
		}
		wg.Wait()
		close(results)
		won := 0
		for status := range results {
			if status == http.StatusCreated {
				won++
			} else if status != http.StatusUnauthorized {
				t.Errorf("answered %d", status)
			}
		}
		if won != 1 {
			t.Errorf("one assertion was accepted %d times", won)
		}
	})

	t.Run("TK-12 C2-16", func(t *testing.T) {
		bare := url.Values{"grant_type": {"client_credentials"}, "client_id": {"bank"}}
		refused(t, "no assertion", w.token(t, "nobody", bare), http.StatusUnauthorized, "invalid_client")
		bare.Set("client_secret", "x")
		refused(t, "a secret", w.token(t, "nobody", bare), http.StatusUnauthorized, "invalid_client")
		notPushed(t, "client_id of another", w.push(t, "bank", request("web")), http.StatusUnauthorized, "invalid_client")
	})
}
