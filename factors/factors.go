// Package factors proves possession. It defines what a second factor is, and keeps the ledger of challenges: every
// question that a person is asked to answer, whatever the purpose, is one row there, with the same counters, the
// same single use and the same audit.
//
// # Factors
//
// A [Factor] makes what a challenge needs; the ledger keeps, counts, compares and consumes it. A factor whose codes the
// server itself makes (text message) hands the code over and never sees it again. One that derives them
// (authenticator app) or looks them up (backup codes) is a [Checker] besides: it says in SQL what is right and how that is used up, and the
// ledger makes it part of the one statement. Further abilities are further interfaces: [Provisioner], [Numbered], [Paged], [Confined], [Dependent]. The ledger
// never asks which factor it has: adding one is a folder and one line where the program is wired.
//
// # The laws of the ledger
//
//  1. Count, then compare, then consume. An attempt is paid by a conditional UPDATE, and a right answer consumes the
//     challenge by a conditional UPDATE in the same statement as the change of state that it causes. Nothing single-use is read and
//     then written. For codes of the ledger's own, paying, comparing keyed hashes and consuming are one statement: it
//     commits whole or not at all, so that neither a crash nor a parallel guess finds a gap.
//  2. Keyed, bound, mortal. Stored is HMAC-SHA-256 under a key outside the database over challenge, purpose, binding and
//     code. The text that waits to be sent is sealed, and erased when the challenge ends. Secrets of authenticators are sealed, backup codes keyed hashes.
//  3. A resend gives nothing back. It belongs to the same challenge; at most three codes of it live at once, under one
//     budget of attempts. A subject's failures in a row are counted over all factors, purposes, browsers and replicas.
//  4. Stored before sent. Challenge and message are one statement; the outbox owns what follows.
//  5. The answer depends on the state, never on the value. Foreign, unknown and dead challenges are alike.
//
// The package knows no subscriber: a subject is an id that the host chooses. Tables: authenticators, challenges.
package factors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/sms"
)

// Factor is one kind of proof.
type Factor interface {
	// Kind is stored with every authenticator and never changes: "sms", "totp".
	Kind() string
	// AMR holds the values of RFC 8176 section 2 that a success adds, without "mfa".
	AMR() []string
	// Restricted says that SP 800-63B-4 section 3.2.9 restricts it, as it does the telephone network, or that it ranks with those.
	Restricted() bool
	// Parse finds the answer in what a person typed, once, before anything is counted or compared. Its errors are
	// [ErrCodeEmpty], [ErrCodeShort], [ErrCodeLong] and [ErrCodeChars], which cost no attempt.
	Parse(typed string) (answer string, err error)
	// Issue makes what a new challenge for a needs. Nothing leaves the process: the ledger stores it first.
	Issue(ctx context.Context, a Authenticator, to Prompt) (Issued, error)
}

// Checker is a factor that knows by itself what is right, without having handed out a code: it derives it, or looks it up.
//
// Its part of an answer's statement is SQL over a, the authenticator's row, which the statement holds locked: nobody else can use up the same
// answer meanwhile, on whatever challenge and whichever replica.
type Checker interface {
	Factor
	// Check says how answer is compared with what a's holder can produce now, and how it is used up. It compares nothing itself: the attempt is paid
	// by the statement that its SQL becomes part of. Values go through bind, which gives their placeholder; what is secret, only as a keyed hash.
	// The time is wall() in SQL; a.ReadAt is near enough to choose candidates by. An error is the system's fault and accepts nothing.
	Check(ctx context.Context, a Authenticator, answer string, bind func(value any) string) (Check, error)
}

// Check is SQL over row a of table authenticators.
type Check struct {
	// Right is a condition: the answer is right, and has never been used. NULL is no.
	Right string
	// Used is a condition: it was right and has been used, or is older than one that was. It may be "". Whatever it holds of must never be
	// good again, because its owner is told.
	Used string
	// Spend assigns what uses it up, so that Right holds of it no more: "counter = 7".
	Spend string
}

// Provisioner is a factor whose authenticators begin here: it makes what their holder is given.
type Provisioner interface {
	Factor
	// Provision makes an authenticator for subject, and what its holder is shown of it. One with Codes is ready to be bound; any other
	// is to be proposed first, and bound by an answer: [Ledger.Propose]. The Data of what is bound in place of another differs from that.
	Provision(subject uuid.UUID, account string) (Authenticator, Setup, error)
	// Setup is what the holder of a is shown while it is not proved yet. Of what cannot be shown again it is empty.
	Setup(a Authenticator, account string) (Setup, error)
}

