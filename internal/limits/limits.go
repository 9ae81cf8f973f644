// Package limits says how often something may happen. Limits are data: each has a name, a number and a time.
//
// There are two kinds. A [Window] bounds hits in any stretch of time, exactly: the row keeps the times of the
// latest hits. One that many requests hit at once is shared: it is kept in shards that nobody has to wait for, each with its part of the
// burst, as counts by time instead of times. A [Streak] counts failures in a row and blocks for longer and longer; one success ends it.
// Both are paid before the work they guard, by a conditional write that is part of the caller's own statement, and live
// in the database: restarts, replicas and parallel requests share them. An error is a refusal.
package limits

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// Window allows Burst hits in any Period.
type Window struct {
	Name   string
	Burst  int
	Period time.Duration
	// Shared is for windows with large bursts that many requests hit at once. Its row would hold as many times as the burst, and everybody would wait for it. A shared
	// window never allows more than Burst in any Period either; once full it has room again up to a 24th of the period late.
	Shared bool
	// Tight is the burst in its place while the window's [Breaker] is open. 0: it has none. Not for shared windows.
	Tight int

	inner *Window // see Within
}

// Within gives w with a tighter bound for a shorter stretch: one row keeps the hits that both are judged by. Whoever hits one of them only has to hit it as a window of its own, which this one
// knows nothing of. It is nil where one row cannot keep both: inner has the larger burst or the longer period, either has none, is shared or has a tight burst.
func (w Window) Within(inner Window) *Window {
	if inner.Burst == 0 || inner.Burst > w.Burst || inner.Period > w.Period || w.Shared || inner.Shared || w.Tight+inner.Tight > 0 || w.inner != nil || inner.inner != nil {
		return nil
	}
	w.inner = &inner
	return &w
}

// How shared windows are kept: shards of a window, and slots that a period is counted in. One more slot is kept, for a period begins and ends within slots.
const (
	shards = 16
	slots  = 24
)

// Hit is one use of a window under a key: a keyed hash of the number, the address, the user's id.
type Hit struct {
	Window Window
	Key    []byte

	ahead int // so many more are taken: see [Purse]
}

// Take adds parts to q that take one hit of each of hits if all have room, for as long as part from has a row.
// Part `limit_taken` then has one row with `allowed` (bool), `retry_at` (the earliest time at which all have
// room again; NULL when allowed, or when part from has no row) and `full_window` (the name of the window that has none). Parts that depend on it select `FROM limit_taken WHERE allowed`.
//
// Under a race the conditional write of each window decides, so that no window is ever overspent; a hit in a window
// whose neighbour refused in that same instant is then spent for nothing.
func Take(q *postgres.Query, from string, hits ...Hit) {
	ask(q, from, hits).take(q, "ARRAY[wall()]")
}

// TakeUnless is Take for callers whose statement knows at once whether the try succeeds: where won, an SQL condition over part from, is true, all
// of hits need room as ever, but none is spent. A statement cannot take and refund the same window. Part from has one row at most, and is not
// asked while a window is full. Part `limit_taken` has column `won` besides. None of hits is shared.
func TakeUnless(q *postgres.Query, from, won string, hits ...Hit) {
	a := ask(q, from, hits)
	q.With("limit_won", fmt.Sprintf("SELECT %s AS won FROM %s WHERE (SELECT retry_at FROM limit_full) IS NULL", won, from))
	a.take(q, "CASE WHEN (SELECT won FROM limit_won) THEN '{}'::timestamptz[] ELSE ARRAY[wall()] END", "(SELECT won FROM limit_won) AS won")
}

// asking is what kinds of windows are hit, on which the statement depends.
type asking struct {
	own, shared int    // so many
	tight       bool   // some have a tighter burst
	inner       string // SQL for when the inner window of row w has room again, if some have one
	// SQL expressions for arrays of what is known of each, those of one's own first; called and stretches are of the inner windows where there are.
	names, keys, periods, called, stretches string
}

