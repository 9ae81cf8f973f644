package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/keyfob"
	"github.com/watchword-auth/watchword/factors/totp"
)

func (w *world) find(t *testing.T, name string) uuid.UUID {
	t.Helper()
	u, err := w.Service.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return u.ID
}

// answers is alice with a phone, an app and backup codes, where time stands still.
func answers(t *testing.T) (w *world, app *authntest.App, paper []string) {
	t.Helper()
	w = newWorld(t)
	w.DB.Freeze(t)
	id := w.find(t, "alice")
	return w, w.App(t, id), w.Paper(t, id)
}

var choice = regexp.MustCompile(`(?s)name="method" value="([^"]*)"[^>]*>\s*<label[^>]*>([^<]*)`)

// at is a browser on the page of an authenticator, chosen by what P5 says of it.
func (w *world) at(t *testing.T, query, label string) (*browser, *page) {
	t.Helper()
	b := w.browser(t)
	p := b.password(t, b.do(t, http.MethodGet, "/begin"+query, nil), authntest.Password)
	methods := b.do(t, http.MethodGet, regexp.MustCompile(`/login/\w+\?`).ReplaceAllString(p.url, "/login/methods?"), nil)
	for _, found := range choice.FindAllStringSubmatch(methods.html, -1) {
		if strings.Contains(found[2], label) {
			return b, b.submit(t, methods, "/login/methods", url.Values{"method": {found[1]}})
		}
	}
	t.Fatalf("no way called %q:\n%s", label, methods.html)
	return nil, nil
}

func (p *page) wantNot(t *testing.T, what string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(p.html, text) {
			t.Errorf("%s: the page says %q:\n%s", what, text, p.html)
		}
	}
}

