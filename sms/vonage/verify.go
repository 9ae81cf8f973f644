package vonage

import (
	"context"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"golang.org/x/text/language"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Verify makes and checks codes. Make one with [NewVerify].
//
// A session is a request and the channels that it has still to go through.
type Verify struct {
	name     string
	config   Config
	client   *wire.Client
	signer   jose.Signer // nil: Basic authentication
	channels []sms.Channel
}

var (
	_ sms.Checker   = (*Verify)(nil)
	_ sms.Continuer = (*Verify)(nil)
	_ sms.Closer    = (*Verify)(nil)
	_ sms.Receiver  = (*Verify)(nil)
)

// minSecret is the shortest key of HS256, RFC 7518 section 3.2, in bytes.
const minSecret = 32

// NewVerify makes the driver for Verify v2. Its error joins everything that is wrong with the configuration.
func NewVerify(name string, c Config) (*Verify, error) {
	v := &Verify{name: name, config: c, channels: slices.Clone(c.Channels)}
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Brand, "brand", "give the name of the service, for the vendor's texts")
	if c.SignatureSecret != "" && len(c.SignatureSecret) < minSecret {
		settings.Wrong("signature_secret", "has fewer than 32 characters", "take a longer one: callbacks are not accepted with it")
	}
	if len(v.channels) == 0 {
		v.channels = []sms.Channel{sms.SMS}
	}
	for i, channel := range v.channels {
		switch {
		case channel != sms.SMS && channel != sms.WhatsApp && channel != sms.Voice:
			settings.Wrong("channels", "has an unknown channel", "write sms, whatsapp or voice")
		case slices.Contains(v.channels[:i], channel):
			settings.Wrong("channels", "has a channel twice", "remove one of them")
		}
	}
	if v.config.Digits == 0 {
		v.config.Digits = defaultCode
	}
	if v.config.Digits < minCode || v.config.Digits > maxCode {
		settings.Wrong("digits", "are out of bounds", fmt.Sprintf("its codes have %d to %d", minCode, maxCode))
	}
	var basic func(*http.Request)
	switch {
	case c.PrivateKey != "" && c.Application != "" && c.Now != nil:
		signer, err := newSigner(c.PrivateKey)
		if err != nil {
			settings.Wrong("private_key", "is not an RSA key of at least 2048 bits in PEM", "use the file that the dashboard made with the application")
		}
		v.signer = signer
	case c.PrivateKey != "" && c.Application != "":
		settings.Wrong("application", "needs a clock", "give the driver one")
	case c.PrivateKey != "" || c.Application != "":
		settings.Need(c.Application, "application", "copy the id of the application that private_key belongs to")
		settings.Need(c.PrivateKey, "private_key", "give the private key of the application")
	case c.Key == "" || c.Secret == "":
		settings.Need(c.Key, "key", "copy the API key from the dashboard, or use application and private_key")
		settings.Need(c.Secret, "secret", "copy the API secret from the dashboard, or use application and private_key")
	default:
		basic = func(r *http.Request) { r.SetBasicAuth(c.Key, c.Secret) }
	}
	base := c.BaseURL
	if base == "" {
		base = "https://api.nexmo.com"
	}
	client, err := wire.New(name, base, basic)
	v.client = client
	return v, settings.Err(err)
}

// minKey is the shortest RSA key of RS256, RFC 7518 section 3.3, in bits.
const minKey = 2048

func newSigner(text string) (jose.Signer, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not PEM")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		var isRSA bool
		if key, isRSA = parsed.(*rsa.PrivateKey); !isRSA {
			return nil, errors.New("not RSA")
		}
	}
	if key.N.BitLen() < minKey {
		return nil, errors.New("too short")
	}
	return jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, new(jose.SignerOptions).WithType("JWT"))
}

// Name implements sms.Vendor.
func (v *Verify) Name() string { return v.name }

// Bounds of a code, ours or Vonage's.
const (
	minCode     = 4
	maxCode     = 10
	defaultCode = 6
)

// Abilities implements sms.Vendor.
func (v *Verify) Abilities() sms.Abilities {
	a := sms.Abilities{Kind: sms.Verifier, Channels: slices.Clone(v.channels)}
	if v.config.CustomCode {
		a.Kind, a.Digits = sms.Hybrid, maxCode
	}
	return a
}

