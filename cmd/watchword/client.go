package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/oidc"
)

// shownClient is an application as commands print it. The JSON form is stable.
type shownClient struct {
	ID string `json:"client_id"`
	// Secret is shown once, when it was made.
	Secret string `json:"client_secret,omitempty"`
	oidc.Registration
	CreatedAt  time.Time  `json:"created_at"`
	UpdatedAt  time.Time  `json:"updated_at"`
	DisabledAt *time.Time `json:"disabled_at,omitempty"`
	State      string     `json:"state"` // active or disabled
}

func (p *Program) clientCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "client", Short: "Manage the applications that people sign in to",
		Example: "  watchword client create shop --name 'The Shop' --redirect-uri https://shop.example.com/callback",
	}
	group.AddCommand(p.clientCreate(), p.clientUpdate(), p.clientList(), p.clientGet(), p.clientRotate(),
		p.clientChange("disable", "Keep an application out, with all that it was given", "watchword client disable shop\n  watchword client disable shop --yes", "Keep %s out at once?",
			func(ctx context.Context, s *services, id string) error { return s.clients.SetDisabled(ctx, id, true) }),
		p.clientChange("enable", "Let a disabled application in again", "watchword client enable shop", "",
			func(ctx context.Context, s *services, id string) error { return s.clients.SetDisabled(ctx, id, false) }),
		p.clientChange("delete", "Delete an application and all that it was given", "watchword client delete shop --yes", "Delete %s for good?",
			func(ctx context.Context, s *services, id string) error { return s.clients.Delete(ctx, id) }),
	)
	return group
}

// registrationFlags are the flags that create and update share. Only those given are applied.
type registrationFlags struct {
	name, home, kind, method, alg, format, floor, keys, file string
	profile, support                                         string
	delivery, notify, requestAlg                             string
	redirects, logouts, grants, scopes, modes, details       []string
	firstParty, allowHTTP, push, dpop, payment               bool
}

func (f *registrationFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "name", "", "name that people read")
	flags.StringVar(&f.home, "home-uri", "", "where «Back to …» leads")
	flags.StringArrayVar(&f.redirects, "redirect-uri", nil, "address that answers are sent to, compared byte for byte; may be given several times")
	flags.StringArrayVar(&f.logouts, "post-logout-redirect-uri", nil, "address to return to after signing out; may be given several times")
	flags.StringVar(&f.kind, "type", "", "web or native (default web)")
	flags.StringVar(&f.method, "auth-method", "", "client_secret_basic, client_secret_post, private_key_jwt or none (default client_secret_basic)")
	flags.StringVar(&f.keys, "jwks-file", "", "file with the public keys for private_key_jwt, as a JWK Set")
	flags.StringSliceVar(&f.grants, "grant-type", nil, "authorization_code, refresh_token, client_credentials, ciba (default authorization_code)")
	flags.StringSliceVar(&f.modes, "response-mode", nil, "query, form_post (default both)")
	flags.StringSliceVar(&f.scopes, "scope", nil, "scopes it may ask for (default openid, profile, email, address, phone, offline_access); offline_access needs the grant refresh_token, transactions is for its own calls of /v1/transactions")
	flags.StringVar(&f.alg, "id-token-alg", "", "RS256, ES256 or EdDSA (default RS256)")
	flags.StringVar(&f.format, "access-token", "", "jwt or opaque (default jwt)")
	flags.StringVar(&f.floor, "acr", "", "least level of every sign-in, by its acr name")
	flags.StringVar(&f.profile, "profile", "", "fapi2: refuse everything that the FAPI 2.0 Security Profile forbids")
	flags.BoolVar(&f.push, "require-pushed-requests", false, "it has to push its authorization requests (RFC 9126); part of --profile fapi2")
	flags.BoolVar(&f.dpop, "dpop", false, "its tokens have to be bound to a key (DPoP, RFC 9449); part of --profile fapi2")
	flags.StringVar(&f.delivery, "ciba-delivery", "", "how it learns of answers to what it asks in the background (CIBA): poll or ping (default poll)")
	flags.StringVar(&f.notify, "ciba-notify-uri", "", "where it is told that there is an answer, with --ciba-delivery ping")
	flags.StringVar(&f.requestAlg, "ciba-request-alg", "", "it has to sign what it asks in the background with this: ES256, PS256 or EdDSA")
	flags.StringSliceVar(&f.details, "authorization-details-type", nil, "types of authorization_details (RFC 9396) that it may ask for, such as payment_initiation (default none)")
	flags.BoolVar(&f.payment, "payment-account", false, "people see or move money there: tighter limits on wrong answers, life of codes and idle browsers")
	flags.StringVar(&f.support, "support-phone", "", "number that people call about it; shown where payments are confirmed")
	flags.BoolVar(&f.firstParty, "first-party", false, "your own application: nobody is asked for consent")
	flags.BoolVar(&f.allowHTTP, "allow-http", false, "redirects may go to plain http; for development only")
	flags.StringVar(&f.file, "file", "", "file with the whole registration, in the words of OpenID Connect Dynamic Client Registration 1.0; - is the standard input")
}

