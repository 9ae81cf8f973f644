package transaction

import "errors"

// ErrUnknown: there is no such transaction of this application.
var ErrUnknown = errors.New("transaction: unknown")
