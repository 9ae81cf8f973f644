package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/config"
)

func (p *Program) tenantCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "tenant", Short: "Manage whose programs may send and verify codes",
		Example: "  watchword tenant create shop --service 'The Shop'",
	}
	group.AddCommand(p.tenantCreate(), p.tenantUpdate(), p.tenantList(), p.tenantGet(), p.tenantTemplate(), p.tenantClient(),
		p.tenantChange("disable", "Keep a tenant's programs out, at once", "watchword tenant disable shop", "Keep %s out at once?",
			func(ctx context.Context, s *services, name string) error {
				return s.gateway.Tenants.SetDisabled(ctx, name, true)
			}),
		p.tenantChange("enable", "Let a disabled tenant's programs in again", "watchword tenant enable shop", "",
			func(ctx context.Context, s *services, name string) error {
				return s.gateway.Tenants.SetDisabled(ctx, name, false)
			}),
		p.tenantChange("delete", "Delete a tenant with its keys", "watchword tenant delete shop --yes", "Delete %s with all its keys?",
			func(ctx context.Context, s *services, name string) error {
				return s.gateway.Tenants.Delete(ctx, name)
			}),
	)
	return group
}

// settingsFlags are the flags that create and update share. Only those given are applied.
type settingsFlags struct {
	service, locale, file             string
	life                              time.Duration
	attempts, numberHour, minute, day int
	senders, returns                  []string
	hosted, email                     bool
}

func (f *settingsFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.service, "service", "", "name that texts are in: up to 20 characters of the GSM alphabet, without digits (default the tenant's name)")
	flags.StringVar(&f.locale, "locale", "", "language of texts where a request names none (default en)")
	flags.DurationVar(&f.life, "life", 0, "how long a code is good (default and ceiling otp.lifetime)")
	flags.IntVar(&f.attempts, "attempts", 0, "wrong codes that end a verification (default and ceiling otp.attempts)")
	flags.IntVar(&f.numberHour, "number-hour", 0, "most texts to one number in an hour (default and ceiling 5)")
	flags.IntVar(&f.minute, "minute", 0, "most texts in a minute, over all numbers (default no bound)")
	flags.IntVar(&f.day, "day", 0, "most texts in 24 hours, over all numbers (default gateway.daily_budget)")
	flags.StringSliceVar(&f.senders, "sender", nil, "sender ids that its templates may name; no two tenants have one in common")
	flags.BoolVar(&f.hosted, "hosted", false, "let its programs have codes entered on a page of this server, in its name")
	flags.StringSliceVar(&f.returns, "return-url", nil, "addresses that such a page may lead back to; a request names one of them, letter by letter")
	flags.BoolVar(&f.email, "email", false, "verify e-mail addresses too; needs mail.host")
	flags.StringVar(&f.file, "file", "", "file with all settings as JSON, as watchword tenant get --format json shows them; - is the standard input")
}

func (f *settingsFlags) apply(p *Program, flags *pflag.FlagSet, s *gateway.Settings) error {
	if f.file != "" {
		data, err := p.read(f.file)
		if err != nil {
			return err
		}
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		decoder.DisallowUnknownFields()
		*s = gateway.Settings{}
		if err := decoder.Decode(s); err != nil {
			return fail(exitUsage, "see the names with: watchword tenant get NAME --format json", "the settings cannot be read: %w", err)
		}
	}
	for name, set := range map[string]func(){
		"service": func() { s.Service = f.service }, "locale": func() { s.Locale = f.locale }, "life": func() { s.Life = int(f.life.Seconds()) }, "attempts": func() { s.Attempts = f.attempts },
		"number-hour": func() { s.NumberHour = f.numberHour }, "minute": func() { s.Minute = f.minute }, "day": func() { s.Day = f.day }, "sender": func() { s.Senders = f.senders },
		"hosted": func() { s.Hosted = f.hosted }, "return-url": func() { s.ReturnURLs = f.returns },
		"email": func() { s.Email = f.email },
	} {
		if flags.Changed(name) {
			set()
		}
	}
	return nil
}

