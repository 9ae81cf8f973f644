package factors

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Limits of the ledger. The zero value is not usable: begin with [DefaultLimits].
type Limits struct {
	// Attempts a challenge bears. Default and ceiling 5: RTS Art. 4(3)(b).
	Attempts int
	// Sends of one challenge, the first included. Default 5.
	Sends int
	// Codes of one challenge that are good at once. Default and ceiling 3.
	Codes int
	// Live challenges of one subject. Default and ceiling 3.
	Live int
	// Cooldown before the first resend; twice as long before the second, four times before every later one. Default 30 s.
	Cooldown time.Duration
	// Windows on sends, by what is counted. One without a burst is not counted in.
	NumberHour, NumberDay, SubjectHour, Source, Everyone limits.Window
	// Further windows that every send counts in, under keys of the host's own.
	Further []limits.Hit
	// SourceFailures bounds wrong answers from one address, over all subjects: one code tried on many. Without a burst they are not counted: whoever asks speaks for many.
	SourceFailures limits.Window
	// Breaker leaves each address less room while wrong answers of people abound everywhere. Those of programs name no subject.
	Breaker limits.Breaker
	// Failures in a row of one subject, over all factors. Strict is for challenges that add proof to a session.
	Failures, Strict limits.Streak
	// Outsiders is the limit on failures in a row of those who have proved nothing yet, as when a recovery begins. It is counted apart and tells nobody, so that a
	// stranger who knows a name locks nobody out.
	Outsiders limits.Streak
}

// DefaultLimits are the numbers that the pages' texts depend on.
func DefaultLimits() Limits {
	failures := limits.Streak{Scope: "factor", Limit: 10, Block: 15 * time.Minute, MaxBlock: 2 * time.Hour, Ceiling: 100}
	strict := failures
	strict.Limit = 5
	source := limits.Window{Name: "factor-source", Burst: 30, Period: 5 * time.Minute, Tight: 5}
	outsiders := limits.Streak{Scope: "outsider", Limit: 10, Block: 15 * time.Minute, MaxBlock: 2 * time.Hour, Ceiling: 1 << 30} // there is no operator to ask for it back
	return Limits{
		Attempts: 5, Sends: 5, Codes: 3, Live: 3, Cooldown: 30 * time.Second,
		NumberHour:     limits.Window{Name: "send-number-hour", Burst: 5, Period: time.Hour},
		NumberDay:      limits.Window{Name: "send-number-day", Burst: 10, Period: 24 * time.Hour},
		SubjectHour:    limits.Window{Name: "send-subject-hour", Burst: 5, Period: time.Hour},
		Source:         limits.Window{Name: "send-source", Burst: 25, Period: 5 * time.Minute},
		Everyone:       limits.Window{Name: "send-everyone-day", Burst: 10000, Period: 24 * time.Hour, Shared: true},
		SourceFailures: source,
		Breaker:        limits.Breaker{Window: source, Event: "challenge.answer", Only: "subject IS NOT NULL", Failures: 100, Share: 0.5, Period: 5 * time.Minute, Pause: 10 * time.Minute},
		Failures:       failures, Strict: strict, Outsiders: outsiders,
	}
}

// Keys are the secrets of the ledger. They live outside the database.
type Keys interface {
	Seal(plain []byte, context string) ([]byte, error)
	Open(sealed []byte, context string) ([]byte, error)
	Hash(label string, parts ...[]byte) []byte
	Hashes(label string, parts ...[]byte) [][]byte
	Fingerprint(label, value string) []byte
}

// Ledger keeps challenges. It is safe for concurrent use.
type Ledger struct {
	DB     *postgres.DB
	Keys   Keys
	Outbox *sms.Outbox
	Limits Limits
	// Checks asks the vendor that made a challenge's code. Nil: none does.
	Checks interface {
		Check(ctx context.Context, challenge uuid.UUID, answer string) (sms.Verdict, error)
	}

	// Mails, when set, carries codes to mail addresses, for those who have such: see [Mail].
	Mails *mail.Outbox
	// Failed, when set, adds to q what else follows when a challenge ends without having been answered: part from has its challenge_id. It is for codes that vendors check alone; in all other
	// cases the statement's [Effect] sees it.
	Failed func(ctx context.Context, q *postgres.Query, from string)
	// Resent, when set, adds to q what else follows when a message of a challenge goes out again by [Ledger.Resend]: part from has its challenge_id.
	Resent func(q *postgres.Query, from string)
	// Warn, when set, tells subjects about failures in a row, in the statement of the failure.
	Warn Warn
	// Guard, when set, gives an SQL condition without which no challenge is answered, resent or ended: that whoever asks still may.
	Guard func(*postgres.Query) string

	kinds map[string]Factor
}

// NewLedger makes a ledger that knows the given factors.
func NewLedger(db *postgres.DB, keys Keys, outbox *sms.Outbox, limits Limits, known ...Factor) (*Ledger, error) {
	l := &Ledger{DB: db, Keys: keys, Outbox: outbox, Limits: limits, kinds: map[string]Factor{}}
	for _, f := range known {
		if _, twice := l.kinds[f.Kind()]; twice {
			return nil, fmt.Errorf("two factors of kind %q", f.Kind())
		}
		l.kinds[f.Kind()] = f
	}
	return l, nil
}

// Factor is the factor of that kind.
func (l *Ledger) Factor(kind string) (Factor, bool) {
	f, ok := l.kinds[kind]
	return f, ok
}

// Factors lists what is installed, in no order.
func (l *Ledger) Factors() []Factor { return slices.Collect(maps.Values(l.kinds)) }

// Binding is everything that an answer must come with, besides the code. A challenge answers to exactly one.
type Binding struct {
	Purpose Purpose
	Subject uuid.UUID
	// Browser is the session, or the program's credential, that asked. It holds at most one live challenge per purpose.
	Browser uuid.UUID
	// Context is what the answer is for: the sign-in, or the hash of a transaction's canonical record.
	Context []byte
	// Strict has the tighter limit on failures in a row hold, Outsider the one for those who have proved nothing yet. Neither is part of what an answer comes with.
	Strict, Outsider bool
	// Owner, when set, stands for subject and browser in what an answer must come with: programs give back a challenge's id and a code, and the subject is known by the id
	// alone. It is whoever the program works for. There is no authenticator then.
	Owner uuid.UUID
	// While, when set, gives an SQL condition that has to hold besides for [Ledger.Answer] to look at an answer: otherwise the challenge is as good as over. It is no
	// part of what an answer comes with either.
	While func(q *postgres.Query) string
}

