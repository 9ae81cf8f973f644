-- +goose Up

-- Proposed in place of that one, which is unbound by the proof.
ALTER TABLE authenticators ADD COLUMN replaces uuid;

-- +goose Down
ALTER TABLE authenticators DROP COLUMN replaces;
