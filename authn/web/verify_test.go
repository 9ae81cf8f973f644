package web_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/sms"
)

// back is where the shop has people go on.
const back = "https://rp.example/verified?from=1"

// shop is a tenant whose programs have codes entered here.
type shop struct {
	w          *world
	gateway    *gateway.Gateway
	live, test string
	n          atomic.Int64
}

// begun is what a program gets.
type begun struct{ ID, URL, Status, Code string }

// ways has one for every text.
type ways struct{}

func (ways) Plan(sms.Number, string) ([]sms.Route, string, []sms.Considered) {
	return []sms.Route{{Vendor: "carrier", Channel: sms.SMS}}, "", nil
}
func (ways) Up(string) bool { return true }

func newShop(t *testing.T, w *world) *shop {
	t.Helper()
	texts, err := sms.NewTexts("Watchword", "login.example")
	if err != nil {
		t.Fatal(err)
	}
	limits := factors.DefaultLimits()
	g, err := gateway.New(gateway.Config{DB: w.DB.DB, Keys: w.Keys, Outbox: &sms.Outbox{Keys: w.Keys}, Texts: texts, Ways: ways{}, Limits: limits, Life: 10 * time.Minute,
		DailyBudget: 1000, Rate: 1000, Docs: w.server.URL, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{w: w, gateway: g}
	err = g.Tenants.Create(t.Context(), "shop", s.settings())
	if err == nil {
		_, s.live, err = g.Tenants.CreateKey(t.Context(), "shop", gateway.NewKey{})
	}
	if err == nil {
		_, s.test, err = g.Tenants.CreateKey(t.Context(), "shop", gateway.NewKey{Test: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (*shop) settings() gateway.Settings {
	return gateway.Settings{Service: "Corner Shop", Hosted: true, ReturnURLs: []string{back}, Templates: map[string]gateway.Template{"letters": {Length: 8, Alphabet: gateway.Alphanumeric}}}
}

func (s *shop) call(t testing.TB, method, path, key, body string) *begun {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("X-API-Key", key)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	s.gateway.Routes().ServeHTTP(rec, r)
	b := new(begun)
	if err := json.Unmarshal(rec.Body.Bytes(), b); err != nil || b.Code != "" {
		t.Fatalf("%d %s %v", rec.Code, rec.Body, err)
	}
	return b
}

// begin makes a verification with a page.
func (s *shop) begin(t testing.TB, key, number, more string) *begun {
	t.Helper()
	b := s.call(t, "POST", "/v1/verifications", key, fmt.Sprintf(`{"to":%q,"return_url":%q%s}`, number, back, more))
	if !strings.HasPrefix(b.URL, s.w.server.URL+gateway.HostedPath) {
		t.Fatalf("no page: %+v", b)
	}
	return b
}

func (s *shop) check(t testing.TB, id, code string) *begun {
	t.Helper()
	return s.call(t, "POST", "/v1/verifications/"+id+"/check", s.live, fmt.Sprintf(`{"code":%q}`, code))
}

func (s *shop) status(t testing.TB, b *begun) string {
	t.Helper()
	key := s.live
	return s.call(t, "GET", "/v1/verifications/"+b.ID, key, "").Status
}

var codeInText = regexp.MustCompile(`"code":"([0-9A-Z]+)"`)

// code is that of the newest text.
func (s *shop) code(t testing.TB, id string) string {
	t.Helper()
	challenge := uuid.MustParse(strings.TrimPrefix(id, "vrf_"))
	var body []byte
	if err := s.w.DB.GetContext(t.Context(), &body, `SELECT body FROM messages WHERE challenge_id = $1 AND body IS NOT NULL ORDER BY created_at DESC LIMIT 1`, challenge); err != nil {
		t.Fatal(err)
	}
	text, err := s.w.Keys.Open(body, "message of challenge "+challenge.String())
	if err != nil {
		t.Fatal(err)
	}
	return codeInText.FindStringSubmatch(string(text))[1]
}

// at is a browser on the page of a new verification, without a cookie.
func (s *shop) at(t *testing.T, more string) (*browser, *page, *begun) {
	t.Helper()
	b := s.begin(t, s.live, fmt.Sprintf("+1202558%04d", s.n.Add(1)), more)
	browser := s.w.browser(t)
	return browser, browser.do(t, http.MethodGet, b.URL, nil), b
}

// try posts the page's form.
func try(t *testing.T, b *browser, p *page, code string) *page {
	t.Helper()
	u, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	return b.submit(t, p, strings.TrimSuffix(u.Path, "/resend"), url.Values{"code": {code}})
}

func again(t *testing.T, b *browser, p *page) *page {
	t.Helper()
	u, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	return b.submit(t, p, strings.TrimSuffix(u.Path, "/resend")+"/resend", nil)
}

func TestVerify(t *testing.T) { // GW-1, HT-7
	t.Parallel()
	w := newWorld(t)
	b, p, made := w.shop.at(t, "")
	p.want(t, "first", http.StatusOK, "Corner Shop", "Back to Corner Shop", "number ending <strong><bdi>01</bdi></strong>", "10 minutes", `autocomplete="one-time-code"`, `inputmode="numeric"`, "6 digits, from")
	if strings.Contains(p.html, "Watchword") {
		t.Error("the page is not in the tenant's name alone")
	}
	if h := p.header; h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("X-Frame-Options") != "DENY" ||
		!strings.Contains(h.Get("Content-Security-Policy"), "form-action 'self' https://rp.example; frame-ancestors 'none'") || len(h.Values("Set-Cookie")) > 0 {
		t.Errorf("headers: %v", h)
	}
	for typed, said := range map[string]string{"": "Enter the security code", "12345": "Enter all 6 characters", "1234567": "The code has 6 characters", "hello": "The code has digits only"} {
		try(t, b, p, typed).want(t, typed, http.StatusUnprocessableEntity, said, `aria-invalid="true"`)
	}
	wrong := try(t, b, p, "000000")
	wrong.want(t, "wrong", http.StatusUnprocessableEntity, "The code is not right. Check it, or send a new code")
	again(t, b, wrong).want(t, "too early", http.StatusTooManyRequests, "You can ask for a new code in")
	first := w.shop.code(t, made.ID)
	w.DB.Advance(t, 31*time.Second)
	resent := again(t, b, p)
	resent.want(t, "resent", http.StatusOK, "We sent another code at")
	if strings.HasSuffix(resent.url, "/resend") || w.shop.code(t, made.ID) == first {
		t.Errorf("%s", resent.url)
	}
	try(t, b, p, "000000")
	try(t, b, p, "000000").want(t, "few left", http.StatusUnprocessableEntity, "You can try 2 more times")
	for range 2 { // a double press, and Back, end in the same place
		done := try(t, b, p, "code: "+first[:3]+"-"+first[3:]) // the earlier one still works
		if done.status != http.StatusSeeOther || done.location != back+"&status=approved&verification="+made.ID {
			t.Fatalf("%d %s\n%s", done.status, done.location, done.html)
		}
	}
	if got := w.shop.status(t, made); got != "approved" {
		t.Errorf("the program hears %s", got)
	}
	b.do(t, http.MethodGet, made.URL, nil).want(t, "afterwards", http.StatusOK, "Your code is right", "Go back to Corner Shop to continue")
	b.do(t, http.MethodGet, made.URL+"/state", nil).want(t, "state", http.StatusOK, `{"due":false,"notice":false,"problem":false}`)
	if on := b.do(t, http.MethodGet, made.URL+"/resend", nil); on.location != back+"&status=approved&verification="+made.ID {
		t.Errorf("reloaded: %d %s", on.status, on.location)
	}

	b, p, made = w.shop.at(t, `,"template":"letters","locale":"de"`)
	p.want(t, "letters", http.StatusOK, "8 Buchstaben und Ziffern", `inputmode="text"`, "Zurück zu Corner Shop", `lang="de"`)
	try(t, b, p, "A*").want(t, "letters", http.StatusUnprocessableEntity, "Der Code hat nur Buchstaben und Ziffern")
	code := strings.ToLower(w.shop.code(t, made.ID))
	if done := try(t, b, p, code[:4]+" - "+code[4:]); done.status != http.StatusSeeOther {
		t.Errorf("letters: %d\n%s", done.status, done.html)
	}
}

// A verification that ended otherwise says so, and leads back.
func TestVerifyEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, p, made := w.shop.at(t, "")
	var last *page
	for range 5 {
		last = try(t, b, p, "000000")
	}
	last.want(t, "attempts used up", http.StatusUnprocessableEntity, "Go back to Corner Shop and start again", "status=failed&amp;verification="+made.ID)
	if strings.Contains(last.html, `name="code"`) {
		t.Error("it still asks for the code")
	}
	try(t, b, p, "123456").want(t, "the right one, too late", http.StatusGone, "You entered a wrong code too many times")

	b, p, made = w.shop.at(t, "")
	w.shop.call(t, "POST", "/v1/verifications/"+made.ID+"/cancel", w.shop.live, "{}")
	try(t, b, p, "000000").want(t, "canceled", http.StatusGone, "This code does not count any more")
	again(t, b, p).want(t, "canceled", http.StatusOK, "This code does not count any more", "status=canceled")

	b, p, _ = w.shop.at(t, "")
	w.DB.Advance(t, 11*time.Minute)
	try(t, b, p, "000000").want(t, "expired", http.StatusGone, "This code has expired. Go back to Corner Shop", "status=expired")
	w.DB.Advance(t, 25*time.Hour)
	b.do(t, http.MethodGet, p.url, nil).want(t, "long ago", http.StatusNotFound, "There is no page here")

	for range 2 { // wrong codes in a row, over several verifications of a number
		p = b.do(t, http.MethodGet, w.shop.begin(t, w.shop.live, "+12025589000", "").URL, nil)
		for range 5 {
			try(t, b, p, "000000")
		}
		w.DB.Advance(t, 31*time.Second)
	}
	made = w.shop.begin(t, w.shop.live, "+12025589000", "")
	blocked := b.do(t, http.MethodGet, made.URL, nil)
	blocked.want(t, "blocked", http.StatusOK, "You entered a wrong code too many times. Try again at")
	if blocked.header.Get("Retry-After") == "" || strings.Contains(blocked.html, `name="code"`) {
		t.Error("blocked, and still asked")
	}
	b.do(t, http.MethodPost, made.URL, url.Values{"code": {w.shop.code(t, made.ID)}}).want(t, "blocked", http.StatusTooManyRequests, "Try again at")
}

func TestVerifyTestMode(t *testing.T) { // GW-9
	t.Parallel()
	w := newWorld(t)
	b := w.browser(t)
	made := w.shop.begin(t, w.shop.test, "+12025550100", "")
	p := b.do(t, http.MethodGet, made.URL, nil)
	p.want(t, "test", http.StatusOK, "This is a test: nothing was sent. The code is 123456.")
	if done := try(t, b, p, "123456"); done.location != back+"&status=approved&verification="+made.ID {
		t.Errorf("%d %s\n%s", done.status, done.location, done.html)
	}
	b.do(t, http.MethodGet, w.shop.begin(t, w.shop.test, "+12025550101", "").URL, nil).want(t, "undelivered", http.StatusOK, "The text message could not be delivered. Go back to Corner Shop")
	if w.Texts(t) != 0 {
		t.Error("something was sent")
	}
}

// Nobody gets to a page, a verification or another site by an address that was made up, changed, or handed in from elsewhere.
func TestVerifyAttacks(t *testing.T) { // GW-3, GW-7, PW-12, SS-11
	t.Parallel()
	w := newWorld(t)
	b, p, made := w.shop.at(t, "")
	token := strings.TrimPrefix(made.URL, w.server.URL+gateway.HostedPath)
	other := w.shop.begin(t, w.shop.live, "+12025550144", "")
	otherToken := strings.TrimPrefix(other.URL, w.server.URL+gateway.HostedPath)
	for name, forged := range map[string]string{
		"nothing": "x", "an id": made.ID, "another's proof": token[:21] + otherToken[21:], "cut": token[:22], "padded": token + "=", "last letter": token[:len(token)-2] + "AA", "long": strings.Repeat("A", 5000),
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			var form url.Values
			if method == http.MethodPost {
				form = url.Values{"code": {w.shop.code(t, made.ID)}}
			}
			if got := b.do(t, method, gateway.HostedPath+url.PathEscape(forged), form); got.status != http.StatusNotFound {
				t.Errorf("%s: %s %d", name, method, got.status)
			}
		}
	}
	code := url.Values{"code": {w.shop.code(t, made.ID)}}
	for name, header := range map[string]http.Header{
		"another site": {"Origin": {"https://evil.example"}}, "a sibling": {"Sec-Fetch-Site": {"same-site"}}, "JSON": {"Content-Type": {"application/json"}}, "text": {"Content-Type": {"text/plain"}},
	} {
		b.header = header
		for _, path := range []string{"", "/resend"} {
			if got := b.do(t, http.MethodPost, made.URL+path, code); got.status != http.StatusForbidden && got.status != http.StatusUnsupportedMediaType {
				t.Errorf("%s: %d", name, got.status)
			}
		}
	}
	b.header = http.Header{}
	if got := b.do(t, http.MethodPost, made.URL, url.Values{"code": {"1", code.Get("code")}}); got.status != http.StatusBadRequest {
		t.Errorf("two codes: %d", got.status)
	}
	for _, link := range []string{"?return_url=https://evil.example", "?lang=//evil.example"} {
		if got := b.do(t, http.MethodGet, made.URL+link, nil); strings.Contains(got.html, "evil") || !strings.HasPrefix(got.url, made.URL) || got.status != http.StatusOK {
			t.Errorf("%s: %d %s", link, got.status, got.url)
		}
	}
	if got := w.browser(t).do(t, http.MethodGet, made.URL+"?lang=de", nil); !strings.Contains(got.html, `lang="de"`) || got.url != made.URL {
		t.Errorf("language: %s", got.url)
	}

	// An address that the tenant no longer allows is not led back to, and a tenant without pages has none.
	settings := w.shop.settings()
	settings.ReturnURLs = []string{"https://elsewhere.example/"}
	update := func(s gateway.Settings) {
		t.Helper()
		if err := w.shop.gateway.Tenants.Update(t.Context(), "shop", s); err != nil {
			t.Fatal(err)
		}
	}
	update(settings)
	if got := try(t, b, p, code.Get("code")); got.status != http.StatusOK || !strings.Contains(got.html, "Your code is right") || strings.Contains(got.html, "rp.example") || strings.Contains(got.header.Get("Content-Security-Policy"), "rp.example") {
		t.Errorf("no longer allowed: %d %s\n%s", got.status, got.location, got.html)
	}
	settings = w.shop.settings()
	settings.Hosted = false
	update(settings)
	for _, target := range []string{other.URL, made.URL} {
		b.do(t, http.MethodGet, target, nil).want(t, "no pages", http.StatusNotFound)
		b.do(t, http.MethodPost, target, url.Values{"code": {"123456"}}).want(t, "no pages", http.StatusNotFound)
	}
	update(w.shop.settings())
	b.do(t, http.MethodGet, other.URL, nil).want(t, "pages again", http.StatusOK)
	if err := w.shop.gateway.Tenants.SetDisabled(t.Context(), "shop", true); err != nil {
		t.Fatal(err)
	}
	b.do(t, http.MethodPost, other.URL, url.Values{"code": {w.shop.code(t, other.ID)}}).want(t, "a disabled tenant", http.StatusNotFound)
	if strings.Contains(w.logs.String(), token) {
		t.Error("the address is in the log")
	}
}
