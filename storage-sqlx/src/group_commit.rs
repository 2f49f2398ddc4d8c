//! Combines concurrent writes into one transaction, for databases that commit them one after the other.
//!
//! SQLite permits one writer at a time, and each commit waits for the disk. While a write is in progress, others wait.
//! Then one transaction runs all of them, and the disk is waited for once. A write that runs alone is one plain
//! statement, which commits by itself.
//!
//! # Why it is correct
//!
//! The statements of a transaction run one after the other, in the order in which their callers arrived. Each sees the
//! effect of the ones before it, and no caller receives a result before the commit. If a statement fails, the transaction
//! is rolled back, and every write runs alone, so that its caller receives the result of its own statement.
//!
//! # Why it is safe to share
//!
//! A transaction runs in a task, which no caller can abort, on the runtime of a caller that waits for it. If that
//! runtime ends, the transaction is rolled back or its result is unknown, and the next one starts on another runtime. A
//! write whose caller was dropped before its transaction started does not run.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oauth_dance_core::StorageError;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::error::{SharedError, TimedOut};
use crate::write::Write;

#[cfg(test)]
mod tests;

/// The maximum number of writes in a transaction. Other processes wait while it runs.
const MAX_WRITES: usize = 64;
/// How long a caller waits for a result after its deadline. The writer has the same deadline, and knows better whether
/// the write took effect.
const GRACE: Duration = Duration::from_millis(100);

/// Writes to the database.
pub(crate) trait Writer: Send + Sync + 'static {
    /// Runs a statement that commits by itself. Returns the number of changed rows.
    fn write_one(&self, write: &Write<'_>, deadline: Instant)
    -> impl Future<Output = Result<u64, StorageError>> + Send;

    /// Runs statements in one transaction. Returns the numbers of changed rows, in the same order.
    fn write_several(
        &self,
        writes: &[&Write<'_>],
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<u64>, Failure>> + Send;
}

/// Why a transaction failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing has changed. Each write can run alone.
    RolledBack,
    /// Nothing has changed, and nothing can be written at present.
    Unavailable(SharedError),
    /// The transaction may have taken effect.
    Unknown(SharedError),
}

/// Combines the concurrent writes of all its clones.
pub(crate) struct GroupCommit<W>(Arc<Shared<W>>);

struct Shared<W> {
    writer: W,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The writes for the next transactions, in the order of their calls.
    waiting: VecDeque<Waiting>,
    /// Whether a transaction is in progress.
    is_busy: bool,
}

impl<W: Writer> GroupCommit<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self(Arc::new(Shared { writer, state: Mutex::default() }))
    }

    /// Runs a write, alone or together with others. Returns the number of changed rows.
    ///
    /// If the future is dropped, the write takes effect only if its transaction has started.
    ///
    /// # Errors
    /// [`StorageError::Ambiguous`] if the write may have taken effect. Otherwise the error of its statement.
    pub(crate) async fn run(&self, write: Write<'static>, deadline: Instant) -> Result<u64, StorageError> {
        let write = Arc::new(write);
        loop {
            let (waiting, mut reply) = Waiting::new(&write, deadline);
            let is_sent = Arc::clone(&waiting.is_sent);
            self.0.start(Some(waiting));
            match timeout_at(deadline + GRACE, &mut reply).await {
                Ok(Ok(result)) => return result,
                Ok(Err(_)) if is_sent.load(Ordering::SeqCst) => return Err(StorageError::ambiguous(RuntimeEnded)),
                // The runtime of another caller ended before it sent this write.
                Ok(Err(_)) => {}
                Err(_) => {
                    // If the write was not sent before this line, it never is.
                    reply.close();
                    let is_sent = is_sent.load(Ordering::SeqCst);
                    return Err(if is_sent {
                        StorageError::ambiguous(TimedOut)
                    } else {
                        StorageError::unavailable(TimedOut)
                    });
                }
            }
        }
    }
}

