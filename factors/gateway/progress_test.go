package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/sms"
)

// report has the carrier say what became of a leg.
func (w *world) report(t testing.TB, leg sms.Leg, state sms.LegState, class sms.Class) {
	t.Helper()
	must(t, w.desk.Told("carrier")(t.Context(), sms.Received{Reports: []sms.Report{{Leg: leg.ID, State: state, Class: class, Key: fmt.Sprint(leg.ID, state)}}}))
}

// told lists what happened to a verification, in the order of names.
func (w *world) told(t testing.TB, id string) []string {
	t.Helper()
	var all []string
	must(t, w.db.SelectContext(t.Context(), &all, `SELECT split_part(event, '.', 2) || coalesce(' ' || channel, '') || coalesce(' ' || reason, '') FROM told WHERE public_id = $1 ORDER BY 1`, id))
	return all
}

func (w *world) drain(t testing.TB) {
	t.Helper()
	_, err := w.worker.Drain(t.Context())
	must(t, err)
	_, err = w.postman.Drain(t.Context())
	must(t, err)
}

// last is the leg of the newest text.
func (w *world) last(t testing.TB) sms.Leg {
	t.Helper()
	legs := w.carrier.sent()
	if len(legs) == 0 {
		t.Fatal("nothing was sent")
	}
	return legs[len(legs)-1]
}

func (w *world) tidy(t testing.TB) {
	t.Helper()
	must(t, w.gateway.Tidy(t.Context()))
}

