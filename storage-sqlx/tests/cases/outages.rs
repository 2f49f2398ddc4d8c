use std::time::{Duration, Instant};

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage};
use tokio::task::JoinSet;

use super::proxy::{Proxy, Way};
use super::{Database, key, ready};

/// A database on a server.
pub trait Remote: Database {
    fn url(&self) -> String;

    async fn open(url: &str) -> Result<Self::Storage, StorageError>;

    fn with_timeout(storage: Self::Storage, timeout: Duration) -> Self::Storage;

    /// Ends all other sessions of this database.
    async fn end_sessions(&self);

    /// A transaction that locks a record until it is dropped.
    type Transaction;
    async fn hold(&self, key: &TokenKey) -> Self::Transaction;
}

const TIMEOUT: Duration = Duration::from_secs(1);

/// A storage that cannot open a second connection uses the one that another call returns. That call waits for a lock until
/// `release`.
#[allow(dead_code, reason = "not every test has such a limit")]
pub async fn returned_connection_is_used(
    storage: &impl TokenStorage,
    release: impl Future<Output = ()>,
    most: Duration,
) {
    let alice = key("alice");
    let start = Instant::now();
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        release.await;
    };
    let record = Record::new("x");
    let slow = storage.put(&alice, &record, Precondition::Always);
    let (slow, fast, ()) = tokio::join!(slow, storage.get(&alice), release);
    slow.unwrap();
    assert!(fast.unwrap().is_some());
    assert!(start.elapsed() < most, "{:?}", start.elapsed());
}

async fn behind_proxy<R: Remote>(database: &R) -> (Proxy, R::Storage) {
    ready(database).await;
    let (proxy, url) = Proxy::before(&database.url()).await;
    (proxy, R::with_timeout(R::open(&url).await.unwrap(), TIMEOUT))
}

/// Leaves this many idle connections in the pool. Every statement has run on each of them.
async fn warm_up<S: TokenStorage + Clone>(storage: &S, connections: usize) {
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let (storage, key, record) = (storage.clone(), key(&format!("warm{number}")), Record::new("x"));
        tasks.spawn(async move {
            for _ in 0..10 {
                let _ = storage.get(&key).await;
                let Ok(version) = storage.put(&key, &record, Precondition::Absent).await else { continue };
                let _ = storage.put(&key, &record, Precondition::Version(version)).await;
                let _ = storage.put(&key, &record, Precondition::Always).await;
                let _ = storage.delete(&key, None).await;
            }
        });
    }
    tasks.join_all().await;
}

pub async fn outage_is_an_error_within_the_timeout<R: Remote>(database: &R) {
    let (proxy, storage) = behind_proxy(database).await;
    storage.put(&key("alice"), &Record::new("old"), Precondition::Always).await.unwrap();
    warm_up(&storage, 4).await;
    for way in [Way::Down, Way::Silent] {
        proxy.set(way);
        for _ in 0..2 {
            let start = Instant::now();
            let read = storage.get(&key("alice")).await;
            assert!(matches!(read, Err(StorageError::Unavailable { .. })), "{way:?}: {read:?}");
            let list = storage.list(&Filter::everything(), PageRequest::default()).await;
            assert!(matches!(list, Err(StorageError::Unavailable { .. })), "{way:?}: {list:?}");
            let write = storage.put(&key("alice"), &Record::new("new"), Precondition::Absent).await;
            assert!(
                matches!(write, Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. })),
                "{way:?}: {write:?}"
            );
            let delete = storage.delete(&key("nobody"), None).await;
            assert!(
                matches!(delete, Err(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. })),
                "{way:?}: {delete:?}"
            );
            assert!(start.elapsed() < 5 * TIMEOUT, "{way:?}: {:?} for four calls", start.elapsed());
        }
        proxy.set(Way::Open);
        eventually(|| async { storage.get(&key("alice")).await.is_ok() }).await;
        let found = storage.get(&key("alice")).await.unwrap().unwrap();
        assert_eq!(found.value, Record::new("old"));
        storage.put(&key("alice"), &Record::new("old"), Precondition::Version(found.version)).await.unwrap();
    }
}

async fn eventually<F: Future<Output = bool>>(mut check: impl FnMut() -> F) {
    for _ in 0..100 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the condition is not met after ten seconds");
}

