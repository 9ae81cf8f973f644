package recovery_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/sms"
)

const foreign = "+12025550199"

// repairing is somebody who reads alice's mails and has a backup code of hers.
func (w *world) repairing(t *testing.T) *recovery.Grant {
	t.Helper()
	paper := w.Paper(t, w.alice)
	w.DB.Advance(t, time.Minute)
	w.begin(t, recovery.Access, "alice", recovery.Mail)
	g := w.follow(t)
	for _, way := range w.engine.Ways(g.Recovery) {
		if way.Kind == backupcode.Kind {
			wants(t, "ask", w.engine.Ask(t.Context(), g.Cookie, way.ID, "en"), nil)
		}
	}
	g, err := w.engine.Answer(t.Context(), g.Cookie, paper[0])
	if err != nil || g.Session == "" {
		t.Fatalf("the backup code: %+v, %v", g, err)
	}
	return g
}

func (w *world) propose(t *testing.T, session authn.Cookie) (*authn.Enrolment, error) {
	t.Helper()
	number, err := sms.ParseNumber(foreign, "")
	if err != nil {
		t.Fatal(err)
	}
	a, unique := smsotp.Phone(uuid.Nil, number)
	return w.Service.EnrolThis(t.Context(), session, authn.Binding{Authenticator: a, Unique: unique}, "en")
}

func (w *world) phones(t *testing.T) int {
	t.Helper()
	return w.count(t, "SELECT count(*) FROM authenticators WHERE kind = $1 AND unbound_at IS NULL", smsotp.Kind)
}

// What ends a recovery ends what its session may do at once, and not when the worker comes round.
func TestRepairEnds(t *testing.T) { // RC-3, RC-10, REC-4
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile func(t *testing.T, w *world)
	}{
		"when the owner signs in": {func(t *testing.T, w *world) {
			w.DB.Advance(t, time.Second)
			if p, _ := w.SignIn(t, "", "alice", authntest.Beginning()); p.Decision.Step != authn.StepDone {
				t.Fatalf("signing in: %+v", p.Decision)
			}
		}},
		"when its time is over": {func(t *testing.T, w *world) {
			if _, err := w.DB.ExecContext(t.Context(), "UPDATE sessions SET last_seen_at = last_seen_at + interval '20 minutes'"); err != nil {
				t.Fatal(err)
			}
			w.DB.Advance(t, recovery.DefaultConfig().Repair)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, proposed := range []bool{false, true} {
				w := newWorld(t)
				g := w.repairing(t)
				var e *authn.Enrolment
				var err error
				if proposed {
					if e, err = w.propose(t, g.Session); err != nil {
						t.Fatal(err)
					}
				}
				tt.meanwhile(t, w)
				if !proposed {
					_, err = w.propose(t, g.Session)
				} else if e != nil {
					_, err = w.Service.Prove(t.Context(), g.Session, e.Challenge.ID, uuid.Nil, w.Code(t, e.Challenge.ID))
				}
				if err == nil {
					t.Errorf("proposed before: %t; the session that repaired goes on", proposed)
				}
				if n := w.phones(t); n != 1 {
					t.Errorf("proposed before: %t; %d phones", proposed, n)
				}
				wants(t, "finishing", w.engine.FinishRepair(t.Context(), g.Session), recovery.ErrOver)
			}
		})
	}
}

