//! A session store, which also stores a value under an id, but has no conditions.

use std::collections::HashMap;

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_sqlx_store::{MySqlStore, PostgresStore, SqliteStore};

use crate::subjects::{BenchResult, MISSING, Operation, Subject, payload};

pub struct Sessions<S>(S);

impl Sessions<SqliteStore> {
    pub async fn sqlite(url: &str) -> BenchResult<Self> {
        let pool = sqlx_0_8::SqlitePool::connect(url).await?;
        sqlx_0_8::query("PRAGMA journal_mode = WAL").execute(&pool).await?;
        let store = SqliteStore::new(pool);
        store.migrate().await?;
        Ok(Self(store))
    }
}

impl Sessions<PostgresStore> {
    pub async fn postgres(url: &str) -> BenchResult<Self> {
        let store = PostgresStore::new(sqlx_0_8::PgPool::connect(url).await?);
        store.migrate().await?;
        Ok(Self(store))
    }
}

impl Sessions<MySqlStore> {
    pub async fn mysql(url: &str) -> BenchResult<Self> {
        let store = MySqlStore::new(sqlx_0_8::MySqlPool::connect(url).await?);
        store.migrate().await?;
        Ok(Self(store))
    }
}

fn id(user: u64) -> Id {
    Id(i128::from(user) + 1)
}

impl<S: SessionStore> Sessions<S> {
    async fn save(&self, id: Id) -> BenchResult<()> {
        let token = String::from_utf8(payload())?;
        let expiry_date = OffsetDateTime::now_utc() + Duration::days(1);
        let data = HashMap::from([("token".to_owned(), token.into())]);
        Ok(self.0.save(&Record { id, data, expiry_date }).await?)
    }
}

#[async_trait]
impl<S: SessionStore> Subject for Sessions<S> {
    async fn run(&self, operation: Operation, user: u64) -> BenchResult<bool> {
        match operation {
            Operation::Get => {
                let found = self.0.load(&id(user)).await?.ok_or("the session is missing")?;
                if !found.data.contains_key("token") {
                    return Err("it is another session".into());
                }
            }
            Operation::GetMissing => {
                if self.0.load(&id(user + MISSING)).await?.is_some() {
                    return Err("the session exists".into());
                }
            }
            Operation::Put => self.save(id(user)).await?,
            Operation::PutDelete => {
                self.save(id(user + MISSING)).await?;
                self.0.delete(&id(user + MISSING)).await?;
            }
            Operation::GetAdded | Operation::PutIfVersion | Operation::List => return Ok(false),
        }
        Ok(true)
    }
}
