package transaction

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
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Proof is what a browser's session had proved before the code.
type Proof struct {
	ACR      string
	AMR      []string
	AuthTime time.Time // of the oldest event that it rests on
}

// Answer is an attempt to approve.
type Answer struct {
	Code string
	// Repeat says what the code is for, as whoever collected it showed it. Nil: a page of ours collected it, which shows the record itself. [DoorREST] needs one.
	Repeat *Repeat
	// Holder is as in [Request].
	Holder uuid.UUID
	// Door, when set, is the only one whose transactions may be answered: others are unknown.
	Door string
	// Before is what the session had proved. Nil: the approval rests on the code alone.
	Before *Proof
	// Page is what our page showed. Nil: it was the application's.
	Page *Shown
	// Able, when set, gives an SQL condition on what the approval is for, adding the parts that it needs: the code is spent and nothing is approved where it is not met, as when the
	// application could not be answered any more.
	Able func(q *postgres.Query) string
	// Along, when set, adds what the door changes in the statement of the approval: parts that select from part approved, which has one row (columns id, challenge_id, subscriber_id,
	// client_id, decided_at, acr, amr, auth_time) if and only if it is approved.
	Along func(q *postgres.Query, approved string)
}

// Approve tries a code, in two round trips: one reads the record, one pays, compares, consumes and approves. The transaction is approved if and only if the error is nil; it then has its
// Result. Otherwise the transaction says how it stands, and the error is [ErrUnknown], [ErrRepeat], [ErrMismatch], [ErrDecided], [ErrOver], factors.ErrMismatch for a wrong code, a
// factors.BlockedError, or about what was typed.
//
// What is repeated is compared first, so that its answer says nothing of the code.
func (s *Service) Approve(ctx context.Context, client string, id uuid.UUID, a Answer) (*Transaction, error) {
	t, err := s.Get(ctx, client, id)
	switch {
	case err != nil:
		return nil, err
	case a.Door != "" && a.Door != t.Door:
		return nil, ErrUnknown
	case t.State != Pending:
		return t, ErrDecided
	case a.Repeat == nil && t.Door == DoorREST:
		return t, ErrRepeat
	case a.Repeat != nil && !t.says(a.Repeat):
		if t, err = s.end(ctx, client, id, ending{state: Failed, reason: ReasonChanged, name: "transaction.approve", outcome: audit.Refused, actor: "client"}, Outcome{}); err == nil {
			err = ErrMismatch
		}
		return t, err
	case t.Challenge == nil:
		return t, ErrOver
	}
	factor, ok := s.Ledger.Factor(t.authenticator.Kind)
	if !ok || !factors.Serves(factor, factors.Transaction) {
		return t, ErrOver
	}
	code, err := factor.Parse(a.Code)
	if err != nil {
		return t, err
	}
	var page []byte
	if page, err = s.sealPage(id, a.Page); err != nil {
		return nil, err
	}
	acr, amr := s.Config.ACR, slices.Clone(factor.AMR())
	var since *time.Time
	if a.Before != nil {
		acr, since = a.Before.ACR, &a.Before.AuthTime
		amr = append(slices.DeleteFunc(slices.Clone(a.Before.AMR), func(m string) bool { return m == "mfa" || slices.Contains(factor.AMR(), m) }), amr...)
		if slices.Contains(a.Before.AMR, "pwd") {
			amr = append(amr, "mfa") // two kinds: something known, something had
		}
	}
	returned, err := s.Ledger.Answer(ctx, t.Challenge.ID, t.authenticator, t.binding(a.Holder), code, func(q *postgres.Query, _ string) string {
		able := standing()
		if a.Able != nil {
			able += " AND " + a.Able(q)
		}
		q.With("transaction_decided", fmt.Sprintf(`
			UPDATE transactions t
			   SET state = CASE WHEN c.won THEN 'approved' ELSE 'failed' END, reason = CASE WHEN c.won THEN '' ELSE '%s' END, decided_at = wall(), decision = %s,
			       acr = CASE WHEN c.won THEN %s END, amr = CASE WHEN c.won THEN %s END, auth_time = CASE WHEN c.won THEN coalesce(%s, wall()) END
			  FROM challenge_closed c
			 WHERE t.id = %s AND t.client_id = %s AND t.challenge_id = c.challenge_id AND t.state = 'pending' AND t.expires_at > wall() AND (NOT c.won OR %s)
			RETURNING t.id, t.client_id, t.subscriber_id, t.challenge_id, t.state, t.reason, t.decided_at, t.acr, t.amr, t.auth_time`,
			ReasonAttempts, q.Bind(page)+"::bytea", q.Bind(acr)+"::text", q.Bind(pq.Array(amr))+"::text[]", q.Bind(since)+"::timestamptz", q.Bind(id)+"::uuid", q.Bind(client)+"::text", able))
		audit.Record(ctx, q, "transaction_decided", audit.Event{Name: "transaction.approve", Actor: "subscriber", Subject: t.Subscriber, Client: client, Session: a.Holder, Object: PublicID(id)},
			audit.Expressions{"outcome": "CASE WHEN transaction_decided.state = 'approved' THEN 'success' ELSE 'refused' END", "reason": "transaction_decided.reason"})
		events.Add(q, "transaction_decided", events.Event{}, events.Expressions{
			Type:  fmt.Sprintf("CASE WHEN transaction_decided.state = 'approved' THEN '%s' ELSE '%s' END", events.TransactionApproved, events.TransactionRefused),
			Owner: events.ClientSQL("transaction_decided.client_id"), ID: publicSQL("transaction_decided"), Status: "transaction_decided.state", Reason: "nullif(transaction_decided.reason, '')",
		})
		s.follow(q, "transaction_decided")
		q.With("transaction_approved", "SELECT * FROM transaction_decided WHERE state = 'approved'")
		if a.Along != nil {
			a.Along(q, "transaction_approved")
		}
		return "(SELECT to_jsonb(d) FROM transaction_approved d)"
	})
	blocked := new(factors.BlockedError)
	switch {
	case err == nil && len(returned) > 0:
		return s.approved(t, returned, a.Page)
	case err == nil, errors.Is(err, factors.ErrOver): // nothing to be had: decided at this very moment, or no code is good any more
		if t, err = s.Get(ctx, client, id); err != nil {
			return nil, err
		}
		if t.State != Pending {
			return t, ErrDecided
		}
		return t, ErrOver
	case errors.Is(err, factors.ErrMismatch):
		now, read := s.Get(ctx, client, id)
		return now, errors.Join(factors.ErrMismatch, read)
	case errors.As(err, &blocked):
		return t, blocked
	}
	return nil, err
}

