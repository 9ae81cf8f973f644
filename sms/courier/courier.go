// Package courier sends through Courier, a router that renders a message and hands it to Twilio or to another provider of the workspace.
//
// Sources: Courier's documentation (github.com/trycourier/docs: reference/authorization, reference/send/message, reference/idempotent-requests,
// guides/getting-started/outbound-webhooks, guides/providers/sms/twilio) and its Go client (github.com/trycourier/courier-go v4: send, message, shared,
// internal/requestconfig).
//
// Not verified against a live account: the bodies of 401, 403 and 429, and limits of rate; whether the id of a request is always that of its one message,
// and where in a webhook the trace id is (reports are matched by both); how a sender is nested for Twilio in the current form of a request; whether a webhook
// that is tried again is signed anew; whether the title of a message shows in a text. No signature was published together with its secret.
//
// 202 means that Courier has it, no more: what the provider makes of it comes by webhook. The leg is the Idempotency-Key, which gives the first answer again
// for a day. An answer that was an error is kept as well, so that the same key never heals: a leg that was answered so is looked up by its trace id when it is
// tried again, and goes out under a key of its own where Courier has no message of it.
//
// Receipts are message:updated webhooks of the workspace, signed with their time under the secret of the webhook. Replies reach the provider, never us.
package courier

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Config of the driver.
type Config struct {
	// BaseURL defaults to https://api.courier.com.
	BaseURL string
	// Token of the workspace's environment.
	Token string
	// Secret of the outbound webhook. "": receipts are refused.
	Secret string
	// Sender, a number or a messaging service (MG…), replaces that of the workspace's Twilio, for numbers whose country has none of its own.
	Sender string
	// Template is the id of a stored one, with the variables text and code. "": our text as it is.
	Template string
	// Title of messages without a template, which Courier asks for. Default "Verification".
	Title string
}

// Courier is the driver. Make one with [New].
type Courier struct {
	name   string
	config Config
	client *wire.Client

	mu    sync.Mutex
	spent map[uuid.UUID]int // keys that an error is kept under, by leg
}

var _ sms.Receiver = (*Courier)(nil)

// maxSpent bounds what is remembered: far more legs than fail within a code's life.
const maxSpent = 1000

// New makes the driver.
func New(name string, c Config) (*Courier, error) {
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Token, "token", "copy the token of the workspace's environment")
	if c.BaseURL == "" {
		c.BaseURL = "https://api.courier.com"
	}
	if c.Title == "" {
		c.Title = "Verification"
	}
	client, err := wire.New(name, c.BaseURL, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+c.Token) })
	if err := settings.Err(err); err != nil {
		return nil, err
	}
	return &Courier{name: name, config: c, client: client, spent: map[uuid.UUID]int{}}, nil
}

// Name implements sms.Vendor.
func (c *Courier) Name() string { return c.name }

// Abilities implements sms.Vendor.
func (*Courier) Abilities() sms.Abilities {
	return sms.Abilities{Kind: sms.Gateway, Channels: []sms.Channel{sms.SMS}, Idempotency: sms.Replay}
}

// message is what POST /send takes.
type message struct {
	To        recipient           `json:"to"`
	Content   *content            `json:"content,omitempty"`
	Template  string              `json:"template,omitempty"`
	Routing   routing             `json:"routing"`
	Providers map[string]provider `json:"providers,omitempty"`
	Expiry    expiry              `json:"expiry"`
	Metadata  metadata            `json:"metadata"`
}

type recipient struct {
	Phone string            `json:"phone_number"`
	Data  map[string]string `json:"data,omitempty"`
}

type content struct {
	Title string `json:"title"`
	Body  string `json:"body"`
}

type routing struct {
	Method   string   `json:"method"`
	Channels []string `json:"channels"`
}

type provider struct {
	Override struct {
		Body map[string]string `json:"body"`
	} `json:"override"`
}

type expiry struct {
	In int64 `json:"expires_in"` // milliseconds
}

type metadata struct {
	Trace string `json:"trace_id"`
}

