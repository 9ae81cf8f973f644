-- +goose Up

-- Texts and mails of a challenge that another took the place of: whatever has not been handed over never will be, and all is erased. That is hardly ever to be done when a challenge
-- is opened, and a part of that statement would be set up, for every day's partition, each time.
-- +goose StatementBegin
CREATE FUNCTION messages_cancel(challenge uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE messages SET body = NULL, updated_at = wall(), lease_until = NULL, state = CASE WHEN state = 'queued' THEN 'canceled' ELSE state END
     WHERE challenge_id = challenge AND (body IS NOT NULL OR state = 'queued');
    RETURN true;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION mails_cancel(challenge uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE mails SET state = 'failed', reason = 'canceled', body = NULL, lease_until = NULL, updated_at = wall()
     WHERE challenge_id = challenge AND state = 'queued';
    RETURN true;
END $$;
-- +goose StatementEnd

-- Whether the challenge has a code that only a vendor can check. Asked when an answer is not right by itself; to look at every day's messages and legs is set up only then.
-- +goose StatementBegin
CREATE FUNCTION message_checked(challenge uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM messages m JOIN legs l ON l.message_id = m.id WHERE m.challenge_id = challenge AND l.checks);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION message_checked(uuid);
DROP FUNCTION mails_cancel(uuid);
DROP FUNCTION messages_cancel(uuid);
