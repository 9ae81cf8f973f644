package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// channel is what a stored try notifies the workers on.
const channel = "watchword_recovery"

// Beginning is what somebody asks for.
type Beginning struct {
	Kind Kind
	// Name as it was typed. It is ignored where Session says who it is.
	Name string
	// Session is the browser's sign-in session, if it has proved the password; what is begun then knows that. nil: nobody has.
	Session *authn.Session
	// SignIn that the person came from; uuid.Nil: none.
	SignIn  uuid.UUID
	Channel Channel
	Locale  string // BCP 47
}

// Channels that can be asked for. Which of them lead to somebody is not told.
func (e *Engine) Channels() (list []Channel) {
	if len(e.SignIns.Ledger.Reachable()) > 0 {
		list = append(list, Text)
	}
	if e.Mail != nil {
		list = append(list, Mail)
	}
	return list
}

// Begin stores a try, in one round trip that is the same for every name, and gives the browser's cookie. Its errors are [ErrNoWay] and a [LimitError].
func (e *Engine) Begin(ctx context.Context, b Beginning) (Cookie, error) {
	if !slices.Contains(e.Channels(), b.Channel) {
		return "", ErrNoWay
	}
	canonical, err := authn.Canonical(b.Name)
	if err != nil {
		canonical = "" // nobody's
	}
	id, cookie := uuid.New(), Cookie(keyring.Token())
	name := e.Keys.Fingerprint("identifier", canonical)
	subscriber := uuid.Nil
	if b.Session != nil && b.Session.Subscriber != uuid.Nil {
		subscriber = b.Session.Subscriber
		name = e.Keys.Fingerprint("recovery of", subscriber.String())
	}
	q := new(postgres.Query)
	q.With("begun", "SELECT 1")
	limits.Take(q, "begun", limits.Hit{Window: e.Config.Source, Key: sourceKey(ctx)}, limits.Hit{Window: e.Config.Name, Key: name})
	from := audit.From(ctx)
	source := ""
	if from.Source.IsValid() {
		source = from.Source.String()
	}
	q.With("asked", fmt.Sprintf(`
		INSERT INTO recoveries (id, expires_at, kind, name, subscriber_id, knows, state, token_hash, sign_in_id, locale, channel, sends, next_send_at, todo_at, source, request_id)
		SELECT %s, wall() + make_interval(secs => %s), %s, %s, %s, %s, 'asked', %s, %s, %s, %s, 1, wall() + make_interval(secs => %s), wall(), %s, %s
		  FROM limit_taken WHERE allowed RETURNING id, subscriber_id, pg_notify('%s', '')::text`,
		q.Bind(id)+"::uuid", q.Bind(e.Config.Life.Seconds())+"::float8", q.Bind(string(b.Kind))+"::text", q.Bind(name)+"::bytea", q.Bind(optional(subscriber))+"::uuid", q.Bind(subscriber != uuid.Nil)+"::bool",
		q.Bind(cookie.hash())+"::bytea", q.Bind(optional(b.SignIn))+"::uuid", q.Bind(b.Locale)+"::text", q.Bind(string(b.Channel))+"::text", q.Bind(e.Config.Cooldown.Seconds())+"::float8",
		q.Bind(source)+"::text", q.Bind(from.RequestID)+"::text", channel))
	record(ctx, q, "asked", audit.Event{Name: "recovery.ask", Reason: string(b.Kind)}, nil)
	q.With("limited", "SELECT NULL::uuid AS subscriber_id, ''::text AS id WHERE NOT EXISTS (SELECT FROM asked)")
	record(ctx, q, "limited", audit.Event{Name: "recovery.ask", Outcome: audit.Refused, Reason: "limit"}, nil)
	q.Finally("SELECT EXISTS (SELECT FROM asked) AS asked, retry_at, wall() AS now FROM limit_taken")
	var got struct {
		Asked   bool       `db:"asked"`
		RetryAt *time.Time `db:"retry_at"`
		Now     time.Time  `db:"now"`
	}
	if err := e.DB.Get(ctx, &got, q); err != nil {
		return "", fmt.Errorf("begin recovery: %w", err)
	}
	if !got.Asked {
		limited := &LimitError{Now: got.Now}
		if got.RetryAt != nil {
			limited.Until = *got.RetryAt
		}
		return "", limited
	}
	return cookie, nil
}

