-- +goose Up

-- Mails that wait for the mail server. A row is written in the statement of whatever it tells about; a worker owns what follows.
CREATE TABLE mails (
    id          uuid NOT NULL,                -- also the left part of its Message-ID
    created_at  timestamptz NOT NULL DEFAULT wall(),
    purpose     text NOT NULL,
    locale      text NOT NULL,
    body        bytea,                        -- sealed address, subject and text; NULL once erased
    state       text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'failed')),
    reason      text,                         -- mail.Class of the last failure
    due_at      timestamptz NOT NULL DEFAULT wall(),
    claim       uuid,                         -- whose the lease is
    lease_until timestamptz,
    tries       smallint NOT NULL DEFAULT 0,
    unknown     smallint NOT NULL DEFAULT 0,  -- of these, those of which nobody knows how they ended
    not_after   timestamptz NOT NULL,         -- never sent later than this
    sent_at     timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT wall(),
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE mails_default PARTITION OF mails DEFAULT;
CREATE INDEX mails_due ON mails (due_at) WHERE state = 'queued';

-- What people are told about their accounts, one row for each way to reach them, written in the statement of the event. A worker words it and hands it to
-- messages or mails.
CREATE TABLE notices (
    id               uuid NOT NULL DEFAULT gen_random_uuid(), -- also of the message or mail that it becomes
    created_at       timestamptz NOT NULL DEFAULT wall(),     -- when it happened
    event_id         uuid NOT NULL,           -- the same for all ways of one event
    subscriber_id    uuid NOT NULL,
    kind             text NOT NULL,           -- notices.Kind
    channel          text NOT NULL CHECK (channel IN ('text', 'mail')),
    authenticator_id uuid,                    -- whose number it goes to
    factor           text,                    -- kind of that authenticator
    reach            bytea,                   -- sealed number or profile, as it was; NULL once handed over
    operator         boolean NOT NULL DEFAULT false, -- done by the people who run this
    source           text NOT NULL DEFAULT '',       -- where from, coarsely
    about            text NOT NULL DEFAULT '',       -- kind of the authenticator that it tells about
    hint             text NOT NULL DEFAULT '',       -- what its owner may be shown of that one
    until            timestamptz,                    -- when what it tells about ends
    state            text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'handed', 'failed')),
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE notices_default PARTITION OF notices DEFAULT;
CREATE INDEX notices_due ON notices (created_at) WHERE state = 'queued';

-- Wrong passwords in a row that came before the right one of this sign-in.
ALTER TABLE sign_ins ADD COLUMN failures integer NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE sign_ins DROP COLUMN failures;
DROP TABLE notices, mails;
