package messagecentral_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/messagecentral"
	"github.com/watchword-auth/watchword/sms/smstest"
)

// The suite with either kind of token, and with failures in 200 and in statuses of their own.
func TestSuite(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, mode string
		dashboard  bool
	}{{"password", "", false}, {"dashboard", "", true}, {"statuses", "status", false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			smstest.Run(t, smstest.Driver{
				Dialect: "message-central", NoStates: true, WrongTries: 3,
				Classes: []sms.Class{sms.InvalidRecipient, sms.RateLimited, sms.Misconfigured, sms.Unauthorized, sms.BlockedFraud},
				Prepare: func(_ testing.TB, sim *carriersim.Simulator) {
					a := sim.Account("message-central")
					a.Mode = tt.mode
					sim.SetAccount("message-central", a)
				},
				New: func(t testing.TB, s smstest.Setup) sms.Vendor {
					c := messagecentral.Config{BaseURL: s.BaseURL, Customer: s.Account.ID, Password: s.Account.Secret, Country: "1", Email: "otp@example.com", Now: s.Now}
					if tt.dashboard {
						c = messagecentral.Config{BaseURL: s.BaseURL, Token: s.Account.Secret}
					}
					v := vendor(t, c)
					v.Ping(t.Context()) //nolint:errcheck // so that the calls that are spoilt are not those for a token
					return v
				},
			})
		})
	}
}

