package sms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Bounds of delivery.
const (
	// claimLease is how long a claimed message is left to its worker until a leg is stored, lease from then on: longer than any call may take, and
	// short enough for another worker to send what a dead one left within ten seconds.
	claimLease = 3 * time.Second
	lease      = 7500 * time.Millisecond
	// callTimeout ends a call to a vendor. What had been written by then may have been sent.
	callTimeout = 6 * time.Second
	// fallback is how often a worker looks without having been told.
	fallback = 2 * time.Second
	// tidy is how often reports that came too early, open sessions and what is over are looked after.
	tidy = time.Second
	// watch is how often the share of used codes is looked at.
	watch = 10 * time.Second
)

// Worker hands messages to vendors. Any number of them, in any number of processes, may serve one outbox.
type Worker struct {
	DB      *postgres.DB
	Keys    Keys
	Routing *Routing
	Log     *slog.Logger
	// Callback is the public URL that the vendor of that name is told to report to; nil: none.
	Callback func(vendor string) string
	// Calls in flight at once. Default 16.
	Calls int
	// Guard bounds what a prefix and a country may be sent without codes being used. The zero value is [DefaultGuard].
	Guard Guard
	// Observe, when set, is told how each call ended.
	Observe func(Sent)
	// Delivered, when set, is told what became of messages, as far as this process learnt it.
	Delivered func(Delivered)
	// OptedOut, when set, adds to a statement what else happens when a vendor refuses messages because their numbers want no more texts.
	OptedOut OptedOut
	// Became, when set, has others told what became of messages.
	Became Became

	once sync.Once
	bell *postgres.Bell
}

// Look has the worker see what is due, as soon as it can. It never waits.
func (w *Worker) Look() { w.ring().Ring() }

// ring is the worker's bell: it can be rung before the worker runs.
func (w *Worker) ring() *postgres.Bell {
	w.once.Do(func() { w.bell = postgres.NewBell() })
	return w.bell
}

// OptedOut adds to q what follows an opt-out that a vendor knew of and we did not: part from has the id and challenge_id of a message to each number of which that is
// new. The number itself may be known to nobody any more.
type OptedOut func(ctx context.Context, q *postgres.Query, from string)

// Sent is how a call ended, for metrics.
type Sent struct {
	Vendor  string
	Channel Channel
	Country string
	Class   Class         // of the failure; "": taken
	Since   time.Duration // since the message was stored
}

// Delivered is what became of a message, for metrics.
type Delivered struct {
	Vendor  string  `db:"vendor"`
	Country string  `db:"country"`
	State   string  `db:"state"` // "delivered", "undelivered"
	Age     float64 `db:"age"`   // seconds since it was stored
}

// claimed is a message that this worker has leased.
type claimed struct {
	ID        uuid.UUID      `db:"id"`
	Challenge *uuid.UUID     `db:"challenge_id"`
	Body      []byte         `db:"body"`
	Channels  pq.StringArray `db:"channels"`
	Purpose   string         `db:"purpose"`
	Locale    string         `db:"locale"`
	Age       float64        `db:"age"`
	Life      float64        `db:"life"`
	Own       []byte         `db:"own"`
	Earlier   []byte         `db:"earlier"`

	own, earlier []tried
	content      body
	to           Number
	plan         []Route
	step         step
	claim        uuid.UUID // by which the lease is ours
	leg          uuid.UUID
	release      func() // gives back what [Routing] lent
}