// while is SQL to be added to a condition.
func (b Binding) while(q *postgres.Query) string {
	if b.While == nil {
		return ""
	}
	return " AND (" + b.While(q) + ")"
}

func (b Binding) sum() []byte {
	h := sha256.New()
	parts := [][]byte{[]byte(b.Purpose), b.Subject[:], b.Browser[:], b.Context}
	if b.Owner != uuid.Nil {
		parts = [][]byte{[]byte(b.Purpose), []byte("owner"), b.Owner[:], b.Context}
	}
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	return h.Sum(nil)
}

const macLabel = "challenge code"

// streak is the limit on failures in a row. Whatever adds proof to a session that exists, or approves a payment, has the tighter one.
func (l *Ledger) streak(b Binding) limits.Streak {
	switch {
	case b.Outsider:
		return l.Limits.Outsiders
	case b.Strict || b.Purpose == StepUp || b.Purpose == Transaction:
		return l.Limits.Strict
	}
	return l.Limits.Failures
}

// Open adds to q what asks a's holder for an answer, for as long as part from has a row: the challenge (part
// `challenge_opened`, columns id and challenge_id), the end of the one that this browser had for the purpose, the message and
// its audit record. It gives the id of the challenge. Nothing is sent when a window on sends is full: the
// challenge then has no code, and its next_send_at says when one may be asked for; or, if to.MustSend, there is no challenge, nothing else has ended, and part
// `limit_taken` says why.
func (l *Ledger) Open(ctx context.Context, q *postgres.Query, from string, a Authenticator, b Binding, to Prompt) (uuid.UUID, error) {
	factor, ok := l.kinds[a.Kind]
	if !ok {
		return uuid.Nil, fmt.Errorf("authenticator %s: no factor of kind %q is installed", a.ID, a.Kind)
	}
	if !Serves(factor, b.Purpose) {
		return uuid.Nil, fmt.Errorf("authenticator %s: not good for purpose %q", a.ID, b.Purpose)
	}
	to.Purpose = b.Purpose
	if to.unsaid() {
		return uuid.Nil, errUnsaid
	}
	issued, err := factor.Issue(ctx, a, to)
	if err != nil {
		return uuid.Nil, fmt.Errorf("issue %s: %w", a, err)
	}
	sends := "challenge_sends"
	switch {
	case to.Later:
		q.With(sends, "SELECT false AS allowed, wall() AS retry_at FROM "+from)
	case !issued.sent(): // whoever makes the code hands it over, or there is none to hand over
		q.With(sends, fmt.Sprintf("SELECT %v AS allowed, NULL::timestamptz AS retry_at FROM %s", issued.Code != "", from))
	case to.MustSend:
		hits := l.sendHits(ctx, b, l.recipient(issued))
		if to.Prepaid != nil {
			hits = to.Prepaid(hits)
		}
		limits.Take(q, from, hits...)
		q.With(sends, "SELECT allowed, retry_at FROM limit_taken WHERE allowed")
		from = sends
	default:
		limits.Take(q, from, l.sendHits(ctx, b, l.recipient(issued))...)
		q.With(sends, "SELECT allowed, retry_at FROM limit_taken WHERE EXISTS (SELECT FROM "+from+")")
	}
	id := postgres.NewID()
	subject, browser, purpose := q.Bind(b.Subject)+"::uuid", q.Bind(b.Browser[:])+"::bytea", q.Bind(string(b.Purpose))+"::text"
	challenge := q.Bind(id) + "::uuid"
	q.With("challenge_superseded", fmt.Sprintf(`
		SELECT s.challenge_id, s.subject FROM challenges_supersede(%[1]s, %[2]s, %[4]s, %[5]s, %[7]s) s
		 WHERE EXISTS (SELECT FROM %[3]s) AND EXISTS (SELECT FROM challenges WHERE subject = %[1]s AND ended_at IS NULL AND %[6]s)`,
		subject, browser, from, purpose, q.Bind(l.Limits.Live)+"::int", recent(""), challenge))
	recordEnd(q, "challenge_superseded", "superseded")
	var mac []byte
	if issued.Code != "" {
		mac = l.mac(id, b, issued.Code)
	}
	life := q.Bind(issued.Life.Seconds()) + "::float8"
	q.With("challenge_opened", fmt.Sprintf(`
		INSERT INTO challenges (id, subject, authenticator_id, kind, purpose, binding, browser, macs, mac_expiries,
		                        max_attempts, sends, next_send_at, expires_at)
		SELECT %[1]s, %[2]s, %[3]s, %[4]s, %[5]s, %[6]s, %[7]s,
		       CASE WHEN allowed THEN ARRAY[%[8]s] ELSE '{}' END,
		       CASE WHEN allowed THEN ARRAY[wall() + make_interval(secs => %[9]s)] ELSE '{}' END,
		       %[10]s, CASE WHEN allowed THEN 1 ELSE 0 END,
		       CASE WHEN allowed THEN wall() + make_interval(secs => %[11]s) ELSE retry_at END,
		       wall() + make_interval(secs => %[9]s)
		  FROM %[12]s
		RETURNING id, id AS challenge_id, created_at, expires_at, next_send_at, max_attempts, sends`,
		challenge, subject, q.Bind(a.ID)+"::uuid", q.Bind(a.Kind)+"::text", purpose,
		q.Bind(b.sum())+"::bytea", browser, q.Bind(mac)+"::bytea", life, q.Bind(l.Limits.Attempts)+"::int",
		q.Bind(l.Limits.Cooldown.Seconds())+"::float8", sends))
	audit.Record(ctx, q, "challenge_opened", audit.Event{Name: "challenge.open", Outcome: audit.Success, Actor: "subscriber",
		Subject: b.Subject, Session: b.Browser, Object: id.String()},
		audit.Expressions{"reason": "CASE WHEN challenge_opened.sends = 0 THEN " + q.Bind(quietReason(issued, to)) + "::text ELSE '' END"})
	if issued.sent() {
		q.With("challenge_message", "SELECT 1 FROM challenge_opened WHERE sends > 0")
		if err := l.enqueue(q, id, b, issued); err != nil {
			return uuid.Nil, err
		}
	}
	return id, nil
}

