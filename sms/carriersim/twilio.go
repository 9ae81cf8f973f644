package carriersim

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Twilio signs with it
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// twilioErrors are Twilio's codes for what goes wrong, with their statuses.
var twilioErrors = map[string]struct {
	status, code int
}{
	"invalid_recipient": {400, 21211}, "recipient_opted_out": {400, 21610}, "recipient_unreachable": {400, 21612}, "invalid_sender": {400, 21606},
	"misconfigured": {400, 21608}, "unauthorized": {401, 20003}, "rate_limited": {429, 20429}, "region_blocked": {403, 21408}, "temporary": {429, 21611},
	"blocked_fraud": {400, 30450},
}

func twilioDialect() dialect {
	return dialect{
		name:    "twilio",
		send:    "POST /2010-04-01/Accounts/{account}/Messages.json",
		ref:     func(n int) string { return twilioSID("SM", n) },
		account: Account{ID: "AC00000000000000000000000000000001", Secret: "twilio-auth-token"},
		routes: func(s *Simulator, mux *api) {
			mux.HandleFunc("POST /2010-04-01/Accounts/{account}/Messages.json", s.twilioSend)
			mux.HandleFunc("GET /2010-04-01/Accounts/{account}/Balance.json", func(w http.ResponseWriter, r *http.Request) {
				if s.twilioKnows(w, r, "twilio") {
					answer(w, http.StatusOK, map[string]string{"balance": "12.50", "currency": "USD"})
				}
			})
		},
		receipt: (*Simulator).twilioReceipt,
		inbound: (*Simulator).twilioInbound,
	}
}

// twilioSID is the n-th identifier of a kind, in Twilio's form.
func twilioSID(kind string, n int) string { return fmt.Sprintf("%s%032x", kind, n) }

func twilioError(w http.ResponseWriter, class, why string) {
	e, known := twilioErrors[class]
	if !known {
		e = twilioErrors["misconfigured"]
	}
	if e.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "2")
	}
	twilioRefuse(w, e.status, e.code, why)
}

func twilioRefuse(w http.ResponseWriter, status, code int, why string) {
	answer(w, status, map[string]any{"code": code, "message": why, "more_info": fmt.Sprintf("https://www.twilio.com/docs/errors/%d", code), "status": status})
}

func (s *Simulator) twilioKnows(w http.ResponseWriter, r *http.Request, vendor string) bool {
	a := s.Account(vendor)
	user, password, _ := r.BasicAuth()
	if account := r.PathValue("account"); user != a.ID || password != a.Secret || account != "" && account != a.ID {
		twilioRefuse(w, http.StatusUnauthorized, 20003, badCredentials)
		return false
	}
	return true
}

func (s *Simulator) twilioSend(w http.ResponseWriter, r *http.Request) {
	if !s.twilioKnows(w, r, "twilio") {
		return
	}
	from, to, channel := r.PostFormValue("From"), r.PostFormValue("To"), "sms"
	if from == "" {
		from = r.PostFormValue("MessagingServiceSid")
	}
	if number, found := strings.CutPrefix(to, "whatsapp:"); found {
		to, channel = number, "whatsapp"
	}
	// The magic numbers of Twilio's own test credentials.
	magic := map[string]int{"+15005550001": 21211, "+15005550002": 21612, "+15005550003": 21408, "+15005550004": 21610, "+15005550009": 21614}
	switch {
	case from == "":
		twilioRefuse(w, http.StatusBadRequest, 21603, "From or MessagingServiceSid is missing.")
		return
	case magic[to] != 0:
		twilioRefuse(w, http.StatusBadRequest, magic[to], "This number is refused with Twilio's test credentials.")
		return
	case from == "+15005550001":
		twilioRefuse(w, http.StatusBadRequest, 21212, "This sender is refused with Twilio's test credentials.")
		return
	case from == "+15005550007":
		twilioRefuse(w, http.StatusBadRequest, 21606, "This sender is refused with Twilio's test credentials.")
		return
	case r.PostFormValue("Body") == "":
		twilioRefuse(w, http.StatusBadRequest, 21602, "Body is missing.")
		return
	case !strings.HasPrefix(to, "+"):
		twilioRefuse(w, http.StatusBadRequest, 21211, "To is not a number in E.164: write it with +, which is %2B in a form.")
		return
	}
	out := s.submit(r, submission{vendor: "twilio", to: to, from: from, text: r.PostFormValue("Body"), channel: channel, callback: r.PostFormValue("StatusCallback")})
	if out.class != "" {
		twilioError(w, out.class, out.why)
		return
	}
	answer(w, http.StatusCreated, map[string]any{
		"sid": out.m.ref, "status": "queued", "to": to, "from": from, "num_segments": "1", "error_code": nil, "price": nil, "account_sid": s.Account("twilio").ID,
		"uri": "/2010-04-01/Accounts/" + s.Account("twilio").ID + "/Messages/" + out.m.ref + ".json",
	})
}

func (s *Simulator) twilioReceipt(m Message, state string) *call {
	form := url.Values{
		"MessageSid": {m.ref}, "SmsSid": {m.ref}, "MessageStatus": {state}, "SmsStatus": {state}, "To": {m.To}, "From": {m.From},
		"AccountSid": {s.Account("twilio").ID}, "ApiVersion": {"2010-04-01"},
	}
	switch state {
	case "undelivered":
		form.Set("ErrorCode", "30003")
	case "expired":
		form.Set("MessageStatus", "undelivered")
		form.Set("ErrorCode", "30008")
	}
	return s.twilioSigned(m.callback, form)
}

