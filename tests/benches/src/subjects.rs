use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use oauth_dance_core::{
    Filter, KeyRing, OAuth2Token, PageRequest, Precondition, Record, Token, TokenKey, TokenStorage, Tokens, Version,
    random_bytes,
};
use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;

pub type BenchResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A multiple of the number of tasks, so that no two tasks write the same record.
pub const USERS: u64 = 2048;

/// Added to a user's number for a record that does not exist.
pub const MISSING: u64 = 1 << 40;
/// How many entries a page of a list has.
const PAGE: usize = 100;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Get,
    /// Reads one of the added records, which are too many for most caches.
    GetAdded,
    GetMissing,
    Put,
    PutIfVersion,
    /// Writes a new record and deletes it.
    PutDelete,
    /// Lists the first 100 entries.
    List,
}

impl Operation {
    pub const ALL: [Self; 7] =
        [Self::Get, Self::GetAdded, Self::GetMissing, Self::Put, Self::PutIfVersion, Self::PutDelete, Self::List];
}

/// A store with one record for each user.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Runs an operation on the record of a user. Returns `false` if there is no such operation.
    async fn run(&self, operation: Operation, user: u64) -> BenchResult<bool>;

    /// Adds this many records of other users, unless another subject has added them to the same table.
    async fn add_records(&self, _count: u64) -> BenchResult<()> {
        Ok(())
    }

    /// Lists all records, page by page. Returns their number, or `None` if there is no such operation.
    async fn walk(&self) -> BenchResult<Option<usize>> {
        Ok(None)
    }
}

/// The user of an added record.
pub fn added(number: u64) -> String {
    format!("added-{number}")
}

pub fn payload() -> Vec<u8> {
    vec![b'x'; 1024]
}

/// A storage of oauth-dance.
pub struct Measured<S> {
    storage: S,
    versions: Mutex<HashMap<u64, Version>>,
    adds_records: bool,
}

impl<S: TokenStorage> Measured<S> {
    pub fn new(storage: S) -> Self {
        Self { storage, versions: Mutex::default(), adds_records: false }
    }

    /// For a storage that shares no table with another subject.
    pub fn alone(storage: S) -> Self {
        Self { adds_records: true, ..Self::new(storage) }
    }

    async fn put(&self, user: u64, when: Precondition) -> BenchResult<()> {
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
    async fn run(&self, operation: Operation, user: u64) -> BenchResult<bool> {
        match operation {
            Operation::Get => {
                let found = self.storage.get(&key(user)?).await?.ok_or("the record is missing")?;
                check(found.value.payload.len() == 1024)?;
            }
            Operation::GetAdded => {
                let key = TokenKey::new("github", added(user))?;
                check(self.storage.get(&key).await?.is_some_and(|found| found.value.payload.len() == 1024))?;
            }
            Operation::GetMissing => check(self.storage.get(&key(user + MISSING)?).await?.is_none())?,
            Operation::Put => self.put(user, Precondition::Always).await?,
            Operation::PutIfVersion => {
                let version = self.versions.lock().map_err(|_| "poisoned")?.get(&user).copied();
                self.put(user, Precondition::Version(version.ok_or("the record was never written")?)).await?;
            }
            Operation::PutDelete => {
                let key = key(user + MISSING)?;
                self.storage.put(&key, &Record::new(payload()), Precondition::Always).await?;
                check(self.storage.delete(&key, None).await?)?;
            }
            Operation::List => {
                let page = PageRequest { after: None, limit: PAGE };
                check(self.storage.list(&Filter::everything(), page).await?.entries.len() == PAGE)?;
            }
        }
        Ok(true)
    }

    async fn walk(&self) -> BenchResult<Option<usize>> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.storage.list(&Filter::everything(), PageRequest { after, limit: 1000 }).await?;
            count += page.entries.len();
            after = page.next;
            if after.is_none() {
                return Ok(Some(count));
            }
        }
    }

    async fn add_records(&self, count: u64) -> BenchResult<()> {
        for start in (0..if self.adds_records { count } else { 0 }).step_by(64) {
            let puts = (start..count.min(start + 64)).map(|user| async move {
                let key = TokenKey::new("github", added(user))?;
                self.storage.put(&key, &Record::new(payload()), Precondition::Always).await?;
                BenchResult::Ok(())
            });
            try_join_all(puts).await?;
        }
        Ok(())
    }
}

/// The same storage with sealed tokens.
pub struct Sealed(Tokens);

impl Sealed {
    pub fn new(storage: impl TokenStorage) -> Self {
        Self(Tokens::sealed(storage, KeyRing::generate()))
    }
}