// Run delivers until ctx ends, then finishes the calls in flight and leaves the rest to others.
func (w *Worker) Run(ctx context.Context) error {
	calls := w.Calls
	if calls == 0 {
		calls = 16
	}
	bell := w.ring()
	alarm := &alarm{look: bell.Ring}
	defer alarm.stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	free := make(chan struct{}, calls)
	results := make(chan result, calls)
	var inFlight, helpers sync.WaitGroup
	helpers.Go(func() { w.settler(context.WithoutCancel(ctx), results, alarm) })
	helpers.Go(func() {
		every(ctx, tidy, func() { w.report(ctx, errors.Join(w.expire(ctx), w.match(ctx))); bell.Ring() })
	})
	helpers.Go(func() { every(ctx, tidy, func() { w.report(ctx, errors.Join(w.close(ctx), w.poll(ctx))) }) })
	helpers.Go(func() { every(ctx, watch, func() { w.report(ctx, w.Watch(ctx)) }) })
	defer func() { // what is under way is finished, in this order
		inFlight.Wait()
		close(results)
		cancel()
		helpers.Wait()
	}()
	err := bell.Answer(ctx, w.DB, outboxChannel, fallback, func() {
		for ctx.Err() == nil {
			free <- struct{}{} // not before there is room for one
			<-free
			asked := cap(free) - len(free)
			batch, taken, wait, err := w.claim(ctx, asked)
			if err != nil {
				if ctx.Err() == nil {
					w.Log.ErrorContext(ctx, "outbox claim failed", "error", err)
				}
				return
			}
			for _, m := range batch {
				free <- struct{}{}
				inFlight.Go(func() {
					defer func() { <-free }()
					results <- w.carry(context.WithoutCancel(ctx), m)
				})
			}
			if wait > 0 {
				alarm.in(wait)
			}
			if taken < asked { // that was all that is due
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("listen for messages: %w", err)
	}
	return nil
}

// settler settles what calls ended with, as many at once as there are: under load a statement is for many.
func (w *Worker) settler(ctx context.Context, results <-chan result, alarm *alarm) {
	const most = 64
	for first := range results {
		batch := []result{first}
	more:
		for len(batch) < most {
			select {
			case r, ok := <-results:
				if !ok {
					break more
				}
				batch = append(batch, r)
			default:
				break more
			}
		}
		if wait := w.settleAll(ctx, batch); wait >= 0 {
			alarm.in(wait)
		}
	}
}

// settlePause is how long after it failed a statement is tried again.
const settlePause = 500 * time.Millisecond

// settleAll settles a batch, again and again while its leases last, and then one by one: what one vendor answered must not cost others their results.
func (w *Worker) settleAll(ctx context.Context, batch []result) (wait time.Duration) {
	var err error
	for range int((lease - callTimeout) / settlePause) {
		if wait, err = w.settle(ctx, batch); err == nil {
			return wait
		}
		if !postgres.Unavailable(err) {
			break
		}
		<-time.After(settlePause)
	}
	wait = -1
	for _, r := range batch {
		one, err := w.settle(ctx, []result{r})
		if err != nil { // its lease runs out: once more, with the same key
			w.Log.ErrorContext(ctx, "outbox settle failed", "leg_id", r.m.leg, "error", err)
			continue
		}
		if one >= 0 {
			wait = shorter(wait, one)
		}
	}
	return wait
}

// alarm wakes a worker at the earliest of the times that it was set to.
type alarm struct {
	look func()

	mu    sync.Mutex
	timer *time.Timer
	at    time.Time
}

// tick is the least time between two alarms: messages that wait are many.
const tick = 250 * time.Millisecond

func (a *alarm) in(d time.Duration) {
	if d <= 0 {
		a.look()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now() //nolint:forbidigo // the monotonic clock
	at := now.Add(max(d, tick))
	if a.timer != nil && now.Before(a.at) && !at.Before(a.at) {
		return // it rings before
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.at, a.timer = at, time.AfterFunc(at.Sub(now), a.look)
}

func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
}

// every does work again and again until ctx ends.
func every(ctx context.Context, period time.Duration, work func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			work()
		}
	}
}

func (w *Worker) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		w.Log.ErrorContext(ctx, "outbox sweep failed", "error", err)
	}
}

// drainBatch is how many messages are claimed at once.
const drainBatch = 16

// Drain delivers what is due now, one after another, and says how many calls it made. For tools and tests: no listening, no waiting.
func (w *Worker) Drain(ctx context.Context) (int, error) {
	for n := 0; ; {
		batch, taken, _, err := w.claim(ctx, drainBatch)
		if err != nil || len(batch) == 0 && taken < drainBatch {
			return n, err
		}
		for _, m := range batch {
			if _, err := w.settle(ctx, []result{w.carry(ctx, m)}); err != nil {
				return n, err
			}
			n++
		}
	}
}

// triedSQL is the history of legs that SQL condition which chooses, oldest first.
func triedSQL(which string) string {
	return `(SELECT jsonb_agg(jsonb_build_object('id', l.id, 'vendor', l.vendor, 'channel', l.channel, 'sender', l.sender, 'state', l.state, 'class', coalesce(l.error_class, ''),
		'age', extract(epoch FROM wall() - coalesce(l.answered_at, l.created_at)), 'retry_after', l.retry_after, 'per_number', l.per_number, 'calls', l.calls,
		'session', coalesce(l.session, '')) ORDER BY l.created_at) FROM legs l ` + which + `)`
}

