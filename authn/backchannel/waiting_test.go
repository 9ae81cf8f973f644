package backchannel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/pgtest"
)

// waiting is another process, in which polls wait.
func (w *world) waiting(t testing.TB, change ...func(*backchannel.Waiting)) *backchannel.Waiting {
	t.Helper()
	waiting := &backchannel.Waiting{DB: w.DB.Open(t), Hold: backchannel.MaxHold, Most: backchannel.MostHeld, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(waiting)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- waiting.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	pgtest.Until(t, "something is heard", func() bool { return hears(waiting) })
	return waiting
}

func hears(waiting *backchannel.Waiting) bool {
	watch := waiting.Watch("of nobody")
	defer watch.Leave()
	return watch != nil
}

// waits waits for the answer to a question, and gives whether to look.
func waits(t testing.TB, waiting *backchannel.Waiting, asked *backchannel.Asked) <-chan bool {
	t.Helper()
	watch := waiting.Watch(asked.Secret)
	if !watch.Take() {
		t.Fatal("a poll does not wait")
	}
	look := make(chan bool, 1)
	go func() {
		defer watch.Leave()
		look <- watch.Wait(context.Background(), time.Hour)
	}()
	return look
}

func ended(t testing.TB, look <-chan bool, want bool) {
	t.Helper()
	select {
	case got := <-look:
		if got != want {
			t.Errorf("told to look: %v", got)
		}
	case <-time.After(pgtest.Patience):
		t.Fatal("a poll waits on")
	}
}

// Whatever ends a question wakes who waits for it, in whichever process.
func TestWaitingEnds(t *testing.T) { // CIB-2
	t.Parallel()
	for name, tt := range map[string]struct {
		change []func(*backchannel.Question)
		end    func(t *testing.T, w *world, asked *backchannel.Asked)
	}{
		"approved": {nil, func(t *testing.T, w *world, asked *backchannel.Asked) {
			p, cookie := w.answer(t, asked, "")
			if !w.approve(t, p, cookie) {
				t.Fatal("not approved")
			}
		}},
		"refused": {nil, func(t *testing.T, w *world, asked *backchannel.Asked) {
			if err := w.service.Refuse(t.Context(), asked.ID, &authn.Session{Subscriber: w.alice}); err != nil {
				t.Fatal(err)
			}
		}},
		"suspended": {nil, func(t *testing.T, w *world, _ *backchannel.Asked) {
			payment := w.ask(t, by("bank"), pays)
			if _, err := w.service.Confirm.Report(t.Context(), "bank", payment.Payment.ID, transaction.Outcome{}); err != nil {
				t.Fatal(err)
			}
		}},
		"expired": {nil, func(t *testing.T, w *world, _ *backchannel.Asked) {
			w.DB.Advance(t, backchannel.Life)
			if n, err := w.service.Expire(t.Context()); err != nil || n != 1 {
				t.Fatal(n, err)
			}
		}},
		"expired, found by another poll": {nil, func(t *testing.T, w *world, asked *backchannel.Asked) {
			w.DB.Advance(t, backchannel.Life)
			if got := w.state(t, "till", asked); got != backchannel.Expired {
				t.Fatal(got)
			}
		}},
		"expired, for another question": {nil, func(t *testing.T, w *world, _ *backchannel.Asked) {
			w.DB.Advance(t, backchannel.Life)
			w.ask(t)
		}},
		"to be told": {[]func(*backchannel.Question){func(q *backchannel.Question) {
			q.Notify = &backchannel.Notify{URL: "https://till.example/ping", Token: notifyToken}
		}}, func(t *testing.T, w *world, asked *backchannel.Asked) {
			if err := w.service.Refuse(t.Context(), asked.ID, &authn.Session{Subscriber: w.alice}); err != nil {
				t.Fatal(err)
			}
		}},
		"payment": {[]func(*backchannel.Question){pays}, func(t *testing.T, w *world, asked *backchannel.Asked) {
			if _, err := w.service.Confirm.Approve(t.Context(), "till", asked.Payment.ID, transaction.Answer{Code: w.Code(t, asked.Payment.Challenge.ID)}); err != nil {
				t.Fatal(err)
			}
		}},
		"payment canceled": {[]func(*backchannel.Question){pays}, func(t *testing.T, w *world, asked *backchannel.Asked) {
			if _, err := w.service.Confirm.Cancel(t.Context(), "till", asked.Payment.ID); err != nil {
				t.Fatal(err)
			}
		}},
		"payment expired": {[]func(*backchannel.Question){pays}, func(t *testing.T, w *world, _ *backchannel.Asked) {
			w.DB.Advance(t, backchannel.Life)
			if _, err := w.service.Confirm.Expire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			waiting := w.waiting(t)
			asked, other := w.ask(t, tt.change...), &backchannel.Asked{Secret: "of another person"}
			first, second := waits(t, waiting, asked), waits(t, waiting, other)
			tt.end(t, w, asked)
			ended(t, first, true)
			pgtest.Until(t, "one waits", func() bool { return waiting.Held() == 1 })
			select {
			case <-second:
				t.Error("another question's poll was woken")
			default:
			}
			waiting.Drain()
			ended(t, second, false)
		})
	}
}

// A poll waits for as long as it may, and until its question's time is over.
func TestWaitingEndsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	short := w.waiting(t, func(w *backchannel.Waiting) { w.Hold = 50 * time.Millisecond })
	ended(t, waits(t, short, w.ask(t)), false)
	watch := w.waiting(t).Watch("question")
	defer watch.Leave()
	if !watch.Take() || !watch.Wait(t.Context(), 50*time.Millisecond) {
		t.Error("nobody looks when the time is over")
	}
}

