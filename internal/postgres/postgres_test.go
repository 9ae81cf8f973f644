package postgres_test

import (
	"fmt"
	"testing"

	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// conflicts makes a function that PostgreSQL gives up n times with the given state before it answers. A sequence is not rolled back.
func conflicts(t *testing.T, db *pgtest.Database, state string, n int) *postgres.Query {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), `CREATE SEQUENCE tries; CREATE FUNCTION busy(n int) RETURNS int LANGUAGE plpgsql AS $$
		BEGIN
			IF nextval('tries') <= n THEN RAISE EXCEPTION 'busy' USING ERRCODE = '`+state+`'; END IF;
			RETURN currval('tries');
		END $$`); err != nil {
		t.Fatal(err)
	}
	return postgres.NewQuery("SELECT busy($1::int)", n)
}

func TestRetries(t *testing.T) { // F-27, REL-3
	t.Parallel()
	for state, name := range map[string]string{"40001": "serialization", "40P01": "deadlock"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			q := conflicts(t, db, state, 3)
			var tries int
			if err := db.Get(t.Context(), &tries, q); err != nil || tries != 4 {
				t.Fatalf("answered at try %d, %v; want the fourth", tries, err)
			}
		})
	}
	t.Run("in the end it is an error, and one of the database", func(t *testing.T) {
		t.Parallel()
		db := pgtest.New(t)
		q := conflicts(t, db, "40001", 100)
		var tries int
		if err := db.Get(t.Context(), &tries, q); !postgres.Unavailable(err) {
			t.Fatalf("error = %v, want one that means unavailable", err)
		}
		if err := db.GetContext(t.Context(), &tries, "SELECT last_value FROM tries"); err != nil || tries != 4 {
			t.Fatalf("%d tries, %v; want 4", tries, err)
		}
	})
	t.Run("nothing else is tried again", func(t *testing.T) {
		t.Parallel()
		db := pgtest.New(t)
		q := conflicts(t, db, "23505", 1)
		var tries int
		if err := db.Get(t.Context(), &tries, q); err == nil {
			t.Fatal("a violated constraint was tried again")
		}
	})
}

func TestUnavailable(t *testing.T) { // OAU-11
	t.Parallel()
	db := pgtest.New(t)
	for name, tt := range map[string]struct {
		q    *postgres.Query
		want bool
	}{
		"no row":                    {postgres.NewQuery("SELECT 1 WHERE false"), false},
		"text with NUL":             {postgres.NewQuery("SELECT length($1::text)", "a\x00"), false},
		"bytes that are no text":    {postgres.NewQuery("SELECT length($1::text)", "\xff"), false},
		"JSON with NUL":             {postgres.NewQuery("SELECT length(($1::jsonb)->>'a')", `{"a":"\u0000"}`), false},
		"a table that is not there": {postgres.NewQuery("SELECT count(*) FROM nothing"), true},
	} {
		t.Run(name, func(t *testing.T) {
			var n int
			if err := db.Get(t.Context(), &n, tt.q); err == nil || postgres.Unavailable(err) != tt.want {
				t.Errorf("error = %v, unavailable: %v", err, !tt.want)
			}
		})
	}
}

func TestUnpreparedBehindAPooler(t *testing.T) {
	t.Parallel()
	direct := pgtest.New(t)
	db, err := postgres.Open(postgres.Config{DSN: direct.DSN, Pooled: true, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() }) //nolint:errcheck // the test is over
	var got []int
	if err := db.Select(t.Context(), &got, postgres.NewQuery("SELECT generate_series(1, $1::int)", 3)); err != nil || len(got) != 3 {
		t.Fatalf("Select = %v, %v", got, err)
	}
	if n, err := db.Run(t.Context(), postgres.NewQuery("UPDATE clients SET updated_at = wall() WHERE id = $1", "x")); err != nil || n != 0 {
		t.Fatalf("Run = %d, %v", n, err)
	}
	var prepared int
	if err := db.Get(t.Context(), &prepared, postgres.NewQuery("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")); err != nil || prepared != 0 {
		t.Fatalf("%d prepared statements, %v", prepared, err)
	}
}

// What follows a statement follows only if it committed.
func TestThen(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for statement, want := range map[string]int{"SELECT 1": 1, "SELECT 1 WHERE false": 1, "SELECT 1/0": 0} {
		q, called, n := postgres.NewQuery(statement), 0, 0
		q.Then(func() { called++ })
		if err := db.Get(t.Context(), &n, q); called != want {
			t.Errorf("%s (%v): called %d times, want %d", statement, err, called, want)
		}
	}
	q, called := conflicts(t, db, "40001", 2), 0
	q.Then(func() { called++ })
	if _, err := db.Run(t.Context(), q); err != nil || called != 1 {
		t.Errorf("after two tries in vain (%v): called %d times", err, called)
	}
}

// A partition that is attached while a row is on its way to the default one makes that fail: the statement is good a moment later.
func TestRetryable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&pq.Error{Code: "40001"}, true}, {&pq.Error{Code: "40P01"}, true}, {fmt.Errorf("x: %w", &pq.Error{Code: "23514", Table: "challenges_default"}), true},
		{&pq.Error{Code: "23514", Constraint: "challenges_outcome_check"}, false}, {&pq.Error{Code: "23505"}, false}, {nil, false},
	} {
		if got := postgres.Retryable(tt.err); got != tt.want {
			t.Errorf("Retryable(%v) = %v", tt.err, got)
		}
	}
}
