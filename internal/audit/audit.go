// Package audit records who did what to whom and how it ended, in the statement that did it: no record without its
// change, no change without its record. Rows are append-only; a trigger refuses everything else.
//
// A record never holds a code, a password, a token or a full number.
//
// Whoever owns the database can remove the trigger. So the records are chained: behind those who write them, a [Sealer] gives each record a [Link], which holds its
// digest and is hashed together with the link before it, and signs the chain's [Head] with a key that is not in the database. [Reader.Verify] names the
// first link that does not bear out: nobody without the key can alter, remove, insert or reorder a record that is linked. What the chain cannot tell by itself is that
// it was cut back as a whole to an earlier head: for that somebody has to have noted a later one, an [Anchor]. Heads are logged once an hour.
//
// Writing a record waits for none of this. The sealer finds new records by the transactions that wrote them: each pass links what its snapshot of the database sees and
// the snapshot of the pass before did not see. A transaction that commits late is in the first snapshot that sees it, and in no other, so that every record
// is linked once.
package audit

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// Outcomes of an event.
const (
	Success = "success"
	Refused = "refused"
	Failed  = "failed"
)

// Event is one record. Fields left empty are stored empty.
type Event struct {
	Name      string // "password.check", "challenge.answer", "grant.issue"
	Outcome   string // Success, Refused or Failed
	Reason    string // a class, such as "wrong", "blocked"; never free text
	Actor     string // "subscriber", [Operator], "client", [System]
	Subject   uuid.UUID
	Client    string
	Session   uuid.UUID
	Object    string
	Source    netip.Addr
	RequestID string
}

// Actors that this package knows.
const (
	Operator = "operator" // whoever administers
	System   = "system"   // nobody: it follows from something else
)

// Context of a request that every record of it repeats.
type Context struct {
	Source    netip.Addr
	RequestID string
	// Agent is how the caller's browser calls itself. No record repeats it.
	Agent string
	// Operator names who gave the command, where the actor is an operator.
	Operator string
	// Client is the program that asks for whatever happens, where that is not a person in a browser.
	Client string
}

type contextKey struct{}

// With returns a context whose records name where the request came from.
func With(ctx context.Context, c Context) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// From is the request's part of a record.
func From(ctx context.Context) Context {
	c, _ := ctx.Value(contextKey{}).(Context)
	return c
}

// Expressions replace an event's fields by SQL over the part that the record is written from, where only the
// statement itself knows the value. A missing key keeps the field.
type Expressions map[string]string

// Record adds part `audited_<part>` to q: one record for each row of part.
func Record(ctx context.Context, q *postgres.Query, part string, e Event, over Expressions) {
	from := From(ctx)
	if !e.Source.IsValid() {
		e.Source = from.Source
	}
	if e.RequestID == "" {
		e.RequestID = from.RequestID
	}
	if e.Actor == Operator && from.Operator != "" {
		e.Actor = Operator + " " + from.Operator
	}
	if e.Client == "" && from.Client != "" {
		e.Client = from.Client
		if e.Actor == "subscriber" {
			e.Actor = "client"
		}
	}
	source := ""
	if e.Source.IsValid() {
		source = e.Source.String()
	}
	value := func(column string, v any, cast string) string {
		if expr, ok := over[column]; ok {
			return expr
		}
		return q.Bind(v) + cast
	}
	q.With("audited_"+part, fmt.Sprintf(`
		INSERT INTO audit_events (event, outcome, reason, actor, subject, client_id, session_id, object, source, request_id)
		SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s FROM %s`,
		value("event", e.Name, "::text"), value("outcome", e.Outcome, "::text"), value("reason", e.Reason, "::text"),
		value("actor", e.Actor, "::text"), value("subject", optional(e.Subject), "::uuid"), value("client_id", e.Client, "::text"),
		value("session_id", optional(e.Session), "::uuid"), value("object", e.Object, "::text"),
		value("source", source, "::text"), value("request_id", e.RequestID, "::text"), part))
}

// Follow is [Record] for what another record's event brings about by itself: who asked for that, and from where, is told there.
func Follow(q *postgres.Query, part string, e Event, over Expressions) {
	e.Actor = System
	Record(context.Background(), q, part, e, over)
}

func optional(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id
}
