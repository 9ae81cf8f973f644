package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// People look at their accounts, and change them, in the session that signs them in to applications. There is no second way in: the account is a relying
// party of its own ([Own]), and what is asked of a sign-in to it is decided by [Decide] like everywhere. To look, any finished sign-in will do; every change is held
// to the condition of fresh proofs, in the statement that makes it, and [Changing] is what a sign-in has to be asked for to meet it.

// OwnID names the way to somebody's own account, in policy and records, where an application has its id.
const OwnID = "urn:watchword:account"

// Own is the relying party that somebody's own account is, under the name of the service.
func Own(service string) RelyingParty {
	return RelyingParty{ID: OwnID, Name: service, FirstParty: true, Own: true}
}

// Looking is what a sign-in needs to look at the account.
func Looking() Requirement { return Requirement{MaxAge: -1} }

// Changing is what a sign-in needs to change something there.
func (s *Service) Changing() Requirement {
	return Requirement{MaxAge: int64(s.Config.Fresh.Seconds()), Strongest: true}
}

// Applications tells what other programs were given in subscribers' names, and takes it back. Package oidc implements it.
type Applications interface {
	// Given lists what stands, and the names of all applications that it is of or that have one of these ids.
	Given(ctx context.Context, subscriber uuid.UUID, ids []string) ([]Given, map[string]string, error)
	// TakeBack adds part `given_back` to q: whatever the application has of the subscriber is worth nothing any more, for as long as part from has a row.
	TakeBack(ctx context.Context, q *postgres.Query, from string, subscriber uuid.UUID, application string, by factors.By)
}

// Given is what one application has of a person.
type Given struct {
	Application string // its id
	Name        string
	Scopes      []string
	Since       time.Time
}

// Seat is a session of a person.
type Seat struct {
	ID         uuid.UUID
	Agent      string // how its browser calls itself
	CreatedAt  time.Time
	LastUsedAt time.Time
	This       bool // the session that asks
	Half       bool // the password was right, and nothing else was proved
}

// Account is what a person sees of their own account.
type Account struct {
	Holdings
	// Decision about the session that asks. Whatever it has, it may be shown after StepDone only.
	Decision Decision
	Browsers []Remembered
	Sessions []Seat        // the last used first
	Activity []audit.Entry // the newest first
	Given    []Given
	Names    map[string]string // of applications, by id
	Profile  Profile           // of an export alone
}

// Bounds on what an account shows, and on what is exported of it.
const (
	shownActivity    = 30
	exportedActivity = 10_000
	shownSeats       = 100
)

// Activities are the names of records that people are shown. Each has a text.
func Activities() []string {
	return []string{
		"password.check", "password.set", "challenge.answer", "authenticator.bind", "authenticator.unbind", "authenticator.rename", "authenticator.prefer",
		"browser.remember", "browser.forget", "session.end", "grant.issue", "consent.give", "consent.withdraw", "email.set", "account.export",
		"subscriber.disable", "subscriber.enable", "subscriber.unlock", "recovery.start", "recovery.vouch", "recovery.end",
		"transaction.approve", "transaction.refuse", "transaction.report",
	}
}

// Account reads it, in two statements. Nobody signed in is [ErrNotFresh].
func (s *Service) Account(ctx context.Context, cookie, browser Cookie) (*Account, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`SELECT s.id AS session_id, s.sid, s.subscriber_id, s.recovery_id, s.created_at AS session_created_at, u.username, u.subject, u.groups, %s AS events, %s AS bound,
		%s AS fresh, wall() AS now, %s FROM sessions s JOIN subscribers u ON u.id = s.subscriber_id WHERE s.token_hash = %s AND %s`,
		eventsSQL(), factors.BoundSQL("s.subscriber_id"), s.freshSQL(q, s.Config.Fresh), s.possessions(q, "s.subscriber_id", browser, Activities(), shownActivity),
		q.Bind(cookie.hash())+"::bytea", s.alive(q, "s")))
	var row struct {
		holdingsRow
		possessionsRow
	}
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrNotFresh
	} else if err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	h, err := s.holdings(ctx, &row.holdingsRow)
	if err != nil {
		return nil, err
	}
	a := &Account{Holdings: *h, Decision: s.decideOwn(&h.Session, h.Now)}
	if a.Decision.Step != StepDone {
		return a, nil // nothing to be shown
	}
	return a, s.possess(ctx, a, &row.possessionsRow)
}

