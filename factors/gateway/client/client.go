// Package client calls the API of Watchword's OTP gateway from Go: it verifies phones in two calls.
//
//	c := client.New("https://login.example.com", os.Getenv("WATCHWORD_API_KEY"))
//	v, err := c.Create(ctx, client.CreateRequest{To: "+12025550143"})
//	…
//	result, err := c.Check(ctx, v.ID, code)
//	if err == nil && result.Valid { … }
//
// Every call that changes something carries an idempotency key, so that it can be repeated: when the network fails, when the server has to be waited for a moment, or
// when it is busy, it is, and happens once nevertheless. Errors of the API are *[Error]; decide by [Error.Code].
//
// The package needs nothing but the standard library.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client calls one server with one key. It is safe for concurrent use.
type Client struct {
	// BaseURL of the server: its issuer.
	BaseURL string
	// Key is an API key, or an access token of the application's own.
	Key string
	// HTTP makes the calls. Default: a client with a timeout of 15 seconds.
	HTTP *http.Client
	// Tries is how often a call is made at most. Default 3.
	Tries int
	// Patience is the longest that one Retry-After is waited for. Default 3 seconds.
	Patience time.Duration
}

// New makes a client.
func New(baseURL, key string) *Client {
	return &Client{BaseURL: strings.TrimSuffix(baseURL, "/"), Key: key, HTTP: &http.Client{Timeout: 15 * time.Second}, Tries: 3, Patience: 3 * time.Second}
}

// Channel is a way to a phone.
type Channel struct {
	Type string `json:"type"` // sms, whatsapp, voice; email alone for an e-mail address
	// Timeout is how long the text may take to arrive before the next channel is tried: "60s". Default: only a failure leads there.
	Timeout string `json:"timeout,omitempty"`
}

// Transaction is a payment that a code approves: all of it has to come back with the code.
type Transaction struct {
	Amount    string `json:"amount"`   // decimal: 129.90
	Currency  string `json:"currency"` // ISO 4217
	Payee     string `json:"payee"`
	Account   string `json:"account,omitempty"`
	Reference string `json:"reference,omitempty"`
}

