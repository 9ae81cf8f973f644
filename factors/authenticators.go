package factors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// sealContext binds an authenticator's data to its row.
func sealContext(id uuid.UUID) string { return "authenticator " + id.String() }

func (l *Ledger) fingerprint(kind, unique string) []byte {
	return l.Keys.Fingerprint("authenticator "+kind, unique)
}

// Bind adds part `authenticator_bound` (columns id, subject, kind, data and hint) to q: a is kept, its data sealed, for as long as part from has a row. unique is what may be looked up and
// counted, such as the number in E.164; it is stored as a keyed fingerprint only. An id that the subject has an authenticator of that kind under
// already is bound anew, in place of what it was: a new set of backup codes. The record names the operator.
func (l *Ledger) Bind(ctx context.Context, q *postgres.Query, from string, a Authenticator, unique string) error {
	return l.BindBy(ctx, q, from, a, unique, Operator)
}

// By is who changes what somebody can be asked for, as it is recorded.
type By struct {
	Actor   string // as in audit.Event
	Session uuid.UUID
}

// Operator is whoever runs the program's commands.
var Operator = By{Actor: audit.Operator}

// Subscriber is the subject, in that session.
func Subscriber(session uuid.UUID) By { return By{Actor: "subscriber", Session: session} }

// BindBy is [Ledger.Bind] by somebody else.
func (l *Ledger) BindBy(ctx context.Context, q *postgres.Query, from string, a Authenticator, unique string, by By) error {
	if err := l.keep(q, "authenticator_bound", from, a, unique, "NULL", "NULL"); err != nil {
		return err
	}
	audit.Record(ctx, q, "authenticator_bound", audit.Event{Name: "authenticator.bind", Outcome: audit.Success, Reason: a.Kind,
		Actor: by.Actor, Subject: a.Subject, Session: by.Session, Object: a.ID.String()}, nil)
	return nil
}

// Propose adds part `authenticator_proposed` to q: a is kept for as long as life, without being bound. Open a challenge for it of purpose
// [Enrol]: the right answer to that binds it, and nothing else does. What was not proved in time is forgotten.
func (l *Ledger) Propose(ctx context.Context, q *postgres.Query, from string, a Authenticator, unique string, life time.Duration, by By) error {
	err := l.keep(q, "authenticator_proposed", from, a, unique, "wall()", "wall() + make_interval(secs => "+q.Bind(life.Seconds())+"::float8)")
	if err != nil {
		return err
	}
	audit.Record(ctx, q, "authenticator_proposed", audit.Event{Name: "authenticator.propose", Outcome: audit.Success, Reason: a.Kind,
		Actor: by.Actor, Subject: a.Subject, Session: by.Session, Object: a.ID.String()}, nil)
	return nil
}

// keep adds the part of that name: a is stored, or stored anew.
func (l *Ledger) keep(q *postgres.Query, part, from string, a Authenticator, unique, unbound, pending string) error {
	sealed, err := l.Keys.Seal(a.Data, sealContext(a.ID))
	if err != nil {
		return fmt.Errorf("seal %s: %w", a, err)
	}
	var fingerprint []byte
	if unique != "" {
		fingerprint = l.fingerprint(a.Kind, unique)
	}
	var codes any
	if a.Codes != nil {
		codes = pq.Array(a.Codes)
	}
	q.With(part, fmt.Sprintf(`
		INSERT INTO authenticators AS x (id, subject, kind, data, fingerprint, hint, name, codes_left, replaces, unbound_at, pending_until)
		SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s FROM %s
		ON CONFLICT (id) DO UPDATE
		   SET data = excluded.data, fingerprint = excluded.fingerprint, hint = excluded.hint, name = excluded.name, bound_at = wall(), last_used_at = NULL, counter = -1,
		       codes_left = excluded.codes_left, codes_used = '{}', unbound_at = excluded.unbound_at, pending_until = excluded.pending_until
		 WHERE x.subject = excluded.subject AND x.kind = excluded.kind AND excluded.unbound_at IS NULL
		RETURNING id, subject, kind, data, hint`,
		q.Bind(a.ID)+"::uuid", q.Bind(a.Subject)+"::uuid", q.Bind(a.Kind)+"::text", q.Bind(sealed)+"::bytea",
		q.Bind(fingerprint)+"::bytea", q.Bind(a.Hint)+"::text", q.Bind(a.Name)+"::text", q.Bind(codes)+"::bytea[]", q.Bind(optional(a.Replaces))+"::uuid", unbound, pending, from))
	return nil
}

