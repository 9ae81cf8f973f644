package sms_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/sms"
)

// carrier is a vendor with abilities.
type carrier struct {
	name      string
	abilities sms.Abilities
}

func (c carrier) Name() string                                      { return c.name }
func (c carrier) Abilities() sms.Abilities                          { return c.abilities }
func (carrier) Send(context.Context, sms.Leg) (sms.Accepted, error) { return sms.Accepted{}, nil }

func TestPlan(t *testing.T) {
	t.Parallel()
	build := func(t *testing.T, rules ...string) *sms.Routing {
		t.Helper()
		texts := sms.Abilities{Channels: []sms.Channel{sms.SMS}}
		config := sms.RoutingConfig{Channels: []sms.Channel{sms.SMS, sms.WhatsApp}, Carriers: []sms.Carrier{
			{Vendor: carrier{"a", texts}, Senders: map[string]string{"": "ACME", "US": "+12025550100"}, Costs: map[string]float64{"": 0.05}},
			{Vendor: carrier{"b", sms.Abilities{Channels: []sms.Channel{sms.SMS, sms.WhatsApp}}}, Costs: map[string]float64{"": 0.01, "FR": 0.09}},
			{Vendor: carrier{"india", sms.Abilities{Channels: []sms.Channel{sms.SMS}, Countries: []string{"IN"}}}},
			{Vendor: carrier{"french", texts}, Countries: []string{"FR"}},
			{Vendor: carrier{"verifier", sms.Abilities{Kind: sms.Verifier, Channels: []sms.Channel{sms.SMS}, Countries: []string{"DE"}}}},
			{Vendor: carrier{"hybrid", sms.Abilities{Kind: sms.Hybrid, Channels: []sms.Channel{sms.SMS}, Countries: []string{"DE"}}}},
			{Vendor: carrier{"template", sms.Abilities{Channels: []sms.Channel{sms.WhatsApp}, Countries: []string{"DE"}, CodesOnly: true}}},
		}}
		for _, text := range rules {
			rule, err := sms.ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			config.Rules = append(config.Rules, rule)
		}
		routing, err := sms.NewRouting(config)
		if err != nil {
			t.Fatal(err)
		}
		return routing
	}
	for _, tt := range []struct{ name, rules, to, purpose, want string }{
		{name: "no rule: as they are configured", to: "+12025550143", want: "a/sms b/sms b/whatsapp"},
		{name: "a vendor for one country", to: "+33612345678", want: "a/sms b/sms french/sms b/whatsapp"},
		{name: "a vendor that serves one country", to: "+919876543210", want: "a/sms b/sms india/sms b/whatsapp"},
		{name: "a code, by whoever has codes or templates of its own", to: "+4915123456789", want: "a/sms b/sms verifier/sms hybrid/sms b/whatsapp template/whatsapp"},
		{name: "a notice, by whoever carries texts", to: "+4915123456789", purpose: sms.Notice, want: "a/sms b/sms b/whatsapp"},
		{name: "a reply, by whoever carries texts", to: "+4915123456789", purpose: "reply_stop", want: "a/sms b/sms b/whatsapp"},
		{name: "country", rules: "country=FR|DE vendor=french|b channel=sms", to: "+33612345678", want: "french/sms b/sms"},
		{name: "another country", rules: "country=FR vendor=french", to: "+12025550143", want: "a/sms b/sms b/whatsapp"},
		{name: "prefix", rules: "prefix=+1202 vendor=b channel=whatsapp,sms", to: "+12025550143", want: "b/whatsapp b/sms"},
		{name: "purpose", rules: "purpose=step_up vendor=a", to: "+12025550143", purpose: "step_up", want: "a/sms"},
		{name: "cost", rules: "order=cost channel=sms", to: "+12025550143", want: "b/sms a/sms"},
		{name: "cost by country", rules: "order=cost channel=sms vendor=a,b", to: "+33612345678", want: "a/sms b/sms"},
		{name: "the first rule that matches", rules: "country=US vendor=b channel=sms; vendor=a", to: "+12025550143", want: "b/sms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var rules []string
			for rule := range strings.SplitSeq(tt.rules, ";") {
				if rule != "" {
					rules = append(rules, rule)
				}
			}
			to, err := sms.ParseNumber(tt.to, "")
			if err != nil {
				t.Fatal(err)
			}
			purpose := tt.purpose
			if purpose == "" {
				purpose = "login"
			}
			plan, rule, all := build(t, rules...).Plan(to, purpose)
			var got []string
			for _, r := range plan {
				got = append(got, r.Vendor+"/"+string(r.Channel))
				if want := map[bool]string{true: "+12025550100", false: "ACME"}[to.Country() == "US"]; r.Vendor == "a" && r.Sender != want {
					t.Errorf("sender of a = %q, want %q", r.Sender, want)
				}
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("plan = %s, want %s (%s, %+v)", s, tt.want, rule, all)
			}
			for _, c := range all {
				if c.Reason == "" {
					t.Errorf("%s is not explained", fmt.Sprint(c))
				}
			}
		})
	}
}

func TestRulesThatAreWrong(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"vendor", "country=", "country=XX1", "prefix=44", "prefix=+", "channel=pigeon", "order=random", "colour=blue"} {
		if _, err := sms.ParseRule(text); err == nil {
			t.Errorf("rule %q was accepted", text)
		}
	}
	rule, err := sms.ParseRule("vendor=nobody")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sms.NewRouting(sms.RoutingConfig{Rules: []sms.Rule{rule}}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a rule for a vendor without settings: %v", err)
	}
	twice := []sms.Carrier{{Vendor: carrier{name: "a"}}, {Vendor: carrier{name: "a"}}}
	if _, err := sms.NewRouting(sms.RoutingConfig{Carriers: twice}); err == nil {
		t.Error("two vendors of one name were accepted")
	}
}

func TestReadKeyword(t *testing.T) { // WH-8, WH-10
	t.Parallel()
	for text, want := range map[string]sms.Keyword{
		"stop": sms.KeywordStop, " STOP. ": sms.KeywordStop, "Stop!": sms.KeywordStop, "UNSUBSCRIBE": sms.KeywordStop, "opt out": sms.KeywordStop, "Opt-Out": sms.KeywordStop,
		"quit": sms.KeywordStop, "fin": sms.KeywordStop, "STOPALL": sms.KeywordStop, "cancel": sms.KeywordStop, "End": sms.KeywordStop, "revoke": sms.KeywordStop,
		"ＳＴＯＰ": sms.KeywordStop, "\"stop\"": sms.KeywordStop, "arrêt": sms.KeywordStop,
		"START": sms.KeywordStart, "unstop": sms.KeywordStart, "Yes": sms.KeywordStart, "HELP": sms.KeywordHelp, "info?": sms.KeywordHelp,
		"": "", "don't stop": "", "please stop texting me": "", "stop 2": "", "123456": "", "nonstop": "", strings.Repeat("stop", 500): "",
	} {
		if got := sms.ReadKeyword(text); got != want {
			t.Errorf("ReadKeyword(%.20q) = %q, want %q", text, got, want)
		}
	}
}