// sent reports whether the code goes to its holder by a message.
func (i *Issued) sent() bool { return i.Message != nil || i.Mail != nil }

// recipient is what sends to whoever gets the code are counted under.
func (l *Ledger) recipient(i Issued) []byte {
	if i.Mail != nil {
		return i.Mail.Key
	}
	return l.Keys.Fingerprint("number", i.Message.To.Reveal())
}

// enqueue stores what carries a code for each row of part challenge_message.
func (l *Ledger) enqueue(q *postgres.Query, id uuid.UUID, b Binding, i Issued) (err error) {
	switch {
	case i.Message != nil:
		m := *i.Message
		m.ID, m.Challenge, m.Purpose, m.Code, m.Life = postgres.NewID(), id, cmp.Or(m.Purpose, string(b.Purpose)), i.Code, i.Life
		err = l.Outbox.Enqueue(q, m, "challenge_message")
	case l.Mails == nil:
		err = errors.New("no mails are carried")
	default:
		m := i.Mail.Message
		m.ID, m.Challenge, m.Purpose, m.Life = postgres.NewID(), id, string(b.Purpose), i.Life
		err = l.Mails.Enqueue(q, m, "challenge_message")
	}
	if err != nil {
		return fmt.Errorf("store message of challenge: %w", err)
	}
	return nil
}

// erase takes back what has not been sent, and erases every text, of the challenges in column challenge_id of part from, which has ended them.
func (l *Ledger) erase(q *postgres.Query, from string) {
	l.Outbox.Cancel(q, from)
	if l.Mails != nil {
		l.Mails.Cancel(q, from)
	}
}

// recent is an SQL condition: row c of challenges is not older than any that can be live, so that other days' partitions are not looked at. A code lives ten minutes, and further ones as long
// as there are sends: within the hour, by far. Function challenges_supersede has the same bound.
func recent(c string) string {
	return fmt.Sprintf("%[1]screated_at > wall() - interval '6 hours' AND %[1]screated_at < wall() + interval '1 hour'", c)
}

func quietReason(i Issued, to Prompt) string {
	if to.Later {
		return "not_asked_for"
	}
	if i.sent() {
		return "send_limit"
	}
	return ""
}

// Resend sends a code again. While fewer than Limits.Codes are good it is a further one; otherwise the newest is repeated.
// The attempts stay as they are. The state that it gives is that before the send; err is [ErrOver] for a challenge that is not
// live and this binding's own, and [WaitError] when it is too early.
func (l *Ledger) Resend(ctx context.Context, id uuid.UUID, a Authenticator, b Binding, to Prompt) error {
	factor, ok := l.kinds[a.Kind]
	if !ok {
		return fmt.Errorf("authenticator %s: no factor of kind %q is installed", a.ID, a.Kind)
	}
	to.Purpose = b.Purpose
	if to.unsaid() {
		return errUnsaid
	}
	issued, err := factor.Issue(ctx, a, to)
	if err != nil {
		return fmt.Errorf("issue %s: %w", a, err)
	}
	if !issued.sent() && issued.Code == "" {
		return ErrOver // nothing of this kind is ever sent
	}
	sends := l.Limits.Sends
	if issued.Mail != nil {
		sends = min(sends, l.Limits.Codes) // of a mail nothing is kept that could be repeated
	}
	q := new(postgres.Query)
	l.live(q, id, b, "AND c.authenticator_id = "+q.Bind(a.ID)+"::uuid")
	maxSends := l.due(q, sends)
	if issued.sent() {
		limits.Take(q, "challenge_due", l.sendHits(ctx, b, l.recipient(issued))...)
	} else {
		q.With("limit_taken", "SELECT true AS allowed, NULL::timestamptz AS retry_at, NULL::text AS full_window")
	}
	fresh := "(SELECT count(*) FROM unnest(c.mac_expiries) e WHERE e > wall()) < " + q.Bind(l.Limits.Codes) + "::int"
	life := q.Bind(issued.Life.Seconds()) + "::float8"
	q.With("challenge_resent", fmt.Sprintf(`
		UPDATE challenges c
		   SET sends = c.sends + 1,
		       next_send_at = wall() + make_interval(secs => %[1]s * power(2, least(c.sends, 2))),
		       macs = CASE WHEN %[2]s THEN c.macs || %[3]s ELSE c.macs END,
		       mac_expiries = CASE WHEN %[2]s THEN c.mac_expiries || (wall() + make_interval(secs => %[4]s)) ELSE c.mac_expiries END,
		       expires_at = CASE WHEN %[2]s THEN wall() + make_interval(secs => %[4]s) ELSE c.expires_at END
		  FROM challenge_live l, limit_taken t
		 WHERE c.id = l.id AND c.created_at = l.created_at AND t.allowed
		   AND EXISTS (SELECT FROM challenge_due)
		RETURNING c.id AS challenge_id, c.mac_expiries[cardinality(c.mac_expiries)] = wall() + make_interval(secs => %[4]s) AS further`,
		q.Bind(l.Limits.Cooldown.Seconds())+"::float8", fresh, q.Bind(l.mac(id, b, issued.Code))+"::bytea", life))
	audit.Record(ctx, q, "challenge_resent", audit.Event{Name: "challenge.resend", Outcome: audit.Success, Actor: "subscriber",
		Subject: b.Subject, Session: b.Browser, Object: id.String()}, nil)
	if l.Resent != nil {
		l.Resent(q, "challenge_resent")
	}
	q.With("challenge_unsent", "SELECT sends FROM challenge_live WHERE NOT EXISTS (SELECT FROM challenge_resent)")
	audit.Record(ctx, q, "challenge_unsent", audit.Event{Name: "challenge.resend", Outcome: audit.Refused, Actor: "subscriber",
		Subject: b.Subject, Session: b.Browser, Object: id.String()},
		audit.Expressions{"reason": "CASE WHEN challenge_unsent.sends >= " + maxSends + " THEN 'used_up' WHEN EXISTS (SELECT FROM challenge_due) THEN 'send_limit' ELSE 'too_early' END"})
	if issued.sent() {
		q.With("challenge_message", "SELECT challenge_id FROM challenge_resent WHERE further")
		if err := l.enqueue(q, id, b, issued); err != nil {
			return err
		}
	}
	if issued.Message != nil {
		q.With("challenge_repeat", "SELECT challenge_id FROM challenge_resent WHERE NOT further")
		l.Outbox.Repeat(q, postgres.NewID(), issued.Message.Channels, "challenge_repeat")
	}
	q.Finally(`SELECT EXISTS (SELECT FROM challenge_live) AS live, EXISTS (SELECT FROM challenge_resent) AS sent,
		(SELECT sends FROM challenge_live) >= ` + maxSends + ` AS used_up,
		coalesce((SELECT next_send_at FROM challenge_live WHERE next_send_at > wall()), (SELECT retry_at FROM limit_taken)) AS retry_at,
		EXISTS (SELECT FROM challenge_due) AS due, coalesce((SELECT full_window FROM limit_taken), '') AS full_window`)
	var got struct {
		Live    bool       `db:"live"`
		Sent    bool       `db:"sent"`
		UsedUp  *bool      `db:"used_up"`
		RetryAt *time.Time `db:"retry_at"`
		Due     bool       `db:"due"`
		Full    string     `db:"full_window"`
	}
	if err := l.DB.Get(ctx, &got, q); err != nil {
		return fmt.Errorf("resend challenge: %w", err)
	}
	switch {
	case got.Sent:
		return nil
	case !got.Live:
		return ErrOver
	case got.UsedUp != nil && *got.UsedUp:
		return &WaitError{UsedUp: true}
	default:
		wait := &WaitError{Limited: got.Due, Window: got.Full}
		if got.RetryAt != nil {
			wait.Until = *got.RetryAt
		}
		return wait
	}
}

