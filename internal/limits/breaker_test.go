package limits_test

import (
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestBreaker(t *testing.T) { // THR-5: many guesses over all keys leave each key less room, and nobody none
	t.Parallel()
	db := pgtest.New(t)
	replica := db.Open(t)
	window := limits.Window{Name: "wrong", Burst: 6, Tight: 2, Period: 5 * time.Minute}
	breaker := limits.Breaker{Window: window, Event: "try", Only: "subject IS NULL", Failures: 10, Share: 0.5, Period: 5 * time.Minute, Pause: 10 * time.Minute}
	record := func(outcome string, n int) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), "INSERT INTO audit_events (event, outcome) SELECT 'try', $1 FROM generate_series(1, $2)", outcome, n); err != nil {
			t.Fatal(err)
		}
	}
	opened := func(want bool) {
		t.Helper()
		got := make(chan *limits.Tripped, 2)
		var both sync.WaitGroup
		for _, on := range []*postgres.DB{db.DB, replica} {
			both.Go(func() {
				tripped, err := breaker.Watch(t.Context(), on)
				if err != nil {
					t.Error(err)
				}
				got <- tripped
			})
		}
		both.Wait()
		if first, second := <-got, <-got; (first != nil || second != nil) != want || first != nil && second != nil {
			t.Fatalf("opened %+v and %+v; want it %t, and told once", first, second, want)
		}
	}
	room := func(key string) (n int) {
		t.Helper()
		for take(t, db.DB, limits.Hit{Window: window, Key: []byte(key)}).Allowed {
			n++
		}
		return n
	}
	record("refused", 9)
	if _, err := db.ExecContext(t.Context(), "INSERT INTO audit_events (event, outcome, subject) SELECT 'try', 'refused', gen_random_uuid() FROM generate_series(1, 20)"); err != nil {
		t.Fatal(err)
	}
	opened(false) // too few
	record("success", 12)
	record("refused", 1)
	opened(false) // others are right more often
	if n := room("before"); n != 6 {
		t.Fatalf("room for %d while it is closed, want 6", n)
	}
	record("refused", 2)
	opened(true)
	opened(false) // it is open
	for _, key := range []string{"a", "b"} {
		if n := room(key); n != 2 {
			t.Errorf("room for %d of a key while it is open, want 2", n)
		}
	}
	if n := room("before"); n != 0 {
		t.Errorf("room for %d more of a key that was full", n)
	}
	db.Advance(t, 5*time.Minute+time.Second)
	if n := room("a"); n != 2 {
		t.Errorf("room for %d of a key after its period, want 2", n)
	}
	opened(false)
	db.Advance(t, 5*time.Minute)
	if n := room("c"); n != 6 {
		t.Errorf("room for %d after the pause, want 6", n)
	}
	opened(false) // those that opened it are over
	record("refused", 10)
	opened(true)
	var recorded int
	if err := db.GetContext(t.Context(), &recorded, "SELECT count(*) FROM audit_events WHERE event = 'guessing.breaker' AND object = 'wrong'"); err != nil || recorded != 2 {
		t.Errorf("%d records, %v; want 2", recorded, err)
	}
}
