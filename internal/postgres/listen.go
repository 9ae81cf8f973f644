package postgres

import (
	"context"
	"log/slog"
	"time"

	"github.com/lib/pq"
)

// Listen calls notify with each payload sent on channel until ctx ends, reconnecting with back-off. It calls
// notify with "" after every (re)connection, when notifications may have been missed, and every fallback besides.
func Listen(ctx context.Context, dsn, channel string, fallback time.Duration, notify func(payload string)) error {
	listener := pq.NewListener(dsn, 100*time.Millisecond, 5*time.Second, func(event pq.ListenerEventType, err error) {
		if err != nil && ctx.Err() == nil { // afterwards nobody listens: an attempt to connect that still goes on may well fail
			slog.WarnContext(ctx, "database notifications interrupted", "channel", channel, "error", err)
		}
	})
	defer listener.Close() //nolint:errcheck // nothing is lost with the connection
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
			notify("")
		case n := <-listener.Notify:
			if n == nil { // reconnected
				notify("")
				continue
			}
			notify(n.Extra)
		case <-ticker.C:
			notify("")
		}
	}
}
