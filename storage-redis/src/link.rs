//! The connection to one server.
//!
//! All requests share one connection, and their replies arrive in the order of the requests. The connection of the
//! redis crate is used without its own reconnection, because that would send a write again. Here, a broken connection
//! is discarded, and the next request opens another one. Requests that wait for a connection share the attempt to open
//! it.
//!
//! A connection works only while the runtime that opened it is driven. A request from another runtime therefore does
//! not rely on a connection that has not responded for a while, and does not wait for long until one is open.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionInfo, Value};
use tokio::runtime::{self, Handle};
use tokio::time::{Instant, timeout, timeout_at};

use crate::address::Sentinels;
use crate::connection::{connect, replies};
use crate::error::{Cause, Failure};
use crate::setup::Setup;

/// A connection that was idle for longer is tested before a write. Servers, proxies and firewalls close idle
/// connections, some of them silently, and a write on a closed connection is ambiguous.
const MAX_IDLE: Duration = Duration::from_millis(500);
/// How long such a test may take.
const TEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The server that a link connects to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A server that must be a primary.
    Primary(ConnectionInfo),
    /// A server of a Cluster, which redirects requests if necessary.
    Node(ConnectionInfo),
    /// The primary according to Sentinels.
    Sentinels(Arc<Sentinels>),
}

/// The options of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The timeout of an operation.
    pub(crate) timeout: Duration,
    /// Whether to reject a server that may evict records.
    pub(crate) reject_eviction: bool,
}

/// One connection to a server, which all requests share. It is opened when it is first needed, and again after it
/// broke.
#[derive(Debug)]
pub(crate) struct Link {
    target: Target,
    options: Options,
    state: Arc<Mutex<LinkState>>,
}

/// The connection, and what is known about the server.
#[derive(Debug, Default)]
struct LinkState {
    /// The number of attempts to connect, so that a late failure discards only its own connection.
    attempts: u64,
    current: Option<Attempt>,
    /// The settings that the server reported at the last connect.
    setup: Option<Setup>,
    /// Whether the warning about eviction was logged.
    warned: bool,
}

/// A connection that is being opened or is open. All waiting requests share it.
type Opening = Shared<BoxFuture<'static, Result<Arc<Open>, Failure>>>;

/// An attempt to connect, which may have succeeded.
#[derive(Clone, Debug)]
struct Attempt {
    number: u64,
    opening: Opening,
    started: Instant,
    runtime: runtime::Id,
}

/// The state of the connection that a request uses.
enum Current {
    Open(Arc<Open>),
    Opening(Attempt),
}

/// An open connection.
#[derive(Debug)]
struct Open {
    attempt: u64,
    connection: MultiplexedConnection,
    /// The runtime that drives the connection.
    runtime: runtime::Id,
    /// Whether the connection was closed.
    closed: Arc<AtomicBool>,
    opened: Instant,
    /// When the server last responded, in milliseconds after the connection was opened.
    last_reply: AtomicU64,
}

impl Link {
    /// A link that connects when it is first used.
    pub(crate) fn new(target: Target, options: Options) -> Self {
        Self { target, options, state: Arc::default() }
    }

    /// The server that the link connects to.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The settings that the server reported at the last connect.
    pub(crate) fn setup(&self) -> Option<Setup> {
        self.state().setup.clone()
    }

    /// Connects, unless a connection is open.
    pub(crate) async fn open(&self, deadline: Instant) -> Result<(), Failure> {
        self.opened(deadline).await.map(drop)
    }

    /// Sends commands in one batch, and returns a reply for each. Error replies are included.
    ///
    /// If the future is dropped after the commands were queued, the server still executes them.
    pub(crate) async fn send(&self, commands: &[Cmd], deadline: Instant) -> Result<Vec<Value>, Failure> {
        let mut open = self.opened(deadline).await?;
        // If the other runtime is no longer driven, there is no time left to send the commands again.
        if open.runtime != Handle::current().id() && open.is_idle() {
            open = self.tested(open, deadline).await?;
        }
        self.send_on(&open, commands, deadline).await
    }

    /// Tests a connection that was idle, and opens another one if it is broken.
    ///
    /// Call it before a write. A read can be sent again.
    pub(crate) async fn test(&self, deadline: Instant) -> Result<(), Failure> {
        let open = self.opened(deadline).await?;
        if open.is_idle() {
            self.tested(open, deadline).await?;
        }
        Ok(())
    }

    /// Makes the next request open a new connection.
    pub(crate) fn reopen(&self) {
        self.state().current = None;
    }

    /// Returns this connection if it still responds. Otherwise returns another one.
    async fn tested(&self, open: Arc<Open>, deadline: Instant) -> Result<Arc<Open>, Failure> {
        let give_up = deadline.min(Instant::now() + TEST_TIMEOUT);
        // The storage needs the permission for this command in any case. The future is large and rarely needed.
        let tested = Box::pin(self.send_on(&open, &[redis::cmd("TIME")], give_up)).await;
        if tested.is_ok() { Ok(open) } else { self.opened(deadline).await }
    }

