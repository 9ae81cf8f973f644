package transaction_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/transaction"
)

// A database session is killed at every moment of every change. What was acknowledged is so afterwards, and what was not is wholly there or wholly not.
func TestKilled(t *testing.T) { // F-10, REL-2, I4, I7
	t.Parallel()
	w := newWorld(t)
	victim := w.replica(t, w.DB.Open(t))
	victim.Config.Hold, w.service.Config.Hold = 0, 0
	w.service.Ledger.Limits.Source.Burst = 1000
	seen := map[string]int{}
	for round := range 24 {
		r := w.request()
		r.User = transaction.User{Subscriber: w.Subscriber(t, fmt.Sprintf("user%d", round), fmt.Sprintf("+1202555%04d", 1000+round))}
		if _, err := victim.Get(t.Context(), "bank", uuid.New()); err == nil { // so that there is a connection to be killed
			t.Fatal("found")
		}
		created := w.createThis(t, r)
		code := w.Code(t, created.Challenge.ID)
		name := []string{"approve", "refuse", "report", "cancel"}[round%4]
		// Somebody else holds the row: the statement has paid, compared and consumed when it gets there, and waits.
		hold, err := w.DB.BeginTxx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hold.ExecContext(t.Context(), "SELECT FROM transactions WHERE id = $1 FOR UPDATE", created.ID); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			var err error
			switch name {
			case "approve":
				_, err = victim.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: code, Repeat: repeat()})
			case "refuse":
				_, err = victim.Refuse(t.Context(), "bank", created.ID, transaction.Outcome{})
			case "report":
				_, err = victim.Report(t.Context(), "bank", created.ID, transaction.Outcome{})
			case "cancel":
				_, err = victim.Cancel(t.Context(), "bank", created.ID)
			}
			done <- err
		}()
		if round%8 < 4 {
			kill(t, w, done)
		}
		if err := hold.Rollback(); err != nil {
			t.Fatal(err)
		}
		err = <-done
		now, read := w.service.Get(t.Context(), "bank", created.ID)
		if read != nil {
			t.Fatal(read)
		}
		want := map[string]transaction.State{"approve": transaction.Approved, "refuse": transaction.Refused, "report": transaction.Reported, "cancel": transaction.Canceled}[name]
		if err == nil && now.State != want || !slices.Contains([]transaction.State{want, transaction.Pending}, now.State) {
			t.Errorf("%s answered %v, and it is %s", name, err, now.State)
		}
		ended, told := w.count(t, "challenges WHERE id = $1 AND ended_at IS NOT NULL", created.Challenge.ID), len(w.told(t, created.ID))
		records := w.count(t, "audit_events WHERE object = $1 AND event <> 'transaction.create'", transaction.PublicID(created.ID))
		if decided := now.State != transaction.Pending; decided != (ended == 1) || decided != (told > 0) || decided != (records == 1) {
			t.Errorf("%s: %s, with %d challenges ended, %d events, %d records", name, now.State, ended, told, records)
		}
		seen[fmt.Sprintf("%s: acknowledged %v, %s", name, err == nil, now.State)]++
		if now.State == transaction.Pending { // it goes on
			if _, err := w.approve(t, created.ID, code); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		}
	}
	t.Log(seen)
}

// kill ends the database's side of whatever waits for a lock, again when it is tried anew, until the caller gave up or five times.
func kill(t *testing.T, w *world, done chan error) {
	t.Helper()
	for killed := 0; killed < 5; {
		var n int
		if err := w.DB.GetContext(t.Context(), &n, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'`); err != nil {
			t.Fatal(err)
		}
		killed += n
		select {
		case err := <-done:
			done <- err
			return
		case <-time.After(time.Millisecond):
		}
	}
}
