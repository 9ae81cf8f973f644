package transaction

import (
	"math/big"
	"regexp"
	"strings"
	"unicode"
)

// together are scripts that are written together in one word: Unicode Technical Standard 39, section 5.2, highly restrictive.
var together = [][]string{{"Latin", "Han", "Hiragana", "Katakana"}, {"Latin", "Han", "Bopomofo"}, {"Latin", "Han", "Hangul"}}

// mixedScript reports whether a name has letters of scripts that do not go together.
func mixedScript(name string) bool {
	found := map[string]bool{}
	for _, r := range name {
		if unicode.IsLetter(r) && !unicode.In(r, unicode.Common, unicode.Inherited) {
			found[script(r)] = true
		}
	}
	if len(found) <= 1 {
		return false
	}
	for _, set := range together {
		rest := len(found)
		for _, s := range set {
			if found[s] {
				rest--
			}
		}
		if rest == 0 {
			return false
		}
	}
	return true
}

// script names that of a letter.
func script(r rune) string {
	if r < 0x250 { // most of them
		return "Latin"
	}
	for name, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			return name
		}
	}
	return "Unknown"
}

var ibanForm = regexp.MustCompile(`^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$`)

// looksIBAN reports whether an account is written like one, ISO 13616.
func looksIBAN(account string) bool { return ibanForm.MatchString(account) }

var ninetySeven = big.NewInt(97)

// validIBAN checks the check digits: ISO 7064, MOD 97-10. How long an account number is in each country, and whether there is such an account, is for the bank to know.
func validIBAN(iban string) bool {
	if !looksIBAN(iban) {
		return false
	}
	var digits strings.Builder
	for _, r := range iban[4:] + iban[:4] {
		if r >= 'A' {
			digits.WriteByte('0' + byte(r-'A'+10)/10)
			r = '0' + (r-'A'+10)%10
		}
		digits.WriteRune(r)
	}
	number, ok := new(big.Int).SetString(digits.String(), 10)
	return ok && new(big.Int).Mod(number, ninetySeven).Int64() == 1
}
