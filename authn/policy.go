package authn

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Policy is what the operator demands whatever an application asks.
//
// Rules are read in order. Each of the four things that a rule can say (floor, factor, remember, enrol) is decided by the first rule that matches
// and says it, so that a rule about one of them hides none about another. Rules that look at the request itself, at its scopes or at the levels it
// names, decide nothing: whoever holds the browser writes the request. They tighten what the others decided, all of them that match: they raise the
// floor, leave factors out, and switch off.
type Policy struct {
	// Floor is the least level where neither a rule nor the application's registration names one. Default [RestrictedLevel].
	Floor Level
	// MaxAge of any proof, whatever its session has been through since. Zero: no bound.
	MaxAge time.Duration
	// Fresh is how old the password may be of whoever is led to bind a factor. Zero: no bound. A [Service] sets it to [Config].Fresh.
	Fresh time.Duration
	// Enrol lets somebody who has no factor at all bind one during a sign-in, where no rule says otherwise.
	Enrol bool
	// Rules, the first that matches decides. Make them with [ParseRule].
	Rules []Rule
	// Installed are the kinds of factor that people can bind: see [Service.Kinds]. Empty: nobody is sent to bind one.
	Installed []Kind
}

// Kind of factor.
type Kind struct {
	Name     string // "sms"
	Strength Strength
	NotFirst bool // nobody begins with it: it is not bound on pages, or adds nothing to a session
}

// Rule is one line of policy. Empty conditions match everything; all that are given have to hold.
type Rule struct {
	Clients  []string       // ids of applications
	Groups   []string       // of the subscriber: none before the password was right
	Networks []netip.Prefix // of the browser; an address that is not known is in none
	Scopes   []string       // that the application would get
	Levels   []Level        // that the application names

	Floor    Level    // NoLevel: says nothing
	Factors  []string // kinds that are taken. Nil: says nothing
	Remember Switch   // whether a browser may be remembered in place of a factor
	Enrol    Switch   // whether somebody without a factor may bind one during the sign-in

	Text string // as it was written, for explanations
}

// Switch is what a rule says of something that is on or off.
type Switch uint8

// Switches. The zero value says nothing.
const (
	On Switch = iota + 1
	Off
)

// asked reports whether the rule looks at what the request says.
func (r *Rule) asked() bool { return len(r.Scopes)+len(r.Levels) > 0 }

// Case is what rules look at.
type Case struct {
	Client     string
	Registered Level // floor of the application's registration
	Groups     []string
	Source     netip.Addr
	Scopes     []string
	Levels     []Level
}

func caseOf(session *Session, rp *RelyingParty, required *Requirement) Case {
	return Case{Client: rp.ID, Registered: rp.Floor, Groups: session.Groups, Source: session.Source, Scopes: required.Scopes, Levels: required.Levels}
}

// Ruling is what a policy says of one case.
type Ruling struct {
	Floor    Level
	Factors  []string // kinds that are taken. Nil: all
	Remember bool
	Enrol    bool
}

// Takes reports whether a factor of that kind counts, for asking as for what was proven earlier.
func (r *Ruling) Takes(kind string) bool { return r.Factors == nil || slices.Contains(r.Factors, kind) }

// own is what holds of the way to somebody's own account: whatever factors they have are taken there, because it is where they mend them, and none is spared.
// Who has none has to reach the floor like anywhere.
func (r Ruling) own(session *Session) Ruling {
	r.Factors, r.Remember = nil, false
	if len(session.Offers) > 0 {
		r.Floor = min(r.Floor, RestrictedLevel)
	}
	return r
}

// Verdict is what one rule did in one case.
type Verdict struct {
	Rule Rule
	// Unmet is the condition that does not hold, by its name in [ParseRule]. Empty: the rule matches.
	Unmet string
	// Decides lists what the rule decided or tightened, and Idle what it said in vain: a rule before it decided, or it would not have tightened anything.
	Decides, Idle []string
}

// Ruling is what the policy says of c.
func (p *Policy) Ruling(c *Case) Ruling { return p.judge(c, nil) }

