// Package backchannel asks people on behalf of applications that have no browser of theirs: a terminal, a call centre, a bank's server.
//
// # How somebody is asked
//
// [Service.Ask] stores the question and texts the person. A payment is a transaction (package transaction): its text has a code, and what is paid to whom, and no link. Any other question
// has no code: its text has a link, and says of the question no more than who asks.
//
// # How it is answered
//
// In a sign-in like any other, which the link or a browser that is signed in begins ([Service.Begin]). The link lets nobody in and may be opened as often as anybody likes; it is a pointer. So
// everything that holds of sign-ins holds here: passwords, factors, blocks, policy, the level that was asked for. Whatever is found in the browser, somebody has to press a button: the
// consent page is always due.
//
// # How the application learns of it
//
// It asks again and again ([Service.Poll]), one round trip each, and for what comes of an approval it asks once ([Service.Redeem]). While there is no answer it may wait for it ([Waiting]), so that
// it asks seldom and learns at once. It may be told when to ask: a [Teller] calls it then. The question about a payment ends in the statement that ends the transaction ([Service.Follow]).
//
// # How much
//
// A person has three questions open at once, and of an application with payment accounts one; unique indexes see to that. Texts count in the limits on texts, questions in a
// limit for each application and person.
//
// Tables: backchannel_requests, backchannel_polls.
package backchannel

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Lives of a question.
const (
	Life    = 5 * time.Minute // by default
	MinLife = transaction.MinLife
	MaxLife = transaction.MaxLife
)

// Config of questions. The zero value is not usable: begin with [DefaultConfig].
type Config struct {
	// Open is how many one person is asked at once. Default and ceiling 3.
	Open int
	// Rate bounds how often one application asks one person.
	Rate limits.Window
	// Strangers bounds how often one application asks for people who cannot be asked.
	Strangers limits.Window
	// Pause is how long an application waits between two polls. Default 5 s: CIBA Core 1.0 section 7.3.
	Pause time.Duration
}

// DefaultConfig has the numbers that are documented.
func DefaultConfig() Config {
	return Config{
		Open: 3, Pause: 5 * time.Second,
		Rate:      limits.Window{Name: "ciba-client-subscriber", Burst: 10, Period: time.Hour},
		Strangers: limits.Window{Name: "ciba-client-stranger", Burst: 30, Period: 5 * time.Minute},
	}
}

// Service keeps questions. It is safe for concurrent use.
type Service struct {
	DB      *postgres.DB
	Keys    factors.Keys
	SignIns *authn.Service
	// Confirm keeps payments. Its Ended has to be [Service.Follow], its Suspended [Service.Suspend].
	Confirm *transaction.Service
	Outbox  *sms.Outbox
	Texts   *sms.Texts
	Issuer  string // what links begin with, without a trailing slash
	Config  Config
	// Waiting is who waits for answers. Nil: nobody does.
	Waiting *Waiting
}

// State of a question, as its application learns of it.
type State string

// States. All but the first are for good.
const (
	Pending  State = "pending"
	Approved State = "approved"
	Denied   State = "denied" // by the person; of a payment also: suspended, canceled, or failed
	Expired  State = "expired"
)

// Errors that callers tell apart. Every other error is a fault of the system.
var (
	// ErrUser: nobody can be asked by that hint now: unknown, disabled, blocked, without a phone for the payment, with too new a one, or with one whose SIM was changed. Which of these is never told.
	ErrUser = errors.New("backchannel: nobody to ask")
	// ErrTooMany: the person is asked for as much as can be at once. Wait for one of the questions to end.
	ErrTooMany = errors.New("backchannel: too many at once")
	// ErrUnknown: there is no such question, or not of this application.
	ErrUnknown = errors.New("backchannel: unknown")
	// ErrOver: it was answered, or its time is over.
	ErrOver = errors.New("backchannel: over")
)

// Hint says who is asked. Any of its fields that is set may fit; it has to be one person.
type Hint struct {
	Subject string     // sub
	Name    string     // user name or mail address
	Number  sms.Number // of a phone
}

// Question is what an application asks.
type Question struct {
	RelyingParty authn.RelyingParty
	// Requirement of the sign-in that answers it. Subject, Consent and Backchannel are set here.
	Requirement authn.Requirement
	Payload     []byte // the protocol's own
	Locales     string // that the application wishes for; "": the person's own
	Message     string
	Hint        Hint
	// Payment, when set, is what is to be confirmed.
	Payment *transaction.Order
	Life    time.Duration // 0: [Life]
	// Notify, when set, is who wants to be told when there is an answer.
	Notify *Notify
	// Spend, when set, adds what the request uses up to the statement that stores the question, and to that which refuses it.
	Spend func(*postgres.Query)
}

