package carriersim

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// smtpName is the mail server's, among the vendors.
const smtpName = "smtp"

// Bounds of SMTP.
const (
	maxMails      = 1000
	maxRecipients = 10
	smtpTimeout   = time.Minute
)

// Mail is a mail that arrived.
type Mail struct {
	ID      string    `json:"id"` // its Message-ID, without the angle brackets
	To      string    `json:"to"` // of the envelope
	From    string    `json:"from"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	At      time.Time `json:"at"`

	seq int
}

// smtpDialect is SMTP, RFC 5321. It is spoken on listeners of its own, see [Simulator.ServeSMTP], without TLS. Whoever gives a name and a password gives those of the account. An outage is 421, and
// what is to fail is refused with 451, or with 550 when its class is invalid_recipient or content_rejected. Mails and texts have an inbox each.
func smtpDialect() dialect {
	return dialect{name: smtpName, account: Account{ID: "watchword", Secret: "smtp-password"}, routes: func(*Simulator, *api) {}}
}

// ServeSMTP takes mails on ln until ctx ends.
func (s *Simulator) ServeSMTP(ctx context.Context, ln net.Listener) error {
	s.mu.Lock()
	s.post, s.used[smtpName] = "smtp://"+ln.Addr().String(), true
	s.mu.Unlock()
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &smtpSession{s: s}, nil }))
	server.Domain, server.ErrorLog = "simulator.invalid", silence{}
	server.MaxMessageBytes, server.MaxRecipients = maxBody, maxRecipients
	server.ReadTimeout, server.WriteTimeout = smtpTimeout, smtpTimeout
	server.EnableSMTPUTF8, server.AllowInsecureAuth = true, true
	stop := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // it is over
	defer stop()
	if err := server.Serve(ln); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, smtp.ErrServerClosed) {
		return fmt.Errorf("serve mails: %w", err)
	}
	return nil
}

// mailLink is where mails are taken: "" when they are not.
func (s *Simulator) mailLink() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.post
}

// silence is where the library says that somebody hung up.
type silence struct{}

func (silence) Printf(string, ...any) {}
func (silence) Println(...any)        {}

// smtpSession is one connection.
type smtpSession struct {
	s    *Simulator
	from string
	to   []string
}

// Mail implements smtp.Session.
func (c *smtpSession) Mail(from string, _ *smtp.MailOptions) error {
	c.from = from
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.faultsOf(smtpName).Outage {
		return &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "out of order"}
	}
	return nil
}

// AuthMechanisms implements smtp.AuthSession.
func (*smtpSession) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth implements smtp.AuthSession.
func (c *smtpSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if a := c.s.Account(smtpName); username != a.ID || password != a.Secret {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

// Rcpt implements smtp.Session.
func (c *smtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	c.to = append(c.to, to)
	return nil
}

// Data implements smtp.Session.
func (c *smtpSession) Data(r io.Reader) error {
	arrived, err := readMail(r)
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "not a mail: " + err.Error()}
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.faultsOf(smtpName); f.Fail > 0 {
		f.Fail--
		s.tell()
		if f.Class == "invalid_recipient" || f.Class == "content_rejected" {
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: f.Class}
		}
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "try again later"}
	}
	for _, to := range c.to {
		s.seq++
		one := *arrived
		one.To, one.At, one.seq = to, s.options.Now().UTC(), s.seq
		s.mails = append(s.mails, &one)
	}
	if over := len(s.mails) - maxMails; over > 0 {
		s.mails = s.mails[over:]
	}
	s.tell()
	return nil
}

// Reset implements smtp.Session.
func (c *smtpSession) Reset() { c.from, c.to = "", nil }

// Logout implements smtp.Session.
func (*smtpSession) Logout() error { return nil }

// readMail reads a mail of one part of text, as a reader would show it.
func readMail(r io.Reader) (*Mail, error) {
	m, err := mail.ReadMessage(r)
	if err != nil {
		return nil, err
	}
	body := m.Body
	switch strings.ToLower(m.Header.Get("Content-Transfer-Encoding")) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	decoded := func(name string) string {
		value := m.Header.Get(name)
		if plain, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
			return plain
		}
		return value
	}
	return &Mail{
		ID: strings.Trim(m.Header.Get("Message-Id"), "<>"), From: decoded("From"), Subject: decoded("Subject"),
		Text: string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))),
	}, nil
}

// Mails lists what arrived at an address, the newest first; at all of them when to is empty.
func (s *Simulator) Mails(to string) []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []Mail{}
	for i := len(s.mails) - 1; i >= 0; i-- {
		if to == "" || strings.EqualFold(s.mails[i].To, to) {
			found = append(found, *s.mails[i])
		}
	}
	return found
}

func (s *Simulator) listMails(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, s.Mails(plus(r.URL.Query().Get("to"))))
}

// forgetMails empties the inbox of mails.
func (s *Simulator) forgetMails() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = nil
	s.tell()
}

func (s *Simulator) clearMails(w http.ResponseWriter, _ *http.Request) {
	s.forgetMails()
	w.WriteHeader(http.StatusNoContent)
}

// mailbox is an address with its mails, the newest first.
type mailbox struct {
	Address string
	Mails   []letter
	Older   int // mails that are not shown
}

// letter is a mail on the page.
type letter struct {
	Mail
	Key int
}

// mailboxes sorts mails, the newest first, by address, that with the newest first.
func mailboxes(mails []Mail) (shown []*mailbox, hidden int) {
	byAddress := map[string]*mailbox{}
	for _, m := range mails {
		key := strings.ToLower(m.To)
		box := byAddress[key]
		if box == nil {
			box = &mailbox{Address: m.To}
			byAddress[key] = box
			if len(shown) < shownPhones {
				shown = append(shown, box)
			}
		}
		if len(box.Mails) == shownTexts {
			box.Older++
			continue
		}
		box.Mails = append(box.Mails, letter{m, m.seq})
	}
	return shown, len(byAddress) - len(shown)
}
