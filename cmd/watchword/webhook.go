package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/events"
)

func (p *Program) webhookCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "webhook", Short: "Tell programs what happened", Example: "  watchword webhook create https://hooks.example.com/watchword --event 'vendor.*'\n  watchword webhook listen --forward-to http://localhost:3000/hooks",
		Long: "Webhooks are calls to addresses of tenants, of applications, or of whoever runs the server, that tell them what happened: see docs/webhooks.md.",
	}
	group.AddCommand(p.webhookList(), p.webhookCreate(), p.webhookTest(), p.webhookEvents(), p.webhookReplay(), p.webhookRotate(),
		p.webhookChange("enable", "Send events to a disabled endpoint again", "Events of the meantime are not sent by themselves: see watchword webhook replay.", "", (*events.Endpoints).Enable),
		p.webhookChange("disable", "Send an endpoint nothing any more", "What waits for the endpoint is dropped. Events stay, and can be replayed for 30 days.", "", (*events.Endpoints).Disable),
		p.webhookChange("delete", "Delete an endpoint and its secret", "", "Delete %s for good?", (*events.Endpoints).Delete),
		p.webhookListen())
	return group
}

// ownerUsage says how owners are written.
const ownerUsage = "whose: operator, tenant:ID or client:ID"

// owner reads --owner; "" is everybody, where that is allowed.
func owner(text string) (events.Owner, error) {
	if text == "" {
		return "", nil
	}
	o, err := events.ParseOwner(text)
	if err != nil {
		return "", fail(exitUsage, "write --owner operator, --owner tenant:ID or --owner client:ID", "that is not an owner")
	}
	return o, nil
}

// known refuses an owner that does not exist: its endpoint would never be told anything.
func known(ctx context.Context, s *services, o events.Owner) error {
	if name, found := strings.CutPrefix(string(o), string(events.Tenant(""))); found {
		_, err := s.gateway.Tenants.Get(ctx, name)
		return tenantFailure(err, name)
	}
	if id, found := strings.CutPrefix(string(o), string(events.Client(""))); found {
		_, err := s.clients.Get(ctx, id)
		return clientFailure(err, id)
	}
	return nil
}

// webhookFailure says what is wrong with what was asked for.
func webhookFailure(err error, id string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, events.ErrNotFound):
		return fail(exitNotFound, "see: watchword webhook list, watchword webhook events", "there is no %q", id)
	case !errors.Is(err, events.ErrInvalid):
		return err
	}
	parts := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		parts = joined.Unwrap()
	}
	var problems []*config.Problem
	for _, e := range parts {
		problem := &config.Problem{What: strings.TrimPrefix(e.Error(), events.ErrInvalid.Error()+": ")}
		switch {
		case errors.Is(e, egress.ErrForbidden):
			problem.Cure = "use a public https address; hosts inside are named in outbound.exempt_hosts"
		case strings.Contains(problem.What, "no event"):
			problem.Cure = "choose from docs/webhooks.md, or a family such as verification.*"
		}
		problems = append(problems, problem)
	}
	if len(problems) == 1 {
		return &failure{code: exitUsage, err: errors.New(problems[0].What), hint: problems[0].Cure}
	}
	return &failure{code: exitUsage, err: fmt.Errorf("the endpoint has %s", count(len(problems), "problem")), problems: problems}
}

// shownEndpoint is an endpoint as commands print it. The JSON form is stable.
type shownEndpoint struct {
	events.Endpoint
	Secret string `json:"secret,omitempty"` // once, when it was made
}

func (p *Program) showEndpoint(e events.Endpoint, secret string) error {
	if secret != "" {
		p.say("Keep the secret now: it is not shown again.")
	}
	return p.show(shownEndpoint{e, secret}, func(w io.Writer) {
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%s\t%s\n", name, value)
			}
		}
		line("id", e.ID)
		line("owner", string(e.Owner))
		line("url", e.URL)
		line("events", filterText(e.Events))
		line("description", e.Description)
		line("state", stateText(e))
		if e.PreviousUntil != nil {
			line("old secret until", e.PreviousUntil.UTC().Format(time.RFC3339))
		}
		line("secret", secret)
	})
}

func filterText(filter []string) string {
	if len(filter) == 0 {
		return "all"
	}
	return strings.Join(filter, ",")
}

func stateText(e events.Endpoint) string {
	switch {
	case e.DisabledReason != "":
		return e.State + " (" + e.DisabledReason + ")"
	case e.State == "failing" && e.FailingSince != nil:
		return "failing since " + e.FailingSince.UTC().Format(time.RFC3339)
	}
	return e.State
}

