// Package postgres opens the database and runs statements.
//
// Hot paths are single statements: a [Query] is put together from common table expressions that
// different packages contribute, so that a state change and all that hangs on it (the counted attempt,
// the outbox row, the audit record) commit together and cost one round trip. Nothing here begins a
// transaction on its own.
//
// Time is the database's: SQL compares with wall(), never with a clock of this process.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// Config says how to reach the database.
type Config struct {
	// DSN is a libpq connection string or URL for statements; a pooler may stand behind it.
	DSN string
	// DirectDSN reaches the server itself, for LISTEN and migrations. Default: DSN.
	DirectDSN string
	// MaxConns bounds open connections; as many stay open when idle. Default 16.
	MaxConns int
	// Pooled says that a transaction pooler stands behind DSN: statements are then not prepared.
	Pooled bool
	// StatementTimeout ends a statement on the server. Default 5 s.
	StatementTimeout time.Duration
	// Dialer, when set, makes the connections. Tests count round trips through it.
	Dialer pq.Dialer
}

// DB is a pool that prepares each statement once per connection. It is safe for concurrent use.
type DB struct {
	*sqlx.DB
	cfg      Config
	seed     maphash.Seed
	prepared sync.Map // hash of a query's text → *statement
}

// statement is one that was run before: its text need not be put together again to be known.
type statement struct {
	text string
	on   sqlxStatement
}

// ErrNotFound says that a statement found no row. What that means is the caller's to say.
var ErrNotFound = sql.ErrNoRows

// ErrDSN says that a connection string cannot be read. The driver's own words are never passed on: they repeat what was written, password and all.
var ErrDSN = errors.New("not a connection string")

// Open makes the pool. It does not connect: the first statement does.
func Open(cfg Config) (*DB, error) {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 16
	}
	if cfg.StatementTimeout == 0 {
		cfg.StatementTimeout = 5 * time.Second
	}
	if cfg.DirectDSN == "" {
		cfg.DirectDSN = cfg.DSN
	}
	parameters := map[string]string{
		"binary_parameters": "yes",
		"connect_timeout":   "5",
		"statement_timeout": fmt.Sprint(cfg.StatementTimeout.Milliseconds()),
		"lock_timeout":      fmt.Sprint(cfg.StatementTimeout.Milliseconds()),
		"application_name":  "watchword",
	}
	if !cfg.Pooled {
		// A statement is planned once and run for as long as its connection lives, while tables and the partitions of new days fill: a plan that reads whole tables because
		// they were empty would be slower with every row until somebody counts them. Everything hot is looked up by an index.
		parameters["enable_seqscan"] = "off"
		// Once tables have statistics PostgreSQL takes the plan of a statement with values for cheaper than the one without, and plans it anew for every run, which costs more than to run it.
		parameters["plan_cache_mode"] = "force_generic_plan"
		parameters["jit"] = "off" // statements take less than compiling them would
	}
	dsn, err := withParameters(cfg.DSN, parameters)
	if err != nil {
		return nil, err
	}
	connector, err := pq.NewConnector(dsn)
	if err != nil {
		return nil, ErrDSN
	}
	if cfg.Dialer != nil {
		connector.Dialer(cfg.Dialer)
	}
	pool := sqlx.NewDb(sql.OpenDB(connector), "postgres")
	pool.SetMaxOpenConns(cfg.MaxConns)
	pool.SetMaxIdleConns(cfg.MaxConns)
	pool.SetConnMaxLifetime(30 * time.Minute)
	return &DB{DB: pool, cfg: cfg, seed: maphash.MakeSeed()}, nil
}

// DirectDSN reaches the server itself, for LISTEN and migrations.
func (db *DB) DirectDSN() string { return db.cfg.DirectDSN }

// Get runs q and reads its one row into dest, a struct or a scalar. No row is [ErrNotFound].
func (db *DB) Get(ctx context.Context, dest any, q *Query) error {
	return db.try(ctx, q, func(on sqlxStatement) error { return on.GetContext(ctx, dest, q.args...) })
}

// Select runs q and reads all rows into dest, a slice.
func (db *DB) Select(ctx context.Context, dest any, q *Query) error {
	return db.try(ctx, q, func(on sqlxStatement) error { return on.SelectContext(ctx, dest, q.args...) })
}

// Run runs q for its effect and says how many rows its final statement touched.
func (db *DB) Run(ctx context.Context, q *Query) (rows int64, err error) {
	err = db.try(ctx, q, func(on sqlxStatement) error {
		res, err := on.ExecContext(ctx, q.args...)
		if err != nil {
			return err
		}
		rows, err = res.RowsAffected()
		return err
	})
	return rows, err
}

// maxTries bounds how often a statement is run again after PostgreSQL gave it up in favour of another.
const maxTries = 4

