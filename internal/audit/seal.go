package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// advisory is the lock that one replica links under; the number has no other meaning.
const advisory = 7_730_114_204

const (
	// pause is how often new records are looked for.
	pause = time.Second
	// batch is the default of [Sealer.Batch].
	batch = 10_000
	// piece is how many links are stored at once.
	piece = 2_000
	// lookback is how old the time of a new record may be to be found at once: its transaction may have begun a while ago. It keeps a pass away from the
	// partitions of a year. What is older still, such as what nobody linked for days, is found by the next sweep.
	lookback = 24 * time.Hour
	// sweeps is how often new records are looked for whatever their time: a clock may have been wrong.
	sweeps = 10 * time.Minute
	// checkpoints is how far apart the heads are that are kept.
	checkpoints = time.Hour
	// longestWait bounds the pause after failures.
	longestWait = time.Minute
)

// sealing is how the sealer's connection is set up. A server that vanished gives up its lock within seconds: it no longer asks for anything. Joins are by
// index: what is to be linked is little, and what is linked is much.
const sealing = `SET idle_session_timeout = '15s'; SET idle_in_transaction_session_timeout = '30s';
	SET statement_timeout = '5min'; SET lock_timeout = '5s'; SET enable_hashjoin = off; SET enable_mergejoin = off`

// Sealer links records to the chain, behind those who write them. Any number of replicas may run one: one at a time works, over a connection of its own
// to the server itself, because the lock that it works under belongs to a session.
type Sealer struct {
	DB   *postgres.DB
	Keys Keys
	Log  *slog.Logger
	// Pause between two looks for new records. Default 1 s.
	Pause time.Duration
	// Batch bounds how many records a pass links, so that a long wait is worked off in pieces. Default 10,000.
	Batch int

	last  Head   // that this sealer wrote or found
	swept int64  // the number of the last link when the floor was raised
	clean string // the snapshot of a look that found nothing more
}

// Run links until ctx ends.
func (s *Sealer) Run(ctx context.Context) error {
	if s.Pause == 0 {
		s.Pause = pause
	}
	for wait := s.Pause; ; wait = min(2*wait, longestWait) {
		began, err := s.lead(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop
		}
		s.Log.ErrorContext(ctx, "audit records are not linked", "error", err)
		if began {
			wait = s.Pause
		}
		if err := rest(ctx, wait); err != nil {
			return nil //nolint:nilerr // asked to stop
		}
	}
}

// Once links all that is there, after waiting for whoever is at it.
func (s *Sealer) Once(ctx context.Context) error {
	return connected(ctx, s.DB, sealing, func(conn *sql.Conn) error {
		if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(advisory)); err != nil {
			return err
		}
		return s.all(ctx, conn, true)
	})
}

