// Package messagecentral verifies numbers through Message Central's VerifyNow v3, which makes, sends and checks the code itself, by SMS or WhatsApp.
//
// Sources: Message Central's pages of the API (messagecentral.com/product/verify-now/api, with its Indian variant under /en-in) for calls, tokens and codes;
// its application library (github.com/ashishjaiswal501/lib_messagecentral, lib/core/constants) for paths; many independent integrations for
// the types of fields and for failures that come with HTTP 200. The vendor's article for developers describes another API, with JSON bodies and VERIFIED for
// approval; from it are only the names INVALID_NUMBER and FRAUD_DETECTED.
//
// Not verified against a live account: which HTTP status goes with which code, so that the codes of the body decide wherever they stand; how many wrong
// answers a session bears; how long tokens live; what 409 means of a send, so that nobody knows then; webhooks of delivery and how they would be
// signed, so that there are none here.
//
// There is no idempotency key. A second send to a number within a minute is refused with 506, because a code is still open, and names no session:
// where an answer was lost the session is lost with it.
//
// Keys, codes and numbers are in queries: whatever stands between this program and the vendor should not log them. A token from the dashboard keeps
// the password out of it.
package messagecentral

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nyaruka/phonenumbers"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Config of an account.
type Config struct {
	// BaseURL defaults to https://cpaas.messagecentral.com.
	BaseURL string
	// Token from the dashboard. "": tokens are fetched with Customer and Password.
	Token string
	// Customer is the account's id, C-….
	Customer string
	// Password of the account, as it is typed.
	Password string
	// Email and Country, a calling code without plus, are the account's own. Both may be empty.
	Email, Country string
	// Digits of a code, 4 to 8. Default 6.
	Digits int
	// Now is the clock that tokens run out by.
	Now func() time.Time
}

// Verify is the driver. Make one with [New].
type Verify struct {
	name   string
	config Config
	client *wire.Client

	turn   chan struct{} // held while the two below are used
	cached string
	until  time.Time
}

var (
	_ sms.Checker = (*Verify)(nil)
	_ sms.Pinger  = (*Verify)(nil)
)

// New makes the driver. Its error joins everything that is wrong with the configuration.
func New(name string, c Config) (*Verify, error) {
	if c.BaseURL == "" {
		c.BaseURL = "https://cpaas.messagecentral.com"
	}
	client, err := wire.New(name, c.BaseURL, nil)
	settings := sms.Settings{Vendor: name}
	if c.Token == "" {
		settings.Need(c.Customer, "customer", "copy the customer id, C-…, from the dashboard, or give a token")
		settings.Need(c.Password, "password", "give the account's password, or a token")
		if c.Now == nil {
			settings.Wrong("token", "needs a clock to be fetched", "give the driver one")
		}
	}
	if strings.Trim(c.Country, "0123456789") != "" {
		settings.Wrong("country", "is not a calling code without plus", "write 91 for India")
	}
	if c.Digits == 0 {
		c.Digits = defaultDigits
	}
	if c.Digits < minDigits || c.Digits > maxDigits {
		settings.Wrong("digits", "are out of bounds", fmt.Sprintf("its codes have %d to %d", minDigits, maxDigits))
	}
	return &Verify{name: name, config: c, client: client, turn: make(chan struct{}, 1)}, settings.Err(err)
}

// Name implements sms.Vendor.
func (v *Verify) Name() string { return v.name }

// Abilities implements sms.Vendor.
func (*Verify) Abilities() sms.Abilities {
	return sms.Abilities{Kind: sms.Verifier, Channels: []sms.Channel{sms.SMS, sms.WhatsApp}}
}

// flows are the vendor's names for channels.
var flows = map[sms.Channel]string{sms.SMS: "SMS", sms.WhatsApp: "WHATSAPP"}

// Bounds of [Config.Digits]. The vendor's own default is 4.
const (
	minDigits     = 4
	maxDigits     = 8
	defaultDigits = 6
)

// Send implements sms.Vendor.
func (v *Verify) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	country, national, ok := split(leg.To)
	if !ok {
		return sms.Accepted{}, v.client.Fail(sms.InvalidRecipient, "number", sms.NotSent)
	}
	flow, ok := flows[leg.Channel]
	if !ok {
		return sms.Accepted{}, v.client.Fail(sms.Misconfigured, "channel", sms.NotSent)
	}
	resp, got, err := v.call(ctx, http.MethodPost, "/verification/v3/send", url.Values{
		"countryCode": {country}, "mobileNumber": {national}, "flowType": {flow}, "otpLength": {strconv.Itoa(v.config.Digits)},
	})
	if err != nil {
		return sms.Accepted{}, err
	}
	id := string(got.data.VerificationID)
	if !resp.OK() || got.code() != success {
		return sms.Accepted{}, v.refused(resp, got)
	}
	if id == "" {
		return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "no_id", sms.MaybeSent)
	}
	return sms.Accepted{Ref: id, Session: id}, nil
}

// completed is the only status of a verification that passes.
const completed = "VERIFICATION_COMPLETED"

