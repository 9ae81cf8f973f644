package retention_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
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
	tomorrow := db.Now(t).UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	db.Advance(t, tomorrow.Add(-time.Hour).Sub(db.Now(t)))
	once() // the day that is about to begin
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

// A dump holds every table from its beginning to its end, and no partition can be made meanwhile. A day that begins in it has one already.
func TestDump(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	keeper := &retention.Keeper{DB: db.DB, Log: slog.New(slog.DiscardHandler)}
	midnight := db.Now(t).UTC().Truncate(24*time.Hour).AddDate(0, 0, 2)
	db.Advance(t, midnight.Add(-5*time.Hour).Sub(db.Now(t)))
	if err := keeper.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	dump, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dump.Rollback() //nolint:errcheck // its end
	if _, err := dump.ExecContext(t.Context(), "LOCK TABLE audit_events_default IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	db.Advance(t, 4*time.Hour)
	if err := keeper.Once(t.Context()); err != nil {
		t.Error(err)
	}
	db.Advance(t, 2*time.Hour)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO audit_events (event, outcome) VALUES ('x', 'success')`); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := db.GetContext(t.Context(), &n, "SELECT count(*) FROM audit_events_default"); err != nil || n != 0 {
		t.Errorf("%d records are where nothing is ever dropped, %v", n, err)
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

// Removing what is over keeps the audit chain whole, and what goes before its time is missed: LOG-2, LOG-5.
func TestAuditChain(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	keys, log := keyring.Ephemeral(), slog.New(slog.DiscardHandler)
	keeper := &retention.Keeper{DB: db.DB, Log: log}
	sealer, reader := &audit.Sealer{DB: db.DB, Keys: keys, Log: log}, &audit.Reader{DB: db.DB, Keys: keys}
	verify := func() audit.Report {
		t.Helper()
		report, err := reader.Verify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	now, today := db.Now(t).UTC(), 0
	db.Advance(t, now.Truncate(24*time.Hour).Add(47*time.Hour).Sub(now)) // an hour before midnight
	written := 0
	// Records at the end of a day and at the beginning of the next: those of midnight are linked on the other day.
	for _, days := range []int{0, 1, 30, 399, 400, 401, 402, 429, 430, 431, 461} {
		db.Advance(t, time.Duration(days-today)*24*time.Hour)
		today = days
		if err := keeper.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, wait := range []time.Duration{0, 2 * time.Hour, -2 * time.Hour} {
			for range 2 {
				if _, err := db.ExecContext(t.Context(), `INSERT INTO audit_events (event, outcome) VALUES ('x', 'success')`); err != nil {
					t.Fatal(err)
				}
				written++
			}
			db.Advance(t, wait)
			if wait >= 0 {
				if err := sealer.Once(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := sealer.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		report := verify()
		if report.Fault != nil || report.To != int64(written) {
			t.Fatalf("day %d: %+v, fault %v; want %d sound links", days, report, report.Fault, written)
		}
		if over := days > 400 && days < 461; over != (report.Pruned > 0) {
			t.Fatalf("day %d: %d records are gone", days, report.Pruned)
		}
		if over := days >= 430; over != (report.From > 1) {
			t.Fatalf("day %d: links are kept from %d on", days, report.From)
		}
	}
	for _, table := range []string{"audit_links", "audit_events"} {
		var partition string
		if err := db.GetContext(t.Context(), &partition, `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::regclass AND EXISTS (
			SELECT FROM audit_links l WHERE l.tableoid = inhrelid UNION ALL SELECT FROM audit_events e WHERE e.tableoid = inhrelid) ORDER BY 1 DESC OFFSET 4 LIMIT 1`, table); err != nil {
			t.Fatal(err)
		}
		tx, err := db.BeginTxx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), `ALTER TABLE `+table+` DETACH PARTITION `+partition); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"audit_links": audit.FaultMissing, "audit_events": audit.FaultRemoved}[table]
		if f := verify().Fault; f == nil || f.Kind != want {
			t.Fatalf("without %s the fault is %+v, want %s", partition, f, want)
		}
		day := partition[len(partition)-8:]
		if _, err := db.ExecContext(t.Context(), `ALTER TABLE `+table+` ATTACH PARTITION `+partition+` FOR VALUES FROM ('`+day+` 00:00+00') TO (('`+day+` 00:00+00'::timestamptz + interval '24 hours'))`); err != nil {
			t.Fatal(err)
		}
		if f := verify().Fault; f != nil {
			t.Fatalf("with %s again: %v", partition, f)
		}
	}
}

// Windows that are over go however many they are, and no others.
func TestWindows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO windows (name, key, hits, expires_at)
		SELECT 'number', int4send(n), '{}', wall() - interval '61 minutes' * sign(n) FROM generate_series(0, 45000) n`); err != nil {
		t.Fatal(err)
	}
	if err := (&retention.Keeper{DB: db.DB, Log: slog.New(slog.DiscardHandler)}).Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := db.GetContext(t.Context(), &left, "SELECT count(*) FROM windows"); err != nil || left != 1 {
		t.Fatalf("%d windows are left, %v; want the one that is not over", left, err)
	}
}
