package e2e

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/watchword-auth/watchword/internal/browsertest"
)

// TestBrowser walks the whole round trip in a real browser, to the demo application on another origin and back, under the real Content Security
// Policy, with and without script, and signs out again.
func TestBrowser(t *testing.T) {
	t.Parallel()
	for _, taste := range []browsertest.Taste{{}, {NoScript: true, Width: 320, Locale: "de", Dark: true}} {
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			s := running
			who := s.person(t)
			tab := browsertest.Open(t, taste, s.Issuer, s.Demo)
			tab.Go(s.Demo + "/")
			tab.Click("#sign-in")
			if !strings.HasPrefix(tab.URL(), s.Issuer+"/login?") {
				t.Fatalf("the application led to %s", tab.URL())
			}
			tab.Type("#username", who.Username)
			tab.Type("#password", who.Password)
			tab.Click("form[action^='/login?'] button[type=submit]")
			code, err := s.text(t.Context(), who.Phone, 1)
			if err != nil {
				t.Fatal(err)
			}
			tab.Type("#code", code[:3]+" "+code[3:])
			tab.Click("form[action^='/login/code?'] button[type=submit]")
			if !strings.HasPrefix(tab.URL(), s.Demo) {
				t.Fatalf("after the code: %s\n%s", tab.URL(), tab.Text("body"))
			}
			shown := tab.Text("body")
			for _, want := range []string{"urn:watchword:acr:2", "pwd", "sms", "mfa", "Pat Example"} {
				if !strings.Contains(shown, want) {
					t.Errorf("the application does not show %q:\n%s", want, shown)
				}
			}
			tab.Click("#sign-in-silently") // single sign-on: no page on the way
			if got := tab.Text("body"); !strings.Contains(got, "urn:watchword:acr:2") {
				t.Errorf("asked again without a page, the application shows:\n%s", got)
			}
			tab.Click("#sign-out")
			if !strings.HasPrefix(tab.URL(), s.Demo) {
				t.Fatalf("signing out led to %s", tab.URL())
			}
			tab.Click("#sign-in-silently")
			if got := tab.Text("body"); !strings.Contains(got, "login_required") {
				t.Errorf("after signing out, asked without a page, the application shows:\n%s", got)
			}
			for _, problem := range tab.Problems() {
				t.Error(problem)
			}
		})
	}
}

// TestFirstSignIn has somebody without a second factor sign in to the demo application: with script by a phone, without by an authenticator app.
func TestFirstSignIn(t *testing.T) {
	t.Parallel()
	for _, taste := range []browsertest.Taste{{}, {NoScript: true, Width: 320, Locale: "de", Dark: true}} {
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			s := running
			who := s.newcomer(t)
			tab := browsertest.Open(t, taste, s.Issuer, s.Demo)
			tab.Go(s.Demo + "/")
			tab.Click("#sign-in")
			tab.Type("#username", who.Username)
			tab.Type("#password", who.Password)
			tab.Click("form[action^='/login?'] button[type=submit]")
			if !strings.HasPrefix(tab.URL(), s.Issuer+"/enrol?") {
				t.Fatalf("after the password: %s", tab.URL())
			}
			want := []string{"urn:watchword:acr:2", "pwd", "sms", "mfa", "Pat Example"}
			if taste.NoScript {
				want = []string{"urn:watchword:acr:3", "pwd", "otp", "mfa", "Pat Example"}
				tab.Click("a[href^='/enrol/app']")
				tab.Click("main form[action^='/enrol/app'] button[type=submit]")
				secret := s.secret(strings.ReplaceAll(tab.Text("#secret"), " ", ""), "an app's secret")
				code, err := totp.GenerateCode(secret, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				tab.Type("#code", s.secret(code, "code"))
				tab.Click("form[action^='/enrol/app/confirm'] button[type=submit]")
			} else {
				tab.Click("a[href^='/enrol/phone']")
				tab.Type("#number", who.Phone)
				tab.Click("form[action^='/enrol/phone'] button[type=submit]")
				code, err := s.text(t.Context(), who.Phone, 1)
				if err != nil {
					t.Fatal(err)
				}
				tab.Type("#code", code)
				tab.Click("form[action^='/enrol/phone/code?'] button[type=submit]")
			}
			if !strings.HasPrefix(tab.URL(), s.Demo) {
				t.Fatalf("after the code: %s\n%s", tab.URL(), tab.Text("body"))
			}
			shown := tab.Text("body")
			for _, text := range want {
				if !strings.Contains(shown, text) {
					t.Errorf("the application does not show %q:\n%s", text, shown)
				}
			}
			for _, problem := range tab.Problems() {
				t.Error(problem)
			}
		})
	}
}

// TestFormPost has the answer posted to the application: with script the form sends itself, without it there is a button.
func TestFormPost(t *testing.T) {
	t.Parallel()
	for _, taste := range []browsertest.Taste{{}, {NoScript: true}} {
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			s := running
			who := s.person(t)
			tab := browsertest.Open(t, taste, s.Issuer, s.Demo)
			tab.Go(s.Issuer + "/authorize?" + url.Values{"client_id": {s.ClientID}, "redirect_uri": {s.RedirectURI}, "response_type": {"code"}, "response_mode": {"form_post"},
				"scope": {"openid"}, "state": {`"><b>`}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}}.Encode())
			tab.Type("#username", who.Username)
			tab.Type("#password", who.Password)
			tab.Click("form[action^='/login?'] button[type=submit]")
			code, err := s.text(t.Context(), who.Phone, 1)
			if err != nil {
				t.Fatal(err)
			}
			tab.Type("#code", code)
			tab.Click("form[action^='/login/code?'] button[type=submit]")
			if taste.NoScript {
				for _, finding := range tab.Problems() {
					t.Error(finding)
				}
				tab.Click("#answer button")
			}
			tab.Await(s.RedirectURI)
			for _, problem := range tab.Problems() {
				if !strings.Contains(problem, "Refused") && !strings.Contains(problem, "violates") {
					continue // the demo application takes answers in the query alone; what counts is that the browser was let through
				}
				t.Error(problem)
			}
		})
	}
}