// ask adds what is wanted (part limit_asked), which shard of each shared window (limit_shard), and whether there is room (limit_full).
func ask(q *postgres.Query, from string, hits []Hit) (a asking) {
	hits = slices.Clone(hits)
	last := func(h Hit) int {
		if h.Window.Shared {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(hits, func(x, y Hit) int { // the order in which rows are locked, the same for everybody
		return cmp.Or(last(x)-last(y), strings.Compare(x.Window.Name, y.Window.Name), bytes.Compare(x.Key, y.Key))
	})
	names, keys, shared := make([]string, len(hits)), make([][]byte, len(hits)), make([]bool, len(hits))
	bursts, tights, periods, wanted := make([]int64, len(hits)), make([]int64, len(hits)), make([]float64, len(hits)), make([]int64, len(hits))
	inners, within, stretches := make([]string, len(hits)), make([]int64, len(hits)), make([]float64, len(hits))
	for i, h := range hits {
		names[i], keys[i], shared[i] = h.Window.Name, h.Key, h.Window.Shared
		bursts[i], tights[i], periods[i] = int64(h.Window.Burst), int64(h.Window.Tight), h.Window.Period.Seconds()
		wanted[i] = int64(1 + h.ahead)
		inners[i], stretches[i] = names[i], periods[i] // of a window without one
		if w := h.Window.inner; w != nil {
			inners[i], within[i], stretches[i] = w.Name, int64(w.Burst), w.Period.Seconds()
			a.inner += fmt.Sprintf(" WHEN w.name = %s::text AND w.key = %s::bytea THEN %s", q.Bind(names[i]), q.Bind(keys[i]), leaves(q.Bind(within[i])+"::int", q.Bind(stretches[i])+"::float8"))
		}
		if a.tight = a.tight || h.Window.Tight > 0; h.Window.Shared {
			a.shared++
		} else {
			a.own++
		}
	}
	a.names, a.keys, a.periods = q.Bind(pq.Array(names))+"::text[]", q.Bind(pq.Array(keys))+"::bytea[]", q.Bind(pq.Array(periods))+"::float8[]"
	a.called, a.stretches = a.names, a.periods
	arrays := a.names + ", " + a.keys + ", " + a.periods + ", " + q.Bind(pq.Array(bursts)) + "::bigint[]"
	columns, of := "name, key, seconds, full_burst AS burst", "name, key, seconds, full_burst"
	if a.tight {
		columns = fmt.Sprintf("name, key, seconds, full_burst, CASE WHEN tight > 0 AND tight < full_burst AND %s THEN tight ELSE full_burst END AS burst", breakerOpen("l.name"))
		arrays, of = arrays+", "+q.Bind(pq.Array(tights))+"::bigint[]", of+", tight"
	}
	if a.inner != "" {
		a.inner = "CASE" + a.inner + " END"
		a.called, a.stretches = q.Bind(pq.Array(inners))+"::text[]", q.Bind(pq.Array(stretches))+"::float8[]"
		columns += ", inner_name, inner_burst, inner_seconds"
		arrays, of = fmt.Sprintf("%s, %s, %s::bigint[], %s", arrays, a.called, q.Bind(pq.Array(within)), a.stretches), of+", inner_name, inner_burst, inner_seconds"
	}
	if a.shared > 0 {
		columns += fmt.Sprintf(", shared, wanted, floor(extract(epoch FROM wall()) / (seconds / %d))::bigint AS slot", slots)
		arrays, of = fmt.Sprintf("%s, %s::bool[], %s::bigint[]", arrays, q.Bind(pq.Array(shared)), q.Bind(pq.Array(wanted))), of+", shared, wanted"
	}
	q.With("limit_asked", fmt.Sprintf("SELECT %s FROM unnest(%s) AS l(%s) WHERE EXISTS (SELECT FROM %s)", columns, arrays, of, from))
	var full []string
	if a.own > 0 {
		name, retry := "l.name", leaves("l.burst", "l.seconds")
		if a.inner != "" {
			inner := leaves("l.inner_burst", "l.inner_seconds")
			name, retry = fmt.Sprintf("CASE WHEN %[1]s > %[2]s THEN l.name ELSE l.inner_name END", retry, inner), fmt.Sprintf("greatest(%s, %s)", retry, inner)
		}
		full = append(full, fmt.Sprintf(`
		SELECT %[1]s AS name, %[2]s AS retry_at FROM limit_asked l JOIN windows w USING (name, key) WHERE %[2]s > wall()`, name, retry))
	}
	if a.shared > 0 {
		// A shard that nobody holds is taken; else one that does not exist yet; else one is waited for. NULL: none has room.
		q.With("limit_shard", fmt.Sprintf(`
		SELECT l.*, coalesce(free.shard, shared_window_shard(l.name, l.key, l.burst, l.slot, %[1]d, l.wanted)) AS shard
		  FROM limit_asked l LEFT JOIN LATERAL (
		       SELECT w.shard FROM shared_windows w WHERE w.name = l.name AND w.key = l.key AND %[2]s LIMIT 1 FOR UPDATE OF w SKIP LOCKED) free ON true WHERE l.shared`,
			shards, room("w", quota("w.shard"), "l.slot", "l.wanted")))
		full = append(full, fmt.Sprintf(`
		SELECT l.name, coalesce(shared_window_retry(l.name, l.key, l.burst, l.seconds / %[2]d, %[1]d, %[2]d), wall() + make_interval(secs => l.seconds)) AS retry_at
		  FROM limit_shard l WHERE l.shard IS NULL`, shards, slots))
	}
	if full == nil {
		full = append(full, "SELECT NULL::text AS name, NULL::timestamptz AS retry_at WHERE false")
	}
	q.With("limit_full", "SELECT name, retry_at FROM ("+strings.Join(full, "\n\t\tUNION ALL ")+") f ORDER BY retry_at DESC LIMIT 1")
	return a
}

// leaves is SQL for when the burst-th latest hit of row w leaves its window, which has room again then. NULL: it never had so many.
func leaves(burst, seconds string) string {
	return fmt.Sprintf("w.hits[cardinality(w.hits) - %s + 1] + make_interval(secs => %s)", burst, seconds)
}

// quota is SQL for the part of the burst of window l that shard n has.
func quota(n string) string {
	return fmt.Sprintf("(l.burst / %[1]d + (%[2]s < l.burst %% %[1]d)::int)", shards, n)
}

// kept is SQL for what counts of row w still count in a later slot, besides that slot's own.
func kept(w, slot string) string {
	return fmt.Sprintf("(array_fill(0, ARRAY[least(%[2]s - %[1]s.slot - 1, %[3]d)::int]) || %[1]s.counts)[:%[3]d]", w, slot, slots)
}

// room is an SQL condition: row w has room for so many in slot. The sum that it holds is that of its own slot, and never too small later.
func room(w, quota, slot, wanted string) string {
	return fmt.Sprintf("CASE WHEN %[1]s.used + %[4]s <= %[2]s THEN true WHEN %[1]s.slot < %[3]s THEN shared_window_sum(%[1]s.counts, %[3]s - %[1]s.slot) + %[4]s <= %[2]s ELSE false END", w, quota, slot, wanted)
}

// take adds the conditional writes. spent is an SQL expression for the times that it adds to each window: the row is locked and judged even if
// there are none.
func (a asking) take(q *postgres.Query, spent string, columns ...string) {
	const none = "SELECT NULL::text AS name, NULL::bytea AS key WHERE false"
	own := ""
	if a.shared > 0 {
		own = " AND NOT shared"
	}
	// The window's full burst is how many hits are kept: a tighter one ends, and then they count again.
	burst := "excluded.burst"
	if a.tight {
		burst = "(SELECT burst FROM limit_asked l WHERE l.name = w.name AND l.key = w.key)"
	}
	if a.own > 0 {
		full, inner := "burst", ""
		if a.tight {
			full = "full_burst"
		}
		if a.inner != "" {
			inner = fmt.Sprintf(" AND coalesce(%s, '-infinity') <= wall()", a.inner)
		}
		q.With("limit_hit", fmt.Sprintf(`
		INSERT INTO windows AS w (name, key, hits, expires_at, burst)
		SELECT name, key, %[1]s, wall() + make_interval(secs => seconds), %[2]s
		  FROM limit_asked WHERE (SELECT retry_at FROM limit_full) IS NULL%[3]s
		ON CONFLICT (name, key) DO UPDATE
		   SET hits = (w.hits || excluded.hits)[greatest(1, cardinality(w.hits) + 2 - excluded.burst):], expires_at = excluded.expires_at
		 WHERE (cardinality(w.hits) < %[4]s OR w.hits[cardinality(w.hits) - %[4]s + 1] <= wall() - (excluded.expires_at - wall()))%[5]s
		RETURNING w.name, w.key`, spent, full, own, burst, inner))
	} else {
		q.With("limit_hit", none)
	}
	if a.shared > 0 { // After the others, so that what they refuse is not spent here.
		q.With("limit_hit_shared", fmt.Sprintf(`
		INSERT INTO shared_windows AS w (name, key, shard, slot, counts, used, quota, expires_at)
		SELECT name, key, shard, slot, wanted::int || array_fill(0, ARRAY[%[1]d]), wanted, %[2]s, wall() + make_interval(secs => 2 * seconds)
		  FROM limit_shard l WHERE (SELECT retry_at FROM limit_full) IS NULL AND (SELECT count(*) FROM limit_hit) = %[5]d
		ON CONFLICT (name, key, shard) DO UPDATE
		   SET counts = CASE WHEN w.slot < excluded.slot THEN excluded.counts[1] || %[3]s ELSE (w.counts[1] + excluded.counts[1]) || w.counts[2:] END,
		       used = CASE WHEN w.slot < excluded.slot THEN excluded.used + shared_window_sum(w.counts, excluded.slot - w.slot) ELSE w.used + excluded.used END,
		       slot = greatest(w.slot, excluded.slot), quota = excluded.quota, expires_at = excluded.expires_at
		 WHERE %[4]s
		RETURNING w.name, w.key`, slots, quota("l.shard"), kept("w", "excluded.slot"), room("w", "excluded.quota", "excluded.slot", "excluded.used"), a.own))
	}
	hit := "limit_hit"
	if a.shared > 0 {
		hit = "(SELECT name, key FROM limit_hit UNION ALL SELECT name, key FROM limit_hit_shared) h"
	}
	// Two lists cost less than one aggregate, and can be counted.
	q.With("limit_spent", fmt.Sprintf("SELECT cardinality(names) AS hits, names, keys, asked FROM (SELECT ARRAY(SELECT name FROM %[1]s) AS names, ARRAY(SELECT key FROM %[1]s) AS keys, EXISTS (SELECT FROM limit_asked) AS asked OFFSET 0) h", hit))
	// Where one has been missed somebody else was faster, unless nothing was asked for. Shared windows were not tried where one of the others was missed.
	all := a.own + a.shared
	tried := fmt.Sprintf("[:CASE WHEN s.hits < %d THEN %[1]d ELSE %d END]", a.own, all)
	missed := fmt.Sprintf("limit_missed((%[1]s)%[4]s, (%[2]s)%[4]s, (%[3]s)%[4]s, s.names, s.keys)", a.names, a.keys, a.stretches, tried)
	q.With("limit_taken", fmt.Sprintf(`
		SELECT s.hits = %[1]d AND %[1]d > 0 AS allowed,
		       CASE WHEN s.hits < %[1]d AND s.asked THEN coalesce(f.retry_at, wall() + least(interval '1 minute', make_interval(secs => (%[4]s)[%[2]s]))) END AS retry_at,
		       CASE WHEN s.hits < %[1]d AND s.asked THEN coalesce(f.name, (%[3]s)[%[2]s]) END AS full_window%[5]s
		  FROM limit_spent s LEFT JOIN limit_full f ON true`,
		all, missed, a.called, a.stretches, strings.Join(append([]string{""}, columns...), ", ")))
}

// Refund adds part `limit_refunded` to q: the newest hit of each of hits is taken back, for as long as part from has a row.
func Refund(q *postgres.Query, from string, hits ...Hit) {
	names, keys := make([]string, len(hits)), make([][]byte, len(hits))
	for i, h := range hits {
		names[i], keys[i] = h.Window.Name, h.Key
	}
	q.With("limit_refunded", fmt.Sprintf(`
		UPDATE windows w SET hits = w.hits[:cardinality(w.hits) - 1]
		  FROM unnest(%s::text[], %s::bytea[]) AS l(name, key)
		 WHERE w.name = l.name AND w.key = l.key AND cardinality(w.hits) > 0 AND EXISTS (SELECT FROM %s)`,
		q.Bind(pq.Array(names)), q.Bind(pq.Array(keys)), from))
}

// Streak blocks a key after failures in a row.
type Streak struct {
	// Scope is stored with each key: "password", "factor".
	Scope string
	// Delays are the waits after the first failures that have one: {5: 1s} means that after the fifth the next try has
	// to wait a second. May be nil.
	DelayFrom int
	// Limit is how many failures in a row lead to a block, again and again.
	Limit int
	// Tight is the limit in its place where Tightly, an SQL condition, is true. Empty: nowhere.
	Tight   int
	Tightly string
	// Block is the first block; each further one is twice as long, up to MaxBlock.
	Block, MaxBlock time.Duration
	// Ceiling is how many in a row block for good, until an operator or a recovery clears the count.
	Ceiling int
}

// limit is an SQL expression for the limit that holds.
func (s Streak) limit() string {
	if s.Tightly == "" {
		return fmt.Sprint(s.Limit)
	}
	return fmt.Sprintf("(CASE WHEN %s THEN %d ELSE %d END)", s.Tightly, s.Tight, s.Limit)
}

// warnBefore is how many failures before the ceiling somebody has to be told.
const warnBefore = 10

// Stage is an SQL expression for what the n-th failure in a row has come to: 'blocked' for a while, 'warning' when the block for good is near, 'closed' when it is there,
// or NULL.
func (s Streak) Stage(n string) string {
	return fmt.Sprintf("CASE WHEN %[1]s >= %[2]d THEN 'closed' WHEN %[1]s = %[3]d THEN 'warning' WHEN %[1]s %% %[4]s = 0 THEN 'blocked' END", n, s.Ceiling, s.Ceiling-warnBefore, s.limit())
}

// Pay adds part `streak_paid` to q: it counts one failure for the key that SQL expression key gives, for as long as
// part from has a row and the key is not blocked, and returns `key`, `failures` and `blocked_until` as they are after it. Whoever succeeds
// takes the failure back with [Streak.Clear], whoever was not tried at all with [Streak.Refund]. No row: blocked, and nothing was counted. The statement has to read the part.
func (s Streak) Pay(q *postgres.Query, from, key string) { s.PayUnless(q, from, key, "false", false) }

// PayUnless is Pay for callers whose statement knows at once whether the try succeeds: where won, an SQL condition over
// part from, is true the streak ends instead, if clears is true, and stays as it is otherwise. Who succeeds without having
// failed leaves no row behind. No other part of the statement may then change the key's row: it would be changed twice, which PostgreSQL refuses.
func (s Streak) PayUnless(q *postgres.Query, from, key, won string, clears bool) {
	scope := q.Bind(s.Scope) + "::text"
	q.With("streak_paid", fmt.Sprintf(`
		SELECT p.key, (p.counted).failures, (p.counted).blocked_until FROM (
		       SELECT k.key, CASE WHEN k.won AND NOT EXISTS (SELECT FROM streaks s WHERE s.scope = %[1]s AND s.key = k.key) THEN ROW(0, NULL)::streak_count
		                     ELSE streak_pay(%[1]s, k.key, k.won, %[5]v, %[6]d, %[7]s, %[8]f, %[9]f, %[10]d) END AS counted
		         FROM (SELECT %[2]s AS key, %[3]s AS won FROM %[4]s) k OFFSET 0) p
		 WHERE (p.counted).failures IS NOT NULL`,
		scope, key, won, from, clears, s.DelayFrom, s.limit(), s.Block.Seconds(), s.MaxBlock.Seconds(), s.Ceiling))
}

// Refund adds part `streak_refunded` to q: the failure that [Streak.Pay] counted as the failures-th is taken back, with the block that it brought,
// for as long as part from has a row. It is for tries that were never looked at. A count that ended since stays as it is.
func (s Streak) Refund(q *postgres.Query, from, key string, failures int) {
	n := q.Bind(failures) + "::int"
	q.With("streak_refunded", fmt.Sprintf(`
		UPDATE streaks SET failures = streaks.failures - 1, blocked_until = CASE WHEN streaks.failures > %[4]s THEN streaks.blocked_until END
		  FROM %[1]s WHERE streaks.scope = %[2]s AND streaks.key = %[3]s AND streaks.failures >= %[4]s`, from, q.Bind(s.Scope), key, n))
}

// Clear adds part `streak_cleared` to q: the count of the key is gone, for as long as part from has a row.
func (s Streak) Clear(q *postgres.Query, from, key string) {
	q.With("streak_cleared", fmt.Sprintf(`
		DELETE FROM streaks USING %[1]s WHERE streaks.scope = %[2]s AND streaks.key = %[3]s`, from, q.Bind(s.Scope), key))
}

// BlockedUntil is an SQL expression for the end of the key's block, or NULL. Of a block for good it is a time that [Endless] knows: no reader of
// times knows infinity.
func (s Streak) BlockedUntil(q *postgres.Query, key string) string {
	return fmt.Sprintf("streak_until(%s::text, %s, '%s')", q.Bind(s.Scope), key, endless.Format(time.RFC3339))
}

// endless is the end of blocks that have none.
var endless = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// Endless reports whether a block until then is one for good, which somebody has to lift.
func Endless(until time.Time) bool { return !until.Before(endless) }

// SourceKey is the part of a network address that is counted: an IPv6 caller owns a /64.
func SourceKey(addr netip.Addr) []byte {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		prefix, err := addr.Prefix(64)
		if err == nil {
			addr = prefix.Addr()
		}
	}
	return addr.AsSlice()
}
