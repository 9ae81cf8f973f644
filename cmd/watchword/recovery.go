package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/sms/simswap"
)

// newRecovery makes what gets people back in; nil where the operator wants none.
func (s *services) newRecovery() (*recovery.Engine, error) {
	c := s.cfg.Recovery
	if !c.Enabled {
		return nil, nil
	}
	texts, err := recovery.NewTexts(s.cfg.Branding.Name, s.cfg.DefaultLocale)
	if err != nil {
		return nil, err
	}
	rules := recovery.DefaultConfig()
	rules.Wait, rules.Alone, rules.FreshPhone, rules.Life = c.Wait, c.Alone, c.FreshPhone, c.Life
	e := &recovery.Engine{DB: s.db, Keys: s.ring, SignIns: s.signIns, Texts: texts, Issuer: s.cfg.Issuer, Config: rules, Words: []string{s.cfg.Branding.Name, s.cfg.SMS.ServiceName, "watchword"}}
	if s.mail != nil {
		e.Mail = &mail.Outbox{Keys: s.ring}
	}
	if issuer, err := url.Parse(s.cfg.Issuer); err == nil {
		e.Words = append(e.Words, issuer.Hostname())
	}
	s.signIns.Repaired, s.signIns.Repairing = e.Repaired, e.Repairing
	return e, nil
}

// newSignal makes what asks the network whether a number's SIM was changed; nil where nobody is asked.
func newSignal(cfg *config.Config) (authn.Signal, error) {
	c := cfg.SIMSwap
	if c.URL == "" {
		return nil, nil
	}
	return simswap.New(simswap.Config{URL: c.URL, TokenURL: c.TokenURL, ClientID: c.ClientID, Secret: c.Secret.Reveal(), MaxAge: c.MaxAge, Open: c.Open, Timeout: c.Timeout})
}

// shownRecovery is a recovery as commands print it. The JSON form is stable. It holds nothing that lets anybody in.
type shownRecovery struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind"`
	State      string     `json:"state"`
	Reason     string     `json:"reason,omitempty"`
	User       string     `json:"user,omitempty"`
	UserID     string     `json:"user_id,omitempty"`
	Channel    string     `json:"channel,omitempty"`
	Proofs     []string   `json:"proofs"`
	Knows      bool       `json:"password_known"`
	Operator   string     `json:"operator,omitempty"`
	ApprovedBy string     `json:"approved_by,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	DueAt      *time.Time `json:"due_at,omitempty"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
}

func asRecovery(r *recovery.Recovery) shownRecovery {
	s := shownRecovery{ID: r.ID.String(), Kind: string(r.Kind), State: string(r.State), Reason: r.Reason, User: r.Username, Channel: string(r.Channel), Proofs: append([]string{}, r.Proofs...), Knows: r.Knows,
		Operator: r.Operator, ApprovedBy: r.ApprovedBy, CreatedAt: r.CreatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), DueAt: utc(r.DueAt), EndedAt: utc(r.EndedAt)}
	if r.Subscriber != uuid.Nil {
		s.UserID = r.Subscriber.String()
	}
	return s
}

func utc(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	shown := at.UTC()
	return &shown
}

func (p *Program) recoveryCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "recovery", Short: "Look at how people get back in, stop it, or help them",
		Example: "  watchword recovery list\n  watchword recovery start alice",
	}
	group.AddCommand(p.recoveryList(), p.recoveryShow(), p.recoveryStart(), p.recoveryApprove(), p.recoveryCancel())
	return group
}

// withRecovery is [Program.with] for commands that need recoveries.
func (p *Program) withRecovery(ctx context.Context, do func(context.Context, *services) error) error {
	return p.with(ctx, func(ctx context.Context, s *services) error {
		if s.recovery == nil {
			return fail(exitRefused, "set recovery.enabled to true", "there are no recoveries here")
		}
		return do(ctx, s)
	})
}