// CreateRequest begins a verification. To is required.
type CreateRequest struct {
	To          string            `json:"to"`
	Channels    []Channel         `json:"channels,omitempty"`
	Purpose     string            `json:"purpose,omitempty"`
	Locale      string            `json:"locale,omitempty"`
	Template    string            `json:"template,omitempty"`
	AppHash     string            `json:"app_hash,omitempty"`
	Transaction *Transaction      `json:"transaction,omitempty"`
	ClientRef   string            `json:"client_ref,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	// ReturnURL has the code entered on a page of the server, at Verification.URL, which leads back to this address of the tenant's. That it does proves nothing: ask with Get.
	ReturnURL string `json:"return_url,omitempty"`

	// IdempotencyKey makes the request the same as an earlier one with that key, also of another process. Default: a new one for each call.
	IdempotencyKey string `json:"-"`
}

// Statuses of a verification. All but Pending are for good.
const (
	Pending  = "pending"
	Approved = "approved"
	Expired  = "expired"
	Canceled = "canceled"
	Failed   = "failed"
)

// Verification as it stands.
type Verification struct {
	ID           string            `json:"id"`
	URL          string            `json:"url"` // of the page for the code, in the answer of Create alone
	Status       string            `json:"status"`
	Reason       string            `json:"reason"`
	Test         bool              `json:"test"`
	To           string            `json:"to"` // the last two digits; of an e-mail address nothing
	Country      string            `json:"country"`
	Purpose      string            `json:"purpose"`
	Locale       string            `json:"locale"`
	Template     string            `json:"template"`
	Transaction  *Transaction      `json:"transaction"`
	ClientRef    string            `json:"client_ref"`
	Metadata     map[string]string `json:"metadata"`
	AttemptsLeft int               `json:"attempts_left"`
	Deliveries   []Delivery        `json:"deliveries"`
	CreatedAt    time.Time         `json:"created_at"`
	ExpiresAt    time.Time         `json:"expires_at"`
	ResendAt     *time.Time        `json:"resend_at"`
	EndedAt      *time.Time        `json:"ended_at"`
}

// Delivery is one text: queued, sent, delivered, undelivered, failed or unknown.
type Delivery struct {
	ID        string    `json:"id"`
	Channel   string    `json:"channel"`
	Status    string    `json:"status"`
	Reason    string    `json:"reason"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// CheckResult is the answer to a code. A wrong code is a normal answer.
type CheckResult struct {
	ID           string `json:"id"`
	Status       string `json:"status"`
	Valid        bool   `json:"valid"`
	AttemptsLeft int    `json:"attempts_left"`
}

// Codes of errors that programs most often decide by. There are more, in the API's description.
const (
	CodeInvalidNumber     = "invalid_number"
	CodeOptedOut          = "opted_out"
	CodeFraudSuspected    = "fraud_suspected"
	CodeCountryNotServed  = "country_not_served"
	CodeQuotaExceeded     = "quota_exceeded"
	CodeRateLimited       = "rate_limited"
	CodeUnavailable       = "delivery_unavailable"
	CodeInProgress        = "request_in_progress"
	CodeNotFound          = "not_found"
	CodeAlreadyVerified   = "already_verified"
	CodeExpired           = "otp_expired"
	CodeAttemptsExhausted = "otp_attempts_exhausted"
	CodeCanceled          = "canceled"
)

// Error is a problem that the API answered with.
type Error struct {
	Status    int    `json:"status"`
	Code      string `json:"code"` // decide by it
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	Scope     string `json:"scope"`
	Reason    string `json:"reason"`
	RequestID string `json:"request_id"`
	Fields    []struct {
		Pointer string `json:"pointer"`
		Message string `json:"message"`
	} `json:"errors"`
	RetryAfter time.Duration `json:"-"`
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Detail
	for _, f := range e.Fields {
		text += fmt.Sprintf(" %s %s.", strings.TrimPrefix(f.Pointer, "/"), f.Message)
	}
	return fmt.Sprintf("%s (%s): %s", e.Title, e.Code, text)
}

// Is reports whether err is a problem of that code.
func Is(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// Create texts a code to a phone.
func (c *Client) Create(ctx context.Context, r CreateRequest) (*Verification, error) {
	v := new(Verification)
	return v, c.post(ctx, "/v1/verifications", r.IdempotencyKey, r, v)
}

// Get reads a verification.
func (c *Client) Get(ctx context.Context, id string) (*Verification, error) {
	v := new(Verification)
	return v, c.call(ctx, http.MethodGet, "/v1/verifications/"+url.PathEscape(id), "", nil, v)
}

// Check gives a code back.
func (c *Client) Check(ctx context.Context, id, code string) (*CheckResult, error) {
	return c.CheckTransaction(ctx, id, code, nil)
}

// CheckTransaction gives a code back with the transaction that it approves.
func (c *Client) CheckTransaction(ctx context.Context, id, code string, t *Transaction) (*CheckResult, error) {
	out := new(CheckResult)
	return out, c.post(ctx, "/v1/verifications/"+url.PathEscape(id)+"/check", "", struct {
		Code        string       `json:"code"`
		Transaction *Transaction `json:"transaction,omitempty"`
	}{code, t}, out)
}

// Resend sends another text, on another channel unless that is "".
func (c *Client) Resend(ctx context.Context, id, channel string) (*Verification, error) {
	v := new(Verification)
	return v, c.post(ctx, "/v1/verifications/"+url.PathEscape(id)+"/resend", "", struct {
		Channel string `json:"channel,omitempty"`
	}{channel}, v)
}

// Cancel ends a verification.
func (c *Client) Cancel(ctx context.Context, id string) (*Verification, error) {
	v := new(Verification)
	return v, c.post(ctx, "/v1/verifications/"+url.PathEscape(id)+"/cancel", "", struct{}{}, v)
}

// Filter chooses verifications. What is empty is not asked for.
type Filter struct{ To, ClientRef string }

// List goes over verifications, the newest first. It ends after the first error.
func (c *Client) List(ctx context.Context, f Filter) iter.Seq2[*Verification, error] {
	return func(yield func(*Verification, error) bool) {
		query := url.Values{"limit": {"100"}}
		if f.To != "" {
			query.Set("to", f.To)
		}
		if f.ClientRef != "" {
			query.Set("client_ref", f.ClientRef)
		}
		for {
			var page struct {
				Data       []*Verification `json:"data"`
				NextCursor string          `json:"next_cursor"`
			}
			if err := c.call(ctx, http.MethodGet, "/v1/verifications?"+query.Encode(), "", nil, &page); err != nil {
				yield(nil, err)
				return
			}
			for _, v := range page.Data {
				if !yield(v, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			query.Set("cursor", page.NextCursor)
		}
	}
}

func (c *Client) post(ctx context.Context, path, key string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if key == "" {
		key = rand.Text()
	}
	return c.call(ctx, http.MethodPost, path, key, body, out)
}

// pause is the first wait before a call is made again, where the server does not say.
const pause = 200 * time.Millisecond

// maxAnswer bounds what is read.
const maxAnswer = 1 << 20

func (c *Client) call(ctx context.Context, method, path, key string, body []byte, out any) error {
	for try := 1; ; try++ {
		err := c.once(ctx, method, path, key, body, out)
		wait := pause << (try - 1)
		var problem *Error
		if errors.As(err, &problem) {
			if problem.Code != CodeInProgress && problem.Status < http.StatusInternalServerError {
				return err
			}
			if problem.RetryAfter > 0 {
				wait = problem.RetryAfter
			}
		}
		if err == nil || try >= max(1, c.Tries) || wait > c.Patience || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

func (c *Client) once(ctx context.Context, method, path, key string, body []byte, out any) error {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.BaseURL+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.Key)
	req.Header.Set("Accept", "application/json, application/problem+json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
	}
	to := c.HTTP
	if to == nil {
		to = http.DefaultClient
	}
	res, err := to.Do(req)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode >= http.StatusBadRequest {
		problem := &Error{Status: res.StatusCode, Title: http.StatusText(res.StatusCode)}
		if json.Unmarshal(data, problem) != nil || problem.Code == "" {
			problem.Code, problem.Detail = "http_"+strconv.Itoa(res.StatusCode), "The answer is not one of this API."
		}
		if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil {
			problem.RetryAfter = time.Duration(seconds) * time.Second
		}
		return problem
	}
	return json.Unmarshal(data, out)
}
