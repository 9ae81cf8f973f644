package e2e

import (
	"net/http"
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
	for _, want := range []string{"EUR 129.90", "Bäckerei Müller", "Evidence", "Shown by sms", "******"} {
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
			code := func(n int) string { return s.codeTo(t, who, n) }
			toPayment()
			tab.Type("#code", code(2))
			tab.Click("button[value=approve]")
			if !strings.HasPrefix(tab.URL(), s.Bank+"/payments/1") {
				t.Fatalf("after the code: %s\n%s", tab.URL(), tab.Text("body"))
			}
			approved(t, tab)
			if tab.Text("#token-sha256") != tab.Text("#evidence-sha256") || tab.Text("#token-amr") != "pwd sms mfa" || !strings.Contains(tab.Text("body"), "Shown by page") {
				t.Errorf("the tokens say something else than the evidence:\n%s", tab.Text("body"))
			}

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
	ask := func() (bank, message string) {
		t.Helper()
		tab.Go(s.Bank + "/")
		tab.Click("#pay-background")
		if tab.Text("#state") != "asked" {
			t.Fatalf("the bank does not wait:\n%s", tab.Text("body"))
		}
		bank, message = tab.URL(), tab.Text("#message")
		if got := tab.Text("#account"); got != s.Issuer+"/account" {
			t.Errorf("the bank leads its customer to %s", got)
		}
		tab.Go(s.Issuer + "/account")
		tab.Click("a[href^='/ciba/']")
		if !strings.HasPrefix(tab.URL(), s.Issuer+"/confirm?") {
			t.Fatalf("the link led to %s\n%s", tab.URL(), tab.Text("body"))
		}
		for _, want := range []string{"EUR 129.90", "Bäckerei Müller", "••••3000", "Invoice 4711", "The Bank shows you this as well: " + message} {
			if got := tab.Text("main"); !strings.Contains(got, want) {
				t.Errorf("the page does not show %q:\n%s", want, got)
			}
		}
		return bank, message
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
	bank, _ := ask()
	tab.Click("button[value=refuse]")
	tab.Click("form[action^='/confirm/back'] button")
	settled(bank)
	if tab.Text("#state") != "not approved" || tab.Text("#problem") != "access_denied user_refused" {
		t.Errorf("refused: %s", tab.Text("body"))
	}

	bank, message := ask()
	page := tab.URL()
	code, err := s.text(t.Context(), who.Phone, 3)
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
	if !strings.Contains(tab.Text("body"), "The Bank shows you this as well: "+message) {
		t.Errorf("the evidence lacks what the page said beside the payment: %s", tab.Text("body"))
	}

	tab.Go(page) // what was approved can be reported, and the bank hears of it
	tab.Click("form[action^='/confirm/report'] button")
	tab.Go(bank)
	if tab.Text("#state") != "approved" || !strings.HasPrefix(tab.Text("#problem"), "You said that you did not ask for this") {
		t.Errorf("reported afterwards: %s", tab.Text("body"))
	}
	for _, problem := range tab.Problems() {
		t.Error(problem)
	}
}

// TestBankStrangersWithTheLink: whoever has the address that a question is answered at, but has not proven what an answer takes, learns nothing of the payment, answers nothing and reports nothing.
func TestBankStrangersWithTheLink(t *testing.T) { // TX-4, TXN-5, TXN-6
	t.Parallel()
	s := running
	tab, who := s.customer(t, browsertest.Taste{})
	tab.Go(s.Bank + "/")
	tab.Click("#pay-background")
	bank := tab.URL()
	code, err := s.text(t.Context(), who.Phone, 2)
	if err != nil {
		t.Fatal(err)
	}
	tab.Go(s.Issuer + "/account")
	var link string
	tab.Evaluate("document.querySelector(\"a[href^='/ciba/']\").getAttribute('href')", &link)

	confirm := map[string]string{} // where the page would be for each stranger
	strangers := map[string]*browsertest.Tab{}
	for _, knows := range []string{"nothing", "the password"} {
		stranger := browsertest.Open(t, browsertest.Taste{}, s.Issuer)
		stranger.Go(s.Issuer + link)
		if knows == "the password" {
			stranger.Type("#username", who.Username)
			stranger.Type("#password", who.Password)
			stranger.Click("form[action^='/login?'] button[type=submit]")
		}
		_, flow, ok := strings.Cut(stranger.URL(), "flow=")
		if !ok {
			t.Fatalf("who knows %s is at %s", knows, stranger.URL())
		}
		var state int
		stranger.Evaluate("fetch('/confirm/state?flow="+flow+"').then(r => r.status)", &state)
		if state != http.StatusGone {
			t.Errorf("who knows %s learns how it stands: %d", knows, state)
		}
		stranger.Click("form[action^='/login/cancel'] button")
		confirm[knows], strangers[knows] = s.Issuer+"/confirm?flow="+flow, stranger
	}
	tab.Go(bank)
	if tab.Text("#state") != "asked" {
		t.Fatalf("a stranger answered: %s", tab.Text("body"))
	}

	tab.Go(s.Issuer + link)
	tab.Type("#code", code)
	tab.Click("button[value=approve]")
	if got := tab.Text("h1"); got != "You approved this payment" {
		t.Fatalf("after the code: %s %s", tab.URL(), tab.Text("body"))
	}
	for knows, stranger := range strangers {
		stranger.Go(confirm[knows])
		if got := stranger.Text("body"); strings.Contains(got, "129.90") || strings.Contains(got, "Müller") || strings.Contains(got, "didn't ask") {
			t.Errorf("who knows %s reads the payment: %s", knows, got)
		}
	}
}

// codeTo waits for the n-th code of a person.
func (s *system) codeTo(t *testing.T, who person, n int) string {
	t.Helper()
	code, err := s.code(t.Context(), who.Phone, n)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// TestBankOnItsOwnPage pays where the bank's own page shows the payment and collects the code: REST.
func TestBankOnItsOwnPage(t *testing.T) {
	t.Parallel()
	s := running
	tab, who := s.customer(t, browsertest.Taste{})
	tab.Click("#pay-own")
	code := s.codeTo(t, who, 2)
	other := "000000"
	if code == other {
		other = "000001"
	}
	tab.Type("#code", other)
	tab.Click("#approve")
	if tab.Text("#state") != "asked" || !strings.Contains(tab.Text("#problem"), "otp_incorrect") {
		t.Fatalf("a wrong code: %s", tab.Text("body"))
	}
	tab.Type("#code", code)
	tab.Click("#approve")
	approved(t, tab)
	for _, problem := range tab.Problems() {
		t.Error(problem)
	}
}

// TestBankAsTyped pays what a person typed as people do: the bank asks for, compares and executes one form of it.
func TestBankAsTyped(t *testing.T) {
	t.Parallel()
	s := running
	tab, who := s.customer(t, browsertest.Taste{})
	if got := tab.Text("#customer"); got != "Pat Example" { // as UserInfo has it
		t.Errorf("the bank calls its customer %q", got)
	}
	order := func(door, amount string) {
		t.Helper()
		tab.Go(s.Bank + "/")
		tab.Evaluate(`document.querySelector("#payee").value = "Ba\u0308ckerei  Mu\u0308ller"; document.querySelector("#amount").value = "`+amount+`"; document.querySelector("#reference").value = ""; 0`, nil)
		tab.Click("#pay-" + door)
	}
	paid := func(amount string) {
		t.Helper()
		if tab.Text("#state") != "approved" || tab.Text("#amount") != amount || tab.Text("#payee") != "Bäckerei Müller" {
			t.Errorf("the payment: %s", tab.Text("body"))
		}
	}
	order("own", "5")
	tab.Type("#code", s.codeTo(t, who, 2))
	tab.Click("#approve")
	paid("EUR 5.00")
	order("page", "0012,5")
	tab.Click("form[action^='/confirm/code'] button")
	tab.Type("#code", s.codeTo(t, who, 3))
	tab.Click("button[value=approve]")
	paid("EUR 12.50")
	order("own", "7.50")
	tab.Click("#cancel")
	var state string
	if err := s.db.GetContext(t.Context(), &state, `SELECT t.state FROM transactions t JOIN subscribers u ON u.id = t.subscriber_id WHERE u.username = $1 ORDER BY t.created_at DESC LIMIT 1`, who.Username); err != nil || state != "canceled" {
		t.Errorf("what the customer does not want is %s %v", state, err)
	}
	if tab.Text("#state") != "not approved" {
		t.Errorf("taken back: %s", tab.Text("body"))
	}
	for _, amount := range []string{"1,000.00", "-5", "", "5 EUR"} {
		order("own", amount)
		if tab.Text("h1") != "The Bank" || !strings.Contains(tab.Text("body"), "129.90") {
			t.Errorf("%q: %s", amount, tab.Text("body"))
		}
	}
}

// TestBankChanged changes one thing between page, text and verification, at each door: whatever it is, the payment is over, with the right code too. TX-1, Regulation (EU) 2018/389 Art. 5(1)(d).
func TestBankChanged(t *testing.T) {
	t.Parallel()
	for _, change := range []struct{ name, door, field, value string }{
		{"one cent on the bank's page", "own", "amount", "129.91"},
		{"one letter on the bank's page", "own", "payee", "Bäckerei Miller"},
		{"one cent on our page", "page", "amount", "129.91"},
		{"one letter on our page", "page", "payee-0", "Bäckerei Miller"},
		{"one cent while the bank waits", "background", "amount", "129.91"},
		{"one letter while the bank waits", "background", "payee-0", "Bäckerei Miller"},
	} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			s := running
			tab, who := s.customer(t, browsertest.Taste{})
			tab.Click("#pay-" + change.door)
			approve := "button[value=approve]"
			switch change.door {
			case "own":
				approve = "#approve"
			case "page":
				tab.Click("form[action^='/confirm/code'] button")
			case "background":
				tab.Go(s.Issuer + "/account")
				tab.Click("a[href^='/ciba/']")
			}
			tab.Type("#code", s.codeTo(t, who, 2))
			tab.Evaluate(`document.querySelector("input[name='`+change.field+`']").value = "`+change.value+`"; 0`, nil)
			tab.Click(approve)
			switch change.door {
			case "own":
				if tab.Text("#state") != "not approved" || !strings.Contains(tab.Text("#problem"), "transaction_mismatch") {
					t.Error(tab.Text("body"))
				}
			default:
				if got := tab.Text("h1"); got != "This payment was changed or taken back" {
					t.Errorf("%s: %s", got, tab.Text("body"))
				}
			}
			var state string
			if err := s.db.GetContext(t.Context(), &state, `SELECT t.state || ' ' || t.reason FROM transactions t JOIN subscribers u ON u.id = t.subscriber_id WHERE u.username = $1`, who.Username); err != nil || state != "failed changed" {
				t.Errorf("the payment is %s %v", state, err)
			}
		})
	}
}
