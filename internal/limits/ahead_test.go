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

// What is taken ahead never goes past the burst, however many processes have a purse, and hardly any of it is lost.
func TestPurseBound(t *testing.T) { // SND-4
	t.Parallel()
	db := pgtest.New(t)
	own := limits.Hit{Window: limits.Window{Name: "own", Burst: 1 << 20, Period: time.Hour}}
	db.RoundTrips.Store(0)
	var allowed, spared atomic.Int64
	var group sync.WaitGroup
	for process := range 3 {
		purse, conn := new(limits.Purse), db.Open(t)
		for n := range 4 {
			mine := own
			mine.Key = []byte{byte(process), byte(n)} // nobody waits for another's row
			group.Go(func() {
				for missed := 0; missed < 5; {
					draw := purse.Draw()
					hits := draw.Pay([]limits.Hit{mine, budget})
					if len(hits) == 1 {
						spared.Add(1)
					}
					ok := take(t, conn, hits...).Allowed
					draw.Settle(ok)
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
	if n := allowed.Load(); n > int64(budget.Window.Burst) || n < int64(budget.Window.Burst)*99/100 {
		t.Errorf("%d of a burst of %d were allowed", n, budget.Window.Burst)
	}
	if spared.Load() < int64(budget.Window.Burst)/4 {
		t.Errorf("%d of %d hits were taken ahead, want most", spared.Load(), allowed.Load())
	}
}

// hits are so many of the budget in one second, each allowed; it says how many had to be taken.
func hits(p *limits.Purse, n int) (taken int) {
	for range n {
		d := p.Draw()
		taken += len(d.Pay([]limits.Hit{{Window: limits.Window{Name: "own", Burst: 1}}, budget})) - 1
		d.Settle(true)
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
		time.Sleep(time.Second)
		if got := hits(&p, 60); got != 10 { // six at a time: a thousandth of the burst
			t.Fatalf("%d of 60 hits were taken, want one of six", got)
		}
		d := p.Draw()
		if len(d.Pay([]limits.Hit{budget})) != 1 {
			t.Fatal("a statement was left without hits: it would be refused")
		}
		d.Settle(true) // which bought six
		refused := p.Draw()
		if len(refused.Pay([]limits.Hit{{Window: limits.Window{Name: "own", Burst: 1}}, budget})) != 1 {
			t.Fatal("what was taken ahead is not there")
		}
		refused.Settle(false)
		if got := hits(&p, 5); got != 0 {
			t.Fatalf("%d of 5 hits were taken, want none: the refused one was put back", got)
		}
		hits(&p, 1)
		time.Sleep(1001 * time.Millisecond)
		if got := hits(&p, 1); got != 1 {
			t.Fatal("a hit that was taken ahead is good after its second")
		}
		tight := p.Draw()
		time.Sleep(5 * time.Second)
		hits(&p, 100)
		time.Sleep(time.Second)
		tight.Pay([]limits.Hit{budget})
		tight.Settle(false) // there was no room for six
		if got := hits(&p, 60); got != 60 {
			t.Fatalf("%d of 60 hits were taken where there is hardly any room, want each", got)
		}
		time.Sleep(time.Minute)
		if got := hits(&p, 7); got != 7 {
			t.Fatalf("%d of 7 hits were taken where there are few in a second, want each", got)
		}
		time.Sleep(time.Second)
		if got := hits(&p, 7); got != 7 {
			t.Fatalf("%d of 7 hits were taken where there are few in a second, want each", got)
		}
	})
}
