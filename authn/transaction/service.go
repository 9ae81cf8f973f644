package transaction

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Keep is how long transactions stay: as long as whoever was charged may object, Directive (EU) 2015/2366 Art. 71, and some time to find out.
const Keep = 550 * 24 * time.Hour

// Config of confirmations. The zero value is not usable: begin with [DefaultConfig].
type Config struct {
	// Hold is how long a phone has to have been bound. Default 24 h.
	Hold time.Duration
	// Open is how many transactions one person is asked for at once. Default and ceiling 3: the ledger bears no more challenges.
	Open int
	// ResultLife is how long a signed result may be acted upon. Default and ceiling 5 min.
	ResultLife time.Duration
	// ACR is told of an approval that rests on the code alone.
	ACR string
}

// DefaultConfig has the numbers that are documented.
func DefaultConfig() Config {
	return Config{Hold: 24 * time.Hour, Open: 3, ResultLife: 5 * time.Minute, ACR: "urn:watchword:acr:transaction"}
}

// Service keeps transactions. It is safe for concurrent use.
type Service struct {
	DB     *postgres.DB
	Keys   factors.Keys
	Ledger *factors.Ledger
	Signer Signer
	Issuer string // of results
	Config Config
	// HeldBack, when set, says that codes are not to be texted to a phone for now, because its SIM was changed lately: see authn.Service.HeldBack.
	HeldBack func(ctx context.Context, subscriber uuid.UUID, a factors.Authenticator) (bool, error)
	// Ended, when set, adds what follows the end of transactions to the statement that ends them, however they end: part has columns id, client_id and state of each. It may be called
	// for several parts of one statement. A part can have transactions besides that had ended before.
	Ended func(q *postgres.Query, part string)
	// Suspended, when set, adds what else ends when somebody says that they did not ask for a transaction: part has column subscriber_id.
	Suspended func(ctx context.Context, q *postgres.Query, part string)
}

// State of a transaction.
type State string

// States. All but the first are for good.
const (
	Pending  State = "pending"
	Approved State = "approved"
	Refused  State = "refused"  // the person said no
	Reported State = "reported" // the person said «I didn't ask for this»
	Expired  State = "expired"
	Canceled State = "canceled" // by the application, or suspended
	Failed   State = "failed"
)

// Refusal is how an application learns why it got no approval, wherever it asked; "" for a transaction that is open, approved, or none.
func (s State) Refusal() string {
	switch s {
	case Refused, Reported:
		return "user_" + string(s)
	case Expired, Canceled, Failed:
		return "transaction_" + string(s)
	}
	return ""
}

// Reasons, of the states that can have several.
const (
	ReasonAttempts  = "attempts"  // failed: too many wrong codes
	ReasonChanged   = "changed"   // failed: something else was sent with the code
	ReasonSuspended = "suspended" // canceled: the person reported another one
	ReasonClient    = "client"    // canceled: by the application
)

// Doors, by which a transaction is answered.
const (
	DoorREST = "rest" // the application collects the code
	DoorPage = "page" // a page of ours, in a browser that is signed in
	DoorCIBA = "ciba" // a page of ours, while the application waits
)

// Shown is what somebody saw.
type Shown struct {
	Channel  string `json:"channel"` // a kind of factor, or "page"
	Text     string `json:"text"`    // with a mark in place of the code, and accounts masked
	Locale   string `json:"locale"`
	Template string `json:"template"` // and its version
}

