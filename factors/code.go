package factors

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Errors of what was typed. None of them costs an attempt, for nothing was compared.
var (
	ErrCodeEmpty = errors.New("factors: no code given")
	ErrCodeShort = errors.New("factors: code has too few digits")
	ErrCodeLong  = errors.New("factors: code has too many digits")
	ErrCodeChars = errors.New("factors: code has characters that are not digits")
)

// maxTyped bounds what is looked at: a code with words around it, not a letter.
const maxTyped = 200

// NewCode makes a code of digits decimal digits, uniform, leading zeros kept, from the operating system's random source.
func NewCode(digits int) (string, error) {
	bound := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)
	n, err := rand.Int(rand.Reader, bound) // by rejection, hence without bias
	if err != nil {
		return "", fmt.Errorf("make a code: %w", err)
	}
	return fmt.Sprintf("%0*d", digits, n), nil
}

// ParseTyped finds the code in what a person typed or pasted: spaces, hyphens, a leading #, words around it and the decimal
// digits of any script are understood. What remains must be exactly one code of the given number of digits.
func ParseTyped(typed string, digits int) (string, error) {
	if len(typed) > maxTyped {
		return "", ErrCodeLong
	}
	var code strings.Builder
	groups, inGroup, others := 0, false, false
	for _, r := range norm.NFKC.String(typed) {
		switch {
		case unicode.IsDigit(r):
			if !inGroup {
				groups++
				inGroup = true
			}
			code.WriteByte('0' + decimal(r))
		case r == ' ' || unicode.Is(unicode.Pd, r) || unicode.Is(unicode.Cf, r):
			// Within a code these only group it.
		default:
			inGroup = false
			others = others || unicode.IsLetter(r)
		}
	}
	switch n := code.Len(); {
	case n == 0 && others:
		return "", ErrCodeChars
	case n == 0:
		return "", ErrCodeEmpty
	case groups > 1:
		return "", ErrCodeChars
	case n < digits:
		return "", ErrCodeShort
	case n > digits:
		return "", ErrCodeLong
	}
	return code.String(), nil
}

// decimal is the value of a decimal digit of any script. They stand in runs of ten that begin at the zero; the only runs
// that touch each other are mathematical letter forms, which NFKC has already made ASCII.
func decimal(r rune) byte {
	zero := r
	for unicode.IsDigit(zero-1) && r-zero < 9 {
		zero--
	}
	return byte(r - zero)
}
