//! The storage on MySQL and MariaDB.
//!
//! Values are parameters of prepared statements, each prepared once on a connection. MySQL has no conditional upsert.
//! `put` if absent is therefore an `INSERT … ON DUPLICATE KEY UPDATE` whose assignments contain the condition, and
//! [`changed`](Dialect::changed) recognizes the record that was there. On a Galera cluster, a second [`Engine`] sends
//! the same statements with a prefix that makes them wait for the other nodes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};
use oauth_dance_migrations::{TableName, migrate_mysql, status_mysql};
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySql, MySqlDatabaseError, MySqlPool, MySqlQueryResult};
use tokio::time::timeout;

use crate::connection::Connections;
use crate::dialect::{Dialect, read_columns, run_prepared};
use crate::engine::Engine;
use crate::error::{ErrorClass, RUN_MIGRATIONS, TimedOut, bad_name, migration, unchanged};
use crate::mysql_server::{CAUSAL, PayloadLimit, Reads, Server, set_up};
use crate::mysql_url::options;
use crate::pool::{CONNECTIONS, OwnPool, SetUp};
use crate::several::Several;
use crate::sql::{After, Texts};
use crate::{DEFAULT_TIMEOUT, MigrationStatus};

/// Stores tokens in an InnoDB table of MySQL or MariaDB.
///
/// ```no_run
/// use oauth_dance_core::{KeyRing, Tokens};
/// use oauth_dance_sqlx::MySqlStorage;
///
/// # async fn example() -> Result<(), oauth_dance_core::StorageError> {
/// let url = "mysql://app:password@db.example/app?ssl-mode=verify_identity";
/// let storage = MySqlStorage::connect(url).await?;
/// storage.migrate().await?;
/// let tokens = Tokens::sealed(storage, KeyRing::generate());
/// # let _ = tokens;
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// The storage is as durable as the server. If the server's `innodb_flush_log_at_trx_commit` is not 1, a crash of the
/// server may lose acknowledged writes, and the storage cannot detect this. The URL has to name the primary. A replica
/// rejects writes, but its reads may be stale.
///
/// # Size
/// A payload and its key have to fit one packet of the server. If the server's `max_allowed_packet` is smaller than
/// [`MAX_PAYLOAD`](crate::MAX_PAYLOAD), the declared [`max_payload`](oauth_dance_core::Capabilities) is smaller too. A
/// larger payload is [`StorageError::TooLarge`]. The limit is the lowest that a connection has reported so far. If the
/// server's limit is raised later, restart the application.
///
/// # URL parameters
/// | parameter | meaning |
/// | --- | --- |
/// | `ssl-mode` | how TLS is used and verified: `disabled`, `preferred`, `required`, `verify_ca` or `verify_identity` |
/// | `ssl-ca` | the file with the root certificate that verifies the server |
/// | `ssl-cert`, `ssl-key` | the files with the client's certificate and its key |
/// | `socket` | the path of a Unix socket, instead of the host |
/// | `connect_timeout` | how many seconds to wait for a connection |
/// | `charset`, `collation`, `time-zone`, `statement-cache-capacity` | settings of sqlx, which do not affect the storage |
///
/// Any other parameter is an error, because sqlx would ignore it silently.
///
/// # Privileges
/// The user needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the table. To verify that the table is current,
/// [`migrate`](Self::migrate) and [`migrations`](Self::migrations) also need `SELECT` on
/// `_oauth_dance_tokens_migrations`. To apply the migrations, the user also needs `CREATE`, `ALTER` and `INDEX`.
///
/// # Galera
/// A node of a Galera cluster (MariaDB Galera Cluster, Percona XtraDB Cluster) applies the acknowledged writes of other
/// nodes with a delay. Therefore each statement first waits until its node has all writes that the cluster had when the
/// statement arrived (`wsrep_sync_wait = 7`), and the application can use every node. The wait costs a message between
/// the nodes for each operation, and more if a node is behind. Other servers do not wait.
///
/// [`connect`](Self::connect) sets this on its connections. With [`from_pool`](Self::from_pool), each statement sets
/// it, which only MariaDB supports. On Percona XtraDB Cluster, the pool's `after_connect` has to execute `SET SESSION
/// wsrep_sync_wait = 7`. Otherwise every operation is [`StorageError::Misconfigured`].
#[derive(Clone, Debug)]
pub struct MySqlStorage {
    engine: Engine<MySql>,
    /// The engine whose statements wait for the writes of other nodes.
    causal: Engine<MySql>,
    limit: PayloadLimit,
    /// Which of the engines to use. The first operation determines it.
    reads: Arc<OnceLock<Reads>>,
}

