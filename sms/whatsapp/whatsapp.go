// Package whatsapp sends codes by WhatsApp, through Meta's Cloud API: a gateway that carries our code in an authentication template of Meta's wording.
// It needs a business that Meta has verified, a number of its own and a template of category authentication, approved in each language that is wanted.
//
// Sources: developers.facebook.com, authentication templates with a copy-code button; the mirrors of Meta's error codes at docs.ycloud.com,
// developers.kaleyra.io (cloud-api-error-codes) and docs.360dialog.com; webhooks and their signature from WhatsApp-Nodejs-SDK (src/api/webhooks.ts,
// src/utils.ts).
//
// Not verified against a live account: which version of the Graph API is current, so that it has to be configured; the HTTP status of each error code,
// which is why the code decides; that biz_opaque_callback_data comes back in every report, so that Meta's own id is matched as well.
//
// There is no idempotency key: a call whose answer was lost may have sent. That a message was taken does not say that its recipient has WhatsApp: that
// comes later, by a report. Nobody can opt out by a keyword; who blocks the business is unreachable. The sender is the configured number, whatever a country's is.
//
// Webhooks are signed over the raw body, without a time, so that only their content tells a repetition. Meta gathers reports, and repeats
// them for days.
package whatsapp

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/text/language"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Config of the Cloud API.
type Config struct {
	// BaseURL defaults to https://graph.facebook.com.
	BaseURL string
	// Version of the Graph API: "v23.0".
	Version string
	// PhoneNumberID is Meta's id of the sending number, which is not the number.
	PhoneNumberID string
	// Token of a system user, with whatsapp_business_messaging.
	Token string
	// Template is the name of the authentication template.
	Template string
	// Languages that the template is approved in, as Meta writes them; the first for everybody whose language is not among them. Default en_US.
	Languages []string
	// AppSecret signs webhooks. "": they are refused.
	AppSecret string
	// VerifyToken is what Meta is given in the dashboard, together with the webhook's address, and shows when it tries the address. "": it is refused.
	VerifyToken string
}

// WhatsApp is the gateway. Make one with [New].
type WhatsApp struct {
	name    string
	config  Config
	client  *wire.Client
	matcher language.Matcher
}

var _ sms.Receiver = (*WhatsApp)(nil)

var (
	version = regexp.MustCompile(`^v[0-9]+\.[0-9]+$`)
	number  = regexp.MustCompile(`^[0-9]+$`)
)

// New makes the driver. Its error joins everything that is wrong with the configuration.
func New(name string, c Config) (*WhatsApp, error) {
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Version, "version", "give the version of the Graph API, v23.0")
	if c.Version != "" && !version.MatchString(c.Version) {
		settings.Wrong("version", "is not a version of the Graph API", "write it as v23.0")
	}
	settings.Need(c.PhoneNumberID, "phone_number_id", "copy the id of the sending number, not the number itself, from the dashboard")
	if c.PhoneNumberID != "" && !number.MatchString(c.PhoneNumberID) {
		settings.Wrong("phone_number_id", "is not an id of digits", "copy the id of the sending number, not the number itself, from the dashboard")
	}
	settings.Need(c.Token, "token", "make a token of a system user")
	settings.Need(c.Template, "template", "give the name of the approved authentication template")
	if len(c.Languages) == 0 {
		c.Languages = []string{"en_US"}
	}
	tags := make([]language.Tag, len(c.Languages))
	for i, text := range c.Languages {
		tag, err := language.Parse(text)
		if err != nil {
			settings.Wrong("languages", "has one that is no language", "write them as en_US")
		}
		tags[i] = tag
	}
	if c.BaseURL == "" {
		c.BaseURL = "https://graph.facebook.com"
	}
	client, err := wire.New(name, c.BaseURL, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+c.Token) })
	return &WhatsApp{name: name, config: c, client: client, matcher: language.NewMatcher(tags)}, settings.Err(err)
}

// Name implements sms.Vendor.
func (v *WhatsApp) Name() string { return v.name }

// Abilities implements sms.Vendor.
func (*WhatsApp) Abilities() sms.Abilities {
	return sms.Abilities{Kind: sms.Gateway, Channels: []sms.Channel{sms.WhatsApp}, CodesOnly: true}
}

