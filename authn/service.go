package authn

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Config of sign-ins. The zero value is not usable: begin with [DefaultConfig].
type Config struct {
	Policy Policy
	// Idle ends a session that nobody used. Default 30 min, ceiling 1 h: SP 800-63B-4 section 5.2.
	Idle time.Duration
	// Absolute ends every session. Default 12 h, ceiling 24 h.
	Absolute time.Duration
	// PaymentIdle is how long a browser may be left alone before somebody has to prove everything anew to an application with payment accounts. Default and
	// ceiling 5 min: Regulation (EU) 2018/389 Art. 4(3)(d).
	PaymentIdle time.Duration
	// SignIn is how long one attempt may take. Default 60 min.
	SignIn time.Duration
	// Fresh is how long ago proofs may be for somebody to change what they can be asked for. Default 10 min, ceiling 20 min: ASVS 7.5.1.
	Fresh time.Duration
	// Remember is how long a browser is remembered, where policy lets it be. Default and ceiling 30 days.
	Remember time.Duration
	// PerKind is how many authenticators of one kind a subscriber may bind. Default 5.
	PerKind int
	// PerNumber is how many subscribers may bind the same number. Default 3.
	PerNumber int
	// Passwords wrong in a row, and from one address over all names. At applications with payment accounts the streak's tight limit holds.
	Failures       limits.Streak
	SourceFailures limits.Window
	// Breaker leaves each address less room while wrong passwords abound everywhere.
	Breaker limits.Breaker
}

// DefaultConfig has the numbers that the pages' texts depend on.
func DefaultConfig() Config {
	source := limits.Window{Name: "password-source", Burst: 30, Period: 5 * time.Minute, Tight: 5}
	return Config{
		Policy: Policy{Floor: RestrictedLevel, MaxAge: 12 * time.Hour, Enrol: true},
		Idle:   30 * time.Minute, Absolute: 12 * time.Hour, PaymentIdle: 5 * time.Minute, SignIn: time.Hour, Fresh: 10 * time.Minute, Remember: 30 * 24 * time.Hour, PerKind: 5, PerNumber: 3,
		Failures:       limits.Streak{Scope: "password", DelayFrom: 5, Limit: 10, Tight: 5, Block: 15 * time.Minute, MaxBlock: 15 * time.Minute, Ceiling: 100},
		SourceFailures: source,
		Breaker:        limits.Breaker{Window: source, Event: "password.check", Failures: 100, Share: 0.5, Period: 5 * time.Minute, Pause: 10 * time.Minute},
	}
}

// Service runs sign-ins. It is safe for concurrent use.
type Service struct {
	DB        *postgres.DB
	Keys      factors.Keys
	Ledger    *factors.Ledger
	Passwords *Passwords
	Config    Config
	// Notices tells people what happened to their accounts. Nil: nobody does.
	Notices *notices.Notices
	// Applications knows what other programs were given. Nil: nothing is known of any.
	Applications Applications
	// Signal, when set, can keep codes from being texted to a number that somebody else may have by now: where they would raise a session or approve a payment, and in recoveries.
	Signal Signal
	// Repaired adds to q what follows when a session that was opened for a recovery has bound a, for as long as part from has a row (columns subject and
	// session_id). Package recovery sets it. Nil: there are no such sessions.
	Repaired func(ctx context.Context, q *postgres.Query, from string, session *Session, a factors.Authenticator)
	// Repairing gives an SQL condition on a row of sessions that was opened for a recovery: it can be gone on with. Without it such a session binds nothing, however long it lives by itself. It
	// is set with Repaired.
	Repairing func(session string) string
}

// Cookie is the value of a browser's session cookie; it prints as nothing.
type Cookie string

// String keeps the cookie out of logs.
func (Cookie) String() string { return "[secret]" }

func (c Cookie) hash() []byte {
	sum := sha256.Sum256([]byte(c))
	return sum[:]
}

// Progress is a sign-in after a step, with what is due next.
type Progress struct {
	SignIn   *SignIn
	Decision Decision
	// Cookie to set. Empty: the browser keeps the one it has.
	Cookie Cookie
	// Remember is set by whoever calls [Service.Answer] for a person who wants this browser remembered. Where the decision is not that it may be, nothing comes of it.
	Remember bool
	// Browser is the cookie that this browser is remembered by: the one it sent, for [Service.Answer], and then the one to set; empty: nothing to set.
	Browser Cookie
	// Asked is the authenticator that this step has opened a challenge for. uuid.Nil: it opened none.
	Asked uuid.UUID
}

// Beginning is what an application asked for.
type Beginning struct {
	RelyingParty RelyingParty
	Requirement  Requirement
	Payload      []byte
	Locales      string
	LoginHint    string
}

// StoredColumns are those that [Service.Stored] selects.
const StoredColumns = "relying_party, requirement, payload, locales, login_hint"

