package sms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// Checks asks vendors that made a code whether an answer is right. The ledger pays an attempt before it asks; the vendor's own limits are a second fence.
type Checks struct {
	DB      *postgres.DB
	Keys    Keys
	Routing *Routing
}

// Check asks the vendor of the newest session of the challenge. No session is Denied; an error is the vendor's fault or ours and proves nothing.
func (c *Checks) Check(ctx context.Context, challenge uuid.UUID, answer string) (Verdict, error) {
	var newest struct {
		Leg     uuid.UUID `db:"id"`
		Vendor  string    `db:"vendor"`
		Channel Channel   `db:"channel"`
		Session string    `db:"session"`
		Message uuid.UUID `db:"message_id"`
		Body    []byte    `db:"body"`
	}
	q := new(postgres.Query)
	q.Finally(`SELECT l.id, l.vendor, l.channel, l.session, l.message_id, m.body FROM messages m JOIN legs l ON l.message_id = m.id
		WHERE m.challenge_id = ` + q.Bind(challenge) + `::uuid AND l.checks AND l.session IS NOT NULL AND m.body IS NOT NULL ORDER BY l.created_at DESC LIMIT 1`)
	if err := c.DB.Get(ctx, &newest, q); errors.Is(err, postgres.ErrNotFound) {
		return Denied, nil
	} else if err != nil {
		return Denied, fmt.Errorf("find session of challenge: %w", err)
	}
	vendor, _ := c.Routing.Vendor(newest.Vendor)
	checker, ok := vendor.(Checker)
	if !ok {
		return Denied, nil // it is not used any more: a new code has to be asked for
	}
	plain, err := c.Keys.Open(newest.Body, sealContext(newest.Message, challenge))
	if err != nil {
		return Denied, fmt.Errorf("open message: %w", err)
	}
	var b body
	if err := json.Unmarshal(plain, &b); err != nil {
		return Denied, errors.New("message is unreadable")
	}
	to, err := ParseNumber(b.To, "")
	if err != nil {
		return Denied, err
	}
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return checker.Check(limited, Session{Leg: newest.Leg, ID: newest.Session, To: to, Channel: newest.Channel}, answer)
}
