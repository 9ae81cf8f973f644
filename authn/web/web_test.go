package web_test

import (
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/authn/web"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/logtest"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// application stands in for package oidc: it answers with where a browser would be sent.
type application struct{ w *world }

func (a *application) Finish(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie) error {
	q := new(postgres.Query)
	a.w.Service.Complete(q, p.SignIn, cookie)
	q.Finally("SELECT 1 FROM sign_in_done")
	n, err := a.w.DB.Run(r.Context(), q)
	if err != nil {
		return err
	}
	if n == 0 {
		return authn.ErrSignInOver
	}
	http.Redirect(w, r, "https://rp.example/cb?code=x&acr="+fmt.Sprint(p.Decision.Level), http.StatusSeeOther)
	return nil
}

func (a *application) Refuse(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie, failure authn.Failure) error {
	if err := a.w.Service.Cancel(r.Context(), cookie, p.SignIn, string(failure)); err != nil && !errors.Is(err, authn.ErrSignInOver) {
		return err
	}
	location := "https://rp.example/cb?error=" + string(failure)
	if p.Decision.Detail != "" {
		location += "&error_description=" + p.Decision.Detail
	}
	http.Redirect(w, r, location, http.StatusSeeOther)
	return nil
}

func (a *application) SignOut(r *http.Request, cookie authn.Cookie) error {
	q := new(postgres.Query)
	a.w.Service.End(r.Context(), q, cookie, "signed_out")
	q.Finally("SELECT 1")
	_, err := a.w.DB.Run(r.Context(), q)
	return err
}

type world struct {
	*authntest.World
	server *httptest.Server
	pages  *web.Handler
	shop   *shop
	outage atomic.Bool
	logs   *logtest.Buffer

	recovery *recovery.Engine
	payments *transaction.Service
	orders   *transaction.Details
}

// newWorld has the factors of every world, and those that are given besides.
func newWorld(t *testing.T, besides ...func(factors.Keys) factors.Factor) *world {
	t.Helper()
	w := &world{World: authntest.New(t), logs: new(logtest.Buffer)}
	if known := w.Service.Ledger.Factors(); len(besides) > 0 {
		for _, f := range besides {
			known = append(known, f(w.Keys))
		}
		var err error
		if w.Service.Ledger, err = factors.NewLedger(w.DB.DB, w.Keys, w.Service.Ledger.Outbox, factors.DefaultLimits(), known...); err != nil {
			t.Fatal(err)
		}
	}
	w.Subscriber(t, "alice", "+12025550143")
	w.pay(t)
	w.server = httptest.NewUnstartedServer(nil)
	w.server.Start()
	t.Cleanup(w.server.Close)
	texts, err := recovery.NewTexts("Watchword", "en")
	if err != nil {
		t.Fatal(err)
	}
	w.recovery = &recovery.Engine{DB: w.DB.DB, Keys: w.Keys, SignIns: w.Service, Texts: texts, Mail: &mail.Outbox{Keys: w.Keys}, Issuer: w.server.URL, Config: recovery.DefaultConfig(), Log: slog.New(slog.DiscardHandler)}
	w.Service.Repaired, w.Service.Repairing = w.recovery.Repaired, w.recovery.Repairing
	w.shop = newShop(t, w)
	w.pages, err = web.New(web.Config{Programs: w.shop.gateway, SignIns: w.Service, Recovery: w.recovery, Keys: w.Keys, Issuer: w.server.URL, Service: "Watchword", Help: "https://help.example/", Outage: func() bool { return w.outage.Load() }, Payments: w.payments, Orders: w.orders,
		Countries: []string{"AT", "CH", "DE", "FR", "GB", "US", "IT", "ES", "NL", "BE", "IN"},
		Log:       slog.New(slog.NewTextHandler(w.logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w.pages.App, w.pages.Completer = &application{w}, &application{w}
	w.shop.gateway.Pages.Document = w.pages.Document
	mux := http.NewServeMux()
	for _, path := range gateway.Paths() {
		mux.Handle(path, w.shop.gateway.Routes())
	}
	mux.HandleFunc("GET /begin", func(rw http.ResponseWriter, r *http.Request) {
		b := authntest.Beginning()
		b.Locales = r.URL.Query().Get("ui_locales")
		b.LoginHint = r.URL.Query().Get("login_hint")
		b.Requirement.Fresh = r.URL.Query().Has("fresh")
		b.Requirement.Silent = r.URL.Query().Has("silent")
		if name := r.URL.Query().Get("pay"); name != "" {
			b.RelyingParty.Name, b.RelyingParty.Phone = "The Bank", "+44 20 7946 0000"
			b.Requirement.Confirm = true
			b.Requirement.Details = []authn.Detail{{Type: transaction.DetailsType, Content: paymentOf(name)}}
		}
		if r.URL.Query().Has("strong") {
			b.Requirement.Levels = []authn.Level{authn.UnrestrictedLevel}
		}
		if r.URL.Query().Has("consent") {
			b.RelyingParty.FirstParty = false
			b.Requirement.Scopes = []string{"profile", "offline_access", "payments:read"}
			b.Requirement.Details = []authn.Detail{{Type: "account", Content: "{}", Lines: map[string][]string{
				"en": {"see one account", "Account: <b>DE02</b>"}, "de": {"ein Konto sehen", "Konto: <b>DE02</b>"}}}}
		}
		p, err := w.Service.Begin(r.Context(), w.pages.Cookie(r), b)
		if err == nil {
			err = w.pages.Next(rw, r, p, w.pages.Cookie(r))
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /logout", func(rw http.ResponseWriter, r *http.Request) {
		s, err := w.Service.Current(r.Context(), w.pages.Cookie(r))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		w.pages.ConfirmSignOut(rw, r, s)
	})
	mux.HandleFunc("GET /formpost", func(rw http.ResponseWriter, r *http.Request) {
		w.pages.FormPost(rw, r, "https://rp.example/cb", url.Values{"state": {`"><script>x</script>&amp;`}, "code": {"c"}})
	})
	mux.Handle("/", w.pages.Routes())
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		from := audit.Context{Source: netip.MustParseAddr("192.0.2.1"), RequestID: "req_test"}
		mux.ServeHTTP(rw, r.WithContext(audit.With(r.Context(), from)))
	})
	return w
}

// browser is one with a cookie jar that follows redirects within the issuer.
type browser struct {
	w      *world
	client *http.Client
	header http.Header
}

func (w *world) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{w: w, header: http.Header{}, client: &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "rp.example" {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

type page struct {
	status   int
	url      string
	location string
	header   http.Header
	html     string
}

func (b *browser) do(t *testing.T, method, target string, form url.Values) *page {
	t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.w.server.URL + target
	}
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range b.header {
		r.Header[name] = values
	}
	if form != nil && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &page{status: resp.StatusCode, url: resp.Request.URL.String(), location: resp.Header.Get("Location"), header: resp.Header, html: string(data)}
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// submit posts the page's form whose action has the given path, as a browser would.
func (b *browser) submit(t *testing.T, p *page, path string, fields url.Values) *page {
	t.Helper()
	for _, form := range formTag.FindAllStringSubmatch(p.html, -1) {
		action := strings.ReplaceAll(form[1], "&amp;", "&")
		if !strings.HasPrefix(action, path+"?") && action != path {
			continue
		}
		values := url.Values{}
		for _, input := range inputTag.FindAllStringSubmatch(form[2], -1) {
			values.Add(input[1], html.UnescapeString(input[2]))
		}
		for name, v := range fields {
			values[name] = v
		}
		return b.do(t, http.MethodPost, action, values)
	}
	t.Fatalf("no form for %s on the page:\n%s", path, p.html)
	return nil
}

func (b *browser) password(t *testing.T, p *page, password string) *page {
	t.Helper()
	return b.submit(t, p, "/login", url.Values{"username": {"alice"}, "password": {password}})
}

// challenge is the newest challenge there is.
func (w *world) challenge(t *testing.T) uuid.UUID {
	t.Helper()
	var id uuid.UUID
	if err := w.DB.GetContext(t.Context(), &id, "SELECT id FROM challenges ORDER BY created_at DESC, ended_at DESC LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	return id
}

// atCode is a browser on the code page.
func (w *world) atCode(t *testing.T, query string) (*browser, *page) {
	t.Helper()
	b := w.browser(t)
	p := b.password(t, b.do(t, http.MethodGet, "/begin"+query, nil), authntest.Password)
	if !strings.Contains(p.url, "/login/code?flow=") {
		t.Fatalf("not on the code page: %d %s\n%s", p.status, p.url, p.html)
	}
	return b, p
}

func (p *page) want(t *testing.T, what string, status int, texts ...string) {
	t.Helper()
	if p.status != status {
		t.Errorf("%s: status %d, want %d", what, p.status, status)
	}
	for _, text := range texts {
		if !strings.Contains(p.html, text) {
			t.Errorf("%s: the page does not say %q:\n%s", what, text, p.html)
		}
	}
	if status >= 400 && strings.Contains(p.html, `role="alert"`) && !strings.Contains(p.html, "<title>Error: ") && !strings.Contains(p.html, "<title>Fehler: ") {
		t.Errorf("%s: the title does not say that there is an error", what)
	}
}

func TestJourney(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, p := w.atCode(t, "")
	p.want(t, "code page", http.StatusOK, "number ending <strong><bdi>43</bdi></strong>", "10 minutes", `autocomplete="one-time-code"`, "autofocus")
	code := w.Code(t, w.challenge(t))
	done := b.submit(t, p, "/login/code", url.Values{"code": {"code: " + code[:3] + "-" + code[3:]}})
	if done.status != http.StatusSeeOther || !strings.HasPrefix(done.location, "https://rp.example/cb?code=") { // AZ-25
		t.Fatalf("after the code: %d %s\n%s", done.status, done.location, done.html)
	}
	if silent := b.do(t, http.MethodGet, "/begin", nil); !strings.HasPrefix(silent.location, "https://rp.example/cb?code=") {
		t.Errorf("single sign-on: %d %s", silent.status, silent.location)
	}
	if back := b.do(t, http.MethodGet, p.url, nil); back.status != http.StatusGone { // Back after success never resubmits
		t.Errorf("back: %d", back.status)
	}
	again := b.do(t, http.MethodGet, "/begin?fresh", nil)
	again.want(t, "again", http.StatusOK, "Confirm that it is you", "asks you to sign in again", `readonly`, `value="alice"`)
}

func TestPasswordPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser(t)
	first := b.do(t, http.MethodGet, "/begin?login_hint=alice%22%3E", nil)
	first.want(t, "first", http.StatusOK, "Sign in to Demo", `autocomplete="current-password"`, `autocomplete="username"`, `value="alice&#34;&gt;"`, "Back to Demo")
	b.submit(t, first, "/login", url.Values{"username": {" "}, "password": {""}}).want(t, "empty", http.StatusUnprocessableEntity,
		"Enter your user name or email address", "Enter your password", "There is a problem", `aria-invalid="true"`, `aria-describedby="password-fault"`)
	wrong := b.password(t, first, "wrong password")
	wrong.want(t, "wrong", http.StatusUnprocessableEntity, "The user name, email address or password is not right", `value="alice"`)
	if strings.Contains(wrong.html, "wrong password") {
		t.Error("the password came back")
	}
	unknown := b.submit(t, first, "/login", url.Values{"username": {"nobody"}, "password": {"wrong password"}})
	if strip(unknown.html, "nobody") != strip(wrong.html, "alice") || unknown.status != wrong.status { // PW-1
		t.Error("a name that does not exist is answered otherwise than a wrong password")
	}
	for range 9 {
		w.DB.Advance(t, 20*time.Second)
		b.password(t, first, "wrong password")
	}
	locked := b.password(t, first, authntest.Password)
	locked.want(t, "locked", http.StatusTooManyRequests, "Too many tries. Try again at <time datetime=")
	if locked.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func strip(html, name string) string { return strings.ReplaceAll(html, name, "NAME") }

func TestCodePage(t *testing.T) {
	t.Parallel()

	t.Run("what was typed", func(t *testing.T) { // OT-13 to OT-16
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		for typed, says := range map[string]string{
			"": "Enter the security code", " ": "Enter the security code", "12345": "Enter all 6 digits", "1234567": "you entered more", "abc": "The code has digits only",
			"0x1e240": "The code has digits only", "1.23456e5": "The code has digits only", "%": "Enter the security code", "123%": "Enter all 6 digits",
			"123456,654321": "The code has digits only", strings.Repeat("1", 2000): "you entered more",
		} {
			b.submit(t, p, "/login/code", url.Values{"code": {typed}}).want(t, typed, http.StatusUnprocessableEntity, says)
		}
		if got := b.submit(t, p, "/login/code", url.Values{"code": {"000001", "000002"}}); got.status != http.StatusBadRequest {
			t.Errorf("a repeated field: %d", got.status)
		}
		if got := b.submit(t, p, "/login/code", url.Values{"code": {strings.Repeat("1", 1<<20)}}); got.status != http.StatusRequestEntityTooLarge {
			t.Errorf("1 MiB: %d", got.status)
		}
		var attempts int
		if err := w.DB.GetContext(t.Context(), &attempts, "SELECT attempts FROM challenges"); err != nil || attempts != 0 {
			t.Errorf("%d attempts spent on what is no code, %v", attempts, err)
		}
	})

	for name, spell := range map[string]func(string) string{ // UX: input tolerance, OT-15
		"spaces": func(c string) string { return " " + c[:3] + " " + c[3:] + " " }, "hyphen": func(c string) string { return c[:3] + "-" + c[3:] },
		"no-break space": func(c string) string { return c[:3] + "\u00a0" + c[3:] }, "hash": func(c string) string { return "#" + c }, "words": func(c string) string { return "code: " + c + " thanks" },
		"full width": func(c string) string { return digits(c, 0xff10) }, "Arabic-Indic": func(c string) string { return digits(c, 0x660) },
		"Devanagari": func(c string) string { return digits(c, 0x966) }, "mathematical": func(c string) string { return digits(c, 0x1d7ce) },
	} {
		t.Run("spelt with "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b, p := w.atCode(t, "")
			code := w.Code(t, w.challenge(t))
			if got := b.submit(t, p, "/login/code", url.Values{"code": {spell(code)}}); got.status != http.StatusSeeOther {
				t.Fatalf("%d\n%s", got.status, got.html)
			}
			if got := b.submit(t, p, "/login/code", url.Values{"code": {code}}); got.status < 400 {
				t.Errorf("the plain code once more: %d", got.status)
			}
		})
	}

	t.Run("wrong, few left, dead, new", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		for n, says := range []string{"The code is not right. Check it", "You can try 3 more times", "You can try 2 more times", "You can try 1 more time"} {
			p = b.submit(t, p, "/login/code", url.Values{"code": {"000000"}})
			p.want(t, fmt.Sprint("wrong ", n+1), http.StatusUnprocessableEntity, says)
		}
		p = b.submit(t, p, "/login/code", url.Values{"code": {"000000"}})
		p.want(t, "dead", http.StatusUnprocessableEntity, "You entered a wrong code too many times")
		if strings.Contains(p.html, `name="code"`) {
			t.Error("a dead challenge still asks for a code")
		}
		p = b.submit(t, p, "/login/code/resend", nil)
		p.want(t, "a new challenge", http.StatusOK, `name="code"`)
		if got := b.submit(t, p, "/login/code", url.Values{"code": {w.Code(t, w.challenge(t))}}); got.status != http.StatusSeeOther {
			t.Errorf("its code: %d", got.status)
		}
	})

	t.Run("OT-4 a resend gives nothing back", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		evaluated := 0
		for range 3 {
			for range 4 {
				got := b.submit(t, p, "/login/code", url.Values{"code": {"000000"}})
				if strings.Contains(got.html, "The code is not right") || strings.Contains(got.html, "too many times") && evaluated < 5 {
					evaluated++
				}
				if !strings.Contains(got.html, `name="code"`) {
					if evaluated != 5 {
						t.Fatalf("over after %d wrong codes, want 5", evaluated)
					}
					var failures int
					if err := w.DB.GetContext(t.Context(), &failures, "SELECT failures FROM streaks WHERE scope = 'factor'"); err != nil || failures != 5 {
						t.Fatalf("%d failures in a row, %v; want 5", failures, err)
					}
					return
				}
			}
			w.DB.Advance(t, 2*time.Minute+time.Second)
			p = b.submit(t, p, "/login/code/resend", nil)
		}
		t.Fatal("twelve wrong codes around two resends did not end the challenge")
	})

	t.Run("OT-23 one address, many people", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		limited := 0
		for n := range 9 {
			name := fmt.Sprintf("person%d", n)
			w.Subscriber(t, name, fmt.Sprintf("+1202555%04d", 200+n))
			b := w.browser(t)
			p := b.submit(t, b.do(t, http.MethodGet, "/begin", nil), "/login", url.Values{"username": {name}, "password": {authntest.Password}})
			for range 4 {
				got := b.submit(t, p, "/login/code", url.Values{"code": {"000000"}})
				if got.status == http.StatusTooManyRequests {
					got.want(t, "limited", http.StatusTooManyRequests, "Too many tries from your network. Try again at <time")
					limited++
				}
			}
		}
		if limited != 6 {
			t.Errorf("%d of 36 wrong codes from one address were not looked at, want 6", limited)
		}
	})

	t.Run("OT-26 a caller's clock", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		code := w.Code(t, w.challenge(t))
		w.DB.Advance(t, 10*time.Minute+time.Second)
		for _, day := range []string{"Fri, 20 Nov 2026 00:00:00 GMT", "Sun, 22 Nov 2026 00:00:00 GMT"} {
			b.header = http.Header{"Date": {day}, "X-Timestamp": {"0"}}
			b.submit(t, p, "/login/code", url.Values{"code": {code}, "time": {"0"}, "now": {"0"}}).want(t, day, http.StatusUnprocessableEntity, "This code has expired")
		}
	})

	t.Run("resend", func(t *testing.T) { // SN-1
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		first := w.Code(t, w.challenge(t))
		p.want(t, "at once", http.StatusOK, "You can ask for a new code in")
		early := b.submit(t, p, "/login/code/resend", nil)
		early.want(t, "too early", http.StatusTooManyRequests, "You can ask for a new code in")
		if early.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		w.DB.Advance(t, 31*time.Second)
		p = b.submit(t, p, "/login/code/resend", nil)
		p.want(t, "in time", http.StatusOK, "We sent another code at <time")
		if w.Texts(t) != 2 {
			t.Errorf("%d texts, want 2", w.Texts(t))
		}
		if got := b.submit(t, p, "/login/code", url.Values{"code": {first}}); got.status != http.StatusSeeOther {
			t.Errorf("the first code after a resend: %d", got.status)
		}
	})

	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		right := w.Code(t, w.challenge(t))
		w.DB.Advance(t, 10*time.Minute+time.Second)
		var pages []string
		for _, code := range []string{right, "000000"} { // OT-11: alike
			got := b.submit(t, p, "/login/code", url.Values{"code": {code}})
			got.want(t, "expired", http.StatusUnprocessableEntity, "This code has expired. Send a new code")
			pages = append(pages, got.html)
		}
		if pages[0] != pages[1] {
			t.Error("the right code and a wrong one are answered differently after the end")
		}
	})

	t.Run("LIM-3 THR-6 blocked for good", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		block := func(scope string) {
			t.Helper()
			if _, err := w.DB.ExecContext(t.Context(), "INSERT INTO streaks (scope, key, failures, blocked_until) SELECT $1, uuid_send(id), 100, 'infinity' FROM subscribers", scope); err != nil {
				t.Fatal(err)
			}
		}
		block("factor")
		block("password")
		other := w.browser(t)
		for what, got := range map[string]*page{
			"code":     b.submit(t, p, "/login/code", url.Values{"code": {w.Code(t, w.challenge(t))}}),
			"password": other.password(t, other.do(t, http.MethodGet, "/begin", nil), authntest.Password),
		} {
			got.want(t, what, http.StatusTooManyRequests, "Ask the people who run Watchword to help you back in")
			if got.header.Get("Retry-After") != "86400" || strings.Contains(got.html, "<time") {
				t.Errorf("%s: Retry-After %q, want a day, and no time on the page", what, got.header.Get("Retry-After"))
			}
		}
		b.do(t, http.MethodGet, p.url, nil).want(t, "read again", http.StatusOK, "Ask the people who run Watchword to help you back in")
	})

	t.Run("blocked", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for range 2 {
			b, p := w.atCode(t, "")
			for range 5 {
				b.submit(t, p, "/login/code", url.Values{"code": {"000000"}})
			}
		}
		b, p := w.atCode(t, "")
		p.want(t, "blocked", http.StatusOK, "You entered a wrong code too many times. Try again at <time")
		if strings.Contains(p.html, `name="code"`) {
			t.Error("a blocked person is asked for a code")
		}
		b.do(t, http.MethodGet, p.url, nil).want(t, "blocked, again", http.StatusOK, "Try again at")
	})

	t.Run("sends used up for the number", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for range 5 {
			w.atCode(t, "")
		}
		_, p := w.atCode(t, "")
		p.want(t, "limit", http.StatusOK, "We cannot send more codes to this number now. Try again at <time", "Use another way")
		if w.Texts(t) != 5 {
			t.Errorf("%d texts in an hour, want 5", w.Texts(t))
		}
	})

	for reason, says := range map[string]string{"recipient_opted_out": "has opted out of our texts", "invalid_recipient": "could not be delivered",
		"region_blocked": "cannot send texts to this country"} {
		t.Run("delivery "+reason, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b, p := w.atCode(t, "")
			if _, err := w.DB.ExecContext(t.Context(), "UPDATE messages SET state = 'failed', reason = $1", reason); err != nil {
				t.Fatal(err)
			}
			b.do(t, http.MethodGet, p.url, nil).want(t, "code page", http.StatusOK, says)
			state := b.do(t, http.MethodGet, strings.Replace(p.url, "/login/code", "/login/code/state", 1), nil)
			if state.html != `{"due":true,"notice":false,"problem":true}`+"\n" {
				t.Errorf("state %s", state.html)
			}
			methods := b.do(t, http.MethodGet, strings.Replace(p.url, "/login/code", "/login/methods", 1), nil)
			methods.want(t, "methods", http.StatusOK, "could not be delivered", "number ending 43", "I have none of these")
		})
	}

	t.Run("delivery unknown", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		if _, err := w.DB.ExecContext(t.Context(), "UPDATE messages SET state = 'failed', reason = 'ambiguous'"); err != nil {
			t.Fatal(err)
		}
		b.do(t, http.MethodGet, p.url, nil).want(t, "code page", http.StatusOK, "Text messages can take a few minutes", `role="status"`)
	})

	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		w.DB.Advance(t, 61*time.Second)
		b.do(t, http.MethodGet, p.url, nil).want(t, "code page", http.StatusOK, "Text messages can take a few minutes", `role="status"`)
	})

	t.Run("methods and help", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		methods := b.do(t, http.MethodGet, strings.Replace(p.url, "/login/code", "/login/methods", 1), nil)
		b.submit(t, methods, "/login/methods", url.Values{"method": {"x"}}).want(t, "nothing chosen", http.StatusUnprocessableEntity, "Choose how you want to confirm")
		id := regexp.MustCompile(`name="method" value="([^"]*)"`).FindStringSubmatch(methods.html)[1]
		b.submit(t, methods, "/login/methods", url.Values{"method": {id}}).want(t, "the same again", http.StatusOK, `name="code"`)
		if w.Texts(t) != 1 {
			t.Errorf("%d texts, want 1: the one in flight goes on", w.Texts(t))
		}
		b.submit(t, methods, "/login/methods", url.Values{"method": {uuid.NewString()}}).want(t, "somebody else's", http.StatusOK)
		b.do(t, http.MethodGet, strings.Replace(p.url, "/login/code", "/login/help", 1), nil).want(t, "help", http.StatusOK, "If you cannot get a code", "Back to the security code")
	})
}

