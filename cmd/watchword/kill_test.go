package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/transaction/api"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/oidc"
	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/carriersim"
)

// killRounds is how often the server is killed: go test ./cmd/watchword -run TestKilled -kill.rounds 100 -timeout 1h
var killRounds = flag.Int("kill.rounds", 6, "how often TestKilled kills the server")

// mortal is a server in a process of its own, which is killed, and started again over the same database. What leads to it stays: browsers, applications and carriers know one address.
type mortal struct {
	*services // of the test's own, for what an operator does
	db        *pgtest.Database
	keys      string // their directory
	issuer    string
	inbox     *carriersim.Simulator
	sms, post string       // where that takes texts and mails
	secret    string       // of the application
	changes   atomic.Int64 // that were asked for
	fuse      atomic.Int64 // the one after whose arrival the server is killed

	mu     sync.Mutex
	life   *life
	known  map[string]string // SQL conditions that answers have promised, and to whom
	doubts map[string]int    // what was under way when a server was killed, and what had become of it
	span   time.Duration     // at most so long after its arrival. It follows the machine: kills too early lengthen it, kills too late shorten it
}

// life is one of the server's.
type life struct {
	cmd     *exec.Cmd
	address string
	log     *watched
	over    chan struct{} // closed when it is
}

// errDied says that the server was killed before it had answered, or could be asked.
var errDied = errors.New("the server is dead")

func newMortal(t *testing.T) *mortal {
	t.Helper()
	m := &mortal{db: pgtest.New(t), keys: filepath.Join(t.TempDir(), "keys"), inbox: carriersim.New(carriersim.Options{Now: time.Now}), known: map[string]string{}, doubts: map[string]int{}, span: 20 * time.Millisecond}
	if err := keyring.Create(m.keys); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(m.front())
	t.Cleanup(front.Close)
	m.issuer = strings.Replace(front.URL, "127.0.0.1", "localhost", 1)
	inbox := httptest.NewServer(m.inbox)
	t.Cleanup(inbox.Close)
	m.sms = inbox.URL
	post, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- m.inbox.ServeSMTP(ctx, post) }()
	t.Cleanup(func() { stop(); <-ended })
	_, m.post, _ = net.SplitHostPort(post.Addr().String())
	cfg, _, err := config.Load(config.Sources{Env: []string{"WATCHWORD_DATABASE__DSN=" + m.db.DSN}, Flags: m.settings()})
	if err != nil {
		t.Fatal(err)
	}
	if m.services, err = assemble(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.services.db.Close() })
	if err := m.services.keys.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	bank := oidc.Registration{Name: "The Bank", RedirectURIs: []string{nowhere}, FirstParty: true, AllowHTTP: true, Scopes: append(oidc.Scopes(), api.Scope), DetailTypes: []string{"payment_initiation"}}
	grant(&bank, "authorization_code", "client_credentials", "ciba")
	m.secret, err = m.clients.Create(t.Context(), "bank", bank)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.life != nil {
			m.kill()
			<-m.life.over
			if t.Failed() {
				for line := range strings.Lines(m.life.log.String()) {
					if !strings.Contains(line, `"level":"INFO"`) {
						t.Log(line)
					}
				}
			}
		}
	})
	return m
}

func (m *mortal) settings() []string {
	return []string{"issuer=" + m.issuer, "keys.dir=" + m.keys, "listen=127.0.0.1:0", "management_listen=localhost:0", "trusted_proxies=127.0.0.0/8", "sms.vendors.simulator.url=" + m.sms,
		"mail.host=127.0.0.1", "mail.port=" + m.post, "mail.tls=none", "mail.from=no-reply@login.example", "payments.phone_hold=0s", "recovery.fresh_phone=0s", "ciba.hold=0s"}
}

// front leads to the server that lives. Where it dies the connection is cut: nobody learns more of a death than that.
func (m *mortal) front() http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{DisableKeepAlives: true}, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			m.mu.Lock()
			defer m.mu.Unlock()
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", m.life.address, r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && !strings.HasPrefix(r.URL.Path, "/login") && !strings.HasPrefix(r.URL.Path, "/v1/delivery-reports") && m.changes.Add(1) == m.fuse.Load() {
			time.AfterFunc(rand.N(m.spanNow()), m.kill)
		}
		proxy.ServeHTTP(w, r)
	})
}

