-- +goose Up

-- A random id whose first byte is the part of the day: 0 at midnight (UTC), 255 just before the next. In tables with a partition for each day new rows so go to the pages of an index that the latest went to. Were
-- ids wholly random each row would need a page of its own, and with millions of rows every one has to be fetched, logged whole after a checkpoint, and written back.
-- +goose StatementBegin
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
SELECT encode(set_byte(uuid_send(gen_random_uuid()), 0, (floor(date_part('epoch', now()))::bigint % 86400 * 256 / 86400)::integer), 'hex')::uuid
$$;
-- +goose StatementEnd
-- While somebody reads these for long, a backup say, this would wait, and everybody who writes would wait behind it. It fails instead, and can be run again.
SET LOCAL lock_timeout = '2s';
ALTER TABLE audit_events ALTER COLUMN id SET DEFAULT new_id();
ALTER TABLE events ALTER COLUMN id SET DEFAULT new_id();

-- +goose Down
SET LOCAL lock_timeout = '2s';
ALTER TABLE events ALTER COLUMN id SET DEFAULT gen_random_uuid();
ALTER TABLE audit_events ALTER COLUMN id SET DEFAULT gen_random_uuid();
DROP FUNCTION new_id();
