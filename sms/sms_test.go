package sms_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestParseNumber(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct { // SN-4, SN-5, EN-13
		in, region, want string
		err              error
	}{
		{in: "+12025550143", want: "+12025550143"},
		{in: "+1 (202) 555-0143", want: "+12025550143"},
		{in: "001 202 555 0143", want: "+12025550143"},
		{in: "(202) 555-0143", region: "US", want: "+12025550143"},
		{in: "＋１２０２５５５０１４３", want: "+12025550143"},
		{in: " +12025550143 ", want: "+12025550143"},
		{in: "+4915123456789", want: "+4915123456789"},
		{in: "0151 23456789", region: "DE", want: "+4915123456789"},
		{in: "+493012345678", err: sms.ErrNumberLandline},
		{in: "+499001234567", err: sms.ErrNumberUnsupported},
		{in: "+881612345678", err: sms.ErrNumberUnsupported}, // SN-5: satellite, and networks of no country
		{in: "+882161234567", err: sms.ErrNumberUnsupported},
		{in: "+4418005551234567890", err: sms.ErrNumberFormat},
		{in: "2025550143", err: sms.ErrNumberFormat},
		{in: "+12025550143;ext=1", err: sms.ErrNumberFormat},
		{in: "+12025550143x1", err: sms.ErrNumberFormat},
		{in: "+1202555\r\n0143", err: sms.ErrNumberFormat},
		{in: "911", region: "US", err: sms.ErrNumberFormat},
		{in: "", err: sms.ErrNumberFormat},
		{in: strings.Repeat("1", 200), region: "US", err: sms.ErrNumberFormat},
	} {
		n, err := sms.ParseNumber(tt.in, tt.region)
		if !errors.Is(err, tt.err) || n.Reveal() != tt.want {
			t.Errorf("ParseNumber(%q, %q) = %q, %v; want %q, %v", tt.in, tt.region, n.Reveal(), err, tt.want, tt.err)
		}
	}
}

func TestNumberDoesNotPrint(t *testing.T) {
	t.Parallel()
	n, err := sms.ParseNumber("+12025550143", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprint(n), fmt.Sprintf("%v %+v %#v %s", n, n, n, n), fmt.Sprint(slog.Any("n", n)), fmt.Sprint(struct{ To sms.Number }{n})} {
		if strings.Contains(printed, "2025550") {
			t.Errorf("a printed number shows: %s", printed)
		}
	}
}

// originBound reads a text as browsers do: WICG, Origin-bound one-time codes, "parse an origin-bound one-time code message".
func originBound(text string) (host, code string, ok bool) {
	last := text[strings.LastIndex(text, "\n")+1:]
	found := regexp.MustCompile(`^@([^\s#@]+) #([^\s#@]+)$`).FindStringSubmatch(last)
	if found == nil {
		return "", "", false
	}
	return found[1], found[2], true
}

func TestTexts(t *testing.T) {
	t.Parallel()
	texts, err := sms.NewTexts("Twenty Letters Names", "accounts.example.com")
	if err != nil {
		t.Fatal(err)
	}
	digits := regexp.MustCompile(`\b\d{6}\b`)
	for _, purpose := range []string{"login", "step_up", "enrol"} { // SN-11, SMS-1, SMS-6
		for _, locale := range []string{"en", "de", "de-AT", "fr", "", "x y\n@evil.example #111111"} {
			text, used := texts.Code(purpose, locale, "012345", 10*time.Minute, "")
			if host, code, ok := originBound(text); !ok || host != "accounts.example.com" || code != "012345" {
				t.Errorf("%s in %q is not bound to the host: %q", purpose, locale, text)
			}
			if len(text) > sms.MaxBytes {
				t.Errorf("%s in %q has %d bytes, more than %d", purpose, used, len(text), sms.MaxBytes)
			}
			for _, group := range digits.FindAllString(text, -1) {
				if group != "012345" {
					t.Errorf("%s in %q has another group of six digits", purpose, used)
				}
			}
			if strings.HasPrefix(locale, "de") != (used == "de") {
				t.Errorf("locale %q was answered in %q", locale, used)
			}
		}
	}
}

func TestNewTextsRefuses(t *testing.T) { // SN-10
	t.Parallel()
	for _, tt := range [][2]string{
		{"", "h.example"}, {"A name of more than twenty", "h.example"}, {"Line\n@evil.example #1", "h.example"}, {"Bank ₹", "h.example"}, {"Bank 24", "h.example"},
		{"Bank", ""}, {"Bank", "h.example #111111"},
	} {
		if _, err := sms.NewTexts(tt[0], tt[1]); err == nil {
			t.Errorf("NewTexts(%q, %q) was accepted", tt[0], tt[1])
		}
	}
}