// Transaction is one, as it is now.
type Transaction struct {
	Record
	Canonical  json.RawMessage // of Record, as it was hashed
	Hash       []byte
	Subscriber uuid.UUID
	Door       string
	Warnings   []string
	CreatedAt  time.Time
	ExpiresAt  time.Time
	State      State
	Reason     string
	DecidedAt  time.Time // zero: it was not
	ReportedAt time.Time // zero: it was not
	Shown      []Shown
	// ACR, AMR and AuthTime say what an approval rests on.
	ACR      string
	AMR      []string
	AuthTime time.Time
	// Challenge is what the code is asked by. After [Service.Create] it has its id alone.
	Challenge *factors.State
	// Sent reports, after Create, that a text was stored. It was not when a limit on texts is reached: ask for one later with [Service.Resend].
	Sent bool
	// Hint is what the phone ends in, after Create.
	Hint string
	// Result is the signed result, when this call has brought about the approval.
	Result string

	resultID      uuid.UUID
	challenge     uuid.UUID
	authenticator factors.Authenticator
}

// User says who is asked. One of its fields is set.
type User struct {
	Subscriber uuid.UUID
	Subject    string     // sub
	Number     sms.Number // of a phone that one person has bound
}

// Request is what a door wants to have confirmed.
type Request struct {
	Order  Order
	Client string
	User   User
	Door   string
	// Holder is who alone may answer: the session of a browser. Zero: the application itself.
	Holder uuid.UUID
	// App is the hash of the Android app that reads the text, or "".
	App string
	// Later has nothing sent before the person asks for it, by [Service.Resend]: a page that is merely opened sends no text.
	Later bool
	// Able, when set, gives an SQL condition, adding the parts that it needs: without it nothing is created.
	Able func(q *postgres.Query) string
	// Along, when set, adds what the door stores with it in the same statement: parts that select from part created (columns id, challenge_id, subscriber_id, created_at, expires_at).
	Along func(q *postgres.Query, created string)
	// Hits, when set, are limits of the door's own on asking this person. Then nothing is stored while a limit, theirs or one on texts, is full: [ErrTooMany].
	Hits func(subscriber uuid.UUID) []limits.Hit
}

// binding is what an answer must come with. Each transaction holds a challenge of its own.
func (t *Transaction) binding(holder uuid.UUID) factors.Binding {
	if holder == uuid.Nil {
		holder = uuid.NewSHA1(uuid.NameSpaceOID, []byte("client:"+t.Client))
	}
	return factors.Binding{Purpose: factors.Transaction, Subject: t.Subscriber, Browser: uuid.NewSHA1(holder, t.ID[:]), Context: t.Hash, Strict: true}
}

// prompt is how the person is asked.
func (t *Transaction) prompt(app string) factors.Prompt {
	a := &sms.Approval{Amount: t.Amount, Currency: t.Currency, Payee: t.Payees[0].Name, More: len(t.Payees) - 1}
	if a.More == 0 {
		a.Tail = t.Payees[0].Tail()
	}
	return factors.Prompt{Purpose: factors.Transaction, Locale: t.Locale, App: app, Life: min(Life, t.ExpiresIn), Approves: a}
}

// content is what is sealed.
type content struct {
	Record   string   `json:"record"` // canonical; a text, because JSON within JSON is not kept byte for byte
	Shown    []Shown  `json:"shown"`
	Warnings []string `json:"warnings,omitempty"`
}

func sealContext(id uuid.UUID) string     { return "transaction " + id.String() }
func decisionContext(id uuid.UUID) string { return "decision of transaction " + id.String() }

