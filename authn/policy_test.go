package authn

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
)

var kinds = []string{"app", "sms"}

func rules(t testing.TB, lines ...string) (all []Rule) {
	t.Helper()
	for _, line := range lines {
		rule, err := ParseRule(line, DefaultLevelNames(), kinds)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, rule)
	}
	return all
}

func TestParseRule(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"client":                            "is not key=value",
		"client= floor=urn:watchword:acr:2": "is not key=value",
		"":                                  "says nothing",
		"client=shop":                       "says nothing",
		"floor=high":                        "floor is not the name of one level",
		"floor=urn:watchword:acr:recovery":  "floor is not the name of one level",
		"floor=urn:watchword:acr:1|urn:watchword:acr:2": "floor is not the name of one level",
		"acr=urn:watchword:acr:4 enrol=off":             "is not the name of a level",
		"factor=totp":                                   `no factor is called "totp": write app, sms`,
		"remember=maybe":                                "remember is on or off",
		"enrol=on|off":                                  "enrol is on or off",
		"from=10.0.0.0/33 enrol=off":                    "is not a network",
		"from=example enrol=off":                        "is not a network",
		"group=a%b enrol=off":                           "is not the name of a group",
		"colour=red":                                    `"colour" is not known`,
		"client=a client=b enrol=off":                   "client is there twice",
		"scope=email remember=on":                       "can only tighten",
		"acr=urn:watchword:acr:1 enrol=on":              "can only tighten",
	} {
		if _, err := ParseRule(line, DefaultLevelNames(), kinds); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error = %v, want one with %q", line, err, want)
		}
	}
	rule := rules(t, "  from=10.1.2.3/8,192.0.2.7|::ffff:203.0.113.0/120  group=staff|ops factor=app|sms floor=urn:watchword:acr:2 remember=on enrol=off ")[0]
	if got := fmt.Sprint(rule.Networks, rule.Groups, rule.Factors, rule.Floor, rule.Remember, rule.Enrol); got !=
		"[10.0.0.0/8 192.0.2.7/32 203.0.113.0/24] [staff ops] [app sms] 3 1 2" {
		t.Errorf("read as %s", got)
	}
}

