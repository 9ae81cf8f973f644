package web

import (
	"strings"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/audit"
)

// What programs are told of an account: the members of an export, of what the page shows, and what can be done about each.

type accountFacts struct {
	Username     string                      `json:"username"`
	Fresh        bool                        `json:"fresh"` // changes need no other proof
	Factors      []factorFacts               `json:"factors"`
	Add          []addable                   `json:"add"`
	Sessions     []seatFacts                 `json:"sessions"`
	Browsers     []seatFacts                 `json:"browsers"`
	Applications []authn.ExportedApplication `json:"applications"`
	Activity     []authn.ExportedActivity    `json:"activity"`
}

type factorFacts struct {
	authn.ExportedFactor
	First   bool   `json:"asked_first"`
	Stays   bool   `json:"stays"`             // it is the last that signing in needs
	Replace string `json:"replace,omitempty"` // where a number is changed for another
	Renew   string `json:"renew,omitempty"`   // where a set of answers is made anew
}

type seatFacts struct {
	authn.ExportedSeat
	This bool `json:"this"`           // what asks
	Half bool `json:"half,omitempty"` // the password was right, and nothing else was proved
}

// exported is the account of whoever looks, as an export has it.
func exported(v *visitor) *authn.Export {
	return authn.NewExport(v.Account, &authn.Subscriber{Username: v.Session.Username, Subject: v.Session.Subject, Bound: v.Session.Bound})
}

func (h *Handler) accountFacts(v *visitor) accountFacts {
	e := exported(v)
	facts := accountFacts{Username: e.Username, Fresh: v.Fresh, Factors: []factorFacts{}, Add: []addable{}, Sessions: []seatFacts{}, Browsers: []seatFacts{},
		Applications: e.Applications, Activity: e.Activity}
	for i := range v.Session.Bound {
		facts.Factors = append(facts.Factors, h.factorFacts(v, i))
	}
	for i, s := range v.Sessions {
		facts.Sessions = append(facts.Sessions, seatFacts{e.Sessions[i], s.This, s.Half})
	}
	for i, b := range v.Browsers {
		facts.Browsers = append(facts.Browsers, seatFacts{e.Browsers[i], b.This, false})
	}
	for i := range facts.Activity { // as on the page: neither a place nor the name of an operator
		a := &facts.Activity[i]
		a.Source = ""
		if strings.HasPrefix(a.Actor, audit.Operator) {
			a.Actor = audit.Operator
		}
	}
	return facts
}

func (h *Handler) factorFacts(v *visitor, i int) factorFacts {
	a := v.Session.Bound[i]
	facts := factorFacts{ExportedFactor: authn.NewExport(v.Account, &authn.Subscriber{Bound: v.Session.Bound[i : i+1]}).Factors[0], First: a.Chosen, Stays: v.Stays[i]}
	for _, p := range h.enrolPages() {
		if p.factor.Kind() == a.Kind {
			facts.Replace, facts.Renew = p.replace(a), p.renew()
		}
	}
	return facts
}
