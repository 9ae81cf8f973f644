package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/sms"
)

func TestDeadTokens(t *testing.T) { // RC-3, RC-4, RC-16
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile func(t *testing.T, w *world)
		terminal  recovery.State
	}{
		"after 61 minutes": {func(t *testing.T, w *world) { w.DB.Advance(t, 61*time.Minute) }, recovery.Expired},
		"after a sign-in": {func(t *testing.T, w *world) {
			w.DB.Advance(t, time.Second)
			w.SignIn(t, "", "alice", authntest.Beginning())
		}, recovery.Canceled},
		"after a new password": {func(t *testing.T, w *world) {
			w.DB.Advance(t, time.Second)
			wants(t, "set", w.Service.SetPassword(t.Context(), w.alice, "yet another sentence here"), nil)
		}, recovery.Canceled},
		"after being disabled": {func(t *testing.T, w *world) {
			w.DB.Advance(t, time.Second)
			wants(t, "disable", w.Service.Disable(t.Context(), w.alice), nil)
		}, recovery.Canceled},
		"after being disabled and enabled": {func(t *testing.T, w *world) {
			w.DB.Advance(t, time.Second)
			wants(t, "disable", w.Service.Disable(t.Context(), w.alice), nil)
			wants(t, "enable", w.Service.Enable(t.Context(), w.alice), nil)
		}, recovery.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.begin(t, recovery.Password, "alice", recovery.Mail)
			granted := w.follow(t).Cookie
			texted := w.begin(t, recovery.Access, "alice", recovery.Text)
			code := w.code(t, texted)
			w.begin(t, recovery.Stop, "alice", recovery.Mail)
			link := w.links(t)[0]
			tt.meanwhile(t, w)
			wants(t, "what was granted", w.engine.SetPassword(t.Context(), granted, another), recovery.ErrOver)
			_, err := w.engine.Follow(t.Context(), link)
			wants(t, "the link", err, recovery.ErrOver)
			if _, err := w.engine.Answer(t.Context(), texted, code); !errors.Is(err, recovery.ErrOver) && !errors.Is(err, recovery.ErrWrong) {
				t.Errorf("the code: %v", err)
			}
			if _, ok := w.passwordIs(t, another); ok {
				t.Error("the password is changed")
			}
			w.drain(t)
			if n := w.count(t, "SELECT count(*) FROM recoveries WHERE state = $1", string(tt.terminal)); n != 3 {
				t.Errorf("%d of 3 recoveries are %s", n, tt.terminal)
			}
		})
	}
	t.Run("after a newer one", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.begin(t, recovery.Password, "alice", recovery.Mail)
		first := w.links(t)[0]
		w.begin(t, recovery.Password, "alice", recovery.Mail)
		second := w.links(t)[0]
		_, err := w.engine.Follow(t.Context(), first)
		wants(t, "the older link", err, recovery.ErrOver)
		g, err := w.engine.Follow(t.Context(), second)
		wants(t, "the newer link", err, nil)
		w.begin(t, recovery.Password, "alice", recovery.Mail)
		wants(t, "what was proved, after a start that proves nothing", w.engine.SetPassword(t.Context(), g.Cookie, another), nil)
	})
	t.Run("somebody else's", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.Subscriber(t, "bob", "+12025550144")
		a := w.begin(t, recovery.Access, "alice", recovery.Text)
		b := w.begin(t, recovery.Access, "bob", recovery.Text)
		codeOfA := w.code(t, a)
		if _, err := w.engine.Answer(t.Context(), b, codeOfA); !errors.Is(err, recovery.ErrWrong) && codeOfA != w.code(t, b) {
			t.Errorf("alice's code for bob: %v", err)
		}
		other := w.begin(t, recovery.Password, "alice", recovery.Text)
		if _, err := w.engine.Answer(t.Context(), other, codeOfA); !errors.Is(err, recovery.ErrWrong) && codeOfA != w.code(t, other) {
			t.Errorf("OT-9: the code for access, for a password: %v", err)
		}
	})
}

