package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// What a person can be asked for is changed by that person alone, in a session whose proofs are fresh: the password, and of what is bound already the strongest
// that adds to a session (SP 800-63B-4 section 4.1.2). A password alone changes nothing where a factor exists, nor does a backup code. The
// condition is part of the statement that changes something. The operator has doors of their own, [Service.Bind] and [Service.Unbind].
//
// A new authenticator is proposed, and bound by a right answer: a challenge of purpose enrol in the ledger, whose id names the
// enrolment. What is made of ready answers, as backup codes are, is bound at once.

// Errors of enrolment, besides those of the ledger.
var (
	// ErrNotFresh: whoever is signed in has not proved enough, or not lately. Lead through a sign-in with everything that they have, and try again.
	ErrNotFresh = errors.New("authn: a change of authenticators wants fresh proofs")
	// ErrTooMany: that many of the kind are bound. One has to go first.
	ErrTooMany = errors.New("authn: too many authenticators of that kind")
	// ErrBoundAlready: it is bound to this subscriber. There is nothing to do.
	ErrBoundAlready = errors.New("authn: bound already")
	// ErrShared: as many others have bound the number as may. Another number has to do.
	ErrShared = errors.New("authn: bound by too many others")
	// ErrNotFirst: it adds nothing to a session, so that whoever has nothing else could never change anything again. Something else has to come first.
	ErrNotFirst = errors.New("authn: an authenticator that cannot be the only one")
	// ErrLastAuthenticator: it is the last that the policy's level can be reached with. Another has to come first.
	ErrLastAuthenticator = errors.New("authn: the last authenticator that signing in needs")
	// ErrNoAuthenticator: the subscriber has no such authenticator, or no such kind is installed.
	ErrNoAuthenticator = errors.New("authn: no such authenticator")
)

// proposal is how long a new authenticator waits for its proof: SP 800-63B-4 section 3.1.3.2.
const proposal = 10 * time.Minute

// Holdings are what a person who is signed in can be asked for.
type Holdings struct {
	Session Session // Bound holds the authenticators
	Now     time.Time
	// Fresh: the session's proofs allow changes. Otherwise they are answered with [ErrNotFresh].
	Fresh bool
	// Repair: the session was opened for a recovery. It may bind an authenticator, and change nothing else.
	Repair bool
	// Stays, for each authenticator: it is the last that signing in needs, and removing it is answered with [ErrLastAuthenticator].
	Stays []bool
}

// Holdings reads them in one round trip. Nobody signed in is [ErrNotFresh].
func (s *Service) Holdings(ctx context.Context, cookie Cookie) (*Holdings, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`SELECT s.id AS session_id, s.sid, s.subscriber_id, s.recovery_id, s.created_at AS session_created_at, u.username, u.subject, u.groups,
		%s AS events, %s AS bound, %s AS fresh, wall() AS now FROM sessions s JOIN subscribers u ON u.id = s.subscriber_id WHERE s.token_hash = %s AND %s`,
		eventsSQL(), factors.BoundSQL("s.subscriber_id"), s.freshSQL(q, s.Config.Fresh), q.Bind(cookie.hash())+"::bytea", s.alive(q, "s")))
	var row holdingsRow
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrNotFresh
	} else if err != nil {
		return nil, fmt.Errorf("read authenticators: %w", err)
	}
	return s.holdings(ctx, &row)
}

type holdingsRow struct {
	sessionRow
	Bound []byte    `db:"bound"`
	Fresh bool      `db:"fresh"`
	Now   time.Time `db:"now"`
}

func (s *Service) holdings(ctx context.Context, row *holdingsRow) (*Holdings, error) {
	session, err := row.session(ctx)
	if err != nil {
		return nil, err
	}
	bound, err := s.Ledger.DecodeBound(row.Bound)
	if err != nil {
		return nil, err
	}
	s.weigh(&session, bound)
	h := &Holdings{Session: session, Now: row.Now, Fresh: row.Fresh && s.begins(&session, row.Now), Repair: session.Recovery != uuid.Nil, Stays: make([]bool, len(bound))}
	needed, others := s.needed(&session), 0
	for _, a := range bound {
		others += count(needed, a.Kind)
	}
	for i, a := range bound {
		h.Stays[i] = others == 1 && count(needed, a.Kind) == 1
	}
	return h, nil
}