// claim leases what is due, decides for each message what comes next, and stores that: a leg for each call, in one statement for all of them. wait is
// when something of what was claimed falls due again, or 0.
func (w *Worker) claim(ctx context.Context, n int) (batch []*claimed, taken int, wait time.Duration, err error) {
	claim := uuid.New()
	q := new(postgres.Query)
	q.With("due", fmt.Sprintf(`
		SELECT m.id, m.created_at FROM messages m
		 WHERE m.state = 'queued' AND m.due_at <= wall() AND (m.lease_until IS NULL OR m.lease_until <= wall())
		   AND m.body IS NOT NULL AND m.not_after > wall()
		 ORDER BY m.due_at LIMIT %s FOR UPDATE OF m SKIP LOCKED`, q.Bind(n)+"::int"))
	q.With("taken", fmt.Sprintf(`
		UPDATE messages m SET claim = %s, lease_until = wall() + make_interval(secs => %s), updated_at = wall() FROM due d
		 WHERE m.id = d.id AND m.created_at = d.created_at
		RETURNING m.id, m.created_at, m.challenge_id, m.legs, m.body, m.channels, m.purpose, m.locale, m.not_after`, q.Bind(claim)+"::uuid", q.Bind(claimLease.Seconds())+"::float8"))
	q.Finally(`SELECT t.id, t.challenge_id, t.body, t.channels, t.purpose, t.locale, extract(epoch FROM wall() - t.created_at)::float8 AS age,
		extract(epoch FROM t.not_after - wall())::float8 AS life,
		CASE WHEN t.legs > 0 THEN ` + triedSQL("WHERE l.message_id = t.id") + ` END AS own,
		CASE WHEN t.challenge_id IS NOT NULL THEN ` + triedSQL("JOIN messages e ON e.id = l.message_id WHERE e.challenge_id = t.challenge_id AND e.id <> t.id") + ` END AS earlier
		FROM taken t`)
	var all []*claimed
	if err := w.DB.Select(ctx, &all, q); err != nil || len(all) == 0 {
		return nil, 0, 0, err
	}
	for _, m := range all {
		m.claim = claim
		if err := w.prepare(m); err != nil {
			m.step = end("failed", err.Class)
			w.Log.ErrorContext(ctx, "message cannot be sent", "message_id", m.ID, "code", err.Code)
		}
		if m.step.wait > 0 && (wait == 0 || m.step.wait < wait) {
			wait = m.step.wait
		}
	}
	kept, err := w.store(ctx, claim, all)
	if err != nil {
		for _, m := range all {
			m.drop()
		}
		return nil, 0, 0, err
	}
	for _, m := range all {
		if m.step.call && kept[m.leg] {
			batch = append(batch, m)
		} else {
			m.drop()
		}
	}
	return batch, len(all), wait, nil
}

// drop gives back what was lent for a call that is over, or is not made.
func (m *claimed) drop() {
	if m.release != nil {
		m.release()
		m.release = nil
	}
}

// prepare opens a message and decides its step.
func (w *Worker) prepare(m *claimed) *Error {
	challenge := uuid.Nil
	if m.Challenge != nil {
		challenge = *m.Challenge
	}
	plain, err := w.Keys.Open(m.Body, sealContext(m.ID, challenge))
	if err != nil {
		return &Error{Class: Misconfigured, Code: "unsealable"}
	}
	if json.Unmarshal(plain, &m.content) != nil ||
		len(m.Own) > 0 && json.Unmarshal(m.Own, &m.own) != nil || len(m.Earlier) > 0 && json.Unmarshal(m.Earlier, &m.earlier) != nil {
		return &Error{Class: Misconfigured, Code: "unreadable"}
	}
	if m.Channels != nil {
		m.content.Channels = channelsOf(m.Channels)
	}
	if m.to, err = ParseNumber(m.content.To, ""); err != nil {
		return &Error{Class: InvalidRecipient, Code: "number"}
	}
	m.plan, _, _ = w.Routing.Plan(m.to, m.Purpose)
	m.plan = m.content.narrow(m.plan)
	down := map[string]bool{}
	for {
		m.step = next(m.plan, m.own, m.earlier, w.vendor, down)
		if !m.step.call {
			return nil
		}
		release, ok := w.Routing.admit(m.step.route.Vendor)
		if ok {
			m.release = release
			break
		}
		down[m.step.route.Vendor] = true
	}
	if m.leg = m.step.leg; m.leg == uuid.Nil {
		m.leg = uuid.New()
	}
	return nil
}

