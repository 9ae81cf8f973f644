package sms

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
)

// stub has abilities and nothing else.
type stub struct {
	name string
	key  Idempotency
}

func (s stub) Name() string                              { return s.name }
func (s stub) Abilities() Abilities                      { return Abilities{Idempotency: s.key} }
func (stub) Send(context.Context, Leg) (Accepted, error) { return Accepted{}, nil }

type continuing struct{ stub }

func (continuing) Continue(context.Context, Session, Leg) (Accepted, error) { return Accepted{}, nil }

func TestNext(t *testing.T) {
	t.Parallel()
	vendors := map[string]Vendor{"keyed": stub{"keyed", Replay}, "plain": stub{"plain", NoKey}, "other": stub{"other", NoKey}, "session": continuing{stub{"session", NoKey}}}
	plan := []Route{{Vendor: "keyed", Channel: SMS}, {Vendor: "plain", Channel: SMS}, {Vendor: "other", Channel: WhatsApp}}
	verifier := []Route{{Vendor: "session", Channel: SMS}, {Vendor: "plain", Channel: SMS}, {Vendor: "session", Channel: Voice}}
	leg := func(vendor string, state LegState, class Class, age float64) tried {
		return tried{Leg: uuid.New(), Vendor: vendor, Channel: SMS, State: state, Class: class, Age: age, Calls: 1}
	}
	repeated := leg("keyed", LegCalling, Ambiguous, 1)
	repeated.Calls = 2
	unreached := leg("keyed", LegCalling, Temporary, 6)
	unreached.Calls = 2
	own := leg("keyed", LegFailed, RateLimited, 0)
	own.PerNumber = true
	limited := leg("plain", LegFailed, RateLimited, 0)
	limited.RetryAfter = 30
	opened := leg("session", LegAccepted, "", 60)
	opened.Session = "s-1"
	recent := opened
	recent.Age = 5
	arrived := opened
	arrived.State = LegDelivered

	call := func(vendor string, channel Channel) string { return "call " + vendor + " " + string(channel) }
	for _, tt := range []struct {
		name    string
		plan    []Route
		own     []tried
		earlier []tried
		down    string
		want    string
	}{
		{name: "the first way", want: call("keyed", SMS)},
		{name: "the first way that works", down: "keyed", want: call("plain", SMS)},
		{name: "nothing works", plan: plan[:1], down: "keyed", want: "wait 1s"},
		{name: "no way", plan: []Route{}, want: "end failed misconfigured"},

		{name: "F-42 temporary: another vendor at once", own: []tried{leg("keyed", LegFailed, Temporary, 0)}, want: call("plain", SMS)},
		{name: "temporary and nobody else: a pause", plan: plan[:1], own: []tried{leg("keyed", LegFailed, Temporary, 0)}, want: "wait 500ms"},
		{name: "temporary and nobody else: again", plan: plan[:1], own: []tried{leg("keyed", LegFailed, Temporary, 1)}, want: call("keyed", SMS)},
		{name: "temporary four times: an end", plan: plan[:1], own: []tried{leg("keyed", LegFailed, Temporary, 9), leg("keyed", LegFailed, Temporary, 9),
			leg("keyed", LegFailed, Temporary, 9), leg("keyed", LegFailed, Temporary, 9)}, want: "end failed temporary"},
		{name: "both of a channel failed: the next channel", own: []tried{leg("keyed", LegFailed, Temporary, 0), leg("plain", LegFailed, Unauthorized, 0)}, want: call("other", WhatsApp)},
		{name: "rate limited: another vendor", own: []tried{leg("keyed", LegFailed, RateLimited, 0)}, want: call("plain", SMS)},
		{name: "rate limited, nobody else of the channel: as long as it says", plan: plan[1:], own: []tried{limited}, want: "wait 30s"},
		{name: "rate limited for this number: nobody else", plan: plan[:2], own: []tried{own}, want: "wait 1s"},
		{name: "a way is left but down: it is waited for", own: []tried{leg("keyed", LegFailed, Unauthorized, 0)}, plan: plan[:2], down: "plain", want: "wait 1s"},

		{name: "fraud: never another way", own: []tried{leg("keyed", LegFailed, BlockedFraud, 0)}, want: "end failed blocked_fraud"},
		{name: "opted out: never another way", own: []tried{leg("keyed", LegFailed, RecipientOptedOut, 0)}, want: "end failed recipient_opted_out"},
		{name: "opted out, by report", own: []tried{leg("keyed", LegUndelivered, RecipientOptedOut, 0)}, want: "end undelivered recipient_opted_out"},
		{name: "region: not by default", own: []tried{leg("keyed", LegFailed, RegionBlocked, 0)}, want: "end failed region_blocked"},
		{name: "wrong number", own: []tried{leg("keyed", LegFailed, InvalidRecipient, 0)}, want: "end failed invalid_recipient"},

		{name: "bad news by report: another vendor", own: []tried{leg("keyed", LegUndelivered, RecipientUnreachable, 0)}, want: call("plain", SMS)},
		{name: "bad news twice: the next channel", own: []tried{leg("keyed", LegUndelivered, RecipientUnreachable, 0), leg("plain", LegExpired, RecipientUnreachable, 0)}, want: call("other", WhatsApp)},
		{name: "bad news and nobody else", plan: plan[:1], own: []tried{leg("keyed", LegUndelivered, RecipientUnreachable, 0)}, want: "end undelivered recipient_unreachable"},

		{name: "F-41 unknown, keyed: a pause first", own: []tried{leg("keyed", LegCalling, Ambiguous, 0)}, want: "wait 1s"},
		{name: "F-41 unknown, keyed: once more with the same key", own: []tried{leg("keyed", LegCalling, Ambiguous, 1)}, want: "repeat keyed sms"},
		{name: "F-41 unknown twice: an end", own: []tried{repeated}, want: "end failed ambiguous"},
		{name: "unknown, and the repeat did not arrive: another vendor", own: []tried{unreached}, want: call("plain", SMS)},
		{name: "SN-14 unknown, no key: a receipt may tell", plan: plan[1:], own: []tried{leg("plain", LegCalling, Ambiguous, 2)}, want: "wait 3s"},
		{name: "SN-14 unknown, no key, no receipt: another vendor", plan: []Route{plan[1], {Vendor: "other", Channel: SMS}}, own: []tried{leg("plain", LegCalling, Ambiguous, 6)}, want: call("other", SMS)},
		{name: "unknown, no key, nobody else: an end", plan: plan[1:2], own: []tried{leg("plain", LegCalling, Ambiguous, 6)}, want: "end failed ambiguous"},

		{name: "resend after it arrived: the same way", earlier: []tried{leg("plain", LegDelivered, "", 90)}, want: call("plain", SMS)},
		{name: "resend soon: the same way", earlier: []tried{leg("plain", LegAccepted, "", 5)}, want: call("plain", SMS)},
		{name: "resend of what did not arrive: another way", earlier: []tried{leg("keyed", LegAccepted, "", 30)}, want: call("plain", SMS)},
		{name: "resend within a session: the next channel of the same vendor first", plan: verifier, earlier: []tried{opened}, want: "continue session voice"},
		{name: "resend within a session, soon: the same channel", plan: verifier, earlier: []tried{recent}, want: "continue session sms"},
		{name: "resend within a session that arrived: the same channel", plan: verifier, earlier: []tried{arrived}, want: "continue session sms"},
		{name: "resend when its vendor is down: another", plan: verifier, earlier: []tried{opened}, down: "session", want: call("plain", SMS)},
		{name: "resend after everything failed: from the beginning", earlier: []tried{leg("keyed", LegFailed, Temporary, 30)}, want: call("keyed", SMS)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ways := tt.plan
			if ways == nil {
				ways = plan
			}
			s := next(ways, tt.own, tt.earlier, func(name string) Vendor { return vendors[name] }, map[string]bool{tt.down: true})
			got := "wait " + s.wait.Round(100*time.Millisecond).String()
			switch {
			case s.call && s.leg != uuid.Nil:
				got = "repeat " + s.route.Vendor + " " + string(s.route.Channel)
			case s.call && s.session != "":
				got = "continue " + s.route.Vendor + " " + string(s.route.Channel)
			case s.call:
				got = "call " + s.route.Vendor + " " + string(s.route.Channel)
			case s.state != "":
				got = "end " + s.state + " " + string(s.reason)
			}
			if got != tt.want {
				t.Errorf("next = %s, want %s", got, tt.want)
			}
		})
	}
}
