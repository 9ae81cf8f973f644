package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// invariants holds what the run left behind against what must always be true, whatever the tests did. It gives every violation.
func (s *system) invariants(ctx context.Context) error {
	var problems []error
	// Each query finds violations; an empty answer is what is wanted.
	for name, query := range map[string]string{
		"I1 once: a challenge was verified twice": `SELECT object FROM audit_events WHERE event = 'challenge.answer' AND outcome = 'success' GROUP BY object HAVING count(*) > 1`,
		"I1 once: a code gave tokens twice":       `SELECT object FROM audit_events WHERE event = 'token.issue' AND reason = 'authorization_code' GROUP BY object HAVING count(*) > 1`,
		"I2 attempts: more than a challenge bears": `SELECT id::text FROM challenges WHERE attempts > max_attempts
			UNION ALL SELECT object FROM audit_events WHERE event = 'challenge.answer' AND reason NOT IN ('blocked', 'source_limit') GROUP BY object HAVING count(*) > 5`,
		"I3 nobody in: a grant without both proofs": `SELECT g.id::text FROM grants g WHERE g.acr = 'urn:watchword:acr:2' AND g.session_id IS NOT NULL AND NOT (
			EXISTS (SELECT FROM session_events e WHERE e.session_id = g.session_id AND e.amr = '{pwd}' AND e.at >= g.auth_time)
			AND EXISTS (SELECT FROM session_events e JOIN challenges c ON c.subject = g.subscriber_id AND c.outcome = 'verified' AND c.ended_at = e.at
			            WHERE e.session_id = g.session_id AND e.amr = '{sms}' AND e.at >= g.auth_time))`,
		"I3 nobody in: a grant in the background that nobody allowed": `SELECT g.id::text FROM grants g WHERE g.subscriber_id IS NOT NULL AND g.session_id IS NULL AND NOT EXISTS (
			SELECT FROM backchannel_requests b WHERE b.subscriber_id = g.subscriber_id AND b.client_id = g.client_id AND b.redeemed_at = g.created_at AND b.decided_at <= b.expires_at AND b.state = 'approved')`,
		"I3 nobody in: a grant for a payment that its person did not approve": `SELECT g.id::text FROM grants g WHERE g.transaction_id IS NOT NULL AND NOT EXISTS (
			SELECT FROM transactions t JOIN challenges c ON c.id = t.challenge_id AND c.outcome = 'verified' AND c.purpose = 'transaction'
			 WHERE t.id = g.transaction_id AND t.state = 'approved' AND t.client_id = g.client_id AND t.subscriber_id = g.subscriber_id)`,
		"I3 nobody in: a proof that no challenge explains": `SELECT session_id::text FROM session_events e WHERE e.amr = '{sms}' AND NOT EXISTS (
			SELECT FROM challenges c WHERE c.outcome = 'verified' AND c.ended_at = e.at AND c.authenticator_id = e.authenticator_id)`,
		"I4 durable: a revoked grant has a live code": `SELECT c.grant_id::text FROM authz_codes c JOIN grants g ON g.id = c.grant_id
			WHERE g.revoked_at IS NOT NULL AND c.redeemed_at > g.revoked_at`,
		"I5 messages end: one waits past its time":       `SELECT id::text FROM messages WHERE state = 'queued' AND (not_after < now() OR created_at < now() - interval '30 seconds' AND due_at < now() - interval '30 seconds')`,
		"I5 messages end: more than two calls":           `SELECT message_id::text FROM legs GROUP BY message_id HAVING count(*) > 2`,
		"I5 messages end: a text outlived its challenge": `SELECT m.id::text FROM messages m JOIN challenges c ON c.id = m.challenge_id WHERE c.ended_at < now() - interval '5 seconds' AND m.body IS NOT NULL`,
		"I6 monotonic: a revoked line was refreshed":     `SELECT g.id::text FROM grants g JOIN refresh_tokens t ON t.grant_id = g.id WHERE t.created_at > g.revoked_at`,
		"I7 one outcome: a payment without exactly one record and one event of its end": `SELECT t.id::text FROM transactions t WHERE (t.state <> 'pending') <> (
			(SELECT count(*) FROM audit_events a WHERE a.object = 'txn_' || replace(t.id::text, '-', '') AND a.outcome <> 'denied' AND a.event = CASE t.state
			  WHEN 'approved' THEN 'transaction.approve' WHEN 'failed' THEN 'transaction.approve' WHEN 'refused' THEN 'transaction.refuse' WHEN 'reported' THEN 'transaction.report'
			  WHEN 'expired' THEN 'transaction.expire' ELSE 'transaction.cancel' END) = 1
			AND (SELECT count(*) FROM events e WHERE e.owner = 'client:' || t.client_id AND e.data->>'id' = 'txn_' || replace(t.id::text, '-', '') AND e.data->>'status' = t.state AND e.type IN
			  ('transaction.approved', 'transaction.refused', 'transaction.expired', 'fraud.reported')) BETWEEN 1 AND 2)`,
		"I7 one outcome: a payment of which another end is told as well": `SELECT e.data->>'id' FROM events e JOIN transactions t ON e.data->>'id' = 'txn_' || replace(t.id::text, '-', '')
			WHERE e.type <> 'fraud.reported' AND (e.data->>'status' <> t.state OR (e.type = 'transaction.approved') <> (t.state = 'approved'))`,
		"I7 one outcome: a code that approved what is not approved": `SELECT t.id::text FROM transactions t JOIN challenges c ON c.id = t.challenge_id WHERE (c.outcome = 'verified') <> (t.state = 'approved')`,
		"I8 audit: a grant without exactly one record": `SELECT g.id::text FROM grants g WHERE g.subscriber_id IS NOT NULL AND
			(SELECT count(*) FROM audit_events a WHERE a.event = 'grant.issue' AND a.object = g.id::text) <> 1`,
		"I8 audit: a verified challenge without exactly one record": `SELECT c.id::text FROM challenges c WHERE c.outcome = 'verified' AND
			(SELECT count(*) FROM audit_events a WHERE a.event = 'challenge.answer' AND a.outcome = 'success' AND a.object = c.id::text) <> 1`,
		"I8 audit: a record without its change": `SELECT a.object FROM audit_events a WHERE a.event = 'grant.issue' AND NOT EXISTS (SELECT FROM grants g WHERE g.id::text = a.object)`,
		// The budget is that of codes, which strangers can cause. What an account's owner is told of follows from what happens to it.
		"I12 budgets: a number was texted too often": `SELECT encode(recipient, 'hex') FROM messages WHERE purpose <> 'notice' GROUP BY recipient, date_trunc('hour', created_at) HAVING count(*) > 5`,
	} {
		var found []string
		if err := s.db.SelectContext(ctx, &found, query); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		} else if len(found) > 0 {
			problems = append(problems, fmt.Errorf("%s: %s", name, strings.Join(found, ", ")))
		}
	}
	problems = append(problems, s.chained(ctx), s.vendorSawEachOnce(ctx), s.nothingLeaked(ctx))
	if strings.Contains(s.log.String(), "panic") { // I10
		problems = append(problems, errors.New("I10 closed and clear: something panicked"))
	}
	return errors.Join(problems...)
}