func (p *Program) webhookList() *cobra.Command {
	var whose string
	cmd := &cobra.Command{
		Use: "list", Short: "List endpoints and how they do", Args: cobra.NoArgs, Example: "  watchword webhook list\n  watchword webhook list --owner tenant:acme --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := owner(whose)
			if err != nil {
				return err
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				all, err := s.endpoints.List(ctx, o)
				if err != nil {
					return err
				}
				if len(all) == 0 {
					p.none("endpoint", "", "watchword webhook create")
				}
				return p.show(all, func(w io.Writer) {
					for _, e := range all {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d waiting\n", e.ID, e.Owner, cmp.Or(e.URL, "-"), filterText(e.Events), stateText(e), e.Waiting)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&whose, "owner", "", ownerUsage+"; empty: everybody's")
	return cmd
}

func (p *Program) webhookCreate() *cobra.Command {
	var n events.New
	whose := string(events.Operator)
	cmd := &cobra.Command{
		Use: "create URL", Short: "Make an endpoint that is told what happens", Args: one("the address"),
		Long: "Create makes an endpoint and prints the secret that signs what it is sent, once. The address is https and public, now and at every\n" +
			"call; the configuration exempts hosts inside (outbound.exempt_hosts). See that it works with: watchword webhook test",
		Example: "  watchword webhook create https://hooks.example.com/watchword\n  watchword webhook create https://acme.example.com/otp --owner tenant:acme --event 'verification.*' --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if n.Owner, err = owner(whose); err != nil {
				return err
			}
			n.URL = args[0]
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				if err := known(ctx, s, n.Owner); err != nil {
					return err
				}
				e, secret, err := s.endpoints.Create(ctx, n)
				if err != nil {
					return webhookFailure(err, "")
				}
				return p.showEndpoint(e, secret)
			})
		},
	}
	cmd.Flags().StringVar(&whose, "owner", whose, ownerUsage)
	cmd.Flags().StringSliceVar(&n.Events, "event", nil, "what it is told, such as verification.approved or verification.*; may be given several times (default everything)")
	cmd.Flags().StringVar(&n.Description, "description", "", "what it is for")
	return cmd
}

// cures of calls that were not taken.
var cures = map[string]string{
	events.Refused: "the endpoint has to answer with 2xx; redirects are not followed", events.Gone: "the endpoint says that it wants no events any more",
	events.Timeout: "answer first and work afterwards: see webhooks.timeout", events.Unreachable: "see that something listens there, and that this machine may call it",
	events.NoSuchHost: "the name does not resolve on this machine", events.BadTLS: "its certificate has to be valid for its name; authorities of your own are named in outbound.ca_file",
	events.Forbidden: "the address is not public, or not https; hosts inside are named in outbound.exempt_hosts",
}

// outcome is how an attempt ended, in a few words.
func outcome(a events.Attempt) string {
	text := a.Result
	if a.Status != 0 {
		text += fmt.Sprintf(" (%d)", a.Status)
	}
	return text
}

func (p *Program) webhookTest() *cobra.Command {
	return &cobra.Command{
		Use: "test ID", Short: "Send an endpoint an event of type webhook.test", Args: one("the endpoint"),
		Long:    "Test calls the endpoint once, from this machine, signed as everything else, and says what it answered. A disabled endpoint can be tested too.",
		Example: "  watchword webhook test whk_0b54f1d2a94c4a7cb8b9a3b1f2d5c6e7",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				e, err := s.endpoints.Get(ctx, "", args[0])
				if err != nil {
					return webhookFailure(err, args[0])
				}
				a, err := s.deliverer(slog.New(slog.DiscardHandler)).Test(ctx, e)
				if err != nil {
					return webhookFailure(err, args[0])
				}
				out := struct {
					Endpoint string `json:"endpoint"`
					Event    string `json:"event"`
					Result   string `json:"result"`
					Status   int    `json:"status,omitempty"`
					TookMS   int64  `json:"took_ms"`
				}{e.ID, a.Event, a.Result, a.Status, a.Took.Milliseconds()}
				if err := p.show(out, func(w io.Writer) { fmt.Fprintf(w, "%s\t%s\t%d ms\n", e.URL, outcome(a), out.TookMS) }); err != nil {
					return err
				}
				if a.Result != events.Delivered {
					return fail(exitFailed, cures[a.Result], "the endpoint did not take it: %s", outcome(a))
				}
				return nil
			})
		},
	}
}