// Create stores a transaction and asks the person, in two round trips: one finds them, one stores record, challenge, text and audit record. Its errors are [InvalidError], [ErrUser],
// [ErrNoPhone], [HoldError], [ErrHeldBack], [ErrTooMany], [ErrOver] where [Request.Able] was not met, and factors.BlockedError.
func (s *Service) Create(ctx context.Context, r Request) (*Transaction, error) {
	var who payer
	t, err := s.createOne(ctx, r, &who)
	var reason string
	blocked, hold := new(factors.BlockedError), new(HoldError)
	switch {
	case r.Door == DoorCIBA: // what refuses the question is recorded with that
		return t, err
	case errors.As(err, &hold):
		reason = "phone_too_new"
	case errors.As(err, &blocked):
		reason = "blocked"
	case errors.Is(err, ErrTooMany):
		reason = "limit"
	case errors.Is(err, ErrNoPhone):
		reason = "no_phone"
	case errors.Is(err, ErrUser):
		reason = "nobody"
	default:
		return t, err
	}
	q := new(postgres.Query)
	q.With("refused", "SELECT 1")
	audit.Record(ctx, q, "refused", audit.Event{Name: "transaction.create", Outcome: audit.Refused, Reason: reason, Actor: "client", Subject: who.id, Client: r.Client}, nil)
	q.Finally("SELECT 1 FROM refused")
	if _, problem := s.DB.Run(ctx, q); problem != nil {
		return nil, fmt.Errorf("record a refused transaction: %w", problem)
	}
	return nil, err
}

// createOne is [Service.Create] but for the record of a refusal. who is whom it found.
func (s *Service) createOne(ctx context.Context, r Request, who *payer) (*Transaction, error) {
	for tries := 0; ; tries++ {
		t, err := s.create(ctx, r, who)
		switch violation := pq.As(err, pqerror.UniqueViolation); {
		case errors.Is(err, errOverdue) && tries < 2*s.Config.Open: // whoever sees to that is late
			if _, err := s.Expire(ctx); err != nil {
				return nil, err
			}
		case errors.Is(err, errOverdue), violation != nil && violation.Constraint == "transactions_slots" && tries == 2*s.Config.Open:
			return nil, ErrTooMany
		case violation == nil || violation.Constraint != "transactions_slots": // else somebody took the slot at the same moment: there may be another
			return t, err
		}
	}
}

// errOverdue says that what is over is what takes the room. See to it and try again.
var errOverdue = errors.New("transaction: overdue ones take the room")

