// Package retention removes what nobody needs any more, and nothing earlier: what guards against a second use is kept for longer than
// that use could succeed.
//
// What only grows is partitioned by day and whole partitions are dropped, so that the cost of a statement does not depend on how long
// the server has been running. Partitions are made hours ahead; a row that finds none goes to a default partition, and is
// deleted from there. One replica at a time does the work, over a connection of its own to the server itself: the lock that it works under and
// its settings belong to a session, which a transaction pooler would hand to others.
package retention

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Partitioned is a table whose rows are dropped by the day.
type Partitioned struct {
	Table, Column string
	Keep          time.Duration
}

// Partitions are the tables that only grow.
func Partitions() []Partitioned {
	const day = 24 * time.Hour
	return []Partitioned{
		{"sign_ins", "created_at", 2 * day},           // an attempt takes an hour at most
		{"challenges", "created_at", 2 * day},         // states are readable for a day
		{"verifications", "created_at", 2 * day},      // with their challenges
		{"messages", "created_at", 7 * day},           // receipts come for days
		{"legs", "created_at", 7 * day},               // with their messages
		{"pushed_requests", "created_at", 2 * day},    // with the sign-ins that they begin
		{"authz_codes", "created_at", 2 * day},        // a code lives a minute; a replay is recognised for a day
		{"access_tokens", "created_at", 2 * day},      // minutes
		{"audit_events", "at", audit.Keep},            // more than a year
		{"audit_links", "linked_at", audit.KeepLinks}, // longer than what they link
		{"mails", "created_at", 7 * day},              // a mail is tried for a day
		{"notices", "created_at", 7 * day},            // with what they became
		{"events", "created_at", events.Keep},         // as far back as they can be replayed
		{"webhook_attempts", "created_at", events.Keep},
	}
}

// swept are deleted row by row: they are few, or must outlive a day.
func swept() []string {
	return []string{
		`DELETE FROM shared_windows WHERE expires_at < wall() - interval '1 hour'`,
		`DELETE FROM idempotency_keys WHERE started_at < wall() - interval '25 hours'`, // answers are given again for a day
		`DELETE FROM recoveries WHERE created_at < wall() - interval '90 days'`,        // as long as operators may ask how somebody got in
		`DELETE FROM receipts WHERE received_at < wall() - interval '7 days'`,          // with the legs that they are about
		`DELETE FROM send_breakers WHERE until < wall() - interval '1 day'`,
		`DELETE FROM webhook_endpoints WHERE listen_until < wall() - interval '1 hour'`, // of desks that went without saying so
		// What waits for an endpoint that was deleted, or disabled, in the moment when it was told; and for events that are over.
		`DELETE FROM webhook_queue q WHERE event_at < wall() - interval '30 days' OR NOT EXISTS (SELECT FROM webhook_endpoints w WHERE w.id = q.endpoint_id AND w.disabled_at IS NULL)`,
		`DELETE FROM client_assertions WHERE expires_at < wall() - interval '1 hour'`,
		`DELETE FROM dpop_proofs WHERE expires_at < wall() - interval '1 hour'`,
		`DELETE FROM backchannel_requests WHERE created_at < wall() - interval '2 days'`, // with the sign-ins that they begin
		`DELETE FROM backchannel_polls WHERE polled_at < wall() - interval '1 hour'`,
		`DELETE FROM authenticators WHERE pending_until < wall() - interval '1 hour'`, // proposed, and never proved
		`DELETE FROM sessions WHERE ended_at < wall() - interval '1 day' OR created_at < wall() - interval '2 days' AND last_seen_at < wall() - interval '1 day'`,
		`DELETE FROM browsers WHERE expires_at < wall()`,
		`DELETE FROM grants WHERE expires_at < wall() - interval '1 day'`,          // with their refresh tokens
		`DELETE FROM transactions WHERE created_at < wall() - interval '550 days'`, // longer than whoever was charged may object
		// A name that nobody has is counted too. Counts of people stay: they say how many failures there were in a row.
		`DELETE FROM streaks s WHERE updated_at < wall() - interval '30 days' AND (blocked_until IS NULL OR blocked_until < wall())
		   AND NOT EXISTS (SELECT FROM subscribers u WHERE uuid_send(u.id) = s.key)`,
	}
}

// windowBatch is how many windows go in one statement.
const windowBatch = 20_000

// sweepWindows removes windows that are over, some at a time: they are as many as numbers were texted in a day, and no index knows when they end.
func sweepWindows(ctx context.Context, conn *sql.Conn) error {
	const over = "expires_at < wall() - interval '1 hour'"
	for {
		gone, err := conn.ExecContext(ctx, fmt.Sprintf("DELETE FROM windows WHERE %s AND ctid = ANY (ARRAY(SELECT ctid FROM windows WHERE %[1]s LIMIT %d))", over, windowBatch))
		if err != nil {
			return fmt.Errorf("sweep windows: %w", err)
		}
		if n, err := gone.RowsAffected(); err != nil || n == 0 {
			return err
		}
	}
}

