package smsotp_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/factortest"
	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/twilio"
)

// verified is a world whose texts are made, sent and checked by a vendor.
type verified struct {
	factortest.Fixture
	sim    *carriersim.Simulator
	worker *sms.Worker
	lose   atomic.Bool // what the vendor says of answers
}

func newVerified(t *testing.T) *verified {
	t.Helper()
	f, keys := newWorld(t)
	v := &verified{Fixture: f, sim: carriersim.New(carriersim.Options{Now: func() time.Time { return f.DB.Now(t) }})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v.lose.Load() && strings.HasSuffix(r.URL.Path, "/VerificationCheck") {
			v.sim.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		v.sim.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	a := v.sim.Account("twilio-verify")
	vendor, err := twilio.NewVerify("verify", twilio.Config{BaseURL: server.URL + "/twilio-verify", Account: a.ID, Secret: a.Secret, Service: "VA1"})
	if err != nil {
		t.Fatal(err)
	}
	routing, err := sms.NewRouting(sms.RoutingConfig{Carriers: []sms.Carrier{{Vendor: vendor}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*factors.Ledger{v.Ledger, v.Replica} {
		l.Checks = &sms.Checks{DB: l.DB, Keys: keys, Routing: routing}
	}
	v.worker = &sms.Worker{DB: f.DB.DB, Keys: keys, Routing: routing, Log: slog.New(slog.DiscardHandler)}
	return v
}

func (v *verified) open(t *testing.T) (id uuid.UUID, b factors.Binding, code string) {
	t.Helper()
	return v.openFor(t, factors.Login)
}

func (v *verified) openFor(t *testing.T, purpose factors.Purpose) (id uuid.UUID, b factors.Binding, code string) {
	t.Helper()
	b = factors.Binding{Purpose: purpose, Subject: v.Authenticator.Subject, Browser: uuid.New(), Context: []byte("sign-in")}
	id = open(t, v.Fixture, b)
	if _, err := v.worker.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	texts := v.sim.Messages("+12025550143")
	if len(texts) == 0 {
		t.Fatal("nothing arrived")
	}
	return id, b, texts[0].Text[strings.LastIndex(texts[0].Text, " ")+1:]
}

func (v *verified) attempts(t *testing.T, id uuid.UUID) (n int) {
	t.Helper()
	if err := v.DB.GetContext(t.Context(), &n, `SELECT attempts FROM challenges WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	return n
}

func (v *verified) failures(t *testing.T) (n int) {
	t.Helper()
	if err := v.DB.GetContext(t.Context(), &n, `SELECT coalesce(sum(failures), 0) FROM streaks WHERE scope = 'factor'`); err != nil {
		t.Fatal(err)
	}
	return n
}

// answers is what the audit trail has about answers.
func (v *verified) answers(t *testing.T, id uuid.UUID) (all []string) {
	t.Helper()
	if err := v.DB.SelectContext(t.Context(), &all, `SELECT outcome || ' ' || reason FROM audit_events WHERE event = 'challenge.answer' AND object = $1 ORDER BY id`, id.String()); err != nil {
		t.Fatal(err)
	}
	return all
}

// The laws of the ledger hold where a vendor made the code and alone can check it.
func TestCodeOfAVendor(t *testing.T) {
	t.Parallel()

	t.Run("once", func(t *testing.T) {
		t.Parallel()
		v := newVerified(t)
		id, b, code := v.open(t)
		if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, "000000", nil); !errors.Is(err, factors.ErrMismatch) || v.attempts(t, id) != 1 {
			t.Fatalf("a wrong code: %v, %d attempts", err, v.attempts(t, id))
		}
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 20 {
			ledger := []*factors.Ledger{v.Ledger, v.Replica}[i%2]
			wg.Go(func() {
				if _, err := ledger.Answer(t.Context(), id, v.Authenticator, b, code, nil); err == nil {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of 20 parallel right answers passed", won.Load())
		}
		if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, code, nil); !errors.Is(err, factors.ErrOver) {
			t.Fatalf("again: %v", err)
		}
	})

	t.Run("OT-1 five wrong", func(t *testing.T) {
		t.Parallel()
		v := newVerified(t)
		id, b, code := v.open(t)
		for n := range 5 {
			if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, "000000", nil); !errors.Is(err, factors.ErrMismatch) {
				t.Fatalf("wrong code %d: %v", n+1, err)
			}
		}
		if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, code, nil); !errors.Is(err, factors.ErrOver) {
			t.Fatalf("the right code after five wrong ones: %v", err)
		}
		var outcome string
		if err := v.DB.GetContext(t.Context(), &outcome, `SELECT coalesce(outcome, '') FROM challenges WHERE id = $1`, id); err != nil || outcome != "failed" {
			t.Fatalf("outcome %q, %v", outcome, err)
		}
	})

	t.Run("right at the last attempt", func(t *testing.T) {
		t.Parallel()
		v := newVerified(t)
		id, b, code := v.open(t)
		for range 4 {
			if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, "000000", nil); !errors.Is(err, factors.ErrMismatch) {
				t.Fatal(err)
			}
		}
		if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, code, nil); err != nil {
			t.Fatalf("the right code at the fifth attempt: %v", err)
		}
	})

	t.Run("the vendor does not answer", func(t *testing.T) {
		t.Parallel()
		v := newVerified(t)
		id, b, code := v.open(t)
		v.sim.SetFaults(carriersim.Faults{Outage: true})
		for _, want := range []int{0, 1, 2} { // the first is given back, and no more
			_, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, code, nil)
			if err == nil || errors.Is(err, factors.ErrMismatch) || errors.Is(err, factors.ErrOver) {
				t.Fatalf("without the vendor: %v", err)
			}
			if n := v.attempts(t, id); n != want {
				t.Fatalf("%d attempts, want %d", n, want)
			}
		}
		v.sim.SetFaults(carriersim.Faults{})
		if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, code, nil); err != nil {
			t.Fatalf("with the vendor again: %v", err)
		}
	})

	t.Run("LIM-3 nobody looked, nobody failed", func(t *testing.T) {
		t.Parallel()
		v := newVerified(t)
		id, b, code := v.open(t)
		v.sim.SetFaults(carriersim.Faults{Outage: true})
		for range 3 {
			if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, code, nil); err == nil {
				t.Fatal("without the vendor an answer passed")
			}
		}
		if n := v.failures(t); n != 0 {
			t.Errorf("%d failures in a row after an outage", n)
		}
		if got := v.answers(t, id); !slices.Equal(got, []string{"failed not_checked", "failed not_checked", "failed not_checked"}) {
			t.Errorf("recorded %q", got)
		}
	})

	t.Run("LIM-3 a lost verdict stays paid", func(t *testing.T) {
		t.Parallel()
		v := newVerified(t)
		id, b, _ := v.open(t)
		v.lose.Store(true)
		for n := range 5 {
			if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, "000000", nil); err == nil || errors.Is(err, factors.ErrMismatch) {
				t.Fatalf("attempt %d: %v", n+1, err)
			}
		}
		if n := v.failures(t); n != 5 || v.attempts(t, id) != 5 {
			t.Errorf("%d failures, %d attempts of five whose verdict was lost", n, v.attempts(t, id))
		}
		if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, "000000", nil); !errors.Is(err, factors.ErrOver) {
			t.Errorf("after five: %v", err)
		}
	})

	t.Run("THR-4 only a whole sign-in ends failures in a row", func(t *testing.T) {
		t.Parallel()
		for purpose, want := range map[factors.Purpose]int{factors.Enrol: 3, factors.Login: 0} {
			v := newVerified(t)
			for range 3 {
				id, b, _ := v.openFor(t, factors.Login)
				if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, "000000", nil); !errors.Is(err, factors.ErrMismatch) {
					t.Fatal(err)
				}
				v.DB.Advance(t, 2*time.Minute)
			}
			id, b, code := v.openFor(t, purpose)
			if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, b, code, nil); err != nil {
				t.Fatal(err)
			}
			if n := v.failures(t); n != want {
				t.Errorf("%d failures after a right answer for %s, want %d", n, purpose, want)
			}
			if got := v.answers(t, id); !slices.Equal(got, []string{"success "}) {
				t.Errorf("recorded %q of a right answer", got)
			}
		}
	})

	t.Run("our own code was never sent", func(t *testing.T) {
		t.Parallel()
		v := newVerified(t)
		id, b, code := v.open(t)
		other := b
		other.Context = []byte("another sign-in")
		if _, err := v.Ledger.Answer(t.Context(), id, v.Authenticator, other, code, nil); !errors.Is(err, factors.ErrOver) {
			t.Fatalf("under another binding: %v", err)
		}
	})
}