type possessionsRow struct {
	Browsers []byte `db:"browsers"`
	Sessions []byte `db:"sessions"`
	Activity []byte `db:"activity"`
	Consents []byte `db:"consents"`
}

// possessions are columns about the subscriber of an SQL expression.
func (s *Service) possessions(q *postgres.Query, subscriber string, browser Cookie, names []string, activity int) string {
	limit := q.Bind(shownSeats) + "::int"
	return fmt.Sprintf(`
		(SELECT coalesce(jsonb_agg(jsonb_build_object('id', b.id, 'agent', encode(b.agent, 'base64'), 'created_at', b.created_at, 'last_used_at', b.last_used_at, 'expires_at', b.expires_at,
			'this', b.token_hash = %[1]s OR coalesce(b.previous_hash = %[1]s, false)) ORDER BY b.last_used_at DESC, b.id), '[]')
		   FROM (SELECT * FROM browsers b WHERE b.subscriber_id = %[2]s AND %[3]s ORDER BY b.last_used_at DESC LIMIT %[4]s) b) AS browsers,
		(SELECT coalesce(jsonb_agg(jsonb_build_object('id', o.id, 'agent', encode(o.agent, 'base64'), 'created_at', o.created_at, 'last_used_at', o.last_seen_at,
			'half', NOT EXISTS (SELECT FROM session_events e WHERE e.session_id = o.id AND e.strength <> %[5]d)) ORDER BY o.last_seen_at DESC, o.id), '[]')
		   FROM (SELECT * FROM sessions o WHERE o.subscriber_id = %[2]s AND %[6]s ORDER BY o.last_seen_at DESC LIMIT %[4]s) o) AS sessions,
		%[7]s AS activity,
		(SELECT coalesce(jsonb_agg(jsonb_build_object('application', c.relying_party, 'scopes', to_jsonb(c.scopes), 'since', c.granted_at)), '[]')
		   FROM consents c WHERE c.subscriber_id = %[2]s) AS consents`,
		q.Bind(browser.hash())+"::bytea", subscriber, browserStands("b"), limit, Knowledge, s.alive(q, "o"), audit.SubjectSQL(q, subscriber, names, activity))
}

// possess fills in what the columns of [Service.possessions] hold, and what applications have.
func (s *Service) possess(ctx context.Context, a *Account, row *possessionsRow) (err error) {
	var seats []struct {
		ID         uuid.UUID `json:"id"`
		Agent      sealed    `json:"agent"`
		CreatedAt  time.Time `json:"created_at"`
		LastUsedAt time.Time `json:"last_used_at"`
		ExpiresAt  time.Time `json:"expires_at"`
		This, Half bool
	}
	if err := json.Unmarshal(row.Browsers, &seats); err != nil {
		return fmt.Errorf("browsers: %w", err)
	}
	for _, b := range seats {
		agent, err := s.openAgent(b.Agent, "browser", b.ID)
		if err != nil {
			return err
		}
		a.Browsers = append(a.Browsers, Remembered{ID: b.ID, Agent: agent, CreatedAt: b.CreatedAt, LastUsedAt: b.LastUsedAt, ExpiresAt: b.ExpiresAt, This: b.This})
	}
	seats = nil
	if err := json.Unmarshal(row.Sessions, &seats); err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	for _, o := range seats {
		agent, err := s.openAgent(o.Agent, "session", o.ID)
		if err != nil {
			return err
		}
		a.Sessions = append(a.Sessions, Seat{ID: o.ID, Agent: agent, CreatedAt: o.CreatedAt, LastUsedAt: o.LastUsedAt, This: o.ID == a.Session.ID, Half: o.Half && len(a.Session.Bound) > 0})
	}
	if a.Activity, err = audit.DecodeEntries(row.Activity); err != nil {
		return err
	}
	return s.given(ctx, a, row.Consents)
}

// sealed is bytes that PostgreSQL encoded, with a line break every now and then.
type sealed []byte