// classes of Meta's error codes, in answers and in reports.
var classes = map[int]sms.Class{
	0: sms.Unauthorized, 2: sms.Temporary, 3: sms.Unauthorized, 4: sms.RateLimited, 10: sms.Unauthorized, 33: sms.Misconfigured, 100: sms.Misconfigured, 190: sms.Unauthorized,
	368: sms.Unauthorized, 80007: sms.RateLimited, 130429: sms.RateLimited, 130472: sms.RecipientUnreachable, 130497: sms.RegionBlocked, 131000: sms.Temporary,
	131008: sms.Misconfigured, 131026: sms.RecipientUnreachable, 131031: sms.Unauthorized, 131042: sms.InsufficientFunds, 131048: sms.RateLimited,
	131049: sms.RecipientUnreachable, 131056: sms.RateLimited,
}

// classOf is "" for a code that is not known.
func classOf(code int) sms.Class {
	switch {
	case code >= 200 && code < 300:
		return sms.Unauthorized // permissions
	case code/1000 == 132:
		return sms.Misconfigured // the template: missing, paused, with other parameters
	}
	return classes[code]
}

// maxCode is how long a code may be, in characters.
const maxCode = 15

type (
	parameter struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	component struct {
		Type       string      `json:"type"`
		SubType    string      `json:"sub_type,omitempty"`
		Index      string      `json:"index,omitempty"`
		Parameters []parameter `json:"parameters"`
	}
)

// Send implements sms.Vendor. The code goes into the text and into the button that copies it, whose type is url whatever the button does.
func (v *WhatsApp) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	if leg.Code == "" || len(leg.Code) > maxCode {
		return sms.Accepted{}, v.client.Fail(sms.Misconfigured, "code", sms.NotSent)
	}
	_, chosen := language.MatchStrings(v.matcher, leg.Locale)
	code := []parameter{{Type: "text", Text: leg.Code}}
	resp, err := v.client.Do(ctx, wire.Request{
		Method: http.MethodPost, Path: "/" + v.config.Version + "/" + url.PathEscape(v.config.PhoneNumberID) + "/messages", JSON: map[string]any{
			"messaging_product": "whatsapp", "to": strings.TrimPrefix(leg.To.Reveal(), "+"), "type": "template", "biz_opaque_callback_data": leg.ID.String(),
			"template": map[string]any{
				"name": v.config.Template, "language": map[string]string{"code": v.config.Languages[chosen]},
				"components": []component{{Type: "body", Parameters: code}, {Type: "button", SubType: "url", Index: "0", Parameters: code}},
			},
		},
	})
	if err != nil {
		return sms.Accepted{}, err
	}
	var answer struct {
		Error *struct {
			Code *int `json:"code"`
		} `json:"error"`
		Messages []struct {
			ID string `json:"id"`
		} `json:"messages"`
	}
	garbled := resp.Decode(&answer)
	switch {
	case garbled == nil && answer.Error != nil && answer.Error.Code != nil:
		return sms.Accepted{}, resp.Refused(classOf(*answer.Error.Code), strconv.Itoa(*answer.Error.Code))
	case !resp.OK():
		return sms.Accepted{}, resp.Refused("", "")
	case garbled != nil:
		return sms.Accepted{}, garbled
	case answer.Error != nil || len(answer.Messages) != 1 || answer.Messages[0].ID == "":
		return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "no_message_id", sms.MaybeSent)
	}
	return sms.Accepted{Ref: answer.Messages[0].ID}, nil
}

// states of messages that say something about a leg.
var states = map[string]sms.LegState{"sent": sms.LegSent, "delivered": sms.LegDelivered, "read": sms.LegDelivered, "failed": sms.LegFailed}

// notification is what Meta posts: the news of many messages.
type notification struct {
	Object string `json:"object"`
	Entry  []struct {
		Changes []struct {
			Field string `json:"field"`
			Value struct {
				Metadata struct {
					PhoneNumberID string `json:"phone_number_id"`
				} `json:"metadata"`
				Statuses []status  `json:"statuses"`
				Messages []message `json:"messages"`
			} `json:"value"`
		} `json:"changes"`
	} `json:"entry"`
}

