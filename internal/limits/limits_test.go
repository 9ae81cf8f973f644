package limits_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type taken struct {
	Allowed bool       `db:"allowed"`
	RetryAt *time.Time `db:"retry_at"`
}

func take(t *testing.T, db *postgres.DB, hits ...limits.Hit) taken {
	t.Helper()
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	limits.Take(q, "asked", hits...)
	q.Finally("SELECT allowed, retry_at FROM limit_taken")
	var got taken
	if err := db.Get(t.Context(), &got, q); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWindow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	hour := limits.Hit{Window: limits.Window{Name: "number-hour", Burst: 3, Period: time.Hour}, Key: []byte("a")}
	for i, wait := range []time.Duration{0, 20 * time.Minute, 20 * time.Minute} {
		db.Advance(t, wait)
		if got := take(t, db.DB, hour); !got.Allowed || got.RetryAt != nil {
			t.Fatalf("hit %d: %+v, want allowed", i+1, got)
		}
	}
	got := take(t, db.DB, hour)
	if got.Allowed || got.RetryAt == nil {
		t.Fatalf("hit 4 in the hour: %+v, want refused with a time", got)
	}
	if wait := got.RetryAt.Sub(db.Now(t)); wait < 19*time.Minute || wait > 20*time.Minute {
		t.Fatalf("retry in %v, want 20m: when the first hit leaves the window", wait)
	}
	db.Advance(t, 20*time.Minute+time.Second)
	if got := take(t, db.DB, hour); !got.Allowed {
		t.Fatal("refused after the first hit left the window")
	}
	if got := take(t, db.DB, hour); got.Allowed {
		t.Fatal("two hits for one that left")
	}
	other := hour
	other.Key = []byte("b")
	if got := take(t, db.DB, other); !got.Allowed {
		t.Fatal("another key is refused")
	}
}

// One row keeps the hits of an hour and of a day: what either refuses is refused, by its name and until it has room.
func TestWindowWithin(t *testing.T) { // LIM-5
	t.Parallel()
	db := pgtest.New(t)
	hour, day := limits.Window{Name: "number-hour", Burst: 2, Period: time.Hour}, limits.Window{Name: "number-day", Burst: 3, Period: 24 * time.Hour}
	both := limits.Hit{Window: *day.Within(hour), Key: []byte("a")}
	other := limits.Hit{Window: limits.Window{Name: "other", Burst: 100, Period: time.Minute}, Key: []byte("a")}
	try := func(name string, wait time.Duration) {
		t.Helper()
		q := new(postgres.Query)
		q.With("asked", "SELECT 1")
		limits.Take(q, "asked", other, both)
		q.Finally("SELECT allowed, coalesce(full_window, '') AS full_window, coalesce(extract(epoch FROM retry_at - wall()), 0)::float8 AS wait FROM limit_taken")
		var got struct {
			Allowed bool    `db:"allowed"`
			Full    string  `db:"full_window"`
			Wait    float64 `db:"wait"`
		}
		if err := db.Get(t.Context(), &got, q); err != nil {
			t.Fatal(err)
		}
		if off := time.Duration(got.Wait*float64(time.Second)) - wait; got.Allowed != (name == "") || got.Full != name || off > 0 || off < -pgtest.Patience {
			t.Fatalf("%+v; want refused by %q for %v", got, name, wait)
		}
	}
	try("", 0)
	db.Advance(t, 30*time.Minute)
	try("", 0)
	try("number-hour", 30*time.Minute)
	db.Advance(t, 31*time.Minute)
	try("", 0)
	try("number-day", 23*time.Hour-time.Minute)
	db.Advance(t, 23*time.Hour)
	try("", 0)
	if n := 0; db.GetContext(t.Context(), &n, "SELECT count(*) FROM windows WHERE key = 'a' AND name <> 'other'") != nil || n != 1 {
		t.Errorf("%d rows, want one", n)
	}

	both.Key = []byte("b")
	tighter := limits.Hit{Window: *day.Within(limits.Window{Name: "number-minute", Burst: 1, Period: time.Minute}), Key: []byte("z")} // the same window, under another key, with another bound
	for _, race := range []struct {
		hits []limits.Hit
		want int64
	}{{[]limits.Hit{both}, 2}, {[]limits.Hit{{Window: both.Window, Key: []byte("d")}, tighter}, 1}} {
		var allowed atomic.Int64
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if take(t, db.DB, race.hits...).Allowed {
					allowed.Add(1)
				}
			})
		}
		group.Wait()
		if n := allowed.Load(); n != race.want {
			t.Errorf("%d of 20 at once were allowed, want %d", n, race.want)
		}
	}

	if day.Within(limits.Window{Name: "hour", Burst: 4, Period: time.Hour}) != nil || hour.Within(day) != nil || day.Within(limits.Window{Name: "hour", Period: time.Hour}) != nil {
		t.Error("one row is to keep what it cannot")
	}
}

