// Package vonage sends through Vonage, formerly Nexmo, by two of its products: [SMS], a gateway that carries our text, and [Verify], which makes and
// checks codes itself, or takes ours.
//
// Sources: the OpenAPI description of the SMS API (github.com/Nexmo/api-specification, definitions/sms.yml 1.0.10); the error catalogues
// (developer.vonage.com/api-errors/sms and /verify-v2); delivery error codes (api.support.vonage.com, article 204014733); the reference of Verify v2
// (developer.vonage.com/api/verify.v2) and its callbacks (developer.vonage.com/verify/concepts/webhooks); signatures and their vectors from vonage-node-sdk
// (packages/sms, packages/jwt, packages/verify2) and vonage-ruby-sdk (test/vonage/jwt_test.rb).
//
// Not verified against a live account: today's version of the SMS description, which is of 2021; whether Verify refuses to cancel in the first
// seconds; how many wrong codes it bears; which parameter it names when a number is invalid, so that all but "to" counts as a fault of the
// configuration; that Verify's conflicts are always 409.
//
// Neither product has an idempotency key: a call whose answer was lost may have sent. Verify keeps one request a number; an open one is canceled
// when another is wanted, so that only the newest code can be right.
//
// The SMS API answers every call with HTTP 200 and says in each message's status whether it was taken. Its webhooks come as POST with JSON or a form, or as GET,
// and are signed over their parameters with a time; those of Verify carry a JWT with the hash of the body and a time. They come only
// to the application that a request was authenticated for: with Basic authentication there are none.
package vonage

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"  //nolint:gosec // one of Vonage's methods
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Config of SMS and of Verify.
type Config struct {
	// BaseURL defaults to the product's own host.
	BaseURL string
	// Key and Secret are the account's API key and its secret. Verify needs them unless it has PrivateKey.
	Key, Secret string
	// Sender is a number or an alphanumeric sender, for numbers whose country has none of its own. For Verify it is the number, digits only, that texts
	// come from; "": Vonage takes the brand.
	Sender string
	// EntityID and ContentID are the registered entity and template that India's carriers ask for.
	EntityID, ContentID string
	// SignatureSecret of the account signs webhooks. "": they are refused. Verify's has at least 32 characters.
	SignatureSecret string
	// SignatureMethod is the account's: md5hash, md5, sha1, sha256 or sha512. Default sha256. SMS only.
	SignatureMethod string
	// Application is the id of the application that requests are made for, and PrivateKey its key in PEM. Without them requests are
	// authenticated by Key and Secret, and there are no callbacks. Verify only.
	Application, PrivateKey string
	// Brand is named in Vonage's texts. Verify only.
	Brand string
	// CustomCode says that Vonage is to send codes of ours. Verify only.
	CustomCode bool
	// Digits of a code that Vonage makes, 4 to 10. Default 6. Verify only.
	Digits int
	// Channels that one request may go through, in this order: the first is the one that is asked for, each later one comes when it is asked for, or by itself when
	// the one before has had its time. Default sms. Verify only.
	Channels []sms.Channel
	// WhatsAppSender is the number, digits only, that WhatsApp messages come from. Verify only.
	WhatsAppSender string
	// Now is the clock that tokens are stamped with. Verify with PrivateKey only.
	Now func() time.Time
}

// methods of signing parameters. md5hash is apart: it is no HMAC.
var methods = map[string]func() hash.Hash{"md5hash": md5.New, "md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

// SMS is the gateway. Make one with [NewSMS].
type SMS struct {
	name   string
	config Config
	client *wire.Client
}

var _ sms.Receiver = (*SMS)(nil)

// NewSMS makes the driver for the SMS API. Its error joins everything that is wrong with the configuration.
func NewSMS(name string, c Config) (*SMS, error) {
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Key, "key", "copy the API key from the dashboard")
	settings.Need(c.Secret, "secret", "copy the API secret from the dashboard")
	settings.Need(c.Sender, "sender", senderCure)
	if c.Sender != "" && !senders.MatchString(c.Sender) {
		settings.Wrong("sender", "is neither a number nor up to 11 letters and digits", senderCure)
	}
	if c.SignatureMethod == "" {
		c.SignatureMethod = "sha256"
	}
	if methods[c.SignatureMethod] == nil {
		settings.Wrong("signature_method", "is unknown", "write md5hash, md5, sha1, sha256 or sha512")
	}
	if c.BaseURL == "" {
		c.BaseURL = "https://rest.nexmo.com"
	}
	client, err := wire.New(name, c.BaseURL, nil)
	return &SMS{name: name, config: c, client: client}, settings.Err(err)
}

