package courier_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/courier"
	"github.com/watchword-auth/watchword/sms/smstest"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	for _, template := range []string{"", "SIGNIN"} {
		t.Run("template "+template, func(t *testing.T) {
			t.Parallel()
			smstest.Run(t, smstest.Driver{
				Dialect: "courier", TimeSigned: true,
				Classes: []sms.Class{sms.Misconfigured, sms.Unauthorized, sms.InsufficientFunds, sms.RateLimited, sms.Temporary},
				New: func(t testing.TB, s smstest.Setup) sms.Vendor {
					v, err := courier.New("courier", courier.Config{BaseURL: s.BaseURL, Token: s.Account.Secret, Secret: s.Account.Signing, Template: template})
					if err != nil {
						t.Fatal(err)
					}
					return v
				},
			})
		})
	}
}

func leg(t *testing.T, number string) sms.Leg {
	t.Helper()
	to, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	return sms.Leg{ID: uuid.New(), To: to, Channel: sms.SMS, Text: "482910 is your code.", Code: "482910", Life: 5 * time.Minute}
}

// The vendor publishes no signature together with its secret: this one was computed apart from both the driver and the simulator.
const (
	vectorSecret    = "test_secret"
	vectorStamp     = 1631816343012
	vectorBody      = `{"type":"message:updated","data":{"id":"1-abc","status":"DELIVERED"}}`
	vectorSignature = "t=1631816343012,signature=3fcb85106efa31b920e783f8d5c47f67cef4b7cac10f95bf5f7ca0dc59a2317f"
)

func TestVector(t *testing.T) {
	t.Parallel()
	v, err := courier.New("courier", courier.Config{Token: "t", Secret: vectorSecret})
	if err != nil {
		t.Fatal(err)
	}
	bare, err := courier.New("courier", courier.Config{Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(vectorStamp)
	for name, tt := range map[string]struct {
		vendor          *courier.Courier
		body, signature string
		at              time.Time
		want            error
	}{
		"genuine":               {v, vectorBody, vectorSignature, at, nil},
		"just in time":          {v, vectorBody, vectorSignature, at.Add(sms.Tolerance), nil},
		"too late":              {v, vectorBody, vectorSignature, at.Add(sms.Tolerance + time.Millisecond), sms.ErrStale},
		"too early":             {v, vectorBody, vectorSignature, at.Add(-sms.Tolerance - time.Millisecond), sms.ErrStale},
		"taken for seconds":     {v, vectorBody, vectorSignature, time.Unix(vectorStamp, 0), sms.ErrStale},
		"another body":          {v, vectorBody + " ", vectorSignature, at, sms.ErrForged},
		"another time":          {v, vectorBody, strings.Replace(vectorSignature, "012", "013", 1), at, sms.ErrForged},
		"another signature":     {v, vectorBody, vectorSignature[:len(vectorSignature)-1] + "e", at, sms.ErrForged},
		"half a signature":      {v, vectorBody, vectorSignature[:len(vectorSignature)-32], at, sms.ErrForged},
		"the other way round":   {v, vectorBody, "signature=3fcb85106efa31b920e783f8d5c47f67cef4b7cac10f95bf5f7ca0dc59a2317f,t=1631816343012", at, sms.ErrForged},
		"no time":               {v, vectorBody, "signature=3fcb85106efa31b920e783f8d5c47f67cef4b7cac10f95bf5f7ca0dc59a2317f", at, sms.ErrForged},
		"no signature":          {v, vectorBody, "", at, sms.ErrForged},
		"no secret":             {bare, vectorBody, vectorSignature, at, sms.ErrForged},
		"no secret, and signed": {bare, "", "t=1,signature=" + strings.Repeat("0", 64), at, sms.ErrForged},
	} {
		got, err := tt.vendor.Receive(sms.Webhook{Method: http.MethodPost, Body: []byte(tt.body), Header: http.Header{"Courier-Signature": {tt.signature}}, At: tt.at})
		if !errors.Is(err, tt.want) || (err == nil) != (len(got.Reports) == 1) {
			t.Errorf("%s: %+v, %v; want %v", name, got, err, tt.want)
		}
	}
}

// hooked gives a simulator, a driver on it, and what its webhooks said.
func hooked(t *testing.T) (*carriersim.Simulator, *courier.Courier, func() []sms.Report) {
	t.Helper()
	sim := carriersim.New(carriersim.Options{Now: func() time.Time { return smstest.Noon }})
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	a := sim.Account("courier")
	v, err := courier.New("courier", courier.Config{BaseURL: server.URL + "/courier", Token: a.Secret, Secret: a.Signing, Sender: "+12025550100"})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var reports []sms.Report
	hooks := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got, err := v.Receive(sms.Webhook{Method: r.Method, Header: r.Header, Body: body, At: smstest.Noon})
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, got.Reports...)
	}))
	t.Cleanup(hooks.Close)
	a.Receipts = hooks.URL
	sim.SetAccount("courier", a)
	return sim, v, func() []sms.Report {
		sim.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(reports)
	}
}

