// Package factortest is the suite that every factor passes. It plays a person with the right answer, a guesser, a thief of challenges, two replicas
// and a clock against the ledger with that factor installed, on a real PostgreSQL.
package factortest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Fixture is one world to test in: a database of its own, and a subject who has bound the factor.
type Fixture struct {
	DB            *pgtest.Database
	Ledger        *factors.Ledger
	Replica       *factors.Ledger // the same on another pool
	Authenticator factors.Authenticator
	// Right gives what the holder of the authenticator would type now for a challenge that is open. Of a factors.Checker it gives the same until that was used.
	Right func(t *testing.T, challenge uuid.UUID) string
	// Wrong is a well-formed answer that is never right.
	Wrong string
	// Life of a challenge.
	Life time.Duration
}

// Run runs the suite. setUp is called once for each test.
func Run(t *testing.T, setUp func(t *testing.T) Fixture) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *world){
		"describes itself":              describes,
		"OT-12 right answer once":       rightOnce,
		"OT-3 right answers race":       rightRace,
		"OT-1 LIM-2 five wrong":         fiveWrong,
		"OT-2 wrong answers race":       wrongRace,
		"OT-5 OT-25 failures in a row":  failuresInARow,
		"OT-7 OT-9 OT-10 bound":         bound,
		"OT-8 superseded":               superseded,
		"OT-11 expired":                 expired,
		"OT-13 nothing typed":           nothingTyped,
		"OT-17 dead states are alike":   deadAlike,
		"OT-18 nothing readable stored": nothingReadable,
		"OT-23 right answers are free":  rightFree,
		"OT-24 three live at most":      threeLive,
		"AD-12 refusals are recorded":   refusalsRecorded,
		"canceled":                      canceled,
		"one round trip for each step":  roundTrips,
		"TP-1 BC-1 once everywhere":     onceEverywhere,
		"TP-4 BC-2 F-70 one winner":     oneWinner,
		"TP-11 proposed is not bound":   proposed,
		"unbound":                       unbound,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, setUp(t)))
		})
	}
}

// world is a fixture with the table that effects write to.
type world struct {
	Fixture
	binding factors.Binding
}

func newWorld(t *testing.T, f Fixture) *world {
	t.Helper()
	if _, err := f.DB.ExecContext(t.Context(), "CREATE TABLE effects (challenge uuid)"); err != nil {
		t.Fatal(err)
	}
	return &world{Fixture: f, binding: f.newBinding()}
}

// newBinding is that of another browser.
func (f *Fixture) newBinding() factors.Binding {
	return factors.Binding{Purpose: factors.Login, Subject: f.Authenticator.Subject, Browser: uuid.New(), Context: []byte("sign-in")}
}

