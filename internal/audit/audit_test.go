package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// world is a database with a sealer and a reader.
type world struct {
	*pgtest.Database
	keys   *keyring.Ring
	sealer *audit.Sealer
	reader *audit.Reader
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Database: pgtest.New(t), keys: keyring.Ephemeral()}
	w.sealer, w.reader = w.replica(), &audit.Reader{DB: w.DB, Keys: w.keys}
	now := w.Now(t).UTC()
	w.Advance(t, now.Truncate(24*time.Hour).Add(36*time.Hour).Sub(now)) // noon: the hours that follow are of one day
	return w
}

func (w *world) replica() *audit.Sealer {
	return &audit.Sealer{DB: w.DB, Keys: w.keys, Log: slog.New(slog.DiscardHandler), Pause: time.Millisecond}
}

// write stores records, each in a statement of its own.
func (w *world) write(t testing.TB, n int) {
	t.Helper()
	for range n {
		if _, err := w.Run(t.Context(), event(t.Context(), uuid.NewString())); err != nil {
			t.Fatal(err)
		}
	}
}

func event(ctx context.Context, object string) *postgres.Query {
	q := new(postgres.Query)
	q.With("done", "SELECT 1")
	audit.Record(ctx, q, "done", audit.Event{Name: "challenge.answer", Outcome: audit.Refused, Reason: "wrong", Actor: "subscriber", Subject: uuid.New(), Session: uuid.New(),
		Object: object, Source: netip.MustParseAddr("192.0.2.1"), RequestID: "r"}, nil)
	q.Finally("SELECT 1 FROM done")
	return q
}

