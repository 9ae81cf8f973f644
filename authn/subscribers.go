package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// Errors of the directory of subscribers.
var (
	// ErrNoSubscriber: nobody has that id or name.
	ErrNoSubscriber = errors.New("authn: no such subscriber")
	// ErrTaken: somebody else signs in under one of these names. Choose another.
	ErrTaken = errors.New("authn: name is taken")
)

// Subscriber is a person who is enrolled.
type Subscriber struct {
	ID         uuid.UUID
	Subject    string // sub: the name applications know
	Username   string
	Profile    Profile // OpenID Connect Core 5.1 standard claims
	Groups     []string
	CreatedAt  time.Time
	DisabledAt *time.Time
	HasSecret  bool // a password is set
	Bound      []factors.Authenticator
}

// Create enrols a subscriber who signs in under username, and under the profile's verified e-mail address if it has one. password may be empty: nobody can sign
// in then until one is set. bound are authenticators with the form that may be looked up.
func (s *Service) Create(ctx context.Context, username, password string, profile Profile, bound ...Binding) (uuid.UUID, error) {
	id := uuid.New()
	names, err := s.names(username, profile)
	if err != nil {
		return uuid.Nil, err
	}
	sealed, err := s.sealProfile(id, profile)
	if err != nil {
		return uuid.Nil, err
	}
	var hash any
	if password != "" {
		if hash, err = s.Passwords.Hash(ctx, password); err != nil {
			return uuid.Nil, err
		}
	}
	q := new(postgres.Query)
	q.With("created", fmt.Sprintf(`
		INSERT INTO subscribers (id, username, password_hash, password_changed_at, profile)
		SELECT %s, %s, h, CASE WHEN h IS NOT NULL THEN wall() END, %s FROM (SELECT %s AS h) AS given RETURNING id`,
		q.Bind(id)+"::uuid", q.Bind(strings.TrimSpace(username))+"::text", q.Bind(sealed)+"::bytea", q.Bind(hash)+"::text"))
	q.With("named", fmt.Sprintf("INSERT INTO identifiers (fingerprint, subscriber_id) SELECT n, id FROM created, unnest(%s::bytea[]) n", q.Bind(pq.Array(names))))
	audit.Record(ctx, q, "created", audit.Event{Name: "subscriber.create", Outcome: audit.Success, Actor: audit.Operator, Subject: id}, nil)
	if len(bound) > 0 { // one statement names its parts once: the others follow it
		bound[0].Authenticator.Subject = id
		if err := s.Ledger.Bind(ctx, q, "created", bound[0].Authenticator, bound[0].Unique); err != nil {
			return uuid.Nil, err
		}
	}
	q.Finally("SELECT id FROM created")
	var got uuid.UUID
	if err := s.DB.Get(ctx, &got, q); pq.As(err, pqerror.UniqueViolation) != nil {
		return uuid.Nil, ErrTaken
	} else if err != nil {
		return uuid.Nil, fmt.Errorf("create subscriber: %w", err)
	}
	for _, b := range bound[min(1, len(bound)):] {
		if err := s.Bind(ctx, id, b); err != nil {
			return id, err
		}
	}
	return id, nil
}

// Binding is an authenticator to bind, with the form of it that may be looked up.
type Binding struct {
	Authenticator factors.Authenticator
	Unique        string
}

// Bind binds an authenticator to a subscriber. It is the operator's door: no proof of possession is asked.
func (s *Service) Bind(ctx context.Context, id uuid.UUID, b Binding) error {
	b.Authenticator.Subject = id
	q := new(postgres.Query)
	q.With("holder", "SELECT id FROM subscribers WHERE id = "+q.Bind(id)+"::uuid")
	if err := s.Ledger.Bind(ctx, q, "holder", b.Authenticator, b.Unique); err != nil {
		return err
	}
	s.tellBound(ctx, q, b.Authenticator, "authenticator_bound", true)
	q.Finally("SELECT 1 FROM authenticator_bound")
	return s.one(ctx, q, "bind authenticator")
}

