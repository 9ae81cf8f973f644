package infobip_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/infobip"
	"github.com/watchword-auth/watchword/sms/smstest"
)

var smsClasses = []sms.Class{
	sms.InvalidRecipient, sms.RecipientOptedOut, sms.InvalidSender, sms.Misconfigured, sms.ContentRejected, sms.Unauthorized, sms.InsufficientFunds, sms.RateLimited,
	sms.BlockedFraud, sms.Temporary,
}

func TestSMS(t *testing.T) {
	t.Parallel()
	smstest.Run(t, smstest.Driver{
		Dialect: "infobip", Unsigned: true, Inbound: true, Classes: smsClasses,
		New: func(t testing.TB, s smstest.Setup) sms.Vendor {
			v, err := infobip.NewSMS("infobip", infobip.Config{BaseURL: s.BaseURL, APIKey: s.Account.Secret, Sender: "ACME", WebhookToken: s.Token})
			if err != nil {
				t.Fatal(err)
			}
			return v
		},
	})
}

func TestSMSSigned(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"sha256/hex", "sha1/base64", "sha512/base64"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			algorithm, encoding, _ := strings.Cut(mode, "/")
			smstest.Run(t, smstest.Driver{
				Dialect: "infobip", Inbound: true,
				Prepare: func(_ testing.TB, sim *carriersim.Simulator) {
					a := sim.Account("infobip")
					a.Signing, a.Mode = "notification-profile-secret", mode
					sim.SetAccount("infobip", a)
				},
				New: func(t testing.TB, s smstest.Setup) sms.Vendor {
					v, err := infobip.NewSMS("infobip", infobip.Config{
						BaseURL: s.BaseURL, APIKey: s.Account.Secret, Sender: "ACME", HMACSecret: s.Account.Signing, HMACAlgorithm: algorithm, HMACEncoding: encoding,
					})
					if err != nil {
						t.Fatal(err)
					}
					return v
				},
			})
		})
	}
}

func TestTwoFactor(t *testing.T) {
	t.Parallel()
	smstest.Run(t, smstest.Driver{
		Dialect: "infobip-2fa", NoStates: true, WrongTries: 3,
		Classes: []sms.Class{
			sms.InvalidRecipient, sms.RecipientUnreachable, sms.InvalidSender, sms.Misconfigured, sms.Unauthorized, sms.RateLimited, sms.Temporary,
		},
		New: func(t testing.TB, s smstest.Setup) sms.Vendor {
			v, err := infobip.NewTwoFactor("infobip_2fa", infobip.Config{BaseURL: s.BaseURL, APIKey: s.Account.Secret, Application: s.Account.ID, Message: "7654321"})
			if err != nil {
				t.Fatal(err)
			}
			return v
		},
	})
}

// says is a vendor that gives one answer, and keeps what it was asked last.
func says(t *testing.T, status int, body string) (base string, asked func() (target, sent string)) {
	t.Helper()
	var target, sent string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		target, sent = r.Method+" "+r.URL.RequestURI(), string(data)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() (string, string) { return target, sent }
}

func leg(t *testing.T, number string) sms.Leg {
	t.Helper()
	to, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	return sms.Leg{ID: uuid.New(), To: to, Channel: sms.SMS, Text: "482910 is your code.", Life: 5 * time.Minute, Callback: "https://id.example.com/hooks/infobip/token"}
}

