package factors

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Reacher is a factor whose authenticators are also a way to tell their holder something: phones.
type Reacher interface {
	Factor
	// Reach is the number that a's holder is texted at.
	Reach(a Authenticator) (sms.Number, error)
}

// Reachable lists the kinds whose factors are [Reacher].
func (l *Ledger) Reachable() (kinds []string) {
	for kind, factor := range l.kinds {
		if _, ok := factor.(Reacher); ok {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// Reach is the number of an authenticator whose data is given as table authenticators has it.
func (l *Ledger) Reach(id uuid.UUID, kind string, sealed []byte) (sms.Number, error) {
	factor, ok := l.kinds[kind].(Reacher)
	if !ok {
		return sms.Number{}, fmt.Errorf("authenticator %s: nobody can be reached by kind %q", id, kind)
	}
	data, err := l.Keys.Open(sealed, sealContext(id))
	if err != nil {
		return sms.Number{}, err
	}
	return factor.Reach(Authenticator{ID: id, Kind: kind, Data: data})
}

// HoldersSQL is a statement for who has bound that number (columns subject and hint), by every kind that reaches numbers: what is looked up of these is the number in E.164.
func (l *Ledger) HoldersSQL(q *postgres.Query, n sms.Number) string {
	var fingerprints [][]byte
	for _, kind := range l.Reachable() {
		fingerprints = append(fingerprints, l.fingerprint(kind, n.Reveal()))
	}
	return "SELECT DISTINCT subject, hint FROM authenticators WHERE unbound_at IS NULL AND fingerprint = ANY(" + q.Bind(pq.Array(fingerprints)) + "::bytea[])"
}

// SharersSQL is a statement for who has bound the number that was texted (columns subject and hint), by SQL expressions for the challenge that the text was for and for the
// authenticator that it went to; of either there may be none.
func (l *Ledger) SharersSQL(q *postgres.Query, challenge, authenticator string) string {
	return fmt.Sprintf(`SELECT DISTINCT h.subject, h.hint FROM authenticators texted JOIN authenticators h ON h.fingerprint = texted.fingerprint AND h.kind = ANY(%s)
		 WHERE h.unbound_at IS NULL AND texted.id IN (%s, (SELECT c.authenticator_id FROM challenges c WHERE c.id = %s))`,
		q.Bind(pq.Array(l.Reachable()))+"::text[]", authenticator, challenge)
}

// FailuresSQL is an SQL expression for how often in a row the subject of SQL expression subject had failed before this statement.
func (l *Ledger) FailuresSQL(q *postgres.Query, subject string) string {
	return fmt.Sprintf("coalesce((SELECT failures FROM streaks WHERE scope = %s AND key = uuid_send(%s)), 0)", q.Bind(l.Limits.Failures.Scope)+"::text", subject)
}

// Warn adds to q what a subject is told about failures in a row. Part from has columns subject, stage (as of [limits.Streak.Stage]) and until, and no row when there is
// nothing to tell.
type Warn func(ctx context.Context, q *postgres.Query, from string)

// warn adds what follows an attempt that was wrong: failed is a part with columns subject, failures and until.
func (l *Ledger) warn(ctx context.Context, q *postgres.Query, b Binding, failed string) {
	if l.Warn == nil || b.Outsider {
		return
	}
	q.With("streak_stage", fmt.Sprintf("SELECT subject, until, %s AS stage FROM %s", l.streak(b).Stage("failures"), failed))
	q.With("streak_warned", "SELECT subject, until, stage FROM streak_stage WHERE stage IS NOT NULL")
	l.Warn(ctx, q, "streak_warned")
}
