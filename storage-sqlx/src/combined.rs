//! Reads at the same time are answered by one statement.
//!
//! A read that finds no other in progress takes a *turn* and runs the plain statement. Reads that start meanwhile wait,
//! and the next statement reads the keys of all of them. It contains each key once, and was not sent when a read joined
//! it, so every read sees all writes that were acknowledged before it started.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use oauth_dance_core::{Record, StorageError, TokenKey, Versioned};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::error::{SharedError, SharedFailure, TimedOut};

#[cfg(test)]
mod tests;

/// The maximum number of keys of a statement.
pub(crate) const MAX_KEYS: usize = 64;
/// How long a read waits for the statements in progress before another one starts.
const PATIENCE: Duration = Duration::from_millis(20);
/// The maximum number of statements in progress. The pool has more connections, for writes and lists.
const MAX_TURNS: usize = 8;

/// What is stored under a key, or why it cannot be read.
pub(crate) type Found = Result<Option<Versioned<Record>>, SharedError>;

/// Reads records, with one statement for each call.
pub(crate) trait Reader: Send + Sync + 'static {
    fn read_one(&self, key: &TokenKey, deadline: Instant) -> impl Future<Output = Result<Found, StorageError>> + Send;

    /// Reads at most [`MAX_KEYS`] different keys. The results have the order of the keys.
    fn read_several(
        &self,
        keys: &[Arc<TokenKey>],
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Found>, StorageError>> + Send;
}

/// Combines reads at the same time. Clones share their statements.
pub(crate) struct Combined<R>(Arc<Shared<R>>);

struct Shared<R> {
    reader: R,
    timeout: Duration,
    state: Mutex<State>,
}

impl<R: Reader> Combined<R> {
    pub(crate) fn new(reader: R, timeout: Duration) -> Self {
        Self(Arc::new(Shared { reader, timeout, state: Mutex::default() }))
    }

    /// # Errors
    /// The error of the statement, or [`StorageError::Corrupt`].
    pub(crate) async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let deadline = Instant::now() + self.0.timeout;
        let found = self.find(key, deadline).await?;
        found.map_err(|error| StorageError::corrupt(key, error))
    }

    async fn find(&self, key: &TokenKey, deadline: Instant) -> Result<Found, StorageError> {
        loop {
            let reply = match self.start(key) {
                Start::Turn(turn) => {
                    wake_siblings().await;
                    match turn.share(key) {
                        Share::Alone(turn) => {
                            let found = self.0.reader.read_one(key, deadline).await;
                            turn.end();
                            return found;
                        }
                        Share::With(reply) => reply,
                    }
                }
                Start::Wait(reply) => reply,
            };
            if let Some(found) = self.wait(reply, deadline).await? {
                return found.map_err(|failure| failure.to_error());
            }
        }
    }

    fn start(&self, key: &TokenKey) -> Start<R> {
        let mut state = self.0.state();
        if !state.is_busy() && state.turns < MAX_TURNS {
            return Start::Turn(self.turn(&mut state));
        }
        let (is_new, reply) = state.join(key);
        let is_full = is_new && state.keys.len().is_multiple_of(MAX_KEYS);
        drop(state);
        if is_full {
            self.start_another();
        }
        Start::Wait(reply)
    }

    /// Waits for the answer of a statement. `None` if it was dropped with its caller or its runtime.
    async fn wait(
        &self,
        mut reply: oneshot::Receiver<Answer>,
        deadline: Instant,
    ) -> Result<Option<Answer>, StorageError> {
        let patience = Instant::now() + PATIENCE;
        if patience < deadline {
            if let Ok(answer) = timeout_at(patience, &mut reply).await {
                return Ok(answer.ok());
            }
            self.start_another();
        }
        let answer = timeout_at(deadline, reply).await.map_err(|_| StorageError::unavailable(TimedOut))?;
        Ok(answer.ok())
    }

    /// Starts another statement for the reads that wait.
    fn start_another(&self) {
        let mut state = self.0.state();
        let is_possible = !state.keys.is_empty() && state.turns < MAX_TURNS;
        let turn = is_possible.then(|| self.turn(&mut state));
        drop(state);
        turn.into_iter().for_each(Turn::spawn);
    }

    fn turn(&self, state: &mut State) -> Turn<R> {
        state.turns += 1;
        state.started = Some(Instant::now());
        Turn { shared: Arc::clone(&self.0), is_over: false }
    }
}

