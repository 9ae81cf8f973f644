package oidc_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/oidc"
)

// askedBack is the answer of the backchannel authentication endpoint.
type askedBack struct {
	status    int
	RequestID string `json:"auth_req_id"`
	ExpiresIn int    `json:"expires_in"`
	Interval  int    `json:"interval"`
	Error     string `json:"error"`
	raw       string
}

const paymentDetails = `[{"type":"payment_initiation","instructedAmount":{"currency":"EUR","amount":"129.90"},"creditorName":"Gas AG","creditorAccount":{"iban":"DE02100100109307118603"}}]`

// question is a backchannel authentication request.
func question(change ...func(url.Values)) url.Values {
	v := url.Values{"scope": {"openid"}, "login_hint": {"alice"}, "binding_message": {"W4SCT"}}
	for _, c := range change {
		c(v)
	}
	return v
}

func (w *world) askBack(t testing.TB, client string, form url.Values, change ...func(*http.Request)) *askedBack {
	t.Helper()
	got := &askedBack{}
	got.status, _, got.raw = w.post(t, w.server.URL, "/bc-authorize", client, form, change...)
	if err := json.Unmarshal([]byte(got.raw), got); err != nil {
		t.Fatalf("the endpoint answered %d %q", got.status, got.raw)
	}
	return got
}

// asks is askBack that has to succeed.
func (w *world) asks(t testing.TB, client string, change ...func(url.Values)) *askedBack {
	t.Helper()
	got := w.askBack(t, client, question(change...))
	if got.status != http.StatusOK || got.RequestID == "" || got.ExpiresIn != 300 || got.Interval != 5 {
		t.Fatalf("not asked: %d %s", got.status, got.raw)
	}
	return got
}

func ciba(id string, change ...func(url.Values)) url.Values {
	v := url.Values{"grant_type": {string(oidc.GrantTypeCIBA)}, "auth_req_id": {id}}
	for _, c := range change {
		c(v)
	}
	return v
}

// later is long enough for the next poll.
func (w *world) later(t testing.TB) { t.Helper(); w.DB.Advance(t, 30*time.Second) }

