// Package infobip sends through Infobip, by two of its products: [SMS], a gateway that carries our text, and [TwoFactor], which makes, sends, speaks and
// checks codes itself.
//
// Sources: Infobip's OpenAPI 3.1 descriptions of SMS and 2FA, version 3.210.0 (api.infobip.com/platform/1/openapi; mirrored at
// github.com/api-evangelist/infobip, openapi/); its statuses (infobip.com/docs/essentials/api-essentials/response-status-and-error-codes); webhooks and
// their protection (infobip.com/docs, developer resources: webhooks, message status codes); the official client
// (github.com/infobip/infobip-api-go-client).
//
// Not verified against a live account: the header that carries a webhook's HMAC and how it is written, which is why both are configuration; every value
// of pinError; whether a new PIN ends the one before it for the same number; with which status a PIN beyond the application's limits is refused
// (429 is assumed); whether the id of a text that was refused can be used again.
//
// SMS recognises a repeat: the leg is the message's own id, and status 23 (duplicate) means that the first has arrived. TwoFactor has no guard: a call whose
// answer was lost may have sent.
//
// Receipts and replies of SMS come as JSON. By default a token protects them, in the path or as the password of basic authentication; an account whose
// notification profile signs can have its HMAC checked, besides the token or in its place. The HMAC has no time in it, so that only their content tells a
// repetition. TwoFactor has none.
package infobip

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Infobip offers it
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Config of SMS and of TwoFactor.
type Config struct {
	// BaseURL is the account's own, https://….api.infobip.com. Default https://api.infobip.com.
	BaseURL string
	// APIKey with the scope sms:message:send or 2fa:pin:send.
	APIKey string
	// Sender for numbers whose country has none of its own. TwoFactor: "" is that of the message template.
	Sender string
	// WebhookToken is what [sms.Webhook.Token] has to be. SMS only.
	WebhookToken string
	// HMACSecret of the notification profile; every webhook has to be signed with it. "": none is. SMS only.
	HMACSecret string
	// HMACHeader carries the signature. Default X-Signature.
	HMACHeader string
	// HMACAlgorithm is sha1, sha224, sha256, sha384 or sha512. Default sha256.
	HMACAlgorithm string
	// HMACEncoding is hex or base64. Default hex.
	HMACEncoding string
	// IndiaEntity and IndiaTemplate are the ids of the principal entity and the content template that texts to India are registered under. SMS only.
	IndiaEntity, IndiaTemplate string
	// Application and Message are the ids of the 2FA application and of its message template. TwoFactor only.
	Application, Message string
}

func (c Config) client(name string) (*wire.Client, error) {
	base := c.BaseURL
	if base == "" {
		base = "https://api.infobip.com"
	}
	settings := sms.Settings{Vendor: name}
	settings.Need(c.APIKey, "api_key", "make one in the portal, with the scope of this product")
	client, err := wire.New(name, base, func(r *http.Request) { r.Header.Set("Authorization", "App "+c.APIKey) })
	return client, settings.Err(err)
}

// algorithms of webhook signatures. MD5, which Infobip has too, is left out.
var algorithms = map[string]func() hash.Hash{"sha1": sha1.New, "sha224": sha256.New224, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}

// encodings of webhook signatures.
var encodings = map[string]func(string) ([]byte, error){"hex": hex.DecodeString, "base64": base64.StdEncoding.DecodeString}

// SMS is the gateway. Make one with [NewSMS].
type SMS struct {
	name   string
	config Config
	client *wire.Client
}

var _ sms.Receiver = (*SMS)(nil)