func TestAppPage(t *testing.T) { // P3
	t.Parallel()

	t.Run("journey", func(t *testing.T) {
		t.Parallel()
		w, app, _ := answers(t)
		b, p := w.at(t, "", "authenticator app")
		p.want(t, "first", http.StatusOK, "Check your authenticator app", "shows for Watchword", `inputmode="numeric"`, `autocomplete="one-time-code"`, "autofocus", "Use another way", "Do not share this code")
		p.wantNot(t, "first", "Send", "data-poll", "resend")
		code := app.Code(t, 0)
		done := b.submit(t, p, "/login/app", url.Values{"code": {"code: " + code[:3] + "-" + digits(code[3:], '٠')}})
		if done.status != http.StatusSeeOther || done.location != "https://rp.example/cb?code=x&acr="+fmt.Sprint(authn.UnrestrictedLevel) {
			t.Fatalf("after the code: %d %s\n%s", done.status, done.location, done.html)
		}
		b, p = w.at(t, "", "authenticator app")
		b.submit(t, p, "/login/app", url.Values{"code": {code}}).want(t, "TP-1 used", http.StatusUnprocessableEntity, "This code was already used. Wait until your app shows the next one")
		w.DB.Advance(t, totp.Period)
		if done := b.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}}); done.status != http.StatusSeeOther || !strings.HasPrefix(done.location, "https://rp.example/cb?code=") {
			t.Errorf("the next one: %d %s", done.status, done.location)
		}
		w.DB.Advance(t, time.Minute)
		b = w.browser(t)
		if p := b.password(t, b.do(t, http.MethodGet, "/begin", nil), authntest.Password); !strings.Contains(p.url, "/login/app?flow=") {
			t.Errorf("last used first: %s", p.url)
		}
	})

	t.Run("what was typed", func(t *testing.T) {
		t.Parallel()
		w, _, _ := answers(t)
		b, p := w.at(t, "", "authenticator app")
		for typed, says := range map[string]string{"": "Enter the security code", "12345": "Enter all 6 digits of the code", "1234567": "you entered more", "12a456": "The code has digits only"} {
			p := b.submit(t, p, "/login/app", url.Values{"code": {typed}})
			p.want(t, typed, http.StatusUnprocessableEntity, says, `aria-invalid="true"`)
			if typed != "" {
				p.wantNot(t, typed, typed)
			}
		}
	})

	t.Run("wrong, few left, dead, again, blocked", func(t *testing.T) {
		t.Parallel()
		w, _, _ := answers(t)
		b, p := w.at(t, "", "authenticator app")
		for n, says := range []string{"Enter the one that your app shows now", "You can try 3 more times", "You can try 2 more times", "You can try 1 more time", "You entered a wrong code too many times. Try again"} {
			p = b.submit(t, p, "/login/app", url.Values{"code": {"000000"}})
			p.want(t, fmt.Sprint("wrong ", n+1), http.StatusUnprocessableEntity, says)
			if clock := strings.Contains(p.html, "sets its time automatically"); clock != (n >= 1 && n < 4) {
				t.Errorf("wrong %d: speaks of the clock: %v", n+1, clock)
			}
		}
		p.wantNot(t, "dead", `name="code"`)
		p = b.submit(t, p, "/login/app/again", nil)
		p.want(t, "again", http.StatusOK, `name="code"`)
		for range 5 {
			p = b.submit(t, p, "/login/app", url.Values{"code": {"000000"}})
		}
		p.want(t, "LIM-3 ten in a row", http.StatusUnprocessableEntity, "Try again at <time datetime=", "Use another way")
		p.wantNot(t, "blocked", `name="code"`, "Try again</button>")
		_, p = w.at(t, "", "backup codes")
		p.want(t, "OT-6 the other factor too", http.StatusOK, "Try again at <time datetime=")
		w.DB.Advance(t, 15*time.Minute+time.Second)
		_, p = w.at(t, "", "authenticator app")
		p.want(t, "after the block", http.StatusOK, `name="code"`)
	})

	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		w, app, _ := answers(t)
		b, p := w.at(t, "", "authenticator app")
		w.DB.Advance(t, 11*time.Minute)
		p = b.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}})
		p.want(t, "expired", http.StatusUnprocessableEntity, "This took too long. Try again")
		p = b.submit(t, p, "/login/app/again", nil)
		if done := b.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}}); done.status != http.StatusSeeOther || !strings.HasPrefix(done.location, "https://rp.example/cb?code=") {
			t.Errorf("again: %d %s", done.status, done.location)
		}
	})

	t.Run("not asked for yet", func(t *testing.T) { // the password was given for another sign-in
		t.Parallel()
		w, app, _ := answers(t)
		b, _ := w.at(t, "", "authenticator app")
		if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET last_used_at = wall() WHERE kind = 'totp'"); err != nil {
			t.Fatal(err)
		}
		p := b.do(t, http.MethodGet, "/begin", nil)
		p.want(t, "another sign-in", http.StatusOK, "Check your authenticator app", `name="code"`)
		if done := b.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}}); done.status != http.StatusSeeOther || !strings.HasPrefix(done.location, "https://rp.example/cb?code=") {
			t.Errorf("its code: %d %s", done.status, done.location)
		}
	})

	t.Run("another page is due", func(t *testing.T) {
		t.Parallel()
		w, app, _ := answers(t)
		b, p := w.atCode(t, "")
		texts := w.Texts(t)
		for _, page := range []string{"/login/app?", "/login/backup?"} {
			if got := b.do(t, http.MethodGet, strings.Replace(p.url, "/login/code?", page, 1), nil); !strings.Contains(got.url, "/login/code?") {
				t.Errorf("%s instead of the code page: %s", page, got.url)
			}
		}
		b, p = w.at(t, "", "authenticator app")
		code := b.do(t, http.MethodGet, strings.Replace(p.url, "/login/app?", "/login/code?", 1), nil)
		if !strings.Contains(code.url, "/login/app?") {
			t.Errorf("the code page instead of the app's: %s", code.url)
		}
		foreign := b.do(t, http.MethodPost, p.url, url.Values{"code": {app.Code(t, 0)}}) // OT-19, PW-12: without the form's proof
		if foreign.status != http.StatusForbidden && foreign.status != http.StatusBadRequest {
			t.Errorf("a form that is not the page's: %d\n%s", foreign.status, foreign.html)
		}
		if n := w.Texts(t) - texts; n != 1 { // at the password of the second browser
			t.Errorf("%d texts, want 1", n)
		}
	})
}

