// Package twilio sends through Twilio, by two of its products: [Messaging], a gateway that carries our text by SMS or WhatsApp, and [Verify], which
// makes and checks codes itself, or takes ours where the account has custom codes enabled.
//
// Sources: Twilio's OpenAPI descriptions (github.com/twilio/twilio-oai, spec/json/twilio_api_v2010.json and twilio_verify_v2.json); the error
// dictionary (twilio.com/docs/api/errors); status callbacks (twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks);
// opt-out (twilio.com/docs/messaging/tutorials/advanced-opt-out); signatures and their vectors from the validators of twilio-go and
// twilio-python.
//
// Not verified against a live account: the HTTP status of each error code, which is why only the code is read; code 30450 for fraud blocks of
// Messaging.
//
// Messaging has no idempotency key: a call whose answer was lost may have sent. Receipts are signed without a time, so that only their
// content tells a repetition.
package twilio

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Twilio signs with it
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Config of Messaging and of Verify.
type Config struct {
	// BaseURL defaults to the product's own host.
	BaseURL string
	// Account is the account's SID, AC….
	Account string
	// KeySID and Secret are an API key and its secret; with KeySID "" Secret is the account's auth token.
	KeySID, Secret string
	// AuthToken of the account signs webhooks. "": Secret, if that is it.
	AuthToken string
	// Sender is a number, an alphanumeric sender or, beginning with MG, a messaging service. Messaging only.
	Sender string
	// Service is the SID of a Verify service, VA…. Verify only.
	Service string
	// CustomCode says that the account takes codes of ours. Verify only.
	CustomCode bool
}

func (c Config) client(name, host string) (*wire.Client, error) {
	base := c.BaseURL
	if base == "" {
		base = host
	}
	user := c.KeySID
	if user == "" {
		user = c.Account
	}
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Account, "account", "copy the account SID, AC…, from the console")
	settings.Need(c.Secret, "secret", "copy the auth token from the console, or make an API key and give its SID too")
	for _, sid := range []struct{ key, value, kind string }{{"account", c.Account, "AC"}, {"key_sid", c.KeySID, "SK"}} {
		if sid.value != "" && !strings.HasPrefix(sid.value, sid.kind) {
			settings.Wrong(sid.key, "does not begin with "+sid.kind, "copy the SID, "+sid.kind+"…, from the console")
		}
	}
	client, err := wire.New(name, base, func(r *http.Request) { r.SetBasicAuth(user, c.Secret) })
	return client, settings.Err(err)
}

// classes of Twilio's error codes: of calls, receipts and Verify.
var classes = map[int]sms.Class{
	20003: sms.Unauthorized, 20404: sms.Misconfigured, 20429: sms.RateLimited,
	21211: sms.InvalidRecipient, 21212: sms.InvalidSender, 21408: sms.RegionBlocked, 21603: sms.InvalidSender, 21606: sms.InvalidSender, 21608: sms.Misconfigured,
	21610: sms.RecipientOptedOut, 21611: sms.Temporary, 21612: sms.RecipientUnreachable, 21614: sms.InvalidRecipient,
	30001: sms.Temporary, 30002: sms.Unauthorized, 30003: sms.RecipientUnreachable, 30004: sms.RecipientUnreachable, 30005: sms.InvalidRecipient,
	30006: sms.RecipientUnreachable, 30007: sms.ContentRejected, 30008: sms.RecipientUnreachable, 30034: sms.Misconfigured, 30450: sms.BlockedFraud,
	60200: sms.InvalidRecipient, 60203: sms.RateLimited, 60205: sms.RecipientUnreachable, 60207: sms.RateLimited, 60212: sms.Temporary,
	60238: sms.BlockedFraud, 60410: sms.BlockedFraud, 60605: sms.RegionBlocked,
}

