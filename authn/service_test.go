package authn_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// browser is a cookie jar with the sign-in that it is in.
type browser struct {
	*authntest.World
	service *authn.Service
	cookie  authn.Cookie
	id      uuid.UUID
}

func begin(t *testing.T, w *authntest.World, b authn.Beginning) *browser {
	t.Helper()
	br := &browser{World: w, service: w.Service}
	br.begin(t, b)
	return br
}

func (b *browser) begin(t *testing.T, asked authn.Beginning) *authn.Progress {
	t.Helper()
	p, err := b.service.Begin(authntest.From(t.Context(), "192.0.2.1"), b.cookie, asked)
	if err != nil {
		t.Fatal(err)
	}
	if p.SignIn != nil {
		b.id = p.SignIn.ID
	}
	b.keep(p)
	return p
}

func (b *browser) keep(p *authn.Progress) {
	if p != nil && p.Cookie != "" {
		b.cookie = p.Cookie
	}
}

func (b *browser) password(t *testing.T, name, password string) (*authn.Progress, error) {
	t.Helper()
	p, err := b.service.Password(authntest.From(t.Context(), "192.0.2.1"), b.cookie, uuid.Nil, b.id, name, password, "en")
	b.keep(p)
	return p, err
}

func (b *browser) code(t *testing.T, typed string) (*authn.Progress, error) {
	t.Helper()
	p, err := b.service.Code(authntest.From(t.Context(), "192.0.2.1"), b.cookie, b.id, typed)
	b.keep(p)
	return p, err
}

