use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker};

use futures_util::future::join_all;
use oauth_dance_core::TokenKey;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the timeout of a caller that gives up.
const SLOW: Duration = Duration::from_millis(300);
const SHORT: Duration = Duration::from_millis(50);

/// What a transaction of [`FakeWriter`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Commit,
    /// Transactions of several writes fail.
    RollBack,
    BeLocked,
    BeginSlowly,
    CommitSlowly,
    LoseReply,
}

/// Records which users each transaction has deleted. A write that runs alone waits until it is released.
#[derive(Clone)]
struct FakeWriter(Arc<FakeDatabase>);

struct FakeDatabase {
    commits: Mutex<Vec<Vec<String>>>,
    mode: Mode,
    started: AtomicUsize,
    release: Notify,
}

impl FakeWriter {
    fn new(mode: Mode) -> (Self, GroupCommit<Self>) {
        let (commits, started, release) = (Mutex::default(), AtomicUsize::new(0), Notify::new());
        let writer = Self(Arc::new(FakeDatabase { commits, mode, started, release }));
        (writer.clone(), GroupCommit::new(writer))
    }

    fn commits(&self) -> Vec<Vec<String>> {
        self.0.commits.lock().unwrap().clone()
    }

    async fn wait_for_start(&self) {
        while self.0.started.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Writer for FakeWriter {
    async fn write_one(&self, write: &Write<'_>, _: Instant) -> Result<u64, StorageError> {
        self.0.started.fetch_add(1, Ordering::SeqCst);
        self.0.release.notified().await;
        self.0.commits.lock().unwrap().push(vec![user(write)]);
        Ok(1)
    }

    /// Changes one row, or none of the user `nobody`. The user `broken` cannot be written.
    async fn write_several(&self, writes: &[Waiting], _: Instant) -> Result<Vec<Option<u64>>, Failure> {
        match self.0.mode {
            Mode::BeLocked => return Err(Failure::NotBegun(StorageError::unavailable("locked"))),
            Mode::BeginSlowly => sleep(SLOW).await,
            _ => {}
        }
        let claimed: Vec<bool> = writes.iter().map(Waiting::claim).collect();
        if self.0.mode == Mode::CommitSlowly {
            sleep(SLOW).await;
        }
        let users =
            writes.iter().zip(&claimed).filter(|(_, claimed)| **claimed).map(|(waiting, _)| user(&waiting.write));
        let users: Vec<String> = users.collect();
        if users.iter().any(|user| user == "broken") || (self.0.mode == Mode::RollBack && users.len() > 1) {
            return Err(Failure::RolledBack(StorageError::unavailable("broken")));
        }
        self.0.commits.lock().unwrap().push(users);
        if self.0.mode == Mode::LoseReply {
            return Err(Failure::Unknown(TimedOut.into()));
        }
        let changed = |waiting: &Waiting| u64::from(user(&waiting.write) != "nobody");
        Ok(writes.iter().zip(claimed).map(|(waiting, claimed)| claimed.then(|| changed(waiting))).collect())
    }
}

fn user(write: &Write<'_>) -> String {
    write.key().user().to_owned()
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Deletes the record of a user.
fn run(group: &GroupCommit<FakeWriter>, user: &str, timeout: Duration) -> impl Future<Output = Reply> + use<> {
    let (group, write) = (group.clone(), Write::delete(&TokenKey::new("acme", user).unwrap(), None).to_owned());
    async move { group.run(&write, timeout).await }
}

/// Runs the writes of these users while another write is in progress. Returns their results.
async fn run_together(writer: &FakeWriter, group: &GroupCommit<FakeWriter>, users: &[(&str, Duration)]) -> Vec<Reply> {
    let first = run(group, "first", TIMEOUT);
    let others = async {
        writer.wait_for_start().await;
        let others = join_all(users.iter().map(|(user, timeout)| run(group, user, *timeout)));
        let release = async { writer.0.release.notify_one() };
        tokio::join!(others, release).0
    };
    let (first, others) = tokio::join!(first, others);
    assert_eq!(first.unwrap(), 1);
    others
}

#[tokio::test]
async fn writes_that_wait_share_a_transaction_in_their_order() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    let users = ["a", "nobody", "b"].map(|user| (user, TIMEOUT));
    let changed: Vec<u64> = run_together(&writer, &group, &users).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(changed, [1, 0, 1]);
    assert_eq!(writer.commits(), [vec!["first"], vec!["a", "nobody", "b"]]);
}

#[tokio::test]
async fn transaction_has_a_maximum_size() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    let users: Vec<String> = (0..2 * MAX_WRITES + 1).map(|user| user.to_string()).collect();
    let with_timeout: Vec<_> = users.iter().map(|user| (user.as_str(), TIMEOUT)).collect();
    run_together(&writer, &group, &with_timeout).await.into_iter().for_each(|result| assert_eq!(result.unwrap(), 1));
    let sizes: Vec<usize> = writer.commits().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, MAX_WRITES, MAX_WRITES, 1]);
    assert_eq!(writer.commits().concat()[1..], users);
}

