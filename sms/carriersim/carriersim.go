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
//	DELETE /messages                  empties the inbox; for forms, POST /messages/clear
//	GET    /mails?to=…, DELETE /mails the same for mails, see [Simulator.ServeSMTP]
//	POST   /replies                   {"from","to","text"}: the phone answers; the answer says who was told
//	POST   /swaps                     {"number","at"}: the SIM is changed, see /simswap
//	GET    /faults, POST /faults      what goes wrong next, see [Faults]
//	GET    /accounts, POST /accounts  credentials and webhook addresses, see [Account]
//	GET    /events                    server-sent events: something changed, look again
//
// Replies, faults and accounts are also taken as a form, and are then answered with a redirect to the page; what begins with a brace is JSON whatever its type. Faults
// in JSON replace all that was said for the vendor; in a form they change the fields that it has, and reset=on forgets all of them. A vendor may be called as in
// Watchword's configuration, where http is the simulator:
//
//	curl -d vendor=twilio -d outage=on http://127.0.0.1:8082/faults
//
// As with vendors' own sandboxes, the last three digits of a number decide what happens to it:
//
//	001 invalid recipient   002 opted out            003 rate limited    004 taken, then undelivered
//	005 taken, then expired 006 500 at first, then taken                 007 taken, but the connection drops before the answer
//	008 blocked as fraud    009 taken, no receipt    010 receipts before the answer, twice and out of order
//	011 its SIM was changed an hour ago, 012 its SIM is another network's: for who asks, see /simswap
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
	Note    string    `json:"note,omitempty"`  // what the simulator has to say of it

	ref      string // the vendor's name for it
	echo     string // what the caller wants back in receipts
	callback string // where this message's receipts go, for vendors that are told so
	seq      int
	reply    int // number of the answer that is being handed over
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
	send    string // method and path that a text is handed to, in which {account} is the account's id; "": it is not HTTP
	account Account
	// routes adds the API's patterns, without the prefix.
	routes func(s *Simulator, mux *api)
	// receipt tells a state of a message: nil when the vendor would not.
	receipt func(s *Simulator, m Message, state string) *call
	// inbound hands over a phone's answer to m, the m.reply-th thing that happened here; nil when the vendor cannot.
	inbound func(s *Simulator, m Message, text string) *call
	// ref and session name the n-th text and the n-th session in the vendor's form. Nil: vendor and number.
	ref, session func(n int) string
	// replies is the field of the account that says where answers go. Default inbound_url.
	replies string
	// link is who is connected, for a vendor that hands answers over on a connection: "" when nobody is.
	link func(s *Simulator) string
}

// api is what a vendor serves. Who asks for anything else is told what there is.
type api struct {
	vendor string
	mux    http.ServeMux
	routes []string
}

// HandleFunc adds a route.
func (a *api) HandleFunc(pattern string, handler http.HandlerFunc) {
	a.mux.HandleFunc(pattern, handler)
	method, path, found := strings.Cut(pattern, " ")
	if !found {
		method, path = "GET or POST", pattern
	}
	a.routes = append(a.routes, method+" /"+a.vendor+path)
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := a.mux.Handler(r); pattern != "" {
		a.mux.ServeHTTP(w, r)
		return
	}
	refused := &buffer{header: w.Header(), status: http.StatusOK}
	a.mux.ServeHTTP(refused, r)
	answer(w, refused.status, map[string]any{"error": a.vendor + " has no " + r.Method + " /" + a.vendor + r.URL.Path, "routes": a.routes})
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
		messageCentralDialect(), octopushDialect(), startmessagingDialect(), smppDialect(), smtpDialect(),
	}
}

// Options of a simulator.
type Options struct {
	// Now is the clock.
	Now func() time.Time
	// Pace is the time between a text and its first receipt, and between receipts. 0: they come at once, one after another.
	Pace time.Duration
	// Uses are vendors that come first on the page, before anything was sent by them.
	Uses []string
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
	mails    []*Mail    // as these
	post     string     // where mails are taken; "": nowhere
	seq      int
	byKey    map[string]*Message // vendor and the caller's key
	keys     []string            // of byKey, the oldest first
	sessions map[string]*session
	order    []string // of sessions, the oldest first
	tried    map[string]bool
	optedOut map[string]bool // vendor and number
	faults   map[string]*Faults
	accounts map[string]Account
	swaps    map[string]time.Time // when SIMs were changed, by number
	watchers map[chan struct{}]bool
	names    []string        // of the vendors
	used     map[string]bool // vendors that texts were handed to, or that are said to be used
	page     *template.Template
	handler  http.Handler
}

