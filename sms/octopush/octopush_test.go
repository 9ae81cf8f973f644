package octopush_test

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
	"github.com/watchword-auth/watchword/sms/octopush"
	"github.com/watchword-auth/watchword/sms/smstest"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"codes", "errors"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			smstest.Run(t, smstest.Driver{
				Dialect: "octopush", Unsigned: true, Inbound: true, Phone: "+33612345",
				Classes: []sms.Class{
					sms.InvalidRecipient, sms.InvalidSender, sms.Misconfigured, sms.ContentRejected, sms.Unauthorized, sms.InsufficientFunds, sms.RateLimited, sms.Temporary,
				},
				Prepare: func(_ testing.TB, sim *carriersim.Simulator) {
					a := sim.Account("octopush")
					a.Mode = mode
					sim.SetAccount("octopush", a)
				},
				New: func(t testing.TB, s smstest.Setup) sms.Vendor {
					return vendor(t, octopush.Config{BaseURL: s.BaseURL, Login: s.Account.ID, Key: s.Account.Secret, WebhookToken: s.Token, Voice: true, Replies: true})
				},
			})
		})
	}
}

func vendor(t testing.TB, c octopush.Config) *octopush.Gateway {
	t.Helper()
	if c.Sender == "" {
		c.Sender = "ACME"
	}
	g, err := octopush.New("octopush", c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func leg(t testing.TB, channel sms.Channel) sms.Leg {
	t.Helper()
	to, err := sms.ParseNumber("+33612345678", "")
	if err != nil {
		t.Fatal(err)
	}
	return sms.Leg{ID: uuid.New(), To: to, Channel: channel, Text: "482910 is your code.", Code: "482910", Locale: "fr", Life: 5 * time.Minute}
}

// What is not clearly a success is none, and what is clearly a refusal is no mystery.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		status  int
		body    string
		ref     string
		class   sms.Class // "": success
		code    string
		reached sms.Reached
	}{
		{"older success", 200, `{"sms_ticket":"sms_5fec89fe97109","number_of_contacts":1,"total_cost":0.0333}`, "sms_5fec89fe97109", "", "", 0},
		{"created", 201, `{"sms_ticket":"sms_1"}`, "sms_1", "", "", 0},
		{"repeat by number", 400, `{"code":120}`, "", "", "", 0},
		{"repeat by text", 400, `{"error_code":"120"}`, "", "", "", 0},
		{"repeat by field", 422, `{"errors":{"request_id":["The request id has already been taken."]}}`, "", "", "", 0},
		{"bad id", 422, `{"errors":{"request_id":["too long"]}}`, "", sms.Ambiguous, "request_id", sms.MaybeSent},
		{"another field", 422, `{"errors":{"sender":["already"]}}`, "", sms.Misconfigured, "http_422", sms.NotSent},
		{"list of errors", 400, `{"errors":["request_id already used"]}`, "", sms.Misconfigured, "http_400", sms.NotSent},
		{"no ticket", 200, `{"number_of_contacts":1}`, "", sms.Ambiguous, "no_ticket", sms.MaybeSent},
		{"null", 200, `null`, "", sms.Ambiguous, "no_ticket", sms.MaybeSent},
		{"another product's ticket", 200, `{"vocal_ticket":"vocal_1"}`, "", sms.Ambiguous, "no_ticket", sms.MaybeSent},
		{"refused with 200", 200, `{"code":"104"}`, "", sms.InsufficientFunds, "104", sms.NotSent},
		{"ticket and code", 200, `{"sms_ticket":"sms_1","code":104}`, "", sms.Ambiguous, "no_ticket", sms.MaybeSent},
		{"id among the fields of a success", 200, `{"errors":{"request_id":"already"}}`, "", sms.Ambiguous, "no_ticket", sms.MaybeSent},
		{"unknown code", 400, `{"code":999,"message":"+33612345678"}`, "", sms.Misconfigured, "http_400", sms.NotSent},
		{"a number for a code", 400, `{"code":"+33612345678"}`, "", sms.Misconfigured, "http_400", sms.NotSent},
		{"account not validated", 403, `{"code":113}`, "", sms.Unauthorized, "113", sms.NotSent},
		{"page", 403, `<html>`, "", sms.Unauthorized, "http_403", sms.NotSent},
		{"broken", 502, `<html>`, "", sms.Temporary, "http_502", sms.MaybeSent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			defer server.Close()
			got, err := vendor(t, octopush.Config{BaseURL: server.URL, Login: "a@example.com", Key: "k"}).Send(t.Context(), leg(t, sms.SMS))
			e, failed := errors.AsType[*sms.Error](err)
			switch {
			case tt.class == "" && (err != nil || got.Ref != tt.ref):
				t.Errorf("Send = %+v, %v; want %q", got, err, tt.ref)
			case tt.class != "" && (!failed || e.Class != tt.class || e.Code != tt.code || e.Reached != tt.reached):
				t.Errorf("Send = %+v, %+v; want %s %s", got, err, tt.class, tt.code)
			}
		})
	}
}

