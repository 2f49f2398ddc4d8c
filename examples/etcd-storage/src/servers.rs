//! The servers of a cluster, and which of them is used.
//!
//! The client of etcd can balance requests between servers, but then each request to a server that is down is an error,
//! and each one to a suspended server is a timeout. Here, one server is used until it fails, and then the next one.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, GetOptions, GetResponse, LeaseGrantOptions, Txn, TxnResponse};
use oauth_dance_core::StorageError;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};

use crate::failure::Failure;

/// The pause before the next attempt. Electing a leader takes a second or two.
const PAUSE: Duration = Duration::from_millis(50);
/// How long opening a connection may take.
const CONNECT: Duration = Duration::from_secs(1);

/// All servers of a cluster.
#[derive(Clone)]
pub(crate) struct Servers {
    servers: Arc<[Server]>,
    /// The index of the server in use.
    current: Arc<AtomicUsize>,
    timeout: Duration,
}

struct Server {
    url: String,
    options: ConnectOptions,
    /// Connects itself again after a failure.
    client: OnceCell<Client>,
}

/// Whether a request may be sent again if its reply was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Repeatable,
    Once,
}

impl Servers {
    pub(crate) fn new(urls: &[impl AsRef<str>], options: ConnectOptions, timeout: Duration) -> Self {
        let options = options
            // A server without a leader must reject requests immediately, or it delays them until its own timeout.
            .with_require_leader(true)
            .with_auto_token_refresh(true)
            .with_connect_timeout(CONNECT)
            // A connection that breaks silently, as in a firewall, is replaced. etcd rejects pings every 5 s or more often.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(3));
        let server = |url: &str| Server { url: url.to_owned(), options: options.clone(), client: OnceCell::new() };
        let servers = urls.iter().map(|url| server(url.as_ref())).collect();
        Self { servers, current: Arc::default(), timeout }
    }

    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Starts the time of one call of the storage, which may send several requests.
    pub(crate) fn begin(&self) -> Requests<'_> {
        Requests { servers: self, deadline: Instant::now() + self.timeout }
    }
}

/// The requests of one call of the storage. After its time, they fail.
pub(crate) struct Requests<'a> {
    servers: &'a Servers,
    deadline: Instant,
}

impl Requests<'_> {
    /// Reads keys. Without the option `serializable` the read is linearizable: the server first asks the others whether it
    /// has all acknowledged writes.
    pub(crate) async fn get(&self, key: &[u8], options: Option<GetOptions>) -> Result<GetResponse, StorageError> {
        let request = |mut client: Client| {
            let (key, options) = (key.to_vec(), options.clone());
            async move { client.get(key, options).await }
        };
        self.send(Effect::Repeatable, request).await
    }

    pub(crate) async fn commit(&self, txn: &Txn) -> Result<TxnResponse, StorageError> {
        let request = |mut client: Client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        };
        self.send(Effect::Once, request).await
    }

    /// Creates a lease with an id of our own, so that a repeated request does not create a second one.
    pub(crate) async fn grant(&self, id: i64, seconds: i64) -> Result<(), StorageError> {
        let request = |mut client: Client| async move {
            match client.lease_grant(seconds, Some(LeaseGrantOptions::new().with_id(id))).await {
                Err(Error::GRpcStatus(status)) if status.message() == "etcdserver: lease already exists" => Ok(()),
                granted => granted.map(drop),
            }
        };
        self.send(Effect::Repeatable, request).await
    }

    /// Ends a lease without keys. A failure is harmless, because the lease expires by itself.
    pub(crate) async fn revoke(&self, id: i64) {
        let request = |mut client: Client| async move { client.lease_revoke(id).await };
        let server = self.servers.current.load(Ordering::Relaxed);
        drop(self.attempt(server, &request).await);
    }

    /// The version of the server's program.
    pub(crate) async fn version(&self) -> Result<String, StorageError> {
        let request = |mut client: Client| async move { Ok(client.status().await?.version().to_owned()) };
        self.send(Effect::Repeatable, request).await
    }

    /// Sends a request to one server after the other until one replies.
    async fn send<T, F>(&self, effect: Effect, request: impl Fn(Client) -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut unreached = 0;
        // A request without time for its reply would be sent, and then be ambiguous.
        while Instant::now() < self.deadline {
            let server = self.servers.current.load(Ordering::Relaxed);
            let failure = match self.attempt(server, &request).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            self.leave(server);
            unreached = if matches!(failure, Failure::Unreached(_)) { unreached + 1 } else { 0 };
            let source = match failure {
                Failure::Rejected(error) => return Err(error),
                Failure::Lost(source) if effect == Effect::Once => return Err(StorageError::ambiguous(source)),
                Failure::Unreached(source) | Failure::NotDone(source) | Failure::Lost(source) => source,
            };
            if unreached == self.servers.servers.len() || Instant::now() + PAUSE >= self.deadline {
                return Err(StorageError::unavailable(source));
            }
            sleep(PAUSE).await;
        }
        Err(StorageError::unavailable("the call has taken too long"))
    }

    /// Sends a request to one server, with a share of the time, so that there is time for the others.
    async fn attempt<T, F>(&self, server: usize, request: &impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let count = self.servers.servers.len();
        let server = &self.servers.servers[server % count];
        let share = self.servers.timeout / u32::try_from(count).unwrap_or(u32::MAX);
        let end = self.deadline.min(Instant::now() + share);
        // This sends a request only if there is a user to log in.
        let connecting = server.client.get_or_try_init(|| Client::connect([&server.url], Some(server.options.clone())));
        let client = match timeout_at(end, connecting).await {
            Ok(client) => client.map_err(before_request)?.clone(),
            Err(_) => {
                return Err(Failure::Unreached(format!("{} did not reply to the login in time", server.url).into()));
            }
        };
        match timeout_at(end, request(client)).await {
            Ok(reply) => reply.map_err(Failure::of),
            Err(_) => Err(Failure::timed_out(&server.url)),
        }
    }

    /// Makes the next call use another server, unless a concurrent call has already done so.
    fn leave(&self, server: usize) {
        let next = server.wrapping_add(1);
        let _ = self.servers.current.compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The request follows the login, so it was not sent.
fn before_request(error: Error) -> Failure {
    match Failure::of(error) {
        Failure::Lost(source) => Failure::NotDone(source),
        other => other,
    }
}

/// Shows the addresses, and not the options, which contain a password.
impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|server| &server.url)).finish()
    }
}
