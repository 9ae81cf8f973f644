package sms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// orphanAfter is how long a report waits for the leg that it is about.
const orphanAfter = time.Minute

// Sweep does what time brings: it ends messages that can no longer be sent and erases what nobody needs, matches reports that overtook the answer to
// their call, tells vendors how sessions ended, and asks those that only answer.
func (w *Worker) Sweep(ctx context.Context) error {
	return errors.Join(w.expire(ctx), w.match(ctx), w.close(ctx), w.poll(ctx))
}

func (w *Worker) expire(ctx context.Context) error {
	q := new(postgres.Query)
	q.With("expired", `
		UPDATE messages SET state = CASE WHEN state = 'queued' THEN 'failed' ELSE state END,
		       reason = CASE WHEN state = 'queued' THEN 'expired' ELSE reason END, body = NULL, updated_at = CASE WHEN state = 'queued' THEN wall() ELSE updated_at END
		 WHERE body IS NOT NULL AND not_after <= wall() AND (lease_until IS NULL OR lease_until <= wall())
		RETURNING id, state, reason, challenge_id, purpose`)
	q.With("unsent", "SELECT challenge_id, purpose, state, reason, NULL::text AS channel, false AS fresh FROM expired WHERE reason = 'expired'")
	w.Became.add(ctx, q, "unsent")
	audit.Record(ctx, q, "expired", audit.Event{Name: "message.end", Outcome: audit.Failed, Actor: "system"},
		audit.Expressions{"object": "expired.id::text", "outcome": "CASE WHEN expired.reason = 'expired' THEN 'failed' ELSE 'success' END",
			"reason": "CASE WHEN expired.reason = 'expired' THEN 'expired' ELSE 'erased' END"})
	q.Finally("SELECT 1 FROM expired")
	_, err := w.DB.Run(ctx, q)
	return err
}

// match applies reports that waited for their leg, and gives up those that waited in vain.
func (w *Worker) match(ctx context.Context) error {
	q := new(postgres.Query)
	q.With("waiting", "SELECT key, vendor, leg_id, vendor_ref, state, class, code FROM receipts WHERE status = 'waiting'")
	apply(ctx, q, "waiting", w.Became, w.OptedOut)
	q.With("found", "UPDATE receipts r SET status = 'applied' FROM matched m WHERE r.key = m.key")
	q.With("orphans", fmt.Sprintf(`UPDATE receipts r SET status = 'orphan' WHERE r.status = 'waiting' AND r.received_at < wall() - make_interval(secs => %s)
		AND NOT EXISTS (SELECT FROM matched m WHERE m.key = r.key) RETURNING r.vendor, r.state`, q.Bind(orphanAfter.Seconds())+"::float8"))
	q.Finally("SELECT vendor, count(*) AS n FROM orphans GROUP BY vendor")
	var orphans []struct {
		Vendor string `db:"vendor"`
		N      int    `db:"n"`
	}
	if err := w.DB.Select(ctx, &orphans, q); err != nil {
		return err
	}
	for _, o := range orphans {
		w.Log.WarnContext(ctx, "receipts for nothing that was sent", "vendor", o.Vendor, "receipts", o.N)
	}
	return nil
}

// open is a session at a vendor.
type open struct {
	Leg      uuid.UUID `db:"id"`
	Vendor   string    `db:"vendor"`
	Channel  Channel   `db:"channel"`
	Session  string    `db:"session"`
	Verified bool      `db:"verified"`
	Polls    int       `db:"polls"`
	Ref      string    `db:"ref"`
}

// batch of sessions that are looked after at once.
const batch = 32