// opened is the path of the page that answers the newest question.
func (w *world) opened(t testing.TB) string {
	t.Helper()
	var id uuid.UUID
	if err := w.DB.GetContext(t.Context(), &id, "SELECT id FROM backchannel_requests ORDER BY created_at DESC LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	return backchannel.Path(id)
}

// confirmed answers the newest payment with its code, as the page would.
func (w *world) confirmed(t testing.TB, client string, before *transaction.Proof) *transaction.Transaction {
	t.Helper()
	var id, challenge uuid.UUID
	if err := w.DB.QueryRowContext(t.Context(), "SELECT id, challenge_id FROM transactions ORDER BY created_at DESC LIMIT 1").Scan(&id, &challenge); err != nil {
		t.Fatal(err)
	}
	done, err := w.provider.Backchannel.Confirm.Approve(t.Context(), client, id, transaction.Answer{Code: w.Code(t, challenge), Before: before})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func notTokens(t *testing.T, what string, got *tokens, code string) {
	t.Helper()
	if got.status != http.StatusBadRequest || got.Error != code || got.Access != "" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %s; want 400 %s", what, got.status, got.raw, code)
	}
}

func TestBackchannelSignIn(t *testing.T) { // CIB-2
	t.Parallel()
	w := newWorld(t)
	asked := w.asks(t, "till", set("scope", "openid profile offline_access"), set("acr_values", "urn:watchword:acr:2"))
	if len(asked.RequestID) < 43 {
		t.Errorf("auth_req_id has %d characters", len(asked.RequestID))
	}
	notTokens(t, "before", w.token(t, "till", ciba(asked.RequestID)), "authorization_pending")
	b, page := w.browser(), w.opened(t)
	for range 3 { // GET has no effect
		w.browser().do(t, http.MethodGet, page, nil)
	}
	steps, a := b.walk(t, b.do(t, http.MethodGet, page, nil))
	if !slices.Equal(steps, []string{"1", "2", "4"}) || a.body != "answered Till true" {
		t.Fatalf("steps %v lead to %d %q", steps, a.status, a.body)
	}
	w.later(t)
	got := w.token(t, "till", ciba(asked.RequestID))
	if got.status != http.StatusOK || got.Refresh == "" || got.ID == "" || got.Scope != "" && got.Scope != "openid profile offline_access" {
		t.Fatalf("no tokens: %d %s", got.status, got.raw)
	}
	for what, claims := range map[string]map[string]any{"ID Token": first(w.claims(t, got.ID)), "access token": first(w.claims(t, got.Access)), "introspection": w.introspect(t, "till", got.Access)} {
		if claims["acr"] != "urn:watchword:acr:2" || fmt.Sprint(claims["amr"]) != "[pwd sms mfa]" || claims["auth_time"] == nil || claims["sid"] != nil || claims["txn"] != nil {
			t.Errorf("%s: %v", what, claims)
		}
	}
	if again := w.token(t, "till", refresh(got.Refresh)); again.status != http.StatusOK {
		t.Errorf("refresh: %d %s", again.status, again.raw)
	}
	if a := b.do(t, http.MethodGet, page, nil); a.status != http.StatusGone {
		t.Errorf("opened afterwards: %d %s", a.status, a.body)
	}
	// Somebody is signed in already: a button has to be pressed all the same.
	second := w.asks(t, "till")
	if steps, _ := b.walkUpTo(t, b.do(t, http.MethodGet, w.opened(t), nil), 0); len(steps) != 0 {
		t.Fatal(steps)
	}
	notTokens(t, "opened in a browser that is signed in", w.token(t, "till", ciba(second.RequestID)), "authorization_pending")
}

func first[A, B any](a A, _ B) A { return a }

func TestBackchannelPayment(t *testing.T) { // PA-9, TXN-1
	t.Parallel()
	for _, client := range []string{"till", "pos", "bank"} { // basic with JWT; ping with opaque tokens; FAPI: private_key_jwt, signed requests, DPoP
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.DB.Advance(t, 25*time.Hour)
			form, key := question(set("authorization_details", paymentDetails)), newKey(t)
			var asked *askedBack
			switch client {
			case "pos":
				form.Set("client_notification_token", "8d67dc78-7faa-4d41-aabd-67707b374255")
				asked = w.askBack(t, client, form)
			case "bank":
				asked = w.askBack(t, client, url.Values{"request": {w.signedRequest(t, form, nil)}})
			default:
				asked = w.askBack(t, client, form)
			}
			if asked.status != http.StatusOK {
				t.Fatalf("not asked: %d %s", asked.status, asked.raw)
			}
			token := func() *tokens {
				w.later(t)
				if client == "bank" {
					return w.token(t, client, ciba(asked.RequestID), w.by(t, key))
				}
				return w.token(t, client, ciba(asked.RequestID))
			}
			notTokens(t, "before", token(), "authorization_pending")
			since := w.DB.Now(t).Add(-time.Minute).Truncate(time.Second)
			done := w.confirmed(t, client, &transaction.Proof{ACR: "urn:watchword:acr:2", AMR: []string{"pwd", "sms", "mfa"}, AuthTime: since})
			got := token()
			if got.status != http.StatusOK {
				t.Fatalf("no tokens: %d %s", got.status, got.raw)
			}
			var answer struct {
				Details json.RawMessage `json:"authorization_details"`
			}
			if err := json.Unmarshal([]byte(got.raw), &answer); err != nil {
				t.Fatal(err)
			}
			told := map[string]map[string]any{"introspection": w.introspect(t, client, got.Access)}
			if client != "pos" {
				told["access token"] = first(w.claims(t, got.Access))
			}
			for what, claims := range told {
				details, _ := json.Marshal(claims["authorization_details"])
				if claims["txn"] != transaction.PublicID(done.ID) || claims["acr"] != "urn:watchword:acr:2" || fmt.Sprint(claims["amr"]) != "[pwd sms mfa]" ||
					claims["auth_time"] != float64(since.Unix()) || string(details) != string(answer.Details) || !strings.Contains(string(details), "129.90") {
					t.Errorf("%s: %v; the answer has %s", what, claims, answer.Details)
				}
				if _, bound := claims["cnf"]; bound != (client == "bank") {
					t.Errorf("%s is bound to a key: %v", what, bound)
				}
			}
			if claims, _ := w.claims(t, got.ID); claims["txn"] != transaction.PublicID(done.ID) || claims["acr"] != "urn:watchword:acr:2" {
				t.Errorf("ID Token: %v", claims)
			}
			notTokens(t, "again", token(), "invalid_grant")
		})
	}
}

