// Package recovery gets people back in, and nobody else.
//
// # What somebody can ask for
//
// A [Recovery] is one try, and one row. Of kind [Password] it sets a new password and gives nothing else: no session, and the second factor stays what it was. Of kind
// [Access], for whoever has lost a factor, it opens a session at authn.RecoveryLevel, in which a password can be set and a factor bound; then whatever else was bound
// and was not proved goes, and the person signs in as ever. Of kind [Stop] it ends all others of the account: any one way to reach its owner is enough for that.
//
// # Who is let in
//
// [Decide] says what proofs are enough. What proves something is a code by text, a link by mail, a backup code, and a factor that is still bound; two of the same kind are
// one. No channel alone takes an account over: a link by mail sets a password because signing in takes a factor besides, and for the same reason a code by text does not
// where texts are a factor; access takes two kinds. An administrator can stand in for one of the two ([Engine.Vouch]), after another administrator agreed or the waiting
// period is over. Where the operator allows it, whoever knows the password may wait that long instead of the second proof, unless the password was set by the very
// channel that was proved.
//
// # What a stranger learns and does
//
// Nothing. To begin stores one row, whatever the name: who that is, is looked up afterwards by a [Worker], which sends what there is to send. Until something was proved
// every answer is the same for a name that nobody has. Messages are bounded for each account, so that their owner's own go on; wrong answers are counted apart from
// those of signing in, and lock nothing.
//
// # What is kept
//
// Every step is one conditional statement over the row in the state that was read. A row has one terminal state: finished, canceled, superseded, expired or refused.
// Signing in, a new password, and being disabled end it, whatever it had come to. A try that has proved nothing ends when another begins. Codes are challenges in the ledger of package
// factors; links are 256 random bits, stored hashed, consumed by a POST. The browser that asked has a cookie, renewed by each proof; a link takes the try
// along to the browser that opened it.
//
// Table: recoveries. It reads and changes subscribers and sessions through package authn.
package recovery

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Kind is what somebody wants. It is stored.
type Kind string

// Kinds.
const (
	Password Kind = "password" // a new password
	Access   Kind = "access"   // a factor was lost
	Stop     Kind = "stop"     // somebody else is at it
)

// State of a recovery. It is stored.
type State string

// States. The last five are terminal.
const (
	Asked      State = "asked"   // nobody has looked the name up yet
	Open       State = "open"    // proofs are awaited
	Held       State = "held"    // an administrator's, until another agrees or time passes
	Waiting    State = "waiting" // until time passes
	Granted    State = "granted" // enough was proved
	Finished   State = "finished"
	Canceled   State = "canceled"
	Superseded State = "superseded"
	Expired    State = "expired"
	Refused    State = "refused"
)

// Channel is the first way to reach somebody.
type Channel string

// Channels.
const (
	Text Channel = "text"
	Mail Channel = "mail"
)

// Kinds of proofs besides those of factors.
const (
	ByMail = "mail" // a link to the verified address
	byDesk = "desk" // an administrator knows who it is
)

// Config of recoveries. The zero value is not usable: begin with [DefaultConfig].
type Config struct {
	// Wait is how long an administrator's recovery is held, and how long whoever has one proof less has to wait. Default 24 h.
	Wait time.Duration
	// Alone lets whoever knows the password wait in place of the second proof. Default no: SP 800-63B-4 section 4.2.2.2.
	Alone bool
	// FreshPhone is how long a phone that was added recovers nothing. Default 24 h.
	FreshPhone time.Duration
	// Life of a try until enough was proved, and of the link. Default 60 min, ceiling 24 h: SP 800-63B-4 section 4.2.1.2.
	Life time.Duration
	// Repair is how long what was granted may take to be used. Default 30 min.
	Repair time.Duration
	// Ready is how long whoever had to wait may take to go on afterwards. Default 72 h.
	Ready time.Duration
	// Tries of answers before anything was proved. Default 5.
	Tries int
	// Sends of one try, the first included. Default 3.
	Sends int
	// Cooldown before something is sent again. Default 30 s.
	Cooldown time.Duration
	// Windows on what strangers can ask for: by address, by the name that was typed, and by account and channel. What texts they can cause leaves enough of a number's
	// budget (factors.Limits) for its owner to sign in.
	Source, Name, TextHour, TextDay, MailHour limits.Window
	// LessHour is TextHour for [Stop].
	LessHour limits.Window
}