// senders are numbers, and names of up to 11 letters and digits: 3GPP TS 23.040 section 9.1.2.5 has room for no more.
var senders = regexp.MustCompile(`^(\+?\d{3,15}|[[:alnum:]][[:alnum:] ]{0,10})$`)

const senderCure = "give a number, or a name of at most 11 letters and digits"

// Name implements sms.Vendor.
func (v *SMS) Name() string { return v.name }

// Abilities implements sms.Vendor.
func (*SMS) Abilities() sms.Abilities {
	return sms.Abilities{Kind: sms.Gateway, Channels: []sms.Channel{sms.SMS}}
}

// Bounds of ttl.
const (
	minLife = 20 * time.Second
	maxLife = 7 * 24 * time.Hour
)

// statuses of messages that were not taken.
var statuses = map[string]sms.Class{
	"1": sms.RateLimited, "2": sms.Misconfigured, "3": sms.Misconfigured, "4": sms.Unauthorized, "5": sms.Temporary, "6": sms.InvalidRecipient,
	"7": sms.RecipientOptedOut, "8": sms.Unauthorized, "9": sms.InsufficientFunds, "10": sms.Temporary, "11": sms.Misconfigured, "12": sms.ContentRejected,
	"14": sms.Unauthorized, "15": sms.InvalidSender, "22": sms.Misconfigured, "23": sms.Misconfigured, "29": sms.Misconfigured, "32": sms.Misconfigured,
	"33": sms.InvalidRecipient,
}

// Send implements sms.Vendor.
func (v *SMS) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	sender := leg.Sender
	if sender == "" {
		sender = v.config.Sender
	}
	form := url.Values{
		"api_key": {v.config.Key}, "api_secret": {v.config.Secret}, "from": {sender}, "to": {digits(leg.To)}, "text": {leg.Text}, "client-ref": {leg.ID.String()},
		"ttl": {strconv.FormatInt(min(max(leg.Life, minLife), maxLife).Milliseconds(), 10)},
	}
	if !isGSM(leg.Text) {
		form.Set("type", "unicode")
	}
	for field, value := range map[string]string{"callback": leg.Callback, "entity-id": v.config.EntityID, "content-id": v.config.ContentID} {
		if value != "" {
			form.Set(field, value)
		}
	}
	resp, err := v.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: "/sms/json", Form: form})
	if err != nil {
		return sms.Accepted{}, err
	}
	if !resp.OK() {
		return sms.Accepted{}, resp.Refused("", "")
	}
	var answer struct {
		Messages []struct { // one for each segment
			ID     string `json:"message-id"`
			Status string `json:"status"`
		} `json:"messages"`
	}
	if err := resp.Decode(&answer); err != nil {
		return sms.Accepted{}, err
	}
	taken, refusal := 0, ""
	for _, m := range answer.Messages {
		switch {
		case m.Status == "0" && m.ID != "":
			taken++
		case refusal == "":
			refusal = m.Status
		}
	}
	class, known := statuses[refusal]
	switch {
	case len(answer.Messages) == 0:
		return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "no_message", sms.MaybeSent)
	case taken == len(answer.Messages):
		return sms.Accepted{Ref: answer.Messages[0].ID}, nil
	case taken > 0:
		return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "taken_in_part", sms.MaybeSent)
	case !known:
		return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "unknown_status", sms.MaybeSent)
	}
	return sms.Accepted{}, resp.Refused(class, refusal)
}

// digits is a number as Vonage writes it: without the plus.
func digits(n sms.Number) string { return strings.TrimPrefix(n.Reveal(), "+") }

// gsm is the default alphabet with its extension, 3GPP TS 23.038 section 6.2.1.
const gsm = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà" +
	"^{}\\[~]|€\f"

func isGSM(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(gsm, r) })
}

// states of messages that say something about a leg.
var states = map[string]sms.LegState{
	"accepted": sms.LegSent, "buffered": sms.LegSent, "delivered": sms.LegDelivered, "expired": sms.LegExpired, "failed": sms.LegFailed, "rejected": sms.LegRejected,
}

// reasons are the classes of delivery error codes. All others: unreachable.
var reasons = map[string]sms.Class{"3": sms.InvalidRecipient, "6": sms.ContentRejected, "9": sms.RecipientOptedOut, "10": sms.ContentRejected}