// NewSMS makes the driver for the SMS API v3.
func NewSMS(name string, c Config) (*SMS, error) {
	client, err := c.client(name)
	settings := sms.Settings{Vendor: name}
	if c.HMACHeader == "" {
		c.HMACHeader = "X-Signature"
	}
	if c.HMACAlgorithm == "" {
		c.HMACAlgorithm = "sha256"
	}
	if c.HMACEncoding == "" {
		c.HMACEncoding = "hex"
	}
	if algorithms[c.HMACAlgorithm] == nil {
		settings.Wrong("hmac_algorithm", fmt.Sprintf("is not an algorithm of signatures: %q", c.HMACAlgorithm), "write sha1, sha224, sha256, sha384 or sha512")
	}
	if encodings[c.HMACEncoding] == nil {
		settings.Wrong("hmac_encoding", fmt.Sprintf("is not an encoding of signatures: %q", c.HMACEncoding), "write hex or base64")
	}
	if (c.IndiaEntity == "") != (c.IndiaTemplate == "") {
		settings.Need(c.IndiaEntity, "india_entity", "for India both the entity and the template are needed")
		settings.Need(c.IndiaTemplate, "india_template", "for India both the entity and the template are needed")
	}
	return &SMS{name: name, config: c, client: client}, settings.Err(err)
}

// Name implements sms.Vendor.
func (s *SMS) Name() string { return s.name }

// Abilities implements sms.Vendor.
func (*SMS) Abilities() sms.Abilities {
	return sms.Abilities{Kind: sms.Gateway, Channels: []sms.Channel{sms.SMS}, Idempotency: sms.Refuse}
}

// request is the body of POST /sms/3/messages.
type request struct {
	Messages []message `json:"messages"`
}

type message struct {
	Sender       string        `json:"sender,omitempty"`
	Destinations []destination `json:"destinations"`
	Content      content       `json:"content"`
	Options      options       `json:"options"`
	Webhooks     *webhooks     `json:"webhooks,omitempty"`
}

type destination struct {
	To        string `json:"to"`
	MessageID string `json:"messageId"`
}

type content struct {
	Text string `json:"text"`
}

type options struct {
	ValidityPeriod validity  `json:"validityPeriod"`
	Regional       *regional `json:"regional,omitempty"`
}

type validity struct {
	Amount   int    `json:"amount"`
	TimeUnit string `json:"timeUnit"`
}

type regional struct {
	IndiaDLT indiaDLT `json:"indiaDlt"`
}

type indiaDLT struct {
	Entity   string `json:"principalEntityId"`
	Template string `json:"contentTemplateId"`
}

type webhooks struct {
	Delivery     delivery `json:"delivery"`
	ContentType  string   `json:"contentType"`
	CallbackData string   `json:"callbackData"`
}

type delivery struct {
	URL          string `json:"url"`
	Intermediate bool   `json:"intermediateReport"`
}

// maxValidity is the longest that Infobip tries.
const maxValidity = 48 * time.Hour

// digits is a number as Infobip writes it: without the plus.
func digits(n sms.Number) string { return strings.TrimPrefix(n.Reveal(), "+") }

// Send implements sms.Vendor.
func (s *SMS) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	id := leg.ID.String()
	m := message{
		Sender: leg.Sender, Destinations: []destination{{To: digits(leg.To), MessageID: id}}, Content: content{leg.Text},
		Options: options{ValidityPeriod: validity{max(1, int(min(leg.Life, maxValidity).Seconds())), "SECONDS"}},
	}
	if m.Sender == "" {
		m.Sender = s.config.Sender
	}
	if leg.Callback != "" {
		m.Webhooks = &webhooks{Delivery: delivery{leg.Callback, true}, ContentType: "application/json", CallbackData: id}
	}
	if s.config.IndiaEntity != "" && leg.To.Country() == "IN" {
		m.Options.Regional = &regional{indiaDLT{s.config.IndiaEntity, s.config.IndiaTemplate}}
	}
	resp, err := s.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: "/sms/3/messages", JSON: request{[]message{m}}})
	if err != nil {
		return sms.Accepted{}, err
	}
	if !resp.OK() {
		return sms.Accepted{}, smsRefused(resp)
	}
	var answer struct {
		Messages []struct {
			MessageID string  `json:"messageId"`
			Status    *status `json:"status"`
		} `json:"messages"`
	}
	if err := resp.Decode(&answer); err != nil {
		return sms.Accepted{}, err
	}
	if len(answer.Messages) != 1 || answer.Messages[0].Status == nil || answer.Messages[0].Status.Group == nil {
		return sms.Accepted{}, s.client.Fail(sms.Ambiguous, "no_status", sms.MaybeSent)
	}
	st := *answer.Messages[0].Status
	ref := answer.Messages[0].MessageID
	if ref == "" || st.ID == duplicate {
		ref = id // which is the id that we gave it
	}
	switch *st.Group {
	case groupOK, groupPending, groupDelivered:
		return sms.Accepted{Ref: ref}, nil
	case groupUndeliverable, groupExpired, groupRejected:
		if *st.Group == groupRejected && st.ID == duplicate {
			return sms.Accepted{Ref: ref}, nil
		}
		e := resp.Refused(st.class(), strconv.Itoa(st.ID))
		e.PerNumber = e.Class == sms.RateLimited // flooding of this very number
		return sms.Accepted{}, e
	default:
		return sms.Accepted{}, s.client.Fail(sms.Ambiguous, "unknown_status", sms.MaybeSent)
	}
}