// create is one try of [Service.createOne].
func (s *Service) create(ctx context.Context, r Request, who *payer) (*Transaction, error) {
	o, warnings, err := r.Order.Normalize()
	if err != nil {
		return nil, err
	}
	payer, a, err := s.payer(ctx, r.User)
	*who = payer
	if err != nil {
		return nil, err
	}
	t := &Transaction{Record: NewRecord(r.Client, payer.subject, o), Subscriber: payer.id, Door: r.Door, Warnings: warnings, State: Pending, Hint: a.Hint, authenticator: a}
	t.Canonical, t.Hash = t.Record.Canonical(), t.Record.Hash()
	prompt := t.prompt(r.App)
	prompt.Later = r.Later
	ledger := s.Ledger
	if r.Hits != nil {
		own := *s.Ledger
		own.Limits.Further = append(slices.Clone(own.Limits.Further), r.Hits(payer.id)...)
		ledger, prompt.MustSend = &own, true
	}
	linked, _ := s.Ledger.Factor(a.Kind)
	words := linked.(factors.Linked).Words(prompt)
	t.Shown = []Shown{{Channel: a.Kind, Text: words.Text, Locale: words.Locale, Template: words.Template}}
	plain, err := json.Marshal(content{Record: string(t.Canonical), Shown: t.Shown, Warnings: warnings})
	if err != nil {
		return nil, err
	}
	sealed, err := s.Keys.Seal(plain, sealContext(t.ID))
	if err != nil {
		return nil, fmt.Errorf("seal transaction: %w", err)
	}

	q := new(postgres.Query)
	q.With("payer", fmt.Sprintf(`
		SELECT u.id FROM subscribers u JOIN authenticators a ON a.subject = u.id
		 WHERE u.id = %s AND u.disabled_at IS NULL AND a.id = %s AND a.unbound_at IS NULL AND a.bound_at <= wall() - make_interval(secs => %s)`,
		q.Bind(payer.id)+"::uuid", q.Bind(a.ID)+"::uuid", q.Bind(s.Config.Hold.Seconds())+"::float8"))
	able := "true"
	if r.Able != nil {
		able = r.Able(q)
	}
	q.With("transaction_able", "SELECT 1 WHERE "+able)
	q.With("transaction_asked", fmt.Sprintf(`
		SELECT p.id, free.slot FROM payer p, transaction_able, LATERAL (
		       SELECT n AS slot FROM generate_series(0, %s) n WHERE NOT EXISTS (SELECT FROM transactions o WHERE o.subscriber_id = p.id AND o.slot = n AND o.state = 'pending') ORDER BY random() LIMIT 1) free`,
		q.Bind(s.Config.Open-1)+"::int"))
	challenge, err := ledger.Open(ctx, q, "transaction_asked", a, t.binding(r.Holder), prompt)
	if err != nil {
		return nil, err
	}
	q.With("transaction_created", fmt.Sprintf(`
		INSERT INTO transactions (id, expires_at, client_id, subscriber_id, door, hash, content, challenge_id, authenticator_id, kind, slot)
		SELECT %s, wall() + make_interval(secs => %s), %s, %s, %s, %s, %s, c.id, %s, %s, a.slot FROM challenge_opened c, transaction_asked a
		RETURNING id, challenge_id, subscriber_id, created_at, expires_at, result_id`,
		q.Bind(t.ID)+"::uuid", q.Bind(o.ExpiresIn.Seconds())+"::float8", q.Bind(t.Client)+"::text", q.Bind(payer.id)+"::uuid", q.Bind(t.Door)+"::text", q.Bind(t.Hash)+"::bytea",
		q.Bind(sealed)+"::bytea", q.Bind(a.ID)+"::uuid", q.Bind(a.Kind)+"::text"))
	audit.Record(ctx, q, "transaction_created", audit.Event{Name: "transaction.create", Outcome: audit.Success, Reason: t.Door, Actor: "client", Subject: payer.id, Client: t.Client,
		Object: PublicID(t.ID)}, nil)
	if r.Along != nil {
		r.Along(q, "transaction_created")
	}
	q.Finally(`SELECT EXISTS (SELECT FROM payer) AS payer, EXISTS (SELECT FROM transaction_able) AS able, EXISTS (SELECT FROM transaction_asked) AS room,
		EXISTS (SELECT FROM transactions o, payer p WHERE o.subscriber_id = p.id AND o.state = 'pending' AND o.expires_at <= wall()) AS overdue, c.created_at, c.expires_at, c.result_id, coalesce((SELECT sends FROM challenge_opened), 0) > 0 AS sent
		FROM (SELECT 1) one LEFT JOIN transaction_created c ON true`)
	var got struct {
		Payer     bool       `db:"payer"`
		Able      bool       `db:"able"`
		Room      bool       `db:"room"`
		Overdue   bool       `db:"overdue"`
		CreatedAt *time.Time `db:"created_at"`
		ExpiresAt *time.Time `db:"expires_at"`
		ResultID  *uuid.UUID `db:"result_id"`
		Sent      bool       `db:"sent"`
	}
	if err := s.DB.Get(ctx, &got, q); err != nil {
		return nil, fmt.Errorf("create transaction: %w", err)
	}
	switch {
	case !got.Payer: // disabled, or the phone was taken away, in the meantime
		return nil, ErrUser
	case !got.Able:
		return nil, ErrOver
	case !got.Room && got.Overdue:
		return nil, errOverdue
	case got.CreatedAt == nil:
		return nil, ErrTooMany
	}
	t.CreatedAt, t.ExpiresAt, t.resultID, t.Sent = *got.CreatedAt, *got.ExpiresAt, *got.ResultID, got.Sent
	t.Challenge = &factors.State{ID: challenge, AuthenticatorID: a.ID, Kind: a.Kind, Purpose: factors.Transaction, MaxAttempts: s.Ledger.Limits.Attempts, ExpiresAt: t.ExpiresAt}
	return t, nil
}

