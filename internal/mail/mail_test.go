package mail_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// server is a mail server that keeps what it takes and fails on demand.
type server struct {
	*smtp.Server
	address string
	roots   *x509.CertPool

	mu    sync.Mutex
	mails [][]byte
	rcpts []string
	users []string
	fail  map[string]error // by command: MAIL, RCPT, DATA
	late  func()           // when a mail was taken, before the answer
}

func serve(t *testing.T, protection mail.TLS, adjust func(*server)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certificate, roots := selfSigned(t)
	s := &server{address: l.Addr().String(), roots: roots, fail: map[string]error{}}
	s.Server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{s}, nil }))
	s.Domain, s.ErrorLog = "mail.example", quiet{}
	s.ReadTimeout, s.WriteTimeout = 10*time.Second, 10*time.Second
	settings := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	switch protection {
	case mail.StartTLS:
		s.TLSConfig = settings
	case mail.Implicit:
		l = tls.NewListener(l, settings)
	}
	if adjust != nil {
		adjust(s)
	}
	go s.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { s.Server.Close() })
	return s
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

type session struct{ s *server }

func (c *session) Reset()        {}
func (c *session) Logout() error { return nil }

func (c *session) failure(command string) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.fail[command]
}

func (c *session) Mail(string, *smtp.MailOptions) error { return c.failure("MAIL") }

func (c *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := c.failure("RCPT"); err != nil {
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.rcpts = append(c.s.rcpts, to)
	return nil
}

func (c *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := c.failure("DATA"); err != nil {
		return err
	}
	c.s.mu.Lock()
	c.s.mails = append(c.s.mails, data)
	late := c.s.late
	c.s.mu.Unlock()
	if late != nil {
		late()
	}
	return nil
}

func (c *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		if password != "hunter2" {
			return smtp.ErrAuthFailed
		}
		c.s.users = append(c.s.users, username)
		return nil
	}), nil
}

// taken lists the mails that were taken.
func (s *server) taken() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

func (s *server) set(command string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[command] = err
}

// config reaches the server.
func (s *server) config(protection mail.TLS) mail.Config {
	host, port, _ := net.SplitHostPort(s.address)
	c := mail.Config{Host: host, TLS: protection, From: "Example Bank <no-reply@bank.example>", Domain: "login.example", Timeout: 5 * time.Second, Roots: s.roots}
	c.Port, _ = strconv.Atoi(port)
	return c
}

