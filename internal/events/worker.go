package events

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Bounds of delivery.
const (
	// maxTimeout of a call. Claims outlast it by far.
	maxTimeout = 30 * time.Second
	claimLease = maxTimeout + 30*time.Second
	// grace is how long calls in flight may go on when the worker has to end.
	grace = 3 * time.Second
	// fallback is how often a worker looks without having been told: retries are no more exact than that.
	fallback = 2 * time.Second
	// The body of an answer is read so far, and so long, that its connection can be used again. It is not looked at.
	maxAnswer   = 4 << 10
	answerPause = 250 * time.Millisecond
	// After so many failures in a row an endpoint rests between calls.
	patience = 3
	maxPause = time.Minute
	// settleBatch is how many results are stored at once.
	settleBatch = 64
)

// schedule is the pauses before the second, third … attempt, as Standard Webhooks suggests: 75 hours in all.
var schedule = [...]time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// pause before the attempt that follows attempt n, more or less a tenth; false when there is none.
func pause(n int) (time.Duration, bool) {
	if n < 1 || n > len(schedule) {
		return 0, false
	}
	d := schedule[n-1]
	return d - d/10 + rand.N(d/5), true //nolint:gosec // nobody gains by foreseeing it
}

// Results of an attempt.
const (
	Delivered   = "delivered"
	Refused     = "refused"     // answered with anything but 2xx
	Gone        = "gone"        // answered with 410: the endpoint is disabled
	Timeout     = "timeout"     // of the call as a whole
	Unreachable = "unreachable" // no connection, or one that broke
	NoSuchHost  = "dns"
	BadTLS      = "tls"
	Forbidden   = "forbidden" // the address is not public, or not https

	interrupted = "interrupted" // by our own end: nothing is counted
)

// Attempt is one call, as it ended.
type Attempt struct {
	Event    string
	Type     Type
	Endpoint string
	Result   string
	Status   int // of the answer; 0: there was none
	Took     time.Duration
	Final    bool // no other follows
}

// Worker delivers. Any number of them, in any number of processes, may serve one queue.
type Worker struct {
	DB   *postgres.DB
	Keys Keys
	// Client calls. It comes from [egress.Guard.Client].
	Client *http.Client
	Log    *slog.Logger
	// Calls in flight at once, and to one endpoint. Default 128 and 16.
	Calls, PerEndpoint int
	// Timeout of a call. Default 15 s, at most 30 s.
	Timeout time.Duration
	// DisableAfter is how long nothing may have been delivered to an endpoint that fails until it is disabled. Default 5 days.
	DisableAfter time.Duration
	// Observe, when set, is told how each attempt ended.
	Observe func(Attempt)

	// of a desk: the only endpoint, and what is told of each event besides
	only uuid.UUID
	show func(Attempt, []byte)
}

