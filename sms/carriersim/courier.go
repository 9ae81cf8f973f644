package carriersim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

func courierDialect() dialect {
	return dialect{
		name:    "courier",
		send:    "POST /send",
		account: Account{Secret: "courier-auth-token", Signing: "courier-webhook-secret"},
		routes: func(s *Simulator, mux *api) {
			mux.HandleFunc("POST /send", s.courierSend)
			mux.HandleFunc("GET /messages", s.courierList)
		},
		receipt: (*Simulator).courierReceipt,
	}
}

func courierError(w http.ResponseWriter, status int, kind, why string) {
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "2")
	}
	answer(w, status, map[string]string{"message": why, "type": kind})
}

func (s *Simulator) courierKnows(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Authorization") != "Bearer "+s.Account("courier").Secret {
		courierError(w, http.StatusUnauthorized, "authentication_error", badCredentials)
		return false
	}
	return true
}

func (s *Simulator) courierSend(w http.ResponseWriter, r *http.Request) {
	if !s.courierKnows(w, r) {
		return
	}
	var in struct {
		Message struct {
			To struct {
				Phone string         `json:"phone_number"`
				Data  map[string]any `json:"data"`
			} `json:"to"`
			Data     map[string]any `json:"data"`
			Template string         `json:"template"`
			Content  struct {
				Title *string `json:"title"`
				Body  string  `json:"body"`
			} `json:"content"`
			Routing struct {
				Channels []string `json:"channels"`
			} `json:"routing"`
			Providers map[string]struct {
				Override struct {
					Body map[string]string `json:"body"`
				} `json:"override"`
			} `json:"providers"`
			Metadata struct {
				Trace string `json:"trace_id"`
			} `json:"metadata"`
		} `json:"message"`
	}
	err := json.NewDecoder(r.Body).Decode(&in)
	m := in.Message
	if err != nil || !strings.HasPrefix(m.To.Phone, "+") || m.Template == "" && (m.Content.Title == nil || m.Content.Body == "") {
		courierError(w, http.StatusBadRequest, "invalid_request_error", "message.to.phone_number with +, and message.template, or title and body of message.content, are needed.") // before anything is kept under the key
		return
	}
	key := r.Header.Get("Idempotency-Key")
	broken := "courier answered 500 under " + key
	s.mu.Lock()
	replay := key != "" && s.tried[broken]
	s.mu.Unlock()
	if replay {
		courierError(w, http.StatusInternalServerError, "internal_error", "The first answer under this Idempotency-Key was 500, and is kept.")
		return
	}
	text := m.Content.Body
	if m.Template != "" {
		text = fmt.Sprintf("%s {{text}}", m.Template)
	}
	var pairs []string // a placeholder that nothing was given for stays
	for _, data := range []map[string]any{m.To.Data, m.Data} {
		for name, value := range data {
			pairs = append(pairs, "{{"+name+"}}", fmt.Sprint(value))
		}
	}
	from := "Courier"
	for _, field := range []string{"from", "messagingServiceSid"} {
		if sender := m.Providers["twilio"].Override.Body[field]; sender != "" {
			from = sender
		}
	}
	channel := "sms"
	if len(m.Routing.Channels) > 0 {
		channel = m.Routing.Channels[0]
	}
	out := s.submit(r, submission{vendor: "courier", to: m.To.Phone, from: from, text: strings.NewReplacer(pairs...).Replace(text), channel: channel, key: key, echo: m.Metadata.Trace})
	request := courierRequest(out.m.ref)
	switch out.class {
	case "":
	case "misconfigured":
		courierError(w, http.StatusBadRequest, "invalid_request_error", out.why)
		return
	case "unauthorized":
		courierError(w, http.StatusForbidden, "authorization_error", out.why)
		return
	case "insufficient_funds":
		courierError(w, http.StatusPaymentRequired, "billing_error", out.why)
		return
	case "rate_limited":
		courierError(w, http.StatusTooManyRequests, "rate_limit_error", out.why)
		return
	case "temporary":
		if fateOf(r).spoil == "error" { // the answer will be 500, and it is kept
			s.mu.Lock()
			s.tried[broken] = true
			s.mu.Unlock()
		}
		courierError(w, http.StatusServiceUnavailable, "internal_error", out.why)
		return
	default: // what the provider does not like shows later
		s.mu.Lock()
		s.seq++
		ref := fmt.Sprintf("courier-%06d", s.seq)
		s.mu.Unlock()
		status, reason := "UNDELIVERABLE", "PROVIDER_ERROR"
		if out.class == "recipient_opted_out" {
			status, reason = "FILTERED", "UNSUBSCRIBED"
		}
		refused := Message{To: m.To.Phone, ref: ref, echo: m.Metadata.Trace}
		fateOf(r).after = append(fateOf(r).after, func() { s.deliver(s.courierUpdate(refused, status, reason)) }) //nolint:errcheck // vendors do not mind
		request = courierRequest(ref)
	}
	answer(w, http.StatusAccepted, map[string]string{"requestId": request})
}

