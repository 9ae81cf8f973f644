package gateway_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/factors/gateway"
)

// FuzzBodies sends whatever to every operation that takes a body, with a test key. Whatever it is, the answer is one of the API's own: never a fault, never a repetition of what
// was sent, and nothing has happened unless it says so. HT-9, GW-10.
func FuzzBodies(f *testing.F) {
	w := newWorld(f)
	id := w.create(f, w.test, number(1))
	paths := []string{"/v1/verifications", "/v1/verifications/" + id + "/check", "/v1/verifications/" + id + "/resend", "/v1/verifications/" + id + "/cancel", "/otp/send", "/otp/verify", "/otp/status"}
	for _, seed := range []string{
		`{"to":"+12025550100","channels":[{"type":"sms"}],"purpose":"sign_up","locale":"de","template":"default","app_hash":"FA+9qCX9VSu","client_ref":"o","metadata":{"a":"b"},"transaction":{"amount":"1.00","currency":"EUR","payee":"x"}}`,
		`{"to":"ada@example.com","channels":[{"type":"email"}]}`, `{"to":"+12025550100","channels":[{"type":"sms","timeout":"60s"},{"type":"voice"}]}`, `{"code":"123456"}`, `{"code":123456}`, `{"code":["123456"]}`, `{"code":"１２３４５６"}`, `{"code":"123456","code":"1"}`, `{"channel":"voice"}`, `{"phoneNumber":"+12025550100","idempotencyKey":"k"}`,
		`{"requestId":"` + id + `","otpCode":"123456"}`, `{"number":"+12025550100"}`, `{}`, `null`, `[]`, `{"to":`, "\xff", "\ufeff{}", `{"a":{"a":{"a":{"a":{}}}}}`, `{"to":"\u0000"}`, `{"metadata":{"a":1}}`,
		strings.Repeat("[", 3000), `{"to":"` + strings.Repeat("1", 4096) + `"}`,
	} {
		for i := range paths {
			f.Add(uint8(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		path := paths[int(which)%len(paths)]
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-API-Key", w.test)
		rec := httptest.NewRecorder()
		w.handlers[0].ServeHTTP(rec, r.WithContext(t.Context()))
		if rec.Code >= 500 {
			t.Fatalf("%s: %d for %q\n%s", path, rec.Code, body, rec.Body)
		}
		var answer map[string]any
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || !utf8.Valid(rec.Body.Bytes()) {
			t.Fatalf("%s: %q is no object", path, rec.Body)
		}
		if rec.Code >= 400 && (answer["code"] == "" || answer["status"] != float64(rec.Code)) {
			t.Fatalf("%s: not a problem: %s", path, rec.Body)
		}
	})
}

// FuzzIDs reads ids of nobody.
func FuzzIDs(f *testing.F) {
	f.Add("vrf_" + strings.Repeat("a", 32))
	f.Add("vrf_" + strings.Repeat("b", 32))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := gateway.Challenge(text); err == nil && gateway.VerificationID(id) != text {
			t.Fatalf("%q is a second spelling of %s", text, id)
		}
	})
}
