//! Combines concurrent reads into one statement.
//!
//! A read takes a *turn* and runs the plain statement, unless a few statements are in progress. In this case it waits,
//! and the next statement reads the keys of all reads that wait. A single statement in progress would use only one of the
//! server's processors, and many statements would contain few keys each.
//!
//! # Why it is correct
//!
//! A read joins only a statement that was not sent yet. It therefore sees all writes that were acknowledged before it
//! started, as if it had run its own statement. A statement contains each key once, and every read of a key receives a
//! copy of the reply.
//!
//! # Why it is safe to share
//!
//! A read must not depend on the caller that happened to run the statement for it. A statement for several reads runs
//! in a task of its own, which no caller can abort. If a turn is dropped, because the caller of a plain statement was
//! dropped or because the runtime of the task has ended, the waiting reads start again. If a statement is slow, the
//! reads that wait for it start another one after [`PATIENCE`], up to [`MAX_TURNS`] at a time. A read never waits
//! longer than its own timeout.

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

/// The maximum number of keys in a statement.
pub(crate) const MAX_KEYS: usize = 64;
/// How long a read waits for the statements in progress before it starts another one.
const PATIENCE: Duration = Duration::from_millis(20);
/// The maximum number of statements in progress. The pool has more connections, for writes and lists.
const MAX_TURNS: usize = 8;
/// How long a read waits before it runs the plain statement itself. All turns may be taken by reads that their callers do
/// not poll.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// The record of a key, or why it cannot be decoded.
pub(crate) type Found = Result<Option<Versioned<Record>>, SharedError>;

/// Reads records from the database. Each call sends one statement.
pub(crate) trait Reader: Send + Sync + 'static {
    /// Reads the record of one key with the plain statement.
    fn read_one(&self, key: &TokenKey, deadline: Instant) -> impl Future<Output = Result<Found, StorageError>> + Send;

    /// Reads at most [`MAX_KEYS`] different keys. The results are in the order of the keys.
    fn read_several(
        &self,
        keys: &[Arc<TokenKey>],
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Found>, StorageError>> + Send;
}

/// Combines the concurrent reads of all its clones.
pub(crate) struct Combined<R>(Arc<Shared<R>>);

struct Shared<R> {
    reader: R,
    /// How many statements are in progress before a read waits.
    parallel: usize,
    timeout: Duration,
    state: Mutex<State>,
}

impl<R: Reader> Combined<R> {
    pub(crate) fn new(reader: R, parallel: usize, timeout: Duration) -> Self {
        Self(Arc::new(Shared { reader, parallel, timeout, state: Mutex::default() }))
    }

    /// Reads a record, alone or together with other reads. Dropping the future affects no other read.
    ///
    /// # Errors
    /// The error of the statement, or [`StorageError::Corrupt`] if the row of this key cannot be decoded.
    pub(crate) async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let deadline = Instant::now() + self.0.timeout;
        let found = self.find(key, deadline).await?;
        found.map_err(|error| StorageError::corrupt(key, error))
    }

    /// Starts again if the turn that it waited for was dropped.
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
            match self.wait(reply, deadline).await? {
                Waited::Reply(found) => return found.map_err(|failure| failure.to_error()),
                Waited::Dropped => {}
                Waited::TooLong => return self.0.reader.read_one(key, deadline).await,
            }
        }
    }

    /// Takes a turn if there is one, or joins the reads that wait for the next statement.
    fn start(&self, key: &TokenKey) -> Start<R> {
        let mut state = self.0.state();
        if !state.is_busy(self.0.parallel) && state.turns < MAX_TURNS {
            state.is_gathering = true;
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

    /// Waits for the reply of a statement.
    async fn wait(&self, mut reply: oneshot::Receiver<Reply>, deadline: Instant) -> Result<Waited, StorageError> {
        let start = Instant::now();
        for limit in [start + PATIENCE, start + MAX_WAIT, deadline] {
            if limit > deadline {
                continue;
            }
            if let Ok(received) = timeout_at(limit, &mut reply).await {
                return Ok(received.map_or(Waited::Dropped, Waited::Reply));
            }
            if limit == start + MAX_WAIT && self.0.state().turns >= MAX_TURNS {
                return Ok(Waited::TooLong);
            }
            self.start_another();
        }
        Err(StorageError::unavailable(TimedOut))
    }

    /// Starts another statement for the waiting reads, unless the maximum is in progress.
    fn start_another(&self) {
        let mut state = self.0.state();
        let is_possible = !state.keys.is_empty() && state.turns < MAX_TURNS;
        let turn = is_possible.then(|| self.turn(&mut state));
        drop(state);
        turn.into_iter().for_each(Turn::spawn);
    }

    /// Takes a turn. The caller has checked that there is one.
    fn turn(&self, state: &mut State) -> Turn<R> {
        state.turns += 1;
        state.started = Some(Instant::now());
        Turn { shared: Arc::clone(&self.0), is_over: false }
    }
}

/// Yields once, so that the other futures of the same task, such as those of a `join_all`, can start their reads.
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
    Wait(oneshot::Receiver<Reply>),
}

