-- +goose Up

-- Browsers in which a person need not prove a factor at every sign-in, where policy lets that be.
CREATE TABLE browsers (
    id            uuid PRIMARY KEY,
    subscriber_id uuid NOT NULL REFERENCES subscribers ON DELETE CASCADE,
    token_hash    bytea NOT NULL UNIQUE,      -- SHA-256 of the cookie's 256 random bits
    previous_hash bytea,                      -- of the cookie before: whoever comes with it later has a copy
    rotated_at    timestamptz NOT NULL DEFAULT wall(),
    agent         bytea,                      -- sealed: how the browser calls itself
    since         timestamptz NOT NULL,       -- when the password passed that it was remembered under: it falls with what that proved
    created_at    timestamptz NOT NULL DEFAULT wall(),
    last_used_at  timestamptz NOT NULL DEFAULT wall(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX browsers_of ON browsers (subscriber_id);
CREATE UNIQUE INDEX browsers_by_previous ON browsers (previous_hash) WHERE previous_hash IS NOT NULL;
CREATE INDEX browsers_by_expiry ON browsers (expires_at);
-- Whether somebody's factors have changed since then: what was unbound counts too.
CREATE INDEX authenticators_history ON authenticators (subject);

-- What people look at in their accounts: which browser a session is in, what they are asked for first, and what happened lately.
ALTER TABLE sessions ADD COLUMN agent bytea;             -- sealed: how the browser calls itself
ALTER TABLE authenticators ADD COLUMN chosen_at timestamptz; -- its owner wants to be asked for this one first
CREATE INDEX audit_events_of ON audit_events (subject, at) WHERE subject IS NOT NULL;

-- +goose Down
DROP INDEX audit_events_of;
ALTER TABLE authenticators DROP COLUMN chosen_at;
ALTER TABLE sessions DROP COLUMN agent;
DROP INDEX authenticators_history;
DROP TABLE browsers;
