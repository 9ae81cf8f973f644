package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestIdempotency(t *testing.T) { // GW-4, API-3
	t.Parallel()
	w := newWorld(t)
	body := `{"to":"+12025560001","client_ref":"o1","metadata":{"a":"b"}}`
	first := w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", "k").want(t, 201, "")
	t.Run("again", func(t *testing.T) {
		for name, same := range map[string]string{"the same bytes": body, "another spelling": `{ "metadata":{"a":"\u0062"}, "client_ref":"o1","to":"+12025560001" }`} {
			again := w.askAt(t, w.handlers[1], "POST", "/v1/verifications", w.live, same, "Idempotency-Key", "k").want(t, 201, "")
			if again.text != first.text || again.header.Get("Idempotent-Replayed") != "true" || first.header.Get("Idempotent-Replayed") != "" {
				t.Errorf("%s:\n%s\n%s", name, first.text, again.text)
			}
		}
	})
	t.Run("hours later", func(t *testing.T) {
		w.db.Advance(t, 23*time.Hour)
		again := w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", "k").want(t, 201, "")
		if again.text != first.text {
			t.Errorf("\n%s\n%s", first.text, again.text)
		}
		w.db.Advance(t, 2*time.Hour)
		if first = w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", "k").want(t, 201, ""); first.id() == again.id() {
			t.Error("kept for more than a day")
		}
	})
	t.Run("another body", func(t *testing.T) {
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560002"}`, "Idempotency-Key", "k").want(t, 422, "idempotency_key_reused")
	})
	t.Run("others are independent", func(t *testing.T) {
		other := w.ask(t, "POST", "/v1/verifications", w.other, `{"to":"+12025560002"}`, "Idempotency-Key", "k").want(t, 201, "")
		test := w.ask(t, "POST", "/v1/verifications", w.test, `{"to":"+12025560002"}`, "Idempotency-Key", "k").want(t, 201, "")
		compat := w.ask(t, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025560003"}`, "Idempotency-Key", "k").want(t, 201, "")
		if other.id() == first.id() || test.id() == first.id() || compat.header.Get("Idempotent-Replayed") != "" {
			t.Error("a key of another tenant, mode or route was the same")
		}
	})
	t.Run("a hundred at once", func(t *testing.T) {
		before := w.count(t, "SELECT count(*) FROM messages")
		counts := w.race(t, 100, func(at http.Handler) *answer {
			return w.askAt(t, at, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025560004","idempotencyKey":"many"}`)
		})
		if n := w.count(t, "SELECT count(*) FROM messages") - before; n != 1 || counts["201 "] < 1 || counts["201 "]+counts["409 request_in_progress"] != 100 {
			t.Errorf("%d texts, answers %v", n, counts)
		}
		if n := w.count(t, "SELECT count(*) FROM verifications WHERE hint = '04'"); n != 1 {
			t.Errorf("%d verifications", n)
		}
		again := w.ask(t, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025560004","idempotencyKey":"many"}`).want(t, 201, "")
		if again.header.Get("Idempotent-Replayed") != "true" {
			t.Error("not replayed afterwards")
		}
	})
	t.Run("running", func(t *testing.T) { // whoever died at it holds it for half a minute
		if _, err := w.db.ExecContext(t.Context(), `UPDATE idempotency_keys SET status = NULL, answer = NULL, owner = gen_random_uuid(), started_at = wall() WHERE request = (SELECT request FROM idempotency_keys WHERE answer->'created'->>'id' = $1)`, challenge(t, first.id())); err != nil {
			t.Fatal(err)
		}
		a := w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", "k").want(t, 409, "request_in_progress")
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("%v", a.header)
		}
		w.db.Advance(t, 31*time.Second)
		if a := w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", "k").want(t, 201, ""); a.id() == first.id() {
			t.Error("nothing was done")
		}
	})
	t.Run("a right code again", func(t *testing.T) {
		id := w.create(t, w.live, number(5))
		check := fmt.Sprintf(`{"code":%q}`, w.code(t, id))
		counts := w.race(t, 20, func(at http.Handler) *answer {
			a := w.askAt(t, at, "POST", "/v1/verifications/"+id+"/check", w.live, check, "Idempotency-Key", "c")
			if a.status == 200 && a.body["valid"] != true {
				t.Errorf("%s", a.text)
			}
			return a
		})
		if counts["200 "]+counts["409 request_in_progress"] != 20 || counts["200 "] < 1 {
			t.Errorf("%v", counts)
		}
		again := w.ask(t, "POST", "/v1/verifications/"+id+"/check", w.live, check, "Idempotency-Key", "c").want(t, 200, "")
		if again.body["valid"] != true || again.body["status"] != "approved" || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s", again.text)
		}
		w.ask(t, "POST", "/v1/verifications/"+id+"/check", w.live, check).want(t, 409, "already_verified")
	})
	t.Run("a wrong code again", func(t *testing.T) {
		id := w.create(t, w.live, number(6))
		for range 7 {
			a := w.ask(t, "POST", "/v1/verifications/"+id+"/check", w.live, `{"code":"wrong1"}`, "Idempotency-Key", "w").want(t, 200, "")
			if a.body["attempts_left"] != 4.0 {
				t.Errorf("%s", a.text)
			}
		}
		a := w.ask(t, "POST", "/otp/verify", w.live, fmt.Sprintf(`{"requestId":%q,"otpCode":"wrong1"}`, id), "Idempotency-Key", "v").want(t, 400, "otp_incorrect")
		b := w.ask(t, "POST", "/otp/verify", w.live, fmt.Sprintf(`{"requestId":%q,"otpCode":"wrong1"}`, id), "Idempotency-Key", "v").want(t, 400, "otp_incorrect")
		if a.text != b.text || a.body["attempts_left"] != 3.0 {
			t.Errorf("%s\n%s", a.text, b.text)
		}
	})
	t.Run("what was refused may be asked for again", func(t *testing.T) {
		w.create(t, w.live, number(7))
		send := func() *answer {
			return w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560007"}`, "Idempotency-Key", "r")
		}
		send().want(t, 429, "rate_limited")
		w.db.Advance(t, 31*time.Second)
		send().want(t, 201, "")
		send().want(t, 201, "")
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"x"}`, "Idempotency-Key", "s").want(t, 400, "invalid_number")
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560008"}`, "Idempotency-Key", "s").want(t, 201, "")
	})
	t.Run("F-03 another text, and whoever sent it dies", func(t *testing.T) {
		id := w.create(t, w.live, number(11))
		w.db.Advance(t, 31*time.Second)
		again := func() *http.Request {
			r := httptest.NewRequest("POST", "/v1/verifications/"+id+"/resend", nil)
			r.Header.Set("X-API-Key", w.live)
			r.Header.Set("Idempotency-Key", "again")
			return r.WithContext(t.Context())
		}
		_, err := w.db.ExecContext(t.Context(), `CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''dead''; END';
			CREATE TRIGGER dies BEFORE UPDATE ON idempotency_keys FOR EACH ROW WHEN (new.answer ? 'body') EXECUTE FUNCTION dies()`)
		must(t, err)
		rec := httptest.NewRecorder()
		if w.handlers[0].ServeHTTP(rec, again()); rec.Code < 500 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		_, err = w.db.ExecContext(t.Context(), "DROP FUNCTION dies CASCADE")
		must(t, err)
		w.db.Advance(t, 2*time.Minute) // every pause is over
		rec = httptest.NewRecorder()
		if w.handlers[1].ServeHTTP(rec, again()); rec.Code != 200 || rec.Header().Get("Idempotent-Replayed") != "true" || !strings.Contains(rec.Body.String(), id) {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		if n := w.count(t, "SELECT count(*) FROM messages WHERE challenge_id = $1", challenge(t, id)); n != 2 {
			t.Errorf("%d texts", n)
		}
	})
	t.Run("whatever became of the tenant's settings", func(t *testing.T) {
		const returnURL = "https://shop.example/done"
		settings := gateway.Settings{Service: "Shop", Hosted: true, ReturnURLs: []string{returnURL}, Templates: map[string]gateway.Template{"mine": {Length: 8}}}
		must(t, w.gateway.Tenants.Update(t.Context(), "shop", settings))
		body := `{"to":"+12025560010","template":"mine","return_url":"` + returnURL + `","metadata":{"a":"b"}}`
		first := w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", "t").want(t, 201, "")
		must(t, w.gateway.Tenants.Update(t.Context(), "shop", gateway.Settings{Service: "Shop"}))
		if again := w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", "t").want(t, 201, ""); again.text != first.text {
			t.Errorf("\n%s\n%s", first.text, again.text)
		}
	})
	t.Run("a day later", func(t *testing.T) {
		w.db.Advance(t, 24*time.Hour)
		if a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560009"}`, "Idempotency-Key", "k").want(t, 201, ""); a.header.Get("Idempotent-Replayed") != "" {
			t.Error("kept for more than a day")
		}
	})
	for _, key := range []string{strings.Repeat("k", 256), "a\x7f", "ä"} {
		w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", key).want(t, 400, "invalid_request")
	}
	w.ask(t, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025560004","idempotencyKey":"a"}`, "Idempotency-Key", "b").want(t, 400, "invalid_request")
}

