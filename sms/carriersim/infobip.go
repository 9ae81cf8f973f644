package carriersim

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Infobip offers it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// infobipRejections are the statuses of group 5 that a text is refused with, in an answer that is 200.
var infobipRejections = map[string]struct {
	id   int
	name string
}{
	"invalid_recipient": {52, "REJECTED_DESTINATION"}, "recipient_opted_out": {14, "REJECTED_DESTINATION_BLOCKED"}, "invalid_sender": {13, "REJECTED_SENDER"},
	"content_rejected": {25, "REJECTED_MESSAGE_TOO_LONG"}, "insufficient_funds": {12, "REJECTED_NOT_ENOUGH_CREDITS"},
	"misconfigured": {18, "REJECTED_DESTINATION_NOT_REGISTERED"}, "region_blocked": {19, "REJECTED_ROUTE_NOT_AVAILABLE"}, "temporary": {21, "REJECTED_SYSTEM_ERROR"},
	"blocked_fraud": {87, "REJECTED_SIGNALS"},
}

func infobipDialect() dialect {
	return dialect{
		name:    "infobip",
		send:    "POST /sms/3/messages",
		account: Account{ID: "infobip", Secret: "infobip-api-key"},
		routes: func(s *Simulator, mux *api) {
			mux.HandleFunc("POST /sms/3/messages", s.infobipSend)
		},
		receipt: (*Simulator).infobipReceipt,
		inbound: (*Simulator).infobipInbound,
	}
}

// infobipSMSError is how the SMS API refuses; the 2FA API does it otherwise.
func infobipSMSError(w http.ResponseWriter, status int, why string, violations ...map[string]string) {
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "2")
	}
	if violations == nil {
		violations = []map[string]string{}
	}
	answer(w, status, map[string]any{"errorCode": "E" + strconv.Itoa(status), "description": why, "action": "See the documentation.", "violations": violations, "resources": []any{}})
}

func infobipStatus(group, id int, name string) map[string]any {
	groups := []string{"OK", "PENDING", "UNDELIVERABLE", "DELIVERED", "EXPIRED", "REJECTED"}
	return map[string]any{"groupId": group, "groupName": groups[group], "id": id, "name": name, "description": "Message status"}
}

func (s *Simulator) infobipKnows(r *http.Request, vendor string) bool {
	return r.Header.Get("Authorization") == "App "+s.Account(vendor).Secret
}

