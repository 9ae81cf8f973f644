package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/sms"
)

const another = "a quite different sentence"

// drain has the recoveries' worker look names up and send.
func (w *world) drain(t *testing.T) {
	t.Helper()
	if _, err := w.recovery.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

var mailedLink = regexp.MustCompile(`(?m)^https?://\S+$`)

// link is the newest that was mailed.
func (w *world) link(t *testing.T) string {
	t.Helper()
	var m struct {
		ID   uuid.UUID `db:"id"`
		Body []byte    `db:"body"`
	}
	if err := w.DB.GetContext(t.Context(), &m, "SELECT id, body FROM mails WHERE purpose LIKE 'recovery\\_%' ORDER BY created_at DESC, ctid DESC LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	plain, err := w.Keys.Open(m.Body, "mail "+m.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Text string }
	if err := json.Unmarshal(plain, &body); err != nil {
		t.Fatal(err)
	}
	return mailedLink.FindString(body.Text)
}

// forgot asks for a new password, from the sign-in page on.
func (b *browser) forgot(t *testing.T, name string, c recovery.Channel) *page {
	t.Helper()
	p := b.opens(t, b.do(t, http.MethodGet, "/begin", nil), "/recover")
	p.want(t, "P10", http.StatusOK, "Set a new password", "How can we reach you?", "I cannot get a security code", "Back to signing in")
	p = b.submit(t, p, "/recover", url.Values{"username": {name}, "channel": {string(c)}})
	b.w.drain(t)
	return p
}

// follows opens the newest link.
func (b *browser) follows(t *testing.T) *page {
	t.Helper()
	return b.submit(t, b.do(t, http.MethodGet, b.w.link(t), nil), "/recover/link", nil)
}

var anyLink = regexp.MustCompile(`href="([^"?]*)(\?[^"]*)?"`)

// opens follows the page's link to a path, whatever the query.
func (b *browser) opens(t *testing.T, p *page, path string) *page {
	t.Helper()
	for _, found := range anyLink.FindAllStringSubmatch(p.html, -1) {
		if found[1] == path {
			return b.do(t, http.MethodGet, path+strings.ReplaceAll(found[2], "&amp;", "&"), nil)
		}
	}
	t.Fatalf("no link to %s:\n%s", path, p.html)
	return nil
}

func (b *browser) signsIn(t *testing.T, password string) *page {
	t.Helper()
	return b.password(t, b.do(t, http.MethodGet, "/begin", nil), password)
}

func TestForgotPages(t *testing.T) { // P10 to P12; RC-2, RC-3, RC-5, RC-6, RC-9, RC-10
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	old, p := w.atCode(t, "")
	old.submit(t, p, "/login/code", url.Values{"code": {w.Code(t, w.challenge(t))}})
	w.DB.Advance(t, time.Minute)

	b := w.browser(t)
	b.header.Set("X-Forwarded-Host", "evil.example") // RC-2
	p = b.forgot(t, "alice", recovery.Mail)
	wantAt(t, "RC-1 after the start", p, "/recover/check")
	p.want(t, "P11", http.StatusOK, "Check your email", "If that account has a confirmed email address", "60 minutes", "Send a new link", "You can ask for a new message in 30 seconds")
	link := w.link(t)
	if !strings.HasPrefix(link, w.server.URL+"/recover/link?token=") {
		t.Fatalf("RC-2: the link is %s", link)
	}
	secret := mustURL(t, link).Query().Get("token")

	phone := w.browser(t) // another device
	for range 10 {        // mail scanners
		phone.do(t, http.MethodHead, link, nil)
		w.browser(t).do(t, http.MethodGet, link, nil).want(t, "RC-3 opening", http.StatusOK, "Confirm that it is you", "You can set a new password for your Watchword account")
	}
	p = phone.do(t, http.MethodGet, link, nil)
	if strings.Contains(p.url, secret) || strings.Contains(p.html, secret) {
		t.Errorf("RC-9: the secret is left on the page at %s", p.url)
	}
	if got := p.header.Get("Referrer-Policy"); got != "no-referrer" {
		t.Errorf("RC-9: Referrer-Policy %q", got)
	}
	if strings.Contains(w.logs.String(), secret) {
		t.Error("RC-9: the secret is in the log")
	}
	if n := count(t, w, "SELECT count(*) FROM recoveries WHERE proofs <> '{}'"); n != 0 {
		t.Fatal("RC-3: opening used the link up")
	}
	phone.submit(t, p, "/recover/link", url.Values{"proof": {"x"}}).want(t, "a forged form", http.StatusForbidden, "This form did not come from here")
	p = phone.submit(t, p, "/recover/link", nil)
	wantAt(t, "after the link", p, "/recover/password")
	p.want(t, "P12", http.StatusOK, "Choose a new password", `autocomplete="new-password"`, "At least 8 characters", "You still need your other way to sign in")
	w.browser(t).do(t, http.MethodGet, link, nil).want(t, "RC-3 a second time", http.StatusGone, "This cannot be gone on with")
	b.do(t, http.MethodGet, "/recover/check", nil).want(t, "where it began", http.StatusGone, "goes on where you opened the link")
	phone.do(t, http.MethodGet, "/account", nil).want(t, "RC-10 the account", http.StatusOK, "Password", "Sign in to")
	phone.do(t, http.MethodGet, "/enrol/app", nil).want(t, "RC-10 a factor", http.StatusOK, "Sign in to")

	for typed, says := range map[string]string{"": "Enter a new password", "short": "too short", "password1": "easy to guess", "2025550143": "easy to guess", strings.Repeat("x", 300): "256 characters at most"} {
		phone.submit(t, phone.do(t, http.MethodGet, "/recover/password", nil), "/recover/password", url.Values{"password": {typed}}).want(t, typed, http.StatusUnprocessableEntity, says)
	}
	p = phone.submit(t, phone.do(t, http.MethodGet, "/recover/password", nil), "/recover/password", url.Values{"password": {another}})
	wantAt(t, "afterwards", p, "/recover/done")
	p.want(t, "the end", http.StatusOK, "Your password was set", "You are signed out everywhere", "Sign in")
	if n := count(t, w, "SELECT count(*) FROM sessions WHERE subscriber_id IS NOT NULL AND ended_at IS NULL"); n != 0 {
		t.Errorf("RC-5, RC-6: %d sessions after the reset", n)
	}
	phone.do(t, http.MethodGet, "/recover/password", nil).want(t, "back", http.StatusOK, "Your password was set")
	old.do(t, http.MethodGet, "/begin", nil).want(t, "RC-6 the browser from before", http.StatusOK, "Sign in to Demo")
	phone.signsIn(t, authntest.Password).want(t, "the old password", http.StatusUnprocessableEntity, "is not right")
	p = phone.signsIn(t, another)
	wantAt(t, "RC-5 with the new one the factor", p, "/login/code")
}

func count(t *testing.T, w *world, query string) (n int) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &n, query); err != nil {
		t.Fatal(err)
	}
	return n
}

