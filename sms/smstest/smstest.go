// Package smstest is the suite that every vendor's driver passes against the carrier simulator's own reading of that vendor's API. A driver says what
// it can do through its interfaces and its [sms.Abilities]; the suite holds it to that, and to what no driver may do whatever the
// vendor answers: follow a redirect, read without end, take silence for success, or let a number, a code or a secret into an error.
package smstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
)

// Noon is the simulator's clock.
var Noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// Setup is what a driver is made with.
type Setup struct {
	BaseURL string
	Account carriersim.Account
	Token   string // of webhooks, for vendors that do not sign
	Now     func() time.Time
}

// Driver is the subject.
type Driver struct {
	// Dialect of the simulator that speaks for the vendor.
	Dialect string
	// New makes the driver.
	New func(t testing.TB, s Setup) sms.Vendor
	// Prepare may change what the simulator knows of its customer before the driver is made.
	Prepare func(t testing.TB, sim *carriersim.Simulator)
	// Classes that the vendor's API can refuse a text with.
	Classes []sms.Class
	// Phone is the beginning of the numbers that are texted, with ten places for the rest: three digits are the suite's. Default +1202555.
	Phone string
	// TimeSigned says that webhooks carry a signed time. Unsigned, that nothing but a token in the path protects them.
	TimeSigned, Unsigned bool
	// Inbound says that replies reach us.
	Inbound bool
	// NoStates says that nothing is ever known of delivery: if anything is told, it is that a code was not entered.
	NoStates bool
	// WrongTries says how many wrong answers the vendor bears, of one that checks. 0: it is not tried.
	WrongTries int
}

// secrets must never show.
const (
	code  = "482910"
	token = "unguessable-part-of-the-path-of-receipts"
)

// bench is one driver on one simulator.
type bench struct {
	sim    *carriersim.Simulator
	server *httptest.Server
	vendor sms.Vendor
	setup  Setup
	driver Driver

	hooks    *httptest.Server
	mu       sync.Mutex
	webhooks []sms.Webhook
	results  []sms.Received
	refused  []error
}

func newBench(t *testing.T, d Driver) *bench {
	t.Helper()
	b := &bench{driver: d, sim: carriersim.New(carriersim.Options{Now: func() time.Time { return Noon }})}
	b.server = httptest.NewServer(b.sim)
	t.Cleanup(func() { b.server.CloseClientConnections(); b.server.Close() })
	b.hooks = httptest.NewServer(http.HandlerFunc(b.receive))
	t.Cleanup(b.hooks.Close)
	t.Cleanup(b.sim.Wait)
	if d.Prepare != nil {
		d.Prepare(t, b.sim)
	}
	a := b.sim.Account(d.Dialect)
	a.Receipts, a.Inbound = b.callback(), b.callback()
	b.sim.SetAccount(d.Dialect, a)
	b.setup = Setup{BaseURL: b.server.URL + "/" + d.Dialect, Account: a, Token: token, Now: func() time.Time { return Noon }}
	b.vendor = d.New(t, b.setup)
	return b
}

func (b *bench) callback() string { return b.hooks.URL + "/v1/delivery-reports/vendor/" + token }

// receive does what the server does with a webhook, and keeps it.
func (b *bench) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	hook := sms.Webhook{Method: r.Method, URL: b.hooks.URL + r.URL.RequestURI(), Header: r.Header, Body: body, Token: token, At: Noon}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.webhooks = append(b.webhooks, hook)
	receiver, ok := b.vendor.(sms.Receiver)
	if !ok {
		return
	}
	got, err := receiver.Receive(hook)
	if err != nil {
		b.refused = append(b.refused, fmt.Errorf("%s %s: %w", r.Method, body, err))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	b.results = append(b.results, got)
	w.Write(got.Reply) //nolint:errcheck // the simulator has gone
}

// settled waits for every webhook and gives what they said.
func (b *bench) settled(t *testing.T) (reports []sms.Report, inbound []sms.Inbound, hooks []sms.Webhook) {
	t.Helper()
	b.sim.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, err := range b.refused {
		t.Errorf("a genuine webhook was refused: %v", err)
	}
	for _, r := range b.results {
		reports, inbound = append(reports, r.Reports...), append(inbound, r.Inbound...)
	}
	return reports, inbound, slices.Clone(b.webhooks)
}

