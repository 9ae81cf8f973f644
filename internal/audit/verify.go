package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// How long records and their links are kept at least. Links are kept for longer, so that every record that is there has one.
const (
	Keep      = 400 * 24 * time.Hour
	KeepLinks = 430 * 24 * time.Hour
)

// What can be wrong with a chain.
const (
	FaultHead       = "head"       // the head is missing, or not signed with our key
	FaultCheckpoint = "checkpoint" // a checkpoint is not signed with our key
	FaultCut        = "cut"        // the end of the chain was removed: a checkpoint or an anchor knows more of it
	FaultMissing    = "missing"    // links were removed
	FaultExtra      = "extra"      // a link was added
	FaultReordered  = "reordered"  // a link stands at another place
	FaultLink       = "link"       // a link was changed
	FaultRewritten  = "rewritten"  // links fit one another, and not what was signed or noted
	FaultRemoved    = "removed"    // a record was removed
	FaultChanged    = "changed"    // a record was changed
	FaultUnlinked   = "unlinked"   // a record was added behind the back of the chain
)

// FaultError is the first place where the chain does not bear out. It is what a broken chain is told by.
type FaultError struct {
	Kind   string        `json:"kind"`
	Seq    int64         `json:"seq,omitempty"` // the link; 0 where it is about none
	Record uuid.NullUUID `json:"record"`
	At     *time.Time    `json:"at,omitempty"` // of the record
	Detail string        `json:"detail"`

	cause error
}

func (f *FaultError) Error() string { return f.Detail }

// Unwrap gives [ErrForged] or [ErrOtherKey] of a head or a checkpoint.
func (f *FaultError) Unwrap() error { return f.cause }

// fault makes one. l may be nil.
func fault(kind string, seq int64, l *Link, format string, args ...any) *FaultError {
	text := fmt.Errorf(format, args...)
	f := &FaultError{Kind: kind, Seq: seq, Detail: strings.ReplaceAll(text.Error(), "audit: ", ""), cause: errors.Unwrap(text)}
	if l != nil {
		at := l.At.UTC()
		f.Record, f.At = uuid.NullUUID{UUID: l.EventID, Valid: true}, &at
	}
	return f
}

// Report is what [Reader.Verify] found.
type Report struct {
	From    int64 `json:"from"`    // the first link that was looked at
	To      int64 `json:"to"`      // the last one that bears out
	Records int64 `json:"records"` // of them, those whose record is there and unchanged
	Pruned  int64 `json:"pruned"`  // of them, those whose record is gone because its time is over
	Waiting int64 `json:"waiting"` // records that are not linked yet
	// Oldest of those that wait.
	Oldest *time.Time  `json:"oldest_waiting,omitempty"`
	Head   Head        `json:"head"`
	Key    []byte      `json:"public_key,omitempty"` // Ed25519, for those who have no key files
	Fault  *FaultError `json:"fault,omitempty"`
}

// Anchor is the end of the chain as somebody noted it, in a place that whoever owns the database cannot reach.
type Anchor struct {
	Seq  int64 `json:"seq"`
	Hash Hash  `json:"hash"`
}

// Reader reads what the sealer wrote. It changes nothing, and asks in small statements over a connection of its own, so that nobody waits for it.
type Reader struct {
	DB   *postgres.DB
	Keys Keys
}

// reading is how the connection of a reader is set up.
const reading = `SET default_transaction_read_only = on; SET statement_timeout = '10min'; SET lock_timeout = '10s'`

// walk is one verification.
type walk struct {
	Report
	conn    *sql.Conn
	keys    Keys
	today   time.Time // as the head says, which is signed, with a day to spare: what is over is gone by then
	cluster string
	sees    snapshot
	seq     int64 // of the link that was looked at last
	hash    Hash
	signed  []Anchor // what the chain has to lead through, in order
	names   map[int64]string
}

// Verify looks at the whole chain that is kept and says where it breaks first, if it does; an error says that it could not be looked at. It has to lead
// through all anchors.
func (r *Reader) Verify(ctx context.Context, anchors ...Anchor) (report Report, err error) {
	err = connected(ctx, r.DB, reading, func(conn *sql.Conn) error {
		w := &walk{conn: conn, keys: r.Keys, names: map[int64]string{}}
		err := w.run(ctx, anchors)
		if f, ok := errors.AsType[*FaultError](err); ok {
			w.Fault, err = f, nil
		}
		w.To = w.seq
		report = w.Report
		return err
	})
	return report, err
}