// Stored is an SQL query for b as it is stored, with [StoredColumns]: for requests that wait to be begun.
func (s *Service) Stored(q *postgres.Query, b *Beginning) (string, error) {
	rp, err := json.Marshal(b.RelyingParty)
	if err != nil {
		return "", err
	}
	required, err := json.Marshal(b.Requirement)
	if err != nil {
		return "", err
	}
	var hint []byte
	if b.LoginHint != "" {
		if hint, err = s.Keys.Seal([]byte(b.LoginHint), hintContext(&b.RelyingParty)); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("SELECT %s AS relying_party, %s AS requirement, %s AS payload, %s AS locales, %s AS login_hint",
		q.Bind(string(rp))+"::jsonb", q.Bind(string(required))+"::jsonb", q.Bind(b.Payload)+"::bytea", q.Bind(b.Locales)+"::text", q.Bind(hint)+"::bytea"), nil
}

// hintContext is what a login hint is sealed for.
func hintContext(rp *RelyingParty) string { return "login hint of " + rp.ID }

// Begin stores a sign-in and says what is due, in one round trip. A browser without a live session gets a new one, unless the
// request is silent: then nothing is stored, and the progress has no sign-in.
func (s *Service) Begin(ctx context.Context, cookie Cookie, b Beginning) (*Progress, error) {
	q := new(postgres.Query)
	asked, err := s.Stored(q, &b)
	if err != nil {
		return nil, err
	}
	return s.BeginStored(ctx, q, asked, cookie)
}

// BeginStored is [Service.Begin] for a request that asked, an SQL query with [StoredColumns], gives. If it gives none nothing is stored, and the progress has
// no sign-in.
func (s *Service) BeginStored(ctx context.Context, q *postgres.Query, asked string, cookie Cookie) (*Progress, error) {
	id, sessionID, token := uuid.New(), uuid.New(), Cookie(keyring.Token())
	q.With("asked", asked)
	const silent = "coalesce((asked.requirement->>'silent')::bool, false)"
	hash := q.Bind(cookie.hash()) + "::bytea"
	q.With("session_found", fmt.Sprintf(`
		UPDATE sessions SET last_seen_at = %s FROM asked WHERE token_hash = %s AND recovery_id IS NULL AND %s RETURNING sessions.*`,
		seenSQL(silent), hash, s.alive(q, "sessions")))
	q.With("session_made", fmt.Sprintf(`
		INSERT INTO sessions (id, token_hash, sid) SELECT %s, %s, %s FROM asked
		 WHERE NOT EXISTS (SELECT FROM session_found) AND NOT %s RETURNING *`,
		q.Bind(sessionID)+"::uuid", q.Bind(token.hash())+"::bytea", q.Bind(uuid.NewString())+"::text", silent))
	q.With("s", "SELECT * FROM session_found UNION ALL SELECT * FROM session_made")
	// Where there are payment accounts, a browser that was left alone is somebody else's until the opposite is proved. The part sees the time before this request.
	q.With("session_idle", fmt.Sprintf(`
		SELECT 1 FROM sessions, asked WHERE token_hash = %s AND (asked.relying_party->>'payment_account')::bool
		   AND last_seen_at <= wall() - make_interval(secs => %s)`, hash, q.Bind(s.Config.PaymentIdle.Seconds())+"::float8"))
	q.With("si", fmt.Sprintf(`
		INSERT INTO sign_ins (id, expires_at, session_id, relying_party, requirement, payload, locales, login_hint)
		SELECT %s, wall() + make_interval(secs => %s), s.id, asked.relying_party,
		       CASE WHEN EXISTS (SELECT FROM session_idle) THEN asked.requirement || '{"fresh": true}' ELSE asked.requirement END,
		       asked.payload, asked.locales, asked.login_hint FROM s, asked RETURNING *`,
		q.Bind(id)+"::uuid", q.Bind(s.Config.SignIn.Seconds())+"::float8"))
	q.Finally("SELECT " + s.columns(q) + " FROM si, s")
	signIn, err := s.read(ctx, q)
	if errors.Is(err, ErrSignInOver) { // silent, and nobody is signed in; or there is no such request
		return &Progress{Decision: Decision{Step: StepFail, Failure: LoginRequired}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("begin sign-in: %w", err)
	}
	if signIn.Session.ID != sessionID {
		token = ""
	}
	return &Progress{SignIn: signIn, Decision: s.Decide(signIn), Cookie: token}, nil
}

// Load reads a sign-in of this browser, in one round trip.
func (s *Service) Load(ctx context.Context, cookie Cookie, id uuid.UUID) (*Progress, error) {
	q := new(postgres.Query)
	q.Finally("SELECT " + s.columns(q) + s.live(q, cookie, id))
	signIn, err := s.read(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("load sign-in: %w", err)
	}
	return &Progress{SignIn: signIn, Decision: s.Decide(signIn)}, nil
}

// Decide asks [Decide] about a sign-in as it was read.
func (s *Service) Decide(in *SignIn) Decision {
	_, consent := in.NeedsConsent()
	policy := s.Config.Policy
	policy.Fresh = s.Config.Fresh
	return Decide(in.Now, &in.Session, in.ID, &in.RelyingParty, &in.Requirement, consent, policy)
}

// Password tries a password. session is the one that the form was made for; uuid.Nil: that of the cookie, whichever it is. Where the decision is that the same person is asked [Decision.Again], name is ignored.
// Its errors are [ErrWrongPair], a [LockedError], [ErrOverloaded], [ErrSignInOver] and [ErrNotThisStep].
//
// The attempt is paid, for the name and for the address, before the password is looked at, and given back if it was not looked at after all. A
// right one gives the session a new cookie; if a factor is due, its challenge and message are stored in the same statement.
func (s *Service) Password(ctx context.Context, cookie Cookie, session, id uuid.UUID, name, password, locale string) (*Progress, error) {
	return s.PasswordFrom(ctx, cookie, "", session, id, name, password, locale)
}

// PasswordFrom is [Service.Password] in a browser that was remembered, by its other cookie. Whoever has both may be spared the factor.
func (s *Service) PasswordFrom(ctx context.Context, cookie, browser Cookie, session, id uuid.UUID, name, password, locale string) (*Progress, error) {
	canonical, err := Canonical(name)
	if err != nil || !usable(password) {
		canonical = "" // counted and refused like any other name that does not exist
	}
	tried, err := s.payPassword(ctx, cookie, browser, session, id, canonical)
	if err != nil {
		return nil, err
	}
	hash := tried.hash
	if tried.disabled || canonical == "" && !tried.again {
		hash = "" // costs the same, matches nothing
	}
	right, updated, err := s.Passwords.check(ctx, hash, password)
	if err != nil {
		return nil, errors.Join(err, s.refund(ctx, tried, err))
	}
	if !right || !usable(password) {
		return nil, errors.Join(ErrWrongPair, s.recordWrong(ctx, tried))
	}
	return s.passPassword(ctx, cookie, browser, tried, updated, locale)
}

// triedPassword is what the paying statement found.
type triedPassword struct {
	signIn     *SignIn
	again      bool
	subscriber uuid.UUID
	subject    string
	username   string
	groups     []string
	hash       string
	disabled   bool
	bound      []factors.Authenticator
	browser    recognised
	key        []byte // what the failure was counted under
	failures   int    // in a row, with this one; 0: it was not counted
}

func (s *Service) payPassword(ctx context.Context, cookie, browser Cookie, session, id uuid.UUID, canonical string) (*triedPassword, error) {
	// Whether the name on the page or the one of the session counts depends on the sign-in, which this statement reads too.
	fingerprint := s.Keys.Fingerprint("identifier", canonical)
	q := new(postgres.Query)
	q.With("attempt", fmt.Sprintf("SELECT %s %s AND s.id = coalesce(%s, s.id)", s.columns(q), s.live(q, cookie, id), q.Bind(optional(session))+"::uuid"))
	q.With("found", fmt.Sprintf(`
		SELECT u.* FROM attempt a, subscribers u
		 WHERE u.id = CASE WHEN a.subscriber_id IS NOT NULL AND coalesce(a.requirement->>'subject', a.subject) = a.subject
		                   THEN a.subscriber_id ELSE (SELECT subscriber_id FROM identifiers WHERE fingerprint = %s) END`,
		q.Bind(fingerprint)+"::bytea"))
	remembered, copied := recognise(q, "f.id", browser)
	q.With("recognised", fmt.Sprintf("SELECT %s AS id, %s AS copied FROM attempt LEFT JOIN found f ON true", remembered, copied))
	// Where this very person gave the right password before, in this session or as the owner of a remembered browser, failures are counted apart: whoever fails
	// elsewhere under their name does not shut them out here, and whoever holds their browser has no more tries for it.
	q.With("tried", fmt.Sprintf(`
		SELECT CASE WHEN a.subscriber_id = f.id THEN uuid_send(a.session_id) WHEN r.id IS NOT NULL AND NOT r.copied THEN uuid_send(r.id)
		            ELSE coalesce(uuid_send(f.id), %s) END AS key
		  FROM attempt a CROSS JOIN recognised r LEFT JOIN found f ON true`, q.Bind(fingerprint)+"::bytea"))
	limits.Take(q, "attempt", s.sourceHit(ctx)...)
	q.With("open", "SELECT key FROM tried, limit_taken WHERE allowed")
	failures := s.Config.Failures
	failures.Tightly = "EXISTS (SELECT FROM attempt WHERE (relying_party->>'payment_account')::bool)"
	failures.Pay(q, "open", "open.key")
	q.With("refused", "SELECT key FROM tried WHERE NOT EXISTS (SELECT FROM streak_paid)")
	audit.Record(ctx, q, "refused", audit.Event{Name: "password.check", Outcome: audit.Refused, Actor: "subscriber"},
		audit.Expressions{
			"reason":  "CASE WHEN (SELECT allowed FROM limit_taken) THEN 'blocked' ELSE 'source_limit' END",
			"subject": "(SELECT id FROM found)", "session_id": "(SELECT session_id FROM attempt)",
		})
	q.Finally(fmt.Sprintf(`
		SELECT a.*, t.key AS counted, r.id AS browser_id, r.copied AS browser_copied, f.id AS found_id, f.username AS found_name, f.subject AS found_subject, f.groups AS found_groups, f.password_hash, f.disabled_at IS NOT NULL AS disabled,
		       %s AS found_bound, (SELECT failures FROM streak_paid) AS failures,
		       (SELECT allowed FROM limit_taken) AS source_allowed, (SELECT retry_at FROM limit_taken) AS source_retry_at,
		       %s AS blocked_until
		  FROM attempt a, tried t, recognised r LEFT JOIN found f ON true`,
		factors.BoundSQL("f.id"), s.Config.Failures.BlockedUntil(q, "t.key")))
	var row struct {
		signInRow
		Counted       []byte         `db:"counted"`
		FoundID       *uuid.UUID     `db:"found_id"`
		FoundName     *string        `db:"found_name"`
		FoundSubject  *string        `db:"found_subject"`
		FoundGroups   pq.StringArray `db:"found_groups"`
		PasswordHash  *string        `db:"password_hash"`
		Disabled      *bool          `db:"disabled"`
		BrowserID     *uuid.UUID     `db:"browser_id"`
		BrowserCopied bool           `db:"browser_copied"`
		FoundBound    []byte         `db:"found_bound"`
		Failures      *int           `db:"failures"`
		SourceAllowed bool           `db:"source_allowed"`
		SourceRetryAt *time.Time     `db:"source_retry_at"`
		BlockedUntil  *time.Time     `db:"blocked_until"`
	}
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrSignInOver
	} else if err != nil {
		return nil, fmt.Errorf("pay for a password: %w", err)
	}
	signIn, err := s.signIn(ctx, &row.signInRow)
	if err != nil {
		return nil, err
	}
	decision := s.Decide(signIn)
	tried := &triedPassword{signIn: signIn, again: decision.Again, key: row.Counted}
	if row.Failures != nil {
		tried.failures = *row.Failures
	}
	switch {
	case decision.Step != StepPassword:
		if row.SourceAllowed {
			return nil, errors.Join(ErrNotThisStep, s.refund(ctx, tried, nil))
		}
		return nil, ErrNotThisStep
	case !row.SourceAllowed:
		locked := &LockedError{Source: true}
		if row.SourceRetryAt != nil {
			locked.Until = *row.SourceRetryAt
		}
		return nil, locked
	case tried.failures == 0:
		locked := new(LockedError)
		if row.BlockedUntil != nil {
			locked.Until = *row.BlockedUntil
		}
		return nil, locked
	}
	if row.FoundID != nil {
		tried.subscriber, tried.subject, tried.username, tried.disabled = *row.FoundID, *row.FoundSubject, *row.FoundName, *row.Disabled
		tried.groups = row.FoundGroups
		if row.BrowserID != nil {
			tried.browser = recognised{*row.BrowserID, row.BrowserCopied}
		}
		if row.PasswordHash != nil {
			tried.hash = *row.PasswordHash
		}
		if tried.bound, err = s.Ledger.DecodeBound(row.FoundBound); err != nil {
			return nil, err
		}
	}
	return tried, nil
}

// refundTimeout bounds a statement that nobody waits for any more.
const refundTimeout = 5 * time.Second

// refund gives back what was paid for a password that was not looked at because of cause. That the caller has gone is no reason to keep it.
func (s *Service) refund(ctx context.Context, tried *triedPassword, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refundTimeout)
	defer cancel()
	q := new(postgres.Query)
	q.With("untried", "SELECT 1")
	if tried.failures > 0 {
		s.Config.Failures.Refund(q, "untried", q.Bind(tried.key)+"::bytea", tried.failures)
	}
	limits.Refund(q, "untried", s.sourceHit(ctx)...)
	if errors.Is(cause, ErrOverloaded) {
		audit.Record(ctx, q, "untried", audit.Event{Name: "password.check", Outcome: audit.Refused, Reason: "overloaded", Actor: "subscriber",
			Subject: tried.subscriber, Client: tried.signIn.RelyingParty.ID, Session: tried.signIn.Session.ID}, nil)
	}
	q.Finally("SELECT 1")
	if _, err := s.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("refund a password: %w", err)
	}
	return nil
}