// refused reads a refusal. The code decides; the status only where there is none.
func refused(r *wire.Response) *sms.Error {
	var body struct {
		Code int `json:"code"`
	}
	if r.Decode(&body) != nil || body.Code == 0 {
		return r.Refused("", "")
	}
	class, known := classes[body.Code]
	if !known && body.Code/1000 == 63 {
		class = sms.RecipientUnreachable // of WhatsApp and other channels
	}
	e := r.Refused(class, strconv.Itoa(body.Code))
	e.PerNumber = body.Code == 60203 // too many codes to this number
	return e
}

// Messaging is the gateway. Make one with [NewMessaging].
type Messaging struct {
	name   string
	config Config
	client *wire.Client
}

var (
	_ sms.Receiver = (*Messaging)(nil)
	_ sms.Pinger   = (*Messaging)(nil)
)

// NewMessaging makes the driver for Programmable Messaging.
func NewMessaging(name string, c Config) (*Messaging, error) {
	client, err := c.client(name, "https://api.twilio.com")
	settings := sms.Settings{Vendor: name}
	if c.KeySID != "" {
		settings.Need(c.AuthToken, "auth_token", "copy the account's auth token from the console: Twilio signs receipts with it, not with an API key")
	}
	if c.AuthToken == "" {
		c.AuthToken = c.Secret
	}
	return &Messaging{name: name, config: c, client: client}, settings.Err(err)
}

// Name implements sms.Vendor.
func (m *Messaging) Name() string { return m.name }

// Abilities implements sms.Vendor.
func (*Messaging) Abilities() sms.Abilities {
	return sms.Abilities{Kind: sms.Gateway, Channels: []sms.Channel{sms.SMS, sms.WhatsApp}}
}

// Bounds of ValidityPeriod, in seconds.
const maxValidity = 36000

// Send implements sms.Vendor.
func (m *Messaging) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	form := url.Values{
		"To": {leg.To.Reveal()}, "Body": {leg.Text}, "ValidityPeriod": {strconv.Itoa(min(max(1, int(leg.Life.Seconds())), maxValidity))},
	}
	sender := leg.Sender
	if sender == "" {
		sender = m.config.Sender
	}
	if leg.Channel == sms.WhatsApp {
		form.Set("To", "whatsapp:"+leg.To.Reveal())
	}
	switch {
	case strings.HasPrefix(sender, "MG"):
		form.Set("MessagingServiceSid", sender)
	case leg.Channel == sms.WhatsApp:
		form.Set("From", "whatsapp:"+sender)
	default:
		form.Set("From", sender)
	}
	if leg.Callback != "" {
		form.Set("StatusCallback", leg.Callback)
	}
	resp, err := m.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: "/2010-04-01/Accounts/" + url.PathEscape(m.config.Account) + "/Messages.json", Form: form})
	if err != nil {
		return sms.Accepted{}, err
	}
	if !resp.OK() {
		return sms.Accepted{}, refused(resp)
	}
	var taken struct {
		SID string `json:"sid"`
	}
	if err := resp.Decode(&taken); err != nil {
		return sms.Accepted{}, err
	}
	if taken.SID == "" {
		return sms.Accepted{}, m.client.Fail(sms.Ambiguous, "no_sid", sms.MaybeSent)
	}
	return sms.Accepted{Ref: taken.SID}, nil
}

// Ping implements sms.Pinger.
func (m *Messaging) Ping(ctx context.Context) (string, error) {
	resp, err := m.client.Do(ctx, wire.Request{Method: http.MethodGet, Path: "/2010-04-01/Accounts/" + url.PathEscape(m.config.Account) + "/Balance.json"})
	if err != nil {
		return "", err
	}
	if !resp.OK() {
		return "", refused(resp)
	}
	var left struct {
		Balance  string `json:"balance"`
		Currency string `json:"currency"`
	}
	if err := resp.Decode(&left); err != nil {
		return "", err
	}
	return left.Balance + " " + left.Currency, nil
}

