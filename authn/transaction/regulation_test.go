package transaction_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
)

// Regulation (EU) 2018/389 Art. 4, authentication code: a condition each.
func TestArticle4(t *testing.T) {
	t.Parallel()
	t.Run("1 a code is accepted once", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		code := w.Code(t, created.Challenge.ID)
		_, err := w.approve(t, created.ID, code)
		wants(t, "first", err, nil)
		_, err = w.approve(t, created.ID, code)
		wants(t, "second", err, transaction.ErrDecided)
	})
	t.Run("2a a code says nothing of the elements", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		codes := map[string]bool{}
		for range 3 { // the same person, phone, payment: nothing of them is in the code
			codes[w.Code(t, w.create(t).Challenge.ID)] = true
		}
		if len(codes) == 1 {
			t.Error("one code for all")
		}
	})
	t.Run("2b a code does not follow from another", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		first := w.create(t)
		code := w.Code(t, first.Challenge.ID)
		if _, err := w.approve(t, first.ID, code); err != nil {
			t.Fatal(err)
		}
		next := w.create(t)
		if w.Code(t, next.Challenge.ID) == code {
			t.Skip("equal by chance")
		}
		_, err := w.approve(t, next.ID, code)
		wants(t, "the code before", err, factors.ErrMismatch)
	})
	t.Run("2c a code cannot be forged", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		// Whoever can write to the database has no key: what they put there is no code's hash.
		if _, err := w.DB.ExecContext(t.Context(), `UPDATE challenges SET macs = ARRAY[sha256('123456')], attempts = 0`); err != nil {
			t.Fatal(err)
		}
		_, err := w.approve(t, created.ID, "123456")
		wants(t, "a forged code", err, factors.ErrMismatch)
	})
	t.Run("3a a failure does not tell which element was wrong", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		code := w.Code(t, created.Challenge.ID)
		_, one := w.approve(t, created.ID, wrong(code))
		last := code[:5] + string('0'+(code[5]-'0'+1)%10) // all but the last digit are right
		_, other := w.approve(t, created.ID, last)
		if !errors.Is(one, factors.ErrMismatch) || one.Error() != other.Error() {
			t.Errorf("%v and %v", one, other)
		}
		// Something else to pay fails alike, whether the code is right or not.
		second := w.create(t)
		for _, c := range []struct {
			id   uuid.UUID
			code string
		}{{created.ID, code}, {second.ID, "000000"}} {
			again := repeat()
			again.Amount = "1.00"
			_, err := w.service.Approve(t.Context(), "bank", c.id, transaction.Answer{Code: c.code, Repeat: again})
			wants(t, "something else", err, transaction.ErrMismatch)
		}
	})
	t.Run("3b five failures in a row block", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for range 2 { // over transactions
			created := w.create(t)
			code := w.Code(t, created.Challenge.ID)
			for range 3 {
				_, err := w.approve(t, created.ID, wrong(code))
				if blocked := new(factors.BlockedError); err == nil || !errors.Is(err, factors.ErrMismatch) && !errors.As(err, &blocked) {
					t.Fatal(err)
				}
			}
		}
		_, err := w.service.Create(t.Context(), w.request())
		if blocked := new(factors.BlockedError); !errors.As(err, &blocked) {
			t.Errorf("after five: error = %v, want a BlockedError", err)
		}
	})
	t.Run("3c what is sent is protected", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		var bodies []string
		if err := w.DB.SelectContext(t.Context(), &bodies, "SELECT encode(body, 'escape') FROM messages"); err != nil {
			t.Fatal(err)
		}
		if code := w.Code(t, created.Challenge.ID); slices.ContainsFunc(bodies, func(b string) bool { return strings.Contains(b, code) || strings.Contains(b, "Gas AG") }) {
			t.Error("a text can be read in the database")
		}
	})
	t.Run("3d five minutes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		r := w.request()
		r.Order.ExpiresIn = 10 * time.Minute
		created := w.createThis(t, r)
		code := w.Code(t, created.Challenge.ID)
		w.DB.Advance(t, 5*time.Minute)
		_, err := w.approve(t, created.ID, code)
		wants(t, "a code five minutes old", err, transaction.ErrOver)
	})
	t.Run("4 blocks grow", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		var blocks []time.Duration
		for range 2 {
			created := w.create(t)
			code := w.Code(t, created.Challenge.ID)
			for range 5 {
				_, err := w.approve(t, created.ID, wrong(code))
				wants(t, "wrong", err, factors.ErrMismatch)
			}
			_, err := w.service.Create(t.Context(), w.request())
			blocked := new(factors.BlockedError)
			if !errors.As(err, &blocked) {
				t.Fatal(err)
			}
			blocks = append(blocks, blocked.Until.Sub(w.DB.Now(t)).Round(time.Minute))
			w.DB.Advance(t, blocks[len(blocks)-1]+time.Second)
		}
		if !slices.Equal(blocks, []time.Duration{15 * time.Minute, 30 * time.Minute}) {
			t.Errorf("blocks of %v", blocks)
		}
	})
}

