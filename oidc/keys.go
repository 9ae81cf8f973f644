package oidc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// ErrNoKey says that no active key signs with that algorithm. Create one.
var ErrNoKey = errors.New("oidc: no active signing key")

// keysChannel is notified when signing keys change.
const keysChannel = "watchword_keys"

// publishRetired is how long a retired key stays published: longer than any token that it signed lives.
const publishRetired = 24 * time.Hour

// Key is a signing key as operators see it.
type Key struct {
	ID         string     `json:"kid" db:"kid"`
	Alg        string     `json:"alg" db:"alg"`
	State      string     `json:"state" db:"state"` // pending, active, retired
	CreatedAt  time.Time  `json:"created_at" db:"created_at"`
	ActiveFrom time.Time  `json:"active_from" db:"active_from"`
	RetiredAt  *time.Time `json:"retired_at,omitempty" db:"retired_at"`
}

// Keys keeps signing keys: sealed in the database, in memory for use. A new key is published at once and used later, so that applications
// have fetched it by then; the one that it replaces stays published until its last token has ended. It is safe for concurrent use.
type Keys struct {
	DB   *postgres.DB
	Seal factors.Keys

	mu  sync.RWMutex
	set *keySet
}

// keySet is what is published and used at one time.
type keySet struct {
	public  jose.JSONWebKeySet
	signers map[string]signer // by algorithm
}

type signer struct {
	id string
	jose.Signer
	at  jose.Signer // the same key, for access tokens
	key jose.SigningKey
}

// Algorithms that every provider has a key for.
func Algorithms() []string { return idTokenAlgs }

// Create makes a key for alg that is used after delay. The active one of that algorithm is retired then.
func (k *Keys) Create(ctx context.Context, alg string, delay time.Duration) (string, error) {
	private, err := generate(alg)
	if err != nil {
		return "", err
	}
	jwk := jose.JSONWebKey{Key: private, KeyID: uuid.NewString(), Algorithm: alg, Use: "sig"}
	plain, err := json.Marshal(jwk)
	if err != nil {
		return "", err
	}
	sealed, err := k.Seal.Seal(plain, "signing key "+jwk.KeyID)
	if err != nil {
		return "", err
	}
	public, err := json.Marshal(jwk.Public())
	if err != nil {
		return "", err
	}
	q := new(postgres.Query)
	q.With("made", fmt.Sprintf(`
		INSERT INTO signing_keys (kid, alg, private, public, state, active_from)
		SELECT %s, %s, %s, %s, 'pending', wall() + make_interval(secs => %s) RETURNING kid`,
		q.Bind(jwk.KeyID)+"::text", q.Bind(alg)+"::text", q.Bind(sealed)+"::bytea", q.Bind(string(public))+"::jsonb", q.Bind(delay.Seconds())+"::float8"))
	audit.Record(ctx, q, "made", audit.Event{Name: "key.create", Outcome: audit.Success, Actor: audit.Operator, Object: jwk.KeyID}, nil)
	q.Finally(fmt.Sprintf("SELECT pg_notify('%s', '')::text FROM made", keysChannel))
	if _, err := k.DB.Run(ctx, q); err != nil {
		return "", fmt.Errorf("store signing key: %w", err)
	}
	return jwk.KeyID, k.Refresh(ctx)
}

func generate(alg string) (crypto.Signer, error) {
	switch alg {
	case string(jose.RS256):
		return rsa.GenerateKey(rand.Reader, 2048)
	case string(jose.ES256):
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case string(jose.EdDSA):
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	default:
		return nil, fmt.Errorf("algorithm %q: use RS256, ES256 or EdDSA", alg)
	}
}

