package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/text/language"
	"golang.org/x/text/secure/precis"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/sms"
)

// shownUser is a subscriber as commands print it. The JSON form is stable.
type shownUser struct {
	ID          string        `json:"id"`
	Subject     string        `json:"sub"` // the name that applications know
	Username    string        `json:"username"`
	Name        string        `json:"name,omitempty"`
	Email       string        `json:"email,omitempty"`
	Verified    bool          `json:"email_verified,omitempty"`
	HasPassword bool          `json:"has_password"`
	Groups      []string      `json:"groups"`
	Factors     []shownFactor `json:"factors"`
	CreatedAt   time.Time     `json:"created_at"`
	DisabledAt  *time.Time    `json:"disabled_at,omitempty"`
	State       string        `json:"state"`              // active, disabled, no password, no second factor
	NewPassword string        `json:"password,omitempty"` // once, when it was made here
}

func shown(u *authn.Subscriber) shownUser {
	s := shownUser{ID: u.ID.String(), Subject: u.Subject, Username: u.Username, HasPassword: u.HasSecret, Groups: append([]string{}, u.Groups...), Factors: []shownFactor{}, CreatedAt: u.CreatedAt.UTC(), DisabledAt: u.DisabledAt}
	s.Name, _ = u.Profile["name"].(string)
	s.Email, _ = u.Profile["email"].(string)
	s.Verified, _ = u.Profile["email_verified"].(bool)
	for _, a := range u.Bound {
		s.Factors = append(s.Factors, shownAuthenticator(a))
	}
	s.State = s.state()
	return s
}

func (p *Program) userCommand() *cobra.Command {
	group := &cobra.Command{Use: "user", Short: "Manage the people who sign in", Example: "  watchword user create alice --phone +12025550143"}
	group.AddCommand(p.userCreate(), p.userList(), p.userGet(), p.userSetPassword(), p.userSetGroups(), p.userSetEmail(), p.userSessions(), p.userExport(),
		p.userChange("disable", "Keep somebody out, everywhere and at once", "watchword user disable alice\n  watchword user disable alice --yes",
			"Disable ends the sessions of a user and everything that was given to applications. Nothing is deleted.",
			"Shut %s out of every application?", func(ctx context.Context, s *services, id uuid.UUID) error { return s.signIns.Disable(ctx, id) }),
		p.userChange("enable", "Let a disabled user sign in again", "watchword user enable alice", "", "",
			func(ctx context.Context, s *services, id uuid.UUID) error { return s.signIns.Enable(ctx, id) }),
		p.userChange("unlock", "Forget wrong passwords and codes", "watchword user unlock alice",
			"Unlock lets a user try again at once who has given too many wrong passwords or codes.", "",
			func(ctx context.Context, s *services, id uuid.UUID) error { return s.signIns.Unlock(ctx, id) }),
		p.userFactor(),
	)
	return group
}

func (p *Program) userCreate() *cobra.Command {
	var name, email, phone, locale, passwordFile string
	var verified, generate, without bool
	cmd := &cobra.Command{
		Use: "create USERNAME", Short: "Enrol somebody", Args: one("the user"),
		Long: "Create enrols somebody. The password is asked for, or read from a file or the standard input; it is never an argument. With\n" +
			"--generate-password one is made and printed once.",
		Example: "  watchword user create alice --name 'Alice Smith' --email alice@example.com --phone +12025550143\n" +
			"  pass show alice | watchword user create alice --password-file - --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				if _, err := precis.UsernameCasePreserved.String(args[0]); err != nil { // RFC 8265 section 3.4
					return fail(exitUsage, "use letters, digits and signs such as . _ - @, without spaces", "that is not a user name")
				}
				profile, err := profileOf(args[0], name, email, verified, phone, locale)
				if err != nil {
					return err
				}
				var bound []authn.Binding
				words := []string{args[0], name, email}
				if phone != "" {
					number, err := parsePhone(phone, s.cfg.SMS.Countries)
					if err != nil {
						return err
					}
					profile["phone_number"] = number.Reveal()
					words = append(words, number.Words()...)
					a, unique := smsotp.Phone(uuid.Nil, number)
					bound = append(bound, authn.Binding{Authenticator: a, Unique: unique})
				}
				password, made := "", ""
				switch {
				case without:
				case generate:
					made = strings.ToLower(rand.Text()[:20])
					password = made
				default:
					if password, err = p.password(s, passwordFile, len(bound) == 0, words...); err != nil {
						return err
					}
				}
				if err := s.keys.Ready(); err != nil { // from the first user on the database belongs to its keys
					return fail(exitFailed, "make them with: watchword key create", "the database lacks signing keys: %w", err)
				}
				id, err := s.signIns.Create(ctx, args[0], password, profile, bound...)
				if errors.Is(err, authn.ErrTaken) {
					return fail(exitRefused, "choose another name, or look with: watchword user get "+args[0], "somebody signs in under that name or address already")
				}
				if err != nil {
					return err
				}
				u, err := s.signIns.Find(ctx, id.String())
				if err != nil {
					return err
				}
				if len(bound) == 0 {
					p.say("%s has no second factor and cannot sign in to applications that want one.", args[0])
				}
				out := shown(u)
				out.NewPassword = made
				return p.showUser(out)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "full name")
	flags.StringVar(&email, "email", "", "e-mail address")
	flags.BoolVar(&verified, "email-verified", false, "the address is known to be theirs; they may sign in with it")
	flags.StringVar(&phone, "phone", "", "mobile number for codes, with country code: +12025550143")
	flags.StringVar(&locale, "locale", "", "language, as a BCP 47 tag")
	flags.StringVar(&passwordFile, "password-file", "", "file that holds the password; - is the standard input")
	flags.BoolVar(&generate, "generate-password", false, "make a password and print it once")
	flags.BoolVar(&without, "no-password", false, "set none: they cannot sign in until there is one")
	cmd.MarkFlagsMutuallyExclusive("password-file", "generate-password", "no-password")
	return cmd
}

