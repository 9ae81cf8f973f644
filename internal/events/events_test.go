package events_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// bench is what events need, put together.
type bench struct {
	db        *pgtest.Database
	keys      *keyring.Ring
	endpoints *events.Endpoints
	worker    *events.Worker
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{db: pgtest.New(t), keys: keyring.Ephemeral()}
	guard := egress.New(egress.Config{Exempt: []string{"127.0.0.1"}, AllowHTTP: true, Timeout: 2 * time.Second})
	b.endpoints = &events.Endpoints{DB: b.db.DB, Keys: b.keys, Guard: guard, Actor: "operator"}
	b.worker = &events.Worker{DB: b.db.DB, Keys: b.keys, Client: guard.Client(), Log: slog.New(slog.DiscardHandler), Timeout: 2 * time.Second}
	return b
}

// call is a webhook as it came in.
type call struct {
	header http.Header
	body   []byte
}

func (c call) id() string { return c.header.Get(webhooks.HeaderWebhookID) }

// receiver is a program that is told events.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	calls []call
	came  chan struct{}
	Reply func(w http.ResponseWriter, r *http.Request, n int) // n is the number of the call, from 1. Default: 204
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{came: make(chan struct{}, 1)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body) //nolint:errcheck // what came, came
		r.mu.Lock()
		r.calls = append(r.calls, call{req.Header.Clone(), body})
		n, reply := len(r.calls), r.Reply
		r.mu.Unlock()
		select {
		case r.came <- struct{}{}:
		default:
		}
		if reply == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		reply(w, req, n)
	}))
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

func (r *receiver) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// wait waits until n calls came in.
func (r *receiver) wait(t testing.TB, n int) []call {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		if all := r.all(); len(all) >= n {
			return all
		}
		select {
		case <-r.came:
		case <-timeout:
			t.Fatalf("%d calls came in, want %d", len(r.all()), n)
		}
	}
}

func status(code int) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(code) }
}

func (b *bench) endpoint(t testing.TB, owner events.Owner, address string, filter ...string) (events.Endpoint, string) {
	t.Helper()
	e, secret, err := b.endpoints.Create(t.Context(), events.New{Owner: owner, URL: address, Events: filter})
	if err != nil {
		t.Fatal(err)
	}
	return e, secret
}

