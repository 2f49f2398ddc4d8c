-- Where oauth-dance keeps OAuth tokens: one row for each account that a user connected.
-- Needs MySQL 8.0 or MariaDB 10.5, or newer. To run it by hand: mysql DATABASE < 0001_create_tokens.sql
-- One statement, so that it happens wholly or not at all.

CREATE TABLE IF NOT EXISTS oauth_dance_tokens (
    -- The key, compared byte for byte, without any collation. The bytes are UTF-8:
    -- SELECT CONVERT(user_id USING utf8mb4) shows them as text.
    -- No tenant, or no account, is the empty string: NULLs would not be equal to each other.
    tenant       VARBINARY(255)  NOT NULL,
    user_id      VARBINARY(1023) NOT NULL,
    provider     VARBINARY(255)  NOT NULL,
    account      VARBINARY(255)  NOT NULL,

    -- 16 random bytes, new on every write. A conditional write names the version it replaces.
    version      VARBINARY(16)   NOT NULL,

    -- Copies for operators, all times in seconds since 1970-01-01 UTC: SELECT FROM_UNIXTIME(expires_at).
    expires_at   BIGINT,          -- when the access token expires; the row stays, a refresh starts from it
    retain_until BIGINT,          -- when the row stops to count and may be purged; NULL means never
    key_id       VARBINARY(255),  -- which key sealed the payload, in hexadecimal; NULL means not sealed
    created_at   BIGINT NOT NULL, -- when the account was connected
    updated_at   BIGINT NOT NULL, -- when the row was last written

    -- The token. Sealed (encrypted and bound to the key above) wherever a key ring is configured.
    payload      MEDIUMBLOB NOT NULL,

    PRIMARY KEY (tenant, user_id, provider, account),
    -- Everything of one user, whatever the tenant.
    KEY oauth_dance_tokens_user_id (user_id),
    -- What expires soon.
    KEY oauth_dance_tokens_expires_at (expires_at),
    -- What may be purged.
    KEY oauth_dance_tokens_retain_until (retain_until)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
