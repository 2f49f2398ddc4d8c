//! Sends a request to the right server, and repeats it if that is safe.
//!
//! A read may be repeated. A write may be repeated only if the server has rejected it or it was not sent, because it
//! would otherwise be executed twice. In a Cluster, a server may redirect a request to another one.
//!
//! | what happened | read | write |
//! | --- | --- | --- |
//! | no connection could be opened | an error; in a Cluster, repeated once with a new slot map | the same |
//! | the same, or no reply, until the timeout | an error; in a Cluster, the next request has a new slot map | the same |
//! | no reply arrived | repeated once | an error, which is ambiguous |
//! | `MOVED`, `ASK` | sent to the other server | the same |
//! | `TRYAGAIN`, `CLUSTERDOWN`, `MASTERDOWN` | repeated with growing pauses | the same |
//! | `READONLY` | repeated at the new primary; without Sentinels and Cluster an error | the same |
//! | `NOSCRIPT` | does not occur | sent again with the text of the script |
//! | any other error | an error | an error |
//!
//! A request is repeated during the first half of the timeout only, so that the last try has the second half.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{Cmd, ServerError, Value};
use tokio::time::{Instant, sleep};

use crate::address::Address;
use crate::cluster::{Cluster, redirection};
use crate::connection::read_only;
use crate::error::{Cause, Failure, Reaction, reaction_to, rejected};
use crate::layout::Bucket;
use crate::link::{Link, Options, Target};
use crate::script::Call;

/// The number of redirections that a request follows.
const MAX_REDIRECTIONS: u32 = 8;
/// The pause before the first retry. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// The servers with the data.
#[derive(Debug)]
pub(crate) struct Servers {
    kind: Kind,
    options: Options,
}

/// One server, or several that divide the slots.
#[derive(Debug)]
enum Kind {
    One(Arc<Link>),
    Cluster(Box<Cluster>),
}

/// A request to the server of a slot. Only the first command names keys.
#[derive(Clone, Copy)]
pub(crate) enum Request<'a> {
    /// Commands that change nothing.
    Read(&'a [Cmd]),
    /// A script that may change something.
    Write(&'a Call<'a>),
}

/// The retries and redirections of one request so far.
struct Retries {
    deadline: Instant,
    /// When the request is no longer retried.
    retry_until: Instant,
    pause: Duration,
    redirections: u32,
    /// Whether the request was sent again after its connection broke.
    resent: bool,
    /// Whether the slot map was refreshed for this request.
    refreshed: bool,
}

impl Servers {
    /// The servers of an address. No connection is opened yet.
    pub(crate) fn new(address: Address, options: Options) -> Self {
        let kind = match address {
            Address::One(target) => Kind::One(Arc::new(Link::new(target, options))),
            Address::Cluster(first, others) => Kind::Cluster(Box::new(Cluster::new(first, &others, options))),
        };
        Self { kind, options }
    }

    pub(crate) fn options(&self) -> Options {
        self.options
    }

    /// Connects to every server with data.
    pub(crate) async fn open(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.options.timeout;
        let links = match &self.kind {
            Kind::One(link) => vec![Arc::clone(link)],
            Kind::Cluster(cluster) => {
                cluster.route(0, deadline).await?;
                cluster.owners()
            }
        };
        try_join_all(links.iter().map(|link| link.open(deadline))).await.map(drop)
    }

