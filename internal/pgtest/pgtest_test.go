package pgtest_test

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestAdvance(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	before := db.Now(t)
	db.Advance(t, time.Hour)
	db.Advance(t, -30*time.Minute)
	if moved := db.Now(t).Sub(before); moved < 30*time.Minute || moved > 31*time.Minute {
		t.Fatalf("clock moved by %v, want 30m", moved)
	}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.SetMaxOpenConns(1)
	q := postgres.NewQuery(`SELECT $1::int + 1`, 41)
	var got int
	if err := db.Get(t.Context(), &got, q); err != nil { // connects and prepares
		t.Fatal(err)
	}
	before := db.RoundTrips.Load()
	if err := db.Get(t.Context(), &got, q); err != nil {
		t.Fatal(err)
	}
	if n := db.RoundTrips.Load() - before; n != 1 || got != 42 {
		t.Fatalf("%d round trips and answer %d, want 1 and 42", n, got)
	}
}
