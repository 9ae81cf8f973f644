package carriersim

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// startmessagingErrors are StartMessaging's codes for what goes wrong. Nearly all come with 400, whatever they are; article is the status that its guide gives
// them instead.
var startmessagingErrors = map[string]struct {
	status, article int
	code            string
}{
	"invalid_recipient": {400, 400, "INVALID_PHONE_NUMBER"}, "rate_limited": {400, 429, "RATE_LIMIT_EXCEEDED"}, "insufficient_funds": {400, 402, "INSUFFICIENT_BALANCE"},
	"temporary": {400, 503, "OTP_SEND_FAILED"}, "misconfigured": {400, 400, "ONBOARDING_INCOMPLETE"}, "unauthorized": {401, 401, "INVALID_API_KEY"},
}

// Bounds of StartMessaging.
const (
	startmessagingLife  = 10 * time.Minute
	startmessagingTries = 3
	startmessagingGuard = 300 * time.Second // for three texts to a number
	startmessagingTexts = 3
)

// startmessagingDialect speaks both of StartMessaging's APIs. Mode is "managed" or "message", and with a space behind it may say "idempotent", to honor
// keys, and "article", to answer as the vendor's guide says and not as its server does.
func startmessagingDialect() dialect {
	const name = "startmessaging"
	return dialect{
		name:    name,
		send:    "POST /otp/send",
		account: Account{Secret: "sm_live_startmessaging", Mode: "managed"},
		routes: func(s *Simulator, mux *api) {
			mux.HandleFunc("POST /otp/send", func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !s.startmessagingKnows(w, r):
				case s.startmessagingIs("message"):
					s.startmessagingSend(w, r)
				default:
					s.startmessagingStart(w, r)
				}
			})
			mux.HandleFunc("POST /otp/verify", func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !s.startmessagingKnows(w, r):
				case s.startmessagingIs("message"):
					s.startmessagingRefuse(w, http.StatusNotFound, "NOT_FOUND", "An account of mode message checks no codes: see mode at /accounts.")
				default:
					s.startmessagingVerify(w, r)
				}
			})
			mux.HandleFunc("GET /messages/{id}", s.startmessagingMessage)
		},
	}
}

func (s *Simulator) startmessagingIs(word string) bool {
	return slices.Contains(strings.Fields(s.Account("startmessaging").Mode), word)
}

func (s *Simulator) startmessagingRefuse(w http.ResponseWriter, status int, code, why string) {
	body := map[string]any{"success": false, "statusCode": status, "requestId": "req_trace", "timestamp": s.options.Now().UTC()}
	if s.startmessagingIs("article") {
		body["message"] = why
	} else {
		e := map[string]any{"message": why, "details": []map[string]string{{"message": why}}}
		if code != "" {
			e["code"] = code
		}
		body["error"] = e
	}
	answer(w, status, body)
}

func (s *Simulator) startmessagingFail(w http.ResponseWriter, class, why string) {
	e, known := startmessagingErrors[class]
	if !known {
		e = startmessagingErrors["misconfigured"]
	}
	if s.startmessagingIs("article") {
		e.status = e.article
	}
	s.startmessagingRefuse(w, e.status, e.code, why)
}

func (s *Simulator) startmessagingAnswer(w http.ResponseWriter, status int, data any) {
	answer(w, status, map[string]any{"success": true, "statusCode": status, "requestId": "req_trace", "timestamp": s.options.Now().UTC(), "data": data})
}

func (s *Simulator) startmessagingKnows(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("X-API-Key") != s.Account("startmessaging").Secret {
		s.startmessagingFail(w, "unauthorized", badCredentials)
		return false
	}
	return true
}

// startmessagingNumber is a mobile number of India, startmessagingCode a code that fits its templates.
var (
	startmessagingNumber = regexp.MustCompile(`^\+91[6-9]\d{9}$`)
	startmessagingCode   = regexp.MustCompile(`^\d{4,8}$`)
)

