package oidc_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/oidc"
)

// hears has polls wait at a provider, and gives who does.
func (w *world) hears(t testing.TB, p *oidc.Provider) *backchannel.Waiting {
	t.Helper()
	waiting := p.Backchannel.Waiting
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- waiting.Run(ctx) }()
	t.Cleanup(func() {
		waiting.Drain() // before servers wait for their requests
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	pgtest.Until(t, "something is heard", func() bool {
		watch := waiting.Watch("of nobody")
		defer watch.Leave()
		return watch != nil
	})
	return waiting
}

// polls begins a poll that waits.
func (w *world) polls(t testing.TB, p *oidc.Provider, server *httptest.Server, client string, asked *askedBack, change ...func(*http.Request)) <-chan *tokens {
	t.Helper()
	before := p.Backchannel.Waiting.Held()
	answer := make(chan *tokens, 1)
	go func() { answer <- w.tokenAt(t, server.URL, client, ciba(asked.RequestID), change...) }()
	pgtest.Until(t, "a poll waits", func() bool {
		select {
		case got := <-answer:
			t.Fatalf("a poll does not wait: %d %s", got.status, got.raw)
		default:
		}
		return p.Backchannel.Waiting.Held() > before
	})
	return answer
}

func answered(t testing.TB, answer <-chan *tokens) *tokens {
	t.Helper()
	select {
	case got := <-answer:
		return got
	case <-time.After(pgtest.Patience):
		t.Fatal("a poll is not answered")
		return nil
	}
}

// allow answers the newest question with yes.
func (w *world) allow(t testing.TB) {
	t.Helper()
	b := w.browser()
	if _, a := b.walk(t, b.do(t, http.MethodGet, w.opened(t), nil)); a.body != "answered Till true" {
		t.Fatal(a.body)
	}
}

// A poll that waits is answered as soon as there is an answer, which another process may have taken.
func TestPollWaits(t *testing.T) { // CIB-2, CI-4
	t.Parallel()
	for name, tt := range map[string]struct {
		change []func(url.Values)
		end    func(t *testing.T, w *world)
		want   string // error; "": tokens
		why    string
	}{
		"approved": {nil, func(t *testing.T, w *world) { w.allow(t) }, "", ""},
		"denied":   {nil, func(t *testing.T, w *world) { w.deny(t) }, "access_denied", ""},
		"expired": {nil, func(t *testing.T, w *world) {
			w.DB.Advance(t, 301*time.Second)
			if _, err := w.provider.Backchannel.Expire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, "expired_token", ""},
		"payment": {[]func(url.Values){set("authorization_details", paymentDetails)}, func(t *testing.T, w *world) {
			w.confirmed(t, "till", &transaction.Proof{ACR: "urn:watchword:acr:2", AMR: []string{"pwd", "sms", "mfa"}, AuthTime: w.DB.Now(t)})
		}, "", ""},
		"payment canceled": {[]func(url.Values){set("authorization_details", paymentDetails)}, func(t *testing.T, w *world) {
			var id uuid.UUID
			if err := w.DB.GetContext(t.Context(), &id, "SELECT id FROM transactions"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.provider.Backchannel.Confirm.Cancel(t.Context(), "till", id); err != nil {
				t.Fatal(err)
			}
		}, "access_denied", "transaction_canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.DB.Advance(t, 25*time.Hour)
			p, server := w.replica(t, w.DB.Open(t))
			w.hears(t, p)
			asked := w.asks(t, "till", tt.change...)
			answer := w.polls(t, p, server, "till", asked)
			tt.end(t, w)
			got := answered(t, answer)
			if tt.want == "" && got.status != http.StatusOK {
				t.Errorf("no tokens: %d %s", got.status, got.raw)
			}
			if tt.want != "" {
				notTokens(t, name, got, tt.want)
			}
			if got.Description != tt.why {
				t.Errorf("because of %q, want %q", got.Description, tt.why)
			}
		})
	}
}

// deny answers the newest question with no.
func (w *world) deny(t testing.TB) {
	t.Helper()
	b := w.browser()
	b.signIn(t, b.authorize(t, request("web")))
	p := flowOf(t, b.do(t, http.MethodGet, w.opened(t), nil))
	if a := b.do(t, http.MethodPost, "/login?flow="+p.String(), url.Values{"deny": {"1"}}); a.body != "answered Till false" {
		t.Fatal(a.body)
	}
}

// A question whose time ends while its poll waits.
func TestPollWaitsForExpiry(t *testing.T) { // CIB-2
	t.Parallel()
	w := newWorld(t)
	w.hears(t, w.provider)
	asked := w.asks(t, "till")
	w.DB.Advance(t, 299*time.Second)
	answer := w.polls(t, w.provider, w.server, "till", asked)
	notTokens(t, "over", answered(t, answer), "expired_token")
}

// A poll that waited in vain is one statement, and its client may come again at once.
func TestPollWaitsInVain(t *testing.T) { // CIB-2
	t.Parallel()
	w := newWorld(t)
	w.holding = 50 * time.Millisecond
	p, server := w.replica(t, w.DB.DB)
	w.hears(t, p)
	asked := w.asks(t, "till")
	poll := func() *tokens { return w.tokenAt(t, server.URL, "till", ciba(asked.RequestID)) }
	notTokens(t, "first", poll(), "authorization_pending")
	w.later(t)
	before := w.DB.RoundTrips.Load()
	notTokens(t, "second", poll(), "authorization_pending")
	if n := w.DB.RoundTrips.Load() - before; n != 1 {
		t.Errorf("a poll that waits takes %d round trips", n)
	}
	notTokens(t, "too early", poll(), "slow_down")
}

// One poll waits for a question. What comes too early is told so at once, and what comes in time takes its place.
func TestPollGivesWay(t *testing.T) { // CI-4, CI-5
	t.Parallel()
	w := newWorld(t)
	waiting := w.hears(t, w.provider)
	asked := w.asks(t, "till")
	first := w.polls(t, w.provider, w.server, "till", asked)
	notTokens(t, "too early", w.token(t, "till", ciba(asked.RequestID)), "slow_down")
	notTokens(t, "another client", w.token(t, "pos", ciba(asked.RequestID)), "invalid_grant")
	if waiting.Held() != 1 {
		t.Errorf("%d wait", waiting.Held())
	}
	w.later(t)
	second := make(chan *tokens, 1)
	go func() { second <- w.token(t, "till", ciba(asked.RequestID)) }()
	notTokens(t, "the first", answered(t, first), "authorization_pending")
	// Another process has one waiting, too: of two that are woken one gets tokens.
	p, server := w.replica(t, w.DB.Open(t))
	w.hears(t, p)
	w.later(t)
	third := w.polls(t, p, server, "till", asked)
	w.allow(t)
	got, other := answered(t, second), answered(t, third)
	if got.status != http.StatusOK {
		got, other = other, got
	}
	if got.status != http.StatusOK {
		t.Errorf("neither got tokens: %s, %s", got.raw, other.raw)
	}
	notTokens(t, "the other", other, "invalid_grant")
	pgtest.Until(t, "nobody waits", func() bool { return waiting.Held() == 0 })
}

// Whoever has gone gets no tokens that nobody reads: they are there for the next poll.
func TestPollGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	waiting := w.hears(t, w.provider)
	asked := w.asks(t, "till")
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.server.URL+"/oauth/token", strings.NewReader(ciba(asked.RequestID).Encode()))
		if err != nil {
			gone <- nil
			return
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("till", w.secrets["till"])
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		gone <- err
	}()
	pgtest.Until(t, "a poll waits", func() bool { return waiting.Held() == 1 })
	leave()
	if err := <-gone; err == nil {
		t.Fatal("answered")
	}
	pgtest.Until(t, "nobody waits", func() bool { return waiting.Held() == 0 })
	w.allow(t)
	w.later(t)
	if got := w.token(t, "till", ciba(asked.RequestID)); got.status != http.StatusOK {
		t.Errorf("no tokens: %d %s", got.status, got.raw)
	}
}

