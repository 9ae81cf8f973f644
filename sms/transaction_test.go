package sms_test

import (
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/sms"
)

// Whoever gets the code reads what it approves, before the code, in every language, however long the names are.
func TestTransactionTexts(t *testing.T) { // TX-10, TX-22, SMS-1, SMS-2, SMS-5, TXN-1
	t.Parallel()
	texts, err := sms.NewTexts("Bank of Example Ltd.", "login.bank.example.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		sms.Approval
		payee string // has to be there
	}{
		{"usual", sms.Approval{Amount: "129.90", Currency: "EUR", Payee: "Gas AG", Tail: "8603"}, "Gas AG"},
		{"long", sms.Approval{Amount: "999999999999.99", Currency: "EUR", Payee: strings.Repeat("Municipal Works ", 5), Tail: "8603"}, "Municipa"},
		{"batch", sms.Approval{Amount: "1000.00", Currency: "EUR", Payee: "Gas AG", More: 12}, "Gas AG +12"},
		{"not Latin", sms.Approval{Amount: "5", Currency: "JPY", Payee: "東京ガス株式会社", Tail: "8603"}, "東京ガス株式会社"},
	} {
		for _, locale := range texts.Locales() {
			text, used := texts.Transaction(locale, "******", tt.Approval, "")
			if used != locale {
				t.Errorf("%s in %s: the text is in %s", tt.name, locale, used)
			}
			amount := sms.FormatAmount(tt.Amount, tt.Currency, locale)
			last := "\n\n@login.bank.example.com #******"
			body, whole := strings.CutSuffix(text, last)
			if !whole {
				t.Errorf("%s in %s ends otherwise: %q", tt.name, locale, text)
			}
			code := strings.Index(body, "******")
			for _, part := range []string{amount, tt.Currency, tt.payee} {
				if at := strings.Index(body, part); at < 0 || at > code {
					t.Errorf("%s in %s: %q does not stand before the code: %q", tt.name, locale, part, text)
				}
			}
			if !sms.Fits(text) {
				t.Errorf("%s in %s is too long: %q", tt.name, locale, text)
			}
			if strings.Contains(body, "\n") {
				t.Errorf("%s in %s has lines of its own: %q", tt.name, locale, text)
			}
		}
	}
	text, _ := texts.Transaction("en", "123456", sms.Approval{Amount: "1.00", Currency: "EUR", Payee: "Gas AG"}, "FA+9qCX9VSu")
	if !strings.HasSuffix(text, "\nFA+9qCX9VSu") || strings.Contains(text, "@") {
		t.Errorf("for an app: %q", text)
	}
}