// begins reports whether policy lets a session whose subscriber has nothing to be asked for change the account. Where a password is not enough to sign in, and nobody may
// bind a first factor by it, whoever knows one could otherwise bind theirs.
func (s *Service) begins(session *Session, now time.Time) bool {
	if len(session.Bound) > 0 {
		return true // and is asked for what there is
	}
	d := s.decideOwn(session, now)
	return d.Step != StepFail
}

// decideOwn decides about a session that would look at its subscriber's account.
func (s *Service) decideOwn(session *Session, now time.Time) Decision {
	in := &SignIn{Session: *session, RelyingParty: Own(""), Requirement: Looking(), Now: now}
	s.offer(in, session.Bound)
	return s.Decide(in)
}

func count(kinds []string, kind string) (n int) {
	for _, k := range kinds {
		if k == kind {
			n++
		}
	}
	return n
}

// needed are the kinds of which one has to stay bound; nil: policy wants none of this person. What rules say of an application is not asked: they may never go there.
func (s *Service) needed(session *Session) (kinds []string) {
	anywhere, here := Case{Groups: session.Groups}, Case{Client: OwnID, Groups: session.Groups, Source: session.Source}
	ruling, own := s.Config.Policy.Ruling(&anywhere), s.Config.Policy.Ruling(&here)
	floor := max(s.Config.Policy.Floor, ruling.Floor, own.Floor)
	if floor < RestrictedLevel {
		return nil
	}
	for _, f := range s.Ledger.Factors() {
		if factors.Serves(f, factors.StepUp) && (floor < UnrestrictedLevel || !f.Restricted()) && ruling.Takes(f.Kind()) {
			kinds = append(kinds, f.Kind())
		}
	}
	return kinds
}

// adding are the kinds that add to a session.
func (s *Service) adding() (kinds []string) {
	for _, f := range s.Ledger.Factors() {
		if factors.Serves(f, factors.StepUp) {
			kinds = append(kinds, f.Kind())
		}
	}
	return kinds
}

// freshSQL is an SQL condition on session s: by proofs that are no older than within, it may change what its subscriber can be asked for.
func (s *Service) freshSQL(q *postgres.Query, within time.Duration) string {
	var kinds []string
	var strengths []int64
	for _, f := range s.Ledger.Factors() {
		if factors.Serves(f, factors.StepUp) {
			kinds, strengths = append(kinds, f.Kind()), append(strengths, int64(strength(f)))
		}
	}
	able := fmt.Sprintf("unnest(%s::text[], %s::smallint[]) AS able(kind, strength)", q.Bind(pq.Array(kinds)), q.Bind(pq.Array(strengths)))
	recent := "e.session_id = s.id AND e.at > wall() - make_interval(secs => " + q.Bind(within.Seconds()) + "::float8)"
	return fmt.Sprintf(`(s.recovery_id IS NULL AND EXISTS (SELECT FROM session_events e WHERE %[1]s AND e.strength = %[2]d)
		AND (NOT EXISTS (SELECT FROM authenticators a WHERE a.subject = s.subscriber_id AND a.unbound_at IS NULL)
		     OR coalesce((SELECT max(e.strength) FROM session_events e JOIN %[3]s USING (kind) WHERE %[1]s)
		                 >= (SELECT max(able.strength) FROM authenticators a JOIN %[3]s USING (kind) WHERE a.subject = s.subscriber_id AND a.unbound_at IS NULL), false)))`,
		recent, Knowledge, able)
}

// Enrolment is a new authenticator.
type Enrolment struct {
	// Authenticator as it will be bound, or as it is.
	Authenticator factors.Authenticator
	// Setup is what its holder is shown. It goes to no log.
	Setup factors.Setup
	// Challenge that binds it, by its right answer. Its id names the enrolment. nil: it is bound already.
	Challenge *factors.State
	// Now is the database's time when it was read; the zero value: it was just made.
	Now time.Time
}

// Enrol makes a new authenticator of a kind that begins here (factors.Provisioner): it is proposed, or, if it is a set of answers, bound in place of the
// set before. Its errors are [ErrNotFresh], [ErrTooMany], [ErrNotFirst], [ErrNoAuthenticator] (no such kind) and factors.ErrName.
func (s *Service) Enrol(ctx context.Context, cookie Cookie, kind, name string) (*Enrolment, error) {
	return s.EnrolFor(ctx, cookie, uuid.Nil, kind, name)
}