func (b *browser) load(t *testing.T) *authn.Progress {
	t.Helper()
	p, err := b.service.Load(t.Context(), b.cookie, b.id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (b *browser) sent(t *testing.T) string {
	t.Helper()
	return b.Code(t, b.load(t).SignIn.Challenge.ID)
}

func wants(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: error = %v, want %v", what, got, want)
	}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")
	b := begin(t, w, authntest.Beginning())
	if p := b.load(t); p.Decision.Step != authn.StepPassword || p.Decision.Again {
		t.Fatalf("first step = %+v, want the password of anybody", p.Decision)
	}
	anonymous := b.cookie
	p, err := b.password(t, " ALICE ", authntest.Password)
	if err != nil || p.Decision.Step != authn.StepFactor {
		t.Fatalf("password: %+v, %v; want the factor next", p, err)
	}
	if b.cookie == anonymous {
		t.Fatal("PW-10: the cookie did not change at the password")
	}
	if _, err := w.Service.Load(t.Context(), anonymous, b.id); !errors.Is(err, authn.ErrSignInOver) {
		t.Fatalf("PW-10: the old cookie: error = %v, want ErrSignInOver", err)
	}
	half := b.cookie
	code := b.sent(t)
	p, err = b.code(t, code[:3]+" "+code[3:])
	if err != nil || p.Decision.Step != authn.StepDone {
		t.Fatalf("code: %+v, %v; want done", p, err)
	}
	if b.cookie == half {
		t.Fatal("PW-10: the cookie did not change at the code")
	}
	p = b.load(t)
	if d := p.Decision; d.Step != authn.StepDone || d.Level != authn.RestrictedLevel || !slices.Equal(d.AMR(), []string{"pwd", "sms", "mfa"}) {
		t.Fatalf("as read again: %+v with amr %v", d, d.AMR())
	}
	complete := func(cookie authn.Cookie) (n int64) {
		q := new(postgres.Query)
		w.Service.Complete(q, p.SignIn, cookie)
		q.Finally("SELECT 1 FROM sign_in_done")
		n, err := w.DB.Run(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if complete(half) != 0 || complete(b.cookie) != 1 || complete(b.cookie) != 0 {
		t.Fatal("Complete is not once, with the valid cookie")
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()

	t.Run("PW-1 unknown, disabled and wrong are alike", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		w.Subscriber(t, "bare", "")
		gone := w.Subscriber(t, "gone", "+12025550144")
		if err := w.Service.Disable(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		for _, tt := range [][2]string{{"alice", "wrong password"}, {"nobody", authntest.Password}, {"gone", authntest.Password}, {"bare", "wrong password"},
			{"", authntest.Password}, {"alice", ""}, {"alice", "nul\x00"}} {
			b := begin(t, w, authntest.Beginning())
			_, err := b.password(t, tt[0], tt[1])
			wants(t, fmt.Sprint(tt), err, authn.ErrWrongPair)
			if p := b.load(t); p.Decision.Step != authn.StepPassword || p.SignIn.Session.Subscriber != uuid.Nil {
				t.Fatalf("%v: session was raised", tt)
			}
		}
		if n := w.Texts(t); n != 0 {
			t.Fatalf("%d texts were stored", n)
		}
	})

	t.Run("PW-2 PW-4 one counter for every spelling", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		spellings := []string{"alice", "ALICE", " alice ", "ａｌｉｃｅ", "alice@mail.example", "Alice@Mail.Example"}
		b := begin(t, w, authntest.Beginning())
		var locked *authn.LockedError
		evaluated := 0
		for n := range 60 {
			_, err := b.password(t, spellings[n%len(spellings)], "wrong password")
			if errors.Is(err, authn.ErrWrongPair) {
				evaluated++
				w.DB.Advance(t, 20*time.Second) // past the delay that grows
				continue
			}
			if !errors.As(err, &locked) {
				t.Fatalf("try %d: error = %v", n, err)
			}
			break
		}
		if evaluated != 10 || locked.Source {
			t.Fatalf("%d wrong passwords evaluated over six spellings, want 10; locked %+v", evaluated, locked)
		}
		_, err := b.password(t, "alice", authntest.Password)
		if !errors.As(err, &locked) {
			t.Fatalf("right password while blocked: error = %v, want a LockedError", err)
		}
		w.DB.Advance(t, 15*time.Minute)
		if _, err := begin(t, w, authntest.Beginning()).password(t, "alice", authntest.Password); err != nil {
			t.Fatalf("right password after the block: %v", err)
		}
	})

	t.Run("PW-2 a block leaves sessions alone", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
		b := begin(t, w, authntest.Beginning())
		for range 10 {
			b.password(t, "alice", "wrong password") //nolint:errcheck // it is the number that counts
			w.DB.Advance(t, 20*time.Second)
		}
		p, err := w.Service.Begin(t.Context(), cookie, authntest.Beginning())
		if err != nil || p.Decision.Step != authn.StepDone {
			t.Fatalf("the owner's session: %+v, %v; want done", p, err)
		}
	})

	t.Run("PW-3 one password over many names", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		b := begin(t, w, authntest.Beginning())
		evaluated := 0
		var locked *authn.LockedError
		for n := range 40 {
			_, err := b.password(t, fmt.Sprintf("user%d", n), "password1")
			if errors.Is(err, authn.ErrWrongPair) {
				evaluated++
			} else if !errors.As(err, &locked) || !locked.Source || locked.Until.IsZero() {
				t.Fatalf("name %d: error = %v, want a LockedError of the source with a time", n, err)
			}
		}
		if evaluated != 30 {
			t.Fatalf("%d names tried from one address in five minutes, want 30", evaluated)
		}
		elsewhere := begin(t, w, authntest.Beginning())
		if _, err := w.Service.Password(authntest.From(t.Context(), "198.51.100.7"), elsewhere.cookie, uuid.Nil, elsewhere.id, "alice", authntest.Password, "en"); err != nil {
			t.Fatalf("from another address: %v", err)
		}
	})

	t.Run("right passwords do not use up the address", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "")
		for n := range 35 {
			if _, err := begin(t, w, authntest.Beginning()).password(t, "alice", authntest.Password); err != nil {
				t.Fatalf("sign-in %d: %v", n+1, err)
			}
		}
	})

	t.Run("PW-6 the whole password counts", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		id := w.Subscriber(t, "alice", "+12025550143")
		long := slices.Repeat([]byte("abcdefghij"), 10)
		if err := w.Service.SetPassword(t.Context(), id, string(long)); err != nil {
			t.Fatal(err)
		}
		changed := slices.Clone(long)
		changed[89] = 'X'
		b := begin(t, w, authntest.Beginning())
		_, err := b.password(t, "alice", string(changed))
		wants(t, "differs in character 90", err, authn.ErrWrongPair)
		if _, err := b.password(t, "alice", string(long)); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("PW-7 composed and decomposed are alike", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		id := w.Subscriber(t, "alice", "+12025550143")
		if err := w.Service.SetPassword(t.Context(), id, "caf\u00e9 au lait du matin"); err != nil {
			t.Fatal(err)
		}
		if _, err := begin(t, w, authntest.Beginning()).password(t, "alice", "cafe\u0301 au lait du matin"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("PW-13 two hundred at once", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		replica := w.Replica(t, w.DB.Open(t))
		b := begin(t, w, authntest.Beginning())
		w.DB.Freeze(t)
		var wg sync.WaitGroup
		results := make(chan error, 200)
		for i := range 200 {
			service := w.Service
			if i%2 == 1 {
				service = replica
			}
			address := fmt.Sprintf("198.51.100.%d", i)
			wg.Go(func() {
				_, err := service.Password(authntest.From(t.Context(), address), b.cookie, uuid.Nil, b.id, "alice", "wrong password", "en")
				results <- err
			})
		}
		wg.Wait()
		close(results)
		evaluated := 0
		var locked *authn.LockedError
		for err := range results {
			switch {
			case errors.Is(err, authn.ErrWrongPair), errors.Is(err, authn.ErrOverloaded):
				evaluated++
			case !errors.As(err, &locked):
				t.Errorf("error = %v", err)
			}
		}
		if evaluated > 5 {
			t.Fatalf("%d of 200 parallel guesses evaluated, want at most 5: the fifth brings a delay", evaluated)
		}
	})

	t.Run("PW-16 overload is refused, never skipped", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		passwords, err := authn.NewPasswords(authn.HashingConfig{Concurrency: 1, Queue: 1})
		if err != nil {
			t.Fatal(err)
		}
		w.Service.Passwords = passwords
		var wg sync.WaitGroup
		results := make(chan error, 50)
		b := begin(t, w, authntest.Beginning())
		for i := range 50 {
			wg.Go(func() {
				_, err := w.Service.Password(authntest.From(t.Context(), fmt.Sprintf("198.51.100.%d", i)), b.cookie, uuid.Nil, b.id, fmt.Sprintf("user%d", i), "wrong password", "en")
				results <- err
			})
		}
		wg.Wait()
		close(results)
		overloaded := 0
		for err := range results {
			switch {
			case errors.Is(err, authn.ErrOverloaded):
				overloaded++
			case !errors.Is(err, authn.ErrWrongPair):
				t.Errorf("error = %v", err)
			}
		}
		if overloaded == 0 {
			t.Fatal("fifty at once with room for two, and none was refused")
		}
	})
}

