package notices_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// never is a factor that checks answers itself, and finds them wrong. Nobody is reached by it.
type never struct{}

func (never) Kind() string                   { return "never" }
func (never) AMR() []string                  { return []string{"x_never"} }
func (never) Restricted() bool               { return false }
func (never) Parse(s string) (string, error) { return s, nil }
func (never) Issue(context.Context, factors.Authenticator, factors.Prompt) (factors.Issued, error) {
	return factors.Issued{Life: time.Minute}, nil
}
func (never) Check(context.Context, factors.Authenticator, string, func(any) string) (factors.Check, error) {
	return factors.Check{Right: "false"}, nil
}

// OT-25 for factors that check answers themselves: who is told is the same, and their secrets are copied nowhere.
func TestBlockedChecker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ledger, err := factors.NewLedger(w.DB.DB, w.Keys, &sms.Outbox{Keys: w.Keys}, factors.DefaultLimits(), never{})
	if err != nil {
		t.Fatal(err)
	}
	ledger.Warn = w.Service.Notices.Warn
	a := factors.Authenticator{ID: uuid.New(), Subject: w.alice, Kind: "never", Data: []byte("secret")}
	q := new(postgres.Query)
	q.With("holder", "SELECT 1")
	if err := ledger.Bind(t.Context(), q, "holder", a, ""); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM authenticator_bound")
	if _, err := w.DB.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		b := factors.Binding{Purpose: factors.Login, Subject: w.alice, Browser: uuid.New(), Context: []byte("x")}
		q := new(postgres.Query)
		q.With("asked", "SELECT 1")
		id, err := ledger.Open(t.Context(), q, "asked", a, b, factors.Prompt{})
		if err != nil {
			t.Fatal(err)
		}
		q.Finally("SELECT 1 FROM challenge_opened")
		if _, err := w.DB.Run(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if _, err := ledger.Answer(t.Context(), id, a, b, "x", nil); !errors.Is(err, factors.ErrMismatch) {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{phone, "alice@mail.example"}, recipients(w.told(t))); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
