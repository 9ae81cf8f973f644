// Package payment has what everybody who handles a payment has to see alike: how an amount is written, and which texts show what they are.
package payment

import (
	"errors"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bojanz/currency"
	"golang.org/x/text/unicode/norm"
)

// What is wrong with money, in words that go after the name of the field.
var (
	ErrCurrency = errors.New("is no ISO 4217 code of money in use, such as EUR")
	ErrAmount   = errors.New("is no decimal such as 129.90, in a string, with at most 12 digits before the point")
	ErrDecimals = errors.New("has more decimals than the currency")
	ErrZero     = errors.New("is zero")
)

// amountForm has no sign, no exponent, no separators and no leading zeros.
var amountForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?$`)

// Currency reports [ErrCurrency] unless code is that of money in use, in capital letters.
func Currency(code string) error {
	if _, known := currency.GetDigits(code); !known {
		return ErrCurrency
	}
	return nil
}

// Amount writes an amount with all decimals that its currency has: the one spelling of it. Its errors are [ErrAmount], [ErrDecimals] and [ErrZero]; that of an unknown currency is
// told by [Currency].
func Amount(amount, code string) (string, error) {
	if !amountForm.MatchString(amount) {
		return "", ErrAmount
	}
	digits, known := currency.GetDigits(code)
	if !known {
		return "", nil
	}
	whole, fraction, _ := strings.Cut(amount, ".")
	if len(fraction) > int(digits) {
		return "", ErrDecimals
	}
	if strings.Trim(whole+fraction, "0") == "" {
		return "", ErrZero
	}
	if digits == 0 {
		return whole, nil
	}
	return whole + "." + fraction + strings.Repeat("0", int(digits)-len(fraction)), nil
}

// maxMarks is how many marks may stand on one letter: no language stacks more.
const maxMarks = 4

// Visible writes a text as it is seen: in NFC, with single spaces and none at the ends. False: it has characters that nobody sees, or that show others out of their place.
func Visible(s string) (string, bool) {
	if !utf8.ValidString(s) {
		return "", false
	}
	marks := maxMarks // none at the beginning: it would stand on what is before the text
	for _, r := range s {
		switch {
		case !unicode.IsGraphic(r), r == utf8.RuneError, // controls, formats, private and unassigned characters, separators of lines
			unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Deprecated),
			r == '\u2800': // Braille without a dot
			return "", false
		case unicode.In(r, unicode.Mn, unicode.Me):
			if marks++; marks > maxMarks {
				return "", false
			}
		case unicode.IsSpace(r):
			marks = maxMarks
		default:
			marks = 0
		}
	}
	return strings.Join(strings.Fields(norm.NFC.String(s)), " "), true
}
