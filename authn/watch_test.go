package authn_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
)

func TestGuessesEverywhere(t *testing.T) { // THR-5, OT-23: slower for all, and nobody is shut out
	t.Parallel()
	t.Run("one password over many names from many addresses", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.DB.Freeze(t)
		w.Service.Config.Breaker.Failures = 20
		w.Subscriber(t, "alice", "")
		b := begin(t, w, authntest.Beginning())
		try := func(name, address, password string) error {
			_, err := w.Service.Password(authntest.From(t.Context(), address), b.cookie, uuid.Nil, b.id, name, password, "en")
			return err
		}
		var logged bytes.Buffer
		watch := func() string {
			t.Helper()
			logged.Reset()
			if err := w.Service.WatchOnce(t.Context(), slog.New(slog.NewTextHandler(&logged, nil))); err != nil {
				t.Fatal(err)
			}
			return logged.String()
		}
		for n := range 20 {
			if got := watch(); got != "" {
				t.Fatalf("after %d: %s", n, got)
			}
			wants(t, "a guess", try(fmt.Sprintf("user%d", n), fmt.Sprintf("198.51.100.%d", n), "password1"), authn.ErrWrongPair)
		}
		if got := watch(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "password-source") {
			t.Fatalf("nobody is told: %q", got)
		}
		evaluated := 0
		var locked *authn.LockedError
		for n := range 30 {
			err := try(fmt.Sprintf("other%d", n), "203.0.113.7", "password1")
			if errors.As(err, &locked) && locked.Source && !locked.Until.IsZero() {
				break
			}
			wants(t, "a guess", err, authn.ErrWrongPair)
			evaluated++
		}
		if evaluated != 5 {
			t.Errorf("%d guesses of one address were looked at meanwhile, want 5", evaluated)
		}
		if err := try("alice", "192.0.2.1", authntest.Password); err != nil {
			t.Errorf("other users: %v", err)
		}
	})

	t.Run("one code over many challenges", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.DB.Freeze(t)
		w.Service.Ledger.Limits.Breaker.Failures = 12
		var browsers []*browser
		for n := range 6 {
			name := fmt.Sprintf("user%d", n)
			w.Subscriber(t, name, fmt.Sprintf("+1202555014%d", n))
			b := begin(t, w, authntest.Beginning())
			if _, err := b.password(t, name, authntest.Password); err != nil {
				t.Fatal(err)
			}
			browsers = append(browsers, b)
		}
		try := func(n int, address, code string) error {
			_, err := w.Service.Code(authntest.From(t.Context(), address), browsers[n].cookie, browsers[n].id, code)
			return err
		}
		for n := range 12 {
			wants(t, "a guess", try(n%3, fmt.Sprintf("198.51.100.%d", n), "000000"), factors.ErrMismatch)
		}
		var logged bytes.Buffer
		if err := w.Service.WatchOnce(t.Context(), slog.New(slog.NewTextHandler(&logged, nil))); err != nil || !strings.Contains(logged.String(), "factor-source") {
			t.Fatalf("nobody is told: %q, %v", logged.String(), err)
		}
		evaluated := 0
		var blocked *factors.BlockedError
		for n := range 8 {
			err := try(3+n%2, "203.0.113.7", "000000")
			if errors.As(err, &blocked) {
				break
			}
			wants(t, "a guess", err, factors.ErrMismatch)
			evaluated++
		}
		if evaluated != 5 {
			t.Errorf("%d guesses of one address were looked at meanwhile, want 5", evaluated)
		}
		if err := try(5, "192.0.2.1", browsers[5].sent(t)); err != nil {
			t.Errorf("other users: %v", err)
		}
	})
}
