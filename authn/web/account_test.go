package web_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors/totp"
)

// letRemember has policy let browsers be remembered.
func (w *world) letRemember(t *testing.T) {
	t.Helper()
	rule, err := authn.ParseRule("remember=on", authn.DefaultLevelNames(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Service.Config.Policy.Rules = []authn.Rule{rule}
}

// code gives the newest code on a page that asks for it.
func (b *browser) code(t *testing.T, p *page, fields url.Values) *page {
	t.Helper()
	typed := url.Values{"code": {b.w.Code(t, b.w.challenge(t))}}
	maps.Copy(typed, fields)
	return b.submit(t, p, "/login/code", typed)
}

// atAccount is a browser in which alice has signed in to her account.
func (w *world) atAccount(t *testing.T) (*browser, *page) {
	t.Helper()
	b := w.browser(t)
	p := b.do(t, http.MethodGet, "/account", nil)
	if !strings.Contains(p.url, "/login?flow=") {
		t.Fatalf("not led to a sign-in: %d %s", p.status, p.url)
	}
	p.want(t, "the sign-in", http.StatusOK, "Sign in to Watchword")
	p = b.code(t, b.password(t, p, authntest.Password), nil)
	if p.url != w.server.URL+"/account" {
		t.Fatalf("not at the account: %d %s\n%s", p.status, p.url, p.html)
	}
	return b, p
}

func TestAccountPage(t *testing.T) { // P21
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	b, p := w.atAccount(t)
	p.want(t, "the account", http.StatusOK, "You are signed in as alice.", "Mobile number ending 43", "this browser", "Password entered for Watchword", "Security code entered",
		`href="/enrol/phone"`, `href="/enrol/app"`, `href="/enrol/backup"`, "Way to sign in added: a mobile number (by the people who run Watchword)")
	if strings.Contains(p.html, "Confirm that it is you") {
		t.Error("asked to confirm what was just proved")
	}
	id := strings.SplitN(strings.SplitN(p.html, "/account/factor?id=", 2)[1], `"`, 2)[0]
	p = b.do(t, http.MethodGet, "/account/factor?id="+id, nil)
	p.want(t, "EN-9 the last one", http.StatusOK, "This one stays, because you need it to sign in", `href="/enrol/phone?replace=`+id)
	if strings.Contains(p.html, `action="/account/remove"`) {
		t.Error("EN-9 the last one can be removed")
	}
	// The form is not needed to try.
	proof := url.Values{"id": {id}}
	for _, input := range inputTag.FindAllStringSubmatch(p.html, -1) {
		if input[1] == "proof" {
			proof.Set("proof", input[2])
		}
	}
	b.do(t, http.MethodPost, "/account/remove", proof).want(t, "EN-9 removed all the same", http.StatusConflict, "There is a problem", "This one stays")
	b.submit(t, p, "/account/rename", url.Values{"name": {strings.Repeat("x", 41)}}).want(t, "a long name", http.StatusUnprocessableEntity, "Use up to 40 visible characters")
	p = b.submit(t, p, "/account/rename", url.Values{"name": {"<b>Work"}})
	p.want(t, "renamed", http.StatusOK, "The name was changed.", "&lt;b&gt;Work", "Way to sign in renamed: a mobile number")
	if again := b.do(t, http.MethodGet, "/account", nil); strings.Contains(again.html, "The name was changed.") {
		t.Error("said twice")
	}
	if lang := b.do(t, http.MethodGet, "/account/factor?lang=de&id="+id, nil); !strings.HasSuffix(lang.url, "/account/factor?id="+id) {
		t.Errorf("another language leads to %s", lang.url)
	} else {
		lang.want(t, "in German", http.StatusOK, "Dieser Weg bleibt")
	}
	b.do(t, http.MethodGet, "/account/factor?id=nothing", nil).want(t, "EN-5 another's", http.StatusOK, "Das gab es nicht mehr.")
}

func TestAccountStepUp(t *testing.T) { // EN-1, TP-10, LIM-9, BND-1: every change wants the strongest proofs, now
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	app := w.App(t, w.find(t, "alice"))
	b := w.browser(t)
	b.password(t, b.do(t, http.MethodGet, "/account", nil), authntest.Password)
	b.do(t, http.MethodGet, "/account", nil).want(t, "OT-19 after the password alone", http.StatusOK, "Check your")
	p := b.do(t, http.MethodGet, "/account", nil)
	if strings.Contains(p.url, "/login/app") { // she takes the text
		p = b.submit(t, b.do(t, http.MethodGet, strings.Replace(p.url, "/login/app", "/login/methods", 1), nil), "/login/methods", url.Values{"method": {w.phone(t)}})
	} else if !strings.Contains(p.html, "We sent") {
		p = b.submit(t, p, "/login/code/resend", nil)
	}
	p = b.code(t, p, nil)
	p.want(t, "by text", http.StatusOK, "To change something here, confirm first that it is you.", "Authenticator app")
	id := app.Authenticator.ID.String()
	texts := w.Texts(t)
	for path, fields := range map[string]url.Values{"/account/rename": {"id": {id}, "name": {"x"}}, "/account/remove": {"id": {id}}, "/account/prefer": {"id": {id}}, "/account/sessions": {"id": {"others"}},
		"/account/browsers": {"id": {"all"}}, "/account/applications": {"id": {"demo"}}, "/account/password": {"password": {"seven brown horses in a boat"}}, "/account/export": {}} {
		fields.Set("proof", hidden(t, p, "proof"))
		led := b.do(t, http.MethodPost, path, fields)
		if !strings.Contains(led.url, "/login/app?flow=") {
			t.Errorf("EN-1 TP-10 %s led to %d %s", path, led.status, led.url)
		}
	}
	b.do(t, http.MethodGet, "/account/factor?id="+id, nil).want(t, "what is changed there", http.StatusOK, "To change something here, confirm first that it is you.")
	if n := w.Texts(t); n != texts {
		t.Errorf("EN-1 %d texts were sent", n-texts)
	}
	var changed int
	if err := w.DB.GetContext(t.Context(), &changed, `SELECT count(*) FROM audit_events WHERE outcome = 'success' AND event IN
		('authenticator.rename', 'authenticator.unbind', 'authenticator.prefer', 'session.end', 'password.set', 'account.export')`); err != nil || changed != 0 {
		t.Errorf("EN-1 %d changes were made, %v", changed, err)
	}
	led := b.submit(t, p, "/account/confirm", nil)
	p = b.submit(t, led, "/login/app", url.Values{"code": {app.Code(t, 0)}})
	p.want(t, "confirmed", http.StatusOK, "You have confirmed that it is you.")
	p = b.submit(t, b.do(t, http.MethodGet, "/account/factor?id="+id, nil), "/account/remove", nil)
	p.want(t, "removed", http.StatusOK, "It was removed.", "Way to sign in removed: an authenticator app")
	if n := strings.Count(p.html, "/account/factor?id="); n != 1 {
		t.Errorf("%d ways are left, want 1", n)
	}
	w.DB.Advance(t, 10*time.Minute+time.Second)
	p = b.do(t, http.MethodGet, "/account", nil)
	p.want(t, "LIM-9 later", http.StatusOK, "To change something here, confirm first that it is you.")
	p = b.submit(t, p, "/account/confirm", nil)
	p.want(t, "LIM-9 later", http.StatusOK, "Confirm that it is you", "readonly")
	p = b.submit(t, p, "/login/cancel", nil)
	if p.url != w.server.URL+"/account" {
		t.Errorf("going back led to %d %s", p.status, p.url)
	}
	nobody := w.browser(t)
	nobody.submit(t, nobody.do(t, http.MethodGet, "/account", nil), "/login/cancel", nil).want(t, "going back, signed in nowhere", http.StatusOK, "You are not signed in")
}

func TestBackToTheAction(t *testing.T) { // whoever has to give proofs first comes back to what they wanted to do
	t.Parallel()
	w := newWorld(t)
	b, app := w.changing(t)
	id := w.phone(t)
	about := "/account/factor?id=" + id
	for path, c := range map[string]struct {
		fields url.Values
		want   string
	}{
		"/account/rename":       {url.Values{"id": {id}, "name": {"x"}}, about},
		"/account/remove":       {url.Values{"id": {id}}, about},
		"/account/prefer":       {url.Values{"id": {id}}, about},
		"/account/confirm":      {url.Values{"id": {id}}, about},
		"/account/sessions":     {url.Values{"id": {"others"}}, "/account#sessions"},
		"/account/browsers":     {url.Values{"id": {uuid.NewString()}}, "/account#browsers"},
		"/account/applications": {url.Values{"id": {"demo"}}, "/account#applications"},
		"/account/export":       {nil, "/account#data"},
		"/account/password":     {url.Values{"password": {"seven brown horses in a boat"}}, "/account/password"},
		"GET /account/password": {nil, "/account/password"},
	} {
		fields := url.Values{"proof": {hidden(t, b.do(t, http.MethodGet, "/account", nil), "proof")}}
		maps.Copy(fields, c.fields)
		w.DB.Advance(t, 10*time.Minute+time.Second)
		method, target := http.MethodPost, path
		if get, ok := strings.CutPrefix(path, "GET "); ok {
			method, target, fields = http.MethodGet, get, nil
		}
		p := b.submit(t, b.do(t, method, target, fields), "/login", url.Values{"password": {authntest.Password}})
		b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		if got := b.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}}); got.location != c.want {
			t.Errorf("%s leads back to %d %q, want %q", path, got.status, got.location, c.want)
		}
		b.client.CheckRedirect = nil
	}
	b.do(t, http.MethodGet, about, nil).want(t, "and says so", http.StatusOK, "You have confirmed that it is you.", "Mobile number ending 43")
	// Who is signed in nowhere comes to the page that they opened, once they are.
	nobody := w.browser(t)
	p := nobody.password(t, nobody.do(t, http.MethodGet, about, nil), authntest.Password)
	w.DB.Advance(t, totp.Period)
	if p = nobody.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}}); p.url != w.server.URL+about {
		t.Errorf("signed in, at %s", p.url)
	}
}