// ahead is how long before its day a partition is made: longer than a dump of the database takes, which locks out whoever makes one, and no earlier, for every statement pays for each. A day that begins without
// its partition never gets one.
const ahead = 12 * time.Hour

// advisory is the lock that one replica works under; the number has no other meaning.
const advisory = 7_730_114_202

// connectTimeout bounds how long the server may be out of reach before the work is left for the next time.
const connectTimeout = 10 * time.Second

// Keeper does the work.
type Keeper struct {
	DB  *postgres.DB
	Log *slog.Logger
}

// Run works once now and then every hour, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		if err := k.Once(ctx); err != nil && ctx.Err() == nil {
			k.Log.ErrorContext(ctx, "retention failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Once makes the partitions of today and of the day that is about to begin, and removes what is over, unless another replica is at it.
func (k *Keeper) Once(ctx context.Context) (err error) {
	direct, err := sql.Open("postgres", k.DB.DirectDSN())
	if err != nil {
		return errors.New("retention: the direct database address is not a valid connection string") // the driver's own words may hold it
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	connecting, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := direct.Conn(connecting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var mine bool
	if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1)`, int64(advisory)).Scan(&mine); err != nil || !mine {
		return err
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(advisory))
		err = errors.Join(err, unlockErr)
	}()
	// A sign-in must never wait for this: what cannot be locked within a second is left for the next time. Nor does it work for ever.
	if _, err := conn.ExecContext(ctx, `SET application_name = 'watchword'; SET lock_timeout = '1s'; SET statement_timeout = '1min'`); err != nil {
		return err
	}
	var today, soon time.Time
	if err := conn.QueryRowContext(ctx, `SELECT date_trunc('day', wall() AT TIME ZONE 'UTC'), date_trunc('day', (wall() + make_interval(secs => $1)) AT TIME ZONE 'UTC')`, ahead.Seconds()).Scan(&today, &soon); err != nil {
		return err
	}
	var problems []error
	for _, p := range Partitions() {
		problems = append(problems, p.extend(ctx, conn, today, soon), p.trim(ctx, conn, today))
	}
	for _, statement := range swept() {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			problems = append(problems, fmt.Errorf("sweep: %w", err))
		}
	}
	problems = append(problems, sweepWindows(ctx, conn))
	return errors.Join(problems...)
}

func (p Partitioned) name(day time.Time) string { return p.Table + "_" + day.Format("20060102") }

// extend makes the partitions of days that are missing, from one to another.
func (p Partitioned) extend(ctx context.Context, conn *sql.Conn, from, to time.Time) error {
	for day := from; !day.After(to); day = day.AddDate(0, 0, 1) {
		var exists bool
		if err := conn.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, p.name(day)).Scan(&exists); err != nil {
			return err
		}
		if exists {
			continue
		}
		// Made beside its table and then attached: that locks the table for writers least.
		_, err := conn.ExecContext(ctx, fmt.Sprintf(`BEGIN;
			CREATE TABLE %[1]s (LIKE %[2]s INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
			ALTER TABLE %[2]s ATTACH PARTITION %[1]s FOR VALUES FROM ('%[3]s+00') TO ('%[4]s+00');
			COMMIT`, pq.QuoteIdentifier(p.name(day)), p.Table, day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly)))
		if err != nil {
			if _, rollback := conn.ExecContext(ctx, `ROLLBACK`); rollback != nil {
				return errors.Join(err, rollback)
			}
			if pq.As(err, pqerror.CheckViolation) != nil {
				continue // the default partition has rows of that day already: it keeps them
			}
			return fmt.Errorf("partition %s: %w", p.name(day), err)
		}
	}
	return nil
}

// trim drops the partitions that are over and deletes what went to the default one.
func (p Partitioned) trim(ctx context.Context, conn *sql.Conn, today time.Time) error {
	rows, err := conn.QueryContext(ctx, `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::regclass`, p.Table)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var over []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		day, err := time.Parse("20060102", strings.TrimPrefix(name, p.Table+"_"))
		if err == nil && !day.AddDate(0, 0, 1).Add(p.Keep).After(today) {
			over = append(over, name)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, name := range over {
		if _, err := conn.ExecContext(ctx, `DROP TABLE `+pq.QuoteIdentifier(name)); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	if p.Table == "audit_events" || p.Table == "audit_links" {
		return nil // append-only: their rows go with their partition alone
	}
	_, err = conn.ExecContext(ctx, fmt.Sprintf(`DELETE FROM %s_default WHERE %s < wall() - make_interval(secs => $1)`, p.Table, p.Column), p.Keep.Seconds())
	return err
}
