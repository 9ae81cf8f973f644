package authn_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
)

// blocked has strangers try until the password of alice is not looked at any more.
func blocked(t *testing.T, w *authntest.World) {
	t.Helper()
	stranger := begin(t, w, authntest.Beginning())
	for range 10 {
		_, err := stranger.password(t, "alice", "wrong password")
		wants(t, "a stranger's guess", err, authn.ErrWrongPair)
		w.DB.Advance(t, 35*time.Second) // past the delay that grows
	}
	if locked := new(authn.LockedError); !errors.As(func() error { _, err := stranger.password(t, "alice", authntest.Password); return err }(), &locked) {
		t.Fatal("strangers are not blocked")
	}
}

func TestBlockOfOutsiders(t *testing.T) { // LIM-4, THR-7: it shuts out whoever caused it, and never the owner where they are known
	t.Parallel()
	again := authntest.Beginning()
	again.Requirement.Fresh = true
	var locked *authn.LockedError

	t.Run("PW-2 the owner's remembered browser", func(t *testing.T) {
		t.Parallel()
		w, _ := remembering(t)
		w.Subscriber(t, "mallory", "+12025550144")
		_, cookie := rememberAs(t, w)
		blocked(t, w)
		// Nobody else's cookie, nor an altered one, opens what is blocked.
		for what, sent := range map[string]authn.Cookie{"none": "", "altered": cookie[:len(cookie)-1] + "x"} {
			b := begin(t, w, authntest.Beginning())
			if _, err := w.Service.PasswordFrom(authntest.From(t.Context(), "192.0.2.1"), b.cookie, sent, uuid.Nil, b.id, "alice", authntest.Password, "en"); !errors.As(err, &locked) {
				t.Errorf("cookie %s: error = %v, want a LockedError", what, err)
			}
		}
		b := begin(t, w, authntest.Beginning())
		if _, err := w.Service.PasswordFrom(authntest.From(t.Context(), "192.0.2.1"), b.cookie, cookie, uuid.Nil, b.id, "mallory", "wrong password", "en"); !errors.Is(err, authn.ErrWrongPair) {
			t.Fatalf("another's name: error = %v", err)
		}
		yes, cookie := spared(t, w, w.Service, cookie)
		if !yes {
			t.Fatal("the remembered browser was let in, and not spared")
		}
		// What the owner does is not the strangers' merit: they stay out.
		stranger := begin(t, w, authntest.Beginning())
		if _, err := stranger.password(t, "alice", authntest.Password); !errors.As(err, &locked) {
			t.Errorf("strangers after the owner signed in: error = %v, want a LockedError", err)
		}
		// Whoever has the browser has no more tries for it than anybody.
		b = begin(t, w, authntest.Beginning())
		tried := 0
		for range 40 {
			_, err := w.Service.PasswordFrom(authntest.From(t.Context(), "198.51.100.9"), b.cookie, cookie, uuid.Nil, b.id, "alice", "wrong password", "en")
			if errors.As(err, &locked) {
				break
			}
			wants(t, "a guess in the remembered browser", err, authn.ErrWrongPair)
			tried++
			w.DB.Advance(t, 35*time.Second)
		}
		if tried != 10 {
			t.Errorf("%d guesses in the remembered browser, want 10", tried)
		}
	})

	t.Run("PW-2 a session that asks again", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.DB.Freeze(t)
		w.Subscriber(t, "alice", "+12025550143")
		_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
		blocked(t, w)
		b := &browser{World: w, service: w.Service, cookie: cookie}
		if p := b.begin(t, again); p.Decision.Step != authn.StepPassword || !p.Decision.Again {
			t.Fatalf("asked again: %+v", p.Decision)
		}
		if _, err := b.password(t, "", authntest.Password); err != nil {
			t.Fatalf("the owner's session: %v", err)
		}
		for n := range 11 {
			b.begin(t, again)
			_, err := b.password(t, "", "wrong password")
			if n == 10 {
				if !errors.As(err, &locked) {
					t.Errorf("the eleventh guess in a session: error = %v, want a LockedError", err)
				}
				break
			}
			wants(t, "a guess in a session", err, authn.ErrWrongPair)
			w.DB.Advance(t, 35*time.Second)
		}
		// Another's name in that session is anybody's try.
		if err := w.DB.GetContext(t.Context(), new(int), "SELECT 1 FROM streaks WHERE key = (SELECT uuid_send(id) FROM subscribers) AND failures = 10"); err != nil {
			t.Errorf("the strangers' own count has changed: %v", err)
		}
	})
}