// Whoever loses the last room of a window to somebody else is told of that window, and not of a shared one that was not tried.
func TestMissedInRace(t *testing.T) { // SN-20
	t.Parallel()
	db := pgtest.New(t)
	hour, day := limits.Window{Name: "number-hour", Burst: 1, Period: time.Hour}, limits.Window{Name: "number-day", Burst: 2, Period: 24 * time.Hour}
	hits := []limits.Hit{
		{Window: limits.Window{Name: "budget-day", Burst: 100, Period: 24 * time.Hour, Shared: true}, Key: []byte("a")},
		{Window: limits.Window{Name: "budget-minute", Burst: 100, Period: time.Minute, Shared: true}, Key: []byte("a")},
		{Window: *day.Within(hour), Key: []byte("a")},
	}
	full := behind(t, db, "INSERT INTO windows (name, key, hits, expires_at) VALUES ('number-day', 'a', ARRAY[wall()], wall() + interval '1 day')", func() (name string) {
		q := new(postgres.Query)
		q.With("asked", "SELECT 1")
		limits.Take(q, "asked", hits...)
		q.Finally("SELECT coalesce(full_window, 'none') FROM limit_taken")
		if err := db.Get(t.Context(), &name, q); err != nil {
			t.Error(err)
		}
		return name
	})
	if full != "number-hour" {
		t.Errorf("%s is full, want number-hour", full)
	}
}

// behind has do begin while somebody else's statement is done and not committed, and wait for it.
func behind[T any](t *testing.T, db *pgtest.Database, statement string, do func() T) T {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // committed by then
	if _, err := tx.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	done := make(chan T, 1)
	go func() { done <- do() }()
	pgtest.Until(t, "somebody waits for the row", func() bool {
		if len(done) > 0 {
			t.Fatal("nobody waited for the row")
		}
		var waiting int
		err := db.GetContext(t.Context(), &waiting, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
		return err == nil && waiting > 0
	})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return <-done
}

func TestWindowsTogetherOrNotAtAll(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	narrow := limits.Hit{Window: limits.Window{Name: "narrow", Burst: 1, Period: time.Minute}, Key: []byte("a")}
	wide := limits.Hit{Window: limits.Window{Name: "wide", Burst: 2, Period: time.Minute}, Key: []byte("a")}
	if !take(t, db.DB, narrow, wide).Allowed {
		t.Fatal("first pair refused")
	}
	if take(t, db.DB, narrow, wide).Allowed {
		t.Fatal("narrow overspent")
	}
	if !take(t, db.DB, wide).Allowed {
		t.Fatal("the refused pair was charged to the wide window")
	}
}

// Where nothing is asked for nothing is refused: there is no time to come back at, and no window to blame.
func TestTakeNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, shared := range []bool{false, true} {
		q := new(postgres.Query)
		q.With("nobody", "SELECT 1 WHERE false")
		limits.Take(q, "nobody", limits.Hit{Window: limits.Window{Name: "own", Burst: 3, Period: time.Hour}, Key: []byte("a")},
			limits.Hit{Window: limits.Window{Name: "other", Burst: 3, Period: time.Hour, Shared: shared}, Key: []byte("a")})
		q.Finally("SELECT allowed, retry_at, full_window FROM limit_taken")
		var got struct {
			taken
			Full *string `db:"full_window"`
		}
		if err := db.Get(t.Context(), &got, q); err != nil {
			t.Fatal(err)
		}
		if got.Allowed || got.RetryAt != nil || got.Full != nil {
			t.Errorf("shared %v: %+v, want neither allowed nor refused", shared, got)
		}
	}
}