func TestGuesses(t *testing.T) { // RC-7, RC-8, REC-7, THR-2
	t.Parallel()
	w := newWorld(t)
	cookie := w.begin(t, recovery.Access, "alice", recovery.Text)
	code := w.code(t, cookie)
	for n := range 5 {
		_, err := w.engine.Answer(t.Context(), cookie, wrong(code))
		if want := []error{recovery.ErrWrong, recovery.ErrTries}[n/4]; !errors.Is(err, want) {
			t.Errorf("wrong code %d: %v, want %v", n+1, err, want)
		}
	}
	w.DB.Advance(t, time.Minute)
	wants(t, "resend", w.engine.Again(t.Context(), cookie), nil)
	w.drain(t)
	_, err := w.engine.Answer(t.Context(), cookie, code)
	wants(t, "the right code after five wrong ones", err, recovery.ErrTries)
	if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'recovery.prove' AND outcome = 'refused' AND reason = 'tries' AND subject = $1", w.alice); n != 1 {
		t.Errorf("I8: %d records of that, want 1", n)
	}
	if n := w.count(t, "SELECT count(*) FROM messages WHERE challenge_id IS NOT NULL"); n != 1 {
		t.Errorf("%d codes texted, want 1", n)
	}
	for n := range 500 { // from everywhere
		_, err := w.engine.Begin(authntest.From(t.Context(), fmt.Sprintf("198.51.%d.%d", n/200, n%200)), recovery.Beginning{Kind: []recovery.Kind{recovery.Password, recovery.Access, recovery.Stop}[n%3],
			Name: []string{"alice", "alice@mail.example"}[n%2], Channel: []recovery.Channel{recovery.Text, recovery.Mail}[n/7%2], Locale: "en"})
		if _, limited := errors.AsType[*recovery.LimitError](err); err != nil && !limited {
			t.Fatal(err)
		}
		if n%25 == 0 {
			w.drain(t)
		}
	}
	w.drain(t)
	if n := w.count(t, "SELECT count(*) FROM messages WHERE purpose = 'recover'"); n > 3 {
		t.Errorf("RC-8: strangers caused %d texts within the hour, want 3 at most", n)
	}
	if n := w.count(t, "SELECT count(*) FROM mails"); n > 4 {
		t.Errorf("RC-8: strangers caused %d mails within the hour, want 4 at most", n)
	}
	if n := w.count(t, "SELECT count(*) FROM streaks WHERE scope IN ('factor', 'password')"); n != 0 {
		t.Error("RC-8: wrong answers of strangers count against the owner")
	}
	for range 2 {
		if p, _ := w.SignIn(t, "", "alice", authntest.Beginning()); p.Decision.Step != authn.StepDone {
			t.Fatalf("RC-8: the owner cannot sign in: %+v", p.Decision)
		}
	}
}

// fresh is a code for a phone that alice adds while she repairs.
func (w *world) rebind(t *testing.T, session authn.Cookie, number string) error {
	t.Helper()
	parsed, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	a, unique := smsotp.Phone(uuid.Nil, parsed)
	e, err := w.Service.EnrolThis(t.Context(), session, authn.Binding{Authenticator: a, Unique: unique}, "en")
	if err != nil {
		return err
	}
	cookie, err := w.Service.Prove(t.Context(), session, e.Challenge.ID, uuid.Nil, w.Code(t, e.Challenge.ID))
	if err == nil && cookie != "" {
		t.Error("a session goes on after the repair")
	}
	return err
}