var errAddress = fail(exitUsage, "write it as alice@example.com", "that is not an e-mail address")

// profileOf puts standard claims together (OpenID Connect Core 5.1).
func profileOf(username, name, email string, verified bool, phone, locale string) (authn.Profile, error) {
	profile := authn.Profile{"preferred_username": username}
	if name != "" {
		profile["name"] = name
		if given, family, ok := strings.Cut(name, " "); ok {
			profile["given_name"], profile["family_name"] = given, family
		}
	}
	if email != "" {
		if _, err := mail.ParseAddress(email); err != nil {
			return nil, errAddress
		}
		profile["email"], profile["email_verified"] = email, verified
	}
	if phone != "" {
		profile["phone_number_verified"] = true
	}
	if locale != "" {
		tag, err := language.Parse(locale)
		if err != nil {
			return nil, fail(exitUsage, "write a BCP 47 tag, such as en or de-CH", "that is not a language")
		}
		profile["locale"] = tag.String()
	}
	return profile, nil
}

// parsePhone reads a number that somebody is to be reached at. countries are those served; none: all of them.
func parsePhone(text string, countries []string) (sms.Number, error) {
	number, err := sms.ParseNumber(text, "")
	if err != nil {
		return sms.Number{}, fail(exitUsage, "write a mobile number in full, like +12025550143", "%w", err)
	}
	if len(countries) > 0 && !slices.Contains(countries, number.Country()) {
		return sms.Number{}, fail(exitRefused, "add "+number.Country()+" to sms.countries to serve it", "texts to %s are not allowed", number.Country())
	}
	return number, nil
}

// password asks for a new one and holds it against the rules. alone says that no second factor follows it. words are what belongs to its owner.
func (p *Program) password(s *services, file string, alone bool, words ...string) (string, error) {
	password, err := p.secret("password", file, "--password-file")
	if err != nil {
		return "", err
	}
	context := []string{s.cfg.Branding.Name, s.cfg.SMS.ServiceName, "watchword"}
	if issuer, err := url.Parse(s.cfg.Issuer); err == nil {
		context = append(context, issuer.Hostname())
	}
	minimum := authn.MinPassword
	if alone {
		minimum = authn.MinAlonePassword
	}
	if err := authn.CheckNewPassword(password, minimum, append(context, words...)...); err != nil {
		return "", fail(exitRefused, fmt.Sprintf("use %d to %d characters that are not easy to guess; several words do well", minimum, authn.MaxPassword), "%w", err)
	}
	return password, nil
}

func (p *Program) userList() *cobra.Command {
	var after string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List users by name", Args: cobra.NoArgs, Example: "  watchword user list --limit 20 --after alice",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := atMost(limit); err != nil {
				return err
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				list, err := s.signIns.List(ctx, after, limit)
				if err != nil {
					return err
				}
				all := make([]shownUser, len(list))
				for i, u := range list {
					all[i] = shown(u)
				}
				if len(all) == 0 {
					p.none("user", after, "watchword user create")
				}
				return p.show(all, func(w io.Writer) {
					for _, u := range all {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", u.Username, u.ID, u.Subject, u.Name, u.Email, u.State)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "begin after this name")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	return cmd
}

func (u *shownUser) state() string {
	switch {
	case u.DisabledAt != nil:
		return "disabled"
	case !u.HasPassword:
		return "no password"
	case len(u.Factors) == 0:
		return "no second factor"
	}
	return "active"
}

func (p *Program) userGet() *cobra.Command {
	return &cobra.Command{
		Use: "get USER", Short: "Show one user, by name, address, id or sub", Args: one("the user"),
		Long:    "Get shows one user. USER is, here and in every other command, a user name, a verified e-mail address, the id, or the sub that\napplications know the user by.",
		Example: "  watchword user get alice --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				return p.showUser(shown(u))
			})
		},
	}
}

