//! Compares the README's table of storages with what they declare, and with their numbers of round trips.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../storage-redis/tests/support/mod.rs"]
mod servers;

use std::convert::Infallible;
use std::fmt::Debug;
use std::io::Write as _;
use std::time::Duration;

use http::{Request, Response};
use oauth_dance_core::{
    Capabilities, Filter, KeyRing, MemoryStorage, PageRequest, Precondition, Record, RequestStorage, TokenKey,
    TokenStorage, random_bytes,
};
use oauth_dance_redis::RedisStorage;
use oauth_dance_session::{CookieTokens, SessionTokens};
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage, SqliteStorage};
use servers::{Proxy, Server};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, MySqlPool, PgConnection, PgPool, SqliteConnection};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt as _, service_fn};
use tower_sessions::{MemoryStore, SessionManagerLayer};
use url::Url;

/// How long a connection may take to return to its pool.
const SETTLED: Duration = Duration::from_millis(100);
const README: &str = include_str!("../../README.md");
const HEADER: [&str; 9] = [
    "storage",
    "crate",
    "choose it when",
    "durable",
    "shared by processes",
    "listable",
    "atomic",
    "largest token",
    "round trips",
];

#[test]
fn every_storage_has_its_row() {
    let names: Vec<_> = table().iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let storages = [
        "MemoryStorage",
        "SqliteStorage",
        "PostgresStorage",
        "MySqlStorage",
        "RedisStorage",
        "SessionTokens",
        "CookieTokens",
    ];
    assert_eq!(names, storages);
}

/// The matrix in the README has every row of the script, each with a date and without a failure.
#[test]
fn the_matrix_is_what_the_script_runs() {
    let script = include_str!("../matrix");
    let rows = script.lines().filter_map(|line| line.trim_start().strip_prefix("row \""));
    let rows: Vec<_> = rows.map(|row| row.split('"').next().unwrap()).collect();
    assert!(rows.len() > 10);
    let (_, table) = README.split_once("<!-- matrix -->").unwrap();
    let (table, _) = table.split_once("<!-- end of matrix -->").unwrap();
    let table = table.trim().lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let table: Vec<_> = table.collect();
    assert_eq!(table[0], ["storage", "server", "proxy", "passed", "not applicable", "failed", "took", "run on"]);
    assert_eq!(table[2..].iter().map(|row| row[0]).collect::<Vec<_>>(), rows);
    for row in &table[2..] {
        let date: Vec<u16> = row[7].split('-').map(|part| part.parse().unwrap()).collect();
        assert!(!row[1].is_empty() && row[5] == "0" && date.len() == 3, "{row:?}");
    }
}

#[test]
fn memory() {
    Row::of("MemoryStorage").declares(MemoryStorage::new().capabilities());
}

#[tokio::test]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tokens.db").display());
    Row::of("SqliteStorage").declares(SqliteStorage::connect(&url).await.unwrap().capabilities());
}

#[tokio::test]
async fn postgres() {
    let row = Row::of("PostgresStorage");
    // It declares the same without a server.
    row.declares(PostgresStorage::from_pool(PgPool::connect_lazy("postgres://nowhere").unwrap()).capabilities());

    let Some((proxy, url)) = proxied("POSTGRES_URL", 5432).await else { return };
    let table = random_name();
    let storage = PostgresStorage::connect(&url).await.unwrap().with_table(&table).unwrap();
    storage.migrate().await.unwrap();
    row.takes(round_trips(&storage, &proxy).await);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(removal(&table)).execute(&mut connection).await.unwrap();
}