func sender(t *testing.T, c mail.Config) *mail.SMTP {
	t.Helper()
	s, err := mail.NewSMTP(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func address(t *testing.T, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func message(t *testing.T) mail.Message {
	t.Helper()
	return mail.Message{
		ID: uuid.New(), To: address(t, "alice@mail.example"), Purpose: "test", Locale: "de", Subject: "Beispiel: Ihr Passwort wurde geändert",
		Text: "Zeile eins.\n\n.Zeile mit Punkt\n" + strings.Repeat("lang ", 400) + "\n", At: time.Date(2026, 11, 14, 15, 4, 5, 0, time.UTC),
	}
}

func class(err error) (mail.Class, int) {
	if e, ok := errors.AsType[*mail.Error](err); ok {
		return e.Class, e.Code
	}
	return "", 0
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		fine bool
	}{
		{"alice@example.com", true}, {"a.b+tag@sub.example.com", true}, {"jürgen@example.com", true},
		{"", false}, {"alice", false}, {"alice@", false}, {"@example.com", false}, {"a b@example.com", false}, {"Alice <alice@example.com>", false}, {"<alice@example.com>", false},
		{"alice@example.com\r\nBcc: eve@evil.example", false}, {"alice@example.com\n", false}, {" alice@example.com", false}, {"alice@example.com,eve@evil.example", false},
		{"\"alice\\r\\n\"@example.com", false}, {"alice@[192.0.2.1]", false}, {"alice(comment)@example.com", false}, {"alice@example.com\x00", false},
		{"alice@exa\u202emple.com", false}, {"alice\u2028@example.com", false}, {strings.Repeat("a", 250) + "@example.com", false}, {"a\xff@example.com", false},
		{"group:alice@example.com;", false}, {"alice@example.com>\nRCPT TO:<eve@evil.example", false},
	} {
		if _, err := mail.ParseAddress(tt.in); (err == nil) != tt.fine {
			t.Errorf("ParseAddress(%q): %v", tt.in, err)
		}
	}
	a := address(t, "alice@example.com")
	for _, printed := range []string{fmt.Sprint(a), fmt.Sprintf("%v %+v %#v %s", a, a, a, a), fmt.Sprint(slog.Any("a", a)), fmt.Sprint(struct{ To mail.Address }{a})} {
		if strings.Contains(printed, "alice") {
			t.Errorf("a printed address shows: %s", printed)
		}
	}
}

// A mail is what RFC 5322 says, in each way of protection, and names its sender as it was told to.
func TestSend(t *testing.T) {
	t.Parallel()
	for _, protection := range []mail.TLS{mail.StartTLS, mail.Implicit, mail.Plain} {
		t.Run(string(protection), func(t *testing.T) {
			t.Parallel()
			s := serve(t, protection, func(s *server) { s.AllowInsecureAuth, s.EnableSMTPUTF8 = protection == mail.Plain, true })
			c := s.config(protection)
			c.Username, c.Password, c.ReplyTo = "watchword", "hunter2", "help@bank.example"
			m := message(t)
			if err := sender(t, c).Send(t.Context(), m); err != nil {
				t.Fatal(err, said(err))
			}
			if got := s.taken(); len(got) != 1 || !slices.Equal(s.rcpts, []string{"alice@mail.example"}) || !slices.Equal(s.users, []string{"watchword"}) {
				t.Fatalf("%d mails to %v by %v", len(got), s.rcpts, s.users)
			}
			got, err := netmail.ReadMessage(bytes.NewReader(s.taken()[0]))
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{
				"From": `"Example Bank" <no-reply@bank.example>`, "To": "<alice@mail.example>", "Reply-To": "<help@bank.example>", "Message-Id": "<" + m.ID.String() + "@login.example>",
				"Date": "Sat, 14 Nov 2026 15:04:05 +0000", "Auto-Submitted": "auto-generated", "Content-Language": "de", "Mime-Version": "1.0",
			} {
				if have := got.Header.Get(name); have != want {
					t.Errorf("%s is %q, want %q", name, have, want)
				}
			}
			if subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject")); err != nil || subject != m.Subject {
				t.Errorf("subject is %q, %v", subject, err)
			}
			text, err := io.ReadAll(quotedprintable.NewReader(got.Body))
			if err != nil || strings.ReplaceAll(string(text), "\r\n", "\n") != m.Text {
				t.Errorf("text is %q, %v", text, err)
			}
			for line := range bytes.Lines(s.taken()[0]) {
				if len(line) > 80 || !bytes.HasSuffix(line, []byte("\r\n")) {
					t.Errorf("line of %d bytes: %q", len(line), line)
				}
			}
			if bytes.Contains(s.taken()[0], []byte("go-mail")) {
				t.Error("the mail names the library")
			}
		})
	}
}

func said(err error) string {
	if e, ok := errors.AsType[*mail.Error](err); ok {
		return e.Said
	}
	return ""
}

// What goes wrong has a class, and nothing that is printed of it holds an address or a password.
func TestSendFails(t *testing.T) {
	t.Parallel()
	reply := func(code int) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: "no <alice@mail.example>"}
	}
	for _, tt := range []struct {
		name   string
		server mail.TLS
		adjust func(*server)
		config func(*mail.Config)
		want   mail.Class
		code   int
	}{
		{"nobody there", mail.Plain, nil, func(c *mail.Config) { c.Port = 1 }, mail.Unreachable, 0},
		{"a certificate of nobody", mail.StartTLS, nil, func(c *mail.Config) { c.Roots = nil }, mail.Untrusted, 0},
		{"a certificate of nobody, implicit", mail.Implicit, nil, func(c *mail.Config) { c.Roots = nil }, mail.Untrusted, 0},
		{"no TLS where it is wanted at once", mail.Plain, nil, func(c *mail.Config) { c.TLS = mail.Implicit }, mail.Untrusted, 0},
		{"no STARTTLS", mail.Plain, nil, func(c *mail.Config) { c.TLS = mail.StartTLS }, mail.Handshake, 0},
		{"a wrong password", mail.StartTLS, nil, func(c *mail.Config) { c.Username, c.Password = "watchword", "hunter3" }, mail.Unauthorized, 535},
		{"a sender that is not taken", mail.StartTLS, func(s *server) { s.fail["MAIL"] = reply(550) }, nil, mail.BadSender, 550},
		{"a password is wanted", mail.StartTLS, func(s *server) { s.fail["MAIL"] = reply(530) }, nil, mail.Unauthorized, 530},
		{"no such mailbox", mail.StartTLS, func(s *server) { s.fail["RCPT"] = reply(550) }, nil, mail.Rejected, 550},
		{"greylisted", mail.StartTLS, func(s *server) { s.fail["RCPT"] = reply(451) }, nil, mail.Temporary, 451},
		{"refused by content", mail.StartTLS, func(s *server) { s.fail["DATA"] = reply(554) }, nil, mail.Rejected, 554},
		{"full", mail.StartTLS, func(s *server) { s.fail["DATA"] = reply(452) }, nil, mail.Temporary, 452},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, tt.server, tt.adjust)
			c := s.config(tt.server)
			if tt.config != nil {
				tt.config(&c)
			}
			err := sender(t, c).Send(t.Context(), message(t))
			if got, code := class(err); got != tt.want || code != tt.code {
				t.Errorf("class %q (%d), want %q (%d): %s", got, code, tt.want, tt.code, said(err))
			}
			if text := fmt.Sprint(err); strings.Contains(text, "alice") || strings.Contains(text, "hunter") || strings.Contains(said(err), "hunter") {
				t.Errorf("the error tells too much: %v, %s", err, said(err))
			}
			if n := len(s.taken()); n != 0 {
				t.Errorf("%d mails arrived", n)
			}
		})
	}
}

