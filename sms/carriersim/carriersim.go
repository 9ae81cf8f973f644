// Package carriersim is a carrier on your desk: a server that speaks the APIs of the vendors that package sms has drivers for, shows the texts
// as phones would, sends receipts as vendors do, and fails on demand. The development server, the tests and whoever integrates use
// the same one, over HTTP and with the real drivers.
//
// Each vendor's API is under a path of its own: a driver whose base URL is http://127.0.0.1:8082/twilio talks to the simulator as it
// would to Twilio. One file a vendor: its routes, its receipts, its replies, signed as the vendor signs.
//
// For people there is a page at /. It shows every phone with its texts, as they arrive, and lets the phone answer; beside them it shows every vendor with its base
// URL and credentials, and lets it fail. It also works where no script runs: then it reloads itself, unless its address is /?still.
//
// For scripts:
//
//	GET    /messages?to=+1202…        what arrived, the newest first
//	DELETE /messages                  empties the inbox
//	POST   /replies                   {"from","to","text"}: the phone answers
//	GET    /faults, POST /faults      what goes wrong next, see [Faults]
//	GET    /accounts, POST /accounts  credentials and webhook addresses, see [Account]
//	GET    /events                    server-sent events: something changed, look again
//
// Replies and faults are also taken as a form, and are then answered with a redirect to the page. Faults in JSON replace all that was said for the vendor; in a form
// they change the fields that it has, and reset=on forgets all of them:
//
//	curl -d vendor=twilio -d outage=on http://127.0.0.1:8082/faults
//
// As with vendors' own sandboxes, the last three digits of a number decide what happens to it:
//
//	001 invalid recipient   002 opted out            003 rate limited    004 taken, then undelivered
//	005 taken, then expired 006 500 at first, then taken                 007 taken, but the connection drops before the answer
//	008 blocked as fraud    009 taken, no receipt    010 receipts before the answer, twice and out of order
//
// Everything is in memory and bounded: when it is full the oldest text goes. It must not be reachable from outside: it shows codes. What browsers send
// on behalf of another site's page is refused.
package carriersim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Bounds of what is kept and read.
const (
	maxMessages = 5000
	maxSessions = 5000
	maxBody     = 64 << 10
	maxWatchers = 64
	maxDelay    = 30 * time.Second
)

// Message is a text that arrived.
type Message struct {
	ID      string    `json:"id"` // the caller's own, if the vendor takes one, or else the vendor's
	To      string    `json:"to"`
	From    string    `json:"from"`
	Text    string    `json:"text"`
	Channel string    `json:"channel"`
	Vendor  string    `json:"vendor"`
	State   string    `json:"state"` // "accepted", "sent", "delivered", "undelivered", "expired"
	At      time.Time `json:"at"`
	Reply   bool      `json:"reply,omitempty"` // the phone's own

	ref      string // the vendor's name for it
	echo     string // what the caller wants back in receipts
	callback string // where this message's receipts go, for vendors that are told so
	seq      int
}

// Account is what a vendor knows of its customer. Every vendor begins with one that works, see GET /accounts.
type Account struct {
	ID      string `json:"id"`     // account, login or user
	Secret  string `json:"secret"` // token, API key or password
	Signing string `json:"signing_secret"`
	// Receipts and Inbound are the addresses of webhooks that a customer enters in the vendor's dashboard.
	Receipts string `json:"receipts_url"`
	Inbound  string `json:"inbound_url"`
	// PublicKey, PEM, is what the vendor checks the customer's signatures with, if it does.
	PublicKey string `json:"public_key,omitempty"`
	// Mode switches between a vendor's dialects, where it has several.
	Mode string `json:"mode,omitempty"`
}

// dialect is one vendor's API.
type dialect struct {
	name    string // path prefix, and vendor in the inbox
	account Account
	// routes adds the API's patterns, without the prefix.
	routes func(s *Simulator, mux *http.ServeMux)
	// receipt tells a state of a message: nil when the vendor would not.
	receipt func(s *Simulator, m Message, state string) *call
	// inbound hands over a phone's answer to m; nil when the vendor cannot.
	inbound func(s *Simulator, m Message, text string) *call
}

