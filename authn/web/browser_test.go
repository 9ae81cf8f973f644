package web_test

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/internal/browsertest"
)

// screens is where pictures of every page state go; empty: none are taken.
var screens = flag.String("screens", "", "directory for pictures of every page state")

// visit is a person with a browser of a certain taste, somewhere in a sign-in.
type visit struct {
	*browsertest.Tab
	w    *world
	t    *testing.T
	name string
}

// people numbers the subscribers of a world, so that each state has a phone of its own.
func (v *visit) enrol(n int) {
	v.name = fmt.Sprintf("person%d", n)
	v.w.Subscriber(v.t, v.name, fmt.Sprintf("+1202555%04d", 200+n))
}

// bare enrols nobody's factor: the sign-in leads to setting one up.
func (v *visit) bare(query string) {
	v.name += "bare"
	v.w.Subscriber(v.t, v.name, "")
	v.begin(query)
	v.password(authntest.Password)
}

func (v *visit) toPhone() { v.bare(""); v.Click("a[href^='/enrol/phone']") }

func (v *visit) number(number string) {
	v.Type("#number", number)
	v.send()
}

func (v *visit) send() { v.Click("main form[action*='/enrol/'] button[type=submit]") }

// own is somebody who has signed in with an app, and may change things.
func (v *visit) own() {
	code := v.toApp().Code(v.t, 0)
	v.begin("?consent")
	v.answer(code)
}

func (v *visit) open(path string) { v.Go(v.w.server.URL + path) }

func (v *visit) begin(query string) { v.Go(v.w.server.URL + "/begin" + query) }

func (v *visit) password(password string) {
	v.Type("#username", v.name)
	v.Type("#password", password)
	v.Click("form[action^='/login?'] button[type=submit]")
}

func (v *visit) toCode(query string) {
	v.begin(query)
	v.password(authntest.Password)
}

func (v *visit) code(code string) {
	v.Type("#code", code)
	v.Click("form[action^='/login/code?'] button[type=submit]")
}

// toAccount leads to the account, through a text.
func (v *visit) toAccount() {
	v.Go(v.w.server.URL + "/account")
	v.password(authntest.Password)
	v.code(v.w.Code(v.t, v.w.challenge(v.t)))
}

// flow is the sign-in that the browser is in.
func (v *visit) flow() string {
	u, err := url.Parse(v.URL())
	if err != nil {
		v.t.Fatal(err)
	}
	return u.Query().Get("flow")
}

func (v *visit) resend() { v.Click("form[action^='/login/code/resend'] button") }

func (v *visit) again() { v.Go(v.URL()) }

func (v *visit) sql(statement string) {
	v.t.Helper()
	if _, err := v.w.DB.ExecContext(v.t.Context(), statement); err != nil {
		v.t.Fatal(err)
	}
}

// toApp leads to the question for the code of an app.
func (v *visit) toApp() *authntest.App {
	app := v.w.App(v.t, v.w.find(v.t, v.name))
	v.sql("UPDATE authenticators SET last_used_at = wall() WHERE kind = 'totp'")
	v.toCode("")
	return app
}

// toPaper leads to the question for a backup code.
func (v *visit) toPaper() []string {
	codes := v.w.Paper(v.t, v.w.find(v.t, v.name))
	v.toCode("")
	v.Click("a[href^='/login/methods']")
	v.Pick("#method-1")
	v.Click("form[action^='/login/methods'] button[type=submit]")
	return codes
}

func (v *visit) answer(code string) {
	v.Type("#code", code)
	v.Click("main form button[type=submit]")
}

// state of a page, and how a browser is led into it.
type state struct {
	name  string
	reach func(v *visit)
}