// A connection that ends after the mail and before the answer leaves nobody knowing.
func TestSendWithoutAnswer(t *testing.T) {
	t.Parallel()
	s := serve(t, mail.Plain, func(s *server) {
		s.late = func() { s.Server.Close() }
	})
	if got, _ := class(sender(t, s.config(mail.Plain)).Send(t.Context(), message(t))); got != mail.Ambiguous {
		t.Errorf("class %q, want %q", got, mail.Ambiguous)
	}
}

// Nothing that is filled in makes a header, a recipient or a line of the protocol.
func TestInjection(t *testing.T) {
	t.Parallel()
	s := serve(t, mail.Plain, nil)
	c := s.config(mail.Plain)
	for _, from := range []string{"Bank\r\nBcc: eve@evil.example <a@b.example>", "a@b.example\r\nBcc: eve@evil.example", "a@b.example, eve@evil.example", "", "Bank"} {
		bad := c
		bad.From = from
		if _, err := mail.NewSMTP(bad); err == nil {
			t.Errorf("sender %q was taken", from)
		}
		bad = c
		if bad.ReplyTo = from; from != "" {
			if _, err := mail.NewSMTP(bad); err == nil {
				t.Errorf("reply address %q was taken", from)
			}
		}
	}
	for _, change := range []func(*mail.Message){
		func(m *mail.Message) { m.Subject = "Hello\r\nBcc: eve@evil.example" }, func(m *mail.Message) { m.Subject = "Hello\nBcc: eve@evil.example" },
		func(m *mail.Message) { m.Subject = "Hello\x00" }, func(m *mail.Message) { m.Text = "Hello\x1b[31m" }, func(m *mail.Message) { m.Text = "Hello\rBcc" },
		func(m *mail.Message) { m.To = mail.Address{} }, func(m *mail.Message) { m.Subject = "" }, func(m *mail.Message) { m.Text = "\xff" },
	} {
		m := message(t)
		change(&m)
		if got, _ := class(sender(t, c).Send(t.Context(), m)); got != mail.Rejected {
			t.Errorf("%q, %q was sent: %v", m.Subject, m.Text, got)
		}
		if err := (&mail.Outbox{Keys: keyring.Ephemeral()}).Enqueue(new(postgres.Query), m, "x"); err == nil {
			t.Errorf("%q, %q was stored", m.Subject, m.Text)
		}
	}
	m := message(t)
	m.Text, m.Subject = "one\n.\nMAIL FROM:<eve@evil.example>\n.\n", `=?utf-8?q?x?= "quoted" <b@c.example>`
	if err := sender(t, c).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	mails := s.taken()
	if len(mails) != 1 || len(s.rcpts) != 1 {
		t.Fatalf("%d mails to %v", len(mails), s.rcpts)
	}
	got, err := netmail.ReadMessage(bytes.NewReader(mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Header["Bcc"])+len(got.Header["Cc"]) != 0 || len(got.Header["To"]) != 1 || len(got.Header["From"]) != 1 {
		t.Errorf("header is %v", got.Header)
	}
}

// post is a world with an outbox.
type post struct {
	db     *pgtest.Database
	keys   *keyring.Ring
	outbox *mail.Outbox
	log    *bytes.Buffer
}

func newPost(t *testing.T) *post {
	t.Helper()
	p := &post{db: pgtest.New(t), keys: keyring.Ephemeral(), log: new(bytes.Buffer)}
	p.outbox = &mail.Outbox{Keys: p.keys}
	return p
}

func (p *post) worker(t *testing.T, s mail.Sender) *mail.Worker {
	t.Helper()
	return &mail.Worker{DB: p.db.Open(t), Keys: p.keys, Sender: s, Log: slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

func (p *post) store(t *testing.T, m mail.Message) {
	t.Helper()
	q := new(postgres.Query)
	q.With("event", "SELECT 1")
	if err := p.outbox.Enqueue(q, m, "event"); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM mail_queued")
	if n, err := p.db.Run(t.Context(), q); err != nil || n != 1 {
		t.Fatal(n, err)
	}
}

type row struct {
	State   string  `db:"state"`
	Reason  *string `db:"reason"`
	Erased  bool    `db:"erased"`
	Tries   int     `db:"tries"`
	Unknown int     `db:"unknown"`
}

func (p *post) row(t *testing.T, id uuid.UUID) (r row) {
	t.Helper()
	if err := p.db.GetContext(t.Context(), &r, `SELECT state, reason, body IS NULL AS erased, tries, unknown FROM mails WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	return r
}

func drain(t *testing.T, w *mail.Worker) int {
	t.Helper()
	n, err := w.Drain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWorker(t *testing.T) {
	t.Parallel()
	p, s := newPost(t), serve(t, mail.Plain, nil)
	w := p.worker(t, sender(t, s.config(mail.Plain)))
	m := message(t)
	p.store(t, m)
	var sealed []byte
	if err := p.db.GetContext(t.Context(), &sealed, `SELECT body FROM mails`); err != nil || bytes.Contains(sealed, []byte("alice")) || bytes.Contains(sealed, []byte("Passwort")) {
		t.Errorf("what waits is not sealed: %q, %v", sealed, err)
	}
	if n := drain(t, w); n != 1 || len(s.taken()) != 1 {
		t.Fatalf("%d attempts, %d arrived", n, len(s.taken()))
	}
	if r := p.row(t, m.ID); r.State != "sent" || !r.Erased || r.Tries != 1 || r.Reason != nil {
		t.Errorf("row is %+v", r)
	}
	if n := drain(t, w); n != 0 {
		t.Error("a mail that was sent was tried again")
	}
	rejected := message(t)
	s.set("RCPT", &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no <alice@mail.example>"})
	p.store(t, rejected)
	drain(t, w)
	p.db.Advance(t, 24*time.Hour)
	if n := drain(t, w); n != 0 {
		t.Error("what was refused for good was tried again")
	}
	if r := p.row(t, rejected.ID); r.State != "failed" || *r.Reason != "rejected" || !r.Erased {
		t.Errorf("row is %+v", r)
	}
	late := message(t)
	late.Life = time.Minute
	s.set("RCPT", nil)
	p.store(t, late)
	p.db.Advance(t, 2*time.Minute)
	if drain(t, w); len(s.taken()) != 1 {
		t.Error("a mail was sent after its time")
	}
	if r := p.row(t, late.ID); r.State != "failed" || *r.Reason != "expired" || !r.Erased {
		t.Errorf("row is %+v", r)
	}
	var ends []string
	if err := p.db.SelectContext(t.Context(), &ends, `SELECT outcome || ' ' || reason FROM audit_events WHERE event = 'mail.end' ORDER BY at`); err != nil || !slices.Equal(ends, []string{"success ", "failed rejected", "failed expired"}) {
		t.Errorf("audit is %v, %v", ends, err)
	}
	if strings.Contains(p.log.String(), "alice") {
		t.Errorf("the log holds an address:\n%s", p.log)
	}
}

// A mail server that is down keeps mails waiting, with pauses that grow, for a day; the operator is told once.
func TestServerDown(t *testing.T) { // F-77
	t.Parallel()
	p, s := newPost(t), serve(t, mail.Plain, nil)
	c := s.config(mail.Plain)
	c.Port = 1 // where nobody listens
	w := p.worker(t, sender(t, c))
	first, second := message(t), message(t)
	p.store(t, first)
	pauses := []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second}
	for i, pause := range pauses {
		if pause > 0 {
			p.db.Advance(t, pause-time.Second)
			if n := drain(t, w); n != 0 {
				t.Errorf("attempt %d came before its pause of %v", i+1, pause)
			}
			p.db.Advance(t, time.Second)
		}
		if n := drain(t, w); n != 1 {
			t.Fatalf("attempt %d after %v was not made: %+v", i+1, pause, p.row(t, first.ID))
		}
	}
	if r := p.row(t, first.ID); r.State != "queued" || r.Erased || *r.Reason != "unreachable" || r.Unknown != 0 {
		t.Errorf("row is %+v", r)
	}
	if n := strings.Count(p.log.String(), "mail.degraded"); n != 1 || w.Up() {
		t.Errorf("the operator was told %d times, want once:\n%s", n, p.log)
	}
	p.store(t, second)
	w.Sender = sender(t, s.config(mail.Plain))
	p.db.Advance(t, 2*time.Hour)
	if drain(t, w); len(s.taken()) != 2 || !w.Up() || !strings.Contains(p.log.String(), "mail.recovered") {
		t.Errorf("%d mails arrived when the server was back:\n%s", len(s.taken()), p.log)
	}

	lost := message(t)
	s.set("RCPT", &smtp.SMTPError{Code: 450, Message: "later"})
	p.store(t, lost)
	tries := 0
	for range 100 {
		tries += drain(t, w)
		p.db.Advance(t, time.Hour)
		if p.row(t, lost.ID).State == "failed" {
			break
		}
	}
	if r := p.row(t, lost.ID); r.State != "failed" || !r.Erased || tries > 20 || tries < 10 {
		t.Errorf("after a day the row is %+v, tried %d times", r, tries)
	}
}

// dying loses its database right after the server took the mail: what a killed process leaves.
type dying struct {
	mail.Sender
	db *postgres.DB
}

func (d dying) Send(ctx context.Context, m mail.Message) error {
	return errors.Join(d.Sender.Send(ctx, m), d.db.Close())
}

// A worker that dies between the server's answer and its own note of it repeats the mail once, with the same Message-ID, and never again.
func TestKilledBeforeSettled(t *testing.T) { // NOT-3, SND-5's rule for mails
	t.Parallel()
	p, s := newPost(t), serve(t, mail.Plain, nil)
	smtpSender := sender(t, s.config(mail.Plain))
	m := message(t)
	p.store(t, m)
	for round := range 4 {
		w := p.worker(t, nil)
		w.Sender = dying{smtpSender, w.DB}
		if n, err := w.Drain(t.Context()); (err == nil) != (n == 0) {
			t.Fatalf("round %d: %d attempts, %v", round, n, err)
		}
		if n := drain(t, p.worker(t, smtpSender)); n != 0 {
			t.Fatalf("round %d: taken over before the lease ended", round)
		}
		p.db.Advance(t, time.Minute)
	}
	mails := s.taken()
	if len(mails) != 2 {
		t.Fatalf("%d mails arrived, want the first and one repeat", len(mails))
	}
	if !bytes.Equal(mails[0], mails[1]) {
		t.Errorf("the repeat differs:\n%s\n%s", mails[0], mails[1])
	}
	if r := p.row(t, m.ID); r.State != "failed" || *r.Reason != "ambiguous" || !r.Erased || r.Tries != 2 {
		t.Errorf("row is %+v", r)
	}
}

// Many workers send each mail once.
func TestWorkersTogether(t *testing.T) {
	t.Parallel()
	p, s := newPost(t), serve(t, mail.Plain, nil)
	const mails = 20
	for range mails {
		p.store(t, message(t))
	}
	var group sync.WaitGroup
	for range 4 {
		w := p.worker(t, sender(t, s.config(mail.Plain)))
		w.Log = slog.New(slog.DiscardHandler)
		group.Go(func() {
			if _, err := w.Drain(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := len(s.taken()); n != mails {
		t.Errorf("%d mails arrived, want %d", n, mails)
	}
}

// A stored mail wakes a worker that runs.
func TestRun(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	arrived := make(chan struct{}, 1)
	s := serve(t, mail.Plain, func(s *server) { s.late = func() { arrived <- struct{}{} } })
	w := p.worker(t, sender(t, s.config(mail.Plain)))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	p.store(t, message(t))
	select {
	case <-arrived:
	case <-time.After(30 * time.Second):
		t.Error("nothing arrived")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
