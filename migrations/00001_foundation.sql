-- +goose Up

-- wall is the clock of every expiry, lock and limit. All replicas share the database's, so that
-- clocks that differ between them cannot revive a code. Tests replace it to move time.
CREATE FUNCTION wall() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT now()';

-- ---------------------------------------------------------------- authn: who signs in

CREATE TABLE subscribers (
    id                  uuid PRIMARY KEY,
    subject             text NOT NULL UNIQUE DEFAULT gen_random_uuid()::text, -- sub: the name applications know
    username            text NOT NULL,
    password_hash       text,                 -- PHC string; NULL: no password can match
    password_changed_at timestamptz,
    profile             bytea NOT NULL,       -- sealed JSON of OpenID Connect Core 5.1 standard claims
    created_at          timestamptz NOT NULL DEFAULT wall(),
    updated_at          timestamptz NOT NULL DEFAULT wall(),
    not_before          timestamptz,          -- sessions and grants that began earlier are worth nothing
    disabled_at         timestamptz
);
CREATE INDEX subscribers_by_name ON subscribers (username, id);

-- Every spelling by which a subscriber signs in (user name, e-mail address), as a keyed fingerprint of
-- its canonical form: one subscriber, one failure counter, whatever was typed.
CREATE TABLE identifiers (
    fingerprint   bytea PRIMARY KEY,
    subscriber_id uuid NOT NULL REFERENCES subscribers ON DELETE CASCADE
);
CREATE INDEX identifiers_of ON identifiers (subscriber_id);

