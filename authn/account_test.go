package authn_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func own(required authn.Requirement) authn.Beginning {
	return authn.Beginning{RelyingParty: authn.Own("Watchword"), Requirement: required, Payload: []byte("{}")}
}

const agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

func TestAccount(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	if _, err := w.Service.Account(t.Context(), "", ""); !errors.Is(err, authn.ErrNotFresh) {
		t.Errorf("nobody: %v", err)
	}
	half := toFactor(t, w, authntest.Beginning())
	if a, err := w.Service.Account(t.Context(), half.cookie, ""); err != nil || a.Decision.Step != authn.StepFactor || a.Sessions != nil || a.Activity != nil {
		t.Errorf("OT-19 after the password alone: %+v, %v", a, err)
	}
	w.DB.Advance(t, time.Minute)
	b := begin(t, w, own(authn.Looking()))
	p, err := w.Service.Password(audit.With(t.Context(), audit.Context{Agent: agent}), b.cookie, uuid.Nil, b.id, "alice", authntest.Password, "en")
	if err != nil {
		t.Fatal(err)
	}
	b.keep(p)
	b.choose(t, totp.Kind)
	if _, err := b.code(t, app.Code(t, 0)); err != nil {
		t.Fatal(err)
	}
	a, err := w.Service.Account(t.Context(), b.cookie, "")
	if err != nil || a.Decision.Step != authn.StepDone || !a.Fresh || len(a.Session.Bound) != 2 || len(a.Sessions) != 2 {
		t.Fatalf("%+v, %v", a, err)
	}
	if s := a.Sessions[0]; !s.This || s.Agent != agent || s.Half {
		t.Errorf("its session: %+v", s)
	}
	if s := a.Sessions[1]; s.This || !s.Half {
		t.Errorf("the one that has given the password alone: %+v", s)
	}
	var names []string
	for _, e := range a.Activity {
		if e.Subject.UUID != id {
			t.Errorf("somebody else's: %+v", e)
		}
		names = append(names, e.Event)
	}
	for _, want := range []string{"password.check", "challenge.answer", "authenticator.bind"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %v", want, names)
		}
	}
	if slices.Contains(names, "challenge.open") {
		t.Errorf("what nobody understands: %v", names)
	}
}

func TestOwnPolicy(t *testing.T) { // the account is where people mend what policy does not take
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	w.Subscriber(t, "alice", "+12025550143")
	w.Subscriber(t, "bare", "")
	allow(t, w.Service, "floor=urn:watchword:acr:3 factor=totp enrol=off")
	b := begin(t, w, authntest.Beginning())
	if p, err := b.password(t, "alice", authntest.Password); err != nil || p.Decision.Failure != authn.Unmet {
		t.Fatalf("an application: %+v, %v", p, err)
	}
	b = toFactor(t, w, own(authn.Looking()))
	if p, err := b.code(t, b.sent(t)); err != nil || p.Decision.Step != authn.StepDone {
		t.Fatalf("the account: %+v, %v", p, err)
	}
	if a, err := w.Service.Account(t.Context(), b.cookie, ""); err != nil || a.Decision.Step != authn.StepDone || !a.Fresh {
		t.Errorf("the account: %+v, %v", a, err)
	}
	if p := b.begin(t, own(w.Service.Changing())); p.Decision.Step != authn.StepDone {
		t.Errorf("changing it: %+v", p.Decision)
	}
	// EN-8: who has nothing has to reach the floor here too.
	b = begin(t, w, own(authn.Looking()))
	if p, err := b.password(t, "bare", authntest.Password); err != nil || p.Decision.Failure != authn.Unmet {
		t.Errorf("EN-8 without a factor: %+v, %v", p, err)
	}
	if a, err := w.Service.Account(t.Context(), b.cookie, ""); err != nil || a.Decision.Step == authn.StepDone {
		t.Errorf("EN-8 its account: %+v, %v", a, err)
	}
	allow(t, w.Service, "floor=urn:watchword:acr:1")
	if a, err := w.Service.Account(t.Context(), b.cookie, ""); err != nil || a.Decision.Step != authn.StepDone || !a.Fresh {
		t.Errorf("where a password will do: %+v, %v", a, err)
	}
	if p := b.begin(t, own(w.Service.Changing())); p.Decision.Step != authn.StepDone {
		t.Errorf("where a password will do, changing: %+v", p.Decision)
	}
}

