package web_test

import (
	"encoding/base32"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/web"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/sms"
)

// as is a browser in which somebody's password was right, on the page that follows.
func (w *world) as(t *testing.T, name, query string) (*browser, *page) {
	t.Helper()
	b := w.browser(t)
	return b, b.submit(t, b.do(t, http.MethodGet, "/begin"+query, nil), "/login", url.Values{"username": {name}, "password": {authntest.Password}})
}

// newcomer is somebody without a factor.
func (w *world) newcomer(t *testing.T, query string) (*browser, *page) {
	t.Helper()
	w.Subscriber(t, "bob", "")
	return w.as(t, "bob", query)
}

// changing is alice, who has a phone and an app, and has just signed in with the app.
func (w *world) changing(t *testing.T) (*browser, *authntest.App) {
	t.Helper()
	w.DB.Freeze(t)
	app := w.App(t, w.find(t, "alice"))
	b, p := w.at(t, "", "authenticator app")
	if done := b.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}}); !strings.HasPrefix(done.location, "https://rp.example/cb?code=") {
		t.Fatalf("signing in with the app: %d %s\n%s", done.status, done.location, done.html)
	}
	return b, app
}

// kinds are what somebody has bound.
func (w *world) kinds(t *testing.T, name string) (kinds []string) {
	t.Helper()
	u, err := w.Service.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range u.Bound {
		kinds = append(kinds, a.Kind+a.Hint)
	}
	slices.Sort(kinds)
	return kinds
}

func (w *world) wantKinds(t *testing.T, what, name string, want ...string) {
	t.Helper()
	if got := w.kinds(t, name); !slices.Equal(got, want) {
		t.Errorf("%s: bound are %v, want %v", what, got, want)
	}
}

// told counts the notices of a kind.
func (w *world) told(t *testing.T, kind string) (n int) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &n, "SELECT count(*) FROM notices WHERE kind = $1 AND NOT operator", kind); err != nil {
		t.Fatal(err)
	}
	return n
}

var key = regexp.MustCompile(`id="secret"[^>]*>([A-Z2-7 ]+)<`)

// shows is what an app shows that has the key of page p.
func (w *world) shows(t *testing.T, p *page) string {
	t.Helper()
	found := key.FindStringSubmatch(p.html)
	if found == nil {
		t.Fatalf("no key on the page:\n%s", p.html)
	}
	return w.codeOf(t, found[1])
}

func atPath(p *page, path string) bool {
	u, err := url.Parse(p.url)
	return err == nil && u.Path == path
}

func wantAt(t *testing.T, what string, p *page, path string) {
	t.Helper()
	if !atPath(p, path) {
		t.Fatalf("%s: %d %s, want %s\n%s", what, p.status, p.url, path, p.html)
	}
}

func finished(t *testing.T, what string, p *page, level authn.Level) {
	t.Helper()
	if want := "https://rp.example/cb?code=x&acr=" + fmt.Sprint(level); p.status != http.StatusSeeOther || p.location != want {
		t.Fatalf("%s: %d %s, want %s\n%s", what, p.status, p.location, want, p.html)
	}
}

var linkTag = regexp.MustCompile(`<a href="(/enrol[^"]*)"`)

// follow opens the page's link to a path.
func (b *browser) follow(t *testing.T, p *page, path string) *page {
	t.Helper()
	for _, link := range linkTag.FindAllStringSubmatch(p.html, -1) {
		if target := strings.ReplaceAll(link[1], "&amp;", "&"); target == path || strings.HasPrefix(target, path+"?") {
			return b.do(t, http.MethodGet, target, nil)
		}
	}
	t.Fatalf("no link to %s:\n%s", path, p.html)
	return nil
}

