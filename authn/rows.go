package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// eventsSQL lists the events of session s. That a browser was recognised counts for as long as it is remembered.
func eventsSQL() string {
	return `(SELECT coalesce(jsonb_agg(jsonb_build_object('at', e.at, 'strength', e.strength, 'kind', e.kind, 'amr', to_jsonb(e.amr),
	'authenticator_id', e.authenticator_id, 'sign_in_id', e.sign_in_id) ORDER BY e.at), '[]') FROM session_events e WHERE e.session_id = s.id
	   AND (e.kind <> '` + BrowserKind + `' OR EXISTS (SELECT FROM browsers b WHERE b.id = e.authenticator_id AND b.subscriber_id = s.subscriber_id AND ` + browserStands("b") + `)))`
}

// StandingSQL is an SQL condition: what the subscriber of that id was given at the time that expression since gives still stands. It does not when
// the subscriber is disabled, nor when the password was changed or everything was signed out later than that. Both expressions have to name
// their table: a bare column would be read as one of subscribers.
func StandingSQL(subscriber, since string) string {
	return fmt.Sprintf("EXISTS (SELECT FROM subscribers standing WHERE standing.id = %s AND %s)", subscriber, stands("standing", since))
}

// stands is the condition of [StandingSQL] on a row of subscribers.
func stands(row, since string) string {
	return fmt.Sprintf("%[1]s.disabled_at IS NULL AND (%[1]s.not_before IS NULL OR %[1]s.not_before <= %[2]s)", row, since)
}

// momentSQL is the time at which it is evaluated, on the clock of wall(), which stands still within a statement. A statement that had to wait for a
// row began earlier than what it waited for: with wall() as its time it would seem older than the very things it ends.
const momentSQL = "wall() + (clock_timestamp() - now())"

// alive is an SQL condition on a row of sessions: neither ended nor too old nor unused for too long, and its subscriber, if it has one, stands.
func (s *Service) alive(q *postgres.Query, row string) string {
	return fmt.Sprintf(`%[1]s.ended_at IS NULL AND %[1]s.last_seen_at > wall() - make_interval(secs => %[2]s)
		AND %[1]s.created_at > wall() - make_interval(secs => %[3]s) AND (%[1]s.subscriber_id IS NULL OR %[4]s)`,
		row, q.Bind(s.Config.Idle.Seconds())+"::float8", q.Bind(s.Config.Absolute.Seconds())+"::float8",
		StandingSQL(row+".subscriber_id", row+".created_at"))
}

// seenSQL is when a row of sessions was last used, after a request that was silent or not. A page that is open asks silently by itself: that is no
// sign of a person.
func seenSQL(silent string) string {
	return fmt.Sprintf("CASE WHEN %s THEN sessions.last_seen_at ELSE wall() END", silent)
}

// live is the FROM and WHERE of a sign-in that this browser may go on with.
func (s *Service) live(q *postgres.Query, cookie Cookie, id uuid.UUID) string {
	return fmt.Sprintf(`
		FROM sign_ins si JOIN sessions s ON s.id = si.session_id
		WHERE si.id = %s AND s.token_hash = %s AND si.done_at IS NULL AND si.expires_at > wall() AND %s`,
		q.Bind(id)+"::uuid", q.Bind(cookie.hash())+"::bytea", s.alive(q, "s"))
}

// columns of sign-in si with session s.
func (s *Service) columns(q *postgres.Query) string {
	return `si.id, si.relying_party, si.requirement, si.payload, si.locales, si.login_hint, si.consented, si.transaction_id, si.created_at, si.expires_at,
		wall() AS now, s.id AS session_id, s.sid, s.subscriber_id, s.recovery_id, s.created_at AS session_created_at,
		(SELECT u.username FROM subscribers u WHERE u.id = s.subscriber_id) AS username,
		(SELECT u.subject FROM subscribers u WHERE u.id = s.subscriber_id) AS subject,
		(SELECT u.groups FROM subscribers u WHERE u.id = s.subscriber_id) AS groups,
		(SELECT c.scopes FROM consents c WHERE c.subscriber_id = s.subscriber_id AND c.relying_party = si.relying_party->>'id') AS allowed,
		` + eventsSQL() + ` AS events, ` + factors.BoundSQL("s.subscriber_id") + ` AS bound, ` + s.Ledger.StateSQL(q, "si.challenge_id") + ` AS challenge`
}

