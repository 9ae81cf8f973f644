-- +goose Up

-- ---------------------------------------------------------------- limits

-- Windows that many requests hit at once, in shards of which each has its part of the burst: whoever comes takes one that nobody holds. Instead of the times of hits a
-- row has their counts by slots of a 24th of the period, so that its size does not depend on the burst.
CREATE TABLE shared_windows (
    name       text NOT NULL,
    key        bytea NOT NULL,
    shard      smallint NOT NULL,
    slot       bigint NOT NULL,               -- of counts[1], in slots since 1970
    counts     integer[] NOT NULL,            -- the newest slot first, 25 of them
    used       integer NOT NULL,              -- their sum
    quota      integer NOT NULL,              -- this shard's part of the burst, as of the last hit
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (name, key, shard)
) WITH (fillfactor = 50);
DELETE FROM windows WHERE name = 'send-everyone-day';

-- ---------------------------------------------------------------- gateway: codes for other programs

-- A program's owner. Nothing of one tenant is ever seen by another.
CREATE TABLE tenants (
    id          uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE,         -- what commands call it
    settings    jsonb NOT NULL,               -- gateway.Settings
    created_at  timestamptz NOT NULL DEFAULT wall(),
    updated_at  timestamptz NOT NULL DEFAULT wall(),
    disabled_at timestamptz
);

CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    hash         bytea NOT NULL UNIQUE,       -- SHA-256 of 256 random bits
    test         boolean NOT NULL,            -- never reaches a vendor, and proves nothing
    scopes       text[] NOT NULL,
    note         text NOT NULL DEFAULT '',    -- what its owner calls it
    hint         text NOT NULL,               -- its last four characters
    created_at   timestamptz NOT NULL DEFAULT wall(),
    expires_at   timestamptz,                 -- a rotated key works on until then
    revoked_at   timestamptz,
    last_used_at timestamptz                  -- to the minute
);
CREATE INDEX api_keys_of ON api_keys (tenant_id, created_at);

-- Applications that may come with an access token of their own (RFC 6749 section 4.4) instead of a key.
CREATE TABLE tenant_clients (
    client_id text PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    scopes    text[] NOT NULL
);
CREATE INDEX tenant_clients_of ON tenant_clients (tenant_id);

-- What a program asked for. Its id is that of its challenge, which has codes, attempts and outcome.
CREATE TABLE verifications (
    id         uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT wall(), -- the challenge's too
    tenant_id  uuid NOT NULL,
    test       boolean NOT NULL,
    recipient  bytea NOT NULL,                -- keyed fingerprint of tenant and number: tenants do not share it
    number     bytea NOT NULL,                -- sealed, for further codes
    hint       text NOT NULL,                 -- its last two digits
    country    text NOT NULL,                 -- ISO 3166-1 alpha-2
    request    jsonb NOT NULL,                -- gateway.asked: purpose, locale, template and what the program gave along
    client_ref text NOT NULL DEFAULT '',      -- what the program calls it
    payment    bytea,                         -- SHA-256 of what has to be the same when the code comes back
    scenario   text NOT NULL DEFAULT '',      -- in test mode, what becomes of the text
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE verifications_default PARTITION OF verifications DEFAULT;
CREATE INDEX verifications_of ON verifications (tenant_id, test, created_at);
CREATE INDEX verifications_by_number ON verifications (recipient, created_at);
CREATE INDEX verifications_by_ref ON verifications (tenant_id, client_ref, created_at) WHERE client_ref <> '';

-- What was answered to a request that may be repeated. It holds no code and no number.
CREATE TABLE idempotency_keys (
    tenant_id  uuid NOT NULL,
    key        bytea NOT NULL,                -- SHA-256 of mode, route and what the program sent
    request    bytea NOT NULL,                -- HMAC-SHA-256 of the request's body by the key that the program gave
    owner      uuid NOT NULL,                 -- whoever is at it
    started_at timestamptz NOT NULL DEFAULT wall(),
    status     smallint,                      -- NULL: still running
    answer     jsonb,
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (started_at);

-- +goose Down
DROP TABLE idempotency_keys, verifications, tenant_clients, api_keys, tenants, shared_windows;