// due adds part `challenge_due`: the challenge, if it has a send left and its pause is over. It gives the placeholder of how many it has in all.
func (l *Ledger) due(q *postgres.Query, sends int) (maxSends string) {
	maxSends = q.Bind(sends) + "::int"
	q.With("challenge_due", "SELECT id FROM challenge_live WHERE sends < "+maxSends+" AND (next_send_at IS NULL OR next_send_at <= wall())")
	return maxSends
}

// Again adds to q another send that nobody asks for: for as long as part from has a row, the newest message of challenge id goes out once more, with the same code, by channels instead of those
// before. It counts as any other send: part `challenge_resent` has a row if there was room for it, `challenge_live` if the challenge still is, and `limit_taken` says when there is room.
func (l *Ledger) Again(ctx context.Context, q *postgres.Query, from string, id uuid.UUID, b Binding, to sms.Number, channels []sms.Channel) {
	l.live(q, id, b, "AND EXISTS (SELECT FROM "+from+")")
	l.due(q, l.Limits.Sends)
	limits.Take(q, "challenge_due", l.sendHits(ctx, b, l.Keys.Fingerprint("number", to.Reveal()))...)
	q.With("challenge_resent", fmt.Sprintf(`
		UPDATE challenges c SET sends = c.sends + 1, next_send_at = wall() + make_interval(secs => %s * power(2, least(c.sends, 2)))
		  FROM challenge_live l, limit_taken t
		 WHERE c.id = l.id AND c.created_at = l.created_at AND t.allowed AND EXISTS (SELECT FROM challenge_due)
		RETURNING c.id AS challenge_id`, q.Bind(l.Limits.Cooldown.Seconds())+"::float8"))
	audit.Record(ctx, q, "challenge_resent", audit.Event{Name: "challenge.resend", Outcome: audit.Success, Reason: "channel", Actor: audit.System, Object: id.String()}, nil)
	l.Outbox.Repeat(q, postgres.NewID(), channels, "challenge_resent")
}

// Expire adds part `challenge_expired` (column challenge_id) to q: up to n challenges of that purpose whose time has passed, and which nobody has noticed yet, are marked so.
func Expire(q *postgres.Query, purpose Purpose, n int) {
	q.With("challenge_overdue", fmt.Sprintf(`
		SELECT id, created_at FROM challenges WHERE purpose = '%s' AND ended_at IS NULL AND expires_at <= wall() AND created_at > wall() - interval '1 day'
		 ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED`, purpose, q.Bind(n)+"::int"))
	q.With("challenge_expired", `
		UPDATE challenges c SET ended_at = c.expires_at, outcome = 'expired' FROM challenge_overdue o
		 WHERE c.id = o.id AND c.created_at = o.created_at AND c.ended_at IS NULL AND c.expires_at <= wall() RETURNING c.id AS challenge_id`)
}

// WaitError says that no message is sent now.
type WaitError struct {
	Until   time.Time // when one may be asked for; zero with UsedUp
	Limited bool      // a window on sends is full, rather than the pause between two sends
	Window  string    // the name of that window
	UsedUp  bool      // the challenge has had all its sends
}

func (e *WaitError) Error() string { return "factors: no message may be sent now" }

// Effect adds to q what a right answer changes: parts that select from part won, which has one row (id, subject,
// authenticator_id) if and only if the challenge is consumed by this very statement. Part `challenge_used` has the authenticator then, as it is
// afterwards: id, subject, kind, hint and answers_left (NULL: it does not run out). It may give an SQL expression of type jsonb whose
// value is handed back, whether the answer was right or not, or "". In it p is the row of part `challenge_paid`, whose columns are NULL where no attempt was paid: id, subject, attempts (with this
// one), max_attempts and won.
type Effect func(q *postgres.Query, won string) (returning string)

