package sms

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

// Bounds of what is tried for one message.
const (
	// maxLegs of one message, over all vendors.
	maxLegs = 6
	// maxRetries at the same vendor of failures after which nothing can have been sent; the pauses are 0.5, 1 and 2 s.
	maxRetries = 3
	// repeatAfter is the pause before an unknown outcome is tried once more with the same key.
	repeatAfter = time.Second
	// grace is how long a report may take to tell how a call ended whose answer was lost, before another vendor is asked.
	grace = 5 * time.Second
	// resendWait is how old an undelivered text has to be for a resend to take another way.
	resendWait = 20 * time.Second
	// outlast is how long a vendor that was asked and did not answer may be down before another is asked instead.
	outlast = 20 * time.Second
	// downWait is the pause before vendors that do not work are looked at again.
	downWait = time.Second
)

// tried is a leg of the past.
type tried struct {
	Leg        uuid.UUID `json:"id"`
	Vendor     string    `json:"vendor"`
	Channel    Channel   `json:"channel"`
	Sender     string    `json:"sender"`
	State      LegState  `json:"state"`
	Class      Class     `json:"class"`
	Age        float64   `json:"age"` // seconds since its last news
	RetryAfter float64   `json:"retry_after"`
	PerNumber  bool      `json:"per_number"`
	Calls      int       `json:"calls"`
	Session    string    `json:"session"`
}

func (t *tried) age() time.Duration { return time.Duration(t.Age * float64(time.Second)) }

// good says that nothing bad is known of it.
func (t *tried) good() bool {
	return t.State == LegAccepted || t.State == LegSent || t.State == LegDelivered
}

// step is what comes next for a message: exactly one of call, wait and end.
type step struct {
	call    bool
	route   Route
	leg     uuid.UUID // the leg that is called once more; uuid.Nil: a new one
	session string    // of the vendor, to go on with; "": a new one
	opened  uuid.UUID // the leg that opened it

	wait time.Duration

	state  string // the message's, at the end
	reason Class
}

func end(state string, reason Class) step { return step{state: state, reason: reason} }
func pause(d time.Duration) step          { return step{wait: max(d, time.Millisecond)} }
func call(r Route) step                   { return step{call: true, route: r} }
func (t *tried) is(r Route) bool          { return t.Vendor == r.Vendor && t.Channel == r.Channel }
func tries(legs []tried, r Route) (n int) {
	for i := range legs {
		if legs[i].is(r) {
			n++
		}
	}
	return n
}

// next decides what comes next for a message: by what was tried for it, what was tried for earlier messages of the same challenge (both oldest
// first), the ways there are and those that are down. It looks at classes and states, never at a vendor's words.
func next(plan []Route, own, earlier []tried, ability func(vendor string) Vendor, down map[string]bool) step {
	if len(plan) == 0 {
		return end("failed", Misconfigured)
	}
	up := func(r Route) bool { return !down[r.Vendor] }
	first := func(fits func(Route) bool) (Route, bool) {
		i := slices.IndexFunc(plan, func(r Route) bool { return fits(r) && up(r) })
		if i < 0 {
			return Route{}, false
		}
		return plan[i], true
	}
	if len(own) == 0 {
		return begin(earlier, ability, first)
	}
	last := &own[len(own)-1]
	fresh := func(r Route) bool { return tries(own, r) == 0 }
	if last.State == LegCalling {
		return unknown(last, len(own), ability, down, slices.DeleteFunc(slices.Clone(plan), func(r Route) bool { return !fresh(r) || r.Channel != last.Channel }))
	}
	if last.good() {
		return end("sent", "")
	}
	ended := end("failed", last.Class)
	if last.State == LegUndelivered || last.State == LegExpired {
		ended.state = "undelivered"
	}
	otherVendor, nextChannel := last.Class.moves()
	if last.PerNumber {
		otherVendor, nextChannel = false, false
	}
	if len(own) >= maxLegs {
		return ended
	}
	candidate := func(r Route) bool {
		return fresh(r) && (otherVendor && r.Channel == last.Channel || nextChannel && r.Channel != last.Channel)
	}
	if r, ok := first(candidate); ok {
		return call(r)
	}
	// The newest that may be tried again where it was: what another vendor refused since does not end it.
	for i := len(own) - 1; i >= 0 && otherVendor || i == len(own)-1; i-- {
		again := &own[i]
		here := slices.IndexFunc(plan, again.is)
		if again.Class != Temporary && again.Class != RateLimited || again.State != LegFailed || here < 0 || tries(own, plan[here]) > maxRetries {
			continue
		}
		wait := 500 * time.Millisecond << (tries(own, plan[here]) - 1)
		if again.Class == RateLimited {
			wait = max(time.Duration(again.RetryAfter*float64(time.Second)), time.Second)
		}
		switch {
		case again.age() < wait:
			return pause(wait - again.age())
		case down[again.Vendor]:
			return pause(downWait)
		}
		return call(plan[here])
	}
	if slices.ContainsFunc(plan, candidate) {
		return pause(downWait) // there is a way, and it does not work yet
	}
	return ended
}