// TestChanging leads whoever is not fresh through exactly what is missing, whatever they signed in with (BND-1, LIM-9).
func TestChanging(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	codes := w.Paper(t, id)
	fresh := func(b *browser) bool {
		t.Helper()
		a, err := w.Service.Account(t.Context(), b.cookie, "")
		if err != nil {
			t.Fatal(err)
		}
		return a.Fresh
	}
	for kind, answer := range map[string]func(b *browser) string{
		backupcode.Kind: func(*browser) string { return codes[0] },
		smsotp.Kind:     func(b *browser) string { return b.sent(t) },
	} {
		b := toFactor(t, w, authntest.Beginning())
		b.choose(t, kind)
		if _, err := b.code(t, answer(b)); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if fresh(b) {
			t.Errorf("TP-10 %s, where an app is bound: fresh", kind)
		}
		p := b.begin(t, own(w.Service.Changing()))
		if p.Decision.Step != authn.StepFactor || p.Decision.Strength != authn.Unrestricted || !p.Decision.Raises {
			t.Fatalf("%s: %+v, want the app", kind, p.Decision)
		}
		for _, way := range w.Service.Ways(&p.SignIn.Session, p.Decision) {
			if way.Kind != totp.Kind {
				t.Errorf("%s: %s is offered", kind, way.Kind)
			}
		}
		w.DB.Advance(t, 30*time.Second)
		if _, err := b.code(t, app.Code(t, 0)); err != nil {
			t.Fatalf("%s: the app: %v", kind, err)
		}
		if !fresh(b) {
			t.Errorf("%s and the app: not fresh", kind)
		}
		w.DB.Advance(t, 10*time.Minute+time.Second)
		if fresh(b) {
			t.Errorf("LIM-9 %s: fresh after ten minutes", kind)
		}
		if p := b.begin(t, own(w.Service.Changing())); p.Decision.Step != authn.StepPassword || !p.Decision.Again {
			t.Errorf("LIM-9 %s: %+v, want the password again", kind, p.Decision)
		}
	}
	// A backup code is no proof for changes in a new browser either.
	if p, err := begin(t, w, own(w.Service.Changing())).password(t, "alice", authntest.Password); err != nil || len(w.Service.Ways(&p.SignIn.Session, p.Decision)) != 1 {
		t.Errorf("a new browser: %+v, %v", p, err)
	}
	// Whoever has a backup code alone is told, and not led in circles.
	lone := w.Subscriber(t, "lone", "")
	lonely := w.Paper(t, lone)
	b := begin(t, w, own(authn.Looking()))
	if _, err := b.password(t, "lone", authntest.Password); err != nil {
		t.Fatal(err)
	}
	if p, err := b.code(t, lonely[0]); err != nil || p.Decision.Step != authn.StepDone {
		t.Fatalf("%+v, %v", p, err)
	}
	if p := b.begin(t, own(w.Service.Changing())); p.Decision.Failure != authn.Unmet {
		t.Errorf("backup codes alone: %+v, want to be told", p.Decision)
	}
}

