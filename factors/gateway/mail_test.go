package gateway_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/mail"
)

// mailing is a world whose first tenant has mail addresses.
func mailing(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	must(t, w.gateway.Tenants.Update(t.Context(), "shop", gateway.Settings{Service: "Shop", Email: true}))
	for _, g := range []*gateway.Gateway{w.gateway, w.replica} {
		g.Tenants.Forget()
	}
	return w
}

// mailed is the code in the newest mail to an address.
func (w *world) mailed(t testing.TB, to string) string {
	t.Helper()
	w.drain(t)
	mails := w.mailer.sent()
	for _, m := range slices.Backward(mails) {
		if m.To.Reveal() == to {
			_, rest, _ := strings.Cut(m.Text, "code: ")
			return rest[:6]
		}
	}
	t.Fatalf("no mail to it, of %d", len(mails))
	return ""
}

func TestMail(t *testing.T) {
	t.Parallel()
	t.Run("sent, checked, and seen", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		w.listen(t)
		a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"Ada.Lovelace@Mail.EXAMPLE.com","channels":[{"type":"email"}],"client_ref":"o1"}`).want(t, 201, "")
		if a.body["to"] != "••" || a.body["country"] != nil || strings.Contains(strings.ToLower(a.text), "ada") || strings.Contains(a.text, "xample.com\"") {
			t.Errorf("%s", a.text)
		}
		code := w.mailed(t, "Ada.Lovelace@mail.example.com")
		m := w.mailer.sent()[0]
		if m.Subject != "Your Shop code" || !strings.Contains(m.Text, "Shop code: "+code) || strings.Contains(m.Subject, code) || strings.ContainsAny(m.Text, "@#") {
			t.Errorf("%q %q", m.Subject, m.Text)
		}
		read := w.ask(t, "GET", "/v1/verifications/"+a.id(), w.live, "").want(t, 200, "")
		d := read.body["deliveries"].([]any)
		if len(d) != 1 || d[0].(map[string]any)["channel"] != "email" || d[0].(map[string]any)["status"] != "sent" {
			t.Errorf("%s", read.text)
		}
		status := w.ask(t, "POST", "/otp/status", w.live, `{"number":"Ada.Lovelace@mail.example.com"}`).want(t, 200, "")
		if status.body["delivery_status"] != "SENT" {
			t.Errorf("%s", status.text)
		}
		list := w.ask(t, "GET", "/v1/verifications?to=Ada.Lovelace@MAIL.example.com", w.live, "").want(t, 200, "")
		if len(list.body["data"].([]any)) != 1 {
			t.Errorf("%s", list.text)
		}
		w.check(t, w.live, a.id(), "wrong1").want(t, 200, "")
		right := w.check(t, w.live, a.id(), code).want(t, 200, "")
		if right.body["valid"] != true {
			t.Errorf("%s", right.text)
		}
		w.check(t, w.live, a.id(), code).want(t, 409, "already_verified")
		if got := w.told(t, a.id()); !slices.Equal(got, []string{"approved", "sent email"}) {
			t.Errorf("told %q", got)
		}
		if n := w.count(t, "SELECT count(*) FROM told WHERE hint IS NOT NULL"); n != 0 {
			t.Error("an event tells of the address")
		}
		if n := w.count(t, "SELECT count(*) FROM messages"); n != 0 {
			t.Errorf("%d texts", n)
		}
	})
	t.Run("off unless mail is configured and the tenant has it", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		refused := func(key string) {
			t.Helper()
			a := w.ask(t, "POST", "/v1/verifications", key, `{"to":"ada@example.com"}`).want(t, 400, gateway.InvalidNumber)
			if a.body["reason"] != "email_not_served" || strings.Contains(a.text, "ada") {
				t.Errorf("%s", a.text)
			}
		}
		refused(w.other)
		w.gateway.Mails = nil
		refused(w.live)
		test := w.create(t, w.test, "ada@example.com") // nothing is sent
		w.check(t, w.test, test, gateway.TestCode).want(t, 200, "")
		if n := w.count(t, "SELECT count(*) FROM mails"); n != 0 {
			t.Errorf("%d mails", n)
		}
	})
	t.Run("test mode", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		id := w.create(t, w.test, "ada@example.com")
		read := w.ask(t, "GET", "/v1/verifications/"+id, w.test, "").want(t, 200, "")
		if d := read.body["deliveries"].([]any); len(d) != 1 || d[0].(map[string]any)["channel"] != "email" {
			t.Errorf("%s", read.text)
		}
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.test, `{}`).want(t, 200, "")
		w.check(t, w.live, id, gateway.TestCode).want(t, 404, "not_found")
		w.check(t, w.test, id, gateway.TestCode).want(t, 200, "")
		w.drain(t)
		if n := len(w.mailer.sent()); n != 0 {
			t.Errorf("%d mails", n)
		}
	})
	t.Run("limits are those of numbers, whatever the spelling", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		spellings := []string{"ada@example.com", "ADA@example.com", "Ada+shop@EXAMPLE.com", "a.d.a@example.com", "ad.A+1+2@Example.Com"}
		for i, to := range spellings {
			w.create(t, w.live, to)
			early := w.ask(t, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":%q}`, spellings[(i+1)%5])).want(t, 429, gateway.TooMany)
			if early.body["scope"] != "number" {
				t.Errorf("%s", early.text)
			}
			w.db.Advance(t, 31*time.Second)
		}
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"ada@example.com"}`).want(t, 429, gateway.TooMany)
		for _, to := range []string{"ada+@example.com", "ada+x.y@example.com", "A.da@example.com"} { // SN-4
			w.ask(t, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":%q}`, to)).want(t, 429, gateway.TooMany)
		}
		for _, to := range []string{"bob@example.com", "ada@example.org", "+ada@example.com", "+bob@example.com"} {
			w.create(t, w.live, to)
		}
	})
	t.Run("two mailboxes that differ in case are verified apart", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		one := w.create(t, w.live, "ada@example.com")
		w.db.Advance(t, 31*time.Second)
		two := w.create(t, w.live, "Ada@example.com")
		if a := w.ask(t, "GET", "/v1/verifications/"+one, w.live, ""); a.body["status"] != "pending" {
			t.Errorf("%s", a.text)
		}
		w.db.Advance(t, 31*time.Second)
		w.create(t, w.live, "Ada@EXAMPLE.com")
		if a := w.ask(t, "GET", "/v1/verifications/"+two, w.live, ""); a.body["status"] != "canceled" {
			t.Errorf("%s", a.text)
		}
	})
	t.Run("again, three times at most, and every code is good", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		id := w.create(t, w.live, "ada@example.com")
		first := w.mailed(t, "ada@example.com")
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, `{"channel":"sms"}`).want(t, 400, gateway.InvalidRequest)
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, `{}`).want(t, 429, gateway.TooMany)
		for range 2 {
			w.db.Advance(t, 2*time.Minute)
			w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, `{"channel":"email"}`).want(t, 200, "")
		}
		w.db.Advance(t, 3*time.Minute)
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, `{}`).want(t, 429, gateway.TooMany)
		w.drain(t)
		if n := len(w.mailer.sent()); n != 3 {
			t.Errorf("%d mails", n)
		}
		w.check(t, w.live, id, first).want(t, 200, "")
		phone := w.create(t, w.live, number(1))
		w.ask(t, "POST", "/v1/verifications/"+phone+"/resend", w.live, `{"channel":"email"}`).want(t, 400, gateway.InvalidRequest)
	})
	t.Run("what waits is taken back", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		w.listen(t)
		canceled := w.create(t, w.live, "ada@example.com")
		w.ask(t, "POST", "/v1/verifications/"+canceled+"/cancel", w.live, "").want(t, 200, "")
		late := w.create(t, w.live, "bob@example.com")
		w.mailer.failure = &mail.Error{Class: mail.Unreachable}
		w.drain(t)
		w.db.Advance(t, 10*time.Minute+time.Second)
		w.mailer.failure = nil
		w.drain(t)
		if n := len(w.mailer.sent()); n != 0 {
			t.Errorf("%d mails", n)
		}
		if n := w.count(t, "SELECT count(*) FROM mails WHERE body IS NOT NULL"); n != 0 {
			t.Errorf("%d texts are kept", n)
		}
		if got := w.told(t, late); !slices.Equal(got, []string{"undelivered email expired"}) {
			t.Errorf("told %q", got)
		}
		if got := w.told(t, canceled); !slices.Equal(got, []string{"canceled"}) {
			t.Errorf("told %q", got)
		}
	})
	t.Run("GW-11 what is no address", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		for _, bad := range []string{
			"@", "a@", "@b.example", "a@b", "a@b.c", "a b@example.com", "a@example.com,b@example.com", "a@example.com;b@example.com", "a@example.com\r\nBcc: b@example.com", "Ada <a@example.com>", "<a@example.com>",
			`"a"@example.com`, "a@[127.0.0.1]", "a@127.0.0.1", ".a@example.com", "a.@example.com", "a..b@example.com", "a@-example.com", "a@example..com", "a@example.com.", "ä@example.com", "a@exämple.com",
			"a@example.com\x00", "a@example.com ", "+12025550143@", "a@@example.com", "a@b@example.com", strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("a.", 130) + "com", "a%00@example.com\n",
		} {
			a := w.ask(t, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":%s}`, quoted(bad)))
			if a.status != 400 || a.code() != "invalid_number" {
				t.Errorf("%q: %d %s", bad, a.status, a.text)
			}
		}
		for _, body := range []string{`{"to":["a@example.com"]}`, `{"to":"a@example.com","channels":[{"type":"sms"}]}`, `{"to":"` + number(1) + `","channels":[{"type":"email"}]}`,
			`{"to":"a@example.com","channels":[{"type":"email"},{"type":"email"}]}`, `{"to":"a@example.com","channels":[{"type":"fax"}]}`} {
			w.ask(t, "POST", "/v1/verifications", w.live, body).want(t, 400, gateway.InvalidRequest)
		}
		if n := w.count(t, "SELECT count(*) FROM mails"); n != 0 {
			t.Errorf("%d mails", n)
		}
	})
	t.Run("SN-20 a tenant's day is one, and the server's texts are not used up", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		must(t, w.gateway.Tenants.Update(t.Context(), "shop", gateway.Settings{Service: "Shop", Email: true, Day: 1}))
		w.gateway.Tenants.Forget()
		w.gateway.Limits.Everyone.Burst = 1
		w.create(t, w.live, "ada@example.com")
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"bob@example.com"}`).want(t, 402, gateway.QuotaExceeded)
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"`+number(1)+`"}`).want(t, 402, gateway.QuotaExceeded)
		w.create(t, w.other, number(2))
	})
}

// quoted is a string in JSON.
func quoted(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string
	}
	return string(data)
}
