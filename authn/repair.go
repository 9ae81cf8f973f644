package authn

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// A session that was opened for a recovery is at [RecoveryLevel]: it may set a password and bind an authenticator, and nothing else. To applications nobody is
// signed in there. It ends when the account is repaired. When it is opened is the business of package recovery, which calls what is here.

// OpenRepair adds part `repair_opened` (columns id, recovery_id, subscriber_id) to q: a session for each row of part from, which has columns recovery_id and
// subscriber_id and one row at most. It gives the session's cookie.
func (s *Service) OpenRepair(ctx context.Context, q *postgres.Query, from string) Cookie {
	token := Cookie(keyring.Token())
	q.With("repair_opened", fmt.Sprintf("INSERT INTO sessions (id, token_hash, sid, subscriber_id, recovery_id, created_at) SELECT %s, %s, %s, subscriber_id, recovery_id, %s FROM %s RETURNING id, recovery_id, subscriber_id",
		q.Bind(uuid.New())+"::uuid", q.Bind(token.hash())+"::bytea", q.Bind(uuid.NewString())+"::text", momentSQL, from))
	audit.Record(ctx, q, "repair_opened", audit.Event{Name: "session.repair", Outcome: audit.Success, Actor: "subscriber"},
		audit.Expressions{"subject": "repair_opened.subscriber_id", "session_id": "repair_opened.id", "object": "repair_opened.recovery_id::text"})
	return token
}

// EndRepair adds part `repair_ended` to q: the sessions of the recoveries whose ids are in column id of part from end.
func (s *Service) EndRepair(q *postgres.Query, from, reason string) {
	q.With("repair_ended", fmt.Sprintf("UPDATE sessions SET ended_at = wall(), end_reason = %s FROM %s WHERE sessions.recovery_id = %s.id AND sessions.ended_at IS NULL", q.Bind(reason)+"::text", from, from))
}

// Hold adds part `subscriber_held` (columns id, at) to q: the subscriber of SQL expression subscriber, which may be of part from, once nothing that gives them something is under way any
// more. What has been given until then is older than at.
func (s *Service) Hold(q *postgres.Query, from, subscriber string) {
	q.With("subscriber_locked", fmt.Sprintf("SELECT u.id FROM subscribers u WHERE u.id = (SELECT %s FROM %s) AND u.disabled_at IS NULL FOR NO KEY UPDATE", subscriber, from))
	q.With("subscriber_held", "SELECT id, "+momentSQL+" AS at FROM subscriber_locked")
}

// ResetPassword adds part `password_reset` (column subject) to q: the subscriber of part `subscriber_held`, if part from has a row, has the password of that hash, as
// proofs of these kinds allowed. [Service.EndAll] goes with it.
func (s *Service) ResetPassword(ctx context.Context, q *postgres.Query, from, hash string, by []string) {
	q.With("password_reset", fmt.Sprintf(`
		UPDATE subscribers u SET password_hash = %s, password_changed_at = wall(), password_reset_at = wall(), password_reset_by = %s, not_before = h.at, updated_at = wall()
		  FROM subscriber_held h WHERE u.id = h.id AND EXISTS (SELECT FROM %s) RETURNING u.id AS subject`,
		q.Bind(hash)+"::text", q.Bind(pq.Array(by))+"::text[]", from))
	s.Notices.Add(ctx, q, "password_reset", notices.Event{Kind: notices.PasswordChanged}, nil)
	s.Config.Failures.Clear(q, "password_reset", "uuid_send(password_reset.subject)")
	audit.Record(ctx, q, "password_reset", audit.Event{Name: "password.set", Outcome: audit.Success, Reason: "recovery", Actor: "subscriber"}, audit.Expressions{"subject": "password_reset.subject"})
}

// StandDown adds part `stood_down` (column subject) to q: nothing that the subscriber of part `subscriber_held` was given before is good any more, if part from has a row.
func (s *Service) StandDown(q *postgres.Query, from string) {
	q.With("stood_down", fmt.Sprintf("UPDATE subscribers u SET not_before = h.at, updated_at = wall() FROM subscriber_held h WHERE u.id = h.id AND EXISTS (SELECT FROM %s) RETURNING u.id AS subject", from))
}

// EndAll adds parts to q that end all sessions but except, and all challenges, of whom column subject of part from names. The part of the grants is done by the
// subscriber's row, which that part has to have changed.
func (s *Service) EndAll(q *postgres.Query, from string, except uuid.UUID, reason string) {
	q.With("session_ended", fmt.Sprintf("UPDATE sessions SET ended_at = wall(), end_reason = %s FROM %s WHERE sessions.subscriber_id = %[2]s.subject AND sessions.ended_at IS NULL AND sessions.id <> %s RETURNING sessions.id",
		q.Bind(reason)+"::text", from, q.Bind(except)+"::uuid"))
	s.Ledger.CancelAll(q, from, from+".subject")
}

// KeepRepair adds a part to q by which the repairing session stays good although part from has ended everything else.
func (s *Service) KeepRepair(q *postgres.Query, from string, session uuid.UUID) {
	q.With("repair_kept", fmt.Sprintf("UPDATE sessions SET created_at = (SELECT at FROM subscriber_held), last_seen_at = wall() WHERE id = %s AND ended_at IS NULL AND EXISTS (SELECT FROM %s) RETURNING id", q.Bind(session)+"::uuid", from))
}

// repairing is an SQL condition on a row of sessions: it was opened for a recovery, which can be gone on with.
func (s *Service) repairing(session string) string {
	if s.Repairing == nil {
		return "false"
	}
	return "(" + session + ".recovery_id IS NOT NULL AND " + s.Repairing(session) + ")"
}

// Stands is an SQL condition on row of table subscribers: what was given at the time that expression since gives still stands.
func Stands(row, since string) string { return stands(row, since) }

// SignedInSQL is an SQL condition: the subscriber of SQL expression subscriber has proved since then everything that signing in takes.
func SignedInSQL(subscriber, since string) string {
	return fmt.Sprintf(`EXISTS (SELECT FROM sessions came JOIN session_events e ON e.session_id = came.id WHERE came.subscriber_id = %[1]s AND e.at > %[2]s
		AND (e.strength > %[3]d OR NOT EXISTS (SELECT FROM authenticators a WHERE a.subject = %[1]s AND a.unbound_at IS NULL)))`, subscriber, since, Knowledge)
}