// waiting returns once a statement in the database waits for a lock that another one holds. done tells that it never did.
func waiting(t *testing.T, w *authntest.World, done <-chan error) {
	t.Helper()
	for n := 0; n == 0; {
		select {
		case err := <-done:
			t.Fatalf("nothing waited for the row: %v", err)
		default:
		}
		if err := w.DB.GetContext(t.Context(), &n, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPasswordNotLookedAt(t *testing.T) { // LIM-4, THR-7, PWD-5: what was not tried is not a failure
	t.Parallel()
	hashing := func(t *testing.T, cfg authn.HashingConfig) *authn.Passwords {
		t.Helper()
		passwords, err := authn.NewPasswords(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return passwords
	}
	counts := func(t *testing.T, w *authntest.World, what string, failures, hits int) {
		t.Helper()
		var got struct {
			Failures int  `db:"failures"`
			Hits     int  `db:"hits"`
			Blocked  bool `db:"blocked"`
		}
		if err := w.DB.GetContext(t.Context(), &got, `SELECT coalesce((SELECT sum(failures) FROM streaks), 0) AS failures, EXISTS (SELECT FROM streaks WHERE blocked_until > wall()) AS blocked,
			coalesce((SELECT sum(cardinality(hits)) FROM windows WHERE name = 'password-source'), 0) AS hits`); err != nil {
			t.Fatal(err)
		}
		if got.Failures != failures || got.Hits != hits || got.Blocked {
			t.Fatalf("%s: %+v, want %d failures and %d hits of the address, and no block", what, got, failures, hits)
		}
	}

	t.Run("PW-16 no room", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		b := begin(t, w, authntest.Beginning())
		for range 4 {
			_, err := b.password(t, "alice", "wrong password")
			wants(t, "wrong", err, authn.ErrWrongPair)
		}
		counts(t, w, "four wrong ones", 4, 4)
		b.service = w.Replica(t, w.DB.DB)
		b.service.Passwords = hashing(t, authn.HashingConfig{Concurrency: 1, Queue: -1})
		for range 10 { // the fifth wrong one would bring a delay
			_, err := b.password(t, "alice", authntest.Password)
			wants(t, "no room", err, authn.ErrOverloaded)
		}
		counts(t, w, "overloaded", 4, 4)
		var recorded int
		if err := w.DB.GetContext(t.Context(), &recorded, "SELECT count(*) FROM audit_events WHERE event = 'password.check' AND reason = 'overloaded'"); err != nil || recorded != 10 {
			t.Fatalf("LOG-1: %d records, %v; want 10", recorded, err)
		}
	})

	t.Run("gone before its turn", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		w.Service.Passwords = hashing(t, authn.HashingConfig{Concurrency: 1, Time: 10})
		b := begin(t, w, authntest.Beginning())
		inFront, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer leave()
		running := make(chan struct{}, 1)
		for range 30 { // always so many in front
			wg.Go(func() {
				for inFront.Err() == nil {
					_, _ = w.Service.Passwords.Hash(inFront, "somebody else's password")
					select {
					case running <- struct{}{}:
					default:
					}
				}
			})
		}
		<-running
		ctx, closeTab := context.WithCancel(authntest.From(t.Context(), "192.0.2.1"))
		defer closeTab()
		done := make(chan error, 1)
		go func() {
			_, err := w.Service.Password(ctx, b.cookie, uuid.Nil, b.id, "alice", authntest.Password, "en")
			done <- err
		}()
		for paid := 0; paid == 0; {
			if err := w.DB.GetContext(t.Context(), &paid, "SELECT count(*) FROM streaks"); err != nil {
				t.Fatal(err)
			}
		}
		closeTab()
		wants(t, "gone", <-done, context.Canceled)
		counts(t, w, "gone", 0, 0)
	})

	t.Run("another step is due", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		w.Subscriber(t, "alice", "+12025550143")
		b := begin(t, w, authntest.Beginning())
		if _, err := b.password(t, "alice", authntest.Password); err != nil {
			t.Fatal(err)
		}
		for range 40 { // Back, and the form again
			_, err := b.password(t, "alice", authntest.Password)
			wants(t, "the password again", err, authn.ErrNotThisStep)
		}
		counts(t, w, "another step", 0, 0)
	})
}

func TestPasswordReplacedMeanwhile(t *testing.T) { // PWD-7, REL-2, SES-5: a change and a sign-in have an order
	t.Parallel()
	const replaced = "another horse battery staple"
	complete := func(w *authntest.World, p *authn.Progress, cookie authn.Cookie) (at time.Time, err error) {
		q := new(postgres.Query)
		w.Service.Complete(q, p.SignIn, cookie)
		q.Finally("SELECT wall() FROM sign_in_done")
		err = w.DB.Get(t.Context(), &at, q)
		return at, err
	}

	for name, change := range map[string]string{
		"PWD-7 replaced while it was checked": "password_hash = h, password_changed_at = wall(), not_before = wall()",
		"SES-5 shut out while it was checked": "disabled_at = wall()",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := authntest.New(t)
			id := w.Subscriber(t, "alice", "+12025550143")
			hash, err := w.Service.Passwords.Hash(t.Context(), replaced)
			if err != nil {
				t.Fatal(err)
			}
			b := begin(t, w, authntest.Beginning())
			b.service = w.Replica(t, w.DB.DB)
			if b.service.Passwords, err = authn.NewPasswords(authn.HashingConfig{Time: 3}); err != nil { // the old one would be hashed anew
				t.Fatal(err)
			}
			tx, err := w.DB.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback() //nolint:errcheck // committed by then
			if _, err := tx.ExecContext(t.Context(), "UPDATE subscribers SET "+change+" FROM (SELECT $1::uuid AS x, $2::text AS h) AS given WHERE id = x", id, hash); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := b.service.Password(t.Context(), b.cookie, uuid.Nil, b.id, "alice", authntest.Password, "en")
				done <- err
			}()
			waiting(t, w, done)
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			wants(t, "the password that was right when it was typed", <-done, authn.ErrWrongPair)
			if p := b.load(t); p.Decision.Step != authn.StepPassword || p.SignIn.Session.Subscriber != uuid.Nil || w.Texts(t) != 0 {
				t.Fatalf("the session was raised: %+v", p.Decision)
			}
			_, err = begin(t, w, authntest.Beginning()).password(t, "alice", authntest.Password)
			wants(t, "the same password afterwards", err, authn.ErrWrongPair)
			var kept bool
			if err := w.DB.GetContext(t.Context(), &kept, "SELECT password_hash = $1 OR disabled_at IS NOT NULL FROM subscribers", hash); err != nil || !kept {
				t.Fatalf("the sign-in undid the change, %v", err)
			}
			var recorded int
			if err := w.DB.GetContext(t.Context(), &recorded, "SELECT count(*) FROM audit_events WHERE event = 'password.check' AND outcome = 'refused' AND reason = 'outdated'"); err != nil || recorded != 1 {
				t.Fatalf("LOG-1: %d records of the refusal, %v; want 1", recorded, err)
			}
		})
	}

	t.Run("PWD-7 replaced after it passed, by a statement that began before", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		id := w.Subscriber(t, "alice", "+12025550143")
		tx, err := w.DB.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // rolled back by then
		if _, err := tx.ExecContext(t.Context(), "SELECT FROM subscribers WHERE id = $1 FOR SHARE", id); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- w.Service.SetPassword(t.Context(), id, replaced) }()
		waiting(t, w, done)
		p, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
		at, err := complete(w, p, cookie)
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		wants(t, "set password", <-done, nil)
		b := &browser{World: w, service: w.Service, cookie: cookie}
		if p := b.begin(t, authntest.Beginning()); p.Decision.Step != authn.StepPassword || p.SignIn.Session.Subscriber != uuid.Nil {
			t.Fatalf("the session of the old password lives on: %+v", p.Decision)
		}
		var stands bool
		if err := w.DB.GetContext(t.Context(), &stands, "SELECT "+authn.StandingSQL("x.id", "x.at")+" FROM (SELECT $1::uuid AS id, $2::timestamptz AS at) x", id, at); err != nil || stands {
			t.Fatalf("what the old password was given still stands, %v", err)
		}
	})

	t.Run("SES-5 shut out while the application is answered", func(t *testing.T) {
		t.Parallel()
		w := authntest.New(t)
		id := w.Subscriber(t, "alice", "+12025550143")
		p, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
		tx, err := w.DB.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // committed by then
		if _, err := tx.ExecContext(t.Context(), "UPDATE subscribers SET disabled_at = wall() WHERE id = $1", id); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := complete(w, p, cookie)
			done <- err
		}()
		waiting(t, w, done)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		wants(t, "complete", <-done, postgres.ErrNotFound)
	})
}