func TestAddedCounts(t *testing.T) { // what was just proved is not asked for again: the next change needs no code, and the application none of another time step
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	b, _ := w.atAccount(t)
	p := b.submit(t, b.do(t, http.MethodGet, "/enrol/app", nil), "/enrol/app", nil)
	secret := regexp.MustCompile(`secret=([A-Z2-7]+)`).FindStringSubmatch(p.html)[1]
	p = b.submit(t, p, "/enrol/app/confirm", url.Values{"code": {w.codeOf(t, secret)}})
	p.want(t, "added", http.StatusOK, "It was added. You can use it from now on.", "Authenticator app")
	p.wantNot(t, "added", "confirm first that it is you")
	p = b.submit(t, b.do(t, http.MethodGet, "/enrol/backup", nil), "/enrol/backup", nil)
	wantAt(t, "codes, next", p, "/enrol/backup/codes")
	b.submit(t, p, "/enrol/backup/codes/saved", nil).want(t, "codes", http.StatusOK, "Your backup codes work from now on.", "10 codes are left.")
	finished(t, "the level that was proved", b.do(t, http.MethodGet, "/begin?strong", nil), authn.UnrestrictedLevel)
	// It is a proof of possession, and no password.
	w.DB.Advance(t, 10*time.Minute+time.Second)
	wantAt(t, "EN-1 later", b.do(t, http.MethodGet, "/enrol/phone", nil), "/login")
}