func (w *world) open(t *testing.T, b factors.Binding) uuid.UUID {
	t.Helper()
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	id, err := w.Ledger.Open(t.Context(), q, "asked", w.Authenticator, b, factors.Prompt{Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM challenge_opened")
	if _, err := w.Ledger.DB.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	return id
}

// answer is that of a host which has just read what the subject has bound.
func (w *world) answer(t *testing.T, l *factors.Ledger, id uuid.UUID, b factors.Binding, answer string) error {
	t.Helper()
	return w.answerWith(t, l, id, w.read(t), b, answer)
}

func (w *world) answerWith(t *testing.T, l *factors.Ledger, id uuid.UUID, a factors.Authenticator, b factors.Binding, answer string) error {
	returned, err := l.Answer(t.Context(), id, a, b, answer, func(q *postgres.Query, won string) string {
		q.With("effect", "INSERT INTO effects SELECT id FROM "+won+" RETURNING challenge")
		return "(SELECT to_jsonb(challenge) FROM effect)"
	})
	if err == nil {
		var got uuid.UUID
		if json.Unmarshal(returned, &got) != nil || got != id {
			t.Errorf("effect gave back %s, want the challenge's id", returned)
		}
	}
	return err
}

// read gives the authenticator as a host reads it, with the time; what is not bound any more as it was made.
func (w *world) read(t *testing.T) factors.Authenticator {
	t.Helper()
	q := new(postgres.Query)
	q.Finally("SELECT " + factors.BoundSQL(q.Bind(w.Authenticator.Subject)+"::uuid"))
	var data []byte
	if err := w.DB.Get(t.Context(), &data, q); err != nil {
		t.Fatal(err)
	}
	bound, err := w.Ledger.DecodeBound(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range bound {
		if a.ID == w.Authenticator.ID {
			return a
		}
	}
	a := w.Authenticator
	a.ReadAt = w.DB.Now(t)
	return a
}

func (w *world) effects(t *testing.T) int {
	t.Helper()
	var n int
	if err := w.DB.GetContext(t.Context(), &n, "SELECT count(*) FROM effects"); err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) state(t *testing.T, id uuid.UUID) *factors.State {
	t.Helper()
	q := new(postgres.Query)
	q.Finally("SELECT " + w.Ledger.StateSQL(q, q.Bind(id)+"::uuid"))
	var data []byte
	if err := w.DB.Get(t.Context(), &data, q); err != nil {
		t.Fatal(err)
	}
	s, err := factors.DecodeState(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) want(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: error = %v, want %v", what, got, want)
	}
}

func describes(t *testing.T, w *world) {
	f, ok := w.Ledger.Factor(w.Authenticator.Kind)
	if !ok {
		t.Fatalf("no factor of kind %q in the ledger", w.Authenticator.Kind)
	}
	if len(f.AMR()) == 0 {
		t.Error("AMR is empty: a token could not say what happened")
	}
	for _, value := range f.AMR() {
		if value == "" || value == "mfa" || value == "pwd" {
			t.Errorf("AMR has %q, which is not this factor's to say", value)
		}
	}
	for _, printed := range []string{fmt.Sprint(w.Authenticator), fmt.Sprintf("%+v", w.Authenticator), fmt.Sprintf("%#v", w.Authenticator)} {
		if len(w.Authenticator.Data) > 0 && strings.Contains(printed, string(w.Authenticator.Data)) {
			t.Errorf("printing the authenticator shows its data: %s", printed)
		}
	}
}

func rightOnce(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	w.want(t, "right answer", w.answer(t, w.Ledger, id, w.binding, right), nil)
	w.want(t, "right answer again", w.answer(t, w.Ledger, id, w.binding, right), factors.ErrOver)
	w.want(t, "right answer again on the other replica", w.answer(t, w.Replica, id, w.binding, right), factors.ErrOver)
	if n := w.effects(t); n != 1 {
		t.Fatalf("%d effects, want 1", n)
	}
	if s := w.state(t, id); s.Outcome != "verified" || s.EndedAt == nil {
		t.Fatalf("state %+v, want verified", s)
	}
}

func rightRace(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	a := w.read(t)
	won := w.race(t, 100, func(l *factors.Ledger, _ int) error { return w.answerWith(t, l, id, a, w.binding, right) })
	if won != 1 || w.effects(t) != 1 {
		t.Fatalf("%d of 100 parallel right answers won, with %d effects; want 1 and 1", won, w.effects(t))
	}
}

// race runs try n times at once over both replicas and counts the successes. Anything but the ledger's refusals fails.
func (w *world) race(t *testing.T, n int, try func(l *factors.Ledger, i int) error) (won int) {
	t.Helper()
	results := make(chan error, n)
	barrier := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			l := w.Ledger
			if i%2 == 1 {
				l = w.Replica
			}
			<-barrier
			results <- try(l, i)
		})
	}
	close(barrier)
	wg.Wait()
	close(results)
	for err := range results {
		var blocked *factors.BlockedError
		switch {
		case err == nil:
			won++
		case errors.Is(err, factors.ErrMismatch), errors.Is(err, factors.ErrOver), errors.As(err, &blocked):
		default:
			t.Errorf("a fault of the system: %v", err)
		}
	}
	return won
}

