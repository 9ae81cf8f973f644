package transaction_test

import (
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/sms"
)

// overheard notes the codes of what is sealed, so that nobody has to ask the database for them.
type overheard struct {
	factors.Keys
	codes sync.Map
}

var codeAtEnd = regexp.MustCompile(`#(\d{6})`)

// Seal implements factors.Keys.
func (o *overheard) Seal(plain []byte, context string) ([]byte, error) {
	if found := codeAtEnd.FindSubmatch(plain); found != nil {
		o.codes.Store(context, string(found[1]))
	}
	return o.Keys.Seal(plain, context)
}

func (o *overheard) code(challenge uuid.UUID) string {
	code, _ := o.codes.LoadAndDelete("message of challenge " + challenge.String())
	text, _ := code.(string)
	return text
}

// One is a whole confirmation: created, stored with its text, and approved with the code. Besides the rate it tells the processor time of this process and of PostgreSQL.
//
//	go test -run '^$' -bench Confirmation -benchtime 3000x ./authn/transaction
func BenchmarkConfirmation(b *testing.B) {
	const warm = 100
	w := newWorld(b)
	w.service.Ledger.Limits.Everyone.Burst = 1 << 30 // all others are as they are: nobody confirms more than four
	heard := &overheard{Keys: w.Keys}
	w.service.Ledger.Outbox = &sms.Outbox{Keys: heard}
	people := make([]uuid.UUID, (b.N+warm)/4+16)
	for i := range people {
		number, err := sms.ParseNumber(fmt.Sprintf("+1202%07d", 2_000_000+i), "")
		if err != nil {
			b.Fatal(err)
		}
		a, unique := smsotp.Phone(uuid.Nil, number)
		if people[i], err = w.Service.Create(b.Context(), fmt.Sprint("user", i), "", authn.Profile{}, authn.Binding{Authenticator: a, Unique: unique}); err != nil {
			b.Fatal(err)
		}
	}
	w.service.Config.Hold = 0
	var next atomic.Int64
	confirm := func() {
		n := next.Add(1) % int64(len(people))
		r := w.request()
		r.User = transaction.User{Subscriber: people[n]}
		created, err := w.service.Create(authntest.From(b.Context(), fmt.Sprintf("10.%d.%d.1", n>>8, n&255)), r)
		if err != nil {
			b.Error(err)
			return
		}
		if _, err := w.approve(b, created.ID, heard.code(created.Challenge.ID)); err != nil {
			b.Error(err)
		}
	}
	for range warm { // statements are prepared
		confirm()
	}
	before, trips := w.DB.Spent(b), w.DB.RoundTrips.Load()
	b.ResetTimer()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			confirm()
		}
	})
	b.StopTimer()
	trips = w.DB.RoundTrips.Load() - trips
	w.DB.Per(b, before, b.N)
	b.ReportMetric(float64(trips)/float64(b.N), "round-trips/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "confirmations/s")
}