// UnmarshalJSON implements json.Unmarshaler.
func (b *sealed) UnmarshalJSON(data []byte) error {
	return json.Unmarshal([]byte(strings.ReplaceAll(string(data), `\n`, "")), (*[]byte)(b))
}

// given puts together what applications have at the moment and what they were allowed to have again.
func (s *Service) given(ctx context.Context, a *Account, consents []byte) error {
	var allowed []struct {
		Application string    `json:"application"`
		Scopes      []string  `json:"scopes"`
		Since       time.Time `json:"since"`
	}
	if err := json.Unmarshal(consents, &allowed); err != nil {
		return fmt.Errorf("consents: %w", err)
	}
	if s.Applications == nil {
		return nil
	}
	var ids []string
	for i := range allowed {
		ids = append(ids, allowed[i].Application)
	}
	for i := range a.Activity {
		if id := a.Activity[i].Client.V; id != "" && id != OwnID {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var err error
	if a.Given, a.Names, err = s.Applications.Given(ctx, a.Session.Subscriber, slices.Compact(ids)); err != nil {
		return err
	}
	for _, more := range allowed {
		i := slices.IndexFunc(a.Given, func(g Given) bool { return g.Application == more.Application })
		if i < 0 {
			a.Given = append(a.Given, Given{Application: more.Application, Name: a.Names[more.Application], Since: more.Since})
			i = len(a.Given) - 1
		}
		if g := &a.Given[i]; more.Since.Before(g.Since) {
			g.Since = more.Since
		}
		a.Given[i].Scopes = slices.Compact(slices.Sorted(slices.Values(append(a.Given[i].Scopes, more.Scopes...))))
	}
	slices.SortFunc(a.Given, func(x, y Given) int { return strings.Compare(x.Name+"\x00"+x.Application, y.Name+"\x00"+y.Application) })
	return nil
}

// Errors of what people change in their accounts, besides [ErrNotFresh].
var (
	// ErrNothingThere: there is no such browser, session or application, or not any more. Show the account again.
	ErrNothingThere = errors.New("authn: no such thing in this account")
	// ErrPasswordSame: the new password is the one that is set. Ask for another.
	ErrPasswordSame = errors.New("authn: that is the password already")
)

// alter is [Service.change] for what is no authenticator: what is not there is [ErrNothingThere].
func (s *Service) alter(ctx context.Context, cookie Cookie, add func(q *postgres.Query, session *Session) (done string)) error {
	session, err := s.signedIn(ctx, cookie)
	if err != nil {
		return err
	}
	err = s.change(ctx, cookie, session, false, nil, func(q *postgres.Query) (done, refused string, err error) { return add(q, session), "NULL", nil })
	if errors.Is(err, ErrNoAuthenticator) {
		return ErrNothingThere
	}
	return err
}

// Forget ends that a browser is remembered; uuid.Nil: all of them. Its errors are [ErrNotFresh] and [ErrNothingThere].
func (s *Service) Forget(ctx context.Context, cookie Cookie, id uuid.UUID) error {
	return s.alter(ctx, cookie, func(q *postgres.Query, session *Session) string {
		s.forget(ctx, q, "changer", session.Subscriber, id, factors.Subscriber(session.ID))
		return "EXISTS (SELECT FROM browser_forgotten)"
	})
}

// forget adds part `browser_forgotten`, for as long as part from has a row.
func (s *Service) forget(ctx context.Context, q *postgres.Query, from string, subscriber, id uuid.UUID, by factors.By) {
	q.With("browser_forgotten", fmt.Sprintf("DELETE FROM browsers b USING %s WHERE b.subscriber_id = %s AND coalesce(%s, b.id) = b.id RETURNING b.id, b.subscriber_id",
		from, q.Bind(subscriber)+"::uuid", q.Bind(optional(id))+"::uuid"))
	audit.Record(ctx, q, "browser_forgotten", audit.Event{Name: "browser.forget", Outcome: audit.Success, Reason: "revoked", Actor: by.Actor, Subject: subscriber, Session: by.Session},
		audit.Expressions{"object": "browser_forgotten.id::text"})
}

// EndSession ends another session of the person; uuid.Nil: all others. Its errors are [ErrNotFresh] and [ErrNothingThere].
func (s *Service) EndSession(ctx context.Context, cookie Cookie, id uuid.UUID) error {
	return s.alter(ctx, cookie, func(q *postgres.Query, session *Session) string {
		s.endSessions(ctx, q, "changer", session.Subscriber, id, "ended_by_subscriber", factors.Subscriber(session.ID))
		return "EXISTS (SELECT FROM session_closed)"
	})
}

// endSessions adds part `session_closed`: the named session of a subscriber ends, or all but that of by, for as long as part from has a row.
func (s *Service) endSessions(ctx context.Context, q *postgres.Query, from string, subscriber, id uuid.UUID, reason string, by factors.By) {
	q.With("session_closed", fmt.Sprintf(`
		UPDATE sessions o SET ended_at = wall(), end_reason = %s FROM %s
		 WHERE o.subscriber_id = %s AND coalesce(%s, o.id) = o.id AND o.id IS DISTINCT FROM %s AND o.ended_at IS NULL RETURNING o.id, o.subscriber_id`,
		q.Bind(reason)+"::text", from, q.Bind(subscriber)+"::uuid", q.Bind(optional(id))+"::uuid", q.Bind(optional(by.Session))+"::uuid"))
	s.Ledger.CancelBrowser(q, "session_closed", "session_closed.subscriber_id", "uuid_send(session_closed.id)")
	audit.Record(ctx, q, "session_closed", audit.Event{Name: "session.end", Outcome: audit.Success, Reason: reason, Actor: by.Actor, Subject: subscriber},
		audit.Expressions{"session_id": "session_closed.id"})
	q.With("sessions_told", "SELECT DISTINCT subscriber_id AS subject FROM session_closed")
	s.Notices.Add(ctx, q, "sessions_told", notices.Event{Kind: notices.SessionsEnded, Operator: by.Actor == audit.Operator}, nil)
}

// Disconnect takes back what an application has of the person, and what it was allowed. Its errors are [ErrNotFresh] and [ErrNothingThere].
func (s *Service) Disconnect(ctx context.Context, cookie Cookie, application string) error {
	return s.alter(ctx, cookie, func(q *postgres.Query, session *Session) string {
		q.With("consent_withdrawn", fmt.Sprintf("DELETE FROM consents c USING changer WHERE c.subscriber_id = %s AND c.relying_party = %s RETURNING c.relying_party",
			q.Bind(session.Subscriber)+"::uuid", q.Bind(application)+"::text"))
		done := "EXISTS (SELECT FROM consent_withdrawn)"
		if s.Applications != nil {
			s.Applications.TakeBack(ctx, q, "changer", session.Subscriber, application, factors.Subscriber(session.ID))
			done += " OR EXISTS (SELECT FROM given_back)"
		}
		q.With("disconnected", "SELECT id FROM changer WHERE "+done)
		audit.Record(ctx, q, "disconnected", audit.Event{Name: "consent.withdraw", Outcome: audit.Success, Actor: "subscriber", Subject: session.Subscriber,
			Client: application, Session: session.ID}, nil)
		return "EXISTS (SELECT FROM disconnected)"
	})
}

// Prefer has the person asked for this authenticator before the others. Its errors are [ErrNotFresh] and [ErrNoAuthenticator].
func (s *Service) Prefer(ctx context.Context, cookie Cookie, id uuid.UUID) error {
	session, err := s.signedIn(ctx, cookie)
	if err != nil {
		return err
	}
	return s.change(ctx, cookie, session, false, nil, func(q *postgres.Query) (done, refused string, err error) {
		s.Ledger.Prefer(ctx, q, "changer", session.Subscriber, id, factors.Subscriber(session.ID))
		return "EXISTS (SELECT FROM authenticator_preferred)", "NULL", nil
	})
}

// ChangePassword replaces the person's password, which their fresh proofs include, and ends everything that the old one gave: other sessions, remembered browsers, what
// applications have, challenges. This session goes on, with a new cookie. context are words that the password must not be built from, besides the person's
// own. Its errors are [ErrNotFresh], [ErrOverloaded], [ErrPasswordSame] and those of [CheckNewPassword].
func (s *Service) ChangePassword(ctx context.Context, cookie Cookie, password string, context ...string) (Cookie, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`SELECT u.id, u.username, u.profile, coalesce(u.password_hash, '') AS password_hash, %s AS bound, %s AS fresh
		FROM sessions s JOIN subscribers u ON u.id = s.subscriber_id WHERE s.token_hash = %s AND %s`,
		factors.BoundSQL("s.subscriber_id"), s.freshSQL(q, s.Config.Fresh), q.Bind(cookie.hash())+"::bytea", s.alive(q, "s")))
	var was struct {
		ID       uuid.UUID `db:"id"`
		Username string    `db:"username"`
		Profile  []byte    `db:"profile"`
		Hash     string    `db:"password_hash"`
		Bound    []byte    `db:"bound"`
		Fresh    bool      `db:"fresh"`
	}
	if err := s.DB.Get(ctx, &was, q); errors.Is(err, postgres.ErrNotFound) {
		return "", ErrNotFresh
	} else if err != nil {
		return "", fmt.Errorf("read account: %w", err)
	}
	if was.Fresh { // what is not is recorded by the statement that refuses it
		if err := s.checkNew(ctx, was.ID, was.Username, was.Profile, was.Bound, was.Hash, password, context); err != nil {
			return "", err
		}
	}
	hash := ""
	if was.Fresh {
		var err error
		if hash, err = s.Passwords.Hash(ctx, password); err != nil {
			return "", err
		}
	}
	token := Cookie(keyring.Token())
	return token, s.alter(ctx, cookie, func(q *postgres.Query, session *Session) string {
		q.With("held", "SELECT id FROM subscribers WHERE id = "+q.Bind(session.Subscriber)+"::uuid AND EXISTS (SELECT FROM changer) FOR NO KEY UPDATE")
		q.With("changed", fmt.Sprintf(`UPDATE subscribers u SET password_hash = %s, password_changed_at = wall(), not_before = %s, updated_at = wall()
			  FROM held WHERE u.id = held.id AND u.password_hash = %s AND u.disabled_at IS NULL RETURNING u.id, u.not_before`,
			q.Bind(hash)+"::text", momentSQL, q.Bind(was.Hash)+"::text"))
		own := q.Bind(session.ID) + "::uuid"
		q.With("session_ended", fmt.Sprintf(`UPDATE sessions o SET ended_at = wall(), end_reason = 'password_changed' FROM changed
			 WHERE o.subscriber_id = changed.id AND o.ended_at IS NULL AND o.id <> %s RETURNING o.id`, own))
		q.With("session_kept", fmt.Sprintf(`UPDATE sessions o SET token_hash = %s, created_at = changed.not_before, last_seen_at = changed.not_before FROM changed
			 WHERE o.id = %s AND o.token_hash = %s AND o.ended_at IS NULL RETURNING o.id`, q.Bind(token.hash())+"::bytea", own, q.Bind(cookie.hash())+"::bytea"))
		s.Ledger.CancelAll(q, "changed", "changed.id")
		audit.Record(ctx, q, "changed", audit.Event{Name: "password.set", Outcome: audit.Success, Actor: "subscriber", Subject: session.Subscriber, Session: session.ID}, nil)
		s.Notices.Add(ctx, q, "changed", notices.Event{Kind: notices.PasswordChanged}, notices.Expressions{"subject": "changed.id"})
		return "EXISTS (SELECT FROM session_kept)"
	})
}

