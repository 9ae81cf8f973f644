// Package generic sends through any HTTP service, by configuration alone.
//
// # The contract
//
// Unless told otherwise it posts JSON:
//
//	{"version":1,"id":"<leg>","to":"+1202…","from":"ACME","channel":"sms","code":"482910","text":"…","locale":"en","purpose":"login",
//	 "expires_at":"2026-01-02T10:05:00Z","status_callback":"https://…"}
//
// signed by Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec) with Idempotency-Key set to the leg. The answer is 2xx, optionally with
// {"code":"ok","reference":"…"}; otherwise, with any status, a code: invalid_recipient, opted_out, unreachable, invalid_sender, unauthorized,
// insufficient_funds, rate_limited (with retry_after in seconds), blocked, rejected, temporary; or one of authgear's names for them
// (invalid_phone_number, authentication_failed, unsupported_request, delivery_rejected, timeout). A service that takes the contract promises that the same
// Idempotency-Key sends nothing twice.
//
// Receipts come to status_callback as {"id":"<leg>","reference":"…","state":"sent|delivered|undelivered|failed|expired|rejected","error":"…"}, replies as
// {"type":"inbound","from":"+…","to":"…","text":"STOP"}, signed in the same way; their times may be five minutes old.
//
// # Services with a contract of their own
//
// Method, headers and body are templates of text/template over the fields of the contract (.ID .To .Digits .From .Channel .Code .Text .Locale
// .Purpose .Expires .Callback) with functions json and query, which escape. Where the answer keeps its code and its reference, which code means success
// and which class each other code has are configuration too. Idempotency is then only assumed if the configuration says so.
package generic

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/google/uuid"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Config of the service.
type Config struct {
	// URL that is called.
	URL string
	// Secret, whsec_ and base64, signs our requests and the service's. "": requests are not signed and receipts refused.
	Secret string
	// Sender for numbers whose country has none of its own.
	Sender string
	// Method defaults to POST.
	Method string
	// Headers are "Name: template".
	Headers []string
	// Body is a template. "": the contract's JSON.
	Body string
	// Type of the body. Default application/json.
	Type string
	// Channels that the service carries. Default sms.
	Channels []string
	// CodeField and ReferenceField are where the JSON answer has them, with dots between names. Default code and reference.
	CodeField, ReferenceField string
	// SuccessCodes are the codes that mean success. Default ok, and no code at all. The status has to be 2xx as well.
	SuccessCodes []string
	// Errors are "code=class", with the classes of package sms.
	Errors []string
	// Idempotent says that the service of a configured Body recognises a repeated id.
	Idempotent bool
	// HideCode leaves the code out of the contract's JSON: text alone.
	HideCode bool
	// Now is the clock that signatures are stamped with.
	Now func() time.Time
}

// Vendor is the driver. Make one with [New].
type Vendor struct {
	name     string
	config   Config
	client   *wire.Client
	body     *template.Template
	headers  map[string]*template.Template
	classes  map[string]sms.Class
	channels []sms.Channel
	signer   *webhooks.Webhook
}

var _ sms.Receiver = (*Vendor)(nil)

// functions escape what templates put into a body.
var functions = template.FuncMap{
	"json": func(v string) (string, error) {
		quoted, err := json.Marshal(v)
		return string(quoted), err
	},
	"query": url.QueryEscape,
}

// codes of the contract.
var codes = map[string]sms.Class{
	"invalid_recipient": sms.InvalidRecipient, "invalid_number": sms.InvalidRecipient, "invalid_phone_number": sms.InvalidRecipient,
	"opted_out": sms.RecipientOptedOut, "unreachable": sms.RecipientUnreachable, "delivery_rejected": sms.RecipientUnreachable,
	"invalid_sender": sms.InvalidSender, "unauthorized": sms.Unauthorized, "authentication_failed": sms.Unauthorized, "insufficient_funds": sms.InsufficientFunds,
	"rate_limited": sms.RateLimited, "blocked": sms.BlockedFraud, "region_blocked": sms.RegionBlocked, "rejected": sms.ContentRejected,
	"unsupported_request": sms.Misconfigured, "temporary": sms.Temporary, "timeout": sms.Temporary, "unknown_error": sms.Temporary,
}

