package oidc

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Errors of the clients' store.
var (
	// ErrNoClient: no client has that id.
	ErrNoClient = errors.New("oidc: no such client")
	// ErrClientExists: the id is taken. Choose another.
	ErrClientExists = errors.New("oidc: client id is taken")
	// ErrNoSecret: the client authenticates otherwise, or not at all.
	ErrNoSecret = errors.New("oidc: client has no secret")
)

// clientsChannel is notified with a client's id when it changes.
const clientsChannel = "watchword_clients"

// cacheLife bounds how long a change can go unnoticed if its notification is lost. What hangs on it is who may authenticate, hence the least that
// still keeps a busy client's registration from being read for every request.
const cacheLife = time.Second

// Clients keeps registrations. Reads come from memory; every change is notified to all replicas. It is safe for concurrent use.
type Clients struct {
	DB *postgres.DB
	// Gone, when set, adds what else follows when a client is deleted: part from has its id, which the next client can be given.
	Gone func(ctx context.Context, q *postgres.Query, from string)

	mu      sync.RWMutex
	known   map[string]remembered
	changes uint64 // counts what was to be forgotten
	since   uint64 // of changes, when all clients were forgotten last
}

// remembered is a client as it was when so many changes had been heard of.
type remembered struct {
	*Client
	changes uint64
}

// Create registers an application and gives its secret, once: only a hash is stored. secret is empty for clients that use none.
func (s *Clients) Create(ctx context.Context, id string, r Registration) (secret string, err error) {
	r.Complete()
	if err := r.Validate(); err != nil {
		return "", err
	}
	if !isScopeToken(id) {
		return "", errors.New("client id: use letters, digits and signs, without spaces")
	}
	secret, hash := newSecret(r.AuthMethod)
	data, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("INSERT INTO clients (id, registration, secret_hash) VALUES (%s, %s, %s) RETURNING id",
		q.Bind(id)+"::text", q.Bind(string(data))+"::jsonb", q.Bind(hash)+"::bytea"))
	authn.DropConsents(q, "changed") // given while an earlier client of that id was being deleted
	err = s.change(ctx, q, id, "client.create")
	if pq.As(err, pqerror.UniqueViolation) != nil {
		return "", ErrClientExists
	}
	return secret, err
}

// Update replaces a registration.
func (s *Clients) Update(ctx context.Context, id string, r Registration) error {
	r.Complete()
	if err := r.Validate(); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("UPDATE clients SET registration = %s, updated_at = wall() WHERE id = %s RETURNING id",
		q.Bind(string(data))+"::jsonb", q.Bind(id)+"::text"))
	return s.change(ctx, q, id, "client.update")
}

// RotateSecret replaces the secret; the old one is dead at once.
func (s *Clients) RotateSecret(ctx context.Context, id string) (string, error) {
	c, err := s.Get(ctx, id)
	if err != nil {
		return "", err
	}
	secret, hash := newSecret(c.Registration.AuthMethod)
	if secret == "" {
		return "", ErrNoSecret
	}
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("UPDATE clients SET secret_hash = %s, updated_at = wall() WHERE id = %s RETURNING id",
		q.Bind(hash)+"::bytea", q.Bind(id)+"::text"))
	return secret, s.change(ctx, q, id, "client.rotate_secret")
}

// SetDisabled keeps a client out, with all that it was given, or lets it in again, with nothing of that: being disabled is noticed at once by every use of a
// grant, and before it ends every grant is revoked for good.
func (s *Clients) SetDisabled(ctx context.Context, id string, disabled bool) error {
	if !disabled {
		if err := s.revokeGrants(ctx, id); err != nil {
			return err
		}
	}
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("UPDATE clients SET disabled_at = CASE WHEN %s THEN coalesce(disabled_at, wall()) END, updated_at = wall() WHERE id = %s RETURNING id",
		q.Bind(disabled)+"::bool", q.Bind(id)+"::text"))
	return s.change(ctx, q, id, map[bool]string{true: "client.disable", false: "client.enable"}[disabled])
}

// maxRevoked bounds how many grants one statement revokes, so that it ends in time however many there are.
const maxRevoked = 1000