// tokenLife is how long a token of ours is good for: one call.
const tokenLife = time.Minute

// call makes one to path, below that of all requests.
func (v *Verify) call(ctx context.Context, method, path string, body any) (*wire.Response, error) {
	header := http.Header{}
	if v.signer != nil {
		now := v.config.Now()
		token, err := jwt.Signed(v.signer).Claims(map[string]any{
			"application_id": v.config.Application, "iat": now.Unix(), "exp": now.Add(tokenLife).Unix(), "jti": uuid.NewString(),
		}).Serialize()
		if err != nil {
			return nil, v.client.Fail(sms.Misconfigured, "token", sms.NotSent)
		}
		header.Set("Authorization", "Bearer "+token)
	}
	return v.client.Do(ctx, wire.Request{Method: method, Path: "/v2/verify" + path, Header: header, JSON: body})
}

// problem is a refusal, RFC 9457.
type problem struct {
	Type    string `json:"type"`
	Request string `json:"request_id"`
	Invalid []struct {
		Name string `json:"name"`
	} `json:"invalid_parameters"`
}

func readProblem(r *wire.Response) problem {
	var p problem
	if r.Decode(&p) != nil {
		return problem{}
	}
	return p
}

// code is the last part of the problem's type: "throttled".
func (p problem) code() string {
	_, fragment, _ := strings.Cut(p.Type, "#")
	if len(fragment) > 40 || strings.ContainsFunc(fragment, func(r rune) bool { return (r < 'a' || r > 'z') && r != '-' }) {
		return ""
	}
	return fragment
}

// conflict reports whether a request to the number is open already.
func (p problem) conflict(status int) bool {
	return status == http.StatusConflict || p.code() == "conflict" || p.code() == "concurrent"
}

// refused reads a refusal.
func refused(r *wire.Response) *sms.Error {
	p := readProblem(r)
	switch r.Status {
	case http.StatusConflict:
		return r.Refused(sms.Temporary, p.code())
	case http.StatusUnprocessableEntity:
		for _, parameter := range p.Invalid {
			if parameter.Name == "to" || strings.HasSuffix(parameter.Name, ".to") {
				return r.Refused(sms.InvalidRecipient, p.code())
			}
		}
		return r.Refused(sms.Misconfigured, p.code())
	}
	e := r.Refused("", "")
	if code := p.code(); code != "" {
		e.Code = code
	}
	return e
}

// Bounds of the time that each channel has. Below a minute not every account may go.
const (
	minStep = time.Minute
	maxStep = 15 * time.Minute
)

// locales that Vonage's texts are in, the first for all others.
var (
	locales = []language.Tag{
		language.MustParse("en-US"), language.MustParse("en-GB"), language.MustParse("es-ES"), language.MustParse("es-MX"), language.MustParse("es-US"), language.MustParse("it-IT"),
		language.MustParse("fr-FR"), language.MustParse("de-DE"), language.MustParse("ru-RU"), language.MustParse("hi-IN"), language.MustParse("pt-BR"), language.MustParse("pt-PT"),
		language.MustParse("id-ID"),
	}
	matcher = language.NewMatcher(locales)
)

// step of a workflow.
type step struct {
	Channel   sms.Channel `json:"channel"`
	To        string      `json:"to"`
	From      string      `json:"from,omitempty"`
	EntityID  string      `json:"entity_id,omitempty"`
	ContentID string      `json:"content_id,omitempty"`
}

func (v *Verify) step(channel sms.Channel, to sms.Number) step {
	s := step{Channel: channel, To: digits(to)}
	switch channel {
	case sms.SMS:
		s.From, s.EntityID, s.ContentID = v.config.Sender, v.config.EntityID, v.config.ContentID
	case sms.WhatsApp:
		s.From = v.config.WhatsAppSender
	}
	return s
}

