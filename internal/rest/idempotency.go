package rest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// How long an answer is kept, and how long a request may be at it before another may take its place: longer than any request lives.
const (
	keepAnswers = "interval '24 hours'"
	giveUp      = "interval '30 seconds'"
)

// Claim is a request that may be repeated. A nil one may not.
type Claim struct {
	caller uuid.UUID
	key    []byte
	owner  uuid.UUID
}

// Stored is an answer that is given again.
type Stored struct {
	Status int
	Body   []byte          // as it was sent; nil: what was stored with what the request did says enough
	Data   json.RawMessage // that, and the body
}

// Key is the idempotency key of a request, "" if it has none.
func Key(r *http.Request) (string, error) {
	keys := r.Header.Values("Idempotency-Key")
	switch {
	case len(keys) == 0:
		return "", nil
	case len(keys) > 1:
		return "", Invalid("Idempotency-Key", "is there more than once")
	case !UsableKey(keys[0]):
		return "", Invalid("Idempotency-Key", "is not 1 to 255 visible characters")
	}
	return keys[0], nil
}

// Begin claims a request for this process, or gives the answer that it had. Part `caller` of q has a row if the caller, whose keys these are, may ask; standing is false if it has none. What has to
// be the same for it to be the same request is scope (of the caller's), route and body, which is JSON in whatever form.
func Begin(ctx context.Context, db *postgres.DB, q *postgres.Query, caller uuid.UUID, scope, key, route string, body []byte) (own *Claim, stored *Stored, standing bool, err error) {
	canonical := jsontext.Value(append([]byte(nil), body...))
	if err := canonical.Canonicalize(); err != nil {
		return nil, nil, true, Invalid("", "is not JSON")
	}
	// Keyed, by what is itself stored hashed: a body has little in it that cannot be tried out, such as a number.
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(canonical)
	sum, name := mac.Sum(nil), sha256.Sum256([]byte(fmt.Sprintf("%s\x00%s\x00%s", scope, route, key)))
	own = &Claim{caller: caller, key: name[:], owner: uuid.New()}
	tenant, hash := q.Bind(own.caller)+"::uuid", q.Bind(own.key)+"::bytea"
	q.With("begun", fmt.Sprintf(`
		INSERT INTO idempotency_keys AS k (tenant_id, key, request, owner) SELECT %s, %s, %s, %s FROM caller
		ON CONFLICT (tenant_id, key) DO UPDATE SET request = excluded.request, owner = excluded.owner, started_at = wall(), status = NULL, answer = NULL
		 WHERE k.started_at <= wall() - %s OR k.status IS NULL AND k.request = excluded.request AND k.started_at <= wall() - %s
		RETURNING owner`, tenant, hash, q.Bind(sum)+"::bytea", q.Bind(own.owner)+"::uuid", keepAnswers, giveUp))
	q.Finally(fmt.Sprintf(`SELECT EXISTS (SELECT FROM caller) AS standing, EXISTS (SELECT FROM begun) AS mine, coalesce(p.request = %s, true) AS same, p.status, p.answer
		FROM (SELECT 1) one LEFT JOIN idempotency_keys p ON p.tenant_id = %s AND p.key = %s AND p.started_at > wall() - %s`, q.Bind(sum)+"::bytea", tenant, hash, keepAnswers))
	var got struct {
		Standing bool   `db:"standing"`
		Mine     bool   `db:"mine"`
		Same     bool   `db:"same"`
		Status   *int   `db:"status"`
		Answer   []byte `db:"answer"`
	}
	if err := db.Get(ctx, &got, q); err != nil {
		return nil, nil, true, fmt.Errorf("claim request: %w", err)
	}
	switch {
	case !got.Standing:
		return nil, nil, false, nil
	case got.Mine:
		return own, nil, true, nil
	case !got.Same:
		return nil, nil, true, New(KeyReused)
	case got.Status == nil: // or just begun by another: this snapshot does not show it
		return nil, nil, true, New(RequestInProgress).Wait(time.Second)
	}
	var whole struct {
		Body string `json:"body"`
	}
	if err := json.Unmarshal(got.Answer, &whole); err != nil {
		return nil, nil, true, fmt.Errorf("stored answer: %w", err)
	}
	stored = &Stored{Status: *got.Status, Data: got.Answer}
	if whole.Body != "" {
		stored.Body = []byte(whole.Body)
	}
	return nil, stored, true, nil
}

// Held is what a statement's first part selects from besides: nothing happens if the claim is another's by now.
func (k *Claim) Held(q *postgres.Query) string {
	if k == nil {
		return ""
	}
	q.With("claimed", fmt.Sprintf("SELECT owner FROM idempotency_keys WHERE tenant_id = %s AND key = %s AND owner = %s AND status IS NULL FOR UPDATE",
		q.Bind(k.caller)+"::uuid", q.Bind(k.key)+"::bytea", q.Bind(k.owner)+"::uuid"))
	return ", claimed"
}

// Settle stores the answer, an SQL expression of type jsonb over part from, in the statement that part from is of, as long as that has a row.
func (k *Claim) Settle(q *postgres.Query, from string, status int, answer string) {
	if k == nil {
		return
	}
	q.With("answered", fmt.Sprintf("UPDATE idempotency_keys k SET status = %s, answer = %s FROM %s WHERE k.tenant_id = %s AND k.key = %s AND k.owner = %s",
		q.Bind(status)+"::int", answer, from, q.Bind(k.caller)+"::uuid", q.Bind(k.key)+"::bytea", q.Bind(k.owner)+"::uuid"))
}

// Done is an answer, as an SQL expression, that says no more than that it was done: of requests whose whole answer takes its place after the fact.
const Done = `'{"done": true}'::jsonb`

// Finish stores an answer after the fact; status 0: there is none, and the request may be made again.
func (k *Claim) Finish(ctx context.Context, db *postgres.DB, status int, body []byte) error {
	if k == nil {
		return nil
	}
	q := new(postgres.Query)
	mine := fmt.Sprintf("tenant_id = %s AND key = %s AND owner = %s", q.Bind(k.caller)+"::uuid", q.Bind(k.key)+"::bytea", q.Bind(k.owner)+"::uuid")
	if status == 0 {
		q.Finally("DELETE FROM idempotency_keys WHERE status IS NULL AND " + mine)
	} else {
		answer, err := json.Marshal(map[string]string{"body": string(body)})
		if err != nil {
			return err
		}
		q.Finally("UPDATE idempotency_keys SET status = " + q.Bind(status) + "::int, answer = " + q.Bind(string(answer)) + "::jsonb WHERE (status IS NULL OR answer = " + Done + ") AND " + mine)
	}
	if _, err := db.Run(context.WithoutCancel(ctx), q); err != nil {
		return fmt.Errorf("store answer: %w", err)
	}
	return nil
}