func (p *Program) recoveryList() *cobra.Command {
	var all bool
	var limit int
	cmd := &cobra.Command{
		Use: "list [USER]", Short: "List recoveries, the newest first", Args: cobra.MaximumNArgs(1),
		Long: "List shows those that are under way, of everybody or of one user; with --all also those that are over, for 90 days. Tries with names that nobody has\n" +
			"are not among them: recovery show has them by their ids, which the audit names.",
		Example: "  watchword recovery list\n  watchword recovery list alice --all --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := atMost(limit); err != nil {
				return err
			}
			return p.withRecovery(cmd.Context(), func(ctx context.Context, s *services) error {
				subscriber := uuid.Nil
				if len(args) == 1 {
					u, err := find(ctx, s, args[0])
					if err != nil {
						return err
					}
					subscriber = u.ID
				}
				list, err := s.recovery.List(ctx, subscriber, all, limit)
				if err != nil {
					return err
				}
				shown := make([]shownRecovery, len(list))
				for i, r := range list {
					shown[i] = asRecovery(r)
				}
				if len(shown) == 0 {
					p.say("No recovery is under way.")
				}
				return p.show(shown, func(w io.Writer) {
					for _, r := range shown {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.User, r.Kind, r.State, strings.Join(r.Proofs, " "), r.CreatedAt.Format(time.RFC3339))
					}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that are over")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	return cmd
}

func (p *Program) showRecovery(ctx context.Context, s *services, id uuid.UUID) error {
	r, err := s.recovery.Find(ctx, id)
	if err != nil {
		return recoveryFailure(err)
	}
	shown := asRecovery(r)
	return p.show(shown, func(w io.Writer) {
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%s\t%s\n", name, value)
			}
		}
		moment := func(at *time.Time) string {
			if at == nil {
				return ""
			}
			return at.Format(time.RFC3339)
		}
		line("id", shown.ID)
		line("kind", shown.Kind)
		line("state", strings.TrimSpace(shown.State+" "+shown.Reason))
		line("user", strings.TrimSpace(shown.User+" "+shown.UserID))
		line("channel", shown.Channel)
		line("proofs", strings.Join(shown.Proofs, " "))
		if shown.Knows {
			line("password", "known to whoever began it")
		}
		line("started by", shown.Operator)
		line("agreed by", shown.ApprovedBy)
		line("created", moment(&shown.CreatedAt))
		line("due", moment(shown.DueAt))
		line("expires", moment(&shown.ExpiresAt))
		line("ended", moment(shown.EndedAt))
	})
}

// recoveryFailure says what a command's error means to whoever gave it.
func recoveryFailure(err error) error {
	switch {
	case errors.Is(err, recovery.ErrNotFound):
		return fail(exitNotFound, "see: watchword recovery list", "there is no such recovery, or it is over")
	case errors.Is(err, recovery.ErrHeld):
		return fail(exitRefused, "see: watchword recovery list; approve it or cancel it", "one is held for this user already")
	case errors.Is(err, recovery.ErrSameAdministrator):
		return fail(exitRefused, "another administrator has to agree, or the waiting period has to pass", "whoever started it cannot agree to it")
	}
	return err
}

// recoveryChange is a command about one recovery.
func (p *Program) recoveryChange(use, short, long, example string, do func(context.Context, *services, uuid.UUID) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " ID", Short: short, Long: long, Args: one("the recovery"), Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withRecovery(cmd.Context(), func(ctx context.Context, s *services) error {
				id, err := uuid.Parse(args[0])
				if err != nil {
					return recoveryFailure(recovery.ErrNotFound)
				}
				if err := do(ctx, s, id); err != nil {
					return recoveryFailure(err)
				}
				return p.showRecovery(ctx, s, id)
			})
		},
	}
}

func (p *Program) recoveryShow() *cobra.Command {
	return p.recoveryChange("show", "Show one recovery", "Show tells how far it has come and what was proved. No code, link or address is shown.",
		"  watchword recovery show 0b0f1f6e-4f5e-4c8e-9a54-6a3f4d1c2b7a", func(context.Context, *services, uuid.UUID) error { return nil })
}

func (p *Program) recoveryApprove() *cobra.Command {
	return p.recoveryChange("approve", "Agree to what another administrator has started",
		"Approve ends the waiting: the user can go on at once. It has to be another administrator than the one who started it; both are in the audit.",
		"  watchword recovery approve 0b0f1f6e-4f5e-4c8e-9a54-6a3f4d1c2b7a", func(ctx context.Context, s *services, id uuid.UUID) error { return s.recovery.Approve(ctx, id) })
}

func (p *Program) recoveryCancel() *cobra.Command {
	return p.recoveryChange("cancel", "Stop a recovery", "Cancel ends a recovery, whatever it has come to, and the session that it may have opened. The user is told.",
		"  watchword recovery cancel 0b0f1f6e-4f5e-4c8e-9a54-6a3f4d1c2b7a", func(ctx context.Context, s *services, id uuid.UUID) error { return s.recovery.End(ctx, id) })
}

func (p *Program) recoveryStart() *cobra.Command {
	return &cobra.Command{
		Use: "start USER", Short: "Stand in for one proof of somebody whom you have recognised", Args: one("the user"),
		Long: "Start is for the help desk. It changes nothing and shows no secret: the user goes to /recover and gives one proof of their own; this counts as the second.\n" +
			"It is held until another administrator agrees (recovery approve) or the waiting period is over, and the user is told at once by text and mail.",
		Example: "  watchword recovery start alice\n  watchword recovery start alice --yes --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withRecovery(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				if err := p.confirm(fmt.Sprintf("Have you made sure, other than by what they told you, that this is %s?", u.Username)); err != nil {
					return err
				}
				id, err := s.recovery.Vouch(ctx, u.ID)
				if err != nil {
					if errors.Is(err, recovery.ErrNotFound) {
						return fail(exitRefused, "see: watchword user enable "+u.Username, "%s is disabled", u.Username)
					}
					return recoveryFailure(err)
				}
				return p.showRecovery(ctx, s, id)
			})
		},
	}
}
