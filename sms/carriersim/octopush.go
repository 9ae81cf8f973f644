package carriersim

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"
)

// octopushErrors are Octopush's return codes for what goes wrong, with statuses that fit them: it publishes none. Code 0 is left out of the answer.
var octopushErrors = map[string]struct {
	status, code int
}{
	"invalid_recipient": {400, 103}, "recipient_opted_out": {400, 117}, "invalid_sender": {400, 106}, "misconfigured": {400, 112}, "content_rejected": {400, 121},
	"unauthorized": {401, 101}, "insufficient_funds": {402, 104}, "rate_limited": {429, 0}, "temporary": {503, 0},
}

// octopushDialect speaks Octopush's v1. Mode "errors" refuses a repeated request_id among the errors of fields and not by its return code.
func octopushDialect() dialect {
	const name = "octopush"
	return dialect{
		name:    name,
		send:    "POST /sms-campaign/send",
		account: Account{ID: "otp@example.com", Secret: "octopush-api-key"},
		routes: func(s *Simulator, mux *api) {
			mux.HandleFunc("POST /sms-campaign/send", func(w http.ResponseWriter, r *http.Request) { s.octopushSend(w, r, "sms") })
			mux.HandleFunc("POST /vocal-campaign/send", func(w http.ResponseWriter, r *http.Request) { s.octopushSend(w, r, "voice") })
			mux.HandleFunc("GET /wallet/check-balance", func(w http.ResponseWriter, r *http.Request) {
				if s.octopushKnows(w, r) {
					answer(w, http.StatusOK, map[string]any{"amount": 99.5, "unit": "EUR"})
				}
			})
		},
		receipt: func(s *Simulator, m Message, state string) *call {
			status := map[string]string{"sent": "ACK", "delivered": "DELIVERED"}[state]
			if status == "" {
				status = "NOT_DELIVERED" // it has no word for expiry
			}
			body := map[string]any{
				"channel": m.Channel, "message_id": m.ref, "number": m.To, "status": status, "delivery_date": s.options.Now().Format("2006-01-02 15:04:05"), "list_name": "",
				"unit_price": 0.0333, "meta_data": map[string]any{},
			}
			if m.Channel == "voice" {
				body["channel"], body["pressed_keys_code"], body["call_duration"], body["charged_duration"] = "voice_sms", "", 12, 30
			}
			return octopushCall(s.Account(name).Receipts, body)
		},
		inbound: func(s *Simulator, m Message, text string) *call {
			body := map[string]any{"message_id": m.ref, "number": m.To, "text": text}
			at := s.options.Now().Format("2006-01-02 15:04:05")
			if strings.EqualFold(strings.Trim(text, " .!"), "stop") {
				body["stop_date"] = at
			} else {
				body["sim_card_number"], body["reception_date"] = "+33700000000", at
			}
			return octopushCall(s.Account(name).Inbound, body)
		},
	}
}

func octopushCall(target string, v any) *call {
	body, _ := json.Marshal(v) //nolint:errcheck,errchkjson // strings and numbers
	return &call{method: http.MethodPost, url: target, body: body, header: http.Header{"Content-Type": {"application/json"}}}
}

func octopushRefuse(w http.ResponseWriter, status, code int, why string) {
	body := map[string]any{"message": why}
	if code != 0 {
		body["code"] = code
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "2")
	}
	answer(w, status, body)
}

func (s *Simulator) octopushKnows(w http.ResponseWriter, r *http.Request) bool {
	if a := s.Account("octopush"); r.Header.Get("api-login") != a.ID || r.Header.Get("api-key") != a.Secret {
		octopushRefuse(w, http.StatusUnauthorized, 101, badCredentials)
		return false
	}
	return true
}

// octopushSender is what a sender has to look like.
var octopushSender = regexp.MustCompile(`^[[:alnum:]]{3,11}$`)

// Bounds of a campaign.
const (
	octopushRecipients = 500
	octopushText       = 1224
)

func (s *Simulator) octopushSend(w http.ResponseWriter, r *http.Request, channel string) {
	if !s.octopushKnows(w, r) {
		return
	}
	var in struct {
		Text       string `json:"text"`
		Recipients []struct {
			Number string `json:"phone_number"`
		} `json:"recipients"`
		Type       string `json:"type"`
		Purpose    string `json:"purpose"`
		Sender     string `json:"sender"`
		ID         string `json:"request_id"`
		Simulation bool   `json:"simulation_mode"`
		Gender     string `json:"voice_gender"`
		Language   string `json:"voice_language"`
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &in) != nil {
		octopushRefuse(w, http.StatusBadRequest, 100, "The body is not a JSON object of the API's form.")
		return
	}
	length := utf8.RuneCountInString(in.Text)
	types := map[string][]string{"sms": {"sms_premium", "sms_low_cost"}, "voice": {"vocal_sms", "vocal_sms"}}[channel]
	code, why := 0, ""
	switch {
	case length == 0:
		code, why = 107, "text is missing."
	case length > octopushText:
		code, why = 105, "text is too long."
	case len(in.Recipients) == 0 || len(in.Recipients) > octopushRecipients:
		code, why = 103, "recipients are not 1 to 500."
	case in.Type != types[0] && in.Type != types[1], channel == "voice" && (in.Gender == "" || !strings.Contains(in.Language, "-")):
		code, why = 112, "type is not one of "+types[0]+" and "+types[1]+", or a call lacks voice_gender or voice_language."
	case !octopushSender.MatchString(in.Sender):
		code, why = 106, "sender is not 3 to 11 letters and digits."
	case in.Purpose != "alert" && !strings.Contains(in.Text, "STOP"):
		code, why = 121, "purpose is not alert, and text lacks STOP."
	}
	for _, recipient := range in.Recipients {
		if !strings.HasPrefix(recipient.Number, "+") {
			code, why = 103, "A phone_number does not begin with +."
		}
	}
	if code != 0 {
		octopushRefuse(w, http.StatusBadRequest, code, why)
		return
	}
	prefix := map[string]string{"sms": "sms", "voice": "vocal"}[channel]
	taken := map[string]any{"number_of_contacts": len(in.Recipients), "total_cost": 0.0333 * float64(len(in.Recipients)), "number_of_sms_needed": 1, "residual_credit": 99.5}
	if in.Simulation {
		taken[prefix+"_ticket"] = prefix + "_simulation"
		answer(w, http.StatusOK, taken)
		return
	}
	for i, recipient := range in.Recipients {
		key := in.ID
		if key != "" && i > 0 {
			key += " " + recipient.Number
		}
		out := s.submit(r, submission{vendor: "octopush", to: recipient.Number, from: in.Sender, text: in.Text, channel: channel, key: key})
		switch {
		case out.repeat && s.Account("octopush").Mode == "errors":
			answer(w, http.StatusUnprocessableEntity, map[string]any{"message": "Invalid data", "errors": map[string]any{"request_id": []string{"This value is already used."}}})
			return
		case out.repeat:
			octopushRefuse(w, http.StatusBadRequest, 120, "request_id was used before.")
			return
		case out.class != "":
			e, known := octopushErrors[out.class]
			if !known {
				e = octopushErrors["misconfigured"]
			}
			octopushRefuse(w, e.status, e.code, out.why)
			return
		case i == 0:
			taken[prefix+"_ticket"] = out.m.ref
		}
	}
	answer(w, http.StatusOK, taken)
}