func (p *Program) tenantCreate() *cobra.Command {
	var f settingsFlags
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a tenant", Args: one("the tenant"),
		Long:    "Create makes a tenant, whose programs then need keys. What is not given is the product's default; no tenant exceeds the product's ceilings.",
		Example: "  watchword tenant create shop --service 'The Shop' --locale de\n  watchword tenant create trial --day 50 --number-hour 2",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				settings := gateway.Settings{Service: args[0]}
				if err := f.apply(p, cmd.Flags(), &settings); err != nil {
					return err
				}
				if err := s.gateway.Tenants.Create(ctx, args[0], settings); err != nil {
					return tenantFailure(err, args[0])
				}
				p.say("Made. Its programs need a key: watchword apikey create %s", args[0])
				return p.showTenant(ctx, s, args[0])
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func (p *Program) tenantUpdate() *cobra.Command {
	var f settingsFlags
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Change a tenant's settings", Args: one("the tenant"),
		Long: "Update changes what the flags name and leaves the rest.", Example: "  watchword tenant update shop --day 5000",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeSettings(cmd.Context(), args[0], func(s *gateway.Settings) error { return f.apply(p, cmd.Flags(), s) })
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// changeSettings changes a tenant's settings and shows it.
func (p *Program) changeSettings(ctx context.Context, name string, change func(*gateway.Settings) error) error {
	return p.with(ctx, func(ctx context.Context, s *services) error {
		t, err := s.gateway.Tenants.Get(ctx, name)
		if err != nil {
			return tenantFailure(err, name)
		}
		if err := change(&t.Settings); err != nil {
			return err
		}
		if err := s.gateway.Tenants.Update(ctx, name, t.Settings); err != nil {
			return tenantFailure(err, name)
		}
		return p.showTenant(ctx, s, name)
	})
}

func (p *Program) tenantList() *cobra.Command {
	var after string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List tenants by name", Args: cobra.NoArgs, Example: "  watchword tenant list --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := atMost(limit); err != nil {
				return err
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				list, err := s.gateway.Tenants.List(ctx, after, limit)
				if err != nil {
					return err
				}
				if len(list) == 0 {
					p.none("tenant", after, "watchword tenant create")
				}
				return p.show(list, func(w io.Writer) {
					for _, t := range list {
						fmt.Fprintf(w, "%s\t%s\t%s\n", t.Name, t.Settings.Service, tenantState(t))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "begin after this name")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	return cmd
}

func tenantState(t *gateway.Tenant) string {
	if t.DisabledAt != nil {
		return "disabled"
	}
	return "active"
}

func (p *Program) tenantGet() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show a tenant", Args: one("the tenant"), Example: "  watchword tenant get shop --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error { return p.showTenant(ctx, s, args[0]) })
		},
	}
}

func (p *Program) showTenant(ctx context.Context, s *services, name string) error {
	t, err := s.gateway.Tenants.Get(ctx, name)
	if err != nil {
		return tenantFailure(err, name)
	}
	return p.show(t, func(w io.Writer) {
		fmt.Fprintf(w, "name\t%s\nstate\t%s\nservice\t%s\n", t.Name, tenantState(t), t.Settings.Service)
		for name, value := range map[string]int{"life (s)": t.Settings.Life, "attempts": t.Settings.Attempts, "texts an hour to a number": t.Settings.NumberHour, "texts a minute": t.Settings.Minute, "texts a day": t.Settings.Day} {
			if value != 0 {
				fmt.Fprintf(w, "%s\t%d\n", name, value)
			}
		}
		if t.Settings.Hosted {
			fmt.Fprintf(w, "hosted\ttrue\n")
		}
		for _, address := range t.Settings.ReturnURLs {
			fmt.Fprintf(w, "return_url\t%s\n", address)
		}
		for _, sender := range t.Settings.Senders {
			fmt.Fprintf(w, "sender\t%s\n", sender)
		}
		for name, template := range t.Settings.Templates {
			fmt.Fprintf(w, "template %s\t%s\n", name, template.Text)
		}
		for _, client := range t.Clients {
			fmt.Fprintf(w, "application\t%s\n", client)
		}
	})
}

func (p *Program) tenantTemplate() *cobra.Command {
	group := &cobra.Command{Use: "template", Short: "Manage a tenant's texts", Example: "  watchword tenant template set shop default --text '{{service}}: {{pin}} is your code.'"}
	var t gateway.Template
	var alphabet string
	set := &cobra.Command{
		Use: "set TENANT TEMPLATE", Short: "Make or replace a template", Args: two("the tenant and the template"),
		Long: "Set makes a template, or replaces it. The one named default is used where a request names none. Its text has {{pin}} in it once; {{minutes}} and {{service}} may be\n" +
			"there. A template that approves payments has {{amount}}, {{currency}} and {{payee}}. Without --text it is the product's own text, in the request's language.",
		Example: "  watchword tenant template set shop default --text '{{service}}: {{pin}} is your code. It is good for {{minutes}} minutes.' --host shop.example.com\n" +
			"  watchword tenant template set shop door --length 4\n" +
			"  watchword tenant template set shop pickup --length 8 --alphabet alphanumeric --sender SHOP",
		RunE: func(cmd *cobra.Command, args []string) error {
			t.Alphabet = gateway.Alphabet(alphabet)
			return p.changeSettings(cmd.Context(), args[0], func(s *gateway.Settings) error {
				if s.Templates == nil {
					s.Templates = map[string]gateway.Template{}
				}
				s.Templates[args[1]] = t
				return nil
			})
		},
	}
	set.Flags().StringVar(&t.Text, "text", "", "the text (default the product's own)")
	set.Flags().StringVar(&t.Locale, "locale", "", "language that the text is in")
	set.Flags().IntVar(&t.Length, "length", 0, "characters of the code, 4 to 10 (default 6)")
	set.Flags().StringVar(&alphabet, "alphabet", "", "numeric, alphanumeric or hex (default numeric)")
	set.Flags().StringVar(&t.Sender, "sender", "", "sender id, one of the tenant's (default the vendor's own)")
	set.Flags().StringVar(&t.Host, "host", "", "host whose pages browsers fill the code in for")
	remove := &cobra.Command{
		Use: "remove TENANT TEMPLATE", Short: "Remove a template", Args: two("the tenant and the template"), Example: "  watchword tenant template remove shop door",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeSettings(cmd.Context(), args[0], func(s *gateway.Settings) error {
				if _, ok := s.Templates[args[1]]; !ok {
					return fail(exitNotFound, "see: watchword tenant get "+args[0], "tenant %q has no template %q", args[0], args[1])
				}
				delete(s.Templates, args[1])
				return nil
			})
		},
	}
	group.AddCommand(set, remove)
	return group
}