// New makes an empty simulator.
func New(o Options) *Simulator {
	s := &Simulator{
		options: o, dialects: map[string]dialect{}, byKey: map[string]*Message{}, sessions: map[string]*session{}, tried: map[string]bool{},
		optedOut: map[string]bool{}, faults: map[string]*Faults{}, accounts: map[string]Account{}, swaps: map[string]time.Time{}, watchers: map[chan struct{}]bool{}, used: map[string]bool{},
		page:     template.Must(template.ParseFS(assets, "assets/inbox.html")),
		outgoing: &http.Client{Timeout: callbackTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	s.idle = sync.NewCond(&s.mu)
	for _, name := range o.Uses {
		s.used[name] = true
	}
	mux := http.NewServeMux()
	for _, d := range dialects() {
		s.dialects[d.name], s.accounts[d.name] = d, d.account
		s.names = append(s.names, d.name)
		routes := &api{vendor: d.name}
		d.routes(s, routes)
		mux.Handle("/"+d.name+"/", http.StripPrefix("/"+d.name, s.faulty(d.name, routes)))
	}
	mux.Handle("/"+simSwap+"/", http.StripPrefix("/"+simSwap, s.faulty(simSwap, s.simSwapRoutes())))
	mux.HandleFunc("POST /swaps", s.postSwaps)
	mux.HandleFunc("GET /messages", s.list)
	mux.HandleFunc("DELETE /messages", s.clear)
	mux.HandleFunc("GET /mails", s.listMails)
	mux.HandleFunc("DELETE /mails", s.clearMails)
	mux.HandleFunc("POST /messages/clear", func(w http.ResponseWriter, r *http.Request) { // what a form can do
		s.forget()
		s.forgetMails()
		back(w, r, "")
	})
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
	why    string // the same in a sentence, for the answer
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
	s.used[in.vendor] = true
	faults := s.faultsOf(in.vendor)
	if class, why := s.refusal(in, faults, fate); class != "" {
		s.mu.Unlock()
		return outcome{class: class, why: why}
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
	ref := fmt.Sprintf("%s-%06d", in.vendor, s.seq)
	if d := s.dialects[in.vendor]; d.ref != nil {
		ref = d.ref(s.seq)
	}
	m := &Message{
		To: in.to, From: in.from, Text: in.text, Channel: in.channel, Vendor: in.vendor, State: "accepted", At: s.options.Now().UTC(),
		ref: ref, echo: in.echo, callback: in.callback, seq: s.seq,
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

// refusal is the class that a text is refused with, or "", and why in a sentence. The lock is held.
func (s *Simulator) refusal(in submission, faults *Faults, fate *fate) (class, why string) {
	if faults.Fail > 0 {
		faults.Fail--
		s.tell()
		return faults.Class, "A fault is switched on that refuses texts with " + faults.Class + ": see /faults."
	}
	if s.optedOut[in.vendor+" "+in.to] {
		return "recipient_opted_out", "The phone answered STOP: it takes texts again when it answers START."
	}
	switch suffix(in.to) {
	case "001":
		return "invalid_recipient", "Numbers that end in 001 are invalid here."
	case "002":
		return "recipient_opted_out", "Numbers that end in 002 have opted out here."
	case "003":
		return "rate_limited", "Numbers that end in 003 have had too many texts here."
	case "006":
		if !s.tried[in.to] {
			s.tried[in.to] = true
			fate.spoil = "error"
			return "temporary", "Numbers that end in 006 are broken at first here."
		}
	case "008":
		return "blocked_fraud", "Numbers that end in 008 are taken for fraud here."
	}
	return "", ""
}

// badCredentials is why a call of nobody's is refused.
const badCredentials = "Wrong credentials: see them at /accounts."

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
				s.deliver(d.receipt(s, m, state)) //nolint:errcheck // vendors do not mind
			}
		}
	}
}

func (*Simulator) pause(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// deliver makes a webhook's call, and again when the receiver is not there, as vendors do. It gives the last answer's status; err says that there was none.
func (s *Simulator) deliver(c *call) (status int, err error) {
	if c == nil || c.url == "" {
		return 0, nil
	}
	for try := range 3 {
		if status, err = s.once(c); err == nil && status < 500 {
			return status, nil
		}
		s.pause(s.options.Pace << try)
	}
	return status, err
}

func (s *Simulator) once(c *call) (status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callbackTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, c.method, c.url, bytes.NewReader(c.body))
	if err != nil {
		return 0, err
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	resp, err := s.outgoing.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()                                 //nolint:errcheck // nobody reads it
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)) //nolint:errcheck // as above
	return resp.StatusCode, nil
}

// Reply lets the phone answer the last text that it has from sender to, or from anybody when to is empty. It reports whether there was one.
func (s *Simulator) Reply(from, to, text string) bool {
	answered, reply := s.answer(from, to, text)
	if reply == nil {
		return false
	}
	s.background(func() { s.tellReply(answered, reply, text) })
	return true
}

