//! Combines concurrent writes into one transaction, for databases that commit them one after the other.
//!
//! SQLite permits one writer at a time, and each commit waits for the disk. A write that runs alone is one plain
//! statement, which commits by itself. Writes that start while it is in progress wait, and then share a transaction, so
//! that the disk is waited for once.
//!
//! # Why it is correct
//!
//! The statements of a transaction run one after the other, in the order in which their callers arrived. Each sees the
//! effect of the ones before it, and no caller receives a result before the commit. If a statement fails, the transaction
//! is rolled back, and every write gets a transaction of its own, so that its caller receives the result of its own
//! statement.
//!
//! # Why it is safe to share
//!
//! Transactions run in a thread of their own, so that they depend on no caller and no runtime of the application. A write
//! is [claimed](Waiting::claim) when its transaction has begun. Until then its caller can be dropped, or give up, and
//! nothing happens.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use oauth_dance_core::{BoxError, StorageError};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::{SharedError, SharedFailure, TimedOut};
use crate::write::Write;

#[cfg(test)]
mod tests;

/// The maximum number of writes in a transaction. Other processes wait while it runs.
const MAX_WRITES: usize = 64;

/// Writes to the database.
pub(crate) trait Writer: Send + Sync + 'static {
    /// Runs a statement that commits by itself. Returns the number of changed rows.
    fn write_one(&self, write: &Write<'_>, deadline: Instant)
    -> impl Future<Output = Result<u64, StorageError>> + Send;

    /// Runs the writes that can be claimed in one transaction, in their order. Returns the numbers of changed rows, or
    /// `None` for the writes that could not be claimed.
    fn write_several(
        &self,
        writes: &[Waiting],
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Option<u64>>, Failure>> + Send;
}

/// Why a transaction failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not begin.
    NotBegun(StorageError),
    /// A statement failed. Nothing has changed.
    RolledBack(StorageError),
    /// It may have taken effect.
    Unknown(SharedError),
}

/// Combines the concurrent writes of all its clones.
pub(crate) struct GroupCommit<W: Writer>(Arc<Shared<W>>);

struct Shared<W: Writer> {
    writer: W,
    state: Mutex<State>,
    /// The turns for the thread, which starts with the first one and ends with this sender.
    turns: OnceLock<mpsc::UnboundedSender<Arc<Shared<W>>>>,
}

#[derive(Default)]
struct State {
    /// The writes for the next transactions, in the order of their calls.
    waiting: VecDeque<Waiting>,
    /// Whether a write or a transaction is in progress.
    is_busy: bool,
}

impl<W: Writer> GroupCommit<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self(Arc::new(Shared { writer, state: Mutex::default(), turns: OnceLock::new() }))
    }

    /// Runs a write, alone or together with others. Returns the number of changed rows.
    ///
    /// If the future is dropped, the write takes effect only if its statement was sent.
    ///
    /// # Errors
    /// [`StorageError::Ambiguous`] if the write may have taken effect. Otherwise the error of its statement.
    pub(crate) async fn run(&self, write: &Write<'_>, timeout: Duration) -> Result<u64, StorageError> {
        let deadline = Instant::now() + timeout;
        let mut waits = match self.start(write, timeout) {
            Start::Alone(_turn) => return self.0.writer.write_one(write, deadline).await,
            Start::Waits(waits) => waits,
        };
        let error = match timeout_at(deadline, &mut waits.reply).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => BoxError::from(ThreadEnded),
            Err(_) => BoxError::from(TimedOut),
        };
        Err(if waits.cancel() { StorageError::unavailable(error) } else { StorageError::ambiguous(error) })
    }

    /// Starts a write, unless another one is in progress.
    fn start(&self, write: &Write<'_>, timeout: Duration) -> Start<W> {
        let mut state = self.0.state();
        if !std::mem::replace(&mut state.is_busy, true) {
            return Start::Alone(Turn(Arc::clone(&self.0)));
        }
        let (sender, reply) = oneshot::channel();
        let progress = Arc::new(AtomicU8::new(WAITING));
        let waits = Waits { progress: Arc::clone(&progress), reply };
        state.waiting.push_back(Waiting { write: write.to_owned(), timeout, progress, reply: sender });
        Start::Waits(waits)
    }
}

impl<W: Writer> Clone for GroupCommit<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// There is no thread that could write, or it has panicked.
#[derive(Debug, thiserror::Error)]
#[error("the thread for writes has ended")]
struct ThreadEnded;

/// What a new write does.
enum Start<W: Writer> {
    Alone(Turn<W>),
    Waits(Waits),
}

type Reply = Result<u64, StorageError>;

/// The progress of a write: not sent, sent, or given up by its caller. One value, so that caller and transaction agree.
const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const CANCELLED: u8 = 2;

