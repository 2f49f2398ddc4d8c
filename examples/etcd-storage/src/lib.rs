//! A token storage on [etcd], whose servers agree on every write and continue if one of them fails.
//!
//! It is the worked example for a storage on database servers. `docs/own-storage.md` explains each decision, and lists
//! the equivalents on DynamoDB and MongoDB. `tests/conformance.rs` tests it.
//!
//! | file | contents |
//! | --- | --- |
//! | `lib.rs` | the storage: one transaction for each write |
//! | `layout.rs` | the keys of etcd, in the order of lists |
//! | `value.rs` | the values |
//! | `stored.rs` | what a read has found, and its version |
//! | `servers.rs` | which server is used, and for how long |
//! | `failure.rs` | what an error means |
//!
//! [etcd]: https://etcd.io

mod failure;
mod layout;
mod servers;
mod stored;
mod value;

use std::time::Duration;

use async_trait::async_trait;
pub use etcd_client::ConnectOptions;
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use oauth_dance_core::{
    Capabilities, Clock, Cursor, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage,
    Version, Versioned, random_bytes,
};

use crate::failure::misconfigured;
use crate::layout::{Keys, Layout};
use crate::servers::{Requests, Servers};
use crate::stored::{Content, Stored, entry, version};
use crate::value::encode;

/// The prefix of all keys, unless [`EtcdStorage::with_prefix`] sets another one.
pub const DEFAULT_PREFIX: &str = "oauth-dance";

/// The largest payload. A request of etcd has at most 1.5 MiB by default, which includes the keys and the hints.
const MAX_PAYLOAD: usize = 1024 * 1024;
/// How many entries a list reads at once. With the longest keys they are smaller than the client's limit of 4 MiB.
const MAX_PAGE: usize = 1000;
/// How much longer a lease lasts than the retention, so that it never ends earlier on the clock of another machine.
const LEASE_MARGIN: u64 = 60;
/// The longest lease that etcd accepts: 285 years.
const MAX_LEASE: u64 = 9_000_000_000;

/// Stores tokens in etcd 3.4 or newer.
///
/// A clone is cheap and shares the connections, which belong to the runtime of the first call. For TLS, enable a feature such as
/// `tls-aws-lc` of `etcd-client`, and use [`ConnectOptions::with_tls`](https://docs.rs/etcd-client).
///
/// Retention is counted on the clock of the application's machines, because etcd has none that a client can read. They need
/// to agree to the second, as they do with NTP.
///
/// After a restore of a backup, restart the application, and let etcd continue after the last revision (`--bump-revision`):
/// otherwise versions could be used again.
///
/// # Cancel safety
/// Each write is one transaction, which a dropped call has sent or not. A lease that it has created remains until it
/// expires.
#[derive(Clone, Debug)]
pub struct EtcdStorage {
    servers: Servers,
    layout: Layout,
    clock: Clock,
}

impl EtcdStorage {
    /// Connects to a cluster, and verifies that it is usable: see [`check`](Self::check). Pass the addresses of all
    /// servers.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] or [`StorageError::Unavailable`].
    pub async fn connect(urls: &[impl AsRef<str>], options: ConnectOptions) -> Result<Self, StorageError> {
        let storage = Self::lazy(urls, options)?;
        storage.check().await?;
        Ok(storage)
    }

    /// The same, but connects with the first call. A call takes at most 6 seconds.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] if there is no address, or if one contains a password.
    pub fn lazy(urls: &[impl AsRef<str>], options: ConnectOptions) -> Result<Self, StorageError> {
        if urls.is_empty() || urls.iter().any(|url| url.as_ref().contains('@')) {
            let advice = "give addresses such as http://host:2379, and the user in the options";
            return Err(misconfigured(advice, "there is no address, or one contains a user"));
        }
        let servers = Servers::new(urls, options, Duration::from_secs(6));
        Ok(Self { servers, layout: Layout::new(DEFAULT_PREFIX).ok_or(invalid_prefix())?, clock: Clock::system() })
    }

    /// Sets the prefix of all keys, which must not be empty or contain a slash. Storages with different prefixes are separate.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] for any other prefix.
    pub fn with_prefix(self, prefix: &str) -> Result<Self, StorageError> {
        Ok(Self { layout: Layout::new(prefix).ok_or(invalid_prefix())?, ..self })
    }

    /// Sets how long a call may take. Each server gets an equal share of this time before the next one is tried.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { servers: self.servers.with_timeout(timeout), ..self }
    }

    /// Counts retention on another clock, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Verifies the version of etcd, the login, and the permission to read and write every key of this storage, without
    /// writing anything.
    ///
    /// # Errors
    /// [`StorageError::Misconfigured`] with what to change, or [`StorageError::Unavailable`].
    pub async fn check(&self) -> Result<(), StorageError> {
        let requests = self.servers.begin();
        let version = requests.version().await?;
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
        if (numbers.next(), numbers.next()) < (Some(3), Some(4)) {
            return Err(misconfigured("use etcd 3.4 or newer", format!("this is etcd {version}")));
        }
        let (_, all) = self.layout.range(&Filter::everything(), None);
        requests.get(&all.start, Some(GetOptions::new().with_range(all.end).with_limit(1))).await?;
        // etcd checks the permissions of a transaction whether its condition is met or not.
        let probe = self.layout.probe();
        let never = Compare::mod_revision(probe.clone(), CompareOp::Equal, -1);
        requests.commit(&Txn::new().when([never]).and_then([TxnOp::put(probe, "", None)])).await.map(drop)
    }

    /// What is stored under a key now.
    async fn stored(&self, requests: &Requests<'_>, keys: &Keys) -> Result<Stored, StorageError> {
        let mut reply = requests.get(&keys.record, None).await?;
        Ok(Stored::new(reply.take_kvs().pop().as_ref(), self.clock.now()))
    }

    /// Creates a lease that frees the space after the retention. Returns 0 if none is needed.
    async fn lease_for(&self, requests: &Requests<'_>, record: &Record) -> Result<i64, StorageError> {
        let seconds = record.retain_seconds().map(|seconds| seconds.saturating_add(LEASE_MARGIN));
        let Some(seconds) = seconds.filter(|seconds| *seconds <= MAX_LEASE) else { return Ok(0) };
        let id = i64::from_be_bytes(random_bytes()) & i64::MAX | 1;
        requests.grant(id, seconds as i64).await?;
        Ok(id)
    }

    /// The operations that write a record and its two entries.
    fn writes(&self, keys: &Keys, record: &Record, lease: i64) -> Result<Vec<TxnOp>, StorageError> {
        let seconds = record.retain_seconds().map(Duration::from_secs);
        let retain_until = seconds.map(|seconds| self.clock.now().saturating_add(seconds));
        let put = |key: &[u8], value: Vec<u8>| TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
        let entry = encode(record, retain_until, &[])?;
        let mut writes = vec![put(&keys.record, encode(record, retain_until, &record.payload)?)];
        writes.extend(keys.entries.iter().map(|key| put(key, entry.clone())));
        Ok(writes)
    }
}

