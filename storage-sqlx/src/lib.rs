//! Token storages of [`oauth-dance`](https://docs.rs/oauth-dance) on SQL databases, through sqlx.
//!
//! # When to use it
//!
//! | storage | feature | choose it if |
//! | --- | --- | --- |
//! | `SqliteStorage` | `sqlite`, on by default | one machine is enough |
//! | `PostgresStorage` | `postgres` | several machines share the tokens, and you run PostgreSQL 11 or newer |
//! | `MySqlStorage` | `mysql` | the same with MySQL 8.0, MariaDB 10.5 or newer, or a Galera cluster |
//!
//! The features are independent of each other. `postgres` and `mysql` include TLS. If tokens may be lost with a
//! server's memory, [`oauth-dance-redis`](https://docs.rs/oauth-dance-redis) takes one round trip less.
//!
//! # Example
//!
//! ```
//! use oauth_dance_core::{KeyRing, OAuth2Token, Precondition, Token, TokenKey, Tokens};
//! use oauth_dance_sqlx::SqliteStorage;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("sqlite:{}", folder.path().join("tokens.db").display());
//! let storage = SqliteStorage::connect(&url).await?; // "sqlite:tokens.db"
//! storage.migrate().await?;
//!
//! let tokens = Tokens::sealed(storage, KeyRing::generate());
//! let key = TokenKey::new("github", "alice")?;
//! tokens.put(&key, &Token::from(OAuth2Token::bearer("gho_16C7e42F")), Precondition::Always).await?;
//! # Ok(())
//! # }
//! ```
//!
//! An application gives the storage to `OAuth::builder` of `oauth-dance` instead of
//! [`Tokens`](oauth_dance_core::Tokens). Each storage opens its own pool (`connect`) or uses the application's
//! (`from_pool`).
//!
//! # What all of them do
//!
//! * **One statement for each operation**, on the database's own clock. No transaction can stay open: a future that is
//!   dropped at any point leaves the old or the new record, and no lock.
//! * **Timeouts**: an operation ends within [`DEFAULT_TIMEOUT`] or the one set. A write that was sent but not answered
//!   in time is `Ambiguous`; any other is `Unavailable`. After "busy", a deadlock or a lost serialization race, which
//!   change nothing, the statement is repeated for up to half of that time.
//! * **Reads at the same time share a statement.** A read that starts while another one is in progress waits for the
//!   next statement, which reads up to 64 keys. A read that is alone is one plain statement.
//! * **Keys** are binary columns, compared byte for byte. Tenant, provider and account take up to 255 bytes and a user
//!   up to 1023, as much as an index can hold on each of the databases. A payload takes [`MAX_PAYLOAD`] bytes.
//! * **No secret is logged**: the statement log of sqlx is off for connections made here, and errors contain the
//!   database's code and message only. On PostgreSQL the key and the sealed payload are part of a statement's text,
//!   which a server, or an application with a pool of its own, may log.
//! * **Unreadable rows** affect no others. `get` returns `Corrupt`. `list` shows such a row with a version that matches
//!   nothing and without the hints that cannot be read; `delete` and `put` work. A row whose key is not a
//!   [`TokenKey`](oauth_dance_core::TokenKey) is left out of lists, with a warning in the log.
//!
//! # Where to go next
//!
//! * The page of a storage: its URLs, permissions and limits.
//! * [Storages](https://github.com/oauth-dance/oauth-dance/blob/main/docs/storages.md) in operation,
//!   [poolers](https://github.com/oauth-dance/oauth-dance/blob/main/docs/poolers.md) before PostgreSQL, and
//!   [migrations](https://github.com/oauth-dance/oauth-dance/blob/main/docs/migrations.md).

#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_imports, unused_macros, reason = "not every dialect needs all that the dialects share")
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod address;
mod combined;
mod connection;
mod dialect;
mod engine;
mod error;
#[cfg(all(any(test, fuzzing), any(feature = "mysql", feature = "postgres")))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "postgres")]
mod literal;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "mysql")]
mod mysql_server;
#[cfg(feature = "mysql")]
mod mysql_url;
#[cfg(feature = "postgres")]
mod named;
mod page;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
mod runner;
mod several;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite_file;

use std::time::Duration;

pub use oauth_dance_migrations::{MigrationState, Status as MigrationStatus};

#[cfg(feature = "mysql")]
pub use mysql::MySqlStorage;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStorage;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStorage;

/// The default timeout of an operation.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The statement timeout on the server, on connections that this crate opens. It is shorter than [`DEFAULT_TIMEOUT`],
/// so that the server reports that the statement had no effect.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(8);

/// The maximum size of a payload in bytes. It fits the default packet limits of the databases.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
