package carriersim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// whatsappErrors are Meta's codes. What their statuses are nobody promises.
var whatsappErrors = map[string]struct {
	status, code int
}{
	"unauthorized": {401, 190}, "misconfigured": {404, 132001}, "rate_limited": {400, 131056}, "temporary": {500, 131000}, "recipient_unreachable": {400, 131026},
	"invalid_recipient": {400, 131026}, "recipient_opted_out": {400, 131026}, "region_blocked": {403, 130497}, "insufficient_funds": {400, 131042}, "blocked_fraud": {400, 131049},
}

// whatsappDialect is WhatsApp's Cloud API. The account's id is that of the phone number, its secret the token, its signing secret the app's. Everything goes to one
// webhook: the receipts address.
func whatsappDialect() dialect {
	return dialect{
		name:    "whatsapp",
		send:    "POST /v23.0/{account}/messages",
		replies: "receipts_url",
		account: Account{ID: "106540352242922", Secret: "whatsapp-system-user-token", Signing: "whatsapp-app-secret"},
		routes: func(s *Simulator, mux *api) {
			mux.HandleFunc("POST /{version}/{number}/messages", s.whatsappSend)
		},
		receipt: func(s *Simulator, m Message, state string) *call {
			status := map[string]any{
				"id": m.ref, "status": state, "timestamp": strconv.FormatInt(s.options.Now().Unix(), 10), "recipient_id": strings.TrimPrefix(m.To, "+"),
			}
			if m.echo != "" {
				status["biz_opaque_callback_data"] = m.echo
			}
			code := map[string]int{"undelivered": 131026, "expired": 131049}[state]
			if code != 0 {
				status["status"], status["errors"] = "failed", []map[string]any{{"code": code, "title": "Undeliverable"}}
			}
			return s.whatsappSigned(m.From, "statuses", status)
		},
		inbound: func(s *Simulator, m Message, text string) *call {
			return s.whatsappSigned(m.From, "messages", map[string]any{
				"id": fmt.Sprintf("wamid.reply-%d", m.reply), "from": strings.TrimPrefix(m.To, "+"), "type": "text", "text": map[string]string{"body": text},
				"timestamp": strconv.FormatInt(s.options.Now().Unix(), 10),
			})
		},
	}
}

func whatsappRefuse(w http.ResponseWriter, status, code int, why string) {
	answer(w, status, map[string]any{"error": map[string]any{
		"message": "(#" + strconv.Itoa(code) + ") " + why, "type": "OAuthException", "code": code, "fbtrace_id": "simulated", "error_data": map[string]string{"details": why},
	}})
}

var (
	graphVersion     = regexp.MustCompile(`^v\d+\.\d+$`)
	whatsappLanguage = regexp.MustCompile(`^[a-z]{2,3}(_[A-Z]{2})?$`)
)

func (s *Simulator) whatsappSend(w http.ResponseWriter, r *http.Request) {
	type parameters []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	var in struct {
		Product  string `json:"messaging_product"`
		To       string `json:"to"`
		Type     string `json:"type"`
		Ours     string `json:"biz_opaque_callback_data"`
		Template struct {
			Name     string `json:"name"`
			Language struct {
				Code string `json:"code"`
			} `json:"language"`
			Components []struct {
				Type       string     `json:"type"`
				SubType    string     `json:"sub_type"`
				Index      string     `json:"index"`
				Parameters parameters `json:"parameters"`
			} `json:"components"`
		} `json:"template"`
	}
	a := s.Account("whatsapp")
	if r.Header.Get("Authorization") != "Bearer "+a.Secret {
		whatsappRefuse(w, http.StatusUnauthorized, 190, badCredentials)
		return
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil || !graphVersion.MatchString(r.PathValue("version")) || r.PathValue("number") != a.ID {
		whatsappRefuse(w, http.StatusBadRequest, 100, "The path is not /v23.0/<the account's id>/messages, see /accounts, or the body is not JSON.")
		return
	}
	switch {
	case in.Product != "whatsapp" || in.To == "" || in.Template.Name == "":
		whatsappRefuse(w, http.StatusBadRequest, 131008, "messaging_product is not whatsapp, or to or template.name is missing.")
		return
	case in.Type != "template" || !vonageTo.MatchString(in.To):
		whatsappRefuse(w, http.StatusBadRequest, 100, "type is not template, or to is not a number in digits.")
		return
	case !whatsappLanguage.MatchString(in.Template.Language.Code):
		whatsappRefuse(w, http.StatusNotFound, 132001, "template.language.code is not written as en_US.")
		return
	}
	codes := map[string]string{}
	for _, c := range in.Template.Components {
		if len(c.Parameters) == 1 && c.Parameters[0].Type == "text" && (c.Type == "body" || c.Type == "button" && c.SubType == "url" && c.Index == "0") {
			codes[c.Type] = c.Parameters[0].Text
		}
	}
	code := codes["body"]
	if len(in.Template.Components) != 2 || code == "" || code != codes["button"] || len(code) > 15 {
		whatsappRefuse(w, http.StatusBadRequest, 132000, "The template takes one code of at most 15 characters, as the text of its body and of its url button 0.") // the template has other parameters
		return
	}
	out := s.submit(r, submission{
		vendor: "whatsapp", to: "+" + in.To, from: a.ID, channel: "whatsapp", text: "*" + code + "* is your verification code. For your security, do not share this code.", echo: in.Ours,
	})
	if out.class != "" {
		e, known := whatsappErrors[out.class]
		if !known {
			e.status, e.code = http.StatusBadRequest, 100
		}
		whatsappRefuse(w, e.status, e.code, out.why)
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"messaging_product": "whatsapp", "contacts": []map[string]string{{"input": in.To, "wa_id": in.To}}, "messages": []map[string]string{{"id": out.m.ref, "message_status": "accepted"}},
	})
}

// whatsappSigned posts one piece of news, signed over the body.
func (s *Simulator) whatsappSigned(phone, kind string, news map[string]any) *call {
	a := s.Account("whatsapp")
	body, _ := json.Marshal(map[string]any{ //nolint:errcheck,errchkjson // strings and numbers
		"object": "whatsapp_business_account", "entry": []map[string]any{{"id": "102290129340398", "changes": []map[string]any{{
			"field": "messages", "value": map[string]any{"messaging_product": "whatsapp", "metadata": map[string]string{"phone_number_id": phone}, kind: []any{news}},
		}}}},
	})
	mac := hmac.New(sha256.New, []byte(a.Signing))
	mac.Write(body)
	return &call{method: http.MethodPost, url: a.Receipts, body: body, header: http.Header{
		"Content-Type": {"application/json"}, "X-Hub-Signature-256": {fmt.Sprintf("sha256=%x", mac.Sum(nil))},
	}}
}