// approved is t after its approval, with the signed result.
func (s *Service) approved(t *Transaction, returned json.RawMessage, page *Shown) (*Transaction, error) {
	var got struct {
		DecidedAt time.Time `json:"decided_at"`
		ACR       string    `json:"acr"`
		AMR       []string  `json:"amr"`
		AuthTime  time.Time `json:"auth_time"`
	}
	if err := json.Unmarshal(returned, &got); err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	t.State, t.Reason, t.DecidedAt, t.ACR, t.AMR, t.AuthTime = Approved, "", got.DecidedAt.UTC(), got.ACR, got.AMR, got.AuthTime.UTC()
	if page != nil {
		t.Shown = append(t.Shown, *page)
	}
	var err error
	t.Result, err = s.Result(t)
	return t, err
}

func (s *Service) sealPage(id uuid.UUID, page *Shown) ([]byte, error) {
	if page == nil {
		return nil, nil
	}
	plain, err := json.Marshal(page)
	if err != nil {
		return nil, err
	}
	return s.Keys.Seal(plain, decisionContext(id))
}

// Outcome is how a transaction ends without an approval.
type Outcome struct {
	// Holder, of pages, is the session that says so.
	Holder uuid.UUID
	// Page is what our page showed. Nil: none did.
	Page *Shown
	// Along is as in [Answer]: what the door changes in the same statement, such as the end of a session. Part ended has one row if this call has ended it, or, after [Service.Report],
	// is the first that reports it.
	Along func(q *postgres.Query, ended string)
}

// Refuse says that the person does not want it. Its code is worth nothing from then on. Its errors are [ErrUnknown] and [ErrDecided] with the transaction.
func (s *Service) Refuse(ctx context.Context, client string, id uuid.UUID, o Outcome) (*Transaction, error) {
	return s.end(ctx, client, id, ending{state: Refused, name: "transaction.refuse", outcome: audit.Success, actor: "subscriber"}, o)
}

// Cancel takes a transaction back that the application does not want any more. Its errors are those of [Service.Refuse].
func (s *Service) Cancel(ctx context.Context, client string, id uuid.UUID) (*Transaction, error) {
	return s.end(ctx, client, id, ending{state: Canceled, reason: ReasonClient, name: "transaction.cancel", outcome: audit.Success, actor: "client"}, Outcome{})
}

// ending is one way in which it ends.
type ending struct {
	state                        State
	reason, name, outcome, actor string
}

// target adds what every ending begins with: part transaction_target, and the challenges that are to end, locked before the transactions, as an answer locks them. which says in SQL, of
// challenge c and target t, which those are.
func target(q *postgres.Query, client string, id uuid.UUID, which string) {
	q.With("transaction_target", fmt.Sprintf("SELECT t.id, t.challenge_id, t.subscriber_id FROM transactions t WHERE t.id = %s AND t.client_id = %s", q.Bind(id)+"::uuid", q.Bind(client)+"::text"))
	q.With("challenges_held", fmt.Sprintf("SELECT c.id FROM challenges c, transaction_target t WHERE c.subject = t.subscriber_id AND c.ended_at IS NULL AND %s ORDER BY c.id FOR UPDATE OF c", which))
}

const held = "(SELECT count(*) FROM challenges_held) >= 0"

