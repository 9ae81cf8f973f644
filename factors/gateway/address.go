package gateway

import (
	"regexp"
	"strings"

	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/sms"
)

// Email is the channel of codes that go to a mail address.
const Email = mail.Channel

// address is where a code goes: to a phone, or to a mailbox where the tenant has that.
type address struct {
	phone   sms.Number
	mailbox mail.Address
}

func (a address) isMail() bool { return a.mailbox != mail.Address{} }

// reveal is the address itself, to be sealed or sent to. Of a mail address the domain is in small letters, whose case means nothing (RFC 5321 section 2.4); what stands before it is left as it was
// given, for that is its mail server's business alone.
func (a address) reveal() string {
	if a.isMail() {
		return a.mailbox.Reveal()
	}
	return a.phone.Reveal()
}

// spelling is what all spellings of one mailbox have in common, as sends are counted: case, what follows a + (RFC 5233), and dots before the @. Most mail servers mind the first two as little as some
// large ones the third, so that somebody who writes an address in a thousand ways would get a thousand times the mails; two people whose addresses differ in nothing else share what one of them
// may have.
func (a address) spelling() string {
	local, domain, _ := strings.Cut(strings.ToLower(a.reveal()), "@")
	mailbox, _, _ := strings.Cut(local, "+")
	if mailbox = strings.ReplaceAll(mailbox, ".", ""); mailbox == "" { // nothing but a tag
		mailbox = local
	}
	return mailbox + "@" + domain
}

// hint is what may be shown; of a mail address nothing.
func (a address) hint() string {
	if a.isMail() {
		return ""
	}
	return a.phone.Hint()
}

func (a address) country() string {
	if a.isMail() {
		return ""
	}
	return a.phone.Country()
}

// mailForm is what is taken for a mail address: letters, digits and dots, in ASCII. What else RFC 5322 allows is hardly ever meant.
var mailForm = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9]$`)

// maxLocal is RFC 5321 section 4.5.3.1.1.
const maxLocal = 64

// read finds an address in what a program gives. It is a phone's unless it has an @.
func read(text string) (a address, p *Problem) {
	if local, domain, found := strings.Cut(text, "@"); found {
		if !mailForm.MatchString(text) || len(local) > maxLocal {
			return a, problem(InvalidNumber).Because("email_malformed")
		}
		var err error
		if a.mailbox, err = mail.ParseAddress(local + "@" + strings.ToLower(domain)); err != nil {
			return a, problem(InvalidNumber).Because("email_malformed")
		}
		return a, nil
	}
	var err error
	switch a.phone, err = sms.ParseNumber(text, ""); {
	case err == nil:
		return a, nil
	case err == sms.ErrNumberLandline: //nolint:errorlint // it is returned bare
		return a, problem(InvalidNumber).Because("landline")
	case err == sms.ErrNumberUnsupported: //nolint:errorlint // likewise
		return a, problem(InvalidNumber).Because("unsupported")
	}
	return a, problem(InvalidNumber)
}

// mails reports whether the caller's tenant has codes sent to mail addresses, and the server can: tests need no mail server.
func (g *Gateway) mails(c *Caller) bool { return c.Tenant.Settings.Email && (g.Mails != nil || c.Test) }