// apply changes r as the flags say.
func (f *registrationFlags) apply(p *Program, flags *pflag.FlagSet, s *services, r *oidc.Registration) error {
	if f.file != "" {
		data, err := p.read(f.file)
		if err != nil {
			return err
		}
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.DisallowUnknownFields()
		*r = oidc.Registration{}
		if err := decoder.Decode(r); err != nil {
			return fail(exitUsage, "see the names with: watchword client get ID --format json", "the registration cannot be read: %w", err)
		}
	}
	if f.keys != "" {
		data, err := p.read(f.keys)
		if err != nil {
			return err
		}
		r.Keys = nil
		if err := json.Unmarshal(data, &r.Keys); err != nil || r.Keys == nil || len(r.Keys.Keys) == 0 {
			return fail(exitUsage, `write {"keys":[…]} with public keys only`, "%s is not a JWK Set", f.keys)
		}
	}
	texts := map[string]struct {
		given string
		to    *string
	}{
		"name": {f.name, &r.Name}, "home-uri": {f.home, &r.HomeURI}, "type": {f.kind, &r.ApplicationType},
		"id-token-alg": {f.alg, &r.IDTokenAlg}, "access-token": {f.format, &r.AccessTokenFormat}, "profile": {f.profile, &r.Profile},
		"ciba-delivery": {f.delivery, &r.DeliveryMode}, "ciba-notify-uri": {f.notify, &r.NotificationEndpoint}, "ciba-request-alg": {f.requestAlg, &r.RequestAlg},
		"support-phone": {f.support, &r.SupportPhone},
	}
	for name, t := range texts {
		if flags.Changed(name) {
			*t.to = t.given
		}
	}
	lists := map[string]struct {
		given []string
		to    *[]string
	}{
		"redirect-uri": {f.redirects, &r.RedirectURIs}, "post-logout-redirect-uri": {f.logouts, &r.PostLogoutRedirectURIs},
		"scope": {f.scopes, &r.Scopes}, "response-mode": {f.modes, &r.ResponseModes}, "authorization-details-type": {f.details, &r.DetailTypes},
	}
	for name, l := range lists {
		if flags.Changed(name) {
			*l.to = l.given
		}
	}
	if flags.Changed("auth-method") {
		set(&r.AuthMethod, f.method)
	}
	if flags.Changed("grant-type") {
		r.GrantTypes = nil
		grant(r, f.grants...)
	}
	if f.profile == oidc.ProfileFAPI2 { // it has no meaning without these; whoever says --dpop=false is told so
		r.RequirePush, r.DPoPBound = true, true
	}
	for name, b := range map[string]struct {
		given bool
		to    *bool
	}{
		"first-party": {f.firstParty, &r.FirstParty}, "allow-http": {f.allowHTTP, &r.AllowHTTP}, "require-pushed-requests": {f.push, &r.RequirePush},
		"dpop": {f.dpop, &r.DPoPBound}, "payment-account": {f.payment, &r.PaymentAccount},
	} {
		if flags.Changed(name) {
			*b.to = b.given
		}
	}
	if flags.Changed("acr") {
		level, known := s.levels.Level(f.floor)
		if f.floor != "" && !known {
			return fail(exitUsage, "choose one of "+strings.Join(s.levels.Supported(s.signIns.Reach()), ", "), "no level has that name")
		}
		if level > s.signIns.Reach() {
			p.say("Nobody can sign in to it: no factor that is installed reaches %s.", f.floor)
		}
		r.Floor = level
	}
	signsIn := len(r.GrantTypes) == 0 || slices.ContainsFunc(grants(r), func(grant string) bool { return grant == "authorization_code" || grant == "ciba" })
	if signsIn && r.Scopes != nil && !slices.Contains(r.Scopes, "openid") && (flags.Changed("scope") || f.file != "") {
		p.say("Without the scope openid it gets no ID Token: nobody is told who signed in.")
	}
	if r.AllowHTTP && s.cfg.Production() {
		return fail(exitRefused, "use https, without --allow-http", "plain http is for an issuer on loopback only")
	}
	return nil
}