/// Lets the other futures of the same task, such as those of a `join_all`, start their reads.
async fn wake_siblings() {
    let mut is_woken = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_woken, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What a new read does.
enum Start<R: Reader> {
    Turn(Turn<R>),
    Wait(oneshot::Receiver<Answer>),
}

/// Whether other reads started during the first one's turn.
enum Share<R: Reader> {
    Alone(Turn<R>),
    With(oneshot::Receiver<Answer>),
}

type Answer = Result<Found, SharedFailure>;

#[derive(Default)]
struct State {
    /// The keys for the next statements, in the order of their first reads.
    keys: VecDeque<Arc<TokenKey>>,
    /// The reads that wait for these keys.
    waiting: HashMap<Arc<TokenKey>, Vec<oneshot::Sender<Answer>>>,
    /// The number of statements in progress.
    turns: usize,
    /// When the last statement started.
    started: Option<Instant>,
}

impl State {
    /// Whether a new read waits for the statements in progress. If they are slow, or their runtime does not run, it
    /// does not.
    fn is_busy(&self) -> bool {
        self.turns > 0 && self.started.is_some_and(|started| started.elapsed() < PATIENCE)
    }

    /// Adds a read to the next statement. Returns whether its key is new there.
    fn join(&mut self, key: &TokenKey) -> (bool, oneshot::Receiver<Answer>) {
        let (sender, reply) = oneshot::channel();
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.push(sender);
            return (false, reply);
        }
        let key = Arc::new(key.clone());
        self.keys.push_back(Arc::clone(&key));
        self.waiting.insert(key, vec![sender]);
        (true, reply)
    }

    /// Removes the reads for the next statement, and those that no caller waits for any more.
    fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        while batch.keys.len() < MAX_KEYS
            && let Some(key) = self.keys.pop_front()
        {
            let mut waiting = self.waiting.remove(&key).unwrap_or_default();
            waiting.retain(|sender| !sender.is_closed());
            if !waiting.is_empty() {
                batch.keys.push(key);
                batch.waiting.push(waiting);
            }
        }
        batch
    }
}

impl<R> Shared<R> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to run statements, one after the other.
///
/// If it is dropped, because of its caller or its runtime, the reads that wait start again.
struct Turn<R: Reader> {
    shared: Arc<Shared<R>>,
    is_over: bool,
}

impl<R: Reader> Turn<R> {
    /// Joins the reads that have started meanwhile, if there are any.
    fn share(self, key: &TokenKey) -> Share<R> {
        let mut state = self.shared.state();
        if state.keys.is_empty() {
            drop(state);
            return Share::Alone(self);
        }
        let (_, reply) = state.join(key);
        drop(state);
        self.spawn();
        Share::With(reply)
    }

    /// Ends a turn after a single read. Another task runs the statements for the reads that wait.
    fn end(mut self) {
        if !self.end_if_idle() {
            self.spawn();
        }
    }

    fn end_if_idle(&mut self) -> bool {
        let mut state = self.shared.state();
        self.is_over = state.keys.is_empty();
        if self.is_over {
            state.turns -= 1;
        }
        self.is_over
    }

    /// Runs statements until no read waits. This is a task of its own, because a dropped caller must not affect others.
    fn spawn(self) {
        tokio::spawn(self.run());
    }

    async fn run(mut self) {
        while !self.end_if_idle() {
            let batch = {
                let mut state = self.shared.state();
                state.started = Some(Instant::now());
                state.take()
            };
            let answer = self.shared.read(&batch.keys).await;
            batch.answer(answer);
            // The reads that were answered may be followed by others, which the next statement can include.
            yield_now().await;
        }
    }
}

impl<R: Reader> Drop for Turn<R> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.shared.state();
        state.turns -= 1;
        state.started = None;
        state.keys.clear();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // This drops the senders, which wakes the reads.
        drop(waiting);
    }
}

impl<R: Reader> Shared<R> {
    async fn read(&self, keys: &[Arc<TokenKey>]) -> Result<Vec<Found>, StorageError> {
        let deadline = Instant::now() + self.timeout;
        match keys {
            [] => Ok(Vec::new()),
            [key] => Ok(vec![self.reader.read_one(key, deadline).await?]),
            keys => self.reader.read_several(keys, deadline).await,
        }
    }
}

/// The reads that one statement answers.
#[derive(Default)]
struct Batch {
    keys: Vec<Arc<TokenKey>>,
    /// The reads of each key.
    waiting: Vec<Vec<oneshot::Sender<Answer>>>,
}

impl Batch {
    fn answer(self, answer: Result<Vec<Found>, StorageError>) {
        match answer {
            Ok(found) => self.waiting.into_iter().zip(found).for_each(|(waiting, found)| send(waiting, Ok(found))),
            Err(error) => {
                let failure = SharedFailure::from(error);
                self.waiting.into_iter().for_each(|waiting| send(waiting, Err(failure.clone())));
            }
        }
    }
}

/// Sends an answer to the reads of one key. A read that was dropped needs none.
fn send(mut waiting: Vec<oneshot::Sender<Answer>>, answer: Answer) {
    let last = waiting.pop();
    for sender in waiting {
        let _ = sender.send(answer.clone());
    }
    let _ = last.map(|last| last.send(answer));
}

impl<R> Clone for Combined<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
