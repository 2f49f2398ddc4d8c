//! The speed of the storages compared with their drivers and with the store of another library, in one run.
//!
//! ```sh
//! eval "$(tests/servers/start)"
//! cargo run --release --manifest-path tests/benches/Cargo.toml -- [SECONDS [ROUNDS [TASKS,TASKS... [RECORDS]]]]
//! tests/servers/stop "$SERVERS_FOLDER"
//! ```
//!
//! The candidates run in turn, each for some seconds, for some rounds, with 16 concurrent tasks unless other numbers are
//! given, on 2,048 records of 1 KiB among RECORDS, or on any of the others (`GetAdded`). A figure is the median of the
//! operations per second. The ratio to the first candidate is computed for each round, and printed with its minimum and
//! maximum. With more than 2,048 records, the store of the other library is left out, because it has no fast way to add
//! records.

mod held;
mod peers;
mod run;
mod subjects;

use std::sync::Arc;

use oauth_dance_redis::RedisStorage;
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage, SqliteStorage};

use crate::held::{HeldMySql, HeldPostgres, HeldSqlite};
use crate::peers::Sessions;
use crate::run::{Candidate, Plan};
use crate::subjects::{BenchResult, Measured, MySqlPool, PostgresPool, RedisConnection, Sealed, SqlitePool, USERS};

#[tokio::main]
async fn main() -> BenchResult<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (seconds, rounds) = (number(2)?, number(5)?);
    let tasks = arguments.next().unwrap_or("16".into()).split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
    if tasks.iter().any(|tasks| *tasks == 0 || USERS % tasks != 0) {
        return Err(
            format!("the numbers of tasks must divide {USERS}, so that no two tasks write the same record").into()
        );
    }
    let records = arguments.next().map_or(Ok(USERS), |text| text.parse())?;
    let is_small = records <= USERS;
    let plan = Plan { seconds, rounds, tasks, records, reads: Arc::default() };

    let folder = tempfile::tempdir()?;
    let file = |name: &str| format!("sqlite:{}?mode=rwc", folder.path().join(name).display());
    let storage = SqliteStorage::connect(&file("storage")).await?;
    storage.migrate().await?;
    plan.compare(
        "SQLite",
        vec![
            Candidate::new("sqlx pool, on the same table", SqlitePool::connect(&file("storage")).await?),
            Candidate::new("sqlx, held connections", HeldSqlite::connect(&file("storage")).await?),
            Candidate::new("oauth-dance", Measured::new(storage.clone())),
            Candidate::new("oauth-dance, sealed tokens", Sealed::new(storage)),
            Candidate::new("tower-sessions-sqlx-store", Sessions::sqlite(&file("sessions")).await?).only_if(is_small),
        ],
    )
    .await?;

    if let Some(url) = server("POSTGRES_URL") {
        let storage = PostgresStorage::connect(&url).await?;
        storage.migrate().await?;
        plan.compare(
            "PostgreSQL",
            vec![
                Candidate::new("sqlx pool, on the same table", PostgresPool::connect(&url).await?),
                Candidate::new("sqlx, held connections", HeldPostgres::connect(&url).await?),
                Candidate::new("oauth-dance", Measured::new(storage.clone())),
                Candidate::new("oauth-dance, sealed tokens", Sealed::new(storage)),
                Candidate::new("tower-sessions-sqlx-store", Sessions::postgres(&url).await?).only_if(is_small),
            ],
        )
        .await?;
    }

    if let Some(url) = server("MYSQL_URL") {
        let storage = MySqlStorage::connect(&url).await?;
        storage.migrate().await?;
        plan.compare(
            "MySQL or MariaDB",
            vec![
                Candidate::new("sqlx pool, on the same table", MySqlPool::connect(&url).await?),
                Candidate::new("sqlx, held connections", HeldMySql::connect(&url).await?),
                Candidate::new("oauth-dance", Measured::new(storage.clone())),
                Candidate::new("oauth-dance, sealed tokens", Sealed::new(storage)),
                Candidate::new("tower-sessions-sqlx-store", Sessions::mysql(&url).await?).only_if(is_small),
            ],
        )
        .await?;
    }

    if let Some(url) = server("REDIS_URL") {
        let storage = RedisStorage::connect(&url).await?;
        plan.compare(
            "Redis",
            vec![
                Candidate::new("redis ConnectionManager, GET and SET", RedisConnection::connect(&url).await?),
                Candidate::new("oauth-dance", Measured::alone(storage.clone())),
                Candidate::new("oauth-dance, sealed tokens", Sealed::new(storage)),
            ],
        )
        .await?;
    }
    Ok(())
}

fn server(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        println!("\nskipped, because {variable} is not set");
    }
    url
}
