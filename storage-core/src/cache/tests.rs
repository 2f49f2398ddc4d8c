use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;
use crate::memory::MemoryStorage;
use crate::seal::KeyRing;
use crate::time::{Clock, Timestamp};
use crate::tokens::Tokens;
use crate::{OAuth1Token, OAuth2Token, RefreshError, Refresher, Token};

const AGE: Duration = Duration::from_secs(5);

/// A storage that counts reads, and whose calls wait at a gate while the gate is closed.
#[derive(Clone)]
struct GatedStorage {
    inner: MemoryStorage,
    reads: Arc<AtomicUsize>,
    /// The permits to pass the closed gate.
    gate: Arc<Semaphore>,
    is_closed: Arc<AtomicBool>,
    /// Whether the outcome of a write is lost.
    is_ambiguous: Arc<AtomicBool>,
}

impl GatedStorage {
    fn new() -> Self {
        Self {
            inner: MemoryStorage::new(),
            reads: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            is_closed: Arc::default(),
            is_ambiguous: Arc::default(),
        }
    }

    fn cached(&self) -> Arc<CachedStorage> {
        Arc::new(CachedStorage::new(Arc::new(self.clone()), Cache::new(AGE)))
    }

    fn close(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::SeqCst);
    }

    async fn wait_at_gate(&self) {
        if self.is_closed.load(Ordering::SeqCst) {
            self.gate.acquire().await.unwrap().forget();
        }
    }

    /// The number of reads since the last call of this function.
    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl TokenStorage for GatedStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let found = self.inner.get(key).await;
        self.wait_at_gate().await;
        found
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        // The write takes effect after the gate, like one that waits in a queue.
        self.wait_at_gate().await;
        let written = self.inner.put(key, record, when).await;
        if self.is_ambiguous.load(Ordering::SeqCst) {
            return Err(StorageError::ambiguous("the response was lost"));
        }
        written
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.wait_at_gate().await;
        self.inner.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.inner.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.inner.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

fn key() -> TokenKey {
    TokenKey::new("github", "alice").unwrap()
}

async fn write(storage: &dyn TokenStorage, payload: &str) -> Version {
    storage.put(&key(), &Record::new(payload), Precondition::Always).await.unwrap()
}

async fn read(storage: &dyn TokenStorage) -> Option<String> {
    let found = storage.get(&key()).await.unwrap()?;
    Some(String::from_utf8(found.value.payload).unwrap())
}

/// Lets spawned tasks run until they wait.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn record_is_read_again_after_its_maximum_age() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    write(&*cached, "old").await;
    assert_eq!(read(&*cached).await.unwrap(), "old");
    assert_eq!(storage.reads(), 1);
    write(&storage, "new").await;
    tokio::time::advance(AGE - Duration::from_millis(1)).await;
    assert_eq!(read(&*cached).await.unwrap(), "old", "another process has written");
    assert_eq!(storage.reads(), 0);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(read(&*cached).await.unwrap(), "new");
    assert_eq!(storage.reads(), 1);
    assert_eq!(cached.capabilities().max_age, Some(AGE));
}

/// The age counts from the start of the read, because the record may have been replaced during it.
#[tokio::test(start_paused = true)]
async fn duration_of_a_read_counts_as_age() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    write(&storage, "old").await;
    storage.close(true);
    let reading = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { read(&*cached).await }
    });
    settle().await;
    tokio::time::advance(AGE).await;
    storage.close(false);
    storage.gate.add_permits(1);
    assert_eq!(reading.await.unwrap().unwrap(), "old");
    write(&storage, "new").await;
    assert_eq!(read(&*cached).await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn own_write_is_seen_at_once() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    for round in 0..3 {
        write(&*cached, &format!("{round}")).await;
        assert_eq!(read(&*cached).await.unwrap(), format!("{round}"));
        assert_eq!(read(&*cached).await.unwrap(), format!("{round}"));
    }
    assert!(cached.delete(&key(), None).await.unwrap());
    assert_eq!(read(&*cached).await, None);
    assert_eq!(read(&*cached).await, None);
    storage.reads();
    write(&storage, "by another process").await;
    assert_eq!(read(&*cached).await.unwrap(), "by another process", "an absence is not cached");
}

