-- +goose Up

-- Which transaction wrote a record: whatever a snapshot did not see, a later one does, so that no record is linked twice or never, however late
-- its transaction commits.
ALTER TABLE audit_events ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX audit_events_by_xid ON audit_events (xid);

-- The chain over the records. Nobody who writes a record waits for its link: one replica adds links behind them (internal/audit).
-- By the day of linking, in which the numbers grow: what is dropped is the beginning of the chain and nothing else.
CREATE TABLE audit_links (
    seq       bigint NOT NULL,         -- 1, 2, 3 …, without gaps
    event_id  uuid NOT NULL,
    at        timestamptz NOT NULL,    -- of the record
    digest    bytea NOT NULL,          -- SHA-256 of the record's canonical form
    hash      bytea NOT NULL,          -- SHA-256 of the hash before, seq, event_id, at and digest
    linked_at timestamptz NOT NULL DEFAULT wall(),
    PRIMARY KEY (seq, linked_at)
) PARTITION BY RANGE (linked_at);
CREATE TABLE audit_links_default PARTITION OF audit_links DEFAULT;
CREATE INDEX audit_links_by_event ON audit_links (event_id);

-- The end of the chain, signed with a key outside the database.
CREATE TABLE audit_head (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq       bigint NOT NULL,
    hash      bytea NOT NULL,
    at        timestamptz NOT NULL,    -- when it was signed
    seen      pg_snapshot NOT NULL,    -- what this snapshot saw is linked
    floor     xid8 NOT NULL,           -- what older transactions wrote was looked for everywhere, whatever time it bears
    cluster   text NOT NULL,           -- whose transactions these are: a dump takes them to servers that count from elsewhere
    key       text NOT NULL,           -- names the public key
    signature bytea NOT NULL           -- Ed25519 over all of this
);
INSERT INTO audit_head (seq, hash, at, seen, floor, cluster, key, signature)
VALUES (0, decode(repeat('00', 32), 'hex'), 'epoch', '3:3:', '3', '', '', '');

-- Heads that are kept for good, one an hour and the last of each day: when the links before it are gone, the rest is verified from there.
CREATE TABLE audit_checkpoints (
    seq       bigint PRIMARY KEY,
    hash      bytea NOT NULL,
    at        timestamptz NOT NULL,
    seen      pg_snapshot NOT NULL,
    floor     xid8 NOT NULL,
    cluster   text NOT NULL,
    key       text NOT NULL,
    signature bytea NOT NULL
);
CREATE INDEX audit_checkpoints_by_time ON audit_checkpoints (at);

-- +goose StatementBegin
CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_links FOR EACH ROW EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_checkpoints FOR EACH ROW EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON audit_events EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON audit_links EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER not_emptied BEFORE TRUNCATE ON audit_checkpoints EXECUTE FUNCTION audit_append_only();

-- +goose Down
DROP TRIGGER not_emptied ON audit_events;
DROP TABLE audit_checkpoints, audit_head, audit_links;
DROP FUNCTION audit_append_only();
ALTER TABLE audit_events DROP COLUMN xid;