func (w *Worker) vendor(name string) Vendor {
	v, _ := w.Routing.Vendor(name)
	return v
}

// store writes the steps of what was claimed: legs before their calls, pauses, ends. It gives the legs that may be called: a message that was canceled in the
// meantime, or whose lease went to another worker, has none.
func (w *Worker) store(ctx context.Context, claim uuid.UUID, all []*claimed) (map[uuid.UUID]bool, error) {
	n := len(all)
	ids, legs, vendors, channels, senders := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	again, waits, states, reasons := make([]bool, n), make([]float64, n), make([]string, n), make([]string, n)
	for i, m := range all {
		ids[i], states[i], reasons[i], waits[i] = m.ID.String(), m.step.state, string(m.step.reason), m.step.wait.Seconds()
		if legs[i] = uuid.Nil.String(); m.step.call {
			legs[i], vendors[i], channels[i], senders[i], again[i] = m.leg.String(), m.step.route.Vendor, string(m.step.route.Channel), m.step.route.Sender, m.step.leg != uuid.Nil
		}
	}
	q := new(postgres.Query)
	q.With("steps", fmt.Sprintf(`
		SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::bool[], %s::float8[], %s::text[], %s::text[])
		    AS s(id, leg, vendor, channel, sender, again, wait, state, reason)`,
		q.Bind(pq.Array(ids)), q.Bind(pq.Array(legs)), q.Bind(pq.Array(vendors)), q.Bind(pq.Array(channels)), q.Bind(pq.Array(senders)), q.Bind(pq.Array(again)),
		q.Bind(pq.Array(waits)), q.Bind(pq.Array(states)), q.Bind(pq.Array(reasons))))
	// Whatever was refused since the message was stored is refused now: a STOP counts at once.
	q.With("moved", fmt.Sprintf(`
		UPDATE messages m
		   SET state = CASE WHEN s.state <> '' THEN s.state WHEN r.refused IS NOT NULL THEN 'failed' ELSE m.state END,
		       reason = coalesce(nullif(s.reason, ''), r.refused, m.reason), updated_at = wall(), legs = m.legs + CASE WHEN s.vendor <> '' AND r.refused IS NULL THEN 1 ELSE 0 END,
		       lease_until = CASE WHEN s.vendor <> '' AND r.refused IS NULL THEN wall() + make_interval(secs => %[1]s) END,
		       due_at = CASE WHEN s.wait > 0 THEN wall() + make_interval(secs => s.wait) ELSE m.due_at END,
		       body = CASE WHEN (s.state <> '' OR r.refused IS NOT NULL) AND m.challenge_id IS NULL THEN NULL ELSE m.body END,
		       sent_at = CASE WHEN s.state = 'sent' THEN coalesce(m.sent_at, wall()) ELSE m.sent_at END
		  FROM steps s JOIN messages k ON k.id = s.id
		  CROSS JOIN LATERAL (SELECT CASE WHEN k.purpose NOT LIKE '%[2]s%%' THEN %[3]s END AS refused) r
		 WHERE m.id = s.id AND m.created_at = k.created_at AND m.state = 'queued' AND m.claim = %[4]s
		RETURNING m.id, m.state, s.leg, s.vendor, s.channel, s.sender, s.again, coalesce(m.reason, '') AS reason, m.challenge_id, m.purpose, m.sent_at = m.updated_at AS fresh`,
		q.Bind(lease.Seconds())+"::float8", replyPurpose, refusal("k.recipient", "k.prefix", "k.country"), q.Bind(claim)+"::uuid"))
	q.With("inserted", `INSERT INTO legs (id, message_id, vendor, channel, sender) SELECT leg, id, vendor, channel, sender FROM moved WHERE vendor <> '' AND state = 'queued' AND NOT again`)
	q.With("repeated", `UPDATE legs l SET calls = l.calls + 1 FROM moved WHERE moved.again AND moved.state = 'queued' AND l.id = moved.leg`)
	q.With("ended", "SELECT id, state, reason, challenge_id, purpose, fresh, (SELECT l.channel FROM legs l WHERE l.message_id = moved.id ORDER BY l.created_at DESC LIMIT 1) AS channel FROM moved WHERE state <> 'queued'")
	recordEnd(ctx, q, "ended")
	w.Became.add(ctx, q, "ended")
	q.Finally("SELECT leg FROM moved WHERE vendor <> '' AND state = 'queued'")
	var kept []uuid.UUID
	if err := w.DB.Select(ctx, &kept, q); err != nil {
		return nil, err
	}
	set := make(map[uuid.UUID]bool, len(kept))
	for _, leg := range kept {
		set[leg] = true
	}
	return set, nil
}