func digits(code string, zero rune) string {
	return strings.Map(func(r rune) rune { return zero + r - '0' }, code)
}

func TestOutOfTurn(t *testing.T) { // PW-9, PW-11, OT-19, OT-22, AZ-29
	t.Parallel()
	w := newWorld(t)
	b := w.browser(t)
	login := b.do(t, http.MethodGet, "/begin", nil)
	flow := login.url[strings.Index(login.url, "?"):]
	for _, path := range []string{"/login/code", "/login/methods", "/login/help", "/consent"} {
		if got := b.do(t, http.MethodGet, path+flow, nil); !strings.Contains(got.url, "/login?flow=") {
			t.Errorf("%s before the password leads to %s", path, got.url)
		}
	}
	if w.Texts(t) != 0 {
		t.Fatal("a text before the password")
	}
	code := b.submit(t, login, "/login", url.Values{"username": {"alice"}, "password": {authntest.Password}, "mfa": {"false"}, "acr": {"urn:watchword:acr:3"}, "next": {"done"}, "amr[]": {"mfa"}})
	for _, path := range []string{"/login", "/consent"} {
		if got := b.do(t, http.MethodGet, path+flow, nil); !strings.Contains(got.url, "/login/code?flow=") {
			t.Errorf("%s before the code leads to %s", path, got.url)
		}
	}
	right := w.Code(t, w.challenge(t))
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
		b.do(t, method, "/login/code"+flow+"&code="+right, nil)
	}
	for _, name := range []string{"next", "return_to", "redirect", "continue"} {
		if got := b.do(t, http.MethodGet, "/login/code"+flow+"&"+name+"=//evil.example", nil); strings.Contains(got.html+got.location, "evil.example") {
			t.Errorf("%s was taken up", name)
		}
	}
	if got := b.submit(t, code, "/login/code", url.Values{"code": {right}}); got.status != http.StatusSeeOther || strings.Contains(got.location, "error") {
		t.Errorf("OT-22: the code was consumed by a look: %d %s", got.status, got.location)
	}
}