pub async fn broken_idle_connections_cause_no_error<R: Remote>(database: &R) {
    let (proxy, storage) = behind_proxy(database).await;
    let storage = R::with_timeout(storage, Duration::from_secs(5));
    let broken = || async {
        warm_up(&storage, 6).await;
        proxy.set(Way::Down);
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.set(Way::Open);
    };

    broken().await;
    for _ in 0..20 {
        assert_eq!(storage.get(&key("nobody")).await.unwrap(), None, "a read is retried");
    }

    broken().await;
    let first = storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await;
    assert!(matches!(first, Err(StorageError::Ambiguous { .. })), "{first:?}");
    for _ in 0..20 {
        storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    }

    warm_up(&storage, 6).await;
    database.end_sessions().await;
    for _ in 0..20 {
        assert!(storage.get(&key("alice")).await.unwrap().is_some());
    }
}

pub async fn lost_response_is_ambiguous<R: Remote>(database: &R) {
    let (proxy, storage) = behind_proxy(database).await;
    let direct = database.connect().await;
    for way in [Way::Cut, Way::Unanswered] {
        let users = ["always", "absent", "version", "deleted"];
        let mut versions = Vec::new();
        for user in users {
            let old = Record::new("old");
            versions.push(storage.put(&key(user), &old, Precondition::Always).await.unwrap());
        }
        storage.delete(&key("absent"), None).await.unwrap();

        for (user, when) in [
            ("always", Precondition::Always),
            ("absent", Precondition::Absent),
            ("version", Precondition::Version(versions[2])),
        ] {
            // The response to the write itself is lost, and not that to the test of the connection.
            warm_up(&storage, 10).await;
            proxy.set(way);
            let start = Instant::now();
            let error = storage.put(&key(user), &Record::new("new"), when).await.unwrap_err();
            assert!(matches!(error, StorageError::Ambiguous { .. }), "{way:?} {when:?}: {error:?}");
            assert!(start.elapsed() < 2 * TIMEOUT);
            proxy.set(Way::Open);
            eventually(|| async { direct.get(&key(user)).await.unwrap().unwrap().value == Record::new("new") }).await;
        }
        warm_up(&storage, 10).await;
        proxy.set(way);
        let error = storage.delete(&key("deleted"), None).await.unwrap_err();
        assert!(matches!(error, StorageError::Ambiguous { .. }), "{way:?}: {error:?}");
        proxy.set(Way::Open);
        eventually(|| async { direct.get(&key("deleted")).await.unwrap().is_none() }).await;
    }
}

/// The rest of an incomplete statement is never sent. Otherwise it could take effect long after its call has returned.
pub async fn incomplete_statement_is_not_completed<R: Remote>(database: &R) {
    let (proxy, storage) = behind_proxy(database).await;
    let large = Record::new(vec![7; 8 * 1024 * 1024]);
    for _ in 0..2 {
        warm_up(&storage, 4).await;
        proxy.set(Way::Silent);
        let error = storage.put(&key("alice"), &large, Precondition::Always).await.unwrap_err();
        assert!(matches!(error, StorageError::Ambiguous { .. }), "{error:?}");
        // A closing message would be sent now.
        tokio::task::yield_now().await;
        proxy.set(Way::Open);
        tokio::time::sleep(Duration::from_millis(500)).await;
        eventually(async || storage.get(&key("bob")).await.is_ok()).await;
        assert!(database.connect().await.get(&key("alice")).await.unwrap().is_none());
    }
}

pub async fn silent_server_leaks_no_connection<R: Remote>(database: &R) {
    let (proxy, storage) = behind_proxy(database).await;
    for way in [Way::Silent, Way::Abandoned] {
        proxy.set(Way::Open);
        warm_up(&storage, 10).await;
        proxy.set(way);
        // More calls than the pool has connections. Half of them are dropped.
        let mut tasks = JoinSet::new();
        for number in 0..40 {
            let storage = storage.clone();
            let patience = if number % 2 == 0 { TIMEOUT / 4 } else { 4 * TIMEOUT };
            tasks.spawn(async move { tokio::time::timeout(patience, storage.get(&key("nobody"))).await });
        }
        for result in tasks.join_all().await {
            assert!(!matches!(result, Ok(Err(ref error)) if !error.is_retryable()), "{result:?}");
        }
        if way == Way::Silent {
            proxy.set(Way::Open);
        }
        eventually(|| async {
            let mut tasks = JoinSet::new();
            for _ in 0..10 {
                let storage = storage.clone();
                tasks.spawn(async move { storage.get(&key("nobody")).await.is_ok() });
            }
            tasks.join_all().await.into_iter().all(|ok| ok)
        })
        .await;
    }
}

