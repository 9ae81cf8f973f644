package web_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
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
