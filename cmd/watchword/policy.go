package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/oidc"
	"github.com/watchword-auth/watchword/sms"
)

// setPolicy reads the policy. Its error joins a [config.Problem] for everything that is wrong.
func setPolicy(policy *authn.Policy, cfg *config.Config, levels authn.LevelNames, kinds []authn.Kind) error {
	const rules = "write rules as: client=shop group=staff floor=urn:watchword:acr:3 remember=off"
	var problems []error
	report := func(key, what, cure string) {
		problems = append(problems, &config.Problem{Key: key, What: what, Cure: cure})
	}
	policy.Enrol, policy.Installed = cfg.Policy.Enrol, kinds
	if name := cfg.Policy.Floor; name != "" {
		level, known := levels.Level(name)
		if policy.Floor = level; !known {
			report("policy.floor", fmt.Sprintf("%q is not the name of a level", name), "choose one of "+strings.Join(levels.Supported(authn.UnrestrictedLevel), ", "))
		}
	}
	names := make([]string, len(kinds))
	for i, kind := range kinds {
		names[i] = kind.Name
	}
	policy.Rules = nil
	for _, text := range cfg.Policy.Rules {
		rule, err := authn.ParseRule(text, levels, names)
		if err != nil {
			report("policy.rules", fmt.Sprintf("rule %q: %v", text, err), rules)
			continue
		}
		policy.Rules = append(policy.Rules, rule)
	}
	if len(problems) == 0 { // rules that cannot be read would be missed by those that can
		for _, problem := range policy.Check(levels) {
			if problem.Rule < 0 {
				report("policy.floor", problem.What, problem.Cure)
				continue
			}
			report("policy.rules", fmt.Sprintf("rule %d, %q: %s", problem.Rule+1, policy.Rules[problem.Rule].Text, problem.What), problem.Cure)
		}
	}
	return errors.Join(problems...)
}

// checkPolicy finds out whether the policy can be meant.
func checkPolicy(cfg *config.Config) error {
	var host string
	if issuer, err := url.Parse(cfg.Issuer); err == nil { // else it is told with the configuration, as what keeps texts and factors from being made is elsewhere
		host = issuer.Hostname()
	}
	if texts, err := sms.NewTexts(cfg.SMS.ServiceName, host); err == nil {
		if kinds, err := installed(cfg, keyring.Ephemeral(), texts, nil); err == nil {
			return setPolicy(new(authn.DefaultConfig().Policy), cfg, levelNames(cfg), authn.Kinds(kinds))
		}
	}
	return nil
}

func (p *Program) policyCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "policy", Short: "Look at what sign-ins have to reach, and why",
		Example: "  watchword policy list\n  watchword policy explain --user alice --client shop",
	}
	group.AddCommand(p.policyList(), p.policyExplain())
	return group
}

func (p *Program) policyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the rules in the order in which they are read", Args: cobra.NoArgs, Example: "  watchword policy list",
		Long: "List shows what policy says where no rule matches, and the rules. It exits with 3 if a rule names an application that does not exist.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				policy := s.signIns.Config.Policy
				type row struct {
					Rule    string   `json:"rule"`
					Unknown []string `json:"unknown_clients,omitempty"`
				}
				rows, unknown := make([]row, len(policy.Rules)), 0
				for i, rule := range policy.Rules {
					rows[i].Rule = rule.Text
					for _, id := range rule.Clients {
						switch _, err := s.clients.Get(ctx, id); {
						case errors.Is(err, oidc.ErrNoClient):
							rows[i].Unknown = append(rows[i].Unknown, id)
							unknown++
						case err != nil:
							return err
						}
					}
				}
				err := p.show(map[string]any{"floor": s.levels[policy.Floor], "enrol": policy.Enrol, "rules": rows}, func(w io.Writer) {
					fmt.Fprintf(w, "else\tfloor=%s remember=off enrol=%s\n", s.levels[policy.Floor], onOff(policy.Enrol))
					for i, r := range rows {
						fmt.Fprintf(w, "%d\t%s\n", i+1, r.Rule)
					}
				})
				if err == nil && unknown > 0 {
					return fail(exitProblems, "see: watchword client list", "no application is called %s", strings.Join(unknownOf(rows, func(r row) []string { return r.Unknown }), ", "))
				}
				return err
			})
		},
	}
}

