package authn_test

import (
	"errors"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
)

// Where people see or move money the limits are those of Regulation (EU) 2018/389 Art. 4(3); everywhere else nothing changes.
func TestPaymentAccountLimits(t *testing.T) {
	t.Parallel()
	bank := authntest.Beginning()
	bank.RelyingParty.PaymentAccount = true

	t.Run("LIM-1 a code lives five minutes", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		b := begin(t, w, bank)
		if _, err := b.password(t, "alice", authntest.Password); err != nil {
			t.Fatal(err)
		}
		code := b.sent(t)
		w.DB.Advance(t, 5*time.Minute+time.Second)
		_, err := b.code(t, code)
		wants(t, "a code five minutes old", err, factors.ErrOver)
	})

	t.Run("LIM-3 five wrong codes in a row", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		b := begin(t, w, bank)
		if _, err := b.password(t, "alice", authntest.Password); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			_, err := b.code(t, "000000")
			wants(t, "wrong code", err, factors.ErrMismatch)
		}
		b = begin(t, w, authntest.Beginning()) // the block is the person's, wherever they go
		if _, err := b.password(t, "alice", authntest.Password); err != nil {
			t.Fatal(err)
		}
		_, err := b.code(t, b.sent(t))
		if blocked := new(factors.BlockedError); !errors.As(err, &blocked) {
			t.Errorf("after five: error = %v, want a BlockedError", err)
		}
	})

	t.Run("LIM-4 five wrong passwords in a row", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		b := begin(t, w, bank)
		for range 5 {
			_, err := b.password(t, "alice", "wrong password")
			wants(t, "wrong password", err, authn.ErrWrongPair)
		}
		w.DB.Advance(t, 14*time.Minute)
		_, err := b.password(t, "alice", authntest.Password)
		if locked := new(authn.LockedError); !errors.As(err, &locked) {
			t.Fatalf("after five: error = %v, want a LockedError", err)
		}
		w.DB.Advance(t, time.Minute)
		if _, err := b.password(t, "alice", authntest.Password); err != nil {
			t.Errorf("after the block: %v", err)
		}
	})

	t.Run("LIM-10 a browser that was left alone for five minutes", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
		b := &browser{World: w, service: w.Service, cookie: cookie}
		w.DB.Advance(t, 4*time.Minute+50*time.Second)
		if p := b.begin(t, bank); p.Decision.Step != authn.StepDone {
			t.Fatalf("in time: %+v, want done", p.Decision)
		}
		w.DB.Advance(t, 5*time.Minute+time.Second)
		silent := bank
		silent.Requirement.Silent = true
		if p := b.begin(t, silent); p.Decision.Failure != authn.LoginRequired {
			t.Errorf("silent, too late: %+v, want login_required", p.Decision)
		}
		p := b.begin(t, bank)
		if p.Decision.Step != authn.StepPassword || !p.Decision.Again {
			t.Fatalf("too late: %+v, want the password again", p.Decision)
		}
		if p := b.begin(t, authntest.Beginning()); p.Decision.Step != authn.StepDone {
			t.Errorf("elsewhere: %+v, want done", p.Decision)
		}
	})
}