func TestHalfAuthenticated(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")

	t.Run("PW-9 nothing before the password", func(t *testing.T) {
		b := begin(t, w, authntest.Beginning())
		_, err := b.code(t, "123456")
		wants(t, "code", err, authn.ErrNotThisStep)
		wants(t, "resend", w.Service.Resend(t.Context(), b.cookie, b.id, "en"), authn.ErrNotThisStep)
		_, err = w.Service.Choose(t.Context(), b.cookie, b.id, uuid.New(), "en")
		wants(t, "choose", err, authn.ErrNotThisStep)
		_, err = w.Service.Consent(t.Context(), b.cookie, b.id)
		wants(t, "consent", err, authn.ErrNotThisStep)
		if n := w.Texts(t); n != 0 {
			t.Fatalf("%d texts stored before a password was right", n)
		}
	})

	t.Run("AZ-13 OT-19 nothing but the factor after it", func(t *testing.T) {
		b := begin(t, w, authntest.Beginning())
		if _, err := b.password(t, "alice", authntest.Password); err != nil {
			t.Fatal(err)
		}
		_, err := w.Service.Consent(t.Context(), b.cookie, b.id)
		wants(t, "consent", err, authn.ErrNotThisStep)
		silent := authntest.Beginning()
		silent.Requirement.Silent = true
		other := *b
		if p := other.begin(t, silent); p.Decision.Step != authn.StepFail || p.Decision.Failure != authn.InteractionRequired {
			t.Fatalf("prompt=none: %+v, want interaction_required", p.Decision)
		}
		low := authntest.Beginning()
		low.RelyingParty.Floor = authn.PasswordLevel
		if p := other.begin(t, low); p.Decision.Step != authn.StepFactor {
			t.Fatalf("an application that takes a password alone: %+v, want the factor all the same", p.Decision)
		}
	})

	t.Run("AZ-26 OT-10 another browser", func(t *testing.T) {
		b := begin(t, w, authntest.Beginning())
		if _, err := b.password(t, "alice", authntest.Password); err != nil {
			t.Fatal(err)
		}
		thief := begin(t, w, authntest.Beginning())
		_, err := w.Service.Code(t.Context(), thief.cookie, b.id, b.sent(t))
		wants(t, "the right code in another browser", err, authn.ErrSignInOver)
		if p, err := b.code(t, b.sent(t)); err != nil || p.Decision.Step != authn.StepDone {
			t.Fatalf("the owner afterwards: %v", err)
		}
	})
}

