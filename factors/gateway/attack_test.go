package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/factors/gateway"
)

func TestKeys(t *testing.T) { // GW-1, GW-3, API-1
	t.Parallel()
	w := newWorld(t)
	id := w.create(t, w.live, number(1))
	t.Run("GW-1 nobody", func(t *testing.T) {
		revokedID, revoked, err := w.gateway.Tenants.CreateKey(t.Context(), "shop", gateway.NewKey{})
		must(t, err)
		w.ask(t, "GET", "/v1/verifications/"+id, revoked, "").want(t, 200, "") // and now it is remembered
		must(t, w.replica.Tenants.RevokeKey(t.Context(), revokedID))           // by another process, of which this one has not heard
		expiring := w.key(t, "shop", gateway.NewKey{Life: time.Minute})
		w.ask(t, "GET", "/v1/verifications/"+id, expiring, "").want(t, 200, "")
		w.db.Advance(t, 61*time.Second)
		for name, try := range map[string]func(method, path, body string) *answer{
			"none":              func(m, p, b string) *answer { return w.ask(t, m, p, "", b) },
			"wrong":             func(m, p, b string) *answer { return w.ask(t, m, p, swapped(w.live), b) },
			"revoked":           func(m, p, b string) *answer { return w.ask(t, m, p, revoked, b) },
			"expired":           func(m, p, b string) *answer { return w.ask(t, m, p, expiring, b) },
			"in the query":      func(m, p, b string) *answer { return w.ask(t, m, p+"?api_key="+w.live+"&X-API-Key="+w.live, "", b) },
			"as a user name":    func(m, p, b string) *answer { return w.ask(t, m, p, "", b, "Authorization", basic(w.live)) },
			"two that differ":   func(m, p, b string) *answer { return w.ask(t, m, p, w.live, b, "Authorization", "Bearer "+w.other) },
			"a foreign token":   func(m, p, b string) *answer { return w.ask(t, m, p, "", b, "Authorization", "Bearer foreign.token") },
			"what is no token":  func(m, p, b string) *answer { return w.ask(t, m, p, "", b, "Authorization", "Bearer x") },
			"a key that is SQL": func(m, p, b string) *answer { return w.ask(t, m, p, "otp_live_' OR '1'='1", b) },
			"bytes":             func(m, p, b string) *answer { return w.ask(t, m, p, "otp_live_\x00\xff", b) },
		} {
			before := w.count(t, "SELECT count(*) FROM verifications") + w.count(t, "SELECT coalesce(sum(attempts), 0) FROM challenges")
			for _, request := range [][3]string{{"POST", "/v1/verifications", `{"to":"+12025560002"}`}, {"GET", "/v1/verifications/" + id, ""}, {"POST", "/v1/verifications/" + id + "/check", `{"code":"123456"}`},
				{"POST", "/v1/verifications/" + id + "/cancel", ""}, {"POST", "/v1/verifications/" + id + "/resend", "{}"}, {"GET", "/v1/verifications", ""}, {"POST", "/otp/send", `{"phoneNumber":"+12025560002"}`}} {
				a := try(request[0], request[1], request[2])
				if a.status != 401 || a.code() != "invalid_api_key" || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: %s %s: %d %s", name, request[0], request[1], a.status, a.text)
				}
			}
			if after := w.count(t, "SELECT count(*) FROM verifications") + w.count(t, "SELECT coalesce(sum(attempts), 0) FROM challenges"); after != before {
				t.Errorf("%s changed something", name)
			}
		}
	})
	t.Run("a tenant that is disabled", func(t *testing.T) {
		must(t, w.replica.Tenants.SetDisabled(t.Context(), "bank", true))
		w.ask(t, "GET", "/v1/verifications", w.other, "").want(t, 401, "invalid_api_key")
		must(t, w.replica.Tenants.SetDisabled(t.Context(), "bank", false))
		w.ask(t, "GET", "/v1/verifications", w.other, "").want(t, 200, "")
	})
	t.Run("GW-3 scopes", func(t *testing.T) {
		only := func(scope gateway.Scope) string {
			return w.key(t, "shop", gateway.NewKey{Scopes: []gateway.Scope{scope}})
		}
		w.ask(t, "POST", "/v1/verifications", only(gateway.Verify), `{"to":"+12025560003"}`).want(t, 403, "forbidden")
		w.ask(t, "POST", "/otp/send", only(gateway.Read), `{"phoneNumber":"+12025560003"}`).want(t, 403, "forbidden")
		w.check(t, only(gateway.Read), id, "123456").want(t, 403, "forbidden")
		w.check(t, only(gateway.Send), id, "123456").want(t, 403, "forbidden")
		w.ask(t, "GET", "/v1/verifications/"+id, only(gateway.Send), "").want(t, 403, "forbidden")
		rec := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/v1/webhooks", nil)
		r.Header.Set("X-API-Key", only(gateway.Send))
		w.gateway.Guarded(gateway.Admin, func(http.ResponseWriter, *http.Request, *gateway.Caller) { t.Error("a key that sends administers") }).ServeHTTP(rec, r.WithContext(t.Context()))
		if rec.Code != 403 {
			t.Errorf("status %d", rec.Code)
		}
		if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'apikey.use' AND reason = 'scope' AND client_id = 'shop'"); n != 6 { // AD-12
			t.Errorf("%d refusals recorded, want 6", n)
		}
	})
	t.Run("AD-12 refusals are within the rate", func(t *testing.T) {
		w := newWorld(t)
		w.gateway.Rate = 3
		key := w.key(t, "shop", gateway.NewKey{Scopes: []gateway.Scope{gateway.Verify}})
		for range 3 {
			w.ask(t, "GET", "/v1/verifications", key, "").want(t, 403, "forbidden")
		}
		w.ask(t, "GET", "/v1/verifications", key, "").want(t, 429, "rate_limited")
		if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'apikey.use'"); n != 3 {
			t.Errorf("%d refusals recorded", n)
		}
	})
	t.Run("an application's token", func(t *testing.T) {
		must(t, w.gateway.Tenants.AllowClient(t.Context(), "shop", "app", []gateway.Scope{gateway.Read}))
		bearer := []string{"Authorization", "Bearer good.token"}
		w.ask(t, "GET", "/v1/verifications/"+id, "", "", bearer...).want(t, 200, "")
		w.ask(t, "POST", "/v1/verifications", "", `{"to":"+12025560003"}`, bearer...).want(t, 403, "forbidden")
		if err := w.gateway.Tenants.AllowClient(t.Context(), "bank", "app", gateway.Scopes()); err == nil {
			t.Error("an application acts for two tenants")
		}
		must(t, w.gateway.Tenants.AllowClient(t.Context(), "shop", "app", gateway.DefaultScopes()))
		w.ask(t, "GET", "/v1/verifications/"+id, "", "", bearer...).want(t, 200, "")                                  // and now it is remembered
		must(t, w.replica.Tenants.AllowClient(t.Context(), "shop", "app", []gateway.Scope{gateway.Read}))             // by another process, of which this one has not heard
		w.ask(t, "POST", "/v1/verifications", "", `{"to":"+12025560004"}`, bearer...).want(t, 401, "invalid_api_key") // looked up anew from here on
		w.ask(t, "POST", "/v1/verifications", "", `{"to":"+12025560004"}`, bearer...).want(t, 403, "forbidden")
		must(t, w.replica.Tenants.AllowClient(t.Context(), "shop", "app", nil))
		w.ask(t, "GET", "/v1/verifications/"+id, "", "", bearer...).want(t, 401, "invalid_api_key")
	})
	t.Run("nothing of a key is stored or logged", func(t *testing.T) {
		for _, key := range []string{w.live, w.test, w.other} {
			secret := key[len("otp_live_") : len(key)-4]
			if n := w.count(t, "SELECT count(*) FROM api_keys k WHERE k::text LIKE '%' || $1 || '%'", secret); n != 0 || strings.Contains(w.log.String(), secret) {
				t.Error("a key is readable")
			}
		}
	})
	t.Run("rotation", func(t *testing.T) {
		old, oldKey, err := w.gateway.Tenants.CreateKey(t.Context(), "shop", gateway.NewKey{Note: "checkout"})
		must(t, err)
		_, fresh, err := w.gateway.Tenants.RotateKey(t.Context(), old, time.Hour)
		must(t, err)
		for _, key := range []string{oldKey, fresh} {
			w.ask(t, "GET", "/v1/verifications", key, "").want(t, 200, "")
		}
		w.db.Advance(t, time.Hour+time.Second)
		w.ask(t, "GET", "/v1/verifications", oldKey, "").want(t, 401, "invalid_api_key")
		w.ask(t, "GET", "/v1/verifications", fresh, "").want(t, 200, "")
		must(t, w.gateway.Touch(t.Context()))
		keys, err := w.gateway.Tenants.Keys(t.Context(), "shop", old)
		if err != nil || len(keys) != 1 || keys[0].LastUsedAt == nil || keys[0].ExpiresAt == nil || keys[0].Note != "checkout" {
			t.Errorf("%+v, %v", keys, err)
		}
		if _, _, err := w.gateway.Tenants.RotateKey(t.Context(), old, 0); err == nil {
			t.Error("a key that is over was rotated")
		}
		bounded, _, err := w.gateway.Tenants.CreateKey(t.Context(), "shop", gateway.NewKey{Life: 24 * time.Hour})
		must(t, err)
		w.db.Advance(t, 20*time.Hour)
		_, fresh, err = w.gateway.Tenants.RotateKey(t.Context(), bounded, time.Hour)
		must(t, err)
		w.db.Advance(t, 23*time.Hour)
		w.ask(t, "GET", "/v1/verifications", fresh, "").want(t, 200, "")
		w.db.Advance(t, time.Hour+time.Second)
		w.ask(t, "GET", "/v1/verifications", fresh, "").want(t, 401, "invalid_api_key")
	})
}