// json asks as a program does, and reads the answer into into.
func (b *browser) json(t *testing.T, method, target string, fields map[string]string, status int, into any) {
	t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.w.server.URL + target
	}
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %d, %v: %+v", method, target, resp.StatusCode, err, into)
	}
	if kind := resp.Header.Get("Content-Type"); (status >= 400) != (kind == "application/problem+json") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %s: %d as %s, %s", method, target, status, kind, resp.Header.Get("Cache-Control"))
	}
}

func TestAccountInJSON(t *testing.T) { // BND-8, SS-10, EN-1, EN-9: a user interface of one's own lists and ends what the page does
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	w.letRemember(t)
	// A browser that is remembered, and another one that is signed in.
	other, p := w.atCode(t, "")
	other.code(t, p, url.Values{"remember": {"yes"}})
	w.Service.Config.Policy.Rules = nil
	w.DB.Advance(t, time.Minute)
	type answer struct {
		Page, Proof, Notice, Next, Code, Title string
		Errors                                 []struct{ Pointer, Message string }
		Data                                   struct {
			Username string
			Fresh    bool
			Factors  []struct {
				ID, Kind, Hint, Name, Replace string
				Stays                         bool
			}
			Add      []struct{ Kind, Next string }
			Sessions []struct {
				ID   string
				This bool
			}
			Browsers []struct {
				ID        string
				ExpiresAt time.Time `json:"expires_at"`
			}
			Activity []struct{ Event, Actor, Source string }
		}
	}
	var none answer
	w.browser(t).json(t, http.MethodGet, "/account", nil, http.StatusForbidden, &none)
	if none.Code != "confirmation_required" || none.Next != "/account" {
		t.Errorf("nobody: %+v", none)
	}
	b, _ := w.atAccount(t)
	look := func() (a answer) {
		t.Helper()
		b.json(t, http.MethodGet, "/account", nil, http.StatusOK, &a)
		return a
	}
	change := func(path string, status int, fields map[string]string) (a answer) {
		t.Helper()
		fields["proof"] = look().Proof
		b.json(t, http.MethodPost, "/account/"+path, fields, status, &a)
		return a
	}
	a := look()
	if a.Page != "account" || a.Data.Username != "alice" || !a.Data.Fresh || len(a.Data.Factors) != 1 || len(a.Data.Add) != 3 || len(a.Data.Sessions) != 2 || len(a.Data.Browsers) != 1 || len(a.Data.Activity) < 4 {
		t.Fatalf("the account: %+v", a)
	}
	phone := a.Data.Factors[0]
	if phone.Kind != "sms" || phone.Hint != "43" || !phone.Stays || phone.Replace != "/enrol/phone?replace="+phone.ID || a.Data.Add[0].Next != "/enrol/app" || a.Data.Browsers[0].ExpiresAt.IsZero() {
		t.Errorf("what can be done: %+v %+v %+v", phone, a.Data.Add, a.Data.Browsers)
	}
	for _, e := range a.Data.Activity {
		if e.Source != "" || strings.Contains(e.Actor, " ") {
			t.Errorf("the activity names a place or an operator: %+v", e)
		}
	}
	if last := change("remove", http.StatusConflict, map[string]string{"id": phone.ID}); last.Code != "last_factor" || len(last.Errors) != 1 {
		t.Errorf("EN-9: %+v", last)
	}
	if long := change("rename", http.StatusUnprocessableEntity, map[string]string{"id": phone.ID, "name": strings.Repeat("x", 41)}); long.Code != "name" || long.Errors[0].Pointer != "/name" || long.Title != "Change a way to sign in" {
		t.Errorf("a long name: %+v", long)
	}
	if weak := change("password", http.StatusUnprocessableEntity, map[string]string{"password": "short"}); weak.Code != "password.short" {
		t.Errorf("PW-14: %+v", weak)
	}
	change("rename", http.StatusOK, map[string]string{"id": phone.ID, "name": "Work"})
	if a = look(); a.Data.Factors[0].Name != "Work" {
		t.Errorf("renamed: %+v", a)
	}
	for _, s := range a.Data.Sessions {
		if !s.This {
			if led := change("sessions", http.StatusOK, map[string]string{"id": s.ID}); led.Next != "/account" {
				t.Errorf("ended: %+v", led)
			}
		}
	}
	change("browsers", http.StatusOK, map[string]string{"id": a.Data.Browsers[0].ID})
	if a = look(); len(a.Data.Sessions) != 1 || !a.Data.Sessions[0].This || len(a.Data.Browsers) != 0 {
		t.Errorf("SS-10 after all that: %+v", a)
	}
	if p := other.do(t, http.MethodGet, "/account", nil); !strings.Contains(p.url, "/login?flow=") {
		t.Errorf("SS-10 the other one is at %s", p.url)
	}
	b.json(t, http.MethodPost, "/account/sessions", map[string]string{"id": "others"}, http.StatusForbidden, &none) // SS-11 without a proof
	w.DB.Advance(t, 10*time.Minute+time.Second)
	if late := change("sessions", http.StatusForbidden, map[string]string{"id": "others"}); late.Code != "confirmation_required" || late.Next != "/account#sessions" {
		t.Errorf("EN-1: %+v", late)
	}
}

