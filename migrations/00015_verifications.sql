-- +goose Up

-- Whoever asked for a verification is told when its time has passed: once, by whoever notices first, which the outcome stands for.
ALTER TABLE challenges DROP CONSTRAINT challenges_outcome_check;
ALTER TABLE challenges ADD CONSTRAINT challenges_outcome_check CHECK (outcome IN ('verified', 'failed', 'canceled', 'superseded', 'expired'));
CREATE INDEX challenges_expiring ON challenges (expires_at) WHERE ended_at IS NULL AND purpose = 'gateway';

-- When the next of the channels that were named has its turn, unless the text has arrived by then. NULL: never.
ALTER TABLE verifications ADD COLUMN next_at timestamptz;
CREATE INDEX verifications_next ON verifications (next_at) WHERE next_at IS NOT NULL;

-- Channels to be tried, in that order, instead of those in the sealed body. NULL: those.
ALTER TABLE messages ADD COLUMN channels text[];

-- Whose code a mail carries. NULL: it carries none.
ALTER TABLE mails ADD COLUMN challenge_id uuid;
CREATE INDEX mails_of ON mails (challenge_id) WHERE challenge_id IS NOT NULL;

-- +goose Down
ALTER TABLE mails DROP COLUMN challenge_id;
ALTER TABLE messages DROP COLUMN channels;
ALTER TABLE verifications DROP COLUMN next_at;
DROP INDEX challenges_expiring;
UPDATE challenges SET ended_at = NULL, outcome = NULL WHERE outcome = 'expired';
ALTER TABLE challenges DROP CONSTRAINT challenges_outcome_check;
ALTER TABLE challenges ADD CONSTRAINT challenges_outcome_check CHECK (outcome IN ('verified', 'failed', 'canceled', 'superseded'));