// close tells vendors how the challenges of their sessions ended. A session whose vendor cannot be told is left to its own expiry.
func (w *Worker) close(ctx context.Context) error {
	q := new(postgres.Query)
	q.With("ended", fmt.Sprintf(`
		SELECT l.id, l.created_at, m.verified FROM legs l JOIN messages m ON m.id = l.message_id
		 WHERE l.open AND m.body IS NULL AND l.vendor <> ALL(%[2]s::text[]) ORDER BY l.created_at LIMIT %[1]s FOR UPDATE OF l SKIP LOCKED`, q.Bind(batch)+"::int", q.Bind(pq.Array(w.broken()))))
	q.With("closed", `UPDATE legs l SET open = false FROM ended e WHERE l.id = e.id AND l.created_at = e.created_at RETURNING l.id, l.vendor, l.channel, l.session, e.verified`)
	q.Finally("SELECT id, vendor, channel, session, verified, 0 AS polls, '' AS ref FROM closed")
	var ended []open
	if err := w.DB.Select(ctx, &ended, q); err != nil {
		return err
	}
	parallel(ended, func(o open) {
		closer, ok := w.vendor(o.Vendor).(Closer)
		if !ok {
			return
		}
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if err := closer.Close(limited, Session{Leg: o.Leg, ID: o.Session, Channel: o.Channel}, o.Verified); err != nil {
			w.Log.WarnContext(ctx, "vendor was not told how a session ended", "leg_id", o.Leg, "vendor", o.Vendor, "error", err)
		}
	})
	return nil
}

// asking is how many vendors' sessions are looked after at once.
const asking = 8

// parallel does work for each of all, a few at a time.
func parallel[T any](all []T, work func(T)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, asking)
	for _, one := range all {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			work(one)
		})
	}
	wg.Wait()
}

// broken names the vendors that nothing is asked of at the moment.
func (w *Worker) broken() []string {
	down := []string{}
	for _, v := range w.Routing.Vendors() {
		if !w.Routing.Up(v.Name()) {
			down = append(down, v.Name())
		}
	}
	return down
}

// maxPolls bounds how often a vendor is asked about one leg; the pauses double.
const maxPolls = 8

// poll asks vendors that only answer what became of legs.
func (w *Worker) poll(ctx context.Context) error {
	q := new(postgres.Query)
	q.With("due", fmt.Sprintf(`
		SELECT l.id, l.created_at FROM legs l WHERE l.poll_at <= wall() AND l.vendor <> ALL(%[2]s::text[]) ORDER BY l.poll_at LIMIT %[1]s FOR UPDATE OF l SKIP LOCKED`, q.Bind(batch)+"::int",
		q.Bind(pq.Array(w.broken()))))
	q.With("asked", fmt.Sprintf(`
		UPDATE legs l SET polls = l.polls + 1, poll_at = CASE WHEN l.polls + 1 < %s AND l.state IN ('accepted', 'sent') THEN wall() + make_interval(secs => %s * power(2, l.polls)) END
		  FROM due d WHERE l.id = d.id AND l.created_at = d.created_at RETURNING l.id, l.vendor, l.channel, coalesce(l.session, '') AS session, coalesce(l.vendor_ref, '') AS ref, l.polls, l.state`,
		q.Bind(maxPolls)+"::int", q.Bind(firstPoll.Seconds())+"::float8"))
	q.Finally("SELECT id, vendor, channel, session, ref, polls, false AS verified FROM asked WHERE state IN ('accepted', 'sent')")
	var due []open
	if err := w.DB.Select(ctx, &due, q); err != nil {
		return err
	}
	var mu sync.Mutex
	var problems []error
	parallel(due, func(o open) {
		poller, ok := w.vendor(o.Vendor).(Poller)
		if !ok {
			return
		}
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		report, err := poller.Poll(limited, Session{Leg: o.Leg, ID: o.Session, Channel: o.Channel})
		if err != nil {
			w.Log.WarnContext(ctx, "vendor does not say what became of a message", "leg_id", o.Leg, "vendor", o.Vendor, "error", err)
			return
		}
		report.Leg = o.Leg
		report.Key = "poll " + o.Leg.String() + " " + string(report.State)
		if err := storeReports(ctx, w.DB, o.Vendor, []Report{report}, w.Delivered, w.Became, w.OptedOut); err != nil {
			mu.Lock()
			problems = append(problems, err)
			mu.Unlock()
		}
	})
	return errors.Join(problems...)
}

// Guard bounds what is sent where codes are hardly ever used: texts to numbers whose owner earns by receiving them.
type Guard struct {
	// PrefixSent within an hour, with less than PrefixShare of the codes used, stops a prefix: a number without its last four digits.
	PrefixSent  int
	PrefixShare float64
	// CountrySent within an hour, with less than CountryShare used, stops a country.
	CountrySent  int
	CountryShare float64
	// Pause is how long nothing is sent there. What was sent before does not count again afterwards.
	Pause time.Duration
}