func (w *Worker) calls() int             { return or(w.Calls, 128) }
func (w *Worker) perEndpoint() int       { return or(w.PerEndpoint, 16) }
func (w *Worker) timeout() time.Duration { return min(or(w.Timeout, 15*time.Second), maxTimeout) }
func (w *Worker) disable() time.Duration { return or(w.DisableAfter, 5*24*time.Hour) }
func or[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// task is one call to be made.
type task struct {
	Endpoint uuid.UUID `db:"endpoint_id"`
	Event    uuid.UUID `db:"event_id"`
	At       time.Time `db:"created_at"`
	Attempts int       `db:"attempts"`
	Type     Type      `db:"type"`
	Data     []byte    `db:"data"`
	URL      string    `db:"url"`
	Secret   []byte    `db:"secret"`
	Previous []byte    `db:"previous_secret"`
	Now      time.Time `db:"now"`

	claim uuid.UUID
}

// result is how a task ended.
type result struct {
	task    *task
	attempt Attempt
	delay   time.Duration // until the next attempt
}

// Run delivers until ctx ends, then gives the calls in flight a moment and leaves the rest to others.
func (w *Worker) Run(ctx context.Context) error {
	bell := postgres.NewBell()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	calling, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	free := make(chan struct{}, w.calls())
	results := make(chan result, w.calls())
	var inFlight, settling sync.WaitGroup
	settling.Go(func() { w.settler(context.WithoutCancel(ctx), results, bell.Ring) })
	defer func() {
		cancel()
		late := time.AfterFunc(grace, hangUp)
		defer late.Stop()
		inFlight.Wait()
		close(results)
		settling.Wait()
	}()
	err := bell.Answer(ctx, w.DB, channel, fallback, func() {
		for ctx.Err() == nil {
			free <- struct{}{} // not before there is room for one
			<-free
			asked := cap(free) - len(free)
			batch, err := w.claim(ctx, asked)
			if err != nil {
				if ctx.Err() == nil {
					w.Log.ErrorContext(ctx, "webhook claim failed", "error", err)
				}
				return
			}
			for _, t := range batch {
				free <- struct{}{}
				inFlight.Go(func() {
					defer func() { <-free }()
					results <- w.deliver(calling, t)
				})
			}
			if len(batch) < asked { // that was all that may be called now
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("listen for events: %w", err)
	}
	return nil
}

// Drain delivers what is due now, one after another, and says how many calls it made. For tools and tests: no listening, no waiting.
func (w *Worker) Drain(ctx context.Context) (int, error) {
	for n := 0; ; {
		batch, err := w.claim(ctx, settleBatch)
		if err != nil || len(batch) == 0 {
			return n, err
		}
		for _, t := range batch {
			if err := w.settle(ctx, []result{w.deliver(ctx, t)}); err != nil {
				return n, err
			}
			n++
		}
	}
}

// claim takes what is due, as much of each endpoint as it may have now. The attempt is counted here.
func (w *Worker) claim(ctx context.Context, n int) ([]*task, error) {
	claim := uuid.New()
	q := new(postgres.Query)
	which := "w.listen_until IS NULL"
	if w.only != uuid.Nil {
		which = "w.id = " + q.Bind(w.only) + "::uuid"
	}
	// Which endpoints have something in the queue: one step of the index for each, however much each has.
	q.With("RECURSIVE waiting", `
		(SELECT endpoint_id FROM webhook_queue ORDER BY endpoint_id LIMIT 1)
		UNION ALL
		SELECT (SELECT q.endpoint_id FROM webhook_queue q WHERE q.endpoint_id > waiting.endpoint_id ORDER BY q.endpoint_id LIMIT 1) FROM waiting WHERE waiting.endpoint_id IS NOT NULL`)
	q.With("due", fmt.Sprintf(`
		SELECT d.endpoint_id, d.event_id FROM waiting JOIN webhook_endpoints w ON w.id = waiting.endpoint_id AND w.disabled_at IS NULL AND %s AND (w.pause_until IS NULL OR w.pause_until <= wall())
		 CROSS JOIN LATERAL (
			SELECT q.endpoint_id, q.event_id, q.due_at FROM webhook_queue q WHERE q.endpoint_id = w.id AND q.due_at <= wall() ORDER BY q.due_at
			 LIMIT greatest(0, CASE WHEN w.failures > 0 THEN 1 ELSE %s END - (SELECT count(*) FROM webhook_queue c WHERE c.endpoint_id = w.id AND c.claim IS NOT NULL AND c.due_at > wall()))
			   FOR UPDATE SKIP LOCKED) d
		 ORDER BY d.due_at LIMIT %s`, which, q.Bind(w.perEndpoint())+"::int", q.Bind(n)+"::int"))
	q.With("taken", fmt.Sprintf(`
		UPDATE webhook_queue q SET claim = %s, attempts = q.attempts + 1, due_at = wall() + make_interval(secs => %s) FROM due d
		 WHERE q.endpoint_id = d.endpoint_id AND q.event_id = d.event_id
		RETURNING q.endpoint_id, q.event_id, q.event_at, q.attempts`, q.Bind(claim)+"::uuid", q.Bind(claimLease.Seconds())+"::float8"))
	q.Finally(`SELECT t.endpoint_id, t.event_id, t.attempts, e.created_at, e.type, e.data::text AS data, w.url, w.secret, CASE WHEN w.previous_until > wall() THEN w.previous_secret END AS previous_secret, wall() AS now
		FROM taken t JOIN webhook_endpoints w ON w.id = t.endpoint_id JOIN events e ON e.id = t.event_id AND e.created_at = t.event_at`)
	var batch []*task
	err := w.DB.Select(ctx, &batch, q)
	for _, t := range batch {
		t.claim = claim
	}
	return batch, err
}

// Payload is what is sent, the same bytes at every attempt.
type Payload struct {
	ID        string          `json:"id"`
	Type      Type            `json:"type"`
	Timestamp time.Time       `json:"timestamp"` // when it happened
	Data      json.RawMessage `json:"data"`
}

func (t *task) body() ([]byte, error) {
	return json.Marshal(Payload{ID: publicID(eventPrefix, t.Event), Type: t.Type, Timestamp: t.At.UTC(), Data: t.Data})
}

// deliver makes one call and decides what follows.
func (w *Worker) deliver(ctx context.Context, t *task) result {
	r := result{task: t, attempt: Attempt{Event: publicID(eventPrefix, t.Event), Type: t.Type, Endpoint: publicID(endpointPrefix, t.Endpoint)}}
	body, err := t.body()
	var header http.Header
	if err == nil {
		header, err = w.sign(t, body)
	}
	if err != nil { // other keys, or a row that is no event: somebody has to look
		w.Log.ErrorContext(ctx, "event cannot be signed", "event_id", r.attempt.Event, "webhook_id", r.attempt.Endpoint, "error", err)
		r.attempt.Result = Forbidden
	} else {
		var retryAfter time.Duration
		began := time.Now() //nolint:forbidigo // the monotonic clock
		if r.attempt.Result, r.attempt.Status, retryAfter, err = w.call(ctx, t.URL, header, body); ctx.Err() != nil && r.attempt.Result != Delivered {
			r.attempt.Result = interrupted
		}
		r.delay = retryAfter
		r.attempt.Took = time.Since(began) //nolint:forbidigo // as above
	}
	switch next, more := pause(t.Attempts); {
	case r.attempt.Result == interrupted:
		r.delay = 0
	case r.attempt.Result == Delivered || r.attempt.Result == Gone || !more || w.only != uuid.Nil: // a desk sees how it ended, and replays
		r.attempt.Final = true
	default:
		r.delay = max(next, min(r.delay, schedule[len(schedule)-1]))
	}
	if w.show != nil {
		w.show(r.attempt, body)
	}
	if err != nil {
		w.Log.DebugContext(ctx, "webhook call failed", "event_id", r.attempt.Event, "webhook_id", r.attempt.Endpoint, "result", r.attempt.Result, "error", err)
	}
	return r
}

// signer reads a secret. The library takes any base64, the empty one too.
func signer(secret string) (*webhooks.Webhook, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil || len(key) < 24 || !strings.HasPrefix(secret, secretPrefix) {
		return nil, errors.New("a secret is whsec_ and the base64 of at least 24 bytes")
	}
	return webhooks.NewWebhookRaw(key)
}

// sign makes the headers of Standard Webhooks. Two secrets while one replaces the other: two signatures.
func (w *Worker) sign(t *task, body []byte) (http.Header, error) {
	id := publicID(eventPrefix, t.Event)
	var signatures []string
	for _, sealed := range [][]byte{t.Secret, t.Previous} {
		if sealed == nil {
			continue
		}
		secret, err := w.Keys.Open(sealed, secretContext(t.Endpoint))
		if err != nil {
			return nil, err
		}
		s, err := signer(string(secret))
		if err != nil {
			return nil, err
		}
		signature, err := s.Sign(id, t.Now, body)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, signature)
	}
	h := http.Header{}
	h.Set(webhooks.HeaderWebhookID, id)
	h.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(t.Now.Unix(), 10))
	h.Set(webhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return h, nil
}

// call posts a body. Its status says everything.
func (w *Worker) call(ctx context.Context, address string, header http.Header, body []byte) (outcome string, status int, retryAfter time.Duration, err error) {
	if address == "" {
		return Delivered, 0, 0, nil // a desk that only looks
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return Forbidden, 0, 0, err
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Watchword-Webhooks/1")
	resp, err := w.Client.Do(req)
	if err != nil {
		return egress.Class(err), 0, 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing in it matters
	slow := time.AfterFunc(answerPause, cancel)
	io.CopyN(io.Discard, resp.Body, maxAnswer) //nolint:errcheck // as above
	slow.Stop()
	switch {
	case resp.StatusCode/100 == 2:
		return Delivered, resp.StatusCode, 0, nil
	case resp.StatusCode == http.StatusGone:
		return Gone, resp.StatusCode, 0, nil
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds <= int(schedule[len(schedule)-1].Seconds()) {
		retryAfter = time.Duration(seconds) * time.Second
	}
	return Refused, resp.StatusCode, retryAfter, nil
}

// settler stores how calls ended, as many at once as there are, and has the worker look again: there is room now.
func (w *Worker) settler(ctx context.Context, results <-chan result, look func()) {
	for first := range results {
		batch := []result{first}
	more:
		for len(batch) < settleBatch {
			select {
			case r, ok := <-results:
				if !ok {
					break more
				}
				batch = append(batch, r)
			default:
				break more
			}
		}
		if err := w.settle(ctx, batch); err != nil { // their claims run out: they are called again, under the same ids
			w.Log.ErrorContext(ctx, "webhook results not stored", "count", len(batch), "error", err)
			continue
		}
		look()
	}
}

// settle stores how calls ended. A worker whose claim went to another changes nothing but the record of what it did.
func (w *Worker) settle(ctx context.Context, batch []result) error {
	n := len(batch)
	endpoints, events, claims, outcomes := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	attempts, statuses, took, delays, final := make([]int64, n), make([]int64, n), make([]int64, n), make([]float64, n), make([]bool, n)
	for i, r := range batch {
		endpoints[i], events[i], claims[i], outcomes[i] = r.task.Endpoint.String(), r.task.Event.String(), r.task.claim.String(), r.attempt.Result
		attempts[i], statuses[i], took[i], delays[i], final[i] = int64(r.task.Attempts), int64(r.attempt.Status), r.attempt.Took.Milliseconds(), r.delay.Seconds(), r.attempt.Final
	}
	q := new(postgres.Query)
	q.With("results", fmt.Sprintf(`
		SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::int[], %s::int[], %s::int[], %s::float8[], %s::bool[])
		    AS r(endpoint_id, event_id, claim, result, attempt, status, took_ms, delay, final)`,
		q.Bind(pq.Array(endpoints)), q.Bind(pq.Array(events)), q.Bind(pq.Array(claims)), q.Bind(pq.Array(outcomes)), q.Bind(pq.Array(attempts)), q.Bind(pq.Array(statuses)),
		q.Bind(pq.Array(took)), q.Bind(pq.Array(delays)), q.Bind(pq.Array(final))))
	q.With("attempted", fmt.Sprintf(`
		INSERT INTO webhook_attempts (endpoint_id, event_id, attempt, result, status, took_ms)
		SELECT endpoint_id, event_id, attempt, result, nullif(status, 0), took_ms FROM results WHERE result <> '%s'`, interrupted))
	q.With("tally", fmt.Sprintf(`
		SELECT endpoint_id, bool_or(result = '%s') AS good, bool_or(result = '%s') AS gone, count(*) FILTER (WHERE result NOT IN ('%[1]s', '%[3]s')) AS bad FROM results GROUP BY endpoint_id`,
		Delivered, Gone, interrupted))
	q.With("healed", `
		UPDATE webhook_endpoints w SET failures = 0, failing_since = NULL, pause_until = NULL FROM tally t WHERE w.id = t.endpoint_id AND t.good AND NOT t.gone AND w.failures > 0`)
	q.With("troubled", fmt.Sprintf(`
		UPDATE webhook_endpoints w SET failures = w.failures + t.bad, failing_since = coalesce(w.failing_since, wall()),
		       pause_until = CASE WHEN w.failures + t.bad >= %[1]d THEN wall() + make_interval(secs => least(%[2]s, 5 * power(2, least(w.failures + t.bad - %[1]d, 10)))::float8) END,
		       disabled_at = CASE WHEN s.reason IS NOT NULL THEN wall() END, disabled_reason = s.reason
		  FROM tally t JOIN webhook_endpoints k ON k.id = t.endpoint_id
		 CROSS JOIN LATERAL (SELECT CASE WHEN t.gone THEN 'gone' WHEN k.failing_since <= wall() - make_interval(secs => %[3]s) THEN 'failing' END AS reason) s
		 WHERE w.id = t.endpoint_id AND t.bad > 0 AND (t.gone OR NOT t.good) AND w.disabled_at IS NULL AND w.listen_until IS NULL
		RETURNING w.id, w.owner, s.reason`, patience, q.Bind(maxPause.Seconds())+"::float8", q.Bind(w.disable().Seconds())+"::float8"))
	q.With("disabled", "SELECT id, owner, reason FROM troubled WHERE reason IS NOT NULL")
	q.With("ended", `
		DELETE FROM webhook_queue q USING results r WHERE q.endpoint_id = r.endpoint_id AND q.event_id = r.event_id AND q.claim = r.claim AND r.final`)
	q.With("again", fmt.Sprintf(`
		UPDATE webhook_queue q SET claim = NULL, due_at = wall() + make_interval(secs => r.delay), attempts = q.attempts - CASE WHEN r.result = '%s' THEN 1 ELSE 0 END
		  FROM results r WHERE q.endpoint_id = r.endpoint_id AND q.event_id = r.event_id AND q.claim = r.claim AND NOT r.final AND NOT EXISTS (SELECT FROM disabled d WHERE d.id = r.endpoint_id)`, interrupted))
	q.With("dropped", `
		DELETE FROM webhook_queue q USING disabled d WHERE q.endpoint_id = d.id AND NOT EXISTS (SELECT FROM results r WHERE q.endpoint_id = r.endpoint_id AND q.event_id = r.event_id AND q.claim = r.claim AND r.final)`)
	audit.Record(ctx, q, "disabled", audit.Event{Name: "webhook.disable", Outcome: audit.Success, Actor: audit.System}, audit.Expressions{"reason": "disabled.reason", "object": objectSQL("disabled")})
	q.Finally("SELECT id, owner, reason FROM disabled")
	var disabled []struct {
		ID     uuid.UUID `db:"id"`
		Owner  string    `db:"owner"`
		Reason string    `db:"reason"`
	}
	if err := w.DB.Select(ctx, &disabled, q); err != nil {
		return err
	}
	for _, d := range disabled {
		w.Log.WarnContext(ctx, "webhook disabled", "webhook_id", publicID(endpointPrefix, d.ID), "owner", d.Owner, "reason", d.Reason)
	}
	if w.Observe != nil {
		for _, r := range batch {
			if r.attempt.Result != interrupted {
				w.Observe(r.attempt)
			}
		}
	}
	return nil
}

// Test sends an event webhook.test to one endpoint, disabled or not, at once and not again. Nothing of it is stored.
func (w *Worker) Test(ctx context.Context, e Endpoint) (Attempt, error) {
	t := task{Endpoint: e.key, Event: uuid.New(), Type: WebhookTest, Attempts: len(schedule) + 1, Data: []byte(`{"test":true}`)}
	err := w.DB.Get(ctx, &t, postgres.NewQuery(`SELECT w.url, w.secret, CASE WHEN w.previous_until > wall() THEN w.previous_secret END AS previous_secret, wall() AS now, wall() AS created_at
		FROM webhook_endpoints w WHERE w.id = $1`, e.key))
	if errors.Is(err, postgres.ErrNotFound) {
		return Attempt{}, ErrNotFound
	}
	if err != nil {
		return Attempt{}, err
	}
	return w.deliver(ctx, &t).attempt, nil
}

// Listen delivers to an endpoint of [Endpoints.Listen] until ctx ends, and then removes it. show is told of each event, with what was sent.
func (w *Worker) Listen(ctx context.Context, s *Endpoints, e Endpoint, show func(Attempt, []byte)) error {
	var mu sync.Mutex
	desk := *w
	desk.only, desk.Calls, desk.PerEndpoint = e.key, 1, 1 // in order, as far as there is one
	desk.show = func(a Attempt, body []byte) {
		mu.Lock()
		defer mu.Unlock()
		show(a, body)
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var beating sync.WaitGroup
	beating.Go(func() {
		ticker := time.NewTicker(listenLease / 3)
		defer ticker.Stop()
		for {
			select {
			case <-running.Done():
				return
			case <-ticker.C:
				if err := s.keepListening(running, e.key); err != nil && running.Err() == nil {
					w.Log.WarnContext(running, "the database does not answer", "error", err)
				}
			}
		}
	})
	err := desk.Run(running)
	stop()
	beating.Wait()
	forgetting, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return errors.Join(err, s.Delete(forgetting, e.Owner, e.ID))
}

// Oldest is how long the first delivery has been due that a worker could make now; 0 when there is none.
func Oldest(ctx context.Context, db *postgres.DB) (time.Duration, error) {
	var age float64
	err := db.GetContext(ctx, &age, `SELECT coalesce(extract(epoch FROM wall() - min(q.due_at)), 0)::float8 FROM webhook_queue q JOIN webhook_endpoints w ON w.id = q.endpoint_id
		WHERE q.due_at <= wall() AND w.disabled_at IS NULL AND w.listen_until IS NULL AND w.failures = 0`)
	return time.Duration(age * float64(time.Second)), err
}
