package recovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
)

const (
	// lease is how long what was claimed is left to its worker.
	lease = 30 * time.Second
	// fallback is how often a worker looks without having been told.
	fallback = 5 * time.Second
)

// Run looks up and sends until ctx ends. Any number of replicas may.
func (e *Engine) Run(ctx context.Context) error {
	err := postgres.NewBell().Answer(ctx, e.DB, channel, fallback, func() {
		if _, err := e.Drain(ctx); err != nil && ctx.Err() == nil {
			e.Log.ErrorContext(ctx, "recoveries wait", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("listen for recoveries: %w", err)
	}
	return nil
}

// Drain does what waits, ends what is over, and says how much there was to do.
func (e *Engine) Drain(ctx context.Context) (n int, err error) {
	problems := []error{e.sweep(ctx)}
	for ; ; n++ {
		r, claim, source, err := e.claim(ctx)
		if errors.Is(err, ErrOver) {
			return n, errors.Join(problems...)
		}
		if err != nil {
			return n, errors.Join(append(problems, err)...)
		}
		if err := e.begin(audit.With(ctx, source), r, claim); err != nil { // it waits until its lease is over, and keeps nobody else waiting
			problems = append(problems, fmt.Errorf("recovery %s: %w", r.ID, err))
		}
	}
}

// claim takes what has to be looked up and sent next. [ErrOver]: nothing has.
func (e *Engine) claim(ctx context.Context) (*Recovery, uuid.UUID, audit.Context, error) {
	claim := uuid.New()
	q := new(postgres.Query)
	q.With("next", `SELECT id FROM recoveries WHERE todo_at IS NOT NULL AND (lease_until IS NULL OR lease_until <= wall()) ORDER BY todo_at LIMIT 1 FOR UPDATE SKIP LOCKED`)
	q.With("r", fmt.Sprintf(`UPDATE recoveries c SET claim = %s, lease_until = wall() + make_interval(secs => %s),
			subscriber_id = coalesce(c.subscriber_id, (SELECT i.subscriber_id FROM identifiers i WHERE i.fingerprint = c.name))
		  FROM next WHERE c.id = next.id AND c.todo_at IS NOT NULL RETURNING c.*`, q.Bind(claim)+"::uuid", q.Bind(lease.Seconds())+"::float8"))
	q.Finally("SELECT " + e.columns(q) + ", r.source, r.request_id FROM r LEFT JOIN subscribers u ON u.id = r.subscriber_id")
	var got struct {
		row
		Source    string `db:"source"`
		RequestID string `db:"request_id"`
	}
	if err := e.DB.Get(ctx, &got, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, claim, audit.Context{}, ErrOver
	} else if err != nil {
		return nil, claim, audit.Context{}, fmt.Errorf("claim a recovery: %w", err)
	}
	from := audit.Context{RequestID: got.RequestID}
	if source, err := netip.ParseAddr(got.Source); err == nil {
		from.Source = source
	}
	r, err := e.decode(&got.row)
	return r, claim, from, err
}

// begin sends what r asks for, if there is anybody to send it to.
func (e *Engine) begin(ctx context.Context, r *Recovery, claim uuid.UUID) error {
	if r.State != Asked && r.State != Open || r.EndedAt != nil || len(r.Proofs) > 0 { // asked for again, and over
		return e.leave(ctx, r, claim, "")
	}
	reason, phones := "", e.phones(r)
	switch {
	case r.Subscriber == uuid.Nil:
		reason = "unknown"
	case !r.stands:
		reason = "not_standing"
	case r.Channel == Text && len(phones) == 0, r.Channel == Mail && (e.Mail == nil || r.Address == (mail.Address{})):
		reason = "no_way"
	}
	if reason == "" && r.Channel == Text {
		held, err := e.SignIns.HeldBack(ctx, r.Subscriber, phones[0])
		if err != nil {
			return err
		}
		if held {
			reason = "sim_changed"
		}
	}
	if reason != "" {
		return e.leave(ctx, r, claim, reason)
	}
	if r.State == Open && r.Channel == Text {
		return e.resend(ctx, r, claim, phones)
	}
	if _, ok, err := e.room(ctx, r, r.Channel); err != nil {
		return err
	} else if !ok {
		return e.leave(ctx, r, claim, "limit")
	}
	for range 4 { // another try of the same account may begin at the same time: one of them ends
		err := e.issue(ctx, r, claim, phones)
		if pq.As(err, pqerror.UniqueViolation) == nil {
			return err
		}
	}
	return e.leave(ctx, r, claim, "superseded")
}

// leave ends what was to be done: a try for which there is nobody is over, one that lives goes on without.
func (e *Engine) leave(ctx context.Context, r *Recovery, claim uuid.UUID, reason string) error {
	q := new(postgres.Query)
	q.With("begun", fmt.Sprintf("SELECT id, state FROM recoveries WHERE id = %s AND claim = %s FOR UPDATE", q.Bind(r.ID)+"::uuid", q.Bind(claim)+"::uuid"))
	q.With("refused", fmt.Sprintf(`
		UPDATE recoveries c SET todo_at = NULL, claim = NULL, lease_until = NULL, state = CASE WHEN begun.state = 'asked' THEN 'refused' ELSE c.state END,
		       reason = CASE WHEN begun.state = 'asked' THEN %s ELSE c.reason END, ended_at = CASE WHEN begun.state = 'asked' THEN wall() ELSE c.ended_at END
		  FROM begun WHERE c.id = begun.id RETURNING c.id, c.subscriber_id`, q.Bind(reason)+"::text"))
	if reason != "" {
		record(ctx, q, "refused", audit.Event{Name: "recovery.start", Outcome: audit.Refused, Reason: reason, Actor: audit.System}, nil)
	}
	q.Finally("SELECT 1 FROM refused")
	_, err := e.DB.Run(ctx, q)
	return err
}

// room takes what one message costs of the account's budget, and says when there is some again.
func (e *Engine) room(ctx context.Context, r *Recovery, c Channel) (until time.Time, ok bool, err error) {
	key := r.Subscriber[:]
	hits := []limits.Hit{{Window: e.Config.MailHour, Key: key}}
	if c == Text {
		hour := e.Config.TextHour
		if r.Kind == Stop {
			hour = e.Config.LessHour
		}
		hits = []limits.Hit{{Window: hour, Key: key}, {Window: e.Config.TextDay, Key: key}}
		if r.Proved() { // somebody with one proof is no stranger: what the ledger allows is enough
			return time.Time{}, true, nil
		}
	}
	q := new(postgres.Query)
	q.With("wanted", "SELECT 1")
	limits.Take(q, "wanted", hits...)
	q.Finally("SELECT allowed, retry_at FROM limit_taken")
	var got struct {
		Allowed bool       `db:"allowed"`
		RetryAt *time.Time `db:"retry_at"`
	}
	if err := e.DB.Get(ctx, &got, q); err != nil {
		return time.Time{}, false, fmt.Errorf("room for a message: %w", err)
	}
	if got.RetryAt != nil {
		until = *got.RetryAt
	}
	return until, got.Allowed, nil
}

// issue stores the first code or link of r in the statement that opens it, and ends the tries before it that have proved nothing.
func (e *Engine) issue(ctx context.Context, r *Recovery, claim uuid.UUID, phones []factors.Authenticator) error {
	q := new(postgres.Query)
	q.With("mine", fmt.Sprintf("SELECT r.id, r.subscriber_id FROM recoveries r JOIN subscribers u ON u.id = r.subscriber_id WHERE r.id = %s AND r.claim = %s AND r.todo_at IS NOT NULL AND r.state IN ('asked', 'open') AND r.expires_at > wall() AND %s FOR UPDATE OF r",
		q.Bind(r.ID)+"::uuid", q.Bind(claim)+"::uuid", standsSQL))
	q.With("older", fmt.Sprintf(`
		UPDATE recoveries o SET state = 'superseded', reason = 'newer', ended_at = wall(), link_hash = NULL, todo_at = NULL FROM mine
		 WHERE o.subscriber_id = mine.subscriber_id AND o.id <> mine.id AND o.kind = %s AND o.state = 'open' AND o.proofs = '{}' AND NOT o.knows AND NOT %s
		RETURNING o.id, o.subscriber_id`, q.Bind(string(r.Kind))+"::text", q.Bind(r.Knows)+"::bool"))
	record(ctx, q, "older", audit.Event{Name: "recovery.end", Reason: string(Superseded), Actor: audit.System}, nil)
	var challenge, of uuid.UUID
	var link []byte
	if r.Channel == Text {
		of = phones[0].ID
		var err error
		if challenge, err = e.SignIns.Ledger.Open(ctx, q, "mine", phones[0], e.binding(r), factors.Prompt{Locale: r.Locale}); err != nil {
			return err
		}
	} else {
		var err error
		if link, err = e.enqueue(q, r, r.Locale, "mine"); err != nil {
			return err
		}
	}
	q.With("opened", fmt.Sprintf(`
		UPDATE recoveries r SET state = 'open', subscriber_id = mine.subscriber_id, challenge_id = %s, asked_of = %s, link_hash = %s, todo_at = NULL, claim = NULL, lease_until = NULL
		  FROM mine WHERE r.id = mine.id AND (SELECT count(*) FROM older) >= 0 RETURNING r.id, r.subscriber_id, r.kind, r.state`,
		q.Bind(optional(challenge))+"::uuid", q.Bind(optional(of))+"::uuid", q.Bind(link)+"::bytea"))
	record(ctx, q, "opened", audit.Event{Name: "recovery.start", Reason: string(r.Channel)}, nil)
	if r.State == Asked && r.Kind != Stop {
		quiet, err := e.toldLately(ctx, r)
		if err != nil {
			return err
		}
		e.told(ctx, q, "opened", notices.RecoveryStarted, notices.Event{MailOnly: quiet}, nil)
	}
	q.Finally("SELECT 1 FROM opened")
	if _, err := e.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	e.observe(r.Kind, Open)
	return nil
}

// toldLately reports whether the account's phones were told of another start within a day: a stranger can cause one as often as there is room for.
func (e *Engine) toldLately(ctx context.Context, r *Recovery) (bool, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf("SELECT EXISTS (SELECT FROM notices WHERE subscriber_id = %s AND kind = %s AND channel = 'text' AND created_at > wall() - interval '1 day')", q.Bind(r.Subscriber)+"::uuid", q.Bind(string(notices.RecoveryStarted))+"::text"))
	var lately bool
	if err := e.DB.Get(ctx, &lately, q); err != nil {
		return false, fmt.Errorf("read notices: %w", err)
	}
	return lately, nil
}

// enqueue adds to q a mail with a new link of r, for as long as part from has a row, and gives the link's hash.
func (e *Engine) enqueue(q *postgres.Query, r *Recovery, locale, from string) ([]byte, error) {
	token := keyring.Token()
	link := strings.TrimSuffix(e.Issuer, "/") + LinkPath + "?" + url.Values{"token": {token}}.Encode()
	subject, text, used := e.Texts.Link(r.Kind, locale, link, e.Config.Life)
	return hashed(token), e.Mail.Enqueue(q, mail.Message{ID: postgres.NewID(), To: r.Address, Purpose: "recovery_" + string(r.Kind), Locale: used, Subject: subject, Text: text, Life: e.Config.Life}, from)
}

// LinkPath is where mailed links lead, at the issuer.
const LinkPath = "/recover/link"

// resend sends the code of r again.
func (e *Engine) resend(ctx context.Context, r *Recovery, claim uuid.UUID, phones []factors.Authenticator) error {
	for _, a := range phones {
		if a.ID != r.askedOf {
			continue
		}
		err := e.SignIns.Ledger.Resend(ctx, r.challenge, a, e.binding(r), factors.Prompt{Locale: r.Locale})
		if _, early := errors.AsType[*factors.WaitError](err); err != nil && !early && !errors.Is(err, factors.ErrOver) {
			return err
		}
	}
	return e.leave(ctx, r, claim, "")
}

// open opens a challenge for one more proof of r, which has some.
func (e *Engine) open(ctx context.Context, r *Recovery, of uuid.UUID, locale string) error {
	for _, a := range r.Bound {
		if a.ID != of {
			continue
		}
		if held, err := e.SignIns.HeldBack(ctx, r.Subscriber, a); err != nil {
			return err
		} else if held {
			return ErrNoWay
		}
		q := new(postgres.Query)
		q.With("mine", e.mine(q, r))
		challenge, err := e.SignIns.Ledger.Open(ctx, q, "mine", a, e.binding(r), factors.Prompt{Locale: locale})
		if err != nil {
			return err
		}
		q.With("opened", fmt.Sprintf("UPDATE recoveries r SET challenge_id = %s, asked_of = %s, locale = %s FROM mine WHERE r.id = mine.id RETURNING r.id, r.subscriber_id",
			q.Bind(challenge)+"::uuid", q.Bind(of)+"::uuid", q.Bind(locale)+"::text"))
		record(ctx, q, "opened", audit.Event{Name: "recovery.ask_more", Reason: a.Kind}, nil)
		return e.mineRun(ctx, q)
	}
	return ErrNoWay
}

// mail mails a link for one more proof of r, which has some.
func (e *Engine) mail(ctx context.Context, r *Recovery, locale string) error {
	q := new(postgres.Query)
	q.With("mine", e.mine(q, r))
	link, err := e.enqueue(q, r, locale, "mine")
	if err != nil {
		return err
	}
	q.With("opened", fmt.Sprintf("UPDATE recoveries r SET link_hash = %s, challenge_id = NULL, asked_of = NULL, locale = %s FROM mine WHERE r.id = mine.id RETURNING r.id, r.subscriber_id", q.Bind(link)+"::bytea", q.Bind(locale)+"::text"))
	record(ctx, q, "opened", audit.Event{Name: "recovery.ask_more", Reason: ByMail}, nil)
	return e.mineRun(ctx, q)
}

// mine is r, if it can still be gone on with.
func (e *Engine) mine(q *postgres.Query, r *Recovery) string {
	return fmt.Sprintf("SELECT r.id, r.subscriber_id FROM recoveries r JOIN subscribers u ON u.id = r.subscriber_id WHERE r.id = %s AND r.state = 'open' AND r.ended_at IS NULL AND r.expires_at > wall() AND r.proofs = %s::text[] AND %s FOR UPDATE OF r",
		q.Bind(r.ID)+"::uuid", q.Bind(pq.Array(append([]string{}, r.Proofs...))), standsSQL)
}

func (e *Engine) mineRun(ctx context.Context, q *postgres.Query) error {
	q.Finally("SELECT 1 FROM opened")
	n, err := e.DB.Run(ctx, q)
	if err != nil {
		return fmt.Errorf("ask for a proof: %w", err)
	}
	if n == 0 {
		return ErrOver
	}
	return nil
}

// sweep gives what is over its terminal state, and tells of it.
func (e *Engine) sweep(ctx context.Context) error {
	q := new(postgres.Query)
	q.With("over", fmt.Sprintf(`
		SELECT r.id, CASE WHEN r.expires_at <= wall() THEN 'expired' ELSE 'canceled' END AS state,
		       CASE WHEN r.expires_at <= wall() THEN 'expired' WHEN %[1]s THEN 'account_changed' ELSE 'signed_in' END AS reason
		  FROM recoveries r JOIN subscribers u ON u.id = r.subscriber_id
		 WHERE r.ended_at IS NULL AND r.todo_at IS NULL AND (r.expires_at <= wall() OR NOT %[2]s) ORDER BY r.id LIMIT 100 FOR UPDATE OF r SKIP LOCKED`,
		"NOT "+authn.Stands("u", "r.since"), standsSQL))
	q.With("ended", `UPDATE recoveries r SET state = over.state, reason = over.reason, ended_at = wall(), link_hash = NULL FROM over WHERE r.id = over.id AND r.ended_at IS NULL
		RETURNING r.id, r.subscriber_id, r.kind, r.state, r.reason, cardinality(r.proofs) > 0 OR r.by_operator IS NOT NULL AS known`)
	record(ctx, q, "ended", audit.Event{Name: "recovery.end", Actor: audit.System}, audit.Expressions{"reason": "ended.reason"})
	e.SignIns.EndRepair(q, "ended", "recovery_ended")
	q.With("ended_known", "SELECT id, subscriber_id, kind, state FROM ended WHERE known")
	e.told(ctx, q, "ended_known", notices.RecoveryCanceled, notices.Event{}, nil)
	q.Finally("SELECT kind, state FROM ended")
	var ended []struct {
		Kind  Kind  `db:"kind"`
		State State `db:"state"`
	}
	if err := e.DB.Select(ctx, &ended, q); err != nil {
		return fmt.Errorf("end recoveries: %w", err)
	}
	for _, r := range ended {
		e.observe(r.Kind, r.State)
	}
	return nil
}