func (w *world) seal(t testing.TB) {
	t.Helper()
	if err := w.sealer.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) verify(t testing.TB, anchors ...audit.Anchor) audit.Report {
	t.Helper()
	report, err := w.reader.Verify(t.Context(), anchors...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// sound wants a whole chain of n links.
func (w *world) sound(t testing.TB, n int64) audit.Report {
	t.Helper()
	report := w.verify(t)
	if report.Fault != nil || report.To != n || report.Records+report.Pruned != n {
		t.Fatalf("report = %+v, fault %v; want %d sound links", report, report.Fault, n)
	}
	return report
}

// as runs statements as the owner of everything, whom no trigger stops.
func (w *world) as(t testing.TB, statements ...string) {
	t.Helper()
	tx, err := w.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	for _, statement := range append([]string{"SET LOCAL session_replication_role = replica"}, statements...) {
		if _, err := tx.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

const (
	ofLink = `(SELECT event_id FROM audit_links WHERE seq = %d)`
	insert = `INSERT INTO audit_events (event, outcome, xid%s) VALUES ('x', 'success', %s%s)`
)

// rewrite computes the links from number seq on anew, over the records as they are: what somebody does who has the database and not the key.
func (w *world) rewrite(t *testing.T, seq int64) {
	t.Helper()
	var links []audit.Link
	if err := w.SelectContext(t.Context(), &links, `SELECT seq, event_id, at, digest, hash FROM audit_links ORDER BY seq`); err != nil {
		t.Fatal(err)
	}
	previous := audit.Hash(make([]byte, sha256.Size))
	for _, l := range links {
		if l.Seq >= seq {
			var e audit.Entry
			if err := w.GetContext(t.Context(), &e, `SELECT id, at, event, outcome, reason, actor, subject, client_id, session_id, object, source, request_id FROM audit_events WHERE id = $1`, l.EventID); err != nil {
				t.Fatal(err)
			}
			l.Digest = e.Digest()
			l.Hash = audit.HashAfter(&l, previous)
			w.as(t, fmt.Sprintf(`UPDATE audit_links SET digest = '\x%s', hash = '\x%s' WHERE seq = %d`, l.Digest, l.Hash, l.Seq))
		}
		previous = l.Hash
	}
}

// Whatever is done to the chain by somebody who may do everything but has no key, the place is named: AD-8.
func TestTampering(t *testing.T) {
	t.Parallel()
	// The chain has twelve links; after the fifth and the tenth there is a checkpoint. The anchor knows the eleventh.
	tests := map[string]struct {
		do     []string
		then   func(*testing.T, *world)
		kind   string
		seq    int64
		says   string
		anchor bool // the operator has one
	}{
		"nothing":              {},
		"nothing, with anchor": {anchor: true},
		"a record was changed": {do: []string{`UPDATE audit_events SET outcome = 'success' WHERE id = ` + fmt.Sprintf(ofLink, 7)}, kind: audit.FaultChanged, seq: 7, says: "record of link 7 was changed"},
		"a member was emptied": {do: []string{`UPDATE audit_events SET subject = NULL WHERE id = ` + fmt.Sprintf(ofLink, 1)}, kind: audit.FaultChanged, seq: 1},
		"a record's time":      {do: []string{`UPDATE audit_events SET at = at + interval '1 microsecond' WHERE id = ` + fmt.Sprintf(ofLink, 7)}, kind: audit.FaultChanged, seq: 7, says: "bears the time"},
		"the first of two":     {do: []string{`UPDATE audit_events SET reason = '' WHERE id IN (SELECT event_id FROM audit_links WHERE seq IN (4, 9))`}, kind: audit.FaultChanged, seq: 4},
		"two records changed places": {do: []string{`UPDATE audit_events e SET object = o.object FROM audit_events o, audit_links l, audit_links m
			WHERE l.seq = 6 AND m.seq = 7 AND (e.id, o.id) IN ((l.event_id, m.event_id), (m.event_id, l.event_id))`}, kind: audit.FaultChanged, seq: 6},
		"a record was removed":                  {do: []string{`DELETE FROM audit_events WHERE id = ` + fmt.Sprintf(ofLink, 8)}, kind: audit.FaultRemoved, seq: 8, says: "record of link 8 was removed"},
		"the last was removed":                  {do: []string{`DELETE FROM audit_events WHERE id = ` + fmt.Sprintf(ofLink, 12)}, kind: audit.FaultRemoved, seq: 12},
		"all records were removed":              {do: []string{`DELETE FROM audit_events`}, kind: audit.FaultRemoved, seq: 1},
		"a record was added as if it were old":  {do: []string{fmt.Sprintf(insert, "", "'3'", "")}, kind: audit.FaultUnlinked, says: "has no link"},
		"a record was added as if it were late": {do: []string{fmt.Sprintf(insert, "", "'4611686018427387904'", "")}, kind: audit.FaultUnlinked},
		"a record was added into the past":      {do: []string{fmt.Sprintf(insert, ", at", "'4'", ", wall() - interval '100 days'")}, kind: audit.FaultUnlinked},
		"a record with its link":                {do: []string{`DELETE FROM audit_events WHERE id = ` + fmt.Sprintf(ofLink, 3), `DELETE FROM audit_links WHERE seq = 3`}, kind: audit.FaultMissing, seq: 3, says: "link 3 is missing"},
		"several links":                         {do: []string{`DELETE FROM audit_links WHERE seq IN (6, 7, 8)`}, kind: audit.FaultMissing, seq: 6, says: "links 6 to 8 are missing"},
		"the beginning":                         {do: []string{`DELETE FROM audit_links WHERE seq < 5`, `DELETE FROM audit_events WHERE id NOT IN (SELECT event_id FROM audit_links)`}, kind: audit.FaultMissing, seq: 1, says: "links 1 to 4"},
		"the end":                               {do: []string{`DELETE FROM audit_events WHERE id = ` + fmt.Sprintf(ofLink, 12), `DELETE FROM audit_links WHERE seq = 12`}, kind: audit.FaultMissing, seq: 12, says: "at the end"},
		"numbers closed up": {do: []string{`DELETE FROM audit_events WHERE id = ` + fmt.Sprintf(ofLink, 3), `DELETE FROM audit_links WHERE seq = 3`, `UPDATE audit_links SET seq = seq - 1 WHERE seq > 3`},
			kind: audit.FaultLink, seq: 3},
		"two links changed places": {do: []string{`UPDATE audit_links SET seq = CASE seq WHEN 4 THEN 9 ELSE 4 END WHERE seq IN (4, 9)`}, kind: audit.FaultReordered, seq: 4, says: "link 4 was moved to place 9"},
		"a link twice":             {do: []string{`INSERT INTO audit_links SELECT seq, gen_random_uuid(), at, digest, hash, linked_at + interval '1 second' FROM audit_links WHERE seq = 6`}, kind: audit.FaultExtra, seq: 6, says: "twice"},
		"the last link twice":      {do: []string{`INSERT INTO audit_links SELECT seq, gen_random_uuid(), at, digest, hash, linked_at + interval '1 second' FROM audit_links WHERE seq = 12`}, kind: audit.FaultExtra, seq: 12},
		"a link more":              {do: []string{`INSERT INTO audit_links SELECT 13, gen_random_uuid(), at, digest, hash FROM audit_links WHERE seq = 12`}, kind: audit.FaultExtra, seq: 13, says: "behind the signed end"},
		"a link's hash":            {do: []string{`UPDATE audit_links SET hash = sha256(hash) WHERE seq = 5`}, kind: audit.FaultLink, seq: 5},
		"a link leads elsewhere":   {do: []string{`UPDATE audit_links SET event_id = gen_random_uuid() WHERE seq = 5`}, kind: audit.FaultLink, seq: 5},
		"written anew up to a checkpoint": {do: []string{`UPDATE audit_events SET outcome = 'success' WHERE id = ` + fmt.Sprintf(ofLink, 7)}, then: func(t *testing.T, w *world) { w.rewrite(t, 7) },
			kind: audit.FaultRewritten, seq: 10, says: "the checkpoint of"},
		"written anew up to the end": {do: []string{`UPDATE audit_events SET outcome = 'success' WHERE id = ` + fmt.Sprintf(ofLink, 11)}, then: func(t *testing.T, w *world) { w.rewrite(t, 11) },
			kind: audit.FaultRewritten, seq: 12, says: "the signed head"},
		"written anew, with anchor": {do: []string{`UPDATE audit_events SET outcome = 'success' WHERE id = ` + fmt.Sprintf(ofLink, 11)}, then: func(t *testing.T, w *world) { w.rewrite(t, 11) },
			anchor: true, kind: audit.FaultRewritten, seq: 11, says: "the anchor"},
		"the head is missing":          {do: []string{`DELETE FROM audit_head`}, kind: audit.FaultHead, says: "missing"},
		"the head says more":           {do: []string{`UPDATE audit_head SET seq = 13`}, kind: audit.FaultHead, seq: 13, says: "no valid signature"},
		"the head is another time":     {do: []string{`UPDATE audit_head SET at = at + interval '500 days'`}, kind: audit.FaultHead, seq: 12},
		"the head without a key":       {do: []string{`UPDATE audit_head SET key = ''`}, kind: audit.FaultHead, seq: 12},
		"the head of other keys":       {do: []string{`UPDATE audit_head SET key = '0123456789abcdef'`}, kind: audit.FaultHead, seq: 12, says: "not in the key files"},
		"the head of the beginning":    {do: []string{`UPDATE audit_head SET seq = 0, key = '', hash = decode(repeat('00', 32), 'hex')`}, kind: audit.FaultHead, says: "says that nothing is linked"},
		"a checkpoint was changed":     {do: []string{`UPDATE audit_checkpoints SET hash = sha256(hash) WHERE seq = 5`}, kind: audit.FaultCheckpoint, seq: 5},
		"an earlier head was put back": {do: []string{earlierHead}, kind: audit.FaultExtra, seq: 11},
		"cut back to a checkpoint, which was left": {do: []string{`DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_links WHERE seq > 5)`, `DELETE FROM audit_links WHERE seq > 5`,
			`UPDATE audit_head h SET seq = c.seq, hash = c.hash, at = c.at, seen = c.seen, floor = c.floor, cluster = c.cluster, key = c.key, signature = c.signature FROM audit_checkpoints c WHERE c.seq = 5`},
			kind: audit.FaultCut, seq: 10, says: "its end was removed"},
		"cut back without a trace, without anchor": {do: cutBack},
		"cut back without a trace, with anchor":    {do: cutBack, anchor: true, kind: audit.FaultCut, seq: 11, says: "the anchor knows link 11"},
		"everything is gone, with anchor": {do: []string{`DELETE FROM audit_events`, `DELETE FROM audit_links`, `DELETE FROM audit_checkpoints`,
			`UPDATE audit_head SET seq = 0, hash = decode(repeat('00', 32), 'hex'), at = 'epoch', seen = '3:3:', floor = '3', cluster = '', key = '', signature = ''`},
			anchor: true, kind: audit.FaultCut, seq: 11},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.write(t, 5)
			w.seal(t)
			w.Advance(t, 2*time.Hour)
			w.write(t, 5)
			w.seal(t)
			w.Advance(t, 30*time.Minute)
			w.write(t, 1)
			w.seal(t)
			anchor := audit.Anchor{Seq: 11, Hash: w.sound(t, 11).Head.Hash}
			w.write(t, 1)
			w.seal(t)
			w.sound(t, 12)
			if tt.do != nil {
				w.as(t, tt.do...)
			}
			if tt.then != nil {
				tt.then(t, w)
			}
			var anchors []audit.Anchor
			if tt.anchor {
				anchors = append(anchors, anchor)
			}
			f := w.verify(t, anchors...).Fault
			if tt.kind == "" {
				if f != nil {
					t.Fatalf("fault = %+v, want none", f)
				}
				return
			}
			if f == nil || f.Kind != tt.kind || f.Seq != tt.seq || !strings.Contains(f.Detail, tt.says) {
				t.Fatalf("fault = %+v; want %s at %d, %q", f, tt.kind, tt.seq, tt.says)
			}
			if f.Kind == audit.FaultHead { // what is not ours is not continued, and so not signed
				w.write(t, 1)
				if err := w.replica().Once(t.Context()); !errors.Is(err, audit.ErrForged) && !errors.Is(err, audit.ErrOtherKey) {
					t.Fatalf("Once = %v, want a refusal", err)
				}
			}
		})
	}
}

const earlierHead = `UPDATE audit_head h SET seq = c.seq, hash = c.hash, at = c.at, seen = c.seen, floor = c.floor, cluster = c.cluster, key = c.key, signature = c.signature FROM audit_checkpoints c WHERE c.seq = 10`

// cutBack is the one thing that the chain by itself cannot tell.
var cutBack = []string{`DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_links WHERE seq > 10)`, `DELETE FROM audit_links WHERE seq > 10`, earlierHead}

// The application's own role can neither change nor remove what is written: AD-8.
func TestAppendOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, 2)
	w.seal(t)
	w.Advance(t, 2*time.Hour)
	w.write(t, 1)
	w.seal(t)
	for _, table := range []string{"audit_events", "audit_links", "audit_checkpoints"} {
		for _, statement := range []string{"DELETE FROM " + table, "UPDATE " + table + " SET at = at", "TRUNCATE " + table} {
			if _, err := w.ExecContext(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v, want a refusal", statement, err)
			}
		}
	}
	w.sound(t, 3)
}