// 200 says nothing: the status does.
func TestSMSAnswers(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		class   sms.Class
		reached sms.Reached
	}{
		`{"messages":[{"messageId":"m","status":{"groupId":1,"id":26}}]}`:                     {},
		`{"messages":[{"messageId":"m","status":{"groupId":0,"id":0}}]}`:                      {},
		`{"messages":[{"messageId":"m","status":{"groupId":3,"id":5}}]}`:                      {},
		`{"messages":[{"messageId":"m","status":{"groupId":5,"id":23}}]}`:                     {}, // it arrived before
		`{"messages":[{"messageId":"m","status":{"groupId":5,"id":6}}]}`:                      {sms.Misconfigured, sms.NotSent},
		`{"messages":[{"messageId":"m","status":{"groupId":5,"id":10}}]}`:                     {sms.RecipientOptedOut, sms.NotSent},
		`{"messages":[{"messageId":"m","status":{"groupId":5,"id":20}}]}`:                     {sms.RateLimited, sms.NotSent},
		`{"messages":[{"messageId":"m","status":{"groupId":5,"id":51}}]}`:                     {sms.InvalidRecipient, sms.NotSent},
		`{"messages":[{"messageId":"m","status":{"groupId":5,"id":87}}]}`:                     {sms.BlockedFraud, sms.NotSent},
		`{"messages":[{"messageId":"m","status":{"groupId":5,"id":999}}]}`:                    {sms.Misconfigured, sms.NotSent},
		`{"messages":[{"messageId":"m","status":{"groupId":2,"id":9}}]}`:                      {sms.RecipientUnreachable, sms.NotSent},
		`{"messages":[{"messageId":"m","status":{"groupId":77,"id":1}}]}`:                     {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[{"messageId":"m","status":{"id":26}}]}`:                                 {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[{"messageId":"m"}]}`:                                                    {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[]}`:                                                                     {sms.Ambiguous, sms.MaybeSent},
		`{}`:                                                                                  {sms.Ambiguous, sms.MaybeSent},
		`null`:                                                                                {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[{"status":{"groupId":1}}]} trailing`:                                    {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[{"status":{"groupId":1,"id":26}},{"status":{"groupId":5,"id":12}}]}`:    {sms.Ambiguous, sms.MaybeSent},
		`{"requestError":{"serviceException":{"messageId":"UNAUTHORIZED","text":"Refused"}}}`: {sms.Ambiguous, sms.MaybeSent},
	} {
		base, _ := says(t, http.StatusOK, body)
		v, err := infobip.NewSMS("infobip", infobip.Config{BaseURL: base, APIKey: "k"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Send(t.Context(), leg(t, "+41793026727"))
		e, _ := errors.AsType[*sms.Error](err)
		switch {
		case want.class == "" && (err != nil || got.Ref == ""):
			t.Errorf("%s: %+v, %v; want success", body, got, err)
		case want.class != "" && (e == nil || e.Class != want.class || e.Reached != want.reached):
			t.Errorf("%s: %v, want %+v", body, err, want)
		}
	}
}

func TestSMSRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		body   string
		class  sms.Class
		code   string
	}{
		{400, `{"errorCode":"E400","violations":[{"property":"messages[0].destinations[0].to","violation":"41793026727"}]}`, sms.InvalidRecipient, "E400"},
		{400, `{"errorCode":"E400","violations":[{"property":"messages[0].sender"}]}`, sms.InvalidSender, "E400"},
		{400, `{"errorCode":"E400","violations":[{"property":"messages[0].content.text"}]}`, sms.ContentRejected, "E400"},
		{400, `{"errorCode":"E400","violations":[]}`, sms.Misconfigured, "E400"},
		{400, `{"errorCode":"41793026727","violations":[]}`, sms.Misconfigured, "http_400"},
		{400, `{"errorCode":"482910 is your code."}`, sms.Misconfigured, "http_400"},
		{401, `{"errorCode":"E401"}`, sms.Unauthorized, "E401"},
		{403, `{"errorCode":"E403"}`, sms.Unauthorized, "E403"},
		{429, `{"errorCode":"E429"}`, sms.RateLimited, "E429"},
		{500, `{"errorCode":"E500"}`, sms.Temporary, "E500"},
		{502, `<html>`, sms.Temporary, "http_502"},
	} {
		base, _ := says(t, tt.status, tt.body)
		v, err := infobip.NewSMS("infobip", infobip.Config{BaseURL: base, APIKey: "k"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Send(t.Context(), leg(t, "+41793026727"))
		if e, _ := errors.AsType[*sms.Error](err); e == nil || e.Class != tt.class || e.Code != tt.code {
			t.Errorf("%d %s: %v, want %s %s", tt.status, tt.body, err, tt.class, tt.code)
		}
	}
}

func TestSMSRequest(t *testing.T) {
	t.Parallel()
	base, asked := says(t, http.StatusOK, `{"messages":[{"messageId":"m","status":{"groupId":1,"id":26}}]}`)
	v, err := infobip.NewSMS("infobip", infobip.Config{BaseURL: base, APIKey: "k", Sender: "ACME", IndiaEntity: "110", IndiaTemplate: "220"})
	if err != nil {
		t.Fatal(err)
	}
	l := leg(t, "+41793026727")
	if _, err := v.Send(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	target, sent := asked()
	want := `{"messages":[{"sender":"ACME","destinations":[{"to":"41793026727","messageId":"` + l.ID.String() + `"}],"content":{"text":"482910 is your code."},` +
		`"options":{"validityPeriod":{"amount":300,"timeUnit":"SECONDS"}},"webhooks":{"delivery":{"url":"` + l.Callback + `","intermediateReport":true},` +
		`"contentType":"application/json","callbackData":"` + l.ID.String() + `"}}]}`
	if target != "POST /sms/3/messages" || sent != want {
		t.Errorf("%s %s, want %s", target, sent, want)
	}
	l = leg(t, "+919876543210")
	l.Sender, l.Life = "OTHER", 0
	if _, err := v.Send(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if _, sent = asked(); !strings.Contains(sent, `"indiaDlt":{"principalEntityId":"110","contentTemplateId":"220"}`) || !strings.Contains(sent, `"amount":1`) || !strings.Contains(sent, `"sender":"OTHER"`) {
		t.Errorf("to India: %s", sent)
	}
}

func TestReports(t *testing.T) {
	t.Parallel()
	v, err := infobip.NewSMS("infobip", infobip.Config{APIKey: "k", WebhookToken: "token"})
	if err != nil {
		t.Fatal(err)
	}
	id := uuid.New()
	receive := func(t *testing.T, body string) (sms.Received, error) {
		t.Helper()
		return v.Receive(sms.Webhook{Method: http.MethodPost, Body: []byte(body), Token: "token"})
	}
	type news struct {
		State sms.LegState
		Class sms.Class
		Code  string
	}
	keys := map[string]bool{}
	for status, want := range map[string]news{
		`{"groupId":0,"id":0}`:   {sms.LegAccepted, "", ""},
		`{"groupId":1,"id":26}`:  {sms.LegAccepted, "", ""},
		`{"groupId":1,"id":3}`:   {sms.LegSent, "", ""},
		`{"groupId":1,"id":7}`:   {sms.LegSent, "", ""},
		`{"groupId":3,"id":2}`:   {sms.LegSent, "", ""},
		`{"groupId":3,"id":5}`:   {sms.LegDelivered, "", ""},
		`{"groupId":2,"id":4}`:   {sms.LegUndelivered, sms.RecipientUnreachable, "4/27"},
		`{"groupId":4,"id":15}`:  {sms.LegExpired, sms.RecipientUnreachable, "15/27"},
		`{"groupId":4,"id":29}`:  {sms.LegExpired, sms.Ambiguous, "29/27"},
		`{"groupId":5,"id":14}`:  {sms.LegRejected, sms.RecipientOptedOut, "14/27"},
		`{"groupId":5,"id":87}`:  {sms.LegRejected, sms.BlockedFraud, "87/27"},
		`{"groupId":1,"id":999}`: {}, `{"groupId":3,"id":999}`: {}, `{"groupId":9,"id":1}`: {}, `{"groupId":5,"id":23}`: {},
	} {
		got, err := receive(t, `{"results":[{"messageId":"m","callbackData":"`+id.String()+`","status":`+status+`,"error":{"id":27}}]}`)
		if err != nil || len(got.Reports) > 1 || (len(got.Reports) == 0) != (want.State == "") {
			t.Errorf("%s: %+v, %v", status, got, err)
			continue
		}
		for _, r := range got.Reports {
			if r.Leg != id || r.Ref != "m" || (news{r.State, r.Class, r.Code}) != want || keys[r.Key] {
				t.Errorf("%s: %+v, want %+v and a key of its own", status, r, want)
			}
			keys[r.Key] = true
		}
	}
	// Of the older version, and of somebody else's text.
	got, err := receive(t, `{"results":[{"messageId":"m","smsCount":1,"entityId":"e","applicationId":"a","callbackData":"x","status":{"groupId":3,"id":5}}]}`)
	if err != nil || len(got.Reports) != 1 || got.Reports[0].Leg != uuid.Nil || got.Reports[0].Ref != "m" {
		t.Errorf("version 2: %+v, %v", got, err)
	}
	for _, body := range []string{`{"results":[{"status":{"groupId":3,"id":5}}]}`, `{"results":[{"messageId":"m"}]}`, `{"results":[]}{"results":[]}`, `{"results":null}`, `{"results":{}}`} {
		if got, err := receive(t, body); !errors.Is(err, sms.ErrMalformed) {
			t.Errorf("%s: %+v, %v; want ErrMalformed", body, got, err)
		}
	}
}

func TestReplies(t *testing.T) {
	t.Parallel()
	v, err := infobip.NewSMS("infobip", infobip.Config{APIKey: "k", WebhookToken: "token"})
	if err != nil {
		t.Fatal(err)
	}
	type reply struct {
		MessageID string `json:"messageId"`
		From      string `json:"from"`
		Text      string `json:"text"`
		CleanText string `json:"cleanText"`
		Keyword   string `json:"keyword"`
	}
	body, err := json.Marshal(map[string][]reply{"results": {
		{"1", "41793026727", "STOP", "", "STOP"}, {"2", "41793026727", "ACME stop", "stop", "ACME"}, {"3", "41793026727", "stop it please", "it please", "STOP"},
		{"4", "41793026727", "thanks", "thanks", ""}, {"5", "InfoSMS", "STOP", "", ""},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Receive(sms.Webhook{Method: http.MethodPost, Body: body, Token: "token"})
	if err != nil || len(got.Inbound) != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	var words []sms.Keyword
	for _, in := range got.Inbound {
		word := in.Keyword
		if word == "" {
			word = sms.ReadKeyword(in.Text)
		}
		words = append(words, word)
	}
	if !slices.Equal(words, []sms.Keyword{sms.KeywordStop, sms.KeywordStop, sms.KeywordStop, ""}) {
		t.Errorf("keywords %q", words)
	}
}

// Every protection that is configured has to hold.
func TestProtection(t *testing.T) {
	t.Parallel()
	const (
		body = `{"results":[]}`
		// HMAC-SHA256 of the body under "key", computed apart.
		signature = "f8b300d5425d163e62d4b92c64f1709092812f121a04faeb3bc0ce9081f3316a"
	)
	for name, tt := range map[string]struct {
		config           infobip.Config
		token, signature string
		forged           bool
	}{
		"nothing configured":        {infobip.Config{}, "", "", true},
		"token":                     {infobip.Config{WebhookToken: "token"}, "token", "", false},
		"another token":             {infobip.Config{WebhookToken: "token"}, "tokem", "", true},
		"signature":                 {infobip.Config{HMACSecret: "key"}, "", signature, false},
		"signature in another case": {infobip.Config{HMACSecret: "key"}, "", strings.ToUpper(signature), false},
		"another signature":         {infobip.Config{HMACSecret: "key"}, "", signature[:63] + "0", true},
		"half a signature":          {infobip.Config{HMACSecret: "key"}, "", signature[:32], true},
		"no signature":              {infobip.Config{HMACSecret: "key"}, "", "", true},
		"other algorithm":           {infobip.Config{HMACSecret: "key", HMACAlgorithm: "sha512"}, "", signature, true},
		"other encoding":            {infobip.Config{HMACSecret: "key", HMACEncoding: "base64"}, "", signature, true},
		"both":                      {infobip.Config{WebhookToken: "token", HMACSecret: "key"}, "token", signature, false},
		"both, without token":       {infobip.Config{WebhookToken: "token", HMACSecret: "key"}, "", signature, true},
		"both, without signature":   {infobip.Config{WebhookToken: "token", HMACSecret: "key"}, "token", "", true},
	} {
		tt.config.APIKey, tt.config.HMACHeader = "k", "X-Hook"
		v, err := infobip.NewSMS("infobip", tt.config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Receive(sms.Webhook{Method: http.MethodPost, Body: []byte(body), Token: tt.token, Header: http.Header{"X-Hook": {tt.signature}}})
		if forged := errors.Is(err, sms.ErrForged); forged != tt.forged || !forged && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTwoFactorAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		channel sms.Channel
		status  int
		body    string
		class   sms.Class
		reached sms.Reached
	}{
		{sms.SMS, 200, `{"pinId":"P","smsStatus":"MESSAGE_SENT"}`, "", 0},
		{sms.SMS, 200, `{"pinId":"P","smsStatus":"MESSAGE_NOT_SENT"}`, sms.RecipientUnreachable, sms.NotSent},
		{sms.SMS, 200, `{"pinId":"P","smsStatus":"MESSAGE_PERHAPS"}`, sms.Ambiguous, sms.MaybeSent},
		{sms.SMS, 200, `{"pinId":"P","callStatus":"PENDING_ACCEPTED"}`, sms.Ambiguous, sms.MaybeSent},
		{sms.SMS, 200, `{"smsStatus":"MESSAGE_SENT"}`, sms.Ambiguous, sms.MaybeSent},
		{sms.Voice, 200, `{"pinId":"P","callStatus":"PENDING_ACCEPTED"}`, "", 0},
		{sms.Voice, 200, `{"pinId":"P","callStatus":"REJECTED_NOT_ENOUGH_CREDITS"}`, sms.Misconfigured, sms.NotSent},
		{sms.Voice, 200, `{"pinId":"P","callStatus":"UNDELIVERABLE_NOT_DELIVERED"}`, sms.RecipientUnreachable, sms.NotSent},
		{sms.Voice, 200, `{"pinId":"P"}`, sms.Ambiguous, sms.MaybeSent},
		{sms.SMS, 400, `{"requestError":{"serviceException":{"messageId":"BAD_REQUEST","validationErrors":{"to":["41793026727"],"from":["x"]}}}}`, sms.InvalidRecipient, sms.NotSent},
		{sms.SMS, 400, `{"requestError":{"serviceException":{"messageId":"BAD_REQUEST","validationErrors":{"request.from":"x"}}}}`, sms.InvalidSender, sms.NotSent},
		{sms.SMS, 400, `{"requestError":{"serviceException":{"messageId":"BAD_REQUEST","validationErrors":["to"]}}}`, sms.Misconfigured, sms.NotSent},
		{sms.SMS, 404, `{"requestError":{"serviceException":{"messageId":"NOT_FOUND"}}}`, sms.Misconfigured, sms.NotSent},
		{sms.SMS, 500, `{"requestError":{"serviceException":{"messageId":"GENERAL_ERROR"}}}`, sms.Temporary, sms.MaybeSent},
	} {
		base, asked := says(t, tt.status, tt.body)
		v := twoFactor(t, base)
		l := leg(t, "+41793026727")
		l.Channel = tt.channel
		got, err := v.Send(t.Context(), l)
		e, _ := errors.AsType[*sms.Error](err)
		switch {
		case tt.class == "" && (err != nil || got.Session != "P"):
			t.Errorf("%s: %+v, %v; want success", tt.body, got, err)
		case tt.class != "" && (e == nil || e.Class != tt.class || e.Reached != tt.reached):
			t.Errorf("%s: %v, want %s", tt.body, err, tt.class)
		}
		want := map[sms.Channel]string{sms.SMS: "POST /2fa/2/pin?ncNeeded=false", sms.Voice: "POST /2fa/2/pin/voice"}[tt.channel]
		if target, sent := asked(); target != want || sent != `{"applicationId":"1","messageId":"2","to":"41793026727"}` {
			t.Errorf("%s %s, want %s", target, sent, want)
		}
	}
}

func twoFactor(t *testing.T, base string) *infobip.TwoFactor {
	t.Helper()
	v, err := infobip.NewTwoFactor("infobip_2fa", infobip.Config{BaseURL: base, APIKey: "k", Application: "1", Message: "2"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// 200 is the status of the right PIN, of a wrong one and of one too late.
func TestCheckAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status  int
		body    string
		verdict sms.Verdict
		failed  bool
	}{
		{200, `{"pinId":"P","msisdn":"41793026727","verified":true,"attemptsRemaining":0}`, sms.Approved, false},
		{200, `{"pinId":"P","verified":false,"attemptsRemaining":2,"pinError":"WRONG_PIN"}`, sms.Denied, false},
		{200, `{"pinId":"P","verified":false,"attemptsRemaining":0,"pinError":"WRONG_PIN"}`, sms.Exhausted, false},
		{200, `{"pinId":"P","verified":false,"pinError":"NO_MORE_PIN_ATTEMPTS"}`, sms.Exhausted, false},
		{200, `{"pinId":"P","verified":false,"attemptsRemaining":0,"pinError":"TTL_EXPIRED"}`, sms.TimedOut, false},
		{200, `{"pinId":"P","verified":false,"pinError":"SOMETHING_NEW"}`, sms.Denied, false},
		{200, `{}`, sms.Denied, false},
		{200, `null`, sms.Denied, false},
		{200, `{"verified":"true"}`, sms.Denied, true},
		{200, `{"verified":1}`, sms.Denied, true},
		{200, `{"verified":true}{"verified":true}`, sms.Denied, true},
		{200, ``, sms.Denied, true},
		{302, `{"verified":true}`, sms.Denied, true},
		{404, `{"requestError":{"serviceException":{"messageId":"NOT_FOUND"}}}`, sms.Gone, false},
		{401, `{"verified":true}`, sms.Denied, true},
		{429, `{"requestError":{"serviceException":{"messageId":"TOO_MANY_REQUESTS"}}}`, sms.Denied, true},
		{500, `{"requestError":{"serviceException":{"messageId":"GENERAL_ERROR"}}}`, sms.Denied, true},
	} {
		base, asked := says(t, tt.status, tt.body)
		got, err := twoFactor(t, base).Check(t.Context(), sms.Session{ID: "P/../Q?x"}, `4"8`)
		if got != tt.verdict || (err != nil) != tt.failed {
			t.Errorf("%d %s: %v, %v; want %v", tt.status, tt.body, got, err, tt.verdict)
		}
		if target, sent := asked(); target != "POST /2fa/2/pin/P%2F..%2FQ%3Fx/verify" || sent != `{"pin":"4\"8"}` {
			t.Errorf("asked %s %s", target, sent)
		}
	}
}