// signedRequest is a request of the bank's, signed. A claim that is changed to nil is left out.
func (w *world) signedRequest(t testing.TB, form url.Values, change map[string]any) string {
	t.Helper()
	now := w.DB.Now(t).Unix()
	claims := map[string]any{"iss": "bank", "aud": issuer, "jti": uuid.NewString(), "iat": now, "nbf": now, "exp": now + 300}
	for name := range form {
		claims[name] = form.Get(name)
	}
	if details := form.Get("authorization_details"); details != "" {
		claims["authorization_details"] = json.RawMessage(details)
	}
	return signed(t, jose.ES256, w.bankKey.Key, nil, changed(claims, change))
}

func TestTX16(t *testing.T) { // CIB-1, CI-2, CI-3
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 25*time.Hour)
	now := w.DB.Now(t).Unix()
	bank := func(change map[string]any) url.Values {
		return url.Values{"request": {w.signedRequest(t, question(), change)}}
	}
	other := signed(t, jose.ES256, newKey(t).Key, nil, map[string]any{"iss": "bank", "aud": issuer, "jti": "x", "iat": now, "nbf": now, "exp": now + 300, "scope": "openid", "login_hint": "alice"})
	foreign := w.browser()
	hint := w.token(t, "web", redeem("web", foreign.code(t, request("web")))).ID
	texts := w.Texts(t)
	for name, tt := range map[string]struct {
		client string
		form   url.Values
		want   string
	}{
		"2000 characters":         {"till", question(set("binding_message", strings.Repeat("x", 2000))), "invalid_binding_message"},
		"65 characters":           {"till", question(set("binding_message", strings.Repeat("ü", 65))), "invalid_binding_message"},
		"control":                 {"till", question(set("binding_message", "a\u0007b")), "invalid_binding_message"},
		"line break":              {"till", question(set("binding_message", "a\nb")), "invalid_binding_message"},
		"bidi":                    {"till", question(set("binding_message", "pay \u202e00.1")), "invalid_binding_message"},
		"zero width":              {"till", question(set("binding_message", "a\u200bb")), "invalid_binding_message"},
		"HTML":                    {"till", question(set("binding_message", "<b>bold</b>")), "invalid_binding_message"},
		"no UTF-8":                {"till", question(set("binding_message", "\xff\xfe")), "invalid_binding_message"},
		"two hints":               {"till", question(set("id_token_hint", hint)), "invalid_request"},
		"no hint":                 {"till", question(drop("login_hint")), "invalid_request"},
		"login_hint_token":        {"till", question(drop("login_hint"), set("login_hint_token", "x")), "invalid_request"},
		"another client's hint":   {"till", question(drop("login_hint"), set("id_token_hint", hint)), "invalid_request"},
		"long hint":               {"till", question(set("login_hint", strings.Repeat("x", 400))), "invalid_request"},
		"no openid":               {"till", question(set("scope", "profile")), "invalid_scope"},
		"no scope":                {"till", question(drop("scope")), "invalid_scope"},
		"expiry 0":                {"till", question(set("requested_expiry", "0")), "invalid_request"},
		"expiry soon":             {"till", question(set("requested_expiry", "soon")), "invalid_request"},
		"expiry negative":         {"till", question(set("requested_expiry", "-5")), "invalid_request"},
		"ping without token":      {"pos", question(), "invalid_request"},
		"ping with a short token": {"pos", question(set("client_notification_token", "short")), "invalid_request"},
		"ping with a long token":  {"pos", question(set("client_notification_token", strings.Repeat("x", 1025))), "invalid_request"},
		"ping with no token68":    {"pos", question(set("client_notification_token", "eight words that are no bearer token")), "invalid_request"},
		"two payments":            {"till", question(set("authorization_details", "["+strings.Trim(paymentDetails, "[]")+","+strings.Trim(paymentDetails, "[]")+"]")), "invalid_authorization_details"},
		"amount as number":        {"till", question(set("authorization_details", strings.Replace(paymentDetails, `"129.90"`, "129.90", 1))), "invalid_authorization_details"},
		"a type of no client":     {"till", question(set("authorization_details", `[{"type":"limit","most":1}]`)), "invalid_authorization_details"},
		"without the grant":       {"web", question(), "unauthorized_client"},
		"unsigned":                {"bank", question(), "invalid_request"},
		"beside":                  {"bank", url.Values{"request": {w.signedRequest(t, question(), nil)}, "scope": {"openid"}}, "invalid_request"},
		"exp + 70 min":            {"bank", bank(map[string]any{"exp": now + 4200}), "invalid_request"},
		"over":                    {"bank", bank(map[string]any{"exp": now - 60}), "invalid_request"},
		"nbf in 10 min":           {"bank", bank(map[string]any{"nbf": now + 600, "exp": now + 900}), "invalid_request"},
		"nbf 70 min ago":          {"bank", bank(map[string]any{"nbf": now - 4200}), "invalid_request"},
		"no jti":                  {"bank", bank(map[string]any{"jti": nil}), "invalid_request"},
		"no exp":                  {"bank", bank(map[string]any{"exp": nil}), "invalid_request"},
		"no nbf":                  {"bank", bank(map[string]any{"nbf": nil}), "invalid_request"},
		"no iat":                  {"bank", bank(map[string]any{"iat": nil}), "invalid_request"},
		"other issuer":            {"bank", bank(map[string]any{"iss": "web"}), "invalid_request"},
		"other audience":          {"bank", bank(map[string]any{"aud": "https://other.example"}), "invalid_request"},
		"other client":            {"bank", bank(map[string]any{"client_id": "web"}), "invalid_request"},
		"other key":               {"bank", url.Values{"request": {other}}, "invalid_request"},
		"no algorithm":            {"bank", url.Values{"request": {"eyJhbGciOiJub25lIn0." + strings.Split(other, ".")[1] + "."}}, "invalid_request"},
		"altered":                 {"bank", url.Values{"request": {other[:len(other)-8] + "AAAAAAAA"}}, "invalid_request"},
		"nothing to know it by":   {"bank", url.Values{"request": {w.signedRequest(t, question(drop("binding_message")), nil)}}, "invalid_binding_message"},
		"within another":          {"bank", bank(map[string]any{"request": "x"}), "invalid_request"},
	} {
		if got := w.askBack(t, tt.client, tt.form); got.status != http.StatusBadRequest || got.Error != tt.want || got.RequestID != "" {
			t.Errorf("%s: %d %s; want %s", name, got.status, got.raw, tt.want)
		}
	}
	if w.Texts(t) != texts {
		t.Error("somebody was texted")
	}
	// What is in order beside these.
	once := w.signedRequest(t, question(), map[string]any{"requested_expiry": 120})
	if got := w.askBack(t, "bank", url.Values{"request": {once}}); got.status != http.StatusOK || got.ExpiresIn != 120 {
		t.Errorf("a number of seconds: %d %s", got.status, got.raw)
	}
	if got := w.askBack(t, "bank", url.Values{"request": {once}}); got.Error != "invalid_request" {
		t.Errorf("a request that was used: %d %s", got.status, got.raw)
	}
	if got := w.askBack(t, "till", question(set("binding_message", strings.Repeat("ü", 64)), set("requested_expiry", "1"), set("user_code", "1234"))); got.status != http.StatusOK || got.ExpiresIn != 60 {
		t.Errorf("64 characters: %d %s", got.status, got.raw)
	}
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		if a := w.browser().do(t, method, "/bc-authorize", nil); a.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, a.status)
		}
	}
	if got := w.askBack(t, "till", question(), func(r *http.Request) { r.Header.Del("Authorization") }); got.Error != "invalid_request" && got.Error != "invalid_client" {
		t.Errorf("without authentication: %d %s", got.status, got.raw)
	}
	if got := w.askBack(t, "till", question(), func(r *http.Request) { r.SetBasicAuth("till", "wrong") }); got.status != http.StatusUnauthorized || got.Error != "invalid_client" {
		t.Errorf("a wrong secret: %d %s", got.status, got.raw)
	}
}