// lead waits until no other replica is at it and then links, until something fails. It reports whether anything was linked without failure.
func (s *Sealer) lead(ctx context.Context) (began bool, err error) {
	err = connected(ctx, s.DB, sealing, func(conn *sql.Conn) error {
		for mine := false; !mine; {
			if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1)`, int64(advisory)).Scan(&mine); err != nil {
				return err
			}
			if !mine {
				if err := rest(ctx, s.Pause); err != nil {
					return err
				}
			}
		}
		for elapsed := sweeps; ; elapsed += s.Pause { // whoever begins looks everywhere
			if err := s.all(ctx, conn, elapsed >= sweeps); err != nil {
				return err
			}
			if began = true; elapsed >= sweeps {
				elapsed = 0
			}
			if err := rest(ctx, s.Pause); err != nil {
				return err
			}
		}
	})
	return began, err
}

// rest waits, or says that there is nothing more to wait for.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// all links what there is to link.
func (s *Sealer) all(ctx context.Context, conn *sql.Conn, sweep bool) error {
	for {
		switch more, err := s.pass(ctx, conn, false); {
		case err != nil:
			return err
		case more:
			continue
		case sweep:
			_, err := s.pass(ctx, conn, true)
			return err
		}
		return nil
	}
}

// view is what one pass sees.
type view struct {
	head      Head
	kept      sql.Null[time.Time] // time and number of the last checkpoint
	keptSeq   sql.Null[int64]
	saw       snapshot // by which the head was made
	sees      snapshot // now
	now       time.Time
	cluster   string
	elsewhere bool // the transactions of the head are another server's: the tables came here with a dump
}

// pass links new records in one transaction: those that are not a day older than the head, or with sweep those that are. It reports whether there are more.
func (s *Sealer) pass(ctx context.Context, conn *sql.Conn, sweep bool) (more bool, err error) {
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead}) // one snapshot; and whoever moves the head meanwhile makes this fail
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back, and a broken connection rolls back by itself
	v, err := s.look(ctx, tx)
	if err != nil {
		return false, err
	}
	stale := v.head.Seq > 0 && !sweep && v.now.Sub(v.head.At) >= checkpoints // a head tells until when it holds, though nothing happened
	if v.sees.String() == s.clean && !sweep && !stale {
		return false, nil // nobody has written anything anywhere
	}
	var beyond bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM audit_links WHERE seq > $1 AND linked_at >= `+sqlTime(v.head.At.Add(-lookback))+`)`, v.head.Seq).Scan(&beyond); err != nil {
		return false, err
	}
	if beyond { // an earlier head was put back, or somebody else wrote links
		return false, fmt.Errorf("%w: links follow number %d", ErrForged, v.head.Seq)
	}
	head, last, limited, err := s.link(ctx, tx, v, sweep)
	if err != nil {
		return false, err
	}
	linked := head.Seq - v.head.Seq
	more = limited && linked >= int64(s.batch())
	raises := sweep && head.Seq != s.swept // else nothing is there that a floor could be raised over
	if linked == 0 && !raises && !stale && !v.elsewhere {
		if !sweep {
			s.clean = v.sees.String()
		}
		return false, nil
	}
	head.At = v.now
	switch {
	case v.elsewhere:
		head.Seen, head.Floor = v.sees.String(), strconv.FormatUint(v.sees.xmin, 10)
	case sweep: // whatever the head's snapshot saw for sure is linked now, whatever its time
		head.Floor = strconv.FormatUint(v.saw.xmin, 10)
	case !more:
		head.Seen = v.sees.String()
	case last >= v.saw.xmax:
		head.Seen = v.sees.until(last).String()
	}
	head.Cluster = v.cluster
	head.sign(s.Keys)
	if v.head.Seq > v.keptSeq.V && (!v.kept.Valid || v.head.At.Sub(v.kept.V) >= checkpoints || v.now.Sub(v.head.At) >= checkpoints || !day(v.now).Equal(day(v.head.At))) {
		if _, err := tx.ExecContext(ctx, `INSERT INTO audit_checkpoints SELECT seq, hash, at, seen, floor, cluster, key, signature FROM audit_head`); err != nil {
			return false, fmt.Errorf("keep a checkpoint: %w", err)
		}
		s.Log.InfoContext(ctx, "audit checkpoint", "seq", v.head.Seq, "hash", v.head.Hash.String(), "key", v.head.Key)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE audit_head SET seq = $1, hash = $2, at = $3, seen = $4::pg_snapshot, floor = $5::xid8, cluster = $6, key = $7, signature = $8`,
		head.Seq, []byte(head.Hash), head.At, head.Seen, head.Floor, head.Cluster, head.Key, head.Signature); err != nil {
		return false, fmt.Errorf("move the head: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return false, err
	}
	if s.last = head; sweep {
		s.swept = head.Seq
	}
	if !more && !sweep {
		s.clean = v.sees.String()
	}
	return more, nil
}

func (s *Sealer) batch() int {
	if s.Batch == 0 {
		return batch
	}
	return s.Batch
}

// day is the beginning of the day of t.
func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// look reads the head and makes sure that it is ours: what somebody forged must not be signed.
func (s *Sealer) look(ctx context.Context, tx *sql.Tx) (*view, error) {
	v := new(view)
	var sees string
	h := &v.head
	err := tx.QueryRowContext(ctx, `SELECT `+headColumns+`, c.seq, c.at, pg_current_snapshot()::text, wall(), (SELECT system_identifier::text FROM pg_control_system())
		FROM audit_head h LEFT JOIN (SELECT seq, at FROM audit_checkpoints ORDER BY seq DESC LIMIT 1) c ON true`).
		Scan(append(h.into(), &v.keptSeq, &v.kept, &sees, &v.now, &v.cluster)...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: it is missing", ErrForged)
	}
	if err != nil {
		return nil, fmt.Errorf("read the head: %w", err)
	}
	if v.saw, err = parseSnapshot(h.Seen); err != nil {
		return nil, err
	}
	if v.sees, err = parseSnapshot(sees); err != nil {
		return nil, err
	}
	if h.Seq == 0 && h.Key == "" {
		var links bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM audit_links) OR EXISTS (SELECT FROM audit_checkpoints)`).Scan(&links); err != nil {
			return nil, err
		}
		if links {
			return nil, ErrForged
		}
	} else {
		if err := h.verify(s.Keys); err != nil {
			return nil, err
		}
		v.elsewhere = h.Cluster != v.cluster || v.sees.xmax < v.saw.xmax
	}
	if h.Seq < s.last.Seq {
		s.Log.ErrorContext(ctx, "audit chain is shorter than it was", "seq", h.Seq, "was", s.last.Seq, "hash", s.last.Hash.String())
		s.last = *h
	}
	return v, nil
}

