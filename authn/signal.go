package authn

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Signal looks up what the network knows of a number.
type Signal interface {
	// Hold reports whether texts to the number are not to be trusted, because its SIM was changed lately. Where nobody can tell, err says why, and hold is what the operator
	// has decided for that.
	Hold(ctx context.Context, number sms.Number) (hold bool, err error)
}

// ErrHeldBack says that codes are not texted to this number for now. Choose another way.
var ErrHeldBack = errors.New("authn: no texts to this number for now")

// HeldBack asks [Service.Signal] about a phone of the subscriber, before a text to it would raise a session, approve a payment or get somebody back in (SP 800-63B-4 section 3.1.3.3). What speaks against
// it, and that nobody could tell, goes to the audit. Of factors that reach nobody nothing is asked.
func (s *Service) HeldBack(ctx context.Context, subscriber uuid.UUID, a factors.Authenticator) (bool, error) {
	factor, _ := s.Ledger.Factor(a.Kind)
	reacher, ok := factor.(factors.Reacher)
	if !ok || s.Signal == nil {
		return false, nil
	}
	number, err := reacher.Reach(a)
	if err != nil {
		return true, err
	}
	hold, unknown := s.Signal.Hold(ctx, number)
	if !hold && unknown == nil {
		return false, nil
	}
	e := audit.Event{Name: "sim.check", Outcome: audit.Refused, Reason: "changed", Actor: audit.System, Subject: subscriber, Object: a.ID.String()}
	if unknown != nil {
		e.Outcome, e.Reason = audit.Failed, "unknown_sent"
		if hold {
			e.Reason = "unknown_held"
		}
	}
	q := new(postgres.Query)
	q.With("looked_up", "SELECT 1")
	audit.Record(ctx, q, "looked_up", e, nil)
	q.Finally("SELECT 1 FROM looked_up")
	if _, err := s.DB.Run(ctx, q); err != nil {
		return true, fmt.Errorf("record a look-up: %w", err)
	}
	return hold, nil
}