// Answer tries answer on the challenge. Nil means that it was right, the challenge is consumed and effect has
// happened, all in one statement; returned is what effect asked to have back, of the statement that came to err. Otherwise err is [ErrMismatch], [ErrOver] or a
// [BlockedError], or a fault of the system, and effect has not happened.
//
// It is one round trip, unless a vendor made the code: then the attempt is paid and committed before the vendor is asked, and the challenge consumed
// after it.
func (l *Ledger) Answer(ctx context.Context, id uuid.UUID, a Authenticator, b Binding, answer string, effect Effect) (returned json.RawMessage, err error) {
	q := new(postgres.Query)
	l.live(q, id, b, b.while(q))
	c := comparison{used: "false"}
	if checker, ok := l.kinds[a.Kind].(Checker); ok {
		if c, err = l.check(ctx, q, checker, a, answer); err != nil {
			return nil, fmt.Errorf("check %s: %w", a, err)
		}
	} else {
		candidates := l.Keys.Hashes(macLabel, id[:], b.sum(), []byte(answer))
		c.right = "EXISTS (SELECT FROM unnest(c.macs, c.mac_expiries) AS m(mac, until) WHERE m.until > wall() AND m.mac = ANY(" + q.Bind(pq.Array(candidates)) + "::bytea[]))"
	}
	again := l.pay(ctx, q, id, b, c)
	returned, paid, err := l.finish(ctx, q, b, effect, c.used, again)
	if paid == nil || l.Checks == nil {
		return returned, err
	}
	verdict, err := l.Checks.Check(ctx, id, answer)
	if err != nil {
		failure, ok := errors.AsType[*sms.Error](err)
		err = fmt.Errorf("vendor checks challenge: %w", err)
		if ok && failure.Reached == sms.NotSent { // nobody looked
			return nil, errors.Join(err, l.giveBack(ctx, id, b, *paid))
		}
		return nil, errors.Join(err, l.wrong(ctx, id, b, *paid)) // somebody may have looked: the attempt stays paid
	}
	if verdict != sms.Approved {
		return returned, errors.Join(ErrMismatch, l.wrong(ctx, id, b, *paid))
	}
	return l.consume(ctx, id, b, *paid, effect)
}

// comparison is how one statement finds out about an answer: SQL conditions over row c of part challenge_live, and what a right one assigns on the
// authenticator's row.
type comparison struct{ right, used, spend string }

// check adds part `challenge_held`: what a checker finds on the authenticator's row, which stays locked until the end of the statement. Whoever tries the
// same answer at the same time, on whatever challenge, waits here and then sees it used.
func (l *Ledger) check(ctx context.Context, q *postgres.Query, checker Checker, a Authenticator, answer string) (comparison, error) {
	check, err := checker.Check(ctx, a, answer, q.Bind)
	if err != nil {
		return comparison{}, err
	}
	if check.Used == "" {
		check.Used = "false"
	}
	q.With("challenge_held", fmt.Sprintf(`
		SELECT coalesce(%s, false) AS is_right, coalesce(%s, false) AS is_used
		  FROM challenge_live c JOIN authenticators a ON a.id = c.authenticator_id
		 WHERE a.id = %s AND a.kind = %s AND (a.unbound_at IS NULL OR a.pending_until IS NOT NULL)
		   FOR UPDATE OF a`, check.Right, check.Used, q.Bind(a.ID)+"::uuid", q.Bind(a.Kind)+"::text"))
	return comparison{
		right: "coalesce((SELECT is_right FROM challenge_held), false)",
		used:  "coalesce((SELECT is_used FROM challenge_held), false)",
		spend: check.Spend,
	}, nil
}

// paid is an attempt whose answer somebody else has to look at.
type paid struct {
	failures int // in a row, with this one
}

// consume ends a challenge whose attempt was paid and whose answer somebody else has found right. A wrong answer that was given at the same time, and was
// the last one there was, may have ended it meanwhile: the right one was paid before that, and counts.
func (l *Ledger) consume(ctx context.Context, id uuid.UUID, b Binding, p paid, effect Effect) (json.RawMessage, error) {
	q := new(postgres.Query)
	q.With("challenge_paid", fmt.Sprintf(`
		UPDATE challenges SET ended_at = wall(), outcome = 'verified'
		 WHERE id = %s AND binding = %s AND (ended_at IS NULL OR outcome = 'failed') AND expires_at > wall()%s
		RETURNING id, subject, authenticator_id, attempts, max_attempts, true AS won, true AS remote`,
		q.Bind(id)+"::uuid", q.Bind(b.sum())+"::bytea", b.while(q)))
	if b.Purpose.completes() {
		l.streak(b).Clear(q, "challenge_paid", "uuid_send(challenge_paid.subject)")
	} else {
		l.streak(b).Refund(q, "challenge_paid", "uuid_send(challenge_paid.subject)", p.failures)
	}
	q.With("challenge_live", "SELECT id, subject FROM challenge_paid")
	q.With("streak_paid", "SELECT NULL::timestamptz AS blocked_until, 0 AS failures FROM challenge_paid")
	l.refundSource(ctx, q, "challenge_paid")
	l.settle(ctx, q, b, comparison{used: "false"})
	returned, _, err := l.finish(ctx, q, b, effect, "false", anytime)
	return returned, err
}

// wrong records an answer that somebody else has found wrong, or that nobody will ever know of, ends a challenge whose last attempt it was, and warns its subject if there is
// something to tell.
func (l *Ledger) wrong(ctx context.Context, id uuid.UUID, b Binding, p paid) error {
	q := new(postgres.Query)
	q.With("challenge_wrong", "SELECT id, false AS won, attempts, max_attempts FROM challenges WHERE id = "+q.Bind(id)+"::uuid")
	recordAnswer(ctx, q, "challenge_wrong", b, "false")
	q.With("challenge_exhausted", `UPDATE challenges c SET ended_at = wall(), outcome = 'failed' FROM challenge_wrong w
		WHERE c.id = w.id AND c.ended_at IS NULL AND c.attempts >= c.max_attempts RETURNING c.id AS challenge_id`)
	l.erase(q, "challenge_exhausted")
	if l.Failed != nil {
		l.Failed(ctx, q, "challenge_exhausted")
	}
	q.With("challenge_failed", fmt.Sprintf("SELECT %s AS subject, %s AS failures, %s AS until FROM challenge_wrong",
		q.Bind(b.Subject)+"::uuid", q.Bind(p.failures)+"::int", l.streak(b).BlockedUntil(q, q.Bind(b.Subject[:])+"::bytea")))
	l.warn(ctx, q, b, "challenge_failed")
	q.Finally("SELECT 1 FROM challenge_exhausted")
	if _, err := l.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("end challenge: %w", err)
	}
	return nil
}

