package authn

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// Completion is how a sign-in is completed by the statement that stores an approval: both or neither.
type Completion struct {
	// ACR is what the application is told of the level.
	ACR string
	// Able adds what has to stand, locked, and gives the SQL condition that it does.
	Able func(q *postgres.Query) string
	// Along adds what the application is given. Part approved has one row (columns acr, amr, auth_time) if and only if it is approved.
	Along func(q *postgres.Query, approved string)
	// Answer leads the browser back, once the statement has run.
	Answer func(w http.ResponseWriter, r *http.Request)
}

// HoldSignIn adds part `sign_in_held` to q and gives the SQL condition that it has a row: the sign-in may still be gone on with, and stays so until the statement ends. fresh wants that it asks for
// no transaction yet.
func (s *Service) HoldSignIn(q *postgres.Query, in *SignIn, cookie Cookie, fresh bool) string {
	q.With("sign_in_held", fmt.Sprintf(`
		SELECT si.id FROM subscribers u JOIN sessions s ON s.subscriber_id = u.id JOIN sign_ins si ON si.session_id = s.id
		 WHERE si.id = %s AND s.id = %s AND s.token_hash = %s AND u.id = %s AND si.done_at IS NULL AND si.expires_at > wall() AND (si.transaction_id IS NULL OR NOT %s) AND %s AND %s
		   FOR UPDATE OF si, s FOR SHARE OF u`,
		q.Bind(in.ID)+"::uuid", q.Bind(in.Session.ID)+"::uuid", q.Bind(cookie.hash())+"::bytea", q.Bind(in.Session.Subscriber)+"::uuid", q.Bind(fresh)+"::bool",
		s.alive(q, "s"), stands("u", "s.created_at")))
	return "EXISTS (SELECT FROM sign_in_held)"
}

// Ask adds to q that the sign-in waits for the transaction whose id part created has.
func (s *Service) Ask(q *postgres.Query, in *SignIn, created string) {
	q.With("sign_in_asks", fmt.Sprintf("UPDATE sign_ins SET transaction_id = c.id FROM %s c WHERE sign_ins.id = %s", created, q.Bind(in.ID)+"::uuid"))
}

// Asked stores that the person of a sign-in has been shown the transaction that its requirement names, which their decision led to. Only then may they read how it ended.
func (s *Service) Asked(ctx context.Context, in *SignIn, cookie Cookie) error {
	q := new(postgres.Query)
	able := s.HoldSignIn(q, in, cookie, true)
	q.Finally(fmt.Sprintf("UPDATE sign_ins SET transaction_id = %s WHERE id = %s AND %s", q.Bind(in.Requirement.Backchannel.Transaction)+"::uuid", q.Bind(in.ID)+"::uuid", able))
	if _, err := s.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("store what a sign-in was asked: %w", err)
	}
	return nil
}

// CompleteAfter is [Service.Complete] for as long as part from has a row.
func (s *Service) CompleteAfter(q *postgres.Query, in *SignIn, cookie Cookie, from string) {
	s.complete(q, in, cookie, "AND EXISTS (SELECT FROM "+from+")")
}

// Past reads a sign-in of this browser whose person was shown a transaction, whatever became of it and of the session: they may read how it ended until the sign-in's time is over, and report it.
// Whoever merely opened a link to it, or did not get as far as that, was shown none. Nothing else may rest on it.
func (s *Service) Past(ctx context.Context, cookie Cookie, id uuid.UUID) (*SignIn, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf("SELECT %s FROM sign_ins si JOIN sessions s ON s.id = si.session_id WHERE si.id = %s AND s.token_hash = %s AND si.transaction_id IS NOT NULL AND si.expires_at > wall()",
		s.columns(q), q.Bind(id)+"::uuid", q.Bind(cookie.hash())+"::bytea"))
	in, err := s.read(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("read past sign-in: %w", err)
	}
	return in, nil
}