    /// Whether the servers form a Cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster(_))
    }

    /// Returns each server with data, together with the first of these buckets on it and the deadline for requests.
    pub(crate) async fn each(
        &self,
        buckets: impl Iterator<Item = (Bucket, u16)>,
    ) -> Result<Vec<(Arc<Link>, Bucket, Instant)>, Failure> {
        let deadline = Instant::now() + self.options.timeout;
        let mut found: Vec<(Arc<Link>, Bucket, Instant)> = Vec::new();
        for (bucket, slot) in buckets {
            let link = match &self.kind {
                Kind::One(link) => Arc::clone(link),
                Kind::Cluster(cluster) => cluster.route(slot, deadline).await?.0,
            };
            if !found.iter().any(|(known, ..)| Arc::ptr_eq(known, &link)) {
                found.push((link, bucket, deadline));
            }
        }
        Ok(found)
    }

    /// Whether acknowledged writes are durable, according to the settings of the servers.
    ///
    /// If a replica can take over automatically, they are not, because a write is replicated after it was acknowledged.
    pub(crate) fn are_durable(&self) -> bool {
        match &self.kind {
            Kind::One(link) => {
                let writes_through = link.setup().is_some_and(|setup| setup.writes_through);
                writes_through && !matches!(link.target(), Target::Sentinels(_))
            }
            Kind::Cluster(cluster) => {
                let owners = cluster.owners();
                let is_durable =
                    |link: &Arc<Link>| link.setup().is_some_and(|setup| setup.writes_through && setup.replicas == 0);
                !owners.is_empty() && owners.iter().all(is_durable)
            }
        }
    }

    /// Sends a request to the server of a slot, and returns its replies. Follows the slot if it has moved.
    ///
    /// If a request certainly had no effect and a retry may succeed, it is retried for half of the timeout.
    pub(crate) async fn request(&self, slot: u16, request: Request<'_>) -> Result<Vec<Value>, Failure> {
        let mut retries = Retries::new(self.options.timeout);
        let mut commands = request.commands();
        let mut redirected = None;
        loop {
            let asking = redirected.take();
            let routed;
            let (link, generation) = match (&asking, &self.kind) {
                (Some(link), _) | (None, Kind::One(link)) => (link, None),
                (None, Kind::Cluster(cluster)) => {
                    routed = cluster.route(slot, retries.deadline).await?;
                    (&routed.0, Some(routed.1))
                }
            };
            if matches!(request, Request::Write(_)) {
                // If this fails, the request itself fails in the same way.
                let _ = link.test(retries.deadline).await;
            }
            let replies = match send(link, &commands, asking.is_some(), retries.deadline).await {
                Ok(replies) => replies,
                Err(failure) => {
                    if let Err(failure) = retries.may_repeat(failure, request, &self.kind) {
                        return Err(self.failed(slot, link, failure));
                    }
                    self.refresh_map(generation, &retries).await?;
                    continue;
                }
            };
            let Some(error) = replies.iter().find_map(server_error) else { return Ok(replies) };
            match reaction_to(error.code(), error.details().unwrap_or_default()) {
                Reaction::NoScript => commands = request.commands_with_text(error)?,
                Reaction::Moved | Reaction::Ask => redirected = self.follow(slot, error, link, &mut retries)?,
                Reaction::RetrySoon => retries.wait(rejected(error)).await?,
                Reaction::NotPrimary => {
                    link.reopen();
                    retries.wait(self.not_primary(error)).await?;
                    self.refresh_map(generation, &retries).await?;
                }
                Reaction::WrongType | Reaction::Unavailable | Reaction::Misconfigured(_) => {
                    return Err(rejected(error));
                }
            }
        }
    }

    /// Follows a redirection. Returns the link for this request only, or records the new server of the slot.
    ///
    /// # Errors
    /// The error of the server, if it names no valid address, if it was not expected because there is no Cluster, or
    /// after [`MAX_REDIRECTIONS`].
    fn follow(
        &self,
        slot: u16,
        error: &ServerError,
        link: &Link,
        retries: &mut Retries,
    ) -> Result<Option<Arc<Link>>, Failure> {
        let Kind::Cluster(cluster) = &self.kind else { return Err(rejected(error)) };
        retries.redirections += 1;
        let node =
            redirection(error.details().unwrap_or_default(), link).filter(|_| retries.redirections <= MAX_REDIRECTIONS);
        let Some(node) = node else { return Err(Failure::Unchanged(Cause::error_reply(error))) };
        if error.code() == "ASK" {
            return Ok(Some(cluster.node(node)));
        }
        cluster.moved(slot, node);
        Ok(None)
    }

    /// Records that a server did not respond, so that the next request to its slots looks for another one.
    fn failed(&self, slot: u16, link: &Arc<Link>, failure: Failure) -> Failure {
        if let (Kind::Cluster(cluster), Failure::Unchanged(_) | Failure::NoReply(_)) = (&self.kind, &failure) {
            cluster.failed(slot, link);
        }
        failure
    }

    /// Refreshes the slot map of a Cluster.
    async fn refresh_map(&self, generation: Option<u64>, retries: &Retries) -> Result<(), Failure> {
        match (&self.kind, generation) {
            (Kind::Cluster(cluster), Some(generation)) => cluster.refresh(generation, retries.deadline).await,
            _ => Ok(()),
        }
    }

    /// The failure of a server that is not the primary.
    fn not_primary(&self, error: &ServerError) -> Failure {
        match &self.kind {
            Kind::One(link) if matches!(link.target(), Target::Primary(_)) && error.code() == "READONLY" => {
                read_only(Cause::error_reply(error))
            }
            _ => Failure::Unchanged(Cause::error_reply(error)),
        }
    }
}

