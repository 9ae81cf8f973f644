package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/examples/stepup/api"
	"github.com/watchword-auth/watchword/examples/stepup/app"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/oidc"
	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
)

// stage is a server with everything that the step-up example needs: the API, and a clock that the test moves for all of them.
type stage struct {
	*services
	db     *pgtest.Database
	issuer string
	bank   *httptest.Server
	inbox  *carriersim.Simulator
	seen   map[string]bool // texts that were read

	mu     sync.Mutex
	wanted []string // the challenges that the API answered with
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{db: pgtest.New(t), inbox: carriersim.New(carriersim.Options{Now: time.Now}), seen: map[string]bool{}}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := keyring.Create(keys); err != nil {
		t.Fatal(err)
	}
	inbox := httptest.NewServer(s.inbox)
	t.Cleanup(inbox.Close)
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	manage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(public.Addr().String())
	s.issuer = "http://localhost:" + port
	cfg, _, err := config.Load(config.Sources{Env: []string{"WATCHWORD_DATABASE__DSN=" + s.db.DSN},
		Flags: []string{"issuer=" + s.issuer, "keys.dir=" + keys, "sms.vendors.simulator.url=" + inbox.URL, "drain_timeout=1s"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.services, err = assemble(cfg); err != nil {
		t.Fatal(err)
	}
	kinds, err := installed(cfg, s.ring, s.delivery.texts, nil)
	if err != nil {
		t.Fatal(err)
	}
	texts, err := smsotp.New(s.delivery.texts, cfg.OTP.Digits, cfg.OTP.Lifetime)
	if err != nil {
		t.Fatal(err)
	}
	if s.signIns.Ledger, err = factors.NewLedger(s.services.db, s.ring, s.delivery.outbox, factors.DefaultLimits(), append(kinds, pager{texts})...); err != nil {
		t.Fatal(err)
	}
	s.signIns.Config.Policy.Installed = s.signIns.Kinds()
	srv, err := newServer(s.services, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.keys.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- srv.run(ctx, public, manage) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	handler, err := api.New(api.Config{Issuer: s.issuer, Levels: authn.DefaultLevelNames().Supported(authn.UnrestrictedLevel), ACR: "urn:watchword:acr:3", MaxAge: 5 * time.Minute,
		Now: func() time.Time { return s.db.Now(t) }})
	if err != nil {
		t.Fatal(err)
	}
	s.bank = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		s.mu.Lock()
		defer s.mu.Unlock()
		if wanted := w.Header().Get("WWW-Authenticate"); wanted != "" {
			s.wanted = append(s.wanted, wanted)
		}
	}))
	t.Cleanup(s.bank.Close)
	return s
}

// challenges gives what the API wanted since it was asked last.
func (s *stage) challenges() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, s.wanted = s.wanted, nil
	return all
}