CREATE TABLE sessions (
    id            uuid PRIMARY KEY,
    token_hash    bytea NOT NULL UNIQUE,      -- SHA-256 of the cookie's 256 random bits
    sid           text NOT NULL,              -- the name relying parties know the session by
    subscriber_id uuid REFERENCES subscribers ON DELETE CASCADE, -- NULL until the password was right
    created_at    timestamptz NOT NULL DEFAULT wall(),
    last_seen_at  timestamptz NOT NULL DEFAULT wall(),
    ended_at      timestamptz,
    end_reason    text
);
CREATE INDEX sessions_of ON sessions (subscriber_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_age ON sessions (created_at);

-- What happened in a session. acr, amr and auth_time are derived from these rows and from nothing else.
CREATE TABLE session_events (
    session_id       uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    at               timestamptz NOT NULL DEFAULT wall(),
    strength         smallint NOT NULL,       -- authn.Strength
    amr              text[] NOT NULL,         -- RFC 8176 section 2
    authenticator_id uuid,
    sign_in_id       uuid NOT NULL
);
CREATE INDEX session_events_of ON session_events (session_id);

-- One sign-in attempt: what an application asked for, bound to the browser that began it.
CREATE TABLE sign_ins (
    id            uuid NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT wall(),
    expires_at    timestamptz NOT NULL,
    session_id    uuid NOT NULL,
    relying_party jsonb NOT NULL,             -- authn.RelyingParty
    requirement   jsonb NOT NULL,             -- authn.Requirement
    payload       bytea NOT NULL,             -- the protocol's own request, opaque to authn
    locales       text NOT NULL DEFAULT '',
    login_hint    bytea,                      -- sealed
    challenge_id  uuid,                       -- the latest challenge of this sign-in
    consented     text[],                     -- scopes allowed in this sign-in
    done_at       timestamptz,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE sign_ins_default PARTITION OF sign_ins DEFAULT;

CREATE TABLE consents (
    subscriber_id uuid NOT NULL REFERENCES subscribers ON DELETE CASCADE,
    relying_party text NOT NULL,
    scopes        text[] NOT NULL,
    granted_at    timestamptz NOT NULL DEFAULT wall(),
    PRIMARY KEY (subscriber_id, relying_party)
);

-- ---------------------------------------------------------------- limits: what may happen how often

-- Failures in a row, per scope ('password', 'factor') and key. Paid before the secret is compared.
CREATE TABLE streaks (
    scope         text NOT NULL,
    key           bytea NOT NULL,
    failures      integer NOT NULL,
    blocked_until timestamptz,
    updated_at    timestamptz NOT NULL DEFAULT wall(),
    PRIMARY KEY (scope, key)
);

-- Exact sliding windows: the times of the latest hits, never more than a window's burst.
CREATE TABLE windows (
    name       text NOT NULL,
    key        bytea NOT NULL,
    hits       timestamptz[] NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (name, key)
);
CREATE INDEX windows_by_expiry ON windows (expires_at);

-- ---------------------------------------------------------------- factors: what proves possession

-- One enrolment each: this subject's phone. A subject is whoever the host says; here a subscriber's id.
CREATE TABLE authenticators (
    id           uuid PRIMARY KEY,
    subject      uuid NOT NULL,
    kind         text NOT NULL,
    data         bytea NOT NULL,              -- sealed; for sms the number in E.164
    fingerprint  bytea,                       -- keyed; for sms of the number
    hint         text NOT NULL DEFAULT '',    -- what its owner may see: the last two digits
    bound_at     timestamptz NOT NULL DEFAULT wall(),
    last_used_at timestamptz,
    unbound_at   timestamptz
);
CREATE INDEX authenticators_of ON authenticators (subject) WHERE unbound_at IS NULL;
CREATE INDEX authenticators_by_fingerprint ON authenticators (fingerprint) WHERE unbound_at IS NULL;

-- The ledger: every question a person is asked to answer, whatever the purpose.
CREATE TABLE challenges (
    id               uuid NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT wall(),
    subject          uuid NOT NULL,
    authenticator_id uuid,
    kind             text NOT NULL,
    purpose          text NOT NULL,
    binding          bytea NOT NULL,          -- SHA-256 over everything an answer must come with
    browser          bytea NOT NULL,          -- whoever may hold one live challenge per purpose: session or API client
    macs             bytea[] NOT NULL DEFAULT '{}',       -- keyed hashes of the codes, oldest first
    mac_expiries     timestamptz[] NOT NULL DEFAULT '{}', -- one for each
    attempts         smallint NOT NULL DEFAULT 0,
    max_attempts     smallint NOT NULL,
    sends            smallint NOT NULL DEFAULT 0,
    next_send_at     timestamptz,
    expires_at       timestamptz NOT NULL,    -- of the code that lives longest
    ended_at         timestamptz,
    outcome          text CHECK (outcome IN ('verified', 'failed', 'canceled', 'superseded')),
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE challenges_default PARTITION OF challenges DEFAULT;
CREATE INDEX challenges_live ON challenges (subject, created_at) WHERE ended_at IS NULL;

-- ---------------------------------------------------------------- sms: what is carried

-- The outbox. A row is written in the transaction of whatever it tells about; a worker owns what follows.
CREATE TABLE messages (
    id           uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT wall(),
    challenge_id uuid,
    purpose      text NOT NULL,
    locale       text NOT NULL,
    body         bytea,                       -- sealed number and text; NULL once erased
    recipient    bytea NOT NULL,              -- keyed fingerprint of the number
    hint         text NOT NULL,               -- its last two digits
    country      text NOT NULL,               -- ISO 3166-1 alpha-2
    state        text NOT NULL DEFAULT 'queued' CHECK (state IN
                 ('queued', 'sent', 'delivered', 'undelivered', 'failed', 'canceled')),
    reason       text,                        -- sms.Class of the last failure
    due_at       timestamptz NOT NULL DEFAULT wall(),
    lease_until  timestamptz,
    legs         smallint NOT NULL DEFAULT 0,
    not_after    timestamptz NOT NULL,        -- never sent later than this
    sent_at      timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT wall(),
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE messages_default PARTITION OF messages DEFAULT;
CREATE INDEX messages_due ON messages (due_at) WHERE state = 'queued';
CREATE INDEX messages_of ON messages (challenge_id) WHERE challenge_id IS NOT NULL;
CREATE INDEX messages_to_erase ON messages (not_after) WHERE body IS NOT NULL;

-- One call to one vendor, stored before the call; its id is the idempotency key.
CREATE TABLE legs (
    id          uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT wall(),
    message_id  uuid NOT NULL,
    vendor      text NOT NULL,
    channel     text NOT NULL DEFAULT 'sms',
    state       text NOT NULL DEFAULT 'calling' CHECK (state IN
                ('calling', 'accepted', 'sent', 'unknown', 'undelivered', 'failed', 'delivered')),
    vendor_ref  text,
    error_class text,
    error_code  text,
    answered_at timestamptz,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE legs_default PARTITION OF legs DEFAULT;
CREATE INDEX legs_of ON legs (message_id);
CREATE INDEX legs_by_vendor_ref ON legs (vendor, vendor_ref) WHERE vendor_ref IS NOT NULL;

-- ---------------------------------------------------------------- oidc: what applications are told

CREATE TABLE clients (
    id           text PRIMARY KEY,
    registration jsonb NOT NULL,              -- oidc.Registration
    secret_hash  bytea,                       -- SHA-256 of a secret of 256 random bits
    created_at   timestamptz NOT NULL DEFAULT wall(),
    updated_at   timestamptz NOT NULL DEFAULT wall(),
    disabled_at  timestamptz
);

CREATE TABLE signing_keys (
    kid          text PRIMARY KEY,
    alg          text NOT NULL,
    private      bytea NOT NULL,              -- sealed JWK
    public       jsonb NOT NULL,              -- JWK
    state        text NOT NULL CHECK (state IN ('pending', 'active', 'retired')),
    created_at   timestamptz NOT NULL DEFAULT wall(),
    active_from  timestamptz NOT NULL,        -- published from the beginning, used from then on
    retired_at   timestamptz                  -- published until the last token that it signed has ended
);

-- What one sign-in gave one application. acr, amr, auth_time and sid are said here once; every token is
-- minted from this row, and no token says more.
CREATE TABLE grants (
    id            uuid PRIMARY KEY,
    client_id     text NOT NULL REFERENCES clients ON DELETE CASCADE,
    subscriber_id uuid REFERENCES subscribers ON DELETE CASCADE, -- NULL: the client itself
    sub           text NOT NULL,              -- of the subscriber, or the client's id
    session_id    uuid,
    sid           text,
    scopes        text[] NOT NULL,
    acr           text,
    amr           text[],
    auth_time     timestamptz,
    claims        jsonb,                      -- the claims parameter, OpenID Connect Core 5.5
    created_at    timestamptz NOT NULL DEFAULT wall(),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    revoke_reason text
);
CREATE INDEX grants_of_subscriber ON grants (subscriber_id) WHERE revoked_at IS NULL;
CREATE INDEX grants_of_session ON grants (session_id) WHERE revoked_at IS NULL;
CREATE INDEX grants_by_expiry ON grants (expires_at);

CREATE TABLE authz_codes (
    hash           bytea NOT NULL,            -- SHA-256 of 256 random bits
    created_at     timestamptz NOT NULL DEFAULT wall(),
    expires_at     timestamptz NOT NULL,
    grant_id       uuid NOT NULL,
    client_id      text NOT NULL,
    redirect_uri   text NOT NULL,
    code_challenge text NOT NULL,             -- RFC 7636 section 4.2, S256; '' for a client exempted by name
    nonce          text,
    redeemed_at    timestamptz,
    PRIMARY KEY (hash, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE authz_codes_default PARTITION OF authz_codes DEFAULT;

CREATE TABLE refresh_tokens (
    hash       bytea PRIMARY KEY,             -- SHA-256 of 256 random bits
    grant_id   uuid NOT NULL REFERENCES grants ON DELETE CASCADE,
    client_id  text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT wall(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX refresh_tokens_of ON refresh_tokens (grant_id);

-- Opaque access tokens, and nothing of the signed ones but the revoked: those carry their grant.
CREATE TABLE access_tokens (
    hash       bytea NOT NULL,                -- SHA-256 of 256 random bits, or of a revoked token's jti
    created_at timestamptz NOT NULL DEFAULT wall(),
    expires_at timestamptz NOT NULL,
    grant_id   uuid NOT NULL,
    scopes     text[] NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (hash, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE access_tokens_default PARTITION OF access_tokens DEFAULT;

-- Client assertions seen, RFC 7523 section 3 item 7.
CREATE TABLE client_assertions (
    client_id  text NOT NULL,
    jti_hash   bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (client_id, jti_hash)
);
CREATE INDEX client_assertions_by_expiry ON client_assertions (expires_at);

-- ---------------------------------------------------------------- audit: what can be proved afterwards

CREATE TABLE audit_events (
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    at         timestamptz NOT NULL DEFAULT wall(),
    event      text NOT NULL,
    outcome    text NOT NULL,
    reason     text NOT NULL DEFAULT '',
    actor      text NOT NULL DEFAULT '',      -- who did it: the subject itself, an operator, the system
    subject    uuid,
    client_id  text,
    session_id uuid,
    object     text NOT NULL DEFAULT '',      -- what it was done to: challenge, message, grant, key
    source     text NOT NULL DEFAULT '',      -- network address
    request_id text NOT NULL DEFAULT '',
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT;
CREATE INDEX audit_events_by_time ON audit_events (at);

-- +goose StatementBegin
CREATE FUNCTION audit_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_events_append_only();

-- +goose Down
DROP TABLE audit_events, client_assertions, access_tokens, refresh_tokens, authz_codes, grants, signing_keys, clients,
    legs, messages, challenges, authenticators, windows, streaks, consents, sign_ins, session_events, sessions,
    identifiers, subscribers;
DROP FUNCTION audit_events_append_only();
DROP FUNCTION wall();
