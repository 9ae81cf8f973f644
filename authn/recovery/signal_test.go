package recovery_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/sms"
)

// network is one that says what it is told to.
type network struct {
	hold bool
	err  error
}

// Hold implements authn.Signal.
func (n *network) Hold(context.Context, sms.Number) (bool, error) { return n.hold, n.err }

func TestSIMChange(t *testing.T) { // OTP-13: what the network knows keeps texts back, and strangers learn nothing of it
	t.Parallel()
	down := errors.New("out of order")
	for name, tt := range map[string]struct {
		network network
		texts   int
		reason  string // in the audit
	}{
		"unchanged":      {texts: 1},
		"changed":        {network: network{hold: true}, reason: "changed"},
		"unknown, held":  {network: network{hold: true, err: down}, reason: "unknown_held"},
		"unknown, texts": {network: network{err: down}, texts: 1, reason: "unknown_sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.DB.Advance(t, 48*time.Hour)
			w.Service.Signal = &tt.network
			cookie := w.begin(t, recovery.Access, "alice", recovery.Text)
			if n := w.count(t, "SELECT count(*) FROM messages"); n != tt.texts {
				t.Errorf("%d texts, want %d", n, tt.texts)
			}
			if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'sim.check' AND reason = $1", tt.reason); (n > 0) != (tt.reason != "") {
				t.Errorf("%d records that say %q", n, tt.reason)
			}
			if _, err := w.engine.Answer(t.Context(), cookie, "000000"); !errors.Is(err, recovery.ErrWrong) {
				t.Errorf("an answer: %v, want the same as ever", err)
			}
		})
	}
	t.Run("the second proof", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.DB.Advance(t, 48*time.Hour)
		cookie := w.begin(t, recovery.Access, "alice", recovery.Mail)
		if cookie == "" {
			t.Fatal("no cookie")
		}
		g := w.follow(t)
		w.Service.Signal = &network{hold: true}
		phone := uuid.Nil
		for _, way := range w.engine.Ways(g.Recovery) {
			if way.Sent && way.ID != uuid.Nil {
				phone = way.ID
			}
		}
		wants(t, "held back", w.engine.Ask(t.Context(), g.Cookie, phone, "en"), recovery.ErrNoWay)
		w.Service.Signal = nil
		wants(t, "afterwards", w.engine.Ask(t.Context(), g.Cookie, phone, "en"), nil)
	})
}
