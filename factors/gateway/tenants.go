package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Errors of tenants and keys.
var (
	// ErrNoTenant: no tenant has that name.
	ErrNoTenant = errors.New("gateway: no such tenant")
	// ErrTenantExists: the name is taken. Choose another.
	ErrTenantExists = errors.New("gateway: tenant name is taken")
	// ErrTenantName: it cannot be the name of a tenant.
	ErrTenantName = errors.New("gateway: the name of a tenant has up to 40 small letters, digits, - and _")
	// ErrSenderTaken: another tenant has one of the sender ids.
	ErrSenderTaken = errors.New("gateway: a sender id is another tenant's")
	// ErrNoKey: no key that still stands has that id.
	ErrNoKey = errors.New("gateway: no such key")
	// ErrScope: there is no such scope.
	ErrScope = errors.New("gateway: scopes are send, verify, read and admin")
	// ErrClientTaken: the application acts for another tenant.
	ErrClientTaken = errors.New("gateway: the application acts for another tenant")
)

// Scope is something that a key may do.
type Scope string

// Scopes.
const (
	Send   Scope = "send"   // create, resend, cancel
	Verify Scope = "verify" // check
	Read   Scope = "read"   // read, list, status
	Admin  Scope = "admin"  // the tenant's own settings, where the API has any
)

// Scopes lists them.
func Scopes() []Scope { return []Scope{Send, Verify, Read, Admin} }

// DefaultScopes are those of a key that is made without saying.
func DefaultScopes() []Scope { return []Scope{Send, Verify, Read} }

// Prefixes of keys: what a key is for shows before it is used.
const (
	livePrefix = "otp_live_"
	testPrefix = "otp_test_"
)

// Tenant is whoever runs programs that ask for verifications.
type Tenant struct {
	ID         uuid.UUID  `json:"-"`
	Name       string     `json:"name"`
	Settings   Settings   `json:"settings"`
	CreatedAt  time.Time  `json:"created_at"`
	UpdatedAt  time.Time  `json:"updated_at"`
	DisabledAt *time.Time `json:"disabled_at,omitempty"`
	Clients    []string   `json:"clients,omitempty"` // applications that may come with access tokens of their own
}

// Key is a key as it may be shown: never the key itself.
type Key struct {
	ID         uuid.UUID
	Tenant     string
	Test       bool
	Scopes     []Scope
	Note       string
	Hint       string // its last four characters
	CreatedAt  time.Time
	ExpiresAt  *time.Time
	RevokedAt  *time.Time
	LastUsedAt *time.Time // to the minute
}

// tenantsChannel is notified when a tenant or a key changes.
const tenantsChannel = "watchword_tenants"

// rememberFor bounds how long a change of settings can go unnoticed if its notification is lost. Whether a key stands is not remembered at all.
const rememberFor = time.Minute

// Tenants keeps tenants and keys. It is safe for concurrent use.
type Tenants struct {
	DB       *postgres.DB
	Ceilings Ceilings
	// Gone, when set, adds what else follows when a tenant is deleted: part from has its name. Names can be given anew, so whatever goes by one has to go.
	Gone func(ctx context.Context, q *postgres.Query, from string)

	mu      sync.RWMutex
	keys    map[[sha256.Size]byte]*Caller
	clients map[string]*Caller
	changes uint64
}

// maxRemembered bounds what is remembered.
const maxRemembered = 10_000

// Create makes a tenant.
func (s *Tenants) Create(ctx context.Context, name string, settings Settings) error {
	if !nameForm.MatchString(name) {
		return ErrTenantName
	}
	if err := settings.Validate(s.Ceilings); err != nil {
		return err
	}
	data, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("INSERT INTO tenants (id, name, settings) SELECT %s, %s, %s WHERE %s RETURNING name",
		q.Bind(uuid.New())+"::uuid", q.Bind(name)+"::text", q.Bind(string(data))+"::jsonb", free(q, name, settings)))
	err = s.change(ctx, q, name, "tenant.create")
	switch {
	case pq.As(err, pqerror.UniqueViolation) != nil:
		return ErrTenantExists
	case errors.Is(err, ErrNoTenant):
		return ErrSenderTaken
	}
	return err
}

