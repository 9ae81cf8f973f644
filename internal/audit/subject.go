package audit

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// SubjectSQL is an SQL expression of type jsonb for the latest records about one subject, the newest first and at most limit of them: those with one of these
// names, or all where names is nil. subject is an SQL expression for its id. Read it with [DecodeEntries]. Records are read as they are stored: whether the chain
// bears them out is for [Reader.Verify].
func SubjectSQL(q *postgres.Query, subject string, names []string, limit int) string {
	which := ""
	if names != nil {
		which = " AND e.event = ANY(" + q.Bind(pq.Array(names)) + "::text[])"
	}
	return fmt.Sprintf(`(SELECT coalesce(jsonb_agg(jsonb_build_object('id', l.id, 'at', l.at, 'event', l.event, 'outcome', l.outcome, 'reason', l.reason, 'actor', l.actor,
		'subject', l.subject, 'client_id', l.client_id, 'session_id', l.session_id, 'object', l.object, 'source', l.source, 'request_id', l.request_id) ORDER BY l.at DESC, l.id), '[]')
		FROM (SELECT e.* FROM audit_events e WHERE e.subject = %s%s ORDER BY e.at DESC, e.id LIMIT %s) l)`, subject, which, q.Bind(limit)+"::int")
}

// DecodeEntries reads what [SubjectSQL] gave.
func DecodeEntries(data []byte) ([]Entry, error) {
	var rows []struct {
		ID        uuid.UUID  `json:"id"`
		At        time.Time  `json:"at"`
		Event     string     `json:"event"`
		Outcome   string     `json:"outcome"`
		Reason    string     `json:"reason"`
		Actor     string     `json:"actor"`
		Subject   *uuid.UUID `json:"subject"`
		Client    *string    `json:"client_id"`
		Session   *uuid.UUID `json:"session_id"`
		Object    string     `json:"object"`
		Source    string     `json:"source"`
		RequestID string     `json:"request_id"`
	}
	if len(data) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, fmt.Errorf("audit: records of a subject: %w", err)
	}
	entries := make([]Entry, len(rows))
	for i, row := range rows {
		e := Entry{ID: row.ID, At: row.At, Event: row.Event, Outcome: row.Outcome, Reason: row.Reason, Actor: row.Actor, Object: row.Object, Source: row.Source, RequestID: row.RequestID}
		if row.Subject != nil {
			e.Subject = uuid.NullUUID{UUID: *row.Subject, Valid: true}
		}
		if row.Client != nil {
			e.Client = sql.Null[string]{V: *row.Client, Valid: true}
		}
		if row.Session != nil {
			e.Session = uuid.NullUUID{UUID: *row.Session, Valid: true}
		}
		entries[i] = e
	}
	return entries, nil
}
