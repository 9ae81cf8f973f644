package transaction_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-auth/watchword/authn/transaction"
)

func newDetails(t testing.TB) *transaction.Details {
	t.Helper()
	d, err := transaction.NewDetails()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDetails(t *testing.T) { // PA-8, TX-10
	t.Parallel()
	d := newDetails(t)
	const whole = `{"actions":["initiate"],"creditorAccount":{"iban":"DE02100100109307118603"},"creditorName":"Merchant A","instructedAmount":{"amount":"123.50","currency":"EUR"},` +
		`"locations":["https://bank.example/payments"],"remittanceInformationUnstructured":"Ref 4711","type":"payment_initiation"}`
	for _, element := range []string{
		whole,
		`{"type":"payment_initiation","actions":["initiate"],"locations":["https://bank.example/payments"],"instructedAmount":{"currency":"EUR","amount":"123.5"},
		  "creditorName":" Merchant  A","creditorAccount":{"iban":"de02 1001 0010 9307 1186 03"},"remittanceInformationUnstructured":"Ref 4711"}`,
	} {
		got, err := d.Canonical(json.RawMessage(element))
		if err != nil || string(got) != whole {
			t.Errorf("%s, %v; want %s", got, err, whole)
		}
	}
	lines := map[string][]string{
		"en": {"Pay EUR 123.50", "To: Merchant A", "Account: ••••8603", "Reference: Ref 4711"},
		"de": {"123,50 EUR zahlen", "An: Merchant A", "Konto: ••••8603", "Verwendungszweck: Ref 4711"},
		"sw": {"Pay EUR 123.50", "To: Merchant A", "Account: ••••8603", "Reference: Ref 4711"},
	}
	for locale, want := range lines {
		if diff := cmp.Diff(want, d.Describe(locale, json.RawMessage(whole))); diff != "" {
			t.Errorf("%s: %s", locale, diff)
		}
	}
	o, err := d.Order(json.RawMessage(whole))
	if err != nil || o.Amount != "123.50" || o.Payees[0].Account != "DE02100100109307118603" || o.Reference != "Ref 4711" {
		t.Errorf("order %+v, %v", o, err)
	}
	for name, element := range map[string]string{
		"unknown member":      `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A","fee":"0"}`,
		"unknown below":       `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00","x":1},"creditorName":"A"}`,
		"amount as number":    `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":1.00},"creditorName":"A"}`,
		"no amount":           `{"type":"payment_initiation","creditorName":"A"}`,
		"no payee":            `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00"}}`,
		"repeated name":       `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00","amount":"2.00"},"creditorName":"A"}`,
		"name in other case":  `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","Amount":"1.00"},"creditorName":"A"}`,
		"null":                `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A","creditorAccount":null}`,
		"another action":      `{"type":"payment_initiation","actions":["cancel"],"instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A"}`,
		"location":            `{"type":"payment_initiation","locations":["http://bank.example"],"instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A"}`,
		"negative":            `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"-1.00"},"creditorName":"A"}`,
		"wrong IBAN":          `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A","creditorAccount":{"iban":"DE02100100109307118604"}}`,
		"IBAN that is none":   `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A","creditorAccount":{"iban":"12345"}}`,
		"IBAN as other":       `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A","creditorAccount":{"other":"DE02100100109307118603"}}`,
		"bidi":                `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A\u202e"}`,
		"array":               `[]`,
		"null itself":         `null`,
		"something behind it": `{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"1.00"},"creditorName":"A"} {}`,
	} {
		got, err := d.Canonical(json.RawMessage(element))
		if err == nil {
			t.Errorf("%s: taken as %s", name, got)
			continue
		}
		if want := map[string]string{"negative": "/instructedAmount/amount ", "wrong IBAN": "/creditorAccount ", "bidi": "/creditorName ", "unknown member": "is not known"}[name]; !strings.Contains(err.Error()+" ", want) {
			t.Errorf("%s: %v; it should name %s", name, err, want)
		}
		for _, sent := range []string{"fee", "-1.00", "8604", "cancel"} {
			if strings.Contains(err.Error(), sent) {
				t.Errorf("%s: what was sent comes back: %v", name, err)
			}
		}
	}
}
