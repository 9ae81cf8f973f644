package oidc_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/watchword-auth/watchword/authn"
)

const onePayment = `{"type":"payment_initiation","instructedAmount":{"amount":"129.90","currency":"EUR"},"creditorName":"Gas AG","creditorAccount":{"iban":"DE89370400440532013000"}}`

// TestPaymentRequests: a payment travels by a pushed request, alone, and ends on the page for payments and nowhere else.
func TestPaymentRequests(t *testing.T) { // PAR-4, SUP-5
	t.Parallel()
	w := newWorld(t)
	r := registration(t, w, "web")
	r.DetailTypes, r.SupportPhone = []string{"payment_initiation", "account"}, "+44 20 7946 0000"
	if err := w.provider.Clients.Update(t.Context(), "web", r); err != nil {
		t.Fatal(err)
	}

	if a := w.browser().authorize(t, request("web", details("["+onePayment+"]"))); a.param("error") != "invalid_request" {
		t.Errorf("by the browser: %d %q", a.status, a.location)
	}
	notPushed(t, "beside something else", w.push(t, "web", request("web", details(`[`+onePayment+`,{"type":"account","account":"DE02"}]`))), http.StatusBadRequest, "invalid_authorization_details")
	notPushed(t, "two", w.push(t, "web", request("web", details("["+onePayment+","+onePayment+"]"))), http.StatusBadRequest, "invalid_authorization_details")

	b := w.browser()
	b.code(t, request("web"))
	for what, want := range map[string]string{"": fmt.Sprint("step ", int(authn.StepConfirm)), "none": "interaction_required"} { // TX-13: no session is an approval
		v := []func(url.Values){details("[" + onePayment + "]")}
		if what != "" {
			v = append(v, set("prompt", what))
		}
		a := b.authorize(t, w.pushed(t, "web", v...))
		got := a.param("error")
		if got == "" {
			got = b.do(t, http.MethodGet, a.location, nil).body
		}
		if got != want || a.param("code") != "" {
			t.Errorf("prompt %q: %s at %q, want %s", what, got, a.location, want)
		}
	}
}
