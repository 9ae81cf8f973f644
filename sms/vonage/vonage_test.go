package vonage_test

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
	"github.com/watchword-auth/watchword/sms/smstest"
	"github.com/watchword-auth/watchword/sms/vonage"
)

func TestSMS(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"json sha256", "form md5hash", "get sha512", "json md5", "form sha1"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			smstest.Run(t, smstest.Driver{
				Dialect: "vonage", Inbound: true, TimeSigned: true,
				Classes: []sms.Class{
					sms.RateLimited, sms.Misconfigured, sms.Unauthorized, sms.Temporary, sms.InvalidRecipient, sms.RecipientOptedOut, sms.InsufficientFunds,
					sms.ContentRejected, sms.InvalidSender,
				},
				Prepare: func(_ testing.TB, sim *carriersim.Simulator) {
					a := sim.Account("vonage")
					a.Mode = mode
					sim.SetAccount("vonage", a)
				},
				New: func(t testing.TB, s smstest.Setup) sms.Vendor {
					_, method, _ := strings.Cut(mode, " ")
					v, err := vonage.NewSMS("vonage", vonage.Config{
						BaseURL: s.BaseURL, Key: s.Account.ID, Secret: s.Account.Secret, Sender: "ACME", SignatureSecret: s.Account.Signing, SignatureMethod: method,
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

// keys of the application and of a stranger, made once: they take a while.
var keys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var made [2]*rsa.PrivateKey
	for i := range made {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		made[i] = key
	}
	return made
})

func private(t testing.TB, key *rsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func public(t testing.TB, key *rsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

const application = "aaaaaaaa-bbbb-cccc-dddd-0123456789ab"

// deaf is a driver without callbacks: with Basic authentication there are none.
type deaf struct{ sessions }

type sessions interface {
	sms.Checker
	sms.Continuer
	sms.Closer
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		custom, basic bool
	}{{"verifier", false, false}, {"hybrid", true, false}, {"verifier, basic", false, true}, {"hybrid, basic", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			smstest.Run(t, smstest.Driver{
				Dialect: "vonage-verify", NoStates: true, TimeSigned: true, WrongTries: 3,
				Classes: []sms.Class{sms.InvalidRecipient, sms.Misconfigured, sms.RateLimited, sms.InsufficientFunds, sms.Temporary, sms.Unauthorized},
				Prepare: func(t testing.TB, sim *carriersim.Simulator) {
					a := sim.Account("vonage-verify")
					a.PublicKey = public(t, keys()[0])
					sim.SetAccount("vonage-verify", a)
				},
				New: func(t testing.TB, s smstest.Setup) sms.Vendor {
					c := vonage.Config{
						BaseURL: s.BaseURL, Key: s.Account.ID, SignatureSecret: s.Account.Signing, Brand: "ACME", CustomCode: tt.custom,
						Channels: []sms.Channel{sms.SMS, sms.Voice}, Now: s.Now,
					}
					if tt.basic {
						c.Secret = s.Account.Secret
					} else {
						key := keys()[0]
						if s.Account.Secret != carriersim.New(carriersim.Options{Now: s.Now}).Account("vonage-verify").Secret {
							key = keys()[1]
						}
						c.Application, c.PrivateKey = application, private(t, key)
					}
					v, err := vonage.NewVerify("vonage_verify", c)
					if err != nil {
						t.Fatal(err)
					}
					if tt.basic {
						return deaf{v}
					}
					return v
				},
			})
		})
	}
}

// The vectors of vonage-node-sdk, packages/sms/__tests__/__dataSets__/signature.ts.
func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	for method, signature := range map[string]string{
		"md5hash": "d2e7b1dc968737c5998ad624e02f90b7",
		"md5":     "DDEBD46008C2D4E93CCE578A332A52D5",
		"sha1":    "27D0D05C2876C7CB1720DBCDBA4D492E1E55C09A",
		"sha256":  "DDB8397C2B90AAC7F3882D306475C9A5058C92322EEF43C92B298B6E0FC0D330",
		"sha512":  "E0D3C650F8C9D1A5C174D10DDDBFB003E561F59B265616208B0487C5D819481CD3C311D59CF6165ECD1139622D5BA3A256C0D763AC4A9AD9144B5A426B94FE82",
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			driver := func(secret, method string) *vonage.SMS {
				v, err := vonage.NewSMS("vonage", vonage.Config{Key: "k", Secret: "s", Sender: "ACME", SignatureSecret: secret, SignatureMethod: method})
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
			const secret = "my_secret_key_for_testing"
			fields := map[string]string{
				"message-timestamp": "2013-11-21 15:27:30", "messageId": "020000001B0FE827", "msisdn": "14843472194", "text": "Test again", "timestamp": "1385047698",
				"to": "13239877404", "type": "text", "sig": signature,
			}
			at := time.Unix(1385047698, 0)
			for transport, hook := range hooks(t, fields, at) {
				got, err := driver(secret, method).Receive(hook)
				if err != nil || len(got.Inbound) != 1 || got.Inbound[0].Text != "Test again" || got.Inbound[0].From.Reveal() != "+14843472194" {
					t.Errorf("%s: %+v, %v; the published signature is refused", transport, got, err)
				}
				other := "md5"
				if method == other {
					other = "sha1"
				}
				for what, v := range map[string]*vonage.SMS{"another secret": driver(secret+"x", method), "no secret": driver("", method), "another method": driver(secret, other)} {
					if _, err := v.Receive(hook); !errors.Is(err, sms.ErrForged) {
						t.Errorf("%s, %s: %v, want ErrForged", transport, what, err)
					}
				}
				hook.At = at.Add(sms.Tolerance + time.Second)
				if _, err := driver(secret, method).Receive(hook); !errors.Is(err, sms.ErrStale) {
					t.Errorf("%s, late: %v, want ErrStale", transport, err)
				}
			}
			fields["text"] = "Test  again"
			for transport, hook := range hooks(t, fields, at) {
				if _, err := driver(secret, method).Receive(hook); !errors.Is(err, sms.ErrForged) {
					t.Errorf("%s, another text: %v, want ErrForged", transport, err)
				}
			}
		})
	}
}

// hooks are the ways in which parameters come.
func hooks(t *testing.T, fields map[string]string, at time.Time) map[string]sms.Webhook {
	t.Helper()
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{}
	for name, value := range fields {
		form.Set(name, value)
	}
	const address = "https://id.example/v1/delivery-reports/vonage/token"
	return map[string]sms.Webhook{
		"json": {Method: http.MethodPost, URL: address, Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, Body: body, At: at},
		"form": {Method: http.MethodPost, URL: address, Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: []byte(form.Encode()), At: at},
		"get":  {Method: http.MethodGet, URL: address + "?" + form.Encode(), Header: http.Header{}, At: at},
	}
}

const signingSecret = "a-signature-secret-of-forty-characters--"

// sign adds sig by sha256, in one line of its own.
func sign(fields map[string]string, order ...string) map[string]string {
	text := ""
	for _, name := range order {
		text += "&" + name + "=" + fields[name]
	}
	mac := hmac.New(sha256.New, []byte(signingSecret))
	mac.Write([]byte(text))
	fields["sig"] = hex.EncodeToString(mac.Sum(nil))
	return fields
}

func TestSMSReceive(t *testing.T) {
	t.Parallel()
	v, err := vonage.NewSMS("vonage", vonage.Config{Key: "k", Secret: "s", Sender: "ACME", SignatureSecret: signingSecret})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 0)
	receive := func(fields map[string]string, order ...string) (sms.Received, error) {
		return v.Receive(hooks(t, sign(fields, order...), at)["json"])
	}
	receipt := func(status, code string) (sms.Received, error) {
		return receive(map[string]string{"err-code": code, "messageId": "0A1", "status": status, "timestamp": "1700000000"}, "err-code", "messageId", "status", "timestamp")
	}
	for _, tt := range []struct {
		status, code string
		state        sms.LegState
		class        sms.Class
	}{
		{"accepted", "0", sms.LegSent, ""}, {"buffered", "0", sms.LegSent, ""}, {"delivered", "0", sms.LegDelivered, ""}, {"expired", "1", sms.LegExpired, sms.RecipientUnreachable},
		{"failed", "3", sms.LegFailed, sms.InvalidRecipient}, {"failed", "9", sms.LegFailed, sms.RecipientOptedOut}, {"rejected", "6", sms.LegRejected, sms.ContentRejected},
		{"failed", "call +12025550143", sms.LegFailed, sms.RecipientUnreachable},
	} {
		got, err := receipt(tt.status, tt.code)
		if err != nil || len(got.Reports) != 1 || got.Reports[0].State != tt.state || got.Reports[0].Class != tt.class || strings.Contains(got.Reports[0].Code, "+") {
			t.Errorf("%s %s: %+v, %v", tt.status, tt.code, got, err)
		}
	}
	for _, status := range []string{"unknown", "", "DELIVERED"} {
		if got, err := receipt(status, "0"); err != nil || len(got.Reports) != 0 {
			t.Errorf("status %q: %+v, %v; want no report", status, got, err)
		}
	}
	for _, tt := range []struct {
		keyword, part string
		want          sms.Keyword
	}{{"STOP", "", sms.KeywordStop}, {"STOP", "1", sms.KeywordStop}, {"STOP", "2", ""}, {"START", "", ""}, {"HELLO", "", ""}} {
		got, err := receive(map[string]string{
			"concat-part": tt.part, "keyword": tt.keyword, "messageId": "0A2", "msisdn": "12025550143", "text": tt.keyword + " and more", "timestamp": "1700000000",
		}, "concat-part", "keyword", "messageId", "msisdn", "text", "timestamp")
		if err != nil || len(got.Inbound) != 1 || got.Inbound[0].Keyword != tt.want {
			t.Errorf("keyword %s of part %q: %+v, %v; want %q", tt.keyword, tt.part, got, err, tt.want)
		}
	}
	if _, err := receive(map[string]string{"status": "delivered", "timestamp": "1700000000"}, "status", "timestamp"); !errors.Is(err, sms.ErrMalformed) {
		t.Errorf("no messageId: %v, want ErrMalformed", err)
	}
	if _, err := receive(map[string]string{"messageId": "0A3", "status": "delivered"}, "messageId", "status"); !errors.Is(err, sms.ErrForged) {
		t.Errorf("no signed time: %v, want ErrForged", err)
	}
	for transport, hook := range hooks(t, map[string]string{"messageId": "0A3", "status": "delivered", "timestamp": "1700000000"}, at) {
		if _, err := v.Receive(hook); !errors.Is(err, sms.ErrForged) {
			t.Errorf("%s, no signature: %v, want ErrForged", transport, err)
		}
	}
	// Parameters that were signed in another division.
	whole := sign(map[string]string{"messageId": "0A4", "status": "failed", "timestamp": "1700000000"}, "messageId", "status", "timestamp")
	divided := map[string]string{"messageId": "0A4", "status=failed&timestamp": "1700000000", "sig": whole["sig"]}
	for transport, hook := range hooks(t, divided, at) {
		if _, err := v.Receive(hook); !errors.Is(err, sms.ErrForged) {
			t.Errorf("%s, divided otherwise: %v, want ErrForged", transport, err)
		}
	}
	// What is beside the signed parameters does not count for them.
	good := hooks(t, sign(map[string]string{"messageId": "0A5", "status": "failed", "timestamp": "1700000000"}, "messageId", "status", "timestamp"), at)
	for what, hook := range map[string]sms.Webhook{
		"twice":       {Method: http.MethodGet, URL: good["get"].URL + "&status=delivered", At: at},
		"with a body": {Method: http.MethodGet, URL: good["get"].URL, Body: []byte("{}"), At: at},
		"more JSON":   {Method: http.MethodPost, URL: good["json"].URL, Header: good["json"].Header, Body: append(good["json"].Body, "{}"...), At: at},
		"in the URL":  {Method: http.MethodPost, URL: good["get"].URL, Header: good["form"].Header, At: at},
	} {
		if _, err := v.Receive(hook); !errors.Is(err, sms.ErrForged) {
			t.Errorf("%s: %v, want ErrForged", what, err)
		}
	}
}

func number(t *testing.T) sms.Number {
	t.Helper()
	n, err := sms.ParseNumber("+12025550143", "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Every answer of the SMS API has status 200.
func TestSMSAnswers(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		class   sms.Class
		reached sms.Reached
	}{
		`{"messages":[{"status":"0","message-id":"a"},{"status":"0","message-id":"b"}]}`: {},
		`{"messages":[{"status":"9"}]}`:                                 {sms.InsufficientFunds, sms.NotSent},
		`{"messages":[{"status":"14"}]}`:                                {sms.Unauthorized, sms.NotSent},
		`{"messages":[{"status":"33"}]}`:                                {sms.InvalidRecipient, sms.NotSent},
		`{"messages":[{"status":"0","message-id":"a"},{"status":"5"}]}`: {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[{"status":"0"}]}`:                                 {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[{"status":"77"}]}`:                                {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[{"status":""}]}`:                                  {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[{"status":0,"message-id":"a"}]}`:                  {sms.Ambiguous, sms.MaybeSent},
		`{"messages":[]}`:                                               {sms.Ambiguous, sms.MaybeSent},
		`{}`:                                                            {sms.Ambiguous, sms.MaybeSent},
		`null`:                                                          {sms.Ambiguous, sms.MaybeSent},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		t.Cleanup(server.Close)
		v, err := vonage.NewSMS("vonage", vonage.Config{BaseURL: server.URL, Key: "k", Secret: "s", Sender: "ACME"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Send(t.Context(), sms.Leg{ID: uuid.New(), To: number(t), Text: "x", Channel: sms.SMS})
		e, _ := errors.AsType[*sms.Error](err)
		switch {
		case want.class == "" && (err != nil || got.Ref != "a"):
			t.Errorf("%s: %+v, %v", body, got, err)
		case want.class != "" && (e == nil || e.Class != want.class || e.Reached != want.reached):
			t.Errorf("%s: %v, want %s", body, err, want.class)
		}
	}
}

func TestSMSAlphabet(t *testing.T) {
	t.Parallel()
	sim := carriersim.New(carriersim.Options{Now: func() time.Time { return smstest.Noon }})
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	a := sim.Account("vonage")
	v, err := vonage.NewSMS("vonage", vonage.Config{BaseURL: server.URL + "/vonage", Key: a.ID, Secret: a.Secret, Sender: "ACME"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"plain\n\n@id.example #482910", "Ä{€}ß[~]|\\^ Ωñ", "ваш код 482910", "code `482910`", "ç"} {
		// A second is less than Vonage takes for the life of a message.
		if _, err := v.Send(t.Context(), sms.Leg{ID: uuid.New(), To: number(t), Text: text, Channel: sms.SMS, Life: time.Second}); err != nil {
			t.Fatal(err)
		}
		if got := sim.Messages("")[0].Text; got != text {
			t.Errorf("%q arrived as %q", text, got)
		}
	}
}

// The vector of vonage-ruby-sdk, test/vonage/jwt_test.rb. The body behind its payload_hash is not published: the signature and the
// claims pass, and the hash of any body we have does not.
const vector = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE1ODc0OTQ5NjIsImp0aSI6ImM1YmE4ZjI0LTFhMTQtNGMxMC1iZmRmLTNmYmU4Y2U1MTFiNSIsImlzcyI6IlZvbmFnZSIsInBheWxvYWRfaGFza" +
	"CI6ImQ2YzBlNzRiNTg1N2RmMjBlM2I3ZTUxYjMwYzBjMmE0MGVjNzNhNzc4NzliNmYwNzRkZGM3YTIzMTdkZDAzMWIiLCJhcGlfa2V5IjoiYTFiMmMzZCIsImFwcGxpY2F0aW9uX2lkIjoiYWFhYWFhYWEtYmJiYi1jY2NjLWRkZGQtMDEyMzQ1Njc4OWFiIn0." +
	"JQRKi1d0SQitmjPINfTWMpt3XZkGsLbD7EjCdXoNSbk"

const vectorSecret = "ZYtdTtGV3BCFN7tWmOWr1md66XsquMggr4W2cTtXtcPgfnI0Xw"

func verifier(t *testing.T, base, secret string) *vonage.Verify {
	t.Helper()
	v, err := vonage.NewVerify("vonage_verify", vonage.Config{
		BaseURL: base, Key: "a1b2c3d", Application: application, PrivateKey: private(t, keys()[0]), SignatureSecret: secret, Brand: "ACME", Now: func() time.Time { return smstest.Noon },
		Channels: []sms.Channel{sms.SMS, sms.WhatsApp, sms.Voice},
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// bearer makes a token of HS256, or of whatever the header says.
func bearer(secret, header, claims string) http.Header {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return http.Header{"Authorization": {"Bearer " + text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))}}
}

func TestVerifyReceive(t *testing.T) {
	t.Parallel()
	at := time.Unix(1587494962, 0)
	v := verifier(t, "", vectorSecret)
	const body = `{"request_id":"c11236f4","type":"event","channel":"sms","status":"completed"}`
	sum := sha256.Sum256([]byte(body))
	const header = `{"alg":"HS256","typ":"JWT"}`
	claims := fmt.Sprintf(`{"iat":1587494962,"jti":"1","iss":"Vonage","payload_hash":"%x","api_key":"a1b2c3d","application_id":"%s"}`, sum, application)
	hook := func(h http.Header) sms.Webhook {
		return sms.Webhook{Method: http.MethodPost, Header: h, Body: []byte(body), At: at}
	}
	got, err := v.Receive(hook(bearer(vectorSecret, header, claims)))
	if err != nil || len(got.Reports) != 1 || got.Reports[0].State != sms.LegDelivered || got.Reports[0].Ref != "c11236f4 sms" {
		t.Fatalf("Receive = %+v, %v", got, err)
	}
	for what, h := range map[string]http.Header{
		"the vector, of another body": {"Authorization": {"Bearer " + vector}},
		"another secret":              bearer(strings.TrimSuffix(vectorSecret, "nI0Xw")+"f55555", header, claims),
		"alg none": {"Authorization": {"Bearer " +
			base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "."}},
		"alg HS512":           bearer(vectorSecret, `{"alg":"HS512"}`, claims),
		"no hash":             bearer(vectorSecret, header, strings.Replace(claims, "payload_hash", "payload", 1)),
		"no time":             bearer(vectorSecret, header, strings.Replace(claims, "iat", "nbf", 1)),
		"another issuer":      bearer(vectorSecret, header, strings.Replace(claims, "Vonage", "vonage", 1)),
		"another account":     bearer(vectorSecret, header, strings.Replace(claims, "a1b2c3d", "d3c2b1a", 1)),
		"another application": bearer(vectorSecret, header, strings.Replace(claims, "aaaaaaaa", "aaaaaaab", 1)),
		"basic":               {"Authorization": {"Basic YTpi"}},
		"nothing":             {},
	} {
		if got, err := v.Receive(hook(h)); !errors.Is(err, sms.ErrForged) || len(got.Reports) > 0 {
			t.Errorf("%s: %+v, %v; want ErrForged", what, got, err)
		}
	}
	if _, err := verifier(t, "", "").Receive(hook(bearer("", header, claims))); !errors.Is(err, sms.ErrForged) {
		t.Errorf("no secret: %v, want ErrForged", err)
	}
	for _, shift := range []time.Duration{sms.Tolerance + time.Second, -sms.Tolerance - time.Second} {
		late := hook(bearer(vectorSecret, header, claims))
		late.At = at.Add(shift)
		if _, err := v.Receive(late); !errors.Is(err, sms.ErrStale) {
			t.Errorf("%v later: %v, want ErrStale", shift, err)
		}
	}
	for text, want := range map[string][]sms.LegState{
		`{"request_id":"r","type":"event","channel":"sms","status":"failed"}`:          {sms.LegFailed},
		`{"request_id":"r","type":"event","channel":"voice","status":"user_rejected"}`: {sms.LegRejected},
		`{"request_id":"r","type":"event","channel":"email","status":"failed"}`:        {},
		`{"request_id":"r","type":"event","channel":"sms","status":"action_pending"}`:  {},
		`{"request_id":"r","type":"other","channel":"sms","status":"failed"}`:          {},
		`{"request_id":"r","type":"summary","status":"completed","workflow":[{"channel":"sms","status":"expired"},` +
			`{"channel":"voice","status":"completed"},{"channel":"whatsapp","status":"unused"}]}`: {sms.LegExpired, sms.LegDelivered},
		`{"type":"event","channel":"sms","status":"failed"}`: nil,
		`[]`:                       nil,
		`{"request_id":"r"}{}`:     nil,
		`{"request_id":"r,voice"}`: nil,
	} {
		sum := sha256.Sum256([]byte(text))
		got, err := v.Receive(sms.Webhook{Header: bearer(vectorSecret, header, fmt.Sprintf(`{"iat":1587494962,"iss":"Vonage","payload_hash":"%X"}`, sum)), Body: []byte(text), At: at})
		if want == nil {
			if !errors.Is(err, sms.ErrMalformed) {
				t.Errorf("%s: %v, want ErrMalformed", text, err)
			}
			continue
		}
		if err != nil || len(got.Reports) != len(want) {
			t.Errorf("%s: %+v, %v; want %v", text, got, err, want)
			continue
		}
		for i, r := range got.Reports {
			if r.State != want[i] || r.Key == "" || (r.Class == "") != (r.State == sms.LegDelivered) {
				t.Errorf("%s: report %+v, want %s", text, r, want[i])
			}
		}
	}
}

// The vector's own signature, apart from the body that nobody has.
func TestTokenVector(t *testing.T) {
	t.Parallel()
	text := vector[:strings.LastIndex(vector, ".")]
	for secret, want := range map[string]bool{vectorSecret: true, strings.TrimSuffix(vectorSecret, "nI0Xw") + "f55555": false} {
		header, claims, _ := strings.Cut(text, ".")
		decode := func(s string) string {
			data, err := base64.RawURLEncoding.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		if got := bearer(secret, decode(header), decode(claims)).Get("Authorization") == "Bearer "+vector; got != want {
			t.Errorf("with secret %s the tokens of these tests are as published: %t, want %t", secret, got, want)
		}
	}
}

// One request a number: the old one is canceled, so that its code is dead, and the answer to a lost answer is another text.
func TestVerifyConflict(t *testing.T) {
	t.Parallel()
	sim, v := simulated(t)
	first := sms.Leg{ID: uuid.New(), To: number(t), Channel: sms.SMS, Life: 5 * time.Minute}
	one, err := v.Send(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	old := code(sim)
	two, err := v.Send(t.Context(), sms.Leg{ID: uuid.New(), To: number(t), Channel: sms.SMS, Life: 5 * time.Minute})
	if err != nil || two.Session == one.Session {
		t.Fatalf("second: %+v after %+v, %v", two, one, err)
	}
	if got, err := v.Check(t.Context(), sms.Session{ID: one.Session}, old); err != nil || got != sms.Gone {
		t.Errorf("the code of the request that gave way: %v, %v; want Gone", got, err)
	}
	if got, err := v.Check(t.Context(), sms.Session{ID: two.Session}, code(sim)); err != nil || got != sms.Approved {
		t.Errorf("the newest code: %v, %v", got, err)
	}
}

func simulated(t *testing.T) (*carriersim.Simulator, *vonage.Verify) {
	t.Helper()
	sim := carriersim.New(carriersim.Options{Now: func() time.Time { return smstest.Noon }})
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	a := sim.Account("vonage-verify")
	a.PublicKey = public(t, keys()[0])
	sim.SetAccount("vonage-verify", a)
	return sim, verifier(t, server.URL+"/vonage-verify", a.Signing)
}

// code is the newest that arrived.
func code(sim *carriersim.Simulator) string {
	text := sim.Messages("")[0].Text
	return text[strings.LastIndex(text, " ")+1:]
}

// A code that was typed is news of its leg: the same by event and by summary.
func TestVerifyCompleted(t *testing.T) {
	t.Parallel()
	sim, v := simulated(t)
	var mu sync.Mutex
	var reports []sms.Report
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got, err := v.Receive(sms.Webhook{Method: r.Method, Header: r.Header, Body: body, At: smstest.Noon})
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, got.Reports...)
	}))
	t.Cleanup(receiver.Close)
	a := sim.Account("vonage-verify")
	a.ID, a.Receipts = "a1b2c3d", receiver.URL
	sim.SetAccount("vonage-verify", a)
	taken, err := v.Send(t.Context(), sms.Leg{ID: uuid.New(), To: number(t), Channel: sms.WhatsApp, Life: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Check(t.Context(), sms.Session{ID: taken.Session}, code(sim)); err != nil || got != sms.Approved {
		t.Fatalf("Check = %v, %v", got, err)
	}
	sim.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(reports) != 2 || reports[0] != reports[1] || reports[0].State != sms.LegDelivered || reports[0].Ref != taken.Ref {
		t.Errorf("reports %+v: want delivered of %q, twice", reports, taken.Ref)
	}
}

// The channels of a request, one after another, each with a reference of its own; then a new request.
func TestVerifyContinue(t *testing.T) {
	t.Parallel()
	sim, v := simulated(t)
	leg := sms.Leg{ID: uuid.New(), To: number(t), Channel: sms.SMS, Life: 5 * time.Minute}
	taken, err := v.Send(t.Context(), leg)
	if err != nil {
		t.Fatal(err)
	}
	first, seen := code(sim), map[string]bool{taken.Ref: true}
	for _, tt := range []struct {
		channel sms.Channel
		same    bool
	}{{sms.WhatsApp, true}, {sms.Voice, true}, {sms.Voice, false}, {sms.SMS, false}, {sms.Voice, false}} {
		leg.Channel = tt.channel
		next, err := v.Continue(t.Context(), sms.Session{ID: taken.Session}, leg)
		if err != nil {
			t.Fatalf("%s: %v", tt.channel, err)
		}
		if seen[next.Ref] {
			t.Errorf("%s: reference %q is that of two legs", tt.channel, next.Ref)
		}
		seen[next.Ref] = true
		if got := sim.Messages("")[0]; got.Channel != string(tt.channel) || (code(sim) == first) != tt.same {
			t.Errorf("%s: arrived %+v after code %s", tt.channel, got, first)
		}
		taken, first = next, code(sim)
	}
	if got, err := v.Check(t.Context(), sms.Session{ID: taken.Session}, first); err != nil || got != sms.Approved {
		t.Errorf("the last code: %v, %v", got, err)
	}
}

// Only an approval of this very request passes.
func TestVerifyCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		body   string
		want   sms.Verdict
		failed bool
	}{
		{200, `{"request_id":"r1","status":"completed"}`, sms.Approved, false},
		{200, `{"request_id":"r2","status":"completed"}`, sms.Denied, false},
		{200, `{"request_id":"r1","status":"pending"}`, sms.Denied, false},
		{200, `{"request_id":"r1","status":"COMPLETED"}`, sms.Denied, false},
		{200, `{}`, sms.Denied, false},
		{200, `null`, sms.Denied, false},
		{200, ``, sms.Denied, true},
		{204, ``, sms.Denied, true},
		{302, `{"request_id":"r1","status":"completed"}`, sms.Denied, true},
		{400, `{"request_id":"r1","status":"completed"}`, sms.Denied, false},
		{422, `{}`, sms.Denied, false},
		{404, `{"request_id":"r1","status":"completed"}`, sms.Gone, false},
		{410, ``, sms.Exhausted, false},
		{409, `{"type":"https://developer.vonage.com/api-errors/verify#no-code"}`, sms.Denied, true},
		{401, ``, sms.Denied, true},
		{429, ``, sms.Denied, true},
		{500, `{"request_id":"r1","status":"completed"}`, sms.Denied, true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			if tt.body != "" {
				io.WriteString(w, tt.body)
			}
		}))
		t.Cleanup(server.Close)
		got, err := verifier(t, server.URL, "").Check(t.Context(), sms.Session{ID: "r1,voice"}, "482910")
		if got != tt.want || (err != nil) != tt.failed {
			t.Errorf("%d %s: %v, %v; want %v", tt.status, tt.body, got, err, tt.want)
		}
	}
}

// What a vendor says in words never gets into an error.
func TestVerifyProblems(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		status int
		class  sms.Class
		code   string
	}{
		`{"type":"https://developer.vonage.com/api-errors#throttled"}`:                          {429, sms.RateLimited, "throttled"},
		`{"type":"https://x/#+12025550143"}`:                                                    {402, sms.InsufficientFunds, "http_402"},
		`{"type":"https://x/#a","request_id":"../../x"}`:                                        {409, sms.Temporary, "a"},
		`{"type":"https://x/#invalid-params","invalid_parameters":[{"name":"workflow[0].to"}]}`: {422, sms.InvalidRecipient, "invalid-params"},
		`{"type":"https://x/#invalid-params","invalid_parameters":[{"name":"locale"}]}`:         {422, sms.Misconfigured, "invalid-params"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost || r.URL.Path != "/v2/verify" {
				t.Errorf("%s: %s %s was called", body, r.Method, r.URL)
			}
			w.WriteHeader(want.status)
			io.WriteString(w, body)
		}))
		t.Cleanup(server.Close)
		_, err := verifier(t, server.URL, "").Send(t.Context(), sms.Leg{ID: uuid.New(), To: number(t), Channel: sms.SMS})
		if e, ok := errors.AsType[*sms.Error](err); !ok || e.Class != want.class || e.Code != want.code || e.Reached != sms.NotSent {
			t.Errorf("%d %s: %v, want %s %s", want.status, body, err, want.class, want.code)
		}
	}
}