// begin chooses the way of a message that nobody has been asked to carry yet.
func begin(earlier []tried, ability func(string) Vendor, first func(func(Route) bool) (Route, bool)) step {
	var before *tried // the latest text of the challenge that was taken
	for i := range earlier {
		if earlier[i].good() {
			before = &earlier[i]
		}
	}
	if before == nil {
		if r, ok := first(func(Route) bool { return true }); ok {
			return call(r)
		}
		return pause(downWait)
	}
	_, continues := ability(before.Vendor).(Continuer)
	within := func(r Route) step {
		s := call(r)
		if continues && before.Session != "" {
			s.session, s.opened = before.Session, before.Leg
		}
		return s
	}
	arrived := before.State == LegDelivered || before.age() < resendWait
	if !arrived && continues && before.Session != "" { // the next channel of the same session comes before everything else
		if r, ok := first(func(r Route) bool {
			return r.Vendor == before.Vendor && r.Channel != before.Channel && tries(earlier, r) == 0
		}); ok {
			return within(r)
		}
	}
	if !arrived {
		if r, ok := first(func(r Route) bool { return tries(earlier, r) == 0 }); ok {
			return call(r)
		}
	}
	if r, ok := first(before.is); ok {
		return within(r)
	}
	if r, ok := first(func(Route) bool { return true }); ok {
		return call(r)
	}
	return pause(downWait)
}

// unknown decides after a call of which nobody knows how it ended. There is one more try at most: with the same key where the vendor knows keys, at
// another vendor where it does not, or where the repeat was refused. others are the ways of the same channel that were not tried.
func unknown(last *tried, legs int, ability func(string) Vendor, down map[string]bool, others []Route) step {
	keyed := false
	if v := ability(last.Vendor); v != nil {
		keyed = v.Abilities().Idempotency != NoKey
	}
	if keyed && last.Calls < 2 {
		switch {
		case last.age() < repeatAfter:
			return pause(repeatAfter - last.age())
		case down[last.Vendor] && last.age() < outlast: // what it was asked it may have sent: it is asked again when it is back
			return pause(downWait)
		case !down[last.Vendor]:
			return step{call: true, route: Route{Vendor: last.Vendor, Channel: last.Channel, Sender: last.Sender}, leg: last.Leg}
		}
	}
	refused := keyed && (last.Calls < 2 || last.Class != Ambiguous) // the repeat sent nothing, or could not be made
	if otherVendor, _ := last.Class.moves(); last.Calls >= 2 && !otherVendor {
		return end("failed", last.Class)
	}
	if keyed && !refused || legs >= maxLegs {
		return end("failed", Ambiguous)
	}
	if last.age() < grace {
		return pause(grace - last.age())
	}
	for _, r := range others {
		if !down[r.Vendor] {
			return call(r)
		}
	}
	if len(others) > 0 {
		return pause(downWait)
	}
	return end("failed", Ambiguous)
}

// moves says whether a failure leads to another vendor of the same channel, and to the next channel.
func (c Class) moves() (otherVendor, nextChannel bool) {
	switch c {
	case InvalidRecipient, RecipientOptedOut, BlockedFraud, RegionBlocked:
		return false, false // the number's own fault, the person's choice, or a defence that must not be walked around
	case RateLimited:
		return true, false
	}
	return true, true
}
