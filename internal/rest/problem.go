package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Code is the stable name of a problem. Programs decide by it.
type Code string

// Codes.
const (
	InvalidRequest      Code = "invalid_request"
	InvalidNumber       Code = "invalid_number"
	OTPIncorrect        Code = "otp_incorrect"
	TransactionMismatch Code = "transaction_mismatch"
	InvalidAPIKey       Code = "invalid_api_key"
	Forbidden           Code = "forbidden"
	CountryNotServed    Code = "country_not_served"
	FraudSuspected      Code = "fraud_suspected"
	RecipientOptedOut   Code = "opted_out"
	QuotaExceeded       Code = "quota_exceeded"
	NotFound            Code = "not_found"
	MethodNotAllowed    Code = "method_not_allowed"
	RequestInProgress   Code = "request_in_progress"
	AlreadyVerified     Code = "already_verified"
	AlreadyDecided      Code = "already_decided"
	OTPExpired          Code = "otp_expired"
	AttemptsExhausted   Code = "otp_attempts_exhausted"
	Canceled            Code = "canceled"
	TooLarge            Code = "too_large"
	UnsupportedType     Code = "unsupported_media_type"
	KeyReused           Code = "idempotency_key_reused"
	TestNumberInLive    Code = "test_number_in_live_mode"
	TooMany             Code = "rate_limited"
	Unavailable         Code = "delivery_unavailable"
	Internal            Code = "internal_error"
)

// kinds say what is the same for every problem of a code.
func kinds() map[Code]struct {
	status int
	title  string
	detail string
} {
	return map[Code]struct {
		status int
		title  string
		detail string
	}{
		InvalidRequest:      {http.StatusBadRequest, "The request is not valid", "Correct what errors points at and send it again."},
		InvalidNumber:       {http.StatusBadRequest, "Not a number that can be texted", "Ask for another number, in international form, such as +12025550143."},
		OTPIncorrect:        {http.StatusBadRequest, "Wrong code", "Ask for the code again; attempts_left says how often that is possible."},
		TransactionMismatch: {http.StatusBadRequest, "Another transaction", "What was sent with the code differs from what it was made for. It has ended: begin a new one."},
		InvalidAPIKey:       {http.StatusUnauthorized, "No valid key", "Send a key that has not been revoked in X-API-Key, or an access token in Authorization."},
		Forbidden:           {http.StatusForbidden, "Not allowed", "The key or token lacks the scope for this, unless reason says something else."},
		CountryNotServed:    {http.StatusForbidden, "Country not served", "This server does not text numbers of that country."},
		FraudSuspected:      {http.StatusForbidden, "Fraud suspected", "Texts to numbers like this one are stopped for a while, because their codes are not used."},
		RecipientOptedOut:   {http.StatusForbidden, "Opted out", "The number has asked for no more texts. Its owner can answer START to the last one."},
		QuotaExceeded:       {http.StatusPaymentRequired, "Quota used up", "The tenant has sent all the texts of its day."},
		NotFound:            {http.StatusNotFound, "Not found", "There is none by that id, or it is not kept any more."},
		MethodNotAllowed:    {http.StatusMethodNotAllowed, "Method not allowed", "See Allow."},
		RequestInProgress:   {http.StatusConflict, "Request in progress", "A request with the same idempotency key is being answered. Repeat it in a moment."},
		AlreadyVerified:     {http.StatusConflict, "Already verified", "The code was used. A verification succeeds once."},
		AlreadyDecided:      {http.StatusConflict, "Already decided", "It has ended before, and that is for good: read it to see how."},
		OTPExpired:          {http.StatusGone, "Expired", "It is too old. Begin a new one."},
		AttemptsExhausted:   {http.StatusGone, "No attempts left", "Too many wrong codes. Begin a new one."},
		Canceled:            {http.StatusGone, "Canceled", "It was canceled, or a newer one took its place."},
		TooLarge:            {http.StatusRequestEntityTooLarge, "Too large", "The request is longer than it may be."},
		UnsupportedType:     {http.StatusUnsupportedMediaType, "Unsupported media type", "Send application/json, in UTF-8 and not compressed."},
		KeyReused:           {http.StatusUnprocessableEntity, "Idempotency key reused", "The key was used for another request. Make a new key for each."},
		TestNumberInLive:    {http.StatusUnprocessableEntity, "Test number in live mode", "Numbers with a scenario of their own are for keys that begin with otp_test_."},
		TooMany:             {http.StatusTooManyRequests, "Too many requests", "Wait until Retry-After; scope says what there was too much of."},
		Unavailable:         {http.StatusServiceUnavailable, "Delivery unavailable", "No text can be sent at the moment. Nothing was started: repeat the request after Retry-After."},
		Internal:            {http.StatusInternalServerError, "Internal error", "Something went wrong here. Repeat the request with the same idempotency key."},
	}
}

