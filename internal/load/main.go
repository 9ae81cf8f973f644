// Command load measures a development server over loopback: whole sign-ins with password and text message, then what applications ask for
// afterwards; what other programs ask for that send and verify codes; polls of applications that wait; and payments that are confirmed. It starts the
// server, enrols people, drives everything over HTTP with several at once, and prints throughput and percentiles.
//
//	go build -o bin/watchword ./cmd/watchword && go run ./internal/load -binary bin/watchword
//
// It sends requests to the server that it started and to nobody else.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	binary := flag.String("binary", "bin/watchword", "the program to measure")
	people := flag.Int("people", 60, "people who sign in; each does so up to four times, for a number has five texts an hour")
	workers := flag.Int("workers", 8, "how many act at once")
	length := flag.Duration("length", 5*time.Second, "how long each request is repeated")
	what := flag.String("what", "all", "sign-in, otp, ciba, confirm or all")
	open := flag.Int("open", 10000, "questions that are open at once and polled, for ciba")
	hold := flag.Duration("hold", 25*time.Second, "how long polls wait for answers, for ciba; 0: they are answered at once, and come every 5 s")
	confirmations := flag.Int("confirmations", 2000, "payments that are confirmed; the simulator keeps 5000 texts")
	pairs := flag.Int("pairs", 4000, "codes that are sent and verified; the simulator keeps 5000 texts")
	flag.Parse()
	if err := run(*binary, *what, *people, *pairs, *confirmations, *workers, *open, *length, *hold); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// server is what a development server says of itself.