// Receive implements sms.Receiver: delivery receipts and inbound messages.
func (v *SMS) Receive(w sms.Webhook) (sms.Received, error) {
	fields := parameters(w)
	if !v.authentic(fields) {
		return sms.Received{}, sms.ErrForged
	}
	seconds, err := strconv.ParseInt(fields["timestamp"], 10, 64)
	if err != nil {
		return sms.Received{}, sms.ErrForged
	}
	if stale(w.At, time.Unix(seconds, 0)) {
		return sms.Received{}, sms.ErrStale
	}
	id := fields["messageId"]
	if id == "" {
		return sms.Received{}, sms.ErrMalformed
	}
	if status, isReceipt := fields["status"]; isReceipt {
		state, known := states[status]
		if !known {
			return sms.Received{}, nil // "unknown", and whatever comes to be
		}
		report := sms.Report{Ref: id, State: state, Key: id + " " + status}
		if leg, err := uuid.Parse(fields["client-ref"]); err == nil {
			report.Leg = leg
		}
		if state != sms.LegSent && state != sms.LegDelivered {
			report.Class = sms.RecipientUnreachable
			if code, err := strconv.ParseUint(fields["err-code"], 10, 16); err == nil {
				report.Code = strconv.FormatUint(code, 10)
			}
			if class, known := reasons[report.Code]; known {
				report.Class = class
			}
		}
		return sms.Received{Reports: []sms.Report{report}}, nil
	}
	from, err := sms.ParseNumber("+"+fields["msisdn"], "")
	if err != nil {
		return sms.Received{}, sms.ErrMalformed
	}
	inbound := sms.Inbound{From: from, To: fields["to"], Text: fields["text"], Key: id}
	// The keyword is but the first word: enough to stop, not to begin again. That of a later part is somewhere in the text.
	if part := fields["concat-part"]; (part == "" || part == "1") && sms.ReadKeyword(fields["keyword"]) == sms.KeywordStop {
		inbound.Keyword = sms.KeywordStop
	}
	return sms.Received{Inbound: []sms.Inbound{inbound}}, nil
}

func stale(at, signed time.Time) bool {
	age := at.Sub(signed)
	return age > sms.Tolerance || age < -sms.Tolerance
}

// parameters of a webhook, each with one value; nil when they cannot be told without doubt.
func parameters(w sms.Webhook) map[string]string {
	encoded := string(w.Body)
	if w.Method == http.MethodGet {
		u, err := url.Parse(w.URL)
		if err != nil || len(w.Body) > 0 {
			return nil
		}
		encoded = u.RawQuery
	} else if kind, _, err := mime.ParseMediaType(w.Header.Get("Content-Type")); err == nil && kind == "application/json" {
		return flat(w.Body)
	}
	form, err := url.ParseQuery(encoded)
	if err != nil {
		return nil
	}
	fields := make(map[string]string, len(form))
	for name, values := range form {
		if len(values) != 1 {
			return nil
		}
		fields[name] = values[0]
	}
	return fields
}

// flat reads one JSON object of scalars.
func flat(body []byte) map[string]string {
	var object map[string]any
	if !one(body, &object) {
		return nil
	}
	fields := make(map[string]string, len(object))
	for name, value := range object {
		switch value.(type) {
		case string, json.Number, bool:
			fields[name] = fmt.Sprint(value)
		case nil:
			fields[name] = ""
		default:
			return nil
		}
	}
	return fields
}

// one decodes a body that is one JSON document and nothing else.
func one(body []byte, v any) bool {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if decoder.Decode(v) != nil {
		return false
	}
	_, err := decoder.Token()
	return errors.Is(err, io.EOF)
}

// authentic checks sig: over &name=value of all other parameters in order of their names, with & and = in values made _. It is an HMAC under the
// signature secret, but for md5hash, which is MD5 with the secret at the end.
func (v *SMS) authentic(fields map[string]string) bool {
	given, err := hex.DecodeString(fields["sig"])
	if err != nil || len(given) == 0 || v.config.SignatureSecret == "" {
		return false
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		if strings.ContainsAny(name, "&=") {
			return false // the text that is signed could be that of other parameters
		}
		if name != "sig" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var text strings.Builder
	for _, name := range names {
		text.WriteString("&" + name + "=" + strings.NewReplacer("&", "_", "=", "_").Replace(fields[name]))
	}
	if v.config.SignatureMethod == "md5hash" {
		sum := md5.Sum([]byte(text.String() + v.config.SignatureSecret)) //nolint:gosec // the account's method
		return hmac.Equal(given, sum[:])
	}
	mac := hmac.New(methods[v.config.SignatureMethod], []byte(v.config.SignatureSecret))
	mac.Write([]byte(text.String()))
	return hmac.Equal(given, mac.Sum(nil))
}