func TestFirstSignIn(t *testing.T) { // P6 to P8 on the way to the application
	t.Parallel()

	t.Run("phone", func(t *testing.T) { // EN-14
		t.Parallel()
		w := newWorld(t)
		b, p := w.newcomer(t, "")
		wantAt(t, "after the password", p, "/enrol")
		p.want(t, "choice", http.StatusOK, "Choose a second way to sign in", "Demo asks for more than a password", "Authenticator app", "Text message to your phone", "Back to Demo")
		p.wantNot(t, "choice", "ackup codes") // what signs in where nothing else is at hand is no beginning
		p = b.follow(t, p, "/enrol/phone")
		p.want(t, "P6", http.StatusOK, "Add your mobile number", "Text messages can be read by others", "Authenticator app", `type="tel"`, `autocomplete="tel"`, "Germany (+49)", "Back to Demo")
		b.header.Set("Accept-Language", "de-AT")
		b.do(t, http.MethodGet, p.url, nil).want(t, "in German", http.StatusOK, "Mobilnummer hinzufügen", "Deutschland (+49)", `<option value="AT" selected>Österreich (+43)`)
		b.header.Del("Accept-Language")
		texts := w.Texts(t)
		p = b.submit(t, p, "/enrol/phone", url.Values{"country": {"DE"}, "number": {"001 202 555 0177"}})
		wantAt(t, "P7", p, "/enrol/phone/code")
		p.want(t, "P7", http.StatusOK, "Confirm your phone", "number ending <strong><bdi>77</bdi></strong>", "Change number", `autocomplete="one-time-code"`)
		if n := w.Texts(t) - texts; n != 1 {
			t.Errorf("%d texts", n)
		}
		again := b.follow(t, p, "/enrol/phone")
		again.want(t, "Change number", http.StatusOK, `value="001 202 555 0177"`, `<option value="DE" selected>`)
		b.submit(t, p, "/enrol/phone/code", url.Values{"code": {"000000"}}).want(t, "wrong", http.StatusUnprocessableEntity, "The code is not right")
		done := b.submit(t, p, "/enrol/phone/code", url.Values{"code": {w.sent(t, p)}})
		finished(t, "the proof", done, authn.RestrictedLevel)
		w.wantKinds(t, "after it", "bob", "sms77")
		back := b.do(t, http.MethodGet, p.url, nil)
		back.want(t, "Back after success", http.StatusGone)
		if silent := b.do(t, http.MethodGet, "/begin", nil); !strings.HasPrefix(silent.location, "https://rp.example/cb?code=") {
			t.Errorf("the session afterwards: %d %s", silent.status, silent.location)
		}
		var risk int
		if err := w.DB.GetContext(t.Context(), &risk, "SELECT count(*) FROM audit_events WHERE event = 'authenticator.risk_told'"); err != nil || risk != 1 {
			t.Errorf("EN-14: the risk was recorded %d times, %v", risk, err)
		}
	})

	t.Run("app", func(t *testing.T) { // TP-6, TP-8, TP-11
		t.Parallel()
		w := newWorld(t)
		w.DB.Freeze(t)
		b, p := w.newcomer(t, "?strong")
		wantAt(t, "level 3 takes the app alone, so that there is no choice", p, "/enrol/app")
		p.want(t, "start", http.StatusOK, "Set up an authenticator app", "Name of the device")
		p.wantNot(t, "start", "Text message")
		b.submit(t, p, "/enrol/app", url.Values{"name": {strings.Repeat("x", 41)}}).want(t, "a long name", http.StatusUnprocessableEntity, "Enter a name of 40 characters at most", `aria-invalid="true"`)
		p = b.submit(t, p, "/enrol/app", url.Values{"name": {"Red phone"}, "secret": {"AAAAAAAAAAAAAAAA"}, "digits": {"1"}, "period": {"86400"}, "algorithm": {"MD5"}, "now": {"0"}})
		wantAt(t, "P8", p, "/enrol/app")
		p.want(t, "P8", http.StatusOK, `src="data:image/png;base64,`, `alt="QR code that sets up Watchword`, `href="otpauth://totp/Watchword:bob?`, "digits=6", "period=30", "algorithm=SHA1", "Red phone")
		p.wantNot(t, "TP-8", "AAAAAAAAAAAAAAAA", "AAAA AAAA", "86400")
		code := w.shows(t, p)
		if again := b.do(t, http.MethodGet, p.url, nil); w.shows(t, again) != code {
			t.Error("a reload made another secret")
		}
		b.submit(t, p, "/enrol/app/confirm", url.Values{"code": {"12345"}}).want(t, "short", http.StatusUnprocessableEntity, "Enter all 6 digits of the code", `src="data:image/png`)
		b.submit(t, p, "/enrol/app/confirm", url.Values{"code": {"000000"}}).want(t, "wrong", http.StatusUnprocessableEntity, "Enter the one that your app shows now")
		b.submit(t, p, "/enrol/app/confirm", url.Values{"code": {"000000"}}).want(t, "clock", http.StatusUnprocessableEntity, "sets its time automatically")
		unproved, q := w.as(t, "bob", "?strong")
		wantAt(t, "TP-11 unproved, it is asked for nowhere", q, "/enrol/app")
		unproved.do(t, http.MethodGet, p.url, nil).want(t, "TP-11 in another browser", http.StatusGone)
		finished(t, "the proof", b.submit(t, p, "/enrol/app/confirm", url.Values{"code": {code[:3] + " " + code[3:]}, "secret": {"x"}}), authn.UnrestrictedLevel)
		after := b.do(t, http.MethodGet, regexp.MustCompile(`flow=[^&]*&?`).ReplaceAllString(p.url, ""), nil)
		after.want(t, "TP-6 the secret once bound", http.StatusGone, "Start again")
		after.wantNot(t, "TP-6", "otpauth", "image/png")
	})

	t.Run("policy says no", func(t *testing.T) { // EN-8
		t.Parallel()
		w := newWorld(t)
		w.Service.Config.Policy.Enrol = false
		b, p := w.newcomer(t, "")
		wantAt(t, "told what is lacking", p, "/login/unmet")
		for _, path := range []string{"/enrol", "/enrol/phone", "/enrol/app", "/enrol/backup"} {
			got := b.do(t, http.MethodGet, strings.Replace(p.url, "/login/unmet", path, 1), nil)
			wantAt(t, "EN-8 by address", got, "/login/unmet")
			wantAt(t, "EN-8 without the sign-in", b.do(t, http.MethodGet, path, nil), "/login/unmet")
		}
		w.wantKinds(t, "EN-8", "bob")
	})

	t.Run("skipping it", func(t *testing.T) { // EN-8
		t.Parallel()
		w := newWorld(t)
		b, p := w.newcomer(t, "")
		for _, path := range []string{"/login", "/login/code", "/login/methods", "/consent", "/login/app"} {
			wantAt(t, path, b.do(t, http.MethodGet, strings.Replace(p.url, "/enrol", path, 1), nil), "/enrol")
		}
		if again := b.do(t, http.MethodGet, "/begin", nil); !atPath(again, "/enrol") {
			t.Errorf("another sign-in: %s", again.url)
		}
	})

	t.Run("too late", func(t *testing.T) { // LIM-9: what a change wants is asked for again, then it goes on
		t.Parallel()
		w := newWorld(t)
		b, p := w.newcomer(t, "")
		phone := b.follow(t, p, "/enrol/phone")
		w.DB.Advance(t, 10*time.Minute+time.Second)
		texts := w.Texts(t)
		late := b.submit(t, phone, "/enrol/phone", url.Values{"number": {"+12025550177"}})
		wantAt(t, "the form after eleven minutes", late, "/login")
		late.want(t, "again", http.StatusOK, "Confirm that it is you", `value="bob"`)
		if w.Texts(t) != texts {
			t.Error("EN-1: a text was sent")
		}
		p = b.submit(t, late, "/login", url.Values{"password": {authntest.Password}})
		wantAt(t, "after the password", p, "/enrol")
		p = b.submit(t, b.follow(t, p, "/enrol/phone"), "/enrol/phone", url.Values{"number": {"+12025550177"}})
		finished(t, "and then", b.submit(t, p, "/enrol/phone/code", url.Values{"code": {w.sent(t, p)}}), authn.RestrictedLevel)
	})

	t.Run("in place of a challenge", func(t *testing.T) { // EN-7
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		texts := w.Texts(t)
		for _, path := range []string{"/enrol", "/enrol/phone", "/enrol/app", "/enrol/backup", "/enrol/phone/code"} {
			wantAt(t, path, b.do(t, http.MethodGet, strings.Replace(p.url, "/login/code", path, 1), nil), "/login/code")
			bare := b.do(t, http.MethodGet, path, nil)
			wantAt(t, path+" without the sign-in", bare, map[bool]string{true: "/enrol/phone/code", false: "/login/code"}[path == "/enrol/phone/code"])
		}
		if w.Texts(t) != texts {
			t.Error("texts were sent")
		}
		w.wantKinds(t, "EN-7", "alice", "sms43")
	})

	t.Run("nobody", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b := w.browser(t)
		for _, path := range []string{"/enrol", "/enrol/phone", "/enrol/app", "/enrol/backup", "/enrol/backup/codes", "/enrol/backup/codes/download"} {
			wantAt(t, path, b.do(t, http.MethodGet, path, nil), "/login")
		}
		b.do(t, http.MethodGet, "/enrol?flow="+uuid.NewString(), nil).want(t, "a foreign sign-in", http.StatusGone)
	})
}

