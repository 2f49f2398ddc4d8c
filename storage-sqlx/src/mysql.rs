use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};
use oauth_dance_migrations::{TableName, migrate_mysql, status_mysql};
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySql, MySqlDatabaseError, MySqlPool, MySqlQueryResult};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::connection::{Doubts, InUse};
use crate::dialect::{Dialect, read_columns, run_prepared};
use crate::engine::Engine;
use crate::error::{Failure, RUN_MIGRATIONS, TimedOut, bad_name, migration, unchanged};
use crate::mysql_server::{CAUSAL, PayloadLimit, Reads, Server, set_up};
use crate::mysql_url::options;
use crate::sql::{After, Texts};
use crate::{DEFAULT_TIMEOUT, MigrationStatus};

/// Keeps tokens in an InnoDB table of MySQL or MariaDB.
///
/// Durable as far as the server is: with `innodb_flush_log_at_trx_commit` other than 1 it is not.
///
/// # Size
/// A payload has to fit a packet of the server with its key. The declared
/// [`max_payload`](oauth_dance_core::Capabilities) is therefore less than [`MAX_PAYLOAD`](crate::MAX_PAYLOAD) where the
/// server's `max_allowed_packet` is less than about that, and a larger one is [`StorageError::TooLarge`]. It is that of the
/// connections made so far; one that is raised later is noticed when the application starts again.
///
/// # Galera
/// A node of a Galera cluster (MariaDB Galera Cluster, Percona XtraDB Cluster) applies what others acknowledged a moment
/// later. So that every node may be asked, each statement first waits until its node has what the cluster had when the
/// statement came (`wsrep_sync_wait = 7`). That costs a message between the nodes for each operation, and more where a node
/// has fallen behind; it is not done on other servers. [`connect`](Self::connect) sets it on its connections, and
/// with [`from_pool`](Self::from_pool) it is asked for with each statement, which MariaDB alone can do: with Percona's
/// cluster the pool has to set it.
#[derive(Clone, Debug)]
pub struct MySqlStorage {
    engine: Engine<MySql>,
    /// The same with statements that wait for other nodes' writes.
    causal: Engine<MySql>,
    limit: PayloadLimit,
    /// What is known of the server, asked when the storage is first used.
    reads: Arc<OnceCell<Reads>>,
}

impl MySqlStorage {
    /// Connects with a pool of its own, of at most ten connections:
    /// `mysql://user:password@host/database?ssl-mode=verify_identity`. Then [`migrate`](Self::migrate).
    ///
    /// On these connections the server stops waiting for a lock after four seconds, and MariaDB stops any statement
    /// after eight.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if the URL is wrong, names several hosts or an option that is not known, or the
    /// server refuses the user, [`StorageError::Unavailable`] if the server cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let (doubts, limit) = (Doubts::default(), PayloadLimit::default());
        let known = limit.clone();
        let (options, wait) = options(url)?;
        let pool = doubts.watch(wait).after_connect(move |connection, _| {
            let known = known.clone();
            Box::pin(async move { set_up(connection, &known).await })
        });
        let pool = pool.connect_with(options).await.map_err(unchanged::<MySql>)?;
        let reads = Arc::new(OnceCell::new_with(Some(Reads::Current)));
        Ok(Self { limit, reads, ..Self::on(Engine::new(pool.clone(), pool, true, true).with_doubts(doubts)) })
    }

    /// Uses the application's pool as it is. Set `innodb_lock_wait_timeout` there, and leave `test_before_acquire` on.
    pub fn from_pool(pool: MySqlPool) -> Self {
        Self::on(Engine::new(pool.clone(), pool, true, true))
    }

    fn on(engine: Engine<MySql>) -> Self {
        let causal = engine.clone().with_opening(CAUSAL);
        Self { engine, causal, limit: PayloadLimit::default(), reads: Arc::default() }
    }

    /// Uses another table than `oauth_dance_tokens`: `tokens`, or `auth.tokens` in another database of the server.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] unless each part is of at most 48 lower-case letters, digits and underscores
    /// and does not start with a digit.
    pub fn with_table(self, name: &str) -> Result<Self, StorageError> {
        let table: TableName = name.parse().map_err(bad_name)?;
        let causal = self.causal.with_table(table.clone());
        Ok(Self { engine: self.engine.with_table(table), causal, ..self })
    }

    /// Sets the longest an operation takes.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { engine: self.engine.with_timeout(timeout), causal: self.causal.with_timeout(timeout), ..self }
    }

    /// Creates the table or brings it up to date. Does nothing if it is; safe from any number of processes at once, also on
    /// several nodes of a Galera cluster.
    ///
    /// # Errors
    /// As the other operations. What was done until then is noted, and the next call goes on from there.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<MySql>)?;
        // It has a lock and another time limit, also if this is never awaited to its end.
        connection.close_on_drop();
        let no_limit = "SET SESSION innodb_lock_wait_timeout = DEFAULT /*M!100100 , max_statement_time = 0 */";
        sqlx::raw_sql(no_limit).execute(&mut *connection).await.map_err(unchanged::<MySql>)?;
        migrate_mysql(&mut connection, self.engine.table()).await.map_err(migration::<MySql>)
    }

    /// The migrations and whether the database has them. Changes nothing.
    ///
    /// # Errors
    /// As the other operations.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        let mut connection = self.engine.writers().acquire().await.map_err(unchanged::<MySql>)?;
        status_mysql(&mut connection, self.engine.table()).await.map_err(migration::<MySql>)
    }

    /// Closes the connections once what runs on them has ended. Operations fail from then on.
    pub async fn close(&self) {
        self.engine.close().await;
    }

    /// The engine whose statements see every acknowledged write, on this server.
    async fn ready(&self) -> Result<&Engine<MySql>, StorageError> {
        match self.reads.get_or_try_init(|| self.ask()).await? {
            Reads::Current => Ok(&self.engine),
            Reads::CurrentIfAsked => Ok(&self.causal),
            Reads::Old => Err(StorageError::Misconfigured {
                advice: "set `wsrep_sync_wait = 7` on the pool's connections, in its `after_connect`".to_owned(),
                source: "a node of this Galera cluster may not have yet what another one acknowledged".into(),
            }),
        }
    }

    /// Asks the server of the application's pool how it is set up.
    async fn ask(&self) -> Result<Reads, StorageError> {
        let asked = timeout(DEFAULT_TIMEOUT / 2, async {
            let mut connection = InUse::new(self.engine.writers().acquire().await?);
            let server = Server::ask(connection.get()).await?;
            connection.is_fine();
            Ok(server)
        });
        let server = asked.await.map_err(|_| StorageError::unavailable(TimedOut))?.map_err(unchanged::<MySql>)?;
        self.limit.lower(server.max_payload());
        Ok(server.reads())
    }
}

