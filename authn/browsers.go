package authn

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// A remembered browser spares its person the factor in plain sign-ins, where policy says so, and does nothing else. It is no factor: the sign-in reaches
// the level of a password, and says x_browser besides. It is known by a cookie of its own, which is stored hashed and replaced at every use, and it falls by
// itself with what it was remembered under: when the password is replaced, the account shut, or any factor bound or unbound. Nobody has to think of ending it
// there, because that is part of the condition under which it stands.

// BrowserKind is the kind of the event that a remembered browser makes.
const BrowserKind = "browser"

// browserAMR says that a browser was recognised. RFC 8176 has no value for it.
const browserAMR = "x_browser"

// Remembered is a browser that stands in for its person's factor.
type Remembered struct {
	ID         uuid.UUID
	Agent      string // how the browser called itself
	CreatedAt  time.Time
	LastUsedAt time.Time
	ExpiresAt  time.Time
	This       bool // the browser that asks
}

// overlap is how long the cookie before the latest is still good: two tabs may send it at once.
const rotationOverlap = time.Minute

// browserStands is an SQL condition on a row of browsers: it was not remembered too long ago, and since then neither the password nor the account nor any factor
// of its subscriber has changed.
func browserStands(row string) string {
	return fmt.Sprintf(`%[1]s.expires_at > wall() AND %[2]s AND NOT EXISTS (
		SELECT FROM authenticators changed WHERE changed.subject = %[1]s.subscriber_id AND changed.pending_until IS NULL
		   AND (changed.bound_at > %[1]s.since OR changed.unbound_at > %[1]s.since))`, row, StandingSQL(row+".subscriber_id", row+".since"))
}

// recognised is what a cookie told of the browser that sent it.
type recognised struct {
	id     uuid.UUID
	copied bool // it was replaced a while ago: somebody has a copy
}

// recognise gives SQL for the id of the browser that cookie names among those of the subscriber, and whether the cookie is an old one.
func recognise(q *postgres.Query, subscriber string, cookie Cookie) (id, copied string) {
	if cookie == "" {
		return "NULL::uuid", "false"
	}
	hash, overlap := q.Bind(cookie.hash())+"::bytea", q.Bind(rotationOverlap.Seconds())+"::float8"
	from := fmt.Sprintf("FROM browsers b WHERE b.subscriber_id = %s AND (b.token_hash = %[2]s OR b.previous_hash = %[2]s) AND %[3]s", subscriber, hash, browserStands("b"))
	return "(SELECT b.id " + from + ")", fmt.Sprintf("coalesce((SELECT b.token_hash <> %s AND b.rotated_at < wall() - make_interval(secs => %s) %s), false)", hash, overlap, from)
}

// useBrowser adds part `browser_used` to q, with the event that says so: the browser is still remembered, for as long as part from (a session) has a row, and by
// a new cookie from now on.
func useBrowser(ctx context.Context, q *postgres.Query, from string, e Event, subscriber uuid.UUID, old, next Cookie) {
	q.With("browser_used", fmt.Sprintf(`
		UPDATE browsers SET token_hash = %s, previous_hash = token_hash, rotated_at = wall(), last_used_at = wall()
		  FROM %s WHERE browsers.id = %s AND browsers.subscriber_id = %s AND %s
		   AND (token_hash = %[6]s OR previous_hash = %[6]s AND rotated_at >= wall() - make_interval(secs => %[7]s))
		RETURNING browsers.id, %[2]s.id AS session_id`,
		q.Bind(next.hash())+"::bytea", from, q.Bind(e.AuthenticatorID)+"::uuid", q.Bind(subscriber)+"::uuid", browserStands("browsers"),
		q.Bind(old.hash())+"::bytea", q.Bind(rotationOverlap.Seconds())+"::float8"))
	q.With("session_recognised", fmt.Sprintf(`
		INSERT INTO session_events (session_id, strength, kind, amr, authenticator_id, sign_in_id)
		SELECT session_id, %d, %s, ARRAY[%s], id, %s FROM browser_used`,
		Recognised, q.Bind(BrowserKind)+"::text", q.Bind(browserAMR)+"::text", q.Bind(e.SignInID)+"::uuid"))
	audit.Record(ctx, q, "browser_used", audit.Event{Name: "browser.use", Outcome: audit.Success, Actor: "subscriber", Subject: subscriber},
		audit.Expressions{"session_id": "browser_used.session_id", "object": "browser_used.id::text"})
}