// link stores the links of what is new, and gives the head that follows from them, the transaction of the last one, and whether there was a limit.
func (s *Sealer) link(ctx context.Context, tx *sql.Tx, v *view, sweep bool) (head Head, last uint64, limited bool, err error) {
	const unlinked = `NOT EXISTS (SELECT FROM audit_links l WHERE l.event_id = c.id%s)`
	var query string
	if v.elsewhere || sweep {
		if _, err := tx.ExecContext(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return head, 0, false, err
		}
	}
	switch {
	case v.elsewhere:
		query = `SELECT * FROM audit_events c WHERE ` + fmt.Sprintf(unlinked, "")
	case sweep: // what the other passes look at was found by them
		query = fmt.Sprintf(`SELECT * FROM audit_events c WHERE c.at < %s AND c.xid >= '%s' AND c.xid < '%d' AND `, sqlTime(v.head.At.Add(-lookback)), v.head.Floor, v.sees.xmax) +
			fmt.Sprintf(unlinked, "")
	default:
		since := v.head.At
		if v.now.Before(since) {
			since = v.now // the clock was set back
		}
		since, limited = since.Add(-lookback), true
		query = `SELECT * FROM (` + v.saw.unseen(since, v.sees.xmax) + `) c WHERE ` + fmt.Sprintf(unlinked, " AND l.linked_at >= "+sqlTime(since)) +
			fmt.Sprintf(` ORDER BY c.xid FETCH FIRST %d ROWS WITH TIES`, s.batch()) // a transaction is seen as a whole
	}
	if _, err := tx.ExecContext(ctx, `DECLARE found NO SCROLL CURSOR FOR SELECT `+columns+`, e.xid::text FROM (`+query+`) e ORDER BY e.xid, e.at, e.id`); err != nil {
		return head, 0, false, fmt.Errorf("find new records: %w", err)
	}
	head = v.head
	for {
		links, at, err := fetch(ctx, tx, &head)
		if err != nil {
			return head, 0, false, fmt.Errorf("read new records: %w", err)
		}
		if len(links) == 0 {
			_, err := tx.ExecContext(ctx, `CLOSE found`)
			return head, last, limited, err
		}
		last = at
		if err := store(ctx, tx, links); err != nil {
			return head, 0, false, fmt.Errorf("store links: %w", err)
		}
	}
}

// fetch reads the next records, links them and moves head. It gives the transaction of the last one.
func fetch(ctx context.Context, tx *sql.Tx, head *Head) (links []Link, last uint64, err error) {
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(`FETCH %d FROM found`, piece))
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var e Entry
		var xid string
		if err := rows.Scan(append(e.into(), &xid)...); err != nil {
			return nil, 0, err
		}
		if last, err = strconv.ParseUint(xid, 10, 64); err != nil {
			return nil, 0, err
		}
		l := Link{Seq: head.Seq + 1, EventID: e.ID, At: e.At, Digest: e.Digest()}
		l.Hash = l.after(head.Hash)
		head.Seq, head.Hash = l.Seq, l.Hash
		links = append(links, l)
	}
	return links, last, rows.Err()
}

func store(ctx context.Context, tx *sql.Tx, links []Link) error {
	ids, times, sums, hashes := make([]string, len(links)), make([]string, len(links)), make([][]byte, len(links)), make([][]byte, len(links))
	for i, l := range links {
		ids[i], times[i], sums[i], hashes[i] = l.EventID.String(), l.At.UTC().Format(timeFormat), l.Digest, l.Hash
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO audit_links (seq, event_id, at, digest, hash)
		SELECT $1 + n - 1, id, at, digest, hash FROM unnest($2::uuid[], $3::timestamptz[], $4::bytea[], $5::bytea[]) WITH ORDINALITY AS given (id, at, digest, hash, n)`,
		links[0].Seq, pq.Array(ids), pq.Array(times), pq.Array(sums), pq.Array(hashes))
	return err
}