// Whoever stops a recovery while its session binds a phone either comes too late, or no phone is bound.
func TestStoppedWhileBinding(t *testing.T) { // RC-10, REC-4
	t.Parallel()
	w := newWorld(t)
	g := w.repairing(t)
	e, err := w.propose(t, g.Session)
	if err != nil {
		t.Fatal(err)
	}
	code := w.Code(t, e.Challenge.ID)
	hold, err := w.DB.BeginTxx(t.Context(), nil)
	if err == nil {
		_, err = hold.ExecContext(t.Context(), "SELECT FROM challenges WHERE id = $1 FOR UPDATE", e.Challenge.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	bound, stopped := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := w.Service.Prove(t.Context(), g.Session, e.Challenge.ID, uuid.Nil, code)
		bound <- err
	}()
	waiting := func() int {
		return w.count(t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
	}
	for waiting() < 1 && t.Context().Err() == nil {
	}
	go func() { stopped <- w.engine.Cancel(t.Context(), g.Cookie) }()
	for waiting() < 2 && len(stopped) == 0 && t.Context().Err() == nil {
	}
	if err := hold.Commit(); err != nil {
		t.Fatal(err)
	}
	errBound, errStopped := <-bound, <-stopped
	if (errBound == nil) == (errStopped == nil) {
		t.Errorf("binding: %v; stopping: %v; want one of them", errBound, errStopped)
	}
	r, err := w.engine.Find(t.Context(), g.Recovery.ID)
	if err != nil || (r.State == recovery.Finished) != (errBound == nil) || errStopped != nil && !errors.Is(errStopped, recovery.ErrOver) {
		t.Errorf("recovery: %+v, %v; stopping: %v", r, err, errStopped)
	}
	if n := w.count(t, "SELECT count(*) FROM authenticators WHERE id = $1 AND unbound_at IS NULL", e.Authenticator.ID); (n == 1) != (errBound == nil) || w.phones(t) != 1 {
		t.Errorf("the phone is bound: %d; %d phones in all", n, w.phones(t))
	}
}

// A repair ends in one way, whoever ends it at the same moment, on two replicas: and only what ended it has changed the account.
func TestOneEndOfRepair(t *testing.T) { // RC-10, REC-4
	t.Parallel()
	for round := range 8 {
		w := newWorld(t)
		second := w.over(t, w.Replica(t, w.DB.Open(t)))
		w.Service.Repaired, w.Service.Repairing = w.engine.Repaired, w.engine.Repairing
		w.Paper(t, w.alice)
		app := w.App(t, w.alice)
		cookie := w.begin(t, recovery.Access, "alice", recovery.Text)
		g, err := w.engine.Answer(t.Context(), cookie, w.code(t, cookie))
		wants(t, "the text", err, nil)
		wants(t, "ask", w.engine.Ask(t.Context(), g.Cookie, app.Authenticator.ID, "en"), nil)
		g, err = w.engine.Answer(t.Context(), g.Cookie, app.Code(t, 0))
		wants(t, "the app", err, nil)
		e, err := w.propose(t, g.Session)
		if err != nil {
			t.Fatal(err)
		}
		code := w.Code(t, e.Challenge.ID)
		errs := make([]error, 4)
		race(4, func(n int) {
			switch n {
			case 0:
				errs[n] = w.engine.FinishRepair(t.Context(), g.Session)
			case 1:
				errs[n] = second.Cancel(t.Context(), g.Cookie)
			case 2:
				errs[n] = second.End(t.Context(), g.Recovery.ID)
			case 3:
				_, errs[n] = w.Service.Prove(t.Context(), g.Session, e.Challenge.ID, uuid.Nil, code)
			}
		})
		var ends []int
		for n, err := range errs {
			if err == nil {
				ends = append(ends, n)
			}
		}
		r, err := w.engine.Find(t.Context(), g.Recovery.ID)
		if err != nil || len(ends) != 1 || (r.State == recovery.Finished) != (ends[0] == 0 || ends[0] == 3) {
			t.Fatalf("round %d: %+v, %v; %v", round, r, err, errs)
		}
		want := map[int][]string{0: {smsotp.Kind, totp.Kind}, 1: {backupcode.Kind, smsotp.Kind, totp.Kind}, 2: {backupcode.Kind, smsotp.Kind, totp.Kind}, 3: {smsotp.Kind, smsotp.Kind, totp.Kind}}[ends[0]]
		if got := w.bound(t); !slices.Equal(got, want) {
			t.Errorf("round %d: ended by %d, bound %v, want %v", round, ends[0], got, want)
		}
	}
}

// What somebody else binds at the very moment in which the account is repaired goes with all that was not proved.
func TestBoundWhileRepaired(t *testing.T) { // REC-3, REC-6, RC-6
	t.Parallel()
	w := newWorld(t)
	app := w.App(t, w.alice)
	_, thief := w.SignIn(t, "", "alice", authntest.Beginning())
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE session_events SET strength = $1, kind = $2 WHERE kind = $3", authn.Unrestricted, totp.Kind, smsotp.Kind); err != nil { // by the app
		t.Fatal(err)
	}
	e, err := w.propose(t, thief)
	if err != nil {
		t.Fatal(err)
	}
	code := w.Code(t, e.Challenge.ID)
	w.DB.Advance(t, time.Second)
	cookie := w.begin(t, recovery.Access, "alice", recovery.Text)
	g, err := w.engine.Answer(t.Context(), cookie, w.code(t, cookie))
	wants(t, "the text", err, nil)
	wants(t, "ask", w.engine.Ask(t.Context(), g.Cookie, app.Authenticator.ID, "en"), nil)
	g, err = w.engine.Answer(t.Context(), g.Cookie, app.Code(t, 0))
	wants(t, "the app", err, nil)
	hold, err := w.DB.BeginTxx(t.Context(), nil)
	if err == nil {
		_, err = hold.ExecContext(t.Context(), "SELECT FROM challenges WHERE id = $1 FOR UPDATE", e.Challenge.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	bound, repaired := make(chan error, 1), make(chan error, 1)
	waiting := func() int {
		return w.count(t, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
	}
	go func() {
		_, err := w.Service.Prove(t.Context(), thief, e.Challenge.ID, uuid.Nil, code)
		bound <- err
	}()
	for waiting() < 1 && t.Context().Err() == nil {
	}
	go func() { repaired <- w.engine.FinishRepair(t.Context(), g.Session) }()
	for waiting() < 2 && t.Context().Err() == nil {
	}
	if err := hold.Commit(); err != nil {
		t.Fatal(err)
	}
	errBound, errRepaired := <-bound, <-repaired
	wants(t, "the repair", errRepaired, nil)
	if got := w.bound(t); !slices.Equal(got, []string{smsotp.Kind, totp.Kind}) {
		t.Errorf("bound afterwards: %v; binding: %v", got, errBound)
	}
	if n := w.count(t, "SELECT count(*) FROM authenticators WHERE id = $1 AND unbound_at IS NULL", e.Authenticator.ID); n != 0 {
		t.Error("the thief's phone stays")
	}
}
