use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, PushInfo, PushKind, RedisResult,
    Value,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::address::Sentinels;
use crate::error::{Cause, Failure, cannot_open};
use crate::setup::{Setup, questions};

/// How many requests may queue for the socket before further ones wait.
const QUEUE: usize = 1024;

/// A connection idle for longer is tested before something is sent on it that must not be sent twice: servers, proxies
/// and firewalls close such ones, some without a word.
const QUIET: Duration = Duration::from_millis(500);
/// How long such a test may take.
const TEST_TIMEOUT: Duration = Duration::from_secs(1);

/// What a link leads to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A server that has to be a primary.
    Primary(ConnectionInfo),
    /// A server of a Cluster, which says itself where to ask instead.
    Node(ConnectionInfo),
    /// The server that Sentinels say is the primary.
    Watched(Arc<Sentinels>),
}

/// How links behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The longest an operation takes.
    pub(crate) timeout: Duration,
    /// Not to use a server that may drop records to make room.
    pub(crate) refuse_eviction: bool,
}

/// One connection to a server, opened when it is first needed and again once it broke. All requests share it.
#[derive(Debug)]
pub(crate) struct Link {
    target: Target,
    options: Options,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts what was opened, so that a late failure takes away its own attempt only.
    attempts: u64,
    current: Option<Opening>,
    /// What the server said when it was last connected to.
    setup: Option<Setup>,
    warned: bool,
}

type Opening = Shared<BoxFuture<'static, Result<Open, Failure>>>;

#[derive(Clone, Debug)]
struct Open {
    attempt: u64,
    connection: MultiplexedConnection,
    closed: Arc<AtomicBool>,
    /// When the server last answered.
    heard: Arc<Mutex<Instant>>,
}

impl Link {
    pub(crate) fn new(target: Target, options: Options) -> Self {
        Self { target, options, state: Arc::default() }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// What the server said when it was last connected to.
    pub(crate) fn setup(&self) -> Option<Setup> {
        self.state().setup.clone()
    }

    /// Connects, unless that is done.
    pub(crate) async fn open(&self, deadline: Instant) -> Result<(), Failure> {
        self.opened(deadline).await.map(drop)
    }

    /// Sends commands in one go, and returns an answer for each. Errors that the server answered are among them.
    ///
    /// Dropping the future after the commands were handed to the connection lets them be done unseen.
    pub(crate) async fn send(&self, commands: &[Cmd], deadline: Instant) -> Result<Vec<Value>, Failure> {
        let open = self.opened(deadline).await?;
        let cause = match timeout_at(deadline, answers(open.connection, commands)).await {
            Ok(Ok(answers)) => {
                *lock(&open.heard) = Instant::now();
                return Ok(answers);
            }
            Ok(Err(error)) => Cause::connection(error),
            Err(_) => Cause::TimedOut,
        };
        // Whatever else was sent on it ends as it may; nothing new is sent on it.
        forget(&self.state, open.attempt);
        Err(Failure::Unanswered(cause))
    }

    /// Tests a connection that was idle for a moment, and opens another one if it is gone.
    pub(crate) async fn test(&self, deadline: Instant) -> Result<(), Failure> {
        let open = self.opened(deadline).await?;
        if lock(&open.heard).elapsed() < QUIET {
            return Ok(());
        }
        // A command that a user of ours may run in any case.
        let answered = self.send(&[redis::cmd("TIME")], deadline.min(Instant::now() + TEST_TIMEOUT)).await;
        if answered.is_err() {
            self.opened(deadline).await?;
        }
        Ok(())
    }

    /// Opens a new connection for the next request.
    pub(crate) fn reopen(&self) {
        self.state().current = None;
    }

    async fn opened(&self, deadline: Instant) -> Result<Open, Failure> {
        let opening = self.opening();
        timeout_at(deadline, opening).await.unwrap_or(Err(Failure::Unchanged(Cause::TimedOut)))
    }

    fn opening(&self) -> Opening {
        let mut state = self.state();
        let usable = |opening: &Opening| match opening.peek() {
            None => true,
            Some(Ok(open)) => !open.closed.load(Ordering::Acquire),
            Some(Err(_)) => false,
        };
        if let Some(opening) = state.current.clone().filter(usable) {
            return opening;
        }
        state.attempts += 1;
        let attempt = state.attempts;
        let opening = self.start(attempt);
        state.current = Some(opening.clone());
        opening
    }

    /// Connects in a task of its own: whoever waits for it may be gone before it is done.
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
            let heard = Arc::new(Mutex::new(Instant::now()));
            opened.map(|(connection, closed)| Open { attempt, connection, closed, heard })
        });
        connecting.map(|ended| ended.unwrap_or(Err(Failure::Unchanged(GONE)))).boxed().shared()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

const GONE: Cause = Cause::Other("the runtime that was connecting has ended");
const REPLICA: &str = "the server is a read-only replica; name the primary, or let Sentinel find it (redis+sentinel:)";
const EVICTS: &str = "the server may drop tokens to make room; set its `maxmemory-policy` to `noeviction`";