// leg makes one to the number that ends in the three digits.
func (b *bench) leg(t *testing.T, suffix string) sms.Leg {
	t.Helper()
	phone := b.driver.Phone
	if phone == "" {
		phone = "+12025550"
	}
	to, err := sms.ParseNumber(phone+suffix, "")
	if err != nil {
		t.Fatalf("%s%s: %v", phone, suffix, err)
	}
	return sms.Leg{
		ID: uuid.New(), To: to, Channel: b.vendor.Abilities().Channels[0], Text: "Never share this code. Sign-in code: " + code + " <&> \"é\"", Code: code, Purpose: "login", Locale: "en",
		Life: 10 * time.Minute, Callback: b.callback(),
	}
}

func (b *bench) arrived(l sms.Leg) []carriersim.Message { return b.sim.Messages(l.To.Reveal()) }

// failure holds err against what is wanted of it, and against what it must never show.
func (b *bench) failure(t *testing.T, err error, l sms.Leg, reached sms.Reached, classes ...sms.Class) {
	t.Helper()
	e, ok := errors.AsType[*sms.Error](err)
	switch {
	case !ok:
		t.Fatalf("error = %v (%T), want an *sms.Error", err, err)
	case len(classes) > 0 && !slices.Contains(classes, e.Class):
		t.Fatalf("error = %v, want class %v", err, classes)
	case e.Reached != reached:
		t.Fatalf("error = %v with reached = %d, want %d", err, e.Reached, reached)
	case e.Vendor != b.vendor.Name():
		t.Errorf("error names vendor %q, want %q", e.Vendor, b.vendor.Name())
	}
	for _, shown := range []string{err.Error(), fmt.Sprintf("%+v", e.Code), fmt.Sprint(e.Cause)} {
		for _, secret := range []string{code, l.To.Reveal(), strings.TrimPrefix(l.To.Reveal(), "+"), b.setup.Account.Secret, b.server.URL} {
			if secret != "" && strings.Contains(shown, secret) {
				t.Errorf("an error shows %q: %s", secret, shown)
			}
		}
	}
}

// Run holds a driver to everything.
func Run(t *testing.T, d Driver) {
	t.Helper()
	one := func(name string, test func(t *testing.T, b *bench)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newBench(t, d))
		})
	}
	one("success", success)
	one("credentials", credentials)
	for _, class := range d.Classes {
		one("class "+string(class), func(t *testing.T, b *bench) {
			b.sim.SetFaults(carriersim.Faults{Vendor: d.Dialect, Fail: 1, Class: string(class)})
			l := b.leg(t, "143")
			_, err := b.vendor.Send(t.Context(), l)
			if b.failure(t, err, l, sms.NotSent, class); len(b.arrived(l)) != 0 {
				t.Error("it arrived all the same")
			}
		})
	}
	one("unreachable", func(t *testing.T, b *bench) {
		gone := b.setup
		closed := httptest.NewServer(http.NotFoundHandler())
		gone.BaseURL = closed.URL
		closed.Close()
		b.vendor = d.New(t, gone)
		l := b.leg(t, "143")
		_, err := b.vendor.Send(t.Context(), l)
		b.failure(t, err, l, sms.NotSent, sms.Temporary)
	})
	one("outage", func(t *testing.T, b *bench) {
		b.sim.SetFaults(carriersim.Faults{Vendor: d.Dialect, Outage: true})
		l := b.leg(t, "143")
		_, err := b.vendor.Send(t.Context(), l)
		b.failure(t, err, l, sms.NotSent, sms.Temporary)
	})
	one("broken at first", func(t *testing.T, b *bench) {
		l := b.leg(t, "006")
		_, err := b.vendor.Send(t.Context(), l)
		b.failure(t, err, l, sms.MaybeSent, sms.Temporary, sms.Ambiguous)
		if _, err := b.vendor.Send(t.Context(), l); err != nil || len(b.arrived(l)) != 1 {
			t.Errorf("second try: %v, %d arrived", err, len(b.arrived(l)))
		}
	})
	for _, how := range []string{"drop", "garbage", "oversize", "redirect"} { // F-41, F-43
		one("answer "+how, func(t *testing.T, b *bench) {
			b.sim.SetFaults(carriersim.Faults{Vendor: d.Dialect, Spoil: 3, How: how})
			l := b.leg(t, "143")
			_, err := b.vendor.Send(t.Context(), l)
			b.failure(t, err, l, sms.MaybeSent, sms.Ambiguous)
		})
	}
	one("answer silent", func(t *testing.T, b *bench) {
		b.sim.SetFaults(carriersim.Faults{Vendor: d.Dialect, Spoil: 3, How: "silent"})
		l := b.leg(t, "143")
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := b.vendor.Send(ctx, l)
		b.failure(t, err, l, sms.MaybeSent, sms.Ambiguous)
	})
	one("repeat", repeat)
	if len(d.Classes) > 0 {
		one("secrets", func(t *testing.T, b *bench) {
			for _, shown := range []string{fmt.Sprintf("%v %+v %#v", b.vendor, b.vendor, b.leg(t, "143"))} {
				if strings.Contains(shown, code) {
					t.Errorf("a printed leg shows its code: %s", shown)
				}
			}
		})
	}
	runReceipts(t, d, one)
	runSessions(t, d, one)
}

