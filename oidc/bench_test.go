package oidc_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/oidc"
)

// serve runs one request through the provider without a network.
func serve(b *testing.B, h http.Handler, r *http.Request, status int) *httptest.ResponseRecorder {
	b.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != status {
		b.Fatalf("%s answered %d %s", r.URL.Path, w.Code, w.Body)
	}
	return w
}

func post(b *testing.B, path string, w *world, form url.Values) *http.Request {
	b.Helper()
	r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("web", url.QueryEscape(w.secrets["web"]))
	return r
}

// BenchmarkProtocol measures what an application asks for, without network and browser, with PostgreSQL.
func BenchmarkProtocol(b *testing.B) {
	w := newWorld(b)
	routes := w.provider.Routes()
	browser := w.browser()
	code := browser.code(b, request("web", set("scope", "openid profile offline_access")))
	session := &http.Cookie{Name: "session", Value: browser.cookie}
	got := w.token(b, "web", redeem("web", code))
	silent := "/authorize?" + request("web", set("prompt", "none"), set("scope", "openid profile offline_access")).Encode()

	b.Run("authorize", func(b *testing.B) { // nobody is signed in: stored, and led to the password page
		b.ReportAllocs()
		for b.Loop() {
			serve(b, routes, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/authorize?"+request("web").Encode(), nil), http.StatusSeeOther)
		}
	})
	b.Run("authorize and answer", func(b *testing.B) { // signed in: stored, decided, grant and code
		b.ReportAllocs()
		for b.Loop() {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, silent, nil)
			r.AddCookie(session)
			serve(b, routes, r, http.StatusSeeOther)
		}
	})
	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, silent, nil)
			r.AddCookie(session)
			location, err := url.Parse(serve(b, routes, r, http.StatusSeeOther).Header().Get("Location"))
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			serve(b, routes, post(b, "/oauth/token", w, redeem("web", location.Query().Get("code"))), http.StatusOK)
		}
	})
	b.Run("refresh", func(b *testing.B) {
		b.ReportAllocs()
		token := got.Refresh
		for b.Loop() {
			answer := serve(b, routes, post(b, "/oauth/token", w, refresh(token)), http.StatusOK).Body.String()
			_, rest, _ := strings.Cut(answer, `"refresh_token":"`)
			token, _, _ = strings.Cut(rest, `"`)
		}
	})
	b.Run("introspection", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			serve(b, routes, post(b, "/oauth/introspect", w, url.Values{"token": {got.Access}}), http.StatusOK)
		}
	})
	b.Run("userinfo", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/userinfo", nil)
			r.Header.Set("Authorization", "Bearer "+got.Access)
			serve(b, routes, r, http.StatusOK)
		}
	})
}