// grants are the grant types of r, as --grant-type has them.
func grants(r *oidc.Registration) (names []string) {
	for _, grant := range r.GrantTypes {
		if grant == oidc.GrantTypeCIBA {
			names = append(names, "ciba")
			continue
		}
		names = append(names, string(grant))
	}
	return names
}

// set gives a string of the protocol library's a value: its types are not named outside package oidc.
func set[T ~string](to *T, value string) { *to = T(value) }

// grant allows grants by the names that --grant-type has.
func grant(r *oidc.Registration, names ...string) {
	for _, name := range names {
		r.GrantTypes = append(r.GrantTypes, "")
		if name == "ciba" {
			name = string(oidc.GrantTypeCIBA)
		}
		set(&r.GrantTypes[len(r.GrantTypes)-1], name)
	}
}

// read gives the content of a file, or of the standard input for "-".
func (p *Program) read(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(p.Stdin, 1<<20))
	}
	data, err := os.ReadFile(name) //nolint:gosec // the operator names it
	return data, fileFailure(name, err)
}

// fileFailure says that a file that a flag names cannot be read.
func fileFailure(name string, err error) error {
	if err == nil {
		return nil
	}
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err
	}
	return fail(exitUsage, "name a file that can be read, or - for the standard input", "%s cannot be read: %w", name, err)
}

func (p *Program) clientCreate() *cobra.Command {
	var f registrationFlags
	cmd := &cobra.Command{
		Use: "create ID", Short: "Register an application", Args: one("the application"),
		Long: "Create registers an application and prints its secret, once: only a hash is stored.",
		Example: "  watchword client create shop --name 'The Shop' --redirect-uri https://shop.example.com/callback\n" +
			"  watchword client create trial --redirect-uri http://localhost:3000/callback --allow-http\n" +
			"  watchword client create phone --name 'Shop for phones' --type native --auth-method none --redirect-uri com.example.shop:/callback\n" +
			"  watchword client create bank --name 'The Bank' --profile fapi2 --payment-account --jwks-file bank.jwks --redirect-uri https://bank.example.com/callback " +
			"--authorization-details-type payment_initiation --grant-type authorization_code,client_credentials,ciba --scope openid,profile,transactions\n" +
			"  watchword client create till --name 'The Till' --grant-type ciba --ciba-delivery ping --ciba-notify-uri https://till.example.com/ping",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				r := oidc.Registration{Name: args[0]}
				if err := f.apply(p, cmd.Flags(), s, &r); err != nil {
					return err
				}
				secret, err := s.clients.Create(ctx, args[0], r)
				if errors.Is(err, oidc.ErrClientExists) {
					return fail(exitRefused, "choose another id, or change it with: watchword client update "+args[0], "there is an application %q", args[0])
				}
				if err != nil {
					return registrationFailure(s, err)
				}
				if secret != "" {
					p.say("Keep the secret now: it is not shown again.")
				}
				return p.showClient(ctx, s, args[0], secret)
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func (p *Program) clientUpdate() *cobra.Command {
	var f registrationFlags
	cmd := &cobra.Command{
		Use: "update ID", Short: "Change an application's registration", Args: one("the application"),
		Long:    "Update changes what the flags name and leaves the rest. A list that is given replaces the whole list.",
		Example: "  watchword client update shop --redirect-uri https://shop.example.com/callback --redirect-uri https://shop.example.com/return",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				c, err := s.clients.Get(ctx, args[0])
				if err != nil {
					return clientFailure(err, args[0])
				}
				r := c.Registration
				if err := f.apply(p, cmd.Flags(), s, &r); err != nil {
					return err
				}
				if err := s.clients.Update(ctx, args[0], r); err != nil {
					return registrationFailure(s, clientFailure(err, args[0]))
				}
				return p.showClient(ctx, s, args[0], "")
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func (p *Program) clientList() *cobra.Command {
	var after string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List applications by id", Args: cobra.NoArgs, Example: "  watchword client list --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := atMost(limit); err != nil {
				return err
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				list, err := s.clients.List(ctx, after, limit)
				if err != nil {
					return err
				}
				all := make([]shownClient, len(list))
				for i, c := range list {
					all[i] = shownOf(c, "")
				}
				if len(all) == 0 {
					p.none("application", after, "watchword client create")
				}
				return p.show(all, func(w io.Writer) {
					for _, c := range all {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.ID, c.Name, c.AuthMethod, c.State)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "begin after this id")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	return cmd
}

func (p *Program) clientGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Show an application's registration", Args: one("the application"), Example: "  watchword client get shop --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error { return p.showClient(ctx, s, args[0], "") })
		},
	}
}

func (p *Program) clientRotate() *cobra.Command {
	return &cobra.Command{
		Use: "rotate-secret ID", Short: "Replace an application's secret; the old one is dead at once", Args: one("the application"),
		Example: "  watchword client rotate-secret shop --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				secret, err := s.clients.RotateSecret(ctx, args[0])
				if errors.Is(err, oidc.ErrNoSecret) {
					return fail(exitRefused, "it authenticates by the method that watchword client get "+args[0]+" shows", "application %q has no secret", args[0])
				}
				if err != nil {
					return clientFailure(err, args[0])
				}
				p.say("Keep the secret now: it is not shown again.")
				return p.showClient(ctx, s, args[0], secret)
			})
		},
	}
}