type status struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Ours   string `json:"biz_opaque_callback_data"`
	Errors []struct {
		Code int `json:"code"`
	} `json:"errors"`
}

type message struct {
	ID   string `json:"id"`
	From string `json:"from"`
	Type string `json:"type"`
	Text struct {
		Body string `json:"body"`
	} `json:"text"`
	Button struct {
		Text string `json:"text"`
	} `json:"button"`
}

// Receive implements sms.Receiver: Meta's trial of the address, reports and replies.
func (v *WhatsApp) Receive(w sms.Webhook) (sms.Received, error) {
	if w.Method == http.MethodGet {
		return v.subscribe(w)
	}
	if !authentic(v.config.AppSecret, w) {
		return sms.Received{}, sms.ErrForged
	}
	var in notification
	decoder := json.NewDecoder(bytes.NewReader(w.Body))
	if decoder.Decode(&in) != nil || in.Object != "whatsapp_business_account" {
		return sms.Received{}, sms.ErrMalformed
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return sms.Received{}, sms.ErrMalformed
	}
	var received sms.Received
	for _, entry := range in.Entry {
		for _, change := range entry.Changes {
			if change.Field != "messages" {
				continue
			}
			for _, s := range change.Value.Statuses {
				if report, says := s.report(); says {
					received.Reports = append(received.Reports, report)
				}
			}
			for _, m := range change.Value.Messages {
				if inbound, says := m.inbound(); says {
					inbound.To = change.Value.Metadata.PhoneNumberID
					received.Inbound = append(received.Inbound, inbound)
				}
			}
		}
	}
	return received, nil
}

// report of a status; nothing when the status is not known.
func (s status) report() (sms.Report, bool) {
	state, known := states[s.Status]
	if !known || s.ID == "" {
		return sms.Report{}, false
	}
	report := sms.Report{Ref: s.ID, State: state, Key: s.ID + " " + s.Status}
	if leg, err := uuid.Parse(s.Ours); err == nil {
		report.Leg = leg
	}
	if state == sms.LegFailed {
		if len(s.Errors) > 0 {
			report.Code, report.Class = strconv.Itoa(s.Errors[0].Code), classOf(s.Errors[0].Code)
		}
		if report.Class == "" {
			report.Class = sms.RecipientUnreachable
		}
	}
	return report, true
}

// inbound is a message in words; nothing when it has none, or comes from no telephone number: neither may keep back what came with it.
func (m message) inbound() (sms.Inbound, bool) {
	text := map[string]string{"text": m.Text.Body, "button": m.Button.Text}[m.Type]
	from, err := sms.ParseNumber("+"+m.From, "")
	if err != nil || m.ID == "" || text == "" {
		return sms.Inbound{}, false
	}
	return sms.Inbound{From: from, Text: text, Key: m.ID}, true
}

// challenge is what may be given back: nothing that a browser could take for a page.
var challenge = regexp.MustCompile(`^[0-9A-Za-z_-]{1,128}$`)

// subscribe answers Meta's trial of the address.
func (v *WhatsApp) subscribe(w sms.Webhook) (sms.Received, error) {
	u, err := url.Parse(w.URL)
	if err != nil {
		return sms.Received{}, sms.ErrForged
	}
	query := u.Query()
	if v.config.VerifyToken == "" || subtle.ConstantTimeCompare([]byte(query.Get("hub.verify_token")), []byte(v.config.VerifyToken)) != 1 {
		return sms.Received{}, sms.ErrForged
	}
	if query.Get("hub.mode") != "subscribe" || !challenge.MatchString(query.Get("hub.challenge")) {
		return sms.Received{}, sms.ErrMalformed
	}
	return sms.Received{Reply: []byte(query.Get("hub.challenge")), ReplyType: "text/plain; charset=utf-8"}, nil
}

// authentic checks X-Hub-Signature-256: sha256= and, in hexadecimal, HMAC-SHA256 of the raw body under the app's secret.
func authentic(secret string, w sms.Webhook) bool {
	text, found := strings.CutPrefix(w.Header.Get("X-Hub-Signature-256"), "sha256=")
	given, err := hex.DecodeString(text)
	if !found || err != nil || secret == "" {
		return false
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(w.Body)
	return hmac.Equal(given, mac.Sum(nil))
}