func sourceKey(ctx context.Context) []byte {
	if source := audit.From(ctx).Source; source.IsValid() {
		return limits.SourceKey(source)
	}
	return []byte("unknown")
}

// Again has the code or the link sent again. It says the same whether or not there is anybody to send to. Its errors are [ErrOver] and a [LimitError], whose time is
// zero when nothing is sent any more.
func (e *Engine) Again(ctx context.Context, cookie Cookie) error {
	q := new(postgres.Query)
	q.With("found", "SELECT id, subscriber_id, next_send_at, sends FROM recoveries WHERE token_hash = "+q.Bind(cookie.hash())+"::bytea AND proofs = '{}' AND created_at > wall() - make_interval(secs => "+q.Bind(e.Config.Life.Seconds())+"::float8) AND (NOT knows OR state NOT IN ('finished', 'canceled'))") // of one that knows nothing it tells nothing, nor that its owner has signed in
	q.With("again", fmt.Sprintf(`
		UPDATE recoveries r SET todo_at = wall(), sends = r.sends + 1, next_send_at = wall() + make_interval(secs => %s * power(2, least(r.sends, 2)))
		  FROM found WHERE r.id = found.id AND r.sends < %s AND (r.next_send_at IS NULL OR r.next_send_at <= wall())
		RETURNING r.id, r.subscriber_id, pg_notify('%s', '')::text`, q.Bind(e.Config.Cooldown.Seconds())+"::float8", q.Bind(e.Config.Sends)+"::int", channel))
	record(ctx, q, "again", audit.Event{Name: "recovery.again"}, nil)
	q.Finally("SELECT EXISTS (SELECT FROM again) AS done, next_send_at, sends >= " + q.Bind(e.Config.Sends) + "::int AS used_up FROM found")
	var got struct {
		Done   bool       `db:"done"`
		At     *time.Time `db:"next_send_at"`
		UsedUp bool       `db:"used_up"`
	}
	switch err := e.DB.Get(ctx, &got, q); {
	case errors.Is(err, postgres.ErrNotFound):
		return ErrOver
	case err != nil:
		return fmt.Errorf("send again: %w", err)
	case got.Done:
		return nil
	}
	limited := new(LimitError)
	if !got.UsedUp && got.At != nil {
		limited.Until = *got.At
	}
	return limited
}

// binding of the challenges of r. The first of a try that knows nothing takes the place of any other such one of the account.
func (e *Engine) binding(r *Recovery) factors.Binding {
	b := factors.Binding{Purpose: factors.Recover, Subject: r.Subscriber, Browser: r.ID, Context: r.ID[:]}
	if !r.Proved() {
		b.Outsider = true
		b.Browser = uuid.NewSHA1(r.Subscriber, []byte("recovery"))
	}
	return b
}

// Grant is what a proof has led to.
type Grant struct {
	Recovery *Recovery
	Cookie   Cookie       // to set
	Session  authn.Cookie // to set, of a session that repairs; "": none
}

