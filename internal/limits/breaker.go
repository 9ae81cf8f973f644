package limits

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Breaker looks at how tries end over all keys of a window, for guesses that are spread so thin that no key has too many: one password over all names, from
// addresses without number. While it is open every key of the window has room for [Window.Tight] hits only: the gate is slower for everybody, never shut, and
// never opened.
//
// It is kept in table streaks. Nothing is counted for it while people wait: [Breaker.Watch] reads the records, every [Every].
type Breaker struct {
	Window Window
	// Event is the record of a try.
	Event string
	// Only those count of which this SQL condition on records holds. Empty: all.
	Only string
	// Failures in Period that open it, if they are Share of all tries at least. A site whose people mistype a lot has more successes too.
	Failures int
	Share    float64
	Period   time.Duration
	// Pause is how long it stays open. Where that did not help it opens again.
	Pause time.Duration
}

// Every is how often breakers are watched.
const Every = 10 * time.Second

// scope of breakers in table streaks.
const breakerScope = "breaker"

// sampled bounds how many records are looked at: the latest.
const sampled = 50_000

// breakerOpen is an SQL condition: the breaker of the window that SQL expression name names is open.
func breakerOpen(name string) string {
	return fmt.Sprintf("EXISTS (SELECT FROM streaks b WHERE b.scope = '%s' AND b.key = convert_to(%s, 'UTF8') AND b.blocked_until > wall())", breakerScope, name)
}

// Tripped is that a breaker has just opened.
type Tripped struct {
	Failures int `db:"failures"`
	Tries    int `db:"tries"`
}

// Watch opens the breaker if it has to be, and says so to one caller of all: nil means that it did not open now. That it opened is recorded.
func (b Breaker) Watch(ctx context.Context, db *postgres.DB) (*Tripped, error) {
	if b.Failures == 0 {
		return nil, nil
	}
	q := new(postgres.Query)
	name := q.Bind(b.Window.Name) + "::text"
	// What was tried before it opened last does not open it again.
	only := b.Only
	if only == "" {
		only = "true"
	}
	q.With("latest", fmt.Sprintf(`SELECT event, outcome, reason, subject FROM audit_events WHERE at > greatest(wall() - make_interval(secs => %s),
		(SELECT s.updated_at FROM streaks s WHERE s.scope = '%s' AND s.key = convert_to(%s, 'UTF8'))) ORDER BY at DESC LIMIT %d`,
		q.Bind(b.Period.Seconds())+"::float8", breakerScope, name, sampled))
	q.With("counts", fmt.Sprintf("SELECT count(*) AS tries, count(*) FILTER (WHERE outcome <> '%s') AS failures FROM latest WHERE event = %s AND reason NOT IN ('overloaded', 'not_checked') AND (%s)", audit.Success, q.Bind(b.Event)+"::text", only)) // which nobody looked at
	q.With("tripped", fmt.Sprintf(`
		INSERT INTO streaks AS s (scope, key, failures, blocked_until)
		SELECT '%s', convert_to(%s, 'UTF8'), failures, wall() + make_interval(secs => %s) FROM counts WHERE failures >= %s AND failures >= tries * %s
		ON CONFLICT (scope, key) DO UPDATE SET failures = excluded.failures, blocked_until = excluded.blocked_until, updated_at = wall() WHERE s.blocked_until <= wall()
		RETURNING s.failures`, breakerScope, name, q.Bind(b.Pause.Seconds())+"::float8", q.Bind(b.Failures)+"::int", q.Bind(b.Share)+"::float8"))
	audit.Record(ctx, q, "tripped", audit.Event{Name: "guessing.breaker", Outcome: audit.Refused, Reason: "failures", Actor: audit.System, Object: b.Window.Name}, nil)
	q.Finally("SELECT t.failures, c.tries FROM tripped t, counts c")
	var tripped Tripped
	switch err := db.Get(ctx, &tripped, q); {
	case errors.Is(err, postgres.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("watch %s: %w", b.Window.Name, err)
	}
	return &tripped, nil
}