func TestVerifyOtherChannel(t *testing.T) {
	t.Parallel()
	v, err := vonage.NewVerify("v", vonage.Config{Brand: "ACME", Key: "k", Secret: "s"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Send(t.Context(), sms.Leg{To: number(t), Channel: sms.Voice})
	if e, ok := errors.AsType[*sms.Error](err); !ok || e.Class != sms.Misconfigured || e.Reached != sms.NotSent {
		t.Errorf("a channel that is not configured: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	key := private(t, keys()[0])
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]vonage.Config{
		"no key":    {Secret: "s", Sender: "A"},
		"no secret": {Key: "k", Sender: "A"},
		"no sender": {Key: "k", Secret: "s"},
		"method":    {Key: "k", Secret: "s", Sender: "A", SignatureMethod: "sha3"},
		"plain":     {Key: "k", Secret: "s", Sender: "A", BaseURL: "http://sms.example"},
	} {
		if _, err := vonage.NewSMS("x", c); err == nil {
			t.Errorf("SMS, %s: accepted", name)
		}
	}
	for name, c := range map[string]vonage.Config{
		"no brand":       {Key: "k", Secret: "s"},
		"no credentials": {Brand: "A"},
		"no application": {Brand: "A", PrivateKey: key, Now: time.Now},
		"no private key": {Brand: "A", Key: "k", Secret: "s", Application: "a", Now: time.Now},
		"no clock":       {Brand: "A", PrivateKey: key, Application: "a"},
		"key":            {Brand: "A", PrivateKey: "-----BEGIN PRIVATE KEY-----", Application: "a", Now: time.Now},
		"short key":      {Brand: "A", PrivateKey: private(t, small), Application: "a", Now: time.Now},
		"short secret":   {Brand: "A", Key: "k", Secret: "s", SignatureSecret: "short"},
		"channel":        {Brand: "A", Key: "k", Secret: "s", Channels: []sms.Channel{"pigeon"}},
		"channel twice":  {Brand: "A", Key: "k", Secret: "s", Channels: []sms.Channel{sms.SMS, sms.SMS}},
		"plain":          {Brand: "A", Key: "k", Secret: "s", BaseURL: "http://sms.example"},
	} {
		if _, err := vonage.NewVerify("x", c); err == nil {
			t.Errorf("Verify, %s: accepted", name)
		}
	}
}