func (s *Service) recordWrong(ctx context.Context, tried *triedPassword) error {
	q := new(postgres.Query)
	q.With("wrong", "SELECT 1")
	reason := "wrong"
	if tried.disabled {
		reason = "disabled"
	}
	audit.Record(ctx, q, "wrong", audit.Event{Name: "password.check", Outcome: audit.Refused, Reason: reason, Actor: "subscriber",
		Subject: tried.subscriber, Client: tried.signIn.RelyingParty.ID, Session: tried.signIn.Session.ID}, nil)
	if tried.subscriber != uuid.Nil && !tried.disabled {
		failures := s.Config.Failures
		if tried.signIn.RelyingParty.PaymentAccount {
			failures.Limit = failures.Tight
		}
		q.With("wrong_stage", fmt.Sprintf("SELECT %s AS subject, %s AS stage, %s AS until", q.Bind(tried.subscriber)+"::uuid",
			failures.Stage(q.Bind(tried.failures)+"::int"), failures.BlockedUntil(q, q.Bind(tried.key)+"::bytea")))
		q.With("wrong_told", "SELECT subject, stage, until FROM wrong_stage WHERE stage IS NOT NULL")
		s.Notices.WarnPassword(ctx, q, "wrong_told")
	}
	q.Finally("SELECT 1")
	if _, err := s.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("record a wrong password: %w", err)
	}
	return nil
}

