package backchannel_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/egress"
)

// told is an application that wants to be told.
type told struct {
	mu     sync.Mutex
	calls  []string // auth_req_ids
	bearer []string
	status []int // of the answers, in turn; the last one again and again
}

func (a *told) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var got struct {
		ID string `json:"auth_req_id"`
	}
	json.Unmarshal(body, &got) //nolint:errcheck // then it is empty
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls, a.bearer = append(a.calls, got.ID), append(a.bearer, r.Header.Get("Authorization"))
	status := a.status[min(len(a.calls), len(a.status))-1]
	if status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
	io.WriteString(w, "a body that nobody looks at") //nolint:errcheck // as above
}

func (a *told) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls)
}

const notifyToken = "8d67dc78-7faa-4d41-aabd-67707b374255"

func TestPing(t *testing.T) { // CIB-3, CI-6
	t.Parallel()
	for name, tt := range map[string]struct {
		status []int
		calls  int // in all
	}{
		"204":             {[]int{204}, 1},
		"200 with a body": {[]int{200}, 1},
		"401":             {[]int{401}, 1},
		"403":             {[]int{403}, 1},
		"404":             {[]int{404}, 1},
		"redirect":        {[]int{302}, 1},
		"500, then 204":   {[]int{500, 204}, 2},
		"always 503":      {[]int{503}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			application := &told{status: tt.status}
			server := httptest.NewServer(application)
			t.Cleanup(server.Close)
			teller := &backchannel.Teller{DB: w.DB.DB, Keys: w.Keys, Log: slog.New(slog.DiscardHandler),
				Client: egress.New(egress.Config{Exempt: []string{"127.0.0.1"}, AllowHTTP: true}).Client()}
			drain := func() {
				t.Helper()
				if _, err := teller.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			asked := w.ask(t, func(q *backchannel.Question) { q.Notify = &backchannel.Notify{URL: server.URL, Token: notifyToken} }, by("bank"), pays)
			drain()
			if application.count() != 0 {
				t.Fatal("told before there is an answer")
			}
			if _, err := w.service.Confirm.Approve(t.Context(), "bank", asked.Payment.ID, transaction.Answer{Code: w.Code(t, asked.Payment.Challenge.ID)}); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				drain()
				w.DB.Advance(t, 30*time.Second)
			}
			if application.count() != tt.calls || slices.ContainsFunc(application.calls, func(id string) bool { return id != asked.Secret }) ||
				slices.ContainsFunc(application.bearer, func(b string) bool { return b != "Bearer "+notifyToken }) {
				t.Errorf("%d calls: %v %v; want %d", application.count(), application.calls, application.bearer, tt.calls)
			}
			var kept int
			if err := w.DB.GetContext(t.Context(), &kept, "SELECT count(*) FROM backchannel_requests WHERE notify IS NOT NULL OR notify_at IS NOT NULL"); err != nil || kept != 0 {
				t.Errorf("%d secrets are kept, %v", kept, err)
			}
		})
	}
}

// However it ends, whoever wants to be told is told; and nobody inside is called.
func TestPingOfEveryEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	application := &told{status: []int{204}}
	server := httptest.NewServer(application)
	t.Cleanup(server.Close)
	open, closed := egress.New(egress.Config{Exempt: []string{"127.0.0.1"}, AllowHTTP: true}), egress.New(egress.Config{AllowHTTP: true})
	teller := &backchannel.Teller{DB: w.DB.DB, Keys: w.Keys, Log: slog.New(slog.DiscardHandler), Client: closed.Client()}
	ping := func(q *backchannel.Question) { q.Notify = &backchannel.Notify{URL: server.URL, Token: notifyToken} }
	approved, denied, expired := w.ask(t, ping), w.ask(t, ping), w.ask(t, ping)
	p, cookie := w.answer(t, approved, "")
	if !w.approve(t, p, cookie) {
		t.Fatal("not approved")
	}
	if err := w.service.Refuse(t.Context(), denied.ID, &p.SignIn.Session); err != nil {
		t.Fatal(err)
	}
	if _, err := teller.Drain(t.Context()); err != nil || application.count() != 0 {
		t.Fatalf("an address inside was called %d times, %v", application.count(), err)
	}
	w.DB.Advance(t, 2*time.Second)
	teller.Client = open.Client()
	if _, err := teller.Drain(t.Context()); err != nil || application.count() != 2 {
		t.Fatalf("%d calls, %v", application.count(), err)
	}
	w.DB.Advance(t, backchannel.Life)
	if n, err := w.service.Expire(t.Context()); err != nil || n != 1 {
		t.Fatalf("%d expired, %v", n, err)
	}
	if _, err := teller.Drain(t.Context()); err != nil || application.count() != 3 || application.calls[2] != expired.Secret {
		t.Fatalf("%v, %v", application.calls, err)
	}
}