// verdicts of the codes that answer a check.
var verdicts = map[int]sms.Verdict{505: sms.Gone, 700: sms.Denied, 702: sms.Denied, 703: sms.Gone, 705: sms.TimedOut, 800: sms.Exhausted}

// Check implements sms.Checker. It passes only if status, both codes and the state of the verification agree.
func (v *Verify) Check(ctx context.Context, s sms.Session, answer string) (sms.Verdict, error) {
	resp, got, err := v.validate(ctx, s.ID, answer)
	if err != nil {
		return sms.Denied, err
	}
	code := got.code()
	verdict, known := verdicts[code]
	switch {
	case known:
		return verdict, nil
	case !resp.OK(), classes[code] != "":
		return sms.Denied, v.refused(resp, got)
	case code == success && got.ResponseCode == successText && got.data.VerificationStatus == completed && got.of(s.ID):
		return sms.Approved, nil
	default:
		return sms.Denied, nil
	}
}

// validate asks once more with POST where GET is not allowed, as for some accounts.
func (v *Verify) validate(ctx context.Context, id, answer string) (*wire.Response, body, error) {
	const path = "/verification/v3/validateOtp"
	query := url.Values{"verificationId": {id}, "code": {answer}}
	resp, got, err := v.call(ctx, http.MethodGet, path, query)
	if err == nil && resp.Status == http.StatusMethodNotAllowed {
		return v.call(ctx, http.MethodPost, path, query)
	}
	return resp, got, err
}

// Ping implements sms.Pinger: a fresh token, or with one from the dashboard a check of a verification that nobody has.
func (v *Verify) Ping(ctx context.Context) (string, error) {
	if v.config.Token == "" {
		_, err := v.token(ctx, func(string) bool { return false })
		return "", err
	}
	resp, got, err := v.validate(ctx, "0", "000000")
	if err != nil {
		return "", err
	}
	if _, known := verdicts[got.code()]; !known {
		return "", v.refused(resp, got)
	}
	return "", nil
}

// split takes a number apart into its calling code and its national number, whose zero stays where it is part of it.
func split(n sms.Number) (country, national string, ok bool) {
	parsed, err := phonenumbers.Parse(n.Reveal(), "")
	if err != nil {
		return "", "", false
	}
	return strconv.Itoa(int(parsed.GetCountryCode())), phonenumbers.GetNationalSignificantNumber(parsed), true
}

// ---- answers

// word is a JSON string or number, as text: the vendor mixes them. Anything else is "".
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

// body of every answer but a token's.
type body struct {
	ResponseCode word            `json:"responseCode"`
	Message      word            `json:"message"`
	Error        word            `json:"error"`
	ErrorCode    word            `json:"errorCode"`
	Data         json.RawMessage `json:"data"`

	data struct {
		ResponseCode       word `json:"responseCode"`
		ErrorMessage       word `json:"errorMessage"`
		VerificationID     word `json:"verificationId"`
		VerificationStatus word `json:"verificationStatus"`
		Timeout            word `json:"timeout"`
	}
}

// of says that the answer names no other session.
func (b body) of(id string) bool {
	return b.data.VerificationID == "" || string(b.data.VerificationID) == id
}

// success is the code of it.
const (
	success     = 200
	successText = "200"
)

// code is the first that says something other than success, or else success, or 0 when there is none.
func (b body) code() int {
	found := 0
	for _, w := range []word{b.ResponseCode, b.data.ResponseCode} {
		code, err := strconv.Atoi(string(w))
		switch {
		case w == "":
		case err != nil:
			return -1
		case code != success:
			return code
		default:
			found = success
		}
	}
	return found
}

// names of failures that have no code of their own.
var names = map[word]sms.Class{"INVALID_NUMBER": sms.InvalidRecipient, "FRAUD_DETECTED": sms.BlockedFraud}

func (b body) named() (word, sms.Class) {
	for _, w := range []word{b.Message, b.Error, b.ErrorCode, b.data.ErrorMessage} {
		if class, known := names[w]; known {
			return w, class
		}
	}
	return "", ""
}

// classes of the codes that refuse a call. 401, 403 and 429 are HTTP's, written into bodies.
var classes = map[int]sms.Class{
	400: sms.Misconfigured, 401: sms.Unauthorized, 403: sms.Unauthorized, 409: sms.Ambiguous, 429: sms.RateLimited, 500: sms.Temporary, 501: sms.Unauthorized,
	505: sms.Misconfigured, 506: sms.RateLimited, 511: sms.InvalidRecipient, 800: sms.RateLimited,
}

// lock is how long a number has to wait for its next code when the answer does not say, quota how long when its limit is reached.
const (
	lock  = time.Minute
	quota = 10 * time.Minute
)

