package sms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Bounds of delivery.
const (
	// lease is how long a claimed message is left to its worker: longer than any call may take.
	lease = 20 * time.Second
	// callTimeout ends a call to a vendor. What had been written by then may have been sent.
	callTimeout = 10 * time.Second
	// maxRetries of failures after which nothing can have been sent; the pauses are 0.5, 1 and 2 s.
	maxRetries = 3
	// fallback is how often a worker looks without having been told.
	fallback = 2 * time.Second
)

// Worker hands messages to a vendor. Any number of them, in any number of processes, may serve one outbox.
type Worker struct {
	DB     *postgres.DB
	Keys   Keys
	Vendor Vendor
	Log    *slog.Logger
	// Calls in flight at once. Default 16.
	Calls int
	// Observe, when set, is told how each call ended: "" or the class of its failure, and how long it took since the message was stored.
	Observe func(vendor string, class Class, since time.Duration)

	failed atomic.Int64 // calls in a row that the vendor is to blame for
}

// outage is how many calls in a row have to fail before people are told.
const outage = 3

// Down reports whether messages do not get through at the moment: the last calls failed in a way that has nothing to do with whom they were for.
func (w *Worker) Down() bool { return w.failed.Load() >= outage }

// blame counts calls that failed for everybody.
func (w *Worker) blame(failure *Error) {
	if failure == nil {
		w.failed.Store(0)
		return
	}
	switch failure.Class {
	case Temporary, Ambiguous, Unauthorized, InsufficientFunds, Misconfigured:
		w.failed.Add(1)
	}
}

// claimed is a message with the leg that was stored for it.
type claimed struct {
	ID        uuid.UUID  `db:"id"`
	Challenge *uuid.UUID `db:"challenge_id"`
	Leg       uuid.UUID  `db:"leg_id"`
	Legs      int        `db:"legs"`
	Repeat    bool       `db:"repeated"` // the leg had been called before, and nobody knows how that ended
	Body      []byte     `db:"body"`
	Locale    string     `db:"locale"`
	Age       float64    `db:"age"`
	Life      float64    `db:"life"`
}

// Run delivers until ctx ends, then finishes the calls in flight and leaves the rest to others.
func (w *Worker) Run(ctx context.Context) error {
	calls := w.Calls
	if calls == 0 {
		calls = 16
	}
	wake := make(chan struct{}, 1)
	listening := make(chan error, 1)
	go func() {
		listening <- postgres.Listen(ctx, w.DB.DirectDSN(), Channel, fallback, func(string) {
			select {
			case wake <- struct{}{}:
			default: // awake already
			}
		})
	}()
	free := make(chan struct{}, calls)
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-listening:
			if err != nil {
				return fmt.Errorf("listen for messages: %w", err)
			}
			return nil
		case <-wake:
		}
		if err := w.Sweep(ctx); err != nil && ctx.Err() == nil {
			w.Log.ErrorContext(ctx, "outbox sweep failed", "error", err)
		}
		for {
			batch, err := w.claim(ctx, min(calls, cap(free)-len(free)+1))
			if err != nil {
				if ctx.Err() == nil {
					w.Log.ErrorContext(ctx, "outbox claim failed", "error", err)
				}
				break
			}
			for _, m := range batch {
				free <- struct{}{}
				inFlight.Go(func() {
					defer func() { <-free }()
					w.deliver(context.WithoutCancel(ctx), m)
					select {
					case wake <- struct{}{}: // a retry may have fallen due
					default:
					}
				})
			}
			if len(batch) == 0 || ctx.Err() != nil {
				break
			}
		}
	}
}

// Drain delivers what is due now, one after another, and says how many calls it made. For tools and tests: no listening, no waiting.
func (w *Worker) Drain(ctx context.Context) (int, error) {
	for n := 0; ; {
		batch, err := w.claim(ctx, 16)
		if err != nil || len(batch) == 0 {
			return n, err
		}
		for _, m := range batch {
			w.deliver(ctx, m)
			n++
		}
	}
}