// end ends one transaction with its challenge.
func (s *Service) end(ctx context.Context, client string, id uuid.UUID, e ending, o Outcome) (*Transaction, error) {
	page, err := s.sealPage(id, o.Page)
	if err != nil {
		return nil, err
	}
	q := new(postgres.Query)
	target(q, client, id, "c.id = t.challenge_id")
	q.With("transaction_ended", fmt.Sprintf(`
		UPDATE transactions t SET state = %s, reason = %s, decided_at = wall(), decision = %s
		  FROM transaction_target x WHERE t.id = x.id AND t.state = 'pending' AND t.expires_at > wall() AND %s
		RETURNING t.id, t.client_id, t.subscriber_id, t.challenge_id, t.state, t.reason, t.decided_at`,
		q.Bind(string(e.state))+"::text", q.Bind(e.reason)+"::text", q.Bind(page)+"::bytea", held))
	s.Ledger.CancelOne(q, "transaction_ended", "transaction_ended.challenge_id")
	audit.Record(ctx, q, "transaction_ended", audit.Event{Name: e.name, Outcome: e.outcome, Reason: e.reason, Actor: e.actor, Client: client, Session: o.Holder, Object: PublicID(id)},
		audit.Expressions{"subject": "transaction_ended.subscriber_id"})
	tell(q, "transaction_ended", events.Event{Type: events.TransactionRefused})
	s.follow(q, "transaction_ended")
	if o.Along != nil {
		o.Along(q, "transaction_ended")
	}
	q.Finally("SELECT 1 FROM transaction_ended")
	n, err := s.DB.Run(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("end transaction: %w", err)
	}
	t, err := s.Get(ctx, client, id)
	if err == nil && n == 0 {
		err = ErrDecided
	}
	return t, err
}

// Report says that the person did not ask for it. Whatever has been decided by then stays decided; what is still open of the person, here and at every other application, is suspended,
// their challenges end, and fraud.reported is stored for the application and the operator, all in one statement. Its errors are [ErrUnknown], and [ErrDecided] with the transaction if it
// had ended or been reported before.
func (s *Service) Report(ctx context.Context, client string, id uuid.UUID, o Outcome) (*Transaction, error) {
	page, err := s.sealPage(id, o.Page)
	if err != nil {
		return nil, err
	}
	q := new(postgres.Query)
	target(q, client, id, "true")
	const open = "t.state = 'pending' AND t.expires_at > wall()"
	q.With("transaction_reported", fmt.Sprintf(`
		UPDATE transactions t
		   SET reported_at = wall(), state = CASE WHEN %[1]s THEN 'reported' ELSE t.state END, decided_at = CASE WHEN %[1]s THEN wall() ELSE t.decided_at END,
		       decision = CASE WHEN %[1]s THEN %[2]s ELSE t.decision END
		  FROM transaction_target x WHERE t.id = x.id AND t.reported_at IS NULL AND %[3]s
		RETURNING t.id, t.client_id, t.subscriber_id, t.challenge_id, t.state, t.reason, t.decided_at`, open, q.Bind(page)+"::bytea", held))
	q.With("transaction_suspended", fmt.Sprintf(`
		UPDATE transactions t SET state = 'canceled', reason = '%s', decided_at = wall()
		  FROM transaction_reported x WHERE t.subscriber_id = x.subscriber_id AND t.id <> x.id AND %s
		RETURNING t.id, t.client_id, t.subscriber_id, t.state, t.reason`, ReasonSuspended, open))
	s.Ledger.CancelAll(q, "transaction_reported", "transaction_reported.subscriber_id")
	audit.Record(ctx, q, "transaction_reported", audit.Event{Name: "transaction.report", Outcome: audit.Success, Actor: "subscriber", Client: client, Session: o.Holder, Object: PublicID(id)},
		audit.Expressions{"subject": "transaction_reported.subscriber_id", "reason": "transaction_reported.state"})
	audit.Follow(q, "transaction_suspended", audit.Event{Name: "transaction.cancel", Outcome: audit.Success, Reason: ReasonSuspended},
		audit.Expressions{"subject": "transaction_suspended.subscriber_id", "client_id": "transaction_suspended.client_id", "object": publicSQL("transaction_suspended")})
	tell(q, "transaction_reported", events.Event{Type: events.FraudReported})
	tell(q, "transaction_suspended", events.Event{Type: events.TransactionRefused})
	s.follow(q, "transaction_reported")
	s.follow(q, "transaction_suspended")
	if s.Suspended != nil {
		s.Suspended(ctx, q, "transaction_reported")
	}
	q.With("fraud_reported", "SELECT * FROM transaction_reported")
	events.Add(q, "fraud_reported", events.Event{Type: events.FraudReported, Owner: events.Operator}, events.Expressions{ID: publicSQL("fraud_reported"), Status: "fraud_reported.state"})
	if o.Along != nil {
		o.Along(q, "transaction_reported")
	}
	q.Finally("SELECT state FROM transaction_reported")
	var state State
	if err := s.DB.Get(ctx, &state, q); err != nil && !errors.Is(err, postgres.ErrNotFound) {
		return nil, fmt.Errorf("report transaction: %w", err)
	}
	t, err := s.Get(ctx, client, id)
	if err == nil && state != Reported {
		err = ErrDecided
	}
	return t, err
}
