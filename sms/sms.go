// Package sms carries text messages.
//
// A message is written to the outbox, table messages, in the very statement that decides to send it: what was
// acknowledged is sent, and what was rolled back is not. [Outbox] adds that part to the statement of whoever sends. From then on
// a [Worker] owns it: woken by NOTIFY, it claims what is due with FOR UPDATE SKIP LOCKED and a lease, stores one row in table legs for each call to a
// vendor before it makes the call, and settles both afterwards. The leg's id is the idempotency key of the
// call and stays the same when an unknown outcome is tried once more.
//
// # What is checked
//
// Nothing is sent once its challenge has ended, its time has passed or it was canceled. Which failure leads to what is decided by [Class] and
// [Reached] alone, never by a vendor's text. Number and text are sealed while they wait, and erased when nobody needs
// them: a copied table shows two digits of a number.
//
// # What is not
//
// The package knows neither users nor codes: it takes a text and a [Number]. It does not decide how often a number may be texted; package
// factors does that before anything is stored.
//
// Vendors stand behind [Vendor], one folder each. Tables: messages, legs.
package sms

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Vendor carries texts to phones.
type Vendor interface {
	// Name is stored with each leg.
	Name() string
	// Send hands leg to the vendor. Nil means that the vendor has taken it. Every failure is an [*Error]; anything else
	// counts as unknown and maybe sent.
	Send(ctx context.Context, leg Leg) (Accepted, error)
}

// Idempotent is a vendor that recognises a leg it has had: a repeat with the same id sends nothing twice.
type Idempotent interface {
	Vendor
	// Idempotent is a mark: it does nothing.
	Idempotent()
}

// Leg is one call to one vendor.
type Leg struct {
	ID      uuid.UUID // the idempotency key
	To      Number
	Text    string
	Locale  string
	Channel string        // "sms"
	Life    time.Duration // what is left of the message's time
}

// Accepted is a vendor's receipt for a leg.
type Accepted struct {
	Ref string // the vendor's name for it, by which reports refer to it
}

// Class says what a failure means for what comes next.
type Class string

// Classes of failure.
const (
	InvalidRecipient     Class = "invalid_recipient"     // the number is wrong: ask for another
	RecipientOptedOut    Class = "recipient_opted_out"   // said STOP: never on another way
	RecipientUnreachable Class = "recipient_unreachable" // later, or another way
	Misconfigured        Class = "misconfigured"         // sender, template or account settings: tell the operator
	ContentRejected      Class = "content_rejected"
	Unauthorized         Class = "unauthorized"
	InsufficientFunds    Class = "insufficient_funds"
	RateLimited          Class = "rate_limited" // after RetryAfter
	BlockedFraud         Class = "blocked_fraud"
	RegionBlocked        Class = "region_blocked"
	Temporary            Class = "temporary" // again soon, if nothing can have been sent
	Ambiguous            Class = "ambiguous" // nobody knows: once more at most, with the same key
	Expired              Class = "expired"   // its time passed before it could be sent
)

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
	Code       string        // the vendor's, for the operator
	RetryAfter time.Duration // with RateLimited
	Reached    Reached
	Cause      error // never shown: it may quote an address
}

// Error implements error. It shows neither number nor text.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s %s", e.Vendor, e.Class, e.Code)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }
