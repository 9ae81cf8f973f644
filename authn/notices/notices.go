// Package notices tells people what happened to their accounts, by every way that is known to lead to them: texts to their phones, and a mail.
//
// # How whoever changes something calls it
//
// [Notices.Add] adds one part to the statement that makes the change, so that the change and the news of it commit together or not at all:
//
//	q.With("authenticator_unbound", "UPDATE authenticators … RETURNING id, subject, kind, hint")
//	s.Notices.Add(ctx, q, "authenticator_unbound", notices.Event{Kind: notices.FactorRemoved},
//		notices.Expressions{"about": "authenticator_unbound.kind", "hint": "authenticator_unbound.hint"})
//
// The part that it names has a row for each thing that happened, and no row when nothing did. A part may be named once with each kind.
//
// # Who is told
//
// PostgreSQL runs a statement in one snapshot: told is every phone that was bound, and the verified address that was there, before the change. So a phone that
// is taken off an account is told so, and one that is added is not a witness of its own addition (SP 800-63B-4 section 4.6). Where the new one has to be told as
// well, [Event.AlsoBound] and [Event.AlsoProfile] name the parts that have it.
//
// # What is told
//
// Neither a secret nor a link, nor anything that asks for either: whoever knows these texts recognises a forged one. Each says how to object. What it is called in
// a language is in the catalogues; where a kind has a text of its own for a factor (factor_added_totp), that one is used, so that a new factor needs a text at
// most.
//
// # How it arrives
//
// Table notices has a row for each way, with the number or the profile as it was, sealed as its owner had sealed it. A [Worker] words each row in the language of the
// person and hands it to the outbox of texts or of mails, in the statement that marks the row: once, whoever else tries. What follows is theirs; mail servers
// and vendors that are down keep it waiting, and nothing that it tells about is undone.
//
// Table: notices. It reads subscribers and authenticators.
package notices

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Kind is what happened. It is stored, and the id of its texts.
type Kind string

// Kinds. «About» and «hint» are the factor's kind and what its owner may be shown of it.
const (
	FactorAdded         Kind = "factor_added"      // about, hint
	FactorRemoved       Kind = "factor_removed"    // about, hint
	FactorRenamed       Kind = "factor_renamed"    // about, hint
	PhoneChanged        Kind = "phone_changed"     // hint of the new one; AlsoBound
	EmailChanged        Kind = "email_changed"     // AlsoProfile
	PasswordChanged     Kind = "password_changed"  //
	RecoveryStarted     Kind = "recovery_started"  // until: when it can be finished
	RecoveryFinished    Kind = "recovery_finished" //
	RecoveryCanceled    Kind = "recovery_canceled" //
	BackupCodesMade     Kind = "backup_codes_made" //
	BackupCodeUsed      Kind = "backup_code_used"  // hint: how many are left
	BrowserRemembered   Kind = "browser_remembered"
	SessionsEnded       Kind = "sessions_ended"
	FactorBlocked       Kind = "factor_blocked" // until
	FactorWarning       Kind = "factor_warning" // the block for good is near
	FactorClosed        Kind = "factor_closed"  // blocked for good
	PasswordBlocked     Kind = "password_blocked"
	PasswordWarning     Kind = "password_warning"
	PasswordClosed      Kind = "password_closed"
	SignInAfterFailures Kind = "sign_in_after_failures"
	TextsStopped        Kind = "texts_stopped" // hint of the number
)

// Kinds lists them all.
func Kinds() []Kind {
	return []Kind{
		FactorAdded, FactorRemoved, FactorRenamed, PhoneChanged, EmailChanged, PasswordChanged, RecoveryStarted, RecoveryFinished, RecoveryCanceled, BackupCodesMade, BackupCodeUsed,
		BrowserRemembered, SessionsEnded, FactorBlocked, FactorWarning, FactorClosed, PasswordBlocked, PasswordWarning, PasswordClosed, SignInAfterFailures, TextsStopped,
	}
}

// Channels.
const (
	text = "text"
	mail = "mail"
)

// Event is something that people are told.
type Event struct {
	Kind Kind
	// Operator says that the people who run this did it.
	Operator bool
	// MailOnly spares the phones: for what a stranger can cause, who must not be able to make us text somebody, and for what is about texts.
	MailOnly bool
	// AlsoBound is a part with columns id, kind and data of authenticators that this very statement binds: they are told too.
	AlsoBound string
	// AlsoProfile is a part with column profile, as this very statement stores it: the address in it is told too.
	AlsoProfile string
}

// Expressions give what only the statement knows, as SQL over the part that is told about: "subject" (uuid; default: column subject), "kind", "about", "hint" (text) and
// "until" (timestamptz).
type Expressions map[string]string

// Notices writes down what is to be told. Nil tells nobody anything. It is safe for concurrent use.
type Notices struct {
	// Texted are the kinds of authenticators whose holders can be texted.
	Texted []string
	// Mails says that there is a mail server.
	Mails bool
}

// channel is what a stored notice notifies its worker on.
const channel = "watchword_notices"

// Add adds part `noticed_<kind>` to q: for each row of part, its subject is told by every way.
func (n *Notices) Add(ctx context.Context, q *postgres.Query, part string, e Event, over Expressions) {
	if n == nil {
		return
	}
	ways := ""
	add := func(format string, args ...any) {
		if ways != "" {
			ways += " UNION ALL "
		}
		ways += fmt.Sprintf(format, args...)
	}
	if len(n.Texted) > 0 && !e.MailOnly {
		kinds := q.Bind(pq.Array(n.Texted)) + "::text[]"
		add("SELECT '%s' AS channel, a.id, a.kind, a.data AS reach FROM authenticators a WHERE a.subject = e.subject AND a.unbound_at IS NULL AND a.kind = ANY(%s)", text, kinds)
		if e.AlsoBound != "" {
			add("SELECT '%s', b.id, b.kind, b.data FROM %s b WHERE b.kind = ANY(%s)", text, e.AlsoBound, kinds)
		}
	}
	if n.Mails {
		add("SELECT '%s' AS channel, NULL::uuid AS id, NULL::text AS kind, u.profile AS reach FROM subscribers u WHERE u.id = e.subject", mail)
		if e.AlsoProfile != "" {
			add("SELECT '%s', NULL::uuid, NULL::text, p.profile FROM %s p", mail, e.AlsoProfile)
		}
	}
	if ways == "" {
		return
	}
	value := func(name, otherwise string) string {
		if expression, ok := over[name]; ok {
			return expression
		}
		return otherwise
	}
	kind, known := over["kind"]
	if !known { // what is bound has to be used
		kind = q.Bind(string(e.Kind)) + "::text"
	}
	q.With("noticed_"+string(e.Kind), fmt.Sprintf(`
		INSERT INTO notices (event_id, subscriber_id, kind, channel, authenticator_id, factor, reach, operator, source, about, hint, until)
		SELECT e.event_id, e.subject, e.kind, w.channel, w.id, w.kind, w.reach, %s, %s, e.about, e.hint, CASE WHEN isfinite(e.until) THEN e.until END
		  FROM (SELECT gen_random_uuid() AS event_id, %s AS subject, %s AS kind, %s AS about, %s AS hint, %s AS until FROM %s) e
		 CROSS JOIN LATERAL (%s) w
		RETURNING pg_notify('%s', '')::text`,
		q.Bind(e.Operator)+"::bool", q.Bind(coarse(audit.From(ctx).Source))+"::text",
		value("subject", part+".subject"), kind, value("about", "''"), value("hint", "''"), value("until", "NULL::timestamptz"), part,
		ways, channel))
}

// Warn tells of failures in a row: part from has columns subject, stage (as of limits.Streak.Stage) and until. It is what the ledger of challenges asks for.
func (n *Notices) Warn(ctx context.Context, q *postgres.Query, from string) {
	n.Add(ctx, q, from, Event{Kind: FactorBlocked}, Expressions{"kind": "'factor_' || " + from + ".stage", "until": from + ".until"})
}

// WarnPassword is Warn for passwords. Whoever knows a name can give wrong ones, so that phones are left alone.
func (n *Notices) WarnPassword(ctx context.Context, q *postgres.Query, from string) {
	n.Add(ctx, q, from, Event{Kind: PasswordBlocked, MailOnly: true}, Expressions{"kind": "'password_' || " + from + ".stage", "until": from + ".until"})
}

// coarse is the network that an address is in: enough for its owner to know it again.
func coarse(address netip.Addr) string {
	if !address.IsValid() {
		return ""
	}
	address = address.Unmap().WithZone("")
	bits := 24
	if address.Is6() {
		bits = 48
	}
	network, err := address.Prefix(bits)
	if err != nil {
		return ""
	}
	return network.String()
}
