use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use futures_util::future::join_all;
use oauth_dance_core::Version;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// What a statement of [`FakeReader`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Succeed,
    Fail,
    /// The row of the user `corrupt` cannot be decoded.
    ReturnCorruptRow,
    Hang,
}

/// The state that the clones of a [`FakeReader`] share.
struct FakeDatabase {
    statements: Mutex<Vec<Vec<String>>>,
    mode: Mutex<Mode>,
    plain: AtomicUsize,
}

/// Returns each key's user as its payload. A statement takes a millisecond. The user `missing` has no record.
#[derive(Clone)]
struct FakeReader(Arc<FakeDatabase>);

impl FakeReader {
    fn new() -> (Self, Combined<Self>) {
        Self::with_parallel(1)
    }

    fn with_parallel(parallel: usize) -> (Self, Combined<Self>) {
        let database =
            FakeDatabase { statements: Mutex::default(), mode: Mutex::new(Mode::Succeed), plain: AtomicUsize::new(0) };
        let reader = Self(Arc::new(database));
        (reader.clone(), Combined::new(reader, parallel, TIMEOUT))
    }

    fn set(&self, mode: Mode) {
        *self.0.mode.lock().unwrap() = mode;
    }

    /// The users that each statement has read.
    fn statements(&self) -> Vec<Vec<String>> {
        self.0.statements.lock().unwrap().clone()
    }

    fn sizes(&self) -> Vec<usize> {
        self.statements().iter().map(Vec::len).collect()
    }

    async fn run(&self, users: Vec<String>) -> Result<Mode, StorageError> {
        self.0.statements.lock().unwrap().push(users);
        let mode = *self.0.mode.lock().unwrap();
        if mode == Mode::Hang {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        if mode == Mode::Fail {
            return Err(StorageError::Misconfigured { advice: "run it".into(), source: "no table".into() });
        }
        Ok(mode)
    }

    fn found(mode: Mode, user: &str) -> Found {
        match (mode, user) {
            (Mode::ReturnCorruptRow, "corrupt") => Err(SharedError::from(oauth_dance_core::BoxError::from("short"))),
            (_, "missing") => Ok(None),
            _ => Ok(Some(Versioned::new(Record::new(user), Version::from_bytes([1; 16])))),
        }
    }
}

impl Reader for FakeReader {
    async fn read_one(&self, key: &TokenKey, deadline: Instant) -> Result<Found, StorageError> {
        self.0.plain.fetch_add(1, Ordering::Relaxed);
        let statement = timeout_at(deadline, self.run(vec![key.user().into()])).await;
        let mode = statement.map_err(|_| StorageError::unavailable(TimedOut))??;
        Ok(Self::found(mode, key.user()))
    }

