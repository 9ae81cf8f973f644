// Package smsotp is the second factor by text message: a code of six decimal digits, sent to a phone that the subscriber has
// bound, and typed back within ten minutes.
//
// It is an out-of-band authenticator by telephone network and therefore restricted: SP 800-63B-4 sections 3.1.3.3 and
// 3.2.9. Its amr value is "sms", RFC 8176 section 2. The package makes codes and texts; the ledger of package factors keeps,
// counts, compares and consumes the codes, and package sms carries the texts.
package smsotp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/sms"
)

// Kind is stored with every phone.
const Kind = "sms"

// Bounds of a code.
const (
	MinDigits = 6
	MaxDigits = 8
	MaxLife   = 10 * time.Minute // SP 800-63B-4 section 3.1.3.2
)

var (
	_ factors.Numbered = (*Factor)(nil)
	_ factors.Linked   = (*Factor)(nil)
)

// Factor sends codes. Make one with [New].
type Factor struct {
	// Outage, when set, says whether texts do not get through to anybody at the moment.
	Outage func() bool

	texts  *sms.Texts
	digits int
	life   time.Duration
}

// New makes the factor. digits is between [MinDigits] and [MaxDigits], life at most [MaxLife]; texts renders the messages.
func New(texts *sms.Texts, digits int, life time.Duration) (*Factor, error) {
	var problems []error
	if digits < MinDigits || digits > MaxDigits {
		problems = append(problems, fmt.Errorf("smsotp: a code has %d to %d digits, not %d", MinDigits, MaxDigits, digits))
	}
	if life <= 0 || life > MaxLife {
		problems = append(problems, fmt.Errorf("smsotp: a code lives at most %v, not %v", MaxLife, life))
	}
	return &Factor{texts: texts, digits: digits, life: life}, errors.Join(problems...)
}

// Phone makes an authenticator of a number, ready to be bound to subject, and the form of the number that may be looked up.
func Phone(subject uuid.UUID, number sms.Number) (a factors.Authenticator, unique string) {
	return factors.Authenticator{ID: uuid.New(), Subject: subject, Kind: Kind, Data: []byte(number.Reveal()), Hint: number.Hint()}, number.Reveal()
}

// Number implements factors.Numbered.
func (*Factor) Number(subject uuid.UUID, n sms.Number) (a factors.Authenticator, unique string) {
	return Phone(subject, n)
}

// Kind implements factors.Factor.
func (*Factor) Kind() string { return Kind }

// AMR implements factors.Factor.
func (*Factor) AMR() []string { return []string{"sms"} }

// Restricted implements factors.Factor.
func (*Factor) Restricted() bool { return true }

// Down implements factors.Dependent.
func (f *Factor) Down() bool { return f.Outage != nil && f.Outage() }

// Parse implements factors.Factor.
func (f *Factor) Parse(typed string) (string, error) { return factors.ParseTyped(typed, f.digits) }

// Issue implements factors.Factor.
func (f *Factor) Issue(_ context.Context, a factors.Authenticator, to factors.Prompt) (factors.Issued, error) {
	number, err := f.Reach(a)
	if err != nil {
		return factors.Issued{}, err
	}
	code, err := factors.NewCode(f.digits)
	if err != nil {
		return factors.Issued{}, err
	}
	life := f.life
	if to.Life > 0 {
		life = min(life, to.Life)
	}
	text, locale := f.text(to, code, life)
	return factors.Issued{Code: code, Life: life, Message: &sms.Message{To: number, Text: text, Locale: locale}}, nil
}

func (f *Factor) text(to factors.Prompt, code string, life time.Duration) (text, locale string) {
	if to.Approves != nil {
		return f.texts.Transaction(to.Locale, code, *to.Approves, to.App)
	}
	return f.texts.Code(string(to.Purpose), to.Locale, code, life, to.App)
}

// Words implements factors.Linked. Codes are digits: a mark of as many takes the same room.
func (f *Factor) Words(to factors.Prompt) factors.Words {
	mark := strings.Repeat("*", f.digits)
	text, locale := f.text(to, mark, f.life)
	return factors.Words{Text: text, Locale: locale, Template: sms.TransactionTemplate}
}

// Reach implements factors.Reacher.
func (*Factor) Reach(a factors.Authenticator) (sms.Number, error) {
	number, err := sms.ParseNumber(string(a.Data), "")
	if err != nil {
		return sms.Number{}, fmt.Errorf("smsotp: number of authenticator %s: %w", a.ID, err)
	}
	return number, nil
}
