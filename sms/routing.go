package sms

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/text/language"
)

// Carrier is a vendor as an operator uses it.
type Carrier struct {
	Vendor Vendor
	// Senders are sender ids by country, ISO 3166-1 alpha-2; that under "" is for every other country.
	Senders map[string]string
	// Countries that it is used for. Nil: all that the vendor serves.
	Countries []string
	// Costs of one text by country, in whatever unit the operator compares them; that under "" is for every other country.
	Costs map[string]float64

	breaker *gobreaker.TwoStepCircuitBreaker[any]
	probes  *atomic.Int32 // calls under way while it is tried again
}

// Rule chooses vendors. Empty fields match everything.
type Rule struct {
	Countries []string
	Prefixes  []string // of E.164: "+4479"
	Purposes  []string
	Channels  []Channel // in the order in which they are tried. Empty: those of [Routing]
	Vendors   []string  // in the order in which they are tried. Empty: all, as they are configured
	Cheapest  bool      // the cheapest first, instead; those whose cost is not known last
	Text      string    // as it was written, for explanations
}

// ParseRule reads a rule as operators write it: words key=value,… (or key=value|…) in any order, of country, prefix, purpose, channel, vendor and order=cost.
// "country=FR,BE channel=sms,voice vendor=octopush,twilio".
func ParseRule(text string) (Rule, error) {
	rule := Rule{Text: text}
	for word := range strings.FieldsSeq(text) {
		key, list, found := strings.Cut(word, "=")
		values := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '|' })
		if !found || len(values) == 0 {
			return rule, fmt.Errorf("%q is not key=value", word)
		}
		switch key {
		case "country":
			for i, country := range values {
				values[i] = strings.ToUpper(country)
				if region, err := language.ParseRegion(country); err != nil || !region.IsCountry() || len(country) != 2 {
					return rule, fmt.Errorf("%q is not a country: write ISO 3166-1 codes of two letters", country)
				}
			}
			rule.Countries = values
		case "prefix":
			for _, prefix := range values {
				if len(prefix) < 2 || prefix[0] != '+' || strings.Trim(prefix[1:], "0123456789") != "" {
					return rule, fmt.Errorf("%q is not a prefix: write + and digits", prefix)
				}
			}
			rule.Prefixes = values
		case "purpose":
			for _, purpose := range values {
				if !slices.Contains(Purposes(), purpose) {
					return rule, fmt.Errorf("%q is not a purpose: write %s", purpose, strings.Join(Purposes(), ", "))
				}
			}
			rule.Purposes = values
		case "channel":
			for _, name := range values {
				channel := Channel(name)
				if channel != SMS && channel != WhatsApp && channel != Voice {
					return rule, fmt.Errorf("%q is not a channel: write sms, whatsapp or voice", name)
				}
				rule.Channels = append(rule.Channels, channel)
			}
		case "vendor":
			rule.Vendors = values
		case "order":
			if list != "cost" {
				return rule, fmt.Errorf("order=%s: only order=cost is known; without it vendors are tried as they are listed", list)
			}
			rule.Cheapest = true
		default:
			return rule, fmt.Errorf("%q is not known: write country, prefix, purpose, channel, vendor or order", key)
		}
	}
	return rule, nil
}

func (r *Rule) matches(to Number, purpose string) bool {
	return (len(r.Countries) == 0 || slices.Contains(r.Countries, to.Country())) &&
		(len(r.Purposes) == 0 || slices.Contains(r.Purposes, purpose)) &&
		(len(r.Prefixes) == 0 || slices.ContainsFunc(r.Prefixes, func(p string) bool { return strings.HasPrefix(to.Reveal(), p) }))
}

// Routing chooses the way of each message. It is safe for concurrent use. Make one with [NewRouting].
//
// Health is this process's own: a breaker opens after three calls in a row that the vendor is to blame for, or when half of ten
// or more in 30 seconds failed, and lets a few through again after five seconds.
type Routing struct {
	carriers []*Carrier
	rules    []Rule
	channels []Channel
}

