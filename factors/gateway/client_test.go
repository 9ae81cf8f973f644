package gateway_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/factors/gateway/client"
)

// The Go client against the API itself, over a connection that loses every second answer: everything happens once.
func TestClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var n, lost atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 || r.Method != http.MethodPost {
			w.handlers[0].ServeHTTP(rw, r)
			return
		}
		lost.Add(1)
		w.handlers[0].ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	c := client.New(server.URL, w.live)
	ctx := t.Context()
	v, err := c.Create(ctx, client.CreateRequest{To: number(1), ClientRef: "o1", Metadata: map[string]string{"a": "b"}})
	must(t, err)
	if v.Status != client.Pending || v.ClientRef != "o1" || v.Metadata["a"] != "b" || w.count(t, "SELECT count(*) FROM messages") != 1 {
		t.Fatalf("%+v", v)
	}
	if v, err = c.Get(ctx, v.ID); err != nil || len(v.Deliveries) != 1 || v.Deliveries[0].Status != "queued" {
		t.Fatalf("%+v, %v", v, err)
	}
	result, err := c.Check(ctx, v.ID, "000000")
	if err != nil || result.Valid || result.AttemptsLeft != 4 {
		t.Fatalf("%+v, %v", result, err)
	}
	if result, err = c.Check(ctx, v.ID, w.code(t, v.ID)); err != nil || !result.Valid || result.Status != client.Approved {
		t.Fatalf("%+v, %v", result, err)
	}
	if _, err = c.Check(ctx, v.ID, "000000"); !client.Is(err, client.CodeAlreadyVerified) {
		t.Fatalf("%v", err)
	}
	_, err = c.Create(ctx, client.CreateRequest{To: "x"})
	var problem *client.Error
	if !errors.As(err, &problem) || problem.Code != client.CodeInvalidNumber || problem.Status != 400 || problem.RequestID == "" {
		t.Fatalf("%v", err)
	}
	pay := &client.Transaction{Amount: "5", Currency: "EUR", Payee: "Gas AG"}
	v, err = c.Create(ctx, client.CreateRequest{To: number(2), Transaction: pay})
	must(t, err)
	if result, err = c.CheckTransaction(ctx, v.ID, w.code(t, v.ID), pay); err != nil || !result.Valid {
		t.Fatalf("%+v, %v", result, err)
	}
	v, err = c.Create(ctx, client.CreateRequest{To: number(3)})
	must(t, err)
	if _, err = c.Resend(ctx, v.ID, ""); !client.Is(err, client.CodeRateLimited) {
		t.Fatalf("%v", err)
	}
	if v, err = c.Cancel(ctx, v.ID); err != nil || v.Status != client.Canceled {
		t.Fatalf("%+v, %v", v, err)
	}
	seen := 0
	for v, err := range c.List(ctx, client.Filter{}) {
		must(t, err)
		if seen++; v.ID == "" {
			t.Fatal("no id")
		}
	}
	if seen != 3 || lost.Load() < 5 {
		t.Fatalf("%d in the list, %d answers lost", seen, lost.Load())
	}
	for _, err := range client.New(server.URL, "otp_live_x").List(ctx, client.Filter{To: number(1), ClientRef: "o1"}) {
		if !client.Is(err, string(gateway.InvalidAPIKey)) {
			t.Fatalf("%v", err)
		}
	}
}
