//! The SQL tables of [`oauth-dance`](https://docs.rs/oauth-dance)'s token storages.
//!
//! The migrations are plain, commented files that a database administrator can read and run, one folder for each
//! dialect. The crate embeds the same files.
//!
//! # When to use it
//!
//! An application does not need this crate: it calls `migrate()` on its
//! [`oauth-dance-sqlx`](https://docs.rs/oauth-dance-sqlx) storage. An operator can use `oauth-dance migrate` of
//! [`oauth-dance-cli`](https://docs.rs/oauth-dance-cli). Use this crate to print the SQL, or to apply it with your own
//! migration tool.
//!
//! # Example
//!
//! ```
//! use oauth_dance_migrations::{Dialect, TableName};
//!
//! let table: TableName = "my_tokens".parse()?;
//! for migration in Dialect::Sqlite.migrations() {
//!     let sql = migration.sql(&table);
//!     assert!(sql.contains("my_tokens"));
//!     println!("-- {}: {}\n{sql}", migration.version, migration.description);
//! }
//! # Ok::<(), oauth_dance_migrations::TableNameError>(())
//! ```
//!
//! # What migrations promise
//!
//! * **Separate bookkeeping.** Applied migrations are recorded in `_oauth_dance_tokens_migrations`, never in
//!   `_sqlx_migrations`. The tables can therefore share a database with the application's own migrations.
//! * **No downtime.** Migrations only add. A release that does not know the newest migration continues to work, so that
//!   replicas can be upgraded one by one.
//! * **No surprises.** An applied migration never changes. If the file of this release differs from the applied one,
//!   migrating is an error, and nothing is applied.
//!
//! # Features
//!
//! None is on by default. Each adds two functions: one applies the pending migrations, and one reports the state of
//! all. Any number of processes may call them at the same time.
//!
//! | feature | adds |
//! | --- | --- |
//! | `sqlite` | `migrate_sqlite`, `status_sqlite` |
//! | `postgres` | `migrate_postgres`, `status_postgres` |
//! | `mysql` | `migrate_mysql`, `status_mysql`, for MariaDB too |
//!
//! # Where to go next
//!
//! * [`Dialect`]: the migrations as text, or as a [`Migrator`] of sqlx.
//! * [`Status`]: how a database compares with this release.
//! * [Migrations](https://github.com/oauth-dance/oauth-dance/blob/main/docs/migrations.md): upgrades, permissions, and
//!   an operator's commands.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#[cfg_attr(
    not(any(feature = "sqlite", feature = "mysql")),
    allow(dead_code, reason = "PostgreSQL has its own code to read and apply migrations")
)]
mod run;
mod table;

use std::borrow::Cow;

use sqlx::migrate::{Migration as SqlxMigration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

#[cfg(feature = "mysql")]
pub use mysql::{migrate_mysql, status_mysql};
#[cfg(feature = "postgres")]
pub use postgres::{migrate_postgres, status_postgres};
#[cfg(feature = "sqlite")]
pub use run::{migrate_sqlite, status_sqlite};
pub use table::{TableName, TableNameError};

/// A family of databases that understand the same SQL.
///
/// ```
/// use oauth_dance_migrations::{Dialect, TableName};
///
/// let first = &Dialect::Postgres.migrations()[0];
/// assert_eq!((first.version, first.description), (1, "create tokens"));
/// assert!(first.sql(&TableName::default()).contains("CREATE TABLE"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// SQLite 3.38 or newer.
    Sqlite,
    /// PostgreSQL 11 or newer.
    Postgres,
    /// MySQL 8.0 and MariaDB 10.5, or newer.
    MySql,
}

impl Dialect {
    /// Every migration of this dialect in this release, oldest first.
    pub fn migrations(self) -> &'static [Migration] {
        match self {
            Self::Sqlite => &SQLITE,
            Self::Postgres => &POSTGRES,
            Self::MySql => &MYSQL,
        }
    }

    /// The migrations for one table as a [`Migrator`] of sqlx, for an application that already runs its own migrations
    /// through sqlx.
    ///
    /// The migrator uses a separate bookkeeping table, and ignores migrations of a newer release. If several processes
    /// may start at the same time, prefer `migrate_sqlite`, `migrate_postgres` or `migrate_mysql`. sqlx itself takes no
    /// lock on SQLite and MariaDB, and does not release its lock on PostgreSQL if a migration fails.
    ///
    /// ```
    /// use oauth_dance_migrations::{Dialect, TableName};
    ///
    /// let migrator = Dialect::Sqlite.migrator(&TableName::default());
    /// assert_eq!(migrator.table_name, "_oauth_dance_tokens_migrations");
    /// // migrator.run(&pool).await?;
    /// ```
    pub fn migrator(self, table: &TableName) -> Migrator {
        let migrations = self.migrations().iter().map(|migration| migration.to_sqlx(table)).collect();
        let mut migrator = Migrator::with_migrations(migrations);
        migrator.dangerous_set_table_name(table.bookkeeping());
        migrator.set_ignore_missing(true);
        migrator
    }
}

