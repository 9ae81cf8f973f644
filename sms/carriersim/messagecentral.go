package carriersim

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// messageCentralErrors are VerifyNow's codes for what goes wrong, with the statuses that mode "status" gives them.
var messageCentralErrors = map[string]struct {
	status, code int
	name         string
}{
	"invalid_recipient": {400, 511, "INVALID_COUNTRY_CODE"}, "rate_limited": {400, 506, "REQUEST_ALREADY_EXISTS"}, "misconfigured": {400, 400, "BAD_REQUEST"},
	"unauthorized": {401, 501, "INVALID_CUSTOMER_ID"}, "temporary": {500, 500, "SERVER_ERROR"}, "blocked_fraud": {403, 403, "FRAUD_DETECTED"},
}

// Bounds of VerifyNow.
const (
	messageCentralLock  = time.Minute // of a number, and the life of a code
	messageCentralTries = 3
	messageCentralToken = time.Hour
	messageCentralShort = 30 * time.Second
)

// messageCentralDialect speaks VerifyNow v3. The account's secret is its password, and also a token as the dashboard gives them. Words in Mode: "status" gives
// refusals statuses of their own instead of 200, "short" makes tokens that live for half a minute, "post" allows a check by POST alone, "article" takes
// JSON bodies and answers VERIFIED, as the vendor's article says.
func messageCentralDialect() dialect {
	const name = "message-central"
	return dialect{
		name:    name,
		send:    "POST /verification/v3/send",
		account: Account{ID: "C-0000000000000001", Secret: "message-central-password"},
		routes: func(s *Simulator, mux *api) {
			mux.HandleFunc("GET /auth/v1/authentication/token", s.messageCentralToken)
			mux.HandleFunc("POST /verification/v3/send", s.messageCentralSend)
			mux.HandleFunc("/verification/v3/validateOtp", func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost && (r.Method != http.MethodGet || s.messageCentralIs("post")) {
					http.Error(w, "not allowed", http.StatusMethodNotAllowed)
					return
				}
				s.messageCentralCheck(w, r, r.URL.Query())
			})
			mux.HandleFunc("POST /verification/v3/validate", func(w http.ResponseWriter, r *http.Request) {
				fields, ok := messageCentralJSON(r)
				if !ok || !s.messageCentralIs("article") {
					s.messageCentralRefuse(w, 400, 400, "BAD_REQUEST", "The body is not a JSON object, or the account's mode is not article: see /accounts.")
					return
				}
				s.messageCentralCheck(w, r, fields)
			})
		},
	}
}

func (s *Simulator) messageCentralIs(word string) bool {
	return slices.Contains(strings.Fields(s.Account("message-central").Mode), word)
}

// messageCentralJSON reads a flat JSON body as if it were a query.
func messageCentralJSON(r *http.Request) (url.Values, bool) {
	var in map[string]any
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &in) != nil {
		return nil, false
	}
	fields := url.Values{}
	for name, value := range in {
		fields.Set(name, fmt.Sprint(value))
	}
	return fields, true
}

func (s *Simulator) messageCentralRefuse(w http.ResponseWriter, status, code int, name, why string) {
	if !s.messageCentralIs("status") {
		status = http.StatusOK
	}
	answer(w, status, map[string]any{"responseCode": code, "message": name, "data": map[string]any{"responseCode": strconv.Itoa(code), "errorMessage": name, "timeout": "60"}, "hint": why})
}

// messageCentralToken makes a JWT, and refuses with HTTP 200.
func (s *Simulator) messageCentralToken(w http.ResponseWriter, r *http.Request) {
	a, q := s.Account("message-central"), r.URL.Query()
	switch {
	case q.Get("customerId") != a.ID:
		answer(w, http.StatusOK, map[string]any{"status": 400, "error": "customerId is invalid"})
		return
	case q.Get("key") != base64.StdEncoding.EncodeToString([]byte(a.Secret)), q.Get("scope") != "NEW":
		answer(w, http.StatusOK, map[string]any{"status": 400, "error": "key is invalid"})
		return
	}
	life := messageCentralToken
	if s.messageCentralIs("short") {
		life = messageCentralShort
	}
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS512"}`))
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, a.ID, s.options.Now().Add(life).Unix()))
	answer(w, http.StatusOK, map[string]any{"status": 200, "token": head + "." + claims + "." + messageCentralMAC(a.Secret, head+"."+claims)})
}