// courierRequest is the id of a request, which is that of its one message.
func courierRequest(ref string) string { return "1-" + ref }

func (s *Simulator) courierList(w http.ResponseWriter, r *http.Request) {
	if !s.courierKnows(w, r) {
		return
	}
	results := []map[string]any{}
	for _, m := range s.Messages("") {
		if trace := r.URL.Query().Get("traceId"); m.Vendor == "courier" && !m.Reply && (trace == "" || m.echo == trace) {
			results = append(results, courierRecord(m, strings.ToUpper(m.State), ""))
		}
	}
	answer(w, http.StatusOK, map[string]any{"paging": map[string]any{"more": false, "cursor": nil}, "results": results})
}

func courierRecord(m Message, status, reason string) map[string]any {
	at := m.At.UnixMilli()
	record := map[string]any{
		"id": courierRequest(m.ref), "status": status, "enqueued": at, "event": "", "notification": "", "recipient": "anon_" + m.ref, "trace_id": m.echo,
		"providers": []map[string]any{{"provider": "twilio", "status": status, "channel": map[string]string{"key": "sms", "name": "SMS"}}},
	}
	switch status {
	case "SENT":
		record["sent"] = at
	case "DELIVERED":
		record["sent"], record["delivered"] = at, at
	}
	if reason != "" {
		record["reason"], record["error"] = reason, "The provider refused"
	}
	return record
}

// courierReceipt reports as a workspace's webhook does, with ENQUEUED before SENT.
func (s *Simulator) courierReceipt(m Message, state string) *call {
	switch state {
	case "sent":
		s.deliver(s.courierUpdate(m, "ENQUEUED", "")) //nolint:errcheck // as above
		return s.courierUpdate(m, "SENT", "")
	case "delivered":
		return s.courierUpdate(m, "DELIVERED", "")
	case "undelivered":
		return s.courierUpdate(m, "UNDELIVERABLE", "PROVIDER_ERROR")
	default:
		return s.courierUpdate(m, "UNDELIVERABLE", "FAILED")
	}
}

// courierUpdate is signed over the milliseconds, a dot and the body.
func (s *Simulator) courierUpdate(m Message, status, reason string) *call {
	body, _ := json.Marshal(map[string]any{"type": "message:updated", "data": courierRecord(m, status, reason)}) //nolint:errcheck,errchkjson // texts and numbers
	a, at := s.Account("courier"), s.options.Now().UnixMilli()
	mac := hmac.New(sha256.New, []byte(a.Signing))
	fmt.Fprintf(mac, "%d.%s", at, body)
	return &call{method: http.MethodPost, url: a.Receipts, body: body, header: http.Header{
		"Content-Type": {"application/json"}, "Courier-Signature": {fmt.Sprintf("t=%d,signature=%s", at, hex.EncodeToString(mac.Sum(nil)))},
	}}
}
