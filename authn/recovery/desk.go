package recovery

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Vouch has an administrator, whom ctx names (audit.Context), stand in for one proof of the account's owner, whom they have recognised by other means. It is held until another
// administrator agrees or the waiting period is over; the owner is told at once, by every way. Nobody is sent anything and nothing changes: the owner begins with a
// proof of their own. Its errors are [ErrHeld] and [ErrNotFound].
func (e *Engine) Vouch(ctx context.Context, subscriber uuid.UUID) (uuid.UUID, error) {
	id := uuid.New()
	q := new(postgres.Query)
	q.With("holder", "SELECT id FROM subscribers WHERE id = "+q.Bind(subscriber)+"::uuid AND disabled_at IS NULL")
	q.With("held", fmt.Sprintf(`
		INSERT INTO recoveries (id, expires_at, kind, by_operator, subscriber_id, state, due_at)
		SELECT %s, wall() + make_interval(secs => %s + %s), 'access', %s, id, 'held', wall() + make_interval(secs => %[2]s) FROM holder
		RETURNING id, subscriber_id, kind, state, due_at`,
		q.Bind(id)+"::uuid", q.Bind(e.Config.Wait.Seconds())+"::float8", q.Bind(e.Config.Ready.Seconds())+"::float8", q.Bind(operator(ctx))+"::text"))
	record(ctx, q, "held", audit.Event{Name: "recovery.vouch", Actor: audit.Operator}, nil)
	e.told(ctx, q, "held", notices.RecoveryStarted, notices.Event{Operator: true}, notices.Expressions{"until": "held.due_at"})
	q.Finally("SELECT 1 FROM held")
	n, err := e.DB.Run(ctx, q)
	switch {
	case pq.As(err, pqerror.UniqueViolation) != nil:
		return uuid.Nil, ErrHeld
	case err != nil:
		return uuid.Nil, fmt.Errorf("vouch: %w", err)
	case n == 0:
		return uuid.Nil, ErrNotFound
	}
	e.observe(Access, Held)
	return id, nil
}

// operator is the name of the administrator who gave the command.
func operator(ctx context.Context) string {
	if name := audit.From(ctx).Operator; name != "" {
		return name
	}
	return audit.Operator
}

// Approve has another administrator agree to what one has begun: its owner may go on at once. Its errors are [ErrNotFound] and [ErrSameAdministrator].
func (e *Engine) Approve(ctx context.Context, id uuid.UUID) error {
	q := new(postgres.Query)
	by := q.Bind(operator(ctx)) + "::text"
	q.With("found", "SELECT id, subscriber_id, by_operator FROM recoveries WHERE id = "+q.Bind(id)+"::uuid AND state = 'held' AND expires_at > wall()")
	q.With("approved", fmt.Sprintf(`
		UPDATE recoveries r SET approved_by = %s, due_at = least(r.due_at, wall()) FROM found
		 WHERE r.id = found.id AND r.state = 'held' AND r.approved_by IS NULL AND r.by_operator <> %[1]s RETURNING r.id, r.subscriber_id`, by))
	record(ctx, q, "approved", audit.Event{Name: "recovery.approve", Actor: audit.Operator}, nil)
	q.With("same", "SELECT id, subscriber_id FROM found WHERE by_operator = "+by)
	record(ctx, q, "same", audit.Event{Name: "recovery.approve", Outcome: audit.Refused, Reason: "same_administrator", Actor: audit.Operator}, nil)
	q.Finally("SELECT EXISTS (SELECT FROM approved) AS approved, EXISTS (SELECT FROM same) AS same")
	var got struct {
		Approved bool `db:"approved"`
		Same     bool `db:"same"`
	}
	if err := e.DB.Get(ctx, &got, q); err != nil {
		return fmt.Errorf("approve: %w", err)
	}
	switch {
	case got.Same:
		return ErrSameAdministrator
	case !got.Approved:
		return ErrNotFound
	}
	return nil
}

// End cancels a recovery, as an administrator. Its error is [ErrNotFound].
func (e *Engine) End(ctx context.Context, id uuid.UUID) error {
	q := new(postgres.Query)
	q.With("canceled", fmt.Sprintf(`UPDATE recoveries r SET state = 'canceled', reason = 'operator', ended_at = wall(), link_hash = NULL, todo_at = NULL WHERE r.id = %s AND r.ended_at IS NULL
		RETURNING r.id, r.subscriber_id, r.kind, r.state, r.challenge_id`, q.Bind(id)+"::uuid"))
	e.SignIns.Ledger.CancelOne(q, "canceled", "canceled.challenge_id")
	e.SignIns.EndRepair(q, "canceled", "recovery_ended")
	record(ctx, q, "canceled", audit.Event{Name: "recovery.end", Reason: "operator", Actor: audit.Operator}, nil)
	q.With("canceled_known", "SELECT id, subscriber_id, kind, state FROM canceled WHERE subscriber_id IS NOT NULL")
	e.told(ctx, q, "canceled_known", notices.RecoveryCanceled, notices.Event{Operator: true}, nil)
	q.Finally("SELECT kind FROM canceled")
	var kind Kind
	if err := e.DB.Get(ctx, &kind, q); errors.Is(err, postgres.ErrNotFound) {
		return ErrNotFound
	} else if err != nil {
		return fmt.Errorf("cancel recovery: %w", err)
	}
	e.observe(kind, Canceled)
	return nil
}

// Find reads one recovery. Its error is [ErrNotFound].
func (e *Engine) Find(ctx context.Context, id uuid.UUID) (*Recovery, error) {
	q := new(postgres.Query)
	q.Finally("SELECT " + e.columns(q) + " FROM recoveries r LEFT JOIN subscribers u ON u.id = r.subscriber_id WHERE r.id = " + q.Bind(id) + "::uuid")
	r, err := e.read(ctx, q)
	if errors.Is(err, ErrOver) {
		return nil, ErrNotFound
	}
	return r, err
}

// List reads up to limit recoveries, the newest first: those of a subscriber, or of everybody (uuid.Nil); live ones alone, or all that are kept.
func (e *Engine) List(ctx context.Context, subscriber uuid.UUID, all bool, limit int) ([]*Recovery, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf("SELECT %s FROM recoveries r LEFT JOIN subscribers u ON u.id = r.subscriber_id WHERE r.subscriber_id = coalesce(%s, r.subscriber_id) AND (%s OR r.ended_at IS NULL) ORDER BY r.created_at DESC, r.id LIMIT %s",
		e.columns(q), q.Bind(optional(subscriber))+"::uuid", q.Bind(all)+"::bool", q.Bind(limit)+"::int"))
	var rows []row
	if err := e.DB.Select(ctx, &rows, q); err != nil {
		return nil, fmt.Errorf("list recoveries: %w", err)
	}
	list := make([]*Recovery, len(rows))
	for i := range rows {
		var err error
		if list[i], err = e.decode(&rows[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}