/// What is wrong with a server that answers writes with READONLY.
pub(crate) fn read_only(cause: Cause) -> Failure {
    Failure::Misconfigured(REPLICA, cause)
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code here can panic between two changes that belong together.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget(state: &Mutex<State>, attempt: u64) {
    let mut state = lock(state);
    if state.attempts == attempt {
        state.current = None;
    }
}

/// Notes how a server is set up, and refuses or warns of one that may drop tokens.
fn admit(state: &Mutex<State>, options: Options, setup: Setup) -> Result<(), Failure> {
    let mut state = lock(state);
    if let Some(policy) = &setup.evicts_by {
        if options.refuse_eviction {
            return Err(Failure::Misconfigured(EVICTS, Cause::Other("it is set to evict")));
        }
        if !state.warned {
            tracing::warn!(%policy, "{EVICTS}");
            state.warned = true;
        }
    }
    state.setup = Some(setup);
    Ok(())
}

type Connected = (MultiplexedConnection, Arc<AtomicBool>, Setup);

async fn connect(target: &Target, options: Options) -> Result<Connected, Failure> {
    match target {
        Target::Node(server) => dial(server).await,
        Target::Primary(server) => {
            let connected = dial(server).await?;
            if connected.2.primary == Some(false) {
                return Err(read_only(Cause::Other("it says that it is a replica")));
            }
            Ok(connected)
        }
        Target::Watched(sentinels) => find_primary(sentinels, options).await,
    }
}

/// Asks one Sentinel after the other until one knows a server that says itself that it is the primary.
async fn find_primary(sentinels: &Sentinels, options: Options) -> Result<Connected, Failure> {
    let mut failure = Failure::Unchanged(Cause::Other("no Sentinel is named in the URL"));
    for sentinel in &sentinels.addresses {
        let step = options.timeout / 6;
        let found = timeout(step, async { dial(&sentinels.server(ask(sentinel, &sentinels.name).await?)).await });
        match found.await {
            Ok(Ok(connected)) if connected.2.primary != Some(false) => return Ok(connected),
            Ok(Ok(_)) => failure = Failure::Unchanged(Cause::Other("a failover is under way")),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = Failure::Unchanged(Cause::TimedOut),
        }
    }
    Err(failure)
}

/// Asks a Sentinel where the primary is.
async fn ask(sentinel: &ConnectionInfo, name: &str) -> Result<(String, u16), Failure> {
    const UNKNOWN: Cause = Cause::Other("the Sentinel knows no primary of this name");

    let (mut connection, _) = open_connection(sentinel).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let answer = connection.send_packed_command(&question).await;
    let answer = answer.map_err(|error| Failure::Unchanged(Cause::connection(error)))?;
    if let Value::ServerError(error) = &answer {
        return Err(crate::error::refused(error));
    }
    let Value::Array(parts) = answer else {
        return Err(Failure::Misconfigured("correct the primary's name in the URL", UNKNOWN));
    };
    let parts: Vec<_> = parts.iter().filter_map(crate::setup::text).collect();
    let [host, port] = parts.as_slice() else { return Err(Failure::Unchanged(crate::error::UNEXPECTED)) };
    let port = port.parse().map_err(|_| Failure::Unchanged(crate::error::UNEXPECTED))?;
    Ok((host.clone(), port))
}

async fn dial(server: &ConnectionInfo) -> Result<Connected, Failure> {
    let (connection, closed) = open_connection(server).await?;
    let answers = answers(connection.clone(), &questions()).await;
    let answers = answers.map_err(|error| Failure::Unchanged(Cause::connection(error)))?;
    Ok((connection, closed, Setup::read(&answers)))
}

async fn answers(mut connection: MultiplexedConnection, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
    // A single command, which may hold a large payload, need not be copied into a batch.
    if let [command] = commands {
        return connection.send_packed_command(command).await.map(|answer| vec![answer]);
    }
    let mut batch = Pipeline::with_capacity(commands.len());
    for command in commands {
        batch.add_command(command.clone());
    }
    connection.send_packed_commands(&batch, 0, commands.len()).await
}

/// Opens a connection, with a mark that is set once it is closed.
async fn open_connection(server: &ConnectionInfo) -> Result<(MultiplexedConnection, Arc<AtomicBool>), Failure> {
    let closed = Arc::new(AtomicBool::new(false));
    let witness = Witness(Arc::clone(&closed));
    // Time-outs are kept here: the crate's own would not tell what was sent from what was not.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE)
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                witness.0.store(true, Ordering::Release);
            }
            Ok::<(), ()>(())
        });
    let connection = match server.addr() {
        #[cfg(feature = "tls")]
        ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
            let stream = crate::tls::connect(host, *port).await?;
            let connected = MultiplexedConnection::new_with_config(server.redis_settings(), stream, config);
            let (connection, driver) = connected.await.map_err(cannot_open)?;
            // It ends with the last copy of the connection.
            tokio::spawn(driver);
            connection
        }
        ConnectionAddr::TcpTls { .. } => return Err(Failure::Misconfigured(CHECKED_TLS, UNCHECKED)),
        _ => {
            let client = Client::open(server.clone()).map_err(cannot_open)?;
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(cannot_open)?
        }
    };
    Ok((connection, closed))
}

const CHECKED_TLS: &str = "remove `#insecure` from the URL, and switch the feature `tls` on";
const UNCHECKED: Cause = Cause::Other("TLS is spoken with its certificate checked, or not at all");

/// Held by the task that drives a connection: it ends with the connection, or with the task's runtime.
struct Witness(Arc<AtomicBool>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
