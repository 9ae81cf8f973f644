package oidc_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/oidc"
)

// TestTakeBack lists what applications have, and takes it back: tokens are dead on both replicas, and the person is asked again (TK-21).
func TestTakeBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Service.Applications = &oidc.Grants{DB: w.DB.DB}
	_, replica := w.replica(t, w.DB.Open(t))
	all := set("scope", "openid profile offline_access")
	got, other := w.signedIn(t, "third", all), w.signedIn(t, "web", all)
	_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
	account := func() *authn.Account {
		t.Helper()
		a, err := w.Service.Account(t.Context(), cookie, "")
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := account()
	if len(a.Given) != 2 || a.Given[0].Name != "Third party" || !slices.Equal(a.Given[0].Scopes, []string{"offline_access", "openid", "profile"}) || a.Given[1].Application != "web" || a.Names["web"] != "Web" {
		t.Fatalf("given: %+v, named %v", a.Given, a.Names)
	}
	ctx := authntest.From(t.Context(), "192.0.2.1")
	if err := w.Service.Disconnect(ctx, cookie, "nothing"); err == nil {
		t.Error("an application that has nothing was disconnected")
	}
	if err := w.Service.Disconnect(ctx, "", "third"); err == nil {
		t.Error("nobody disconnected one")
	}
	if active := w.introspect(t, "third", got.Access)["active"]; active != true {
		t.Fatalf("before: active %v", active)
	}
	if err := w.Service.Disconnect(ctx, cookie, "third"); err != nil {
		t.Fatal(err)
	}
	if active := w.introspect(t, "third", got.Access)["active"]; active != false {
		t.Errorf("TK-21 its access token: active %v", active)
	}
	if status, _, _ := w.userinfo(t, got.Access); status != http.StatusUnauthorized {
		t.Errorf("TK-21 UserInfo: %d", status)
	}
	if again := w.tokenAt(t, replica.URL, "third", refresh(got.Refresh)); again.status != http.StatusBadRequest {
		t.Errorf("TK-21 its refresh token, at the other replica: %d", again.status)
	}
	if again := w.token(t, "web", refresh(other.Refresh)); again.status != http.StatusOK {
		t.Errorf("another application's: %d", again.status)
	}
	if a = account(); len(a.Given) != 1 || a.Given[0].Application != "web" || a.Activity[0].Client.V == "" {
		t.Errorf("afterwards: %+v", a.Given)
	}
	var allowed int
	if err := w.DB.GetContext(t.Context(), &allowed, "SELECT count(*) FROM consents WHERE relying_party = 'third'"); err != nil || allowed != 0 {
		t.Errorf("%d consents are left, %v", allowed, err)
	}
}

// TestAccountRoundTrips: the account, with what applications have, is two statements.
func TestAccountRoundTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Service.Applications = &oidc.Grants{DB: w.DB.DB}
	w.signedIn(t, "third")
	_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
	for warm := range 2 {
		before := w.DB.RoundTrips.Load()
		if a, err := w.Service.Account(t.Context(), cookie, ""); err != nil || len(a.Given) == 0 {
			t.Fatalf("%+v, %v", a, err)
		}
		if n := w.DB.RoundTrips.Load() - before; warm == 1 && n != 2 {
			t.Errorf("%d statements, want 2", n)
		}
	}
}

// TestPasswordEndsGrants: what applications have dies with the password that gave it (PWD-7, PW-15).
func TestPasswordEndsGrants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.signedIn(t, "web", set("scope", "openid offline_access"))
	_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
	if _, err := w.Service.ChangePassword(t.Context(), cookie, "seven brown horses in a boat"); err != nil {
		t.Fatal(err)
	}
	if active := w.introspect(t, "web", got.Access)["active"]; active != false {
		t.Errorf("PW-15 its access token: active %v", active)
	}
	if again := w.token(t, "web", refresh(got.Refresh)); again.status != http.StatusBadRequest {
		t.Errorf("PW-15 its refresh token: %d", again.status)
	}
}
