-- +goose Up

-- ---------------------------------------------------------------- events: what programs are told

-- What happened, thin: ids and states, never a code or a number. A row is written in the statement of what it tells.
CREATE TABLE events (
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT wall(),
    owner      text NOT NULL,               -- whose it is: operator, tenant:…, client:…
    type       text NOT NULL,
    data       jsonb NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE INDEX events_of ON events (owner, created_at);

-- Where an owner is told.
CREATE TABLE webhook_endpoints (
    id              uuid PRIMARY KEY,
    owner           text NOT NULL,
    url             text NOT NULL,
    description     text NOT NULL DEFAULT '',
    events          text[] NOT NULL DEFAULT '{}', -- types, and families such as verification.*; empty: all
    secret          bytea NOT NULL,         -- sealed
    previous_secret bytea,                  -- signs beside the new one until then
    previous_until  timestamptz,
    created_at      timestamptz NOT NULL DEFAULT wall(),
    updated_at      timestamptz NOT NULL DEFAULT wall(),
    disabled_at     timestamptz,
    disabled_reason text,                   -- operator, owner, gone, failing
    failures        integer NOT NULL DEFAULT 0, -- in a row
    failing_since   timestamptz,
    pause_until     timestamptz,            -- not called earlier: it has been failing
    listen_until    timestamptz             -- NULL: servers deliver; else somebody's desk does, until then
);
CREATE INDEX webhook_endpoints_of ON webhook_endpoints (owner);

-- What has to be delivered yet. Small: a row goes when its delivery ends.
CREATE TABLE webhook_queue (
    endpoint_id uuid NOT NULL,
    event_id    uuid NOT NULL,
    event_at    timestamptz NOT NULL,
    attempts    smallint NOT NULL DEFAULT 0, -- begun
    due_at      timestamptz NOT NULL DEFAULT wall(), -- of a claimed row: when the claim is over
    claim       uuid,
    PRIMARY KEY (endpoint_id, event_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX webhook_queue_due ON webhook_queue (endpoint_id, due_at);
CREATE INDEX webhook_queue_claimed ON webhook_queue (endpoint_id) WHERE claim IS NOT NULL;

-- How calls ended.
CREATE TABLE webhook_attempts (
    id          uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at  timestamptz NOT NULL DEFAULT wall(),
    endpoint_id uuid NOT NULL,
    event_id    uuid NOT NULL,
    attempt     smallint NOT NULL,
    result      text NOT NULL,              -- delivered, refused, gone, timeout, unreachable, dns, tls, forbidden
    status      smallint,                   -- of the answer
    took_ms     integer NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE webhook_attempts_default PARTITION OF webhook_attempts DEFAULT;
CREATE INDEX webhook_attempts_of ON webhook_attempts (event_id, endpoint_id);

-- +goose Down
DROP TABLE webhook_attempts, webhook_queue, webhook_endpoints, events;
