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
	"slices"

	"github.com/google/uuid"
	"github.com/lib/pq"

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

// Record adds to q one record for each row of part. All records of a statement are one part of it, `audited`.
func Record(ctx context.Context, q *postgres.Query, part string, e Event, over Expressions) {
	from := From(ctx)
	requestID := ""
	if e.RequestID == "" {
		e.RequestID, requestID = from.RequestID, "audit request"
	}
	source, sourceOf := "", ""
	switch {
	case e.Source.IsValid():
		source = e.Source.String()
	case from.Source.IsValid():
		source, sourceOf = from.Source.String(), "audit source"
	}
	if e.Actor == Operator && from.Operator != "" {
		e.Actor = Operator + " " + from.Operator
	}
	client := ""
	if e.Client == "" && from.Client != "" {
		e.Client, client = from.Client, "audit client"
		if e.Actor == "subscriber" {
			e.Actor = "client"
		}
	}
	// What is the same in each run stands in the statement, what is empty is not passed, and what is the request's is passed once.
	text := func(column, v, once string) string {
		switch expr, ok := over[column]; {
		case ok:
			return expr
		case v == "":
			return "''"
		case once != "":
			return q.BindOnce(once, v) + "::text"
		}
		return q.Bind(v) + "::text"
	}
	fixed := func(column, v string) string {
		if expr, ok := over[column]; ok {
			return expr
		}
		return pq.QuoteLiteral(v)
	}
	id := func(column string, v uuid.UUID) string {
		switch expr, ok := over[column]; {
		case ok:
			return expr
		case v == uuid.Nil:
			return "NULL::uuid"
		}
		return q.Bind(v) + "::uuid"
	}
	actor := text
	if slices.Contains([]string{"subscriber", "client", Operator, System}, e.Actor) {
		actor = func(column, v, _ string) string { return fixed(column, v) }
	}
	q.Gather("audited", "INSERT INTO audit_events (event, outcome, reason, actor, subject, client_id, session_id, object, source, request_id)",
		fmt.Sprintf("SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s FROM %s",
			fixed("event", e.Name), fixed("outcome", e.Outcome), text("reason", e.Reason, ""), actor("actor", e.Actor, ""), id("subject", e.Subject), text("client_id", e.Client, client),
			id("session_id", e.Session), text("object", e.Object, ""), text("source", source, sourceOf), text("request_id", e.RequestID, requestID), part))
}

// Follow is [Record] for what another record's event brings about by itself: who asked for that, and from where, is told there.
func Follow(q *postgres.Query, part string, e Event, over Expressions) {
	e.Actor = System
	Record(context.Background(), q, part, e, over)
}