func (p *Program) webhookEvents() *cobra.Command {
	var which events.Which
	whose := ""
	cmd := &cobra.Command{
		Use: "events", Short: "List what happened, and whether endpoints took it", Args: cobra.NoArgs,
		Example: "  watchword webhook events\n  watchword webhook events --endpoint whk_0b54f1d2a94c4a7cb8b9a3b1f2d5c6e7 --failed --since 72h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if which.Owner, err = owner(whose); err != nil {
				return err
			}
			if which.Owner == "" && which.Endpoint == "" {
				which.Owner = events.Operator
			}
			if err := atMost(which.Limit); err != nil {
				return err
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				all, err := s.endpoints.Events(ctx, which)
				if err != nil {
					return webhookFailure(err, which.Endpoint)
				}
				if len(all) == 0 {
					p.say("No event within %s.", which.Since)
				}
				return p.show(all, func(w io.Writer) {
					for _, e := range all {
						became := e.State
						if e.Result != "" && e.Result != events.Delivered {
							became += ": " + outcome(events.Attempt{Result: e.Result, Status: e.Status})
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.At.Format(time.RFC3339), e.ID, e.Type, e.Object, e.Endpoint, became)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&whose, "owner", "", ownerUsage+" (default operator, or whoever --endpoint belongs to)")
	choice(cmd, &which)
	cmd.Flags().IntVar(&which.Limit, "limit", 100, "how many")
	return cmd
}

// choice adds the flags that choose events.
func choice(cmd *cobra.Command, which *events.Which) {
	cmd.Flags().StringVar(&which.Endpoint, "endpoint", "", "those of this endpoint alone")
	cmd.Flags().DurationVar(&which.Since, "since", 24*time.Hour, "how far back, at most 720h")
	cmd.Flags().BoolVar(&which.Failed, "failed", false, "only what was not delivered")
}

func (p *Program) webhookReplay() *cobra.Command {
	var which events.Which
	cmd := &cobra.Command{
		Use: "replay [EVENT]", Short: "Send events once more", Args: cobra.MaximumNArgs(1),
		Long: "Replay sends one event again to the endpoints of its owner, or to --endpoint alone; without an event, everything since --since to\n" +
			"--endpoint. The ids (webhook-id) are the old ones: a receiver that keeps them does nothing twice. The server sends them, at once.",
		Example: "  watchword webhook replay evt_5f0c6a3e8d1b4f7e9a2c4d6e8f0a1b3c\n  watchword webhook replay --endpoint whk_0b54f1d2a94c4a7cb8b9a3b1f2d5c6e7 --since 72h --failed",
		RunE: func(cmd *cobra.Command, args []string) error {
			event := ""
			if len(args) == 1 {
				event = args[0]
			}
			if event == "" && which.Endpoint == "" {
				return fail(exitUsage, "see: watchword webhook replay --help", "name an event, or an endpoint with --endpoint")
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				n, err := s.endpoints.Replay(ctx, event, which)
				if err != nil {
					id := event
					if id == "" {
						id = which.Endpoint
					}
					return webhookFailure(err, id)
				}
				return p.show(struct {
					Queued int `json:"queued"`
				}{n}, func(w io.Writer) { fmt.Fprintf(w, "%s queued\n", count(n, "event")) })
			})
		},
	}
	choice(cmd, &which)
	return cmd
}

func (p *Program) webhookRotate() *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use: "rotate ID", Short: "Replace an endpoint's secret", Args: one("the endpoint"),
		Long: "Rotate prints a new secret, once. For as long as --overlap says everything is signed with both: give the receiver the new one in that\n" +
			"time. With --overlap 0s the old one is dead at once, as it has to be when somebody else knows it.",
		Example: "  watchword webhook rotate whk_0b54f1d2a94c4a7cb8b9a3b1f2d5c6e7 --overlap 48h --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				secret, err := s.endpoints.Rotate(ctx, "", args[0], overlap)
				if err != nil {
					return webhookFailure(err, args[0])
				}
				e, err := s.endpoints.Get(ctx, "", args[0])
				if err != nil {
					return webhookFailure(err, args[0])
				}
				return p.showEndpoint(e, secret)
			})
		},
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old secret signs too, at most 168h")
	return cmd
}

