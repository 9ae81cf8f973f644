// Package carriersim is a carrier on your desk: a server that takes texts as a vendor does, shows them as phones would, and fails on
// demand. The development server and the tests send through it, over HTTP and with the real worker.
//
// Its API as a vendor, spoken by [Vendor]:
//
//	POST /send   {"id","to","text"} → 201 {"ref"}; the same id again gives the same answer and sends nothing
//	             failures: 4xx or 5xx {"class","code","retry_after"}, with a class of package sms
//
// For people and scripts:
//
//	GET    /                      the inbox, live
//	GET    /messages?to=+1202…    what arrived, the newest first
//	DELETE /messages              empties the inbox
//	GET    /faults, POST /faults  what fails next, see [Faults]
//
// As with vendors' own sandboxes, the last three digits of a number decide what happens to it; see [Simulator]. Everything is in memory and bounded: when it is
// full the oldest text goes. It must not be reachable from outside: it shows codes.
package carriersim

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Bounds of what is kept and read.
const (
	maxMessages = 1000
	maxBody     = 8 << 10
	maxWatchers = 64
)

// Message is a text that arrived.
type Message struct {
	ID     string    `json:"id"`
	To     string    `json:"to"`
	Text   string    `json:"text"`
	Vendor string    `json:"vendor"`
	State  string    `json:"state"` // "delivered", "undelivered"
	At     time.Time `json:"at"`
}

// Faults say what goes wrong next.
type Faults struct {
	// Outage answers everything with 503.
	Outage bool `json:"outage"`
	// Fail is how many of the next texts are refused with Class.
	Fail  int    `json:"fail"`
	Class string `json:"class"`
	// Drop is how many of the next texts are taken while the connection is cut before the answer.
	Drop int `json:"drop"`
	// DelayMS is how long every answer waits, in milliseconds; at most 30,000.
	DelayMS int `json:"delay_ms"`
}

// Simulator is the server. Make one with [New].
//
// The last three digits of a number decide: 001 invalid recipient, 002 opted out, 003 rate limited, 004 taken but never
// delivered, 006 refused at first and then taken, 007 taken but the connection drops, 008 blocked as fraud.
type Simulator struct {
	now func() time.Time

	mu       sync.Mutex
	messages []Message // the oldest first
	refs     map[string]string
	tried    map[string]bool
	faults   Faults
	watchers map[chan struct{}]bool
	mux      *http.ServeMux
}

// New makes an empty simulator. now is its clock.
func New(now func() time.Time) *Simulator {
	s := &Simulator{now: now, refs: map[string]string{}, tried: map[string]bool{}, watchers: map[chan struct{}]bool{}, mux: http.NewServeMux()}
	s.mux.HandleFunc("POST /send", s.send)
	s.mux.HandleFunc("GET /messages", s.list)
	s.mux.HandleFunc("DELETE /messages", s.clear)
	s.mux.HandleFunc("GET /faults", s.getFaults)
	s.mux.HandleFunc("POST /faults", s.setFaults)
	s.mux.HandleFunc("GET /events", s.events)
	s.mux.HandleFunc("GET /{$}", s.inbox)
	s.mux.HandleFunc("GET /assets/{name}", s.asset)
	return s
}

// ServeHTTP implements http.Handler.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.mux.ServeHTTP(w, r)
}

// Messages lists what arrived for a number, the newest first; for all numbers when to is empty.
func (s *Simulator) Messages(to string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []Message{}
	for i := len(s.messages) - 1; i >= 0; i-- {
		if to == "" || s.messages[i].To == to {
			found = append(found, s.messages[i])
		}
	}
	return found
}

// SetFaults says what goes wrong next.
func (s *Simulator) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// sendRequest is the body of POST /send.
type sendRequest struct {
	ID   string `json:"id"`
	To   string `json:"to"`
	Text string `json:"text"`
}

// failure is the body of a refusal.
type failure struct {
	Class      string `json:"class"`
	Code       string `json:"code"`
	RetryAfter int    `json:"retry_after,omitempty"` // seconds
}