// Answer tries an answer to what r's browser was asked. Its errors are [ErrWrong], [ErrTries], [ErrOver], a factors.BlockedError once something was proved, and
// the factors.ErrCode… of what was typed.
func (e *Engine) Answer(ctx context.Context, cookie Cookie, typed string) (*Grant, error) {
	r, err := e.Load(ctx, cookie)
	if err != nil {
		return nil, err
	}
	var a factors.Authenticator
	for _, bound := range r.Bound {
		if bound.ID == r.askedOf {
			a = bound
		}
	}
	stranger := !r.Proved()
	if a.ID == uuid.Nil { // nobody was asked; what follows costs the same
		if !stranger {
			return nil, ErrOver
		}
		a = factors.Authenticator{ID: uuid.New(), Kind: e.SignIns.Ledger.Reachable()[0]}
	}
	factor, ok := e.SignIns.Ledger.Factor(a.Kind)
	if !ok {
		return nil, ErrOver
	}
	answer, err := factor.Parse(typed)
	if err != nil {
		return nil, err
	}
	if stranger {
		if r.Channel != Text || r.Now.After(r.CreatedAt.Add(e.Config.Life)) {
			return nil, ErrOver
		}
		if err := e.try(ctx, r); err != nil {
			return nil, err
		}
	} else if !r.Live() || r.State != Open {
		return nil, ErrOver
	}
	challenge := r.challenge
	if challenge == uuid.Nil {
		challenge = postgres.NewID()
	}
	var g *Grant
	returned, err := e.SignIns.Ledger.Answer(ctx, challenge, a, e.binding(r), answer, func(q *postgres.Query, won string) string {
		g = e.prove(ctx, q, r, "EXISTS (SELECT FROM "+won+")", "r.token_hash = "+q.Bind(cookie.hash())+"::bytea", a.Kind, a.ID)
		return "(SELECT to_jsonb(state) FROM proved)"
	})
	switch {
	case stranger && (errors.Is(err, factors.ErrMismatch) || errors.Is(err, factors.ErrOver) || isBlocked(err)):
		if r.Tries+1 >= e.Config.Tries {
			return nil, ErrTries
		}
		return nil, ErrWrong
	case errors.Is(err, factors.ErrMismatch):
		return nil, errors.Join(ErrWrong, err)
	case errors.Is(err, factors.ErrOver):
		return nil, ErrOver
	case err != nil:
		return nil, err
	}
	var state string
	if json.Unmarshal(returned, &state) != nil || state == "" {
		return nil, ErrOver // it changed between the two statements
	}
	return e.proved(ctx, r, g)
}

func isBlocked(err error) bool {
	_, is := errors.AsType[*factors.BlockedError](err)
	return is
}

// try pays for an answer of somebody who has proved nothing, whoever they claim to be.
func (e *Engine) try(ctx context.Context, r *Recovery) error {
	q := new(postgres.Query)
	id := q.Bind(r.ID) + "::uuid"
	q.With("tried", "UPDATE recoveries SET tries = tries + 1 WHERE id = "+id+" AND tries < "+q.Bind(e.Config.Tries)+"::int AND proofs = '{}' RETURNING id")
	q.With("refused", "SELECT id, subscriber_id FROM recoveries WHERE id = "+id+" AND NOT EXISTS (SELECT FROM tried)")
	record(ctx, q, "refused", audit.Event{Name: "recovery.prove", Outcome: audit.Refused, Reason: "tries"}, nil)
	q.Finally("SELECT EXISTS (SELECT FROM tried)")
	var paid bool
	if err := e.DB.Get(ctx, &paid, q); err != nil {
		return fmt.Errorf("pay for an answer: %w", err)
	}
	if !paid {
		return ErrTries
	}
	return nil
}

