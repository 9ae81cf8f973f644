package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Status of a verification.
type Status string

// Statuses. All but Pending are for good.
const (
	StatusPending  Status = "pending"
	StatusApproved Status = "approved"
	StatusExpired  Status = "expired"
	StatusCanceled Status = "canceled"
	StatusFailed   Status = "failed"
)

// DeliveryStatus is how far a text has come.
type DeliveryStatus string

// Delivery statuses.
const (
	DeliveryQueued      DeliveryStatus = "queued"
	DeliverySent        DeliveryStatus = "sent" // the vendor has it
	DeliveryDelivered   DeliveryStatus = "delivered"
	DeliveryUndelivered DeliveryStatus = "undelivered"
	DeliveryFailed      DeliveryStatus = "failed"
	DeliveryUnknown     DeliveryStatus = "unknown" // no report came
)

// order is what is asked for, checked.
type order struct {
	to        address
	scenario  Scenario // "": none, or not in test mode
	request   asked
	ref       string
	payment   []byte // hash of the transaction; nil: none
	text      *sms.Approval
	template  Template
	locale    string
	app       string
	channels  []sms.Channel
	following time.Duration // until the next channel is tried; 0: by failures alone
	cleared   bool          // its statement asks whether the outbox would refuse it
}

// asked is what is kept of a request, to be told again and to make further codes from.
type asked struct {
	Purpose     string            `json:"purpose"`
	Locale      string            `json:"locale,omitempty"`
	Template    string            `json:"template,omitempty"`
	App         string            `json:"app,omitempty"`
	Channels    []string          `json:"channels,omitempty"`
	Timeouts    []int             `json:"timeouts,omitempty"` // of these, in seconds; 0 or missing: none
	Transaction *Transaction      `json:"transaction,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	ReturnURL   string            `json:"return_url,omitempty"` // of the page on which the code is entered
}

// approval is what the text says of it.
func (t *Transaction) approval() *sms.Approval {
	account := []rune(t.Account)
	return &sms.Approval{Amount: t.Amount, Currency: t.Currency, Payee: t.Payee, Tail: string(account[max(0, len(account)-4):])}
}

// messagePurpose is that of its text, by which vendors are chosen: not everybody can carry what a payment's says.
func (o *order) messagePurpose() string {
	if o.payment != nil {
		return sms.TransactionPurpose
	}
	return string(factors.Gateway)
}

// timeout is that of the i-th channel; 0: it has none.
func (a *asked) timeout(i int) time.Duration {
	if i >= len(a.Timeouts) {
		return 0
	}
	return time.Duration(a.Timeouts[i]) * time.Second
}

// hash is what a code for a transaction is bound to: every part in order, each with its length.
func (t *Transaction) hash() []byte {
	h := sha256.New()
	for _, part := range []string{"transaction", t.Amount, t.Currency, t.Payee, t.Account, t.Reference} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// created is what only the statement knows about a new verification.
type created struct {
	ID          uuid.UUID `json:"id"`
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	NextSendAt  time.Time `json:"next_send_at"`
	MaxAttempts int       `json:"max_attempts"`
}

// purposeOf is the purpose, in the ledger, of a caller's verifications: tests are another.
func (c *Caller) purpose() factors.Purpose {
	if c.Test {
		return factors.GatewayTest
	}
	return factors.Gateway
}

// recipient is an address as one tenant knows it.
func (g *Gateway) recipient(c *Caller, to address) []byte {
	return g.Keys.Fingerprint("gateway recipient", fmt.Sprintf("%s %s %s", c.purpose(), c.Tenant.ID, to.reveal()))
}

// counted is what a tenant's sends to an address are counted under.
func (g *Gateway) counted(c *Caller, to address) []byte {
	if !to.isMail() {
		return g.recipient(c, to)
	}
	return g.Keys.Fingerprint("gateway mailbox", fmt.Sprintf("%s %s", c.Tenant.ID, to.spelling()))
}

func sealContext(id uuid.UUID) string { return "verification " + id.String() }

// Windows that are the gateway's own.
const (
	pauseWindow  = "gateway-pause"
	numberWindow = "gateway-number-hour"
	minuteWindow = "gateway-minute"
	dayWindow    = "gateway-day"
)

// ledger is the one ledger, with what holds for a caller.
func (g *Gateway) ledger(c *Caller, recipient []byte, known ...factors.Factor) (*factors.Ledger, error) {
	l := g.Limits
	s := &c.Tenant.Settings
	if s.Attempts > 0 {
		l.Attempts = min(l.Attempts, s.Attempts)
	}
	// Whoever calls is a server that speaks for many: what is bounded by address and person elsewhere is bounded by tenant and number here.
	l.Source, l.SourceFailures, l.SubjectHour = limits.Window{}, limits.Window{}, limits.Window{}
	l.Failures = limits.Streak{Scope: "gateway", Limit: l.Failures.Limit, Block: l.Failures.Block, MaxBlock: 24 * time.Hour, Ceiling: 1 << 30} // nobody's account hangs on it: no block is for good
	if c.Test {
		l.Cooldown, l.Failures.Limit = 0, l.Failures.Ceiling
	} else if recipient != nil {
		day := g.DailyBudget
		if s.Day > 0 {
			day = s.Day
		}
		l.Further = []limits.Hit{
			{Window: limits.Window{Name: pauseWindow, Burst: 1, Period: l.Cooldown}, Key: recipient},
			{Window: limits.Window{Name: minuteWindow, Burst: s.Minute, Period: time.Minute, Shared: true}, Key: c.Tenant.ID[:]},
			{Window: limits.Window{Name: dayWindow, Burst: day, Period: 24 * time.Hour, Shared: true}, Key: c.Tenant.ID[:]},
		}
		if s.NumberHour > 0 && s.NumberHour < l.NumberHour.Burst {
			l.Further = append(l.Further, limits.Hit{Window: limits.Window{Name: numberWindow, Burst: s.NumberHour, Period: time.Hour}, Key: recipient})
		}
	}
	ledger, err := factors.NewLedger(g.DB, g.Keys, g.Outbox, l, known...)
	if err != nil {
		return nil, err
	}
	ledger.Checks, ledger.Guard = g.Checks, c.standing
	if !c.Test && g.mails(c) {
		ledger.Mails = g.Mails
	}
	ledger.Failed = func(ctx context.Context, q *postgres.Query, from string) {
		g.happened(ctx, q, from, from+".challenge_id", "'"+EventFailed+"'", "'attempts_exhausted'", "''")
	}
	return ledger, nil
}

// sending is the ledger for what an order sends.
func (g *Gateway) sending(c *Caller, o *order) (*factors.Ledger, error) {
	l, err := g.ledger(c, g.counted(c, o.to), g.factor(c, o))
	switch {
	case err != nil:
	case o.to.isMail():
		l.Limits.Everyone = limits.Window{} // that is a budget of texts, which cost money
	case o.payment != nil:
		l.Limits.Codes = 1 // one code for one payment, within its life: another text repeats it
	}
	return l, err
}

// factor makes codes and texts for an order.
func (g *Gateway) factor(c *Caller, o *order) *issuing {
	life := g.Life
	if s := c.Tenant.Settings.Life; s > 0 {
		life = min(life, time.Duration(s)*time.Second)
	}
	if o.payment != nil {
		life = min(life, PaymentLife)
	}
	i := &issuing{length: o.template.Length, alphabet: o.template.Alphabet, life: life}
	if c.Test {
		if i.fixed = TestCode; o.scenario == ShortLived {
			i.life = testShort
		}
		return i
	}
	if o.to.isMail() {
		i.mail = func(code string) *factors.Mail {
			m := &factors.Mail{Key: g.Keys.Fingerprint("mailbox", o.to.spelling())}
			m.To = o.to.mailbox
			m.Subject, m.Locale = g.Texts.Subject(c.Tenant.Settings.Service, o.locale)
			if m.Text = o.template.fill(c.Tenant.Settings.Service, code, life, o.text); o.template.Text == "" {
				m.Text, m.Locale = g.Texts.Program(c.Tenant.Settings.Service, o.locale, code, life, o.text, "", "")
			}
			m.Text += "\n"
			return m
		}
		return i
	}
	i.message = func(code string) *sms.Message {
		m := &sms.Message{Cleared: o.cleared, To: o.to.phone, Purpose: o.messagePurpose(), Channels: o.channels, Sender: o.template.Sender}
		if o.template.Text != "" {
			// What was checked when the template was made is its text with names of usual length. A longer one costs browsers their line first, and then the template its text.
			body := o.template.fill(c.Tenant.Settings.Service, code, life, o.text)
			for _, closing := range []string{sms.Closing(o.template.Host, code, o.app), sms.Closing("", code, o.app)} {
				if m.Text, m.Locale = body+closing, o.template.Locale; sms.Fits(m.Text) {
					return m
				}
			}
		}
		host := o.template.Host
		if host == "" && o.request.ReturnURL != "" {
			host = g.autofill()
		}
		if m.Text, m.Locale = g.Texts.Program(c.Tenant.Settings.Service, o.locale, code, life, o.text, host, o.app); !sms.Fits(m.Text) {
			m.Text, m.Locale = g.Texts.Program(c.Tenant.Settings.Service, o.locale, code, life, o.text, o.template.Host, o.app)
		}
		return m
	}
	return i
}

// refuse is the answer to a number that has a scenario of being refused.
func (s Scenario) refuse() *Problem {
	switch s {
	case Landline:
		return problem(InvalidNumber).Because("landline")
	case OptedOut:
		return problem(RecipientOptedOut)
	case Fraud:
		return problem(FraudSuspected)
	case RateLimited:
		return problem(TooMany).Scoped("number").Wait(testRetry)
	}
	return nil
}

// retryVendors is when to come back while no vendor works: their breakers try again after 5 seconds.
const retryVendors = 5 * time.Second

// reachable reports whether a text could go out now.
func (g *Gateway) reachable(o *order) *Problem {
	if o.to.isMail() {
		return nil
	}
	plan, _, _ := g.Ways.Plan(o.to.phone, o.messagePurpose())
	fits, up := false, false
	for _, way := range plan {
		if len(o.channels) == 0 || slices.Contains(o.channels, way.Channel) {
			fits, up = true, up || g.Ways.Up(way.Vendor)
		}
	}
	switch {
	case up:
		return nil
	case !fits && len(o.channels) > 0 && len(plan) > 0:
		return invalid("/channels", "no vendor has one of these for that country")
	}
	return problem(Unavailable).Wait(retryVendors)
}

// create opens a verification, in one statement: whoever asks still may, the number may be texted, every window has room, and the answer to a repeated request is
// stored with it.
func (g *Gateway) create(ctx context.Context, c *Caller, o *order, claim *claim) (*created, error) {
	if p := o.scenario.refuse(); p != nil {
		return nil, p
	}
	if !c.Test {
		if p := g.reachable(o); p != nil {
			return nil, p
		}
	}
	o.cleared = true
	recipient := g.recipient(c, o.to)
	l, err := g.sending(c, o)
	if err != nil {
		return nil, err
	}
	q := new(postgres.Query)
	c.standing(q)
	refused := "NULL::text"
	if !c.Test && !o.to.isMail() {
		refused = g.Outbox.Refused(q, o.to.phone)
	}
	held, mine := claim.Held(q), "true"
	if held != "" {
		mine = "EXISTS (SELECT FROM asked)"
	}
	q.With("asked", "SELECT "+refused+" AS refused FROM caller"+held)
	q.With("may_send", "SELECT 1 FROM asked WHERE refused IS NULL")
	a := factors.Authenticator{Subject: uuid.UUID(recipient[:16]), Kind: Kind}
	draw := g.purse.Draw()
	id, err := l.Open(ctx, q, "may_send", a, factors.Binding{
		Purpose: c.purpose(), Subject: a.Subject, Browser: uuid.NewSHA1(c.Tenant.ID, []byte(o.ref)), Owner: c.Tenant.ID, Context: o.payment,
	}, factors.Prompt{MustSend: true, Prepaid: draw.Pay})
	if err != nil {
		return nil, err
	}
	sealed, err := g.Keys.Seal([]byte(o.to.reveal()), sealContext(id))
	if err != nil {
		return nil, fmt.Errorf("seal number: %w", err)
	}
	request, err := json.Marshal(o.request)
	if err != nil {
		return nil, err
	}
	q.With("verification", fmt.Sprintf(`
		INSERT INTO verifications (id, created_at, tenant_id, test, recipient, number, hint, country, request, client_ref, payment, scenario, next_at)
		SELECT id, created_at, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, CASE WHEN %[11]s > 0 THEN created_at + make_interval(secs => %[11]s) END FROM challenge_opened`,
		q.Bind(c.Tenant.ID)+"::uuid", q.Bind(c.Test)+"::bool", q.Bind(recipient)+"::bytea", q.Bind(sealed)+"::bytea", q.Bind(o.to.hint())+"::text", q.Bind(o.to.country())+"::text",
		q.Bind(string(request))+"::jsonb", q.Bind(o.ref)+"::text", q.Bind(o.payment)+"::bytea", q.Bind(string(o.scenario))+"::text",
		q.Bind(o.following.Seconds())+"::float8"))
	full, retry := "NULL::text", "NULL::timestamptz"
	if !c.Test {
		full, retry = "(SELECT full_window FROM limit_taken)", "(SELECT retry_at FROM limit_taken)"
	}
	q.With("unopened", "SELECT coalesce(refused, "+full+", '') AS reason FROM asked WHERE NOT EXISTS (SELECT FROM challenge_opened)")
	audit.Record(ctx, q, "unopened", audit.Event{Name: "verification.create", Outcome: audit.Refused, Actor: "client"}, audit.Expressions{"reason": "unopened.reason"})
	claim.Settle(q, "challenge_opened", 201, "jsonb_build_object('created', jsonb_build_object('id', id, 'created_at', created_at, 'expires_at', expires_at, 'next_send_at', next_send_at, 'max_attempts', max_attempts))")
	q.Finally(`SELECT EXISTS (SELECT FROM caller) AS standing, ` + mine + ` AS mine, (SELECT refused FROM asked) AS refused, ` + full + ` AS full_window, ` + retry + ` AS retry_at, wall() AS now,
		o.id, o.created_at, o.expires_at, o.next_send_at, o.max_attempts FROM (SELECT 1) one LEFT JOIN challenge_opened o ON true`)
	var got struct {
		Standing    bool       `db:"standing"`
		Mine        bool       `db:"mine"`
		Refused     *string    `db:"refused"`
		Full        *string    `db:"full_window"`
		RetryAt     *time.Time `db:"retry_at"`
		Now         time.Time  `db:"now"`
		ID          *uuid.UUID `db:"id"`
		CreatedAt   *time.Time `db:"created_at"`
		ExpiresAt   *time.Time `db:"expires_at"`
		NextSendAt  *time.Time `db:"next_send_at"`
		MaxAttempts *int       `db:"max_attempts"`
	}
	if err := g.DB.Get(ctx, &got, q); err != nil {
		return nil, fmt.Errorf("create verification: %w", err)
	}
	window := ""
	if got.Full != nil {
		window = *got.Full
	}
	draw.Settle(got.ID != nil, window)
	switch {
	case got.ID != nil:
		return &created{ID: *got.ID, CreatedAt: *got.CreatedAt, ExpiresAt: *got.ExpiresAt, NextSendAt: *got.NextSendAt, MaxAttempts: *got.MaxAttempts}, nil
	case !got.Standing:
		return nil, g.fallen(c)
	case !got.Mine:
		return nil, problem(RequestInProgress).Wait(time.Second)
	case got.Refused != nil:
		return nil, refusal(sms.Class(*got.Refused))
	}
	return nil, full429(window, got.RetryAt, got.Now)
}

// fallen forgets a caller who no longer may.
func (g *Gateway) fallen(*Caller) *Problem {
	g.Tenants.forget("")
	return problem(InvalidAPIKey)
}

// refusal is the answer to what the outbox would not send.
func refusal(class sms.Class) *Problem {
	switch class {
	case sms.RecipientOptedOut:
		return problem(RecipientOptedOut)
	case sms.RegionBlocked:
		return problem(CountryNotServed)
	}
	return problem(FraudSuspected)
}

// full429 is the answer when a window has no room.
func full429(window string, retry *time.Time, now time.Time) *Problem {
	p := problem(TooMany).Scoped("number")
	switch window {
	case pauseWindow:
		p.Reason = "too_early"
	case dayWindow:
		p = problem(QuotaExceeded)
	case minuteWindow:
		p.Scope = "tenant"
	case "send-everyone-day": // the server's own, which is nobody's fault who asks
		p = problem(Unavailable)
	}
	wait := time.Minute
	if retry != nil {
		wait = retry.Sub(now)
	}
	return p.Wait(wait)
}

// record is a verification as it stands.
type record struct {
	ID         uuid.UUID `db:"id"`
	CreatedAt  time.Time `db:"created_at"`
	Hint       string    `db:"hint"`
	Country    string    `db:"country"`
	Number     []byte    `db:"number"`
	Request    []byte    `db:"request"`
	Ref        string    `db:"client_ref"`
	Payment    []byte    `db:"payment"`
	Scenario   Scenario  `db:"scenario"`
	State      []byte    `db:"state"`
	Deliveries []byte    `db:"deliveries"`
	Now        time.Time `db:"now"`

	asked asked
	state *factors.State
}

// readable is how long after its end a verification may be read.
const readable = "interval '24 hours'"

// records reads the caller's verifications: from is a table or a statement, where a condition over v. Nothing of others is ever among them.
func (g *Gateway) records(ctx context.Context, q *postgres.Query, c *Caller, from, where, order string) ([]*record, error) {
	l, err := g.ledger(c, nil)
	if err != nil {
		return nil, err
	}
	c.standing(q)
	texts := sms.DeliveriesSQL("v.id")
	if l.Mails != nil {
		texts += " || " + mail.DeliveriesSQL("v.id")
	}
	q.Finally(fmt.Sprintf(`SELECT EXISTS (SELECT FROM caller) AS standing, r.* FROM (SELECT 1) one LEFT JOIN LATERAL (
		SELECT v.id, v.created_at, v.hint, v.country, v.number, v.request, v.client_ref, v.payment, v.scenario, wall() AS now, s.state, %s AS deliveries
		  FROM %s v CROSS JOIN LATERAL (SELECT %s AS state) s
		 WHERE v.tenant_id = %s AND v.test = %s AND %s AND EXISTS (SELECT FROM caller)
		   AND least((s.state->>'ended_at')::timestamptz, (s.state->>'expires_at')::timestamptz) > wall() - %s %s) r ON true`,
		texts, from, l.BriefSQL("v.id"), q.Bind(c.Tenant.ID)+"::uuid", q.Bind(c.Test)+"::bool", where, readable, order))
	var rows []struct {
		Standing   bool       `db:"standing"`
		ID         *uuid.UUID `db:"id"`
		CreatedAt  *time.Time `db:"created_at"`
		Hint       *string    `db:"hint"`
		Country    *string    `db:"country"`
		Number     []byte     `db:"number"`
		Request    []byte     `db:"request"`
		Ref        *string    `db:"client_ref"`
		Payment    []byte     `db:"payment"`
		Scenario   *string    `db:"scenario"`
		Now        *time.Time `db:"now"`
		State      []byte     `db:"state"`
		Deliveries []byte     `db:"deliveries"`
	}
	if err := g.DB.Select(ctx, &rows, q); err != nil {
		return nil, fmt.Errorf("read verifications: %w", err)
	}
	var list []*record
	for _, row := range rows {
		if !row.Standing {
			return nil, g.fallen(c)
		}
		if row.ID == nil {
			return nil, nil
		}
		r := &record{ID: *row.ID, CreatedAt: *row.CreatedAt, Hint: *row.Hint, Country: *row.Country, Number: row.Number, Request: row.Request, Ref: *row.Ref, Payment: row.Payment,
			Scenario: Scenario(*row.Scenario), Now: *row.Now, State: row.State, Deliveries: row.Deliveries}
		if err := json.Unmarshal(r.Request, &r.asked); err != nil {
			return nil, fmt.Errorf("request of verification %s: %w", r.ID, err)
		}
		if r.state, err = factors.DecodeState(r.State); err != nil || r.state == nil {
			return nil, errors.Join(fmt.Errorf("verification %s has no challenge", r.ID), err)
		}
		list = append(list, r)
	}
	return list, nil
}

// byID reads one verification of the caller's.
func (g *Gateway) byID(ctx context.Context, c *Caller, id uuid.UUID) (*record, error) {
	q := new(postgres.Query)
	return only(g.records(ctx, q, c, "(SELECT * FROM verifications WHERE id = "+q.Bind(id)+"::uuid AND "+kept("")+" OFFSET 0)", "true", ""))
}

// latest reads the caller's last verification of a number.
func (g *Gateway) latest(ctx context.Context, c *Caller, to address) (*record, error) {
	q := new(postgres.Query)
	return only(g.records(ctx, q, c, "(SELECT * FROM verifications WHERE recipient = "+q.Bind(g.recipient(c, to))+"::bytea ORDER BY created_at DESC LIMIT 1)", "true", ""))
}

func only(list []*record, err error) (*record, error) {
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, problem(NotFound)
	}
	return list[0], nil
}

// status says how a challenge stands.
func status(s *factors.State, now time.Time) (status Status, reason string) {
	switch {
	case s.Outcome == "verified":
		return StatusApproved, ""
	case s.Outcome == "failed":
		return StatusFailed, "attempts_exhausted"
	case s.EndedAt != nil && !s.EndedAt.Before(s.ExpiresAt): // whatever was done to it afterwards
		return StatusExpired, ""
	case s.Outcome == "superseded":
		return StatusCanceled, "superseded"
	case s.Outcome == "canceled":
		return StatusCanceled, ""
	case s.Outcome == "expired", !now.Before(s.ExpiresAt):
		return StatusExpired, ""
	}
	return StatusPending, ""
}

// over is the answer to whoever wants something of a verification that has ended; nil while it is pending.
func over(s *factors.State, now time.Time) *Problem {
	switch got, _ := status(s, now); got {
	case StatusApproved:
		return problem(AlreadyVerified)
	case StatusFailed:
		return problem(AttemptsExhausted).Left(0)
	case StatusCanceled:
		return problem(Canceled)
	case StatusExpired:
		return problem(OTPExpired)
	}
	return nil
}

// kept is an SQL condition: row v of verifications is young enough to be readable, so that other days' partitions are not looked at.
func kept(v string) string {
	return fmt.Sprintf("%[1]screated_at > wall() - interval '2 days' AND %[1]screated_at < wall() + interval '1 hour'", v)
}

// owned is a statement for a verification of the caller's. It is looked for by its id, whatever the planner thinks of tenants with few of them.
func (c *Caller) owned(q *postgres.Query, id uuid.UUID) string {
	return fmt.Sprintf(`SELECT v.* FROM (SELECT id, payment, tenant_id, test, client_ref, hint FROM verifications
		WHERE id = %s AND %s OFFSET 0) v WHERE v.tenant_id = %s AND v.test = %s`,
		q.Bind(id)+"::uuid", kept(""), q.Bind(c.Tenant.ID)+"::uuid", q.Bind(c.Test)+"::bool")
}

// verdict is the answer to a code.
type verdict struct {
	valid bool
	left  int
	ended bool // that was the last attempt
}

// check tries a code, in one statement. An error is a [Problem] when the verification is not one that codes are tried on.
func (g *Gateway) check(ctx context.Context, c *Caller, id uuid.UUID, code string, payment []byte, claim *claim) (*verdict, error) {
	l, err := g.ledger(c, nil)
	if err != nil {
		return nil, err
	}
	var got struct {
		Standing bool            `json:"standing"`
		Found    bool            `json:"found"`
		Payment  *string         `json:"payment"`
		Left     *int            `json:"left"`  // attempts, if one was paid
		State    json.RawMessage `json:"state"` // if none was
		Now      time.Time       `json:"now"`
	}
	binding := factors.Binding{Purpose: c.purpose(), Owner: c.Tenant.ID, Context: payment}
	returned, answered := l.Answer(ctx, id, factors.Authenticator{Kind: Kind}, binding, code, func(q *postgres.Query, won string) string {
		q.With("owned", c.owned(q, id))
		claim.Settle(q, won, 200, "jsonb_build_object('left', (SELECT max_attempts - attempts FROM challenge_paid))")
		if !c.Test && g.Happened != nil { // what is bound has to be used
			g.happenedTo(ctx, q, "challenge_closed", "owned v", q.Bind(c.Tenant.Name)+"::text", "CASE WHEN challenge_closed.won THEN '"+EventApproved+"' ELSE '"+EventFailed+"' END",
				"CASE WHEN NOT challenge_closed.won THEN 'attempts_exhausted' END", "''")
		}
		return fmt.Sprintf(`jsonb_build_object('standing', %s) || coalesce((SELECT jsonb_build_object('found', true, 'left', p.max_attempts - p.attempts, 'payment', encode(o.payment, 'hex'),
			'state', CASE WHEN p.id IS NULL THEN %s END, 'now', wall()) FROM owned o), '{}')`, c.standing(q), l.BriefSQL("o.id"))
	})
	blocked, isBlocked := errors.AsType[*factors.BlockedError](answered)
	if answered != nil && !isBlocked && !errors.Is(answered, factors.ErrMismatch) && !errors.Is(answered, factors.ErrOver) {
		return nil, answered
	}
	if err := json.Unmarshal(returned, &got); err != nil {
		return nil, fmt.Errorf("answer of check: %w", err)
	}
	if !got.Standing {
		return nil, g.fallen(c)
	}
	if !got.Found {
		return nil, problem(NotFound)
	}
	if got.Left != nil {
		return &verdict{valid: answered == nil, left: *got.Left, ended: answered != nil && *got.Left == 0}, nil
	}
	if isBlocked {
		return nil, problem(TooMany).Scoped("account").Wait(blocked.Until.Sub(got.Now))
	}
	s, err := factors.DecodeState(got.State)
	if err != nil || s == nil {
		return nil, errors.Join(errors.New("verification has no challenge"), err)
	}
	if p := over(s, got.Now); p != nil {
		return nil, p
	}
	switch {
	case got.Payment != nil && payment == nil:
		return nil, invalid("/transaction", "has to be sent again with the code")
	case got.Payment == nil && payment != nil || got.Payment != nil && *got.Payment != fmt.Sprintf("%x", payment):
		if err := g.cancel(ctx, c, id); err != nil { // the code is dead
			return nil, err
		}
		return nil, problem(TransactionMismatch)
	}
	// It ended while this was waiting for it: the snapshot shows it alive.
	r, err := g.byID(ctx, c, id)
	if err != nil {
		return nil, err
	}
	if p := over(r.state, r.Now); p != nil {
		return nil, p
	}
	return nil, problem(Canceled) // newer ones took its place
}

// cancel ends a verification. One that has ended stays as it is.
func (g *Gateway) cancel(ctx context.Context, c *Caller, id uuid.UUID) error {
	l, err := g.ledger(c, nil)
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	c.standing(q)
	q.With("owned", c.owned(q, id))
	q.With("target", "SELECT id FROM owned, caller")
	l.CancelOne(q, "target", "target.id")
	q.With("ended", "SELECT challenge_id::text AS object FROM challenge_canceled")
	audit.Record(ctx, q, "ended", audit.Event{Name: "verification.cancel", Outcome: audit.Success, Actor: "client"}, audit.Expressions{"object": "ended.object"})
	g.happened(ctx, q, "challenge_canceled", "challenge_canceled.challenge_id", "'"+EventCanceled+"'", "''", "''")
	q.Finally("SELECT EXISTS (SELECT FROM caller) AS standing, EXISTS (SELECT FROM target) AS found")
	var got struct {
		Standing bool `db:"standing"`
		Found    bool `db:"found"`
	}
	if err := g.DB.Get(ctx, &got, q); err != nil {
		return fmt.Errorf("cancel verification: %w", err)
	}
	switch {
	case !got.Standing:
		return g.fallen(c)
	case !got.Found:
		return problem(NotFound)
	}
	return nil
}

// ordered is what was asked for when a verification was made.
func (g *Gateway) ordered(r *record) (*order, error) {
	number, err := g.Keys.Open(r.Number, sealContext(r.ID))
	if err != nil {
		return nil, err
	}
	o := &order{request: r.asked, ref: r.Ref, payment: r.Payment, locale: r.asked.Locale, app: r.asked.App, scenario: r.Scenario}
	var bad *Problem
	if o.to, bad = read(string(number)); bad != nil {
		return nil, fmt.Errorf("address of verification %s: %s", r.ID, bad.Code)
	}
	return o, nil
}

// resend sends a code again, on a channel of its own if one is named.
func (g *Gateway) resend(ctx context.Context, c *Caller, id uuid.UUID, channel string, claim *claim) (*record, error) {
	r, err := g.byID(ctx, c, id)
	if err != nil {
		return nil, err
	}
	if p := over(r.state, r.Now); p != nil {
		return nil, p
	}
	o, err := g.ordered(r)
	if err != nil {
		return nil, err
	}
	switch {
	case o.to.isMail() && channel != "" && channel != Email:
		return nil, invalid("/channel", "is no way to an e-mail address")
	case !o.to.isMail() && channel == Email:
		return nil, invalid("/channel", "is for e-mail addresses")
	case o.to.isMail() && !g.mails(c): // not any more
		return nil, problem(InvalidNumber).Because("email_not_served")
	}
	o.template, _ = c.Tenant.Settings.template(r.asked.Template) // gone since: the product's own
	if t := r.asked.Transaction; t != nil {
		o.text = t.approval()
	}
	for _, name := range r.asked.Channels {
		o.channels = append(o.channels, sms.Channel(name))
	}
	if channel != "" && !o.to.isMail() {
		o.channels = []sms.Channel{sms.Channel(channel)}
	}
	if !c.Test {
		if p := g.reachable(o); p != nil {
			return nil, p
		}
	}
	l, err := g.sending(c, o)
	if err != nil {
		return nil, err
	}
	if !c.Test { // the ledger's own pause counts, and grows
		l.Limits.Further = l.Limits.Further[1:]
	}
	l.Resent = func(q *postgres.Query, from string) { claim.Settle(q, from, http.StatusOK, resentAnswer) }
	err = l.Resend(ctx, id, factors.Authenticator{Kind: Kind}, factors.Binding{Purpose: c.purpose(), Owner: c.Tenant.ID, Context: r.Payment}, factors.Prompt{})
	wait, isWait := errors.AsType[*factors.WaitError](err)
	switch {
	case isWait && wait.UsedUp:
		return nil, problem(TooMany).Scoped("account").Because("sends_exhausted").Wait(r.state.ExpiresAt.Sub(r.Now))
	case isWait && wait.Limited:
		return nil, full429(wait.Window, &wait.Until, r.Now)
	case isWait:
		return nil, problem(TooMany).Scoped("number").Because("too_early").Wait(wait.Until.Sub(r.Now))
	case errors.Is(err, factors.ErrOver): // it ended in the meantime, or whoever asks may no longer
		if r, err = g.byID(ctx, c, id); err != nil {
			return nil, err
		}
		if p := over(r.state, r.Now); p != nil {
			return nil, p
		}
		return nil, problem(Canceled)
	case err != nil:
		return nil, err
	}
	return g.byID(ctx, c, id)
}

// page is what a list is asked for.
type page struct {
	to     *address
	ref    string
	limit  int
	before *mark
}

// mark is where a list goes on.
type mark struct {
	At time.Time `json:"at"`
	ID uuid.UUID `json:"id"`
}

// list reads the caller's verifications, the newest first, and one more than asked for if there is one.
func (g *Gateway) list(ctx context.Context, c *Caller, p page) ([]*record, error) {
	q := new(postgres.Query)
	from, where := "verifications", "true"
	// A number or a reference has few, a tenant millions: the planner is not left the choice.
	switch {
	case p.to != nil:
		from = "(SELECT * FROM verifications WHERE recipient = " + q.Bind(g.recipient(c, *p.to)) + "::bytea OFFSET 0)"
	case p.ref != "":
		from = "(SELECT * FROM verifications WHERE tenant_id = " + q.Bind(c.Tenant.ID) + "::uuid AND client_ref = " + q.Bind(p.ref) + "::text AND client_ref <> '' OFFSET 0)"
	}
	if p.to != nil && p.ref != "" {
		where += " AND v.client_ref = " + q.Bind(p.ref) + "::text"
	}
	if p.before != nil {
		where += fmt.Sprintf(" AND (v.created_at, v.id) < (%s, %s)", q.Bind(p.before.At)+"::timestamptz", q.Bind(p.before.ID)+"::uuid")
	}
	return g.records(ctx, q, c, from, where, "ORDER BY v.created_at DESC, v.id DESC LIMIT "+q.Bind(p.limit+1)+"::int")
}