func TestPhoneRefusals(t *testing.T) { // P6; EN-12, EN-13
	t.Parallel()
	w := newWorld(t)
	b, _ := w.changing(t)
	p := b.do(t, http.MethodGet, "/enrol/phone", nil)
	p.want(t, "from the account", http.StatusOK, "Back to your account", `href="/account"`)
	texts := w.Texts(t)
	for _, tt := range []struct{ country, number, says string }{
		{"US", "", "Enter your mobile number"},
		{"US", "  ", "Enter your mobile number"},
		{"DE", "030 123456", "This looks like a landline"},
		{"GB", "0905 123 4567", "number of this kind"},
		{"US", "555", "in full, like"},
		{"US", "call me", "in full, like"},
		{"US", "+1 202 555 0177;ext=1", "in full, like"},
		{"US", "+12025550177\r\nTo: +12025550178", "in full, like"},
		{"US", `+1"><script>`, "in full, like"},
		{"US", strings.Repeat("1", 200), "in full, like"},
		{"US", "somebody@mail.example", "in full, like"},
		{"DE", "+53 5 1234567", "We cannot send texts to Cuba. Use another way"},
		{"XX", "", "Enter your mobile number"},
		{"DE", "+1 (202) 555-0143", "This number is on your account already"},
	} {
		got := b.submit(t, p, "/enrol/phone", url.Values{"country": {tt.country}, "number": {tt.number}})
		got.want(t, tt.number, http.StatusUnprocessableEntity, tt.says, `aria-invalid="true"`, `href="#number"`)
		if strings.Contains(got.html, "<script>") || tt.number == "030 123456" && !strings.Contains(got.html, `value="030 123456"`) {
			t.Errorf("%s: not kept as typed, or not escaped:\n%s", tt.number, got.html)
		}
	}
	w.Outage.Store(true)
	b.do(t, http.MethodGet, "/enrol/phone", nil).want(t, "vendors down", http.StatusOK, "Text messages are not getting through at the moment")
	b.submit(t, p, "/enrol/phone", url.Values{"number": {"+12025550177"}}).want(t, "vendors down", http.StatusServiceUnavailable, "Try again later, or use another way")
	w.Outage.Store(false)
	if n := w.Texts(t) - texts; n != 0 {
		t.Errorf("%d texts to numbers that were refused", n)
	}
	for i := range 3 { // LIM-12
		w.Subscriber(t, fmt.Sprint("holder", i), "+12025550190")
	}
	b.submit(t, p, "/enrol/phone", url.Values{"number": {"+12025550190"}}).want(t, "EN-6 the fourth account", http.StatusUnprocessableEntity, "This number cannot be added")
	id := w.find(t, "alice")
	for i := range 4 {
		bind(t, w, id, fmt.Sprintf("+1202555018%d", i))
	}
	b.submit(t, p, "/enrol/phone", url.Values{"number": {"+12025550177"}}).want(t, "EN-6 the sixth phone", http.StatusUnprocessableEntity, "You have as many numbers as you can")
	if n := w.Texts(t) - texts; n != 0 {
		t.Errorf("%d texts to numbers that were refused", n)
	}
}

