package sms

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// outboxChannel is what a stored message notifies its worker on.
const outboxChannel = "watchword_outbox"

// Keys seal what waits. They live outside the database.
type Keys interface {
	Seal(plain []byte, context string) ([]byte, error)
	Open(sealed []byte, context string) ([]byte, error)
	Fingerprint(label, value string) []byte
}

// Outbox stores messages. It is safe for concurrent use.
type Outbox struct {
	Keys Keys
	// Countries that are texted, ISO 3166-1 alpha-2. Nil: all of them.
	Countries map[string]bool
	// Wake, when set, is called after a statement that stored messages has committed: by whoever runs a [Worker] in the same process. Otherwise workers are told by NOTIFY, for which
	// PostgreSQL lets one transaction commit after another: good for commands, and too slow for thousands of programs. A wake that is lost with its process costs a
	// message a second, for every worker looks that often.
	Wake func()
}

// waking is an SQL expression that has workers look once q has committed.
func (o *Outbox) waking(q *postgres.Query) string {
	if o.Wake == nil {
		return "pg_notify('" + outboxChannel + "', '')::text"
	}
	q.Then(o.Wake)
	return "NULL::text"
}

// Message is a text to be carried.
type Message struct {
	ID        uuid.UUID
	Challenge uuid.UUID // whose code it carries; uuid.Nil: none
	To        Number
	Purpose   string
	Locale    string // BCP 47, of the text
	Text      string
	Code      string        // the code in Text, for vendors with templates of their own
	Life      time.Duration // it is never sent later than this after it was stored
	Channels  []Channel     // to be tried, in that order; nil: as routing says
	Sender    string        // sender id; "": the vendor's for the number's country
	Cleared   bool          // the statement has asked [Outbox.Refused], and stores nothing if it is
}

// body is what is sealed.
type body struct {
	To   string `json:"to"`
	Text string `json:"text"`
	Code string `json:"code,omitempty"`

	Channels []Channel `json:"channels,omitempty"`
	Sender   string    `json:"sender,omitempty"`
}

// narrow keeps of a plan what the message may take, in the message's order.
func (b *body) narrow(plan []Route) []Route {
	if len(b.Channels) > 0 {
		plan = slices.DeleteFunc(plan, func(r Route) bool { return !slices.Contains(b.Channels, r.Channel) })
		slices.SortStableFunc(plan, func(x, y Route) int {
			return cmp.Compare(slices.Index(b.Channels, x.Channel), slices.Index(b.Channels, y.Channel))
		})
	}
	for i := range plan {
		if b.Sender != "" {
			plan[i].Sender = b.Sender
		}
	}
	return plan
}

// sealContext binds a body to its challenge, so that a repeat may copy it, or else to its message.
func sealContext(message, challenge uuid.UUID) string {
	if challenge != uuid.Nil {
		return "message of challenge " + challenge.String()
	}
	return "message " + message.String()
}

// Labels of fingerprints.
const (
	numberLabel = "number"
	prefixLabel = "number prefix"
)

// replyPurpose begins the purposes of texts that answer what a phone said: they go out even to a number that has just opted out.
const replyPurpose = "reply_"

// Notice is the purpose of texts that tell people what happened to their accounts. They carry no code.
const Notice = "notice"

// Asked is the purpose of texts that lead to a question of an application's. They carry a link and no code.
const Asked = "asked"

// worded reports whether texts of that purpose say more than a code: whoever makes codes, or has templates for them alone, is not asked to send them.
func worded(purpose string) bool {
	return purpose == Notice || purpose == Asked || purpose == TransactionPurpose || strings.HasPrefix(purpose, replyPurpose)
}

// prefixDigits is how many digits at its end are not part of a number's prefix.
const prefixDigits = 4

func (o *Outbox) prefix(n Number) []byte {
	e164 := n.Reveal()
	return o.Keys.Fingerprint(prefixLabel, e164[:max(0, len(e164)-prefixDigits)])
}

// countryKey is how a country is named in table send_breakers.
func countryKey(expr string) string { return "convert_to(" + expr + ", 'UTF8')" }

// refusal is an SQL expression for the class of a message that no vendor may be asked to send, or NULL: the number has opted out, or a breaker of its
// prefix or country is open.
func refusal(recipient, prefix, country string) string {
	return fmt.Sprintf(`CASE WHEN EXISTS (SELECT FROM opt_outs o WHERE o.recipient = %s AND o.in_at IS NULL) THEN '%s'
		WHEN EXISTS (SELECT FROM send_breakers b WHERE b.scope = 'prefix' AND b.key = %s AND b.until > wall()) OR EXISTS (SELECT FROM send_breakers b WHERE b.scope = 'country' AND b.key = %s AND b.until > wall())
		THEN '%s' END`,
		recipient, RecipientOptedOut, prefix, countryKey(country), BlockedFraud)
}

