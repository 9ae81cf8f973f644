package authn

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/watchword-auth/watchword/internal/limits"
)

// Watch looks for guesses that are spread over people and addresses, until ctx ends. Whoever looks after the program is told by an error in log and by a record.
func (s *Service) Watch(ctx context.Context, log *slog.Logger) error {
	ticker := time.NewTicker(limits.Every)
	defer ticker.Stop()
	for {
		if err := s.WatchOnce(ctx, log); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "guesses are not watched", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// WatchOnce is one look.
func (s *Service) WatchOnce(ctx context.Context, log *slog.Logger) error {
	var problems []error
	for _, breaker := range []limits.Breaker{s.Config.Breaker, s.Ledger.Limits.Breaker} {
		tripped, err := breaker.Watch(ctx, s.DB)
		if err != nil {
			problems = append(problems, err)
		}
		if tripped != nil {
			log.ErrorContext(ctx, "somebody is guessing: each address has fewer tries", "limit", breaker.Window.Name, "failures", tripped.Failures, "tries", tripped.Tries, "pause", breaker.Pause.String())
		}
	}
	return errors.Join(problems...)
}