func TestEndSessions(t *testing.T) { // SS-10
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	w.Subscriber(t, "mallory", "+12025550144")
	signIn := func() *browser {
		w.DB.Advance(t, 30*time.Second)
		return signedIn(t, w, app)
	}
	one, two, mine := signIn(), signIn(), signIn()
	stranger := begin(t, w, authntest.Beginning())
	if _, err := stranger.password(t, "mallory", authntest.Password); err != nil {
		t.Fatal(err)
	}
	replica := w.Replica(t, w.DB.DB)
	alive := func(b *browser) bool {
		t.Helper()
		current, err := replica.Current(t.Context(), b.cookie)
		if err != nil {
			t.Fatal(err)
		}
		return current.Subscriber != uuid.Nil
	}
	ctx := authntest.From(t.Context(), "192.0.2.1")
	session := func(b *browser) uuid.UUID {
		current, err := replica.Current(t.Context(), b.cookie)
		if err != nil {
			t.Fatal(err)
		}
		return current.ID
	}
	wants(t, "a stranger's", w.Service.EndSession(ctx, mine.cookie, session(stranger)), authn.ErrNothingThere)
	wants(t, "its own", w.Service.EndSession(ctx, mine.cookie, session(mine)), authn.ErrNothingThere)
	wants(t, "by nobody", w.Service.EndSession(ctx, "", session(one)), authn.ErrNotFresh)
	if err := w.Service.EndSession(ctx, mine.cookie, session(one)); err != nil {
		t.Fatal(err)
	}
	if alive(one) || !alive(two) || !alive(mine) || !alive(stranger) {
		t.Errorf("SS-10 one ended: %t %t %t %t", alive(one), alive(two), alive(mine), alive(stranger))
	}
	if err := w.Service.EndSession(ctx, mine.cookie, uuid.Nil); err != nil {
		t.Fatal(err)
	}
	if alive(two) || !alive(mine) || !alive(stranger) {
		t.Errorf("SS-10 all others ended: %t %t %t", alive(two), alive(mine), alive(stranger))
	}
	var told int
	if err := w.DB.GetContext(t.Context(), &told, "SELECT count(DISTINCT event_id) FROM notices WHERE kind = 'sessions_ended'"); err != nil || told != 2 {
		t.Errorf("told %d times, %v", told, err)
	}
	if err := w.Service.EndSessions(ctx, id, uuid.Nil); err != nil || alive(mine) {
		t.Errorf("by the operator: %v, alive %t", err, alive(mine))
	}
	w.DB.Advance(t, 11*time.Minute)
	wants(t, "LIM-9 later", w.Service.EndSession(ctx, stranger.cookie, uuid.Nil), authn.ErrNotFresh)
}

func TestChangePassword(t *testing.T) { // PW-15, PWD-7
	t.Parallel()
	const next = "seven brown horses in a boat"
	w, id := remembering(t)
	w.DB.Advance(t, time.Second)
	other, cookie := rememberAs(t, w)
	waiting := toFactor(t, w, authntest.Beginning())
	code := waiting.sent(t)
	b := toFactor(t, w, authntest.Beginning())
	if _, err := b.code(t, b.sent(t)); err != nil {
		t.Fatal(err)
	}
	ctx := authntest.From(t.Context(), "192.0.2.1")
	for what, tt := range map[string]struct {
		password string
		want     error
	}{
		"short": {"horse7!", authn.ErrPasswordShort}, "common": {"password123", authn.ErrPasswordCommon}, "the same": {authntest.Password, authn.ErrPasswordSame},
		"her number": {"12025550143", authn.ErrPasswordCommon}, "her address": {"alice@mail.example", authn.ErrPasswordCommon}, "long": {strings.Repeat("xa3 ", 70), authn.ErrPasswordLong},
		"the service": {"watchword", authn.ErrPasswordCommon},
	} {
		_, err := w.Service.ChangePassword(ctx, b.cookie, tt.password, "Watchword")
		wants(t, what, err, tt.want)
	}
	_, err := w.Service.ChangePassword(ctx, waiting.cookie, next)
	wants(t, "after the password alone", err, authn.ErrNotFresh)
	fresh, err := w.Service.ChangePassword(ctx, b.cookie, next, "Watchword")
	if err != nil || fresh == b.cookie {
		t.Fatal(err)
	}
	for what, dead := range map[string]authn.Cookie{"another session": other.cookie, "one that is signing in": waiting.cookie, "its own old cookie": b.cookie} {
		if current, err := w.Service.Current(t.Context(), dead); err != nil || current.Subscriber != uuid.Nil {
			t.Errorf("PWD-7 %s lives: %v", what, err)
		}
	}
	if a, err := w.Service.Account(t.Context(), fresh, ""); err != nil || a.Decision.Step != authn.StepDone || len(a.Sessions) != 1 || len(a.Browsers) != 0 {
		t.Errorf("its own session: %+v, %v", a, err)
	}
	if _, err := waiting.code(t, code); err == nil {
		t.Error("PWD-7 a challenge in flight is still good")
	}
	var told int
	if err := w.DB.GetContext(t.Context(), &told, "SELECT count(*) FROM notices WHERE kind = 'password_changed' AND NOT operator"); err != nil || told != 2 {
		t.Errorf("told %d times, %v", told, err)
	}
	w.DB.Advance(t, time.Hour)
	again := begin(t, w, authntest.Beginning())
	_, err = again.password(t, "alice", authntest.Password)
	wants(t, "the old password", err, authn.ErrWrongPair)
	p, err := w.Service.PasswordFrom(ctx, again.cookie, cookie, uuid.Nil, again.id, "alice", next, "en")
	if err != nil || p.Decision.Step != authn.StepFactor {
		t.Errorf("SS-8 the remembered browser with the new password: %+v, %v", p, err)
	}
	if u, err := w.Service.Find(t.Context(), id.String()); err != nil || u.DisabledAt != nil {
		t.Error(err)
	}
}

