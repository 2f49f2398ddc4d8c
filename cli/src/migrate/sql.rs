//! The migrations as a script, for an administrator to read and run.

use std::fmt::Write as _;

use oauth_dance_migrations::TableName;

use super::Dialect;

/// Writes all migrations after a version into one script, which also records them as applied, like `migrate up`.
///
/// The script is one transaction, unless the database cannot roll back a change of a table.
pub(super) fn script(dialect: Dialect, table: &TableName, after: i64) -> String {
    let migrator = dialect.of_migrations().migrator(table);
    let bookkeeping = table.bookkeeping();
    let mut script = format!("-- The table {table} of oauth-dance {}.\n", env!("CARGO_PKG_VERSION"));
    script.push_str(dialect.opening());
    if let Some(schema) = table.schema().filter(|_| dialect == Dialect::Postgres) {
        line(&mut script, &format!("CREATE SCHEMA IF NOT EXISTS {schema};"));
    }
    line(&mut script, "\n-- Records the applied migrations, for this program and the application.");
    line(&mut script, &format!("CREATE TABLE IF NOT EXISTS {bookkeeping} ({});", dialect.bookkeeping()));

    for migration in migrator.iter().filter(|migration| migration.version > after) {
        let (version, description) = (migration.version, &migration.description);
        line(&mut script, &format!("\n-- Migration {version}: {description}.\n"));
        line(&mut script, migration.sql.as_str().trim_end());
        let checksum = dialect.bytes(&migration.checksum);
        line(
            &mut script,
            &format!(
                "\nINSERT INTO {bookkeeping} (version, description, success, checksum, execution_time)\n\
                VALUES ({version}, '{description}', TRUE, {checksum}, -1);"
            ),
        );
    }
    // MySQL commits a change of a table by itself, but the server may have `autocommit = 0`.
    script.push_str("\nCOMMIT;\n");
    script
}

fn line(script: &mut String, text: &str) {
    script.push_str(text);
    script.push('\n');
}

impl Dialect {
    fn of_migrations(self) -> oauth_dance_migrations::Dialect {
        match self {
            Self::Sqlite => oauth_dance_migrations::Dialect::Sqlite,
            Self::Postgres => oauth_dance_migrations::Dialect::Postgres,
            Self::Mysql => oauth_dance_migrations::Dialect::MySql,
        }
    }

    fn opening(self) -> &'static str {
        match self {
            Self::Sqlite => "-- Run it with: sqlite3 -bail FILE\n\nBEGIN IMMEDIATE;\n",
            Self::Postgres => "-- Run it with: psql --set ON_ERROR_STOP=1\n\nBEGIN;\n",
            Self::Mysql => "-- Run it with: mariadb DATABASE, or mysql DATABASE\n",
        }
    }

    /// The columns of the bookkeeping table as sqlx creates it.
    fn bookkeeping(self) -> String {
        let (time, bytes) = match self {
            Self::Sqlite | Self::Mysql => ("TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP", "BLOB"),
            Self::Postgres => ("TIMESTAMPTZ NOT NULL DEFAULT now()", "BYTEA"),
        };
        format!(
            "\n    version BIGINT PRIMARY KEY,\n    description TEXT NOT NULL,\n    installed_on {time},\n    \
            success BOOLEAN NOT NULL,\n    checksum {bytes} NOT NULL,\n    execution_time BIGINT NOT NULL\n"
        )
    }

    fn bytes(self, bytes: &[u8]) -> String {
        let mut digits = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            // A write to a string never fails.
            let _ = write!(digits, "{byte:02x}");
        }
        match self {
            Self::Sqlite | Self::Mysql => format!("X'{digits}'"),
            Self::Postgres => format!("decode('{digits}', 'hex')"),
        }
    }
}