// hidden is the value of a hidden field.
func hidden(t *testing.T, p *page, name string) string {
	t.Helper()
	for _, input := range inputTag.FindAllStringSubmatch(p.html, -1) {
		if input[1] == name {
			return input[2]
		}
	}
	t.Fatalf("no field %s on the page:\n%s", name, p.html)
	return ""
}

func (w *world) phone(t *testing.T) (id string) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &id, "SELECT id FROM authenticators WHERE kind = 'sms' AND hint = '43'"); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestForeignAccountForms(t *testing.T) { // EN-10, SS-11, SS-9
	t.Parallel()
	w := newWorld(t)
	b, p := w.atAccount(t)
	proof := hidden(t, p, "proof")
	paths := []string{"rename", "remove", "prefer", "sessions", "browsers", "applications", "password", "export", "confirm"}
	for name, header := range map[string]http.Header{"cross-site": {"Sec-Fetch-Site": {"cross-site"}}, "same-site": {"Sec-Fetch-Site": {"same-site"}}, "evil": {"Origin": {"https://evil.example"}},
		"null": {"Origin": {"null"}}, "sibling": {"Origin": {"http://sub.localhost"}}} {
		for _, path := range paths {
			b.header = header
			if p := b.do(t, http.MethodPost, "/account/"+path, url.Values{"proof": {proof}, "id": {w.phone(t)}, "name": {"x"}}); p.status != http.StatusForbidden {
				t.Errorf("EN-10 %s %s: %d", name, path, p.status)
			}
		}
	}
	b.header = http.Header{}
	other, page := w.atAccount(t)
	for _, path := range paths {
		for what, sent := range map[string]string{"none": "", "another session's": hidden(t, page, "proof"), "altered": proof[:len(proof)-2] + "AA"} {
			if p := b.do(t, http.MethodPost, "/account/"+path, url.Values{"proof": {sent}, "id": {w.phone(t)}, "name": {"x"}}); p.status != http.StatusForbidden {
				t.Errorf("SS-11 %s with a proof that is %s: %d", path, what, p.status)
			}
		}
	}
	b.header = http.Header{"Content-Type": {"text/plain"}}
	if p := b.do(t, http.MethodPost, "/account/remove", url.Values{"proof": {proof}}); p.status != http.StatusUnsupportedMediaType && p.status != http.StatusForbidden {
		t.Errorf("SS-11 text/plain: %d", p.status)
	}
	var changed int
	if err := w.DB.GetContext(t.Context(), &changed, `SELECT count(*) FROM authenticators WHERE name <> '' OR unbound_at IS NOT NULL`); err != nil || changed != 0 {
		t.Errorf("%d changes, %v", changed, err)
	}
	other.do(t, http.MethodGet, "/account", nil).want(t, "the other one", http.StatusOK, "You are signed in as alice.")
}

