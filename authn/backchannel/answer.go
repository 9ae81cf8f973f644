package backchannel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Request is a question as pages show it.
type Request struct {
	ID           uuid.UUID
	RelyingParty authn.RelyingParty
	Requirement  authn.Requirement // with Backchannel: the message, and the payment
	Subscriber   uuid.UUID
	State        State
	CreatedAt    time.Time
	ExpiresAt    time.Time
}

// openSQL is an SQL condition on row x: somebody may still answer.
const openSQL = "x.state = 'pending' AND x.expires_at > wall()"

// Open lists what somebody is asked at the moment, the newest first.
func (s *Service) Open(ctx context.Context, subscriber uuid.UUID) ([]*Request, error) {
	q := new(postgres.Query)
	q.Finally("SELECT x.id, x.relying_party, x.requirement, x.subscriber_id, x.state, x.created_at, x.expires_at FROM backchannel_requests x WHERE x.subscriber_id = " +
		q.Bind(subscriber) + "::uuid AND " + openSQL + " ORDER BY x.created_at DESC")
	var rows []struct {
		ID           uuid.UUID `db:"id"`
		RelyingParty []byte    `db:"relying_party"`
		Requirement  []byte    `db:"requirement"`
		Subscriber   uuid.UUID `db:"subscriber_id"`
		State        State     `db:"state"`
		CreatedAt    time.Time `db:"created_at"`
		ExpiresAt    time.Time `db:"expires_at"`
	}
	if err := s.DB.Select(ctx, &rows, q); err != nil {
		return nil, fmt.Errorf("list questions: %w", err)
	}
	all := make([]*Request, len(rows))
	for i, row := range rows {
		all[i] = &Request{ID: row.ID, Subscriber: row.Subscriber, State: row.State, CreatedAt: row.CreatedAt.UTC(), ExpiresAt: row.ExpiresAt.UTC()}
		if err := errors.Join(json.Unmarshal(row.RelyingParty, &all[i].RelyingParty), json.Unmarshal(row.Requirement, &all[i].Requirement)); err != nil {
			return nil, fmt.Errorf("question %s: %w", row.ID, err)
		}
	}
	return all, nil
}

// Begin begins a sign-in that answers the question, as often as it is asked to. Its error is [ErrOver] for a question that is not open.
func (s *Service) Begin(ctx context.Context, id uuid.UUID, cookie authn.Cookie) (*authn.Progress, error) {
	q := new(postgres.Query)
	asked := "SELECT " + authn.StoredColumns + " FROM backchannel_requests x WHERE x.id = " + q.Bind(id) + "::uuid AND " + openSQL
	p, err := s.SignIns.BeginStored(ctx, q, asked, cookie)
	if err == nil && p.SignIn == nil {
		err = ErrOver
	}
	return p, err
}

// Approve adds part `backchannel_decided` to q: the question is answered with yes, for as long as part from has a row with the columns of authn's `sign_in_done`. The part has a row if this
// statement has answered it, or if a transaction has. What the answer rests on is told by proof; of a payment it is the transaction that tells.
func (s *Service) Approve(ctx context.Context, q *postgres.Query, from string, id uuid.UUID, proof transaction.Proof) {
	q.With("backchannel_answered", fmt.Sprintf(`
		UPDATE backchannel_requests x SET state = 'approved', decided_at = wall(), acr = %s, amr = %s, auth_time = %s, notify_at = CASE WHEN x.notify IS NOT NULL THEN wall() END
		  FROM %s f WHERE x.id = %s AND x.subscriber_id = f.subscriber_id AND x.transaction_id IS NULL AND %s
		RETURNING x.id, x.client_id, x.subscriber_id, f.session_id, %s`,
		q.Bind(proof.ACR)+"::text", q.Bind(pq.Array(proof.AMR))+"::text[]", q.Bind(proof.AuthTime)+"::timestamptz", from, q.Bind(id)+"::uuid", openSQL, rung))
	q.With("backchannel_decided", fmt.Sprintf(`
		SELECT id FROM backchannel_answered UNION ALL SELECT x.id FROM backchannel_requests x, %s f WHERE x.id = %s AND x.subscriber_id = f.subscriber_id AND x.transaction_id IS NOT NULL AND x.state = 'approved'`,
		from, q.Bind(id)+"::uuid"))
	audit.Record(ctx, q, "backchannel_answered", audit.Event{Name: "backchannel.answer", Outcome: audit.Success, Actor: "subscriber"},
		audit.Expressions{"subject": "backchannel_answered.subscriber_id", "client_id": "backchannel_answered.client_id", "session_id": "backchannel_answered.session_id", "object": "backchannel_answered.id::text"})
}