/// A read that returned the old record is in flight while a write begins and ends.
#[tokio::test(start_paused = true)]
async fn read_that_overlaps_with_a_write_is_not_cached() {
    for is_delete in [false, true] {
        let storage = GatedStorage::new();
        let cached = storage.cached();
        write(&storage, "old").await;
        storage.close(true);
        let reading = tokio::spawn({
            let cached = Arc::clone(&cached);
            async move { read(&*cached).await }
        });
        settle().await;
        storage.close(false);
        let expected = if is_delete {
            assert!(cached.delete(&key(), None).await.unwrap());
            None
        } else {
            write(&*cached, "new").await;
            Some("new".to_owned())
        };
        storage.gate.add_permits(1);
        assert_eq!(reading.await.unwrap().unwrap(), "old");
        assert_eq!(read(&*cached).await, expected, "after the write, delete: {is_delete}");
    }
}

/// A read begins and ends while a write waits in a queue.
#[tokio::test(start_paused = true)]
async fn read_during_a_write_is_not_cached() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    write(&storage, "old").await;
    assert_eq!(read(&*cached).await.unwrap(), "old");
    storage.close(true);
    let writing = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { write(&*cached, "new").await }
    });
    settle().await;
    storage.close(false);
    assert_eq!(read(&*cached).await.unwrap(), "old");
    storage.gate.add_permits(1);
    writing.await.unwrap();
    assert_eq!(read(&*cached).await.unwrap(), "new");
}

/// The write takes effect after its future was dropped, and after a read.
#[tokio::test(start_paused = true)]
async fn nothing_is_cached_after_a_write_was_dropped() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    write(&storage, "old").await;
    storage.close(true);
    let (key, record) = (key(), Record::new("dropped"));
    let dropped = tokio::time::timeout(Duration::from_millis(1), cached.put(&key, &record, Precondition::Always));
    assert!(dropped.await.is_err());
    storage.close(false);
    assert_eq!(read(&*cached).await.unwrap(), "old");
    write(&storage, "dropped").await;
    assert_eq!(read(&*cached).await.unwrap(), "dropped");
    storage.reads();
    tokio::time::advance(AGE).await;
    read(&*cached).await;
    read(&*cached).await;
    assert_eq!(storage.reads(), 1, "the cache works again after its age");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_cached_after_an_ambiguous_write() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    write(&storage, "old").await;
    storage.is_ambiguous.store(true, Ordering::SeqCst);
    let written = cached.put(&key(), &Record::new("lost"), Precondition::Always).await;
    assert!(matches!(written, Err(StorageError::Ambiguous { .. })));
    storage.is_ambiguous.store(false, Ordering::SeqCst);
    read(&*cached).await;
    storage.reads();
    read(&*cached).await;
    assert_eq!(storage.reads(), 1);
}

/// Two reads overlap. The one that ends last has the older record.
#[tokio::test(start_paused = true)]
async fn late_read_does_not_replace_a_newer_record() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    write(&storage, "old").await;
    storage.close(true);
    let late = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { read(&*cached).await }
    });
    settle().await;
    storage.close(false);
    write(&storage, "new").await;
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(read(&*cached).await.unwrap(), "new");
    storage.gate.add_permits(1);
    assert_eq!(late.await.unwrap().unwrap(), "old");
    assert_eq!(read(&*cached).await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn cached_retention_runs_out() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    let brief = Record::new("x").with_retain_for(Some(Duration::from_secs(2)));
    storage.put(&key(), &brief, Precondition::Always).await.unwrap();
    cached.get(&key()).await.unwrap();
    storage.reads();
    tokio::time::advance(Duration::from_secs(1)).await;
    let left = cached.get(&key()).await.unwrap().unwrap().value.retain_for.unwrap();
    assert!(left <= Duration::from_secs(1) && storage.reads() == 0, "{left:?}");
    tokio::time::advance(Duration::from_secs(1)).await;
    cached.get(&key()).await.unwrap();
    assert_eq!(storage.reads(), 1, "near its end, the retention is read again");
}

