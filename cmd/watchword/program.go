package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/watchword-auth/watchword/internal/config"
)

// Program is one run of the command line.
type Program struct {
	Name           string   // as the shell was told it, for commands to copy; empty: watchword
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            []string         // as os.Environ gives it
	Hangup         <-chan os.Signal // asks a server to read its configuration again; may be nil

	format      string
	quiet, yes  bool
	configFiles []string
	configSet   []string
}

// Exit codes.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitProblems = 3
	exitNotFound = 4
	exitRefused  = 5
)

// failure is an error with the exit code it leads to and what to do about it.
type failure struct {
	code     int
	err      error
	hint     string
	problems []*config.Problem
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail says what went wrong, and how to right it.
func fail(code int, hint, format string, args ...any) error {
	return &failure{code: code, hint: hint, err: fmt.Errorf(format, args...)}
}

// Run runs the command and gives the exit code.
func (p *Program) Run(ctx context.Context) int {
	root := p.command()
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{code: exitFailed, err: err}
	}
	p.complain(f)
	return f.code
}

func (p *Program) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "watchword",
		Short: "An OpenID Provider with a password and a text-message code",
		Long: "Watchword signs people in for your applications, by OpenID Connect, with a password and a code by text\n" +
			"message. It is one binary and PostgreSQL.",
		Example: "  watchword dev                        # everything local: database, demo application, inbox of texts\n" +
			"  watchword init --issuer https://login.example.com\n" +
			"  watchword migrate up && watchword serve",
		SilenceErrors: true, SilenceUsage: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&p.format, "format", "text", "form of the output: text or json")
	flags.BoolVarP(&p.quiet, "quiet", "q", false, "say nothing but data and errors")
	flags.BoolVarP(&p.yes, "yes", "y", false, "answer every question with yes")
	flags.StringArrayVarP(&p.configFiles, "config", "c", nil, "configuration file; may be given several times (default $"+config.ConfigVariable+", then "+defaultConfig+")")
	flags.StringArrayVar(&p.configSet, "set", nil, "one configuration key, as key=value; may be given several times")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fail(exitUsage, "see: "+cmd.CommandPath()+" --help", "%w", err)
	})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmd.ValidateFlagGroups(); err != nil {
			return fail(exitUsage, "leave one of them", "%s exclude each other", strings.Join(excluded(cmd), " and "))
		}
		if p.format != "text" && p.format != "json" {
			return fail(exitUsage, "use --format text or --format json", "no output of form %q", p.format)
		}
		return nil
	}
	root.AddCommand(p.configCommand(), p.initCommand(), p.migrateCommand(), p.serveCommand(), p.devCommand(), p.userCommand(), p.recoveryCommand(), p.clientCommand(), p.policyCommand(), p.keyCommand(), p.smsCommand(), p.mailCommand(), p.auditCommand(),
		p.transactionCommand(), p.simCommand(), p.webhookCommand(), p.tenantCommand(), p.apikeyCommand(), p.otpCommand(),
		p.versionCommand(), p.healthcheckCommand(), p.manCommand())
	p.strict(root)
	return root
}

// excluded lists the flags that were given and go with no other of their group.
func excluded(cmd *cobra.Command) (given []string) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if len(f.Annotations["cobra_annotation_mutually_exclusive"]) > 0 {
			given = append(given, "--"+f.Name)
		}
	})
	return given
}

// one wants exactly one argument. what is its name in a sentence.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch len(args) {
		case 1:
			return nil
		case 0:
			return fmt.Errorf("name %s", what)
		}
		return fmt.Errorf("name only %s: %d arguments are too many", what, len(args)) // they could be a password
	}
}

// two wants two arguments, and says which.
func two(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 2 {
			return fmt.Errorf("name %s: two arguments, not %d", what, len(args))
		}
		return nil
	}
}

// atMost checks how many a list may have at once.
func atMost(limit int) error {
	if limit < 1 || limit > 10_000 {
		return fail(exitUsage, "give --limit between 1 and 10000", "a list of %d is not possible", limit)
	}
	return nil
}

// strict makes every wrong argument an error of usage, in groups of commands too: cobra would print help and call it success.
func (p *Program) strict(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fail(exitUsage, "see: "+c.CommandPath()+" --help", "%w", err)
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.SuggestionsMinimumDistance = 2
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			hint := "see: " + c.CommandPath() + " --help"
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "did you mean: " + c.CommandPath() + " " + strings.Join(near, " or ") + "?"
			}
			return fail(exitUsage, hint, "unknown command %q of %s", args[0], c.CommandPath())
		}
	}
	for _, sub := range cmd.Commands() {
		p.strict(sub)
	}
}

// inward matches the names of packages that errors begin with: of use to whoever reads the source, and to nobody at a terminal.
var inward = regexp.MustCompile(`(^|: |; )(audit|authn|factors|gateway|oidc|sms|smsotp|totp|backupcode|postgres|config): `)

