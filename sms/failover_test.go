package sms_test

import (
	"context"
	"flag"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/generic"
	"github.com/watchword-auth/watchword/sms/twilio"
)

// failoverCodes is how many codes TestVendorDies sends: go test ./sms -run TestVendorDies -failover.codes 1000
var failoverCodes = flag.Int("failover.codes", 300, "how many codes TestVendorDies sends")

// One of two vendors dies while a thousand codes are on their way: its process is gone, connections and all.
func TestVendorDies(t *testing.T) { // SND-6, F-40
	t.Parallel()
	c := newCarriage(t)
	now := func() time.Time { return c.db.Now(t) }
	dying := carriersim.New(carriersim.Options{Now: now})
	dying.SetFaults(carriersim.Faults{Vendor: "http", JitterMS: 3})
	server := httptest.NewServer(dying)
	t.Cleanup(server.Close)
	first, err := generic.New("first", generic.Config{URL: server.URL + "/http/send", Secret: carriersim.HTTPSecret, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	second, err := twilio.NewMessaging("second", twilio.Config{BaseURL: c.base + "/twilio", Account: c.sim.Account("twilio").ID, Secret: c.sim.Account("twilio").Secret, Sender: "+12025550100"})
	if err != nil {
		t.Fatal(err)
	}
	routing, err := sms.NewRouting(sms.RoutingConfig{Carriers: []sms.Carrier{{Vendor: first}, {Vendor: second}}})
	if err != nil {
		t.Fatal(err)
	}
	c.worker.Routing, c.desk.Routing, c.worker.Calls = routing, routing, 32
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- c.worker.Run(ctx) }()

	codes, dies := *failoverCodes, *failoverCodes*2/5
	for i := range codes {
		to, err := sms.ParseNumber("+12025550143", "")
		if err != nil {
			t.Fatal(err)
		}
		q := new(postgres.Query)
		q.With("asked", "SELECT 1")
		m := sms.Message{ID: uuid.New(), Challenge: uuid.New(), To: to, Purpose: "login", Locale: "en", Text: fmt.Sprint("code ", i), Life: 10 * time.Minute}
		if err := c.outbox.Enqueue(q, m, "asked"); err != nil {
			t.Fatal(err)
		}
		q.Finally("SELECT 1 FROM sms_queued")
		if _, err := c.db.Run(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if i == dies {
			server.CloseClientConnections()
			server.Close()
		}
	}
	for c.count(t, `SELECT count(*) FROM messages WHERE state = 'queued'`) > 0 {
		<-time.After(20 * time.Millisecond) // in real time: the vendor's breaker has a clock of its own
	}
	stop()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	arrived := map[string]int{}
	for _, sim := range []*carriersim.Simulator{dying, c.sim} {
		for _, m := range sim.Messages("") {
			arrived[m.Text]++
		}
	}
	twice := 0
	for _, n := range arrived {
		if n > 1 {
			twice++
		}
	}
	if len(arrived) < codes*999/1000 || twice > 0 {
		var lost []string
		if err := c.db.SelectContext(t.Context(), &lost, `SELECT m.state || ' ' || coalesce(m.reason, '') || ' ' || (SELECT string_agg(l.vendor || ':' || l.state || ':' || coalesce(l.error_class, '') || ':' || l.calls, ' ' ORDER BY l.created_at) FROM legs l WHERE l.message_id = m.id) FROM messages m WHERE m.state NOT IN ('sent', 'delivered')`); err != nil {
			t.Fatal(err)
		}
		t.Log(lost)
		t.Errorf("%d of %d codes arrived, %d twice", len(arrived), codes, twice)
	}
	t.Logf("%d of %d codes arrived, %d twice; %d by the first vendor, %d by the second", len(arrived), codes, twice, len(dying.Messages("")), len(c.sim.Messages("")))
}
