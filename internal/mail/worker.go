package mail

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
	// lease is how long a claimed mail is left to its worker: longer than any attempt may take.
	lease = time.Minute
	// fallback is how often a worker looks without having been told.
	fallback = 5 * time.Second
	// firstPause is that after the first failure; each further one is twice as long, up to maxPause. With maxTries they fill a day.
	firstPause = 10 * time.Second
	maxPause   = 2 * time.Hour
	maxTries   = 20
	// maxUnknown attempts may have been taken without anybody knowing: the first and one repeat.
	maxUnknown = 2
)

// Reasons of mails that were given up, besides classes.
const (
	expired   = "expired"
	exhausted = "exhausted"
	unopened  = "unopened" // not sealed with these keys
)

// Worker hands mails to the mail server. Any number of them, in any number of processes, may serve one outbox.
type Worker struct {
	DB     *postgres.DB
	Keys   Keys
	Sender Sender
	Log    *slog.Logger
	// Sends at once. Default 4.
	Sends int
	// Observe, when set, is told how each attempt ended; "" is a mail that was taken.
	Observe func(Class)
	// Became, when set, adds to q what else follows from the end of mails with codes: part from has columns challenge_id, purpose, state (sent, failed), reason and channel.
	Became func(ctx context.Context, q *postgres.Query, from string)

	down atomic.Bool // the server takes nothing: said once

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

// Up reports whether the last attempt found a server that takes mails.
func (w *Worker) Up() bool { return !w.down.Load() }

// claimed is a mail that this worker has leased.
type claimed struct {
	ID        uuid.UUID `db:"id"`
	CreatedAt time.Time `db:"created_at"`
	Purpose   string    `db:"purpose"`
	Locale    string    `db:"locale"`
	Body      []byte    `db:"body"`
	Tries     int       `db:"tries"`
	Unknown   int       `db:"unknown"`
	Claim     uuid.UUID `db:"claim"`
}

// Run delivers until ctx ends, then finishes the attempts under way and leaves the rest to others.
func (w *Worker) Run(ctx context.Context) error {
	err := w.ring().Answer(ctx, w.DB, outboxChannel, fallback, func() {
		for n := 1; n > 0 && ctx.Err() == nil; {
			var err error
			if n, err = w.round(ctx); err != nil && ctx.Err() == nil {
				w.Log.ErrorContext(ctx, "mail round failed", "error", err)
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("listen for mails: %w", err)
	}
	return nil
}

// Drain tries what is due now and says how many attempts it made. For tools and tests: no listening, no waiting.
func (w *Worker) Drain(ctx context.Context) (int, error) {
	for all := 0; ; {
		n, err := w.round(ctx)
		if all += n; err != nil || n == 0 {
			return all, err
		}
	}
}

// round tries as many of the mails that are due as may be sent at once.
func (w *Worker) round(ctx context.Context) (int, error) {
	sends := w.Sends
	if sends == 0 {
		sends = 4
	}
	batch, err := w.claim(ctx, sends)
	if err != nil {
		return 0, fmt.Errorf("claim mails: %w", err)
	}
	errs := make([]error, len(batch))
	var group sync.WaitGroup
	for i := range batch {
		group.Go(func() {
			whole := context.WithoutCancel(ctx) // what was begun is finished
			failure := w.carry(whole, &batch[i])
			if err := w.settle(whole, &batch[i], failure); err != nil {
				errs[i] = fmt.Errorf("settle mail: %w", err) // the lease runs out: once more, same Message-ID
			}
		})
	}
	group.Wait()
	return len(batch), errors.Join(errs...)
}

// claim leases what is due. What nobody may try any more is given up in the same statement; a lease that ran out was an attempt of which nobody knows how it ended.
func (w *Worker) claim(ctx context.Context, n int) ([]claimed, error) {
	q := new(postgres.Query)
	q.With("due", fmt.Sprintf(`
		SELECT id, created_at, unknown + CASE WHEN lease_until IS NULL THEN 0 ELSE 1 END AS unknown FROM mails
		 WHERE state = 'queued' AND (due_at <= wall() OR challenge_id IS NOT NULL AND not_after <= wall()) AND (lease_until IS NULL OR lease_until <= wall())
		 ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED`, q.Bind(n)+"::int"))
	q.With("judged", fmt.Sprintf(`
		SELECT d.*, CASE WHEN d.unknown >= %d THEN '%s' WHEN m.not_after <= wall() THEN '%s' WHEN m.tries >= %d THEN '%s' END AS over
		  FROM due d JOIN mails m USING (id, created_at)`, maxUnknown, Ambiguous, expired, maxTries, exhausted))
	q.With("moved", fmt.Sprintf(`
		UPDATE mails m SET updated_at = wall(), unknown = j.unknown, claim = %s,
		       state = CASE WHEN j.over IS NULL THEN 'queued' ELSE 'failed' END, reason = coalesce(j.over, m.reason),
		       tries = m.tries + CASE WHEN j.over IS NULL THEN 1 ELSE 0 END, body = CASE WHEN j.over IS NULL THEN m.body END,
		       lease_until = CASE WHEN j.over IS NULL THEN wall() + make_interval(secs => %s) END
		  FROM judged j WHERE m.id = j.id AND m.created_at = j.created_at
		RETURNING m.*`, q.Bind(uuid.New())+"::uuid", q.Bind(lease.Seconds())+"::float8"))
	q.With("ended", "SELECT id, state, reason, challenge_id, purpose FROM moved WHERE state = 'failed'")
	w.end(ctx, q)
	q.Finally("SELECT id, created_at, purpose, locale, body, tries, unknown, claim FROM moved WHERE state = 'queued' ORDER BY created_at")
	var batch []claimed
	err := w.DB.Select(ctx, &batch, q)
	return batch, err
}

// end writes the audit record of what part `ended` gives, and has others told of what carried codes.
func (w *Worker) end(ctx context.Context, q *postgres.Query) {
	if w.Became != nil {
		q.With("became", "SELECT challenge_id, purpose, state, coalesce(reason, '') AS reason, '"+Channel+"' AS channel FROM ended WHERE challenge_id IS NOT NULL")
		w.Became(ctx, q, "became")
	}
	audit.Record(ctx, q, "ended", audit.Event{Name: "mail.end", Actor: "system"}, audit.Expressions{
		"outcome": "CASE WHEN ended.state = 'sent' THEN 'success' ELSE 'failed' END", "reason": "coalesce(ended.reason, '')", "object": "ended.id::text",
	})
}

// carry makes one attempt.
func (w *Worker) carry(ctx context.Context, m *claimed) *Error {
	plain, err := w.Keys.Open(m.Body, sealContext(m.ID))
	var b body
	if err != nil || json.Unmarshal(plain, &b) != nil {
		w.Log.ErrorContext(ctx, "mail cannot be opened", "mail_id", m.ID)
		return &Error{Class: unopened}
	}
	to, err := ParseAddress(b.To)
	if err != nil {
		return &Error{Class: Rejected}
	}
	err = w.Sender.Send(ctx, Message{ID: m.ID, To: to, Purpose: m.Purpose, Locale: m.Locale, Subject: b.Subject, Text: b.Text, At: m.CreatedAt})
	failure := asError(err)
	w.note(ctx, m, failure)
	return failure
}

func asError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Class: Ambiguous}
}

// note tells the operator: of a server that takes nothing once, and once when it does again; of a mail that was given up each time.
func (w *Worker) note(ctx context.Context, m *claimed, failure *Error) {
	class, code := Class(""), 0
	if failure != nil {
		class, code = failure.Class, failure.Code
	}
	if w.Observe != nil {
		w.Observe(class)
	}
	switch {
	case class == "" || class == Rejected: // there is a server, and it answers
		if w.down.Swap(false) {
			w.Log.InfoContext(ctx, "mail server works again", "event", "mail.recovered")
		}
		if class == Rejected {
			w.Log.WarnContext(ctx, "mail not taken by server", "mail_id", m.ID, "class", class, "code", code)
		}
	case !w.down.Swap(true):
		w.Log.ErrorContext(ctx, "mail server does not take mails: they wait", "event", "mail.degraded", "class", class, "code", code)
	default:
		w.Log.DebugContext(ctx, "mail not taken by server", "mail_id", m.ID, "class", class, "code", code, "tries", m.Tries)
	}
}

// settle stores how an attempt ended.
func (w *Worker) settle(ctx context.Context, m *claimed, failure *Error) error {
	state, reason, unknown := "sent", "", m.Unknown
	if failure != nil {
		state, reason = "queued", string(failure.Class)
		if failure.Class == Ambiguous {
			unknown++
		}
		if failure.Class == Rejected || failure.Class == unopened || unknown >= maxUnknown || m.Tries >= maxTries {
			state = "failed"
		}
	}
	q := new(postgres.Query)
	// A mail that was taken is, whoever has the lease by now.
	q.With("settled", fmt.Sprintf(`
		UPDATE mails SET state = %[1]s, reason = nullif(%[2]s, ''), unknown = %[3]s, updated_at = wall(), lease_until = NULL,
		       due_at = wall() + make_interval(secs => %[4]s), body = CASE WHEN %[1]s = 'queued' THEN body END, sent_at = CASE WHEN %[1]s = 'sent' THEN wall() END
		 WHERE id = %[5]s AND state = 'queued' AND (claim = %[6]s OR %[1]s = 'sent') RETURNING id, state, reason, challenge_id, purpose`,
		q.Bind(state)+"::text", q.Bind(reason)+"::text", q.Bind(unknown)+"::smallint", q.Bind(pause(m.Tries).Seconds())+"::float8", q.Bind(m.ID)+"::uuid", q.Bind(m.Claim)+"::uuid"))
	q.With("ended", "SELECT id, state, reason, challenge_id, purpose FROM settled WHERE state <> 'queued'")
	w.end(ctx, q)
	q.Finally("SELECT 1 FROM settled")
	_, err := w.DB.Run(ctx, q)
	return err
}

// pause is that after so many tries.
func pause(tries int) time.Duration {
	return min(firstPause<<(max(tries, 1)-1), maxPause)
}

// Oldest is how long the oldest mail that nobody has taken has waited; 0 when there is none.
func Oldest(ctx context.Context, db *postgres.DB) (time.Duration, error) {
	var age float64
	err := db.GetContext(ctx, &age, `SELECT coalesce(extract(epoch FROM wall() - min(created_at)), 0)::float8 FROM mails WHERE state = 'queued'`)
	return time.Duration(age * float64(time.Second)), err
}