type server struct {
	Issuer       string `json:"issuer"`
	Inbox        string `json:"inbox"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RedirectURI  string `json:"redirect_uri"`
	API          string `json:"api"`
	APIKey       string `json:"api_key"`

	binary, dir string
}

func run(binary, what string, people, pairs, confirmations, workers, open int, length, hold time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "watchword-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)                      //nolint:errcheck // a temporary directory
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // PostgreSQL's own user has to pass through
		return err
	}
	s := &server{binary: binary, dir: dir}
	ready := filepath.Join(dir, "ready.json")
	var log bytes.Buffer
	cmd := exec.Command(binary, "dev", "--listen", "localhost:0", "--data", filepath.Join(dir, "data"), "--ready", ready, "--set", "trusted_proxies=127.0.0.0/8", "--set", "gateway.daily_budget=1000000", "--set", "gateway.rate=100000", "--set", "sms.daily_budget=1000000", "--set", "payments.phone_hold=0s", "--set", "ciba.hold="+hold.String()) //nolint:gosec,noctx // named by who runs it, and stopped below
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}()
	for range 1500 {
		if data, readErr := os.ReadFile(ready); readErr == nil { //nolint:gosec // written by the server
			if err := json.Unmarshal(data, s); err != nil {
				return err
			}
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	if s.Issuer == "" {
		return fmt.Errorf("the server did not start:\n%s", &log)
	}
	if what == "otp" || what == "all" {
		if err := s.otp(pairs, workers, length); err != nil {
			return err
		}
	}
	if what == "ciba" || what == "all" {
		if err := s.ciba(cmd.Process.Pid, open, max(workers, 32), length, hold); err != nil {
			return err
		}
	}
	if what == "otp" || what == "ciba" {
		return nil
	}
	fmt.Fprintf(os.Stderr, "Enrolling %d people…\n", people)
	if err := s.enrol(people); err != nil {
		return err
	}
	heading()
	if what == "confirm" || what == "all" {
		if err := s.confirm(cmd.Process.Pid, people, confirmations, min(workers, people)); err != nil {
			return err
		}
	}
	if what == "confirm" {
		return nil
	}
	var mu sync.Mutex
	var last *visitor
	var refresh []string
	if err := measure("whole sign-in, with argon2id", workers, 4*people, 0, func(i int) error {
		v, err := s.visitor(i)
		if err != nil {
			return err
		}
		tokens, err := v.signIn(i % people)
		mu.Lock()
		defer mu.Unlock()
		last, refresh = v, append(refresh, tokens.Refresh)
		return err
	}); err != nil {
		return err
	}
	tokens, err := last.again()
	if err != nil {
		return err
	}
	for _, load := range []struct {
		what string
		do   func(i int) error
	}{
		{"single sign-on and token", func(int) error { _, err := last.again(); return err }},
		{"introspection", func(int) error {
			return last.post("/oauth/introspect", url.Values{"token": {tokens.Access}}, nil)
		}},
		{"UserInfo", func(int) error { return last.userinfo(tokens.Access) }},
	} {
		if err := measure(load.what, workers, 0, length, load.do); err != nil {
			return err
		}
	}
	var next atomic.Int64
	return measure("refresh", workers, len(refresh), 0, func(int) error {
		var out tokenSet
		return last.post("/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh[next.Add(1)-1]}}, &out)
	})
}

// measure repeats do, count times or for a length of time, and prints a line.
func measure(what string, workers, count int, length time.Duration, do func(i int) error) error {
	var (
		mu      sync.Mutex
		times   []time.Duration
		problem error
		next    atomic.Int64
		wg      sync.WaitGroup
	)
	start := time.Now()
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if count > 0 && i >= count || count == 0 && time.Since(start) > length {
					return
				}
				began := time.Now()
				err := do(i)
				took := time.Since(began)
				mu.Lock()
				times = append(times, took)
				problem = errors.Join(problem, err)
				stop := problem != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	if problem != nil {
		return fmt.Errorf("%s: %w", what, problem)
	}
	elapsed := time.Since(start)
	slices.Sort(times)
	at := func(p float64) float64 {
		return float64(times[min(len(times)-1, int(p*float64(len(times))))].Microseconds()) / 1000
	}
	fmt.Printf("%-28s %8d %10.1f %9.1f %9.1f %9.1f\n", what, len(times), float64(len(times))/elapsed.Seconds(), at(.5), at(.95), at(.99))
	return nil
}

// enrol makes people by the command line, as an operator would.
func (s *server) enrol(n int) error {
	for i := range n {
		if _, err := s.command(password, "user", "create", fmt.Sprintf("person%d", i), "--phone", phone(i), "--password-file", "-"); err != nil {
			return err
		}
	}
	return nil
}

// postgres is the id of its first process, and how it is reached.
func (s *server) postgres() (pid, dsn string, err error) {
	file, err := os.ReadFile(filepath.Join(s.dir, "data", "postgres", "postmaster.pid"))
	if err != nil {
		return "", "", err
	}
	lines := strings.Split(string(file), "\n")
	if len(lines) < 5 {
		return "", "", errors.New("postmaster.pid names no socket")
	}
	return lines[0], "host=" + lines[4] + " user=watchword dbname=watchword sslmode=disable", nil
}

// command runs one of the program's and gives what it prints.
func (s *server) command(input string, args ...string) ([]byte, error) {
	_, dsn, err := s.postgres()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.binary, args...) //nolint:gosec,noctx // as above
	cmd.Env = append(os.Environ(), "WATCHWORD_ISSUER="+s.Issuer, "WATCHWORD_DATABASE__DSN="+dsn,
		"WATCHWORD_KEYS__DIR="+filepath.Join(s.dir, "data", "keys"), "WATCHWORD_SMS__VENDORS__SIMULATOR__URL="+s.Inbox)
	cmd.Stdin = strings.NewReader(input)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, &problems)
	}
	return out, nil
}

const password = "quiet harbour at noon" //nolint:gosec // of people who live for a minute

func phone(i int) string { return fmt.Sprintf("+1202555%04d", 200+i) }

// visitor is a browser without script.
type visitor struct {
	s      *server
	client *http.Client
	from   string // each comes from an address of its own
}

func (s *server) visitor(i int) (*visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &visitor{s: s, from: fmt.Sprintf("198.51.%d.%d", i/200%200, 1+i%200), client: &http.Client{Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			if strings.HasPrefix(r.URL.String(), s.RedirectURI) {
				return http.ErrUseLastResponse
			}
			return nil
		}}}, nil
}

// do sends one request and gives where it led and what was shown.
func (v *visitor) do(r *http.Request) (*url.URL, string, error) {
	r.Header.Set("X-Forwarded-For", v.from)
	resp, err := v.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, "", err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, "", fmt.Errorf("%s answered %d", r.URL.Path, resp.StatusCode)
	}
	if at, err := resp.Location(); err == nil {
		return at, string(body), nil
	}
	return resp.Request.URL, string(body), nil
}

func (v *visitor) get(target string) (*url.URL, string, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, target, nil)
	if err != nil {
		return nil, "", err
	}
	return v.do(r)
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]*action="(/login[^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
	lastLine = regexp.MustCompile(`#(\d{6})$`)
)