// What becomes of texts is told in the statement that settles it, once for each piece of news, however often vendors say it.
func TestTextsAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.listen(t)
	is := func(t *testing.T, id string, want ...string) {
		t.Helper()
		if got := w.told(t, id); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	t.Run("F-47 delivered, said twenty times at once", func(t *testing.T) {
		id := w.create(t, w.live, number(1), `,"client_ref":"r1"`)
		w.drain(t)
		is(t, id, "sent sms")
		leg := w.last(t)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if err := w.desk.Told("carrier")(t.Context(), sms.Received{Reports: []sms.Report{{Leg: leg.ID, State: sms.LegDelivered, Key: fmt.Sprint("n", i%3)}}}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		is(t, id, "delivered sms", "sent sms")
		if n := w.count(t, "SELECT count(*) FROM told WHERE public_id = $1 AND tenant = 'shop' AND client_ref = 'r1' AND hint = '01'", id); n != 2 {
			t.Errorf("%d of 2 events are whole", n)
		}
	})
	t.Run("not delivered, and then after all", func(t *testing.T) { // F-48
		id := w.create(t, w.live, number(2), `,"channels":[{"type":"sms"}]`)
		w.drain(t)
		leg := w.last(t)
		w.report(t, leg, sms.LegUndelivered, sms.RecipientUnreachable)
		w.drain(t)
		is(t, id, "sent sms", "undelivered sms recipient_unreachable")
		w.report(t, leg, sms.LegDelivered, "")
		is(t, id, "delivered sms", "sent sms", "undelivered sms recipient_unreachable")
	})
	t.Run("by another way is no bad news", func(t *testing.T) {
		id := w.create(t, w.live, number(3), `,"channels":[{"type":"sms"},{"type":"voice"}]`)
		w.drain(t)
		w.report(t, w.last(t), sms.LegUndelivered, sms.RecipientUnreachable)
		w.drain(t)
		w.report(t, w.last(t), sms.LegDelivered, "")
		is(t, id, "delivered voice", "sent sms")
	})
	t.Run("nobody takes it", func(t *testing.T) {
		id := w.create(t, w.live, number(4))
		w.carrier.fail(&sms.Error{Class: sms.InvalidRecipient, Reached: sms.NotSent})
		w.drain(t)
		w.carrier.fail(nil)
		is(t, id, "undelivered sms invalid_recipient")
	})
	t.Run("too late to be sent", func(t *testing.T) {
		id := w.create(t, w.live, number(5))
		w.db.Advance(t, 11*time.Minute)
		must(t, w.worker.Sweep(t.Context()))
		is(t, id, "undelivered expired")
	})
	t.Run("not of texts that others send", func(t *testing.T) {
		before := w.count(t, "SELECT count(*) FROM told")
		if _, err := w.db.ExecContext(t.Context(), `UPDATE messages SET purpose = 'login', state = 'sent' WHERE challenge_id = $1`, challenge(t, w.create(t, w.live, number(6)))); err != nil {
			t.Fatal(err)
		}
		w.drain(t)
		if n := w.count(t, "SELECT count(*) FROM told"); n != before {
			t.Errorf("%d events", n-before)
		}
	})
}

// That the time of a verification has passed is told once, by whoever notices, and changes nothing else.
func TestExpiryIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.listen(t)
	left, approved, longer := w.create(t, w.live, number(1)), w.create(t, w.live, number(2)), w.create(t, w.live, number(3))
	test := w.create(t, w.test, number(4))
	w.check(t, w.live, approved, w.code(t, approved)).want(t, 200, "")
	w.db.Advance(t, 9*time.Minute)
	w.ask(t, "POST", "/v1/verifications/"+longer+"/resend", w.live, `{}`).want(t, 200, "")
	w.db.Advance(t, 2*time.Minute)
	before := w.ask(t, "GET", "/v1/verifications/"+left, w.live, "").want(t, 200, "")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if err := []*gateway.Gateway{w.gateway, w.replica}[i%2].Tidy(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for id, want := range map[string][]string{left: {"expired"}, approved: {"approved"}, longer: nil, test: nil} {
		if got := w.told(t, id); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	after := w.ask(t, "GET", "/v1/verifications/"+left, w.live, "").want(t, 200, "")
	if before.text != after.text || after.body["status"] != "expired" {
		t.Errorf("noticing changed it:\n%s\n%s", before.text, after.text)
	}
	w.check(t, w.live, left, w.code(t, left)).want(t, 410, "otp_expired")
	w.check(t, w.live, longer, w.code(t, longer)).want(t, 200, "")
}

// A text that does not arrive in its channel's time is followed by the next channel: once, from however many processes, with the same code, and as one more send.
func TestChannelTimeout(t *testing.T) {
	t.Parallel()
	const ways = `,"channels":[{"type":"sms","timeout":"60s"},{"type":"voice"}]`
	channels := func(w *world) (all []string) {
		for _, leg := range w.carrier.sent() {
			all = append(all, string(leg.Channel))
		}
		return all
	}
	both := func(t *testing.T, w *world) {
		t.Helper()
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				if err := []*gateway.Gateway{w.gateway, w.replica}[i%2].Tidy(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		w.drain(t)
	}
	is := func(t *testing.T, w *world, want ...string) {
		t.Helper()
		if got := channels(w); !slices.Equal(got, want) {
			t.Fatalf("sent by %q, want %q", got, want)
		}
	}
	t.Run("in time, once, with the same code", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id := w.create(t, w.live, number(1), ways)
		w.drain(t)
		w.db.Advance(t, 59*time.Second)
		both(t, w)
		is(t, w, "sms")
		w.db.Advance(t, 2*time.Second)
		both(t, w)
		is(t, w, "sms", "voice")
		w.db.Advance(t, 5*time.Minute)
		both(t, w)
		is(t, w, "sms", "voice")
		legs := w.carrier.sent()
		if legs[0].Code != legs[1].Code {
			t.Error("another code")
		}
		read := w.ask(t, "GET", "/v1/verifications/"+id, w.live, "").want(t, 200, "")
		deliveries := read.body["deliveries"].([]any)
		if len(deliveries) != 2 || deliveries[1].(map[string]any)["channel"] != "voice" {
			t.Errorf("%s", read.text)
		}
		if n := w.count(t, "SELECT sends FROM challenges WHERE id = $1", challenge(t, id)); n != 2 {
			t.Errorf("counted as %d sends", n)
		}
		w.check(t, w.live, id, legs[0].Code).want(t, 200, "")
	})
	t.Run("not after it arrived, or was used, or canceled", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.create(t, w.live, number(1), ways)
		w.drain(t)
		w.report(t, w.last(t), sms.LegDelivered, "")
		used, canceled := w.create(t, w.live, number(2), ways), w.create(t, w.live, number(3), ways)
		w.drain(t)
		w.check(t, w.live, used, w.code(t, used)).want(t, 200, "")
		w.ask(t, "POST", "/v1/verifications/"+canceled+"/cancel", w.live, "").want(t, 200, "")
		w.db.Advance(t, 61*time.Second)
		both(t, w)
		is(t, w, "sms", "sms", "sms")
		if n := w.count(t, "SELECT count(*) FROM verifications WHERE next_at IS NOT NULL"); n != 0 {
			t.Errorf("%d are still looked at", n)
		}
	})
	t.Run("not where a failure has led already", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.create(t, w.live, number(1), ways)
		w.drain(t)
		w.report(t, w.last(t), sms.LegUndelivered, sms.RecipientUnreachable)
		w.drain(t)
		is(t, w, "sms", "voice")
		w.db.Advance(t, 61*time.Second)
		both(t, w)
		w.db.Advance(t, 61*time.Second)
		both(t, w)
		is(t, w, "sms", "voice")
	})
	t.Run("not after a refusal that must not be walked around", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for i, class := range []sms.Class{sms.InvalidRecipient, sms.RecipientOptedOut, sms.BlockedFraud} {
			w.create(t, w.live, number(i), ways)
			w.drain(t)
			w.report(t, w.last(t), sms.LegUndelivered, class)
		}
		w.drain(t)
		w.db.Advance(t, 61*time.Second)
		both(t, w)
		is(t, w, "sms", "sms", "sms")
	})
	t.Run("not of a tenant that is kept out", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.create(t, w.live, number(1), ways)
		w.drain(t)
		must(t, w.gateway.Tenants.SetDisabled(t.Context(), "shop", true))
		w.db.Advance(t, 61*time.Second)
		both(t, w)
		is(t, w, "sms")
	})
	t.Run("SN-19 within the limits of sends", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for range 4 {
			w.create(t, w.live, number(1))
			w.drain(t)
			w.db.Advance(t, 31*time.Second)
		}
		w.create(t, w.live, number(1), ways)
		w.drain(t)
		w.db.Advance(t, 61*time.Second)
		both(t, w)
		is(t, w, "sms", "sms", "sms", "sms", "sms")
		if n := w.count(t, "SELECT count(*) FROM verifications WHERE next_at IS NOT NULL"); n != 0 {
			t.Errorf("%d wait for room that comes too late", n)
		}
	})
	t.Run("not when it has had all its sends", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.create(t, w.live, number(1), ways)
		w.drain(t)
		if _, err := w.db.ExecContext(t.Context(), "UPDATE challenges SET sends = 5, next_send_at = wall()"); err != nil {
			t.Fatal(err)
		}
		w.db.Advance(t, 61*time.Second)
		both(t, w)
		is(t, w, "sms")
		if n := w.count(t, "SELECT count(*) FROM verifications WHERE next_at IS NOT NULL"); n != 0 {
			t.Errorf("%d wait for a send that there is none of any more", n)
		}
	})
	t.Run("after the pause of a resend", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id := w.create(t, w.live, number(1), ways)
		w.drain(t)
		w.db.Advance(t, 50*time.Second)
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, `{"channel":"sms"}`).want(t, 200, "")
		w.drain(t)
		w.db.Advance(t, 15*time.Second) // the newest text has 45 seconds left
		both(t, w)
		is(t, w, "sms", "sms")
		w.db.Advance(t, 46*time.Second)
		both(t, w)
		is(t, w, "sms", "sms", "voice")
	})
	t.Run("F-03 whoever has the turn dies", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.create(t, w.live, number(1), ways)
		w.drain(t)
		w.db.Advance(t, 61*time.Second)
		dying, die := context.WithCancel(t.Context())
		w.gateway.Ways = dies{w.routing, die} // after it has taken the turn, and before it does anything
		if err := w.gateway.Tidy(dying); err == nil {
			t.Fatal("it did not die")
		}
		must(t, w.replica.Tidy(t.Context()))
		w.drain(t)
		is(t, w, "sms")
		w.db.Advance(t, 11*time.Second)
		must(t, w.replica.Tidy(t.Context()))
		must(t, w.replica.Tidy(t.Context()))
		w.drain(t)
		is(t, w, "sms", "voice")
	})
	t.Run("bad requests", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for _, bad := range []string{`"1s"`, `"11m"`, `"60"`, `"-60s"`, `"1h"`, `"60.5s"`, `"٦٠s"`, `" 60s"`, `60`, `["60s"]`, `"s"`, `"999999999999s"`} {
			a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"`+number(1)+`","channels":[{"type":"sms","timeout":`+bad+`},{"type":"voice"}]}`).want(t, 400, gateway.InvalidRequest)
			if !strings.Contains(a.text, `"/channels/0/timeout"`) {
				t.Errorf("%s: %s", bad, a.text)
			}
		}
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"`+number(1)+`","channels":[{"type":"sms"},{"type":"sms"}]}`).want(t, 400, gateway.InvalidRequest)
		if len(w.carrier.sent()) > 0 || w.count(t, "SELECT count(*) FROM messages") > 0 {
			t.Error("something was sent")
		}
	})
	t.Run("in test mode", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id := w.create(t, w.test, "+12025550103", ways)
		w.db.Advance(t, 61*time.Second)
		both(t, w)
		read := w.ask(t, "GET", "/v1/verifications/"+id, w.test, "").want(t, 200, "")
		if n := len(read.body["deliveries"].([]any)); n != 2 {
			t.Errorf("%d deliveries: %s", n, read.text)
		}
		is(t, w)
	})
}