func TestTakeUnless(t *testing.T) { // THR-5: who is right spends nothing, and needs room all the same
	t.Parallel()
	db := pgtest.New(t)
	hit := limits.Hit{Window: limits.Window{Name: "wrong", Burst: 3, Period: time.Hour}, Key: []byte("a")}
	try := func(right bool) (got taken) {
		t.Helper()
		q := new(postgres.Query)
		q.With("asked", "SELECT "+q.Bind(right)+"::bool AS is_right")
		limits.TakeUnless(q, "asked a", "a.is_right", hit)
		q.Finally("SELECT allowed, retry_at FROM limit_taken WHERE NOT allowed OR won = " + q.Bind(right) + "::bool")
		if err := db.Get(t.Context(), &got, q); err != nil {
			t.Error(err)
		}
		return got
	}
	spent := func(want int) {
		t.Helper()
		var n int
		if err := db.GetContext(t.Context(), &n, "SELECT cardinality(hits) FROM windows"); err != nil || n != want {
			t.Fatalf("%d hits, %v; want %d", n, err, want)
		}
	}
	for range 5 {
		if !try(true).Allowed {
			t.Fatal("a right one is refused by an empty window")
		}
	}
	spent(0)
	for n := range 3 {
		if !try(false).Allowed || n < 2 && !try(true).Allowed {
			t.Fatalf("refused after %d wrong ones", n)
		}
		spent(n + 1)
	}
	for _, right := range []bool{true, false} {
		if got := try(right); got.Allowed || got.RetryAt == nil {
			t.Fatalf("right %v on a full window: %+v, want refused with a time", right, got)
		}
	}
	db.Advance(t, time.Hour+time.Second)
	if !try(true).Allowed {
		t.Fatal("a right one is refused after the hits left the window")
	}

	// The last room is being taken by somebody else: whoever is right has to see how that ends.
	if got := behind(t, db, "UPDATE windows SET hits = array_fill(wall(), ARRAY[3])", func() taken { return try(true) }); got.Allowed {
		t.Fatal("a right one passed a window that had become full")
	}
}

func TestWindowUnderRace(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	replica := db.Open(t)
	hit := limits.Hit{Window: limits.Window{Name: "race", Burst: 5, Period: time.Hour}, Key: []byte("a")}
	var wg sync.WaitGroup
	allowed := make(chan bool, 50)
	for i := range 50 {
		wg.Go(func() {
			on := db.DB
			if i%2 == 0 {
				on = replica
			}
			allowed <- take(t, on, hit).Allowed
		})
	}
	wg.Wait()
	close(allowed)
	n := 0
	for ok := range allowed {
		if ok {
			n++
		}
	}
	if n != 5 {
		t.Fatalf("%d of 50 parallel hits allowed, want 5", n)
	}
}

var password = limits.Streak{Scope: "password", DelayFrom: 5, Limit: 10, Block: 15 * time.Minute, MaxBlock: 2 * time.Hour, Ceiling: 100}

type paid struct {
	Failures     int     `db:"failures"`
	BlockedUntil *string `db:"blocked_until"`
}