func (s *Service) passPassword(ctx context.Context, cookie, browser Cookie, tried *triedPassword, updated, locale string) (*Progress, error) {
	in, token := *tried.signIn, Cookie(keyring.Token())
	event := Event{At: in.Now, Strength: Knowledge, AMR: []string{"pwd"}, SignInID: in.ID}
	stranger := in.Session.Subscriber != uuid.Nil && in.Session.Subscriber != tried.subscriber
	if stranger {
		in.Session = Session{ID: uuid.New(), SID: uuid.NewString(), Source: in.Session.Source}
	}
	in.Session.Subscriber, in.Session.Subject, in.Session.Username, in.Session.Groups = tried.subscriber, tried.subject, tried.username, tried.groups
	in.Session.Events = append(in.Session.Events, event)
	s.offer(&in, tried.bound)
	decision, known := s.recognise(&in, tried.browser)
	agent, err := s.sealAgent(ctx, "session", in.Session.ID)
	if err != nil {
		return nil, err
	}

	q := new(postgres.Query)
	hash, subscriber := q.Bind(token.hash())+"::bytea", q.Bind(tried.subscriber)+"::uuid"
	// Hashing takes a while. The row is held, so that whoever replaces the password or shuts the account either comes first and is seen
	// here, or comes later and sees this session. A session is locked after its subscriber, as there.
	lock := "SHARE"
	if updated != "" {
		lock = "NO KEY UPDATE"
	}
	q.With("unchanged", fmt.Sprintf("SELECT id FROM subscribers WHERE id = %s AND disabled_at IS NULL AND password_hash = %s FOR %s", subscriber, q.Bind(tried.hash)+"::text", lock))
	q.With("attempt", "SELECT si.id, s.id AS session_id"+s.live(q, cookie, in.ID)+" AND EXISTS (SELECT FROM unchanged) FOR UPDATE OF s")
	if stranger { // another person at the same browser: another session
		q.With("session_left", `UPDATE sessions SET ended_at = wall(), end_reason = 'replaced' FROM attempt WHERE sessions.id = attempt.session_id`)
		q.With("session_passed", fmt.Sprintf(`
			INSERT INTO sessions (id, token_hash, sid, subscriber_id, agent) SELECT %s, %s, %s, %s, %s FROM attempt RETURNING id`,
			q.Bind(in.Session.ID)+"::uuid", hash, q.Bind(in.Session.SID)+"::text", subscriber, q.Bind(agent)+"::bytea"))
	} else {
		q.With("session_passed", fmt.Sprintf(`
			UPDATE sessions SET token_hash = %s, subscriber_id = %s, agent = %s, created_at = wall(), last_seen_at = wall()
			  FROM attempt WHERE sessions.id = attempt.session_id AND coalesce(subscriber_id, %[2]s) = %[2]s RETURNING sessions.id`, hash, subscriber, q.Bind(agent)+"::bytea"))
	}
	s.addEvent(q, "session_passed", event)
	recognised, next := "false", Cookie("")
	switch {
	case known != nil:
		next = Cookie(keyring.Token())
		useBrowser(ctx, q, "session_passed", *known, tried.subscriber, browser, next)
		recognised = "EXISTS (SELECT FROM browser_used)"
	case tried.browser.copied:
		dropCopied(ctx, q, "session_passed", tried.browser.id, tried.subscriber)
	}
	s.Config.Failures.Clear(q, "session_passed", q.Bind(tried.key)+"::bytea")
	limits.Refund(q, "session_passed", s.sourceHit(ctx)...)
	if updated != "" {
		q.With("rehashed", fmt.Sprintf("UPDATE subscribers u SET password_hash = %s FROM unchanged WHERE u.id = unchanged.id AND EXISTS (SELECT FROM session_passed)", q.Bind(updated)+"::text"))
	}
	audit.Record(ctx, q, "session_passed", audit.Event{Name: "password.check", Outcome: audit.Success, Actor: "subscriber",
		Subject: tried.subscriber, Client: in.RelyingParty.ID, Session: in.Session.ID}, nil)
	q.With("outdated", "SELECT 1 WHERE NOT EXISTS (SELECT FROM unchanged)")
	audit.Record(ctx, q, "outdated", audit.Event{Name: "password.check", Outcome: audit.Refused, Reason: "outdated", Actor: "subscriber",
		Subject: tried.subscriber, Client: in.RelyingParty.ID, Session: tried.signIn.Session.ID}, nil)
	var challenge uuid.UUID
	asked := uuid.Nil
	if decision.Step == StepFactor {
		a, err := s.pick(&in.Session, decision, uuid.Nil)
		if err != nil {
			return nil, err
		}
		asked = a.ID
		binding, held := s.binding(&in, decision), false
		if binding.Purpose == factors.StepUp {
			if held, err = s.HeldBack(ctx, tried.subscriber, a); err != nil {
				return nil, err
			}
		}
		if !held { // else nothing is sent, and whoever asks for it is told why
			if challenge, err = s.Ledger.Open(ctx, q, "session_passed", a, binding, prompt(&in, locale)); err != nil {
				return nil, err
			}
		}
	}
	before := tried.failures - 1 // without this one
	q.With("sign_in_moved", fmt.Sprintf(`
		UPDATE sign_ins SET session_id = %s, challenge_id = %s, failures = %s FROM session_passed WHERE sign_ins.id = %s RETURNING sign_ins.failures`,
		q.Bind(in.Session.ID)+"::uuid", q.Bind(optional(challenge))+"::uuid", q.Bind(before)+"::int", q.Bind(in.ID)+"::uuid"))
	if challenge == uuid.Nil && !tried.again {
		q.With("signed_in", fmt.Sprintf("SELECT %s AS subject FROM sign_in_moved WHERE failures >= %d", subscriber, suspicious))
		s.Notices.Add(ctx, q, "signed_in", notices.Event{Kind: notices.SignInAfterFailures}, nil)
	}
	q.Finally("SELECT (SELECT wall() FROM session_passed) AS passed_at, EXISTS (SELECT FROM outdated) AS outdated, " + recognised + " AS recognised")
	var got struct {
		PassedAt   *time.Time `db:"passed_at"`
		Outdated   bool       `db:"outdated"`
		Recognised bool       `db:"recognised"`
	}
	switch err := s.DB.Get(ctx, &got, q); {
	case err != nil:
		return nil, fmt.Errorf("pass a password: %w", err)
	case got.Outdated:
		return nil, ErrWrongPair // replaced, or the account shut, while it was being checked
	case got.PassedAt == nil:
		return nil, ErrSignInOver // ended in another tab meanwhile
	}
	in.Now = *got.PassedAt
	if known != nil && !got.Recognised { // forgotten meanwhile
		in.Session.Events = in.Session.Events[:len(in.Session.Events)-1]
		decision, next = s.Decide(&in), ""
	}
	return &Progress{SignIn: &in, Decision: decision, Cookie: token, Browser: next, Asked: asked}, nil
}

