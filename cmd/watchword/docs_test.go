package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the page of commands anew")

// The page of commands is made from the commands.
func TestCommandsPage(t *testing.T) {
	t.Parallel()
	const name = "../../docs/commands.md"
	page := commandsPage((&Program{Env: []string{"HOME=~"}}).command())
	if *update {
		if err := os.WriteFile(name, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(page, string(have)); diff != "" {
		t.Errorf("docs/commands.md is out of date; run: go test ./cmd/watchword -run CommandsPage -update\n%s", diff)
	}
}

func commandsPage(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(`# Commands

<!-- Generated from cmd/watchword. Change the commands, then: go test ./cmd/watchword -run CommandsPage -update -->

Data goes to standard output, messages to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check found problems, 4 not found, 5 refused by
policy. JSON (` + "`--format json`" + `) is a stable interface. Secrets are read from a prompt, a file or the standard input, never from arguments, and shown once.

Every command takes:

`)
	flags := func(set *pflag.FlagSet) {
		set.VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			usage := f.Usage
			if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" && f.DefValue != "0" && f.Name != "data" {
				usage += fmt.Sprintf(" (default `%s`)", f.DefValue)
			}
			name := "`--" + f.Name + "`"
			if f.Shorthand != "" {
				name = "`-" + f.Shorthand + "`, " + name
			}
			fmt.Fprintf(&b, "- %s: %s\n", name, strings.ReplaceAll(usage, "/var/lib/watchword-dev", "~/.local/share/watchword"))
		})
	}
	flags(root.PersistentFlags())
	b.WriteString("- `-h`, `--help`: say what a command does, with an example\n")
	root.InitDefaultCompletionCmd()
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "help" {
			return
		}
		if cmd.Name() == "completion" { // the library's own: one paragraph for all shells
			var shells []string
			for _, shell := range cmd.Commands() {
				shells = append(shells, shell.Name())
			}
			fmt.Fprintf(&b, "\n## watchword completion %s\n\nPrint the script that lets a shell complete commands and flags. With `--help` it says how that shell loads it.\n\n"+
				"```sh\nwatchword completion bash > /etc/bash_completion.d/watchword\n```\n", strings.Join(shells, "|"))
			return
		}
		if !cmd.HasSubCommands() {
			fmt.Fprintf(&b, "\n## %s\n\n%s.\n", strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmd.Short)
			if cmd.Long != "" {
				fmt.Fprintf(&b, "\n%s\n", cmd.Long)
			}
			fmt.Fprintf(&b, "\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimPrefix(cmd.Example, "  "), "\n  ", "\n"))
			if cmd.HasAvailableLocalFlags() {
				b.WriteString("\n")
				flags(cmd.LocalNonPersistentFlags())
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return b.String()
}
