package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func (p *Program) smsCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "sms", Short: "Look at texts, vendors, routes and opt-outs, and try them out", Example: "  watchword sms vendors\n  watchword sms route explain +447400123456",
	}
	route := &cobra.Command{Use: "route", Short: "Look at routes", Example: "  watchword sms route explain +447400123456"}
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
			u, err := url.Parse("https://" + host)
			switch {
			case host != "" && (err != nil || u.Hostname() != host):
				return fail(exitUsage, "write the name alone, such as login.example.com", "--host is not a host name")
			case app != "" && !appHash.MatchString(app):
				return fail(exitUsage, "it has eleven characters: see the SMS Retriever API", "--app-hash is not the hash of an Android app")
			case digits != 0 && (digits < smsotp.MinDigits || digits > smsotp.MaxDigits):
				return fail(exitUsage, fmt.Sprintf("write %d to %d", smsotp.MinDigits, smsotp.MaxDigits), "--digits is out of bounds")
			}
			life := smsotp.MaxLife
			if service == "" || host == "" {
				cfg, err := p.texts(service, host)
				if err != nil {
					return err
				}
				service, life = cmp.Or(service, cfg.SMS.ServiceName), cfg.OTP.Lifetime
				if issuer, err := url.Parse(cfg.Issuer); err == nil {
					host = cmp.Or(host, issuer.Hostname())
				}
				digits = cmp.Or(digits, cfg.OTP.Digits)
			}
			texts, err := sms.NewTexts(service, host)
			if err != nil {
				return fail(exitUsage, "choose a short name in characters of the GSM alphabet", "%w", err)
			}
			return p.showTexts(texts, cmp.Or(digits, smsotp.MinDigits), life, app)
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "name of the service (default sms.service_name)")
	cmd.Flags().StringVar(&host, "host", "", "host that codes are bound to (default the issuer's)")
	cmd.Flags().StringVar(&app, "app-hash", "", "hash of an Android app that reads the texts")
	cmd.Flags().IntVar(&digits, "digits", 0, "digits of the code (default otp.digits)")
	return cmd
}

// appHash is the form of the hash that ends texts for an Android app.
var appHash = regexp.MustCompile(`^[A-Za-z0-9+/]{11}$`)