func TestForeignForms(t *testing.T) { // PW-12, SS-11, AZ-27, EN-10's like
	t.Parallel()
	w := newWorld(t)
	b := w.browser(t)
	login := b.do(t, http.MethodGet, "/begin", nil)
	for name, header := range map[string]http.Header{
		"cross-site": {"Sec-Fetch-Site": {"cross-site"}}, "same-site": {"Sec-Fetch-Site": {"same-site"}}, "evil": {"Origin": {"https://evil.example"}},
		"null": {"Origin": {"null"}}, "sibling": {"Origin": {"http://sub." + strings.TrimPrefix(w.server.URL, "http://")}}, "scheme": {"Origin": {strings.Replace(w.server.URL, "http", "https", 1)}},
	} {
		b.header = header
		if got := b.password(t, login, authntest.Password); got.status != http.StatusForbidden {
			t.Errorf("%s: %d", name, got.status)
		}
		b.header = http.Header{}
	}
	for kind, status := range map[string]int{"text/plain": http.StatusUnsupportedMediaType, "application/json": http.StatusUnsupportedMediaType} {
		b.header = http.Header{"Content-Type": {kind}}
		if got := b.password(t, login, authntest.Password); got.status != status {
			t.Errorf("%s: %d, want %d", kind, got.status, status)
		}
		b.header = http.Header{}
	}
	other := w.browser(t)
	theirs := other.do(t, http.MethodGet, "/begin", nil)
	proof := inputTag.FindStringSubmatch(theirs.html)[2]
	for name, value := range map[string]string{"another session's": proof, "none": "", "garbage": "AAAA"} {
		if got := b.submit(t, login, "/login", url.Values{"username": {"alice"}, "password": {authntest.Password}, "proof": {value}}); got.status != http.StatusForbidden {
			t.Errorf("proof %s: %d", name, got.status)
		}
	}
	second := b.do(t, http.MethodGet, "/begin", nil) // AZ-27: the second tab's form with the first one's id
	form := url.Values{"username": {"alice"}, "password": {authntest.Password}, "proof": {inputTag.FindStringSubmatch(second.html)[2]}}
	if got := b.do(t, http.MethodPost, login.url, form); got.status != http.StatusForbidden {
		t.Errorf("AZ-27: %d", got.status)
	}
	if got := other.do(t, http.MethodGet, login.url, nil); got.status != http.StatusGone { // AZ-26
		t.Errorf("AZ-26: another browser: %d", got.status)
	}
	if got := w.browser(t).do(t, http.MethodGet, login.url, nil); got.status != http.StatusForbidden || !strings.Contains(got.html, "did not send our cookie") {
		t.Errorf("no cookie: %d", got.status)
	}
	var failures int
	if err := w.DB.GetContext(t.Context(), &failures, "SELECT count(*) FROM streaks"); err != nil || failures != 0 {
		t.Errorf("foreign forms were counted: %d, %v", failures, err)
	}
	if got := b.password(t, login, authntest.Password); !strings.Contains(got.url, "/login/code") {
		t.Errorf("the owner afterwards: %d %s", got.status, got.url)
	}
}

func TestCancelConsentSignOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, p := w.atCode(t, "")
	if got := b.submit(t, p, "/login/cancel", nil); got.location != "https://rp.example/cb?error=access_denied" {
		t.Errorf("back to the application: %d %s", got.status, got.location)
	}
	b, p = w.atCode(t, "?consent")
	consent := b.submit(t, p, "/login/code", url.Values{"code": {w.Code(t, w.challenge(t))}})
	consent.want(t, "consent", http.StatusOK, "Demo wants to use your Watchword account", "see your name and profile", "keep this access while you are away", "use “payments:read”", "Don’t allow")
	if got := b.submit(t, consent, "/consent", url.Values{"answer": {"deny"}}); got.location != "https://rp.example/cb?error=access_denied" {
		t.Errorf("denied: %s", got.location)
	}
	consent = b.do(t, http.MethodGet, "/begin?consent", nil)
	consent.want(t, "OAU-12 details are asked for again", http.StatusOK, "see one account", "Account: &lt;b&gt;DE02&lt;/b&gt;")
	b.do(t, http.MethodGet, consent.url+"&lang=de", nil).want(t, "details in German", http.StatusOK, "ein Konto sehen", "Konto: &lt;b&gt;DE02")
	b.do(t, http.MethodGet, consent.url+"&lang=en", nil)
	if got := b.submit(t, consent, "/consent", url.Values{"answer": {"allow"}}); !strings.HasPrefix(got.location, "https://rp.example/cb?code=") {
		t.Errorf("allowed: %s", got.location)
	}
	confirm := b.do(t, http.MethodGet, "/logout", nil)
	confirm.want(t, "sign out", http.StatusOK, "Do you want to sign out, alice?")
	if got := b.do(t, http.MethodPost, "/logout/confirm", url.Values{}); got.status != http.StatusForbidden {
		t.Errorf("without proof: %d", got.status)
	}
	b.submit(t, confirm, "/logout/confirm", nil).want(t, "signed out", http.StatusOK, "You are signed out")
	if got := b.do(t, http.MethodGet, "/begin", nil); !strings.Contains(got.url, "/login?flow=") {
		t.Errorf("after sign-out: %s", got.url)
	}
}

