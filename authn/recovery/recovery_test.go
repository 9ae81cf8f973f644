package recovery_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	issuer  = "https://login.example"
	another = "a quite different sentence"
)

// world is a world with an engine over its service.
type world struct {
	*authntest.World
	engine *recovery.Engine
	alice  uuid.UUID
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{World: authntest.New(t)}
	w.DB.Freeze(t)
	w.engine = w.over(t, w.Service)
	w.alice = w.Subscriber(t, "alice", "+12025550143")
	return w
}

// over makes an engine over a service: another replica's.
func (w *world) over(t *testing.T, service *authn.Service) *recovery.Engine {
	t.Helper()
	texts, err := recovery.NewTexts("Watchword", "en")
	if err != nil {
		t.Fatal(err)
	}
	e := &recovery.Engine{DB: service.DB, Keys: w.Keys, SignIns: service, Texts: texts, Mail: &mail.Outbox{Keys: w.Keys}, Issuer: issuer, Config: recovery.DefaultConfig(), Log: slog.New(slog.DiscardHandler)}
	service.Repaired, service.Repairing = e.Repaired, e.Repairing
	return e
}

func (w *world) drain(t *testing.T) {
	t.Helper()
	if _, err := w.engine.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) begin(t *testing.T, kind recovery.Kind, name string, c recovery.Channel) recovery.Cookie {
	t.Helper()
	cookie, err := w.engine.Begin(authntest.From(t.Context(), "192.0.2.1"), recovery.Beginning{Kind: kind, Name: name, Channel: c, Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	w.drain(t)
	return cookie
}

// code is what the phone shows of the newest challenge of a recovery.
func (w *world) code(t *testing.T, cookie recovery.Cookie) string {
	t.Helper()
	r, err := w.engine.Load(t.Context(), cookie)
	if err != nil || r.Challenge == nil {
		t.Fatalf("no challenge: %+v, %v", r, err)
	}
	return w.Code(t, r.Challenge.ID)
}

var linkToken = regexp.MustCompile(`(?m)^(https?://\S+)$`)

// links are the links in mails, the newest first.
func (w *world) links(t *testing.T) (tokens []string) {
	t.Helper()
	var mails []struct {
		ID   uuid.UUID `db:"id"`
		Body []byte    `db:"body"`
	}
	if err := w.DB.SelectContext(t.Context(), &mails, "SELECT id, body FROM mails WHERE purpose LIKE 'recovery\\_%' ORDER BY created_at DESC, ctid DESC"); err != nil {
		t.Fatal(err)
	}
	for _, m := range mails {
		plain, err := w.Keys.Open(m.Body, "mail "+m.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Text string }
		if err := json.Unmarshal(plain, &body); err != nil {
			t.Fatal(err)
		}
		found := linkToken.FindString(body.Text)
		u, err := url.Parse(found)
		if err != nil || !strings.HasPrefix(found, issuer+recovery.LinkPath+"?") {
			t.Fatalf("RC-2: the mail has the link %q, %v", found, err)
		}
		tokens = append(tokens, u.Query().Get("token"))
	}
	return tokens
}

func (w *world) follow(t *testing.T) *recovery.Grant {
	t.Helper()
	g, err := w.engine.Follow(t.Context(), w.links(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (w *world) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

func wants(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || want == nil && got != nil {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// passwordIs reports whether signing in with that password works, and how it goes on.
func (w *world) passwordIs(t *testing.T, password string) (authn.Step, bool) {
	t.Helper()
	ctx := authntest.From(t.Context(), "198.51.100.7")
	p, err := w.Service.Begin(ctx, "", authntest.Beginning())
	if err != nil {
		t.Fatal(err)
	}
	p, err = w.Service.Password(ctx, p.Cookie, uuid.Nil, p.SignIn.ID, "alice", password, "en")
	if errors.Is(err, authn.ErrWrongPair) {
		return 0, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.Decision.Step, true
}

func (w *world) bound(t *testing.T) (kinds []string) {
	t.Helper()
	u, err := w.Service.Find(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range u.Bound {
		kinds = append(kinds, a.Kind)
	}
	slices.Sort(kinds)
	return kinds
}

func wrong(code string) string {
	if code == "000000" {
		return "000001"
	}
	return "000000"
}

// The longest life that recovery.life takes is lived to its end.
func TestLongLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.engine.Config.Life = recovery.MaxLife
	w.begin(t, recovery.Password, "alice", recovery.Mail)
	w.DB.Advance(t, recovery.MaxLife-time.Minute)
	if g := w.follow(t); g.Recovery.State != recovery.Granted {
		t.Errorf("a link at the end of its life: %+v", g)
	}
}

func TestPasswordByMail(t *testing.T) { // RC-3, RC-5, RC-6, RC-13, REC-2, REC-6
	t.Parallel()
	w := newWorld(t)
	_, session := w.SignIn(t, "", "alice", authntest.Beginning())
	w.DB.Advance(t, time.Minute)
	cookie := w.begin(t, recovery.Password, "Alice ", recovery.Mail)
	if n := w.count(t, "SELECT count(*) FROM mails"); n != 1 {
		t.Fatalf("%d mails, want the one with the link", n)
	}
	if n := w.count(t, "SELECT count(*) FROM notices WHERE kind = 'recovery_started'"); n != 2 {
		t.Errorf("RC-13: %d notices of the start, want text and mail", n)
	}
	token := w.links(t)[0]
	for range 10 {
		if r, err := w.engine.Linked(t.Context(), token); err != nil || r.Kind != recovery.Password {
			t.Fatalf("opening the link: %v", err)
		}
	}
	wants(t, "a password before the proof", w.engine.SetPassword(t.Context(), cookie, another), recovery.ErrOver)
	g, err := w.engine.Follow(t.Context(), token)
	if err != nil || g.Recovery.State != recovery.Granted || g.Session != "" {
		t.Fatalf("the link: %+v, %v", g, err)
	}
	_, err = w.engine.Follow(t.Context(), token)
	wants(t, "RC-3 the link a second time", err, recovery.ErrOver)
	_, err = w.engine.Load(t.Context(), cookie)
	wants(t, "the browser that asked, after another has followed the link", err, recovery.ErrOver)
	for password, want := range map[string]error{"": authn.ErrPasswordShort, "short": authn.ErrPasswordShort, "password1": authn.ErrPasswordCommon, "2025550143": authn.ErrPasswordCommon} {
		wants(t, "password "+password, w.engine.SetPassword(t.Context(), g.Cookie, password), want)
	}
	wants(t, "the password", w.engine.SetPassword(t.Context(), g.Cookie, another), nil)
	wants(t, "RC-3 again", w.engine.SetPassword(t.Context(), g.Cookie, another+"!"), recovery.ErrOver)
	if s, err := w.Service.Current(t.Context(), session); err != nil || s.Subscriber != uuid.Nil {
		t.Errorf("RC-6: the session from before is %v, %v", s, err)
	}
	if n := w.count(t, "SELECT count(*) FROM sessions WHERE subscriber_id IS NOT NULL AND ended_at IS NULL"); n != 0 {
		t.Errorf("RC-5: %d sessions after the reset", n)
	}
	if _, ok := w.passwordIs(t, authntest.Password); ok {
		t.Error("the old password still works")
	}
	if step, ok := w.passwordIs(t, another); !ok || step != authn.StepFactor {
		t.Errorf("RC-5: with the new password step %d, %v; want the factor", step, ok)
	}
	if got := w.bound(t); !slices.Equal(got, []string{smsotp.Kind}) {
		t.Errorf("RC-5: bound is %v", got)
	}
	for _, kind := range []string{"password_changed", "recovery_finished"} {
		if n := w.count(t, "SELECT count(*) FROM notices WHERE kind = $1", kind); n != 2 {
			t.Errorf("RC-13: %d notices %s, want text and mail", n, kind)
		}
	}
	if n := w.count(t, "SELECT count(*) FROM events WHERE type IN ('user.recovery_started', 'user.recovery_finished')"); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

func TestNoChannelAlone(t *testing.T) { // RC-11: whoever has the phone has the factor; the code by text alone sets no password
	t.Parallel()
	w := newWorld(t)
	cookie := w.begin(t, recovery.Password, "alice", recovery.Text)
	g, err := w.engine.Answer(t.Context(), cookie, w.code(t, cookie))
	if err != nil || g.Recovery.State != recovery.Open {
		t.Fatalf("the code: %+v, %v; want more to be asked for", g, err)
	}
	wants(t, "a password by the text alone", w.engine.SetPassword(t.Context(), g.Cookie, another), recovery.ErrOver)
	ways := w.engine.Ways(g.Recovery)
	if len(ways) != 1 || ways[0].Kind != recovery.ByMail {
		t.Fatalf("ways %+v, want the mail", ways)
	}
	wants(t, "another text", w.engine.Ask(t.Context(), g.Cookie, g.Recovery.Bound[0].ID, "en"), recovery.ErrNoWay)
	wants(t, "the mail", w.engine.Ask(t.Context(), g.Cookie, uuid.Nil, "en"), nil)
	g = w.follow(t)
	if g.Recovery.State != recovery.Granted {
		t.Fatalf("state %s", g.Recovery.State)
	}
	wants(t, "with both", w.engine.SetPassword(t.Context(), g.Cookie, another), nil)
}

func TestDecide(t *testing.T) { // RC-11, RC-14, RC-15: every set of proofs
	t.Parallel()
	devices := []string{totp.Kind, "keyfob"}
	for _, tt := range []struct {
		name   string
		c      recovery.Case
		enough bool
		wait   bool
	}{
		{name: "nothing", c: recovery.Case{Kind: recovery.Access}},
		{name: "mail", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"mail"}}},
		{name: "text", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"sms"}}},
		{name: "text twice", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"sms", "sms"}}},
		{name: "app", c: recovery.Case{Kind: recovery.Access, Proofs: []string{totp.Kind}}},
		{name: "two devices", c: recovery.Case{Kind: recovery.Access, Proofs: []string{totp.Kind, "keyfob"}}},
		{name: "app and administrator", c: recovery.Case{Kind: recovery.Access, Proofs: []string{totp.Kind}, Vouched: true}},
		{name: "administrator", c: recovery.Case{Kind: recovery.Access, Vouched: true}},
		{name: "password and mail", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"mail"}, Knows: true}},
		{name: "password and mail where waiting is allowed", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"mail"}, Knows: true, Alone: true}, wait: true},
		{name: "mail where waiting is allowed", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"mail"}, Alone: true}},
		{name: "mail and the password that mail set", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"mail"}, Knows: true, Alone: true, ResetBy: []string{"mail"}}},
		{name: "text and the password that mail set", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"sms"}, Knows: true, Alone: true, ResetBy: []string{"mail"}}, wait: true},
		{name: "mail and text", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"mail", "sms"}}, enough: true},
		{name: "mail and app", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"mail", totp.Kind}}, enough: true},
		{name: "text and backup code", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"sms", backupcode.Kind}}, enough: true},
		{name: "mail and administrator", c: recovery.Case{Kind: recovery.Access, Proofs: []string{"mail"}, Vouched: true}, enough: true},
		{name: "reset by text", c: recovery.Case{Kind: recovery.Password, Proofs: []string{"sms"}}},
		{name: "reset by mail", c: recovery.Case{Kind: recovery.Password, Proofs: []string{"mail"}}, enough: true},
		{name: "reset by text and app", c: recovery.Case{Kind: recovery.Password, Proofs: []string{"sms", totp.Kind}}, enough: true},
		{name: "reset by nothing", c: recovery.Case{Kind: recovery.Password, Vouched: true}},
		{name: "stop by text", c: recovery.Case{Kind: recovery.Stop, Proofs: []string{"sms"}}, enough: true},
		{name: "stop by nothing", c: recovery.Case{Kind: recovery.Stop}},
	} {
		tt.c.Devices = devices
		if got := recovery.Decide(tt.c); got.Enough != tt.enough || got.MayWait != tt.wait {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// A try whose owner signs in meanwhile is over, and whoever began it sees what they see for a name that nobody has.
func TestOverAndUnknown(t *testing.T) { // RC-1
	t.Parallel()
	w := newWorld(t)
	for _, c := range []recovery.Channel{recovery.Text, recovery.Mail} {
		for _, name := range []string{"alice", "nobody"} {
			cookie := w.begin(t, recovery.Password, name, c)
			w.DB.Advance(t, time.Minute)
			w.SignIn(t, "", "alice", authntest.Beginning())
			w.drain(t)
			wants(t, name+" by "+string(c)+": again", w.engine.Again(t.Context(), cookie), nil)
			before := w.count(t, "SELECT count(*) FROM mails") + w.Texts(t)
			w.drain(t)
			if n := w.count(t, "SELECT count(*) FROM mails") + w.Texts(t) - before; n != 0 {
				t.Errorf("%s by %s: %d messages about what is over", name, c, n)
			}
		}
	}
}

func TestUnknownNames(t *testing.T) { // RC-1, SN-16: the same answers and the same statements for a name that nobody has
	t.Parallel()
	w := newWorld(t)
	if err := w.Service.Disable(t.Context(), w.Subscriber(t, "disabled", "+12025550144")); err != nil {
		t.Fatal(err)
	}
	w.DB.SetMaxOpenConns(1)
	for _, kind := range []recovery.Kind{recovery.Password, recovery.Access, recovery.Stop} {
		trips := map[string][]int64{}
		for range 2 { // the first time prepares the statements
			for _, name := range []string{"alice", "nobody", "disabled", "\x00"} {
				before := w.DB.RoundTrips.Load()
				cookie, err := w.engine.Begin(authntest.From(t.Context(), "192.0.2.1"), recovery.Beginning{Kind: kind, Name: name, Channel: recovery.Text, Locale: "en"})
				if err != nil {
					t.Fatal(err)
				}
				begun := w.DB.RoundTrips.Load() - before
				w.drain(t)
				var early *recovery.LimitError
				if err := w.engine.Again(t.Context(), cookie); !errors.As(err, &early) {
					t.Errorf("%s: again at once: %v", name, err)
				}
				before = w.DB.RoundTrips.Load()
				for n := range 5 {
					want := recovery.ErrWrong
					if n == 4 {
						want = recovery.ErrTries
					}
					_, err := w.engine.Answer(authntest.From(t.Context(), fmt.Sprintf("192.0.2.%d", n)), cookie, "000000")
					wants(t, name+": a wrong code", err, want)
				}
				_, err = w.engine.Answer(t.Context(), cookie, "000000")
				wants(t, name+": one more", err, recovery.ErrTries)
				wants(t, name+": giving it up", w.engine.Cancel(t.Context(), cookie), recovery.ErrOver)
				_, err = w.engine.Answer(t.Context(), cookie, "12")
				wants(t, name+": short", err, factors.ErrCodeShort)
				trips[name] = []int64{begun, w.DB.RoundTrips.Load() - before}
			}
		}
		for name, got := range trips {
			if !slices.Equal(got, trips["alice"]) {
				t.Errorf("%s: %v round trips for %s, %v for alice", kind, got, name, trips["alice"])
			}
		}
	}
	if n := w.count(t, "SELECT count(DISTINCT recipient) FROM messages"); n != 1 {
		t.Errorf("%d phones were texted, want alice's", n)
	}
}