// smsRefused reads a refusal of the SMS API.
func smsRefused(r *wire.Response) *sms.Error {
	var body struct {
		ErrorCode  string `json:"errorCode"`
		Violations []struct {
			Property string `json:"property"`
		} `json:"violations"`
	}
	if r.Decode(&body) != nil {
		return r.Refused("", "")
	}
	var class sms.Class
	if r.Status == http.StatusBadRequest {
		for _, v := range body.Violations {
			if class = byField(v.Property); class != "" {
				break
			}
		}
	}
	return r.Refused(class, short(body.ErrorCode))
}

// byField is the class of a request that was refused for one of its fields; "" where that says no more than the status.
func byField(path string) sms.Class {
	switch path[strings.LastIndexByte(path, '.')+1:] {
	case "to":
		return sms.InvalidRecipient
	case "sender", "from":
		return sms.InvalidSender
	case "text":
		return sms.ContentRejected
	}
	return ""
}

// short is a code that is one: neither long nor with anything in it that a text or an address has. Otherwise "".
func short(code string) string {
	for _, r := range code {
		if (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' {
			return ""
		}
	}
	if len(code) > 40 || code != "" && code[0] >= '0' && code[0] <= '9' { // nor a number
		return ""
	}
	return code
}

// status of a text. Group is nil where there was none: 0 is one.
type status struct {
	Group *int `json:"groupId"`
	ID    int  `json:"id"`
}

// Groups of statuses.
const (
	groupOK = iota
	groupPending
	groupUndeliverable
	groupDelivered
	groupExpired
	groupRejected
)

// Statuses that are more than their group.
const (
	deliveredToOperator = 2
	waitingDelivery     = 3
	deliveredToHandset  = 5
	enRoute             = 7
	duplicate           = 23
	accepted            = 26
	receiptUnknown      = 29
)

// rejections are the statuses of group 5.
var rejections = map[int]sms.Class{
	6: sms.Misconfigured, 8: sms.Misconfigured, 19: sms.Misconfigured, // network, prefix or route that this account has not
	10: sms.RecipientOptedOut, 14: sms.RecipientOptedOut, // do-not-disturb list, block list
	11: sms.InvalidSender, 13: sms.InvalidSender,
	12: sms.InsufficientFunds,
	17: sms.Misconfigured, 18: sms.Misconfigured, // trial accounts
	20: sms.RateLimited, // too many, or too many alike, to one number within the hour
	21: sms.Temporary,
	25: sms.ContentRejected, // too long
	51: sms.InvalidRecipient, 52: sms.InvalidRecipient,
	87: sms.BlockedFraud,
}

// class of bad news.
func (s status) class() sms.Class {
	switch *s.Group {
	case groupRejected:
		if class, known := rejections[s.ID]; known {
			return class
		}
		return sms.Misconfigured
	case groupExpired:
		if s.ID == receiptUnknown {
			return sms.Ambiguous // it may well be there
		}
	}
	return sms.RecipientUnreachable
}