// Find reads a subscriber by id, by sub or by any name.
func (s *Service) Find(ctx context.Context, idOrName string) (*Subscriber, error) {
	q := new(postgres.Query)
	var where string
	if id, err := uuid.Parse(idOrName); err == nil {
		where = "u.id = " + q.Bind(id) + "::uuid OR u.subject = " + q.Bind(id.String()) + "::text"
	} else {
		canonical, err := Canonical(idOrName)
		if err != nil {
			return nil, ErrNoSubscriber
		}
		where = "u.id = (SELECT subscriber_id FROM identifiers WHERE fingerprint = " + q.Bind(s.Keys.Fingerprint("identifier", canonical)) + "::bytea)"
	}
	list, err := s.subscribers(ctx, q, where, 1)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrNoSubscriber
	}
	return list[0], nil
}

// List reads up to limit subscribers by user name, after the one named.
func (s *Service) List(ctx context.Context, after string, limit int) ([]*Subscriber, error) {
	q := new(postgres.Query)
	return s.subscribers(ctx, q, "u.username > "+q.Bind(after)+"::text", limit)
}

func (s *Service) subscribers(ctx context.Context, q *postgres.Query, where string, limit int) ([]*Subscriber, error) {
	q.Finally(fmt.Sprintf(`SELECT u.id, u.subject, u.username, u.profile, u.groups, u.created_at, u.disabled_at, u.password_hash IS NOT NULL AS has_secret, %s AS bound
		FROM subscribers u WHERE %s ORDER BY u.username, u.id LIMIT %s`, factors.BoundSQL("u.id"), where, q.Bind(limit)+"::int"))
	var rows []struct {
		ID         uuid.UUID      `db:"id"`
		Subject    string         `db:"subject"`
		Username   string         `db:"username"`
		Profile    []byte         `db:"profile"`
		Groups     pq.StringArray `db:"groups"`
		CreatedAt  time.Time      `db:"created_at"`
		DisabledAt *time.Time     `db:"disabled_at"`
		HasSecret  bool           `db:"has_secret"`
		Bound      []byte         `db:"bound"`
	}
	if err := s.DB.Select(ctx, &rows, q); err != nil {
		return nil, fmt.Errorf("read subscribers: %w", err)
	}
	list := make([]*Subscriber, len(rows))
	for i, row := range rows {
		profile, err := s.openProfile(row.ID, row.Profile)
		if err != nil {
			return nil, err
		}
		bound, err := s.Ledger.DecodeBound(row.Bound)
		if err != nil {
			return nil, err
		}
		list[i] = &Subscriber{ID: row.ID, Subject: row.Subject, Username: row.Username, Profile: profile, Groups: row.Groups, CreatedAt: row.CreatedAt, DisabledAt: row.DisabledAt,
			HasSecret: row.HasSecret, Bound: bound}
	}
	return list, nil
}

// ProfileOf reads the standard claims of a subscriber, who must be enabled; else [ErrNoSubscriber].
func (s *Service) ProfileOf(ctx context.Context, id uuid.UUID) (Profile, error) {
	q := new(postgres.Query)
	q.Finally("SELECT profile, updated_at FROM subscribers WHERE disabled_at IS NULL AND id = " + q.Bind(id) + "::uuid")
	var row struct {
		Sealed    []byte    `db:"profile"`
		UpdatedAt time.Time `db:"updated_at"`
	}
	if err := s.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrNoSubscriber
	} else if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	profile, err := s.openProfile(id, row.Sealed)
	if profile != nil {
		profile["updated_at"] = row.UpdatedAt.Unix() // OpenID Connect Core section 5.1: a number
	}
	return profile, err
}