// Send implements sms.Vendor. A request that is open for the number gives way: its code may be another, and whose it is cannot be told.
func (v *Verify) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	at := slices.Index(v.channels, leg.Channel)
	if at < 0 {
		return sms.Accepted{}, v.client.Fail(sms.Misconfigured, "channel", sms.NotSent)
	}
	_, locale := language.MatchStrings(matcher, leg.Locale)
	start := map[string]any{
		"brand": v.config.Brand, "locale": strings.ToLower(locales[locale].String()), "channel_timeout": int(min(max(leg.Life, minStep), maxStep).Seconds()),
	}
	var steps []step
	for _, channel := range v.channels[at:] {
		steps = append(steps, v.step(channel, leg.To))
	}
	start["workflow"] = steps
	if v.config.CustomCode {
		start["code"] = leg.Code
	} else {
		start["code_length"] = v.config.Digits
	}
	resp, err := v.call(ctx, http.MethodPost, "", start)
	if err != nil {
		return sms.Accepted{}, err
	}
	if p := readProblem(resp); !resp.OK() && p.conflict(resp.Status) && isRequest(p.Request) {
		if err := v.cancel(ctx, p.Request); err != nil {
			return sms.Accepted{}, unsent(err)
		}
		if resp, err = v.call(ctx, http.MethodPost, "", start); err != nil {
			return sms.Accepted{}, err
		}
	}
	if !resp.OK() {
		return sms.Accepted{}, refused(resp)
	}
	var started struct {
		Request string `json:"request_id"`
	}
	if err := resp.Decode(&started); err != nil {
		return sms.Accepted{}, err
	}
	if !isRequest(started.Request) {
		return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "no_request_id", sms.MaybeSent)
	}
	return accepted(started.Request, v.channels[at:]), nil
}

// isRequest reports whether id can be that of a request.
func isRequest(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_'
	})
}

// accepted names what the first of the channels carries, and what the others could.
func accepted(request string, channels []sms.Channel) sms.Accepted {
	session := request
	for _, later := range channels[1:] {
		session += "," + string(later)
	}
	return sms.Accepted{Ref: reference(request, channels[0]), Session: session}
}

// reference of one channel's message: a request alone would be that of several legs.
func reference(request string, channel sms.Channel) string { return request + " " + string(channel) }

// parts of a session.
func parts(session string) (request string, later []sms.Channel) {
	names := strings.Split(session, ",")
	for _, name := range names[1:] {
		later = append(later, sms.Channel(name))
	}
	return names[0], later
}

// unsent is the error of a call that could not have sent anything, before one that could.
func unsent(err error) error {
	e, ok := errors.AsType[*sms.Error](err)
	if !ok {
		return err
	}
	before := *e
	before.Reached = sms.NotSent
	if before.Class == sms.Ambiguous {
		before.Class = sms.Temporary
	}
	return &before
}

// Continue implements sms.Continuer. The next channel of the session carries the same code. Anything else needs a new request, in place of the old one:
// a code of Vonage's is then a new one too.
func (v *Verify) Continue(ctx context.Context, s sms.Session, leg sms.Leg) (sms.Accepted, error) {
	request, later := parts(s.ID)
	if len(later) > 0 && later[0] == leg.Channel {
		resp, err := v.call(ctx, http.MethodPost, "/"+url.PathEscape(request)+"/next_workflow", nil)
		switch {
		case err != nil:
			return sms.Accepted{}, err
		case resp.Status == http.StatusOK:
			return accepted(request, later), nil
		case resp.OK():
			return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "not_understood", sms.MaybeSent)
		case resp.Status == http.StatusNotFound || resp.Status == http.StatusConflict || resp.Status == http.StatusGone: // it has ended, or moved on by itself
		default:
			return sms.Accepted{}, refused(resp)
		}
	}
	if err := v.cancel(ctx, request); err != nil {
		return sms.Accepted{}, unsent(err)
	}
	return v.Send(ctx, leg)
}

// cancel ends a request, or finds it ended.
func (v *Verify) cancel(ctx context.Context, request string) error {
	resp, err := v.call(ctx, http.MethodDelete, "/"+url.PathEscape(request), nil)
	if err != nil {
		return err
	}
	if !resp.OK() && resp.Status != http.StatusNotFound {
		return refused(resp)
	}
	return nil
}