// Explain is Ruling with what each rule did.
func (p *Policy) Explain(c *Case) (Ruling, []Verdict) {
	path := make([]Verdict, len(p.Rules))
	return p.judge(c, path), path
}

// judge fills in path if there is one.
func (p *Policy) judge(c *Case, path []Verdict) Ruling {
	note := func(i int, what string, decides bool) {
		switch {
		case path == nil:
		case decides:
			path[i].Decides = append(path[i].Decides, what)
		default:
			path[i].Idle = append(path[i].Idle, what)
		}
	}
	var remember, enrol Switch
	r := Ruling{}
	for i := range p.Rules {
		rule := &p.Rules[i]
		unmet := rule.unmet(c)
		if path != nil {
			path[i] = Verdict{Rule: *rule, Unmet: unmet}
		}
		if unmet != "" || rule.asked() {
			continue
		}
		if rule.Floor != NoLevel {
			note(i, "floor", r.Floor == NoLevel)
			if r.Floor == NoLevel {
				r.Floor = rule.Floor
			}
		}
		if rule.Factors != nil {
			note(i, "factor", r.Factors == nil)
			if r.Factors == nil {
				r.Factors = rule.Factors
			}
		}
		if rule.Remember != 0 {
			note(i, "remember", remember == 0)
			remember = first(remember, rule.Remember)
		}
		if rule.Enrol != 0 {
			note(i, "enrol", enrol == 0)
			enrol = first(enrol, rule.Enrol)
		}
	}
	if r.Floor = max(r.Floor, c.Registered); r.Floor == NoLevel {
		r.Floor = p.Floor
	}
	r.Remember, r.Enrol = remember == On, enrol == On || enrol == 0 && p.Enrol
	for i := range p.Rules {
		rule := &p.Rules[i]
		if !rule.asked() || rule.unmet(c) != "" {
			continue
		}
		if rule.Floor != NoLevel {
			note(i, "floor", rule.Floor > r.Floor)
			r.Floor = max(r.Floor, rule.Floor)
		}
		if rule.Factors != nil {
			left := narrowed(r.Factors, rule.Factors)
			note(i, "factor", r.Factors == nil || len(left) < len(r.Factors))
			r.Factors = left
		}
		if rule.Remember == Off {
			note(i, "remember", r.Remember)
			r.Remember = false
		}
		if rule.Enrol == Off {
			note(i, "enrol", r.Enrol)
			r.Enrol = false
		}
	}
	return r
}

func first(before, now Switch) Switch {
	if before != 0 {
		return before
	}
	return now
}

// narrowed lists what is in both, where nil is everything. It makes a new list only where neither holds the other.
func narrowed(a, b []string) []string {
	within := func(x, y []string) bool {
		for _, kind := range x {
			if !slices.Contains(y, kind) {
				return false
			}
		}
		return true
	}
	switch {
	case a == nil, within(b, a):
		return b
	case within(a, b):
		return a
	}
	both := []string{} // nothing is not everything
	for _, kind := range a {
		if slices.Contains(b, kind) {
			both = append(both, kind)
		}
	}
	return both
}

// unmet names the first condition that does not hold; "" if the rule matches.
func (r *Rule) unmet(c *Case) string {
	switch {
	case len(r.Clients) > 0 && !slices.Contains(r.Clients, c.Client):
		return "client"
	case len(r.Groups) > 0 && !overlap(r.Groups, c.Groups):
		return "group"
	case len(r.Networks) > 0 && !r.from(c.Source):
		return "from"
	case len(r.Scopes) > 0 && !overlap(r.Scopes, c.Scopes):
		return "scope"
	case len(r.Levels) > 0 && !overlap(r.Levels, c.Levels):
		return "acr"
	}
	return ""
}

func (r *Rule) from(source netip.Addr) bool {
	source = source.Unmap() // IPv4 is IPv4, however the socket tells it
	for _, network := range r.Networks {
		if network.Contains(source) {
			return true
		}
	}
	return false
}

func overlap[T comparable](a, b []T) bool {
	for i := range a {
		if slices.Contains(b, a[i]) {
			return true
		}
	}
	return false
}

