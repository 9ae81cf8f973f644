package backupcode_test

import (
	"errors"
	"math/bits"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/factortest"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestSuite(t *testing.T) {
	t.Parallel()
	factortest.Run(t, func(t *testing.T) factortest.Fixture {
		t.Helper()
		return newPaper(t).Fixture
	})
}

// paper is a subject with a set of codes in the hand.
type paper struct {
	factortest.Fixture
	factor *backupcode.Factor
	codes  []string
}

func newPaper(t *testing.T) *paper {
	t.Helper()
	db, keys := pgtest.New(t), keyring.Ephemeral()
	p := new(paper)
	var err error
	if p.factor, err = backupcode.New(keys); err != nil {
		t.Fatal(err)
	}
	ledger := func(db *postgres.DB) *factors.Ledger {
		l, err := factors.NewLedger(db, keys, &sms.Outbox{Keys: keys}, factors.DefaultLimits(), p.factor)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	p.Fixture = factortest.Fixture{DB: db, Ledger: ledger(db.DB), Replica: ledger(db.Open(t)), Wrong: parsed(t, p.factor, "0000-0000-0000-0000"), Life: 10 * time.Minute}
	p.Authenticator, p.codes = p.generate(t, p.Ledger, uuid.New())
	p.Right = func(t *testing.T, _ uuid.UUID) string {
		t.Helper()
		used := p.used(t)
		if used == len(p.codes) {
			t.Fatal("no code is left")
		}
		return parsed(t, p.factor, p.codes[used])
	}
	return p
}

// generate binds a new set to a subject.
func (p *paper) generate(t *testing.T, l *factors.Ledger, subject uuid.UUID) (factors.Authenticator, []string) {
	t.Helper()
	a, setup, err := p.factor.Provision(subject, "alice")
	if err != nil {
		t.Fatal(err)
	}
	q := new(postgres.Query)
	q.With("subject", "SELECT 1")
	if err := l.Bind(t.Context(), q, "subject", a, ""); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM authenticator_bound")
	if n, err := l.DB.Run(t.Context(), q); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	return a, setup.Codes
}

// try signs in with a code, in a browser of its own.
func (p *paper) try(t *testing.T, l *factors.Ledger, a factors.Authenticator, code string) error {
	t.Helper()
	b := factors.Binding{Purpose: factors.Login, Subject: a.Subject, Browser: uuid.New()}
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	id, err := l.Open(t.Context(), q, "asked", a, b, factors.Prompt{})
	if err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM challenge_opened")
	if _, err := l.DB.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	_, err = l.Answer(t.Context(), id, a, b, parsed(t, p.factor, code), nil)
	return err
}

func (p *paper) left(t *testing.T, subject uuid.UUID) (n int) {
	t.Helper()
	if err := p.DB.GetContext(t.Context(), &n, "SELECT cardinality(codes_left) FROM authenticators WHERE subject = $1 AND unbound_at IS NULL", subject); err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *paper) used(t *testing.T) int { return backupcode.Count - p.left(t, p.Authenticator.Subject) }

func parsed(t *testing.T, f *backupcode.Factor, typed string) string {
	t.Helper()
	answer, err := f.Parse(typed)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestOnce(t *testing.T) {
	t.Parallel()
	p := newPaper(t)
	subject := p.Authenticator.Subject
	if err := p.try(t, p.Ledger, p.Authenticator, p.codes[3]); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*factors.Ledger{p.Ledger, p.Replica} { // BC-1
		if err := p.try(t, l, p.Authenticator, p.codes[3]); !errors.Is(err, factors.ErrUsed) {
			t.Errorf("BC-1: the same code again: %v, want ErrUsed", err)
		}
	}
	if left := p.left(t, subject); left != 9 {
		t.Errorf("BC-1: %d codes left, want 9", left)
	}
	for _, n := range []int{0, 1, 2, 4, 5, 6, 7, 8, 9} {
		if err := p.try(t, p.Ledger, p.Authenticator, p.codes[n]); err != nil {
			t.Errorf("code %d: %v", n, err)
		}
	}
	if left := p.left(t, subject); left != 0 {
		t.Errorf("%d codes left, want none", left)
	}
}

func TestForeign(t *testing.T) { // BC-6
	t.Parallel()
	p := newPaper(t)
	other, theirs := p.generate(t, p.Ledger, uuid.New())
	if err := p.try(t, p.Ledger, other, p.codes[0]); !errors.Is(err, factors.ErrMismatch) || errors.Is(err, factors.ErrUsed) {
		t.Errorf("somebody else's code: %v, want ErrMismatch", err)
	}
	if err := p.try(t, p.Ledger, p.Authenticator, p.codes[0]); err != nil {
		t.Errorf("its owner: %v", err)
	}
	if err := p.try(t, p.Ledger, other, theirs[0]); err != nil {
		t.Errorf("their own: %v", err)
	}
	// An authenticator of somebody else under one's own challenge.
	b := factors.Binding{Purpose: factors.Login, Subject: other.Subject, Browser: uuid.New()}
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	id, err := p.Ledger.Open(t.Context(), q, "asked", other, b, factors.Prompt{})
	if err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM challenge_opened")
	if _, err := p.DB.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Ledger.Answer(t.Context(), id, p.Authenticator, b, parsed(t, p.factor, p.codes[1]), nil); !errors.Is(err, factors.ErrMismatch) {
		t.Errorf("another authenticator than the challenge's: %v", err)
	}
	if left := p.left(t, p.Authenticator.Subject); left != 9 {
		t.Errorf("%d codes left, want 9", left)
	}
}

func TestRegenerate(t *testing.T) { // BC-3
	t.Parallel()
	p := newPaper(t)
	subject := p.Authenticator.Subject
	if err := p.try(t, p.Ledger, p.Authenticator, p.codes[0]); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var sets [][]string
	for i := range 20 {
		wg.Go(func() {
			_, codes := p.generate(t, []*factors.Ledger{p.Ledger, p.Replica}[i%2], subject)
			mu.Lock()
			defer mu.Unlock()
			sets = append(sets, codes)
		})
	}
	wg.Wait()
	if left := p.left(t, subject); left != 10 {
		t.Fatalf("%d codes left, want 10: exactly one set", left)
	}
	for _, code := range p.codes[:2] {
		if err := p.try(t, p.Ledger, p.Authenticator, code); !errors.Is(err, factors.ErrMismatch) || errors.Is(err, factors.ErrUsed) {
			t.Errorf("a code of the old set: %v, want ErrMismatch", err)
		}
	}
	valid := 0
	for _, codes := range sets {
		if _, err := p.DB.ExecContext(t.Context(), "DELETE FROM streaks; DELETE FROM windows"); err != nil { // nobody guesses here
			t.Fatal(err)
		}
		switch err := p.try(t, p.Ledger, p.Authenticator, codes[0]); {
		case err == nil:
			valid++
			for _, code := range codes[1:] {
				if err := p.try(t, p.Ledger, p.Authenticator, code); err != nil {
					t.Errorf("a code of the set that stands: %v", err)
				}
			}
		case !errors.Is(err, factors.ErrMismatch):
			t.Errorf("a code of a set that was replaced: %v", err)
		}
	}
	if valid != 1 || p.left(t, subject) != 0 {
		t.Errorf("%d sets are good, %d codes left; want 1 and 0", valid, p.left(t, subject))
	}
}

func TestBruteForce(t *testing.T) { // BC-5
	t.Parallel()
	p := newPaper(t)
	p.DB.Freeze(t)
	evaluated := 0
	var blocked *factors.BlockedError
	for range 40 { // each in a new browser
		if err := p.try(t, p.Ledger, p.Authenticator, "0000-0000-0000-0000"); errors.Is(err, factors.ErrMismatch) {
			evaluated++
		} else if !errors.As(err, &blocked) {
			t.Fatal(err)
		}
	}
	if err := p.try(t, p.Replica, p.Authenticator, p.codes[0]); !errors.As(err, &blocked) || evaluated != 10 {
		t.Errorf("%d guesses evaluated, then a right one: %v; want 10 and a block", evaluated, err)
	}
	if p.used(t) != 0 {
		t.Errorf("%d codes were used up", p.used(t))
	}
}

func TestParse(t *testing.T) { // BC-7
	t.Parallel()
	p := newPaper(t)
	code := p.codes[0]
	plain := strings.ReplaceAll(code, "-", "")
	for name, typed := range map[string]string{
		"as shown": code, "lower case": strings.ToLower(code), "without hyphens": plain, "spaces": strings.ReplaceAll(code, "-", "  "), "around it": "\t" + code + "\n",
		"full width": strings.Map(func(r rune) rune {
			if r > ' ' {
				return r - '!' + '！'
			}
			return r
		}, code),
		"other hyphens": strings.ReplaceAll(code, "-", "–"),
		"look-alikes":   strings.NewReplacer("0", "o", "1", "l").Replace(code),
	} {
		if answer, err := p.factor.Parse(typed); err != nil || answer != plain {
			t.Errorf("%s: %q, %v; want %q", name, answer, err, plain)
		}
	}
	for name, tt := range map[string]struct {
		typed string
		want  error
	}{
		"empty": {"", factors.ErrCodeEmpty}, "hyphens": {"----", factors.ErrCodeEmpty}, "prefix": {code[:14], factors.ErrCodeShort}, "one short": {plain[:15], factors.ErrCodeShort},
		"two joined": {code + p.codes[1], factors.ErrCodeLong}, "list": {strings.Join(p.codes, ","), factors.ErrCodeLong}, "null": {"null", factors.ErrCodeChars},
		"a letter that no code has": {"U" + plain[1:], factors.ErrCodeChars}, "another script": {"я" + plain[1:], factors.ErrCodeChars}, "endless": {strings.Repeat(plain, 100), factors.ErrCodeLong},
	} {
		if answer, err := p.factor.Parse(tt.typed); !errors.Is(err, tt.want) {
			t.Errorf("%s: %q, %v; want %v", name, answer, err, tt.want)
		}
	}
	if err := p.try(t, p.Ledger, p.Authenticator, strings.ToLower(plain)); err != nil {
		t.Fatal(err)
	}
	if err := p.try(t, p.Ledger, p.Authenticator, code); !errors.Is(err, factors.ErrUsed) || p.left(t, p.Authenticator.Subject) != 9 {
		t.Errorf("another spelling of a used code: %v, %d left", err, p.left(t, p.Authenticator.Subject))
	}
}

func TestCodes(t *testing.T) { // BC-4, BC-10, LIM-7
	t.Parallel()
	f, err := backupcode.New(keyring.Ephemeral())
	if err != nil {
		t.Fatal(err)
	}
	seen, last, rising := map[string]bool{}, "", 0
	var ones [80]int
	for range 100 {
		a, setup, err := f.Provision(uuid.New(), "alice")
		if err != nil || len(setup.Codes) != 10 || len(a.Codes) != 10 {
			t.Fatalf("%d codes, %d hashes, %v", len(setup.Codes), len(a.Codes), err)
		}
		if again, err := f.Setup(a, "alice"); err != nil || len(again.Codes) != 0 {
			t.Fatalf("BC-4: codes are shown again: %v", err)
		}
		if strings.Contains(setup.String(), setup.Codes[0]) {
			t.Fatal("BC-4: codes are printed")
		}
		for _, code := range setup.Codes {
			if len(code) != 19 || seen[code] {
				t.Fatalf("%q: of another form, or a second time", code)
			}
			seen[code] = true
			if code > last {
				rising++
			}
			last = code
			bit := 0
			for _, c := range strings.ReplaceAll(code, "-", "") {
				v := strings.IndexRune("0123456789ABCDEFGHJKMNPQRSTVWXYZ", c)
				if v < 0 || bits.Len(uint(v)) > 5 {
					t.Fatalf("%q has %q", code, c)
				}
				for shift := 4; shift >= 0; shift-- {
					ones[bit] += v >> shift & 1
					bit++
				}
			}
		}
	}
	// Of 1000 tosses 350 to 650 are heads, but for one in 10^20; so each of 80 bits is a toss, and so is which of two neighbours is greater.
	for bit, n := range ones {
		if n < 350 || n > 650 {
			t.Errorf("bit %d is set in %d of 1000 codes", bit, n)
		}
	}
	if rising < 350 || rising > 650 {
		t.Errorf("%d of 1000 codes are greater than the one before", rising)
	}
	if _, err := backupcode.New(nil); err == nil {
		t.Error("codes without keys")
	}
}