// dropCopied adds part `browser_copied`: a browser whose old cookie came back is remembered no more.
func dropCopied(ctx context.Context, q *postgres.Query, from string, id, subscriber uuid.UUID) {
	q.With("browser_copied", fmt.Sprintf("DELETE FROM browsers USING %s WHERE browsers.id = %s AND browsers.subscriber_id = %s RETURNING browsers.id",
		from, q.Bind(id)+"::uuid", q.Bind(subscriber)+"::uuid"))
	audit.Record(ctx, q, "browser_copied", audit.Event{Name: "browser.forget", Outcome: audit.Success, Reason: "copied", Actor: audit.System, Subject: subscriber},
		audit.Expressions{"object": "browser_copied.id::text"})
}

// newBrowser is a browser that is about to be remembered.
type newBrowser struct {
	id    uuid.UUID
	token Cookie
	agent []byte // sealed
}

func (s *Service) newBrowser(ctx context.Context) (b *newBrowser, err error) {
	b = &newBrowser{id: uuid.New(), token: Cookie(keyring.Token())}
	b.agent, err = s.sealAgent(ctx, "browser", b.id)
	return b, err
}

// remember adds part `browser_remembered` to q, for as long as part from (a session: id, subscriber_id, created_at) has a row. What the same browser was
// remembered by before is forgotten.
func (s *Service) remember(ctx context.Context, q *postgres.Query, from string, b *newBrowser, before Cookie) {
	q.With("browser_replaced", fmt.Sprintf("DELETE FROM browsers USING %s WHERE browsers.subscriber_id = %[1]s.subscriber_id AND browsers.token_hash = %[2]s",
		from, q.Bind(before.hash())+"::bytea"))
	q.With("browser_remembered", fmt.Sprintf(`
		INSERT INTO browsers (id, subscriber_id, token_hash, agent, since, expires_at)
		SELECT %s, subscriber_id, %s, %s, created_at, wall() + make_interval(secs => %s) FROM %s
		RETURNING id, subscriber_id`,
		q.Bind(b.id)+"::uuid", q.Bind(b.token.hash())+"::bytea", q.Bind(b.agent)+"::bytea", q.Bind(s.Config.Remember.Seconds())+"::float8", from))
	audit.Record(ctx, q, "browser_remembered", audit.Event{Name: "browser.remember", Outcome: audit.Success, Actor: "subscriber", Object: b.id.String()},
		audit.Expressions{"subject": "browser_remembered.subscriber_id", "session_id": "(SELECT id FROM " + from + ")"})
	s.Notices.Add(ctx, q, "browser_remembered", notices.Event{Kind: notices.BrowserRemembered}, notices.Expressions{"subject": "browser_remembered.subscriber_id"})
}

// maxAgent bounds what is kept of how a browser calls itself.
const maxAgent = 400

// sealAgent seals how the browser of this request calls itself, for the row of that id. nil: it does not say.
func (s *Service) sealAgent(ctx context.Context, of string, id uuid.UUID) ([]byte, error) {
	agent := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(audit.From(ctx).Agent, ""))
	if agent = agent[:min(len(agent), maxAgent)]; agent == "" {
		return nil, nil
	}
	return s.Keys.Seal([]byte(agent), "agent of "+of+" "+id.String())
}

func (s *Service) openAgent(sealed []byte, of string, id uuid.UUID) (string, error) {
	if len(sealed) == 0 {
		return "", nil
	}
	agent, err := s.Keys.Open(sealed, "agent of "+of+" "+id.String())
	return strings.ToValidUTF8(string(agent), ""), err
}
