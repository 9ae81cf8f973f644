package oidc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/oidc"
)

func refused(t *testing.T, what string, got *tokens, status int, code string) {
	t.Helper()
	if got.status != status || got.Error != code || got.Access != "" {
		t.Errorf("%s: %d %s; want %d %s", what, got.status, got.raw, status, code)
	}
}

func TestFlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for client, alg := range map[string]string{"web": "RS256", "spa": "ES256", "other": "EdDSA"} {
		t.Run(client, func(t *testing.T) {
			got := w.signedIn(t, client, set("scope", "openid profile offline_access"))
			claims, header := w.claims(t, got.ID)
			if header.Algorithm != alg || header.KeyID == "" {
				t.Errorf("ID Token is signed with %s by %q, want %s", header.Algorithm, header.KeyID, alg)
			}
			if claims["iss"] != issuer || claims["aud"] != client || claims["nonce"] != "the nonce" || claims["acr"] != "urn:watchword:acr:2" ||
				fmt.Sprint(claims["amr"]) != "[pwd sms mfa]" || claims["sid"] == "" || claims["auth_time"] == nil || claims["name"] != nil {
				t.Errorf("ID Token says %v", claims)
			}
			if got.Type != "Bearer" || got.ExpiresIn != 600 || got.Refresh == "" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("token response %s with %v", got.raw, got.header)
			}
			again := w.token(t, client, refresh(got.Refresh))
			w.DB.Advance(t, time.Hour) // TK-22
			renewed, _ := w.claims(t, again.ID)
			for _, name := range []string{"acr", "auth_time", "sid", "sub", "iss", "aud"} {
				if renewed[name] != claims[name] {
					t.Errorf("TK-22: %s became %v, was %v", name, renewed[name], claims[name])
				}
			}
			again = w.token(t, client, refresh(again.Refresh))
			if client == "web" || client == "other" {
				says := w.introspect(t, client, again.Access)
				want := map[string]any{"active": true, "acr": claims["acr"], "amr": claims["amr"], "auth_time": claims["auth_time"], "sid": claims["sid"],
					"sub": claims["sub"], "client_id": client, "iss": issuer, "token_type": "Bearer", "scope": "openid profile offline_access"}
				for name, value := range want {
					if diff := cmp.Diff(value, says[name]); diff != "" {
						t.Errorf("introspection of %s: %s", name, diff)
					}
				}
			}
			status, info, _ := w.userinfo(t, again.Access)
			if status != http.StatusOK || info["sub"] != claims["sub"] || info["name"] != "Alice Example" || info["email"] != nil {
				t.Errorf("UserInfo answered %d %v", status, info)
			}
		})
	}
}