func TestAddPhone(t *testing.T) { // EN-2, EN-5, EN-11, P7
	t.Parallel()
	w := newWorld(t)
	b, _ := w.changing(t)
	p := b.submit(t, b.do(t, http.MethodGet, "/enrol/phone", nil), "/enrol/phone", url.Values{"number": {"+1 202 555 0177"}})
	wantAt(t, "P7", p, "/enrol/phone/code")
	first := w.sent(t, p)
	for typed, says := range map[string]string{"": "Enter the security code", "12345": "Enter all 6 digits", "1234567": "you entered more", "abc": "The code has digits only"} {
		b.submit(t, p, "/enrol/phone/code", url.Values{"code": {typed}}).want(t, typed, http.StatusUnprocessableEntity, says)
	}
	b.submit(t, p, "/enrol/phone/code/resend", nil).want(t, "too early", http.StatusTooManyRequests, "You can ask for a new code in")
	w.DB.Advance(t, 31*time.Second)
	b.submit(t, p, "/enrol/phone/code/resend", nil).want(t, "resent", http.StatusOK, "We sent another code at")

	other, _ := w.newcomer(t, "")
	foreign := other.do(t, http.MethodGet, p.url, nil)
	foreign.want(t, "EN-5 somebody else's enrolment", http.StatusGone, "Start again")
	foreign.wantNot(t, "EN-5", "<bdi>77</bdi>", "number ending")
	same, _ := w.at(t, "", "authenticator app")
	if got := same.do(t, http.MethodGet, p.url, nil); got.status == http.StatusOK && strings.Contains(got.html, "<bdi>77</bdi>") {
		t.Errorf("EN-11 in another browser of the same person: %d %s", got.status, got.url)
	}

	done := b.submit(t, p, "/enrol/phone/code", url.Values{"code": {first}, "phone": {"+12025550178"}, "number": {"+12025550178"}}) // EN-2
	wantAt(t, "the proof", done, "/account")
	w.wantKinds(t, "EN-2", "alice", "sms43", "sms77", "totp")
	b.do(t, http.MethodGet, p.url, nil).want(t, "Back", http.StatusGone, "It was finished already")
	b.do(t, http.MethodPost, p.url, url.Values{"code": {first}}).want(t, "without the form", http.StatusForbidden)
	if n := w.told(t, "factor_added"); n < 2 {
		t.Errorf("NOT-1: %d notices of the new phone, want one to the old phone and one by mail", n)
	}
	var events string
	if err := w.DB.GetContext(t.Context(), &events, `SELECT string_agg(event || ' ' || outcome || ' ' || coalesce(source, ''), ', ' ORDER BY at, event) FROM audit_events
		WHERE event LIKE 'authenticator.%' AND reason = 'sms' AND actor = 'subscriber'`); err != nil || !strings.Contains(events, "authenticator.bind success 192.0.2.1") {
		t.Errorf("BND-6: %s, %v", events, err)
	}

	t.Run("attempts used up, then another code to the same number", func(t *testing.T) {
		p := b.submit(t, b.do(t, http.MethodGet, "/enrol/phone", nil), "/enrol/phone", url.Values{"number": {"+12025550178"}})
		code := w.sent(t, p)
		for range 5 {
			p = b.submit(t, p, "/enrol/phone/code", url.Values{"code": {"000000"}})
		}
		p.want(t, "EN-11 used up", http.StatusUnprocessableEntity, "You entered a wrong code too many times", "Send a new code", "Change number")
		p.wantNot(t, "used up", `name="code"`)
		p = b.submit(t, p, "/enrol/phone/code/resend", nil)
		p.want(t, "another", http.StatusOK, "number ending <strong><bdi>78</bdi></strong>")
		b.submit(t, p, "/enrol/phone/code", url.Values{"code": {code}}).want(t, "EN-11 the code of the one before", http.StatusUnprocessableEntity, "The code is not right")
		wantAt(t, "the right one", b.submit(t, p, "/enrol/phone/code", url.Values{"code": {w.sent(t, p)}}), "/account")
	})

	t.Run("too late", func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.changing(t)
		p := b.submit(t, b.do(t, http.MethodGet, "/enrol/phone", nil), "/enrol/phone", url.Values{"number": {"+12025550179"}})
		code := w.sent(t, p)
		w.DB.Advance(t, 10*time.Minute+time.Second)
		b.submit(t, p, "/enrol/phone/code", url.Values{"code": {code}}).want(t, "late", http.StatusGone, "Start again")
		wantAt(t, "EN-1", b.do(t, http.MethodGet, "/enrol/phone", nil), "/login")
		w.wantKinds(t, "late", "alice", "sms43", "totp")
	})
}

