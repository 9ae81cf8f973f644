package carriersim_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Whoever is refused is told why, in the field that the vendor has for it.
func TestRefusalsSayWhy(t *testing.T) {
	t.Parallel()
	const (
		form   = "application/x-www-form-urlencoded"
		twilio = "/twilio/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages.json"
	)
	basic := map[string]string{"Authorization": "Basic QUMwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMTp0d2lsaW8tYXV0aC10b2tlbg=="}
	for name, tt := range map[string]struct {
		path, body string
		header     map[string]string
		want       string
	}{
		"http, unsigned":        {"/http/send", `{"id":"1","to":"+12025550143"}`, nil, "The request is not signed"},
		"http, wrongly signed":  {"/http/send", `{"id":"1","to":"+12025550143"}`, map[string]string{"Webhook-Id": "1", "Webhook-Timestamp": "1", "Webhook-Signature": "v1,x"}, "The signature is wrong"},
		"http, without id":      {"/http/send", `{"to":"+12025550143"}`, nil, "The field id is missing."},
		"http, no JSON":         {"/http/send", `to=1`, nil, "not the JSON of the contract"},
		"twilio, nobody":        {twilio, "", nil, "Wrong credentials: see them at /accounts."},
		"twilio, no sender":     {twilio, "To=%2B12025550143&Body=x", basic, "From or MessagingServiceSid is missing."},
		"twilio, no body":       {twilio, "To=%2B12025550143&From=%2B12025550100", basic, "Body is missing."},
		"twilio, 001":           {twilio, "To=%2B12025550001&From=%2B12025550100&Body=x", basic, "Numbers that end in 001 are invalid here."},
		"twilio, where to look": {twilio, "To=%2B12025550001&From=%2B12025550100&Body=x", basic, "https://www.twilio.com/docs/errors/21211"},
		"vonage, nobody":        {"/vonage/sms/json", "api_key=a&api_secret=b&to=1&from=x&text=x", nil, "Wrong credentials"},
		"vonage, no text":       {"/vonage/sms/json", "api_key=a&api_secret=b&to=1&from=x", nil, "text is missing."},
		"vonage, plus":          {"/vonage/sms/json", "api_key=abcd1234&api_secret=vonage-api-secret&to=%2B12025550143&from=x&text=x", nil, "without +"},
		"vonage, 001": {
			"/vonage/sms/json", `{"api_key":"abcd1234","api_secret":"vonage-api-secret","to":"12025550001","from":"x","text":"x"}`, map[string]string{"Content-Type": "application/json"}, "end in 001",
		},
		"infobip, nobody":         {"/infobip/sms/3/messages", "{}", nil, "Wrong credentials"},
		"infobip_2fa, nobody":     {"/infobip-2fa/2fa/2/pin", "{}", nil, "Wrong credentials"},
		"octopush, nobody":        {"/octopush/sms-campaign/send", "{}", nil, "Wrong credentials"},
		"octopush, no text":       {"/octopush/sms-campaign/send", "{}", map[string]string{"Api-Login": "otp@example.com", "Api-Key": "octopush-api-key"}, "text is missing."},
		"courier, nobody":         {"/courier/send", "{}", nil, "Wrong credentials"},
		"whatsapp, nobody":        {"/whatsapp/v23.0/106540352242922/messages", "{}", nil, "Wrong credentials"},
		"startmessaging, nobody":  {"/startmessaging/otp/send", "{}", nil, "Wrong credentials"},
		"message_central, nobody": {"/message-central/verification/v3/send", "{}", nil, "Wrong credentials"},
		"twilio_verify, nobody":   {"/twilio-verify/v2/Services/VA1/Verifications", "", nil, "Wrong credentials"},
		"vonage_verify, nobody":   {"/vonage-verify/v2/verify", "{}", nil, "Wrong credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := start(t).post(tt.path, tt.body, form, tt.header); !strings.Contains(got, tt.want) || strings.Contains(got, "Refused") {
				t.Errorf("answer %s, want %q in it", got, tt.want)
			}
		})
	}
	t.Run("outage", func(t *testing.T) {
		t.Parallel()
		d := start(t)
		d.post("/faults", `{"vendor":"vonage","outage":true}`, form, nil)
		if got := d.post("/vonage/sms/json", "", form, nil); !strings.Contains(got, "outage is switched on, see /faults") {
			t.Errorf("answer %s", got)
		}
	})
}

// Vonage takes JSON for a form.
func TestVonageJSON(t *testing.T) {
	t.Parallel()
	d := start(t)
	got := d.post("/vonage/sms/json", `{"api_key":"abcd1234","api_secret":"vonage-api-secret","to":"12025550143","from":"ACME","text":"code 123456"}`, "application/json; charset=utf-8", nil)
	if texts := d.sim.Messages("+12025550143"); len(texts) != 1 || texts[0].Text != "code 123456" || texts[0].From != "ACME" || !strings.Contains(got, `"status":"0"`) {
		t.Errorf("answer %s, texts %+v", got, texts)
	}
	if got := d.post("/vonage/sms/json", `["to"]`, "application/json", nil); !strings.Contains(got, "neither a form nor a JSON object") {
		t.Errorf("answer %s", got)
	}
}

func (d *desk) post(path, body, kind string, header map[string]string) string {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}
