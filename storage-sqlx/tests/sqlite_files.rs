//! SQLite: what depends on the file, on other processes and on the options.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oauth_dance_core::{
    Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version, Versioned,
};
use oauth_dance_sqlx::SqliteStorage;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

const CHILD_URL: &str = "TEST_CHILD_URL";

fn url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("tokens.db").display())
}

fn key(user: &str) -> TokenKey {
    TokenKey::new("github", user).unwrap()
}

async fn ready(url: &str) -> SqliteStorage {
    let storage = SqliteStorage::connect(url).await.unwrap();
    storage.migrate().await.unwrap();
    storage
}

/// A connection that holds the write lock.
async fn locked(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join("tokens.db"));
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
    connection
}

/// Runs one of the ignored tests below in another process.
fn child(test: &str, url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(CHILD_URL, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn child_url() -> String {
    std::env::var(CHILD_URL).expect("run by other tests only")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as another process of `increments_of_two_processes_are_exact`"]
async fn child_that_increments() {
    let storage = ready(&child_url()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let storage = storage.clone();
        tasks.spawn(async move {
            for _ in 0..50 {
                increment(&storage).await;
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
#[ignore = "runs as another process of `acknowledged_writes_survive_a_kill`"]
async fn child_that_writes() {
    let storage = ready(&child_url()).await;
    for number in 0_u64.. {
        let version = storage.put(&key(&number.to_string()), &Record::new("x"), Precondition::Absent).await.unwrap();
        println!("written {number} {}", hex(version));
    }
}

fn hex(version: Version) -> String {
    version.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn increment(storage: &SqliteStorage) {
    loop {
        let found = storage.get(&key("counter")).await.unwrap().unwrap();
        let number: u64 = String::from_utf8(found.value.payload).unwrap().parse().unwrap();
        let next = Record::new((number + 1).to_string());
        match storage.put(&key("counter"), &next, Precondition::Version(found.version)).await {
            Ok(_) => return,
            Err(StorageError::Conflict) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_of_two_processes_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path());
    let storage = ready(&url).await;
    storage.put(&key("counter"), &Record::new("0"), Precondition::Absent).await.unwrap();

    let children: Vec<_> = (0..3).map(|_| child("child_that_increments", &url)).collect();
    for _ in 0..100 {
        increment(&storage).await;
    }
    for child in children {
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }
    let total = storage.get(&key("counter")).await.unwrap().unwrap().value.payload;
    assert_eq!(String::from_utf8(total).unwrap(), (3 * 8 * 50 + 100).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_can_create_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path());
    let children: Vec<_> = (0..8).map(|_| child("child_that_starts", &url)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let storage = SqliteStorage::connect(&url).await.unwrap();
    assert_eq!(storage.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries.len(), 8);
}

#[tokio::test]
#[ignore = "runs as another process of `eight_processes_can_create_the_same_file`"]
async fn child_that_starts() {
    let storage = ready(&child_url()).await;
    let user = std::process::id().to_string();
    storage.put(&key(&user), &Record::new("x"), Precondition::Absent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path());
    let mut child = child("child_that_writes", &url);
    let mut written = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while written.len() < 200 {
        let line = lines.next().unwrap().unwrap();
        // The test runner prints before the first line.
        if let Some((_, words)) = line.split_once("written ") {
            let (number, version) = words.split_once(' ').unwrap();
            written.push((number.to_owned(), version.to_owned()));
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let storage = SqliteStorage::connect(&url).await.unwrap();
    for (number, version) in written {
        let found = storage.get(&key(&number)).await.unwrap().unwrap();
        assert_eq!(hex(found.version), version);
    }
    storage.put(&key("after"), &Record::new("x"), Precondition::Absent).await.unwrap();
}

#[tokio::test]
async fn reopened_file_has_all_records() {
    let folder = tempfile::tempdir().unwrap();
    let record = Record::new("x").with_key_id(Some("k".into()));
    let storage = ready(&url(folder.path())).await;
    let version = storage.put(&key("alice"), &record, Precondition::Always).await.unwrap();
    storage.close().await;
    let closed = storage.get(&key("alice")).await;
    assert!(matches!(closed, Err(StorageError::Unavailable { .. })), "{closed:?}");

    let storage = ready(&url(folder.path())).await;
    assert_eq!(storage.get(&key("alice")).await.unwrap(), Some(Versioned::new(record, version)));
    assert!(storage.delete(&key("alice"), Some(version)).await.unwrap());
}

#[tokio::test]
async fn short_lock_delays_writes_but_not_reads() {
    let folder = tempfile::tempdir().unwrap();
    let storage = ready(&url(folder.path())).await;
    storage.put(&key("alice"), &Record::new("old"), Precondition::Always).await.unwrap();
    let lock = locked(folder.path()).await;

    let write = tokio::spawn({
        let storage = storage.clone();
        async move { storage.put(&key("alice"), &Record::new("new"), Precondition::Always).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(storage.get(&key("alice")).await.unwrap().unwrap().value, Record::new("old"));
    assert!(!write.is_finished());
    lock.close().await.unwrap();
    write.await.unwrap().unwrap();
    assert_eq!(storage.get(&key("alice")).await.unwrap().unwrap().value, Record::new("new"));
}

#[tokio::test]
async fn long_lock_is_unavailable_within_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    // First SQLite's busy timeout, then the timeout of the storage with an application pool without one.
    let wait = |options: SqliteConnectOptions| options.busy_timeout(Duration::from_millis(300));
    let own = SqliteStorage::connect_with(&url(folder.path()), wait).await.unwrap();
    own.migrate().await.unwrap();
    let impatient = SqliteConnectOptions::new().filename(folder.path().join("tokens.db")).busy_timeout(Duration::ZERO);
    let pool = SqlitePoolOptions::new().connect_with(impatient).await.unwrap();
    let theirs = SqliteStorage::from_pool(pool).await.unwrap();
    for storage in [own, theirs] {
        let storage = storage.with_timeout(Duration::from_secs(1));
        let lock = locked(folder.path()).await;
        let start = Instant::now();
        let error = storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap_err();
        assert!(matches!(error, StorageError::Unavailable { .. }), "{error:?}");
        assert!(error.is_retryable());
        assert!((0.4..1.2).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());

        lock.close().await.unwrap();
        assert_eq!(storage.get(&key("alice")).await.unwrap(), None, "the error says that nothing has changed");
        storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
        assert!(storage.delete(&key("alice"), None).await.unwrap());
    }
}

#[tokio::test]
async fn write_without_a_response_is_ambiguous() {
    let folder = tempfile::tempdir().unwrap();
    let storage = ready(&url(folder.path())).await.with_timeout(Duration::from_millis(300));
    let lock = locked(folder.path()).await;
    // SQLite still waits for the lock after the storage has timed out.
    let error = storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap_err();
    assert!(matches!(error, StorageError::Ambiguous { .. }), "{error:?}");
    assert!(!error.is_retryable());
    // The next write waits for the connection, so it was never sent.
    let error = storage.put(&key("bob"), &Record::new("x"), Precondition::Always).await.unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error:?}");

    lock.close().await.unwrap();
    let storage = storage.with_timeout(Duration::from_secs(5));
    storage.put(&key("carol"), &Record::new("x"), Precondition::Absent).await.unwrap();
    let users: Vec<_> = storage.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries;
    let users: Vec<_> = users.iter().map(|entry| entry.key.user()).collect();
    assert_eq!(users, ["alice", "carol"]);
}

#[cfg(unix)]
#[tokio::test]
async fn new_file_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;

    for query in ["", "?mode=rwc", "?cache=private&mode=rwc"] {
        let folder = tempfile::tempdir().unwrap();
        let storage = ready(&format!("{}{query}", url(folder.path()))).await;
        storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
        for name in ["tokens.db", "tokens.db-wal", "tokens.db-shm"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}, {query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_url_is_one_database() {
    for url in ["sqlite::memory:", "sqlite://?mode=memory&cache=private", "sqlite::memory:?cache=private"] {
        let storage = ready(url).await;
        let mut tasks = tokio::task::JoinSet::new();
        for user in 0..20 {
            let storage = storage.clone();
            tasks.spawn(async move {
                storage.put(&key(&user.to_string()), &Record::new("x"), Precondition::Absent).await.unwrap();
                storage.get(&key(&user.to_string())).await.unwrap().unwrap();
            });
        }
        tasks.join_all().await;
        let all = storage.list(&Filter::everything(), PageRequest::default()).await.unwrap();
        assert_eq!(all.entries.len(), 20, "{url}");
        assert!(!storage.capabilities().durable && !storage.capabilities().shared, "{url}");

        let other = ready(url).await;
        assert_eq!(other.get(&key("1")).await.unwrap(), None, "{url}: another storage is another database");
    }
}

#[tokio::test]
async fn memory_pool_with_several_connections_is_rejected() {
    for options in [SqliteConnectOptions::new(), "sqlite::memory:".parse().unwrap()] {
        let several = SqlitePoolOptions::new().max_connections(2).connect_with(options.clone()).await.unwrap();
        let refused = SqliteStorage::from_pool(several).await;
        assert!(matches!(refused, Err(StorageError::Misconfigured { .. })), "{refused:?}");

        let one = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let storage = SqliteStorage::from_pool(one).await.unwrap();
        storage.migrate().await.unwrap();
        storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
        assert!(!storage.capabilities().durable && !storage.capabilities().shared);
    }
}

#[tokio::test]
async fn application_pool_on_a_file_is_durable_and_shared() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("tokens.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
    let storage = SqliteStorage::from_pool(pool).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    assert!(storage.capabilities().durable && storage.capabilities().shared);
    assert!(ready(&url(folder.path())).await.get(&key("alice")).await.unwrap().is_some());
}

#[tokio::test]
async fn misconfiguration_errors_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let advice = |error: StorageError| match error {
        StorageError::Misconfigured { advice, .. } => advice,
        other => panic!("{other:?}"),
    };
    for url in ["sqlite:x?mode=sideways", "sqlite:x?colour=red"] {
        assert!(advice(SqliteStorage::connect(url).await.unwrap_err()).contains("URL"), "{url}");
    }
    let nowhere = format!("sqlite:{}/no/such/folder/tokens.db", folder.path().display());
    assert!(advice(SqliteStorage::connect(&nowhere).await.unwrap_err()).contains("path"));
    let missing = format!("sqlite:{}?mode=rw", folder.path().join("missing.db").display());
    assert!(advice(SqliteStorage::connect(&missing).await.unwrap_err()).contains("path"));
    assert!(!folder.path().join("missing.db").exists());

    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "this is no database, it is a text of more than a hundred bytes ".repeat(50)).unwrap();
    let error = SqliteStorage::connect(&format!("sqlite:{}", text.display())).await.unwrap_err();
    assert!(advice(error).contains("not a SQLite database"));

    let storage = ready(&url(folder.path())).await;
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let read_only = SqliteStorage::connect(&format!("{}?mode=ro", url(folder.path()))).await.unwrap();
    assert!(read_only.get(&key("alice")).await.unwrap().is_some());
    let error = read_only.put(&key("alice"), &Record::new("y"), Precondition::Always).await.unwrap_err();
    assert!(advice(error).contains("read-only"));

    for name in ["", "Tokens", "tokens; DROP TABLE x", "main.tokens"] {
        assert!(advice(storage.clone().with_table(name).unwrap_err()).contains("name"), "{name}");
    }
}

#[tokio::test]
async fn full_disk_is_unavailable_and_retains_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let storage = ready(&url(folder.path())).await;
    let version = storage.put(&key("alice"), &Record::new("old"), Precondition::Always).await.unwrap();
    storage.close().await;

    let small = |options: SqliteConnectOptions| options.pragma("max_page_count", "12");
    let full = SqliteStorage::connect_with(&url(folder.path()), small).await.unwrap();
    let error = full.put(&key("alice"), &Record::new(vec![1; 100_000]), Precondition::Always).await.unwrap_err();
    let StorageError::Unavailable { source } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("full"), "{source}");
    assert_eq!(full.get(&key("alice")).await.unwrap(), Some(Versioned::new(Record::new("old"), version)));
    full.put(&key("alice"), &Record::new("small"), Precondition::Version(version)).await.unwrap();
}