// SetPassword replaces the password of a subscriber and ends all sessions and grants: whoever knew the old one is out.
func (s *Service) SetPassword(ctx context.Context, id uuid.UUID, password string) error {
	hash, err := s.Passwords.Hash(ctx, password)
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	s.hold(q, id)
	q.With("changed", fmt.Sprintf("UPDATE subscribers u SET password_hash = %s, password_changed_at = wall(), not_before = %s, updated_at = wall() FROM held WHERE u.id = held.id RETURNING u.id",
		q.Bind(hash)+"::text", momentSQL))
	s.Notices.Add(ctx, q, "changed", notices.Event{Kind: notices.PasswordChanged, Operator: true}, notices.Expressions{"subject": "changed.id"})
	return s.endAll(ctx, q, id, "password.set", "password_changed")
}

// SetEmail replaces the address of a subscriber, or takes it away when it is empty. verified says that it is known to be theirs: they may sign in with it, and are told
// there what happens to their account. The old address and the new one are told of the change. [ErrTaken]: somebody else signs in under it.
func (s *Service) SetEmail(ctx context.Context, id uuid.UUID, address string, verified bool) error {
	for range 8 { // the profile is sealed, so that it is read before it is written; whoever else writes it goes first
		done, err := s.setEmail(ctx, id, address, verified)
		if err != nil || done {
			return err
		}
	}
	return errors.New("set address: the profile changes all the time")
}

func (s *Service) setEmail(ctx context.Context, id uuid.UUID, address string, verified bool) (done bool, err error) {
	q := new(postgres.Query)
	q.Finally("SELECT username, profile FROM subscribers WHERE id = " + q.Bind(id) + "::uuid")
	var was struct {
		Username string `db:"username"`
		Profile  []byte `db:"profile"`
	}
	if err := s.DB.Get(ctx, &was, q); errors.Is(err, postgres.ErrNotFound) {
		return false, ErrNoSubscriber
	} else if err != nil {
		return false, fmt.Errorf("read profile: %w", err)
	}
	profile, err := s.openProfile(id, was.Profile)
	if err != nil {
		return false, err
	}
	old, _ := profile["email"].(string)
	delete(profile, "email")
	delete(profile, "email_verified")
	if address != "" {
		profile["email"], profile["email_verified"] = address, verified
	}
	names, err := s.names(was.Username, profile)
	if err != nil {
		return false, err
	}
	sealed, err := s.sealProfile(id, profile)
	if err != nil {
		return false, err
	}
	q = new(postgres.Query)
	given := q.Bind(pq.Array(names)) + "::bytea[]"
	q.With("changed", fmt.Sprintf("UPDATE subscribers SET profile = %s, updated_at = wall() WHERE id = %s AND profile = %s RETURNING id, profile",
		q.Bind(sealed)+"::bytea", q.Bind(id)+"::uuid", q.Bind(was.Profile)+"::bytea"))
	q.With("unnamed", fmt.Sprintf("DELETE FROM identifiers i USING changed WHERE i.subscriber_id = changed.id AND i.fingerprint <> ALL(%s)", given))
	q.With("named", fmt.Sprintf(`INSERT INTO identifiers (fingerprint, subscriber_id) SELECT n, changed.id FROM changed, unnest(%s) n
		 WHERE NOT EXISTS (SELECT FROM identifiers i WHERE i.subscriber_id = changed.id AND i.fingerprint = n)`, given))
	audit.Record(ctx, q, "changed", audit.Event{Name: "email.set", Outcome: audit.Success, Actor: "operator", Subject: id}, nil)
	if address != old {
		s.Notices.Add(ctx, q, "changed", notices.Event{Kind: notices.EmailChanged, Operator: true, AlsoProfile: "changed"}, notices.Expressions{"subject": "changed.id"})
	}
	q.Finally("SELECT 1 FROM changed")
	n, err := s.DB.Run(ctx, q)
	if pq.As(err, pqerror.UniqueViolation) != nil {
		return false, ErrTaken
	}
	if err != nil {
		return false, fmt.Errorf("set address: %w", err)
	}
	return n > 0, nil
}

