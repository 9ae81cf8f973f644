package transaction_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/transaction"
)

// One is a whole confirmation: created, stored with its text, and approved with the code.
func BenchmarkConfirmation(b *testing.B) {
	w := newWorld(b)
	limits := &w.service.Ledger.Limits
	for _, window := range []*int{&limits.NumberHour.Burst, &limits.NumberDay.Burst, &limits.SubjectHour.Burst, &limits.Source.Burst, &limits.Everyone.Burst} {
		*window = 1 << 30
	}
	var people []uuid.UUID
	for i := range 64 {
		people = append(people, w.Subscriber(b, fmt.Sprintf("user%d", i), fmt.Sprintf("+1202555%04d", 1000+i)))
	}
	w.service.Config.Hold = 0
	var next atomic.Int64
	b.SetParallelism(8) // a commit waits for the disk, and others go on meanwhile
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := next.Add(1) % int64(len(people))
			r := w.request()
			r.User = transaction.User{Subscriber: people[n]}
			created, err := w.service.Create(authntest.From(b.Context(), fmt.Sprintf("192.0.2.%d", n)), r)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := w.approve(b, created.ID, w.Code(b, created.Challenge.ID)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "confirmations/s")
}