func pay(t *testing.T, db *postgres.DB) (paid, bool) {
	t.Helper()
	q := new(postgres.Query)
	q.With("asked", "SELECT "+q.Bind([]byte("key"))+"::bytea AS key")
	password.Pay(q, "asked", "asked.key")
	q.Finally("SELECT failures, blocked_until::text FROM streak_paid")
	var got paid
	err := db.Get(t.Context(), &got, q)
	if errors.Is(err, postgres.ErrNotFound) {
		return paid{}, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return got, true
}

// A right answer is no way around a block. It ends the failures in a row where it may, and leaves them as they are elsewhere.
func TestStreakWon(t *testing.T) { // LIM-3
	t.Parallel()
	db := pgtest.New(t)
	right := func(clears bool) (got []int) {
		q := new(postgres.Query)
		q.With("asked", "SELECT "+q.Bind([]byte("key"))+"::bytea AS key")
		password.PayUnless(q, "asked", "asked.key", "true", clears)
		q.Finally("SELECT failures FROM streak_paid")
		if err := db.Select(t.Context(), &got, q); err != nil {
			t.Fatal(err)
		}
		return got
	}
	counted := func() (n int) {
		if err := db.GetContext(t.Context(), &n, "SELECT coalesce(sum(failures), 0) FROM streaks"); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := right(true); len(got) != 1 || got[0] != 0 || counted() != 0 {
		t.Fatalf("of who never failed: %v, %d failures", got, counted())
	}
	for range 5 {
		pay(t, db.DB) // the fifth brings a delay
	}
	if got := right(true); len(got) != 0 || counted() != 5 {
		t.Fatalf("while blocked: %v, %d failures, want nothing counted and nothing ended", got, counted())
	}
	db.Advance(t, time.Second)
	if got := right(false); len(got) != 1 || got[0] != 0 || counted() != 5 {
		t.Fatalf("without ending them: %v, %d failures", got, counted())
	}
	if got := right(true); len(got) != 1 || got[0] != 0 || counted() != 0 {
		t.Fatalf("after the block: %v, %d failures, want none", got, counted())
	}
}

func TestStreak(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for n := 1; n <= 4; n++ {
		if got, ok := pay(t, db.DB); !ok || got.BlockedUntil != nil {
			t.Fatalf("failure %d: %+v %v, want free", n, got, ok)
		}
	}
	for n, wait := range []time.Duration{1, 2, 4, 8, 16} { // the fifth to the ninth
		if _, ok := pay(t, db.DB); !ok {
			t.Fatalf("failure %d refused", n+5)
		}
		if _, ok := pay(t, db.DB); ok {
			t.Fatalf("no delay after failure %d", n+5)
		}
		db.Advance(t, wait*time.Second)
	}
	for block, minutes := range []time.Duration{15, 30, 60, 120, 120} {
		for {
			got, ok := pay(t, db.DB)
			if !ok {
				t.Fatalf("refused before block %d", block+1)
			}
			if got.Failures%10 == 0 {
				break
			}
			db.Advance(t, 20*time.Minute) // past every delay
		}
		db.Advance(t, minutes*time.Minute-time.Second)
		if _, ok := pay(t, db.DB); ok {
			t.Fatalf("block %d ended before %d min", block+1, minutes)
		}
		db.Advance(t, 2*time.Second)
	}
	for n := 51; n <= 100; n++ {
		if _, ok := pay(t, db.DB); !ok {
			t.Fatalf("failure %d refused", n)
		}
		db.Advance(t, 3*time.Hour)
	}
	db.Advance(t, 1000*time.Hour)
	if _, ok := pay(t, db.DB); ok {
		t.Fatal("the hundredth failure in a row did not block for good")
	}
	q := new(postgres.Query)
	q.Finally("SELECT " + password.BlockedUntil(q, q.Bind([]byte("key"))+"::bytea"))
	var until time.Time
	if err := db.Get(t.Context(), &until, q); err != nil || !limits.Endless(until) {
		t.Fatalf("blocked until %v, %v; want a time that stands for no end", until, err)
	}
	q = new(postgres.Query)
	q.With("asked", "SELECT "+q.Bind([]byte("key"))+"::bytea AS key")
	password.Clear(q, "asked", "asked.key")
	q.Finally("SELECT 1")
	if _, err := db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if got, ok := pay(t, db.DB); !ok || got.Failures != 1 {
		t.Fatalf("after Clear: %+v %v, want a first failure", got, ok)
	}
}

func TestStreakRefund(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		paid        int
		refunded    int // which of them
		wantBlocked bool
	}{
		{"the latest, with the delay that it brought", 5, 5, false},
		{"an earlier one: the delay is the other's", 5, 4, true},
		{"one of a count that has ended since", 2, 5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			for range tt.paid {
				pay(t, db.DB)
			}
			q := new(postgres.Query)
			q.With("asked", "SELECT 1")
			password.Refund(q, "asked", q.Bind([]byte("key"))+"::bytea", tt.refunded)
			q.Finally("SELECT 1")
			if _, err := db.Run(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			var got struct {
				Failures int  `db:"failures"`
				Blocked  bool `db:"blocked"`
			}
			if err := db.GetContext(t.Context(), &got, "SELECT failures, coalesce(blocked_until > wall(), false) AS blocked FROM streaks"); err != nil {
				t.Fatal(err)
			}
			want := tt.paid - 1
			if tt.refunded > tt.paid {
				want = tt.paid
			}
			if got.Failures != want || got.Blocked != tt.wantBlocked {
				t.Fatalf("%+v, want %d failures, blocked: %v", got, want, tt.wantBlocked)
			}
		})
	}
}

func TestStreakUnderRace(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Freeze(t)
	var wg sync.WaitGroup
	counted := make(chan bool, 200)
	for range 200 {
		wg.Go(func() { _, ok := pay(t, db.DB); counted <- ok })
	}
	wg.Wait()
	close(counted)
	n := 0
	for ok := range counted {
		if ok {
			n++
		}
	}
	if n != 5 { // the fifth brings a delay
		t.Fatalf("%d of 200 parallel failures evaluated, want 5", n)
	}
}

func TestSourceKey(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
	} {
		a, b := limits.SourceKey(netip.MustParseAddr(tt.a)), limits.SourceKey(netip.MustParseAddr(tt.b))
		if same := fmt.Sprint(a) == fmt.Sprint(b); same != tt.same {
			t.Errorf("%s and %s counted together: %v, want %v", tt.a, tt.b, same, tt.same)
		}
	}
}

