package httpkit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpkit"
)

type valueKey struct{}

// What waits for a person outlives the bound of a request and the server's own; what follows has a bound again.
func TestWait(t *testing.T) {
	t.Parallel()
	for _, protocol := range []int{1, 2} { // of HTTP/2 the server lets a whole stream go, not only what is written too late
		t.Run(fmt.Sprintf("HTTP %d", protocol), func(t *testing.T) {
			t.Parallel()
			testWait(t, protocol == 2)
		})
	}
}

func testWait(t *testing.T, http2 bool) {
	t.Helper()
	const length = 100 * time.Millisecond
	problems := make(chan error, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, cancel := httpkit.Bound(w, r, length)
		defer cancel()
		ctx := context.WithValue(r.Context(), valueKey{}, "kept")
		after, done := httpkit.Wait(ctx, func(free context.Context) {
			<-ctx.Done() // the bound
			select {
			case <-free.Done():
				problems <- errors.New("waiting ends with the bound")
			case <-time.After(2 * length): // longer than the server lets others write
			}
			if free.Value(valueKey{}) != "kept" {
				problems <- errors.New("the values are lost")
			}
		})
		defer done()
		if deadline, ok := after.Deadline(); after.Err() != nil || !ok || time.Until(deadline) > length || after.Value(valueKey{}) != "kept" {
			problems <- errors.New("what follows has no bound of its own")
		}
		if waited := httpkit.Waited(after); waited < 2*length {
			problems <- errors.New("waited " + waited.String())
		}
		<-after.Done()
		io.WriteString(w, "answer") //nolint:errcheck // the client looks
		problems <- nil
	}))
	server.Config.WriteTimeout = 2 * length
	if server.EnableHTTP2 = http2; http2 {
		server.StartTLS()
	} else {
		server.Start()
	}
	defer server.Close()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if (resp.ProtoMajor == 2) != http2 {
		t.Fatal(resp.Proto)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "answer" {
		t.Errorf("%q, %v", body, err)
	}
	for err := <-problems; err != nil; err = <-problems {
		t.Error(err)
	}
}

// Whoever has gone is not waited for.
func TestWaitGone(t *testing.T) {
	t.Parallel()
	ended := make(chan bool, 1)
	begun := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, cancel := httpkit.Bound(w, r, time.Minute)
		defer cancel()
		after, done := httpkit.Wait(r.Context(), func(free context.Context) { close(begun); <-free.Done() })
		defer done()
		ended <- after.Err() != nil
	}))
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-begun; leave() }()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := server.Client().Do(r); err == nil {
		resp.Body.Close()
		t.Error("an answer")
	}
	if !<-ended {
		t.Error("the work goes on")
	}
}

func TestWaitWithoutBound(t *testing.T) {
	t.Parallel()
	waited := false
	after, done := httpkit.Wait(t.Context(), func(context.Context) { waited = true })
	defer done()
	if _, bound := after.Deadline(); !waited || bound || httpkit.Waited(after) != 0 {
		t.Error("without a bound there is none afterwards")
	}
}