// vendor records what it is handed and fails on demand.
type vendor struct {
	mu     sync.Mutex
	name   string
	key    sms.Idempotency
	legs   []sms.Leg
	fail   func(call int, leg sms.Leg) error
	during func()
}

func (v *vendor) Name() string { return v.name }
func (v *vendor) Abilities() sms.Abilities {
	return sms.Abilities{Channels: []sms.Channel{sms.SMS}, Idempotency: v.key}
}

func (v *vendor) Send(_ context.Context, leg sms.Leg) (sms.Accepted, error) {
	v.mu.Lock()
	v.legs = append(v.legs, leg)
	n := len(v.legs)
	v.mu.Unlock()
	if v.during != nil {
		v.during()
	}
	if v.fail != nil {
		if err := v.fail(n, leg); err != nil {
			return sms.Accepted{}, err
		}
	}
	return sms.Accepted{Ref: "ref-" + leg.ID.String()}, nil
}

func (v *vendor) calls() []sms.Leg {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]sms.Leg(nil), v.legs...)
}

type world struct {
	db     *pgtest.Database
	keys   *keyring.Ring
	vendor *vendor
	outbox *sms.Outbox
}

func newWorld(t testing.TB) *world {
	t.Helper()
	keys := keyring.Ephemeral()
	return &world{db: pgtest.New(t), keys: keys, vendor: &vendor{name: "test", key: sms.Replay}, outbox: &sms.Outbox{Keys: keys}}
}