func TestHints(t *testing.T) { // CI-3
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 25*time.Hour)
	b := w.browser()
	code := b.code(t, request("third", set("scope", "openid")))
	claims, _ := w.claims(t, w.token(t, "third", redeem("third", code)).ID)
	sub, _ := claims["sub"].(string)
	for name, hint := range map[string]string{"user name": "alice", "mail": "Alice@Mail.example", "sub": sub, "number": "+1 202 555 0143"} {
		if got := w.askBack(t, "till", question(set("login_hint", hint))); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
		w.DB.Advance(t, 2*time.Hour)
	}
	// An ID Token that this client was given, however old.
	asked := w.asks(t, "till")
	if _, a := b.walk(t, b.do(t, http.MethodGet, w.opened(t), nil)); a.body != "answered Till true" {
		t.Fatal(a.body)
	}
	w.later(t)
	id := w.token(t, "till", ciba(asked.RequestID)).ID
	w.DB.Advance(t, 48*time.Hour)
	if got := w.askBack(t, "till", question(drop("login_hint"), set("id_token_hint", id))); got.status != http.StatusOK {
		t.Errorf("id_token_hint: %d %s", got.status, got.raw)
	}
}

func TestTX17(t *testing.T) { // CIB-2, CI-4, CI-5
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 25*time.Hour)
	asked := w.asks(t, "till")
	notTokens(t, "another client", w.token(t, "pos", ciba(asked.RequestID)), "invalid_grant")
	notTokens(t, "cut", w.token(t, "till", ciba(asked.RequestID[:20])), "invalid_grant")
	notTokens(t, "made up", w.token(t, "till", ciba("xxxxxxxxxxxxxxxxxxxxxxxxxxxx")), "invalid_grant")
	notTokens(t, "none", w.token(t, "till", ciba("")), "invalid_request")
	if got := w.token(t, "web", ciba(asked.RequestID)); got.Error != "unauthorized_client" {
		t.Errorf("a client without the grant: %s", got.raw)
	}
	notTokens(t, "first", w.token(t, "till", ciba(asked.RequestID)), "authorization_pending")
	notTokens(t, "too fast", w.token(t, "till", ciba(asked.RequestID)), "slow_down")
	w.DB.Advance(t, 6*time.Second) // 5 s is not enough any more
	notTokens(t, "as fast as before", w.token(t, "till", ciba(asked.RequestID)), "slow_down")
	w.DB.Advance(t, 15*time.Second)
	notTokens(t, "slower", w.token(t, "till", ciba(asked.RequestID)), "authorization_pending")
	// Another process keeps the same pace.
	_, other := w.replica(t, w.DB.Open(t))
	notTokens(t, "at another replica", w.tokenAt(t, other.URL, "till", ciba(asked.RequestID)), "slow_down")

	// Approved: of several at the same moment one gets tokens.
	b := w.browser()
	if _, a := b.walk(t, b.do(t, http.MethodGet, w.opened(t), nil)); a.body != "answered Till true" {
		t.Fatal(a.body)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for range 8 {
		group.Go(func() {
			got := w.token(t, "till", ciba(asked.RequestID))
			mu.Lock()
			defer mu.Unlock()
			outcomes[fmt.Sprint(got.status, got.Error)]++
		})
	}
	group.Wait()
	if !maps.Equal(outcomes, map[string]int{"200": 1, "400invalid_grant": 7}) {
		t.Errorf("eight at once: %v", outcomes)
	}
	notTokens(t, "afterwards", w.token(t, "till", ciba(asked.RequestID)), "invalid_grant")

	denied := w.asks(t, "till")
	p := flowOf(t, b.do(t, http.MethodGet, w.opened(t), nil))
	if a := b.do(t, http.MethodPost, "/login?flow="+p.String(), url.Values{"deny": {"1"}}); a.body != "answered Till false" {
		t.Fatal(a.body)
	}
	notTokens(t, "denied", w.token(t, "till", ciba(denied.RequestID)), "access_denied")
	notTokens(t, "denied, again", w.token(t, "till", ciba(denied.RequestID)), "access_denied")

	late := w.asks(t, "till")
	w.DB.Advance(t, 301*time.Second)
	notTokens(t, "late", w.token(t, "till", ciba(late.RequestID)), "expired_token")
	if a := b.do(t, http.MethodGet, w.opened(t), nil); a.status != http.StatusGone {
		t.Errorf("the page of what is over: %d", a.status)
	}
}

