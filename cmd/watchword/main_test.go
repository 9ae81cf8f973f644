package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestMain(m *testing.M) {
	testscript.Main(withDatabase{m}, map[string]func(){"watchword": main})
}

// withDatabase stops the tests' PostgreSQL before the test program exits.
type withDatabase struct{ m *testing.M }

func (w withDatabase) Run() int { return pgtest.Run(w.m) }

// The scripts say what the command line does. Each has a database of its own, with tables, in WATCHWORD_DATABASE__DSN, an empty one in
// $EMPTY, and an empty one whose owner is no superuser in $OWNED. $NOTLS asks its server for TLS, which it does not have; $NOTHERE leads to no database,
// and $NOBODY to no role. $HOOK is a program that takes webhooks: /ok answers 204, /gone 410.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			testscript.Run(t, testscript.Params{
				Files:               []string{file},
				RequireExplicitExec: true,
				Setup:               func(env *testscript.Env) error { return prepare(t, env) },
				Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "chmod": chmod, "addresses": addresses, "answers": answersAt, "field": field, "key": keyOf, "seal": seal, "sql": statement, "first": first},
			})
		})
	}
}

func prepare(t *testing.T, env *testscript.Env) error {
	db := pgtest.New(t)
	var name string
	if err := db.GetContext(t.Context(), &name, "SELECT current_database()"); err != nil {
		return err
	}
	for _, statement := range []string{
		"CREATE DATABASE " + name + "_empty", "CREATE ROLE " + name + " LOGIN", "CREATE DATABASE " + name + "_owned OWNER " + name,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			return err
		}
	}
	env.Setenv("WATCHWORD_DATABASE__DSN", db.DSN)
	env.Setenv("EMPTY", strings.ReplaceAll(db.DSN, "dbname="+name, "dbname="+name+"_empty"))
	env.Setenv("OWNED", strings.ReplaceAll(strings.ReplaceAll(db.DSN, "dbname="+name, "dbname="+name+"_owned"), "user=watchword", "user="+name))
	noTLS, err := withoutTLS(env)
	if err != nil {
		return err
	}
	env.Setenv("NOTLS", noTLS)
	env.Setenv("NOTHERE", strings.ReplaceAll(db.DSN, "dbname="+name, "dbname="+name+"_nothere"))
	env.Setenv("NOBODY", strings.ReplaceAll(db.DSN, "user=watchword", "user=nobody_of_that_name"))
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(map[string]int{"/ok": http.StatusNoContent, "/gone": http.StatusGone}[r.URL.Path])
	}))
	env.Defer(hook.Close)
	env.Setenv("HOOK", hook.URL)
	env.Setenv("WATCHWORD_ISSUER", "http://localhost:8080")
	env.Setenv("WATCHWORD_KEYS__DIR", env.WorkDir+"/keys")
	return nil
}

// withoutTLS is the connection string of a server that answers the request for TLS as one does that has none.
func withoutTLS(env *testscript.Env) (dsn string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	env.Defer(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.ReadFull(c, make([]byte, 8)) // SSLRequest
			c.Write([]byte("N"))
			c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return "postgres://watchword@127.0.0.1:" + port + "/watchword", err
}

// exits runs a program that has to end with the given code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code program arguments…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], got, want)
	}
}

// seal links the audit records, as a server does while it runs.
func seal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: seal")
	}
	db, err := postgres.Open(postgres.Config{DSN: ts.Getenv("WATCHWORD_DATABASE__DSN")})
	ts.Check(err)
	defer db.Close()
	ring, err := keyring.Load(ts.Getenv("WATCHWORD_KEYS__DIR"))
	ts.Check(err)
	ts.Check((&audit.Sealer{DB: db, Keys: ring, Log: slog.New(slog.DiscardHandler)}).Once(context.Background()))
}

// statement runs SQL as somebody whom no trigger stops.
func statement(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sql statement")
	}
	db, err := postgres.Open(postgres.Config{DSN: ts.Getenv("WATCHWORD_DATABASE__DSN"), MaxConns: 1})
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec("SET session_replication_role = replica; " + args[0])
	ts.Check(err)
}

// first runs a program and keeps the first word that it prints in a variable.
func first(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: first variable program arguments…")
	}
	ts.Check(ts.Exec(args[1], args[2:]...))
	word, _, _ := strings.Cut(ts.ReadFile("stdout"), " ")
	ts.Setenv(args[0], word)
}

func chmod(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: chmod mode file")
	}
	mode, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	ts.Check(os.Chmod(ts.MkAbs(args[1]), os.FileMode(mode)))
}

// addresses sets variables to addresses on loopback that nobody uses.
func addresses(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		l, err := net.Listen("tcp", "localhost:0")
		ts.Check(err)
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(errors.Join(err, l.Close()))
		ts.Setenv(name, "localhost:"+port)
	}
}

// answersAt waits until a server answers at an address.
func answersAt(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: answers address")
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		if res, err := http.Get(args[0]); err == nil {
			ts.Check(res.Body.Close())
			return
		}
	}
	ts.Fatalf("nobody answers at %s", args[0])
}

// field sets a variable to a member of JSON, of the first if it is a list.
func field(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: field file member variable")
	}
	ts.Setenv(args[2], member(ts, args[0], args[1]))
}

// keyOf writes the key that a command made into a file.
func keyOf(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: key made.json file")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(member(ts, args[0], "api_key")), 0o600))
}

func member(ts *testscript.TestScript, file, name string) string {
	data := []byte(ts.ReadFile(file))
	var list []map[string]any
	if json.Unmarshal(data, &list) != nil {
		list = []map[string]any{{}}
		ts.Check(json.Unmarshal(data, &list[0]))
	}
	value, ok := list[0][name].(string)
	if !ok {
		ts.Fatalf("%s has no %s", file, name)
	}
	return value
}

// Whoever asks for help gets an example.
func TestHelp(t *testing.T) {
	t.Parallel()
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s has no short description or no example", cmd.CommandPath())
		}
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if !strings.Contains(line, cmd.CommandPath()) {
				t.Errorf("%s: the example is of another command: %s", cmd.CommandPath(), line)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := (&Program{}).command()
	for _, cmd := range root.Commands() {
		walk(cmd)
	}
	if len(root.Commands()) < 8 {
		t.Error(fmt.Sprint("commands are missing: ", root.Commands()))
	}
}