// DefaultGuard lets any site's people sign in and stops who pumps.
func DefaultGuard() Guard {
	return Guard{PrefixSent: 100, PrefixShare: 0.1, CountrySent: 400, CountryShare: 0.02, Pause: 30 * time.Minute}
}

// settled is how old a text has to be before an unused code counts: people need time to type.
const settledAge = 2 * time.Minute

// sample bounds how many messages are looked at.
const sample = 50_000

// Watch opens breakers for prefixes and countries.
func (w *Worker) Watch(ctx context.Context) error {
	g := w.Guard
	if g == (Guard{}) {
		g = DefaultGuard()
	}
	q := new(postgres.Query)
	q.With("recent", fmt.Sprintf(`
		SELECT m.prefix, m.country, m.verified, m.created_at FROM messages m
		 WHERE m.created_at > wall() - interval '1 hour' AND m.created_at < wall() - make_interval(secs => %s) AND m.state IN ('sent', 'delivered', 'undelivered')
		   AND m.challenge_id IS NOT NULL ORDER BY m.created_at DESC LIMIT %d`, q.Bind(settledAge.Seconds())+"::float8", sample))
	q.With("counts", `
		SELECT 'prefix' AS scope, r.prefix AS key, r.country, count(*) AS sent, count(*) FILTER (WHERE r.verified) AS used
		  FROM recent r LEFT JOIN send_breakers b ON b.scope = 'prefix' AND b.key = r.prefix WHERE b.until IS NULL OR r.created_at > b.until GROUP BY r.prefix, r.country
		UNION ALL
		SELECT 'country', `+countryKey("r.country")+`, r.country, count(*), count(*) FILTER (WHERE r.verified)
		  FROM recent r LEFT JOIN send_breakers b ON b.scope = 'country' AND b.key = `+countryKey("r.country")+` WHERE b.until IS NULL OR r.created_at > b.until GROUP BY r.country`)
	q.With("tripped", fmt.Sprintf(`
		INSERT INTO send_breakers AS b (scope, key, until, sent, used)
		SELECT scope, key, wall() + make_interval(secs => %s), sent, used FROM counts
		 WHERE scope = 'prefix' AND sent >= %s AND used < sent * %s OR scope = 'country' AND sent >= %s AND used < sent * %s
		ON CONFLICT (scope, key) DO UPDATE SET since = wall(), until = excluded.until, sent = excluded.sent, used = excluded.used WHERE b.until <= wall()
		RETURNING scope, key, sent, used`,
		q.Bind(g.Pause.Seconds())+"::float8", q.Bind(g.PrefixSent)+"::int", q.Bind(g.PrefixShare)+"::float8", q.Bind(g.CountrySent)+"::int", q.Bind(g.CountryShare)+"::float8"))
	audit.Record(ctx, q, "tripped", audit.Event{Name: "send.breaker", Outcome: audit.Refused, Actor: "system"}, audit.Expressions{
		"reason": "'unused_codes'", "object": "tripped.scope || ' ' || CASE WHEN tripped.scope = 'country' THEN convert_from(tripped.key, 'UTF8') ELSE left(encode(tripped.key, 'hex'), 12) END"})
	q.Finally("SELECT t.scope, (SELECT min(c.country) FROM counts c WHERE c.scope = t.scope AND c.key = t.key) AS country, t.sent, t.used FROM tripped t")
	var tripped []struct {
		Scope   string `db:"scope"`
		Country string `db:"country"`
		Sent    int    `db:"sent"`
		Used    int    `db:"used"`
	}
	if err := w.DB.Select(ctx, &tripped, q); err != nil {
		return err
	}
	for _, t := range tripped {
		w.Log.ErrorContext(ctx, "sending stopped: codes are not used", "scope", t.Scope, "country", t.Country, "sent", t.Sent, "used", t.Used, "pause", g.Pause.String())
	}
	return nil
}

// negative states of a leg.
const negative = "('undelivered', 'expired', 'rejected', 'failed')"