func TestAccountPassword(t *testing.T) { // PW-15, SS-10
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	other, _ := w.atAccount(t)
	w.DB.Advance(t, time.Minute)
	b, p := w.atAccount(t)
	if n := strings.Count(p.html, `action="/account/sessions"`); n != 2 {
		t.Errorf("%d forms to end sessions, want one and one for all others", n)
	}
	p = b.submit(t, p, "/account/sessions", url.Values{"id": {"others"}})
	p.want(t, "ended", http.StatusOK, "The session was ended.")
	if p := other.do(t, http.MethodGet, "/account", nil); !strings.Contains(p.url, "/login?flow=") {
		t.Errorf("SS-10 the other one is at %s", p.url)
	}
	p = b.do(t, http.MethodGet, "/account/password", nil)
	p.want(t, "the page", http.StatusOK, "At least 8 characters", `autocomplete="new-password"`)
	for typed, want := range map[string]string{"": "Enter a new password", "short": "too short", "password1234": "easy to guess", authntest.Password: "your password already", "watchword1": "easy to guess"} {
		wrong := b.submit(t, p, "/account/password", url.Values{"password": {typed}})
		wrong.want(t, "PW-14 "+typed, http.StatusUnprocessableEntity, want)
		if typed != "" && strings.Contains(wrong.html, `value="`+typed) {
			t.Error("a password came back")
		}
	}
	p = b.submit(t, p, "/account/password", url.Values{"password": {"seven brown horses in a boat"}})
	p.want(t, "changed", http.StatusOK, "Your password was changed. You are signed out everywhere else.", "Password changed", "You are signed in as alice.")
}