func basic(user string) string {
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth(user, "")
	return r.Header.Get("Authorization")
}

// Another tenant's things are answered as what does not exist: GW-2, OT-20, API-2.
func TestTenantsApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(t, w.live, number(1), `,"client_ref":"mine"`)
	right := w.code(t, id)
	unknown := "vrf_" + strings.Repeat("a", 32)
	for _, path := range []string{"check", "resend", "cancel", ""} {
		for _, key := range []string{w.other, w.test} {
			method, body := "POST", map[string]string{"check": fmt.Sprintf(`{"code":%q}`, right)}[path]
			if path == "" {
				method = "GET"
			}
			foreign := w.ask(t, method, strings.TrimSuffix("/v1/verifications/"+id+"/"+path, "/"), key, body).want(t, 404, "not_found")
			missing := w.ask(t, method, strings.TrimSuffix("/v1/verifications/"+unknown+"/"+path, "/"), key, body).want(t, 404, "not_found")
			delete(foreign.body, "request_id")
			delete(missing.body, "request_id")
			if fmt.Sprint(foreign.body) != fmt.Sprint(missing.body) {
				t.Errorf("%s: foreign and unknown differ:\n%s\n%s", path, foreign.text, missing.text)
			}
		}
	}
	w.ask(t, "POST", "/otp/verify", w.other, fmt.Sprintf(`{"requestId":%q,"otpCode":%q}`, id, right)).want(t, 404, "not_found")
	w.ask(t, "GET", "/otp/status?requestId="+id, w.other, "").want(t, 404, "not_found")
	w.ask(t, "GET", "/otp/status?number=%2B12025560001", w.other, "").want(t, 404, "not_found") // GW-20
	for _, query := range []string{"", "?to=%2B12025560001", "?client_ref=mine"} {
		if a := w.ask(t, "GET", "/v1/verifications"+query, w.other, "").want(t, 200, ""); len(a.body["data"].([]any)) != 0 {
			t.Errorf("%s lists another tenant's: %s", query, a.text)
		}
	}
	if n := w.count(t, "SELECT sum(attempts) FROM challenges"); n != 0 {
		t.Errorf("strangers spent %d attempts", n)
	}
	if a := w.check(t, w.live, id, right).want(t, 200, ""); a.body["valid"] != true {
		t.Error("the owner is refused")
	}
}