// Regulation (EU) 2018/389 Art. 5, dynamic linking: a condition each.
func TestArticle5(t *testing.T) {
	t.Parallel()
	t.Run("1a the payer is made aware of amount and payee", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		shown := w.create(t).Shown[0].Text
		for _, part := range []string{"129.90", "EUR", "Gas AG", "8603"} {
			if at := strings.Index(shown, part); at < 0 || at > strings.Index(shown, "******") {
				t.Errorf("%q does not stand before the code: %s", part, shown)
			}
		}
	})
	t.Run("1b the code is specific to amount and payee", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		one := w.create(t)
		r := w.request()
		r.Order.Amount = "129.91"
		other := w.createThis(t, r)
		code := w.Code(t, one.Challenge.ID)
		if code == w.Code(t, other.Challenge.ID) {
			t.Skip("equal by chance")
		}
		again := repeat()
		again.Amount = "129.91"
		_, err := w.service.Approve(t.Context(), "bank", other.ID, transaction.Answer{Code: code, Repeat: again})
		wants(t, "the code for another amount", err, factors.ErrMismatch)
	})
	t.Run("1c the code corresponds to what was agreed to", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		// Somebody who can write to the database, even past the trigger, puts another record under the code.
		if _, err := w.DB.ExecContext(t.Context(), `ALTER TABLE transactions DISABLE TRIGGER decided_once`); err != nil {
			t.Fatal(err)
		}
		if _, err := w.DB.ExecContext(t.Context(), `UPDATE transactions SET hash = sha256(hash)`); err != nil {
			t.Fatal(err)
		}
		if got, err := w.approve(t, created.ID, w.Code(t, created.Challenge.ID)); err == nil {
			t.Errorf("approved: %+v", got)
		}
	})
	t.Run("1d any change makes the code invalid", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		code := w.Code(t, created.Challenge.ID)
		again := repeat()
		again.Payees = []transaction.Payee{{Name: "Gas A6", Account: again.Payees[0].Account}}
		_, err := w.service.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: code, Repeat: again})
		wants(t, "changed", err, transaction.ErrMismatch)
		_, err = w.approve(t, created.ID, code)
		wants(t, "changed back", err, transaction.ErrDecided)
	})
	t.Run("2 amount and payee are the same in every phase", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		created := w.create(t)
		approved, err := w.approve(t, created.ID, w.Code(t, created.Challenge.ID))
		if err != nil {
			t.Fatal(err)
		}
		_, record, err := transaction.ReadReceipt(approved.Result, w.key.set())
		if err != nil || string(record.Canonical()) != string(created.Canonical) || string(approved.Canonical) != string(created.Canonical) {
			t.Errorf("%s, then %s; %v", created.Canonical, record.Canonical(), err)
		}
	})
	t.Run("3b a batch is its total and its payees", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		batch := []transaction.Payee{{Name: "Gas AG", Account: "DE02100100109307118603"}, {Name: "Water Ltd", Account: "GB82WEST12345698765432"}}
		for name, again := range map[string][]transaction.Payee{"a payee less": batch[:1], "another payee": {batch[0], {Name: "Friend"}}, "reordered": {batch[1], batch[0]}} {
			r := w.request()
			r.Order.Payees = batch
			created := w.createThis(t, r)
			if !strings.Contains(created.Shown[0].Text, " +1") {
				t.Errorf("the text does not tell of the others: %s", created.Shown[0].Text)
			}
			_, err := w.service.Approve(t.Context(), "bank", created.ID, transaction.Answer{Code: w.Code(t, created.Challenge.ID), Repeat: &transaction.Repeat{Amount: "129.90", Currency: "EUR", Payees: again}})
			want := transaction.ErrMismatch
			if name == "reordered" {
				want = nil
			}
			wants(t, name, err, want)
		}
	})
}
