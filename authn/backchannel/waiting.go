package backchannel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// answers is what whoever waits is woken on: with the hash of a question that has ended.
const answers = "watchword_answers"

// Bounds of waiting.
const (
	// MaxHold is the longest that a poll waits: nobody is to wait longer than 30 s for an answer, of which some is for the way. CIBA Core 1.0 section 10.1.
	MaxHold = 25 * time.Second
	// MostHeld is how many polls wait in one process; each takes a connection to the application, and some memory, and nothing of the database.
	MostHeld = 20000

	// together is the grid that the ends of waiting lie on: polls that end together, and then come again together, cost much less than as many that wake the process one by one.
	together = 100 * time.Millisecond

	recheck      = time.Minute // nothing is missed by a connection that lives
	recheckBatch = 1000
)

// Waiting is who waits in this process for an answer, and hears of answers from all processes. A poll is watched before it looks, so that no answer falls between looking and waiting:
//
//	watch := waiting.Watch(secret)
//	defer watch.Leave()
//	… [Service.Poll] says that the question is pending …
//	if watch.Take() && watch.Wait(ctx, polled.Left) { … [Service.Look] … }
//
// Nobody waits while nothing is heard: before [Waiting.Run] has connected to the database, and while that connection is lost. It is safe for concurrent use.
type Waiting struct {
	DB   *postgres.DB
	Hold time.Duration // how long one waits
	Most int           // how many wait at once; more are answered at once
	Now  func() time.Time
	Log  *slog.Logger

	mu      sync.Mutex
	watched map[[sha256.Size]byte]*watched
	held    int
	hearing bool
	drained bool
}

// watched is a question that somebody asks about at the moment.
type watched struct {
	over    chan struct{} // closed when it has ended
	watches int
	holder  *Watch // who waits
}

// Watch is a poll. Nil is one that does not wait.
type Watch struct {
	waiting  *Waiting
	hash     [sha256.Size]byte
	on       *watched
	hold     *time.Timer
	released chan struct{} // closed when it has to answer
	held     bool
}

// Watch is for a poll about to look at a question.
func (w *Waiting) Watch(secret string) *Watch {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hearing || w.drained {
		return nil
	}
	p := &Watch{waiting: w, hash: sha256.Sum256([]byte(secret)), hold: time.NewTimer(w.Hold - time.Duration(w.Now().UnixNano())%min(together, w.Hold)), released: make(chan struct{})}
	if p.on = w.watched[p.hash]; p.on == nil {
		if w.watched == nil {
			w.watched = map[[sha256.Size]byte]*watched{}
		}
		p.on = &watched{over: make(chan struct{})}
		w.watched[p.hash] = p.on
	}
	p.on.watches++
	return p
}

// Take has the poll wait, in place of any other about the same question, and reports whether it may. An application that has asked again is not there any more for its earlier poll: it does not send two at once
// (CIBA Core 1.0 section 10.1).
func (p *Watch) Take() bool {
	if p == nil {
		return false
	}
	w := p.waiting
	w.mu.Lock()
	defer w.mu.Unlock()
	if earlier := p.on.holder; earlier != nil {
		earlier.release()
	}
	if !w.hearing || w.drained || w.held >= w.Most {
		return false
	}
	w.held++
	p.held, p.on.holder = true, p
	return true
}

// release lets a poll go. Its Waiting is locked.
func (p *Watch) release() {
	close(p.released)
	p.on.holder = nil
}

// Wait waits after [Watch.Take], and reports whether to look again: the question has ended, or its time is over, of which there was left so much. Otherwise it is as pending as it was: the poll has waited for
// as long as it may, another has come in its place, the process stops, or ctx has ended because the application has gone.
func (p *Watch) Wait(ctx context.Context, left time.Duration) bool {
	var due <-chan time.Time
	if left < p.waiting.Hold {
		timer := time.NewTimer(max(left, 0))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-p.on.over:
		return true
	case <-due:
		return true
	case <-p.hold.C:
	case <-p.released:
	case <-ctx.Done():
	}
	return false
}

// Leave is the end of a poll, however it ended.
func (p *Watch) Leave() {
	if p == nil {
		return
	}
	w := p.waiting
	w.mu.Lock()
	defer w.mu.Unlock()
	p.hold.Stop()
	if p.held {
		w.held--
	}
	if p.on.holder == p {
		p.on.holder = nil
	}
	if p.on.watches--; p.on.watches == 0 && w.watched[p.hash] == p.on {
		delete(w.watched, p.hash)
	}
}

// Held is how many polls wait.
func (w *Waiting) Held() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held
}

// Drain has nobody wait any more.
func (w *Waiting) Drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drained = true
	w.releaseAll()
}

func (w *Waiting) releaseAll() {
	for _, on := range w.watched {
		if on.holder != nil {
			on.holder.release()
		}
	}
}

// Run hears of answers until ctx ends.
func (w *Waiting) Run(ctx context.Context) error {
	err := postgres.Hear(ctx, w.DB.DirectDSN(), answers, recheck, postgres.Hearing{
		Heard: w.heard,
		Lost:  func() { w.hears(false) }, // whoever waits goes on: those are looked at as soon as there is a connection, and wait no longer than they would have
		Connected: func() {
			w.hears(true)
			w.missed(ctx)
		},
		Due: func() { w.missed(ctx) },
	})
	if err != nil {
		return fmt.Errorf("listen for answers: %w", err)
	}
	return nil
}

func (w *Waiting) hears(hearing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hearing = hearing
}

// heard wakes who waits for a question.
func (w *Waiting) heard(payload string) {
	hash, err := hex.DecodeString(payload)
	if err != nil || len(hash) != sha256.Size {
		return
	}
	w.end([sha256.Size]byte(hash))
}

func (w *Waiting) end(hash [sha256.Size]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if on := w.watched[hash]; on != nil {
		delete(w.watched, hash)
		close(on.over)
	}
}

// missed wakes who waits for what ended while nothing was heard. Questions are looked at many at a time: a database that has just come back is not asked by everybody.
func (w *Waiting) missed(ctx context.Context) {
	w.mu.Lock()
	hashes := make([][]byte, 0, len(w.watched))
	for hash := range w.watched {
		hashes = append(hashes, hash[:])
	}
	w.mu.Unlock()
	for some := range slices.Chunk(hashes, recheckBatch) {
		q := new(postgres.Query)
		q.Finally("SELECT hash FROM backchannel_requests WHERE hash = ANY(" + q.Bind(pq.ByteaArray(some)) + "::bytea[]) AND state <> 'pending'")
		var over [][]byte
		if err := w.DB.Select(ctx, &over, q); err != nil {
			if ctx.Err() == nil {
				w.Log.ErrorContext(ctx, "answers may be missed", "error", err)
			}
			w.mu.Lock()
			w.releaseAll() // each asks for itself
			w.mu.Unlock()
			return
		}
		for _, hash := range over {
			w.end([sha256.Size]byte(hash))
		}
	}
}
