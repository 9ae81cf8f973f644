package oidc_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/oidc"
)

// Another API of ours knows applications by the access tokens that they got for themselves, bound to their key or not.
func TestCaller(t *testing.T) { // PAR-3, TK-28, TK-29
	t.Parallel()
	w := newWorld(t)
	for _, client := range []string{"web", "bank"} {
		c, err := w.provider.Clients.Get(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		r := c.Registration
		r.Scopes = append(oidc.Scopes(), "transactions")
		if err := w.provider.Clients.Update(t.Context(), client, r); err != nil {
			t.Fatal(err)
		}
	}
	key := newKey(t)
	own := url.Values{"grant_type": {"client_credentials"}, "scope": {"transactions"}}
	free, bound := w.token(t, "web", own).Access, w.token(t, "bank", own, w.by(t, key)).Access
	person := w.signedIn(t, "web").Access
	path := "/v1/transactions/txn_1"
	proof := func(token string, change map[string]any) string {
		all := map[string]any{"ath": athOf(token)}
		for name, value := range change {
			all[name] = value
		}
		return w.proof(t, key, http.MethodGet, path, all)
	}
	once := proof(bound, nil)
	for _, tt := range []struct {
		name, authorization, proof, want, challenge string
	}{
		{"bearer", "Bearer " + free, "", "web", ""},
		{"bound", "DPoP " + bound, once, "bank", ""},
		{"the same proof again", "DPoP " + bound, once, "", `DPoP error="invalid_dpop_proof"`},
		{"bound, as bearer", "Bearer " + bound, "", "", `Bearer error="invalid_token"`},
		{"bound, without a proof", "DPoP " + bound, "", "", `DPoP error="invalid_dpop_proof"`},
		{"bound, another method", "DPoP " + bound, proof(bound, map[string]any{"htm": "POST"}), "", `DPoP error="invalid_dpop_proof"`},
		{"bound, another path", "DPoP " + bound, proof(bound, map[string]any{"htu": issuer + "/v1/transactions"}), "", `DPoP error="invalid_dpop_proof"`},
		{"bound, another token's proof", "DPoP " + bound, proof(free, nil), "", `DPoP error="invalid_dpop_proof"`},
		{"free, with a proof", "DPoP " + free, proof(free, nil), "", `DPoP error="invalid_token"`},
		{"a person's", "Bearer " + person, "", "", `Bearer error="invalid_token"`},
		{"forged", "Bearer " + free[:len(free)-4] + "AAAA", "", "", `Bearer error="invalid_token"`},
		{"none", "", "", "", "Bearer"},
		{"basic", "Basic d2ViOng=", "", "", "Bearer"},
	} {
		r := httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, path, nil)
		if tt.authorization != "" {
			r.Header.Set("Authorization", tt.authorization)
		}
		if tt.proof != "" {
			r.Header.Set("DPoP", tt.proof)
		}
		rec := httptest.NewRecorder()
		client, scopes, err := w.provider.Caller(rec, r)
		if err != nil || client != tt.want || (client != "") != slices.Equal(scopes, []string{"transactions"}) || !strings.HasPrefix(rec.Header().Get("WWW-Authenticate"), tt.challenge) {
			t.Errorf("%s: %q %v, %v, %v", tt.name, client, scopes, err, rec.Header())
		}
	}
}
