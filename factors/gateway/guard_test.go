package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/sms"
)

// What an id or a code is worth does not show in how long the answer takes, either.
func TestAnswersTakeAlike(t *testing.T) {
	w := newWorld(t)
	number := func(i int) string { return fmt.Sprintf("+1202557%04d", i) }
	live := w.create(t, w.live, number(1))
	right := w.code(t, live)
	used, failed, expired, canceled := w.create(t, w.live, number(2)), w.create(t, w.live, number(3)), w.create(t, w.live, number(4)), w.create(t, w.live, number(5))
	codes := map[string]string{}
	for _, id := range []string{used, failed, expired, canceled} {
		codes[id] = w.code(t, id)
	}
	w.check(t, w.live, used, codes[used]).want(t, 200, "")
	for range 5 {
		w.check(t, w.live, failed, "wrong1").want(t, 200, "")
	}
	w.ask(t, "POST", "/v1/verifications/"+canceled+"/cancel", w.live, "").want(t, 200, "")
	w.db.Advance(t, 11*time.Minute)
	unknown := "vrf_" + strings.Repeat("a", 32)
	for name, pair := range map[string][2]func() *answer{
		"OT-17 right and wrong, used":     {func() *answer { return w.check(t, w.live, used, codes[used]) }, func() *answer { return w.check(t, w.live, used, "wrong1") }},
		"OT-17 right and wrong, failed":   {func() *answer { return w.check(t, w.live, failed, codes[failed]) }, func() *answer { return w.check(t, w.live, failed, "wrong1") }},
		"OT-17 right and wrong, expired":  {func() *answer { return w.check(t, w.live, expired, codes[expired]) }, func() *answer { return w.check(t, w.live, expired, "wrong1") }},
		"OT-17 right and wrong, canceled": {func() *answer { return w.check(t, w.live, canceled, codes[canceled]) }, func() *answer { return w.check(t, w.live, canceled, "wrong1") }},
		"GW-2 foreign and unknown, check": {func() *answer { return w.check(t, w.other, live, right) }, func() *answer { return w.check(t, w.other, unknown, right) }},
		"GW-2 foreign and unknown, read": {func() *answer { return w.ask(t, "GET", "/v1/verifications/"+live, w.other, "") },
			func() *answer { return w.ask(t, "GET", "/v1/verifications/"+unknown, w.other, "") }},
		"GW-20 foreign and unknown numbers": {func() *answer { return w.ask(t, "GET", "/otp/status?number=%2B12025570001", w.other, "") },
			func() *answer { return w.ask(t, "GET", "/otp/status?number=%2B12025579999", w.other, "") }},
	} {
		t.Run(name, func(t *testing.T) {
			var first, second time.Duration
			for range 4 { // the machine has other work too
				var took [2][]time.Duration
				for i := range 200 {
					for j := range 2 {
						which := (i + j) % 2
						began := time.Now()
						a := pair[which]()
						took[which] = append(took[which], time.Since(began))
						delete(a.body, "request_id")
						if other := pair[1-which](); i == 0 {
							delete(other.body, "request_id")
							if fmt.Sprint(a.body, a.status) != fmt.Sprint(other.body, other.status) {
								t.Fatalf("\n%s\n%s", a.text, other.text)
							}
						}
					}
				}
				slices.Sort(took[0])
				slices.Sort(took[1])
				if first, second = took[0][100], took[1][100]; (first - second).Abs() < max(first/5, 150*time.Microsecond) {
					return
				}
			}
			t.Errorf("%v against %v", first, second)
		})
	}
}