// free is an SQL condition: no other tenant has one of the senders. Case is nothing that a reader of texts would tell them apart by.
func free(q *postgres.Query, name string, settings Settings) string {
	return fmt.Sprintf(`NOT EXISTS (SELECT FROM tenants o CROSS JOIN LATERAL jsonb_array_elements_text(coalesce(o.settings->'senders', '[]')) x(sender)
		WHERE o.name <> %s AND lower(x.sender) IN (SELECT lower(s) FROM unnest(%s) s))`, q.Bind(name)+"::text", q.Bind(pq.Array(settings.Senders))+"::text[]")
}

// Update replaces a tenant's settings.
func (s *Tenants) Update(ctx context.Context, name string, settings Settings) error {
	if err := settings.Validate(s.Ceilings); err != nil {
		return err
	}
	if _, err := s.Get(ctx, name); err != nil {
		return err
	}
	data, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("UPDATE tenants SET settings = %s, updated_at = wall() WHERE name = %s AND %s RETURNING name",
		q.Bind(string(data))+"::jsonb", q.Bind(name)+"::text", free(q, name, settings)))
	if err = s.change(ctx, q, name, "tenant.update"); errors.Is(err, ErrNoTenant) {
		return ErrSenderTaken
	}
	return err
}

// SetDisabled keeps a tenant out, at once, or lets it in again.
func (s *Tenants) SetDisabled(ctx context.Context, name string, disabled bool) error {
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("UPDATE tenants SET disabled_at = CASE WHEN %s THEN coalesce(disabled_at, wall()) END, updated_at = wall() WHERE name = %s RETURNING name",
		q.Bind(disabled)+"::bool", q.Bind(name)+"::text"))
	return s.change(ctx, q, name, map[bool]string{true: "tenant.disable", false: "tenant.enable"}[disabled])
}

// Delete removes a tenant with its keys. What it verified is forgotten with everything else of its age.
func (s *Tenants) Delete(ctx context.Context, name string) error {
	q := new(postgres.Query)
	q.With("changed", "DELETE FROM tenants WHERE name = "+q.Bind(name)+"::text RETURNING name")
	if s.Gone != nil {
		s.Gone(ctx, q, "changed")
	}
	return s.change(ctx, q, name, "tenant.delete")
}

// AllowClient lets an application act for a tenant, with an access token that it got for itself. No scopes: it may no longer.
func (s *Tenants) AllowClient(ctx context.Context, name, client string, scopes []Scope) error {
	if err := checkScopes(scopes); err != nil {
		return err
	}
	q := new(postgres.Query)
	q.With("tenant", "SELECT id, name FROM tenants WHERE name = "+q.Bind(name)+"::text")
	id := q.Bind(client) + "::text"
	if len(scopes) == 0 {
		q.With("kept", fmt.Sprintf("DELETE FROM tenant_clients c USING tenant t WHERE c.client_id = %s AND c.tenant_id = t.id RETURNING c.tenant_id", id))
	} else {
		q.With("kept", fmt.Sprintf(`INSERT INTO tenant_clients AS c (client_id, tenant_id, scopes) SELECT %s, id, %s FROM tenant
			ON CONFLICT (client_id) DO UPDATE SET scopes = excluded.scopes WHERE c.tenant_id = excluded.tenant_id RETURNING c.tenant_id`, id, q.Bind(pq.Array(scopes))+"::text[]"))
	}
	q.With("changed", "SELECT name FROM tenant t JOIN kept k ON k.tenant_id = t.id")
	if err := s.change(ctx, q, name, "tenant.client"); !errors.Is(err, ErrNoTenant) {
		return err
	}
	if _, err := s.Get(ctx, name); err != nil {
		return err
	}
	return ErrClientTaken
}