func (w *world) worker(db *postgres.DB, vendors ...sms.Vendor) *sms.Worker {
	if len(vendors) == 0 {
		vendors = []sms.Vendor{w.vendor}
	}
	var carriers []sms.Carrier
	for _, v := range vendors {
		carriers = append(carriers, sms.Carrier{Vendor: v, Senders: map[string]string{"": "ACME"}})
	}
	routing, err := sms.NewRouting(sms.RoutingConfig{Carriers: carriers, Recovery: 100 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	return &sms.Worker{DB: db, Keys: w.keys, Routing: routing, Log: slog.New(slog.DiscardHandler)}
}

func (w *world) enqueue(t testing.TB, challenge uuid.UUID) uuid.UUID {
	t.Helper()
	to, err := sms.ParseNumber("+12025550143", "")
	if err != nil {
		t.Fatal(err)
	}
	m := sms.Message{ID: uuid.New(), Challenge: challenge, To: to, Purpose: "login", Locale: "en", Text: "code 123456", Life: 10 * time.Minute}
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	if err := w.outbox.Enqueue(q, m, "asked"); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM sms_queued")
	if _, err := w.db.Run(context.WithoutCancel(t.Context()), q); err != nil {
		t.Fatal(err)
	}
	return m.ID
}

func (w *world) cancel(t testing.TB, challenge uuid.UUID) {
	t.Helper()
	q := new(postgres.Query)
	q.With("ended", "SELECT "+q.Bind(challenge)+"::uuid AS challenge_id")
	w.outbox.Cancel(q, "ended")
	q.Finally("SELECT 1")
	if _, err := w.db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
}

type row struct {
	State  string  `db:"state"`
	Reason *string `db:"reason"`
	Erased bool    `db:"erased"`
	Legs   int     `db:"legs"`
}

func (w *world) row(t testing.TB, id uuid.UUID) row {
	t.Helper()
	var r row
	if err := w.db.GetContext(t.Context(), &r, `SELECT state, reason, body IS NULL AS erased, legs FROM messages WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) drain(t testing.TB) int {
	t.Helper()
	n, err := w.worker(w.db.DB).Drain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func text(s string) *string { return &s }

func TestWorkerByFailure(t *testing.T) {
	t.Parallel()
	failure := func(class sms.Class, reached sms.Reached) error {
		return &sms.Error{Class: class, Vendor: "test", Reached: reached, RetryAfter: time.Minute}
	}
	tests := []struct {
		name  string
		fails []error         // of each call in turn; the last repeats
		waits []time.Duration // before each drain
		want  row
		calls int
		keys  int // different idempotency keys seen
	}{
		{name: "taken", waits: []time.Duration{0}, want: row{State: "sent", Legs: 1}, calls: 1, keys: 1},
		{name: "F-42 wrong number", fails: []error{failure(sms.InvalidRecipient, sms.NotSent)}, waits: []time.Duration{0, time.Minute},
			want: row{State: "failed", Reason: text("invalid_recipient"), Legs: 1}, calls: 1, keys: 1},
		{name: "fraud is never tried again", fails: []error{failure(sms.BlockedFraud, sms.NotSent)}, waits: []time.Duration{0, time.Minute},
			want: row{State: "failed", Reason: text("blocked_fraud"), Legs: 1}, calls: 1, keys: 1},
		{name: "temporary, three pauses, then an end", fails: []error{failure(sms.Temporary, sms.NotSent)},
			waits: []time.Duration{0, 600 * time.Millisecond, 1100 * time.Millisecond, 2100 * time.Millisecond, time.Minute},
			want:  row{State: "failed", Reason: text("temporary"), Legs: 4}, calls: 4, keys: 4},
		{name: "temporary, too early", fails: []error{failure(sms.Temporary, sms.NotSent)}, waits: []time.Duration{0, 100 * time.Millisecond},
			want: row{State: "queued", Reason: text("temporary"), Legs: 1}, calls: 1, keys: 1},
		{name: "temporary, then taken", fails: []error{failure(sms.Temporary, sms.NotSent), nil}, waits: []time.Duration{0, time.Second},
			want: row{State: "sent", Legs: 2}, calls: 2, keys: 2},
		{name: "rate limited, as long as it says", fails: []error{failure(sms.RateLimited, sms.NotSent), nil}, waits: []time.Duration{0, 50 * time.Second, 11 * time.Second},
			want: row{State: "sent", Legs: 2}, calls: 2, keys: 2},
		{name: "F-41 unknown: once more with the same key", fails: []error{failure(sms.Ambiguous, sms.MaybeSent), nil}, waits: []time.Duration{0, 2 * time.Second},
			want: row{State: "sent", Legs: 2}, calls: 2, keys: 1},
		{name: "F-41 unknown twice: an end", fails: []error{errors.New("connection reset")}, waits: []time.Duration{0, 2 * time.Second, time.Minute},
			want: row{State: "failed", Reason: text("ambiguous"), Legs: 2}, calls: 2, keys: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.vendor.fail = func(call int, _ sms.Leg) error {
				if len(tt.fails) == 0 {
					return nil
				}
				return tt.fails[min(call, len(tt.fails))-1]
			}
			id := w.enqueue(t, uuid.New())
			for _, wait := range tt.waits {
				w.db.Advance(t, wait)
				w.drain(t)
			}
			if diff := cmp.Diff(tt.want, w.row(t, id)); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
			keys := map[uuid.UUID]bool{}
			for _, leg := range w.vendor.calls() {
				keys[leg.ID] = true
				if leg.Text != "code 123456" || leg.To.Reveal() != "+12025550143" {
					t.Errorf("the vendor was handed %q", leg.Text)
				}
			}
			if n := len(w.vendor.calls()); n != tt.calls || len(keys) != tt.keys {
				t.Errorf("%d calls with %d keys, want %d with %d", n, len(keys), tt.calls, tt.keys)
			}
		})
	}
}

func TestDown(t *testing.T) { // F-44
	t.Parallel()
	w := newWorld(t)
	worker := w.worker(w.db.DB)
	var err error
	if worker.Routing, err = sms.NewRouting(sms.RoutingConfig{Carriers: []sms.Carrier{{Vendor: w.vendor}}, Recovery: time.Hour}); err != nil {
		t.Fatal(err)
	}
	w.vendor.fail = func(int, sms.Leg) error { return &sms.Error{Class: sms.Unauthorized, Reached: sms.NotSent} }
	send := func() {
		t.Helper()
		w.enqueue(t, uuid.New())
		if _, err := worker.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	send()
	send()
	if worker.Routing.Down() {
		t.Fatal("down after two failures")
	}
	send()
	if !worker.Routing.Down() {
		t.Fatal("not down after three failures in a row")
	}
}

func TestNothingIsSentAfterTheEnd(t *testing.T) {
	t.Parallel()

	t.Run("canceled before it was claimed", func(t *testing.T) {
		t.Parallel()
		w, challenge := newWorld(t), uuid.New()
		id := w.enqueue(t, challenge)
		w.cancel(t, challenge)
		if n := w.drain(t); n != 0 {
			t.Fatalf("%d calls after the challenge ended", n)
		}
		if diff := cmp.Diff(row{State: "canceled", Erased: true}, w.row(t, id)); diff != "" {
			t.Fatalf("message (-want +got):\n%s", diff)
		}
	})

	t.Run("F-44 its time has passed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id := w.enqueue(t, uuid.New())
		w.db.Advance(t, 10*time.Minute+time.Second)
		if n := w.drain(t); n != 0 {
			t.Fatalf("%d calls after its time", n)
		}
		if err := w.worker(w.db.DB).Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(row{State: "failed", Reason: text("expired"), Erased: true}, w.row(t, id)); diff != "" {
			t.Fatalf("message (-want +got):\n%s", diff)
		}
	})

	t.Run("canceled while the vendor was called", func(t *testing.T) {
		t.Parallel()
		w, challenge := newWorld(t), uuid.New()
		w.vendor.during = func() { w.cancel(t, challenge) }
		w.vendor.fail = func(int, sms.Leg) error { return &sms.Error{Class: sms.Temporary, Reached: sms.NotSent} }
		id := w.enqueue(t, challenge)
		w.drain(t)
		w.db.Advance(t, time.Minute)
		if w.drain(t) != 0 || w.row(t, id).State != "canceled" {
			t.Fatalf("a canceled message came back: %+v", w.row(t, id))
		}
	})

	t.Run("a sent text is erased when its time has passed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id := w.enqueue(t, uuid.New())
		w.drain(t)
		if w.row(t, id).Erased {
			t.Fatal("erased while a resend may need it")
		}
		w.db.Advance(t, 11*time.Minute)
		if err := w.worker(w.db.DB).Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(row{State: "sent", Erased: true, Legs: 1}, w.row(t, id)); diff != "" {
			t.Fatalf("message (-want +got):\n%s", diff)
		}
	})
}

// crashing is a vendor whose process dies during the call: the worker never settles.
type crashing struct{ *vendor }

func (c crashing) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	c.vendor.Send(ctx, leg) //nolint:errcheck // it is gone before it could tell
	panic("killed")
}

func TestCrash(t *testing.T) { // F-03, F-04
	t.Parallel()
	w := newWorld(t)
	id := w.enqueue(t, uuid.New())
	crash := func() {
		defer func() { recover() }() //nolint:errcheck // the crash that is wanted
		dying := w.worker(w.db.DB, crashing{w.vendor})
		dying.Drain(t.Context()) //nolint:errcheck // it does not return
	}
	crash()
	if n := w.drain(t); n != 0 {
		t.Fatal("claimed while the lease of a dead worker runs")
	}
	w.db.Advance(t, 21*time.Second)
	crash()
	w.db.Advance(t, 21*time.Second)
	if n := w.drain(t); n != 0 {
		t.Fatal("a third call for one leg")
	}
	legs := w.vendor.calls()
	if len(legs) != 2 || legs[0].ID != legs[1].ID {
		t.Fatalf("%d calls, want 2 with one key", len(legs))
	}
	if diff := cmp.Diff(row{State: "failed", Reason: text("ambiguous"), Legs: 2}, w.row(t, id)); diff != "" {
		t.Fatalf("message (-want +got):\n%s", diff)
	}
}

func TestTwoWorkersSendEachOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 200 {
		w.enqueue(t, uuid.New())
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, db := range []*postgres.DB{w.db.DB, w.db.Open(t)} {
		worker := w.worker(db)
		wg.Go(func() {
			if err := worker.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for {
		var open int
		if err := w.db.GetContext(t.Context(), &open, `SELECT count(*) FROM messages WHERE state <> 'sent'`); err != nil {
			t.Fatal(err)
		}
		if open == 0 {
			break
		}
	}
	stop()
	wg.Wait()
	if n := len(w.vendor.calls()); n != 200 {
		t.Fatalf("%d calls for 200 messages", n)
	}
}

func TestRoundTripsOfAMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.db.SetMaxOpenConns(1)
	for warm := range 2 {
		w.enqueue(t, uuid.New())
		before := w.db.RoundTrips.Load()
		w.drain(t)
		if n := w.db.RoundTrips.Load() - before; warm == 1 && n != 4 { // claim, leg, settle, and a claim that finds nothing
			t.Fatalf("%d round trips, want 4", n)
		}
	}
}

// BenchmarkDeliver is the whole way of one message: stored, claimed, called, settled.
func BenchmarkDeliver(b *testing.B) {
	w := newWorld(b)
	worker := w.worker(w.db.DB)
	b.ReportAllocs()
	for b.Loop() {
		w.enqueue(b, uuid.New())
		if n, err := worker.Drain(b.Context()); n != 1 || err != nil {
			b.Fatal(n, err)
		}
	}
}