// Became adds to q what else follows from what became of messages: part from has columns challenge_id, purpose, state, reason and channel, one row for each piece of news. State is
// sent once a vendor has taken a message for the first time, delivered, undelivered or failed; the last two can still be followed by delivered.
type Became func(ctx context.Context, q *postgres.Query, from string)

// add tells of the messages in part, which has what [Became] wants and besides whether they are sent for the first time (fresh).
func (b Became) add(ctx context.Context, q *postgres.Query, part string) {
	if b == nil {
		return
	}
	q.With("became", fmt.Sprintf(`
		SELECT challenge_id, purpose, 'sent' AS state, '' AS reason, coalesce(channel, '') AS channel FROM %[1]s WHERE fresh AND challenge_id IS NOT NULL
		UNION ALL
		SELECT challenge_id, purpose, state, reason, coalesce(channel, '') FROM %[1]s WHERE state IN ('delivered', 'undelivered', 'failed') AND challenge_id IS NOT NULL`, part))
	b(ctx, q, "became")
}

// recordEnd writes the audit record of messages that have come to an end, from a part with columns id, state and reason.
func recordEnd(ctx context.Context, q *postgres.Query, part string) {
	audit.Record(ctx, q, part, audit.Event{Name: "message.end", Outcome: audit.Success, Actor: "system"}, audit.Expressions{
		"outcome": "CASE WHEN " + part + ".state IN ('sent', 'delivered') THEN 'success' ELSE 'failed' END", "object": part + ".id::text",
		"reason": "CASE WHEN " + part + ".state IN ('sent', 'delivered') THEN '' ELSE " + part + ".reason END",
	})
}

// result is how a call ended.
type result struct {
	m        *claimed
	accepted Accepted
	failure  *Error
}

// carry makes one call.
func (w *Worker) carry(ctx context.Context, m *claimed) result {
	start := time.Now() //nolint:forbidigo // a duration for metrics, by the monotonic clock
	r := m.step.route
	vendor := w.vendor(r.Vendor)
	leg := Leg{
		ID: m.leg, To: m.to, Text: m.content.Text, Code: m.content.Code, Purpose: m.Purpose, Locale: m.Locale, Channel: r.Channel, Sender: r.Sender,
		Life: time.Duration(m.Life * float64(time.Second)),
	}
	if _, receives := vendor.(Receiver); receives && w.Callback != nil {
		leg.Callback = w.Callback(r.Vendor)
	}
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	done := w.Routing.begun(r.Vendor)
	defer m.drop()
	var accepted Accepted
	var err error
	if continuer, ok := vendor.(Continuer); ok && m.step.session != "" {
		accepted, err = continuer.Continue(limited, Session{Leg: m.step.opened, ID: m.step.session, To: m.to, Channel: r.Channel}, leg)
	} else {
		accepted, err = vendor.Send(limited, leg)
	}
	if err == nil && (!clean(accepted.Ref) || !clean(accepted.Session)) {
		accepted, err = Accepted{}, &Error{Class: Ambiguous, Vendor: r.Vendor, Code: "reference_garbled", Reached: MaybeSent}
	}
	failure := asError(r.Vendor, err)
	if failure != nil {
		failure.Code = short(failure.Code)
	}
	done(failure)
	if w.Observe != nil {
		sent := Sent{Vendor: r.Vendor, Channel: r.Channel, Country: m.to.Country(), Since: time.Duration(m.Age*float64(time.Second)) + time.Since(start)} //nolint:forbidigo // as above
		if failure != nil {
			sent.Class = failure.Class
		}
		w.Observe(sent)
	}
	if failure != nil {
		w.Log.WarnContext(ctx, "message not taken by vendor", "message_id", m.ID, "leg_id", m.leg, "vendor", r.Vendor, "class", failure.Class, "code", failure.Code)
	}
	return result{m, accepted, failure}
}