func (p *Program) showUser(u shownUser) error {
	return p.show(u, func(w io.Writer) {
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%s\t%s\n", name, value)
			}
		}
		line("id", u.ID)
		line("sub", u.Subject)
		line("username", u.Username)
		line("name", u.Name)
		email := u.Email
		if email != "" && !u.Verified {
			email += " (not verified)"
		}
		line("email", email)
		line("state", u.State)
		line("groups", strings.Join(u.Groups, " "))
		for _, f := range u.Factors {
			line(f.Kind, f.String())
		}
		line("created", u.CreatedAt.Format(time.RFC3339))
		line("password", u.NewPassword)
	})
}

func (p *Program) userSetPassword() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "set-password USER", Short: "Replace a password and end all sessions", Args: one("the user"),
		Example: "  watchword user set-password alice\n  watchword user set-password alice --password-file new.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				old := shown(u)
				words := []string{u.Username, old.Name, old.Email}
				for _, a := range u.Bound {
					if number, err := sms.ParseNumber(string(a.Data), ""); err == nil && a.Kind == smsotp.Kind {
						words = append(words, number.Words()...)
					}
				}
				password, err := p.password(s, file, len(u.Bound) == 0, words...)
				if err != nil {
					return err
				}
				if err := s.signIns.SetPassword(ctx, u.ID, password); err != nil {
					return err
				}
				p.say("The password of %s is replaced, and all sessions are ended.", u.Username)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&file, "password-file", "", "file that holds the password; - is the standard input")
	return cmd
}

func (p *Program) userSetGroups() *cobra.Command {
	return &cobra.Command{
		Use: "set-groups USER [GROUP]...", Short: "Say which groups a user is in, for the rules of policy",
		Long:    "Set-groups replaces the groups that a user is in. Without a group they are in none. It holds from the next sign-in on; what applications\nwere given stays.",
		Example: "  watchword user set-groups alice staff finance\n  watchword user set-groups alice",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("name the user")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args[1:] {
				if err := authn.CheckGroup(name); err != nil {
					return fail(exitUsage, "see: watchword user set-groups --help", "%w", err)
				}
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				if err := s.signIns.SetGroups(ctx, u.ID, args[1:]); err != nil {
					return err
				}
				if u, err = s.signIns.Find(ctx, u.ID.String()); err != nil {
					return err
				}
				return p.showUser(shown(u))
			})
		},
	}
}

func (p *Program) userSetEmail() *cobra.Command {
	var verified bool
	cmd := &cobra.Command{
		Use: "set-email USER ADDRESS", Short: "Replace an e-mail address", Args: cobra.ExactArgs(2),
		Long: "Set-email replaces the address of a user; an empty one takes it away. An address that is known to be theirs (--verified) is one to sign in with, and the one that\n" +
			"is told what happens to the account. The old one and the new one are told of the change.",
		Example: "  watchword user set-email alice alice@example.com --verified\n  watchword user set-email alice ''",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				if args[1] != "" {
					if _, err := mail.ParseAddress(args[1]); err != nil {
						return errAddress
					}
				}
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				err = s.signIns.SetEmail(ctx, u.ID, args[1], verified)
				if errors.Is(err, authn.ErrTaken) {
					return fail(exitRefused, "look who with: watchword user get "+args[1], "somebody else signs in under that address")
				}
				if err != nil {
					return err
				}
				if u, err = s.signIns.Find(ctx, u.ID.String()); err != nil {
					return err
				}
				return p.showUser(shown(u))
			})
		},
	}
	cmd.Flags().BoolVar(&verified, "verified", false, "the address is known to be theirs")
	return cmd
}

// userChange is a command that does one thing to one user.
func (p *Program) userChange(verb, short, example, long, question string, do func(context.Context, *services, uuid.UUID) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " USER", Short: short, Long: long, Args: one("the user"), Example: "  " + example,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				if question != "" {
					if err := p.confirm(fmt.Sprintf(question, u.Username)); err != nil {
						return err
					}
				}
				if err := do(ctx, s, u.ID); err != nil {
					return err
				}
				if u, err = s.signIns.Find(ctx, u.ID.String()); err != nil {
					return err
				}
				return p.showUser(shown(u))
			})
		},
	}
}

func find(ctx context.Context, s *services, idOrName string) (*authn.Subscriber, error) {
	u, err := s.signIns.Find(ctx, idOrName)
	if errors.Is(err, authn.ErrNoSubscriber) {
		return nil, fail(exitNotFound, "see: watchword user list", "there is no user %q", idOrName)
	}
	return u, err
}