// giveBack takes back what an answer cost that nobody looked at: the failure in a row, and the attempt once for each challenge: a vendor that fails on demand
// must not buy tries.
func (l *Ledger) giveBack(ctx context.Context, id uuid.UUID, b Binding, p paid) error {
	q := new(postgres.Query)
	q.With("challenge_asked", "SELECT id, subject FROM challenges WHERE id = "+q.Bind(id)+"::uuid")
	l.streak(b).Refund(q, "challenge_asked", "uuid_send(challenge_asked.subject)", p.failures)
	l.refundSource(ctx, q, "challenge_asked")
	audit.Record(ctx, q, "challenge_asked", audit.Event{Name: "challenge.answer", Outcome: audit.Failed, Reason: "not_checked", Actor: "subscriber", Subject: b.Subject, Session: b.Browser},
		audit.Expressions{"object": "challenge_asked.id::text"})
	q.Finally("UPDATE challenges SET attempts = attempts - 1, given_back = true WHERE id = " + q.Bind(id) + "::uuid AND NOT given_back AND attempts > 0 AND ended_at IS NULL")
	if _, err := l.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("give attempt back: %w", err)
	}
	return nil
}

// live adds part `challenge_live`: the challenge, locked, if it can be answered under b. That of an authenticator that is not bound any more cannot, and that
// of one which is not bound yet only binds it. It is found by its id: the condition on its end is written so that the index of those that have not ended, which a planner
// without statistics takes for empty, is no choice.
func (l *Ledger) live(q *postgres.Query, id uuid.UUID, b Binding, and string) {
	if b.Owner == uuid.Nil {
		and += fmt.Sprintf(` AND NOT EXISTS (SELECT FROM authenticators x WHERE x.id = c.authenticator_id AND x.unbound_at IS NOT NULL
		                   AND NOT (c.purpose = '%s' AND coalesce(x.pending_until > wall(), false)))`, Enrol)
	}
	q.With("challenge_locked", fmt.Sprintf(`
		SELECT c.id, c.created_at, c.subject, c.authenticator_id, c.macs, c.mac_expiries, c.sends, c.next_send_at, c.expires_at FROM challenges c
		 WHERE c.id = %s AND %s AND c.binding = %s AND coalesce(c.ended_at, 'infinity') = 'infinity' AND c.attempts < c.max_attempts AND c.expires_at > wall() %s
		   FOR UPDATE OF c`,
		q.BindOnce("challenge", id)+"::uuid", recent("c."), q.Bind(b.sum())+"::bytea", and))
	guard := ""
	if l.Guard != nil {
		guard = " AND " + l.Guard(q)
	}
	// Not a part of the one before, which would have it once for each partition.
	q.With("challenge_live", fmt.Sprintf(`
		SELECT c.* FROM challenge_locked c
		 WHERE NOT EXISTS (SELECT FROM challenges n WHERE n.subject = c.subject AND n.ended_at IS NULL
		           AND n.expires_at > wall() AND n.created_at > c.created_at AND %s OFFSET %s)%s`, recent("n."), q.Bind(l.Limits.Live-1)+"::int", guard))
}

// remote is an SQL condition on challenge c, whose answer is not known to be right: only the vendor that made its code can check it.
func (l *Ledger) remote() string {
	if l.Checks == nil {
		return "false"
	}
	return sms.CheckedSQL("c.id")
}

// pay adds what one attempt does: it is counted on the challenge and on the subject, and where the comparison finds the answer right, the challenge
// is consumed instead of the failure being counted. It gives an SQL expression for when the source may try again, NULL if it may at once.
func (l *Ledger) pay(ctx context.Context, q *postgres.Query, id uuid.UUID, b Binding, c comparison) (again string) {
	reason, again := "'blocked'", anytime
	if hits := l.sourceHit(ctx); len(hits) > 0 {
		limits.TakeUnless(q, "challenge_live c", c.right, hits...)
		q.With("challenge_tried", "SELECT c.id, c.created_at, c.subject, t.won AS is_right FROM challenge_live c, limit_taken t WHERE t.allowed")
		reason, again = "CASE WHEN (SELECT allowed FROM limit_taken) THEN 'blocked' ELSE 'source_limit' END", "(SELECT retry_at FROM limit_taken)"
	} else {
		q.With("challenge_tried", "SELECT c.id, c.created_at, c.subject, "+c.right+" AS is_right FROM challenge_live c OFFSET 0")
	}
	q.With("challenge_right", "SELECT c.*, NOT c.is_right AND "+l.remote()+" AS remote FROM challenge_tried c")
	l.streak(b).PayUnless(q, "challenge_right", "uuid_send(challenge_right.subject)", "challenge_right.is_right", b.Purpose.completes())
	q.With("challenge_paid", `
		UPDATE challenges c
		   SET attempts = c.attempts + 1,
		       ended_at = CASE WHEN r.is_right OR NOT r.remote AND c.attempts + 1 >= c.max_attempts THEN wall() END,
		       outcome = CASE WHEN r.is_right THEN 'verified' WHEN NOT r.remote AND c.attempts + 1 >= c.max_attempts THEN 'failed' END
		  FROM challenge_right r
		 WHERE c.id = `+q.BindOnce("challenge", id)+`::uuid AND c.created_at = (SELECT created_at FROM challenge_right) AND `+recent("c.")+`
		   AND coalesce(c.ended_at, 'infinity') = 'infinity' AND c.attempts < c.max_attempts AND EXISTS (SELECT FROM streak_paid)
		RETURNING c.id, c.subject, c.authenticator_id, c.attempts, c.max_attempts, r.is_right AS won, r.remote`) // a vendor has not looked yet when the last attempt is paid
	q.With("challenge_failed", `SELECT r.subject, p.failures, p.blocked_until AS until FROM streak_paid p, challenge_right r WHERE NOT r.is_right AND NOT r.remote`)
	l.warn(ctx, q, b, "challenge_failed")
	q.With("challenge_refused", "SELECT id FROM challenge_live WHERE NOT EXISTS (SELECT FROM challenge_paid)")
	audit.Record(ctx, q, "challenge_refused", audit.Event{Name: "challenge.answer", Outcome: audit.Refused, Actor: "subscriber", Subject: b.Subject, Session: b.Browser},
		audit.Expressions{
			"reason": reason,
			"object": "challenge_refused.id::text",
		})
	l.settle(ctx, q, b, c)
	return again
}

// anytime is SQL for when somebody may try again who does not have to wait.
const anytime = "NULL::timestamptz"

