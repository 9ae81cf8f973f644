-- +goose Up

-- How far a leg has come, in the order in which it may: a report of less changes nothing, and delivered wins over bad news before it.
CREATE TYPE leg_state AS ENUM ('calling', 'accepted', 'sent', 'undelivered', 'expired', 'rejected', 'failed', 'delivered');

ALTER TABLE legs DROP CONSTRAINT legs_state_check;
ALTER TABLE legs ALTER COLUMN state DROP DEFAULT;
ALTER TABLE legs ALTER COLUMN state TYPE leg_state USING (CASE state WHEN 'unknown' THEN 'calling' ELSE state END)::leg_state;
ALTER TABLE legs ALTER COLUMN state SET DEFAULT 'calling';
ALTER TABLE legs
    ADD COLUMN sender      text NOT NULL DEFAULT '',   -- what the phone shows, and STOP answers
    ADD COLUMN calls       smallint NOT NULL DEFAULT 1, -- with this id; 2: an unknown outcome was tried once more
    ADD COLUMN retry_after double precision NOT NULL DEFAULT 0, -- seconds that the vendor asked for
    ADD COLUMN per_number  boolean NOT NULL DEFAULT false, -- its limit is the recipient's own: no other way
    ADD COLUMN session     text,                       -- the vendor's name for what is open there
    ADD COLUMN checks      boolean NOT NULL DEFAULT false, -- the vendor made the code and alone can check it
    ADD COLUMN open        boolean NOT NULL DEFAULT false, -- the vendor wants to be told how it ended
    ADD COLUMN poll_at     timestamptz,                -- when the vendor is asked what became of it
    ADD COLUMN polls       smallint NOT NULL DEFAULT 0;
CREATE INDEX legs_open ON legs (created_at) WHERE open;
CREATE INDEX legs_to_poll ON legs (poll_at) WHERE poll_at IS NOT NULL;

ALTER TABLE messages
    ADD COLUMN claim    uuid,                          -- whose the lease is: whoever lost it stores nothing any more
    ADD COLUMN prefix   bytea NOT NULL DEFAULT '',     -- keyed fingerprint of the number without its last four digits
    ADD COLUMN verified boolean NOT NULL DEFAULT false; -- the code that it carried was used
CREATE INDEX messages_by_time ON messages (created_at);

ALTER TABLE challenges ADD COLUMN given_back boolean NOT NULL DEFAULT false; -- an attempt that nobody could look at

-- What vendors told us, each piece of news once. A report can overtake the answer that would tell whose it is: it waits a minute.
CREATE TABLE receipts (
    key         bytea PRIMARY KEY,          -- SHA-256 of the vendor's name and what is the same for every repetition
    received_at timestamptz NOT NULL DEFAULT wall(),
    vendor      text NOT NULL,
    leg_id      uuid,
    vendor_ref  text,
    state       leg_state,                  -- NULL: an inbound text
    class       text,
    code        text,
    status      text NOT NULL CHECK (status IN ('applied', 'waiting', 'orphan'))
);
CREATE INDEX receipts_waiting ON receipts (received_at) WHERE status = 'waiting';
CREATE INDEX receipts_by_age ON receipts (received_at);

-- Who said STOP to which sender, and START again. One row for each time: the record that regulators ask for.
CREATE TABLE opt_outs (
    recipient bytea NOT NULL,               -- keyed fingerprint of the number
    sender    text NOT NULL,
    number    bytea,                        -- sealed; NULL when only the vendor knows that it was said
    hint      text NOT NULL,                -- its last two digits
    country   text NOT NULL,
    source    text NOT NULL CHECK (source IN ('reply', 'vendor', 'operator')),
    vendor    text NOT NULL DEFAULT '',
    out_at    timestamptz NOT NULL DEFAULT wall(),
    in_at     timestamptz,
    PRIMARY KEY (recipient, sender, out_at)
);
CREATE UNIQUE INDEX opt_outs_standing ON opt_outs (recipient, sender) WHERE in_at IS NULL;

-- What is not texted for a while, because what is sent there is hardly ever used: the sign of numbers that earn by being texted.
CREATE TABLE send_breakers (
    scope  text NOT NULL CHECK (scope IN ('prefix', 'country')),
    key    bytea NOT NULL,
    since  timestamptz NOT NULL DEFAULT wall(),
    until  timestamptz NOT NULL,
    sent   bigint NOT NULL,
    used   bigint NOT NULL,
    PRIMARY KEY (scope, key)
);

-- +goose Down
DROP TABLE send_breakers, opt_outs, receipts;
ALTER TABLE challenges DROP COLUMN given_back;
DROP INDEX messages_by_time;
ALTER TABLE messages DROP COLUMN claim, DROP COLUMN prefix, DROP COLUMN verified;
DROP INDEX legs_to_poll, legs_open;
ALTER TABLE legs DROP COLUMN sender, DROP COLUMN calls, DROP COLUMN retry_after, DROP COLUMN per_number, DROP COLUMN session, DROP COLUMN checks,
    DROP COLUMN open, DROP COLUMN poll_at, DROP COLUMN polls;
ALTER TABLE legs ALTER COLUMN state DROP DEFAULT;
ALTER TABLE legs ALTER COLUMN state TYPE text USING state::text;
ALTER TABLE legs ALTER COLUMN state SET DEFAULT 'calling';
ALTER TABLE legs ADD CONSTRAINT legs_state_check CHECK (state IN ('calling', 'accepted', 'sent', 'unknown', 'undelivered', 'expired', 'rejected', 'failed', 'delivered'));
DROP TYPE leg_state;