func (w *walk) run(ctx context.Context, anchors []Anchor) error {
	if err := w.begin(ctx, anchors); err != nil {
		return err
	}
	// The chain grows while it is looked at: what was added meanwhile is looked at too, once.
	if err := w.follow(ctx, &w.Head); err != nil {
		return err
	}
	later, err := readHead(ctx, w.conn)
	if err != nil {
		return err
	}
	if later.Seq < w.Head.Seq {
		return fault(FaultCut, w.Head.Seq, nil, "the chain ends at link %d now, and ended at link %d when it was looked at first", later.Seq, w.Head.Seq)
	}
	if err := w.bears(ctx, &later); err != nil {
		return err
	}
	if err := w.follow(ctx, &later); err != nil {
		return err
	}
	w.Head = later
	var beyond sql.Null[int64]
	if err := w.conn.QueryRowContext(ctx, `SELECT min(seq) FROM audit_links WHERE seq > (SELECT seq FROM audit_head)`).Scan(&beyond); err != nil {
		return err
	}
	if beyond.Valid {
		return fault(FaultExtra, beyond.V, nil, "link %d was added behind the signed end of the chain, or the chain was cut back", beyond.V)
	}
	return w.unlinked(ctx)
}

// bears holds a head against its signature.
func (w *walk) bears(ctx context.Context, h *Head) error {
	if h.Seq == 0 && h.Key == "" {
		var links bool // beside that very head: the first links of all may have been made since it was read
		if err := w.conn.QueryRowContext(ctx, `
			SELECT EXISTS (SELECT FROM audit_head WHERE seq = 0) AND (EXISTS (SELECT FROM audit_links) OR EXISTS (SELECT FROM audit_checkpoints))`).Scan(&links); err != nil {
			return err
		}
		if links {
			return fault(FaultHead, 0, nil, "the head of the chain says that nothing is linked, and there are links or checkpoints")
		}
		return nil
	}
	if err := h.verify(w.keys); err != nil {
		return fault(FaultHead, h.Seq, nil, "%w", err)
	}
	return nil
}

// readHead reads the end of the chain.
func readHead(ctx context.Context, conn *sql.Conn) (h Head, err error) {
	err = conn.QueryRowContext(ctx, `SELECT `+headColumns+` FROM audit_head h`).Scan(h.into()...)
	if errors.Is(err, sql.ErrNoRows) {
		return h, fault(FaultHead, 0, nil, "the head of the chain is missing")
	}
	if err != nil {
		return h, fmt.Errorf("read the head: %w", err)
	}
	h.At = h.At.UTC()
	return h, nil
}