func TestIDs(t *testing.T) { // GW-19, OT-20
	t.Parallel()
	w := newWorld(t)
	form := regexp.MustCompile(`^vrf_[0-9a-f]{32}$`)
	seen := map[string]bool{}
	for i := range 50 {
		id := w.create(t, w.test, number(i))
		if !form.MatchString(id) || seen[id[:12]] {
			t.Fatalf("id %s", id)
		}
		seen[id[:12]] = true
	}
	id := w.create(t, w.live, number(1))
	for _, spelling := range []string{strings.ToUpper(id), id + "=", id[:35] + "g", id + "a", "VRF_" + id[4:], id[4:], "dlv_" + id[4:], id + "%00", "..%2f" + id, "%27%20OR%201=1"} {
		if spelling == id {
			continue
		}
		a := w.ask(t, "GET", "/v1/verifications/"+spelling, w.live, "")
		if a.status != 404 {
			t.Errorf("%s: %d", spelling, a.status)
		}
	}
}

func TestAttempts(t *testing.T) { // GW-6, OT-1 to OT-3, OT-12, OT-17, GW-18
	t.Parallel()
	w := newWorld(t)
	t.Run("OT-1 five wrong, then the right one", func(t *testing.T) {
		id := w.create(t, w.live, number(1))
		right := w.code(t, id)
		for left := 4; left >= 0; left-- {
			a := w.check(t, w.live, id, "wrong1").want(t, 200, "")
			if a.body["attempts_left"] != float64(left) || (a.body["status"] == "failed") != (left == 0) {
				t.Fatalf("%s", a.text)
			}
		}
		for _, code := range []string{right, "wrong1"} { // OT-17: alike
			a := w.check(t, w.live, id, code).want(t, 410, "otp_attempts_exhausted")
			if a.body["attempts_left"] != 0.0 {
				t.Errorf("%s", a.text)
			}
		}
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, "{}").want(t, 410, "otp_attempts_exhausted")
	})
	t.Run("OT-2 wrong ones race", func(t *testing.T) {
		id := w.create(t, w.live, number(2))
		right := w.code(t, id)
		statuses := w.race(t, 100, func(at http.Handler) *answer {
			return w.askAt(t, at, "POST", "/v1/verifications/"+id+"/check", w.live, `{"code":"wrong1"}`)
		})
		if statuses["200 "] != 5 || statuses["410 otp_attempts_exhausted"] != 95 {
			t.Fatalf("%v", statuses)
		}
		w.check(t, w.live, id, right).want(t, 410, "otp_attempts_exhausted")
	})
	t.Run("OT-3 right ones race", func(t *testing.T) {
		id := w.create(t, w.live, number(3))
		right := w.code(t, id)
		statuses := w.race(t, 200, func(at http.Handler) *answer {
			return w.askAt(t, at, "POST", "/otp/verify", w.live, fmt.Sprintf(`{"requestId":%q,"otpCode":%q}`, id, right))
		})
		if statuses["200 "] != 1 || statuses["409 already_verified"] != 199 {
			t.Fatalf("%v", statuses)
		}
		raw, err := gateway.Challenge(id)
		must(t, err)
		if n := w.count(t, "SELECT count(*) FROM audit_events WHERE event = 'challenge.answer' AND outcome = 'success' AND object = $1 AND client_id = 'shop'", raw.String()); n != 1 {
			t.Fatalf("%d successes recorded", n)
		}
		for _, code := range []string{right, "wrong1"} { // OT-12, GW-18
			w.check(t, w.live, id, code).want(t, 409, "already_verified")
		}
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, "{}").want(t, 409, "already_verified")
		w.ask(t, "POST", "/v1/verifications/"+id+"/cancel", w.live, "").want(t, 409, "already_verified")
	})
	t.Run("OT-7, OT-8 codes of others", func(t *testing.T) {
		first, second := w.create(t, w.live, number(4)), w.create(t, w.live, number(5))
		if a := w.check(t, w.live, second, w.code(t, first)).want(t, 200, ""); a.body["valid"] != false {
			t.Fatal("a code of another verification was accepted")
		}
		old := w.code(t, first)
		w.db.Advance(t, 31*time.Second)
		next := w.create(t, w.live, number(4))
		w.check(t, w.live, first, old).want(t, 410, "canceled")
		if a := w.ask(t, "GET", "/v1/verifications/"+first, w.live, ""); a.body["reason"] != "superseded" {
			t.Errorf("%s", a.text)
		}
		if a := w.check(t, w.live, next, w.code(t, next)).want(t, 200, ""); a.body["valid"] != true {
			t.Error("the newest does not work")
		}
	})
	t.Run("OT-11 expired", func(t *testing.T) {
		id := w.create(t, w.live, number(6))
		right := w.code(t, id)
		w.db.Advance(t, 10*time.Minute+time.Second)
		for _, code := range []string{right, "wrong1"} {
			w.check(t, w.live, id, code).want(t, 410, "otp_expired")
		}
		w.ask(t, "POST", "/v1/verifications/"+id+"/resend", w.live, "{}").want(t, 410, "otp_expired")
	})
	t.Run("OT-5, OT-25 failures in a row", func(t *testing.T) {
		for range 2 {
			id := w.create(t, w.live, number(7))
			for range 5 {
				w.check(t, w.live, id, "wrong1").want(t, 200, "")
			}
			w.db.Advance(t, 31*time.Second)
		}
		id := w.create(t, w.live, number(7))
		right := w.code(t, id)
		for _, code := range []string{right, "wrong1"} {
			a := w.check(t, w.live, id, code).want(t, 429, "rate_limited")
			if a.body["scope"] != "account" || a.header.Get("Retry-After") == "" {
				t.Fatalf("%s", a.text)
			}
		}
		other := w.create(t, w.other, number(7)) // nobody else is blocked by that
		if a := w.check(t, w.other, other, w.code(t, other)).want(t, 200, ""); a.body["valid"] != true {
			t.Error("another tenant is blocked")
		}
		w.db.Advance(t, 15*time.Minute)
		id = w.create(t, w.live, number(7))
		if a := w.check(t, w.live, id, w.code(t, id)).want(t, 200, ""); a.body["valid"] != true {
			t.Error("blocked for longer than it should be")
		}
		if n := w.count(t, "SELECT count(*) FROM streaks WHERE scope = 'gateway' AND failures >= 10"); n != 0 {
			t.Error("the count goes on after a success")
		}
	})
}