impl MySqlStorage {
    /// Connects with a new pool of at most ten connections. Call [`migrate`](Self::migrate) next.
    ///
    /// The URL has the form `mysql://user:password@host/database?ssl-mode=verify_identity`. The parameter
    /// `connect_timeout` is the time in seconds to wait for a connection, five by default. The server's certificate is
    /// verified only with `ssl-mode=verify_ca` or `verify_identity`.
    ///
    /// On these connections, the server waits at most four seconds for a lock, and MariaDB stops a statement after
    /// eight seconds.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong, names several hosts or contains an unknown option, or if
    /// the server rejects the user. [`StorageError::Unavailable`] if the server cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let limit = PayloadLimit::default();
        let known = limit.clone();
        let (options, wait) = options(url)?;
        let set_up: SetUp<MySql> = Arc::new(move |connection| {
            let known = known.clone();
            Box::pin(async move { set_up(connection, &known).await })
        });
        let wait = wait.unwrap_or(DEFAULT_TIMEOUT / 2);
        let pool = OwnPool::connect(options, CONNECTIONS, wait, Some(set_up)).await.map_err(unchanged::<MySql>)?;
        let reads = Arc::new(Reads::Current.into());
        Ok(Self { limit, reads, ..Self::on(Connections::Own(pool)) })
    }

    /// Uses a pool of the application, so that tokens and application share their connections. Does not connect yet.
    ///
    /// Set `innodb_lock_wait_timeout` and `lock_wait_timeout` on the connections to less than the timeout of an
    /// operation, so that the server reports a lock before the storage gives up. Otherwise a write that waits for a
    /// lock may take effect long after its call has returned. Leave `test_before_acquire` on, because a write on a
    /// closed connection is ambiguous. With `autocommit = 0`, or with `EMPTY_STRING_IS_NULL` in the `sql_mode` of
    /// MariaDB, every operation is [`StorageError::Misconfigured`].
    pub fn from_pool(pool: MySqlPool) -> Self {
        Self::on(Connections::Application(pool))
    }

    fn on(connections: Connections<MySql>) -> Self {
        let engine = Engine::new(connections.clone(), connections, true, true);
        let causal = engine.clone().with_prefix(CAUSAL);
        Self { engine, causal, limit: PayloadLimit::default(), reads: Arc::default() }
    }

    /// Uses another table than `oauth_dance_tokens`, such as `tokens`, or `auth.tokens` in another database of the
    /// server.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] unless each part consists of at most 48 lower-case letters, digits and
    /// underscores, and does not start with a digit.
    pub fn with_table(self, name: &str) -> Result<Self, StorageError> {
        let table: TableName = name.parse().map_err(bad_name)?;
        let causal = self.causal.with_table(table.clone());
        Ok(Self { engine: self.engine.with_table(table), causal, ..self })
    }

    /// Sets the timeout of an operation. The default is [`DEFAULT_TIMEOUT`].
    ///
    /// The timeout includes the wait for a connection and all retries of a statement.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { engine: self.engine.with_timeout(timeout), causal: self.causal.with_timeout(timeout), ..self }
    }

    /// Creates the table, or updates it to this release. Does nothing if the table is current. Any number of processes
    /// may call this at the same time, even on several nodes of a Galera cluster.
    ///
    /// An application that may change its schema calls this at every startup. To let an operator apply the migrations
    /// instead, call [`migrations`](Self::migrations) and refuse to start while one is pending.
    ///
    /// # Errors
    /// The errors of the other operations. Completed migrations are recorded, and the next call continues after them.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<MySql>)?;
        // The connection is never marked clean, so it is closed in any case. It has another time limit, and a lock if
        // this future is dropped.
        let no_limit = "SET SESSION innodb_lock_wait_timeout = DEFAULT, lock_wait_timeout = DEFAULT \
            /*M!100100 , max_statement_time = 0 */";
        sqlx::raw_sql(no_limit).execute(connection.get()).await.map_err(unchanged::<MySql>)?;
        migrate_mysql(connection.get(), self.engine.table()).await.map_err(migration::<MySql>)
    }

    /// Returns all migrations and their state in the database. Changes nothing, and needs no privilege to create
    /// tables.
    ///
    /// # Errors
    /// The errors of the other operations.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<MySql>)?;
        let statuses = status_mysql(connection.get(), self.engine.table()).await.map_err(migration::<MySql>)?;
        connection.mark_clean();
        Ok(statuses)
    }

    /// Returns the keys of at most `limit` rows whose key is not a valid [`TokenKey`], for example because it is not
    /// UTF-8. Each key is a text with escapes, for an operator to read.
    ///
    /// Such rows exist only if something other than this crate has written to the table. A list leaves them out, so
    /// they have to be removed with the database's own client.
    ///
    /// # Errors
    /// The errors of the other operations.
    pub async fn invalid_keys(&self, limit: usize) -> Result<Vec<String>, StorageError> {
        self.current_engine().await?.invalid_keys(limit).await
    }

    /// Closes the connections after their running statements have ended. Later operations fail with
    /// [`StorageError::Unavailable`]. This includes an application's pool that was passed to
    /// [`from_pool`](Self::from_pool).
    pub async fn close(&self) {
        self.engine.close().await;
    }

    /// The engine whose statements see every acknowledged write on this server.
    async fn current_engine(&self) -> Result<&Engine<MySql>, StorageError> {
        let reads = match self.reads.get() {
            Some(reads) => *reads,
            // Operations at the same time query the server independently, so that none waits for another one.
            None => {
                let reads = self.query_server().await?;
                *self.reads.get_or_init(|| reads)
            }
        };
        match reads {
            Reads::Current => Ok(&self.engine),
            Reads::CurrentWithPrefix => Ok(&self.causal),
            Reads::Stale => Err(StorageError::Misconfigured {
                advice: "set `wsrep_sync_wait = 7` on the connections of the pool, in its `after_connect`".to_owned(),
                source: "a node of this Galera cluster may lack writes that another node has acknowledged".into(),
            }),
        }
    }

    /// Reads the settings of the server of an application pool.
    async fn query_server(&self) -> Result<Reads, StorageError> {
        let settings = timeout(self.engine.timeout() / 2, async {
            let mut connection = self.engine.writers().acquire().await?;
            let server = Server::query(connection.get()).await?;
            connection.mark_clean();
            Ok(server)
        });
        let server = settings.await.map_err(|_| StorageError::unavailable(TimedOut))?.map_err(unchanged::<MySql>)?;
        self.limit.lower(server.max_payload());
        server.check()?;
        Ok(server.reads())
    }
}

