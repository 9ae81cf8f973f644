package backchannel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// text reads the newest text that belongs to no challenge.
func (w *world) text(t *testing.T) string {
	t.Helper()
	var row struct {
		ID   uuid.UUID `db:"id"`
		Body []byte    `db:"body"`
	}
	if err := w.DB.GetContext(t.Context(), &row, `SELECT id, body FROM messages WHERE challenge_id IS NULL ORDER BY created_at DESC LIMIT 1`); err != nil {
		t.Fatal(err)
	}
	plain, err := w.Keys.Open(row.Body, "message "+row.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Text string }
	if err := json.Unmarshal(plain, &body); err != nil {
		t.Fatal(err)
	}
	return body.Text
}

// approve finishes a sign-in that answers a question with yes.
func (w *world) approve(t *testing.T, p *authn.Progress, cookie authn.Cookie) bool {
	t.Helper()
	p, err := w.Service.Consent(t.Context(), cookie, p.SignIn.ID)
	if err != nil {
		t.Fatal(err)
	}
	q := new(postgres.Query)
	w.Service.Complete(q, p.SignIn, cookie)
	w.service.Approve(t.Context(), q, "sign_in_done", p.SignIn.Requirement.Backchannel.Request, transaction.Proof{ACR: "acr", AMR: p.Decision.AMR(), AuthTime: p.Decision.AuthTime})
	q.Finally("SELECT 1 FROM backchannel_decided")
	n, err := w.DB.Run(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// redeem uses an approval.
func (w *world) redeem(t *testing.T, client string, asked *backchannel.Asked) int64 {
	t.Helper()
	q := new(postgres.Query)
	w.service.Redeem(q, client, asked.Secret)
	q.Finally("SELECT 1 FROM backchannel_redeemed")
	n, err := w.DB.Run(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A question without a payment: its text leads to it, and it is answered in a sign-in, by a button.
func TestSignIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked := w.ask(t)
	if text := w.text(t); !strings.Contains(text, "Till") || !strings.HasSuffix(text, " https://login.example"+backchannel.Path(asked.ID)) || strings.Contains(text, "W4SCT") {
		t.Errorf("text: %s", text)
	}
	if got := w.state(t, "till", asked); got != backchannel.Pending {
		t.Errorf("before: %s", got)
	}
	for range 3 { // whoever looks at links, such as a preview, changes nothing
		if p, err := w.service.Begin(t.Context(), asked.ID, ""); err != nil || p.Decision.Step != authn.StepPassword {
			t.Fatalf("opened: %+v, %v", p, err)
		}
	}
	p, cookie := w.answer(t, asked, "")
	if p.Decision.Step != authn.StepConsent || p.SignIn.Requirement.Backchannel.Message != "W4SCT" {
		t.Fatalf("the application is first-party, and nobody pressed a button: step %d, %+v", p.Decision.Step, p.SignIn.Requirement.Backchannel)
	}
	open, err := w.service.Open(t.Context(), w.alice)
	if err != nil || len(open) != 1 || open[0].ID != asked.ID || open[0].RelyingParty.Name != "Till" {
		t.Fatalf("open: %v, %v", open, err)
	}
	if w.redeem(t, "till", asked) != 0 {
		t.Error("redeemed before it was answered")
	}
	if !w.approve(t, p, cookie) {
		t.Fatal("not approved")
	}
	if got := w.state(t, "till", asked); got != backchannel.Approved {
		t.Errorf("after: %s", got)
	}
	if open, err := w.service.Open(t.Context(), w.alice); err != nil || len(open) != 0 {
		t.Errorf("open afterwards: %v, %v", open, err)
	}
	if _, err := w.service.Begin(t.Context(), asked.ID, cookie); !errors.Is(err, backchannel.ErrOver) {
		t.Errorf("opened again: %v", err)
	}
	if w.redeem(t, "bank", asked) != 0 || w.redeem(t, "till", asked) != 1 || w.redeem(t, "till", asked) != 0 {
		t.Error("an approval is for its application, once")
	}
}

// Whoever is signed in as somebody else does not answer for her.
func TestOthersBrowser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Subscriber(t, "bob", "+12025550199")
	asked := w.ask(t)
	_, cookie := w.SignIn(t, "", "bob", authntest.Beginning())
	p, err := w.service.Begin(t.Context(), asked.ID, cookie)
	if err != nil || p.Decision.Step != authn.StepPassword {
		t.Fatalf("step %v, %v", p, err)
	}
	if err := w.service.Refuse(t.Context(), asked.ID, &p.SignIn.Session); !errors.Is(err, backchannel.ErrOver) {
		t.Errorf("refused by bob: %v", err)
	}
	p, err = w.Service.Password(t.Context(), cookie, uuid.Nil, p.SignIn.ID, "bob", authntest.Password, "en")
	if err == nil && p.Decision.Step != authn.StepFail {
		t.Errorf("bob's password leads to step %d", p.Decision.Step)
	}
}

// Whoever did not ask for a payment is asked nothing else that was under way either, by whichever application.
func TestReported(t *testing.T) { // TXN-6, SUP-5
	t.Parallel()
	w := newWorld(t)
	w.Subscriber(t, "bob", "+12025550144")
	payment, other := w.ask(t, by("bank"), pays), w.ask(t)
	foreign := w.ask(t, func(q *backchannel.Question) { q.Hint.Name = "bob" })
	for range 2 {
		if _, err := w.service.Confirm.Report(t.Context(), "bank", payment.Payment.ID, transaction.Outcome{}); err != nil && !errors.Is(err, transaction.ErrDecided) {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		client string
		asked  *backchannel.Asked
		want   backchannel.State
	}{"the payment": {"bank", payment, backchannel.Denied}, "the other question": {"till", other, backchannel.Denied}, "somebody else's": {"till", foreign, backchannel.Pending}} {
		if got := w.state(t, tt.client, tt.asked); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	if n := w.redeem(t, "till", other); n != 0 {
		t.Error("redeemed")
	}
	var recorded int
	if err := w.DB.GetContext(t.Context(), &recorded, "SELECT count(*) FROM audit_events WHERE event = 'backchannel.answer' AND reason = 'suspended' AND object = $1", other.ID.String()); err != nil || recorded != 1 {
		t.Errorf("%d records, %v", recorded, err)
	}
}

// A payment is a transaction: its text has no link, and the question ends with it, however it ends.
func TestPayment(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		how  func(t *testing.T, w *world, client string, made *transaction.Transaction) error
		want backchannel.State
		why  string
	}{
		"approved": {func(t *testing.T, w *world, client string, made *transaction.Transaction) error {
			_, err := w.service.Confirm.Approve(t.Context(), client, made.ID, transaction.Answer{Code: w.Code(t, made.Challenge.ID)})
			return err
		}, backchannel.Approved, ""},
		"refused": {func(t *testing.T, w *world, client string, made *transaction.Transaction) error {
			_, err := w.service.Confirm.Refuse(t.Context(), client, made.ID, transaction.Outcome{})
			return err
		}, backchannel.Denied, "user_refused"},
		"reported": {func(t *testing.T, w *world, client string, made *transaction.Transaction) error {
			_, err := w.service.Confirm.Report(t.Context(), client, made.ID, transaction.Outcome{})
			return err
		}, backchannel.Denied, "user_reported"},
		"canceled": {func(t *testing.T, w *world, client string, made *transaction.Transaction) error {
			_, err := w.service.Confirm.Cancel(t.Context(), client, made.ID)
			return err
		}, backchannel.Denied, "transaction_canceled"},
		"five wrong codes": {func(t *testing.T, w *world, client string, made *transaction.Transaction) error {
			wrong := "000000"
			if w.Code(t, made.Challenge.ID) == wrong {
				wrong = "000001"
			}
			for range 5 {
				if _, err := w.service.Confirm.Approve(t.Context(), client, made.ID, transaction.Answer{Code: wrong}); !errors.Is(err, factors.ErrMismatch) {
					return err
				}
			}
			return nil
		}, backchannel.Denied, "transaction_failed"},
		"expired": {func(t *testing.T, w *world, _ string, _ *transaction.Transaction) error {
			w.DB.Advance(t, backchannel.Life)
			_, err := w.service.Confirm.Expire(t.Context())
			return err
		}, backchannel.Expired, ""},
		"late": {func(t *testing.T, w *world, _ string, _ *transaction.Transaction) error {
			w.DB.Advance(t, backchannel.Life) // nobody has seen to it
			return nil
		}, backchannel.Expired, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			asked := w.ask(t, by("bank"), pays)
			var links int
			if err := w.DB.GetContext(t.Context(), &links, `SELECT count(*) FROM messages WHERE challenge_id IS NULL`); err != nil || links != 0 {
				t.Errorf("%d texts with a link, %v", links, err)
			}
			open, err := w.service.Open(t.Context(), w.alice)
			if err != nil || len(open) != 1 || open[0].Requirement.Backchannel.Transaction != asked.Payment.ID {
				t.Fatalf("open: %v, %v", open, err)
			}
			if err := end.how(t, w, "bank", asked.Payment); err != nil {
				t.Fatal(err)
			}
			if got := w.state(t, "bank", asked); got != end.want {
				t.Errorf("told %s, want %s", got, end.want)
			}
			if polled, err := w.service.Poll(t.Context(), "bank", asked.Secret, nil); err != nil || polled.Reason != end.why {
				t.Errorf("told %q, want %q; %v", polled.Reason, end.why, err)
			}
			if n := w.redeem(t, "bank", asked); (n == 1) != (end.want == backchannel.Approved) {
				t.Errorf("redeemed %d times", n)
			}
			if got, err := w.service.Confirm.Get(t.Context(), "bank", asked.Payment.ID); err != nil || (got.State == transaction.Approved) != (end.want == backchannel.Approved) {
				t.Errorf("the transaction: %v, %v", got, err)
			}
		})
	}
}

// A person is asked for three things at once, by an application with payment accounts for one, however many ask at the same moment.
func TestTX19(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change []func(*backchannel.Question)
		most   int
	}{
		"sign-in":         {nil, 3},
		"payment":         {[]func(*backchannel.Question){pays}, 3},
		"payment account": {[]func(*backchannel.Question){pays, func(q *backchannel.Question) { q.RelyingParty.PaymentAccount = true }}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.service.Config.Rate = limits.Window{Name: "wide", Burst: 1000, Period: time.Hour}
			l := &w.service.SignIns.Ledger.Limits
			l.NumberHour.Burst, l.NumberDay.Burst, l.SubjectHour.Burst, l.Source.Burst = 1000, 1000, 1000, 1000 // so that only the number of open ones counts
			var mu sync.Mutex
			var group sync.WaitGroup
			stored := 0
			for range 100 {
				group.Go(func() {
					_, err := w.service.Ask(t.Context(), question(tt.change...))
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						stored++
					} else if !errors.Is(err, backchannel.ErrTooMany) {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if open, err := w.service.Open(t.Context(), w.alice); err != nil || len(open) > tt.most || len(open) == 0 || stored != len(open) || w.Texts(t) != stored {
				t.Errorf("%d open, %d stored, %d texts, want %d; %v", len(open), stored, w.Texts(t), tt.most, err)
			}
			var refused int
			if err := w.DB.GetContext(t.Context(), &refused, "SELECT count(*) FROM audit_events WHERE event = 'backchannel.ask' AND outcome = 'refused' AND reason = 'limit' AND subject = $1", w.alice); err != nil || refused != 100-stored {
				t.Errorf("I8: %d refusals are recorded of %d, %v", refused, 100-stored, err)
			}
			w.DB.Advance(t, 10*time.Minute) // nobody has seen to what is over
			w.ask(t, tt.change...)
		})
	}
	t.Run("texts", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		stored := 0
		for range 8 {
			switch _, err := w.service.Ask(t.Context(), question()); {
			case err == nil:
				stored++
			case !errors.Is(err, backchannel.ErrTooMany):
				t.Fatal(err)
			}
			w.DB.Advance(t, 6*time.Minute)
		}
		if stored != 5 || w.Texts(t) != 5 {
			t.Errorf("%d questions and %d texts in an hour", stored, w.Texts(t))
		}
	})
}

// Whoever cannot be asked is not told apart from whoever does not exist, and gets no text.
func TestTX18(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]func(t *testing.T, w *world) []func(*backchannel.Question){
		"unknown": func(*testing.T, *world) []func(*backchannel.Question) {
			return []func(*backchannel.Question){func(q *backchannel.Question) { q.Hint = backchannel.Hint{Name: "nobody"} }}
		},
		"unknown number": func(t *testing.T, _ *world) []func(*backchannel.Question) {
			n, err := sms.ParseNumber("+12025550177", "")
			if err != nil {
				t.Fatal(err)
			}
			return []func(*backchannel.Question){func(q *backchannel.Question) { q.Hint = backchannel.Hint{Number: n} }}
		},
		"disabled": func(t *testing.T, w *world) []func(*backchannel.Question) {
			if err := w.Service.Disable(t.Context(), w.alice); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"blocked": func(t *testing.T, w *world) []func(*backchannel.Question) {
			if _, err := w.DB.ExecContext(t.Context(), `INSERT INTO streaks (scope, key, failures, blocked_until, updated_at) VALUES ('factor', uuid_send($1), 5, wall() + interval '15 minutes', wall())`, w.alice); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		"fresh phone": func(t *testing.T, w *world) []func(*backchannel.Question) {
			w.Subscriber(t, "carol", "+12025550166")
			return []func(*backchannel.Question){pays, func(q *backchannel.Question) { q.Hint.Name = "carol" }}
		},
		"changed SIM": func(_ *testing.T, w *world) []func(*backchannel.Question) { // TXN-13
			w.service.Confirm.HeldBack = func(context.Context, uuid.UUID, factors.Authenticator) (bool, error) { return true, nil }
			return []func(*backchannel.Question){pays}
		},
		"no phone for a payment": func(t *testing.T, w *world) []func(*backchannel.Question) {
			w.Subscriber(t, "dave", "")
			return []func(*backchannel.Question){pays, func(q *backchannel.Question) { q.Hint.Name = "dave" }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			change := tt(t, w)
			before := w.Texts(t)
			if _, err := w.service.Ask(t.Context(), question(change...)); !errors.Is(err, backchannel.ErrUser) {
				t.Errorf("error = %v, want ErrUser", err)
			}
			if w.Texts(t) != before {
				t.Error("somebody was texted")
			}
		})
	}
	t.Run("opted out", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		if _, err := w.DB.ExecContext(t.Context(), `INSERT INTO opt_outs (recipient, sender, hint, country, source) VALUES ($1, '', '43', 'US', 'reply')`, w.Keys.Fingerprint("number", "+12025550143")); err != nil {
			t.Fatal(err)
		}
		w.ask(t) // can be answered in the browser
		var waiting int
		if err := w.DB.GetContext(t.Context(), &waiting, `SELECT count(*) FROM messages WHERE state = 'queued'`); err != nil || waiting != 0 {
			t.Errorf("%d texts wait, %v", waiting, err)
		}
	})
}

// Polls: at their pace, by their own application alone, one round trip each.
func TestPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked := w.ask(t)
	poll := func(secret string) (*backchannel.Polled, error) {
		return w.service.Poll(t.Context(), "till", secret, nil)
	}
	early := func(after time.Duration) bool {
		t.Helper()
		w.DB.Advance(t, after)
		polled, err := poll(asked.Secret)
		if err != nil || polled.State != backchannel.Pending {
			t.Fatalf("%+v, %v", polled, err)
		}
		return polled.Early
	}
	got := []bool{early(0), early(5 * time.Second), early(time.Second), early(5 * time.Second), early(15 * time.Second), early(5 * time.Second)}
	if !slices.Equal(got, []bool{false, false, true, true, false, true}) { // from the third on 10 s, from the fourth on 15 s, from the sixth on 20 s: for good
		t.Errorf("too early: %v", got)
	}
	for name, c := range map[string][2]string{"foreign": {"bank", asked.Secret}, "cut": {"till", asked.Secret[:20]}, "empty": {"till", ""}} {
		if _, err := w.service.Poll(t.Context(), c[0], c[1], nil); !errors.Is(err, backchannel.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p, cookie := w.answer(t, asked, ""); !w.approve(t, p, cookie) {
		t.Fatal("not approved")
	}
	w.DB.Advance(t, backchannel.Life+time.Minute)
	if got := w.state(t, "till", asked); got != backchannel.Expired {
		t.Errorf("long after: %s", got)
	}
}

// Every state that a question ends in is for good.
func TestDecidedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked := w.ask(t)
	p, cookie := w.answer(t, asked, "")
	if err := w.service.Refuse(t.Context(), asked.ID, &p.SignIn.Session); err != nil {
		t.Fatal(err)
	}
	if w.approve(t, p, cookie) {
		t.Error("approved after it was refused")
	}
	if err := w.service.Refuse(t.Context(), asked.ID, &p.SignIn.Session); !errors.Is(err, backchannel.ErrOver) {
		t.Errorf("refused twice: %v", err)
	}
	if got := w.state(t, "till", asked); got != backchannel.Denied {
		t.Errorf("told %s", got)
	}
}

// What is stored of a question lets nobody who reads the database poll for it or call its application.
func TestStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked := w.ask(t, func(q *backchannel.Question) {
		q.Notify = &backchannel.Notify{URL: "https://till.example/ping", Token: "a token of the till's own choice"}
	})
	var row []byte
	if err := w.DB.GetContext(t.Context(), &row, `SELECT convert_to(to_jsonb(r)::text, 'UTF8') || r.notify || r.hash FROM backchannel_requests r`); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{asked.Secret, "a token of the till's own choice"} {
		if bytes.Contains(row, []byte(secret)) {
			t.Errorf("%q can be read", secret)
		}
	}
}