type sessionRow struct {
	SessionID        uuid.UUID      `db:"session_id"`
	SID              string         `db:"sid"`
	SubscriberID     *uuid.UUID     `db:"subscriber_id"`
	SessionCreatedAt time.Time      `db:"session_created_at"`
	Username         *string        `db:"username"`
	Subject          *string        `db:"subject"`
	RecoveryID       *uuid.UUID     `db:"recovery_id"`
	Groups           pq.StringArray `db:"groups"`
	Events           []byte         `db:"events"`
}

func (row *sessionRow) session(ctx context.Context) (Session, error) {
	session := Session{ID: row.SessionID, SID: row.SID, CreatedAt: row.SessionCreatedAt, Groups: row.Groups, Source: audit.From(ctx).Source}
	if row.SubscriberID != nil {
		session.Subscriber = *row.SubscriberID
	}
	if row.RecoveryID != nil {
		session.Recovery = *row.RecoveryID
	}
	if row.Username != nil && row.Subject != nil {
		session.Username, session.Subject = *row.Username, *row.Subject
	}
	var err error
	session.Events, err = decode[[]Event](row.Events)
	return session, err
}

type signInRow struct {
	sessionRow
	ID           uuid.UUID      `db:"id"`
	RelyingParty []byte         `db:"relying_party"`
	Requirement  []byte         `db:"requirement"`
	Payload      []byte         `db:"payload"`
	Locales      string         `db:"locales"`
	LoginHint    []byte         `db:"login_hint"`
	Consented    pq.StringArray `db:"consented"`
	Allowed      pq.StringArray `db:"allowed"`
	Transaction  *uuid.UUID     `db:"transaction_id"`
	CreatedAt    time.Time      `db:"created_at"`
	ExpiresAt    time.Time      `db:"expires_at"`
	Now          time.Time      `db:"now"`
	Bound        []byte         `db:"bound"`
	Challenge    []byte         `db:"challenge"`
}

func (s *Service) read(ctx context.Context, q *postgres.Query) (*SignIn, error) {
	var row signInRow
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrSignInOver
	} else if err != nil {
		return nil, err
	}
	return s.signIn(ctx, &row)
}

func (s *Service) signIn(ctx context.Context, row *signInRow) (*SignIn, error) {
	in := &SignIn{ID: row.ID, Payload: row.Payload, Locales: row.Locales, Consented: row.Consented, Allowed: row.Allowed,
		CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt, Now: row.Now}
	if row.Transaction != nil {
		in.Transaction = *row.Transaction
	}
	var err error
	if in.Session, err = row.session(ctx); err != nil {
		return nil, fmt.Errorf("session of sign-in: %w", err)
	}
	if err := json.Unmarshal(row.RelyingParty, &in.RelyingParty); err != nil {
		return nil, fmt.Errorf("relying party of sign-in: %w", err)
	}
	if err := json.Unmarshal(row.Requirement, &in.Requirement); err != nil {
		return nil, fmt.Errorf("requirement of sign-in: %w", err)
	}
	if len(row.LoginHint) > 0 {
		hint, err := s.Keys.Open(row.LoginHint, hintContext(&in.RelyingParty))
		if err != nil {
			return nil, err
		}
		in.LoginHint = string(hint)
	}
	bound, err := s.Ledger.DecodeBound(row.Bound)
	if err != nil {
		return nil, err
	}
	s.offer(in, bound)
	in.Challenge, err = factors.DecodeState(row.Challenge)
	return in, err
}