// state that it stands for, or "".
func (s status) state() sms.LegState {
	switch *s.Group {
	case groupOK:
		return sms.LegAccepted
	case groupPending:
		switch s.ID {
		case waitingDelivery, enRoute:
			return sms.LegSent
		case accepted:
			return sms.LegAccepted
		}
	case groupDelivered:
		switch s.ID {
		case deliveredToOperator:
			return sms.LegSent
		case deliveredToHandset:
			return sms.LegDelivered
		}
	case groupUndeliverable:
		return sms.LegUndelivered
	case groupExpired:
		return sms.LegExpired
	case groupRejected:
		if s.ID != duplicate { // which says nothing of the first
			return sms.LegRejected
		}
	}
	return ""
}

// Receive implements sms.Receiver: delivery reports, up to a hundred at once, and replies, which come in the same envelope.
func (s *SMS) Receive(w sms.Webhook) (sms.Received, error) {
	if !s.authentic(w) {
		return sms.Received{}, sms.ErrForged
	}
	var in struct {
		Results []struct {
			MessageID    string  `json:"messageId"`
			CallbackData string  `json:"callbackData"`
			Status       *status `json:"status"`
			Error        struct {
				ID int `json:"id"`
			} `json:"error"`
			From      string `json:"from"`
			To        string `json:"to"`
			Text      string `json:"text"`
			CleanText string `json:"cleanText"`
			Keyword   string `json:"keyword"`
		} `json:"results"`
	}
	if json.Unmarshal(w.Body, &in) != nil || in.Results == nil {
		return sms.Received{}, sms.ErrMalformed
	}
	var got sms.Received
	for _, r := range in.Results {
		switch {
		case r.MessageID == "":
			return sms.Received{}, sms.ErrMalformed
		case r.Status != nil && r.Status.Group != nil:
			state := r.Status.state()
			if state == "" {
				continue
			}
			code := strconv.Itoa(r.Status.ID)
			report := sms.Report{Ref: r.MessageID, State: state, Key: fmt.Sprintf("%s %d.%s", r.MessageID, *r.Status.Group, code)}
			report.Leg, _ = uuid.Parse(r.CallbackData) //nolint:errcheck // not ours: the reference tells
			switch state {
			case sms.LegUndelivered, sms.LegExpired, sms.LegRejected:
				report.Class, report.Code = r.Status.class(), code
				if r.Error.ID != 0 {
					report.Code += "/" + strconv.Itoa(r.Error.ID)
				}
			}
			got.Reports = append(got.Reports, report)
		case r.From != "":
			from, err := sms.ParseNumber("+"+strings.TrimPrefix(r.From, "+"), "")
			if err != nil {
				continue // from no phone: the others count all the same
			}
			inbound := sms.Inbound{From: from, To: r.To, Text: r.Text, Key: r.MessageID}
			if sms.ReadKeyword(r.Text) == "" { // the account's own keyword may stand before it, or be it
				if inbound.Keyword = sms.ReadKeyword(r.CleanText); inbound.Keyword == "" {
					inbound.Keyword = sms.ReadKeyword(r.Keyword)
				}
			}
			got.Inbound = append(got.Inbound, inbound)
		default:
			return sms.Received{}, sms.ErrMalformed
		}
	}
	return got, nil
}

// authentic checks whatever is configured; with nothing configured nothing is.
func (s *SMS) authentic(w sms.Webhook) bool {
	if s.config.WebhookToken == "" && s.config.HMACSecret == "" {
		return false
	}
	if s.config.WebhookToken != "" && subtle.ConstantTimeCompare([]byte(w.Token), []byte(s.config.WebhookToken)) != 1 {
		return false
	}
	if s.config.HMACSecret == "" {
		return true
	}
	given, err := encodings[s.config.HMACEncoding](w.Header.Get(s.config.HMACHeader))
	if err != nil {
		return false
	}
	mac := hmac.New(algorithms[s.config.HMACAlgorithm], []byte(s.config.HMACSecret))
	mac.Write(w.Body)
	return hmac.Equal(given, mac.Sum(nil))
}