func (b *bench) emit(t testing.TB, owner events.Owner, kind events.Type, id string) {
	t.Helper()
	if err := events.Emit(t.Context(), b.db.DB, events.Event{Type: kind, Owner: owner, ID: id, Status: "x"}); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) drain(t testing.TB) int {
	t.Helper()
	n, err := b.worker.Drain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// run delivers in the background until the test ends, or stop is called.
func (b *bench) run(t testing.TB, w *events.Worker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func (b *bench) count(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	if err := b.db.GetContext(t.Context(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

func (b *bench) get(t testing.TB, id string) events.Endpoint {
	t.Helper()
	e, err := b.endpoints.Get(t.Context(), "", id)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func verifies(t testing.TB, secret string, c call) bool {
	t.Helper()
	wh, err := webhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	return wh.VerifyIgnoringTimestamp(c.body, c.header) == nil // the database's clock stamps
}

func TestAdd(t *testing.T) { // GW-5, GW-2
	t.Parallel()
	b := newBench(t)
	acme, other := newReceiver(t), newReceiver(t)
	_, secret := b.endpoint(t, events.Tenant("acme"), acme.URL+"/hook?k=v", "verification.*")
	b.endpoint(t, events.Tenant("other"), other.URL)

	q := new(postgres.Query)
	q.With("changed", `SELECT * FROM (VALUES ('acme', 'vrf_1', '+12025550143', true, 'verification.delivered'), ('acme', 'vrf_2', '43', false, 'verification.undelivered'),
		(NULL, 'vrf_3', '44', false, 'verification.delivered'), ('acme', 'vrf_4', '44', false, NULL)) AS v(tenant, id, number, test, type)`)
	events.Add(q, "changed", events.Event{Status: "pending", Channel: "sms"}, events.Expressions{
		Type: "changed.type", Owner: events.TenantSQL("changed.tenant"), ID: "changed.id", Hint: "changed.number", Test: "changed.test", Reason: "NULL::text"})
	q.Finally("SELECT 1")
	if _, err := b.db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	b.emit(t, events.Tenant("acme"), events.FraudReported, "vrf_5") // its filter keeps it out
	if err := events.Emit(t.Context(), b.db.DB, events.Event{Type: events.VerificationSent, Owner: events.Tenant("acme"), ID: "vrf_6", Hint: "+12025550143", ClientRef: "order 7"}); err != nil {
		t.Fatal(err)
	}
	if n := b.count(t, "SELECT count(*) FROM events"); n != 4 {
		t.Errorf("%d events, want 4: rows without an owner or a type are not stored", n)
	}
	b.drain(t)
	got := map[string]string{}
	for _, c := range acme.all() {
		var p events.Payload
		if err := json.Unmarshal(c.body, &p); err != nil {
			t.Fatal(err)
		}
		var data struct{ ID string }
		json.Unmarshal(p.Data, &data) //nolint:errcheck // shown
		got[data.ID] = string(p.Type) + " " + string(p.Data)
		if p.ID != c.id() || !strings.HasPrefix(p.ID, "evt_") || p.Timestamp.IsZero() || !verifies(t, secret, c) || c.header.Get("Content-Type") != "application/json" {
			t.Errorf("call %v %s", c.header, c.body)
		}
		if bytes.Contains(c.body, []byte("5550143")) {
			t.Errorf("a full number: %s", c.body)
		}
	}
	want := map[string]string{
		"vrf_1": `verification.delivered {"id":"vrf_1","to":"••43","test":true,"status":"pending","channel":"sms"}`,
		"vrf_2": `verification.undelivered {"id":"vrf_2","to":"••43","status":"pending","channel":"sms"}`,
		"vrf_6": `verification.sent {"id":"vrf_6","to":"••43","client_ref":"order 7"}`,
	}
	for id, text := range want {
		if got[id] != text {
			t.Errorf("%s: %s, want %s", id, got[id], text)
		}
	}
	if len(got) != len(want) || len(other.all()) != 0 {
		t.Errorf("%d events arrived, and %d at another tenant", len(got), len(other.all()))
	}
}

func TestAddCostsNoRoundTrip(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	e, _ := b.endpoint(t, events.Operator, "http://127.0.0.1:1")
	trips := func(with bool) int64 {
		q := new(postgres.Query)
		q.With("changed", fmt.Sprintf("UPDATE webhook_endpoints SET updated_at = wall() WHERE url = %s RETURNING id", q.Bind(e.URL)+"::text"))
		if with {
			events.Add(q, "changed", events.Event{Type: events.VendorDegraded, Owner: events.Operator}, events.Expressions{ID: "changed.id::text"})
		}
		q.Finally("SELECT 1 FROM changed")
		run := func() int64 {
			before := b.db.RoundTrips.Load()
			if n, err := b.db.Run(t.Context(), q); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			return b.db.RoundTrips.Load() - before
		}
		run() // prepares
		return run()
	}
	if without, with := trips(false), trips(true); with != without || with != 1 {
		t.Errorf("%d round trips with an event, %d without", with, without)
	}
	if n := b.count(t, "SELECT count(*) FROM webhook_queue"); n != 2 {
		t.Errorf("%d queued, want 2", n)
	}
	q := new(postgres.Query)
	q.With("changed", "SELECT 1")
	events.Add(q, "changed", events.Event{Type: events.VendorDegraded, Owner: events.Operator}, events.Expressions{})
	q.Finally("SELECT 1/0") // what is undone was never told
	if _, err := b.db.Run(t.Context(), q); err == nil || b.count(t, "SELECT count(*) FROM events") != 2 {
		t.Errorf("an event outlived its change: %v", err)
	}
}

func TestRetries(t *testing.T) { // F-76
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	r.Reply = status(http.StatusInternalServerError)
	b.worker.DisableAfter = 10 * 24 * time.Hour
	e, _ := b.endpoint(t, events.Operator, r.URL)
	b.emit(t, events.Operator, events.VendorDegraded, "")
	began, attempts := b.db.Now(t), 0
	for {
		n := b.drain(t)
		if attempts += n; n != 1 {
			t.Fatalf("%d calls after attempt %d", n, attempts)
		}
		var due *time.Time
		if err := b.db.GetContext(t.Context(), &due, "SELECT max(due_at) FROM webhook_queue"); err != nil {
			t.Fatal(err)
		}
		if due == nil {
			break
		}
		b.db.Advance(t, due.Sub(b.db.Now(t))-time.Second)
		if attempts > 1 && b.drain(t) != 0 {
			t.Fatal("called too early")
		}
		b.db.Advance(t, time.Minute+time.Second) // a failing endpoint rests
	}
	took := b.db.Now(t).Sub(began)
	if attempts != 10 || took < 66*time.Hour || took > 85*time.Hour {
		t.Errorf("given up after %d attempts in %s", attempts, took)
	}
	ids := map[string]bool{}
	for _, c := range r.all() {
		ids[c.id()+string(c.body)] = true
	}
	if len(ids) != 1 {
		t.Errorf("%d different bodies", len(ids))
	}
	list, err := b.endpoints.Events(t.Context(), events.Which{Owner: events.Operator, Since: events.Keep, Failed: true})
	if err != nil || len(list) != 1 || list[0].Attempts != 10 || list[0].State != "failed" || list[0].Status != 500 || list[0].Result != events.Refused {
		t.Errorf("listed as %+v, %v", list, err)
	}
	// It answers again: replay brings back what it missed, once.
	r.Reply = nil
	if n, err := b.endpoints.Replay(t.Context(), "", events.Which{Endpoint: e.ID, Since: events.Keep, Failed: true}); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	b.drain(t)
	if all := r.all(); len(all) != 11 || all[10].id() != all[0].id() {
		t.Errorf("%d calls", len(all))
	}
	if n, err := b.endpoints.Replay(t.Context(), "", events.Which{Endpoint: e.ID, Since: events.Keep, Failed: true}); err != nil || n != 0 {
		t.Errorf("%d replayed again, %v", n, err)
	}
	if n := b.count(t, "SELECT count(*) FROM audit_events WHERE event = 'webhook.replay' AND object LIKE 'whk_% of operator'"); n != 1 {
		t.Errorf("%d records of replays", n)
	}
	if e := b.get(t, e.ID); e.State != "active" || e.FailingSince != nil {
		t.Errorf("still %+v", e)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	r.Reply = func(w http.ResponseWriter, _ *http.Request, n int) {
		if n == 1 {
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}
	b.endpoint(t, events.Operator, r.URL)
	b.emit(t, events.Operator, events.VendorDegraded, "")
	b.drain(t)
	b.db.Advance(t, 599*time.Second)
	if n := b.drain(t); n != 0 {
		t.Fatal("called before it wanted to be")
	}
	b.db.Advance(t, 2*time.Second)
	if n := b.drain(t); n != 1 {
		t.Fatal("not called again")
	}
}

func TestGone(t *testing.T) { // F-76
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	r.Reply = status(http.StatusGone)
	e, _ := b.endpoint(t, events.Tenant("t"), r.URL)
	for i := range 5 {
		b.emit(t, events.Tenant("t"), events.VerificationSent, fmt.Sprint(i))
	}
	b.worker.PerEndpoint = 1
	b.drain(t)
	b.emit(t, events.Tenant("t"), events.VerificationSent, "late")
	b.drain(t)
	if n := len(r.all()); n != 1 {
		t.Errorf("%d calls to an endpoint that is gone", n)
	}
	if e := b.get(t, e.ID); e.State != "disabled" || e.DisabledReason != "gone" || e.Waiting != 0 {
		t.Errorf("%+v", e)
	}
	if n := b.count(t, "SELECT count(*) FROM audit_events WHERE event = 'webhook.disable' AND reason = 'gone' AND actor = 'system' AND object LIKE 'whk_% of tenant:t'"); n != 1 {
		t.Errorf("%d audit records", n)
	}
	// Enabled again, it is told what happens from then on, and by replay what it missed.
	r.Reply = nil
	if err := b.endpoints.Enable(t.Context(), events.Tenant("t"), e.ID); err != nil {
		t.Fatal(err)
	}
	if b.drain(t) != 0 {
		t.Error("old events came by themselves")
	}
	if n, err := b.endpoints.Replay(t.Context(), "", events.Which{Owner: events.Tenant("t"), Endpoint: e.ID}); err != nil || n != 6 {
		t.Error(n, err)
	}
	if b.drain(t) != 6 {
		t.Error("not replayed")
	}
}

func TestFailingForDays(t *testing.T) { // F-76
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	r.Reply = status(http.StatusBadGateway)
	e, _ := b.endpoint(t, events.Operator, r.URL)
	for day := range 7 {
		b.emit(t, events.Operator, events.VendorDegraded, fmt.Sprint(day))
		b.drain(t)
		if state := b.get(t, e.ID); day < 5 && state.State != "failing" || day >= 5 && (state.State != "disabled" || state.DisabledReason != "failing" || state.Waiting != 0) {
			t.Fatalf("day %d: %+v", day, state)
		}
		b.db.Advance(t, 24*time.Hour+time.Minute)
	}
	if n := b.count(t, "SELECT count(*) FROM audit_events WHERE event = 'webhook.disable' AND reason = 'failing'"); n != 1 {
		t.Errorf("%d audit records", n)
	}
}

// One endpoint hangs, one drips its headers, one answers without an end, one is not there: everybody else is told at once.
func TestBadNeighbours(t *testing.T) { // GW-14, F-76, WHK-4
	t.Parallel()
	b := newBench(t)
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	hanging, dripping, endless, good := newReceiver(t), newReceiver(t), newReceiver(t), newReceiver(t)
	hanging.Reply = func(_ http.ResponseWriter, r *http.Request, _ int) {
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	}
	dripping.Reply = func(w http.ResponseWriter, r *http.Request, _ int) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n") //nolint:errcheck // as far as it goes
		for range 1000 {
			if _, err := io.WriteString(conn, "X-Drip: 1\r\n"); err != nil {
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-stop:
				return
			}
		}
	}
	var sent int64
	var mu sync.Mutex
	endless.Reply = func(w http.ResponseWriter, r *http.Request, _ int) {
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for n := int64(0); n < 10<<30; {
			m, err := w.Write(chunk)
			n += int64(m)
			mu.Lock()
			sent = max(sent, n)
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}
	for i, address := range []string{hanging.URL, dripping.URL, endless.URL, "http://127.0.0.1:1/"} {
		b.endpoint(t, events.Tenant(fmt.Sprint(i)), address)
		for n := range 40 {
			b.emit(t, events.Tenant(fmt.Sprint(i)), events.VerificationSent, fmt.Sprint(n))
		}
	}
	b.endpoint(t, events.Tenant("good"), good.URL)
	b.worker.Calls, b.worker.PerEndpoint = 16, 3
	b.run(t, b.worker)
	hanging.wait(t, 1)
	began := time.Now()
	for n := range 40 {
		b.emit(t, events.Tenant("good"), events.VerificationSent, fmt.Sprint(n))
	}
	good.wait(t, 40)
	if took := time.Since(began); took > b.worker.Timeout {
		t.Errorf("the good waited %s for the bad", took)
	}
	endless.wait(t, 3)
	if n := len(hanging.all()); n > 2*3 {
		t.Errorf("%d calls to an endpoint that hangs", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if sent > 16<<20 { // what fits into the sockets' buffers
		t.Errorf("%d bytes of an answer were taken", sent)
	}
}

func TestRedirect(t *testing.T) { // GW-13
	t.Parallel()
	b := newBench(t)
	target, r := newReceiver(t), newReceiver(t)
	r.Reply = func(w http.ResponseWriter, req *http.Request, _ int) {
		http.Redirect(w, req, target.URL, http.StatusTemporaryRedirect)
	}
	e, _ := b.endpoint(t, events.Operator, r.URL)
	b.emit(t, events.Operator, events.VendorDegraded, "")
	b.drain(t)
	list, err := b.endpoints.Events(t.Context(), events.Which{Endpoint: e.ID})
	if err != nil || len(list) != 1 || list[0].State != "waiting" || list[0].Result != events.Refused || list[0].Status != http.StatusTemporaryRedirect || len(target.all()) != 0 {
		t.Errorf("%+v, %v; %d at the target", list, err, len(target.all()))
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	e, first := b.endpoint(t, events.Operator, r.URL)
	second, err := b.endpoints.Rotate(t.Context(), events.Operator, e.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	tell := func() call {
		b.emit(t, events.Operator, events.VendorDegraded, "")
		b.drain(t)
		all := r.all()
		return all[len(all)-1]
	}
	if c := tell(); !verifies(t, first, c) || !verifies(t, second, c) || verifies(t, "whsec_"+strings.Repeat("A", 44), c) {
		t.Errorf("during the overlap: %v", c.header)
	}
	b.db.Advance(t, time.Hour+time.Second)
	if c := tell(); verifies(t, first, c) || !verifies(t, second, c) {
		t.Errorf("after the overlap: %v", c.header)
	}
	third, err := b.endpoints.Rotate(t.Context(), events.Operator, e.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c := tell(); verifies(t, second, c) || !verifies(t, third, c) {
		t.Errorf("without an overlap: %v", c.header)
	}
	if n := b.count(t, "SELECT count(*) FROM webhook_endpoints WHERE secret LIKE '%whsec%' OR previous_secret LIKE '%whsec%'"); n != 0 {
		t.Error("a secret lies open in the database")
	}
	if _, err := b.endpoints.Rotate(t.Context(), events.Operator, e.ID, events.MaxOverlap+1); err == nil {
		t.Error("an endless overlap")
	}
}

func TestOwners(t *testing.T) { // GW-2
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	e, _ := b.endpoint(t, events.Tenant("a"), r.URL)
	b.emit(t, events.Tenant("a"), events.VerificationSent, "1")
	list, err := b.endpoints.Events(t.Context(), events.Which{Owner: events.Tenant("a")})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	foreign := events.Tenant("b")
	b.endpoint(t, foreign, r.URL)
	before := b.count(t, "SELECT count(*) FROM webhook_queue")
	tries := map[string]func(id string) error{
		"get":     func(id string) error { _, err := b.endpoints.Get(t.Context(), foreign, id); return err },
		"rotate":  func(id string) error { _, err := b.endpoints.Rotate(t.Context(), foreign, id, 0); return err },
		"disable": func(id string) error { return b.endpoints.Disable(t.Context(), foreign, id) },
		"enable":  func(id string) error { return b.endpoints.Enable(t.Context(), foreign, id) },
		"delete":  func(id string) error { return b.endpoints.Delete(t.Context(), foreign, id) },
		"events": func(id string) error {
			_, err := b.endpoints.Events(t.Context(), events.Which{Owner: foreign, Endpoint: id})
			return err
		},
		"replay": func(id string) error {
			_, err := b.endpoints.Replay(t.Context(), "", events.Which{Owner: foreign, Endpoint: id})
			return err
		},
		"replay its event": func(string) error {
			_, err := b.endpoints.Replay(t.Context(), list[0].ID, events.Which{Owner: foreign})
			return err
		},
	}
	for name, try := range tries {
		for _, id := range []string{e.ID, "whk_00000000000000000000000000000000", "nonsense"} {
			if err := try(id); err == nil || !strings.Contains(err.Error(), events.ErrNotFound.Error()) {
				t.Errorf("%s of %s: %v", name, id, err)
			}
		}
	}
	if now := b.get(t, e.ID); now.State != "active" || now.Waiting != 1 || b.count(t, "SELECT count(*) FROM webhook_queue") != before {
		t.Errorf("changed: %+v", now)
	}
}

func TestCreate(t *testing.T) { // GW-13
	t.Parallel()
	b := newBench(t)
	for name, n := range map[string]events.New{
		"inside":      {Owner: events.Operator, URL: "https://10.0.0.1/"},
		"no event":    {Owner: events.Operator, URL: "http://127.0.0.1/", Events: []string{"verification.hacked"}},
		"any event":   {Owner: events.Operator, URL: "http://127.0.0.1/", Events: []string{"*"}},
		"description": {Owner: events.Operator, URL: "http://127.0.0.1/", Description: "a\x00"},
	} {
		if _, _, err := b.endpoints.Create(t.Context(), n); err == nil || !strings.Contains(err.Error(), events.ErrInvalid.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 21 {
		_, _, err := b.endpoints.Create(t.Context(), events.New{Owner: events.Tenant("many"), URL: "http://127.0.0.1/"})
		if (err == nil) != (i < 20) {
			t.Errorf("endpoint %d: %v", i, err)
		}
	}
	list, err := b.endpoints.List(t.Context(), events.Tenant("many"))
	if err != nil || len(list) != 20 {
		t.Error(len(list), err)
	}
	if err := b.endpoints.Delete(t.Context(), "", list[0].ID); err != nil {
		t.Error(err)
	}
	if err := b.endpoints.Delete(t.Context(), "", list[0].ID); err == nil {
		t.Error("deleted twice")
	}
	if n := b.count(t, "SELECT count(*) FROM audit_events WHERE event IN ('webhook.create', 'webhook.delete') AND object LIKE 'whk_% of tenant:many'"); n != 21 {
		t.Errorf("%d audit records, want 21", n)
	}
}

// Several servers share one queue: nobody is told twice.
func TestReplicas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var all []*receiver
	for i := range 3 {
		r := newReceiver(t)
		all = append(all, r)
		b.endpoint(t, events.Tenant(fmt.Sprint(i)), r.URL)
	}
	for range 3 {
		w := *b.worker
		w.DB = b.db.Open(t)
		b.run(t, &w)
	}
	const each = 150
	var telling sync.WaitGroup
	for i := range all {
		telling.Go(func() {
			for n := range each {
				b.emit(t, events.Tenant(fmt.Sprint(i)), events.VerificationSent, fmt.Sprint(n))
			}
		})
	}
	telling.Wait()
	for i, r := range all {
		ids := map[string]bool{}
		for _, c := range r.wait(t, each) {
			ids[c.id()] = true
		}
		if n := len(r.all()); n != each || len(ids) != each {
			t.Errorf("receiver %d: %d calls of %d events, want %d", i, n, len(ids), each)
		}
	}
}

func TestStop(t *testing.T) { // F-76: a server that ends waits for nobody, and counts nothing that it cut off
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	held := make(chan struct{})
	t.Cleanup(func() { close(held) })
	r.Reply = func(_ http.ResponseWriter, req *http.Request, _ int) {
		select {
		case <-req.Context().Done():
		case <-held:
		}
	}
	b.worker.Timeout = 30 * time.Second
	b.worker.Client = egress.New(egress.Config{Exempt: []string{"127.0.0.1"}, AllowHTTP: true, Timeout: 30 * time.Second}).Client()
	b.endpoint(t, events.Operator, r.URL)
	b.emit(t, events.Operator, events.VendorDegraded, "")
	stop := b.run(t, b.worker)
	r.wait(t, 1)
	began := time.Now()
	stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if n := b.count(t, "SELECT count(*) FROM webhook_queue WHERE attempts = 0 AND claim IS NULL AND due_at <= wall()"); n != 1 {
		t.Error("what was cut off is not due at once")
	}
	if n := b.count(t, "SELECT count(*) FROM webhook_attempts"); n != 0 {
		t.Error("what was cut off was counted")
	}
}

func TestVendorEvents(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	b.endpoint(t, events.Operator, r.URL, "vendor.*")
	for _, news := range []struct {
		vendor string
		up     bool
	}{{"a", true}, {"a", false}, {"a", false}, {"b", false}, {"a", true}, {"a", true}, {"a", false}} {
		if err := events.EmitVendor(t.Context(), b.db.DB, news.vendor, news.up); err != nil {
			t.Fatal(err)
		}
	}
	b.drain(t)
	var got []string
	for _, c := range r.all() {
		var p struct {
			Type string
			Data struct{ Vendor, Status string }
		}
		if err := json.Unmarshal(c.body, &p); err != nil {
			t.Fatal(err)
		}
		got = append(got, p.Data.Vendor+" "+p.Type)
	}
	want := "[a vendor.degraded b vendor.degraded a vendor.recovered a vendor.degraded]"
	if fmt.Sprint(got) != want {
		t.Errorf("told %v, want %s", got, want)
	}
}

func TestTestEvent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	e, secret := b.endpoint(t, events.Operator, r.URL, "vendor.degraded")
	if err := b.endpoints.Disable(t.Context(), events.Operator, e.ID); err != nil {
		t.Fatal(err)
	}
	a, err := b.worker.Test(t.Context(), b.get(t, e.ID))
	if err != nil || a.Result != events.Delivered || a.Status != http.StatusNoContent {
		t.Fatalf("%+v, %v", a, err)
	}
	if all := r.all(); len(all) != 1 || !verifies(t, secret, all[0]) || !strings.Contains(string(all[0].body), `"type":"webhook.test"`) {
		t.Errorf("%d calls", len(all))
	}
	r.Reply = status(http.StatusTeapot)
	if a, err := b.worker.Test(t.Context(), b.get(t, e.ID)); err != nil || a.Result != events.Refused || a.Status != http.StatusTeapot {
		t.Fatalf("%+v, %v", a, err)
	}
	if b.count(t, "SELECT count(*) FROM events")+b.count(t, "SELECT count(*) FROM webhook_attempts") != 0 {
		t.Error("a test left something behind")
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	server, desk := newReceiver(t), newReceiver(t)
	desk.Reply = func(w http.ResponseWriter, _ *http.Request, n int) {
		if n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	b.endpoint(t, events.Operator, server.URL)
	b.run(t, b.worker)
	e, secret, err := b.endpoints.Listen(t.Context(), events.New{Owner: events.Operator, URL: desk.URL, Events: []string{"vendor.*"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	shown, done := make(chan string, 10), make(chan error, 1)
	own := *b.worker
	own.DB = b.db.Open(t)
	go func() {
		done <- own.Listen(ctx, b.endpoints, e, func(a events.Attempt, body []byte) {
			shown <- fmt.Sprintf("%s %s %d %t", a.Type, a.Result, a.Status, len(body) > 0)
		})
	}()
	b.emit(t, events.Operator, events.VendorDegraded, "")
	b.emit(t, events.Operator, events.FraudReported, "")
	server.wait(t, 2)
	for _, c := range desk.wait(t, 1) {
		if !verifies(t, secret, c) {
			t.Error("wrongly signed")
		}
	}
	if got := <-shown; got != "vendor.degraded refused 500 true" {
		t.Error(got)
	}
	b.emit(t, events.Operator, events.VendorRecovered, "")
	desk.wait(t, 2)
	if got := <-shown; !strings.HasPrefix(got, "vendor.recovered") {
		t.Error(got)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := b.endpoints.Get(t.Context(), "", e.ID); err == nil {
		t.Error("the desk's endpoint is still there")
	}
	// A desk that was switched off gets nothing after half a minute, and is not listed.
	if _, _, err := b.endpoints.Listen(t.Context(), events.New{Owner: events.Operator}, secret); err != nil {
		t.Fatal(err)
	}
	b.db.Advance(t, 31*time.Second)
	b.emit(t, events.Operator, events.VendorDegraded, "")
	if list, err := b.endpoints.List(t.Context(), ""); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	server.wait(t, 4)
	if n := b.count(t, "SELECT count(*) FROM webhook_queue q JOIN webhook_endpoints w ON w.id = q.endpoint_id WHERE w.listen_until IS NOT NULL"); n != 0 {
		t.Errorf("%d events wait for nobody", n)
	}
	for _, bad := range []string{"whsec_", "whsec_!!", "c2VjcmV0", "whsec_c2hvcnQ="} {
		if _, _, err := b.endpoints.Listen(t.Context(), events.New{Owner: events.Operator}, bad); err == nil {
			t.Errorf("secret %q was taken", bad)
		}
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	for _, kind := range events.Types() {
		family, _, _ := strings.Cut(string(kind), ".")
		if err := events.CheckFilter([]string{string(kind), family + ".*"}); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "*", "verification", "verification.", "webhook.test", "verification.*.*", url.QueryEscape("verification.*")} {
		if events.CheckFilter([]string{bad}) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for text, ok := range map[string]bool{"operator": true, "tenant:x": true, "client:shop": true, "tenant:": false, "": false, "user:1": false} {
		if _, err := events.ParseOwner(text); (err == nil) != ok {
			t.Errorf("owner %q: %v", text, err)
		}
	}
}