#[tokio::test]
async fn mysql() {
    let row = Row::of("MySqlStorage");
    row.declares(MySqlStorage::from_pool(MySqlPool::connect_lazy("mysql://nowhere").unwrap()).capabilities());

    let Some((proxy, url)) = proxied("MYSQL_URL", 3306).await else { return };
    let table = random_name();
    let storage = MySqlStorage::connect(&url).await.unwrap().with_table(&table).unwrap();
    storage.migrate().await.unwrap();
    row.takes(round_trips(&storage, &proxy).await);
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(removal(&table)).execute(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    let row = Row::of("RedisStorage");
    let (Some(forgetful), Some(durable)) = (Server::start(&[]), Server::start_durable()) else {
        skip("there is no redis-server");
        return;
    };
    let proxy = Proxy::before(durable.port).await;
    let storage = RedisStorage::connect(&proxy.url()).await.unwrap();
    let other = RedisStorage::connect(&format!("redis://127.0.0.1:{}/", forgetful.port)).await.unwrap();
    row.declares_by_setup(&[other.capabilities(), storage.capabilities()]);
    row.takes(round_trips(&storage, &proxy).await);
}

#[tokio::test]
async fn session() {
    let store = MemoryStore::default();
    let tokens = SessionTokens::new(store.clone());
    let declared = async |tokens: SessionTokens| {
        let sessions = SessionManagerLayer::new(store.clone());
        declared_in_a_request((sessions, tokens)).await
    };
    let setups = [declared(tokens.clone()).await, declared(tokens.with_shared_store().with_durable_store()).await];
    Row::of("SessionTokens").declares_by_setup(&setups);
}

#[tokio::test]
async fn cookie() {
    let tokens = CookieTokens::new("https://app.example", KeyRing::generate());
    Row::of("CookieTokens").declares(declared_in_a_request(tokens).await);
}

/// The versions in the matrix are those of the servers that run here. Other servers may have any version.
#[tokio::test]
async fn versions() {
    let mut run = Vec::new();
    let mut sqlite = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut sqlite).await.unwrap();
    run.push(format!("SQLite {}", parts(&version, 2)));

    if let Some(url) = ours("postgres", "POSTGRES_URL") {
        let mut postgres = PgConnection::connect(&url).await.unwrap();
        let version: String = sqlx::query_scalar("SHOW server_version").fetch_one(&mut postgres).await.unwrap();
        run.push(format!("PostgreSQL {}", parts(&version, 1)));
    }
    if let Some(url) = ours("mariadb", "MYSQL_URL") {
        let mut mysql = MySqlConnection::connect(&url).await.unwrap();
        let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut mysql).await.unwrap();
        let product = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
        run.push(format!("{product} {}", parts(&version, 2)));
    }
    if let Some(url) = ours("redis", "REDIS_URL") {
        let mut redis = redis::Client::open(url).unwrap().get_connection().unwrap();
        let info: String = redis::cmd("INFO").arg("server").query(&mut redis).unwrap();
        let version = |name| info.lines().find_map(|line| line.trim_end().strip_prefix(name));
        run.push(match version("valkey_version:") {
            Some(version) => format!("Valkey {}", parts(version, 2)),
            None => format!("Redis {}", parts(version("redis_version:").unwrap(), 2)),
        });
    }
    for version in run {
        let is_named = README.lines().any(|line| line.starts_with("| ") && line.contains(&format!("| {version}")));
        assert!(is_named, "the matrix in the README has no row of {version}");
    }
}

/// The rows of the table, without its header.
fn table() -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let lines = README.lines().skip_while(|line| !line.starts_with("| storage |")).take_while(|line| !line.is_empty());
    let mut rows: Vec<_> = lines.map(cells).collect();
    assert_eq!(rows.first().expect("a table"), &HEADER);
    rows.drain(..2);
    rows
}

