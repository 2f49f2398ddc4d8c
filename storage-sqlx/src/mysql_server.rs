//! The settings of a MySQL or MariaDB server that affect the storage.
//!
//! Two of them cannot be known in advance. `max_allowed_packet` limits the size of a payload, and on Galera
//! `wsrep_sync_wait` decides whether a statement sees the writes of other nodes. A connection of the storage's own pool
//! is configured when it opens ([`set_up`]). For a pool of the application, [`Server::reads`] decides what each
//! statement has to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oauth_dance_core::StorageError;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _};

use crate::{MAX_PAYLOAD, STATEMENT_TIMEOUT};

/// The `wsrep_sync_wait` for all kinds of statements that a storage runs: reads (1), updates and deletes (2), inserts
/// (4). A conditional write must not compare with an outdated version either.
const SYNC_WAIT_ALL: u64 = 7;
/// The space in a packet for everything except the payload: the key, the key id and the protocol. It is generous.
const PACKET_OVERHEAD: usize = 8 * 1024;

/// The settings of a server, as one of its connections reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// `max_allowed_packet` in bytes.
    packet: usize,
    /// Whether the server is a node of a Galera cluster.
    galera: bool,
    /// `wsrep_sync_wait` of the connection.
    sync_wait: u64,
    /// Whether each statement of the connection commits by itself.
    autocommit: bool,
    /// Whether an empty string is `NULL`.
    empty_is_null: bool,
    mariadb: bool,
}

impl Server {
    /// Reads the settings through a connection.
    ///
    /// # Errors
    /// The error of sqlx.
    pub(crate) async fn query(connection: &mut MySqlConnection) -> Result<Self, sqlx::Error> {
        const SETTINGS: &str = "SHOW VARIABLES WHERE Variable_name IN \
            ('max_allowed_packet', 'version', 'wsrep_on', 'wsrep_sync_wait', 'autocommit', 'sql_mode')";

        // Not prepared, because older servers and proxies accept it only as text.
        let rows: Vec<MySqlRow> = sqlx::raw_sql(SETTINGS).fetch_all(connection).await?;
        let text = |row: &MySqlRow, column: usize| row.try_get_unchecked::<String, _>(column).unwrap_or_default();
        let value = |name: &str| rows.iter().find(|row| text(row, 0) == name).map(|row| text(row, 1));
        let number = |name: &str| value(name).and_then(|value| value.parse::<u64>().ok());
        Ok(Self {
            packet: number("max_allowed_packet").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX),
            galera: value("wsrep_on").is_some_and(|value| value == "ON" || value == "1"),
            sync_wait: number("wsrep_sync_wait").unwrap_or_default(),
            autocommit: value("autocommit").is_none_or(|value| value != "OFF" && value != "0"),
            empty_is_null: value("sql_mode").is_some_and(|modes| modes.contains("EMPTY_STRING_IS_NULL")),
            mariadb: value("version").is_some_and(|version| version.contains("MariaDB")),
        })
    }

    /// The maximum size of a payload that fits one packet.
    pub(crate) fn max_payload(&self) -> usize {
        MAX_PAYLOAD.min(self.packet.saturating_sub(PACKET_OVERHEAD))
    }

    /// Verifies the settings of a connection of the application, with which the storage would lose or hide records.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] names the setting.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let (advice, source) = if !self.autocommit {
            ("set `autocommit = 1`", "autocommit is off, so nothing would commit a write")
        } else if self.empty_is_null {
            // A key without a tenant or an account contains an empty string.
            ("remove EMPTY_STRING_IS_NULL from `sql_mode`", "an empty string is NULL, so no record would be found")
        } else {
            return Ok(());
        };
        let advice = format!("{advice} on the server, or on the connections of the pool");
        Err(StorageError::Misconfigured { advice, source: source.into() })
    }

    /// Whether statements see the acknowledged writes of other nodes.
    pub(crate) fn reads(&self) -> Reads {
        match (self.galera && self.sync_wait & SYNC_WAIT_ALL != SYNC_WAIT_ALL, self.mariadb) {
            (false, _) => Reads::Current,
            (true, true) => Reads::CurrentWithPrefix,
            (true, false) => Reads::Stale,
        }
    }
}

/// Which acknowledged writes of other nodes a statement sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// All of them.
    Current,
    /// All of them, if [`CAUSAL`] precedes the statement.
    CurrentWithPrefix,
    /// Only those that have arrived at the node.
    Stale,
}

/// A prefix that makes a statement of MariaDB wait until its node has all writes of the cluster.
pub(crate) const CAUSAL: &str = "SET STATEMENT wsrep_sync_wait = 7 FOR ";

/// The lowest payload limit that a connection has reported.
#[derive(Clone, Debug)]
pub(crate) struct PayloadLimit(Arc<AtomicUsize>);

impl Default for PayloadLimit {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_PAYLOAD)))
    }
}

impl PayloadLimit {
    /// The limit in bytes.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Applies the limit of another connection if it is lower.
    pub(crate) fn lower(&self, limit: usize) {
        self.0.fetch_min(limit, Ordering::Relaxed);
    }
}

/// Configures a new connection: time limits for statements and locks, a commit after each statement, and on Galera the
/// wait for other nodes. A metadata lock has a limit of its own, which is a year by default. The mode of the server is
/// replaced, because a mode such as `EMPTY_STRING_IS_NULL` changes the meaning of statements.
///
/// # Errors
/// The error of sqlx.
pub(crate) async fn set_up(connection: &mut MySqlConnection, limit: &PayloadLimit) -> Result<(), sqlx::Error> {
    let server = Server::query(connection).await?;
    limit.lower(server.max_payload());
    let causal =
        if server.galera { format!(", wsrep_sync_wait = {}", server.sync_wait | SYNC_WAIT_ALL) } else { String::new() };
    // Only MariaDB executes the text between /*M! and */.
    let settings = format!(
        "SET SESSION autocommit = 1, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
         innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}{causal} \
         /*M!100100 , max_statement_time = {statement} */",
        lock = STATEMENT_TIMEOUT.as_secs() / 2,
        statement = STATEMENT_TIMEOUT.as_secs(),
    );
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Server =
        Server { packet: 16 << 20, galera: false, sync_wait: 0, autocommit: true, empty_is_null: false, mariadb: true };

    #[test]
    fn max_payload_leaves_space_in_the_packet() {
        assert_eq!(PLAIN.max_payload(), MAX_PAYLOAD);
        assert_eq!(Server { packet: 1 << 20, ..PLAIN }.max_payload(), (1 << 20) - PACKET_OVERHEAD);
        assert_eq!(Server { packet: 1024, ..PLAIN }.max_payload(), 0);
    }

    #[test]
    fn only_galera_reads_may_be_stale() {
        assert_eq!(PLAIN.reads(), Reads::Current);
        let galera = Server { galera: true, ..PLAIN };
        for sync_wait in [0, 1, 3, 8] {
            assert_eq!(Server { sync_wait, ..galera.clone() }.reads(), Reads::CurrentWithPrefix);
            assert_eq!(Server { sync_wait, mariadb: false, ..galera.clone() }.reads(), Reads::Stale);
        }
        assert_eq!(Server { sync_wait: 15, mariadb: false, ..galera }.reads(), Reads::Current);
    }
}
