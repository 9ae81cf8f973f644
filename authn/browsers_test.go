package authn_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// remembering is a world whose policy lets browsers be remembered.
func remembering(t *testing.T, more ...string) (*authntest.World, uuid.UUID) {
	t.Helper()
	w := authntest.New(t)
	w.DB.Freeze(t)
	allow(t, w.Service, append(more, "remember=on")...)
	return w, w.Subscriber(t, "alice", "+12025550143")
}

func allow(t *testing.T, s *authn.Service, lines ...string) {
	t.Helper()
	s.Config.Policy.Rules = nil
	for _, line := range lines {
		rule, err := authn.ParseRule(line, authn.DefaultLevelNames(), []string{"sms", totp.Kind, backupcode.Kind})
		if err != nil {
			t.Fatal(err)
		}
		s.Config.Policy.Rules = append(s.Config.Policy.Rules, rule)
	}
}

// from is a password given in a browser that sends remembered.
func (b *browser) from(t *testing.T, remembered authn.Cookie) *authn.Progress {
	t.Helper()
	p, err := b.service.PasswordFrom(authntest.From(t.Context(), "192.0.2.1"), b.cookie, remembered, uuid.Nil, b.id, "alice", authntest.Password, "en")
	if err != nil {
		t.Fatal(err)
	}
	b.keep(p)
	return p
}

// rememberAs signs in with a text and has the browser remembered.
func rememberAs(t *testing.T, w *authntest.World) (*browser, authn.Cookie) {
	t.Helper()
	b := toFactor(t, w, authntest.Beginning())
	p := b.load(t)
	if !p.Decision.Rememberable {
		t.Fatalf("the browser cannot be remembered: %+v", p.Decision)
	}
	p.Remember = true
	p, err := w.Service.Answer(authntest.From(t.Context(), "192.0.2.1"), b.cookie, p, b.sent(t))
	if err != nil || p.Decision.Step != authn.StepDone || p.Browser == "" {
		t.Fatalf("remembering: %+v, %v", p, err)
	}
	b.keep(p)
	return b, p.Browser
}

// spared reports whether a new sign-in with that cookie asks for no factor, and gives the cookie that it left.
func spared(t *testing.T, w *authntest.World, s *authn.Service, remembered authn.Cookie) (bool, authn.Cookie) {
	t.Helper()
	b := &browser{World: w, service: s}
	b.begin(t, authntest.Beginning())
	p := b.from(t, remembered)
	if loaded := b.load(t); loaded.Decision.Step != p.Decision.Step || !slices.Equal(loaded.Decision.AMR(), p.Decision.AMR()) {
		t.Fatalf("as stored %+v, as told %+v", loaded.Decision, p.Decision)
	}
	return p.Decision.Step == authn.StepDone, p.Browser
}

func TestRememberedBrowser(t *testing.T) { // SES-7, SUP-1, NOT-1
	t.Parallel()
	w, _ := remembering(t)
	_, cookie := rememberAs(t, w)
	var told []string
	if err := w.DB.SelectContext(t.Context(), &told, "SELECT channel FROM notices WHERE kind = 'browser_remembered' ORDER BY channel"); err != nil || !slices.Equal(told, []string{"mail", "text"}) {
		t.Errorf("told by %v, %v", told, err)
	}
	texts := w.Texts(t)
	b := begin(t, w, authntest.Beginning())
	p := b.from(t, cookie)
	if d := p.Decision; d.Step != authn.StepDone || d.Level != authn.PasswordLevel || !slices.Equal(d.AMR(), []string{"pwd", "x_browser"}) {
		t.Fatalf("in the remembered browser: %+v with amr %v", p.Decision, p.Decision.AMR())
	}
	if n := w.Texts(t); n != texts {
		t.Errorf("%d texts were sent", n-texts)
	}
	if p.Browser == "" || p.Browser == cookie {
		t.Error("its cookie was not replaced")
	}
	q := new(postgres.Query)
	w.Service.Complete(q, p.SignIn, b.cookie)
	q.Finally("SELECT 1 FROM sign_in_done")
	if n, err := w.DB.Run(t.Context(), q); err != nil || n != 1 {
		t.Fatalf("completing: %d, %v", n, err)
	}
	// SSO: in the same session, what policy lets pass again, and nothing else.
	if p := b.begin(t, authntest.Beginning()); p.Decision.Step != authn.StepDone || p.Decision.Level != authn.PasswordLevel {
		t.Errorf("another application: %+v", p.Decision)
	}
	var held int
	if err := w.DB.GetContext(t.Context(), &held, "SELECT count(*) FROM browsers WHERE position(convert_to($1, 'UTF8') IN token_hash) > 0", string(p.Browser)); err != nil || held != 0 {
		t.Errorf("the cookie itself is stored: %d, %v", held, err)
	}
	// Off by default.
	w.Service.Config.Policy.Rules = nil
	if yes, _ := spared(t, w, w.Service, p.Browser); yes {
		t.Error("spared where no rule says so")
	}
	if toFactor(t, w, authntest.Beginning()).load(t).Decision.Rememberable {
		t.Error("offered where no rule says so")
	}
}