func TestAnotherPersonAtTheSameBrowser(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")
	bob := w.Subscriber(t, "bob", "+12025550144")
	p, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
	fresh := authntest.Beginning()
	who, err := w.Service.Find(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	fresh.Requirement.Subject = who.Subject
	b := &browser{World: w, service: w.Service, cookie: cookie}
	b.begin(t, fresh)
	got, err := b.password(t, "bob", authntest.Password)
	if err != nil || got.Decision.Step != authn.StepFactor {
		t.Fatalf("bob's password: %+v, %v", got, err)
	}
	if got.SignIn.Session.SID == p.SignIn.Session.SID {
		t.Fatal("bob has alice's session")
	}
	done, err := b.code(t, b.sent(t))
	if err != nil || done.Decision.Step != authn.StepDone || done.SignIn.Session.Subscriber != bob {
		t.Fatalf("bob's code: %+v, %v", done, err)
	}
	if s, err := w.Service.Current(t.Context(), cookie); err != nil || s.Subscriber != uuid.Nil {
		t.Fatalf("alice's cookie: %+v, %v; want nobody", s, err)
	}
}

func TestAgainIsTheSamePerson(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")
	w.Subscriber(t, "bob", "+12025550144")
	first, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
	w.DB.Advance(t, time.Minute)
	fresh := authntest.Beginning()
	fresh.Requirement.Fresh = true
	b := &browser{World: w, service: w.Service, cookie: cookie}
	if p := b.begin(t, fresh); p.Decision.Step != authn.StepPassword || !p.Decision.Again {
		t.Fatalf("prompt=login: %+v, want alice's password again", p.Decision)
	}
	if _, err := b.password(t, "bob", authntest.Password); err != nil { // the name is not looked at
		t.Fatal(err)
	}
	done, err := b.code(t, b.sent(t))
	if err != nil || done.SignIn.Session.Username != "alice" || done.SignIn.Session.SID != first.SignIn.Session.SID {
		t.Fatalf("again: %+v, %v; want alice in her session", done, err)
	}
	if !done.Decision.AuthTime.After(first.Decision.AuthTime) {
		t.Fatalf("auth_time %v is not later than %v", done.Decision.AuthTime, first.Decision.AuthTime)
	}
}

func TestSessionLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		age  []time.Duration // between uses
		want authn.Step
	}{
		{"SS-5 used in time", []time.Duration{29 * time.Minute, 29 * time.Minute}, authn.StepDone},
		{"SS-5 idle", []time.Duration{30*time.Minute + time.Second}, authn.StepPassword},
		{"SS-5 absolute", slices.Repeat([]time.Duration{29 * time.Minute}, 25), authn.StepPassword},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := authntest.New(t)
			w.Subscriber(t, "alice", "+12025550143")
			_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
			b := &browser{World: w, service: w.Service, cookie: cookie}
			var p *authn.Progress
			for _, pause := range tt.age {
				w.DB.Advance(t, pause)
				p = b.begin(t, authntest.Beginning())
			}
			if p.Decision.Step != tt.want {
				t.Fatalf("step = %v, want %v", p.Decision.Step, tt.want)
			}
		})
	}
}