// start begins a life.
func (m *mortal) start(t *testing.T) {
	t.Helper()
	l := &life{cmd: exec.CommandContext(t.Context(), "watchword", "serve"), log: newWatched(), over: make(chan struct{})}
	for _, setting := range m.settings() {
		l.cmd.Args = append(l.cmd.Args, "--set", setting)
	}
	l.cmd.Env = append(l.cmd.Environ(), "WATCHWORD_DATABASE__DSN="+m.db.DSN)
	l.cmd.Stderr = l.log
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		l.cmd.Wait() //nolint:errcheck // it is killed
		close(l.over)
	}()
	var line struct {
		Listen string `json:"listen"`
	}
	if err := json.Unmarshal([]byte(l.log.line(t, `"msg":"serving"`)), &line); err != nil {
		t.Fatal(err)
	}
	l.address = line.Listen
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life = l
}

func (m *mortal) spanNow() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.span
}

func (m *mortal) now() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

func (m *mortal) kill() { m.now().cmd.Process.Kill() } //nolint:errcheck // it may have died

// bury waits until nothing of the dead one is under way any more: what it had asked the database for is still done.
func (m *mortal) bury(t *testing.T) {
	t.Helper()
	<-m.now().over
	for m.count(t, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'watchword' AND state <> 'idle' AND pid <> pg_backend_pid()`) > 0 {
		<-time.After(time.Millisecond)
	}
}

// look reads one value or row, whatever becomes of the server.
func (m *mortal) look(into any, query string, args ...any) error {
	return m.db.GetContext(context.Background(), into, query, args...)
}

func (m *mortal) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	if err := m.db.GetContext(t.Context(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

// doubted counts whether something was done that was under way when the server was killed.
func (m *mortal) doubted(what string, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if done {
		m.doubts[what+", done"]++
		m.span = max(m.span*19/20, 2*time.Millisecond)
	} else {
		m.doubts[what+", not done"]++
		m.span = min(m.span*11/10, 200*time.Millisecond)
	}
}

// kept holds everything that was ever answered, and what must always be true, against the database. Each query finds violations.
func (m *mortal) kept(t *testing.T, when string) {
	t.Helper()
	for condition, who := range m.known {
		if m.count(t, "SELECT count(*) WHERE "+condition) != 1 {
			t.Errorf("%s: %s was told what is not so: %s", when, who, condition)
		}
	}
	const public = "'txn_' || replace(t.id::text, '-', '')"
	for name, query := range map[string]string{
		"a transaction has not exactly one terminal record, or one while it is pending": `SELECT t.id::text FROM transactions t
			WHERE (SELECT count(*) FROM audit_events a WHERE a.object = ` + public + ` AND a.event <> 'transaction.create') <> (t.state <> 'pending')::int`,
		"a transaction was not recorded once":         `SELECT t.id::text FROM transactions t WHERE (SELECT count(*) FROM audit_events a WHERE a.object = ` + public + ` AND a.event = 'transaction.create') <> 1`,
		"a record of a transaction that is not there": `SELECT a.object FROM audit_events a WHERE a.event LIKE 'transaction.%' AND a.object <> '' AND NOT EXISTS (SELECT FROM transactions t WHERE a.object = ` + public + `)`,
		"the application was not told of an end, or told of none": `SELECT t.id::text FROM transactions t
			WHERE (SELECT count(*) FROM events e WHERE e.owner LIKE 'client:%' AND e.data->>'id' = ` + public + `) <> (t.state <> 'pending')::int`,
		"an approval without a verified challenge, a result and what it rests on": `SELECT t.id::text FROM transactions t WHERE t.state = 'approved' AND NOT (t.acr <> '' AND cardinality(t.amr) > 0 AND t.auth_time IS NOT NULL
			AND EXISTS (SELECT FROM challenges c WHERE c.id = t.challenge_id AND c.outcome = 'verified' AND c.ended_at = t.decided_at AND c.subject = t.subscriber_id)
			AND EXISTS (SELECT FROM audit_events a WHERE a.object = ` + public + ` AND a.event = 'transaction.approve' AND a.outcome = 'success' AND a.at = t.decided_at))`,
		"a verified challenge and no approval": `SELECT c.id::text FROM challenges c WHERE c.purpose = 'transaction' AND c.outcome = 'verified' AND NOT EXISTS (SELECT FROM transactions t WHERE t.challenge_id = c.id AND t.state = 'approved')`,
		"a challenge outlives its transaction": `SELECT t.id::text FROM transactions t JOIN challenges c ON c.id = t.challenge_id WHERE t.state IN ('approved', 'refused', 'reported', 'canceled', 'failed') AND c.ended_at IS NULL`,
		"a challenge was verified twice":       `SELECT object FROM audit_events WHERE event = 'challenge.answer' AND outcome = 'success' GROUP BY object HAVING count(*) > 1`,
		"a report without an alarm": `SELECT t.id::text FROM transactions t WHERE t.state = 'reported' AND
			(SELECT count(*) FROM events e WHERE e.type = 'fraud.reported' AND e.owner = 'operator' AND e.data->>'id' = ` + public + `) <> 1`,
		"a question tells something else than its transaction": `SELECT b.id::text FROM backchannel_requests b JOIN transactions t ON t.id = b.transaction_id
			WHERE b.state <> CASE t.state WHEN 'pending' THEN CASE WHEN t.expires_at > wall() THEN 'pending' ELSE b.state END WHEN 'approved' THEN 'approved' WHEN 'expired' THEN 'expired' ELSE 'denied' END`,
		"a question without its transaction, or the reverse": `SELECT t.id::text FROM transactions t WHERE t.door = 'ciba' AND NOT EXISTS (SELECT FROM backchannel_requests b WHERE b.transaction_id = t.id)
			UNION ALL SELECT b.id::text FROM backchannel_requests b WHERE b.transaction_id IS NOT NULL AND NOT EXISTS (SELECT FROM transactions t WHERE t.id = b.transaction_id)`,
		"tokens of a transaction more than once, or of none": `SELECT b.id::text FROM backchannel_requests b WHERE b.transaction_id IS NOT NULL AND
			(SELECT count(*) FROM grants g WHERE g.transaction_id = b.transaction_id) <> (b.redeemed_at IS NOT NULL)::int OR b.redeemed_at IS NOT NULL AND b.state <> 'approved'`,
		"a password changed without its recovery, or the reverse": `SELECT u.username FROM subscribers u WHERE u.password_reset_at IS DISTINCT FROM
			(SELECT max(r.ended_at) FROM recoveries r WHERE r.subscriber_id = u.id AND r.kind = 'password' AND r.state = 'finished')`,
		"a recovery has not exactly one end, or one while it lives": `SELECT r.id::text FROM recoveries r
			WHERE (SELECT count(*) FROM audit_events a WHERE a.object = r.id::text AND (a.event = 'recovery.end' OR a.event = 'recovery.start' AND a.outcome = 'refused')) <> (r.ended_at IS NOT NULL)::int`,
		"a proof was not recorded once": `SELECT r.id::text FROM recoveries r WHERE (SELECT count(*) FROM audit_events a WHERE a.object = r.id::text AND a.event = 'recovery.prove') <> cardinality(r.proofs)`,
		"a session outlives a recovery": `SELECT s.id::text FROM sessions s JOIN recoveries r ON r.subscriber_id = s.subscriber_id WHERE r.kind IN ('password', 'access') AND r.state = 'finished' AND s.created_at < r.ended_at
			AND (s.ended_at IS NULL OR s.ended_at > r.ended_at) AND s.recovery_id IS DISTINCT FROM r.id`,
		"a session repairs what is over": `SELECT s.id::text FROM sessions s JOIN recoveries r ON r.id = s.recovery_id WHERE s.ended_at IS NULL AND r.ended_at IS NOT NULL`,
		"somebody recovered, and not every way was told once": `SELECT r.id::text FROM recoveries r WHERE r.kind IN ('password', 'access') AND r.state = 'finished' AND
			(SELECT string_agg(n.channel, ' ' ORDER BY n.channel) FROM notices n WHERE n.subscriber_id = r.subscriber_id AND n.kind = 'recovery_finished' AND n.created_at = r.ended_at) IS DISTINCT FROM 'mail text'`,
		"a notice of a recovery that did not end so": `SELECT n.id::text FROM notices n WHERE n.kind = 'recovery_finished' AND NOT EXISTS (SELECT FROM recoveries r WHERE r.subscriber_id = n.subscriber_id AND r.state = 'finished' AND r.ended_at = n.created_at)`,
		"a code gave tokens twice":                   `SELECT object FROM audit_events WHERE event = 'token.issue' AND reason = 'authorization_code' GROUP BY object HAVING count(*) > 1`,
		"a code without exactly one grant":           `SELECT c.grant_id::text FROM authz_codes c WHERE (SELECT count(*) FROM grants g WHERE g.id = c.grant_id) <> 1`,
		"a text went out twice":                      `SELECT message_id::text FROM legs GROUP BY message_id HAVING count(*) > 1`,
	} {
		var found []string
		if err := m.db.SelectContext(t.Context(), &found, query); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(found) > 0 {
			t.Errorf("%s: %s: %s", when, name, strings.Join(found, ", "))
		}
	}
}

// soul is somebody with a phone, a mail address and a browser.
type soul struct {
	m                     *mortal
	name, phone, password string
	id                    uuid.UUID
	subject, source       string
	seen                  map[string]bool // texts and mails
	stories, ends         int

	client *http.Client
	at     *url.URL
	status int
	body   string
}

func (m *mortal) soul(t *testing.T, n int) *soul {
	t.Helper()
	p := &soul{m: m, name: fmt.Sprint("person", n), phone: fmt.Sprintf("+1202555%04d", 1100+n), source: fmt.Sprint("198.51.100.", n+1), password: authntest.Password, seen: map[string]bool{}}
	number, err := sms.ParseNumber(p.phone, "")
	if err != nil {
		t.Fatal(err)
	}
	a, unique := smsotp.Phone(uuid.Nil, number)
	if p.id, err = m.signIns.Create(t.Context(), p.name, p.password, authn.Profile{"email": p.mail(), "email_verified": true}, authn.Binding{Authenticator: a, Unique: unique}); err != nil {
		t.Fatal(err)
	}
	if err := m.db.GetContext(t.Context(), &p.subject, "SELECT subject FROM subscribers WHERE id = $1", p.id); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *soul) mail() string { return p.name + "@mail.example" }

// fresh has p begin in a browser that nobody has used.
func (p *soul) fresh() error {
	jar, err := cookiejar.New(nil)
	p.client = &http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), nowhere) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	return err
}

// send asks the server. What is not answered to its end was not answered.
func (p *soul) send(method, target, kind, body string, change ...func(*http.Request)) error {
	r, err := http.NewRequestWithContext(context.Background(), method, target, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("X-Forwarded-For", p.source)
	if body != "" {
		r.Header.Set("Content-Type", kind)
	}
	for _, c := range change {
		c(r)
	}
	resp, err := p.client.Do(r)
	if err != nil {
		return errors.Join(errDied, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return errors.Join(errDied, err)
	}
	p.at, p.status, p.body = resp.Request.URL, resp.StatusCode, string(data)
	if location, err := resp.Location(); err == nil {
		p.at = location
	}
	return nil
}

func (p *soul) open(path string) error { return p.send(http.MethodGet, p.m.issuer+path, "", "") }

// submit fills in the form of the page that leads to path.
func (p *soul) submit(path string, fields url.Values) error {
	for _, form := range anyForm.FindAllStringSubmatch(p.body, -1) {
		action := strings.ReplaceAll(form[1], "&amp;", "&")
		if before, _, _ := strings.Cut(action, "?"); before != path {
			continue
		}
		values := url.Values{}
		for _, input := range anyInput.FindAllStringSubmatch(form[2], -1) {
			values.Set(input[1], input[2])
		}
		maps.Copy(values, fields)
		target, err := p.at.Parse(action)
		if err != nil {
			return err
		}
		return p.send(http.MethodPost, target.String(), "application/x-www-form-urlencoded", values.Encode())
	}
	return fmt.Errorf("no form for %s at %s: %d %s", path, p.at, p.status, p.body)
}

// ask is the application's question, and reads the answer.
func (p *soul) ask(path string, form url.Values, into any) error {
	if err := p.send(http.MethodPost, p.m.issuer+path, "application/x-www-form-urlencoded", form.Encode(), func(r *http.Request) { r.SetBasicAuth("bank", p.m.secret) }); err != nil {
		return err
	}
	return json.Unmarshal([]byte(p.body), into)
}

// api is the application's call of the API.
func (p *soul) api(method, path, token, key, body string, into any) error {
	if err := p.send(method, p.m.issuer+path, "application/json", body, func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+token)
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
	}); err != nil {
		return err
	}
	return json.Unmarshal([]byte(p.body), into)
}

// await waits for something that a living server sends.
func (p *soul) await(what string, look func() (string, bool)) (string, error) {
	timeout := time.After(time.Minute)
	for {
		if found, ok := look(); ok {
			return found, nil
		}
		select {
		case <-p.m.now().over:
			return "", errDied
		case <-timeout:
			return "", p.wants("waits for "+what, false)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// code waits for a text that holds words, or without any for one of a sign-in or recovery, and reads its code. A text that was read is not read again.
func (p *soul) code(words string) (string, error) {
	return p.await("a code", func() (string, bool) {
		for _, text := range p.m.inbox.Messages(p.phone) {
			code := lineWithCode.FindStringSubmatch(text.Text)
			if p.seen[text.Text] || code == nil || !strings.Contains(text.Text, words) || words == "" && strings.Contains(text.Text, "EUR") {
				continue
			}
			p.seen[text.Text] = true
			return code[1], true
		}
		return "", false
	})
}

// link waits for a mail with a link that was not read yet.
func (p *soul) link() (string, error) {
	return p.await("a link", func() (string, bool) {
		for _, mail := range p.m.inbox.Mails(p.mail()) {
			if link := lineWithLink.FindString(mail.Text); link != "" && !p.seen[link] {
				p.seen[link] = true
				return link, true
			}
		}
		return "", false
	})
}

// wander fills in the forms of a sign-in until p is elsewhere.
func (p *soul) wander() error {
	for range 6 {
		switch p.at.Path {
		case "/login":
			if err := p.submit("/login", url.Values{"username": {p.name}, "password": {p.password}}); err != nil {
				return err
			}
		case "/login/code":
			code, err := p.code("")
			if err != nil {
				return err
			}
			if err := p.submit("/login/code", url.Values{"code": {code}}); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return fmt.Errorf("%s goes round in circles at %s: %s", p.name, p.at, p.body)
}

func (p *soul) wants(what string, ok bool) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s, %s: at %s: %d %s", p.name, what, p.at, p.status, strings.Join(strings.Fields(anyTag.ReplaceAllString(p.body, " ")), " "))
}

// answered is wants of an answer that promises something.
func (p *soul) answered(what string, ok bool, condition string) error {
	if err := p.wants(what, ok); err != nil {
		return err
	}
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.known[condition] = p.name
	return nil
}

// story is what somebody does, step by step. After a death it goes on with the step that was not answered, which knows that it may have been done.
type story struct {
	steps []step
	at    int
	doubt bool
}

type step struct {
	name string
	do   func(doubt bool) error
}

// errLost says that an answer which was lost held what it would take to go on: somebody begins anew.
var errLost = errors.New("begin anew")

func (s *story) tell() error {
	for ; s.at < len(s.steps); s.at++ {
		err := s.steps[s.at].do(s.doubt)
		switch {
		case errors.Is(err, errDied):
			s.doubt = true
			return err
		case errors.Is(err, errLost):
			s.at = len(s.steps)
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", s.steps[s.at].name, err)
		}
		s.doubt = false
	}
	return nil
}

// TestKilled kills the server at any moment of what changes payments, sign-ins and recoveries. Afterwards what was answered is so, what was not answered is wholly there or
// wholly not, and everybody gets on with it. F-01, F-02, F-10, TX-5, TX-6, RC-12, I1, I4, I7, I8.
func TestKilled(t *testing.T) {
	t.Parallel()
	m := newMortal(t)
	var souls []*soul
	var tellers []func(*soul) *story
	most := []int{3, 3, 1, 1, 1, 1, 1} // stories between two kills: more texts and mails would not be sent
	for n, tell := range []func(*soul) *story{(*soul).pays, (*soul).takesBack, (*soul).approves, (*soul).declines, (*soul).forgets, (*soul).loses, (*soul).signsIn} {
		souls, tellers = append(souls, m.soul(t, n)), append(tellers, tell)
	}
	current := make([]*story, len(souls))
	m.start(t)
	longest := 30 // changes until the server is killed
	for round := range *killRounds {
		m.fuse.Store(m.changes.Load() + 1 + rand.Int64N(int64(longest)))
		idle := m.everybody(t, souls, func(n int) error {
			for range most[n] {
				current[n] = tellers[n](souls[n])
				if err := current[n].tell(); err != nil {
					return err
				}
			}
			return nil
		})
		if idle == len(souls) {
			m.kill()
			longest = max(10, longest*9/10)
		}
		m.bury(t)
		m.kept(t, fmt.Sprintf("round %d, after the kill", round))
		m.db.Advance(t, 61*time.Second) // whatever the dead one had claimed
		m.start(t)
		m.everybody(t, souls, func(n int) error { return current[n].tell() })
		m.kept(t, fmt.Sprintf("round %d, after everybody got on", round))
		m.db.Advance(t, 6*time.Minute)                                                  // what was asked twice, because the first answer was lost, is over
		if _, err := m.db.ExecContext(t.Context(), "DELETE FROM windows"); err != nil { // limits on texts, which nobody means to reach here
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	m.sealed(t)
	t.Logf("%d kills; %v; under way: %v", *killRounds, m.stories(t), m.doubts)
}

// everybody does something at once, and gives how many came to the end of it.
func (m *mortal) everybody(t *testing.T, souls []*soul, do func(n int) error) (done int) {
	t.Helper()
	var group sync.WaitGroup
	results := make([]error, len(souls))
	for n := range souls {
		group.Go(func() { results[n] = do(n) })
	}
	group.Wait()
	for _, err := range results {
		switch {
		case err == nil:
			done++
		case !errors.Is(err, errDied):
			t.Error(err)
		case m.changes.Load() < m.fuse.Load():
			t.Errorf("nobody killed the server: %v\n%s", err, m.now().log)
		}
	}
	return done
}

// sealed waits until the server has linked every record, and wants the chain whole: I8.
func (m *mortal) sealed(t *testing.T) {
	t.Helper()
	reader := &audit.Reader{DB: m.db.DB, Keys: m.ring}
	for timeout := time.After(time.Minute); ; {
		report, err := reader.Verify(t.Context())
		if err != nil || report.Fault != nil {
			t.Fatalf("the chain: %+v, %v", report, err)
		}
		if report.Waiting == 0 && report.Records > 0 {
			return
		}
		select {
		case <-timeout:
			t.Fatalf("%d records are not linked", report.Waiting)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stories counts what came of everything.
func (m *mortal) stories(t *testing.T) string {
	t.Helper()
	var all []string
	if err := m.db.SelectContext(t.Context(), &all, `SELECT count(*) || ' ' || what FROM (SELECT door || ' ' || state AS what FROM transactions UNION ALL SELECT 'recovery of ' || kind || ' ' || state FROM recoveries
		UNION ALL SELECT 'grants' FROM grants) w GROUP BY what ORDER BY what`); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, ", ")
}
