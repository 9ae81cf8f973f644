package recovery_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/recovery"
)

// TestWorkerDies: what a worker had taken when it died is done by another, once.
func TestWorkerDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cookie, err := w.engine.Begin(t.Context(), recovery.Beginning{Kind: recovery.Password, Name: "alice", Channel: recovery.Mail})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE recoveries SET claim = $1, lease_until = wall() + interval '30 seconds'", uuid.New()); err != nil {
		t.Fatal(err)
	}
	w.drain(t)
	if n := w.count(t, "SELECT count(*) FROM mails"); n != 0 {
		t.Fatal("another worker did what was claimed")
	}
	w.DB.Advance(t, 31*time.Second)
	second := w.over(t, w.Replica(t, w.DB.Open(t)))
	race(6, func(n int) {
		if _, err := []*recovery.Engine{w.engine, second}[n%2].Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if n := w.count(t, "SELECT count(*) FROM mails"); n != 1 {
		t.Errorf("%d mails, want 1", n)
	}
	if r, err := w.engine.Load(t.Context(), cookie); err != nil || r.State != recovery.Open {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestConnectionsDie cuts the database's connections while a recovery goes through its states: whatever was answered, each step was done whole or not at all.
func TestConnectionsDie(t *testing.T) {
	t.Parallel()
	for round := range 6 {
		w := newWorld(t)
		frail := w.over(t, w.Replica(t, w.DB.Open(t)))
		w.begin(t, recovery.Password, "alice", recovery.Mail)
		token := w.links(t)[0]
		var stop atomic.Bool
		var cutter sync.WaitGroup
		cutter.Go(func() {
			for !stop.Load() {
				w.count(t, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
			}
		})
		var g *recovery.Grant
		for range 20 {
			if got, err := frail.Follow(t.Context(), token); err == nil {
				g = got
				break
			}
		}
		for range 20 {
			if g == nil || frail.SetPassword(t.Context(), g.Cookie, another) == nil {
				break
			}
		}
		stop.Store(true)
		cutter.Wait()
		state := ""
		if err := w.DB.GetContext(t.Context(), &state, "SELECT state FROM recoveries"); err != nil {
			t.Fatal(err)
		}
		_, changed := w.passwordIs(t, another)
		if changed != (recovery.State(state) == recovery.Finished) {
			t.Errorf("round %d: it is %s, and the password changed: %t", round, state, changed)
		}
		t.Logf("round %d: %s", round, state)
		ends := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'recovery.end'")
		told := w.count(t, "SELECT count(*) FROM notices WHERE kind = 'recovery_finished'")
		proofs := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'recovery.prove'")
		proved := w.count(t, "SELECT cardinality(proofs) FROM recoveries")
		if changed && (ends != 1 || told != 2) || !changed && (ends != 0 || told != 0) || proofs != proved {
			t.Errorf("round %d: %s with %d ends, %d notices, %d proofs, %d of them recorded", round, state, ends, told, proved, proofs)
		}
	}
}
