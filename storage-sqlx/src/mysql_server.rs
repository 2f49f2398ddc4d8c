use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _};

use crate::{MAX_PAYLOAD, STATEMENT_TIMEOUT};

/// `wsrep_sync_wait` before every kind of statement that a storage runs: reads (1), updates and deletes (2), inserts (4).
/// A conditional write compares with what it reads, so it must not read what is old either.
const BEFORE_ALL: u64 = 7;
/// What a packet holds beside the payload: the key, the key id and the protocol's own. More than enough.
const BESIDE_PAYLOAD: usize = 8 * 1024;

/// What a connection says of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    packet: usize,
    galera: bool,
    sync_wait: u64,
    mariadb: bool,
}

impl Server {
    /// Asks a connection.
    ///
    /// # Errors
    /// What sqlx says.
    pub(crate) async fn ask(connection: &mut MySqlConnection) -> Result<Self, sqlx::Error> {
        const QUESTION: &str = "SHOW VARIABLES WHERE Variable_name IN \
            ('max_allowed_packet', 'version', 'wsrep_on', 'wsrep_sync_wait')";

        // Not prepared: older servers, and proxies, take it as text only.
        let rows: Vec<MySqlRow> = sqlx::raw_sql(QUESTION).fetch_all(connection).await?;
        let text = |row: &MySqlRow, column: usize| row.try_get_unchecked::<String, _>(column).unwrap_or_default();
        let value = |name: &str| rows.iter().find(|row| text(row, 0) == name).map(|row| text(row, 1));
        let number = |name: &str| value(name).and_then(|value| value.parse::<u64>().ok());
        Ok(Self {
            packet: number("max_allowed_packet").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX),
            galera: value("wsrep_on").is_some_and(|value| value == "ON" || value == "1"),
            sync_wait: number("wsrep_sync_wait").unwrap_or_default(),
            mariadb: value("version").is_some_and(|version| version.contains("MariaDB")),
        })
    }

    /// The most bytes of a payload that fit one packet with everything beside it.
    pub(crate) fn max_payload(&self) -> usize {
        MAX_PAYLOAD.min(self.packet.saturating_sub(BESIDE_PAYLOAD))
    }

    /// How its statements see what other nodes have acknowledged.
    pub(crate) fn reads(&self) -> Reads {
        match (self.galera && self.sync_wait & BEFORE_ALL != BEFORE_ALL, self.mariadb) {
            (false, _) => Reads::Current,
            (true, true) => Reads::CurrentIfAsked,
            (true, false) => Reads::Old,
        }
    }
}

/// What a statement on a connection sees of writes that other servers have acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// All of them.
    Current,
    /// All of them with [`CAUSAL`] before the statement.
    CurrentIfAsked,
    /// Those that have arrived.
    Old,
}

/// Makes one statement of MariaDB wait until its node has what the cluster had.
pub(crate) const CAUSAL: &str = "SET STATEMENT wsrep_sync_wait = 7 FOR ";

/// The least that connections have said of the payload they take.
#[derive(Clone, Debug)]
pub(crate) struct PayloadLimit(Arc<AtomicUsize>);

impl Default for PayloadLimit {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_PAYLOAD)))
    }
}

impl PayloadLimit {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn lower(&self, limit: usize) {
        self.0.fetch_min(limit, Ordering::Relaxed);
    }
}

/// Sets a new connection up: limits on how long a statement takes, and on Galera that no node reads what is old.
///
/// # Errors
/// What sqlx says.
pub(crate) async fn set_up(connection: &mut MySqlConnection, limit: &PayloadLimit) -> Result<(), sqlx::Error> {
    let server = Server::ask(connection).await?;
    limit.lower(server.max_payload());
    let causal =
        if server.galera { format!(", wsrep_sync_wait = {}", server.sync_wait | BEFORE_ALL) } else { String::new() };
    // What stands between /*M! and */ only MariaDB runs.
    let settings = format!(
        "SET SESSION innodb_lock_wait_timeout = {}{causal} /*M!100100 , max_statement_time = {} */",
        STATEMENT_TIMEOUT.as_secs() / 2,
        STATEMENT_TIMEOUT.as_secs(),
    );
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Server = Server { packet: 16 << 20, galera: false, sync_wait: 0, mariadb: true };

    #[test]
    fn a_payload_leaves_room_in_its_packet() {
        assert_eq!(PLAIN.max_payload(), MAX_PAYLOAD);
        assert_eq!(Server { packet: 1 << 20, ..PLAIN }.max_payload(), (1 << 20) - BESIDE_PAYLOAD);
        assert_eq!(Server { packet: 1024, ..PLAIN }.max_payload(), 0);
    }

    #[test]
    fn only_galera_may_read_what_is_old() {
        assert_eq!(PLAIN.reads(), Reads::Current);
        let galera = Server { galera: true, ..PLAIN };
        for sync_wait in [0, 1, 3, 8] {
            assert_eq!(Server { sync_wait, ..galera.clone() }.reads(), Reads::CurrentIfAsked);
            assert_eq!(Server { sync_wait, mariadb: false, ..galera.clone() }.reads(), Reads::Old);
        }
        assert_eq!(Server { sync_wait: 15, mariadb: false, ..galera }.reads(), Reads::Current);
    }
}