// refused makes an error of an answer that is none to what was asked.
func (v *Verify) refused(r *wire.Response, b body) *sms.Error {
	if name, class := b.named(); class != "" {
		return r.Refused(class, strings.ToLower(string(name)))
	}
	code := b.code()
	class, known := classes[code]
	if !known {
		if r.OK() {
			return v.client.Fail(sms.Ambiguous, "unknown_code", sms.MaybeSent)
		}
		return r.Refused("", "")
	}
	e := r.Refused(class, strconv.Itoa(code))
	switch code {
	case 409, 500:
		e.Reached = sms.MaybeSent // taken before, or broken and nobody knows where
	case 506:
		e.RetryAfter, e.PerNumber = lock, true // its code is still live
		if seconds, err := strconv.Atoi(string(b.data.Timeout)); err == nil && seconds > 0 {
			e.RetryAfter = min(time.Duration(seconds)*time.Second, quota)
		}
	case 800:
		e.RetryAfter, e.PerNumber = quota, true
	}
	return e
}

// ---- calls and tokens

// call makes a call with a token, and once more with a fresh one where the token is refused.
func (v *Verify) call(ctx context.Context, method, path string, query url.Values) (*wire.Response, body, error) {
	if v.config.Customer != "" {
		query.Set("customerId", v.config.Customer) // for older accounts
	}
	token, err := v.token(ctx, v.fresh)
	if err != nil {
		return nil, body{}, err
	}
	resp, got, err := v.once(ctx, token, method, path, query)
	if err != nil || v.config.Token != "" || !stale(resp, got) {
		return resp, got, err
	}
	refused := token
	if token, err = v.token(ctx, func(cached string) bool { return cached != refused && v.fresh(cached) }); err != nil {
		return nil, body{}, err
	}
	return v.once(ctx, token, method, path, query)
}

// once reads what it can of an answer. Only of a success that is no JSON nothing is known.
func (v *Verify) once(ctx context.Context, token, method, path string, query url.Values) (*wire.Response, body, error) {
	resp, err := v.client.Do(ctx, wire.Request{Method: method, Path: path, Query: query, Header: http.Header{"Authtoken": {token}}})
	if err != nil {
		return nil, body{}, err
	}
	var got body
	if err := resp.Decode(&got); err != nil {
		if resp.OK() {
			return nil, body{}, err
		}
		return resp, body{}, nil
	}
	if json.Unmarshal(got.Data, &got.data) != nil {
		got.data.ResponseCode = "" // no object: only the outside speaks
	}
	return resp, got, nil
}

// stale says that an answer refuses the token and not the call.
func stale(r *wire.Response, b body) bool {
	if _, class := b.named(); class != "" {
		return false
	}
	code := b.code()
	if code == 0 {
		code = r.Status
	}
	return code == http.StatusUnauthorized || code == http.StatusForbidden
}

// Times of tokens.
const (
	early   = time.Minute // before they run out
	unknown = time.Hour   // where they do not say when
)

// fresh says that the token that is kept still lives.
func (v *Verify) fresh(cached string) bool { return cached != "" && v.config.Now().Before(v.until) }

// token gives the one that is kept, if use says so, or fetches another. Nothing has been sent when it fails.
func (v *Verify) token(ctx context.Context, use func(cached string) bool) (string, error) {
	if v.config.Token != "" {
		return v.config.Token, nil
	}
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		return "", v.client.Fail(sms.Temporary, "token", sms.NotSent)
	}
	if use(v.cached) {
		return v.cached, nil
	}
	query := url.Values{"customerId": {v.config.Customer}, "key": {base64.StdEncoding.EncodeToString([]byte(v.config.Password))}, "scope": {"NEW"}}
	if v.config.Country != "" {
		query.Set("country", v.config.Country)
	}
	if v.config.Email != "" {
		query.Set("email", v.config.Email)
	}
	resp, err := v.client.Do(ctx, wire.Request{Method: http.MethodGet, Path: "/auth/v1/authentication/token", Query: query, Header: http.Header{"Accept": {"*/*"}}})
	if err != nil {
		e := v.client.Fail(sms.Temporary, "token", sms.NotSent)
		e.Cause = err
		return "", e
	}
	var got struct {
		Status word   `json:"status"`
		Token  string `json:"token"`
	}
	decoded := resp.Decode(&got) == nil
	status := resp.Status
	if said, err := strconv.Atoi(string(got.Status)); decoded && resp.OK() && err == nil {
		status = said // a refusal comes with HTTP 200
	}
	switch {
	case resp.OK() && decoded && got.Status == successText && got.Token != "":
	case status == http.StatusBadRequest, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "", v.client.Fail(sms.Unauthorized, "token_"+strconv.Itoa(status), sms.NotSent)
	case status == http.StatusTooManyRequests:
		return "", resp.Refused(sms.RateLimited, "token_429")
	default:
		return "", v.client.Fail(sms.Temporary, "token", sms.NotSent)
	}
	v.cached, v.until = got.Token, v.config.Now().Add(unknown)
	if end, ok := expiry(got.Token); ok {
		v.until = end.Add(-early)
	}
	return v.cached, nil
}

// expiry reads when a JWT runs out. Its signature is the vendor's concern: the token goes back to nobody else.
func expiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	var got struct {
		Exp float64 `json:"exp"` // RFC 7519 allows fractions
	}
	if err != nil || json.Unmarshal(claims, &got) != nil || got.Exp <= 0 {
		return time.Time{}, false
	}
	return time.Unix(int64(got.Exp), 0), true
}