// Setup is what the holder of a new authenticator is shown. None of it is shown after the authenticator was bound.
type Setup struct {
	Secret string   // for a device, to be typed
	URI    string   // the same for a device that scans
	Codes  []string // to be kept
}

// String keeps secrets out of logs.
func (Setup) String() string { return "[secret]" }

// GoString keeps secrets out of %#v.
func (Setup) GoString() string { return "[secret]" }

// Paged is a factor whose question has a page of its own. The answers to all others come by message.
type Paged interface {
	Factor
	Page() Page
}

// Numbered is a factor whose authenticators are made of a telephone number, which their holder types.
type Numbered interface {
	Reacher
	// Number makes an authenticator of n for subject, ready to be proposed, and the form of it that may be looked up.
	Number(subject uuid.UUID, n sms.Number) (a Authenticator, unique string)
}

// Page says how a person is asked.
type Page struct {
	// Name is the page's in addresses (/login/NAME) and the group of its texts: short, lower case, without spaces. A text that the group lacks is
	// that of the group "answer".
	Name string
	// Digits says that an answer has digits only, so that a phone shows those keys.
	Digits bool
}

// PageOf is the page that f is asked on.
func PageOf(f Factor) Page {
	if p, ok := f.(Paged); ok {
		return p.Page()
	}
	return Page{Name: MessagePage, Digits: true}
}

// MessagePage is the page for codes that are sent.
const MessagePage = "code"

// Confined is a factor that is not good for every purpose.
type Confined interface {
	Factor
	Serves(p Purpose) bool
}

// Linked is a factor whose codes can approve one transaction and no other, because whoever gets one reads what it approves: dynamic linking, Regulation (EU) 2018/389 Art. 5. Codes that
// know nothing of amount and payee, such as an authenticator app's, are not good for purpose [Transaction].
type Linked interface {
	Factor
	// Words is what Issue sends for the same prompt, with a mark in place of the code.
	Words(to Prompt) Words
}

// Words are what somebody reads beside a code.
type Words struct {
	Text, Locale string
	Template     string // names the wording, whatever is filled in
}

// Serves reports whether f is good for purpose p.
func Serves(f Factor, p Purpose) bool {
	if _, linked := f.(Linked); p == Transaction && !linked {
		return false
	}
	c, confined := f.(Confined)
	return !confined || c.Serves(p)
}

// Dependent is a factor that can be out of order for everybody at once, as when no vendor carries texts.
type Dependent interface {
	Factor
	Down() bool
}

// Down reports whether f is out of order at the moment.
func Down(f Factor) bool {
	d, depends := f.(Dependent)
	return depends && d.Down()
}

// Prompt says for whom and for what a code is made.
type Prompt struct {
	// Purpose is that of the challenge's binding; the ledger sets it.
	Purpose Purpose
	// Locale is the language of the text, BCP 47.
	Locale string
	// App is the hash of the Android app that reads the text, or "" when a browser does.
	App string
	// Life bounds that of the code. 0: as the factor has it.
	Life time.Duration
	// MustSend says that there is to be no challenge when its message may not be sent now.
	MustSend bool
	// Later says that nothing is sent before somebody asks for it: the challenge begins without a code.
	Later bool
	// Prepaid, when set, is given the limits that the message counts in, and gives back those that are still to be taken: see limits.Purse.
	Prepaid func([]limits.Hit) []limits.Hit
	// Approves is what the code approves, for purpose [Transaction].
	Approves *sms.Approval
}

// unsaid reports a code that would approve something without saying what, or the reverse.
func (p *Prompt) unsaid() bool { return (p.Purpose == Transaction) != (p.Approves != nil) }

var errUnsaid = errors.New("factors: a transaction's code says what it approves, and no other does")

// Issued is what a factor makes for one challenge.
type Issued struct {
	// Code is what the person has to give back. Empty for a [Checker]. Without a message, the factor has handed it over.
	Code string
	// Life of the code and of the challenge: at most 10 minutes, SP 800-63B-4 section 3.1.3.2.
	Life time.Duration
	// Message carries the code. Nil when nothing is delivered to a phone.
	Message *sms.Message
	// Mail carries it instead: for programs that want addresses verified, never for second factors (SP 800-63B-4 section 3.1.3.1).
	Mail *Mail
}

// Mail is a code that goes to a mail address.
type Mail struct {
	mail.Message
	// Key is what sends are counted under: the same for all spellings of one mailbox.
	Key []byte
}

// Purpose is what a challenge is for. A code of one purpose is worth nothing for another.
type Purpose string

// Purposes of this program's own challenges.
const (
	Login  Purpose = "login"
	StepUp Purpose = "step_up"
	Enrol  Purpose = "enrol"
	// Transaction codes approve one payment. The context of their binding is the hash of its record.
	Transaction Purpose = sms.TransactionPurpose
	// Recover is for getting back in, or for keeping somebody else from it.
	Recover Purpose = "recover"
)

