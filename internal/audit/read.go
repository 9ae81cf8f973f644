package audit

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// ErrBroken says that an export came to a record that is not what was linked, or is gone before its time. The cure is [Reader.Verify], which says more.
var ErrBroken = errors.New("audit: the chain is broken")

// Range says which part of the chain is exported.
type Range struct {
	After    int64     // links with a greater number
	From, To time.Time // records with a time from From on and before To; zero is no bound
}

// Exported is a record with its link. Previous makes it verifiable by itself: see [Exported.MarshalJSON].
type Exported struct {
	Link
	Previous Hash // of the link before; nil where that link is gone
	Entry    Entry
}

// MarshalJSON writes seq, previous, hash and the record in its canonical form: its bytes are what the digest is over, and hash is SHA-256 of previous, seq as eight
// bytes, the record's id as 16 bytes, its time in microseconds since 1970 as eight bytes, and the digest.
func (e *Exported) MarshalJSON() ([]byte, error) {
	previous := ""
	if e.Previous != nil {
		previous = fmt.Sprintf(`"previous":"%s",`, e.Previous)
	}
	return fmt.Appendf(nil, `{"seq":%d,%s"hash":"%s","record":%s}`, e.Seq, previous, e.Hash, e.Entry.Canonical()), nil
}

// Head reads the signed end of the chain.
func (r *Reader) Head(ctx context.Context) (h Head, err error) {
	err = connected(ctx, r.DB, reading, func(conn *sql.Conn) error {
		h, err = r.head(ctx, conn)
		return err
	})
	return h, err
}

func (r *Reader) head(ctx context.Context, conn *sql.Conn) (h Head, err error) {
	if h, err = readHead(ctx, conn); err != nil || h.Seq == 0 && h.Key == "" {
		return h, err
	}
	return h, h.verify(r.Keys)
}

// Export gives each linked record of the range in the order of the chain, and the head up to which it looked. Records that are not linked yet are left for
// the next time. A record that does not fit its link ends it with [ErrBroken].
func (r *Reader) Export(ctx context.Context, part Range, each func(*Exported) error) (head Head, err error) {
	err = connected(ctx, r.DB, reading, func(conn *sql.Conn) error {
		if head, err = r.head(ctx, conn); err != nil {
			return err
		}
		first, last, err := span(ctx, conn, part, head.Seq)
		if err != nil {
			return err
		}
		before := Link{Seq: -1}
		for seq := first; seq < last; {
			links, err := readLinks(ctx, conn, seq, last)
			if err != nil || len(links) == 0 {
				return err
			}
			entries, err := readEntries(ctx, conn, links)
			if err != nil {
				return err
			}
			for _, l := range links {
				if err := r.export(ctx, conn, part, head, l, before, entries, each); err != nil {
					return err
				}
				before = l
			}
			seq = before.Seq
		}
		return nil
	})
	return head, err
}