func fiveWrong(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	for n := 1; n <= 5; n++ {
		w.want(t, fmt.Sprintf("wrong answer %d", n), w.answer(t, w.Ledger, id, w.binding, w.Wrong), factors.ErrMismatch)
		if left := w.state(t, id).AttemptsLeft(); left != 5-n {
			t.Fatalf("%d attempts left after %d wrong answers, want %d", left, n, 5-n)
		}
	}
	w.want(t, "right answer after five wrong", w.answer(t, w.Ledger, id, w.binding, right), factors.ErrOver)
	if n := w.effects(t); n != 0 {
		t.Fatalf("%d effects, want none", n)
	}
}

func wrongRace(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	a := w.read(t)
	w.race(t, 100, func(l *factors.Ledger, _ int) error { return w.answerWith(t, l, id, a, w.binding, w.Wrong) })
	if s := w.state(t, id); s.Attempts != 5 {
		t.Fatalf("%d of 100 parallel guesses were evaluated, want 5", s.Attempts)
	}
	w.want(t, "right answer after the race", w.answer(t, w.Ledger, id, w.binding, right), factors.ErrOver)
}

func failuresInARow(t *testing.T, w *world) {
	var blocked *factors.BlockedError
	fail := func(n int) {
		t.Helper()
		for n > 0 {
			b := w.newBinding()
			id := w.open(t, b)
			for range min(n, 5) {
				w.want(t, "wrong answer", w.answer(t, w.Ledger, id, b, w.Wrong), factors.ErrMismatch)
			}
			n -= min(n, 5)
		}
	}
	isBlocked := func(what string) {
		t.Helper()
		b := w.newBinding()
		id := w.open(t, b)
		if err := w.answer(t, w.Replica, id, b, w.Wrong); !errors.As(err, &blocked) {
			t.Fatalf("%s: error = %v, want a BlockedError", what, err)
		}
		if s := w.state(t, id); s.Attempts != 0 || s.BlockedUntil == nil || !s.BlockedUntil.Equal(blocked.Until) {
			t.Fatalf("%s: state %+v, want no attempt spent and the end of the block", what, s)
		}
	}
	fail(10)
	isBlocked("after ten in a row, over two challenges")
	w.DB.Advance(t, 15*time.Minute-10*time.Second)
	isBlocked("just before 15 minutes are over")
	w.DB.Advance(t, 11*time.Second)
	fail(10)
	isBlocked("after twenty in a row")
	w.DB.Advance(t, 16*time.Minute)
	isBlocked("the second block is longer")
	w.DB.Advance(t, time.Hour) // also empties the windows on sends
	fail(1)
	b := w.newBinding()
	id := w.open(t, b)
	w.want(t, "right answer after the block", w.answer(t, w.Ledger, id, b, w.Right(t, id)), nil)
	w.DB.Advance(t, 25*time.Hour)
	fail(10)
	isBlocked("ten in a row after a success")
	w.DB.Advance(t, 15*time.Minute+time.Second)
	fail(1) // the block was the short one again
}

func bound(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	foreign := map[string]func(*factors.Binding){
		"another purpose": func(b *factors.Binding) { b.Purpose = factors.Enrol },
		"another subject": func(b *factors.Binding) { b.Subject = uuid.New() },
		"another browser": func(b *factors.Binding) { b.Browser = uuid.New() },
		"another context": func(b *factors.Binding) { b.Context = []byte("another sign-in") },
	}
	for what, change := range foreign {
		b := w.binding
		change(&b)
		w.want(t, what, w.answer(t, w.Ledger, id, b, right), factors.ErrOver)
	}
	w.want(t, "unknown challenge", w.answer(t, w.Ledger, uuid.New(), w.binding, right), factors.ErrOver)
	if s := w.state(t, id); s.Attempts != 0 {
		t.Fatalf("foreign answers spent %d attempts", s.Attempts)
	}
	w.want(t, "the owner", w.answer(t, w.Ledger, id, w.binding, right), nil)
}

