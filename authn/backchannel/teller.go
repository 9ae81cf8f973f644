package backchannel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// channel is what tellers are woken on.
const channel = "watchword_backchannel"

// Bounds of calls.
const (
	tellBatch    = 32
	tellCalls    = 16
	tellFallback = 2 * time.Second
	tellTimeout  = 10 * time.Second
	tellLease    = 30 * time.Second // outlasts a call
	maxTold      = 4 << 10          // of an answer that is read, so that its connection can be used again
)

// tellAgain are the pauses before the second and later calls. An application that is not reached asks by itself, and the question is over in minutes.
var tellAgain = [...]time.Duration{time.Second, 5 * time.Second, 20 * time.Second}

// Teller calls applications that want to be told when there is an answer: CIBA Core 1.0 section 10.2. Any number of them, in any number of processes, may serve one table. A call is counted
// before it is made; when a teller dies in the middle another calls again.
type Teller struct {
	DB   *postgres.DB
	Keys interface {
		Open(sealed []byte, context string) ([]byte, error)
	}
	// Client calls. It comes from egress.Guard.Client: it follows no redirect, and reaches nothing inside.
	Client *http.Client
	Log    *slog.Logger
}

// due is a call to be made.
type due struct {
	ID       uuid.UUID `db:"id"`
	Client   string    `db:"client_id"`
	Notify   []byte    `db:"notify"`
	Notified int       `db:"notified"`
}

// Run calls until ctx ends.
func (t *Teller) Run(ctx context.Context) error {
	err := postgres.NewBell().Answer(ctx, t.DB, channel, tellFallback, func() {
		if _, err := t.Drain(ctx); err != nil && ctx.Err() == nil {
			t.Log.ErrorContext(ctx, "applications are not told", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("listen for answers: %w", err)
	}
	return nil
}

// Drain makes the calls that are due and says how many.
func (t *Teller) Drain(ctx context.Context) (int, error) {
	for all := 0; ; {
		calls, err := t.claim(ctx)
		if err != nil {
			return all, err
		}
		var group sync.WaitGroup
		room := make(chan struct{}, tellCalls)
		problems := make([]error, len(calls))
		for i := range calls {
			room <- struct{}{}
			group.Go(func() {
				defer func() { <-room }()
				problems[i] = t.tell(ctx, &calls[i])
			})
		}
		group.Wait()
		all += len(calls)
		if err := errors.Join(problems...); err != nil || len(calls) < tellBatch {
			return all, err
		}
	}
}

// claim takes what is due for this teller, for a while.
func (t *Teller) claim(ctx context.Context) ([]due, error) {
	q := new(postgres.Query)
	q.With("due", fmt.Sprintf("SELECT id FROM backchannel_requests x WHERE notify_at <= wall() AND EXISTS (SELECT FROM clients k WHERE k.id = x.client_id AND k.disabled_at IS NULL) ORDER BY notify_at LIMIT %d FOR UPDATE SKIP LOCKED", tellBatch))
	q.Finally(fmt.Sprintf(`
		UPDATE backchannel_requests x SET notified = x.notified + 1, notify_at = wall() + make_interval(secs => %v)
		  FROM due WHERE x.id = due.id RETURNING x.id, x.client_id, x.notify, x.notified`, tellLease.Seconds()))
	var calls []due
	if err := t.DB.Select(ctx, &calls, q); err != nil {
		return nil, fmt.Errorf("claim calls: %w", err)
	}
	return calls, nil
}

// tell makes one call and stores what follows.
func (t *Teller) tell(ctx context.Context, d *due) error {
	plain, err := t.Keys.Open(d.Notify, notifyContext(d.ID))
	var to sealed
	if err == nil {
		err = json.Unmarshal(plain, &to)
	}
	outcome, again := "unreadable", false
	if err == nil {
		outcome, again = t.call(ctx, &to)
	} else {
		t.Log.ErrorContext(ctx, "notification cannot be read", "request", d.ID, "error", err)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // another calls when the claim is over
	}
	q := new(postgres.Query)
	var pause *float64
	if again && d.Notified <= len(tellAgain) {
		seconds := tellAgain[d.Notified-1].Seconds()
		pause = &seconds
	}
	q.With("told", fmt.Sprintf("UPDATE backchannel_requests x SET notify_at = wall() + make_interval(secs => %[1]s), notify = CASE WHEN %[1]s IS NOT NULL THEN x.notify END WHERE x.id = %[2]s AND x.notified = %[3]s RETURNING x.id",
		q.Bind(pause)+"::float8", q.Bind(d.ID)+"::uuid", q.Bind(d.Notified)+"::int"))
	result := audit.Success
	if outcome != told {
		result = audit.Failed
	}
	audit.Follow(q, "told", audit.Event{Name: "backchannel.notify", Outcome: result, Reason: outcome, Client: d.Client, Object: d.ID.String()}, nil)
	q.Finally("SELECT 1 FROM told")
	if _, err := t.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("store a call: %w", err)
	}
	return nil
}

// told is the outcome of a call that was answered as it should be.
const told = ""

// call makes a call, and reports whether another may fare better. Whoever refuses is not asked again: CIBA Core 1.0 section 10.2.
func (t *Teller) call(ctx context.Context, to *sealed) (outcome string, again bool) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	body, err := json.Marshal(map[string]string{"auth_req_id": to.Secret})
	if err != nil {
		return "unreadable", false
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(body))
	if err != nil {
		return "unreadable", false
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+to.Token)
	resp, err := t.Client.Do(r)
	if err != nil {
		return "unreachable", true
	}
	defer resp.Body.Close()                                 //nolint:errcheck // nothing is lost
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxTold)) //nolint:errcheck // it is not looked at
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return told, false
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return "unavailable", true
	}
	return "refused", false
}