// texts is the configuration of what the arguments leave open. Whatever else is wrong with it does not matter.
func (p *Program) texts(service, host string) (*config.Config, error) {
	cfg, _, err := p.gather()
	if cfg == nil {
		return nil, err
	}
	problems := slices.DeleteFunc(config.Problems(err), func(problem *config.Problem) bool {
		return !(host == "" && problem.Key == "issuer" || service == "" && problem.Key == "sms.service_name" || strings.HasPrefix(problem.Key, "otp."))
	})
	if len(problems) > 0 {
		hint := "without a configuration give --service and --host"
		if service != "" {
			hint = "without a configuration give --host too"
		}
		return nil, &failure{code: p.blame(exitUsage, problems), hint: hint, err: fmt.Errorf("the configuration has %s", count(len(problems), "problem")), problems: problems}
	}
	return cfg, nil
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

// vendorRow is what is known of a vendor, in the words of docs/texts.md.
type vendorRow struct {
	Name     string   `json:"name"`
	Code     string   `json:"code"`
	Channels []string `json:"channels"`
	Repeat   string   `json:"repeat"`
	Receipts string   `json:"receipts"`
	Works    string   `json:"works,omitempty"`
	Callback string   `json:"callback,omitempty"` // where reports are taken
}

func (p *Program) smsVendors() *cobra.Command {
	var ping bool
	cmd := &cobra.Command{
		Use: "vendors", Short: "List the vendors that have settings", Args: cobra.NoArgs,
		Long: "Vendors shows of each who makes its codes, what becomes of a repeated call, whether it reports what became of a text, and the address that it reports\n" +
			"to: enter it in its dashboard, if it is not told with each text. With --ping the credentials are tried, where a vendor has a call for that.",
		Example: "  watchword sms vendors --ping",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, d, err := p.delivery()
			if err != nil {
				return err
			}
			rows, broken := []vendorRow{}, 0
			for _, v := range d.routing.Vendors() {
				row := d.describe(v, cfg)
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
				return p.show(rows, func(io.Writer) {})
			}
			err = p.show(rows, func(w io.Writer) {
				works := ""
				if ping {
					works = "WORKS\t"
				}
				fmt.Fprintf(w, "VENDOR\tCODE\tCHANNELS\tA REPEAT\tRECEIPTS\t%sREPORTS TO\n", works)
				for _, r := range rows {
					if ping {
						works = r.Works + "\t"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s%s\n", r.Name, r.Code, strings.Join(r.Channels, ","), r.Repeat, r.Receipts, works, cmp.Or(r.Callback, "-"))
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

// delivery is what texts are sent with, as it is configured.
func (p *Program) delivery() (*config.Config, *delivery, error) {
	cfg, _, err := p.load()
	if err != nil {
		return nil, nil, err
	}
	d, err := newDelivery(cfg, keyring.Ephemeral(), nil)
	if problems := problemsOf(err); err != nil {
		return nil, nil, &failure{code: exitFailed, err: fmt.Errorf("the configuration has %s", count(len(problems), "problem")), problems: problems}
	}
	return cfg, d, nil
}

func (d *delivery) describe(v sms.Vendor, cfg *config.Config) vendorRow {
	a := v.Abilities()
	row := vendorRow{
		Name: v.Name(), Code: map[sms.Kind]string{sms.Gateway: "ours", sms.Verifier: "its own", sms.Hybrid: "ours, and it checks"}[a.Kind],
		Repeat: map[sms.Idempotency]string{sms.NoKey: "sends again", sms.Replay: "first answer again", sms.Refuse: "refused"}[a.Idempotency], Receipts: "no",
	}
	for _, c := range a.Channels {
		row.Channels = append(row.Channels, string(c))
	}
	if _, ok := v.(sms.Poller); ok {
		row.Receipts = "asked for"
	}
	if _, ok := v.(sms.Subscriber); ok {
		row.Receipts = "over its link"
	}
	if _, ok := v.(sms.Receiver); ok {
		if lacks := d.closed[v.Name()]; lacks != "" {
			row.Receipts = "refused: " + lacks + " is not set"
		} else {
			row.Receipts, row.Callback = "yes", d.callback(cfg)(v.Name())
		}
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
			cfg, d, err := p.delivery()
			if err != nil {
				return err
			}
			number, err := p.number(to, cfg)
			if err != nil {
				return err
			}
			route, err := d.way(cfg, number, name, channel)
			if err != nil {
				return err
			}
			v, _ := d.routing.Vendor(route.Vendor)
			defer linked(cmd.Context(), v)()
			text, locale := d.texts.Code("login", cfg.DefaultLocale, strings.Repeat("1", cfg.OTP.Digits), cfg.OTP.Lifetime, "")
			ctx, cancel := context.WithTimeout(cmd.Context(), vendorTimeout)
			defer cancel()
			leg := sms.Leg{ID: uuid.New(), To: number, Channel: route.Channel, Sender: route.Sender, Text: text, Code: strings.Repeat("1", cfg.OTP.Digits), Purpose: "login", Locale: locale, Life: cfg.OTP.Lifetime}
			accepted, err := v.Send(ctx, leg)
			if err != nil {
				return fail(exitFailed, cureOf(err), "%s", refusalOf(route.Vendor, err))
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

// way is the first to a number by a vendor and a channel, "" for whichever the routes choose. Its error says why there is none.
func (d *delivery) way(cfg *config.Config, to sms.Number, vendor, channel string) (*sms.Route, error) {
	switch sms.Channel(channel) {
	case "", sms.SMS, sms.WhatsApp, sms.Voice:
	default:
		return nil, fail(exitUsage, "write sms, whatsapp or voice", "%q is not a channel", channel)
	}
	if _, known := d.routing.Vendor(vendor); vendor != "" && !known {
		return nil, fail(exitUsage, vendorCure(cfg, vendor), "vendor %q has no settings", vendor)
	}
	plan, rule, all := d.routing.Plan(to, "login")
	for i := range plan {
		if (vendor == "" || plan[i].Vendor == vendor) && (channel == "" || string(plan[i].Channel) == channel) {
			return &plan[i], nil
		}
	}
	explain := "see every way with: watchword sms route explain " + to.Reveal()
	if vendor == "" && channel == "" {
		return nil, fail(exitFailed, explain, "no way leads to this number")
	}
	var why []string
	named := false
	for _, c := range all {
		named = named || c.Vendor == vendor
		if (vendor == "" || c.Vendor == vendor) && (channel == "" || string(c.Channel) == channel) {
			why = append(why, fmt.Sprintf("%s %s (%s)", c.Vendor, c.Reason, c.Channel))
		}
	}
	switch {
	case len(why) > 0:
		return nil, fail(exitFailed, explain, "no such way leads to this number: %s", strings.Join(why, ", "))
	case vendor != "" && !named:
		return nil, fail(exitFailed, "name it in the rule, or try a number that another rule is for", "vendor %s is not used for this number: %s", vendor, rule)
	}
	return nil, fail(exitFailed, "add it to sms.channels, or to channel= of the rule", "channel %s is not used for this number: %s", channel, rule)
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

// refusalOf says what a vendor answered, in a line.
func refusalOf(vendor string, err error) string {
	e, ok := errors.AsType[*sms.Error](err)
	if !ok {
		return fmt.Sprintf("%s did not take it: %s", vendor, oneLine(err))
	}
	what := string(e.Class)
	if e.Code != "" && e.Code != what {
		what += " (" + e.Code + ")"
	}
	if e.Reached == sms.MaybeSent {
		return fmt.Sprintf("%s may have taken it: %s", vendor, what)
	}
	return fmt.Sprintf("%s did not take it: %s", vendor, what)
}

// cureOf says what to do about a vendor's refusal.
func cureOf(err error) string {
	e, ok := errors.AsType[*sms.Error](err)
	if !ok {
		return ""
	}
	if e.Reached == sms.MaybeSent {
		return "look at the phone before you repeat it: the text may have been sent"
	}
	switch e.Class {
	case sms.Unauthorized:
		return "the credentials are wrong, or the account is closed: look at its keys under sms.vendors"
	case sms.InsufficientFunds:
		return "top up the account"
	case sms.InvalidSender:
		return "the sender is not registered for this country: look at sender and senders"
	case sms.InvalidRecipient:
		return "the vendor says that there is no such number: look at it digit by digit"
	case sms.RecipientUnreachable:
		return "see that the phone is on and has reception, and try again"
	case sms.RegionBlocked:
		return "allow the country in the vendor's dashboard"
	case sms.BlockedFraud:
		return "the vendor takes it for fraud: look at its fraud protection, and at what it allows for this country and number"
	case sms.ContentRejected:
		return "the vendor refuses the text: register sender and text where the country asks for that"
	case sms.Misconfigured:
		return "the account does not fit its settings: look at its keys under sms.vendors, and the code up in the vendor's documentation"
	case sms.RateLimited:
		return "wait, and try again"
	case sms.Temporary:
		return "see that the vendor's address is reachable from here, and try again"
	case sms.Ambiguous:
		return "look at the phone before you repeat it: the text may have been sent"
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
		return sms.Number{}, fail(exitUsage, "write it with + and country code, such as +12025550143; landlines, premium and unknown ranges are not texted", "that is not the number of a phone that gets texts")
	}
	return n, nil
}

// wayRow is a way that was considered.
type wayRow struct {
	Order   int      `json:"order,omitempty"` // in which it is tried; 0: never
	Vendor  string   `json:"vendor"`
	Channel string   `json:"channel"`
	Sender  string   `json:"sender,omitempty"`
	Cost    *float64 `json:"cost,omitempty"` // nil: nobody said
	Reason  string   `json:"reason"`
}

func (p *Program) smsRouteExplain() *cobra.Command {
	var purpose string
	cmd := &cobra.Command{
		Use: "explain NUMBER", Short: "Say which way a text to a number takes, and why", Args: cobra.ExactArgs(1),
		Long: "Explain lists the ways in the order in which they are tried. It also says what stops them all: a country that is not texted, an opt-out of this number, or\n" +
			"a prefix or country where codes are hardly used. It exits with 3 when nothing would be sent.",
		Example: "  watchword sms route explain +447400123456\n  watchword sms route explain +33612345678 --purpose step_up",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(sms.Purposes(), purpose) {
				return fail(exitUsage, "write one of "+strings.Join(sms.Purposes(), ", "), "%q is not a purpose", purpose)
			}
			cfg, d, err := p.delivery()
			if err != nil {
				return err
			}
			n, err := p.number(args[0], cfg)
			if err != nil {
				return err
			}
			_, rule, all := d.routing.Plan(n, purpose)
			served, rows, order := cfg.SMS.Served(n.Country()), []wayRow{}, 0
			for _, c := range all {
				r := wayRow{Vendor: c.Vendor, Channel: string(c.Channel), Sender: c.Sender, Reason: c.Reason}
				if c.Priced {
					r.Cost = &c.Cost
				}
				switch {
				case c.Taken && served:
					order++
					r.Order = order
				case c.Taken:
					r.Reason = n.Country() + " is not in sms.countries"
				}
				rows = append(rows, r)
			}
			stops, err := stopsOf(cmd.Context(), cfg, n)
			if err != nil {
				what, _ := databaseTrouble(err)
				p.say("Opt-outs, and places where codes are hardly used, were not looked at: %s", cmp.Or(what, oneLine(err)))
			}
			err = p.show(map[string]any{"country": n.Country(), "served": served, "rule": rule, "ways": rows, "stops": stops}, func(w io.Writer) {
				fmt.Fprintf(w, "%s, %s\n", n.Country(), rule)
				fmt.Fprintln(w, "ORDER\tVENDOR\tCHANNEL\tSENDER\tCOST\tWHY")
				for _, r := range rows {
					mark, cost := "-", "-"
					if r.Order > 0 {
						mark = strconv.Itoa(r.Order)
					}
					if r.Cost != nil {
						cost = strconv.FormatFloat(*r.Cost, 'f', -1, 64)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", mark, r.Vendor, r.Channel, cmp.Or(r.Sender, "-"), cost, r.Reason)
				}
			})
			switch {
			case err != nil:
				return err
			case !served:
				return fail(exitProblems, "add it to sms.countries", "%s is not texted", n.Country())
			case order == 0:
				return fail(exitProblems, "give a vendor that serves the country settings, or change sms.routes", "no way leads to this number")
			case len(stops) > 0:
				return stopped(stops)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&purpose, "purpose", "login", "what the text is for: "+strings.Join(sms.Purposes(), ", "))
	return cmd
}

// stopsTimeout bounds the look into the database: routes can be explained without it.
const stopsTimeout = 5 * time.Second

// stopsOf asks the database what stops texts to a number.
func stopsOf(ctx context.Context, cfg *config.Config, n sms.Number) ([]sms.Stop, error) {
	ring, err := keyring.Load(cfg.Keys.Dir)
	if err != nil {
		return nil, err
	}
	db, err := postgres.Open(postgres.Config{DSN: cfg.Database.DSN.Reveal(), MaxConns: 2, Pooled: cfg.Database.Pooled})
	if err != nil {
		return nil, err
	}
	defer db.Close() //nolint:errcheck // nothing was begun
	ctx, cancel := context.WithTimeout(ctx, stopsTimeout)
	defer cancel()
	return (&sms.Desk{DB: db, Keys: ring}).Stops(ctx, n)
}

// stopped is the failure that says all of what stops texts.
func stopped(stops []sms.Stop) error {
	var what []string
	hint := "see sent and used codes in the log: sending stopped"
	for _, s := range stops {
		since := s.Since.UTC().Format(time.RFC3339)
		switch {
		case s.Reason == sms.RecipientOptedOut:
			hint = "when its owner asks you to: watchword sms optouts restore"
			what = append(what, fmt.Sprintf("it opted out of %s at %s", cmp.Or(s.Sender, "its sender"), since))
		case s.Until != nil:
			what = append(what, fmt.Sprintf("codes are hardly used in its %s: nothing is sent there until %s", s.Scope, s.Until.UTC().Format(time.RFC3339)))
		}
	}
	return fail(exitProblems, hint, "this number is not texted: %s", strings.Join(what, "; "))
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