// DefaultConfig has the numbers that the pages' texts depend on.
func DefaultConfig() Config {
	return Config{
		Wait: 24 * time.Hour, FreshPhone: 24 * time.Hour, Life: time.Hour, Repair: 30 * time.Minute, Ready: 72 * time.Hour,
		Tries: 5, Sends: 3, Cooldown: 30 * time.Second,
		Source:   limits.Window{Name: "recovery-source", Burst: 25, Period: 5 * time.Minute},
		Name:     limits.Window{Name: "recovery-name-hour", Burst: 6, Period: time.Hour},
		TextHour: limits.Window{Name: "recovery-text-hour", Burst: 2, Period: time.Hour},
		TextDay:  limits.Window{Name: "recovery-text-day", Burst: 4, Period: 24 * time.Hour},
		MailHour: limits.Window{Name: "recovery-mail-hour", Burst: 4, Period: time.Hour},
		LessHour: limits.Window{Name: "recovery-stop-hour", Burst: 1, Period: time.Hour},
	}
}

// MaxLife is the ceiling of [Config].Life.
const MaxLife = 24 * time.Hour

// Engine runs recoveries. It is safe for concurrent use.
type Engine struct {
	DB      *postgres.DB
	Keys    factors.Keys
	SignIns *authn.Service
	Texts   *Texts
	// Mail carries links. Nil: there is no mail server, and no link.
	Mail *mail.Outbox
	// Issuer that links lead to, whatever the request says.
	Issuer string
	Config Config
	// Words that no password is to be built from: product, host.
	Words []string
	// Observe, when set, is told how recoveries begin and end, for metrics.
	Observe func(Kind, State)
	Log     *slog.Logger
}

// Errors that a page has to tell apart. Every other error is a fault of the system.
var (
	// ErrOver: there is no such recovery in this browser, or it is over, or too late. Begin anew.
	ErrOver = errors.New("recovery: over")
	// ErrWrong: the answer is not right, or nothing was asked of anybody. Which of these is never told.
	ErrWrong = errors.New("recovery: wrong answer")
	// ErrTries: there were too many wrong answers. Begin anew.
	ErrTries = errors.New("recovery: too many wrong answers")
	// ErrNotThisStep: something else is due. Load the recovery and show that.
	ErrNotThisStep = errors.New("recovery: another step is due")
	// ErrNoWay: that way is not offered. Choose another.
	ErrNoWay = errors.New("recovery: no such way")
	// ErrHeld: an administrator's recovery of this account is held already.
	ErrHeld = errors.New("recovery: one is held already")
	// ErrSameAdministrator: whoever asked cannot agree. Another administrator has to.
	ErrSameAdministrator = errors.New("recovery: the administrator who asked cannot agree")
	// ErrNotFound: there is no such recovery, or it is over.
	ErrNotFound = errors.New("recovery: not found")
)

// LimitError says that no more is begun or sent for a while.
type LimitError struct {
	Until time.Time
	Now   time.Time // the database's; the zero value where the caller knows it
}

func (e *LimitError) Error() string { return "recovery: too many" }

// Cookie is the value of the cookie of the browser that asked; it prints as nothing.
type Cookie string

// String keeps the cookie out of logs.
func (Cookie) String() string { return "[secret]" }

// GoString keeps it out of %#v.
func (Cookie) GoString() string { return "[secret]" }

func (c Cookie) hash() []byte { return hashed(string(c)) }

