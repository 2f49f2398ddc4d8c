//! Detects whether a connection to PostgreSQL has a session of its own.
//!
//! On a session of its own, a connection can prepare statements by number, as sqlx does, and settings remain. Behind a
//! pooler it cannot, because the next transaction may run in another session. A connection therefore names a random
//! number in its start-up message, as the value of a setting that no pooler knows, and then reads the setting. A
//! pooler rejects or ignores it, so only a session that this message has started has the number.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};

use oauth_dance_core::random_bytes;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Executor as _, Row as _, raw_sql};

/// The setting with the number. PostgreSQL accepts any setting whose name contains a dot.
const NUMBER: &str = "oauth_dance.session";
/// Reads the number, and whether a start-up message has set a setting. A pooler could set both by `SET` in each session
/// that it uses for a client, and then the source is the session.
const READ_NUMBER: &str = "SELECT pg_catalog.current_setting('oauth_dance.session', true), \
    (SELECT source FROM pg_catalog.pg_settings WHERE name = 'row_security')";
/// The settings of a session. With `row_security = off`, row-level security that would hide rows is an error.
const SETTINGS: [(&str, &str); 2] = [("statement_timeout", "8000"), ("row_security", "off")];

/// Opens a connection. Returns whether its session belongs to it alone.
///
/// `is_pooler` is set if a pooler rejects the settings, so that the next connection does not send them.
///
/// # Errors
/// The error of the connection.
pub(crate) async fn open(
    options: &PgConnectOptions,
    is_pooler: &AtomicBool,
) -> Result<(PgConnection, bool), sqlx::Error> {
    if is_pooler.load(Ordering::Relaxed) {
        return Ok((options.connect().await?, false));
    }
    let number = format!("{:032x}", u128::from_ne_bytes(random_bytes()));
    let with_settings = options.clone().options(SETTINGS).options([(NUMBER, &number)]);
    let mut connection = match with_settings.connect().await {
        Ok(connection) => connection,
        Err(error) if is_rejected(&error) => {
            let connection = options.connect().await?;
            if matches!(error, sqlx::Error::Database(_)) {
                is_pooler.store(true, Ordering::Relaxed);
            }
            return Ok((connection, false));
        }
        Err(error) => return Err(error),
    };
    match connection.fetch_one(raw_sql(READ_NUMBER)).await {
        Ok(row) => {
            let (found, source): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
            Ok((connection, found.as_deref() == Some(&number) && source.as_deref() == Some("client")))
        }
        // A pooler accepted the settings, but its server may not.
        Err(sqlx::Error::Database(_)) => Ok((options.connect().await?, false)),
        Err(error) => Err(error),
    }
}

/// Whether a pooler may have rejected the settings, and not the server the user or the connection.
fn is_rejected(error: &sqlx::Error) -> bool {
    let error = match error {
        sqlx::Error::Database(error) => error,
        // A pooler may close the connection.
        sqlx::Error::Io(error) => {
            return matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
        }
        sqlx::Error::Protocol(_) => return true,
        _ => return false,
    };
    let code = error.code().unwrap_or_default();
    // Invalid authorization, an unknown database, too many connections, and a server that is stopping or starting.
    !["28", "3D", "53", "57"].iter().any(|class| code.starts_with(class))
}
