// Package octopush sends through Octopush, a gateway from France: texts and, where it is turned on, calls that read the text aloud.
//
// Sources: Octopush's reference of v1 (dev.octopush.com/en/sms-gateway-api-documentation/send-sms and its pages on callbacks: acknowledge-receipt,
// opt-out-management, inbounds; octopush-api.readme.io/reference/post_public_apisms_campaignsend and get_callbacks-statuses); its table of
// return codes; its PHP client for paths and for voice (github.com/octopush/Octopush-SMS-API-PHP, src/Request and curl-examples).
//
// Not verified against a live account: which status a success has, so that every 2xx with a ticket is one; how v1 writes a refusal, so that code,
// error_code and errors are looked for, with the numbers of the older table, and the status decides where there is none; that voice honors
// request_id; which voice languages there are; the answer of the balance query, of which only the status is read; limits of rate; the time
// zone of its dates.
//
// The leg is the request_id. Octopush refuses one that it has had within 24 hours and does not say the ticket again, so that the receipts
// of a leg whose first answer was lost cannot be matched.
//
// Receipts, replies and STOP come to addresses that are entered in the dashboard, all alike for one account, and are not signed: the unguessable
// part of the path is all that protects them.
package octopush

import (
	"bytes"
	"context"
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

	"golang.org/x/text/language"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Config of an account.
type Config struct {
	// BaseURL defaults to https://api.octopush.com/v1/public.
	BaseURL string
	// Login is the account's e-mail address, Key the API key of v1; the credentials of the older XML API do not work.
	Login, Key string
	// Sender is 3 to 11 letters and digits.
	Sender string
	// Quality is sms_premium, the default, or sms_low_cost.
	Quality string
	// Replies asks for a sender that people can answer.
	Replies bool
	// Voice adds the voice channel.
	Voice bool
	// VoiceGender is female, the default, or male.
	VoiceGender string
	// WebhookToken is the unguessable part of the path of the addresses in the dashboard. "": webhooks are refused.
	WebhookToken string
}

// Gateway is the driver. Make one with [New].
type Gateway struct {
	name   string
	config Config
	client *wire.Client
}

var (
	_ sms.Receiver = (*Gateway)(nil)
	_ sms.Pinger   = (*Gateway)(nil)
)

// senders that Octopush takes.
var senders = regexp.MustCompile(`^[0-9A-Za-z]{3,11}$`)

// New makes the driver. Its error joins everything that is wrong with the configuration.
func New(name string, c Config) (*Gateway, error) {
	if c.BaseURL == "" {
		c.BaseURL = "https://api.octopush.com/v1/public"
	}
	if c.Quality == "" {
		c.Quality = "sms_premium"
	}
	if c.VoiceGender == "" {
		c.VoiceGender = "female"
	}
	client, err := wire.New(name, c.BaseURL, func(r *http.Request) {
		r.Header.Set("Api-Login", c.Login)
		r.Header.Set("Api-Key", c.Key)
		r.Header.Set("Cache-Control", "no-cache")
	})
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Login, "login", "give the e-mail address of the account")
	settings.Need(c.Key, "key", "copy the API key of v1 from the dashboard")
	settings.Need(c.Sender, "sender", "give one of 3 to 11 letters and digits")
	if c.Sender != "" && !senders.MatchString(c.Sender) {
		settings.Wrong("sender", "is not 3 to 11 letters and digits", "give one that is")
	}
	if c.Quality != "sms_premium" && c.Quality != "sms_low_cost" {
		settings.Wrong("quality", "is neither sms_premium nor sms_low_cost", "write one of them")
	}
	if c.VoiceGender != "female" && c.VoiceGender != "male" {
		settings.Wrong("voice_gender", "is neither female nor male", "write one of them")
	}
	return &Gateway{name: name, config: c, client: client}, settings.Err(err)
}

// Name implements sms.Vendor.
func (g *Gateway) Name() string { return g.name }

// Abilities implements sms.Vendor.
func (g *Gateway) Abilities() sms.Abilities {
	a := sms.Abilities{Kind: sms.Gateway, Channels: []sms.Channel{sms.SMS}, Idempotency: sms.Refuse}
	if g.config.Voice {
		a.Channels = append(a.Channels, sms.Voice)
	}
	return a
}