func TestRuling(t *testing.T) {
	t.Parallel()
	inside, outside := netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name  string
		rules []string
		c     Case
		want  string
	}{
		{name: "nothing said", want: "2 all - enrol"},
		{name: "the registration's floor", c: Case{Registered: PasswordLevel}, want: "1 all - enrol"},
		{name: "by client", rules: []string{"client=wiki floor=urn:watchword:acr:1"}, c: Case{Client: "wiki"}, want: "1 all - enrol"},
		{name: "another client", rules: []string{"client=wiki floor=urn:watchword:acr:1"}, c: Case{Client: "shop"}, want: "2 all - enrol"},
		{name: "no rule lowers what is registered", rules: []string{"floor=urn:watchword:acr:1"}, c: Case{Registered: UnrestrictedLevel}, want: "3 all - enrol"},
		{name: "a rule raises what is registered", rules: []string{"floor=urn:watchword:acr:3"}, c: Case{Registered: PasswordLevel}, want: "3 all - enrol"},
		{name: "the first that says it", rules: []string{"client=wiki remember=on", "group=admins floor=urn:watchword:acr:3", "remember=off floor=urn:watchword:acr:1"},
			c: Case{Client: "wiki", Groups: []string{"admins"}}, want: "3 all remember enrol"},
		{name: "without the group", rules: []string{"client=wiki remember=on", "group=admins floor=urn:watchword:acr:3", "remember=off floor=urn:watchword:acr:1"},
			c: Case{Client: "wiki"}, want: "1 all remember enrol"},
		{name: "all conditions have to hold", rules: []string{"client=wiki from=10.0.0.0/8 remember=on"}, c: Case{Client: "wiki", Source: outside}, want: "2 all - enrol"},
		{name: "from inside", rules: []string{"client=wiki from=10.0.0.0/8 remember=on"}, c: Case{Client: "wiki", Source: inside}, want: "2 all remember enrol"},
		{name: "from inside, as IPv6 sockets tell it", rules: []string{"from=10.0.0.0/8 remember=on"}, c: Case{Source: netip.MustParseAddr("::ffff:10.1.1.1")}, want: "2 all remember enrol"},
		{name: "from nobody knows where", rules: []string{"from=0.0.0.0/0|::/0 remember=on"}, want: "2 all - enrol"},
		{name: "SUP-6 what is asked for lowers nothing", rules: []string{"acr=urn:watchword:acr:1 floor=urn:watchword:acr:1", "scope=email floor=urn:watchword:acr:1"},
			c: Case{Levels: []Level{PasswordLevel}, Scopes: []string{"email"}}, want: "2 all - enrol"},
		{name: "what is asked for raises", rules: []string{"floor=urn:watchword:acr:2", "scope=payments floor=urn:watchword:acr:3 factor=app enrol=off remember=off", "remember=on"},
			c: Case{Scopes: []string{"openid", "payments"}}, want: "3 app - -"},
		{name: "SUP-6 what is asked for widens nothing", rules: []string{"factor=app", "acr=urn:watchword:acr:2 factor=sms|app"}, c: Case{Levels: []Level{RestrictedLevel}},
			want: "2 app - enrol"},
		{name: "nothing is left", rules: []string{"factor=app", "scope=email factor=sms"}, c: Case{Scopes: []string{"email"}}, want: "2 none - enrol"},
		{name: "enrolment off for all but one", rules: []string{"client=portal enrol=on", "enrol=off"}, c: Case{Client: "shop"}, want: "2 all - -"},
		{name: "enrolment on for one", rules: []string{"client=portal enrol=on", "enrol=off"}, c: Case{Client: "portal"}, want: "2 all - enrol"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := Policy{Floor: RestrictedLevel, Enrol: true, Rules: rules(t, tt.rules...)}
			if got := said(p.Ruling(&tt.c)); got != tt.want {
				t.Errorf("Ruling = %s, want %s", got, tt.want)
			}
		})
	}
}

// said writes a ruling down.
func said(r Ruling) string {
	list := "all"
	if r.Factors != nil {
		list = "none"
		if len(r.Factors) > 0 {
			kinds := slices.Clone(r.Factors)
			slices.Sort(kinds)
			list = strings.Join(slices.Compact(kinds), "|")
		}
	}
	word := map[bool]string{true: "remember", false: "-"}
	other := map[bool]string{true: "enrol", false: "-"}
	return fmt.Sprintf("%d %s %s %s", r.Floor-1, list, word[r.Remember], other[r.Enrol])
}

// chance makes policies and cases of few words, so that rules match often.
type chance struct{ *rand.Rand }

func some[T any](c chance, from ...T) (picked []T) {
	for _, v := range from {
		if c.IntN(3) == 0 {
			picked = append(picked, v)
		}
	}
	return picked
}

func (c chance) switched(asked bool) Switch {
	if asked {
		return []Switch{0, Off}[c.IntN(2)]
	}
	return []Switch{0, On, Off}[c.IntN(3)]
}