#[tokio::test]
async fn memory_is_bounded() {
    let cache = CachedStorage::new(Arc::new(MemoryStorage::new()), Cache::new(AGE).with_max_bytes(100_000));
    for user in 0..1_000 {
        let key = TokenKey::new("github", format!("user{user}")).unwrap();
        cache.put(&key, &Record::new(vec![0; 1_000]), Precondition::Always).await.unwrap();
        cache.get(&key).await.unwrap();
    }
    cache.records.run_pending_tasks();
    let count = cache.records.entry_count();
    assert!((1..=100).contains(&count), "{count}");
    assert!(cache.records.weighted_size() <= 100_000);
}

/// Such a read is not cached, but it shows that the cached record is outdated.
#[tokio::test(start_paused = true)]
async fn read_that_is_not_cached_drops_an_outdated_record() {
    let storage = GatedStorage::new();
    let cached = storage.cached();
    write(&storage, "old").await;
    assert_eq!(read(&*cached).await.unwrap(), "old");
    // Another process writes, and the outcome of a write to another key of the group is unknown.
    write(&storage, "new").await;
    cached.stripe(&key()).closed_until = Some(Instant::now() + AGE);
    assert_eq!(cached.fresh(&key()).await.unwrap().unwrap().value.payload, b"new");
    assert_eq!(read(&*cached).await.unwrap(), "new");
}

/// A handle with a cache, and a refresher at 1,000 seconds.
fn with_cache(storage: &MemoryStorage) -> (Tokens, Refresher) {
    let tokens = Tokens::sealed(storage.clone(), KeyRing::generate()).with_cache(Cache::new(AGE));
    (tokens, Refresher::new().with_clock(Clock::new(|| Timestamp::from_unix_seconds(1_000))))
}

fn expiring(seconds: u64) -> Token {
    let mut token = OAuth2Token::bearer("access");
    token.expires_at = Some(Timestamp::from_unix_seconds(seconds));
    token.into()
}

#[tokio::test]
async fn cached_token_is_shared_until_this_process_writes() {
    let (tokens, refresher) = with_cache(&MemoryStorage::new());
    for token in [expiring(9_000), OAuth1Token::new("token", "secret").into()] {
        tokens.put(&key(), &token, Precondition::Always).await.unwrap();
        assert!(refresher.cached(&tokens, &key()).is_none(), "it was not read yet");
        tokens.get(&key()).await.unwrap();
        let cached = refresher.cached(&tokens, &key()).unwrap();
        assert_eq!(*cached, token);
        assert!(Arc::ptr_eq(&cached, &refresher.cached(&tokens, &key()).unwrap()));
    }
    tokens.delete(&key(), None).await.unwrap();
    assert!(refresher.cached(&tokens, &key()).is_none());
}

#[tokio::test]
async fn cached_token_that_cannot_be_used_is_not_returned() {
    let storage = MemoryStorage::new();
    let (tokens, refresher) = with_cache(&storage);
    let cached_after_read = async || {
        tokens.get(&key()).await.ok();
        refresher.cached(&tokens, &key())
    };
    for (expiry, is_due) in [(900, true), (1_001, true), (9_000, false)] {
        tokens.put(&key(), &expiring(expiry), Precondition::Always).await.unwrap();
        assert_eq!(cached_after_read().await.is_none(), is_due, "{expiry}");
    }

    let refused = OAuth1Token::new("token", "secret");
    tokens.put(&key(), &refused.clone().into(), Precondition::Always).await.unwrap();
    assert!(cached_after_read().await.is_some());
    refresher.mark_refused(&refused, &tokens, &key()).await.unwrap();
    assert!(refresher.cached(&tokens, &key()).is_none(), "this process has written");
    assert!(cached_after_read().await.is_none(), "the user must authorize again");

    storage.put(&key(), &Record::new("damaged"), Precondition::Always).await.unwrap();
    tokens.storage().get(&key()).await.unwrap();
    assert!(cached_after_read().await.is_none());
    assert!(tokens.get(&key()).await.is_err());
}

