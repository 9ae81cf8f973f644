package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/sms"
)

// MaxLife of a code: SP 800-63B-4 section 3.1.3.2.
const MaxLife = 10 * time.Minute

// PaymentLife is the longest life of a code that approves a payment.
const PaymentLife = 5 * time.Minute

// Lengths of a code.
const (
	MinLength     = 4
	MaxLength     = 10
	DefaultLength = 6
)

// Alphabet of a code.
type Alphabet string

// Alphabets. Letters are capital ones in texts, and either when they come back; the alphanumeric one lacks those that look like digits or spell words.
const (
	Numeric      Alphabet = "numeric"
	Alphanumeric Alphabet = "alphanumeric"
	Hex          Alphabet = "hex"
)

// characters of an alphabet; "" of one that does not exist.
func (a Alphabet) characters() string {
	switch a {
	case Numeric:
		return "0123456789"
	case Alphanumeric:
		return "23456789BCDFGHJKMNPQRSTVWXYZ"
	case Hex:
		return "0123456789ABCDEF"
	}
	return ""
}

// newCode makes a code, uniform, from the operating system's random source.
func (a Alphabet) newCode(length int) (string, error) {
	if a == Numeric {
		return factors.NewCode(length)
	}
	characters := a.characters()
	var code strings.Builder
	for range length {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(characters)))) // by rejection, hence without bias
		if err != nil {
			return "", fmt.Errorf("make a code: %w", err)
		}
		code.WriteByte(characters[n.Int64()])
	}
	return code.String(), nil
}

// errCode: what came back cannot be a code of any template. Nothing is compared, and no attempt is spent.
var errCode = errors.New("gateway: not a code")

// parseCode reads a code that a program gives back: ASCII letters and digits alone. What people type is for the program to tidy up; it has the field.
func parseCode(typed string) (string, error) {
	if len(typed) < MinLength || len(typed) > MaxLength {
		return "", errCode
	}
	for _, c := range []byte(typed) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return "", errCode
		}
	}
	return strings.ToUpper(typed), nil
}

// issuing makes the code and the text of one request.
type issuing struct {
	length   int
	alphabet Alphabet
	life     time.Duration
	fixed    string // the code of test mode: nothing is sent
	message  func(code string) *sms.Message
	mail     func(code string) *factors.Mail // instead
}

// Kind implements factors.Factor.
func (*issuing) Kind() string { return Kind }

// AMR implements factors.Factor: no token ever tells of a program's verification.
func (*issuing) AMR() []string { return nil }

// Restricted implements factors.Factor.
func (*issuing) Restricted() bool { return true }

// Parse implements factors.Factor.
func (*issuing) Parse(typed string) (string, error) { return parseCode(typed) }

// Issue implements factors.Factor.
func (i *issuing) Issue(context.Context, factors.Authenticator, factors.Prompt) (factors.Issued, error) {
	if i.fixed != "" {
		return factors.Issued{Code: i.fixed, Life: i.life}, nil
	}
	code, err := i.alphabet.newCode(i.length)
	if err != nil {
		return factors.Issued{}, err
	}
	if i.mail != nil {
		return factors.Issued{Code: code, Life: i.life, Mail: i.mail(code)}, nil
	}
	return factors.Issued{Code: code, Life: i.life, Message: i.message(code)}, nil
}
