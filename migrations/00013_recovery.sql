-- +goose Up

-- Getting back in: one row for each try, whoever asked for it and whether or not there is anybody of that name.
CREATE TABLE recoveries (
    id            uuid PRIMARY KEY,
    created_at    timestamptz NOT NULL DEFAULT wall(),
    expires_at    timestamptz NOT NULL,
    since         timestamptz NOT NULL DEFAULT wall(), -- what ends a recovery and happened earlier does not end this one
    kind          text NOT NULL CHECK (kind IN ('password', 'access', 'stop')),
    by_operator   text,                      -- the administrator who asked for it; NULL: the person, or somebody who claims to be
    name          bytea,                     -- keyed fingerprint of what was typed, until somebody has looked it up
    subscriber_id uuid REFERENCES subscribers ON DELETE CASCADE, -- NULL: not looked up, or nobody
    state         text NOT NULL CHECK (state IN ('asked', 'open', 'held', 'waiting', 'granted',  -- live
                                                 'finished', 'canceled', 'superseded', 'expired', 'refused')), -- terminal
    reason        text NOT NULL DEFAULT '',  -- of a terminal state
    ended_at      timestamptz,
    proofs        text[] NOT NULL DEFAULT '{}', -- kinds of what was proved
    proved_by     uuid[] NOT NULL DEFAULT '{}', -- the authenticators among them
    knows         boolean NOT NULL DEFAULT false, -- it began behind the right password
    due_at        timestamptz,               -- held and waiting: when it can be gone on with
    approved_by   text,                      -- the other administrator
    token_hash    bytea UNIQUE,              -- SHA-256 of the cookie's 256 random bits
    sign_in_id    uuid,                      -- that the person came from
    locale        text NOT NULL DEFAULT '',
    channel       text NOT NULL DEFAULT '',  -- the first way: text or mail
    tries         smallint NOT NULL DEFAULT 0, -- answers before anything was proved
    sends         smallint NOT NULL DEFAULT 0, -- asked for
    next_send_at  timestamptz,
    challenge_id  uuid,                      -- the latest, in the ledger
    asked_of      uuid,                      -- the authenticator that it was made for
    link_hash     bytea UNIQUE,              -- SHA-256 of the 256 random bits of the link that was mailed last, until it is used
    todo_at       timestamptz,               -- something has to be looked up and sent
    claim         uuid,                      -- whose that is
    lease_until   timestamptz,
    source        text NOT NULL DEFAULT '',  -- where it was asked for
    request_id    text NOT NULL DEFAULT '',
    CHECK ((ended_at IS NULL) = (state IN ('asked', 'open', 'held', 'waiting', 'granted')))
);
CREATE INDEX recoveries_todo ON recoveries (todo_at) WHERE todo_at IS NOT NULL;
CREATE INDEX recoveries_of ON recoveries (subscriber_id, created_at);
CREATE INDEX recoveries_by_age ON recoveries (created_at);
CREATE INDEX recoveries_live ON recoveries (expires_at) WHERE ended_at IS NULL;
-- Of tries that have proved nothing one is live.
CREATE UNIQUE INDEX recoveries_unproved ON recoveries (subscriber_id, kind) WHERE state = 'open' AND proofs = '{}' AND NOT knows AND by_operator IS NULL;
CREATE UNIQUE INDEX recoveries_held ON recoveries (subscriber_id) WHERE state = 'held';

-- A session that repairs an account and does nothing else.
ALTER TABLE sessions ADD COLUMN recovery_id uuid;

-- How the password was set last, if that was by a recovery: it is then worth no more than what proved that one.
ALTER TABLE subscribers ADD COLUMN password_reset_at timestamptz, ADD COLUMN password_reset_by text[];

-- +goose Down
ALTER TABLE subscribers DROP COLUMN password_reset_at, DROP COLUMN password_reset_by;
ALTER TABLE sessions DROP COLUMN recovery_id;
DROP TABLE recoveries;
