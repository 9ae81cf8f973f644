package sms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// Vendor carries codes to phones. That is all a driver has to do; whatever else a vendor can do is an interface of its own,
// found by type assertion: [Checker], [Continuer], [Closer], [Receiver], [Poller], [Pinger], [Subscriber].
type Vendor interface {
	// Name of the instance, as configured: it is stored with each leg and is part of the path that receipts come to.
	Name() string
	// Abilities never change while the program runs.
	Abilities() Abilities
	// Send hands leg to the vendor. Nil means that the vendor has taken it. Every failure is an [*Error]; anything else
	// counts as unknown and maybe sent.
	Send(ctx context.Context, leg Leg) (Accepted, error)
}

// Checker is a vendor that made the code itself and alone can tell whether an answer is right. The ledger has paid the attempt before it asks.
type Checker interface {
	Vendor
	// Check asks whether answer is the code of the session. Whatever is not understood is Denied; an error is the
	// vendor's fault and proves nothing.
	Check(ctx context.Context, s Session, answer string) (Verdict, error)
}

// Continuer is a vendor that can send again, or on another channel, within a session that is open: the code stays the same.
type Continuer interface {
	Vendor
	Continue(ctx context.Context, s Session, leg Leg) (Accepted, error)
}

// Closer is a vendor whose sessions have to be told how they ended.
type Closer interface {
	Vendor
	// Close reports that the challenge of the session was answered rightly, or that it ended otherwise.
	Close(ctx context.Context, s Session, verified bool) error
}

// Receiver is a vendor that reports delivery and hands over replies by calling us.
type Receiver interface {
	Vendor
	// Receive authenticates a request and only then reads it. Errors: [ErrForged], [ErrStale], [ErrMalformed].
	Receive(w Webhook) (Received, error)
}

// Poller is a vendor that tells delivery only when it is asked.
type Poller interface {
	Vendor
	Poll(ctx context.Context, s Session) (Report, error)
}

// Pinger is a vendor whose credentials can be tried without sending anything.
type Pinger interface {
	Vendor
	// Ping tells what the account has left, in the vendor's words, or "".
	Ping(ctx context.Context) (balance string, err error)
}

// Subscriber is a vendor that reports over a connection of its own instead of calling us.
type Subscriber interface {
	Vendor
	// Run keeps the connection until ctx ends. What it receives it acknowledges to the carrier only after told has returned nil.
	Run(ctx context.Context, told func(context.Context, Received) error) error
}

// Channel is a way to a phone.
type Channel string

// Channels.
const (
	SMS      Channel = "sms"
	WhatsApp Channel = "whatsapp"
	Voice    Channel = "voice"
)

// Kind says who makes the code.
type Kind uint8

// Kinds of vendors.
const (
	Gateway  Kind = iota // carries the text that we give it
	Verifier             // makes, sends and checks a code of its own: [Checker]
	Hybrid               // has a session of its own that takes our code
)

// Idempotency says what a vendor does with a leg that it has had before.
type Idempotency uint8

// Idempotencies.
const (
	NoKey  Idempotency = iota // sends it again
	Replay                    // gives the first answer again
	Refuse                    // refuses it, which proves that the first arrived: the driver says Accepted
)

// Abilities of a vendor.
type Abilities struct {
	Kind        Kind
	Channels    []Channel
	Idempotency Idempotency
	// Countries served, ISO 3166-1 alpha-2. Nil: every one.
	Countries []string
	// Digits is the longest code a Hybrid takes, or 0.
	Digits int
	// CodesOnly says that a Gateway carries codes in a template of its own, and no other text.
	CodesOnly bool
}

// carriesTexts reports whether the vendor can carry a text without a code.
func (a *Abilities) carriesTexts() bool { return a.Kind == Gateway && !a.CodesOnly }

// Leg is one call to one vendor. It is stored before the call.
type Leg struct {
	ID       uuid.UUID // the idempotency key
	To       Number
	Channel  Channel
	Sender   string // sender id for the number's country; "": the driver's own
	Text     string // with the code in it. A Verifier has texts of its own
	Code     string // for vendors whose templates hold everything else
	Purpose  string
	Locale   string        // BCP 47
	Life     time.Duration // what is left of the message's time
	Callback string        // public URL for receipts of this vendor; "": none can be received
}

// String keeps number, text and code out of logs.
func (l Leg) String() string { return fmt.Sprintf("leg %s to %s", l.ID, l.To) }

// GoString hides as String does.
func (l Leg) GoString() string { return l.String() }

// LogValue hides as String does.
func (l Leg) LogValue() slog.Value { return slog.StringValue(l.String()) }

// Accepted is a vendor's receipt for a leg.
type Accepted struct {
	Ref     string // the vendor's name for it, by which reports refer to it
	Session string // the vendor's name for what is open now, for Check, Continue, Close and Poll; "": nothing is
}