// apply adds to q what reports mean: part matched (columns key and leg) says which legs they are about; legs rise, never fall; a message follows the
// newest of its legs. Bad news of a message that can still be sent makes it due: the worker looks for another way.
func apply(ctx context.Context, q *postgres.Query, reports string, became Became, optedOut OptedOut) {
	q.With("matched", fmt.Sprintf(`
		SELECT r.key, l.id AS leg, l.created_at, l.message_id, r.state, r.class, r.code FROM %[1]s r JOIN legs l ON l.vendor = r.vendor AND l.id = r.leg_id
		UNION SELECT r.key, l.id, l.created_at, l.message_id, r.state, r.class, r.code FROM %[1]s r JOIN legs l ON l.vendor = r.vendor AND l.vendor_ref = r.vendor_ref`, reports))
	q.With("highest", "SELECT DISTINCT ON (leg) * FROM matched WHERE state IS NOT NULL ORDER BY leg, state DESC")
	q.With("risen", `
		UPDATE legs l SET state = h.state, error_class = h.class, error_code = h.code, answered_at = wall(), poll_at = CASE WHEN h.state = 'sent' THEN l.poll_at END
		  FROM highest h WHERE l.id = h.leg AND l.created_at = h.created_at AND l.state < h.state
		RETURNING l.id, l.message_id, l.state, l.error_class, l.vendor, l.sender, l.channel, l.created_at,
		          NOT EXISTS (SELECT FROM legs n WHERE n.message_id = l.message_id AND n.created_at > l.created_at) AS newest`)
	follow(ctx, q, became)
	q.With("stopped", fmt.Sprintf(`
		INSERT INTO opt_outs (recipient, sender, hint, country, source, vendor)
		SELECT m.recipient, r.sender, m.hint, m.country, 'vendor', r.vendor FROM risen r JOIN messages m ON m.id = r.message_id WHERE r.error_class = '%s'
		ON CONFLICT (recipient, sender) WHERE in_at IS NULL DO NOTHING RETURNING recipient`, RecipientOptedOut))
	if optedOut != nil {
		q.With("stopped_by", fmt.Sprintf(`SELECT DISTINCT ON (s.recipient) m.id, m.challenge_id FROM stopped s JOIN messages m ON m.recipient = s.recipient
			JOIN risen r ON r.message_id = m.id WHERE r.error_class = '%s' ORDER BY s.recipient, m.id`, RecipientOptedOut))
		optedOut(ctx, q, "stopped_by")
	}
}

// follow adds to q what part risen (columns message_id, state, error_class, vendor, channel, newest) means for messages. Part finished has those that came to an end.
func follow(ctx context.Context, q *postgres.Query, became Became) {
	q.With("followed", fmt.Sprintf(`
		UPDATE messages m SET updated_at = wall(),
		       state = CASE WHEN r.state = 'delivered' THEN 'delivered' WHEN r.state IN ('accepted', 'sent') THEN 'sent'
		                    WHEN m.body IS NOT NULL AND m.not_after > wall() THEN 'queued' ELSE 'undelivered' END,
		       reason = CASE WHEN r.state IN %[1]s THEN r.error_class END,
		       body = CASE WHEN r.state = 'delivered' AND m.challenge_id IS NULL THEN NULL ELSE m.body END,
		       due_at = CASE WHEN r.state IN %[1]s THEN wall() ELSE m.due_at END, lease_until = CASE WHEN r.state IN %[1]s THEN NULL ELSE m.lease_until END,
		       sent_at = coalesce(m.sent_at, CASE WHEN r.state IN ('accepted', 'sent', 'delivered') THEN wall() END)
		  FROM risen r
		 WHERE m.id = r.message_id AND (r.state = 'delivered' AND m.state <> 'canceled' AND m.state <> 'delivered'
		    OR r.state IN ('accepted', 'sent') AND m.state = 'queued' AND r.newest OR r.state IN %[1]s AND m.state = 'sent' AND r.newest)
		RETURNING m.id, m.state, coalesce(m.reason, '') AS reason, extract(epoch FROM wall() - m.created_at)::float8 AS age, r.vendor, m.country, r.channel, m.challenge_id, m.purpose,
		          m.sent_at = m.updated_at AS fresh,
		          CASE WHEN m.state = 'queued' THEN pg_notify('%[2]s', '')::text END AS woken`, negative, outboxChannel))
	q.With("finished", "SELECT id, state, reason, vendor, country, age FROM followed WHERE state IN ('delivered', 'undelivered')")
	recordEnd(ctx, q, "finished")
	became.add(ctx, q, "followed")
}

// reference drops what cannot be a reference of a leg's.
func reference(ref string) string {
	if !clean(ref) {
		return ""
	}
	return ref
}

