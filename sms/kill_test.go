package sms_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/generic"
)

// killRounds is how often a worker's process is killed: go test ./sms -run TestKilled -kill.rounds 1000
var killRounds = flag.Int("kill.rounds", 25, "how often TestKilled kills a worker")

// victim names the variable that makes the test program a worker: its database, its keys and its vendor.
const victim = "WATCHWORD_TEST_WORKER"

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
	parts := strings.Split(job, "\n")
	db, err := postgres.Open(postgres.Config{DSN: parts[0], MaxConns: 4})
	if err != nil {
		return err
	}
	keys, err := keyring.Load(parts[1])
	if err != nil {
		return err
	}
	w, err := soleWorker(db, keys, parts[2], parts[3])
	if err != nil {
		return err
	}
	if err := db.Ping(); err != nil {
		return err
	}
	fmt.Println("ready")
	return w.Run(context.Background())
}

// soleWorker has one vendor, which knows keys.
func soleWorker(db *postgres.DB, keys *keyring.Ring, base, callback string) (*sms.Worker, error) {
	v, err := generic.New("first", generic.Config{URL: base + "/http/send", Secret: carriersim.HTTPSecret, Now: time.Now})
	if err != nil {
		return nil, err
	}
	routing, err := sms.NewRouting(sms.RoutingConfig{Carriers: []sms.Carrier{{Vendor: v}}, Recovery: 10 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	return &sms.Worker{DB: db, Keys: keys, Routing: routing, Log: slog.New(slog.DiscardHandler), Callback: func(string) string { return callback }}, nil
}

// A worker's process is killed at every moment between the commit of a message and its receipt. Nothing is lost, nothing arrives twice, and no call is made
// more than once again.
func TestKilled(t *testing.T) { // F-03, F-04, I5
	t.Parallel()
	c := newCarriage(t)
	dir := filepath.Join(t.TempDir(), "keys")
	if err := keyring.Create(dir); err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.keys, c.outbox.Keys, c.desk.Keys = keys, keys, keys
	c.sim.SetFaults(carriersim.Faults{Vendor: "http", JitterMS: 4})
	callback := c.front.URL + "/v1/delivery-reports/first"
	if c.worker, err = soleWorker(c.db.DB, keys, c.base, callback); err != nil {
		t.Fatal(err)
	}
	where := map[string]int{}
	span := float64(15 * time.Millisecond) // follows the machine: kills too early lengthen it, kills too late shorten it
	for round := range *killRounds {
		number := fmt.Sprintf("+1202555%04d", 1100+round%800)
		if round%800 == 0 {
			c.db.Advance(t, time.Hour)
		}
		before := len(c.sim.Messages(number))
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), victim+"="+strings.Join([]string{c.db.DSN, dir, c.base, callback}, "\n"))
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
		id := c.send(t, number, uuid.New())
		<-time.After(time.Duration(rand.Float64() * span))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, out) //nolint:errcheck // it is dead
		cmd.Wait()               //nolint:errcheck // killed, as it should be
		c.sim.Wait()

		moment := c.moment(t, id, len(c.sim.Messages(number))-before)
		where[moment]++
		switch moment {
		case "before the claim":
			span = min(span*1.1, float64(time.Second))
		case "after its receipt":
			span = max(span*0.95, float64(5*time.Millisecond))
		}
		for c.count(t, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()`) > 0 {
			<-time.After(time.Millisecond) // what the dead one had asked the database for is still done
		}
		for range 2 { // F-03: another has it as soon as the dead one's lease is over
			c.db.Advance(t, 8*time.Second)
			c.drain(t)
		}
		if got, arrived := c.state(t, id), len(c.sim.Messages(number))-before; got != "delivered" || arrived != 1 {
			t.Fatalf("round %d: message is %q with legs %v, %d arrived", round, got, c.legs(t, id), arrived)
		}
	}
	if n := c.count(t, `SELECT count(*) FROM legs WHERE calls > 2`); n != 0 {
		t.Errorf("%d legs were called more than once again", n)
	}
	if n := c.count(t, `SELECT count(*) FROM (SELECT FROM legs GROUP BY message_id HAVING count(*) > 1) m`); n != 0 {
		t.Errorf("%d messages have more than one leg", n)
	}
	t.Logf("%d rounds; killed: %v; called once more: %d", *killRounds, where, c.count(t, `SELECT count(*) FROM legs WHERE calls = 2`))
}

// moment says how far a message had come.
func (c *carriage) moment(t *testing.T, id uuid.UUID, arrived int) string {
	t.Helper()
	var row struct {
		Leased bool `db:"leased"`
		Legs   int  `db:"legs"`
		State  string
	}
	if err := c.db.GetContext(t.Context(), &row, `SELECT lease_until IS NOT NULL AS leased, legs, state FROM messages WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	switch {
	case row.State == "delivered":
		return "after its receipt"
	case row.State == "sent":
		return "before its receipt"
	case !row.Leased:
		return "before the claim"
	case row.Legs == 0:
		return "before its leg"
	case arrived == 0:
		return "before or during the call"
	}
	return "before the answer was stored"
}