// register makes an application known, and gives its secret.
func (s *stage) register(t *testing.T, id, redirect string) string {
	t.Helper()
	r := oidc.Registration{Name: "The application", RedirectURIs: []string{redirect}, FirstParty: true, AllowHTTP: true}
	secret, err := s.clients.Create(t.Context(), id, r)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// person enrols somebody with a phone.
func (s *stage) person(t *testing.T, name, phone string) uuid.UUID {
	t.Helper()
	number, err := sms.ParseNumber(phone, "")
	if err != nil {
		t.Fatal(err)
	}
	a, unique := smsotp.Phone(uuid.Nil, number)
	id, err := s.signIns.Create(t.Context(), name, authntest.Password, authn.Profile{}, authn.Binding{Authenticator: a, Unique: unique})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// pager is a stronger factor than a text to a phone, for tests that have to do with pages: a text to something that nobody can take over.
type pager struct{ *smsotp.Factor }

func (pager) Kind() string     { return "pager" }
func (pager) AMR() []string    { return []string{"otp"} }
func (pager) Restricted() bool { return false }

// bindPager gives somebody a pager.
func (s *stage) bindPager(t *testing.T, subscriber uuid.UUID, number string) {
	t.Helper()
	n, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := smsotp.Phone(uuid.Nil, n)
	a.Kind = pager{}.Kind()
	if err := s.signIns.Bind(t.Context(), subscriber, authn.Binding{Authenticator: a}); err != nil {
		t.Fatal(err)
	}
}

// code waits for a text on a phone that was not read yet.
func (s *stage) code(t *testing.T, phone string) string {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		for _, m := range s.inbox.Messages(phone) {
			if code := m.Text[len(m.Text)-6:]; !s.seen[m.Text] {
				s.seen[m.Text] = true
				return code
			}
		}
		select {
		case <-timeout:
			t.Fatal("no text")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// surfer is a browser without script. It follows every redirect but those to an address that nobody listens at.
type surfer struct {
	client *http.Client
	steps  []string // the forms that were filled in
	at     *url.URL
	html   string
}

const nowhere = "http://127.0.0.1:1/"

func newSurfer(t *testing.T) *surfer {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &surfer{client: &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), nowhere) {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

func (b *surfer) do(t *testing.T, method, target string, form url.Values) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	b.at, b.html = resp.Request.URL, string(body)
	if location, err := resp.Location(); err == nil {
		b.at = location
	}
}

var (
	anyForm  = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	anyInput = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// submit fills in the form of the page that leads to path.
func (b *surfer) submit(t *testing.T, path string, fields url.Values) {
	t.Helper()
	for _, form := range anyForm.FindAllStringSubmatch(b.html, -1) {
		action := strings.ReplaceAll(form[1], "&amp;", "&")
		if before, _, _ := strings.Cut(action, "?"); before != path {
			continue
		}
		values := url.Values{}
		for _, input := range anyInput.FindAllStringSubmatch(form[2], -1) {
			values.Set(input[1], input[2])
		}
		for name, v := range fields {
			values[name] = v
		}
		target, err := b.at.Parse(action)
		if err != nil {
			t.Fatal(err)
		}
		b.steps = append(b.steps, path)
		b.do(t, http.MethodPost, target.String(), values)
		return
	}
	t.Fatalf("no form for %s at %s:\n%s", path, b.at, b.html)
}

// took gives the forms since it was asked last.
func (b *surfer) took() string {
	defer func() { b.steps = nil }()
	return strings.Join(b.steps, " ")
}

func (b *surfer) want(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(b.html, text) {
			t.Fatalf("the page at %s lacks %q:\n%s", b.at, text, b.html)
		}
	}
}

var shownTime = regexp.MustCompile(`<dt>auth_time</dt><dd>([^<]*)</dd>`)

func (b *surfer) authTime(t *testing.T) time.Time {
	t.Helper()
	found := shownTime.FindStringSubmatch(b.html)
	if found == nil {
		t.Fatalf("no auth_time:\n%s", b.html)
	}
	at, err := time.Parse(time.RFC3339, found[1])
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestStepUpExamples has an application ask for a transfer, be told by the API that more is wanted, and get it: RFC 9470 from end to end, in Go and in Node.
func TestStepUpExamples(t *testing.T) {
	t.Parallel()
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		var handler http.Handler
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
		t.Cleanup(server.Close)
		handler = app.New(app.Config{Issuer: s.issuer, API: s.bank.URL, BaseURL: server.URL, ClientID: "example", ClientSecret: s.register(t, "example", server.URL+"/callback")})
		s.dance(t, server.URL)
	})
	t.Run("node", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		secret := s.register(t, "example", "http://"+address+"/callback")
		cmd := exec.CommandContext(t.Context(), "node", "app.mjs")
		cmd.Dir = filepath.Join("..", "..", "examples", "stepup", "node")
		cmd.Env = append(os.Environ(), "ISSUER="+s.issuer, "API="+s.bank.URL, "CLIENT_ID=example", "CLIENT_SECRET="+secret, "LISTEN="+address)
		out := newWatched()
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatalf("%v (make test installs Node.js and the packages)", err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() {
			cmd.Process.Kill() //nolint:errcheck // it may have ended
			<-ended
			if t.Failed() {
				t.Log(out)
			}
		})
		out.line(t, "Open http://"+address)
		s.dance(t, "http://"+address)
	})
}

func (s *stage) dance(t *testing.T, application string) {
	t.Helper()
	const phone, beeper = "+12025550143", "+12025550144"
	alice := s.person(t, "alice", phone)
	const stronger = `Bearer error="insufficient_user_authentication", error_description="a stronger sign-in is needed", acr_values="urn:watchword:acr:3", max_age="300"`
	recent := strings.Replace(stronger, "stronger", "more recent", 1)

	b := newSurfer(t)
	b.do(t, http.MethodGet, application+"/signin", nil)
	b.submit(t, "/login", url.Values{"username": {"alice"}, "password": {authntest.Password}})
	b.submit(t, "/login/code", url.Values{"code": {s.code(t, phone)}})
	b.want(t, "<dd>urn:watchword:acr:2</dd>", "<dd>pwd sms mfa</dd>", "A text message confirmed that it is you.")
	signedIn := b.authTime(t)
	b.took()

	// TX-12, TX-14: a token that is too weak; and somebody who cannot have a better one, who is told, as the application is.
	b.submit(t, "/transfer", nil)
	b.want(t, "You need another way to sign in", "asks for a stronger way to sign in")
	b.submit(t, "/login/unmet", nil)
	b.want(t, "The bank wants a stronger sign-in than your account has.", "<dd>urn:watchword:acr:2</dd>")
	if got := fmt.Sprintf("%q", s.challenges()); got != fmt.Sprintf("%q", []string{stronger}) {
		t.Fatalf("the API wanted %s", got)
	}
	b.took()

	// With the factor, only that is asked for, and the transfer goes on by itself.
	s.bindPager(t, alice, beeper)
	s.db.Advance(t, time.Minute)
	b.submit(t, "/transfer", nil)
	b.submit(t, "/login/code/resend", nil)
	b.submit(t, "/login/code", url.Values{"code": {s.code(t, beeper)}})
	b.want(t, "100.00 were transferred.", "<dd>urn:watchword:acr:3</dd>", "<dd>pwd otp mfa</dd>")
	if got := b.took(); got != "/transfer /login/code/resend /login/code" {
		t.Errorf("SUP-1: asked for %s", got)
	}
	if at := b.authTime(t); !at.Equal(signedIn) {
		t.Errorf("auth_time is %v, and the password was given at %v", at, signedIn)
	}
	if got := fmt.Sprintf("%q", s.challenges()); got != fmt.Sprintf("%q", []string{stronger}) {
		t.Errorf("the API wanted %s", got)
	}

	// Nothing is asked for what is proven.
	b.submit(t, "/transfer", nil)
	b.want(t, "100.00 were transferred.")
	if got := b.took(); got != "/transfer" || len(s.challenges()) > 0 {
		t.Errorf("a second transfer asked for %s", got)
	}

	// TX-13: what was proven long ago is proven again, all of it.
	s.db.Advance(t, 6*time.Minute)
	b.submit(t, "/transfer", nil)
	b.submit(t, "/login", url.Values{"password": {authntest.Password}})
	b.submit(t, "/login/code", url.Values{"code": {s.code(t, beeper)}})
	b.want(t, "100.00 were transferred.", "<dd>urn:watchword:acr:3</dd>")
	if got := fmt.Sprintf("%q", s.challenges()); got != fmt.Sprintf("%q", []string{recent}) {
		t.Errorf("the API wanted %s", got)
	}
	if at := b.authTime(t); at.Sub(signedIn) < 7*time.Minute {
		t.Errorf("auth_time is %v after the first sign-in", at.Sub(signedIn))
	}
	b.took()

	// Whoever does not want to, goes back; nothing is lost and nothing is transferred.
	s.db.Advance(t, 6*time.Minute)
	b.submit(t, "/transfer", nil)
	b.submit(t, "/login/cancel", nil)
	b.want(t, "You were not signed in: access_denied", "<dd>urn:watchword:acr:3</dd>")
	if strings.Contains(b.html, "were transferred") {
		t.Error("transferred all the same")
	}

	// An answer that this browser did not begin, and a form of another site, do nothing.
	b.do(t, http.MethodGet, application+"/callback?code=x&state=y&iss="+url.QueryEscape(s.issuer), nil)
	if strings.Contains(b.html, "were transferred") || !strings.Contains(b.html, `role="alert"`) {
		t.Errorf("a foreign answer:\n%s", b.html)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, application+"/transfer", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site: %s", resp.Status)
	}
}

// TestStepUpAPI holds the API of the example against tokens that are none, and against those of different sign-ins.
func TestStepUpAPI(t *testing.T) { // TX-12, SUP-3
	t.Parallel()
	s := newStage(t)
	const phone = "+12025550143"
	s.person(t, "alice", phone)
	provider, err := goidc.NewProvider(t.Context(), s.issuer)
	if err != nil {
		t.Fatal(err)
	}
	conf := oauth2.Config{ClientID: "example", ClientSecret: s.register(t, "example", nowhere), RedirectURL: nowhere, Endpoint: provider.Endpoint(), Scopes: []string{"openid"}}
	verifier := oauth2.GenerateVerifier()
	b := newSurfer(t)
	b.do(t, http.MethodGet, conf.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)), nil)
	b.submit(t, "/login", url.Values{"username": {"alice"}, "password": {authntest.Password}})
	b.submit(t, "/login/code", url.Values{"code": {s.code(t, phone)}})
	tokens, err := conf.Exchange(t.Context(), b.at.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	idToken, _ := tokens.Extra("id_token").(string)
	call := func(method, path, authorization string) (status int, challenge, body string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.bank.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var text bytes.Buffer
		if _, err := text.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("WWW-Authenticate"), text.String()
	}
	head, rest, _ := strings.Cut(tokens.AccessToken, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	none := "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJub25lIn0" // {"typ":"at+jwt","alg":"none"}
	for name, tt := range map[string]struct{ token, want string }{
		"none":              {"", "Bearer"},
		"of another scheme": {"Basic YTpi", "Bearer"},
		"garbage":           {"Bearer x", `Bearer error="invalid_token"`},
		"an ID Token":       {"Bearer " + idToken, `Bearer error="invalid_token"`},
		"unsigned":          {"Bearer " + none + "." + payload + ".", `Bearer error="invalid_token"`},
		"signed otherwise":  {"Bearer " + head + "." + payload + "." + strings.Repeat("A", len(signature)), `Bearer error="invalid_token"`},
	} {
		for _, call2 := range []struct{ method, path string }{{http.MethodGet, "/balance"}, {http.MethodPost, "/transfers"}} {
			if status, challenge, _ := call(call2.method, call2.path, tt.token); status != http.StatusUnauthorized || challenge != tt.want {
				t.Errorf("token %s at %s: %d %s", name, call2.path, status, challenge)
			}
		}
	}
	status, _, body := call(http.MethodGet, "/balance", "Bearer "+tokens.AccessToken)
	var said struct {
		ACR      string   `json:"acr"`
		AMR      []string `json:"amr"`
		AuthTime int64    `json:"auth_time"`
	}
	if err := json.Unmarshal([]byte(body), &said); err != nil || status != http.StatusOK || said.ACR != "urn:watchword:acr:2" || strings.Join(said.AMR, " ") != "pwd sms mfa" || said.AuthTime == 0 { // SUP-4
		t.Errorf("a balance for everybody: %d %s", status, body)
	}
	if status, challenge, _ := call(http.MethodPost, "/transfers", "Bearer "+tokens.AccessToken); status != http.StatusUnauthorized || !strings.Contains(challenge, `error="insufficient_user_authentication"`) {
		t.Errorf("a transfer with too weak a token: %d %s", status, challenge)
	}
	s.db.Advance(t, time.Hour)
	if status, challenge, _ := call(http.MethodPost, "/transfers", "Bearer "+tokens.AccessToken); status != http.StatusUnauthorized || challenge != `Bearer error="invalid_token"` {
		t.Errorf("a token that has expired: %d %s", status, challenge)
	}
}