func TestChangePhone(t *testing.T) { // EN-4
	t.Parallel()
	w := newWorld(t)
	b, _ := w.changing(t)
	var old uuid.UUID
	if err := w.DB.GetContext(t.Context(), &old, "SELECT id FROM authenticators WHERE kind = 'sms' AND hint = '43'"); err != nil {
		t.Fatal(err)
	}
	b.do(t, http.MethodGet, "/enrol/phone?replace="+uuid.NewString(), nil).want(t, "EN-5 somebody else's", http.StatusNotFound)
	p := b.do(t, http.MethodGet, "/enrol/phone?replace="+old.String(), nil)
	p.want(t, "P6", http.StatusOK, "Change your mobile number", "You can use the number ending <strong><bdi>43</bdi></strong> until the new one is confirmed", "replace="+old.String())
	p = b.submit(t, p, "/enrol/phone", url.Values{"number": {"+12025550177"}})
	w.wantKinds(t, "before the proof the old one stays", "alice", "sms43", "totp")
	p = b.follow(t, p, "/enrol/phone")
	p.want(t, "Change number keeps what is replaced", http.StatusOK, "Change your mobile number", `value="&#43;12025550177"`)
	p = b.submit(t, p, "/enrol/phone", url.Values{"number": {"+12025550178"}})
	wantAt(t, "the proof", b.submit(t, p, "/enrol/phone/code", url.Values{"code": {w.sent(t, p)}}), "/account")
	w.wantKinds(t, "after it", "alice", "sms78", "totp")
	var ways []string
	if err := w.DB.SelectContext(t.Context(), &ways, `SELECT n.channel || coalesce(a.hint, '') FROM notices n LEFT JOIN authenticators a ON a.id = n.authenticator_id WHERE n.kind = 'phone_changed' AND n.hint = '78' ORDER BY 1`); err != nil || !slices.Equal(ways, []string{"mail", "text43", "text78"}) {
		t.Errorf("told: %v, %v; want the old number, the new one and the mail", ways, err)
	}
	if n := w.told(t, "factor_added"); n != 0 {
		t.Errorf("%d notices that something was added", n)
	}
	var history int
	if err := w.DB.GetContext(t.Context(), &history, `SELECT count(*) FROM audit_events WHERE event = 'authenticator.unbind' AND object = $1`, old.String()); err != nil || history != 1 {
		t.Errorf("the old binding in the record: %d, %v", history, err)
	}
	b.do(t, http.MethodGet, "/enrol/phone?replace="+old.String(), nil).want(t, "once more", http.StatusNotFound)
}

func TestEnrolWants(t *testing.T) { // EN-1, EN-10, TP-10: proofs, and a form of ours
	t.Parallel()
	w := newWorld(t)
	b, app := w.changing(t)
	p := b.do(t, http.MethodGet, "/enrol/phone", nil)
	backup := b.do(t, http.MethodGet, "/enrol/backup", nil)
	for name, header := range map[string]http.Header{"site": {"Sec-Fetch-Site": {"cross-site"}}, "sibling": {"Sec-Fetch-Site": {"same-site"}}, "origin": {"Origin": {"https://evil.example"}}} {
		b.header = header
		b.submit(t, p, "/enrol/phone", url.Values{"number": {"+12025550177"}}).want(t, "EN-10 "+name, http.StatusForbidden)
		b.submit(t, backup, "/enrol/backup", nil).want(t, "EN-10 "+name, http.StatusForbidden)
	}
	b.header = http.Header{}
	for _, path := range []string{"/enrol/phone", "/enrol/app", "/enrol/backup"} {
		b.do(t, http.MethodPost, path, url.Values{"number": {"+12025550177"}}).want(t, "EN-10 without a proof: "+path, http.StatusForbidden)
	}
	foreign, _ := w.newcomer(t, "")
	form := url.Values{"number": {"+12025550177"}}
	for _, input := range inputTag.FindAllStringSubmatch(p.html, -1) {
		form.Set(input[1], input[2])
	}
	if got := foreign.do(t, http.MethodPost, "/enrol/phone", form); got.status != http.StatusForbidden {
		t.Errorf("EN-10 the form of another session: %d", got.status)
	}
	texts := w.Texts(t)
	w.DB.Advance(t, 10*time.Minute+time.Second)
	for path, page := range map[string]*page{"/enrol/phone": p, "/enrol/backup": backup} {
		got := b.submit(t, page, path, url.Values{"number": {"+12025550177"}})
		wantAt(t, "EN-1 "+path+" too late", got, "/login")
		if path == "/enrol/phone" { // and with the proofs, on to what was wanted
			confirmed := b.submit(t, got, "/login", url.Values{"password": {authntest.Password}})
			w.DB.Advance(t, totp.Period)
			wantAt(t, "the way back", b.submit(t, confirmed, "/login/app", url.Values{"code": {app.Code(t, 0)}}), path)
			w.DB.Advance(t, 10*time.Minute+time.Second)
		}
	}
	if w.Texts(t) != texts {
		t.Error("EN-1: a text was sent")
	}
	weak, q := w.at(t, "", "number ending 43")
	weak.submit(t, q, "/login/code", url.Values{"code": {w.newest(t)}})
	wantAt(t, "TP-10 a text where an app is bound", weak.do(t, http.MethodGet, "/enrol/app", nil), "/login/app")
	w.wantKinds(t, "after all that", "alice", "sms43", "totp")
}