func TestLostFactor(t *testing.T) { // RC-5, RC-6, RC-10, RC-13, REC-3
	t.Parallel()
	w := newWorld(t)
	w.App(t, w.alice)
	paper := w.Paper(t, w.alice)
	_, before := w.SignIn(t, "", "alice", authntest.Beginning())
	w.DB.Advance(t, time.Minute)
	w.begin(t, recovery.Access, "alice", recovery.Mail)
	g := w.follow(t)
	if g.Session != "" || g.Recovery.State != recovery.Open {
		t.Fatalf("RC-11: the mail alone: %+v", g.Recovery)
	}
	kinds := map[string]uuid.UUID{}
	for _, way := range w.engine.Ways(g.Recovery) {
		kinds[way.Kind] = way.ID
	}
	if len(kinds) != 3 || kinds[recovery.ByMail] != uuid.Nil {
		t.Fatalf("ways %v, want text, app and backup code", kinds)
	}
	wants(t, "ask", w.engine.Ask(t.Context(), g.Cookie, kinds[backupcode.Kind], "en"), nil)
	_, err := w.engine.Answer(t.Context(), g.Cookie, "0000-0000-0000-0000")
	wants(t, "a wrong backup code", err, recovery.ErrWrong)
	if n := w.count(t, "SELECT failures FROM streaks WHERE scope = 'factor'"); n != 1 {
		t.Errorf("THR-3: %d failures after the first proof, want 1", n)
	}
	link := g.Cookie
	if g, err = w.engine.Answer(t.Context(), g.Cookie, paper[0]); err != nil || g.Recovery.State != recovery.Granted || g.Session == "" {
		t.Fatalf("the backup code: %+v, %v", g, err)
	}
	_, err = w.engine.Load(t.Context(), link)
	wants(t, "the cookie from before the proof", err, recovery.ErrOver)

	// RC-10: what a repairing session may do.
	repair, err := w.engine.Repair(t.Context(), g.Session)
	if err != nil || len(repair.Kept) != 1 || len(repair.Lost) != 2 || repair.Enough {
		t.Fatalf("repair: %+v, %v", repair, err)
	}
	p, err := w.Service.Begin(t.Context(), g.Session, authntest.Beginning())
	if err != nil || p.Decision.Step != authn.StepPassword || p.SignIn.Session.Subscriber != uuid.Nil || p.Cookie == "" {
		t.Errorf("RC-10 authorize: %+v, %v; want a session of its own and the password", p.Decision, err)
	}
	silent := authntest.Beginning()
	silent.Requirement.Silent = true
	if p, err := w.Service.Begin(t.Context(), g.Session, silent); err != nil || p.Decision.Failure != authn.LoginRequired {
		t.Errorf("RC-10 silently: %+v, %v", p.Decision, err)
	}
	h, err := w.Service.Holdings(t.Context(), g.Session)
	if err != nil || h.Fresh || !h.Repair {
		t.Errorf("RC-10 holdings: %+v, %v", h, err)
	}
	wants(t, "RC-10 removing", w.Service.Remove(t.Context(), g.Session, kinds[totp.Kind]), authn.ErrNotFresh)
	wants(t, "RC-10 renaming", w.Service.Rename(t.Context(), g.Session, kinds[totp.Kind], "x"), authn.ErrNotFresh)
	_, err = w.Service.Enrol(t.Context(), g.Session, backupcode.Kind, "")
	wants(t, "RC-10 new backup codes", err, authn.ErrNotFresh)
	wants(t, "finishing with nothing to sign in with", w.engine.FinishRepair(t.Context(), g.Session), recovery.ErrNotThisStep)

	wants(t, "a password", w.engine.SetRepairPassword(t.Context(), g.Session, another), nil)
	if s, err := w.Service.Current(t.Context(), before); err != nil || s.Subscriber != uuid.Nil {
		t.Errorf("RC-6: the session from before: %v, %v", s, err)
	}
	w.drain(t)
	if got := w.bound(t); len(got) != 3 {
		t.Errorf("before anything is bound anew: %v", got)
	}
	wants(t, "a new phone", w.rebind(t, g.Session, "+12025550199"), nil)
	if got := w.bound(t); !slices.Equal(got, []string{backupcode.Kind, smsotp.Kind}) {
		t.Errorf("afterwards: %v, want the paper, which was proved, and the new phone", got)
	}
	if _, err := w.engine.Repair(t.Context(), g.Session); !errors.Is(err, recovery.ErrOver) {
		t.Errorf("the session after the repair: %v", err)
	}
	r, err := w.engine.Find(t.Context(), g.Recovery.ID)
	if err != nil || r.State != recovery.Finished {
		t.Errorf("recovery: %+v, %v", r, err)
	}
	if step, ok := w.passwordIs(t, another); !ok || step != authn.StepFactor {
		t.Errorf("signing in: step %d, %v", step, ok)
	}
	if n := w.count(t, "SELECT count(*) FROM notices WHERE kind = 'recovery_finished' AND channel = 'text'"); n != 1 {
		t.Errorf("RC-13: %d texts of the end, want one to the old phone", n)
	}
	if n := w.count(t, "SELECT count(DISTINCT about) FROM notices WHERE kind = 'factor_removed'"); n != 2 {
		t.Errorf("RC-13: told of %d kinds that went, want 2", n)
	}
}

