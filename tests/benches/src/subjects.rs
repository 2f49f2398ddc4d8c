use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;

use async_trait::async_trait;
use oauth_dance_core::{Precondition, Record, TokenKey, TokenStorage, Version, random_bytes};
use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;

pub type BenchResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A multiple of the number of tasks, so that no two tasks write the same record.
pub const USERS: u64 = 2048;

/// A store with one record for each user.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    async fn get(&self, user: u64) -> BenchResult<()>;
    async fn put(&self, user: u64) -> BenchResult<()>;
    /// `false` if there is no such operation.
    async fn put_if_version(&self, user: u64) -> BenchResult<bool>;
}

pub fn payload() -> Vec<u8> {
    vec![b'x'; 1024]
}

/// A storage of oauth-dance.
pub struct Measured<S> {
    storage: S,
    versions: Mutex<HashMap<u64, Version>>,
}

impl<S: TokenStorage> Measured<S> {
    pub fn new(storage: S) -> Self {
        Self { storage, versions: Mutex::default() }
    }

    async fn write(&self, user: u64, when: Precondition) -> BenchResult<()> {
        let version = self.storage.put(&key(user)?, &Record::new(payload()), when).await?;
        self.versions.lock().map_err(|_| "poisoned")?.insert(user, version);
        Ok(())
    }
}

fn key(user: u64) -> BenchResult<TokenKey> {
    Ok(TokenKey::new("github", format!("storage-{user}"))?)
}

#[async_trait]
impl<S: TokenStorage> Subject for Measured<S> {
    async fn get(&self, user: u64) -> BenchResult<()> {
        let found = self.storage.get(&key(user)?).await?.ok_or("the record is missing")?;
        if found.value.payload.len() == 1024 { Ok(()) } else { Err("it is another record".into()) }
    }

    async fn put(&self, user: u64) -> BenchResult<()> {
        self.write(user, Precondition::Always).await
    }

    async fn put_if_version(&self, user: u64) -> BenchResult<bool> {
        let version = self.versions.lock().map_err(|_| "poisoned")?.get(&user).copied();
        self.write(user, Precondition::Version(version.ok_or("the record was never written")?)).await?;
        Ok(true)
    }
}

/// The shortest statements for the same operations, on the table of the storage.
macro_rules! pool {
    ($name:ident, $pool:ty, $get:literal, $put:literal, $put_if_version:literal) => {
        pub struct $name {
            pool: $pool,
            versions: Mutex<HashMap<u64, [u8; 16]>>,
        }

        impl $name {
            pub async fn connect(url: &str) -> BenchResult<Self> {
                Ok(Self { pool: <$pool>::connect(url).await?, versions: Mutex::default() })
            }

            fn wrote(&self, user: u64, version: [u8; 16]) -> BenchResult<()> {
                self.versions.lock().map_err(|_| "poisoned")?.insert(user, version);
                Ok(())
            }
        }

        #[async_trait]
        impl Subject for $name {
            async fn get(&self, user: u64) -> BenchResult<()> {
                let user = user.to_string().into_bytes();
                let row: (Vec<u8>, Vec<u8>) = sqlx::query_as($get).bind(user).fetch_one(&self.pool).await?;
                if row.1.len() == 1024 { Ok(()) } else { Err("it is another record".into()) }
            }

            async fn put(&self, user: u64) -> BenchResult<()> {
                let version: [u8; 16] = random_bytes();
                let query = sqlx::query($put).bind(user.to_string().into_bytes()).bind(version.to_vec());
                query.bind(payload()).execute(&self.pool).await?;
                self.wrote(user, version)
            }

            async fn put_if_version(&self, user: u64) -> BenchResult<bool> {
                let version: [u8; 16] = random_bytes();
                let old = self.versions.lock().map_err(|_| "poisoned")?.get(&user).copied();
                let query = sqlx::query($put_if_version).bind(version.to_vec()).bind(payload());
                let query = query.bind(user.to_string().into_bytes()).bind(old.ok_or("the record was never written")?.to_vec());
                let done = query.execute(&self.pool).await?;
                if done.rows_affected() != 1 {
                    return Err("the last version of this task did not match".into());
                }
                self.wrote(user, version)?;
                Ok(true)
            }
        }
    };
}

pool!(
    SqlitePool,
    sqlx::SqlitePool,
    "SELECT version, payload FROM oauth_dance_tokens \
        WHERE tenant = X'' AND user_id = ? AND provider = X'676974687562' AND account = X''",
    "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
        VALUES (?, ?, ?, X'', X'676974687562', X'', 0, 0) \
        ON CONFLICT (tenant, user_id, provider, account) \
        DO UPDATE SET version = excluded.version, payload = excluded.payload",
    "UPDATE oauth_dance_tokens SET version = ?, payload = ? \
        WHERE tenant = X'' AND user_id = ? AND provider = X'676974687562' AND account = X'' AND version = ?"
);
pool!(
    PostgresPool,
    sqlx::PgPool,
    "SELECT version, payload FROM oauth_dance_tokens \
        WHERE tenant = '' AND user_id = $1 AND provider = 'github' AND account = ''",
    "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
        VALUES ($1, $2, $3, '', 'github', '', 0, 0) \
        ON CONFLICT (tenant, user_id, provider, account) \
        DO UPDATE SET version = excluded.version, payload = excluded.payload",
    "UPDATE oauth_dance_tokens SET version = $1, payload = $2 \
        WHERE tenant = '' AND user_id = $3 AND provider = 'github' AND account = '' AND version = $4"
);
pool!(
    MySqlPool,
    sqlx::MySqlPool,
    "SELECT version, payload FROM oauth_dance_tokens \
        WHERE tenant = '' AND user_id = ? AND provider = 'github' AND account = ''",
    "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
        VALUES (?, ?, ?, '', 'github', '', 0, 0) \
        ON DUPLICATE KEY UPDATE version = VALUES(version), payload = VALUES(payload)",
    "UPDATE oauth_dance_tokens SET version = ?, payload = ? \
        WHERE tenant = '' AND user_id = ? AND provider = 'github' AND account = '' AND version = ?"
);

/// The plain commands of Redis, which have no conditions.
pub struct RedisConnection(ConnectionManager);

impl RedisConnection {
    pub async fn connect(url: &str) -> BenchResult<Self> {
        Ok(Self(redis::Client::open(url)?.get_connection_manager().await?))
    }
}

#[async_trait]
impl Subject for RedisConnection {
    async fn get(&self, user: u64) -> BenchResult<()> {
        let found: Vec<u8> = self.0.clone().get(format!("bench-{user}")).await?;
        if found.len() == 1024 { Ok(()) } else { Err("it is another record".into()) }
    }

    async fn put(&self, user: u64) -> BenchResult<()> {
        Ok(self.0.clone().set(format!("bench-{user}"), payload()).await?)
    }

    async fn put_if_version(&self, _: u64) -> BenchResult<bool> {
        Ok(false)
    }
}