func (p *Program) tenantClient() *cobra.Command {
	var scopes []string
	var remove bool
	cmd := &cobra.Command{
		Use: "client TENANT CLIENT_ID", Short: "Let an application act for a tenant with access tokens of its own", Args: two("the tenant and the application"),
		Long: "Client lets an application come with an access token that it got by the grant client_credentials, instead of a key. What it may do is said here, not by the\n" +
			"token's scopes. With --remove it may no longer, at once.",
		Example: "  watchword tenant client shop checkout --scope send,verify,read\n  watchword tenant client shop checkout --remove",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				if _, err := s.clients.Get(ctx, args[1]); err != nil && !remove {
					return clientFailure(err, args[1])
				}
				allowed := scopesOf(scopes)
				if remove {
					allowed = nil
				}
				if err := s.gateway.Tenants.AllowClient(ctx, args[0], args[1], allowed); err != nil {
					return tenantFailure(err, args[0])
				}
				return p.showTenant(ctx, s, args[0])
			})
		},
	}
	cmd.Flags().StringSliceVar(&scopes, "scope", []string{"send", "verify", "read"}, "what it may do: send, verify, read, admin")
	cmd.Flags().BoolVar(&remove, "remove", false, "it may no longer")
	return cmd
}

func scopesOf(names []string) (scopes []gateway.Scope) {
	for _, name := range names {
		scopes = append(scopes, gateway.Scope(name))
	}
	return scopes
}

// tenantChange is a command that does one thing to one tenant.
func (p *Program) tenantChange(verb, short, example, question string, do func(context.Context, *services, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: one("the tenant"), Example: "  " + example,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				if _, err := s.gateway.Tenants.Get(ctx, args[0]); err != nil {
					return tenantFailure(err, args[0])
				}
				if question != "" {
					if err := p.confirm(fmt.Sprintf(question, args[0])); err != nil {
						return err
					}
				}
				if err := do(ctx, s, args[0]); err != nil {
					return tenantFailure(err, args[0])
				}
				p.say("Done: %s %s.", verb, args[0])
				return nil
			})
		},
	}
}