func TestKeptFactor(t *testing.T) { // one proof and a factor that is still bound
	t.Parallel()
	w := newWorld(t)
	app := w.App(t, w.alice)
	cookie := w.begin(t, recovery.Access, "alice", recovery.Text)
	g, err := w.engine.Answer(t.Context(), cookie, w.code(t, cookie))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "ask", w.engine.Ask(t.Context(), g.Cookie, app.Authenticator.ID, "en"), nil)
	if g, err = w.engine.Answer(t.Context(), g.Cookie, app.Code(t, 0)); err != nil || g.Session == "" {
		t.Fatalf("the app: %+v, %v", g, err)
	}
	wants(t, "nothing to bind", w.engine.FinishRepair(t.Context(), g.Session), nil)
	wants(t, "twice", w.engine.FinishRepair(t.Context(), g.Session), recovery.ErrOver)
	if got := w.bound(t); !slices.Equal(got, []string{smsotp.Kind, totp.Kind}) {
		t.Errorf("bound: %v", got)
	}
}

func TestFreshPhone(t *testing.T) { // EN-4, BND-4: a phone that was added lately recovers nothing
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 48*time.Hour)
	for _, a := range w.mustFind(t).Bound {
		wants(t, "unbind", w.Service.Unbind(t.Context(), w.alice, a.ID), nil)
	}
	parsed, err := sms.ParseNumber("+12025550177", "")
	if err != nil {
		t.Fatal(err)
	}
	a, unique := smsotp.Phone(uuid.Nil, parsed)
	wants(t, "bind", w.Service.Bind(t.Context(), w.alice, authn.Binding{Authenticator: a, Unique: unique}), nil)
	w.DB.Advance(t, 23*time.Hour)
	cookie := w.begin(t, recovery.Access, "alice", recovery.Text)
	if r, err := w.engine.Load(t.Context(), cookie); err != nil || r.State != recovery.Refused || r.Reason != "no_way" {
		t.Errorf("within a day: %+v, %v", r, err)
	}
	w.DB.Advance(t, 2*time.Hour)
	cookie = w.begin(t, recovery.Access, "alice", recovery.Text)
	if r, err := w.engine.Load(t.Context(), cookie); err != nil || r.State != recovery.Open {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
}