// Sweep ends what can no longer be sent and erases what nobody needs: messages whose time has passed, and those whose last leg is unknown
// and has been repeated once.
func (w *Worker) Sweep(ctx context.Context) error {
	q := new(postgres.Query)
	q.With("expired", `
		UPDATE messages SET state = CASE WHEN state = 'queued' THEN 'failed' ELSE state END,
		       reason = CASE WHEN state = 'queued' THEN 'expired' ELSE reason END, body = NULL, updated_at = wall()
		 WHERE body IS NOT NULL AND not_after <= wall() AND (lease_until IS NULL OR lease_until <= wall())
		RETURNING id, state, reason, challenge_id`)
	audit.Record(ctx, q, "expired", audit.Event{Name: "message.end", Outcome: audit.Failed, Reason: string(Expired), Actor: "system"},
		audit.Expressions{"object": "expired.id::text", "outcome": "CASE WHEN expired.reason = 'expired' THEN 'failed' ELSE 'success' END",
			"reason": "CASE WHEN expired.reason = 'expired' THEN 'expired' ELSE 'erased' END"})
	q.Finally("SELECT 1 FROM expired")
	_, err := w.DB.Run(ctx, q)
	return err
}

// claim leases what is due and stores a leg for each, in one statement. A message whose lease ran out had a leg that nobody settled: it is
// tried once more with the same leg, and then given up.
func (w *Worker) claim(ctx context.Context, n int) ([]claimed, error) {
	q := new(postgres.Query)
	q.With("due", fmt.Sprintf(`
		SELECT m.id, m.created_at, (SELECT l.id FROM legs l WHERE l.message_id = m.id AND l.state IN ('calling', 'unknown')) AS open_leg
		  FROM messages m
		 WHERE m.state = 'queued' AND m.due_at <= wall() AND (m.lease_until IS NULL OR m.lease_until <= wall())
		   AND m.body IS NOT NULL AND m.not_after > wall()
		 ORDER BY m.due_at LIMIT %s FOR UPDATE OF m SKIP LOCKED`, q.Bind(n)+"::int"))
	q.With("given_up", `
		UPDATE messages m SET state = 'failed', reason = 'ambiguous', lease_until = NULL, updated_at = wall() FROM due d
		 WHERE m.id = d.id AND m.created_at = d.created_at AND d.open_leg IS NOT NULL AND m.legs >= 2
		RETURNING m.id`)
	audit.Record(ctx, q, "given_up", audit.Event{Name: "message.end", Outcome: audit.Failed, Reason: string(Ambiguous), Actor: "system"},
		audit.Expressions{"object": "given_up.id::text"})
	q.With("taken", fmt.Sprintf(`
		UPDATE messages m SET lease_until = wall() + make_interval(secs => %s), legs = m.legs + 1, updated_at = wall() FROM due d
		 WHERE m.id = d.id AND m.created_at = d.created_at AND (d.open_leg IS NULL OR m.legs < 2)
		RETURNING m.id, m.challenge_id, m.legs, m.body, m.locale, coalesce(d.open_leg, gen_random_uuid()) AS leg_id, d.open_leg IS NOT NULL AS repeated,
		          extract(epoch FROM wall() - m.created_at) AS age, extract(epoch FROM m.not_after - wall()) AS life`,
		q.Bind(lease.Seconds())+"::float8"))
	q.With("stored", fmt.Sprintf(`
		INSERT INTO legs (id, message_id, vendor) SELECT leg_id, id, %s FROM taken WHERE NOT repeated`, q.Bind(w.Vendor.Name())+"::text"))
	q.Finally("SELECT id, challenge_id, leg_id, legs, repeated, body, locale, age::float8 AS age, life::float8 AS life FROM taken")
	var batch []claimed
	return batch, w.DB.Select(ctx, &batch, q)
}

func (w *Worker) deliver(ctx context.Context, m claimed) {
	start := time.Now() //nolint:forbidigo // a duration for metrics, by the monotonic clock
	accepted, err := w.call(ctx, m)
	failure := asError(w.Vendor.Name(), err)
	w.blame(failure)
	if w.Observe != nil {
		class := Class("")
		if failure != nil {
			class = failure.Class
		}
		w.Observe(w.Vendor.Name(), class, time.Duration(m.Age*float64(time.Second))+time.Since(start)) //nolint:forbidigo // as above
	}
	if err := w.settle(ctx, m, accepted, failure); err != nil {
		w.Log.ErrorContext(ctx, "outbox settle failed", "message_id", m.ID, "error", err) // the lease runs out: once more, same key
	}
	if failure != nil {
		w.Log.WarnContext(ctx, "message not taken by vendor", "message_id", m.ID, "leg_id", m.Leg, "vendor", failure.Vendor, "class", failure.Class, "code", failure.Code)
	}
}

