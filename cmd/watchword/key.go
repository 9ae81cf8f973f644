package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/oidc"
)

func (p *Program) keyCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "key", Short: "Manage keys", Example: "  watchword key list",
		Long: "There are two kinds. Key files lie in keys.dir and seal and hash what the database holds; whoever has a copy of the database\n" +
			"can read nothing without them. Signing keys lie in the database, sealed, and sign tokens.",
	}
	group.AddCommand(
		p.keyCreate(),
		&cobra.Command{
			Use: "list", Short: "List the signing keys", Args: cobra.NoArgs, Example: "  watchword key list --format json",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
					list, err := s.keys.List(ctx)
					if err != nil {
						return err
					}
					if len(list) == 0 {
						p.none("signing key", "", "watchword key create")
					}
					return p.showKeys(list)
				})
			},
		},
		p.keyRotate(),
	)
	return group
}

func (p *Program) keyCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create", Short: "Make the keys that are missing", Args: cobra.NoArgs,
		Long: "Create makes the key files, if there are none, and the first signing keys of a database that has its tables and no keys. It replaces\n" +
			"nothing. Keys that are lost are not made anew by it: restore them from the backup.",
		Example: "  watchword key create --config watchword.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := p.load()
			if err != nil {
				return err
			}
			made := false
			switch _, err := keyring.Load(cfg.Keys.Dir); {
			case errors.Is(err, keyring.ErrMissing):
				if err := makeKeys(cfg.Keys.Dir); err != nil {
					return err
				}
				made = true
				p.say("Made key files in %s. Back them up apart from the database: without them nothing in it can be read.", cfg.Keys.Dir)
			case err == nil:
				p.say("The key files in %s are there already.", cfg.Keys.Dir)
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				if made {
					if err := s.record(ctx, audit.Event{Name: "key_files.create", Outcome: audit.Success, Actor: audit.Operator, Object: cfg.Keys.Dir}); err != nil {
						return err
					}
				}
				had, err := s.keys.List(ctx)
				if err != nil {
					return err
				}
				if err := s.keys.Ensure(ctx); err != nil {
					return err
				}
				have, err := s.keys.List(ctx)
				if err != nil {
					return err
				}
				if len(have) == len(had) {
					p.say("The signing keys are there already.")
				}
				return p.showKeys(have[:len(have)-len(had)]) // the newest come first
			})
		},
	}
}

func (p *Program) keyRotate() *cobra.Command {
	var algs []string
	var after time.Duration
	var files bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the signing keys, or add a newer key to the key files", Args: cobra.NoArgs,
		Long: "Rotate makes a new signing key for each algorithm. It is published at once and used after a while, when applications have\n" +
			"fetched it; the old one stays published until its last token has ended. Nothing is interrupted.\n\n" +
			"With --files it adds a newer key to the files in keys.dir instead. The newer one seals and hashes from then on, the older ones\n" +
			"still open. Give the files to every server and restart it.",
		Example: "  watchword key rotate\n  watchword key rotate --alg RS256 --after 24h\n  watchword key rotate --files",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if files {
				return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
					if err := keyring.Rotate(s.cfg.Keys.Dir); err != nil {
						return err
					}
					p.say("Added newer keys in %s. Back them up, give them to every server, and restart it.", s.cfg.Keys.Dir)
					return s.record(ctx, audit.Event{Name: "key_files.rotate", Outcome: audit.Success, Actor: audit.Operator, Object: s.cfg.Keys.Dir})
				})
			}
			if after < 0 || after > 30*24*time.Hour {
				return fail(exitUsage, "give --after between 0s and 720h", "a key cannot wait that long")
			}
			return p.with(cmd.Context(), func(ctx context.Context, s *services) error {
				made := map[string]bool{}
				for _, alg := range algs {
					id, err := s.keys.Create(ctx, alg, after)
					if err != nil {
						return err
					}
					made[id] = true
				}
				list, err := s.keys.List(ctx)
				if err != nil {
					return err
				}
				kept := []oidc.Key{}
				for _, key := range list {
					if made[key.ID] {
						kept = append(kept, key)
					}
				}
				return p.showKeys(kept)
			})
		},
	}
	cmd.Flags().StringSliceVar(&algs, "alg", oidc.Algorithms(), "algorithms to make a key for")
	cmd.Flags().DurationVar(&after, "after", time.Hour, "how long the new key is published before it is used")
	cmd.Flags().BoolVar(&files, "files", false, "rotate the key files instead")
	return cmd
}

func (p *Program) showKeys(list []oidc.Key) error {
	return p.show(append([]oidc.Key{}, list...), func(w io.Writer) {
		for _, key := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\tfrom %s\n", key.ID, key.Alg, key.State, key.ActiveFrom.UTC().Format(time.RFC3339))
		}
	})
}
