package sms_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/sms"
)

// scripted is a vendor that does what a test says.
type scripted struct {
	name string
	key  sms.Idempotency
	send func(sms.Leg) (sms.Accepted, error)

	mu   sync.Mutex
	legs []uuid.UUID
}

func (v *scripted) Name() string { return v.name }
func (v *scripted) Abilities() sms.Abilities {
	return sms.Abilities{Channels: []sms.Channel{sms.SMS}, Idempotency: v.key}
}

func (v *scripted) Send(_ context.Context, l sms.Leg) (sms.Accepted, error) {
	v.mu.Lock()
	v.legs = append(v.legs, l.ID)
	v.mu.Unlock()
	if v.send == nil {
		return sms.Accepted{Ref: l.ID.String()}, nil
	}
	return v.send(l)
}

func (v *scripted) calls() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.legs)
}

func (c *carriage) through(t *testing.T, recovery time.Duration, vendors ...sms.Vendor) {
	t.Helper()
	config := sms.RoutingConfig{Recovery: recovery}
	for _, v := range vendors {
		config.Carriers = append(config.Carriers, sms.Carrier{Vendor: v})
	}
	routing, err := sms.NewRouting(config)
	if err != nil {
		t.Fatal(err)
	}
	c.worker.Routing, c.desk.Routing = routing, routing
}

func refuse(vendor string, class sms.Class) func(sms.Leg) (sms.Accepted, error) {
	return func(sms.Leg) (sms.Accepted, error) {
		return sms.Accepted{}, &sms.Error{Class: class, Vendor: vendor, Reached: sms.NotSent}
	}
}

// F-45: a vendor that works again is used again, alone and beside another one that works.
func TestVendorComesBack(t *testing.T) {
	t.Parallel()
	for _, others := range []int{0, 1} {
		t.Run(fmt.Sprint(others, " others"), func(t *testing.T) {
			t.Parallel()
			c := newCarriage(t)
			broken := true
			first, second := &scripted{name: "first"}, &scripted{name: "second"}
			first.send = func(l sms.Leg) (sms.Accepted, error) {
				if broken {
					return refuse("first", sms.Temporary)(l)
				}
				return sms.Accepted{Ref: l.ID.String()}, nil
			}
			c.through(t, 10*time.Millisecond, []sms.Vendor{first, second}[:1+others]...)
			for range 3 {
				c.send(t, "+12025550143", uuid.New())
				c.drain(t)
			}
			broken = false
			if taken := second.calls(); taken != 3*others {
				t.Errorf("%d texts by the second vendor", taken)
			}
			pgtest.Until(t, "the first vendor carries texts again", func() bool {
				before := first.calls()
				c.db.Advance(t, 2*time.Second)
				c.send(t, "+12025550143", uuid.New())
				c.drain(t)
				return first.calls() > before && !c.worker.Routing.Down()
			})
		})
	}
}

// F-43: what one vendor answers costs nobody else's result.
func TestGarbledReference(t *testing.T) {
	t.Parallel()
	c := newCarriage(t)
	v := &scripted{name: "first", key: sms.Replay}
	v.send = func(l sms.Leg) (sms.Accepted, error) {
		switch l.Text {
		case "nul":
			return sms.Accepted{Ref: "a\x00b"}, nil
		case "long":
			return sms.Accepted{Ref: strings.Repeat("x", 10_000)}, nil
		}
		return sms.Accepted{Ref: l.ID.String()}, nil
	}
	c.through(t, 10*time.Second, v)
	for i := range 12 {
		c.storeText(t, map[int]string{3: "nul", 7: "long"}[i], uuid.New())
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- c.worker.Run(ctx) }() // not before: it would take a text before what it says is replaced
	pgtest.Until(t, "the others are sent", func() bool { return c.count(t, `SELECT count(*) FROM messages WHERE state = 'sent'`) == 10 })
	stop()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if v.calls() > 14 || strings.Contains(c.logs.String(), "settle failed") {
		t.Errorf("%d calls for 12 texts\n%s", v.calls(), c.logs)
	}
}

