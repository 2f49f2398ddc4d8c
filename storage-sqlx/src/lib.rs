//! Token storages of [`oauth-dance`](https://docs.rs/oauth-dance) on SQL databases, through sqlx.
//!
//! # When to use it
//!
//! | storage | feature | choose it if |
//! | --- | --- | --- |
//! | `SqliteStorage` | `sqlite`, on by default | one machine is enough |
//! | `PersonalStorage` | `personal` | a command-line or desktop program stores the tokens of one person |
//! | `PostgresStorage` | `postgres` | several machines share the tokens, and you run PostgreSQL 11 or newer |
//! | `MySqlStorage` | `mysql` | several machines share the tokens, and you run MySQL 8.0, MariaDB 10.5 or newer, or Galera |
//!
//! If it is acceptable that users have to log in again after a server has lost data,
//! [`oauth-dance-redis`](https://docs.rs/oauth-dance-redis) is an alternative.
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
//!
//! let stored = tokens.get(&key).await?.expect("a token was stored");
//! assert_eq!(stored.value, Token::from(OAuth2Token::bearer("gho_16C7e42F")));
//! # Ok(())
//! # }
//! ```
//!
//! A web application passes the storage to `OAuth::builder` of `oauth-dance`, which creates the
//! [`Tokens`](oauth_dance_core::Tokens) itself. A storage opens its own pool (`connect`) or uses the pool of the
//! application (`from_pool`). A clone is cheap, and shares the pool.
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | `sqlite` (default) | `SqliteStorage`, with SQLite compiled in |
//! | `postgres` | `PostgresStorage`, with TLS |
//! | `mysql` | `MySqlStorage`, with TLS |
//! | `personal` | `sqlite`, and `PersonalStorage`: the tokens of one person, with their key in the operating system's keyring |
//!
//! The features are independent of each other.
//!
//! # Migrations
//!
//! `migrate()` creates or updates the table. It records applied migrations in its own table, so that it does not
//! interfere with the application's migrations, and any number of processes may call it at the same time. If the
//! application may not change its schema, an operator applies the migrations, and the application verifies them:
//!
//! ```
//! use oauth_dance_sqlx::{MigrationState, SqliteStorage};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("sqlite:{}", folder.path().join("tokens.db").display());
//! let storage = SqliteStorage::connect(&url).await?;
//! # storage.migrate().await?;
//! let is_pending = |state| state == MigrationState::Pending;
//! if storage.migrations().await?.iter().any(|migration| is_pending(migration.state)) {
//!     return Err("run `oauth-dance migrate up` before this release is started".into());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What the storages have in common
//!
//! * **One statement for each operation**, on the database's own clock. All operations are cancel safe: dropping a future
//!   leaves the old or the new record, no lock and no open transaction.
//! * **Timeouts**: an operation ends within [`DEFAULT_TIMEOUT`], or within the timeout that `with_timeout` sets. If a
//!   write was sent and no response arrived in time, the error is `Ambiguous`; otherwise it is `Unavailable`. After a
//!   busy database, a deadlock or a serialization failure, none of which changes anything, the statement is repeated
//!   for up to half of that time.
//! * **Concurrent reads share a statement.** A read that starts while three others are in progress (one on SQLite)
//!   waits for the next statement, which reads up to 64 keys. Otherwise a read is one plain statement.
//! * **Concurrent writes to a SQLite file share a transaction**, up to 64 at a time, and so wait for the disk once. The
//!   transactions run on a thread of the storage. Otherwise a write is one plain statement.
//! * **Keys** are binary columns, compared byte by byte. Tenant, provider and account have up to 255 bytes and a user
//!   up to 1023, which is the most that an index of every database can contain. A payload has up to [`MAX_PAYLOAD`]
//!   bytes.
//! * **No secret is logged**: the statement log of sqlx is off for connections made here, and errors contain the
//!   database's code and message only. On PostgreSQL the key and the sealed payload are part of a statement's text. A
//!   server may log it, and so may sqlx for a pool of the application.
//! * **Unreadable rows** do not affect other rows. `get` returns `Corrupt`, `delete` and `put` work, and `list` returns
//!   the row without the hints that cannot be read, and with a version that matches nothing. A row whose key is not a
//!   [`TokenKey`](oauth_dance_core::TokenKey) is left out of lists, with a warning in the log. `invalid_keys` finds it.
//!
//! # Where to go next
//!
//! * The documentation of the storage that you choose: its URLs, durability and limits.
//! * [Storages](https://github.com/oauth-dance/oauth-dance/blob/main/docs/storages.md): every storage in operation.
//! * [Poolers](https://github.com/oauth-dance/oauth-dance/blob/main/docs/poolers.md): PgBouncer and others.
//! * [Migrations](https://github.com/oauth-dance/oauth-dance/blob/main/docs/migrations.md): upgrades without downtime.

#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_imports, unused_macros, reason = "not every dialect needs all of the shared code")
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
mod generation;
mod group_commit;
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
#[cfg(feature = "personal")]
mod personal;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_dialect;
#[cfg(feature = "postgres")]
mod postgres_session;
mod record;
mod runner;
mod runtime;
mod several;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite_dialect;
#[cfg(feature = "sqlite")]
mod sqlite_file;
mod transaction;
mod write;

use std::time::Duration;

pub use oauth_dance_migrations::{MigrationState, Status as MigrationStatus};

#[cfg(feature = "mysql")]
pub use mysql::MySqlStorage;
#[cfg(feature = "personal")]
#[cfg_attr(docsrs, doc(cfg(feature = "personal")))]
pub use personal::{KeyPlace, PersonalError, PersonalStorage, PersonalStorageBuilder};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStorage;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStorage;

/// The timeout of an operation, unless `with_timeout` of the storage sets another one.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The statement timeout on the server, on connections that this crate opens. It is shorter than [`DEFAULT_TIMEOUT`],
/// so that the server reports that the statement had no effect.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(8);

/// The maximum size of a payload: 8 MiB. It fits the default packet limits of the databases.
///
/// A larger payload is [`StorageError::TooLarge`](oauth_dance_core::StorageError::TooLarge). A payload is an encoded
/// and sealed token, and most tokens have less than 10 KiB.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