// A shared window allows its burst and not one more, whoever comes at once, and has room again when a period is over.
func TestSharedWindow(t *testing.T) { // SND-4
	t.Parallel()
	for _, burst := range []int{1, 3, 16, 50, 1000} {
		t.Run(fmt.Sprint(burst), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			replica := db.Open(t)
			hit := limits.Hit{Window: limits.Window{Name: "everyone", Burst: burst, Period: 24 * time.Hour, Shared: true}, Key: []byte{}}
			own := limits.Hit{Window: limits.Window{Name: "own", Burst: 2000, Period: time.Hour}, Key: []byte("a")}
			spend := func(n int) (allowed int64) {
				var count atomic.Int64
				var wg sync.WaitGroup
				next := make(chan int, n)
				for i := range n {
					next <- i
				}
				close(next)
				for i := range 24 {
					wg.Go(func() {
						for range next {
							if take(t, []*postgres.DB{db.DB, replica}[i%2], hit).Allowed {
								count.Add(1)
							}
						}
					})
				}
				wg.Wait()
				return count.Load()
			}
			if got := spend(burst + burst/10 + 20); got != int64(burst) {
				t.Fatalf("%d of a burst of %d were allowed", got, burst)
			}
			got := take(t, db.DB, own, hit)
			if got.Allowed || got.RetryAt == nil || got.RetryAt.Sub(db.Now(t)) > 25*time.Hour || got.RetryAt.Before(db.Now(t).Add(23*time.Hour)) {
				t.Fatalf("on a full window: %+v, want refused with the time in a day", got)
			}
			var spent int
			if err := db.GetContext(t.Context(), &spent, "SELECT count(*) FROM windows"); err != nil || spent != 0 {
				t.Fatalf("the refused pair was charged to its other window: %d, %v", spent, err)
			}
			db.Advance(t, 23*time.Hour)
			if take(t, db.DB, hit).Allowed {
				t.Fatal("room before the period is over")
			}
			db.Advance(t, 2*time.Hour)
			if got := spend(burst); got < int64(burst)-24 { // at the very end, whoever waits for the last shard may come too late
				t.Fatalf("%d of %d after the period is over", got, burst)
			}
		})
	}
}

// The cost of a hit does not depend on how many there were.
func BenchmarkSharedWindow(b *testing.B) {
	for _, shared := range []bool{false, true} {
		for _, before := range []int{0, 9000} {
			b.Run(fmt.Sprintf("shared=%v/before=%d", shared, before), func(b *testing.B) {
				db := pgtest.New(b)
				hit := limits.Hit{Window: limits.Window{Name: "everyone", Burst: 1 << 30, Period: 24 * time.Hour, Shared: shared}, Key: []byte{}}
				try := func() {
					q := new(postgres.Query)
					q.With("asked", "SELECT 1")
					limits.Take(q, "asked", hit)
					q.Finally("SELECT allowed FROM limit_taken")
					var allowed bool
					if err := db.Get(b.Context(), &allowed, q); err != nil || !allowed {
						b.Error(allowed, err)
					}
				}
				try()
				if !shared && before > 0 {
					if _, err := db.ExecContext(b.Context(), "UPDATE windows SET hits = array_fill(wall(), ARRAY[$1::int])", before); err != nil {
						b.Fatal(err)
					}
				}
				if shared && before > 0 {
					if _, err := db.ExecContext(b.Context(), "UPDATE shared_windows SET counts[1] = $1, used = $1", before); err != nil {
						b.Fatal(err)
					}
				}
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						try()
					}
				})
			})
		}
	}
}