// DropClients adds to q that the applications in column id of part from act for nobody any more: they are deleted.
func DropClients(ctx context.Context, q *postgres.Query, from string) {
	q.With("clients_left", fmt.Sprintf("DELETE FROM tenant_clients c USING %s, tenants t WHERE c.client_id = %[1]s.id AND t.id = c.tenant_id RETURNING t.name, c.client_id", from))
	audit.Record(ctx, q, "clients_left", audit.Event{Name: "tenant.client", Outcome: audit.Success, Reason: "client_deleted", Actor: "operator"},
		audit.Expressions{"client_id": "clients_left.name", "object": "clients_left.client_id"})
}

func (s *Tenants) change(ctx context.Context, q *postgres.Query, name, event string) error {
	audit.Record(ctx, q, "changed", audit.Event{Name: event, Outcome: audit.Success, Actor: "operator", Client: name}, nil)
	q.Finally(fmt.Sprintf("SELECT pg_notify('%s', '')::text FROM changed", tenantsChannel))
	n, err := s.DB.Run(ctx, q)
	s.forget("")
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", event, err)
	case n == 0:
		return ErrNoTenant
	}
	return nil
}

// Get finds a tenant.
func (s *Tenants) Get(ctx context.Context, name string) (*Tenant, error) {
	list, err := s.read(ctx, "t.name = $1", name)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrNoTenant
	}
	return list[0], nil
}

// List reads up to limit tenants by name, after the one named.
func (s *Tenants) List(ctx context.Context, after string, limit int) ([]*Tenant, error) {
	return s.read(ctx, "t.name > $1 ORDER BY t.name LIMIT $2", after, limit)
}

func (s *Tenants) read(ctx context.Context, where string, args ...any) ([]*Tenant, error) {
	var rows []struct {
		ID         uuid.UUID      `db:"id"`
		Name       string         `db:"name"`
		Settings   []byte         `db:"settings"`
		CreatedAt  time.Time      `db:"created_at"`
		UpdatedAt  time.Time      `db:"updated_at"`
		DisabledAt *time.Time     `db:"disabled_at"`
		Clients    pq.StringArray `db:"clients"`
	}
	if err := s.DB.Select(ctx, &rows, postgres.NewQuery(`SELECT t.id, t.name, t.settings, t.created_at, t.updated_at, t.disabled_at,
		ARRAY(SELECT client_id FROM tenant_clients c WHERE c.tenant_id = t.id ORDER BY client_id) AS clients FROM tenants t WHERE `+where, args...)); err != nil {
		return nil, fmt.Errorf("read tenants: %w", err)
	}
	list := make([]*Tenant, len(rows))
	for i, r := range rows {
		list[i] = &Tenant{ID: r.ID, Name: r.Name, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, DisabledAt: r.DisabledAt, Clients: r.Clients}
		if err := json.Unmarshal(r.Settings, &list[i].Settings); err != nil {
			return nil, fmt.Errorf("settings of tenant %s: %w", r.Name, err)
		}
	}
	return list, nil
}

// NewKey says what a key is to be.
type NewKey struct {
	Test   bool
	Scopes []Scope // none: [DefaultScopes]
	Note   string
	Life   time.Duration // 0: until it is revoked
}

// maxNote bounds what a key may be called.
const maxNote = 100

// CreateKey makes a key of a tenant and gives it, once: only a hash is stored.
func (s *Tenants) CreateKey(ctx context.Context, tenant string, k NewKey) (uuid.UUID, string, error) {
	if len(k.Scopes) == 0 {
		k.Scopes = DefaultScopes()
	}
	if err := checkScopes(k.Scopes); err != nil {
		return uuid.Nil, "", err
	}
	if len(k.Note) > maxNote {
		return uuid.Nil, "", fmt.Errorf("gateway: a note has at most %d characters", maxNote)
	}
	q := new(postgres.Query)
	q.With("source", fmt.Sprintf("SELECT id AS tenant_id, name, %s AS test, %s AS scopes, %s AS note, CASE WHEN %[4]s > 0 THEN wall() + make_interval(secs => %[4]s) END AS expires_at FROM tenants WHERE name = %[5]s",
		q.Bind(k.Test)+"::bool", q.Bind(pq.Array(k.Scopes))+"::text[]", q.Bind(k.Note)+"::text", q.Bind(k.Life.Seconds())+"::float8", q.Bind(tenant)+"::text"))
	return s.insertKey(ctx, q, k.Test, "apikey.create")
}

