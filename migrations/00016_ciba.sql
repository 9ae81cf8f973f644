-- +goose Up

-- ---------------------------------------------------------------- authn/backchannel: what people are asked by applications that have no browser of theirs

-- One row each. It is not partitioned: applications ask for it by its hash, every few seconds.
CREATE TABLE backchannel_requests (
    id             uuid PRIMARY KEY,          -- what the page is opened by. It lets nobody in
    hash           bytea NOT NULL UNIQUE,     -- SHA-256 of the 256 random bits of its auth_req_id
    created_at     timestamptz NOT NULL DEFAULT wall(),
    expires_at     timestamptz NOT NULL,
    client_id      text NOT NULL REFERENCES clients ON DELETE CASCADE,
    subscriber_id  uuid NOT NULL REFERENCES subscribers ON DELETE CASCADE,
    relying_party  jsonb NOT NULL,            -- these as in sign_ins
    requirement    jsonb NOT NULL,
    payload        bytea NOT NULL,
    locales        text NOT NULL,
    login_hint     bytea,
    transaction_id uuid UNIQUE,               -- the payment that is asked about; NULL: a sign-in alone
    slot           smallint NOT NULL,         -- of those that one person is asked at once
    single         boolean NOT NULL,          -- no other of this application is open beside it
    state          text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'denied', 'expired')),
    decided_at     timestamptz,
    acr            text,                      -- these of an approval without a payment: that has its own
    amr            text[],
    auth_time      timestamptz,
    redeemed_at    timestamptz,               -- gave tokens
    notify         bytea,                     -- sealed: where and with what the application wants to be told. NULL: it polls
    notify_at      timestamptz,               -- it is due to be told
    notified       int NOT NULL DEFAULT 0,    -- calls so far
    CHECK ((state = 'pending') = (decided_at IS NULL))
);
CREATE UNIQUE INDEX backchannel_slots ON backchannel_requests (subscriber_id, slot) WHERE state = 'pending';
CREATE UNIQUE INDEX backchannel_single ON backchannel_requests (subscriber_id, client_id) WHERE state = 'pending' AND single;
CREATE INDEX backchannel_expiring ON backchannel_requests (expires_at) WHERE state = 'pending';
CREATE INDEX backchannel_notify ON backchannel_requests (notify_at) WHERE notify_at IS NOT NULL;
CREATE INDEX backchannel_by_age ON backchannel_requests (created_at);

-- When each was asked for last, and how long its application has to wait: for pace alone. What a crash loses of it is a pause.
CREATE UNLOGGED TABLE backchannel_polls (
    hash      bytea PRIMARY KEY,
    polled_at timestamptz NOT NULL,
    pause     int NOT NULL,                   -- seconds
    early     boolean NOT NULL                -- the last one came too early
) WITH (fillfactor = 50);

-- An application lists its own.
CREATE INDEX transactions_of_client ON transactions (client_id, created_at);

-- The payment that the grant rests on.
ALTER TABLE grants ADD COLUMN transaction_id uuid;

-- +goose Down
ALTER TABLE grants DROP COLUMN transaction_id;
DROP INDEX transactions_of_client;
DROP TABLE backchannel_polls, backchannel_requests;
