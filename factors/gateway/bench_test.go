package gateway_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/retention"
)

// oldRows is how many verifications of the past the benchmarks have: -pairs.old 10000000 takes minutes to fill.
var oldRows = flag.Int("pairs.old", 0, "verifications of the past in BenchmarkPair")

// pairRate is how many pairs are begun in a second; how long a request took then counts from the moment at which it should have begun. 0: as many as there can be, by eight at once.
var pairRate = flag.Float64("pairs.rate", 0, "pairs a second that BenchmarkPair begins")

// pairConns bounds the connections that pairs share.
var pairConns = flag.Int("pairs.conns", 16, "connections to the database in BenchmarkPair")

// seedOld stores n verifications of the last two days with their challenges, by COPY, and as many texts.
func (w *world) seedOld(b *testing.B, n int) {
	b.Helper()
	if n == 0 {
		return
	}
	var tenant uuid.UUID
	if err := w.db.GetContext(b.Context(), &tenant, "SELECT id FROM tenants WHERE name = 'shop'"); err != nil {
		b.Fatal(err)
	}
	load := func(columns string, row func(i int) string) {
		cmd := exec.CommandContext(b.Context(), "psql", "-q", "-v", "ON_ERROR_STOP=1", w.db.DSN, "-c", "COPY "+columns+" FROM STDIN")
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		cmd.Stderr = b.Output()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		out := bufio.NewWriterSize(in, 1<<20)
		for i := range n {
			fmt.Fprintln(out, row(i))
		}
		if err := out.Flush(); err != nil {
			b.Fatal(err)
		}
		if err := in.Close(); err != nil {
			b.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	now := w.db.Now(b)
	at := func(i int) string {
		return now.Add(-time.Hour - time.Duration(float64(i)/float64(n)*float64(46*time.Hour))).Format(time.RFC3339Nano)
	}
	id := func(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", i) }
	hash := func(i int) string { return `\\x` + hex.EncodeToString(fmt.Appendf(nil, "%032d", i)) }
	load("challenges (id, created_at, subject, kind, purpose, binding, browser, attempts, max_attempts, expires_at, ended_at, outcome)", func(i int) string {
		return strings.Join([]string{id(i), at(i), id(i), "gateway", "gateway", hash(i), hash(i), "1", "5", at(i), at(i), "verified"}, "\t")
	})
	load("verifications (id, created_at, tenant_id, test, recipient, number, hint, country, request)", func(i int) string {
		return strings.Join([]string{id(i), at(i), tenant.String(), "f", hash(i), hash(i), "00", "US", "{}"}, "\t")
	})
	load("messages (id, created_at, challenge_id, purpose, locale, recipient, hint, country, state, not_after)", func(i int) string {
		return strings.Join([]string{id(i), at(i), id(i), "gateway", "en", hash(i), "00", "US", "delivered", at(i)}, "\t")
	})
	if out, err := exec.CommandContext(b.Context(), "psql", "-q", w.db.DSN, "-c", "VACUUM ANALYZE challenges, verifications, messages").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
}

// BenchmarkPair is a send and its verify, over the handlers without a network between, with several at once: pairs a second, the processor time of this process for a pair, and how
// long each half takes. PostgreSQL runs beside it.
//
//	GOGC=400 go test -run '^$' -bench Pair -benchtime 5000x ./factors/gateway -pg.durable [-pairs.old 10000000]
//
// with GOGC as `watchword serve` has it.
func BenchmarkPair(b *testing.B) {
	w := newWorld(b)
	keeper := &retention.Keeper{DB: w.db.DB, Log: slog.New(slog.DiscardHandler)} // days have partitions of their own, as they have in a server
	if err := keeper.Once(b.Context()); err != nil {
		b.Fatal(err)
	}
	w.seedOld(b, *oldRows)
	if err := w.gateway.Tenants.Update(b.Context(), "shop", gateway.Settings{Service: "Shop", Day: 50_000_000}); err != nil {
		b.Fatal(err)
	}
	w.db.SetMaxOpenConns(*pairConns)
	w.gateway.Limits.Everyone.Burst = 100_000_000
	w.gateway.Outbox.Wake = func() {}                                              // a server runs a worker of its own
	w.gateway.Happened = func(_ context.Context, q *postgres.Query, from string) { // as the program does
		events.Add(q, from, events.Event{}, events.Expressions{Type: from + ".event", Owner: events.TenantSQL(from + ".tenant"), ID: from + ".public_id", Status: "split_part(" + from + ".event, '.', 2)",
			Reason: from + ".reason", Channel: from + ".channel", Hint: from + ".hint", ClientRef: "nullif(" + from + ".client_ref, '')"})
	}
	var next atomic.Int64
	var mu sync.Mutex
	var sends, verifies []time.Duration
	do := func(path, body string, began time.Time) (id string, took time.Duration) {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, path, strings.NewReader(body))
		if err != nil {
			b.Error(err)
			return "", 0
		}
		r.RemoteAddr = "192.0.2.1:1234"
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-API-Key", w.live)
		rec := httptest.NewRecorder()
		w.handlers[0].ServeHTTP(rec, r)
		took = time.Since(began)
		var out struct{ Data struct{ RequestID string } }
		if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil || rec.Code > 201 {
			b.Errorf("%d %s", rec.Code, rec.Body)
		}
		return out.Data.RequestID, took
	}
	pair := func(codes func(id string) string, began time.Time) {
		n := next.Add(1)
		id, send := do("/otp/send", fmt.Sprintf(`{"phoneNumber":"+1%03d%07d"}`, []int{202, 303, 404, 512, 617, 702, 818}[n/7_000_000%7], 2_000_000+n%7_000_000), began)
		if id == "" {
			return
		}
		_, verify := do("/otp/verify", fmt.Sprintf(`{"requestId":%q,"otpCode":%q}`, id, codes(id)), time.Now())
		mu.Lock()
		defer mu.Unlock()
		sends, verifies = append(sends, send), append(verifies, verify)
	}
	w.db.Season(b)
	codes := w.knownCodes(b)
	// A connection that is new reads the catalogue and plans each statement: a tenth of a second, once. What is measured is the time after.
	var warm sync.WaitGroup
	for range *pairConns {
		warm.Go(func() {
			for range 20 {
				pair(codes, time.Now())
			}
		})
	}
	warm.Wait()
	sends, verifies = nil, nil
	before, dbBefore := cpu(), w.dbCPU(b)
	b.ResetTimer()
	b.SetParallelism(4)
	if *pairRate > 0 {
		b.SetParallelism(64)
	}
	var begun atomic.Int64
	began := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			at := time.Now()
			if *pairRate > 0 {
				at = began.Add(time.Duration(float64(begun.Add(1)) / *pairRate * float64(time.Second)))
				time.Sleep(time.Until(at))
			}
			pair(codes, at)
		}
	})
	b.StopTimer()
	if len(sends) == 0 {
		return
	}
	at := func(list []time.Duration, p int) float64 {
		slices.Sort(list)
		return float64(list[min(len(list)-1, len(list)*p/100)].Microseconds()) / 1000
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/1000/float64(len(sends)), "cpu-ms/pair")
	b.ReportMetric(float64((w.dbCPU(b)-dbBefore).Microseconds())/1000/float64(len(sends)), "db-cpu-ms/pair")
	b.ReportMetric(float64(len(sends))/b.Elapsed().Seconds(), "pairs/s")
	b.ReportMetric(at(sends, 50), "send-p50-ms")
	b.ReportMetric(at(sends, 99), "send-p99-ms")
	b.ReportMetric(at(verifies, 50), "verify-p50-ms")
	b.ReportMetric(at(verifies, 99), "verify-p99-ms")
}