// RotateKey makes a key like another, which works on for overlap, so that programs can be given the new one meanwhile. A key that was made to end has one that lives as long.
func (s *Tenants) RotateKey(ctx context.Context, id uuid.UUID, overlap time.Duration) (uuid.UUID, string, error) {
	old, err := s.Keys(ctx, "", id)
	if err != nil {
		return uuid.Nil, "", err
	}
	if len(old) == 0 || old[0].RevokedAt != nil {
		return uuid.Nil, "", ErrNoKey
	}
	q := new(postgres.Query)
	q.With("old", "SELECT id, expires_at - created_at AS life FROM api_keys WHERE id = "+q.Bind(id)+"::uuid FOR UPDATE")
	q.With("rotated", fmt.Sprintf(`UPDATE api_keys k SET expires_at = least(k.expires_at, wall() + make_interval(secs => %s)) FROM old
		WHERE k.id = old.id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > wall()) RETURNING k.tenant_id, k.test, k.scopes, k.note, old.life`, q.Bind(overlap.Seconds())+"::float8"))
	q.With("source", "SELECT r.tenant_id, t.name, r.test, r.scopes, r.note, wall() + r.life AS expires_at FROM rotated r JOIN tenants t ON t.id = r.tenant_id")
	return s.insertKey(ctx, q, old[0].Test, "apikey.rotate")
}

// insertKey stores a key for the one row of part source.
func (s *Tenants) insertKey(ctx context.Context, q *postgres.Query, test bool, event string) (uuid.UUID, string, error) {
	id, key := uuid.New(), livePrefix+keyring.Token()
	if test {
		key = testPrefix + strings.TrimPrefix(key, livePrefix)
	}
	hash := sha256.Sum256([]byte(key))
	q.With("made", fmt.Sprintf(`INSERT INTO api_keys (id, tenant_id, hash, hint, test, scopes, note, expires_at)
		SELECT %s, tenant_id, %s, %s, test, scopes, note, expires_at FROM source RETURNING id`,
		q.Bind(id)+"::uuid", q.Bind(hash[:])+"::bytea", q.Bind(key[len(key)-4:])+"::text"))
	q.With("changed", "SELECT s.name FROM source s, made")
	audit.Record(ctx, q, "changed", audit.Event{Name: event, Outcome: audit.Success, Actor: "operator", Object: KeyID(id)}, audit.Expressions{"client_id": "changed.name"})
	q.Finally(fmt.Sprintf("SELECT pg_notify('%s', '')::text FROM changed", tenantsChannel))
	n, err := s.DB.Run(ctx, q)
	s.forget("")
	switch {
	case err != nil:
		return uuid.Nil, "", fmt.Errorf("%s: %w", event, err)
	case n == 0 && event == "apikey.rotate":
		return uuid.Nil, "", ErrNoKey
	case n == 0:
		return uuid.Nil, "", ErrNoTenant
	}
	return id, key, nil
}

