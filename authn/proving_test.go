package authn_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/sms"
)

// propose begins to set up a phone.
func (b *browser) propose(t *testing.T, number string) (*authn.Enrolment, error) {
	t.Helper()
	parsed, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	a, unique := smsotp.Phone(uuid.Nil, parsed)
	return b.service.EnrolThis(authntest.From(t.Context(), "192.0.2.1"), b.cookie, authn.Binding{Authenticator: a, Unique: unique}, "en")
}

// prove answers what an enrolment asks.
func (b *browser) prove(t *testing.T, e *authn.Enrolment) error {
	t.Helper()
	var code string
	if e.Authenticator.Kind == totp.Kind {
		code = shows(t, b.World, e)
	} else {
		code = b.Code(t, e.Challenge.ID)
	}
	cookie, err := b.service.Prove(authntest.From(t.Context(), "192.0.2.1"), b.cookie, e.Challenge.ID, uuid.Nil, code)
	if err == nil {
		b.cookie = cookie
	}
	return err
}

// Whoever knows the password of somebody without a factor can begin to set one up. Once its owner has one, that password is not enough to end it.
func TestProveAfterAnother(t *testing.T) { // EN-7, BND-1, BND-3
	t.Parallel()
	for name, propose := range map[string]func(*testing.T, *browser) (*authn.Enrolment, error){
		"an app": func(t *testing.T, b *browser) (*authn.Enrolment, error) {
			t.Helper()
			return b.service.Enrol(t.Context(), b.cookie, totp.Kind, "")
		},
		"a phone": func(t *testing.T, b *browser) (*authn.Enrolment, error) {
			t.Helper()
			return b.propose(t, "+12025550199")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := authntest.New(t)
			w.DB.Freeze(t)
			w.Subscriber(t, "alice", "")
			signIn := func() *browser {
				t.Helper()
				b := begin(t, w, authntest.Beginning())
				if p, err := b.password(t, "alice", authntest.Password); err != nil || p.Decision.Step != authn.StepEnrol {
					t.Fatalf("%+v, %v", p, err)
				}
				return b
			}
			thief := signIn()
			theirs, err := propose(t, thief)
			if err != nil {
				t.Fatal(err)
			}
			owner := signIn()
			mine, err := owner.propose(t, "+12025550143")
			if err != nil {
				t.Fatal(err)
			}
			if owner.cookie, err = w.Service.Prove(t.Context(), owner.cookie, mine.Challenge.ID, owner.id, w.Code(t, mine.Challenge.ID)); err != nil {
				t.Fatal(err)
			}
			wants(t, "the other one, by a session with the password alone", thief.prove(t, theirs), authn.ErrNotFresh)
			if got := kinds(t, owner); len(got) != 1 {
				t.Fatalf("bound: %v", got)
			}
			var refused int
			if err := w.DB.GetContext(t.Context(), &refused, "SELECT count(*) FROM audit_events WHERE event = 'authenticator.bind' AND outcome = 'refused' AND reason = 'stale'"); err != nil || refused != 1 {
				t.Errorf("%d records of it, %v", refused, err)
			}
			// Its owner, who has since proved their factor, ends what they began before.
			begun, err := propose(t, owner)
			if err != nil {
				t.Fatal(err)
			}
			w.DB.Advance(t, 9*time.Minute)
			if err := owner.prove(t, begun); err != nil {
				t.Errorf("the owner's second: %v", err)
			}
		})
	}
}

