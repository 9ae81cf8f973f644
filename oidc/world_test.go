package oidc_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/logtest"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/oidc"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the library logs every refusal there
	pgtest.Main(m)
}

const verifier = "a-code-verifier-of-at-least-forty-three-characters"

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// world is a provider with pages that a test clicks through.
type world struct {
	*authntest.World
	provider *oidc.Provider
	server   *httptest.Server
	secrets  map[string]string
	bankKey  jose.JSONWebKey // of client bank, which authenticates with it
	logs     *logtest.Buffer
	change   func(*oidc.Config) // of every provider made from now on
	holding  time.Duration      // how long polls wait at every provider made from now on; 0: as long as they may
}

func newWorld(t testing.TB, more ...factors.Factor) *world {
	t.Helper()
	w := &world{World: authntest.New(t, more...), secrets: map[string]string{}, logs: new(logtest.Buffer)}
	if err := (&oidc.Keys{DB: w.DB.DB, Seal: w.World.Keys}).Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.provider, w.server = w.replica(t, w.DB.DB)
	w.Subscriber(t, "alice", "+12025550143")
	w.register(t, "web", oidc.Registration{Name: "Web", RedirectURIs: []string{"https://rp.example/cb", "https://rp.example/cb2?a=b"},
		PostLogoutRedirectURIs: []string{"https://rp.example/bye"}, FirstParty: true,
		GrantTypes: []zoidc.GrantType{zoidc.GrantTypeCode, zoidc.GrantTypeRefreshToken, zoidc.GrantTypeClientCredentials}, DetailTypes: []string{"account", "limit"}})
	w.register(t, "other", oidc.Registration{Name: "Other", RedirectURIs: []string{"https://other.example/cb"}, FirstParty: true, AccessTokenFormat: "opaque",
		IDTokenAlg: "EdDSA", AuthMethod: zoidc.AuthMethodPost, GrantTypes: []zoidc.GrantType{zoidc.GrantTypeCode, zoidc.GrantTypeRefreshToken}})
	w.register(t, "spa", oidc.Registration{Name: "Script", RedirectURIs: []string{"https://spa.example/cb"}, FirstParty: true, IDTokenAlg: "ES256",
		AuthMethod: zoidc.AuthMethodNone, GrantTypes: []zoidc.GrantType{zoidc.GrantTypeCode, zoidc.GrantTypeRefreshToken}})
	w.register(t, "third", oidc.Registration{Name: "Third party", RedirectURIs: []string{"https://third.example/cb"},
		GrantTypes: []zoidc.GrantType{zoidc.GrantTypeCode, zoidc.GrantTypeRefreshToken}, DetailTypes: []string{"account"}})
	w.bankKey = newKey(t)
	w.register(t, "bank", oidc.Registration{Name: "Bank", RedirectURIs: []string{"https://bank.example/cb"}, FirstParty: true, Profile: oidc.ProfileFAPI2,
		Keys: &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{w.bankKey.Public()}}, RequirePush: true, DPoPBound: true, DetailTypes: []string{"account", "payment_initiation"},
		GrantTypes: []zoidc.GrantType{zoidc.GrantTypeCode, zoidc.GrantTypeRefreshToken, zoidc.GrantTypeClientCredentials, oidc.GrantTypeCIBA}})
	w.register(t, "till", oidc.Registration{Name: "Till", FirstParty: true, DetailTypes: []string{"account", "payment_initiation"},
		GrantTypes: []zoidc.GrantType{oidc.GrantTypeCIBA, zoidc.GrantTypeRefreshToken}})
	w.register(t, "pos", oidc.Registration{Name: "Point of sale", DetailTypes: []string{"payment_initiation"}, AccessTokenFormat: "opaque",
		GrantTypes: []zoidc.GrantType{oidc.GrantTypeCIBA}, DeliveryMode: oidc.DeliveryPing, NotificationEndpoint: "https://pos.example/ping"})
	w.register(t, "native", oidc.Registration{Name: "Native", ApplicationType: "native", RedirectURIs: []string{"http://127.0.0.1/cb", "com.example.app:/cb"},
		AuthMethod: zoidc.AuthMethodNone})
	w.register(t, "gone", oidc.Registration{Name: "Gone", RedirectURIs: []string{"https://gone.example/cb"}})
	if err := w.provider.Clients.SetDisabled(t.Context(), "gone", true); err != nil {
		t.Fatal(err)
	}
	return w
}

