use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker};

use futures_util::future::join_all;
use oauth_dance_core::TokenKey;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::*;

/// What a transaction of [`FakeWriter`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Commit,
    RollBack,
    BeLocked,
    LoseReply,
}

/// Records which users each transaction has deleted. The first write waits until it is released.
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

    async fn begin(&self) {
        if self.0.started.fetch_add(1, Ordering::SeqCst) == 0 {
            self.0.release.notified().await;
        }
    }

    /// Changes one row, or none of the user `nobody`. The user `broken` cannot be written.
    fn commit(&self, users: Vec<String>) -> Vec<u64> {
        let changed = users.iter().map(|user| u64::from(user != "nobody")).collect();
        self.0.commits.lock().unwrap().push(users);
        changed
    }
}

impl Writer for FakeWriter {
    async fn write_one(&self, write: &Write<'_>, deadline: Instant) -> Result<u64, StorageError> {
        let run = async {
            self.begin().await;
            match user(write) {
                broken if broken == "broken" => Err(StorageError::unavailable("broken")),
                user => Ok(self.commit(vec![user])[0]),
            }
        };
        timeout_at(deadline, run).await.unwrap_or_else(|_| Err(StorageError::unavailable(TimedOut)))
    }

    async fn write_several(&self, writes: &[&Write<'_>], _: Instant) -> Result<Vec<u64>, Failure> {
        self.begin().await;
        let users: Vec<String> = writes.iter().map(|write| user(write)).collect();
        match self.0.mode {
            Mode::RollBack => Err(Failure::RolledBack),
            _ if users.iter().any(|user| user == "broken") => Err(Failure::RolledBack),
            Mode::BeLocked => Err(Failure::Unavailable(TimedOut.into())),
            Mode::LoseReply => {
                self.commit(users);
                Err(Failure::Unknown(TimedOut.into()))
            }
            Mode::Commit => Ok(self.commit(users)),
        }
    }
}

fn delete(user: &str) -> Write<'static> {
    Write::delete(&TokenKey::new("acme", user).unwrap(), None).into_owned()
}

fn user(write: &Write<'_>) -> String {
    write.key().user().to_owned()
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs the writes of these users while another write is in progress. Returns their results.
async fn run_together(writer: &FakeWriter, group: &GroupCommit<FakeWriter>, users: &[&str]) -> Vec<Reply> {
    let first = group.run(delete("first"), deadline());
    let others = async {
        writer.wait_for_start().await;
        let others = join_all(users.iter().map(|user| group.run(delete(user), deadline())));
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
    let results = run_together(&writer, &group, &["a", "nobody", "b"]).await;
    let changed: Vec<u64> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(changed, [1, 0, 1]);
    assert_eq!(writer.commits(), [vec!["first"], vec!["a", "nobody", "b"]]);
}

#[tokio::test]
async fn transaction_has_a_maximum_size() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    let users: Vec<String> = (0..2 * MAX_WRITES + 1).map(|user| user.to_string()).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    run_together(&writer, &group, &users).await.into_iter().for_each(|result| assert_eq!(result.unwrap(), 1));
    let sizes: Vec<usize> = writer.commits().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, MAX_WRITES, MAX_WRITES, 1]);
    assert_eq!(writer.commits().concat()[1..], users);
}

#[tokio::test]
async fn failed_statement_fails_its_own_caller_only() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    let results = run_together(&writer, &group, &["a", "broken", "b"]).await;
    assert!(matches!(results[..], [Ok(1), Err(StorageError::Unavailable { .. }), Ok(1)]), "{results:?}");
    assert_eq!(writer.commits(), [["first"], ["a"], ["b"]]);
}

#[tokio::test]
async fn each_write_runs_alone_after_a_roll_back() {
    let (writer, group) = FakeWriter::new(Mode::RollBack);
    let results = run_together(&writer, &group, &["a", "nobody"]).await;
    assert!(matches!(results[..], [Ok(1), Ok(0)]), "{results:?}");
    assert_eq!(writer.commits(), [["first"], ["a"], ["nobody"]]);
}

#[tokio::test]
async fn lost_reply_is_ambiguous_for_every_caller() {
    let (writer, group) = FakeWriter::new(Mode::LoseReply);
    let results = run_together(&writer, &group, &["a", "b"]).await;
    let is_ambiguous = |result: &Reply| matches!(result, Err(StorageError::Ambiguous { .. }));
    assert!(results.iter().all(is_ambiguous), "{results:?}");
}

#[tokio::test]
async fn locked_database_changes_nothing() {
    let (writer, group) = FakeWriter::new(Mode::BeLocked);
    let results = run_together(&writer, &group, &["a", "b"]).await;
    assert!(results.iter().all(|result| matches!(result, Err(StorageError::Unavailable { .. }))), "{results:?}");
    assert_eq!(writer.commits(), [["first"]]);
}

#[tokio::test(start_paused = true)]
async fn write_that_was_not_sent_in_time_changes_nothing() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    let (slow, fast) = (Instant::now() + Duration::from_secs(10), Instant::now() + Duration::from_secs(1));
    let (first, second) = tokio::join!(group.run(delete("first"), slow), async {
        writer.wait_for_start().await;
        let second = group.run(delete("second"), fast).await;
        writer.0.release.notify_one();
        second
    });
    assert_eq!(first.unwrap(), 1);
    assert!(matches!(second, Err(StorageError::Unavailable { .. })), "{second:?}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(writer.commits(), [["first"]], "a write that was reported as unsent was sent");
}

#[tokio::test]
async fn dropped_write_that_waits_is_not_sent() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    let first = tokio::spawn({
        let group = group.clone();
        async move { group.run(delete("first"), deadline()).await }
    });
    writer.wait_for_start().await;
    let mut waiting = Box::pin(group.run(delete("waiting"), deadline()));
    let mut dropped = Box::pin(group.run(delete("dropped"), deadline()));
    assert!(poll(&mut waiting).is_pending() && poll(&mut dropped).is_pending());
    drop(dropped);
    let last = group.run(delete("last"), deadline());
    let (waiting, last, ()) = tokio::join!(waiting, last, async { writer.0.release.notify_one() });
    assert_eq!((first.await.unwrap().unwrap(), waiting.unwrap(), last.unwrap()), (1, 1, 1));
    assert_eq!(writer.commits(), [vec!["first"], vec!["waiting", "last"]]);
}

/// The first write runs in a runtime that ends. The second one waits for it in another runtime.
#[test]
fn end_of_a_runtime_stops_no_other_write() {
    let (writer, group) = FakeWriter::new(Mode::Commit);
    let [ending, lasting] = [(); 2].map(|()| Builder::new_current_thread().enable_all().build().unwrap());
    let mut first = Box::pin(group.run(delete("first"), ending.block_on(async { deadline() })));
    ending.block_on(async {
        assert!(poll(&mut first).is_pending());
        tokio::task::yield_now().await;
    });
    assert_eq!(writer.0.started.load(Ordering::SeqCst), 1, "the write has started");

    let second = lasting.spawn({
        let group = group.clone();
        async move { group.run(delete("second"), deadline()).await }
    });
    lasting.block_on(tokio::task::yield_now());
    drop(ending);
    assert_eq!(lasting.block_on(second).unwrap().unwrap(), 1);
    let first = lasting.block_on(first);
    assert!(matches!(first, Err(StorageError::Ambiguous { .. })), "{first:?}");
}
