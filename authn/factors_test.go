package authn_test

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
)

// toFactor leads to the question for a second factor.
func toFactor(t *testing.T, w *authntest.World, asked authn.Beginning) *browser {
	t.Helper()
	b := begin(t, w, asked)
	if p, err := b.password(t, "alice", authntest.Password); err != nil || p.Decision.Step != authn.StepFactor {
		t.Fatalf("password: %+v, %v; want the factor next", p, err)
	}
	return b
}

// choose asks for the authenticator of that kind.
func (b *browser) choose(t *testing.T, kind string) {
	t.Helper()
	for _, a := range b.load(t).SignIn.Session.Bound {
		if a.Kind == kind {
			if _, err := b.service.Choose(t.Context(), b.cookie, b.id, a.ID, "en"); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no %s is bound", kind)
}

func raising(level authn.Level) authn.Beginning {
	b := authntest.Beginning()
	b.Requirement.Levels = []authn.Level{level}
	return b
}

func TestMethods(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	if p, err := begin(t, w, raising(authn.UnrestrictedLevel)).password(t, "alice", authntest.Password); err != nil || p.Decision.Failure != authn.Unmet {
		t.Fatalf("level 3 with a phone: %+v, %v; want unmet", p, err)
	}
	app, paper := w.App(t, id), w.Paper(t, id)
	for _, tt := range []struct {
		kind, answer string
		level        authn.Level
		amr          []string
	}{
		{totp.Kind, app.Code(t, 0), authn.UnrestrictedLevel, []string{"pwd", "otp", "mfa"}},
		{backupcode.Kind, paper[0], authn.RestrictedLevel, []string{"pwd", "x_backup", "mfa"}},
	} {
		b := toFactor(t, w, authntest.Beginning())
		b.choose(t, tt.kind)
		p, err := b.code(t, tt.answer)
		if err != nil || p.Decision.Step != authn.StepDone || p.Decision.Level != tt.level || !slices.Equal(p.Decision.AMR(), tt.amr) {
			t.Errorf("%s: %+v, %v", tt.kind, p, err)
		}
		if p = b.load(t); p.Decision.Level != tt.level || !slices.Equal(p.Decision.AMR(), tt.amr) {
			t.Errorf("%s, as read again: level %v with amr %v", tt.kind, p.Decision.Level, p.Decision.AMR())
		}
	}
	b := toFactor(t, w, raising(authn.UnrestrictedLevel))
	if ways := b.service.Ways(&b.load(t).SignIn.Session, b.load(t).Decision); len(ways) != 1 || ways[0].Kind != totp.Kind {
		t.Errorf("level 3: ways %v, want the app alone", ways)
	}
}

func TestLastUsedFirst(t *testing.T) { // P5
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app, paper := w.App(t, id), w.Paper(t, id)
	order := func(b *browser) (kinds []string) {
		t.Helper()
		p := b.load(t)
		for _, way := range b.service.Ways(&p.SignIn.Session, p.Decision) {
			kinds = append(kinds, way.Kind)
		}
		return kinds
	}
	b := toFactor(t, w, authntest.Beginning())
	if got := order(b); !slices.Equal(got, []string{smsotp.Kind, totp.Kind, backupcode.Kind}) {
		t.Fatalf("before any use: %v", got)
	}
	b.choose(t, totp.Kind)
	if _, err := b.code(t, app.Code(t, 0)); err != nil {
		t.Fatal(err)
	}
	w.DB.Advance(t, time.Minute)
	b = toFactor(t, w, authntest.Beginning())
	if got := order(b); !slices.Equal(got, []string{totp.Kind, smsotp.Kind, backupcode.Kind}) {
		t.Fatalf("after the app was used: %v", got)
	}
	b.choose(t, backupcode.Kind)
	if _, err := b.code(t, paper[0]); err != nil {
		t.Fatal(err)
	}
	texts := w.Texts(t)
	b = toFactor(t, w, authntest.Beginning())
	if got := order(b); !slices.Equal(got, []string{totp.Kind, smsotp.Kind, backupcode.Kind}) {
		t.Fatalf("after a backup code: %v, want it last for all that", got)
	}
	if w.Texts(t) != texts {
		t.Error("a text was sent to somebody who is asked for the app")
	}
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET codes_left = '{}' WHERE codes_left IS NOT NULL"); err != nil {
		t.Fatal(err)
	}
	if got := order(b); !slices.Equal(got, []string{totp.Kind, smsotp.Kind}) {
		t.Fatalf("with no code left: %v", got)
	}
}

func TestVendorsAreDown(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "bob", "+12025550144")
	app := w.App(t, w.Subscriber(t, "alice", "+12025550143"))
	w.Outage.Store(true)
	b := toFactor(t, w, authntest.Beginning())
	if w.Texts(t) != 0 {
		t.Error("a text was made that nobody can carry, for somebody who has an app")
	}
	if p, err := b.code(t, app.Code(t, 0)); err != nil || p.Decision.Step != authn.StepDone {
		t.Fatalf("the app's code, without having chosen it: %v", err)
	}
	b = begin(t, w, authntest.Beginning())
	if p, err := b.password(t, "bob", authntest.Password); err != nil || p.Decision.Step != authn.StepFactor || p.Asked == uuid.Nil || w.Texts(t) != 1 {
		t.Errorf("somebody who has a phone only: %+v, %v; want to be asked all the same", p, err)
	}
}

