package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/mail"
)

// newNotices makes what people are told with: the mail server, or nil when none is configured, and the texts. Its error joins a [config.Problem] for everything that is wrong.
func newNotices(cfg *config.Config) (*mail.SMTP, *notices.Texts, error) {
	var problems []error
	report := func(key string, err error, cure string) {
		problems = append(problems, &config.Problem{Key: key, What: oneLine(err), Cure: cure})
	}
	texts, err := notices.NewTexts(notices.TextsConfig{Service: cfg.Branding.Name, Short: cfg.SMS.ServiceName, Contact: cfg.Branding.Contact, Locale: cfg.DefaultLocale})
	if err != nil {
		report("branding.contact", err, "write a telephone number or a mail address; web addresses have no place in notices")
	}
	var server *mail.SMTP
	if cfg.Mail.Host != "" {
		server, err = newMailServer(cfg, report)
		if err != nil && len(problems) == 0 {
			report("mail.host", err, "see its keys with: watchword config schema")
		}
	}
	return server, texts, errors.Join(problems...)
}

func newMailServer(cfg *config.Config, report func(key string, err error, cure string)) (*mail.SMTP, error) {
	issuer, err := url.Parse(cfg.Issuer)
	if err != nil {
		return nil, err
	}
	m := &cfg.Mail
	for key, mailbox := range map[string]string{"mail.from": m.From, "mail.reply_to": m.ReplyTo} {
		if mailbox == "" {
			continue
		}
		if _, err := mail.ParseMailbox(mailbox); err != nil {
			report(key, err, "write it as Example <no-reply@example.com>")
			return nil, err
		}
	}
	roots, err := authorities(m.CAFile)
	if err != nil {
		report("mail.ca_file", err, "name a file with the authority's certificates in PEM, or leave the key out")
		return nil, err
	}
	return mail.NewSMTP(mail.Config{
		Host: m.Host, Port: m.Port, TLS: mail.TLS(m.TLS), Username: m.Username, Password: m.Password.Reveal(), From: m.From, ReplyTo: m.ReplyTo,
		Domain: issuer.Hostname(), Timeout: m.Timeout, Roots: roots,
	})
}

// authorities reads certificates; nil, those of the system, when no file is named.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("holds no certificate")
	}
	return roots, nil
}

func (p *Program) mailCommand() *cobra.Command {
	group := &cobra.Command{Use: "mail", Short: "Try the mail server, and look at notices", Example: "  watchword mail test --to you@example.com\n  watchword mail preview --locale de"}
	group.AddCommand(p.mailTest(), p.mailPreview())
	return group
}

func (p *Program) mailTest() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "test", Short: "Send one mail to yourself", Args: cobra.NoArgs,
		Long:    "Test hands a mail to the mail server and says what it answered, and what to do when it refused. The mail is sent directly: nothing is stored.",
		Example: "  watchword mail test --to you@example.com",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := p.load()
			if err != nil {
				return err
			}
			if cfg.Mail.Host == "" {
				return fail(exitFailed, "set mail.host and mail.from", "no mail server is configured")
			}
			server, _, err := newNotices(cfg)
			if err != nil {
				return &failure{code: exitFailed, err: errors.New("the configuration has problems"), problems: problemsOf(err)}
			}
			address, err := mail.ParseAddress(to)
			if err != nil {
				return fail(exitUsage, "write your own address: --to you@example.com", "%w", err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*cfg.Mail.Timeout)
			defer cancel()
			message := mail.Message{
				ID: uuid.New(), To: address, Purpose: "test", Locale: "en", At: time.Now(), Subject: cfg.Branding.Name + ": mails arrive",
				Text: "This mail was sent by hand, to find out whether mails arrive. There is nothing to do.\n",
			}
			if err := server.Send(ctx, message); err != nil {
				return mailFailure(cfg, err)
			}
			return p.show(map[string]string{"server": cfg.Mail.Host, "message_id": message.ID.String()}, func(w io.Writer) {
				fmt.Fprintf(w, "%s took it\t%s\n", cfg.Mail.Host, message.ID)
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "your own mail address")
	return cmd
}

// mailFailure says why a mail server did not take a mail, and what to do about it.
func mailFailure(cfg *config.Config, err error) error {
	var refused *mail.Error
	if !errors.As(err, &refused) {
		return err
	}
	cure := map[mail.Class]string{
		mail.Unreachable:  "look at mail.host and mail.port, and whether a firewall is between you and it",
		mail.Untrusted:    "use the name that the server's certificate has as mail.host, and mail.ca_file if the authority is your own; or the other of starttls and implicit",
		mail.Unauthorized: "look at mail.username and mail.password",
		mail.Handshake:    "choose mail.tls and mail.port as the server offers them: starttls on 587, implicit on 465",
		mail.BadSender:    "use a sender in mail.from that the server may send for",
		mail.Temporary:    "try again in some minutes; if it stays, ask whoever runs the server",
		mail.Rejected:     "look at the address; if it is right, ask whoever runs the server",
		mail.Ambiguous:    "look whether it arrived: the server did not say",
	}[refused.Class]
	return fail(exitFailed, cure, "%s did not take it (%s): %s", cfg.Mail.Host, refused.Class, oneLine(errors.New(refused.Said)))
}

// shownNotice is a notice as commands print it. The JSON form is stable.
type shownNotice struct {
	Kind    string `json:"kind"`
	Locale  string `json:"locale"`
	Text    string `json:"text"`
	Subject string `json:"subject"`
	Mail    string `json:"mail"`
}

func (p *Program) mailPreview() *cobra.Command {
	var locale string
	cmd := &cobra.Command{
		Use: "preview", Short: "Show every notice, as text message and as mail", Args: cobra.NoArgs,
		Long:    "Preview words every notice that people may get about their accounts, with made-up details.",
		Example: "  watchword mail preview\n  watchword mail preview --locale de --format json",
		RunE: func(*cobra.Command, []string) error {
			cfg, _, err := p.load()
			if err != nil {
				return err
			}
			_, texts, err := newNotices(cfg)
			if err != nil {
				return &failure{code: exitFailed, err: errors.New("the configuration has problems"), problems: problemsOf(err)}
			}
			locales := texts.Locales()
			if locale != "" {
				locales = []string{locale}
			}
			var all []shownNotice
			for _, locale := range locales {
				for _, kind := range notices.Kinds() {
					n := &notices.Notice{Kind: kind, Hint: "42", Source: "192.0.2.0/24", At: time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC), Until: time.Date(2026, 1, 2, 15, 19, 0, 0, time.UTC)}
					text, used := texts.Text(n, locale)
					subject, body, _ := texts.Mail(n, locale, nil)
					all = append(all, shownNotice{string(kind), used, text, subject, body})
				}
			}
			return p.show(all, func(w io.Writer) {
				for _, n := range all {
					fmt.Fprintf(w, "%s (%s)\n\n%s\n\n%s\n\n%s\n", n.Kind, n.Locale, n.Text, n.Subject, n.Mail)
				}
			})
		},
	}
	cmd.Flags().StringVar(&locale, "locale", "", "language (default: all)")
	return cmd
}
