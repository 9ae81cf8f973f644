package authn_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/sms"
)

// A phone that was lost may be signed in by: what it opened ends with it.
func TestLostPhone(t *testing.T) { // SES-5, SS-10
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, w *authntest.World, b *browser, phone uuid.UUID){
		"removed": func(t *testing.T, w *authntest.World, b *browser, phone uuid.UUID) {
			t.Helper()
			if err := w.Service.Remove(t.Context(), b.cookie, phone); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, w *authntest.World, b *browser, phone uuid.UUID) {
			t.Helper()
			number, err := sms.ParseNumber("+12025550199", "")
			if err != nil {
				t.Fatal(err)
			}
			a, unique := smsotp.Phone(uuid.Nil, number)
			a.Replaces = phone
			e, err := w.Service.EnrolThis(t.Context(), b.cookie, authn.Binding{Authenticator: a, Unique: unique}, "en")
			if err != nil {
				t.Fatal(err)
			}
			if err := b.prove(t, e); err != nil {
				t.Fatal(err)
			}
		},
		"removed by the operator": func(t *testing.T, w *authntest.World, _ *browser, phone uuid.UUID) {
			t.Helper()
			subscriber, err := w.Service.Find(t.Context(), "alice")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Service.Unbind(t.Context(), subscriber.ID, phone); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := authntest.New(t)
			w.DB.Freeze(t)
			app := w.App(t, w.Subscriber(t, "alice", "+12025550143"))
			w.Subscriber(t, "bob", "+12025550144")
			replica := w.Replica(t, w.DB.Open(t))
			_, bob := w.SignIn(t, "", "bob", authntest.Beginning())
			thief := toFactor(t, w, authntest.Beginning())
			thief.choose(t, smsotp.Kind)
			if _, err := thief.code(t, thief.sent(t)); err != nil {
				t.Fatal(err)
			}
			half := toFactor(t, w, authntest.Beginning())
			owner := signedIn(t, w, app)
			h, err := w.Service.Holdings(t.Context(), owner.cookie)
			if err != nil {
				t.Fatal(err)
			}
			phone := h.Session.Bound[slices.IndexFunc(h.Session.Bound, func(a factors.Authenticator) bool { return a.Kind == smsotp.Kind })].ID
			lose(t, w, owner, phone)
			for what, tt := range map[string]struct {
				cookie authn.Cookie
				lives  bool
			}{
				"whoever has the phone": {thief.cookie, false}, "whoever is about to use it": {half.cookie, false},
				"the owner": {owner.cookie, name != "removed by the operator"}, "others": {bob, true},
			} {
				current, err := replica.Current(t.Context(), tt.cookie)
				if err != nil || current.Subscriber != uuid.Nil != tt.lives {
					t.Errorf("%s: signed in %t, %v; want %t", what, current.Subscriber != uuid.Nil, err, tt.lives)
				}
			}
			var ended int
			if err := w.DB.GetContext(t.Context(), &ended, "SELECT count(*) FROM audit_events WHERE event = 'session.end' AND reason = 'factor_removed'"); err != nil || ended < 2 {
				t.Errorf("%d records, %v", ended, err)
			}
		})
	}
}

func TestBackupCodeAfterRememberedBrowser(t *testing.T) { // BC-8, LUS-3: raising a session that a remembered browser opened is raising it all the same
	t.Parallel()
	w, id := remembering(t)
	w.DB.Advance(t, time.Second)
	codes := w.Paper(t, id)
	w.DB.Advance(t, time.Second)
	_, cookie := rememberAs(t, w)
	b := begin(t, w, authntest.Beginning())
	if p := b.from(t, cookie); p.Decision.Step != authn.StepDone {
		t.Fatalf("%+v", p.Decision)
	}
	p := b.begin(t, raising(authn.RestrictedLevel))
	if p.Decision.Step != authn.StepFactor || !p.Decision.Raises || p.Decision.Rememberable {
		t.Fatalf("%+v, want the factor, as for any step-up", p.Decision)
	}
	for _, way := range w.Service.Ways(&p.SignIn.Session, p.Decision) {
		if way.Kind == backupcode.Kind {
			t.Error("backup codes are offered")
		}
	}
	h, err := w.Service.Holdings(t.Context(), b.cookie)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range h.Session.Bound {
		_, err := w.Service.Choose(t.Context(), b.cookie, b.id, a.ID, "en")
		if a.Kind == backupcode.Kind {
			wants(t, "choosing them", err, authn.ErrNotThisStep)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.code(t, codes[0]); err == nil {
		t.Error("a backup code raised it")
	}
	if _, err := b.code(t, b.sent(t)); err != nil {
		t.Errorf("the text: %v", err)
	}
}

func TestBackupCodesAreNoBeginning(t *testing.T) { // LUS-3: who had nothing else could change nothing any more
	t.Parallel()
	w := authntest.New(t)
	w.DB.Freeze(t)
	w.Service.Config.Policy.Floor = authn.PasswordLevel
	w.Subscriber(t, "alice", "")
	b := begin(t, w, authntest.Beginning())
	if p, err := b.password(t, "alice", authntest.Password); err != nil || p.Decision.Step != authn.StepDone {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err := w.Service.Enrol(t.Context(), b.cookie, backupcode.Kind, "")
	wants(t, "before anything else", err, authn.ErrNotFirst)
	e, err := w.Service.Enrol(t.Context(), b.cookie, totp.Kind, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.prove(t, e); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Service.Enrol(t.Context(), b.cookie, backupcode.Kind, ""); err != nil { // the app was just proved, and counts
		t.Errorf("after an app: %v", err)
	}
	w.DB.Advance(t, w.Service.Config.Fresh+time.Second)
	_, err = w.Service.Enrol(t.Context(), b.cookie, backupcode.Kind, "")
	wants(t, "EN-1 later", err, authn.ErrNotFresh)
}

func TestLastFactorByRule(t *testing.T) { // EN-9, BND-5: what a rule wants of somebody stays, and what it does not take is no substitute
	t.Parallel()
	for rule, want := range map[string]error{
		"group=staff floor=urn:watchword:acr:3":  authn.ErrLastAuthenticator,
		"group=others floor=urn:watchword:acr:3": nil,
		"factor=totp":                            authn.ErrLastAuthenticator,
		"client=bank floor=urn:watchword:acr:3":  nil,
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			w := authntest.New(t)
			w.DB.Freeze(t)
			allow(t, w.Service, rule)
			id := w.Subscriber(t, "alice", "+12025550143")
			if err := w.Service.SetGroups(t.Context(), id, []string{"staff"}); err != nil {
				t.Fatal(err)
			}
			app := w.App(t, id)
			b := signedIn(t, w, app)
			h, err := w.Service.Holdings(t.Context(), b.cookie)
			if err != nil {
				t.Fatal(err)
			}
			for i, a := range h.Session.Bound {
				if stays := a.Kind == totp.Kind && want != nil; h.Stays[i] != stays {
					t.Errorf("the page says of %s that it stays: %t", a.Kind, h.Stays[i])
				}
			}
			wants(t, "removing the app", w.Service.Remove(t.Context(), b.cookie, app.Authenticator.ID), want)
		})
	}
}