func TestBackupPage(t *testing.T) { // P4
	t.Parallel()
	w, _, paper := answers(t)
	b, p := w.at(t, "", "backup codes")
	p.want(t, "first", http.StatusOK, "Use a backup code", "Each code works once", `autocomplete="off"`)
	p.wantNot(t, "first", "inputmode", "one-time-code", "left")
	for typed, says := range map[string]string{"": "Enter the backup code", paper[0][:14]: "Enter all 16 characters", paper[0] + paper[1]: "you entered more", "U" + paper[0][1:]: "and no U"} {
		p := b.submit(t, p, "/login/backup", url.Values{"code": {typed}})
		p.want(t, typed, http.StatusUnprocessableEntity, says) // BC-7
		p.wantNot(t, "BC-4", paper[0][:14])
	}
	b.submit(t, p, "/login/backup", url.Values{"code": {"0000-0000-0000-0000"}}).want(t, "wrong", http.StatusUnprocessableEntity, "The backup code is not right. Check it, or use another way")
	done := b.submit(t, p, "/login/backup", url.Values{"code": {strings.ToLower(paper[0])}})
	if done.status != http.StatusSeeOther || done.location != "https://rp.example/cb?code=x&acr="+fmt.Sprint(authn.RestrictedLevel) {
		t.Fatalf("after the code: %d %s\n%s", done.status, done.location, done.html)
	}
	b, p = w.at(t, "", "backup codes")
	b.submit(t, p, "/login/backup", url.Values{"code": {paper[0]}}).want(t, "BC-1 used", http.StatusUnprocessableEntity, "This backup code was already used. Enter another one")
	for i, says := range []string{"You have 2 backup codes left. Make new ones when you are signed in.", "This is your last backup code."} {
		n := 2 - i
		if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET codes_left = codes_left[1:$1] WHERE codes_left IS NOT NULL", n); err != nil {
			t.Fatal(err)
		}
		b.do(t, http.MethodGet, p.url, nil).want(t, fmt.Sprint(n, " left"), http.StatusOK, says)
	}
	for what := range strings.SplitSeq(w.logs.String(), " ") {
		for _, code := range paper {
			if strings.Contains(what, code) || strings.Contains(what, strings.ReplaceAll(code, "-", "")) {
				t.Error("BC-4: a backup code is in the log")
			}
		}
	}
}

func TestWaysPage(t *testing.T) { // P5
	t.Parallel()
	w, app, paper := answers(t)
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET name = 'My <phone>' WHERE kind = 'totp'"); err != nil {
		t.Fatal(err)
	}
	order := func(p *page) (list []string) {
		for _, found := range choice.FindAllStringSubmatch(p.html, -1) {
			list = append(list, found[2])
		}
		return list
	}
	b, p := w.atCode(t, "")
	methods := b.do(t, http.MethodGet, strings.Replace(p.url, "/login/code?", "/login/methods?", 1), nil)
	methods.want(t, "ways", http.StatusOK, "Text message to the number ending 43", "(<bdi>My &lt;phone&gt;</bdi>)", "I have none of these")
	if got := fmt.Sprint(order(methods)); !strings.HasPrefix(got, "[Text") || !strings.HasSuffix(got, "One of your backup codes]") {
		t.Errorf("order %s", got)
	}
	methods.wantNot(t, "ways", "+1202", "5550143", paper[0], app.Authenticator.ID.String()+" ")

	w.Outage.Store(true)
	texts := w.Texts(t)
	b = w.browser(t)
	p = b.password(t, b.do(t, http.MethodGet, "/begin", nil), authntest.Password)
	p.want(t, "text messages are down", http.StatusOK, "Check your authenticator app")
	methods = b.do(t, http.MethodGet, strings.Replace(p.url, "/login/app?", "/login/methods?", 1), nil)
	methods.want(t, "text messages are down", http.StatusOK, "Text messages are not getting through at the moment")
	if checked := regexp.MustCompile(`value="([^"]*)" checked`).FindStringSubmatch(methods.html); checked == nil || checked[1] != app.Authenticator.ID.String() {
		t.Errorf("chosen beforehand: %v, want the app", checked)
	}
	if w.Texts(t) != texts {
		t.Error("a text was made while none gets through")
	}
	done := b.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}})
	if done.status != http.StatusSeeOther || !strings.HasPrefix(done.location, "https://rp.example/cb?code=") {
		t.Errorf("signing in while text messages are down: %d %s", done.status, done.location)
	}
	help := b.do(t, http.MethodGet, "/login/help", nil)
	if help.status == http.StatusOK {
		t.Errorf("help without a sign-in: %d", help.status)
	}
}

func TestAnswersInGerman(t *testing.T) {
	t.Parallel()
	w, _, _ := answers(t)
	for label, says := range map[string]string{"Authenticator-App": "Schauen Sie in Ihre Authenticator-App", "Notfallcodes": "Notfallcode benutzen"} {
		b, p := w.at(t, "?ui_locales=de", label)
		p.want(t, label, http.StatusOK, says, `lang="de"`)
		path := regexp.MustCompile(`/login/\w+`).FindString(p.url)
		p = b.submit(t, p, path, url.Values{"code": {"0"}})
		p.want(t, label, http.StatusUnprocessableEntity, "Geben Sie alle")
	}
}