func TestSilenceIsNoUse(t *testing.T) { // SS-5: prompt=none does not keep a session
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")
	_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
	b := &browser{World: w, service: w.Service, cookie: cookie}
	silent := authntest.Beginning()
	silent.Requirement.Silent = true
	for range 2 {
		w.DB.Advance(t, 14*time.Minute)
		p := b.begin(t, silent)
		if p.Decision.Step != authn.StepDone {
			t.Fatalf("within the limit: %+v, want done", p.Decision)
		}
		q := new(postgres.Query)
		w.Service.Complete(q, p.SignIn, b.cookie)
		q.Finally("SELECT 1 FROM sign_in_done")
		if n, err := w.DB.Run(t.Context(), q); n != 1 || err != nil {
			t.Fatalf("complete: %d, %v", n, err)
		}
	}
	w.DB.Advance(t, 3*time.Minute)
	if p := b.begin(t, silent); p.Decision.Failure != authn.LoginRequired {
		t.Fatalf("31 minutes after the person was last there: %+v, want login_required", p.Decision)
	}
}

func TestEndings(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, w *authntest.World, id uuid.UUID, cookie authn.Cookie){
		"SS-2 signed out": func(t *testing.T, w *authntest.World, _ uuid.UUID, cookie authn.Cookie) {
			q := new(postgres.Query)
			w.Service.End(t.Context(), q, cookie, "signed_out")
			q.Finally("SELECT 1 FROM session_ended")
			if n, err := w.DB.Run(t.Context(), q); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		},
		"SS-10 disabled": func(t *testing.T, w *authntest.World, id uuid.UUID, _ authn.Cookie) {
			if err := w.Service.Disable(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		},
		"password changed": func(t *testing.T, w *authntest.World, id uuid.UUID, _ authn.Cookie) {
			if err := w.Service.SetPassword(t.Context(), id, "another horse battery staple"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := authntest.New(t)
			id := w.Subscriber(t, "alice", "+12025550143")
			_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
			end(t, w, id, cookie)
			b := &browser{World: w, service: w.Replica(t, w.DB.Open(t)), cookie: cookie}
			if p := b.begin(t, authntest.Beginning()); p.Decision.Step != authn.StepPassword || p.SignIn.Session.Subscriber != uuid.Nil {
				t.Fatalf("the session lives on: %+v", p)
			}
		})
	}
}