// Ensure makes the keys that are missing, usable at once: for a database that has none.
func (k *Keys) Ensure(ctx context.Context) error {
	if err := k.Refresh(ctx); err != nil {
		return err
	}
	for _, alg := range idTokenAlgs {
		if _, err := k.signer(alg); errors.Is(err, ErrNoKey) {
			if _, err := k.Create(ctx, alg, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// List reads all keys, the newest first.
func (k *Keys) List(ctx context.Context) ([]Key, error) {
	var list []Key
	err := k.DB.Select(ctx, &list, postgres.NewQuery("SELECT kid, alg, state, created_at, active_from, retired_at FROM signing_keys ORDER BY created_at DESC"))
	return list, err
}

// Refresh moves keys whose time has come and loads what is published and used.
func (k *Keys) Refresh(ctx context.Context) error {
	q := new(postgres.Query)
	// Of the pending keys that are due, the newest of each algorithm becomes the active one; all others of it retire.
	q.With("due", `SELECT DISTINCT ON (alg) kid, alg FROM signing_keys WHERE state = 'pending' AND active_from <= wall() ORDER BY alg, active_from DESC, created_at DESC`)
	q.With("moved", `
		UPDATE signing_keys k SET state = CASE WHEN k.kid = d.kid THEN 'active' ELSE 'retired' END,
		       retired_at = CASE WHEN k.kid <> d.kid THEN wall() END
		  FROM due d WHERE k.alg = d.alg AND (k.kid = d.kid OR k.state = 'active' OR k.state = 'pending' AND k.active_from <= wall())
		RETURNING k.kid, k.state, k.retired_at`)
	q.With("gone", fmt.Sprintf("DELETE FROM signing_keys WHERE state = 'retired' AND retired_at <= wall() - make_interval(secs => %s) RETURNING kid", q.Bind(publishRetired.Seconds())+"::float8"))
	audit.Follow(q, "gone", audit.Event{Name: "key.destroy", Outcome: audit.Success, Reason: "retired"}, audit.Expressions{"object": "gone.kid"})
	q.Finally(fmt.Sprintf(`SELECT k.kid, k.alg, k.private, k.public, coalesce(m.state, k.state) AS state
		FROM signing_keys k LEFT JOIN moved m USING (kid)
		WHERE NOT (k.state = 'retired' AND k.retired_at <= wall() - make_interval(secs => %s)) ORDER BY k.created_at`, q.Bind(publishRetired.Seconds())+"::float8"))
	var rows []struct {
		ID      string `db:"kid"`
		Alg     string `db:"alg"`
		Private []byte `db:"private"`
		Public  []byte `db:"public"`
		State   string `db:"state"`
	}
	if err := k.DB.Select(ctx, &rows, q); err != nil {
		return fmt.Errorf("load signing keys: %w", err)
	}
	set := &keySet{signers: map[string]signer{}}
	for _, row := range rows {
		var public jose.JSONWebKey
		if err := json.Unmarshal(row.Public, &public); err != nil {
			return fmt.Errorf("signing key %s: %w", row.ID, err)
		}
		set.public.Keys = append(set.public.Keys, public)
		if row.State != "active" {
			continue
		}
		plain, err := k.Seal.Open(row.Private, "signing key "+row.ID)
		if err != nil {
			return err
		}
		var private jose.JSONWebKey
		if err := json.Unmarshal(plain, &private); err != nil {
			return fmt.Errorf("signing key %s: not a key", row.ID) // the cause could quote it
		}
		signing := jose.SigningKey{Algorithm: jose.SignatureAlgorithm(row.Alg), Key: private}
		s := signer{id: row.ID, key: signing}
		if s.Signer, err = jose.NewSigner(signing, (&jose.SignerOptions{}).WithType("JWT")); err != nil {
			return fmt.Errorf("signing key %s: %w", row.ID, err)
		}
		if s.at, err = jose.NewSigner(signing, (&jose.SignerOptions{}).WithType("at+jwt")); err != nil {
			return fmt.Errorf("signing key %s: %w", row.ID, err)
		}
		set.signers[row.Alg] = s
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set = set
	return nil
}

// Ready reports whether every algorithm has a key in use.
func (k *Keys) Ready() error {
	for _, alg := range idTokenAlgs {
		if _, err := k.signer(alg); err != nil {
			return fmt.Errorf("%s: %w", alg, err)
		}
	}
	return nil
}

func (k *Keys) signer(alg string) (signer, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.set == nil {
		return signer{}, ErrNoKey
	}
	s, ok := k.set.signers[alg]
	if !ok {
		return signer{}, ErrNoKey
	}
	return s, nil
}

// SignAs makes a compact JWS of payload with that typ and the key that signs access tokens, for results that others than this package define.
func (k *Keys) SignAs(typ string, payload []byte) (string, error) {
	s, err := k.signer(string(jose.ES256))
	if err != nil {
		return "", err
	}
	signing, err := jose.NewSigner(s.key, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", err
	}
	signed, err := signing.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// public is the published set.
func (k *Keys) public() jose.JSONWebKeySet {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.set == nil {
		return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	}
	return k.set.public
}

// key finds a published key by its id.
func (k *Keys) key(id string) (jose.JSONWebKey, bool) {
	for _, key := range k.public().Keys {
		if key.KeyID == id {
			return key, true
		}
	}
	return jose.JSONWebKey{}, false
}

// run follows other replicas' changes and the passing of time, until ctx ends. log is told what went wrong.
func (k *Keys) run(ctx context.Context, log func(error)) error {
	return postgres.Listen(ctx, k.DB.DirectDSN(), keysChannel, 30*time.Second, func(string) {
		if err := k.Refresh(ctx); err != nil && ctx.Err() == nil {
			log(err)
		}
	})
}