// outward is an error's text for people.
func outward(text string) string { return inward.ReplaceAllString(text, "$1") }

// complain writes an error: what, why, how to fix.
func (p *Program) complain(f *failure) {
	if p.format == "json" {
		_ = p.encode(p.Stderr, struct {
			Error    string            `json:"error"`
			Hint     string            `json:"hint,omitempty"`
			Problems []*config.Problem `json:"problems,omitempty"`
		}{outward(f.Error()), f.hint, f.problems})
		return
	}
	fmt.Fprintf(p.Stderr, "watchword: %s\n", outward(f.Error()))
	for _, problem := range f.problems {
		fmt.Fprintf(p.Stderr, "  %s\n", outward(problem.Error()))
		if problem.Cure != "" {
			fmt.Fprintf(p.Stderr, "    hint: %s\n", problem.Cure)
		}
	}
	if f.hint != "" {
		fmt.Fprintf(p.Stderr, "hint: %s\n", f.hint)
	}
}

// say tells the person at the terminal something that is not data.
func (p *Program) say(format string, args ...any) {
	if !p.quiet {
		fmt.Fprintf(p.Stderr, format+"\n", args...)
	}
}

// none says that a list is empty; after is where it was to begin.
func (p *Program) none(what, after, cure string) {
	if after != "" {
		p.say("No %s comes after %q.", what, after)
		return
	}
	p.say("There is no %s yet. Make one with: %s", what, cure)
}

// show writes data: v as JSON, or whatever text writes.
func (p *Program) show(v any, text func(w io.Writer)) error {
	if p.format == "json" {
		return p.encode(p.Stdout, v)
	}
	table := tabwriter.NewWriter(p.Stdout, 0, 4, 2, ' ', 0)
	text(table)
	return table.Flush()
}

func (p *Program) encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// confirm asks before something that cannot be undone. Without a terminal the answer has to be --yes.
func (p *Program) confirm(question string) error {
	if p.yes {
		return nil
	}
	if !p.interactive() {
		return fail(exitRefused, "add --yes", "%s Nobody is there to ask", question)
	}
	fmt.Fprintf(p.Stderr, "%s [y/N] ", question)
	line, err := readLine(p.Stdin)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return fail(exitRefused, "", "nothing was done")
	}
	return nil
}

// readLine reads up to a line break, one byte at a time: what follows it belongs to somebody else.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for one := make([]byte, 1); ; {
		n, err := r.Read(one)
		if n == 1 {
			if one[0] == '\n' {
				return strings.TrimSuffix(string(line), "\r"), nil
			}
			line = append(line, one[0])
		}
		if err != nil {
			return string(line), err
		}
		if len(line) > 64<<10 {
			return "", errors.New("line is too long")
		}
	}
}

// defaultConfig is read where neither flag nor variable names a file and it exists.
const defaultConfig = "/etc/watchword/watchword.yaml"

// env is the value of a variable.
func (p *Program) env(name string) string {
	for _, entry := range slices.Backward(p.Env) {
		if value, found := strings.CutPrefix(entry, name+"="); found {
			return value
		}
	}
	return ""
}

// load reads the configuration.
func (p *Program) load() (*config.Config, config.Origins, error) {
	cfg, origins, err := p.gather()
	if problems := config.Problems(err); len(problems) > 0 {
		return nil, nil, &failure{code: p.blame(exitFailed, problems), err: fmt.Errorf("the configuration has %s", count(len(problems), "problem")), problems: problems}
	}
	return cfg, origins, err
}

// blame is the exit code of problems with the configuration: a flag that is wrong is wrong usage, whatever the command.
func (p *Program) blame(otherwise int, problems []*config.Problem) int {
	for _, file := range p.configFiles {
		f, err := os.Open(file) //nolint:gosec // the operator names it
		if err != nil {
			return exitUsage
		}
		f.Close() //nolint:errcheck // nothing was read
	}
	if slices.ContainsFunc(problems, func(problem *config.Problem) bool { return problem.Where == "--set" }) {
		return exitUsage
	}
	return otherwise
}

// gather reads the configuration as far as that goes: see [config.Load].
func (p *Program) gather() (*config.Config, config.Origins, error) {
	files := p.configFiles
	if len(files) == 0 {
		for file := range strings.SplitSeq(p.env(config.ConfigVariable), ",") {
			if file = strings.TrimSpace(file); file != "" {
				files = append(files, file)
			}
		}
	}
	if len(files) == 0 {
		if _, err := os.Stat(defaultConfig); err == nil {
			files = []string{defaultConfig}
		}
	}
	return config.Load(config.Sources{Files: files, Env: p.Env, Flags: p.configSet})
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