#[async_trait]
impl TokenStorage for MySqlStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.current_engine().await?.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let engine = self.current_engine().await?;
        let (size, limit) = (record.payload.len(), self.limit.get());
        if size > limit {
            return Err(StorageError::TooLarge { size, limit });
        }
        engine.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.current_engine().await?.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.current_engine().await?.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.current_engine().await?.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.engine.capabilities().with_max_payload(self.limit.get())
    }
}

impl Dialect for MySql {
    type LookupState = ();

    const STORAGE_NAME: &'static str = "MySQL";
    const REMOTE: bool = true;
    const PARALLEL_READS: usize = 3;

    const TEXTS: Texts = Texts {
        now: "CAST(UNIX_TIMESTAMP() AS SIGNED)",
        put_always: "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON DUPLICATE KEY UPDATE \
                version = VALUES(version), payload = VALUES(payload), expires_at = VALUES(expires_at), \
                retain_until = VALUES(retain_until), key_id = VALUES(key_id), updated_at = VALUES(updated_at)",
        // The number of rows does not distinguish a new record from an unchanged one, because sqlx enables
        // `CLIENT_FOUND_ROWS` and both are 1. An unchanged record therefore sets the last insert id to 1, which the
        // response contains. For a table without AUTO_INCREMENT, it is 0 otherwise. The conditions read the retention,
        // so it is assigned last.
        put_absent: "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON DUPLICATE KEY UPDATE \
                version = IF(retain_until <= {now}, VALUES(version), IF(LAST_INSERT_ID(1), version, version)), \
                payload = IF(retain_until <= {now}, VALUES(payload), payload), \
                expires_at = IF(retain_until <= {now}, VALUES(expires_at), expires_at), \
                key_id = IF(retain_until <= {now}, VALUES(key_id), key_id), \
                created_at = IF(retain_until <= {now}, VALUES(created_at), created_at), \
                updated_at = IF(retain_until <= {now}, VALUES(updated_at), updated_at), \
                retain_until = IF(retain_until <= {now}, VALUES(retain_until), retain_until)",
        purge: "DELETE FROM {table} WHERE retain_until <= {now} ORDER BY retain_until LIMIT ?",
        after: After::Columns,
        several: Several::Document,
        only_primary: "",
        is_numbered: false,
    };