func hashed(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// Recovery is one try.
type Recovery struct {
	ID         uuid.UUID
	Kind       Kind
	State      State
	Reason     string
	Channel    Channel // the first way
	Proofs     []string
	ProvedBy   []uuid.UUID
	Knows      bool
	SignIn     uuid.UUID // that the person came from; uuid.Nil: none
	Locale     string
	CreatedAt  time.Time
	ExpiresAt  time.Time
	EndedAt    *time.Time
	DueAt      *time.Time
	NextSendAt *time.Time
	Tries      int
	Sends      int
	Now        time.Time // the database's time when it was read
	Operator   string    // the administrator who asked; empty: the person did
	ApprovedBy string

	// What is known of the account. Nobody who has proved nothing is told any of it.
	Subscriber uuid.UUID
	Username   string
	Address    mail.Address // verified; zero: none
	Bound      []factors.Authenticator
	Challenge  *factors.State
	Vouched    bool // an administrator stands in for one proof
	stands     bool
	since      time.Time // when the account was made
	resetBy    []string  // how the password that is known was set; nil: otherwise than by a recovery
	profile    []byte
	challenge  uuid.UUID
	askedOf    uuid.UUID
	linked     bool // a link was mailed, and is not used up
}

// Proved reports whether anything was proved, so that its owner may be told things.
func (r *Recovery) Proved() bool { return len(r.Proofs) > 0 || r.Knows }

// Live reports whether the try can be gone on with.
func (r *Recovery) Live() bool {
	return r.EndedAt == nil && r.Now.Before(r.ExpiresAt) && (r.stands || r.Subscriber == uuid.Nil)
}

// columns of row r of recoveries. The subscriber's are those of row u, which may be missing.
func (e *Engine) columns(q *postgres.Query) string {
	return `r.id, r.kind, r.state, r.reason, r.channel, r.proofs, r.proved_by::text[] AS proved_by, r.knows, r.sign_in_id, r.locale, r.created_at, r.expires_at, r.ended_at, r.due_at, r.next_send_at,
		r.tries, r.sends, wall() AS now, coalesce(r.by_operator, '') AS by_operator, coalesce(r.approved_by, '') AS approved_by, r.subscriber_id, coalesce(u.username, '') AS username, u.profile, u.created_at AS since, r.challenge_id, r.asked_of, r.link_hash IS NOT NULL AS linked,
		coalesce(` + standsSQL + `, false) AS stands, CASE WHEN u.password_reset_at = u.password_changed_at THEN u.password_reset_by END AS reset_by,
		EXISTS (SELECT FROM recoveries d WHERE d.subscriber_id = r.subscriber_id AND d.id <> r.id AND ` + vouchesSQL + `) AS vouched, ` +
		factors.BoundSQL("r.subscriber_id") + ` AS bound, ` + e.SignIns.Ledger.StateSQL(q, "r.challenge_id") + ` AS challenge`
}

// standsSQL is an SQL condition on rows r and u: nothing has happened to the account since the try began that ends it.
var standsSQL = "(" + authn.Stands("u", "r.since") + " AND NOT " + authn.SignedInSQL("r.subscriber_id", "r.since") + ")"

// vouchesSQL is an SQL condition on row d: an administrator's recovery that can be gone on with.
var vouchesSQL = "d.state = 'held' AND d.ended_at IS NULL AND d.due_at <= wall() AND d.expires_at > wall() AND NOT " + authn.SignedInSQL("d.subscriber_id", "d.since")

type row struct {
	ID         uuid.UUID      `db:"id"`
	Kind       Kind           `db:"kind"`
	State      State          `db:"state"`
	Reason     string         `db:"reason"`
	Channel    Channel        `db:"channel"`
	Proofs     pq.StringArray `db:"proofs"`
	ProvedBy   pq.StringArray `db:"proved_by"`
	Knows      bool           `db:"knows"`
	SignIn     *uuid.UUID     `db:"sign_in_id"`
	Locale     string         `db:"locale"`
	CreatedAt  time.Time      `db:"created_at"`
	ExpiresAt  time.Time      `db:"expires_at"`
	EndedAt    *time.Time     `db:"ended_at"`
	DueAt      *time.Time     `db:"due_at"`
	NextSendAt *time.Time     `db:"next_send_at"`
	Tries      int            `db:"tries"`
	Sends      int            `db:"sends"`
	Now        time.Time      `db:"now"`
	ByOperator string         `db:"by_operator"`
	ApprovedBy string         `db:"approved_by"`
	Subscriber *uuid.UUID     `db:"subscriber_id"`
	Username   string         `db:"username"`
	Profile    []byte         `db:"profile"`
	Challenge  *uuid.UUID     `db:"challenge_id"`
	AskedOf    *uuid.UUID     `db:"asked_of"`
	Linked     bool           `db:"linked"`
	Stands     bool           `db:"stands"`
	Since      *time.Time     `db:"since"`
	ResetBy    pq.StringArray `db:"reset_by"`
	Vouched    bool           `db:"vouched"`
	Bound      []byte         `db:"bound"`
	StateJSON  []byte         `db:"challenge"`
}

// read gives the recovery that q selects; [ErrOver] if none.
func (e *Engine) read(ctx context.Context, q *postgres.Query) (*Recovery, error) {
	var got row
	if err := e.DB.Get(ctx, &got, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrOver
	} else if err != nil {
		return nil, fmt.Errorf("read recovery: %w", err)
	}
	return e.decode(&got)
}

func (e *Engine) decode(got *row) (*Recovery, error) {
	r := &Recovery{
		ID: got.ID, Kind: got.Kind, State: got.State, Reason: got.Reason, Channel: got.Channel, Proofs: got.Proofs, Knows: got.Knows, Locale: got.Locale, CreatedAt: got.CreatedAt,
		ExpiresAt: got.ExpiresAt, EndedAt: got.EndedAt, DueAt: got.DueAt, NextSendAt: got.NextSendAt, Tries: got.Tries, Sends: got.Sends, Now: got.Now, Operator: got.ByOperator, ApprovedBy: got.ApprovedBy,
		Username: got.Username, Vouched: got.Vouched, stands: got.Stands, resetBy: got.ResetBy, profile: got.Profile,
		SignIn: orNil(got.SignIn), Subscriber: orNil(got.Subscriber), challenge: orNil(got.Challenge), askedOf: orNil(got.AskedOf), linked: got.Linked,
	}
	if got.Since != nil {
		r.since = *got.Since
	}
	for _, text := range got.ProvedBy {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("recovery %s: %w", r.ID, err)
		}
		r.ProvedBy = append(r.ProvedBy, id)
	}
	if r.Subscriber == uuid.Nil {
		return r, nil
	}
	person, err := e.SignIns.Person(r.Subscriber, got.Profile)
	if err == nil || errors.Is(err, mail.ErrAddress) { // an address that no mail can be sent to is none
		r.Address = person.Address
	} else {
		return nil, err
	}
	if r.Bound, err = e.SignIns.Ledger.DecodeBound(got.Bound); err != nil {
		return nil, err
	}
	r.Challenge, err = factors.DecodeState(got.StateJSON)
	return r, err
}