// answer puts a phone's answer into the inbox. It gives the text that is answered; reply is nil when there is none.
func (s *Simulator) answer(from, to, text string) (answered Message, reply *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var last *Message
	for _, m := range s.messages {
		if m.To == from && !m.Reply && (to == "" || m.From == to) {
			last = m
		}
	}
	if last == nil {
		return Message{}, nil
	}
	answered = *last
	switch strings.ToUpper(strings.Trim(text, " .!")) {
	case "STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT":
		s.optedOut[answered.Vendor+" "+from] = true
	case "START", "UNSTOP", "YES":
		delete(s.optedOut, answered.Vendor+" "+from)
	}
	s.seq++
	reply = &Message{
		ID: "reply-" + strconv.Itoa(s.seq), To: from, From: answered.From, Text: text, Channel: answered.Channel, Vendor: answered.Vendor, State: "replied",
		At: s.options.Now().UTC(), Reply: true, seq: s.seq,
	}
	s.keep(reply)
	answered.reply = s.seq
	return answered, reply
}

// tellReply hands a phone's answer to the vendor's customer. It gives the address that took it, or, when none did, what to do about that; the inbox shows it too.
func (s *Simulator) tellReply(answered Message, reply *Message, text string) (to, hint string) {
	d := s.dialects[answered.Vendor]
	switch {
	case d.link != nil:
		d.inbound(s, answered, text)
		if to = d.link(s); to == "" {
			hint = "nobody is bound to the link"
		}
	case d.inbound == nil:
		hint = answered.Vendor + " hands no replies on"
	default:
		setting := "inbound_url"
		if d.replies != "" {
			setting = d.replies
		}
		c := d.inbound(s, answered, text)
		if c == nil || c.url == "" {
			hint = "set " + setting + " of " + answered.Vendor + " under its credentials, or with POST /accounts"
			break
		}
		switch status, err := s.deliver(c); {
		case err != nil:
			hint = "nothing answers at " + setting + ", " + c.url
		case status >= http.StatusMultipleChoices:
			hint = fmt.Sprintf("%s, %s, answers %d", setting, c.url, status)
		default:
			to = c.url
		}
	}
	if hint != "" {
		s.mu.Lock()
		reply.Note = "Told nobody: " + hint
		s.tell()
		s.mu.Unlock()
	}
	return to, hint
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
			http.Error(w, "out of order: an outage is switched on, see /faults", http.StatusServiceUnavailable)
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
		http.Error(w, "broken: numbers that end in 006 are, at first", http.StatusInternalServerError)
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
	s.forget()
	w.WriteHeader(http.StatusNoContent)
}

// forget empties the inbox.
func (s *Simulator) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = nil
	s.tell()
}

// asked reads what is asked for: the fields of a form, or else a document. What begins with a brace is a document whatever its type says: curl -d calls everything a form.
func asked(r *http.Request) (document []byte, form url.Values) {
	document, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, nil
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") || bytes.HasPrefix(bytes.TrimSpace(document), []byte("{")) {
		return document, nil
	}
	form, err = url.ParseQuery(string(document))
	if err != nil {
		return document, nil
	}
	return nil, form
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
	noText := map[string]string{"error": "this phone has no text that it could answer"}
	document, form := asked(r)
	if form != nil {
		in.From, in.To, in.Text = form.Get("from"), form.Get("to"), form.Get("text")
	} else if json.Unmarshal(document, &in) != nil {
		in.From = ""
	}
	switch {
	case in.From == "" || in.Text == "":
		answer(w, http.StatusBadRequest, map[string]string{"error": `send {"from","to","text"}: the phone's number, the sender that it answers (or none), and what it says`})
	case form != nil:
		if !s.Reply(plus(in.From), in.To, in.Text) {
			answer(w, http.StatusNotFound, noText)
			return
		}
		back(w, r, "")
	default:
		answered, reply := s.answer(plus(in.From), in.To, in.Text)
		if reply == nil {
			answer(w, http.StatusNotFound, noText)
			return
		}
		defer s.begin()()
		out := struct {
			To   *string `json:"delivered_to"`
			Hint string  `json:"hint,omitempty"`
		}{}
		to, hint := s.tellReply(answered, reply, in.Text)
		if out.Hint = hint; to != "" {
			out.To = &to
		}
		answer(w, http.StatusOK, out)
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
	const fields = `vendor, outage, fail, class, spoil, how, delay_ms, jitter_ms, loss_percent, receipt_delay_ms, receipt_copies, receipts_reversed, no_receipts, reset`
	document, form := asked(r)
	in := struct {
		Faults
		Reset bool `json:"reset"`
	}{}
	if form != nil {
		in.Vendor = form.Get("vendor")
	} else if err := strictly(document, &in); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "send an object with any of " + fields})
		return
	}
	f := in.Faults
	if in.Reset {
		f = Faults{Vendor: f.Vendor}
	}
	if f.Vendor = vendorOf(f.Vendor); f.Vendor != "" && f.Vendor != simSwap && s.dialects[f.Vendor].name == "" {
		answer(w, http.StatusNotFound, map[string]string{"error": "no such vendor: choose one of " + strings.Join(s.names, ", ")})
		return
	}
	if form == nil {
		if wrong := f.check(); wrong != "" {
			answer(w, http.StatusBadRequest, map[string]string{"error": wrong})
			return
		}
		s.SetFaults(f)
		answer(w, http.StatusOK, f)
		return
	}
	if wrong := s.amendFaults(f.Vendor, form); wrong != "" {
		answer(w, http.StatusBadRequest, map[string]string{"error": wrong + "; a form has any of " + fields})
		return
	}
	part := ""
	if f.Vendor != "" {
		part = "#vendor-" + f.Vendor
	}
	back(w, r, part)
}

