package events

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Keys seal the secrets of endpoints. A keyring.Ring does.
type Keys interface {
	Seal(plain []byte, context string) ([]byte, error)
	Open(sealed []byte, context string) ([]byte, error)
}

// Bounds of endpoints.
const (
	// maxEndpoints of one owner: each is a row more in every statement that tells something.
	maxEndpoints   = 20
	maxDescription = 200
	maxFilter      = 32
	secretBytes    = 32 // Standard Webhooks: 24 to 64
	secretPrefix   = "whsec_"
	// MaxOverlap is how long an old secret may sign beside the new one.
	MaxOverlap = 7 * 24 * time.Hour
)

// Endpoint is where an owner is told. The JSON form is stable.
type Endpoint struct {
	ID             string     `json:"id"`
	Owner          Owner      `json:"owner"`
	URL            string     `json:"url"`
	Description    string     `json:"description,omitempty"`
	Events         []string   `json:"events"` // types and families; none: all
	State          string     `json:"state"`  // active, failing, disabled, listening
	DisabledReason string     `json:"disabled_reason,omitempty"`
	DisabledAt     *time.Time `json:"disabled_at,omitempty"`
	FailingSince   *time.Time `json:"failing_since,omitempty"`
	PreviousUntil  *time.Time `json:"previous_secret_until,omitempty"`
	Waiting        int        `json:"waiting"` // events that are not delivered yet
	CreatedAt      time.Time  `json:"created_at"`

	key uuid.UUID
}

// endpointRow is an endpoint as the database has it.
type endpointRow struct {
	ID            uuid.UUID      `db:"id"`
	Owner         Owner          `db:"owner"`
	URL           string         `db:"url"`
	Description   string         `db:"description"`
	Events        pq.StringArray `db:"events"`
	Created       time.Time      `db:"created_at"`
	Disabled      *time.Time     `db:"disabled_at"`
	Reason        *string        `db:"disabled_reason"`
	FailingSince  *time.Time     `db:"failing_since"`
	PreviousUntil *time.Time     `db:"previous_until"`
	Listening     bool           `db:"listening"`
	Waiting       int            `db:"waiting"`
}

func (r *endpointRow) endpoint() Endpoint {
	e := Endpoint{
		ID: publicID(endpointPrefix, r.ID), Owner: r.Owner, URL: r.URL, Description: r.Description, Events: append([]string{}, r.Events...), State: "active",
		DisabledAt: r.Disabled, FailingSince: r.FailingSince, PreviousUntil: r.PreviousUntil, Waiting: r.Waiting, CreatedAt: r.Created.UTC(), key: r.ID,
	}
	if r.Reason != nil {
		e.DisabledReason = *r.Reason
	}
	switch {
	case r.Disabled != nil:
		e.State = "disabled"
	case r.Listening:
		e.State = "listening"
	case r.FailingSince != nil:
		e.State = "failing"
	}
	return e
}

// Endpoints are all there are. Methods that take an owner see only that owner's; the owner "" is for the operator's own tools, and sees all.
type Endpoints struct {
	DB    *postgres.DB
	Keys  Keys
	Guard *egress.Guard
	// Actor of audit records: "operator", "client".
	Actor string
}

// New describes an endpoint to be made.
type New struct {
	Owner       Owner
	URL         string
	Description string
	Events      []string // types, and families such as "verification.*"; none: all
}

func secretContext(endpoint uuid.UUID) string { return "webhook secret " + endpoint.String() }

func newSecret() string {
	raw := make([]byte, secretBytes)
	rand.Read(raw) //nolint:errcheck // never fails
	return secretPrefix + base64.StdEncoding.EncodeToString(raw)
}

func (s *Endpoints) check(ctx context.Context, n New) error {
	var problems []error
	if err := s.Guard.Check(ctx, n.URL); err != nil {
		problems = append(problems, fmt.Errorf("%w: the address %w", ErrInvalid, err))
	}
	if err := CheckFilter(n.Events); err != nil {
		problems = append(problems, err)
	}
	if len(n.Events) > maxFilter {
		problems = append(problems, fmt.Errorf("%w: more than %d events are named", ErrInvalid, maxFilter))
	}
	if len(n.Description) > maxDescription || strings.ContainsFunc(n.Description, func(r rune) bool { return r < ' ' }) {
		problems = append(problems, fmt.Errorf("%w: the description is longer than %d bytes or has control characters", ErrInvalid, maxDescription))
	}
	return errors.Join(problems...)
}

