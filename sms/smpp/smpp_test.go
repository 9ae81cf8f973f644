package smpp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/linxGnu/gosmpp/data"
	"github.com/linxGnu/gosmpp/pdu"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/smpp"
)

const code = "482910"

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// patience is how long anything may take before a test gives up.
const patience = 20 * time.Second

// link is a driver and what it says.
type link struct {
	vendor  *smpp.Vendor
	config  smpp.Config
	changed chan error
	news    chan sms.Received
	told    func(sms.Received) error // before news; nil: all is well
	ticks   chan time.Time           // enquire_link is due
	again   chan time.Time           // back-off is over: closed unless a test holds it
	backOff chan time.Duration
	stop    context.CancelFunc
	ended   chan error
}

// newLink makes a driver for the SMSC at addr.
func newLink(t *testing.T, addr string, change ...func(*smpp.Config)) *link {
	t.Helper()
	l := &link{
		changed: make(chan error, 1000), news: make(chan sms.Received, 1000), ticks: make(chan time.Time), again: make(chan time.Time), backOff: make(chan time.Duration, 1000),
		ended: make(chan error, 1),
	}
	close(l.again)
	l.config = smpp.Config{
		URL: "smpp://" + addr, SystemID: "watchword", Password: "smppword", Sender: "ACME", Rate: 100_000, Changed: func(err error) { l.changed <- err },
		After: func(d time.Duration) <-chan time.Time {
			if d == 30*time.Second {
				return l.ticks
			}
			l.backOff <- d
			return l.again
		},
	}
	for _, c := range change {
		c(&l.config)
	}
	var err error
	if l.vendor, err = smpp.New("smsc", l.config); err != nil {
		t.Fatal(err)
	}
	return l
}

// run starts it, and waits until it has tried to bind.
func (l *link) run(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l.stop = cancel
	go func() {
		l.ended <- l.vendor.Run(ctx, func(_ context.Context, r sms.Received) error {
			if l.told != nil {
				if err := l.told(r); err != nil {
					return err
				}
			}
			l.news <- r
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := get(t, l.ended, "the end"); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return get(t, l.changed, "a bind")
}

// get waits for what c will give.
func get[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		return v
	}
}

// listener shows what connections it took.
type listener struct {
	net.Listener
	conns chan net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.conns <- conn
	}
	return conn, err
}

func listen(t *testing.T) *listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &listener{ln, make(chan net.Conn, 1000)}
}

// bench is a link to the simulator.
type bench struct {
	*link
	sim *carriersim.Simulator
	ln  *listener
}

func serve(t *testing.T, sim *carriersim.Simulator, ln net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- sim.ServeSMPP(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := get(t, served, "the simulator's end"); err != nil {
			t.Errorf("ServeSMPP: %v", err)
		}
		sim.Wait()
	})
}

func newBench(t *testing.T, mode string, change ...func(*smpp.Config)) *bench {
	t.Helper()
	b := &bench{sim: carriersim.New(carriersim.Options{Now: func() time.Time { return noon }}), ln: listen(t)}
	a := b.sim.Account("smpp")
	a.Mode = mode
	b.sim.SetAccount("smpp", a)
	serve(t, b.sim, b.ln)
	b.link = newLink(t, b.ln.Addr().String(), change...)
	return b
}

func bound(t *testing.T, mode string, change ...func(*smpp.Config)) *bench {
	t.Helper()
	b := newBench(t, mode, change...)
	if err := b.run(t); err != nil {
		t.Fatalf("bind: %v", err)
	}
	return b
}

// settled waits for every receipt and gives what they said.
func (b *bench) settled() (reports []sms.Report, inbound []sms.Inbound) {
	b.sim.Wait()
	for {
		select {
		case r := <-b.news:
			reports, inbound = append(reports, r.Reports...), append(inbound, r.Inbound...)
		default:
			return reports, inbound
		}
	}
}

func (b *bench) arrived(l sms.Leg) []carriersim.Message { return b.sim.Messages(l.To.Reveal()) }

func leg(t *testing.T, suffix string) sms.Leg {
	t.Helper()
	to, err := sms.ParseNumber("+12025550"+suffix, "")
	if err != nil {
		t.Fatal(err)
	}
	return sms.Leg{ID: uuid.New(), To: to, Channel: sms.SMS, Text: "Never share this code: " + code + " <&> \"é\"", Code: code, Purpose: "login", Life: 5 * time.Minute}
}

// failure holds err against what is wanted of it, and against what it must never show.
func failure(t *testing.T, err error, l sms.Leg, reached sms.Reached, classes ...sms.Class) seen {
	t.Helper()
	e, ok := errors.AsType[*sms.Error](err)
	switch {
	case !ok:
		t.Fatalf("error = %v (%T), want an *sms.Error", err, err)
	case !slices.Contains(classes, e.Class):
		t.Fatalf("error = %v, want class %v", err, classes)
	case e.Reached != reached:
		t.Fatalf("error = %v with reached = %d, want %d", err, e.Reached, reached)
	case e.Vendor != "smsc":
		t.Errorf("error names vendor %q", e.Vendor)
	}
	for _, secret := range []string{code, strings.TrimPrefix(l.To.Reveal(), "+"), "smppword", "127.0.0.1"} {
		if shown := fmt.Sprintf("%v %v %v", err, e.Code, e.Cause); strings.Contains(shown, secret) {
			t.Errorf("an error shows %q: %s", secret, shown)
		}
	}
	return seen{Class: e.Class, Code: e.Code, RetryAfter: e.RetryAfter}
}

// seen is what a failure said.
type seen struct {
	Class      sms.Class
	Code       string
	RetryAfter time.Duration
}

func TestSuccess(t *testing.T) {
	t.Parallel()
	b := bound(t, "")
	l := leg(t, "143")
	got, err := b.vendor.Send(t.Context(), l)
	texts := b.arrived(l)
	if err != nil || got.Ref == "" || got.Session != "" || len(texts) != 1 || texts[0].Text != l.Text || texts[0].From != "ACME" || texts[0].Channel != "sms" {
		t.Errorf("Send = %+v, %v; arrived %+v", got, err, texts)
	}
	if shown := fmt.Sprintf("%v %+v %#v", b.vendor, b.vendor, b.vendor); strings.Contains(shown, "smppword") {
		t.Errorf("a printed vendor shows its password: %s", shown)
	}
	if a := b.vendor.Abilities(); a.Idempotency != sms.NoKey || a.Kind != sms.Gateway {
		t.Errorf("abilities %+v", a)
	}
	if _, err := b.vendor.Send(t.Context(), l); err != nil || len(b.arrived(l)) != 2 {
		t.Errorf("repeat: %v, %d arrived; the protocol knows no repetition", err, len(b.arrived(l)))
	}
	if _, err := b.vendor.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	if err := b.vendor.Run(t.Context(), nil); !errors.Is(err, smpp.ErrRunning) {
		t.Errorf("a second Run: %v", err)
	}
}

// Texts in every alphabet arrive as they were, in one text and in many segments.
func TestTexts(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"", "latin1"} {
		b := bound(t, mode, func(c *smpp.Config) {
			if mode != "" {
				c.Alphabet = smpp.Latin1
			}
		})
		l := leg(t, "143")
		for _, text := range []string{
			"@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCÄÖÑÜ§¿abcäöñüà^{}\\[~]|€", "Votre code être", "код 482910 🔑", "代码",
			strings.Repeat("x", 160), strings.Repeat("é", 161), strings.Repeat("x", 700), strings.Repeat("код", 200), "line\nline\n\n@example.com #482910",
		} {
			l.Text = text
			if _, err := b.vendor.Send(t.Context(), l); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if got := b.arrived(l)[0].Text; got != text {
				t.Errorf("mode %q: arrived %q, want %q", mode, got, text)
			}
		}
		l.Text = strings.Repeat("x", 2000)
		_, err := b.vendor.Send(t.Context(), l)
		failure(t, err, l, sms.NotSent, sms.ContentRejected)
		b.settled()
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]func(*smpp.Config){
		"password":  func(c *smpp.Config) { c.Password = "SMPPWORD" },
		"system id": func(c *smpp.Config) { c.SystemID = "somebody" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "", wrong)
			if _, err := b.vendor.Ping(t.Context()); err == nil {
				t.Error("Ping is content with wrong credentials")
			}
			b.again = make(chan time.Time)
			l := leg(t, "143")
			failure(t, b.run(t), l, sms.NotSent, sms.Unauthorized)
			_, err := b.vendor.Send(t.Context(), l)
			failure(t, err, l, sms.NotSent, sms.Unauthorized)
			if _, err := b.vendor.Ping(t.Context()); err == nil {
				t.Error("Ping is content with wrong credentials while it runs")
			}
			if wait := get(t, b.backOff, "a wait"); wait < 30*time.Second {
				t.Errorf("tries again after %s: an account may be locked", wait)
			}
		})
	}
	b := newBench(t, "")
	if _, err := b.vendor.Ping(t.Context()); err != nil {
		t.Errorf("Ping by a session of its own: %v", err)
	}
}

func TestClasses(t *testing.T) {
	t.Parallel()
	for _, class := range []sms.Class{
		sms.InvalidRecipient, sms.RecipientUnreachable, sms.InvalidSender, sms.Misconfigured, sms.ContentRejected, sms.Unauthorized, sms.RateLimited, sms.Temporary,
	} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			b := bound(t, "")
			b.sim.SetFaults(carriersim.Faults{Vendor: "smpp", Fail: 1, Class: string(class)})
			l := leg(t, "143")
			_, err := b.vendor.Send(t.Context(), l)
			e := failure(t, err, l, sms.NotSent, class)
			if len(b.arrived(l)) != 0 {
				t.Error("it arrived all the same")
			}
			if (class == sms.RateLimited) != (e.RetryAfter > 0) {
				t.Errorf("retry after %s", e.RetryAfter)
			}
			if _, err := b.vendor.Send(t.Context(), l); err != nil {
				t.Errorf("the next: %v", err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	ln.Close()
	l := newLink(t, ln.Addr().String())
	m := leg(t, "143")
	_, err := l.vendor.Send(t.Context(), m)
	if e := failure(t, err, m, sms.NotSent, sms.Temporary); e.Code != "not_bound" {
		t.Errorf("before Run: %v", e)
	}
	held := make(chan time.Time)
	l.again = held
	failure(t, l.run(t), m, sms.NotSent, sms.Temporary)
	_, err = l.vendor.Send(t.Context(), m)
	failure(t, err, m, sms.NotSent, sms.Temporary)
	for i := range 10 { // 1 s, and then up to a minute
		least, most := time.Second<<min(i, 5), 2*time.Second<<min(i, 5)
		if i >= 5 {
			least, most = 30*time.Second, time.Minute
		}
		if wait := get(t, l.backOff, "a wait"); wait < least || wait > most {
			t.Errorf("wait %d = %s, want %s to %s", i, wait, least, most)
		}
		held <- noon
		get(t, l.changed, "another try") //nolint:errcheck // that it was told is all
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	b := bound(t, "")
	b.sim.SetFaults(carriersim.Faults{Vendor: "smpp", Outage: true})
	l := leg(t, "143")
	_, err := b.vendor.Send(t.Context(), l)
	failure(t, err, l, sms.NotSent, sms.Temporary)
}

func TestBrokenAtFirst(t *testing.T) {
	t.Parallel()
	b := bound(t, "")
	l := leg(t, "006")
	_, err := b.vendor.Send(t.Context(), l)
	failure(t, err, l, sms.NotSent, sms.Temporary)
	if _, err := b.vendor.Send(t.Context(), l); err != nil || len(b.arrived(l)) != 1 {
		t.Errorf("second try: %v, %d arrived", err, len(b.arrived(l)))
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"drop", "garbage", "oversize", "redirect"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			b := bound(t, "")
			b.sim.SetFaults(carriersim.Faults{Vendor: "smpp", Spoil: 1, How: how})
			l := leg(t, "143")
			_, err := b.vendor.Send(t.Context(), l)
			failure(t, err, l, sms.MaybeSent, sms.Ambiguous)
			if how != "redirect" { // the stream is lost: once more from the beginning
				failure(t, get(t, b.changed, "the loss"), l, sms.NotSent, sms.Temporary)
				if err := get(t, b.changed, "another bind"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.vendor.Send(t.Context(), leg(t, "144")); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		b := bound(t, "")
		b.sim.SetFaults(carriersim.Faults{Vendor: "smpp", Spoil: 1, How: "silent"})
		l := leg(t, "143")
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := b.vendor.Send(ctx, l)
		failure(t, err, l, sms.MaybeSent, sms.Ambiguous)
	})
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name string
		id   smpp.ReceiptID
	}{
		{"", smpp.Same}, {"tlv", smpp.Same}, {"text", smpp.Same}, {"hex", smpp.DecToHex}, {"hex text", smpp.DecToHex}, {"dec", smpp.HexToDec}, {"dec text", smpp.HexToDec},
	} {
		t.Run(fmt.Sprintf("%q", mode.name), func(t *testing.T) {
			t.Parallel()
			for _, tt := range []struct {
				suffix string
				last   sms.LegState
				class  sms.Class
			}{
				{"143", sms.LegDelivered, ""}, {"004", sms.LegUndelivered, sms.RecipientUnreachable}, {"005", sms.LegExpired, sms.RecipientUnreachable}, {"009", "", ""},
			} {
				b := bound(t, mode.name, func(c *smpp.Config) { c.ReceiptID = mode.id })
				got, err := b.vendor.Send(t.Context(), leg(t, tt.suffix))
				if err != nil {
					t.Fatal(err)
				}
				reports, _ := b.settled()
				if tt.last == "" {
					if len(reports) != 0 {
						t.Errorf("%s: reports %+v", tt.suffix, reports)
					}
					continue
				}
				if len(reports) != 2 || reports[0].State != sms.LegSent || reports[1].State != tt.last || reports[1].Class != tt.class {
					t.Fatalf("%s: reports %+v, want sent and %s with class %q", tt.suffix, reports, tt.last, tt.class)
				}
				for _, r := range reports {
					if r.Ref != got.Ref || r.Key == "" || strings.Contains(fmt.Sprintf("%+v", r), code) {
						t.Errorf("%s: report %+v of text %q", tt.suffix, r, got.Ref)
					}
				}
				if wantCode := tt.class != "" && mode.name != "tlv"; (reports[1].Code != "") != wantCode {
					t.Errorf("%s: code %q", tt.suffix, reports[1].Code)
				}
			}
		})
	}
}

// Where ids are written in two ways and nobody says so, no report may name a text that it is not of.
func TestReceiptMismatch(t *testing.T) {
	t.Parallel()
	b := bound(t, "hex")
	got, err := b.vendor.Send(t.Context(), leg(t, "143"))
	if err != nil {
		t.Fatal(err)
	}
	reports, _ := b.settled()
	for _, r := range reports {
		if r.Ref == got.Ref {
			t.Errorf("report %+v", r)
		}
	}
}

func TestReceiptsEarlyTwiceOutOfOrder(t *testing.T) {
	t.Parallel()
	b := bound(t, "")
	if _, err := b.vendor.Send(t.Context(), leg(t, "010")); err != nil {
		t.Fatal(err)
	}
	reports, _ := b.settled()
	keys := map[string]sms.LegState{}
	for _, r := range reports {
		if state, seen := keys[r.Key]; seen && state != r.State {
			t.Errorf("key %q is that of %s and of %s", r.Key, state, r.State)
		}
		keys[r.Key] = r.State
	}
	if len(reports) != 4 || len(keys) != 2 || reports[0].State != sms.LegDelivered {
		t.Errorf("%d reports with %d keys: %+v", len(reports), len(keys), reports)
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	b := bound(t, "", func(c *smpp.Config) { c.Sender = "+12025550100" })
	l := leg(t, "143")
	if _, err := b.vendor.Send(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	b.settled()
	keys := map[string]bool{}
	for _, text := range []string{"STOP", "Arrêt", "STOP", "стоп " + strings.Repeat("б", 200)} {
		if !b.sim.Reply(l.To.Reveal(), "", text) {
			t.Fatal("the phone has nothing to answer")
		}
		_, inbound := b.settled()
		if len(inbound) != 1 || inbound[0].From != l.To || inbound[0].To != "+12025550100" || inbound[0].Text != text || keys[inbound[0].Key] {
			t.Errorf("inbound %+v, want %q with a key of its own", inbound, text)
			continue
		}
		keys[inbound[0].Key] = true
	}
	if sms.ReadKeyword("Arrêt") != sms.KeywordStop {
		t.Error("not a keyword")
	}
	_, err := b.vendor.Send(t.Context(), l)
	failure(t, err, l, sms.NotSent, sms.InvalidRecipient) // that is all an SMSC can say
}

// What was not stored comes again; when the link drops meanwhile, to the next one.
func TestReconnect(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	first, seen := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.told = func(sms.Received) (err error) {
		once.Do(func() {
			close(seen)
			<-first
			err = errors.New("not stored")
		})
		return err
	}
	if err := b.run(t); err != nil {
		t.Fatal(err)
	}
	l := leg(t, "143")
	got, err := b.vendor.Send(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	get(t, seen, "a receipt")
	get(t, b.ln.conns, "a connection").Close()
	close(first)
	failure(t, get(t, b.changed, "the loss"), l, sms.NotSent, sms.Temporary)
	if err := get(t, b.changed, "another bind"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []sms.LegState{sms.LegSent, sms.LegDelivered} {
		if r := get(t, b.news, "a late receipt").Reports[0]; r.State != want || r.Ref != got.Ref {
			t.Errorf("report %+v, want %s of %s", r, want, got.Ref)
		}
	}
	if _, err := b.vendor.Send(t.Context(), leg(t, "144")); err != nil {
		t.Errorf("on the new link: %v", err)
	}
}

// A text whose answer was lost with the link has its receipts later all the same.
func TestDropThenReceipts(t *testing.T) {
	t.Parallel()
	b := bound(t, "")
	l := leg(t, "007")
	_, err := b.vendor.Send(t.Context(), l)
	failure(t, err, l, sms.MaybeSent, sms.Ambiguous)
	for _, want := range []sms.LegState{sms.LegSent, sms.LegDelivered} {
		if r := get(t, b.news, "a receipt").Reports[0]; r.State != want {
			t.Errorf("report %+v, want %s", r, want)
		}
	}
	if len(b.arrived(l)) != 1 {
		t.Error("it was sent again")
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	sim := carriersim.New(carriersim.Options{Now: func() time.Time { return noon }})
	ln := listen(t)
	serve(t, sim, tls.NewListener(ln, &tls.Config{Certificates: server.TLS.Certificates, MinVersion: tls.VersionTLS12}))
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, host, ca string
		works          bool
	}{{"known", "127.0.0.1", ca, true}, {"unknown authority", "127.0.0.1", "", false}, {"another name", "localhost", ca, false}} {
		l := newLink(t, "", func(c *smpp.Config) { c.URL, c.CA = "smpps://"+tt.host+":"+port, tt.ca })
		l.again = make(chan time.Time)
		if !tt.works {
			failure(t, l.run(t), leg(t, "143"), sms.NotSent, sms.Misconfigured)
			continue
		}
		if err := l.run(t); err != nil {
			t.Fatal(err)
		}
		if _, err := l.vendor.Send(t.Context(), leg(t, "143")); err != nil {
			t.Error(err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := smpp.Config{URL: "smpps://smsc.example", SystemID: "acme", Password: "s3cret"}
	if _, err := smpp.New("x", good); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
	for name, change := range map[string]func(*smpp.Config){
		"no address":         func(c *smpp.Config) { c.URL = "" },
		"not smpp":           func(c *smpp.Config) { c.URL = "https://smsc.example" },
		"plain":              func(c *smpp.Config) { c.URL = "smpp://smsc.example:2775" },
		"secret in address":  func(c *smpp.Config) { c.URL = "smpps://acme:s3cret@smsc.example" },
		"no system id":       func(c *smpp.Config) { c.SystemID = "" },
		"long system id":     func(c *smpp.Config) { c.SystemID = "1234567890123456" },
		"long password":      func(c *smpp.Config) { c.Password = "123456789" },
		"password with zero": func(c *smpp.Config) { c.Password = "a\x00b" },
		"long system type":   func(c *smpp.Config) { c.SystemType = "1234567890123" },
		"authority":          func(c *smpp.Config) { c.CA = "no PEM" },
		"sender":             func(c *smpp.Config) { c.Sender = "ACME Corporation" },
		"sender with zero":   func(c *smpp.Config) { c.Sender = "AC\x00ME" },
		"source":             func(c *smpp.Config) { c.Source = "5" },
		"destination":        func(c *smpp.Config) { c.Destination = "1/300" },
		"alphabet":           func(c *smpp.Config) { c.Alphabet = "ebcdic" },
		"receipt id":         func(c *smpp.Config) { c.ReceiptID = "octal" },
		"error rule":         func(c *smpp.Config) { c.Errors = []string{"0x0401=broken"} },
		"success as error":   func(c *smpp.Config) { c.Errors = []string{"0=temporary"} },
		"window":             func(c *smpp.Config) { c.Window = -1 },
		"rate":               func(c *smpp.Config) { c.Rate = -1 },
	} {
		c := good
		change(&c)
		if _, err := smpp.New("x", c); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	good.URL, good.AllowPlain = "smpp://smsc.example", true
	if _, err := smpp.New("x", good); err != nil {
		t.Errorf("plain where it is allowed: %v", err)
	}
}

// ---- an SMSC that does what each test wants, by hand

type smsc struct {
	t    *testing.T
	conn net.Conn
}

// scripted binds a driver to an SMSC by hand.
func scripted(t *testing.T, change ...func(*smpp.Config)) (*link, *smsc) {
	t.Helper()
	ln := listen(t)
	taken := make(chan *smsc, 1)
	go func() {
		first := true
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s := &smsc{t, conn}
			p := s.read()
			if p == nil {
				continue // it was stopped meanwhile
			}
			bind, ok := p.(*pdu.BindRequest)
			if !ok || bind.SystemID != "watchword" || bind.Password != "smppword" || bind.InterfaceVersion != 0x34 || bind.BindingType != pdu.Transceiver {
				t.Errorf("bind %+v", bind)
				return
			}
			s.write(bind.GetResponse())
			if first {
				first = false
				taken <- s
				continue
			}
			for p := s.read(); p != nil; p = s.read() { // the next ones are polite by themselves
				if p.CanResponse() {
					s.write(p.GetResponse())
				}
			}
		}
	}()
	l := newLink(t, ln.Addr().String(), change...)
	if err := l.run(t); err != nil {
		t.Fatal(err)
	}
	s := get(t, taken, "a connection")
	t.Cleanup(func() { s.conn.Close() })
	return l, s
}

// read gives nil when the driver has gone.
func (s *smsc) read() pdu.PDU {
	s.conn.SetReadDeadline(time.Now().Add(patience))
	p, err := pdu.Parse(s.conn)
	if err != nil {
		return nil
	}
	return p
}

func (s *smsc) write(p pdu.PDU) {
	b := pdu.NewBuffer(nil)
	p.Marshal(b)
	s.conn.Write(b.Bytes())
}

func (s *smsc) submitted() *pdu.SubmitSM {
	s.t.Helper()
	p := s.read()
	m, ok := p.(*pdu.SubmitSM)
	if !ok {
		s.t.Fatalf("read %T, want a submit_sm", p)
	}
	return m
}

func (s *smsc) answer(m *pdu.SubmitSM, status data.CommandStatusType, id string) {
	r := m.GetResponse().(*pdu.SubmitSMResp)
	r.CommandStatus, r.MessageID = status, id
	s.write(r)
}

type sent struct {
	got sms.Accepted
	err error
}

func (l *link) send(ctx context.Context, m sms.Leg) <-chan sent {
	done := make(chan sent, 1)
	go func() {
		got, err := l.vendor.Send(ctx, m)
		done <- sent{got, err}
	}()
	return done
}

// Every status that the specification has a meaning for, and one of the carrier's own.
func TestStatuses(t *testing.T) {
	t.Parallel()
	l, s := scripted(t, func(c *smpp.Config) { c.Errors = []string{"0x0401 = insufficient_funds", "1026=blocked_fraud"} })
	m := leg(t, "143")
	for _, tt := range []struct {
		status data.CommandStatusType
		class  sms.Class
		code   string
	}{
		{data.ESME_RSYSERR, sms.Temporary, "0x08"}, {data.ESME_RINVSRCADR, sms.InvalidSender, "0x0A"}, {data.ESME_RINVDSTADR, sms.InvalidRecipient, "0x0B"},
		{data.ESME_RINVPASWD, sms.Unauthorized, "0x0E"}, {data.ESME_RMSGQFUL, sms.Temporary, "0x14"}, {data.ESME_RSUBMITFAIL, sms.Temporary, "0x45"},
		{data.ESME_RTHROTTLED, sms.RateLimited, "0x58"}, {data.ESME_RINVEXPIRY, sms.Misconfigured, "0x62"}, {data.ESME_RDELIVERYFAILURE, sms.RecipientUnreachable, "0xFE"},
		{0x401, sms.InsufficientFunds, "0x401"}, {0x402, sms.BlockedFraud, "0x402"}, {0x403, sms.Misconfigured, "0x403"}, {-1, sms.Misconfigured, "0xFFFFFFFF"},
	} {
		done := l.send(t.Context(), m)
		s.answer(s.submitted(), tt.status, "")
		if e := failure(t, get(t, done, "an answer").err, m, sms.NotSent, tt.class); e.Code != tt.code {
			t.Errorf("status %x: code %q, want %q", tt.status, e.Code, tt.code)
		}
	}
	// A header alone is how many refuse.
	done := l.send(t.Context(), m)
	seq := byte(s.submitted().SequenceNumber)
	s.conn.Write([]byte{0, 0, 0, 16, 0x80, 0, 0, 4, 0, 0, 0, 0x0B, 0, 0, 0, seq})
	failure(t, get(t, done, "an answer").err, m, sms.NotSent, sms.InvalidRecipient)
	// A success that cannot be read is none.
	done = l.send(t.Context(), m)
	seq = byte(s.submitted().SequenceNumber)
	s.conn.Write([]byte{0, 0, 0, 18, 0x80, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, seq, 'a', 'b'})
	failure(t, get(t, done, "an answer").err, m, sms.MaybeSent, sms.Ambiguous)
	for _, id := range []string{"a\xffb", "a\x01b", strings.Repeat("a", 66)} {
		done = l.send(t.Context(), m)
		s.answer(s.submitted(), data.ESME_ROK, id)
		failure(t, get(t, done, "an answer").err, m, sms.MaybeSent, sms.Ambiguous)
	}
	for status, class := range map[data.CommandStatusType]sms.Class{data.ESME_RINVCMDLEN: sms.Misconfigured, data.ESME_ROK: sms.Ambiguous} {
		done = l.send(t.Context(), m)
		nack := pdu.NewGenericNack().(*pdu.GenericNack)
		nack.SequenceNumber, nack.CommandStatus = s.submitted().SequenceNumber, status
		s.write(nack)
		reached := sms.NotSent
		if class == sms.Ambiguous {
			reached = sms.MaybeSent
		}
		failure(t, get(t, done, "an answer").err, m, reached, class)
	}
	// Answers to nobody change nothing.
	for _, p := range []pdu.PDU{pdu.NewSubmitSMResp(), pdu.NewGenericNack(), pdu.NewEnquireLinkResp()} {
		p.SetSequenceNumber(99_999)
		s.write(p)
	}
	done = l.send(t.Context(), m)
	s.answer(s.submitted(), data.ESME_ROK, "0A12")
	if r := get(t, done, "an answer"); r.err != nil || r.got.Ref != "0A12" {
		t.Errorf("Send = %+v", r)
	}
}

// What goes over the wire, octet by octet where it matters.
func TestSubmit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		change         func(*smpp.Config)
		sender, text   string
		life           time.Duration
		from           string // type/plan/address
		to             string
		validity       string
		coding         byte
		short, payload string
	}{
		{name: "letters", sender: "ACME", text: "é@_{}", life: 5 * time.Minute, from: "5/0/ACME", to: "1/1/12025550143", validity: "000000000500000R", short: "\x05\x00\x11\x1b\x28\x1b\x29"},
		{name: "long number", sender: "+12025550100", text: "a", life: 90061 * time.Second, from: "1/1/12025550100", to: "1/1/12025550143", validity: "000001010101000R", short: "a"},
		{name: "digits", sender: "12025550100", text: "a", life: 1, from: "1/1/12025550100", to: "1/1/12025550143", validity: "000000000001000R", short: "a"},
		{name: "short code", sender: "72345", text: "a", from: "3/0/72345", to: "1/1/12025550143", short: "a"},
		{name: "no sender", text: "a", from: "0/0/", to: "1/1/12025550143", short: "a"},
		{name: "plans", change: func(c *smpp.Config) { c.Source, c.Destination = "0/1", "2/8" }, sender: "72345", text: "a", from: "0/1/72345", to: "2/8/12025550143", short: "a"},
		{name: "latin", change: func(c *smpp.Config) { c.Alphabet = smpp.Latin1 }, sender: "ACME", text: "é@ê", from: "5/0/ACME", to: "1/1/12025550143", short: "\xe9@\xea"},
		{name: "ucs2", sender: "ACME", text: "кê🔑", from: "5/0/ACME", to: "1/1/12025550143", coding: 8, short: "\x04\x3a\x00\xea\xd8\x3d\xdd\x11"},
		{name: "one segment", sender: "ACME", text: strings.Repeat("x", 160), from: "5/0/ACME", to: "1/1/12025550143", short: strings.Repeat("x", 160)},
		{name: "two segments", sender: "ACME", text: strings.Repeat("x", 161), from: "5/0/ACME", to: "1/1/12025550143", payload: strings.Repeat("x", 161)},
		{name: "two segments for an escape", sender: "ACME", text: strings.Repeat("x", 159) + "€", from: "5/0/ACME", to: "1/1/12025550143", payload: strings.Repeat("x", 159) + "\x1b\x65"},
		{name: "one segment of ucs2", sender: "ACME", text: strings.Repeat("к", 70), coding: 8, from: "5/0/ACME", to: "1/1/12025550143", short: strings.Repeat("\x04\x3a", 70)},
		{name: "two segments of ucs2", sender: "ACME", text: strings.Repeat("к", 71), coding: 8, from: "5/0/ACME", to: "1/1/12025550143", payload: strings.Repeat("\x04\x3a", 71)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, s := scripted(t, func(c *smpp.Config) {
				c.Sender = ""
				if tt.change != nil {
					tt.change(c)
				}
			})
			m := leg(t, "143")
			m.Sender, m.Text, m.Life = tt.sender, tt.text, tt.life
			done := l.send(t.Context(), m)
			got := s.submitted()
			s.answer(got, data.ESME_ROK, "1")
			if r := get(t, done, "an answer"); r.err != nil {
				t.Fatal(r.err)
			}
			octets, _ := got.Message.GetMessageData()
			from := fmt.Sprintf("%d/%d/%s", got.SourceAddr.Ton(), got.SourceAddr.Npi(), got.SourceAddr)
			to := fmt.Sprintf("%d/%d/%s", got.DestAddr.Ton(), got.DestAddr.Npi(), got.DestAddr)
			payload := got.OptionalParameters[pdu.TagMessagePayload]
			if from != tt.from || to != tt.to || got.ValidityPeriod != tt.validity || got.EsmClass != 0 || got.RegisteredDelivery != 1 ||
				got.Message.Encoding().DataCoding() != tt.coding || string(octets) != tt.short || string(payload.Data) != tt.payload {
				t.Errorf("from %s to %s valid %q class %d reply %d coding %d: %q, %q", from, to, got.ValidityPeriod, got.EsmClass, got.RegisteredDelivery,
					got.Message.Encoding().DataCoding(), octets, payload.Data)
			}
		})
	}
	l, _ := scripted(t)
	m := leg(t, "143")
	m.Sender = "AC\x00ME"
	_, err := l.vendor.Send(t.Context(), m)
	failure(t, err, m, sms.NotSent, sms.InvalidSender)
}

// The link drops while five texts are without an answer, and one waits for its turn.
func TestDropMidWindow(t *testing.T) {
	t.Parallel()
	l, s := scripted(t, func(c *smpp.Config) { c.Window = 5 })
	l.again = make(chan time.Time)
	m := leg(t, "143")
	all := make([]<-chan sent, 6)
	for i := range all {
		all[i] = l.send(t.Context(), m)
	}
	seen := map[int32]bool{}
	for range 5 {
		seen[s.submitted().SequenceNumber] = true
	}
	s.conn.Close()
	ambiguous, unsent := 0, 0
	for _, done := range all {
		e, ok := errors.AsType[*sms.Error](get(t, done, "a failure").err)
		switch {
		case ok && e.Class == sms.Ambiguous && e.Reached == sms.MaybeSent:
			ambiguous++
		case ok && e.Class == sms.Temporary && e.Reached == sms.NotSent:
			unsent++
		}
	}
	if ambiguous != 5 || unsent != 1 || len(seen) != 5 {
		t.Errorf("%d ambiguous, %d not sent, %d sequence numbers; want 5, 1, 5", ambiguous, unsent, len(seen))
	}
	failure(t, get(t, l.changed, "the loss"), m, sms.NotSent, sms.Temporary)
	_, err := l.vendor.Send(t.Context(), m)
	failure(t, err, m, sms.NotSent, sms.Temporary)
}

// No more than the window is without an answer; answers may come in any order.
func TestWindow(t *testing.T) {
	t.Parallel()
	l, s := scripted(t, func(c *smpp.Config) { c.Window = 2 })
	m := leg(t, "143")
	all := []<-chan sent{l.send(t.Context(), m), l.send(t.Context(), m), l.send(t.Context(), m)}
	first, second := s.submitted(), s.submitted()
	ping := make(chan error, 1)
	go func() {
		_, err := l.vendor.Ping(t.Context())
		ping <- err
	}()
	p := s.read() // goes past the window, and nothing else does
	if _, ok := p.(*pdu.EnquireLink); !ok {
		t.Fatalf("read %T, want an enquire_link", p)
	}
	s.write(p.GetResponse())
	if err := get(t, ping, "an answer"); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.vendor.Send(short, m)
	failure(t, err, m, sms.NotSent, sms.RateLimited, sms.Temporary)
	s.answer(second, data.ESME_ROK, "2")
	third := s.submitted()
	s.answer(third, data.ESME_ROK, "3")
	s.answer(first, data.ESME_ROK, "1")
	refs := map[string]bool{}
	for _, done := range all {
		r := get(t, done, "an answer")
		refs[r.got.Ref] = r.err == nil
	}
	if !refs["1"] || !refs["2"] || !refs["3"] {
		t.Errorf("refs %v", refs)
	}
}

// A text that nobody waits for any more keeps its place in the window until two questions were answered; its answer then says nothing.
func TestWindowRecovers(t *testing.T) {
	t.Parallel()
	l, s := scripted(t, func(c *smpp.Config) { c.Window = 1 })
	m := leg(t, "143")
	ctx, cancel := context.WithCancel(t.Context())
	done := l.send(ctx, m)
	lost := s.submitted()
	cancel()
	failure(t, get(t, done, "a failure").err, m, sms.MaybeSent, sms.Ambiguous)
	next := l.send(t.Context(), m)
	var m2 *pdu.SubmitSM
	for i := range 3 {
		l.ticks <- noon
		for questions := 0; questions == 0 || i == 2 && m2 == nil; {
			switch p := s.read().(type) {
			case *pdu.EnquireLink:
				questions++
				s.write(p.GetResponse())
			case *pdu.SubmitSM:
				m2 = p
			default:
				t.Fatalf("read %T", p)
			}
		}
		if i < 2 { // the answer to a question of our own shows that ours were read
			s.write(pdu.NewEnquireLink())
			if p, ok := s.read().(*pdu.EnquireLinkResp); !ok || m2 != nil {
				t.Fatalf("read %T, and a text %v", p, m2 != nil)
			}
		}
	}
	s.answer(lost, data.ESME_ROK, "lost")
	s.answer(m2, data.ESME_ROK, "2")
	if r := get(t, next, "an answer"); r.err != nil || r.got.Ref != "2" {
		t.Errorf("Send = %+v", r)
	}
}

// enquire_link: theirs is answered; one of ours without an answer ends the link.
func TestEnquire(t *testing.T) {
	t.Parallel()
	l, s := scripted(t)
	theirs := pdu.NewEnquireLink()
	theirs.SetSequenceNumber(77)
	s.write(theirs)
	if r, ok := s.read().(*pdu.EnquireLinkResp); !ok || r.SequenceNumber != 77 {
		t.Error("no answer")
	}
	unknown := pdu.NewQuerySM()
	unknown.SetSequenceNumber(78)
	s.write(unknown)
	if r, ok := s.read().(*pdu.GenericNack); !ok || r.SequenceNumber != 78 || r.CommandStatus != data.ESME_RINVCMDID {
		t.Error("no generic_nack to what we do not do")
	}
	l.ticks <- noon
	if _, ok := s.read().(*pdu.EnquireLink); !ok {
		t.Error("no question")
	}
	l.ticks <- noon // no answer until the next is due
	if p := s.read(); p != nil {
		t.Errorf("read %T, want the end", p)
	}
	failure(t, get(t, l.changed, "the loss"), leg(t, "143"), sms.NotSent, sms.Temporary)
	if err := get(t, l.changed, "another bind"); err != nil {
		t.Error(err)
	}
}

// The carrier unbinds: that is answered, and we bind again.
func TestUnboundByCarrier(t *testing.T) {
	t.Parallel()
	l, s := scripted(t)
	s.write(pdu.NewUnbind())
	if _, ok := s.read().(*pdu.UnbindResp); !ok {
		t.Error("no unbind_resp")
	}
	if p := s.read(); p != nil {
		t.Errorf("read %T, want the end", p)
	}
	failure(t, get(t, l.changed, "the loss"), leg(t, "143"), sms.NotSent, sms.Temporary)
	if err := get(t, l.changed, "another bind"); err != nil {
		t.Error(err)
	}
}

// At the end nothing new is sent, what is outstanding is answered, and then comes unbind.
func TestUnbindOnStop(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"context", "close"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			l, s := scripted(t)
			m := leg(t, "143")
			done := l.send(t.Context(), m)
			outstanding := s.submitted()
			closed := make(chan error, 1)
			if how == "close" {
				go func() { closed <- l.vendor.Close() }()
			} else {
				l.stop()
				closed <- nil
			}
			failure(t, get(t, l.changed, "the end"), m, sms.NotSent, sms.Temporary)
			_, err := l.vendor.Send(t.Context(), m)
			failure(t, err, m, sms.NotSent, sms.Temporary)
			s.answer(outstanding, data.ESME_ROK, "7")
			if r := get(t, done, "an answer"); r.err != nil || r.got.Ref != "7" {
				t.Errorf("Send = %+v", r)
			}
			p := s.read()
			if _, ok := p.(*pdu.Unbind); !ok {
				t.Fatalf("read %T, want unbind", p)
			}
			s.write(p.GetResponse())
			if p := s.read(); p != nil {
				t.Errorf("read %T, want the end", p)
			}
			if err := get(t, closed, "the end"); err != nil {
				t.Error(err)
			}
			if err := l.vendor.Close(); err != nil {
				t.Errorf("Close again: %v", err)
			}
		})
	}
}

// deliver makes one by hand.
func deliver(class byte, coding data.Encoding, octets string, tlvs ...pdu.Field) *pdu.DeliverSM {
	d := pdu.NewDeliverSM().(*pdu.DeliverSM)
	d.EsmClass = class
	d.SourceAddr, _ = pdu.NewAddressWithTonNpiAddr(1, 1, "12025550143")
	d.DestAddr, _ = pdu.NewAddressWithTonNpiAddr(3, 0, "72345")
	d.Message.SetMessageDataWithEncoding([]byte(octets), coding)
	for _, f := range tlvs {
		d.RegisterOptionalParam(f)
	}
	return d
}

func (s *smsc) acknowledged(d *pdu.DeliverSM, want data.CommandStatusType) {
	s.t.Helper()
	p := s.read()
	if r, ok := p.(*pdu.DeliverSMResp); !ok || r.SequenceNumber != d.SequenceNumber || r.CommandStatus != want {
		s.t.Fatalf("read %+v, want deliver_sm_resp %d with status %d", p, d.SequenceNumber, want)
	}
}

func TestReceiptForms(t *testing.T) {
	t.Parallel()
	tlv := func(tag pdu.Tag, octets string) pdu.Field { return pdu.Field{Tag: tag, Data: []byte(octets)} }
	utf16, err := data.UCS2.Encode("id:77 stat:DELIVRD")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		id   smpp.ReceiptID
		pdu  *pdu.DeliverSM
		want string // ref state class code key, or none
	}{
		{"published form", "", deliver(4, data.GSM7BIT, "id:0A12 sub:001 dlvrd:001 submit date:2601021000 done date:2601021001 stat:DELIVRD err:000 text:482910 is y"), "0A12 delivered   0A12 DELIVRD"},
		{"any case and order", "", deliver(4, data.GSM7BIT, "STAT:undeliv Err:0b5 Done Date:260102100100 Id:77 Submit Date:260102100000 SUB:001 Text:id:66 stat:DELIVRD"), "77 undelivered recipient_unreachable 0b5 77 UNDELIV"},
		{"a text that looks like a receipt", "", deliver(4, data.GSM7BIT, "text:id:66 stat:DELIVRD"), ""},
		{"a text before the keys", "", deliver(4, data.GSM7BIT, "id:77 text:stat:DELIVRD stat:DELIVRD"), ""},
		{"spaces", "", deliver(4, data.GSM7BIT, "id: 77  stat: REJECTD"), "77 rejected recipient_unreachable  77 REJECTD"},
		{"no text", "", deliver(4, data.GSM7BIT, "id:77 stat:EXPIRED err:0"), "77 expired recipient_unreachable  77 EXPIRED"},
		{"deleted", "", deliver(4, data.GSM7BIT, "id:77 stat:DELETED err:12"), "77 undelivered recipient_unreachable 12 77 DELETED"},
		{"accepted", "", deliver(4, data.GSM7BIT, "id:77 stat:ACCEPTD"), "77 sent   77 ACCEPTD"},
		{"on the way", "", deliver(0x20, data.GSM7BIT, "id:77 stat:ENROUTE"), "77 sent   77 ENROUTE"},
		{"unknown", "", deliver(4, data.GSM7BIT, "id:77 stat:UNKNOWN"), ""},
		{"unheard of", "", deliver(4, data.GSM7BIT, "id:77 stat:WHATEVR"), ""},
		{"an id of no use", "", deliver(4, data.GSM7BIT, "id:\xff\xfe stat:DELIVRD"), ""},
		{"no id", "", deliver(4, data.GSM7BIT, "stat:DELIVRD"), ""},
		{"nothing", "", deliver(4, data.GSM7BIT, ""), ""},
		{"not a code", "", deliver(4, data.GSM7BIT, "id:77 stat:UNDELIV err:+12025550143"), "77 undelivered recipient_unreachable  77 UNDELIV"},
		{"zeros", "", deliver(4, data.GSM7BIT, "id:0000077 stat:DELIVRD"), "77 delivered   77 DELIVRD"},
		{"uuid", "", deliver(4, data.GSM7BIT, "id:0d2C7b7e-aa stat:DELIVRD"), "0d2C7b7e-aa delivered   0d2C7b7e-aa DELIVRD"},
		{"ucs2", "", deliver(4, data.UCS2, string(utf16)), "77 delivered   77 DELIVRD"},
		{"payload", "", deliver(4, data.GSM7BIT, "", tlv(pdu.TagMessagePayload, "id:77 stat:DELIVRD")), "77 delivered   77 DELIVRD"},
		{"parameters", "", deliver(4, data.GSM7BIT, "", tlv(pdu.TagReceiptedMessageID, "77\x00"), tlv(pdu.TagMessageStateOption, "\x05"), tlv(pdu.TagNetworkErrorCode, "\x03\x00\x1b")), "77 undelivered recipient_unreachable 27 77 UNDELIV"},
		{"parameters win", "", deliver(4, data.GSM7BIT, "id:66 stat:UNDELIV err:001", tlv(pdu.TagReceiptedMessageID, "77\x00"), tlv(pdu.TagMessageStateOption, "\x02")), "77 delivered   77 DELIVRD"},
		{"id as parameter alone", "", deliver(4, data.GSM7BIT, "id:66 stat:DELIVRD", tlv(pdu.TagReceiptedMessageID, "77\x00")), "77 delivered   77 DELIVRD"},
		{"unknown as parameter", "", deliver(4, data.GSM7BIT, "stat:DELIVRD", tlv(pdu.TagReceiptedMessageID, "77\x00"), tlv(pdu.TagMessageStateOption, "\x07")), ""},
		{"decimal", smpp.DecToHex, deliver(4, data.GSM7BIT, "id:0000002578 stat:DELIVRD"), "a12 delivered   a12 DELIVRD"},
		{"long decimal", smpp.DecToHex, deliver(4, data.GSM7BIT, "id:340282366920938463463374607431768211455 stat:DELIVRD"), "ffffffffffffffffffffffffffffffff delivered   ffffffffffffffffffffffffffffffff DELIVRD"},
		{"hexadecimal", smpp.HexToDec, deliver(4, data.GSM7BIT, "id:00000A12 stat:DELIVRD"), "2578 delivered   2578 DELIVRD"},
		{"neither", smpp.HexToDec, deliver(4, data.GSM7BIT, "id:x-1 stat:DELIVRD"), "x-1 delivered   x-1 DELIVRD"},
		{"another kind", "", deliver(0x08, data.GSM7BIT, "id:77 stat:DELIVRD"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, s := scripted(t, func(c *smpp.Config) { c.ReceiptID = tt.id })
			s.write(tt.pdu)
			s.acknowledged(tt.pdu, data.ESME_ROK)
			got := ""
			select {
			case r := <-l.news:
				for _, one := range r.Reports {
					got = fmt.Sprintf("%s %s %s %s %s", one.Ref, one.State, one.Class, one.Code, one.Key)
				}
				if len(r.Reports) != 1 || len(r.Inbound) != 0 {
					t.Errorf("received %+v", r)
				}
			default: // it would have been told before the answer
			}
			if got != tt.want {
				t.Errorf("report %q, want %q", got, tt.want)
			}
		})
	}
}

func TestInboundForms(t *testing.T) {
	t.Parallel()
	national := deliver(0, data.GSM7BIT, "STOP")
	national.SourceAddr, _ = pdu.NewAddressWithTonNpiAddr(2, 1, "2025550143")
	nobody := deliver(0, data.GSM7BIT, "STOP")
	nobody.SourceAddr, _ = pdu.NewAddressWithTonNpiAddr(5, 0, "Bank")
	vague := deliver(0, data.GSM7BIT, "STOP")
	vague.SourceAddr, _ = pdu.NewAddressWithTonNpiAddr(0, 0, "+12025550143")
	part := deliver(0x40, data.GSM7BIT, "STOP")
	part.Message.SetUDH(pdu.UDH{pdu.NewIEConcatMessage(2, 1, 9)})
	for _, tt := range []struct {
		name   string
		pdu    *pdu.DeliverSM
		change func(*smpp.Config)
		want   string // none: it is dropped
	}{
		{"gsm", deliver(0, data.GSM7BIT, "Arr\x04t \x00\x1b\x65"), nil, "Arrèt @€"},
		{"latin by configuration", deliver(0, data.GSM7BIT, "Arr\xeat"), func(c *smpp.Config) { c.Alphabet = smpp.Latin1 }, "Arrêt"},
		{"latin by its coding", deliver(0, data.LATIN1, "Arr\xeat"), nil, "Arrêt"},
		{"ascii", deliver(0, data.ASCII, "STOP"), nil, "STOP"},
		{"ucs2", deliver(0, data.UCS2, "\x04\x21\x04\x22"), nil, "СТ"},
		{"cyrillic", deliver(0, data.CYRILLIC, "\xc1\xc2"), nil, "СТ"},
		{"coding of nobody", deliver(0, data.NewCustomEncoding(0xF1, data.ASCII), "STOP"), nil, "STOP"},
		{"not gsm after all", deliver(0, data.GSM7BIT, "STOP\xe9"), nil, "STOPé"},
		{"binary", deliver(0, data.BINARY8BIT2, "STOP"), nil, ""},
		{"payload", deliver(0, data.GSM7BIT, "", pdu.Field{Tag: pdu.TagMessagePayload, Data: []byte("STOP")}), nil, "STOP"},
		{"payload with a header", deliver(0x40, data.GSM7BIT, "", pdu.Field{Tag: pdu.TagMessagePayload, Data: []byte("\x05\x00\x03\x01\x02\x01STOP")}), nil, "STOP"},
		{"a part", part, nil, "STOP"},
		{"national", national, func(c *smpp.Config) { c.Region = "US" }, "STOP"},
		{"national, and nobody says where", national, nil, ""},
		{"a sender of letters", nobody, nil, ""},
		{"a type of number that is unknown", vague, nil, "STOP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, s := scripted(t, func(c *smpp.Config) {
				if tt.change != nil {
					tt.change(c)
				}
			})
			b := pdu.NewBuffer(nil)
			tt.pdu.Marshal(b)
			s.conn.Write(b.Bytes())
			s.acknowledged(tt.pdu, data.ESME_ROK)
			select {
			case r := <-l.news:
				if len(r.Inbound) != 1 || r.Inbound[0].Text != tt.want || r.Inbound[0].From != leg(t, "143").To || r.Inbound[0].To != "72345" || r.Inbound[0].Key == "" {
					t.Errorf("received %+v, want %q", r, tt.want)
				}
			default:
				if tt.want != "" {
					t.Errorf("nothing, want %q", tt.want)
				}
			}
		})
	}
}

// A delivery is acknowledged after it was stored, put off when it was not, and texts go out meanwhile.
func TestAcknowledged(t *testing.T) {
	t.Parallel()
	stored := make(chan error)
	l, s := scriptedTold(t, func(sms.Received) error { return <-stored })
	d := deliver(4, data.GSM7BIT, "id:77 stat:DELIVRD")
	s.write(d)
	done := l.send(t.Context(), leg(t, "143"))
	s.answer(s.submitted(), data.ESME_ROK, "1") // and not an answer to d
	if r := get(t, done, "an answer"); r.err != nil {
		t.Error(r.err)
	}
	stored <- errors.New("not stored")
	s.acknowledged(d, data.ESME_RX_T_APPN)
	s.write(d)
	stored <- nil
	s.acknowledged(d, data.ESME_ROK)
	get(t, l.news, "news")
	// What cannot be read never comes again.
	s.conn.Write([]byte{0, 0, 0, 18, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 'a', 'b'})
	bad := &pdu.DeliverSM{}
	bad.SequenceNumber = 9
	s.acknowledged(bad, data.ESME_RX_P_APPN)
	// More than can be kept is put off, and nothing is held up.
	const many = 100
	for i := range many {
		d := deliver(4, data.GSM7BIT, fmt.Sprintf("id:%d stat:DELIVRD", 1000+i))
		d.SequenceNumber = int32(1000 + i)
		s.write(d)
	}
	putOff := 0
	for range many - 65 {
		if r, ok := s.read().(*pdu.DeliverSMResp); ok && r.CommandStatus == data.ESME_RX_T_APPN {
			putOff++
		}
	}
	if putOff != many-65 {
		t.Errorf("%d put off", putOff)
	}
	close(stored)
	for range 65 {
		if r, ok := s.read().(*pdu.DeliverSMResp); !ok || r.CommandStatus != data.ESME_ROK {
			t.Fatalf("answer %+v", r)
		}
	}
}

func scriptedTold(t *testing.T, told func(sms.Received) error) (*link, *smsc) {
	t.Helper()
	ln := listen(t)
	l := newLink(t, ln.Addr().String())
	l.told = told
	taken := make(chan *smsc, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		s := &smsc{t, conn}
		if p := s.read(); p != nil {
			s.write(p.GetResponse())
		}
		taken <- s
	}()
	if err := l.run(t); err != nil {
		t.Fatal(err)
	}
	s := get(t, taken, "a connection")
	t.Cleanup(func() { s.conn.Close() })
	return l, s
}

// A carrier that throttles is sent half as many.
func TestThrottled(t *testing.T) {
	t.Parallel()
	l, s := scripted(t, func(c *smpp.Config) { c.Rate = 3 })
	m := leg(t, "143")
	for range 2 { // 3, 1.5, and never less than 1
		done := l.send(t.Context(), m)
		s.answer(s.submitted(), data.ESME_RTHROTTLED, "")
		failure(t, get(t, done, "an answer").err, m, sms.NotSent, sms.RateLimited)
	}
	done := l.send(t.Context(), m) // has no wait behind it
	s.answer(s.submitted(), data.ESME_ROK, "1")
	if r := get(t, done, "an answer"); r.err != nil {
		t.Error(r.err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // less than the pause
	defer cancel()
	_, err := l.vendor.Send(ctx, m)
	if e := failure(t, err, m, sms.NotSent, sms.RateLimited); e.RetryAfter == 0 {
		t.Error("no time to wait")
	}
}

// Binds that are refused in other ways, and what is no SMSC at all.
func TestBindAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer string
		class  sms.Class
	}{
		"bare refusal":      {"\x00\x00\x00\x10\x80\x00\x00\x09\x00\x00\x00\x0e\x00\x00\x00\x01", sms.Unauthorized},
		"bound already":     {"\x00\x00\x00\x10\x80\x00\x00\x09\x00\x00\x00\x05\x00\x00\x00\x01", sms.Temporary},
		"generic_nack":      {"\x00\x00\x00\x10\x80\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01", sms.Misconfigured},
		"generic_nack of 0": {"\x00\x00\x00\x10\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", sms.Misconfigured},
		"another answer":    {"\x00\x00\x00\x10\x80\x00\x00\x15\x00\x00\x00\x00\x00\x00\x00\x01", sms.Misconfigured},
		"another question":  {"\x00\x00\x00\x10\x80\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x02", sms.Misconfigured},
		"a web server":      {"HTTP/1.1 400 Bad Request\r\n\r\n", sms.Temporary},
		"nothing":           {"", sms.Temporary},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t)
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				pdu.Parse(conn)
				conn.Write([]byte(tt.answer))
				conn.Close()
			}()
			l := newLink(t, ln.Addr().String())
			l.again = make(chan time.Time)
			failure(t, l.run(t), leg(t, "143"), sms.NotSent, tt.class)
		})
	}
}

func dial(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// The simulator is a good SMSC to others as well.
func TestSimulator(t *testing.T) {
	t.Parallel()
	sim := carriersim.New(carriersim.Options{Now: func() time.Time { return noon }})
	ln := listen(t)
	serve(t, sim, ln)
	s := &smsc{t, dial(t, ln)}
	bind := pdu.NewBindRequest(pdu.Transmitter)
	bind.SystemID, bind.Password = "watchword", "smppword"
	s.write(bind)
	if r, ok := s.read().(*pdu.BindResp); !ok || r.CommandStatus != data.ESME_ROK {
		t.Fatalf("bind: %+v", r)
	}
	s.write(pdu.NewQuerySM())
	if _, ok := s.read().(*pdu.GenericNack); !ok {
		t.Error("query_sm is not done here")
	}
	other := &smsc{t, dial(t, ln)}
	other.conn.Write([]byte("\x00\x00\x000\x00\x00\x00\x0300000000\x0000\x0000\x00\x00\x0000000000000000000000000000")) // the library panics at it
	if p := other.read(); p != nil {
		t.Errorf("read %T, want the end", p)
	}
	s.write(pdu.NewEnquireLink())
	if _, ok := s.read().(*pdu.EnquireLinkResp); !ok {
		t.Error("no enquire_link_resp")
	}
	m := pdu.NewSubmitSM().(*pdu.SubmitSM)
	m.DestAddr, _ = pdu.NewAddressWithTonNpiAddr(1, 1, "not digits")
	s.write(m)
	if r, ok := s.read().(*pdu.SubmitSMResp); !ok || r.CommandStatus != data.ESME_RINVDSTADR {
		t.Errorf("submit_sm_resp %+v", r)
	}
	s.write(pdu.NewUnbind())
	if _, ok := s.read().(*pdu.UnbindResp); !ok {
		t.Error("no unbind_resp")
	}
	// Its own addresses have no SMPP.
	w := httptest.NewRecorder()
	sim.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/smpp/", bytes.NewReader(nil)))
	if w.Code != http.StatusNotFound {
		t.Errorf("GET /smpp/ = %d", w.Code)
	}
}
