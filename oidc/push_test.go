package oidc_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/oidc"
)

// pushing is the answer of the pushed authorization request endpoint.
type pushing struct {
	status     int
	header     http.Header
	RequestURI string `json:"request_uri"`
	ExpiresIn  int    `json:"expires_in"`
	Error      string `json:"error"`
	raw        string
}

func (w *world) push(t testing.TB, client string, form url.Values, change ...func(*http.Request)) *pushing {
	t.Helper()
	got := &pushing{}
	got.status, got.header, got.raw = w.post(t, w.server.URL, "/par", client, form, change...)
	if err := json.Unmarshal([]byte(got.raw), got); err != nil {
		t.Fatalf("PAR answered %d %q", got.status, got.raw)
	}
	return got
}

// pushed gives what the browser is sent with.
func (w *world) pushed(t testing.TB, client string, change ...func(url.Values)) url.Values {
	t.Helper()
	got := w.push(t, client, request(client, change...))
	if got.status != http.StatusCreated {
		t.Fatalf("not pushed: %d %s", got.status, got.raw)
	}
	return url.Values{"client_id": {client}, "request_uri": {got.RequestURI}}
}

func notPushed(t *testing.T, what string, got *pushing, status int, code string) {
	t.Helper()
	if got.status != status || got.Error != code || got.RequestURI != "" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %s %v; want %d %s", what, got.status, got.raw, got.header, status, code)
	}
}

