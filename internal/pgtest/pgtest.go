// Package pgtest gives each test a database of its own on a real PostgreSQL, with the tables made and with a clock
// that the test moves. A package's tests share one private server, which [Main] starts when the first test asks.
package pgtest

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/pgserver"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// shared is the package's server. It is the one global here: the testing package gives no other place for it.
var shared struct {
	once   sync.Once
	server *pgserver.Server
	dir    string
	err    error
	count  atomic.Int64
}

const template = "watchword_template"

// durable has the server write as one does whose data somebody would miss. Benchmarks say more with it.
var durable = flag.Bool("pg.durable", false, "PostgreSQL with fsync, full_page_writes and synchronous_commit on")

// Main runs the package's tests and stops the server afterwards. Call it from TestMain.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is [Main] for a TestMain that has more to do before it exits.
func Run(m *testing.M) int {
	code := m.Run()
	if shared.server != nil {
		shared.server.Stop()
	}
	if shared.dir != "" {
		os.RemoveAll(shared.dir) //nolint:errcheck // a temporary directory
	}
	return code
}

func start() {
	shared.dir, shared.err = os.MkdirTemp("", "watchword-test-")
	if shared.err != nil {
		return
	}
	if shared.err = os.Chmod(shared.dir, 0o711); shared.err != nil { //nolint:gosec // the unprivileged server must enter it
		return
	}
	ctx := context.Background()
	shared.server, shared.err = pgserver.Start(ctx, pgserver.Options{Dir: shared.dir + "/data", Fast: !*durable, MaxConnections: 400})
	if shared.err != nil {
		return
	}
	if shared.err = shared.server.CreateDatabase(ctx, template, ""); shared.err != nil {
		return
	}
	_, shared.err = postgres.Migrate(ctx, shared.server.DSN(template))
}

// Database is one test's own database.
type Database struct {
	*postgres.DB
	DSN        string
	RoundTrips *atomic.Int64 // counted at the socket: every request that waited for an answer

	name string
}

// New makes a database for t. A machine without PostgreSQL fails the test: nothing here is worth
// knowing without one.
func New(t testing.TB) *Database {
	t.Helper()
	shared.once.Do(start)
	if shared.err != nil {
		t.Fatalf("private PostgreSQL: %v", shared.err)
	}
	name := "test_" + strconv.FormatInt(shared.count.Add(1), 10)
	if err := shared.server.CreateDatabase(t.Context(), name, template); err != nil {
		t.Fatalf("create database: %v", err)
	}
	d := &Database{DSN: shared.server.DSN(name), RoundTrips: new(atomic.Int64), name: name}
	d.DB = d.Open(t)
	return d
}

// Open opens another pool on the same database: another replica.
func (d *Database) Open(t testing.TB) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(postgres.Config{DSN: d.DSN, MaxConns: 16, Dialer: countingDialer{trips: d.RoundTrips}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			log.Printf("close test database: %v", err)
		}
	})
	return db
}

// Outage cuts every connection to the database and lets none in.
func (d *Database) Outage(t testing.TB) {
	t.Helper()
	db, err := postgres.Open(postgres.Config{DSN: shared.server.DSN("postgres"), MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // two statements were run
	for _, statement := range []string{`ALTER DATABASE ` + d.name + ` ALLOW_CONNECTIONS false`, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '` + d.name + `'`} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("outage: %v", err)
		}
	}
}

// Advance moves the database's clock.
func (d *Database) Advance(t testing.TB, by time.Duration) {
	t.Helper()
	_, err := d.ExecContext(t.Context(), fmt.Sprintf(`DO $$
		DECLARE moved interval := wall() - now() + interval '%d microseconds';
		BEGIN
			EXECUTE format('CREATE OR REPLACE FUNCTION wall() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $f$SELECT now() + %%L::interval$f$', moved);
		END $$`, by.Microseconds()))
	if err != nil {
		t.Fatalf("advance the clock: %v", err)
	}
}

// Freeze stops the database's clock, so that a race has all the time it needs.
func (d *Database) Freeze(t testing.TB) {
	t.Helper()
	_, err := d.ExecContext(t.Context(), `DO $$ BEGIN
		EXECUTE format('CREATE OR REPLACE FUNCTION wall() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $f$SELECT %L::timestamptz$f$', wall());
		END $$`)
	if err != nil {
		t.Fatalf("freeze the clock: %v", err)
	}
}

// Now is the database's time.
func (d *Database) Now(t testing.TB) time.Time {
	t.Helper()
	var now time.Time
	if err := d.GetContext(context.WithoutCancel(t.Context()), &now, `SELECT wall()`); err != nil { // servers ask while the test cleans up
		t.Fatal(err)
	}
	return now
}

type countingDialer struct{ trips *atomic.Int64 }

func (d countingDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialTimeout(network, address, 0)
}

func (d countingDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, timeout)
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: conn, trips: d.trips}, nil
}

// countingConn counts a round trip whenever a read follows a write.
type countingConn struct {
	net.Conn
	trips *atomic.Int64
	wrote atomic.Bool
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.wrote.Store(true)
	return c.Conn.Write(p)
}

func (c *countingConn) Read(p []byte) (int, error) {
	if c.wrote.Swap(false) {
		c.trips.Add(1)
	}
	return c.Conn.Read(p)
}
