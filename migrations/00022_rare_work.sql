-- +goose Up

-- More of what the statements of every send and every check hardly ever have to do, and what costs less in one piece than as parts: a part is set up each time, with every day's partition.

-- streak_blocked is the end of the block that the n-th failure in a row brings; NULL: none. Lengths are in seconds. Past the first block, each failure that is not a delay's own brings the next one.
-- +goose StatementBegin
CREATE FUNCTION streak_blocked(n integer, delay_from integer, every integer, block float8, max_block float8, ceiling integer) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF n >= ceiling THEN
        RETURN 'infinity';
    ELSIF n % every = 0 THEN
        RETURN wall() + least(make_interval(secs => block * power(2, least(n / every - 1, 20))), make_interval(secs => max_block));
    ELSIF delay_from > 0 AND n >= delay_from THEN
        RETURN wall() + make_interval(secs => power(2, least(n - delay_from, 10)));
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- streak_count is how many failures in a row a key has, and until when it is blocked for them.
CREATE TYPE streak_count AS (failures integer, blocked_until timestamptz);

-- streak_pay counts a failure in a row, before it is known whether it is one, or is told that won: then the failures in a row are over, if clears is true, and stay as they are otherwise. NULL: blocked, and
-- nothing was counted. Who succeeds without having failed leaves no row behind, and need not call it.
-- +goose StatementBegin
CREATE FUNCTION streak_pay(of_scope text, of_key bytea, won boolean, clears boolean, delay_from integer, every integer, block float8, max_block float8, ceiling integer) RETURNS streak_count LANGUAGE plpgsql AS $$
DECLARE
    counted streak_count;
BEGIN
    IF won THEN
        SELECT 0, s.blocked_until INTO counted FROM streaks s WHERE s.scope = of_scope AND s.key = of_key FOR UPDATE;
        IF counted.blocked_until > wall() THEN
            RETURN NULL;
        ELSIF clears THEN
            DELETE FROM streaks s WHERE s.scope = of_scope AND s.key = of_key;
        END IF;
        RETURN ROW(0, NULL)::streak_count;
    END IF;
    INSERT INTO streaks AS s (scope, key, failures, blocked_until, updated_at)
    VALUES (of_scope, of_key, 1, streak_blocked(1, delay_from, every, block, max_block, ceiling), wall())
    ON CONFLICT (scope, key) DO UPDATE
       SET failures = s.failures + 1, blocked_until = streak_blocked(s.failures + 1, delay_from, every, block, max_block, ceiling), updated_at = wall()
     WHERE s.blocked_until IS NULL OR s.blocked_until <= wall()
    RETURNING s.failures, s.blocked_until INTO counted;
    RETURN counted;
END $$;
-- +goose StatementEnd

-- streak_until is the end of a key's block, or NULL. That of a block for good is a time, which everybody can read.
-- +goose StatementBegin
CREATE FUNCTION streak_until(of_scope text, of_key bytea, endless timestamptz) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT least(s.blocked_until, endless) FROM streaks s WHERE s.scope = of_scope AND s.key = of_key AND s.blocked_until > wall());
END $$;
-- +goose StatementEnd

-- limit_missed is the place of the window with the shortest period, of those that are asked for, that is not among those that were hit.
-- +goose StatementBegin
CREATE FUNCTION limit_missed(names text[], keys bytea[], seconds float8[], hit_names text[], hit_keys bytea[]) RETURNS integer LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT n FROM unnest(names, keys, seconds) WITH ORDINALITY AS a(name, key, period, n)
             WHERE NOT EXISTS (SELECT FROM unnest(hit_names, hit_keys) AS h(name, key) WHERE h.name = a.name AND h.key = a.key)
             ORDER BY a.period, n LIMIT 1);
END $$;
-- +goose StatementEnd