func TestAccessTokenIsThatOfRFC9068(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.signedIn(t, "web")
	claims, header := w.claims(t, got.Access)
	if header.ExtraHeaders[jose.HeaderType] != "at+jwt" || header.Algorithm != "ES256" {
		t.Errorf("header %+v", header)
	}
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti", "scope", "auth_time", "acr", "amr", "sid"} {
		if claims[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fresh := func(t *testing.T) string {
		t.Helper()
		w.DB.Advance(t, 25*time.Hour) // a day has ten texts
		return w.browser().code(t, request("web", set("scope", "openid offline_access")))
	}

	t.Run("TK-1", func(t *testing.T) {
		code := fresh(t)
		first := w.token(t, "web", redeem("web", code))
		w.DB.Advance(t, 2*time.Minute) // CB-9: also when its life is over
		refused(t, "second use", w.token(t, "web", redeem("web", code)), http.StatusBadRequest, "invalid_grant")
		if w.introspect(t, "web", first.Access)["active"] != false {
			t.Error("the access token of the first use still works")
		}
		refused(t, "its refresh token", w.token(t, "web", refresh(first.Refresh)), http.StatusBadRequest, "invalid_grant")
	})

	t.Run("TK-2", func(t *testing.T) {
		_, replica := w.replica(t, w.DB.Open(t))
		code := fresh(t)
		var wg sync.WaitGroup
		results := make(chan *tokens, 200)
		barrier := make(chan struct{})
		for i := range 200 {
			base := w.server.URL
			if i%2 == 1 {
				base = replica.URL
			}
			wg.Go(func() {
				<-barrier
				results <- w.tokenAt(t, base, "web", redeem("web", code))
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
			case got.status != http.StatusBadRequest || got.Error != "invalid_grant":
				t.Errorf("answered %d %s", got.status, got.raw)
			}
		}
		if won != 1 {
			t.Errorf("%d of 200 parallel redemptions won, want 1", won)
		}
	})

	t.Run("OAU-3 at the same moment", func(t *testing.T) {
		code := fresh(t)
		won, lost := atOnce(t, w, "authz_codes", func() *tokens { return w.token(t, "web", redeem("web", code)) })
		refused(t, "the second", lost, http.StatusBadRequest, "invalid_grant")
		if w.introspect(t, "web", won.Access)["active"] != false {
			t.Error("the access token of the first use still works")
		}
		refused(t, "its refresh token", w.token(t, "web", refresh(won.Refresh)), http.StatusBadRequest, "invalid_grant")
	})

	t.Run("TK-3", func(t *testing.T) {
		code := fresh(t)
		refused(t, "another client", w.token(t, "other", redeem("web", code)), http.StatusBadRequest, "invalid_grant")
		if got := w.token(t, "web", redeem("web", code)); got.status != http.StatusOK {
			t.Errorf("its own client afterwards: %d %s", got.status, got.raw)
		}
	})

	for name, change := range map[string][]func(url.Values){
		"TK-4": {set("redirect_uri", "https://rp.example/cb2?a=b"), set("redirect_uri", "https://rp.example/cb/"),
			set("redirect_uri", "https://rp.example/cb\x00"), set("redirect_uri", "\xff")},
		"TK-5": {set("code_verifier", verifier+"x"), set("code_verifier", ""), drop("code_verifier"), set("code_verifier", verifier[:42]),
			set("code_verifier", strings.Repeat("ä", 43)), set("code_verifier", challenge())},
		"TK-7": {func(v url.Values) { v.Set("code", v.Get("code")+"A") }, func(v url.Values) { v.Set("code", v.Get("code")[1:]) },
			func(v url.Values) { v.Set("code", strings.ToLower(v.Get("code"))) }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range change {
				refused(t, name, w.token(t, "web", redeem("web", fresh(t), c)), http.StatusBadRequest, "invalid_grant")
			}
		})
	}

	t.Run("TK-4 missing", func(t *testing.T) {
		refused(t, "no redirect_uri", w.token(t, "web", redeem("web", fresh(t), drop("redirect_uri"))), http.StatusBadRequest, "invalid_request")
	})

	t.Run("TK-6", func(t *testing.T) {
		code := fresh(t)
		w.DB.Advance(t, 61*time.Second)
		refused(t, "61 s old", w.token(t, "web", redeem("web", code)), http.StatusBadRequest, "invalid_grant")
	})
}

func TestTokenEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)

	t.Run("TK-8", func(t *testing.T) {
		for _, grant := range []string{"password", "implicit", "AUTHORIZATION_CODE", "urn:ietf:params:oauth:grant-type:token-exchange",
			"urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:device_code"} { // TK-34
			got := w.token(t, "web", url.Values{"grant_type": {grant}, "assertion": {"a.b.c"}, "username": {"alice"}, "password": {"x"}})
			refused(t, grant, got, http.StatusBadRequest, "unsupported_grant_type")
			if strings.Contains(got.raw, grant) {
				t.Errorf("%s was repeated: %s", grant, got.raw)
			}
		}
		refused(t, "empty", w.token(t, "web", url.Values{"grant_type": {""}}), http.StatusBadRequest, "invalid_request")
		refused(t, "repeated", w.token(t, "web", url.Values{"grant_type": {"refresh_token", "refresh_token"}}), http.StatusBadRequest, "invalid_request")
	})

	t.Run("TK-9 HT-7", func(t *testing.T) {
		refused(t, "query", w.token(t, "web", url.Values{}, func(r *http.Request) { r.URL.RawQuery = redeem("web", "x").Encode() }), http.StatusBadRequest, "invalid_request")
		refused(t, "JSON", w.token(t, "web", url.Values{}, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }), http.StatusUnsupportedMediaType, "invalid_request")
		refused(t, "GET", w.token(t, "web", url.Values{}, func(r *http.Request) { r.Method = http.MethodGet }), http.StatusMethodNotAllowed, "invalid_request")
		refused(t, "1 MiB", w.token(t, "web", url.Values{"x": {strings.Repeat("x", 1<<20)}}), http.StatusRequestEntityTooLarge, "invalid_request")
	})

	t.Run("TK-10", func(t *testing.T) {
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"web"}, "client_secret": {w.secrets["web"]}}
		refused(t, "header and body", w.token(t, "web", form), http.StatusBadRequest, "invalid_request")
		form.Set("client_assertion", "a.b.c")
		refused(t, "three ways", w.token(t, "web", form), http.StatusBadRequest, "invalid_request")
	})

	t.Run("TK-11", func(t *testing.T) {
		wrong := func(r *http.Request) { r.SetBasicAuth("web", "wrong"); r.Header.Set("X-Test-From", "198.51.100.1") }
		throttled := 0
		for range 40 {
			got := w.token(t, "web", url.Values{"grant_type": {"client_credentials"}}, wrong)
			switch got.status {
			case http.StatusUnauthorized:
				if got.Error != "invalid_client" || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic") {
					t.Errorf("wrong secret: %s %v", got.raw, got.header)
				}
			case http.StatusTooManyRequests:
				throttled++
			default:
				t.Errorf("wrong secret: %d %s", got.status, got.raw)
			}
		}
		if throttled != 10 {
			t.Errorf("%d of 40 wrong secrets throttled, want 10", throttled)
		}
		if got := w.token(t, "web", url.Values{"grant_type": {"client_credentials"}}); got.status != http.StatusOK {
			t.Errorf("the right secret: %d %s", got.status, got.raw)
		}
	})

	t.Run("TK-12 TK-25", func(t *testing.T) {
		bare := func(r *http.Request) { r.Header.Del("Authorization") }
		for _, path := range []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke"} {
			status, _, body := w.post(t, w.server.URL, path, "web", url.Values{"grant_type": {"client_credentials"}, "client_id": {"web"}, "token": {"x"}}, bare)
			if status != http.StatusUnauthorized || !strings.Contains(body, "invalid_client") {
				t.Errorf("%s with client_id alone: %d %s", path, status, body)
			}
		}
		if status, _, body := w.post(t, w.server.URL, "/oauth/introspect", "spa", url.Values{"token": {"x"}}); status != http.StatusUnauthorized {
			t.Errorf("introspection by a public client: %d %s", status, body)
		}
		if status, _, body := w.post(t, w.server.URL, "/oauth/introspect", "gone", url.Values{"token": {"x"}}); status != http.StatusUnauthorized {
			t.Errorf("introspection by a disabled client: %d %s", status, body)
		}
	})

	t.Run("TK-12 a client_id that is none", func(t *testing.T) {
		for _, id := range []string{"a\x00", "\xff", strings.Repeat("x", 5000)} {
			form := url.Values{"grant_type": {"authorization_code"}, "client_id": {id}, "code": {"x"}, "redirect_uri": {"x"}}
			refused(t, "in the body", w.token(t, "nobody", form), http.StatusUnauthorized, "invalid_client")
			refused(t, "in the header", w.token(t, "nobody", form, func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(id), "x") }), http.StatusUnauthorized, "invalid_client")
		}
	})

	t.Run("TK-13", func(t *testing.T) {
		got := w.token(t, "web", url.Values{"grant_type": {"client_credentials"}, "client_id": {"web"}, "client_secret": {w.secrets["web"]}}, func(r *http.Request) { r.Header.Del("Authorization") })
		refused(t, "post where basic is registered", got, http.StatusUnauthorized, "invalid_client")
	})

	t.Run("client_credentials", func(t *testing.T) {
		got := w.token(t, "web", url.Values{"grant_type": {"client_credentials"}, "scope": {"openid email"}})
		says := w.introspect(t, "web", got.Access)
		if got.status != http.StatusOK || got.ID != "" || got.Refresh != "" || says["active"] != true || says["acr"] != nil || says["sub"] != "web" {
			t.Errorf("%s, introspection %v", got.raw, says)
		}
		if status, _, _ := w.userinfo(t, got.Access); status != http.StatusUnauthorized {
			t.Errorf("UserInfo of nobody: %d", status)
		}
		refused(t, "a client without that grant", w.token(t, "other", url.Values{"grant_type": {"client_credentials"}}), http.StatusBadRequest, "unauthorized_client")
	})
}