func superseded(t *testing.T, w *world) {
	first := w.open(t, w.binding)
	right := w.Right(t, first)
	other := w.binding
	other.Context = []byte("the same browser, the next sign-in")
	second := w.open(t, other)
	w.want(t, "answer to the superseded one", w.answer(t, w.Ledger, first, w.binding, right), factors.ErrOver)
	if s := w.state(t, first); s.Outcome != "superseded" {
		t.Fatalf("outcome %q, want superseded", s.Outcome)
	}
	w.ended(t, first, "superseded")
	w.want(t, "answer to the newest", w.answer(t, w.Ledger, second, other, w.Right(t, second)), nil)
}

func expired(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	w.DB.Advance(t, w.Life+time.Second)
	w.want(t, "right answer after its life", w.answer(t, w.Ledger, id, w.binding, right), factors.ErrOver)
}

func nothingTyped(t *testing.T, w *world) {
	f, _ := w.Ledger.Factor(w.Authenticator.Kind)
	id := w.open(t, w.binding)
	for _, typed := range []string{"", " ", "\t\n", "#", "--", "\u00a0"} {
		if _, err := f.Parse(typed); !errors.Is(err, factors.ErrCodeEmpty) {
			t.Errorf("Parse(%q) error = %v, want ErrCodeEmpty", typed, err)
		}
	}
	for _, sent := range []string{"", "000000"} {
		if err := w.answer(t, w.Ledger, id, w.binding, sent); err == nil {
			t.Fatalf("%q was accepted", sent)
		}
	}
}

func deadAlike(t *testing.T, w *world) {
	used := w.open(t, w.binding)
	right := w.Right(t, used)
	w.want(t, "right answer", w.answer(t, w.Ledger, used, w.binding, right), nil)
	for _, answer := range []string{right, w.Wrong} {
		w.want(t, "used", w.answer(t, w.Ledger, used, w.binding, answer), factors.ErrOver)
	}
	if s := w.state(t, used); s.Attempts != 1 {
		t.Fatalf("answers to a used challenge were counted: %d attempts, want 1", s.Attempts)
	}
}

func nothingReadable(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	secrets := []string{right, string(w.Authenticator.Data)}
	var tables []string
	err := w.DB.SelectContext(t.Context(), &tables, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version'")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		var rows []string
		if err := w.DB.SelectContext(t.Context(), &rows, "SELECT row_to_json(r)::text || encode(convert_to(r::text, 'UTF8'), 'escape') FROM "+table+" r"); err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			for _, secret := range secrets {
				if secret != "" && containsDigits(row, secret) {
					t.Errorf("table %s holds %q in the clear", table, secret)
				}
			}
		}
	}
}

// containsDigits finds secret standing alone: six digits also turn up inside times and hashes.
func containsDigits(row, secret string) bool {
	for rest := row; ; {
		i := strings.Index(rest, secret)
		if i < 0 {
			return false
		}
		before, after := byte(' '), byte(' ')
		if i > 0 {
			before = rest[i-1]
		}
		if i+len(secret) < len(rest) {
			after = rest[i+len(secret)]
		}
		alone := func(b byte) bool { return !(b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b == '.') }
		if alone(before) && alone(after) {
			return true
		}
		rest = rest[i+1:]
	}
}

// rightFree holds the window of one address: wrong answers fill it, right ones do not, and nobody's answer is looked at once it is full.
func rightFree(t *testing.T, w *world) {
	hits := func(what string, want int) {
		t.Helper()
		var n int
		if err := w.DB.GetContext(t.Context(), &n, "SELECT cardinality(hits) FROM windows WHERE name = 'factor-source'"); err != nil || n != want {
			t.Fatalf("%s: %d hits of the address, %v; want %d", what, n, err, want)
		}
	}
	id := w.open(t, w.binding)
	w.want(t, "wrong answer", w.answer(t, w.Ledger, id, w.binding, w.Wrong), factors.ErrMismatch)
	hits("a wrong answer", 1)
	w.want(t, "right answer", w.answer(t, w.Ledger, id, w.binding, w.Right(t, id)), nil)
	hits("a right answer", 1)
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE windows SET hits = array_fill(wall(), ARRAY[30]) WHERE name = 'factor-source'"); err != nil {
		t.Fatal(err)
	}
	w.DB.Advance(t, time.Minute)
	id = w.open(t, w.binding)
	var blocked *factors.BlockedError
	if err := w.answer(t, w.Ledger, id, w.binding, w.Right(t, id)); !errors.As(err, &blocked) || blocked.Until.IsZero() {
		t.Fatalf("right answer from an address that is full: error = %v, want a BlockedError with a time", err)
	}
	hits("full", 30)
	if s := w.state(t, id); s.Attempts != 0 || s.EndedAt != nil {
		t.Fatalf("state %+v, want untouched", s)
	}
	w.DB.Advance(t, 4*time.Minute+time.Second)
	w.want(t, "right answer once there is room", w.answer(t, w.Ledger, id, w.binding, w.Right(t, id)), nil)
}

