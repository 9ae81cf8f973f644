package gateway_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/retention"
)

// oldRows is how many verifications of the past the benchmark has besides none, one after the other in every round: -pairs.old 10000000 takes minutes to fill.
var oldRows = flag.Int("pairs.old", 0, "verifications of the past that BenchmarkPair has, besides none")

// pairRounds is how often each is measured. What else runs on the machine changes from minute to minute, so that only figures taken in turns can be compared.
var pairRounds = flag.Int("pairs.rounds", 1, "rounds of BenchmarkPair")

// pairRate is how many pairs are begun in a second; how long a request took then counts from the moment at which it should have begun. 0: as many as there can be, four at once for each processor.
var pairRate = flag.Float64("pairs.rate", 0, "pairs a second that BenchmarkPair begins")

// pairConns bounds the connections that pairs share.
var pairConns = flag.Int("pairs.conns", 16, "connections to the database in BenchmarkPair")

// daysBefore is for how long the benchmark's server has been running: longer than anything is kept that a pair touches and does not only add to.
const daysBefore = 9

// aged has the database get its partitions as it does in a server that runs for days, in which each day has its own.
func (w *world) aged(b *testing.B) {
	b.Helper()
	keeper := &retention.Keeper{DB: w.db.DB, Log: slog.New(slog.DiscardHandler)}
	w.db.Advance(b, -daysBefore*24*time.Hour)
	for range daysBefore {
		if err := keeper.Once(b.Context()); err != nil {
			b.Fatal(err)
		}
		w.db.Advance(b, 24*time.Hour)
	}
	if err := keeper.Once(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// seedOld stores, by COPY, what n verifications of the last two days that were approved have left: their challenges, texts, events, records and the windows of their numbers. Fingerprints are as scattered as those that
// the gateway makes, so that new ones go to pages all over the indexes, and ids as close.
func (w *world) seedOld(b *testing.B, n int) {
	b.Helper()
	if n == 0 {
		return
	}
	var tenant uuid.UUID
	if err := w.db.GetContext(b.Context(), &tenant, "SELECT id FROM tenants WHERE name = 'shop'"); err != nil {
		b.Fatal(err)
	}
	load := func(columns string, count int, row func(i int) []string) error {
		cmd := exec.CommandContext(b.Context(), "psql", "-q", "-v", "ON_ERROR_STOP=1", w.db.DSN, "-c", "COPY "+columns+" FROM STDIN")
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		cmd.Stderr = b.Output()
		if err := cmd.Start(); err != nil {
			return err
		}
		out := bufio.NewWriterSize(in, 1<<20)
		for i := range count {
			out.WriteString(strings.Join(row(i), "\t")) //nolint:errcheck // Flush tells
			out.WriteByte('\n')                         //nolint:errcheck // Flush tells
		}
		if err := errors.Join(out.Flush(), in.Close(), cmd.Wait()); err != nil {
			return fmt.Errorf("copy %s: %w", columns, err)
		}
		return nil
	}
	now := w.db.Now(b)
	then := func(i int) time.Time { // the latest first
		return now.Add(-time.Hour - time.Duration(float64(i)/float64(n)*float64(46*time.Hour)))
	}
	at := func(i int) string { return then(i).Format(time.RFC3339Nano) }
	scattered := func(of string, i int) [sha256.Size]byte { return sha256.Sum256(fmt.Appendf(nil, "%s %d", of, i)) }
	id := func(of string, i int) string { // as postgres.NewID made it
		sum := scattered(of, i)
		sum[0] = byte(then(i).Unix() % 86400 * 256 / 86400)
		return uuid.UUID(sum[:16]).String()
	}
	hash := func(of string, i int) string {
		sum := scattered(of, i)
		return `\\x` + hex.EncodeToString(sum[:])
	}
	subject := func(i int) string {
		sum := scattered("subject", i)
		return uuid.UUID(sum[:16]).String()
	}
	var loads errgroup.Group
	loads.SetLimit(2)
	loads.Go(func() error {
		return load("challenges (id, created_at, subject, kind, purpose, binding, browser, attempts, max_attempts, sends, expires_at, ended_at, outcome)", n, func(i int) []string {
			return []string{id("challenge", i), at(i), subject(i), "gateway", "gateway", hash("binding", i), hash("browser", i), "1", "5", "1", at(i), at(i), "verified"}
		})
	})
	loads.Go(func() error {
		return load("verifications (id, created_at, tenant_id, test, recipient, number, hint, country, request)", n, func(i int) []string {
			return []string{id("challenge", i), at(i), tenant.String(), "f", hash("recipient", i), hash("number", i), "00", "US", "{}"}
		})
	})
	loads.Go(func() error {
		return load("messages (id, created_at, challenge_id, purpose, locale, recipient, hint, country, state, not_after, verified)", n, func(i int) []string {
			return []string{id("message", i), at(i), id("challenge", i), "gateway", "en", hash("recipient", i), "00", "US", "delivered", at(i), "t"}
		})
	})
	loads.Go(func() error {
		return load("events (id, created_at, owner, type, data)", n, func(i int) []string {
			return []string{id("event", i), at(i), "tenant:shop", "verification.approved", `{"id": "` + id("challenge", i) + `", "to": "••00", "status": "approved"}`}
		})
	})
	loads.Go(func() error {
		return load("audit_events (id, at, event, outcome, actor, client_id, object, source, request_id)", 2*n, func(i int) []string {
			event := []string{"challenge.answer", "challenge.open"}[i%2]
			return []string{id(event, i/2), at(i / 2), event, "success", "client", "shop", id("challenge", i/2), "192.0.2.1", ""}
		})
	})
	loads.Go(func() error {
		return load("windows (name, key, hits, expires_at, burst)", n*24/46, func(i int) []string { // those of more than a day ago are gone
			return []string{w.gateway.Limits.NumberDay.Name, hash("recipient", i), "{" + at(i) + "}", now.Add(24 * time.Hour).Format(time.RFC3339Nano), "10"}
		})
	})
	if err := loads.Wait(); err != nil {
		b.Fatal(err)
	}
	if out, err := exec.CommandContext(b.Context(), "psql", "-q", w.db.DSN, "-c", "VACUUM ANALYZE challenges, verifications, messages, events, audit_events, windows").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
}

// BenchmarkPair is a send and its verify, over the handlers without a network between, with several at once: pairs a second, the processor time of this process for a pair, and how
// long each half takes. PostgreSQL runs beside it.
//
//	GOGC=400 go test -run '^$' -bench Pair -benchtime 5000x ./factors/gateway -pg.durable [-pairs.old 10000000 -pairs.rounds 5 -timeout 1h]
func BenchmarkPair(b *testing.B) {
	olds := []int{0}
	if *oldRows > 0 {
		olds = append(olds, *oldRows)
	}
	var pairings []*pairing
	for _, old := range olds {
		pairings = append(pairings, newPairing(b, old))
	}
	for range *pairRounds {
		for i, p := range pairings {
			b.Run(fmt.Sprintf("old=%d", olds[i]), p.measure)
		}
	}
}

// pairing is a gateway that pairs are asked of.
type pairing struct {
	*world
	codes func(id string) string
	next  atomic.Int64
}

// newPairing makes one with so many verifications of the past, and connections that have planned their statements: a new one reads the catalogue first, a tenth of a second, once.
func newPairing(b *testing.B, old int) *pairing {
	b.Helper()
	w := newWorld(b)
	w.aged(b)
	w.seedOld(b, old)
	if err := w.gateway.Tenants.Update(b.Context(), "shop", gateway.Settings{Service: "Shop", Day: 50_000_000}); err != nil {
		b.Fatal(err)
	}
	w.db.SetMaxOpenConns(*pairConns)
	w.gateway.Limits.Everyone.Burst, w.gateway.Rate = 100_000_000, 100_000_000
	w.gateway.Outbox.Wake = func() {}                                              // a server runs a worker of its own
	w.gateway.Happened = func(_ context.Context, q *postgres.Query, from string) { // as the program does
		events.Add(q, from, events.Event{}, events.Expressions{Type: from + ".event", Owner: events.TenantSQL(from + ".tenant"), ID: from + ".public_id", Status: "split_part(" + from + ".event, '.', 2)",
			Reason: from + ".reason", Channel: from + ".channel", Hint: from + ".hint", ClientRef: "nullif(" + from + ".client_ref, '')"})
	}
	p := &pairing{world: w, codes: w.knownCodes(b)}
	var warm sync.WaitGroup
	for range *pairConns {
		warm.Go(func() {
			for range 20 {
				p.pair(b, time.Now())
			}
		})
	}
	warm.Wait()
	return p
}

// do asks for one half; it took as long as is past since it should have begun.
func (p *pairing) do(b *testing.B, path, body string, began time.Time) (id string, took time.Duration) {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, path, strings.NewReader(body))
	if err != nil {
		b.Error(err)
		return "", 0
	}
	r.RemoteAddr = "192.0.2.1:1234"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", p.live)
	rec := httptest.NewRecorder()
	p.handlers[0].ServeHTTP(rec, r)
	took = time.Since(began)
	var out struct{ Data struct{ RequestID string } }
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil || rec.Code > 201 {
		b.Errorf("%d %s", rec.Code, rec.Body)
	}
	return out.Data.RequestID, took
}

// pair is one pair, for a number of its own.
func (p *pairing) pair(b *testing.B, began time.Time) (send, verify time.Duration) {
	n := p.next.Add(1)
	id, send := p.do(b, "/otp/send", fmt.Sprintf(`{"phoneNumber":"+1%03d%07d"}`, []int{202, 303, 404, 512, 617, 702, 818}[n/7_000_000%7], 2_000_000+n%7_000_000), began)
	if id == "" {
		return send, 0
	}
	_, verify = p.do(b, "/otp/verify", fmt.Sprintf(`{"requestId":%q,"otpCode":%q}`, id, p.codes(id)), time.Now())
	return send, verify
}

func (p *pairing) measure(b *testing.B) {
	p.db.Season(b)
	var mu sync.Mutex
	var sends, verifies []time.Duration
	before := p.db.Spent(b)
	b.SetParallelism(4)
	if *pairRate > 0 {
		b.SetParallelism(64)
	}
	var begun atomic.Int64
	b.ResetTimer()
	began := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			at := time.Now()
			if *pairRate > 0 {
				at = began.Add(time.Duration(float64(begun.Add(1)) / *pairRate * float64(time.Second)))
				time.Sleep(time.Until(at))
			}
			send, verify := p.pair(b, at)
			mu.Lock()
			sends, verifies = append(sends, send), append(verifies, verify)
			mu.Unlock()
		}
	})
	b.StopTimer()
	at := func(list []time.Duration, p int) float64 {
		slices.Sort(list)
		return float64(list[min(len(list)-1, len(list)*p/100)].Microseconds()) / 1000
	}
	p.db.Per(b, before, len(sends))
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