func success(t *testing.T, b *bench) {
	a := b.vendor.Abilities()
	for i, channel := range a.Channels {
		l := b.leg(t, fmt.Sprintf("14%d", i))
		l.Channel = channel
		got, err := b.vendor.Send(t.Context(), l)
		if err != nil {
			t.Fatalf("%s: %v", channel, err)
		}
		texts := b.arrived(l)
		if len(texts) != 1 || texts[0].Channel != string(channel) {
			t.Fatalf("%s: arrived %+v, want one text on that channel", channel, texts)
		}
		if a.Kind != sms.Verifier && !strings.Contains(texts[0].Text, code) {
			t.Errorf("%s: the text has not our code: %q", channel, texts[0].Text)
		}
		if a.Kind != sms.Gateway && got.Session == "" {
			t.Errorf("%s: no session, though the vendor keeps one", channel)
		}
		if _, receives := b.vendor.(sms.Receiver); receives && got.Ref == "" {
			t.Errorf("%s: no reference that reports could be matched with", channel)
		}
	}
}

func credentials(t *testing.T, b *bench) {
	wrong := b.setup
	wrong.Account.Secret = strings.ToUpper(wrong.Account.Secret) + "x"
	if b.driver.Dialect == "http" {
		wrong.Account.Secret = "whsec_d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmc="
	}
	right := b.vendor
	b.vendor = b.driver.New(t, wrong)
	l := b.leg(t, "143")
	_, err := b.vendor.Send(t.Context(), l)
	b.failure(t, err, l, sms.NotSent, sms.Unauthorized)
	if p, ok := b.vendor.(sms.Pinger); ok {
		if _, err := p.Ping(t.Context()); err == nil {
			t.Error("Ping is content with wrong credentials")
		}
		if _, err := right.(sms.Pinger).Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
	}
}

