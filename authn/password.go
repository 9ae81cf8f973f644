package authn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/trustelem/zxcvbn"
	"github.com/zitadel/passwap"
	"github.com/zitadel/passwap/argon2"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Bounds on passwords, SP 800-63B-4 section 3.1.1.2.
const (
	MinPassword = 8 // characters, where a second factor always follows
	MaxPassword = 256
	// MinAlonePassword is the minimum where a password can stand alone.
	MinAlonePassword = 15
)

// Errors of new passwords. Each asks for another one.
var (
	ErrPasswordShort  = errors.New("authn: password is too short")
	ErrPasswordLong   = errors.New("authn: password is too long")
	ErrPasswordCommon = errors.New("authn: password is too easy to guess")
	ErrPasswordChars  = errors.New("authn: password has a character that cannot be used")
)

// HashingConfig bounds what password checks may cost.
type HashingConfig struct {
	// Memory of one argon2id computation in KiB. Default and least 19 MiB: SP 800-63B-4 section 3.1.1.2, OWASP.
	Memory uint32
	// Time is the number of passes. Default and least 2.
	Time uint32
	// Concurrency is how many are computed at once. Default 2; memory in use is at most Memory times Concurrency.
	Concurrency int
	// Queue is how many may wait. Default 64. More are refused: [ErrOverloaded].
	Queue int
}

// Passwords hashes and checks, a bounded number at a time. It is safe for concurrent use.
type Passwords struct {
	swapper *passwap.Swapper
	running chan struct{}
	waiting chan struct{}
	nobody  string // a hash that no password matches, for names that do not exist
}

// NewPasswords makes a queue with the given bounds.
func NewPasswords(cfg HashingConfig) (*Passwords, error) {
	if cfg.Memory == 0 {
		cfg.Memory = 19 * 1024
	}
	if cfg.Time == 0 {
		cfg.Time = 2
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 2
	}
	if cfg.Queue == 0 {
		cfg.Queue = 64
	}
	hasher := argon2.NewArgon2id(argon2.Params{Time: cfg.Time, Memory: cfg.Memory, Threads: 1, KeyLen: 32, SaltLen: 16}, nil)
	p := &Passwords{
		swapper: passwap.NewSwapper(hasher),
		running: make(chan struct{}, cfg.Concurrency),
		waiting: make(chan struct{}, cfg.Concurrency+cfg.Queue),
	}
	var err error
	p.nobody, err = p.swapper.Hash(strings.Repeat("nobody", 8))
	return p, err
}

// Hash makes the PHC string to store for password.
func (p *Passwords) Hash(ctx context.Context, password string) (encoded string, err error) {
	err = p.queued(ctx, func() error {
		encoded, err = p.swapper.Hash(normalize(password))
		return err
	})
	return encoded, err
}

// check compares password with encoded; an empty one costs the same and never matches. updated is a
// new hash to store when the parameters have risen.
func (p *Passwords) check(ctx context.Context, encoded, password string) (ok bool, updated string, err error) {
	nobody := encoded == ""
	if nobody {
		encoded = p.nobody
	}
	err = p.queued(ctx, func() error {
		var err error
		updated, err = p.swapper.Verify(encoded, normalize(password))
		if errors.Is(err, passwap.ErrPasswordMismatch) {
			return nil
		}
		ok = err == nil
		return err
	})
	return ok && !nobody && err == nil, updated, err
}

// queued runs work when its turn comes, or not at all.
func (p *Passwords) queued(ctx context.Context, work func() error) error {
	select {
	case p.waiting <- struct{}{}:
		defer func() { <-p.waiting }()
	default:
		return ErrOverloaded
	}
	select {
	case p.running <- struct{}{}:
		defer func() { <-p.running }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return work()
}

// normalize makes the same password of composed and decomposed characters, the same way on set and on check.
func normalize(password string) string { return norm.NFC.String(password) }

// usable refuses what cannot be a password before anything is computed.
func usable(password string) bool {
	return password != "" && len(password) <= 4*MaxPassword && utf8.ValidString(password) && !strings.ContainsRune(password, 0)
}

// CheckNewPassword refuses a password that is too short, too long or among the first that a guesser tries. words are what it must not be
// built from: product, host, the subscriber's names.
func CheckNewPassword(password string, minimum int, words ...string) error {
	if !usable(password) {
		if password == "" {
			return ErrPasswordShort
		}
		return ErrPasswordChars
	}
	switch n := utf8.RuneCountInString(normalize(password)); {
	case n < minimum:
		return ErrPasswordShort
	case n > MaxPassword:
		return ErrPasswordLong
	}
	// The estimator's cost grows with the square of the length; what is long enough is not in a list.
	sample := password
	if len(sample) > 64 {
		sample = sample[:64]
	}
	if zxcvbn.PasswordStrength(sample, words).Score < 2 {
		return ErrPasswordCommon
	}
	return nil
}

// Canonical is the one spelling of a user name or e-mail address under which it is stored, looked up and counted.
func Canonical(identifier string) (string, error) {
	canonical := strings.TrimSpace(cases.Fold().String(norm.NFKC.String(strings.TrimSpace(identifier))))
	canonical = norm.NFKC.String(canonical)
	if canonical == "" || len(canonical) > 320 || !utf8.ValidString(canonical) || strings.ContainsFunc(canonical, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("authn: not a user name")
	}
	return canonical, nil
}
