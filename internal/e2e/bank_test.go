package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/browsertest"
)

// customer signs in to the bank.
func (s *system) customer(t *testing.T, taste browsertest.Taste) (*browsertest.Tab, person) {
	t.Helper()
	who := s.person(t)
	tab := browsertest.Open(t, taste, s.Issuer, s.Bank)
	tab.Go(s.Bank + "/")
	tab.Click("#sign-in")
	tab.Type("#username", who.Username)
	tab.Type("#password", who.Password)
	tab.Click("form[action^='/login?'] button[type=submit]")
	code, err := s.text(t.Context(), who.Phone, 1)
	if err != nil {
		t.Fatal(err)
	}
	tab.Type("#code", code)
	tab.Click("form[action^='/login/code?'] button[type=submit]")
	if !strings.HasPrefix(tab.URL(), s.Bank) || tab.Text("h1") != "The Bank" {
		t.Fatalf("after the code: %s\n%s", tab.URL(), tab.Text("body"))
	}
	return tab, who
}

// approved holds what the bank shows of a payment against what was approved, and the evidence of it.
func approved(t *testing.T, tab *browsertest.Tab) {
	t.Helper()
	if state := tab.Text("#state"); state != "approved" {
		t.Fatalf("the payment is %s\n%s", state, tab.Text("body"))
	}
	shown := tab.Text("body")
	for _, want := range []string{"EUR 129.90", "Bäckerei Müller", "txn_", "pwd sms mfa"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the bank does not show %q:\n%s", want, shown)
		}
	}
}

// TestBankByPage pays where the bank sends its customer's browser to Watchword: PAR, authorization_details and the page for payments.
func TestBankByPage(t *testing.T) {
	t.Parallel()
	for _, taste := range []browsertest.Taste{{}, {NoScript: true, Width: 320, Locale: "de", Dark: true}} {
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			s := running
			tab, who := s.customer(t, taste)
			toPayment := func() {
				t.Helper()
				tab.Go(s.Bank + "/")
				tab.Click("#pay-page")
				if !strings.HasPrefix(tab.URL(), s.Issuer+"/confirm?") {
					t.Fatalf("the bank led to %s\n%s", tab.URL(), tab.Text("body"))
				}
				for _, want := range []string{"129", "Bäckerei Müller", "••••3000", "Invoice 4711", "+1 202 555 0199"} {
					if got := tab.Text("main"); !strings.Contains(got, want) {
						t.Errorf("the page does not show %q:\n%s", want, got)
					}
				}
				tab.Click("form[action^='/confirm/code'] button") // nothing is sent before somebody asks for it
			}
			code := func(n int) string {
				t.Helper()
				code, err := s.text(t.Context(), who.Phone, n)
				if err != nil {
					t.Fatal(err)
				}
				return code
			}
			toPayment()
			tab.Type("#code", code(2))
			tab.Click("button[value=approve]")
			if !strings.HasPrefix(tab.URL(), s.Bank+"/payments/1") {
				t.Fatalf("after the code: %s\n%s", tab.URL(), tab.Text("body"))
			}
			approved(t, tab)

			toPayment()
			tab.Click("button[value=refuse]")
			tab.Click("form[action^='/confirm/back'] button")
			if tab.Text("#state") != "not approved" || tab.Text("#problem") != "access_denied user_refused" {
				t.Errorf("refused: %s", tab.Text("body"))
			}

			toPayment()
			earlier := code(3) // of the payment that was refused
			if wrong := code(4); wrong != earlier {
				tab.Type("#code", earlier) // TX-2: equal amount and payee
				tab.Click("button[value=approve]")
				if !strings.HasPrefix(tab.URL(), s.Issuer+"/confirm") {
					t.Fatalf("the code of another payment led to %s", tab.URL())
				}
			}
			tab.Click("form[action^='/confirm/report'] button")
			tab.Click("form[action^='/confirm/back'] button")
			if tab.Text("#state") != "not approved" || tab.Text("#problem") != "access_denied user_reported" {
				t.Errorf("reported: %s", tab.Text("body"))
			}
			tab.Go(s.Bank + "/")
			tab.Click("#pay-page")
			if !strings.HasPrefix(tab.URL(), s.Issuer+"/login?") {
				t.Errorf("after a report the session goes on: %s", tab.URL())
			}
			for _, problem := range tab.Problems() {
				t.Error(problem)
			}
		})
	}
}

// TestBankInTheBackground pays where the bank waits, and its customer answers in a browser that the bank does not see: CIBA, poll.
func TestBankInTheBackground(t *testing.T) {
	t.Parallel()
	s := running
	tab, who := s.customer(t, browsertest.Taste{})
	ask := func() (bank string) {
		t.Helper()
		tab.Go(s.Bank + "/")
		tab.Click("#pay-background")
		if tab.Text("#state") != "asked" {
			t.Fatalf("the bank does not wait:\n%s", tab.Text("body"))
		}
		bank = tab.URL()
		tab.Go(s.Issuer + "/account")
		tab.Click("a[href^='/ciba/']")
		if !strings.HasPrefix(tab.URL(), s.Issuer+"/confirm?") {
			t.Fatalf("the link led to %s\n%s", tab.URL(), tab.Text("body"))
		}
		for _, want := range []string{"EUR 129.90", "Bäckerei Müller", "••••3000", "Invoice 4711", "PAY-"} {
			if got := tab.Text("main"); !strings.Contains(got, want) {
				t.Errorf("the page does not show %q:\n%s", want, got)
			}
		}
		return bank
	}
	settled := func(bank string) {
		t.Helper()
		tab.Go(bank)
		for deadline := time.Now().Add(30 * time.Second); tab.Text("#state") == "asked"; tab.Go(bank) {
			if time.Now().After(deadline) {
				t.Fatal("the bank waits for ever")
			}
			<-time.After(time.Second) // sooner than the page loads itself again
		}
	}
	bank := ask()
	code, err := s.text(t.Context(), who.Phone, 2)
	if err != nil {
		t.Fatal(err)
	}
	tab.Type("#code", code)
	tab.Click("button[value=approve]")
	if got := tab.Text("h1"); got != "You approved this payment" {
		t.Fatalf("after the code: %s %s", tab.URL(), tab.Text("body"))
	}
	settled(bank)
	approved(t, tab)

	bank = ask()
	tab.Click("button[value=refuse]")
	tab.Click("form[action^='/confirm/back'] button")
	settled(bank)
	if tab.Text("#state") != "not approved" || tab.Text("#problem") != "access_denied" {
		t.Errorf("refused: %s", tab.Text("body"))
	}
	for _, problem := range tab.Problems() {
		t.Error(problem)
	}
}