/// One migration: a SQL file and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The number of the migration, counted from 1.
    pub version: i64,
    /// What the migration does, in a few words.
    pub description: &'static str,
    text: &'static str,
}

impl Migration {
    /// The SQL of the migration for a table of this name. With the default name, it is the text of the file.
    ///
    /// The text consists of one or more statements. Each can be applied again without an error, so that an interrupted
    /// migration can be repeated.
    pub fn sql(&self, table: &TableName) -> String {
        // Git may have checked the file out with other line endings, which must not change the checksum.
        table.write_into(&self.text.replace("\r\n", "\n"))
    }

    /// The migration in the type of sqlx, whose checksum identifies the file. It does not depend on the name of the table,
    /// because the same table may be known with and without its schema, and may be renamed.
    fn to_sqlx(self, table: &TableName) -> SqlxMigration {
        let named = |table: &TableName| {
            // Safe, because the text is a constant, and a table name consists of letters, digits and underscores.
            let sql = AssertSqlSafe(self.sql(table)).into_sql_str();
            SqlxMigration::new(self.version, Cow::Borrowed(self.description), MigrationType::Simple, sql, false)
        };
        SqlxMigration { checksum: named(&TableName::default()).checksum, ..named(table) }
    }
}

/// A migration and its state in a database, as `status_sqlite`, `status_postgres` and `status_mysql` return it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The number of the migration.
    pub version: i64,
    /// What the migration does. Empty for a migration of a newer release, which this release does not know.
    pub description: &'static str,
    /// The state in the database.
    pub state: MigrationState,
}

/// The state of a migration in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MigrationState {
    /// Not applied yet. The storage works only after it was applied.
    Pending,
    /// Applied.
    Applied,
    /// Applied from a file that differs from the file of this release. Compare the schema with the file before you
    /// correct the bookkeeping table.
    Altered,
    /// Applied by a newer release. This release works with it.
    Newer,
}

const SQLITE: [Migration; 1] =
    [Migration { version: 1, description: "create tokens", text: include_str!("../sqlite/0001_create_tokens.sql") }];

const POSTGRES: [Migration; 2] = [
    Migration { version: 1, description: "create tokens", text: include_str!("../postgres/0001_create_tokens.sql") },
    Migration {
        version: 2,
        description: "index users by key",
        text: include_str!("../postgres/0002_index_users_by_key.sql"),
    },
];

const MYSQL: [Migration; 1] =
    [Migration { version: 1, description: "create tokens", text: include_str!("../mysql/0001_create_tokens.sql") }];

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ALL: [(Dialect, &str); 3] =
        [(Dialect::Sqlite, "sqlite"), (Dialect::Postgres, "postgres"), (Dialect::MySql, "mysql")];

    #[test]
    fn every_file_is_embedded() {
        for (dialect, folder) in ALL {
            let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
            let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            files.sort();
            assert_eq!(files.len(), dialect.migrations().len());

            for (index, (file, migration)) in files.iter().zip(dialect.migrations()).enumerate() {
                assert_eq!(migration.version, i64::try_from(index).unwrap() + 1);
                let name = format!("{:04}_{}.sql", migration.version, migration.description.replace(' ', "_"));
                assert_eq!(file.file_name().unwrap(), name.as_str());
                let text = std::fs::read_to_string(file).unwrap().replace("\r\n", "\n");
                assert_eq!(migration.sql(&TableName::default()), text);
            }
        }
    }

    #[test]
    fn line_endings_do_not_change_the_checksum() {
        let table = TableName::default();
        let unix = Migration { version: 1, description: "x", text: "-- a\nSELECT 1;\n" };
        let dos = Migration { text: "-- a\r\nSELECT 1;\r\n", ..unix };
        assert_eq!(unix.to_sqlx(&table).checksum, dos.to_sqlx(&table).checksum);
    }

    #[test]
    fn another_table_name_is_used_throughout() {
        let table: TableName = "my_tokens".parse().unwrap();
        for (dialect, _) in ALL {
            let migrator = dialect.migrator(&table);
            assert_eq!(migrator.table_name, "_my_tokens_migrations");
            for migration in migrator.iter() {
                assert!(!migration.sql.as_str().contains("oauth_dance"), "{}", migration.sql.as_str());
                assert!(migration.sql.as_str().contains("my_tokens"));
            }
            let checksums =
                |table| dialect.migrator(table).iter().map(|known| known.checksum.clone()).collect::<Vec<_>>();
            assert_eq!(checksums(&table), checksums(&TableName::default()));
        }
    }
}