func TestPrefer(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	stranger := w.App(t, w.Subscriber(t, "mallory", ""))
	b := signedIn(t, w, app)
	first := func() string {
		t.Helper()
		p := toFactor(t, w, authntest.Beginning()).load(t)
		return p.SignIn.Challenge.Kind
	}
	if first() != totp.Kind {
		t.Error("the last used is not asked first")
	}
	h, err := w.Service.Holdings(t.Context(), b.cookie)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range h.Session.Bound {
		if a.Kind == smsotp.Kind {
			if err := w.Service.Prefer(t.Context(), b.cookie, a.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	wants(t, "EN-5 a stranger's", w.Service.Prefer(t.Context(), b.cookie, stranger.Authenticator.ID), authn.ErrNoAuthenticator)
	if first() != smsotp.Kind {
		t.Error("the preferred one is not asked first")
	}
	if err := w.Service.Prefer(t.Context(), b.cookie, app.Authenticator.ID); err != nil || first() != totp.Kind {
		t.Errorf("the other one is not asked first: %v", err)
	}
}

// applications stands in for package oidc.
type applications struct{ given []authn.Given }

func (a *applications) Given(context.Context, uuid.UUID, []string) ([]authn.Given, map[string]string, error) {
	return slices.Clone(a.given), map[string]string{"demo": "Demo"}, nil
}

func (a *applications) TakeBack(_ context.Context, q *postgres.Query, from string, _ uuid.UUID, _ string, _ factors.By) {
	q.With("given_back", "SELECT id FROM "+from)
	a.given = nil
}

func TestExport(t *testing.T) {
	t.Parallel()
	w, id := remembering(t)
	w.Service.Applications = &applications{[]authn.Given{{Application: "demo", Name: "Demo", Scopes: []string{"openid"}, Since: w.DB.Now(t)}}}
	b, _ := rememberAs(t, w)
	w.DB.Advance(t, time.Second)
	a, u, err := w.Service.ExportOwn(authntest.From(t.Context(), "192.0.2.1"), b.cookie)
	if err != nil || u.ID != id || a.Profile["name"] != "Alice Example" || len(a.Sessions) != 1 || len(a.Browsers) != 1 || len(a.Given) != 1 || len(a.Activity) < 4 {
		t.Fatalf("%+v, %v", a, err)
	}
	if a, err = w.Service.Account(t.Context(), b.cookie, ""); err != nil || a.Activity[0].Event != "account.export" {
		t.Errorf("it is not written down: %+v, %v", a, err)
	}
	if err := w.Service.Disconnect(t.Context(), b.cookie, "demo"); err != nil {
		t.Error(err)
	}
	w.DB.Advance(t, 11*time.Minute)
	_, _, err = w.Service.ExportOwn(t.Context(), b.cookie)
	wants(t, "LIM-9 later", err, authn.ErrNotFresh)
	wants(t, "LIM-9 later, taking back", w.Service.Disconnect(t.Context(), b.cookie, "demo"), authn.ErrNotFresh)
}