func TestContinue(t *testing.T) {
	t.Parallel()
	base, asked := says(t, http.StatusNotFound, `{"requestError":{"serviceException":{"messageId":"NOT_FOUND"}}}`)
	for channel, want := range map[sms.Channel]string{sms.SMS: "POST /2fa/2/pin/P%2F/resend", sms.Voice: "POST /2fa/2/pin/P%2F/resend/voice"} {
		l := leg(t, "+41793026727")
		l.Channel = channel
		_, err := twoFactor(t, base).Continue(t.Context(), sms.Session{ID: "P/"}, l)
		if e, _ := errors.AsType[*sms.Error](err); e == nil || e.Class != sms.Expired || e.Reached != sms.NotSent {
			t.Errorf("a PIN that is gone: %v", err)
		}
		if target, _ := asked(); target != want {
			t.Errorf("asked %s, want %s", target, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]infobip.Config{
		"no key": {}, "plain http": {APIKey: "secret-key", BaseURL: "http://sms.example"}, "algorithm": {APIKey: "secret-key", HMACAlgorithm: "md5"},
		"encoding": {APIKey: "secret-key", HMACEncoding: "rot13"}, "half of India": {APIKey: "secret-key", IndiaEntity: "1"},
	} {
		if _, err := infobip.NewSMS("x", c); err == nil || strings.Contains(err.Error(), "secret-key") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]infobip.Config{"no key": {Application: "1", Message: "2"}, "no application": {APIKey: "k", Message: "2"}, "no message": {APIKey: "k", Application: "1"}} {
		if _, err := infobip.NewTwoFactor("x", c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