/// A write that waits for its transaction.
pub(crate) struct Waiting {
    pub(crate) write: Write<'static>,
    timeout: Duration,
    progress: Arc<AtomicU8>,
    reply: oneshot::Sender<Reply>,
}

impl Waiting {
    /// Marks the write as sent. Returns `false` if its caller is gone.
    pub(crate) fn claim(&self) -> bool {
        let claimed = self.progress.compare_exchange(WAITING, CLAIMED, Ordering::AcqRel, Ordering::Acquire);
        matches!(claimed, Ok(_) | Err(CLAIMED)) && !self.reply.is_closed()
    }

    /// Marks the write as not sent, after a transaction that has changed nothing.
    fn release(&self) {
        let _ = self.progress.compare_exchange(CLAIMED, WAITING, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The caller's side of a write that waits.
struct Waits {
    progress: Arc<AtomicU8>,
    reply: oneshot::Receiver<Reply>,
}

impl Waits {
    /// Gives up. Returns `false` if the write may have been sent.
    fn cancel(&self) -> bool {
        self.progress.compare_exchange(WAITING, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<W: Writer> Shared<W> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs transactions until no write waits.
    async fn run_turn(&self) {
        let turn = EndOfTurn(self);
        loop {
            let writes = self.next();
            if writes.is_empty() {
                break;
            }
            self.commit(writes).await;
        }
        std::mem::forget(turn);
    }

    /// The writes of the next transaction. If none waits, this is the end of the turn.
    fn next(&self) -> Vec<Waiting> {
        let mut state = self.state();
        let mut writes = Vec::new();
        while writes.len() < MAX_WRITES
            && let Some(waiting) = state.waiting.pop_front()
        {
            if !waiting.reply.is_closed() {
                writes.push(waiting);
            }
        }
        state.is_busy = !writes.is_empty();
        writes
    }

    async fn commit(&self, writes: Vec<Waiting>) {
        let timeout = writes.iter().map(|waiting| waiting.timeout).max().unwrap_or_default();
        match self.writer.write_several(&writes, Instant::now() + timeout).await {
            Ok(changed) => reply(writes, changed.into_iter().map(|changed| changed.map(Ok))),
            Err(Failure::RolledBack(_)) if writes.len() > 1 => {
                for waiting in writes {
                    waiting.release();
                    Box::pin(self.commit(vec![waiting])).await;
                }
            }
            Err(Failure::NotBegun(error) | Failure::RolledBack(error)) => {
                let failure = SharedFailure::from(error);
                reply(writes, std::iter::repeat_with(|| Some(Err(failure.to_error()))));
            }
            Err(Failure::Unknown(error)) => {
                reply(writes, std::iter::repeat_with(|| Some(Err(StorageError::ambiguous(error.clone())))));
            }
        }
    }

    /// Ends a turn without a thread. The callers that wait get an error.
    fn end_turn(&self) {
        let mut state = self.state();
        state.is_busy = false;
        state.waiting.clear();
    }
}

/// Sends the results to the callers. A dropped caller has no receiver, which is not an error.
fn reply(writes: Vec<Waiting>, results: impl Iterator<Item = Option<Reply>>) {
    for (waiting, result) in writes.into_iter().zip(results) {
        let _ = result.map(|result| waiting.reply.send(result));
    }
}

/// Ends a turn if its thread panics.
struct EndOfTurn<'a, W: Writer>(&'a Shared<W>);

impl<W: Writer> Drop for EndOfTurn<'_, W> {
    fn drop(&mut self) {
        self.0.end_turn();
    }
}

/// The right to run a write alone. When it is dropped, the writes that wait run in the thread.
struct Turn<W: Writer>(Arc<Shared<W>>);

impl<W: Writer> Drop for Turn<W> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_busy = !state.waiting.is_empty();
        let is_over = !state.is_busy;
        drop(state);
        if !is_over && self.0.turns.get_or_init(start_thread).send(Arc::clone(&self.0)).is_err() {
            self.0.end_turn();
        }
    }
}

/// Starts the thread that runs transactions, with a runtime of its own. If that is impossible, nothing receives its turns.
fn start_thread<W: Writer>() -> mpsc::UnboundedSender<Arc<Shared<W>>> {
    let (sender, mut turns) = mpsc::unbounded_channel::<Arc<Shared<W>>>();
    let run = move || -> std::io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            while let Some(shared) = turns.recv().await {
                shared.run_turn().await;
            }
        });
        Ok(())
    };
    let report =
        |error| tracing::error!(error = &error as &dyn std::error::Error, "no thread for writes could be started");
    let thread = thread::Builder::new().name("oauth-dance-writes".to_owned());
    if let Err(error) = thread.spawn(move || run().unwrap_or_else(report)) {
        report(error);
    }
    sender
}