// submit posts the first form of a page.
func (v *visitor) submit(at *url.URL, html string, fields url.Values) (*url.URL, string, error) {
	form := formTag.FindStringSubmatch(html)
	if form == nil {
		return nil, "", fmt.Errorf("no form at %s", at.Path)
	}
	for _, input := range inputTag.FindAllStringSubmatch(form[2], -1) {
		fields.Set(input[1], input[2])
	}
	target, err := at.Parse(strings.ReplaceAll(form[1], "&amp;", "&"))
	if err != nil {
		return nil, "", err
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, target.String(), strings.NewReader(fields.Encode()))
	if err != nil {
		return nil, "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return v.do(r)
}

type tokenSet struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

const verifier = "a-code-verifier-of-at-least-forty-three-characters" //nolint:gosec // one for all is enough to measure

func (s *server) start() string {
	return s.Issuer + "/authorize?" + url.Values{"client_id": {s.ClientID}, "redirect_uri": {s.RedirectURI}, "response_type": {"code"}, "scope": {"openid profile offline_access"},
		"state": {"s"}, "nonce": {"n"}, "code_challenge": {"bLRYBPalK1NsU4_TD3JrHRmfVjgoduNjiXgeScRbcr8"}, "code_challenge_method": {"S256"}}.Encode()
}

// signIn goes all the way, from the application to its tokens.
func (v *visitor) signIn(who int) (tokens tokenSet, err error) {
	at, html, err := v.get(v.s.start())
	if err != nil {
		return tokens, err
	}
	var before []struct{ Text string }
	inbox := v.s.Inbox + "/messages?to=" + url.QueryEscape(phone(who))
	if err := v.inbox(inbox, &before); err != nil {
		return tokens, err
	}
	if at, html, err = v.submit(at, html, url.Values{"username": {fmt.Sprintf("person%d", who)}, "password": {password}}); err != nil {
		return tokens, err
	}
	texts := before
	for deadline := time.Now().Add(20 * time.Second); len(texts) <= len(before) && time.Now().Before(deadline); {
		if err := v.inbox(inbox, &texts); err != nil {
			return tokens, err
		}
	}
	if len(texts) <= len(before) {
		return tokens, errors.New("no text arrived")
	}
	code := lastLine.FindStringSubmatch(texts[0].Text)
	if at, _, err = v.submit(at, html, url.Values{"code": {code[1]}}); err != nil {
		return tokens, err
	}
	return v.redeem(at)
}

func (v *visitor) inbox(target string, into any) error {
	_, body, err := v.get(target)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), into)
}

func (v *visitor) redeem(at *url.URL) (tokens tokenSet, err error) {
	err = v.post("/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {at.Query().Get("code")}, "redirect_uri": {v.s.RedirectURI}, "code_verifier": {verifier}}, &tokens)
	return tokens, err
}

// again asks for tokens while signed in.
func (v *visitor) again() (tokenSet, error) {
	at, _, err := v.get(v.s.start())
	if err != nil {
		return tokenSet{}, err
	}
	return v.redeem(at)
}

// post asks the back channel, as the application.
func (v *visitor) post(path string, form url.Values, into any) error {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, v.s.Issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(v.s.ClientID), url.QueryEscape(v.s.ClientSecret))
	_, body, err := v.do(r)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal([]byte(body), into)
}

func (v *visitor) userinfo(token string) error {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, v.s.Issuer+"/userinfo", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	_, _, err = v.do(r)
	return err
}