/// Whether other reads started between a read's turn and its statement.
enum Share<R: Reader> {
    Alone(Turn<R>),
    With(oneshot::Receiver<Reply>),
}

/// The end of a wait.
enum Waited {
    Reply(Reply),
    /// The statement was dropped with its caller or its runtime.
    Dropped,
    /// Every turn is taken, and none has ended for long.
    TooLong,
}

/// What a statement sends to each read that waits for it.
type Reply = Result<Found, SharedFailure>;

#[derive(Default)]
struct State {
    /// The keys for the next statements, in the order of their first reads.
    keys: VecDeque<Arc<TokenKey>>,
    /// The reads that wait for these keys.
    waiting: HashMap<Arc<TokenKey>, Vec<oneshot::Sender<Reply>>>,
    /// The number of statements in progress.
    turns: usize,
    /// Whether one of them was not sent yet, so that the other reads of its task can join it.
    is_gathering: bool,
    /// When the last statement started.
    started: Option<Instant>,
}

impl State {
    /// Whether a new read waits for the statements in progress. It does not wait if they are slow, for example because
    /// their runtime is not driven.
    fn is_busy(&self, parallel: usize) -> bool {
        (self.is_gathering || self.turns >= parallel)
            && self.started.is_some_and(|started| started.elapsed() < PATIENCE)
    }

    /// Adds a read to the next statement. The result contains `true` if no other read has added the key.
    fn join(&mut self, key: &TokenKey) -> (bool, oneshot::Receiver<Reply>) {
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

    /// Removes the reads for the next statement, and drops those whose callers are gone.
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
/// If a turn is dropped before it is over, the waiting reads start again.
struct Turn<R: Reader> {
    shared: Arc<Shared<R>>,
    is_over: bool,
}

impl<R: Reader> Turn<R> {
    /// Joins the reads that have started in the meantime, if there are any.
    fn share(self, key: &TokenKey) -> Share<R> {
        let mut state = self.shared.state();
        state.is_gathering = false;
        if state.keys.is_empty() {
            drop(state);
            return Share::Alone(self);
        }
        let (_, reply) = state.join(key);
        drop(state);
        self.spawn();
        Share::With(reply)
    }

    /// Ends a turn after a single read. If other reads wait, a task continues the turn for them.
    fn end(mut self) {
        if !self.end_if_idle() {
            self.spawn();
        }
    }

    /// Ends the turn if no read waits. Returns whether it has ended.
    fn end_if_idle(&mut self) -> bool {
        let mut state = self.shared.state();
        self.is_over = state.keys.is_empty();
        if self.is_over {
            state.turns -= 1;
        }
        self.is_over
    }

    /// Runs statements until no read waits, in a task of its own, so that a dropped caller does not affect other reads.
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
            let result = self.shared.read(&batch.keys).await;
            batch.reply(result);
            // The callers may start further reads now, which the next statement can include.
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
        state.is_gathering = false;
        state.keys.clear();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // The receivers of these senders wake, and their reads start again.
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

/// The keys of one statement, and the reads that wait for them.
#[derive(Default)]
struct Batch {
    keys: Vec<Arc<TokenKey>>,
    /// The reads of each key, in the order of the keys.
    waiting: Vec<Vec<oneshot::Sender<Reply>>>,
}

impl Batch {
    /// Sends the result of the statement to every read.
    fn reply(self, result: Result<Vec<Found>, StorageError>) {
        match result {
            Ok(found) => self.waiting.into_iter().zip(found).for_each(|(waiting, found)| send(waiting, Ok(found))),
            Err(error) => {
                let failure = SharedFailure::from(error);
                self.waiting.into_iter().for_each(|waiting| send(waiting, Err(failure.clone())));
            }
        }
    }
}

/// Sends a reply to the reads of one key. A dropped read has no receiver, which is not an error.
fn send(mut waiting: Vec<oneshot::Sender<Reply>>, reply: Reply) {
    let last = waiting.pop();
    for sender in waiting {
        let _ = sender.send(reply.clone());
    }
    let _ = last.map(|last| last.send(reply));
}

impl<R> Clone for Combined<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