// EnrolFor is [Service.Enrol] for a sign-in that lacks a factor: where policy lets that one begin with it, the account's own need not.
func (s *Service) EnrolFor(ctx context.Context, cookie Cookie, signIn uuid.UUID, kind, name string) (*Enrolment, error) {
	factor, _ := s.Ledger.Factor(kind)
	provisioner, ok := factor.(factors.Provisioner)
	if !ok {
		return nil, ErrNoAuthenticator
	}
	name, err := factors.ParseName(name)
	if err != nil {
		return nil, err
	}
	session, err := s.enroller(ctx, cookie, signIn)
	if err != nil {
		return nil, err
	}
	a, setup, err := provisioner.Provision(session.Subscriber, session.Username)
	if err != nil {
		return nil, err
	}
	a.Name = name
	return s.enrol(ctx, cookie, session, Binding{Authenticator: a}, setup, "")
}

// EnrolThis proposes an authenticator that its holder has already: a phone, by its number. A code is sent to it, in the language of locale. What it Replaces
// stays bound until then. Its errors are [ErrNotFresh], [ErrTooMany], [ErrBoundAlready], [ErrShared], [ErrNoAuthenticator] (none to replace) and factors.ErrName.
func (s *Service) EnrolThis(ctx context.Context, cookie Cookie, b Binding, locale string) (*Enrolment, error) {
	return s.EnrolThisFor(ctx, cookie, uuid.Nil, b, locale)
}

// EnrolThisFor is [Service.EnrolThis] for a sign-in that lacks a factor; see [Service.EnrolFor].
func (s *Service) EnrolThisFor(ctx context.Context, cookie Cookie, signIn uuid.UUID, b Binding, locale string) (*Enrolment, error) {
	name, err := factors.ParseName(b.Authenticator.Name)
	if err != nil {
		return nil, err
	}
	session, err := s.enroller(ctx, cookie, signIn)
	if err != nil {
		return nil, err
	}
	b.Authenticator.Subject, b.Authenticator.Name = session.Subscriber, name
	return s.enrol(ctx, cookie, session, b, factors.Setup{}, locale)
}

// enroller is the session of a cookie, in which something is to be set up for a sign-in. Where policy does not let it: [ErrNotFresh].
func (s *Service) enroller(ctx context.Context, cookie Cookie, signIn uuid.UUID) (*Session, error) {
	if signIn != uuid.Nil {
		p, err := s.Load(ctx, cookie, signIn)
		if err != nil {
			return nil, err
		}
		if p.Decision.Step == StepEnrol {
			return &p.SignIn.Session, nil
		}
	}
	h, err := s.Holdings(ctx, cookie)
	if err != nil {
		return nil, err
	}
	if !s.begins(&h.Session, h.Now) {
		q := new(postgres.Query)
		q.With("kept_out", "SELECT 1")
		audit.Record(ctx, q, "kept_out", audit.Event{Name: "authenticator.propose", Outcome: audit.Refused, Reason: "policy", Actor: "subscriber",
			Subject: h.Session.Subscriber, Session: h.Session.ID}, nil)
		q.Finally("SELECT 1")
		if _, err := s.DB.Run(ctx, q); err != nil {
			return nil, fmt.Errorf("record what policy does not let: %w", err)
		}
		return nil, ErrNotFresh
	}
	return &h.Session, nil
}