// checkNew holds a new password against the rules, and against what belongs to its owner.
func (s *Service) checkNew(ctx context.Context, id uuid.UUID, username string, sealedProfile, sealedBound []byte, hash, password string, words []string) error {
	profile, err := s.openProfile(id, sealedProfile)
	if err != nil {
		return err
	}
	bound, err := s.Ledger.DecodeBound(sealedBound)
	if err != nil {
		return err
	}
	words = append([]string{username}, words...)
	for _, name := range []string{"name", "given_name", "family_name", "nickname", "email", "preferred_username"} {
		if word, _ := profile[name].(string); word != "" {
			words = append(words, word)
		}
	}
	for _, a := range bound {
		if factor, _ := s.Ledger.Factor(a.Kind); factor != nil {
			if reacher, ok := factor.(factors.Reacher); ok {
				if number, err := reacher.Reach(a); err == nil {
					words = append(words, number.Words()...)
				}
			}
		}
	}
	minimum := MinPassword
	if len(bound) == 0 {
		minimum = MinAlonePassword
	}
	if err := CheckNewPassword(password, minimum, words...); err != nil {
		return err
	}
	same, _, err := s.Passwords.check(ctx, hash, password)
	if err == nil && same {
		return ErrPasswordSame
	}
	return err
}

// Export reads all that is kept about a subscriber, but for secrets. It is written down that somebody did.
func (s *Service) Export(ctx context.Context, subscriber uuid.UUID, by factors.By) (*Account, *Subscriber, error) {
	u, err := s.Find(ctx, subscriber.String())
	if err != nil {
		return nil, nil, err
	}
	q := new(postgres.Query)
	q.With("exported", "SELECT id FROM subscribers WHERE id = "+q.Bind(u.ID)+"::uuid")
	audit.Record(ctx, q, "exported", audit.Event{Name: "account.export", Outcome: audit.Success, Actor: by.Actor, Subject: u.ID, Session: by.Session}, nil)
	q.Finally("SELECT wall() AS now, " + s.possessions(q, "exported.id", "", nil, exportedActivity) + " FROM exported")
	var row struct {
		possessionsRow
		Now time.Time `db:"now"`
	}
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, nil, ErrNoSubscriber
	} else if err != nil {
		return nil, nil, fmt.Errorf("export: %w", err)
	}
	a := &Account{Profile: u.Profile}
	a.Now, a.Session = row.Now, Session{Subscriber: u.ID, Subject: u.Subject, Username: u.Username, Groups: u.Groups, Bound: u.Bound}
	return a, u, s.possess(ctx, a, &row.possessionsRow)
}