func TestRememberUnasked(t *testing.T) {
	t.Parallel()
	w, _ := remembering(t)
	w.Service.Config.Policy.Rules = nil
	b := toFactor(t, w, authntest.Beginning())
	p := b.load(t)
	p.Remember = true
	p, err := w.Service.Answer(t.Context(), b.cookie, p, b.sent(t))
	if err != nil || p.Browser != "" {
		t.Fatalf("remembered against policy: %+v, %v", p, err)
	}
	var n int
	if err := w.DB.GetContext(t.Context(), &n, "SELECT count(*) FROM browsers"); err != nil || n != 0 {
		t.Fatalf("%d browsers, %v", n, err)
	}
}

func TestRememberedCookie(t *testing.T) { // SS-6
	t.Parallel()
	w, _ := remembering(t)
	w.Subscriber(t, "mallory", "+12025550144")
	_, cookie := rememberAs(t, w)
	altered := []byte(cookie)
	altered[3] ^= 1
	for what, sent := range map[string]authn.Cookie{"altered": authn.Cookie(altered), "random": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "none": "", "long": authn.Cookie(make([]byte, 90))} {
		if yes, _ := spared(t, w, w.Service, sent); yes {
			t.Errorf("SS-6 %s: spared the factor", what)
		}
	}
	// Another user's.
	b := begin(t, w, authntest.Beginning())
	p, err := w.Service.PasswordFrom(t.Context(), b.cookie, cookie, uuid.Nil, b.id, "mallory", authntest.Password, "en")
	if err != nil || p.Decision.Step != authn.StepFactor {
		t.Errorf("SS-6 another user's: %+v, %v", p, err)
	}
	// A wrong password uses nothing up.
	b = begin(t, w, authntest.Beginning())
	_, err = w.Service.PasswordFrom(t.Context(), b.cookie, cookie, uuid.Nil, b.id, "alice", "wrong password", "en")
	wants(t, "SS-6 with a wrong password", err, authn.ErrWrongPair)
	// Two tabs at once, and then a copy: whoever comes with a cookie that was replaced a while ago has stolen one, and both are asked.
	yes, second := spared(t, w, w.Service, cookie)
	if !yes {
		t.Fatal("its own cookie is not taken")
	}
	yes, third := spared(t, w, w.Service, cookie)
	if !yes || third == second {
		t.Error("two tabs at once: the second was asked")
	}
	w.DB.Advance(t, 2*time.Minute)
	if yes, _ := spared(t, w, w.Service, second); yes {
		t.Error("SS-6 a copy of a cookie that was replaced: spared")
	}
	if yes, _ := spared(t, w, w.Service, third); yes {
		t.Error("SS-6 the browser that was copied is still remembered")
	}
	var copied int
	if err := w.DB.GetContext(t.Context(), &copied, "SELECT count(*) FROM audit_events WHERE event = 'browser.forget' AND reason = 'copied'"); err != nil || copied != 1 {
		t.Errorf("%d records of it, %v", copied, err)
	}
	w.DB.Advance(t, 2*time.Hour) // texts are few an hour
	// The expiry is the server's.
	_, cookie = rememberAs(t, w)
	w.DB.Advance(t, 30*24*time.Hour+time.Second)
	if yes, _ := spared(t, w, w.Service, cookie); yes {
		t.Error("SS-6 expired: spared")
	}
}