// Refuse answers the question with no. One about a payment that is open yet is refused with that. Its error is [ErrOver] if it had ended already.
func (s *Service) Refuse(ctx context.Context, id uuid.UUID, session *authn.Session) error {
	q := new(postgres.Query)
	q.With("backchannel_answered", fmt.Sprintf(`
		UPDATE backchannel_requests x SET state = 'denied', decided_at = wall(), notify_at = CASE WHEN x.notify IS NOT NULL THEN wall() END
		 WHERE x.id = %s AND x.subscriber_id = %s AND x.transaction_id IS NULL AND %s RETURNING x.id, x.client_id, x.subscriber_id, %s`,
		q.Bind(id)+"::uuid", q.Bind(session.Subscriber)+"::uuid", openSQL, rung))
	audit.Record(ctx, q, "backchannel_answered", audit.Event{Name: "backchannel.answer", Outcome: audit.Refused, Reason: "refused", Actor: "subscriber", Session: session.ID},
		audit.Expressions{"subject": "backchannel_answered.subscriber_id", "client_id": "backchannel_answered.client_id", "object": "backchannel_answered.id::text"})
	q.Finally(fmt.Sprintf(`SELECT EXISTS (SELECT FROM backchannel_answered) AS answered, x.client_id, x.transaction_id
		FROM backchannel_requests x WHERE x.id = %s AND x.subscriber_id = %s`, q.Bind(id)+"::uuid", q.Bind(session.Subscriber)+"::uuid"))
	var row struct {
		Answered    bool       `db:"answered"`
		Client      string     `db:"client_id"`
		Transaction *uuid.UUID `db:"transaction_id"`
	}
	switch err := s.DB.Get(ctx, &row, q); {
	case errors.Is(err, postgres.ErrNotFound):
		return ErrOver
	case err != nil:
		return fmt.Errorf("refuse a question: %w", err)
	case row.Answered:
		return nil
	case row.Transaction == nil:
		return ErrOver
	}
	_, err := s.Confirm.Refuse(ctx, row.Client, *row.Transaction, transaction.Outcome{})
	if errors.Is(err, transaction.ErrDecided) {
		err = ErrOver
	}
	return err
}

// rung are SQL expressions that wake who waits for the answer of row x, and tellers if its application wants to be told.
const rung = "pg_notify('" + answers + "', encode(x.hash, 'hex'))::text AS heard, CASE WHEN x.notify IS NOT NULL THEN pg_notify('" + channel + "', '')::text END AS rung"

// Follow is what a transaction.Service calls when transactions end: the questions about them end with them.
func (s *Service) Follow(q *postgres.Query, part string) {
	q.With("backchannel_"+part, fmt.Sprintf(`
		UPDATE backchannel_requests x
		   SET state = CASE f.state WHEN 'approved' THEN 'approved' WHEN 'expired' THEN 'expired' ELSE 'denied' END, decided_at = wall(), notify_at = CASE WHEN x.notify IS NOT NULL THEN wall() END
		  FROM %s f WHERE x.transaction_id = f.id AND x.state = 'pending' AND f.state <> 'pending' RETURNING %s`, part, rung))
}

// Suspend is what a transaction.Service calls when somebody says that they did not ask for a payment: what else they are asked is answered with no. Of payments the transactions tell.
func (s *Service) Suspend(ctx context.Context, q *postgres.Query, part string) {
	q.With("backchannel_suspended", fmt.Sprintf(`
		UPDATE backchannel_requests x SET state = 'denied', decided_at = wall(), notify_at = CASE WHEN x.notify IS NOT NULL THEN wall() END
		  FROM %s f WHERE x.subscriber_id = f.subscriber_id AND x.transaction_id IS NULL AND %s RETURNING x.id, x.client_id, x.subscriber_id, %s`, part, openSQL, rung))
	audit.Record(ctx, q, "backchannel_suspended", audit.Event{Name: "backchannel.answer", Outcome: audit.Refused, Reason: transaction.ReasonSuspended, Actor: audit.System},
		audit.Expressions{"subject": "backchannel_suspended.subscriber_id", "client_id": "backchannel_suspended.client_id", "object": "backchannel_suspended.id::text"})
}