// Bounds of a breaker.
const (
	breakerRow      = 3
	breakerRequests = 10
	breakerWindow   = 30 * time.Second
	breakerOpen     = 5 * time.Second
	breakerProbes   = 3
)

// RoutingConfig is what an operator decides.
type RoutingConfig struct {
	Carriers []Carrier
	// Rules of which the first that matches decides. Where none does, all carriers are used, in their order.
	Rules []Rule
	// Channels in the order in which they are tried, where the rule names none. Default: text messages alone.
	Channels []Channel
	// Changed, when set, is told when a breaker opens or closes.
	Changed func(vendor string, up bool)
	// Recovery is how long a breaker is open before it lets calls through again. Default 5 s.
	Recovery time.Duration
}

// NewRouting makes a routing. Its error joins everything that is wrong.
func NewRouting(c RoutingConfig) (*Routing, error) {
	r := &Routing{rules: c.Rules, channels: c.Channels}
	if c.Recovery == 0 {
		c.Recovery = breakerOpen
	}
	if len(r.channels) == 0 {
		r.channels = []Channel{SMS}
	}
	var problems []error
	for _, carrier := range c.Carriers {
		if r.carrier(carrier.Vendor.Name()) != nil {
			problems = append(problems, fmt.Errorf("two vendors are named %q", carrier.Vendor.Name()))
		}
		carrier.probes = new(atomic.Int32)
		carrier.breaker = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
			Name: carrier.Vendor.Name(), MaxRequests: breakerProbes, Interval: breakerWindow, BucketPeriod: breakerWindow / 6, Timeout: c.Recovery,
			ReadyToTrip: func(n gobreaker.Counts) bool {
				return n.ConsecutiveFailures >= breakerRow || n.Requests >= breakerRequests && 2*n.TotalFailures >= n.Requests
			},
			OnStateChange: func(name string, _, to gobreaker.State) {
				if c.Changed != nil && to != gobreaker.StateHalfOpen {
					c.Changed(name, to == gobreaker.StateClosed)
				}
			},
		})
		r.carriers = append(r.carriers, &carrier)
	}
	for _, rule := range r.rules {
		channels, leads := rule.Channels, len(rule.Vendors) == 0
		if len(channels) == 0 {
			channels = r.channels
		}
		for _, name := range rule.Vendors {
			c := r.carrier(name)
			if c == nil {
				problems = append(problems, fmt.Errorf("rule %q names vendor %q, which has no settings", rule.Text, name))
				leads = true
				continue
			}
			leads = leads || slices.ContainsFunc(channels, func(ch Channel) bool { return slices.Contains(c.Vendor.Abilities().Channels, ch) })
		}
		if !leads {
			problems = append(problems, fmt.Errorf("rule %q leads nowhere: none of its vendors has one of the channels %v", rule.Text, channels))
		}
	}
	return r, errors.Join(problems...)
}

func (r *Routing) carrier(name string) *Carrier {
	for _, c := range r.carriers {
		if c.Vendor.Name() == name {
			return c
		}
	}
	return nil
}

// Vendors lists every vendor, in order.
func (r *Routing) Vendors() []Vendor {
	vendors := make([]Vendor, 0, len(r.carriers))
	for _, c := range r.carriers {
		vendors = append(vendors, c.Vendor)
	}
	return vendors
}

// Vendor finds one by name.
func (r *Routing) Vendor(name string) (Vendor, bool) {
	if c := r.carrier(name); c != nil {
		return c.Vendor, true
	}
	return nil, false
}

// Up reports whether the vendor is used: its breaker is closed, or open for so long that it is tried again.
func (r *Routing) Up(name string) bool {
	c := r.carrier(name)
	return c != nil && c.breaker.State() != gobreaker.StateOpen
}

// Down reports whether nothing gets through at the moment: every vendor's breaker is open.
func (r *Routing) Down() bool {
	return !slices.ContainsFunc(r.carriers, func(c *Carrier) bool { return r.Up(c.Vendor.Name()) })
}