// Purposes of challenges that other programs ask for. Those of their tests are worth nothing else.
const (
	Gateway     Purpose = "gateway"
	GatewayTest Purpose = "gateway_test"
)

// completes reports whether a right answer completes what the subject is known for: an authentication with several factors, or, for another program's, the verification. Only
// that ends failures in a row.
func (p Purpose) completes() bool {
	return p == Login || p == StepUp || p == Gateway || p == GatewayTest
}

// Authenticator is one enrolment of one factor: this subject's phone.
type Authenticator struct {
	ID      uuid.UUID
	Subject uuid.UUID
	Kind    string
	// Data is the factor's own: a phone number, a secret. It is sealed at rest.
	Data       []byte
	Hint       string // what its owner may be shown of it: the last two digits
	Name       string // what its owner calls it; may be empty
	BoundAt    time.Time
	LastUsedAt time.Time // zero: never
	Chosen     bool      // its owner wants to be asked for it first
	// Left is how many answers are still good, once each; nil: it does not run out.
	Left *int
	// Counter is the last that was accepted, of what only rises, as it stood at ReadAt; a [Check] compares with column counter.
	Counter int64
	// ReadAt is the database's time when this was read; zero: it was made here.
	ReadAt time.Time
	// Replaces is the authenticator that it takes the place of, once it is bound; uuid.Nil: none.
	Replaces uuid.UUID
	// Codes are keyed hashes of answers that are good once each. They are given when it is bound and never read again.
	Codes [][]byte
}

// String keeps the data out of logs and errors.
func (a Authenticator) String() string { return a.Kind + " " + a.ID.String() }

// GoString keeps the data out of %#v.
func (a Authenticator) GoString() string { return a.String() }

// Errors that a caller has to tell apart. Every other error is a fault of the system and proves nothing.
var (
	// ErrMismatch: the answer is wrong. Show how many tries are left.
	ErrMismatch = errors.New("factors: wrong answer")
	// ErrUsed is an ErrMismatch, and counted like any: the answer was right, and has been used. Ask for another.
	ErrUsed = fmt.Errorf("%w: used before", ErrMismatch)
	// ErrOver: there is no such live challenge: answered, expired, exhausted, ended, somebody else's, or never made.
	// Which of these it is shows in the state, to the owner alone.
	ErrOver = errors.New("factors: challenge is over")
)

// BlockedError says that the subject has failed too often in a row. No answer is looked at until then; see limits.Endless.
type BlockedError struct{ Until time.Time }

func (e *BlockedError) Error() string { return "factors: blocked after too many wrong answers" }

// Delivery is what is known of the message of a challenge.
type Delivery struct {
	State   string `json:"state"`   // as in table messages
	Reason  string `json:"reason"`  // an sms.Class, after a failure
	Channel string `json:"channel"` // an sms.Channel
	Sender  string `json:"sender"`  // which the number has opted out of
}

// State is what the owner of a challenge may know of it.
type State struct {
	ID              uuid.UUID  `json:"id"`
	AuthenticatorID uuid.UUID  `json:"authenticator_id"`
	Kind            string     `json:"kind"`
	Purpose         Purpose    `json:"purpose"`
	Attempts        int        `json:"attempts"`
	MaxAttempts     int        `json:"max_attempts"`
	Sends           int        `json:"sends"`
	SentAt          *time.Time `json:"sent_at"`      // when the newest message was stored
	NextSendAt      *time.Time `json:"next_send_at"` // when another may be asked for
	ExpiresAt       time.Time  `json:"expires_at"`
	EndedAt         *time.Time `json:"ended_at"`
	Outcome         string     `json:"outcome"`       // verified, failed, canceled, superseded, expired; "" while live, or expired and nobody has noticed
	BlockedUntil    *time.Time `json:"blocked_until"` // see limits.Endless
	Delivery        *Delivery  `json:"delivery"`
}

// AttemptsLeft is how many wrong answers the challenge still bears.
func (s *State) AttemptsLeft() int { return max(0, s.MaxAttempts-s.Attempts) }

// Live reports whether the challenge can still be answered at now, the database's time.
func (s *State) Live(now time.Time) bool {
	return s.EndedAt == nil && s.AttemptsLeft() > 0 && now.Before(s.ExpiresAt)
}

// DecodeState reads what [StateSQL] gave; nil for NULL.
func DecodeState(data []byte) (*State, error) {
	if len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	s := new(State)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("challenge state: %w", err)
	}
	return s, nil
}