// Notify is how an application wants to be told.
type Notify struct {
	URL   string `json:"url"`
	Token string `json:"token"` // bearer token of the call
}

// Asked is a question that was stored.
type Asked struct {
	ID      uuid.UUID
	Secret  string // what the application asks with; stored hashed
	Life    time.Duration
	Pause   time.Duration
	Payment *transaction.Transaction // nil: it is about none
}

// sealed is how [Notify] is stored: who is told is told what to ask with.
type sealed struct {
	Notify
	Secret string `json:"secret"`
}

func notifyContext(id uuid.UUID) string { return "notification of backchannel request " + id.String() }

func hashed(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// PathPrefix is what the path of the page that answers a question begins with, below the issuer.
const PathPrefix = "/ciba/"

// Path of the page that answers a question.
func Path(id uuid.UUID) string { return PathPrefix + base64.RawURLEncoding.EncodeToString(id[:]) }

// ParsePath reads what follows [PathPrefix] in a path.
func ParsePath(text string) (id uuid.UUID, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return uuid.Nil, false
	}
	return uuid.UUID(raw), true
}

// person is who is asked.
type person struct {
	id      uuid.UUID
	subject string
	locale  string
	phone   *factors.Authenticator // that can be texted; nil: none
	number  sms.Number
}

// Ask stores a question and texts the person. Its errors are [ErrUser], [ErrTooMany] and transaction.InvalidError.
func (s *Service) Ask(ctx context.Context, q Question) (*Asked, error) {
	if q.Life == 0 {
		q.Life = Life
	}
	who, err := s.find(ctx, q.Hint)
	if err != nil {
		if errors.Is(err, ErrUser) {
			err = s.stranger(ctx, &q)
		}
		return nil, err
	}
	if q.Locales == "" {
		q.Locales = who.locale
	}
	q.Requirement.Subject, q.Requirement.Consent = who.subject, true
	asked, err := s.askOne(ctx, &q, who)
	if errors.Is(err, ErrTooMany) {
		record := new(postgres.Query)
		record.With("refused", "SELECT 1")
		audit.Record(ctx, record, "refused", audit.Event{Name: "backchannel.ask", Outcome: audit.Refused, Reason: "limit", Actor: "client", Client: q.RelyingParty.ID, Subject: who.id}, nil)
		record.Finally("SELECT 1 FROM refused")
		if _, problem := s.DB.Run(ctx, record); problem != nil {
			return nil, fmt.Errorf("record a refused question: %w", problem)
		}
	}
	return asked, err
}

// askOne is [Service.Ask] for somebody who was found.
func (s *Service) askOne(ctx context.Context, q *Question, who *person) (*Asked, error) {
	for tries := 0; ; tries++ {
		asked, err := s.ask(ctx, q, who)
		violation := pq.As(err, pqerror.UniqueViolation, pqerror.NotNullViolation)
		switch {
		case violation == nil || violation.Table != "backchannel_requests":
			if errors.Is(err, ErrUser) {
				return nil, s.stranger(ctx, q)
			}
			return asked, err
		case violation.Constraint != "backchannel_slots" || tries == 2*s.Config.Open: // somebody took the slot at the same moment: there may be another
			return nil, ErrTooMany
		}
	}
}

// stranger counts a hint that fits nobody who can be asked.
func (s *Service) stranger(ctx context.Context, question *Question) error {
	q := new(postgres.Query)
	if question.Spend != nil {
		question.Spend(q)
	}
	q.With("stranger", "SELECT 1")
	limits.Take(q, "stranger", limits.Hit{Window: s.Config.Strangers, Key: s.Keys.Fingerprint("backchannel stranger", question.RelyingParty.ID)})
	q.With("recorded", "SELECT 1 FROM limit_taken WHERE allowed")
	audit.Record(ctx, q, "recorded", audit.Event{Name: "backchannel.ask", Outcome: audit.Refused, Reason: "nobody", Actor: "client", Client: question.RelyingParty.ID}, nil)
	q.Finally("SELECT allowed FROM limit_taken")
	var allowed bool
	if err := s.DB.Get(ctx, &allowed, q); err != nil {
		return fmt.Errorf("count a question to nobody: %w", err)
	}
	if !allowed {
		return ErrTooMany
	}
	return ErrUser
}