// Create makes an endpoint and gives its secret, which is shown once. Its error joins everything that is wrong.
func (s *Endpoints) Create(ctx context.Context, n New) (Endpoint, string, error) {
	if err := s.check(ctx, n); err != nil {
		return Endpoint{}, "", err
	}
	secret := newSecret()
	e, err := s.insert(ctx, n, secret, 0)
	return e, secret, err
}

// insert stores an endpoint. listen is for how long somebody's desk takes its events; 0: servers deliver them.
func (s *Endpoints) insert(ctx context.Context, n New, secret string, listen time.Duration) (Endpoint, error) {
	id := uuid.New()
	sealed, err := s.Keys.Seal([]byte(secret), secretContext(id))
	if err != nil {
		return Endpoint{}, fmt.Errorf("seal webhook secret: %w", err)
	}
	filter := slices.Compact(slices.Sorted(slices.Values(n.Events)))
	q := new(postgres.Query)
	owner := q.Bind(string(n.Owner)) + "::text"
	until, event := "NULL", "webhook.create"
	if listen > 0 {
		until, event = "wall() + make_interval(secs => "+q.Bind(listen.Seconds())+"::float8)", "webhook.listen"
	}
	q.With("made", fmt.Sprintf(`
		INSERT INTO webhook_endpoints (id, owner, url, description, events, secret, listen_until)
		SELECT %s, %s, %s, %s, %s, %s, %s WHERE (SELECT count(*) FROM webhook_endpoints w WHERE w.owner = %s AND (w.listen_until IS NULL OR w.listen_until > wall())) < %d
		RETURNING id`,
		q.Bind(id)+"::uuid", owner, q.Bind(n.URL)+"::text", q.Bind(n.Description)+"::text", q.Bind(pq.Array(append([]string{}, filter...)))+"::text[]", q.Bind(sealed)+"::bytea", until, owner, maxEndpoints))
	audit.Record(ctx, q, "made", audit.Event{Name: event, Outcome: audit.Success, Actor: s.Actor, Object: object(n.Owner, id)}, nil)
	q.Finally("SELECT 1 FROM made")
	switch rows, err := s.DB.Run(ctx, q); {
	case err != nil:
		return Endpoint{}, err
	case rows == 0:
		return Endpoint{}, fmt.Errorf("%w: %s has %d endpoints already", ErrInvalid, n.Owner, maxEndpoints)
	}
	return s.get(ctx, id)
}

// object of an audit record.
func object(owner Owner, id uuid.UUID) string {
	return publicID(endpointPrefix, id) + " of " + string(owner)
}

// objectSQL is object in SQL, over columns id and owner of a part.
func objectSQL(part string) string {
	return fmt.Sprintf("'%s' || replace(%[2]s.id::text, '-', '') || ' of ' || %[2]s.owner", endpointPrefix, part)
}

// columns of [endpointRow].
const columns = `w.id, w.owner, w.url, w.description, w.events, w.created_at, w.disabled_at, w.disabled_reason, w.failing_since, w.listen_until IS NOT NULL AS listening,
	CASE WHEN w.previous_until > wall() THEN w.previous_until END AS previous_until, (SELECT count(*) FROM webhook_queue q WHERE q.endpoint_id = w.id) AS waiting`

// gone is an SQL condition: it was somebody's desk, who went without saying so.
const gone = "w.listen_until <= wall()"

// List gives an owner's endpoints, in the order in which they were made.
func (s *Endpoints) List(ctx context.Context, owner Owner) ([]Endpoint, error) {
	var rows []endpointRow
	err := s.DB.Select(ctx, &rows, postgres.NewQuery(`SELECT `+columns+` FROM webhook_endpoints w
		WHERE ($1::text = '' OR w.owner = $1::text) AND (`+gone+`) IS NOT TRUE ORDER BY w.created_at, w.id`, string(owner)))
	all := make([]Endpoint, len(rows))
	for i := range rows {
		all[i] = rows[i].endpoint()
	}
	return all, err
}

