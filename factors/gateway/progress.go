package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Events that tenants are told of. Test mode has none.
const (
	EventSent        = string(events.VerificationSent)        // a vendor, or the mail server, has taken a text of it
	EventDelivered   = string(events.VerificationDelivered)   // a text has arrived
	EventUndelivered = string(events.VerificationUndelivered) // a text will not arrive: no way is left
	EventApproved    = string(events.VerificationApproved)
	EventExpired     = string(events.VerificationExpired)
	EventFailed      = string(events.VerificationFailed) // that was the last wrong code
	EventCanceled    = "verification.canceled"           // by the tenant itself
)

// Events lists them.
func Events() []string {
	return []string{EventSent, EventDelivered, EventUndelivered, EventApproved, EventExpired, EventFailed, EventCanceled}
}

// happened tells of what part from brings about: it has the challenges in column id, and event, reason and channel are SQL expressions over it.
func (g *Gateway) happened(ctx context.Context, q *postgres.Query, from, id, event, reason, channel string) {
	g.happenedTo(ctx, q, from, "LATERAL (SELECT * FROM verifications v WHERE v.id = "+id+" LIMIT 1) v", "(SELECT t.name FROM tenants t WHERE t.id = v.tenant_id)", event, reason, channel)
}

// happenedTo is happened where the statement has the verification already, which is v of the FROM clause, and knows whose it is.
func (g *Gateway) happenedTo(ctx context.Context, q *postgres.Query, from, of, tenant, event, reason, channel string) {
	if g.Happened == nil {
		return
	}
	part := "happened_" + from
	q.With(part, fmt.Sprintf(`
		SELECT v.id, %s AS public_id, %s AS tenant, v.client_ref, nullif(v.hint, '') AS hint, %s AS event, nullif(%s, '') AS reason, nullif(%s, '') AS channel
		  FROM %s CROSS JOIN %s WHERE NOT v.test`,
		writeIDSQL(verificationPrefix, "v.id"), tenant, event, reason, channel, from, of))
	g.Happened(ctx, q, part)
}

// Became tells tenants what became of their texts: it is for [sms.Worker], [sms.Desk] and the worker of mails, of which it adds to the statements. Texts of others are none of its business.
func (g *Gateway) Became(ctx context.Context, q *postgres.Query, from string) {
	if g.Happened == nil {
		return
	}
	q.With("programs_"+from, fmt.Sprintf("SELECT * FROM %s WHERE purpose IN ('%s', '%s') AND reason <> 'canceled'", from, factors.Gateway, sms.TransactionPurpose))
	from = "programs_" + from
	g.happened(ctx, q, from, from+".challenge_id", fmt.Sprintf("CASE %s.state WHEN 'sent' THEN '%s' WHEN 'delivered' THEN '%s' ELSE '%s' END", from, EventSent, EventDelivered, EventUndelivered),
		from+".reason", from+".channel")
}

// Bounds of what time brings.
const (
	tidyEvery = time.Second
	tidyBatch = 200
	turnLease = 10 * time.Second // whoever takes a verification's turn and dies leaves it to others after that
)

// Tidy does what time brings: it notices what has expired, and has the next channel tried where a text has not arrived in time. Any number of processes may do so.
func (g *Gateway) Tidy(ctx context.Context) error {
	return errors.Join(g.expire(ctx), g.turns(ctx))
}

// expire marks verifications whose time has passed, and tells of each once.
func (g *Gateway) expire(ctx context.Context) error {
	for {
		q := new(postgres.Query)
		factors.Expire(q, factors.Gateway, tidyBatch)
		g.happened(ctx, q, "challenge_expired", "challenge_expired.challenge_id", "'"+EventExpired+"'", "''", "''")
		q.Finally("SELECT 1 FROM challenge_expired")
		n, err := g.DB.Run(ctx, q)
		if err != nil {
			return fmt.Errorf("expire verifications: %w", err)
		}
		if n < tidyBatch {
			return nil
		}
	}
}

