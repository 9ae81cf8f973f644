package sms

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/text/unicode/norm"
)

// Errors of numbers. Each asks for another number.
var (
	// ErrNumberFormat: not a telephone number in full.
	ErrNumberFormat = errors.New("sms: not a telephone number")
	// ErrNumberLandline: texts do not reach it.
	ErrNumberLandline = errors.New("sms: a landline number")
	// ErrNumberUnsupported: premium, shared-cost, pager and the like: nothing that a person's phone has.
	ErrNumberUnsupported = errors.New("sms: not the number of a phone")
)

// Number is a telephone number in E.164. However it is printed or logged, only its last two digits show.
type Number struct {
	e164    string
	country string
}

// maxNumber bounds what is parsed: the longest national notation with separators.
const maxNumber = 40

// ParseNumber reads a number as people write it. region, ISO 3166-1 alpha-2, is that of national notation; without one the number has to
// begin with + or 00.
func ParseNumber(s, region string) (Number, error) {
	s = norm.NFKC.String(s)
	if len(s) > maxNumber || s == "" {
		return Number{}, ErrNumberFormat
	}
	if len(s) > 2 && s[:2] == "00" {
		s = "+" + s[2:]
	}
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9', r == '+', r == ' ', r == '-', r == '(', r == ')', r == '.', r == '/':
		default:
			return Number{}, ErrNumberFormat // letters, extensions, controls
		}
	}
	parsed, err := phonenumbers.Parse(s, region)
	if err != nil || parsed.GetExtension() != "" {
		return Number{}, ErrNumberFormat
	}
	switch phonenumbers.GetNumberType(parsed) {
	case phonenumbers.UNKNOWN: // not a valid number: phonenumbers.IsValidNumber asks for nothing else, and takes as long again
		return Number{}, ErrNumberFormat
	case phonenumbers.MOBILE, phonenumbers.FIXED_LINE_OR_MOBILE, phonenumbers.PERSONAL_NUMBER, phonenumbers.VOIP:
	case phonenumbers.FIXED_LINE:
		return Number{}, ErrNumberLandline
	default:
		return Number{}, ErrNumberUnsupported
	}
	country := phonenumbers.GetRegionCodeForNumber(parsed)
	if country == "" || country == phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY { // satellites and networks of no country, which cost a hundred times as much
		return Number{}, ErrNumberUnsupported
	}
	return Number{e164: phonenumbers.Format(parsed, phonenumbers.E164), country: country}, nil
}

// Reveal is the number: "+12025550143". For the vendor alone.
func (n Number) Reveal() string { return n.e164 }

// Hint is its last two digits, which its owner may be shown.
func (n Number) Hint() string {
	if len(n.e164) < 2 {
		return ""
	}
	return n.e164[len(n.e164)-2:]
}

// Country is where it is assigned, ISO 3166-1 alpha-2.
func (n Number) Country() string { return n.country }

// String hides all but the last two digits.
func (n Number) String() string { return "••" + n.Hint() }

// GoString hides as String does.
func (n Number) GoString() string { return fmt.Sprintf("sms.Number(%s)", n) }

// LogValue hides as String does.
func (n Number) LogValue() slog.Value { return slog.StringValue(n.String()) }

// MarshalText hides as String does: a number is not for documents.
func (n Number) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// Regions lists the countries whose numbers are known, ISO 3166-1 alpha-2.
func Regions() (all []string) {
	for region := range phonenumbers.GetSupportedRegions() {
		all = append(all, region)
	}
	slices.Sort(all)
	return all
}

// DialCode is what numbers of a country begin with after the +; 0: there is no such country.
func DialCode(region string) int { return phonenumbers.GetCountryCodeForRegion(region) }

// Example is a mobile number of a country as people there write it; "" where none is known.
func Example(region string) string {
	number := phonenumbers.GetExampleNumberForType(region, phonenumbers.MOBILE)
	if number == nil {
		return ""
	}
	return phonenumbers.Format(number, phonenumbers.NATIONAL)
}

// Words are its digits as somebody might type them: in full, and without its first ones, such as the country's. No password should be built from them.
func (n Number) Words() (words []string) {
	const least = 6
	for digits := strings.TrimPrefix(n.e164, "+"); len(digits) >= least; digits = digits[1:] {
		words = append(words, digits)
	}
	return words
}
