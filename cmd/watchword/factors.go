package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/backupcode"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/factors/totp"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/sms"
)

// installed are the factors that people can have. Adding one is its folder and its line here. outage says whether texts get through to nobody at the moment; nil: they do.
func installed(cfg *config.Config, keys factors.Keys, texts *sms.Texts, outage func() bool) ([]factors.Factor, error) {
	var list shelf
	list.put(newPhones(cfg, texts, outage))
	list.put(totp.New(keys, cfg.Branding.Name))
	list.put(backupcode.New(keys))
	return list.factors, errors.Join(list.problems...)
}

type shelf struct {
	factors  []factors.Factor
	problems []error
}

func (s *shelf) put(f factors.Factor, err error) {
	s.factors, s.problems = append(s.factors, f), append(s.problems, err)
}

func newPhones(cfg *config.Config, texts *sms.Texts, outage func() bool) (*smsotp.Factor, error) {
	phones, err := smsotp.New(texts, cfg.OTP.Digits, cfg.OTP.Lifetime)
	if err == nil {
		phones.Outage = outage
	}
	return phones, err
}

// shownFactor tells of an authenticator what its owner may see.
type shownFactor struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"`
	Hint    string    `json:"hint"`
	Name    string    `json:"name,omitempty"`
	Left    *int      `json:"left,omitempty"` // answers that are still good, of what runs out
	BoundAt time.Time `json:"bound_at"`
}

func shownAuthenticator(a factors.Authenticator) shownFactor {
	return shownFactor{ID: a.ID.String(), Kind: a.Kind, Hint: a.Hint, Name: a.Name, Left: a.Left, BoundAt: a.BoundAt.UTC()}
}

// String is what a table shows.
func (f shownFactor) String() string {
	words := []string{f.ID}
	if f.Hint != "" {
		words = append(words, "ends in "+f.Hint)
	}
	if f.Left != nil {
		words = append(words, fmt.Sprintf("%d left", *f.Left))
	}
	if f.Name != "" {
		words = append(words, f.Name)
	}
	return strings.Join(words, ", ")
}

// shownSetup is what the holder of a new authenticator has to be handed. It is printed once.
type shownSetup struct {
	Secret string   `json:"secret,omitempty"`
	URI    string   `json:"uri,omitempty"`
	Codes  []string `json:"codes,omitempty"`
}

func (p *Program) userFactor() *cobra.Command {
	group := &cobra.Command{Use: "factor", Short: "Give somebody a second factor, or take one away", Example: "  watchword user factor add alice totp"}
	group.AddCommand(p.userFactorAdd(), p.userFactorRemove())
	return group
}

func (p *Program) userFactorAdd() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "add USER KIND", Short: "Bind a new authenticator app or a new set of backup codes", Args: two("the user and the kind of factor"),
		Long: "Add makes an authenticator app's secret (totp) or ten backup codes (backup_code, in place of those before), binds them without a proof and prints\n" +
			"them, once. Hand them to nobody but the user.",
		Example: "  watchword user factor add alice totp --name phone\n  watchword user factor add alice backup_code --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				setup, err := s.signIns.Provision(ctx, u, args[1], name)
				switch {
				case errors.Is(err, authn.ErrNoAuthenticator):
					return fail(exitUsage, "name one of: "+strings.Join(provisioned(s), ", "), "there is no factor of that kind that begins here")
				case errors.Is(err, factors.ErrName):
					return fail(exitUsage, fmt.Sprintf("use %d characters at most, in one line", factors.MaxName), "that is not a name for an authenticator")
				case err != nil:
					return err
				}
				return p.show(shownSetup(setup), func(w io.Writer) {
					for _, line := range [][2]string{{"secret", setup.Secret}, {"uri", setup.URI}} {
						if line[1] != "" {
							fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
						}
					}
					for _, code := range setup.Codes {
						fmt.Fprintln(w, code)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what the user calls it")
	return cmd
}

// provisioned are the kinds of factors that begin here.
func provisioned(s *services) (kinds []string) {
	for _, f := range s.signIns.Ledger.Factors() {
		if _, ok := f.(factors.Provisioner); ok {
			kinds = append(kinds, f.Kind())
		}
	}
	slices.Sort(kinds)
	return kinds
}

func (p *Program) userFactorRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove USER ID", Short: "Take an authenticator away", Args: two("the user and the id of the factor"),
		Long:    "Remove unbinds an authenticator, even the last one. Its id is among those that user get shows.",
		Example: "  watchword user factor remove alice 9b2f0c1e-5d0a-4c59-8f38-1d2b7a1c7f10 --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				id, err := uuid.Parse(args[1])
				if err != nil {
					return fail(exitUsage, "see: watchword user get "+u.Username, "that is not the id of a factor")
				}
				if err := p.confirm(fmt.Sprintf("Take this factor away from %s?", u.Username)); err != nil {
					return err
				}
				if err := s.signIns.Unbind(ctx, u.ID, id); errors.Is(err, authn.ErrNoAuthenticator) {
					return fail(exitNotFound, "see: watchword user get "+u.Username, "%s has no such factor", u.Username)
				} else if err != nil {
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
