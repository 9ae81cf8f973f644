package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// carrier is a vendor that keeps what it is given.
type carrier struct {
	mu      sync.Mutex
	legs    []sms.Leg
	failure *sms.Error
}

func (*carrier) Name() string { return "carrier" }
func (*carrier) Abilities() sms.Abilities {
	return sms.Abilities{Channels: []sms.Channel{sms.SMS, sms.Voice}, Idempotency: sms.Replay}
}

func (c *carrier) Send(_ context.Context, leg sms.Leg) (sms.Accepted, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return sms.Accepted{}, c.failure
	}
	c.legs = append(c.legs, leg)
	return sms.Accepted{Ref: leg.ID.String()}, nil
}

// fail has every send fail from now on.
func (c *carrier) fail(failure *sms.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = failure
}

func (c *carrier) sent() []sms.Leg {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]sms.Leg(nil), c.legs...)
}

// mailer is a mail server that keeps what it is given.
type mailer struct {
	mu      sync.Mutex
	mails   []mail.Message
	failure *mail.Error
}

func (m *mailer) Send(_ context.Context, message mail.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return m.failure
	}
	m.mails = append(m.mails, message)
	return nil
}

// tokens knows the access tokens of applications.
type tokens map[string]string

func (t tokens) Application(_ context.Context, token string) (string, error) { return t[token], nil }

// world is a gateway with two replicas, two tenants and a carrier.
type world struct {
	db       *pgtest.Database
	keys     *keyring.Ring
	gateway  *gateway.Gateway
	replica  *gateway.Gateway
	carrier  *carrier
	routing  *sms.Routing
	worker   *sms.Worker
	desk     *sms.Desk
	mailer   *mailer
	postman  *mail.Worker
	log      *bytes.Buffer
	handlers []http.Handler
	now      time.Time

	live, test, other string // keys: of the first tenant, of its tests, and of the second
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{db: pgtest.New(t), keys: keyring.Ephemeral(), carrier: &carrier{}, log: new(bytes.Buffer), now: time.Now()}
	routing, err := sms.NewRouting(sms.RoutingConfig{Carriers: []sms.Carrier{{Vendor: w.carrier}}, Channels: []sms.Channel{sms.SMS, sms.Voice}})
	must(t, err)
	w.routing = routing
	w.gateway, w.replica = w.newGateway(t, w.db.DB), w.newGateway(t, w.db.Open(t))
	for _, g := range []*gateway.Gateway{w.gateway, w.replica} {
		w.handlers = append(w.handlers, httpkit.Identify(httpkit.Trust{}, g.Routes()))
	}
	w.worker = &sms.Worker{DB: w.db.DB, Keys: w.keys, Routing: routing, Log: slog.New(slog.DiscardHandler), Became: w.gateway.Became}
	w.desk = &sms.Desk{DB: w.db.DB, Keys: w.keys, Routing: routing, Log: slog.New(slog.DiscardHandler), Became: w.gateway.Became}
	w.mailer = &mailer{}
	w.postman = &mail.Worker{DB: w.db.DB, Keys: w.keys, Sender: w.mailer, Log: slog.New(slog.DiscardHandler), Became: w.gateway.Became}
	must(t, w.gateway.Tenants.Create(t.Context(), "shop", gateway.Settings{Service: "Shop"}))
	must(t, w.gateway.Tenants.Create(t.Context(), "bank", gateway.Settings{Service: "Bank"}))
	w.live = w.key(t, "shop", gateway.NewKey{})
	w.test = w.key(t, "shop", gateway.NewKey{Test: true})
	w.other = w.key(t, "bank", gateway.NewKey{})
	return w
}

