-- Where oauth-dance keeps OAuth tokens: one row for each account that a user connected.
-- Needs PostgreSQL 11 or newer. To run it by hand: psql --single-transaction -f 0001_create_tokens.sql
-- In a schema of its own: first CREATE SCHEMA auth; SET search_path = auth;

CREATE TABLE oauth_dance_tokens (
    -- The key, compared byte for byte. The bytes are UTF-8: SELECT convert_from(user_id, 'UTF8') shows them as text.
    -- No tenant, or no account, is the empty string: NULLs would not be equal to each other.
    tenant       bytea  NOT NULL,
    user_id      bytea  NOT NULL,
    provider     bytea  NOT NULL,
    account      bytea  NOT NULL,

    -- 16 random bytes, new on every write. A conditional write names the version it replaces.
    version      bytea  NOT NULL,

    -- Copies for operators, all times in seconds since 1970-01-01 UTC: SELECT to_timestamp(expires_at).
    expires_at   bigint,          -- when the access token expires; the row stays, a refresh starts from it
    retain_until bigint,          -- when the row stops to count and may be purged; NULL means never
    key_id       bytea,           -- which key sealed the payload, in hexadecimal; NULL means not sealed
    created_at   bigint NOT NULL, -- when the account was connected
    updated_at   bigint NOT NULL, -- when the row was last written

    -- The token. Sealed (encrypted and bound to the key above) wherever a key ring is configured.
    payload      bytea  NOT NULL,

    PRIMARY KEY (tenant, user_id, provider, account)
);

-- Everything of one user, whatever the tenant.
CREATE INDEX oauth_dance_tokens_user_id ON oauth_dance_tokens (user_id);

-- What expires soon.
CREATE INDEX oauth_dance_tokens_expires_at ON oauth_dance_tokens (expires_at) WHERE expires_at IS NOT NULL;

-- What may be purged.
CREATE INDEX oauth_dance_tokens_retain_until ON oauth_dance_tokens (retain_until) WHERE retain_until IS NOT NULL;