// strictly reads a document whose every field has to be known.
func strictly(document []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.DisallowUnknownFields()
	return decoder.Decode(v)
}

// vendorOf is the name here of a vendor that may be called as Watchword's configuration calls it.
func vendorOf(name string) string {
	if name == "simulator" {
		return "http"
	}
	return strings.ReplaceAll(name, "_", "-")
}

// Label is the name of a vendor with the one that it has in Watchword's configuration, where that differs.
func Label(vendor string) string {
	own := strings.ReplaceAll(vendor, "-", "_")
	if vendor == "http" {
		own = "simulator"
	}
	if own == vendor {
		return vendor
	}
	return vendor + " (" + own + " in Watchword)"
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

// Send is the method and the path that a vendor takes texts at: "POST /octopush/sms-campaign/send". It is "" for what is not HTTP.
func (s *Simulator) Send(vendor string) string {
	method, path, found := strings.Cut(s.dialects[vendor].send, " ")
	if !found {
		return ""
	}
	return method + " /" + vendor + strings.ReplaceAll(path, "{account}", s.Account(vendor).ID)
}

// address is where a vendor is spoken to, for whoever asked: "" when it is not.
func (s *Simulator) address(r *http.Request, vendor string) string {
	if vendor == smtpName {
		return s.mailLink()
	}
	if s.dialects[vendor].link == nil {
		return baseURL(r, vendor)
	}
	return s.Link()
}

func (s *Simulator) getAccounts(w http.ResponseWriter, r *http.Request) {
	type row struct {
		Vendor  string `json:"vendor"`
		BaseURL string `json:"base_url"`
		Send    string `json:"send,omitempty"`
		Account
	}
	all := []row{}
	for _, name := range s.Vendors() {
		if address := s.address(r, name); address != "" {
			all = append(all, row{name, address, s.Send(name), s.Account(name)})
		}
	}
	answer(w, http.StatusOK, all)
}

func (s *Simulator) postAccounts(w http.ResponseWriter, r *http.Request) {
	const fields = "vendor, id, secret, signing_secret, receipts_url, inbound_url, public_key, mode"
	document, form := asked(r)
	given := map[string]string{}
	for name, values := range form {
		given[name] = values[len(values)-1]
	}
	if form == nil && json.Unmarshal(document, &given) != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "send an object with any of " + fields + "; what is left out stays"})
		return
	}
	vendor := vendorOf(given["vendor"])
	if s.dialects[vendor].name == "" {
		answer(w, http.StatusNotFound, map[string]string{"error": "no such vendor: choose one of " + strings.Join(s.Vendors(), ", ")})
		return
	}
	a := s.Account(vendor)
	known := map[string]*string{
		"id": &a.ID, "secret": &a.Secret, "signing_secret": &a.Signing, "receipts_url": &a.Receipts, "inbound_url": &a.Inbound, "public_key": &a.PublicKey, "mode": &a.Mode,
	}
	for name, value := range given {
		to, is := known[name]
		switch {
		case name == "vendor":
		case !is:
			answer(w, http.StatusBadRequest, map[string]string{"error": "there is no field " + strconv.Quote(name) + ": send any of " + fields + "; what is left out stays"})
			return
		case strings.HasSuffix(name, "_url") && value != "" && !webAddress(value):
			answer(w, http.StatusBadRequest, map[string]string{"error": name + " is not a web address: write it as http://…, or nothing to have none"})
			return
		default:
			*to = value
		}
	}
	s.SetAccount(vendor, a)
	if form != nil {
		back(w, r, "#vendor-"+vendor)
		return
	}
	answer(w, http.StatusOK, a)
}

func webAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
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