// maxReference bounds what is kept of a vendor's names for things.
const maxReference = 512

// clean reports whether a vendor's name for something can be stored and found again.
func clean(reference string) bool {
	return len(reference) <= maxReference && utf8.ValidString(reference) && !strings.ContainsFunc(reference, unicode.IsControl)
}

func asError(vendor string, err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Class: Ambiguous, Vendor: vendor, Reached: MaybeSent, Cause: err}
}

// firstPoll is how long after it was taken a leg's vendor is first asked what became of it.
const firstPoll = 3 * time.Second

// settle stores how calls ended, in one statement, and what that means for their messages. wait is when one of them falls due again: 0 at once, negative never.
func (w *Worker) settle(ctx context.Context, batch []result) (wait time.Duration, err error) {
	wait = -1
	n := len(batch)
	ids, claims, legs, legStates, refs, sessions := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	classes, codes, states, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	pauses, retries, polls := make([]float64, n), make([]float64, n), make([]float64, n)
	checks, opens, perNumber, optedOut, ended := make([]bool, n), make([]bool, n), make([]bool, n), make([]bool, n), make([]bool, n)
	numbers := make([][]byte, n)
	for i, r := range batch {
		s, now := w.verdict(r)
		vendor := w.vendor(r.m.step.route.Vendor)
		_, closes := vendor.(Closer)
		_, polled := vendor.(Poller)
		ids[i], claims[i], legs[i], legStates[i] = r.m.ID.String(), r.m.claim.String(), r.m.leg.String(), string(now.State)
		refs[i], sessions[i] = r.accepted.Ref, r.accepted.Session
		states[i], reasons[i], pauses[i] = s.state, string(s.reason), s.wait.Seconds()
		if s.state == "" {
			states[i], reasons[i] = "queued", string(now.Class)
			wait = shorter(wait, s.wait)
		}
		if f := r.failure; f != nil {
			classes[i], codes[i], retries[i], perNumber[i] = string(now.Class), f.Code, f.RetryAfter.Seconds(), f.PerNumber
			if f.Class == RecipientOptedOut {
				optedOut[i] = true
				if numbers[i], err = w.Keys.Seal([]byte(r.m.content.To), numberContext); err != nil {
					return wait, fmt.Errorf("seal number: %w", err)
				}
			}
		} else {
			checks[i], opens[i] = vendor.Abilities().Kind == Verifier, closes && r.accepted.Session != ""
			if polled {
				polls[i] = firstPoll.Seconds()
			}
		}
		ended[i] = states[i] != "queued" && states[i] != "sent"
	}
	q := new(postgres.Query)
	q.With("done", fmt.Sprintf(`
		SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[]::leg_state[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
		    %s::float8[], %s::float8[], %s::float8[], %s::bool[], %s::bool[], %s::bool[], %s::bool[], %s::bool[], %s::bytea[])
		    AS d(id, claim, leg, leg_state, ref, session, class, code, state, reason, pause, retry_after, poll, checks, open, per_number, opted_out, ended, number)`,
		q.Bind(pq.Array(ids)), q.Bind(pq.Array(claims)), q.Bind(pq.Array(legs)), q.Bind(pq.Array(legStates)), q.Bind(pq.Array(refs)), q.Bind(pq.Array(sessions)), q.Bind(pq.Array(classes)),
		q.Bind(pq.Array(codes)), q.Bind(pq.Array(states)), q.Bind(pq.Array(reasons)), q.Bind(pq.Array(pauses)), q.Bind(pq.Array(retries)), q.Bind(pq.Array(polls)),
		q.Bind(pq.Array(checks)), q.Bind(pq.Array(opens)), q.Bind(pq.Array(perNumber)), q.Bind(pq.Array(optedOut)), q.Bind(pq.Array(ended)), q.Bind(pq.Array(numbers))))
	// A report may have overtaken the answer: the leg then stays where the report put it.
	q.With("leg", `
		UPDATE legs l SET state = greatest(l.state, d.leg_state), vendor_ref = coalesce(nullif(d.ref, ''), l.vendor_ref), session = coalesce(nullif(d.session, ''), l.session),
		       error_class = CASE WHEN l.state > d.leg_state THEN l.error_class ELSE nullif(d.class, '') END,
		       error_code = CASE WHEN l.state > d.leg_state THEN l.error_code ELSE nullif(d.code, '') END,
		       retry_after = d.retry_after, per_number = d.per_number, checks = d.checks, open = d.open, answered_at = wall(),
		       poll_at = CASE WHEN d.poll > 0 THEN wall() + make_interval(secs => d.poll) END
		  FROM done d WHERE l.id = d.leg RETURNING l.id, l.message_id, l.state, l.vendor, l.sender, l.channel`)
	// A message that was canceled while its call was under way stays canceled: only a queued one moves. Bad news of a call that outlived its lease is
	// another worker's business; good news is good news.
	q.With("message", `
		UPDATE messages m SET
		       state = CASE WHEN leg.state = 'delivered' THEN 'delivered' WHEN leg.state IN ('accepted', 'sent') THEN 'sent' WHEN leg.state = d.leg_state THEN d.state ELSE 'queued' END,
		       reason = CASE WHEN leg.state IN ('accepted', 'sent', 'delivered') THEN NULL ELSE nullif(d.reason, '') END, lease_until = NULL, updated_at = wall(),
		       due_at = wall() + make_interval(secs => d.pause), sent_at = CASE WHEN leg.state IN ('accepted', 'sent', 'delivered') THEN coalesce(m.sent_at, wall()) ELSE m.sent_at END,
		       body = CASE WHEN m.challenge_id IS NULL AND d.ended THEN NULL ELSE m.body END
		  FROM done d JOIN leg ON leg.id = d.leg
		 WHERE m.id = d.id AND m.state = 'queued' AND (m.claim = d.claim OR leg.state IN ('accepted', 'sent', 'delivered'))
		RETURNING m.id, m.state, coalesce(m.reason, '') AS reason, m.challenge_id, m.purpose, m.sent_at = m.updated_at AS fresh, leg.channel`)
	q.With("opted_out", `
		INSERT INTO opt_outs (recipient, sender, number, hint, country, source, vendor)
		SELECT m.recipient, leg.sender, d.number, m.hint, m.country, 'vendor', leg.vendor FROM done d JOIN leg ON leg.id = d.leg JOIN messages m ON m.id = d.id WHERE d.opted_out
		ON CONFLICT (recipient, sender) WHERE in_at IS NULL DO NOTHING RETURNING recipient`)
	if w.OptedOut != nil && slices.Contains(optedOut, true) {
		q.With("opted_out_by", `SELECT DISTINCT ON (o.recipient) m.id, m.challenge_id FROM opted_out o JOIN messages m ON m.recipient = o.recipient
			JOIN done d ON d.id = m.id WHERE d.opted_out ORDER BY o.recipient, m.id`)
		w.OptedOut(ctx, q, "opted_out_by")
	}
	q.With("over", "SELECT * FROM message WHERE state <> 'queued'")
	recordEnd(ctx, q, "over")
	w.Became.add(ctx, q, "over")
	q.Finally("SELECT 1 FROM leg")
	_, err = w.DB.Run(ctx, q)
	return wait, err
}