// Get gives one endpoint of an owner's, or [ErrNotFound].
func (s *Endpoints) Get(ctx context.Context, owner Owner, id string) (Endpoint, error) {
	key, err := parseID(endpointPrefix, id)
	if err != nil {
		return Endpoint{}, err
	}
	e, err := s.get(ctx, key)
	if err == nil && owner != "" && e.Owner != owner {
		return Endpoint{}, ErrNotFound // as one that does not exist
	}
	return e, err
}

func (s *Endpoints) get(ctx context.Context, id uuid.UUID) (Endpoint, error) {
	var row endpointRow
	err := s.DB.Get(ctx, &row, postgres.NewQuery(`SELECT `+columns+` FROM webhook_endpoints w WHERE w.id = $1 AND (`+gone+`) IS NOT TRUE`, id))
	if errors.Is(err, postgres.ErrNotFound) {
		return Endpoint{}, ErrNotFound
	}
	return row.endpoint(), err
}

// change does something to one endpoint of an owner's: set is what follows SET. more adds parts that follow from part changed (id, owner).
func (s *Endpoints) change(ctx context.Context, owner Owner, id string, q *postgres.Query, event, set string, more func()) error {
	key, err := parseID(endpointPrefix, id)
	if err != nil {
		return err
	}
	q.With("changed", fmt.Sprintf(`UPDATE webhook_endpoints w SET updated_at = wall(), %s WHERE w.id = %s AND (%s = '' OR w.owner = %[3]s) RETURNING w.id, w.owner`,
		set, q.Bind(key)+"::uuid", q.Bind(string(owner))+"::text"))
	if more != nil {
		more()
	}
	audit.Record(ctx, q, "changed", audit.Event{Name: event, Outcome: audit.Success, Actor: s.Actor}, audit.Expressions{"object": objectSQL("changed")})
	q.Finally("SELECT 1 FROM changed")
	rows, err := s.DB.Run(ctx, q)
	if err == nil && rows == 0 {
		return ErrNotFound
	}
	return err
}

// Rotate replaces the secret and gives the new one, once. The one that it replaces signs beside it for as long as overlap says, at most [MaxOverlap]; one that was replaced before that is
// dead at once.
func (s *Endpoints) Rotate(ctx context.Context, owner Owner, id string, overlap time.Duration) (string, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return "", fmt.Errorf("%w: secrets overlap for at most %s", ErrInvalid, MaxOverlap)
	}
	key, err := parseID(endpointPrefix, id)
	if err != nil {
		return "", err
	}
	secret := newSecret()
	sealed, err := s.Keys.Seal([]byte(secret), secretContext(key))
	if err != nil {
		return "", fmt.Errorf("seal webhook secret: %w", err)
	}
	q := new(postgres.Query)
	set := fmt.Sprintf(`secret = %s, previous_secret = w.secret, previous_until = wall() + make_interval(secs => %s)`, q.Bind(sealed)+"::bytea", q.Bind(overlap.Seconds())+"::float8")
	return secret, s.change(ctx, owner, id, q, "webhook.rotate", set, nil)
}

// Enable lets a disabled endpoint have events again, those that happen from now on.
func (s *Endpoints) Enable(ctx context.Context, owner Owner, id string) error {
	return s.change(ctx, owner, id, new(postgres.Query), "webhook.enable",
		"disabled_at = NULL, disabled_reason = NULL, failures = 0, failing_since = NULL, pause_until = NULL", nil)
}

// Disable stops deliveries to an endpoint. What waits for it is dropped: [Endpoints.Replay] brings it back.
func (s *Endpoints) Disable(ctx context.Context, owner Owner, id string) error {
	q := new(postgres.Query)
	reason := "operator"
	if s.Actor != audit.Operator {
		reason = "owner"
	}
	set := "disabled_at = coalesce(w.disabled_at, wall()), disabled_reason = coalesce(w.disabled_reason, " + q.Bind(reason) + "::text)"
	return s.change(ctx, owner, id, q, "webhook.disable", set, func() { drop(q, "changed") })
}

