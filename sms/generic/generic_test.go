package generic_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/generic"
	"github.com/watchword-auth/watchword/sms/smstest"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	smstest.Run(t, smstest.Driver{
		Dialect: "http", TimeSigned: true, Inbound: true,
		Classes: []sms.Class{
			sms.InvalidRecipient, sms.RecipientOptedOut, sms.RecipientUnreachable, sms.InvalidSender, sms.Misconfigured, sms.ContentRejected, sms.Unauthorized,
			sms.InsufficientFunds, sms.RateLimited, sms.BlockedFraud, sms.RegionBlocked, sms.Temporary,
		},
		New: func(t testing.TB, s smstest.Setup) sms.Vendor {
			v, err := generic.New("http", generic.Config{URL: s.BaseURL + "/send", Secret: s.Account.Secret, Sender: "ACME", Channels: []string{"sms", "voice"}, Now: s.Now})
			if err != nil {
				t.Fatal(err)
			}
			return v
		},
	})
}

// The vector that Standard Webhooks publishes.
func TestVector(t *testing.T) {
	t.Parallel()
	v, err := generic.New("http", generic.Config{URL: "https://sms.example", Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	hook := sms.Webhook{Method: http.MethodPost, Body: []byte(`{"test": 2432232314}`), At: time.Unix(1614265330, 0), Header: http.Header{}}
	hook.Header.Set(webhooks.HeaderWebhookID, "msg_p5jXN8AQM9LWM0D4loKWxJek")
	hook.Header.Set(webhooks.HeaderWebhookTimestamp, "1614265330")
	hook.Header.Set(webhooks.HeaderWebhookSignature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	if _, err := v.Receive(hook); err != sms.ErrMalformed { //nolint:errorlint // authentic, and not one of ours
		t.Errorf("Receive = %v, want ErrMalformed: the signature is right", err)
	}
	hook.Header.Set(webhooks.HeaderWebhookSignature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=")
	if _, err := v.Receive(hook); err != sms.ErrForged { //nolint:errorlint // as above
		t.Errorf("Receive = %v, want ErrForged", err)
	}
}

// A service with a contract of its own, by configuration.
func TestTemplates(t *testing.T) {
	t.Parallel()
	var got string
	var header http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := new(strings.Builder)
		b := make([]byte, 4096)
		n, _ := r.Body.Read(b)
		body.Write(b[:n])
		got, header = r.Method+" "+body.String(), r.Header
		w.Write([]byte(`{"result":[{"status":0,"id":77}]}`))
	}))
	t.Cleanup(server.Close)
	v, err := generic.New("acme", generic.Config{
		URL: server.URL, Method: http.MethodPut, Headers: []string{"X-Key: s3cret"}, Type: "application/x-www-form-urlencoded", Sender: "ACME",
		Body: "to={{.Digits}}&from={{.From}}&msg={{query .Text}}", CodeField: "result.0.status", ReferenceField: "result.0.id", SuccessCodes: []string{"0"}, Errors: []string{"9 = insufficient_funds"}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	to, err := sms.ParseNumber("+12025550143", "")
	if err != nil {
		t.Fatal(err)
	}
	taken, err := v.Send(t.Context(), sms.Leg{To: to, Text: "a&b=c", Channel: sms.SMS})
	if err != nil || taken.Ref != "77" || got != "PUT to=12025550143&from=ACME&msg=a%26b%3Dc" || header.Get("X-Key") != "s3cret" {
		t.Errorf("Send = %+v, %v; the service saw %q", taken, err, got)
	}
	if v.Abilities().Idempotency != sms.NoKey {
		t.Error("a service with a contract of its own is taken for idempotent")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]generic.Config{
		"no address":      {},
		"plain http":      {URL: "http://sms.example/"},
		"template":        {URL: "https://sms.example", Body: "{{"},
		"unknown field":   {URL: "https://sms.example", Body: "{{.Nothing}}"},
		"header":          {URL: "https://sms.example", Headers: []string{"no colon"}},
		"error rule":      {URL: "https://sms.example", Errors: []string{"9=broken"}},
		"channel":         {URL: "https://sms.example", Channels: []string{"pigeon"}},
		"secret":          {URL: "https://sms.example", Secret: "whsec_!"},
		"address with us": {URL: "https://user:secret@sms.example"},
	} {
		c.Now = time.Now
		if _, err := generic.New("x", c); err == nil || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