// try runs a statement, again when it lost a deadlock or a serialization conflict: it was rolled back whole, so that nothing is counted or sent twice.
func (db *DB) try(ctx context.Context, q *Query, run func(sqlxStatement) error) error {
	on, err := db.statement(ctx, q)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		err := run(on)
		if err == nil || errors.Is(err, ErrNotFound) {
			for _, f := range q.then {
				f()
			}
		}
		if n == maxTries || !Retryable(err) {
			return err
		}
	}
}

// sqlxStatement is a statement with its text bound.
type sqlxStatement interface {
	GetContext(ctx context.Context, dest any, args ...any) error
	SelectContext(ctx context.Context, dest any, args ...any) error
	ExecContext(ctx context.Context, args ...any) (sql.Result, error)
}

// unprepared sends its text with every run, as a transaction pooler needs it.
type unprepared struct {
	db   *sqlx.DB
	text string
}

func (u unprepared) GetContext(ctx context.Context, dest any, args ...any) error {
	return sqlx.GetContext(ctx, u.db, dest, u.text, args...)
}

func (u unprepared) SelectContext(ctx context.Context, dest any, args ...any) error {
	return sqlx.SelectContext(ctx, u.db, dest, u.text, args...)
}

func (u unprepared) ExecContext(ctx context.Context, args ...any) (sql.Result, error) {
	return u.db.ExecContext(ctx, u.text, args...)
}

// Close closes the statements and the pool.
func (db *DB) Close() error {
	db.prepared.Range(func(_, stmt any) bool {
		if prepared, ok := stmt.(*statement).on.(*sqlx.Stmt); ok {
			prepared.Close() //nolint:errcheck // the pool is closing anyway
		}
		return true
	})
	if err := db.DB.Close(); err != nil && !Unavailable(err) { // a server that is gone needs no farewell
		return err
	}
	return nil
}

// statement is what q is run as, prepared unless there is a pooler.
func (db *DB) statement(ctx context.Context, q *Query) (sqlxStatement, error) {
	hash := q.hash(db.seed)
	known, ok := db.prepared.Load(hash)
	if ok && q.is(known.(*statement).text) {
		return known.(*statement).on, nil
	}
	text := q.String()
	if ok { // another text has the same hash, as good as never
		return unprepared{db.DB, text}, nil
	}
	if db.cfg.Pooled {
		db.prepared.Store(hash, &statement{text, unprepared{db.DB, text}})
		return unprepared{db.DB, text}, nil
	}
	stmt, err := db.PreparexContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if have, loaded := db.prepared.LoadOrStore(hash, &statement{text, stmt}); loaded {
		stmt.Close() //nolint:errcheck // another goroutine was first
		return db.first(have.(*statement), text), nil
	}
	return stmt, nil
}

// first is the statement that somebody else was first to prepare, if it is the same.
func (db *DB) first(have *statement, text string) sqlxStatement {
	if have.text != text {
		return unprepared{db.DB, text}
	}
	return have.on
}

// Unavailable reports whether err means that the database could not do its work now: down, restarting,
// full, read-only, out of time. The caller says so to its own caller (503), and never that something does not exist.
// Every error of the database is one, as far as a person or an application is concerned, but a missing row and data that it cannot hold (class 22): those
// would be refused again, so that nobody is told to come back with them. They are a fault of whoever passed them on.
func Unavailable(err error) bool {
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, context.Canceled) {
		return false
	}
	var opErr *net.OpError
	var pqErr *pq.Error
	if errors.As(err, &pqErr) {
		return pqErr.Code.Class() != pqerror.ClassDataException
	}
	return errors.As(err, &opErr) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, pq.ErrSSLNotSupported) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Retryable reports whether running the same statement again may help: a serialization failure, a deadlock, or a row that was on its way to the default partition when its own was attached, of which PostgreSQL
// says that it violates a check without a name.
func Retryable(err error) bool {
	if violated := pq.As(err, pqerror.CheckViolation); violated != nil {
		return violated.Constraint == ""
	}
	return pq.As(err, pqerror.TRSerializationFailure, pqerror.TRDeadlockDetected) != nil
}

// withParameters adds connection parameters that dsn does not set itself.
func withParameters(dsn string, add map[string]string) (string, error) {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		u, err := url.Parse(dsn)
		if err != nil {
			return "", ErrDSN
		}
		values := u.Query()
		for key, value := range add {
			if !values.Has(key) {
				values.Set(key, value)
			}
		}
		u.RawQuery = values.Encode()
		return u.String(), nil
	}
	for key, value := range add {
		if !strings.Contains(dsn, key+"=") {
			dsn += " " + key + "=" + value
		}
	}
	return strings.TrimSpace(dsn), nil
}