func TestOneCounter(t *testing.T) { // OT-6, LIM-3, THR-2, THR-3, I10
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app, paper := w.App(t, id), w.Paper(t, id)
	other := w.Replica(t, w.DB.Open(t))
	wrong := map[string]string{smsotp.Kind: "000000", totp.Kind: "000000", backupcode.Kind: "0000-0000-0000-0000"}
	kinds := []string{smsotp.Kind, totp.Kind, backupcode.Kind}
	if app.Code(t, 0) == wrong[totp.Kind] {
		w.DB.Advance(t, 10*totp.Period)
	}
	var blocked *factors.BlockedError
	for n := range 10 {
		b := toFactor(t, w, authntest.Beginning()) // the password is right each time: it clears nothing
		b.service = []*authn.Service{w.Service, other}[n%2]
		b.choose(t, kinds[n%3])
		_, err := b.code(t, wrong[kinds[n%3]])
		wants(t, kinds[n%3], err, factors.ErrMismatch)
		w.DB.Advance(t, time.Minute)
	}
	right := map[string]func(*browser) string{
		smsotp.Kind: func(b *browser) string { return b.sent(t) }, totp.Kind: func(*browser) string { return app.Code(t, 0) }, backupcode.Kind: func(*browser) string { return paper[0] },
	}
	for _, kind := range kinds {
		b := toFactor(t, w, authntest.Beginning())
		b.choose(t, kind)
		typed := "000000"
		if kind != smsotp.Kind || w.Texts(t) > 0 && b.load(t).SignIn.Challenge.Sends > 0 {
			typed = right[kind](b)
		}
		if _, err := b.code(t, typed); !errors.As(err, &blocked) {
			t.Errorf("%s after ten wrong ones over three factors: %v, want a block", kind, err)
		}
	}
	w.DB.Advance(t, 16*time.Minute)
	b := toFactor(t, w, authntest.Beginning())
	b.choose(t, totp.Kind)
	if p, err := b.code(t, app.Code(t, 0)); err != nil || p.Decision.Step != authn.StepDone {
		t.Errorf("after the block: %v", err)
	}
}

func TestAppRace(t *testing.T) { // TP-4, BC-2, F-70: one answer, two browsers, two replicas
	t.Parallel()
	for _, kind := range []string{totp.Kind, backupcode.Kind} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := authntest.New(t)
			w.DB.Freeze(t)
			id := w.Subscriber(t, "alice", "+12025550143")
			answer := w.App(t, id).Code(t, 0)
			if paper := w.Paper(t, id); kind == backupcode.Kind {
				answer = paper[0]
			}
			services := []*authn.Service{w.Service, w.Replica(t, w.DB.Open(t))}
			browsers := []*browser{toFactor(t, w, authntest.Beginning()), toFactor(t, w, authntest.Beginning())}
			for i, b := range browsers {
				b.choose(t, kind)
				b.service = services[i]
			}
			var won atomic.Int32
			var wg sync.WaitGroup
			barrier := make(chan struct{})
			for i := range 200 {
				b := browsers[i%2]
				wg.Go(func() {
					<-barrier
					p, err := b.service.Code(authntest.From(t.Context(), "192.0.2.1"), b.cookie, b.id, answer)
					var blocked *factors.BlockedError
					switch {
					case err == nil && p.Decision.Step == authn.StepDone:
						won.Add(1)
					case err == nil, errors.Is(err, factors.ErrMismatch), errors.Is(err, factors.ErrOver), errors.Is(err, authn.ErrSignInOver),
						errors.Is(err, authn.ErrNotThisStep), errors.As(err, &blocked):
					default:
						t.Errorf("a fault of the system: %v", err)
					}
				})
			}
			close(barrier)
			wg.Wait()
			var events int
			if err := w.DB.GetContext(t.Context(), &events, "SELECT count(*) FROM session_events WHERE strength > 1"); err != nil || won.Load() != 1 || events != 1 {
				t.Fatalf("%d of 200 posts won, %d events, %v; want one", won.Load(), events, err)
			}
		})
	}
}