#[tokio::test]
async fn changed_handle_does_not_change_its_clones() {
    let storage = MemoryStorage::new();
    let (tokens, refresher) = with_cache(&storage);
    tokens.put(&key(), &expiring(9_000), Precondition::Always).await.unwrap();
    tokens.get(&key()).await.unwrap();

    let elsewhere = tokens.clone().with_storage(Arc::new(storage.clone()));
    elsewhere.get(&key()).await.unwrap();
    assert!(refresher.cached(&elsewhere, &key()).is_none(), "it has no cache");
    let brief = tokens.clone().with_retention(Duration::from_secs(60));
    assert!(refresher.cached(&brief, &key()).is_some(), "it has the same cache");

    let retention = async || storage.get(&key()).await.unwrap().unwrap().value.retain_for;
    for (handle, is_retained_briefly) in [(&brief, true), (&elsewhere, false), (&tokens, false)] {
        handle.put(&key(), &expiring(9_000), Precondition::Always).await.unwrap();
        assert_eq!(retention().await.is_some(), is_retained_briefly);
    }
}

/// Usable tokens come from memory. Everything else that the refresh protocol reads comes from the storage.
#[tokio::test]
async fn refresh_protocol_reads_the_storage() {
    let storage = GatedStorage::new();
    let now = Arc::new(AtomicUsize::new(1_000));
    let clock = Clock::new({
        let now = Arc::clone(&now);
        move || Timestamp::from_unix_seconds(now.load(Ordering::SeqCst) as u64)
    });
    let ring = KeyRing::generate();
    let other_process = Tokens::sealed(storage.clone(), ring.clone());
    let this_process = Tokens::sealed(storage.clone(), ring).with_cache(Cache::new(AGE));
    let refresher = Refresher::new().with_clock(clock);
    let token = |text: &str, expires_at| {
        let mut token = OAuth2Token::bearer(text);
        token.expires_at = Some(Timestamp::from_unix_seconds(expires_at));
        Token::from(token)
    };
    other_process.put(&key(), &token("first", 2_000), Precondition::Always).await.unwrap();
    let provider: Arc<dyn crate::Redeem> = Arc::new(NeverRedeems);
    let usable = async || refresher.usable(&this_process, &key(), &provider).await;
    for _ in 0..3 {
        assert_eq!(usable().await.unwrap().access_token.expose(), "first");
    }
    assert_eq!(storage.reads(), 1);

    // The other process has refreshed the token, and this one has cached the expired one.
    other_process.put(&key(), &token("second", 9_000), Precondition::Always).await.unwrap();
    now.store(2_000, Ordering::SeqCst);
    assert_eq!(usable().await.unwrap().access_token.expose(), "second");
    usable().await.unwrap();
    assert_eq!(storage.reads(), 1);

    // The application reads the storage, and sees its own write immediately.
    other_process.put(&key(), &token("third", 9_000), Precondition::Always).await.unwrap();
    assert_eq!(this_process.get(&key()).await.unwrap().unwrap().value, token("third", 9_000));
    assert_eq!(usable().await.unwrap().access_token.expose(), "third");
    this_process.put(&key(), &token("fourth", 9_000), Precondition::Always).await.unwrap();
    assert_eq!(usable().await.unwrap().access_token.expose(), "fourth");
    this_process.storage().delete(&key(), None).await.unwrap();
    assert!(matches!(usable().await, Err(RefreshError::NotConnected)));
}

/// A provider that no test here needs.
struct NeverRedeems;

#[async_trait]
impl crate::Redeem for NeverRedeems {
    async fn redeem(&self, _: &OAuth2Token, _: &crate::Lease) -> Result<OAuth2Token, crate::RedeemError> {
        panic!("no token is redeemed");
    }

    async fn revoke(&self, _: &OAuth2Token) {}
}