// Code tries an answer on the sign-in's challenge. Its errors are [factors.ErrMismatch], [factors.ErrOver], a
// [factors.BlockedError], the factors.ErrCode… of what was typed, [ErrSignInOver] and [ErrNotThisStep].
func (s *Service) Code(ctx context.Context, cookie Cookie, id uuid.UUID, typed string) (*Progress, error) {
	p, err := s.Load(ctx, cookie, id)
	if err != nil {
		return nil, err
	}
	return s.Answer(ctx, cookie, p, typed)
}

// suspicious is how many wrong passwords or codes in a row make a sign-in something to tell its person of.
const suspicious = 5

// Answer is [Service.Code] for a sign-in that was just loaded. Where nothing was asked yet and the answer can be had without being asked for, as from an
// app, the challenge is opened first.
func (s *Service) Answer(ctx context.Context, cookie Cookie, p *Progress, typed string) (*Progress, error) {
	in := p.SignIn
	a, factor, err := s.challenged(p)
	if err != nil {
		return nil, err
	}
	answer, err := factor.Parse(typed)
	if err != nil {
		return nil, err
	}
	if in.Challenge == nil {
		if err := s.ask(ctx, cookie, p, a, ""); err != nil {
			return nil, err
		}
	}
	token := Cookie(keyring.Token())
	event := Event{At: in.Now, Strength: strength(factor), Kind: a.Kind, AMR: factor.AMR(), AuthenticatorID: a.ID, SignInID: in.ID}
	var browser *newBrowser
	if p.Remember && p.Decision.Rememberable {
		if browser, err = s.newBrowser(ctx); err != nil {
			return nil, err
		}
	}
	at, err := s.Ledger.Answer(ctx, in.Challenge.ID, a, s.binding(in, p.Decision), answer, func(q *postgres.Query, won string) string {
		q.With("session_raised", fmt.Sprintf(`
			UPDATE sessions SET token_hash = %s, last_seen_at = wall() FROM %s
			 WHERE sessions.id = %s AND token_hash = %s AND ended_at IS NULL AND subscriber_id = %s.subject
			RETURNING sessions.id, sessions.subscriber_id, sessions.created_at`,
			q.Bind(token.hash())+"::bytea", won, q.Bind(in.Session.ID)+"::uuid", q.Bind(cookie.hash())+"::bytea", won))
		s.addEvent(q, "session_raised", event)
		if a.Left != nil {
			s.Notices.Add(ctx, q, "challenge_used", notices.Event{Kind: notices.BackupCodeUsed}, notices.Expressions{"hint": "challenge_used.answers_left::text"})
		}
		if browser != nil {
			s.remember(ctx, q, "session_raised", browser, p.Browser)
		}
		if !p.Decision.Raises { // or else the person had been here already
			q.With("signed_in", fmt.Sprintf(`SELECT %[1]s.subject FROM %[1]s, session_raised, sign_ins si
				 WHERE si.id = %[2]s AND (si.failures >= %[3]d OR %[4]s >= %[3]d)`, won, q.Bind(in.ID)+"::uuid", suspicious, s.Ledger.FailuresSQL(q, won+".subject")))
			s.Notices.Add(ctx, q, "signed_in", notices.Event{Kind: notices.SignInAfterFailures}, nil)
		}
		return "(SELECT to_jsonb(wall()) FROM session_raised)"
	})
	if err != nil {
		return nil, err
	}
	if len(at) == 0 || json.Unmarshal(at, &in.Now) != nil {
		return nil, ErrSignInOver // the session ended between the two statements
	}
	event.At = in.Now
	in.Session.Events = append(in.Session.Events, event)
	next := &Progress{SignIn: in, Decision: s.Decide(in), Cookie: token}
	if browser != nil {
		next.Browser = browser.token
	}
	return next, nil
}