pub async fn connections_are_reused<R: Remote>(database: &R) {
    let (proxy, storage) = behind_proxy(database).await;
    warm_up(&storage, 4).await;
    let before = proxy.connections();
    for number in 0..50 {
        let (user, record) = (key(&number.to_string()), Record::new("x"));
        let version = storage.put(&user, &record, Precondition::Absent).await.unwrap();
        storage.put(&user, &record, Precondition::Absent).await.unwrap_err();
        storage.put(&user, &record, Precondition::Version(version)).await.unwrap();
        storage.get(&user).await.unwrap();
        storage.delete(&user, None).await.unwrap();
    }
    assert_eq!(proxy.connections(), before, "a connection was opened for no reason");
}

/// Needs a runtime with one thread, whose clock can be paused.
pub async fn idle_and_old_connections_are_closed<R: Remote>(database: &R) {
    let (proxy, storage) = behind_proxy(database).await;
    let storage = R::with_timeout(storage, Duration::from_secs(10));
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    warm_up(&storage, 8).await;
    // A pooler may have rejected the first one.
    let (opened, open) = (proxy.connections(), proxy.open());
    assert!(open > 1, "{open}");
    pass(60).await;
    assert_eq!(proxy.open(), open, "none was idle for long");
    pass(10 * 60).await;
    eventually(async || proxy.open() == 0).await;

    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    assert_eq!((proxy.connections(), proxy.open()), (opened + 1, 1));
    // One connection that is never idle for long.
    for minutes in [5, 5, 5, 5, 5, 6] {
        assert_eq!(proxy.connections(), opened + 1);
        pass(minutes * 60).await;
        assert!(storage.get(&key("alice")).await.unwrap().is_some());
    }
    assert!(storage.get(&key("alice")).await.unwrap().is_some());
    eventually(async || (proxy.connections(), proxy.open()) == (opened + 2, 1)).await;
}

/// Connections end with the runtime that opened them.
pub fn ended_runtime_causes_no_error<R: Remote>() {
    let in_a_runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = in_a_runtime();
    let Some((database, storage)) = first.block_on(async {
        let database = R::empty().await?;
        let storage = ready(&database).await;
        warm_up(&storage, 4).await;
        Some((database, storage))
    }) else {
        return;
    };
    for number in 0..20 {
        // Some reads are in progress when it ends.
        let storage = storage.clone();
        first.spawn(async move { storage.get(&key(&number.to_string())).await });
    }
    drop(first);
    let second = in_a_runtime();
    second.block_on(async {
        storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
        let reads = (0..20).map(|_| async { storage.get(&key("alice")).await.unwrap().unwrap() });
        assert_eq!(futures_util::future::join_all(reads).await.len(), 20);
        database.remove().await;
    });
}

pub async fn locked_row_is_unavailable_and_delays_no_other<R: Remote>(database: &R) {
    let storage = ready(database).await;
    storage.put(&key("held"), &Record::new("old"), Precondition::Always).await.unwrap();
    let held = database.hold(&key("held")).await;

    let write = tokio::spawn({
        let storage = storage.clone();
        async move { storage.put(&key("held"), &Record::new("new"), Precondition::Always).await }
    });
    let start = Instant::now();
    for _ in 0..20 {
        storage.put(&key("free"), &Record::new("x"), Precondition::Always).await.unwrap();
        assert_eq!(storage.get(&key("held")).await.unwrap().unwrap().value, Record::new("old"));
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    // The server times out first, and reports that nothing has changed.
    let error = write.await.unwrap().unwrap_err();
    assert!(matches!(error, StorageError::Unavailable { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
    drop(held);
    assert_eq!(storage.get(&key("held")).await.unwrap().unwrap().value, Record::new("old"));
    storage.put(&key("held"), &Record::new("new"), Precondition::Always).await.unwrap();
}