func (w *Worker) call(ctx context.Context, m claimed) (Accepted, error) {
	challenge := uuid.Nil
	if m.Challenge != nil {
		challenge = *m.Challenge
	}
	plain, err := w.Keys.Open(m.Body, sealContext(m.ID, challenge))
	if err != nil {
		return Accepted{}, &Error{Class: Misconfigured, Vendor: w.Vendor.Name(), Code: "unsealable", Reached: NotSent, Cause: err}
	}
	var b body
	if err := json.Unmarshal(plain, &b); err != nil {
		return Accepted{}, &Error{Class: Misconfigured, Vendor: w.Vendor.Name(), Code: "unreadable", Reached: NotSent}
	}
	to, err := ParseNumber(b.To, "")
	if err != nil {
		return Accepted{}, &Error{Class: InvalidRecipient, Vendor: w.Vendor.Name(), Reached: NotSent, Cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return w.Vendor.Send(ctx, Leg{ID: m.Leg, To: to, Text: b.Text, Locale: m.Locale, Channel: "sms", Life: time.Duration(m.Life * float64(time.Second))})
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

// settle stores how a call ended, in one statement, and what that means for the message.
func (w *Worker) settle(ctx context.Context, m claimed, accepted Accepted, failure *Error) error {
	state, legState, reason, pause := w.verdict(m, failure)
	class, code := "", ""
	if failure != nil {
		class, code = string(failure.Class), failure.Code
	}
	q := new(postgres.Query)
	q.With("leg", fmt.Sprintf(`
		UPDATE legs SET state = %s, vendor_ref = nullif(%s, ''), error_class = nullif(%s, ''), error_code = nullif(%s, ''), answered_at = wall()
		 WHERE id = %s AND state IN ('calling', 'unknown') RETURNING id`,
		q.Bind(legState)+"::text", q.Bind(accepted.Ref)+"::text", q.Bind(class)+"::text", q.Bind(code)+"::text", q.Bind(m.Leg)+"::uuid"))
	// A message that was canceled while its call was under way stays canceled: only a queued one moves.
	q.With("message", fmt.Sprintf(`
		UPDATE messages SET state = %[1]s, reason = nullif(%[2]s, ''), lease_until = NULL, updated_at = wall(),
		       due_at = wall() + make_interval(secs => %[3]s), sent_at = CASE WHEN %[1]s = 'sent' THEN wall() ELSE sent_at END,
		       body = CASE WHEN challenge_id IS NULL AND %[1]s <> 'queued' THEN NULL ELSE body END
		 WHERE id = %[4]s AND state = 'queued' RETURNING id, state, hint`,
		q.Bind(state)+"::text", q.Bind(reason)+"::text", q.Bind(pause.Seconds())+"::float8", q.Bind(m.ID)+"::uuid"))
	q.With("ended", "SELECT id, state, hint FROM message WHERE state <> 'queued'")
	audit.Record(ctx, q, "ended", audit.Event{Name: "message.end", Outcome: audit.Success, Reason: class, Actor: "system", Object: m.ID.String()},
		audit.Expressions{"outcome": "CASE WHEN ended.state = 'sent' THEN 'success' ELSE 'failed' END"})
	q.Finally("SELECT 1 FROM leg")
	_, err := w.DB.Run(ctx, q)
	return err
}

// verdict decides by class and reach alone what a call's end means.
func (w *Worker) verdict(m claimed, failure *Error) (state, legState, reason string, pause time.Duration) {
	if failure == nil {
		return "sent", "accepted", "", 0
	}
	_, idempotent := w.Vendor.(Idempotent)
	unknown := failure.Reached == MaybeSent
	switch {
	case unknown && idempotent && m.Legs < 2:
		return "queued", "unknown", string(failure.Class), time.Second
	case unknown:
		return "failed", "unknown", string(Ambiguous), 0
	case failure.Class == Temporary && m.Legs <= maxRetries:
		return "queued", "failed", string(failure.Class), 500 * time.Millisecond << (m.Legs - 1)
	case failure.Class == RateLimited && m.Legs <= maxRetries:
		return "queued", "failed", string(failure.Class), max(failure.RetryAfter, time.Second)
	default:
		return "failed", "failed", string(failure.Class), 0
	}
}
