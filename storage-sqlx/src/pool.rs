//! The pool of a storage that opens its own connections.
//!
//! The pool of sqlx pings a connection whenever it is returned, which takes as long as a statement of this crate. This
//! pool avoids the round trip. A connection is returned only if its last statement has ended, so its state is known. It
//! is tested before use only if it is *suspect*: it was idle for a while, or another connection broke.
//!
//! A task closes old and idle connections in the background. Opening a connection is retried while the server starts or has
//! too many connections, unless one is returned in the meantime.
//! The pool counts its open connections, so that [`OwnPool::close`] can wait until the last one is closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, WeakPool};
use futures_util::future::BoxFuture;
use sqlx::Connection as _;
use tokio::runtime::{self, Handle};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::dialect::Dialect;
use crate::generation::{Generation, Generations};
use crate::runtime::ConnectionRuntime;

/// The maximum number of connections to a server.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) const CONNECTIONS: usize = 10;

/// A connection that was idle for longer is suspect. Servers, proxies and firewalls close idle connections silently,
/// some of them after two seconds, and a write on a closed connection is ambiguous.
const MAX_IDLE_UNTESTED: Duration = Duration::from_millis(500);
/// How long the test of a suspect connection may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the closing message to a server may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was idle for longer is closed.
const MAX_IDLE: Duration = Duration::from_secs(10 * 60);
/// An older connection is closed, so that a changed DNS entry, password or setting takes effect.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// How often a connection releases the memory that a large statement needed.
const SHRINK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two searches for old and idle connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The pause after the first failed try to connect. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The options of a new connection.
pub(crate) type Options<DB> = <<DB as sqlx::Database>::Connection as sqlx::Connection>::Options;

/// Prepares a new connection for use.
pub(crate) type SetUp<DB> =
    Arc<dyn Fn(&mut <DB as sqlx::Database>::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>> + Send + Sync>;

/// A pool of connections that this crate opens. Its clones share the connections.
pub(crate) struct OwnPool<DB: Dialect> {
    pool: managed::Pool<Opener<DB>>,
}

impl<DB: Dialect> OwnPool<DB> {
    /// A pool that has no connection yet. `wait` is how long a caller waits for one.
    #[expect(clippy::expect_used, reason = "a pool without timeouts needs no runtime")]
    pub(crate) fn new(options: Options<DB>, size: usize, wait: Duration, set_up: Option<SetUp<DB>>) -> Self {
        let opener = Opener {
            options,
            set_up,
            is_pooler: AtomicBool::new(false),
            wait,
            dead_since: Mutex::new(None),
            broken_at: Mutex::new(None),
            generations: Generations::default(),
            open: watch::Sender::new(0),
            is_swept: Arc::default(),
        };
        // The last returned connection comes first, so that the others become idle and are closed.
        let pool = managed::Pool::builder(opener).max_size(size).queue_mode(QueueMode::Lifo).build();
        Self { pool: pool.expect("no timeout is set") }
    }

    /// The same, with a first connection, so that a wrong URL or password is reported here.
    ///
    /// # Errors
    /// The error of the connection.
    pub(crate) async fn connect(
        options: Options<DB>,
        size: usize,
        wait: Duration,
        set_up: Option<SetUp<DB>>,
    ) -> Result<Self, sqlx::Error> {
        let pool = Self::new(options, size, wait, set_up);
        Pooled::give_back(pool.acquire().await?);
        Ok(pool)
    }

    /// Waits for a free connection, or opens one. Tries again while the server is starting or has too many connections.
    ///
    /// # Errors
    /// The error of a new connection, or [`sqlx::Error::PoolTimedOut`] or [`sqlx::Error::PoolClosed`].
    pub(crate) async fn acquire(&self) -> Result<Object<Opener<DB>>, sqlx::Error> {
        let wait = self.pool.manager().wait;
        let give_up = Instant::now() + wait;
        let mut pause = FIRST_PAUSE;
        loop {
            match timeout_at(give_up, self.pool.get()).await {
                Ok(Ok(object)) => {
                    self.sweep();
                    return Ok(object);
                }
                Ok(Err(PoolError::Backend(error)))
                    if error.is_transient::<DB>() && Instant::now() + pause < give_up => {}
                Ok(Err(PoolError::Backend(error))) => return Err(error.into()),
                Ok(Err(PoolError::Closed)) => return Err(sqlx::Error::PoolClosed),
                Ok(Err(_)) | Err(_) => return Err(sqlx::Error::PoolTimedOut),
            }
            // Another call may return its connection in the meantime.
            sleep(pause).await;
            pause = (pause * 2).min(wait / 5);
        }
    }

    /// Makes every idle connection suspect, because another one broke. A suspect connection is tested before use.
    pub(crate) fn mark_suspect(&self) {
        *self.pool.manager().broken_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// Closes every connection, and waits for those in use to be returned first.
    pub(crate) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for mut pooled in idle {
            if let Some(closing) = pooled.close() {
                closing.await;
            }
        }
        // The sender belongs to this pool, so the channel is open and waiting cannot fail.
        let _ = self.pool.manager().open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Starts the task that closes old and idle connections, unless it is running. The task ends with its runtime. The
    /// next use of the pool in another runtime starts it again.
    fn sweep(&self) {
        let is_swept = &self.pool.manager().is_swept;
        if !DB::REMOTE || is_swept.load(Ordering::Relaxed) || is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let (running, pool) = (Running(Arc::clone(is_swept)), self.pool.weak());
        tokio::spawn(async move {
            while is_open(&pool) {
                sleep(SWEEP_INTERVAL).await;
            }
            drop(running);
        });
    }
}

/// Closes old and idle connections. Returns whether the pool is still in use.
fn is_open<DB: Dialect>(pool: &WeakPool<Opener<DB>>) -> bool {
    let Some(pool) = pool.upgrade() else { return false };
    // Each removed connection is closed in a task.
    drop(pool.retain(|pooled, _| pooled.idle_since.elapsed() < MAX_IDLE && !pooled.is_old()));
    !pool.is_closed()
}

impl<DB: Dialect> Clone for OwnPool<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone() }
    }
}