// RevokeKey ends a key at once.
func (s *Tenants) RevokeKey(ctx context.Context, id uuid.UUID) error {
	q := new(postgres.Query)
	q.With("revoked", "UPDATE api_keys SET revoked_at = wall() WHERE id = "+q.Bind(id)+"::uuid AND revoked_at IS NULL RETURNING tenant_id")
	q.With("changed", "SELECT t.name FROM revoked r JOIN tenants t ON t.id = r.tenant_id")
	audit.Record(ctx, q, "changed", audit.Event{Name: "apikey.revoke", Outcome: audit.Success, Actor: "operator", Object: KeyID(id)}, audit.Expressions{"client_id": "changed.name"})
	q.Finally(fmt.Sprintf("SELECT pg_notify('%s', '')::text FROM changed", tenantsChannel))
	n, err := s.DB.Run(ctx, q)
	s.forget("")
	if err == nil && n == 0 {
		return ErrNoKey
	}
	return err
}

// Keys lists the keys of a tenant, the newest first: all tenants' if tenant is "", one key if id is set.
func (s *Tenants) Keys(ctx context.Context, tenant string, id uuid.UUID) ([]Key, error) {
	var rows []struct {
		ID         uuid.UUID      `db:"id"`
		Tenant     string         `db:"tenant"`
		Test       bool           `db:"test"`
		Scopes     pq.StringArray `db:"scopes"`
		Note       string         `db:"note"`
		Hint       string         `db:"hint"`
		CreatedAt  time.Time      `db:"created_at"`
		ExpiresAt  *time.Time     `db:"expires_at"`
		RevokedAt  *time.Time     `db:"revoked_at"`
		LastUsedAt *time.Time     `db:"last_used_at"`
	}
	var one any
	if id != uuid.Nil {
		one = id
	}
	if err := s.DB.Select(ctx, &rows, postgres.NewQuery(`SELECT k.id, t.name AS tenant, k.test, k.scopes, k.note, k.hint, k.created_at, k.expires_at, k.revoked_at, k.last_used_at
		FROM api_keys k JOIN tenants t ON t.id = k.tenant_id WHERE ($1::text = '' OR t.name = $1) AND ($2::uuid IS NULL OR k.id = $2) ORDER BY k.created_at DESC, k.id`, tenant, one)); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	list := make([]Key, len(rows))
	for i, r := range rows {
		list[i] = Key{ID: r.ID, Tenant: r.Tenant, Test: r.Test, Note: r.Note, Hint: r.Hint, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt, RevokedAt: r.RevokedAt, LastUsedAt: r.LastUsedAt}
		for _, scope := range r.Scopes {
			list[i].Scopes = append(list[i].Scopes, Scope(scope))
		}
	}
	return list, nil
}

func checkScopes(scopes []Scope) error {
	for _, scope := range scopes {
		if !slices.Contains(Scopes(), scope) {
			return ErrScope
		}
	}
	return nil
}

// Caller is whoever asks, as far as it is remembered. Whether it still may is asked in every statement: see [Caller.stands].
type Caller struct {
	Tenant *Tenant
	Key    uuid.UUID // uuid.Nil: an application with an access token
	Client string    // that application
	Test   bool
	Scopes []Scope

	hash [sha256.Size]byte
	page bool // whoever is on a page that the tenant has: neither key nor application
}

func (c *Caller) may(scope Scope) bool { return slices.Contains(c.Scopes, scope) }

// stands is what an SQL statement selects from to have one row as long as whoever asks still may, and none afterwards.
func (c *Caller) stands(q *postgres.Query) string {
	if c.page {
		return fmt.Sprintf("tenants t WHERE t.id = %s AND %s", q.Bind(c.Tenant.ID)+"::uuid", hostsPages)
	}
	if c.Key == uuid.Nil {
		return fmt.Sprintf("tenant_clients k JOIN tenants t ON t.id = k.tenant_id WHERE k.client_id = %s AND t.id = %s AND k.scopes @> %s AND t.disabled_at IS NULL",
			q.Bind(c.Client)+"::text", q.Bind(c.Tenant.ID)+"::uuid", q.Bind(pq.Array(c.Scopes))+"::text[]")
	}
	return fmt.Sprintf(`api_keys k JOIN tenants t ON t.id = k.tenant_id
		WHERE k.id = %s AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > wall()) AND t.disabled_at IS NULL`, q.Bind(c.Key)+"::uuid")
}

