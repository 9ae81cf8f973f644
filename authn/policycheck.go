package authn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// PolicyProblem is something in a policy that cannot be meant, and what to do about it.
type PolicyProblem struct {
	Rule       int // which one, from 0; -1: the floor where no rule says otherwise
	What, Cure string
}

// Check finds what cannot be meant: levels that nobody can reach, and rules that say everything in vain.
func (p *Policy) Check(names LevelNames) (problems []PolicyProblem) {
	if most := p.reach(nil); p.Floor > most {
		problems = append(problems, PolicyProblem{-1, "nobody can reach " + names[p.Floor] + " with the factors that are installed", "choose at most " + names[most]})
	}
	for i := range p.Rules {
		rule := &p.Rules[i]
		if most := p.reach(rule.Factors); rule.Floor > most {
			with := "that are installed"
			if rule.Factors != nil {
				with = strings.Join(rule.Factors, " and ")
			}
			problems = append(problems, PolicyProblem{i, "nobody can reach its floor with the factors " + with, "lower its floor to " + names[most] + ", or take more factors"})
		}
		if before := p.vain(i); before >= 0 {
			problems = append(problems, PolicyProblem{i, fmt.Sprintf("it never decides anything: rule %d matches first, and says it", before+1), "move it further up, or remove it"})
		}
	}
	return problems
}

// reach is the highest level that can be reached by factors of these kinds; nil is all that are installed.
func (p *Policy) reach(kinds []string) Level {
	most := PasswordLevel
	for _, kind := range p.Installed {
		if kinds == nil || slices.Contains(kinds, kind.Name) {
			most = max(most, kind.Strength.level())
		}
	}
	return most
}

// vain gives the rule that keeps the last saying of rule i from deciding, or -1 if something that it says can decide.
func (p *Policy) vain(i int) (before int) {
	rule := &p.Rules[i]
	if rule.asked() { // it tightens, whatever is before it
		return -1
	}
	before = -1
	for _, says := range []func(*Rule) bool{
		func(r *Rule) bool { return r.Floor != NoLevel }, func(r *Rule) bool { return r.Factors != nil },
		func(r *Rule) bool { return r.Remember != 0 }, func(r *Rule) bool { return r.Enrol != 0 },
	} {
		if !says(rule) {
			continue
		}
		at := slices.IndexFunc(p.Rules[:i], func(earlier Rule) bool { return !earlier.asked() && says(&earlier) && earlier.covers(rule) })
		if at < 0 {
			return -1
		}
		before = max(before, at)
	}
	return before
}

// covers reports whether r matches wherever other does. Neither looks at the request.
func (r *Rule) covers(other *Rule) bool {
	return holds(r.Clients, other.Clients, same) && holds(r.Groups, other.Groups, same) && holds(r.Networks, other.Networks, func(a, b netip.Prefix) bool {
		return a.Bits() <= b.Bits() && a.Contains(b.Addr())
	})
}

func same(a, b string) bool { return a == b }

// holds reports whether each of b lies in one of a. No values are all of them.
func holds[T any](a, b []T, in func(a, b T) bool) bool {
	if len(a) == 0 {
		return true
	}
	for _, y := range b {
		if !slices.ContainsFunc(a, func(x T) bool { return in(x, y) }) {
			return false
		}
	}
	return len(b) > 0
}