// Pending reads the authenticator that challenge id, which has to be b's own, is to bind, and the challenge. [ErrOver] says that there is none: bound,
// too late, somebody else's, or never proposed. The challenge itself may be over: another can be opened for the same authenticator.
func (l *Ledger) Pending(ctx context.Context, id uuid.UUID, b Binding) (Authenticator, *State, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`SELECT jsonb_build_array(%s) AS pending, %s AS state
		FROM challenges asked JOIN authenticators a ON a.id = asked.authenticator_id
		WHERE asked.id = %s AND asked.binding = %s AND asked.purpose = %s AND a.subject = asked.subject AND a.pending_until > wall()`,
		authenticatorSQL, l.StateSQL(q, "asked.id"), q.Bind(id)+"::uuid", q.Bind(b.sum())+"::bytea", q.Bind(string(Enrol))+"::text"))
	var got struct {
		Pending []byte `db:"pending"`
		State   []byte `db:"state"`
	}
	if err := l.DB.Get(ctx, &got, q); errors.Is(err, postgres.ErrNotFound) {
		return Authenticator{}, nil, ErrOver
	} else if err != nil {
		return Authenticator{}, nil, fmt.Errorf("read what is to be bound: %w", err)
	}
	pending, err := l.DecodeBound(got.Pending)
	if err != nil {
		return Authenticator{}, nil, err
	}
	if len(pending) == 0 {
		return Authenticator{}, nil, ErrOver
	}
	state, err := DecodeState(got.State)
	return pending[0], state, err
}

// Rename adds part `authenticator_renamed` to q: the subject's authenticator id is called name, for as long as part from has a row.
func (l *Ledger) Rename(ctx context.Context, q *postgres.Query, from string, subject, id uuid.UUID, name string, by By) {
	q.With("authenticator_renamed", fmt.Sprintf(`
		UPDATE authenticators a SET name = %s FROM %s
		 WHERE a.id = %s AND a.subject = %s AND a.unbound_at IS NULL RETURNING a.id, a.subject, a.kind, a.hint`,
		q.Bind(name)+"::text", from, q.Bind(id)+"::uuid", q.Bind(subject)+"::uuid"))
	audit.Record(ctx, q, "authenticator_renamed", audit.Event{Name: "authenticator.rename", Outcome: audit.Success,
		Actor: by.Actor, Subject: subject, Session: by.Session, Object: id.String()}, audit.Expressions{"reason": "authenticator_renamed.kind"})
}

// Prefer adds part `authenticator_preferred` to q: the subject is asked for authenticator id before the others, for as long as part from has a row.
func (l *Ledger) Prefer(ctx context.Context, q *postgres.Query, from string, subject, id uuid.UUID, by By) {
	q.With("authenticator_chosen", fmt.Sprintf(`
		UPDATE authenticators a SET chosen_at = CASE WHEN a.id = %[1]s THEN wall() END FROM %[2]s
		 WHERE a.subject = %[3]s AND a.unbound_at IS NULL AND (a.id = %[1]s OR a.chosen_at IS NOT NULL)
		   AND EXISTS (SELECT FROM authenticators c WHERE c.id = %[1]s AND c.subject = %[3]s AND c.unbound_at IS NULL) RETURNING a.id, a.kind, a.chosen_at`,
		q.Bind(id)+"::uuid", from, q.Bind(subject)+"::uuid"))
	q.With("authenticator_preferred", "SELECT id, kind FROM authenticator_chosen WHERE chosen_at IS NOT NULL")
	audit.Record(ctx, q, "authenticator_preferred", audit.Event{Name: "authenticator.prefer", Outcome: audit.Success,
		Actor: by.Actor, Subject: subject, Session: by.Session, Object: id.String()}, audit.Expressions{"reason": "authenticator_preferred.kind"})
}