func TestUnmet(t *testing.T) { // TX-14, SUP-2: a person is told, then the application
	t.Parallel()
	w := newWorld(t)
	w.Service.Config.Policy.Enrol = false
	w.Subscriber(t, "bare", "")
	for name, who := range map[string]struct{ username, says, do string }{
		"a phone is not enough": {"alice", "stronger way to sign in than those that you have set up", `<a href="/enrol/app">Add an authenticator app</a>`},
		"no factor at all":      {"bare", "your account has no second way to sign in", "Ask the people who run Watchword to add one"},
	} {
		t.Run(name, func(t *testing.T) {
			b := w.browser(t)
			p := b.do(t, http.MethodGet, "/begin?strong", nil)
			p = b.submit(t, p, "/login", url.Values{"username": {who.username}, "password": {authntest.Password}})
			p.want(t, "told", http.StatusOK, "Demo asks for", who.says, who.do, "Back to Demo")
			if strings.Contains(p.html, "/login/cancel") || strings.Count(p.html, "Back to Demo") != 1 {
				t.Error("two ways back")
			}
			if got := b.do(t, http.MethodPost, strings.TrimPrefix(p.url, w.server.URL), url.Values{}); got.status != http.StatusForbidden {
				t.Errorf("without proof: %d", got.status)
			}
			if got := b.submit(t, p, "/login/unmet", nil); got.location != "https://rp.example/cb?error=unmet_authentication_requirements" {
				t.Errorf("back to the application: %d %s", got.status, got.location)
			}
			silent := b.do(t, http.MethodGet, "/begin?strong&silent", nil)
			if silent.location != "https://rp.example/cb?error=unmet_authentication_requirements" {
				t.Errorf("without pages: %d %s", silent.status, silent.location)
			}
		})
	}
	t.Run("whoever has the factor meanwhile goes on", func(t *testing.T) {
		b := w.browser(t)
		p := b.do(t, http.MethodGet, "/begin", nil)
		p = b.submit(t, p, "/login", url.Values{"username": {"bare"}, "password": {authntest.Password}})
		p.want(t, "told", http.StatusOK, "your account has no second way to sign in")
		u, err := w.Service.Find(t.Context(), "bare")
		if err != nil {
			t.Fatal(err)
		}
		number, err := sms.ParseNumber("+12025550177", "")
		if err != nil {
			t.Fatal(err)
		}
		phone, unique := smsotp.Phone(uuid.Nil, number)
		if err := w.Service.Bind(t.Context(), u.ID, authn.Binding{Authenticator: phone, Unique: unique}); err != nil {
			t.Fatal(err)
		}
		if got := b.submit(t, p, "/login/unmet", nil); !strings.Contains(got.url, "/login/code?flow=") {
			t.Errorf("with a phone: %d %s", got.status, got.url)
		}
	})
}