// Seats reads the sessions and remembered browsers of a subscriber. It is the operator's door.
func (s *Service) Seats(ctx context.Context, subscriber uuid.UUID) (*Account, error) {
	q := new(postgres.Query)
	q.Finally("SELECT " + s.possessions(q, "u.id", "", []string{}, 0) + " FROM subscribers u WHERE u.id = " + q.Bind(subscriber) + "::uuid")
	var row possessionsRow
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrNoSubscriber
	} else if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	a := new(Account)
	a.Session.Subscriber = subscriber
	return a, s.possess(ctx, a, &row)
}

// ExportOwn is [Service.Export] by the person. Its error is [ErrNotFresh].
func (s *Service) ExportOwn(ctx context.Context, cookie Cookie) (*Account, *Subscriber, error) {
	h, err := s.Holdings(ctx, cookie)
	if err != nil {
		return nil, nil, err
	}
	if !h.Fresh {
		return nil, nil, ErrNotFresh
	}
	return s.Export(ctx, h.Session.Subscriber, factors.Subscriber(h.Session.ID))
}

// EndSessions ends a session of a subscriber; uuid.Nil: all. It is the operator's door. Its error is [ErrNothingThere].
func (s *Service) EndSessions(ctx context.Context, subscriber, id uuid.UUID) error {
	q := new(postgres.Query)
	q.With("holder", "SELECT id FROM subscribers WHERE id = "+q.Bind(subscriber)+"::uuid")
	s.endSessions(ctx, q, "holder", subscriber, id, "ended_by_operator", factors.Operator)
	q.Finally("SELECT 1 FROM session_closed")
	return s.some(ctx, q, "end sessions")
}

// ForgetBrowsers is [Service.EndSessions] for remembered browsers.
func (s *Service) ForgetBrowsers(ctx context.Context, subscriber, id uuid.UUID) error {
	q := new(postgres.Query)
	q.With("holder", "SELECT id FROM subscribers WHERE id = "+q.Bind(subscriber)+"::uuid")
	s.forget(ctx, q, "holder", subscriber, id, factors.Operator)
	q.Finally("SELECT 1 FROM browser_forgotten")
	return s.some(ctx, q, "forget browsers")
}

// some runs q, which changes something or finds nothing.
func (s *Service) some(ctx context.Context, q *postgres.Query, what string) error {
	switch n, err := s.DB.Run(ctx, q); {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case n == 0:
		return ErrNothingThere
	}
	return nil
}