func (s *Service) enrol(ctx context.Context, cookie Cookie, session *Session, b Binding, setup factors.Setup, locale string) (*Enrolment, error) {
	a, by := b.Authenticator, factors.Subscriber(session.ID)
	e := &Enrolment{Authenticator: a, Setup: setup}
	factor, _ := s.Ledger.Factor(a.Kind)
	// What is repaired gets something to begin with again; whatever else is bound goes then, so that it is in nobody's way.
	repairs := len(a.Codes) == 0 && a.Replaces == uuid.Nil && factors.Serves(factor, factors.StepUp)
	err := s.change(ctx, cookie, session, repairs, enrolRefusals(), func(q *postgres.Query) (done, refused string, err error) {
		perKind, has := math.MaxInt32, "false"
		if session.Recovery == uuid.Nil {
			perKind, has = s.Config.PerKind, s.Ledger.HasSQL(q, a.Kind, b.Unique, a.Subject)
		}
		subject, kind, replaces := q.Bind(a.Subject)+"::uuid", q.Bind(a.Kind)+"::text", q.Bind(optional(a.Replaces))+"::uuid"
		q.With("obstacle", fmt.Sprintf(`SELECT CASE
			WHEN %[3]s IS NOT NULL AND NOT EXISTS (SELECT FROM authenticators WHERE id = %[3]s AND subject = %[1]s AND kind = %[2]s AND unbound_at IS NULL) THEN 'unknown'
			WHEN NOT %[9]s AND NOT EXISTS (SELECT FROM authenticators WHERE subject = %[1]s AND unbound_at IS NULL AND kind = ANY(%[10]s)) THEN 'first'
			WHEN %[4]s THEN 'already'
			WHEN %[5]s <= (SELECT count(*) FROM authenticators WHERE subject = %[1]s AND kind = %[2]s AND unbound_at IS NULL AND id <> %[6]s AND id <> coalesce(%[3]s, %[6]s)) THEN 'many'
			WHEN %[7]s <= %[8]s THEN 'shared' END AS reason FROM changer`,
			subject, kind, replaces, has, q.Bind(perKind)+"::int", q.Bind(a.ID)+"::uuid",
			q.Bind(s.Config.PerNumber)+"::int", s.Ledger.HeldSQL(q, a.Kind, b.Unique, a.Subject), q.Bind(factors.Serves(factor, factors.StepUp))+"::bool", q.Bind(pq.Array(s.adding()))+"::text[]"))
		q.With("room", "SELECT changer.id FROM changer, obstacle WHERE obstacle.reason IS NULL")
		q.With("obstructed", "SELECT reason FROM obstacle WHERE reason IS NOT NULL")
		audit.Record(ctx, q, "obstructed", audit.Event{Name: "authenticator.propose", Outcome: audit.Refused, Actor: "subscriber",
			Subject: session.Subscriber, Session: session.ID, Object: a.ID.String()}, audit.Expressions{"reason": "obstructed.reason"})
		refused = "(SELECT reason FROM obstructed)"
		if len(a.Codes) > 0 {
			err := s.Ledger.BindBy(ctx, q, "room", a, b.Unique, by)
			s.tellBound(ctx, q, a, "authenticator_bound", false)
			return "EXISTS (SELECT FROM authenticator_bound)", refused, err
		}
		if err := s.Ledger.Propose(ctx, q, "room", a, b.Unique, proposal, by); err != nil {
			return "", "", err
		}
		if factor.Restricted() { // whoever proposes one was told what it is not good for: SP 800-63B-4 section 3.2.9
			q.With("authenticator_risked", "SELECT id FROM authenticator_proposed")
			audit.Record(ctx, q, "authenticator_risked", audit.Event{Name: "authenticator.risk_told", Outcome: audit.Success, Reason: a.Kind, Actor: "subscriber",
				Subject: session.Subscriber, Session: session.ID, Object: a.ID.String()}, nil)
		}
		id, err := s.Ledger.Open(ctx, q, "authenticator_proposed", a, proof(session), factors.Prompt{Locale: locale})
		e.Challenge = &factors.State{ID: id, AuthenticatorID: a.ID, Kind: a.Kind, Purpose: factors.Enrol}
		return "EXISTS (SELECT FROM challenge_opened)", refused, err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// enrolRefusals are the reasons, in SQL, why nothing is bound.
func enrolRefusals() map[string]error {
	return map[string]error{"many": ErrTooMany, "already": ErrBoundAlready, "shared": ErrShared, "unknown": ErrNoAuthenticator, "first": ErrNotFirst, "stale": ErrNotFresh}
}

// lateSQL is an SQL expression for why what was proposed in a session cannot be bound any more; NULL: it can. The account may have changed since: a session that was
// good enough to propose something while there was no factor is not good enough once there is one.
func (s *Service) lateSQL(q *postgres.Query, session *Session, a factors.Authenticator) string {
	if session.Recovery != uuid.Nil { // what was bound before goes when this is
		return fmt.Sprintf(`(SELECT CASE
			WHEN NOT %[4]s THEN 'stale'
			WHEN %[1]s <= (SELECT count(DISTINCT o.subject) FROM authenticators o WHERE o.unbound_at IS NULL AND o.fingerprint = n.fingerprint AND o.subject <> n.subject) THEN 'shared' END
			FROM authenticators n JOIN sessions s ON s.subscriber_id = n.subject WHERE n.id = %[2]s AND s.id = %[3]s)`,
			q.Bind(s.Config.PerNumber)+"::int", q.Bind(a.ID)+"::uuid", q.Bind(session.ID)+"::uuid", s.repairing("s"))
	}
	return fmt.Sprintf(`(SELECT CASE
		WHEN NOT %[1]s THEN 'stale'
		WHEN EXISTS (SELECT FROM authenticators o WHERE o.unbound_at IS NULL AND o.fingerprint = n.fingerprint AND o.subject = n.subject) THEN 'already'
		WHEN %[2]s <= (SELECT count(*) FROM authenticators o WHERE o.subject = n.subject AND o.kind = n.kind AND o.unbound_at IS NULL AND o.id <> coalesce(n.replaces, n.id)) THEN 'many'
		WHEN %[3]s <= (SELECT count(DISTINCT o.subject) FROM authenticators o WHERE o.unbound_at IS NULL AND o.fingerprint = n.fingerprint AND o.subject <> n.subject) THEN 'shared' END
		FROM authenticators n JOIN sessions s ON s.subscriber_id = n.subject WHERE n.id = %[4]s AND s.id = %[5]s)`,
		s.freshSQL(q, s.Config.Fresh+proposal), q.Bind(s.Config.PerKind)+"::int", q.Bind(s.Config.PerNumber)+"::int", q.Bind(a.ID)+"::uuid", q.Bind(session.ID)+"::uuid")
}

// late tells why an enrolment was over, and records it if it is for what happened since it began.
func (s *Service) late(ctx context.Context, session *Session, a factors.Authenticator) error {
	q := new(postgres.Query)
	q.With("late", "SELECT "+s.lateSQL(q, session, a)+" AS reason")
	q.With("too_late", "SELECT reason FROM late WHERE reason IS NOT NULL")
	audit.Record(ctx, q, "too_late", audit.Event{Name: "authenticator.bind", Outcome: audit.Refused, Actor: "subscriber",
		Subject: session.Subscriber, Session: session.ID, Object: a.ID.String()}, audit.Expressions{"reason": "too_late.reason"})
	q.Finally("SELECT coalesce(reason, '') FROM late")
	var reason string
	if err := s.DB.Get(ctx, &reason, q); err != nil {
		return fmt.Errorf("why an enrolment is over: %w", err)
	}
	if err := enrolRefusals()[reason]; err != nil {
		return err
	}
	return factors.ErrOver
}

// proof is what the answer that binds a new authenticator must come with. The challenge knows which one it is for.
func proof(session *Session) factors.Binding {
	return factors.Binding{Purpose: factors.Enrol, Subject: session.Subscriber, Browser: session.ID}
}

// Enrolment reads an enrolment of this session that still waits for its proof, with what its holder is shown. Its errors are factors.ErrOver, when there is none, and [ErrNotFresh], when nobody is signed in.
func (s *Service) Enrolment(ctx context.Context, cookie Cookie, id uuid.UUID) (*Enrolment, error) {
	e, _, err := s.enrolment(ctx, cookie, id)
	return e, err
}

func (s *Service) enrolment(ctx context.Context, cookie Cookie, id uuid.UUID) (*Enrolment, *Session, error) {
	session, err := s.signedIn(ctx, cookie)
	if err != nil {
		return nil, nil, err
	}
	e := new(Enrolment)
	if e.Authenticator, e.Challenge, err = s.Ledger.Pending(ctx, id, proof(session)); err != nil {
		return nil, nil, err
	}
	e.Now = e.Authenticator.ReadAt
	factor, _ := s.Ledger.Factor(e.Authenticator.Kind)
	if provisioner, ok := factor.(factors.Provisioner); ok {
		if e.Setup, err = provisioner.Setup(e.Authenticator, session.Username); err != nil {
			return nil, nil, err
		}
	}
	return e, session, nil
}

// Prove tries an answer that binds the authenticator of an enrolment. signIn is the sign-in that wanted it, for which it counts as a proof like any; uuid.Nil:
// the account did, in whose session it counts: nobody is asked at once for what they have just proved. The session has a new cookie then; it is empty where the session was there to
// repair the account, which it has: its person signs in now. Its errors are those of [Service.Answer] on a code and, where the account has changed since the proposal, those of
// [Service.EnrolThis].
func (s *Service) Prove(ctx context.Context, cookie Cookie, id, signIn uuid.UUID, typed string) (Cookie, error) {
	e, session, err := s.enrolment(ctx, cookie, id)
	if err != nil {
		return "", err
	}
	a := e.Authenticator
	factor, _ := s.Ledger.Factor(a.Kind)
	answer, err := factor.Parse(typed)
	if err != nil {
		return "", err
	}
	token := Cookie(keyring.Token())
	repairs := session.Recovery != uuid.Nil && s.Repaired != nil
	event := Event{Strength: strength(factor), Kind: a.Kind, AMR: factor.AMR(), AuthenticatorID: a.ID, SignInID: signIn}
	if signIn == uuid.Nil {
		event.SignInID = id // a proof for the account, of no sign-in
	}
	binding := proof(session)
	binding.While = func(q *postgres.Query) string { // whoever ends the session waits for what is bound, or nothing is
		return s.lateSQL(q, session, a) + " IS NULL AND EXISTS (SELECT FROM sessions held WHERE held.id = " + q.Bind(session.ID) + "::uuid AND held.ended_at IS NULL FOR NO KEY UPDATE)"
	}
	raised, err := s.Ledger.Answer(ctx, id, a, binding, answer, func(q *postgres.Query, won string) string {
		q.With("session_proved", fmt.Sprintf(`
			UPDATE sessions SET token_hash = %s, last_seen_at = wall(),
			       ended_at = CASE WHEN recovery_id IS NOT NULL THEN wall() END, end_reason = CASE WHEN recovery_id IS NOT NULL THEN 'repaired' END FROM %s
			 WHERE sessions.id = %s AND token_hash = %s AND ended_at IS NULL AND subscriber_id = %s.subject RETURNING sessions.id, sessions.id AS session_id, %[2]s.subject`,
			q.Bind(token.hash())+"::bytea", won, q.Bind(session.ID)+"::uuid", q.Bind(cookie.hash())+"::bytea", won))
		if repairs {
			s.Repaired(ctx, q, "session_proved", session, a)
		}
		q.With("session_raised", fmt.Sprintf(`SELECT p.id FROM session_proved p WHERE %[2]s AND (%[1]s IS NULL OR EXISTS (
			SELECT FROM sign_ins si WHERE si.session_id = p.id AND si.id = %[1]s AND si.done_at IS NULL AND si.expires_at > wall()))`,
			q.Bind(optional(signIn))+"::uuid", q.Bind(session.Recovery == uuid.Nil)+"::bool"))
		s.addEvent(q, "session_raised", event)
		q.With("added", "SELECT subject, kind, hint FROM challenge_bound WHERE NOT EXISTS (SELECT FROM challenge_replaced)")
		s.tellBound(ctx, q, a, "added", false)
		if a.Replaces != uuid.Nil {
			s.Notices.Add(ctx, q, "challenge_replaced", notices.Event{Kind: notices.PhoneChanged, AlsoBound: "challenge_bound"}, notices.Expressions{"hint": "challenge_replaced.hint"})
			s.endOthers(ctx, q, "challenge_replaced", a.Subject, factors.Subscriber(session.ID))
		}
		return "(SELECT to_jsonb(true) FROM session_proved)"
	})
	if errors.Is(err, factors.ErrOver) {
		err = s.late(ctx, session, a)
	}
	if err != nil {
		return "", err
	}
	var proved bool
	if len(raised) == 0 || json.Unmarshal(raised, &proved) != nil || !proved {
		return "", ErrSignInOver // the session ended between the two statements
	}
	if repairs {
		return "", nil
	}
	return token, nil
}

// tellBound tells a's owner that it was bound, where part has a row: the subject, kind and hint of what was. Who is told is who could be told before.
func (s *Service) tellBound(ctx context.Context, q *postgres.Query, a factors.Authenticator, part string, operator bool) {
	event := notices.Event{Kind: notices.FactorAdded, Operator: operator}
	if len(a.Codes) > 0 {
		event.Kind = notices.BackupCodesMade
	}
	s.Notices.Add(ctx, q, part, event, notices.Expressions{"about": part + ".kind", "hint": part + ".hint"})
}

// tellUnbound tells the owner of what part `authenticator_unbound` has, by that too.
func (s *Service) tellUnbound(ctx context.Context, q *postgres.Query, operator bool) {
	s.Notices.Add(ctx, q, "authenticator_unbound", notices.Event{Kind: notices.FactorRemoved, Operator: operator},
		notices.Expressions{"about": "authenticator_unbound.kind", "hint": "authenticator_unbound.hint"})
}

// endOthers adds part `session_closed`: with what part from unbinds all sessions of its subscriber end but that of by. Whoever has the phone that was lost is signed in by it
// no longer.
func (s *Service) endOthers(ctx context.Context, q *postgres.Query, from string, subscriber uuid.UUID, by factors.By) {
	q.With("session_closed", fmt.Sprintf(`
		UPDATE sessions o SET ended_at = wall(), end_reason = 'factor_removed' FROM %s
		 WHERE o.subscriber_id = %s AND o.id IS DISTINCT FROM %s AND o.ended_at IS NULL RETURNING o.id`,
		from, q.Bind(subscriber)+"::uuid", q.Bind(optional(by.Session))+"::uuid"))
	audit.Record(ctx, q, "session_closed", audit.Event{Name: "session.end", Outcome: audit.Success, Reason: "factor_removed", Actor: by.Actor, Subject: subscriber},
		audit.Expressions{"session_id": "session_closed.id"})
}

// ResendProof sends the code of an enrolment again; see [Service.Resend].
func (s *Service) ResendProof(ctx context.Context, cookie Cookie, id uuid.UUID, locale string) error {
	e, session, err := s.enrolment(ctx, cookie, id)
	if err != nil {
		return err
	}
	return s.Ledger.Resend(ctx, id, e.Authenticator, proof(session), factors.Prompt{Locale: locale})
}

// Rename changes what an authenticator is called. Its errors are [ErrNotFresh], [ErrNoAuthenticator] and factors.ErrName.
func (s *Service) Rename(ctx context.Context, cookie Cookie, id uuid.UUID, name string) error {
	name, err := factors.ParseName(name)
	if err != nil {
		return err
	}
	session, err := s.signedIn(ctx, cookie)
	if err != nil {
		return err
	}
	return s.change(ctx, cookie, session, false, nil, func(q *postgres.Query) (done, refused string, err error) {
		s.Ledger.Rename(ctx, q, "changer", session.Subscriber, id, name, factors.Subscriber(session.ID))
		s.Notices.Add(ctx, q, "authenticator_renamed", notices.Event{Kind: notices.FactorRenamed},
			notices.Expressions{"about": "authenticator_renamed.kind", "hint": "authenticator_renamed.hint"})
		return "EXISTS (SELECT FROM authenticator_renamed)", "NULL", nil
	})
}

// Remove unbinds an authenticator. Its errors are [ErrNotFresh], [ErrLastAuthenticator] and [ErrNoAuthenticator].
func (s *Service) Remove(ctx context.Context, cookie Cookie, id uuid.UUID) error {
	session, err := s.signedIn(ctx, cookie)
	if err != nil {
		return err
	}
	return s.change(ctx, cookie, session, false, map[string]error{"last": ErrLastAuthenticator}, func(q *postgres.Query) (done, refused string, err error) {
		s.Ledger.Unbind(ctx, q, "changer", session.Subscriber, id, s.needed(session), factors.Subscriber(session.ID))
		s.tellUnbound(ctx, q, false)
		s.endOthers(ctx, q, "authenticator_unbound", session.Subscriber, factors.Subscriber(session.ID))
		q.With("authenticator_stays", "SELECT id FROM authenticators_held WHERE id = "+q.Bind(id)+"::uuid AND NOT EXISTS (SELECT FROM authenticator_unbound)")
		audit.Record(ctx, q, "authenticator_stays", audit.Event{Name: "authenticator.unbind", Outcome: audit.Refused, Reason: "last", Actor: "subscriber",
			Subject: session.Subscriber, Session: session.ID, Object: id.String()}, nil)
		return "EXISTS (SELECT FROM authenticator_unbound)", "(SELECT 'last' FROM authenticator_stays)", nil
	})
}

// signedIn is the session of a cookie. Nobody signed in is [ErrNotFresh].
func (s *Service) signedIn(ctx context.Context, cookie Cookie) (*Session, error) {
	session, err := s.Current(ctx, cookie)
	if err == nil && session.Subscriber == uuid.Nil {
		err = ErrNotFresh
	}
	return &session, err
}

// change runs what add makes depend on part `changer`, which has a row for as long as the session is the one that was read, and fresh. add says in SQL
// whether it is done, and why it is refused: a key of refusals, or NULL. That a session is not fresh is recorded. repairs says that a session which was opened for
// a recovery may do it.
func (s *Service) change(ctx context.Context, cookie Cookie, session *Session, repairs bool, refusals map[string]error, add func(*postgres.Query) (done, refused string, err error)) error {
	q := new(postgres.Query)
	fresh := s.repairing("s")
	if !repairs || session.Recovery == uuid.Nil {
		fresh = s.freshSQL(q, s.Config.Fresh)
	}
	q.With("asker", fmt.Sprintf("SELECT s.id, %s AS fresh FROM sessions s WHERE s.token_hash = %s AND s.subscriber_id = %s AND %s",
		fresh, q.Bind(cookie.hash())+"::bytea", q.Bind(session.Subscriber)+"::uuid", s.alive(q, "s")))
	q.With("changer", "SELECT id FROM asker WHERE fresh")
	done, refused, err := add(q)
	if err != nil {
		return err
	}
	q.With("stale", "SELECT id FROM asker WHERE NOT fresh")
	audit.Record(ctx, q, "stale", audit.Event{Name: "authenticator.change", Outcome: audit.Refused, Reason: "not_fresh", Actor: "subscriber",
		Subject: session.Subscriber, Session: session.ID}, nil)
	q.Finally("SELECT EXISTS (SELECT FROM changer) AS fresh, " + done + " AS done, coalesce(" + refused + ", '') AS refused")
	var got struct {
		Fresh   bool   `db:"fresh"`
		Done    bool   `db:"done"`
		Refused string `db:"refused"`
	}
	if err := s.DB.Get(ctx, &got, q); err != nil {
		return fmt.Errorf("change authenticators: %w", err)
	}
	switch {
	case got.Done:
		return nil
	case !got.Fresh:
		return ErrNotFresh
	case refusals[got.Refused] != nil:
		return refusals[got.Refused]
	}
	return ErrNoAuthenticator
}

// Provision binds a new authenticator of a kind that begins here to a subscriber, and gives what its holder has to be handed. It is the operator's door: no
// proof of possession is asked.
func (s *Service) Provision(ctx context.Context, subscriber *Subscriber, kind, name string) (factors.Setup, error) {
	factor, _ := s.Ledger.Factor(kind)
	provisioner, ok := factor.(factors.Provisioner)
	if !ok {
		return factors.Setup{}, ErrNoAuthenticator
	}
	name, err := factors.ParseName(name)
	if err != nil {
		return factors.Setup{}, err
	}
	a, setup, err := provisioner.Provision(subscriber.ID, subscriber.Username)
	if err != nil {
		return factors.Setup{}, err
	}
	a.Name = name
	return setup, s.Bind(ctx, subscriber.ID, Binding{Authenticator: a})
}

// Unbind removes an authenticator of a subscriber. It is the operator's door: the last one goes like any. Its error is [ErrNoAuthenticator].
func (s *Service) Unbind(ctx context.Context, subscriber, id uuid.UUID) error {
	q := new(postgres.Query)
	q.With("holder", "SELECT id FROM subscribers WHERE id = "+q.Bind(subscriber)+"::uuid")
	s.Ledger.Unbind(ctx, q, "holder", subscriber, id, nil, factors.Operator)
	s.tellUnbound(ctx, q, true)
	s.endOthers(ctx, q, "authenticator_unbound", subscriber, factors.Operator)
	q.Finally("SELECT 1 FROM authenticator_unbound")
	n, err := s.DB.Run(ctx, q)
	if err == nil && n == 0 {
		return ErrNoAuthenticator
	}
	if err != nil {
		return fmt.Errorf("unbind authenticator: %w", err)
	}
	return nil
}