// chained wants every audit record linked, and the chain whole: I8.
func (s *system) chained(ctx context.Context) error {
	ring, err := keyring.Load(filepath.Join(s.dir, "data", "keys"))
	if err != nil {
		return err
	}
	var socket string
	if err := s.db.GetContext(ctx, &socket, "SHOW unix_socket_directories"); err != nil {
		return err
	}
	db, err := postgres.Open(postgres.Config{DSN: s.dsn(socket)})
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // it was only read
	reader := &audit.Reader{DB: db, Keys: ring}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		report, err := reader.Verify(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("I8 audit: %w", err)
		case report.Fault != nil:
			return fmt.Errorf("I8 audit: the chain is broken: %w", report.Fault)
		case report.Waiting == 0 && report.Records > 0:
			return nil
		}
	}
}

// vendorSawEachOnce compares the outbox with what the simulator took: I5.
func (s *system) vendorSawEachOnce(ctx context.Context) error {
	var taken []struct{ ID string }
	if err := getJSON(ctx, s.Inbox+"/messages", &taken); err != nil {
		return err
	}
	var legs []string
	if err := s.db.SelectContext(ctx, &legs, `SELECT id::text FROM legs WHERE state IN ('accepted', 'sent', 'delivered')`); err != nil {
		return err
	}
	known, seen := map[string]bool{}, map[string]int{}
	for _, id := range legs {
		known[id] = true
	}
	var problems []error
	for _, m := range taken {
		if seen[m.ID]++; seen[m.ID] > 1 || !known[m.ID] {
			problems = append(problems, fmt.Errorf("I5 messages end: the vendor has %s %d times, known here: %v", m.ID, seen[m.ID], known[m.ID]))
		}
	}
	return errors.Join(problems...)
}

// nothingLeaked looks for everything secret in every table and in the log: I9.
func (s *system) nothingLeaked(ctx context.Context) error {
	var tables []string
	if err := s.db.SelectContext(ctx, &tables, `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`); err != nil {
		return err
	}
	var problems []error
	look := func(where, text string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for value, what := range s.secrets {
			if len(value) == 6 && strings.Trim(value, "0123456789") == "" { // six digits also turn up by chance, inside times and ids
				value = "#" + value
			}
			if strings.Contains(text, value) {
				problems = append(problems, fmt.Errorf("I9 no leak: a %s is in %s", what, where))
			}
		}
		if strings.Contains(text, "+1202555") || strings.Contains(text, "1202555") {
			problems = append(problems, fmt.Errorf("I9 no leak: a full number is in %s", where))
		}
	}
	for _, table := range tables {
		var rows []string
		if err := s.db.SelectContext(ctx, &rows, "SELECT r::text FROM "+table+" r"); err != nil {
			return err
		}
		look("table "+table, strings.Join(rows, "\n"))
	}
	// The welcome on standard output names the demo user's password and phone: it is for the developer's eyes.
	log := s.log.String()
	if _, after, found := strings.Cut(log, "Press Ctrl-C to stop."); found {
		log = after
	}
	look("the log", log)
	return errors.Join(problems...)
}
