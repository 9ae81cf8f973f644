package oidc_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"
)

// What was proved, and with what, is told as it was: in the ID Token, the access token, by introspection and after a refresh.
func TestLevelsOfFactors(t *testing.T) { // SUP, I9
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	u, err := w.Service.Find(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	prefer := func(kind string) {
		t.Helper()
		if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET unbound_at = CASE WHEN kind <> $1 THEN wall() END", kind); err != nil {
			t.Fatal(err)
		}
	}
	app, paper := w.App(t, u.ID), w.Paper(t, u.ID)
	for _, tt := range []struct {
		kind, answer, acr, amr string
		change                 []func(url.Values)
	}{
		{"sms", "", "urn:watchword:acr:2", "[pwd sms mfa]", nil},
		{"totp", app.Code(t, -1), "urn:watchword:acr:3", "[pwd otp mfa]", []func(url.Values){set("acr_values", "urn:watchword:acr:3")}},
		{"totp", app.Code(t, 0), "urn:watchword:acr:3", "[pwd otp mfa]", nil},
		{"backup_code", paper[0], "urn:watchword:acr:2", "[pwd x_backup mfa]", nil},
	} {
		prefer(tt.kind)
		b := w.browser()
		b.answer = tt.answer
		got := w.token(t, "web", redeem("web", b.code(t, request("web", append(tt.change, set("scope", "openid offline_access"))...))))
		refreshed := w.token(t, "web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.Refresh}})
		for what, raw := range map[string]string{"ID Token": got.ID, "access token": got.Access, "ID Token after a refresh": refreshed.ID} {
			claims, _ := w.claims(t, raw)
			if fmt.Sprint(claims["acr"]) != tt.acr || fmt.Sprint(claims["amr"]) != tt.amr {
				t.Errorf("%s, %s: acr %v amr %v; want %s %s", tt.kind, what, claims["acr"], claims["amr"], tt.acr, tt.amr)
			}
		}
		w.DB.Advance(t, time.Millisecond)
	}
	prefer("backup_code")
	b := w.browser()
	if a := b.signIn(t, b.authorize(t, request("web", set("acr_values", "urn:watchword:acr:3"), set("prompt", "login")))); a.param("error") != "unmet_authentication_requirements" {
		t.Errorf("level 3 with backup codes alone: %s", a.location)
	}
}