// race runs do n times at once over both replicas and counts what came back.
func (w *world) race(t *testing.T, n int, do func(http.Handler) *answer) map[string]int {
	t.Helper()
	var mu sync.Mutex
	counts := map[string]int{}
	barrier := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-barrier
			a := do(w.handlers[i%2])
			mu.Lock()
			defer mu.Unlock()
			counts[fmt.Sprintf("%d %s", a.status, a.code())]++
		})
	}
	close(barrier)
	wg.Wait()
	return counts
}

// What is not a code costs no attempt, and is never looked for: OT-13 to OT-16, OTP-8.
func TestCodesThatAreNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(t, w.live, number(1))
	right := w.code(t, id)
	wide := strings.Map(func(r rune) rune { return r - '0' + '０' }, right)
	arabic := strings.Map(func(r rune) rune { return r - '0' + '٠' }, right)
	many := `["` + strings.Join(strings.Split(strings.Repeat(right+" ", 1000), " "), `","`) + `"]`
	for name, value := range map[string]string{
		"empty": `""`, "null": `null`, "spaces": `"      "`, "number": right, "true": `true`, "list of one": `["` + right + `"]`, "object": `{"code":"` + right + `"}`,
		"full-width": `"` + wide + `"`, "arabic": `"` + arabic + `"`, "with a space": `"` + right[:3] + " " + right[3:] + `"`, "with a dash": `"` + right[:3] + "-" + right[3:] + `"`,
		"percent": `"%"`, "underscore": `"______"`, "like": `"123%56"`, "quotes": `"'; --"`, "exponent": `"1.23456e5"`, "commas": `"` + strings.Repeat(right+",", 300) + `"`, "list of a hundred": `["` + strings.Repeat(right+`","`, 100) + `"]`,
		"two": `"` + right + right + `"`, "NUL": "\"12345\\u0000\"", "short": `"123"`, "long": `"12345678901"`,
		"escaped": `"\u200b` + right + `"`,
	} {
		for path, member := range map[string]string{"/v1/verifications/" + id + "/check": "code", "/otp/verify": "otpCode"} {
			body := fmt.Sprintf(`{%q:%s}`, member, value)
			if path == "/otp/verify" {
				body = fmt.Sprintf(`{"requestId":%q,%q:%s}`, id, member, value)
			}
			t.Run("OT-13 OT-14 OT-15 OT-16 "+name, func(t *testing.T) {
				a := w.ask(t, "POST", path, w.live, body)
				if a.status != 400 || a.code() != "invalid_request" {
					t.Errorf("%s: %d %s", path, a.status, a.text)
				}
				if strings.Contains(a.text, right) || strings.Contains(a.text, wide) {
					t.Errorf("the answer repeats what was sent: %s", a.text)
				}
			})
		}
	}
	for body, status := range map[string]int{
		`{"code":` + many + `}`: 413, `{"code":"` + strings.Repeat("1", 1<<20) + `"}`: 413,
		`{"code":"` + right + `","code":"` + right + `"}`: 400, `{"code":"000000","code":"` + right + `"}`: 400, `{"Code":"` + right + `"}`: 400, `{"code[]":"` + right + `"}`: 400,
	} {
		if a := w.ask(t, "POST", "/v1/verifications/"+id+"/check", w.live, body); a.status != status {
			t.Errorf("%.60s: %d %s", body, a.status, a.text)
		}
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT"} { // OT-22
		r := httptest.NewRequest(method, "/v1/verifications/"+id+"/check?code="+right, nil)
		r.Header.Set("X-API-Key", w.live)
		rec := httptest.NewRecorder()
		w.handlers[0].ServeHTTP(rec, r.WithContext(t.Context()))
		if rec.Code != 405 {
			t.Errorf("%s: %d", method, rec.Code)
		}
	}
	if n := w.count(t, "SELECT sum(attempts) FROM challenges"); n != 0 {
		t.Errorf("%d attempts were spent", n)
	}
	if a := w.check(t, w.live, id, right).want(t, 200, ""); a.body["valid"] != true {
		t.Error("the plain code does not work any more")
	}
}