// payer is who is asked.
type payer struct {
	id      uuid.UUID
	subject string
}

// payer finds who is asked, and the phone: the one that was used last of those that are old enough. Whom it found it gives with an error too.
func (s *Service) payer(ctx context.Context, u User) (payer, factors.Authenticator, error) {
	q := new(postgres.Query)
	var which string
	number := u.Number != sms.Number{}
	switch {
	case u.Subscriber != uuid.Nil:
		which = "u.id = " + q.Bind(u.Subscriber) + "::uuid"
	case u.Subject != "":
		which = "u.subject = " + q.Bind(u.Subject) + "::text"
	case number:
		which = "u.id IN (SELECT subject FROM (" + s.Ledger.HoldersSQL(q, u.Number) + ") holder)"
	default:
		return payer{}, factors.Authenticator{}, ErrUser
	}
	q.Finally(fmt.Sprintf("SELECT u.id, u.subject, wall() AS now, %s AS bound, %s AS blocked_until FROM subscribers u WHERE u.disabled_at IS NULL AND %s LIMIT 2",
		factors.BoundSQL("u.id"), s.streak().BlockedUntil(q, "uuid_send(u.id)"), which))
	var rows []struct {
		ID           uuid.UUID  `db:"id"`
		Subject      string     `db:"subject"`
		Now          time.Time  `db:"now"`
		Bound        []byte     `db:"bound"`
		BlockedUntil *time.Time `db:"blocked_until"`
	}
	if err := s.DB.Select(ctx, &rows, q); err != nil {
		return payer{}, factors.Authenticator{}, fmt.Errorf("find payer: %w", err)
	}
	if len(rows) != 1 {
		return payer{}, factors.Authenticator{}, ErrUser
	}
	row := rows[0]
	found := payer{row.ID, row.Subject}
	if row.BlockedUntil != nil {
		return found, factors.Authenticator{}, &factors.BlockedError{Until: *row.BlockedUntil}
	}
	bound, err := s.Ledger.DecodeBound(row.Bound)
	if err != nil {
		return found, factors.Authenticator{}, err
	}
	var hold *HoldError
	changed := false
	for _, a := range bound {
		factor, _ := s.Ledger.Factor(a.Kind)
		if !factors.Serves(factor, factors.Transaction) {
			continue
		}
		if number {
			if reached, err := reach(factor, a); err != nil || reached != u.Number {
				continue
			}
		}
		if until := a.BoundAt.Add(s.Config.Hold); until.After(row.Now) {
			if hold == nil || until.Before(hold.Until) {
				hold = &HoldError{Until: until}
			}
			continue
		}
		if held, err := s.heldBack(ctx, row.ID, a); err != nil {
			return found, factors.Authenticator{}, err
		} else if held {
			changed = true
			continue
		}
		return found, a, nil
	}
	if changed {
		return found, factors.Authenticator{}, ErrHeldBack
	}
	if hold != nil {
		return found, factors.Authenticator{}, hold
	}
	return found, factors.Authenticator{}, ErrNoPhone
}

// heldBack asks [Service.HeldBack].
func (s *Service) heldBack(ctx context.Context, subscriber uuid.UUID, a factors.Authenticator) (bool, error) {
	if s.HeldBack == nil {
		return false, nil
	}
	return s.HeldBack(ctx, subscriber, a)
}

func reach(f factors.Factor, a factors.Authenticator) (sms.Number, error) {
	r, ok := f.(factors.Reacher)
	if !ok {
		return sms.Number{}, ErrNoPhone
	}
	return r.Reach(a)
}

// streak is the limit on wrong codes in a row: the tighter one.
func (s *Service) streak() limits.Streak { return s.Ledger.Limits.Strict }