// dies ends a context when it is asked for ways.
type dies struct {
	gateway.Router
	die func()
}

func (d dies) Plan(to sms.Number, purpose string) ([]sms.Route, string, []sms.Considered) {
	d.die()
	return d.Router.Plan(to, purpose)
}

func (m *mailer) sent() []mail.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mails)
}

// What is for good stays as it was: a verification whose time is over is expired whatever is done to it afterwards, and a text that arrived did so when it did.
func TestForGood(t *testing.T) {
	t.Parallel()
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		for name, key := range map[string]func(*world) string{"live": func(w *world) string { return w.live }, "test": func(w *world) string { return w.test }} {
			for action, do := range map[string]func(t *testing.T, w *world, id, key, to string){
				"canceled": func(t *testing.T, w *world, id, key, _ string) {
					w.ask(t, "POST", "/v1/verifications/"+id+"/cancel", key, "").want(t, 410, "otp_expired")
				},
				"another is made": func(t *testing.T, w *world, _, key, to string) { w.create(t, key, to) },
				"noticed":         func(t *testing.T, w *world, _, _, _ string) { w.tidy(t) },
			} {
				t.Run(name+" "+action, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					to := map[string]string{"live": "+12025560001", "test": "+12025550100"}[name]
					id := w.create(t, key(w), to)
					w.db.Advance(t, 11*time.Minute)
					do(t, w, id, key(w), to)
					w.db.Advance(t, time.Minute)
					if a := w.ask(t, "GET", "/v1/verifications/"+id, key(w), "").want(t, 200, ""); a.body["status"] != "expired" || a.body["ended_at"] != a.body["expires_at"] {
						t.Errorf("%s", a.text)
					}
				})
			}
		}
	})
	t.Run("delivered", func(t *testing.T) {
		t.Parallel()
		for action, do := range map[string]func(t *testing.T, w *world, id string){
			"checked": func(t *testing.T, w *world, id string) { w.check(t, w.live, id, w.code(t, id)).want(t, 200, "") },
			"canceled": func(t *testing.T, w *world, id string) {
				w.ask(t, "POST", "/v1/verifications/"+id+"/cancel", w.live, "").want(t, 200, "")
			},
			"another is made": func(t *testing.T, w *world, _ string) { w.create(t, w.live, number(1)) },
			"expired": func(t *testing.T, w *world, _ string) {
				w.db.Advance(t, 11*time.Minute)
				w.tidy(t)
				must(t, w.worker.Sweep(t.Context()))
			},
		} {
			t.Run(action, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				id := w.create(t, w.live, number(1))
				w.drain(t)
				w.report(t, w.last(t), sms.LegDelivered, "")
				at := func() string {
					a := w.ask(t, "GET", "/v1/verifications/"+id, w.live, "").want(t, 200, "")
					var v gateway.Verification
					if err := json.Unmarshal([]byte(a.text), &v); err != nil || len(v.Deliveries) != 1 || v.Deliveries[0].Status != gateway.DeliveryDelivered {
						t.Fatalf("%v %s", err, a.text)
					}
					return v.Deliveries[0].UpdatedAt.String()
				}
				before := at()
				w.db.Advance(t, 31*time.Second)
				do(t, w, id)
				if after := at(); after != before {
					t.Errorf("delivered %s, and now %s", before, after)
				}
			})
		}
	})
}
