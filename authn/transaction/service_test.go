package transaction_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/sms"
)

func wants(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error = %v, want %v", what, got, want)
	}
}

func TestApprove(t *testing.T) { // TX-5, TXN-6, TXN-7
	t.Parallel()
	w := newWorld(t)
	created := w.create(t)
	if !created.Sent || created.Hint != "43" {
		t.Fatalf("created: %+v", created)
	}
	code := w.Code(t, created.Challenge.ID)
	approved, err := w.approve(t, created.ID, code)
	if err != nil || approved.State != transaction.Approved || approved.Result == "" {
		t.Fatalf("approve: %+v, %v", approved, err)
	}
	receipt, record, err := transaction.ReadReceipt(approved.Result, w.key.set())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(created.Record, record); diff != "" {
		t.Error(diff)
	}
	if receipt.Audience != "bank" || receipt.ACR != "urn:watchword:acr:transaction" || !slices.Equal(receipt.AMR, []string{"sms"}) || receipt.Expires-receipt.IssuedAt != 300 ||
		receipt.AuthTime != receipt.IssuedAt || receipt.Transaction != transaction.PublicID(created.ID) {
		t.Errorf("receipt: %+v", receipt)
	}
	if len(receipt.Shown) != 1 || receipt.Shown[0].Template != sms.TransactionTemplate || receipt.Shown[0].Locale != "en" || strings.Contains(receipt.Shown[0].Text, code) ||
		!strings.Contains(receipt.Shown[0].Text, "EUR 129.90 to Gas AG") || strings.Contains(receipt.Shown[0].Text, "DE0210") {
		t.Errorf("shown: %+v", receipt.Shown)
	}

	again, err := w.approve(t, created.ID, code)
	wants(t, "the right code again", err, transaction.ErrDecided)
	if again.State != transaction.Approved || again.Result != "" {
		t.Errorf("the right code again: %s with result %q, want approved without another result", again.State, again.Result)
	}
	repeated, err := w.service.Result(again)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(claims(t, approved.Result), claims(t, repeated)); diff != "" {
		t.Errorf("asked for again it is another result: %s", diff)
	}
	if n := w.count(t, "audit_events WHERE event = 'transaction.approve'"); n != 1 {
		t.Errorf("%d audit records of one approval", n)
	}
	if diff := cmp.Diff([]string{"client:bank transaction.approved approved"}, w.told(t, created.ID)); diff != "" {
		t.Error(diff)
	}
	if n := w.count(t, "messages WHERE body IS NOT NULL"); n != 0 {
		t.Errorf("%d texts are readable after the approval", n)
	}
}