func TestPrivateKeyJWT(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}}
	w.register(t, "keyed", oidc.Registration{Name: "Keyed", AuthMethod: zoidc.AuthMethodPrivateKeyJWT, Keys: keys, GrantTypes: []zoidc.GrantType{zoidc.GrantTypeClientCredentials}})
	now := w.DB.Now(t)
	sign := func(alg jose.SignatureAlgorithm, key any, change func(map[string]any)) string {
		claims := map[string]any{"iss": "keyed", "sub": "keyed", "aud": issuer, "jti": uuid.NewString(), "exp": now.Add(time.Minute).Unix(), "iat": now.Unix()}
		if change != nil {
			change(claims)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := jwt.Signed(signer).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	send := func(assertion string, more ...string) *tokens {
		form := url.Values{"grant_type": {"client_credentials"}, "client_assertion": {assertion},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
		for i := 0; i+1 < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		return w.token(t, "keyed", form, func(r *http.Request) {
			r.Header.Set("X-Test-From", fmt.Sprintf("10.0.%d.1", time.Now().UnixNano()%250))
		})
	}
	if got := send(sign(jose.ES256, private, nil)); got.status != http.StatusOK {
		t.Fatalf("a good assertion: %d %s", got.status, got.raw)
	}
	if got := send(sign(jose.ES256, private, func(c map[string]any) {
		c["iat"], c["nbf"] = now.Add(8*time.Second).Unix(), now.Add(8*time.Second).Unix()
	})); got.status != http.StatusOK {
		t.Errorf("C2-8: 8 s ahead: %d %s", got.status, got.raw)
	}

	t.Run("TK-14", func(t *testing.T) {
		der := []byte(strings.Repeat("k", 32))
		for name, raw := range map[string]string{
			"alg none":         "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"keyed","sub":"keyed"}`)) + ".",
			"HS256":            sign(jose.HS256, der, nil),
			"foreign aud":      sign(jose.ES256, private, func(c map[string]any) { c["aud"] = "https://elsewhere.example" }),
			"two aud":          sign(jose.ES256, private, func(c map[string]any) { c["aud"] = []string{issuer, "https://elsewhere.example"} }),
			"exp past":         sign(jose.ES256, private, func(c map[string]any) { c["exp"] = now.Add(-time.Minute).Unix() }),
			"no exp":           sign(jose.ES256, private, func(c map[string]any) { delete(c, "exp") }),
			"exp in two hours": sign(jose.ES256, private, func(c map[string]any) { c["exp"] = now.Add(2 * time.Hour).Unix() }),
			"no sub":           sign(jose.ES256, private, func(c map[string]any) { delete(c, "sub") }),
			"sub is not iss":   sign(jose.ES256, private, func(c map[string]any) { c["sub"] = "web" }),
			"nbf in two min":   sign(jose.ES256, private, func(c map[string]any) { c["nbf"] = now.Add(2 * time.Minute).Unix() }),
			"no jti":           sign(jose.ES256, private, func(c map[string]any) { delete(c, "jti") }),
			"10 000 dots":      strings.Repeat(".", 10000),
			"somebody's key":   sign(jose.ES256, mustKey(t), nil),
			"TK-31 five parts": "a.b.c.d.e",
			"TK-31 much":       strings.Repeat("a", 40<<10) + "." + strings.Repeat("b", 10) + ".c",
		} {
			refused(t, name, send(raw), http.StatusUnauthorized, "invalid_client")
		}
	})

	t.Run("CRY-2 a header that brings a key", func(t *testing.T) {
		for name, value := range map[jose.HeaderKey]any{
			"jwk": jose.JSONWebKey{Key: private.Public()}, "jku": "https://rp.example/keys", "x5u": "https://rp.example/cert", "x5c": []string{}, "zip": "DEF",
		} {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, (&jose.SignerOptions{}).WithHeader(name, value))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := jwt.Signed(signer).Claims(map[string]any{"iss": "keyed", "sub": "keyed", "aud": issuer, "jti": uuid.NewString(), "exp": now.Add(time.Minute).Unix()}).Serialize()
			if err != nil {
				t.Fatal(err)
			}
			refused(t, string(name), send(raw), http.StatusUnauthorized, "invalid_client")
		}
	})

	t.Run("TK-15", func(t *testing.T) {
		raw := sign(jose.ES256, private, nil)
		var wg sync.WaitGroup
		results := make(chan int, 20)
		for range 20 {
			wg.Go(func() { results <- send(raw).status })
		}
		wg.Wait()
		close(results)
		won := 0
		for status := range results {
			if status == http.StatusOK {
				won++
			}
		}
		if won != 1 {
			t.Errorf("one assertion was accepted %d times", won)
		}
	})

	t.Run("TK-16", func(t *testing.T) {
		refused(t, "client_id of another", send(sign(jose.ES256, private, nil), "client_id", "web"), http.StatusUnauthorized, "invalid_client")
	})
}

func mustKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// atOnce has two requests wait for the rows of a table before either goes on, and tells who won.
func atOnce(t *testing.T, w *world, table string, do func() *tokens) (won, lost *tokens) {
	t.Helper()
	hold := w.hold(t, "SELECT 1 FROM "+table+" FOR UPDATE")
	results := make(chan *tokens, 2)
	for range 2 {
		go func() { results <- do() }()
	}
	w.waiting(t, 2)
	hold()
	won, lost = <-results, <-results
	if won.status != http.StatusOK {
		won, lost = lost, won
	}
	if won.status != http.StatusOK {
		t.Fatalf("nobody won: %s, %s", won.raw, lost.raw)
	}
	return won, lost
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	offline := set("scope", "openid profile offline_access")
	fresh := func(t *testing.T) *tokens {
		t.Helper()
		w.DB.Advance(t, 25*time.Hour) // a day has ten texts
		return w.signedIn(t, "web", offline)
	}

	t.Run("TK-17", func(t *testing.T) {
		got := fresh(t)
		refused(t, "another client", w.token(t, "other", refresh(got.Refresh)), http.StatusBadRequest, "invalid_grant") // CB-7
		if again := w.token(t, "web", refresh(got.Refresh)); again.status != http.StatusOK {
			t.Errorf("its own afterwards: %d %s", again.status, again.raw)
		}
	})

	t.Run("TK-18 CB-6", func(t *testing.T) {
		got := fresh(t)
		refused(t, "a scope never granted", w.token(t, "web", refresh(got.Refresh, set("scope", "openid email"))), http.StatusBadRequest, "invalid_scope")
		for _, scope := range []string{"openid\x00", "openid \xff", `"openid"`} {
			refused(t, "a scope that is none", w.token(t, "web", refresh(got.Refresh, set("scope", scope))), http.StatusBadRequest, "invalid_scope")
		}
		again := w.token(t, "web", refresh(got.Refresh, set("scope", "openid")))
		if again.status != http.StatusOK || again.Scope != "openid" {
			t.Errorf("a narrower scope: %d %s", again.status, again.raw)
		}
	})

	t.Run("TK-19", func(t *testing.T) {
		r0 := fresh(t)
		r1 := w.token(t, "web", refresh(r0.Refresh))
		refused(t, "R0 again", w.token(t, "web", refresh(r0.Refresh)), http.StatusBadRequest, "invalid_grant")
		refused(t, "R1 after that", w.token(t, "web", refresh(r1.Refresh)), http.StatusBadRequest, "invalid_grant")
		if w.introspect(t, "web", r1.Access)["active"] != false {
			t.Error("the access token of the line still works")
		}
	})

	t.Run("TK-20", func(t *testing.T) {
		_, replica := w.replica(t, w.DB.Open(t))
		for round := range 10 {
			got := fresh(t)
			var wg sync.WaitGroup
			results, barrier := make(chan *tokens, 20), make(chan struct{})
			for i := range 20 {
				base := []string{w.server.URL, replica.URL}[i%2]
				wg.Go(func() {
					<-barrier
					results <- w.tokenAt(t, base, "web", refresh(got.Refresh))
				})
			}
			close(barrier)
			wg.Wait()
			close(results)
			won := 0
			for r := range results {
				switch {
				case r.status == http.StatusOK:
					won++
				case r.Error != "invalid_grant":
					t.Errorf("answered %d %s", r.status, r.raw)
				}
			}
			var live int
			if err := w.DB.GetContext(t.Context(), &live, `SELECT count(*) FROM refresh_tokens t JOIN grants g ON g.id = t.grant_id
				WHERE t.used_at IS NULL AND g.revoked_at IS NULL AND t.grant_id = (SELECT grant_id FROM refresh_tokens WHERE used_at IS NOT NULL ORDER BY used_at DESC LIMIT 1)`); err != nil {
				t.Fatal(err)
			}
			if won != 1 || live != 0 {
				t.Fatalf("round %d: %d of 20 parallel refreshes won, %d lines live; want one that won and was ended by the others", round, won, live)
			}
		}
	})

	t.Run("OAU-8 at the same moment", func(t *testing.T) {
		got := fresh(t)
		won, lost := atOnce(t, w, "refresh_tokens", func() *tokens { return w.token(t, "web", refresh(got.Refresh)) })
		refused(t, "the second", lost, http.StatusBadRequest, "invalid_grant")
		refused(t, "what the first was given", w.token(t, "web", refresh(won.Refresh)), http.StatusBadRequest, "invalid_grant")
		if w.introspect(t, "web", won.Access)["active"] != false {
			t.Error("the access token of the line still works")
		}
		var early int
		if err := w.DB.GetContext(t.Context(), &early, "SELECT count(*) FROM grants g JOIN refresh_tokens t ON t.grant_id = g.id WHERE t.created_at > g.revoked_at"); err != nil || early != 0 {
			t.Errorf("%d tokens were given after their line had ended, by the times stored: %v", early, err)
		}
	})

	for name, end := range map[string]func(t *testing.T){
		"password changed": func(t *testing.T) {
			who, err := w.Service.Find(t.Context(), "alice")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Service.SetPassword(t.Context(), who.ID, "correct horse battery staple"); err != nil {
				t.Fatal(err)
			}
		},
		"user disabled": func(t *testing.T) {
			who, err := w.Service.Find(t.Context(), "alice")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Service.Disable(t.Context(), who.ID); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.Service.Enable(context.WithoutCancel(t.Context()), who.ID) }) //nolint:errcheck // the next test would show it
		},
		"client disabled": func(t *testing.T) {
			if err := w.provider.Clients.SetDisabled(t.Context(), "web", true); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.provider.Clients.SetDisabled(context.WithoutCancel(t.Context()), "web", false) }) //nolint:errcheck // the next test would show it
		},
	} {
		t.Run("TK-21 TK-33 "+name, func(t *testing.T) {
			got := fresh(t)
			open := w.browser().code(t, request("web"))
			end(t)
			for what, r := range map[string]*tokens{"refresh": w.token(t, "web", refresh(got.Refresh)), "open code": w.token(t, "web", redeem("web", open))} {
				if r.status == http.StatusOK || r.Error != "invalid_grant" && r.Error != "invalid_client" {
					t.Errorf("%s: %d %s", what, r.status, r.raw)
				}
			}
			if status, _, _ := w.userinfo(t, got.Access); status != http.StatusUnauthorized {
				t.Errorf("UserInfo: %d", status)
			}
		})
	}
}