func (w *world) mustFind(t *testing.T) *authn.Subscriber {
	t.Helper()
	u, err := w.Service.Find(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// behindPassword begins the loss of a factor in a sign-in whose password was right.
func (w *world) behindPassword(t *testing.T, c recovery.Channel) recovery.Cookie {
	t.Helper()
	ctx := authntest.From(t.Context(), "192.0.2.1")
	p, err := w.Service.Begin(ctx, "", authntest.Beginning())
	if err != nil {
		t.Fatal(err)
	}
	if p, err = w.Service.Password(ctx, p.Cookie, uuid.Nil, p.SignIn.ID, "alice", authntest.Password, "en"); err != nil {
		t.Fatal(err)
	}
	w.DB.Advance(t, time.Second)
	cookie, err := w.engine.Begin(ctx, recovery.Beginning{Kind: recovery.Access, Session: &p.SignIn.Session, SignIn: p.SignIn.ID, Channel: c, Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	w.drain(t)
	return cookie
}

func TestWait(t *testing.T) { // RC-11, REC-3: 24 hours, by policy, to be stopped from every channel
	t.Parallel()
	w := newWorld(t)
	w.behindPassword(t, recovery.Mail)
	g := w.follow(t)
	wants(t, "RC-11 password and mail", w.engine.Wait(t.Context(), g.Cookie), recovery.ErrNoWay)
	w.engine.Config.Alone = true
	wants(t, "where it is allowed", w.engine.Wait(t.Context(), g.Cookie), nil)
	if n := w.count(t, "SELECT count(*) FROM notices WHERE kind = 'recovery_started' AND until IS NOT NULL"); n != 2 {
		t.Errorf("%d notices of the wait, want text and mail", n)
	}
	w.DB.Advance(t, 24*time.Hour-time.Second)
	_, err := w.engine.Resume(t.Context(), g.Cookie)
	wants(t, "a second too early", err, recovery.ErrNotThisStep)
	w.DB.Advance(t, time.Second)
	w.drain(t)
	if g, err = w.engine.Resume(t.Context(), g.Cookie); err != nil || g.Session == "" {
		t.Fatalf("after the wait: %+v, %v", g, err)
	}
	wants(t, "a new phone", w.rebind(t, g.Session, "+12025550199"), nil)

	for name, stop := range map[string]func(t *testing.T, w *world, waiting recovery.Cookie){
		"by text": func(t *testing.T, w *world, _ recovery.Cookie) {
			cookie := w.begin(t, recovery.Stop, "alice", recovery.Text)
			g, err := w.engine.Answer(t.Context(), cookie, w.code(t, cookie))
			if err != nil || g.Recovery.State != recovery.Finished {
				t.Fatalf("%+v, %v", g, err)
			}
		},
		"by mail": func(t *testing.T, w *world, _ recovery.Cookie) {
			w.begin(t, recovery.Stop, "alice", recovery.Mail)
			if g := w.follow(t); g.Recovery.State != recovery.Finished {
				t.Fatalf("%+v", g)
			}
		},
		"on the page": func(t *testing.T, w *world, waiting recovery.Cookie) {
			wants(t, "cancel", w.engine.Cancel(t.Context(), waiting), nil)
		},
		"by signing in": func(t *testing.T, w *world, _ recovery.Cookie) {
			w.SignIn(t, "", "alice", authntest.Beginning())
			w.drain(t)
		},
		"by an administrator": func(t *testing.T, w *world, waiting recovery.Cookie) {
			r, err := w.engine.Load(t.Context(), waiting)
			if err != nil {
				t.Fatal(err)
			}
			wants(t, "end", w.engine.End(t.Context(), r.ID), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.engine.Config.Alone = true
			w.behindPassword(t, recovery.Mail)
			waiting := w.follow(t).Cookie
			wants(t, "wait", w.engine.Wait(t.Context(), waiting), nil)
			w.DB.Advance(t, time.Hour)
			stop(t, w, waiting)
			w.DB.Advance(t, 24*time.Hour)
			_, err := w.engine.Resume(t.Context(), waiting)
			wants(t, "after it was stopped", err, recovery.ErrOver)
			if n := w.count(t, "SELECT count(*) FROM notices WHERE kind = 'recovery_canceled'"); n != 2 {
				t.Errorf("%d notices of the stop, want text and mail", n)
			}
		})
	}
}

func TestMailAloneInSteps(t *testing.T) { // whoever reads the mails sets a password by them, and waits with it: still one channel
	t.Parallel()
	w := newWorld(t)
	w.engine.Config.Alone = true
	w.begin(t, recovery.Password, "alice", recovery.Mail)
	wants(t, "set", w.engine.SetPassword(t.Context(), w.follow(t).Cookie, authntest.Password), nil)
	w.DB.Advance(t, time.Hour)
	w.behindPassword(t, recovery.Mail)
	wants(t, "the mail once more", w.engine.Wait(t.Context(), w.follow(t).Cookie), recovery.ErrNoWay)
}

func TestDesk(t *testing.T) { // RC-14, REC-8
	t.Parallel()
	w := newWorld(t)
	as := func(name string) context.Context {
		return audit.With(t.Context(), audit.Context{Operator: name})
	}
	id, err := w.engine.Vouch(as("anna"), w.alice)
	if err != nil {
		t.Fatal(err)
	}
	if n := w.count(t, "SELECT count(*) FROM notices WHERE kind = 'recovery_started' AND operator AND until IS NOT NULL"); n != 2 {
		t.Errorf("RC-14: %d notices, want text and mail", n)
	}
	if n := w.count(t, "SELECT count(*) FROM messages") + w.count(t, "SELECT count(*) FROM mails"); n != 0 {
		t.Errorf("RC-14: %d messages with something in them", n)
	}
	_, err = w.engine.Vouch(as("berta"), w.alice)
	wants(t, "a second one", err, recovery.ErrHeld)
	wants(t, "the same administrator", w.engine.Approve(as("anna"), id), recovery.ErrSameAdministrator)
	w.begin(t, recovery.Access, "alice", recovery.Mail)
	g := w.follow(t)
	if g.Session != "" {
		t.Fatal("RC-14: before anybody agreed")
	}
	wants(t, "cancel", w.engine.Cancel(t.Context(), g.Cookie), nil)
	wants(t, "another administrator", w.engine.Approve(as("berta"), id), nil)
	wants(t, "again", w.engine.Approve(as("carla"), id), recovery.ErrNotFound)
	if got := w.bound(t); len(got) != 1 {
		t.Errorf("RC-14: bound is %v", got)
	}
	w.DB.Advance(t, time.Minute)
	w.begin(t, recovery.Access, "alice", recovery.Mail)
	if g = w.follow(t); g.Session == "" {
		t.Fatalf("after another administrator agreed: %+v", g.Recovery)
	}
	wants(t, "a new phone", w.rebind(t, g.Session, "+12025550199"), nil)
	if r, err := w.engine.Find(t.Context(), id); err != nil || r.State != recovery.Finished || r.Operator != "anna" || r.ApprovedBy != "berta" {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
	var acts []string
	if err := w.DB.SelectContext(t.Context(), &acts, "SELECT event || ' ' || outcome || ' ' || actor FROM audit_events WHERE actor LIKE 'operator %' ORDER BY at, event, outcome"); err != nil {
		t.Fatal(err)
	}
	slices.Sort(acts)
	if got := strings.Join(acts, ", "); got != "recovery.approve refused operator anna, recovery.approve success operator berta, recovery.vouch success operator anna" {
		t.Errorf("records: %s", got)
	}

	t.Run("by delay", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		if _, err := w.engine.Vouch(as("anna"), w.alice); err != nil {
			t.Fatal(err)
		}
		w.DB.Advance(t, 24*time.Hour)
		w.drain(t)
		w.begin(t, recovery.Access, "alice", recovery.Mail)
		if g := w.follow(t); g.Session == "" {
			t.Errorf("after the delay: %+v", g.Recovery)
		}
	})
	t.Run("stopped by its owner", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id, err := w.engine.Vouch(as("anna"), w.alice)
		if err != nil {
			t.Fatal(err)
		}
		w.begin(t, recovery.Stop, "alice", recovery.Mail)
		w.follow(t)
		if r, err := w.engine.Find(t.Context(), id); err != nil || r.State != recovery.Canceled {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestResetRace(t *testing.T) { // RC-12: two replicas, 200 requests at once with one token
	t.Parallel()
	w := newWorld(t)
	engines := []*recovery.Engine{w.engine, w.over(t, w.Replica(t, w.DB.Open(t)))}
	w.begin(t, recovery.Password, "alice", recovery.Mail)
	token := w.links(t)[0]
	var followed atomic.Int32
	var cookie atomic.Value
	race(200, func(n int) {
		g, err := engines[n%2].Follow(t.Context(), token)
		switch {
		case err == nil:
			followed.Add(1)
			cookie.Store(g.Cookie)
		case !errors.Is(err, recovery.ErrOver):
			t.Errorf("a fault of the system: %v", err)
		}
	})
	if followed.Load() != 1 {
		t.Fatalf("the link was followed %d times", followed.Load())
	}
	for _, e := range engines {
		p, err := authn.NewPasswords(authn.HashingConfig{Concurrency: 4, Queue: 200})
		if err != nil {
			t.Fatal(err)
		}
		e.SignIns.Passwords = p
	}
	var won atomic.Int32
	var winner atomic.Value
	race(20, func(n int) {
		password := fmt.Sprintf("%s number %d", another, n)
		err := engines[n%2].SetPassword(t.Context(), cookie.Load().(recovery.Cookie), password)
		switch {
		case err == nil:
			won.Add(1)
			winner.Store(password)
		case !errors.Is(err, recovery.ErrOver):
			t.Errorf("a fault of the system: %v", err)
		}
	})
	if won.Load() != 1 {
		t.Fatalf("%d of 20 passwords were set", won.Load())
	}
	if _, ok := w.passwordIs(t, winner.Load().(string)); !ok {
		t.Error("the password is not the winner's")
	}
}

func race(n int, do func(n int)) {
	var wg sync.WaitGroup
	barrier := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-barrier
			do(i)
		})
	}
	close(barrier)
	wg.Wait()
}

func TestStartRace(t *testing.T) { // RC-7: of many at once one is live
	t.Parallel()
	w := newWorld(t)
	second := w.over(t, w.Replica(t, w.DB.Open(t)))
	var cookies [20]recovery.Cookie
	race(len(cookies), func(n int) {
		cookie, err := w.engine.Begin(authntest.From(t.Context(), fmt.Sprintf("198.51.100.%d", n)), recovery.Beginning{Kind: recovery.Password, Name: "alice", Channel: recovery.Mail})
		if _, limited := errors.AsType[*recovery.LimitError](err); err != nil && !limited {
			t.Error(err)
		}
		cookies[n] = cookie
	})
	race(8, func(n int) {
		if _, err := []*recovery.Engine{w.engine, second}[n%2].Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
	w.drain(t)
	if n := w.count(t, "SELECT count(*) FROM recoveries WHERE state = 'open'"); n != 1 {
		t.Errorf("%d are live, want 1", n)
	}
	if n := w.count(t, "SELECT count(*) FROM recoveries WHERE state = 'asked'"); n != 0 {
		t.Errorf("%d were forgotten", n)
	}
}

func TestOneOutcome(t *testing.T) { // a recovery ends in one way, whoever ends it: cancel, stop, finish and administrator at once, on two replicas
	t.Parallel()
	for round := range 10 {
		w := newWorld(t)
		second := w.over(t, w.Replica(t, w.DB.Open(t)))
		w.begin(t, recovery.Password, "alice", recovery.Mail)
		g := w.follow(t)
		w.begin(t, recovery.Stop, "alice", recovery.Mail)
		stop := w.links(t)[0]
		var ends atomic.Int32
		race(4, func(n int) {
			var err error
			switch n {
			case 0:
				err = w.engine.SetPassword(t.Context(), g.Cookie, another)
			case 1:
				err = second.Cancel(t.Context(), g.Cookie)
			case 2:
				err = second.End(t.Context(), g.Recovery.ID)
			case 3:
				_, _ = w.engine.Follow(t.Context(), stop)
				return
			}
			if err == nil {
				ends.Add(1)
			} else if !errors.Is(err, recovery.ErrOver) && !errors.Is(err, recovery.ErrNotFound) {
				t.Errorf("a fault of the system: %v", err)
			}
		})
		r, err := w.engine.Find(t.Context(), g.Recovery.ID)
		if err != nil || r.EndedAt == nil || ends.Load() > 1 {
			t.Fatalf("round %d: %+v, %v; %d ends", round, r, err, ends.Load())
		}
		_, changed := w.passwordIs(t, another)
		if changed != (r.State == recovery.Finished) {
			t.Errorf("round %d: it is %s, and the password changed: %v", round, r.State, changed)
		}
		if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'recovery.end' AND object = $1", r.ID.String()); n != 1 {
			t.Errorf("round %d: %d records of the end", round, n)
		}
	}
}

func TestBlockedFactor(t *testing.T) { // LIM-3, THR-7: blocked for good, and back in by a recovery
	t.Parallel()
	w := newWorld(t)
	if _, err := w.DB.ExecContext(t.Context(), "INSERT INTO streaks (scope, key, failures, blocked_until) VALUES ('factor', uuid_send($1::uuid), 100, 'infinity')", w.alice); err != nil {
		t.Fatal(err)
	}
	cookie := w.begin(t, recovery.Access, "alice", recovery.Text)
	g, err := w.engine.Answer(t.Context(), cookie, w.code(t, cookie))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "ask", w.engine.Ask(t.Context(), g.Cookie, uuid.Nil, "en"), nil)
	g = w.follow(t)
	wants(t, "finish", w.engine.FinishRepair(t.Context(), g.Session), nil)
	w.DB.Advance(t, time.Second)
	if p, _ := w.SignIn(t, "", "alice", authntest.Beginning()); p.Decision.Step != authn.StepDone {
		t.Errorf("afterwards: %+v", p.Decision)
	}
}