// BenchmarkPushed measures what a client of the FAPI 2.0 Security Profile asks for. Each request brings an assertion and a proof of its own, whose signing is not
// measured.
func BenchmarkPushed(b *testing.B) {
	w := newWorld(b)
	now := w.DB.Now(b)
	w.change = func(cfg *oidc.Config) { cfg.Now = func() time.Time { return now } }
	w.provider, w.server = w.replica(b, w.DB.DB)
	routes, key, browser := w.provider.Routes(), newKey(b), w.browser()
	browser.code(b, request("web"))
	session := &http.Cookie{Name: "session", Value: browser.cookie}
	silent := request("bank", set("prompt", "none"), set("scope", "openid offline_access"), details("["+one+"]"))
	// form is a request of client bank.
	form := func(path string, v url.Values) *http.Request {
		v = cloneForm(v)
		v.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		v.Set("client_assertion", w.assertion(b, map[string]any{"exp": now.Unix() + 60}))
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, path, strings.NewReader(v.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("DPoP", w.proof(b, key, http.MethodPost, path, map[string]any{"iat": now.Unix()}))
		return r
	}
	push := func() string {
		var answer struct {
			RequestURI string `json:"request_uri"`
		}
		if err := json.Unmarshal(serve(b, routes, form("/par", silent), http.StatusCreated).Body.Bytes(), &answer); err != nil {
			b.Fatal(err)
		}
		return "/authorize?" + url.Values{"client_id": {"bank"}, "request_uri": {answer.RequestURI}}.Encode()
	}
	open := func(target string) string {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, target, nil)
		r.AddCookie(session)
		location, err := url.Parse(serve(b, routes, r, http.StatusSeeOther).Header().Get("Location"))
		if err != nil {
			b.Fatal(err)
		}
		return location.Query().Get("code")
	}
	var got tokens
	if err := json.Unmarshal(serve(b, routes, form("/oauth/token", redeem("bank", open(push()))), http.StatusOK).Body.Bytes(), &got); err != nil {
		b.Fatal(err)
	}

	b.Run("push", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			r := form("/par", silent)
			b.StartTimer()
			serve(b, routes, r, http.StatusCreated)
		}
	})
	b.Run("authorize and answer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			target := push()
			b.StartTimer()
			open(target)
		}
	})
	b.Run("token, bound", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			r := form("/oauth/token", redeem("bank", open(push())))
			b.StartTimer()
			serve(b, routes, r, http.StatusOK)
		}
	})
	b.Run("refresh, bound", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			r := form("/oauth/token", refresh(got.Refresh))
			b.StartTimer()
			serve(b, routes, r, http.StatusOK)
		}
	})
	b.Run("userinfo, bound", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/userinfo", nil)
			r.Header.Set("Authorization", "DPoP "+got.Access)
			r.Header.Set("DPoP", w.proof(b, key, http.MethodGet, "/userinfo", map[string]any{"ath": athOf(got.Access), "iat": now.Unix()}))
			b.StartTimer()
			serve(b, routes, r, http.StatusOK)
		}
	})
}

// BenchmarkSignIn measures the two steps of a person, the password with the cheapest hash there is.
func BenchmarkSignIn(b *testing.B) {
	w := authntest.New(b)
	passwords, err := authn.NewPasswords(authn.HashingConfig{Memory: 8, Time: 1})
	if err != nil {
		b.Fatal(err)
	}
	w.Service.Passwords = passwords
	n := 0
	// ready begins a sign-in of somebody new: a number has five texts an hour.
	ready := func(b *testing.B) (name string, p *authn.Progress) {
		b.Helper()
		n++
		name = fmt.Sprintf("user%d", n)
		w.Subscriber(b, name, fmt.Sprintf("+1%s555%04d", []string{"202", "212", "213", "305", "312", "404", "415", "503", "617", "702"}[n/10000%10], n%10000))
		p, err := w.Service.Begin(b.Context(), "", authntest.Beginning())
		if err != nil {
			b.Fatal(err)
		}
		return name, p
	}
	b.Run("password", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			name, p := ready(b)
			ctx := authntest.From(b.Context(), fmt.Sprintf("2001:db8:%x::1", n))
			b.StartTimer()
			if _, err := w.Service.Password(ctx, p.Cookie, uuid.Nil, p.SignIn.ID, name, authntest.Password, "en"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("code", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			name, p := ready(b)
			ctx := authntest.From(b.Context(), fmt.Sprintf("2001:db8:%x::1", n))
			id := p.SignIn.ID
			p, err := w.Service.Password(ctx, p.Cookie, uuid.Nil, id, name, authntest.Password, "en")
			if err != nil {
				b.Fatal(err)
			}
			cookie := p.Cookie
			if p, err = w.Service.Load(ctx, cookie, id); err != nil {
				b.Fatal(err)
			}
			code := w.Code(b, p.SignIn.Challenge.ID)
			b.StartTimer()
			if _, err := w.Service.Code(ctx, cookie, id, code); err != nil {
				b.Fatal(err)
			}
		}
	})
}
