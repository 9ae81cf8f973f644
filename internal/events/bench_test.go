package events_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// BenchmarkAdd is a statement that changes a row, without an event, with one that nobody is told, and with one for an endpoint.
func BenchmarkAdd(b *testing.B) {
	for _, bm := range []struct {
		name  string
		owner events.Owner
	}{{"without", ""}, {"stored", events.Tenant("silent")}, {"queued", events.Tenant("told")}} {
		b.Run(bm.name, func(b *testing.B) {
			w := newBench(b)
			w.endpoint(b, events.Tenant("told"), "http://127.0.0.1:1/")
			for i := range 1000 { // of others
				w.endpoint(b, events.Tenant(fmt.Sprint(i)), "http://127.0.0.1:1/")
			}
			b.ResetTimer()
			before := w.db.RoundTrips.Load()
			for b.Loop() {
				q := new(postgres.Query)
				q.With("made", "INSERT INTO client_assertions (client_id, jti_hash, expires_at) VALUES ('c', uuid_send(gen_random_uuid()), wall()) RETURNING jti_hash")
				if bm.owner != "" {
					events.Add(q, "made", events.Event{Type: events.VerificationSent, Owner: bm.owner, ID: "vrf_1", Status: "pending"}, events.Expressions{})
				}
				q.Finally("SELECT 1 FROM made")
				if _, err := w.db.Run(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(w.db.RoundTrips.Load()-before)/float64(b.N), "roundtrips/op")
		})
	}
}

// BenchmarkDeliver empties a queue of events for eight endpoints over loopback.
func BenchmarkDeliver(b *testing.B) {
	w := newBench(b)
	var left atomic.Int64
	done := make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusNoContent)
		if left.Add(-1) == 0 {
			done <- struct{}{}
		}
	}))
	b.Cleanup(srv.Close)
	const endpoints = 8
	for i := range endpoints {
		w.endpoint(b, events.Tenant(fmt.Sprint(i)), srv.URL)
	}
	n := max(b.N, 5000)
	left.Store(int64(n))
	if _, err := w.db.ExecContext(b.Context(), `WITH e AS (INSERT INTO events (owner, type, data) SELECT 'tenant:' || i % $2, 'verification.sent', '{"id":"vrf_1","status":"pending"}' FROM generate_series(1, $1) i RETURNING id, created_at, owner)
		INSERT INTO webhook_queue (endpoint_id, event_id, event_at) SELECT w.id, e.id, e.created_at FROM e JOIN webhook_endpoints w ON w.owner = e.owner`, n, endpoints); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.ResetTimer()
	go func() { ended <- w.worker.Run(ctx) }()
	<-done
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(0, "ns/op")
	stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