// settle adds what follows part `challenge_paid`. On the authenticator's row that is one UPDATE, for a statement can change a row only once: when it
// was used, what is used up, and that it is bound now if that was what the answer had to prove.
func (l *Ledger) settle(ctx context.Context, q *postgres.Query, b Binding, c comparison) {
	q.With("challenge_won", "SELECT id, subject, authenticator_id FROM challenge_paid WHERE won")
	changes := "last_used_at = wall()"
	if c.spend != "" {
		changes += ", " + c.spend
	}
	if b.Purpose == Enrol {
		q.With("challenge_bound", `SELECT a.id, a.kind, a.subject, a.hint, a.data, a.replaces FROM challenge_won w JOIN authenticators a ON a.id = w.authenticator_id WHERE a.pending_until IS NOT NULL`)
		audit.Record(ctx, q, "challenge_bound", audit.Event{Name: "authenticator.bind", Outcome: audit.Success, Actor: "subscriber", Subject: b.Subject, Session: b.Browser},
			audit.Expressions{"reason": "challenge_bound.kind", "object": "challenge_bound.id::text"})
		l.replace(ctx, q, b)
		changes += `, pending_until = NULL,
			bound_at = CASE WHEN a.pending_until IS NULL THEN a.bound_at ELSE wall() END,
			unbound_at = CASE WHEN a.pending_until IS NULL THEN a.unbound_at END`
	}
	if b.Owner == uuid.Nil {
		q.With("challenge_used", `UPDATE authenticators a SET `+changes+` FROM challenge_won w WHERE a.id = w.authenticator_id
		RETURNING a.id, a.subject, a.kind, a.hint, cardinality(a.codes_left) AS answers_left`)
	}
	q.With("challenge_closed", "SELECT id AS challenge_id, won FROM challenge_paid WHERE won OR attempts >= max_attempts AND NOT remote")
	l.Outbox.CancelOne(q, "challenge_closed", "f.won")
	if l.Mails != nil {
		l.Mails.Cancel(q, "challenge_closed")
	}
	q.With("challenge_told", "SELECT * FROM challenge_paid WHERE won OR NOT remote") // the others are recorded when somebody has looked
	recordAnswer(ctx, q, "challenge_told", b, c.used)
}

// replace adds part `challenge_replaced` (columns subject and hint, of what is bound now): what part challenge_bound takes the place of is bound no more.
func (l *Ledger) replace(ctx context.Context, q *postgres.Query, b Binding) {
	q.With("authenticator_left", `
		UPDATE authenticators a SET unbound_at = wall(), data = '', fingerprint = NULL, codes_left = NULL, codes_used = '{}'
		  FROM challenge_bound n WHERE a.id = n.replaces AND a.subject = n.subject AND a.kind = n.kind AND a.unbound_at IS NULL
		RETURNING a.id, a.kind, a.subject, n.hint AS hint`)
	q.With("challenge_replaced", "SELECT subject, hint FROM authenticator_left")
	audit.Record(ctx, q, "authenticator_left", audit.Event{Name: "authenticator.unbind", Outcome: audit.Success, Actor: "subscriber", Subject: b.Subject, Session: b.Browser},
		audit.Expressions{"reason": "authenticator_left.kind", "object": "authenticator_left.id::text"})
}

// recordAnswer writes down what became of an answer: part from has id, won, attempts and max_attempts of its challenge, and used
// is an SQL condition: it had been right.
func recordAnswer(ctx context.Context, q *postgres.Query, from string, b Binding, used string) {
	audit.Record(ctx, q, from, audit.Event{Name: "challenge.answer", Actor: "subscriber", Subject: b.Subject, Session: b.Browser},
		audit.Expressions{
			"outcome": fmt.Sprintf("CASE WHEN %s.won THEN 'success' ELSE 'refused' END", from),
			"reason": fmt.Sprintf("CASE WHEN %[1]s.won THEN '' WHEN %[1]s.attempts >= %[1]s.max_attempts THEN 'wrong_last' WHEN %[2]s THEN 'used' ELSE 'wrong' END",
				from, used),
			"object": from + ".id::text",
		})
}

// finish runs an answer's statement and tells its outcome. asked says that the attempt is paid, and that somebody else has to look at the answer. used is an
// SQL condition: a wrong answer had been right; again an SQL expression for when the source may try again.
func (l *Ledger) finish(ctx context.Context, q *postgres.Query, b Binding, effect Effect, used, again string) (returned json.RawMessage, asked *paid, err error) {
	returning := ""
	if effect != nil {
		returning = effect(q, "challenge_won")
	}
	if returning == "" {
		returning = "NULL::jsonb"
	}
	q.Finally(fmt.Sprintf(`
		SELECT c.id IS NOT NULL AS live, p.id IS NOT NULL AS paid, coalesce(p.won, false) AS won, coalesce(p.remote AND NOT p.won, false) AS remote, coalesce((SELECT failures FROM streak_paid), 0) AS failures,
		       %s AS returned, %s AS used, CASE WHEN p.id IS NULL THEN coalesce(%s, %s) END AS blocked_until
		  FROM (SELECT 1) one LEFT JOIN challenge_live c ON true LEFT JOIN challenge_paid p ON true`,
		returning, used, l.streak(b).BlockedUntil(q, "uuid_send(c.subject)"), again))
	var got struct {
		Live     bool   `db:"live"`
		Paid     bool   `db:"paid"`
		Won      bool   `db:"won"`
		Remote   bool   `db:"remote"`
		Failures int    `db:"failures"`
		Used     bool   `db:"used"`
		Returned []byte `db:"returned"`

		BlockedUntil *time.Time `db:"blocked_until"`
	}
	if err := l.DB.Get(ctx, &got, q); err != nil {
		return nil, nil, fmt.Errorf("answer challenge: %w", err)
	}
	switch {
	case got.Won:
		return got.Returned, nil, nil
	case got.Paid && got.Remote:
		return got.Returned, &paid{failures: got.Failures}, ErrMismatch
	case got.Paid && got.Used:
		return got.Returned, nil, ErrUsed
	case got.Paid:
		return got.Returned, nil, ErrMismatch
	case got.Live:
		blocked := new(BlockedError)
		if got.BlockedUntil != nil {
			blocked.Until = *got.BlockedUntil
		}
		return got.Returned, nil, blocked
	default:
		return got.Returned, nil, ErrOver
	}
}

