package sms

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bojanz/currency"
)

// TransactionTemplate names the wording of texts with codes for transactions, in all languages. It changes whenever one of them does, because what somebody was shown has to be known years
// later.
const TransactionTemplate = "sms-transaction-2"

// TransactionPurpose is that of texts with codes for transactions. Whoever makes codes, or has templates for them alone, is not asked to send them: their texts name no amount.
const TransactionPurpose = "transaction"

// Approval is what a code approves, as its text names it.
type Approval struct {
	Amount, Currency string // decimal as it is written everywhere, and ISO 4217
	Payee            string
	More             int    // further payees
	Tail             string // the last characters of the payee's account; "": it has none, or there are several
}

const (
	// minPayee is how much of a payee's name is in every text.
	minPayee = 8
	ellipsis = ".." // the GSM alphabet has no other
)

// FormatAmount writes an amount in a language, with the ISO code of its currency: symbols mean several currencies, and the GSM alphabet lacks most of them.
func FormatAmount(amount, code, locale string) string {
	a, err := currency.NewAmount(amount, code)
	if err != nil {
		return amount + " " + code
	}
	f := currency.NewFormatter(currency.NewLocale(locale))
	f.CurrencyDisplay = currency.DisplayCode
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Zs, r):
			return ' '
		case unicode.Is(unicode.Cf, r): // marks for direction
			return -1
		}
		return r
	}, f.Format(a))
}

// Transaction renders the text that carries the code for a transaction. Its end is as in [Texts.Code].
func (t *Texts) Transaction(locale, code string, a Approval, app string) (text, localeUsed string) {
	return t.approval(t.service, locale, code, a, Closing(t.host, code, app))
}

// approval words what is approved: amount, currency and payee come first, the code after them. A text that is too long gives way to one with the beginning of the payee's name, and
// that to the shortest that still says what is paid to whom.
func (t *Texts) approval(service, locale, code string, a Approval, last string) (text, localeUsed string) {
	_, tag := t.render(TransactionPurpose, locale, nil)
	data := map[string]any{"Service": service, "Code": code, "Amount": FormatAmount(a.Amount, a.Currency, tag), "Tail": a.Tail}
	id := TransactionPurpose
	if a.Tail != "" {
		id += "_account"
	}
	for _, wording := range []func() string{
		func() string { text, _ := t.render(id, tag, data); return text },
		func() string { text, _ := t.render(TransactionPurpose, tag, data); return text },
		func() string { return fmt.Sprintf("%s > %s: %s", data["Amount"], data["Payee"], code) },
	} {
		for n := utf8.RuneCountInString(a.Payee); n >= min(minPayee, utf8.RuneCountInString(a.Payee)); n-- {
			data["Payee"] = payee(a, n)
			if text = wording(); text != "" && Fits(text+last) {
				return text + last, tag
			}
		}
	}
	return text + last, tag
}

// payee names whom a text is about, with n characters of the name.
func payee(a Approval, n int) string {
	name := a.Payee
	if n < utf8.RuneCountInString(name) {
		name = strings.TrimRight(string([]rune(name)[:n]), " ") + ellipsis
	}
	if a.More > 0 {
		name += fmt.Sprintf(" +%d", a.More)
	}
	return name
}
