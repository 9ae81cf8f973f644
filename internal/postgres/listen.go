package postgres

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
)

// Listen calls notify with each payload sent on channel until ctx ends, reconnecting with back-off. It calls
// notify with "" after every (re)connection, when notifications may have been missed, and every fallback besides.
func Listen(ctx context.Context, dsn, channel string, fallback time.Duration, notify func(payload string)) error {
	again := func() { notify("") }
	return Hear(ctx, dsn, channel, fallback, Hearing{Heard: notify, Connected: again, Due: again, Lost: func() {}})
}

// Hearing is for those to whom it matters whether they hear anything at all. All but Lost are called one after another.
type Hearing struct {
	Heard func(payload string)
	// Connected is called after every (re)connection: from now on everything is heard, and what was sent before may have been missed.
	Connected func()
	// Lost is called when the connection ends; nothing is heard until Connected. It must not wait for anything.
	Lost func()
	// Due is called every fallback.
	Due func()
}

// Hear is [Listen] for a [Hearing].
func Hear(ctx context.Context, dsn, channel string, fallback time.Duration, h Hearing) error {
	var lost atomic.Bool
	listener := pq.NewListener(dsn, 100*time.Millisecond, 5*time.Second, func(event pq.ListenerEventType, err error) {
		if err != nil && ctx.Err() == nil { // afterwards nobody listens: an attempt to connect that still goes on may well fail
			slog.WarnContext(ctx, "database notifications interrupted", "channel", channel, "error", err)
		}
		switch event {
		case pq.ListenerEventDisconnected:
			lost.Store(true)
			h.Lost()
		case pq.ListenerEventReconnected:
			lost.Store(false)
		}
	})
	defer listener.Close() //nolint:errcheck // nothing is lost with the connection
	defer h.Lost()
	connected := func() {
		if !lost.Load() { // again meanwhile
			h.Connected()
		}
	}
	listening := make(chan error, 1)
	go func() { listening <- listener.Listen(channel) }()
	ticker := time.NewTicker(fallback)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-listening:
			if err != nil {
				return err
			}
			connected()
		case n := <-listener.Notify:
			if n == nil { // reconnected
				connected()
				continue
			}
			h.Heard(n.Extra)
		case <-ticker.C:
			h.Due()
		}
	}
}
