package oidc_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
)

const (
	acr1 = "urn:watchword:acr:1"
	acr2 = "urn:watchword:acr:2"
	acr3 = "urn:watchword:acr:3"
)

// what says acr, amr and auth_time of tokens.
func (w *world) what(t *testing.T, got *tokens) (acr, amr string, at float64) {
	t.Helper()
	claims, _ := w.claims(t, got.ID)
	acr, _ = claims["acr"].(string)
	at, _ = claims["auth_time"].(float64)
	return acr, strings.Trim(fmt.Sprint(claims["amr"]), "[]"), at
}

func TestStepUp(t *testing.T) { // RFC 9470
	t.Parallel()
	w := newWorld(t, authntest.Device{})
	alice, err := w.Service.Find(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	w.Device(t, alice.ID)
	w.Subscriber(t, "bob", "+12025550144")
	password, factor := fmt.Sprint(authn.StepPassword), fmt.Sprint(authn.StepFactor)
	essential := func(names ...string) func(url.Values) {
		return set("claims", `{"id_token":{"acr":{"essential":true,"values":["`+strings.Join(names, `","`)+`"]}}}`)
	}
	// text signs in with a text, a device at hand or not.
	text := func(t *testing.T, b *browser) *tokens {
		t.Helper()
		w.DB.Advance(t, 25*time.Hour) // a day has ten texts
		page := b.authorize(t, request("web", set("prompt", "login"), set("scope", "openid offline_access")))
		page = b.do(t, http.MethodPost, page.location, url.Values{"name": {"alice"}, "password": {authntest.Password}})
		id := uuid.MustParse(strings.TrimPrefix(page.location, "/login?flow="))
		for _, a := range alice.Bound {
			if _, err := w.Service.Choose(authntest.From(t.Context(), "192.0.2.1"), authn.Cookie(b.cookie), id, a.ID, "en"); err != nil {
				t.Fatal(err)
			}
		}
		got := w.token(t, "web", redeem("web", b.signIn(t, page).param("code")))
		if acr, amr, _ := w.what(t, got); acr != acr2 || amr != "pwd sms mfa" {
			t.Fatalf("signed in by text: %s, %s", acr, amr)
		}
		return got
	}
	steps := func(t *testing.T, b *browser, v url.Values, want string) *tokens {
		t.Helper()
		took, a := b.walk(t, b.authorize(t, v))
		if got := strings.Join(took, " "); got != want {
			t.Fatalf("asked for steps %q, want %q", got, want)
		}
		got := w.token(t, "web", redeem("web", a.param("code")))
		if got.status != http.StatusOK {
			t.Fatalf("no tokens after %q: %s", a.location, got.raw)
		}
		return got
	}

	t.Run("SUP-1 only the missing proof is asked for", func(t *testing.T) {
		b := w.browser()
		before := text(t, b)
		_, _, signedIn := w.what(t, before)
		w.DB.Advance(t, time.Minute)
		after := steps(t, b, request("web", set("acr_values", acr3)), factor)
		if acr, amr, at := w.what(t, after); acr != acr3 || amr != "pwd otp mfa" || at != signedIn {
			t.Errorf("raised to %s, %s at %v; want acr:3 by the device, and the time of the password, %v", acr, amr, at, signedIn)
		}
		if told := w.introspect(t, "web", after.Access); told["acr"] != acr3 || told["auth_time"] != signedIn { // SUP-4
			t.Errorf("introspection says %v", told)
		}
		if again := steps(t, b, request("web", set("acr_values", acr3)), ""); again.status != http.StatusOK {
			t.Errorf("asked again at a level that was reached: %s", again.raw)
		}
	})

	t.Run("TX-13 what was there before does not raise a session", func(t *testing.T) {
		b := w.browser()
		before := text(t, b)
		acr, amr, at := w.what(t, before)
		// Single sign-on, at another application too.
		for _, client := range []string{"web", "other"} {
			a := b.authorize(t, request(client, set("prompt", "none"), set("acr_values", acr3)))
			if a.param("error") != "interaction_required" || a.param("code") != "" {
				t.Errorf("%s, silently: %q", client, a.location)
			}
		}
		// A code that was texted for something else, and is good there still.
		page := b.authorize(t, request("web", set("acr_values", acr2), set("max_age", "0")))
		page = b.do(t, http.MethodPost, page.location, url.Values{"name": {"alice"}, "password": {authntest.Password}})
		id, ctx := uuid.MustParse(strings.TrimPrefix(page.location, "/login?flow=")), authntest.From(t.Context(), "192.0.2.1")
		if _, err := w.Service.Choose(ctx, authn.Cookie(b.cookie), id, alice.Bound[0].ID, "en"); err != nil {
			t.Fatal(err)
		}
		p, err := w.Service.Load(ctx, authn.Cookie(b.cookie), id)
		if err != nil {
			t.Fatal(err)
		}
		earlier := w.Code(t, p.SignIn.Challenge.ID)
		page = b.authorize(t, request("web", set("acr_values", acr3)))
		id = uuid.MustParse(strings.TrimPrefix(page.location, "/login?flow="))
		if _, err := w.Service.Choose(ctx, authn.Cookie(b.cookie), id, uuid.Nil, "en"); err != nil {
			t.Fatal(err)
		}
		if a := b.do(t, http.MethodPost, page.location, url.Values{"code": {earlier}}); a.status != http.StatusUnprocessableEntity || a.location != "" {
			t.Errorf("an earlier code: %d %q", a.status, a.location)
		}
		// A refresh.
		if got := w.token(t, "web", refresh(before.Refresh, set("acr_values", acr3))); got.status == http.StatusOK {
			if gotACR, _, gotAt := w.what(t, got); gotACR != acr || gotAt != at {
				t.Errorf("refreshed: %s at %v", gotACR, gotAt)
			}
		} else {
			t.Errorf("refresh: %s", got.raw)
		}
		a := b.authorize(t, request("web", set("prompt", "none")))
		var texted float64 // which is the older proof now that the password was given again
		if err := w.DB.GetContext(ctx, &texted, "SELECT floor(extract(epoch FROM max(at)))::float8 FROM session_events WHERE session_id = $1 AND amr = '{sms}'", p.SignIn.Session.ID); err != nil {
			t.Fatal(err)
		}
		if gotACR, gotAMR, gotAt := w.what(t, w.token(t, "web", redeem("web", a.param("code")))); gotACR != acr || gotAMR != amr || gotAt != texted {
			t.Errorf("the session says %s, %s at %v; before: %s, %s at %v", gotACR, gotAMR, gotAt, acr, amr, texted)
		}
	})

	t.Run("TK-22 a refresh after a step-up tells what its own grant told", func(t *testing.T) {
		b := w.browser()
		w.DB.Advance(t, 25*time.Hour)
		before := w.token(t, "web", redeem("web", b.code(t, request("web", set("scope", "openid offline_access")))))
		acr, amr, at := w.what(t, before)
		w.DB.Advance(t, time.Minute)
		steps(t, b, request("web", set("max_age", "0")), password+" "+factor)
		again := w.token(t, "web", refresh(before.Refresh))
		if gotACR, gotAMR, gotAt := w.what(t, again); gotACR != acr || gotAMR != amr || gotAt != at {
			t.Errorf("refreshed: %s, %s at %v; before: %s, %s at %v", gotACR, gotAMR, gotAt, acr, amr, at)
		}
	})

	t.Run("SUP-2 max_age=0 asks for everything anew", func(t *testing.T) {
		b := w.browser()
		_, _, signedIn := w.what(t, text(t, b))
		w.DB.Advance(t, 3*time.Second)
		after := steps(t, b, request("web", set("max_age", "0"), set("acr_values", acr2)), password+" "+factor)
		if acr, _, at := w.what(t, after); acr != acr2 || at <= signedIn {
			t.Errorf("%s at %v, before at %v", acr, at, signedIn)
		}
	})

	t.Run("the highest of several that can be reached", func(t *testing.T) {
		b := w.browser()
		text(t, b)
		if a := b.authorize(t, request("web", set("prompt", "none"), set("acr_values", acr3+" "+acr2+" "+acr1))); a.param("code") == "" {
			t.Errorf("silently, with acr:2 among those asked for: %q", a.location)
		} else if acr, _, _ := w.what(t, w.token(t, "web", redeem("web", a.param("code")))); acr != acr2 {
			t.Errorf("silently: %s", acr)
		}
		if acr, _, _ := w.what(t, steps(t, b, request("web", set("acr_values", acr1+" "+acr2+" "+acr3)), factor)); acr != acr3 {
			t.Errorf("with pages: %s", acr)
		}
	})

	t.Run("TX-14 SUP-2 more than the person can do", func(t *testing.T) {
		w.DB.Advance(t, 25*time.Hour)
		for name, change := range map[string]func(url.Values){
			"acr_values": set("acr_values", acr3), "essential": essential(acr3),
			"essential beside acr_values that could be met": func(v url.Values) { essential(acr3)(v); v.Set("acr_values", acr2) },
			"essential that nobody knows beside acr_values": func(v url.Values) { essential("nobody-knows")(v); v.Set("acr_values", acr2) },
		} {
			before := w.Texts(t)
			b := w.browser()
			b.as = "bob"
			took, a := b.walk(t, b.authorize(t, request("web", change)))
			if a.param("error") != "unmet_authentication_requirements" || a.param("code") != "" {
				t.Errorf("%s: after %v answered %q", name, took, a.location)
			}
			if n := w.Texts(t); n != before {
				t.Errorf("%s: a text was sent that could not help", name)
			}
		}
		b := w.browser()
		b.as = "bob"
		a := b.signIn(t, b.authorize(t, request("web", essential("nobody-knows", acr2, acr3))))
		if acr, amr, _ := w.what(t, w.token(t, "web", redeem("web", a.param("code")))); acr != acr2 || amr != "pwd sms mfa" {
			t.Errorf("essential values of which one can be met: %s, %s", acr, amr)
		}
	})
}

func TestMethodThatPolicyDoesNotTake(t *testing.T) { // TX-15, SUP-6
	t.Parallel()
	w := newWorld(t, authntest.Device{})
	alice, err := w.Service.Find(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	device, phone := w.Device(t, alice.ID), alice.Bound[0].ID
	b := w.browser()
	b.code(t, request("web"))
	before := w.Texts(t)
	rule, err := authn.ParseRule("client=web factor=device", authn.DefaultLevelNames(), []string{"device", "sms"})
	if err != nil {
		t.Fatal(err)
	}
	w.provider.SignIns.Config.Policy.Rules = []authn.Rule{rule}

	t.Run("TX-15 the other method is refused", func(t *testing.T) {
		page := b.authorize(t, request("web"))
		id, ctx := uuid.MustParse(strings.TrimPrefix(page.location, "/login?flow=")), authntest.From(t.Context(), "192.0.2.1")
		if _, err := w.provider.SignIns.Choose(ctx, authn.Cookie(b.cookie), id, phone, "en"); err == nil {
			t.Error("a text was chosen")
		}
		if n := w.Texts(t); n != before {
			t.Errorf("%d texts, want %d", n, before)
		}
		if _, err := w.provider.SignIns.Choose(ctx, authn.Cookie(b.cookie), id, device, "en"); err != nil {
			t.Error(err)
		}
		a := b.signIn(t, page)
		if _, amr, _ := w.what(t, w.token(t, "web", redeem("web", a.param("code")))); amr != "pwd otp mfa" {
			t.Errorf("signed in with %s", amr)
		}
	})

	t.Run("SUP-6 a parameter takes nothing away", func(t *testing.T) {
		for _, change := range []func(url.Values){set("acr_values", acr1), set("acr_values", acr2), set("method", "sms"), set("amr_values", "sms"),
			set("claims", `{"id_token":{"acr":{"value":"`+acr1+`"},"amr":{"essential":true,"values":["sms"]}}}`)} {
			b := w.browser()
			a := b.signIn(t, b.authorize(t, request("web", change)))
			if _, amr, _ := w.what(t, w.token(t, "web", redeem("web", a.param("code")))); amr != "pwd otp mfa" {
				t.Errorf("signed in with %s", amr)
			}
		}
	})

	t.Run("elsewhere the text is good still", func(t *testing.T) {
		if a := b.authorize(t, request("other", set("prompt", "none"))); a.param("code") == "" {
			t.Errorf("another application: %q", a.location)
		}
	})
}