// secretValue is a cookie's, of the length that all have.
var secretValue = regexp.MustCompile(`=[A-Z2-7]{52}(;)`)

var volatile = regexp.MustCompile(`name="proof" value="[^"]*"|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]+ seconds?`)

func TestForgotNeutral(t *testing.T) { // RC-1: pages and their cost are alike for known, unknown, disabled and locked names
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	w.DB.SetMaxOpenConns(1)
	for i, name := range []string{"known", "disabled", "locked"} {
		id := w.Subscriber(t, name, fmt.Sprintf("+1202555018%d", i))
		switch name {
		case "disabled":
			if err := w.Service.Disable(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		case "locked":
			for range 11 {
				b := w.browser(t)
				b.submit(t, b.do(t, http.MethodGet, "/begin", nil), "/login", url.Values{"username": {name}, "password": {"wrong wrong"}})
			}
		}
	}
	for _, c := range []recovery.Channel{recovery.Text, recovery.Mail} {
		var first []string
		for _, name := range []string{"warm", "known", "unknown", "disabled", "locked"} {
			var pages []string
			b := w.browser(t)
			note := func(what string, p *page, began int64) *page {
				pages = append(pages, fmt.Sprintf("%s: %d, %d statements, %s\n%s", what, p.status, w.DB.RoundTrips.Load()-began, mustURL(t, p.url).Path, volatile.ReplaceAllString(p.html, "")))
				return p
			}
			at := w.DB.RoundTrips.Load
			form := b.do(t, http.MethodGet, "/recover", nil)
			began := at()
			p := note("start", b.submit(t, form, "/recover", url.Values{"username": {name}, "channel": {string(c)}}), began)
			w.drain(t)
			began = at()
			p = note("again too early", b.submit(t, p, "/recover/again", nil), began)
			if c == recovery.Text {
				for range 5 {
					p = note("wrong", b.submit(t, p, "/recover/check", url.Values{"code": {"000000"}}), at())
				}
			}
			began = at()
			note("ways", b.do(t, http.MethodGet, "/recover/ways", nil), began)
			w.DB.Advance(t, 2*time.Hour)
			began = at()
			note("late", b.do(t, http.MethodGet, "/recover/check", nil), began)
			if name == "warm" { // statements are prepared once
				continue
			}
			if first == nil {
				first = pages
				continue
			}
			for i, got := range pages {
				if i < len(first) && got != first[i] {
					t.Errorf("RC-1 %s by %s:\n%s\n— known:\n%s", name, c, got, first[i])
				}
			}
		}
	}
}

// TestForgotSamples takes 200 samples of each kind of name, by turns, so that whatever else the machine does is part of all of them.
func TestForgotSamples(t *testing.T) { // RC-1
	t.Parallel()
	const samples = 200
	w := newWorld(t)
	w.DB.Freeze(t)
	w.DB.SetMaxOpenConns(1)
	w.recovery.Config.Name.Burst, w.recovery.Config.Source.Burst = 1<<20, 1<<20
	names := []string{"alice", "unknown", "disabled", "locked"}
	for i, name := range names[2:] {
		id := w.Subscriber(t, name, fmt.Sprintf("+1202555018%d", i))
		if name == "disabled" {
			if err := w.Service.Disable(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for range 11 {
			b := w.browser(t)
			b.submit(t, b.do(t, http.MethodGet, "/begin", nil), "/login", url.Values{"username": {name}, "password": {"wrong wrong"}})
		}
	}
	texts := count(t, w, "SELECT count(*) FROM messages")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	took := map[string][]time.Duration{}
	var first string
	for round := range samples + 5 { // the first are not counted: statements are prepared
		for turn := range names {
			name, channel := names[(turn+round)%len(names)], []string{"mail", "text"}[round%2]
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL+"/recover", strings.NewReader(url.Values{"username": {name}, "channel": {channel}}.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			trips, began := w.DB.RoundTrips.Load(), time.Now()
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			spent := time.Since(began)
			if round < 5 {
				continue
			}
			took[name] = append(took[name], spent)
			for _, volatile := range []string{"Date", "X-Request-Id"} {
				resp.Header.Del(volatile)
			}
			resp.Header.Set("Set-Cookie", secretValue.ReplaceAllString(resp.Header.Get("Set-Cookie"), "=${1}"))
			answer := fmt.Sprintf("%d statements, %s, %v\n%s", w.DB.RoundTrips.Load()-trips, resp.Status, resp.Header, body)
			if first == "" {
				first = answer
			}
			if answer != first {
				t.Fatalf("RC-1: %s is answered\n%s\nand others\n%s", name, answer, first)
			}
		}
		if round%20 == 0 {
			w.drain(t)
		}
	}
	w.drain(t)
	// Of two that are alike either is the faster half the time: five deviations of that are 0.15 with so many samples.
	for _, name := range names[1:] {
		faster := 0.0
		for _, a := range took["alice"] {
			for _, b := range took[name] {
				if a < b {
					faster++
				} else if a == b {
					faster += .5
				}
			}
		}
		share := faster / samples / samples
		t.Logf("%s: median %v, alice %v; alice is faster in %.3f of pairs", name, median(took[name]), median(took["alice"]), share)
		if share < .35 || share > .65 {
			t.Errorf("RC-1: %s is told from alice by time", name)
		}
	}
	if n := count(t, w, "SELECT count(DISTINCT subscriber_id) FROM recoveries WHERE state <> 'refused' AND subscriber_id IS NOT NULL"); n != 2 { // a lock on passwords is none on getting back in
		t.Errorf("RC-1: %d people were sent something", n)
	}
	if n := count(t, w, "SELECT count(*) FROM messages") - texts; n == 0 || n > 2*w.recovery.Config.TextHour.Burst {
		t.Errorf("RC-1: %d texts", n)
	}
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func TestAccessPages(t *testing.T) { // P13; RC-10, RC-11: two proofs of different kinds, and then nothing but repairing
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	alice := w.find(t, "alice")
	w.App(t, alice)
	paper := w.Paper(t, alice)
	w.DB.Advance(t, 48*time.Hour)
	b, p := w.fromAccess(t)
	p = b.submit(t, p, "/recover/access", url.Values{"channel": {"text"}})
	w.drain(t)
	wantAt(t, "after the start", p, "/recover/check")
	p.want(t, "P11", http.StatusOK, "Check your phone", "If that account has a mobile number", "Do not share this code", `autocomplete="one-time-code"`)
	b.submit(t, p, "/recover/check", url.Values{"code": {"12"}}).want(t, "short", http.StatusUnprocessableEntity, "Enter all 6 digits of the code")
	code := w.Code(t, w.challenge(t))
	b.submit(t, p, "/recover/check", url.Values{"code": {wrongCode(code)}}).want(t, "wrong", http.StatusUnprocessableEntity, "The code is not right")
	p = b.submit(t, p, "/recover/check", url.Values{"code": {code}})
	wantAt(t, "RC-11 one proof", p, "/recover/ways")
	p.want(t, "RC-11 one proof", http.StatusOK, "One more proof", "One of your backup codes", "Code from your authenticator app", "Link to the email address", "Stop this recovery")
	p.wantNot(t, "the same kind again", "Text message to the number ending")
	p.wantNot(t, "no waiting by default", "Wait 24 hours")
	b.submit(t, p, "/recover/ways", nil).want(t, "nothing chosen", http.StatusUnprocessableEntity, "Choose how you want to confirm")
	p = b.submit(t, p, "/recover/ways", url.Values{"way": {boundOf(t, w, alice, "backup_code")}})
	wantAt(t, "the second", p, "/recover/check")
	p.want(t, "the second", http.StatusOK, "Use a backup code", "Enter one of the backup codes that you saved")
	b.submit(t, p, "/recover/check", url.Values{"code": {"0000-0000-0000-0000"}}).want(t, "wrong paper", http.StatusUnprocessableEntity, "The backup code is not right")
	p = b.submit(t, p, "/recover/check", url.Values{"code": {paper[0]}})
	wantAt(t, "two proofs", p, "/recover/repair")
	p.want(t, "repairing", http.StatusOK, "Repair your account", "What stays", "Mobile number ending 43", "Backup codes", "What you have lost", "Authenticator app", "Text message to your phone", "Remove what I have lost")

	account := b.do(t, http.MethodGet, "/account", nil)
	account.want(t, "RC-10 the account", http.StatusOK, "Sign in to")
	b.do(t, http.MethodGet, "/account/password", nil).want(t, "RC-10 the password of the account", http.StatusOK, "Sign in to")
	for _, path := range []string{"/enrol/backup", "/enrol/phone?replace=" + boundOf(t, w, alice, "sms")} {
		if p := b.do(t, http.MethodGet, path, nil); strings.Contains(p.html, "Make the codes") {
			t.Errorf("RC-10 %s: %s", path, p.html)
		}
	}

	p = b.do(t, http.MethodGet, "/recover/repair", nil) // which those took the session from
	p.want(t, "the session is another's", http.StatusOK, "You can go on now", "began to sign in")
	p = b.opens(t, b.submit(t, p, "/recover/repair", nil), "/recover/password")
	p = b.submit(t, p, "/recover/password", url.Values{"password": {another}})
	p.want(t, "a password besides", http.StatusOK, "Your password was set", "Repair your account")
	p = b.opens(t, p, "/enrol/app")
	p.want(t, "P8 in a repair", http.StatusOK, "Set up an authenticator app", "Back to repairing your account")
	p = b.submit(t, p, "/enrol/app", url.Values{"name": {"New"}})
	p = b.submit(t, p, "/enrol/app/confirm", url.Values{"code": {w.shows(t, p)}})
	wantAt(t, "bound", p, "/recover/done")
	p.want(t, "the end", http.StatusOK, "Your account is repaired", "signed out everywhere")
	w.wantKinds(t, "what was proved and what is new", "alice", "backup_code", "sms43", "totp")
	wantAt(t, "then as usual", b.signsIn(t, another), "/login/app")
	if n := count(t, w, "SELECT count(*) FROM recoveries WHERE state = 'finished'"); n != 1 {
		t.Errorf("%d recoveries finished", n)
	}
}

func (w *world) fromAccess(t *testing.T) (*browser, *page) {
	t.Helper()
	b := w.browser(t)
	p := b.signsIn(t, authntest.Password)
	methods := b.do(t, http.MethodGet, regexp.MustCompile(`/login/\w+\?`).ReplaceAllString(p.url, "/login/methods?"), nil)
	p = b.opens(t, methods, "/recover/access")
	p.want(t, "P13", http.StatusOK, "Get back into your account", "two other proofs", "usually arrives within a few minutes")
	p.wantNot(t, "whoever knows the password is not asked for a name", `name="username"`)
	w.DB.Advance(t, time.Minute)
	return b, p
}

func wrongCode(code string) string {
	if code == "000000" {
		return "000001"
	}
	return "000000"
}

func boundOf(t *testing.T, w *world, subscriber uuid.UUID, kind string) (id string) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &id, "SELECT id FROM authenticators WHERE subject = $1 AND kind LIKE $2 || '%' AND unbound_at IS NULL", subscriber, kind); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestWaitPages(t *testing.T) { // P14; RC-11: by policy, 24 hours, to be stopped by a link
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	w.recovery.Config.Alone = true
	waits := func(t *testing.T) (*browser, *page) {
		t.Helper()
		w.DB.Advance(t, 25*time.Hour)
		b, p := w.fromAccess(t)
		b.submit(t, p, "/recover/access", url.Values{"channel": {"mail"}})
		w.drain(t)
		p = b.follows(t)
		wantAt(t, "one proof", p, "/recover/ways")
		p.want(t, "P13", http.StatusOK, "Wait 24 hours", "from each of them you can stop it")
		p = b.submit(t, p, "/recover/wait", nil)
		wantAt(t, "waiting", p, "/recover/waiting")
		p.want(t, "P14", http.StatusOK, "You can go on later", "Come back", "Stop this recovery")
		p.wantNot(t, "P14", `action="/recover/waiting"`)
		return b, p
	}
	b, _ := waits(t)
	w.DB.Advance(t, 23*time.Hour)
	b.do(t, http.MethodGet, "/recover/repair", nil).want(t, "too early", http.StatusOK, "You can go on later")
	w.DB.Advance(t, 61*time.Minute)
	p := b.do(t, http.MethodGet, "/recover/waiting", nil)
	p.want(t, "in time", http.StatusOK, "You can go on now")
	p = b.submit(t, p, "/recover/waiting", nil)
	wantAt(t, "gone on", p, "/recover/repair")
	p.want(t, "gone on", http.StatusOK, "Mobile number ending 43", "What you have lost")
	b.submit(t, p, "/recover/cancel", nil).want(t, "stopped here", http.StatusOK, "The recovery was stopped")

	b, _ = waits(t)
	owner := w.browser(t)
	p = owner.opens(t, owner.do(t, http.MethodGet, "/recover", nil), "/recover/stop")
	p.want(t, "stopping", http.StatusOK, "That ends every recovery of it")
	p = owner.submit(t, p, "/recover/stop", url.Values{"username": {"alice"}, "channel": {"text"}})
	w.drain(t)
	p = owner.submit(t, p, "/recover/check", url.Values{"code": {w.Code(t, w.challenge(t))}})
	p.want(t, "stopped from the phone", http.StatusOK, "Every recovery was stopped")
	w.DB.Advance(t, 25*time.Hour)
	b.do(t, http.MethodGet, "/recover/waiting", nil).want(t, "stopped", http.StatusOK, "The recovery was stopped")
	w.wantKinds(t, "nothing changed", "alice", "sms43")
}

func TestForgotByText(t *testing.T) { // RC-7, RC-11: the phone alone sets no password, and five wrong answers end the try
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	w.DB.Advance(t, 48*time.Hour)
	b := w.browser(t)
	p := b.forgot(t, "alice", recovery.Text)
	code := w.Code(t, w.challenge(t))
	for range 4 {
		p = b.submit(t, p, "/recover/check", url.Values{"code": {wrongCode(code)}})
		p.want(t, "RC-7", http.StatusUnprocessableEntity, "The code is not right")
	}
	p = b.submit(t, p, "/recover/check", url.Values{"code": {wrongCode(code)}})
	p.want(t, "RC-7 the fifth", http.StatusUnprocessableEntity, "You entered a wrong code too many times. Start again")
	b = w.browser(t)
	w.DB.Advance(t, time.Hour)
	p = b.forgot(t, "alice", recovery.Text)
	w.DB.Advance(t, 31*time.Second)
	p = b.submit(t, b.do(t, http.MethodGet, p.url, nil), "/recover/again", nil)
	w.drain(t)
	p.want(t, "resent", http.StatusOK, "We asked for another message")
	p = b.submit(t, p, "/recover/check", url.Values{"code": {w.Code(t, w.challenge(t))}})
	wantAt(t, "RC-11 the phone alone", p, "/recover/ways")
	p.want(t, "RC-11", http.StatusOK, "A text message alone is not enough", "Link to the email address")
	p = b.submit(t, p, "/recover/ways", url.Values{"way": {uuid.Nil.String()}})
	p.want(t, "mailed", http.StatusOK, "Check your email", "We sent a link to")
	p = b.follows(t)
	wantAt(t, "both", p, "/recover/password")
	b.do(t, http.MethodPost, "/recover/password", url.Values{"password": {another}}).want(t, "PW-12 without proof", http.StatusForbidden)
	b.header.Set("Origin", "https://evil.example")
	b.header.Set("Sec-Fetch-Site", "cross-site")
	b.submit(t, p, "/recover/password", url.Values{"password": {another}}).want(t, "PW-12 from elsewhere", http.StatusForbidden)
	b.submit(t, p, "/recover/cancel", nil).want(t, "PW-12 from elsewhere", http.StatusForbidden)
	b.header = http.Header{}
	b.submit(t, p, "/recover/password", url.Values{"password": {another}}).want(t, "set", http.StatusOK, "Your password was set")
}

func TestRecoverLimits(t *testing.T) { // RC-8: a source is bounded, and told when to come back
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	b := w.browser(t)
	var p *page
	for n := range 30 {
		p = b.submit(t, b.do(t, http.MethodGet, "/recover", nil), "/recover", url.Values{"username": {fmt.Sprint("somebody", n)}, "channel": {"mail"}})
	}
	p.want(t, "RC-8", http.StatusTooManyRequests, "We cannot start more recoveries now")
	if p.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	b.submit(t, p, "/recover", url.Values{"username": {""}, "channel": {"mail"}}).want(t, "nobody", http.StatusUnprocessableEntity, "Enter your user name or email address")
	b.submit(t, p, "/recover", url.Values{"username": {"x"}, "channel": {"pigeon"}}).want(t, "no way", http.StatusUnprocessableEntity, "Choose how we can reach you")
	w.browser(t).do(t, http.MethodGet, "/recover/check", nil).want(t, "nothing begun", http.StatusGone, "This cannot be gone on with", "Start again")
}

func TestRecoverInGerman(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser(t)
	b.header.Set("Accept-Language", "de")
	p := b.submit(t, b.do(t, http.MethodGet, "/recover", nil), "/recover", url.Values{"username": {"alice"}, "channel": {"mail"}})
	w.drain(t)
	p.want(t, "P11", http.StatusOK, `<html lang="de"`, "Schauen Sie in Ihre E-Mails")
	b.follows(t).want(t, "P12", http.StatusOK, "Wählen Sie ein neues Passwort")
}

// changed is a network that says of every number that its SIM was changed.
type changed struct{}

// Hold implements authn.Signal.
func (changed) Hold(context.Context, sms.Number) (bool, error) { return true, nil }

func TestStepUpAfterSIMChange(t *testing.T) { // OTP-13: no text raises a session, and there is another way
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	b := w.browser(t)
	p := b.password(t, b.do(t, http.MethodGet, "/account", nil), authntest.Password)
	b.code(t, p, nil).want(t, "at the account", http.StatusOK, "Your account")
	w.DB.Advance(t, 11*time.Minute)
	w.Service.Signal = changed{}
	texts := w.Texts(t)
	p = b.submit(t, b.do(t, http.MethodGet, "/account", nil), "/account/confirm", nil)
	p = b.submit(t, p, "/login", url.Values{"password": {authntest.Password}})
	p.want(t, "after the password", http.StatusOK, "We send a text message", "Send a code")
	p = b.submit(t, p, "/login/code/resend", nil)
	p.want(t, "asked for", http.StatusUnprocessableEntity, "because its SIM card was changed", "I have none of these")
	if n := w.Texts(t) - texts; n != 0 {
		t.Errorf("%d texts", n)
	}
	w.Service.Signal = nil
	p = b.submit(t, p, "/login/methods", url.Values{"method": {w.phone(t)}})
	b.code(t, p, nil).want(t, "later", http.StatusOK, "You have confirmed that it is you")
}
