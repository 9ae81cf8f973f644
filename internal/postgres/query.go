package postgres

import (
	"hash/maphash"
	"slices"
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
	parts    []part
	gathered []gathering
	final    string
	args     []any
	once     map[string]string // placeholders
	then     []func()
}

// part is `name AS (body)`.
type part struct{ name, body string }

// gathering is a part that several packages add rows to.
type gathering struct {
	name, head string
	rows       []string
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

// BindOnce adds an argument that parts have in common, unless one of that name has been added.
func (q *Query) BindOnce(name string, v any) string {
	if have, ok := q.once[name]; ok {
		return have
	}
	if q.once == nil {
		q.once = map[string]string{}
	}
	q.once[name] = q.Bind(v)
	return q.once[name]
}

// With adds a part: `name AS (body)`.
func (q *Query) With(name, body string) {
	if q.parts == nil {
		q.parts = make([]part, 0, 32)
	}
	q.parts = append(q.parts, part{name, body})
}

// Gather adds to a part that comes after all others: head, an INSERT without its rows, and the rows that the SELECT statements give which were gathered under that name. One part
// that writes to a table costs less than several, above all if most of them have nothing to write.
func (q *Query) Gather(name, head, rows string) {
	for i := range q.gathered {
		if q.gathered[i].name == name {
			q.gathered[i].rows = append(q.gathered[i].rows, rows)
			return
		}
	}
	q.gathered = append(q.gathered, gathering{name: name, head: head, rows: []string{rows}})
}

// Has reports whether there is a part of that name, so that what several need is added once.
func (q *Query) Has(name string) bool {
	return slices.ContainsFunc(q.parts, func(p part) bool { return p.name == name })
}

// Finally sets the final statement.
func (q *Query) Finally(statement string) { q.final = statement }

// Then has f called once the statement has committed, if it does. f must not wait for anything.
func (q *Query) Then(f func()) { q.then = append(q.then, f) }

// pieces gives yield the pieces of the SQL text one after another, the same for the same construction, until it returns false.
func (q *Query) pieces(yield func(string) bool) {
	separator := "WITH "
	each := func(pieces ...string) bool {
		for _, piece := range pieces {
			if !yield(piece) {
				return false
			}
		}
		return true
	}
	for _, p := range q.parts {
		if !each(separator, p.name, " AS (", p.body, ")") {
			return
		}
		separator = ",\n"
	}
	for _, g := range q.gathered {
		if !each(separator, g.name, " AS (", g.head) {
			return
		}
		for i, rows := range g.rows {
			union := "\n"
			if i > 0 {
				union = "\nUNION ALL "
			}
			if !each(union, rows) {
				return
			}
		}
		if !yield(")") {
			return
		}
		separator = ",\n"
	}
	if len(q.parts)+len(q.gathered) > 0 && !yield("\n") {
		return
	}
	yield(q.final)
}

// String is the SQL text. The same construction gives the same text, so that it is prepared once.
func (q *Query) String() string {
	length := 0
	for piece := range q.pieces {
		length += len(piece)
	}
	var text strings.Builder
	text.Grow(length)
	for piece := range q.pieces {
		text.WriteString(piece)
	}
	return text.String()
}

// hash is one of the SQL text.
func (q *Query) hash(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for piece := range q.pieces {
		h.WriteString(piece) //nolint:errcheck,revive // it never fails
	}
	return h.Sum64()
}

// is reports whether text is the query's.
func (q *Query) is(text string) bool {
	for piece := range q.pieces {
		if !strings.HasPrefix(text, piece) {
			return false
		}
		text = text[len(piece):]
	}
	return text == ""
}