// shorter is the sooner of two waits, of which a negative one never ends.
func shorter(a, b time.Duration) time.Duration {
	if a < 0 || b < a {
		return b
	}
	return a
}

// verdict decides by class and reach alone what a call's end means.
func (w *Worker) verdict(r result) (step, tried) {
	if r.failure == nil {
		return end("sent", ""), tried{State: LegAccepted}
	}
	last := tried{
		Leg: r.m.leg, Vendor: r.m.step.route.Vendor, Channel: r.m.step.route.Channel, Class: r.failure.Class, RetryAfter: r.failure.RetryAfter.Seconds(),
		PerNumber: r.failure.PerNumber, State: LegFailed, Calls: 1,
	}
	own := r.m.own
	if r.m.step.leg != uuid.Nil { // the same leg once more
		last.Calls = 2
		own = own[:len(own)-1]
	}
	if r.failure.Reached == MaybeSent || last.Calls == 2 {
		last.State = LegCalling // nobody knows how it ended, or how the call before this one did
	}
	if r.failure.Reached == MaybeSent {
		last.Class = Ambiguous
	}
	own = append(own[:len(own):len(own)], last)
	s := next(r.m.plan, own, r.m.earlier, w.vendor, map[string]bool{})
	if s.call {
		return step{wait: 0}, last // due at once; the claim decides again, with the breakers of that moment
	}
	return s, last
}
