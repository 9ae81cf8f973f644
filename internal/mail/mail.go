// Package mail carries mails to a mail server.
//
// A mail is written to the outbox, table mails, in the very statement that decides to send it: what was acknowledged is sent, and what was rolled back is
// not. [Outbox] adds that part to the statement of whoever sends. From then on a [Worker] owns it: woken by NOTIFY, it claims what is due with FOR UPDATE
// SKIP LOCKED and a lease, hands it to a [Sender] and settles it afterwards. While the mail server does not take mails they wait, for a day at most, with
// pauses that double; nothing that they tell about is undone.
//
// # What is checked
//
// A mail may be handed over twice, and never more often: once more after an outcome that nobody knows, such as a process that was killed or a connection that
// broke before the answer. Both have the same Message-ID, so that mailboxes show one. What the server refuses for good is not tried again.
// Address, subject and text are sealed while they wait, and erased when the mail is sent or given up. [Address] is one address and nothing else: no display
// name, no second recipient, no line break. Subjects are one line.
//
// # What is not
//
// The package knows neither people nor what their mails say. Bounces that come back later are the mail server's business.
//
// Table: mails.
package mail

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// outboxChannel is what a stored mail notifies its worker on.
const outboxChannel = "watchword_mail"

// Errors of what cannot become a mail.
var (
	// ErrAddress: not one address as user@example.com.
	ErrAddress = errors.New("mail: not an e-mail address")
	// ErrText: no subject or no text, a subject of more than a line, or characters that no text has.
	ErrText = errors.New("mail: not the text of a mail")
)

// maxAddress is RFC 5321 section 4.5.3.1.3.
const maxAddress = 254

// Address is one mailbox. However it is printed or logged, its local part is hidden.
type Address struct{ spec string }

// ParseAddress reads an addr-spec of RFC 5322 section 3.4.1 and nothing else: display names, comments, groups, quoted local parts and address literals are refused.
func ParseAddress(s string) (Address, error) {
	if len(s) > maxAddress || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }) ||
		strings.ContainsAny(s, `<>()[]",;:\`) {
		return Address{}, ErrAddress
	}
	parsed, err := mail.ParseAddress(s)
	if err != nil || parsed.Address != s || parsed.Name != "" {
		return Address{}, ErrAddress
	}
	return Address{s}, nil
}

// Reveal is the address. For the mail server alone.
func (a Address) Reveal() string { return a.spec }

// String hides all of the local part but its first character.
func (a Address) String() string {
	local, domain, found := strings.Cut(a.spec, "@")
	if !found {
		return ""
	}
	first, _ := utf8.DecodeRuneInString(local)
	return string(first) + "••@" + domain
}

// GoString hides as String does.
func (a Address) GoString() string { return "mail.Address(" + a.String() + ")" }

// LogValue hides as String does.
func (a Address) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText hides as String does: an address is not for documents.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Message is a mail to be carried.
type Message struct {
	ID        uuid.UUID // also of its Message-ID
	Challenge uuid.UUID // whose code it carries; uuid.Nil: none
	To        Address
	Purpose   string
	Locale    string // BCP 47, of the text
	Subject   string
	Text      string
	At        time.Time     // its Date; [Outbox] ignores it and takes the time at which the mail is stored
	Life      time.Duration // it is never sent later than this after it was stored; 0: [MaxLife]
}

// MaxLife is how long a mail is tried at most.
const MaxLife = 24 * time.Hour

// check refuses what would not be the mail that was meant.
func (m *Message) check() error {
	control := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	switch {
	case m.To.spec == "":
		return ErrAddress
	case m.Subject == "" || !utf8.ValidString(m.Subject) || strings.ContainsFunc(m.Subject, unicode.IsControl),
		m.Text == "" || !utf8.ValidString(m.Text) || strings.ContainsFunc(m.Text, control):
		return ErrText
	}
	return nil
}

// Keys seal what waits. They live outside the database.
type Keys interface {
	Seal(plain []byte, context string) ([]byte, error)
	Open(sealed []byte, context string) ([]byte, error)
}

// Outbox stores mails. It is safe for concurrent use.
type Outbox struct {
	Keys Keys
	// Wake, when set, is called after a statement that stored a mail with a code has committed: by whoever runs a [Worker] in the same process. Other mails notify.
	Wake func()
}

// body is what is sealed.
type body struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

func sealContext(id uuid.UUID) string { return "mail " + id.String() }

// Enqueue adds part `mail_queued` (column id) to q: m is stored once for each row of part from, and the workers are told.
func (o *Outbox) Enqueue(q *postgres.Query, m Message, from string) error {
	if err := m.check(); err != nil {
		return err
	}
	if m.Life <= 0 || m.Life > MaxLife {
		m.Life = MaxLife
	}
	plain, err := json.Marshal(body{To: m.To.Reveal(), Subject: m.Subject, Text: m.Text})
	if err != nil {
		return err
	}
	sealed, err := o.Keys.Seal(plain, sealContext(m.ID))
	if err != nil {
		return fmt.Errorf("seal mail: %w", err)
	}
	var challenge any
	waking := "pg_notify('" + outboxChannel + "', '')::text"
	if m.Challenge != uuid.Nil {
		if challenge = m.Challenge; o.Wake != nil {
			q.Then(o.Wake)
			waking = "NULL::text"
		}
	}
	q.With("mail_queued", fmt.Sprintf(`
		INSERT INTO mails (id, challenge_id, purpose, locale, body, not_after)
		SELECT %s, %s, %s, %s, %s, wall() + make_interval(secs => %s) FROM %s
		RETURNING id, %s`,
		q.Bind(m.ID)+"::uuid", q.Bind(challenge)+"::uuid", q.Bind(m.Purpose)+"::text", q.Bind(m.Locale)+"::text", q.Bind(sealed)+"::bytea", q.Bind(m.Life.Seconds())+"::float8", from, waking))
	return nil
}

// canceled is the reason of mails that were not sent because nobody needed their code any more.
const canceled = "canceled"

// Cancel adds part `mail_canceled` to q: of the challenges in column challenge_id of part from, whatever has not been handed over never will be, and is erased.
func (o *Outbox) Cancel(q *postgres.Query, from string) {
	q.With("mail_canceled", fmt.Sprintf(`
		UPDATE mails m SET state = 'failed', reason = '%s', body = NULL, lease_until = NULL, updated_at = wall()
		  FROM %s f WHERE m.challenge_id = f.challenge_id AND m.state = 'queued'`, canceled, from))
}

// DeliveriesSQL is an SQL expression of type jsonb for all mails of the challenge that SQL expression challenge names, the oldest first: the id, the state, the class of the failure,
// and when it was stored and changed.
func DeliveriesSQL(challenge string) string {
	return fmt.Sprintf(`(SELECT coalesce(jsonb_agg(jsonb_build_object('id', m.id, 'state', m.state, 'reason', coalesce(m.reason, ''), 'channel', '%s',
		'created_at', m.created_at, 'updated_at', m.updated_at) ORDER BY m.created_at), '[]') FROM mails m WHERE m.challenge_id = %s)`, Channel, challenge)
}

// Channel is what a way by mail is called beside those to a phone.
const Channel = "email"
