-- +goose Up

-- A hit brings its window's burst along, so that the row can be judged where it is changed. Only the new row of an insert has it read.
ALTER TABLE windows ADD COLUMN burst integer NOT NULL DEFAULT 0;

-- What shared windows need once in a while. Parts of a statement that hardly ever run cost nearly as much to set up as those that do; a function costs nothing until it is called.

-- shared_window_sum adds up the counts that still count when that many slots have passed.
-- +goose StatementBegin
CREATE FUNCTION shared_window_sum(counts integer[], passed bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT coalesce(sum(c), 0) FROM unnest(counts[:greatest(cardinality(counts) - passed, 0)::int]) c);
END $$;
-- +goose StatementEnd

-- shared_window_shard finds a shard for a hit when every one that exists is full or held by somebody: one that does not exist yet, else one with room, which has to be waited for.
-- +goose StatementBegin
CREATE FUNCTION shared_window_shard(of_name text, of_key bytea, burst bigint, now_slot bigint, shards integer) RETURNS smallint LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce(
        (SELECT n FROM generate_series(0, shards - 1) n WHERE burst / shards + (n < burst % shards)::int > 0
            AND NOT EXISTS (SELECT FROM shared_windows w WHERE w.name = of_name AND w.key = of_key AND w.shard = n) ORDER BY random() LIMIT 1),
        (SELECT w.shard FROM shared_windows w WHERE w.name = of_name AND w.key = of_key
            AND CASE WHEN w.slot < now_slot THEN shared_window_sum(w.counts, now_slot - w.slot) ELSE w.used END < burst / shards + (w.shard < burst % shards)::int
          ORDER BY random() LIMIT 1));
END $$;
-- +goose StatementEnd

-- shared_window_retry is when a window that is full has room again, in a slot of so many seconds; NULL when that cannot be told.
-- +goose StatementBegin
CREATE FUNCTION shared_window_retry(of_name text, of_key bytea, burst bigint, seconds float8, shards integer, slots integer) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT min(to_timestamp((w.slot + n) * seconds)) FROM shared_windows w CROSS JOIN generate_series(1, slots + 1) n
             WHERE w.name = of_name AND w.key = of_key AND shared_window_sum(w.counts, n) < burst / shards + (w.shard < burst % shards)::int);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION shared_window_retry(text, bytea, bigint, float8, integer, integer);
DROP FUNCTION shared_window_shard(text, bytea, bigint, bigint, integer);
DROP FUNCTION shared_window_sum(integer[], bigint);
ALTER TABLE windows DROP COLUMN burst;
