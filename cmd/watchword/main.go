// Command watchword is an OpenID Provider whose second factor is a code by text message: one static binary and
// PostgreSQL.
//
// The program is a value, [Program], with its arguments, streams and environment in fields, so that tests run it as a shell
// does. Commands put the packages together and nothing else: what is decided about people and applications is decided in packages authn
// and oidc. Here alone is a concrete factor or vendor named, and here alone is the wall clock read.
//
// Data goes to standard output, messages go to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check found
// problems, 4 not found, 5 refused by policy.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the first signal asks to stop, the second one ends
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	p := &Program{Name: os.Args[0], Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Environ(), Hangup: hangup}
	return p.Run(ctx)
}
