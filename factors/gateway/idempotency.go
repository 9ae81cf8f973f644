package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// How long an answer is kept, and how long a request may be at it before another may take its place: longer than any request lives.
const (
	keepAnswers = "interval '24 hours'"
	giveUp      = "interval '30 seconds'"
)

// claim is a request that may be repeated. A nil one may not.
type claim struct {
	tenant uuid.UUID
	key    []byte
	owner  uuid.UUID
}

// stored is an answer that is given again.
type stored struct {
	Status  int      `json:"-"`
	Body    string   `json:"body,omitempty"`    // as it was sent
	Created *created `json:"created,omitempty"` // of a new verification: the rest is in the request, which is the same
	Left    *int     `json:"left,omitempty"`    // of a right code
	Resent  bool     `json:"resent,omitempty"`  // another text went out; until the whole answer takes its place
}

// resentAnswer is the answer that a text leaves that goes out again, as an SQL expression.
const resentAnswer = `'{"resent": true}'::jsonb`

// begin claims a request for this process, or gives the answer that it had. route and request are what has to be the same for it to be the same request.
func (g *Gateway) begin(ctx context.Context, c *Caller, key, route string, request []byte) (*claim, *stored, error) {
	body := sha256.Sum256(request)
	name := sha256.Sum256([]byte(fmt.Sprintf("%s\x00%s\x00%s", c.purpose(), route, key)))
	own := &claim{tenant: c.Tenant.ID, key: name[:], owner: uuid.New()}
	q := new(postgres.Query)
	c.standing(q)
	tenant, hash := q.Bind(own.tenant)+"::uuid", q.Bind(own.key)+"::bytea"
	q.With("begun", fmt.Sprintf(`
		INSERT INTO idempotency_keys AS k (tenant_id, key, request, owner) SELECT %s, %s, %s, %s FROM caller
		ON CONFLICT (tenant_id, key) DO UPDATE SET request = excluded.request, owner = excluded.owner, started_at = wall(), status = NULL, answer = NULL
		 WHERE k.started_at <= wall() - %s OR k.status IS NULL AND k.request = excluded.request AND k.started_at <= wall() - %s
		RETURNING owner`, tenant, hash, q.Bind(body[:])+"::bytea", q.Bind(own.owner)+"::uuid", keepAnswers, giveUp))
	q.Finally(fmt.Sprintf(`SELECT EXISTS (SELECT FROM caller) AS standing, EXISTS (SELECT FROM begun) AS mine, coalesce(p.request = %s, true) AS same, p.status, p.answer
		FROM (SELECT 1) one LEFT JOIN idempotency_keys p ON p.tenant_id = %s AND p.key = %s AND p.started_at > wall() - %s`, q.Bind(body[:])+"::bytea", tenant, hash, keepAnswers))
	var got struct {
		Standing bool   `db:"standing"`
		Mine     bool   `db:"mine"`
		Same     bool   `db:"same"`
		Status   *int   `db:"status"`
		Answer   []byte `db:"answer"`
	}
	if err := g.DB.Get(ctx, &got, q); err != nil {
		return nil, nil, fmt.Errorf("claim request: %w", err)
	}
	switch {
	case !got.Standing:
		return nil, nil, g.fallen(c)
	case got.Mine:
		return own, nil, nil
	case !got.Same:
		return nil, nil, problem(KeyReused)
	case got.Status == nil: // or just begun by another: this snapshot does not show it
		return nil, nil, problem(RequestInProgress).wait(time.Second)
	}
	s := &stored{Status: *got.Status}
	if err := json.Unmarshal(got.Answer, s); err != nil {
		return nil, nil, fmt.Errorf("stored answer: %w", err)
	}
	return nil, s, nil
}

// held is what a statement's first part selects from besides: nothing happens if the claim is another's by now.
func (k *claim) held(q *postgres.Query) string {
	if k == nil {
		return ""
	}
	q.With("claimed", fmt.Sprintf("SELECT owner FROM idempotency_keys WHERE tenant_id = %s AND key = %s AND owner = %s AND status IS NULL FOR UPDATE",
		q.Bind(k.tenant)+"::uuid", q.Bind(k.key)+"::bytea", q.Bind(k.owner)+"::uuid"))
	return ", claimed"
}

// settle stores the answer, an SQL expression of type jsonb over part from, in the statement that part from is of, as long as that has a row.
func (k *claim) settle(q *postgres.Query, from string, status int, answer string) {
	if k == nil {
		return
	}
	q.With("answered", fmt.Sprintf("UPDATE idempotency_keys k SET status = %s, answer = %s FROM %s WHERE k.tenant_id = %s AND k.key = %s AND k.owner = %s",
		q.Bind(status)+"::int", answer, from, q.Bind(k.tenant)+"::uuid", q.Bind(k.key)+"::bytea", q.Bind(k.owner)+"::uuid"))
}

// finish stores an answer after the fact; status 0: there is none, and the request may be made again.
func (g *Gateway) finish(ctx context.Context, k *claim, status int, body []byte) error {
	if k == nil {
		return nil
	}
	q := new(postgres.Query)
	mine := fmt.Sprintf("tenant_id = %s AND key = %s AND owner = %s", q.Bind(k.tenant)+"::uuid", q.Bind(k.key)+"::bytea", q.Bind(k.owner)+"::uuid")
	if status == 0 {
		q.Finally("DELETE FROM idempotency_keys WHERE status IS NULL AND " + mine)
	} else {
		answer, err := json.Marshal(stored{Body: string(body)})
		if err != nil {
			return err
		}
		q.Finally("UPDATE idempotency_keys SET status = " + q.Bind(status) + "::int, answer = " + q.Bind(string(answer)) + "::jsonb WHERE (status IS NULL OR answer = " + resentAnswer + ") AND " + mine)
	}
	if _, err := g.DB.Run(context.WithoutCancel(ctx), q); err != nil {
		return fmt.Errorf("store answer: %w", err)
	}
	return nil
}