#[async_trait]
impl Subject for Sealed {
    async fn run(&self, operation: Operation, user: u64) -> BenchResult<bool> {
        let key = TokenKey::new("github", format!("sealed-{user}"))?;
        match operation {
            Operation::Get => check(self.0.get(&key).await?.is_some())?,
            Operation::Put => {
                let token = Token::from(OAuth2Token::bearer("x".repeat(900)));
                self.0.put(&key, &token, Precondition::Always).await?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

pub fn check(is_right: bool) -> BenchResult<()> {
    if is_right { Ok(()) } else { Err("the result is wrong".into()) }
}

/// The shortest statements for the same operations.
pub struct Texts {
    pub get: &'static str,
    pub put: &'static str,
    put_if_version: &'static str,
    delete: &'static str,
    list: &'static str,
    /// Adds the records with the numbers from the first value to before the second. `{numbers}` is a table of numbers.
    add: &'static str,
}

/// The numbers from 0 to 99,999, in the column `number`.
fn numbers() -> String {
    let digits = "(SELECT 0 AS digit UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 \
        UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    format!(
        "(SELECT a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit + 10000 * e.digit AS number \
            FROM {digits} a, {digits} b, {digits} c, {digits} d, {digits} e) numbers"
    )
}

/// A pool of sqlx on the table of the storage.
macro_rules! pool {
    ($name:ident, $pool:ty, $texts:expr) => {
        pub struct $name {
            pool: $pool,
            versions: Mutex<HashMap<u64, [u8; 16]>>,
        }

        impl $name {
            pub const TEXTS: Texts = $texts;

            pub async fn connect(url: &str) -> BenchResult<Self> {
                Ok(Self { pool: <$pool>::connect(url).await?, versions: Mutex::default() })
            }

            async fn find(&self, user: String) -> BenchResult<Option<(Vec<u8>, Vec<u8>)>> {
                Ok(sqlx::query_as(Self::TEXTS.get).bind(user.into_bytes()).fetch_optional(&self.pool).await?)
            }

            async fn put(&self, user: u64) -> BenchResult<()> {
                let version: [u8; 16] = random_bytes();
                let query = sqlx::query(Self::TEXTS.put).bind(user.to_string().into_bytes()).bind(version.to_vec());
                query.bind(payload()).execute(&self.pool).await?;
                self.wrote(user, version)
            }

            fn wrote(&self, user: u64, version: [u8; 16]) -> BenchResult<()> {
                self.versions.lock().map_err(|_| "poisoned")?.insert(user, version);
                Ok(())
            }
        }

        #[async_trait]
        impl Subject for $name {
            async fn run(&self, operation: Operation, user: u64) -> BenchResult<bool> {
                match operation {
                    Operation::Get | Operation::GetAdded => {
                        let user = if operation == Operation::Get { user.to_string() } else { added(user) };
                        check(self.find(user).await?.is_some_and(|row| row.1.len() == 1024))?;
                    }
                    Operation::GetMissing => check(self.find((user + MISSING).to_string()).await?.is_none())?,
                    Operation::Put => self.put(user).await?,
                    Operation::PutIfVersion => {
                        let version: [u8; 16] = random_bytes();
                        let old = self.versions.lock().map_err(|_| "poisoned")?.get(&user).copied();
                        let old = old.ok_or("the record was never written")?.to_vec();
                        let query = sqlx::query(Self::TEXTS.put_if_version).bind(version.to_vec()).bind(payload());
                        let query = query.bind(user.to_string().into_bytes()).bind(old);
                        check(query.execute(&self.pool).await?.rows_affected() == 1)?;
                        self.wrote(user, version)?;
                    }
                    Operation::PutDelete => {
                        self.put(user + MISSING).await?;
                        let query = sqlx::query(Self::TEXTS.delete).bind((user + MISSING).to_string().into_bytes());
                        check(query.execute(&self.pool).await?.rows_affected() == 1)?;
                    }
                    Operation::List => {
                        let rows = sqlx::query(Self::TEXTS.list).bind(PAGE as i64 + 1).fetch_all(&self.pool).await?;
                        check(rows.len() == PAGE + 1)?;
                    }
                }
                Ok(true)
            }

            async fn add_records(&self, count: u64) -> BenchResult<()> {
                let text = Self::TEXTS.add.replace("{numbers}", &numbers());
                for start in (0..count).step_by(100_000) {
                    let query = sqlx::query(sqlx::AssertSqlSafe(text.as_str())).bind(i64::try_from(start)?);
                    query.bind(i64::try_from(count - start)?).execute(&self.pool).await?;
                }
                Ok(())
            }
        }
    };
}

const LIST: &str = "SELECT tenant, user_id, provider, account, version, expires_at, key_id FROM oauth_dance_tokens \
    ORDER BY tenant, user_id, provider, account LIMIT ?";

pool!(
    SqlitePool,
    sqlx::SqlitePool,
    Texts {
        get: "SELECT version, payload FROM oauth_dance_tokens \
            WHERE tenant = X'' AND user_id = ? AND provider = X'676974687562' AND account = X''",
        put: "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, X'', X'676974687562', X'', 0, 0) \
            ON CONFLICT (tenant, user_id, provider, account) \
            DO UPDATE SET version = excluded.version, payload = excluded.payload",
        put_if_version: "UPDATE oauth_dance_tokens SET version = ?, payload = ? \
            WHERE tenant = X'' AND user_id = ? AND provider = X'676974687562' AND account = X'' AND version = ?",
        delete: "DELETE FROM oauth_dance_tokens \
            WHERE tenant = X'' AND user_id = ? AND provider = X'676974687562' AND account = X''",
        list: LIST,
        add: "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
            SELECT CAST('added-' || (?1 + number) AS BLOB), randomblob(16), zeroblob(1024), X'', X'676974687562', X'', 0, 0 \
            FROM {numbers} WHERE number < ?2",
    }
);
pool!(
    PostgresPool,
    sqlx::PgPool,
    Texts {
        get: "SELECT version, payload FROM oauth_dance_tokens \
            WHERE tenant = '' AND user_id = $1 AND provider = 'github' AND account = ''",
        put: "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
            VALUES ($1, $2, $3, '', 'github', '', 0, 0) \
            ON CONFLICT (tenant, user_id, provider, account) \
            DO UPDATE SET version = excluded.version, payload = excluded.payload",
        put_if_version: "UPDATE oauth_dance_tokens SET version = $1, payload = $2 \
            WHERE tenant = '' AND user_id = $3 AND provider = 'github' AND account = '' AND version = $4",
        delete: "DELETE FROM oauth_dance_tokens \
            WHERE tenant = '' AND user_id = $1 AND provider = 'github' AND account = ''",
        list: "SELECT tenant, user_id, provider, account, version, expires_at, key_id FROM oauth_dance_tokens \
            ORDER BY tenant, user_id, provider, account LIMIT $1",
        add: "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
            SELECT ('added-' || ($1::bigint + number))::bytea, decode(md5(number::text), 'hex'), \
                decode(repeat('78', 1024), 'hex'), '', 'github', '', 0, 0 \
            FROM {numbers} WHERE number < $2::bigint",
    }
);
pool!(
    MySqlPool,
    sqlx::MySqlPool,
    Texts {
        get: "SELECT version, payload FROM oauth_dance_tokens \
            WHERE tenant = '' AND user_id = ? AND provider = 'github' AND account = ''",
        put: "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
            VALUES (?, ?, ?, '', 'github', '', 0, 0) \
            ON DUPLICATE KEY UPDATE version = VALUES(version), payload = VALUES(payload)",
        put_if_version: "UPDATE oauth_dance_tokens SET version = ?, payload = ? \
            WHERE tenant = '' AND user_id = ? AND provider = 'github' AND account = '' AND version = ?",
        delete: "DELETE FROM oauth_dance_tokens \
            WHERE tenant = '' AND user_id = ? AND provider = 'github' AND account = ''",
        list: LIST,
        add: "INSERT INTO oauth_dance_tokens (user_id, version, payload, tenant, provider, account, created_at, updated_at) \
            SELECT CONCAT('added-', ? + number), UNHEX(MD5(number)), REPEAT('x', 1024), '', 'github', '', 0, 0 \
            FROM {numbers} WHERE number < ?",
    }
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
    async fn run(&self, operation: Operation, user: u64) -> BenchResult<bool> {
        let mut connection = self.0.clone();
        match operation {
            Operation::Get | Operation::GetAdded => {
                let name = if operation == Operation::Get { format!("bench-{user}") } else { added(user) };
                let found: Vec<u8> = connection.get(name).await?;
                check(found.len() == 1024)?;
            }
            Operation::GetMissing => {
                let found: Option<Vec<u8>> = connection.get(format!("bench-{}", user + MISSING)).await?;
                check(found.is_none())?;
            }
            Operation::Put => connection.set::<_, _, ()>(format!("bench-{user}"), payload()).await?,
            Operation::PutDelete => {
                let name = format!("bench-{}", user + MISSING);
                connection.set::<_, _, ()>(&name, payload()).await?;
                check(connection.del::<_, u64>(&name).await? == 1)?;
            }
            Operation::PutIfVersion | Operation::List => return Ok(false),
        }
        Ok(true)
    }

    async fn add_records(&self, count: u64) -> BenchResult<()> {
        for start in (0..count).step_by(100) {
            let mut pipeline = redis::pipe();
            for user in start..count.min(start + 100) {
                pipeline.set(added(user), payload()).ignore();
            }
            pipeline.exec_async(&mut self.0.clone()).await?;
        }
        Ok(())
    }
}
