package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// interactive reports whether a person sits at the input.
func (p *Program) interactive() bool {
	f, ok := p.Stdin.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a descriptor fits
}

// colour reports whether output may be coloured: on a terminal only, and not if NO_COLOR is set (no-color.org).
func (p *Program) colour() bool {
	f, ok := p.Stdout.(*os.File)
	return ok && p.env("NO_COLOR") == "" && p.env("TERM") != "dumb" && term.IsTerminal(int(f.Fd())) //nolint:gosec // a descriptor fits
}

// secret reads one from file ("-" is the standard input), or asks a person for it twice. It is never an argument: those are
// seen by everybody on the machine.
func (p *Program) secret(what, file, flag string) (string, error) {
	switch {
	case file == "-":
		line, err := readLine(p.Stdin)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if line == "" {
			return "", fail(exitUsage, "", "the standard input holds no %s", what)
		}
		return line, nil
	case file != "":
		content, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			return "", fileFailure(file, err)
		}
		return strings.TrimRight(string(content), "\r\n"), nil
	case !p.interactive():
		return "", fail(exitUsage, fmt.Sprintf("name a file with %s, or give it on the standard input with %[1]s -", flag), "there is no terminal to ask for the %s", what)
	}
	first, err := p.hidden("New " + what)
	if err != nil {
		return "", err
	}
	second, err := p.hidden("Once more")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", fail(exitUsage, "", "the two differ")
	}
	return first, nil
}

func (p *Program) hidden(prompt string) (string, error) {
	fmt.Fprint(p.Stderr, prompt+": ")
	typed, err := term.ReadPassword(int(p.Stdin.(*os.File).Fd())) //nolint:gosec // a descriptor fits
	fmt.Fprintln(p.Stderr)
	return string(typed), err
}