// What a session had proved is told with the code, and what the door changes is part of the approval.
func TestApproveOnPage(t *testing.T) { // TX-4, TX-13, SUP-1
	t.Parallel()
	w := newWorld(t)
	session := uuid.New()
	r := w.request()
	r.Door, r.Holder = transaction.DoorPage, session
	created := w.createThis(t, r)
	code := w.Code(t, created.Challenge.ID)
	_, err := w.service.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: code, Holder: uuid.New()})
	wants(t, "another browser", err, transaction.ErrOver)
	_, err = w.service.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: code})
	wants(t, "the application", err, transaction.ErrOver)
	_, err = w.service.Approve(t.Context(), "shop", created.ID, transaction.Answer{Code: code, Holder: session})
	wants(t, "another application", err, transaction.ErrUnknown)
	before := created.CreatedAt.Add(-10 * time.Minute).UTC().Truncate(time.Second)
	approved, err := w.service.Approve(t.Context(), "bank", created.ID, transaction.Answer{
		Code: code, Holder: session, Before: &transaction.Proof{ACR: "urn:watchword:acr:2", AMR: []string{"pwd", "sms", "mfa"}, AuthTime: before},
		Page: &transaction.Shown{Channel: "page", Text: "Pay EUR 129.90 to Gas AG", Locale: "en", Template: "confirm-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if approved.ACR != "urn:watchword:acr:2" || !slices.Equal(approved.AMR, []string{"pwd", "sms", "mfa"}) || !approved.AuthTime.Equal(before) {
		t.Errorf("rests on %s %v of %v", approved.ACR, approved.AMR, approved.AuthTime)
	}
	read, err := w.service.Get(t.Context(), "bank", created.ID)
	if err != nil || len(read.Shown) != 2 || read.Shown[1].Template != "confirm-1" {
		t.Errorf("shown %+v, %v", read.Shown, err)
	}
}

func TestChanged(t *testing.T) { // TX-1, TXN-3, TXN-4, MU-23
	t.Parallel()
	for name, change := range map[string]func(r *transaction.Repeat){
		"one cent": func(r *transaction.Repeat) { r.Amount = "129.91" },
		"currency": func(r *transaction.Repeat) { r.Currency = "USD" },
		"one letter": func(r *transaction.Repeat) {
			r.Payees = []transaction.Payee{{Name: "Gaz AG", Account: r.Payees[0].Account}}
		},
		"account": func(r *transaction.Repeat) {
			r.Payees = []transaction.Payee{{Name: "Gas AG", Account: "GB82WEST12345698765432"}}
		},
		"no account":   func(r *transaction.Repeat) { r.Payees = []transaction.Payee{{Name: "Gas AG"}} },
		"a payee more": func(r *transaction.Repeat) { r.Payees = append(r.Payees, transaction.Payee{Name: "Friend"}) },
		"look-alike": func(r *transaction.Repeat) {
			r.Payees = []transaction.Payee{{Name: "Gаs AG", Account: r.Payees[0].Account}}
		},
		"not an amount": func(r *transaction.Repeat) { r.Amount = "129,90" },
		"nothing":       func(r *transaction.Repeat) { *r = transaction.Repeat{} },
		"zero-width more": func(r *transaction.Repeat) {
			r.Payees = []transaction.Payee{{Name: "Gas\u200b AG", Account: r.Payees[0].Account}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			created := w.create(t)
			code := w.Code(t, created.Challenge.ID)
			again := repeat()
			change(again)
			got, err := w.service.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: code, Repeat: again})
			wants(t, "changed", err, transaction.ErrMismatch)
			if got == nil || got.State != transaction.Failed || got.Reason != transaction.ReasonChanged || got.Amount != "129.90" {
				t.Fatalf("changed: %+v", got)
			}
			_, err = w.approve(t, created.ID, code)
			wants(t, "then the record's own", err, transaction.ErrDecided)
			if n := w.count(t, "challenges WHERE outcome = 'canceled'"); n != 1 {
				t.Error("the code lives on")
			}
			if diff := cmp.Diff([]string{"client:bank transaction.refused failed"}, w.told(t, created.ID)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("another spelling is no change", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		_, err := w.service.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: w.Code(t, created.Challenge.ID), Repeat: &transaction.Repeat{
			Amount: "129.9", Currency: "EUR", Payees: []transaction.Payee{{Name: " Gas  AG ", Account: "de02 1001 0010 9307 1186 03"}},
		}})
		wants(t, "another spelling", err, nil)
	})
	t.Run("nothing repeated", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		code := w.Code(t, created.Challenge.ID)
		_, err := w.service.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: code})
		wants(t, "nothing repeated", err, transaction.ErrRepeat)
		_, err = w.approve(t, created.ID, code)
		wants(t, "then repeated", err, nil)
	})
}

// A code is good for one transaction, of one purpose.
func TestOtherCodes(t *testing.T) { // TX-2, TX-3, TXN-9, OT-7
	t.Parallel()
	w := newWorld(t)
	first, second := w.create(t), w.create(t)
	codes := []string{w.Code(t, first.Challenge.ID), w.Code(t, second.Challenge.ID)}
	if codes[0] == codes[1] {
		t.Skip("two codes are equal by chance")
	}
	_, err := w.approve(t, second.ID, codes[0])
	wants(t, "the code of an equal transaction", err, factors.ErrMismatch)
	_, err = w.service.Ledger.Answer(t.Context(), first.Challenge.ID, factors.Authenticator{ID: first.Challenge.AuthenticatorID, Kind: "sms"},
		factors.Binding{Purpose: factors.Login, Subject: w.alice}, codes[0], nil)
	wants(t, "a transaction's code to sign in", err, factors.ErrOver)
	if got := []string{w.state(t, first.ID), w.state(t, second.ID)}; !slices.Equal(got, []string{"pending", "pending"}) {
		t.Errorf("states %v", got)
	}
	for i, id := range []uuid.UUID{first.ID, second.ID} {
		_, err := w.approve(t, id, codes[i])
		wants(t, "its own code", err, nil)
	}
}