-- challenges_supersede ends what a new challenge, besides, takes the place of: that of the same browser and purpose, and the oldest of more than so many in all. Their texts and mails are erased.
-- +goose StatementBegin
CREATE FUNCTION challenges_supersede(of_subject uuid, of_browser bytea, of_purpose text, live integer, besides uuid) RETURNS TABLE (challenge_id uuid, subject uuid) ROWS 1 LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        WITH ended AS (
            UPDATE challenges c SET ended_at = wall(), outcome = 'superseded'
             WHERE c.subject = of_subject AND c.id <> besides AND c.ended_at IS NULL AND c.created_at > wall() - interval '6 hours' AND c.created_at < wall() + interval '1 hour'
               AND (c.browser = of_browser AND c.purpose = of_purpose OR c.created_at <= (
                    SELECT o.created_at FROM challenges o
                     WHERE o.subject = of_subject AND o.id <> besides AND o.ended_at IS NULL AND o.expires_at > wall() AND o.created_at > wall() - interval '6 hours' AND o.created_at < wall() + interval '1 hour'
                     ORDER BY o.created_at DESC OFFSET live - 1 LIMIT 1))
            RETURNING c.id, c.subject)
        SELECT e.id, e.subject FROM ended e WHERE messages_cancel(e.id) AND mails_cancel(e.id);
END $$;
-- +goose StatementEnd

-- challenge_brief is a challenge without what is known of its messages and blocks. One that is older than two days is not looked for.
-- +goose StatementBegin
CREATE FUNCTION challenge_brief(challenge uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT jsonb_build_object('id', c.id, 'kind', c.kind, 'purpose', c.purpose, 'attempts', c.attempts, 'max_attempts', c.max_attempts, 'sends', c.sends,
                   'next_send_at', c.next_send_at, 'expires_at', c.expires_at, 'ended_at', c.ended_at, 'outcome', coalesce(c.outcome, ''))
              FROM challenges c WHERE c.id = challenge AND c.created_at > wall() - interval '2 days' AND c.created_at < wall() + interval '1 hour');
END $$;
-- +goose StatementEnd

-- webhook_enqueue has an endpoint told of an event. Where something is due for it already the workers have been told, and look again after each call: telling is what commits wait for one another for.
-- +goose StatementBegin
CREATE FUNCTION webhook_enqueue(endpoint uuid, event uuid, happened timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM webhook_queue q WHERE q.endpoint_id = endpoint AND q.due_at <= wall() AND q.claim IS NULL) THEN
        PERFORM pg_notify('webhook_queue', '');
    END IF;
    INSERT INTO webhook_queue (endpoint_id, event_id, event_at) VALUES (endpoint, event, happened);
    RETURN true;
END $$;
-- +goose StatementEnd

-- A window's end moves with every hit. An index on it would have each hit write to all of the table's indexes; whoever removes what is over comes once an hour, and can read the table.
DROP INDEX windows_by_expiry;
ALTER TABLE windows SET (fillfactor = 70);

-- Hits of shared windows may be taken ahead, several at once.
DROP FUNCTION shared_window_shard(text, bytea, bigint, bigint, integer);
-- +goose StatementBegin
CREATE FUNCTION shared_window_shard(of_name text, of_key bytea, burst bigint, now_slot bigint, shards integer, wanted bigint) RETURNS smallint LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce(
        (SELECT n FROM generate_series(0, shards - 1) n WHERE burst / shards + (n < burst % shards)::int >= wanted
            AND NOT EXISTS (SELECT FROM shared_windows w WHERE w.name = of_name AND w.key = of_key AND w.shard = n) ORDER BY random() LIMIT 1),
        (SELECT w.shard FROM shared_windows w WHERE w.name = of_name AND w.key = of_key
            AND CASE WHEN w.slot < now_slot THEN shared_window_sum(w.counts, now_slot - w.slot) ELSE w.used END + wanted <= burst / shards + (w.shard < burst % shards)::int
          ORDER BY random() LIMIT 1));
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION shared_window_shard(text, bytea, bigint, bigint, integer, bigint);
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
ALTER TABLE windows RESET (fillfactor);
CREATE INDEX windows_by_expiry ON windows (expires_at);
DROP FUNCTION webhook_enqueue(uuid, uuid, timestamptz);
DROP FUNCTION challenge_brief(uuid);
DROP FUNCTION challenges_supersede(uuid, bytea, text, integer, uuid);
DROP FUNCTION limit_missed(text[], bytea[], float8[], text[], bytea[]);
DROP FUNCTION streak_until(text, bytea, timestamptz);
DROP FUNCTION streak_pay(text, bytea, boolean, boolean, integer, integer, float8, float8, integer);
DROP TYPE streak_count;
DROP FUNCTION streak_blocked(integer, integer, integer, float8, float8, integer);