// A head that was put back does not get a second continuation.
func TestNoForkIsSigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, 10)
	w.seal(t)
	w.Advance(t, 2*time.Hour)
	w.write(t, 2)
	w.seal(t)
	w.as(t, earlierHead)
	w.write(t, 1)
	if err := w.replica().Once(t.Context()); !errors.Is(err, audit.ErrForged) {
		t.Fatalf("Once = %v, want ErrForged", err)
	}
}

// Two replicas link what 200 requests write at once, while the connection that links is cut again and again: every record is linked once, in an order that every
// transaction's end allows.
func TestParallel(t *testing.T) {
	t.Parallel()
	const events = 200
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	var replicas, writers sync.WaitGroup
	for range 2 {
		sealer := w.replica()
		replicas.Go(func() { sealer.Run(ctx) }) //nolint:errcheck // it ends with ctx
	}
	replicas.Go(func() {
		for ctx.Err() == nil { // a crash, between any two of its statements
			w.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'watchword audit' AND datname = current_database()`) //nolint:errcheck // ctx ended
		}
	})
	for i := range events {
		writers.Go(func() {
			if i%10 != 0 {
				if _, err := w.Run(ctx, event(ctx, fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
				return
			}
			tx, err := w.BeginTxx(ctx, nil) // one that takes its time
			if err != nil {
				t.Error(err)
				return
			}
			for _, statement := range []string{fmt.Sprintf(`INSERT INTO audit_events (event, outcome, object) VALUES ('slow', 'success', '%d')`, i), `SELECT pg_sleep(0.02)`} {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					t.Error(err)
				}
			}
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	stop()
	replicas.Wait()
	w.seal(t)
	if report := w.sound(t, events); report.Waiting != 0 {
		t.Fatalf("%d records wait", report.Waiting)
	}
	var twice int
	if err := w.GetContext(t.Context(), &twice, `SELECT count(*) FROM (SELECT event_id FROM audit_links GROUP BY event_id HAVING count(*) > 1) t`); err != nil || twice != 0 {
		t.Fatalf("%d records are linked twice, %v", twice, err)
	}
}

// Only one works at a time; when its server is gone, the other goes on.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ended := make(chan error, 2)
	first, stopFirst := context.WithCancel(t.Context())
	go func() { ended <- w.replica().Run(first) }()
	linked := func(n int64) {
		t.Helper()
		for t.Context().Err() == nil {
			if report := w.verify(t); report.Fault != nil {
				t.Fatal(report.Fault)
			} else if report.To == n {
				return
			}
		}
	}
	w.write(t, 3)
	linked(3)
	second, stopSecond := context.WithCancel(t.Context())
	defer stopSecond()
	go func() { ended <- w.replica().Run(second) }()
	w.write(t, 3)
	linked(6)
	stopFirst()
	if err := <-ended; err != nil {
		t.Fatalf("Run = %v", err)
	}
	w.write(t, 3)
	linked(9)
	stopSecond()
	if err := <-ended; err != nil {
		t.Fatalf("Run = %v", err)
	}
}

// A transaction that began long before and commits late is linked when it has.
func TestLateCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tx, err := w.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it was committed
	if _, err := tx.ExecContext(t.Context(), `INSERT INTO audit_events (event, outcome) VALUES ('late', 'success')`); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.write(t, 2)
		w.seal(t)
	}
	if age, err := audit.Unlinked(t.Context(), w.DB); err != nil || age != 0 {
		t.Fatalf("the oldest record waits for %s, %v", age, err)
	}
	w.Advance(t, time.Minute)
	w.write(t, 1)
	w.Advance(t, time.Minute)
	if age, err := audit.Unlinked(t.Context(), w.DB); err != nil || age < time.Minute || age > 90*time.Second {
		t.Fatalf("the oldest record waits for %s, %v; want a minute", age, err)
	}
	w.seal(t)
	if report := w.sound(t, 7); report.Waiting != 0 {
		t.Fatalf("%d records wait: nobody can see the seventh", report.Waiting)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if report := w.sound(t, 7); report.Waiting != 1 || report.Oldest == nil {
		t.Fatalf("%d records wait, want one", report.Waiting)
	}
	w.seal(t)
	w.sound(t, 8)
}

// A clock that was wrong hides no record.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, 2)
	w.seal(t)
	for _, by := range []time.Duration{-72 * time.Hour, 200 * time.Hour, -300 * time.Hour} {
		w.Advance(t, by)
		w.write(t, 2)
		w.seal(t)
	}
	if _, err := w.ExecContext(t.Context(), `INSERT INTO audit_events (event, outcome, at) VALUES ('x', 'success', '1970-01-01'), ('x', 'success', wall() - interval '3 days')`); err != nil {
		t.Fatal(err)
	}
	w.seal(t)
	w.sound(t, 10)
}

// A look at old times takes nothing from the next look at new ones.
func TestSweepAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, 2)
	w.seal(t)
	w.write(t, 2)
	if _, err := w.ExecContext(t.Context(), `INSERT INTO audit_events (event, outcome, at) VALUES ('x', 'success', wall() - interval '3 days')`); err != nil {
		t.Fatal(err)
	}
	if err := audit.Sweep(t.Context(), w.sealer); err != nil {
		t.Fatal(err)
	}
	if report := w.sound(t, 3); report.Waiting != 2 {
		t.Fatalf("%d records wait, want the two that are new", report.Waiting)
	}
	w.seal(t)
	w.sound(t, 5)
}

// What has waited for long is worked off in pieces, and nothing of it is lost between them.
func TestBacklog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, 1)
	w.seal(t)
	w.Advance(t, 48*time.Hour)
	w.sealer.Batch = 500
	const each, before = 7, 7 * (audit.Piece/7 + 30) // transactions lie across the bounds of batches and pieces
	if _, err := w.ExecContext(t.Context(), fmt.Sprintf(`DO $$ BEGIN
		FOR i IN 1..%d LOOP
			INSERT INTO audit_events (event, outcome, object, at) SELECT 'x', 'success', i::text, wall() - make_interval(days => i %% 3) FROM generate_series(1, %d);
			COMMIT;
		END LOOP; END $$`, before/each, each)); err != nil {
		t.Fatal(err)
	}
	late, err := w.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Rollback() //nolint:errcheck // it was committed
	if _, err := late.ExecContext(t.Context(), `INSERT INTO audit_events (event, outcome) VALUES ('late', 'success')`); err != nil {
		t.Fatal(err)
	}
	w.write(t, 1)
	w.seal(t)
	w.sound(t, before+2)
	if err := late.Commit(); err != nil {
		t.Fatal(err)
	}
	w.seal(t)
	w.sound(t, before+3)
	// A link that stands twice is seen where two pieces meet, too.
	w.as(t, fmt.Sprintf(`INSERT INTO audit_links SELECT seq, gen_random_uuid(), at, digest, hash, linked_at + interval '1 second' FROM audit_links WHERE seq = %d`, audit.Piece))
	if f := w.verify(t).Fault; f == nil || f.Kind != audit.FaultExtra || f.Seq != audit.Piece {
		t.Fatalf("fault = %+v, want the link that is there twice", f)
	}
}

// Tables that came to another server with a dump, where transactions are counted from elsewhere, are continued.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, 3)
	w.seal(t)
	w.write(t, 2) // not linked before the dump
	var h audit.Head
	if err := w.GetContext(t.Context(), &h, `SELECT seq, hash, at, seen::text AS seen, floor::text AS floor, cluster, key, signature FROM audit_head`); err != nil {
		t.Fatal(err)
	}
	h.Cluster, h.Seen, h.Floor = "7000000000000000000", "900000000:900000005:900000001", "900000000"
	audit.Sign(&h, w.keys)
	w.as(t, fmt.Sprintf(`UPDATE audit_head SET cluster = '%s', seen = '%s', floor = '%s', signature = '\x%x'`, h.Cluster, h.Seen, h.Floor, h.Signature),
		`UPDATE audit_events SET xid = '900000000'`)
	w.sound(t, 3)
	w.seal(t)
	w.write(t, 2)
	w.seal(t)
	w.sound(t, 7)
}

// What an older key signed still verifies after a rotation, and with other keys nothing does.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := keyring.Create(dir); err != nil {
		t.Fatal(err)
	}
	load := func() *keyring.Ring {
		ring, err := keyring.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		return ring
	}
	w := newWorld(t)
	w.keys = load()
	w.sealer, w.reader.Keys = w.replica(), w.keys
	w.write(t, 3)
	w.seal(t)
	first := w.sound(t, 3).Head
	if err := keyring.Rotate(dir); err != nil {
		t.Fatal(err)
	}
	w.keys = load()
	w.sealer, w.reader.Keys = w.replica(), w.keys
	w.Advance(t, 2*time.Hour)
	w.write(t, 3)
	w.seal(t)
	report := w.sound(t, 6)
	if report.Head.Key == first.Key {
		t.Fatal("the newer key does not sign")
	}
	if !ed25519.Verify(report.Key, report.Head.Message(), report.Head.Signature) {
		t.Fatal("the public key of the report does not verify the head")
	}
	w.reader.Keys = keyring.Ephemeral()
	if f := w.verify(t).Fault; f == nil || f.Kind != audit.FaultHead || !strings.Contains(f.Detail, "not in the key files") {
		t.Fatalf("fault = %+v, want one that blames the keys", f)
	}
	if err := (&audit.Sealer{DB: w.DB, Keys: keyring.Ephemeral(), Log: slog.New(slog.DiscardHandler)}).Once(t.Context()); !errors.Is(err, audit.ErrOtherKey) {
		t.Fatalf("Once = %v, want ErrOtherKey", err)
	}
}

// An idle chain says until when it holds.
func TestHeadOfAnIdleChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, 1)
	w.seal(t)
	before := w.sound(t, 1).Head
	w.Advance(t, 90*time.Minute)
	w.seal(t)
	if after := w.sound(t, 1).Head; after.At.Sub(before.At) < 90*time.Minute {
		t.Fatalf("the head is of %s, as before: %s", after.At, before.At)
	}
}

// exported is what another program reads of an export, and how it verifies it.
type exported struct {
	Seq            uint64
	Previous, Hash audit.Hash
	Record         json.RawMessage
	Head           *audit.Head
}

func (w *world) export(t *testing.T, part audit.Range) (lines []exported) {
	t.Helper()
	head, err := w.reader.Export(t.Context(), part, func(e *audit.Exported) error {
		line, err := e.MarshalJSON()
		if err != nil {
			return err
		}
		var one exported
		if err := json.Unmarshal(line, &one); err != nil {
			return err
		}
		lines = append(lines, one)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(lines, exported{Head: &head})
}

func TestExport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var noon time.Time
	for i := range 3 {
		if i == 1 {
			noon = w.Now(t)
		}
		w.write(t, 4)
		w.Advance(t, time.Hour)
		w.seal(t)
	}
	if _, err := w.ExecContext(t.Context(), `INSERT INTO audit_events (event, outcome, client_id, object) VALUES ('x', 'success', 'shop', E'"\\\u0001\n\u009b ü')`); err != nil {
		t.Fatal(err)
	}
	w.seal(t)
	w.write(t, 1) // not linked: left for the next time
	all := w.export(t, audit.Range{})
	if len(all) != 14 || all[13].Head == nil || all[13].Head.Seq != 13 || !all[13].Head.Hash.Equal(all[12].Hash) {
		t.Fatalf("%d lines; want 13 records and the head", len(all))
	}
	key, err := w.reader.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := all[13].Head
	if said := fmt.Sprintf("watchword audit chain 1\n13\n%s\n%s\n%s\n%s\n%s\n", h.Hash, h.At.Format("2006-01-02T15:04:05.000000Z"), h.Seen, h.Floor, h.Cluster); !ed25519.Verify(key.PublicKey(w.keys), []byte(said), h.Signature) {
		t.Fatalf("the signature is not over %q", said)
	}
	previous := audit.Hash(make([]byte, 32))
	for i, line := range all[:13] {
		var record struct {
			ID uuid.UUID
			At time.Time
		}
		if err := json.Unmarshal(line.Record, &record); err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(line.Record)
		in := slices.Concat(line.Previous, binary.BigEndian.AppendUint64(nil, line.Seq), record.ID[:], binary.BigEndian.AppendUint64(nil, uint64(record.At.UnixMicro())), digest[:])
		if sum := sha256.Sum256(in); !bytes.Equal(sum[:], line.Hash) || !line.Previous.Equal(previous) || line.Seq != uint64(i+1) {
			t.Fatalf("line %d does not verify: %+v", i, line)
		}
		previous = line.Hash
	}
	for name, tt := range map[string]struct {
		part        audit.Range
		first, last uint64
	}{
		"resumed":       {audit.Range{After: 9}, 10, 13},
		"from":          {audit.Range{From: noon}, 5, 13},
		"from and to":   {audit.Range{From: noon, To: noon.Add(time.Hour)}, 5, 8},
		"to":            {audit.Range{To: noon}, 1, 4},
		"all of it":     {audit.Range{After: 4, From: noon, To: noon.Add(time.Hour)}, 5, 8},
		"nothing":       {audit.Range{After: 13}, 0, 0},
		"of the future": {audit.Range{From: noon.Add(1000 * time.Hour)}, 0, 0},
	} {
		lines := w.export(t, tt.part)
		lines = lines[:len(lines)-1]
		if tt.first == 0 {
			if len(lines) != 0 {
				t.Errorf("%s: %d records, want none", name, len(lines))
			}
			continue
		}
		if uint64(len(lines)) != tt.last-tt.first+1 || lines[0].Seq != tt.first || !lines[0].Previous.Equal(all[tt.first-1].Previous) {
			t.Errorf("%s: %d records from %d; want %d to %d", name, len(lines), lines[0].Seq, tt.first, tt.last)
		}
	}
	w.as(t, `UPDATE audit_events SET outcome = 'failed' WHERE id = `+fmt.Sprintf(ofLink, 6))
	var got int
	if _, err := w.reader.Export(t.Context(), audit.Range{}, func(*audit.Exported) error { got++; return nil }); !errors.Is(err, audit.ErrBroken) || got != 5 {
		t.Fatalf("Export = %v after %d records, want ErrBroken after five", err, got)
	}
}

func TestReadAnchor(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("ab", 32)
	for name, text := range map[string]string{
		"an export":   `{"seq":1,"hash":"` + strings.Repeat("00", 32) + `","record":{"id":"x"}}` + "\n" + `{"head":{"seq":7,"hash":"` + hash + `","key":"k"}}`,
		"a report":    `{"from": 1, "to": 7, "head": {"seq": 7, "hash": "` + hash + `"}}`,
		"a head":      `{"seq":7,"hash":"` + hash + `"}`,
		"a last line": `{"seq":7,"hash":"` + hash + `","record":{"seq":9}}`,
	} {
		if a, err := audit.ReadAnchor(strings.NewReader(text)); err != nil || a.Seq != 7 || a.Hash.String() != hash {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for name, text := range map[string]string{"nothing": "", "other JSON": `{"a":1}`, "no JSON": `x`, "no hash": `{"seq":1,"hash":"00"}`} {
		if a, err := audit.ReadAnchor(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %+v, want an error", name, a)
		}
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 5 {
		if _, err := w.ExecContext(t.Context(), `INSERT INTO audit_events (at, event, outcome) VALUES (wall() - make_interval(mins => $1), $2, 'success')`, 10-i, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	err := w.reader.Tail(ctx, 3, time.Millisecond, func(e *audit.Entry) error {
		switch got = append(got, e.Event); len(got) {
		case 3: // all that there was: one more now, and one that is older
			_, err := w.ExecContext(ctx, `INSERT INTO audit_events (at, event, outcome) VALUES (wall(), 'new', 'success'), (wall() - interval '1 hour', 'older', 'success')`)
			return err
		case 5:
			stop()
		}
		return nil
	})
	if want := []string{"2", "3", "4", "older", "new"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("Tail = %v, %v; want %v", got, err, want)
	}
}

// What a record holds does no harm to who looks at it: AD-6.
func TestLine(t *testing.T) {
	t.Parallel()
	e := audit.Entry{At: time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC), Event: "client.authenticate", Outcome: "refused", Actor: "client", Object: "a\n\x1b[2J\u009b2J\u202e\"=\U000e0001"}
	if got, want := e.Line(), `2026-07-01T10:00:00.000000Z client.authenticate refused actor=client object="a\u000a\u001b[2J\u009b2J\u202e\"=\udb40\udc01"`; got != want {
		t.Errorf("Line = %s\nwant   %s", got, want)
	}
	text, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ Object string }
	if err := json.Unmarshal(text, &back); err != nil || back.Object != e.Object || strings.ContainsAny(string(text), "\n\x1b\u009b\u202e") {
		t.Errorf("MarshalJSON = %s, %v", text, err)
	}
}

// RFC 8785 section 3.2.2.2 and its example.
func TestCanonical(t *testing.T) {
	t.Parallel()
	e := audit.Entry{ID: uuid.MustParse("00000000-0000-4000-8000-000000000001"), At: time.Date(2026, 7, 1, 12, 0, 0, 120, time.FixedZone("x", 7200)), Event: "x",
		Object: "€$\u000f\nA'B\"\\\\\"/\u2028<\b\f\r\t"}
	want := `{"actor":"","at":"2026-07-01T10:00:00.000000Z","client_id":null,"event":"x","id":"00000000-0000-4000-8000-000000000001","object":"€$\u000f\nA'B\"\\\\\"/` + "\u2028" +
		`<\b\f\r\t","outcome":"","reason":"","request_id":"","session_id":null,"source":"","subject":null}`
	if got := string(e.Canonical()); got != want {
		t.Errorf("Canonical = %s\nwant        %s", got, want)
	}
}

// The record costs no round trip, whoever links it.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.sealer.Run(ctx) }()
	w.write(t, 1) // prepares the statement
	before := w.Database.RoundTrips.Load()
	w.write(t, 10)
	if trips := w.Database.RoundTrips.Load() - before; trips != 10 {
		t.Errorf("%d round trips for ten statements with a record each, want 10", trips)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// Who gave a command is told where the actor is an operator.
func TestOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := audit.With(t.Context(), audit.Context{Operator: "alice"})
	for _, actor := range []string{audit.Operator, "system"} {
		q := new(postgres.Query)
		q.With("done", "SELECT 1")
		audit.Record(ctx, q, "done", audit.Event{Name: "x", Outcome: audit.Success, Actor: actor}, nil)
		q.Finally("SELECT 1 FROM done")
		if _, err := w.Run(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	var actors []string
	if err := w.SelectContext(t.Context(), &actors, `SELECT actor FROM audit_events ORDER BY actor`); err != nil || !slices.Equal(actors, []string{"operator alice", "system"}) {
		t.Fatalf("actors = %v, %v", actors, err)
	}
}

// A role that owns its database and nothing else is enough.
func TestPlainRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var name string
	if err := w.GetContext(t.Context(), &name, "SELECT current_database()"); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"CREATE ROLE " + name + " LOGIN", "CREATE DATABASE " + name + "_owned OWNER " + name} {
		if _, err := w.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	dsn := strings.ReplaceAll(strings.ReplaceAll(w.DSN, "dbname="+name, "dbname="+name+"_owned"), "user=watchword", "user="+name)
	if _, err := postgres.Migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // the test is over
	if _, err := db.Run(t.Context(), event(t.Context(), "")); err != nil {
		t.Fatal(err)
	}
	if err := (&audit.Sealer{DB: db, Keys: w.keys, Log: slog.New(slog.DiscardHandler)}).Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := (&audit.Reader{DB: db, Keys: w.keys}).Verify(t.Context())
	if err != nil || report.Fault != nil || report.Records != 1 {
		t.Fatalf("report = %+v, %v", report, err)
	}
}