// Person is what a stored profile says about how its owner is told. It is what a notices.Worker asks for.
func (s *Service) Person(id uuid.UUID, sealed []byte) (notices.Person, error) {
	profile, err := s.openProfile(id, sealed)
	if err != nil {
		return notices.Person{}, err
	}
	var p notices.Person
	p.Locale, _ = profile["locale"].(string)
	p.Zone, _ = profile["zoneinfo"].(string)
	if verified, _ := profile["email_verified"].(bool); verified {
		address, _ := profile["email"].(string)
		if p.Address, err = mail.ParseAddress(address); err != nil {
			return notices.Person{}, err
		}
	}
	return p, nil
}

// TextsStopped adds to q what is told of a phone whose number wants no more texts: part from has a row if that is new.
func (s *Service) TextsStopped(ctx context.Context, q *postgres.Query, from string, number sms.Number) {
	q.With("texts_stopped_of", fmt.Sprintf("SELECT h.subject, h.hint FROM %s CROSS JOIN LATERAL (%s) h", from, s.Ledger.HoldersSQL(q, number)))
	s.Notices.Add(ctx, q, "texts_stopped_of", notices.Event{Kind: notices.TextsStopped, MailOnly: true}, notices.Expressions{"hint": "texts_stopped_of.hint"})
}

// TextsRefused is [Service.TextsStopped] for what a vendor tells by refusing a message: part from has id and challenge_id of messages to numbers that want no more texts,
// each for a challenge or from a notice.
func (s *Service) TextsRefused(ctx context.Context, q *postgres.Query, from string) {
	q.With("texts_stopped_of", fmt.Sprintf("SELECT DISTINCT h.subject, h.hint FROM %[1]s CROSS JOIN LATERAL (%[2]s) h", from,
		s.Ledger.SharersSQL(q, from+".challenge_id", "(SELECT told.authenticator_id FROM notices told WHERE told.id = "+from+".id)")))
	s.Notices.Add(ctx, q, "texts_stopped_of", notices.Event{Kind: notices.TextsStopped, MailOnly: true}, notices.Expressions{"hint": "texts_stopped_of.hint"})
}

// Disable keeps a subscriber out from now on, everywhere: sessions and challenges end, and nothing that was given to applications is
// good any more, not even after [Service.Enable].
func (s *Service) Disable(ctx context.Context, id uuid.UUID) error {
	q := new(postgres.Query)
	s.hold(q, id)
	q.With("changed", "UPDATE subscribers u SET disabled_at = coalesce(disabled_at, wall()), not_before = "+momentSQL+", updated_at = wall() FROM held WHERE u.id = held.id RETURNING u.id")
	return s.endAll(ctx, q, id, "subscriber.disable", "disabled")
}

// Enable lets a disabled subscriber sign in again. It revives nothing that was given before.
func (s *Service) Enable(ctx context.Context, id uuid.UUID) error {
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("UPDATE subscribers SET disabled_at = NULL, updated_at = wall() WHERE id = %s RETURNING id", q.Bind(id)+"::uuid"))
	audit.Record(ctx, q, "changed", audit.Event{Name: "subscriber.enable", Outcome: audit.Success, Actor: audit.Operator, Subject: id}, nil)
	q.Finally("SELECT 1 FROM changed")
	return s.one(ctx, q, "enable subscriber")
}

