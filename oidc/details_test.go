package oidc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/oidc"
)

func detailTypes() []oidc.DetailType {
	return []oidc.DetailType{
		&oidc.TextDetails{Name: "account", Titles: map[string]string{"en": "see one account", "de": "ein Konto sehen"}, Fields: []oidc.TextField{
			{Name: "account", Required: true, Max: 34, Labels: map[string]string{"en": "Account", "de": "Konto"}},
			{Name: "note", Labels: map[string]string{"en": "What for", "de": "Wofür"}},
		}},
		limit{}, payments(),
	}
}

func payments() *transaction.Details {
	d, err := transaction.NewDetails()
	if err != nil {
		panic(err)
	}
	return d
}

// limit is a type of which less can be asked.
type limit struct{}

type limited struct {
	Type string `json:"type"`
	Most int    `json:"most"`
}

func (limit) Type() string { return "limit" }

func (limit) Canonical(element json.RawMessage) (json.RawMessage, error) {
	var l limited
	decoder := json.NewDecoder(bytes.NewReader(element))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&l); err != nil || l.Most <= 0 {
		return nil, errors.New("most is not a number of at least 1")
	}
	return json.Marshal(l)
}

func (limit) Describe(_ string, element json.RawMessage) []string { return []string{string(element)} }

func (limit) Covers(allowed, asked json.RawMessage) bool {
	var have, want limited
	return json.Unmarshal(allowed, &have) == nil && json.Unmarshal(asked, &want) == nil && want.Most <= have.Most
}

func details(raw string) func(url.Values) { return set("authorization_details", raw) }

const (
	one  = `{"account":"DE02100100109307118603","type":"account"}`
	two  = `{"account":"FR1420041010050500013M02606","note":"rent & more","type":"account"}`
	most = `{"type":"limit","most":100}`
)