func repeat(t *testing.T, b *bench) {
	l := b.leg(t, "143")
	first, err := b.vendor.Send(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.vendor.Send(t.Context(), l)
	n := len(b.arrived(l))
	switch b.vendor.Abilities().Idempotency {
	case sms.Replay:
		if err != nil || second != first || n != 1 {
			t.Errorf("repeat: %+v, %v after %+v, %d arrived; want the same answer and one text", second, err, first, n)
		}
	case sms.Refuse:
		if err != nil || n != 1 {
			t.Errorf("repeat: %v, %d arrived; want success and one text", err, n)
		}
	case sms.NoKey:
		if err == nil && n != 2 {
			t.Errorf("repeat: %d arrived; the driver says that the vendor has no key, the vendor behaves as if it had", n)
		}
	}
}

func runReceipts(t *testing.T, d Driver, one func(string, func(*testing.T, *bench))) {
	probe := newBench(t, d)
	if _, ok := probe.vendor.(sms.Receiver); !ok {
		return
	}
	told := "143" // the end of a number that something is told of
	if d.NoStates {
		told = "005"
	} else {
		one("receipts", func(t *testing.T, b *bench) {
			l := b.leg(t, "143")
			got, err := b.vendor.Send(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			reports, _, _ := b.settled(t)
			last := sms.LegState("")
			for _, r := range reports {
				if r.Leg != l.ID && (r.Ref == "" || r.Ref != got.Ref) {
					t.Errorf("report %+v is not of leg %s with reference %q", r, l.ID, got.Ref)
				}
				if r.Key == "" || r.Class != "" {
					t.Errorf("report %+v: want a key, and no class for good news", r)
				}
				last = r.State
			}
			if last != sms.LegDelivered {
				t.Errorf("reports %+v: want delivered at the end", reports)
			}
		})
	}
	for _, tt := range []struct {
		suffix string
		states []sms.LegState
	}{
		{"004", []sms.LegState{sms.LegUndelivered, sms.LegFailed, sms.LegRejected}},
		{"005", []sms.LegState{sms.LegExpired, sms.LegUndelivered, sms.LegFailed}},
	} {
		one("receipts "+tt.suffix, func(t *testing.T, b *bench) {
			if _, err := b.vendor.Send(t.Context(), b.leg(t, tt.suffix)); err != nil {
				t.Fatal(err)
			}
			reports, _, _ := b.settled(t)
			if len(reports) == 0 || !slices.Contains(tt.states, reports[len(reports)-1].State) || reports[len(reports)-1].Class == "" {
				t.Errorf("reports %+v: want one of %v with a class at the end", reports, tt.states)
			}
		})
	}
	one("receipts early, twice, out of order", func(t *testing.T, b *bench) { // WH-2, WH-4, F-47, F-48
		if _, err := b.vendor.Send(t.Context(), b.leg(t, "010")); err != nil {
			t.Fatal(err)
		}
		reports, _, _ := b.settled(t)
		keys := map[string]sms.LegState{}
		for _, r := range reports {
			if state, seen := keys[r.Key]; seen && state != r.State {
				t.Errorf("key %q is that of %s and of %s", r.Key, state, r.State)
			}
			keys[r.Key] = r.State
		}
		if len(reports) != 2*len(keys) {
			t.Errorf("%d reports with %d keys: copies are not told apart from news: %+v", len(reports), len(keys), reports)
		}
	})
	one("receipts forged", func(t *testing.T, b *bench) { // WH-1, WH-9, WH-14
		if _, err := b.vendor.Send(t.Context(), b.leg(t, told)); err != nil {
			t.Fatal(err)
		}
		_, _, hooks := b.settled(t)
		receiver, ok := b.vendor.(sms.Receiver)
		if !ok || len(hooks) == 0 {
			t.Fatal("no webhook came")
		}
		other := b.setup
		other.Account.Secret, other.Account.Signing, other.Token = flip(other.Account.Secret), flip(other.Account.Signing), "another-token-of-another-vendor-entirely"
		stranger, ok := d.New(t, other).(sms.Receiver)
		if !ok {
			t.Fatal("not a receiver")
		}
		for _, hook := range hooks {
			refuse := func(what string, r sms.Receiver, w sms.Webhook) {
				t.Helper()
				if got, err := r.Receive(w); !errors.Is(err, sms.ErrForged) || len(got.Reports)+len(got.Inbound) > 0 {
					t.Errorf("%s: %+v, %v; want ErrForged", what, got, err)
				}
			}
			refuse("another secret", stranger, hook)
			bare := hook
			bare.Header, bare.Token = http.Header{"Content-Type": hook.Header["Content-Type"]}, ""
			if !strings.Contains(bare.URL+string(bare.Body), "sig=") && !strings.Contains(string(bare.Body), `"sig":`) { // else it is one of the parameters
				refuse("no signature", receiver, bare)
			}
			if d.Unsigned {
				continue
			}
			changed := hook
			changed.Body = slices.Clone(hook.Body)
			if len(changed.Body) == 0 {
				changed.URL = strings.Replace(hook.URL, "=", "=x", 1)
			} else {
				changed.Body[len(changed.Body)/2] ^= 1
			}
			if _, err := receiver.Receive(changed); err == nil {
				t.Error("another body: accepted")
			}
			for _, junk := range []string{"", "{", "[]", "null", "\x00\xff", `{"a":{"a":{"a":1}}}`, "a=1&a=2&a[]=3", "<!DOCTYPE x [<!ENTITY y SYSTEM \"file:///etc/passwd\">]><x>&y;</x>"} {
				spoilt := hook
				spoilt.Body = []byte(junk)
				if _, err := receiver.Receive(spoilt); err == nil && junk != string(hook.Body) {
					t.Errorf("body %q: accepted", junk)
				}
			}
		}
	})
	if d.Unsigned {
		one("receipts malformed", func(t *testing.T, b *bench) { // WH-14
			receiver, ok := b.vendor.(sms.Receiver)
			if !ok {
				t.Fatal("not a receiver")
			}
			for _, junk := range []string{"", "{", "[1]", "null", "\x00\xff", `{"a":{"a":{"a":1}}}`, "a=1&a=2", "<x/>"} {
				got, err := receiver.Receive(sms.Webhook{Method: http.MethodPost, URL: b.callback(), Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(junk), Token: token, At: Noon})
				if !errors.Is(err, sms.ErrMalformed) || len(got.Reports)+len(got.Inbound) > 0 {
					t.Errorf("body %q: %+v, %v; want ErrMalformed", junk, got, err)
				}
			}
		})
	}
	if d.TimeSigned {
		one("receipts stale", func(t *testing.T, b *bench) { // WH-3
			if _, err := b.vendor.Send(t.Context(), b.leg(t, told)); err != nil {
				t.Fatal(err)
			}
			_, _, hooks := b.settled(t)
			receiver, ok := b.vendor.(sms.Receiver)
			if !ok || len(hooks) == 0 {
				t.Fatal("no webhook came")
			}
			for _, shift := range []time.Duration{6 * time.Minute, -6 * time.Minute} {
				late := hooks[0]
				late.At = Noon.Add(shift)
				if _, err := receiver.Receive(late); !errors.Is(err, sms.ErrStale) {
					t.Errorf("at %v: %v, want ErrStale", shift, err)
				}
			}
		})
	}
	if !d.Inbound {
		return
	}
	one("inbound STOP", func(t *testing.T, b *bench) { // WH-8
		l := b.leg(t, "143")
		if _, err := b.vendor.Send(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		b.sim.Wait()
		if !b.sim.Reply(l.To.Reveal(), "", "STOP") {
			t.Fatal("the phone has nothing to answer")
		}
		_, inbound, _ := b.settled(t)
		if len(inbound) != 1 || inbound[0].From.Reveal() != l.To.Reveal() || inbound[0].Keyword != sms.KeywordStop && sms.ReadKeyword(inbound[0].Text) != sms.KeywordStop || inbound[0].Key == "" {
			t.Errorf("inbound %+v: want STOP of the phone, with a key", inbound)
		}
	})
}

func flip(secret string) string {
	if secret == "" {
		return ""
	}
	if prefix, rest, found := strings.Cut(secret, "_"); found && prefix == "whsec" {
		return "whsec_" + strings.ToUpper(rest[:4]) + strings.ToLower(rest[4:8]) + rest[8:]
	}
	return secret[1:] + "x"
}

func runSessions(t *testing.T, d Driver, one func(string, func(*testing.T, *bench))) {
	probe := newBench(t, d).vendor
	open := func(t *testing.T, b *bench) (sms.Leg, sms.Session, string) {
		t.Helper()
		l := b.leg(t, "143")
		got, err := b.vendor.Send(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		text := b.arrived(l)[0].Text
		return l, sms.Session{Leg: l.ID, ID: got.Session, To: l.To, Channel: l.Channel}, text[strings.LastIndex(text, " ")+1:]
	}
	if _, ok := probe.(sms.Checker); ok && probe.Abilities().Kind == sms.Verifier {
		check := func(t *testing.T, b *bench, s sms.Session, answer string) (sms.Verdict, error) {
			t.Helper()
			checker, ok := b.vendor.(sms.Checker)
			if !ok {
				t.Fatal("not a checker")
			}
			return checker.Check(t.Context(), s, answer)
		}
		one("check", func(t *testing.T, b *bench) {
			_, s, right := open(t, b)
			if got, err := check(t, b, s, "000000"); err != nil || got != sms.Denied {
				t.Errorf("a wrong code: %v, %v", got, err)
			}
			if got, err := check(t, b, s, right); err != nil || got != sms.Approved {
				t.Errorf("the right code: %v, %v", got, err)
			}
			if got, _ := check(t, b, s, right); got == sms.Approved {
				t.Error("the right code passed twice")
			}
			s.ID = "unknown"
			if got, _ := check(t, b, s, right); got == sms.Approved {
				t.Error("an unknown session passed")
			}
		})
		one("check without an answer", func(t *testing.T, b *bench) {
			for _, how := range []string{"drop", "garbage", "oversize", "redirect"} {
				_, s, right := open(t, b)
				b.sim.SetFaults(carriersim.Faults{Vendor: d.Dialect, Spoil: 2, How: how})
				if got, err := check(t, b, s, right); got == sms.Approved || err == nil {
					t.Errorf("%s: %v, %v; want an error", how, got, err)
				}
				b.sim.SetFaults(carriersim.Faults{Vendor: d.Dialect})
			}
			_, s, right := open(t, b)
			b.sim.SetFaults(carriersim.Faults{Vendor: d.Dialect, Outage: true})
			if got, err := check(t, b, s, right); got == sms.Approved || err == nil {
				t.Errorf("outage: %v, %v; want an error", got, err)
			}
		})
		if d.WrongTries > 0 {
			one("check exhausted", func(t *testing.T, b *bench) {
				_, s, right := open(t, b)
				for range d.WrongTries {
					check(t, b, s, "000000") //nolint:errcheck // wrong each time
				}
				if got, _ := check(t, b, s, right); got == sms.Approved {
					t.Error("the right code passed after too many wrong ones")
				}
			})
		}
	}
	if _, ok := probe.(sms.Continuer); ok {
		one("continue", func(t *testing.T, b *bench) {
			l, s, first := open(t, b)
			again := l
			again.ID = uuid.New()
			channels := b.vendor.Abilities().Channels
			again.Channel = channels[len(channels)-1]
			continuer, ok := b.vendor.(sms.Continuer)
			if !ok {
				t.Fatal("not a continuer")
			}
			if _, err := continuer.Continue(t.Context(), s, again); err != nil {
				t.Fatal(err)
			}
			texts := b.arrived(l)
			if len(texts) != 2 || !strings.HasSuffix(texts[0].Text, first) || texts[0].Channel != string(again.Channel) {
				t.Errorf("arrived %+v: want the same code again, by %s", texts, again.Channel)
			}
		})
	}
	if _, ok := probe.(sms.Closer); ok {
		one("close", func(t *testing.T, b *bench) {
			closer, ok := b.vendor.(sms.Closer)
			if !ok {
				t.Fatal("not a closer")
			}
			for _, verified := range []bool{true, false} {
				_, s, _ := open(t, b)
				for range 2 { // once more changes nothing
					if err := closer.Close(t.Context(), s, verified); err != nil {
						t.Errorf("Close(%t): %v", verified, err)
					}
				}
			}
			_, s, right := open(t, b)
			if err := closer.Close(t.Context(), s, false); err != nil {
				t.Error(err)
			}
			if checker, ok := b.vendor.(sms.Checker); ok {
				if got, _ := checker.Check(t.Context(), s, right); got == sms.Approved {
					t.Error("the code of a canceled session passed")
				}
			}
		})
	}
	if _, ok := probe.(sms.Poller); ok {
		one("poll", func(t *testing.T, b *bench) {
			_, s, _ := open(t, b)
			b.sim.Wait()
			poller, ok := b.vendor.(sms.Poller)
			if !ok {
				t.Fatal("not a poller")
			}
			if got, err := poller.Poll(t.Context(), s); err != nil || got.State != sms.LegDelivered {
				t.Errorf("Poll = %+v, %v; want delivered", got, err)
			}
		})
	}
}