// prove adds part `proved` to q: r, as it was read and if it may be gone on with, has proved one more thing if condition holds and it is the one that which, a condition on row r, finds.
// What follows from that follows in the same statement.
func (e *Engine) prove(ctx context.Context, q *postgres.Query, r *Recovery, condition, which, kind string, by uuid.UUID) *Grant {
	g := &Grant{Cookie: Cookie(keyring.Token())}
	verdict, next, life := e.decide(r, kind), Open, e.Config.Life
	if verdict.Enough {
		next, life = Granted, e.Config.Repair
		if r.Kind == Stop {
			next = Finished
		}
	}
	if verdict.Enough && r.Vouched { // still
		condition += " AND EXISTS (SELECT FROM recoveries d WHERE d.subscriber_id = r.subscriber_id AND d.id <> r.id AND " + vouchesSQL + ")"
	}
	proved := []uuid.UUID{}
	if by != uuid.Nil {
		proved = append(proved, by)
	}
	q.With("proved", fmt.Sprintf(`
		UPDATE recoveries r
		   SET proofs = r.proofs || %[1]s, proved_by = r.proved_by || %[2]s, state = %[3]s, token_hash = %[4]s, link_hash = NULL, todo_at = NULL,
		       expires_at = greatest(CASE WHEN %[3]s = 'granted' THEN wall() ELSE r.expires_at END, wall() + make_interval(secs => %[5]s)), ended_at = CASE WHEN %[3]s = 'finished' THEN wall() END
		  FROM subscribers u
		 WHERE r.id = %[6]s AND %[7]s AND r.state = 'open' AND r.ended_at IS NULL AND r.expires_at > wall() AND r.proofs = %[8]s::text[] AND u.id = r.subscriber_id AND %[9]s AND %[10]s
		RETURNING r.id, r.id AS recovery_id, r.subscriber_id, r.kind, r.state`,
		q.Bind(kind)+"::text", uuids(q, proved), q.Bind(string(next))+"::text", q.Bind(g.Cookie.hash())+"::bytea", q.Bind(life.Seconds())+"::float8", q.Bind(r.ID)+"::uuid", which,
		q.Bind(pq.Array(append([]string{}, r.Proofs...))), standsSQL, condition))
	record(ctx, q, "proved", audit.Event{Name: "recovery.prove", Reason: kind}, nil)
	switch next {
	case Finished:
		q.With("stopped", `UPDATE recoveries o SET state = 'canceled', reason = 'stopped', ended_at = wall() FROM proved p
			WHERE o.subscriber_id = p.subscriber_id AND o.id <> p.id AND o.ended_at IS NULL AND o.state <> 'asked' RETURNING o.id, o.subscriber_id, o.kind, o.state`)
		e.closed(ctx, q, "stopped", notices.RecoveryCanceled, "stopped", false)
	case Granted:
		if r.Kind == Access {
			q.With("granted", "SELECT recovery_id, subscriber_id FROM proved WHERE state = 'granted'")
			g.Session = e.SignIns.OpenRepair(ctx, q, "granted")
		}
	}
	return g
}

// closed adds to q what follows when part, with columns id, subscriber_id, kind and state, has ended recoveries.
func (e *Engine) closed(ctx context.Context, q *postgres.Query, part string, kind notices.Kind, reason string, operator bool) {
	actor := "subscriber"
	if operator {
		actor = audit.Operator
	}
	record(ctx, q, part, audit.Event{Name: "recovery.end", Reason: reason, Actor: actor}, nil)
	e.SignIns.EndRepair(q, part, "recovery_ended")
	e.told(ctx, q, part, kind, notices.Event{Operator: operator}, nil)
}

// proved is what a proof has led to, once it is stored.
func (e *Engine) proved(ctx context.Context, r *Recovery, g *Grant) (*Grant, error) {
	after, err := e.Load(ctx, g.Cookie)
	if err != nil {
		return nil, err
	}
	g.Recovery = after
	if after.State == Finished {
		e.observe(r.Kind, Finished)
	}
	return g, nil
}

// Linked reads the recovery that a mailed link is for, without using it up. [ErrOver]: none, any more.
func (e *Engine) Linked(ctx context.Context, token string) (*Recovery, error) {
	q := new(postgres.Query)
	q.Finally("SELECT " + e.columns(q) + " FROM recoveries r JOIN subscribers u ON u.id = r.subscriber_id WHERE r.link_hash = " + q.Bind(hashed(token)) + "::bytea")
	r, err := e.read(ctx, q)
	if err != nil {
		return nil, err
	}
	if !r.Live() || r.State != Open {
		return nil, ErrOver
	}
	return r, nil
}

// Follow uses a mailed link up. The try goes on in the browser that did. Its error is [ErrOver].
func (e *Engine) Follow(ctx context.Context, token string) (*Grant, error) {
	r, err := e.Linked(ctx, token)
	if err != nil {
		return nil, err
	}
	q := new(postgres.Query)
	g := e.prove(ctx, q, r, "true", "r.link_hash = "+q.Bind(hashed(token))+"::bytea", ByMail, uuid.Nil)
	q.Finally("SELECT 1 FROM proved")
	n, err := e.DB.Run(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("follow link: %w", err)
	}
	if n == 0 {
		return nil, ErrOver
	}
	return e.proved(ctx, r, g)
}