// recognise decides about a sign-in whose browser says that it is remembered. known is the event that the decision then rests on; nil: it rests on none.
func (s *Service) recognise(in *SignIn, browser recognised) (d Decision, known *Event) {
	without := len(in.Session.Events)
	if browser.id != uuid.Nil && !browser.copied {
		in.Session.Events = append(in.Session.Events, Event{At: in.Now, Strength: Recognised, Kind: BrowserKind, AMR: []string{browserAMR}, AuthenticatorID: browser.id, SignInID: in.ID})
	}
	if d = s.Decide(in); d.Browser != nil && len(in.Session.Events) > without {
		return d, &in.Session.Events[without]
	}
	in.Session.Events = in.Session.Events[:without]
	return d, nil
}

// prompt says for whom a code of the sign-in is made.
func prompt(in *SignIn, locale string) factors.Prompt {
	to := factors.Prompt{Locale: locale, App: in.RelyingParty.AppHash}
	if in.RelyingParty.PaymentAccount {
		to.Life = paymentLife
	}
	return to
}

// paymentLife bounds codes at applications with payment accounts.
const paymentLife = 5 * time.Minute

// Resend sends the challenge's code again. Its errors are [factors.ErrOver], a [factors.WaitError], [ErrSignInOver] and [ErrNotThisStep].
func (s *Service) Resend(ctx context.Context, cookie Cookie, id uuid.UUID, locale string) error {
	p, err := s.Load(ctx, cookie, id)
	if err != nil {
		return err
	}
	a, _, err := s.challenged(p)
	if err != nil {
		return err
	}
	return s.Ledger.Resend(ctx, p.SignIn.Challenge.ID, a, s.binding(p.SignIn, p.Decision), prompt(p.SignIn, locale))
}

// Choose asks for another authenticator of the subscriber, or for the same one anew: the challenge in flight ends. Its errors are those
// of [Service.Load], [ErrNotThisStep] and [ErrHeldBack].
func (s *Service) Choose(ctx context.Context, cookie Cookie, id, authenticator uuid.UUID, locale string) (*Progress, error) {
	p, err := s.Load(ctx, cookie, id)
	if err != nil {
		return nil, err
	}
	if p.Decision.Step != StepFactor {
		return nil, ErrNotThisStep
	}
	a, err := s.pick(&p.SignIn.Session, p.Decision, authenticator)
	if err != nil {
		return nil, err
	}
	return p, s.ask(ctx, cookie, p, a, locale)
}

// ask opens a challenge for a. Of it p then knows what identifies it, and no more.
func (s *Service) ask(ctx context.Context, cookie Cookie, p *Progress, a factors.Authenticator, locale string) error {
	binding := s.binding(p.SignIn, p.Decision)
	if binding.Purpose == factors.StepUp {
		if held, err := s.HeldBack(ctx, p.SignIn.Session.Subscriber, a); err != nil {
			return err
		} else if held {
			return ErrHeldBack
		}
	}
	q := new(postgres.Query)
	q.With("chosen", "SELECT si.id"+s.live(q, cookie, p.SignIn.ID))
	challenge, err := s.Ledger.Open(ctx, q, "chosen", a, binding, prompt(p.SignIn, locale))
	if err != nil {
		return err
	}
	q.With("sign_in_moved", fmt.Sprintf("UPDATE sign_ins SET challenge_id = %s FROM chosen WHERE sign_ins.id = chosen.id", q.Bind(challenge)+"::uuid"))
	q.Finally("SELECT 1 FROM chosen")
	n, err := s.DB.Run(ctx, q)
	switch {
	case err != nil:
		return fmt.Errorf("choose an authenticator: %w", err)
	case n == 0:
		return ErrSignInOver
	}
	p.SignIn.Challenge = &factors.State{ID: challenge, AuthenticatorID: a.ID, Kind: a.Kind, Purpose: binding.Purpose}
	p.Asked = a.ID
	return nil
}

