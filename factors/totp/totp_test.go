package totp_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/factortest"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestSuite(t *testing.T) {
	t.Parallel()
	factortest.Run(t, newFixture)
}

func newFixture(t *testing.T) factortest.Fixture {
	t.Helper()
	db, keys := pgtest.New(t), keyring.Ephemeral()
	factor, err := totp.New(keys, "Watchword")
	if err != nil {
		t.Fatal(err)
	}
	ledger := func(db *postgres.DB) *factors.Ledger {
		l, err := factors.NewLedger(db, keys, &sms.Outbox{Keys: keys}, factors.DefaultLimits(), factor)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	f := factortest.Fixture{DB: db, Ledger: ledger(db.DB), Replica: ledger(db.Open(t)), Wrong: "wrong!", Life: 10 * time.Minute}
	if f.Authenticator, _, err = factor.Provision(uuid.New(), "alice"); err != nil {
		t.Fatal(err)
	}
	q := new(postgres.Query)
	q.With("subject", "SELECT 1")
	if err := f.Ledger.Bind(t.Context(), q, "subject", f.Authenticator, ""); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM authenticator_bound")
	if _, err := db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	f.Right = func(t *testing.T, _ uuid.UUID) string { return codeAt(t, f, 0) }
	return f
}

// codeAt is what the app shows when its clock is so many steps ahead of the server's.
func codeAt(t *testing.T, f factortest.Fixture, ahead int64) string {
	t.Helper()
	code, err := totp.Code(f.Authenticator.Data, totp.Step(f.DB.Now(t))+ahead)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// TestVectors are those of RFC 6238 appendix B for SHA-1. They have eight digits; six are the last six.
func TestVectors(t *testing.T) {
	t.Parallel()
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{
		59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130",
	} {
		step := totp.Step(time.Unix(at, 0))
		if got, err := totp.Code(secret, step); err != nil || got != want[2:] {
			t.Errorf("code at %d = %s, %v; want %s", at, got, err, want[2:])
		}
		if got, err := hotp.GenerateCodeCustom("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", uint64(step), hotp.ValidateOpts{Digits: otp.DigitsEight, Algorithm: otp.AlgorithmSHA1}); err != nil || got != want {
			t.Errorf("eight digits at %d = %s, %v; want %s", at, got, err, want)
		}
	}
}

// person signs in with the app, each time in another browser.
type person struct {
	factortest.Fixture
}

func (p person) open(t *testing.T, b factors.Binding) uuid.UUID {
	t.Helper()
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	id, err := p.Ledger.Open(t.Context(), q, "asked", p.Authenticator, b, factors.Prompt{Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM challenge_opened")
	if _, err := p.DB.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	return id
}

func (p person) try(t *testing.T, code string) error {
	t.Helper()
	b := factors.Binding{Purpose: factors.Login, Subject: p.Authenticator.Subject, Browser: uuid.New()}
	id := p.open(t, b)
	a := p.Authenticator
	a.ReadAt = p.DB.Now(t)
	_, err := p.Ledger.Answer(t.Context(), id, a, b, code, nil)
	return err
}

func (p person) counter(t *testing.T) (n int64) {
	t.Helper()
	if err := p.DB.GetContext(t.Context(), &n, "SELECT counter FROM authenticators"); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSteps(t *testing.T) {
	t.Parallel()

	t.Run("TP-3 LIM-6 drift", func(t *testing.T) {
		t.Parallel()
		p := person{newFixture(t)}
		p.DB.Freeze(t)
		for _, tt := range []struct {
			ahead int64
			want  error
		}{{-2, factors.ErrMismatch}, {2, factors.ErrMismatch}, {-1, nil}, {0, nil}, {1, nil}} {
			if err := p.try(t, codeAt(t, p.Fixture, tt.ahead)); !errors.Is(err, tt.want) || errors.Is(err, factors.ErrUsed) {
				t.Errorf("step %+d: %v, want %v", tt.ahead, err, tt.want)
			}
		}
		for ahead := int64(-1); ahead <= 1; ahead++ {
			if err := p.try(t, codeAt(t, p.Fixture, ahead)); !errors.Is(err, factors.ErrUsed) {
				t.Errorf("step %+d again: %v, want ErrUsed", ahead, err)
			}
		}
	})

	t.Run("TP-2 never an older one", func(t *testing.T) {
		t.Parallel()
		p := person{newFixture(t)}
		p.DB.Freeze(t)
		if err := p.try(t, codeAt(t, p.Fixture, 1)); err != nil {
			t.Fatal(err)
		}
		last := p.counter(t)
		for _, ahead := range []int64{0, -1} {
			if err := p.try(t, codeAt(t, p.Fixture, ahead)); !errors.Is(err, factors.ErrUsed) {
				t.Errorf("step %+d after step +1: %v, want ErrUsed", ahead, err)
			}
		}
		if now := p.counter(t); now != last || last != totp.Step(p.DB.Now(t))+1 {
			t.Errorf("last step %d, then %d", last, now)
		}
	})

	t.Run("F-61 the clock goes back", func(t *testing.T) {
		t.Parallel()
		p := person{newFixture(t)}
		p.DB.Freeze(t)
		code := codeAt(t, p.Fixture, 0)
		if err := p.try(t, code); err != nil {
			t.Fatal(err)
		}
		for _, by := range []time.Duration{-30 * time.Second, -time.Hour, time.Hour} {
			p.DB.Advance(t, by)
			if err := p.try(t, code); !errors.Is(err, factors.ErrMismatch) {
				t.Errorf("after a jump of %v: %v", by, err)
			}
		}
	})

	t.Run("F-60 the statement's own time decides", func(t *testing.T) {
		t.Parallel()
		p := person{newFixture(t)}
		p.DB.Freeze(t)
		b := factors.Binding{Purpose: factors.Login, Subject: p.Authenticator.Subject, Browser: uuid.New()}
		id := p.open(t, b)
		a := p.Authenticator
		a.ReadAt = p.DB.Now(t)
		code := codeAt(t, p.Fixture, 0)
		p.DB.Advance(t, time.Minute)
		if _, err := p.Ledger.Answer(t.Context(), id, a, b, code, nil); !errors.Is(err, factors.ErrMismatch) {
			t.Errorf("a code that was right when the authenticator was read, and two steps old since: %v", err)
		}
		if _, err := p.Ledger.Answer(t.Context(), id, a, b, codeAt(t, p.Fixture, 0), nil); err != nil {
			t.Errorf("the code of the statement's time: %v", err)
		}
		if _, err := p.Ledger.Answer(t.Context(), id, p.Authenticator, b, code, nil); err == nil || errors.Is(err, factors.ErrMismatch) {
			t.Errorf("an authenticator that was not read: %v, want a fault", err)
		}
	})

	t.Run("TP-5 brute force", func(t *testing.T) {
		t.Parallel()
		p := person{newFixture(t)}
		p.DB.Freeze(t)
		var blocked *factors.BlockedError
		evaluated := 0
		for range 40 { // each in a new browser
			if err := p.try(t, "wrong!"); errors.Is(err, factors.ErrMismatch) {
				evaluated++
			} else if !errors.As(err, &blocked) {
				t.Fatal(err)
			}
		}
		if err := p.try(t, codeAt(t, p.Fixture, 0)); !errors.As(err, &blocked) || evaluated != 10 {
			t.Errorf("%d guesses evaluated, then the right code: %v; want 10 and a block", evaluated, err)
		}
	})
}

func TestEnrolment(t *testing.T) { // TP-6 to TP-9, TP-11
	t.Parallel()
	f := newFixture(t)
	factor, _ := f.Ledger.Factor(totp.Kind)
	provisioner := factor.(factors.Provisioner)
	subject, browser := uuid.New(), uuid.New()
	binding := func(tab string) factors.Binding {
		return factors.Binding{Purpose: factors.Enrol, Subject: subject, Browser: browser, Context: []byte(tab)}
	}
	begin := func(tab string) (factors.Authenticator, uuid.UUID) {
		t.Helper()
		a, setup, err := provisioner.Provision(subject, "alice@example.com")
		if err != nil {
			t.Fatal(err)
		}
		uri, err := url.Parse(setup.URI)
		if err != nil || len(setup.Secret) != 32 || uri.Scheme != "otpauth" || uri.Host != "totp" || uri.Path != "/Watchword:alice@example.com" ||
			uri.Query().Get("secret") != setup.Secret || uri.Query().Get("issuer") != "Watchword" || uri.Query().Get("period") != "30" || uri.Query().Get("digits") != "6" || uri.Query().Get("algorithm") != "SHA1" {
			t.Fatalf("TP-8: address for apps: %s, %v", setup.URI, err)
		}
		q := new(postgres.Query)
		q.With("asked", "SELECT 1")
		if err := f.Ledger.Propose(t.Context(), q, "asked", a, "", 10*time.Minute, factors.Subscriber(browser)); err != nil {
			t.Fatal(err)
		}
		id, err := f.Ledger.Open(t.Context(), q, "authenticator_proposed", a, binding(tab), factors.Prompt{})
		if err != nil {
			t.Fatal(err)
		}
		q.Finally("SELECT 1 FROM challenge_opened")
		if n, err := f.DB.Run(t.Context(), q); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		return a, id
	}
	code := func(a factors.Authenticator) string {
		t.Helper()
		code, err := totp.Code(a.Data, totp.Step(f.DB.Now(t)))
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	f.DB.Freeze(t)
	first, id1 := begin("tab 1")
	second, id2 := begin("tab 2")
	reread, _, err := f.Ledger.Pending(t.Context(), id2, binding("tab 2"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := provisioner.Setup(reread, "alice@example.com"); err != nil || again.Secret == "" || strings.Contains(again.String(), again.Secret) {
		t.Errorf("P8: a reload shows the secret again: %v, %v", again, err)
	}
	first.ReadAt = f.DB.Now(t)
	if _, err := f.Ledger.Answer(t.Context(), id1, first, binding("tab 1"), code(second), nil); !errors.Is(err, factors.ErrOver) {
		t.Errorf("TP-7: tab 1 with tab 2's code: %v", err)
	}
	if _, err := f.Ledger.Answer(t.Context(), id2, reread, binding("tab 2"), code(first), nil); !errors.Is(err, factors.ErrMismatch) {
		t.Errorf("TP-7: tab 2 with tab 1's code: %v", err)
	}
	if _, err := f.Ledger.Answer(t.Context(), id2, first, binding("tab 2"), code(first), nil); !errors.Is(err, factors.ErrMismatch) {
		t.Errorf("another authenticator than the challenge's: %v", err)
	}
	stranger := binding("tab 2")
	stranger.Subject = uuid.New()
	if _, _, err := f.Ledger.Pending(t.Context(), id2, stranger); !errors.Is(err, factors.ErrOver) {
		t.Errorf("TP-9: another person's: %v", err)
	}
	bound := func() (n int) {
		t.Helper()
		if err := f.DB.GetContext(t.Context(), &n, "SELECT count(*) FROM authenticators WHERE subject = $1 AND unbound_at IS NULL", subject); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if bound() != 0 {
		t.Fatal("bound without proof")
	}
	right := code(second)
	if _, err := f.Ledger.Answer(t.Context(), id2, reread, binding("tab 2"), right, nil); err != nil || bound() != 1 {
		t.Fatalf("the proof: %v, %d bound", err, bound())
	}
	p := person{f}
	p.Authenticator = second
	if err := p.try(t, right); !errors.Is(err, factors.ErrUsed) {
		t.Errorf("TP-1: the code that confirmed the app, at sign-in: %v, want ErrUsed", err)
	}
	f.DB.Advance(t, totp.Period)
	if err := p.try(t, code(second)); err != nil {
		t.Errorf("the next code: %v", err)
	}
	if _, err := provisioner.Setup(factors.Authenticator{ID: uuid.New()}, "alice"); err == nil {
		t.Error("an address was made of no secret")
	}
}
