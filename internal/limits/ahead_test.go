package limits_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/pgtest"
)

var budget = limits.Hit{Window: limits.Window{Name: "everyone", Burst: 6000, Period: 24 * time.Hour, Shared: true}, Key: []byte{}}

// What is taken ahead never goes past the burst, however many processes have a purse, and little of it is lost.
func TestPurseBound(t *testing.T) { // SND-4
	t.Parallel()
	db := pgtest.New(t)
	unbounded := limits.Hit{Window: limits.Window{Name: "own", Burst: 1 << 20, Period: time.Hour}}
	db.RoundTrips.Store(0)
	var allowed, spared, since atomic.Int64
	var group sync.WaitGroup
	for process := range 3 {
		purse, conn := new(limits.Purse), db.Open(t)
		for n := range 4 {
			mine := unbounded
			mine.Key = []byte{byte(process), byte(n)} // nobody waits for another's row
			group.Go(func() {
				for missed := 0; missed < 5; {
					draw := purse.Draw()
					hits := draw.Pay([]limits.Hit{mine, budget})
					if len(hits) == 1 {
						spared.Add(1)
					}
					if spared.Load() > 0 { // a second has passed, and it is known how many there are
						since.Add(1)
					}
					ok := take(t, conn, hits...).Allowed
					draw.Settle(ok, "everyone")
					if ok {
						allowed.Add(1)
					} else {
						missed++
					}
				}
			})
		}
	}
	group.Wait()
	if n := allowed.Load(); n > int64(budget.Window.Burst) || n < int64(budget.Window.Burst)*9/10 { // a process that stalls for a second loses what it held
		t.Errorf("%d of a burst of %d were allowed", n, budget.Window.Burst)
	}
	if spared.Load() < since.Load()/4 {
		t.Errorf("%d of %d hits were taken ahead, want most", spared.Load(), since.Load())
	}
}

// pass lets time pass in a bubble of testing/synctest: its clock jumps, and nobody waits.
func pass(d time.Duration) { time.Sleep(d) }

var own = limits.Hit{Window: limits.Window{Name: "own", Burst: 1}}

// hits are so many of the budget in one second, each allowed; it says how many had to be taken.
func hits(p *limits.Purse, n int) (taken int) {
	for range n {
		d := p.Draw()
		taken += len(d.Pay([]limits.Hit{own, budget})) - 1
		d.Settle(true, "")
	}
	return taken
}

func TestPurse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p limits.Purse
		if got := hits(&p, 100); got != 100 {
			t.Fatalf("%d of 100 hits were taken in the first second, want each: nobody knows yet how many there will be", got)
		}
		pass(time.Second)
		if got := hits(&p, 60); got != 10 { // six at a time: a thousandth of the burst
			t.Fatalf("%d of 60 hits were taken, want one of six", got)
		}
		d := p.Draw()
		if len(d.Pay([]limits.Hit{budget})) != 1 {
			t.Fatal("a statement was left without hits: it would be refused")
		}
		d.Settle(true, "") // which bought six
		refused := p.Draw()
		if len(refused.Pay([]limits.Hit{own, budget})) != 1 {
			t.Fatal("what was taken ahead is not there")
		}
		refused.Settle(false, "own")
		if got := hits(&p, 5); got != 0 {
			t.Fatalf("%d of 5 hits were taken, want none: the refused one was put back", got)
		}
		hits(&p, 1)
		pass(1001 * time.Millisecond)
		if got := hits(&p, 1); got != 1 {
			t.Fatal("a hit that was taken ahead is good after its second")
		}
		tight := p.Draw()
		pass(5 * time.Second)
		hits(&p, 100)
		pass(time.Second)
		tight.Pay([]limits.Hit{budget})
		tight.Settle(false, "everyone") // there was no room for six
		if got := hits(&p, 60); got != 60 {
			t.Fatalf("%d of 60 hits were taken where there is hardly any room, want each", got)
		}
		pass(time.Minute)
		if got := hits(&p, 7); got != 7 {
			t.Fatalf("%d of 7 hits were taken where there are few in a second, want each", got)
		}
		pass(time.Second)
		if got := hits(&p, 7); got != 7 {
			t.Fatalf("%d of 7 hits were taken where there are few in a second, want each", got)
		}
	})
}

// Whoever is refused again and again, or goes away in the middle, has hardly anything taken ahead that nobody uses: one program's tries must not spend what is everybody's.
func TestPurseWaste(t *testing.T) { // SND-4
	t.Parallel()
	begin := func(p *limits.Purse) (d *limits.Draw, taken bool) {
		d = p.Draw()
		return d, len(d.Pay([]limits.Hit{own, budget})) == 2
	}
	during := func(name string, allowed int, test func(t *testing.T, p *limits.Purse)) { // the second after one in which so many were allowed
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := new(limits.Purse)
				hits(p, allowed)
				pass(time.Second)
				test(t, p)
			})
		})
	}
	during("refused", 0, func(t *testing.T, p *limits.Purse) {
		for range 100 {
			d, _ := begin(p)
			d.Settle(false, "own")
		}
		pass(time.Second)
		if got := hits(p, 20); got != 20 {
			t.Errorf("%d of 20 hits were taken, want each: none has been allowed before", got)
		}
	})
	during("refused for another window", 100, func(t *testing.T, p *limits.Purse) {
		d, _ := begin(p)
		d.Settle(false, "own")
		if got := hits(p, 60); got != 10 {
			t.Errorf("%d of 60 hits were taken, want one of six: this window was not full", got)
		}
	})
	during("at once", 100, func(t *testing.T, p *limits.Purse) {
		var all []*limits.Draw
		for range 50 {
			d, _ := begin(p)
			all = append(all, d)
		}
		for _, d := range all {
			d.Settle(true, "")
		}
		spared := 0
		for range 100 {
			if _, taken := begin(p); !taken {
				spared++
			}
		}
		if spared == 0 || spared > 100/8 {
			t.Errorf("50 who found nothing took %d ahead, want an eighth of a second's hits at most", spared)
		}
	})
	during("gone", 100, func(t *testing.T, p *limits.Purse) {
		lost := 0
		for range 1000 { // one that ends, and others that take out what it has taken ahead
			d, _ := begin(p)
			d.Settle(true, "")
			for {
				if _, taken := begin(p); taken {
					break
				}
				lost++
			}
		}
		if lost > 100 {
			t.Errorf("%d hits were lost in a second, want no more than were allowed in the one before", lost)
		}
	})
	during("put back late", 100, func(t *testing.T, p *limits.Purse) {
		hits(p, 1)
		slow, taken := begin(p)
		if taken {
			t.Fatal("what was taken ahead is not there")
		}
		hits(p, 60)
		pass(1100 * time.Millisecond)
		if got := hits(p, 6); got != 1 {
			t.Fatalf("%d of 6 hits were taken, want one", got)
		}
		slow.Settle(false, "own")
		if got := hits(p, 1); got != 1 {
			t.Error("a hit that was taken ahead is good after its second")
		}
	})
	during("slow", 100, func(t *testing.T, p *limits.Purse) {
		d, _ := begin(p)
		pass(600 * time.Millisecond)
		d.Settle(true, "")
		pass(300 * time.Millisecond)
		if got := hits(p, 1); got != 0 {
			t.Fatal("what was taken ahead is not there within its second")
		}
		pass(200 * time.Millisecond)
		if _, taken := begin(p); !taken {
			t.Error("a hit is good for a second from when the statement has ended, not from when it was taken")
		}
	})
}