// refusalsRecorded wants a record of every answer that a limit kept from being looked at.
func refusalsRecorded(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	var blocked *factors.BlockedError
	for _, tt := range []struct{ reason, block, lift string }{
		{"blocked", "INSERT INTO streaks (scope, key, failures, blocked_until) SELECT 'factor', uuid_send(subject), 10, wall() + interval '15 minutes' FROM challenges", "DELETE FROM streaks"},
		{"source_limit", "INSERT INTO windows (name, key, hits, expires_at) VALUES ('factor-source', 'unknown', array_fill(wall(), ARRAY[30]), wall() + interval '5 minutes') ON CONFLICT (name, key) DO UPDATE SET hits = excluded.hits", "DELETE FROM windows"},
	} {
		if _, err := w.DB.ExecContext(t.Context(), tt.block); err != nil {
			t.Fatal(err)
		}
		if err := w.answer(t, w.Ledger, id, w.binding, w.Wrong); !errors.As(err, &blocked) {
			t.Fatalf("%s: error = %v, want a BlockedError", tt.reason, err)
		}
		var records []string
		if err := w.DB.SelectContext(t.Context(), &records, `SELECT outcome || ' ' || reason FROM audit_events
			WHERE event = 'challenge.answer' AND subject = $1 AND session_id = $2 AND object = $3 ORDER BY at DESC LIMIT 1`, w.binding.Subject, w.binding.Browser, id.String()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"refused " + tt.reason}, records); diff != "" {
			t.Fatalf("the newest record (-want +got):\n%s", diff)
		}
		if _, err := w.DB.ExecContext(t.Context(), tt.lift); err != nil {
			t.Fatal(err)
		}
	}
	w.want(t, "right answer afterwards", w.answer(t, w.Ledger, id, w.binding, w.Right(t, id)), nil)
	var n int
	if err := w.DB.GetContext(t.Context(), &n, "SELECT count(*) FROM audit_events WHERE event = 'challenge.answer' AND outcome = 'refused'"); err != nil || n != 2 {
		t.Fatalf("%d refusals recorded, %v; want 2", n, err)
	}
}

func threeLive(t *testing.T, w *world) {
	bindings, ids := make([]factors.Binding, 5), make([]uuid.UUID, 5)
	for i := range ids {
		bindings[i] = w.newBinding()
		ids[i] = w.open(t, bindings[i])
		w.DB.Advance(t, time.Second)
	}
	var live int
	if err := w.DB.GetContext(t.Context(), &live, "SELECT count(*) FROM challenges WHERE ended_at IS NULL"); err != nil || live != 3 {
		t.Fatalf("%d of 5 are live, %v; want 3", live, err)
	}
	// Those that are opened in one instant do not see one another.
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE challenges SET ended_at = NULL, outcome = NULL"); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		err := w.answer(t, w.Ledger, id, bindings[i], w.Wrong)
		if live := errors.Is(err, factors.ErrMismatch); live != (i >= 2) {
			t.Fatalf("challenge %d of 5: error = %v; want only the newest three live", i+1, err)
		}
	}
}