// webhookChange is a command that does one thing to one endpoint.
func (p *Program) webhookChange(verb, short, long, question string, do func(*events.Endpoints, context.Context, events.Owner, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Long: long, Args: one("the endpoint"), Example: "  watchword webhook " + verb + " whk_0b54f1d2a94c4a7cb8b9a3b1f2d5c6e7",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				e, err := s.endpoints.Get(ctx, "", args[0])
				if err != nil {
					return webhookFailure(err, args[0])
				}
				if question != "" {
					if err := p.confirm(fmt.Sprintf(question, e.ID)); err != nil {
						return err
					}
				}
				if err := do(s.endpoints, ctx, "", args[0]); err != nil {
					return webhookFailure(err, args[0])
				}
				p.say("Done: %s %s.", verb, e.ID)
				return nil
			})
		},
	}
}

// heard is what listen prints of an event in JSON, one a line. The form is stable.
type heard struct {
	Event  json.RawMessage `json:"event"`
	Result string          `json:"result"`
	Status int             `json:"status,omitempty"`
	TookMS int64           `json:"took_ms"`
}

func (p *Program) webhookListen() *cobra.Command {
	var n events.New
	var secretFile string
	whose := string(events.Operator)
	cmd := &cobra.Command{
		Use: "listen", Short: "Show events at your desk, and forward them to a program there", Args: cobra.NoArgs,
		Long: "Listen shows what happens from now on, and forwards it to a program on your machine as a server would: same body, same headers, signed\n" +
			"with a secret that it prints, or that of --secret-file. It needs the configuration and the key files of the server, as of watchword dev, and no\n" +
			"address that the server could reach. Every event is sent once. It ends with Ctrl-C, and leaves nothing behind.",
		Example: "  watchword webhook listen --forward-to http://localhost:3000/hooks --config ~/.local/share/watchword/watchword.yaml\n" +
			"  watchword webhook listen --owner tenant:acme --event 'verification.*' --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if n.Owner, err = owner(whose); err != nil {
				return err
			}
			secret := ""
			if secretFile != "" {
				if secret, err = p.secret("secret", secretFile, "--secret-file"); err != nil {
					return err
				}
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				if err := known(ctx, s, n.Owner); err != nil {
					return err
				}
				e, secret, err := s.endpoints.Listen(ctx, n, secret)
				if err != nil {
					return webhookFailure(err, "")
				}
				if p.format == "json" {
					if err := json.NewEncoder(p.Stdout).Encode(map[string]any{"listening": true, "endpoint": e.ID, "owner": e.Owner, "secret": secret}); err != nil {
						return err
					}
				}
				p.say("Listening for events of %s: %s. Press Ctrl-C to stop.", e.Owner, filterText(e.Events))
				if n.URL != "" && p.format == "text" {
					p.say("Forwarding to %s, signed with %s", n.URL, secret)
				}
				w := s.deliverer(slog.New(slog.DiscardHandler))
				if target, err := url.Parse(n.URL); err == nil { // whoever sits here may call what he likes
					w.Client = egress.New(egress.Config{Exempt: []string{target.Hostname()}, AllowHTTP: true, Timeout: w.Timeout}).Client()
				}
				return w.Listen(ctx, s.endpoints, e, p.hear(n.URL != ""))
			})
		},
	}
	cmd.Flags().StringVar(&whose, "owner", whose, ownerUsage)
	cmd.Flags().StringSliceVar(&n.Events, "event", nil, "what to listen for, such as verification.approved or verification.*; may be given several times (default everything)")
	cmd.Flags().StringVar(&n.URL, "forward-to", "", "address on your machine that is called with each event")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the secret that signs; - is the standard input (default one made for this run)")
	return cmd
}

// hear prints events as they come.
func (p *Program) hear(forwarded bool) func(events.Attempt, []byte) {
	return func(a events.Attempt, body []byte) {
		if p.format == "json" {
			json.NewEncoder(p.Stdout).Encode(heard{Event: body, Result: a.Result, Status: a.Status, TookMS: a.Took.Milliseconds()}) //nolint:errcheck,errchkjson // nobody reads
			return
		}
		var happened events.Payload
		if json.Unmarshal(body, &happened) != nil {
			return
		}
		fmt.Fprintf(p.Stdout, "%s  %s  %s  %s", happened.Timestamp.Format(time.RFC3339), a.Event, a.Type, happened.Data)
		if forwarded {
			fmt.Fprintf(p.Stdout, "  → %s in %d ms", outcome(a), a.Took.Milliseconds())
		}
		fmt.Fprintln(p.Stdout)
	}
}