func (s *Simulator) infobipSend(w http.ResponseWriter, r *http.Request) {
	if !s.infobipKnows(r, "infobip") {
		infobipSMSError(w, http.StatusUnauthorized, badCredentials)
		return
	}
	var in struct {
		Messages []struct {
			Sender       string `json:"sender"`
			Destinations []struct {
				To        string `json:"to"`
				MessageID string `json:"messageId"`
			} `json:"destinations"`
			Content struct {
				Text string `json:"text"`
			} `json:"content"`
			Options struct {
				ValidityPeriod *struct {
					Amount   int    `json:"amount"`
					TimeUnit string `json:"timeUnit"`
				} `json:"validityPeriod"`
			} `json:"options"`
			Webhooks struct {
				Delivery struct {
					URL string `json:"url"`
				} `json:"delivery"`
				CallbackData string `json:"callbackData"`
			} `json:"webhooks"`
		} `json:"messages"`
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil || len(in.Messages) == 0 {
		infobipSMSError(w, http.StatusBadRequest, "See the violations.", map[string]string{"property": "messages", "violation": "must not be empty"})
		return
	}
	results := []map[string]any{}
	for _, m := range in.Messages {
		switch v := m.Options.ValidityPeriod; {
		case m.Content.Text == "":
			infobipSMSError(w, http.StatusBadRequest, "See the violations.", map[string]string{"property": "messages[0].content.text", "violation": "must not be blank"})
			return
		case len(m.Destinations) == 0:
			infobipSMSError(w, http.StatusBadRequest, "See the violations.", map[string]string{"property": "messages[0].destinations", "violation": "must not be empty"})
			return
		case v != nil && (v.Amount < 1 || v.TimeUnit != "SECONDS" && v.TimeUnit != "MINUTES" && v.TimeUnit != "HOURS"):
			infobipSMSError(w, http.StatusBadRequest, "See the violations.", map[string]string{"property": "messages[0].options.validityPeriod", "violation": "is not a period"})
			return
		}
		for _, to := range m.Destinations {
			if strings.Trim(to.To, "0123456789") != "" || len(to.To) < 7 { // with a plus, say
				infobipSMSError(w, http.StatusBadRequest, "See the violations.", map[string]string{"property": "messages[0].destinations[0].to", "violation": "is not a number"})
				return
			}
			out := s.submit(r, submission{
				vendor: "infobip", to: "+" + to.To, from: m.Sender, text: m.Content.Text, key: to.MessageID, echo: m.Webhooks.CallbackData, callback: m.Webhooks.Delivery.URL,
			})
			state := infobipStatus(1, 26, "PENDING_ACCEPTED")
			switch rejection, known := infobipRejections[out.class]; {
			case out.class == "rate_limited", out.class == "unauthorized":
				infobipSMSError(w, map[string]int{"rate_limited": http.StatusTooManyRequests, "unauthorized": http.StatusForbidden}[out.class], out.why)
				return
			case out.class != "" && !known:
				infobipSMSError(w, http.StatusBadRequest, out.why)
				return
			case out.class != "":
				state = infobipStatus(5, rejection.id, rejection.name)
				state["description"] = out.why
			case out.repeat:
				state = infobipStatus(5, 23, "REJECTED_DUPLICATE_MESSAGE_ID")
			}
			id := to.MessageID
			if id == "" {
				id = out.m.ref
			}
			results = append(results, map[string]any{"messageId": id, "destination": to.To, "status": state, "details": map[string]any{"messageCount": 1}})
		}
	}
	answer(w, http.StatusOK, map[string]any{"bulkId": "bulk-" + strconv.FormatInt(s.options.Now().UnixNano(), 10), "messages": results})
}

// infobipReceipt reports as the v3 webhook does: several results in one POST, and the operator's word before the handset's.
func (s *Simulator) infobipReceipt(m Message, state string) *call {
	statuses := map[string][]map[string]any{
		"sent":        {infobipStatus(1, 26, "PENDING_ACCEPTED"), infobipStatus(3, 2, "DELIVERED_TO_OPERATOR")},
		"delivered":   {infobipStatus(3, 5, "DELIVERED_TO_HANDSET")},
		"undelivered": {infobipStatus(2, 4, "UNDELIVERABLE_REJECTED_OPERATOR")},
		"expired":     {infobipStatus(4, 15, "EXPIRED_EXPIRED")},
	}
	failure := map[string]any{"groupId": 0, "groupName": "OK", "id": 0, "name": "NO_ERROR", "description": "No Error", "permanent": false}
	if state == "undelivered" {
		failure = map[string]any{"groupId": 1, "groupName": "HANDSET_ERRORS", "id": 27, "name": "EC_ABSENT_SUBSCRIBER", "description": "Absent subscriber", "permanent": false}
	}
	at := s.options.Now().Format("2006-01-02T15:04:05.000-0700")
	results := []map[string]any{}
	for _, status := range statuses[state] {
		results = append(results, map[string]any{
			"bulkId": "bulk-" + m.ref, "messageId": m.ID, "to": strings.TrimPrefix(m.To, "+"), "sender": m.From, "sentAt": at, "doneAt": at, "messageCount": 1,
			"callbackData": m.echo, "price": map[string]any{"pricePerMessage": 0.01, "currency": "EUR"}, "status": status, "error": failure,
			"platform": map[string]any{"entityId": "", "applicationId": ""},
		})
	}
	return s.infobipCall(m.callback, map[string]any{"results": results})
}

func (s *Simulator) infobipInbound(m Message, text string) *call {
	keyword, rest, _ := strings.Cut(text, " ")
	return s.infobipCall(s.Account("infobip").Inbound, map[string]any{"messageCount": 1, "pendingMessageCount": 0, "results": []map[string]any{{
		"messageId": "in-" + strconv.Itoa(m.reply), "from": strings.TrimPrefix(m.To, "+"), "to": m.From, "text": text, "cleanText": rest, "keyword": keyword,
		"receivedAt": s.options.Now().Format("2006-01-02T15:04:05.000-0700"), "smsCount": 1, "callbackData": m.echo,
		"price": map[string]any{"pricePerMessage": 0, "currency": "EUR"},
	}}})
}

// infobipCall signs where the account has a signing secret, under X-Signature. Mode is the algorithm and the encoding: "sha512/base64". Default sha256/hex.
func (s *Simulator) infobipCall(target string, v any) *call {
	body, _ := json.Marshal(v) //nolint:errcheck,errchkjson // texts and numbers
	c := &call{method: http.MethodPost, url: target, body: body, header: http.Header{"Content-Type": {"application/json"}}}
	a := s.Account("infobip")
	if a.Signing == "" {
		return c
	}
	algorithm, encoding, _ := strings.Cut(a.Mode, "/")
	hashes := map[string]func() hash.Hash{"sha1": sha1.New, "sha224": sha256.New224, "sha384": sha512.New384, "sha512": sha512.New}
	chosen := hashes[algorithm]
	if chosen == nil {
		chosen = sha256.New
	}
	mac := hmac.New(chosen, []byte(a.Signing))
	mac.Write(body)
	signature := hex.EncodeToString(mac.Sum(nil))
	if encoding == "base64" {
		signature = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	c.header.Set("X-Signature", signature)
	return c
}

// infobipLife and infobipTries are what the 2FA application of the account is set to.
const (
	infobipLife  = 5 * time.Minute
	infobipTries = 3
)

// infobip2FADialect is the 2FA API. The account's id is that of its application; any template does.
func infobip2FADialect() dialect {
	const name = "infobip-2fa"
	return dialect{
		name:    name,
		send:    "POST /2fa/2/pin",
		account: Account{ID: "1234567", Secret: "infobip-api-key"},
		routes: func(s *Simulator, mux *api) {
			guarded := func(work http.HandlerFunc) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					if !s.infobipKnows(r, name) {
						infobipPINError(w, http.StatusUnauthorized, "UNAUTHORIZED", "", badCredentials)
						return
					}
					work(w, r)
				}
			}
			mux.HandleFunc("POST /2fa/2/applications", guarded(func(w http.ResponseWriter, r *http.Request) {
				s.infobipCreated(w, r, http.StatusCreated, "applicationId", s.Account(name).ID)
			}))
			mux.HandleFunc("POST /2fa/2/applications/{application}/messages", guarded(func(w http.ResponseWriter, r *http.Request) {
				s.infobipCreated(w, r, http.StatusOK, "messageId", "7654321")
			}))
			mux.HandleFunc("POST /2fa/2/pin", guarded(s.infobipPIN))
			mux.HandleFunc("POST /2fa/2/pin/voice", guarded(s.infobipPIN))
			mux.HandleFunc("POST /2fa/2/pin/{id}/resend", guarded(s.infobipPIN))
			mux.HandleFunc("POST /2fa/2/pin/{id}/resend/voice", guarded(s.infobipPIN))
			mux.HandleFunc("POST /2fa/2/pin/{id}/verify", guarded(s.infobipVerify))
		},
	}
}