// row is one of table transactions.
type row struct {
	ID              uuid.UUID      `db:"id"`
	CreatedAt       time.Time      `db:"created_at"`
	ExpiresAt       time.Time      `db:"expires_at"`
	Client          string         `db:"client_id"`
	Subscriber      uuid.UUID      `db:"subscriber_id"`
	Door            string         `db:"door"`
	Hash            []byte         `db:"hash"`
	Content         []byte         `db:"content"`
	ChallengeID     uuid.UUID      `db:"challenge_id"`
	AuthenticatorID uuid.UUID      `db:"authenticator_id"`
	Kind            string         `db:"kind"`
	ResultID        uuid.UUID      `db:"result_id"`
	State           State          `db:"state"`
	Reason          string         `db:"reason"`
	DecidedAt       *time.Time     `db:"decided_at"`
	Decision        []byte         `db:"decision"`
	ACR             *string        `db:"acr"`
	AMR             pq.StringArray `db:"amr"`
	AuthTime        *time.Time     `db:"auth_time"`
	ReportedAt      *time.Time     `db:"reported_at"`
	Challenge       []byte         `db:"challenge"`
}

// columns of row t, and the state of its challenge by an SQL expression.
func columns(challenge string) string {
	return `t.id, t.created_at, t.expires_at, t.client_id, t.subscriber_id, t.door, t.hash, t.content, t.challenge_id, t.authenticator_id, t.kind, t.result_id, t.state, t.reason, t.decided_at, t.decision,
		t.acr, t.amr, t.auth_time, t.reported_at, ` + challenge + ` AS challenge`
}

func (s *Service) transaction(row *row) (*Transaction, error) {
	plain, err := s.Keys.Open(row.Content, sealContext(row.ID))
	if err != nil {
		return nil, err
	}
	var c content
	if err := json.Unmarshal(plain, &c); err != nil {
		return nil, fmt.Errorf("content of transaction: %w", err)
	}
	t := &Transaction{
		Canonical: json.RawMessage(c.Record), Hash: row.Hash, Subscriber: row.Subscriber, Door: row.Door, Warnings: c.Warnings, CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt,
		State: row.State, Reason: row.Reason, Shown: c.Shown, AMR: row.AMR, resultID: row.ResultID, challenge: row.ChallengeID,
		authenticator: factors.Authenticator{ID: row.AuthenticatorID, Subject: row.Subscriber, Kind: row.Kind},
	}
	if t.Record, err = ParseRecord(t.Canonical); err != nil {
		return nil, err
	}
	if !slices.Equal(t.Record.Hash(), row.Hash) || t.ID != row.ID || t.Client != row.Client {
		return nil, fmt.Errorf("transaction %s: %w", row.ID, ErrNotCanonical) // somebody changed the table
	}
	for _, at := range []struct {
		from *time.Time
		to   *time.Time
	}{{row.DecidedAt, &t.DecidedAt}, {row.ReportedAt, &t.ReportedAt}, {row.AuthTime, &t.AuthTime}} {
		if at.from != nil {
			*at.to = at.from.UTC()
		}
	}
	if row.ACR != nil {
		t.ACR = *row.ACR
	}
	if len(row.Decision) > 0 {
		if plain, err = s.Keys.Open(row.Decision, decisionContext(row.ID)); err != nil {
			return nil, err
		}
		var page Shown
		if err := json.Unmarshal(plain, &page); err != nil {
			return nil, fmt.Errorf("decision of transaction: %w", err)
		}
		t.Shown = append(t.Shown, page)
	}
	t.Challenge, err = factors.DecodeState(row.Challenge)
	return t, err
}

// Get reads a transaction of an application, in one round trip. What expired is stored as expired before it is told, which takes two more, once: nothing that was told ever changes.
// Of its challenge it reads tries, times and outcome, for two days.
func (s *Service) Get(ctx context.Context, client string, id uuid.UUID) (*Transaction, error) {
	return s.get(ctx, client, id, func(*postgres.Query) string { return s.Ledger.BriefSQL("t.challenge_id") })
}