func TestAddApps(t *testing.T) { // TP-7, TP-9
	t.Parallel()
	w := newWorld(t)
	b, _ := w.changing(t)
	begin := func() *page {
		return b.submit(t, b.do(t, http.MethodGet, "/enrol/app", nil), "/enrol/app", url.Values{"name": {"Tab"}})
	}
	first, second := begin(), begin()
	b.submit(t, first, "/enrol/app/confirm", url.Values{"code": {w.shows(t, second)}}).want(t, "TP-7", http.StatusUnprocessableEntity)
	w.wantKinds(t, "TP-7", "alice", "sms43", "totp")
	other, _ := w.newcomer(t, "")
	got := other.do(t, http.MethodGet, second.url, nil)
	got.want(t, "TP-9", http.StatusGone)
	got.wantNot(t, "TP-9", "otpauth")
	phone := b.do(t, http.MethodGet, strings.Replace(second.url, "/enrol/app", "/enrol/phone/code", 1), nil)
	phone.want(t, "on the page of another factor", http.StatusGone)
	wantAt(t, "the proof", b.submit(t, second, "/enrol/app/confirm", url.Values{"code": {w.shows(t, second)}}), "/account")
	w.wantKinds(t, "after it", "alice", "sms43", "totp", "totp")
	dead := begin()
	for range 5 {
		dead = b.submit(t, dead, "/enrol/app/confirm", url.Values{"code": {"000000"}})
	}
	dead.want(t, "used up", http.StatusUnprocessableEntity, "You entered a wrong code too many times. Start again", `href="/enrol/app"`)
	dead.wantNot(t, "used up", "otpauth", "image/png")
}

var codeTag = regexp.MustCompile(`<li><code>([0-9A-Z-]{19})</code>`)

func codesOn(p *page) (codes []string) {
	for _, found := range codeTag.FindAllStringSubmatch(p.html, -1) {
		codes = append(codes, found[1])
	}
	return codes
}

func TestBackupCodes(t *testing.T) { // P9; BC-1, BC-3, BC-4
	t.Parallel()
	w := newWorld(t)
	b, _ := w.changing(t)
	p := b.do(t, http.MethodGet, "/enrol/backup", nil)
	p.want(t, "first", http.StatusOK, "Make backup codes", "Make the codes")
	p.wantNot(t, "first", "stop working", `name="name"`)
	wantAt(t, "codes before there are any", b.do(t, http.MethodGet, "/enrol/backup/codes", nil), "/enrol/backup")
	p = b.submit(t, p, "/enrol/backup", nil)
	wantAt(t, "P9", p, "/enrol/backup/codes")
	codes := codesOn(p)
	if len(codes) != 10 {
		t.Fatalf("%d codes:\n%s", len(codes), p.html)
	}
	p.want(t, "P9", http.StatusOK, "I have saved them", "/enrol/backup/codes/download")
	if again := b.do(t, http.MethodGet, p.url, nil); !slices.Equal(codesOn(again), codes) {
		t.Error("a reload does not show them again")
	}
	file := b.do(t, http.MethodGet, "/enrol/backup/codes/download", nil)
	if file.header.Get("Content-Disposition") != `attachment; filename="backup-codes.txt"` || !strings.Contains(file.html, codes[0]) || !strings.Contains(file.html, codes[9]) || file.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the file: %v\n%s", file.header, file.html)
	}
	other, _ := w.newcomer(t, "")
	for _, c := range b.client.Jar.Cookies(mustURL(t, w.server.URL)) { // what the browser keeps is worth nothing to another
		if c.Name == "enrol" {
			other.client.Jar.SetCookies(mustURL(t, w.server.URL), []*http.Cookie{{Name: c.Name, Value: c.Value, Path: "/"}})
		}
	}
	foreign := other.do(t, http.MethodGet, "/enrol/backup/codes", nil)
	foreign.wantNot(t, "another browser", codes...)
	if n := w.told(t, "backup_codes_made"); n < 2 {
		t.Errorf("NOT-1: %d notices", n)
	}
	done := b.submit(t, p, "/enrol/backup/codes/saved", nil)
	wantAt(t, "saved", done, "/account")
	for _, path := range []string{"/enrol/backup/codes", "/enrol/backup/codes/download", "/enrol/backup", "/enrol"} { // BC-4
		b.do(t, http.MethodGet, path, nil).wantNot(t, "BC-4 "+path, codes...)
	}
	again := b.do(t, http.MethodGet, "/enrol/backup", nil)
	again.want(t, "regenerate", http.StatusOK, "Make new backup codes", "You have 10 codes left. They stop working as soon as you make new ones.")
	fresh := codesOn(b.submit(t, again, "/enrol/backup", nil))
	use := func(code string) *page {
		x, q := w.at(t, "", "backup codes")
		return x.submit(t, q, "/login/backup", url.Values{"code": {code}})
	}
	use(codes[0]).want(t, "BC-3 an old one", http.StatusUnprocessableEntity, "The backup code is not right")
	finished(t, "a new one", use(fresh[0]), authn.RestrictedLevel)
	if n := w.told(t, "backup_code_used"); n < 2 { // BC-9
		t.Errorf("BC-9: %d notices of its use", n)
	}
	if strings.Contains(w.logs.String(), fresh[0]) || strings.Contains(w.logs.String(), codes[0]) {
		t.Error("BC-4: a code is in the log")
	}

	// Two tabs make codes at once: what either shows is what works, or is not shown.
	one, two := b.submit(t, again, "/enrol/backup", nil), b.submit(t, again, "/enrol/backup", nil)
	if shown := codesOn(b.do(t, http.MethodGet, "/enrol/backup/codes", nil)); !slices.Equal(shown, codesOn(two)) || slices.Equal(shown, codesOn(one)) {
		t.Error("BC-3 the second set is not what is shown")
	}
	w.Paper(t, w.find(t, "alice"))
	stale := b.do(t, http.MethodGet, "/enrol/backup/codes", nil)
	wantAt(t, "a set that was replaced elsewhere is not shown any more", stale, "/enrol/backup")
}

