package sms_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// oldRows is how many messages of the past BenchmarkClaim has besides those that are due.
var oldRows = flag.Int("claim.old", 100_000, "messages of the past in BenchmarkClaim")

// prompt is a vendor that answers at once and says when it was called.
type prompt struct {
	mu     sync.Mutex
	called map[string]time.Time
	done   chan struct{}
	left   int
}

func (*prompt) Name() string { return "prompt" }
func (*prompt) Abilities() sms.Abilities {
	return sms.Abilities{Channels: []sms.Channel{sms.SMS}, Idempotency: sms.Replay}
}

func (p *prompt) Send(_ context.Context, leg sms.Leg) (sms.Accepted, error) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.called[leg.Text] = now
	if p.left--; p.left == 0 {
		close(p.done)
	}
	return sms.Accepted{Ref: leg.ID.String()}, nil
}

func promptWorker(b *testing.B, db *postgres.DB, keys *keyring.Ring, expect int) (*sms.Worker, *prompt) {
	b.Helper()
	v := &prompt{called: map[string]time.Time{}, done: make(chan struct{}), left: expect}
	routing, err := sms.NewRouting(sms.RoutingConfig{Carriers: []sms.Carrier{{Vendor: v}}})
	if err != nil {
		b.Fatal(err)
	}
	return &sms.Worker{DB: db, Keys: keys, Routing: routing, Calls: 64}, v
}

// BenchmarkLatency stores 200 messages a second and measures the time from the commit to the vendor call.
func BenchmarkLatency(b *testing.B) {
	c := newCarriage(b)
	n := max(b.N, 1000)
	worker, v := promptWorker(b, c.db.DB, c.keys, n)
	worker.Log = c.worker.Log
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	go worker.Run(ctx) //nolint:errcheck // it ends with the benchmark
	stored := make([]time.Time, n)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	var wg sync.WaitGroup
	for i := range n {
		<-ticker.C
		wg.Go(func() {
			c.store(b, fmt.Sprint(i))
			stored[i] = time.Now()
		})
	}
	wg.Wait()
	<-v.done
	took := make([]time.Duration, n)
	for i := range n {
		took[i] = max(0, v.called[fmt.Sprint(i)].Sub(stored[i])) // a call may come before the inserter has heard of its commit
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[n/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[n*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(0, "ns/op")
}

func (c *carriage) store(b *testing.B, text string) {
	to, err := sms.ParseNumber("+12025550143", "")
	if err != nil {
		b.Error(err)
		return
	}
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	if err := c.outbox.Enqueue(q, sms.Message{ID: uuid.New(), Challenge: uuid.New(), To: to, Purpose: "login", Locale: "en", Text: text, Life: 10 * time.Minute}, "asked"); err != nil {
		b.Error(err)
		return
	}
	q.Finally("SELECT 1 FROM sms_queued")
	if _, err := c.db.Run(b.Context(), q); err != nil {
		b.Error(err)
	}
}

// seed stores n messages that are due, by COPY.
func seed(b *testing.B, db *pgtest.Database, keys *keyring.Ring, n int) {
	b.Helper()
	tx, err := db.BeginTx(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	copying, err := tx.PrepareContext(b.Context(), "COPY messages (id, challenge_id, purpose, locale, recipient, prefix, hint, country, not_after, body, due_at) FROM STDIN")
	if err != nil {
		b.Fatal(err)
	}
	now := db.Now(b)
	for i := range n {
		id, challenge := uuid.New(), uuid.New()
		number := fmt.Sprintf("+1202555%04d", i%10000)
		plain, err := json.Marshal(map[string]string{"to": number, "text": fmt.Sprint(i)})
		if err != nil {
			b.Fatal(err)
		}
		body, err := keys.Seal(plain, "message of challenge "+challenge.String())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := copying.ExecContext(b.Context(), id, challenge, "login", "en", keys.Fingerprint("number", number), []byte("prefix"), "00", "US", now.Add(time.Hour), body, now); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := copying.ExecContext(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDrain empties a full outbox with 64 calls in flight, and measures messages a second.
func BenchmarkDrain(b *testing.B) {
	c := newCarriage(b)
	n := max(b.N, 20_000)
	seed(b, c.db, c.keys, n)
	worker, v := promptWorker(b, c.db.DB, c.keys, n)
	worker.Log = c.worker.Log
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	began := time.Now()
	go worker.Run(ctx) //nolint:errcheck // it ends with the benchmark
	<-v.done
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), "messages/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkClaim delivers one message beside many of the past: go test ./sms -bench Claim -claim.old 10000000
func BenchmarkClaim(b *testing.B) {
	for _, old := range []int{1000, *oldRows} {
		b.Run(fmt.Sprint(old, " old"), func(b *testing.B) {
			c := newCarriage(b)
			tx, err := c.db.BeginTxx(b.Context(), nil)
			if err != nil {
				b.Fatal(err)
			}
			for _, statement := range []string{"SET LOCAL statement_timeout = 0", fmt.Sprintf(`
				INSERT INTO messages (id, challenge_id, purpose, locale, recipient, hint, country, state, not_after, created_at)
				SELECT gen_random_uuid(), gen_random_uuid(), 'login', 'en', decode(md5(i::text), 'hex'), '00', 'US', 'delivered', now(), now() - interval '1 day' * random()
				  FROM generate_series(1, %d) i`, old), "ANALYZE messages"} {
				if _, err := tx.ExecContext(b.Context(), statement); err != nil {
					b.Fatal(err)
				}
			}
			if err := tx.Commit(); err != nil {
				b.Fatal(err)
			}
			worker, _ := promptWorker(b, c.db.DB, c.keys, -1)
			worker.Log = c.worker.Log
			for b.Loop() {
				b.StopTimer()
				c.store(b, "x")
				b.StartTimer()
				if _, err := worker.Drain(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemory measures the resident memory of a process that does nothing but carry 5,000 messages over HTTP.
func BenchmarkMemory(b *testing.B) {
	c := newCarriage(b)
	dir := filepath.Join(b.TempDir(), "keys")
	if err := keyring.Create(dir); err != nil {
		b.Fatal(err)
	}
	keys, err := keyring.Load(dir)
	if err != nil {
		b.Fatal(err)
	}
	const n = 5000
	seed(b, c.db, keys, n)
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), victim+"="+strings.Join([]string{c.db.DSN, dir, c.base, ""}, "\n"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	bufio.NewReader(out).ReadString('\n') //nolint:errcheck // "ready"
	for c.count(b, `SELECT count(*) FROM messages WHERE state = 'queued'`) > 0 {
		<-time.After(50 * time.Millisecond)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		b.Skip("no /proc here")
	}
	cmd.Process.Kill() //nolint:errcheck // it has done its work
	cmd.Wait()         //nolint:errcheck // as above
	for line := range strings.SplitSeq(string(status), "\n") {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kb); err == nil {
			b.ReportMetric(kb/1024, "MiB-peak")
		}
	}
	b.ReportMetric(0, "ns/op")
}
