package recovery

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Repair is what a session at authn.RecoveryLevel is there for.
type Repair struct {
	Recovery *Recovery
	Session  authn.Session
	// Kept are the authenticators that were proved, and stay; Lost are those that go when the account is repaired.
	Kept, Lost []factors.Authenticator
	// Enough: what is kept is enough to sign in with, so that nothing has to be bound.
	Enough bool
}

// Repair reads what the session of that cookie repairs. [ErrOver]: it repairs nothing.
func (e *Engine) Repair(ctx context.Context, cookie authn.Cookie) (*Repair, error) {
	session, err := e.SignIns.Current(ctx, cookie)
	if err != nil {
		return nil, err
	}
	if session.Recovery == uuid.Nil {
		return nil, ErrOver
	}
	q := new(postgres.Query)
	q.Finally("SELECT " + e.columns(q) + " FROM recoveries r JOIN subscribers u ON u.id = r.subscriber_id WHERE r.id = " + q.Bind(session.Recovery) + "::uuid")
	r, err := e.read(ctx, q)
	if err != nil {
		return nil, err
	}
	if !r.Live() || r.State != Granted {
		return nil, ErrOver
	}
	repair := &Repair{Recovery: r, Session: session}
	for _, a := range r.Bound {
		if !slices.Contains(r.ProvedBy, a.ID) {
			repair.Lost = append(repair.Lost, a)
			continue
		}
		repair.Kept = append(repair.Kept, a)
		if f, ok := e.SignIns.Ledger.Factor(a.Kind); ok && factors.Serves(f, factors.StepUp) {
			repair.Enough = true
		}
	}
	return repair, nil
}

// SetRepairPassword sets a password in a session that repairs. Everything else of the account ends, but for that session. Its errors are those of [Engine.SetPassword].
func (e *Engine) SetRepairPassword(ctx context.Context, cookie authn.Cookie, password string) error {
	repair, err := e.Repair(ctx, cookie)
	if err != nil {
		return err
	}
	r := repair.Recovery
	hash, err := e.newPassword(ctx, r, password)
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	q.With("asking", "SELECT r.subscriber_id FROM recoveries r WHERE r.id = "+q.Bind(r.ID)+"::uuid AND r.state = 'granted'")
	e.SignIns.Hold(q, "asking", "subscriber_id")
	q.With("kept", fmt.Sprintf(`
		UPDATE recoveries r SET since = h.at FROM subscriber_held h, subscribers u, sessions s
		 WHERE r.id = %s AND r.state = 'granted' AND r.ended_at IS NULL AND r.expires_at > wall() AND h.id = r.subscriber_id AND u.id = h.id AND %s
		   AND s.id = %s AND s.recovery_id = r.id AND s.ended_at IS NULL RETURNING r.id, r.subscriber_id`, q.Bind(r.ID)+"::uuid", standsSQL, q.Bind(repair.Session.ID)+"::uuid"))
	e.SignIns.ResetPassword(ctx, q, "kept", hash, r.Proofs)
	e.SignIns.EndAll(q, "password_reset", repair.Session.ID, "password_changed")
	e.SignIns.KeepRepair(q, "password_reset", repair.Session.ID)
	q.Finally("SELECT 1 FROM kept")
	n, err := e.DB.Run(ctx, q)
	if err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	if n == 0 {
		return ErrOver
	}
	return nil
}

// Repaired is what an authn.Service asks for when a session that repairs has bound an authenticator: the recovery is finished, what was not proved goes, and so does everything
// that was given before.
func (e *Engine) Repaired(ctx context.Context, q *postgres.Query, from string, session *authn.Session, a factors.Authenticator) {
	e.finish(ctx, q, from, session, "ARRAY["+q.Bind(a.ID)+"::uuid]")
}

// Repairing is what an authn.Service asks for besides: an SQL condition on a row of sessions that was opened for a recovery. The recovery is over from the moment on that its owner signs in or its
// time has passed, however late the worker may be that ends it and its session. Its row is held: whoever stops it waits for what is bound, or nothing is.
func (e *Engine) Repairing(session string) string {
	return "EXISTS (SELECT FROM recoveries r JOIN subscribers u ON u.id = r.subscriber_id WHERE r.id = " + session + ".recovery_id AND r.state = 'granted' AND r.ended_at IS NULL AND r.expires_at > wall() AND " + standsSQL + " FOR NO KEY UPDATE OF r)"
}

// finish adds part `finished` to q: the recovery of that session, for as long as part from has a row. Of the account's authenticators those of SQL expression keep stay, and those that
// were proved.
func (e *Engine) finish(ctx context.Context, q *postgres.Query, from string, session *authn.Session, keep string) {
	id := q.Bind(session.Recovery) + "::uuid"
	q.With("asking", "SELECT r.subscriber_id FROM recoveries r WHERE r.id = "+id+" AND r.state = 'granted' AND EXISTS (SELECT FROM "+from+")")
	e.SignIns.Hold(q, "asking", "subscriber_id")
	q.With("finished", fmt.Sprintf(`
		UPDATE recoveries r SET state = 'finished', ended_at = wall() FROM subscriber_held h WHERE r.id = %s AND r.state = 'granted' AND r.ended_at IS NULL AND r.subscriber_id = h.id
		RETURNING r.id, r.subscriber_id, r.kind, r.state, r.proved_by`, id))
	e.SignIns.StandDown(q, "finished")
	e.SignIns.EndAll(q, "stood_down", session.ID, "recovered")
	// After the sessions, which whoever binds something in one of them holds.
	q.With("clearing", "SELECT subscriber_id, proved_by FROM finished WHERE (SELECT count(*) FROM session_ended) >= 0")
	e.SignIns.Ledger.UnbindOthers(ctx, q, "clearing", "clearing.subscriber_id", "(clearing.proved_by || "+keep+")", factors.Subscriber(session.ID))
	e.SignIns.Notices.Add(ctx, q, "authenticator_unbound", notices.Event{Kind: notices.FactorRemoved}, notices.Expressions{"about": "authenticator_unbound.kind", "hint": "authenticator_unbound.hint"})
	e.SignIns.Ledger.Unlock(q, "stood_down", "uuid_send(stood_down.subject)")
	e.ended(ctx, q, "finished")
	record(ctx, q, "finished", audit.Event{Name: "recovery.end", Reason: string(Finished), Session: session.ID}, nil)
	e.told(ctx, q, "finished", notices.RecoveryFinished, notices.Event{}, nil)
}

// FinishRepair ends a repair that needs nothing more: what was proved stays, and is enough to sign in with. Its errors are [ErrOver] and [ErrNotThisStep]: something has to be bound first.
func (e *Engine) FinishRepair(ctx context.Context, cookie authn.Cookie) error {
	repair, err := e.Repair(ctx, cookie)
	if err != nil {
		return err
	}
	if !repair.Enough {
		return ErrNotThisStep
	}
	q := new(postgres.Query)
	q.With("leaving", "UPDATE sessions SET ended_at = wall(), end_reason = 'repaired' WHERE id = "+q.Bind(repair.Session.ID)+"::uuid AND recovery_id IS NOT NULL AND ended_at IS NULL AND "+e.Repairing("sessions")+" RETURNING id")
	e.finish(ctx, q, "leaving", &repair.Session, "'{}'::uuid[]")
	q.Finally("SELECT 1 FROM finished")
	n, err := e.DB.Run(ctx, q)
	if err != nil {
		return fmt.Errorf("finish repair: %w", err)
	}
	if n == 0 {
		return ErrOver
	}
	e.observe(Access, Finished)
	return nil
}