func TestUnknownMembers(t *testing.T) { // GW-7
	t.Parallel()
	w := newWorld(t)
	for _, member := range []string{"attempts", "attempts_left", "verified", "expires_at", "code", "status", "tenant_id", "id", "test", "life", "ttl", "To", "__proto__"} {
		a := w.ask(t, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":"+12025560001",%q:"x"}`, member)).want(t, 400, "invalid_request")
		if strings.Contains(a.text, "__proto__") {
			t.Errorf("a name that the caller made up is repeated: %s", a.text)
		}
		w.ask(t, "POST", "/otp/send", w.live, fmt.Sprintf(`{"phoneNumber":"+12025560001",%q:"x"}`, member)).want(t, 400, "invalid_request")
	}
	if n := w.count(t, "SELECT count(*) FROM challenges"); n != 0 {
		t.Errorf("%d challenges", n)
	}
}

func TestCursors(t *testing.T) { // GW-8, API-5
	t.Parallel()
	w := newWorld(t)
	var ids []string
	for i := range 7 {
		ids = append([]string{w.create(t, w.live, number(i), `,"client_ref":"r`+fmt.Sprint(i%2)+`"`)}, ids...)
	}
	w.create(t, w.other, number(1))
	walk := func(query string) (got []string) {
		for cursor, pages := "", 0; pages < 10; pages++ {
			a := w.ask(t, "GET", "/v1/verifications?limit=2"+query+cursor, w.live, "").want(t, 200, "")
			for _, v := range a.body["data"].([]any) {
				got = append(got, v.(map[string]any)["id"].(string))
			}
			next, more := a.body["next_cursor"].(string)
			if !more {
				return got
			}
			cursor = "&cursor=" + next
		}
		return got
	}
	if got := walk(""); fmt.Sprint(got) != fmt.Sprint(ids) {
		t.Errorf("%v, want %v", got, ids)
	}
	if got := walk("&client_ref=r1"); len(got) != 3 {
		t.Errorf("%v of a reference", got)
	}
	if got := walk("&to=%2B12025560003"); len(got) != 1 || got[0] != ids[3] {
		t.Errorf("%v of a number", got)
	}
	cursor := w.ask(t, "GET", "/v1/verifications?limit=2", w.live, "").body["next_cursor"].(string)
	w.ask(t, "GET", "/v1/verifications?cursor="+cursor, w.other, "").want(t, 400, "invalid_request")
	w.ask(t, "GET", "/v1/verifications?cursor="+cursor, w.test, "").want(t, 400, "invalid_request")
	for name, bad := range map[string]string{"altered": "A" + cursor[1:], "cut": cursor[:len(cursor)-2], "SQL": "%27%20OR%201=1--", "long": strings.Repeat("A", 10<<10), "empty tag": "AAAA",
		"padded": cursor + "=", "raw": "eyJhdCI6IjIwMjYtMDEtMDFUMDA6MDA6MDBaIn0"} {
		if a := w.ask(t, "GET", "/v1/verifications?cursor="+bad, w.live, ""); a.status != 400 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "limit=1&limit=2", "fields=*", "include=code", "to=x", "to=%2B12025560003%2C%2B12025560004"} {
		if a := w.ask(t, "GET", "/v1/verifications?"+query, w.live, ""); a.status != 400 {
			t.Errorf("%s: %d", query, a.status)
		}
	}
}

// A program that mistypes a path is answered as programs are, wherever people's pages begin.
func TestMistyped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mux := http.NewServeMux()
	for _, path := range gateway.Paths() {
		mux.Handle(path, w.gateway.Routes())
	}
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) { rw.Write([]byte("<html>")) }) //nolint:errcheck // the asker is this test
	for _, path := range []string{"/v1/verification", "/v1/verifications/vrf_1/chek", "/v1", "/v1/", "/otp", "/otp/sent", "/otp/send/", "/otp/"} {
		for _, method := range []string{"GET", "POST"} {
			if a := w.askAt(t, mux, method, path, w.live, "").want(t, 404, "not_found"); a.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.text, "no such path") {
				t.Errorf("%s %s: %v %s", method, path, a.header, a.text)
			}
		}
	}
}