func TestEnabledAgain(t *testing.T) { // I6, OAU-8
	t.Parallel()
	w := newWorld(t)
	clients := w.provider.Clients
	got := w.signedIn(t, "web", set("scope", "openid offline_access"))
	own := w.token(t, "web", url.Values{"grant_type": {"client_credentials"}})
	open := w.browser().code(t, request("web"))
	other := w.signedIn(t, "other", set("scope", "openid offline_access"))

	t.Run("an enabled client loses nothing", func(t *testing.T) {
		if err := clients.SetDisabled(t.Context(), "web", false); err != nil {
			t.Fatal(err)
		}
		if w.introspect(t, "web", got.Access)["active"] != true {
			t.Error("its access token does not work any more")
		}
	})

	t.Run("I6 what disabling revoked stays so", func(t *testing.T) {
		for _, disabled := range []bool{true, false} {
			if err := clients.SetDisabled(t.Context(), "web", disabled); err != nil {
				t.Fatal(err)
			}
		}
		refused(t, "its refresh token", w.token(t, "web", refresh(got.Refresh)), http.StatusBadRequest, "invalid_grant")
		refused(t, "its open code", w.token(t, "web", redeem("web", open)), http.StatusBadRequest, "invalid_grant")
		for what, token := range map[string]string{"access token": got.Access, "own access token": own.Access} {
			if w.introspect(t, "web", token)["active"] != false {
				t.Errorf("its %s works", what)
			}
		}
		if status, _, _ := w.userinfo(t, other.Access); status != http.StatusOK {
			t.Errorf("the token of another client: %d", status)
		}
		if again := w.token(t, "web", url.Values{"grant_type": {"client_credentials"}}); again.status != http.StatusOK {
			t.Errorf("a new grant: %d %s", again.status, again.raw)
		}
	})

	t.Run("I6 a grant that is stored while the client is disabled", func(t *testing.T) {
		w.DB.Advance(t, 25*time.Hour) // a day has ten texts
		b := w.browser()
		b.code(t, request("web"))
		page := b.authorize(t, request("third", set("prompt", "consent")))
		if _, err := w.DB.ExecContext(t.Context(), `
			CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
			CREATE TRIGGER wait BEFORE INSERT ON authz_codes FOR EACH ROW EXECUTE FUNCTION wait()`); err != nil {
			t.Fatal(err)
		}
		release := w.hold(t, "SELECT pg_advisory_xact_lock(1)") // the grant is made, its code not yet
		allowed, disabled := make(chan *answer, 1), make(chan error, 1)
		go func() { allowed <- b.do(t, http.MethodPost, page.location, url.Values{}) }()
		w.waiting(t, 1)
		go func() { disabled <- clients.SetDisabled(t.Context(), "third", true) }()
		w.waiting(t, 2)
		release()
		code := (<-allowed).param("code")
		if err := <-disabled; err != nil || code == "" {
			t.Fatalf("code %q, %v", code, err)
		}
		if err := clients.SetDisabled(t.Context(), "third", false); err != nil {
			t.Fatal(err)
		}
		refused(t, "its code", w.token(t, "third", redeem("third", code)), http.StatusBadRequest, "invalid_grant")
	})
}

func TestTokensAreNotTakenForOneAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	signed := w.signedIn(t, "web", set("scope", "openid offline_access"))
	opaque := w.signedIn(t, "other", set("scope", "openid offline_access"))
	otherIssuer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: mustKey(t), KeyID: kid(t, signed.Access)}}, (&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := jwt.Signed(otherIssuer).Claims(map[string]any{"iss": issuer, "aud": issuer, "jti": "x"}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(signed.Access, ".")
	header := func(h string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(h)) + "." + parts[1] + "." + parts[2]
	}
	for name, token := range map[string]string{
		"TK-23 ID Token": signed.ID, "TK-23 refresh token": signed.Refresh, "TK-27 foreign key under our kid": foreign,
		"TK-26 alg none": header(`{"alg":"none","typ":"at+jwt"}`), "TK-26 kid is a path": header(`{"alg":"ES256","typ":"at+jwt","kid":"../../x"}`),
		"TK-26 kid is SQL": header(`{"alg":"ES256","typ":"at+jwt","kid":"' OR 1=1 --"}`), "TK-26 crit": header(`{"alg":"ES256","typ":"at+jwt","crit":["x"],"x":1,"kid":"` + kid(t, signed.Access) + `"}`),
		"TK-26 typ JWT": header(`{"alg":"ES256","typ":"JWT","kid":"` + kid(t, signed.Access) + `"}`), "TK-26 dots missing": parts[0] + parts[1],
		"TK-26 much": parts[0] + "." + strings.Repeat("A", 6<<10) + "." + parts[2],
		"TK-7 cut 1": opaque.Access[:len(opaque.Access)-1], "TK-7 cut 8": opaque.Access[:len(opaque.Access)-8], "TK-7 longer": opaque.Access + "A", "TK-7 case": strings.ToLower(opaque.Access),
		"TK-7 signed, cut": signed.Access[:len(signed.Access)-2], "TK-7 signed, longer": signed.Access + "A",
	} {
		status, body, h := w.userinfo(t, token)
		if status != http.StatusUnauthorized || body["error"] != "invalid_token" || !strings.HasPrefix(h.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s at UserInfo: %d %v", name, status, body)
		}
		if name == "TK-23 refresh token" {
			continue // its own client may ask about it
		}
		for _, client := range []string{"web", "other"} {
			if says := w.introspect(t, client, token); says["active"] != false {
				t.Errorf("%s at introspection: %v", name, says)
			}
		}
	}
	refused(t, "TK-23 access token as refresh token", w.token(t, "other", refresh(opaque.Access)), http.StatusBadRequest, "invalid_grant")
	for _, token := range []string{signed.Access, opaque.Access} {
		if status, _, _ := w.userinfo(t, token); status != http.StatusOK {
			t.Errorf("the original does not work any more: %d", status)
		}
	}
	if says := w.introspect(t, "web", opaque.Access); says["active"] != false {
		t.Errorf("TK-25: a client learnt of another's token: %v", says)
	}
}

