package factors

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// sealContext binds an authenticator's data to its row.
func sealContext(id uuid.UUID) string { return "authenticator " + id.String() }

func (l *Ledger) fingerprint(kind, unique string) []byte {
	return l.Keys.Fingerprint("authenticator "+kind, unique)
}

// Bind adds part `authenticator_bound` (columns id, subject, kind, data and hint) to q: a is kept, its data sealed, for as long as part from has a row. unique is what may be looked up and
// counted, such as the number in E.164; it is stored as a keyed fingerprint only.
func (l *Ledger) Bind(ctx context.Context, q *postgres.Query, from string, a Authenticator, unique string) error {
	sealed, err := l.Keys.Seal(a.Data, sealContext(a.ID))
	if err != nil {
		return fmt.Errorf("seal %s: %w", a, err)
	}
	var fingerprint []byte
	if unique != "" {
		fingerprint = l.fingerprint(a.Kind, unique)
	}
	q.With("authenticator_bound", fmt.Sprintf(`
		INSERT INTO authenticators (id, subject, kind, data, fingerprint, hint)
		SELECT %s, %s, %s, %s, %s, %s FROM %s RETURNING id, subject, kind, data, hint`,
		q.Bind(a.ID)+"::uuid", q.Bind(a.Subject)+"::uuid", q.Bind(a.Kind)+"::text", q.Bind(sealed)+"::bytea",
		q.Bind(fingerprint)+"::bytea", q.Bind(a.Hint)+"::text", from))
	audit.Record(ctx, q, "authenticator_bound", audit.Event{Name: "authenticator.bind", Outcome: audit.Success, Reason: a.Kind,
		Actor: audit.Operator, Subject: a.Subject, Object: a.ID.String()}, nil)
	return nil
}

// BoundSQL is an SQL expression of type jsonb for all authenticators that the subject of SQL expression subject has bound, the last used
// first. Read it with [Ledger.DecodeBound].
func BoundSQL(subject string) string {
	return fmt.Sprintf(`(SELECT coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'subject', a.subject, 'kind', a.kind,
		'data', encode(a.data, 'base64'), 'hint', a.hint, 'bound_at', a.bound_at, 'last_used_at', a.last_used_at)
		ORDER BY a.last_used_at DESC NULLS LAST, a.bound_at), '[]')
		FROM authenticators a WHERE a.subject = %s AND a.unbound_at IS NULL)`, subject)
}

// DecodeBound reads what [BoundSQL] gave. Authenticators of kinds that are not installed are left out: nobody can use them.
func (l *Ledger) DecodeBound(data []byte) ([]Authenticator, error) {
	var rows []struct {
		ID         uuid.UUID  `json:"id"`
		Subject    uuid.UUID  `json:"subject"`
		Kind       string     `json:"kind"`
		Data       wrapped    `json:"data"`
		Hint       string     `json:"hint"`
		BoundAt    time.Time  `json:"bound_at"`
		LastUsedAt *time.Time `json:"last_used_at"`
	}
	if len(data) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, fmt.Errorf("authenticators: %w", err)
	}
	bound := make([]Authenticator, 0, len(rows))
	for _, row := range rows {
		if _, ok := l.kinds[row.Kind]; !ok {
			continue
		}
		opened, err := l.Keys.Open(row.Data, sealContext(row.ID))
		if err != nil {
			return nil, err
		}
		a := Authenticator{ID: row.ID, Subject: row.Subject, Kind: row.Kind, Data: opened, Hint: row.Hint, BoundAt: row.BoundAt}
		if row.LastUsedAt != nil {
			a.LastUsedAt = *row.LastUsedAt
		}
		bound = append(bound, a)
	}
	return bound, nil
}