// New makes a driver. Its error joins everything that is wrong with the configuration.
func New(name string, c Config) (*Vendor, error) {
	v := &Vendor{name: name, config: c, headers: map[string]*template.Template{}, classes: map[string]sms.Class{}}
	settings := sms.Settings{Vendor: name}
	var err error
	if v.client, err = wire.New(name, c.URL, nil); err != nil {
		what, cure := "is not an absolute URL", "write it as https://host/path"
		if e, ok := errors.AsType[*sms.SettingError](err); ok {
			what, cure = e.What, e.Cure
		}
		settings.Wrong("url", what, cure)
	}
	if c.Method != "" && !token.MatchString(c.Method) {
		settings.Wrong("method", "is not a method of HTTP", "write POST, or another one that the service takes")
	}
	if v.body, err = template.New("body").Funcs(functions).Option("missingkey=error").Parse(c.Body); err != nil {
		settings.Wrong("body", "is not a template: "+err.Error(), "write it in the language of text/template")
	}
	for _, header := range c.Headers {
		key, text, found := strings.Cut(header, ":")
		t, err := template.New("header").Funcs(functions).Parse(strings.TrimSpace(text))
		if !found || err != nil || !token.MatchString(strings.TrimSpace(key)) {
			settings.Wrong("headers", "has one that is not Name: value", "write them as X-Api-Version: 2")
			continue
		}
		v.headers[http.CanonicalHeaderKey(strings.TrimSpace(key))] = t
	}
	for code, class := range codes {
		v.classes[code] = class
	}
	for _, rule := range c.Errors {
		code, class, found := strings.Cut(rule, "=")
		if !found || !slices.Contains(sms.Classes(), sms.Class(strings.TrimSpace(class))) {
			settings.Wrong("errors", "has a rule that is not code=class", fmt.Sprintf("write classes as %v", sms.Classes()))
			continue
		}
		v.classes[strings.TrimSpace(code)] = sms.Class(strings.TrimSpace(class))
	}
	for _, channel := range c.Channels {
		switch ch := sms.Channel(channel); ch {
		case sms.SMS, sms.WhatsApp, sms.Voice:
			v.channels = append(v.channels, ch)
		default:
			settings.Wrong("channels", fmt.Sprintf("has an unknown channel: %q", channel), "write sms, whatsapp or voice")
		}
	}
	if len(v.channels) == 0 {
		v.channels = []sms.Channel{sms.SMS}
	}
	if c.Secret != "" {
		if v.signer, err = webhooks.NewWebhook(c.Secret); err != nil {
			settings.Wrong("secret", "is not whsec_ with base64 behind it", secretCure)
		} else if key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(c.Secret, "whsec_")); err == nil && len(key) < minSecret {
			settings.Wrong("secret", "is so short that it can be guessed", secretCure)
		}
	}
	if v.config.Method == "" {
		v.config.Method = http.MethodPost
	}
	if v.config.Type == "" {
		v.config.Type = "application/json"
	}
	if v.config.CodeField == "" {
		v.config.CodeField = "code"
	}
	if v.config.ReferenceField == "" {
		v.config.ReferenceField = "reference"
	}
	if len(v.config.SuccessCodes) == 0 {
		v.config.SuccessCodes = []string{"ok", ""}
	}
	if settings.Err() == nil { // what only shows when it is filled in
		if _, _, err := v.render(sms.Leg{}); err != nil {
			settings.Wrong("body", "or headers cannot be filled in: "+err.Error(), "use the fields that are documented")
		}
	}
	return v, settings.Err()
}

// minSecret is the shortest key of Standard Webhooks (spec, "Signature scheme"), in bytes.
const minSecret = 24

const secretCure = "make one with: echo whsec_$(openssl rand -base64 24)"

// token is how HTTP writes methods and names of fields, RFC 9110 section 5.6.2.
var token = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// Name implements sms.Vendor.
func (v *Vendor) Name() string { return v.name }

// Abilities implements sms.Vendor.
func (v *Vendor) Abilities() sms.Abilities {
	a := sms.Abilities{Kind: sms.Gateway, Channels: v.channels}
	if v.config.Body == "" || v.config.Idempotent {
		a.Idempotency = sms.Replay
	}
	return a
}

// fields of a request.
type fields struct {
	ID, To, Digits, From, Channel, Code, Text, Locale, Purpose, Expires, Callback string
}

func (v *Vendor) render(leg sms.Leg) (body []byte, header http.Header, err error) {
	f := fields{
		ID: leg.ID.String(), To: leg.To.Reveal(), Digits: strings.TrimPrefix(leg.To.Reveal(), "+"), From: leg.Sender, Channel: string(leg.Channel), Code: leg.Code,
		Text: leg.Text, Locale: leg.Locale, Purpose: leg.Purpose, Expires: v.config.Now().Add(leg.Life).UTC().Format(time.RFC3339), Callback: leg.Callback,
	}
	if f.From == "" {
		f.From = v.config.Sender
	}
	header = http.Header{"Idempotency-Key": {f.ID}}
	for name, t := range v.headers {
		var b strings.Builder
		if err := t.Execute(&b, f); err != nil {
			return nil, nil, err
		}
		header.Set(name, b.String())
	}
	if v.config.Body != "" {
		var b bytes.Buffer
		err = v.body.Execute(&b, f)
		return b.Bytes(), header, err
	}
	contract := map[string]any{
		"version": 1, "id": f.ID, "to": f.To, "from": f.From, "channel": f.Channel, "text": f.Text, "locale": f.Locale, "purpose": f.Purpose,
		"expires_at": f.Expires, "status_callback": f.Callback,
	}
	if !v.config.HideCode {
		contract["code"] = f.Code
	}
	body, err = json.Marshal(contract)
	return body, header, err
}

