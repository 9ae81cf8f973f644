package transaction_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// key signs results as the provider's do.
type key struct{ private jose.JSONWebKey }

func newKey(t testing.TB) key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key{jose.JSONWebKey{Key: private, KeyID: uuid.NewString(), Algorithm: string(jose.ES256), Use: "sig"}}
}

func (k key) SignAs(typ string, payload []byte) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: k.private}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

func (k key) set() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k.private.Public()}}
}

// world is a bank with a customer, whose phone is old enough.
type world struct {
	*authntest.World
	key     key
	service *transaction.Service
	alice   uuid.UUID
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{World: authntest.New(t), key: newKey(t)}
	w.alice = w.Subscriber(t, "alice", "+12025550143")
	w.DB.Advance(t, 25*time.Hour)
	w.service = w.replica(t, w.DB.DB)
	return w
}

func (w *world) replica(t testing.TB, db *postgres.DB) *transaction.Service {
	t.Helper()
	return &transaction.Service{DB: db, Keys: w.Keys, Ledger: w.Replica(t, db).Ledger, Signer: w.key, Issuer: "https://login.example", Config: transaction.DefaultConfig()}
}

func (w *world) request() transaction.Request {
	return transaction.Request{Order: order(), Client: "bank", User: transaction.User{Subscriber: w.alice}, Door: transaction.DoorREST}
}

func (w *world) create(t testing.TB) *transaction.Transaction {
	t.Helper()
	return w.createThis(t, w.request())
}

func (w *world) createThis(t testing.TB, r transaction.Request) *transaction.Transaction {
	t.Helper()
	created, err := w.service.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func repeat() *transaction.Repeat {
	o := order()
	return &transaction.Repeat{Amount: o.Amount, Currency: o.Currency, Payees: o.Payees}
}

func (w *world) approve(t testing.TB, id uuid.UUID, code string) (*transaction.Transaction, error) {
	t.Helper()
	return w.service.Approve(t.Context(), "bank", id, transaction.Answer{Code: code, Repeat: repeat()})
}

// state reads how a transaction stands.
func (w *world) state(t testing.TB, id uuid.UUID) string {
	t.Helper()
	now, err := w.service.Get(t.Context(), "bank", id)
	if err != nil {
		t.Fatal(err)
	}
	if now.Reason != "" {
		return string(now.State) + " " + now.Reason
	}
	return string(now.State)
}

func (w *world) count(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &n, "SELECT count(*) FROM "+query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

// told is what was stored for webhooks about a transaction: owner, type and status of each event.
func (w *world) told(t testing.TB, id uuid.UUID) (all []string) {
	t.Helper()
	if err := w.DB.SelectContext(t.Context(), &all, `SELECT owner || ' ' || type || ' ' || (data->>'status') FROM events WHERE data->>'id' = $1 ORDER BY created_at, owner DESC`, transaction.PublicID(id)); err != nil {
		t.Fatal(err)
	}
	return all
}

func wrong(code string) string {
	if code == "000000" {
		return "000001"
	}
	return "000000"
}

func claims(t testing.TB, token string) map[string]any {
	t.Helper()
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &c); err != nil {
		t.Fatal(err)
	}
	return c
}