    /// Sends commands on this connection. If no reply arrives, the connection is discarded.
    async fn send_on(&self, open: &Open, commands: &[Cmd], deadline: Instant) -> Result<Vec<Value>, Failure> {
        let mut connection = open.connection.clone();
        let cause = match timeout_at(deadline, replies(&mut connection, commands)).await {
            Ok(Ok(replies)) => {
                open.last_reply.store(open.age(), Ordering::Relaxed);
                return Ok(replies);
            }
            Ok(Err(error)) => Cause::connection(error),
            Err(_) => Cause::TimedOut,
        };
        // No new request is sent on this connection. Earlier requests may still receive their replies.
        forget(&self.state, open.attempt);
        Err(Failure::NoReply(cause))
    }

    /// Waits until the connection is open.
    async fn opened(&self, deadline: Instant) -> Result<Arc<Open>, Failure> {
        loop {
            let attempt = match self.current() {
                Current::Open(open) => return Ok(open),
                Current::Opening(attempt) => attempt,
            };
            // An attempt takes at most half of the timeout, if its runtime is driven.
            let is_own = attempt.runtime == Handle::current().id();
            let patience = if is_own { self.options.timeout } else { self.options.timeout / 4 };
            let give_up = deadline.min(Instant::now() + patience);
            match timeout_at(give_up, attempt.opening).await {
                Ok(Ok(open)) => return Ok(open),
                Ok(Err(failure)) if is_own => return Err(failure),
                // Another runtime may have ended, so this one makes its own attempt.
                Ok(Err(_)) => continue,
                Err(_) => {}
            }
            if !is_own || attempt.started.elapsed() > self.options.timeout / 2 {
                forget(&self.state, attempt.number);
            }
            if give_up == deadline {
                return Err(Failure::Unchanged(Cause::TimedOut));
            }
        }
    }

    /// The current connection, or a new one if there is none that can be used.
    fn current(&self) -> Current {
        let mut state = self.state();
        if let Some(attempt) = &state.current {
            match attempt.opening.peek() {
                None => return Current::Opening(attempt.clone()),
                Some(Ok(open)) if !open.closed.load(Ordering::Acquire) => return Current::Open(Arc::clone(open)),
                Some(_) => {}
            }
        }
        state.attempts += 1;
        let number = state.attempts;
        let runtime = Handle::current().id();
        let attempt = Attempt { number, opening: self.start(number), started: Instant::now(), runtime };
        state.current = Some(attempt.clone());
        Current::Opening(attempt)
    }

    /// Connects in a separate task, because the callers may be dropped before the connection is open. Half of the
    /// timeout remains for the request itself.
    fn start(&self, attempt: u64) -> Opening {
        let (target, options, state) = (self.target.clone(), self.options, Arc::clone(&self.state));
        let connecting = tokio::spawn(async move {
            let opened = match timeout(options.timeout / 2, connect(&target, options)).await {
                Ok(Ok((connection, closed, setup))) => admit(&state, options, setup).map(|()| (connection, closed)),
                Ok(Err(failure)) => Err(failure),
                Err(_) => Err(Failure::Unchanged(Cause::TimedOut)),
            };
            if opened.is_err() {
                forget(&state, attempt);
            }
            let (connection, closed) = opened?;
            let (runtime, opened) = (Handle::current().id(), Instant::now());
            Ok(Arc::new(Open { attempt, connection, runtime, closed, opened, last_reply: AtomicU64::new(0) }))
        });
        connecting.map(|ended| ended.unwrap_or(Err(Failure::Unchanged(GONE)))).boxed().shared()
    }

    fn state(&self) -> MutexGuard<'_, LinkState> {
        lock(&self.state)
    }
}

impl Open {
    /// Whether the server has not responded for a while.
    fn is_idle(&self) -> bool {
        let idle = self.age().saturating_sub(self.last_reply.load(Ordering::Relaxed));
        Duration::from_millis(idle) >= MAX_IDLE
    }

    /// The time since the connection was opened, in milliseconds.
    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

const GONE: Cause = Cause::Other("the runtime that opened the connection has ended");
const EVICTS: &str = "the server may evict tokens to free memory; set its `maxmemory-policy` to `noeviction`";

/// Locks a state.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code with this lock can panic in the middle of a change, so a poisoned lock is safe to use.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Discards a connection, unless a newer one has replaced it.
fn forget(state: &Mutex<LinkState>, attempt: u64) {
    let mut state = lock(state);
    if state.attempts == attempt {
        state.current = None;
    }
}

/// Records the settings of a server. A server that may evict tokens is rejected, or reported once in the log.
fn admit(state: &Mutex<LinkState>, options: Options, setup: Setup) -> Result<(), Failure> {
    let mut state = lock(state);
    if let Some(policy) = &setup.evicts_by {
        if options.reject_eviction {
            return Err(Failure::Misconfigured(
                EVICTS,
                Cause::Other("the eviction policy of the server drops records"),
            ));
        }
        if !state.warned {
            tracing::warn!(%policy, "{EVICTS}");
            state.warned = true;
        }
    }
    state.setup = Some(setup);
    Ok(())
}
