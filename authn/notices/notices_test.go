package notices_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	phone = "+12025550143"
	other = "+12025550151"
)

type world struct {
	*authntest.World
	worker *notices.Worker
	alice  uuid.UUID
}

func newWorld(t *testing.T) *world {
	w := &world{World: authntest.New(t)}
	w.alice = w.Subscriber(t, "alice", phone)
	w.worker = w.newWorker(t, w.DB.DB)
	return w
}

func (w *world) newWorker(t *testing.T, db *postgres.DB) *notices.Worker {
	t.Helper()
	texts, err := notices.NewTexts(notices.TextsConfig{Service: "Example Service", Short: "Example", Contact: "+1 202 555 0100", Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	return &notices.Worker{
		DB: db, Keys: w.Keys, Texts: texts, SMS: &sms.Outbox{Keys: w.Keys}, Mail: &mail.Outbox{Keys: w.Keys},
		Number: w.Service.Ledger.Reach, Person: w.Service.Person, Log: slog.New(slog.DiscardHandler),
	}
}

func (w *world) phone(t *testing.T, number string) authn.Binding {
	t.Helper()
	parsed, err := sms.ParseNumber(number, "")
	if err != nil {
		t.Fatal(err)
	}
	a, unique := smsotp.Phone(uuid.Nil, parsed)
	return authn.Binding{Authenticator: a, Unique: unique}
}

// news is something that somebody was told.
type news struct{ To, Subject, Text string }

// told hands over what waits and lists all that is in the outboxes as notices, sorted by whom it goes to.
func (w *world) told(t *testing.T) (all []news) {
	t.Helper()
	if _, err := w.worker.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.outboxes(t)
}

func (w *world) outboxes(t *testing.T) (all []news) {
	t.Helper()
	var rows []struct {
		ID    uuid.UUID `db:"id"`
		Label string    `db:"label"`
		Body  []byte    `db:"body"`
	}
	if err := w.DB.SelectContext(t.Context(), &rows, `SELECT id, 'message' AS label, body FROM messages WHERE purpose = 'notice' UNION ALL SELECT id, 'mail', body FROM mails`); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		plain, err := w.Keys.Open(r.Body, r.Label+" "+r.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		var n news
		if err := json.Unmarshal(plain, &n); err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b news) int { return strings.Compare(a.To+a.Text, b.To+b.Text) })
	return all
}

func recipients(all []news) (to []string) {
	for _, n := range all {
		to = append(to, n.To)
	}
	return to
}

func (w *world) waiting(t *testing.T) (n int) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &n, `SELECT count(*) FROM notices WHERE state = 'queued'`); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNOT1(t *testing.T) {
	t.Parallel()
	address := "alice@mail.example"
	for name, tt := range map[string]struct {
		do   func(*testing.T, *world)
		want []string
		says string // in each of them
	}{
		"enrolled": {do: func(*testing.T, *world) {}},
		"a phone is added: the ways that were there are told": {
			do: func(t *testing.T, w *world) {
				if err := w.Service.Bind(t.Context(), w.alice, w.phone(t, other)); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{phone, address}, says: "The phone ending in 51 was added",
		},
		"a phone is removed: it is told too": {
			do: func(t *testing.T, w *world) {
				q := new(postgres.Query)
				q.With("gone", "UPDATE authenticators SET unbound_at = wall() WHERE subject = "+q.Bind(w.alice)+"::uuid RETURNING subject, kind, hint")
				w.Service.Notices.Add(t.Context(), q, "gone", notices.Event{Kind: notices.FactorRemoved}, notices.Expressions{"about": "gone.kind", "hint": "gone.hint"})
				q.Finally("SELECT 1 FROM gone")
				if _, err := w.DB.Run(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{phone, address}, says: "The phone ending in 43 was removed",
		},
		"EN-4 a phone is changed: both are told": {
			do: func(t *testing.T, w *world) {
				b := w.phone(t, other)
				b.Authenticator.Subject = w.alice
				q := new(postgres.Query)
				q.With("gone", "UPDATE authenticators SET unbound_at = wall() WHERE subject = "+q.Bind(w.alice)+"::uuid RETURNING subject")
				if err := w.Service.Ledger.Bind(t.Context(), q, "gone", b.Authenticator, b.Unique); err != nil {
					t.Fatal(err)
				}
				w.Service.Notices.Add(t.Context(), q, "authenticator_bound", notices.Event{Kind: notices.PhoneChanged, AlsoBound: "authenticator_bound"},
					notices.Expressions{"hint": "authenticator_bound.hint"})
				q.Finally("SELECT 1 FROM gone")
				if _, err := w.DB.Run(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{phone, other, address}, says: "changed to one ending in 51",
		},
		"another kind of factor": {
			do: func(t *testing.T, w *world) {
				w.add(t, notices.Event{Kind: notices.FactorAdded}, notices.Expressions{"about": "'totp'"})
			},
			want: []string{phone, address}, says: "An authenticator app was added",
		},
		"a factor that has no text of its own": {
			do: func(t *testing.T, w *world) {
				w.add(t, notices.Event{Kind: notices.FactorAdded}, notices.Expressions{"about": "'palm'"})
			},
			want: []string{phone, address}, says: "A new way to sign in was added",
		},
		"PWD-7 a password is set": {
			do: func(t *testing.T, w *world) {
				if err := w.Service.SetPassword(t.Context(), w.alice, "eight trombones in the sun"); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{phone, address}, says: "Your password was changed",
		},
		"the address is changed: both are told": {
			do: func(t *testing.T, w *world) {
				if err := w.Service.SetEmail(t.Context(), w.alice, "new@mail.example", true); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{phone, address, "new@mail.example"}, says: "Your email address was changed",
		},
		"the new address is nobody's yet": {
			do: func(t *testing.T, w *world) {
				if err := w.Service.SetEmail(t.Context(), w.alice, "new@mail.example", false); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{phone, address}, says: "Your email address was changed",
		},
		"the address is verified, and stays": {
			do: func(t *testing.T, w *world) {
				if err := w.Service.SetEmail(t.Context(), w.alice, address, true); err != nil {
					t.Fatal(err)
				}
			},
		},
		"BC-9 a backup code is used": {
			do: func(t *testing.T, w *world) {
				w.add(t, notices.Event{Kind: notices.BackupCodeUsed}, notices.Expressions{"hint": "'9'"})
			},
			want: []string{phone, address}, says: "A backup code was used",
		},
		"RC-13 recovery begins": {
			do:   func(t *testing.T, w *world) { w.add(t, notices.Event{Kind: notices.RecoveryStarted}, nil) },
			want: []string{phone, address}, says: "recover your account",
		},
		"a browser is remembered": {
			do:   func(t *testing.T, w *world) { w.add(t, notices.Event{Kind: notices.BrowserRemembered}, nil) },
			want: []string{phone, address}, says: "A browser was remembered",
		},
		"OT-25 codes are blocked": {
			do: func(t *testing.T, w *world) {
				for range 10 {
					w.wrongCode(t)
				}
			},
			want: []string{phone, address}, says: "Wrong security codes: none is accepted for 15 min",
		},
		"nine wrong codes are not worth a word": {
			do: func(t *testing.T, w *world) {
				for range 9 {
					w.wrongCode(t)
				}
			},
		},
		"PW-2 passwords are blocked: strangers cannot have phones texted": {
			do:   func(t *testing.T, w *world) { w.wrongPasswords(t, 10) },
			want: []string{address}, says: "Wrong passwords: none is accepted for 15 min",
		},
		"somebody who does not exist": {
			do: func(t *testing.T, w *world) {
				if err := w.Service.SetPassword(t.Context(), uuid.New(), "eight trombones in the sun"); !errors.Is(err, authn.ErrNoSubscriber) {
					t.Fatal(err)
				}
			},
		},
		"a sign-in after wrong passwords": {
			do: func(t *testing.T, w *world) {
				w.wrongPasswords(t, 5)
				w.DB.Advance(t, time.Minute) // the wait after the fifth
				w.SignIn(t, "", "alice", authntest.Beginning())
			},
			want: []string{phone, address}, says: "signed in after several wrong tries",
		},
		"a sign-in after wrong codes": {
			do: func(t *testing.T, w *world) {
				for range 5 {
					w.wrongCode(t)
				}
				w.SignIn(t, "", "alice", authntest.Beginning())
			},
			want: []string{phone, address}, says: "signed in after several wrong tries",
		},
		"a sign-in after a slip or two": {
			do: func(t *testing.T, w *world) {
				w.wrongPasswords(t, 2)
				w.wrongCode(t)
				w.SignIn(t, "", "alice", authntest.Beginning())
			},
		},
		"SND-7 the phone wants no more texts": {
			do: func(t *testing.T, w *world) {
				number, err := sms.ParseNumber(phone, "")
				if err != nil {
					t.Fatal(err)
				}
				q := new(postgres.Query)
				q.With("changed", "SELECT 1")
				w.Service.TextsStopped(t.Context(), q, "changed", number)
				q.Finally("SELECT 1 FROM changed")
				if _, err := w.DB.Run(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{address}, says: "The phone ending in 43 gets no more texts",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Subscriber(t, "bob", "+12025550199") // never told
			tt.do(t, w)
			all := w.told(t)
			if diff := cmp.Diff(tt.want, recipients(all)); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			for _, n := range all {
				if !strings.Contains(n.Text, tt.says) {
					t.Errorf("%s is told %q, want %q in it", n.To, n.Text, tt.says)
				}
				if n.Subject != "" && !strings.Contains(n.Subject, tt.says) {
					t.Errorf("%s gets a mail about %q, want %q", n.To, n.Subject, tt.says)
				}
			}
			if n := w.waiting(t); n > 0 {
				t.Errorf("%d notices wait", n)
			}
			var kept int
			if err := w.DB.GetContext(t.Context(), &kept, `SELECT count(*) FROM notices WHERE reach IS NOT NULL`); err != nil || kept > 0 {
				t.Errorf("%d numbers and profiles are kept: %v", kept, err)
			}
		})
	}
}

// add tells alice of something that nothing in this test does.
func (w *world) add(t *testing.T, e notices.Event, over notices.Expressions) {
	t.Helper()
	q := new(postgres.Query)
	q.With("happened", "SELECT "+q.Bind(w.alice)+"::uuid AS subject")
	w.Service.Notices.Add(authntest.From(t.Context(), "198.51.100.77"), q, "happened", e, over)
	q.Finally("SELECT 1 FROM happened")
	if _, err := w.DB.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
}

// wrongCode gives a wrong code for a login challenge of alice's.
func (w *world) wrongCode(t *testing.T) {
	t.Helper()
	u, err := w.Service.Find(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	w.DB.Advance(t, time.Hour) // what may be sent is no matter here
	b := factors.Binding{Purpose: factors.Login, Subject: w.alice, Browser: uuid.New(), Context: []byte("x")}
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	id, err := w.Service.Ledger.Open(t.Context(), q, "asked", u.Bound[0], b, factors.Prompt{Locale: "en"})
	if err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1 FROM challenge_opened")
	if _, err := w.DB.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	wrong := "000000"
	if w.Code(t, id) == wrong {
		wrong = "000001"
	}
	if _, err := w.Service.Ledger.Answer(t.Context(), id, u.Bound[0], b, wrong, nil); !errors.Is(err, factors.ErrMismatch) {
		t.Fatal(err)
	}
}

func (w *world) wrongPasswords(t *testing.T, n int) {
	t.Helper()
	ctx := authntest.From(t.Context(), "192.0.2.1")
	for range n {
		p, err := w.Service.Begin(ctx, "", authntest.Beginning())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Service.Password(ctx, p.Cookie, uuid.Nil, p.SignIn.ID, "alice", "not hers at all", "en"); !errors.Is(err, authn.ErrWrongPair) {
			t.Fatal(err)
		}
		w.DB.Advance(t, 40*time.Second) // waits between the later ones
	}
}

// NOT-2: what a mail says, to the letter.
func TestMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	at := w.DB.Now(t).UTC().Format("2006-01-02 15:04 MST")
	w.add(t, notices.Event{Kind: notices.BackupCodeUsed, Operator: true}, notices.Expressions{"hint": "'9'"})
	want := []news{
		{To: phone, Text: "Example: A backup code was used to sign in. Not you? Tell us: +1 202 555 0100"},
		{To: "alice@mail.example", Subject: "Example Service: A backup code was used to sign in", Text: `A backup code was used to sign in.

9 backup codes are left. If you have lost your phone, add a new one or an authenticator app as soon as you can.

When: ` + at + `
From the network: 198.51.100.0/24
By: the people who run Example Service

If this was you, there is nothing to do.

If it was not you, sign in as you always do, change your password, look at your ways to sign in, and tell us at once: +1 202 555 0100

This mail has no links on purpose. We never ask for a password or a security code by mail, text message or telephone.
`},
	}
	if diff := cmp.Diff(want, w.told(t)); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestLanguage(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	full := &world{World: w}
	full.worker = full.newWorker(t, w.DB.DB)
	var err error
	full.alice, err = w.Service.Create(t.Context(), "anna", authntest.Password, authn.Profile{"email": "anna@mail.example", "email_verified": true, "locale": "de-CH", "zoneinfo": "Europe/Zurich"})
	if err != nil {
		t.Fatal(err)
	}
	full.add(t, notices.Event{Kind: notices.PasswordChanged}, nil)
	all := full.told(t)
	if len(all) != 1 || all[0].Subject != "Example Service: Ihr Passwort wurde geändert" || !strings.Contains(all[0].Text, " CE") {
		t.Errorf("told %+v, want German and the time of Zurich", all)
	}
}

// NOT-3: the news commits with the change, or neither does.
func TestNOT3(t *testing.T) {
	t.Parallel()
	t.Run("rolled back", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		if _, err := w.DB.ExecContext(t.Context(), `ALTER TABLE notices ADD CHECK (kind <> 'password_changed')`); err != nil {
			t.Fatal(err)
		}
		before := w.hash(t)
		if err := w.Service.SetPassword(t.Context(), w.alice, "eight trombones in the sun"); err == nil {
			t.Fatal("the password is set, and nobody is told")
		}
		if w.hash(t) != before || len(w.told(t)) > 0 {
			t.Error("half of it happened")
		}
	})
	t.Run("handed over once", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		const events = 9
		for i := range events {
			w.add(t, notices.Event{Kind: notices.BackupCodeUsed}, notices.Expressions{"hint": fmt.Sprintf("'%d'", i)})
		}
		var group sync.WaitGroup
		for range 4 {
			worker := w.newWorker(t, w.DB.Open(t))
			group.Go(func() {
				if _, err := worker.Drain(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if got := len(w.outboxes(t)); got != 2*events {
			t.Errorf("%d texts and mails, want %d", got, 2*events)
		}
	})
	t.Run("killed in the middle", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.add(t, notices.Event{Kind: notices.PasswordChanged}, nil)
		ctx, kill := context.WithCancel(t.Context())
		worker, first := w.newWorker(t, w.DB.Open(t)), true
		worker.Person = func(id uuid.UUID, sealed []byte) (notices.Person, error) {
			if first { // read, and not handed over yet
				first = false
				kill()
			}
			return w.Service.Person(id, sealed)
		}
		if _, err := worker.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("Drain error = %v, want canceled", err)
		}
		if got := len(w.outboxes(t)); got != 0 {
			t.Fatalf("%d were handed over", got)
		}
		if got := len(w.told(t)); got != 2 {
			t.Errorf("%d texts and mails after it, want 2", got)
		}
	})
	t.Run("outage", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.DB.Outage(t)
		if _, err := w.worker.Drain(t.Context()); err == nil {
			t.Error("nobody noticed")
		}
	})
}

func (w *world) hash(t *testing.T) (hash string) {
	t.Helper()
	if err := w.DB.GetContext(t.Context(), &hash, `SELECT password_hash FROM subscribers WHERE id = $1`, w.alice); err != nil {
		t.Fatal(err)
	}
	return hash
}

// What cannot be opened is given up, and keeps nobody waiting.
func TestBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add(t, notices.Event{Kind: notices.PasswordChanged}, nil)
	if _, err := w.DB.ExecContext(t.Context(), `UPDATE notices SET reach = 'nonsense' WHERE channel = 'text'`); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"alice@mail.example"}, recipients(w.told(t))); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if n := w.waiting(t); n > 0 {
		t.Errorf("%d wait", n)
	}
}

// Notices must not be a way to have somebody texted without end.
func TestNumberLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 25 {
		w.add(t, notices.Event{Kind: notices.PasswordChanged}, nil)
	}
	counts := map[string]int{}
	for _, to := range recipients(w.told(t)) {
		counts[to]++
	}
	if diff := cmp.Diff(map[string]int{phone: 20, "alice@mail.example": 25}, counts); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	w.DB.Advance(t, 25*time.Hour)
	w.add(t, notices.Event{Kind: notices.PasswordChanged}, nil)
	if got := len(w.told(t)); got != 47 {
		t.Errorf("%d told the day after, want 47", got)
	}
}

// NOT-2, UX: all that people may be told, in every language, fits and asks for nothing.
func TestTexts(t *testing.T) {
	t.Parallel()
	contact := strings.Repeat("8", notices.MaxContact)
	for _, who := range []string{contact, ""} {
		texts, err := notices.NewTexts(notices.TextsConfig{Service: "A Service of Some Name", Short: strings.Repeat("W", 20), Contact: who, Locale: "en"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"ar", "de", "en", "es", "fr", "hi", "it", "pt"}, texts.Locales()); diff != "" {
			t.Fatalf("languages (-want +got):\n%s", diff)
		}
		at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
		for _, locale := range texts.Locales() {
			for _, kind := range notices.Kinds() {
				for _, about := range []string{"", "sms", "totp"} {
					n := &notices.Notice{Kind: kind, About: about, Hint: "42", At: at, Until: at.Add(2 * time.Hour), Source: "192.0.2.0/24", Operator: true}
					text, used := texts.Text(n, locale)
					subject, body, _ := texts.Mail(n, locale, nil)
					if used != locale || !sms.Fits(text) {
						t.Errorf("%s %s in %s is too long, or in %s: %q", kind, about, locale, used, text)
					}
					if strings.ContainsAny(subject, "\r\n") {
						t.Errorf("%s in %s: subject %q", kind, locale, subject)
					}
					for _, said := range []string{text, subject, body} {
						for _, wrong := range []string{"://", "www.", "<no value>", "{{", "  "} {
							if strings.Contains(said, wrong) {
								t.Errorf("%s in %s holds %q: %q", kind, locale, wrong, said)
							}
						}
						for _, word := range []string{"OTP", "2FA", "MFA", "token", "invalid", "credentials", "please", "oops", "!"} {
							if strings.Contains(strings.ToLower(said), strings.ToLower(word)) {
								t.Errorf("%s in %s has the word %q: %q", kind, locale, word, said)
							}
						}
					}
					if who != "" && (!strings.Contains(text, who) || !strings.Contains(body, who)) {
						t.Errorf("%s in %s does not say whom to tell: %q", kind, locale, text)
					}
				}
			}
		}
	}
}

// Every language has every text.
func TestCatalogues(t *testing.T) {
	t.Parallel()
	ids := func(locale string) (all []string) {
		var catalogue map[string]struct{ Other string }
		if _, err := toml.DecodeFile("locales/"+locale+".toml", &catalogue); err != nil {
			t.Fatal(err)
		}
		for id, m := range catalogue {
			if m.Other == "" {
				t.Errorf("%s in %s is empty", id, locale)
			}
			all = append(all, id)
		}
		slices.Sort(all)
		return all
	}
	want := ids("en")
	for _, kind := range notices.Kinds() {
		if !slices.Contains(want, string(kind)) {
			t.Errorf("%s has no text", kind)
		}
	}
	for _, locale := range []string{"ar", "de", "es", "fr", "hi", "it", "pt"} {
		if diff := cmp.Diff(want, ids(locale)); diff != "" {
			t.Errorf("texts of %s (-en +%[1]s):\n%s", locale, diff)
		}
	}
}

func TestContact(t *testing.T) {
	t.Parallel()
	for contact, good := range map[string]bool{
		"": true, "+1 202 555 0100": true, "help@example.com": true, "https://example.com": false, "www.example.com": false, "example.com/help": false, strings.Repeat("8", 25): false, "a\nb": false, "тел 5": false,
	} {
		if _, err := notices.NewTexts(notices.TextsConfig{Service: "Example", Short: "Example", Contact: contact}); (err == nil) != good {
			t.Errorf("contact %q: %v", contact, err)
		}
	}
}

// Whoever is told by nobody costs nothing.
func TestNobodyTold(t *testing.T) {
	t.Parallel()
	for _, n := range []*notices.Notices{nil, {}} {
		q := new(postgres.Query)
		n.Add(t.Context(), q, "changed", notices.Event{Kind: notices.PasswordChanged}, nil)
		q.Finally("SELECT 1")
		if q.String() != "SELECT 1" {
			t.Errorf("statement %q, want none of it", q)
		}
	}
}