func TestPushedRequests(t *testing.T) { // PAR-1
	t.Parallel()
	w := newWorld(t)
	over := func(t *testing.T, what string, a *answer) {
		t.Helper()
		if a.status != http.StatusBadRequest || a.location != "" || a.body != "problem page_expired invalid_request_uri" {
			t.Errorf("%s: %d %q %q; want an error page", what, a.status, a.location, a.body)
		}
	}
	waiting := func(t *testing.T) (n int) {
		t.Helper()
		if err := w.DB.GetContext(t.Context(), &n, "SELECT count(*) FROM pushed_requests"); err != nil {
			t.Fatal(err)
		}
		return n
	}
	later := func(t *testing.T) { t.Helper(); w.DB.Advance(t, 25*time.Hour) } // a day has ten texts

	t.Run("C2-4", func(t *testing.T) {
		got := w.push(t, "web", request("web"))
		if got.status != http.StatusCreated || !strings.HasPrefix(got.RequestURI, "urn:ietf:params:oauth:request_uri:") || len(got.RequestURI) < 34+43 || got.ExpiresIn != 60 ||
			got.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(got.header.Get("Content-Type"), "application/json") {
			t.Fatalf("PAR answered %d %s %v", got.status, got.raw, got.header)
		}
		for _, client := range []string{"spa", "other", "third", "bank"} {
			if got := w.push(t, client, request(client)); got.status != http.StatusCreated {
				t.Errorf("%s: %d %s", client, got.status, got.raw)
			}
		}
	})

	t.Run("PA-1 C2-5", func(t *testing.T) {
		later(t)
		v := w.pushed(t, "web", set("scope", "openid email"))
		b := w.browser()
		first := b.authorize(t, v)
		b.do(t, http.MethodGet, first.location, nil)
		second := b.authorize(t, v) // the page is loaded again
		if !strings.HasPrefix(first.location, "/login") || !strings.HasPrefix(second.location, "/login") {
			t.Fatalf("opened to %q, again to %q", first.location, second.location)
		}
		done := b.signIn(t, second)
		if done.param("code") == "" || done.param("state") != "the state" || done.param("iss") != issuer {
			t.Fatalf("answered to %q", done.location)
		}
		over(t, "after it was answered", b.authorize(t, v))
		over(t, "by another browser", w.browser().authorize(t, v))
		if stale := b.signIn(t, first); stale.param("code") != "" { // the sign-in that the first load began
			t.Errorf("a second code: %q", stale.location)
		}
		if got := w.token(t, "web", redeem("web", done.param("code"))); got.status != http.StatusOK || got.Scope != "openid email" {
			t.Errorf("%d %s", got.status, got.raw)
		}
	})

	t.Run("PA-1 answered with an error", func(t *testing.T) {
		later(t)
		b := w.browser()
		silent := w.pushed(t, "web", set("prompt", "none"))
		if a := b.authorize(t, silent); a.param("error") != "login_required" || a.param("state") != "the state" || !strings.HasPrefix(a.location, "https://rp.example/cb?") {
			t.Errorf("silent, and nobody is signed in: %q", a.location)
		}
		over(t, "silent, a second time", b.authorize(t, silent))
		denied := w.pushed(t, "third")
		a := b.authorize(t, denied)
		for range 2 { // up to the consent page
			a = b.step(t, a)
		}
		if a = b.do(t, http.MethodPost, a.location, url.Values{"deny": {"1"}}); a.param("error") != "access_denied" {
			t.Fatalf("denied: %q %s", a.location, a.body)
		}
		over(t, "after it was denied", b.authorize(t, denied))
	})

	t.Run("PA-1 at once", func(t *testing.T) {
		later(t)
		b := w.browser()
		b.code(t, request("web"))
		v := w.pushed(t, "web", set("prompt", "none"))
		_, replica := w.replica(t, w.DB.Open(t))
		var wg sync.WaitGroup
		barrier, answers := make(chan struct{}), make(chan *answer, 200)
		for i := range 200 {
			one := &browser{w: w, base: b.base, cookie: b.cookie}
			if i%2 == 1 {
				one.base = replica.URL
			}
			wg.Go(func() {
				<-barrier
				answers <- one.authorize(t, v)
			})
		}
		close(barrier)
		wg.Wait()
		close(answers)
		codes := 0
		for a := range answers {
			switch {
			case a.param("code") != "":
				codes++
			case a.status != http.StatusBadRequest && a.status != http.StatusGone || a.location != "":
				t.Errorf("answered %d %q %q", a.status, a.location, a.body)
			}
		}
		if codes != 1 {
			t.Errorf("%d codes of 200 parallel uses of one request_uri, want 1", codes)
		}
	})

	t.Run("PA-2", func(t *testing.T) {
		v := w.pushed(t, "web")
		foreign := maps.Clone(v)
		foreign.Set("client_id", "other")
		over(t, "another client's", w.browser().authorize(t, foreign))
		foreign.Set("client_id", "gone")
		if a := w.browser().authorize(t, foreign); a.status != http.StatusBadRequest || a.location != "" {
			t.Errorf("a disabled client: %d %q", a.status, a.location)
		}
		foreign.Del("client_id")
		if a := w.browser().authorize(t, foreign); a.status != http.StatusBadRequest || a.location != "" {
			t.Errorf("without client_id: %d %q", a.status, a.location)
		}
		foreign["client_id"] = []string{"web", "web"}
		if a := w.browser().authorize(t, foreign); a.status != http.StatusBadRequest || a.location != "" {
			t.Errorf("client_id repeated: %d %q", a.status, a.location)
		}
		posted := w.browser().do(t, http.MethodPost, "/authorize", v) // without a cookie: as a GET, without anything else
		if posted.status != http.StatusSeeOther || posted.location != "/authorize?"+v.Encode() {
			t.Errorf("posted: %d %q", posted.status, posted.location)
		}
		endless := url.Values{"client_id": {"web"}, "request_uri": {v.Get("request_uri") + strings.Repeat("A", 10<<10)}}
		over(t, "posted, too long for an address", w.browser().do(t, http.MethodPost, "/authorize", endless))
		if a := w.browser().authorize(t, v); !strings.HasPrefix(a.location, "/login") {
			t.Errorf("its own client afterwards: %d %q", a.status, a.location)
		}
	})

	t.Run("PA-3", func(t *testing.T) {
		later(t)
		v, begun := w.pushed(t, "web"), w.pushed(t, "web")
		b := w.browser()
		a := b.authorize(t, begun)
		w.DB.Advance(t, 61*time.Second)
		over(t, "61 s old", w.browser().authorize(t, v))
		if done := b.signIn(t, a); done.param("code") == "" { // its life is how long it may be opened, not how long a person may take
			t.Errorf("begun in time: %d %q %s", done.status, done.location, done.body)
		}
	})

	t.Run("PA-4 C2-15", func(t *testing.T) {
		later(t)
		v := w.pushed(t, "web", set("scope", "openid"), set("dpop_jkt", thumbprint(t, newKey(t))))
		for name, value := range map[string]string{"scope": "openid phone offline_access", "redirect_uri": "https://evil.example/cb", "acr_values": "urn:watchword:acr:1", "state": "other",
			"nonce": "other", "response_mode": "form_post", "authorization_details": `[{"type":"account","account":"1"}]`, "dpop_jkt": "", "prompt": "none", "request": "a.b.c"} {
			v.Set(name, value)
		}
		b := w.browser()
		done := b.signIn(t, b.authorize(t, v))
		if done.param("state") != "the state" || !strings.HasPrefix(done.location, "https://rp.example/cb?") {
			t.Fatalf("%d %q", done.status, done.location)
		}
		var got struct{ Scopes, Details, Nonce string }
		if err := w.DB.GetContext(t.Context(), &got, `SELECT g.scopes::text AS scopes, coalesce(g.details::text, '') AS details, c.nonce FROM grants g JOIN authz_codes c ON c.grant_id = g.id ORDER BY g.created_at DESC LIMIT 1`); err != nil {
			t.Fatal(err)
		}
		if got.Scopes != "{openid}" || got.Details != "" || got.Nonce != "the nonce" {
			t.Errorf("the grant has %+v", got)
		}
		refused(t, "without the key that was pushed", w.token(t, "web", redeem("web", done.param("code"))), http.StatusBadRequest, "invalid_grant")
	})

	t.Run("PA-5", func(t *testing.T) {
		before := waiting(t)
		notPushed(t, "request_uri inside", w.push(t, "web", request("web", set("request_uri", w.pushed(t, "web").Get("request_uri")))), http.StatusBadRequest, "invalid_request")
		notPushed(t, "request object", w.push(t, "web", request("web", set("request", "a.b.c"))), http.StatusBadRequest, "request_not_supported")
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			notPushed(t, method, w.push(t, "web", request("web"), func(r *http.Request) { r.Method = method }), http.StatusMethodNotAllowed, "invalid_request")
		}
		notPushed(t, "1 MiB", w.push(t, "web", request("web", set("state", strings.Repeat("x", 1<<20)))), http.StatusRequestEntityTooLarge, "invalid_request")
		notPushed(t, "in the query", w.push(t, "web", nil, func(r *http.Request) { r.URL.RawQuery = request("web").Encode() }), http.StatusBadRequest, "invalid_request")
		repeated := request("web")
		repeated.Add("scope", "openid")
		notPushed(t, "repeated", w.push(t, "web", repeated), http.StatusBadRequest, "invalid_request")
		if n := waiting(t); n != before+1 { // the one whose reference was sent in
			t.Errorf("%d requests were stored", n-before)
		}
	})

	t.Run("PA-6", func(t *testing.T) {
		if a := w.browser().authorize(t, request("bank")); a.param("error") != "invalid_request" || a.param("state") != "the state" || a.param("code") != "" {
			t.Errorf("a client that has to push: %d %q", a.status, a.location)
		}
	})

	t.Run("PA-7", func(t *testing.T) {
		var all []string
		for range 20 {
			all = append(all, w.pushed(t, "web").Get("request_uri"))
		}
		if slices.IsSorted(all) {
			t.Error("values show an order")
		}
		for _, uri := range []string{all[0] + "A", all[0][:len(all[0])-1], strings.ToLower(all[0]), "urn:ietf:params:oauth:request_uri:", "urn:ietf:params:oauth:request_uri:1"} {
			over(t, uri, w.browser().authorize(t, url.Values{"client_id": {"web"}, "request_uri": {uri}}))
		}
	})

	t.Run("TK-12 TK-13", func(t *testing.T) {
		bare := func(r *http.Request) { r.Header.Del("Authorization") }
		notPushed(t, "client_id alone", w.push(t, "web", request("web"), bare), http.StatusUnauthorized, "invalid_client")
		notPushed(t, "wrong secret", w.push(t, "web", request("web"), func(r *http.Request) { r.SetBasicAuth("web", "wrong") }), http.StatusUnauthorized, "invalid_client")
		notPushed(t, "secret in the body", w.push(t, "web", request("web", set("client_secret", w.secrets["web"])), bare), http.StatusUnauthorized, "invalid_client")
		notPushed(t, "another client_id", w.push(t, "web", request("other")), http.StatusBadRequest, "invalid_request")
		notPushed(t, "a disabled client", w.push(t, "gone", request("gone")), http.StatusUnauthorized, "invalid_client")
	})

	t.Run("the checks of the authorization endpoint", func(t *testing.T) {
		before := waiting(t)
		for code, changes := range map[string][]func(url.Values){
			"invalid_request": {drop("redirect_uri"), set("redirect_uri", "https://rp.example/cb/"), drop("code_challenge"), set("code_challenge_method", "plain"), drop("response_type"),
				set("max_age", "-1"), set("prompt", "none login"), set("id_token_hint", "a.b.c"), set("claims", "x"), set("nonce", strings.Repeat("n", 5000)), set("dpop_jkt", "x")},
			"invalid_scope":             {set("scope", "nothing")},
			"unsupported_response_type": {set("response_type", "token")},
		} {
			for i, change := range changes {
				got := w.push(t, "web", request("web", change))
				if got.status != http.StatusBadRequest || got.Error != code {
					t.Errorf("%s %d: %d %s", code, i, got.status, got.raw)
				}
			}
		}
		if n := waiting(t); n != before {
			t.Errorf("%d requests were stored", n-before)
		}
	})

	t.Run("registration that changed meanwhile", func(t *testing.T) { // OAU-14
		later(t)
		v := w.pushed(t, "other")
		if err := w.provider.Clients.Update(t.Context(), "other", oidc.Registration{Name: "Other", RedirectURIs: []string{"https://other.example/new"}, FirstParty: true, AuthMethod: "client_secret_post"}); err != nil {
			t.Fatal(err)
		}
		b := w.browser()
		if done := b.signIn(t, b.authorize(t, v)); done.status != http.StatusBadRequest || done.location != "" {
			t.Errorf("an address that is not registered any more: %d %q", done.status, done.location)
		}
	})
}