// Consent records what a person allows: scopes that were asked for and no others.
func (s *Service) Consent(ctx context.Context, cookie Cookie, id uuid.UUID) (*Progress, error) {
	p, err := s.Load(ctx, cookie, id)
	if err != nil {
		return nil, err
	}
	if p.Decision.Step != StepConsent {
		return nil, ErrNotThisStep
	}
	in := p.SignIn
	q := new(postgres.Query)
	scopes := q.Bind(pq.Array(in.Requirement.Scopes)) + "::text[]"
	q.With("attempt", "SELECT si.id, s.subscriber_id"+s.live(q, cookie, id)+" AND s.subscriber_id = "+q.Bind(in.Session.Subscriber)+"::uuid")
	q.With("allowed", fmt.Sprintf("UPDATE sign_ins SET consented = %s FROM attempt WHERE sign_ins.id = attempt.id RETURNING attempt.subscriber_id", scopes))
	q.With("kept", fmt.Sprintf(`
		INSERT INTO consents AS c (subscriber_id, relying_party, scopes) SELECT subscriber_id, %s, %s FROM allowed
		ON CONFLICT (subscriber_id, relying_party) DO UPDATE
		   SET scopes = (SELECT array_agg(DISTINCT x) FROM unnest(c.scopes || excluded.scopes) x), granted_at = wall()`,
		q.Bind(in.RelyingParty.ID)+"::text", scopes))
	audit.Record(ctx, q, "allowed", audit.Event{Name: "consent.give", Outcome: audit.Success, Actor: "subscriber",
		Subject: in.Session.Subscriber, Client: in.RelyingParty.ID, Session: in.Session.ID}, nil)
	q.Finally("SELECT 1 FROM allowed")
	n, err := s.DB.Run(ctx, q)
	switch {
	case err != nil:
		return nil, fmt.Errorf("record consent: %w", err)
	case n == 0:
		return nil, ErrSignInOver
	}
	in.Consented = in.Requirement.Scopes
	p.Decision = s.Decide(in)
	return p, nil
}

// Complete adds part `sign_in_done` to q: the sign-in is finished, once, if its session is still what it was when in was read. What the
// application is given must select from it. The part has columns id, session_id, subscriber_id and sid.
func (s *Service) Complete(q *postgres.Query, in *SignIn, cookie Cookie) {
	s.complete(q, in, cookie, "")
}

// complete is [Service.Complete] where condition, that begins with AND, holds as well.
func (s *Service) complete(q *postgres.Query, in *SignIn, cookie Cookie, condition string) {
	id, subscriber := q.Bind(in.Session.ID)+"::uuid", q.Bind(in.Session.Subscriber)+"::uuid"
	// Held for the same reason as where a password passes: what is given now ends with everything else that is ended later.
	q.With("session_stands", fmt.Sprintf("SELECT s.id FROM sessions s JOIN subscribers u ON u.id = s.subscriber_id WHERE s.id = %s AND u.id = %s AND %s FOR SHARE OF u",
		id, subscriber, stands("u", "s.created_at")))
	q.With("session_kept", fmt.Sprintf(`
		UPDATE sessions SET last_seen_at = %s WHERE id = %s AND token_hash = %s AND subscriber_id = %s AND %s AND EXISTS (SELECT FROM session_stands) %s
		RETURNING id, subscriber_id, sid`,
		seenSQL(q.Bind(in.Requirement.Silent)+"::bool"), id, q.Bind(cookie.hash())+"::bytea", subscriber, s.alive(q, "sessions"), condition))
	q.With("sign_in_done", fmt.Sprintf(`
		UPDATE sign_ins SET done_at = wall() FROM session_kept k
		 WHERE sign_ins.id = %s AND sign_ins.session_id = k.id AND done_at IS NULL AND expires_at > wall()
		RETURNING sign_ins.id, k.id AS session_id, k.subscriber_id, k.sid`, q.Bind(in.ID)+"::uuid"))
}

// Cancel ends a sign-in without success: the person went back, or it failed. Its challenge and message end with it.
func (s *Service) Cancel(ctx context.Context, cookie Cookie, in *SignIn, reason string) error {
	q := new(postgres.Query)
	q.With("leaving", "SELECT si.id, s.subscriber_id"+s.live(q, cookie, in.ID))
	q.With("sign_in_done", "UPDATE sign_ins SET done_at = wall() FROM leaving WHERE sign_ins.id = leaving.id")
	s.Ledger.CancelOne(q, "leaving", "(SELECT challenge_id FROM sign_ins x WHERE x.id = leaving.id)")
	audit.Record(ctx, q, "leaving", audit.Event{Name: "sign_in.end", Outcome: audit.Refused, Reason: reason, Actor: "subscriber",
		Subject: in.Session.Subscriber, Client: in.RelyingParty.ID, Session: in.Session.ID}, nil)
	q.Finally("SELECT 1 FROM leaving")
	n, err := s.DB.Run(ctx, q)
	switch {
	case err != nil:
		return fmt.Errorf("cancel sign-in: %w", err)
	case n == 0:
		return ErrSignInOver
	}
	return nil
}

// Current reads who this browser is signed in as. Nobody is a session with Subscriber uuid.Nil.
func (s *Service) Current(ctx context.Context, cookie Cookie) (Session, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`SELECT s.id AS session_id, s.sid, s.subscriber_id, s.recovery_id, s.created_at AS session_created_at,
		(SELECT username FROM subscribers u WHERE u.id = s.subscriber_id) AS username,
		(SELECT subject FROM subscribers u WHERE u.id = s.subscriber_id) AS subject,
		(SELECT groups FROM subscribers u WHERE u.id = s.subscriber_id) AS groups, %s AS events
		FROM sessions s WHERE s.token_hash = %s AND %s`, eventsSQL(), q.Bind(cookie.hash())+"::bytea", s.alive(q, "s")))
	var row sessionRow
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return Session{}, nil
	} else if err != nil {
		return Session{}, fmt.Errorf("read session: %w", err)
	}
	return row.session(ctx)
}

// End adds part `session_ended` to q: the session of this cookie ends, with every challenge of its subscriber in this browser. The
// part has columns id and subscriber_id.
func (s *Service) End(ctx context.Context, q *postgres.Query, cookie Cookie, reason string) {
	s.EndAlone(ctx, q, cookie, reason)
	s.Ledger.CancelBrowser(q, "session_ended", "session_ended.subscriber_id", "uuid_send(session_ended.id)")
}

// EndAlone is [Service.End] for a statement that ends the challenges otherwise.
func (s *Service) EndAlone(ctx context.Context, q *postgres.Query, cookie Cookie, reason string) {
	q.With("session_ended", fmt.Sprintf(`
		UPDATE sessions SET ended_at = wall(), end_reason = %s WHERE token_hash = %s AND ended_at IS NULL RETURNING id, subscriber_id`,
		q.Bind(reason)+"::text", q.Bind(cookie.hash())+"::bytea"))
	audit.Record(ctx, q, "session_ended", audit.Event{Name: "session.end", Outcome: audit.Success, Reason: reason, Actor: "subscriber"},
		audit.Expressions{"subject": "session_ended.subscriber_id", "session_id": "session_ended.id"})
}