// Ask asks for one more proof, which has to be one of [Engine.Ways]. Its errors are [ErrOver], [ErrNoWay] and a [LimitError].
func (e *Engine) Ask(ctx context.Context, cookie Cookie, way uuid.UUID, locale string) error {
	r, err := e.Load(ctx, cookie)
	switch {
	case err != nil:
		return err
	case !r.Live() || !r.Proved() || r.State != Open:
		return ErrOver
	}
	for _, w := range e.Ways(r) {
		if w.ID != way {
			continue
		}
		if !w.Sent {
			return e.open(ctx, r, way, locale)
		}
		c := Mail
		if w.ID != uuid.Nil {
			c = Text
		}
		if until, ok, err := e.room(ctx, r, c); err != nil {
			return err
		} else if !ok {
			return &LimitError{Until: until}
		}
		if c == Mail {
			return e.mail(ctx, r, locale)
		}
		return e.open(ctx, r, way, locale)
	}
	return ErrNoWay
}

// Repeat sends again what r's browser waits for: the first message as [Engine.Again] does, that for a further proof if it can be sent, and a new one where the
// code before is over. Its errors are [ErrOver], [ErrNoWay] and a [LimitError], whose time is zero when nothing is sent any more.
func (e *Engine) Repeat(ctx context.Context, cookie Cookie, locale string) error {
	r, err := e.Load(ctx, cookie)
	if err != nil {
		return err
	}
	if len(r.Proofs) == 0 {
		return e.Again(ctx, cookie)
	}
	way, due := e.Due(r)
	if !due {
		return ErrOver
	}
	if !way.Sent || way.ID == uuid.Nil || r.Challenge == nil || !r.Challenge.Live(r.Now) {
		return e.Ask(ctx, cookie, way.ID, locale)
	}
	i := slices.IndexFunc(r.Bound, func(a factors.Authenticator) bool { return a.ID == way.ID })
	if held, err := e.SignIns.HeldBack(ctx, r.Subscriber, r.Bound[i]); err != nil {
		return err
	} else if held {
		return ErrNoWay
	}
	err = e.SignIns.Ledger.Resend(ctx, r.challenge, r.Bound[i], e.binding(r), factors.Prompt{Locale: locale})
	if early, is := errors.AsType[*factors.WaitError](err); is {
		return &LimitError{Until: early.Until}
	}
	if errors.Is(err, factors.ErrOver) {
		return ErrOver
	}
	return err
}

// SetPassword sets the password that was granted, ends everything else of the account, and the recovery. It signs nobody in and changes no factor. Its errors are [ErrOver],
// authn.ErrOverloaded and those of authn.CheckNewPassword.
func (e *Engine) SetPassword(ctx context.Context, cookie Cookie, password string) error {
	r, err := e.Load(ctx, cookie)
	switch {
	case err != nil:
		return err
	case r.Kind != Password || r.State != Granted || !r.Live():
		return ErrOver
	}
	hash, err := e.newPassword(ctx, r, password)
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	q.With("asking", "SELECT r.id, r.subscriber_id FROM recoveries r WHERE r.id = "+q.Bind(r.ID)+"::uuid AND r.state = 'granted'")
	e.SignIns.Hold(q, "asking", "subscriber_id")
	q.With("finished", fmt.Sprintf(`
		UPDATE recoveries r SET state = 'finished', ended_at = wall() FROM subscriber_held h, subscribers u
		 WHERE r.id = %s AND r.token_hash = %s AND r.state = 'granted' AND r.ended_at IS NULL AND r.expires_at > wall() AND h.id = r.subscriber_id AND u.id = h.id AND %s
		RETURNING r.id, r.subscriber_id, r.kind, r.state`, q.Bind(r.ID)+"::uuid", q.Bind(cookie.hash())+"::bytea", standsSQL))
	e.SignIns.ResetPassword(ctx, q, "finished", hash, r.Proofs)
	e.SignIns.EndAll(q, "password_reset", uuid.Nil, "password_changed")
	e.ended(ctx, q, "finished")
	record(ctx, q, "finished", audit.Event{Name: "recovery.end", Reason: string(Finished)}, nil)
	e.told(ctx, q, "finished", notices.RecoveryFinished, notices.Event{}, nil)
	q.Finally("SELECT 1 FROM finished")
	n, err := e.DB.Run(ctx, q)
	if err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	if n == 0 {
		return ErrOver
	}
	e.observe(r.Kind, Finished)
	return nil
}

