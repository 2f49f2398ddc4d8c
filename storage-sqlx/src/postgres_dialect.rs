//! What differs between PostgreSQL and the other databases.
//!
//! A connection whose [session](crate::postgres_session) belongs to it alone prepares its statements, like those of the
//! other databases. This is not possible through a pooler. A pooler in transaction mode runs each transaction on any of
//! its server connections. Therefore a statement must not depend on the session: values are literals in its text
//! ([`literal`](crate::literal)), settings are local to it ([`PREFIX`]), and prepared statements have names that mean
//! the same everywhere ([`named`](crate::named)).

use std::sync::atomic::AtomicBool;

use sqlx::error::DatabaseError;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgQueryResult, PgSeverity, Postgres,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, raw_sql};

use crate::dialect::{Bind, Dialect, StatementResult, collect, execute_prepared, read_columns};
use crate::error::ErrorClass;
use crate::literal::with_literals;
use crate::named::LookupName;
use crate::postgres_session::open;
use crate::several::Several;
use crate::sql::{After, Sql, Texts, UPSERT_ABSENT, UPSERT_ALWAYS};

/// The settings that precede every statement and end with it. A setting of the session would not do, because a pooler
/// may run the next statement on another server connection. With `row_security = off`, row-level security that would
/// hide rows is an error. Hidden rows would look like missing tokens.
const PREFIX: &str = "SET LOCAL statement_timeout = 8000; SET LOCAL row_security = off; SET LOCAL bytea_output = hex; ";

impl Dialect for Postgres {
    type LookupState = LookupName;

    const STORAGE_NAME: &'static str = "PostgreSQL";
    const REMOTE: bool = true;
    const PARALLEL_READS: usize = 3;

    const TEXTS: Texts = Texts {
        now: "floor(extract(epoch FROM statement_timestamp()))::bigint",
        put_always: UPSERT_ALWAYS,
        put_absent: UPSERT_ABSENT,
        // Rows are locked first. Rows that another statement has locked are skipped, because it may be replacing the
        // record. If an operator has partitioned the table, a live row of another partition can have the same `ctid`,
        // so the retention is compared again. `+ 0` prevents a scan of an index that compares each row with all `ctid`s.
        purge: "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE retain_until <= {now} \
                LIMIT ? FOR UPDATE SKIP LOCKED)) AND retain_until + 0 <= {now}",
        after: After::Rows,
        several: Several::Arrays,
        // Evaluated once, before any row is read.
        only_primary: " AND (SELECT 1 / (NOT pg_catalog.pg_is_in_recovery())::int) = 1",
        is_numbered: true,
    };

    fn classify(error: &dyn DatabaseError) -> ErrorClass {
        let severity = error.try_downcast_ref::<PgDatabaseError>().map_or(PgSeverity::Error, PgDatabaseError::severity);
        class_of(severity, &error.code().unwrap_or_default(), error.message())
    }

    fn changed(done: &PgQueryResult) -> u64 {
        done.rows_affected()
    }

    async fn open(options: &PgConnectOptions, is_pooler: &AtomicBool) -> Result<(PgConnection, bool), sqlx::Error> {
        open(options, is_pooler).await
    }

    async fn run_prepared(
        connection: &mut PgConnection,
        sql: &Sql,
        binds: &[Bind<'_>],
    ) -> Result<StatementResult<Self>, sqlx::Error> {
        match execute_prepared(connection, sql, binds).await {
            // feature_not_supported: the type of a column has changed since the statement was prepared.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("0A000") => {
                connection.clear_cached_statements().await?;
                execute_prepared(connection, sql, binds).await
            }
            result => result,
        }
    }

