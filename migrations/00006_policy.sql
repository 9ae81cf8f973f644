-- +goose Up

-- What policy looks at: the groups a subscriber is in, and the kind of factor that an event proves. Events of before have none: where policy names the
-- factors that it takes, they are asked for anew.
ALTER TABLE subscribers ADD COLUMN groups text[] NOT NULL DEFAULT '{}';
ALTER TABLE session_events ADD COLUMN kind text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE session_events DROP COLUMN kind;
ALTER TABLE subscribers DROP COLUMN groups;