func tenantFailure(err error, name string) error {
	switch {
	case errors.Is(err, gateway.ErrNoTenant):
		return fail(exitNotFound, "see: watchword tenant list", "there is no tenant %q", name)
	case errors.Is(err, gateway.ErrTenantExists):
		return fail(exitRefused, "choose another name, or change it with: watchword tenant update "+name, "there is a tenant %q", name)
	case errors.Is(err, gateway.ErrSenderTaken):
		return fail(exitRefused, "see whose it is with: watchword tenant list --format json", "a sender id is another tenant's")
	case errors.Is(err, gateway.ErrClientTaken):
		return fail(exitRefused, "give each tenant an application of its own", "the application acts for another tenant")
	case errors.Is(err, gateway.ErrTenantName), errors.Is(err, gateway.ErrScope):
		return fail(exitUsage, "", "%w", err)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	f := &failure{code: exitUsage, hint: "see: watchword tenant --help"}
	for _, e := range joined.Unwrap() {
		f.problems = append(f.problems, &config.Problem{What: e.Error()})
	}
	f.err = fmt.Errorf("the settings have %s", count(len(f.problems), "problem"))
	return f
}

// shownKey is a key as commands print it. The JSON form is stable.
type shownKey struct {
	ID     string          `json:"id"`
	Key    string          `json:"api_key,omitempty"` // once, when it was made
	Tenant string          `json:"tenant"`
	Mode   string          `json:"mode"` // live or test
	Scopes []gateway.Scope `json:"scopes"`
	Note   string          `json:"note,omitempty"`
	Ends   string          `json:"ends_with"`
	State  string          `json:"state"` // active, expired, revoked
	gatewayTimes
}

type gatewayTimes struct {
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
}

func shownKeyOf(k gateway.Key, secret string) shownKey {
	out := shownKey{ID: gateway.KeyID(k.ID), Key: secret, Tenant: k.Tenant, Mode: "live", Scopes: k.Scopes, Note: k.Note, Ends: k.Hint, State: "active",
		gatewayTimes: gatewayTimes{k.CreatedAt.UTC(), k.ExpiresAt, k.RevokedAt, k.LastUsedAt}}
	if k.Test {
		out.Mode = "test"
	}
	switch {
	case k.RevokedAt != nil:
		out.State = "revoked"
	case k.ExpiresAt != nil && k.ExpiresAt.Before(time.Now()):
		out.State = "expired"
	}
	return out
}

func (p *Program) apikeyCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "apikey", Short: "Manage the keys that programs come with",
		Example: "  watchword apikey create shop\n  watchword apikey create shop --test",
	}
	group.AddCommand(p.apikeyCreate(), p.apikeyList(), p.apikeyRotate(), p.apikeyRevoke())
	return group
}

func (p *Program) apikeyCreate() *cobra.Command {
	var k gateway.NewKey
	var scopes []string
	cmd := &cobra.Command{
		Use: "create TENANT", Short: "Make a key", Args: one("the tenant"),
		Long: "Create makes a key and prints it, once: only a hash is stored. A test key reaches no phone, is not limited, and knows one code: 123456.",
		Example: "  watchword apikey create shop --note checkout --scope send,verify,read\n" +
			"  watchword apikey create shop --test --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				k.Scopes = scopesOf(scopes)
				id, key, err := s.gateway.Tenants.CreateKey(ctx, args[0], k)
				if err != nil {
					return tenantFailure(err, args[0])
				}
				p.say("Keep the key now: it is not shown again.")
				return p.showKey(ctx, s, id, key)
			})
		},
	}
	cmd.Flags().BoolVar(&k.Test, "test", false, "a key for tests")
	cmd.Flags().StringSliceVar(&scopes, "scope", []string{"send", "verify", "read"}, "what it may do: send, verify, read, admin")
	cmd.Flags().StringVar(&k.Note, "note", "", "what you call it")
	cmd.Flags().DurationVar(&k.Life, "expires-in", 0, "how long it works (default until it is revoked)")
	return cmd
}

