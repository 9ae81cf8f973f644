-- +goose Up

ALTER TABLE authenticators
    ADD COLUMN replaces  uuid,                            -- proposed in place of this one, which is unbound by the proof
    ADD COLUMN preferred boolean NOT NULL DEFAULT false;  -- its owner wants to be asked for it first

-- +goose Down
ALTER TABLE authenticators DROP COLUMN replaces, DROP COLUMN preferred;