// find finds who is asked. Whoever is blocked cannot be.
func (s *Service) find(ctx context.Context, h Hint) (*person, error) {
	q := new(postgres.Query)
	which := "u.subject = " + q.Bind(h.Subject) + "::text"
	if canonical, err := authn.Canonical(h.Name); h.Name != "" && err == nil {
		which += " OR u.id IN (SELECT subscriber_id FROM identifiers WHERE fingerprint = " + q.Bind(s.Keys.Fingerprint("identifier", canonical)) + "::bytea)"
	}
	if (h.Number != sms.Number{}) {
		which += " OR u.id IN (SELECT subject FROM (" + s.SignIns.Ledger.HoldersSQL(q, h.Number) + ") holder)"
	}
	q.Finally(fmt.Sprintf("SELECT u.id, u.subject, u.profile, %s AS bound, %s AS blocked_until FROM subscribers u WHERE u.disabled_at IS NULL AND (%s) LIMIT 2",
		factors.BoundSQL("u.id"), s.SignIns.Ledger.Limits.Strict.BlockedUntil(q, "uuid_send(u.id)"), which))
	var rows []struct {
		ID           uuid.UUID  `db:"id"`
		Subject      string     `db:"subject"`
		Profile      []byte     `db:"profile"`
		Bound        []byte     `db:"bound"`
		BlockedUntil *time.Time `db:"blocked_until"`
	}
	if err := s.DB.Select(ctx, &rows, q); err != nil {
		return nil, fmt.Errorf("find whom to ask: %w", err)
	}
	if len(rows) != 1 || rows[0].BlockedUntil != nil {
		return nil, ErrUser
	}
	row := rows[0]
	who := &person{id: row.ID, subject: row.Subject}
	if told, err := s.SignIns.Person(row.ID, row.Profile); err == nil {
		who.locale = told.Locale
	}
	bound, err := s.SignIns.Ledger.DecodeBound(row.Bound)
	if err != nil {
		return nil, err
	}
	for _, a := range bound {
		factor, _ := s.SignIns.Ledger.Factor(a.Kind)
		if reacher, ok := factor.(factors.Reacher); ok {
			number, err := reacher.Reach(a)
			if err != nil {
				return nil, err
			}
			who.phone, who.number = &a, number
			break
		}
	}
	return who, nil
}

// hit is the limit on how often the application asks this person.
func (s *Service) hit(client string, subscriber uuid.UUID) limits.Hit {
	return limits.Hit{Window: s.Config.Rate, Key: s.Keys.Fingerprint("backchannel rate", client+" "+subscriber.String())}
}

// ask stores the question, in one statement after that which finds the person; with a payment in two.
func (s *Service) ask(ctx context.Context, question *Question, who *person) (*Asked, error) {
	asked := &Asked{ID: uuid.New(), Secret: keyring.Token(), Life: question.Life, Pause: s.Config.Pause}
	notify, err := s.sealNotify(question, asked)
	if err != nil {
		return nil, err
	}
	if question.Payment != nil {
		order := *question.Payment
		order.ExpiresIn, order.Locale = question.Life, question.Locales
		made, err := s.Confirm.Create(ctx, transaction.Request{
			Order: order, Client: question.RelyingParty.ID, User: transaction.User{Subscriber: who.id}, Door: transaction.DoorCIBA, App: question.RelyingParty.AppHash,
			Hits: func(subscriber uuid.UUID) []limits.Hit {
				return []limits.Hit{s.hit(question.RelyingParty.ID, subscriber)}
			},
			Along: func(q *postgres.Query, created string) { s.insert(ctx, q, created, question, who, asked, notify) },
		})
		blocked, held := new(factors.BlockedError), new(transaction.HoldError)
		switch {
		case errors.Is(err, transaction.ErrTooMany):
			return nil, ErrTooMany
		case errors.Is(err, transaction.ErrUser), errors.Is(err, transaction.ErrNoPhone), errors.Is(err, transaction.ErrHeldBack), errors.As(err, &blocked), errors.As(err, &held):
			return nil, ErrUser
		case err != nil:
			return nil, err
		}
		asked.Payment = made
		return asked, nil
	}
	hits := []limits.Hit{s.hit(question.RelyingParty.ID, who.id)}
	if who.phone != nil {
		hits = append(hits, s.SignIns.Ledger.SendHits(ctx, who.id, who.number)...)
	}
	q := new(postgres.Query)
	q.With("who", "SELECT u.id AS subscriber_id FROM subscribers u WHERE u.id = "+q.Bind(who.id)+"::uuid AND u.disabled_at IS NULL")
	q.With("asking", fmt.Sprintf("SELECT subscriber_id, wall() + make_interval(secs => %s) AS expires_at FROM who", q.Bind(question.Life.Seconds())+"::float8"))
	limits.Take(q, "asking", hits...)
	q.With("allowed", "SELECT asking.* FROM asking, limit_taken WHERE limit_taken.allowed")
	s.insert(ctx, q, "allowed", question, who, asked, notify)
	if who.phone != nil {
		text, locale := s.Texts.Asked(question.Locales, question.RelyingParty.Name, s.Issuer+Path(asked.ID))
		if err := s.Outbox.Enqueue(q, sms.Message{ID: postgres.NewID(), To: who.number, Purpose: sms.Asked, Locale: locale, Text: text, Life: question.Life}, "backchannel_asked"); err != nil {
			return nil, fmt.Errorf("store text of a question: %w", err)
		}
	}
	q.Finally("SELECT EXISTS (SELECT FROM who) AS who, EXISTS (SELECT FROM backchannel_asked) AS asked")
	var got struct {
		Who   bool `db:"who"`
		Asked bool `db:"asked"`
	}
	switch err := s.DB.Get(ctx, &got, q); {
	case err != nil:
		return nil, fmt.Errorf("ask somebody: %w", err)
	case !got.Who:
		return nil, ErrUser
	case !got.Asked:
		return nil, ErrTooMany
	}
	return asked, nil
}