// call is a webhook.
type call struct {
	method, url string
	header      http.Header
	body        []byte
}

// dialects lists every vendor. There is nothing else to do when one is added.
func dialects() []dialect {
	return []dialect{
		httpDialect(), twilioDialect(), twilioVerifyDialect(),
		vonageDialect(), vonageVerifyDialect(), whatsappDialect(), infobipDialect(), infobip2FADialect(), courierDialect(),
		messageCentralDialect(), octopushDialect(), startmessagingDialect(), smppDialect(),
	}
}

// Options of a simulator.
type Options struct {
	// Now is the clock.
	Now func() time.Time
	// Pace is the time between a text and its first receipt, and between receipts. 0: they come at once, one after another.
	Pace time.Duration
}

// Simulator is the server. Make one with [New].
type Simulator struct {
	options  Options
	dialects map[string]dialect
	outgoing *http.Client
	smpp     smppHub
	idle     *sync.Cond // told when nothing is under way

	mu       sync.Mutex
	busy     int        // requests and webhooks under way
	messages []*Message // the oldest first
	seq      int
	byKey    map[string]*Message // vendor and the caller's key
	keys     []string            // of byKey, the oldest first
	sessions map[string]*session
	order    []string // of sessions, the oldest first
	tried    map[string]bool
	optedOut map[string]bool // vendor and number
	faults   map[string]*Faults
	accounts map[string]Account
	watchers map[chan struct{}]bool
	names    []string // of the vendors
	page     *template.Template
	handler  http.Handler
}

// New makes an empty simulator.
func New(o Options) *Simulator {
	s := &Simulator{
		options: o, dialects: map[string]dialect{}, byKey: map[string]*Message{}, sessions: map[string]*session{}, tried: map[string]bool{},
		optedOut: map[string]bool{}, faults: map[string]*Faults{}, accounts: map[string]Account{}, watchers: map[chan struct{}]bool{},
		page:     template.Must(template.ParseFS(assets, "assets/inbox.html")),
		outgoing: &http.Client{Timeout: callbackTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	s.idle = sync.NewCond(&s.mu)
	mux := http.NewServeMux()
	for _, d := range dialects() {
		s.dialects[d.name], s.accounts[d.name] = d, d.account
		s.names = append(s.names, d.name)
		api := http.NewServeMux()
		d.routes(s, api)
		mux.Handle("/"+d.name+"/", http.StripPrefix("/"+d.name, s.faulty(d.name, api)))
	}
	mux.HandleFunc("GET /messages", s.list)
	mux.HandleFunc("DELETE /messages", s.clear)
	mux.HandleFunc("POST /replies", s.postReply)
	mux.HandleFunc("GET /faults", s.getFaults)
	mux.HandleFunc("POST /faults", s.postFaults)
	mux.HandleFunc("GET /accounts", s.getAccounts)
	mux.HandleFunc("POST /accounts", s.postAccounts)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /{$}", s.inbox)
	mux.HandleFunc("GET /assets/{name}", s.asset)
	s.handler = http.NewCrossOriginProtection().Handler(mux) // browsers would send forms from anywhere
	return s
}

// Vendors lists the names of the APIs that are spoken.
func (s *Simulator) Vendors() []string {
	return slices.Clone(s.names)
}

// ServeHTTP implements http.Handler.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // stricter ones have browsers hide the origin of forms, which is looked at
	h.Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.handler.ServeHTTP(w, r)
}

// Messages lists what arrived for a number, the newest first; for all numbers when to is empty.
func (s *Simulator) Messages(to string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []Message{}
	for i := len(s.messages) - 1; i >= 0; i-- {
		if to == "" || s.messages[i].To == to {
			found = append(found, *s.messages[i])
		}
	}
	return found
}

// SetFaults says what goes wrong next. It replaces what was said for the same vendor.
func (s *Simulator) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.meant(f.Vendor) {
		own := f
		own.Vendor = name
		s.faults[name] = &own
	}
	s.tell()
}