// admit asks whether one more call may be planned. A vendor that is tried again after an outage gets few at once. release has to be called when the call is over or
// is not made after all.
func (r *Routing) admit(name string) (release func(), ok bool) {
	c := r.carrier(name)
	switch c.breaker.State() {
	case gobreaker.StateOpen:
		return nil, false
	case gobreaker.StateHalfOpen:
		if c.probes.Add(1) > breakerProbes {
			c.probes.Add(-1)
			return nil, false
		}
		return func() { c.probes.Add(-1) }, true
	}
	return func() {}, true
}

// begun tells the vendor's breaker that a call is made; done has to be told how it ended.
func (r *Routing) begun(name string) (done func(*Error)) {
	report, err := r.carrier(name).breaker.Allow()
	if err != nil {
		return func(*Error) {} // it opened between plan and call
	}
	return func(failure *Error) { report(failure == nil || !failure.Class.blames()) }
}

// blames reports whether a failure is the vendor's as a whole: whoever is texted next will fail too. Senders and templates are a country's matter.
func (c Class) blames() bool {
	switch c {
	case Temporary, Ambiguous, Unauthorized, InsufficientFunds:
		return true
	}
	return false
}

// Route is one way to a phone.
type Route struct {
	Vendor  string
	Channel Channel
	Sender  string
	Cost    float64
	Priced  bool // the cost is known
}

// Considered is a way that was looked at, and why it is taken or not.
type Considered struct {
	Route
	Taken  bool
	Reason string
}

// Plan lists the ways to a number in the order in which they are tried, and tells of every one that was considered. Channels come one after another;
// within one, vendors that work before those that do not.
func (r *Routing) Plan(to Number, purpose string) (plan []Route, rule string, all []Considered) {
	chosen := Rule{}
	rule = "no rule: all vendors as they are configured"
	for i := range r.rules {
		if r.rules[i].matches(to, purpose) {
			chosen, rule = r.rules[i], "rule "+r.rules[i].Text
			break
		}
	}
	channels := chosen.Channels
	if len(channels) == 0 {
		channels = r.channels
	}
	names := chosen.Vendors
	if len(names) == 0 {
		for _, c := range r.carriers {
			names = append(names, c.Vendor.Name())
		}
	}
	for _, channel := range channels {
		var up, down []Considered
		for _, name := range names {
			c := r.carrier(name)
			way := Considered{Route: Route{Vendor: name, Channel: channel, Sender: of(c.Senders, to.Country()), Cost: of(c.Costs, to.Country())}}
			_, own := c.Costs[to.Country()]
			_, general := c.Costs[""]
			way.Priced = own || general
			a := c.Vendor.Abilities()
			switch {
			case !slices.Contains(a.Channels, channel):
				way.Reason = "has no such channel"
			case a.Countries != nil && !slices.Contains(a.Countries, to.Country()):
				way.Reason = "does not serve " + to.Country()
			case worded(purpose) && !a.carriesTexts():
				way.Reason = "carries codes only"
			case len(c.Countries) > 0 && !slices.Contains(c.Countries, to.Country()):
				way.Reason = "is not used for " + to.Country()
			case !r.Up(name):
				way.Taken, way.Reason = true, "does not work at the moment: only when nothing else does"
				down = append(down, way)
				continue
			default:
				way.Taken, way.Reason = true, "works"
				up = append(up, way)
				continue
			}
			all = append(all, way)
		}
		for _, ways := range [][]Considered{up, down} {
			if chosen.Cheapest {
				slices.SortStableFunc(ways, func(a, b Considered) int {
					switch {
					case a.Priced != b.Priced:
						if a.Priced {
							return -1
						}
						return 1
					case a.Cost < b.Cost:
						return -1
					case a.Cost > b.Cost:
						return 1
					}
					return 0
				})
			}
			all = append(all, ways...)
			for _, way := range ways {
				plan = append(plan, way.Route)
			}
		}
	}
	return plan, rule, all
}

func of[T any](byCountry map[string]T, country string) T {
	if found, ok := byCountry[country]; ok {
		return found
	}
	return byCountry[""]
}
