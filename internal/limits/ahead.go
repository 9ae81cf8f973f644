package limits

import (
	"sync"
	"time"
)

// Bounds of what a [Purse] takes ahead.
const (
	aheadFrom  = 8           // hits in a second from which on it does
	aheadPart  = 8           // of a second's hits, one part
	aheadMost  = 64          // hits
	aheadBurst = 1000        // of a window's burst, one part
	aheadLife  = time.Second // for which hits that were taken ahead are good: see ask
	aheadPause = 10 * time.Second
	aheadKeys  = 1024 // from which on the purse looks for what it has no more use for
)

// Purse takes hits of shared windows ahead where there are many in a second, some at a time: those that follow need no row then, and do not wait for one another's. What is taken
// ahead counts as spent; it is good for a second, and a process that dies loses it. So a window is never overspent, and its last thousandth may be refused early.
// The zero value is ready, and safe for concurrent use.
type Purse struct {
	mu   sync.Mutex
	held map[purseKey]*stash
}

type purseKey struct{ name, key string }

// stash is what a purse has of one window.
type stash struct {
	left        int       // hits that were taken ahead
	until       time.Time // that they are good
	second      time.Time // that is counted
	hits, speed int       // in that second, and in the one before
	tight       time.Time // until then nothing is taken ahead: there was no room
}

// Draw is what one statement takes out of a purse, and puts into it.
type Draw struct {
	purse  *Purse
	spent  []purseKey
	bought map[purseKey]int
}

// Draw begins a draw.
func (p *Purse) Draw() *Draw { return &Draw{purse: p} }

// Pay gives those of hits that the statement has to take: the others were taken ahead. Some it has to take more than once, for what follows. [Draw.Settle] must come after it.
func (d *Draw) Pay(hits []Hit) []Hit {
	now := time.Now()
	d.purse.mu.Lock()
	defer d.purse.mu.Unlock()
	var rest []Hit
	for i, h := range hits {
		if !h.Window.Shared {
			rest = append(rest, h)
			continue
		}
		key := purseKey{h.Window.Name, string(h.Key)}
		s := d.purse.stash(key, now)
		s.hits++
		if last := i == len(hits)-1 && rest == nil; s.left > 0 && now.Before(s.until) && !last { // a statement without hits would not be allowed
			s.left--
			d.spent = append(d.spent, key)
			continue
		}
		if s.speed >= aheadFrom && now.After(s.tight) {
			if ahead := min(s.speed/aheadPart, aheadMost, h.Window.Burst/aheadBurst) - 1; ahead > 0 {
				h.ahead = ahead
				if d.bought == nil {
					d.bought = map[purseKey]int{}
				}
				d.bought[key] = ahead
			}
		}
		rest = append(rest, h)
	}
	return rest
}

// stash finds what there is of a window, and moves its clock on.
func (p *Purse) stash(key purseKey, now time.Time) *stash {
	s := p.held[key]
	if s == nil {
		if p.held == nil {
			p.held = map[purseKey]*stash{}
		}
		if len(p.held) >= aheadKeys {
			for k, old := range p.held {
				if now.Sub(old.second) > aheadPause {
					delete(p.held, k)
				}
			}
		}
		s = &stash{second: now}
		p.held[key] = s
	}
	switch passed := now.Sub(s.second); {
	case passed >= 2*time.Second:
		s.second, s.hits, s.speed = now, 0, 0
	case passed >= time.Second:
		s.second, s.hits, s.speed = now, 0, s.hits
	}
	return s
}

// Settle says what came of the statement. Where it took all of its hits, what it took ahead is there for others. Where it refused, what was taken out is put back, and for a while nothing
// is taken ahead of what it asked for more of. Of a statement that nobody knows the outcome of nothing must be told: what it took out is spent.
func (d *Draw) Settle(allowed bool) {
	now := time.Now()
	d.purse.mu.Lock()
	defer d.purse.mu.Unlock()
	if !allowed {
		for _, key := range d.spent {
			if s := d.purse.held[key]; s != nil {
				s.left++
			}
		}
	}
	for key, ahead := range d.bought {
		switch s := d.purse.stash(key, now); {
		case !allowed:
			s.tight = now.Add(aheadPause)
		case now.Before(s.until):
			s.left += ahead
		default:
			s.left, s.until = ahead, now.Add(aheadLife)
		}
	}
}
