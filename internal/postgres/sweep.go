package postgres

import (
	"context"
	"time"
)

// Sweep calls some every few seconds until ctx ends, and again at once for as long as it says that it has ended something. log is told what went wrong.
func Sweep(ctx context.Context, some func(context.Context) (int64, error), log func(error)) error {
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for {
			n, err := some(ctx)
			if err != nil && ctx.Err() == nil {
				log(err)
			}
			if err != nil || n == 0 {
				break
			}
		}
	}
}