// ended adds part `others_ended` to q: what else was under way for the account of part finished has ended, the administrator's part in it too.
func (e *Engine) ended(ctx context.Context, q *postgres.Query, part string) {
	q.With("others_ended", fmt.Sprintf(`
		UPDATE recoveries o SET state = CASE WHEN o.state = 'held' THEN 'finished' ELSE 'superseded' END, reason = 'account_recovered', ended_at = wall() FROM %[1]s p
		 WHERE o.subscriber_id = p.subscriber_id AND o.id <> p.id AND o.ended_at IS NULL RETURNING o.id, o.subscriber_id, o.state`, part))
	e.SignIns.EndRepair(q, "others_ended", "recovery_ended")
	record(ctx, q, "others_ended", audit.Event{Name: "recovery.end", Reason: "account_recovered", Actor: audit.System}, nil)
}

// newPassword checks a new password, and hashes it.
func (e *Engine) newPassword(ctx context.Context, r *Recovery, password string) (string, error) {
	u, err := e.SignIns.Find(ctx, r.Subscriber.String())
	if err != nil {
		return "", err
	}
	if err := authn.CheckNewPassword(password, e.MinPassword(r), e.wordsOf(r, u)...); err != nil {
		return "", err
	}
	return e.SignIns.Passwords.Hash(ctx, password)
}

// MinPassword is how many characters a password of this person has at least: more where no factor follows it.
func (e *Engine) MinPassword(r *Recovery) int {
	for _, a := range r.Bound {
		if f, ok := e.SignIns.Ledger.Factor(a.Kind); ok && factors.Serves(f, factors.StepUp) {
			return authn.MinPassword
		}
	}
	if r.Kind == Access { // one is bound before it ends
		return authn.MinPassword
	}
	return authn.MinAlonePassword
}

// Verdict says whether what r has proved is enough, and whether waiting would do.
func (e *Engine) Verdict(r *Recovery) Verdict { return e.decide(r) }

// Wait has r wait in place of the proof that it lacks. Its errors are [ErrOver] and [ErrNoWay].
func (e *Engine) Wait(ctx context.Context, cookie Cookie) error {
	r, err := e.Load(ctx, cookie)
	switch {
	case err != nil:
		return err
	case !r.Live() || r.State != Open:
		return ErrOver
	case !e.decide(r).MayWait:
		return ErrNoWay
	}
	q := new(postgres.Query)
	q.With("waiting", fmt.Sprintf(`
		UPDATE recoveries r SET state = 'waiting', due_at = wall() + make_interval(secs => %[1]s), expires_at = wall() + make_interval(secs => %[1]s + %[2]s)
		  FROM subscribers u WHERE r.id = %[3]s AND r.token_hash = %[4]s AND r.state = 'open' AND r.ended_at IS NULL AND r.expires_at > wall() AND r.proofs = %[5]s::text[] AND u.id = r.subscriber_id AND %[6]s
		RETURNING r.id, r.subscriber_id, r.kind, r.state, r.due_at`,
		q.Bind(e.Config.Wait.Seconds())+"::float8", q.Bind(e.Config.Ready.Seconds())+"::float8", q.Bind(r.ID)+"::uuid", q.Bind(cookie.hash())+"::bytea", q.Bind(pq.Array(r.Proofs)), standsSQL))
	record(ctx, q, "waiting", audit.Event{Name: "recovery.wait"}, nil)
	e.told(ctx, q, "waiting", notices.RecoveryStarted, notices.Event{}, notices.Expressions{"until": "waiting.due_at"})
	q.Finally("SELECT 1 FROM waiting")
	n, err := e.DB.Run(ctx, q)
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	if n == 0 {
		return ErrOver
	}
	e.observe(r.Kind, Waiting)
	return nil
}