// Check implements sms.Checker. Only "completed", of this very request, passes.
func (v *Verify) Check(ctx context.Context, s sms.Session, answer string) (sms.Verdict, error) {
	request, _ := parts(s.ID)
	resp, err := v.call(ctx, http.MethodPost, "/"+url.PathEscape(request), map[string]string{"code": answer})
	if err != nil {
		return sms.Denied, err
	}
	switch {
	case resp.OK():
	case resp.Status == http.StatusBadRequest, resp.Status == http.StatusUnprocessableEntity: // wrong, or no code at all
		return sms.Denied, nil
	case resp.Status == http.StatusNotFound:
		return sms.Gone, nil
	case resp.Status == http.StatusGone:
		return sms.Exhausted, nil
	default:
		return sms.Denied, refused(resp)
	}
	var checked struct {
		Request string `json:"request_id"`
		Status  string `json:"status"`
	}
	if err := resp.Decode(&checked); err != nil {
		return sms.Denied, err
	}
	if checked.Status == "completed" && checked.Request == request {
		return sms.Approved, nil
	}
	return sms.Denied, nil
}

// Close implements sms.Closer. The request is canceled whatever the end was: if Vonage has not seen it, it would go through its other channels. Of success it
// is told by the code alone, which a session does not keep.
func (v *Verify) Close(ctx context.Context, s sms.Session, _ bool) error {
	request, _ := parts(s.ID)
	return v.cancel(ctx, request)
}

// outcomes of a channel that say something about its leg.
var outcomes = map[string]struct {
	state sms.LegState
	class sms.Class
}{
	"completed":     {sms.LegDelivered, ""}, // its code was typed
	"failed":        {sms.LegFailed, sms.RecipientUnreachable},
	"rejected":      {sms.LegRejected, sms.RecipientUnreachable},
	"expired":       {sms.LegExpired, sms.RecipientUnreachable},
	"blocked":       {sms.LegRejected, sms.BlockedFraud},
	"user_rejected": {sms.LegRejected, sms.BlockedFraud}, // the person says that it was somebody else
}

// Receive implements sms.Receiver: what became of a channel, and of all of them.
func (v *Verify) Receive(w sms.Webhook) (sms.Received, error) {
	signed, authentic := v.authentic(w)
	switch {
	case !authentic:
		return sms.Received{}, sms.ErrForged
	case stale(w.At, signed):
		return sms.Received{}, sms.ErrStale
	}
	type part struct {
		Channel sms.Channel `json:"channel"`
		Status  string      `json:"status"`
	}
	var in struct {
		part
		Request  string `json:"request_id"`
		Type     string `json:"type"`
		Workflow []part `json:"workflow"`
	}
	if !one(w.Body, &in) || !isRequest(in.Request) {
		return sms.Received{}, sms.ErrMalformed
	}
	var told []part
	switch in.Type {
	case "event":
		told = []part{in.part}
	case "summary":
		told = in.Workflow
	}
	var received sms.Received
	for _, p := range told {
		outcome, known := outcomes[p.Status]
		if !known || p.Channel != sms.SMS && p.Channel != sms.WhatsApp && p.Channel != sms.Voice {
			continue
		}
		report := sms.Report{Ref: reference(in.Request, p.Channel), State: outcome.state, Class: outcome.class, Key: reference(in.Request, p.Channel) + " " + p.Status}
		if outcome.class != "" {
			report.Code = p.Status
		}
		received.Reports = append(received.Reports, report)
	}
	return received, nil
}

// authentic checks the bearer's token: signed with HS256 by the account's signature secret, issued by Vonage for this account and application, with
// the hash of this very body. It gives the time of issue.
func (v *Verify) authentic(w sms.Webhook) (time.Time, bool) {
	scheme, text, _ := strings.Cut(w.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || len(v.config.SignatureSecret) < minSecret {
		return time.Time{}, false
	}
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Issuer      string           `json:"iss"`
		Issued      *jwt.NumericDate `json:"iat"`
		Hash        string           `json:"payload_hash"`
		Key         string           `json:"api_key"`
		Application string           `json:"application_id"`
	}
	if token.Claims([]byte(v.config.SignatureSecret), &claims) != nil || claims.Issued == nil || claims.Issuer != "Vonage" {
		return time.Time{}, false
	}
	if differs(claims.Key, v.config.Key) || differs(claims.Application, v.config.Application) {
		return time.Time{}, false
	}
	sum := sha256.Sum256(w.Body)
	if !hmac.Equal([]byte(strings.ToLower(claims.Hash)), []byte(hex.EncodeToString(sum[:]))) {
		return time.Time{}, false
	}
	return claims.Issued.Time(), true
}

// differs reports whether two names of the same thing, where both are known, are not the same.
func differs(claimed, ours string) bool { return claimed != "" && ours != "" && claimed != ours }