func (c *carriage) storeText(t *testing.T, text string, challenge uuid.UUID) uuid.UUID {
	t.Helper()
	id := c.send(t, "+12025550143", challenge)
	if text != "" {
		sealed, err := c.keys.Seal(fmt.Appendf(nil, `{"to":"+12025550143","text":%q}`, text), "message of challenge "+challenge.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.db.ExecContext(t.Context(), `UPDATE messages SET body = $1 WHERE id = $2`, sealed, id); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// F-44: texts that wait for a vendor hold up nobody else's.
func TestNobodyWaitsBehindOthers(t *testing.T) {
	t.Parallel()
	c := newCarriage(t)
	dead, alive := &scripted{name: "dead", send: refuse("dead", sms.Unauthorized)}, &scripted{name: "alive"}
	routing, err := sms.NewRouting(sms.RoutingConfig{Recovery: time.Hour, Carriers: []sms.Carrier{{Vendor: dead, Countries: []string{"FR"}}, {Vendor: alive, Countries: []string{"US"}}}})
	if err != nil {
		t.Fatal(err)
	}
	c.worker.Routing = routing
	for range 3 {
		c.send(t, "+33612345678", uuid.New())
		c.drain(t)
	}
	if routing.Up("dead") {
		t.Fatal("the dead vendor's breaker is closed")
	}
	for range 100 {
		c.send(t, "+33612345678", uuid.New())
	}
	id := c.send(t, "+12025550143", uuid.New())
	if _, err := c.worker.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.state(t, id); got != "sent" {
		t.Errorf("behind a hundred that wait the text is %q", got)
	}
}

// WH-7: whoever sends a body slowly keeps no receipt out.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	c := newCarriage(t)
	c.front.Config.Handler = c.desk.Routes()
	id := c.send(t, "+12025550143", uuid.New())
	c.drain(t)
	for range 40 {
		body, drip := io.Pipe()
		t.Cleanup(func() { drip.CloseWithError(errors.New("over")) })
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.front.URL+"/v1/delivery-reports/first", body)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}()
		drip.Write([]byte("{"))
	}
	var leg string
	if err := c.db.GetContext(t.Context(), &leg, `SELECT id::text FROM legs WHERE message_id = $1`, id); err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"id":%q,"state":"delivered"}`, leg)
	if status := c.post(t, "/v1/delivery-reports/first", body, c.signed(t, "in between", body)); status != http.StatusOK {
		t.Errorf("an authentic receipt beside slow bodies: %d", status)
	}
}

// WH-10: START ends what any way of hearing of STOP began.
func TestStartEndsEveryOptOut(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]string{
		"the vendor told it, of a whole service": `'MG0001', 'vendor', 'second'`, "another spelling of the sender": `'12025550100', 'reply', 'other'`,
		"the vendor did not say of which sender": `'', 'reply', 'second'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCarriage(t)
			c.send(t, "+12025550143", uuid.New())
			c.drain(t)
			if _, err := c.db.ExecContext(t.Context(), `INSERT INTO opt_outs (recipient, hint, country, sender, source, vendor) VALUES ($1, '43', 'US', `+row+`)`, c.keys.Fingerprint("number", "+12025550143")); err != nil {
				t.Fatal(err)
			}
			from, err := sms.ParseNumber("+12025550143", "")
			if err != nil {
				t.Fatal(err)
			}
			c.through(t, time.Second, inbound{&scripted{name: "second"}, sms.Inbound{From: from, To: "+12025550100", Text: "START", Key: "k"}})
			if _, err := c.desk.Receive(t.Context(), "second", sms.Webhook{}); err != nil {
				t.Fatal(err)
			}
			if n := c.count(t, `SELECT count(*) FROM opt_outs WHERE in_at IS NULL`); n != 0 {
				t.Errorf("%d opt-outs stand after START", n)
			}
		})
	}
}

// inbound is a vendor that hands over one reply.
type inbound struct {
	*scripted
	in sms.Inbound
}

func (i inbound) Receive(sms.Webhook) (sms.Received, error) {
	return sms.Received{Inbound: []sms.Inbound{i.in}}, nil
}

// SND-5: after an unknown outcome there is one more call, with the same key, whatever the second one says.
func TestUnknownThenRefused(t *testing.T) {
	t.Parallel()
	c := newCarriage(t)
	v := &scripted{name: "first", key: sms.Replay}
	v.send = func(l sms.Leg) (sms.Accepted, error) {
		if len(v.legs) == 1 {
			return sms.Accepted{}, &sms.Error{Class: sms.Ambiguous, Vendor: "first", Reached: sms.MaybeSent}
		}
		return refuse("first", sms.RateLimited)(l)
	}
	c.through(t, time.Second, v)
	id := c.send(t, "+12025550143", uuid.New())
	for range 10 {
		c.drain(t)
		c.db.Advance(t, 3*time.Second)
	}
	if v.calls() != 2 || v.legs[0] != v.legs[1] || c.state(t, id) != "failed ambiguous" {
		t.Errorf("%d calls %v, message %s", v.calls(), v.legs, c.state(t, id))
	}
}