// begin reads what was signed and finds the place to begin at.
func (w *walk) begin(ctx context.Context, anchors []Anchor) (err error) {
	var sees string
	if err := w.conn.QueryRowContext(ctx, `SELECT pg_current_snapshot()::text, (SELECT system_identifier::text FROM pg_control_system())`).Scan(&sees, &w.cluster); err != nil {
		return err
	}
	if w.sees, err = parseSnapshot(sees); err != nil {
		return err
	}
	if w.Head, err = readHead(ctx, w.conn); err != nil {
		return err
	}
	if err := w.bears(ctx, &w.Head); err != nil {
		return err
	}
	w.Key, w.today = w.Head.PublicKey(w.keys), day(w.Head.At).AddDate(0, 0, 1)
	rows, err := w.conn.QueryContext(ctx, `SELECT `+headColumns+` FROM audit_checkpoints h ORDER BY h.seq`)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	w.hash = genesis()
	start := w.today.Add(-KeepLinks) // what was linked before that may be gone
	var beyond []int64               // checkpoints that this head does not know of: the chain may have grown since it was read
	for rows.Next() {
		var c Head
		if err := rows.Scan(c.into()...); err != nil {
			return err
		}
		if err := c.verify(w.keys); err != nil {
			return fault(FaultCheckpoint, c.Seq, nil, "the checkpoint after link %d is not ours: %w", c.Seq, err)
		}
		if c.Seq > w.Head.Seq {
			beyond = append(beyond, c.Seq)
			continue
		}
		if c.At.Before(start) {
			w.seq, w.hash = c.Seq, c.Hash
			continue
		}
		w.mark(c.Seq, c.Hash, "the checkpoint of "+c.At.UTC().Format(time.RFC3339))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(beyond) > 0 {
		now, err := readHead(ctx, w.conn)
		if err != nil {
			return err
		}
		for _, seq := range beyond {
			if seq > now.Seq {
				return fault(FaultCut, seq, nil, "the chain ends at link %d, and there is a checkpoint after link %d: its end was removed", now.Seq, seq)
			}
		}
	}
	for _, a := range anchors {
		if a.Seq > w.Head.Seq {
			return fault(FaultCut, a.Seq, nil, "the chain ends at link %d, and the anchor knows link %d: its end was removed", w.Head.Seq, a.Seq)
		}
		if a.Seq == 0 || a.Seq < w.seq {
			continue // older than what is kept
		}
		if a.Seq == w.seq && !a.Hash.Equal(w.hash) {
			return fault(FaultRewritten, a.Seq, nil, "link %d is another one than the anchor knows", a.Seq)
		}
		w.mark(a.Seq, a.Hash, "the anchor")
	}
	slices.SortStableFunc(w.signed, func(a, b Anchor) int { return int(a.Seq - b.Seq) })
	w.From = w.seq + 1
	return nil
}

func (w *walk) mark(seq int64, hash Hash, name string) {
	w.signed, w.names[seq] = append(w.signed, Anchor{seq, hash}), name
}

// follow looks at the links up to the head.
func (w *walk) follow(ctx context.Context, head *Head) error {
	for w.seq < head.Seq {
		links, err := readLinks(ctx, w.conn, w.seq, head.Seq)
		if err != nil {
			return err
		}
		if len(links) == 0 {
			return fault(FaultMissing, w.seq+1, nil, "%s at the end of the chain", missing(w.seq+1, head.Seq))
		}
		entries, err := readEntries(ctx, w.conn, links)
		if err != nil {
			return err
		}
		for i := range links {
			if err := w.link(ctx, links, i, entries); err != nil {
				return err
			}
		}
	}
	if w.seq == head.Seq && !w.hash.Equal(head.Hash) {
		return w.rewritten(head.Seq, "the signed head")
	}
	return nil
}

func missing(from, to int64) string {
	if from == to {
		return fmt.Sprintf("link %d is missing", from)
	}
	return fmt.Sprintf("links %d to %d are missing", from, to)
}

// link looks at one link and its record.
func (w *walk) link(ctx context.Context, links []Link, i int, entries map[uuid.UUID]Entry) error {
	l := &links[i]
	if l.Seq == w.seq {
		return fault(FaultExtra, l.Seq, l, "link %d is there twice", l.Seq)
	}
	if l.Seq != w.seq+1 {
		return fault(FaultMissing, w.seq+1, nil, "%s", missing(w.seq+1, l.Seq-1))
	}
	if !l.after(w.hash).Equal(l.Hash) {
		for _, other := range links[i+1:] {
			moved := other
			if moved.Seq = l.Seq; moved.after(w.hash).Equal(moved.Hash) {
				return fault(FaultReordered, l.Seq, l, "link %d was moved to place %d", l.Seq, other.Seq)
			}
		}
		return fault(FaultLink, l.Seq, l, "link %d was changed, or the links before it were", l.Seq)
	}
	if err := w.record(ctx, l, entries); err != nil {
		return err
	}
	for ; len(w.signed) > 0 && w.signed[0].Seq <= l.Seq; w.signed = w.signed[1:] {
		if w.signed[0].Seq == l.Seq && !w.signed[0].Hash.Equal(l.Hash) {
			return w.rewritten(l.Seq, w.names[l.Seq])
		}
	}
	w.seq, w.hash = l.Seq, l.Hash
	return nil
}

// rewritten says that the links up to seq fit one another and not what signed knows.
func (w *walk) rewritten(seq int64, signed string) error {
	return fault(FaultRewritten, seq, nil, "the chain up to link %d was written anew: it does not lead to %s", seq, signed)
}

// record holds a record against its link.
func (w *walk) record(ctx context.Context, l *Link, entries map[uuid.UUID]Entry) error {
	e, there := entries[l.EventID]
	if there && e.At.Equal(l.At) {
		if !e.Digest().Equal(l.Digest) {
			return fault(FaultChanged, l.Seq, l, "the record of link %d was changed", l.Seq)
		}
		w.Records++
		return nil
	}
	var at time.Time
	switch err := w.conn.QueryRowContext(ctx, `SELECT at FROM audit_events WHERE id = $1`, l.EventID).Scan(&at); {
	case err == nil:
		return fault(FaultChanged, l.Seq, l, "the record of link %d was changed: it bears the time %s now", l.Seq, at.UTC().Format(timeFormat))
	case !errors.Is(err, sql.ErrNoRows):
		return err
	case l.At.Before(w.today.Add(-Keep)):
		w.Pruned++
		return nil
	}
	return fault(FaultRemoved, l.Seq, l, "the record of link %d was removed", l.Seq)
}

// unlinked looks for records that should be linked and are not, and counts those that wait.
func (w *walk) unlinked(ctx context.Context) error {
	if w.Head.Cluster != w.cluster {
		return w.wait(ctx, snapshot{}) // the tables came here with a dump, and nothing was linked since
	}
	saw, err := parseSnapshot(w.Head.Seen)
	if err != nil {
		return err
	}
	after, id := w.today.Add(-Keep), uuid.Nil
	for {
		rows, err := w.conn.QueryContext(ctx, `SELECT id, at FROM audit_events
			WHERE (at, id) > ($1, $2) AND (xid < $3::xid8 OR xid >= $4::xid8) ORDER BY at, id LIMIT $5`, after, id, w.Head.Floor, fmt.Sprint(w.sees.xmax), piece)
		if err != nil {
			return err
		}
		found, err := scanLinks(rows, func(l *Link) []any { return []any{&l.EventID, &l.At} })
		if err != nil {
			return err
		}
		if len(found) == 0 {
			break
		}
		after, id = found[len(found)-1].At, found[len(found)-1].EventID
		found, err = w.without(ctx, found)
		if err != nil {
			return err
		}
		for _, l := range found {
			// Written while this ran, by a transaction that the snapshot did not know yet.
			var current bool
			if err := w.conn.QueryRowContext(ctx, `SELECT xid >= $2::xid8 AND xid < pg_snapshot_xmax(pg_current_snapshot()) FROM audit_events WHERE id = $1 AND at = $3`,
				l.EventID, fmt.Sprint(w.sees.xmax), l.At).Scan(&current); err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if !current {
				return fault(FaultUnlinked, 0, &l, "record %s of %s has no link: it was added behind the back of the chain", l.EventID, l.At.UTC().Format(timeFormat))
			}
		}
	}
	return w.wait(ctx, saw)
}

// without gives the records that have no link. Most were linked soon after they were written.
func (w *walk) without(ctx context.Context, found []Link) ([]Link, error) {
	for _, where := range []string{" AND linked_at >= " + sqlTime(found[0].At.Add(-lookback)) + " AND linked_at < " + sqlTime(found[len(found)-1].At.Add(lookback)), ""} {
		ids := make([]string, len(found))
		for i, l := range found {
			ids[i] = l.EventID.String()
		}
		rows, err := w.conn.QueryContext(ctx, `SELECT event_id, at FROM audit_links WHERE event_id = ANY($1::uuid[])`+where, pq.Array(ids))
		if err != nil {
			return nil, err
		}
		linked, err := scanLinks(rows, func(l *Link) []any { return []any{&l.EventID, &l.At} })
		if err != nil {
			return nil, err
		}
		known := map[uuid.UUID]time.Time{}
		for _, l := range linked {
			known[l.EventID] = l.At
		}
		found = slices.DeleteFunc(found, func(l Link) bool { at, ok := known[l.EventID]; return ok && at.Equal(l.At) })
		if len(found) == 0 {
			break
		}
	}
	return found, nil
}

// wait counts the records that saw did not see.
func (w *walk) wait(ctx context.Context, saw snapshot) error {
	var oldest sql.Null[time.Time]
	if err := w.conn.QueryRowContext(ctx, `SELECT count(*), min(at) FROM (`+saw.unseen(w.Head.At.Add(-lookback), 0)+`) e`).Scan(&w.Waiting, &oldest); err != nil {
		return err
	}
	if oldest.Valid {
		at := oldest.V.UTC()
		w.Oldest = &at
	}
	return nil
}

// readLinks reads the next links after number seq, up to last.
func readLinks(ctx context.Context, conn *sql.Conn, seq, last int64) ([]Link, error) {
	rows, err := conn.QueryContext(ctx, fmt.Sprintf(`SELECT seq, event_id, at, digest, hash FROM audit_links WHERE seq >= $1 AND seq <= $2 ORDER BY seq, linked_at LIMIT %d`, piece), seq+1, last)
	if err != nil {
		return nil, err
	}
	links, err := scanLinks(rows, func(l *Link) []any { return []any{&l.Seq, &l.EventID, &l.At, &l.Digest, &l.Hash} })
	if n := len(links); n == piece && links[0].Seq != links[n-1].Seq { // whether the last one is there twice is seen with the next
		last := links[n-1].Seq
		links = slices.DeleteFunc(links, func(l Link) bool { return l.Seq == last })
	}
	return links, err
}

func scanLinks(rows *sql.Rows, into func(*Link) []any) (links []Link, err error) {
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var l Link
		if err := rows.Scan(into(&l)...); err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	return links, rows.Err()
}

// readEntries reads the records of links, as far as they are there.
func readEntries(ctx context.Context, conn *sql.Conn, links []Link) (map[uuid.UUID]Entry, error) {
	ids, first, last := make([]string, len(links)), links[0].At, links[0].At
	for i, l := range links {
		ids[i] = l.EventID.String()
		if l.At.Before(first) {
			first = l.At
		}
		if l.At.After(last) {
			last = l.At
		}
	}
	rows, err := conn.QueryContext(ctx, `SELECT `+columns+` FROM audit_events e WHERE e.id = ANY($1::uuid[]) AND e.at >= $2 AND e.at <= $3`, pq.Array(ids), first, last)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	entries := make(map[uuid.UUID]Entry, len(links))
	for rows.Next() {
		var e Entry
		if err := rows.Scan(e.into()...); err != nil {
			return nil, err
		}
		entries[e.ID] = e
	}
	return entries, rows.Err()
}