// drop adds part `dropped` to q: what waits for the endpoints of part from (column id) does not any more.
func drop(q *postgres.Query, from string) {
	q.With("dropped", "DELETE FROM webhook_queue q USING "+from+" WHERE q.endpoint_id = "+from+".id")
}

// Forget adds to q what follows when whoever the rows of part from name is no more: owner is an SQL expression over it. Their endpoints go, and so do the events that were theirs, for the next
// who gets the name is somebody else.
func Forget(ctx context.Context, q *postgres.Query, from, owner string) {
	q.With("endpoints_left", fmt.Sprintf("DELETE FROM webhook_endpoints w USING %s WHERE w.owner = %s RETURNING w.id, w.owner", from, owner))
	drop(q, "endpoints_left")
	q.With("events_left", fmt.Sprintf("DELETE FROM events e USING %s WHERE e.owner = %s", from, owner))
	audit.Record(ctx, q, "endpoints_left", audit.Event{Name: "webhook.delete", Outcome: audit.Success, Reason: "owner_deleted", Actor: audit.Operator}, audit.Expressions{"object": objectSQL("endpoints_left")})
}

// Delete removes an endpoint for good.
func (s *Endpoints) Delete(ctx context.Context, owner Owner, id string) error {
	key, err := parseID(endpointPrefix, id)
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf(`DELETE FROM webhook_endpoints w WHERE w.id = %s AND (%s = '' OR w.owner = %[2]s) RETURNING w.id, w.owner`, q.Bind(key)+"::uuid", q.Bind(string(owner))+"::text"))
	drop(q, "changed")
	audit.Record(ctx, q, "changed", audit.Event{Name: "webhook.delete", Outcome: audit.Success, Actor: s.Actor}, audit.Expressions{"object": objectSQL("changed")})
	q.Finally("SELECT 1 FROM changed")
	rows, err := s.DB.Run(ctx, q)
	if err == nil && rows == 0 {
		return ErrNotFound
	}
	return err
}

// Happened is an event and what became of it at one endpoint. The JSON form is stable.
type Happened struct {
	ID       string    `json:"id"`
	At       time.Time `json:"timestamp"`
	Owner    Owner     `json:"owner"`
	Type     Type      `json:"type"`
	Object   string    `json:"object,omitempty"`   // the id in its data
	Endpoint string    `json:"endpoint,omitempty"` // none: nobody was to be told
	State    string    `json:"state"`              // stored (for nobody), waiting, delivered, failed
	Attempts int       `json:"attempts"`
	Result   string    `json:"result,omitempty"` // of the last attempt
	Status   int       `json:"status,omitempty"`
}

// Which chooses events.
type Which struct {
	Owner    Owner         // of the events. "": that of Endpoint, or of the event that is named
	Endpoint string        // "": all of the owner's
	Since    time.Duration // how far back. Default a day, at most [Keep]
	Failed   bool          // only what was not delivered
	Limit    int           // of a list. Default 100
}

// complete fills in what was left out.
func (w *Which) complete(ctx context.Context, s *Endpoints) (endpoint uuid.UUID, err error) {
	if w.Since == 0 {
		w.Since = 24 * time.Hour
	}
	if w.Since < 0 || w.Since > Keep {
		return uuid.Nil, fmt.Errorf("%w: events are kept for %d days", ErrInvalid, int(Keep.Hours()/24))
	}
	if w.Limit == 0 {
		w.Limit = 100
	}
	if w.Endpoint != "" {
		e, err := s.Get(ctx, w.Owner, w.Endpoint)
		if err != nil {
			return uuid.Nil, err
		}
		w.Owner = e.Owner
		return e.key, nil
	}
	return uuid.Nil, nil
}

