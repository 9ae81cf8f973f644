package audit_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// BenchmarkAppend measures a statement of a hot step's kind, one row counted, without a record, with one, and with one while the sealer works. None
// has more than one round trip.
func BenchmarkAppend(b *testing.B) {
	for name, tt := range map[string]struct{ records, sealed bool }{"bare": {}, "record": {records: true}, "record and sealer": {true, true}} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			if _, err := w.ExecContext(b.Context(), `CREATE TABLE counts (id int PRIMARY KEY, n bigint NOT NULL); INSERT INTO counts SELECT generate_series(0, 99), 0`); err != nil {
				b.Fatal(err)
			}
			step := func(i int) {
				q := new(postgres.Query)
				q.With("counted", fmt.Sprintf("UPDATE counts SET n = n + 1 WHERE id = %s RETURNING id", q.Bind(i%100)+"::int"))
				if tt.records {
					audit.Record(b.Context(), q, "counted", audit.Event{Name: "challenge.answer", Outcome: audit.Refused, Reason: "wrong", Actor: "subscriber", Subject: uuid.New(), Session: uuid.New()}, nil)
				}
				q.Finally("SELECT 1 FROM counted")
				if _, err := w.Run(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
			if tt.sealed {
				ctx, stop := context.WithCancel(b.Context())
				ended := make(chan error, 1)
				go func() { ended <- w.sealer.Run(ctx) }()
				defer func() { stop(); <-ended }()
			}
			step(0)
			before := w.Database.RoundTrips.Load()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				step(i)
			}
			trips := float64(w.Database.RoundTrips.Load()-before) / float64(b.N)
			b.ReportMetric(trips, "trips/op")
			if trips != 1 {
				b.Fatalf("%v round trips for a step, want 1", trips)
			}
		})
	}
}

// BenchmarkSeal measures how fast records are linked, and BenchmarkVerify how fast they are looked at.
func BenchmarkSeal(b *testing.B) {
	w := newWorld(b)
	w.write(b, 1)
	w.seal(b)
	for b.Loop() {
		b.StopTimer()
		w.bulk(b, 10_000)
		b.StartTimer()
		w.seal(b)
	}
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	w.bulk(b, 10_000)
	w.seal(b)
	for b.Loop() {
		w.sound(b, 10_000)
	}
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func (w *world) bulk(b *testing.B, n int) {
	b.Helper()
	if _, err := w.ExecContext(b.Context(), `INSERT INTO audit_events (event, outcome, reason, actor, subject, session_id, object)
		SELECT 'challenge.answer', 'refused', 'wrong', 'subscriber', gen_random_uuid(), gen_random_uuid(), gen_random_uuid()::text FROM generate_series(1, $1)`, n); err != nil {
		b.Fatal(err)
	}
}