func TestAuthorizationDetails(t *testing.T) { // PAR-4
	t.Parallel()
	w := newWorld(t)
	later := func(t *testing.T) { t.Helper(); w.DB.Advance(t, 25*time.Hour) } // a day has ten texts

	t.Run("PA-8", func(t *testing.T) {
		for name, raw := range map[string]string{
			"unknown type":                `[{"type":"payment","account":"1"}]`,
			"type of another letter":      `[{"type":"Account","account":"1"}]`,
			"no type":                     `[{"account":"1"}]`,
			"type under another name":     `[{"Type":"account","account":"1"}]`,
			"unknown member":              `[{"type":"account","account":"1","amount":"1.00"}]`,
			"member of another letter":    `[{"type":"account","Account":"1"}]`,
			"number for a text":           `[{"type":"account","account":1}]`,
			"null for a text":             `[{"type":"account","account":null}]`,
			"missing member":              `[{"type":"account"}]`,
			"empty member":                `[{"type":"account","account":" "}]`,
			"member too long":             `[{"type":"account","account":"` + strings.Repeat("1", 35) + `"}]`,
			"control character":           `[{"type":"account","account":"1\u0007"}]`,
			"bidirectional override":      `[{"type":"account","account":"1\u202e2"}]`,
			"empty array":                 `[]`,
			"object":                      one,
			"text":                        `"account"`,
			"array of text":               `["account"]`,
			"array of null":               `[null]`,
			"no JSON":                     `[{"type":"account","account":"1"}`,
			"more after it":               `[` + one + `] []`,
			"empty":                       ``,
			"repeated name":               `[{"type":"account","account":"1","account":"2"}]`,
			"repeated name, escaped":      `[{"type":"account","account":"1","acc\u006funt":"2"}]`,
			"repeated type":               `[{"type":"account","type":"account","account":"1"}]`,
			"not UTF-8":                   "[{\"type\":\"account\",\"account\":\"\xff\"}]",
			"eleven":                      `[` + strings.Repeat(one+",", 10) + one + `]`,
			"too long":                    `[` + one + strings.Repeat(" ", 4<<10) + `]`,
			"one of several is not right": `[` + one + `,{"type":"account"}]`,
		} {
			before := 0
			if err := w.DB.GetContext(t.Context(), &before, "SELECT (SELECT count(*) FROM pushed_requests) + (SELECT count(*) FROM sign_ins)"); err != nil {
				t.Fatal(err)
			}
			got := w.push(t, "web", request("web", details(raw)))
			if got.status != http.StatusBadRequest || got.Error != "invalid_authorization_details" {
				t.Errorf("%s, pushed: %d %s", name, got.status, got.raw)
			}
			if name == "one of several is not right" && !strings.Contains(got.raw, "element 1 of authorization_details is not as account wants it: account is missing") {
				t.Errorf("%s: %s", name, got.raw)
			}
			if a := w.browser().authorize(t, request("web", details(raw))); a.param("error") != "invalid_authorization_details" || a.param("state") != "the state" {
				t.Errorf("%s, by the browser: %d %q", name, a.status, a.location)
			}
			after := 0
			if err := w.DB.GetContext(t.Context(), &after, "SELECT (SELECT count(*) FROM pushed_requests) + (SELECT count(*) FROM sign_ins)"); err != nil || after != before {
				t.Errorf("%s: stored %d, %v", name, after-before, err)
			}
		}
		if got := w.push(t, "other", request("other", details("["+one+"]"))); got.Error != "invalid_authorization_details" {
			t.Errorf("a client that is not registered for the type: %d %s", got.status, got.raw)
		}
		if got := w.push(t, "third", request("third", details("["+most+"]"))); got.Error != "invalid_authorization_details" {
			t.Errorf("a client that is registered for another type: %d %s", got.status, got.raw)
		}
		if got := w.token(t, "web", url.Values{"grant_type": {"client_credentials"}, "authorization_details": {"[" + one + "]"}}); got.Error != "invalid_authorization_details" {
			t.Errorf("without a person: %d %s", got.status, got.raw)
		}
		if strings.Contains(w.logs.String(), "level=ERROR") {
			t.Errorf("a fault was logged: %s", w.logs)
		}
	})

	t.Run("PA-9", func(t *testing.T) {
		for _, format := range []string{"jwt", "opaque"} {
			r := registration(t, w, "web")
			r.AccessTokenFormat = format
			if err := w.provider.Clients.Update(t.Context(), "web", r); err != nil {
				t.Fatal(err)
			}
			later(t)
			b := w.browser()
			// Another order and spelling of the same: kept in the one form.
			v := w.pushed(t, "web", set("scope", "openid offline_access"), details(`[ {"type":"account","account":"DE0210010010930\u0037118603"}, `+two+`,`+most+`]`))
			code := b.signIn(t, b.authorize(t, v)).param("code")
			got := w.token(t, "web", redeem("web", code))
			all := "[" + one + "," + two + "," + most + "]"
			w.hasDetails(t, "redeemed", got, all)

			again := w.token(t, "web", refresh(got.Refresh))
			w.hasDetails(t, "refreshed", again, all)
			less := w.token(t, "web", refresh(again.Refresh, details("["+two+`,{"most":7,"type":"limit"}]`)))
			w.hasDetails(t, "narrowed", less, "["+two+`,{"type":"limit","most":7}]`)
			for name, more := range map[string]string{
				"another account":     `[{"type":"account","account":"1"}]`,
				"one and another":     `[` + one + `,{"type":"account","account":"1"}]`,
				"a member left out":   `[{"account":"FR1420041010050500013M02606","type":"account"}]`,
				"a higher limit":      `[{"type":"limit","most":101}]`,
				"what no type allows": `[{"type":"limit","most":-1}]`,
				"nothing at all":      `[]`,
			} {
				refused(t, name, w.token(t, "web", refresh(less.Refresh, details(more))), http.StatusBadRequest, "invalid_authorization_details")
			}
			whole := w.token(t, "web", refresh(less.Refresh)) // what was refused cost nothing, and the grant is what it was
			w.hasDetails(t, "whole again", whole, all)
		}
	})

	t.Run("a code for less", func(t *testing.T) {
		later(t)
		code := w.browser().code(t, request("web", details("["+one+","+two+"]")))
		refused(t, "more", w.token(t, "web", redeem("web", code, details("["+most+"]"))), http.StatusBadRequest, "invalid_authorization_details")
		w.hasDetails(t, "less", w.token(t, "web", redeem("web", code, details("["+two+"]"))), "["+two+"]")
	})

	t.Run("AZ-28 consent", func(t *testing.T) {
		later(t)
		b := w.browser()
		a := b.authorize(t, request("third", set("scope", "openid"), details("["+two+"]")))
		a = b.step(t, b.step(t, a))
		p, err := w.provider.SignIns.Load(t.Context(), authn.Cookie(b.cookie), flowOf(t, a))
		if err != nil || p.Decision.Step != authn.StepConsent {
			t.Fatalf("%+v, %v", p, err)
		}
		want := []authn.Detail{{Type: "account", Content: two, Lines: map[string][]string{
			"en": {"see one account", "Account: FR1420041010050500013M02606", "What for: rent & more"}, "de": {"ein Konto sehen", "Konto: FR1420041010050500013M02606", "Wofür: rent & more"}}}}
		if diff := cmp.Diff(want, p.SignIn.Requirement.Details); diff != "" {
			t.Error(diff)
		}
		a = b.do(t, http.MethodPost, a.location, url.Values{"authorization_details": {"[" + one + "]"}, "scope": {"openid profile"}})
		w.hasDetails(t, "allowed", w.token(t, "third", redeem("third", a.param("code"))), "["+two+"]")

		// Allowed once is not allowed for ever, as scopes are.
		if a := b.authorize(t, request("third", set("scope", "openid"), set("prompt", "none"))); a.param("code") == "" {
			t.Errorf("the scopes that were allowed: %q", a.location)
		}
		if a := b.authorize(t, request("third", set("scope", "openid"), set("prompt", "none"), details("["+two+"]"))); a.param("error") != "consent_required" {
			t.Errorf("the details that were allowed: %q", a.location)
		}
		if a := b.authorize(t, request("third", set("scope", "openid"), details("["+one+"]"))); a.location == "" || b.do(t, http.MethodGet, a.location, nil).body != fmt.Sprint("step ", int(authn.StepConsent)) {
			t.Errorf("other details: %q", a.location)
		}
	})

	t.Run("OAU-14 a registration that lost the type", func(t *testing.T) {
		later(t)
		b := w.browser()
		a := b.authorize(t, request("web", details("["+one+"]")))
		r := registration(t, w, "web")
		r.DetailTypes = nil
		if err := w.provider.Clients.Update(t.Context(), "web", r); err != nil {
			t.Fatal(err)
		}
		if a = b.signIn(t, a); a.param("error") != "access_denied" || a.param("code") != "" {
			t.Errorf("answered %d %q", a.status, a.location)
		}
	})

	t.Run("discovery", func(t *testing.T) {
		if a := w.browser().do(t, http.MethodGet, "/.well-known/openid-configuration", nil); !strings.Contains(a.body, `"authorization_details_types_supported":["account","limit","payment_initiation"]`) {
			t.Errorf("discovery: %s", a.body)
		}
	})
}

