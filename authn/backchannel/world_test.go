package backchannel_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// key signs results.
type key struct{ signer jose.Signer }

func (k key) SignAs(_ string, payload []byte) (string, error) {
	signed, err := k.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// world is two applications that ask, and people with phones that are old enough.
type world struct {
	*authntest.World
	service *backchannel.Service
	alice   uuid.UUID
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{World: authntest.New(t)}
	w.alice = w.Subscriber(t, "alice", "+12025550143")
	w.DB.Advance(t, 25*time.Hour)
	if _, err := w.DB.ExecContext(t.Context(), `INSERT INTO clients (id, registration) VALUES ('till', '{}'), ('bank', '{}')`); err != nil {
		t.Fatal(err)
	}
	w.service = w.replica(t, w.DB.DB)
	return w
}

func (w *world) replica(t testing.TB, db *postgres.DB) *backchannel.Service {
	t.Helper()
	texts, err := sms.NewTexts("Watchword", authntest.Host)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signIns := w.Replica(t, db)
	issuer := "https://" + authntest.Host
	s := &backchannel.Service{DB: db, Keys: w.Keys, SignIns: signIns, Outbox: signIns.Ledger.Outbox, Texts: texts, Issuer: issuer, Config: backchannel.DefaultConfig()}
	s.Confirm = &transaction.Service{DB: db, Keys: w.Keys, Ledger: signIns.Ledger, Signer: key{signer}, Issuer: issuer, Config: transaction.DefaultConfig(), Ended: s.Follow, Suspended: s.Suspend}
	return s
}

// question is one of the till's, with changes.
func question(change ...func(*backchannel.Question)) backchannel.Question {
	q := backchannel.Question{
		RelyingParty: authn.RelyingParty{ID: "till", Name: "Till", FirstParty: true}, Requirement: authn.Requirement{MaxAge: -1, Scopes: []string{"openid"}},
		Payload: []byte("{}"), Message: "W4SCT", Hint: backchannel.Hint{Name: "alice"},
	}
	for _, c := range change {
		c(&q)
	}
	return q
}

func pays(q *backchannel.Question) {
	q.Payment = &transaction.Order{Amount: "129.90", Currency: "EUR", Payees: []transaction.Payee{{Name: "Gas AG", Account: "DE02100100109307118603"}}}
}

func by(client string) func(*backchannel.Question) {
	return func(q *backchannel.Question) { q.RelyingParty.ID = client }
}

func (w *world) ask(t testing.TB, change ...func(*backchannel.Question)) *backchannel.Asked {
	t.Helper()
	asked, err := w.service.Ask(t.Context(), question(change...))
	if err != nil {
		t.Fatal(err)
	}
	return asked
}

// state polls without pace.
func (w *world) state(t testing.TB, client string, asked *backchannel.Asked) backchannel.State {
	t.Helper()
	polled, err := w.service.Poll(t.Context(), client, asked.Secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	return polled.State
}

// answer signs alice in for the question and answers it.
func (w *world) answer(t testing.TB, asked *backchannel.Asked, cookie authn.Cookie) (progress *authn.Progress, after authn.Cookie) {
	t.Helper()
	ctx := authntest.From(t.Context(), "192.0.2.1")
	step := func(p *authn.Progress, err error) *authn.Progress {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if p.Cookie != "" {
			cookie = p.Cookie
		}
		return p
	}
	p := step(w.service.Begin(ctx, asked.ID, cookie))
	for {
		switch p.Decision.Step {
		case authn.StepPassword:
			p = step(w.Service.Password(ctx, cookie, uuid.Nil, p.SignIn.ID, "alice", authntest.Password, "en"))
			p = step(w.Service.Load(ctx, cookie, p.SignIn.ID))
		case authn.StepFactor:
			p = step(w.Service.Code(ctx, cookie, p.SignIn.ID, w.Code(t, p.SignIn.Challenge.ID)))
		default:
			return p, cookie
		}
	}
}
