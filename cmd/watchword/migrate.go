package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/retention"
)

func (p *Program) migrateCommand() *cobra.Command {
	group := &cobra.Command{Use: "migrate", Short: "Bring the database's tables up to this version", Example: "  watchword migrate up"}
	list := func(ctx context.Context, keep func(postgres.Migration) bool) error {
		cfg, _, err := p.load()
		if err != nil {
			return err
		}
		all, err := postgres.Migrations(ctx, directDSN(cfg))
		if err != nil {
			return databaseFailure(err)
		}
		kept := []postgres.Migration{}
		for _, m := range all {
			if keep(m) {
				kept = append(kept, m)
			}
		}
		return p.show(kept, func(w io.Writer) {
			for _, m := range kept {
				state := "pending"
				if m.Applied {
					state = "applied"
				}
				fmt.Fprintf(w, "%d\t%s\t%s\n", m.Version, state, m.Name)
			}
		})
	}
	group.AddCommand(
		&cobra.Command{
			Use: "up", Short: "Apply every pending step", Args: cobra.NoArgs,
			Long:    "Up applies every pending step, in order. The version before keeps working meanwhile and afterwards, so that replicas can be\nreplaced one by one. Several that run at once wait for one another.",
			Example: "  watchword migrate up --config watchword.yaml",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, _, err := p.load()
				if err != nil {
					return err
				}
				applied, err := postgres.Migrate(cmd.Context(), directDSN(cfg))
				if err != nil {
					return databaseFailure(err)
				}
				if err := partition(cmd.Context(), cfg); err != nil {
					return databaseFailure(err)
				}
				if len(applied) == 0 {
					p.say("The database has every step already.")
				}
				return p.show(append([]postgres.Migration{}, applied...), func(w io.Writer) {
					for _, m := range applied {
						fmt.Fprintf(w, "%d\tapplied\t%s\n", m.Version, m.Name)
					}
				})
			},
		},
		&cobra.Command{
			Use: "status", Short: "List all steps and whether the database has them", Args: cobra.NoArgs, Example: "  watchword migrate status",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return list(cmd.Context(), func(postgres.Migration) bool { return true })
			},
		},
		&cobra.Command{
			Use: "plan", Short: "List the steps that up would apply", Args: cobra.NoArgs, Example: "  watchword migrate plan --format json",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return list(cmd.Context(), func(m postgres.Migration) bool { return !m.Applied })
			},
		},
	)
	return group
}

// partition makes room for the coming days, so that a server finds it from its first minute.
func partition(ctx context.Context, cfg *config.Config) error {
	db, err := postgres.Open(postgres.Config{DSN: directDSN(cfg), MaxConns: 2})
	if err != nil {
		return err
	}
	keeper := retention.Keeper{DB: db, Log: slog.New(slog.DiscardHandler)}
	return errors.Join(keeper.Once(ctx), db.Close())
}