#[async_trait]
impl TokenStorage for MySqlStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.ready().await?.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let engine = self.ready().await?;
        let (size, limit) = (record.payload.len(), self.limit.get());
        if size > limit {
            return Err(StorageError::TooLarge { size, limit });
        }
        engine.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.ready().await?.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.ready().await?.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.ready().await?.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.engine.capabilities().with_max_payload(self.limit.get())
    }
}

impl Dialect for MySql {
    type LookUps = ();

    const STORAGE_NAME: &'static str = "MySQL";
    const REMOTE: bool = true;

    const TEXTS: Texts = Texts {
        now: "CAST(UNIX_TIMESTAMP() AS SIGNED)",
        put_always: "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
                tenant, user_id, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
            ON DUPLICATE KEY UPDATE \
                version = VALUES(version), payload = VALUES(payload), expires_at = VALUES(expires_at), \
                retain_until = VALUES(retain_until), key_id = VALUES(key_id), updated_at = VALUES(updated_at)",
        // The number of rows does not tell a new record from one left as it was: sqlx asks for rows found, not changed,
        // and both are 1. So what is left notes a 1 as the id of the last insert, which comes back with the answer;
        // a table without AUTO_INCREMENT has 0 otherwise. The retention decides and is therefore assigned last.
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
        only_primary: "",
    };

    fn failure(error: &dyn DatabaseError) -> Failure {
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
        match number {
            // Record changed since it was read, lock wait time-out, deadlock; a group of servers rolled it back.
            1020 | 1205 | 1213 | 3101 => Failure::Busy,
            // A Galera node rolled it back: the commit failed with InnoDB's code for a deadlock.
            1180 if error.message().contains("149") => Failure::Busy,
            // The server is shut down under the statement, broke the connection off, or failed in the middle of a commit.
            1053 | 1152 | 1158..=1161 | 1180 | 1184 | 1927 => Failure::Broken,
            1054 | 1146 => Failure::Misconfigured(RUN_MIGRATIONS),
            1142 | 1143 | 1370 => Failure::Misconfigured("the database user lacks a right on the table"),
            1044 | 1045 | 1698 => Failure::Misconfigured("the server refuses this user or password"),
            1049 => Failure::Misconfigured("there is no database of this name"),
            1153 => Failure::Misconfigured("raise the server's max_allowed_packet to 16 MiB"),
            1290 | 1836 => Failure::ReadOnly("the server is read-only; name the primary in the URL"),
            // Among them 1047, of a Galera node that has lost or not yet joined the others.
            _ => Failure::Unavailable,
        }
    }

    fn changed(done: &MySqlQueryResult) -> u64 {
        if done.last_insert_id() == 0 { done.rows_affected() } else { 0 }
    }

    run_prepared!();
    read_columns!();
}
