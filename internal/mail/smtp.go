package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/textproto"
	"strconv"
	"strings"
	"time"
	"unicode"

	gomail "github.com/wneessen/go-mail"
)

// Sender hands mails to a mail server.
type Sender interface {
	// Send hands m over. Nil means that the server has taken it. Every failure is an [*Error]; anything else counts as [Ambiguous].
	Send(ctx context.Context, m Message) error
}

// Class says what a failure means for the mail.
type Class string

// Classes. After all but [Rejected] the mail is tried again.
const (
	Unreachable  Class = "unreachable"  // no connection to the server
	Untrusted    Class = "untrusted"    // the server does not prove that it is the one that was meant
	Unauthorized Class = "unauthorized" // the server does not take user name and password, or wants some
	Handshake    Class = "handshake"    // the server does not speak as the settings say: no STARTTLS, no way to sign in
	BadSender    Class = "bad_sender"   // the server does not take mails from this sender
	Temporary    Class = "temporary"    // the server asks to try again
	Rejected     Class = "rejected"     // the server does not take this mail, whenever it is tried
	Ambiguous    Class = "ambiguous"    // the mail may have been taken
)

// Error is why a mail was not taken.
type Error struct {
	Class Class
	Code  int // of the server's reply, RFC 5321 section 4.2.1; 0: there was none
	// Said is what the server or the library had to say. It may hold the address: it is for whoever tries the settings, never for logs.
	Said string
}

func (e *Error) Error() string {
	if e.Code == 0 {
		return "mail: " + string(e.Class)
	}
	return fmt.Sprintf("mail: %s (%d)", e.Class, e.Code)
}

// TLS is how the connection to the mail server is protected. Certificates are always verified.
type TLS string

// Ways of protection.
const (
	StartTLS TLS = "starttls" // from the first command on; the server must offer it
	Implicit TLS = "implicit" // from the first byte on, RFC 8314 section 3.3
	Plain    TLS = "none"     // not at all: for a server on the same machine
)

// Port is the usual one.
func (t TLS) Port() int {
	switch t {
	case Implicit:
		return 465
	case Plain:
		return 25
	}
	return 587
}

// Config of [NewSMTP].
type Config struct {
	Host     string
	Port     int // 0: that of TLS
	TLS      TLS
	Username string // "": none is asked for
	Password string
	// From is the sender, with a display name or without: "Example <no-reply@example.com>".
	From string
	// ReplyTo is where answers go, in the same form. Empty: to From.
	ReplyTo string
	// Domain of Message-IDs, and what this host calls itself to the server.
	Domain string
	// Timeout of connecting and of the conversation, each. Default 15 s.
	Timeout time.Duration
	// Roots that the server's certificate has to lead to. Nil: those of the system.
	Roots *x509.CertPool
}

// SMTP speaks to a mail server by RFC 5321. It is safe for concurrent use.
type SMTP struct {
	config        Config
	from, replyTo *mail.Address
}

// NewSMTP makes a sender. It does not connect.
func NewSMTP(c Config) (*SMTP, error) {
	if c.Timeout == 0 {
		c.Timeout = 15 * time.Second
	}
	if c.Port == 0 {
		c.Port = c.TLS.Port()
	}
	if c.TLS != StartTLS && c.TLS != Implicit && c.TLS != Plain {
		return nil, fmt.Errorf("mail: no way of protection is named %q", c.TLS)
	}
	if c.Host == "" || c.Domain == "" {
		return nil, errors.New("mail: a server and a domain are needed")
	}
	s := &SMTP{config: c}
	var err error
	if s.from, err = ParseMailbox(c.From); err != nil {
		return nil, fmt.Errorf("sender: %w", err)
	}
	if c.ReplyTo != "" {
		if s.replyTo, err = ParseMailbox(c.ReplyTo); err != nil {
			return nil, fmt.Errorf("reply address: %w", err)
		}
	}
	return s, nil
}

// ParseMailbox reads a mailbox of RFC 5322 section 3.4, which may have a display name. It is for settings; people's addresses are [Address].
func ParseMailbox(s string) (*mail.Address, error) {
	if strings.ContainsAny(s, "\r\n\x00") {
		return nil, ErrAddress
	}
	parsed, err := mail.ParseAddress(s)
	if err != nil {
		return nil, ErrAddress
	}
	if _, err := ParseAddress(parsed.Address); err != nil {
		return nil, err
	}
	return parsed, nil
}

// compose puts the mail together. The same message gives the same header, whenever it is sent.
func (s *SMTP) compose(m Message) (*gomail.Msg, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent(), gomail.WithEncoding(gomail.EncodingQP))
	msg.FromMailAddress(s.from)
	msg.ToMailAddress(&mail.Address{Address: m.To.Reveal()})
	if s.replyTo != nil {
		msg.ReplyToMailAddress(s.replyTo)
	}
	msg.Subject(m.Subject)
	msg.SetMessageIDWithValue(m.ID.String() + "@" + s.config.Domain)
	msg.SetDateWithValue(m.At)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834 section 5: no out-of-office answers
	if m.Locale != "" {
		msg.SetGenHeader("Content-Language", m.Locale)
	}
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	return msg, nil
}