// A link that somebody else opens decides nothing, whatever they do there.
func TestStrangersOpenTheLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 25*time.Hour)
	w.Subscriber(t, "bob", "+12025550199")
	asked := w.asks(t, "till")
	page := w.opened(t)
	b := w.browser()
	b.as = "bob"
	b.signIn(t, b.authorize(t, request("web")))
	if _, a := b.walk(t, b.do(t, http.MethodGet, page, nil)); strings.Contains(a.body, "true") {
		t.Errorf("bob: %d %q", a.status, a.body)
	}
	for _, path := range []string{"/ciba/", "/ciba/x", "/ciba/AAAAAAAAAAAAAAAAAAAAAA", page + "A"} {
		if a := w.browser().do(t, http.MethodGet, path, nil); a.status < 400 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	w.later(t)
	notTokens(t, "nobody answered", w.token(t, "till", ciba(asked.RequestID)), "authorization_pending")
}

func TestBackchannelTX18(t *testing.T) { // CIB-4
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 25*time.Hour)
	bob := w.Subscriber(t, "bob", "+12025550199")
	if err := w.Service.Disable(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	texts := w.Texts(t)
	unknown := w.askBack(t, "till", question(set("login_hint", "nobody")))
	for _, hint := range []string{"bob", "+12025550199", "bob@mail.example", "\x7f"} {
		got := w.askBack(t, "till", question(set("login_hint", hint)))
		if got.status != unknown.status || got.raw != unknown.raw || got.Error != "unknown_user_id" {
			t.Errorf("%s: %d %s; somebody unknown is answered %d %s", hint, got.status, got.raw, unknown.status, unknown.raw)
		}
	}
	if w.Texts(t) != texts {
		t.Error("somebody was texted")
	}
	// An account that is disabled, or whose password was changed, while its approval waits gives nothing any more.
	asked := w.asks(t, "till")
	b := w.browser()
	if _, a := b.walk(t, b.do(t, http.MethodGet, w.opened(t), nil)); a.body != "answered Till true" {
		t.Fatal(a.body)
	}
	alice, err := w.Service.Find(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	w.later(t)
	if err := w.Service.SetPassword(t.Context(), alice.ID, "another horse battery staple"); err != nil {
		t.Fatal(err)
	}
	notTokens(t, "after the password was changed", w.token(t, "till", ciba(asked.RequestID)), "invalid_grant")
}

// acr_values above what somebody can do give no token.
func TestBackchannelLevels(t *testing.T) { // TX-14, SUP-2
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 25*time.Hour)
	asked := w.asks(t, "till", set("acr_values", "urn:watchword:acr:3"))
	b := w.browser()
	if _, a := b.walk(t, b.do(t, http.MethodGet, w.opened(t), nil)); strings.Contains(a.body, "true") {
		t.Fatalf("answered: %s", a.body)
	}
	w.later(t)
	notTokens(t, "unreachable", w.token(t, "till", ciba(asked.RequestID)), "access_denied")
}

func TestBackchannelRoundTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.DB.Advance(t, 25*time.Hour)
	count := func(do func()) int {
		before := w.DB.RoundTrips.Load()
		do()
		return int(w.DB.RoundTrips.Load() - before)
	}
	var asked *askedBack
	for what, most := range map[string]int{"sign-in": 2, "payment": 3} {
		change := []func(url.Values){}
		if what == "payment" {
			change = append(change, set("authorization_details", paymentDetails))
		}
		w.asks(t, "till", change...) // statements are prepared
		w.DB.Advance(t, time.Hour)
		if n := count(func() { asked = w.asks(t, "till", change...) }); n > most {
			t.Errorf("asking for a %s takes %d round trips, want %d", what, n, most)
		}
		w.token(t, "till", ciba(asked.RequestID))
		w.later(t)
		if n := count(func() { notTokens(t, what, w.token(t, "till", ciba(asked.RequestID)), "authorization_pending") }); n != 1 {
			t.Errorf("a poll takes %d round trips", n)
		}
		w.DB.Advance(t, time.Hour)
	}
}

// One is a poll of a question that nobody has answered yet: with a secret, over HTTP without a network.
func BenchmarkPoll(b *testing.B) {
	w := newWorld(b)
	asked := w.asks(b, "till")
	w.provider.Backchannel.Config.Pause = 0
	handler := w.provider.Routes()
	body := ciba(asked.RequestID).Encode()
	before := w.DB.RoundTrips.Load()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/oauth/token", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("till", w.secrets["till"])
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		if rec.Code != http.StatusBadRequest {
			b.Fatal(rec.Code, rec.Body)
		}
	}
	b.ReportMetric(float64(w.DB.RoundTrips.Load()-before)/float64(b.N), "round-trips/op")
}
