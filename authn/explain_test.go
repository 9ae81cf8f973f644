package authn_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/internal/audit"
)

// TestExplainIsWhatHappens makes random rules and random sign-ins, asks for an explanation, and then really signs in, through the database.
func TestExplainIsWhatHappens(t *testing.T) {
	t.Parallel()
	w := authntest.New(t, authntest.Device{})
	ids := map[string]uuid.UUID{"both": w.Subscriber(t, "both", "+12025550143"), "phone": w.Subscriber(t, "phone", "+12025550144"), "bare": w.Subscriber(t, "bare", ""), "device": w.Subscriber(t, "device", "")}
	w.Device(t, ids["both"])
	w.Device(t, ids["device"])
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	names := authn.DefaultLevelNames()
	outcomes := map[string]int{}
	for n := range 120 {
		var lines []string
		for range rnd.IntN(6) {
			asked := pick("", "", " scope=email", " acr="+names[authn.RestrictedLevel]+"|"+names[authn.UnrestrictedLevel])
			switches := []string{"off", "on"}
			if asked != "" {
				switches = switches[:1]
			}
			lines = append(lines, strings.TrimSpace(pick("", "client=a", "client=b|c")+asked+pick("", "", " group=staff", " group=ops|staff")+pick("", "", " from=192.0.2.0/24", " from=2001:db8::/32")+
				pick(" floor="+names[authn.PasswordLevel], " floor="+names[authn.RestrictedLevel], " floor="+names[authn.UnrestrictedLevel], " remember="+pick(switches...))+
				pick("", "", " factor=sms", " factor=device", " factor=device|sms")+pick("", " enrol="+pick(switches...))))
		}
		policy := authn.DefaultConfig().Policy
		policy.Installed = w.Service.Kinds()
		for _, line := range lines {
			rule, err := authn.ParseRule(line, names, []string{"device", "sms"})
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			policy.Rules = append(policy.Rules, rule)
		}
		w.Service.Config.Policy = policy

		who, from := pick("both", "phone", "bare", "device"), pick("192.0.2.1", "198.51.100.1", "2001:db8::1")
		if err := w.Service.SetGroups(t.Context(), ids[who], strings.Fields(pick("", "staff", "ops", "ops staff", "other"))); err != nil {
			t.Fatal(err)
		}
		asks := authntest.Beginning()
		asks.RelyingParty.ID, asks.RelyingParty.FirstParty = pick("a", "b", "c"), rnd.IntN(3) > 0
		asks.RelyingParty.Floor = []authn.Level{authn.NoLevel, authn.NoLevel, authn.PasswordLevel, authn.UnrestrictedLevel}[rnd.IntN(4)]
		asks.Requirement.Scopes = strings.Fields(pick("openid", "openid email"))
		for level := authn.PasswordLevel; level <= authn.UnrestrictedLevel; level++ {
			if rnd.IntN(4) == 0 {
				asks.Requirement.Levels = append(asks.Requirement.Levels, level)
			}
		}

		u, err := w.Service.Find(t.Context(), who)
		if err != nil {
			t.Fatal(err)
		}
		ctx := authntest.From(t.Context(), from)
		told, err := w.Service.Explain(t.Context(), u, authn.Question{RelyingParty: asks.RelyingParty, Requirement: asks.Requirement, Source: audit.From(ctx).Source})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, step := range told.Steps {
			line := fmt.Sprint("step ", step.Step)
			for i, a := range step.Choices {
				line += fmt.Sprint(" ", a.ID)
				if i == 0 {
					line += " first"
				}
			}
			want = append(want, line)
		}
		want = append(want, ending(told.End))

		got := walk(authntest.From(t.Context(), from), t, w, who, asks)
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("seed %d, case %d: %s at %s from %s asks for levels %v and scopes %v under\n%s\n\nexplained:\n%s\n\nhappened:\n%s", seed, n, who, asks.RelyingParty.ID, from,
				asks.Requirement.Levels, asks.Requirement.Scopes, strings.Join(lines, "\n"), strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
		outcomes[strings.Fields(ending(told.End))[1]]++
		w.DB.Advance(t, 25*time.Hour) // a day has ten texts
	}
	for _, step := range []authn.Step{authn.StepDone, authn.StepFail, authn.StepEnrol} {
		if outcomes[fmt.Sprint(step)] == 0 {
			t.Errorf("seed %d: no case ended in step %d: %v", seed, step, outcomes)
		}
	}
}

func ending(d authn.Decision) string {
	return fmt.Sprintf("end %d %s level %d amr %v strength %d ruling %+v", d.Step, d.Failure, d.Level, d.AMR(), d.Strength, d.Ruling)
}

// walk signs in, and tells every step with what can be chosen, and the end.
func walk(ctx context.Context, t *testing.T, w *authntest.World, who string, asks authn.Beginning) (took []string) {
	t.Helper()
	var cookie authn.Cookie
	p, err := w.Service.Begin(ctx, cookie, asks)
	for range 9 {
		if err != nil {
			t.Fatal(err)
		}
		if p.Cookie != "" {
			cookie = p.Cookie
		}
		if p, err = w.Service.Load(ctx, cookie, p.SignIn.ID); err != nil { // as it is stored
			t.Fatal(err)
		}
		in, line := p.SignIn, fmt.Sprint("step ", p.Decision.Step)
		switch p.Decision.Step {
		case authn.StepPassword:
			p, err = w.Service.Password(ctx, cookie, uuid.Nil, in.ID, who, authntest.Password, "en")
		case authn.StepFactor:
			due := in.Challenge
			for _, a := range in.Session.Bound { // TX-15: whatever else is chosen is refused
				switch _, err := w.Service.Choose(ctx, cookie, in.ID, a.ID, "en"); {
				case err == nil && a.ID == due.AuthenticatorID:
					line += fmt.Sprint(" ", a.ID, " first")
				case err == nil:
					line += fmt.Sprint(" ", a.ID)
				case !errors.Is(err, authn.ErrNotThisStep):
					t.Fatal(err)
				}
			}
			if _, err := w.Service.Choose(ctx, cookie, in.ID, due.AuthenticatorID, "en"); err != nil {
				t.Fatal(err)
			}
			if p, err = w.Service.Load(ctx, cookie, in.ID); err != nil {
				t.Fatal(err)
			}
			code := authntest.DeviceCode
			if p.SignIn.Challenge.Kind != authntest.DeviceKind {
				code = w.Code(t, p.SignIn.Challenge.ID)
			}
			p, err = w.Service.Answer(ctx, cookie, p, code)
		case authn.StepConsent:
			p, err = w.Service.Consent(ctx, cookie, in.ID)
		default:
			return append(took, ending(p.Decision))
		}
		took = append(took, line)
	}
	t.Fatal("no end")
	return nil
}