func (c *Courier) message(leg sms.Leg) message {
	m := message{
		To: recipient{Phone: leg.To.Reveal()}, Routing: routing{"single", []string{"sms"}}, Expiry: expiry{max(leg.Life, time.Second).Milliseconds()},
		Metadata: metadata{leg.ID.String()},
	}
	if c.config.Template != "" {
		m.Template, m.To.Data = c.config.Template, map[string]string{"text": leg.Text, "code": leg.Code}
	} else {
		m.Content = &content{c.config.Title, leg.Text}
	}
	sender := leg.Sender
	if sender == "" {
		sender = c.config.Sender
	}
	if sender != "" {
		field := "from"
		if strings.HasPrefix(sender, "MG") {
			field = "messagingServiceSid"
		}
		var twilio provider
		twilio.Override.Body = map[string]string{field: sender}
		m.Providers = map[string]provider{"twilio": twilio}
	}
	return m
}

// Send implements sms.Vendor.
func (c *Courier) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	if c.config.Template == "" && strings.Contains(leg.Text, "{{") {
		return sms.Accepted{}, c.client.Fail(sms.ContentRejected, "braces", sms.NotSent) // Courier would put something in their place
	}
	key := leg.ID.String()
	c.mu.Lock()
	tries := c.spent[leg.ID]
	c.mu.Unlock()
	if tries > 0 {
		ref, err := c.find(ctx, key)
		if err != nil {
			return sms.Accepted{}, err
		}
		if ref != "" {
			c.forget(leg.ID)
			return sms.Accepted{Ref: ref}, nil
		}
		key += "-" + strconv.Itoa(tries)
	}
	resp, err := c.client.Do(ctx, wire.Request{
		Method: http.MethodPost, Path: "/send", Header: http.Header{"Idempotency-Key": {key}}, JSON: map[string]message{"message": c.message(leg)},
	})
	if err != nil {
		return sms.Accepted{}, err
	}
	if !resp.OK() {
		if resp.Status >= 500 || resp.Status == http.StatusTooManyRequests || resp.Status == http.StatusRequestTimeout {
			c.spend(leg.ID, tries)
		}
		return sms.Accepted{}, c.refused(resp)
	}
	var taken struct {
		RequestID string `json:"requestId"`
	}
	if err := resp.Decode(&taken); err != nil {
		return sms.Accepted{}, err
	}
	if taken.RequestID == "" {
		return sms.Accepted{}, c.client.Fail(sms.Ambiguous, "no_request_id", sms.MaybeSent)
	}
	c.forget(leg.ID)
	return sms.Accepted{Ref: taken.RequestID}, nil
}

// find asks for the message of a leg. "" is none.
func (c *Courier) find(ctx context.Context, trace string) (string, error) {
	failed := c.client.Fail(sms.Temporary, "lookup_failed", sms.MaybeSent)
	resp, err := c.client.Do(ctx, wire.Request{Method: http.MethodGet, Path: "/messages", Query: url.Values{"traceId": {trace}}})
	if err != nil || !resp.OK() {
		return "", failed
	}
	var list struct {
		Results []struct {
			ID string `json:"id"`
		} `json:"results"`
	}
	if resp.Decode(&list) != nil || list.Results == nil {
		return "", failed
	}
	if len(list.Results) == 0 {
		return "", nil
	}
	if list.Results[0].ID == "" {
		return "", failed
	}
	return list.Results[0].ID, nil
}

// spend remembers that an error is kept under the leg's key.
func (c *Courier) spend(leg uuid.UUID, tries int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spent) >= maxSpent {
		for old := range c.spent { // the worst that follows is that it fails once more
			delete(c.spent, old)
			break
		}
	}
	c.spent[leg] = max(c.spent[leg], tries+1)
}

func (c *Courier) forget(leg uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.spent, leg)
}

// refused reads a refusal.
func (c *Courier) refused(r *wire.Response) *sms.Error {
	if r.Status == http.StatusConflict { // the same key is at work at this moment
		return c.client.Fail(sms.Temporary, "http_409", sms.MaybeSent)
	}
	var body struct {
		Type string `json:"type"`
	}
	if r.Decode(&body) != nil || strings.Trim(body.Type, "abcdefghijklmnopqrstuvwxyz_") != "" || len(body.Type) > 40 {
		return r.Refused("", "")
	}
	return r.Refused("", body.Type)
}