impl<W> Clone for GroupCommit<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The runtime that ran a transaction has ended before the transaction.
#[derive(Debug, thiserror::Error)]
#[error("the runtime that ran the transaction has ended")]
struct RuntimeEnded;

type Reply = Result<u64, StorageError>;

/// A write that waits for its transaction.
struct Waiting {
    write: Arc<Write<'static>>,
    deadline: Instant,
    /// The runtime of the caller.
    runtime: Handle,
    is_sent: Arc<AtomicBool>,
    reply: oneshot::Sender<Reply>,
}

impl Waiting {
    fn new(write: &Arc<Write<'static>>, deadline: Instant) -> (Self, oneshot::Receiver<Reply>) {
        let (sender, receiver) = oneshot::channel();
        let (runtime, is_sent) = (Handle::current(), Arc::default());
        (Self { write: Arc::clone(write), deadline, runtime, is_sent, reply: sender }, receiver)
    }

    /// Marks the write as sent. Returns `false` if its caller is gone, which then has seen no mark.
    fn send(&self) -> bool {
        self.is_sent.store(true, Ordering::SeqCst);
        !self.reply.is_closed()
    }
}

impl<W: Writer> Shared<W> {
    /// Adds a write, and starts a transaction unless one is in progress.
    fn start(self: &Arc<Self>, new: Option<Waiting>) {
        let mut state = self.state();
        state.waiting.extend(new);
        while !state.is_busy
            && let Some(first) = state.waiting.pop_front()
        {
            if first.reply.is_closed() {
                continue;
            }
            state.is_busy = true;
            drop(state);
            let runtime = first.runtime.clone();
            // If this runtime has ended, it drops the turn at once, which starts the next one.
            runtime.spawn(Turn { shared: Arc::clone(self), writes: vec![first] }.run());
            return;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to run one transaction. When it ends or is dropped, the next one starts.
struct Turn<W: Writer> {
    shared: Arc<Shared<W>>,
    writes: Vec<Waiting>,
}

impl<W: Writer> Turn<W> {
    async fn run(mut self) {
        self.add_waiting();
        let writer = &self.shared.writer;
        let writes: Vec<&Write<'_>> = self.writes.iter().map(|waiting| &*waiting.write).collect();
        let Some(deadline) = self.writes.iter().map(|waiting| waiting.deadline).max() else { return };
        let result =
            if writes.len() == 1 { Err(Failure::RolledBack) } else { writer.write_several(&writes, deadline).await };
        let unavailable = |error: &SharedError| StorageError::unavailable(error.clone());
        match result {
            Ok(changed) => self.reply(changed.into_iter().map(Ok)),
            Err(Failure::RolledBack) => self.write_each().await,
            Err(Failure::Unavailable(error)) => self.reply(std::iter::repeat_with(|| Err(unavailable(&error)))),
            Err(Failure::Unknown(error)) => {
                self.reply(std::iter::repeat_with(|| Err(StorageError::ambiguous(error.clone()))));
            }
        }
    }

    /// Adds the writes that wait, except those whose callers are gone.
    fn add_waiting(&mut self) {
        let mut state = self.shared.state();
        let count = state.waiting.len().min(MAX_WRITES - self.writes.len());
        self.writes.extend(state.waiting.drain(..count));
        drop(state);
        self.writes.retain(Waiting::send);
    }

    /// Runs each write alone.
    async fn write_each(&mut self) {
        for waiting in std::mem::take(&mut self.writes) {
            if !waiting.reply.is_closed() {
                let result = self.shared.writer.write_one(&waiting.write, waiting.deadline).await;
                let _ = waiting.reply.send(result);
            }
        }
    }

    /// Sends a result to each caller. A dropped caller has no receiver, which is not an error.
    fn reply(&mut self, results: impl Iterator<Item = Reply>) {
        for (waiting, result) in self.writes.drain(..).zip(results) {
            let _ = waiting.reply.send(result);
        }
    }
}

impl<W: Writer> Drop for Turn<W> {
    fn drop(&mut self) {
        self.shared.state().is_busy = false;
        self.shared.start(None);
    }
}