func (c chance) policy() Policy {
	p := Policy{Floor: Level(c.IntN(3)) + PasswordLevel, Enrol: c.IntN(2) == 0, Installed: installed}
	for range c.IntN(7) {
		r := Rule{Clients: some(c, "a", "b"), Groups: some(c, "x", "y"), Networks: some(c, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"))}
		if c.IntN(3) == 0 {
			r.Scopes, r.Levels = some(c, "email", "phone"), some(c, PasswordLevel, RestrictedLevel, UnrestrictedLevel)
		}
		if c.IntN(2) == 0 {
			r.Floor = Level(c.IntN(3)) + PasswordLevel
		}
		r.Factors, r.Remember, r.Enrol = some(c, kinds...), c.switched(r.asked()), c.switched(r.asked())
		p.Rules = append(p.Rules, r)
	}
	return p
}

func (c chance) relyingParty() RelyingParty {
	return RelyingParty{ID: []string{"a", "b", "c"}[c.IntN(3)], Floor: []Level{NoLevel, PasswordLevel, RestrictedLevel, UnrestrictedLevel}[c.IntN(4)]}
}

func (c chance) requirement() Requirement {
	return Requirement{MaxAge: []int64{-1, 0, 300, 900}[c.IntN(4)], Fresh: c.IntN(6) == 0, Silent: c.IntN(4) == 0, Unmeetable: c.IntN(20) == 0,
		Scopes: some(c, "email", "phone"), Levels: some(c, PasswordLevel, RestrictedLevel, UnrestrictedLevel)}
}

func (c chance) session() *Session {
	s := &Session{Groups: some(c, "x", "y"), Source: []netip.Addr{{}, netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}[c.IntN(4)]}
	if c.IntN(10) == 0 {
		return s
	}
	s.Subscriber, s.Subject = alice, alice.String()
	for _, kind := range some(c, "sms", "app", "sms") {
		s.Bound = append(s.Bound, factors.Authenticator{ID: uuid.New(), Kind: kind})
		s.Offers = append(s.Offers, strengthOf(kind))
	}
	for range c.IntN(5) {
		at, in := noon.Add(-time.Duration(c.IntN(30))*time.Minute), []uuid.UUID{this, former}[c.IntN(2)]
		s.Events = append(s.Events, []Event{pwd(at, in), text(at, in), app(at, in)}[c.IntN(3)])
	}
	return s
}

func strengthOf(kind string) Strength {
	return map[string]Strength{"sms": Restricted, "app": Unrestricted}[kind]
}

// byTheBook decides as docs/policy.md says it, in as many words and as slowly as they are. It is another way to the same end.
func byTheBook(p Policy, c Case) Ruling {
	matching := func(asked bool) (found []Rule) {
		for _, r := range p.Rules {
			meets := map[string]bool{
				"client": len(r.Clients) == 0 || slices.Contains(r.Clients, c.Client),
				"group":  len(r.Groups) == 0 || slices.ContainsFunc(r.Groups, func(g string) bool { return slices.Contains(c.Groups, g) }),
				"from": len(r.Networks) == 0 || slices.ContainsFunc(r.Networks, func(n netip.Prefix) bool {
					return c.Source.IsValid() && n.Contains(c.Source)
				}),
				"scope": len(r.Scopes) == 0 || slices.ContainsFunc(r.Scopes, func(s string) bool { return slices.Contains(c.Scopes, s) }),
				"acr":   len(r.Levels) == 0 || slices.ContainsFunc(r.Levels, func(l Level) bool { return slices.Contains(c.Levels, l) }),
			}
			all := true
			for _, met := range meets {
				all = all && met
			}
			if all && (len(r.Scopes) > 0 || len(r.Levels) > 0) == asked {
				found = append(found, r)
			}
		}
		return found
	}
	deciding, tightening := matching(false), matching(true)
	find := func(says func(Rule) bool) *Rule {
		if i := slices.IndexFunc(deciding, says); i >= 0 {
			return &deciding[i]
		}
		return nil
	}
	out := Ruling{Floor: p.Floor, Enrol: p.Enrol}
	if r := find(func(r Rule) bool { return r.Floor != NoLevel }); r != nil {
		out.Floor = max(r.Floor, c.Registered)
	} else if c.Registered != NoLevel {
		out.Floor = c.Registered
	}
	taken := map[string]bool{"app": true, "sms": true}
	restrict := func(to []string) {
		for kind := range taken {
			taken[kind] = taken[kind] && slices.Contains(to, kind)
		}
		out.Factors = []string{}
	}
	if r := find(func(r Rule) bool { return r.Factors != nil }); r != nil {
		restrict(r.Factors)
	}
	if r := find(func(r Rule) bool { return r.Remember != 0 }); r != nil {
		out.Remember = r.Remember == On
	}
	if r := find(func(r Rule) bool { return r.Enrol != 0 }); r != nil {
		out.Enrol = r.Enrol == On
	}
	for _, r := range tightening {
		out.Floor = max(out.Floor, r.Floor)
		if r.Factors != nil {
			restrict(r.Factors)
		}
		out.Remember = out.Remember && r.Remember != Off
		out.Enrol = out.Enrol && r.Enrol != Off
	}
	if out.Factors != nil {
		for kind, yes := range taken {
			if yes {
				out.Factors = append(out.Factors, kind)
			}
		}
	}
	return out
}

// TestPolicyProperties holds random policies against the words of the documentation, and every decision against what it must never be.
func TestPolicyProperties(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	c := chance{rand.New(rand.NewPCG(seed, 0))}
	for n := range 20000 {
		policy, session, rp, required := c.policy(), c.session(), c.relyingParty(), c.requirement()
		at := caseOf(session, &rp, &required)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d, case %d: %s\npolicy %+v\ncase %+v\nsession %+v\nrequired %+v", seed, n, fmt.Sprintf(format, args...), policy, at, session, required)
		}
		want := said(byTheBook(policy, at))
		explained, path := policy.Explain(&at)
		d := Decide(noon, session, this, &rp, &required, false, policy)
		if said(policy.Ruling(&at)) != want || said(explained) != want || said(d.Ruling) != want {
			fail("by the book %s; Ruling %s, Explain %s, Decide %s", want, said(policy.Ruling(&at)), said(explained), said(d.Ruling))
		}
		// What the path says was decided is what was: leaving every other rule out changes nothing.
		kept := policy
		kept.Rules = nil
		for _, v := range path {
			if len(v.Decides) > 0 {
				kept.Rules = append(kept.Rules, v.Rule)
			}
		}
		if got := said(kept.Ruling(&at)); got != want {
			fail("the path %+v comes to %s, all rules to %s", path, got, want)
		}
		for i := range path {
			if before := policy.vain(i); before >= 0 && len(path[i].Decides) > 0 {
				fail("rule %d was said to be in vain after rule %d, and decided %v", i, before, path[i].Decides)
			}
		}
		switch d.Step {
		case StepDone:
			if d.Level < d.Ruling.Floor || d.Level < RestrictedLevel && len(session.Offers) > 0 {
				fail("done at %d below the floor, or by password alone: %+v", d.Level, d)
			}
			if d.Factor != nil && !d.Ruling.Takes(d.Factor.Kind) {
				fail("done by %s", d.Factor.Kind)
			}
			if len(required.Levels) > 0 && d.Level < slices.Min(required.Levels) {
				fail("SUP-2 done at %d below all that was asked for", d.Level)
			}
		case StepFactor:
			if required.Silent || !slices.ContainsFunc(session.Bound, func(a factors.Authenticator) bool { return d.Ruling.Takes(a.Kind) && strengthOf(a.Kind) >= d.Strength }) {
				fail("asks for what nobody has, or may not ask: %+v", d)
			}
		case StepEnrol:
			if len(session.Offers) > 0 || !d.Ruling.Enrol || required.Silent {
				fail("EN-7 leads to enrolment: %+v", d)
			}
		case StepPassword, StepConsent:
			if required.Silent {
				fail("asks, though silent: %+v", d)
			}
		}
	}
}

func BenchmarkDecideByRules(b *testing.B) {
	session := &Session{Subscriber: alice, Groups: []string{"staff", "finance"}, Source: netip.MustParseAddr("10.9.9.9"), Events: []Event{pwd(noon, former), app(noon, former)},
		Bound: []factors.Authenticator{{Kind: "app"}}, Offers: []Strength{Unrestricted}}
	rp, required := &RelyingParty{ID: "bank"}, &Requirement{MaxAge: 300, Scopes: []string{"openid", "payments"}, Levels: []Level{RestrictedLevel}}
	policy := Policy{Floor: RestrictedLevel, MaxAge: 12 * time.Hour, Enrol: true}
	for n := range 16 {
		policy.Rules = append(policy.Rules, rules(b, fmt.Sprintf("client=app%d from=10.%d.0.0/16 group=team%d floor=urn:watchword:acr:1", n, n, n))...)
	}
	policy.Rules = append(policy.Rules, rules(b, "group=finance floor=urn:watchword:acr:3", "client=bank factor=app|sms remember=off", "scope=payments factor=app enrol=off",
		"from=10.0.0.0/8 remember=on")...)
	b.ReportAllocs()
	for b.Loop() {
		if d := Decide(noon, session, this, rp, required, false, policy); d.Step != StepDone || d.Level != UnrestrictedLevel {
			b.Fatal(d)
		}
	}
}

func TestCheckPolicy(t *testing.T) {
	t.Parallel()
	phones := []Kind{{Name: "sms", Strength: Restricted}}
	tests := []struct {
		name  string
		floor Level
		rules []string
		kinds []Kind
		want  []string
	}{
		{name: "nothing", floor: RestrictedLevel, kinds: phones},
		{name: "no factor at all", floor: RestrictedLevel, want: []string{"-1 nobody can reach urn:watchword:acr:2"}},
		{name: "floors that nobody reaches", floor: UnrestrictedLevel, rules: []string{"floor=urn:watchword:acr:3", "client=a floor=urn:watchword:acr:3 factor=sms"}, kinds: phones,
			want: []string{"-1 nobody can reach urn:watchword:acr:3", "0 nobody can reach its floor with the factors that are installed", "1 nobody can reach its floor with the factors sms"}},
		{name: "a factor too weak for its own floor", floor: RestrictedLevel, rules: []string{"scope=email floor=urn:watchword:acr:3 factor=sms"}, kinds: installed, want: []string{"0 nobody can reach its floor with the factors sms"}},
		{name: "after one that matches everything", floor: RestrictedLevel, rules: []string{"remember=off", "client=a remember=on", "client=a remember=on enrol=on"}, kinds: installed,
			want: []string{"1 it never decides anything: rule 1"}},
		{name: "by two rules together", floor: RestrictedLevel, rules: []string{"remember=off", "enrol=off", "group=x remember=on enrol=on"}, kinds: installed, want: []string{"2 it never decides anything: rule 2"}},
		{name: "narrower before wider", floor: RestrictedLevel, rules: []string{"client=a group=x remember=on", "client=a remember=off", "from=10.1.0.0/16 enrol=on", "from=10.0.0.0/8 enrol=off"}, kinds: installed},
		{name: "wider before narrower", floor: RestrictedLevel, rules: []string{"from=10.0.0.0/8|192.0.2.0/24 enrol=on", "from=10.1.0.0/16 client=a enrol=off", "from=192.0.2.7|198.51.100.1 enrol=off"}, kinds: installed,
			want: []string{"1 it never decides anything: rule 1"}},
		{name: "those that tighten have no order", floor: RestrictedLevel, rules: []string{"remember=off", "scope=email remember=off", "acr=urn:watchword:acr:1 floor=urn:watchword:acr:2", "floor=urn:watchword:acr:1"}, kinds: installed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := Policy{Floor: tt.floor, Rules: rules(t, tt.rules...), Installed: tt.kinds}
			var got []string
			for _, problem := range p.Check(DefaultLevelNames()) {
				got = append(got, fmt.Sprint(problem.Rule, " ", problem.What))
				if problem.Cure == "" {
					t.Errorf("no cure: %+v", problem)
				}
			}
			if len(got) != len(tt.want) {
				t.Fatalf("found %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tt.want[i]) {
					t.Errorf("found %q, want %q", got[i], tt.want[i])
				}
			}
		})
	}
}