func canceled(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	q := new(postgres.Query)
	q.With("gone", "SELECT "+q.Bind(w.binding.Subject)+"::uuid AS subject")
	w.Ledger.CancelAll(q, "gone", "gone.subject")
	q.Finally("SELECT 1")
	if _, err := w.DB.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	w.want(t, "right answer after the end", w.answer(t, w.Ledger, id, w.binding, right), factors.ErrOver)
	w.ended(t, id, "canceled")
}

// ended wants one audit record of a challenge that ended without an answer.
func (w *world) ended(t *testing.T, id uuid.UUID, reason string) {
	t.Helper()
	var reasons []string
	if err := w.DB.SelectContext(t.Context(), &reasons, `SELECT reason FROM audit_events WHERE event = 'challenge.end' AND object = $1 AND subject = $2`, id.String(), w.binding.Subject); err != nil ||
		!slices.Equal(reasons, []string{reason}) {
		t.Fatalf("records of the end: %v, %v; want %s", reasons, err, reason)
	}
}

func roundTrips(t *testing.T, w *world) {
	w.DB.SetMaxOpenConns(1)
	counts := map[string]int64{}
	for range 2 { // the first time prepares the statements
		before := w.DB.RoundTrips.Load()
		id := w.open(t, w.binding)
		counts["open"] = w.DB.RoundTrips.Load() - before
		right, a := w.Right(t, id), w.read(t)
		before = w.DB.RoundTrips.Load()
		w.want(t, "right answer", w.answerWith(t, w.Ledger, id, a, w.binding, right), nil)
		counts["answer"] = w.DB.RoundTrips.Load() - before
		w.DB.Advance(t, 2*time.Hour)
	}
	if diff := cmp.Diff(map[string]int64{"open": 1, "answer": 1}, counts); diff != "" {
		t.Fatalf("round trips (-want +got):\n%s", diff)
	}
}

// checks reports whether the factor is one whose answers do not belong to one challenge: only those can be used twice.
func (w *world) checks() bool {
	f, _ := w.Ledger.Factor(w.Authenticator.Kind)
	_, checks := f.(factors.Checker)
	return checks
}

// onceEverywhere tries an answer that was used on a further challenge, for each browser, replica and purpose.
func onceEverywhere(t *testing.T, w *world) {
	if !w.checks() {
		t.Skip("codes belong to their challenge")
	}
	f, _ := w.Ledger.Factor(w.Authenticator.Kind)
	first := w.open(t, w.binding)
	right := w.Right(t, first)
	w.want(t, "right answer", w.answer(t, w.Ledger, first, w.binding, right), nil)
	for _, elsewhere := range []struct {
		what   string
		change func(*factors.Binding)
	}{
		{"another purpose", func(b *factors.Binding) { b.Purpose = factors.StepUp }}, // first: it bears fewer failures in a row
		{"the same browser", func(*factors.Binding) {}},
		{"another browser", func(b *factors.Binding) { b.Browser = uuid.New() }},
	} {
		what, b := elsewhere.what, w.binding
		elsewhere.change(&b)
		if !factors.Serves(f, b.Purpose) {
			continue
		}
		id := w.open(t, b)
		for _, l := range []*factors.Ledger{w.Ledger, w.Replica} {
			err := w.answer(t, l, id, b, right)
			w.want(t, what, err, factors.ErrMismatch)
			w.want(t, what, err, factors.ErrUsed)
		}
		if s := w.state(t, id); s.Attempts != 2 {
			t.Fatalf("%s: a used answer was not counted: %d attempts, want 2", what, s.Attempts)
		}
	}
	if n := w.effects(t); n != 1 {
		t.Fatalf("%d effects, want 1", n)
	}
}