func kid(t *testing.T, raw string) string {
	t.Helper()
	signed, err := jose.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	return signed.Signatures[0].Header.KeyID
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	signed := w.signedIn(t, "web", set("scope", "openid offline_access"))
	opaque := w.signedIn(t, "other", set("scope", "openid offline_access"))
	revoke := func(client, token string) {
		t.Helper()
		if status, _, body := w.post(t, w.server.URL, "/oauth/revoke", client, url.Values{"token": {token}}); status != http.StatusOK {
			t.Errorf("revocation answered %d %s", status, body)
		}
	}
	works := func(token string) bool {
		status, _, _ := w.userinfo(t, token)
		return status == http.StatusOK
	}
	revoke("other", signed.Access) // TK-24
	revoke("web", opaque.Refresh)
	revoke("web", "no token at all")
	revoke("web", strings.Repeat("x", 20<<10))
	if !works(signed.Access) || !works(opaque.Access) {
		t.Fatal("TK-24: a client revoked another's token")
	}
	revoke("web", signed.Access)
	revoke("web", signed.Access)
	if works(signed.Access) {
		t.Error("a revoked signed token works")
	}
	if again := w.token(t, "web", refresh(signed.Refresh)); again.status != http.StatusOK {
		t.Errorf("its line should live on: %d %s", again.status, again.raw)
	}
	revoke("other", opaque.Refresh)
	if works(opaque.Access) {
		t.Error("the access token of a revoked line works")
	}
}