// Session is what is open at a vendor.
type Session struct {
	Leg     uuid.UUID // the one that opened it
	ID      string    // [Accepted.Session]
	To      Number
	Channel Channel
}

// Verdict is a vendor's answer to an answer.
type Verdict uint8

// Verdicts. Only Approved passes.
const (
	Denied    Verdict = iota // wrong, or not understood
	Approved                 // right, for the first time
	TimedOut                 // too late
	Exhausted                // tried too often, as the vendor counts
	Gone                     // unknown, used before, closed
)

// LegState is how far a leg has come. States only ever rise in the order of [LegStates]: a late or repeated report changes nothing.
type LegState string

// States of legs. Delivered wins over bad news that came before it.
const (
	LegCalling     LegState = "calling"  // stored, and not known to be taken
	LegAccepted    LegState = "accepted" // the vendor has it
	LegSent        LegState = "sent"     // the carrier has it
	LegUndelivered LegState = "undelivered"
	LegExpired     LegState = "expired"
	LegRejected    LegState = "rejected"
	LegFailed      LegState = "failed"
	LegDelivered   LegState = "delivered"
)

// Webhook is a request of a vendor's to us.
type Webhook struct {
	Method string
	URL    string // the public one, from the configuration and never from the request's own headers
	Header http.Header
	Body   []byte    // the bytes that were signed
	Token  string    // the unguessable part of the path, or the password of basic authentication
	At     time.Time // when it arrived
}

// Tolerance is how old a signed time may be.
const Tolerance = 5 * time.Minute

// Errors of webhooks. Nothing has changed when one is returned.
var (
	// ErrForged: nobody who knows the secret sent this.
	ErrForged = errors.New("sms: webhook is not authentic")
	// ErrStale: authentic once, too long ago.
	ErrStale = errors.New("sms: webhook is too old")
	// ErrMalformed: authentic, and not understood.
	ErrMalformed = errors.New("sms: webhook is malformed")
)

// Received is what an authentic webhook says.
type Received struct {
	Reports []Report
	Inbound []Inbound
	// Reply is what the vendor expects back, with its type; nil: an empty 200.
	Reply     []byte
	ReplyType string
}

// Report is news of one leg.
type Report struct {
	Leg   uuid.UUID // if the vendor echoes our id
	Ref   string    // [Accepted.Ref]
	State LegState
	Class Class  // why, with bad news
	Code  string // the vendor's, for the operator
	Key   string // the same for every repetition of this report
}

// Inbound is a text from a phone.
type Inbound struct {
	From Number
	To   string // the sender id that it answers
	Text string
	// Keyword is what the vendor itself understood; "": we read the text.
	Keyword Keyword
	// Answered says that the vendor has answered the person already.
	Answered bool
	Key      string // the same for every repetition
}

// Class says what a failure means for what comes next.
type Class string

// Classes of failure.
const (
	InvalidRecipient     Class = "invalid_recipient"     // the number is wrong: ask for another
	RecipientOptedOut    Class = "recipient_opted_out"   // said STOP: never on another way
	RecipientUnreachable Class = "recipient_unreachable" // later, or another way
	InvalidSender        Class = "invalid_sender"        // the sender id is refused: tell the operator
	Misconfigured        Class = "misconfigured"         // template or account settings: tell the operator
	ContentRejected      Class = "content_rejected"
	Unauthorized         Class = "unauthorized"
	InsufficientFunds    Class = "insufficient_funds"
	RateLimited          Class = "rate_limited" // after RetryAfter
	BlockedFraud         Class = "blocked_fraud"
	RegionBlocked        Class = "region_blocked"
	Temporary            Class = "temporary" // again soon
	Ambiguous            Class = "ambiguous" // nobody knows
	Expired              Class = "expired"   // its time passed before it could be sent
)

// Classes lists every class that a vendor may report.
func Classes() []Class {
	return []Class{
		InvalidRecipient, RecipientOptedOut, RecipientUnreachable, InvalidSender, Misconfigured, ContentRejected, Unauthorized,
		InsufficientFunds, RateLimited, BlockedFraud, RegionBlocked, Temporary, Ambiguous, Expired,
	}
}

// Reached says whether a failed call can have sent the text all the same.
type Reached uint8

// How far a call got.
const (
	MaybeSent Reached = iota // the request was written, and no answer understood
	NotSent                  // the vendor refused it, or never had it
)

// Error is a failed call.
type Error struct {
	Class      Class
	Vendor     string
	Code       string        // the vendor's, for the operator; never a number or a text
	RetryAfter time.Duration // with RateLimited
	PerNumber  bool          // the limit is this recipient's own: nobody else is asked
	Reached    Reached
	Cause      error // never shown: it may quote an address
}

// Error implements error. It shows neither number nor text.
func (e *Error) Error() string {
	if e.Code == "" || e.Code == string(e.Class) {
		return fmt.Sprintf("%s: %s", e.Vendor, e.Class)
	}
	return fmt.Sprintf("%s: %s %s", e.Vendor, e.Class, e.Code)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }
