package sms_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/logtest"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/generic"
	"github.com/watchword-auth/watchword/sms/startmessaging"
	"github.com/watchword-auth/watchword/sms/twilio"
)

// carriage is everything from the outbox to the phone and back: two vendors, HTTP and real drivers between.
type carriage struct {
	db     *pgtest.Database
	keys   *keyring.Ring
	sim    *carriersim.Simulator
	base   string
	worker *sms.Worker
	desk   *sms.Desk
	outbox *sms.Outbox
	front  *httptest.Server // where vendors call
	logs   *logtest.Buffer

	mu    sync.Mutex
	hooks []*http.Request // what came, with bodies
	ends  []sms.Delivered
}

func newCarriage(t testing.TB, more ...func(base string) sms.Vendor) *carriage {
	t.Helper()
	c := &carriage{db: pgtest.New(t), keys: keyring.Ephemeral(), logs: new(logtest.Buffer)}
	now := func() time.Time { return c.db.Now(t) }
	c.sim = carriersim.New(carriersim.Options{Now: now})
	server := httptest.NewServer(c.sim)
	t.Cleanup(server.Close)
	c.base = server.URL
	first, err := generic.New("first", generic.Config{URL: c.base + "/http/send", Secret: carriersim.HTTPSecret, Sender: "ACME", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	second, err := twilio.NewMessaging("second", twilio.Config{BaseURL: c.base + "/twilio", Account: c.sim.Account("twilio").ID, Secret: c.sim.Account("twilio").Secret})
	if err != nil {
		t.Fatal(err)
	}
	carriers := []sms.Carrier{{Vendor: first, Senders: map[string]string{"": "ACME"}}, {Vendor: second, Senders: map[string]string{"": "+12025550100"}}}
	for _, build := range more {
		carriers = append([]sms.Carrier{{Vendor: build(c.base)}}, carriers...)
	}
	routing, err := sms.NewRouting(sms.RoutingConfig{Carriers: carriers, Recovery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	texts, err := sms.NewTexts("Example", "login.example")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(c.logs, nil))
	c.outbox = &sms.Outbox{Keys: c.keys}
	c.desk = &sms.Desk{DB: c.db.DB, Keys: c.keys, Routing: routing, Outbox: c.outbox, Texts: texts, Log: log, Now: now, Delivered: c.ended, Sources: map[string][]netip.Prefix{}}
	routes := c.desk.Routes()
	c.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := audit.With(r.Context(), audit.Context{Source: netip.MustParseAddr("192.0.2.9")})
		body := new(bytes.Buffer)
		if r.ContentLength < 1<<16 {
			body.ReadFrom(r.Body) //nolint:errcheck // it is looked at below
			kept := r.Clone(context.Background())
			kept.Body = nil
			kept.Form = map[string][]string{"body": {body.String()}}
			c.mu.Lock()
			c.hooks = append(c.hooks, kept)
			c.mu.Unlock()
			r.Body = http.NoBody
			r = r.WithContext(ctx)
			r2 := r.Clone(ctx)
			r2.Body = nopCloser{body}
			routes.ServeHTTP(w, r2)
			return
		}
		routes.ServeHTTP(w, r.WithContext(ctx))
	}))
	t.Cleanup(c.front.Close)
	t.Cleanup(c.sim.Wait)
	c.desk.Public = c.front.URL
	a := c.sim.Account("twilio")
	a.Inbound = c.front.URL + "/v1/inbound/second"
	c.sim.SetAccount("twilio", a)
	c.worker = &sms.Worker{DB: c.db.DB, Keys: c.keys, Routing: routing, Log: log, Delivered: c.ended, Callback: func(vendor string) string { return c.front.URL + "/v1/delivery-reports/" + vendor }}
	return c
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

func (c *carriage) ended(d sms.Delivered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends = append(c.ends, d)
}

func (c *carriage) send(t testing.TB, number string, challenge uuid.UUID) uuid.UUID {
	t.Helper()
	to, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	m := sms.Message{ID: uuid.New(), Challenge: challenge, To: to, Purpose: "login", Locale: "en", Text: "code 123456", Code: "123456", Life: 10 * time.Minute}
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	if err := c.outbox.Enqueue(q, m, "asked"); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM sms_queued")
	if _, err := c.db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	return m.ID
}

func (c *carriage) end(t testing.TB, challenge uuid.UUID, verified bool) {
	t.Helper()
	q := new(postgres.Query)
	q.With("ended", "SELECT "+q.Bind(challenge)+"::uuid AS challenge_id")
	c.outbox.CancelOne(q, "ended", fmt.Sprint(verified))
	q.Finally("SELECT 1")
	if _, err := c.db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
}

// drain delivers until nothing is due, and waits for what the vendors report.
func (c *carriage) drain(t testing.TB) (calls int) {
	t.Helper()
	for {
		n, err := c.worker.Drain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.sim.Wait()
		if err := c.worker.Sweep(t.Context()); err != nil { // a report can overtake the answer that it belongs to
			t.Fatal(err)
		}
		if calls += n; n == 0 {
			return calls
		}
	}
}

func (c *carriage) state(t testing.TB, id uuid.UUID) (state string) {
	t.Helper()
	if err := c.db.GetContext(t.Context(), &state, `SELECT state || CASE WHEN state IN ('failed', 'undelivered', 'queued') THEN ' ' || coalesce(reason, '') ELSE '' END FROM messages WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(state)
}

func (c *carriage) legs(t testing.TB, id uuid.UUID) (legs []string) {
	t.Helper()
	if err := c.db.SelectContext(t.Context(), &legs, `SELECT vendor || ' ' || state FROM legs WHERE message_id = $1 ORDER BY created_at`, id); err != nil {
		t.Fatal(err)
	}
	return legs
}

func (c *carriage) count(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	if err := c.db.GetContext(t.Context(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

// post calls us as a vendor would.
func (c *carriage) post(t testing.TB, path, body string, header http.Header) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.front.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// signed makes the headers of a genuine receipt of the first vendor.
func (c *carriage) signed(t testing.TB, id, body string) http.Header {
	t.Helper()
	signer, err := webhooks.NewWebhook(carriersim.HTTPSecret)
	if err != nil {
		t.Fatal(err)
	}
	now := c.db.Now(t)
	signature, err := signer.Sign(id, now, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	h.Set(webhooks.HeaderWebhookID, id)
	h.Set(webhooks.HeaderWebhookTimestamp, fmt.Sprint(now.Unix()))
	h.Set(webhooks.HeaderWebhookSignature, signature)
	return h
}

func wantLegs(t testing.TB, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("legs (-want +got):\n%s", diff)
	}
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, number string
		faults       []carriersim.Faults
		state        string
		legs         []string
		arrived      int
	}{
		{name: "delivered", number: "+12025550143", state: "delivered", legs: []string{"first delivered"}, arrived: 1},
		{name: "receipts before the answer, twice and out of order", number: "+12025550010", state: "delivered", legs: []string{"first delivered"}, arrived: 1},
		{name: "no receipt ever", number: "+12025550009", state: "sent", legs: []string{"first accepted"}, arrived: 1},
		{name: "first vendor down", number: "+12025550143", faults: []carriersim.Faults{{Vendor: "http", Outage: true}}, state: "delivered", legs: []string{"first failed", "second delivered"}, arrived: 1},
		{name: "first vendor without credit", number: "+12025550143", faults: []carriersim.Faults{{Vendor: "http", Fail: 9, Class: "insufficient_funds"}}, state: "delivered",
			legs: []string{"first failed", "second delivered"}, arrived: 1},
		{name: "undelivered everywhere", number: "+12025550004", state: "undelivered recipient_unreachable", legs: []string{"first undelivered", "second undelivered"}, arrived: 2},
		{name: "fraud is never tried elsewhere", number: "+12025550008", state: "failed blocked_fraud", legs: []string{"first failed"}},
		{name: "opted out at the vendor", number: "+12025550002", state: "failed recipient_opted_out", legs: []string{"first failed"}},
		{name: "wrong number", number: "+12025550001", state: "failed invalid_recipient", legs: []string{"first failed"}},
		{name: "F-48 the last state first", number: "+12025550143", faults: []carriersim.Faults{{ReceiptsReversed: true, ReceiptCopies: 2}}, state: "delivered", legs: []string{"first delivered"}, arrived: 1},
		{name: "lost on the way", number: "+12025550143", faults: []carriersim.Faults{{LossPercent: 100}}, state: "sent", legs: []string{"first accepted"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCarriage(t)
			for _, f := range tt.faults {
				c.sim.SetFaults(f)
			}
			id := c.send(t, tt.number, uuid.New())
			c.drain(t)
			if got := c.state(t, id); got != tt.state {
				t.Errorf("message is %q, want %q\n%s", got, tt.state, c.logs)
			}
			wantLegs(t, c.legs(t, id), tt.legs...)
			if n := len(c.sim.Messages(tt.number)); n != tt.arrived {
				t.Errorf("%d texts arrived, want %d", n, tt.arrived)
			}
			if logged := c.logs.String(); strings.Contains(logged, "123456") || strings.Contains(logged, strings.TrimPrefix(tt.number, "+")) { // WH-13
				t.Errorf("a log shows a code or a number:\n%s", logged)
			}
		})
	}
}

func TestAnswerLost(t *testing.T) {
	t.Parallel()

	t.Run("F-04 the report tells that it was taken", func(t *testing.T) {
		t.Parallel()
		c := newCarriage(t)
		id := c.send(t, "+12025550007", uuid.New())
		c.drain(t)
		if got := c.state(t, id); got != "delivered" || len(c.sim.Messages("+12025550007")) != 1 {
			t.Errorf("message is %q, %d arrived; want delivered once", got, len(c.sim.Messages("+12025550007")))
		}
		c.db.Advance(t, time.Minute)
		if n := c.drain(t); n != 0 {
			t.Errorf("%d calls after it was delivered", n)
		}
	})

	t.Run("F-41 no report: once more with the same key", func(t *testing.T) {
		t.Parallel()
		c := newCarriage(t)
		c.sim.SetFaults(carriersim.Faults{Vendor: "http", Spoil: 1, How: "drop", NoReceipts: true})
		id := c.send(t, "+12025550143", uuid.New())
		c.drain(t)
		c.db.Advance(t, 2*time.Second)
		c.drain(t)
		if got := c.state(t, id); got != "sent" || len(c.sim.Messages("")) != 1 {
			t.Errorf("message is %q, %d arrived; want sent once", got, len(c.sim.Messages("")))
		}
		wantLegs(t, c.legs(t, id), "first accepted")
	})

	t.Run("SN-14 F-46 the slow vendor delivers after all", func(t *testing.T) {
		t.Parallel()
		c := newCarriage(t)
		// Twilio knows no keys: its answer is lost and its receipt late; the first vendor takes over.
		c.sim.SetFaults(carriersim.Faults{Vendor: "http", Outage: true})
		c.sim.SetFaults(carriersim.Faults{Vendor: "twilio", Spoil: 1, How: "drop", NoReceipts: true})
		id := c.send(t, "+12025550143", uuid.New())
		c.drain(t)
		wantLegs(t, c.legs(t, id), "first failed", "second calling")
		c.sim.SetFaults(carriersim.Faults{Vendor: "http"})
		for range 10 {
			c.db.Advance(t, 2*time.Second)
			c.drain(t)
		}
		if n := len(c.sim.Messages("+12025550143")); n != 1 {
			t.Fatalf("%d arrived: whatever was tried before is not tried again", n)
		}
		if got := c.state(t, id); got != "failed ambiguous" {
			t.Errorf("message is %q, want failed ambiguous", got)
		}
		// The late report: the message arrived, whatever we thought.
		var leg string
		if err := c.db.GetContext(t.Context(), &leg, `SELECT id::text FROM legs WHERE message_id = $1 ORDER BY created_at LIMIT 1`, id); err != nil {
			t.Fatal(err)
		}
		body := `{"id":"` + leg + `","state":"delivered"}`
		if status := c.post(t, "/v1/delivery-reports/first", body, c.signed(t, "late", body)); status != http.StatusOK {
			t.Fatalf("late receipt: %d", status)
		}
		if got := c.state(t, id); got != "delivered" {
			t.Errorf("message is %q after the late receipt, want delivered", got)
		}
	})
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	c := newCarriage(t)
	c.sim.SetFaults(carriersim.Faults{Vendor: "http", NoReceipts: true})
	fresh := func(t *testing.T) (message uuid.UUID, leg string) {
		t.Helper()
		message = c.send(t, "+12025550143", uuid.New())
		c.drain(t)
		if err := c.db.GetContext(t.Context(), &leg, `SELECT id::text FROM legs WHERE message_id = $1`, message); err != nil {
			t.Fatal(err)
		}
		return message, leg
	}
	receipt := func(t *testing.T, leg, state string) int {
		t.Helper()
		body := fmt.Sprintf(`{"id":%q,"state":%q}`, leg, state)
		return c.post(t, "/v1/delivery-reports/first", body, c.signed(t, leg+state, body))
	}

	t.Run("WH-1", func(t *testing.T) {
		message, leg := fresh(t)
		body := fmt.Sprintf(`{"id":%q,"state":"delivered"}`, leg)
		good := c.signed(t, "x", body)
		bare, empty := http.Header{}, good.Clone()
		empty.Set(webhooks.HeaderWebhookSignature, "")
		foreign := good.Clone()
		foreign.Set(webhooks.HeaderWebhookSignature, "v1,"+base64.StdEncoding.EncodeToString(make([]byte, 32)))
		swapped := good.Clone()
		swapped.Set(webhooks.HeaderWebhookSignature, strings.Replace(good.Get(webhooks.HeaderWebhookSignature), "v1,", "v0,", 1))
		for name, tt := range map[string]struct {
			path, body string
			header     http.Header
		}{
			"unsigned":         {"/v1/delivery-reports/first", body, bare},
			"empty signature":  {"/v1/delivery-reports/first", body, empty},
			"other secret":     {"/v1/delivery-reports/first", body, foreign},
			"other body":       {"/v1/delivery-reports/first", strings.Replace(body, "delivered", "failed", 1), good},
			"other algorithm":  {"/v1/delivery-reports/first", body, swapped},
			"other vendor":     {"/v1/delivery-reports/second", body, good},
			"no such vendor":   {"/v1/delivery-reports/nobody", body, good},
			"compatible, bare": {"/otp/delivered", body, bare},
			"inbound, bare":    {"/v1/inbound/first", `{"type":"inbound","from":"+12025550143","to":"ACME","text":"STOP"}`, bare}, // WH-9
		} {
			if status := c.post(t, tt.path, tt.body, tt.header); status != http.StatusUnauthorized {
				t.Errorf("%s: %d, want 401", name, status)
			}
		}
		if got := c.state(t, message); got != "sent" {
			t.Errorf("message is %q after forged receipts", got)
		}
		if n := c.count(t, `SELECT count(*) FROM opt_outs`); n != 0 {
			t.Errorf("%d opt-outs after a forged STOP", n)
		}
	})

	t.Run("WH-2 F-47", func(t *testing.T) {
		message, leg := fresh(t)
		before := c.count(t, `SELECT count(*) FROM audit_events WHERE event = 'message.end' AND object = $1`, message.String())
		body := fmt.Sprintf(`{"id":%q,"state":"delivered"}`, leg)
		header := c.signed(t, "same", body)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if status := c.post(t, "/v1/delivery-reports/first", body, header); status != http.StatusOK {
					t.Errorf("repeated receipt: %d", status)
				}
			})
		}
		wg.Wait()
		if got := c.state(t, message); got != "delivered" {
			t.Errorf("message is %q", got)
		}
		if n := c.count(t, `SELECT count(*) FROM audit_events WHERE event = 'message.end' AND object = $1`, message.String()) - before; n != 1 {
			t.Errorf("%d events of one receipt", n)
		}
	})

	t.Run("WH-3", func(t *testing.T) {
		message, leg := fresh(t)
		body := fmt.Sprintf(`{"id":%q,"state":"delivered"}`, leg)
		header := c.signed(t, "old", body)
		c.db.Advance(t, 6*time.Minute)
		if status := c.post(t, "/v1/delivery-reports/first", body, header); status != http.StatusUnauthorized || c.state(t, message) != "sent" {
			t.Errorf("six minutes old: %d, message %s", status, c.state(t, message))
		}
	})

	t.Run("WH-4 F-48", func(t *testing.T) {
		message, leg := fresh(t)
		for _, state := range []string{"delivered", "sent", "failed", "undelivered"} {
			if status := receipt(t, leg, state); status != http.StatusOK {
				t.Errorf("%s: %d", state, status)
			}
		}
		if got := c.state(t, message); got != "delivered" {
			t.Errorf("message is %q", got)
		}
		if n := c.count(t, `SELECT count(*) FROM receipts WHERE leg_id = $1::uuid`, leg); n != 4 {
			t.Errorf("history keeps %d of 4 receipts", n)
		}
	})

	t.Run("WH-5 F-49", func(t *testing.T) {
		before := c.count(t, `SELECT count(*) FROM legs`)
		for _, id := range []string{uuid.NewString(), uuid.NewString()} {
			if status := receipt(t, id, "delivered"); status != http.StatusOK {
				t.Errorf("unknown id: %d, want 200", status)
			}
		}
		if n := c.count(t, `SELECT count(*) FROM legs`); n != before {
			t.Error("a receipt made a leg")
		}
		c.db.Advance(t, 2*time.Minute)
		for range 2 {
			if err := c.worker.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(c.logs.String(), "receipts for nothing that was sent"); n != 1 {
			t.Errorf("orphans are logged %d times, want once", n)
		}
		message, leg := fresh(t)
		c.db.Advance(t, 48*time.Hour)
		if status := receipt(t, leg, "delivered"); status != http.StatusOK || c.state(t, message) != "delivered" {
			t.Errorf("after 48 hours: %d, %s", status, c.state(t, message))
		}
	})

	t.Run("WH-6", func(t *testing.T) {
		message, leg := fresh(t)
		body := fmt.Sprintf(`{"id":%q,"state":"sent","status":"approved","verified":true,"code":"123456","user":"alice"}`, leg)
		if status := c.post(t, "/v1/delivery-reports/first", body, c.signed(t, "v", body)); status != http.StatusOK {
			t.Errorf("%d", status)
		}
		if n := c.count(t, `SELECT count(*) FROM messages WHERE id = $1 AND verified`, message); n != 0 {
			t.Error("a receipt verified a code")
		}
	})

	t.Run("WH-7", func(t *testing.T) {
		if status := c.post(t, "/v1/delivery-reports/first", strings.Repeat("x", 1<<20), nil); status != http.StatusRequestEntityTooLarge {
			t.Errorf("1 MiB: %d, want 413", status)
		}
	})

	t.Run("WH-12", func(t *testing.T) {
		challenge := uuid.New()
		message := c.send(t, "+12025550143", challenge)
		c.drain(t)
		c.end(t, challenge, true)
		var leg string
		if err := c.db.GetContext(t.Context(), &leg, `SELECT id::text FROM legs WHERE message_id = $1`, message); err != nil {
			t.Fatal(err)
		}
		if status := receipt(t, leg, "undelivered"); status != http.StatusOK {
			t.Errorf("%d", status)
		}
		if n := c.drain(t); n != 0 || c.state(t, message) != "undelivered recipient_unreachable" {
			t.Errorf("%d calls after the challenge ended, message %s", n, c.state(t, message))
		}
	})

	t.Run("WH-14", func(t *testing.T) {
		for name, body := range map[string]string{
			"entities": `<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>`, "list": `[{"id":"a"}]`, "two documents": `{"id":"a"}{"id":"b"}`, "empty": ``,
		} {
			if status := c.post(t, "/v1/delivery-reports/first", body, c.signed(t, name, body)); status != http.StatusBadRequest {
				t.Errorf("%s: %d, want 400", name, status)
			}
		}
		resp, err := http.Get(c.front.URL + "/v1/delivery-reports/first") //nolint:gosec // our own
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("GET: %d", resp.StatusCode)
		}
	})

	t.Run("compatible path", func(t *testing.T) {
		message, leg := fresh(t)
		body := fmt.Sprintf(`{"id":%q,"state":"delivered"}`, leg)
		if status := c.post(t, "/otp/delivered", body, c.signed(t, "compat", body)); status != http.StatusOK || c.state(t, message) != "delivered" {
			t.Errorf("%d, message %s", status, c.state(t, message))
		}
	})

	t.Run("source", func(t *testing.T) {
		_, leg := fresh(t)
		c.desk.Sources["first"] = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
		defer delete(c.desk.Sources, "first")
		if status := receipt(t, leg, "delivered"); status != http.StatusUnauthorized {
			t.Errorf("from a foreign network: %d, want 401", status)
		}
	})
}

func TestOptOut(t *testing.T) {
	t.Parallel()
	const phone = "+12025550143"
	c := newCarriage(t)
	c.sim.SetFaults(carriersim.Faults{Vendor: "http", Outage: true}) // so that Twilio's sender is answered
	reply := func(text string) {
		t.Helper()
		if !c.sim.Reply(phone, "", text) {
			t.Fatal("nothing to answer")
		}
		c.sim.Wait()
		c.drain(t)
	}
	texts := func() int {
		n := 0
		for _, m := range c.sim.Messages(phone) {
			if !m.Reply {
				n++
			}
		}
		return n
	}
	c.send(t, phone, uuid.New())
	c.drain(t)
	waiting := c.send(t, phone, uuid.New())

	if _, err := c.db.ExecContext(t.Context(), `CREATE TABLE stopped (hint text)`); err != nil {
		t.Fatal(err)
	}
	c.desk.Stopped = func(_ context.Context, q *postgres.Query, from string, n sms.Number) {
		q.With("stopped_kept", "INSERT INTO stopped SELECT "+q.Bind(n.Hint())+"::text FROM "+from)
	}
	reply(" STOP. ") // WH-8
	if got := c.state(t, waiting); got != "failed recipient_opted_out" {
		t.Errorf("what waited is %q", got)
	}
	sent := texts()
	for range 2 { // SN-13
		id := c.send(t, phone, uuid.New())
		if got := c.state(t, id); got != "failed recipient_opted_out" || c.drain(t) != 0 || len(c.legs(t, id)) != 0 {
			t.Errorf("message is %q with legs %v", got, c.legs(t, id))
		}
	}
	reply("stop")
	if n := texts(); n != sent {
		t.Errorf("%d texts after STOP", n-sent)
	}
	if n := c.count(t, `SELECT count(*) FROM messages WHERE purpose = 'reply_stop'`); n != 1 {
		t.Errorf("%d confirmations of two STOPs", n)
	}
	if n := c.count(t, `SELECT count(*) FROM stopped WHERE hint = '43'`); n != 1 {
		t.Errorf("told %d times of two STOPs", n)
	}
	reply("123456") // WH-11
	reply("YES")    // WH-10
	id := c.send(t, phone, uuid.New())
	c.drain(t)
	if got := c.state(t, id); got != "delivered" {
		t.Errorf("after START the message is %q", got)
	}
	before := texts()
	reply("help")
	if n := texts() - before; n != 1 {
		t.Errorf("%d answers to HELP", n)
	}

	// The record: each time, by number and sender.
	record, err := c.desk.OptOuts(t.Context())
	if err != nil || len(record) != 1 || record[0].Number != phone || record[0].Sender != "+12025550100" || record[0].InAt == nil || record[0].Source != "reply" {
		t.Errorf("record %+v, %v", record, err)
	}
	if logged := c.logs.String(); strings.Contains(logged, "2025550143") {
		t.Errorf("a log shows a number:\n%s", logged)
	}

	// What only the vendor knows of is on record too.
	c.sim.SetFaults(carriersim.Faults{})
	c.send(t, "+12025550002", uuid.New())
	c.drain(t)
	again := c.send(t, "+12025550002", uuid.New())
	if got := c.state(t, again); got != "failed recipient_opted_out" || len(c.legs(t, again)) != 0 {
		t.Errorf("message to a number that the vendor knows has opted out is %q", got)
	}
	number, err := sms.ParseNumber("+12025550002", "")
	if err != nil {
		t.Fatal(err)
	}
	stops, err := c.desk.Stops(t.Context(), number)
	if err != nil || len(stops) != 1 || stops[0].Reason != sms.RecipientOptedOut || stops[0].Sender == "" || stops[0].Until != nil {
		t.Errorf("what stops texts to the number: %+v, %v", stops, err)
	}
	if n, err := c.desk.Restore(t.Context(), number); n != 1 || err != nil {
		t.Errorf("Restore = %d, %v", n, err)
	}
	var recorded int
	if err := c.db.GetContext(t.Context(), &recorded, `SELECT count(*) FROM audit_events WHERE event = 'sms.opt_in' AND actor = 'operator'`); err != nil || recorded != 1 {
		t.Fatalf("%d records of it, %v; want one", recorded, err)
	}
	if stops, err := c.desk.Stops(t.Context(), number); err != nil || len(stops) != 0 {
		t.Errorf("what stops texts after the opt-out has ended: %+v, %v", stops, err)
	}
}

func TestCountries(t *testing.T) { // SN-6
	t.Parallel()
	c := newCarriage(t)
	c.outbox.Countries = map[string]bool{"US": true}
	id := c.send(t, "+33612345678", uuid.New())
	if got := c.state(t, id); got != "failed region_blocked" || c.drain(t) != 0 {
		t.Errorf("message to a country that is not served is %q", got)
	}
}

func TestBreakersOfNumbers(t *testing.T) {
	t.Parallel()
	fill := func(t *testing.T, c *carriage, prefix string, n, used int) {
		t.Helper()
		for i := range n {
			challenge := uuid.New()
			c.send(t, fmt.Sprintf("%s%04d", prefix, 1100+i), challenge)
			c.drain(t)
			if i < used {
				c.end(t, challenge, true)
			}
		}
		c.db.Advance(t, 3*time.Minute)
		if err := c.worker.Watch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(t *testing.T, c *carriage, number string) bool {
		t.Helper()
		n, err := sms.ParseNumber(number, "")
		if err != nil {
			t.Fatal(err)
		}
		stops, err := c.desk.Stops(t.Context(), n)
		is := c.state(t, c.send(t, number, uuid.New())) == "failed blocked_fraud"
		if err != nil || len(stops) > 1 || is != (len(stops) == 1) || is && (stops[0].Reason != sms.BlockedFraud || stops[0].Until == nil) {
			t.Errorf("stops of %s are %+v, %v; refused: %v", n, stops, err, is)
		}
		return is
	}

	t.Run("SN-7", func(t *testing.T) {
		t.Parallel()
		c := newCarriage(t)
		c.worker.Guard = sms.Guard{PrefixSent: 20, PrefixShare: 0.1, CountrySent: 1000, CountryShare: 0.02, Pause: 30 * time.Minute}
		fill(t, c, "+1202555", 20, 1)
		if !refused(t, c, "+12025559999") {
			t.Error("the prefix is still texted")
		}
		if refused(t, c, "+12025660143") {
			t.Error("another prefix is not texted")
		}
		if n := c.count(t, `SELECT count(*) FROM audit_events WHERE event = 'send.breaker'`); n != 1 || !strings.Contains(c.logs.String(), "sending stopped") {
			t.Errorf("%d alerts", n)
		}
		c.db.Advance(t, 31*time.Minute)
		if err := c.worker.Watch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if refused(t, c, "+12025559999") {
			t.Error("it does not recover by itself")
		}
	})

	t.Run("SN-8", func(t *testing.T) {
		t.Parallel()
		c := newCarriage(t)
		c.worker.Guard = sms.Guard{PrefixSent: 1000, PrefixShare: 0.1, CountrySent: 20, CountryShare: 0.02, Pause: 30 * time.Minute}
		fill(t, c, "+1202555", 20, 0)
		if !refused(t, c, "+12125550143") || refused(t, c, "+33612345678") {
			t.Error("the country is still texted, or another is not")
		}
	})

	t.Run("codes that are used", func(t *testing.T) {
		t.Parallel()
		c := newCarriage(t)
		c.worker.Guard = sms.Guard{PrefixSent: 20, PrefixShare: 0.1, CountrySent: 20, CountryShare: 0.02, Pause: 30 * time.Minute}
		fill(t, c, "+1202555", 20, 10)
		if refused(t, c, "+12025559999") {
			t.Error("people who use their codes are not texted")
		}
	})
}

func TestVendorIsToldHowItEnded(t *testing.T) {
	t.Parallel()
	for name, verified := range map[string]bool{"verified": true, "canceled": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCarriage(t, func(base string) sms.Vendor {
				v, err := twilio.NewVerify("verify", twilio.Config{BaseURL: base + "/twilio-verify", Account: "AC00000000000000000000000000000001", Secret: "twilio-auth-token", Service: "VA1", CustomCode: true})
				if err != nil {
					t.Fatal(err)
				}
				return v
			})
			challenge := uuid.New()
			c.send(t, "+12025550143", challenge)
			c.drain(t)
			if n := c.count(t, `SELECT count(*) FROM legs WHERE open`); n != 1 {
				t.Fatalf("%d open sessions", n)
			}
			c.end(t, challenge, verified)
			if err := c.worker.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := c.count(t, `SELECT count(*) FROM legs WHERE open`); n != 0 {
				t.Errorf("%d open sessions after the challenge ended", n)
			}
			if strings.Contains(c.logs.String(), "was not told") {
				t.Error(c.logs.String())
			}
		})
	}
}

func TestPolledVendor(t *testing.T) {
	t.Parallel()
	c := newCarriage(t, func(base string) sms.Vendor {
		v, err := startmessaging.NewMessages("india", startmessaging.Config{BaseURL: base + "/startmessaging", Key: "sm_live_simulator", AppName: "Example"})
		if err != nil {
			t.Fatal(err)
		}
		return v
	})
	a := c.sim.Account("startmessaging")
	a.Mode, a.Secret = "message", "sm_live_simulator"
	c.sim.SetAccount("startmessaging", a)
	id := c.send(t, "+919876543143", uuid.New())
	c.drain(t)
	wantLegs(t, c.legs(t, id), "india accepted")
	for range 3 {
		c.db.Advance(t, 15*time.Second)
		if err := c.worker.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.state(t, id); got != "delivered" {
		t.Errorf("message is %q after the vendor was asked\n%s", got, c.logs)
	}
}