func vendor(t testing.TB, c messagecentral.Config) *messagecentral.Verify {
	t.Helper()
	v, err := messagecentral.New("mc", c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func leg(t testing.TB, number string) sms.Leg {
	t.Helper()
	to, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	return sms.Leg{ID: uuid.New(), To: to, Channel: sms.SMS, Life: 5 * time.Minute}
}

// says is a server that gives every call the same answer.
func says(t testing.TB, status int, body string) *messagecentral.Verify {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return vendor(t, messagecentral.Config{BaseURL: server.URL, Token: "dashboard-token"})
}

// The real API: parameters in the query, no body, country and number apart.
func TestRequest(t *testing.T) {
	t.Parallel()
	var seen *http.Request
	var length int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen, length = r, r.ContentLength
		io.WriteString(w, `{"responseCode":200,"message":"SUCCESS","data":{"verificationId":"1234567","mobileNumber":"9876543210","responseCode":"200","errorMessage":null,"timeout":"60","smCLI":null,"transactionId":"b2c1"}}`)
	}))
	defer server.Close()
	v := vendor(t, messagecentral.Config{BaseURL: server.URL, Token: "dashboard-token", Customer: "C-1"})
	for number, want := range map[string][2]string{
		"+919876543210": {"91", "9876543210"}, "+33612345678": {"33", "612345678"}, "+12025550143": {"1", "2025550143"}, "+2250701020304": {"225", "0701020304"},
		"+393123456789": {"39", "3123456789"}, "+18765551234": {"1", "8765551234"},
	} {
		got, err := v.Send(t.Context(), leg(t, number))
		if err != nil || got != (sms.Accepted{Ref: "1234567", Session: "1234567"}) {
			t.Fatalf("Send = %+v, %v", got, err)
		}
		q := seen.URL.Query()
		if seen.Method != http.MethodPost || seen.URL.Path != "/verification/v3/send" || length > 0 || seen.Header.Get("authToken") != "dashboard-token" {
			t.Errorf("called %s %s with %d bytes", seen.Method, seen.URL.Path, length)
		}
		if q.Get("countryCode") != want[0] || q.Get("mobileNumber") != want[1] || q.Get("otpLength") != "6" || q.Get("flowType") != "SMS" || q.Get("customerId") != "C-1" {
			t.Errorf("%s: sent %v, want %v", number, q, want)
		}
	}
	v.Check(t.Context(), sms.Session{ID: "12&3"}, "48 2910") //nolint:errcheck // what was asked is looked at below
	if q := seen.URL.Query(); seen.Method != http.MethodGet || seen.URL.Path != "/verification/v3/validateOtp" || q.Get("verificationId") != "12&3" || q.Get("code") != "48 2910" {
		t.Errorf("checked by %s %s", seen.Method, seen.URL)
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		status  int
		body    string
		session string
		class   sms.Class // "": success
		code    string
		reached sms.Reached
		wait    time.Duration
	}{
		{name: "id as a number", status: 200, body: `{"responseCode":"200","data":{"verificationId":12345678901234567,"responseCode":200,"timeout":60}}`, session: "12345678901234567"},
		{name: "created", status: 201, body: `{"responseCode":200,"data":{"verificationId":"7"}}`, session: "7"},
		{name: "no id", status: 200, body: `{"responseCode":200,"data":{}}`, class: sms.Ambiguous, code: "no_id"},
		{name: "no data", status: 200, body: `{"responseCode":200,"data":"7"}`, class: sms.Ambiguous, code: "no_id"},
		{name: "no code", status: 200, body: `{"data":{"verificationId":"7"}}`, class: sms.Ambiguous, code: "unknown_code"},
		{name: "null", status: 200, body: `null`, class: sms.Ambiguous, code: "unknown_code"},
		{name: "unknown code", status: 200, body: `{"responseCode":999,"message":"+919876543210"}`, class: sms.Ambiguous, code: "unknown_code"},
		{name: "a text for a code", status: 200, body: `{"responseCode":"OK","data":{"verificationId":"7"}}`, class: sms.Ambiguous, code: "unknown_code"},
		{
			name: "open, in 200", status: 200, body: `{"responseCode":506,"message":"REQUEST_ALREADY_EXISTS","data":{"verificationId":"6","timeout":"45"}}`,
			class: sms.RateLimited, code: "506", reached: sms.NotSent, wait: 45 * time.Second,
		},
		{name: "open, in 400", status: 400, body: `{"responseCode":506,"data":null}`, class: sms.RateLimited, code: "506", reached: sms.NotSent, wait: time.Minute},
		{name: "open, inside", status: 200, body: `{"responseCode":200,"data":{"responseCode":"506","verificationId":"6"}}`, class: sms.RateLimited, code: "506", reached: sms.NotSent, wait: time.Minute},
		{name: "limit", status: 200, body: `{"responseCode":800}`, class: sms.RateLimited, code: "800", reached: sms.NotSent, wait: 10 * time.Minute},
		{name: "broken, in 200", status: 200, body: `{"responseCode":500,"message":"SERVER_ERROR"}`, class: sms.Temporary, code: "500", reached: sms.MaybeSent},
		{name: "duplicate", status: 200, body: `{"responseCode":409,"data":{"verificationId":"7"}}`, class: sms.Ambiguous, code: "409", reached: sms.MaybeSent},
		{name: "customer", status: 200, body: `{"responseCode":501}`, class: sms.Unauthorized, code: "501", reached: sms.NotSent},
		{name: "country", status: 200, body: `{"responseCode":"511"}`, class: sms.InvalidRecipient, code: "511", reached: sms.NotSent},
		{name: "number by name", status: 400, body: `{"responseCode":400,"message":"INVALID_NUMBER"}`, class: sms.InvalidRecipient, code: "invalid_number", reached: sms.NotSent},
		{name: "fraud", status: 403, body: `{"error":"FRAUD_DETECTED"}`, class: sms.BlockedFraud, code: "fraud_detected", reached: sms.NotSent},
		{name: "token", status: 401, body: `{"status":401,"error":"Unauthorized"}`, class: sms.Unauthorized, code: "http_401", reached: sms.NotSent},
		{name: "token, in 200", status: 200, body: `{"responseCode":401}`, class: sms.Unauthorized, code: "401", reached: sms.NotSent},
		{name: "throttle", status: 429, body: ``, class: sms.RateLimited, code: "http_429", reached: sms.NotSent},
		{name: "success in a failure", status: 500, body: `{"responseCode":200,"data":{"verificationId":"7"}}`, class: sms.Temporary, code: "http_500", reached: sms.MaybeSent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := says(t, tt.status, tt.body).Send(t.Context(), leg(t, "+919876543210"))
			e, failed := errors.AsType[*sms.Error](err)
			switch {
			case tt.class == "" && (err != nil || got.Session != tt.session || got.Ref != tt.session):
				t.Errorf("Send = %+v, %v; want %q", got, err, tt.session)
			case tt.class != "" && (!failed || e.Class != tt.class || e.Code != tt.code || e.Reached != tt.reached || e.RetryAfter != tt.wait):
				t.Errorf("Send = %+v, %+v; want %s %s", got, e, tt.class, tt.code)
			}
		})
	}
}