// enrolStates are those of the pages under /enrol.
func enrolStates() []state {
	return []state{
		{"enrol choice", func(v *visit) { v.bare("") }},
		{"phone first", func(v *visit) { v.toPhone() }},
		{"phone empty", func(v *visit) { v.toPhone(); v.send() }},
		{"phone landline", func(v *visit) { v.toPhone(); v.number("+49 30 123456") }},
		{"phone country", func(v *visit) { v.toPhone(); v.number("+53 5 1234567") }},
		{"phone vendor down", func(v *visit) {
			v.bare("")
			v.w.Outage.Store(true)
			v.Click("a[href^='/enrol/phone']")
			v.w.Outage.Store(false)
		}},
		{"phone code", func(v *visit) { v.toPhone(); v.number("+1202555" + fmt.Sprint(5000+len(v.name))) }},
		{"phone code wrong", func(v *visit) { v.toPhone(); v.number("+12025556001"); v.answer("000000") }},
		{"phone code used up", func(v *visit) {
			v.toPhone()
			v.number("+12025556002")
			for range 5 {
				v.answer("000000")
			}
		}},
		{"phone over", func(v *visit) { v.toPhone(); v.number("+12025556003"); v.w.DB.Advance(v.t, 11*time.Minute); v.again() }},
		{"app start", func(v *visit) { v.bare("?strong") }},
		{"app start long name", func(v *visit) { v.bare("?strong"); v.Type("#name", strings.Repeat("x", 41)); v.send() }},
		{"app setup", func(v *visit) { v.bare("?strong"); v.Type("#name", "Red phone"); v.send() }},
		{"app setup wrong", func(v *visit) { v.bare("?strong"); v.send(); v.answer("000000"); v.answer("000000") }},
		{"app setup used up", func(v *visit) {
			v.bare("?strong")
			v.send()
			for range 5 {
				v.answer("000000")
			}
		}},
		{"enrol choice of the account", func(v *visit) { v.own(); v.open("/enrol") }},
		{"phone of the account", func(v *visit) { v.own(); v.open("/enrol/phone") }},
		{"backup start", func(v *visit) { v.own(); v.open("/enrol/backup") }},
		{"backup codes", func(v *visit) { v.own(); v.open("/enrol/backup"); v.send() }},
		{"backup codes again", func(v *visit) { v.own(); v.w.Paper(v.t, v.w.find(v.t, v.name)); v.open("/enrol/backup") }},
		{"backup last used", func(v *visit) {
			codes := v.toPaper()
			v.sql("UPDATE authenticators SET codes_left = codes_left[1:1] WHERE codes_left IS NOT NULL")
			v.begin("?consent")
			v.Click("a[href^='/login/methods']")
			v.Pick("#method-1")
			v.Click("form[action^='/login/methods'] button[type=submit]")
			v.answer(codes[0])
		}},
	}
}