#[tokio::test]
async fn failed_statement_fails_its_own_caller_only() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    let results = run_together(&writer, &group, &["a", "broken", "b"].map(|user| (user, TIMEOUT))).await;
    assert!(matches!(results[..], [Ok(1), Err(StorageError::Unavailable { .. }), Ok(1)]), "{results:?}");
    assert_eq!(writer.commits(), [["first"], ["a"], ["b"]]);
}

#[tokio::test]
async fn each_write_runs_alone_after_a_roll_back() {
    let (writer, group) = FakeWriter::new(Mode::RollBack);
    let results = run_together(&writer, &group, &["a", "nobody"].map(|user| (user, TIMEOUT))).await;
    assert!(matches!(results[..], [Ok(1), Ok(0)]), "{results:?}");
    assert_eq!(writer.commits(), [["first"], ["a"], ["nobody"]]);
}

#[tokio::test]
async fn lost_reply_is_ambiguous_for_every_caller() {
    let (writer, group) = FakeWriter::new(Mode::LoseReply);
    let results = run_together(&writer, &group, &["a", "b"].map(|user| (user, TIMEOUT))).await;
    let is_ambiguous = |result: &Reply| matches!(result, Err(StorageError::Ambiguous { .. }));
    assert!(results.iter().all(is_ambiguous), "{results:?}");
}

#[tokio::test]
async fn locked_database_changes_nothing() {
    let (writer, group) = FakeWriter::new(Mode::BeLocked);
    let results = run_together(&writer, &group, &["a", "b"].map(|user| (user, TIMEOUT))).await;
    assert!(results.iter().all(|result| matches!(result, Err(StorageError::Unavailable { .. }))), "{results:?}");
    assert_eq!(writer.commits(), [["first"]]);
}

/// A caller that gives up before its transaction has begun knows that nothing has changed, and nothing changes later.
#[tokio::test]
async fn write_that_was_not_sent_in_time_changes_nothing() {
    let (writer, group) = FakeWriter::new(Mode::BeginSlowly);
    let results = run_together(&writer, &group, &[("late", SHORT), ("patient", TIMEOUT)]).await;
    assert!(matches!(results[..], [Err(StorageError::Unavailable { .. }), Ok(1)]), "{results:?}");
    assert_eq!(writer.commits(), [["first"], ["patient"]], "a write that was reported as unsent was sent");
}

#[tokio::test]
async fn write_that_was_sent_is_ambiguous_after_its_time() {
    let (writer, group) = FakeWriter::new(Mode::CommitSlowly);
    let results = run_together(&writer, &group, &[("late", SHORT), ("patient", TIMEOUT)]).await;
    assert!(matches!(results[..], [Err(StorageError::Ambiguous { .. }), Ok(1)]), "{results:?}");
    assert_eq!(writer.commits(), [vec!["first"], vec!["late", "patient"]]);
}

#[tokio::test]
async fn dropped_write_that_waits_is_not_sent() {
    let (writer, group) = FakeWriter::new(Mode::BeginSlowly);
    let mut first = Box::pin(run(&group, "first", TIMEOUT));
    assert!(poll(&mut first).is_pending());
    let [mut waiting, mut one, mut two] = ["waiting", "one", "two"].map(|user| Box::pin(run(&group, user, TIMEOUT)));
    assert!([&mut waiting, &mut one, &mut two].into_iter().all(|write| poll(write).is_pending()));
    drop(one);
    writer.0.release.notify_one();
    assert_eq!(first.await.unwrap(), 1);
    // The transaction is beginning now.
    drop(two);
    assert_eq!(waiting.await.unwrap(), 1);
    assert_eq!(writer.commits(), [["first"], ["waiting"]]);
}

/// No write depends on the runtime of another caller, which may have ended, or may no longer be driven.
#[test]
fn runtimes_of_other_callers_are_not_needed() {
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    for ends in [true, false] {
        let (writer, group) = FakeWriter::new(Mode::Commit);
        let poll_in = |runtime: &Runtime, user: &str| {
            let mut write = Box::pin(run(&group, user, TIMEOUT));
            assert!(runtime.block_on(async { poll(&mut write).is_pending() }));
            write
        };
        let (idle, driven) = (runtime(), runtime());
        let first = poll_in(&idle, "first");
        let parked = poll_in(&idle, "parked");
        let second = driven.spawn({
            let group = group.clone();
            async move { run(&group, "second", TIMEOUT).await }
        });
        driven.block_on(tokio::task::yield_now());
        drop(first);
        let idle = Some(idle).filter(|_| !ends);
        assert_eq!(driven.block_on(second).unwrap().unwrap(), 1);
        assert_eq!(writer.commits(), [["parked", "second"]]);
        drop((parked, idle));
    }
}

/// A thread and its runtime end with the storage.
#[tokio::test]
async fn thread_ends_with_the_last_clone() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    run_together(&writer, &group, &[("a", TIMEOUT)]).await.remove(0).unwrap();
    let shared = Arc::downgrade(&group.0);
    drop(group);
    let start = Instant::now();
    while Arc::strong_count(&writer.0) > 1 {
        assert!(start.elapsed() < TIMEOUT, "the thread still has the writer");
        sleep(Duration::from_millis(1)).await;
    }
    assert!(shared.upgrade().is_none());
}
