package oidc

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Grants tells people what applications have of them. It implements authn.Applications.
type Grants struct{ DB *postgres.DB }

// Given implements authn.Applications: what each application was given and is still worth something, put together.
func (g *Grants) Given(ctx context.Context, subscriber uuid.UUID, ids []string) ([]authn.Given, map[string]string, error) {
	q := new(postgres.Query)
	owner := q.Bind(subscriber) + "::uuid"
	q.With("held", fmt.Sprintf(`
		SELECT g.client_id, array_agg(DISTINCT scope) AS scopes, min(g.created_at) AS since
		  FROM grants g CROSS JOIN LATERAL unnest(g.scopes) scope WHERE g.subscriber_id = %s AND %s GROUP BY g.client_id`, owner, standing()))
	q.Finally(fmt.Sprintf(`
		SELECT k.id, coalesce(nullif(k.registration->>'client_name', ''), k.id) AS name, h.scopes, h.since
		  FROM clients k LEFT JOIN held h ON h.client_id = k.id WHERE h.client_id IS NOT NULL OR k.id = ANY(%s) ORDER BY name, k.id`, q.Bind(pq.Array(ids))+"::text[]"))
	var rows []struct {
		ID     string         `db:"id"`
		Name   string         `db:"name"`
		Scopes pq.StringArray `db:"scopes"`
		Since  *time.Time     `db:"since"`
	}
	if err := g.DB.Select(ctx, &rows, q); err != nil {
		return nil, nil, fmt.Errorf("read grants: %w", err)
	}
	var given []authn.Given
	names := make(map[string]string, len(rows))
	for _, row := range rows {
		names[row.ID] = row.Name
		if row.Since != nil {
			given = append(given, authn.Given{Application: row.ID, Name: row.Name, Scopes: row.Scopes, Since: *row.Since})
		}
	}
	return given, names, nil
}

// TakeBack implements authn.Applications: every grant of the subscriber to the application is revoked, and its tokens with it.
func (g *Grants) TakeBack(ctx context.Context, q *postgres.Query, from string, subscriber uuid.UUID, application string, by factors.By) {
	q.With("given_back", fmt.Sprintf(`
		UPDATE grants g SET revoked_at = wall(), revoke_reason = 'withdrawn' FROM %s
		 WHERE g.subscriber_id = %s AND g.client_id = %s AND g.revoked_at IS NULL RETURNING g.id`,
		from, q.Bind(subscriber)+"::uuid", q.Bind(application)+"::text"))
	audit.Record(ctx, q, "given_back", audit.Event{Name: "grant.revoke", Outcome: audit.Success, Reason: "withdrawn", Actor: by.Actor, Subject: subscriber,
		Client: application, Session: by.Session}, audit.Expressions{"object": "given_back.id::text"})
}