// Send implements sms.Vendor.
func (v *Vendor) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	body, header, err := v.render(leg)
	if err != nil {
		return sms.Accepted{}, v.client.Fail(sms.Misconfigured, "template", sms.NotSent)
	}
	if v.signer != nil {
		now := v.config.Now()
		signature, err := v.signer.Sign(leg.ID.String(), now, body)
		if err != nil {
			return sms.Accepted{}, v.client.Fail(sms.Misconfigured, "signature", sms.NotSent)
		}
		header.Set(webhooks.HeaderWebhookID, leg.ID.String())
		header.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
		header.Set(webhooks.HeaderWebhookSignature, signature)
	}
	resp, err := v.client.Do(ctx, wire.Request{Method: v.config.Method, Header: header, Raw: body, Type: v.config.Type})
	if err != nil {
		return sms.Accepted{}, err
	}
	var parsed any
	isJSON := json.Unmarshal(resp.Body, &parsed) == nil
	code := field(parsed, v.config.CodeField)
	switch {
	case resp.OK() && len(bytes.TrimSpace(resp.Body)) == 0:
		return sms.Accepted{}, nil // taken without a word
	case resp.OK() && !isJSON:
		return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "answer_garbled", sms.MaybeSent)
	case resp.OK() && slices.Contains(v.config.SuccessCodes, code):
		return sms.Accepted{Ref: field(parsed, v.config.ReferenceField)}, nil
	}
	class, known := v.classes[code]
	if !known {
		if resp.OK() { // says neither success nor anything we know
			return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "unknown_code", sms.MaybeSent)
		}
		return sms.Accepted{}, resp.Refused("", "")
	}
	e := resp.Refused(class, code)
	if code == "timeout" || code == "unknown_error" { // the service asked somebody else, and does not know
		e.Reached = sms.MaybeSent
	}
	if seconds, err := strconv.Atoi(field(parsed, "retry_after")); err == nil && seconds > 0 && class == sms.RateLimited {
		e.RetryAfter = min(time.Duration(seconds)*time.Second, 10*time.Minute)
	}
	return sms.Accepted{}, e
}

// field finds what path names in a JSON document, as text; "" when there is nothing.
func field(document any, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		switch at := document.(type) {
		case map[string]any:
			document = at[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(at) {
				return ""
			}
			document = at[i]
		default:
			return ""
		}
	}
	switch found := document.(type) {
	case string:
		return found
	case float64:
		return strconv.FormatFloat(found, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(found)
	}
	return ""
}

// states of the contract.
var states = map[string]sms.LegState{
	"accepted": sms.LegAccepted, "sent": sms.LegSent, "delivered": sms.LegDelivered, "undelivered": sms.LegUndelivered, "failed": sms.LegFailed,
	"expired": sms.LegExpired, "rejected": sms.LegRejected,
}

// Receive implements sms.Receiver.
func (v *Vendor) Receive(w sms.Webhook) (sms.Received, error) {
	if v.signer == nil || v.signer.VerifyIgnoringTimestamp(w.Body, w.Header) != nil {
		return sms.Received{}, sms.ErrForged
	}
	seconds, err := strconv.ParseInt(w.Header.Get(webhooks.HeaderWebhookTimestamp), 10, 64)
	if err != nil {
		return sms.Received{}, sms.ErrForged
	}
	if age := w.At.Sub(time.Unix(seconds, 0)); age > sms.Tolerance || age < -sms.Tolerance {
		return sms.Received{}, sms.ErrStale
	}
	var in struct {
		Type      string `json:"type"`
		ID        string `json:"id"`
		Reference string `json:"reference"`
		State     string `json:"state"`
		Error     string `json:"error"`
		From      string `json:"from"`
		To        string `json:"to"`
		Text      string `json:"text"`
	}
	decoder := json.NewDecoder(bytes.NewReader(w.Body))
	if decoder.Decode(&in) != nil {
		return sms.Received{}, sms.ErrMalformed
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return sms.Received{}, sms.ErrMalformed
	}
	key := w.Header.Get(webhooks.HeaderWebhookID)
	if in.Type == "inbound" {
		from, err := sms.ParseNumber(in.From, "")
		if err != nil {
			return sms.Received{}, sms.ErrMalformed
		}
		return sms.Received{Inbound: []sms.Inbound{{From: from, To: in.To, Text: in.Text, Key: key}}}, nil
	}
	state, known := states[in.State]
	leg, err := uuid.Parse(in.ID)
	if !known || err != nil && in.Reference == "" {
		return sms.Received{}, sms.ErrMalformed
	}
	report := sms.Report{Leg: leg, Ref: in.Reference, State: state, Key: key}
	switch state {
	case sms.LegUndelivered, sms.LegFailed, sms.LegExpired, sms.LegRejected:
		report.Code = in.Error
		if report.Class = v.classes[in.Error]; report.Class == "" {
			report.Class, report.Code = sms.RecipientUnreachable, ""
		}
	}
	return sms.Received{Reports: []sms.Report{report}}, nil
}