func TestBackupCodesSignInAlone(t *testing.T) { // BC-8, TP-10, LUS-3
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app, paper := w.App(t, id), w.Paper(t, id)
	b := toFactor(t, w, authntest.Beginning())
	b.choose(t, backupcode.Kind)
	if p, err := b.code(t, paper[0]); err != nil || p.Decision.Step != authn.StepDone {
		t.Fatal(err)
	}
	if p := b.begin(t, raising(authn.UnrestrictedLevel)); p.Decision.Step != authn.StepFactor || !p.Decision.Raises || len(w.Service.Ways(&p.SignIn.Session, p.Decision)) != 1 {
		t.Errorf("step-up: %+v; want the app alone", p.Decision)
	}
	fresh := authntest.Beginning()
	fresh.Requirement.Fresh = true
	p := b.begin(t, fresh)
	if p, err := b.service.Password(authntest.From(t.Context(), "192.0.2.1"), b.cookie, p.SignIn.Session.ID, b.id, "alice", authntest.Password, "en"); err != nil {
		t.Fatal(err)
	} else {
		b.keep(p)
	}
	p = b.load(t)
	for _, way := range w.Service.Ways(&p.SignIn.Session, p.Decision) {
		if way.Kind == backupcode.Kind {
			t.Error("a backup code would add to a session that has a factor")
		}
	}
	for _, a := range p.SignIn.Session.Bound {
		if a.Kind == backupcode.Kind {
			_, err := b.service.Choose(t.Context(), b.cookie, b.id, a.ID, "en")
			wants(t, "choosing it all the same", err, authn.ErrNotThisStep)
		}
	}
	wants(t, "removing the app", w.Service.Remove(t.Context(), b.cookie, app.Authenticator.ID), authn.ErrNotFresh)
	_, err := w.Service.Enrol(t.Context(), b.cookie, totp.Kind, "mine")
	wants(t, "adding an app", err, authn.ErrNotFresh)
	_, err = w.Service.Enrol(t.Context(), b.cookie, backupcode.Kind, "")
	wants(t, "making new codes", err, authn.ErrNotFresh)
	for _, a := range p.SignIn.Session.Bound {
		if a.Kind != backupcode.Kind {
			wants(t, "unbind", w.Service.Unbind(t.Context(), id, a.ID), nil)
		}
	}
	_, err = b.service.Load(t.Context(), b.cookie, b.id)
	wants(t, "the session that was open when they went", err, authn.ErrSignInOver)
	b = toFactor(t, w, authntest.Beginning())
	if _, err := b.code(t, paper[1]); err != nil {
		t.Fatal(err)
	}
	if p := b.begin(t, fresh); p.Decision.Step != authn.StepPassword {
		t.Fatalf("%+v", p.Decision)
	}
	if p, err := b.password(t, "", authntest.Password); err != nil || p.Decision.Step != authn.StepFail || p.Decision.Failure != authn.Unmet {
		t.Errorf("with nothing but codes left, in a session that has a factor: %+v, want unmet", p.Decision)
	}
	var records int
	if err := w.DB.GetContext(t.Context(), &records, "SELECT count(*) FROM audit_events WHERE event = 'authenticator.change' AND outcome = 'refused' AND reason = 'not_fresh'"); err != nil || records != 3 {
		t.Errorf("%d refusals recorded, %v; want 3", records, err)
	}
}

func TestFactorRoundTrips(t *testing.T) { // a verification is two statements: the sign-in is read, the answer is tried
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app, paper := w.App(t, id), w.Paper(t, id)
	w.DB.SetMaxOpenConns(1)
	for n := range 2 { // the first time prepares the statements
		for _, kind := range []string{smsotp.Kind, totp.Kind, backupcode.Kind} {
			b := toFactor(t, w, authntest.Beginning())
			b.choose(t, kind)
			answer := paper[n]
			switch kind {
			case smsotp.Kind:
				answer = b.sent(t)
			case totp.Kind:
				answer = app.Code(t, 0)
			}
			before := w.DB.RoundTrips.Load()
			if _, err := b.code(t, answer); err != nil {
				t.Fatal(err)
			}
			if got := w.DB.RoundTrips.Load() - before; n > 0 && got != 2 {
				t.Errorf("%s took %d round trips, want 2", kind, got)
			}
			w.DB.Advance(t, time.Minute)
		}
	}
}