// infobipPINError is how the 2FA API refuses, for a field if one is named.
func infobipPINError(w http.ResponseWriter, status int, id, field, why string) {
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "2")
	}
	exception := map[string]any{"messageId": id, "text": why}
	if field != "" {
		exception["validationErrors"] = map[string][]string{field: {"is not valid"}}
	}
	answer(w, status, map[string]any{"requestError": map[string]any{"serviceException": exception}})
}

// infobipCreated gives back what was to be created, with an id.
func (*Simulator) infobipCreated(w http.ResponseWriter, r *http.Request, status int, key, id string) {
	var in map[string]any
	if json.NewDecoder(r.Body).Decode(&in) != nil || in == nil {
		infobipPINError(w, http.StatusBadRequest, "BAD_REQUEST", "", "The body is not a JSON object.")
		return
	}
	in[key] = id
	if key == "messageId" {
		in["pinPlaceholder"] = "{{pin}}"
	}
	answer(w, status, in)
}

// infobipPIN sends a PIN, or one that there is again: by text, or, where the path ends so, by voice.
func (s *Simulator) infobipPIN(w http.ResponseWriter, r *http.Request) {
	const name = "infobip-2fa"
	var in struct {
		Application string `json:"applicationId"`
		Message     string `json:"messageId"`
		From        string `json:"from"`
		To          string `json:"to"`
		Track       bool   `json:"trackDelivery"`
	}
	id := r.PathValue("id")
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil && id == "" {
		infobipPINError(w, http.StatusBadRequest, "BAD_REQUEST", "", "The body is not a JSON object.")
		return
	}
	var open *session
	switch {
	case id != "":
		if open = s.find(name, id, ""); open == nil {
			infobipPINError(w, http.StatusNotFound, "NOT_FOUND", "", "No PIN of that id is open.")
			return
		}
	case in.Application != s.Account(name).ID || in.Message == "":
		infobipPINError(w, http.StatusNotFound, "NOT_FOUND", "", "applicationId is not the account's id, see /accounts, or messageId is missing.")
		return
	case strings.Trim(in.To, "0123456789") != "" || len(in.To) < 7:
		infobipPINError(w, http.StatusBadRequest, "BAD_REQUEST", "to", "to is not a number in digits, with country code and without +.")
		return
	default:
		open = s.open(name, "+"+in.To, "", 6, infobipTries, infobipLife)
	}
	channel, done, failed := "sms", "MESSAGE_SENT", "MESSAGE_NOT_SENT"
	if strings.HasSuffix(r.URL.Path, "/voice") {
		channel, done, failed = "voice", "PENDING_ACCEPTED", "UNDELIVERABLE_NOT_DELIVERED"
	}
	if in.From == "" {
		in.From = "Verify"
	}
	out := s.sendCode(r, open, submission{from: in.From, channel: channel})
	refusals := map[string]struct {
		status    int
		id, field string
	}{
		"invalid_recipient": {400, "BAD_REQUEST", "to"}, "invalid_sender": {400, "BAD_REQUEST", "from"}, "misconfigured": {400, "BAD_REQUEST", ""},
		"unauthorized": {403, "FORBIDDEN", ""}, "rate_limited": {429, "TOO_MANY_REQUESTS", ""}, "temporary": {503, "GENERAL_ERROR", ""},
	}
	if refusal, known := refusals[out.class]; known {
		infobipPINError(w, refusal.status, refusal.id, refusal.field, out.why)
		return
	}
	if out.class != "" {
		done = failed // with 200
	}
	sent := map[string]any{"pinId": open.id, "to": strings.TrimPrefix(open.to, "+")}
	if channel == "voice" {
		sent["callStatus"] = done
	} else {
		sent["smsStatus"] = done
		if r.URL.Query().Get("ncNeeded") != "false" {
			sent["ncStatus"] = "NC_DESTINATION_REACHABLE"
		}
		if in.Track {
			sent["externalMessageId"] = out.m.ref
		}
	}
	answer(w, http.StatusOK, sent)
}

func (s *Simulator) infobipVerify(w http.ResponseWriter, r *http.Request) {
	var in struct {
		PIN string `json:"pin"`
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.PIN == "" {
		infobipPINError(w, http.StatusBadRequest, "BAD_REQUEST", "pin", "pin is missing.")
		return
	}
	id := r.PathValue("id")
	verdict, left := s.check("infobip-2fa", id, in.PIN)
	checked := map[string]any{"pinId": id, "verified": verdict == right, "attemptsRemaining": left}
	switch verdict {
	case right:
	case wrong:
		checked["pinError"] = "WRONG_PIN"
	case exhausted:
		checked["pinError"] = "NO_MORE_PIN_ATTEMPTS"
	default: // unknown, used or too late
		infobipPINError(w, http.StatusNotFound, "NOT_FOUND", "", "No PIN of that id is open: it was used, is over or never was.")
		return
	}
	answer(w, http.StatusOK, checked)
}
