package smsotp_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/factortest"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestSuite(t *testing.T) {
	t.Parallel()
	factortest.Run(t, newFixture)
}

func newFixture(t *testing.T) factortest.Fixture {
	t.Helper()
	f, _ := newWorld(t)
	return f
}

func newWorld(t *testing.T) (factortest.Fixture, *keyring.Ring) {
	t.Helper()
	db, keys := pgtest.New(t), keyring.Ephemeral()
	texts, err := sms.NewTexts("Watchword", "login.example")
	if err != nil {
		t.Fatal(err)
	}
	factor, err := smsotp.New(texts, 6, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	ledger := func(db *postgres.DB) *factors.Ledger {
		l, err := factors.NewLedger(db, keys, &sms.Outbox{Keys: keys}, factors.DefaultLimits(), factor)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	number, err := sms.ParseNumber("+12025550143", "")
	if err != nil {
		t.Fatal(err)
	}
	f := factortest.Fixture{DB: db, Ledger: ledger(db.DB), Replica: ledger(db.Open(t)), Wrong: "wrong!", Life: 10 * time.Minute}
	a, unique := smsotp.Phone(uuid.New(), number)
	q := new(postgres.Query)
	q.With("subject", "SELECT 1")
	if err := f.Ledger.Bind(t.Context(), q, "subject", a, unique); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM authenticator_bound")
	if _, err := db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	f.Authenticator = a
	f.Right = func(t *testing.T, challenge uuid.UUID) string { return newestCode(t, db, keys, challenge) }
	return f, keys
}

// newestCode opens the newest message of a challenge, as only its worker could.
func newestCode(t *testing.T, db *pgtest.Database, keys *keyring.Ring, challenge uuid.UUID) string {
	t.Helper()
	codes := sentCodes(t, db, keys, challenge)
	if len(codes) == 0 {
		t.Fatal("no message was stored for the challenge")
	}
	return codes[len(codes)-1]
}

func sentCodes(t *testing.T, db *pgtest.Database, keys *keyring.Ring, challenge uuid.UUID) (codes []string) {
	t.Helper()
	var bodies [][]byte
	err := db.SelectContext(t.Context(), &bodies, `SELECT body FROM messages WHERE challenge_id = $1 AND body IS NOT NULL ORDER BY created_at`, challenge)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		text, err := keys.Open(body, "message of challenge "+challenge.String())
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`#(\d{6})`).FindStringSubmatch(string(text))
		if found == nil {
			t.Fatalf("no code in the text")
		}
		codes = append(codes, found[1])
	}
	return codes
}

func TestResend(t *testing.T) {
	t.Parallel()
	f, keys := newWorld(t)
	b := factors.Binding{Purpose: factors.Login, Subject: f.Authenticator.Subject, Browser: uuid.New(), Context: []byte("sign-in")}
	id := open(t, f, b)
	first := f.Right(t, id)
	resend := func() error {
		return f.Ledger.Resend(t.Context(), id, f.Authenticator, b, factors.Prompt{Locale: "en"})
	}
	var wait *factors.WaitError
	for n, pause := range []time.Duration{30, 60, 120, 120} { // SN-1, LIM-5
		f.DB.Advance(t, pause*time.Second-2*time.Second)
		if err := resend(); !as(err, &wait) || wait.UsedUp || wait.Limited || wait.Until.IsZero() {
			t.Fatalf("resend %d too early: error = %v, want a WaitError with a time", n+1, err)
		}
		f.DB.Advance(t, 3*time.Second)
		if err := resend(); err != nil {
			t.Fatalf("resend %d in time: %v", n+1, err)
		}
	}
	f.DB.Advance(t, 2*time.Minute+time.Second)
	if err := resend(); !as(err, &wait) || !wait.UsedUp {
		t.Fatalf("sixth send: error = %v, want a WaitError: used up", err)
	}
	var refused []string // AD-12
	if err := f.DB.SelectContext(t.Context(), &refused, "SELECT reason || ' ' || count(*) FROM audit_events WHERE event = 'challenge.resend' AND outcome = 'refused' AND object = $1 GROUP BY reason ORDER BY reason", id.String()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"too_early 4", "used_up 1"}, refused); diff != "" {
		t.Fatalf("refused resends recorded (-want +got):\n%s", diff)
	}
	codes := sentCodes(t, f.DB, keys, id)
	values := map[string]bool{}
	for _, code := range codes {
		values[code] = true
	}
	if len(codes) != 5 || len(values) > 3 {
		t.Fatalf("%d texts with %d codes, want 5 with at most 3: the newest is repeated", len(codes), len(values))
	}
	if _, err := f.Ledger.Answer(t.Context(), id, f.Authenticator, b, first, nil); err != nil {
		t.Fatalf("the first code after four resends: %v", err)
	}
}

func TestSendsOfOneAddress(t *testing.T) { // SN-2, LIM-5
	t.Parallel()
	for name, ctx := range map[string]audit.Context{"known": {Source: netip.MustParseAddr("192.0.2.1")}, "unknown": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, _ := newWorld(t)
			f.Ledger.Limits.Source.Burst = 1
			for n := range 2 {
				b := factors.Binding{Purpose: factors.Login, Subject: f.Authenticator.Subject, Browser: uuid.New(), Context: []byte("sign-in")}
				q := new(postgres.Query)
				q.With("asked", "SELECT 1")
				if _, err := f.Ledger.Open(audit.With(t.Context(), ctx), q, "asked", f.Authenticator, b, factors.Prompt{Locale: "en"}); err != nil {
					t.Fatal(err)
				}
				q.Finally("SELECT sends FROM challenge_opened")
				var sends int
				if err := f.DB.Get(t.Context(), &sends, q); err != nil || sends != 1-n {
					t.Fatalf("challenge %d: %d sends, %v; want the first alone", n+1, sends, err)
				}
			}
		})
	}
}

func as[E error](err error, target *E) bool {
	e, ok := err.(E) //nolint:errorlint // Resend returns it bare
	if ok {
		*target = e
	}
	return ok
}

func open(t *testing.T, f factortest.Fixture, b factors.Binding) uuid.UUID {
	t.Helper()
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	id, err := f.Ledger.Open(t.Context(), q, "asked", f.Authenticator, b, factors.Prompt{Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM challenge_opened")
	if _, err := f.DB.Run(t.Context(), q); err != nil {
		t.Fatal(fmt.Errorf("open: %w", err))
	}
	return id
}