// Events lists an owner's events and what became of them at each endpoint, the newest first.
func (s *Endpoints) Events(ctx context.Context, which Which) ([]Happened, error) {
	endpoint, err := which.complete(ctx, s)
	if err != nil {
		return nil, err
	}
	q := new(postgres.Query)
	only := ""
	if endpoint != uuid.Nil {
		only += " AND t.endpoint_id = " + q.Bind(endpoint) + "::uuid"
	}
	if which.Failed {
		only += " AND t.state = 'failed'"
	}
	q.Finally(fmt.Sprintf(`
		SELECT e.id, e.created_at, e.owner, e.type, coalesce(e.data->>'id', e.data->>'vendor', '') AS object, t.endpoint_id, coalesce(t.state, 'stored') AS state,
		       coalesce(t.attempts, 0) AS attempts, coalesce(t.result, '') AS result, coalesce(t.status, 0) AS status
		  FROM events e LEFT JOIN LATERAL (
			SELECT u.endpoint_id, count(*) FILTER (WHERE NOT u.waits) AS attempts,
			       CASE WHEN bool_or(u.waits) THEN 'waiting' WHEN bool_or(u.result = '%s') THEN 'delivered' ELSE 'failed' END AS state,
			       (array_agg(u.result ORDER BY u.created_at DESC) FILTER (WHERE NOT u.waits))[1] AS result,
			       (array_agg(u.status ORDER BY u.created_at DESC) FILTER (WHERE NOT u.waits))[1] AS status
			  FROM (SELECT q.endpoint_id, true AS waits, NULL AS result, NULL::smallint AS status, NULL::timestamptz AS created_at
			          FROM webhook_endpoints w JOIN webhook_queue q ON q.endpoint_id = w.id AND q.event_id = e.id WHERE w.owner = e.owner
			        UNION ALL SELECT a.endpoint_id, false, a.result, a.status, a.created_at FROM webhook_attempts a WHERE a.event_id = e.id) u
			 GROUP BY u.endpoint_id) t ON true
		 WHERE e.owner = %s AND e.created_at > wall() - make_interval(secs => %s)%s
		 ORDER BY e.created_at DESC LIMIT %s`, Delivered, q.Bind(string(which.Owner))+"::text", q.Bind(which.Since.Seconds())+"::float8", only, q.Bind(which.Limit)+"::int"))
	var rows []struct {
		ID       uuid.UUID  `db:"id"`
		At       time.Time  `db:"created_at"`
		Owner    Owner      `db:"owner"`
		Type     Type       `db:"type"`
		Object   string     `db:"object"`
		Endpoint *uuid.UUID `db:"endpoint_id"`
		State    string     `db:"state"`
		Attempts int        `db:"attempts"`
		Result   string     `db:"result"`
		Status   int        `db:"status"`
	}
	err = s.DB.Select(ctx, &rows, q)
	all := make([]Happened, len(rows))
	for i, r := range rows {
		all[i] = Happened{ID: publicID(eventPrefix, r.ID), At: r.At.UTC(), Owner: r.Owner, Type: r.Type, Object: r.Object, State: r.State, Attempts: r.Attempts, Result: r.Result, Status: r.Status}
		if r.Endpoint != nil {
			all[i].Endpoint = publicID(endpointPrefix, *r.Endpoint)
		}
	}
	return all, err
}

// maxReplay bounds what is replayed at once.
const maxReplay = 10_000