// states lead a browser into every state of every other page.
func states() []state {
	return []state{
		{"login first", func(v *visit) { v.begin("?login_hint=pat") }},
		{"login text outage", func(v *visit) { v.w.outage.Store(true); v.begin(""); v.w.outage.Store(false) }},
		{"login empty", func(v *visit) { v.begin(""); v.Click("form[action^='/login?'] button[type=submit]") }},
		{"login wrong pair", func(v *visit) { v.begin(""); v.password("wrong password") }},
		{"login locked", func(v *visit) {
			v.begin("")
			for range 11 {
				v.password("wrong password")
				v.w.DB.Advance(v.t, 20*time.Second)
			}
		}},
		{"code first", func(v *visit) { v.toCode("") }},
		{"code empty", func(v *visit) { v.toCode(""); v.Click("form[action^='/login/code?'] button[type=submit]") }},
		{"code wrong", func(v *visit) { v.toCode(""); v.code("000000") }},
		{"code few left", func(v *visit) { v.toCode(""); v.code("000000"); v.code("000000"); v.code("000000") }},
		{"code attempts used up", func(v *visit) {
			v.toCode("")
			for range 5 {
				v.code("000000")
			}
		}},
		{"code too early", func(v *visit) { v.toCode(""); v.resend() }},
		{"code resent", func(v *visit) { v.toCode(""); v.w.DB.Advance(v.t, 31*time.Second); v.resend() }},
		{"code slow", func(v *visit) { v.toCode(""); v.w.DB.Advance(v.t, 61*time.Second); v.again() }},
		{"code expired", func(v *visit) { v.toCode(""); v.w.DB.Advance(v.t, 11*time.Minute); v.again() }},
		{"code undeliverable", func(v *visit) {
			v.toCode("")
			v.sql("UPDATE messages SET state = 'failed', reason = 'invalid_recipient' WHERE state = 'queued'")
			v.again()
		}},
		{"code opted out", func(v *visit) {
			v.toCode("")
			v.sql("UPDATE messages SET state = 'failed', reason = 'recipient_opted_out' WHERE state = 'queued'")
			v.again()
		}},
		{"code sends used up", func(v *visit) {
			for range 6 {
				v.Forget()
				v.toCode("")
			}
		}},
		{"code not asked for", func(v *visit) { v.toCode(""); v.begin("") }},
		{"code cool-off", func(v *visit) {
			for range 2 {
				v.Forget()
				v.toCode("")
				for range 5 {
					v.code("000000")
				}
			}
			v.Forget()
			v.toCode("")
		}},
		{"methods", func(v *visit) { v.toCode(""); v.Click("a[href^='/login/methods']") }},
		{"methods of all kinds", func(v *visit) {
			v.toPaper()
			v.Forget()
			v.toApp()
			v.Click("a[href^='/login/methods']")
		}},
		{"methods text outage", func(v *visit) {
			v.w.Outage.Store(true)
			defer v.w.Outage.Store(false)
			v.toApp()
			v.Click("a[href^='/login/methods']")
		}},
		{"app first", func(v *visit) { v.toApp() }},
		{"app empty", func(v *visit) { v.toApp(); v.Click("main form button[type=submit]") }},
		{"app wrong", func(v *visit) { v.toApp(); v.answer("000000") }},
		{"app clock", func(v *visit) { v.toApp(); v.answer("000000"); v.answer("000000") }},
		{"app used", func(v *visit) {
			code := v.toApp().Code(v.t, 0)
			v.begin("?consent")
			v.answer(code)
			v.Forget()
			v.toCode("")
			v.answer(code)
		}},
		{"app attempts used up", func(v *visit) {
			v.toApp()
			for range 5 {
				v.answer("000000")
			}
		}},
		{"app expired", func(v *visit) { v.toApp(); v.w.DB.Advance(v.t, 11*time.Minute); v.again() }},
		{"app cool-off", func(v *visit) {
			v.toApp()
			for range 2 {
				for range 5 {
					v.answer("000000")
				}
				v.Forget()
				v.toCode("")
			}
		}},
		{"backup first", func(v *visit) { v.toPaper() }},
		{"backup wrong", func(v *visit) { v.toPaper(); v.answer("0000-0000-0000-0000") }},
		{"backup short", func(v *visit) { v.toPaper(); v.answer("0000") }},
		{"backup two left", func(v *visit) {
			v.toPaper()
			v.sql("UPDATE authenticators SET codes_left = codes_left[1:2] WHERE codes_left IS NOT NULL")
			v.again()
		}},
		{"backup last", func(v *visit) {
			v.toPaper()
			v.sql("UPDATE authenticators SET codes_left = codes_left[1:1] WHERE codes_left IS NOT NULL")
			v.again()
		}},
		{"help", func(v *visit) {
			v.toCode("")
			v.Click("a[href^='/login/methods']")
			v.open("/login/help?flow=" + v.flow())
		}},
		{"unmet", func(v *visit) { v.begin("?strong"); v.password(authntest.Password) }},
		{"consent", func(v *visit) { v.toCode("?consent"); v.code(v.w.Code(v.t, v.w.challenge(v.t))) }},
		{"login again", func(v *visit) { v.toCode("?consent"); v.code(v.w.Code(v.t, v.w.challenge(v.t))); v.begin("?fresh") }},
		{"sign out", func(v *visit) {
			v.toCode("?consent")
			v.code(v.w.Code(v.t, v.w.challenge(v.t)))
			v.Go(v.w.server.URL + "/logout")
		}},
		{"signed out", func(v *visit) {
			v.toCode("?consent")
			v.code(v.w.Code(v.t, v.w.challenge(v.t)))
			v.Go(v.w.server.URL + "/logout")
			v.Click("form[action='/logout/confirm'] button")
		}},
		{"code remember", func(v *visit) {
			v.w.letRemember(v.t)
			v.toCode("")
			v.w.Service.Config.Policy.Rules = nil
		}},
		{"account", func(v *visit) { v.toAccount() }},
		{"account of everything", func(v *visit) {
			v.w.App(v.t, v.w.find(v.t, v.name))
			v.w.Paper(v.t, v.w.find(v.t, v.name))
			v.w.letRemember(v.t)
			v.toCode("")
			if v.Text("h1") == "" {
				v.t.Fatal("nothing")
			}
			v.w.Service.Config.Policy.Rules = nil
			v.Forget()
			v.toAccount()
		}},
		{"account factor", func(v *visit) { v.toAccount(); v.Click("a[href^='/account/factor']") }},
		{"account factor bad name", func(v *visit) {
			v.toAccount()
			v.Click("a[href^='/account/factor']")
			v.Type("#name", strings.Repeat("x", 41))
			v.Click("form[action='/account/rename'] button")
		}},
		{"account renamed", func(v *visit) {
			v.toAccount()
			v.Click("a[href^='/account/factor']")
			v.Type("#name", "Work")
			v.Click("form[action='/account/rename'] button")
		}},
		{"account confirm", func(v *visit) { v.toAccount(); v.w.DB.Advance(v.t, 11*time.Minute); v.again() }},
		{"account password", func(v *visit) { v.toAccount(); v.Click("a[href='/account/password']") }},
		{"account password short", func(v *visit) {
			v.toAccount()
			v.Click("a[href='/account/password']")
			v.Type("#password", "short")
			v.Click("form[action='/account/password'] button[type=submit]")
		}},
		{"problem page expired", func(v *visit) { v.toCode(""); v.w.DB.Advance(v.t, 61*time.Minute); v.again() }},
		{"problem cookies", func(v *visit) { v.Go(v.w.server.URL + "/login?flow=0") }},
		{"problem not found", func(v *visit) { v.Go(v.w.server.URL + "/nothing") }},
	}
}

