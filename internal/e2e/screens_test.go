package e2e

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/watchword-auth/watchword/internal/browsertest"
)

// screens is where the README's pictures go; empty: none are taken.
var screens = flag.String("screens", "", "directory for the pictures of the README")

// TestScreens takes the README's pictures: go test ./internal/e2e -run TestScreens -args -screens ../../docs/screens
func TestScreens(t *testing.T) {
	s := running
	tab := browsertest.Open(t, browsertest.Taste{Width: 400}, s.Issuer, s.Demo, s.Inbox)
	shot := func(name string) {
		if *screens != "" {
			tab.Screenshot(filepath.Join(*screens, name))
		}
		for _, finding := range append(tab.Check(), tab.Problems()...) {
			t.Errorf("%s: %s", name, finding)
		}
	}
	tab.Go(s.Demo + "/")
	tab.Click("#sign-in")
	shot("login.png")
	tab.Type("#username", s.Username)
	tab.Type("#password", s.Password)
	tab.Click("form[action^='/login?'] button[type=submit]")
	shot("code.png")
	if _, err := s.text(t.Context(), s.Phone, 1); err != nil {
		t.Fatal(err)
	}
	who := s.person(t)
	tab = browsertest.Open(t, browsertest.Taste{Width: 400}, s.Issuer, s.Bank)
	tab.Go(s.Bank + "/")
	tab.Click("#sign-in")
	tab.Type("#username", who.Username)
	tab.Type("#password", who.Password)
	tab.Click("form[action^='/login?'] button[type=submit]")
	tab.Type("#code", s.codeTo(t, who, 1))
	tab.Click("form[action^='/login/code?'] button[type=submit]")
	tab.Click("#pay-page")
	tab.Click("form[action^='/confirm/code'] button")
	shot("confirm.png")
	tab = browsertest.Open(t, browsertest.Taste{Width: 1280}, s.Issuer, s.Demo, s.Inbox)
	tab.Go(s.Inbox + "/")
	shot("inbox.png")
}