// step takes one step of a sign-in.
func (b *browser) step(t testing.TB, a *answer) *answer {
	t.Helper()
	_, last := b.walkUpTo(t, a, 1)
	return last
}

func TestEveryRequestHasToBePushed(t *testing.T) { // PAR-1, RFC 9126 section 5
	t.Parallel()
	w := newWorld(t)
	w.change = func(cfg *oidc.Config) { cfg.RequirePush = true }
	w.provider, w.server = w.replica(t, w.DB.DB)
	if a := w.browser().authorize(t, request("web")); a.param("error") != "invalid_request" {
		t.Errorf("not pushed: %d %q", a.status, a.location)
	}
	b := w.browser()
	if a := b.signIn(t, b.authorize(t, w.pushed(t, "web"))); a.param("code") == "" {
		t.Errorf("pushed: %d %q", a.status, a.location)
	}
	if a := b.do(t, http.MethodGet, "/.well-known/openid-configuration", nil); !strings.Contains(a.body, `"require_pushed_authorization_requests":true`) ||
		!strings.Contains(a.body, `"pushed_authorization_request_endpoint":"https://login.example/par"`) {
		t.Errorf("discovery: %s", a.body)
	}
}

// A login hint that was pushed reaches the page, and the database does not hold it readable.
func TestPushedLoginHint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser()
	a := b.authorize(t, w.pushed(t, "web", set("login_hint", "alice@mail.example"), set("ui_locales", "de")))
	p, err := w.provider.SignIns.Load(t.Context(), authn.Cookie(b.cookie), flowOf(t, a))
	if err != nil || p.SignIn.LoginHint != "alice@mail.example" || p.SignIn.Locales != "de" {
		t.Errorf("%+v, %v", p, err)
	}
	var stored string
	if err := w.DB.GetContext(t.Context(), &stored, "SELECT string_agg(x::text, ' ') FROM pushed_requests x"); err != nil || strings.Contains(stored, "alice@") {
		t.Errorf("stored: %s, %v", stored, err)
	}
}

func TestPushWithoutDatabase(t *testing.T) { // F-25
	t.Parallel()
	w := newWorld(t)
	w.push(t, "web", request("web")) // the client is in memory
	v := w.pushed(t, "web")
	w.DB.Outage(t)
	got := w.push(t, "web", request("web"))
	if got.status != http.StatusServiceUnavailable || got.Error != "temporarily_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("PAR answered %d %s %v", got.status, got.raw, got.header)
	}
	if a := w.browser().authorize(t, v); a.status != http.StatusServiceUnavailable || a.location != "" {
		t.Errorf("the authorization endpoint answered %d %q", a.status, a.location)
	}
}