// TestAnotherFactor signs in with a factor that the pages have never heard of: nothing but its being installed makes it one.
func TestAnotherFactor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(keys factors.Keys) factors.Factor {
		f, err := keyfob.New(keys)
		if err != nil {
			t.Fatal(err)
		}
		return f
	})
	secret := []byte("12345678901234567890")
	fob, err := keyfob.Fob(uuid.Nil, "FOB-0042", secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Service.Bind(t.Context(), w.find(t, "alice"), authn.Binding{Authenticator: fob}); err != nil {
		t.Fatal(err)
	}
	b, p := w.at(t, "", "Another method you have set up")
	p.want(t, "first", http.StatusOK, "Enter your code", "Use the method that you have set up.", `inputmode="numeric"`, "Use another way")
	b.submit(t, p, "/login/fob", url.Values{"code": {"1"}}).want(t, "short", http.StatusUnprocessableEntity, "Enter the whole code")
	code, err := keyfob.Code(secret, 3)
	if err != nil {
		t.Fatal(err)
	}
	if done := b.submit(t, p, "/login/fob", url.Values{"code": {code}}); done.location != "https://rp.example/cb?code=x&acr="+fmt.Sprint(authn.UnrestrictedLevel) {
		t.Errorf("after the code: %d %s", done.status, done.location)
	}
	b, p = w.at(t, "", "Another method you have set up")
	b.submit(t, p, "/login/fob", url.Values{"code": {code}}).want(t, "used", http.StatusUnprocessableEntity, "This code was already used. Enter another one")
}

// stranger is an app under another name, which has no texts of its own.
type stranger struct{ *totp.Factor }

func (stranger) Kind() string       { return "stranger" }
func (stranger) Page() factors.Page { return factors.Page{Name: "stranger", Digits: true} }

func (s stranger) Provision(subject uuid.UUID, username string) (factors.Authenticator, factors.Setup, error) {
	a, setup, err := s.Factor.Provision(subject, username)
	a.Kind = s.Kind()
	return a, setup, err
}

// TestAnotherFactorOfTheAccount sets one up that the account page has never heard of.
func TestAnotherFactorOfTheAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(keys factors.Keys) factors.Factor {
		f, err := totp.New(keys, "Watchword")
		if err != nil {
			t.Fatal(err)
		}
		return stranger{f}
	})
	w.DB.Freeze(t)
	b, p := w.atAccount(t)
	p.want(t, "the account", http.StatusOK, `<a href="/enrol/stranger">Add another way to sign in</a>`)
	p = b.submit(t, b.do(t, http.MethodGet, "/enrol/stranger", nil), "/enrol/stranger", url.Values{"name": {"Odd"}})
	secret := regexp.MustCompile(`secret=([A-Z2-7]+)`).FindStringSubmatch(p.html)[1]
	b.submit(t, p, "/enrol/stranger/confirm", url.Values{"code": {w.codeOf(t, secret)}}).want(t, "added", http.StatusOK, "It was added.", "<bdi>Odd</bdi>")
}

// TestAnswerRoundTrips holds that the page and the answer are two statements each.
func TestAnswerRoundTrips(t *testing.T) {
	t.Parallel()
	w, app, paper := answers(t)
	w.DB.SetMaxOpenConns(1)
	for n := range 2 {
		for _, kind := range []string{totp.Kind, backupcode.Kind} {
			label, path, answer := "authenticator app", "/login/app", app.Code(t, 0)
			if kind == backupcode.Kind {
				label, path, answer = "backup codes", "/login/backup", paper[n]
			}
			b, p := w.at(t, "?consent", label)
			before := w.DB.RoundTrips.Load()
			p = b.do(t, http.MethodGet, p.url, nil)
			if got := w.DB.RoundTrips.Load() - before; n > 0 && got != 1 {
				t.Errorf("%s page took %d round trips, want 1", kind, got)
			}
			before = w.DB.RoundTrips.Load()
			b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			if done := b.submit(t, p, path, url.Values{"code": {answer}}); done.status != http.StatusSeeOther || !strings.Contains(done.location, "/consent?") {
				t.Fatalf("%s: %d %s", kind, done.status, done.location)
			}
			if got := w.DB.RoundTrips.Load() - before; n > 0 && got != 2 {
				t.Errorf("%s answer took %d round trips, want 2", kind, got)
			}
			w.DB.Advance(t, time.Minute)
		}
	}
}