func unknownOf[T any](rows []T, of func(T) []string) (all []string) {
	for _, r := range rows {
		all = append(all, of(r)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// explained is a sign-in that nobody has begun, as the command prints it. The JSON form is stable.
type explained struct {
	User    string   `json:"user"`
	Groups  []string `json:"groups"`
	Client  string   `json:"client"`
	Network string   `json:"network,omitempty"`
	Scopes  []string `json:"scopes"`
	ACRs    []string `json:"acr_values"`

	Registered string          `json:"registered_floor,omitempty"` // of the application
	Rules      []explainedRule `json:"rules"`
	Floor      string          `json:"floor"`
	Factors    []string        `json:"factors"` // kinds that are taken
	Remember   bool            `json:"remember"`
	Enrol      bool            `json:"enrol"`

	Steps   []explainedStep `json:"steps"`
	Outcome string          `json:"outcome"` // done, enrol or error
	ACR     string          `json:"acr,omitempty"`
	AMR     []string        `json:"amr,omitempty"`
	Error   string          `json:"error,omitempty"`
}

type explainedRule struct {
	Rule    string   `json:"rule"`
	Matches bool     `json:"matches"`
	Unmet   string   `json:"unmet,omitempty"`   // the condition that does not hold
	Decides []string `json:"decides,omitempty"` // what it decided, or tightened
	Idle    []string `json:"idle,omitempty"`    // what it says in vain
}

type explainedStep struct {
	Step    string        `json:"step"` // password, factor or consent
	Choices []shownChoice `json:"choices,omitempty"`
}

// shownChoice is an authenticator that can be asked for. The first is asked for unless another is chosen.
type shownChoice struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
	Hint string `json:"hint,omitempty"`
}

func (p *Program) policyExplain() *cobra.Command {
	var user, client, network string
	var acrs, scopes, groups []string
	cmd := &cobra.Command{
		Use: "explain", Short: "Say what a sign-in would ask for, how it would end, and which rules say so", Args: cobra.NoArgs,
		Long: "Explain begins a sign-in in a fresh browser, in thought: somebody who answers everything right, at an application that asks for these\n" +
			"scopes and levels. It asks the very functions that decide real ones, and stores nothing. It exits with 3 if the sign-in would not succeed.",
		Example: "  watchword policy explain --user alice --client shop\n" +
			"  watchword policy explain --user alice --client shop --acr urn:watchword:acr:3 --scope 'openid payments' --network 10.1.2.3 --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			source, err := parseSource(network)
			if err != nil {
				return err
			}
			if user == "" || client == "" {
				return fail(exitUsage, "add --user alice --client shop", "name the user and the application")
			}
			for _, name := range groups {
				if err := authn.CheckGroup(name); err != nil {
					return fail(exitUsage, "see: watchword policy explain --help", "%w", err)
				}
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, user)
				if err != nil {
					return err
				}
				if cmd.Flags().Changed("group") {
					u.Groups = groups
				}
				c, err := s.clients.Get(ctx, client)
				if err != nil {
					return clientFailure(err, client)
				}
				asked := spread(acrs)
				for _, name := range asked {
					if _, known := s.levels.Level(name); !known {
						return fail(exitUsage, "choose one of "+strings.Join(s.levels.Supported(authn.UnrestrictedLevel), ", "), "no level is called %q", name)
					}
				}
				e, err := s.explain(ctx, u, c, source, spread(scopes), asked)
				if err != nil {
					return err
				}
				if err := p.show(e, e.write); err != nil {
					return err
				}
				return e.failure(u, c)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&user, "user", "", "who signs in: user name, verified address, id or sub")
	flags.StringVar(&client, "client", "", "id of the application")
	flags.StringSliceVar(&acrs, "acr", nil, "levels that the application names in acr_values; several with spaces, or the flag several times")
	flags.StringSliceVar(&scopes, "scope", []string{"openid"}, "scopes that it asks for; several with spaces, or the flag several times")
	flags.StringSliceVar(&groups, "group", nil, "groups to take the user for, in place of their own; may be given several times")
	flags.StringVar(&network, "network", "", "address that the browser comes from, or a network: its first address is taken (default: one that is in no rule)")
	return cmd
}

// spread reads lists that are written with spaces, as protocols write them.
func spread(given []string) (all []string) {
	for _, list := range given {
		all = append(all, strings.Fields(list)...)
	}
	return all
}

func parseSource(network string) (netip.Addr, error) {
	if network == "" {
		return netip.Addr{}, nil
	}
	if prefix, err := netip.ParsePrefix(network); err == nil {
		return prefix.Masked().Addr(), nil
	}
	source, err := netip.ParseAddr(network)
	if err != nil {
		return source, fail(exitUsage, "write --network 10.1.2.3 or --network 10.0.0.0/8", "%q is not an address", network)
	}
	return source, nil
}

// explain puts together what policy says of a sign-in.
func (s *services) explain(ctx context.Context, u *authn.Subscriber, c *oidc.Client, source netip.Addr, scopes, acrs []string) (*explained, error) {
	redirect := ""
	if len(c.Registration.RedirectURIs) > 0 {
		redirect = c.Registration.RedirectURIs[0]
	}
	question := authn.Question{RelyingParty: c.RelyingParty(redirect), Requirement: c.Requirement(s.levels, scopes, acrs), Source: source}
	told, err := s.signIns.Explain(ctx, u, question)
	if err != nil {
		return nil, err
	}
	e := &explained{User: u.Username, Groups: append([]string{}, u.Groups...), Client: c.ID, Scopes: append([]string{}, question.Requirement.Scopes...), ACRs: append([]string{}, acrs...),
		Registered: s.levels[c.Registration.Floor], Rules: []explainedRule{}, Floor: s.levels[told.Ruling.Floor], Factors: []string{}, Remember: told.Ruling.Remember, Enrol: told.Ruling.Enrol,
		Steps: []explainedStep{}}
	if source.IsValid() {
		e.Network = source.String()
	}
	for _, v := range told.Path {
		e.Rules = append(e.Rules, explainedRule{Rule: v.Rule.Text, Matches: v.Unmet == "", Unmet: v.Unmet, Decides: v.Decides, Idle: v.Idle})
	}
	for _, kind := range s.signIns.Config.Policy.Installed {
		if told.Ruling.Takes(kind.Name) {
			e.Factors = append(e.Factors, kind.Name)
		}
	}
	for _, step := range told.Steps {
		shown := explainedStep{Step: map[authn.Step]string{authn.StepPassword: "password", authn.StepFactor: "factor", authn.StepConsent: "consent"}[step.Step]}
		for _, a := range step.Choices {
			shown.Choices = append(shown.Choices, shownChoice{a.ID.String(), a.Kind, a.Hint})
		}
		e.Steps = append(e.Steps, shown)
	}
	switch told.End.Step {
	case authn.StepDone:
		e.Outcome, e.ACR, e.AMR = "done", s.levels.Told(told.End.Level, acrs), told.End.AMR()
	case authn.StepEnrol:
		e.Outcome, e.Error = "enrol", string(authn.Unmet) // where they do not
	default:
		e.Outcome, e.Error = "error", string(told.End.Failure)
	}
	return e, nil
}

// failure is why the sign-in would not succeed.
func (e *explained) failure(u *authn.Subscriber, c *oidc.Client) error {
	switch {
	case c.DisabledAt != nil:
		return fail(exitProblems, "watchword client enable "+c.ID, "application %s is disabled: nobody can sign in to it", c.ID)
	case u.DisabledAt != nil:
		return fail(exitProblems, "watchword user enable "+u.Username, "%s is disabled and cannot sign in", u.Username)
	case !u.HasSecret:
		return fail(exitProblems, "watchword user set-password "+u.Username, "%s has no password and cannot sign in", u.Username)
	case e.Outcome == "enrol":
		return fail(exitProblems, "have them bind a factor that reaches it", "%s has no second factor", u.Username)
	case e.Outcome == "error":
		return fail(exitProblems, "have them bind another factor, or change policy.rules", "the application would be told %s", e.Error)
	}
	return nil
}

func (e *explained) write(w io.Writer) {
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	list := func(values []string) string {
		if len(values) == 0 {
			return "none"
		}
		return strings.Join(values, " ")
	}
	line("user", "%s, groups: %s", e.User, list(e.Groups))
	line("application", "%s, scopes: %s, acr_values: %s", e.Client, list(e.Scopes), list(e.ACRs))
	if e.Network != "" {
		line("from", "%s", e.Network)
	}
	for i, r := range e.Rules {
		var did []string
		if len(r.Decides) > 0 {
			did = append(did, "decides "+strings.Join(r.Decides, ", "))
		}
		if len(r.Idle) > 0 {
			did = append(did, "says in vain "+strings.Join(r.Idle, ", "))
		}
		if !r.Matches {
			did = []string{"does not match: " + r.Unmet}
		}
		line(fmt.Sprintf("rule %d", i+1), "%s: %s", r.Rule, strings.Join(did, "; "))
	}
	if e.Registered != "" {
		line("registration", "floor %s", e.Registered)
	}
	line("holds", "floor=%s factor=%s remember=%s enrol=%s", e.Floor, list(e.Factors), onOff(e.Remember), onOff(e.Enrol))
	for i, step := range e.Steps {
		var choices []string
		for _, c := range step.Choices {
			choices = append(choices, strings.TrimSpace(c.Kind+" "+c.Hint))
		}
		what := step.Step
		if len(choices) > 0 {
			what += ": " + strings.Join(choices, " or ")
		}
		line(fmt.Sprintf("step %d", i+1), "%s", what)
	}
	switch e.Outcome {
	case "done":
		line("end", "signed in, acr %s, amr %s", e.ACR, strings.Join(e.AMR, " "))
	case "enrol":
		line("end", "led to bind a second factor; without one %s", e.Error)
	default:
		line("end", "%s", e.Error)
	}
}
