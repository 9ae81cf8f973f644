package postgres

import (
	"context"
	"time"
)

// Bell wakes who works: however often it rings meanwhile, the work is done once more.
type Bell struct{ wake chan struct{} }

// NewBell makes a bell that has not rung.
func NewBell() *Bell { return &Bell{wake: make(chan struct{}, 1)} }

// Ring has the work done as soon as what is under way is over.
func (b *Bell) Ring() {
	select {
	case b.wake <- struct{}{}:
	default: // awake already
	}
}

// Answer does work whenever the bell rings, and rings it when a row for channel is committed, when notifications may have been missed, and every fallback: see
// [Listen], whose error it gives. It returns nil when ctx ends, after the work that is under way.
func (b *Bell) Answer(ctx context.Context, db *DB, channel string, fallback time.Duration, work func()) error {
	listening := make(chan error, 1)
	go func() { listening <- Listen(ctx, db.DirectDSN(), channel, fallback, func(string) { b.Ring() }) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-listening:
			return err
		case <-b.wake:
			work()
		}
	}
}