// verifyStates are those of the page on which codes for other programs are entered, and of the pages about their API.
func verifyStates() []state {
	at := func(reach func(v *visit, begun *begun)) func(v *visit) {
		return func(v *visit) {
			begun := v.w.shop.begin(v.t, v.w.shop.live, fmt.Sprintf("+1202557%04d", len(v.name)*100+int(v.w.shop.n.Add(1))), "")
			v.Go(begun.URL)
			reach(v, begun)
		}
	}
	test := func(number string) func(v *visit) {
		return func(v *visit) { v.Go(v.w.shop.begin(v.t, v.w.shop.test, number, "").URL) }
	}
	try := func(v *visit, code string) { v.Type("#code", code); v.Click("main form button[type=submit]") }
	return []state{
		{"verify first", at(func(*visit, *begun) {})},
		{"verify letters", func(v *visit) { v.Go(v.w.shop.begin(v.t, v.w.shop.live, "+12025576001", `,"template":"letters"`).URL) }},
		{"verify empty", at(func(v *visit, _ *begun) { try(v, "") })},
		{"verify wrong", at(func(v *visit, _ *begun) { try(v, "000000") })},
		{"verify used up", at(func(v *visit, _ *begun) {
			for range 5 {
				try(v, "000000")
			}
		})},
		{"verify too early", at(func(v *visit, _ *begun) { v.Click("form[action$='/resend'] button") })},
		{"verify resent", at(func(v *visit, _ *begun) {
			v.w.DB.Advance(v.t, 31*time.Second)
			v.Click("form[action$='/resend'] button")
		})},
		{"verify expired", at(func(v *visit, _ *begun) { v.w.DB.Advance(v.t, 11*time.Minute); v.again() })},
		{"verify undeliverable", test("+12025550101")},
		{"verify test", test("+12025550100")},
		{"verify done", at(func(v *visit, b *begun) {
			v.w.shop.check(v.t, b.ID, v.w.shop.code(v.t, b.ID))
			v.again()
		})},
		{"verify nothing", func(v *visit) { v.Go(v.w.server.URL + "/verify/nothing") }},
		{"api", func(v *visit) { v.Go(v.w.server.URL + "/docs/api") }},
		{"api problems", func(v *visit) { v.Go(v.w.server.URL + "/docs/problems/") }},
		{"api problem", func(v *visit) { v.Go(v.w.server.URL + "/docs/problems/opted_out") }},
	}
}

