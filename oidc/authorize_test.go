package oidc_test

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/oidc"
)

const issuer = "https://login.example"

func TestAuthorize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	page := func(t *testing.T, a *answer) {
		t.Helper()
		if a.status != http.StatusBadRequest || a.location != "" || !strings.HasPrefix(a.body, "problem") {
			t.Errorf("answered %d to %q with %q; want an error page", a.status, a.location, a.body)
		}
	}
	toApp := func(t *testing.T, a *answer, code string) {
		t.Helper()
		if a.status != http.StatusSeeOther || a.param("error") != code || a.param("iss") != issuer || a.param("code") != "" ||
			!strings.HasPrefix(a.location, "https://") {
			t.Errorf("answered %d to %q; want %s with iss at the application", a.status, a.location, code)
		}
	}

	for id, uris := range map[string][]string{
		"AZ-1": {"https://rp.example/cb/x"},
		"AZ-2": {"https://rp.example/cb?x=1", "https://rp.example/cb2"},
		"AZ-3": {"https://RP.example/cb", "https://rp.example:443/cb", "https://rp.example/cb/", "https://rp.example/CB"},
		"AZ-4": {"https://rp.example/%63b", "https://rp.example%2Fcb", "https://rp.example/%2563b", "https%3A//rp.example/cb", "https://rp.example/cb2?a=b+"},
		"AZ-5": {"https://rp.example@evil.example/cb", `https://rp.example\@evil.example`, "https://rp.example.evil.example/cb"},
		"AZ-6": {"javascript:alert(1)", "data:text/html,x", "https://rp.example/cb\r\nX: y", "https://rp.example/cb\x00"},
		"AZ-7": {""},
	} {
		t.Run(id, func(t *testing.T) {
			for _, uri := range uris {
				page(t, w.browser().authorize(t, request("web", set("redirect_uri", uri))))
			}
		})
	}
	t.Run("AZ-7 left out", func(t *testing.T) { page(t, w.browser().authorize(t, request("web", drop("redirect_uri")))) })

	t.Run("AZ-8", func(t *testing.T) {
		bodies := map[string]bool{}
		for _, id := range []string{"unknown", "", "gone", "a\x00b", "\xff", "we b", strings.Repeat("w", 5000)} {
			a := w.browser().authorize(t, request("web", set("client_id", id), set("redirect_uri", "https://gone.example/cb")))
			page(t, a)
			bodies[a.body] = true
		}
		if len(bodies) != 1 {
			t.Errorf("unknown, empty and disabled are told apart: %v", bodies)
		}
		if strings.Contains(w.logs.String(), "level=ERROR") {
			t.Errorf("a fault was logged: %s", w.logs)
		}
	})

	t.Run("AZ-9", func(t *testing.T) {
		for _, kind := range []string{"token", "id_token", "code token", "code id_token", "none", "CODE"} {
			toApp(t, w.browser().authorize(t, request("web", set("response_type", kind))), "unsupported_response_type")
		}
		toApp(t, w.browser().authorize(t, request("web", drop("response_type"))), "invalid_request")
	})

	t.Run("AZ-10", func(t *testing.T) {
		for _, client := range []string{"web", "spa"} { // spa is public: the exemption by name does not hold for it
			toApp(t, w.browser().authorize(t, request(client, drop("code_challenge"), drop("code_challenge_method"))), "invalid_request")
		}
		a := w.browser().authorize(t, request("third", drop("code_challenge"), drop("code_challenge_method")))
		if !strings.HasPrefix(a.location, "/login") {
			t.Errorf("the confidential client exempted by name: %d %q", a.status, a.location)
		}
	})

	t.Run("AZ-11", func(t *testing.T) {
		for _, method := range []string{"plain", "s256", "S512", ""} {
			toApp(t, w.browser().authorize(t, request("web", set("code_challenge_method", method))), "invalid_request")
		}
		toApp(t, w.browser().authorize(t, request("web", drop("code_challenge_method"))), "invalid_request")
		toApp(t, w.browser().authorize(t, request("third", drop("code_challenge"))), "invalid_request")
		for _, c := range []string{strings.Repeat("a", 42), strings.Repeat("a", 129), strings.Repeat("ä", 43), ""} {
			toApp(t, w.browser().authorize(t, request("web", set("code_challenge", c))), "invalid_request")
		}
	})

	t.Run("AZ-12", func(t *testing.T) {
		for _, name := range []string{"client_id", "redirect_uri"} {
			v := request("web")
			v.Add(name, v.Get(name))
			page(t, w.browser().authorize(t, v))
		}
		for _, name := range []string{"state", "code_challenge", "scope", "prompt"} {
			v := request("web")
			v.Add(name, "x")
			v.Add(name, "y")
			toApp(t, w.browser().authorize(t, v), "invalid_request")
		}
	})

	t.Run("AZ-13", func(t *testing.T) {
		b := w.browser()
		a := b.authorize(t, request("web"))
		b.do(t, http.MethodPost, a.location, url.Values{"name": {"alice"}, "password": {"correct horse battery staple"}})
		got := b.authorize(t, request("web", set("prompt", "none"), set("state", strings.Repeat("s", 128))))
		toApp(t, got, "interaction_required")
		if got.param("state") != strings.Repeat("s", 128) {
			t.Errorf("state = %q", got.param("state"))
		}
		b.w.DB.Advance(t, time.Hour) // leave the sends to the other tests
	})

	t.Run("AZ-14", func(t *testing.T) {
		b := w.browser()
		b.code(t, request("web"))
		toApp(t, b.authorize(t, request("web", set("prompt", "none"), set("acr_values", "urn:watchword:acr:3"))), "unmet_authentication_requirements")
		toApp(t, b.authorize(t, request("web", set("claims", `{"id_token":{"acr":{"essential":true,"values":["nobody-knows"]}}}`))), "unmet_authentication_requirements")
		if a := b.authorize(t, request("web", set("acr_values", "nobody-knows"))); a.param("code") == "" {
			t.Errorf("a voluntary value that nobody knows: %q", a.location)
		}
	})

	t.Run("AZ-15", func(t *testing.T) {
		toApp(t, w.browser().authorize(t, request("web", set("prompt", "none login"))), "invalid_request")
		toApp(t, w.browser().authorize(t, request("web", set("prompt", "unknown"))), "invalid_request")
		toApp(t, w.browser().authorize(t, request("web", set("prompt", "none"))), "login_required")
	})

	t.Run("AZ-16", func(t *testing.T) {
		for _, age := range []string{"-1", "abc", "1e9", "99999999999999999999", "", "+1", "1.5"} {
			toApp(t, w.browser().authorize(t, request("web", set("max_age", age))), "invalid_request")
		}
	})

	t.Run("AZ-18", func(t *testing.T) {
		for _, hint := range []string{"eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUifQ.", "a.b.c", "x"} {
			toApp(t, w.browser().authorize(t, request("web", set("id_token_hint", hint))), "invalid_request")
		}
	})

	t.Run("AZ-19", func(t *testing.T) {
		page(t, w.browser().authorize(t, request("web", set("request", "a.b.c"), set("redirect_uri", "https://evil.example"))))
		toApp(t, w.browser().authorize(t, request("web", set("request", "a.b.c"))), "request_not_supported")
	})

	t.Run("AZ-20", func(t *testing.T) {
		toApp(t, w.browser().authorize(t, request("web", set("request_uri", "https://127.0.0.1:1/"))), "request_uri_not_supported")
	})

	t.Run("AZ-21", func(t *testing.T) {
		state := `"><script>x</script>&amp;`
		for _, change := range []func(url.Values){drop("nothing"), set("prompt", "none")} {
			b := w.browser()
			a := b.authorize(t, request("web", set("response_mode", "form_post"), set("state", state), change))
			a = b.signIn(t, a)
			if a.status != http.StatusOK || a.location != "" || !strings.Contains(a.body, `"action":"https://rp.example/cb"`) ||
				!strings.Contains(a.body, `"iss":["https://login.example"]`) {
				t.Errorf("form_post answered %d %q %s", a.status, a.location, a.body)
			}
		}
		toApp(t, w.browser().authorize(t, request("web", set("response_mode", "fragment"))), "invalid_request")
		w.DB.Advance(t, time.Hour)
	})

	t.Run("AZ-22", func(t *testing.T) {
		for _, state := range []string{strings.Repeat("s", 4096), "ünï", "\x00", `'"`, "%00", "", "a b+c"} {
			a := w.browser().authorize(t, request("web", set("prompt", "none"), set("state", state)))
			toApp(t, a, "login_required")
			if a.param("state") != state || !strings.Contains(a.location, "state=") {
				t.Errorf("state %q came back as %q", state, a.param("state"))
			}
		}
		for state, carried := range map[string]bool{strings.Repeat("s", 4096): true, "ünï ✓": true, `'"<&amp;`: true, "": true,
			"\x00": false, "a\xff": false, "a\nb": false, "a\rb": false, "a\tb": false, "a\x7fb": false, "a\u0085b": false} {
			a := w.browser().authorize(t, request("web", set("prompt", "none"), set("response_mode", "form_post"), set("state", state)))
			var form struct{ Values url.Values }
			if err := json.Unmarshal([]byte(a.body), &form); err != nil || a.location != "" {
				t.Fatalf("form_post answered %d %q %s, %v", a.status, a.location, a.body, err)
			}
			want := map[bool]string{true: "login_required", false: "invalid_request"}[carried]
			if form.Values.Get("error") != want || form.Values.Has("state") != carried || carried && form.Values.Get("state") != state {
				t.Errorf("by form, state %q: %v; want %s", state, form.Values, want)
			}
		}
		a := w.browser().authorize(t, request("web", set("prompt", "none"), set("state", strings.Repeat("s", 4097))))
		toApp(t, a, "invalid_request")
		if strings.Contains(a.location, "state=") {
			t.Error("a state that is too long was cut")
		}
		toApp(t, w.browser().authorize(t, request("web", set("nonce", strings.Repeat("n", 4097)))), "invalid_request")
		a = w.browser().authorize(t, request("web", set("prompt", "none"), drop("state")))
		if strings.Contains(a.location, "state") {
			t.Error("CR-3: a state was invented")
		}
	})

	t.Run("OAU-11 claims that no database holds", func(t *testing.T) {
		for _, claims := range []string{`{"id_token":{"sub":{"value":"\u0000"}}}`, "{\"userinfo\":{\"\xff\":null}}", "{\"id_token\":{\"sub\":{\"value\":\"\xff\"}}}", "\x00", `[]`, `{`} {
			toApp(t, w.browser().authorize(t, request("web", set("claims", claims))), "invalid_request")
		}
		b := w.browser()
		a := b.signIn(t, b.authorize(t, request("web", set("claims", `{"userinfo":{"x\u0000":null,"email":{"value":"\u0000"}},"id_token":{"\u0000":{"essential":true}}}`))))
		if a.param("code") == "" {
			t.Errorf("names that are no claims: %d %q %s", a.status, a.location, a.body)
		}
		if strings.Contains(w.logs.String(), "level=ERROR") {
			t.Errorf("a fault was logged: %s", w.logs)
		}
		w.DB.Advance(t, time.Hour)
	})

	t.Run("AZ-25 CB-16 POST", func(t *testing.T) {
		b := w.browser()
		a := b.do(t, http.MethodPost, "/authorize", request("web", set("redirect_uri", "https://rp.example/cb2?a=b")))
		if !strings.HasPrefix(a.location, "/authorize?") || b.cookie != "" {
			t.Fatalf("a form of another site, without its cookie: %d %q; want the same as a GET, and no new cookie", a.status, a.location)
		}
		a = b.signIn(t, b.do(t, http.MethodGet, a.location, nil))
		if a.status != http.StatusSeeOther || !strings.HasPrefix(a.location, "https://rp.example/cb2?a=b&code=") || a.param("iss") != issuer {
			t.Errorf("answered %d %q", a.status, a.location)
		}
		if a := b.do(t, http.MethodPost, "/authorize", request("web")); a.param("code") == "" {
			t.Errorf("posted with the cookie: %d %q", a.status, a.location)
		}
		w.DB.Advance(t, time.Hour)
	})

	t.Run("AZ-28 consent", func(t *testing.T) {
		b := w.browser()
		a := b.signIn(t, b.authorize(t, request("third", set("scope", "openid email"))))
		if a.param("code") == "" {
			t.Errorf("after consent: %d %q", a.status, a.location)
		}
		toApp(t, b.authorize(t, request("third", set("scope", "openid email phone"), set("prompt", "none"))), "consent_required")
		a = b.authorize(t, request("third", set("scope", "openid email phone")))
		toApp(t, b.do(t, http.MethodPost, a.location, url.Values{"deny": {"1"}}), "access_denied")
	})

	t.Run("AZ-29", func(t *testing.T) {
		for _, name := range []string{"next", "return_to", "redirect", "continue"} {
			a := w.browser().authorize(t, request("web", set(name, "//evil.example")))
			if !strings.HasPrefix(a.location, "/login?flow=") {
				t.Errorf("%s led to %q", name, a.location)
			}
		}
	})

	t.Run("other methods and bodies", func(t *testing.T) {
		b := w.browser()
		if a := b.do(t, http.MethodPut, "/authorize", nil); a.status != http.StatusMethodNotAllowed {
			t.Errorf("PUT: %d", a.status)
		}
		if a := b.do(t, http.MethodPost, "/authorize", url.Values{"x": {strings.Repeat("x", 1<<20)}}); a.status != http.StatusRequestEntityTooLarge {
			t.Errorf("1 MiB: %d", a.status)
		}
	})

	t.Run("CB-19 unknown parameters", func(t *testing.T) {
		a := w.browser().authorize(t, request("web", set("display", "popup"), set("ui_locales", "xx de"), set("claims_locales", "x"), set("login_hint", "alice"),
			set("foo", "bar"), set("scope", "profile unknown openid")))
		if !strings.HasPrefix(a.location, "/login") {
			t.Errorf("answered %d %q", a.status, a.location)
		}
	})

	t.Run("native loopback", func(t *testing.T) {
		for uri, good := range map[string]bool{
			"http://127.0.0.1:51004/cb": true, "http://127.0.0.1/cb": true, "http://127.0.0.1:51004/other": false, "http://127.0.0.1:x/cb": false,
			"http://127.0.0.1:5@evil.example/cb": false, "http://localhost:51004/cb": false, "http://127.0.0.1:51004.evil.example/cb": false, "https://127.0.0.1:1/cb": false,
		} {
			a := w.browser().authorize(t, request("native", set("redirect_uri", uri)))
			if sent := strings.HasPrefix(a.location, "/login"); sent != good {
				t.Errorf("%s: %d %q", uri, a.status, a.location)
			}
		}
	})
}

func TestSignOnAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser()
	first := w.token(t, "web", redeem("web", b.code(t, request("web"))))
	before, _ := w.claims(t, first.ID)
	w.DB.Advance(t, 3*time.Second)

	t.Run("SS-13 CB-12 silent", func(t *testing.T) {
		for _, client := range []string{"web", "other"} {
			a := b.authorize(t, request(client, set("prompt", "none")))
			got, _ := w.claims(t, w.token(t, client, redeem(client, a.param("code"))).ID)
			for _, name := range []string{"auth_time", "acr", "sid", "sub"} {
				if got[name] != before[name] {
					t.Errorf("%s at %s = %v, was %v", name, client, got[name], before[name])
				}
			}
		}
	})

	t.Run("AZ-17", func(t *testing.T) {
		w.Subscriber(t, "bob", "+12025550144")
		bob, err := w.Service.Find(t.Context(), "bob")
		if err != nil {
			t.Fatal(err)
		}
		a := b.authorize(t, request("web", set("prompt", "none"), set("claims", `{"id_token":{"sub":{"value":"`+bob.Subject+`"}}}`)))
		if a.param("error") != "login_required" {
			t.Errorf("another subject: %q", a.location)
		}
		if a := b.authorize(t, request("web", set("prompt", "none"), set("id_token_hint", first.ID))); a.param("code") == "" {
			t.Errorf("the same subject: %q", a.location)
		}
		if a := b.authorize(t, request("other", set("prompt", "none"), set("id_token_hint", first.ID))); a.param("error") != "invalid_request" {
			t.Errorf("a hint of another client: %q", a.location)
		}
	})

	for name, change := range map[string]func(url.Values){"CB-10 AZ-16 max_age": set("max_age", "1"), "CB-10 prompt=login": set("prompt", "login")} {
		t.Run(name, func(t *testing.T) {
			a := b.authorize(t, request("web", change))
			if !strings.HasPrefix(a.location, "/login") {
				t.Fatalf("no login: %q", a.location)
			}
			a = b.signIn(t, a)
			got, _ := w.claims(t, w.token(t, "web", redeem("web", a.param("code"))).ID)
			if got["auth_time"].(float64) <= before["auth_time"].(float64) {
				t.Errorf("auth_time %v is not later than %v", got["auth_time"], before["auth_time"])
			}
			w.DB.Advance(t, 5*time.Second)
		})
	}
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	good := oidc.Registration{Name: "App", RedirectURIs: []string{"https://rp.example/cb"}}
	for name, change := range map[string]func(*oidc.Registration){
		"no name":              func(r *oidc.Registration) { r.Name = " " },
		"a name of two lines":  func(r *oidc.Registration) { r.Name = "Bank\u2028Amount: EUR 1.00" },
		"a name that turns":    func(r *oidc.Registration) { r.Name = "Bank\u202e" },
		"no redirect":          func(r *oidc.Registration) { r.RedirectURIs = nil },
		"http":                 func(r *oidc.Registration) { r.RedirectURIs = []string{"http://rp.example/cb"} },
		"script":               func(r *oidc.Registration) { r.RedirectURIs = []string{"javascript:alert(1)"} },
		"fragment":             func(r *oidc.Registration) { r.RedirectURIs = []string{"https://rp.example/cb#"} },
		"relative":             func(r *oidc.Registration) { r.RedirectURIs = []string{"/cb"} },
		"user":                 func(r *oidc.Registration) { r.RedirectURIs = []string{"https://a@rp.example/cb"} },
		"loopback for the web": func(r *oidc.Registration) { r.RedirectURIs = []string{"http://127.0.0.1/cb"} },
		"keys missing":         func(r *oidc.Registration) { r.AuthMethod = "private_key_jwt" },
		"public with own": func(r *oidc.Registration) {
			r.AuthMethod, r.GrantTypes = "none", append(r.GrantTypes, "client_credentials")
		},
		"CRY-2 RSA key too small": func(r *oidc.Registration) { r.AuthMethod, r.Keys = "private_key_jwt", rsaKey(1024) },
		"CRY-2 RSA key too large": func(r *oidc.Registration) { r.AuthMethod, r.Keys = "private_key_jwt", rsaKey(16384) },
		"method":                  func(r *oidc.Registration) { r.AuthMethod = "tls" },
		"alg":                     func(r *oidc.Registration) { r.IDTokenAlg = "none" },
		"scope":                   func(r *oidc.Registration) { r.Scopes = []string{"a b"} },
	} {
		r := good
		r.RedirectURIs = slices.Clone(good.RedirectURIs)
		change(&r)
		r.Complete()
		if err := r.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good.Complete()
	if err := good.Validate(); err != nil {
		t.Errorf("a good registration: %v", err)
	}
	good.AuthMethod, good.Keys = "private_key_jwt", rsaKey(2048)
	if err := good.Validate(); err != nil {
		t.Errorf("a good registration with a key: %v", err)
	}
}