// An answer that comes between looking and waiting is not missed.
func TestWaitingBegins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	waiting := w.waiting(t)
	asked := w.ask(t)
	watch := waiting.Watch(asked.Secret)
	defer watch.Leave()
	after := waits(t, waiting, asked)
	if err := w.service.Refuse(t.Context(), asked.ID, &authn.Session{Subscriber: w.alice}); err != nil {
		t.Fatal(err)
	}
	ended(t, after, true) // the process has heard of it
	if !watch.Take() || !watch.Wait(t.Context(), time.Hour) {
		t.Error("missed")
	}
}

// One poll waits for a question, and so many in a process.
func TestWaitingRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	waiting := w.waiting(t, func(w *backchannel.Waiting) { w.Most = 2 })
	asked := w.ask(t)
	first := waits(t, waiting, asked)
	early := waiting.Watch(asked.Secret) // looks, and does not wait
	early.Leave()
	second := waits(t, waiting, asked)
	ended(t, first, false)
	pgtest.Until(t, "one waits", func() bool { return waiting.Held() == 1 })
	waits(t, waiting, &backchannel.Asked{Secret: "another"})
	third := waiting.Watch("one too many")
	defer third.Leave()
	if third.Take() {
		t.Error("three wait")
	}
	ctx, leave := context.WithCancel(t.Context())
	fourth := waiting.Watch("gone")
	leave()
	if fourth.Wait(ctx, time.Hour) {
		t.Error("told to look, though the application has gone")
	}
	fourth.Leave()
	waiting.Drain()
	ended(t, second, false)
	if waiting.Watch(asked.Secret) != nil {
		t.Error("somebody may wait in a process that stops")
	}
	pgtest.Until(t, "nobody waits", func() bool { return waiting.Held() == 0 })
}

// Whoever hears nothing has nobody wait; what was missed is looked at when there is a connection again.
func TestWaitingHearsNothing(t *testing.T) { // REL-6
	t.Parallel()
	w := newWorld(t)
	other := pgtest.New(t)
	var name string
	if err := w.DB.GetContext(t.Context(), &name, "SELECT current_database()"); err != nil {
		t.Fatal(err)
	}
	silent := &backchannel.Waiting{DB: w.DB.DB, Hold: backchannel.MaxHold, Most: backchannel.MostHeld, Now: time.Now}
	if watch := silent.Watch("before it listens"); watch.Take() {
		t.Error("somebody waits where nothing is heard")
	}
	waiting := w.waiting(t)
	if err := waiting.DB.PingContext(t.Context()); err != nil { // a connection, for when there is no other
		t.Fatal(err)
	}
	asked, open := w.ask(t), w.ask(t)
	look, on := waits(t, waiting, asked), waits(t, waiting, open)
	late := waiting.Watch("a poll that looked before")
	defer late.Leave()
	for _, statement := range []string{
		"ALTER DATABASE %[1]s ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '%[1]s' AND query LIKE 'LISTEN %%'",
	} {
		if _, err := other.ExecContext(t.Context(), fmt.Sprintf(statement, name)); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Until(t, "nothing is heard", func() bool { return !hears(waiting) })
	if late.Take() {
		t.Error("a poll begins to wait where nothing is heard")
	}
	if err := w.service.Refuse(t.Context(), asked.ID, &authn.Session{Subscriber: w.alice}); err != nil && !errors.Is(err, backchannel.ErrOver) {
		t.Fatal(err)
	}
	select {
	case <-on:
		t.Error("somebody stopped waiting")
	default:
	}
	if _, err := other.ExecContext(t.Context(), fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS true", name)); err != nil {
		t.Fatal(err)
	}
	ended(t, look, true)
	pgtest.Until(t, "something is heard", func() bool { return hears(waiting) })
	pgtest.Until(t, "only the one waits whose question is open", func() bool { return waiting.Held() == 1 })
	select {
	case <-on:
		t.Error("somebody stopped waiting whose question is open")
	default:
	}
}