// turn is a verification whose text has not arrived within its channel's time, as far as its row tells.
type turn struct {
	ID        uuid.UUID       `db:"id"`
	CreatedAt time.Time       `db:"created_at"`
	Claimed   time.Time       `db:"claimed"` // the time until which it is this process's
	TenantID  uuid.UUID       `db:"tenant_id"`
	Tenant    string          `db:"name"`
	Settings  []byte          `db:"settings"`
	Number    []byte          `db:"number"`
	Recipient []byte          `db:"recipient"`
	Request   []byte          `db:"request"`
	Payment   []byte          `db:"payment"`
	Over      bool            `db:"over"` // ended, arrived, failed by every way there was or for good, or the tenant is kept out
	Tried     pq.StringArray  `db:"tried"`
	Ages      pq.Float64Array `db:"ages"` // seconds since each of Tried was begun
}

// turns has the next of the named channels tried for each verification whose time on the one before is over.
func (g *Gateway) turns(ctx context.Context) error {
	for {
		n, err := g.someTurns(ctx)
		if err != nil || n < tidyBatch {
			return err
		}
	}
}

// someTurns is [Gateway.turns] for as many as are taken at once; it says how many those were.
func (g *Gateway) someTurns(ctx context.Context) (int, error) {
	q := new(postgres.Query)
	q.With("due", fmt.Sprintf(`
		SELECT id, created_at FROM verifications WHERE next_at <= wall() AND created_at > wall() - interval '1 day' ORDER BY next_at LIMIT %s FOR UPDATE SKIP LOCKED`, q.Bind(tidyBatch)+"::int"))
	q.With("taken", fmt.Sprintf(`
		UPDATE verifications v SET next_at = wall() + make_interval(secs => %s) FROM due d WHERE v.id = d.id AND v.created_at = d.created_at RETURNING v.*`, q.Bind(turnLease.Seconds())+"::float8"))
	q.Finally(`
		SELECT t.id, t.created_at, t.next_at AS claimed, t.tenant_id, coalesce(n.name, '') AS name, coalesce(n.settings, '{}') AS settings, t.number, t.recipient, t.request, t.payment,
		       n.id IS NULL OR n.disabled_at IS NOT NULL OR c.id IS NULL OR c.ended_at IS NOT NULL OR c.expires_at <= wall()
		           OR EXISTS (SELECT FROM messages m WHERE m.challenge_id = t.id AND m.state = 'delivered')
		           OR (SELECT m.state NOT IN ('queued', 'sent') FROM messages m WHERE m.challenge_id = t.id ORDER BY m.created_at DESC LIMIT 1) IS NOT FALSE AS over, w.tried, w.ages
		  FROM taken t LEFT JOIN tenants n ON n.id = t.tenant_id
		  LEFT JOIN LATERAL (SELECT * FROM challenges c WHERE c.id = t.id LIMIT 1) c ON true
		 CROSS JOIN LATERAL (
		       SELECT coalesce(array_agg(channel), '{}') AS tried, coalesce(array_agg(age), '{}') AS ages FROM (
		              SELECT coalesce(l.channel, m.channels[1]) AS channel, extract(epoch FROM wall() - coalesce(l.created_at, m.created_at))::float8 AS age
		                FROM messages m LEFT JOIN legs l ON l.message_id = m.id WHERE m.challenge_id = t.id) x) w`)
	var due []*turn
	if err := g.DB.Select(ctx, &due, q); err != nil {
		return 0, fmt.Errorf("look for channels whose turn it is: %w", err)
	}
	var problems []error
	for _, t := range due {
		problems = append(problems, g.turn(ctx, t))
	}
	return len(due), errors.Join(problems...)
}