// What a poll came with is used once, though it looks twice; its tokens are bound to the key that it proved in the beginning.
func TestPollSpendsOnce(t *testing.T) { // CIB-2
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 25*time.Hour)
	w.hears(t, w.provider)
	key := newKey(t)
	asked := w.askBack(t, "bank", url.Values{"request": {w.signedRequest(t, question(set("authorization_details", paymentDetails)), nil)}})
	proof := w.by(t, key)
	answer := w.polls(t, w.provider, w.server, "bank", asked, proof)
	w.confirmed(t, "bank", &transaction.Proof{ACR: "urn:watchword:acr:2", AMR: []string{"pwd", "sms", "mfa"}, AuthTime: w.DB.Now(t)})
	got := answered(t, answer)
	if got.status != http.StatusOK {
		t.Fatalf("no tokens: %d %s", got.status, got.raw)
	}
	if claims := w.introspect(t, "bank", got.Access); claims["cnf"] == nil {
		t.Errorf("bound to nothing: %v", claims)
	}
	if again := w.token(t, "bank", ciba(asked.RequestID), proof); again.Error != "invalid_dpop_proof" {
		t.Errorf("the same proof again: %d %s", again.status, again.raw)
	}
}

// A client whose registration changes while its poll waits has to prove again who it is.
func TestPollOfChangedClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hears(t, w.provider)
	asked := w.asks(t, "till")
	answer := w.polls(t, w.provider, w.server, "till", asked)
	secret, err := w.provider.Clients.RotateSecret(t.Context(), "till")
	if err != nil {
		t.Fatal(err)
	}
	w.allow(t)
	notTokens(t, "with the old secret", answered(t, answer), "authorization_pending")
	w.secrets["till"] = secret
	w.later(t)
	if got := w.token(t, "till", ciba(asked.RequestID)); got.status != http.StatusOK {
		t.Errorf("no tokens: %d %s", got.status, got.raw)
	}
}

// A process that stops lets everybody go.
func TestPollDrained(t *testing.T) { // HT-11
	t.Parallel()
	w := newWorld(t)
	waiting := w.hears(t, w.provider)
	asked := w.asks(t, "till")
	answer := w.polls(t, w.provider, w.server, "till", asked)
	waiting.Drain()
	notTokens(t, "drained", answered(t, answer), "authorization_pending")
	w.later(t)
	notTokens(t, "afterwards", w.token(t, "till", ciba(asked.RequestID)), "authorization_pending")
}