// export gives one record, if it is of the range.
func (*Reader) export(ctx context.Context, conn *sql.Conn, part Range, head Head, l, before Link, entries map[uuid.UUID]Entry, each func(*Exported) error) error {
	if l.At.Before(part.From) || !part.To.IsZero() && !l.At.Before(part.To) {
		return nil
	}
	out := &Exported{Link: l}
	var there bool
	switch out.Entry, there = entries[l.EventID]; {
	case !there && l.At.Before(day(head.At).AddDate(0, 0, 1).Add(-Keep)):
		return nil // its time is over
	case !there, !out.Entry.Digest().Equal(l.Digest), !out.Entry.At.Equal(l.At):
		return fmt.Errorf("%w at link %d", ErrBroken, l.Seq)
	}
	var err error
	switch {
	case l.Seq == before.Seq+1:
		out.Previous = before.Hash
	case l.Seq == 1:
		out.Previous = genesis()
	default:
		err = conn.QueryRowContext(ctx, `SELECT hash FROM audit_links WHERE seq = $1 UNION ALL SELECT hash FROM audit_checkpoints WHERE seq = $1 LIMIT 1`, l.Seq-1).Scan(&out.Previous)
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	if out.Previous != nil && !l.after(out.Previous).Equal(l.Hash) {
		return fmt.Errorf("%w at link %d", ErrBroken, l.Seq)
	}
	return each(out)
}

// span gives the numbers that the range lies between: after first, up to last.
func span(ctx context.Context, conn *sql.Conn, part Range, end int64) (first, last int64, err error) {
	if part.From.IsZero() && part.To.IsZero() {
		return part.After, end, nil
	}
	where := []string{"seq > $1", "seq <= $2"}
	if !part.From.IsZero() {
		where = append(where, "at >= "+sqlTime(part.From))
	}
	if !part.To.IsZero() {
		where = append(where, "at < "+sqlTime(part.To))
	}
	err = conn.QueryRowContext(ctx, `SELECT coalesce(min(seq) - 1, 0), coalesce(max(seq), 0) FROM audit_links WHERE `+strings.Join(where, " AND "), part.After, end).Scan(&first, &last)
	return first, last, err
}

// Tail gives the latest n records in the order of their times, linked or not. With follow above zero it goes on with each new one, looking that often, until ctx ends.
func (r *Reader) Tail(ctx context.Context, n int, follow time.Duration, each func(*Entry) error) error {
	return connected(ctx, r.DB, reading, func(conn *sql.Conn) error {
		saw, err := look(ctx, conn, each, func(_ snapshot, _ time.Time) string {
			return fmt.Sprintf(`SELECT * FROM audit_events ORDER BY at DESC, id LIMIT %d`, n)
		})
		for err == nil && follow > 0 {
			if rest(ctx, follow) != nil {
				return nil //nolint:nilerr // asked to stop
			}
			saw, err = look(ctx, conn, each, func(sees snapshot, now time.Time) string { return saw.unseen(now.Add(-lookback), sees.xmax) })
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop
		}
		return err
	})
}

// look gives the records that query finds, by their times, and what was visible to it.
func look(ctx context.Context, conn *sql.Conn, each func(*Entry) error, query func(sees snapshot, now time.Time) string) (sees snapshot, err error) {
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return sees, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	var text string
	var now time.Time
	if err := tx.QueryRowContext(ctx, `SELECT pg_current_snapshot()::text, wall()`).Scan(&text, &now); err != nil {
		return sees, err
	}
	if sees, err = parseSnapshot(text); err != nil {
		return sees, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT `+columns+` FROM (`+query(sees, now)+`) e`)
	if err != nil {
		return sees, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var entries []Entry
	for rows.Next() {
		var e Entry
		if err := rows.Scan(e.into()...); err != nil {
			return sees, err
		}
		entries = append(entries, e)
	}
	if err := rows.Err(); err != nil {
		return sees, err
	}
	slices.SortStableFunc(entries, func(a, b Entry) int { return a.At.Compare(b.At) })
	for i := range entries {
		if err := each(&entries[i]); err != nil {
			return sees, err
		}
	}
	return sees, nil
}

// Unlinked is how long the oldest record waits that the sealer has not seen yet; 0 when none does.
func Unlinked(ctx context.Context, db *postgres.DB) (time.Duration, error) {
	var seconds float64
	err := db.GetContext(ctx, &seconds, `SELECT coalesce(greatest(extract(epoch FROM wall() - min(e.at)), 0), 0)::float8
		FROM audit_head h JOIN audit_events e ON e.xid >= pg_snapshot_xmax(h.seen) AND e.at >= h.at - interval '1 day'`)
	return time.Duration(seconds * float64(time.Second)), err
}

// Line is the record for a terminal: what it has, in words of name=value. Whatever could be anything but text is quoted (LOG-3).
func (e *Entry) Line() string {
	b := []byte(e.At.UTC().Format(timeFormat))
	for _, part := range []struct{ name, value string }{
		{"", e.Event}, {"", e.Outcome}, {"", e.Reason}, {"actor", e.Actor}, {"subject", id(e.Subject)}, {"client", e.Client.V}, {"session", id(e.Session)},
		{"object", e.Object}, {"source", e.Source}, {"request", e.RequestID},
	} {
		if part.value == "" {
			continue
		}
		if b = append(b, ' '); part.name != "" {
			b = append(append(b, part.name...), '=')
		}
		if strings.ContainsFunc(part.value, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || !unicode.IsPrint(r) }) {
			b = printable(b, part.value)
			continue
		}
		b = append(b, part.value...)
	}
	return string(b)
}

func id(id uuid.NullUUID) string {
	if !id.Valid {
		return ""
	}
	return id.UUID.String()
}

// MarshalJSON writes the record with a member for each column, so that it does no harm on a terminal either.
func (e *Entry) MarshalJSON() ([]byte, error) {
	return append(e.members([]byte{'{'}, printable), '}'), nil
}

// printable appends s as a JSON string in which everything that is not printed is escaped.
func printable(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case unicode.IsPrint(r):
			b = append(b, string(r)...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return append(b, '"')
}

// ReadAnchor reads what a head of the chain was kept as: an export, a report of a verification, or a head alone. The last one counts.
func ReadAnchor(from io.Reader) (a Anchor, err error) {
	type head struct {
		Seq  int64 `json:"seq"`
		Hash Hash  `json:"hash"`
	}
	found := false
	for decoder := json.NewDecoder(from); decoder.More(); {
		var one struct {
			head
			Head *head `json:"head"`
		}
		if err := decoder.Decode(&one); err != nil {
			return a, fmt.Errorf("audit: not JSON: %w", err)
		}
		h := &one.head
		if one.Head != nil {
			h = one.Head
		}
		if len(h.Hash) > 0 {
			a, found = Anchor(*h), true
		}
	}
	if !found {
		return a, errors.New("audit: no head of a chain is in it")
	}
	return a, nil
}
