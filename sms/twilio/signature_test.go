package twilio

import (
	"net/http"
	"testing"

	"github.com/watchword-auth/watchword/sms"
)

// The vectors of the validators of twilio-go (client/request_validator_test.go) and twilio-python (tests/unit/test_request_validator.py).
func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	const (
		address = "https://mycompany.com/myapp.php?foo=1&bar=2"
		five    = "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309"
		sum     = "bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
		json    = `{"property": "value", "boolean": true}`
	)
	for _, tt := range []struct{ url, body, signature string }{
		{address, five, "RSOYDt4T1cUTdK1PDd93/VVr8B8="},
		{address, five + "&ReasonConferenceEnded=test&Reason=Participant", "vOEb5UThFn24KEfnOFLQY2AE5FY="},
		{address, "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234", "IK+Dwps556ElfBT0I3Rgjkr1wJU="},
		{"http://mycompany.com:1234/myapp.php?foo=1&bar=2", five, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="},
		{"https://mycompany.com:443/myapp.php?foo=1&bar=2", five, "kvajT1Ptam85bY51eRf/AJRuM3w="},
		{address, five, "kvajT1Ptam85bY51eRf/AJRuM3w="}, // Twilio called the port that a proxy dropped
		{"http://mycompany.com:80/myapp.php?foo=1&bar=2", five, "0ZXoZLH/DfblKGATFgpif+LLRf4="},
		{address + "&" + sum, json, "a9nBmqA0ju/hNViExpshrM61xv4="},
		{"https://mycompany.com/myapp.php?" + sum, json, "y77kIzt2vzLz71DgmJGsen2scGs="},
		{address, "property=value&boolean=true", "NBdBDr/T/lgjI+tlgpXjKZQZs/k="},
	} {
		hook := sms.Webhook{URL: tt.url, Body: []byte(tt.body), Header: http.Header{"X-Twilio-Signature": {tt.signature}}}
		if !authentic("12345", hook) {
			t.Errorf("%s %s: the published signature %s is refused", tt.url, tt.body, tt.signature)
		}
		if authentic("12346", hook) {
			t.Errorf("%s: another token passes", tt.url)
		}
		if hook.Body = []byte(tt.body + "x"); authentic("12345", hook) {
			t.Errorf("%s: another body passes", tt.url)
		}
	}
}