// replica makes another provider on its own pool and address, with the same issuer.
func (w *world) replica(t testing.TB, db *postgres.DB) (*oidc.Provider, *httptest.Server) {
	t.Helper()
	service := w.Replica(t, db)
	cfg := oidc.Config{
		Issuer: "https://login.example", DB: db, SignIns: service, Clients: &oidc.Clients{DB: db}, Keys: &oidc.Keys{DB: db, Seal: w.World.Keys},
		Levels: authn.DefaultLevelNames(), Lives: oidc.DefaultLives(), Locales: []string{"en", "de"}, NoPKCE: []string{"third", "spa"},
		Details: detailTypes(), Backchannel: w.asking(t, service),
		Now: func() time.Time { return w.DB.Now(t) }, Log: slog.New(slog.NewTextHandler(w.logs, nil)),
	}
	if w.change != nil {
		w.change(&cfg)
	}
	p, err := oidc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	pages := &pages{provider: p, service: service}
	p.Pages = pages
	mux := http.NewServeMux()
	mux.HandleFunc("/login", pages.step)
	mux.Handle("/", p.Routes())
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		from := audit.Context{Source: netip.MustParseAddr("192.0.2.1"), RequestID: "req_test"}
		if x := r.Header.Get("X-Test-From"); x != "" {
			from.Source = netip.MustParseAddr(x)
		}
		mux.ServeHTTP(rw, r.WithContext(audit.With(r.Context(), from)))
	}))
	t.Cleanup(server.Close)
	return p, server
}

// asking is what asks people in the background.
func (w *world) asking(t testing.TB, signIns *authn.Service) *backchannel.Service {
	t.Helper()
	texts, err := sms.NewTexts("Watchword", authntest.Host)
	if err != nil {
		t.Fatal(err)
	}
	s := &backchannel.Service{DB: signIns.DB, Keys: w.World.Keys, SignIns: signIns, Outbox: signIns.Ledger.Outbox, Texts: texts, Issuer: "https://login.example", Config: backchannel.DefaultConfig()}
	s.Waiting = &backchannel.Waiting{DB: signIns.DB, Hold: cmp.Or(w.holding, backchannel.MaxHold), Most: backchannel.MostHeld, Now: time.Now, Log: slog.New(slog.DiscardHandler)} // nobody waits before it hears: see hears
	keys := &oidc.Keys{DB: signIns.DB, Seal: w.World.Keys}
	if err := keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Confirm = &transaction.Service{DB: signIns.DB, Keys: w.World.Keys, Ledger: signIns.Ledger, Signer: keys, Issuer: "https://login.example", Config: transaction.DefaultConfig(), Ended: s.Follow, Suspended: s.Suspend}
	return s
}

func (w *world) register(t testing.TB, id string, r oidc.Registration) {
	t.Helper()
	secret, err := w.provider.Clients.Create(t.Context(), id, r)
	if err != nil {
		t.Fatal(err)
	}
	w.secrets[id] = secret
}

// hold runs a statement in a transaction of its own and keeps its locks until release is called.
func (w *world) hold(t testing.TB, statement string) (release func()) {
	t.Helper()
	tx, err := w.DB.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// waiting returns when n statements wait for a lock.
func (w *world) waiting(t testing.TB, n int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 4*time.Second) // a statement waits no longer than 5 s
	defer stop()
	for have := 0; have < n; {
		if err := w.DB.GetContext(ctx, &have, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"); err != nil {
			t.Fatalf("%d of %d statements wait for a lock: %v", have, n, err)
		}
	}
}

