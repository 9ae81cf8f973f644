package carriersim

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // one of Vonage's methods
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"hash"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// vonageStatuses are what the SMS API says in an answer whose HTTP status is 200 all the same.
var vonageStatuses = map[string]string{
	"rate_limited": "1", "misconfigured": "29", "unauthorized": "8", "temporary": "5", "invalid_recipient": "6", "recipient_opted_out": "7", "blocked_fraud": "7",
	"insufficient_funds": "9", "content_rejected": "12", "invalid_sender": "15",
}

// vonageDialect is the SMS API. The account's mode is how webhooks come and how they are signed: "json sha256", where the first is json, form or get and the
// second md5hash, md5, sha1, sha256 or sha512.
func vonageDialect() dialect {
	return dialect{
		name:    "vonage",
		send:    "POST /sms/json",
		account: Account{ID: "abcd1234", Secret: "vonage-api-secret", Signing: "vonage-signature-secret-of-the-simulator", Mode: "json sha256"},
		routes:  func(s *Simulator, mux *api) { mux.HandleFunc("POST /sms/json", s.vonageSend) },
		receipt: func(s *Simulator, m Message, state string) *call {
			status, code := state, "0"
			switch state {
			case "sent":
				status = "buffered"
			case "undelivered":
				status, code = "failed", "2"
			case "expired":
				code = "1"
			}
			target := m.callback
			if target == "" {
				target = s.Account("vonage").Receipts
			}
			return s.vonageSigned(target, map[string]string{
				"msisdn": strings.TrimPrefix(m.To, "+"), "to": m.From, "network-code": "310090", "messageId": m.ref, "price": "0.03330000", "status": status,
				"scts": s.options.Now().UTC().Format("0601021504"), "err-code": code, "client-ref": m.echo,
			})
		},
		inbound: func(s *Simulator, m Message, text string) *call {
			word, _, _ := strings.Cut(text, " ")
			return s.vonageSigned(s.Account("vonage").Inbound, map[string]string{
				"msisdn": strings.TrimPrefix(m.To, "+"), "to": m.From, "messageId": "reply-" + strconv.Itoa(m.reply), "text": text, "type": "text", "keyword": strings.ToUpper(word),
			})
		},
	}
}

// latin is what a text of type text can carry.
var latin = regexp.MustCompile(`^[\n\r -_a-z{|}~\[\]^\\¡£¤¥§¿ÄÅÆÇÉÑÖØÜßàäåæèéìñòöøùüΓΔΘΛΞΠΣΦΨΩ€]*$`)

var vonageTo = regexp.MustCompile(`^\d{7,15}$`)

func (s *Simulator) vonageSend(w http.ResponseWriter, r *http.Request) {
	say := func(message map[string]string) {
		answer(w, http.StatusOK, map[string]any{"message-count": "1", "messages": []map[string]string{message}})
	}
	refuse := func(status, why string) { say(map[string]string{"status": status, "error-text": why}) }
	if !jsonForm(r) {
		refuse("3", "The body is neither a form nor a JSON object of texts.")
		return
	}
	a := s.Account("vonage")
	to, from, text, ttl := r.PostFormValue("to"), r.PostFormValue("from"), r.PostFormValue("text"), r.PostFormValue("ttl")
	life, err := strconv.Atoi(ttl)
	callback, bad := url.Parse(r.PostFormValue("callback"))
	switch {
	case missing(r, "api_key", "api_secret", "to", "from", "text") != "":
		refuse("2", missing(r, "api_key", "api_secret", "to", "from", "text")+" is missing.")
		return
	case r.PostFormValue("api_key") != a.ID || r.PostFormValue("api_secret") != a.Secret:
		refuse("4", badCredentials)
		return
	case !vonageTo.MatchString(to):
		refuse("3", "to is not a number in digits, with country code and without +.")
		return
	case len(r.PostFormValue("client-ref")) > 40:
		refuse("3", "client-ref has more than 40 characters.")
		return
	case ttl != "" && (err != nil || life < 20000 || life > 604800000):
		refuse("3", "ttl is not from 20000 to 604800000 milliseconds.")
		return
	case bad != nil || callback.String() != "" && callback.Host == "":
		refuse("23", "callback is not a web address.")
		return
	}
	if r.PostFormValue("type") != "unicode" && !latin.MatchString(text) {
		text = strings.Map(func(c rune) rune { // what the alphabet lacks arrives as nothing anybody can read
			if latin.MatchString(string(c)) {
				return c
			}
			return '?'
		}, text)
	}
	out := s.submit(r, submission{vendor: "vonage", to: "+" + to, from: from, text: text, echo: r.PostFormValue("client-ref"), callback: callback.String()})
	if out.class != "" {
		status, known := vonageStatuses[out.class]
		if !known {
			status = "3"
		}
		refuse(status, out.why)
		return
	}
	say(map[string]string{
		"to": to, "message-id": out.m.ref, "status": "0", "remaining-balance": "3.14159265", "message-price": "0.03330000", "network": "12345", "client-ref": out.m.echo,
	})
}

