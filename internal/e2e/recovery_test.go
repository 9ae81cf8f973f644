package e2e

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/browsertest"
)

var mailedLink = regexp.MustCompile(`(?m)^https?://\S+/recover/link\?\S+$`)

// code waits for the n-th code on a phone, counted from the first: notices arrive there as well.
func (s *system) code(ctx context.Context, phone string, n int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		var texts []struct{ Text string }
		if err := getJSON(ctx, s.Inbox+"/messages?to="+url.QueryEscape(phone), &texts); err != nil {
			return "", err
		}
		var codes []string
		for _, m := range texts {
			if found := lastLine.FindStringSubmatch(m.Text); found != nil {
				codes = append(codes, found[1])
			}
		}
		if len(codes) >= n {
			return s.secret(codes[len(codes)-n], "code"), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%d codes arrived in %d texts, want %d", len(codes), len(texts), n)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// link waits for the n-th link that was mailed to somebody, counted from the first.
func (s *system) link(ctx context.Context, address string, n int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		var mails []struct{ Text string }
		if err := getJSON(ctx, s.Inbox+"/mails?to="+url.QueryEscape(address), &mails); err != nil {
			return "", err
		}
		var links []string
		for _, m := range mails {
			if found := mailedLink.FindString(m.Text); found != "" {
				links = append(links, found)
			}
		}
		if len(links) >= n {
			return links[len(links)-n], nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%d links arrived in %d mails, want %d", len(links), len(mails), n)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestRecovery walks a person through both recoveries in a server that runs: a forgotten password by a link, and a lost app by a text and a link.
func TestRecovery(t *testing.T) { // RC-5, RC-9, RC-11
	t.Parallel()
	for _, taste := range []browsertest.Taste{{}, {NoScript: true, Width: 320, Locale: "de", Dark: true}} {
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			s := running
			n := s.people.Add(1)
			who := person{Username: fmt.Sprintf("forgetful%d", n), Password: fmt.Sprintf("quiet harbour number %d", n), Phone: fmt.Sprintf("+1202555%04d", 200+n)}
			address := who.Username + "@mail.example"
			s.command(t, who.Password, "user", "create", who.Username, "--email", address, "--email-verified", "--phone", who.Phone, "--password-file", "-")
			tab := browsertest.Open(t, taste, s.Issuer)
			at := func(path string) {
				t.Helper()
				if u, err := url.Parse(tab.URL()); err != nil || u.Path != path {
					t.Fatalf("at %s, want %s\n%s", tab.URL(), path, tab.Text("body"))
				}
				if !taste.NoScript { // the checker is a script
					for _, finding := range tab.Check() {
						t.Errorf("%s: %s", path, finding)
					}
				}
			}
			post := func(path string) { tab.Click("main form[action^='" + path + "'] button[type=submit]") }
			follow := func(n int) {
				t.Helper()
				link, err := s.link(t.Context(), address, n)
				if err != nil {
					t.Fatal(err)
				}
				tab.Go(link)
				at("/recover/link")
				post("/recover/link")
			}

			tab.Go(s.Issuer + "/account")
			tab.Click("a[href^='/recover?']")
			tab.Type("#username", who.Username)
			tab.Pick("#channel-mail")
			post("/recover")
			at("/recover/check")
			follow(1)
			at("/recover/password")
			who.Password = fmt.Sprintf("seven brown horses in boat %d", n)
			s.secret(who.Password, "password")
			tab.Type("#password", who.Password)
			post("/recover/password")
			at("/recover/done")

			tab.Go(s.Issuer + "/account")
			tab.Type("#username", who.Username)
			tab.Type("#password", who.Password)
			post("/login?")
			at("/login/code") // RC-5
			tab.Click("a[href^='/login/methods']")
			tab.Click("a[href^='/recover/access']")
			tab.Pick("#channel-mail")
			post("/recover/access")
			follow(2)
			at("/recover/ways") // RC-11
			post("/recover/ways")
			at("/recover/check")
			code, err := s.code(t.Context(), who.Phone, 2) // the first was of the sign-in
			if err != nil {
				t.Fatal(err)
			}
			tab.Type("#code", code)
			post("/recover/check")
			at("/recover/repair")
			post("/recover/repair")
			at("/recover/done")
			for _, problem := range tab.Problems() {
				t.Error(problem)
			}
		})
	}
}
