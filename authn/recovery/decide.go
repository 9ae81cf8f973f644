package recovery

import (
	"slices"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
)

// Verdict is the answer of [Decide].
type Verdict struct {
	// Enough was proved.
	Enough bool
	// MayWait: what is missing can be waited for instead.
	MayWait bool
}

// Case is what [Decide] looks at.
type Case struct {
	Kind Kind
	// Proofs are the kinds of what was proved: [ByMail], and kinds of factors.
	Proofs []string
	// Factors among the proofs that say no more than that their holder has a device in hand: they stand beside another proof, and are none for each other.
	Devices []string
	// Vouched: an administrator stands in for one proof.
	Vouched bool
	// Alone is policy: see [Config].Alone.
	Alone bool
	// Knows: it began behind the right password, which ResetBy, if anything, allowed to be set.
	Knows   bool
	ResetBy []string
}

// Decide says whether what was proved is enough. It has no side effect and asks nobody.
func Decide(c Case) Verdict {
	kinds := slices.Compact(slices.Sorted(slices.Values(c.Proofs)))
	recovers := slices.ContainsFunc(kinds, func(kind string) bool { return !slices.Contains(c.Devices, kind) })
	if !recovers {
		return Verdict{}
	}
	if c.Vouched {
		kinds = append(kinds, byDesk)
	}
	two := len(kinds) > 1
	switch c.Kind {
	case Stop:
		return Verdict{Enough: true}
	case Password: // whoever reads the mails still lacks the factor; whoever reads the texts has one
		return Verdict{Enough: two || slices.Contains(kinds, ByMail)}
	case Access:
		overlap := slices.ContainsFunc(c.Proofs, func(kind string) bool { return slices.Contains(c.ResetBy, kind) })
		return Verdict{Enough: two, MayWait: !two && c.Alone && c.Knows && !overlap}
	}
	return Verdict{}
}

// decide asks [Decide] about r, as if these had been proved besides.
func (e *Engine) decide(r *Recovery, besides ...string) Verdict {
	c := Case{Kind: r.Kind, Proofs: append(slices.Clone(r.Proofs), besides...), Vouched: r.Vouched, Alone: e.Config.Alone, Knows: r.Knows, ResetBy: r.resetBy}
	for _, f := range e.SignIns.Ledger.Factors() {
		if e.device(f) {
			c.Devices = append(c.Devices, f.Kind())
		}
	}
	return Decide(c)
}

// device reports whether a factor is something in its holder's hand, rather than a way to reach them or a paper that was put away for the day.
func (e *Engine) device(f factors.Factor) bool {
	return !e.texted(f.Kind()) && factors.Serves(f, factors.StepUp)
}

// young reports whether a is a phone that was added too lately to recover anything: whoever added it could have been somebody else. The one that
// the account was made with is as old as the account.
func (e *Engine) young(r *Recovery, a factors.Authenticator) bool {
	return e.texted(a.Kind) && a.BoundAt.After(r.Now.Add(-e.Config.FreshPhone)) && a.BoundAt.After(r.since)
}

// Way is something that would prove more.
type Way struct {
	// ID of the authenticator; uuid.Nil: a link by mail.
	ID   uuid.UUID
	Kind string // of the proof
	Hint string
	Name string
	Page factors.Page // where it is asked for
	Sent bool         // something is sent
	Down bool
}

// Ways lists what would prove more than r has. Of a try that has proved nothing it tells who somebody is, and is not to be shown.
func (e *Engine) Ways(r *Recovery) (ways []Way) {
	if e.Mail != nil && r.Address.Reveal() != "" && !slices.Contains(r.Proofs, ByMail) {
		ways = append(ways, Way{Kind: ByMail, Hint: r.Address.String(), Sent: true})
	}
	for _, a := range r.Bound {
		f, ok := e.SignIns.Ledger.Factor(a.Kind)
		if !ok || !factors.Serves(f, factors.Recover) || slices.Contains(r.Proofs, a.Kind) || e.young(r, a) || a.Left != nil && *a.Left == 0 {
			continue
		}
		if len(r.Proofs) == 0 && e.device(f) { // beside another proof alone
			continue
		}
		ways = append(ways, Way{ID: a.ID, Kind: a.Kind, Hint: a.Hint, Name: a.Name, Page: factors.PageOf(f), Sent: e.texted(a.Kind), Down: factors.Down(f)})
	}
	return ways
}

// Due is the way that r waits for an answer from, and whether it does. Of a try that has proved nothing nobody is told.
func (e *Engine) Due(r *Recovery) (Way, bool) {
	for _, w := range e.Ways(r) {
		if w.ID == r.askedOf && (w.ID != uuid.Nil || r.linked) {
			return w, true
		}
	}
	return Way{}, false
}