// jsonForm reads a body of JSON as if it were a form: some vendors take either. It reports false for one that is neither.
func jsonForm(r *http.Request) bool {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return r.ParseForm() == nil
	}
	var fields map[string]string
	if json.NewDecoder(r.Body).Decode(&fields) != nil {
		return false
	}
	r.PostForm = url.Values{}
	for name, value := range fields {
		r.PostForm.Set(name, value)
	}
	r.Form = r.PostForm
	return true
}

// missing is the first field that a form lacks, or "".
func missing(r *http.Request, fields ...string) string {
	for _, field := range fields {
		if r.PostFormValue(field) == "" {
			return field
		}
	}
	return ""
}

// vonageSigned adds time, nonce and sig, and puts the parameters where the account wants them.
func (s *Simulator) vonageSigned(target string, fields map[string]string) *call {
	if target == "" {
		return nil
	}
	a, now := s.Account("vonage"), s.options.Now().UTC()
	fields["api-key"], fields["message-timestamp"], fields["timestamp"] = a.ID, now.Format("2006-01-02 15:04:05"), strconv.FormatInt(now.Unix(), 10)
	fields["nonce"] = uuid.NewString()
	transport, method, _ := strings.Cut(a.Mode, " ")
	fields["sig"] = vonageSignature(method, a.Signing, fields)
	form := url.Values{}
	for name, value := range fields {
		form.Set(name, value)
	}
	switch transport {
	case "get":
		return &call{method: http.MethodGet, url: target + "?" + form.Encode()}
	case "form":
		return &call{method: http.MethodPost, url: target, body: []byte(form.Encode()), header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
	}
	body, _ := json.Marshal(fields) //nolint:errcheck,errchkjson // strings
	return &call{method: http.MethodPost, url: target, body: body, header: http.Header{"Content-Type": {"application/json"}}}
}

func vonageSignature(method, secret string, fields map[string]string) string {
	pairs := make([]string, 0, len(fields))
	for name := range fields {
		pairs = append(pairs, name)
	}
	slices.Sort(pairs)
	for i, name := range pairs {
		pairs[i] = "&" + name + "=" + strings.ReplaceAll(strings.ReplaceAll(fields[name], "&", "_"), "=", "_")
	}
	text := strings.Join(pairs, "")
	hashes := map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha512": sha512.New}
	var sum hash.Hash
	switch {
	case method == "md5hash":
		sum = md5.New() //nolint:gosec // the account's method
		text += secret
	case hashes[method] != nil:
		sum = hmac.New(hashes[method], []byte(secret))
	default:
		sum = hmac.New(sha256.New, []byte(secret))
	}
	sum.Write([]byte(text))
	return strings.ToUpper(hex.EncodeToString(sum.Sum(nil)))
}

// vonageVerifyTries is how many wrong codes Verify bears here.
const vonageVerifyTries = 3

// vonageRequest is what one of Verify's requests still has to do.
type vonageRequest struct {
	token bool // the request was an application's, which is told what happens
	steps []string
	at    int
}

// vonageVerify is Verify v2. Its callbacks go to the account's receipts address, for requests that were authenticated with a JWT; the account's public
// key is the application's.
type vonageVerify struct {
	mu       sync.Mutex
	requests map[string]*vonageRequest // as many as the simulator has sessions
}

func vonageVerifyDialect() dialect {
	const name = "vonage-verify"
	v := &vonageVerify{requests: map[string]*vonageRequest{}}
	return dialect{
		name:    name,
		send:    "POST /v2/verify",
		account: Account{ID: "abcd1234", Secret: "vonage-api-secret", Signing: "vonage-signature-secret-of-the-simulator"},
		routes: func(s *Simulator, mux *api) {
			route := func(pattern string, h func(s *Simulator, w http.ResponseWriter, r *http.Request, token bool)) {
				mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
					token, known := s.vonageKnows(r)
					if !known {
						vonageProblem(w, http.StatusUnauthorized, "unauthorized", badCredentials+" A JWT is checked with the account's public_key.", nil)
						return
					}
					h(s, w, r, token)
				})
			}
			route("POST /v2/verify", v.start)
			route("POST /v2/verify/{id}", v.check)
			route("POST /v2/verify/{id}/next_workflow", v.next)
			route("DELETE /v2/verify/{id}", func(s *Simulator, w http.ResponseWriter, r *http.Request, _ bool) {
				if !s.end(name, r.PathValue("id"), "canceled") {
					vonageProblem(w, http.StatusNotFound, "not-found", "No request of that id is open.", nil)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			})
		},
		receipt: func(s *Simulator, m Message, state string) *call {
			switch state {
			case "undelivered":
				return v.callback(s, m.echo, map[string]any{"type": "event", "channel": m.Channel, "status": "failed"})
			case "expired":
				s.end(name, m.echo, "expired")
				return v.callback(s, m.echo, map[string]any{
					"type": "summary", "status": "expired", "workflow": []map[string]string{{"channel": m.Channel, "status": "expired", "initiated_at": m.At.Format(time.RFC3339)}},
				})
			}
			return nil // of what went well nothing is told before the code comes back
		},
	}
}

