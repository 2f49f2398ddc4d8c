//! The servers of a Cluster.
//!
//! A Cluster divides all keys into 16384 slots, each of which belongs to one server at a time. The map from slots to
//! servers is refreshed if a slot is unknown or its server has failed, and corrected if a server reports that a slot has
//! moved.
//!
//! The cluster client of the redis crate is not used, because it resends a request whose connection broke. A write
//! could then be executed twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::select_ok;
use redis::{Cmd, ConnectionInfo, Value};
use tokio::time::{Instant, timeout_at};

use crate::address::{at, host_and_port};
use crate::error::{Cause, Failure, UNEXPECTED, rejected};
use crate::link::{Link, Options, Target};
use crate::setup::text;

/// The number of slots of every Cluster.
const SLOTS: usize = 16384;
/// The number of servers that are queried for the slot map at the same time.
const PARALLEL_QUERIES: usize = 4;

/// The links to the servers of a Cluster, and the known map from slots to servers.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The servers in the URL, whose links are never removed.
    seeds: Vec<Node>,
    /// The credentials and the TLS settings of every server.
    pattern: ConnectionInfo,
    options: Options,
    map: Mutex<Map>,
    /// Locked while the map is refreshed.
    refreshing: tokio::sync::Mutex<()>,
}

/// The map from slots to servers.
#[derive(Debug)]
struct Map {
    /// The number of refreshes so far.
    generation: u64,
    /// The links to all known servers.
    links: HashMap<Node, Arc<Link>>,
    /// The server of each slot.
    owners: Vec<Option<Arc<Link>>>,
    /// The servers that have failed since the last refresh. Others may have taken over their slots.
    failed: Vec<Arc<Link>>,
}

/// The host and port of a server.
type Node = (String, u16);

impl Cluster {
    /// A Cluster with an empty map, which the first request refreshes.
    pub(crate) fn new(first: ConnectionInfo, others: &[ConnectionInfo], options: Options) -> Self {
        let named = |server| {
            let (host, port) = host_and_port(server);
            (host.to_owned(), port)
        };
        let seeds: Vec<_> = std::iter::once(&first).chain(others).map(named).collect();
        let cluster = Self {
            seeds: seeds.clone(),
            pattern: first,
            options,
            map: Mutex::new(Map {
                generation: 0,
                links: HashMap::new(),
                owners: vec![None; SLOTS],
                failed: Vec::new(),
            }),
            refreshing: tokio::sync::Mutex::default(),
        };
        seeds.into_iter().for_each(|node| drop(cluster.node(node)));
        cluster
    }

    /// The server of a slot, and the generation of the map.
    pub(crate) async fn route(&self, slot: u16, deadline: Instant) -> Result<(Arc<Link>, u64), Failure> {
        let (known, has_failed, generation) = self.known(slot);
        if let Some(link) = known
            && !has_failed
        {
            return Ok((link, generation));
        }
        self.refresh(generation, deadline).await?;
        match self.known(slot) {
            (Some(link), _, generation) => Ok((link, generation)),
            (None, ..) => Err(Failure::Unchanged(Cause::Other("no server of the Cluster serves this slot"))),
        }
    }

    /// Records that a slot has moved to another server.
    pub(crate) fn moved(&self, slot: u16, node: Node) {
        let link = self.node(node);
        if let Some(owner) = self.map().owners.get_mut(usize::from(slot)) {
            *owner = Some(link);
        }
    }

    /// Records that a server has failed, if it still serves this slot. The next request to any of its slots refreshes
    /// the map first.
    pub(crate) fn failed(&self, slot: u16, link: &Arc<Link>) {
        let mut map = self.map();
        let is = |other: &Arc<Link>| Arc::ptr_eq(link, other);
        let is_owner = map.owners.get(usize::from(slot)).is_some_and(|owner| owner.as_ref().is_some_and(is));
        if is_owner && !map.failed.iter().any(is) {
            map.failed.push(Arc::clone(link));
        }
    }

    /// The link to a server, which connects when it is first used.
    pub(crate) fn node(&self, node: Node) -> Arc<Link> {
        let mut map = self.map();
        let server = at(&self.pattern, node.0.clone(), node.1);
        Arc::clone(map.links.entry(node).or_insert_with(|| Arc::new(Link::new(Target::Node(server), self.options))))
    }