// oneWinner posts one right answer to three challenges at once, over two replicas.
func oneWinner(t *testing.T, w *world) {
	if !w.checks() {
		t.Skip("codes belong to their challenge")
	}
	w.DB.Freeze(t)
	bindings, ids := make([]factors.Binding, 3), make([]uuid.UUID, 3)
	for i := range ids {
		bindings[i] = w.newBinding()
		ids[i] = w.open(t, bindings[i])
	}
	right, a := w.Right(t, ids[0]), w.read(t)
	won := w.race(t, 200, func(l *factors.Ledger, i int) error { return w.answerWith(t, l, ids[i/2%3], a, bindings[i/2%3], right) })
	if won != 1 || w.effects(t) != 1 {
		t.Fatalf("%d of 200 parallel posts of one answer won, with %d effects; want 1 and 1", won, w.effects(t))
	}
}

// proposed binds a further authenticator by a right answer to a challenge of purpose enrol, and by nothing else.
func proposed(t *testing.T, w *world) {
	f, _ := w.Ledger.Factor(w.Authenticator.Kind)
	if !factors.Serves(f, factors.Enrol) {
		t.Skip("bound without a proof")
	}
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET unbound_at = wall(), pending_until = wall() + interval '10 minutes'"); err != nil {
		t.Fatal(err)
	}
	id := w.open(t, w.binding)
	w.want(t, "signing in with what is not bound", w.answer(t, w.Ledger, id, w.binding, w.Right(t, id)), factors.ErrOver)
	b := w.binding
	b.Purpose = factors.Enrol
	id = w.open(t, b)
	if _, _, err := w.Ledger.Pending(t.Context(), id, w.binding); !errors.Is(err, factors.ErrOver) {
		t.Fatalf("what another binding's challenge is to bind: %v, want ErrOver", err)
	}
	pending := func(what string, want error) factors.Authenticator {
		t.Helper()
		a, state, err := w.Ledger.Pending(t.Context(), id, b)
		w.want(t, what, err, want)
		if err == nil && (a.ID != w.Authenticator.ID || state.ID != id || string(a.Data) != string(w.Authenticator.Data)) {
			t.Fatalf("%s: %v of challenge %v", what, a, state.ID)
		}
		return a
	}
	a := pending("what is to be bound", nil)
	w.want(t, "wrong answer", w.answerWith(t, w.Ledger, id, a, b, w.Wrong), factors.ErrMismatch)
	right := w.Right(t, id)
	w.DB.Advance(t, 10*time.Minute)
	pending("too late", factors.ErrOver)
	w.want(t, "right answer too late", w.answerWith(t, w.Ledger, id, a, b, right), factors.ErrOver)
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET pending_until = wall() + interval '10 minutes'"); err != nil {
		t.Fatal(err)
	}
	id = w.open(t, b)
	a, right = pending("what is to be bound", nil), w.Right(t, id)
	if won := w.race(t, 50, func(l *factors.Ledger, _ int) error { return w.answerWith(t, l, id, a, b, right) }); won != 1 { // EN-15
		t.Fatalf("%d of 50 parallel proofs bound it, want 1", won)
	}
	pending("what was bound", factors.ErrOver) // TP-6
	var records int
	if err := w.DB.GetContext(t.Context(), &records, "SELECT count(*) FROM audit_events WHERE event = 'authenticator.bind' AND actor = 'subscriber' AND object = $1", a.ID.String()); err != nil || records != 1 {
		t.Fatalf("%d records of the binding, %v; want 1", records, err)
	}
	id = w.open(t, w.binding)
	err := w.answer(t, w.Ledger, id, w.binding, right)
	w.want(t, "the answer that bound it, once more", err, factors.ErrMismatch)
	w.DB.Advance(t, time.Minute)
	id = w.open(t, w.binding)
	w.want(t, "signing in with what is bound", w.answer(t, w.Ledger, id, w.binding, w.Right(t, id)), nil)
}

func unbound(t *testing.T, w *world) {
	id := w.open(t, w.binding)
	right := w.Right(t, id)
	if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET unbound_at = wall()"); err != nil {
		t.Fatal(err)
	}
	w.want(t, "right answer for what was unbound meanwhile", w.answer(t, w.Ledger, id, w.binding, right), factors.ErrOver)
	if s := w.state(t, id); s.Attempts != 0 {
		t.Fatalf("%d attempts, want none", s.Attempts)
	}
}