// ParseRule reads a rule as operators write it: words key=value|value… in any order. client, group, from (networks), scope and acr are conditions; floor
// (an acr), factor (kinds), remember and enrol (on or off) are what it says: "client=shop group=staff floor=urn:watchword:acr:3 remember=off". kinds
// are those of the factors that are installed.
func ParseRule(text string, levels LevelNames, kinds []string) (Rule, error) {
	rule := Rule{Text: strings.Join(strings.Fields(text), " ")}
	seen := map[string]bool{}
	for word := range strings.FieldsSeq(text) {
		key, list, found := strings.Cut(word, "=")
		values := strings.FieldsFunc(list, func(r rune) bool { return r == '|' || r == ',' })
		if !found || len(values) == 0 {
			return rule, fmt.Errorf("%q is not key=value", word)
		}
		if seen[key] {
			return rule, fmt.Errorf("%s is there twice: write its values with | between them", key)
		}
		seen[key] = true
		if err := rule.set(key, values, levels, kinds); err != nil {
			return rule, err
		}
	}
	switch {
	case rule.Floor == NoLevel && rule.Factors == nil && rule.Remember == 0 && rule.Enrol == 0:
		return rule, errors.New("it says nothing: add floor, factor, remember or enrol")
	case rule.asked() && rule.Remember == On:
		return rule, errors.New("remember=on does not go with scope or acr: a browser chooses what it asks for, so that such a rule can only tighten")
	case rule.asked() && rule.Enrol == On:
		return rule, errors.New("enrol=on does not go with scope or acr: a browser chooses what it asks for, so that such a rule can only tighten")
	}
	return rule, nil
}

func (r *Rule) set(key string, values []string, levels LevelNames, kinds []string) (err error) {
	single := len(values) == 1
	switch key {
	case "client":
		r.Clients = values
	case "group":
		for _, name := range values {
			if err := CheckGroup(name); err != nil {
				return err
			}
		}
		r.Groups = values
	case "from":
		for _, value := range values {
			network, err := parseNetwork(value)
			if err != nil {
				return fmt.Errorf("%q is not a network: write 10.0.0.0/8 or 192.0.2.7", value)
			}
			r.Networks = append(r.Networks, network)
		}
	case "scope":
		r.Scopes = values
	case "acr":
		for _, name := range values {
			level, ok := levels.Level(name)
			if !ok {
				return fmt.Errorf("%q is not the name of a level: write %s", name, strings.Join(levels.Supported(UnrestrictedLevel), ", "))
			}
			r.Levels = append(r.Levels, level)
		}
	case "floor":
		level, ok := levels.Level(values[0])
		if !ok || !single {
			return fmt.Errorf("floor is not the name of one level: write one of %s", strings.Join(levels.Supported(UnrestrictedLevel), ", "))
		}
		r.Floor = level
	case "factor":
		for _, kind := range values {
			if !slices.Contains(kinds, kind) {
				return fmt.Errorf("no factor is called %q: write %s", kind, strings.Join(kinds, ", "))
			}
		}
		r.Factors = values
	case "remember":
		r.Remember, err = parseSwitch(key, values)
	case "enrol":
		r.Enrol, err = parseSwitch(key, values)
	default:
		return fmt.Errorf("%q is not known: write client, group, from, scope, acr, floor, factor, remember or enrol", key)
	}
	return err
}

func parseSwitch(key string, values []string) (Switch, error) {
	switch strings.Join(values, " ") {
	case "on":
		return On, nil
	case "off":
		return Off, nil
	}
	return 0, fmt.Errorf("%s is on or off", key)
}

func parseNetwork(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if ip := network.Addr(); ip.Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(ip.Unmap(), network.Bits()-96)
	}
	return network.Masked(), err
}

// CheckGroup finds what is wrong with the name of a group.
func CheckGroup(name string) error {
	if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@") != "" {
		return fmt.Errorf("%q is not the name of a group: write up to 64 letters, digits and signs of - _ . : / @", name)
	}
	return nil
}