// What is wrong with a body is said of the place where it is, in words that say what is wanted, and without a name that whoever asks made up.
func TestWanted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for body, want := range map[string]string{
		`{"to":1}`:                                    `{"pointer":"/to","message":"is not a string"}`,
		`{"to":"a","metadata":"x"}`:                   `{"pointer":"/metadata","message":"is not an object"}`,
		`{"to":"a","metadata":{"mine":1}}`:            `{"pointer":"/metadata","message":"has a value that is not a string"}`,
		`{"to":"a","metadata":{"mine":"","mine":""}}`: `{"pointer":"/metadata","message":"has a member twice"}`,
		`{"to":"a","to":"a"}`:                         `{"pointer":"/to","message":"is there twice"}`,
		`{"to":"a","metadata":{"4711":1}}`:            `{"pointer":"/metadata","message":"has a value that is not a string"}`,
		`{"to":"a","transaction":{"4711":1}}`:         `{"pointer":"/transaction","message":"has a member that is not known"}`,
		`{"+12025550143":1}`:                          `{"pointer":"","message":"has a member that is not known"}`,
		`{"to":"a","mine":"x"}`:                       `{"pointer":"","message":"has a member that is not known"}`,
		`{"to":"a","channels":{}}`:                    `{"pointer":"/channels","message":"is not an array"}`,
		`{"to":"a","channels":["sms"]}`:               `{"pointer":"/channels/0","message":"is not an object"}`,
		`{"to":"a","transaction":{"amount":1}}`:       `{"pointer":"/transaction/amount","message":"is not a string"}`,
		`{"to":"a","purpose":"Sign up"}`:              `{"pointer":"/purpose","message":"is no word of small letters, digits and _, 40 of them at most"}`,
		`[]`:                                          `{"pointer":"","message":"is not an object"}`,
		`{"to":`:                                      `{"pointer":"","message":"is not JSON"}`,
	} {
		if a := w.ask(t, "POST", "/v1/verifications", w.live, body).want(t, 400, "invalid_request"); !strings.Contains(a.text, want) || strings.Contains(a.text, "mine") || strings.Contains(a.text, "4711") || strings.Contains(a.text, "2025550143") {
			t.Errorf("%s: %s, want %s", body, a.text, want)
		}
	}
}

func TestBodies(t *testing.T) { // GW-10, HT-7
	t.Parallel()
	w := newWorld(t)
	deep := strings.Repeat("[", 2000) + strings.Repeat("]", 2000)
	for name, tt := range map[string]struct {
		body, kind, encoding string
		status               int
	}{
		"repeated member": {body: `{"to":"+12025560001","to":"+12025560002"}`, status: 400},
		"depth":           {body: `{"metadata":` + deep + `}`, status: 400},
		"depth 10 000":    {body: strings.Repeat(`{"a":`, 10_000), status: 413},
		"10 MiB":          {body: `{"to":"` + strings.Repeat("1", 10<<20) + `"}`, status: 413},
		"NaN":             {body: `{"to":NaN}`, status: 400},
		"BOM":             {body: "\ufeff" + `{"to":"+12025560001"}`, status: 400},
		"bad UTF-8":       {body: "{\"to\":\"+12025560001\",\"client_ref\":\"\xff\"}", status: 400},
		"lone surrogate":  {body: `{"to":"+12025560001","client_ref":"\ud800"}`, status: 400},
		"NUL":             {body: `{"to":"+12025560001","client_ref":"\u0000"}`, status: 400},
		"NUL in metadata": {body: `{"to":"+12025560001","metadata":{"a":"\u0000"}}`, status: 400},
		"trailing":        {body: `{"to":"+12025560001"} {"to":"+12025560001"}`, status: 400},
		"a list":          {body: `[{"to":"+12025560001"}]`, status: 400},
		"a string":        {body: `"to"`, status: 400},
		"null":            {body: `null`, status: 400},
		"a form":          {body: "to=%2B12025560001", kind: "application/x-www-form-urlencoded", status: 415},
		"form as JSON":    {body: "to=%2B12025560001", status: 400},
		"multipart":       {body: "--x\r\n\r\n--x--", kind: "multipart/form-data; boundary=x", status: 415},
		"text":            {body: `{"to":"+12025560001"}`, kind: "text/plain", status: 415},
		"other charset":   {body: `{"to":"+12025560001"}`, kind: "application/json; charset=utf-16", status: 415},
		"gzip":            {body: "\x1f\x8b\x08", encoding: "gzip", status: 415},
		"comment":         {body: `{"to":"+12025560001"/**/}`, status: 400},
		"nothing":         {body: ` `, status: 400},
	} {
		for _, path := range []string{"/v1/verifications", "/otp/send", "/otp/verify", "/otp/status", "/v1/verifications/vrf_" + strings.Repeat("a", 32) + "/check", "/v1/verifications/vrf_" + strings.Repeat("a", 32) + "/resend"} {
			headers := []string{"Idempotency-Key", "k"}
			if tt.kind != "" {
				headers = append(headers, "Content-Type", tt.kind)
			}
			if tt.encoding != "" {
				headers = append(headers, "Content-Encoding", tt.encoding)
			}
			began := time.Now()
			a := w.ask(t, "POST", path, w.live, tt.body, headers...)
			if a.status != tt.status && !(tt.status == 400 && a.status == 404) {
				t.Errorf("%s at %s: %d %s", name, path, a.status, a.text)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s took %v", name, took)
			}
		}
	}
	if n := w.count(t, "SELECT count(*) FROM challenges"); n != 0 {
		t.Errorf("%d challenges", n)
	}
}

