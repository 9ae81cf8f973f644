// Package startmessaging sends through StartMessaging, which serves India alone, by either of the two APIs that its accounts have under one address:
// [Managed] makes and checks codes itself, [Messages] carries ours in the vendor's template.
//
// Sources: StartMessaging's guide to OTP in Node.js and its article on idempotency (startmessaging.com/blog/idempotency-keys-otp) for the managed
// API; startmessaging.com/otp-api, startmessaging.com/docs/sms/send-sms and the public code of its server (github.com/start-messaging/server,
// src/otp, src/messages and src/common) for the other.
//
// Not verified against a live account: which of the two a new account gets, so that the configuration says it and nothing is tried out; whether the
// public server is the one that runs; what a wrong code is answered with, so that every refusal of one but 401, 403, 408 and 429 means wrong; webhooks, which
// one page shows and another denies, so that there are none here; Retry-After with 429; keys for a sandbox.
//
// Idempotency keys are documented for the managed API, and are sent there; the public server drops them. Config.Idempotent says that they are known to
// work. Messages has none: a call whose answer was lost may have sent.
//
// Delivery is told when it is asked, by [Messages.Poll]; the managed API tells nothing of it.
package startmessaging

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Modes of an account.
const (
	ModeManaged = "managed" // the vendor makes and checks the code
	ModeMessage = "message" // the vendor carries ours
)

// Config of an account.
type Config struct {
	// Mode is [ModeManaged] or [ModeMessage], as the account is. [NewManaged] and [NewMessages] do not read it.
	Mode string
	// BaseURL defaults to https://api.startmessaging.com.
	BaseURL string
	// Key is the API key, sm_live_….
	Key string
	// Idempotent says that the account's idempotency keys are known to work. Managed only.
	Idempotent bool
	// Template is the UUID of the text's template; "" is the vendor's default. Messages only.
	Template string
	// AppName goes into the template; the default one needs it. Messages only.
	AppName string
}

// New makes the driver for the mode of the account: a [*Managed] or a [*Messages].
func New(name string, c Config) (sms.Vendor, error) {
	switch c.Mode {
	case ModeManaged:
		return NewManaged(name, c)
	case ModeMessage:
		return NewMessages(name, c)
	default:
		return nil, &sms.SettingError{Vendor: name, Key: "mode", What: "is neither managed nor message", Cure: "write the one that the account has"}
	}
}

func (c Config) client(name string) (*wire.Client, error) {
	if c.BaseURL == "" {
		c.BaseURL = "https://api.startmessaging.com"
	}
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Key, "key", "copy the API key, sm_live_…, from the dashboard")
	client, err := wire.New(name, c.BaseURL, func(r *http.Request) { r.Header.Set("X-Api-Key", c.Key) })
	return client, settings.Err(err)
}

func abilities(kind sms.Kind) sms.Abilities {
	return sms.Abilities{Kind: kind, Channels: []sms.Channel{sms.SMS}, Countries: []string{"IN"}}
}

// classes of the codes of refusals.
var classes = map[string]sms.Class{
	"VALIDATION_ERROR": sms.Misconfigured, "INVALID_INPUT": sms.Misconfigured, "ONBOARDING_INCOMPLETE": sms.Misconfigured, "NOT_FOUND": sms.Misconfigured,
	"CONFLICT": sms.Misconfigured, "IDEMPOTENCY_CONFLICT": sms.Misconfigured, "INVALID_PHONE_NUMBER": sms.InvalidRecipient, "RATE_LIMIT_EXCEEDED": sms.RateLimited,
	"INSUFFICIENT_BALANCE": sms.InsufficientFunds, "OTP_SEND_FAILED": sms.Temporary, "SMS_PROVIDER_ERROR": sms.Temporary,
	"UNAUTHORIZED": sms.Unauthorized, "INVALID_API_KEY": sms.Unauthorized, "FORBIDDEN": sms.Unauthorized,
}

// guard is how long the limit of three texts to one number lasts.
const guard = 300 * time.Second

// refusal is the part of an answer that refuses. The requestId beside it is a mark for the vendor's support and nothing else.
type refusal struct {
	Success bool `json:"success"`
	Error   struct {
		Code string `json:"code"`
	} `json:"error"`
}

// refused reads a refusal. With 429 and 5xx the status decides: their codes are those of other things.
func refused(r *wire.Response) *sms.Error {
	var body refusal
	if r.Status == http.StatusTooManyRequests || r.Status >= http.StatusInternalServerError || r.Decode(&body) != nil {
		return r.Refused("", "")
	}
	class, known := classes[body.Error.Code]
	if !known {
		return r.Refused("", "")
	}
	e := r.Refused(class, body.Error.Code)
	e.PerNumber = body.Error.Code == "RATE_LIMIT_EXCEEDED"
	if class == sms.RateLimited && e.RetryAfter == 0 {
		e.RetryAfter = guard
	}
	return e
}

// taken reads an answer to a send into v, of which ok says whether it is whole.
func taken(client *wire.Client, r *wire.Response, v any, success *bool, ok func() bool) error {
	if !r.OK() {
		return refused(r)
	}
	if err := r.Decode(v); err != nil {
		return err
	}
	if !*success {
		if e := refused(r); e.Reached == sms.NotSent {
			return e
		}
	}
	if !*success || !ok() {
		return client.Fail(sms.Ambiguous, "no_id", sms.MaybeSent)
	}
	return nil
}

// Managed makes and checks codes. Make one with [NewManaged].
type Managed struct {
	name   string
	config Config
	client *wire.Client
}

var _ sms.Checker = (*Managed)(nil)

// NewManaged makes the driver for an account whose codes the vendor makes.
func NewManaged(name string, c Config) (*Managed, error) {
	client, err := c.client(name)
	return &Managed{name: name, config: c, client: client}, err
}