func TestRememberOnPages(t *testing.T) { // SES-7, SS-6 to SS-8, SS-1
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	b, p := w.atCode(t, "")
	if strings.Contains(p.html, `name="remember"`) {
		t.Error("offered where policy does not say so")
	}
	w.letRemember(t)
	p = b.do(t, http.MethodGet, p.url, nil)
	p.want(t, "the choice", http.StatusOK, "Remember this browser for 30 days", "Only on a device that nobody else uses")
	wrong := b.submit(t, p, "/login/code", url.Values{"code": {"000000"}, "remember": {"yes"}})
	wrong.want(t, "a wrong code", http.StatusUnprocessableEntity, `value="yes" checked`)
	done := b.code(t, p, url.Values{"remember": {"yes"}})
	var set *http.Cookie
	for _, c := range (&http.Response{Header: done.header}).Cookies() {
		if strings.HasSuffix(c.Name, "watchword-browser") {
			set = c
		}
	}
	if set == nil || !set.HttpOnly || set.SameSite != http.SameSiteStrictMode || set.Path != "/" || set.Domain != "" || set.MaxAge != 30*24*3600 {
		t.Fatalf("SS-1 the cookie is %v", set)
	}
	// The next sign-in, in a session of its own, wants the password alone.
	u, _ := url.Parse(w.server.URL)
	forget := func(b *browser) {
		b.client.Jar.SetCookies(u, []*http.Cookie{{Name: "watchword", Path: "/", MaxAge: -1}})
	}
	forget(b)
	texts := w.Texts(t)
	if p := b.password(t, b.do(t, http.MethodGet, "/begin", nil), authntest.Password); p.location != "https://rp.example/cb?code=x&acr="+levelOf(authn.PasswordLevel) {
		t.Errorf("in the remembered browser: %d %s %s", p.status, p.url, p.location)
	}
	if n := w.Texts(t); n != texts {
		t.Errorf("%d texts", n-texts)
	}
	// SS-7: the account wants the factor, and lists the browser.
	p = b.do(t, http.MethodGet, "/account", nil)
	if !strings.Contains(p.url, "/login/code") || strings.Contains(p.html, `name="remember"`) {
		t.Fatalf("SS-7 the account: %d %s", p.status, p.url)
	}
	w.DB.Advance(t, 31*time.Second)
	p = b.code(t, b.submit(t, p, "/login/code/resend", nil), nil)
	p.want(t, "the account", http.StatusOK, "Remembered browsers", "remembered until", "Browser remembered")
	p = b.submit(t, p, "/account/browsers", url.Values{"id": {"all"}})
	p.want(t, "SS-8 forgotten", http.StatusOK, "The browser is not remembered any more.")
	if strings.Contains(p.html, "Remembered browsers") {
		t.Error("SS-8 it is listed still")
	}
	forget(b)
	if p := b.password(t, b.do(t, http.MethodGet, "/begin", nil), authntest.Password); !strings.Contains(p.url, "/login/code") {
		t.Errorf("SS-8 forgotten: %s", p.url)
	}
}