// refused is an SQL expression for the class of the refusal of a message whose number is given by SQL expressions, or NULL.
func (o *Outbox) refused(to Number, purpose, recipient, prefix, country string) string {
	if strings.HasPrefix(purpose, replyPurpose) {
		return "NULL::text"
	}
	if o.abroad(to) {
		return "'" + string(RegionBlocked) + "'::text"
	}
	return refusal(recipient, prefix, country)
}

// abroad reports whether the number's country is not served.
func (o *Outbox) abroad(to Number) bool { return o.Countries != nil && !o.Countries[to.Country()] }

// Refused is an SQL expression for the class of the refusal that a code to that number would meet now, or NULL: for those who want to know before they store one.
func (o *Outbox) Refused(q *postgres.Query, to Number) string {
	if o.abroad(to) {
		return "'" + string(RegionBlocked) + "'::text"
	}
	return refusal(q.Bind(o.Keys.Fingerprint(numberLabel, to.Reveal()))+"::bytea", q.Bind(o.prefix(to))+"::bytea", q.Bind(to.Country())+"::text")
}

// Enqueue adds part `sms_queued` (columns id and state) to q: m is stored once for each row of part from, and the workers are told. What may not be sent is stored as
// failed, with the reason, and no vendor ever hears of it.
func (o *Outbox) Enqueue(q *postgres.Query, m Message, from string) error {
	plain, err := json.Marshal(body{To: m.To.Reveal(), Text: m.Text, Code: m.Code, Channels: m.Channels, Sender: m.Sender})
	if err != nil {
		return err
	}
	sealed, err := o.Keys.Seal(plain, sealContext(m.ID, m.Challenge))
	if err != nil {
		return fmt.Errorf("seal message: %w", err)
	}
	var challenge any
	if m.Challenge != uuid.Nil {
		challenge = m.Challenge
	}
	recipient, prefix := q.Bind(o.Keys.Fingerprint(numberLabel, m.To.Reveal()))+"::bytea", q.Bind(o.prefix(m.To))+"::bytea"
	country := q.Bind(m.To.Country()) + "::text"
	refused := "NULL::text"
	if !m.Cleared {
		q.With("sms_refused", "SELECT "+o.refused(m.To, m.Purpose, recipient, prefix, country)+" AS refused OFFSET 0") // once, not for each column
		refused = "(SELECT refused FROM sms_refused)"
	}
	q.With("sms_queued", fmt.Sprintf(`
		INSERT INTO messages (id, challenge_id, purpose, locale, recipient, prefix, hint, country, not_after, state, reason, body, channels)
		SELECT %s, %s, %s, %s, %s, %s, %s, %s, wall() + make_interval(secs => %s),
		       CASE WHEN refused IS NULL THEN 'queued' ELSE 'failed' END, refused, CASE WHEN refused IS NULL THEN %s END, %s
		  FROM %s f CROSS JOIN (SELECT %s AS refused) r
		RETURNING id, state, %s`,
		q.Bind(m.ID)+"::uuid", q.Bind(challenge)+"::uuid", q.Bind(m.Purpose)+"::text", q.Bind(m.Locale)+"::text",
		recipient, prefix, q.Bind(m.To.Hint())+"::text", country, q.Bind(m.Life.Seconds())+"::float8", q.Bind(sealed)+"::bytea", bindChannels(q, m.Channels), from, refused, o.waking(q)))
	return nil
}

// Repeat adds part `sms_repeated` (column id) to q: the newest message of the challenge in column challenge_id of each row of part from is
// stored again, with the same text and what is left of its time, unless its text was erased. Channels are those that it may take now; nil: as before.
func (o *Outbox) Repeat(q *postgres.Query, id uuid.UUID, channels []Channel, from string) {
	q.With("sms_repeated", fmt.Sprintf(`
		INSERT INTO messages (id, challenge_id, purpose, locale, recipient, prefix, hint, country, not_after, state, reason, body, channels)
		SELECT %s, m.challenge_id, m.purpose, m.locale, m.recipient, m.prefix, m.hint, m.country, m.not_after,
		       CASE WHEN refused IS NULL THEN 'queued' ELSE 'failed' END, refused, CASE WHEN refused IS NULL THEN m.body END, coalesce(%s, m.channels)
		  FROM %s f JOIN LATERAL (SELECT * FROM messages m WHERE m.challenge_id = f.challenge_id ORDER BY m.created_at DESC LIMIT 1) m
		    ON m.body IS NOT NULL CROSS JOIN LATERAL (SELECT %s AS refused) r
		RETURNING id, %s`, q.Bind(id)+"::uuid", bindChannels(q, channels), from, refusal("m.recipient", "m.prefix", "m.country"), o.waking(q)))
}