// storeReports keeps each report once and applies what is new. Reports of legs that are not known yet wait.
func storeReports(ctx context.Context, db *postgres.DB, vendor string, reports []Report, delivered func(Delivered), became Became, optedOut OptedOut) error {
	n := len(reports)
	keys, legs, refs, states, classes, codes := make([][]byte, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, r := range reports {
		keys[i], legs[i], refs[i], states[i], classes[i], codes[i] = dedupe(vendor, r.Key), r.Leg.String(), reference(r.Ref), string(r.State), string(r.Class), short(r.Code)
	}
	q := new(postgres.Query)
	q.With("told", fmt.Sprintf(`
		SELECT DISTINCT ON (key) key, %s::text AS vendor, nullif(leg, '00000000-0000-0000-0000-000000000000'::uuid) AS leg_id, nullif(ref, '') AS vendor_ref, state::leg_state AS state,
		       nullif(class, '') AS class, nullif(code, '') AS code
		  FROM unnest(%s::bytea[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[]) AS t(key, leg, ref, state, class, code)`,
		q.Bind(vendor), q.Bind(pq.Array(keys)), q.Bind(pq.Array(legs)), q.Bind(pq.Array(refs)), q.Bind(pq.Array(states)), q.Bind(pq.Array(classes)), q.Bind(pq.Array(codes))))
	q.With("fresh", `
		INSERT INTO receipts (key, vendor, leg_id, vendor_ref, state, class, code, status)
		SELECT t.key, t.vendor, t.leg_id, t.vendor_ref, t.state, t.class, t.code,
		       CASE WHEN EXISTS (SELECT FROM legs l WHERE l.vendor = t.vendor AND (l.id = t.leg_id OR l.vendor_ref = t.vendor_ref)) THEN 'applied' ELSE 'waiting' END
		  FROM told t ORDER BY t.key ON CONFLICT (key) DO NOTHING RETURNING key, vendor, leg_id, vendor_ref, state, class, code`)
	if !slices.ContainsFunc(reports, func(r Report) bool { return r.Class == RecipientOptedOut }) {
		optedOut = nil // there is nothing to tell
	}
	apply(ctx, q, "fresh", became, optedOut)
	q.Finally("SELECT vendor, country, state, age FROM finished")
	if err := tell(ctx, db, q, delivered); err != nil {
		return err
	}
	for i := range reports {
		if reports[i].Class != "" { // bad news may have waited for the very statement that made its message "sent", and have missed that
			return again(ctx, db, vendor, legs, refs, delivered, became)
		}
	}
	return nil
}

// again follows up bad news whose message does not show it.
func again(ctx context.Context, db *postgres.DB, vendor string, legs, refs []string, delivered func(Delivered), became Became) error {
	q := new(postgres.Query)
	q.With("told", fmt.Sprintf(`SELECT DISTINCT l.id FROM unnest(%[1]s::uuid[], %[2]s::text[]) AS t(leg, ref) JOIN legs l ON l.vendor = %[3]s::text AND l.id = t.leg
		UNION SELECT l.id FROM unnest(%[1]s::uuid[], %[2]s::text[]) AS t(leg, ref) JOIN legs l ON l.vendor = %[3]s::text AND t.ref <> '' AND l.vendor_ref = t.ref`,
		q.Bind(pq.Array(legs)), q.Bind(pq.Array(refs)), q.Bind(vendor)))
	q.With("risen", `SELECT l.id, l.message_id, l.state, l.error_class, l.vendor, l.channel, true AS newest FROM told JOIN legs l ON l.id = told.id JOIN messages m ON m.id = l.message_id
		WHERE l.state IN `+negative+` AND m.state = 'sent' AND NOT EXISTS (SELECT FROM legs n WHERE n.message_id = l.message_id AND n.created_at > l.created_at)`)
	follow(ctx, q, became)
	q.Finally("SELECT vendor, country, state, age FROM finished")
	return tell(ctx, db, q, delivered)
}

// tell runs a statement that ends with what became of messages.
func tell(ctx context.Context, db *postgres.DB, q *postgres.Query, delivered func(Delivered)) error {
	var ends []Delivered
	if err := db.Select(ctx, &ends, q); err != nil {
		return err
	}
	if delivered != nil {
		for _, e := range ends {
			delivered(e)
		}
	}
	return nil
}