func messageCentralMAC(secret, text string) string {
	mac := hmac.New(sha512.New, []byte(secret))
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Simulator) messageCentralKnows(w http.ResponseWriter, r *http.Request) bool {
	a, token := s.Account("message-central"), r.Header.Get("authToken")
	if token == a.Secret {
		return true // the dashboard's
	}
	if parts := strings.Split(token, "."); len(parts) == 3 && parts[2] == messageCentralMAC(a.Secret, parts[0]+"."+parts[1]) {
		var claims struct {
			Exp int64 `json:"exp"`
		}
		text, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil && json.Unmarshal(text, &claims) == nil && s.options.Now().Unix() < claims.Exp {
			return true
		}
	}
	answer(w, http.StatusUnauthorized, map[string]any{"status": 401, "error": "Unauthorized", "hint": badCredentials})
	return false
}

func (s *Simulator) messageCentralSend(w http.ResponseWriter, r *http.Request) {
	const name = "message-central"
	if !s.messageCentralKnows(w, r) {
		return
	}
	q := r.URL.Query()
	if fields, ok := messageCentralJSON(r); ok && s.messageCentralIs("article") {
		q = fields
	}
	length := 4
	if given := q.Get("otpLength"); given != "" {
		length, _ = strconv.Atoi(given) //nolint:errcheck // 0 is refused
	}
	channel := map[string]string{"SMS": "sms", "WHATSAPP": "whatsapp"}[q.Get("flowType")]
	country, national := q.Get("countryCode"), q.Get("mobileNumber")
	switch {
	case country == "" || strings.Trim(country, "0123456789") != "":
		s.messageCentralRefuse(w, 400, 511, "INVALID_COUNTRY_CODE", "countryCode is not digits.")
		return
	case channel == "" || length < 4 || length > 8 || national == "" || strings.Trim(national, "0123456789") != "":
		s.messageCentralRefuse(w, 400, 400, "BAD_REQUEST", "flowType is not SMS or WHATSAPP, mobileNumber is not digits, or otpLength is not 4 to 8.")
		return
	case s.find(name, "", "+"+country+national) != nil:
		s.messageCentralRefuse(w, 400, 506, "REQUEST_ALREADY_EXISTS", "A code of this number is live: wait a minute.")
		return
	}
	open := s.open(name, "+"+country+national, "", length, messageCentralTries, messageCentralLock)
	out := s.sendCode(r, open, submission{from: "VERIFY", channel: channel})
	if out.class != "" {
		e, known := messageCentralErrors[out.class]
		if !known {
			e = messageCentralErrors["misconfigured"]
		}
		s.messageCentralRefuse(w, e.status, e.code, e.name, out.why)
		return
	}
	id, _ := strconv.Atoi(strings.TrimPrefix(open.id, name+"-session-")) //nolint:errcheck // it was made so
	answer(w, http.StatusOK, map[string]any{"responseCode": 200, "message": "SUCCESS", "data": map[string]any{
		"verificationId": id, "mobileNumber": national, "responseCode": "200", "errorMessage": nil, "timeout": "60", "smCLI": nil, "transactionId": out.m.ref,
	}})
}

func (s *Simulator) messageCentralCheck(w http.ResponseWriter, r *http.Request, q url.Values) {
	const name = "message-central"
	if !s.messageCentralKnows(w, r) {
		return
	}
	given := q.Get("verificationId")
	number, _ := strconv.Atoi(given) //nolint:errcheck // 0 is nobody's
	id := fmt.Sprintf("%s-session-%06d", name, number)
	verdict, _ := s.check(name, id, q.Get("code"))
	s.mu.Lock()
	used := verdict == gone && s.sessions[id] != nil
	s.mu.Unlock()
	switch {
	case verdict == right:
		status := "VERIFICATION_COMPLETED"
		if s.messageCentralIs("article") {
			status = "VERIFIED"
		}
		answer(w, http.StatusOK, map[string]any{"responseCode": 200, "message": "SUCCESS", "data": map[string]any{
			"verificationId": given, "responseCode": "200", "errorMessage": nil, "verificationStatus": status, "authToken": nil,
		}})
	case verdict == wrong && s.messageCentralIs("article"):
		answer(w, http.StatusOK, map[string]any{"responseCode": 200, "message": "SUCCESS", "data": map[string]any{"verificationId": given, "verificationStatus": "FAILED"}})
	case verdict == wrong:
		s.messageCentralRefuse(w, 400, 702, "WRONG_OTP_PROVIDED", "The code is wrong.")
	case verdict == expired:
		s.messageCentralRefuse(w, 400, 705, "VERIFICATION_EXPIRED", "The code lived a minute.")
	case verdict == exhausted:
		s.messageCentralRefuse(w, 400, 800, "MAXIMUM_LIMIT_REACHED", "Three wrong codes were given already.")
	case used:
		s.messageCentralRefuse(w, 400, 703, "ALREADY_VERIFIED", "The code was used.")
	default:
		s.messageCentralRefuse(w, 400, 505, "INVALID_VERIFICATION_ID", "No request of that id is open.")
	}
}