// challenged gives the authenticator that the due challenge was made for, or that one can be made for by the way.
func (s *Service) challenged(p *Progress) (factors.Authenticator, factors.Factor, error) {
	if p.Decision.Step != StepFactor {
		return factors.Authenticator{}, nil, ErrNotThisStep
	}
	id := uuid.Nil
	if p.SignIn.Challenge != nil {
		id = p.SignIn.Challenge.AuthenticatorID
	}
	a, err := s.pick(&p.SignIn.Session, p.Decision, id)
	if err != nil {
		return factors.Authenticator{}, nil, factors.ErrOver // unbound meanwhile
	}
	factor, _ := s.Ledger.Factor(a.Kind)
	if _, knows := factor.(factors.Checker); p.SignIn.Challenge == nil && !knows {
		return factors.Authenticator{}, nil, factors.ErrOver // nothing was sent that could be answered
	}
	return a, factor, nil
}

// Way is an authenticator that would do for the step that is due.
type Way struct {
	factors.Authenticator
	Page factors.Page // where it is asked for
	Down bool         // out of order for everybody, at the moment
}

// Ways lists what would do for d, [StepFactor], the last used first.
func (s *Service) Ways(session *Session, d Decision) (ways []Way) {
	for i, a := range session.Bound {
		if factor, ok := s.Ledger.Factor(a.Kind); ok && session.Offers[i] >= d.Strength && !(d.Raises && session.loginOnly(i)) {
			ways = append(ways, Way{Authenticator: a, Page: factors.PageOf(factor), Down: factors.Down(factor)})
		}
	}
	return ways
}

// Due is the way that p's person is on: the one that was asked for last, or else the one that will be. Its error is [ErrNotThisStep].
func (s *Service) Due(p *Progress) (Way, error) {
	ways := s.Ways(&p.SignIn.Session, p.Decision)
	for _, way := range ways {
		if way.ID == p.Asked || p.Asked == uuid.Nil && p.SignIn.Challenge != nil && way.ID == p.SignIn.Challenge.AuthenticatorID {
			return way, nil
		}
	}
	return preferred(ways)
}

// preferred is the first that works, or else the first: what is out of order may work again before somebody has read why.
func preferred(ways []Way) (Way, error) {
	for _, way := range ways {
		if !way.Down {
			return way, nil
		}
	}
	if len(ways) > 0 {
		return ways[0], nil
	}
	return Way{}, ErrNotThisStep
}

// pick finds the authenticator to ask for: the named one, or the one to prefer.
func (s *Service) pick(session *Session, d Decision, id uuid.UUID) (factors.Authenticator, error) {
	ways := s.Ways(session, d)
	if id == uuid.Nil {
		way, err := preferred(ways)
		return way.Authenticator, err
	}
	for _, way := range ways {
		if way.ID == id {
			return way.Authenticator, nil
		}
	}
	return factors.Authenticator{}, ErrNotThisStep
}

func (s *Service) binding(in *SignIn, d Decision) factors.Binding {
	purpose := factors.Login
	if d.Raises {
		purpose = factors.StepUp
	}
	return factors.Binding{Purpose: purpose, Subject: in.Session.Subscriber, Browser: in.Session.ID, Context: in.ID[:], Strict: in.RelyingParty.PaymentAccount}
}

// offer says what the subscriber of a sign-in can be asked for: what is bound, as far as policy takes it.
func (s *Service) offer(in *SignIn, bound []factors.Authenticator) {
	s.weigh(&in.Session, bound)
	c := caseOf(&in.Session, &in.RelyingParty, &in.Requirement)
	ruling := s.Config.Policy.Ruling(&c)
	if in.RelyingParty.Own {
		ruling = ruling.own(&in.Session)
	}
	for i, a := range in.Session.Bound {
		if !ruling.Takes(a.Kind) {
			in.Session.Offers[i] = 0
		}
	}
}

// weigh tells a session what its subscriber has bound, and how strong that is.
func (s *Service) weigh(session *Session, bound []factors.Authenticator) {
	slices.SortStableFunc(bound, func(a, b factors.Authenticator) int { return runsOut(a) - runsOut(b) })
	session.Bound, session.Offers, session.LoginOnly = bound, make([]Strength, len(bound)), make([]bool, len(bound))
	for i, a := range bound {
		factor, ok := s.Ledger.Factor(a.Kind)
		if ok && (a.Left == nil || *a.Left > 0) {
			session.Offers[i] = strength(factor)
		}
		session.LoginOnly[i] = ok && !factors.Serves(factor, factors.StepUp) // also once it has run out: what was proved by it is the same
	}
}

// runsOut puts last what should be kept for the day on which nothing else is at hand.
func runsOut(a factors.Authenticator) int {
	if a.Left != nil {
		return 1
	}
	return 0
}

func strength(f factors.Factor) Strength {
	if f.Restricted() {
		return Restricted
	}
	return Unrestricted
}

func (s *Service) sourceHit(ctx context.Context) []limits.Hit {
	source := audit.From(ctx).Source
	if !source.IsValid() {
		return []limits.Hit{{Window: s.Config.SourceFailures, Key: []byte("unknown")}} // never unlimited
	}
	return []limits.Hit{{Window: s.Config.SourceFailures, Key: limits.SourceKey(source)}}
}

func (s *Service) addEvent(q *postgres.Query, from string, e Event) {
	q.With("session_event", fmt.Sprintf(`
		INSERT INTO session_events (session_id, strength, kind, amr, authenticator_id, sign_in_id)
		SELECT id, %s, %s, %s, %s, %s FROM %s`,
		q.Bind(int64(e.Strength))+"::smallint", q.Bind(e.Kind)+"::text", q.Bind(pq.Array(e.AMR))+"::text[]", q.Bind(optional(e.AuthenticatorID))+"::uuid", q.Bind(e.SignInID)+"::uuid", from))
}

func optional(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id
}