func challenge(t testing.TB, id string) uuid.UUID {
	t.Helper()
	raw, err := gateway.Challenge(id)
	must(t, err)
	return raw
}

func retryAfter(t testing.TB, a *answer) time.Duration {
	t.Helper()
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || a.body["retry_after"] != float64(seconds) {
		t.Fatalf("Retry-After %q, %s", a.header.Get("Retry-After"), a.text)
	}
	return time.Duration(seconds) * time.Second
}

func TestResend(t *testing.T) { // SN-1, OT-4, LIM-5
	t.Parallel()
	w := newWorld(t)
	id := w.create(t, w.live, number(1))
	first := w.code(t, id)
	resend := func(body string) *answer { return w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, body) }
	for _, pause := range []time.Duration{30, 60, 120, 120} {
		a := resend("{}").want(t, 429, "rate_limited")
		if wait := retryAfter(t, a); wait > pause*time.Second || wait < (pause-5)*time.Second || a.body["scope"] != "number" {
			t.Fatalf("wait %v, want %v: %s", wait, pause*time.Second, a.text)
		}
		for range 2 {
			w.check(t, w.live, id, "123") // no code at all
		}
		w.db.Advance(t, pause*time.Second)
		resend(`{"channel":"voice"}`).want(t, 200, "")
	}
	w.db.Advance(t, 2*time.Minute)
	if a := resend("{}").want(t, 429, "rate_limited"); a.body["reason"] != "sends_exhausted" {
		t.Errorf("%s", a.text)
	}
	a := w.ask(t, "GET", "/v1/verifications/"+id, w.live, "").want(t, 200, "")
	if len(a.body["deliveries"].([]any)) != 5 || a.body["attempts_left"] != 5.0 {
		t.Errorf("%s", a.text)
	}
	if a := w.check(t, w.live, id, first).want(t, 200, ""); a.body["valid"] != true {
		t.Errorf("the first code after four resends: %s", a.text)
	}
	resend(`{"channel":"pigeon"}`).want(t, 400, "invalid_request")
}

func TestCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(t, w.live, number(1))
	right := w.code(t, id)
	for range 2 { // it stays canceled
		a := w.ask(t, "POST", "/v1/verifications/"+id+"/cancel", w.live, "").want(t, 200, "")
		if a.body["status"] != "canceled" {
			t.Fatalf("%s", a.text)
		}
	}
	w.check(t, w.live, id, right).want(t, 410, "canceled")
	w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, "{}").want(t, 410, "canceled")
	if n, err := w.worker.Drain(t.Context()); n != 0 || err != nil {
		t.Errorf("%d texts went out, %v", n, err)
	}
	if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'verification.cancel' AND client_id = 'shop'"); n != 1 {
		t.Errorf("%d records", n)
	}
	w.db.Advance(t, 24*time.Hour+time.Second)
	w.ask(t, "GET", "/v1/verifications/"+id, w.live, "").want(t, 404, "not_found")
}

func TestLimits(t *testing.T) { // GW-9, SN-2, SN-3, SN-15, SN-19, SN-20, SND-4
	t.Parallel()
	t.Run("SN-3 fifty at once", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		counts := w.race(t, 50, func(at http.Handler) *answer {
			return w.askAt(t, at, "POST", "/v1/verifications", w.live, `{"to":"+12025560001"}`)
		})
		if counts["201 "] != 1 || counts["429 rate_limited"] != 49 || w.count(t, "SELECT count(*) FROM messages") != 1 {
			t.Errorf("%v", counts)
		}
		if n := w.count(t, "SELECT sum(used) FROM shared_windows WHERE name = 'gateway-day'"); n != 1 {
			t.Errorf("the budget lost %d", n)
		}
	})
	t.Run("SN-2 one number, over tenants and channels", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for i := range 5 {
			key := []string{w.live, w.other}[i%2]
			w.create(t, key, number(1), []string{"", `,"channels":[{"type":"voice"}]`}[i%2])
			w.db.Advance(t, 31*time.Second)
		}
		for _, key := range []string{w.live, w.other} {
			a := w.ask(t, "POST", "/v1/verifications", key, `{"to":"+12025560001"}`).want(t, 429, "rate_limited")
			if wait := retryAfter(t, a); a.body["scope"] != "number" || a.body["reason"] != nil || wait > time.Hour || wait < 55*time.Minute {
				t.Errorf("%s", a.text)
			}
		}
		w.create(t, w.live, number(2)) // others go on
		w.db.Advance(t, time.Hour)
		for range 5 {
			w.create(t, w.live, number(1))
			w.db.Advance(t, 31*time.Second)
		}
		w.db.Advance(t, time.Hour)
		a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560001"}`).want(t, 429, "rate_limited")
		if wait := retryAfter(t, a); wait < 20*time.Hour {
			t.Errorf("the eleventh in a day: %s", a.text)
		}
	})
	t.Run("SN-20 a tenant's day", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		must(t, w.gateway.Tenants.Update(t.Context(), "shop", gateway.Settings{Service: "Shop", Day: 3, NumberHour: 2}))
		w.replica.Tenants.Forget()
		for i := range 3 {
			w.create(t, w.live, number(i))
		}
		a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560009"}`).want(t, 402, "quota_exceeded")
		if wait := retryAfter(t, a); wait < 22*time.Hour || wait > 25*time.Hour {
			t.Errorf("%s", a.text)
		}
		w.create(t, w.other, number(9))
		if n := w.count(t, "SELECT count(*) FROM challenges"); n != 4 {
			t.Errorf("%d challenges", n)
		}
		if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'verification.create' AND reason = 'gateway-day'"); n != 1 { // AD-12
			t.Errorf("%d refusals recorded", n)
		}
		w.db.Advance(t, 25*time.Hour)
		w.create(t, w.live, number(9))
	})
	t.Run("SN-15 the last of a budget", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		must(t, w.gateway.Tenants.Update(t.Context(), "shop", gateway.Settings{Service: "Shop", Day: 10}))
		w.replica.Tenants.Forget()
		next := make(chan string, 60)
		for i := range 60 {
			next <- number(i)
		}
		counts := w.race(t, 60, func(at http.Handler) *answer {
			return w.askAt(t, at, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":%q}`, <-next))
		})
		if counts["201 "] != 10 || counts["402 quota_exceeded"] != 50 {
			t.Errorf("%v", counts)
		}
	})
	t.Run("a tenant's minute", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		must(t, w.gateway.Tenants.Update(t.Context(), "shop", gateway.Settings{Service: "Shop", Minute: 2, NumberHour: 1}))
		w.create(t, w.live, number(1))
		w.create(t, w.live, number(2))
		if a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560003"}`).want(t, 429, "rate_limited"); a.body["scope"] != "tenant" || retryAfter(t, a) > 65*time.Second {
			t.Errorf("%s", a.text)
		}
		w.db.Advance(t, 65*time.Second)
		w.create(t, w.live, number(3))
		if a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560001"}`).want(t, 429, "rate_limited"); a.body["scope"] != "number" { // the tenant's own bound
			t.Errorf("%s", a.text)
		}
	})
	t.Run("a key's second", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.gateway.Rate = 3
		for i := range 3 {
			a := w.ask(t, "GET", "/v1/verifications", w.live, "").want(t, 200, "")
			if a.header.Get("RateLimit-Limit") != "3" || a.header.Get("RateLimit-Remaining") != strconv.Itoa(2-i) {
				t.Errorf("%v", a.header)
			}
		}
		if a := w.ask(t, "GET", "/v1/verifications", w.live, "").want(t, 429, "rate_limited"); a.body["scope"] != "key" || retryAfter(t, a) != time.Second {
			t.Errorf("%s", a.text)
		}
		w.ask(t, "GET", "/v1/verifications", w.other, "").want(t, 200, "")
		w.ask(t, "GET", "/v1/verifications", w.test, "").want(t, 200, "")
		w.now = w.now.Add(time.Second)
		w.ask(t, "GET", "/v1/verifications", w.live, "").want(t, 200, "")
	})
}

