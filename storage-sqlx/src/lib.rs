//! OAuth token storage on SQL databases, through sqlx: the [`TokenStorage`](oauth_dance_core::TokenStorage) of
//! `oauth-dance` on SQLite, PostgreSQL, MySQL and MariaDB, each behind a feature of its name.
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
//! # What every database here does
//!
//! * **One statement an operation**, on the database's own clock, so there is no transaction to leave open: a future
//!   dropped at any point leaves the old or the new record and no lock.
//! * **Time-outs**: an operation ends within [`DEFAULT_TIMEOUT`] or the one set. A write that was sent and not
//!   answered in time is `Ambiguous`; everything else is `Unavailable`. "Busy", deadlocks and lost serialization
//!   races changed nothing and are tried again inside, for half of that time.
//! * **Keys** are binary columns, compared byte for byte. Tenant, provider and account take 255 bytes, a user
//!   1023, as much as an index holds on each of the databases. A payload takes [`MAX_PAYLOAD`] bytes.
//! * **Nothing secret is logged**: sqlx's statement log is off for connections made here, and errors carry the
//!   database's code and message only. On PostgreSQL the key and the sealed payload are part of a statement's text, for
//!   whoever logs statements: the server, or the application on a pool of its own.
//! * **Unreadable rows** harm no other. `get` says `Corrupt`; `list` shows such a row with a version that matches
//!   nothing and without the hints that cannot be read; `delete` and `put` work. A row whose key is no
//!   [`TokenKey`](oauth_dance_core::TokenKey) is left out of lists with a warning in the log.

#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_imports, unused_macros, reason = "what the dialects share, not each of them needs")
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod address;
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
#[cfg(feature = "postgres")]
mod postgres;
mod record;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite_file;

use std::time::Duration;

pub use oauth_dance_migrations::{State as MigrationState, Status as MigrationStatus};

#[cfg(feature = "mysql")]
pub use mysql::MySqlStorage;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStorage;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStorage;

/// The longest an operation takes, unless set otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest a server works on a statement, on connections made here: less, so that it is the server who says that
/// nothing was done.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(8);

/// The most bytes a payload may have: small enough for the packet limits that databases come with.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
