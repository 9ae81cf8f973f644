package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/sms"
)

// overheard notes the codes of texts as they are sealed, by what the text says it is for, so that nobody has to ask the database for them.
type overheard struct {
	factors.Keys
	codes sync.Map
}

var amountAndCode = regexp.MustCompile(`(?s)([0-9.]+) EUR.*#(\d{6})|EUR.?([0-9.]+).*#(\d{6})`)

// Seal implements factors.Keys.
func (o *overheard) Seal(plain []byte, context string) ([]byte, error) {
	if found := amountAndCode.FindSubmatch(plain); found != nil {
		o.codes.Store(string(found[1])+string(found[3]), string(found[2])+string(found[4]))
	}
	return o.Keys.Seal(plain, context)
}

// One is a whole confirmation, as the bank sees it: created by a request over HTTP, its text stored for the carrier, and approved by a second request with the code, which is answered with the signed
// result. The bank's half runs in this process too, and PostgreSQL beside it. Besides the rate it tells the processor time of both.
//
//	GOGC=400 go test -run '^$' -bench Confirmation -benchtime 3000x ./authn/transaction/api -pg.durable
//
// with GOGC as `watchword serve` has it.
func BenchmarkConfirmation(b *testing.B) {
	const warm = 200
	w := newWorld(b)
	ledger := w.api.Confirm.Ledger
	ledger.Limits.Everyone.Burst = 1 << 30 // all others are as they are: nobody confirms more than four
	heard := &overheard{Keys: w.Keys}
	ledger.Outbox = &sms.Outbox{Keys: heard}
	people := make([]string, (b.N+warm)/4+16)
	for i := range people {
		number, err := sms.ParseNumber(fmt.Sprintf("+1202%07d", 2_000_000+i), "")
		must(b, err)
		a, unique := smsotp.Phone(uuid.Nil, number)
		id, err := w.Service.Create(b.Context(), fmt.Sprint("user", i), "", authn.Profile{}, authn.Binding{Authenticator: a, Unique: unique})
		must(b, err)
		must(b, w.DB.GetContext(b.Context(), &people[i], "SELECT subject FROM subscribers WHERE id = $1", id))
	}
	w.api.Confirm.Config.Hold = 0
	w.DB.Season(b)
	server := httptest.NewServer(w.handler)
	b.Cleanup(server.Close)
	client := server.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	post := func(path, body string, status int) (answer struct{ ID, Status, Result string }) {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			b.Error(err)
			return answer
		}
		r.Header.Set("Authorization", "Bearer bank")
		r.Header.Set("Content-Type", "application/json")
		res, err := client.Do(r)
		if err != nil {
			b.Error(err)
			return answer
		}
		defer res.Body.Close() //nolint:errcheck // it has been read
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != status || json.Unmarshal(text, &answer) != nil {
			b.Errorf("%s: %d %s %v", path, res.StatusCode, text, err)
		}
		return answer
	}
	var next atomic.Int64
	confirm := func() {
		n := next.Add(1)
		amount := fmt.Sprintf("%d.%02d", 1+n/100, n%100)
		order := fmt.Sprintf(`"amount": %q, "currency": "EUR", %s`, amount, payee)
		created := post("/v1/transactions", fmt.Sprintf(`{"user": %q, %s}`, people[n%int64(len(people))], order), http.StatusCreated)
		code, _ := heard.codes.LoadAndDelete(amount)
		approved := post("/v1/transactions/"+created.ID+"/verify", fmt.Sprintf(`{"code": %q, %s}`, code, order), http.StatusOK)
		if approved.Status != string(transaction.Approved) || strings.Count(approved.Result, ".") != 2 {
			b.Errorf("not approved: %+v", approved)
		}
	}
	var group sync.WaitGroup
	for range 8 { // connections are opened, statements planned
		group.Go(func() {
			for range warm / 8 {
				confirm()
			}
		})
	}
	group.Wait()
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