// Resume goes on with a recovery after the wait, or opens its session again in the browser that lost it. Its errors are [ErrOver] and [ErrNotThisStep]: it is too early.
func (e *Engine) Resume(ctx context.Context, cookie Cookie) (*Grant, error) {
	r, err := e.Load(ctx, cookie)
	switch {
	case err != nil:
		return nil, err
	case !r.Live() || r.Kind != Access:
		return nil, ErrOver
	case r.State == Waiting && r.Now.Before(*r.DueAt):
		return nil, ErrNotThisStep
	case r.State != Waiting && r.State != Granted:
		return nil, ErrNotThisStep
	}
	g := &Grant{Cookie: Cookie(keyring.Token())}
	q := new(postgres.Query)
	q.With("granted", fmt.Sprintf(`
		UPDATE recoveries r SET state = 'granted', token_hash = %s, expires_at = CASE WHEN r.state = 'granted' THEN r.expires_at ELSE wall() + make_interval(secs => %s) END
		  FROM subscribers u WHERE r.id = %s AND r.token_hash = %s AND (r.state = 'granted' OR r.state = 'waiting' AND r.due_at <= wall()) AND r.ended_at IS NULL AND r.expires_at > wall() AND u.id = r.subscriber_id AND %s
		RETURNING r.id, r.id AS recovery_id, r.subscriber_id`,
		q.Bind(g.Cookie.hash())+"::bytea", q.Bind(e.Config.Repair.Seconds())+"::float8", q.Bind(r.ID)+"::uuid", q.Bind(cookie.hash())+"::bytea", standsSQL))
	record(ctx, q, "granted", audit.Event{Name: "recovery.resume"}, nil)
	e.SignIns.EndRepair(q, "granted", "replaced")
	g.Session = e.SignIns.OpenRepair(ctx, q, "granted")
	q.Finally("SELECT 1 FROM granted")
	n, err := e.DB.Run(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("resume recovery: %w", err)
	}
	if n == 0 {
		return nil, ErrOver
	}
	return e.proved(ctx, r, g)
}

// Cancel ends the recovery of this browser, if it has proved anything; of others there is nothing to end. Its error is [ErrOver].
func (e *Engine) Cancel(ctx context.Context, cookie Cookie) error {
	q := new(postgres.Query)
	q.With("canceled", fmt.Sprintf(`UPDATE recoveries r SET state = 'canceled', reason = 'person', ended_at = wall(), link_hash = NULL, todo_at = NULL WHERE r.token_hash = %s AND r.ended_at IS NULL AND (r.proofs <> '{}' OR r.knows)
		RETURNING r.id, r.subscriber_id, r.kind, r.state, r.challenge_id, true AS known`, q.Bind(cookie.hash())+"::bytea"))
	e.SignIns.Ledger.CancelOne(q, "canceled", "canceled.challenge_id")
	e.SignIns.EndRepair(q, "canceled", "recovery_ended")
	record(ctx, q, "canceled", audit.Event{Name: "recovery.end", Reason: "person"}, nil)
	q.With("canceled_known", "SELECT id, subscriber_id, kind, state FROM canceled WHERE known AND subscriber_id IS NOT NULL")
	e.told(ctx, q, "canceled_known", notices.RecoveryCanceled, notices.Event{}, nil)
	q.Finally("SELECT kind FROM canceled")
	var kind Kind
	if err := e.DB.Get(ctx, &kind, q); errors.Is(err, postgres.ErrNotFound) {
		return ErrOver
	} else if err != nil {
		return fmt.Errorf("cancel recovery: %w", err)
	}
	e.observe(kind, Canceled)
	return nil
}
