package retention_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/retention"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	keeper := &retention.Keeper{DB: db.DB, Log: slog.New(slog.DiscardHandler)}
	once := func() {
		t.Helper()
		if err := keeper.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	count := func(table string) (n int) {
		t.Helper()
		if err := db.GetContext(t.Context(), &n, "SELECT count(*) FROM "+table); err != nil {
			t.Fatal(err)
		}
		return n
	}
	insert := func() {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), `INSERT INTO authz_codes (hash, expires_at, grant_id, client_id, redirect_uri, code_challenge) VALUES ($1, wall(), $2, 'c', '', '')`,
			[]byte(uuid.NewString()), uuid.New()); err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), `INSERT INTO audit_events (event, outcome) VALUES ('x', 'success')`); err != nil {
			t.Fatal(err)
		}
	}
	insert() // before any partition: the default one takes it
	once()
	once() // again is harmless
	db.Advance(t, 24*time.Hour)
	insert()
	if n := count("authz_codes_default"); n != 1 {
		t.Fatalf("%d rows in the default partition, want the first alone", n)
	}
	once()
	if n := count("authz_codes"); n != 2 {
		t.Fatalf("%d codes after a day, want both: a replay must be recognised", n)
	}
	db.Advance(t, 4*24*time.Hour)
	once()
	if n := count("authz_codes"); n != 0 {
		t.Fatalf("%d codes after five days, want none", n)
	}
	if n := count("audit_events"); n != 2 {
		t.Fatalf("%d audit records, want 2", n)
	}
	if _, err := db.ExecContext(t.Context(), `DELETE FROM audit_events`); err == nil {
		t.Fatal("AD-8: an audit record was deleted")
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE audit_events SET outcome = 'x'`); err == nil {
		t.Fatal("AD-8: an audit record was changed")
	}
}

// Whatever stands behind the address for statements, a lock that outlives its statement is the server's own.
func TestBehindAPooler(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	db, err := postgres.Open(postgres.Config{DSN: "host=127.0.0.1 port=1 sslmode=disable", DirectDSN: server.DSN, Pooled: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // it was never used
	if err := (&retention.Keeper{DB: db, Log: slog.New(slog.DiscardHandler)}).Once(t.Context()); err != nil {
		t.Fatalf("Once, with nothing at the address for statements: %v", err)
	}
	var partitions, locks int
	if err := server.GetContext(t.Context(), &partitions, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sign_ins'::regclass"); err != nil || partitions < 2 {
		t.Fatalf("%d partitions, %v; want those of the days ahead", partitions, err)
	}
	if err := server.GetContext(t.Context(), &locks, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); err != nil || locks != 0 {
		t.Fatalf("%d locks are left, %v", locks, err)
	}
}
