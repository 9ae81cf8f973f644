-- +goose Up

-- Of the transactions that one person is asked to confirm at once, however many ask at the same moment.
ALTER TABLE transactions ADD COLUMN slot smallint;
CREATE UNIQUE INDEX transactions_slots ON transactions (subscriber_id, slot) WHERE state = 'pending';

-- +goose Down
ALTER TABLE transactions DROP COLUMN slot;