// states of messages.
var states = map[string]sms.LegState{
	"ENQUEUED": sms.LegAccepted, "ROUTED": sms.LegAccepted, "DELAYED": sms.LegAccepted, "DIGESTED": sms.LegAccepted, "SENT": sms.LegSent,
	"DELIVERED": sms.LegDelivered, "OPENED": sms.LegDelivered, "CLICKED": sms.LegDelivered, "SIMULATED": sms.LegDelivered,
	"UNDELIVERABLE": sms.LegUndelivered, "UNROUTABLE": sms.LegRejected, "UNMAPPED": sms.LegRejected, "FILTERED": sms.LegRejected, "THROTTLED": sms.LegRejected,
	"CANCELED": sms.LegFailed,
}

// reasons of bad news.
var reasons = map[string]sms.Class{
	"BOUNCED": sms.RecipientUnreachable, "FAILED": sms.RecipientUnreachable, "PROVIDER_ERROR": sms.RecipientUnreachable, "FILTERED": sms.Misconfigured,
	"NO_CHANNELS": sms.Misconfigured, "NO_PROVIDERS": sms.Misconfigured, "UNPUBLISHED": sms.Misconfigured,
	"OPT_IN_REQUIRED": sms.RecipientOptedOut, "UNSUBSCRIBED": sms.RecipientOptedOut,
}

// classes of bad news without a reason, and of such as need none.
var classes = map[string]sms.Class{
	"UNDELIVERABLE": sms.RecipientUnreachable, "UNROUTABLE": sms.Misconfigured, "UNMAPPED": sms.Misconfigured, "FILTERED": sms.Misconfigured,
	"THROTTLED": sms.RateLimited, "CANCELED": sms.RecipientUnreachable,
}

// Receive implements sms.Receiver.
func (c *Courier) Receive(w sms.Webhook) (sms.Received, error) {
	at, ok := authentic(c.config.Secret, w)
	if !ok {
		return sms.Received{}, sms.ErrForged
	}
	if age := w.At.Sub(at); age > sms.Tolerance || age < -sms.Tolerance {
		return sms.Received{}, sms.ErrStale
	}
	var in struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if json.Unmarshal(w.Body, &in) != nil || in.Type == "" {
		return sms.Received{}, sms.ErrMalformed
	}
	if in.Type != "message:updated" {
		return sms.Received{}, nil // of templates and audiences
	}
	var data struct {
		ID       string   `json:"id"`
		Status   string   `json:"status"`
		Reason   string   `json:"reason"`
		Trace    string   `json:"trace_id"`
		Metadata metadata `json:"metadata"`
	}
	if json.Unmarshal(in.Data, &data) != nil || data.ID == "" || data.Status == "" {
		return sms.Received{}, sms.ErrMalformed
	}
	state, known := states[data.Status]
	if !known {
		return sms.Received{}, nil
	}
	report := sms.Report{Ref: data.ID, State: state, Key: data.ID + " " + data.Status}
	for _, trace := range []string{data.Trace, data.Metadata.Trace} {
		if leg, err := uuid.Parse(trace); err == nil {
			report.Leg = leg
		}
	}
	class, bad := classes[data.Status]
	switch {
	case bad:
		report.Class, report.Code = class, data.Status
		if reason, known := reasons[data.Reason]; known {
			report.Code += "/" + data.Reason
			if data.Status == "UNDELIVERABLE" || data.Status == "FILTERED" {
				report.Class = reason
			}
		}
	case data.Status == "SIMULATED":
		report.Code = data.Status // no phone has it
	}
	return sms.Received{Reports: []sms.Report{report}}, nil
}

// authentic checks courier-signature, "t=<milliseconds>,signature=<hex>": HMAC-SHA256 under the secret over t, a dot and the body. It gives t.
func authentic(secret string, w sms.Webhook) (time.Time, bool) {
	stamp, signature, found := strings.Cut(w.Header.Get("Courier-Signature"), ",")
	stamp, hasStamp := strings.CutPrefix(strings.TrimSpace(stamp), "t=")
	signature, hasSignature := strings.CutPrefix(strings.TrimSpace(signature), "signature=")
	given, err := hex.DecodeString(signature)
	if secret == "" || !found || !hasStamp || !hasSignature || err != nil {
		return time.Time{}, false
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stamp + "."))
	mac.Write(w.Body)
	if !hmac.Equal(given, mac.Sum(nil)) {
		return time.Time{}, false
	}
	ms, err := strconv.ParseInt(stamp, 10, 64)
	return time.UnixMilli(ms), err == nil
}
