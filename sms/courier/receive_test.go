package courier

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
)

func TestReports(t *testing.T) {
	t.Parallel()
	v, err := New("courier", Config{Token: "t", Secret: "s"})
	if err != nil {
		t.Fatal(err)
	}
	receive := func(body string) (sms.Received, error) {
		mac := hmac.New(sha256.New, []byte("s"))
		mac.Write([]byte("1000." + body))
		return v.Receive(sms.Webhook{Body: []byte(body), Header: http.Header{"Courier-Signature": {"t=1000,signature=" + hex.EncodeToString(mac.Sum(nil))}}, At: time.UnixMilli(1000)})
	}
	id := uuid.New()
	keys := map[string]bool{}
	for _, tt := range []struct {
		status, reason string
		state          sms.LegState
		class          sms.Class
		code           string
	}{
		{"ENQUEUED", `null`, sms.LegAccepted, "", ""},
		{"ROUTED", `null`, sms.LegAccepted, "", ""},
		{"DELAYED", `null`, sms.LegAccepted, "", ""},
		{"DIGESTED", `null`, sms.LegAccepted, "", ""},
		{"SENT", `null`, sms.LegSent, "", ""},
		{"DELIVERED", `null`, sms.LegDelivered, "", ""},
		{"OPENED", `null`, sms.LegDelivered, "", ""},
		{"CLICKED", `null`, sms.LegDelivered, "", ""},
		{"SIMULATED", `null`, sms.LegDelivered, "", "SIMULATED"},
		{"UNDELIVERABLE", `null`, sms.LegUndelivered, sms.RecipientUnreachable, "UNDELIVERABLE"},
		{"UNROUTABLE", `"NO_PROVIDERS"`, sms.LegRejected, sms.Misconfigured, "UNROUTABLE/NO_PROVIDERS"},
		{"UNMAPPED", `null`, sms.LegRejected, sms.Misconfigured, "UNMAPPED"},
		{"FILTERED", `"OPT_IN_REQUIRED"`, sms.LegRejected, sms.RecipientOptedOut, "FILTERED/OPT_IN_REQUIRED"},
		{"THROTTLED", `"FAILED"`, sms.LegRejected, sms.RateLimited, "THROTTLED/FAILED"},
		{"CANCELED", `null`, sms.LegFailed, sms.RecipientUnreachable, "CANCELED"},
		{"SOMETHING_NEW", `null`, "", "", ""},
	} {
		for _, trace := range []string{`"trace_id":"` + id.String() + `"`, `"metadata":{"trace_id":"` + id.String() + `"}`, `"providers":{}`} {
			got, err := receive(`{"type":"message:updated","data":{"id":"1-a","status":"` + tt.status + `","reason":` + tt.reason + `,` + trace + `}}`)
			if tt.state == "" {
				if err != nil || len(got.Reports) != 0 {
					t.Errorf("%s: %+v, %v; want nothing", tt.status, got, err)
				}
				continue
			}
			want := sms.Report{Ref: "1-a", Leg: id, State: tt.state, Class: tt.class, Code: tt.code, Key: "1-a " + tt.status}
			if trace == `"providers":{}` {
				want.Leg = uuid.Nil
			}
			if err != nil || len(got.Reports) != 1 || got.Reports[0] != want {
				t.Errorf("%s: %+v, %v; want %+v", tt.status, got, err, want)
			}
			keys[want.Key] = true
		}
	}
	if len(keys) != 15 {
		t.Errorf("%d keys for 15 states", len(keys))
	}
	for _, reason := range []string{"UNSUBSCRIBED", "UNPUBLISHED", "a text of the provider's"} {
		got, err := receive(`{"type":"message:updated","data":{"id":"1-a","status":"UNDELIVERABLE","reason":"` + reason + `"}}`)
		want := map[string]sms.Class{"UNSUBSCRIBED": sms.RecipientOptedOut, "UNPUBLISHED": sms.Misconfigured}[reason]
		code := "UNDELIVERABLE/" + reason
		if want == "" {
			want, code = sms.RecipientUnreachable, "UNDELIVERABLE"
		}
		if err != nil || len(got.Reports) != 1 || got.Reports[0].Class != want || got.Reports[0].Code != code {
			t.Errorf("%s: %+v, %v; want %s", reason, got, err, want)
		}
	}
	if got, err := receive(`{"type":"notification:published","data":[1]}`); err != nil || len(got.Reports) != 0 {
		t.Errorf("another event: %+v, %v", got, err)
	}
	for _, body := range []string{
		``, `null`, `[]`, `{}`, `{"type":"message:updated"}`, `{"type":"message:updated","data":null}`, `{"type":"message:updated","data":{"status":"SENT"}}`,
		`{"type":"message:updated","data":{"id":"1-a"}}`, `{"type":"message:updated","data":{"id":"1-a","status":"SENT"}}{}`,
	} {
		if got, err := receive(body); !errors.Is(err, sms.ErrMalformed) {
			t.Errorf("%s: %+v, %v; want ErrMalformed", body, got, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{}, {Token: "t", BaseURL: "http://sms.example"}} {
		if _, err := New("x", c); err == nil {
			t.Errorf("%+v: accepted", c)
		}
	}
}

// What is remembered of errors is bounded.
func TestSpentIsBounded(t *testing.T) {
	t.Parallel()
	v, err := New("courier", Config{Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	for range maxSpent + 10 {
		v.spend(uuid.New(), 0)
	}
	if len(v.spent) != maxSpent {
		t.Errorf("%d legs are remembered, want %d", len(v.spent), maxSpent)
	}
}