/// Marks the task of [`OwnPool::sweep`] as running until it is dropped.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Opens the connections of a pool, and tests those that are suspect.
pub(crate) struct Opener<DB: Dialect> {
    options: Options<DB>,
    set_up: Option<SetUp<DB>>,
    /// Whether the connections are to a pooler that rejects the settings of a session.
    is_pooler: AtomicBool,
    /// How long a caller waits for a connection.
    wait: Duration,
    /// The end of the last use of a connection that was found dead. Others that are idle for longer are dead too.
    dead_since: Mutex<Option<Instant>>,
    /// When a connection last broke.
    broken_at: Mutex<Option<Instant>>,
    generations: Generations,
    /// The number of open connections.
    open: watch::Sender<usize>,
    /// Whether the task that closes old and idle connections is running.
    is_swept: Arc<AtomicBool>,
}

impl<DB: Dialect> Opener<DB> {
    fn dead_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.dead_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection may be broken: it was idle for long, another one broke since its last use, or it belongs to
    /// another runtime.
    fn is_suspect(&self, pooled: &Pooled<DB>) -> bool {
        let broken_at = *self.broken_at.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = broken_at.map_or(MAX_IDLE_UNTESTED, |broken_at| MAX_IDLE_UNTESTED.min(broken_at.elapsed()));
        // A connection stops working when the runtime that opened it ends.
        pooled.idle_since.elapsed() >= limit || !pooled.runtime.is_current()
    }
}

impl<DB: Dialect> managed::Manager for Opener<DB> {
    type Type = Pooled<DB>;
    type Error = OpenError;

    /// Opens a connection and sets it up.
    async fn create(&self) -> Result<Pooled<DB>, OpenError> {
        let generation = self.generations.current();
        let (connection, is_direct) = DB::open(&self.options, &self.is_pooler).await.map_err(OpenError::Connect)?;
        let mut pooled = Pooled::new(connection, is_direct, generation, Opened::new(self.open.clone()));
        if let Some(set_up) = &self.set_up
            && let Err(error) = set_up(pooled.connection()).await
        {
            pooled.is_dead = true;
            return Err(OpenError::SetUp(error));
        }
        Ok(pooled)
    }

    /// Tests a suspect connection before it is used again.
    async fn recycle(&self, pooled: &mut Pooled<DB>, _: &Metrics) -> RecycleResult<OpenError> {
        // A database without a server has no connection that could break.
        if !DB::REMOTE {
            return Ok(());
        }
        if pooled.generation.is_over() {
            return Err(RecycleError::Message("the server may no longer accept writes".into()));
        }
        if !self.is_suspect(pooled) {
            return Ok(());
        }
        // The connection counts as dead until the test has succeeded. A dead connection is closed without a message,
        // because the server may be gone.
        pooled.is_dead = true;
        if pooled.runtime.has_ended() {
            return Err(RecycleError::Message("the runtime that opened the connection has ended".into()));
        }
        if self.dead_since().is_some_and(|dead_since| pooled.idle_since <= dead_since) {
            return Err(RecycleError::Message("a connection that was idle for less time is dead".into()));
        }
        let error = match timeout(PING_TIMEOUT, pooled.connection().ping()).await {
            Ok(Ok(())) => {
                pooled.is_dead = false;
                return Ok(());
            }
            Ok(Err(error)) => RecycleError::Backend(OpenError::Connect(error)),
            Err(_) => RecycleError::Message("the connection did not respond in time".into()),
        };
        let mut dead_since = self.dead_since();
        *dead_since = (*dead_since).max(Some(pooled.idle_since));
        Err(error)
    }
}

