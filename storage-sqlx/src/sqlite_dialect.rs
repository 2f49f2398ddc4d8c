//! What differs between SQLite and the other databases.

use sqlx::error::DatabaseError;
use sqlx::sqlite::{Sqlite, SqliteQueryResult};

use crate::dialect::{Dialect, read_columns, run_prepared};
use crate::error::{ErrorClass, RUN_MIGRATIONS};
use crate::several::Several;
use crate::sql::{After, Texts, UPSERT_ABSENT, UPSERT_ALWAYS};

impl Dialect for Sqlite {
    type LookupState = ();

    const STORAGE_NAME: &'static str = "SQLite";
    const REMOTE: bool = false;
    const PARALLEL_READS: usize = 1;
    // With the lock for writes from the start, because a transaction that has read cannot wait for it.
    const BEGIN: Option<&'static str> = Some("BEGIN IMMEDIATE");

    const TEXTS: Texts = Texts {
        now: "unixepoch()",
        put_always: UPSERT_ALWAYS,
        put_absent: UPSERT_ABSENT,
        purge: "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE retain_until <= {now} LIMIT ?)",
        after: After::Rows,
        several: Several::Rows,
        only_primary: "",
        is_numbered: false,
    };

    fn classify(error: &dyn DatabaseError) -> ErrorClass {
        let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
        class_of(code, error.message())
    }

    fn changed(done: &SqliteQueryResult) -> u64 {
        done.rows_affected()
    }

    run_prepared!();
    read_columns!();
}

/// Classifies an error by its code.
fn class_of(code: u32, message: &str) -> ErrorClass {
    // The low byte is the result code. The other bytes extend it.
    match code & 0xff {
        1 if message.starts_with("no such") => ErrorClass::Misconfigured(RUN_MIGRATIONS),
        5 | 6 => ErrorClass::Busy,
        // An I/O error. The commit may be in the log or not.
        10 => ErrorClass::Broken,
        8 => ErrorClass::Misconfigured("the database file or its folder is read-only; correct the permissions"),
        11 | 26 => ErrorClass::Misconfigured(
            "the file is damaged or not a SQLite database; check the path, or restore a backup",
        ),
        14 => ErrorClass::Misconfigured("the database file cannot be opened; check its path and permissions"),
        // This includes a full disk, after which SQLite has rolled the transaction back.
        _ => ErrorClass::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effect_is_unknown_after_an_io_error() {
        // SQLITE_IOERR, SQLITE_IOERR_FSYNC and SQLITE_IOERR_WRITE.
        for code in [10, 10 | 4 << 8, 10 | 3 << 8] {
            assert_eq!(class_of(code, "disk I/O error"), ErrorClass::Broken, "{code}");
        }
        assert_eq!(class_of(13, "database or disk is full"), ErrorClass::Unavailable);
    }
}