// turn decides for one verification, and does it: whoever has the turn by the time of the statement, and nobody else.
func (g *Gateway) turn(ctx context.Context, t *turn) error {
	var a asked
	if err := json.Unmarshal(t.Request, &a); err != nil {
		return fmt.Errorf("request of verification %s: %w", t.ID, err)
	}
	if t.Over {
		return g.settleTurn(ctx, t, 0)
	}
	at, age := -1, 0.0 // the last of the named channels that was tried, and how long ago
	for i, channel := range t.Tried {
		switch position := slices.Index(a.Channels, channel); {
		case position > at:
			at, age = position, t.Ages[i]
		case position == at && position >= 0:
			age = min(age, t.Ages[i])
		}
	}
	timeout := a.timeout(max(at, 0))
	if left := timeout - time.Duration(age*float64(time.Second)); timeout == 0 || left > 0 { // a failure has led there before: its own time counts
		return g.settleTurn(ctx, t, max(left, 0))
	}
	number, err := g.Keys.Open(t.Number, sealContext(t.ID))
	if err != nil {
		return err
	}
	to, err := sms.ParseNumber(string(number), "")
	if err != nil {
		return fmt.Errorf("number of verification %s: %w", t.ID, err)
	}
	plan, _, _ := g.Ways.Plan(to, (&order{payment: t.Payment}).messagePurpose())
	next := max(at, 0) + 1
	for next < len(a.Channels) && !slices.ContainsFunc(plan, func(r sms.Route) bool { return string(r.Channel) == a.Channels[next] }) {
		next++ // no vendor has it for that country
	}
	if next >= len(a.Channels) {
		return g.settleTurn(ctx, t, 0)
	}
	c := &Caller{Tenant: &Tenant{ID: t.TenantID, Name: t.Tenant}}
	if err := json.Unmarshal(t.Settings, &c.Tenant.Settings); err != nil {
		return fmt.Errorf("settings of tenant %s: %w", t.Tenant, err)
	}
	l, err := g.ledger(c, t.Recipient)
	if err != nil {
		return err
	}
	l.Guard = nil                           // nobody asks: the tenant was looked at
	l.Limits.Further = l.Limits.Further[1:] // as for a resend
	var channels []sms.Channel
	for _, name := range a.Channels[next:] {
		channels = append(channels, sms.Channel(name))
	}
	q := new(postgres.Query)
	q.With("turn", fmt.Sprintf(`
		SELECT v.id, v.created_at FROM verifications v WHERE v.id = %s AND v.created_at = %s AND v.next_at = %s
		   AND NOT EXISTS (SELECT FROM messages m WHERE m.challenge_id = v.id AND m.state = 'delivered') FOR UPDATE OF v SKIP LOCKED`,
		q.Bind(t.ID)+"::uuid", q.Bind(t.CreatedAt)+"::timestamptz", q.Bind(t.Claimed)+"::timestamptz"))
	l.Again(ctx, q, "turn", t.ID, factors.Binding{Purpose: factors.Gateway, Owner: t.TenantID, Context: t.Payment}, to, channels)
	following := a.timeout(next)
	if next == len(a.Channels)-1 {
		following = 0
	}
	// Where there is no room it goes out when there is, if that is while the code is good; the pause between two texts counts too.
	q.With("turned", fmt.Sprintf(`
		UPDATE verifications v SET next_at = CASE WHEN EXISTS (SELECT FROM challenge_resent) THEN CASE WHEN %[1]s > 0 THEN wall() + make_interval(secs => %[1]s) END
		       ELSE (SELECT r.at FROM (SELECT coalesce(CASE WHEN l.next_send_at > wall() THEN l.next_send_at END, (SELECT retry_at FROM limit_taken)) AS at, l.expires_at FROM challenge_live l) r WHERE r.at < r.expires_at) END
		  FROM turn t WHERE v.id = t.id AND v.created_at = t.created_at`, q.Bind(following.Seconds())+"::float8"))
	q.Finally("SELECT 1 FROM challenge_resent")
	if _, err := g.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("try another channel: %w", err)
	}
	return nil
}

// settleTurn has a verification looked at again later; 0: never.
func (g *Gateway) settleTurn(ctx context.Context, t *turn, later time.Duration) error {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf("UPDATE verifications SET next_at = CASE WHEN %[1]s > 0 THEN wall() + make_interval(secs => %[1]s) END WHERE id = %[2]s AND created_at = %[3]s AND next_at = %[4]s",
		q.Bind(later.Seconds())+"::float8", q.Bind(t.ID)+"::uuid", q.Bind(t.CreatedAt)+"::timestamptz", q.Bind(t.Claimed)+"::timestamptz"))
	if _, err := g.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("end turn: %w", err)
	}
	return nil
}
