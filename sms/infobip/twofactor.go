package infobip

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// TwoFactor makes and checks PINs. Their length, life and tries are settings of the application there; allowMultiplePinVerifications must be off. Make one
// with [NewTwoFactor].
type TwoFactor struct {
	name   string
	config Config
	client *wire.Client
}

var (
	_ sms.Checker   = (*TwoFactor)(nil)
	_ sms.Continuer = (*TwoFactor)(nil)
)

// NewTwoFactor makes the driver for the 2FA API v2.
func NewTwoFactor(name string, c Config) (*TwoFactor, error) {
	client, err := c.client(name)
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Application, "application", "copy the id of the 2FA application")
	settings.Need(c.Message, "message", "copy the id of the application's message template")
	return &TwoFactor{name: name, config: c, client: client}, settings.Err(err)
}

// Name implements sms.Vendor.
func (t *TwoFactor) Name() string { return t.name }

// Abilities implements sms.Vendor.
func (*TwoFactor) Abilities() sms.Abilities {
	return sms.Abilities{Kind: sms.Verifier, Channels: []sms.Channel{sms.SMS, sms.Voice}}
}

// notFound is Infobip's word for an application, a template or a PIN that is not there.
const notFound = "NOT_FOUND"

// start is the body of POST /2fa/2/pin and of /2fa/2/pin/voice.
type start struct {
	Application string `json:"applicationId"`
	Message     string `json:"messageId"`
	From        string `json:"from,omitempty"`
	To          string `json:"to"`
}

// Send implements sms.Vendor. The number is not looked up before, which would cost extra.
func (t *TwoFactor) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	body := start{t.config.Application, t.config.Message, leg.Sender, digits(leg.To)}
	if body.From == "" {
		body.From = t.config.Sender
	}
	r := wire.Request{Method: http.MethodPost, Path: "/2fa/2/pin", Query: url.Values{"ncNeeded": {"false"}}, JSON: body}
	if leg.Channel == sms.Voice {
		r.Path, r.Query = "/2fa/2/pin/voice", nil
	}
	return t.send(ctx, r, leg.Channel)
}

// Continue implements sms.Continuer: the same PIN again, as a text or spoken.
func (t *TwoFactor) Continue(ctx context.Context, s sms.Session, leg sms.Leg) (sms.Accepted, error) {
	path := "/2fa/2/pin/" + url.PathEscape(s.ID) + "/resend"
	if leg.Channel == sms.Voice {
		path += "/voice"
	}
	got, err := t.send(ctx, wire.Request{Method: http.MethodPost, Path: path, JSON: struct{}{}}, leg.Channel)
	if e, ok := errors.AsType[*sms.Error](err); ok && e.Code == notFound {
		e.Class = sms.Expired // the PIN, and not a setting
	}
	return got, err
}

// send reads the answer, which is alike for all. Status 200 alone is no success.
func (t *TwoFactor) send(ctx context.Context, r wire.Request, channel sms.Channel) (sms.Accepted, error) {
	resp, err := t.client.Do(ctx, r)
	if err != nil {
		return sms.Accepted{}, err
	}
	if !resp.OK() {
		return sms.Accepted{}, pinRefused(resp)
	}
	var answer struct {
		PINID      string `json:"pinId"`
		SMSStatus  string `json:"smsStatus"`
		CallStatus string `json:"callStatus"`
	}
	if err := resp.Decode(&answer); err != nil {
		return sms.Accepted{}, err
	}
	taken := false
	switch {
	case channel != sms.Voice && answer.SMSStatus == "MESSAGE_SENT":
		taken = true
	case channel != sms.Voice && answer.SMSStatus == "MESSAGE_NOT_SENT":
		return sms.Accepted{}, resp.Refused(sms.RecipientUnreachable, "MESSAGE_NOT_SENT")
	case channel == sms.Voice && strings.HasPrefix(answer.CallStatus, "PENDING_"):
		taken = true
	case channel == sms.Voice && strings.HasPrefix(answer.CallStatus, "REJECTED_"):
		return sms.Accepted{}, resp.Refused(sms.Misconfigured, short(answer.CallStatus))
	case channel == sms.Voice && (strings.HasPrefix(answer.CallStatus, "UNDELIVERABLE_") || strings.HasPrefix(answer.CallStatus, "EXPIRED_")):
		return sms.Accepted{}, resp.Refused(sms.RecipientUnreachable, short(answer.CallStatus))
	}
	if !taken || answer.PINID == "" {
		return sms.Accepted{}, t.client.Fail(sms.Ambiguous, "no_status", sms.MaybeSent)
	}
	return sms.Accepted{Ref: answer.PINID, Session: answer.PINID}, nil
}

// Check implements sms.Checker. A wrong PIN, and one too late, are answered with 200 as the right one is.
func (t *TwoFactor) Check(ctx context.Context, s sms.Session, answer string) (sms.Verdict, error) {
	body := struct {
		PIN string `json:"pin"`
	}{answer}
	resp, err := t.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: "/2fa/2/pin/" + url.PathEscape(s.ID) + "/verify", JSON: body})
	if err != nil {
		return sms.Denied, err
	}
	if resp.Status == http.StatusNotFound {
		return sms.Gone, nil
	}
	if !resp.OK() {
		return sms.Denied, pinRefused(resp)
	}
	var checked struct {
		Verified bool   `json:"verified"`
		Left     *int   `json:"attemptsRemaining"`
		Error    string `json:"pinError"`
	}
	if err := resp.Decode(&checked); err != nil {
		return sms.Denied, err
	}
	switch {
	case checked.Verified:
		return sms.Approved, nil
	case checked.Error == "TTL_EXPIRED":
		return sms.TimedOut, nil
	case checked.Left != nil && *checked.Left <= 0, checked.Error == "NO_MORE_PIN_ATTEMPTS":
		return sms.Exhausted, nil
	default:
		return sms.Denied, nil
	}
}

// pinRefused reads a refusal of the 2FA API, whose errors are not those of the SMS API.
func pinRefused(r *wire.Response) *sms.Error {
	var body struct {
		RequestError struct {
			Exception struct {
				ID     string          `json:"messageId"`
				Fields json.RawMessage `json:"validationErrors"`
			} `json:"serviceException"`
		} `json:"requestError"`
	}
	if r.Decode(&body) != nil {
		return r.Refused("", "")
	}
	exception := body.RequestError.Exception
	var class sms.Class
	var fields map[string]json.RawMessage
	if r.Status == http.StatusBadRequest && len(exception.Fields) > 0 && json.Unmarshal(exception.Fields, &fields) == nil {
		for _, wanted := range []sms.Class{sms.InvalidRecipient, sms.InvalidSender} {
			for field := range fields {
				if class == "" && byField(field) == wanted {
					class = wanted
				}
			}
		}
	}
	return r.Refused(class, short(exception.ID))
}