    /// Sends a statement through the simple query protocol, with the values in its text.
    async fn run(
        connection: &mut PgConnection,
        sql: &Sql,
        binds: &[Bind<'_>],
    ) -> Result<StatementResult<Self>, sqlx::Error> {
        send(connection, &with_literals(&sql.text, binds)?).await
    }

    /// Executes the statement by its name, so that the server need not parse and plan it. If the name is unknown, the
    /// statement is prepared for the next read and then sent itself, so a lookup takes at most three messages. Writes
    /// have no names, because a server logs an unknown name together with the values.
    async fn lookup(
        connection: &mut PgConnection,
        sql: &Sql,
        binds: &[Bind<'_>],
        name: &LookupName,
    ) -> Result<StatementResult<Self>, sqlx::Error> {
        if !name.may_try() {
            return Self::run(connection, sql, binds).await;
        }
        let named = name.of(&sql.text, binds);
        let error = match send(connection, &named.execute(binds)?).await {
            Err(sqlx::Error::Database(error)) => error,
            result => return result,
        };
        let Some(remedy) = named.remedy(error.as_ref()) else { return Err(sqlx::Error::Database(error)) };
        name.report_unknown();
        match send(connection, &remedy).await {
            // A pooler may have switched the server connection. The statement itself reports any other problem.
            Ok(_) | Err(sqlx::Error::Database(_)) => Self::run(connection, sql, binds).await,
            Err(error) => Err(error),
        }
    }

    read_columns!();
}

/// Classifies an error by its severity and code.
fn class_of(severity: PgSeverity, code: &str, message: &str) -> ErrorClass {
    match code {
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => ErrorClass::Busy,
        // The server was shut down or crashed during the statement, or ended an idle session.
        "57P01" | "57P02" | "57P05" => ErrorClass::Broken,
        // The only division by zero is the one in `only_primary`.
        "25006" | "22012" => ErrorClass::ReadOnly(READ_ONLY),
        "42P01" => ErrorClass::Misconfigured(NO_TABLE),
        "3F000" => ErrorClass::Misconfigured(NO_SCHEMA),
        "42703" | "42804" | "42809" | "42883" | "42P07" | "42P10" => ErrorClass::Misconfigured(ANOTHER_TABLE),
        "42501" => ErrorClass::Misconfigured(NO_PRIVILEGE),
        "28000" | "28P01" => ErrorClass::Misconfigured(
            "the server rejects this user, password or client host (pg_hba.conf); correct the URL or the server",
        ),
        "3D000" => ErrorClass::Misconfigured("there is no database of this name; create it, or correct the URL"),
        "26000" | "42P05" => ErrorClass::Misconfigured(UNTRACKED_STATEMENTS),
        "08P01" => protocol_violation(message),
        // Too many connections, and a server that is starting or stopping. The statement was not executed.
        "53300" | "57P03" => ErrorClass::Unavailable,
        // A pooler had no connection for the statement.
        _ if message.contains("could not get connection from the pool") => ErrorClass::Unavailable,
        // The commit may have happened before the connection, the server or a pooler failed. PgCat and Pgpool report
        // a lost server with the codes of system errors (58) and internal errors (XX).
        "40003" => ErrorClass::Broken,
        _ if ["08", "58", "XX"].iter().any(|class| code.starts_with(class)) => ErrorClass::Broken,
        _ if matches!(severity, PgSeverity::Fatal | PgSeverity::Panic) => ErrorClass::Broken,
        // The server has rolled the statement back.
        _ => ErrorClass::Unavailable,
    }
}

/// Sends one message. Its text is safe: it consists of constants, a table name of letters, digits and underscores, and
/// quoted digits.
async fn send(connection: &mut PgConnection, statement: &str) -> Result<StatementResult<Postgres>, sqlx::Error> {
    let message = AssertSqlSafe(format!("{PREFIX}{statement}"));
    collect(connection.fetch_many(raw_sql(message))).await
}

async fn execute_prepared(
    connection: &mut PgConnection,
    sql: &Sql,
    binds: &[Bind<'_>],
) -> Result<StatementResult<Postgres>, sqlx::Error> {
    execute_prepared!(
        Postgres,
        connection,
        sql,
        binds,
        |arguments: &mut PgArguments, rows: &[[&[u8]; 4]], column: usize| {
            arguments.add(rows.iter().map(|row| row[column]).collect::<Vec<_>>())
        }
    )
}

/// Classifies a protocol violation by its message, because PgBouncer reports most of its errors with this code.
fn protocol_violation(message: &str) -> ErrorClass {
    let contains_any = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if contains_any(&["startup parameter"]) {
        ErrorClass::Misconfigured(START_UP)
    } else if contains_any(&["no such database"]) {
        ErrorClass::Misconfigured("the pooler has no database of this name; add it to the pooler's configuration")
    } else if contains_any(&["no such user", "authentication failed", "auth failed"]) {
        ErrorClass::Misconfigured("the pooler rejects this user, password or host; correct the URL or the pooler")
    } else if contains_any(&["statement pooling mode"]) {
        ErrorClass::Misconfigured(
            "the pooler does not support transactions; set its pool_mode to transaction or session",
        )
    } else if contains_any(&["prepared statement", "bind message"]) {
        ErrorClass::Misconfigured(UNTRACKED_STATEMENTS)
    } else if contains_any(&[
        "query_wait_timeout",
        "cannot connect to server",
        "login has been failing",
        "no more connections",
    ]) {
        // The statement waited for a server connection, and was never sent to the server.
        ErrorClass::Unavailable
    } else {
        ErrorClass::Broken
    }
}

/// The advice for an operator, which is part of an error.
const READ_ONLY: &str = "the server does not accept writes: it is a standby, or default_transaction_read_only is on; \
    connect to the primary, or turn the setting off for this user";
const NO_TABLE: &str = "the table is missing, or its schema is not in the search_path; \
    run the migrations with `migrate()` or by hand, or name the schema with `with_table(\"schema.table\")`";
const NO_SCHEMA: &str = "the search_path contains no schema of this database; \
    set it for this user, or name the schema with `with_table(\"schema.table\")` and run the migrations";
const ANOTHER_TABLE: &str = "the table does not have the columns of this release, or is another table of this name; \
    run the migrations, or choose another name with `with_table`";
const NO_PRIVILEGE: &str = "the database user lacks a privilege on the table or its schema, or row-level security is on for \
    this user; grant the privilege, or turn row-level security off for the table, or for the user with BYPASSRLS";
const START_UP: &str = "the pooler rejects a start-up parameter; remove `options` from the URL, call \
    `extra_float_digits(None)` on the options of your own pool, or add it to the pooler's ignore_startup_parameters";
const UNTRACKED_STATEMENTS: &str = "a pooler does not track prepared statements; set max_prepared_statements there (PgBouncer 1.21 or \
    newer) or pool_mode = session, or turn prepared statements off in the application";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effect_is_unknown_unless_the_server_rolled_back() {
        use PgSeverity::{Error, Fatal, Panic};

        for (severity, code) in [
            (Fatal, "58000"),
            (Error, "58030"),
            (Error, "XX000"),
            (Panic, "53100"),
            (Panic, "58030"),
            (Fatal, "57P01"),
            (Fatal, "25P04"),
            (Error, "40003"),
            (Fatal, "08006"),
        ] {
            assert_eq!(class_of(severity, code, ""), ErrorClass::Broken, "{severity:?} {code}");
        }
        for (severity, code) in
            [(Fatal, "53300"), (Fatal, "57P03"), (Error, "53100"), (Error, "57014"), (Error, "22P02")]
        {
            assert_eq!(class_of(severity, code, ""), ErrorClass::Unavailable, "{severity:?} {code}");
        }
        let no_connection = class_of(Fatal, "58000", "could not get connection from the pool - AllServersDown");
        assert_eq!(no_connection, ErrorClass::Unavailable);
    }

    #[test]
    fn pgbouncer_errors_are_classified_by_message() {
        let misconfigured = [
            "unsupported startup parameter: extra_float_digits",
            "unsupported startup parameter in options: work_mem",
            "no such database: app",
            "no such user: app",
            "password authentication failed",
            "transaction blocks not allowed in statement pooling mode",
            "bind message supplies 5 parameters, but prepared statement \"sqlx_s_1\" requires 4",
        ];
        for message in misconfigured {
            assert!(matches!(protocol_violation(message), ErrorClass::Misconfigured(_)), "{message}");
        }
        for message in ["query_wait_timeout", "pgbouncer cannot connect to server"] {
            assert_eq!(protocol_violation(message), ErrorClass::Unavailable, "{message}");
        }
        for message in ["server conn crashed?", "server closed the connection unexpectedly", "client_idle_timeout"] {
            assert_eq!(protocol_violation(message), ErrorClass::Broken, "{message}");
        }
    }
}