// meant are the vendors that a name stands for.
func (s *Simulator) meant(vendor string) []string {
	if vendor == "" {
		return s.names
	}
	return []string{vendor}
}

// Account is what a vendor knows of its customer.
func (s *Simulator) Account(vendor string) Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts[vendor]
}

// SetAccount replaces it.
func (s *Simulator) SetAccount(vendor string, a Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[vendor] = a
	s.tell()
}

// Wait returns when nothing is under way: every request is answered and every receipt handed over.
func (s *Simulator) Wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy > 0 {
		s.idle.Wait()
	}
}

// begin counts what is under way; the function that it gives ends it.
func (s *Simulator) begin() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.busy--; s.busy == 0 {
			s.idle.Broadcast()
		}
	}
}

// background does work that nobody waits for but [Simulator.Wait].
func (s *Simulator) background(work func()) {
	end := s.begin()
	go func() {
		defer end()
		work()
	}()
}

// submission is a text that a vendor's API was handed.
type submission struct {
	vendor, to, from, text string
	channel                string // "" is sms
	key                    string // by which the vendor recognises a repeat; "": it does not
	echo, callback         string
}

// outcome is what the carrier makes of it.
type outcome struct {
	class  string // why it was refused; "": it was taken
	repeat bool   // it had been taken before
	m      Message
}

// submit is what every vendor does with a text.
func (s *Simulator) submit(r *http.Request, in submission) outcome { return s.take(fateOf(r), in) }

// take is submit for an answer that is not HTTP's.
func (s *Simulator) take(fate *fate, in submission) outcome {
	s.mu.Lock()
	if m, again := s.byKey[in.vendor+" "+in.key]; again && in.key != "" {
		defer s.mu.Unlock()
		return outcome{repeat: true, m: *m}
	}
	faults := s.faultsOf(in.vendor)
	if class := s.refusal(in, faults, fate); class != "" {
		s.mu.Unlock()
		return outcome{class: class}
	}
	states := []string{"sent", "delivered"}
	switch suffix(in.to) {
	case "004":
		states = []string{"sent", "undelivered"}
	case "005":
		states = []string{"sent", "expired"}
	case "007":
		fate.spoil = "drop"
	case "009":
		states = nil
	}
	lost := faults.LossPercent > rand.IntN(100) //nolint:gosec // nothing secret hangs on it
	if faults.NoReceipts || lost {
		states = nil
	}
	s.seq++
	m := &Message{
		To: in.to, From: in.from, Text: in.text, Channel: in.channel, Vendor: in.vendor, State: "accepted", At: s.options.Now().UTC(),
		ref: fmt.Sprintf("%s-%06d", in.vendor, s.seq), echo: in.echo, callback: in.callback, seq: s.seq,
	}
	if m.Channel == "" {
		m.Channel = "sms"
	}
	if m.ID = in.key; m.ID == "" {
		m.ID = m.ref
	}
	if in.key != "" {
		s.byKey[in.vendor+" "+in.key] = m
		if s.keys = append(s.keys, in.vendor+" "+in.key); len(s.keys) > maxMessages {
			delete(s.byKey, s.keys[0])
			s.keys = s.keys[1:]
		}
	}
	if !lost {
		s.keep(m)
	}
	copies, reversed, late := 1+faults.ReceiptCopies, faults.ReceiptsReversed, time.Duration(faults.ReceiptDelayMS)*time.Millisecond
	early := suffix(in.to) == "010"
	if early {
		copies, reversed = 2, true
	}
	if reversed {
		slices.Reverse(states)
	}
	taken := *m
	s.mu.Unlock()
	deliver := func() { s.report(taken, states, copies, late) }
	if early {
		deliver()
	} else if len(states) > 0 {
		fate.after = append(fate.after, deliver)
	}
	return outcome{m: taken}
}

