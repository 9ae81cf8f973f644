-- +goose Up

-- Authorization requests that applications pushed, RFC 9126: checked, and stored as a sign-in that has not begun. Each may be opened until it expires or is
-- answered, and gives one code in all.
CREATE TABLE pushed_requests (
    hash          bytea NOT NULL,             -- SHA-256 of the 256 random bits of its request_uri
    created_at    timestamptz NOT NULL DEFAULT wall(),
    expires_at    timestamptz NOT NULL,
    client_id     text NOT NULL,
    relying_party jsonb NOT NULL,             -- these as in sign_ins
    requirement   jsonb NOT NULL,
    payload       bytea NOT NULL,
    locales       text NOT NULL,
    login_hint    bytea,
    used_at       timestamptz,                -- answered
    PRIMARY KEY (hash, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE pushed_requests_default PARTITION OF pushed_requests DEFAULT;

-- DPoP proofs seen, RFC 9449 section 11.1.
CREATE TABLE dpop_proofs (
    hash       bytea PRIMARY KEY,             -- SHA-256 of the key's thumbprint and the proof's jti
    expires_at timestamptz NOT NULL           -- nobody would accept it any more
);
CREATE INDEX dpop_proofs_by_expiry ON dpop_proofs (expires_at);

-- What was allowed beside scopes, RFC 9396: canonical JSON, byte for byte what was shown. The grant has all of it, an access token perhaps less.
ALTER TABLE grants ADD COLUMN details json;
ALTER TABLE access_tokens ADD COLUMN details json;

-- The thumbprint, RFC 7638, of the key without which a code or a token is worth nothing. NULL: whoever has it may use it.
ALTER TABLE authz_codes ADD COLUMN dpop_jkt text;
ALTER TABLE access_tokens ADD COLUMN dpop_jkt text;
ALTER TABLE refresh_tokens ADD COLUMN dpop_jkt text; -- of public clients alone: others prove themselves

-- +goose Down
ALTER TABLE refresh_tokens DROP COLUMN dpop_jkt;
ALTER TABLE access_tokens DROP COLUMN dpop_jkt, DROP COLUMN details;
ALTER TABLE authz_codes DROP COLUMN dpop_jkt;
ALTER TABLE grants DROP COLUMN details;
DROP TABLE dpop_proofs, pushed_requests;
