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
	aheadLife  = time.Second // for which hits that were taken ahead are good
	aheadPause = 10 * time.Second
	aheadKeys  = 1024 // from which on the purse looks for what it has no more use for
)

// Purse takes hits of shared windows ahead where there are many in a second, some at a time: those that follow need no row then, and do not wait for one another's. What is taken
// ahead counts as spent when it is taken; it is good for a second, and a process that dies loses it. So a window never has more than its burst taken in any period, what is used lags behind by a second at most,
// and the last thousandth may be refused early. Only hits that were allowed count as many, and in a second no more are taken ahead than were allowed in the one before: whoever is refused again and again, or goes
// away in the middle, costs others little. The zero value is ready, and safe for concurrent use.
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
	hits, speed int       // allowed in that second, and in the one before
	ahead       int       // taken ahead in that second
	coming      int       // of those, by statements that are under way
	tight       time.Time // until then nothing is taken ahead: there was no room
}

// Draw is what one statement takes out of a purse, and puts into it.
type Draw struct {
	purse  *Purse
	began  time.Time
	shared []purseKey
	spent  []spending
	bought map[purseKey]int
}

// spending is a hit that was taken out of a stash, and until when it is good.
type spending struct {
	key   purseKey
	until time.Time
}

// Draw begins a draw.
func (p *Purse) Draw() *Draw { return &Draw{purse: p} }

// Pay gives those of hits that the statement has to take: the others were taken ahead. Some it has to take more than once, for what follows. [Draw.Settle] must come after it.
func (d *Draw) Pay(hits []Hit) []Hit {
	now := time.Now() //nolint:forbidigo // what is taken ahead lives in one process, and no longer than a second by its clock
	d.purse.mu.Lock()
	defer d.purse.mu.Unlock()
	d.began = now
	var rest []Hit
	for i, h := range hits {
		if !h.Window.Shared {
			rest = append(rest, h)
			continue
		}
		key := purseKey{h.Window.Name, string(h.Key)}
		d.shared = append(d.shared, key)
		s := d.purse.stash(key, now)
		last := i == len(hits)-1 && rest == nil // a statement without hits would not be allowed
		there := s.left > 0 && now.Before(s.until)
		if there && !last {
			s.left--
			d.spent = append(d.spent, spending{key, s.until})
			continue
		}
		if ahead := s.buys(h.Window.Burst); ahead > 0 && !there && now.After(s.tight) {
			h.ahead = ahead
			s.ahead, s.coming = s.ahead+ahead, s.coming+ahead
			if d.bought == nil {
				d.bought = map[purseKey]int{}
			}
			d.bought[key] = ahead
		}
		rest = append(rest, h)
	}
	return rest
}

// buys is how many are taken ahead by one statement. Many that find nothing at the same moment do not each take what all of them need: an eighth of a second's hits are on their way at once.
func (s *stash) buys(burst int) int {
	if s.speed < aheadFrom {
		return 0
	}
	ahead := min(s.speed/aheadPart, aheadMost, burst/aheadBurst) - 1
	if s.coming+ahead > s.speed/aheadPart || s.ahead+ahead > s.speed {
		return 0
	}
	return ahead
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
	default:
		return s
	}
	s.ahead, s.coming = 0, 0 // what statements took that nobody knows the outcome of is forgotten
	return s
}

// Settle says what came of the statement: where it was refused, full is the name of the window that had no room, if it was one. Where it took all of its hits, what it took ahead is there for others. Where it was
// refused, what was taken out is put back, and of a window that had no room for more nothing is taken ahead for a while. Of a statement that nobody knows the outcome of nothing must be told: what it took out is
// spent.
func (d *Draw) Settle(allowed bool, full string) {
	now := time.Now() //nolint:forbidigo // what is taken ahead lives in one process, and no longer than a second by its clock
	d.purse.mu.Lock()
	defer d.purse.mu.Unlock()
	if allowed {
		for _, key := range d.shared {
			d.purse.stash(key, now).hits++
		}
	} else {
		for _, was := range d.spent {
			if s := d.purse.held[was.key]; s != nil && s.until.Equal(was.until) { // else it is over, and what is there now is good for longer
				s.left++
			}
		}
	}
	for key, ahead := range d.bought {
		s := d.purse.stash(key, now)
		s.coming = max(0, s.coming-ahead)
		switch until := d.began.Add(aheadLife); {
		case !allowed && full == key.name:
			s.tight = now.Add(aheadPause)
		case !allowed:
			s.ahead = max(0, s.ahead-ahead)
		case now.Before(s.until):
			s.left += ahead
		default:
			s.left, s.until = ahead, until
		}
	}
}