    async fn read_several(&self, keys: &[Arc<TokenKey>], _: Instant) -> Result<Vec<Found>, StorageError> {
        let mode = self.run(keys.iter().map(|key| key.user().into()).collect()).await?;
        Ok(keys.iter().map(|key| Self::found(mode, key.user())).collect())
    }
}

fn key(user: &str) -> TokenKey {
    TokenKey::new("github", user).unwrap()
}

async fn get(combined: &Combined<FakeReader>, user: &str) -> Result<Option<String>, StorageError> {
    let found = combined.get(&key(user)).await?;
    Ok(found.map(|found| String::from_utf8(found.value.payload).unwrap()))
}

async fn get_all(combined: &Combined<FakeReader>, count: usize) {
    let users: Vec<_> = (0..count).map(|user| user.to_string()).collect();
    let found = join_all(users.iter().map(|user| get(combined, user))).await;
    for (user, found) in users.iter().zip(found) {
        assert_eq!(found.unwrap().as_ref(), Some(user));
    }
}

#[tokio::test(start_paused = true)]
async fn single_read_uses_the_plain_statement() {
    let (reader, combined) = FakeReader::new();
    for user in ["alice", "bob"] {
        assert_eq!(get(&combined, user).await.unwrap().unwrap(), user);
    }
    assert_eq!(get(&combined, "missing").await.unwrap(), None);
    assert_eq!((reader.sizes(), reader.0.plain.load(Ordering::Relaxed)), (vec![1, 1, 1], 3));
    assert_eq!(combined.0.state().turns, 0);
}

#[tokio::test(start_paused = true)]
async fn reads_of_one_task_share_a_statement() {
    let (reader, combined) = FakeReader::new();
    get_all(&combined, 20).await;
    assert_eq!(reader.sizes(), [20]);
}

#[tokio::test(start_paused = true)]
async fn reads_of_other_tasks_share_the_third_statement() {
    let (reader, combined) = FakeReader::with_parallel(2);
    let mut reads = JoinSet::new();
    for user in ["alice", "bob", "carol", "dave"] {
        let (in_progress, combined) = (reader.sizes().len(), combined.clone());
        reads.spawn(async move { get(&combined, user).await.unwrap().as_deref() == Some(user) });
        while in_progress < 2 && reader.sizes().len() == in_progress {
            yield_now().await;
        }
    }
    assert_eq!(reads.join_all().await, [true; 4]);
    assert_eq!(reader.sizes(), [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn reads_of_one_task_do_not_use_parallel_statements() {
    let (reader, combined) = FakeReader::with_parallel(3);
    get_all(&combined, 20).await;
    assert_eq!(reader.sizes(), [20]);
}

#[tokio::test(start_paused = true)]
async fn large_batch_is_split() {
    let (reader, combined) = FakeReader::new();
    get_all(&combined, 150).await;
    let mut sizes = reader.sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [22, 64, 64]);
    assert!(combined.0.state().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn statement_contains_each_key_once() {
    let (reader, combined) = FakeReader::new();
    let users = ["alice", "bob", "alice", "missing", "alice", "missing"];
    let found = join_all(users.map(|user| get(&combined, user))).await;
    for (user, found) in users.iter().zip(found) {
        assert_eq!(found.unwrap().as_deref(), (*user != "missing").then_some(*user));
    }
    assert_eq!(reader.sizes(), [3]);
}

#[tokio::test(start_paused = true)]
async fn read_does_not_join_a_sent_statement() {
    let (reader, combined) = FakeReader::new();
    let first = tokio::spawn({
        let combined = combined.clone();
        async move { get(&combined, "alice").await.unwrap() }
    });
    while reader.statements().is_empty() {
        yield_now().await;
    }
    // The first statement was sent, and its response is outstanding.
    let second = get(&combined, "alice").await.unwrap();
    assert_eq!((first.await.unwrap(), second), (Some("alice".into()), Some("alice".into())));
    assert_eq!(reader.sizes(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn waiting_reads_restart_when_first_is_dropped() {
    for mode in [Mode::Hang, Mode::Succeed] {
        let (reader, combined) = FakeReader::new();
        reader.set(mode);
        let first = tokio::spawn({
            let combined = combined.clone();
            async move { get(&combined, "first").await }
        });
        while reader.statements().is_empty() {
            yield_now().await;
        }
        reader.set(Mode::Succeed);
        let others: JoinSet<_> = (0..5)
            .map(|user| {
                let combined = combined.clone();
                async move { get(&combined, &user.to_string()).await.unwrap().unwrap() }
            })
            .collect();
        yield_now().await;
        let start = Instant::now();
        first.abort();
        assert_eq!(others.join_all().await.len(), 5);
        assert!(start.elapsed() < PATIENCE, "the waiting reads start again immediately");
        tokio::time::sleep(PATIENCE).await;
        assert_eq!(combined.0.state().turns, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_reads_are_not_sent() {
    let (reader, combined) = FakeReader::new();
    let first = get(&combined, "first");
    let dropped = tokio::time::timeout(Duration::ZERO, get(&combined, "dropped"));
    let (first, dropped, last) = tokio::join!(first, dropped, get(&combined, "last"));
    assert!(first.is_ok() && dropped.is_err() && last.is_ok());
    assert!(!reader.statements().concat().contains(&"dropped".to_owned()), "{:?}", reader.statements());
}

#[tokio::test(start_paused = true)]
async fn stuck_statement_delays_other_reads_briefly() {
    let (reader, combined) = FakeReader::new();
    reader.set(Mode::Hang);
    let stuck = tokio::spawn({
        let combined = combined.clone();
        async move { get(&combined, "stuck").await }
    });
    while reader.statements().is_empty() {
        yield_now().await;
    }
    reader.set(Mode::Succeed);
    let start = Instant::now();
    assert!(get(&combined, "alice").await.is_ok());
    assert!(start.elapsed() < 2 * PATIENCE, "{:?}", start.elapsed());
    let start = Instant::now();
    tokio::time::advance(PATIENCE).await;
    assert!(get(&combined, "bob").await.is_ok());
    assert!(start.elapsed() < 2 * PATIENCE, "{:?}", start.elapsed());
    stuck.abort();
}

/// Each of eight reads has started, and its caller no longer polls it.
#[tokio::test(start_paused = true)]
async fn reads_that_are_not_polled_stop_no_other() {
    let (reader, combined) = FakeReader::new();
    let mut parked = Vec::new();
    for number in 0..MAX_TURNS {
        let user = number.to_string();
        let combined = combined.clone();
        let mut read = Box::pin(async move { get(&combined, &user).await });
        while reader.sizes().len() == number {
            assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            tokio::time::advance(PATIENCE).await;
        }
        parked.push(read);
    }
    let start = Instant::now();
    assert_eq!(get(&combined, "alice").await.unwrap().unwrap(), "alice");
    assert!(start.elapsed() < 2 * MAX_WAIT, "{:?}", start.elapsed());
    assert_eq!(join_all(parked).await.len(), MAX_TURNS);
}

#[tokio::test(start_paused = true)]
async fn each_read_has_its_own_timeout() {
    let (reader, combined) = FakeReader::new();
    reader.set(Mode::Hang);
    let mut reads = JoinSet::new();
    for user in 0..100_u64 {
        let combined = combined.clone();
        reads.spawn(async move {
            tokio::time::sleep(Duration::from_millis(50 * user)).await;
            let start = Instant::now();
            // The fake reader ignores its deadline, so the reads with a turn do not end by themselves.
            let read = tokio::time::timeout(2 * TIMEOUT, get(&combined, &user.to_string())).await;
            read.map(|read| (read.unwrap_err(), start.elapsed()))
        });
    }
    let timed_out: Vec<_> = reads.join_all().await.into_iter().flatten().collect();
    assert!(timed_out.len() >= 100 - MAX_TURNS, "{}", timed_out.len());
    for (error, elapsed) in timed_out {
        assert!(matches!(error, StorageError::Unavailable { .. }), "{error:?}");
        assert!((TIMEOUT..TIMEOUT + PATIENCE).contains(&elapsed), "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn corrupt_record_fails_its_own_reads_only() {
    let (reader, combined) = FakeReader::new();
    reader.set(Mode::ReturnCorruptRow);
    let users = ["alice", "corrupt", "missing", "corrupt"];
    let found = join_all(users.map(|user| get(&combined, user))).await;
    assert_eq!(reader.sizes(), [3]);
    for (user, found) in users.iter().zip(found) {
        match (*user, found) {
            ("corrupt", Err(StorageError::Corrupt { key: of, source })) => {
                assert_eq!((of.user(), source.to_string().as_str()), ("corrupt", "short"));
            }
            ("missing", Ok(None)) => {}
            ("alice", Ok(Some(found))) => assert_eq!(found, "alice"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_read_receives_the_failure() {
    let (reader, combined) = FakeReader::new();
    reader.set(Mode::Fail);
    for found in join_all(["alice", "bob", "alice"].map(|user| get(&combined, user))).await {
        let Err(StorageError::Misconfigured { advice, source }) = found else { panic!("{found:?}") };
        assert_eq!((advice.as_str(), source.to_string().as_str()), ("run it", "no table"));
    }
    assert_eq!(reader.sizes(), [2]);
    reader.set(Mode::Succeed);
    assert!(get(&combined, "alice").await.is_ok());
}

/// A statement ends with its runtime, and the waiting reads of other runtimes start again.
#[test]
fn reads_restart_when_another_runtime_ends() {
    let (reader, combined) = FakeReader::new();
    reader.set(Mode::Hang);
    let ending = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for user in ["first", "second", "third"] {
        let combined = combined.clone();
        ending.spawn(async move { get(&combined, user).await });
    }
    while reader.statements().is_empty() {
        std::thread::yield_now();
    }
    reader.set(Mode::Succeed);
    let other = Builder::new_current_thread().enable_all().build().unwrap();
    let reader = other.spawn({
        let combined = combined.clone();
        async move { get(&combined, "alice").await }
    });
    other.block_on(yield_now());
    ending.shutdown_background();
    assert!(other.block_on(reader).unwrap().is_ok());
    assert!(other.block_on(get(&combined, "bob")).is_ok());
}

/// A runtime that is not driven delays a read of another runtime by [`PATIENCE`] at most.
#[test]
fn idle_runtime_does_not_block_other_runtimes() {
    let (reader, combined) = FakeReader::new();
    let idle = Builder::new_current_thread().enable_all().build().unwrap();
    idle.block_on(async {
        let both = async { tokio::join!(get(&combined, "alice"), get(&combined, "bob")) };
        // The statement is in a task that is not driven further.
        assert!(tokio::time::timeout(Duration::ZERO, both).await.is_err());
    });
    let other = Builder::new_current_thread().enable_all().build().unwrap();
    for user in ["alice", "carol", "dave"] {
        assert!(other.block_on(get(&combined, user)).is_ok());
    }
    assert!(reader.sizes().len() >= 3);
}

/// A register whose value only grows. No read returns a value older than one that was acknowledged before the read
/// started, nor older than one that the same reader has already seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_see_every_earlier_write() {
    #[derive(Clone)]
    struct Register(Arc<AtomicUsize>);
    impl Register {
        async fn read(&self) -> Found {
            yield_now().await;
            let value = self.0.load(Ordering::SeqCst);
            yield_now().await;
            Ok(Some(Versioned::new(Record::new(value.to_string()), Version::from_bytes([1; 16]))))
        }
    }
    impl Reader for Register {
        async fn read_one(&self, _: &TokenKey, _: Instant) -> Result<Found, StorageError> {
            Ok(self.read().await)
        }

        async fn read_several(&self, keys: &[Arc<TokenKey>], _: Instant) -> Result<Vec<Found>, StorageError> {
            let found = self.read().await;
            Ok(keys.iter().map(|_| found.clone()).collect())
        }
    }

    let register = Arc::new(AtomicUsize::new(0));
    let combined = Combined::new(Register(Arc::clone(&register)), 1, TIMEOUT);
    let mut readers = JoinSet::new();
    for reader in 0..16 {
        let (combined, register) = (combined.clone(), Arc::clone(&register));
        readers.spawn(async move {
            let mut last = 0;
            for _ in 0..500 {
                let acknowledged = register.load(Ordering::SeqCst);
                let found = combined.get(&key(&(reader % 4).to_string())).await.unwrap().unwrap();
                let found = String::from_utf8(found.value.payload).unwrap().parse().unwrap();
                assert!(found >= last.max(acknowledged), "{found} after {last} and {acknowledged}");
                last = found;
                register.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    readers.join_all().await;
}