func vonageProblem(w http.ResponseWriter, status int, kind, why string, more map[string]any) {
	body := map[string]any{"title": kind, "type": "https://developer.vonage.com/api-errors/verify#" + kind, "detail": why, "instance": uuid.NewString()}
	for name, value := range more {
		body[name] = value
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "2")
	}
	answer(w, status, body)
}

// vonageKnows checks who calls: by Basic authentication, or by a JWT of the application's.
func (s *Simulator) vonageKnows(r *http.Request) (token, known bool) {
	a := s.Account("vonage-verify")
	if user, password, basic := r.BasicAuth(); basic {
		return false, user == a.ID && password == a.Secret
	}
	text, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	segments := strings.Split(text, ".")
	block, _ := pem.Decode([]byte(a.PublicKey))
	if !bearer || len(segments) != 3 || block == nil {
		return true, false
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, isRSA := parsed.(*rsa.PublicKey)
	if err != nil || !isRSA {
		return true, false
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	var claims struct {
		Application string `json:"application_id"`
		Issued      int64  `json:"iat"`
		Expires     int64  `json:"exp"`
		ID          string `json:"jti"`
	}
	signature, err := base64.RawURLEncoding.DecodeString(segments[2])
	if err != nil || !segment(segments[0], &header) || !segment(segments[1], &claims) || header.Algorithm != "RS256" {
		return true, false
	}
	sum := sha256.Sum256([]byte(segments[0] + "." + segments[1]))
	now := s.options.Now().Unix()
	return true, rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil && claims.Application != "" && claims.ID != "" && claims.Issued <= now+60 && claims.Expires > now
}

// segment reads one part of a JWT.
func segment(text string, v any) bool {
	data, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil && json.Unmarshal(data, v) == nil
}

var (
	vonageLocale = regexp.MustCompile(`^[a-z]{2,3}-[a-z]{2}$`)
	vonageCode   = regexp.MustCompile(`^[0-9A-Za-z]{4,10}$`)
)

func (v *vonageVerify) start(s *Simulator, w http.ResponseWriter, r *http.Request, token bool) {
	const name = "vonage-verify"
	var in struct {
		Brand    string `json:"brand"`
		Locale   string `json:"locale"`
		Timeout  int    `json:"channel_timeout"`
		Length   int    `json:"code_length"`
		Code     string `json:"code"`
		Workflow []struct {
			Channel string `json:"channel"`
			To      string `json:"to"`
			From    string `json:"from"`
		} `json:"workflow"`
	}
	wrong := func(parameter string) {
		vonageProblem(w, http.StatusUnprocessableEntity, "invalid-params", parameter+" is missing or not as the API takes it.", map[string]any{"invalid_parameters": []map[string]string{{"name": parameter, "reason": "Invalid."}}})
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		wrong("body")
		return
	}
	if in.Length == 0 {
		in.Length = 4
	}
	if in.Timeout == 0 {
		in.Timeout = 180
	}
	switch {
	case in.Brand == "":
		wrong("brand")
		return
	case in.Locale != "" && !vonageLocale.MatchString(in.Locale):
		wrong("locale")
		return
	case in.Timeout < 15 || in.Timeout > 900:
		wrong("channel_timeout")
		return
	case in.Code != "" && !vonageCode.MatchString(in.Code):
		wrong("code")
		return
	case in.Length < 4 || in.Length > 10:
		wrong("code_length")
		return
	case len(in.Workflow) == 0:
		wrong("workflow")
		return
	}
	request := &vonageRequest{token: token}
	for _, step := range in.Workflow {
		switch {
		case step.Channel != "sms" && step.Channel != "whatsapp" && step.Channel != "voice":
			wrong("workflow.channel")
			return
		case !vonageTo.MatchString(step.To) || step.To != in.Workflow[0].To:
			wrong("workflow.to")
			return
		}
		request.steps = append(request.steps, step.Channel)
	}
	to := "+" + in.Workflow[0].To
	if open := s.find(name, "", to); open != nil {
		vonageProblem(w, http.StatusConflict, "conflict", "A request to this number is open.", map[string]any{"request_id": open.id})
		return
	}
	open := s.open(name, to, in.Code, in.Length, vonageVerifyTries, time.Duration(in.Timeout*len(in.Workflow))*time.Second)
	v.keep(s, open.id, request)
	out := s.sendCode(r, open, submission{from: in.Brand, channel: request.steps[0], echo: open.id})
	refusals := map[string]struct {
		status    int
		kind      string
		parameter string
	}{
		"invalid_recipient": {422, "invalid-params", "workflow.to"}, "misconfigured": {422, "invalid-params", "workflow.from"}, "rate_limited": {429, "throttled", ""},
		"insufficient_funds": {402, "low-balance", ""}, "temporary": {503, "unavailable", ""}, "unauthorized": {401, "unauthorized", ""},
	}
	if out.class != "" {
		switch refusal, known := refusals[out.class]; {
		case !known:
			vonageProblem(w, http.StatusForbidden, "forbidden", out.why, nil)
		case refusal.parameter != "":
			wrong(refusal.parameter)
		default:
			vonageProblem(w, refusal.status, refusal.kind, out.why, nil)
		}
		return
	}
	answer(w, http.StatusAccepted, map[string]string{"request_id": open.id})
}

// keep remembers a request, and forgets those whose sessions are gone.
func (v *vonageVerify) keep(s *Simulator, id string, request *vonageRequest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.requests) > 2*maxSessions {
		s.mu.Lock()
		for old := range v.requests {
			if s.sessions[old] == nil {
				delete(v.requests, old)
			}
		}
		s.mu.Unlock()
	}
	v.requests[id] = request
}

// request gives a copy.
func (v *vonageVerify) request(id string) vonageRequest {
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.requests[id]; known != nil {
		return *known
	}
	return vonageRequest{steps: []string{"sms"}}
}

func (v *vonageVerify) next(s *Simulator, w http.ResponseWriter, r *http.Request, _ bool) {
	id := r.PathValue("id")
	open := s.find("vonage-verify", id, "")
	if open == nil {
		vonageProblem(w, http.StatusNotFound, "not-found", "No request of that id is open.", nil)
		return
	}
	v.mu.Lock()
	known := v.requests[id]
	if known == nil || known.at+1 >= len(known.steps) {
		v.mu.Unlock()
		vonageProblem(w, http.StatusConflict, "no-events", "The request has no further channel.", nil)
		return
	}
	known.at++
	channel := known.steps[known.at]
	v.mu.Unlock()
	if out := s.sendCode(r, open, submission{from: "Verify", channel: channel, echo: id}); out.class != "" {
		vonageProblem(w, http.StatusForbidden, "forbidden", out.why, nil)
		return
	}
	answer(w, http.StatusOK, map[string]string{})
}

func (v *vonageVerify) check(s *Simulator, w http.ResponseWriter, r *http.Request, _ bool) {
	var in struct {
		Code string `json:"code"`
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil || !vonageCode.MatchString(in.Code) {
		vonageProblem(w, http.StatusUnprocessableEntity, "invalid-params", "code is not 4 to 10 digits and letters.", map[string]any{"invalid_parameters": []map[string]string{{"name": "code", "reason": "Invalid."}}})
		return
	}
	id := r.PathValue("id")
	switch verdict, left := s.check("vonage-verify", id, in.Code); {
	case verdict == right:
		request := v.request(id)
		told := []map[string]any{
			{"type": "event", "channel": request.steps[request.at], "status": "completed"},
			{"type": "summary", "status": "completed", "workflow": v.summary(request)},
		}
		fate := fateOf(r)
		fate.after = append(fate.after, func() {
			for _, news := range told {
				s.deliver(v.callback(s, id, news)) //nolint:errcheck // vendors do not mind
			}
		})
		answer(w, http.StatusOK, map[string]string{"request_id": id, "status": "completed"})
	case verdict == wrong && left > 0:
		vonageProblem(w, http.StatusBadRequest, "invalid-code", "The code is wrong.", nil)
	case verdict == wrong || verdict == exhausted:
		s.end("vonage-verify", id, "failed")
		vonageProblem(w, http.StatusGone, "expired", "Too many wrong codes were given.", nil)
	default:
		vonageProblem(w, http.StatusNotFound, "not-found", "No request of that id is open.", nil)
	}
}

// summary of a request that was completed.
func (*vonageVerify) summary(request vonageRequest) []map[string]string {
	var steps []map[string]string
	for i, channel := range request.steps {
		status := "unused"
		switch {
		case i < request.at:
			status = "expired"
		case i == request.at:
			status = "completed"
		}
		steps = append(steps, map[string]string{"channel": channel, "status": status})
	}
	return steps
}

// callback tells an application, with a JWT of HS256 over the hash of the body; nil for requests that were not an application's.
func (v *vonageVerify) callback(s *Simulator, id string, news map[string]any) *call {
	if !v.request(id).token {
		return nil
	}
	a, now := s.Account("vonage-verify"), s.options.Now().UTC()
	news["request_id"] = id
	news["triggered_at"], news["finalized_at"] = now.Format(time.RFC3339), now.Format(time.RFC3339)
	body, _ := json.Marshal(news) //nolint:errcheck,errchkjson // strings
	sum := sha256.Sum256(body)
	claims, _ := json.Marshal(map[string]any{ //nolint:errcheck,errchkjson // strings and numbers
		"iat": now.Unix(), "jti": rand.Text(), "iss": "Vonage", "payload_hash": hex.EncodeToString(sum[:]), "api_key": a.ID,
	})
	var token bytes.Buffer
	token.WriteString(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims))
	mac := hmac.New(sha256.New, []byte(a.Signing))
	mac.Write(token.Bytes())
	token.WriteString("." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	return &call{method: http.MethodPost, url: a.Receipts, body: body, header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token.String()}}}
}
