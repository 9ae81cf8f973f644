-- +goose Up

-- When a text changed is when its state did: that it was erased, because its challenge ended, is no change that anybody sees.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION messages_cancel(challenge uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE messages SET body = NULL, lease_until = NULL, updated_at = CASE WHEN state = 'queued' THEN wall() ELSE updated_at END, state = CASE WHEN state = 'queued' THEN 'canceled' ELSE state END
     WHERE challenge_id = challenge AND (body IS NOT NULL OR state = 'queued');
    RETURN true;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION messages_cancel(challenge uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE messages SET body = NULL, updated_at = wall(), lease_until = NULL, state = CASE WHEN state = 'queued' THEN 'canceled' ELSE state END
     WHERE challenge_id = challenge AND (body IS NOT NULL OR state = 'queued');
    RETURN true;
END $$;
-- +goose StatementEnd
