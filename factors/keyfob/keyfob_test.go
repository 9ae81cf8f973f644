package keyfob_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/factortest"
	"github.com/watchword-auth/watchword/factors/keyfob"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var secret = []byte("12345678901234567890")

func TestSuite(t *testing.T) {
	t.Parallel()
	factortest.Run(t, newFixture)
}

func newFixture(t *testing.T) factortest.Fixture {
	t.Helper()
	db, keys := pgtest.New(t), keyring.Ephemeral()
	factor, err := keyfob.New(keys)
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
	if f.Authenticator, err = keyfob.Fob(uuid.New(), "FOB-0042", secret); err != nil {
		t.Fatal(err)
	}
	q := new(postgres.Query)
	q.With("subject", "SELECT 1")
	if err := f.Ledger.Bind(t.Context(), q, "subject", f.Authenticator, "FOB-0042"); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM authenticator_bound")
	if _, err := db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	f.Right = func(t *testing.T, _ uuid.UUID) string { return shown(t, counter(t, f)+1) }
	return f
}

func shown(t *testing.T, count int64) string {
	t.Helper()
	code, err := keyfob.Code(secret, count)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func counter(t *testing.T, f factortest.Fixture) (n int64) {
	t.Helper()
	if err := f.DB.GetContext(t.Context(), &n, "SELECT counter FROM authenticators"); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestVectors are those of RFC 4226 appendix D.
func TestVectors(t *testing.T) {
	t.Parallel()
	for count, want := range []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"} {
		if got := shown(t, int64(count)); got != want {
			t.Errorf("code %d = %s, want %s", count, got, want)
		}
	}
	if _, err := keyfob.Fob(uuid.New(), "1", secret[:15]); err == nil {
		t.Error("a fob with a secret of 120 bits")
	}
}

// TestPressedForFun skips codes, and never goes back.
func TestPressedForFun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, press := range []struct {
		count int64
		want  error
	}{{0, nil}, {7, nil}, {6, factors.ErrMismatch}, {7, factors.ErrUsed}, {17, nil}, {28, factors.ErrMismatch}, {27, nil}} {
		a := f.Authenticator
		a.Counter = counter(t, f)
		b := factors.Binding{Purpose: factors.Login, Subject: a.Subject, Browser: uuid.New()}
		q := new(postgres.Query)
		q.With("asked", "SELECT 1")
		id, err := f.Ledger.Open(t.Context(), q, "asked", a, b, factors.Prompt{})
		if err != nil {
			t.Fatal(err)
		}
		q.Finally("SELECT 1 FROM challenge_opened")
		if _, err := f.DB.Run(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Ledger.Answer(t.Context(), id, a, b, shown(t, press.count), nil); !errors.Is(err, press.want) {
			t.Errorf("press %d: %v, want %v", press.count, err, press.want)
		}
	}
}
