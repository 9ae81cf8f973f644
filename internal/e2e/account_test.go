package e2e

import (
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/browsertest"
)

// TestAccountPage walks a person through their own account: in by itself, a name for the phone, a new password, and in again with that.
func TestAccountPage(t *testing.T) {
	t.Parallel()
	for _, taste := range []browsertest.Taste{{}, {NoScript: true, Width: 320, Locale: "de", Dark: true}} {
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			s := running
			who := s.person(t)
			tab := browsertest.Open(t, taste, s.Issuer, s.Demo)
			signIn := func(password string, texts int) {
				t.Helper()
				tab.Type("#username", who.Username)
				tab.Type("#password", password)
				tab.Click("form[action^='/login?'] button[type=submit]")
				code, err := s.text(t.Context(), who.Phone, texts)
				if err != nil {
					t.Fatal(err)
				}
				tab.Type("#code", code)
				tab.Click("form[action^='/login/code?'] button[type=submit]")
			}
			tab.Go(s.Issuer + "/account")
			signIn(who.Password, 1)
			if tab.URL() != s.Issuer+"/account" {
				t.Fatalf("signing in led to %s\n%s", tab.URL(), tab.Text("body"))
			}
			if got := tab.Text("section[aria-labelledby=sessions]"); !strings.Contains(got, "Chrome") && !strings.Contains(got, "Headless") {
				t.Errorf("the session is not that of this browser:\n%s", got)
			}
			if !taste.NoScript { // the checker is a script
				for _, finding := range tab.Check() {
					t.Error(finding)
				}
			}
			tab.Click("a[href^='/account/factor']")
			tab.Type("#name", "Work")
			tab.Click("form[action='/account/rename'] button")
			if got := tab.Text("section[aria-labelledby=factors]"); !strings.Contains(got, "Work") {
				t.Errorf("after renaming:\n%s", got)
			}
			tab.Click("a[href='/account/password']")
			password := "seven brown horses " + who.Username + " boat"
			s.secret(password, "password")
			tab.Type("#password", password)
			tab.Click("form[action='/account/password'] button[type=submit]")
			if tab.URL() != s.Issuer+"/account" {
				t.Fatalf("a new password led to %s\n%s", tab.URL(), tab.Text("body"))
			}
			for _, problem := range tab.Problems() {
				t.Error(problem)
			}
		})
	}
}