// clientChange is a command that does one thing to one application.
func (p *Program) clientChange(verb, short, example, question string, do func(context.Context, *services, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Args: one("the application"), Example: "  " + example,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				if _, err := s.clients.Get(ctx, args[0]); err != nil {
					return clientFailure(err, args[0])
				}
				if question != "" {
					if err := p.confirm(fmt.Sprintf(question, args[0])); err != nil {
						return err
					}
				}
				if err := do(ctx, s, args[0]); err != nil {
					return clientFailure(err, args[0])
				}
				p.say("Done: %s %s.", verb, args[0])
				return nil
			})
		},
	}
}

func (p *Program) showClient(ctx context.Context, s *services, id, secret string) error {
	c, err := s.clients.Get(ctx, id)
	if err != nil {
		return clientFailure(err, id)
	}
	out := shownOf(c, secret)
	return p.show(out, func(w io.Writer) {
		line := func(name string, values ...string) {
			for _, value := range values {
				if value != "" {
					fmt.Fprintf(w, "%s\t%s\n", name, value)
				}
			}
		}
		line("client_id", out.ID)
		line("client_secret", out.Secret)
		line("name", out.Name)
		line("state", out.State)
		line("type", out.ApplicationType)
		line("home_uri", out.HomeURI)
		line("redirect_uri", out.RedirectURIs...)
		line("post_logout_redirect_uri", out.PostLogoutRedirectURIs...)
		line("auth_method", string(out.AuthMethod))
		line("grant_types", strings.Join(grants(&out.Registration), " "))
		line("id_token_alg", out.IDTokenAlg)
		line("access_token", out.AccessTokenFormat)
		line("scopes", strings.Join(out.Scopes, " "))
		line("authorization_details_types", strings.Join(out.DetailTypes, " "))
		line("ciba_delivery", strings.TrimSpace(out.DeliveryMode+" "+out.NotificationEndpoint))
		line("profile", out.Profile)
		line("support_phone", out.SupportPhone)
		line("demands", out.demands()...)
	})
}

// demands are the switches that are on.
func (c *shownClient) demands() (on []string) {
	for _, one := range []struct {
		name string
		on   bool
	}{{"pushed requests", c.RequirePush}, {"dpop", c.DPoPBound}, {"limits of payment accounts", c.PaymentAccount}} {
		if one.on {
			on = append(on, one.name)
		}
	}
	return on
}

func shownOf(c *oidc.Client, secret string) shownClient {
	out := shownClient{ID: c.ID, Secret: secret, Registration: c.Registration, CreatedAt: c.CreatedAt.UTC(), UpdatedAt: c.UpdatedAt.UTC(), DisabledAt: c.DisabledAt, State: "active"}
	if c.DisabledAt != nil {
		out.State = "disabled"
	}
	return out
}

func clientFailure(err error, id string) error {
	if errors.Is(err, oidc.ErrNoClient) {
		return fail(exitNotFound, "see: watchword client list", "there is no application %q", id)
	}
	return err
}

// registrationFailure lists everything that is wrong with a registration.
func registrationFailure(s *services, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	f := &failure{code: exitUsage, hint: "see: watchword client create --help"}
	for _, e := range joined.Unwrap() {
		problem := &config.Problem{What: e.Error()}
		if errors.Is(e, oidc.ErrPlainHTTP) {
			problem.Cure = "use https"
			if !s.cfg.Production() {
				problem.Cure = "use https, or add --allow-http for an application in development"
			}
		}
		f.problems = append(f.problems, problem)
	}
	f.err = fmt.Errorf("the registration has %s", count(len(f.problems), "problem"))
	return f
}