func TestNumbers(t *testing.T) { // GW-11, SN-4, SN-5, SN-6, SN-10, BND-7
	t.Parallel()
	w := newWorld(t)
	for to, code := range map[string]gateway.Code{
		"+12025560001\r\nX: y": "invalid_number", `+12025560001"`: "invalid_number", "+1202556&0001": "invalid_number", `{"to":"x"}`: "invalid_number",
		"+12025560001,+12025560002": "invalid_number", "+12025560001;ext=1": "invalid_number", "2025560001": "invalid_number", "911": "invalid_number", "+19005551234": "invalid_number",
		"dana@example.com": "invalid_number", "": "invalid_request", strings.Repeat("1", 100): "invalid_number", "+33170189900": "invalid_number", "+4915112345678": "country_not_served",
		"+12025550100": "test_number_in_live_mode",
	} {
		body, err := json.Marshal(map[string]string{"to": to})
		must(t, err)
		a := w.ask(t, "POST", "/v1/verifications", w.live, string(body))
		if a.code() != string(code) {
			t.Errorf("%q: %d %s, want %s", to, a.status, a.text, code)
		}
		if len(to) > 8 && strings.Contains(a.text, strings.TrimPrefix(to, "+")) {
			t.Errorf("the answer repeats %q: %s", to, a.text)
		}
	}
	for _, value := range []string{`["+12025560001"]`, `12025560001`, `true`, `{"number":"+12025560001"}`, `null`} {
		a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":`+value+`}`).want(t, 400, "invalid_request")
		if !strings.Contains(a.text, `{"pointer":"/to","message":"`) || value != "null" && !strings.Contains(a.text, "is not a string") {
			t.Errorf("%s: %s", value, a.text)
		}
	}
	if n := w.count(t, "SELECT count(*) FROM messages"); n != 0 {
		t.Fatalf("%d texts", n)
	}
	w.create(t, w.live, "+12025560001")                                                     // SN-4: whatever the spelling, it is one number
	for _, path := range []string{"/v1/verifications?limit=1&to=", "/otp/status?number="} { // a + that was not written as %2B
		for _, to := range []string{"%2B12025560001", "+12025560001"} {
			if a := w.ask(t, "GET", path+to, w.live, "").want(t, 200, ""); !strings.Contains(a.text, "vrf_") {
				t.Errorf("%s%s: %s", path, to, a.text)
			}
		}
	}
	for _, spelling := range []string{"001 202 556 0001", "+1 (202) 556-0001", "＋１２０２５５６０００１", "+1.202.556.0001"} {
		if a := w.ask(t, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":%q}`, spelling)).want(t, 429, "rate_limited"); a.body["reason"] != "too_early" {
			t.Errorf("%s", a.text)
		}
	}
	if _, err := w.worker.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if legs := w.carrier.sent(); len(legs) != 1 || legs[0].To.Reveal() != "+12025560001" || legs[0].Channel != sms1 {
		t.Fatalf("%v", legs)
	}
}

const sms1 = "sms"