// TestVerifyPages shows those for other programs.
func TestVerifyPages(t *testing.T) {
	t.Parallel()
	show(t, verifyStates())
}

// TestVerifyBrowser enters a code where pages may not run a script, and goes back to the program's site under the page's own policy.
func TestVerifyBrowser(t *testing.T) {
	t.Parallel()
	for _, taste := range []browsertest.Taste{{NoScript: true}, {}} {
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			program := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/verified" && r.Referer() != "" {
					t.Errorf("the program hears of the page: %s", r.Referer())
				}
				rw.Header().Set("Content-Type", "text/plain")
			}))
			t.Cleanup(program.Close)
			settings := w.shop.settings()
			settings.ReturnURLs = []string{program.URL + "/verified?from=1"}
			if err := w.shop.gateway.Tenants.Update(t.Context(), "shop", settings); err != nil {
				t.Fatal(err)
			}
			tab := browsertest.Open(t, taste, w.server.URL, program.URL)
			b := w.shop.call(t, "POST", "/v1/verifications", w.shop.live, fmt.Sprintf(`{"to":"+12025550143","return_url":%q}`, settings.ReturnURLs[0]))
			tab.Go(b.URL)
			code := w.shop.code(t, b.ID)
			tab.Type("#code", "code: "+code[:3]+" "+code[3:])
			tab.Pick("main form button[type=submit]")
			tab.Await(program.URL + "/verified?from=1&status=approved&verification=" + b.ID)
		})
	}
}

// forgets asks for a new password.
func (v *visit) forgets(channel string) {
	v.begin("")
	v.Click("a[href^='/recover?']")
	v.Type("#username", v.name)
	v.Pick("#channel-" + channel)
	v.post("/recover")
	v.w.drain(v.t)
}

// post sends the form of a page of recovery.
func (v *visit) post(path string) {
	v.Click("main form[action='" + path + "'] button[type=submit], main form[action^='" + path + "?'] button[type=submit]")
}

// followLink opens the newest link that was mailed, and uses it.
func (v *visit) followLink() {
	v.Go(v.w.link(v.t))
	v.post("/recover/link")
}

// lost begins where a factor was lost: the password is known.
func (v *visit) lost(channel string) {
	v.w.DB.Advance(v.t, 25*time.Hour)
	v.toCode("")
	v.Click("a[href^='/login/methods']")
	v.Click("a[href^='/recover/access']")
	v.Pick("#channel-" + channel)
	v.post("/recover/access")
	v.w.drain(v.t)
}

// back is in again, by text and backup code.
func (v *visit) back() {
	codes := v.w.Paper(v.t, v.w.find(v.t, v.name))
	v.lost("text")
	v.again()
	v.answer(v.w.Code(v.t, v.w.challenge(v.t)))
	v.Pick("#way-1")
	v.post("/recover/ways")
	v.answer(codes[0])
}