// The code's keyed hash covers the record's: with any other it is no code at all.
func TestBoundToTheRecord(t *testing.T) { // TXN-2
	t.Parallel()
	w := newWorld(t)
	created := w.create(t)
	code := w.Code(t, created.Challenge.ID)
	browser := uuid.NewSHA1(uuid.NewSHA1(uuid.NameSpaceOID, []byte("client:bank")), created.ID[:])
	other := slices.Clone(created.Hash)
	other[0] ^= 1
	for _, context := range [][]byte{nil, other} {
		_, err := w.service.Ledger.Answer(t.Context(), created.Challenge.ID, factors.Authenticator{ID: created.Challenge.AuthenticatorID, Kind: "sms"},
			factors.Binding{Purpose: factors.Transaction, Subject: w.alice, Browser: browser, Context: context}, code, nil)
		wants(t, "another record", err, factors.ErrOver)
	}
	_, err := w.service.Ledger.Answer(t.Context(), created.Challenge.ID, factors.Authenticator{ID: created.Challenge.AuthenticatorID, Kind: "sms"},
		factors.Binding{Purpose: factors.Transaction, Subject: w.alice, Browser: browser, Context: created.Hash}, code, nil)
	wants(t, "the record", err, nil)
}

func TestFiveWrong(t *testing.T) { // TX-8, TXN-8, TXN-12, LIM-2, LIM-3
	t.Parallel()
	w := newWorld(t)
	created := w.create(t)
	code := w.Code(t, created.Challenge.ID)
	for n := 1; n <= 5; n++ {
		got, err := w.approve(t, created.ID, wrong(code))
		wants(t, "wrong", err, factors.ErrMismatch)
		if want := map[bool]transaction.State{false: transaction.Pending, true: transaction.Failed}[n == 5]; got.State != want || got.Challenge.AttemptsLeft() != 5-n {
			t.Errorf("after %d: %s, %d left; want %s", n, got.State, got.Challenge.AttemptsLeft(), want)
		}
	}
	got, err := w.approve(t, created.ID, code)
	wants(t, "the right one then", err, transaction.ErrDecided)
	if got.State != transaction.Failed || got.Reason != transaction.ReasonAttempts {
		t.Errorf("%s %s, want failed attempts", got.State, got.Reason)
	}
	_, err = w.service.Resend(t.Context(), "bank", created.ID, uuid.Nil, "")
	wants(t, "resend", err, transaction.ErrDecided)
	if diff := cmp.Diff([]string{"client:bank transaction.refused failed"}, w.told(t, created.ID)); diff != "" {
		t.Error(diff)
	}
	texts := w.Texts(t)
	_, err = w.service.Create(t.Context(), w.request())
	if blocked := new(factors.BlockedError); !errors.As(err, &blocked) || w.Texts(t) != texts { // TX-18
		t.Errorf("another one for whoever is blocked: error = %v, %d texts more", err, w.Texts(t)-texts)
	}
}