func (s *Simulator) twilioInbound(m Message, text string) *call {
	form := url.Values{
		"MessageSid": {twilioSID("SM", m.reply)}, "SmsSid": {twilioSID("SM", m.reply)}, "From": {m.To}, "To": {m.From}, "Body": {text}, "NumMedia": {"0"}, "NumSegments": {"1"},
		"AccountSid": {s.Account("twilio").ID}, "ApiVersion": {"2010-04-01"},
	}
	return s.twilioSigned(s.Account("twilio").Inbound, form)
}

// twilioSigned signs as Twilio does: HMAC-SHA1 over the URL and the fields in order of their names.
func (s *Simulator) twilioSigned(target string, form url.Values) *call {
	names := make([]string, 0, len(form))
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	mac := hmac.New(sha1.New, []byte(s.Account("twilio").Secret))
	mac.Write([]byte(target))
	for _, name := range names {
		mac.Write([]byte(name + form.Get(name)))
	}
	return &call{method: http.MethodPost, url: target, body: []byte(form.Encode()), header: http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"}, "X-Twilio-Signature": {base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}}
}

// twilioVerifyLife is how long Twilio Verify's codes live, and how many wrong ones it bears.
const (
	twilioVerifyLife  = 10 * time.Minute
	twilioVerifyTries = 5
)

func twilioVerifyDialect() dialect {
	const name = "twilio-verify"
	return dialect{
		name:    name,
		send:    "POST /v2/Services/{service}/Verifications",
		ref:     func(n int) string { return twilioSID("VL", n) },
		session: func(n int) string { return twilioSID("VE", n) },
		account: Account{ID: "AC00000000000000000000000000000001", Secret: "twilio-auth-token"},
		routes: func(s *Simulator, mux *api) {
			mux.HandleFunc("POST /v2/Services/{service}/Verifications", s.twilioVerifyStart)
			mux.HandleFunc("POST /v2/Services/{service}/VerificationCheck", s.twilioVerifyCheck)
			mux.HandleFunc("POST /v2/Services/{service}/Verifications/{id}", func(w http.ResponseWriter, r *http.Request) {
				if !s.twilioKnows(w, r, name) {
					return
				}
				if !s.end(name, r.PathValue("id"), r.PostFormValue("Status")) {
					twilioRefuse(w, http.StatusNotFound, 20404, "No verification of that id is pending.")
					return
				}
				answer(w, http.StatusOK, map[string]any{"sid": r.PathValue("id"), "status": r.PostFormValue("Status")})
			})
			mux.HandleFunc("GET /v2/Services/{service}", func(w http.ResponseWriter, r *http.Request) {
				if s.twilioKnows(w, r, name) {
					answer(w, http.StatusOK, map[string]any{"sid": r.PathValue("service"), "code_length": 6})
				}
			})
		},
	}
}

func (s *Simulator) twilioVerifyStart(w http.ResponseWriter, r *http.Request) {
	const name = "twilio-verify"
	if !s.twilioKnows(w, r, name) {
		return
	}
	to, channel := r.PostFormValue("To"), r.PostFormValue("Channel")
	channels := map[string]string{"sms": "sms", "call": "voice", "whatsapp": "whatsapp"}
	if channels[channel] == "" || !strings.HasPrefix(to, "+") {
		twilioRefuse(w, http.StatusBadRequest, 60200, "To needs a number with +, and Channel sms, call or whatsapp.")
		return
	}
	// Starting again within the life of the code sends the same one.
	open := s.find(name, "", to)
	if open == nil {
		open = s.open(name, to, r.PostFormValue("CustomCode"), 6, twilioVerifyTries, twilioVerifyLife)
	}
	s.mu.Lock()
	open.sends++
	sends := open.sends
	s.mu.Unlock()
	if sends > 5 {
		twilioRefuse(w, http.StatusTooManyRequests, 60203, "This number was sent five codes already.")
		return
	}
	out := s.sendCode(r, open, submission{from: "Verify", channel: channels[channel]})
	codes := map[string][2]int{
		"invalid_recipient": {400, 60200}, "recipient_unreachable": {400, 60205}, "blocked_fraud": {403, 60410}, "region_blocked": {403, 60605},
		"rate_limited": {429, 60207}, "temporary": {429, 60212}, "unauthorized": {401, 20003}, "recipient_opted_out": {400, 21610},
	}
	if out.class != "" {
		code, known := codes[out.class]
		if !known {
			code = [2]int{403, 60238}
		}
		twilioRefuse(w, code[0], code[1], out.why)
		return
	}
	answer(w, http.StatusCreated, map[string]any{
		"sid": open.id, "status": "pending", "to": to, "channel": channel, "valid": false, "lookup": map[string]any{},
		"send_code_attempts": []map[string]any{{"time": s.options.Now().UTC(), "channel": channel, "attempt_sid": out.m.ref}},
	})
}

func (s *Simulator) twilioVerifyCheck(w http.ResponseWriter, r *http.Request) {
	const name = "twilio-verify"
	if !s.twilioKnows(w, r, name) {
		return
	}
	id := r.PostFormValue("VerificationSid")
	if open := s.find(name, "", r.PostFormValue("To")); id == "" && open != nil {
		id = open.id
	}
	switch verdict, _ := s.check(name, id, r.PostFormValue("Code")); verdict {
	case right:
		answer(w, http.StatusOK, map[string]any{"sid": id, "status": "approved", "valid": true})
	case wrong:
		answer(w, http.StatusOK, map[string]any{"sid": id, "status": "pending", "valid": false})
	case exhausted:
		twilioRefuse(w, http.StatusTooManyRequests, 60202, "Five wrong codes were given already.")
	default:
		twilioRefuse(w, http.StatusNotFound, 20404, "No verification is pending: it was approved, canceled, is over or never was.")
	}
}