func registration(t testing.TB, w *world, id string) oidc.Registration {
	t.Helper()
	c, err := w.provider.Clients.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c.Registration
}

// hasDetails holds the token response, the access token and introspection against the details that a token is to have.
func (w *world) hasDetails(t *testing.T, what string, got *tokens, want string) {
	t.Helper()
	if got.status != http.StatusOK {
		t.Fatalf("%s: %d %s", what, got.status, got.raw)
	}
	canonical := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		value := jsontext.Value(data)
		if err := value.Canonicalize(); err != nil {
			t.Fatal(err)
		}
		return string(value)
	}
	want = canonical(json.RawMessage(want))
	var response struct {
		Details json.RawMessage `json:"authorization_details"`
	}
	if err := json.Unmarshal([]byte(got.raw), &response); err != nil || canonical(response.Details) != want {
		t.Errorf("%s: the response says %s, want %s", what, response.Details, want)
	}
	if strings.Count(got.Access, ".") == 2 {
		if claims, _ := w.claims(t, got.Access); canonical(claims["authorization_details"]) != want {
			t.Errorf("%s: the token says %v, want %s", what, claims["authorization_details"], want)
		}
	}
	for _, client := range []string{"web", "third"} {
		if says := w.introspect(t, client, got.Access); says["active"] == true && canonical(says["authorization_details"]) != want {
			t.Errorf("%s: introspection says %v, want %s", what, says["authorization_details"], want)
		}
	}
}
