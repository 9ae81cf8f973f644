// Package factors proves possession. It defines what a second factor is, and keeps the ledger of challenges: every
// question that a person is asked to answer, whatever the purpose, is one row there, with the same counters, the
// same single use and the same audit.
//
// # Factors
//
// A [Factor] makes what a challenge needs; the ledger keeps, counts, compares and consumes it. A factor whose codes the
// server itself makes (text message) hands the code over and never sees it again. One that derives them
// (authenticator app) or looks them up (backup codes) is a [Checker] besides. The ledger never asks which
// factor it has: adding one is a folder and one line where the program is wired.
//
// # The laws of the ledger
//
//  1. Count, then compare, then consume. An attempt is paid by a conditional UPDATE, and a right answer consumes the
//     challenge by a conditional UPDATE in the same statement as the change of state that it causes. Nothing single-use is read and
//     then written. For codes of the ledger's own, paying, comparing keyed hashes and consuming are one statement: it
//     commits whole or not at all, so that neither a crash nor a parallel guess finds a gap.
//  2. Keyed, bound, mortal. Stored is HMAC-SHA-256 under a key outside the database over challenge, purpose, binding and
//     code. The text that waits to be sent is sealed, and erased when the challenge ends.
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

	"github.com/watchword-auth/watchword/sms"
)

// Factor is one kind of proof.
type Factor interface {
	// Kind is stored with every authenticator and never changes: "sms", "totp".
	Kind() string
	// AMR holds the values of RFC 8176 section 2 that a success adds, without "mfa".
	AMR() []string
	// Restricted says that SP 800-63B-4 section 3.2.9 restricts it, as it does the telephone network.
	Restricted() bool
	// Parse finds the answer in what a person typed, once, before anything is counted or compared. Its errors are
	// [ErrCodeEmpty], [ErrCodeShort], [ErrCodeLong] and [ErrCodeChars], which cost no attempt.
	Parse(typed string) (answer string, err error)
	// Issue makes what a new challenge for a needs. Nothing leaves the process: the ledger stores it first.
	Issue(ctx context.Context, a Authenticator, to Prompt) (Issued, error)
}

// Checker is a factor that checks answers itself instead of handing out codes.
type Checker interface {
	Factor
	// Check compares answer with what a's holder can produce now. It is called only after the attempt was paid.
	// It returns [ErrMismatch] for a wrong answer; any other error is the system's fault and accepts nothing.
	Check(ctx context.Context, a Authenticator, answer string) error
}

// Prompt says for whom and for what a code is made.
type Prompt struct {
	// Purpose is that of the challenge's binding; the ledger sets it.
	Purpose Purpose
	// Locale is the language of the text, BCP 47.
	Locale string
	// App is the hash of the Android app that reads the text, or "" when a browser does.
	App string
}

// Issued is what a factor makes for one challenge.
type Issued struct {
	// Code is what the person has to give back. Empty for a [Checker].
	Code string
	// Life of the code and of the challenge: at most 10 minutes, SP 800-63B-4 section 3.1.3.2.
	Life time.Duration
	// Message carries the code. Nil when nothing is delivered.
	Message *sms.Message
}

// Purpose is what a challenge is for. A code of one purpose is worth nothing for another.
type Purpose string

// Purposes of this program's own challenges.
const (
	Login  Purpose = "login"
	StepUp Purpose = "step_up"
	Enrol  Purpose = "enrol"
)

// completes reports whether a right answer completes an authentication with several factors: only that ends failures in a row.
func (p Purpose) completes() bool { return p == Login || p == StepUp }

// Authenticator is one enrolment of one factor: this subject's phone.
type Authenticator struct {
	ID      uuid.UUID
	Subject uuid.UUID
	Kind    string
	// Data is the factor's own: a phone number, a secret. It is sealed at rest.
	Data       []byte
	Hint       string // what its owner may be shown of it: the last two digits
	BoundAt    time.Time
	LastUsedAt time.Time // zero: never
}

// String keeps the data out of logs and errors.
func (a Authenticator) String() string { return a.Kind + " " + a.ID.String() }

// GoString keeps the data out of %#v.
func (a Authenticator) GoString() string { return a.String() }

// Errors that a caller has to tell apart. Every other error is a fault of the system and proves nothing.
var (
	// ErrMismatch: the answer is wrong. Show how many tries are left.
	ErrMismatch = errors.New("factors: wrong answer")
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
	Outcome         string     `json:"outcome"`       // verified, failed, canceled, superseded; "" while live or expired
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