// A text that were wholesale would need a STOP notice; voice wants a language with a region.
func TestRequest(t *testing.T) {
	t.Parallel()
	var body map[string]any
	var path string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, path = nil, r.URL.Path
		if json.NewDecoder(r.Body).Decode(&body) != nil || r.Header.Get("cache-control") != "no-cache" {
			w.WriteHeader(http.StatusTeapot)
		}
		io.WriteString(w, `{"sms_ticket":"sms_1","vocal_ticket":"vocal_1"}`)
	}))
	defer server.Close()
	g := vendor(t, octopush.Config{BaseURL: server.URL, Login: "a@example.com", Key: "k", Voice: true})
	l := leg(t, sms.SMS)
	if got, err := g.Send(t.Context(), l); err != nil || got.Ref != "sms_1" || path != "/sms-campaign/send" {
		t.Fatalf("Send = %+v, %v to %s", got, err, path)
	}
	for field, want := range map[string]any{"purpose": "alert", "type": "sms_premium", "sender": "ACME", "request_id": l.ID.String(), "simulation_mode": false} {
		if body[field] != want {
			t.Errorf("%s = %v, want %v", field, body[field], want)
		}
	}
	for locale, want := range map[string]string{"fr": "fr-FR", "de-AT": "de-AT", "en": "en-US", "": "en-US", "zh-Hant": "zh-TW"} {
		l := leg(t, sms.Voice)
		l.Locale, l.Sender = locale, "OTHER"
		if got, err := g.Send(t.Context(), l); err != nil || got.Ref != "vocal_1" || path != "/vocal-campaign/send" {
			t.Fatalf("Send = %+v, %v to %s", got, err, path)
		}
		if body["voice_language"] != want || body["type"] != "vocal_sms" || body["sender"] != "OTHER" {
			t.Errorf("locale %q: %v, want language %s", locale, body, want)
		}
	}
}

func TestReceive(t *testing.T) {
	t.Parallel()
	g := vendor(t, octopush.Config{Login: "a@example.com", Key: "k", WebhookToken: "token"})
	receive := func(body string) (sms.Received, error) {
		return g.Receive(sms.Webhook{Method: http.MethodPost, Body: []byte(body), Token: "token"})
	}
	for status, want := range map[string]sms.Report{
		"ACK": {State: sms.LegSent}, "READ": {State: sms.LegDelivered}, "BAD_DESTINATION": {State: sms.LegFailed, Class: sms.InvalidRecipient, Code: "BAD_DESTINATION"},
		"BLACKLISTED_NUMBER": {State: sms.LegFailed, Class: sms.RecipientOptedOut, Code: "BLACKLISTED_NUMBER"},
		"NOT_ALLOWED":        {State: sms.LegRejected, Class: sms.Misconfigured, Code: "NOT_ALLOWED"}, "BUSY": {State: sms.LegUndelivered, Class: sms.RecipientUnreachable, Code: "BUSY"},
		"UNKNOWN_DELIVERY": {}, "UNDEFINED": {}, "delivered": {},
	} {
		got, err := receive(`{"channel":"sms","message_id":"sms_5fec89fe97109","number":"+33612345678","status":"` + status + `","delivery_date":"2026-01-22 11:46:06","list_name":"","unit_price":0.0333,"meta_data":{}}`)
		if err != nil {
			t.Fatal(err)
		}
		if want.State == "" {
			if len(got.Reports) != 0 {
				t.Errorf("%s: %+v, want no report", status, got)
			}
			continue
		}
		want.Ref, want.Key = "sms_5fec89fe97109", "sms_5fec89fe97109 "+status
		if len(got.Reports) != 1 || got.Reports[0] != want {
			t.Errorf("%s: %+v, want %+v", status, got.Reports, want)
		}
	}
	const reply = `{"message_id":"sms_1","number":"+33612345678","text":"%","sim_card_number":"33700000000","reception_date":"2026-01-22 11:46:06"}`
	first, err := receive(strings.Replace(reply, "%", "hello", 1))
	if err != nil || len(first.Inbound) != 1 || first.Inbound[0].To != "33700000000" || first.Inbound[0].Keyword != "" {
		t.Fatalf("reply: %+v, %v", first, err)
	}
	again, _ := receive(strings.Replace(reply, "%", "hello", 1))
	other, _ := receive(strings.Replace(reply, "%", "stop", 1))
	if again.Inbound[0].Key != first.Inbound[0].Key || other.Inbound[0].Key == first.Inbound[0].Key {
		t.Errorf("keys %q, %q, %q: want the same for the same alone", first.Inbound[0].Key, again.Inbound[0].Key, other.Inbound[0].Key)
	}
	// STOP counts whatever was written.
	stop, err := receive(`{"message_id":"sms_1","number":"33612345678","text":"NON MERCI","stop_date":"2026-01-22 11:46:06"}`)
	if err != nil || len(stop.Inbound) != 1 || stop.Inbound[0].Keyword != sms.KeywordStop || stop.Inbound[0].From.Reveal() != "+33612345678" {
		t.Errorf("STOP: %+v, %v", stop, err)
	}
	for _, body := range []string{
		`{"message_id":"sms_1","status":"DELIVERED"}{}`, `{"status":"DELIVERED"}`, `{"message_id":"sms_1","number":"+1","text":"x","stop_date":"y"}`,
		`{"message_id":"sms_1","number":"+33612345678","text":"x"}`, `{"message_id":1,"status":"DELIVERED"}`,
	} {
		if got, err := receive(body); !errors.Is(err, sms.ErrMalformed) {
			t.Errorf("%s: %+v, %v; want ErrMalformed", body, got, err)
		}
	}
	// Without a token nothing is believed.
	open := vendor(t, octopush.Config{Login: "a@example.com", Key: "k"})
	if _, err := open.Receive(sms.Webhook{Body: []byte(`{"message_id":"sms_1","status":"DELIVERED"}`)}); !errors.Is(err, sms.ErrForged) {
		t.Errorf("no token configured: %v, want ErrForged", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := octopush.New("o", octopush.Config{BaseURL: "http://example.com", Sender: "A!", Quality: "best", VoiceGender: "x"})
	for _, want := range []string{"https", "login", "sender", "quality", "voice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not speak of %s", err, want)
		}
	}
}