// rsaKey looks like a public key of so many bits. Nobody has the private one.
func rsaKey(bits uint) *jose.JSONWebKeySet {
	n := new(big.Int).Lsh(big.NewInt(1), bits)
	return &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: 65537}}}}
}

func TestRegistrationChangesMeanwhile(t *testing.T) { // OAU-1, OAU-14
	t.Parallel()
	w := newWorld(t)
	good := oidc.Registration{Name: "Fickle", RedirectURIs: []string{"https://fickle.example/cb", "https://fickle.example/new"}}
	w.register(t, "fickle", good)
	begin := func(t *testing.T) (b *browser, page *answer) {
		t.Helper()
		w.DB.Advance(t, 25*time.Hour) // a day has ten texts
		b = w.browser()
		b.code(t, request("web"))
		page = b.authorize(t, request("web", set("client_id", "fickle"), set("redirect_uri", "https://fickle.example/cb"), set("scope", "openid email"), set("prompt", "consent")))
		if got := b.do(t, http.MethodGet, page.location, nil).body; got != fmt.Sprintf("step %d", authn.StepConsent) {
			t.Fatalf("at %q, not at the consent page", got)
		}
		return b, page
	}
	clients := w.provider.Clients
	for name, change := range map[string]func() error{
		"OAU-1 redirect_uri removed": func() error {
			return clients.Update(t.Context(), "fickle", oidc.Registration{Name: "Fickle", RedirectURIs: good.RedirectURIs[1:]})
		},
		"OAU-14 code flow removed": func() error {
			r := good
			r.GrantTypes = []zoidc.GrantType{zoidc.GrantTypeClientCredentials}
			return clients.Update(t.Context(), "fickle", r)
		},
		"AZ-8 disabled": func() error { return clients.SetDisabled(t.Context(), "fickle", true) },
		"AZ-8 deleted":  func() error { return clients.Delete(t.Context(), "fickle") },
	} {
		t.Run(name, func(t *testing.T) {
			for what, form := range map[string]url.Values{"allowed": {}, "denied": {"deny": {"1"}}} {
				b, page := begin(t)
				if err := change(); err != nil {
					t.Fatal(err)
				}
				a := b.do(t, http.MethodPost, page.location, form)
				if a.status != http.StatusBadRequest || a.location != "" || a.body != "problem client" {
					t.Errorf("%s: answered %d %q %s; want an error page", what, a.status, a.location, a.body)
				}
				if again := b.do(t, http.MethodGet, page.location, nil); again.status != http.StatusGone {
					t.Errorf("%s: the sign-in goes on: %d %s", what, again.status, again.body)
				}
				if err := clients.Delete(t.Context(), "fickle"); err != nil && !errors.Is(err, oidc.ErrNoClient) {
					t.Fatal(err)
				}
				w.register(t, "fickle", good)
			}
		})
	}

	for name, tt := range map[string]struct {
		left []string
		want string // scopes that are given, or the error
	}{"OAU-14 a scope removed": {[]string{"openid"}, "openid"}, "OAU-14 all scopes removed": {[]string{"phone"}, "invalid_scope"}} {
		t.Run(name, func(t *testing.T) {
			b, page := begin(t)
			r := good
			r.Scopes = tt.left
			if err := clients.Update(t.Context(), "fickle", r); err != nil {
				t.Fatal(err)
			}
			a := b.do(t, http.MethodPost, page.location, url.Values{})
			got := a.param("error")
			if got == "" {
				got = w.token(t, "fickle", redeem("web", a.param("code"), set("redirect_uri", "https://fickle.example/cb")), func(r *http.Request) { r.SetBasicAuth("fickle", w.secrets["fickle"]) }).Scope
			}
			if got != tt.want {
				t.Errorf("answered %q with %q, want %q", a.location, got, tt.want)
			}
			if err := clients.Update(t.Context(), "fickle", good); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestConsent(t *testing.T) { // OAU-12, OAU-14
	t.Parallel()
	w := newWorld(t)
	w.register(t, "mini", oidc.Registration{Name: "Mini", RedirectURIs: []string{"https://mini.example/cb"}, Scopes: []string{"openid", "email"}})
	mini := []func(url.Values){set("redirect_uri", "https://mini.example/cb"), set("scope", "openid")}
	asks := func(t *testing.T, b *browser, v url.Values, want string) *answer {
		t.Helper()
		steps, a := b.walk(t, b.authorize(t, v))
		if got := strings.Join(steps, " "); got != want || a.param("code") == "" {
			t.Fatalf("%s with claims %s showed steps %q, want %q; answered %d %q", v.Get("client_id"), v.Get("claims"), got, want, a.status, a.location)
		}
		return a
	}
	password, factor, consent := fmt.Sprint(authn.StepPassword), fmt.Sprint(authn.StepFactor), fmt.Sprint(authn.StepConsent)
	b := w.browser()

	t.Run("OAU-12 a third party is asked for openid alone", func(t *testing.T) {
		asks(t, b, request("third", set("scope", "openid")), password+" "+factor+" "+consent)
		asks(t, b, request("third", set("scope", "openid")), "")
		asks(t, b, request("third", set("scope", "openid"), set("prompt", "consent")), consent)
	})

	t.Run("OAU-12 the operator's own is not", func(t *testing.T) {
		asks(t, b, request("web", set("scope", "openid")), "")
		asks(t, b, request("web", set("prompt", "consent"), set("scope", "openid email")), "")
	})

	tests := []struct {
		name   string
		claims string
		steps  string
		want   []string // in UserInfo, beside sub
		token  []string // in the ID Token
	}{
		{name: "OAU-12 nothing by name", claims: `{}`, steps: consent},
		{name: "OAU-14 a claim of a scope that is not registered", claims: `{"userinfo":{"phone_number":{"essential":true},"address":null,"name":null},"id_token":{"phone_number":null}}`},
		{name: "OAU-12 a claim of a registered scope", claims: `{"userinfo":{"email":null,"phone_number":null},"id_token":{"email":{"value":"x"}}}`, steps: consent,
			want: []string{"email"}, token: []string{"email"}},
		{name: "OAU-12 the same again", claims: `{"userinfo":{"email":null}}`, want: []string{"email"}},
		{name: "OAU-14 a name that is no claim", claims: `{"userinfo":{"openid":null,"password":null,"":null},"id_token":{"updated_at":null,"acr":null}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := request("mini", append(mini, set("claims", tt.claims))...)
			a := asks(t, b, v, tt.steps)
			got := w.token(t, "mini", redeem("mini", a.param("code"), set("redirect_uri", "https://mini.example/cb")), func(r *http.Request) { r.SetBasicAuth("mini", w.secrets["mini"]) })
			if got.Scope != "openid" {
				t.Errorf("claims widened the scope: %s", got.raw)
			}
			_, info, _ := w.userinfo(t, got.Access)
			said, _ := w.claims(t, got.ID)
			for where, pair := range map[string]struct {
				got  map[string]any
				want []string
			}{"UserInfo": {info, tt.want}, "ID Token": {said, tt.token}} {
				for _, name := range []string{"name", "email", "phone_number", "address", "updated_at", "preferred_username"} {
					if _, has := pair.got[name]; has != slices.Contains(pair.want, name) {
						t.Errorf("%s: %s is there: %v", where, name, has)
					}
				}
			}
		})
	}

	t.Run("OAU-14 a registration that became narrower", func(t *testing.T) {
		tokens := w.token(t, "mini", redeem("mini", asks(t, b, request("mini", append(mini, set("claims", `{"userinfo":{"email":null}}`), set("scope", "openid email"))...), "").param("code"),
			set("redirect_uri", "https://mini.example/cb")), func(r *http.Request) { r.SetBasicAuth("mini", w.secrets["mini"]) })
		if err := w.provider.Clients.Update(t.Context(), "mini", oidc.Registration{Name: "Mini", RedirectURIs: []string{"https://mini.example/cb"}, Scopes: []string{"openid"}}); err != nil {
			t.Fatal(err)
		}
		if _, info, _ := w.userinfo(t, tokens.Access); info["email"] != nil || info["sub"] == nil {
			t.Errorf("UserInfo says %v", info)
		}
	})

	t.Run("OAU-12 another client of the same id", func(t *testing.T) {
		asks(t, b, request("third"), consent)
		if err := w.provider.Clients.Delete(t.Context(), "third"); err != nil {
			t.Fatal(err)
		}
		// Somebody was at the consent page of the old one still.
		if _, err := w.DB.ExecContext(t.Context(), "INSERT INTO consents (subscriber_id, relying_party, scopes) SELECT id, 'third', '{openid}' FROM subscribers"); err != nil {
			t.Fatalf("the consent to the old one is still there, or: %v", err)
		}
		w.register(t, "third", oidc.Registration{Name: "Somebody else", RedirectURIs: []string{"https://third.example/cb"}})
		asks(t, b, request("third", set("scope", "openid")), consent)
	})

	t.Run("OAU-12 silently", func(t *testing.T) {
		a := b.authorize(t, request("third", set("scope", "openid"), set("prompt", "none"), set("claims", `{"userinfo":{"phone_number":null}}`)))
		if a.param("error") != "consent_required" {
			t.Errorf("answered %q", a.location)
		}
	})
}