func (p *Program) showKey(ctx context.Context, s *services, id uuid.UUID, secret string) error {
	keys, err := s.gateway.Tenants.Keys(ctx, "", id)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return keyFailure(gateway.ErrNoKey, gateway.KeyID(id))
	}
	k := shownKeyOf(keys[0], secret)
	return p.show(k, func(w io.Writer) {
		fmt.Fprintf(w, "id\t%s\n", k.ID)
		if secret != "" {
			fmt.Fprintf(w, "api_key\t%s\n", secret)
		}
		fmt.Fprintf(w, "tenant\t%s\nmode\t%s\nscopes\t%s\nstate\t%s\n", k.Tenant, k.Mode, joinScopes(k.Scopes), k.State)
		if k.ExpiresAt != nil {
			fmt.Fprintf(w, "expires_at\t%s\n", k.ExpiresAt.UTC().Format(time.RFC3339))
		}
	})
}

func joinScopes(scopes []gateway.Scope) string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	return strings.Join(names, " ")
}

func (p *Program) apikeyList() *cobra.Command {
	return &cobra.Command{
		Use: "list [TENANT]", Short: "List keys, the newest first", Args: cobra.MaximumNArgs(1), Example: "  watchword apikey list shop\n  watchword apikey list --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				tenant := ""
				if len(args) == 1 {
					tenant = args[0]
					if _, err := s.gateway.Tenants.Get(ctx, tenant); err != nil {
						return tenantFailure(err, tenant)
					}
				}
				keys, err := s.gateway.Tenants.Keys(ctx, tenant, uuid.Nil)
				if err != nil {
					return err
				}
				all := make([]shownKey, len(keys))
				for i, k := range keys {
					all[i] = shownKeyOf(k, "")
				}
				if len(all) == 0 {
					p.none("key", "", "watchword apikey create")
				}
				return p.show(all, func(w io.Writer) {
					for _, k := range all {
						used := "never used"
						if k.LastUsedAt != nil {
							used = "used " + k.LastUsedAt.UTC().Format(time.DateTime)
						}
						fmt.Fprintf(w, "%s\t%s\totp_%s_…%s\t%s\t%s\t%s\t%s\n", k.ID, k.Tenant, k.Mode, k.Ends, joinScopes(k.Scopes), k.State, used, k.Note)
					}
				})
			})
		},
	}
}

func (p *Program) apikeyRotate() *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use: "rotate KEY_ID", Short: "Make a key in place of another, which works on for a while", Args: one("the key"),
		Long:    "Rotate makes a key like the one named and prints it, once. The old one works on for the overlap, so that programs can be given the new one meanwhile.",
		Example: "  watchword apikey rotate key_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70 --overlap 48h",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withKey(cmd.Context(), args[0], func(ctx context.Context, s *services, old uuid.UUID) error {
				id, key, err := s.gateway.Tenants.RotateKey(ctx, old, overlap)
				if err != nil {
					return keyFailure(err, args[0])
				}
				p.say("Keep the key now: it is not shown again. The old one works for another %v.", overlap)
				return p.showKey(ctx, s, id, key)
			})
		},
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old key works on; 0s ends it at once")
	return cmd
}

func (p *Program) apikeyRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke KEY_ID", Short: "End a key at once", Args: one("the key"), Example: "  watchword apikey revoke key_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70 --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withKey(cmd.Context(), args[0], func(ctx context.Context, s *services, id uuid.UUID) error {
				if err := p.confirm(fmt.Sprintf("End %s at once?", args[0])); err != nil {
					return err
				}
				if err := s.gateway.Tenants.RevokeKey(ctx, id); err != nil {
					return keyFailure(err, args[0])
				}
				p.say("Done: revoke %s.", args[0])
				return nil
			})
		},
	}
}

// withKey runs a command about one key.
func (p *Program) withKey(ctx context.Context, text string, do func(context.Context, *services, uuid.UUID) error) error {
	id, ok := gateway.ParseKeyID(text)
	if !ok {
		return keyFailure(gateway.ErrNoKey, "of that id") // it could be the key itself
	}
	return p.with(ctx, func(ctx context.Context, s *services) error { return do(ctx, s, id) })
}

func keyFailure(err error, id string) error {
	if errors.Is(err, gateway.ErrNoKey) {
		return fail(exitNotFound, "see: watchword apikey list", "there is no key %s that still stands", id)
	}
	return err
}
