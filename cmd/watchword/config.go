package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
)

func (p *Program) configCommand() *cobra.Command {
	group := &cobra.Command{Use: "config", Short: "Look at the configuration", Example: "  watchword config check --config watchword.yaml"}
	group.AddCommand(
		&cobra.Command{
			Use: "check", Short: "Check everything that a server checks before it listens", Args: cobra.NoArgs,
			Long: "Check reads the configuration, the keys and the certificate, and asks the database whether it is there, has its tables\n" +
				"and gives this program no more power than it needs. It lists all problems, each with its cure, and exits with 3. What cannot be\n" +
				"checked because something else is missing is checked next time.",
			Example: "  watchword config check --config watchword.yaml",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, _, err := p.gather()
				problems := config.Problems(err)
				if err != nil && len(problems) == 0 {
					return err
				}
				code := p.blame(exitProblems, problems)
				if cfg != nil {
					problems = append(problems, problemsOf(preflight(cmd.Context(), cfg, problems...))...)
				}
				warned := []string{}
				if cfg != nil {
					warned = append(warned, warnings(cfg)...)
				}
				if p.format == "json" {
					if err := p.encode(p.Stdout, struct {
						OK       bool              `json:"ok"`
						Problems []*config.Problem `json:"problems"`
						Warnings []string          `json:"warnings"`
					}{len(problems) == 0, append([]*config.Problem{}, problems...), warned}); err != nil {
						return err
					}
				} else {
					for _, warning := range warned {
						p.say("warning: %s", warning)
					}
				}
				if len(problems) > 0 {
					f := &failure{code: code, err: fmt.Errorf("found %s", count(len(problems), "problem"))}
					if p.format != "json" { // there they are data already
						f.problems = problems
					}
					return f
				}
				p.say("The configuration is complete and the server can start.")
				return nil
			},
		},
		&cobra.Command{
			Use: "show", Short: "Show the configuration in effect, secrets masked", Args: cobra.NoArgs,
			Example: "  watchword config show --format json",
			RunE: func(*cobra.Command, []string) error {
				cfg, origins, err := p.load()
				if err != nil {
					return err
				}
				if p.format == "json" {
					data, err := cfg.JSON()
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(p.Stdout, "%s\n", data)
					return err
				}
				_, err = io.WriteString(p.Stdout, cfg.YAML(origins))
				return err
			},
		},
		&cobra.Command{
			Use: "schema", Short: "Print the JSON Schema of a configuration file", Args: cobra.NoArgs,
			Example: "  watchword config schema > watchword.schema.json",
			RunE: func(*cobra.Command, []string) error {
				data, err := config.Schema()
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(p.Stdout, "%s\n", data)
				return err
			},
		},
		&cobra.Command{
			Use: "env", Short: "List the environment variables", Args: cobra.NoArgs,
			Example: "  watchword config env",
			RunE: func(*cobra.Command, []string) error {
				type variable struct {
					Name    string `json:"name"`
					Key     string `json:"key"`
					Default string `json:"default,omitempty"`
					Doc     string `json:"doc"`
				}
				var all []variable
				for _, o := range config.Options() {
					all = append(all, variable{o.Env(), o.Path, o.Default, o.Doc})
					if o.Secret {
						all = append(all, variable{o.Env() + "_FILE", o.Path + "_file", "", "Name of a file that holds " + o.Path + "."})
					}
				}
				return p.show(all, func(w io.Writer) {
					for _, v := range all {
						fmt.Fprintf(w, "%s\t%s\t%s\n", v.Name, v.Default, v.Doc)
					}
				})
			},
		},
	)
	return group
}

func (p *Program) initCommand() *cobra.Command {
	var dir, issuer string
	cmd := &cobra.Command{
		Use: "init", Short: "Write a commented configuration and make keys", Args: cobra.NoArgs,
		Long: "Init writes watchword.yaml with every key explained, and makes the keys that seal and hash what the database will hold.\n" +
			"What --set says is written into the file. It replaces nothing.",
		Example: "  watchword init --issuer https://login.example.com --dir /etc/watchword\n" +
			"  watchword init --issuer https://login.example.com --set sms.vendors.simulator.url=http://127.0.0.1:8082",
		RunE: func(*cobra.Command, []string) error {
			if issuer == "" {
				return fail(exitUsage, "add --issuer https://login.example.com", "the URL under which browsers will reach the server is needed")
			}
			absolute, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			file, keys, dsn := filepath.Join(absolute, "watchword.yaml"), filepath.Join(absolute, "keys"), filepath.Join(absolute, "dsn")
			given := map[string]string{"database.dsn": dsn, "keys.dir": keys}
			if err := p.choices(given, issuer); err != nil {
				return err
			}
			if err := os.MkdirAll(absolute, 0o750); err != nil {
				return fail(exitFailed, "choose another --dir, or run this as a user who may write there", "the directory cannot be made: %w", err)
			}
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640) //nolint:gosec // holds no secret; the group may be the server's
			if os.IsExist(err) {
				return fail(exitRefused, "choose another --dir, or edit the file", "%s exists", file)
			}
			if err != nil {
				return fail(exitFailed, "choose another --dir, or run this as a user who may write there", "%w", err)
			}
			if _, err := io.WriteString(f, config.Sample(given)); err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			if err := makeKeys(keys); err != nil {
				return err
			}
			p.say("Wrote %s and keys in %s.\nBack the keys up apart from the database: without them nothing in it can be read.\n\nNext:\n"+
				"  1. write the connection string of an empty PostgreSQL database into %s (chmod 600)\n"+
				"  2. give a vendor of text messages its settings in %[1]s (sms.vendors)\n"+
				"  3. give everything to the user that the server runs as, and be that user for the rest: chown -R watchword: %[4]s\n"+
				"  4. watchword migrate up --config %[1]s\n"+
				"  5. watchword key create --config %[1]s\n"+
				"  6. watchword config check --config %[1]s\n"+
				"  7. watchword serve --config %[1]s", file, keys, dsn, absolute)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "/etc/watchword", "directory to write to")
	cmd.Flags().StringVar(&issuer, "issuer", "", "URL under which browsers will reach the server")
	return cmd
}

// choices adds to given, by key, what a new configuration is to say, once it is certain that a server will take it.
func (p *Program) choices(given map[string]string, issuer string) error {
	_, _, err := config.Load(config.Sources{Env: []string{"WATCHWORD_ISSUER=" + issuer, "WATCHWORD_DATABASE__DSN=dbname=later"}, Flags: p.configSet})
	if problems := config.Problems(err); len(problems) > 0 {
		for _, problem := range problems {
			if problem.Where == "WATCHWORD_ISSUER" {
				problem.Where = "--issuer"
			}
		}
		return &failure{code: exitUsage, err: fmt.Errorf("nothing was written: found %s", count(len(problems), "problem")), problems: problems}
	}
	given["issuer"] = issuer
	for _, entry := range p.configSet {
		key, value, _ := strings.Cut(entry, "=")
		for _, o := range config.Options() {
			if o.Secret && key == o.Path+"_file" {
				key = o.Path
			}
		}
		given[key] = value
	}
	return nil
}

// makeKeys makes the key files, unless there are some: keys are never replaced, because what they sealed would be lost.
func makeKeys(dir string) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fail(exitRefused, "restore what is missing from the backup", "%s holds files already, but not all keys", dir)
	}
	return keyring.Create(dir)
}
