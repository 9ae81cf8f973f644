package notices_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/sms"
)

// stopping is a vendor that knows of an opt-out: it says so when it is asked to send, or afterwards.
type stopping struct {
	later bool
	legs  []uuid.UUID
}

func (*stopping) Name() string             { return "stopping" }
func (*stopping) Abilities() sms.Abilities { return sms.Abilities{Channels: []sms.Channel{sms.SMS}} }
func (v *stopping) Send(_ context.Context, leg sms.Leg) (sms.Accepted, error) {
	v.legs = append(v.legs, leg.ID)
	if v.later {
		return sms.Accepted{Ref: leg.ID.String()}, nil
	}
	return sms.Accepted{}, &sms.Error{Class: sms.RecipientOptedOut, Vendor: "stopping", Reached: sms.NotSent}
}

func TestRefusedByVendor(t *testing.T) { // SND-7, NOT-1: an opt-out that only the vendor heard of is told like any
	t.Parallel()
	for name, later := range map[string]bool{"at once": false, "in a receipt": true} {
		for what, text := range map[string]func(*testing.T, *world){
			"a code": func(t *testing.T, w *world) {
				t.Helper()
				w.toFactor(t)
			},
			"a notice": func(t *testing.T, w *world) {
				t.Helper()
				if err := w.Service.SetPassword(t.Context(), w.alice, "another long password of hers"); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(what+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.Subscriber(t, "bob", "+12025550199")
				sister := w.Subscriber(t, "carol", "") // the phone is hers as well
				if err := w.Service.Bind(t.Context(), sister, w.phone(t, phone)); err != nil {
					t.Fatal(err)
				}
				w.told(t)
				if _, err := w.DB.ExecContext(t.Context(), "DELETE FROM messages; DELETE FROM mails; DELETE FROM notices"); err != nil {
					t.Fatal(err)
				}
				text(t, w)
				w.told(t)
				before := recipients(w.outboxes(t))
				vendor := &stopping{later: later}
				routing, err := sms.NewRouting(sms.RoutingConfig{Carriers: []sms.Carrier{{Vendor: vendor}}})
				if err != nil {
					t.Fatal(err)
				}
				worker := &sms.Worker{DB: w.DB.DB, Keys: w.Keys, Routing: routing, Log: slog.New(slog.DiscardHandler), OptedOut: w.Service.TextsRefused}
				desk := &sms.Desk{DB: w.DB.DB, Keys: w.Keys, Routing: routing, Log: slog.New(slog.DiscardHandler), OptedOut: w.Service.TextsRefused}
				if _, err := worker.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				for range 2 { // news is told once
					if !later {
						break
					}
					for _, leg := range vendor.legs {
						if err := desk.Told("stopping")(t.Context(), sms.Received{Reports: []sms.Report{{Leg: leg, State: sms.LegUndelivered, Class: sms.RecipientOptedOut, Key: "k"}}}); err != nil {
							t.Fatal(err)
						}
					}
				}
				if len(vendor.legs) != 1 {
					t.Fatalf("%d texts were tried", len(vendor.legs))
				}
				var kinds []string
				if err := w.DB.SelectContext(t.Context(), &kinds, `SELECT n.channel || ' ' || u.username || ' ' || n.hint FROM notices n JOIN subscribers u ON u.id = n.subscriber_id
					WHERE n.kind = 'texts_stopped' ORDER BY 1`); err != nil {
					t.Fatal(err)
				}
				if want := []string{"mail alice 43", "mail carol 43"}; !slices.Equal(kinds, want) {
					t.Errorf("told: %q, want %q; before it %q", kinds, want, before)
				}
			})
		}
	}
}

// toFactor gives the password, so that a code goes out.
func (w *world) toFactor(t *testing.T) {
	t.Helper()
	ctx := authntest.From(t.Context(), "192.0.2.1")
	p, err := w.Service.Begin(ctx, "", authntest.Beginning())
	if err == nil {
		p, err = w.Service.Password(ctx, p.Cookie, uuid.Nil, p.SignIn.ID, "alice", authntest.Password, "en")
	}
	if err != nil || p.Decision.Step != authn.StepFactor {
		t.Fatalf("to the factor: %+v, %v", p, err)
	}
	w.DB.Advance(t, time.Second)
}