// CancelAll adds part `challenge_canceled`: all live challenges of the subject that SQL expression subject gives end, with their
// messages, for as long as part from has a row.
func (l *Ledger) CancelAll(q *postgres.Query, from, subject string) {
	l.cancel(q, from, "c.subject = "+subject)
}

// CancelBrowser is [Ledger.CancelAll] for the challenges that one browser holds.
func (l *Ledger) CancelBrowser(q *postgres.Query, from, subject, browser string) {
	l.cancel(q, from, "c.subject = "+subject+" AND c.browser = "+browser)
}

// CancelOne is [Ledger.CancelAll] for one challenge, by SQL expression id.
func (l *Ledger) CancelOne(q *postgres.Query, from, id string) {
	l.cancel(q, from, "c.id = "+id)
}

func (l *Ledger) cancel(q *postgres.Query, from, which string) {
	if l.Guard != nil {
		which += " AND " + l.Guard(q)
	}
	q.With("challenge_canceled", fmt.Sprintf(`
		UPDATE challenges c SET ended_at = wall(), outcome = 'canceled'
		  FROM %s WHERE %s AND c.ended_at IS NULL
		RETURNING c.id AS challenge_id, c.subject`, from, which))
	l.erase(q, "challenge_canceled")
	recordEnd(q, "challenge_canceled", "canceled")
}

// recordEnd writes down that challenges ended without an answer: part from has challenge_id and subject of each.
func recordEnd(q *postgres.Query, from, reason string) {
	audit.Follow(q, from, audit.Event{Name: "challenge.end", Outcome: audit.Success, Reason: reason},
		audit.Expressions{"subject": from + ".subject", "object": from + ".challenge_id::text"})
}

// Unlock adds part `streak_unlocked` to q: failures in a row of the subject whose id SQL expression key gives as bytes are forgotten.
func (l *Ledger) Unlock(q *postgres.Query, from, key string) {
	q.With("streak_unlocked", fmt.Sprintf("DELETE FROM streaks USING %s WHERE streaks.scope = %s AND streaks.key = %s",
		from, q.Bind(l.Limits.Failures.Scope)+"::text", key))
}

// StateSQL is an SQL expression of type jsonb for the state of the challenge that SQL expression id names; NULL when there is
// none. Read it with [DecodeState]. Whoever selects it must have made sure that the challenge is the caller's own.
func (l *Ledger) StateSQL(q *postgres.Query, id string) string {
	return fmt.Sprintf(`(SELECT jsonb_build_object('id', c.id, 'authenticator_id', c.authenticator_id, 'kind', c.kind, 'purpose', c.purpose,
		'attempts', c.attempts, 'max_attempts', c.max_attempts, 'sends', c.sends, 'next_send_at', c.next_send_at,
		'sent_at', (SELECT max(m.created_at) FROM messages m WHERE m.challenge_id = c.id),
		'expires_at', c.expires_at, 'ended_at', c.ended_at, 'outcome', coalesce(c.outcome, ''),
		'blocked_until', %s, 'delivery', %s)
		FROM challenges c WHERE c.id = %s)`,
		l.Limits.Failures.BlockedUntil(q, "uuid_send(c.subject)"), sms.DeliverySQL("c.id"), id)
}

// BriefSQL is [Ledger.StateSQL] without what is known of messages and blocks: attempts, times and outcome. Challenges that are older than two days are not looked for.
func (l *Ledger) BriefSQL(id string) string { return "challenge_brief(" + id + ")" }

func (l *Ledger) mac(id uuid.UUID, b Binding, code string) []byte {
	return l.Keys.Hash(macLabel, id[:], b.sum(), []byte(code))
}

// forMany reports whether a known program asks, which speaks for many people: how often that happens from one address says nothing.
func forMany(ctx context.Context) bool { return audit.From(ctx).Client != "" }

// sourceHit is the window that a wrong answer counts in, if any.
func (l *Ledger) sourceHit(ctx context.Context) []limits.Hit {
	if l.Limits.SourceFailures.Burst == 0 || forMany(ctx) {
		return nil
	}
	return []limits.Hit{{Window: l.Limits.SourceFailures, Key: sourceKey(ctx)}}
}

// refundSource takes back what an answer cost its source.
func (l *Ledger) refundSource(ctx context.Context, q *postgres.Query, from string) {
	if hits := l.sourceHit(ctx); len(hits) > 0 {
		limits.Refund(q, from, hits...)
	}
}

// sourceKey is what the request's address is counted under. Requests without one share a key: none is unlimited.
func sourceKey(ctx context.Context) []byte {
	if source := audit.From(ctx).Source; source.IsValid() {
		return limits.SourceKey(source)
	}
	return []byte("unknown")
}

// sendHits are the windows that one message counts in.
func (l *Ledger) sendHits(ctx context.Context, b Binding, recipient []byte) []limits.Hit {
	return l.hits(ctx, b.Subject, recipient)
}

// SendHits are the limits that every text to a subject's number counts in, for texts that no challenge sends.
func (l *Ledger) SendHits(ctx context.Context, subject uuid.UUID, to sms.Number) []limits.Hit {
	return l.hits(ctx, subject, l.Keys.Fingerprint("number", to.Reveal()))
}

func (l *Ledger) hits(ctx context.Context, subject uuid.UUID, recipient []byte) []limits.Hit {
	all := []limits.Hit{
		{Window: l.Limits.SubjectHour, Key: subject[:]}, {Window: l.Limits.Everyone, Key: []byte{}},
	}
	if both := l.Limits.NumberDay.Within(l.Limits.NumberHour); both != nil {
		all = append(all, limits.Hit{Window: *both, Key: recipient})
	} else {
		all = append(all, limits.Hit{Window: l.Limits.NumberHour, Key: recipient}, limits.Hit{Window: l.Limits.NumberDay, Key: recipient})
	}
	if !forMany(ctx) {
		all = append(all, limits.Hit{Window: l.Limits.Source, Key: sourceKey(ctx)})
	}
	return slices.DeleteFunc(append(all, l.Limits.Further...), func(h limits.Hit) bool { return h.Window.Burst == 0 })
}