// pages stand in for package authn/web: they show steps as JSON and take answers without ceremony.
type pages struct {
	provider *oidc.Provider
	service  *authn.Service
}

func (p *pages) Cookie(r *http.Request) authn.Cookie {
	c, err := r.Cookie("session")
	if err != nil {
		return ""
	}
	return authn.Cookie(c.Value)
}

func (p *pages) SetCookie(w http.ResponseWriter, c authn.Cookie) {
	http.SetCookie(w, &http.Cookie{Name: "session", Value: string(c), Path: "/"})
}

func (p *pages) Next(w http.ResponseWriter, r *http.Request, progress *authn.Progress, cookie authn.Cookie) error {
	if progress.Cookie != "" {
		p.SetCookie(w, progress.Cookie)
	}
	switch progress.Decision.Step {
	case authn.StepDone:
		return p.provider.Finish(w, r, progress, cookie)
	case authn.StepFail:
		return p.provider.Refuse(w, r, progress, cookie, progress.Decision.Failure)
	}
	http.Redirect(w, r, "/login?flow="+progress.SignIn.ID.String(), http.StatusSeeOther)
	return nil
}

func (p *pages) step(w http.ResponseWriter, r *http.Request) {
	id, cookie := uuid.MustParse(r.URL.Query().Get("flow")), p.Cookie(r)
	progress, err := p.service.Load(r.Context(), cookie, id)
	if err != nil || r.Method == http.MethodGet {
		if err == nil {
			fmt.Fprintf(w, "step %d", progress.Decision.Step)
			return
		}
		http.Error(w, "over", http.StatusGone)
		return
	}
	switch progress.Decision.Step {
	case authn.StepPassword:
		progress, err = p.service.Password(r.Context(), cookie, uuid.Nil, id, r.PostFormValue("name"), r.PostFormValue("password"), "en")
	case authn.StepFactor:
		progress, err = p.service.Code(r.Context(), cookie, id, r.PostFormValue("code"))
	case authn.StepConsent:
		if r.PostFormValue("deny") != "" {
			err = p.provider.Refuse(w, r, progress, cookie, authn.AccessDenied)
			if err == nil {
				return
			}
		}
		progress, err = p.service.Consent(r.Context(), cookie, id)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	if progress.Cookie != "" {
		cookie = progress.Cookie
	}
	if err := p.Next(w, r, progress, cookie); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func (p *pages) Problem(w http.ResponseWriter, _ *http.Request, status int, id, detail string) {
	w.WriteHeader(status)
	io.WriteString(w, "problem "+id)
	if code, _, named := strings.Cut(detail, ":"); named {
		io.WriteString(w, " "+code)
	}
}

func (p *pages) FormPost(w http.ResponseWriter, _ *http.Request, action string, values url.Values) {
	json.NewEncoder(w).Encode(map[string]any{"action": action, "values": values})
}

func (p *pages) ConfirmSignOut(w http.ResponseWriter, _ *http.Request, _ authn.Session) {
	io.WriteString(w, "confirm sign-out")
}

func (p *pages) SignedOut(w http.ResponseWriter, _ *http.Request, application, _ string) {
	io.WriteString(w, "signed out of "+application)
}

func (p *pages) Answered(w http.ResponseWriter, _ *http.Request, application, _ string, allowed bool) {
	fmt.Fprintf(w, "answered %s %v", application, allowed)
}

// browser keeps cookies and follows nothing.
type browser struct {
	w      *world
	base   string
	cookie string
	as     string // who signs in; "" is alice
	answer string // to the question for a second factor; "": what the text message says
}

func (w *world) browser() *browser { return &browser{w: w, base: w.server.URL} }

type answer struct {
	status   int
	location string
	header   http.Header
	body     string
}

func (a *answer) param(name string) string {
	u, err := url.Parse(a.location)
	if err != nil {
		return ""
	}
	return u.Query().Get(name)
}

func (b *browser) do(t testing.TB, method, target string, form url.Values) *answer {
	t.Helper()
	if !strings.HasPrefix(target, "http") {
		target = b.base + target
	}
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if b.cookie != "" {
		req.AddCookie(&http.Cookie{Name: "session", Value: b.cookie})
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range resp.Cookies() {
		b.cookie = c.Value
	}
	return &answer{status: resp.StatusCode, location: resp.Header.Get("Location"), header: resp.Header, body: string(data)}
}

// request is an authorization request of a client that is as it should be.
func request(client string, change ...func(url.Values)) url.Values {
	v := url.Values{"client_id": {client}, "response_type": {"code"}, "scope": {"openid profile"}, "state": {"the state"}, "nonce": {"the nonce"},
		"code_challenge": {challenge()}, "code_challenge_method": {"S256"}, "redirect_uri": {map[string]string{
			"web": "https://rp.example/cb", "other": "https://other.example/cb", "spa": "https://spa.example/cb", "third": "https://third.example/cb",
			"bank": "https://bank.example/cb", "native": "com.example.app:/cb", "gone": "https://gone.example/cb"}[client]}}
	for _, c := range change {
		c(v)
	}
	return v
}

func set(name, value string) func(url.Values) {
	return func(v url.Values) { v.Set(name, value) }
}

func drop(name string) func(url.Values) { return func(v url.Values) { v.Del(name) } }

func (b *browser) authorize(t testing.TB, v url.Values) *answer {
	t.Helper()
	return b.do(t, http.MethodGet, "/authorize?"+v.Encode(), nil)
}

// signIn goes through password, code and consent from wherever a leads.
func (b *browser) signIn(t testing.TB, a *answer) *answer {
	t.Helper()
	_, a = b.walk(t, a)
	return a
}

// walk is signIn that tells which steps it took.
func (b *browser) walk(t testing.TB, a *answer) (steps []string, last *answer) {
	t.Helper()
	return b.walkUpTo(t, a, 4)
}

// walkUpTo takes so many steps at most.
func (b *browser) walkUpTo(t testing.TB, a *answer, most int) (steps []string, last *answer) {
	t.Helper()
	for strings.HasPrefix(a.location, "/login") && len(steps) < most {
		flow, form := a.location, url.Values{}
		step := strings.TrimPrefix(b.do(t, http.MethodGet, flow, nil).body, "step ")
		switch step {
		case fmt.Sprint(authn.StepPassword):
			form = url.Values{"name": {cmp.Or(b.as, "alice")}, "password": {authntest.Password}}
		case fmt.Sprint(authn.StepFactor):
			id := flowOf(t, a)
			p, err := b.w.provider.SignIns.Load(t.Context(), authn.Cookie(b.cookie), id)
			if err != nil {
				t.Fatal(err)
			}
			form = url.Values{"code": {b.typed(t, p)}}
		}
		steps, a = append(steps, step), b.do(t, http.MethodPost, flow, form)
	}
	return steps, a
}

// flowOf reads the sign-in that a leads to.
func flowOf(t testing.TB, a *answer) uuid.UUID {
	t.Helper()
	id, err := uuid.Parse(strings.TrimPrefix(a.location, "/login?flow="))
	if err != nil {
		t.Fatalf("%d %q leads to no sign-in", a.status, a.location)
	}
	return id
}

// typed is the answer to the challenge that is due, which a person who has a device asks for first if they came with a session.
func (b *browser) typed(t testing.TB, p *authn.Progress) string {
	t.Helper()
	if b.answer != "" {
		return b.answer
	}
	ctx, cookie, id := authntest.From(t.Context(), "192.0.2.1"), authn.Cookie(b.cookie), p.SignIn.ID
	if p.SignIn.Challenge == nil {
		if _, err := b.w.provider.SignIns.Choose(ctx, cookie, id, uuid.Nil, "en"); err != nil {
			t.Fatal(err)
		}
		var err error
		if p, err = b.w.provider.SignIns.Load(ctx, cookie, id); err != nil {
			t.Fatal(err)
		}
	}
	if p.SignIn.Challenge.Kind == authntest.DeviceKind {
		return authntest.DeviceCode
	}
	return b.w.Code(t, p.SignIn.Challenge.ID)
}

// code signs in and gives the code.
func (b *browser) code(t testing.TB, v url.Values) string {
	t.Helper()
	a := b.signIn(t, b.authorize(t, v))
	code := a.param("code")
	if code == "" {
		t.Fatalf("no code: %d %s %s", a.status, a.location, a.body)
	}
	return code
}

// tokens is a token response or error.
type tokens struct {
	status      int
	header      http.Header
	Access      string `json:"access_token"`
	Type        string `json:"token_type"`
	Refresh     string `json:"refresh_token"`
	ID          string `json:"id_token"`
	ExpiresIn   int    `json:"expires_in"`
	Scope       string `json:"scope"`
	Error       string `json:"error"`
	Description string `json:"error_description"`
	raw         string
}

// post sends a form to a back-channel endpoint as client, by the method that it registered.
func (w *world) post(t testing.TB, base, path, client string, form url.Values, change ...func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	form = cloneForm(form)
	switch client {
	case "other":
		form.Set("client_id", client)
		form.Set("client_secret", w.secrets[client])
	case "spa", "native":
		form.Set("client_id", client)
	case "bank":
		if !form.Has("client_assertion") {
			form.Set("client_assertion", w.assertion(t, nil))
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client == "web" || client == "third" || client == "gone" || client == "till" || client == "pos" {
		req.SetBasicAuth(url.QueryEscape(client), url.QueryEscape(w.secrets[client]))
	}
	for _, c := range change {
		c(req)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

func cloneForm(form url.Values) url.Values {
	out := url.Values{}
	for k, v := range form {
		out[k] = append([]string(nil), v...)
	}
	return out
}

func (w *world) token(t testing.TB, client string, form url.Values, change ...func(*http.Request)) *tokens {
	t.Helper()
	return w.tokenAt(t, w.server.URL, client, form, change...)
}

func (w *world) tokenAt(t testing.TB, base, client string, form url.Values, change ...func(*http.Request)) *tokens {
	t.Helper()
	got := &tokens{}
	got.status, got.header, got.raw = w.post(t, base, "/oauth/token", client, form, change...)
	if err := json.Unmarshal([]byte(got.raw), got); err != nil {
		t.Fatalf("token endpoint answered %d %q", got.status, got.raw)
	}
	return got
}

func redeem(client, code string, change ...func(url.Values)) url.Values {
	v := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {request(client).Get("redirect_uri")}, "code_verifier": {verifier}}
	for _, c := range change {
		c(v)
	}
	return v
}

func refresh(token string, change ...func(url.Values)) url.Values {
	v := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	for _, c := range change {
		c(v)
	}
	return v
}

// signedIn gives tokens of a whole flow.
func (w *world) signedIn(t testing.TB, client string, change ...func(url.Values)) *tokens {
	t.Helper()
	got := w.token(t, client, redeem(client, w.browser().code(t, request(client, change...))))
	if got.status != http.StatusOK {
		t.Fatalf("no tokens: %d %s", got.status, got.raw)
	}
	return got
}

func (w *world) introspect(t testing.TB, client, token string) map[string]any {
	t.Helper()
	status, _, body := w.post(t, w.server.URL, "/oauth/introspect", client, url.Values{"token": {token}})
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		t.Fatalf("introspection answered %d %q", status, body)
	}
	return got
}

func (w *world) userinfo(t testing.TB, token string) (int, map[string]any, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.URL+"/userinfo", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, got, resp.Header
}

// claims reads a JWT with a published key.
func (w *world) claims(t testing.TB, raw string) (map[string]any, jose.Header) {
	t.Helper()
	a := w.browser().do(t, http.MethodGet, "/oauth/keys", nil)
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(a.body), &keys); err != nil {
		t.Fatal(err)
	}
	signed, err := jose.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	header := signed.Signatures[0].Header
	payload, err := signed.Verify(keys.Key(header.KeyID)[0])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	return got, header
}