    fn classify(error: &dyn DatabaseError) -> ErrorClass {
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
        class_of(number, error.message())
    }

    fn is_transient(error: &dyn DatabaseError) -> bool {
        match error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number) {
            // Too many connections to the server, or of this user.
            Some(1040 | 1203) => true,
            // A limit of the account. The others are limits per hour.
            Some(1226) => error.message().contains("max_user_connections"),
            _ => false,
        }
    }

    fn changed(done: &MySqlQueryResult) -> u64 {
        if done.last_insert_id() == 0 { done.rows_affected() } else { 0 }
    }

    run_prepared!();
    read_columns!();
}

/// Classifies an error by its number. The numbers from 2000 to 2999 are those of a client, so they come from a proxy.
fn class_of(number: u16, message: &str) -> ErrorClass {
    match number {
        // The record has changed since it was read, a lock wait timeout, a deadlock, or a rollback by Group
        // Replication.
        1020 | 1205 | 1213 | 3101 => ErrorClass::Busy,
        // A Galera node rolled the statement back: the commit failed with InnoDB's code for a deadlock.
        1180 if message.contains("149") => ErrorClass::Busy,
        // The server was shut down during the statement, closed the connection, or failed during a commit.
        1053 | 1152 | 1158..=1161 | 1180 | 1184 | 1927 | 3169 => ErrorClass::Broken,
        // A proxy could not connect to the server, so the statement was not sent.
        2001..=2005 => ErrorClass::Unavailable,
        // A proxy lost the server, or does not say what happened.
        1105 | 2000..=2999 => ErrorClass::Broken,
        1054 | 1146 => ErrorClass::Misconfigured(RUN_MIGRATIONS),
        1064 | 1235 | 1305 => ErrorClass::Unknown,
        1142 | 1143 | 1370 => ErrorClass::Misconfigured("the database user lacks a privilege on the table; grant it"),
        1044 | 1045 | 1698 => {
            ErrorClass::Misconfigured("the server rejects this user or password; correct them in the URL")
        }
        1049 => ErrorClass::Misconfigured("there is no database of this name; create it, or correct the URL"),
        1153 => ErrorClass::Misconfigured("raise the server's max_allowed_packet to 16 MiB"),
        1290 | 1836 => ErrorClass::ReadOnly("the server is read-only; name the primary in the URL"),
        1792 => ErrorClass::Misconfigured(
            "transactions of this user are read-only; turn transaction_read_only (tx_read_only) off",
        ),
        // The server has rolled the statement back. This includes 1047, of a Galera node that is not connected to the
        // cluster, and 9001, of a ProxySQL that has no connection for the statement.
        _ => ErrorClass::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_proxies_are_classified_by_what_was_sent() {
        for number in [1053, 1105, 1180, 1927, 2006, 2013, 3169] {
            assert_eq!(class_of(number, ""), ErrorClass::Broken, "{number}");
        }
        for number in [1040, 1047, 1317, 1969, 2002, 2003, 3024, 4031, 9001] {
            assert_eq!(class_of(number, ""), ErrorClass::Unavailable, "{number}");
        }
        assert_eq!(class_of(1180, "Got error 149 during COMMIT"), ErrorClass::Busy);
    }
}