struct Row(Vec<&'static str>);

impl Row {
    fn of(storage: &str) -> Self {
        let name = format!("`{storage}`");
        Self(table().into_iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row of {storage}")))
    }

    fn cell(&self, column: &str) -> &'static str {
        self.0[HEADER.iter().position(|name| *name == column).unwrap()]
    }

    /// The row contains `yes` for what is declared, and `no` for what is not.
    fn declares(&self, declared: Capabilities) {
        self.declares_by_setup(&[declared]);
    }

    /// The row contains `yes` or `no` if all set-ups declare the same. Otherwise it names what the value depends on.
    fn declares_by_setup(&self, declared: &[Capabilities]) {
        type Declares = fn(&Capabilities) -> bool;
        let facts: [(&str, Declares); 4] = [
            ("durable", |found| found.durable),
            ("shared by processes", |found| found.shared),
            ("listable", |found| found.listable),
            ("atomic", |found| found.atomic),
        ];
        for (column, fact) in facts {
            let cell = self.cell(column);
            let found: Vec<_> = declared.iter().map(fact).collect();
            let right = match cell.split([',', ' ']).next() {
                Some("yes") => found.iter().all(|fact| *fact),
                Some("no") => found.iter().all(|fact| !fact),
                Some("as") => found.contains(&true) && found.contains(&false),
                _ => false,
            };
            assert!(right, "{}: {column} is {cell:?}, but {found:?} is declared", self.0[0]);
        }
        for declared in declared {
            let limit = declared.max_payload.map(|bytes| match bytes >> 20 {
                0 => format!("{:.1} KiB", bytes as f64 / 1024.0),
                mebibytes => format!("{mebibytes} MiB"),
            });
            let cell = self.cell("largest token");
            match limit {
                Some(limit) => assert!(cell.starts_with(&limit), "{}: {cell:?} is not {limit}", self.0[0]),
                None => assert!(!cell.contains(char::is_numeric), "{}: {cell:?}, but no limit is declared", self.0[0]),
            }
        }
    }

    /// The row contains the number of round trips: `1`, or `1; 3 for a page of a user's list`. An explanation may follow a
    /// comma.
    fn takes(&self, [get, put, delete, list]: [usize; 4]) {
        let most = get.max(put).max(delete);
        let found = if list == most { most.to_string() } else { format!("{most}; {list} for a page of a user's list") };
        let cell = self.cell("round trips");
        assert_eq!(cell.split(',').next(), Some(found.as_str()), "{}: {cell:?}", self.0[0]);
    }
}

/// The number of round trips of each operation, after everything was prepared that is prepared once.
async fn round_trips(storage: &impl TokenStorage, proxy: &Proxy) -> [usize; 4] {
    let key = TokenKey::new("github", "alice").unwrap();
    let record = Record::new(vec![7; 2000]);
    let alice = Filter::default().tenant(None).user("alice");
    // Round trips after an operation count as part of it.
    let count = async || {
        tokio::time::sleep(SETTLED).await;
        proxy.round_trips()
    };
    let mut counted = [0; 4];
    for _ in 0..3 {
        let version = storage.put(&key, &record, Precondition::Always).await.unwrap();
        count().await;
        let version = storage.put(&key, &record, Precondition::Version(version)).await.unwrap();
        counted[1] = count().await;
        storage.get(&key).await.unwrap().unwrap();
        counted[0] = count().await;
        let page = storage.list(&alice, PageRequest::default()).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        counted[3] = count().await;
        assert!(storage.delete(&key, Some(version)).await.unwrap());
        counted[2] = count().await;
    }
    counted
}

/// A proxy in front of the server that a variable names, and the URL of the proxy.
async fn proxied(variable: &str, default_port: u16) -> Option<(Proxy, String)> {
    let mut url = Url::parse(&named(variable)?).unwrap();
    assert_eq!(url.host_str(), Some("127.0.0.1"), "the proxy connects to this machine only");
    let proxy = Proxy::before(url.port().unwrap_or(default_port)).await;
    url.set_port(Some(proxy.port)).unwrap();
    Some((proxy, url.into()))
}

/// An application that returns what the storage of its request declares.
type App = BoxCloneSyncService<Request<()>, Response<Option<Capabilities>>, Infallible>;

/// What a storage declares that a layer puts into a request.
async fn declared_in_a_request<L>(layer: L) -> Capabilities
where
    L: Layer<App>,
    L::Service: Service<Request<()>, Response = Response<Option<Capabilities>>>,
    <L::Service as Service<Request<()>>>::Error: Debug,
{
    let handler = service_fn(async |request: Request<()>| {
        let declared = request.extensions().get::<RequestStorage>().map(|tokens| tokens.storage().capabilities());
        Ok(Response::new(declared))
    });
    let service = layer.layer(BoxCloneSyncService::new(handler));
    service.oneshot(Request::new(())).await.unwrap().into_body().expect("a storage")
}

/// The first parts of a version.
fn parts(version: &str, count: usize) -> String {
    let number = version.split(|found: char| !found.is_ascii_digit() && found != '.').next().unwrap_or_default();
    number.split('.').take(count).collect::<Vec<_>>().join(".")
}

/// The URL in a variable, if `tests/servers/start` started that server.
fn ours(kind: &str, variable: &str) -> Option<String> {
    let folder = std::env::var("SERVERS_FOLDER").ok()?;
    std::path::Path::new(&folder).join(kind).join("exports").exists().then(|| named(variable))?
}

fn named(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        skip(&format!("{variable} is not set; `tests/servers/start` starts a server"));
    }
    url
}

/// Prints that a test is skipped, or fails if all backends are required.
fn skip(why: &str) {
    assert!(std::env::var("REQUIRE_BACKENDS").as_deref() != Ok("1"), "{why}, although REQUIRE_BACKENDS=1 is set");
    // Not `eprintln!`, whose output the test harness hides when a test passes.
    let _ = writeln!(std::io::stderr().lock(), "\nSKIP {}: {why}\n", module_path!());
}

fn random_name() -> String {
    format!("readme_{:016x}", u64::from_be_bytes(random_bytes()))
}

fn removal(table: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("DROP TABLE {table}, _{table}_migrations"))
}