// recoverStates are those of P10 to P14.
func recoverStates() []state {
	waits := func(v *visit) {
		v.w.recovery.Config.Alone = true
		v.lost("mail")
		v.followLink()
		v.post("/recover/wait")
	}
	return []state{
		{"forgot", func(v *visit) { v.begin(""); v.Click("a[href^='/recover?']") }},
		{"forgot empty", func(v *visit) { v.open("/recover"); v.post("/recover") }},
		{"forgot mail", func(v *visit) { v.forgets("mail") }},
		{"forgot mail too early", func(v *visit) { v.forgets("mail"); v.post("/recover/again") }},
		{"forgot mail resent", func(v *visit) { v.forgets("mail"); v.w.DB.Advance(v.t, 31*time.Second); v.post("/recover/again") }},
		{"forgot mail late", func(v *visit) { v.forgets("mail"); v.w.DB.Advance(v.t, 2*time.Hour); v.again() }},
		{"forgot text", func(v *visit) { v.forgets("text") }},
		{"forgot text wrong", func(v *visit) { v.forgets("text"); v.answer("000000") }},
		{"forgot text tries", func(v *visit) {
			v.forgets("text")
			for range 5 {
				v.answer("000000")
			}
		}},
		{"link", func(v *visit) { v.forgets("mail"); v.Go(v.w.link(v.t)) }},
		{"link used", func(v *visit) { v.forgets("mail"); link := v.w.link(v.t); v.followLink(); v.Go(link) }},
		{"new password", func(v *visit) { v.forgets("mail"); v.followLink() }},
		{"new password short", func(v *visit) {
			v.forgets("mail")
			v.followLink()
			v.Type("#password", "short")
			v.post("/recover/password")
		}},
		{"password set", func(v *visit) {
			v.forgets("mail")
			v.followLink()
			v.Type("#password", another)
			v.post("/recover/password")
		}},
		{"access", func(v *visit) {
			v.toCode("")
			v.Click("a[href^='/login/methods']")
			v.Click("a[href^='/recover/access']")
		}},
		{"access nobody known", func(v *visit) { v.open("/recover/access") }},
		{"access ways", func(v *visit) { v.lost("mail"); v.followLink() }},
		{"access none", func(v *visit) {
			v.lost("mail")
			v.sql("UPDATE authenticators SET bound_at = wall() - interval '1 hour' WHERE unbound_at IS NULL")
			v.followLink()
			v.sql("UPDATE authenticators SET bound_at = wall() - interval '48 hours' WHERE unbound_at IS NULL")
		}},
		{"access backup code", func(v *visit) {
			v.w.Paper(v.t, v.w.find(v.t, v.name))
			v.lost("text")
			v.again()
			v.answer(v.w.Code(v.t, v.w.challenge(v.t)))
			v.Pick("#way-1")
			v.post("/recover/ways")
		}},
		{"waiting", waits},
		{"waiting ready", func(v *visit) { waits(v); v.w.DB.Advance(v.t, 25*time.Hour); v.again() }},
		{"waiting canceled", func(v *visit) { waits(v); v.post("/recover/cancel") }},
		{"repair", func(v *visit) { v.back() }},
		{"repair password", func(v *visit) { v.back(); v.Click("a[href='/recover/password']") }},
		{"repair app", func(v *visit) { v.back(); v.Click("a[href='/enrol/app']") }},
		{"repaired", func(v *visit) { v.back(); v.post("/recover/repair") }},
		{"stop", func(v *visit) { v.open("/recover/stop") }},
	}
}

// TestRecoverPages shows those on which people get back in.
func TestRecoverPages(t *testing.T) {
	t.Parallel()
	show(t, recoverStates())
}

