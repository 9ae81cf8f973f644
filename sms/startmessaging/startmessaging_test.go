package startmessaging_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/smstest"
	"github.com/watchword-auth/watchword/sms/startmessaging"
)

// The suite with each API, and as the server and as the vendor's guide answer.
func TestSuite(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"managed", "managed idempotent", "managed article", "message", "message article"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			api, how, _ := strings.Cut(mode, " ")
			d := smstest.Driver{
				Dialect: "startmessaging", Phone: "+919876543", NoStates: true,
				Classes: []sms.Class{sms.InvalidRecipient, sms.RateLimited, sms.InsufficientFunds, sms.Temporary, sms.Misconfigured, sms.Unauthorized},
				Prepare: func(_ testing.TB, sim *carriersim.Simulator) {
					a := sim.Account("startmessaging")
					a.Mode = mode
					sim.SetAccount("startmessaging", a)
				},
				New: func(t testing.TB, s smstest.Setup) sms.Vendor {
					return vendor(t, startmessaging.Config{Mode: api, BaseURL: s.BaseURL, Key: s.Account.Secret, Idempotent: how == "idempotent", AppName: "Acme"})
				},
			}
			if how == "article" { // which has no code for a wrong number
				d.Classes = d.Classes[1:]
			}
			if api == "managed" {
				d.WrongTries = 3
			} else {
				d.NoStates = false
			}
			smstest.Run(t, d)
		})
	}
}

func vendor(t testing.TB, c startmessaging.Config) sms.Vendor {
	t.Helper()
	if c.Key == "" {
		c.Key = "sm_live_key"
	}
	v, err := startmessaging.New("sm", c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func leg(t testing.TB) sms.Leg {
	t.Helper()
	to, err := sms.ParseNumber("+919876543143", "")
	if err != nil {
		t.Fatal(err)
	}
	return sms.Leg{ID: uuid.New(), To: to, Channel: sms.SMS, Text: "482910 is your code.", Code: "482910", Life: 4*time.Minute + time.Second}
}

// says is a server that gives one answer and keeps the last request.
func says(t testing.TB, status int, body string) (address string, last *map[string]any) {
	t.Helper()
	last = new(map[string]any)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*last = nil
		json.NewDecoder(r.Body).Decode(last)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, last
}

func TestSend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		mode    string
		status  int
		body    string
		session string
		class   sms.Class // "": success
		code    string
		reached sms.Reached
		wait    time.Duration
	}{
		{name: "managed", mode: "managed", status: 201, body: `{"success":true,"statusCode":201,"requestId":"req_trace","data":{"requestId":"otp_1","attemptsLeft":3}}`, session: "otp_1"},
		{
			name: "the trace is no session", mode: "managed", status: 201, body: `{"success":true,"requestId":"req_trace","data":{}}`, class: sms.Ambiguous, code: "no_id",
		},
		{
			name: "the other mode's answer", mode: "managed", status: 201, body: `{"success":true,"data":{"otpRequestId":"otp_1","messageId":"msg_1","status":"queued"}}`,
			class: sms.Ambiguous, code: "no_id",
		},
		{name: "message", mode: "message", status: 201, body: `{"success":true,"requestId":"req_trace","data":{"otpRequestId":"otp_1","messageId":"msg_1","status":"queued"}}`, session: "msg_1"},
		{name: "no success in 201", mode: "message", status: 201, body: `{"success":false,"data":{"messageId":"msg_1"}}`, class: sms.Ambiguous, code: "no_id"},
		{
			name: "refused with 200", mode: "message", status: 200, body: `{"success":false,"error":{"code":"INSUFFICIENT_BALANCE"}}`,
			class: sms.InsufficientFunds, code: "INSUFFICIENT_BALANCE", reached: sms.NotSent,
		},
		{
			name: "limit of the number", mode: "message", status: 400, body: `{"success":false,"error":{"code":"RATE_LIMIT_EXCEEDED"}}`,
			class: sms.RateLimited, code: "RATE_LIMIT_EXCEEDED", reached: sms.NotSent, wait: 300 * time.Second,
		},
		{name: "throttle", mode: "message", status: 429, body: `{"error":{"code":"INTERNAL_ERROR"}}`, class: sms.RateLimited, code: "http_429", reached: sms.NotSent},
		{name: "throttle, whatever it says", mode: "message", status: 429, body: `{"error":{"code":"INVALID_PHONE_NUMBER"}}`, class: sms.RateLimited, code: "http_429", reached: sms.NotSent},
		{name: "broken", mode: "message", status: 500, body: `{"error":{"code":"OTP_SEND_FAILED"}}`, class: sms.Temporary, code: "http_500", reached: sms.MaybeSent},
		{name: "conflict", mode: "managed", status: 409, body: `{"error":{"code":"CONFLICT"}}`, class: sms.Misconfigured, code: "CONFLICT", reached: sms.NotSent},
		{name: "empty wallet by the guide", mode: "managed", status: 402, body: `{"success":false,"message":"+919876543143"}`, class: sms.InsufficientFunds, code: "http_402", reached: sms.NotSent},
		{name: "a text for a code", mode: "managed", status: 400, body: `{"error":{"code":"+919876543143"}}`, class: sms.Misconfigured, code: "http_400", reached: sms.NotSent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address, _ := says(t, tt.status, tt.body)
			got, err := vendor(t, startmessaging.Config{Mode: tt.mode, BaseURL: address, AppName: "Acme"}).Send(t.Context(), leg(t))
			e, failed := errors.AsType[*sms.Error](err)
			switch {
			case tt.class == "" && (err != nil || got != sms.Accepted{Ref: tt.session, Session: tt.session}):
				t.Errorf("Send = %+v, %v; want %q", got, err, tt.session)
			case tt.class != "" && (!failed || e.Class != tt.class || e.Code != tt.code || e.Reached != tt.reached || e.RetryAfter != tt.wait):
				t.Errorf("Send = %+v, %+v; want %s %s", got, e, tt.class, tt.code)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	address, last := says(t, 400, `{}`)
	l := leg(t)
	vendor(t, startmessaging.Config{Mode: "message", BaseURL: address, AppName: "Acme", Template: "0b7c"}).Send(t.Context(), l) //nolint:errcheck // what was asked is looked at below
	variables, ok := (*last)["variables"].(map[string]any)
	if !ok || variables["otp"] != "482910" || variables["expiry"] != "5" || variables["appName"] != "Acme" || (*last)["templateId"] != "0b7c" || (*last)["phoneNumber"] != "+919876543143" {
		t.Errorf("message: sent %v", *last)
	}
	vendor(t, startmessaging.Config{Mode: "managed", BaseURL: address}).Send(t.Context(), l) //nolint:errcheck // as above
	if (*last)["idempotencyKey"] != l.ID.String() || len(*last) != 2 {
		t.Errorf("managed: sent %v", *last)
	}
}

// Only success with verified passes.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		body   string
		want   sms.Verdict
		class  sms.Class
	}{
		{200, `{"success":true,"data":{"verified":true}}`, sms.Approved, ""},
		{201, `{"success":true,"requestId":"req_1","data":{"verified":true}}`, sms.Approved, ""},
		{200, `{"success":true,"data":{"verified":false}}`, sms.Denied, ""},
		{200, `{"success":false,"data":{"verified":true}}`, sms.Denied, ""},
		{200, `{"success":true,"verified":true}`, sms.Denied, ""},
		{200, `{"success":true,"data":{"verified":"true"}}`, sms.Denied, sms.Ambiguous},
		{200, `null`, sms.Denied, ""},
		{400, `{"success":true,"data":{"verified":true}}`, sms.Denied, ""},
		{400, `{"success":false,"error":{"message":"Invalid OTP"}}`, sms.Denied, ""},
		{410, ``, sms.Denied, ""},
		{404, `{"success":false,"error":{"code":"NOT_FOUND"}}`, sms.Gone, ""},
		{401, `{"success":false,"error":{"code":"UNAUTHORIZED"}}`, sms.Denied, sms.Unauthorized},
		{403, `{}`, sms.Denied, sms.Unauthorized},
		{429, `{}`, sms.Denied, sms.RateLimited},
		{408, `{}`, sms.Denied, sms.Temporary},
		{500, `{"success":true,"data":{"verified":true}}`, sms.Denied, sms.Temporary},
		{302, `{"success":true,"data":{"verified":true}}`, sms.Denied, sms.Ambiguous},
	} {
		address, last := says(t, tt.status, tt.body)
		checker, ok := vendor(t, startmessaging.Config{Mode: "managed", BaseURL: address}).(sms.Checker)
		if !ok {
			t.Fatal("not a checker")
		}
		got, err := checker.Check(t.Context(), sms.Session{ID: "otp_1"}, "482910")
		e, failed := errors.AsType[*sms.Error](err)
		if got != tt.want || failed != (tt.class != "") || failed && e.Class != tt.class {
			t.Errorf("%d %s: %v, %v; want %v, %q", tt.status, tt.body, got, err, tt.want, tt.class)
		}
		if (*last)["requestId"] != "otp_1" || (*last)["otpCode"] != "482910" {
			t.Errorf("asked %v", *last)
		}
	}
}

func TestPoll(t *testing.T) {
	t.Parallel()
	s := sms.Session{Leg: uuid.New(), ID: "msg/1"}
	for _, tt := range []struct {
		status int
		body   string
		want   sms.Report
	}{
		{200, `{"success":true,"data":{"status":"initiated"}}`, sms.Report{State: sms.LegAccepted, Key: "msg/1 initiated"}},
		{200, `{"success":true,"data":{"status":"delivered","failureReason":null}}`, sms.Report{State: sms.LegDelivered, Key: "msg/1 delivered"}},
		{200, `{"success":true,"data":{"status":"failed","failureReason":"+91"}}`, sms.Report{State: sms.LegFailed, Class: sms.RecipientUnreachable, Code: "failed", Key: "msg/1 failed"}},
		{200, `{"success":true,"data":{"status":"expired"}}`, sms.Report{State: sms.LegExpired, Class: sms.RecipientUnreachable, Code: "expired", Key: "msg/1 expired"}},
		{200, `{"success":true,"data":{"status":"lost"}}`, sms.Report{}},
		{200, `{"success":false,"data":{"status":"delivered"}}`, sms.Report{}},
		{404, `{"success":false,"error":{"code":"NOT_FOUND"}}`, sms.Report{}},
		{200, `<html>`, sms.Report{}},
	} {
		address, _ := says(t, tt.status, tt.body)
		poller, ok := vendor(t, startmessaging.Config{Mode: "message", BaseURL: address, AppName: "Acme"}).(sms.Poller)
		if !ok {
			t.Fatal("not a poller")
		}
		if tt.want.State != "" {
			tt.want.Leg, tt.want.Ref = s.Leg, s.ID
		}
		if got, err := poller.Poll(t.Context(), s); got != tt.want || (err != nil) != (tt.want.State == "") {
			t.Errorf("%s: %+v, %v; want %+v", tt.body, got, err, tt.want)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		c    startmessaging.Config
		want string
	}{
		{startmessaging.Config{Key: "k"}, "mode"}, {startmessaging.Config{Mode: "managed"}, "key"}, {startmessaging.Config{Mode: "message", Key: "k"}, "template"},
		{startmessaging.Config{Mode: "managed", Key: "k", BaseURL: "http://example.com"}, "https"},
	} {
		if _, err := startmessaging.New("sm", tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v does not speak of %s", err, tt.want)
		}
	}
	if a := vendor(t, startmessaging.Config{Mode: "managed", Idempotent: true}).Abilities(); a.Idempotency != sms.Replay || a.Kind != sms.Verifier || a.Countries[0] != "IN" {
		t.Errorf("abilities %+v", a)
	}
}