// revokeGrants revokes everything that a disabled client was given. An enabled one keeps what it has.
func (s *Clients) revokeGrants(ctx context.Context, id string) error {
	for {
		q := new(postgres.Query)
		q.With("revoked", fmt.Sprintf(`
			UPDATE grants SET revoked_at = wall(), revoke_reason = 'client_disabled' WHERE id IN (
				SELECT g.id FROM grants g JOIN clients k ON k.id = g.client_id
				 WHERE k.id = %s AND k.disabled_at IS NOT NULL AND g.revoked_at IS NULL AND g.expires_at > wall() LIMIT %s)
			RETURNING id, subscriber_id, client_id`, q.Bind(id)+"::text", q.Bind(maxRevoked)+"::int"))
		audit.Record(ctx, q, "revoked", audit.Event{Name: "grant.revoke", Outcome: audit.Success, Reason: "client_disabled", Actor: audit.Operator},
			audit.Expressions{"subject": "revoked.subscriber_id", "client_id": "revoked.client_id", "object": "revoked.id::text"})
		q.Finally("SELECT 1 FROM revoked")
		switch n, err := s.DB.Run(ctx, q); {
		case err != nil:
			return fmt.Errorf("revoke grants: %w", err)
		case n < maxRevoked:
			return nil
		}
	}
}

// Delete removes a client and everything that it was given, and what people allowed it: the next client of that id is another application.
func (s *Clients) Delete(ctx context.Context, id string) error {
	q := new(postgres.Query)
	q.With("changed", "DELETE FROM clients WHERE id = "+q.Bind(id)+"::text RETURNING id")
	authn.DropConsents(q, "changed")
	if s.Gone != nil {
		s.Gone(ctx, q, "changed")
	}
	return s.change(ctx, q, id, "client.delete")
}

func (s *Clients) change(ctx context.Context, q *postgres.Query, id, event string) error {
	audit.Record(ctx, q, "changed", audit.Event{Name: event, Outcome: audit.Success, Actor: audit.Operator, Client: id}, nil)
	q.Finally(fmt.Sprintf("SELECT pg_notify('%s', id)::text FROM changed", clientsChannel))
	n, err := s.DB.Run(ctx, q)
	s.forget(id)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", event, err)
	case n == 0:
		return ErrNoClient
	}
	return nil
}

// Get finds a client, disabled or not.
func (s *Clients) Get(ctx context.Context, id string) (*Client, error) {
	if !isScopeToken(id) { // as [Clients.Create] has it; bytes that are no text are nothing to trouble the database with
		return nil, ErrNoClient
	}
	s.mu.RLock()
	c, ok := s.known[id]
	fresh, changes := ok && c.changes >= s.since, s.changes
	s.mu.RUnlock()
	if fresh {
		return c.Client, nil
	}
	list, err := s.read(ctx, "id = $1", id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		if ok {
			s.forget(id)
		}
		return nil, ErrNoClient
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != changes {
		return list[0], nil // something changed while it was read, perhaps this: good for the caller, who asked before that, but not to keep
	}
	if s.known == nil {
		s.known = map[string]remembered{}
	}
	s.known[id] = remembered{list[0], changes}
	return list[0], nil
}

// List reads up to limit clients by id, after the one named.
func (s *Clients) List(ctx context.Context, after string, limit int) ([]*Client, error) {
	return s.read(ctx, "id > $1 ORDER BY id LIMIT $2", after, limit)
}

func (s *Clients) read(ctx context.Context, where string, args ...any) ([]*Client, error) {
	var rows []struct {
		ID           string     `db:"id"`
		Registration []byte     `db:"registration"`
		SecretHash   []byte     `db:"secret_hash"`
		CreatedAt    time.Time  `db:"created_at"`
		UpdatedAt    time.Time  `db:"updated_at"`
		DisabledAt   *time.Time `db:"disabled_at"`
	}
	err := s.DB.Select(ctx, &rows, postgres.NewQuery("SELECT id, registration, secret_hash, created_at, updated_at, disabled_at FROM clients WHERE "+where, args...))
	if err != nil {
		return nil, fmt.Errorf("read clients: %w", err)
	}
	list := make([]*Client, len(rows))
	for i, row := range rows {
		c := &Client{ID: row.ID, SecretHash: row.SecretHash, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, DisabledAt: row.DisabledAt}
		if err := json.Unmarshal(row.Registration, &c.Registration); err != nil {
			return nil, fmt.Errorf("registration of client %s: %w", row.ID, err)
		}
		list[i] = c
	}
	return list, nil
}

// forget has a client read again before it is used; all of them when id is empty. Those are then known by their origins still.
func (s *Clients) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if id == "" {
		s.since = s.changes
		return
	}
	delete(s.known, id)
}

// run forgets what other replicas change, until ctx ends.
func (s *Clients) run(ctx context.Context) error {
	return postgres.Listen(ctx, s.DB.DirectDSN(), clientsChannel, cacheLife, s.forget)
}

func newSecret(method zoidc.AuthMethod) (secret string, hash []byte) {
	if method != zoidc.AuthMethodBasic && method != zoidc.AuthMethodPost {
		return "", nil
	}
	secret = keyring.Token()
	return secret, hashed(secret)
}

// hashed is how secrets of 256 random bits are stored: nothing is gained by a slow hash of what cannot be guessed.
func hashed(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