// refusal is the class that a text is refused with, or "". The lock is held.
func (s *Simulator) refusal(in submission, faults *Faults, fate *fate) string {
	if faults.Fail > 0 {
		faults.Fail--
		s.tell()
		return faults.Class
	}
	if s.optedOut[in.vendor+" "+in.to] {
		return "recipient_opted_out"
	}
	switch suffix(in.to) {
	case "001":
		return "invalid_recipient"
	case "002":
		return "recipient_opted_out"
	case "003":
		return "rate_limited"
	case "006":
		if !s.tried[in.to] {
			s.tried[in.to] = true
			fate.spoil = "error"
			return "temporary"
		}
	case "008":
		return "blocked_fraud"
	}
	return ""
}

func suffix(number string) string { return number[max(0, len(number)-3):] }

// keep adds a message to the inbox. The lock is held.
func (s *Simulator) keep(m *Message) {
	s.messages = append(s.messages, m)
	if over := len(s.messages) - maxMessages; over > 0 {
		s.messages = slices.Delete(s.messages, 0, over)
	}
	for _, numbers := range []map[string]bool{s.tried, s.optedOut} {
		for number := range numbers {
			if len(numbers) <= maxMessages {
				break
			}
			delete(numbers, number)
		}
	}
	s.tell()
}

// tell wakes whoever looks at the inbox. The lock is held.
func (s *Simulator) tell() {
	for watcher := range s.watchers {
		select {
		case watcher <- struct{}{}:
		default: // told already
		}
	}
}

// faultsOf is never nil. The lock is held.
func (s *Simulator) faultsOf(vendor string) *Faults {
	if s.faults[vendor] == nil {
		s.faults[vendor] = &Faults{Vendor: vendor}
	}
	return s.faults[vendor]
}

// callbackTimeout bounds a webhook.
const callbackTimeout = 5 * time.Second

// report sends a message's receipts.
func (s *Simulator) report(m Message, states []string, copies int, late time.Duration) {
	for _, state := range states {
		s.pause(s.options.Pace + late)
		s.mu.Lock()
		for _, kept := range s.messages {
			if kept.seq == m.seq && (kept.State == "accepted" || kept.State == "sent") { // nothing comes after the others
				kept.State = state
			}
		}
		s.tell()
		s.mu.Unlock()
		for range copies {
			if d := s.dialects[m.Vendor]; d.receipt != nil {
				s.deliver(d.receipt(s, m, state))
			}
		}
	}
}

func (*Simulator) pause(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// deliver makes a webhook's call, and again when the receiver is not there, as vendors do.
func (s *Simulator) deliver(c *call) {
	if c == nil || c.url == "" {
		return
	}
	for try := range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), callbackTimeout)
		req, err := http.NewRequestWithContext(ctx, c.method, c.url, bytes.NewReader(c.body))
		if err == nil {
			for name, values := range c.header {
				req.Header[name] = values
			}
			var resp *http.Response
			if resp, err = s.outgoing.Do(req); err == nil {
				io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)) //nolint:errcheck // nobody reads it
				resp.Body.Close()                                       //nolint:errcheck // as above
			}
			if err == nil && resp.StatusCode < 500 {
				cancel()
				return
			}
		}
		cancel()
		s.pause(s.options.Pace << try)
	}
}

// Reply lets the phone answer the last text that it has from sender to, or from anybody when to is empty. It reports whether there was one.
func (s *Simulator) Reply(from, to, text string) bool {
	s.mu.Lock()
	var last *Message
	for _, m := range s.messages {
		if m.To == from && !m.Reply && (to == "" || m.From == to) {
			last = m
		}
	}
	if last == nil {
		s.mu.Unlock()
		return false
	}
	m := *last
	switch strings.ToUpper(strings.Trim(text, " .!")) {
	case "STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT":
		s.optedOut[m.Vendor+" "+from] = true
	case "START", "UNSTOP", "YES":
		delete(s.optedOut, m.Vendor+" "+from)
	}
	s.seq++
	s.keep(&Message{ID: "reply-" + strconv.Itoa(s.seq), To: from, From: m.From, Text: text, Channel: m.Channel, Vendor: m.Vendor, State: "replied", At: s.options.Now().UTC(), Reply: true, seq: s.seq})
	s.mu.Unlock()
	if d := s.dialects[m.Vendor]; d.inbound != nil {
		s.background(func() { s.deliver(d.inbound(s, m, text)) })
	}
	return true
}

