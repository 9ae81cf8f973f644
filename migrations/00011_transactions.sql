-- +goose Up

-- ---------------------------------------------------------------- authn/transaction: what people are asked to confirm

-- One record each. It is not partitioned: it is asked for by its id for more than a year, and decided by it.
CREATE TABLE transactions (
    id               uuid PRIMARY KEY,
    created_at       timestamptz NOT NULL DEFAULT wall(),
    expires_at       timestamptz NOT NULL,
    client_id        text NOT NULL,           -- who asks, and is told
    subscriber_id    uuid NOT NULL,           -- who is asked. No reference: what was decided outlives the account
    door             text NOT NULL,           -- rest, page, ciba
    hash             bytea NOT NULL,          -- SHA-256 of the canonical record
    content          bytea NOT NULL,          -- sealed: the canonical record and what the text said
    challenge_id     uuid NOT NULL,
    authenticator_id uuid NOT NULL,
    kind             text NOT NULL,           -- of that authenticator
    result_id        uuid NOT NULL DEFAULT gen_random_uuid(), -- jti of the signed result
    state            text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'refused', 'reported', 'expired', 'canceled', 'failed')),
    reason           text NOT NULL DEFAULT '',
    decided_at       timestamptz,
    decision         bytea,                   -- sealed: what the page showed
    acr              text,                    -- these of an approval
    amr              text[],
    auth_time        timestamptz,
    reported_at      timestamptz,             -- somebody said «I didn't ask for this», whatever had been decided by then
    CHECK ((state = 'pending') = (decided_at IS NULL))
);
CREATE INDEX transactions_open ON transactions (subscriber_id) WHERE state = 'pending';
CREATE INDEX transactions_due ON transactions (expires_at) WHERE state = 'pending';
CREATE INDEX transactions_by_age ON transactions (created_at);

-- A record never changes, and is decided once.
-- +goose StatementBegin
CREATE FUNCTION transactions_decided_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.created_at, OLD.expires_at, OLD.client_id, OLD.subscriber_id, OLD.door, OLD.hash, OLD.content, OLD.challenge_id, OLD.authenticator_id, OLD.kind, OLD.result_id)
       IS DISTINCT FROM (NEW.id, NEW.created_at, NEW.expires_at, NEW.client_id, NEW.subscriber_id, NEW.door, NEW.hash, NEW.content, NEW.challenge_id, NEW.authenticator_id, NEW.kind, NEW.result_id)
       OR OLD.state <> 'pending' AND (OLD.state, OLD.reason, OLD.decided_at, OLD.decision, OLD.acr, OLD.amr, OLD.auth_time)
       IS DISTINCT FROM (NEW.state, NEW.reason, NEW.decided_at, NEW.decision, NEW.acr, NEW.amr, NEW.auth_time) THEN
        RAISE EXCEPTION 'a transaction never changes, and is decided once' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER decided_once BEFORE UPDATE ON transactions FOR EACH ROW EXECUTE FUNCTION transactions_decided_once();

-- +goose Down
DROP TABLE transactions;
DROP FUNCTION transactions_decided_once();