// standing adds part `caller`: one row as long as whoever asks still may. It gives the condition that there is one.
func (c *Caller) standing(q *postgres.Query) string {
	if !q.Has("caller") {
		q.With("caller", "SELECT 1 FROM "+c.stands(q))
	}
	return "EXISTS (SELECT FROM caller)"
}

// Stands reports whether a key works.
func (s *Tenants) Stands(ctx context.Context, key string) (bool, error) {
	c, err := s.byKey(ctx, key)
	return c != nil, err
}

// byKey finds who a key belongs to; nil: nobody, or nobody any more.
func (s *Tenants) byKey(ctx context.Context, key string) (*Caller, error) {
	hash := sha256.Sum256([]byte(key))
	s.mu.RLock()
	c, changes := s.keys[hash], s.changes
	s.mu.RUnlock()
	if c != nil {
		return c, nil
	}
	c, err := s.find(ctx, `SELECT k.id, k.test, k.scopes, t.id AS tenant_id, t.name, t.settings FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
		WHERE k.hash = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > wall()) AND t.disabled_at IS NULL`, hash[:])
	if c == nil || err != nil {
		return nil, err
	}
	c.hash = hash
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes && len(s.keys) < maxRemembered {
		if s.keys == nil {
			s.keys = map[[sha256.Size]byte]*Caller{}
		}
		s.keys[hash] = c
	}
	return c, nil
}

// byClient finds who an application acts for; nil: nobody.
func (s *Tenants) byClient(ctx context.Context, client string) (*Caller, error) {
	s.mu.RLock()
	c, changes := s.clients[client], s.changes
	s.mu.RUnlock()
	if c != nil {
		return c, nil
	}
	c, err := s.find(ctx, `SELECT '00000000-0000-0000-0000-000000000000'::uuid AS id, false AS test, k.scopes, t.id AS tenant_id, t.name, t.settings
		FROM tenant_clients k JOIN tenants t ON t.id = k.tenant_id WHERE k.client_id = $1 AND t.disabled_at IS NULL`, client)
	if c == nil || err != nil {
		return nil, err
	}
	c.Client = client
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes && len(s.clients) < maxRemembered {
		if s.clients == nil {
			s.clients = map[string]*Caller{}
		}
		s.clients[client] = c
	}
	return c, nil
}

func (s *Tenants) find(ctx context.Context, statement string, arg any) (*Caller, error) {
	var row struct {
		ID       uuid.UUID      `db:"id"`
		Test     bool           `db:"test"`
		Scopes   pq.StringArray `db:"scopes"`
		TenantID uuid.UUID      `db:"tenant_id"`
		Name     string         `db:"name"`
		Settings []byte         `db:"settings"`
	}
	if err := s.DB.Get(ctx, &row, postgres.NewQuery(statement, arg)); errors.Is(err, postgres.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look up caller: %w", err)
	}
	c := &Caller{Key: row.ID, Test: row.Test, Tenant: &Tenant{ID: row.TenantID, Name: row.Name}}
	for _, scope := range row.Scopes {
		c.Scopes = append(c.Scopes, Scope(scope))
	}
	if err := json.Unmarshal(row.Settings, &c.Tenant.Settings); err != nil {
		return nil, fmt.Errorf("settings of tenant %s: %w", row.Name, err)
	}
	return c, nil
}

// forget has everybody looked up anew.
func (s *Tenants) forget(string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	clear(s.keys)
	clear(s.clients)
}

func (s *Tenants) run(ctx context.Context) error {
	return postgres.Listen(ctx, s.DB.DirectDSN(), tenantsChannel, rememberFor, s.forget)
}

func (s *Tenants) touch(ctx context.Context, ids []string) error {
	_, err := s.DB.Run(ctx, postgres.NewQuery(`UPDATE api_keys SET last_used_at = wall() WHERE id = ANY($1::uuid[])`, pq.Array(ids)))
	return err
}
