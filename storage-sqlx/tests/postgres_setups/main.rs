//! PostgreSQL with other configurations: settings of the server, the database and the user, proxies, a standby.
//!
//! Each configuration works, or is an error that names the fix. None loses a record, and none reports an existing record as
//! missing.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]
#![allow(dead_code, unused_imports, unused_macros, reason = "the cases are those of other files")]

#[path = "../cases/mod.rs"]
mod cases;
mod database;
mod network;
mod rights;
mod settings;
mod statements;
mod tables;