// Nothing passes but a completed verification of this very session with every code at 200.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		body   string
		want   sms.Verdict
		class  sms.Class
	}{
		{200, `{"responseCode":200,"message":"SUCCESS","data":{"verificationId":7,"mobileNumber":"9876543210","responseCode":"200","errorMessage":null,"verificationStatus":"VERIFICATION_COMPLETED","authToken":null}}`, sms.Approved, ""},
		{200, `{"responseCode":"200","data":{"verificationStatus":"VERIFICATION_COMPLETED"}}`, sms.Approved, ""},
		{200, `{"responseCode":200,"data":{"verificationId":"8","verificationStatus":"VERIFICATION_COMPLETED"}}`, sms.Denied, ""},
		{200, `{"responseCode":200,"data":{"responseCode":"702","verificationStatus":"VERIFICATION_COMPLETED"}}`, sms.Denied, ""},
		{200, `{"data":{"responseCode":"200","verificationStatus":"VERIFICATION_COMPLETED"}}`, sms.Denied, ""},
		{200, `{"responseCode":200,"data":{"verificationStatus":"VERIFIED"}}`, sms.Denied, ""},
		{200, `{"responseCode":200,"data":{"verificationStatus":"VERIFICATION_PENDING"}}`, sms.Denied, ""},
		{200, `{"responseCode":200,"data":{"verificationStatus":"FAILED"}}`, sms.Denied, ""},
		{200, `{"responseCode":200,"verificationStatus":"VERIFICATION_COMPLETED"}`, sms.Denied, ""},
		{200, `{"responseCode":999,"data":{"verificationStatus":"VERIFICATION_COMPLETED"}}`, sms.Denied, ""},
		{200, `{}`, sms.Denied, ""},
		{200, `{"responseCode":700}`, sms.Denied, ""},
		{400, `{"responseCode":702,"message":"WRONG_OTP_PROVIDED"}`, sms.Denied, ""},
		{200, `{"responseCode":703,"data":{"verificationStatus":"VERIFICATION_COMPLETED"}}`, sms.Gone, ""},
		{200, `{"responseCode":505}`, sms.Gone, ""},
		{400, `{"responseCode":"705"}`, sms.TimedOut, ""},
		{200, `{"responseCode":800}`, sms.Exhausted, ""},
		{400, `{"responseCode":200,"data":{"verificationStatus":"VERIFICATION_COMPLETED"}}`, sms.Denied, sms.Misconfigured},
		{500, `{"responseCode":200,"data":{"verificationStatus":"VERIFICATION_COMPLETED"}}`, sms.Denied, sms.Temporary},
		{200, `{"responseCode":500}`, sms.Denied, sms.Temporary},
		{200, `{"responseCode":501}`, sms.Denied, sms.Unauthorized},
		{401, ``, sms.Denied, sms.Unauthorized},
		{405, ``, sms.Denied, sms.Misconfigured},
		{200, `<html>`, sms.Denied, sms.Ambiguous},
		{200, `{"responseCode":200}{"responseCode":200}`, sms.Denied, sms.Ambiguous},
	} {
		got, err := says(t, tt.status, tt.body).Check(t.Context(), sms.Session{ID: "7"}, "482910")
		e, failed := errors.AsType[*sms.Error](err)
		if got != tt.want || failed != (tt.class != "") || failed && e.Class != tt.class {
			t.Errorf("%d %s: %v, %v; want %v, %q", tt.status, tt.body, got, err, tt.want, tt.class)
		}
	}
}

// Some accounts check by POST alone. What the vendor's article calls approval is none.
func TestModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]sms.Verdict{"post": sms.Approved, "short": sms.Approved, "article": sms.Denied} {
		sim := carriersim.New(carriersim.Options{Now: func() time.Time { return smstest.Noon }})
		server := httptest.NewServer(sim)
		defer server.Close()
		a := sim.Account("message-central")
		a.Mode = mode
		sim.SetAccount("message-central", a)
		v := vendor(t, messagecentral.Config{BaseURL: server.URL + "/message-central", Customer: a.ID, Password: a.Secret, Now: func() time.Time { return smstest.Noon }})
		l := leg(t, "+919876543210")
		sent, err := v.Send(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		text := sim.Messages("+919876543210")[0].Text
		code := text[strings.LastIndex(text, " ")+1:]
		if len(code) != 6 {
			t.Errorf("%s: the code has %d digits, want 6", mode, len(code))
		}
		if again, err := v.Send(t.Context(), l); err == nil {
			t.Errorf("%s: a second send within a minute: %+v", mode, again)
		}
		s := sms.Session{Leg: l.ID, ID: sent.Session, To: l.To, Channel: l.Channel}
		if got, err := v.Check(t.Context(), s, code); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", mode, got, err, want)
		}
		if got, err := v.Check(t.Context(), s, code); got != sms.Gone || err != nil {
			t.Errorf("%s: again: %v, %v; want gone", mode, got, err)
		}
	}
}

// tokens is a vendor whose tokens are numbered, and the newest of which alone is good.
type tokens struct {
	fetched, sent atomic.Int32
	good          atomic.Int32 // the number of the good one; 0: the newest
	life          time.Duration
	refusal       int
	answer        string // to requests for tokens, instead of one
}