func TestRememberedIsNoFactor(t *testing.T) { // SS-7, TX-13
	t.Parallel()
	w, id := remembering(t, "client=bank remember=off")
	app := w.App(t, id)
	w.DB.Advance(t, time.Second)
	_, cookie := func() (*browser, authn.Cookie) {
		b := toFactor(t, w, authntest.Beginning())
		p := b.load(t)
		p.Remember = true
		b.choose(t, totp.Kind)
		p = b.load(t)
		p.Remember = true
		p, err := w.Service.Answer(t.Context(), b.cookie, p, app.Code(t, 0))
		if err != nil {
			t.Fatal(err)
		}
		return b, p.Browser
	}()
	asked := func(change func(*authn.Beginning)) authn.Beginning {
		b := authntest.Beginning()
		change(&b)
		return b
	}
	for what, asks := range map[string]authn.Beginning{
		"level 2": asked(func(b *authn.Beginning) { b.Requirement.Levels = []authn.Level{authn.RestrictedLevel} }),
		"level 3": asked(func(b *authn.Beginning) { b.Requirement.Levels = []authn.Level{authn.UnrestrictedLevel} }),
		"levels 1 and 2": asked(func(b *authn.Beginning) {
			b.Requirement.Levels = []authn.Level{authn.PasswordLevel, authn.RestrictedLevel}
		}),
		"max_age":              asked(func(b *authn.Beginning) { b.Requirement.MaxAge = 3600 }),
		"prompt=login":         asked(func(b *authn.Beginning) { b.Requirement.Fresh = true }),
		"a registered level":   asked(func(b *authn.Beginning) { b.RelyingParty.Floor = authn.RestrictedLevel }),
		"policy for the bank":  asked(func(b *authn.Beginning) { b.RelyingParty.ID = "bank" }),
		"the account":          {RelyingParty: authn.Own("Watchword"), Requirement: authn.Looking(), Payload: []byte("{}")},
		"changing the account": {RelyingParty: authn.Own("Watchword"), Requirement: w.Service.Changing(), Payload: []byte("{}")},
	} {
		b := begin(t, w, asks)
		p := b.from(t, cookie)
		if p.Decision.Step != authn.StepFactor || p.Decision.Rememberable || p.Browser != "" {
			t.Errorf("SS-7 %s: %+v, want the factor", what, p.Decision)
		}
		// From a session that the remembered browser opened, as well.
		b = begin(t, w, authntest.Beginning())
		if p = b.from(t, cookie); p.Browser == "" {
			t.Fatalf("%s: not remembered any more: %+v", what, p.Decision)
		}
		cookie = p.Browser
		if p := b.begin(t, asks); p.Decision.Step != authn.StepFactor && p.Decision.Step != authn.StepPassword {
			t.Errorf("SS-7 %s, in its session: %+v, want the factor", what, p.Decision)
		}
		silent := asks
		silent.Requirement.Silent = true
		if p := b.begin(t, silent); p.Decision.Step != authn.StepFail {
			t.Errorf("SS-7 %s, silently: %+v, want a failure", what, p.Decision)
		}
		// BND-1: it changes nothing.
		wants(t, "SS-7 removing a factor", w.Service.Remove(t.Context(), b.cookie, app.Authenticator.ID), authn.ErrNotFresh)
		_, err := w.Service.ChangePassword(t.Context(), b.cookie, "quite another long password")
		wants(t, "SS-7 a new password", err, authn.ErrNotFresh)
		if a, err := w.Service.Account(t.Context(), b.cookie, cookie); err != nil || a.Decision.Step != authn.StepFactor || a.Sessions != nil || a.Activity != nil {
			t.Errorf("SS-7 the account: %+v, %v", a, err)
		}
	}
	allow(t, w.Service, "floor=urn:watchword:acr:3 remember=on")
	if yes, _ := spared(t, w, w.Service, cookie); yes {
		t.Error("SS-7 a floor of level 3: spared")
	}
}

