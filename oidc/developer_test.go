package oidc_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/oidc"
)

// A client that may not refresh is not asked about, told of, or given what only a refresh token would be good for.
func TestOfflineAccessNeedsRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.provider.Clients.Update(t.Context(), "third", oidc.Registration{Name: "Third party", RedirectURIs: []string{"https://third.example/cb"}, FirstParty: true}); err != nil {
		t.Fatal(err)
	}
	got := w.signedIn(t, "third", set("scope", "openid profile offline_access"))
	if got.Refresh != "" || !strings.Contains(got.raw, `"scope":"openid profile"`) {
		t.Errorf("the token endpoint answers %s", got.raw)
	}
	if got := w.signedIn(t, "web", set("scope", "openid offline_access")); got.Refresh == "" || !strings.Contains(got.raw, "offline_access") {
		t.Errorf("a client that may refresh: %s", got.raw)
	}
}

// Every refused grant is the same to the caller; the log says why.
func TestRefusedGrantIsExplainedInTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	code := func(t *testing.T) string {
		t.Helper()
		w.DB.Advance(t, 25*time.Hour) // a day has ten texts
		return w.browser().code(t, request("web", set("scope", "openid offline_access")))
	}
	for _, tt := range []struct {
		name, client, cause string
		form                func(t *testing.T) map[string]string
	}{
		{"wrong verifier", "web", "code_verifier", func(t *testing.T) map[string]string {
			return map[string]string{"code": code(t), "code_verifier": strings.Repeat("x", 43)}
		}},
		{"wrong redirect_uri", "web", "redirect_uri", func(t *testing.T) map[string]string {
			return map[string]string{"code": code(t), "redirect_uri": "https://rp.example/cb2?a=b"}
		}},
		{"another client's code", "other", "other_client", func(t *testing.T) map[string]string {
			return map[string]string{"code": code(t), "redirect_uri": request("web").Get("redirect_uri")}
		}},
		{"used code", "web", "used", func(t *testing.T) map[string]string {
			once := code(t)
			if got := w.token(t, "web", redeem("web", once)); got.status != http.StatusOK {
				t.Fatal(got.raw)
			}
			return map[string]string{"code": once}
		}},
		{"expired code", "web", "expired", func(t *testing.T) map[string]string {
			late := code(t)
			w.DB.Advance(t, 2*time.Minute)
			return map[string]string{"code": late}
		}},
		{"no code at all", "web", "unknown", func(*testing.T) map[string]string { return map[string]string{"code": "nonsense"} }},
		{"used refresh token", "web", "used", func(t *testing.T) map[string]string {
			got := w.token(t, "web", redeem("web", code(t)))
			if next := w.token(t, "web", refresh(got.Refresh)); next.status != http.StatusOK {
				t.Fatal(next.raw)
			}
			return map[string]string{"grant_type": "refresh_token", "refresh_token": got.Refresh}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			form := redeem(tt.client, "")
			for name, value := range tt.form(t) {
				form.Set(name, value)
			}
			w.logs.Reset()
			got := w.token(t, tt.client, form)
			refused(t, tt.name, got, http.StatusBadRequest, "invalid_grant")
			if strings.Contains(got.raw, tt.cause) {
				t.Errorf("the caller is told why: %s", got.raw)
			}
			for _, want := range []string{`msg="grant refused"`, "cause=" + tt.cause + " ", "client_id=" + tt.client + " ", "request_id=req_test"} {
				if !strings.Contains(w.logs.String(), want) {
					t.Errorf("the log lacks %s:\n%s", want, w.logs)
				}
			}
		})
	}
}

// Nothing is promised that no installed factor can give.
func TestDiscoveryListsLevelsThatCanBeReached(t *testing.T) {
	t.Parallel()
	for levels, kinds := range map[string][]string{
		`"urn:watchword:acr:1","urn:watchword:acr:2","urn:watchword:acr:3"`: {"sms", "totp"}, `"urn:watchword:acr:1","urn:watchword:acr:2"`: {"sms", "backup_code"},
	} {
		w := newWorld(t)
		var known []factors.Factor
		for _, kind := range kinds {
			f, _ := w.provider.SignIns.Ledger.Factor(kind)
			known = append(known, f)
		}
		var err error
		if w.provider.SignIns.Ledger, err = factors.NewLedger(w.DB.DB, w.Keys, w.provider.SignIns.Ledger.Outbox, factors.DefaultLimits(), known...); err != nil {
			t.Fatal(err)
		}
		a := httptest.NewRecorder()
		w.provider.Routes().ServeHTTP(a, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/.well-known/openid-configuration", nil))
		if !strings.Contains(a.Body.String(), `"acr_values_supported":[`+levels+`]`) {
			t.Errorf("acr_values_supported with %v: %s", kinds, a.Body)
		}
	}
}