// startmessagingStart makes a code.
func (s *Simulator) startmessagingStart(w http.ResponseWriter, r *http.Request) {
	const name = "startmessaging"
	var in struct {
		Number string `json:"phoneNumber"`
		Key    string `json:"idempotencyKey"`
	}
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil || json.Unmarshal(body, &in) != nil:
		s.startmessagingRefuse(w, http.StatusBadRequest, "VALIDATION_ERROR", "The body is not JSON of the API's form.")
		return
	case !startmessagingNumber.MatchString(in.Number):
		s.startmessagingFail(w, "invalid_recipient", "phoneNumber is not a mobile number of India, +91….")
		return
	case !s.startmessagingIs("idempotent"):
		in.Key = ""
	}
	open := s.open(name, in.Number, "", 6, startmessagingTries, startmessagingLife)
	id := open.id
	out := s.sendCode(r, open, submission{from: "STRTMS", key: in.Key, echo: id})
	switch {
	case out.class != "":
		s.startmessagingFail(w, out.class, out.why)
		return
	case out.repeat:
		s.end(name, id, "canceled")
		if id = out.m.echo; out.m.To != in.Number {
			s.startmessagingRefuse(w, http.StatusConflict, "IDEMPOTENCY_CONFLICT", "idempotencyKey was used for another number.")
			return
		}
	}
	s.startmessagingAnswer(w, http.StatusCreated, map[string]any{
		"requestId": id, "expiresAt": s.options.Now().Add(startmessagingLife).UTC(), "attemptsLeft": startmessagingTries,
	})
}

func (s *Simulator) startmessagingVerify(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ID   string `json:"requestId"`
		Code string `json:"otpCode"`
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &in) != nil {
		s.startmessagingRefuse(w, http.StatusBadRequest, "VALIDATION_ERROR", "The body is not JSON of the API's form.")
		return
	}
	switch verdict, _ := s.check("startmessaging", in.ID, in.Code); verdict {
	case right:
		s.startmessagingAnswer(w, http.StatusOK, map[string]any{"verified": true})
	case gone:
		s.startmessagingRefuse(w, http.StatusNotFound, "NOT_FOUND", "No request of that id is open.")
	default:
		s.startmessagingRefuse(w, http.StatusBadRequest, "", "The code is wrong, or its time is over.") // no code of its own is known
	}
}

// startmessagingSend carries the customer's code.
func (s *Simulator) startmessagingSend(w http.ResponseWriter, r *http.Request) {
	const name = "startmessaging"
	var in struct {
		Number    string            `json:"phoneNumber"`
		Template  string            `json:"templateId"`
		Variables map[string]string `json:"variables"`
	}
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil || json.Unmarshal(body, &in) != nil || !startmessagingCode.MatchString(in.Variables["otp"]):
		s.startmessagingRefuse(w, http.StatusBadRequest, "VALIDATION_ERROR", "The body is not JSON, or variables.otp is not 4 to 8 digits.")
		return
	case !startmessagingNumber.MatchString(in.Number):
		s.startmessagingFail(w, "invalid_recipient", "phoneNumber is not a mobile number of India, +91….")
		return
	case s.startmessagingCount(in.Number) >= startmessagingTexts:
		s.startmessagingFail(w, "rate_limited", "The number had three texts in five minutes.")
		return
	}
	expiry := in.Variables["expiry"]
	if expiry == "" {
		expiry = "5"
	}
	text := strings.NewReplacer("{{otp}}", in.Variables["otp"], "{{expiry}}", expiry, "{{appName}}", in.Variables["appName"]).
		Replace("{{otp}} is your {{appName}} code. It expires in {{expiry}} minutes.")
	out := s.submit(r, submission{vendor: name, to: in.Number, from: "STRTMS", text: text})
	if out.class != "" {
		s.startmessagingFail(w, out.class, out.why)
		return
	}
	s.startmessagingAnswer(w, http.StatusCreated, map[string]any{
		"otpRequestId": "otp-" + out.m.ref, "messageId": out.m.ref, "status": "queued", "phoneNumber": in.Number, "createdAt": s.options.Now().UTC(),
	})
}

// startmessagingCount is how many texts a number had of late.
func (s *Simulator) startmessagingCount(number string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for _, m := range s.messages {
		if m.Vendor == "startmessaging" && m.To == number && !m.Reply && s.options.Now().Sub(m.At) < startmessagingGuard {
			count++
		}
	}
	return count
}

func (s *Simulator) startmessagingMessage(w http.ResponseWriter, r *http.Request) {
	if !s.startmessagingKnows(w, r) {
		return
	}
	for _, m := range s.Messages("") {
		if m.Vendor != "startmessaging" || m.ref != r.PathValue("id") || !s.startmessagingIs("message") {
			continue
		}
		history := []map[string]any{{"status": "initiated", "timestamp": m.At}, {"status": "queued", "timestamp": m.At}}
		data := map[string]any{"id": m.ref, "phoneNumber": m.To, "status": m.State, "statusHistory": history}
		switch m.State {
		case "accepted":
			data["status"] = "queued"
		case "undelivered":
			data["status"], data["failureReason"] = "failed", "Refused by the carrier"
		}
		s.startmessagingAnswer(w, http.StatusOK, data)
		return
	}
	s.startmessagingRefuse(w, http.StatusNotFound, "NOT_FOUND", "There is no message of that id, or the account is not of mode message.")
}