// SetGroups replaces the groups that a subscriber is in, for policy. It holds from the next decision on; what applications were given stays.
func (s *Service) SetGroups(ctx context.Context, id uuid.UUID, groups []string) error {
	for _, name := range groups {
		if err := CheckGroup(name); err != nil {
			return err
		}
	}
	groups = slices.Compact(slices.Sorted(slices.Values(groups)))
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf("UPDATE subscribers SET groups = coalesce(%s, '{}'), updated_at = wall() WHERE id = %s RETURNING id", q.Bind(pq.Array(groups))+"::text[]", q.Bind(id)+"::uuid"))
	audit.Record(ctx, q, "changed", audit.Event{Name: "subscriber.groups", Outcome: audit.Success, Actor: "operator", Subject: id, Object: strings.Join(groups, " ")}, nil)
	q.Finally("SELECT 1 FROM changed")
	return s.one(ctx, q, "set groups")
}

// Unlock forgets the failures in a row of a subscriber's password and factors.
func (s *Service) Unlock(ctx context.Context, id uuid.UUID) error {
	q := new(postgres.Query)
	q.With("holder", "SELECT id FROM subscribers WHERE id = "+q.Bind(id)+"::uuid")
	s.Config.Failures.Clear(q, "holder", "uuid_send(holder.id)")
	s.Ledger.Unlock(q, "holder", "uuid_send(holder.id)")
	audit.Record(ctx, q, "holder", audit.Event{Name: "subscriber.unlock", Outcome: audit.Success, Actor: audit.Operator, Subject: id}, nil)
	q.Finally("SELECT 1 FROM holder")
	return s.one(ctx, q, "unlock subscriber")
}

// hold adds part `held`: the subscriber, once no sign-in that is under way holds the row any more. What such a sign-in gave is older than
// [momentSQL] in a part that selects from this one.
func (s *Service) hold(q *postgres.Query, id uuid.UUID) {
	q.With("held", "SELECT id FROM subscribers WHERE id = "+q.Bind(id)+"::uuid FOR NO KEY UPDATE")
}

// endAll ends everything that a subscriber has open, with the change that part `changed` makes.
func (s *Service) endAll(ctx context.Context, q *postgres.Query, id uuid.UUID, event, reason string) error {
	q.With("session_ended", fmt.Sprintf(`UPDATE sessions SET ended_at = wall(), end_reason = %s FROM changed
		WHERE sessions.subscriber_id = changed.id AND ended_at IS NULL RETURNING sessions.id`, q.Bind(reason)+"::text"))
	s.Ledger.CancelAll(q, "changed", "changed.id")
	audit.Record(ctx, q, "changed", audit.Event{Name: event, Outcome: audit.Success, Actor: audit.Operator, Subject: id}, nil)
	q.Finally("SELECT 1 FROM changed")
	return s.one(ctx, q, event)
}

// one runs q, which changes one subscriber or finds none.
func (s *Service) one(ctx context.Context, q *postgres.Query, what string) error {
	switch n, err := s.DB.Run(ctx, q); {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case n == 0:
		return ErrNoSubscriber
	}
	return nil
}

// names are the fingerprints under which a subscriber is found.
func (s *Service) names(username string, profile Profile) ([][]byte, error) {
	canonical, err := Canonical(username)
	if err != nil {
		return nil, err
	}
	names := [][]byte{s.Keys.Fingerprint("identifier", canonical)}
	email, _ := profile["email"].(string)
	if verified, _ := profile["email_verified"].(bool); email != "" && verified {
		address, err := Canonical(email)
		if err != nil {
			return nil, err
		}
		if address != canonical {
			names = append(names, s.Keys.Fingerprint("identifier", address))
		}
	}
	return names, nil
}

func (s *Service) sealProfile(id uuid.UUID, profile Profile) ([]byte, error) {
	if profile == nil {
		profile = Profile{}
	}
	data, err := json.Marshal(profile)
	if err != nil {
		return nil, err
	}
	return s.Keys.Seal(data, "profile "+id.String())
}

func (s *Service) openProfile(id uuid.UUID, sealed []byte) (Profile, error) {
	data, err := s.Keys.Open(sealed, "profile "+id.String())
	if err != nil {
		return nil, err
	}
	return decode[Profile](data)
}