// Name implements sms.Vendor.
func (m *Managed) Name() string { return m.name }

// Abilities implements sms.Vendor.
func (m *Managed) Abilities() sms.Abilities {
	a := abilities(sms.Verifier)
	if m.config.Idempotent {
		a.Idempotency = sms.Replay
	}
	return a
}

// Send implements sms.Vendor.
func (m *Managed) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	resp, err := m.client.Do(ctx, wire.Request{
		Method: http.MethodPost, Path: "/otp/send", JSON: map[string]string{"phoneNumber": leg.To.Reveal(), "idempotencyKey": leg.ID.String()},
	})
	if err != nil {
		return sms.Accepted{}, err
	}
	var got struct {
		Success bool `json:"success"`
		Data    struct {
			RequestID string `json:"requestId"`
		} `json:"data"`
	}
	if err := taken(m.client, resp, &got, &got.Success, func() bool { return got.Data.RequestID != "" }); err != nil {
		return sms.Accepted{}, err
	}
	return sms.Accepted{Ref: got.Data.RequestID, Session: got.Data.RequestID}, nil
}

// Check implements sms.Checker. Which refusal means a wrong code is documented nowhere: every one does that is of this answer and not of the caller.
func (m *Managed) Check(ctx context.Context, s sms.Session, answer string) (sms.Verdict, error) {
	resp, err := m.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: "/otp/verify", JSON: map[string]string{"requestId": s.ID, "otpCode": answer}})
	if err != nil {
		return sms.Denied, err
	}
	switch {
	case resp.OK():
	case resp.Status == http.StatusNotFound:
		return sms.Gone, nil
	case resp.Status == http.StatusUnauthorized, resp.Status == http.StatusForbidden, resp.Status == http.StatusRequestTimeout, resp.Status == http.StatusTooManyRequests:
		return sms.Denied, refused(resp)
	case resp.Status >= http.StatusBadRequest && resp.Status < http.StatusInternalServerError:
		return sms.Denied, nil
	default:
		return sms.Denied, resp.Refused("", "")
	}
	var got struct {
		Success bool `json:"success"`
		Data    struct {
			Verified bool `json:"verified"`
		} `json:"data"`
	}
	if err := resp.Decode(&got); err != nil {
		return sms.Denied, err
	}
	if got.Success && got.Data.Verified {
		return sms.Approved, nil
	}
	return sms.Denied, nil
}

// Messages carries our code. Make one with [NewMessages].
type Messages struct {
	name   string
	config Config
	client *wire.Client
}

var _ sms.Poller = (*Messages)(nil)

// NewMessages makes the driver for an account that takes codes of ours.
func NewMessages(name string, c Config) (*Messages, error) {
	client, err := c.client(name)
	settings := sms.Settings{Vendor: name}
	if c.Template == "" {
		settings.Need(c.AppName, "app_name", "give the name of the service for the vendor's template, or a template of your own")
	}
	return &Messages{name: name, config: c, client: client}, settings.Err(err)
}

// Name implements sms.Vendor.
func (m *Messages) Name() string { return m.name }

// Abilities implements sms.Vendor.
func (*Messages) Abilities() sms.Abilities {
	a := abilities(sms.Gateway)
	a.CodesOnly = true
	return a
}

// Send implements sms.Vendor. The text is the template's: of ours only the code goes into it.
func (m *Messages) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	minutes := max(1, int((leg.Life+time.Minute-1)/time.Minute))
	body := map[string]any{"phoneNumber": leg.To.Reveal(), "variables": map[string]string{"otp": leg.Code, "appName": m.config.AppName, "expiry": strconv.Itoa(minutes)}}
	if m.config.Template != "" {
		body["templateId"] = m.config.Template
	}
	resp, err := m.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: "/otp/send", JSON: body})
	if err != nil {
		return sms.Accepted{}, err
	}
	var got struct {
		Success bool `json:"success"`
		Data    struct {
			MessageID string `json:"messageId"`
		} `json:"data"`
	}
	if err := taken(m.client, resp, &got, &got.Success, func() bool { return got.Data.MessageID != "" }); err != nil {
		return sms.Accepted{}, err
	}
	return sms.Accepted{Ref: got.Data.MessageID, Session: got.Data.MessageID}, nil
}

// states of messages that say something about a leg.
var states = map[string]sms.LegState{
	"initiated": sms.LegAccepted, "queued": sms.LegAccepted, "sent": sms.LegSent, "delivered": sms.LegDelivered, "failed": sms.LegFailed, "expired": sms.LegExpired,
}

// Poll implements sms.Poller. Why a text failed is told in words only.
func (m *Messages) Poll(ctx context.Context, s sms.Session) (sms.Report, error) {
	resp, err := m.client.Do(ctx, wire.Request{Method: http.MethodGet, Path: "/messages/" + url.PathEscape(s.ID)})
	if err != nil {
		return sms.Report{}, err
	}
	if !resp.OK() {
		return sms.Report{}, refused(resp)
	}
	var got struct {
		Success bool `json:"success"`
		Data    struct {
			Status string `json:"status"`
		} `json:"data"`
	}
	if err := resp.Decode(&got); err != nil {
		return sms.Report{}, err
	}
	state, known := states[got.Data.Status]
	if !got.Success || !known {
		return sms.Report{}, m.client.Fail(sms.Ambiguous, "unknown_state", sms.MaybeSent)
	}
	report := sms.Report{Leg: s.Leg, Ref: s.ID, State: state, Key: s.ID + " " + got.Data.Status}
	if state == sms.LegFailed || state == sms.LegExpired {
		report.Class, report.Code = sms.RecipientUnreachable, got.Data.Status
	}
	return report, nil
}