// Expire ends what is over and is about no payment, some at a time, and says how many: call it again until it says 0.
func (s *Service) Expire(ctx context.Context) (int64, error) {
	q := new(postgres.Query)
	q.With("due", "SELECT id FROM backchannel_requests WHERE state = 'pending' AND transaction_id IS NULL AND expires_at <= wall() ORDER BY expires_at LIMIT 500 FOR UPDATE SKIP LOCKED")
	q.With("ended", `UPDATE backchannel_requests x SET state = 'expired', decided_at = wall(), notify_at = CASE WHEN x.notify IS NOT NULL THEN wall() END
		FROM due WHERE x.id = due.id RETURNING `+rung)
	q.Finally("SELECT 1 FROM ended")
	n, err := s.DB.Run(ctx, q)
	if err != nil {
		return 0, fmt.Errorf("expire questions: %w", err)
	}
	return n, nil
}

// Run expires questions every few seconds, until ctx ends. log is told what went wrong.
func (s *Service) Run(ctx context.Context, log func(error)) error {
	return postgres.Sweep(ctx, s.Expire, log)
}

// Polled is what an application learns.
type Polled struct {
	State    State
	Left     time.Duration // of a pending question: its time
	Early    bool          // it asked too early, and has to wait 5 s longer from now on: CIBA Core 1.0 section 11
	Redeemed bool          // the approval was used
	Reason   string        // of a payment that was denied: [transaction.State.Refusal]
	Payload  []byte        // of an approval: as in [Question]
}

// Poll looks at a question of an application, in one round trip. Its error is [ErrUnknown]. spend adds what the request uses up.
//
// What is over is stored as expired before that is told: an answer that began in time may be about to commit. An approval can be used for a minute after the question's time.
func (s *Service) Poll(ctx context.Context, client, secret string, spend func(*postgres.Query)) (*Polled, error) {
	return s.poll(ctx, client, secret, func(q *postgres.Query, hash string) {
		if spend != nil {
			spend(q)
		}
		pause := q.Bind(int(s.Config.Pause.Seconds())) + "::int"
		q.With("paced", fmt.Sprintf(`
			INSERT INTO backchannel_polls AS p (hash, polled_at, pause, early) SELECT %s, wall(), %s, false FROM found WHERE state = 'pending'
			ON CONFLICT (hash) DO UPDATE SET polled_at = wall(), early = %[3]s, pause = p.pause + CASE WHEN %[3]s THEN 5 ELSE 0 END
			RETURNING early`, hash, pause, tooEarly))
	})
}

// Look is [Service.Poll] at the end of a poll that has waited: it is the same one, which has its place in the pace already.
func (s *Service) Look(ctx context.Context, client, secret string) (*Polled, error) {
	return s.poll(ctx, client, secret, func(q *postgres.Query, _ string) { q.With("paced", "SELECT false AS early WHERE false") })
}

func (s *Service) poll(ctx context.Context, client, secret string, pace func(q *postgres.Query, hash string)) (*Polled, error) {
	q := new(postgres.Query)
	hash := q.Bind(hashed(secret)) + "::bytea"
	q.With("found", fmt.Sprintf(`SELECT x.id, x.state, x.state = 'pending' AND x.expires_at <= wall() AS due, x.state = 'approved' AND NOT %s AS late, x.redeemed_at IS NOT NULL AS redeemed, x.transaction_id,
		       extract(epoch FROM x.expires_at - wall())::float8 AS remains, CASE WHEN x.state = 'approved' THEN x.payload END AS payload, `+ended+` AS ended
		FROM backchannel_requests x WHERE x.hash = %s AND x.client_id = %s`, inTime, hash, q.Bind(client)+"::text"))
	pace(q, hash)
	q.Finally("SELECT id, state, due, late, redeemed, transaction_id, remains, payload, ended, coalesce((SELECT early FROM paced), false) AS early FROM found")
	var row struct {
		ID          uuid.UUID         `db:"id"`
		State       State             `db:"state"`
		Due         bool              `db:"due"`
		Late        bool              `db:"late"`
		Redeemed    bool              `db:"redeemed"`
		Early       bool              `db:"early"`
		Transaction *uuid.UUID        `db:"transaction_id"`
		Remains     float64           `db:"remains"` // seconds
		Payload     []byte            `db:"payload"`
		Ended       transaction.State `db:"ended"`
	}
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrUnknown
	} else if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	if row.Due {
		return s.settle(ctx, client, row.ID, row.Transaction)
	}
	if row.Late {
		row.State = Expired
	}
	left := time.Duration(row.Remains * float64(time.Second))
	return &Polled{State: row.State, Left: left, Early: row.Early, Redeemed: row.Redeemed, Reason: row.Ended.Refusal(), Payload: row.Payload}, nil
}

