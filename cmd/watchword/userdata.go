package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
)

// shownSeats are the sessions and remembered browsers of a user as commands print them. The JSON form is stable.
type shownSeats struct {
	Sessions []authn.ExportedSeat `json:"sessions"`
	Browsers []authn.ExportedSeat `json:"browsers"`
}

func (p *Program) userSessions() *cobra.Command {
	var end, forget string
	cmd := &cobra.Command{
		Use: "sessions USER", Short: "Show where somebody is signed in, and end it", Args: one("the user"),
		Long: "Sessions lists the sessions of a user and the browsers that are remembered for them, and ends one by its id, or all. The user is told when a session is ended.\n" +
			"What applications were given for the time that nobody is there stays: watchword user disable ends that too.",
		Example: "  watchword user sessions alice\n  watchword user sessions alice --end all\n  watchword user sessions alice --forget 6e8e1456-cd82-4195-8b99-c7a73350bea5",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				for _, change := range []struct {
					flag, which string
					do          func(context.Context, uuid.UUID, uuid.UUID) error
				}{{"--end", end, s.signIns.EndSessions}, {"--forget", forget, s.signIns.ForgetBrowsers}} {
					if err := endSeat(ctx, u.ID, change.flag, change.which, change.do); err != nil {
						return err
					}
				}
				seats, err := s.signIns.Seats(ctx, u.ID)
				if err != nil {
					return err
				}
				export := authn.NewExport(seats, u)
				if len(export.Sessions)+len(export.Browsers) == 0 {
					p.say("%s is signed in nowhere, and no browser is remembered.", u.Username)
				}
				return p.show(shownSeats{export.Sessions, export.Browsers}, func(w io.Writer) {
					line := func(what string, seat authn.ExportedSeat) {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", what, seat.ID, seat.LastUsedAt.Format(time.RFC3339), seat.UserAgent)
					}
					for _, seat := range export.Sessions {
						line("session", seat)
					}
					for _, seat := range export.Browsers {
						line("browser", seat)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&end, "end", "", "end the session of this id; all: every one")
	cmd.Flags().StringVar(&forget, "forget", "", "forget the remembered browser of this id; all: every one")
	return cmd
}

// endSeat ends one session or remembered browser, or all.
func endSeat(ctx context.Context, user uuid.UUID, flag, which string, do func(context.Context, uuid.UUID, uuid.UUID) error) error {
	if which == "" {
		return nil
	}
	id, err := uuid.Parse(which)
	if which == "all" {
		id, err = uuid.Nil, nil
	}
	if err != nil {
		return fail(exitUsage, "see: watchword user sessions USER", "%s is neither an id nor all", flag)
	}
	err = do(ctx, user, id)
	if errors.Is(err, authn.ErrNothingThere) && id == uuid.Nil {
		return nil
	}
	if errors.Is(err, authn.ErrNothingThere) {
		return fail(exitNotFound, "see: watchword user sessions USER", "there is none of that id")
	}
	return err
}

func (p *Program) userExport() *cobra.Command {
	return &cobra.Command{
		Use: "export USER", Short: "Print all that is kept about somebody, as JSON", Args: one("the user"),
		Long: "Export prints what is kept about a user, but for secrets: profile, ways to sign in, remembered browsers, sessions, what applications have, activity. It is what the user\n" +
			"can download from their account, and is written down in the audit.",
		Example: "  watchword user export alice > alice.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				u, err := find(ctx, s, args[0])
				if err != nil {
					return err
				}
				account, u, err := s.signIns.Export(ctx, u.ID, factors.Operator)
				if err != nil {
					return err
				}
				return p.encode(p.Stdout, authn.NewExport(account, u))
			})
		},
	}
}