    /// Refreshes the map, unless another request has refreshed it since `generation`.
    ///
    /// When a server fails, many requests notice it at the same time. Only the first one queries the servers.
    pub(crate) async fn refresh(&self, generation: u64, deadline: Instant) -> Result<(), Failure> {
        // The caller of another refresh may no longer be polled. The refresh then runs beside that one.
        let patience = deadline.min(Instant::now() + self.options.timeout / 4);
        let _one_at_a_time = timeout_at(patience, self.refreshing.lock()).await;
        let servers: Vec<_> = {
            let map = self.map();
            if map.generation != generation {
                return Ok(());
            }
            map.links.values().cloned().collect()
        };
        let ranges = query_any(&servers, deadline).await?;

        let owned = ranges.into_iter().map(|(first, last, node)| (first, last, self.node(node.clone()), node));
        let owned: Vec<_> = owned.collect();
        let mut map = self.map();
        map.generation += 1;
        map.failed.clear();
        map.links.retain(|node, _| self.seeds.contains(node) || owned.iter().any(|range| range.3 == *node));
        map.owners.fill(None);
        for (first, last, link, _) in owned {
            if let Some(owners) = map.owners.get_mut(usize::from(first)..=usize::from(last)) {
                owners.fill(Some(link));
            }
        }
        Ok(())
    }

    /// The links to all servers that serve a slot.
    pub(crate) fn owners(&self) -> Vec<Arc<Link>> {
        let mut owners: Vec<_> = self.map().owners.iter().flatten().cloned().collect();
        owners.sort_unstable_by_key(Arc::as_ptr);
        owners.dedup_by(|one, other| Arc::ptr_eq(one, other));
        owners
    }

    /// The server of a slot according to the current map, whether it has failed, and the generation of the map.
    fn known(&self, slot: u16) -> (Option<Arc<Link>>, bool, u64) {
        let map = self.map();
        let owner = map.owners.get(usize::from(slot)).cloned().flatten();
        let has_failed = owner.as_ref().is_some_and(|owner| map.failed.iter().any(|failed| Arc::ptr_eq(failed, owner)));
        (owner, has_failed, map.generation)
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        // No code with this lock can panic in the middle of a change, so a poisoned lock is safe to use.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server in the message of a MOVED or ASK error, such as `3999 127.0.0.1:6381`. A message without a host means the
/// host of the server that responded.
pub(crate) fn redirection(message: &str, responder: &Link) -> Option<Node> {
    let (_, address) = message.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { responder.host() } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

/// The first and the last slot of a range, and its server.
type Range = (u16, u16, Node);

/// Queries a few servers at a time, until one has responded. Every server of a Cluster knows the whole map.
async fn query_any(servers: &[Arc<Link>], deadline: Instant) -> Result<Vec<Range>, Failure> {
    let mut failure = Failure::Unchanged(Cause::Other("no server of the Cluster is known"));
    for some in servers.chunks(PARALLEL_QUERIES) {
        match select_ok(some.iter().map(|link| Box::pin(query_slots(link, deadline)))).await {
            Ok((ranges, _)) => return Ok(ranges),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Queries a server for the slot map.
async fn query_slots(link: &Link, deadline: Instant) -> Result<Vec<Range>, Failure> {
    let mut command: Cmd = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let replies = link.send(&[command], deadline).await.map_err(|failure| match failure {
        Failure::NoReply(cause) => Failure::Unchanged(cause),
        other => other,
    })?;
    match replies.as_slice() {
        [Value::ServerError(error)] => Err(match rejected(error) {
            Failure::Misconfigured(_, cause) => Failure::Misconfigured(NO_CLUSTER, cause),
            other => other,
        }),
        [Value::Array(ranges)] => ranges
            .iter()
            .map(|range| read_range(range, link))
            .collect::<Option<_>>()
            .ok_or(Failure::Unchanged(UNEXPECTED)),
        _ => Err(Failure::Unchanged(UNEXPECTED)),
    }
}

/// The advice if the server is not part of a Cluster.
const NO_CLUSTER: &str = "the server does not report the slots of a Cluster; write `redis://` for a single server, or permit `CLUSTER SLOTS`";

/// Reads first slot, last slot, primary and replicas.
fn read_range(range: &Value, link: &Link) -> Option<Range> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = parts.as_slice() else { return None };
    let [host, Value::Int(port), ..] = primary.as_slice() else { return None };
    // The server does not always know its own host. The host of the request is used then.
    let host = text(host).filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| link.host().to_owned());
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, (host, u16::try_from(*port).ok()?)))
}

impl Link {
    /// The host of the server.
    fn host(&self) -> &str {
        match self.target() {
            Target::Node(server) | Target::Primary(server) => host_and_port(server).0,
            Target::Sentinels(_) => "",
        }
    }
}