func TestRememberedFalls(t *testing.T) { // SS-8: with the password, a factor, the account, and when it is told to
	t.Parallel()
	for name, change := range map[string]func(ctx context.Context, t *testing.T, w *authntest.World, id uuid.UUID, in *browser){
		"the operator's password": func(ctx context.Context, t *testing.T, w *authntest.World, id uuid.UUID, _ *browser) {
			if err := w.Service.SetPassword(ctx, id, authntest.Password); err != nil {
				t.Fatal(err)
			}
		},
		"a factor more": func(_ context.Context, t *testing.T, w *authntest.World, id uuid.UUID, _ *browser) { w.App(t, id) },
		"a factor less": func(ctx context.Context, t *testing.T, w *authntest.World, id uuid.UUID, in *browser) {
			u, err := w.Service.Find(ctx, id.String())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range u.Bound {
				if a.Kind == backupcode.Kind {
					if err := w.Service.Remove(ctx, in.cookie, a.ID); err != nil {
						t.Fatal(err)
					}
				}
			}
		},
		"new backup codes": func(_ context.Context, t *testing.T, w *authntest.World, id uuid.UUID, _ *browser) { w.Paper(t, id) },
		"disabled": func(ctx context.Context, t *testing.T, w *authntest.World, id uuid.UUID, _ *browser) {
			if err := errors.Join(w.Service.Disable(ctx, id), w.Service.Enable(ctx, id)); err != nil {
				t.Fatal(err)
			}
		},
		"forgotten by its person": func(ctx context.Context, t *testing.T, w *authntest.World, _ uuid.UUID, in *browser) {
			a, err := w.Service.Account(ctx, in.cookie, "")
			if err != nil || len(a.Browsers) != 1 {
				t.Fatalf("%+v, %v", a, err)
			}
			if err := w.Service.Forget(ctx, in.cookie, a.Browsers[0].ID); err != nil {
				t.Fatal(err)
			}
			wants(t, "forgetting it again", w.Service.Forget(ctx, in.cookie, a.Browsers[0].ID), authn.ErrNothingThere)
		},
		"all forgotten": func(ctx context.Context, t *testing.T, w *authntest.World, _ uuid.UUID, in *browser) {
			if err := w.Service.Forget(ctx, in.cookie, uuid.Nil); err != nil {
				t.Fatal(err)
			}
		},
		"forgotten by the operator": func(ctx context.Context, t *testing.T, w *authntest.World, id uuid.UUID, _ *browser) {
			if err := w.Service.ForgetBrowsers(ctx, id, uuid.Nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run("SS-8 "+name, func(t *testing.T) {
			t.Parallel()
			w, id := remembering(t)
			w.Paper(t, id)
			w.DB.Advance(t, time.Second)
			in, cookie := rememberAs(t, w)
			open := begin(t, w, authntest.Beginning())
			p := open.from(t, cookie)
			if p.Decision.Step != authn.StepDone {
				t.Fatalf("before: %+v", p.Decision)
			}
			cookie = p.Browser
			w.DB.Advance(t, time.Second)
			change(authntest.From(t.Context(), "192.0.2.1"), t, w, id, in)
			other := w.Replica(t, w.DB.DB)
			other.Config.Policy = w.Service.Config.Policy
			if yes, next := spared(t, w, other, cookie); yes || next != "" {
				t.Error("spared afterwards")
			}
			// The session that it opened is asked too, if it is still one.
			p, err := other.Begin(t.Context(), open.cookie, authntest.Beginning())
			if err != nil || p.Decision.Step != authn.StepFactor && p.Decision.Step != authn.StepPassword {
				t.Errorf("its session afterwards: %+v, %v", p.Decision, err)
			}
		})
	}
}

// TestRememberedTwice sends one cookie from two replicas at once, many times: tabs of one browser are all let in, and one cookie is left.
func TestRememberedTwice(t *testing.T) {
	t.Parallel()
	w, _ := remembering(t)
	_, cookie := rememberAs(t, w)
	services := []*authn.Service{w.Service, w.Replica(t, w.DB.DB)}
	services[1].Config.Policy = w.Service.Config.Policy
	const tabs = 4 // more passwords at once would be slowed down
	open := make([]*browser, tabs)
	for i := range open {
		open[i] = &browser{World: w, service: services[i%2]}
		open[i].begin(t, authntest.Beginning())
	}
	left := make([]authn.Cookie, tabs)
	var all sync.WaitGroup
	for i, b := range open {
		all.Go(func() {
			p, err := b.service.PasswordFrom(authntest.From(t.Context(), "192.0.2.1"), b.cookie, cookie, uuid.Nil, b.id, "alice", authntest.Password, "en")
			if err != nil {
				t.Error(err)
				return
			}
			left[i] = p.Browser
			if p.Decision.Step == authn.StepDone != (p.Browser != "") {
				t.Errorf("%+v with cookie %t", p.Decision, p.Browser != "")
			}
		})
	}
	all.Wait()
	good := 0
	for _, c := range left {
		if c != "" {
			good++
		}
	}
	if good == 0 {
		t.Error("nobody was let in")
	}
	var rows int
	if err := w.DB.GetContext(t.Context(), &rows, "SELECT count(*) FROM browsers"); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}
