//! Every kind of storage, with real servers. SQLite is always tested; the others if the environment names a server.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use oauth_dance_core::{
    KeyRing, OAuth2Token, Precondition, Record, SealingKey, Timestamp, Token, TokenKey, TokenStorage, Tokens,
};
use oauth_dance_redis::RedisStorage;
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage, SqliteStorage};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::Url;

use super::{Run, backend, oauth_dance, random_name};

/// An empty table or prefix, which is deleted after the test.
pub struct Backend {
    pub name: &'static str,
    pub url: String,
    pub storage: Arc<dyn TokenStorage>,
    /// The key ring that `key_file` contains.
    pub ring: KeyRing,
    pub key_file: PathBuf,
    /// For the files of the test.
    pub folder: TempDir,
    /// The table in SQL, the prefix in Redis.
    pub place: String,
    /// The restricted users that were created.
    users: std::cell::RefCell<Vec<String>>,
    runtime: Runtime,
}

/// Runs a test on every storage.
pub fn on_every_storage(test: impl Fn(&Backend)) {
    for name in ["SQLite", "PostgreSQL", "MariaDB", "Redis"] {
        if let Some(backend) = Backend::new(name) {
            test(&backend);
        }
    }
}

impl Backend {
    /// `None` if the environment names no such server.
    pub fn new(name: &'static str) -> Option<Self> {
        Self::with_folder(name, TempDir::new().unwrap())
    }

