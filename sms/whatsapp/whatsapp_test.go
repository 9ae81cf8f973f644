package whatsapp_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/smstest"
	"github.com/watchword-auth/watchword/sms/whatsapp"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	smstest.Run(t, smstest.Driver{
		Dialect: "whatsapp", Inbound: true,
		Classes: []sms.Class{
			sms.Unauthorized, sms.Misconfigured, sms.RateLimited, sms.Temporary, sms.RecipientUnreachable, sms.RegionBlocked, sms.InsufficientFunds,
		},
		New: func(t testing.TB, s smstest.Setup) sms.Vendor {
			v, err := whatsapp.New("whatsapp", whatsapp.Config{
				BaseURL: s.BaseURL, Version: "v23.0", PhoneNumberID: s.Account.ID, Token: s.Account.Secret, Template: "login_code", AppSecret: s.Account.Signing, VerifyToken: "verify",
			})
			if err != nil {
				t.Fatal(err)
			}
			return v
		},
	})
}

func driver(t *testing.T, change func(*whatsapp.Config)) *whatsapp.WhatsApp {
	t.Helper()
	c := whatsapp.Config{Version: "v23.0", PhoneNumberID: "106540352242922", Token: "token", Template: "login_code", AppSecret: "app_secret", VerifyToken: "verify-token"}
	change(&c)
	v, err := whatsapp.New("whatsapp", c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func unchanged(*whatsapp.Config) {}

// Meta publishes no vector: this one was computed by hand from the description of the signature.
func TestSignature(t *testing.T) {
	t.Parallel()
	const (
		body      = `{"object":"whatsapp_business_account","entry":[]}`
		signature = "sha256=c236c758c9b2bd40b388a550eeca09eaca72384dd0aa5e7c31d19cddac5bba46"
	)
	hook := func(signature, body string) sms.Webhook {
		return sms.Webhook{Method: http.MethodPost, Header: http.Header{"X-Hub-Signature-256": {signature}}, Body: []byte(body)}
	}
	if got, err := driver(t, unchanged).Receive(hook(signature, body)); err != nil || len(got.Reports)+len(got.Inbound) != 0 {
		t.Errorf("Receive = %+v, %v", got, err)
	}
	for what, refused := range map[string]struct {
		v    *whatsapp.WhatsApp
		hook sms.Webhook
	}{
		"another body":      {driver(t, unchanged), hook(signature, body+" ")},
		"another signature": {driver(t, unchanged), hook(strings.Replace(signature, "c2", "c3", 1), body)},
		"no scheme":         {driver(t, unchanged), hook(strings.TrimPrefix(signature, "sha256="), body)},
		"nothing":           {driver(t, unchanged), hook("sha256=", body)},
		"another secret":    {driver(t, func(c *whatsapp.Config) { c.AppSecret = "app_secreu" }), hook(signature, body)},
		"no secret":         {driver(t, func(c *whatsapp.Config) { c.AppSecret = "" }), hook(signature, body)},
		"empty key":         {driver(t, func(c *whatsapp.Config) { c.AppSecret = "" }), signed("", body)},
	} {
		if _, err := refused.v.Receive(refused.hook); !errors.Is(err, sms.ErrForged) {
			t.Errorf("%s: %v, want ErrForged", what, err)
		}
	}
}

func signed(secret, body string) sms.Webhook {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return sms.Webhook{Method: http.MethodPost, Header: http.Header{"X-Hub-Signature-256": {fmt.Sprintf("sha256=%x", mac.Sum(nil))}}, Body: []byte(body)}
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	const address = "https://id.example/v1/delivery-reports/whatsapp/token?"
	v := driver(t, unchanged)
	get := func(v *whatsapp.WhatsApp, query string) (sms.Received, error) {
		return v.Receive(sms.Webhook{Method: http.MethodGet, URL: address + query, Header: http.Header{}})
	}
	got, err := get(v, "hub.mode=subscribe&hub.verify_token=verify-token&hub.challenge=1158201444")
	if err != nil || string(got.Reply) != "1158201444" || !strings.HasPrefix(got.ReplyType, "text/plain") || len(got.Reports)+len(got.Inbound) != 0 {
		t.Errorf("Receive = %+v, %v", got, err)
	}
	for query, want := range map[string]error{
		"hub.mode=subscribe&hub.verify_token=verify-tokem&hub.challenge=1":                           sms.ErrForged,
		"hub.mode=subscribe&hub.challenge=1":                                                         sms.ErrForged,
		"hub.mode=unsubscribe&hub.verify_token=verify-token&hub.challenge=1":                         sms.ErrMalformed,
		"hub.mode=subscribe&hub.verify_token=verify-token":                                           sms.ErrMalformed,
		"hub.mode=subscribe&hub.verify_token=verify-token&hub.challenge=%3Cscript%3E":                sms.ErrMalformed,
		"hub.mode=subscribe&hub.verify_token=verify-token&hub.challenge=" + strings.Repeat("1", 200): sms.ErrMalformed,
	} {
		if got, err := get(v, query); !errors.Is(err, want) || got.Reply != nil {
			t.Errorf("%s: %q, %v; want %v", query, got.Reply, err, want)
		}
	}
	if _, err := get(driver(t, func(c *whatsapp.Config) { c.VerifyToken = "" }), "hub.mode=subscribe&hub.verify_token=&hub.challenge=1"); !errors.Is(err, sms.ErrForged) {
		t.Errorf("no token: %v, want ErrForged", err)
	}
}

// Meta gathers the news of many messages, of which some are of no use to us.
func TestBatch(t *testing.T) {
	t.Parallel()
	leg := uuid.New()
	body := `{"object":"whatsapp_business_account","entry":[
		{"id":"1","changes":[
			{"field":"messages","value":{"metadata":{"phone_number_id":"106"},"statuses":[
				{"id":"wamid.1","status":"sent","biz_opaque_callback_data":"` + leg.String() + `"},
				{"id":"wamid.1","status":"read"},
				{"id":"wamid.2","status":"failed","errors":[{"code":131026,"title":"+12025550143"}]},
				{"id":"wamid.3","status":"failed","errors":[{"code":132015}]},
				{"id":"wamid.4","status":"failed"},
				{"id":"wamid.5","status":"warning"},
				{"status":"delivered"}]}},
			{"field":"account_update","value":{"statuses":[{"id":"wamid.6","status":"sent"}]}}]},
		{"id":"2","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"106"},"messages":[
			{"id":"wamid.7","from":"12025550143","type":"text","text":{"body":"Stop"}},
			{"id":"wamid.8","from":"12025550143","type":"button","button":{"text":"It was not me"}},
			{"id":"wamid.9","from":"12025550143","type":"image"},
			{"id":"wamid.10","from":"0","type":"text","text":{"body":"x"}}]}}]}]}`
	v := driver(t, unchanged)
	got, err := v.Receive(signed("app_secret", body))
	if err != nil {
		t.Fatal(err)
	}
	want := []sms.Report{
		{Leg: leg, Ref: "wamid.1", State: sms.LegSent, Key: "wamid.1 sent"},
		{Ref: "wamid.1", State: sms.LegDelivered, Key: "wamid.1 read"},
		{Ref: "wamid.2", State: sms.LegFailed, Class: sms.RecipientUnreachable, Code: "131026", Key: "wamid.2 failed"},
		{Ref: "wamid.3", State: sms.LegFailed, Class: sms.Misconfigured, Code: "132015", Key: "wamid.3 failed"},
		{Ref: "wamid.4", State: sms.LegFailed, Class: sms.RecipientUnreachable, Key: "wamid.4 failed"},
	}
	if len(got.Reports) != len(want) {
		t.Fatalf("reports %+v, want %+v", got.Reports, want)
	}
	for i := range want {
		if got.Reports[i] != want[i] {
			t.Errorf("report %+v, want %+v", got.Reports[i], want[i])
		}
	}
	if len(got.Inbound) != 2 || got.Inbound[0].Text != "Stop" || got.Inbound[0].To != "106" || got.Inbound[0].From.Reveal() != "+12025550143" || got.Inbound[1].Key != "wamid.8" {
		t.Errorf("inbound %+v", got.Inbound)
	}
	for _, junk := range []string{"", "null", "[]", "{}", `{"object":"page","entry":[]}`, `{"object":"whatsapp_business_account"}{}`, `{"object":"whatsapp_business_account","entry":7}`} {
		if got, err := v.Receive(signed("app_secret", junk)); !errors.Is(err, sms.ErrMalformed) || len(got.Reports) > 0 {
			t.Errorf("body %q: %+v, %v; want ErrMalformed", junk, got, err)
		}
	}
}

func leg(t *testing.T, locale string) sms.Leg {
	t.Helper()
	n, err := sms.ParseNumber("+12025550143", "")
	if err != nil {
		t.Fatal(err)
	}
	return sms.Leg{ID: uuid.New(), To: n, Channel: sms.WhatsApp, Code: "482910", Locale: locale, Sender: "ACME"}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	var path, got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		path, got = r.URL.Path, string(body)
		io.WriteString(w, `{"messages":[{"id":"wamid.1"}]}`)
	}))
	t.Cleanup(server.Close)
	v := driver(t, func(c *whatsapp.Config) {
		c.BaseURL, c.Languages = server.URL, []string{"en_US", "de", "pt_BR", "zh_CN"}
	})
	for locale, want := range map[string]string{"en": "en_US", "en-GB": "en_US", "de-AT": "de", "pt": "pt_BR", "pt-BR": "pt_BR", "zh-Hans": "zh_CN", "is": "en_US", "": "en_US", "!": "en_US"} {
		l := leg(t, locale)
		if _, err := v.Send(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		full := `{"biz_opaque_callback_data":"` + l.ID.String() + `","messaging_product":"whatsapp","template":{"components":[{"type":"body","parameters":[{"type":"text","text":"482910"}]},` +
			`{"type":"button","sub_type":"url","index":"0","parameters":[{"type":"text","text":"482910"}]}],"language":{"code":"` + want + `"},"name":"login_code"},"to":"12025550143","type":"template"}`
		if path != "/v23.0/106540352242922/messages" || got != full {
			t.Errorf("locale %q: %s %s\nwant %s", locale, path, got, full)
		}
	}
	for _, code := range []string{"", "1234567890123456"} {
		l := leg(t, "en")
		l.Code = code
		_, err := v.Send(t.Context(), l)
		if e, ok := errors.AsType[*sms.Error](err); !ok || e.Class != sms.Misconfigured || e.Reached != sms.NotSent {
			t.Errorf("code %q: %v", code, err)
		}
	}
}