// Unbind adds part `authenticator_unbound` to q (columns id, subject, kind, hint): the subject's authenticator id is bound no more, what it knew is erased and
// its challenges end, for as long as part from has a row. Of kinds enough one has to stay: the last is not unbound; nil: none has to.
// Part `authenticators_held` has the id and kind of all that are bound, each row locked, so that two removals at once cannot leave nothing.
func (l *Ledger) Unbind(ctx context.Context, q *postgres.Query, from string, subject, id uuid.UUID, enough []string, by By) {
	object, needed := q.Bind(id)+"::uuid", q.Bind(pq.Array(enough))+"::text[]"
	owner := q.Bind(subject) + "::uuid"
	// Locked before the authenticators, as an answer locks them.
	q.With("challenges_held", fmt.Sprintf("SELECT id FROM challenges WHERE subject = %s AND ended_at IS NULL AND authenticator_id = %s AND EXISTS (SELECT FROM %s) ORDER BY id FOR UPDATE",
		owner, object, from))
	q.With("authenticators_held", fmt.Sprintf(`
		SELECT a.id, a.kind FROM authenticators a
		 WHERE a.subject = %s AND a.unbound_at IS NULL AND EXISTS (SELECT FROM %s) AND (SELECT count(*) FROM challenges_held) >= 0 ORDER BY a.id FOR UPDATE OF a`, owner, from))
	q.With("authenticator_leaving", fmt.Sprintf(`
		SELECT id FROM authenticators_held WHERE id = %[1]s
		   AND (%[2]s IS NULL OR kind <> ALL (%[2]s) OR EXISTS (SELECT FROM authenticators_held o WHERE o.id <> %[1]s AND o.kind = ANY (%[2]s)))`, object, needed))
	q.With("authenticator_unbound", `
		UPDATE authenticators a
		   SET unbound_at = wall(), data = '', fingerprint = NULL, codes_left = NULL, codes_used = '{}'
		  FROM authenticator_leaving l WHERE a.id = l.id AND a.unbound_at IS NULL
		RETURNING a.id, a.subject, a.kind, a.hint`)
	l.cancel(q, "authenticator_unbound", "c.subject = authenticator_unbound.subject AND c.authenticator_id = authenticator_unbound.id")
	audit.Record(ctx, q, "authenticator_unbound", audit.Event{Name: "authenticator.unbind", Outcome: audit.Success,
		Actor: by.Actor, Subject: subject, Session: by.Session, Object: id.String()}, audit.Expressions{"reason": "authenticator_unbound.kind"})
}

// UnbindOthers adds part `authenticator_unbound`, as of [Ledger.Unbind], for all that the subject of SQL expression subject has bound but those whose ids are in SQL expression keep,
// of type uuid[]. What has been proposed and not bound yet ends as well: so that what is being bound at the same moment is waited for, and goes with the others.
func (l *Ledger) UnbindOthers(ctx context.Context, q *postgres.Query, from, subject, keep string, by By) {
	q.With("authenticator_ended", fmt.Sprintf(`
		UPDATE authenticators a
		   SET unbound_at = coalesce(a.unbound_at, wall()), pending_until = CASE WHEN a.pending_until IS NOT NULL THEN wall() END, data = '', fingerprint = NULL, codes_left = NULL, codes_used = '{}'
		  FROM %s WHERE a.subject = %s AND (a.unbound_at IS NULL OR a.pending_until > wall()) AND a.id <> ALL(%s)
		RETURNING a.id, a.subject, a.kind, a.hint, a.pending_until IS NULL AS bound`, from, subject, keep))
	q.With("authenticator_unbound", "SELECT id, subject, kind, hint FROM authenticator_ended WHERE bound")
	audit.Record(ctx, q, "authenticator_unbound", audit.Event{Name: "authenticator.unbind", Outcome: audit.Success, Actor: by.Actor, Session: by.Session},
		audit.Expressions{"reason": "authenticator_unbound.kind", "subject": "authenticator_unbound.subject", "object": "authenticator_unbound.id::text"})
}

func optional(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id
}