// Codes lists them all.
func Codes() (all []Code) {
	for code := range kinds() {
		all = append(all, code)
	}
	slices.Sort(all)
	return all
}

// ProblemsPath is below where the pages about problems are: [Problem.Type] is one of them.
const ProblemsPath = "/docs/problems/"

// In completes a problem for one request. docs is the public address of this server.
func (p *Problem) In(ctx context.Context, docs string) {
	p.Type, p.RequestID, p.Message = docs+ProblemsPath+string(p.Code), audit.From(ctx).RequestID, p.Detail
}

// Explain turns any error into a problem: faults of the system are told to the log alone.
func Explain(ctx context.Context, log *slog.Logger, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	log.ErrorContext(ctx, "request failed", "error", err, "request_id", audit.From(ctx).RequestID)
	if postgres.Unavailable(err) {
		return New(Unavailable).Wait(RetryAfter)
	}
	return New(Internal)
}

// RetryAfter is when whoever met an outage may come back.
const RetryAfter = 5 * time.Second

// FieldError is something wrong in a request. It never repeats what was sent.
type FieldError struct {
	Pointer string `json:"pointer" description:"Where in the body, RFC 6901; or the name of a parameter or header." example:"/to"`
	Message string `json:"message" example:"is required"`
}

// Problem is an error as RFC 9457 writes it.
type Problem struct { //nolint:errname // RFC 9457 calls it a problem
	Type         string       `json:"type" format:"uri" description:"Page about this code."`
	Title        string       `json:"title"`
	Status       int          `json:"status"`
	Detail       string       `json:"detail"`
	Code         Code         `json:"code" description:"Stable; decide by it."`
	RequestID    string       `json:"request_id" description:"Tell it whoever runs this server, who finds it in the log."`
	Errors       []FieldError `json:"errors,omitempty"`
	Scope        string       `json:"scope,omitempty" description:"Of rate_limited: key, number, account, tenant, transaction."`
	Reason       string       `json:"reason,omitempty" description:"More exactly, where there is more to say: landline, unsupported, too_early, sends_exhausted, phone_too_new, too_many_open."`
	RetryAfter   *int         `json:"retry_after,omitempty" description:"Seconds, as in Retry-After."`
	AttemptsLeft *int         `json:"attempts_left,omitempty"`
	Message      string       `json:"message" description:"Repeats detail."`
}

// Error implements error. It holds nothing that was sent.
func (p *Problem) Error() string { return fmt.Sprintf("api: %s", p.Code) }

// New is a problem of that code.
func New(code Code) *Problem {
	k := kinds()[code]
	return &Problem{Code: code, Status: k.status, Title: k.title, Detail: k.detail}
}

// Invalid is a problem with one field.
func Invalid(pointer, message string) *Problem {
	p := New(InvalidRequest)
	p.Errors = []FieldError{{pointer, message}}
	return p
}

// Wait says when to come back: at least a second from now, and never earlier than room is there.
func (p *Problem) Wait(d time.Duration) *Problem {
	seconds := max(1, int((d+time.Second-1)/time.Second))
	p.RetryAfter = &seconds
	return p
}

// Scoped says what there was too much of.
func (p *Problem) Scoped(scope string) *Problem {
	p.Scope = scope
	return p
}

// Because says more exactly what is wrong.
func (p *Problem) Because(reason string) *Problem {
	p.Reason = reason
	return p
}

// Left says how many attempts are left.
func (p *Problem) Left(attempts int) *Problem {
	p.AttemptsLeft = &attempts
	return p
}
