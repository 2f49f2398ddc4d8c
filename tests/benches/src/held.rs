//! The driver without a pool: connections that are held, so that nothing checks them out or in.

use async_trait::async_trait;
use oauth_dance_core::random_bytes;
use sqlx::Connection as _;
use tokio::sync::Mutex;

use crate::subjects::{
    BenchResult, MISSING, MySqlPool, Operation, PostgresPool, SqlitePool, Subject, added, check, payload,
};

/// The number of connections. Up to as many tasks, no task waits for the connection of another one, except to read added
/// records.
const CONNECTIONS: u64 = 64;

/// Held connections to the table of a pool, with the same statements. Those that write have records of their own, because the
/// pool remembers the versions of its records.
macro_rules! held {
    ($name:ident, $connection:ty, $pool:ty, writes: $writes:literal) => {
        pub struct $name(Vec<Mutex<$connection>>);

        impl $name {
            pub async fn connect(url: &str) -> BenchResult<Self> {
                let mut connections = Vec::new();
                for _ in 0..CONNECTIONS {
                    connections.push(Mutex::new(<$connection>::connect(url).await?));
                }
                Ok(Self(connections))
            }
        }

        #[async_trait]
        impl Subject for $name {
            async fn run(&self, operation: Operation, user: u64) -> BenchResult<bool> {
                let own = if $writes { format!("held-{user}") } else { user.to_string() };
                let name = match operation {
                    Operation::Get => own,
                    Operation::Put if $writes => own,
                    Operation::GetAdded => added(user),
                    Operation::GetMissing => (user + MISSING).to_string(),
                    _ => return Ok(false),
                };
                let connection = &mut *self.0[usize::try_from(user % CONNECTIONS)?].lock().await;
                if operation == Operation::Put {
                    let version: [u8; 16] = random_bytes();
                    let put = sqlx::query(<$pool>::TEXTS.put).bind(name.into_bytes()).bind(version.to_vec());
                    put.bind(payload()).execute(connection).await?;
                    return Ok(true);
                }
                let get = sqlx::query_as(<$pool>::TEXTS.get).bind(name.into_bytes());
                let row: Option<(Vec<u8>, Vec<u8>)> = get.fetch_optional(connection).await?;
                check(row.map(|row| row.1.len()) == (operation != Operation::GetMissing).then_some(1024))?;
                Ok(true)
            }
        }
    };
}

// SQLite has one writer at a time, and its connections would only wait for each other.
held!(HeldSqlite, sqlx::SqliteConnection, SqlitePool, writes: false);
held!(HeldPostgres, sqlx::PgConnection, PostgresPool, writes: true);
held!(HeldMySql, sqlx::MySqlConnection, MySqlPool, writes: true);