// The code decides, whatever the status is.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status  int
		body    string
		class   sms.Class
		code    string
		reached sms.Reached
	}{
		{200, `{"error":{"code":131056,"message":"+12025550143"}}`, sms.RateLimited, "131056", sms.NotSent},
		{200, `{"error":{"code":190},"messages":[{"id":"wamid.1"}]}`, sms.Unauthorized, "190", sms.NotSent},
		{200, `{"error":{"code":999999}}`, sms.Ambiguous, "999999", sms.MaybeSent},
		{200, `{"error":{},"messages":[{"id":"wamid.1"}]}`, sms.Ambiguous, "no_message_id", sms.MaybeSent},
		{200, `{"messages":[]}`, sms.Ambiguous, "no_message_id", sms.MaybeSent},
		{200, `{"messages":[{"id":""}]}`, sms.Ambiguous, "no_message_id", sms.MaybeSent},
		{200, `null`, sms.Ambiguous, "no_message_id", sms.MaybeSent},
		{200, ``, sms.Ambiguous, "answer_garbled", sms.MaybeSent},
		{400, `{"error":{"code":0}}`, sms.Unauthorized, "0", sms.NotSent},
		{400, `{"error":{"code":200}}`, sms.Unauthorized, "200", sms.NotSent},
		{400, `{"error":{"code":100}}`, sms.Misconfigured, "100", sms.NotSent},
		{400, `{"error":{"code":131008}}`, sms.Misconfigured, "131008", sms.NotSent},
		{400, `{"error":{"code":131026}}`, sms.RecipientUnreachable, "131026", sms.NotSent},
		{400, `{"error":{"code":130429}}`, sms.RateLimited, "130429", sms.NotSent},
		{500, `{"error":{"code":131000}}`, sms.Temporary, "131000", sms.NotSent},
		{500, `{"error":{"code":999999}}`, sms.Temporary, "999999", sms.MaybeSent},
		{400, `{"error":{"message":"482910"}}`, sms.Misconfigured, "http_400", sms.NotSent},
		{401, ``, sms.Unauthorized, "http_401", sms.NotSent},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		}))
		t.Cleanup(server.Close)
		_, err := driver(t, func(c *whatsapp.Config) { c.BaseURL = server.URL }).Send(t.Context(), leg(t, "en"))
		if e, ok := errors.AsType[*sms.Error](err); !ok || e.Class != tt.class || e.Code != tt.code || e.Reached != tt.reached {
			t.Errorf("%d %s: %v, want %s %s", tt.status, tt.body, err, tt.class, tt.code)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := whatsapp.Config{Version: "v23.0", PhoneNumberID: "1", Token: "secret-token", Template: "t"}
	if _, err := whatsapp.New("x", good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*whatsapp.Config){
		"version":      func(c *whatsapp.Config) { c.Version = "23" },
		"no version":   func(c *whatsapp.Config) { c.Version = "" },
		"phone number": func(c *whatsapp.Config) { c.PhoneNumberID = "+12025550143" },
		"no token":     func(c *whatsapp.Config) { c.Token = "" },
		"no template":  func(c *whatsapp.Config) { c.Template = "" },
		"language":     func(c *whatsapp.Config) { c.Languages = []string{"en_US", "!"} },
		"plain":        func(c *whatsapp.Config) { c.BaseURL = "http://graph.example" },
	} {
		c := good
		change(&c)
		if _, err := whatsapp.New("x", c); err == nil || strings.Contains(err.Error(), "secret-token") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