// Replay delivers events again, under their old ids, and says how many deliveries that makes. event names one; without it which.Endpoint has to be named, and is told what happened since
// which.Since, as far as its filter lets it pass, delivered before or not (which.Failed: not). An endpoint that is disabled gets nothing, and any only what is its owner's.
func (s *Endpoints) Replay(ctx context.Context, event string, which Which) (int, error) {
	endpoint, err := which.complete(ctx, s)
	if err != nil {
		return 0, err
	}
	q := new(postgres.Query)
	conditions := []string{open("w"), "w.listen_until IS NULL"}
	is := func(column string, v any, cast string) { conditions = append(conditions, column+" = "+q.Bind(v)+cast) }
	if event == "" && endpoint == uuid.Nil {
		return 0, fmt.Errorf("%w: name an event, or an endpoint that is told what it missed", ErrInvalid)
	}
	if event != "" {
		id, err := parseID(eventPrefix, event)
		if err != nil {
			return 0, err
		}
		is("e.id", id, "::uuid")
	} else {
		conditions = append(conditions, "e.created_at > wall() - make_interval(secs => "+q.Bind(which.Since.Seconds())+"::float8)")
	}
	if endpoint != uuid.Nil {
		is("w.id", endpoint, "::uuid")
	}
	if event == "" || endpoint == uuid.Nil {
		conditions = append(conditions, wants("w", "e.type"))
	}
	if which.Owner != "" {
		is("e.owner", string(which.Owner), "::text")
	}
	if which.Failed {
		conditions = append(conditions, "NOT EXISTS (SELECT FROM webhook_attempts a WHERE a.event_id = e.id AND a.endpoint_id = w.id AND a.result = '"+Delivered+"')")
	}
	q.With("chosen", fmt.Sprintf(`SELECT w.id AS endpoint_id, w.owner, e.id, e.created_at FROM events e JOIN webhook_endpoints w ON w.owner = e.owner WHERE %s ORDER BY e.created_at LIMIT %d`,
		strings.Join(conditions, " AND "), maxReplay+1))
	// What is being called is left alone, what waits is due now.
	q.With("queued", fmt.Sprintf(`
		INSERT INTO webhook_queue AS q (endpoint_id, event_id, event_at) SELECT endpoint_id, id, created_at FROM chosen WHERE (SELECT count(*) FROM chosen) <= %d
		ON CONFLICT (endpoint_id, event_id) DO UPDATE SET attempts = 0, due_at = wall(), claim = NULL WHERE q.claim IS NULL OR q.due_at <= wall()
		RETURNING endpoint_id, pg_notify('%s', '')::text`, maxReplay, channel))
	q.With("replayed", "SELECT q.endpoint_id AS id, w.owner, count(*) AS n FROM queued q JOIN webhook_endpoints w ON w.id = q.endpoint_id GROUP BY 1, 2")
	q.With("woken", "UPDATE webhook_endpoints w SET pause_until = NULL FROM replayed r WHERE w.id = r.id AND w.pause_until IS NOT NULL") // whoever asks has seen to it
	audit.Record(ctx, q, "replayed", audit.Event{Name: "webhook.replay", Outcome: audit.Success, Actor: s.Actor}, audit.Expressions{"object": objectSQL("replayed")})
	q.Finally("SELECT coalesce((SELECT sum(n) FROM replayed), 0)::int AS queued, (SELECT count(*) FROM chosen) AS chosen")
	var out struct {
		Queued int `db:"queued"`
		Chosen int `db:"chosen"`
	}
	switch err := s.DB.Get(ctx, &out, q); {
	case err != nil:
		return 0, err
	case out.Chosen > maxReplay:
		return 0, fmt.Errorf("%w: that would be more than %d events at once", ErrInvalid, maxReplay)
	case event != "" && out.Chosen == 0:
		return 0, ErrNotFound
	}
	return out.Queued, nil
}

// listenLease is how long a desk that does not say that it is still there keeps its endpoint.
const listenLease = 30 * time.Second

// Listen makes an endpoint that no server delivers to: whoever called delivers with [Worker.Listen]. address is where they are forwarded to, for the record.
func (s *Endpoints) Listen(ctx context.Context, n New, secret string) (Endpoint, string, error) {
	if err := CheckFilter(n.Events); err != nil {
		return Endpoint{}, "", err
	}
	if u, err := url.Parse(n.URL); n.URL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return Endpoint{}, "", fmt.Errorf("%w: the address to forward to is not a web address", ErrInvalid)
	}
	if secret == "" {
		secret = newSecret()
	}
	if _, err := signer(secret); err != nil {
		return Endpoint{}, "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	n.Description = "somebody's desk"
	e, err := s.insert(ctx, n, secret, listenLease)
	return e, secret, err
}

// keepListening says that the desk is still there.
func (s *Endpoints) keepListening(ctx context.Context, id uuid.UUID) error {
	_, err := s.DB.Run(ctx, postgres.NewQuery(`UPDATE webhook_endpoints SET listen_until = wall() + make_interval(secs => $2::float8) WHERE id = $1`, id, listenLease.Seconds()))
	return err
}