// TestRecoverWithoutScript walks through both recoveries where pages may not run a script.
func TestRecoverWithoutScript(t *testing.T) { // P10 to P14
	t.Parallel()
	w := newWorld(t)
	v := &visit{Tab: browsertest.Open(t, browsertest.Taste{NoScript: true}, w.server.URL, "https://rp.example"), w: w, t: t}
	v.enrol(0)
	v.forgets("mail")
	v.followLink()
	if got := v.URL(); strings.Contains(got, "token") {
		t.Errorf("RC-9: at %s", got)
	}
	v.Type("#password", "short")
	v.post("/recover/password")
	if got := v.Text("#password-fault"); !strings.Contains(got, "too short") {
		t.Errorf("fault %q", got)
	}
	v.Type("#password", another)
	v.post("/recover/password")
	if got := v.Text("h1"); got != "Your password was set" {
		t.Fatalf("after the password: %q", got)
	}
	v.begin("")
	v.password(another)
	if got := v.Text("h1"); got != "Check your phone" {
		t.Errorf("RC-5: after signing in with it: %q", got)
	}

	v.Forget()
	v.enrol(1)
	v.back()
	if got := v.Text("h1"); got != "Repair your account" {
		t.Fatalf("after two proofs: %q", got)
	}
	v.Click("a[href='/enrol/app']")
	v.send()
	v.answer(w.codeOf(t, v.Text("#secret")))
	if got := v.Text("h1"); got != "Your account is repaired" {
		t.Fatalf("after the app's code: %q", got)
	}
	w.wantKinds(t, "in the end", v.name, "backup_code", "sms01", "totp")
	v.begin("")
	v.password(authntest.Password)
	if got := v.Text("h1"); got != "Check your authenticator app" {
		t.Errorf("signing in afterwards: %q", got)
	}
}

// TestPages shows every state of every page to people of different tastes, and to a machine that checks pages.
func TestPages(t *testing.T) {
	t.Parallel()
	show(t, states())
}

// TestEnrolPages shows those on which factors are set up.
func TestEnrolPages(t *testing.T) {
	t.Parallel()
	show(t, enrolStates())
}

func show(t *testing.T, all []state) {
	tastes := []browsertest.Taste{
		{Locale: "en", Width: 1280}, {Locale: "de", Width: 320, Dark: true}, {Locale: "en", Width: 320, ForcedColors: true},
	}
	for _, taste := range tastes {
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tab := browsertest.Open(t, taste, w.server.URL)
			shown := ""
			for n, state := range all {
				page, _, _ := strings.Cut(state.name, " ")
				if (taste.ForcedColors || taste.Width > 320 && *screens == "") && page == shown {
					continue // the states of a page have their colors in common, and what fits into a small window fits into a large one
				}
				shown = page
				tab.Forget()
				v := &visit{Tab: tab, w: w, t: t}
				v.enrol(n)
				state.reach(v)
				for _, finding := range append(v.Check(), v.Problems()...) {
					t.Errorf("%s: %s", state.name, finding)
				}
				if *screens != "" {
					look := "light"
					if taste.Dark {
						look = "dark"
					}
					name := fmt.Sprintf("%s-%s-%s-%d.png", strings.ReplaceAll(state.name, " ", "-"), taste.Locale, look, taste.Width)
					if err := os.MkdirAll(*screens, 0o755); err != nil { //nolint:gosec // pictures for everybody
						t.Fatal(err)
					}
					if !taste.ForcedColors {
						v.Screenshot(filepath.Join(*screens, name))
					}
				}
			}
		})
	}
}

// TestWithoutScript walks where pages may not run a script of their own.
func TestWithoutScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := &visit{Tab: browsertest.Open(t, browsertest.Taste{NoScript: true}, w.server.URL, "https://rp.example"), w: w, t: t}
	v.enrol(0)
	v.begin("?consent")
	v.password("wrong password")
	if got := v.Text(".summary"); !strings.Contains(got, "The user name, email address or password is not right") {
		t.Errorf("summary %q", got)
	}
	v.password(authntest.Password)
	v.code("12345")
	if got := v.Text("#code-fault"); got != "Enter all 6 digits of the code" {
		t.Errorf("fault %q", got)
	}
	v.code(v.w.Code(t, v.w.challenge(t)))
	if got := v.Text("h1"); got != "Allow access" {
		t.Errorf("after the code: %q", got)
	}
}