func TestLastBackupCode(t *testing.T) { // P4 → P9
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	paper := w.Paper(t, w.find(t, "alice"))
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET codes_left = codes_left[1:1] WHERE codes_left IS NOT NULL"); err != nil {
		t.Fatal(err)
	}
	b, p := w.at(t, "", "backup codes")
	p = b.submit(t, p, "/login/backup", url.Values{"code": {paper[0]}})
	wantAt(t, "after the last one", p, "/enrol/backup")
	p.want(t, "after the last one", http.StatusOK, "That was your last backup code", "Continue to Demo", "Make new backup codes")
	wantAt(t, "LUS-3 it makes no new ones by itself", b.do(t, http.MethodGet, "/enrol/backup", nil), "/login/code")
	finished(t, "and on", b.submit(t, p, "/enrol/continue", nil), authn.RestrictedLevel)
	b.do(t, http.MethodGet, p.url, nil).want(t, "Back", http.StatusGone)
	var left string
	if err := w.DB.GetContext(t.Context(), &left, "SELECT DISTINCT hint FROM notices WHERE kind = 'backup_code_used'"); err != nil || left != "0" {
		t.Errorf("BC-9: told that %s are left, %v", left, err)
	}
}

// TestProofRace has one enrolment confirmed by two hundred requests over two replicas, and by two browsers of its owner.
func TestProofRace(t *testing.T) { // EN-11, EN-15, TP-4
	t.Parallel()
	w := newWorld(t)
	b, _ := w.changing(t)
	replica := w.replica(t)
	p := b.submit(t, b.do(t, http.MethodGet, "/enrol/phone", nil), "/enrol/phone", url.Values{"number": {"+12025550177"}})
	form := url.Values{}
	for _, input := range inputTag.FindAllStringSubmatch(formTag.FindAllStringSubmatch(p.html, -1)[0][2], -1) {
		form.Set(input[1], input[2])
	}
	form.Set("code", w.sent(t, p))
	cookie := cookieOf(t, b)
	other, _ := w.at(t, "", "authenticator app")
	query := mustURL(t, p.url).RawQuery
	var bound, fault atomic.Int32
	var wg sync.WaitGroup
	barrier := make(chan struct{})
	for i := range 200 {
		wg.Go(func() {
			<-barrier
			server := []string{w.server.URL, replica}[i%2]
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server+"/enrol/phone/code?"+query, strings.NewReader(form.Encode()))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			from := cookie
			if i%4 >= 2 {
				from = cookieOf(t, other)
			}
			r.AddCookie(&http.Cookie{Name: "watchword", Value: string(from)})
			resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			switch {
			case resp.StatusCode == http.StatusSeeOther && resp.Header.Get("Location") == "/account":
				bound.Add(1)
			case resp.StatusCode >= 500:
				fault.Add(1)
			}
		})
	}
	close(barrier)
	wg.Wait()
	if bound.Load() != 1 || fault.Load() != 0 {
		t.Errorf("%d were told that it is bound, %d faults; want one, and none", bound.Load(), fault.Load())
	}
	w.wantKinds(t, "after the race", "alice", "sms43", "sms77", "totp")
	var records int
	if err := w.DB.GetContext(t.Context(), &records, "SELECT count(*) FROM audit_events WHERE event = 'authenticator.bind' AND actor = 'subscriber' AND reason = 'sms'"); err != nil || records != 1 {
		t.Errorf("EN-15: %d records, %v", records, err)
	}
}

func TestEnrolInJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	b, p := w.newcomer(t, "")
	b.header.Set("Accept", "application/json")
	type answer struct {
		Page, Title, Proof, Next, Code, Detail string
		Status                                 int
		Errors                                 []struct{ Pointer, Message string }
		Data                                   struct {
			Action, Confirm, Secret, URI, Picture string
			Choices                               []struct{ Page, Kind, Next string }
			Countries                             []struct{ Code, Name string }
			Codes                                 []string
		}
	}
	ask := func(method, target string, fields map[string]string, status int) (a answer) {
		t.Helper()
		b.json(t, method, target, fields, status, &a)
		return a
	}
	a := ask(http.MethodGet, p.url, nil, http.StatusOK)
	if len(a.Data.Choices) != 2 || a.Data.Choices[0].Kind != totp.Kind || a.Page != "enrol_choice" {
		t.Fatalf("choice: %+v", a)
	}
	phone := ask(http.MethodGet, a.Data.Choices[1].Next, nil, http.StatusOK)
	if len(phone.Data.Countries) < 10 || phone.Proof == "" {
		t.Fatalf("P6: %+v", phone)
	}
	bad := ask(http.MethodPost, phone.Data.Action, map[string]string{"proof": phone.Proof, "number": "030 123456", "country": "DE"}, http.StatusUnprocessableEntity)
	if bad.Code != "phone.landline" || len(bad.Errors) != 1 || bad.Errors[0].Pointer != "/number" || bad.Status != http.StatusUnprocessableEntity {
		t.Errorf("a landline: %+v", bad)
	}
	ask(http.MethodPost, phone.Data.Action, map[string]string{"number": "+12025550177"}, http.StatusForbidden)
	start := ask(http.MethodGet, a.Data.Choices[0].Next, nil, http.StatusOK)
	led := ask(http.MethodPost, start.Data.Action, map[string]string{"proof": start.Proof, "name": "Red phone"}, http.StatusOK)
	setup := ask(http.MethodGet, led.Next, nil, http.StatusOK)
	if setup.Data.Secret == "" || !strings.HasPrefix(setup.Data.URI, "otpauth://") || !strings.HasPrefix(setup.Data.Picture, "data:image/png") {
		t.Fatalf("P8: %+v", setup)
	}
	if wrong := ask(http.MethodPost, setup.Data.Action, map[string]string{"proof": setup.Proof, "code": "000000"}, http.StatusUnprocessableEntity); wrong.Code != "code.wrong" {
		t.Errorf("wrong: %+v", wrong)
	}
	done := ask(http.MethodPost, setup.Data.Action, map[string]string{"proof": setup.Proof, "code": w.codeOf(t, setup.Data.Secret)}, http.StatusOK)
	if done.Next != "https://rp.example/cb?code=x&acr="+fmt.Sprint(authn.UnrestrictedLevel) {
		t.Fatalf("after the proof: %+v", done)
	}
	codes := ask(http.MethodGet, "/enrol/backup", nil, http.StatusOK)
	made := ask(http.MethodPost, codes.Data.Action, map[string]string{"proof": codes.Proof}, http.StatusOK)
	if len(made.Data.Codes) != 10 {
		t.Errorf("codes: %+v", made)
	}
	w.DB.Advance(t, 11*time.Minute)
	if late := ask(http.MethodPost, codes.Data.Action, map[string]string{"proof": codes.Proof}, http.StatusForbidden); late.Code != "confirmation_required" || late.Next != "/enrol/backup" {
		t.Errorf("EN-1: %+v", late)
	}
	for body, status := range map[string]int{`{"proof":1}`: 400, `[]`: 400, `{"a":"b","a":"c"}`: 400, `{"a":["b"]}`: 400, `{} {}`: 400, `{`: 400, `{"a":"` + strings.Repeat("x", 5000) + `"}`: 413} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL+"/enrol/backup", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Content-Type", "application/json")
		resp, err := b.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close() //nolint:errcheck // not read
		if resp.StatusCode != status {
			t.Errorf("%.20s: %d, want %d", body, resp.StatusCode, status)
		}
	}
}

func mustURL(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// cookieOf is the session cookie of a browser.
func cookieOf(t *testing.T, b *browser) authn.Cookie {
	t.Helper()
	for _, c := range b.client.Jar.Cookies(mustURL(t, b.w.server.URL)) {
		if c.Name == "watchword" {
			return authn.Cookie(c.Value)
		}
	}
	t.Fatal("no session")
	return ""
}

// replica serves the same pages from another process's point of view.
func (w *world) replica(t *testing.T) string {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	service := w.Replica(t, w.DB.Open(t))
	pages, err := web.New(web.Config{SignIns: service, Keys: w.Keys, Issuer: w.server.URL, Service: "Watchword"})
	if err != nil {
		t.Fatal(err)
	}
	pages.App = &application{w}
	routes := pages.Routes()
	server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		routes.ServeHTTP(rw, r.WithContext(audit.With(r.Context(), audit.Context{RequestID: "req_replica"})))
	})
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// bind gives somebody another phone.
func bind(t *testing.T, w *world, subscriber uuid.UUID, number string) uuid.UUID {
	t.Helper()
	parsed, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	a, unique := smsotp.Phone(subscriber, parsed)
	if err := w.Service.Bind(t.Context(), subscriber, authn.Binding{Authenticator: a, Unique: unique}); err != nil {
		t.Fatal(err)
	}
	return a.ID
}

// codeOf is what an app shows that was given a key.
func (w *world) codeOf(t *testing.T, secret string) string {
	t.Helper()
	data, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(secret, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	code, err := totp.Code(data, totp.Step(w.DB.Now(t)))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// sent is the code that page p waits for.
func (w *world) sent(t *testing.T, p *page) string {
	t.Helper()
	id, err := uuid.Parse(mustURL(t, p.url).Query().Get("enrolment"))
	if err != nil {
		t.Fatalf("%s names no enrolment\n%s", p.url, p.html)
	}
	return w.Code(t, id)
}

// newest is the code of the live challenge at sign-in that was made last, where time stands still.
func (w *world) newest(t *testing.T) string {
	t.Helper()
	var id uuid.UUID
	if err := w.DB.GetContext(t.Context(), &id, "SELECT c.id FROM challenges c WHERE c.purpose = 'login' AND c.kind = 'sms' AND c.ended_at IS NULL ORDER BY c.created_at DESC LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	return w.Code(t, id)
}