// ---- what goes wrong

// fate is what becomes of one answer.
type fate struct {
	spoil string
	after []func() // once it is written
}

type fateKey struct{}

func fateOf(r *http.Request) *fate {
	f, _ := r.Context().Value(fateKey{}).(*fate)
	return f
}

// faulty stands in front of a vendor's API: it lets the API answer into a buffer, and then spoils the answer if that is what is wanted.
func (s *Simulator) faulty(vendor string, api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.begin()()
		s.mu.Lock()
		faults := s.faultsOf(vendor)
		outage, delay := faults.Outage, time.Duration(faults.DelayMS)*time.Millisecond
		if faults.JitterMS > 0 {
			delay += time.Duration(rand.IntN(faults.JitterMS)) * time.Millisecond //nolint:gosec // nothing secret hangs on it
		}
		s.mu.Unlock()
		if outage {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		s.pause(min(delay, maxDelay))
		f := new(fate)
		answer := &buffer{header: http.Header{}, status: http.StatusOK}
		api.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), fateKey{}, f)))
		s.mu.Lock()
		if faults = s.faultsOf(vendor); faults.Spoil > 0 && f.spoil == "" {
			faults.Spoil--
			s.tell()
			f.spoil = faults.How
		}
		s.mu.Unlock()
		defer func() {
			for _, work := range f.after {
				s.background(work)
			}
		}()
		spoil(w, r, f.spoil, answer)
	})
}

func spoil(w http.ResponseWriter, r *http.Request, how string, answer *buffer) {
	switch how {
	case "drop":
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close() //nolint:errcheck // that is the fault
		}
	case "silent":
		<-r.Context().Done()
	case "garbage":
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html>Welcome</html>") //nolint:errcheck // the caller has gone
	case "oversize":
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"x":"`+strings.Repeat("x", 1<<20)) //nolint:errcheck // the caller has gone
	case "redirect":
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	case "error":
		http.Error(w, "broken", http.StatusInternalServerError)
	default:
		for name, values := range answer.header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.status)
		w.Write(answer.body.Bytes()) //nolint:errcheck,gosec // the caller has gone
	}
}

// buffer keeps an answer back.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }

// ---- for people and scripts

func (s *Simulator) list(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, s.Messages(plus(r.URL.Query().Get("to"))))
}

// plus repairs a plus that nobody escaped.
func plus(number string) string { return strings.Replace(number, " ", "+", 1) }

func (s *Simulator) clear(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = nil
	s.tell()
	w.WriteHeader(http.StatusNoContent)
}

// isForm reports whether a request was made by a form: the page's, or a script that would rather not write JSON.
func isForm(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
}

// back leads from a form to the page that it was on.
func back(w http.ResponseWriter, r *http.Request, part string) {
	target := "/"
	if r.URL.Query().Has("still") {
		target = "/?still"
	}
	http.Redirect(w, r, target+part, http.StatusSeeOther)
}

