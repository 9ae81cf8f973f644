package audit

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"time"

	"github.com/google/uuid"
)

// Entry is a stored record.
type Entry struct {
	ID        uuid.UUID        `db:"id"`
	At        time.Time        `db:"at"`
	Event     string           `db:"event"`
	Outcome   string           `db:"outcome"`
	Reason    string           `db:"reason"`
	Actor     string           `db:"actor"`
	Subject   uuid.NullUUID    `db:"subject"`
	Client    sql.Null[string] `db:"client_id"`
	Session   uuid.NullUUID    `db:"session_id"`
	Object    string           `db:"object"`
	Source    string           `db:"source"`
	RequestID string           `db:"request_id"`
}

// columns are those of [Entry], in its order.
const columns = "e.id, e.at, e.event, e.outcome, e.reason, e.actor, e.subject, e.client_id, e.session_id, e.object, e.source, e.request_id"

// into are the places that a row with columns is scanned into.
func (e *Entry) into() []any {
	return []any{&e.ID, &e.At, &e.Event, &e.Outcome, &e.Reason, &e.Actor, &e.Subject, &e.Client, &e.Session, &e.Object, &e.Source, &e.RequestID}
}

// Hash is a SHA-256 value. It prints as hexadecimal digits.
type Hash []byte

// String implements fmt.Stringer.
func (h Hash) String() string { return hex.EncodeToString(h) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	sum, err := hex.DecodeString(string(text))
	if err != nil || len(sum) != sha256.Size {
		return errors.New("audit: not a SHA-256 value in hexadecimal digits")
	}
	*h = sum
	return nil
}

// timeFormat is RFC 3339 in UTC with microseconds, which is what the database keeps.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// Canonical is the record as it is hashed: JSON in the canonical form of RFC 8785, every column a member, NULL where there is nothing.
func (e *Entry) Canonical() []byte {
	return append(e.members(append(make([]byte, 0, 512), '{'), quote), '}')
}

// Digest is SHA-256 of the canonical form.
func (e *Entry) Digest() Hash {
	sum := sha256.Sum256(e.Canonical())
	return sum[:]
}

// members appends the columns as members of an object, in the order of RFC 8785 section 3.2.3.
func (e *Entry) members(b []byte, quote func([]byte, string) []byte) []byte {
	text := func(name, value string) {
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, '"', ':')
		b = quote(b, value)
		b = append(b, ',')
	}
	null := func(name string) {
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, `":null,`...)
	}
	id := func(name string, value uuid.NullUUID) {
		if !value.Valid {
			null(name)
			return
		}
		text(name, value.UUID.String())
	}
	text("actor", e.Actor)
	text("at", e.At.UTC().Format(timeFormat))
	if e.Client.Valid {
		text("client_id", e.Client.V)
	} else {
		null("client_id")
	}
	text("event", e.Event)
	text("id", e.ID.String())
	text("object", e.Object)
	text("outcome", e.Outcome)
	text("reason", e.Reason)
	text("request_id", e.RequestID)
	id("session_id", e.Session)
	text("source", e.Source)
	id("subject", e.Subject)
	return b[:len(b)-1]
}

const digits = "0123456789abcdef"

// quote appends s as a JSON string with the escapes of RFC 8785 section 3.2.2.2 and no others.
func quote(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\t':
			b = append(b, '\\', 't')
		case '\n':
			b = append(b, '\\', 'n')
		case '\f':
			b = append(b, '\\', 'f')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&0xf])
		}
	}
	return append(append(b, s[from:]...), '"')
}