func TestProveAtOnce(t *testing.T) { // EN-6: what waits is bound within the same bounds as what is proposed
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	w.Service.Config.PerKind, w.Service.Config.PerNumber = 2, 2
	in := func(name, number string) *browser {
		t.Helper()
		if number != "" {
			w.Subscriber(t, name, number)
		}
		b := begin(t, w, authntest.Beginning())
		if _, err := b.password(t, name, authntest.Password); err != nil {
			t.Fatal(err)
		}
		if _, err := b.code(t, b.sent(t)); err != nil {
			t.Fatal(err)
		}
		return b
	}
	tabs := []*browser{in("alice", "+12025550143"), in("alice", "")}
	var waiting []*authn.Enrolment
	for i, b := range tabs {
		e, err := b.propose(t, fmt.Sprintf("+1202555015%d", i))
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, e)
	}
	if err := tabs[0].prove(t, waiting[0]); err != nil {
		t.Fatal(err)
	}
	wants(t, "EN-6 one too many", tabs[1].prove(t, waiting[1]), authn.ErrTooMany)

	// The same number for three people, and twice for one of them.
	var people []*browser
	waiting = nil
	for i := range 3 {
		b := in(fmt.Sprintf("user%d", i), fmt.Sprintf("+1202555016%d", i))
		e, err := b.propose(t, "+12025550177")
		if err != nil {
			t.Fatal(err)
		}
		people, waiting = append(people, b), append(waiting, e)
	}
	w.Service.Config.PerKind = 5
	twin := in("user0", "")
	again, err := twin.propose(t, "+12025550177")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, nil, authn.ErrShared} {
		if err := people[i].prove(t, waiting[i]); err != want { //nolint:errorlint // nil is one of them
			t.Errorf("EN-6 person %d: error = %v, want %v", i, err, want)
		}
	}
	wants(t, "the same number again", twin.prove(t, again), authn.ErrBoundAlready)
	wants(t, "once it was refused", twin.prove(t, &authn.Enrolment{Authenticator: again.Authenticator, Challenge: &factors.State{ID: uuid.New()}}), factors.ErrOver)
}

func TestEnrolmentOff(t *testing.T) { // EN-8, BND-3: a way around policy would let whoever knows a password bind their own factor
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	w.Service.Config.Policy.Enrol = false
	w.Subscriber(t, "alice", "")
	b := begin(t, w, authntest.Beginning())
	if p, err := b.password(t, "alice", authntest.Password); err != nil || p.Decision.Failure != authn.Unmet {
		t.Fatalf("%+v, %v", p, err)
	}
	for what, signIn := range map[string]uuid.UUID{"for the account": uuid.Nil, "for the sign-in": b.id} {
		_, err := w.Service.EnrolFor(t.Context(), b.cookie, signIn, totp.Kind, "")
		wants(t, what, err, authn.ErrNotFresh)
	}
	_, err := b.propose(t, "+12025550199")
	wants(t, "a phone", err, authn.ErrNotFresh)
	if h, err := w.Service.Holdings(t.Context(), b.cookie); err != nil || h.Fresh {
		t.Errorf("Holdings: %+v, %v", h, err)
	}
	var refused int
	if err := w.DB.GetContext(t.Context(), &refused, "SELECT count(*) FROM audit_events WHERE event = 'authenticator.propose' AND reason = 'policy'"); err != nil || refused != 3 {
		t.Errorf("%d records, %v", refused, err)
	}
	// Where a rule lets one application's people begin, they begin there and nowhere else.
	allow(t, w.Service, "client=demo enrol=on")
	b = begin(t, w, authntest.Beginning())
	if p, err := b.password(t, "alice", authntest.Password); err != nil || p.Decision.Step != authn.StepEnrol {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = w.Service.Enrol(t.Context(), b.cookie, totp.Kind, "")
	wants(t, "for the account", err, authn.ErrNotFresh)
	if _, err := w.Service.EnrolFor(t.Context(), b.cookie, b.id, totp.Kind, ""); err != nil {
		t.Errorf("for that sign-in: %v", err)
	}
	// And where a password is enough to sign in, the account is its owner's.
	w.Service.Config.Policy.Rules, w.Service.Config.Policy.Floor = nil, authn.PasswordLevel
	b = begin(t, w, authntest.Beginning())
	if p, err := b.password(t, "alice", authntest.Password); err != nil || p.Decision.Step != authn.StepDone {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := w.Service.Enrol(t.Context(), b.cookie, totp.Kind, ""); err != nil {
		t.Errorf("with the password alone: %v", err)
	}
}
