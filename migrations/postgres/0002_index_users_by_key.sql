-- Lets the index of users find one row. The planner may choose it for a read by the whole key. With the user alone, such
-- a read would go through all rows of a user.
-- To run it by hand: psql --single-transaction -f 0002_index_users_by_key.sql
-- Writes wait while the index is built, for some seconds for each million rows. To avoid this, first run the statement
-- on its own as CREATE INDEX CONCURRENTLY.

CREATE INDEX IF NOT EXISTS oauth_dance_tokens_user_key ON oauth_dance_tokens (user_id, tenant, provider, account);

-- The index is in the schema of the table.
DO $drop$
DECLARE
    replaced regclass := (
        SELECT indexrelid FROM pg_catalog.pg_index JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = 'oauth_dance_tokens'::regclass AND relname = 'oauth_dance_tokens_user_id'
    );
BEGIN
    IF replaced IS NOT NULL THEN
        EXECUTE 'DROP INDEX ' || replaced::text;
    END IF;
END $drop$;
