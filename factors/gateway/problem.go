package gateway

import "github.com/watchword-auth/watchword/internal/rest"

// What every API of this server has in common: see package rest.
type (
	// Code is the stable name of a problem. Programs decide by it.
	Code = rest.Code
	// Problem is an error as RFC 9457 writes it.
	Problem = rest.Problem //nolint:errname // RFC 9457 names it
	// FieldError is something wrong in a request.
	FieldError = rest.FieldError
)

// Codes.
const (
	InvalidRequest      = rest.InvalidRequest
	InvalidNumber       = rest.InvalidNumber
	OTPIncorrect        = rest.OTPIncorrect
	TransactionMismatch = rest.TransactionMismatch
	InvalidAPIKey       = rest.InvalidAPIKey
	Forbidden           = rest.Forbidden
	CountryNotServed    = rest.CountryNotServed
	FraudSuspected      = rest.FraudSuspected
	RecipientOptedOut   = rest.RecipientOptedOut
	QuotaExceeded       = rest.QuotaExceeded
	NotFound            = rest.NotFound
	MethodNotAllowed    = rest.MethodNotAllowed
	RequestInProgress   = rest.RequestInProgress
	AlreadyVerified     = rest.AlreadyVerified
	OTPExpired          = rest.OTPExpired
	AttemptsExhausted   = rest.AttemptsExhausted
	Canceled            = rest.Canceled
	TooLarge            = rest.TooLarge
	UnsupportedType     = rest.UnsupportedType
	KeyReused           = rest.KeyReused
	TestNumberInLive    = rest.TestNumberInLive
	TooMany             = rest.TooMany
	Unavailable         = rest.Unavailable
	Internal            = rest.Internal
)

func problem(code Code) *Problem { return rest.New(code) }

// invalid is a problem with one field.
func invalid(pointer, message string) *Problem { return rest.Invalid(pointer, message) }
