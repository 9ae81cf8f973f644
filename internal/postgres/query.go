package postgres

import (
	"strconv"
	"strings"
)

// Query is one statement under construction: named common table expressions and a final statement.
// Packages add their part with [Query.With]; a part that must happen only if another did selects from
// that one by name. The zero value is ready.
//
// PostgreSQL runs every data-modifying part exactly once, all in one snapshot and one transaction: parts do not see
// each other's changes, only each other's RETURNING rows.
type Query struct {
	parts []string
	final string
	args  []any
	then  []func()
}

// NewQuery makes a query without parts.
func NewQuery(final string, args ...any) *Query {
	return &Query{final: final, args: args}
}

// Bind adds an argument and gives its placeholder.
func (q *Query) Bind(v any) string {
	q.args = append(q.args, v)
	return "$" + strconv.Itoa(len(q.args))
}

// With adds a part: `name AS (body)`.
func (q *Query) With(name, body string) {
	q.parts = append(q.parts, name+" AS ("+body+")")
}

// Finally sets the final statement.
func (q *Query) Finally(statement string) { q.final = statement }

// Then has f called once the statement has committed, if it does. f must not wait for anything.
func (q *Query) Then(f func()) { q.then = append(q.then, f) }

// String is the SQL text. The same construction gives the same text, so that it is prepared once.
func (q *Query) String() string {
	if len(q.parts) == 0 {
		return q.final
	}
	return "WITH " + strings.Join(q.parts, ",\n") + "\n" + q.final
}