func TestDatabaseDown(t *testing.T) { // F-09, OAU-11
	t.Parallel()
	w := newWorld(t)
	got := w.signedIn(t, "web", set("scope", "openid offline_access"))
	b := w.browser()
	code := b.code(t, request("web"))
	w.DB.Outage(t)
	for path, form := range map[string]url.Values{
		"/oauth/token": redeem("web", code), "/oauth/token#refresh": refresh(got.Refresh), "/oauth/introspect": {"token": {got.Access}}, "/oauth/revoke": {"token": {got.Access}},
	} {
		status, header, body := w.post(t, w.server.URL, strings.Split(path, "#")[0], "web", form)
		if status != http.StatusServiceUnavailable || !strings.Contains(body, "temporarily_unavailable") || header.Get("Retry-After") == "" || strings.Contains(body, "sql") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if a := b.authorize(t, request("web")); a.status != http.StatusServiceUnavailable || a.body != "problem maintenance" {
		t.Errorf("authorize: %d %s", a.status, a.body)
	}
}

func TestKeyRotation(t *testing.T) { // F-63, AD-5
	t.Parallel()
	w := newWorld(t)
	got := w.signedIn(t, "web", set("scope", "openid offline_access"))
	raws := []string{got.ID, got.Access}
	for range 5 {
		for _, alg := range oidc.Algorithms() {
			if _, err := w.provider.Keys.Create(t.Context(), alg, 0); err != nil {
				t.Fatal(err)
			}
		}
		got = w.token(t, "web", refresh(got.Refresh))
		raws = append(raws, got.ID, got.Access)
	}
	seen := map[string]bool{}
	for _, raw := range raws {
		_, header := w.claims(t, raw) // every one verifies against what is published now
		seen[header.KeyID] = true
	}
	if len(seen) != 12 {
		t.Errorf("%d keys signed 12 tokens around 5 rotations of two algorithms, want 12", len(seen))
	}
	pending, err := w.provider.Keys.Create(t.Context(), "RS256", 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	keys := w.browser().do(t, http.MethodGet, "/oauth/keys", nil).body
	if !strings.Contains(keys, pending) || strings.Contains(keys, `"d":`) {
		t.Errorf("a pending key is not published, or a private part is")
	}
	if got = w.token(t, "web", refresh(got.Refresh)); kidOf(t, w, got.ID) == pending {
		t.Error("a pending key was used")
	}
	w.DB.Advance(t, 10*time.Minute)
	if err := w.provider.Keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got = w.token(t, "web", refresh(got.Refresh)); kidOf(t, w, got.ID) != pending {
		t.Error("a due key was not used")
	}
}

func kidOf(t *testing.T, w *world, raw string) string {
	t.Helper()
	_, header := w.claims(t, raw)
	return header.KeyID
}

func TestSignOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser()
	got := w.token(t, "web", redeem("web", b.code(t, request("web"))))
	kept := w.token(t, "other", redeem("other", b.code(t, request("other", set("scope", "openid offline_access")))))
	logout := func(method string, v url.Values) *answer {
		t.Helper()
		if method == http.MethodGet {
			return b.do(t, method, "/logout?"+v.Encode(), nil)
		}
		return b.do(t, method, "/logout", v)
	}
	bye := "https://rp.example/bye"
	t.Run("SS-3 SS-4 CR-4", func(t *testing.T) {
		none := "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + strings.Split(got.ID, ".")[1] + "."
		for name, v := range map[string]url.Values{
			"nothing": {}, "no hint": {"post_logout_redirect_uri": {bye}}, "state only": {"state": {"x"}}, "alg none": {"id_token_hint": {none}, "post_logout_redirect_uri": {bye}},
			"TK-23 access token": {"id_token_hint": {got.Access}}, "client_id of another": {"id_token_hint": {got.ID}, "client_id": {"other"}, "post_logout_redirect_uri": {bye}},
		} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				if a := logout(method, v); a.location != "" || a.body != "confirm sign-out" {
					t.Errorf("%s by %s: %d %q %s", name, method, a.status, a.location, a.body)
				}
			}
		}
		if a := b.authorize(t, request("web", set("prompt", "none"))); a.param("code") == "" {
			t.Fatalf("the session ended: %q", a.location)
		}
	})
	t.Run("OID-7 a form of another site", func(t *testing.T) {
		v := url.Values{"id_token_hint": {got.ID}, "post_logout_redirect_uri": {bye}, "state": {"a b"}}
		a := w.browser().do(t, http.MethodPost, "/logout", v) // its cookie is kept back
		if a.status != http.StatusSeeOther || a.location != "/logout?"+v.Encode() || len(a.header.Values("Set-Cookie")) != 0 {
			t.Errorf("answered %d %q; want the same as a GET, and the cookie left alone", a.status, a.location)
		}
		v.Set("state", strings.Repeat("s", 9<<10))
		if a := w.browser().do(t, http.MethodPost, "/logout", v); a.status != http.StatusRequestEntityTooLarge || a.location != "" {
			t.Errorf("too long for an address: %d %q %s; want an error page", a.status, a.location, a.body)
		}
		if a := b.authorize(t, request("web", set("prompt", "none"))); a.param("code") == "" {
			t.Fatalf("the session ended: %q", a.location)
		}
	})
	t.Run("CR-2 CR-6", func(t *testing.T) {
		w.DB.Advance(t, 11*time.Minute) // the hint has expired
		state := strings.Repeat("s", 128)
		posted := w.browser().do(t, http.MethodPost, "/logout", url.Values{"id_token_hint": {got.ID}, "post_logout_redirect_uri": {bye}, "state": {state}})
		a := b.do(t, http.MethodGet, posted.location, nil)
		if a.status != http.StatusSeeOther || a.location != bye+"?state="+state {
			t.Fatalf("answered %d %q %s", a.status, a.location, a.body)
		}
		if a := b.authorize(t, request("web", set("prompt", "none"))); a.param("error") != "login_required" {
			t.Errorf("after sign-out: %q", a.location)
		}
		if again := w.token(t, "other", refresh(kept.Refresh)); again.status != http.StatusOK {
			t.Errorf("offline access ended with the session: %d %s", again.status, again.raw)
		}
	})
	t.Run("SS-4 CR-3 nobody signed in", func(t *testing.T) {
		if a := logout(http.MethodGet, url.Values{"id_token_hint": {got.ID}, "post_logout_redirect_uri": {bye}}); a.location != bye {
			t.Errorf("no state: %q", a.location)
		}
		for _, uri := range []string{bye + "?x=1", "https://evil.example/", bye + "/"} {
			if a := logout(http.MethodGet, url.Values{"id_token_hint": {got.ID}, "post_logout_redirect_uri": {uri}}); a.location != "" || a.body != "signed out of Web" {
				t.Errorf("%s: %d %q %s", uri, a.status, a.location, a.body)
			}
		}
		if a := logout(http.MethodGet, url.Values{}); a.body != "signed out of " {
			t.Errorf("nothing: %s", a.body)
		}
	})
}

func TestSignOutEndsGrants(t *testing.T) { // SS-2
	t.Parallel()
	w := newWorld(t)
	b := w.browser()
	got := w.token(t, "web", redeem("web", b.code(t, request("web"))))
	b.do(t, http.MethodGet, "/logout?"+url.Values{"id_token_hint": {got.ID}}.Encode(), nil)
	if says := w.introspect(t, "web", got.Access); says["active"] != false {
		t.Errorf("the access token survived sign-out: %v", says)
	}
}

