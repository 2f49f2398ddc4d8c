//! Connections to a database beside those of a storage: for the settings of its server, and for tables of other libraries.
//!
//! sqlx passes the brackets of an IPv6 address on to the resolver, which rejects them, so they are removed here.

use std::str::FromStr as _;

use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::postgres::{PgConnectOptions, PgConnection};

/// Connects to PostgreSQL.
pub(crate) async fn postgres(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?;
    let host = without_brackets(options.get_host());
    options.host(&host).disable_statement_logging().connect().await
}

/// Connects to MySQL or MariaDB.
pub(crate) async fn mysql(url: &str) -> Result<MySqlConnection, sqlx::Error> {
    let options = MySqlConnectOptions::from_str(url)?;
    let host = without_brackets(options.get_host());
    options.host(&host).disable_statement_logging().connect().await
}

fn without_brackets(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}
