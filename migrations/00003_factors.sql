-- +goose Up

-- What factors that check answers themselves keep with an authenticator. They are columns of its row, so that one lock and one conditional
-- UPDATE guard whatever must not be used twice.
ALTER TABLE authenticators
    ADD COLUMN counter       bigint NOT NULL DEFAULT -1,  -- the last that was accepted, of what only rises: a time step
    ADD COLUMN codes_left    bytea[],                     -- keyed hashes of answers that are good once each; NULL: it has none
    ADD COLUMN codes_used    bytea[] NOT NULL DEFAULT '{}',
    -- Not NULL: proposed, and not proved yet. Such a row has unbound_at set, so that nobody who looks for what is bound finds it.
    ADD COLUMN pending_until timestamptz,
    ADD COLUMN name          text NOT NULL DEFAULT '';    -- what its owner calls it
CREATE INDEX authenticators_pending ON authenticators (pending_until) WHERE pending_until IS NOT NULL;

-- +goose Down
DELETE FROM authenticators WHERE pending_until IS NOT NULL;
DROP INDEX authenticators_pending;
ALTER TABLE authenticators DROP COLUMN counter, DROP COLUMN codes_left, DROP COLUMN codes_used, DROP COLUMN pending_until, DROP COLUMN name;