// HeldSQL is an SQL expression for how many subjects other than subject have bound what is looked up as unique; the empty string is nobody's.
func (l *Ledger) HeldSQL(q *postgres.Query, kind, unique string, subject uuid.UUID) string {
	return fmt.Sprintf("(SELECT count(DISTINCT subject) FROM authenticators WHERE unbound_at IS NULL AND fingerprint = %s AND subject <> %s)", l.uniqueSQL(q, kind, unique), q.Bind(subject)+"::uuid")
}

// HasSQL is an SQL condition: subject has bound what is looked up as unique.
func (l *Ledger) HasSQL(q *postgres.Query, kind, unique string, subject uuid.UUID) string {
	return fmt.Sprintf("EXISTS (SELECT FROM authenticators WHERE unbound_at IS NULL AND fingerprint = %s AND subject = %s)", l.uniqueSQL(q, kind, unique), q.Bind(subject)+"::uuid")
}

func (l *Ledger) uniqueSQL(q *postgres.Query, kind, unique string) string {
	var fingerprint []byte
	if unique != "" {
		fingerprint = l.fingerprint(kind, unique)
	}
	return q.Bind(fingerprint) + "::bytea"
}

// MaxName is how many characters the name of an authenticator may have.
const MaxName = 40

// ErrName is about a name that is too long, or has characters that cannot be seen. Ask for another.
var ErrName = errors.New("factors: that cannot be the name of an authenticator")

// ParseName reads what somebody would call an authenticator: one line, in which spaces are single. It may be empty.
func ParseName(typed string) (string, error) {
	if len(typed) > 10*MaxName || !utf8.ValidString(typed) {
		return "", ErrName
	}
	name := strings.Join(strings.Fields(norm.NFC.String(typed)), " ")
	if utf8.RuneCountInString(name) > MaxName || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", ErrName
	}
	return name, nil
}

// authenticatorSQL is row a of authenticators as jsonb, for [Ledger.DecodeBound].
const authenticatorSQL = `jsonb_build_object('id', a.id, 'subject', a.subject, 'kind', a.kind, 'data', encode(a.data, 'base64'), 'hint', a.hint, 'name', a.name,
		'bound_at', a.bound_at, 'last_used_at', a.last_used_at, 'chosen', a.chosen_at IS NOT NULL, 'left', cardinality(a.codes_left), 'counter', a.counter, 'read_at', wall(), 'replaces', a.replaces)`

// BoundSQL is an SQL expression of type jsonb for all authenticators that the subject of SQL expression subject has bound: the one that its holder prefers, then the
// last used first. Read it with [Ledger.DecodeBound].
func BoundSQL(subject string) string {
	return fmt.Sprintf(`(SELECT coalesce(jsonb_agg(%s ORDER BY a.chosen_at IS NULL, a.last_used_at DESC NULLS LAST, a.bound_at), '[]')
		FROM authenticators a WHERE a.subject = %s AND a.unbound_at IS NULL)`, authenticatorSQL, subject)
}

// DecodeBound reads what [BoundSQL] gave. Authenticators of kinds that are not installed are left out: nobody can use them.
func (l *Ledger) DecodeBound(data []byte) ([]Authenticator, error) {
	var rows []struct {
		ID         uuid.UUID  `json:"id"`
		Subject    uuid.UUID  `json:"subject"`
		Kind       string     `json:"kind"`
		Data       wrapped    `json:"data"`
		Hint       string     `json:"hint"`
		Name       string     `json:"name"`
		BoundAt    time.Time  `json:"bound_at"`
		LastUsedAt *time.Time `json:"last_used_at"`
		Chosen     bool       `json:"chosen"`
		Left       *int       `json:"left"`
		Counter    int64      `json:"counter"`
		ReadAt     time.Time  `json:"read_at"`
		Replaces   *uuid.UUID `json:"replaces"`
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
		a := Authenticator{ID: row.ID, Subject: row.Subject, Kind: row.Kind, Data: opened, Hint: row.Hint, Name: row.Name,
			BoundAt: row.BoundAt, Chosen: row.Chosen, Left: row.Left, Counter: row.Counter, ReadAt: row.ReadAt}
		if row.Replaces != nil {
			a.Replaces = *row.Replaces
		}
		if row.LastUsedAt != nil {
			a.LastUsedAt = *row.LastUsedAt
		}
		bound = append(bound, a)
	}
	return bound, nil
}