func (s *Simulator) postReply(w http.ResponseWriter, r *http.Request) {
	var in struct {
		From string `json:"from"`
		To   string `json:"to"`
		Text string `json:"text"`
	}
	if isForm(r) {
		in.From, in.To, in.Text = r.PostFormValue("from"), r.PostFormValue("to"), r.PostFormValue("text")
	} else if json.NewDecoder(r.Body).Decode(&in) != nil {
		in.From = ""
	}
	switch {
	case in.From == "" || in.Text == "":
		answer(w, http.StatusBadRequest, map[string]string{"error": `send {"from","to","text"}: the phone's number, the sender that it answers (or none), and what it says`})
	case !s.Reply(plus(in.From), in.To, in.Text):
		answer(w, http.StatusNotFound, map[string]string{"error": "this phone has no text that it could answer"})
	case isForm(r):
		back(w, r, "")
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Simulator) getFaults(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	all := []Faults{}
	for _, name := range s.names {
		all = append(all, *s.faultsOf(name))
	}
	s.mu.Unlock()
	answer(w, http.StatusOK, all)
}

func (s *Simulator) postFaults(w http.ResponseWriter, r *http.Request) {
	const fields = `vendor, outage, fail, class, spoil, how, delay_ms, jitter_ms, loss_percent, receipt_delay_ms, receipt_copies, receipts_reversed, no_receipts`
	var f Faults
	if isForm(r) {
		f.Vendor = r.PostFormValue("vendor")
	} else {
		decoder := json.NewDecoder(r.Body)
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&f); err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": "send an object with any of " + fields})
			return
		}
		if wrong := f.check(); wrong != "" {
			answer(w, http.StatusBadRequest, map[string]string{"error": wrong})
			return
		}
	}
	if _, known := s.dialects[f.Vendor]; !known && f.Vendor != "" {
		answer(w, http.StatusNotFound, map[string]string{"error": "no such vendor: choose one of " + strings.Join(s.names, ", ")})
		return
	}
	if !isForm(r) {
		s.SetFaults(f)
		answer(w, http.StatusOK, f)
		return
	}
	if wrong := s.amendFaults(f.Vendor, r.PostForm); wrong != "" {
		answer(w, http.StatusBadRequest, map[string]string{"error": wrong + "; a form has any of reset, " + fields})
		return
	}
	part := ""
	if f.Vendor != "" {
		part = "#vendor-" + f.Vendor
	}
	back(w, r, part)
}

// amendFaults changes what a form says of a vendor, or of all, and nothing when any of it is wrong.
func (s *Simulator) amendFaults(vendor string, form url.Values) (wrong string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	amended := map[string]*Faults{}
	for _, name := range s.meant(vendor) {
		f := *s.faultsOf(name)
		if wrong = f.amend(form); wrong != "" {
			return wrong
		}
		amended[name] = &f
	}
	for name, f := range amended {
		s.faults[name] = f
	}
	s.tell()
	return ""
}

// baseURL is where a vendor's API is, for whoever asked.
func baseURL(r *http.Request, vendor string) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + "/" + vendor
}

func (s *Simulator) getAccounts(w http.ResponseWriter, r *http.Request) {
	type row struct {
		Vendor  string `json:"vendor"`
		BaseURL string `json:"base_url"`
		Account
	}
	all := []row{}
	for _, name := range s.Vendors() {
		all = append(all, row{name, baseURL(r, name), s.Account(name)})
	}
	answer(w, http.StatusOK, all)
}

func (s *Simulator) postAccounts(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Vendor string `json:"vendor"`
		Account
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": `send {"vendor","id","secret","signing_secret","receipts_url","inbound_url","public_key","mode"}; what is left out stays`})
		return
	}
	if _, known := s.dialects[in.Vendor]; !known {
		answer(w, http.StatusNotFound, map[string]string{"error": "no such vendor: choose one of " + strings.Join(s.Vendors(), ", ")})
		return
	}
	a := s.Account(in.Vendor)
	for _, field := range []struct {
		to   *string
		from string
	}{
		{&a.ID, in.ID}, {&a.Secret, in.Secret}, {&a.Signing, in.Signing}, {&a.Receipts, in.Receipts}, {&a.Inbound, in.Inbound},
		{&a.PublicKey, in.PublicKey}, {&a.Mode, in.Mode},
	} {
		if field.from != "" {
			*field.to = field.from
		}
	}
	s.SetAccount(in.Vendor, a)
	answer(w, http.StatusOK, a)
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
