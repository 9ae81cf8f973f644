package events_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/egress/egresstest"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/retention"
)

// killRounds is how often a worker's process is killed: go test ./internal/events -run TestKilled -kill.rounds 1000
var killRounds = flag.Int("kill.rounds", 15, "how often TestKilled kills a worker")

// victim names the variable that makes the test program a worker: its database and its keys.
const victim = "WATCHWORD_TEST_DELIVERER"

func TestMain(m *testing.M) {
	if job := os.Getenv(victim); job != "" {
		if err := work(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m)
}

// work is the worker that is killed.
func work(job string) error {
	dsn, dir, _ := strings.Cut(job, "\n")
	db, err := postgres.Open(postgres.Config{DSN: dsn, MaxConns: 4})
	if err != nil {
		return err
	}
	keys, err := keyring.Load(dir)
	if err != nil {
		return err
	}
	guard := egress.New(egress.Config{Exempt: []string{"127.0.0.1"}, AllowHTTP: true})
	w := &events.Worker{DB: db, Keys: keys, Client: guard.Client(), Log: slog.New(slog.DiscardHandler), PerEndpoint: 4}
	if err := db.Ping(); err != nil {
		return err
	}
	fmt.Println("ready")
	return w.Run(context.Background())
}

// Workers are told of the first event that is due for an endpoint, and of no further one: telling is what commits wait for one another for.
func TestTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.endpoint(t, events.Operator, newReceiver(t).URL)
	ctx, stop := context.WithCancel(context.Background())
	connected, heard, ended := make(chan struct{}, 8), make(chan string, 8), make(chan error, 1)
	go func() {
		ended <- postgres.Hear(ctx, b.db.DSN, "webhook_queue", time.Hour, postgres.Hearing{
			Heard: func(payload string) { heard <- payload }, Connected: func() { connected <- struct{}{} }, Lost: func() {}, Due: func() {},
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-connected
	b.emit(t, events.Operator, events.VendorDegraded, "first")
	b.emit(t, events.Operator, events.VendorDegraded, "second")
	if _, err := b.db.ExecContext(t.Context(), "SELECT pg_notify('webhook_queue', 'last')"); err != nil {
		t.Fatal(err)
	}
	times := 0
	for payload := range heard {
		if payload == "last" {
			break
		}
		times++
	}
	if times != 1 {
		t.Errorf("told %d times of two events, want once", times)
	}
}

// A worker's process is killed at every moment. Every event arrives, and under one id however often.
func TestKilled(t *testing.T) { // F-76
	t.Parallel()
	b := newBench(t)
	dir := filepath.Join(t.TempDir(), "keys")
	if err := keyring.Create(dir); err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	b.keys, b.endpoints.Keys, b.worker.Keys = keys, keys, keys
	r := newReceiver(t)
	r.Reply = func(w http.ResponseWriter, _ *http.Request, _ int) {
		<-time.After(time.Millisecond) // long enough to be killed in
		w.WriteHeader(http.StatusNoContent)
	}
	b.endpoint(t, events.Operator, r.URL)
	const each = 8
	for range *killRounds {
		for n := range each {
			b.emit(t, events.Operator, events.VendorDegraded, fmt.Sprint(n))
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), victim+"="+b.db.DSN+"\n"+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("worker says %q, %v", line, err)
		}
		<-time.After(time.Duration(rand.IntN(30_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() //nolint:errcheck // killed, as it should be
	}
	for b.count(t, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()`) > 0 {
		<-time.After(time.Millisecond) // what the dead one had asked the database for is still done
	}
	left := b.count(t, "SELECT count(*) FROM webhook_queue WHERE claim IS NOT NULL")
	b.db.Advance(t, time.Minute+time.Second) // the claims of the dead are over
	b.drain(t)
	want, seen := *killRounds*each, map[string]int{}
	for _, c := range r.all() {
		seen[c.id()]++
	}
	if len(seen) != want || b.count(t, "SELECT count(*) FROM webhook_queue") != 0 {
		t.Errorf("%d events arrived, want %d", len(seen), want)
	}
	t.Logf("%d rounds, %d claims of the dead, %d calls for %d events", *killRounds, left, len(r.all()), want)
}

// A name that was public when it was registered, and is inside when it is called.
func TestRebinding(t *testing.T) { // GW-13, MU-33
	t.Parallel()
	b := newBench(t)
	inside := newReceiver(t)
	dns := new(egresstest.Names)
	dns.Set("93.184.215.14")
	guard := egress.New(egress.Config{AllowHTTP: true, Resolver: dns.Resolver(), Timeout: time.Second})
	b.endpoints.Guard, b.worker.Client = guard, guard.Client()
	e, _ := b.endpoint(t, events.Operator, strings.Replace(inside.URL, "127.0.0.1", "hooks.example.com", 1))
	dns.Set("127.0.0.1")
	b.emit(t, events.Operator, events.VendorDegraded, "")
	b.drain(t)
	list, err := b.endpoints.Events(t.Context(), events.Which{Endpoint: e.ID})
	if err != nil || len(list) != 1 || list[0].Result != events.Forbidden || list[0].State != "waiting" || len(inside.all()) != 0 {
		t.Errorf("%+v, %v; %d calls inside", list, err, len(inside.all()))
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := newReceiver(t)
	keeper := &retention.Keeper{DB: b.db.DB, Log: slog.New(slog.DiscardHandler)}
	if err := keeper.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.endpoint(t, events.Operator, r.URL)
	if _, _, err := b.endpoints.Listen(t.Context(), events.New{Owner: events.Operator}, ""); err != nil { // and never heard of again
		t.Fatal(err)
	}
	b.emit(t, events.Operator, events.VendorDegraded, "")
	b.drain(t)
	b.db.Advance(t, 29*24*time.Hour)
	if err := keeper.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows := func() string {
		var all []string
		for _, table := range []string{"events", "webhook_attempts", "webhook_queue", "webhook_endpoints"} {
			all = append(all, fmt.Sprint(b.count(t, "SELECT count(*) FROM "+table)))
		}
		return strings.Join(all, " ")
	}
	if got := rows(); got != "1 1 0 1" {
		t.Errorf("after 29 days: %s", got)
	}
	b.db.Advance(t, 4*24*time.Hour)
	if err := keeper.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := rows(); got != "0 0 0 1" {
		t.Errorf("after 33 days: %s", got)
	}
}
