package sms

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// Channel is what a stored message notifies its worker on.
const Channel = "watchword_outbox"

// Keys seal what waits. They live outside the database.
type Keys interface {
	Seal(plain []byte, context string) ([]byte, error)
	Open(sealed []byte, context string) ([]byte, error)
	Fingerprint(label, value string) []byte
}

// Outbox stores messages. It is safe for concurrent use.
type Outbox struct {
	Keys Keys
}

// Message is a text to be carried.
type Message struct {
	ID        uuid.UUID
	Challenge uuid.UUID // whose code it carries; uuid.Nil: none
	To        Number
	Purpose   string
	Locale    string // BCP 47, of the text
	Text      string
	Life      time.Duration // it is never sent later than this after it was stored
}

// body is what is sealed.
type body struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

// sealContext binds a body to its challenge, so that a repeat may copy it, or else to its message.
func sealContext(message, challenge uuid.UUID) string {
	if challenge != uuid.Nil {
		return "message of challenge " + challenge.String()
	}
	return "message " + message.String()
}

// Enqueue adds part `sms_queued` (column id) to q: m is stored once for each row of part from, and the workers are told.
func (o *Outbox) Enqueue(q *postgres.Query, m Message, from string) error {
	plain, err := json.Marshal(body{To: m.To.Reveal(), Text: m.Text})
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
	q.With("sms_queued", fmt.Sprintf(`
		INSERT INTO messages (id, challenge_id, purpose, locale, body, recipient, hint, country, not_after)
		SELECT %s, %s, %s, %s, %s, %s, %s, %s, wall() + make_interval(secs => %s) FROM %s
		RETURNING id, pg_notify('%s', '')::text`,
		q.Bind(m.ID)+"::uuid", q.Bind(challenge)+"::uuid", q.Bind(m.Purpose)+"::text", q.Bind(m.Locale)+"::text", q.Bind(sealed)+"::bytea",
		q.Bind(o.Keys.Fingerprint("number", m.To.Reveal()))+"::bytea", q.Bind(m.To.Hint())+"::text", q.Bind(m.To.Country())+"::text",
		q.Bind(m.Life.Seconds())+"::float8", from, Channel))
	return nil
}

// Repeat adds part `sms_repeated` (column id) to q: the newest message of the challenge in column challenge_id of each row of part from is
// stored again, with the same text and what is left of its time, unless its text was erased.
func (o *Outbox) Repeat(q *postgres.Query, id uuid.UUID, from string) {
	q.With("sms_repeated", fmt.Sprintf(`
		INSERT INTO messages (id, challenge_id, purpose, locale, body, recipient, hint, country, not_after)
		SELECT %s, m.challenge_id, m.purpose, m.locale, m.body, m.recipient, m.hint, m.country, m.not_after
		  FROM %s f JOIN LATERAL (SELECT * FROM messages m WHERE m.challenge_id = f.challenge_id ORDER BY m.created_at DESC LIMIT 1) m
		    ON m.body IS NOT NULL
		RETURNING id, pg_notify('%s', '')::text`, q.Bind(id)+"::uuid", from, Channel))
}

// Cancel adds part `sms_canceled` to q: of the challenges in column challenge_id of part from, whatever has not been handed to a
// vendor never will be, and every text is erased.
func (o *Outbox) Cancel(q *postgres.Query, from string) {
	q.With("sms_canceled", fmt.Sprintf(`
		UPDATE messages m
		   SET body = NULL, updated_at = wall(), lease_until = NULL,
		       state = CASE WHEN m.state = 'queued' THEN 'canceled' ELSE m.state END
		  FROM %s f WHERE m.challenge_id = f.challenge_id AND (m.body IS NOT NULL OR m.state = 'queued')`, from))
}

// DeliverySQL is an SQL expression of type jsonb for what is known of the newest message of the challenge that SQL expression challenge
// names: its state and the class of its failure. NULL when there is none.
func DeliverySQL(challenge string) string {
	return fmt.Sprintf(`(SELECT jsonb_build_object('state', m.state, 'reason', coalesce(m.reason, ''))
		FROM messages m WHERE m.challenge_id = %s ORDER BY m.created_at DESC LIMIT 1)`, challenge)
}
