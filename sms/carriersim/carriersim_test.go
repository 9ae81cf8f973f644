package carriersim_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
)

func start(t *testing.T) (*carriersim.Simulator, *carriersim.Vendor, string) {
	t.Helper()
	sim := carriersim.New(func() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) })
	server := httptest.NewUnstartedServer(sim)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	t.Cleanup(server.Close)
	vendor, err := carriersim.NewVendor(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return sim, vendor, server.URL
}

func leg(t *testing.T, to string) sms.Leg {
	t.Helper()
	n, err := sms.ParseNumber(to, "")
	if err != nil {
		t.Fatal(err)
	}
	return sms.Leg{ID: uuid.New(), To: n, Text: "code <123456> & more"}
}

func TestSend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, to string
		faults   carriersim.Faults
		class    sms.Class
		reached  sms.Reached
		arrived  int
	}{
		{name: "delivered", to: "+12025550143", arrived: 1},
		{name: "invalid recipient", to: "+12025550001", class: sms.InvalidRecipient, reached: sms.NotSent},
		{name: "opted out", to: "+12025550002", class: sms.RecipientOptedOut, reached: sms.NotSent},
		{name: "rate limited", to: "+12025550003", class: sms.RateLimited, reached: sms.NotSent},
		{name: "undelivered", to: "+12025550004", arrived: 1},
		{name: "refused at first", to: "+12025550006", class: sms.Temporary, reached: sms.NotSent},
		{name: "connection drops", to: "+12025550007", class: sms.Ambiguous, reached: sms.MaybeSent, arrived: 1},
		{name: "fraud", to: "+12025550008", class: sms.BlockedFraud, reached: sms.NotSent},
		{name: "outage", to: "+12025550143", faults: carriersim.Faults{Outage: true}, class: sms.Temporary, reached: sms.NotSent},
		{name: "fails on demand", to: "+12025550143", faults: carriersim.Faults{Fail: 1, Class: "insufficient_funds"}, class: sms.InsufficientFunds, reached: sms.NotSent},
		{name: "drops on demand", to: "+12025550143", faults: carriersim.Faults{Drop: 1}, class: sms.Ambiguous, reached: sms.MaybeSent, arrived: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sim, vendor, _ := start(t)
			sim.SetFaults(tt.faults)
			_, err := vendor.Send(t.Context(), leg(t, tt.to))
			failed, _ := errors.AsType[*sms.Error](err)
			switch {
			case tt.class == "" && err != nil:
				t.Fatalf("Send: %v", err)
			case tt.class != "" && (failed == nil || failed.Class != tt.class || failed.Reached != tt.reached):
				t.Fatalf("Send error = %v, want class %s", err, tt.class)
			}
			if n := len(sim.Messages("")); n != tt.arrived {
				t.Fatalf("%d texts arrived, want %d", n, tt.arrived)
			}
		})
	}
}

func TestSendIsIdempotent(t *testing.T) {
	t.Parallel()
	sim, vendor, _ := start(t)
	l := leg(t, "+12025550143")
	first, err1 := vendor.Send(t.Context(), l)
	second, err2 := vendor.Send(t.Context(), l)
	if err1 != nil || err2 != nil || first != second || len(sim.Messages("")) != 1 {
		t.Fatalf("%v %v, %v %v, %d texts; want one answer and one text", first, err1, second, err2, len(sim.Messages("")))
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	vendor, err := carriersim.NewVendor("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = vendor.Send(t.Context(), leg(t, "+12025550143"))
	if failed, ok := errors.AsType[*sms.Error](err); !ok || failed.Class != sms.Temporary || failed.Reached != sms.NotSent {
		t.Fatalf("Send error = %v, want temporary and not sent", err)
	}
}

func TestAnswersThatAreNotUnderstood(t *testing.T) { // F-43
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"HTML with 200": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"wrong types": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"ref":7}`)
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, strings.Repeat("x", 1<<20))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			vendor, err := carriersim.NewVendor(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			_, err = vendor.Send(t.Context(), leg(t, "+12025550143"))
			if failed, ok := errors.AsType[*sms.Error](err); !ok || failed.Class != sms.Ambiguous || failed.Reached != sms.MaybeSent {
				t.Fatalf("Send error = %v, want ambiguous and maybe sent", err)
			}
		})
	}
}

func TestInbox(t *testing.T) {
	t.Parallel()
	_, vendor, base := start(t)
	for _, to := range []string{"+12025550143", "+12025550144", "+12025550143"} {
		if _, err := vendor.Send(t.Context(), leg(t, to)); err != nil {
			t.Fatal(err)
		}
	}
	var got []carriersim.Message
	if err := json.Unmarshal([]byte(get(t, base+"/messages?to=%2B12025550143")), &got); err != nil || len(got) != 2 || got[0].Text != "code <123456> & more" || got[0].State != "delivered" {
		t.Fatalf("messages = %+v, %v", got, err)
	}
	page := get(t, base+"/")
	if strings.Count(page, `class="phone"`) != 2 || !strings.Contains(page, "code &lt;123456&gt; &amp; more") {
		t.Fatalf("inbox does not show two phones with their texts:\n%s", page)
	}
	if get(t, base+"/messages?to=%2B12025550199") != "[]\n" {
		t.Fatal("an unknown number is not an empty list")
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
