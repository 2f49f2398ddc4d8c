//! What differs between SQLite and the other databases.

use sqlx::error::DatabaseError;
use sqlx::sqlite::{Sqlite, SqliteQueryResult};

use crate::dialect::{Dialect, read_columns, run_prepared};
use crate::error::{ErrorClass, RUN_MIGRATIONS};
use crate::several::Several;
use crate::sql::{After, Texts};

impl Dialect for Sqlite {
    type LookupState = ();

    const STORAGE_NAME: &'static str = "SQLite";
    const REMOTE: bool = false;
    const PARALLEL_READS: usize = 1;

    const TEXTS: Texts = Texts {
        now: "unixepoch()",
        put_always: "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON CONFLICT (tenant, user_id, provider, account) DO UPDATE \
            SET version = excluded.version, payload = excluded.payload, expires_at = excluded.expires_at, \
                retain_until = excluded.retain_until, key_id = excluded.key_id, updated_at = excluded.updated_at",
        put_absent: "INSERT INTO {table} AS existing (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON CONFLICT (tenant, user_id, provider, account) DO UPDATE \
            SET version = excluded.version, payload = excluded.payload, expires_at = excluded.expires_at, \
                retain_until = excluded.retain_until, key_id = excluded.key_id, \
                created_at = excluded.created_at, updated_at = excluded.updated_at \
            WHERE existing.retain_until <= {now}",
        purge: "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE retain_until <= {now} LIMIT ?)",
        after: After::Rows,
        several: Several::Rows,
        only_primary: "",
        is_numbered: false,
    };

    fn classify(error: &dyn DatabaseError) -> ErrorClass {
        let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
        // The low byte is the result code. The other bytes extend it.
        match code & 0xff {
            1 if error.message().starts_with("no such") => ErrorClass::Misconfigured(RUN_MIGRATIONS),
            5 | 6 => ErrorClass::Busy,
            8 => ErrorClass::Misconfigured("the database file or its folder is read-only; correct the permissions"),
            11 | 26 => ErrorClass::Misconfigured(
                "the file is damaged or not a SQLite database; check the path, or restore a backup",
            ),
            14 => ErrorClass::Misconfigured("the database file cannot be opened; check its path and permissions"),
            _ => ErrorClass::Unavailable,
        }
    }

    fn changed(done: &SqliteQueryResult) -> u64 {
        done.rows_affected()
    }

    run_prepared!();
    read_columns!();
}