// F-41 F-45: a vendor that lost answers is asked again when it is back, for as long as that may help.
func TestRepeatWaitsForItsVendor(t *testing.T) {
	t.Parallel()
	c := newCarriage(t)
	lost := true
	v := &scripted{name: "first", key: sms.Replay}
	v.send = func(l sms.Leg) (sms.Accepted, error) {
		if lost {
			return sms.Accepted{}, &sms.Error{Class: sms.Ambiguous, Vendor: "first", Reached: sms.MaybeSent}
		}
		return sms.Accepted{Ref: l.ID.String()}, nil
	}
	c.through(t, 50*time.Millisecond, v)
	var ids []uuid.UUID
	for range 6 {
		ids = append(ids, c.send(t, "+12025550143", uuid.New()))
	}
	if _, err := c.worker.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost = false
	for _, id := range ids {
		pgtest.Until(t, "the repeat is made", func() bool {
			c.db.Advance(t, time.Second)
			c.drain(t)
			return c.state(t, id) == "sent" || strings.HasPrefix(c.state(t, id), "failed")
		})
		if got := c.state(t, id); got != "sent" {
			t.Errorf("message is %q", got)
		}
	}
}

// F-48: bad news that comes while the answer is being stored still leads to another vendor.
func TestBadNewsBesideTheAnswer(t *testing.T) {
	t.Parallel()
	for range 10 {
		c := newCarriage(t)
		v := &scripted{name: "first"}
		report := make(chan error, 1)
		c.through(t, time.Second, v, &scripted{name: "second"})
		v.send = func(l sms.Leg) (sms.Accepted, error) {
			go func() {
				report <- c.desk.Told("first")(context.WithoutCancel(t.Context()), sms.Received{Reports: []sms.Report{{Leg: l.ID, State: sms.LegUndelivered, Class: sms.RecipientUnreachable, Key: "k"}}})
			}()
			return sms.Accepted{Ref: "r"}, nil
		}
		id := c.send(t, "+12025550143", uuid.New())
		if _, err := c.worker.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-report; err != nil {
			t.Fatal(err)
		}
		c.drain(t)
		wantLegs(t, c.legs(t, id), "first undelivered", "second accepted")
	}
}

// F-43: vendors that hang when they are told how sessions ended hold up nothing else.
func TestManyVendorsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	c := newCarriage(t)
	v := &closing{scripted: &scripted{name: "first"}, begun: make(chan struct{}, 8), end: make(chan struct{})}
	c.through(t, time.Second, v)
	challenges := []uuid.UUID{uuid.New(), uuid.New(), uuid.New(), uuid.New()}
	for _, challenge := range challenges {
		c.send(t, "+12025550143", challenge)
	}
	c.drain(t)
	for _, challenge := range challenges {
		c.end(t, challenge, true)
	}
	swept := make(chan error, 1)
	go func() { swept <- c.worker.Sweep(t.Context()) }()
	for range 4 { // all four are under way before one is over
		select {
		case <-v.begun:
		case <-time.After(20 * time.Second):
			t.Fatal("one waits for another")
		}
	}
	close(v.end)
	if err := <-swept; err != nil {
		t.Fatal(err)
	}
}

type closing struct {
	*scripted
	begun, end chan struct{}
}

func (v *closing) Send(_ context.Context, l sms.Leg) (sms.Accepted, error) {
	return sms.Accepted{Ref: l.ID.String(), Session: l.ID.String()}, nil
}

func (v *closing) Close(context.Context, sms.Session, bool) error {
	v.begun <- struct{}{}
	<-v.end
	return nil
}

func TestRuleThatLeadsNowhere(t *testing.T) {
	t.Parallel()
	rule, err := sms.ParseRule("vendor=first channel=voice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sms.NewRouting(sms.RoutingConfig{Carriers: []sms.Carrier{{Vendor: &scripted{name: "first"}}}, Rules: []sms.Rule{rule}}); err == nil || !strings.Contains(err.Error(), "leads nowhere") {
		t.Errorf("NewRouting = %v", err)
	}
}