func (s *Simulator) send(w http.ResponseWriter, r *http.Request) {
	var in sendRequest
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil || in.ID == "" || !strings.HasPrefix(in.To, "+") || in.Text == "" {
		answer(w, http.StatusBadRequest, failure{Class: "misconfigured", Code: "bad_request"})
		return
	}
	ref, status, refused, drop, delay := s.take(in)
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	switch {
	case drop:
		panic(http.ErrAbortHandler) // the connection is cut without an answer
	case refused != nil:
		answer(w, status, refused)
	default:
		answer(w, http.StatusCreated, map[string]string{"ref": ref})
	}
}

// take decides what happens to a text.
func (s *Simulator) take(in sendRequest) (ref string, status int, refused *failure, drop bool, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delay = min(time.Duration(s.faults.DelayMS)*time.Millisecond, 30*time.Second)
	if s.faults.Outage {
		return "", http.StatusServiceUnavailable, &failure{Class: "temporary", Code: "outage"}, false, delay
	}
	if ref, again := s.refs[in.ID]; again {
		return ref, 0, nil, false, delay
	}
	if s.faults.Fail > 0 {
		s.faults.Fail--
		return "", http.StatusUnprocessableEntity, &failure{Class: s.faults.Class, Code: "asked_for"}, false, delay
	}
	state := "delivered"
	switch in.To[max(0, len(in.To)-3):] {
	case "001":
		return "", http.StatusBadRequest, &failure{Class: "invalid_recipient", Code: "001"}, false, delay
	case "002":
		return "", http.StatusForbidden, &failure{Class: "recipient_opted_out", Code: "002"}, false, delay
	case "003":
		return "", http.StatusTooManyRequests, &failure{Class: "rate_limited", Code: "003", RetryAfter: 2}, false, delay
	case "004":
		state = "undelivered"
	case "006":
		if !s.tried[in.To] {
			s.tried[in.To] = true
			return "", http.StatusInternalServerError, &failure{Class: "temporary", Code: "006"}, false, delay
		}
	case "007":
		drop = true
	case "008":
		return "", http.StatusForbidden, &failure{Class: "blocked_fraud", Code: "008"}, false, delay
	}
	if s.faults.Drop > 0 {
		s.faults.Drop--
		drop = true
	}
	ref = "sim-" + strconv.Itoa(len(s.refs)+1)
	s.refs[in.ID] = ref
	s.messages = append(s.messages, Message{ID: in.ID, To: in.To, Text: in.Text, Vendor: Name, State: state, At: s.now().UTC()})
	if over := len(s.messages) - maxMessages; over > 0 {
		for _, m := range s.messages[:over] {
			delete(s.refs, m.ID)
		}
		s.messages = s.messages[over:]
	}
	for watcher := range s.watchers {
		select {
		case watcher <- struct{}{}:
		default: // told already
		}
	}
	return ref, 0, nil, drop, delay
}

func (s *Simulator) list(w http.ResponseWriter, r *http.Request) {
	to := strings.Replace(r.URL.Query().Get("to"), " ", "+", 1) // a plus that nobody escaped
	answer(w, http.StatusOK, s.Messages(to))
}

func (s *Simulator) clear(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = nil
	w.WriteHeader(http.StatusNoContent)
}

func (s *Simulator) getFaults(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer(w, http.StatusOK, s.faults)
}

func (s *Simulator) setFaults(w http.ResponseWriter, r *http.Request) {
	var f Faults
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": `send {"outage","fail","class","drop","delay_ms"}`})
		return
	}
	s.SetFaults(f)
	answer(w, http.StatusOK, f)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck,errchkjson // the caller has gone
}

// events tells watchers that something arrived, as server-sent events.
func (s *Simulator) events(w http.ResponseWriter, r *http.Request) {
	watcher := make(chan struct{}, 1)
	s.mu.Lock()
	full := len(s.watchers) >= maxWatchers
	if !full {
		s.watchers[watcher] = true
	}
	s.mu.Unlock()
	if full {
		http.Error(w, "too many watchers", http.StatusServiceUnavailable)
		return
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, watcher)
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Time{}) //nolint:errcheck // not every writer has one
	for {
		if _, err := io.WriteString(w, "data: look\n\n"); err != nil {
			return
		}
		if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-watcher:
		}
	}
}
