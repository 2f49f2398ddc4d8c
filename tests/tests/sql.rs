//! The suite on SQLite, PostgreSQL, and MySQL or MariaDB, with a file or a table for each property.
//!
//! The tests of `storage-sqlx` cover crashes and broken connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_conformance::{Harness, HarnessError, HarnessResult, async_trait, process, server_from_env};
use oauth_dance_core::{TokenKey, TokenStorage, random_bytes};
use oauth_dance_sqlx::{KeyPlace, MySqlStorage, PersonalStorage, PostgresStorage, SqliteStorage};
use sqlx::{AssertSqlSafe, MySqlPool, PgPool, Row as _, SqlitePool, raw_sql};
use tempfile::TempDir;

const URL: &str = "CONFORMANCE_SQL_URL";
const TABLE: &str = "CONFORMANCE_SQL_TABLE";
/// How the folder of one person is written as a URL here.
const PERSONAL: &str = "personal:";
const COLUMNS: &str = "tenant, user_id, provider, account, version, key_id, payload";

mod sqlite {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        let folder = tempfile::tempdir()?;
        let url = format!("sqlite:{}", folder.path().join("tokens.db").display());
        Sqlite::open(&url, &url, Some(folder)).await
    });
}

/// The storage of one person, in a folder of its own.
mod personal {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        let folder = tempfile::tempdir()?;
        let url = format!("{PERSONAL}{}", folder.path().join("oauth").display());
        let storage = open_personal(&url).await?;
        let direct = format!("sqlite:{}", folder.path().join("oauth").join("tokens.sqlite").display());
        let harness = Personal::open(&url, &direct, Some(folder)).await?;
        storage.close().await;
        Ok(harness)
    });
}

mod postgres {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        let url = server_from_env("POSTGRES_URL")?;
        Postgres::open(&url, &url, None).await
    });
}

/// PostgreSQL through PgBouncer, which runs each transaction on any free connection of the server.
mod pgbouncer {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        Postgres::open(&server_from_env("PGBOUNCER_URL")?, &server_from_env("PGBOUNCER_SERVER_URL")?, None).await
    });
}

mod mysql {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        let url = server_from_env("MYSQL_URL")?;
        MySql::open(&url, &url, None).await
    });
}

/// Three nodes of MariaDB Galera Cluster, behind a proxy that uses them in turn.
mod galera {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        // `tests/matrix galera` starts it. It is not one of the usual servers.
        let url = server_from_env("GALERA_URL").map_err(|_| HarnessError::Cannot("find three nodes in GALERA_URL"))?;
        let mut harness = MySql::open(&url, &url, None).await?;
        // The harness, too, may read from another node than the one that acknowledged a write.
        harness.opening = "SET STATEMENT wsrep_sync_wait = 7 FOR ";
        Ok(harness)
    });
}

/// Not a test: the properties with several processes start it.
#[test]
#[ignore = "started by the other tests"]
fn another_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let (url, table) = (std::env::var(URL).unwrap(), std::env::var(TABLE).unwrap());
        let storage: Arc<dyn TokenStorage> = match url.split(':').next().unwrap() {
            "sqlite" => Arc::new(SqliteStorage::connect(&url).await.unwrap().with_table(&table).unwrap()),
            "personal" => Arc::new(open_personal(&url).await.unwrap().with_table(&table).unwrap()),
            "mysql" => Arc::new(MySqlStorage::connect(&url).await.unwrap().with_table(&table).unwrap()),
            _ => Arc::new(PostgresStorage::connect(&url).await.unwrap().with_table(&table).unwrap()),
        };
        process::work(storage).await.unwrap();
    });
}

/// Opens the storage of one person. Several processes do this at the same time.
async fn open_personal(url: &str) -> HarnessResult<SqliteStorage> {
    let folder = url.strip_prefix(PERSONAL).unwrap_or_default();
    let personal = PersonalStorage::builder("conformance").folder(folder).key_place(KeyPlace::File).open().await?;
    Ok(personal.into_parts().0)
}

/// Defines the harness for one dialect. `$open` opens a URL, and `$literal` writes bytes as a literal of its SQL.
macro_rules! sql_harness {
    ($harness:ident, $storage:ident, $open:expr, $pool:ident, $literal:expr) => {
        struct $harness {
            url: String,
            table: String,
            storage: $storage,
            raw: $pool,
            folder: Option<TempDir>,
            /// The prefix of statements on `raw`.
            opening: &'static str,
        }

        impl $harness {
            /// Opens the storage with one URL, and accesses its table directly with another.
            async fn open(url: &str, direct: &str, folder: Option<TempDir>) -> HarnessResult<Self> {
                let table = format!("conformance_{:032x}", u128::from_be_bytes(random_bytes()));
                let storage = $open(url).await?.with_table(&table)?;
                storage.migrate().await?;
                Ok(Self { url: url.to_owned(), table, storage, raw: $pool::connect_lazy(direct)?, folder, opening: "" })
            }

            async fn execute(&self, sql: String) -> HarnessResult<()> {
                raw_sql(AssertSqlSafe(format!("{}{sql}", self.opening))).execute(&self.raw).await?;
                Ok(())
            }
        }

        #[async_trait]
        impl Harness for $harness {
            fn storage(&self) -> Arc<dyn TokenStorage> {
                Arc::new(self.storage.clone())
            }

            async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
                Ok(Arc::new($open(&self.url).await?.with_table(&self.table)?))
            }

            async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
                // One name is a prefix of the other.
                let table = format!("{}_{namespace}", &self.table[..24]);
                let storage = $open(&self.url).await?.with_table(&table)?;
                storage.migrate().await?;
                Ok(Arc::new(storage))
            }

            /// The clock is that of the database, so this changes the times in the records instead.
            async fn advance(&self, by: Duration) -> HarnessResult<()> {
                let (table, seconds) = (&self.table, by.as_secs());
                self.execute(format!("UPDATE {table} SET retain_until = retain_until - {seconds}")).await
            }

            async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
                let rows = format!("{}SELECT {COLUMNS} FROM {}", self.opening, self.table);
                let mut dump = Vec::new();
                for row in sqlx::query(AssertSqlSafe(rows)).fetch_all(&self.raw).await? {
                    for column in 0..row.len() {
                        dump.extend(row.try_get::<Option<Vec<u8>>, _>(column)?.unwrap_or_default());
                        dump.push(b'\n');
                    }
                }
                for file in self.folder.iter().flat_map(|folder| files(folder.path())) {
                    dump.extend(fs::read(file)?);
                }
                Ok(dump)
            }

            async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
                let parts = ["tenant", "user_id", "provider", "account"].into_iter().zip(key.parts());
                let is_it: Vec<_> = parts.map(|(column, part)| format!("{column} = {}", $literal(part))).collect();
                let (table, is_it, garbage) = (&self.table, is_it.join(" AND "), $literal("garbage"));
                self.execute(format!("UPDATE {table} SET version = {garbage} WHERE {is_it}")).await
            }

            async fn process(&self) -> HarnessResult<Command> {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["another_process", "--exact", "--ignored", "--nocapture"]);
                command.env(URL, &self.url).env(TABLE, &self.table);
                Ok(command)
            }

            fn printed(&self) -> HarnessResult<String> {
                Ok(format!("{:?}", self.storage))
            }

            async fn clean_up(&self) {
                for table in [self.table.clone(), format!("_{}_migrations", self.table)] {
                    let _ = self.execute(format!("DROP TABLE IF EXISTS {table}")).await;
                }
                self.raw.close().await;
                self.storage.close().await;
            }
        }
    };
}

/// All files in a folder and its subfolders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    found.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Bytes as a literal of SQLite and MySQL.
fn blob(text: &str) -> String {
    format!("x'{}'", text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Bytes as a literal of PostgreSQL.
fn bytea(text: &str) -> String {
    format!("'\\x{}'::bytea", text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
}

sql_harness!(Sqlite, SqliteStorage, SqliteStorage::connect, SqlitePool, blob);
sql_harness!(Personal, SqliteStorage, open_personal, SqlitePool, blob);
sql_harness!(Postgres, PostgresStorage, PostgresStorage::connect, PgPool, bytea);
sql_harness!(MySql, MySqlStorage, MySqlStorage::connect, MySqlPool, blob);