// GetWithText is [Service.Get] with what became of the text, and until when nobody is asked: for pages, which show that.
func (s *Service) GetWithText(ctx context.Context, client string, id uuid.UUID) (*Transaction, error) {
	return s.get(ctx, client, id, func(q *postgres.Query) string { return s.Ledger.StateSQL(q, "t.challenge_id") })
}

func (s *Service) get(ctx context.Context, client string, id uuid.UUID, challenge func(*postgres.Query) string) (*Transaction, error) {
	which := func(q *postgres.Query) string {
		return fmt.Sprintf("t.id = %s AND t.client_id = %s", q.Bind(id)+"::uuid", q.Bind(client)+"::text")
	}
	for {
		var found struct {
			row
			Due bool `db:"due"`
		}
		q := new(postgres.Query)
		q.Finally(fmt.Sprintf("SELECT %s, t.state = 'pending' AND t.expires_at <= wall() AS due FROM transactions t WHERE %s", columns(challenge(q)), which(q)))
		if err := s.DB.Get(ctx, &found, q); errors.Is(err, postgres.ErrNotFound) {
			return nil, ErrUnknown
		} else if err != nil {
			return nil, fmt.Errorf("read transaction: %w", err)
		}
		if !found.Due {
			return s.transaction(&found.row)
		}
		q = new(postgres.Query) // an answer that began in time may be about to commit: whichever is first
		s.expire(q, which(q))
		q.Finally("SELECT 1 FROM transaction_expired")
		if _, err := s.DB.Run(ctx, q); err != nil {
			return nil, fmt.Errorf("expire transaction: %w", err)
		}
	}
}