// settle stores that a question is over, unless it has been answered, and says which.
func (s *Service) settle(ctx context.Context, client string, id uuid.UUID, payment *uuid.UUID) (*Polled, error) {
	if payment != nil {
		if _, err := s.Confirm.Get(ctx, client, *payment); err != nil && !errors.Is(err, transaction.ErrUnknown) {
			return nil, err
		}
	}
	q := new(postgres.Query)
	q.With("ended", fmt.Sprintf(`UPDATE backchannel_requests x SET state = 'expired', decided_at = wall(), notify_at = CASE WHEN x.notify IS NOT NULL THEN wall() END
		WHERE x.id = %s AND x.state = 'pending' AND x.expires_at <= wall() RETURNING x.state, %s`, q.Bind(id)+"::uuid", rung))
	q.Finally("SELECT state, NULL::bytea AS payload, '' AS ended FROM ended UNION ALL SELECT x.state, x.payload, " + ended + " FROM backchannel_requests x WHERE x.id = " + q.Bind(id) + "::uuid AND NOT EXISTS (SELECT FROM ended)")
	var row struct {
		State   State             `db:"state"`
		Payload []byte            `db:"payload"`
		Ended   transaction.State `db:"ended"`
	}
	if err := s.DB.Get(ctx, &row, q); err != nil {
		return nil, fmt.Errorf("expire a question: %w", err)
	}
	return &Polled{State: row.State, Reason: row.Ended.Refusal(), Payload: row.Payload}, nil
}

// ended is an SQL expression on row x: how the payment ended that was denied; empty for everything else.
const ended = "CASE WHEN x.state = 'denied' THEN coalesce((SELECT t.state FROM transactions t WHERE t.id = x.transaction_id), '') ELSE '' END"

// inTime is an SQL condition on row x of an approval: it can be used.
const inTime = "(x.expires_at + interval '1 minute' > wall())"

// tooEarly is an SQL condition on row p of backchannel_polls. Half a second is for the way, which no application knows.
const tooEarly = "(wall() < p.polled_at + make_interval(secs => p.pause) - interval '500 milliseconds')"

// Redeem adds part `backchannel_redeemed` to q: an approval is used, once. Its columns are id, subscriber_id, sub, payload, details, transaction_id, acr, amr and auth_time.
func (s *Service) Redeem(q *postgres.Query, client, secret string) {
	q.With("backchannel_redeemed", fmt.Sprintf(`
		UPDATE backchannel_requests x SET redeemed_at = wall() FROM backchannel_requests own LEFT JOIN transactions t ON t.id = own.transaction_id
		 WHERE x.hash = %s AND x.client_id = %s AND own.id = x.id AND x.state = 'approved' AND x.redeemed_at IS NULL AND %s AND (x.transaction_id IS NULL OR t.state = 'approved') AND %s
		RETURNING x.id, x.subscriber_id, (SELECT u.subject FROM subscribers u WHERE u.id = x.subscriber_id) AS sub, x.payload, x.transaction_id,
		          CASE WHEN t.id IS NULL THEN x.acr ELSE t.acr END AS acr, CASE WHEN t.id IS NULL THEN x.amr ELSE t.amr END AS amr, CASE WHEN t.id IS NULL THEN x.auth_time ELSE t.auth_time END AS auth_time`,
		q.Bind(hashed(secret))+"::bytea", q.Bind(client)+"::text", inTime, authn.StandingSQL("x.subscriber_id", "x.created_at")))
}