// Send implements [Sender].
func (s *SMTP) Send(ctx context.Context, m Message) error {
	msg, err := s.compose(m)
	if err != nil {
		return &Error{Class: Rejected, Said: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*s.config.Timeout)
	defer cancel()
	var conn net.Conn // the library leaves it open when greeting fails, and knows no context afterwards
	defer func() {
		if conn != nil {
			conn.Close() //nolint:errcheck // whatever was to be said was said
		}
	}()
	options := s.options(func(ctx context.Context, network, address string) (net.Conn, error) {
		var err error
		conn, err = s.dial(ctx, network, address)
		return conn, err
	})
	if ascii(m.To.Reveal()) && ascii(s.from.Address) { // what is marked as RFC 6531 without need is lost at the first server that does not know it
		options = append(options, gomail.WithoutSMTPUTF8())
	}
	client, err := gomail.NewClient(s.config.Host, options...)
	if err != nil {
		return &Error{Class: Handshake, Said: err.Error()}
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return s.unmet(err, conn != nil)
	}
	end := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // that is what ends it
	defer end()
	if err := client.SendWithSMTPClient(session, msg); err != nil {
		return refused(err)
	}
	session.Quit() //nolint:errcheck // the server has the mail
	return nil
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

func (s *SMTP) tlsConfig() *tls.Config {
	return &tls.Config{ServerName: s.config.Host, RootCAs: s.config.Roots, MinVersion: tls.VersionTLS12}
}

func (s *SMTP) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.config.TLS == Implicit {
		return (&tls.Dialer{Config: s.tlsConfig()}).DialContext(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (s *SMTP) options(dial gomail.DialContextFunc) []gomail.Option {
	options := []gomail.Option{
		gomail.WithPort(s.config.Port), gomail.WithTimeout(s.config.Timeout), gomail.WithHELO(s.config.Domain), gomail.WithTLSConfig(s.tlsConfig()),
		gomail.WithDialContextFunc(dial), gomail.WithoutNoop(), gomail.WithoutRset(),
	}
	switch s.config.TLS {
	case Implicit:
		options = append(options, gomail.WithSSL())
	case Plain:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if s.config.Username != "" {
		// The library sends PLAIN and LOGIN over TLS and to this machine only.
		options = append(options, gomail.WithUsername(s.config.Username), gomail.WithPassword(s.config.Password),
			gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthSCRAMSHA1, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
	}
	return options
}

// unmet is why there was no conversation. Nothing was sent.
func (*SMTP) unmet(err error, connected bool) *Error {
	e := &Error{Class: Unreachable, Code: code(err), Said: err.Error()}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		e.Class = Untrusted
	case !connected:
	case e.Code >= 530 && e.Code <= 538: // RFC 4954 section 6
		e.Class = Unauthorized
	case e.Code >= 400 && e.Code < 500:
		e.Class = Temporary
	default:
		var network net.Error
		if e.Class = Handshake; errors.As(err, &network) {
			e.Class = Unreachable
		}
	}
	return e
}

// refused is what became of a mail that a server was offered.
func refused(err error) error {
	var refusal *gomail.SendError
	if !errors.As(err, &refusal) {
		return &Error{Class: Ambiguous, Said: err.Error()}
	}
	e := &Error{Class: Temporary, Code: refusal.ErrorCode(), Said: refusal.Error()}
	switch refusal.Reason {
	case gomail.ErrSMTPReset: // after the server took it
		return nil
	case gomail.ErrSMTPDataClose:
		if e.Code == 0 { // the whole mail is there, and no answer
			e.Class = Ambiguous
		}
	case gomail.ErrGetSender, gomail.ErrGetRcpts, gomail.ErrNoUnencoded:
		e.Class = Rejected
	}
	switch {
	case e.Code < 500:
	case e.Code >= 530 && e.Code <= 538:
		e.Class = Unauthorized
	case refusal.Reason == gomail.ErrSMTPMailFrom:
		e.Class = BadSender // the settings' fault, not this mail's
	default:
		e.Class = Rejected
	}
	return e
}

// code is the reply that err tells of, or 0.
func code(err error) int {
	var reply *textproto.Error
	if errors.As(err, &reply) {
		return reply.Code
	}
	if text := err.Error(); len(text) > 3 { // the library formats some of them away
		if n, bad := strconv.Atoi(text[:3]); bad == nil && n >= 400 && n < 600 {
			return n
		}
	}
	return 0
}