func TestMoreAttacks(t *testing.T) {
	t.Parallel()
	t.Run("OT-18 GW-5 no code in events, by whatever way it went", func(t *testing.T) {
		t.Parallel()
		w := mailing(t)
		w.listen(t)
		var secrets []string
		for i, id := range []string{w.create(t, w.live, number(1), `,"channels":[{"type":"sms","timeout":"30s"},{"type":"voice"}]`), w.create(t, w.live, "ada@example.com"), w.create(t, w.live, number(2))} {
			w.drain(t)
			if i == 1 {
				secrets = append(secrets, w.mailed(t, "ada@example.com"), "ada@", "example.com")
			} else {
				secrets = append(secrets, w.code(t, id), "20255600")
			}
		}
		w.db.Advance(t, 31*time.Second)
		w.tidy(t)
		w.drain(t)
		w.report(t, w.last(t), sms.LegDelivered, "")
		w.db.Advance(t, 11*time.Minute)
		w.tidy(t)
		var rows []string
		for _, table := range []string{"told", "verifications", "challenges", "messages", "mails", "legs", "receipts", "audit_events", "idempotency_keys"} {
			must(t, w.db.SelectContext(t.Context(), &rows, "SELECT r::text FROM "+table+" r"))
			all := strings.Join(rows, "\n")
			for _, secret := range secrets {
				if strings.Contains(all, "\""+secret) || strings.Contains(all, " "+secret) || strings.Contains(all, ","+secret+",") || len(secret) > 6 && strings.Contains(all, secret) {
					t.Errorf("%q is in %s", secret, table)
				}
			}
			rows = nil
		}
		if n := w.count(t, "SELECT count(*) FROM told"); n < 6 {
			t.Fatalf("%d events", n)
		}
	})
	t.Run("OT-20 GW-19 no order in ids", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		var ids []string
		for i := range 1000 {
			ids = append(ids, w.create(t, w.test, fmt.Sprintf("+1202557%04d", i)))
		}
		rises := 0
		for i := 1; i < len(ids); i++ {
			if ids[i] > ids[i-1] {
				rises++
			}
		}
		if rises < 430 || rises > 570 { // 4.4 standard deviations
			t.Errorf("%d of 999 ids are greater than the one before", rises)
		}
		first := slices.Clone(ids)
		slices.Sort(first)
		if len(slices.Compact(first)) != 1000 {
			t.Error("an id came twice")
		}
	})
	t.Run("OT-21 codes of every alphabet are uniform", func(t *testing.T) {
		t.Parallel()
		for _, alphabet := range []gateway.Alphabet{gateway.Numeric, gateway.Alphanumeric, gateway.Hex} {
			characters := alphabet.Characters()
			counts := make([]int, len(characters))
			const n = 20_000
			for range n {
				code, err := alphabet.NewCode(6)
				must(t, err)
				for _, c := range code {
					counts[strings.IndexRune(characters, c)]++
				}
			}
			expected, chi := float64(6*n)/float64(len(characters)), 0.0
			for _, count := range counts {
				chi += (float64(count) - expected) * (float64(count) - expected) / expected
			}
			if bound := float64(len(characters)-1) + 30; chi > bound { // beyond one in 10,000
				t.Errorf("%s: chi-square %.1f of at most %.1f", alphabet, chi, bound)
			}
		}
	})
	t.Run("OT-24 fifty of one number, by as many references", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for _, g := range []*gateway.Gateway{w.gateway, w.replica} {
			g.Limits.NumberHour.Burst, g.Limits.NumberDay.Burst, g.Limits.Cooldown = 100, 100, time.Millisecond
		}
		var ids []string
		for i := range 50 {
			ids = append(ids, w.create(t, w.live, number(1), fmt.Sprintf(`,"client_ref":"r%d"`, i)))
			w.db.Advance(t, time.Second)
		}
		pending := 0
		for i, id := range ids {
			a := w.ask(t, "GET", "/v1/verifications/"+id, w.live, "").want(t, 200, "")
			if a.body["status"] == "pending" {
				pending++
			} else if i < 47 {
				w.check(t, w.live, id, w.code(t, ids[49])).want(t, 410, gateway.Canceled)
			}
		}
		if pending != 3 {
			t.Errorf("%d are pending", pending)
		}
		for _, wrong := range []struct {
			id string
			n  int
		}{{ids[49], 4}, {ids[48], 4}, {ids[47], 2}} { // one count for all of them
			for range wrong.n {
				w.check(t, w.live, wrong.id, "wrong1").want(t, 200, "")
			}
		}
		w.check(t, w.live, ids[49], "wrong1").want(t, 429, gateway.TooMany)
	})
	t.Run("OT-26 clocks of others", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id := w.create(t, w.live, number(1))
		right := w.code(t, id)
		w.db.Advance(t, 11*time.Minute)
		for _, shift := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
			at := time.Now().Add(shift).UTC().Format(http.TimeFormat)
			w.ask(t, "POST", "/v1/verifications/"+id+"/check", w.live, `{"code":"`+right+`"}`, "Date", at, "X-Timestamp", at, "If-Unmodified-Since", at).want(t, 410, gateway.OTPExpired)
			a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"`+number(50+int(shift.Hours()))+`"}`, "Date", at, "X-Timestamp", at).want(t, 201, "")
			if n := w.count(t, "SELECT count(*) FROM challenges WHERE id = $1 AND expires_at = created_at + interval '10 minutes'", challenge(t, a.id())); n != 1 {
				t.Error("a client's clock has an effect")
			}
			w.db.Advance(t, time.Hour)
		}
		w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"`+number(9)+`","expires_at":"2099-01-01T00:00:00Z"}`).want(t, 400, gateway.InvalidRequest)
	})
	t.Run("SN-5 numbers that are no phones of people", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.gateway.Outbox.Countries = nil
		for name, to := range map[string]string{
			"premium": "+19005551234", "shared cost": "+498005551234", "premium elsewhere": "+499001234567", "satellite": "+881612345678", "international network": "+882161234567", "emergency": "911",
			"short code": "+112", "landline": "+493012345678", "unassigned": "+15551234567890", "nothing": "+0", "too long": "+1234567890123456",
		} {
			if a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"`+to+`"}`); a.status != 400 && a.status != 403 {
				t.Errorf("%s: %d %s", name, a.status, a.text)
			}
		}
		w.drain(t)
		if n := len(w.carrier.sent()) + w.count(t, "SELECT count(*) FROM windows"); n != 0 {
			t.Errorf("it cost %d", n)
		}
	})
	t.Run("SN-1 at once, at 29 s, at 31 s", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id := w.create(t, w.live, number(1))
		again := func() *answer { return w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, "{}") }
		again().want(t, 429, gateway.TooMany)
		w.db.Advance(t, 29*time.Second-500*time.Millisecond)
		if a := again().want(t, 429, gateway.TooMany); retryAfter(t, a) > 3*time.Second {
			t.Errorf("%s", a.text)
		}
		w.db.Advance(t, 2*time.Second)
		again().want(t, 200, "")
		w.drain(t)
		if n := len(w.carrier.sent()); n != 2 {
			t.Errorf("%d texts", n)
		}
	})
	t.Run("GW-10 4,096 bytes and no more", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		fill := func(n int) string {
			body := `{"to":"` + number(1) + `"`
			return body + strings.Repeat(" ", n-len(body)-1) + "}"
		}
		w.ask(t, "POST", "/v1/verifications", w.live, fill(4097)).want(t, 413, gateway.TooLarge)
		w.ask(t, "POST", "/v1/verifications", w.live, fill(4096)).want(t, 201, "")
	})
	t.Run("GW-6 another reference does not refill attempts", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		id := w.create(t, w.live, number(1), `,"client_ref":"a"`)
		right := w.code(t, id)
		for range 4 {
			w.check(t, w.live, id, "wrong1").want(t, 200, "")
		}
		w.db.Advance(t, 31*time.Second)
		other := w.create(t, w.live, number(1), `,"client_ref":"b"`)
		if a := w.check(t, w.live, other, right).want(t, 200, ""); a.body["valid"] != false {
			t.Errorf("%s", a.text)
		}
		if a := w.check(t, w.live, id, "wrong1").want(t, 200, ""); a.body["status"] != "failed" {
			t.Errorf("%s", a.text)
		}
		w.check(t, w.live, id, right).want(t, 410, gateway.AttemptsExhausted)
	})
}