// Whoever opted out, or whose prefix is stopped, is not texted, and the program is told so in words that stay: SN-13, SN-7.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.db.ExecContext(t.Context(), `INSERT INTO opt_outs (recipient, sender, hint, country, source) VALUES ($1, 'x', '01', 'US', 'reply')`, w.keys.Fingerprint("number", "+12025560001")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.ExecContext(t.Context(), `INSERT INTO send_breakers (scope, key, until, sent, used) VALUES ('prefix', $1, wall() + interval '1 hour', 100, 0)`, w.keys.Fingerprint("number prefix", "+1202557")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560001"}`).want(t, 403, "opted_out")
		w.ask(t, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025570001"}`).want(t, 403, "fraud_suspected")
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+4915112345678"}`).want(t, 403, "country_not_served")
	}
	if n := w.count(t, "SELECT count(*) FROM messages") + w.count(t, "SELECT count(*) FROM windows") + w.count(t, "SELECT count(*) FROM shared_windows"); n != 0 {
		t.Errorf("refusals cost something: %d", n)
	}
	if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'verification.create' AND outcome = 'refused' AND reason IN ('recipient_opted_out', 'blocked_fraud', 'region_blocked')"); n != 9 {
		t.Errorf("%d refusals recorded", n)
	}
}

func TestVendorsDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.carrier.fail(&sms.Error{Class: sms.Temporary, Reached: sms.NotSent})
	for i := range 4 { // they find out by trying
		w.ask(t, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":%q}`, number(i)))
		if _, err := w.worker.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := w.count(t, "SELECT count(*) FROM challenges")
	a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560009"}`, "Idempotency-Key", "k").want(t, 503, "delivery_unavailable")
	if retryAfter(t, a) != 5*time.Second || w.count(t, "SELECT count(*) FROM challenges") != before {
		t.Errorf("%s", a.text)
	}
}

func TestDatabaseDown(t *testing.T) { // F-31, REL-1
	t.Parallel()
	w := newWorld(t)
	id := w.create(t, w.live, number(1))
	right := w.code(t, id)
	w.db.Outage(t)
	a := w.check(t, w.live, id, right).want(t, 503, "delivery_unavailable")
	if strings.Contains(a.text, "pq:") || strings.Contains(a.text, "connection") {
		t.Errorf("%s", a.text)
	}
	w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560002"}`).want(t, 503, "delivery_unavailable")
	w.ask(t, "POST", "/v1/verifications", w.other, `{"to":"+12025560002"}`).want(t, 503, "delivery_unavailable") // not 401: nobody is said not to exist
}

func TestCompatible(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sent := w.ask(t, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025560001","idempotencyKey":"o1","locale":"de"}`).want(t, 201, "")
	data := sent.body["data"].(map[string]any)
	id := data["requestId"].(string)
	if data["status"] != "pending" || data["attemptsLeft"] != 5.0 || data["expiresAt"] == "" {
		t.Fatalf("%s", sent.text)
	}
	status := func(want, delivery string) {
		t.Helper()
		byID := w.ask(t, "GET", "/otp/status?requestId="+id, w.live, "").want(t, 200, "")
		byNumber := w.ask(t, "POST", "/otp/status", w.live, `{"number":"+1 202 556 0001"}`).want(t, 200, "")
		if byID.text != byNumber.text || byID.body["delivery_status"] != delivery || byID.body["data"].(map[string]any)["status"] != want {
			t.Fatalf("%s\n%s\nwant %s, %s", byID.text, byNumber.text, want, delivery)
		}
	}
	status("pending", "SENT")
	if _, err := w.worker.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	status("pending", "SENT")
	w.delivered(t)
	status("pending", "DELIVERED")
	wrong := w.ask(t, "POST", "/otp/verify", w.live, fmt.Sprintf(`{"requestId":%q,"otpCode":"000000"}`, id)).want(t, 400, "otp_incorrect")
	if wrong.body["attempts_left"] != 4.0 || wrong.body["message"] != wrong.body["detail"] {
		t.Errorf("%s", wrong.text)
	}
	right := w.ask(t, "POST", "/otp/verify", w.live, fmt.Sprintf(`{"requestId":%q,"otpCode":%q}`, id, w.code(t, id))).want(t, 200, "")
	if right.text != `{"data":{"verified":true}}`+"\n" {
		t.Errorf("%s", right.text)
	}
	status("approved", "DELIVERED")
	w.ask(t, "POST", "/otp/verify", w.live, fmt.Sprintf(`{"requestId":%q,"otpCode":"000000"}`, id)).want(t, 409, "already_verified")
	for _, body := range []string{`{}`, `{"requestId":"x","number":"+12025560001"}`, `{"requestId":""}`} {
		w.ask(t, "POST", "/otp/status", w.live, body).want(t, 400, "invalid_request")
	}
	w.ask(t, "GET", "/otp/status?requestId=x", w.live, "").want(t, 404, "not_found")
	w.ask(t, "GET", "/otp/status?requestId=x&requestId=y", w.live, "").want(t, 400, "invalid_request")
	expired := w.ask(t, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025560002","channel":"voice"}`).want(t, 201, "").body["data"].(map[string]any)["requestId"].(string)
	w.db.Advance(t, 11*time.Minute)
	if a := w.ask(t, "GET", "/otp/status?requestId="+expired, w.live, ""); a.body["delivery_status"] != "EXPIRED" {
		t.Errorf("%s", a.text)
	}
	bad := w.ask(t, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025560003","channel":"pigeon","appHash":"x","amount":"1"}`).want(t, 400, "invalid_request")
	for _, pointer := range []string{"/channel", "/appHash", "/currency", "/payee"} {
		if !strings.Contains(bad.text, `"pointer":"`+pointer+`"`) {
			t.Errorf("%s is not pointed at: %s", pointer, bad.text)
		}
	}
}

// A code for a payment is good for exactly that payment: TX-1, TX-2, TXN-3.
func TestPayments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pay := `{"amount":"129.90","currency":"EUR","payee":"Gas AG","account":"DE89370400440532013000"}`
	begin := func(n int) (id, code string) {
		t.Helper()
		id = w.create(t, w.live, number(n), `,"transaction":`+pay)
		return id, w.code(t, id)
	}
	id, code := begin(1)
	a := w.ask(t, "GET", "/v1/verifications/"+id, w.live, "").want(t, 200, "")
	if shown := a.body["transaction"].(map[string]any); shown["amount"] != "129.90" || shown["account"] != "••••••••••••••••••3000" {
		t.Errorf("%s", a.text)
	}
	if n := w.count(t, "SELECT count(*) FROM verifications WHERE request::text LIKE '%0400440532%'"); n != 0 {
		t.Error("the account is stored as it is")
	}
	w.ask(t, "POST", "/v1/verifications/"+id+"/check", w.live, fmt.Sprintf(`{"code":%q}`, code)).want(t, 400, "invalid_request")
	check := func(id, code, payment string) *answer {
		return w.ask(t, "POST", "/v1/verifications/"+id+"/check", w.live, fmt.Sprintf(`{"code":%q,"transaction":%s}`, code, payment))
	}
	if a := check(id, code, strings.Replace(pay, "129.90", "129.9", 1)).want(t, 200, ""); a.body["valid"] != true {
		t.Errorf("the same amount, spelt otherwise: %s", a.text)
	}
	for n, change := range [][2]string{{"129.90", "129.91"}, {"EUR", "USD"}, {"Gas AG", "Gas AC"}, {"3000", "3001"}, {`"}`, `","reference":"x"}`}} {
		id, code := begin(10 + n)
		check(id, code, strings.Replace(pay, change[0], change[1], 1)).want(t, 400, "transaction_mismatch")
		check(id, code, pay).want(t, 410, "canceled") // the code is dead
	}
	plain := w.create(t, w.live, number(20))
	check(plain, w.code(t, plain), pay).want(t, 400, "transaction_mismatch")
	compat := w.ask(t, "POST", "/otp/send", w.live, `{"phoneNumber":"+12025560021","amount":"5","currency":"EUR","payee":"Gas AG"}`).want(t, 201, "").body["data"].(map[string]any)["requestId"].(string)
	text := w.text(t, compat)
	if !strings.Contains(text, "EUR 5.00") || !strings.Contains(text, "Gas AG") { // TX-22
		t.Errorf("%s", text)
	}
	verify := fmt.Sprintf(`{"requestId":%q,"otpCode":%q,"amount":"%%s","currency":"EUR","payee":"Gas AG"}`, compat, w.code(t, compat))
	w.ask(t, "POST", "/otp/verify", w.live, fmt.Sprintf(verify, "5")).want(t, 200, "")
	for _, bad := range []string{`{"amount":129.90,"currency":"EUR","payee":"x"}`, `{"amount":"1e3","currency":"EUR","payee":"x"}`, `{"amount":"-1","currency":"EUR","payee":"x"}`, `{"amount":"1","currency":"eur","payee":"x"}`,
		`{"amount":"1","currency":"EUR","payee":""}`, `{"amount":"1","currency":"EUR","payee":"a\nb"}`, `{"amount":"1","currency":"EUR","payee":"\u202eb"}`, `{"amount":"1","currency":"EUR","payee":"https://x.example"}`, `{"amount":"1","currency":"EUR","payee":"@x #1"}`} {
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560030","transaction":`+bad+`}`).want(t, 400, "invalid_request")
	}
}

// There is one code for one payment, however many texts, and it lives no longer for them: OTP-6, LIM-1.
func TestPaymentsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, key := range map[string]string{"live": w.live, "test": w.test} {
		a := w.ask(t, "POST", "/v1/verifications", key, `{"to":"+12025560001","transaction":{"amount":"5","currency":"EUR","payee":"Gas AG"}}`).want(t, 201, "")
		w.db.Advance(t, 31*time.Second)
		again := w.ask(t, "POST", "/v1/verifications/"+a.id()+"/resend", key, `{"channel":"voice"}`).want(t, 200, "")
		if again.body["expires_at"] != a.body["expires_at"] {
			t.Errorf("%s: %s", name, again.text)
		}
		if n := w.count(t, "SELECT cardinality(macs) FROM challenges WHERE id = $1", challenge(t, a.id())); n != 1 {
			t.Errorf("%s: %d codes", name, n)
		}
	}
	w.drain(t)
	if legs := w.carrier.sent(); len(legs) != 2 || legs[0].Code != legs[1].Code || legs[0].Channel == legs[1].Channel {
		t.Errorf("%v", legs)
	}
}

// A template's text gives way to the product's own where what it has to name makes it too long: SN-18.
func TestLongPayees(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.gateway.Tenants.Update(t.Context(), "shop", gateway.Settings{Service: "Shop", Templates: map[string]gateway.Template{"pay": {
		Text: "Hello! Thank you for your order. {{pin}} approves {{amount}} {{currency}} to {{payee}}, for {{minutes}} minutes.", Host: "pay.shop.example.com"}}}))
	w.gateway.Tenants.Forget()
	for n, tt := range []struct{ payee, own string }{{"Gas AG", "Thank you"}, {strings.Repeat("Ж", 40), ""}} {
		id := w.create(t, w.live, number(n), fmt.Sprintf(`,"template":"pay","transaction":{"amount":"5","currency":"EUR","payee":%q}`, tt.payee))
		w.drain(t)
		text := w.last(t).Text
		if !sms.Fits(text) || !strings.Contains(text, w.code(t, id)) || !strings.Contains(text, tt.payee[:6]) || !strings.Contains(text, tt.own) {
			t.Errorf("%s", text)
		}
	}
}

// Test keys reach no vendor, prove nothing live, and have numbers with a story each: GW-15, OTP-10, OT-9.
func TestTestMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	send := func(n string) *answer {
		return w.ask(t, "POST", "/v1/verifications", w.test, fmt.Sprintf(`{"to":"+12025550%s","channels":[{"type":"sms"},{"type":"voice"}]}`, n))
	}
	delivery := func(id string) string {
		t.Helper()
		list := w.ask(t, "GET", "/v1/verifications/"+id, w.test, "").want(t, 200, "").body["deliveries"].([]any)
		d := list[len(list)-1].(map[string]any)
		return fmt.Sprint(d["channel"], " ", d["status"])
	}
	for n, want := range map[string]string{"100": "sms delivered", "101": "sms undelivered", "102": "sms sent", "103": "sms sent", "109": "sms delivered", "110": "voice delivered", "143": "sms delivered"} {
		a := send(n).want(t, 201, "")
		if a.body["test"] != true {
			t.Errorf("%s", a.text)
		}
		if got := delivery(a.id()); got != want {
			t.Errorf("0%s: %s, want %s", n, got, want)
		}
	}
	late := send("102").id()
	w.db.Advance(t, 21*time.Second)
	if got := delivery(late); got != "sms delivered" {
		t.Errorf("after 20 s: %s", got)
	}
	if a := send("104").want(t, 400, "invalid_number"); a.body["reason"] != "landline" {
		t.Errorf("%s", a.text)
	}
	send("105").want(t, 403, "opted_out")
	send("106").want(t, 403, "fraud_suspected")
	if a := send("107").want(t, 429, "rate_limited"); retryAfter(t, a) != time.Minute {
		t.Errorf("%s", a.text)
	}
	short := send("108").id()
	w.db.Advance(t, 6*time.Second)
	w.check(t, w.test, short, gateway.TestCode).want(t, 410, "otp_expired")
	for range 30 { // never limited
		id := send("100").want(t, 201, "").id()
		w.check(t, w.test, id, "000000").want(t, 200, "")
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.test, "{}").want(t, 200, "")
	}
	id := send("100").id()
	w.check(t, w.live, id, gateway.TestCode).want(t, 404, "not_found")
	w.ask(t, "GET", "/v1/verifications/"+id, w.live, "").want(t, 404, "not_found")
	if a := w.check(t, w.test, id, gateway.TestCode).want(t, 200, ""); a.body["valid"] != true {
		t.Errorf("%s", a.text)
	}
	w.ask(t, "GET", "/v1/verifications/"+id, w.live, "").want(t, 404, "not_found") // nor once it is approved
	live := w.create(t, w.live, number(1))
	if w.code(t, live) != gateway.TestCode {
		if a := w.check(t, w.live, live, gateway.TestCode).want(t, 200, ""); a.body["valid"] != false {
			t.Error("the fixed code opened a live verification")
		}
	}
	w.check(t, w.test, live, w.code(t, live)).want(t, 404, "not_found")
	for _, n := range gateway.TestNumbers() {
		w.ask(t, "POST", "/otp/send", w.live, fmt.Sprintf(`{"phoneNumber":%q}`, n.Number)).want(t, 422, "test_number_in_live_mode")
	}
	if n := w.count(t, "SELECT count(*) FROM messages"); n != 1 {
		t.Errorf("%d texts, want the live one alone", n)
	}
	if n := w.count(t, "SELECT count(*) FROM windows WHERE key <> $1", w.keys.Fingerprint("number", number(1))); n != 1 { // the pause of the live number
		t.Errorf("tests count in %d windows", n)
	}
}

