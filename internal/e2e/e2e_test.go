// Package e2e runs the program as its users do: the binary with its own PostgreSQL, demo application and carrier simulator, driven by a
// real browser and by clients that others wrote. Afterwards it holds the invariants of the product against what is in the database, in
// the simulator and in the logs.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq" // the invariants are read from the database
	"golang.org/x/oauth2"

	"github.com/watchword-auth/watchword/internal/logtest"
)

// running is the server that all tests of the package use, each with a person of its own.
var running *system

// system is a started `watchword dev`.
type system struct {
	Issuer       string `json:"issuer"`
	Config       string `json:"config"`
	Inbox        string `json:"inbox"`
	Demo         string `json:"demo"`
	Bank         string `json:"bank"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RedirectURI  string `json:"redirect_uri"`
	Username     string `json:"username"`
	Password     string `json:"password"`
	Phone        string `json:"phone"`
	PID          int    `json:"pid"`

	binary, dir string
	process     *exec.Cmd
	log         *logtest.Buffer
	db          *sqlx.DB
	people      atomic.Int64

	mu      sync.Mutex
	secrets map[string]string // everything secret that a test saw, and what it is
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "end-to-end:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "watchword-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL's own user has to pass through
		return 1, err
	}
	s := &system{dir: dir, binary: filepath.Join(dir, "watchword"), log: new(logtest.Buffer), secrets: map[string]string{}}
	if out, err := exec.Command("go", "build", "-o", s.binary, "../../cmd/watchword").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w\n%s", err, out)
	}
	if err := s.start(); err != nil {
		return 1, fmt.Errorf("start: %w\n%s", err, s.log)
	}
	running = s
	code = m.Run()
	if problems := s.invariants(context.Background()); problems != nil {
		err = fmt.Errorf("invariants:\n%w", problems)
	}
	return code, errors.Join(err, s.stop())
}

// start runs `watchword dev` and waits until it is ready.
func (s *system) start() error {
	ready := filepath.Join(s.dir, "ready.json")
	s.process = exec.Command(s.binary, "dev", "--listen", "localhost:0", "--data", filepath.Join(s.dir, "data"), "--ready", ready, "--set", "log.level=info", "--set", "payments.phone_hold=0s")
	s.process.Stdout, s.process.Stderr = s.log, s.log
	if err := s.process.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		data, err := os.ReadFile(ready)
		if err == nil {
			if err := json.Unmarshal(data, s); err != nil {
				return err
			}
			break
		}
		if time.Now().After(deadline) {
			return errors.New("not ready after a minute")
		}
		<-time.After(20 * time.Millisecond)
	}
	s.secrets[s.Password], s.secrets[s.ClientSecret] = "password", "client secret"
	return s.connect()
}

// connect opens the private database: its socket is named in the server's own file.
func (s *system) connect() error {
	f, err := os.Open(filepath.Join(s.dir, "data", "postgres", "postmaster.pid"))
	if err != nil {
		return err
	}
	defer f.Close()
	var lines []string
	for scan := bufio.NewScanner(f); scan.Scan(); {
		lines = append(lines, scan.Text())
	}
	if len(lines) < 5 {
		return errors.New("postmaster.pid names no socket")
	}
	s.db, err = sqlx.Connect("postgres", s.dsn(lines[4]))
	return err
}

func (s *system) dsn(socket string) string {
	return "host=" + socket + " user=watchword dbname=watchword sslmode=disable"
}

// stop ends the server as a service manager would, and makes sure that nothing of it is left.
func (s *system) stop() error {
	s.db.Close()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.process.Wait(); err != nil {
		return fmt.Errorf("stop: %w\n%s", err, s.log)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "data", "postgres", "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		return errors.New("PostgreSQL was left running")
	}
	return nil
}

// command runs an administrative command against the same database and keys.
func (s *system) command(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	var socket string
	if err := s.db.Get(&socket, "SHOW unix_socket_directories"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), s.binary, args...)
	cmd.Env = append(os.Environ(), "WATCHWORD_ISSUER="+s.Issuer, "WATCHWORD_DATABASE__DSN="+s.dsn(socket), "WATCHWORD_KEYS__DIR="+filepath.Join(s.dir, "data", "keys"),
		"WATCHWORD_SMS__VENDORS__SIMULATOR__URL="+s.Inbox)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("watchword %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

// person is somebody to sign in.
type person struct{ Username, Password, Phone string }

// person enrols somebody by the command line, with a phone of their own.
func (s *system) person(t *testing.T) person {
	t.Helper()
	n := s.people.Add(1)
	p := person{Username: fmt.Sprintf("person%d", n), Password: fmt.Sprintf("quiet harbour number %d", n), Phone: fmt.Sprintf("+1202555%04d", 200+n)}
	s.command(t, p.Password, "user", "create", p.Username, "--name", "Pat Example", "--email", p.Username+"@mail.example", "--phone", p.Phone, "--password-file", "-")
	s.secret(p.Password, "password")
	return p
}

// newcomer is a person whose phone nobody knows yet.
func (s *system) newcomer(t *testing.T) person {
	t.Helper()
	n := s.people.Add(1)
	p := person{Username: fmt.Sprintf("newcomer%d", n), Password: fmt.Sprintf("quiet harbour number %d", n), Phone: fmt.Sprintf("+1202555%04d", 200+n)}
	s.command(t, p.Password, "user", "create", p.Username, "--name", "Pat Example", "--email", p.Username+"@mail.example", "--password-file", "-")
	s.secret(p.Password, "password")
	return p
}

// secret remembers what must not turn up anywhere.
func (s *system) secret(value, what string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value != "" {
		s.secrets[value] = what
	}
	return value
}

var lastLine = regexp.MustCompile(`\n\n@localhost #(\d{6})$`)

// text waits for the n-th text on a phone, counted from the first, and reads its code.
func (s *system) text(ctx context.Context, phone string, n int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		var texts []struct{ Text, State, Vendor string }
		if err := getJSON(ctx, s.Inbox+"/messages?to="+url.QueryEscape(phone), &texts); err != nil {
			return "", err
		}
		if len(texts) >= n {
			found := lastLine.FindStringSubmatch(texts[len(texts)-n].Text)
			if found == nil {
				return "", fmt.Errorf("the text does not end with the code bound to the host: %q", texts[len(texts)-n].Text)
			}
			return s.secret(found[1], "code"), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%d texts arrived, want %d", len(texts), n)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func getJSON(ctx context.Context, target string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// visitor is a browser without script, made of a cookie jar.
type visitor struct {
	s      *system
	client *http.Client
}

type page struct {
	status int
	url    *url.URL
	html   string
}

func (s *system) visitor(t *testing.T) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{s: s, client: &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), s.RedirectURI) {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

func (v *visitor) do(t *testing.T, method, target string, form url.Values) *page {
	t.Helper()
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
	resp, err := v.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	at := resp.Request.URL
	if location, err := resp.Location(); err == nil {
		at = location
	}
	return &page{status: resp.StatusCode, url: at, html: string(data)}
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

func (v *visitor) submit(t *testing.T, p *page, path string, fields url.Values) *page {
	t.Helper()
	for _, form := range formTag.FindAllStringSubmatch(p.html, -1) {
		action := strings.ReplaceAll(form[1], "&amp;", "&")
		if !strings.HasPrefix(action, path+"?") {
			continue
		}
		values := url.Values{}
		for _, input := range inputTag.FindAllStringSubmatch(form[2], -1) {
			values.Set(input[1], input[2])
		}
		for name, value := range fields {
			values[name] = value
		}
		target, err := p.url.Parse(action)
		if err != nil {
			t.Fatal(err)
		}
		return v.do(t, http.MethodPost, target.String(), values)
	}
	t.Fatalf("no form for %s:\n%s", path, p.html)
	return nil
}

// signIn walks from an authorization request to the application, and gives the address that it was sent to.
func (v *visitor) signIn(t *testing.T, who person, start string) *url.URL {
	t.Helper()
	p := v.do(t, http.MethodGet, start, nil)
	p = v.submit(t, p, "/login", url.Values{"username": {who.Username}, "password": {who.Password}})
	code, err := v.s.text(t.Context(), who.Phone, 1)
	if err != nil {
		t.Fatal(err)
	}
	p = v.submit(t, p, "/login/code", url.Values{"code": {code}})
	v.s.secret(p.url.Query().Get("code"), "authorization code")
	return p.url
}

// TestGoClient completes the flow with coreos/go-oidc and golang.org/x/oauth2.
func TestGoClient(t *testing.T) {
	t.Parallel()
	s, ctx := running, t.Context()
	who := s.person(t)
	provider, err := goidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	config := oauth2.Config{ClientID: s.ClientID, ClientSecret: s.ClientSecret, RedirectURL: s.RedirectURI, Endpoint: provider.Endpoint(), Scopes: []string{"openid", "profile", "offline_access"}}
	verifier := oauth2.GenerateVerifier()
	before := time.Now().Add(-2 * time.Second)
	v := s.visitor(t)
	back := v.signIn(t, who, config.AuthCodeURL("the state", oauth2.S256ChallengeOption(verifier), goidc.Nonce("the nonce"), oauth2.SetAuthURLParam("acr_values", "urn:watchword:acr:2")))
	if q := back.Query(); q.Get("state") != "the state" || q.Get("iss") != s.Issuer {
		t.Fatalf("back at %s", back)
	}
	tokens, err := config.Exchange(ctx, back.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	type said struct {
		ACR      string   `json:"acr"`
		AMR      []string `json:"amr"`
		AuthTime int64    `json:"auth_time"`
		SID      string   `json:"sid"`
	}
	read := func(tokens *oauth2.Token) (said, *goidc.IDToken) {
		t.Helper()
		raw, _ := tokens.Extra("id_token").(string)
		for value, what := range map[string]string{raw: "ID Token", tokens.AccessToken: "access token", tokens.RefreshToken: "refresh token"} {
			s.secret(value, what)
		}
		token, err := provider.Verifier(&goidc.Config{ClientID: s.ClientID}).Verify(ctx, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := token.VerifyAccessToken(tokens.AccessToken); err != nil {
			t.Error(err)
		}
		var claims said
		if err := token.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		return claims, token
	}
	first, token := read(tokens)
	if token.Nonce != "the nonce" || first.ACR != "urn:watchword:acr:2" || strings.Join(first.AMR, " ") != "pwd sms mfa" || first.SID == "" ||
		time.Unix(first.AuthTime, 0).Before(before.Truncate(time.Second)) || time.Unix(first.AuthTime, 0).After(time.Now().Add(time.Second)) {
		t.Errorf("the ID Token says %+v", first)
	}
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
	if err != nil || info.Subject != token.Subject {
		t.Errorf("UserInfo: %+v, %v", info, err)
	}
	old := *tokens
	tokens.Expiry = time.Now().Add(-time.Minute)
	renewed, err := config.TokenSource(ctx, tokens).Token()
	if err != nil {
		t.Fatal(err)
	}
	again, _ := read(renewed)
	if fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("after a refresh: %+v, before: %+v", again, first)
	}
	// A code of the same sign-in is worth nothing any more, and using it twice ends what it gave.
	if _, err := config.Exchange(ctx, back.Query().Get("code"), oauth2.VerifierOption(verifier)); err == nil {
		t.Error("the code was redeemed twice")
	}
	if _, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(&old)); err == nil {
		t.Error("the access token outlived the misuse of its code")
	}
	// The browser is signed in: the next application needs no page.
	silent := v.do(t, http.MethodGet, config.AuthCodeURL("s2", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("prompt", "none")), nil)
	if s.secret(silent.url.Query().Get("code"), "authorization code") == "" {
		t.Errorf("single sign-on led to %s", silent.url)
	}
}

// TestNodeClient completes the flow with oauth4webapi.
func TestNodeClient(t *testing.T) {
	t.Parallel()
	s := running
	who := s.person(t)
	input, err := json.Marshal(map[string]string{"issuer": s.Issuer, "inbox": s.Inbox, "client_id": s.ClientID, "client_secret": s.ClientSecret,
		"redirect_uri": s.RedirectURI, "username": who.Username, "password": who.Password, "phone": who.Phone})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Claims, Info, Again, Told map[string]any
		ActiveAfterRevocation     bool `json:"active_after_revocation"`
		Secrets                   []string
	}
	node(t, "client.mjs", input, &got)
	for _, value := range got.Secrets {
		s.secret(value, "token or code")
	}
	for where, claims := range map[string]map[string]any{"ID Token": got.Claims, "refreshed ID Token": got.Again, "introspection": got.Told} {
		if claims["acr"] != "urn:watchword:acr:2" || fmt.Sprint(claims["amr"]) != "[pwd sms mfa]" || claims["auth_time"] != got.Claims["auth_time"] || claims["sid"] != got.Claims["sid"] {
			t.Errorf("%s says %v", where, claims)
		}
	}
	if got.Info["name"] != "Pat Example" || got.Info["sub"] != got.Claims["sub"] || got.ActiveAfterRevocation {
		t.Errorf("UserInfo %v, active after revocation %v", got.Info, got.ActiveAfterRevocation)
	}
}

// node runs a client that is written for Node.js, and reads what it prints.
func node(t *testing.T, script string, input []byte, into any) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", script, string(input))
	cmd.Dir = "node"
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s\n(make test installs Node.js and the packages)", err, &stderr)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatal(err)
	}
}

// TestNodeBank completes the flow of the FAPI 2.0 Security Profile with oauth4webapi: PAR, RAR, private_key_jwt and DPoP.
func TestNodeBank(t *testing.T) {
	t.Parallel()
	s := running
	who := s.person(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := jose.JSONWebKey{Key: private}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	s.command(t, string(keys), "client", "create", "node-bank", "--name", "The Bank", "--profile", "fapi2", "--payment-account", "--jwks-file", "-",
		"--redirect-uri", "https://bank.example/cb", "--grant-type", "authorization_code,refresh_token", "--authorization-details-type", "demo_account")
	details := []map[string]string{{"type": "demo_account", "account": "DE02100100109307118603"}, {"type": "demo_account", "account": "FR1420041010050500013M02606", "note": "Miete & mehr"}}
	input, err := json.Marshal(map[string]any{"issuer": s.Issuer, "inbox": s.Inbox, "client_id": "node-bank", "client_key": key, "redirect_uri": "https://bank.example/cb",
		"username": who.Username, "password": who.Password, "phone": who.Phone, "details": details})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ExpiresIn          int `json:"expires_in"`
		Asked              string
		OpenedAgain        bool `json:"opened_again"`
		Claims, Info, Told map[string]any
		JKT                string
		TokenType          string `json:"token_type"`
		Granted, Narrowed  []map[string]string
		RefreshTokenKept   bool `json:"refresh_token_kept"`
		Stolen             struct {
			Status    int
			Challenge string
		}
		Secrets []string
	}
	node(t, "bank.mjs", input, &got)
	for _, value := range got.Secrets {
		s.secret(value, "token or code")
	}
	for _, want := range []string{"The Bank wants to use your", "see one account Account: DE02100100109307118603", "see one account Account: FR1420041010050500013M02606 What for: Miete &amp; mehr"} {
		if !strings.Contains(got.Asked, want) {
			t.Errorf("the consent page lacks %q: %s", want, got.Asked)
		}
	}
	if got.ExpiresIn != 60 || !got.OpenedAgain || got.Claims["acr"] != "urn:watchword:acr:2" || got.Info["sub"] != got.Claims["sub"] || got.TokenType != "dpop" || !got.RefreshTokenKept {
		t.Errorf("told %+v", got)
	}
	if diff := cmp.Diff(details, got.Granted); diff != "" {
		t.Errorf("granted: %s", diff)
	}
	if diff := cmp.Diff(details[1:], got.Narrowed); diff != "" {
		t.Errorf("narrowed: %s", diff)
	}
	cnf, _ := got.Told["cnf"].(map[string]any)
	if got.Told["token_type"] != "DPoP" || cnf["jkt"] != got.JKT || fmt.Sprint(got.Told["authorization_details"]) != fmt.Sprint([]any{map[string]any{"type": "demo_account", "account": "FR1420041010050500013M02606", "note": "Miete & mehr"}}) {
		t.Errorf("introspection says %v", got.Told)
	}
	if got.Stolen.Status != http.StatusUnauthorized || !strings.HasPrefix(got.Stolen.Challenge, `DPoP error="invalid_token"`) {
		t.Errorf("without the key: %+v", got.Stolen)
	}
}

// TestNodeTill asks in the background with oauth4webapi: CIBA with signed requests, private_key_jwt and DPoP; and has a payment confirmed over HTTP, with a token that is bound to its key.
func TestNodeTill(t *testing.T) {
	t.Parallel()
	s := running
	who := s.person(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := jose.JSONWebKey{Key: private}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	s.command(t, string(keys), "client", "create", "node-till", "--name", "The Till", "--auth-method", "private_key_jwt", "--jwks-file", "-", "--dpop", "--ciba-request-alg", "ES256",
		"--grant-type", "ciba,client_credentials", "--scope", "openid,transactions", "--authorization-details-type", "payment_initiation", "--home-uri", "https://till.example/")
	input, err := json.Marshal(map[string]any{"issuer": s.Issuer, "inbox": s.Inbox, "client_id": "node-till", "client_key": key, "username": who.Username, "password": who.Password, "phone": who.Phone})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ExpiresIn      int `json:"expires_in"`
		Interval       int
		Waited         bool
		Early          string
		Asked          string
		After          string
		Again          string
		Link           string
		Claims, Told   map[string]any
		JKT            string
		TokenType      string `json:"token_type"`
		Payment        map[string]any
		Wrong, Changed struct {
			Status int
			Code   string
		}
		Approved, Read map[string]any
		Secrets        []string
	}
	node(t, "till.mjs", input, &got)
	for _, value := range got.Secrets {
		s.secret(value, "token or code")
	}
	if got.ExpiresIn != 300 || got.Interval != 5 || !got.Waited || got.Early != "slow_down" || got.Again != "invalid_grant" || got.TokenType != "dpop" {
		t.Errorf("told %+v", got)
	}
	if !strings.Contains(got.Asked, "The Till asks you to confirm that it is you") || !strings.Contains(got.Asked, "W4SCT") || !strings.Contains(got.After, "You have confirmed") {
		t.Errorf("shown %q, then %q", got.Asked, got.After)
	}
	cnf, _ := got.Told["cnf"].(map[string]any)
	if got.Claims["acr"] != "urn:watchword:acr:2" || got.Claims["sub"] != got.Told["sub"] || cnf["jkt"] != got.JKT {
		t.Errorf("ID Token %v, introspection %v", got.Claims, got.Told)
	}
	if got.Payment["status"] != "pending" || got.Wrong.Code != "otp_incorrect" || got.Changed.Code != "transaction_mismatch" || got.Approved["status"] != "approved" || got.Read["status"] != "approved" {
		t.Errorf("the payment: %v, %v, %v, %v, %v", got.Payment, got.Wrong, got.Changed, got.Approved, got.Read)
	}
	answer, err := http.Get(s.Issuer + "/oauth/keys")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	published := filepath.Join(t.TempDir(), "jwks.json")
	if keys, err := io.ReadAll(answer.Body); err != nil || os.WriteFile(published, keys, 0o600) != nil {
		t.Fatal("the keys cannot be kept: ", err)
	}
	result, _ := got.Approved["result"].(string)
	var evidence struct {
		Subject string `json:"sub"`
		Status  string
		Amount  string
		Shown   []struct{ Text string }
	}
	if err := json.Unmarshal([]byte(s.command(t, result, "transaction", "verify", "-", "--jwks", published, "--client", "node-till", "--format", "json")), &evidence); err != nil ||
		evidence.Subject != got.Claims["sub"] || evidence.Status != "approved" || evidence.Amount != "129.90" || len(evidence.Shown) == 0 || !strings.Contains(evidence.Shown[0].Text, "129.90") {
		t.Errorf("the result: %+v, %v", evidence, err)
	}
}

// TestRestart stops the server and starts it again: what was there is there.
func TestRestartKeepsItsData(t *testing.T) {
	s := &system{dir: t.TempDir(), binary: running.binary, log: new(logtest.Buffer), secrets: map[string]string{}}
	for p := s.dir; p != "/" && strings.HasPrefix(p, os.TempDir()+"/"); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o711); err != nil { //nolint:gosec // PostgreSQL's own user has to pass through
			t.Fatal(err)
		}
	}
	if err := s.start(); err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	who := s.person(t)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	if out := s.command(t, "", "user", "get", who.Username, "--format", "json"); !strings.Contains(out, who.Username) {
		t.Errorf("after a restart: %s", out)
	}
	// Killed, the server takes PostgreSQL with it.
	pid, err := os.ReadFile(filepath.Join(s.dir, "data", "postgres", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	s.db.Close()
	if err := s.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.process.Wait() //nolint:errcheck // it was killed
	number, _, _ := strings.Cut(string(pid), "\n")
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, err := os.Stat("/proc/" + number); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("PostgreSQL outlived the server that was killed")
		}
		<-time.After(20 * time.Millisecond)
	}
}
