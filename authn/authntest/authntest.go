// Package authntest makes small worlds for tests: a database with subscribers who have passwords, phones, authenticator apps and backup codes, the sign-in
// service over it, and what people have in their hands: a test reads the texts, the app's codes and the paper.
package authntest

import (
	"bytes"
	"context"
	"net/netip"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Host of the issuer that texts are bound to.
const Host = "login.example"

// Password of every subscriber.
const Password = "correct horse battery staple"

// World is one test's own.
type World struct {
	DB      *pgtest.Database
	Keys    *keyring.Ring
	Service *authn.Service
	Outage  atomic.Bool // no text gets through

	more []factors.Factor
}

// New makes a world without subscribers. It knows text messages, and more factors if any are given.
func New(t testing.TB, more ...factors.Factor) *World {
	t.Helper()
	w := &World{DB: pgtest.New(t), Keys: keyring.Ephemeral(), more: more}
	w.Service = w.Replica(t, w.DB.DB)
	return w
}

// Replica makes another service over the world's database, on its own pool if db is that.
func (w *World) Replica(t testing.TB, db *postgres.DB) *authn.Service {
	t.Helper()
	texts, err := sms.NewTexts("Watchword", Host)
	if err != nil {
		t.Fatal(err)
	}
	factor, err := smsotp.New(texts, 6, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	factor.Outage = w.Outage.Load
	apps, err := totp.New(w.Keys, "Watchword")
	if err != nil {
		t.Fatal(err)
	}
	paper, err := backupcode.New(w.Keys)
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := factors.NewLedger(db, w.Keys, &sms.Outbox{Keys: w.Keys}, factors.DefaultLimits(), append([]factors.Factor{factor, apps, paper}, w.more...)...)
	if err != nil {
		t.Fatal(err)
	}
	told := &notices.Notices{Texted: ledger.Reachable(), Mails: true}
	ledger.Warn = told.Warn
	passwords, err := authn.NewPasswords(authn.HashingConfig{})
	if err != nil {
		t.Fatal(err)
	}
	service := &authn.Service{DB: db, Keys: w.Keys, Ledger: ledger, Passwords: passwords, Config: authn.DefaultConfig(), Notices: told}
	service.Config.Policy.Installed = service.Kinds()
	return service
}

// Subscriber enrols somebody with [Password], and with a phone unless number is empty.
func (w *World) Subscriber(t testing.TB, username, number string) uuid.UUID {
	t.Helper()
	var bound []authn.Binding
	if number != "" {
		parsed, err := sms.ParseNumber(number, "")
		if err != nil {
			t.Fatal(err)
		}
		a, unique := smsotp.Phone(uuid.Nil, parsed)
		bound = append(bound, authn.Binding{Authenticator: a, Unique: unique})
	}
	id, err := w.Service.Create(t.Context(), username, Password, authn.Profile{
		"name": "Alice Example", "given_name": "Alice", "family_name": "Example", "preferred_username": username,
		"email": username + "@mail.example", "email_verified": true, "phone_number": number, "phone_number_verified": true,
		"address": map[string]any{"country": "US"},
	}, bound...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// App is an authenticator app.
type App struct {
	Authenticator factors.Authenticator
	World         *World
}

// App binds an authenticator app to a subscriber.
func (w *World) App(t testing.TB, subscriber uuid.UUID) *App {
	t.Helper()
	a, _ := w.provision(t, totp.Kind, subscriber)
	return &App{Authenticator: a, World: w}
}

// Code is what the app shows when its clock is so many steps ahead of the server's.
func (a *App) Code(t testing.TB, ahead int) string {
	t.Helper()
	code, err := totp.Code(a.Authenticator.Data, totp.Step(a.World.DB.Now(t))+int64(ahead))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// Paper binds a set of backup codes to a subscriber, in place of the one before.
func (w *World) Paper(t testing.TB, subscriber uuid.UUID) (codes []string) {
	t.Helper()
	_, setup := w.provision(t, backupcode.Kind, subscriber)
	return setup.Codes
}

func (w *World) provision(t testing.TB, kind string, subscriber uuid.UUID) (factors.Authenticator, factors.Setup) {
	t.Helper()
	factor, _ := w.Service.Ledger.Factor(kind)
	a, setup, err := factor.(factors.Provisioner).Provision(subscriber, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Service.Bind(t.Context(), subscriber, authn.Binding{Authenticator: a}); err != nil {
		t.Fatal(err)
	}
	return a, setup
}

var lastLine = regexp.MustCompile(`\n\n@` + regexp.QuoteMeta(Host) + ` #(\d+)`)

// Code reads the newest text of a challenge, as the phone would show it; "" when nothing was sent.
func (w *World) Code(t testing.TB, challenge uuid.UUID) string {
	t.Helper()
	var bodies [][]byte
	if err := w.DB.SelectContext(t.Context(), &bodies,
		`SELECT body FROM messages WHERE challenge_id = $1 AND body IS NOT NULL ORDER BY created_at DESC LIMIT 1`, challenge); err != nil {
		t.Fatal(err)
	}
	if len(bodies) == 0 {
		return ""
	}
	text, err := w.Keys.Open(bodies[0], "message of challenge "+challenge.String())
	if err != nil {
		t.Fatal(err)
	}
	// The body may be JSON, where a line break is two characters.
	found := lastLine.FindSubmatch(bytes.ReplaceAll(text, []byte(`\n`), []byte("\n")))
	if found == nil {
		t.Fatal("the text does not end with the code bound to the host")
	}
	return string(found[1])
}

// Texts counts the messages that were stored.
func (w *World) Texts(t testing.TB) (n int) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &n, `SELECT count(*) FROM messages`); err != nil {
		t.Fatal(err)
	}
	return n
}

// From is a context of a request that came from the address.
func From(ctx context.Context, address string) context.Context {
	return audit.With(ctx, audit.Context{Source: netip.MustParseAddr(address), RequestID: "req_test"})
}

// Beginning is what an application asks for that leaves everything to policy.
func Beginning() authn.Beginning {
	return authn.Beginning{
		RelyingParty: authn.RelyingParty{ID: "demo", Name: "Demo", HomeURI: "https://rp.example/", Origin: "https://rp.example", FirstParty: true},
		Requirement:  authn.Requirement{MaxAge: -1}, Payload: []byte("{}"),
	}
}

// SignIn walks through password and code and gives the finished sign-in with the cookie that is then valid.
func (w *World) SignIn(t testing.TB, cookie authn.Cookie, username string, b authn.Beginning) (*authn.Progress, authn.Cookie) {
	t.Helper()
	ctx := From(t.Context(), "192.0.2.1")
	step := func(p *authn.Progress, err error) *authn.Progress {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if p.Cookie != "" {
			cookie = p.Cookie
		}
		return p
	}
	p := step(w.Service.Begin(ctx, cookie, b))
	if p.Decision.Step == authn.StepPassword {
		p = step(w.Service.Password(ctx, cookie, uuid.Nil, p.SignIn.ID, username, Password, "en"))
	}
	if p.Decision.Step == authn.StepFactor {
		id := p.SignIn.ID
		p = step(w.Service.Load(ctx, cookie, id))
		p = step(w.Service.Code(ctx, cookie, id, w.Code(t, p.SignIn.Challenge.ID)))
	}
	return p, cookie
}
