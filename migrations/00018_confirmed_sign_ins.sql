-- +goose Up

-- The payment that the person is asked to confirm. No reference: it outlives the sign-in, and the other way round.
ALTER TABLE sign_ins ADD COLUMN transaction_id uuid;

-- +goose Down
ALTER TABLE sign_ins DROP COLUMN transaction_id;