// knownCodes has the gateway make codes that the benchmark knows without asking the database: it is told of each as it is sealed.
func (w *world) knownCodes(b *testing.B) func(id string) string {
	listening := &overheard{Keys: w.gateway.Keys}
	w.gateway.Outbox.Keys = listening
	return func(id string) string {
		raw, err := gateway.Challenge(id)
		if err != nil {
			b.Error(err)
		}
		code, _ := listening.codes.LoadAndDelete("message of challenge " + raw.String())
		text, _ := code.(string)
		return text
	}
}

// overheard notes the codes of what is sealed.
type overheard struct {
	factors.Keys
	codes sync.Map
}

func (o *overheard) Seal(plain []byte, context string) ([]byte, error) {
	if found := codeForm.FindSubmatch(plain); found != nil {
		o.codes.Store(context, string(found[1]))
	}
	return o.Keys.Seal(plain, context)
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// dbCPU is the processor time of PostgreSQL's processes; 0 where the system does not tell.
func (w *world) dbCPU(b *testing.B) (total time.Duration) {
	var pids []int
	if err := w.db.SelectContext(b.Context(), &pids, "SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL"); err != nil {
		b.Fatal(err)
	}
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, field := range fields[11:13] { // utime and stime, in hundredths of a second
			n, err := strconv.Atoi(field)
			if err == nil {
				total += time.Duration(n) * 10 * time.Millisecond
			}
		}
	}
	return total
}