func bindChannels(q *postgres.Query, channels []Channel) string {
	var names []string // NULL
	for _, c := range channels {
		names = append(names, string(c))
	}
	return q.Bind(pq.Array(names)) + "::text[]"
}

func channelsOf(names []string) []Channel {
	channels := make([]Channel, len(names))
	for i, name := range names {
		channels[i] = Channel(name)
	}
	return channels
}

// Cancel adds part `sms_canceled_<from>` to q: of the challenges in column challenge_id of part from, whose codes were not used, whatever has not been handed to a
// vendor never will be, and every text is erased.
func (o *Outbox) Cancel(q *postgres.Query, from string) {
	o.cancel(q, from, "m.challenge_id = ANY (ARRAY(SELECT challenge_id FROM "+from+"))", "false")
}

// CancelOne is Cancel for a part that has one row at most. SQL condition verified over row f of from says whether the code was used: vendors may have to be told.
func (o *Outbox) CancelOne(q *postgres.Query, from, verified string) {
	// A text is hardly older than its challenge's code lives. There is no bound on the other side, with which a planner that knows nothing of a new day might take the time for the way to the row.
	o.cancel(q, from, "m.challenge_id = (SELECT challenge_id FROM "+from+") AND m.created_at > wall() - interval '6 hours'", "(SELECT "+verified+" FROM "+from+" f)")
}

// cancel finds rows by values and not by a join, so that no planner reads a day for them.
func (o *Outbox) cancel(q *postgres.Query, from, which, verified string) {
	q.With("sms_canceled_"+from, fmt.Sprintf(`
		UPDATE messages m
		   SET body = NULL, updated_at = CASE WHEN m.state = 'queued' THEN wall() ELSE m.updated_at END, lease_until = NULL, verified = m.verified OR %s,
		       state = CASE WHEN m.state = 'queued' THEN 'canceled' ELSE m.state END
		 WHERE %s AND (m.body IS NOT NULL OR m.state = 'queued')`, verified, which))
}

// DeliverySQL is an SQL expression of type jsonb for what is known of the newest message of the challenge that SQL expression challenge
// names: its state, the class of its failure, the channel that it took and, when the number has opted out, of which sender. NULL when there is none.
func DeliverySQL(challenge string) string {
	return fmt.Sprintf(`(SELECT jsonb_build_object('state', m.state, 'reason', coalesce(m.reason, ''),
		'channel', coalesce((SELECT l.channel FROM legs l WHERE l.message_id = m.id ORDER BY l.created_at DESC LIMIT 1), ''),
		'sender', CASE WHEN m.reason = '%s' THEN coalesce((SELECT o.sender FROM opt_outs o WHERE o.recipient = m.recipient AND o.in_at IS NULL ORDER BY o.out_at DESC LIMIT 1), '') ELSE '' END)
		FROM messages m WHERE m.challenge_id = %s ORDER BY m.created_at DESC LIMIT 1)`, RecipientOptedOut, challenge)
}

// DeliveriesSQL is an SQL expression of type jsonb for all messages of the challenge that SQL expression challenge names, the oldest first: the id, the state, the class of the failure, the
// channel, and when it was stored and changed.
func DeliveriesSQL(challenge string) string {
	return fmt.Sprintf(`(SELECT coalesce(jsonb_agg(jsonb_build_object('id', m.id, 'state', m.state, 'reason', coalesce(m.reason, ''),
		'channel', coalesce((SELECT l.channel FROM legs l WHERE l.message_id = m.id ORDER BY l.created_at DESC LIMIT 1), ''),
		'created_at', m.created_at, 'updated_at', m.updated_at) ORDER BY m.created_at), '[]') FROM messages m WHERE m.challenge_id = %s)`, challenge)
}

// CheckedSQL is an SQL condition: the challenge that SQL expression challenge names has a code that only a vendor can check.
func CheckedSQL(challenge string) string {
	return "message_checked(" + challenge + ")"
}

// Oldest is how long the oldest message that is due has waited; 0 when none is.
func Oldest(ctx context.Context, db *postgres.DB) (time.Duration, error) {
	var age float64
	err := db.GetContext(ctx, &age, `SELECT coalesce(extract(epoch FROM wall() - min(due_at)), 0)::float8 FROM messages WHERE state = 'queued' AND due_at <= wall() AND not_after > wall()`)
	return time.Duration(age * float64(time.Second)), err
}