// word is a JSON string or number, as text; anything else is "".
type word string

// UnmarshalJSON implements json.Unmarshaler.
func (w *word) UnmarshalJSON(data []byte) error {
	var text string
	var number json.Number
	switch {
	case json.Unmarshal(data, &text) == nil:
		*w = word(text)
	case json.Unmarshal(data, &number) == nil:
		*w = word(number)
	default:
		*w = ""
	}
	return nil
}

// duplicate is the return code of a request_id that was used before.
const duplicate = 120

// classes of the return codes.
var classes = map[int]sms.Class{
	100: sms.Misconfigured, 101: sms.Unauthorized, 103: sms.InvalidRecipient, 104: sms.InsufficientFunds, 105: sms.Misconfigured, 106: sms.InvalidSender,
	107: sms.Misconfigured, 108: sms.Unauthorized, 109: sms.Unauthorized, 110: sms.Misconfigured, 112: sms.Misconfigured, 113: sms.Unauthorized, 114: sms.Unauthorized,
	117: sms.InvalidRecipient, 118: sms.Misconfigured, 119: sms.Misconfigured, 121: sms.ContentRejected, 122: sms.ContentRejected,
}

// answer is what a send is answered with, success or not.
type answer struct {
	SMSTicket   string          `json:"sms_ticket"`
	VocalTicket string          `json:"vocal_ticket"`
	Code        word            `json:"code"`
	ErrorCode   word            `json:"error_code"`
	Errors      json.RawMessage `json:"errors"`
}

func (a answer) code() int {
	for _, w := range []word{a.Code, a.ErrorCode} {
		if code, err := strconv.Atoi(string(w)); err == nil {
			return code
		}
	}
	return 0
}

// aboutID says what is held against the request_id: nothing, something, or that it was used.
func (a answer) aboutID() (named, used bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(a.Errors, &fields) != nil {
		return false, false
	}
	why, named := fields["request_id"]
	return named, bytes.Contains(bytes.ToLower(why), []byte("already"))
}

// Send implements sms.Vendor. Every text is an alert: as wholesale, which is what Octopush takes it for otherwise, it would need a STOP notice.
func (g *Gateway) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	sender := leg.Sender
	if sender == "" {
		sender = g.config.Sender
	}
	body := map[string]any{
		"text": leg.Text, "recipients": []map[string]string{{"phone_number": leg.To.Reveal()}}, "purpose": "alert", "sender": sender, "request_id": leg.ID.String(),
	}
	path := "/sms-campaign/send"
	if leg.Channel == sms.Voice {
		path = "/vocal-campaign/send"
		body["type"], body["voice_gender"], body["voice_language"] = "vocal_sms", g.config.VoiceGender, voiceLanguage(leg.Locale)
	} else {
		body["type"], body["with_replies"], body["simulation_mode"] = g.config.Quality, g.config.Replies, false
	}
	resp, err := g.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: path, JSON: body})
	if err != nil {
		return sms.Accepted{}, err
	}
	var got answer
	if err := resp.Decode(&got); err != nil {
		if resp.OK() {
			return sms.Accepted{}, err
		}
		return sms.Accepted{}, resp.Refused("", "")
	}
	ticket := got.SMSTicket
	if leg.Channel == sms.Voice {
		ticket = got.VocalTicket
	}
	code := got.code()
	named, used := got.aboutID()
	class, known := classes[code]
	switch {
	case resp.OK() && ticket != "" && code == 0:
		return sms.Accepted{Ref: ticket}, nil
	case code == duplicate, named && used && code == 0 && !resp.OK():
		return sms.Accepted{}, nil // it has the first one, whose ticket it does not repeat
	case known && ticket == "":
		return sms.Accepted{}, resp.Refused(class, strconv.Itoa(code))
	case resp.OK():
		return sms.Accepted{}, g.client.Fail(sms.Ambiguous, "no_ticket", sms.MaybeSent)
	case named && code == 0:
		return sms.Accepted{}, g.client.Fail(sms.Ambiguous, "request_id", sms.MaybeSent)
	default:
		return sms.Accepted{}, resp.Refused("", "")
	}
}

