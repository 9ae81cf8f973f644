package authn_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/sms"
)

// shows is what an app shows that was set up with what Enrol gave.
func shows(t *testing.T, w *authntest.World, e *authn.Enrolment) string {
	t.Helper()
	return (&authntest.App{Authenticator: e.Authenticator, World: w}).Code(t, 0)
}

// signedIn is a browser in which alice has signed in with the app.
func signedIn(t *testing.T, w *authntest.World, app *authntest.App) *browser {
	t.Helper()
	b := toFactor(t, w, raising(authn.UnrestrictedLevel))
	if p, err := b.code(t, app.Code(t, 0)); err != nil || p.Decision.Step != authn.StepDone {
		t.Fatal(err)
	}
	return b
}

func kinds(t *testing.T, b *browser) (list []string) {
	t.Helper()
	h, err := b.service.Holdings(t.Context(), b.cookie)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range h.Session.Bound {
		list = append(list, a.Kind)
	}
	slices.Sort(list)
	return list
}

func TestFirstFactor(t *testing.T) { // TP-6, TP-7, TP-9, TP-11: whoever has none sets one up and goes on
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	w.Subscriber(t, "alice", "")
	w.Subscriber(t, "mallory", "")
	b := begin(t, w, authntest.Beginning())
	_, err := w.Service.Enrol(t.Context(), b.cookie, totp.Kind, "")
	wants(t, "before the password", err, authn.ErrNotFresh)
	p, err := b.password(t, "alice", authntest.Password)
	if err != nil || p.Decision.Step != authn.StepEnrol {
		t.Fatalf("password: %+v, %v; want enrolment next", p, err)
	}
	first, err := w.Service.Enrol(t.Context(), b.cookie, totp.Kind, "tab 1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.Service.Enrol(t.Context(), b.cookie, totp.Kind, "  My   phone ")
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.Service.Enrolment(t.Context(), b.cookie, second.Challenge.ID)
	if err != nil || again.Setup.Secret != second.Setup.Secret || again.Setup.URI != second.Setup.URI || !strings.Contains(again.Setup.URI, "alice") || again.Authenticator.Name != "My phone" {
		t.Fatalf("P8 a reload keeps the secret: %v, %v", again, err)
	}
	if picture, err := again.Setup.QR(200); err != nil || !strings.HasPrefix(string(picture), "\x89PNG") {
		t.Errorf("QR: %v", err)
	}
	other := begin(t, w, authntest.Beginning())
	if _, err := other.password(t, "mallory", authntest.Password); err != nil {
		t.Fatal(err)
	}
	_, err = w.Service.Enrolment(t.Context(), other.cookie, second.Challenge.ID)
	wants(t, "TP-9 somebody else's enrolment", err, factors.ErrOver)
	_, err = w.Service.Prove(t.Context(), other.cookie, second.Challenge.ID, other.id, shows(t, w, second))
	wants(t, "TP-9 proving somebody else's", err, factors.ErrOver)
	_, err = w.Service.Prove(t.Context(), b.cookie, first.Challenge.ID, b.id, shows(t, w, second))
	wants(t, "TP-7 the first tab with the second's code", err, factors.ErrOver)
	_, err = w.Service.Prove(t.Context(), b.cookie, second.Challenge.ID, b.id, shows(t, w, first))
	wants(t, "TP-7 the second tab with the first's code", err, factors.ErrMismatch)
	if got := kinds(t, b); len(got) != 0 {
		t.Fatalf("TP-11: bound without proof: %v", got)
	}
	if p := b.load(t); p.Decision.Step != authn.StepEnrol {
		t.Fatalf("TP-11: %+v, want enrolment still", p.Decision)
	}
	code := shows(t, w, second)
	cookie, err := w.Service.Prove(t.Context(), b.cookie, second.Challenge.ID, b.id, code[:3]+" "+code[3:])
	if err != nil || cookie == b.cookie {
		t.Fatalf("the proof: %v", err)
	}
	if _, err := w.Service.Load(t.Context(), b.cookie, b.id); !errors.Is(err, authn.ErrSignInOver) {
		t.Errorf("the cookie from before: %v", err)
	}
	b.cookie = cookie
	if p := b.load(t); p.Decision.Step != authn.StepDone || !slices.Equal(p.Decision.AMR(), []string{"pwd", "otp", "mfa"}) {
		t.Errorf("after it: %+v, want done", p.Decision)
	}
	_, err = w.Service.Enrolment(t.Context(), b.cookie, second.Challenge.ID)
	wants(t, "TP-6 the secret after it was bound", err, factors.ErrOver)
	next := toFactor(t, w, authntest.Beginning())
	_, err = next.code(t, code)
	wants(t, "TP-1 the code that confirmed the app, at sign-in", err, factors.ErrUsed)
}

func TestMayChange(t *testing.T) { // TP-10, EN-1, BND-1
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	refused := func(what string, b *browser) {
		t.Helper()
		wants(t, what+": removing", w.Service.Remove(t.Context(), b.cookie, app.Authenticator.ID), authn.ErrNotFresh)
		wants(t, what+": renaming", w.Service.Rename(t.Context(), b.cookie, app.Authenticator.ID, "x"), authn.ErrNotFresh)
		for _, kind := range []string{totp.Kind, backupcode.Kind} {
			_, err := w.Service.Enrol(t.Context(), b.cookie, kind, "")
			wants(t, what+": adding "+kind, err, authn.ErrNotFresh)
		}
		number, err := sms.ParseNumber("+12025550144", "")
		if err != nil {
			t.Fatal(err)
		}
		a, unique := smsotp.Phone(uuid.Nil, number)
		_, err = w.Service.EnrolThis(t.Context(), b.cookie, authn.Binding{Authenticator: a, Unique: unique}, "en")
		wants(t, what+": adding a phone", err, authn.ErrNotFresh)
		if h, err := w.Service.Holdings(t.Context(), b.cookie); err == nil && h.Fresh {
			t.Errorf("%s: Holdings says fresh", what)
		}
	}
	refused("nobody", &browser{World: w, service: w.Service})
	refused("password alone", toFactor(t, w, authntest.Beginning()))
	weak := toFactor(t, w, authntest.Beginning())
	weak.choose(t, smsotp.Kind)
	if _, err := weak.code(t, weak.sent(t)); err != nil {
		t.Fatal(err)
	}
	refused("a text, where an app is bound", weak)
	strong := signedIn(t, w, app)
	if h, err := w.Service.Holdings(t.Context(), strong.cookie); err != nil || !h.Fresh || len(h.Session.Bound) != 2 {
		t.Fatalf("fresh: %+v, %v", h, err)
	}
	texts := w.Texts(t)
	w.DB.Advance(t, 10*time.Minute+time.Second)
	refused("LIM-9 ten minutes ago", strong)
	if n := w.Texts(t); n != texts {
		t.Errorf("%d texts were sent for changes that were refused", n-texts)
	}
	var proposed int
	if err := w.DB.GetContext(t.Context(), &proposed, "SELECT count(*) FROM authenticators WHERE pending_until IS NOT NULL OR unbound_at IS NOT NULL"); err != nil || proposed != 0 {
		t.Errorf("%d rows of refused changes, %v", proposed, err)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	stranger := w.App(t, w.Subscriber(t, "mallory", ""))
	app := w.App(t, id)
	b := signedIn(t, w, app)
	ctx := authntest.From(t.Context(), "192.0.2.1")

	if err := w.Service.Rename(ctx, b.cookie, app.Authenticator.ID, " My\tphone "); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{strings.Repeat("x", 41), "\x00", "a\u202eb", "\xff"} {
		wants(t, "a name like that", w.Service.Rename(ctx, b.cookie, app.Authenticator.ID, name), factors.ErrName)
	}
	wants(t, "renaming a stranger's", w.Service.Rename(ctx, b.cookie, stranger.Authenticator.ID, "x"), authn.ErrNoAuthenticator)
	wants(t, "removing a stranger's", w.Service.Remove(ctx, b.cookie, stranger.Authenticator.ID), authn.ErrNoAuthenticator)
	_, err := w.Service.Enrol(ctx, b.cookie, smsotp.Kind, "")
	wants(t, "a kind that does not begin here", err, authn.ErrNoAuthenticator)

	codes, err := w.Service.Enrol(ctx, b.cookie, backupcode.Kind, "")
	if err != nil || codes.Challenge != nil || len(codes.Setup.Codes) != 10 {
		t.Fatalf("backup codes: %v", err)
	}
	h, err := w.Service.Holdings(ctx, b.cookie)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range h.Session.Bound {
		switch {
		case a.Kind == totp.Kind && a.Name != "My phone", a.Kind == backupcode.Kind && (a.Left == nil || *a.Left != 10), h.Stays[i]:
			t.Errorf("%s named %q stays %v", a.Kind, a.Name, h.Stays[i])
		}
	}

	// A phone, by its number: a code is sent to it, and nothing else binds it.
	number, err := sms.ParseNumber("+12025550144", "")
	if err != nil {
		t.Fatal(err)
	}
	phone, unique := smsotp.Phone(uuid.Nil, number)
	e, err := w.Service.EnrolThis(ctx, b.cookie, authn.Binding{Authenticator: phone, Unique: unique}, "en")
	if err != nil {
		t.Fatal(err)
	}
	first := w.Code(t, e.Challenge.ID)
	w.DB.Advance(t, 31*time.Second)
	if err := w.Service.ResendProof(ctx, b.cookie, e.Challenge.ID, "en"); err != nil {
		t.Fatal(err)
	}
	if e, err := w.Service.Enrolment(ctx, b.cookie, e.Challenge.ID); err != nil || e.Authenticator.Hint != "44" || e.Challenge.Sends != 2 {
		t.Fatalf("the phone's enrolment: %+v, %v", e, err)
	}
	_, err = w.Service.Prove(ctx, b.cookie, e.Challenge.ID, uuid.Nil, "000000")
	wants(t, "wrong", err, factors.ErrMismatch)
	_, err = w.Service.Prove(ctx, b.cookie, e.Challenge.ID, uuid.Nil, "12")
	wants(t, "short", err, factors.ErrCodeShort)
	cookie, err := w.Service.Prove(ctx, b.cookie, e.Challenge.ID, uuid.Nil, first)
	if err != nil {
		t.Fatal(err)
	}
	b.cookie = cookie
	if got := kinds(t, b); !slices.Equal(got, []string{backupcode.Kind, smsotp.Kind, smsotp.Kind, totp.Kind}) {
		t.Fatalf("bound: %v", got)
	}

	// What is removed is asked for no more, and what it knew is gone.
	if err := w.Service.Remove(ctx, b.cookie, phone.ID); err != nil {
		t.Fatal(err)
	}
	wants(t, "removing it again", w.Service.Remove(ctx, b.cookie, phone.ID), authn.ErrNoAuthenticator)
	var empty bool
	if err := w.DB.GetContext(ctx, &empty, "SELECT length(data) = 0 AND fingerprint IS NULL FROM authenticators WHERE id = $1", phone.ID); err != nil || !empty {
		t.Errorf("what a removed phone leaves: %v, %v", empty, err)
	}
	var records []string
	if err := w.DB.SelectContext(ctx, &records, `SELECT event || ' ' || outcome || ' ' || reason FROM audit_events
		WHERE event LIKE 'authenticator.%' AND actor = 'subscriber' AND subject = $1 AND session_id IS NOT NULL AND source = '192.0.2.1' ORDER BY at, event`, id); err != nil {
		t.Fatal(err)
	}
	slices.Sort(records)
	if diff := cmp.Diff([]string{"authenticator.bind success backup_code", "authenticator.bind success sms", "authenticator.propose success sms", "authenticator.rename success totp", "authenticator.risk_told success sms",
		"authenticator.unbind success sms"}, records); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	for range 3 { // together with the one from before four, and one that waits for its proof does not count
		e, err := w.Service.Enrol(ctx, b.cookie, totp.Kind, "")
		if err != nil {
			t.Fatal(err)
		}
		if b.cookie, err = w.Service.Prove(ctx, b.cookie, e.Challenge.ID, uuid.Nil, shows(t, w, e)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if e, err = w.Service.Enrol(ctx, b.cookie, totp.Kind, ""); err != nil {
			t.Fatal(err)
		}
	}
	if b.cookie, err = w.Service.Prove(ctx, b.cookie, e.Challenge.ID, uuid.Nil, shows(t, w, e)); err != nil {
		t.Fatal(err)
	}
	_, err = w.Service.Enrol(ctx, b.cookie, totp.Kind, "")
	wants(t, "EN-6 the sixth app", err, authn.ErrTooMany)
	if _, err := w.Service.Enrol(ctx, b.cookie, backupcode.Kind, ""); err != nil {
		t.Errorf("a new set of codes: %v", err)
	}
	old := toFactor(t, w, authntest.Beginning())
	old.choose(t, backupcode.Kind)
	_, err = old.code(t, codes.Setup.Codes[0])
	wants(t, "BC-3 a code of the set before", err, factors.ErrMismatch)
}

func TestToldOfChanges(t *testing.T) { // BC-9, NOT-1, LUS-2, EN-4: in the statement of the change, to whoever could be told before it
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	told := func(what string, want ...string) {
		t.Helper()
		var have []string
		if err := w.DB.SelectContext(t.Context(), &have, "DELETE FROM notices RETURNING kind || ' ' || about || ' ' || hint || ' by ' || channel || CASE WHEN operator THEN ', operator' ELSE '' END"); err != nil {
			t.Fatal(err)
		}
		slices.Sort(have)
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s: told (-want +got):\n%s", what, diff)
		}
	}
	told("an app by the operator", "factor_added totp  by mail, operator", "factor_added totp  by text, operator")
	paper := w.Paper(t, id)
	told("codes by the operator", "backup_codes_made backup_code  by mail, operator", "backup_codes_made backup_code  by text, operator")
	b := toFactor(t, w, authntest.Beginning())
	b.choose(t, backupcode.Kind)
	_, err := b.code(t, "0000-0000-0000-0000")
	wants(t, "wrong", err, factors.ErrMismatch)
	told("a wrong code")
	if _, err := b.code(t, paper[0]); err != nil {
		t.Fatal(err)
	}
	told("a code was used", "backup_code_used  9 by mail", "backup_code_used  9 by text")

	b = signedIn(t, w, app)
	if _, err := w.Service.Enrol(t.Context(), b.cookie, backupcode.Kind, ""); err != nil {
		t.Fatal(err)
	}
	told("new codes", "backup_codes_made backup_code  by mail", "backup_codes_made backup_code  by text")
	e, err := w.Service.Enrol(t.Context(), b.cookie, totp.Kind, "")
	if err != nil {
		t.Fatal(err)
	}
	told("an app that is not proved yet")
	if b.cookie, err = w.Service.Prove(t.Context(), b.cookie, e.Challenge.ID, uuid.Nil, shows(t, w, e)); err != nil {
		t.Fatal(err)
	}
	told("an app", "factor_added totp  by mail", "factor_added totp  by text")
	h, err := w.Service.Holdings(t.Context(), b.cookie)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range h.Session.Bound {
		if a.Kind == smsotp.Kind {
			if err := w.Service.Remove(t.Context(), b.cookie, a.ID); err != nil {
				t.Fatal(err)
			}
			told("the phone, which is told for the last time", "factor_removed sms 43 by mail", "factor_removed sms 43 by text")
		}
	}
	if err := w.Service.Unbind(t.Context(), id, e.Authenticator.ID); err != nil {
		t.Fatal(err)
	}
	told("an app by the operator", "factor_removed totp  by mail, operator")
}

func TestLastFactorStays(t *testing.T) { // two removals at once, over two replicas
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	w.Paper(t, id)
	b := signedIn(t, w, app)
	services := []*authn.Service{w.Service, w.Replica(t, w.DB.Open(t))}
	h, err := w.Service.Holdings(t.Context(), b.cookie)
	if err != nil {
		t.Fatal(err)
	}
	var phone uuid.UUID
	for _, a := range h.Session.Bound {
		if a.Kind == smsotp.Kind {
			phone = a.ID
		}
	}
	var removed, kept atomic.Int32
	var wg sync.WaitGroup
	barrier := make(chan struct{})
	for i := range 100 {
		wg.Go(func() {
			<-barrier
			switch err := services[i%2].Remove(t.Context(), b.cookie, []uuid.UUID{phone, app.Authenticator.ID}[i/2%2]); {
			case err == nil:
				removed.Add(1)
			case errors.Is(err, authn.ErrLastAuthenticator):
				kept.Add(1)
			case !errors.Is(err, authn.ErrNoAuthenticator):
				t.Errorf("a fault of the system: %v", err)
			}
		})
	}
	close(barrier)
	wg.Wait()
	if removed.Load() != 1 || kept.Load() == 0 {
		t.Fatalf("%d removed, %d told that it stays; want one removed", removed.Load(), kept.Load())
	}
	if h, err = w.Service.Holdings(t.Context(), b.cookie); err != nil || len(h.Session.Bound) != 2 {
		t.Fatalf("%d are left, %v; want the last and the codes", len(h.Session.Bound), err)
	}
	for i, a := range h.Session.Bound {
		if h.Stays[i] != (a.Kind != backupcode.Kind) {
			t.Errorf("%s: stays %v", a.Kind, h.Stays[i])
		}
		err := w.Service.Unbind(t.Context(), id, a.ID) // the operator
		if err != nil {
			t.Errorf("unbind %s: %v", a.Kind, err)
		}
	}
	wants(t, "unbinding what is gone", w.Service.Unbind(t.Context(), id, phone), authn.ErrNoAuthenticator)
}

func TestLastFactorStaysForBothAtOnce(t *testing.T) { // each has seen the other's before it was gone
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	b := signedIn(t, w, app)
	h, err := w.Service.Holdings(t.Context(), b.cookie)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := w.DB.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // rolled back by then
	if _, err := tx.ExecContext(t.Context(), "SELECT FROM authenticators FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 2)
	for _, a := range h.Session.Bound {
		go func() { results <- w.Service.Remove(t.Context(), b.cookie, a.ID) }()
	}
	for waits := 0; waits < 2; {
		if err := w.DB.GetContext(t.Context(), &waits, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if first, second := <-results, <-results; first == nil == (second == nil) || !errors.Is(errors.Join(first, second), authn.ErrLastAuthenticator) {
		t.Errorf("removing the phone and the app at once: %v, %v; want one removed and one that stays", first, second)
	}
}

func TestRemovedWhileAsked(t *testing.T) { // an answer and a removal wait for each other in one order
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	app := w.App(t, id)
	b := toFactor(t, w, authntest.Beginning())
	b.choose(t, totp.Kind)
	right := app.Code(t, 0)
	var wg sync.WaitGroup
	barrier := make(chan struct{})
	var ok atomic.Int32
	for range 20 {
		wg.Go(func() {
			<-barrier
			p, err := w.Service.Code(context.WithoutCancel(t.Context()), b.cookie, b.id, right)
			if err == nil && p.Decision.Step == authn.StepDone {
				ok.Add(1)
			}
			if err != nil && !errors.Is(err, factors.ErrOver) && !errors.Is(err, factors.ErrMismatch) && !errors.Is(err, authn.ErrSignInOver) && !errors.Is(err, authn.ErrNotThisStep) {
				t.Errorf("an answer: %v", err)
			}
		})
		wg.Go(func() {
			<-barrier
			if err := w.Service.Unbind(t.Context(), id, app.Authenticator.ID); err != nil && !errors.Is(err, authn.ErrNoAuthenticator) {
				t.Errorf("a removal: %v", err)
			}
		})
	}
	close(barrier)
	wg.Wait()
	if ok.Load() > 1 {
		t.Errorf("%d answers won", ok.Load())
	}
	var left int
	if err := w.DB.GetContext(t.Context(), &left, "SELECT count(*) FROM authenticators WHERE kind = 'totp' AND unbound_at IS NULL"); err != nil || left != 0 {
		t.Errorf("%d apps are left, %v", left, err)
	}
}
