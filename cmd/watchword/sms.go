package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/sms"
)

func (p *Program) smsCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "sms", Short: "Look at texts, vendors, routes and opt-outs, and try them out", Example: "  watchword sms vendors\n  watchword sms route explain +442079460143",
	}
	route := &cobra.Command{Use: "route", Short: "Look at routes", Example: "  watchword sms route explain +442079460143"}
	route.AddCommand(p.smsRouteExplain())
	optouts := &cobra.Command{Use: "optouts", Short: "Look after opt-outs", Example: "  watchword sms optouts list"}
	optouts.AddCommand(p.smsOptoutsList(), p.smsOptoutsRestore())
	group.AddCommand(p.smsPreview(), p.smsVendors(), p.smsTest(), route, optouts)
	return group
}

func (p *Program) smsPreview() *cobra.Command {
	var service, host, app string
	var digits int
	cmd := &cobra.Command{
		Use: "preview", Short: "Show every text in every language, with its length", Args: cobra.NoArgs,
		Long: "Preview renders the texts as phones get them: for browsers, with the line that binds the code to the issuer's host, or with --app-hash\n" +
			"for an Android app. With --service and --host no configuration is needed. It exits with 3 when a text is too long and the shortest form takes its place.",
		Example: "  watchword sms preview\n  watchword sms preview --service 'Example Bank' --host login.example.com --app-hash FA+9qCX9VSu",
		RunE: func(*cobra.Command, []string) error {
			life := 10 * time.Minute
			if service == "" || host == "" {
				cfg, _, err := p.load()
				if err != nil {
					return err
				}
				d, err := newDelivery(cfg, keyring.Ephemeral(), nil)
				if err != nil {
					return &failure{code: exitFailed, err: errors.New("the configuration has problems"), problems: problemsOf(err)}
				}
				if digits == 0 {
					digits = cfg.OTP.Digits
				}
				return p.showTexts(d.texts, digits, cfg.OTP.Lifetime, app)
			}
			texts, err := sms.NewTexts(service, host)
			if err != nil {
				return fail(exitUsage, "choose a short name in characters of the GSM alphabet", "%w", err)
			}
			if digits == 0 {
				digits = 6
			}
			return p.showTexts(texts, digits, life, app)
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "name of the service (default sms.service_name)")
	cmd.Flags().StringVar(&host, "host", "", "host that codes are bound to (default the issuer's)")
	cmd.Flags().StringVar(&app, "app-hash", "", "hash of an Android app that reads the texts")
	cmd.Flags().IntVar(&digits, "digits", 0, "digits of the code (default otp.digits)")
	return cmd
}

func (p *Program) showTexts(texts *sms.Texts, digits int, life time.Duration, app string) error {
	all, err := texts.Preview(digits, life, app)
	if err != nil {
		return err
	}
	short := 0
	err = p.show(all, func(w io.Writer) {
		for _, t := range all {
			note := ""
			if t.Fallback {
				note = "\ttoo long: shortest form"
			}
			fmt.Fprintf(w, "%s\t%s\t%d bytes\t%s\t%s%s\n", t.Locale, t.Purpose, t.Bytes, t.Alphabet, count(t.Segments, "segment"), note)
			for line := range strings.SplitSeq(t.Text, "\n") {
				fmt.Fprintf(w, "  %s\n", line)
			}
		}
	})
	for _, t := range all {
		if t.Fallback {
			short++
		}
	}
	if err == nil && short > 0 {
		return fail(exitProblems, "shorten sms.service_name or the issuer's host name", "%s too long", count(short, "text"))
	}
	return err
}

// vendorRow is what is known of a vendor.
type vendorRow struct {
	Name        string   `json:"name"`
	Kind        string   `json:"kind"`
	Channels    []string `json:"channels"`
	Idempotency string   `json:"idempotency"`
	Receipts    string   `json:"receipts"`
	Callback    string   `json:"callback,omitempty"`
	Works       string   `json:"works,omitempty"`
}

func (p *Program) smsVendors() *cobra.Command {
	var ping bool
	cmd := &cobra.Command{
		Use: "vendors", Short: "List the vendors that have settings", Args: cobra.NoArgs,
		Long:    "Vendors shows what each can do and the address that it is to report to. With --ping the credentials are tried, where a vendor has a call for that.",
		Example: "  watchword sms vendors --ping",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := p.load()
			if err != nil {
				return err
			}
			d, err := newDelivery(cfg, keyring.Ephemeral(), nil)
			if err != nil {
				return &failure{code: exitFailed, err: errors.New("the configuration has problems"), problems: problemsOf(err)}
			}
			rows, broken := []vendorRow{}, 0
			for _, v := range d.routing.Vendors() {
				row := describe(v, d.callback(cfg))
				if ping {
					row.Works = tryVendor(cmd.Context(), v)
					if strings.HasPrefix(row.Works, "no") {
						broken++
					}
				}
				rows = append(rows, row)
			}
			if len(rows) == 0 {
				p.say("No vendor has settings.")
			}
			err = p.show(rows, func(w io.Writer) {
				for _, r := range rows {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Kind, strings.Join(r.Channels, ","), r.Idempotency, r.Receipts, r.Works)
				}
			})
			if err == nil && broken > 0 {
				return fail(exitProblems, "look at its keys under sms.vendors", "%s not work", count(broken, "vendor does"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&ping, "ping", false, "try the credentials")
	return cmd
}

func describe(v sms.Vendor, callback func(string) string) vendorRow {
	a := v.Abilities()
	row := vendorRow{
		Name: v.Name(), Kind: map[sms.Kind]string{sms.Gateway: "gateway", sms.Verifier: "verifier", sms.Hybrid: "hybrid"}[a.Kind],
		Idempotency: map[sms.Idempotency]string{sms.NoKey: "no key", sms.Replay: "replays", sms.Refuse: "refuses repeats"}[a.Idempotency], Receipts: "no receipts",
	}
	for _, c := range a.Channels {
		row.Channels = append(row.Channels, string(c))
	}
	if _, ok := v.(sms.Poller); ok {
		row.Receipts = "asked for receipts"
	}
	if _, ok := v.(sms.Receiver); ok {
		row.Receipts, row.Callback = "receipts", callback(v.Name())
	}
	return row
}

// vendorTimeout bounds a trial.
const vendorTimeout = 15 * time.Second

func tryVendor(ctx context.Context, v sms.Vendor) string {
	pinger, ok := v.(sms.Pinger)
	if !ok {
		return "cannot be tried without sending: use sms test --to"
	}
	ctx, cancel := context.WithTimeout(ctx, vendorTimeout)
	defer cancel()
	balance, err := pinger.Ping(ctx)
	switch {
	case err != nil:
		return "no: " + oneLine(err)
	case strings.TrimSpace(balance) != "":
		return "yes, " + balance + " left"
	}
	return "yes"
}

func (p *Program) smsTest() *cobra.Command {
	var to, name, channel string
	cmd := &cobra.Command{
		Use: "test", Short: "Send one text to your own phone", Args: cobra.NoArgs,
		Long: "Test sends a text with a made-up code to a number, through the vendor that the routes choose or the one that you name, and says what the\n" +
			"vendor answered. It is sent directly: no limit counts it, and nothing is stored.",
		Example: "  watchword sms test --to +12025550143\n  watchword sms test --to +12025550143 --vendor twilio",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := p.load()
			if err != nil {
				return err
			}
			d, err := newDelivery(cfg, keyring.Ephemeral(), nil)
			if err != nil {
				return &failure{code: exitFailed, err: errors.New("the configuration has problems"), problems: problemsOf(err)}
			}
			number, err := p.number(to, cfg)
			if err != nil {
				return err
			}
			plan, _, _ := d.routing.Plan(number, "login")
			var route *sms.Route
			for i := range plan {
				if (name == "" || plan[i].Vendor == name) && (channel == "" || string(plan[i].Channel) == channel) {
					route = &plan[i]
					break
				}
			}
			if route == nil {
				return fail(exitFailed, "see why with: watchword sms route explain "+to, "no such way leads to this number")
			}
			v, _ := d.routing.Vendor(route.Vendor)
			defer linked(cmd.Context(), v)()
			text, locale := d.texts.Code("login", cfg.DefaultLocale, strings.Repeat("1", cfg.OTP.Digits), cfg.OTP.Lifetime, "")
			ctx, cancel := context.WithTimeout(cmd.Context(), vendorTimeout)
			defer cancel()
			leg := sms.Leg{ID: uuid.New(), To: number, Channel: route.Channel, Sender: route.Sender, Text: text, Code: strings.Repeat("1", cfg.OTP.Digits), Purpose: "login", Locale: locale, Life: cfg.OTP.Lifetime}
			accepted, err := v.Send(ctx, leg)
			if err != nil {
				f := fail(exitFailed, cureOf(err), "%s did not take it: %w", route.Vendor, err)
				return f
			}
			return p.show(map[string]string{"vendor": route.Vendor, "channel": string(route.Channel), "reference": accepted.Ref}, func(w io.Writer) {
				fmt.Fprintf(w, "%s took it by %s\t%s\n", route.Vendor, route.Channel, accepted.Ref)
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "your phone's number, with + and country code")
	cmd.Flags().StringVar(&name, "vendor", "", "vendor to use (default: as the routes choose)")
	cmd.Flags().StringVar(&channel, "channel", "", "sms, whatsapp or voice (default: as the routes choose)")
	return cmd
}

// linked brings up the connection of a vendor that keeps one, and gives what ends it.
func linked(ctx context.Context, v sms.Vendor) (end func()) {
	link, ok := v.(sms.Subscriber)
	pinger, pings := v.(sms.Pinger)
	if !ok || !pings {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, vendorTimeout)
	ended := make(chan error, 1)
	go func() { ended <- link.Run(ctx, func(context.Context, sms.Received) error { return nil }) }()
	for ctx.Err() == nil {
		if _, err := pinger.Ping(ctx); err == nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(linkPause):
		}
	}
	return func() {
		cancel()
		<-ended
	}
}

// linkPause is how often a connection that is being made is looked at.
const linkPause = 100 * time.Millisecond

// cureOf says what to do about a vendor's refusal.
func cureOf(err error) string {
	e, ok := errors.AsType[*sms.Error](err)
	if !ok {
		return ""
	}
	switch e.Class {
	case sms.Unauthorized:
		return "the credentials are wrong, or the account is closed: look at its keys under sms.vendors"
	case sms.InsufficientFunds:
		return "top up the account"
	case sms.InvalidSender:
		return "the sender is not registered for this country: look at sender and senders"
	case sms.InvalidRecipient:
		return "the vendor does not know the number"
	case sms.RegionBlocked:
		return "allow the country in the vendor's dashboard"
	case sms.RateLimited:
		return "wait, and try again"
	case sms.Temporary, sms.Ambiguous:
		return "see that the vendor's address is reachable from here, and try again"
	case sms.RecipientOptedOut:
		return "the phone has to send START to the sender"
	}
	return "look the code up in the vendor's documentation"
}

// number reads a phone number argument.
func (*Program) number(text string, cfg *config.Config) (sms.Number, error) {
	region := ""
	if len(cfg.SMS.Countries) == 1 && cfg.SMS.Countries[0] != config.AllCountries {
		region = cfg.SMS.Countries[0]
	}
	n, err := sms.ParseNumber(text, region)
	if err != nil {
		return sms.Number{}, fail(exitUsage, "write it with + and country code, such as +12025550143", "that is not the number of a phone that gets texts")
	}
	return n, nil
}

func (p *Program) smsRouteExplain() *cobra.Command {
	var purpose string
	cmd := &cobra.Command{
		Use: "explain NUMBER", Short: "Say which way a text to a number takes, and why", Args: cobra.ExactArgs(1),
		Example: "  watchword sms route explain +442079460143\n  watchword sms route explain +33612345678 --purpose step_up",
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, _, err := p.load()
			if err != nil {
				return err
			}
			d, err := newDelivery(cfg, keyring.Ephemeral(), nil)
			if err != nil {
				return &failure{code: exitFailed, err: errors.New("the configuration has problems"), problems: problemsOf(err)}
			}
			n, err := p.number(args[0], cfg)
			if err != nil {
				return err
			}
			_, rule, all := d.routing.Plan(n, purpose)
			type row struct {
				Order   int     `json:"order,omitempty"` // in which it is tried; 0: never
				Vendor  string  `json:"vendor"`
				Channel string  `json:"channel"`
				Sender  string  `json:"sender,omitempty"`
				Cost    float64 `json:"cost,omitempty"`
				Reason  string  `json:"reason"`
			}
			served, rows, order := cfg.SMS.Served(n.Country()), []row{}, 0
			for _, c := range all {
				r := row{Vendor: c.Vendor, Channel: string(c.Channel), Sender: c.Sender, Cost: c.Cost, Reason: c.Reason}
				if c.Taken && served {
					order++
					r.Order = order
				}
				rows = append(rows, r)
			}
			err = p.show(map[string]any{"country": n.Country(), "served": served, "rule": rule, "ways": rows}, func(w io.Writer) {
				fmt.Fprintf(w, "%s, %s\n", n.Country(), rule)
				for _, r := range rows {
					mark := "-"
					if r.Order > 0 {
						mark = fmt.Sprint(r.Order)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", mark, r.Vendor, r.Channel, r.Sender, r.Reason)
				}
			})
			switch {
			case err != nil:
				return err
			case !served:
				return fail(exitProblems, "add it to sms.countries", "%s is not texted", n.Country())
			case order == 0:
				return fail(exitProblems, "give a vendor that serves the country settings, or change sms.routes", "no way leads to this number")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&purpose, "purpose", "login", "what the text is for: "+strings.Join(sms.Purposes(), ", "))
	return cmd
}

// desk is what opt-outs are looked after with.
func (s *services) desk() *sms.Desk { return &sms.Desk{DB: s.db, Keys: s.ring} }

func (p *Program) smsOptoutsList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Export who opted out of which sender, and when", Args: cobra.NoArgs,
		Long:    "List writes every opt-out there ever was, the newest first, with the whole number: it is the record that regulators ask for. Treat it as personal data.",
		Example: "  watchword sms optouts list --format json > optouts.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				all, err := s.desk().OptOuts(ctx)
				if err != nil {
					return err
				}
				if len(all) == 0 {
					p.say("Nobody has opted out.")
				}
				return p.show(all, func(w io.Writer) {
					for _, o := range all {
						in := "stands"
						if o.InAt != nil {
							in = "until " + o.InAt.UTC().Format(time.RFC3339)
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", o.Number, o.Country, o.Sender, o.Source, o.OutAt.UTC().Format(time.RFC3339), in)
					}
				})
			})
		},
	}
}

func (p *Program) smsOptoutsRestore() *cobra.Command {
	return &cobra.Command{
		Use: "restore NUMBER", Short: "End the opt-outs of a number whose owner asked for it", Args: cobra.ExactArgs(1),
		Long:    "Restore is for people who ask you instead of sending START. Keep their request: consent has to be proved.",
		Example: "  watchword sms optouts restore +12025550143 --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				n, err := p.number(args[0], s.cfg)
				if err != nil {
					return err
				}
				if err := p.confirm("Text this number again, because its owner asked for it?"); err != nil {
					return err
				}
				ended, err := s.desk().Restore(ctx, n)
				if err != nil {
					return err
				}
				if ended == 0 {
					return fail(exitNotFound, "see: watchword sms optouts list", "this number has not opted out")
				}
				p.say("Ended %s.", count(ended, "opt-out"))
				return nil
			})
		},
	}
}