// 202 is no delivery: what the provider refuses is told later.
func TestRefusedLater(t *testing.T) {
	t.Parallel()
	for suffix, want := range map[string]sms.Report{
		"001": {State: sms.LegUndelivered, Class: sms.RecipientUnreachable, Code: "UNDELIVERABLE/PROVIDER_ERROR"},
		"002": {State: sms.LegRejected, Class: sms.RecipientOptedOut, Code: "FILTERED/UNSUBSCRIBED"},
	} {
		_, v, reports := hooked(t)
		l := leg(t, "+12025550"+suffix)
		got, err := v.Send(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		all := reports()
		if len(all) != 1 || all[0].Leg != l.ID || all[0].Ref != got.Ref || all[0].State != want.State || all[0].Class != want.Class || all[0].Code != want.Code {
			t.Errorf("%s: %+v, want %+v", suffix, all, want)
		}
	}
}

// An error is kept under its key: the next try looks the message up, and then has a key of its own.
func TestKeptError(t *testing.T) {
	t.Parallel()
	var asked []string
	var answers []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Idempotency-Key"))
		status, body, _ := strings.Cut(answers[0], " ")
		answers = answers[1:]
		w.WriteHeader(map[string]int{"202": 202, "200": 200, "500": 500, "409": 409, "401": 401, "429": 429}[status])
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	v, err := courier.New("courier", courier.Config{BaseURL: server.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	type try struct {
		answers []string
		ref     string
		class   sms.Class
		reached sms.Reached
		asked   []string // "#" is the leg
	}
	for name, tries := range map[string][]try{
		"not there": {
			{[]string{`500 {"type":"internal_error"}`}, "", sms.Temporary, sms.MaybeSent, []string{"POST /send #"}},
			{[]string{`200 {"results":[]}`, `500 `}, "", sms.Temporary, sms.MaybeSent, []string{"GET /messages?traceId=# ", "POST /send #-1"}},
			{[]string{`200 {"results":[]}`, `202 {"requestId":"r"}`}, "r", "", 0, []string{"GET /messages?traceId=# ", "POST /send #-2"}},
			{[]string{`202 {"requestId":"r"}`}, "r", "", 0, []string{"POST /send #"}},
		},
		"there": {
			{[]string{`500 `}, "", sms.Temporary, sms.MaybeSent, []string{"POST /send #"}},
			{[]string{`200 {"results":[{"id":"m","status":"SENT"}]}`}, "m", "", 0, []string{"GET /messages?traceId=# "}},
		},
		"unknown": {
			{[]string{`429 `}, "", sms.RateLimited, sms.NotSent, []string{"POST /send #"}},
			{[]string{`500 `}, "", sms.Temporary, sms.MaybeSent, []string{"GET /messages?traceId=# "}},
			{[]string{`200 {}`}, "", sms.Temporary, sms.MaybeSent, []string{"GET /messages?traceId=# "}},
			{[]string{`200 {"results":[{}]}`}, "", sms.Temporary, sms.MaybeSent, []string{"GET /messages?traceId=# "}},
			{[]string{`200 <html>`}, "", sms.Temporary, sms.MaybeSent, []string{"GET /messages?traceId=# "}},
		},
		"at work": {
			{[]string{`409 {"type":"conflict"}`}, "", sms.Temporary, sms.MaybeSent, []string{"POST /send #"}},
			{[]string{`202 {"requestId":"r"}`}, "r", "", 0, []string{"POST /send #"}},
		},
		"no id": {
			{[]string{`202 {"messageId":"r"}`}, "", sms.Ambiguous, sms.MaybeSent, []string{"POST /send #"}},
			{[]string{`200 `}, "", sms.Ambiguous, sms.MaybeSent, []string{"POST /send #"}},
			{[]string{`202 null`}, "", sms.Ambiguous, sms.MaybeSent, []string{"POST /send #"}},
		},
		"refused": {
			{[]string{`401 {"type":"+12025550143"}`}, "", sms.Unauthorized, sms.NotSent, []string{"POST /send #"}},
			{[]string{`401 {"type":"authentication_error"}`}, "", sms.Unauthorized, sms.NotSent, []string{"POST /send #"}},
		},
	} {
		l := leg(t, "+12025550143")
		for i, tt := range tries {
			asked, answers = nil, tt.answers
			got, err := v.Send(t.Context(), l)
			e, _ := errors.AsType[*sms.Error](err)
			if tt.class == "" && (err != nil || got.Ref != tt.ref) || tt.class != "" && (e == nil || e.Class != tt.class || e.Reached != tt.reached || strings.Contains(err.Error(), "2025550143")) {
				t.Errorf("%s, try %d: %+v, %v", name, i, got, err)
			}
			for i := range asked {
				asked[i] = strings.ReplaceAll(asked[i], l.ID.String(), "#")
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("%s, try %d: asked %q, want %q", name, i, asked, tt.asked)
			}
		}
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	var sent string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = string(body)
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"requestId":"1-a"}`)
	}))
	t.Cleanup(server.Close)
	l := leg(t, "+12025550143")
	tail := `"expiry":{"expires_in":300000},"metadata":{"trace_id":"` + l.ID.String() + `"}}}`
	for _, tt := range []struct {
		config courier.Config
		sender string
		want   string
	}{
		{courier.Config{}, "", `{"message":{"to":{"phone_number":"+12025550143"},"content":{"title":"Verification","body":"482910 is your code."},"routing":{"method":"single","channels":["sms"]},` + tail},
		{courier.Config{Template: "T", Sender: "MG1"}, "", `{"message":{"to":{"phone_number":"+12025550143","data":{"code":"482910","text":"482910 is your code."}},"template":"T",` +
			`"routing":{"method":"single","channels":["sms"]},"providers":{"twilio":{"override":{"body":{"messagingServiceSid":"MG1"}}}},` + tail},
		{courier.Config{Title: "Acme", Sender: "MG1"}, "+12025550100", `{"message":{"to":{"phone_number":"+12025550143"},"content":{"title":"Acme","body":"482910 is your code."},` +
			`"routing":{"method":"single","channels":["sms"]},"providers":{"twilio":{"override":{"body":{"from":"+12025550100"}}}},` + tail},
	} {
		tt.config.BaseURL, tt.config.Token = server.URL, "t"
		v, err := courier.New("courier", tt.config)
		if err != nil {
			t.Fatal(err)
		}
		l.Sender = tt.sender
		if _, err := v.Send(t.Context(), l); err != nil || sent != tt.want {
			t.Errorf("%v\nsent %s\nwant %s", err, sent, tt.want)
		}
	}
	v, err := courier.New("courier", courier.Config{BaseURL: server.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	l.Text = "{{name}}: 482910"
	sent = ""
	if e, _ := errors.AsType[*sms.Error](second(v.Send(t.Context(), l))); e == nil || e.Class != sms.ContentRejected || e.Reached != sms.NotSent || sent != "" {
		t.Errorf("a text with a placeholder: %v, sent %s", e, sent)
	}
}

func second(_ sms.Accepted, err error) error { return err }

func TestSender(t *testing.T) {
	t.Parallel()
	sim, v, _ := hooked(t)
	l := leg(t, "+12025550143")
	if _, err := v.Send(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if texts := sim.Messages(l.To.Reveal()); len(texts) != 1 || texts[0].From != "+12025550100" || texts[0].Text != l.Text {
		t.Errorf("arrived %+v", texts)
	}
}