func TestTemplates(t *testing.T) { // GW-12, SN-18
	t.Parallel()
	w := newWorld(t)
	with := func(tt gateway.Template) error {
		return w.gateway.Tenants.Update(t.Context(), "shop", gateway.Settings{Service: "Shop", Senders: []string{"SHOP"}, Templates: map[string]gateway.Template{"mine": tt}})
	}
	for name, tt := range map[string]gateway.Template{
		"no placeholder": {Text: "Your code"}, "two": {Text: "{{pin}} {{pin}}"}, "unknown": {Text: "{{pin}} {{number}}"}, "broken": {Text: "{{pin}} {{"},
		"a link": {Text: "{{pin}} https://evil.example"}, "a bare link": {Text: "{{pin}} at evil.com/x"}, "a newer one": {Text: "{{pin}} evil.shop"}, "of a code": {Text: "{{pin}}.evil.example.com"}, "of a name": {Text: "{{service}}.com {{pin}}"}, "www": {Text: "{{pin}} www.evil"}, "lines": {Text: "{{pin}}\n@evil.example #111111"},
		"a line for browsers": {Text: "{{pin}} @evil #1"}, "bidi": {Text: "{{pin}} \u202e"}, "too long": {Text: "{{pin}} " + strings.Repeat("x", 200)}, "emoji, long": {Text: "{{pin}} " + strings.Repeat("😀", 70)},
		"another's sender": {Text: "{{pin}}", Sender: "BANK"}, "short code": {Length: 3}, "long code": {Length: 11}, "alphabet": {Alphabet: "emoji"}, "host": {Host: "https://x"},
		"half a payment": {Text: "{{pin}} {{amount}}"},
	} {
		if with(tt) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for _, sender := range []string{"", " ", " SHOP", "SHOP ", "twelve chars", "S-HOP"} {
		if w.gateway.Tenants.Update(t.Context(), "bank", gateway.Settings{Service: "Bank", Senders: []string{sender}}) == nil {
			t.Errorf("sender %q was accepted", sender)
		}
	}
	if err := w.gateway.Tenants.Update(t.Context(), "bank", gateway.Settings{Service: "Bank", Senders: []string{"Shop", "A B"}}); err != nil {
		t.Fatal(err)
	}
	if with(gateway.Template{Text: "{{pin}}"}) == nil {
		t.Error("two tenants have a sender in common")
	}
	must(t, w.gateway.Tenants.Update(t.Context(), "bank", gateway.Settings{Service: "Bank"}))
	must(t, with(gateway.Template{Text: "{{service}}: {{pin}} ({{minutes}} min)", Length: 8, Alphabet: gateway.Alphanumeric, Sender: "SHOP", Host: "shop.example.com"}))
	id := w.create(t, w.live, number(1), `,"template":"mine","channels":[{"type":"voice"}]`)
	code := w.code(t, id)
	if _, err := w.worker.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	legs := w.carrier.sent()
	if want := fmt.Sprintf("Shop: %s (10 min)\n\n@shop.example.com #%s", code, code); len(legs) != 1 || legs[0].Text != want || legs[0].Sender != "SHOP" || legs[0].Channel != "voice" {
		t.Fatalf("%q from %q, want %q", legs[0].Text, legs[0].Sender, want)
	}
	if !regexp.MustCompile(`^[2-9BCDFGHJKMNPQRSTVWXYZ]{8}$`).MatchString(code) {
		t.Errorf("code %s", code)
	}
	if a := w.check(t, w.live, id, strings.ToLower(code)).want(t, 200, ""); a.body["valid"] != true {
		t.Errorf("small letters: %s", a.text)
	}
	w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+12025560002","template":"theirs"}`).want(t, 400, "invalid_request")
	w.ask(t, "POST", "/v1/verifications", w.other, `{"to":"+12025560002","template":"mine"}`).want(t, 400, "invalid_request")
	for name, ceiling := range map[string]gateway.Settings{"attempts": {Service: "S", Attempts: 6}, "life": {Service: "S", Life: 601}, "number": {Service: "S", NumberHour: 6}, "service": {Service: "S4"}} { // AD-10
		if w.gateway.Tenants.Update(t.Context(), "shop", ceiling) == nil {
			t.Errorf("%s above the product's was accepted", name)
		}
	}
}

func TestLinks(t *testing.T) { // GW-12, SN-10
	t.Parallel()
	for text, want := range map[string]bool{
		"evil.com": true, "pay at EVIL.Shop now": true, "evil.top": true, "evil.co.uk": true, "evil.bank": true, "a.evil.support/x": true, "https://x": true, "www.x": true, "t.me/x": true, "x.github.io": true, "github.io": true,
		"\uff45\uff56\uff49\uff4c\uff0e\uff43\uff4f\uff4d": true, "evil\u3002com": true, "\u043f\u0440\u0438\u043c\u0435\u0440.com": true, "\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444": true, "xn--e1afmkfd.xn--p1ai": true, "x\u00fcmlaut.de": true,
		"Gas AG": false, "FC St.Pauli": false, "E.ON": false, "J.R.R. Tolkien": false, "24.12.2026": false, "EUR 5.00": false, "Dr. Oetker": false, "A.Li": false, "end.Your code": false, "No. 5": false, "...": false, ".com": false,
	} {
		if gateway.HasLink(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

func TestNothingLeaks(t *testing.T) { // GW-5, GW-16, OT-18, OTP-7, SN-10
	t.Parallel()
	w := newWorld(t)
	var texts []string
	keep := func(a *answer) *answer {
		texts = append(texts, a.text+fmt.Sprint(a.header))
		return a
	}
	body := `{"to":"+12025560001","client_ref":"r"}`
	id := keep(w.ask(t, "POST", "/v1/verifications?debug=1&include=code&fields=*", w.live, body, "Idempotency-Key", "k1", "X-Debug", "1", "Accept", "text/plain")).id()
	code := w.code(t, id)
	again := keep(w.ask(t, "POST", "/v1/verifications", w.live, body, "Idempotency-Key", "k1"))
	if again.header.Get("Idempotent-Replayed") != "true" {
		t.Error("not replayed")
	}
	keep(w.ask(t, "GET", "/v1/verifications/"+id, w.live, ""))
	keep(w.ask(t, "GET", "/v1/verifications/"+id+"?include=code", w.live, ""))
	keep(w.ask(t, "GET", "/v1/verifications", w.live, ""))
	keep(w.ask(t, "GET", "/otp/status?requestId="+id, w.live, ""))
	keep(w.check(t, w.live, id, "wrong1"))
	keep(w.check(t, w.live, id, code))
	keep(w.check(t, w.live, id, code))
	texts = append(texts, w.log.String())
	var tables []string
	must(t, w.db.SelectContext(t.Context(), &tables, `SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename !~ '_default$'`))
	for _, table := range tables {
		var rows []string
		must(t, w.db.SelectContext(t.Context(), &rows, "SELECT r::text FROM "+table+" r"))
		texts = append(texts, strings.Join(rows, "\n"))
	}
	for _, text := range texts {
		for _, secret := range []string{`"` + code + `"`, " " + code, "2025560001"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %.300s", secret, text)
			}
		}
	}
}

func TestMethods(t *testing.T) { // GW-17
	t.Parallel()
	w := newWorld(t)
	for path, allow := range map[string]string{"/v1/verifications": "GET, POST", "/v1/verifications/x": "GET", "/v1/verifications/x/check": "POST", "/otp/send": "POST", "/otp/status": "GET, POST", "/openapi.json": "GET, HEAD"} {
		for _, method := range []string{"TRACE", "CONNECT", "PATCH", "DELETE", "PROPFIND"} {
			a := w.ask(t, method, path, w.live, "").want(t, 405, "method_not_allowed")
			if a.header.Get("Allow") != allow {
				t.Errorf("%s %s: Allow %q", method, path, a.header.Get("Allow"))
			}
		}
	}
	w.ask(t, "GET", "/v1/verifications/x/check", w.live, "", "X-HTTP-Method-Override", "POST").want(t, 405, "method_not_allowed")
	w.ask(t, "GET", "/v1/verifications/x/y", w.live, "").want(t, 404, "not_found")
}

// swapped is a key with its last two characters the other way round, or another one where they are alike.
func swapped(key string) string {
	n := len(key)
	if key[n-1] != key[n-2] {
		return key[:n-2] + string([]byte{key[n-1], key[n-2]})
	}
	if key[n-1] == 'a' {
		return key[:n-1] + "b"
	}
	return key[:n-1] + "a"
}