func TestEnable(t *testing.T) { // SS-10, TK-21: what was revoked once is never good again
	t.Parallel()
	w := authntest.New(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	stands := func(since time.Time) (stands bool) {
		t.Helper()
		if err := w.DB.GetContext(t.Context(), &stands, "SELECT "+authn.StandingSQL("x.id", "x.since")+" FROM (SELECT $1::uuid AS id, $2::timestamptz AS since) x", id, since); err != nil {
			t.Fatal(err)
		}
		return stands
	}
	_, cookie := w.SignIn(t, "", "alice", authntest.Beginning())
	before := w.DB.Now(t)
	if !stands(before) {
		t.Fatal("what was given just now does not stand")
	}
	if err := w.Service.Disable(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := w.Service.Enable(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if s, err := w.Service.Current(t.Context(), cookie); err != nil || s.Subscriber != uuid.Nil {
		t.Fatalf("the session from before: %+v, %v; want nobody", s, err)
	}
	if stands(before) {
		t.Fatal("enabling revived what disabling had revoked")
	}
	if p, _ := w.SignIn(t, "", "alice", authntest.Beginning()); p.Decision.Step != authn.StepDone || !stands(w.DB.Now(t)) {
		t.Fatalf("signing in anew: %+v, want done", p.Decision)
	}
}

func TestConsent(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")
	asked := authntest.Beginning()
	asked.RelyingParty.FirstParty = false
	asked.Requirement.Scopes = []string{"profile", "email"}
	p, cookie := w.SignIn(t, "", "alice", asked)
	if p.Decision.Step != authn.StepConsent {
		t.Fatalf("a third party: %+v, want consent", p.Decision)
	}
	p, err := w.Service.Consent(t.Context(), cookie, p.SignIn.ID)
	if err != nil || p.Decision.Step != authn.StepDone {
		t.Fatalf("consent: %+v, %v", p, err)
	}
	if p, _ = w.SignIn(t, cookie, "alice", asked); p.Decision.Step != authn.StepDone {
		t.Fatalf("the same scopes again: %+v, want done", p.Decision)
	}
	asked.Requirement.Scopes = []string{"profile", "phone"}
	p, _ = w.SignIn(t, cookie, "alice", asked)
	if missing, due := p.SignIn.NeedsConsent(); !due || !slices.Equal(missing, []string{"phone"}) {
		t.Fatalf("one more scope: %v, want only that asked", missing)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")
	b := begin(t, w, authntest.Beginning())
	if _, err := b.password(t, "alice", authntest.Password); err != nil {
		t.Fatal(err)
	}
	in := b.load(t).SignIn
	if err := w.Service.Cancel(t.Context(), b.cookie, in, "went_back"); err != nil {
		t.Fatal(err)
	}
	_, err := w.Service.Load(t.Context(), b.cookie, b.id)
	wants(t, "load after cancel", err, authn.ErrSignInOver)
	if code := w.Code(t, in.Challenge.ID); code != "" {
		t.Fatal("the text was not erased with its challenge")
	}
	var outcome string
	if err := w.DB.GetContext(t.Context(), &outcome, "SELECT outcome FROM challenges WHERE id = $1", in.Challenge.ID); err != nil || outcome != "canceled" {
		t.Fatalf("challenge %q, %v; want canceled", outcome, err)
	}
}

func TestSecondFactorFailuresDoNotTouchThePassword(t *testing.T) { // OT-5, OT-6, THR-2, THR-3
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")
	var blocked *factors.BlockedError
	for round := range 3 {
		b := begin(t, w, authntest.Beginning())
		if _, err := b.password(t, "alice", authntest.Password); err != nil {
			t.Fatalf("round %d: password: %v", round, err)
		}
		for n := range 5 {
			_, err := b.code(t, "000000")
			if round == 2 {
				if !errors.As(err, &blocked) {
					t.Fatalf("after ten wrong codes over two sign-ins: error = %v, want a BlockedError", err)
				}
				continue
			}
			wants(t, fmt.Sprintf("round %d code %d", round, n), err, factors.ErrMismatch)
		}
	}
}

func TestBlockedForGood(t *testing.T) { // LIM-3, LIM-4, I10: until somebody acts
	t.Parallel()
	w := authntest.New(t)
	id := w.Subscriber(t, "alice", "+12025550143")
	block := func(scope string) {
		t.Helper()
		if _, err := w.DB.ExecContext(t.Context(), "INSERT INTO streaks (scope, key, failures, blocked_until) VALUES ($1, uuid_send($2::uuid), 100, 'infinity')", scope, id); err != nil {
			t.Fatal(err)
		}
	}
	b := begin(t, w, authntest.Beginning())
	block("password")
	var locked *authn.LockedError
	if _, err := b.password(t, "alice", authntest.Password); !errors.As(err, &locked) || !limits.Endless(locked.Until) {
		t.Fatalf("the right password: error = %v, want a LockedError without end", err)
	}
	if err := w.Service.Unlock(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := b.password(t, "alice", authntest.Password); err != nil {
		t.Fatal(err)
	}
	code := b.sent(t)
	block("factor")
	if p := b.load(t); p.SignIn.Challenge.BlockedUntil == nil || !limits.Endless(*p.SignIn.Challenge.BlockedUntil) {
		t.Fatalf("challenge %+v, want blocked without end", p.SignIn.Challenge)
	}
	var blocked *factors.BlockedError
	if _, err := b.code(t, code); !errors.As(err, &blocked) || !limits.Endless(blocked.Until) {
		t.Fatalf("the right code: error = %v, want a BlockedError without end", err)
	}
	if err := w.Service.Unlock(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if p, err := b.code(t, code); err != nil || p.Decision.Step != authn.StepDone {
		t.Fatalf("the right code after an administrator acted: %v", err)
	}
}

func TestCheckNewPassword(t *testing.T) { // PW-14
	t.Parallel()
	for _, tt := range []struct {
		password string
		minimum  int
		want     error
	}{
		{"fourteen chars", authn.MinAlonePassword, authn.ErrPasswordShort},
		{"password123", authn.MinPassword, authn.ErrPasswordCommon},
		{"watchword2026", authn.MinPassword, authn.ErrPasswordCommon},
		{"alice1999", authn.MinPassword, authn.ErrPasswordCommon},
		{string(slices.Repeat([]byte("long words "), 60)), authn.MinPassword, authn.ErrPasswordLong},
		{"nul\x00 inside it", authn.MinPassword, authn.ErrPasswordChars},
		{"many words with spaces between them, as people like it", authn.MinAlonePassword, nil},
	} {
		wants(t, tt.password, authn.CheckNewPassword(tt.password, tt.minimum, "watchword", "alice"), tt.want)
	}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	w.Subscriber(t, "alice", "+12025550143")
	w.DB.SetMaxOpenConns(1)
	count := func(what string, want int64, do func()) {
		t.Helper()
		before := w.DB.RoundTrips.Load()
		do()
		if got := w.DB.RoundTrips.Load() - before; want > 0 && got != want {
			t.Errorf("%s took %d round trips, want %d", what, got, want)
		}
	}
	for warm := range int64(2) { // the first time prepares the statements
		b := &browser{World: w, service: w.Service}
		count("begin", warm*1, func() { b.begin(t, authntest.Beginning()) })
		count("load", warm*1, func() { b.load(t) })
		count("password", warm*2, func() {
			if _, err := b.password(t, "alice", authntest.Password); err != nil {
				t.Fatal(err)
			}
		})
		code := b.sent(t)
		count("code", warm*2, func() {
			if _, err := b.code(t, code); err != nil {
				t.Fatal(err)
			}
		})
	}
}