// states of messages that say something about a leg.
var states = map[string]sms.LegState{
	"sent": sms.LegSent, "delivered": sms.LegDelivered, "read": sms.LegDelivered, "undelivered": sms.LegUndelivered, "failed": sms.LegFailed, "canceled": sms.LegFailed,
}

// Receive implements sms.Receiver: status callbacks and inbound messages, which are alike but for their fields.
func (m *Messaging) Receive(w sms.Webhook) (sms.Received, error) {
	if !authentic(m.config.AuthToken, w) {
		return sms.Received{}, sms.ErrForged
	}
	form, err := url.ParseQuery(string(w.Body))
	if err != nil || form.Get("MessageSid") == "" {
		return sms.Received{}, sms.ErrMalformed
	}
	id := form.Get("MessageSid")
	if status := form.Get("MessageStatus"); status != "" {
		state, known := states[status]
		if !known {
			return sms.Received{}, nil // queued, sending and whatever comes to be: nothing new
		}
		report := sms.Report{Ref: id, State: state, Code: form.Get("ErrorCode"), Key: id + " " + status}
		if code, err := strconv.Atoi(report.Code); err == nil {
			report.Class = classes[code]
		}
		if report.Class == "" && state != sms.LegSent && state != sms.LegDelivered {
			report.Class = sms.RecipientUnreachable
		}
		return sms.Received{Reports: []sms.Report{report}}, nil
	}
	from, err := sms.ParseNumber(strings.TrimPrefix(form.Get("From"), "whatsapp:"), "")
	if err != nil {
		return sms.Received{}, sms.ErrMalformed
	}
	inbound := sms.Inbound{From: from, To: strings.TrimPrefix(form.Get("To"), "whatsapp:"), Text: form.Get("Body"), Key: id}
	switch form.Get("OptOutType") { // Advanced Opt-Out: Twilio has understood and answered
	case "STOP":
		inbound.Keyword, inbound.Answered = sms.KeywordStop, true
	case "START":
		inbound.Keyword, inbound.Answered = sms.KeywordStart, true
	case "HELP":
		inbound.Keyword, inbound.Answered = sms.KeywordHelp, true
	}
	return sms.Received{Inbound: []sms.Inbound{inbound}, Reply: []byte("<Response/>"), ReplyType: "text/xml"}, nil
}

// authentic checks X-Twilio-Signature: base64 of HMAC-SHA1 under the auth token over the URL and, for forms, every field in order of its name, each
// distinct value in order and preceded by the name. For other bodies the URL carries bodySHA256.
func authentic(token string, w sms.Webhook) bool {
	given, err := base64.StdEncoding.DecodeString(w.Header.Get("X-Twilio-Signature"))
	if err != nil || len(given) != sha1.Size || token == "" {
		return false
	}
	fields := ""
	u, err := url.Parse(w.URL)
	if err != nil {
		return false
	}
	if sum := u.Query().Get("bodySHA256"); sum != "" {
		body := sha256.Sum256(w.Body)
		if !hmac.Equal([]byte(strings.ToLower(sum)), []byte(hex.EncodeToString(body[:]))) {
			return false
		}
	} else {
		form, err := url.ParseQuery(string(w.Body))
		if err != nil {
			return false
		}
		fields = canonical(form)
	}
	for _, address := range withAndWithoutPort(u) { // what stands before us may have added or dropped it
		mac := hmac.New(sha1.New, []byte(token))
		mac.Write([]byte(address + fields))
		if hmac.Equal(given, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

func canonical(form url.Values) string {
	names := make([]string, 0, len(form))
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		values := slices.Clone(form[name])
		slices.Sort(values)
		for _, value := range slices.Compact(values) {
			b.WriteString(name + value)
		}
	}
	return b.String()
}

func withAndWithoutPort(u *url.URL) []string {
	as := func(host string) string {
		changed := *u
		changed.Host = host
		return changed.String()
	}
	standard := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if u.Port() == "" {
		return []string{u.String(), as(u.Host + ":" + standard)}
	}
	return []string{u.String(), as(u.Hostname())}
}