func (w *world) newGateway(t testing.TB, db *postgres.DB) *gateway.Gateway {
	t.Helper()
	texts, err := sms.NewTexts("Watchword", "login.example")
	must(t, err)
	g, err := gateway.New(gateway.Config{
		DB: db, Keys: w.keys, Outbox: &sms.Outbox{Keys: w.keys, Countries: map[string]bool{"US": true, "FR": true}}, Texts: texts, Ways: w.routing, Mails: &mail.Outbox{Keys: w.keys}, Limits: factors.DefaultLimits(),
		Life: 10 * time.Minute, DailyBudget: 100_000, Rate: 100_000, Tokens: tokens{"good.token": "app", "foreign.token": "stranger"}, Docs: "https://login.example",
		Now: func() time.Time { return w.now }, Log: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	must(t, err)
	return g
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) key(t testing.TB, tenant string, k gateway.NewKey) string {
	t.Helper()
	_, key, err := w.gateway.Tenants.CreateKey(t.Context(), tenant, k)
	must(t, err)
	return key
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func (a *answer) code() string {
	code, _ := a.body["code"].(string)
	return code
}

func (a *answer) id() string {
	id, _ := a.body["id"].(string)
	return id
}

// ask sends a request to the first replica. headers are pairs.
func (w *world) ask(t testing.TB, method, path, key, body string, headers ...string) *answer {
	t.Helper()
	return w.askAt(t, w.handlers[0], method, path, key, body, headers...)
}

func (w *world) askAt(t testing.TB, at http.Handler, method, path, key, body string, headers ...string) *answer {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, content)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	at.ServeHTTP(rec, r.WithContext(t.Context()))
	a := &answer{status: rec.Code, header: rec.Header(), text: rec.Body.String()}
	if err := json.Unmarshal(rec.Body.Bytes(), &a.body); err != nil {
		t.Errorf("%s %s: not an object: %q", method, path, a.text)
	}
	described(t, r, a.status, a.header, rec.Body.Bytes())
	if a.status >= 500 && a.status != http.StatusServiceUnavailable {
		t.Errorf("%s %s: %d %s\n%s", method, path, a.status, a.text, w.log)
	}
	return a
}

// want fails unless the answer has that status, and that code if it is a problem.
func (a *answer) want(t testing.TB, status int, code gateway.Code) *answer {
	t.Helper()
	if a.status != status || a.code() != string(code) {
		t.Fatalf("%d %s\n%s\nwant %d %s", a.status, a.code(), a.text, status, code)
	}
	if kind := a.header.Get("Content-Type"); (status >= 400) != (kind == "application/problem+json") {
		t.Fatalf("status %d as %q", status, kind)
	}
	return a
}

// number is a number that no other test of this world has.
func number(i int) string { return fmt.Sprintf("+1202556%04d", i) }

func (w *world) create(t testing.TB, key, to string, more ...string) string {
	t.Helper()
	return w.ask(t, "POST", "/v1/verifications", key, fmt.Sprintf(`{"to":%q%s}`, to, strings.Join(more, ""))).want(t, 201, "").id()
}

// code opens the newest text of a verification, as only its worker could.
func (w *world) code(t testing.TB, id string) string {
	t.Helper()
	raw, err := gateway.Challenge(id)
	must(t, err)
	return w.codeOf(t, raw)
}

var codeForm = regexp.MustCompile(`"code":"([0-9A-Z]+)"`)

func (w *world) codeOf(t testing.TB, id uuid.UUID) string {
	t.Helper()
	found := codeForm.FindStringSubmatch(w.body(t, id))
	if found == nil {
		t.Fatal("no code in the text")
	}
	return found[1]
}

// text is the newest text of a verification, as it is stored.
func (w *world) text(t testing.TB, id string) string {
	t.Helper()
	return w.body(t, challenge(t, id))
}

func (w *world) body(t testing.TB, id uuid.UUID) string {
	t.Helper()
	var body []byte
	must(t, w.db.GetContext(t.Context(), &body, `SELECT body FROM messages WHERE challenge_id = $1 AND body IS NOT NULL ORDER BY created_at DESC LIMIT 1`, id))
	text, err := w.keys.Open(body, "message of challenge "+id.String())
	must(t, err)
	return string(text)
}

func (w *world) check(t testing.TB, key, id, code string) *answer {
	t.Helper()
	return w.ask(t, "POST", "/v1/verifications/"+id+"/check", key, fmt.Sprintf(`{"code":%q}`, code))
}

func (w *world) count(t testing.TB, statement string, args ...any) (n int) {
	t.Helper()
	must(t, w.db.GetContext(t.Context(), &n, statement, args...))
	return n
}