// TestAnswersWithoutScript signs in with an app and with a backup code where pages may not run a script.
func TestAnswersWithoutScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := &visit{Tab: browsertest.Open(t, browsertest.Taste{NoScript: true}, w.server.URL, "https://rp.example"), w: w, t: t}
	v.enrol(0)
	app := v.toApp()
	v.answer("12345")
	if got := v.Text("#code-fault"); got != "Enter all 6 digits of the code" {
		t.Errorf("fault %q", got)
	}
	v.begin("?consent")
	v.answer(app.Code(t, 0))
	if got := v.Text("h1"); got != "Allow access" {
		t.Errorf("after the app's code: %q", got)
	}
	v.Forget()
	v.enrol(1)
	codes := v.toPaper()
	v.begin("?consent")
	v.Click("a[href^='/login/methods']")
	v.Pick("#method-1")
	v.Click("form[action^='/login/methods'] button[type=submit]")
	v.answer(codes[0])
	if got := v.Text("h1"); got != "Allow access" {
		t.Errorf("after the backup code: %q", got)
	}
}

// TestEnrolWithoutScript sets up an app, a phone and backup codes where pages may not run a script.
func TestEnrolWithoutScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := &visit{Tab: browsertest.Open(t, browsertest.Taste{NoScript: true}, w.server.URL, "https://rp.example"), w: w, t: t, name: "pat"}
	v.bare("?consent")
	v.Click("a[href^='/enrol/app']")
	v.Type("#name", "Red phone")
	v.send()
	if !strings.Contains(v.Text("main"), "It will be called Red phone.") {
		t.Errorf("P8 says %q", v.Text("main"))
	}
	v.answer("000000")
	if got := v.Text("#code-fault"); !strings.Contains(got, "Enter the one that your app shows now") {
		t.Errorf("fault %q", got)
	}
	v.answer(w.codeOf(t, v.Text("#secret")))
	if got := v.Text("h1"); got != "Allow access" {
		t.Fatalf("after the app's code: %q", got)
	}
	v.open("/enrol/phone")
	v.number("030 123456")
	if got := v.Text("#number-fault"); !strings.Contains(got, "in full, like") && !strings.Contains(got, "landline") {
		t.Errorf("fault %q", got)
	}
	v.number("+12025550177")
	v.answer(w.Code(t, w.challenge(t)))
	if !strings.HasSuffix(v.URL(), "/account") {
		t.Errorf("after the phone's code: %s", v.URL())
	}
	v.open("/enrol/backup")
	v.send()
	codes := v.Text("#codes")
	if strings.Count(codes, "-") != 30 {
		t.Errorf("codes %q", codes)
	}
	var file string
	v.Evaluate(`fetch(document.querySelector("a[download]").href).then(r => r.headers.get("content-disposition") + r.url)`, &file)
	if !strings.HasPrefix(file, "attachment") {
		t.Errorf("the file: %q", file)
	}
	v.send()
	if !strings.HasSuffix(v.URL(), "/account") {
		t.Errorf("after the codes were saved: %s", v.URL())
	}
	w.wantKinds(t, "in the end", "patbare", "backup_code", "sms77", "totp")
}

// TestScriptComforts checks what the script adds: the error summary has the focus, the password can be shown, a code from a text message is filled in and never
// sent by itself.
func TestScriptComforts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := &visit{Tab: browsertest.Open(t, browsertest.Taste{}, w.server.URL), w: w, t: t}
	v.enrol(0)
	v.Before(`window.OTPCredential = class {}; CredentialsContainer.prototype.get = async () => ({ code: "424242" });`)
	v.begin("")
	v.password("wrong password")
	var focused string
	v.Evaluate(`document.activeElement.id`, &focused)
	if focused != "summary" {
		t.Errorf("the focus is on %q, want the error summary", focused)
	}
	var kind string
	v.Evaluate(`document.querySelector(".reveal").click(), document.getElementById("password").type`, &kind)
	if kind != "text" {
		t.Errorf("the password field is %q after Show", kind)
	}
	v.password(authntest.Password)
	var filled string
	v.Evaluate(`new Promise(done => { const look = () => document.getElementById("code").value ? done(document.getElementById("code").value) : setTimeout(look, 10); look(); })`, &filled)
	if filled != "424242" {
		t.Errorf("the field holds %q, want the code of the text message", filled)
	}
	if !strings.Contains(v.URL(), "/login/code?") {
		t.Errorf("the code was sent by itself: %s", v.URL())
	}
}
