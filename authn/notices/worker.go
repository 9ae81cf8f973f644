package notices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/limits"
	mails "github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Bounds of the worker.
const (
	// batch is how many notices are looked at together.
	batch = 32
	// fallback is how often a worker looks without having been told.
	fallback = 5 * time.Second
	// life of a text: phones that are off are told later.
	life = 24 * time.Hour
)

// numberDay bounds the notices that one number is texted: whoever can cause them must not be able to make them expensive. Mails go on.
var numberDay = limits.Window{Name: "notice-number-day", Burst: 20, Period: 24 * time.Hour}

// Person is what a profile says about how somebody is told.
type Person struct {
	Address mails.Address // verified; zero: none
	Locale  string        // BCP 47; "": not known
	Zone    string        // of the IANA database; "": not known
}

// Worker words notices and hands them to the outboxes. Any number of them, in any number of processes, may serve one table.
type Worker struct {
	DB    *postgres.DB
	Keys  sms.Keys
	Texts *Texts
	SMS   *sms.Outbox
	Mail  *mails.Outbox
	// Number opens the number of an authenticator whose data is given as it was stored.
	Number func(id uuid.UUID, kind string, sealed []byte) (sms.Number, error)
	// Person opens a profile as it was stored.
	Person func(id uuid.UUID, sealed []byte) (Person, error)
	Log    *slog.Logger
}

// row is a notice that waits.
type row struct {
	ID              uuid.UUID  `db:"id"`
	CreatedAt       time.Time  `db:"created_at"`
	SubscriberID    uuid.UUID  `db:"subscriber_id"`
	Kind            Kind       `db:"kind"`
	Channel         string     `db:"channel"`
	AuthenticatorID *uuid.UUID `db:"authenticator_id"`
	Factor          *string    `db:"factor"`
	Reach           []byte     `db:"reach"`
	Operator        bool       `db:"operator"`
	Source          string     `db:"source"`
	About           string     `db:"about"`
	Hint            string     `db:"hint"`
	Until           *time.Time `db:"until"`
	Profile         []byte     `db:"profile"` // as it is now
}

// Run hands notices over until ctx ends.
func (w *Worker) Run(ctx context.Context) error {
	err := postgres.NewBell().Answer(ctx, w.DB, channel, fallback, func() {
		if _, err := w.Drain(ctx); err != nil && ctx.Err() == nil {
			w.Log.ErrorContext(ctx, "notices wait", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("listen for notices: %w", err)
	}
	return nil
}

// Drain hands over what waits and says how many it looked at.
func (w *Worker) Drain(ctx context.Context) (int, error) {
	for all := 0; ; {
		n, err := w.round(ctx)
		if all += n; err != nil || n < batch {
			return all, err
		}
	}
}

func (w *Worker) round(ctx context.Context) (int, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`
		SELECT n.id, n.created_at, n.subscriber_id, n.kind, n.channel, n.authenticator_id, n.factor, n.reach, n.operator, n.source, n.about, n.hint, n.until, u.profile
		  FROM notices n LEFT JOIN subscribers u ON u.id = n.subscriber_id WHERE n.state = 'queued' ORDER BY n.created_at LIMIT %s`, q.Bind(batch)+"::int"))
	var waiting []row
	if err := w.DB.Select(ctx, &waiting, q); err != nil {
		return 0, fmt.Errorf("read notices: %w", err)
	}
	var problems []error
	for i := range waiting {
		if err := w.hand(ctx, &waiting[i]); err != nil { // it waits, and keeps nobody else waiting
			problems = append(problems, fmt.Errorf("hand over notice %s: %w", waiting[i].ID, err))
		}
	}
	return len(waiting), errors.Join(problems...)
}

// errNobody: there is no way to this person.
var errNobody = errors.New("notices: no verified address")

// hand gives one notice to its outbox, in the statement that marks it. Of several workers who try one does.
func (w *Worker) hand(ctx context.Context, r *row) error {
	q := new(postgres.Query)
	q.With("due", fmt.Sprintf("SELECT id, created_at FROM notices WHERE id = %s AND created_at = %s AND state = 'queued' FOR UPDATE", q.Bind(r.ID)+"::uuid", q.Bind(r.CreatedAt)+"::timestamptz"))
	err := w.word(q, r)
	if err != nil {
		if !errors.Is(err, errNobody) {
			w.Log.ErrorContext(ctx, "notice cannot be handed over", "notice_id", r.ID, "kind", r.Kind, "channel", r.Channel, "error", err)
		}
		q = new(postgres.Query)
		q.Finally(fmt.Sprintf("UPDATE notices SET state = 'failed', reach = NULL WHERE id = %s AND created_at = %s AND state = 'queued'", q.Bind(r.ID)+"::uuid", q.Bind(r.CreatedAt)+"::timestamptz"))
	}
	_, err = w.DB.Run(ctx, q)
	return err
}

// word adds to q what follows part `due`.
func (w *Worker) word(q *postgres.Query, r *row) error {
	now, err := w.person(r.SubscriberID, r.Profile)
	if err != nil {
		return err
	}
	n := &Notice{Kind: r.Kind, About: r.About, Hint: r.Hint, Operator: r.Operator, Source: r.Source, At: r.CreatedAt}
	if r.Until != nil {
		n.Until = *r.Until
	}
	mark := func(state string) {
		q.With("taken", fmt.Sprintf("UPDATE notices n SET state = %s, reach = NULL FROM due WHERE n.id = due.id AND n.created_at = due.created_at RETURNING n.id, n.state", state))
		q.With("handed", "SELECT id FROM taken WHERE state = 'handed'")
		q.Finally("SELECT 1 FROM taken")
	}
	if r.Channel == mail {
		told, err := w.person(r.SubscriberID, r.Reach)
		switch {
		case err != nil:
			return err
		case w.Mail == nil || told.Address == (mails.Address{}):
			return errNobody
		}
		zone, err := time.LoadLocation(now.Zone)
		if err != nil {
			zone = time.UTC
		}
		mark("'handed'")
		subject, body, locale := w.Texts.Mail(n, now.Locale, zone)
		return w.Mail.Enqueue(q, mails.Message{ID: r.ID, To: told.Address, Purpose: string(r.Kind), Locale: locale, Subject: subject, Text: body}, "handed")
	}
	if r.AuthenticatorID == nil || r.Factor == nil {
		return errors.New("notices: no authenticator")
	}
	number, err := w.Number(*r.AuthenticatorID, *r.Factor, r.Reach)
	if err != nil {
		return err
	}
	limits.Take(q, "due", limits.Hit{Window: numberDay, Key: w.Keys.Fingerprint("notice number", number.Reveal())})
	mark("CASE WHEN (SELECT allowed FROM limit_taken) THEN 'handed' ELSE 'failed' END")
	body, locale := w.Texts.Text(n, now.Locale)
	return w.SMS.Enqueue(q, sms.Message{ID: r.ID, To: number, Purpose: sms.Notice, Locale: locale, Text: body, Life: life}, "handed")
}

// person opens a profile; nobody's is empty.
func (w *Worker) person(id uuid.UUID, sealed []byte) (Person, error) {
	if sealed == nil {
		return Person{}, nil
	}
	return w.Person(id, sealed)
}