#[async_trait]
impl TokenStorage for EtcdStorage {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let keys = self.layout.keys_of(key)?;
        match self.stored(&self.servers.begin(), &keys).await?.content {
            Content::Nothing => Ok(None),
            Content::Unreadable => Err(StorageError::corrupt(key, "the value has another format")),
            Content::Live(found) => Ok(Some(found)),
        }
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let (keys, requests) = (self.layout.keys_of(key)?, self.servers.begin());
        if record.payload.len() > MAX_PAYLOAD {
            return Err(StorageError::TooLarge { size: record.payload.len(), limit: MAX_PAYLOAD });
        }
        let mut lease = None;
        loop {
            let stored = self.stored(&requests, &keys).await?;
            if !when.holds_for(stored.condition()) {
                end(&requests, lease).await;
                return Err(StorageError::Conflict);
            }
            let lease = match lease {
                Some(lease) => lease,
                None => *lease.insert(self.lease_for(&requests, record).await?),
            };
            // If this is ambiguous, the lease must not be ended: the record may have it.
            let writes = self.writes(&keys, record, lease)?;
            if let Some(revision) = change(&requests, &keys, &stored, writes).await? {
                end(&requests, Some(stored.lease)).await;
                return Ok(version(revision));
            }
        }
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let (keys, requests) = (self.layout.keys_of(key)?, self.servers.begin());
        loop {
            let stored = self.stored(&requests, &keys).await?;
            let found = stored.condition();
            if found.is_none() || only.is_some_and(|only| found != Some(only)) {
                return Ok(false);
            }
            let names = [&keys.record, &keys.entries[0], &keys.entries[1]];
            let deletes = names.map(|key| TxnOp::delete(key.as_slice(), None));
            if change(&requests, &keys, &stored, deletes.to_vec()).await?.is_some() {
                end(&requests, Some(stored.lease)).await;
                return Ok(true);
            }
        }
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let after = page.after.as_ref().map(Cursor::key).transpose()?;
        let (order, range) = self.layout.range(filter, after.as_ref());
        let limit = page.limit.max(1);
        // More than the limit, because the filter and the retention may leave out some of them.
        let rows = limit.clamp(MAX_PAGE / 10, MAX_PAGE) as i64;
        let options = GetOptions::new().with_range(range.end).with_limit(rows);
        let reply = self.servers.begin().get(&range.start, Some(options)).await?;
        let now = self.clock.now();
        let (mut entries, mut last, mut rows) = (Vec::new(), None, reply.kvs().iter());
        while entries.len() < limit
            && let Some(row) = rows.next()
        {
            // Only this storage writes these keys.
            let Some(key) = self.layout.token_of(order, row.key()) else { continue };
            last = Some(Cursor::after(&key));
            entries.extend(entry(key, row, now).filter(|entry| filter.matches(entry)));
        }
        let is_last = rows.len() == 0 && !reply.more();
        Ok(Page { entries, next: last.filter(|_| !is_last) })
    }

    /// Returns 0: etcd removes records whose lease has ended.
    async fn purge(&self, _limit: usize) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("etcd")
            .with_durable(true)
            .with_shared(true)
            .with_atomic(true)
            .with_listable(true)
            .with_ordered(true)
            .with_max_payload(MAX_PAYLOAD)
    }
}

/// Changes a record and its entries if nothing has written the record since it was read. Returns the revision of the change.
///
/// Even an unconditional `put` has this condition: a request that is delayed in the network takes effect only if nothing else
/// has happened since, so it never undoes a later write.
async fn change(
    requests: &Requests<'_>,
    keys: &Keys,
    stored: &Stored,
    changes: Vec<TxnOp>,
) -> Result<Option<i64>, StorageError> {
    let unchanged = Compare::mod_revision(keys.record.as_slice(), CompareOp::Equal, stored.revision);
    let reply = requests.commit(&Txn::new().when([unchanged]).and_then(changes)).await?;
    let revision = reply.header().map(|header| header.revision());
    Ok(revision.filter(|_| reply.succeeded()))
}

/// Ends a lease that no record has. Without this it would remain until the end of a retention that no longer applies.
async fn end(requests: &Requests<'_>, lease: Option<i64>) {
    if let Some(lease) = lease.filter(|lease| *lease != 0) {
        requests.revoke(lease).await;
    }
}

fn invalid_prefix() -> StorageError {
    misconfigured("choose a prefix that is not empty and contains no slash", "the prefix is invalid")
}