func TestHeaders(t *testing.T) { // AZ-24, HT-8, SS-1, SS-12, WEB-1
	t.Parallel()
	w := newWorld(t)
	b := w.browser(t)
	b.header = http.Header{"Origin": {"https://evil.example"}}
	for _, path := range []string{"/begin", "/login", "/nothing", "/login/cancel", "/formpost", "/logout"} {
		p := b.do(t, http.MethodGet, path, nil)
		csp := p.header.Get("Content-Security-Policy")
		for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "script-src 'self';", "form-action 'self'"} {
			if !strings.Contains(csp, directive) {
				t.Errorf("%s: CSP lacks %s: %q", path, directive, csp)
			}
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Cross-Origin-Opener-Policy": "same-origin"} {
			if p.header.Get(name) != want {
				t.Errorf("%s: %s = %q", path, name, p.header.Get(name))
			}
		}
		if p.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s lets others read it", path)
		}
		if strings.Contains(p.html, "<script>") || strings.Contains(p.html, "style=") {
			t.Errorf("%s has something inline", path)
		}
	}
	if csp := b.do(t, http.MethodGet, "/begin", nil).header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' https://rp.example;") {
		t.Errorf("the last redirect would be dropped: %q", csp)
	}
	post := b.do(t, http.MethodGet, "/formpost", nil)
	post.want(t, "AZ-21", http.StatusOK, `value="&#34;&gt;&lt;script&gt;x&lt;/script&gt;&amp;amp;"`, `action="https://rp.example/cb"`, "Continue")
	secure, err := web.New(web.Config{SignIns: w.Service, Keys: w.Keys, Issuer: "https://login.example", Service: "Watchword"})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	secure.SetCookie(rec, "value")
	if got := rec.Header().Get("Set-Cookie"); got != "__Host-watchword=value; Path=/; HttpOnly; Secure; SameSite=Lax" {
		t.Errorf("cookie %q", got)
	}
	rec = httptest.NewRecorder()
	secure.Routes().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/login?lang=de", nil))
	if got := rec.Header().Get("Set-Cookie"); got != "__Host-lang=de; Path=/; Max-Age=31536000; HttpOnly; Secure; SameSite=Lax" {
		t.Errorf("SS-1: language cookie %q", got)
	}
	for name, lang := range map[string]string{"__Host-lang": "de", "lang": "en"} { // one of a sibling host has no prefix
		rec = httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/login", nil)
		r.AddCookie(&http.Cookie{Name: name, Value: "de"})
		if secure.Routes().ServeHTTP(rec, r); rec.Header().Get("Content-Language") != lang {
			t.Errorf("cookie %s: the page is in %q, want %s", name, rec.Header().Get("Content-Language"), lang)
		}
	}
	rec = httptest.NewRecorder()
	secure.Routes().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/login", nil))
	if rec.Header().Get("Strict-Transport-Security") != "max-age=31536000" {
		t.Error("no HSTS on https")
	}
	if p := b.do(t, http.MethodPut, "/login", nil); p.status != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", p.status)
	}
	rec = httptest.NewRecorder()
	w.pages.Routes().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != "/account" {
		t.Errorf("the bare address: %d %q", rec.Code, rec.Header().Get("Location"))
	}
	if p := b.do(t, http.MethodPost, "/", url.Values{}); p.status != http.StatusMethodNotAllowed {
		t.Errorf("POST /: %d", p.status)
	}
	if p := b.do(t, http.MethodGet, "/ADMIN", nil); p.status != http.StatusNotFound {
		t.Errorf("HT-6: %d", p.status)
	}
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser(t)
	b.header = http.Header{"Accept-Language": {"de-CH,de;q=0.9,en;q=0.5"}}
	german := b.do(t, http.MethodGet, "/begin", nil)
	german.want(t, "Accept-Language", http.StatusOK, `<html lang="de"`, "Bei Demo anmelden")
	asked := b.do(t, http.MethodGet, "/begin?ui_locales=fr+en", nil)
	asked.want(t, "ui_locales", http.StatusOK, `<html lang="en"`, `lang="de" hreflang="de"`)
	link := regexp.MustCompile(`<a href="([^"]*lang=de[^"]*)"`).FindStringSubmatch(asked.html)[1]
	chosen := b.do(t, http.MethodGet, strings.ReplaceAll(link, "&amp;", "&"), nil)
	chosen.want(t, "chosen", http.StatusOK, `<html lang="de"`)
	if strings.Contains(chosen.url, "lang=") {
		t.Error("the choice stays in the address")
	}
	b.do(t, http.MethodGet, "/begin?ui_locales=en", nil).want(t, "the choice goes before the application's wish", http.StatusOK, `<html lang="de"`)
	p := b.password(t, b.do(t, http.MethodGet, "/begin", nil), authntest.Password)
	p.want(t, "code page", http.StatusOK, "Wir haben eine SMS", "10 Minuten")
	var locale string
	if err := w.DB.GetContext(t.Context(), &locale, "SELECT locale FROM messages"); err != nil || locale != "de" {
		t.Errorf("the text message is in %q, %v", locale, err)
	}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.DB.SetMaxOpenConns(1)
	for warm := range int64(2) {
		b := w.browser(t)
		start := w.DB.RoundTrips.Load()
		p := b.do(t, http.MethodGet, "/begin", nil)
		p = b.password(t, p, authntest.Password)
		before := w.DB.RoundTrips.Load()
		code := w.Code(t, w.challenge(t))
		peeking := w.DB.RoundTrips.Load() - before
		if got := b.submit(t, p, "/login/code", url.Values{"code": {code}}); got.status != http.StatusSeeOther {
			t.Fatal(got.status, got.html)
		}
		// authorize 1, password page 1, password 2, code page 1, code 2, finish 1; the token endpoint's 1 makes 9
		if n := w.DB.RoundTrips.Load() - start - peeking; warm == 1 && n != 8 {
			t.Errorf("%d round trips for pages and finish, want 8", n)
		}
	}
}
