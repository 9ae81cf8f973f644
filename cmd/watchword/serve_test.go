package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/oidc"
)

const testIssuer = "http://localhost:8080"

// serving is a server that was started as an operator does.
type serving struct {
	*started
	db             *pgtest.Database
	public, manage string // addresses
	file           string // its configuration
	hangup         chan os.Signal
}

func serve(t *testing.T) *serving {
	t.Helper()
	db, dir := pgtest.New(t), t.TempDir()
	if err := keyring.Create(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Load(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	if err := (&oidc.Keys{DB: db.DB, Seal: ring}).Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &serving{db: db, file: filepath.Join(dir, "watchword.yaml"), hangup: make(chan os.Signal, 1)}
	s.configure(t, "info")
	s.started = start(t, &Program{
		Args: []string{"serve", "--config", s.file}, Hangup: s.hangup,
		Env: []string{"WATCHWORD_DATABASE__DSN=" + db.DSN, "WATCHWORD_KEYS__DIR=" + filepath.Join(dir, "keys")},
	})
	var line struct {
		Listen string `json:"listen"`
		Manage string `json:"management_listen"`
	}
	if err := json.Unmarshal([]byte(s.err.line(t, `"msg":"serving"`)), &line); err != nil {
		t.Fatal(err)
	}
	s.public, s.manage = line.Listen, "http://"+line.Manage
	return s
}

func (s *serving) configure(t *testing.T, level string) {
	t.Helper()
	content := fmt.Sprintf("issuer: %s\nlisten: 127.0.0.1:0\nmanagement_listen: localhost:0\nlog: {level: %s}\nsms: {vendors: {simulator: {url: 'http://127.0.0.1:1'}}}\n"+
		"outbound: {exempt_hosts: [127.0.0.1], allow_http: true}\n", testIssuer, level)
	if err := os.WriteFile(s.file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// get asks the public listener, under the issuer's name unless another is given.
func (s *serving) get(t *testing.T, path, host string, header http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.public+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	if req.Host = host; host == "" {
		req.Host = strings.TrimPrefix(testIssuer, "http://")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestServe(t *testing.T) {
	t.Parallel()
	s := serve(t)
	status, body := s.get(t, "/.well-known/openid-configuration?secret=hunter2", "", nil)
	if status != http.StatusOK || !strings.Contains(body, `"issuer":"`+testIssuer+`"`) {
		t.Errorf("discovery answers %d:\n%s", status, body)
	}
	for path, want := range map[string]string{"/healthz": `"ok":true`, "/readyz": `"ready":true`, "/metrics": "watchword_http_request_duration_seconds_count"} {
		if status, body := fetch(t, s.manage+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s answers %d without %s:\n%s", path, status, want, body)
		}
		if status, _ := s.get(t, path, "", nil); status != http.StatusNotFound { // WEB-6, AD-1
			t.Errorf("%s of the public listener answers %d, want 404", path, status)
		}
	}
	if strings.Contains(s.err.String(), "registered route") {
		t.Errorf("a library remarks something in the log:\n%s", s.err)
	}
	line := s.err.line(t, `"route":"/.well-known/openid-configuration"`)
	if strings.Contains(line, "hunter2") {
		t.Errorf("a query string is in the log: %s", line)
	}
	health := start(t, &Program{Args: []string{"healthcheck", "--ready", "--config", s.file, "--set", "management_listen=" + strings.TrimPrefix(s.manage, "http://")}, Env: s.Env})
	if code := <-health.code; code != exitOK {
		t.Errorf("healthcheck exits with %d:\n%s", code, health.err)
	}

	// What marks itself so is read again, the rest stays.
	s.configure(t, "debug")
	s.hangup <- os.Interrupt
	s.err.line(t, `"msg":"configuration reloaded","log_level":"debug"`)
	if err := os.WriteFile(s.file, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.hangup <- os.Interrupt
	s.err.line(t, `"msg":"configuration not reloaded"`)

	s.stop(t)
	if _, err := net.DialTimeout("tcp", s.public, time.Second); err == nil {
		t.Error("the port is still open")
	}
}

func TestServeLimits(t *testing.T) {
	t.Parallel()
	s := serve(t)
	t.Run("HT-3 headers", func(t *testing.T) {
		t.Parallel()
		if status, _ := s.get(t, "/userinfo", "", http.Header{"X": {strings.Repeat("a", 64<<10)}}); status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a header of 64 KiB answers %d", status)
		}
	})
	t.Run("HT-3 URL", func(t *testing.T) {
		t.Parallel()
		if status, _ := s.get(t, "/"+strings.Repeat("a", 64<<10), "", nil); status != http.StatusRequestHeaderFieldsTooLarge && status != http.StatusRequestURITooLong {
			t.Errorf("a URL of 64 KiB answers %d", status)
		}
	})
	t.Run("HT-5 unknown host", func(t *testing.T) {
		t.Parallel()
		for _, host := range []string{"evil.example.com", "localhost:8081", "localhost", "127.0.0.1:8080"} {
			status, body := s.get(t, "/.well-known/openid-configuration", host, nil)
			if status != http.StatusMisdirectedRequest || !strings.Contains(body, testIssuer) || strings.Contains(body, "evil") {
				t.Errorf("host %s answers %d:\n%s", host, status, body)
			}
		}
		for _, header := range []string{"X-Forwarded-Host", "Forwarded"} {
			if _, body := s.get(t, "/.well-known/openid-configuration", "", http.Header{header: {"host=evil.example.com"}}); strings.Contains(body, "evil") {
				t.Errorf("%s is believed:\n%s", header, body)
			}
		}
	})
	t.Run("HT-5 two hosts", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", s.public)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost:8080\r\nHost: evil.example.com\r\n\r\n")
		if status, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(status, " 400 ") {
			t.Errorf("two Host headers answer %q, %v", status, err)
		}
	})
}

// HT-11: what is under way when the server is told to stop is finished, and the listener takes nothing new.
func TestServeDrain(t *testing.T) {
	t.Parallel()
	s := serve(t)
	conn, err := net.Dial("tcp", s.public)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Half a request: the server reads on.
	fmt.Fprint(conn, "POST /oauth/token HTTP/1.1\r\nHost: localhost:8080\r\nExpect: 100-continue\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 27\r\n\r\n")
	answers := bufio.NewReader(conn)
	if status, err := answers.ReadString('\n'); err != nil || !strings.Contains(status, " 100 ") { // a handler reads: the request is under way
		t.Fatalf("half a request answers %q, %v", status, err)
	}
	if _, err := answers.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	s.cancel()
	s.err.line(t, `"msg":"stopping"`)
	if status, body := fetch(t, s.manage+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, `"draining":"yes"`) {
		t.Errorf("while draining /readyz answers %d: %s", status, body)
	}
	fmt.Fprint(conn, "grant_type=password&code=xx")
	if status, err := answers.ReadString('\n'); err != nil || !strings.Contains(status, " 40") {
		t.Errorf("the request under way is answered %q, %v", status, err)
	}
	if code := <-s.code; code != exitOK {
		t.Errorf("exit code %d\n%s", code, s.err)
	}
}

// HT-11: a poll that waits for a person is let go.
func TestServeDrainOfPolls(t *testing.T) {
	t.Parallel()
	s := serve(t)
	till := oidc.Registration{Name: "Till"}
	grant(&till, "ciba")
	secret, err := (&oidc.Clients{DB: s.db.DB}).Create(t.Context(), "till", till)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.ExecContext(t.Context(), `
		WITH alice AS (INSERT INTO subscribers (id, username, profile) VALUES (gen_random_uuid(), 'alice', '') RETURNING id)
		INSERT INTO backchannel_requests (id, hash, expires_at, client_id, subscriber_id, relying_party, requirement, payload, locales, slot, single)
		SELECT gen_random_uuid(), sha256('question'), wall() + interval '1 hour', 'till', id, '{}', '{}', '{}', 'en', 0, false FROM alice`); err != nil {
		t.Fatal(err)
	}
	type told struct {
		status int
		body   string
		err    error
	}
	answer := make(chan told, 1)
	poll := func() {
		form := url.Values{"grant_type": {string(oidc.GrantTypeCIBA)}, "auth_req_id": {"question"}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.public+"/oauth/token", strings.NewReader(form.Encode()))
		if err != nil {
			answer <- told{err: err}
			return
		}
		r.Host = strings.TrimPrefix(testIssuer, "http://")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("till", secret)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			answer <- told{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		answer <- told{resp.StatusCode, string(body), err}
	}
	go poll()
	for over := time.After(20 * time.Second); ; {
		if _, metrics := fetch(t, s.manage+"/metrics"); strings.Contains(metrics, "watchword_ciba_polls_waiting 1\n") {
			break
		}
		select {
		case got := <-answer: // before the server had begun to listen
			t.Logf("%+v", got)
			if _, err := s.db.ExecContext(t.Context(), "DELETE FROM backchannel_polls"); err != nil {
				t.Fatal(err)
			}
			go poll()
		case <-over:
			t.Fatal("no poll waits")
		case <-time.After(time.Millisecond):
		}
	}
	s.cancel()
	if got := <-answer; got.status != http.StatusBadRequest || !strings.Contains(got.body, "authorization_pending") {
		t.Errorf("told %+v", got)
	}
	if code := <-s.code; code != exitOK {
		t.Errorf("exit code %d\n%s", code, s.err)
	}
	s.err.line(t, `"waited_ms":`)
}

// REL-6: readiness hangs on the database, liveness does not; when the database is back so is the server.
func TestServeWithoutDatabase(t *testing.T) {
	t.Parallel()
	s := serve(t)
	other := pgtest.New(t)
	var name string
	if err := s.db.GetContext(t.Context(), &name, "SELECT current_database()"); err != nil {
		t.Fatal(err)
	}
	run := func(statement string) {
		t.Helper()
		if _, err := other.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	run("ALTER DATABASE " + name + " ALLOW_CONNECTIONS false")
	run("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '" + name + "'")
	if status, body := fetch(t, s.manage+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, `"ready":false`) {
		t.Errorf("without a database /readyz answers %d: %s", status, body)
	}
	if status, _ := fetch(t, s.manage+"/healthz"); status != http.StatusOK {
		t.Errorf("without a database /healthz answers %d", status)
	}
	run("ALTER DATABASE " + name + " ALLOW_CONNECTIONS true")
	if status, body := fetch(t, s.manage+"/readyz"); status != http.StatusOK {
		t.Errorf("with the database back /readyz answers %d: %s", status, body)
	}
	s.stop(t)
}

// CRY-5, HT-10: a server that ends TLS itself speaks 1.2 and 1.3, and its cookies are for https alone.
func TestServeTLS(t *testing.T) {
	t.Parallel()
	db, dir := pgtest.New(t), t.TempDir()
	var name string
	if err := db.GetContext(t.Context(), &name, "SELECT current_database()"); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"CREATE ROLE " + name + " LOGIN", "CREATE DATABASE " + name + "_owned OWNER " + name} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	certificate, pool := selfSigned(t, dir)
	args := func(command ...string) *Program {
		return &Program{Args: command, Env: []string{
			"WATCHWORD_DATABASE__DSN=" + strings.NewReplacer("dbname="+name, "dbname="+name+"_owned", "user=watchword", "user="+name).Replace(db.DSN),
			"WATCHWORD_ISSUER=https://localhost", "WATCHWORD_LISTEN=127.0.0.1:0", "WATCHWORD_MANAGEMENT_LISTEN=localhost:0", "WATCHWORD_KEYS__DIR=" + filepath.Join(dir, "keys"),
			"WATCHWORD_TLS__CERT_FILE=" + certificate, "WATCHWORD_TLS__KEY_FILE=" + certificate, "WATCHWORD_SMS__VENDORS__SIMULATOR__URL=http://127.0.0.1:1",
		}}
	}
	for _, command := range [][]string{{"migrate", "up"}, {"key", "create"}} {
		if s := start(t, args(command...)); <-s.code != exitOK {
			t.Fatalf("%v: %s", command, s.err)
		}
	}
	s := start(t, args("serve"))
	var line struct {
		Listen string `json:"listen"`
	}
	if err := json.Unmarshal([]byte(s.err.line(t, `"msg":"serving"`)), &line); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		version uint16
		ok      bool
	}{{tls.VersionTLS10, false}, {tls.VersionTLS11, false}, {tls.VersionTLS12, true}, {tls.VersionTLS13, true}} {
		conn, err := tls.Dial("tcp", line.Listen, &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tt.version, MaxVersion: tt.version})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tls.VersionName(tt.version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}, ForceAttemptHTTP2: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+line.Listen+"/.well-known/openid-configuration", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "localhost"
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		t.Errorf("discovery answers %s over %s", res.Status, res.Proto)
	}
	client.CloseIdleConnections()
	s.stop(t)
}

// selfSigned makes a certificate for localhost and writes it with its key into one file.
func selfSigned(t *testing.T, dir string) (name string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	name = filepath.Join(dir, "tls.pem")
	if err := os.WriteFile(name, append(certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), 0o600); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return name, pool
}