    /// The same, with its files in this folder.
    pub fn with_folder(name: &'static str, folder: TempDir) -> Option<Self> {
        let url = match name {
            "SQLite" => format!("sqlite:{}", folder.path().join("tokens.db").display()),
            "PostgreSQL" => backend("POSTGRES_URL")?,
            "MariaDB" => backend("MYSQL_URL")?,
            _ => backend("REDIS_URL")?,
        };
        // Several threads, because the pools of a storage work in the background.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let place = random_name();
        let storage = runtime.block_on(migrated(name, &url, &place));
        let key = SealingKey::generate();
        let key_file = folder.path().join("keys");
        write_private(&key_file, &key.encode());
        Some(Self {
            name,
            url,
            storage,
            ring: KeyRing::new(key),
            key_file,
            folder,
            place,
            users: std::cell::RefCell::default(),
            runtime,
        })
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The tokens, with the key ring of the test.
    pub fn tokens(&self) -> Tokens {
        Tokens::sealed(Arc::clone(&self.storage), self.ring.clone())
    }

    /// Stores a token that expires in that many seconds, with a refresh token.
    pub fn store(&self, key: &TokenKey, expires_in: u64) {
        let mut token = OAuth2Token::bearer("CANARY-access-token");
        token.refresh_token = Some("CANARY-refresh-token".into());
        token.expires_at = Some(now().saturating_add(Duration::from_secs(expires_in)));
        token.issued_at = Some(now());
        self.store_token(key, token);
    }

    pub fn store_token(&self, key: &TokenKey, token: impl Into<Token>) {
        self.block_on(self.tokens().put(key, &token.into(), Precondition::Always)).unwrap();
    }

    /// Stores that many records, which are not tokens.
    pub fn store_many(&self, number: usize) {
        let record = Record::new("x");
        self.block_on(async {
            let puts = (0..number).map(|user| {
                let (storage, record) = (&self.storage, &record);
                async move { storage.put(&key("github", &format!("u{user}")), record, Precondition::Always).await }
            });
            stream::iter(puts).buffer_unordered(16).map(Result::unwrap).collect::<Vec<_>>().await;
        });
    }

    /// Stores bytes, which do not have to be a token.
    pub fn store_record(&self, key: &TokenKey, record: &Record) {
        self.block_on(self.storage.put(key, record, Precondition::Always)).unwrap();
    }

    pub fn has(&self, key: &TokenKey) -> bool {
        self.block_on(self.storage.get(key)).unwrap().is_some()
    }

    /// The options that name this place at a URL.
    pub fn at(&self, url: &str) -> Vec<String> {
        let option = if self.name == "Redis" { "--prefix" } else { "--table" };
        ["--storage", url, option, &self.place].map(str::to_owned).to_vec()
    }

    /// Runs a command on this storage, with its key file unless the arguments are about keys.
    pub fn run(&self, command: &[&str]) -> Run {
        self.run_at(&self.url, command)
    }

    /// Runs a command on this table or prefix, with another URL.
    pub fn run_at(&self, url: &str, command: &[&str]) -> Run {
        Run::of(oauth_dance().args(command).args(self.at(url)))
    }

    /// Stores a record for each way in which one can be unreadable, and returns their users and the names of the problems.
    pub fn store_unreadable(&self) -> Vec<(&'static str, &'static str)> {
        let put = |tokens: &Tokens, user| {
            let token = OAuth2Token::bearer("CANARY-other").into();
            self.block_on(tokens.put(&key("github", user), &token, Precondition::Always)).unwrap();
        };
        put(&Tokens::sealed(Arc::clone(&self.storage), KeyRing::generate()), "lost-key");
        put(&Tokens::dangerous_plaintext(Arc::clone(&self.storage)), "plain");
        put(&self.tokens(), "owner");
        let moved = self.block_on(self.storage.get(&key("github", "owner"))).unwrap().unwrap().value;
        self.store_record(&key("github", "moved"), &moved);
        assert!(self.block_on(self.storage.delete(&key("github", "owner"), None)).unwrap());
        self.store_record(&key("github", "garbage"), &Record::new(vec![1; 60]));
        vec![
            ("garbage", "unknown_key"),
            ("lost-key", "unknown_key"),
            ("moved", "altered_or_moved"),
            ("plain", "not_sealed"),
        ]
    }

    /// Runs a command that opens tokens.
    pub fn run_with_keys(&self, command: &[&str]) -> Run {
        Run::of(oauth_dance().args(command).args(self.at(&self.url)).arg("--key-file").arg(&self.key_file))
    }

    /// A URL without a server or a file.
    pub fn unreachable(&self) -> String {
        match self.name {
            "SQLite" => format!("sqlite:{}", self.folder.path().join("missing.db").display()),
            "PostgreSQL" => "postgres://u:CANARY@127.0.0.1:1/d".to_owned(),
            "MariaDB" => "mysql://u:CANARY@127.0.0.1:1/d".to_owned(),
            _ => "redis://u:CANARY@127.0.0.1:1/".to_owned(),
        }
    }

    /// A URL with which records can be read, but not written.
    pub fn read_only(&self) -> String {
        let (user, place) = (random_name(), &self.place);
        if self.name == "SQLite" {
            return format!("{}?mode=ro", self.url);
        }
        match self.name {
            "PostgreSQL" => self.sql(&format!(
                "CREATE ROLE {user} LOGIN PASSWORD 'CANARY'; GRANT SELECT ON {place}, _{place}_migrations TO {user}; \
                ALTER ROLE {user} SET default_transaction_read_only = on"
            )),
            "MariaDB" => {
                self.sql(&format!("CREATE USER {user} IDENTIFIED BY 'CANARY'"));
                self.sql(&format!("GRANT SELECT ON {place} TO {user}"));
                self.sql(&format!("GRANT SELECT ON _{place}_migrations TO {user}"));
            }
            _ => self.redis(&[
                "ACL",
                "SETUSER",
                &user,
                "on",
                ">CANARY",
                "~*",
                "+@read",
                "+time",
                "+info",
                "+config|get",
                "+ping",
                "+select",
                "+client",
            ]),
        }
        self.users.borrow_mut().push(user.clone());
        let mut url = Url::parse(&self.url).unwrap();
        url.set_username(&user).unwrap();
        url.set_password(Some("CANARY")).unwrap();
        url.to_string()
    }

    /// Runs statements as the administrator.
    pub fn sql(&self, statements: &str) {
        self.block_on(async {
            let statements = AssertSqlSafe(statements.to_owned());
            match self.name {
                "SQLite" => {
                    let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                    connection.execute(sqlx::raw_sql(statements)).await.unwrap();
                }
                "PostgreSQL" => {
                    let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                    connection.execute(sqlx::raw_sql(statements)).await.unwrap();
                }
                _ => {
                    let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
                    connection.execute(sqlx::raw_sql(statements)).await.unwrap();
                }
            }
        });
    }

    /// Runs a command as the administrator.
    pub fn redis(&self, command: &[&str]) {
        let mut connection = redis::Client::open(self.url.as_str()).unwrap().get_connection().unwrap();
        redis::cmd(command[0]).arg(&command[1..]).exec(&mut connection).unwrap();
    }

    fn clean_up(&self) {
        let (users, place) = (self.users.borrow(), &self.place);
        match self.name {
            "SQLite" => {}
            "PostgreSQL" => {
                self.sql(&format!("DROP TABLE {place}, _{place}_migrations"));
                users.iter().for_each(|user| self.sql(&format!("DROP ROLE {user}")));
            }
            "MariaDB" => {
                self.sql(&format!("DROP TABLE {place}, _{place}_migrations"));
                users.iter().for_each(|user| self.sql(&format!("DROP USER {user}")));
            }
            _ => {
                let mut connection = redis::Client::open(self.url.as_str()).unwrap().get_connection().unwrap();
                let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{{{place}:*")).query(&mut connection).unwrap();
                keys.chunks(500).for_each(|keys| redis::cmd("DEL").arg(keys).exec(&mut connection).unwrap());
                users.iter().for_each(|user| self.redis(&["ACL", "DELUSER", user]));
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // After a failed test the server may be in any state.
        if !std::thread::panicking() {
            self.clean_up();
        }
    }
}

async fn migrated(name: &str, url: &str, place: &str) -> Arc<dyn TokenStorage> {
    match name {
        "SQLite" => {
            let storage = SqliteStorage::connect(url).await.unwrap().with_table(place).unwrap();
            storage.migrate().await.unwrap();
            Arc::new(storage)
        }
        "PostgreSQL" => {
            let storage = PostgresStorage::connect(url).await.unwrap().with_table(place).unwrap();
            storage.migrate().await.unwrap();
            Arc::new(storage)
        }
        "MariaDB" => {
            let storage = MySqlStorage::connect(url).await.unwrap().with_table(place).unwrap();
            storage.migrate().await.unwrap();
            Arc::new(storage)
        }
        _ => Arc::new(RedisStorage::connect(url).await.unwrap().with_prefix(place).unwrap()),
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &std::path::Path, text: &str) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

pub fn key(provider: &str, user: &str) -> TokenKey {
    TokenKey::new(provider, user).unwrap()
}

pub fn now() -> Timestamp {
    oauth_dance_core::Clock::system().now()
}