/// Why a connection could not be opened.
pub(crate) enum OpenError {
    Connect(sqlx::Error),
    SetUp(sqlx::Error),
}

impl OpenError {
    /// Whether the same connection may be possible soon.
    fn is_transient<DB: Dialect>(&self) -> bool {
        match self {
            Self::Connect(sqlx::Error::Io(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Self::Connect(sqlx::Error::Database(error)) => DB::is_transient(error.as_ref()),
            Self::Connect(_) => false,
            // The server accepted the connection, and is about to stop or has not started completely.
            Self::SetUp(_) => true,
        }
    }
}

impl From<OpenError> for sqlx::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Connect(error) | OpenError::SetUp(error) => error,
        }
    }
}

/// A connection of the pool. It is closed when it is dropped.
pub(crate) struct Pooled<DB: Dialect> {
    /// `None` only after the connection was closed.
    connection: Option<(DB::Connection, Opened)>,
    /// Whether the session belongs to this connection alone.
    is_direct: bool,
    generation: Generation,
    opened_at: Instant,
    idle_since: Instant,
    /// When the buffers were last reduced to their usual size.
    shrunk_at: Instant,
    runtime: ConnectionRuntime,
    /// Whether the server is not to be notified of the end.
    is_dead: bool,
}

impl<DB: Dialect> Pooled<DB> {
    fn new(connection: DB::Connection, is_direct: bool, generation: Generation, opened: Opened) -> Self {
        let now = Instant::now();
        Self {
            connection: Some((connection, opened)),
            is_direct,
            generation,
            opened_at: now,
            idle_since: now,
            shrunk_at: now,
            runtime: ConnectionRuntime::current(),
            is_dead: false,
        }
    }

    pub(crate) const fn is_direct(&self) -> bool {
        self.is_direct
    }

    #[expect(clippy::expect_used, reason = "only `close` takes the connection, and nothing uses it afterwards")]
    /// The connection, as sqlx uses it.
    pub(crate) fn connection(&mut self) -> &mut DB::Connection {
        let (connection, _) = self.connection.as_mut().expect("a connection that is not closed");
        connection
    }

    /// Which connections of the pool were opened together with this one.
    pub(crate) fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Returns a connection whose last statement has ended to the pool. An old one is closed.
    pub(crate) fn give_back(mut pooled: Object<Opener<DB>>) {
        if DB::REMOTE && (pooled.is_old() || pooled.generation.is_over()) {
            drop(Object::take(pooled));
            return;
        }
        let now = Instant::now();
        // Not each time, because the next statement may need large buffers too.
        if now.duration_since(pooled.shrunk_at) > SHRINK_INTERVAL {
            pooled.connection().shrink_buffers();
            pooled.shrunk_at = now;
        }
        pooled.idle_since = now;
    }

    /// Closes a connection whose last statement may still be running, because the rest of a response may arrive. A
    /// connection without a server is returned as soon as its statement has ended.
    pub(crate) fn discard(mut pooled: Object<Opener<DB>>) {
        if DB::REMOTE {
            drop(Object::take(pooled));
            return;
        }
        // In a thread, because the caller's runtime may never run again. Without it, the connection is returned at once,
        // and its next statement waits for this one.
        let wait = move || {
            let Ok(runtime) = runtime::Builder::new_current_thread().build() else { return };
            match runtime.block_on(pooled.connection().ping()) {
                Ok(()) => Self::give_back(pooled),
                Err(_) => drop(Object::take(pooled)),
            }
        };
        let _ = thread::Builder::new().name("oauth-dance-discard".to_owned()).spawn(wait);
    }

    fn is_old(&self) -> bool {
        self.opened_at.elapsed() > MAX_AGE
    }

    /// Returns the future that closes the connection. `None` if it is closed already. A connection with an incomplete
    /// statement is closed at once, because sqlx would send the rest first, and the statement could take effect long
    /// after its call has returned.
    fn close(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let ((connection, opened), is_dead) = (self.connection.take()?, self.is_dead);
        if DB::REMOTE && connection.should_flush() {
            return None;
        }
        Some(async move {
            let _ = timeout(CLOSE_TIMEOUT, async {
                if is_dead { connection.close_hard().await } else { connection.close().await }
            })
            .await;
            drop(opened);
        })
    }
}

impl<DB: Dialect> Drop for Pooled<DB> {
    fn drop(&mut self) {
        // Without a runtime, the connection is closed without a message to the server.
        if let Some(closing) = self.close()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(closing);
        }
    }
}

/// Counts an open connection until it is dropped.
struct Opened(watch::Sender<usize>);

impl Opened {
    fn new(open: watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