func TestSignOutWhileACodeIsIssued(t *testing.T) { // SES-5, OAU-8
	t.Parallel()
	w := newWorld(t)
	for name, tt := range map[string]struct {
		scope  string
		status int
	}{
		"SES-5 ends it": {"openid", http.StatusBadRequest},
		"OAU-8 offline access outlasts the session": {"openid offline_access", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			w.DB.Advance(t, 25*time.Hour) // a day has ten texts
			b := w.browser()
			hint := w.token(t, "web", redeem("web", b.code(t, request("web")))).ID
			page := b.authorize(t, request("third", set("scope", tt.scope), set("prompt", "consent")))
			release := w.hold(t, "SELECT 1 FROM sessions FOR UPDATE")
			allowed, left := make(chan *answer, 1), make(chan *answer, 1)
			go func() {
				allowed <- (&browser{w: w, base: b.base, cookie: b.cookie}).do(t, http.MethodPost, page.location, url.Values{})
			}()
			w.waiting(t, 1) // the code is first
			go func() {
				left <- (&browser{w: w, base: b.base, cookie: b.cookie}).do(t, http.MethodGet, "/logout?"+url.Values{"id_token_hint": {hint}}.Encode(), nil)
			}()
			w.waiting(t, 2)
			release()
			code := (<-allowed).param("code")
			if out := <-left; code == "" || out.body != "signed out of Web" {
				t.Fatalf("code %q, then %q", code, out.body)
			}
			got := w.token(t, "third", redeem("third", code))
			if got.status != tt.status {
				t.Errorf("redeemed after sign-out: %d %s, want %d", got.status, got.raw, tt.status)
			}
		})
	}
}

func TestDiscovery(t *testing.T) { // CC-1 to CC-5
	t.Parallel()
	w := newWorld(t)
	a := w.browser().do(t, http.MethodGet, "/.well-known/openid-configuration", nil)
	if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		t.Fatalf("%d %v", a.status, a.header)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["issuer"] != issuer || doc["authorization_response_iss_parameter_supported"] != true {
		t.Errorf("%v", doc)
	}
	for _, name := range []string{"registration_endpoint", "check_session_iframe", "device_authorization_endpoint", "backchannel_logout_supported"} {
		if doc[name] != nil {
			t.Errorf("%s is promised", name)
		}
	}
	for name, value := range doc {
		if s, ok := value.(string); ok && strings.Contains(name, "endpoint") && !strings.HasPrefix(s, issuer+"/") {
			t.Errorf("%s = %s", name, s)
		}
	}
	if prompts := fmt.Sprint(doc["prompt_values_supported"]); prompts != "[none login consent]" { // an account cannot be selected
		t.Errorf("prompts %s", prompts)
	}
	algs, _ := doc["id_token_signing_alg_values_supported"].([]any)
	if !slices.Contains(algs, any("RS256")) {
		t.Errorf("algs %v", algs)
	}
	if a := w.browser().do(t, http.MethodPost, "/oauth/keys", url.Values{}); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST to the keys: %d", a.status)
	}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := w.DB.Now(t)
	w.change = func(cfg *oidc.Config) { cfg.Now = func() time.Time { return now } } // in production it asks nobody
	w.provider, w.server = w.replica(t, w.DB.DB)
	w.DB.SetMaxOpenConns(1)
	trips := func(what string, want int64, do func()) {
		t.Helper()
		before := w.DB.RoundTrips.Load()
		do()
		if got := w.DB.RoundTrips.Load() - before; want > 0 && got != want {
			t.Errorf("%s took %d round trips, want %d", what, got, want)
		}
	}
	for warm := range int64(2) { // the first time prepares the statements
		b := w.browser()
		var a *answer
		trips("authorize", warm*1, func() { a = b.authorize(t, request("web", set("scope", "openid offline_access"))) })
		a = b.signIn(t, a)
		trips("silent authorize and answer", warm*2, func() { b.authorize(t, request("web", set("prompt", "none"), set("scope", "openid offline_access"))) })
		var got *tokens
		trips("token", warm*1, func() { got = w.token(t, "web", redeem("web", a.param("code"))) })
		trips("refresh", warm*1, func() { got = w.token(t, "web", refresh(got.Refresh)) })
		trips("introspection", warm*1, func() { w.introspect(t, "web", got.Access) })
		trips("UserInfo", warm*2, func() { w.userinfo(t, got.Access) })

		// Who authenticates by key and proves possession of another costs no more.
		var v url.Values
		form, key := request("bank", set("scope", "openid offline_access"), details("["+one+"]"), set("client_assertion", w.assertion(t, nil))), newKey(t)
		trips("push", warm*1, func() { v = w.pushed(t, "bank", func(v url.Values) { maps.Copy(v, form) }) })
		trips("authorize what was pushed", warm*2, func() { a = b.authorize(t, v) }) // with the answer: the person is signed in
		prove, assertion := w.by(t, key), w.assertion(t, nil)
		trips("token, bound", warm*1, func() {
			got = w.token(t, "bank", redeem("bank", a.param("code"), set("client_assertion", assertion)), prove)
		})
		prove, assertion = w.by(t, key), w.assertion(t, nil)
		trips("refresh, bound", warm*1, func() { w.token(t, "bank", refresh(got.Refresh, set("client_assertion", assertion)), prove) })
		show := w.with(t, key, got.Access, nil)
		trips("UserInfo, bound", warm*2, func() { w.resource(t, w.server.URL, "DPoP", got.Access, show) })
	}
}

// TestIndependentVerifier has another library check what is issued.
func TestIndependentVerifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.signedIn(t, "web")
	keys := goidc.NewRemoteKeySet(t.Context(), w.server.URL+"/oauth/keys")
	token, err := goidc.NewVerifier(issuer, keys, &goidc.Config{ClientID: "web", Now: func() time.Time { return w.DB.Now(t) }}).Verify(t.Context(), got.ID)
	if err != nil {
		t.Fatal(err)
	}
	if token.Nonce != "the nonce" {
		t.Errorf("nonce %q", token.Nonce)
	}
	if err := token.VerifyAccessToken(got.Access); err != nil {
		t.Errorf("at_hash: %v", err)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.signedIn(t, "web", set("scope", "openid offline_access"))
	w.token(t, "web", refresh(got.Refresh+"x"))
	for _, secret := range []string{got.Access, got.Refresh, got.ID, w.secrets["web"]} {
		if strings.Contains(w.logs.String(), secret) {
			t.Error("a secret was logged")
		}
	}
}
