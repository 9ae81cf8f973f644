package simswap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/simswap"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func number(t *testing.T, text string) sms.Number {
	t.Helper()
	n, err := sms.ParseNumber(text, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func lookup(t *testing.T, address string, change func(*simswap.Config)) *simswap.Lookup {
	t.Helper()
	c := simswap.Config{URL: address + "/simswap/v2", TokenURL: address + "/simswap/token", ClientID: carriersim.SIMSwapClient, Secret: carriersim.SIMSwapSecret, Timeout: 5 * time.Second}
	if change != nil {
		change(&c)
	}
	l, err := simswap.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSwapped(t *testing.T) { // OTP-13
	t.Parallel()
	sim := carriersim.New(carriersim.Options{Now: func() time.Time { return noon }})
	var tokens atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/token") {
			tokens.Add(1)
		}
		sim.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	sim.SwapSIM("+12025550144", noon.Add(-72*time.Hour))
	sim.SwapSIM("+12025550145", noon.Add(-73*time.Hour))
	closed, open := lookup(t, server.URL, nil), lookup(t, server.URL, func(c *simswap.Config) { c.Open = true })
	for _, tt := range []struct {
		number       string
		hold, passes bool // when it cannot be told, by what was decided
		err          string
	}{
		{number: "+12025550143"},
		{number: "+12025550144", hold: true, passes: true},
		{number: "+12025550145"},
		{number: "+12025550011", hold: true, passes: true},
		{number: "+12025550012", hold: true, err: "status 404 IDENTIFIER_NOT_FOUND"},
	} {
		for l, want := range map[*simswap.Lookup]bool{closed: tt.hold, open: tt.passes} {
			hold, err := l.Hold(t.Context(), number(t, tt.number))
			if hold != want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %t, %v, want %t, %s", tt.number, hold, err, want, tt.err)
			}
			if err != nil && strings.Contains(err.Error(), "2025550") {
				t.Errorf("the number is in %q", err)
			}
		}
	}
	if n := tokens.Load(); n != 2 {
		t.Errorf("%d tokens for two look-ups with many calls", n)
	}
	sim.SetFaults(carriersim.Faults{Vendor: "simswap", Outage: true})
	if hold, err := closed.Hold(t.Context(), number(t, "+12025550143")); !hold || err == nil {
		t.Errorf("an outage: %t, %v", hold, err)
	}
	if hold, err := open.Hold(t.Context(), number(t, "+12025550143")); hold || err == nil {
		t.Errorf("an outage, open: %t, %v", hold, err)
	}
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"garbage":      func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },          //nolint:errcheck // a test's
		"nothing said": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"status":"ok"}`)) }, //nolint:errcheck // a test's
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"swapped":false,"x":"` + strings.Repeat("x", 100_000) + `"}`))
		}, //nolint:errcheck // a test's
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
		}, // nobody follows
		"odd code": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte(`{"code":"+12025550143 <script>"}`))
		}, //nolint:errcheck // a test's
		"silent": func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() }, //nolint:errcheck // only then is it noticed that the caller has gone
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/token") {
					w.Header().Set("Content-Type", "application/json")
					w.Write([]byte(`{"access_token":"t","token_type":"Bearer"}`)) //nolint:errcheck // a test's
					return
				}
				handler(w, r)
			}))
			t.Cleanup(server.Close)
			l := lookup(t, server.URL, func(c *simswap.Config) { c.Timeout = 500 * time.Millisecond })
			hold, err := l.Hold(t.Context(), number(t, "+12025550143"))
			if !hold || err == nil || strings.Contains(err.Error(), "2025550143") || strings.Contains(err.Error(), "script") {
				t.Errorf("%t, %v", hold, err)
			}
			if name == "silent" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("wrong secret", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(carriersim.New(carriersim.Options{Now: func() time.Time { return noon }}))
		t.Cleanup(server.Close)
		l := lookup(t, server.URL, func(c *simswap.Config) { c.Secret = "another secret" })
		hold, err := l.Hold(t.Context(), number(t, "+12025550143"))
		if !hold || err == nil || !strings.Contains(err.Error(), "no access token: status 401 invalid_client") || strings.Contains(err.Error(), "another secret") {
			t.Errorf("%t, %v", hold, err)
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := simswap.Config{URL: "https://network.example/v2", TokenURL: "https://network.example/token", ClientID: "id", Secret: "s"}
	for name, change := range map[string]func(*simswap.Config){
		"not https":        func(c *simswap.Config) { c.URL = "http://network.example/v2" },
		"no token":         func(c *simswap.Config) { c.TokenURL = "" },
		"no secret":        func(c *simswap.Config) { c.Secret = "" },
		"too old":          func(c *simswap.Config) { c.MaxAge = 2401 * time.Hour },
		"parts of an hour": func(c *simswap.Config) { c.MaxAge = 90 * time.Minute },
	} {
		c := good
		change(&c)
		if _, err := simswap.New(c); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := simswap.New(good); err != nil {
		t.Error(err)
	}
}