// What each request costs, counted at the socket once the key is known.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	w := mailing(t)
	w.listen(t)
	for i := range 3 {
		mailed := w.create(t, w.live, fmt.Sprintf("a%d@example.com", i))
		w.check(t, w.live, mailed, "wrong1")
	}
	for i := range 3 { // statements are prepared once per connection
		id := w.create(t, w.live, number(i))
		w.ask(t, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":%q}`, number(10+i)), "Idempotency-Key", fmt.Sprint(i)).want(t, 201, "")
		w.check(t, w.live, id, "wrong1")
		w.ask(t, "GET", "/otp/status?requestId="+id, w.live, "")
		w.ask(t, "GET", "/otp/status?number=%2B12025560001", w.live, "")
		w.check(t, w.other, id, "wrong1")
	}
	cost := func(what string, most int64, do func()) {
		t.Helper()
		before := w.db.RoundTrips.Load()
		do()
		if got := w.db.RoundTrips.Load() - before; got > most || got == 0 {
			t.Errorf("%s: %d round trips, at most %d", what, got, most)
		}
	}
	var id string
	cost("send", 1, func() { id = w.create(t, w.live, number(5)) })
	cost("send, repeatable", 2, func() {
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560006"}`, "Idempotency-Key", "k").want(t, 201, "")
	})
	cost("send, repeated", 1, func() {
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560006"}`, "Idempotency-Key", "k").want(t, 201, "")
	})
	cost("send by mail", 1, func() { w.create(t, w.live, "ada@example.com") })
	cost("send, with a channel to follow", 1, func() {
		w.create(t, w.live, number(7), `,"channels":[{"type":"sms","timeout":"60s"},{"type":"voice"}]`)
	})
	right := w.code(t, id)
	cost("status", 1, func() { w.ask(t, "GET", "/otp/status?requestId="+id, w.live, "").want(t, 200, "") })
	cost("status of a number", 1, func() { w.ask(t, "GET", "/otp/status?number=%2B12025560005", w.live, "").want(t, 200, "") })
	cost("verify, wrong", 1, func() { w.check(t, w.live, id, "wrong1").want(t, 200, "") })
	cost("verify, right", 1, func() { w.check(t, w.live, id, right).want(t, 200, "") })
	cost("verify, over", 1, func() { w.check(t, w.live, id, right).want(t, 409, "already_verified") })
	cost("refused", 1, func() { w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560005"}`) })
	cost("of nobody", 1, func() { w.check(t, w.other, id, right).want(t, 404, "not_found") })
}

// What happens is told in the statement in which it happens, once, and never of tests.
func TestHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.listen(t)
	approved, failed, canceled := w.create(t, w.live, number(1)), w.create(t, w.live, number(2)), w.create(t, w.live, number(3))
	w.check(t, w.live, approved, w.code(t, approved))
	for range 6 {
		w.check(t, w.live, failed, "wrong1")
	}
	for range 2 {
		w.ask(t, "POST", "/v1/verifications/"+canceled+"/cancel", w.live, "")
	}
	w.check(t, w.test, w.create(t, w.test, number(1)), gateway.TestCode)
	for event, id := range map[string]string{gateway.EventApproved: approved, gateway.EventFailed: failed, gateway.EventCanceled: canceled} {
		if n := w.count(t, "SELECT count(*) FROM told WHERE event = $1 AND id = $2 AND public_id = $3 AND tenant = 'shop' AND hint LIKE '0_'", event, challenge(t, id), id); n != 1 {
			t.Errorf("%s: %d", event, n)
		}
	}
	if n := w.count(t, "SELECT count(*) FROM told"); n != 3 {
		t.Errorf("%d events", n)
	}
}

// delivered has every text that was sent arrive.
func (w *world) delivered(t *testing.T) {
	t.Helper()
	if _, err := w.db.ExecContext(t.Context(), "UPDATE messages SET state = 'delivered', updated_at = wall() WHERE state = 'sent'"); err != nil {
		t.Fatal(err)
	}
}

// listen keeps events.
func (w *world) listen(t *testing.T) {
	t.Helper()
	if _, err := w.db.ExecContext(t.Context(), "CREATE TABLE told (event text, id uuid, public_id text, tenant text, client_ref text, hint text, reason text, channel text)"); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*gateway.Gateway{w.gateway, w.replica} {
		g.Happened = func(_ context.Context, q *postgres.Query, from string) {
			q.With("told_"+from, "INSERT INTO told SELECT event, id, public_id, tenant, client_ref, hint, reason, channel FROM "+from)
		}
	}
}

// A worker in the same process is woken when a text is stored, and only then: nobody is told by way of the database, which lets one such transaction commit after another.
func TestWake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	woken := 0
	w.gateway.Outbox.Wake = func() { woken++ }
	heard := make(chan string, 10)
	listening, stop := context.WithCancel(t.Context())
	defer stop()
	go postgres.Listen(listening, w.db.DSN, "watchword_outbox", time.Hour, func(payload string) { heard <- payload }) //nolint:errcheck // it ends with the test
	<-heard                                                                                                           // it is connected
	id := w.create(t, w.live, number(1))
	if woken != 1 {
		t.Errorf("woken %d times by a text", woken)
	}
	w.check(t, w.live, id, "wrong1")
	w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"x"}`)
	if woken != 1 {
		t.Errorf("woken %d times by one text", woken)
	}
	if _, err := w.db.ExecContext(t.Context(), "NOTIFY watchword_outbox, 'last'"); err != nil {
		t.Fatal(err)
	}
	if first := <-heard; first != "last" {
		t.Errorf("the database was asked to tell: %q", first)
	}
}