impl<'a> Request<'a> {
    /// The commands to send first.
    fn commands(&self) -> Cow<'a, [Cmd]> {
        match self {
            Self::Read(commands) => Cow::Borrowed(commands),
            Self::Write(call) => Cow::Owned(vec![call.by_hash()]),
        }
    }

    /// The commands for a server that does not know the script.
    fn commands_with_text(&self, error: &ServerError) -> Result<Cow<'a, [Cmd]>, Failure> {
        match self {
            Self::Read(_) => Err(rejected(error)),
            Self::Write(call) => Ok(Cow::Owned(vec![call.by_text()])),
        }
    }
}

impl Retries {
    fn new(timeout: Duration) -> Self {
        let start = Instant::now();
        Self {
            deadline: start + timeout,
            retry_until: start + timeout / 2,
            pause: FIRST_PAUSE,
            redirections: 0,
            resent: false,
            refreshed: false,
        }
    }

    /// Pauses before a retry. Returns the failure if a retry does not help or would take too long.
    async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        if matches!(failure, Failure::Misconfigured(..)) || Instant::now() + self.pause > self.retry_until {
            return Err(failure);
        }
        sleep(self.pause).await;
        self.pause = MAX_PAUSE.min(self.pause * 2);
        Ok(())
    }

    /// Permits a retry of a request that received no reply. Returns the failure if a retry is not permitted.
    fn may_repeat(&mut self, failure: Failure, request: Request<'_>, kind: &Kind) -> Result<(), Failure> {
        let first_time = match (&failure, request) {
            // The connection broke. A read can be repeated. A write may have taken effect.
            (Failure::NoReply(_), Request::Read(_)) => !std::mem::replace(&mut self.resent, true),
            // No connection could be opened. In a Cluster, another server may have taken over.
            (Failure::Unchanged(_), _) => {
                matches!(kind, Kind::Cluster(_)) && !std::mem::replace(&mut self.refreshed, true)
            }
            _ => false,
        };
        if first_time && Instant::now() < self.retry_until { Ok(()) } else { Err(failure) }
    }
}

/// Sends commands. For a server that is about to take over a slot, ASKING precedes each command.
async fn send(link: &Link, commands: &[Cmd], asking: bool, deadline: Instant) -> Result<Vec<Value>, Failure> {
    if !asking {
        return link.send(commands, deadline).await;
    }
    let with_asking: Vec<_> = commands.iter().flat_map(|command| [redis::cmd("ASKING"), command.clone()]).collect();
    let replies = link.send(&with_asking, deadline).await?;
    Ok(replies.into_iter().skip(1).step_by(2).collect())
}

/// The error in a reply, if it is one.
fn server_error(reply: &Value) -> Option<&ServerError> {
    if let Value::ServerError(error) = reply { Some(error) } else { None }
}
