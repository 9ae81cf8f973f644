package carriersim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// httpDialect is the contract that package generic speaks when nothing else is configured: JSON out, Standard Webhooks signatures both ways.
func httpDialect() dialect {
	return dialect{
		name:    "http",
		send:    "POST /send",
		account: Account{Secret: HTTPSecret},
		routes:  func(s *Simulator, mux *api) { mux.HandleFunc("POST /send", s.httpSend) },
		receipt: func(s *Simulator, m Message, state string) *call {
			return s.httpSigned(m.callback, "rcp-"+m.ref+"-"+state, map[string]any{"id": m.echo, "reference": m.ref, "state": state, "at": s.options.Now().UTC()})
		},
		inbound: func(s *Simulator, m Message, text string) *call {
			a := s.Account("http")
			target := a.Inbound
			if target == "" {
				target = m.callback
			}
			return s.httpSigned(target, "in-"+strconv.Itoa(m.reply), map[string]any{"type": "inbound", "from": m.To, "to": m.From, "text": text})
		},
	}
}

func (s *Simulator) httpSend(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ID       string `json:"id"`
		To       string `json:"to"`
		From     string `json:"from"`
		Channel  string `json:"channel"`
		Text     string `json:"text"`
		Callback string `json:"status_callback"`
	}
	body, err := io.ReadAll(r.Body)
	refuse := func(status int, code, why string) { answer(w, status, map[string]any{"code": code, "message": why}) }
	bad := err
	if bad == nil {
		bad = json.Unmarshal(body, &in)
	}
	signature := r.Header.Get("webhook-signature")
	switch {
	case bad != nil:
		refuse(http.StatusBadRequest, "rejected", "The body is not the JSON of the contract.")
		return
	case in.ID == "":
		refuse(http.StatusBadRequest, "rejected", "The field id is missing.")
		return
	case in.To == "":
		refuse(http.StatusBadRequest, "rejected", "The field to is missing.")
		return
	case signature == "" || r.Header.Get("webhook-id") == "" || r.Header.Get("webhook-timestamp") == "":
		refuse(http.StatusUnauthorized, "unauthorized", "The request is not signed: it needs the headers webhook-id, webhook-timestamp and webhook-signature.")
		return
	case signature != standardSignature(s.Account("http").Secret, r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), string(body)):
		refuse(http.StatusUnauthorized, "unauthorized", "The signature is wrong: sign id.timestamp.body with the secret of /accounts, whose base64 is decoded first.")
		return
	}
	out := s.submit(r, submission{vendor: "http", to: in.To, from: in.From, text: in.Text, channel: in.Channel, key: r.Header.Get("Idempotency-Key"), echo: in.ID, callback: in.Callback})
	codes := map[string]string{
		"recipient_opted_out": "opted_out", "recipient_unreachable": "unreachable", "blocked_fraud": "blocked", "content_rejected": "rejected", "misconfigured": "unsupported_request",
	}
	if out.class != "" {
		code := codes[out.class]
		if code == "" {
			code = out.class
		}
		refusal := map[string]any{"code": code, "message": out.why}
		if out.class == "rate_limited" {
			refusal["retry_after"] = 2
		}
		answer(w, http.StatusUnprocessableEntity, refusal)
		return
	}
	answer(w, http.StatusCreated, map[string]any{"code": "ok", "reference": out.m.ref})
}

// standardSignature is that of Standard Webhooks: v1, HMAC-SHA256 over id, timestamp and body.
func standardSignature(secret, id, timestamp, body string) string {
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_")) //nolint:errcheck // a wrong secret signs wrongly
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Simulator) httpSigned(target, id string, v any) *call {
	body, _ := json.Marshal(v) //nolint:errcheck,errchkjson // strings and times
	a, timestamp := s.Account("http"), strconv.FormatInt(s.options.Now().Unix(), 10)
	return &call{method: http.MethodPost, url: target, body: body, header: http.Header{
		"Content-Type": {"application/json"}, "Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {standardSignature(a.Secret, id, timestamp, string(body))},
	}}
}

// HTTPSecret is what the contract's requests and receipts are signed with, until another is set. It is no secret: whoever reaches the simulator reads every code.
const HTTPSecret = "whsec_c2ltdWxhdG9yLXNpbXVsYXRvci1zaW11bGF0b3I="