// List reads transactions, the newest first: all that began before a time, of one application or, with "", of all. It is for operators; what expired in the meantime may be pending yet.
func (s *Service) List(ctx context.Context, client string, before time.Time, limit int) ([]*Transaction, error) {
	q := new(postgres.Query)
	var until *time.Time
	if !before.IsZero() {
		until = &before
	}
	of := ""
	if client != "" {
		of = " AND t.client_id = " + q.Bind(client) + "::text"
	}
	q.Finally(fmt.Sprintf("SELECT %s FROM transactions t WHERE t.created_at < coalesce(%s, 'infinity')%s ORDER BY t.created_at DESC LIMIT %s",
		columns(s.Ledger.BriefSQL("t.challenge_id")), q.Bind(until)+"::timestamptz", of, q.Bind(limit)+"::int"))
	var rows []row
	if err := s.DB.Select(ctx, &rows, q); err != nil {
		return nil, fmt.Errorf("list transactions: %w", err)
	}
	all := make([]*Transaction, len(rows))
	for i := range rows {
		var err error
		if all[i], err = s.transaction(&rows[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Find reads any transaction. It is the operator's door.
func (s *Service) Find(ctx context.Context, id uuid.UUID) (*Transaction, error) {
	q := new(postgres.Query)
	q.Finally("SELECT " + columns(s.Ledger.BriefSQL("t.challenge_id")) + " FROM transactions t WHERE t.id = " + q.Bind(id) + "::uuid")
	var found row
	if err := s.DB.Get(ctx, &found, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrUnknown
	} else if err != nil {
		return nil, fmt.Errorf("read transaction: %w", err)
	}
	return s.transaction(&found)
}

// expire adds part `transaction_expired` (all columns) to q: what is over of transactions t that which says has expired.
func (s *Service) expire(q *postgres.Query, which string) {
	q.With("transaction_expired", fmt.Sprintf("UPDATE transactions t SET state = 'expired', decided_at = wall() WHERE %s AND t.state = 'pending' AND t.expires_at <= wall() RETURNING t.*", which))
	audit.Follow(q, "transaction_expired", audit.Event{Name: "transaction.expire", Outcome: audit.Success},
		audit.Expressions{"subject": "transaction_expired.subscriber_id", "client_id": "transaction_expired.client_id", "object": publicSQL("transaction_expired")})
	tell(q, "transaction_expired", events.Event{Type: events.TransactionExpired})
	s.follow(q, "transaction_expired")
}

// follow adds what follows the end of what part has.
func (s *Service) follow(q *postgres.Query, part string) {
	if s.Ended != nil {
		s.Ended(q, part)
	}
}

// publicSQL is [PublicID] of part's id.
func publicSQL(part string) string {
	return "('" + idPrefix + "' || replace(" + part + ".id::text, '-', ''))"
}

// tell adds the event for what part (columns id, client_id, state, reason) has.
func tell(q *postgres.Query, part string, e events.Event) {
	events.Add(q, part, e, events.Expressions{Owner: events.ClientSQL(part + ".client_id"), ID: publicSQL(part), Status: part + ".state", Reason: "nullif(" + part + ".reason, '')"})
}

// Expire ends what is over, some at a time, and says how many: call it again until it says 0.
func (s *Service) Expire(ctx context.Context) (n int64, err error) {
	q := new(postgres.Query)
	q.With("transaction_due", "SELECT id FROM transactions WHERE state = 'pending' AND expires_at <= wall() ORDER BY expires_at LIMIT 500 FOR UPDATE SKIP LOCKED")
	s.expire(q, "t.id IN (SELECT id FROM transaction_due)")
	q.Finally("SELECT 1 FROM transaction_expired")
	if n, err = s.DB.Run(ctx, q); err != nil {
		return 0, fmt.Errorf("expire transactions: %w", err)
	}
	return n, nil
}

// Run expires transactions every few seconds, until ctx ends. log is told what went wrong.
func (s *Service) Run(ctx context.Context, log func(error)) error {
	return postgres.Sweep(ctx, s.Expire, log)
}

// Resend sends the code again: see factors.Ledger.Resend. Its errors are [ErrUnknown], [ErrDecided] with the transaction, [ErrOver], [ErrHeldBack] and factors.WaitError.
func (s *Service) Resend(ctx context.Context, client string, id, holder uuid.UUID, app string) (*Transaction, error) {
	t, err := s.Get(ctx, client, id)
	if err != nil {
		return nil, err
	}
	if t.State != Pending {
		return t, ErrDecided
	}
	if t.Challenge == nil {
		return t, ErrOver
	}
	a, err := s.authenticator(ctx, t)
	if err != nil {
		return t, err
	}
	if held, err := s.heldBack(ctx, t.Subscriber, a); err != nil {
		return t, err
	} else if held {
		return t, ErrHeldBack
	}
	if err = s.Ledger.Resend(ctx, t.Challenge.ID, a, t.binding(holder), t.prompt(app)); errors.Is(err, factors.ErrOver) {
		err = ErrOver
	}
	return t, err
}

// authenticator reads the phone that the transaction is confirmed with.
func (s *Service) authenticator(ctx context.Context, t *Transaction) (factors.Authenticator, error) {
	q := new(postgres.Query)
	q.Finally("SELECT " + factors.BoundSQL(q.Bind(t.Subscriber)+"::uuid") + " AS bound")
	var data []byte
	if err := s.DB.Get(ctx, &data, q); err != nil {
		return factors.Authenticator{}, fmt.Errorf("read phone of transaction: %w", err)
	}
	bound, err := s.Ledger.DecodeBound(data)
	if err != nil {
		return factors.Authenticator{}, err
	}
	i := slices.IndexFunc(bound, func(a factors.Authenticator) bool { return a.ID == t.authenticator.ID })
	if i < 0 {
		return factors.Authenticator{}, ErrOver
	}
	return bound[i], nil
}

// standing is an SQL condition on transactions t: nothing happened to the payer's account since that takes away what was given.
func standing() string { return authn.StandingSQL("t.subscriber_id", "t.created_at") }
