package gateway_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/factors/gateway"
)

// Pages are for tenants that have them, and lead back to addresses that these allow, letter by letter: no open redirect (GW-3).
func TestReturnURL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const allowed = "https://shop.example/done?a=b"
	update := func(s gateway.Settings) { t.Helper(); must(t, w.gateway.Tenants.Update(t.Context(), "shop", s)) }
	begin := func(address, more string, headers ...string) *answer {
		t.Helper()
		return w.ask(t, "POST", "/v1/verifications", w.test, fmt.Sprintf(`{"to":"+12025550100","return_url":%q%s}`, address, more), headers...)
	}
	refused := func(a *answer, at string) {
		t.Helper()
		if a.want(t, 400, gateway.InvalidRequest); !strings.Contains(a.text, `"pointer":"`+at+`"`) || strings.Contains(a.text, "example") && !strings.Contains(a.text, "login.example") {
			t.Errorf("%s", a.text)
		}
	}
	refused(begin(allowed, ""), "/return_url")
	update(gateway.Settings{Service: "Shop", ReturnURLs: []string{allowed}})
	refused(begin(allowed, ""), "/return_url")
	update(gateway.Settings{Service: "Shop", Hosted: true, ReturnURLs: []string{allowed}})
	for _, address := range []string{"https://shop.example/done", allowed + "&c=d", "https://shop.example/done?a=b#", "https://shop.example.evil.test/done?a=b", "HTTPS://shop.example/done?a=b", "https://shop.example/../done?a=b",
		"//shop.example/done?a=b", "https://user@shop.example/done?a=b", "javascript:alert(1)", " " + allowed, allowed + "\n"} {
		refused(begin(address, ""), "/return_url")
	}
	refused(begin(allowed, `,"transaction":{"amount":"1","currency":"EUR","payee":"Gas"}`), "/return_url")

	first := begin(allowed, "", "Idempotency-Key", "k").want(t, 201, "")
	again := begin(allowed, "", "Idempotency-Key", "k").want(t, 201, "")
	url, _ := first.body["url"].(string)
	if !strings.HasPrefix(url, "https://login.example/verify/") || again.body["url"] != url || len(url) < 29+43 {
		t.Errorf("%s\n%s", first.text, again.text)
	}
	if n := w.count(t, "SELECT count(*) FROM idempotency_keys WHERE answer::text LIKE '%verify/%'"); n != 0 {
		t.Error("the address is stored")
	}
	if read := w.ask(t, "GET", "/v1/verifications/"+first.id(), w.test, "").want(t, 200, ""); read.body["url"] != nil {
		t.Errorf("whoever may read gets the address: %s", read.text)
	}
	if plain := w.ask(t, "POST", "/v1/verifications", w.test, `{"to":"+12025550100"}`).want(t, 201, ""); plain.body["url"] != nil {
		t.Errorf("%s", plain.text)
	}

	// Texts are bound to the host that the code is entered on, so that browsers fill it in; those of other verifications are not.
	id := w.ask(t, "POST", "/v1/verifications", w.live, fmt.Sprintf(`{"to":%q,"return_url":%q}`, number(1), allowed)).want(t, 201, "").id()
	if text := w.text(t, id); !strings.Contains(text, `@login.example #`) {
		t.Errorf("%s", text)
	}
	if text := w.text(t, w.create(t, w.live, number(2))); strings.Contains(text, "@") {
		t.Errorf("%s", text)
	}
}

func TestReturnURLs(t *testing.T) {
	t.Parallel()
	ceilings := gateway.Ceilings{}
	for address, ok := range map[string]bool{
		"https://shop.example/": true, "https://shop.example:8443/a?b=c": true, "http://localhost:3000/": true, "http://127.0.0.1/x": true, "http://[::1]:3000/x": true,
		"http://shop.example/": false, "https://": false, "/done": false, "shop.example": false, "https://u:p@shop.example/": false, "https://shop.example/#x": false, "https://shop.example/#": false,
		"javascript:alert(1)": false, "data:text/html,x": false, "https://shop.example/ x": false, "https://shop.example\\@evil.example/": false, "https://shöp.example/": false,
		"https://shop.example/?status=approved": false, "https://shop.example/?verification=x": false, "https://shop.example/" + strings.Repeat("a", 500): false, "app://done": false,
		"http://localhost.evil.example/": false, "http://127.0.0.1.evil.example/": false, "https://shop.example/\t": false,
	} {
		s := gateway.Settings{Service: "Shop", ReturnURLs: []string{address}}
		if err := s.Validate(ceilings); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	if s := (gateway.Settings{Service: "Shop", ReturnURLs: make([]string, 21)}); !strings.Contains(fmt.Sprint(s.Validate(ceilings)), "at most 20") {
		t.Error("any number of addresses")
	}
}