func TestWhoCanBeAsked(t *testing.T) { // TX-15, TX-18, TX-19, BC-8, EN-4, BND-4, MU-22
	t.Parallel()
	t.Run("a fresh phone waits", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		bob := w.Subscriber(t, "bob", "+12025550144")
		r := w.request()
		r.User = transaction.User{Subscriber: bob}
		_, err := w.service.Create(t.Context(), r)
		if hold := new(transaction.HoldError); !errors.As(err, &hold) || hold.Until.Sub(w.DB.Now(t)).Round(time.Hour) != 24*time.Hour {
			t.Fatalf("error = %v, want a HoldError for 24 h", err)
		}
		w.DB.Advance(t, 24*time.Hour-time.Minute)
		if _, err = w.service.Create(t.Context(), r); err == nil {
			t.Error("asked a minute too early")
		}
		w.DB.Advance(t, time.Minute)
		w.createThis(t, r)
	})
	t.Run("a phone whose SIM was changed", func(t *testing.T) { // TXN-13, OTP-13
		t.Parallel()
		w := newWorld(t)
		r := w.request()
		r.Later = true
		created := w.createThis(t, r)
		changed := true
		w.service.HeldBack = func(_ context.Context, subscriber uuid.UUID, a factors.Authenticator) (bool, error) {
			if subscriber != w.alice || a.Kind != smsotp.Kind || len(a.Data) == 0 {
				t.Errorf("asked about %s of %s", a.Kind, subscriber)
			}
			return changed, nil
		}
		_, err := w.service.Create(t.Context(), w.request())
		wants(t, "a payment", err, transaction.ErrHeldBack)
		_, err = w.service.Resend(t.Context(), "bank", created.ID, uuid.Nil, "")
		wants(t, "the first text of one from before", err, transaction.ErrHeldBack)
		if n := w.Texts(t); n != 0 || w.count(t, "transactions") != 1 {
			t.Errorf("%d texts, %d transactions", n, w.count(t, "transactions"))
		}
		changed = false
		w.create(t)
		_, err = w.service.Resend(t.Context(), "bank", created.ID, uuid.Nil, "")
		wants(t, "later", err, nil)
	})
	t.Run("no app and no backup codes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		bob := w.Subscriber(t, "bob", "")
		w.App(t, bob)
		w.Paper(t, bob)
		w.DB.Advance(t, 25*time.Hour)
		r := w.request()
		r.User = transaction.User{Subscriber: bob}
		_, err := w.service.Create(t.Context(), r)
		wants(t, "without a phone", err, transaction.ErrNoPhone)
	})
	t.Run("a backup code in place of the code", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		paper := w.Paper(t, w.alice)
		created := w.create(t)
		if _, err := w.approve(t, created.ID, paper[0]); err == nil {
			t.Fatal("approved by a backup code")
		}
		_, err := w.approve(t, created.ID, w.Code(t, created.Challenge.ID))
		wants(t, "its own code", err, nil)
	})
	t.Run("by name and by number", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		number, err := sms.ParseNumber("+12025550143", "")
		if err != nil {
			t.Fatal(err)
		}
		r := w.request()
		r.User = transaction.User{Number: number}
		created := w.createThis(t, r)
		r.User = transaction.User{Subject: created.User}
		w.createThis(t, r)
		for name, user := range map[string]transaction.User{"nobody": {}, "unknown": {Subject: "mallory"}, "no such id": {Subscriber: uuid.New()}} {
			r.User = user
			_, err := w.service.Create(t.Context(), r)
			wants(t, name, err, transaction.ErrUser)
		}
		if err := w.Service.Disable(t.Context(), w.alice); err != nil {
			t.Fatal(err)
		}
		r.User = transaction.User{Number: number}
		_, err = w.service.Create(t.Context(), r)
		wants(t, "disabled", err, transaction.ErrUser)
	})
	t.Run("what is refused is recorded", func(t *testing.T) { // LOG-1, I8
		t.Parallel()
		w := newWorld(t)
		for range 3 {
			w.create(t)
		}
		bob, carol, dave := w.Subscriber(t, "bob", "+12025550144"), w.Subscriber(t, "carol", ""), w.Subscriber(t, "dave", "+12025550146")
		if _, err := w.DB.ExecContext(t.Context(), `INSERT INTO streaks (scope, key, failures, blocked_until, updated_at) VALUES ('factor', uuid_send($1), 5, wall() + interval '15 minutes', wall())`, dave); err != nil {
			t.Fatal(err)
		}
		for reason, who := range map[string]uuid.UUID{"limit": w.alice, "phone_too_new": bob, "no_phone": carol, "blocked": dave, "nobody": uuid.New()} {
			r := w.request()
			r.User = transaction.User{Subscriber: who}
			if _, err := w.service.Create(t.Context(), r); err == nil {
				t.Errorf("%s: created", reason)
			}
			if n := w.count(t, "audit_events WHERE event = 'transaction.create' AND outcome = 'refused' AND reason = $1 AND client_id = 'bank' AND (subject = $2 OR reason = 'nobody' AND subject IS NULL)", reason, who); n != 1 {
				t.Errorf("%s: %d records", reason, n)
			}
		}
	})
	t.Run("three at once", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for range 3 {
			w.create(t)
		}
		texts := w.Texts(t)
		_, err := w.service.Create(t.Context(), w.request())
		wants(t, "the fourth", err, transaction.ErrTooMany)
		if w.Texts(t) != texts {
			t.Error("and a text for it")
		}
		w.DB.Advance(t, 6*time.Minute)
		w.create(t) // nobody has seen to what is over
	})
	t.Run("many at the same moment", func(t *testing.T) { // on two replicas
		t.Parallel()
		w := newWorld(t)
		second := w.replica(t, w.DB.Open(t))
		var group sync.WaitGroup
		var stored atomic.Int64
		for n := range 40 {
			group.Go(func() {
				switch _, err := []*transaction.Service{w.service, second}[n%2].Create(t.Context(), w.request()); {
				case err == nil:
					stored.Add(1)
				case !errors.Is(err, transaction.ErrTooMany):
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n := w.count(t, "transactions WHERE state = 'pending'"); n == 0 || n > 3 || int64(n) != stored.Load() || w.Texts(t) != n || w.count(t, "challenges WHERE ended_at IS NULL") != n {
			t.Errorf("%d open, %d stored, %d texts, %d challenges", n, stored.Load(), w.Texts(t), w.count(t, "challenges WHERE ended_at IS NULL"))
		}
	})
	t.Run("disabled, and the password changed, after it was asked", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		code := w.Code(t, created.Challenge.ID)
		w.DB.Advance(t, time.Second)
		if err := w.Service.SetPassword(t.Context(), w.alice, "another good password, and long"); err != nil {
			t.Fatal(err)
		}
		_, err := w.approve(t, created.ID, code)
		wants(t, "after the password was changed", err, transaction.ErrOver)
	})
}

func TestRefuse(t *testing.T) { // TX-7
	t.Parallel()
	w := newWorld(t)
	created := w.create(t)
	code := w.Code(t, created.Challenge.ID)
	_, err := w.service.Refuse(t.Context(), "shop", created.ID, transaction.Outcome{})
	wants(t, "another application", err, transaction.ErrUnknown)
	got, err := w.service.Refuse(t.Context(), "bank", created.ID, transaction.Outcome{})
	if err != nil || got.State != transaction.Refused {
		t.Fatalf("refuse: %+v, %v", got, err)
	}
	got, err = w.approve(t, created.ID, code)
	wants(t, "approve then", err, transaction.ErrDecided)
	if got.State != transaction.Refused {
		t.Errorf("approve then: %s", got.State)
	}
	for name, again := range map[string]func() (*transaction.Transaction, error){
		"refuse": func() (*transaction.Transaction, error) {
			return w.service.Refuse(t.Context(), "bank", created.ID, transaction.Outcome{})
		},
		"cancel": func() (*transaction.Transaction, error) { return w.service.Cancel(t.Context(), "bank", created.ID) },
	} {
		got, err := again()
		wants(t, name+" again", err, transaction.ErrDecided)
		if got.State != transaction.Refused {
			t.Errorf("%s again: %s", name, got.State)
		}
	}
	if _, err := w.service.Result(got); !errors.Is(err, transaction.ErrNoResult) {
		t.Errorf("a result of what was refused: %v", err)
	}
	if diff := cmp.Diff([]string{"client:bank transaction.refused refused"}, w.told(t, created.ID)); diff != "" {
		t.Error(diff)
	}
}

func TestExpire(t *testing.T) { // TX-7, LIM-1
	t.Parallel()
	w := newWorld(t)
	read, swept := w.create(t), w.create(t)
	code := w.Code(t, read.Challenge.ID)
	w.DB.Advance(t, 5*time.Minute)
	if got := w.state(t, read.ID); got != "expired" {
		t.Errorf("read: %s", got)
	}
	for _, want := range []int64{1, 0} {
		if n, err := w.service.Expire(t.Context()); err != nil || n != want {
			t.Errorf("%d expired, %v; want %d", n, err, want)
		}
	}
	got, err := w.approve(t, read.ID, code)
	wants(t, "approve then", err, transaction.ErrDecided)
	if got.State != transaction.Expired {
		t.Errorf("approve then: %s", got.State)
	}
	for _, id := range []uuid.UUID{read.ID, swept.ID} {
		if diff := cmp.Diff([]string{"client:bank transaction.expired expired"}, w.told(t, id)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bob := w.Subscriber(t, "bob", "+12025550144")
	w.DB.Advance(t, 25*time.Hour)
	r := w.request()
	r.Client = "shop"
	elsewhere := w.createThis(t, r)
	created := w.create(t)
	r.User = transaction.User{Subscriber: bob}
	foreign := w.createThis(t, r)
	code := w.Code(t, created.Challenge.ID)

	got, err := w.service.Report(t.Context(), "bank", created.ID, transaction.Outcome{})
	if err != nil || got.State != transaction.Reported || got.ReportedAt.IsZero() {
		t.Fatalf("report: %+v, %v", got, err)
	}
	if _, err := w.approve(t, created.ID, code); !errors.Is(err, transaction.ErrDecided) {
		t.Errorf("approve then: %v", err)
	}
	if now, err := w.service.Get(t.Context(), "shop", elsewhere.ID); err != nil || now.State != transaction.Canceled || now.Reason != transaction.ReasonSuspended {
		t.Errorf("elsewhere: %+v, %v", now, err)
	}
	if now, err := w.service.Get(t.Context(), "shop", foreign.ID); err != nil || now.State != transaction.Pending {
		t.Errorf("somebody else's: %+v, %v", now, err)
	}
	if n := w.count(t, "challenges WHERE subject = $1 AND ended_at IS NULL", w.alice); n != 0 {
		t.Errorf("%d challenges live on", n)
	}
	if diff := cmp.Diff([]string{"operator fraud.reported reported", "client:bank fraud.reported reported"}, w.told(t, created.ID)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"client:shop transaction.refused canceled"}, w.told(t, elsewhere.ID)); diff != "" {
		t.Error(diff)
	}
	_, err = w.service.Report(t.Context(), "bank", created.ID, transaction.Outcome{})
	wants(t, "report again", err, transaction.ErrDecided)
	if n := len(w.told(t, created.ID)); n != 2 {
		t.Errorf("%d events after two reports", n)
	}

	approved := w.create(t)
	if _, err := w.approve(t, approved.ID, w.Code(t, approved.Challenge.ID)); err != nil {
		t.Fatal(err)
	}
	got, err = w.service.Report(t.Context(), "bank", approved.ID, transaction.Outcome{})
	wants(t, "report what is approved", err, transaction.ErrDecided)
	if got.State != transaction.Approved || got.ReportedAt.IsZero() || !slices.Contains(w.told(t, approved.ID), "operator fraud.reported approved") {
		t.Errorf("report what is approved: %s, told %v", got.State, w.told(t, approved.ID))
	}
}

// Whoever comes at the same time, on whichever replica, is told the same.
func TestOneOutcome(t *testing.T) { // TX-6, I7, MU-24
	t.Parallel()
	rounds := 25
	if testing.Short() {
		rounds = 3
	}
	w := newWorld(t)
	other := w.replica(t, w.DB.Open(t))
	won := map[transaction.State]int{}
	for round := range rounds {
		user := w.Subscriber(t, fmt.Sprintf("user%d", round), fmt.Sprintf("+1202555%04d", 1000+round))
		w.service.Config.Hold = 0
		r := w.request()
		r.User = transaction.User{Subscriber: user}
		created := w.createThis(t, r)
		code := w.Code(t, created.Challenge.ID)
		tries := []func() (*transaction.Transaction, error){
			func() (*transaction.Transaction, error) { return w.approve(t, created.ID, code) },
			func() (*transaction.Transaction, error) {
				return other.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: code, Repeat: repeat()})
			},
			func() (*transaction.Transaction, error) {
				return other.Refuse(t.Context(), "bank", created.ID, transaction.Outcome{})
			},
			func() (*transaction.Transaction, error) { return w.service.Cancel(t.Context(), "bank", created.ID) },
			func() (*transaction.Transaction, error) {
				return other.Report(t.Context(), "bank", created.ID, transaction.Outcome{})
			},
		}
		var wg sync.WaitGroup
		start := make(chan struct{})
		got, errs := make([]*transaction.Transaction, len(tries)), make([]error, len(tries))
		for i, try := range tries {
			wg.Go(func() { <-start; got[i], errs[i] = try() })
		}
		close(start)
		wg.Wait()
		final, err := w.service.Get(t.Context(), "bank", created.ID)
		if err != nil {
			t.Fatal(err)
		}
		winners := 0
		for i := range tries {
			switch {
			case errs[i] == nil:
				winners++
			case !errors.Is(errs[i], transaction.ErrDecided):
				t.Fatalf("round %d, try %d: %v", round, i, errs[i])
			}
			if got[i].State != final.State {
				t.Errorf("round %d, try %d was told %s, %s in the end", round, i, got[i].State, final.State)
			}
		}
		if winners != 1 {
			t.Errorf("round %d: %d tries ended it", round, winners)
		}
		won[final.State]++
		if n := w.count(t, `audit_events WHERE event IN ('transaction.approve', 'transaction.refuse', 'transaction.cancel') AND object = $1`, transaction.PublicID(created.ID)); final.State != transaction.Reported && n != 1 {
			t.Errorf("round %d: %d records of one outcome", round, n)
		}
	}
	t.Log(won)
}

// Nobody with access to the table alone changes what was decided, or reads it.
func TestStored(t *testing.T) { // TXN-5, I9
	t.Parallel()
	w := newWorld(t)
	created := w.create(t)
	for _, change := range []string{"hash = '\\x00'", "content = ''", "client_id = 'shop'", "expires_at = expires_at + interval '1 day'", "subscriber_id = gen_random_uuid()"} {
		if _, err := w.DB.ExecContext(t.Context(), "UPDATE transactions SET "+change); err == nil {
			t.Errorf("%s was possible", change)
		}
	}
	if _, err := w.service.Refuse(t.Context(), "bank", created.ID, transaction.Outcome{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE transactions SET state = 'approved', amr = '{sms}'"); err == nil {
		t.Error("what was refused could be made approved")
	}
	var rows []string
	if err := w.DB.SelectContext(t.Context(), &rows, "SELECT t::text FROM transactions t UNION ALL SELECT e::text FROM audit_events e UNION ALL SELECT e::text FROM events e"); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		for _, secret := range []string{"129.90", "Gas AG", "DE0210", "Invoice", "2025550143"} {
			if strings.Contains(row, secret) {
				t.Errorf("%q can be read in %s", secret, row)
			}
		}
	}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.service.Config.Open = 10
	for n := range 2 { // the first time statements are prepared
		before := w.DB.RoundTrips.Load()
		created := w.create(t)
		creating := w.DB.RoundTrips.Load() - before
		code := w.Code(t, created.Challenge.ID)
		before = w.DB.RoundTrips.Load()
		if _, err := w.approve(t, created.ID, code); err != nil {
			t.Fatal(err)
		}
		approving := w.DB.RoundTrips.Load() - before
		before = w.DB.RoundTrips.Load()
		w.state(t, created.ID)
		if polling := w.DB.RoundTrips.Load() - before; n > 0 && (creating != 2 || approving != 2 || polling != 1) {
			t.Errorf("creating takes %d round trips, approving %d, reading %d; want 2, 2, 1", creating, approving, polling)
		}
	}
}