func (s *Service) sealNotify(question *Question, asked *Asked) ([]byte, error) {
	if question.Notify == nil {
		return nil, nil
	}
	plain, err := json.Marshal(sealed{*question.Notify, asked.Secret}) //nolint:gosec // to be sealed
	if err != nil {
		return nil, err
	}
	return s.Keys.Seal(plain, notifyContext(asked.ID))
}

// insert adds part `backchannel_asked`: the question, for the one row of part from (columns subscriber_id, expires_at). Where there is no room for it the whole statement fails.
func (s *Service) insert(ctx context.Context, q *postgres.Query, from string, question *Question, who *person, asked *Asked, notify []byte) {
	if question.Spend != nil {
		question.Spend(q)
	}
	required := question.Requirement
	required.Backchannel = &authn.Backchannel{Request: asked.ID, Message: question.Message}
	beginning := authn.Beginning{RelyingParty: question.RelyingParty, Requirement: required, Payload: question.Payload, Locales: question.Locales}
	beginning.RelyingParty.FirstParty = false // somebody has to press a button, whoever asks
	stored, err := s.SignIns.Stored(q, &beginning)
	if err != nil {
		panic(err) // texts and numbers
	}
	q.With("backchannel_beginning", stored)
	subscriber := q.Bind(who.id) + "::uuid"
	transactionID, requirement := "NULL::uuid", "b.requirement"
	if question.Payment != nil {
		transactionID, requirement = "f.id", "jsonb_set(b.requirement, '{backchannel,transaction}', to_jsonb(f.id))"
	}
	// First what is over gives its slot back, however late whoever sees to that may be.
	q.With("backchannel_room", "UPDATE backchannel_requests x SET state = 'expired', decided_at = wall(), notify_at = CASE WHEN x.notify IS NOT NULL THEN wall() END WHERE x.subscriber_id = "+subscriber+
		" AND x.state = 'pending' AND x.expires_at <= wall() RETURNING x.id, "+rung)
	q.With("backchannel_asked", fmt.Sprintf(`
		INSERT INTO backchannel_requests (id, hash, expires_at, client_id, subscriber_id, relying_party, requirement, payload, locales, login_hint, transaction_id, notify, single, slot)
		SELECT %s, %s, f.expires_at, %s, f.subscriber_id, b.relying_party, %s, b.payload, b.locales, b.login_hint, %s, %s, %s,
		       (SELECT n FROM generate_series(0, %s) n WHERE (SELECT count(*) FROM backchannel_room) >= 0 AND NOT EXISTS (
		          SELECT FROM backchannel_requests o WHERE o.subscriber_id = %s AND o.slot = n AND o.state = 'pending' AND o.expires_at > wall()) ORDER BY random() LIMIT 1)
		  FROM %s f, backchannel_beginning b
		RETURNING id, client_id, subscriber_id`,
		q.Bind(asked.ID)+"::uuid", q.Bind(hashed(asked.Secret))+"::bytea", q.Bind(question.RelyingParty.ID)+"::text", requirement, transactionID, q.Bind(notify)+"::bytea",
		q.Bind(question.RelyingParty.PaymentAccount)+"::bool", q.Bind(s.Config.Open-1)+"::int", subscriber, from))
	audit.Record(ctx, q, "backchannel_asked", audit.Event{Name: "backchannel.ask", Outcome: audit.Success, Actor: "client", Client: question.RelyingParty.ID, Subject: who.id, Object: asked.ID.String()}, nil)
}