func (s *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/auth/") {
		n := s.fetched.Add(1)
		if s.answer != "" {
			io.WriteString(w, s.answer)
			return
		}
		claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"n":%d,"exp":%d}`, n, smstest.Noon.Add(s.life).Unix()))
		fmt.Fprintf(w, `{"status":200,"token":"x.%s.y"}`, claims)
		return
	}
	good := s.good.Load()
	if good == 0 {
		good = s.fetched.Load()
	}
	claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(r.Header.Get("authToken"), ".")[1])
	if !strings.HasPrefix(string(claims), fmt.Sprintf(`{"n":%d,`, good)) {
		w.WriteHeader(s.refusal)
		return
	}
	s.sent.Add(1)
	io.WriteString(w, `{"responseCode":200,"data":{"verificationId":"7"}}`)
}

func (s *tokens) vendor(t testing.TB, now func() time.Time) *messagecentral.Verify {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return vendor(t, messagecentral.Config{BaseURL: server.URL, Customer: "C-1", Password: "p", Now: now})
}

func TestTokens(t *testing.T) {
	t.Parallel()
	t.Run("kept until a minute before they end", func(t *testing.T) {
		t.Parallel()
		s := &tokens{life: time.Hour, refusal: 401}
		at := smstest.Noon
		v := s.vendor(t, func() time.Time { return at })
		for _, tt := range []struct {
			at   time.Duration
			want int32
		}{{0, 1}, {58 * time.Minute, 1}, {59 * time.Minute, 2}} {
			at = smstest.Noon.Add(tt.at)
			if _, err := v.Send(t.Context(), leg(t, "+919876543210")); err != nil || s.fetched.Load() != tt.want {
				t.Errorf("after %v: %v, %d tokens, want %d", tt.at, err, s.fetched.Load(), tt.want)
			}
		}
	})
	for _, refusal := range []int{401, 403} {
		t.Run(fmt.Sprintf("fetched once more after %d", refusal), func(t *testing.T) {
			t.Parallel()
			s := &tokens{life: time.Hour, refusal: refusal}
			v := s.vendor(t, func() time.Time { return smstest.Noon })
			s.good.Store(2)
			if _, err := v.Send(t.Context(), leg(t, "+919876543210")); err != nil || s.fetched.Load() != 2 || s.sent.Load() != 1 {
				t.Errorf("%v, %d tokens, %d sent; want the second to do it", err, s.fetched.Load(), s.sent.Load())
			}
			s.good.Store(99)
			_, err := v.Send(t.Context(), leg(t, "+919876543210"))
			if e, ok := errors.AsType[*sms.Error](err); !ok || e.Class != sms.Unauthorized || e.Reached != sms.NotSent || s.fetched.Load() != 3 {
				t.Errorf("%v, %d tokens; want unauthorized after one more", err, s.fetched.Load())
			}
		})
	}
	t.Run("fetched once for all", func(t *testing.T) {
		t.Parallel()
		s := &tokens{life: time.Hour, refusal: 401}
		v := s.vendor(t, func() time.Time { return smstest.Noon })
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := v.Send(t.Context(), leg(t, "+919876543210")); err != nil {
					t.Error(err)
				}
			})
		}
		if all.Wait(); s.fetched.Load() != 1 {
			t.Errorf("%d tokens, want 1", s.fetched.Load())
		}
	})
	for answer, want := range map[string]sms.Class{
		`{"status":400,"error":"customerId is invalid"}`: sms.Unauthorized, `{"status":"401"}`: sms.Unauthorized, `{"status":200}`: sms.Temporary,
		`{"status":400,"token":"x.e30.y"}`: sms.Unauthorized, `{"token":"x.e30.y"}`: sms.Temporary, `<html>`: sms.Temporary, `{"status":500}`: sms.Temporary,
		`{"status":429}`: sms.RateLimited,
	} {
		t.Run("refused as "+answer, func(t *testing.T) {
			t.Parallel()
			s := &tokens{answer: answer}
			_, err := s.vendor(t, func() time.Time { return smstest.Noon }).Send(t.Context(), leg(t, "+919876543210"))
			if e, ok := errors.AsType[*sms.Error](err); !ok || e.Class != want || e.Reached != sms.NotSent || s.sent.Load() != 0 {
				t.Errorf("%+v, want %s and nothing sent", e, want)
			}
		})
	}
}

// Tokens that are about to end are never kept.
func TestShortTokens(t *testing.T) {
	t.Parallel()
	s := &tokens{life: 30 * time.Second, refusal: 401}
	v := s.vendor(t, func() time.Time { return smstest.Noon })
	for range 2 {
		if _, err := v.Send(t.Context(), leg(t, "+919876543210")); err != nil {
			t.Fatal(err)
		}
	}
	if s.fetched.Load() != 2 {
		t.Errorf("%d tokens, want one for each call", s.fetched.Load())
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := messagecentral.New("mc", messagecentral.Config{BaseURL: "http://example.com", Country: "+91"})
	for _, want := range []string{"https", "token", "clock", "country"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not speak of %s", err, want)
		}
	}
}