func orNil(id *uuid.UUID) uuid.UUID {
	if id == nil {
		return uuid.Nil
	}
	return *id
}

func optional(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id
}

// Load reads the recovery of this browser, in one round trip. [ErrOver]: it has none.
func (e *Engine) Load(ctx context.Context, cookie Cookie) (*Recovery, error) {
	q := new(postgres.Query)
	q.Finally("SELECT " + e.columns(q) + " FROM recoveries r LEFT JOIN subscribers u ON u.id = r.subscriber_id WHERE r.token_hash = " + q.Bind(cookie.hash()) + "::bytea")
	return e.read(ctx, q)
}

// record adds an audit record of what part has done to recoveries: it has columns id and subscriber_id.
func record(ctx context.Context, q *postgres.Query, part string, event audit.Event, over audit.Expressions) {
	if over == nil {
		over = audit.Expressions{}
	}
	over["subject"], over["object"] = part+".subscriber_id", part+".id::text"
	if event.Actor == "" {
		event.Actor = "subscriber"
	}
	if event.Outcome == "" {
		event.Outcome = audit.Success
	}
	audit.Record(ctx, q, part, event, over)
}

// told adds to q what the account's owner and the operator's programs are told of part, which has columns id, subscriber_id, kind and state.
func (e *Engine) told(ctx context.Context, q *postgres.Query, part string, kind notices.Kind, n notices.Event, over notices.Expressions) {
	if over == nil {
		over = notices.Expressions{}
	}
	over["subject"] = part + ".subscriber_id"
	n.Kind = kind
	e.SignIns.Notices.Add(ctx, q, part, n, over)
	event := events.Event{Type: events.UserRecoveryFinished, Owner: events.Operator}
	if kind == notices.RecoveryStarted {
		event.Type = events.UserRecoveryStarted
	}
	events.Add(q, part, event, events.Expressions{ID: "(SELECT su.subject FROM subscribers su WHERE su.id = " + part + ".subscriber_id)", Status: part + ".state", Reason: part + ".kind"})
}

func (e *Engine) observe(kind Kind, state State) {
	if e.Observe != nil {
		e.Observe(kind, state)
	}
}

// uuids is an SQL array of ids.
func uuids(q *postgres.Query, ids []uuid.UUID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return q.Bind(pq.Array(texts)) + "::uuid[]"
}

// phones are the authenticators that codes can be texted to.
func (e *Engine) phones(r *Recovery) (list []factors.Authenticator) {
	for _, a := range r.Bound {
		if e.texted(a.Kind) && !e.young(r, a) {
			list = append(list, a)
		}
	}
	return list
}

func (e *Engine) texted(kind string) bool {
	return slices.Contains(e.SignIns.Ledger.Reachable(), kind)
}

// wordsOf is what a password of this person must not be built from.
func (e *Engine) wordsOf(r *Recovery, u *authn.Subscriber) []string {
	words := append(slices.Clone(e.Words), r.Username)
	for _, name := range []string{"name", "given_name", "family_name", "email", "phone_number"} {
		if text, ok := u.Profile[name].(string); ok && text != "" {
			words = append(words, text)
		}
	}
	for _, a := range r.Bound {
		factor, _ := e.SignIns.Ledger.Factor(a.Kind)
		if reacher, ok := factor.(factors.Reacher); ok {
			if number, err := reacher.Reach(a); err == nil {
				words = append(words, number.Words()...)
			}
		}
	}
	return words
}