// voiceLanguage gives a locale the region that Octopush wants with it: fr is fr-FR.
func voiceLanguage(locale string) string {
	tag := language.Make(locale)
	base, _ := tag.Base()
	region, _ := tag.Region()
	if base.String() == "und" {
		return "en-US"
	}
	return base.String() + "-" + region.String()
}

// Ping implements sms.Pinger, by asking for the balance.
func (g *Gateway) Ping(ctx context.Context) (string, error) {
	resp, err := g.client.Do(ctx, wire.Request{
		Method: http.MethodGet, Path: "/wallet/check-balance", Query: url.Values{"product_name": {g.config.Quality}, "country_code": {"FR"}},
	})
	if err != nil {
		return "", err
	}
	var got answer
	if resp.Decode(&got) == nil {
		if class, known := classes[got.code()]; known {
			return "", resp.Refused(class, strconv.Itoa(got.code()))
		}
	}
	if !resp.OK() {
		return "", resp.Refused("", "")
	}
	return "", nil
}

// statuses of receipts that say something. UNKNOWN_DELIVERY and UNDEFINED do not.
var statuses = map[string]struct {
	state sms.LegState
	class sms.Class
}{
	"ACK": {sms.LegSent, ""}, "PROCESSED": {sms.LegSent, ""}, "TRANSMITTED": {sms.LegSent, ""},
	"DELIVERED": {sms.LegDelivered, ""}, "READ": {sms.LegDelivered, ""},
	"NOT_DELIVERED": {sms.LegUndelivered, sms.RecipientUnreachable}, "BUSY": {sms.LegUndelivered, sms.RecipientUnreachable},
	"REFUSED": {sms.LegUndelivered, sms.RecipientUnreachable}, "NOT_DELIVERABLE": {sms.LegUndelivered, sms.RecipientUnreachable},
	"BAD_DESTINATION": {sms.LegFailed, sms.InvalidRecipient}, "BLACKLISTED_NUMBER": {sms.LegFailed, sms.RecipientOptedOut},
	"NOT_ALLOWED": {sms.LegRejected, sms.Misconfigured},
}

// Receive implements sms.Receiver: receipts, STOP and replies, which are told apart by their fields.
func (g *Gateway) Receive(w sms.Webhook) (sms.Received, error) {
	if g.config.WebhookToken == "" || subtle.ConstantTimeCompare([]byte(w.Token), []byte(g.config.WebhookToken)) != 1 {
		return sms.Received{}, sms.ErrForged
	}
	var in struct {
		ID       string `json:"message_id"`
		Number   word   `json:"number"`
		Status   string `json:"status"`
		Text     string `json:"text"`
		Stopped  word   `json:"stop_date"`
		Received word   `json:"reception_date"`
		SIM      word   `json:"sim_card_number"`
	}
	decoder := json.NewDecoder(bytes.NewReader(w.Body))
	if decoder.Decode(&in) != nil || in.ID == "" {
		return sms.Received{}, sms.ErrMalformed
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return sms.Received{}, sms.ErrMalformed
	}
	if in.Status != "" {
		status, known := statuses[in.Status]
		if !known {
			return sms.Received{}, nil
		}
		report := sms.Report{Ref: in.ID, State: status.state, Class: status.class, Key: in.ID + " " + in.Status}
		if status.class != "" {
			report.Code = in.Status
		}
		return sms.Received{Reports: []sms.Report{report}}, nil
	}
	from, err := sms.ParseNumber("+"+strings.TrimPrefix(string(in.Number), "+"), "")
	if err != nil || in.Stopped == "" && in.Received == "" {
		return sms.Received{}, sms.ErrMalformed
	}
	// Whose id it is, the reply's or that of what it answers, is not said: only all together tells replies apart.
	sum := sha256.Sum256([]byte(from.Reveal() + "\x00" + string(in.Stopped) + "\x00" + string(in.Received) + "\x00" + in.Text))
	inbound := sms.Inbound{From: from, To: string(in.SIM), Text: in.Text, Key: in.ID + " " + hex.EncodeToString(sum[:16])}
	if in.Stopped != "" {
		inbound.Keyword = sms.KeywordStop
	}
	return sms.Received{Inbound: []sms.Inbound{inbound}}, nil
}