func levelOf(l authn.Level) string { return string('0' + rune(l)) }

func TestExportPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, p := w.atAccount(t)
	p = b.submit(t, p, "/account/export", nil)
	if p.status != http.StatusOK || p.header.Get("Content-Disposition") != `attachment; filename="your-data.json"` || p.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v", p.status, p.header)
	}
	var e authn.Export
	if err := json.Unmarshal([]byte(p.html), &e); err != nil || e.Username != "alice" || e.Profile["email"] != "alice@mail.example" || len(e.Factors) != 1 || e.Factors[0].Hint != "43" || len(e.Sessions) != 1 || len(e.Activity) < 3 {
		t.Errorf("%+v, %v", e, err)
	}
	for _, secret := range []string{"argon2", "hash", "data\":"} {
		if strings.Contains(p.html, secret) {
			t.Errorf("it has %q", secret)
		}
	}
}

// TestAccountStatements holds the page against its budget: one statement, and one more for what applications have.
func TestAccountStatements(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.DB.SetMaxOpenConns(1)
	b, _ := w.atAccount(t)
	b.do(t, http.MethodGet, "/account", nil)
	before := w.DB.RoundTrips.Load()
	b.do(t, http.MethodGet, "/account", nil)
	if n := w.DB.RoundTrips.Load() - before; n != 1 {
		t.Errorf("%d statements, want 1", n)
	}
}

func TestVerifiedIsNoField(t *testing.T) { // EN-3: nobody says of themselves what was verified, or what they are
	t.Parallel()
	w := newWorld(t)
	b, p := w.atAccount(t)
	state := func() (rows string) {
		t.Helper()
		if err := w.DB.GetContext(t.Context(), &rows, `SELECT (SELECT jsonb_agg(to_jsonb(u) ORDER BY u.id) FROM subscribers u)::text || (SELECT jsonb_agg(to_jsonb(a) - 'name' ORDER BY a.id) FROM authenticators a)::text`); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	before := state()
	claims := url.Values{"phone_verified": {"true"}, "phone_number": {"+12025550199"}, "email_verified": {"true"}, "verified_at": {"2020-01-01"}, "bound_at": {"2020-01-01"}, "role": {"admin"},
		"groups": {"staff"}, "factors[]": {"totp"}, "subject": {"somebody"}, "unique": {"+12025550199"}, "data": {"+12025550199"}, "hint": {"99"}, "pending_until": {""}}
	fields := maps.Clone(claims)
	fields.Set("proof", hidden(t, p, "proof"))
	fields.Set("id", w.phone(t))
	fields.Set("name", "Work")
	b.do(t, http.MethodPost, "/account/rename", fields).want(t, "EN-3 renaming", http.StatusOK, "The name was changed.")
	for _, method := range []string{http.MethodPatch, http.MethodPut, http.MethodDelete, http.MethodPost} {
		for _, path := range []string{"/account", "/account/profile", "/account/factor", "/userinfo"} {
			if got := b.do(t, method, path, fields); got.status != http.StatusMethodNotAllowed && got.status != http.StatusNotFound {
				t.Errorf("EN-3 %s %s: %d", method, path, got.status)
			}
		}
	}
	b.submit(t, b.do(t, http.MethodGet, "/enrol/phone", nil), "/enrol/phone", claims).want(t, "EN-3 a phone", http.StatusUnprocessableEntity)
	if after := state(); after != before {
		t.Errorf("EN-3 changed:\n%s\n%s", before, after)
	}
}
