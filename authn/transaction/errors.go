package transaction

import (
	"errors"
	"time"
)

// Errors that a door has to tell apart, besides [InvalidError], factors' errors about what was typed, factors.ErrMismatch and factors.BlockedError. Every other error is a fault of the system
// and approves nothing.
var (
	// ErrUnknown: there is no such transaction of this application. A foreign one is unknown.
	ErrUnknown = errors.New("transaction: unknown")
	// ErrUser: nobody can be asked by that name or number: unknown, disabled, or a number that several people have. Which of these is never told.
	ErrUser = errors.New("transaction: nobody to ask")
	// ErrNoPhone: the person has nothing that transactions can be confirmed with.
	ErrNoPhone = errors.New("transaction: no phone to confirm with")
	// ErrHeldBack: no code is texted to the person's phone for now, because its SIM was changed: whoever has had a number moved to a SIM of their own would read it.
	ErrHeldBack = errors.New("transaction: no texts to this phone for now")
	// ErrTooMany: the person is asked for as much as can be at once. Wait for one of them to end.
	ErrTooMany = errors.New("transaction: too many at once")
	// ErrMismatch: what was sent with the code is not what the record has. The transaction has failed; begin another one.
	ErrMismatch = errors.New("transaction: not what the record has")
	// ErrRepeat: what the code is for has to be sent with it. Nothing was counted.
	ErrRepeat = errors.New("transaction: amount, currency and payee are missing")
	// ErrDecided: it has ended already. The transaction that comes with it says how.
	ErrDecided = errors.New("transaction: decided before")
	// ErrOver: no code is good for it any more. It ends when its time is over, or canceled; begin another one.
	ErrOver = errors.New("transaction: no code is good for it any more")
)

// HoldError says that the phone was bound too recently: whoever has just taken over an account cannot move money with it.
type HoldError struct{ Until time.Time }

func (e *HoldError) Error() string { return "transaction: the phone is too new to confirm with" }
