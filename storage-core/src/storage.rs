//! The [`TokenStorage`] contract, and a complete storage that keeps it.
//!
//! # Writing a storage of your own
//!
//! Everything a storage must do is on the page of [`TokenStorage`]. This one keeps records in a map; a real one
//! does the same with its database's own compare-and-swap. [`Version::random`] on each write keeps the
//! promise about versions, [`Cursor::after`] the one about pages. The conformance suite is run on it.
//!
#![doc = "```"]
#![doc = include_str!("storage_example.rs")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = MyStorage::default();
//! let key = TokenKey::new("github", "alice")?;
//! let first = storage.put(&key, &Record::new("old"), Precondition::Absent).await?;
//! let second = storage.put(&key, &Record::new("new"), Precondition::Version(first)).await?;
//! let stale = storage.put(&key, &Record::new("late"), Precondition::Version(first)).await;
//! assert!(matches!(stale, Err(StorageError::Conflict)));
//! assert_eq!(storage.get(&key).await?, Some(Versioned::new(Record::new("new"), second)));
//! assert_eq!(storage.list(&Filter::everything(), PageRequest::default()).await?.entries.len(), 1);
//! assert!(storage.delete(&key, None).await?);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version, Versioned};
use crate::time::Timestamp;

/// Keeps opaque bytes under a [`TokenKey`], with compare-and-swap. Encoding, sealing, expiry policy and refresh
/// are built above it, once for every storage.
///
/// # Contract
///
/// An implementation promises to all callers, in every process that uses the same data:
///
/// ## Keys
/// * Keys are compared **byte for byte**, in every call and in every filter: no trimming, case folding, normalization,
///   decoding or collation, and no value that stands for an absent tenant or account. Two different keys never share a
///   record, a limit or a fault: what is too large or corrupt is so for one key alone.
/// * A key that is too long is [`StorageError::KeyTooLong`] in `put`, never cut. `get` and `delete` of such a key return
///   that error as well, or `Ok(None)` and `Ok(false)`. A key of 96 bytes in all is always accepted if no part has
///   more than 64.
///
/// ## Records
/// * **A write replaces the whole record** at once: payload, hints and retention. Nothing of the old one survives, also
///   not of one that is past its retention, and no reader ever sees a mixture or a gap.
/// * A payload is any bytes, the empty one included, up to [`Capabilities::max_payload`], which is at least 1 KiB.
/// * A [`key_id`](Record::key_id) is any text of at most 64 bytes; a storage may accept more, and returns
///   [`StorageError::TooLarge`] for what it does not accept. It may report an empty `key_id` as `None`.
/// * **A missing record is `Ok(None)`**. A record whose access token has expired is *not* missing.
/// * Nothing is dropped to make room.
///
/// ## Versions
/// * Every write has a new version, also one of the same bytes. A version is never used again for its key: not after a
///   delete, the end of a retention, a purge or a restart. All 16 bytes count, in `put` and in `delete`.
///
/// ## Retention
/// * It starts with **each** write, on the storage's own clock, and lasts
///   [`retain_seconds`](Record::retain_seconds): whole seconds, rounded up. Reading, listing and refused calls do not
///   prolong it. It does not depend on the process or handle that wrote.
/// * A storage whose clock counts whole seconds counts from the second that has begun, so that a retention ends up to one
///   second early. None ends earlier, and none late. A retention of less than a second is one second long: it ends when
///   the clock's next second begins at the earliest, and is never over at once.
/// * **A retention of zero is over at once**: the write happens, replaces what was there and returns a version, and the
///   key is absent.
/// * A record past its retention counts as absent in every call, purged or not.
/// * A retention that ends after the year 9999 may be kept indefinitely; any shorter one is exact.
///
/// ## Corrupt records
/// * `get` of a record that cannot be read is [`StorageError::Corrupt`], and the record stays.
/// * `put` with [`Precondition::Always`] replaces it and `delete` without a version removes it: `Ok(true)`.
/// * [`Precondition::Absent`] does not hold for it. A version holds only if the stored version can still be read and is
///   that one. Otherwise `put` returns `Conflict` or `Corrupt` and `delete` `Ok(false)` or `Corrupt`, and nothing changes.
/// * `list` lists it with its key, so that it can be removed with its user. Hints that cannot be read are absent; a
///   version that cannot be read is replaced by a new one, which matches nothing. It never hides another record.
///
/// ## Failures
/// * **An outage is an error**, never `Ok(None)`, `Ok(false)`, `Ok(0)` or an empty page, and never an answer from memory.
/// * An error other than [`StorageError::Ambiguous`] says that nothing has changed, and nothing changes later.
///   `get` and `list` return [`StorageError::Unavailable`] if their answer is cut off. `Ambiguous` is accepted there, and
///   means the same: a read changes nothing.
/// * A storage that **repeats a call** by itself, because an answer was lost, returns what the call did: never `Conflict`,
///   `Ok(false)` or `Ok(0)` because its first attempt had succeeded. If it cannot know, the call is `Ambiguous`.
/// * Once a call has returned, the storage sends nothing more for it. What a read shows after an `Ambiguous` call is not
///   undone.
/// * A medium that is read-only or full refuses `put` and `delete` with [`StorageError::Unavailable`] or
///   [`StorageError::Misconfigured`]. A full one may still delete.
/// * **Bounded time**: no call waits indefinitely for a server that does not answer.
///
/// ## Concurrency
/// * **Read your writes**: once `put` or `delete` returned, every later call through any handle sees it.
/// * **Cancel safety**: dropping a future at any point leaves the old or the new record, whole; holds no lock,
///   connection or transaction; and leaves the storage usable. A call that was dropped takes effect as fast as if it had
///   not been dropped, or never.
///
/// ## Secrecy
/// * **Nothing of the payload** appears in `Debug`, errors, logs or metrics, in any notation.
/// * What is deleted, replaced or purged is not returned by any call. Whether its bytes leave the medium is not
///   promised: files, logs and backups may hold them. Seal payloads with a [`KeyRing`](crate::KeyRing).
///
/// What a storage cannot do it says in [`capabilities`](Self::capabilities), and answers with
/// [`StorageError::Unsupported`].
///
/// Put the implementation behind an `Arc` to share it: `Arc<dyn TokenStorage>` is a storage too.
#[async_trait]
pub trait TokenStorage: Send + Sync + 'static {
    /// Reads the record of a key with its version, or `None` if there is none. The record's
    /// [`retain_for`](Record::retain_for) is the time it has left.
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError>;

    /// Writes a record if the precondition holds, and returns its new version. A record past its retention counts as
    /// absent. [`Precondition::Always`] never conflicts.
    ///
    /// Where [`Capabilities::atomic`] is not declared, preconditions still hold for writes that come one after another.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if the precondition does not hold; then nothing has changed.
    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError>;

    /// Removes the record of a key, with `only` set only if it still has that version. `true` says that this call
    /// removed it; `false` that nothing (more) to remove was there.
    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError>;

    /// Lists what is stored, without payloads, page by page in an order of the storage's own.
    ///
    /// Across all pages every record that matches and was there throughout is listed exactly once, whatever is
    /// written meanwhile, the record itself and that of the cursor included. Each page shows what is stored when it is
    /// asked for. A cursor is good for any filter and limit,
    /// through any handle on the same data.
    ///
    /// # Errors
    /// [`StorageError::InvalidCursor`] for bytes that this kind of storage cannot have made, empty ones included.
    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError>;

    /// Removes at most `limit` records past their retention, and returns how many. 0 removes nothing; any limit up to
    /// `usize::MAX` is accepted. Such records are hidden already; a storage that removes them by itself returns 0.
    /// Fewer than `limit` are removed only if no more are past their retention.
    async fn purge(&self, limit: usize) -> Result<u64, StorageError>;

    /// What this storage, as it is set up, can and cannot do.
    fn capabilities(&self) -> Capabilities;
}

/// What must be so for a `put` to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Write whatever is there.
    Always,
    /// Write only if nothing is there.
    Absent,
    /// Write only over this version.
    Version(Version),
}

impl Precondition {
    /// Whether it holds where `current` is the version stored now.
    pub fn holds_for(self, current: Option<Version>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => current.is_none(),
            Self::Version(version) => current == Some(version),
        }
    }
}

/// Which records to list. Every condition set must hold.
///
/// ```
/// use oauth_dance_core::Filter;
///
/// let mine = Filter::everything().tenant(None).user("alice");
/// # assert_ne!(mine, Filter::everything());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Only this tenant, where the empty string means "without a tenant"; `None` means all tenants.
    pub tenant: Option<String>,
    /// Only this user. Without [`tenant`](Self::tenant) it is the user of that name in *every* tenant.
    pub user: Option<String>,
    /// Only this provider.
    pub provider: Option<String>,
    /// Only records whose access token expires strictly before this. Those that never expire are left out.
    pub expiring_before: Option<Timestamp>,
}

impl Filter {
    /// No condition.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Only this tenant, or with `None` only records without a tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: Option<&str>) -> Self {
        self.tenant = Some(tenant.unwrap_or_default().to_owned());
        self
    }

    /// Only this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Only this provider.
    #[must_use]
    pub fn provider(mut self, provider: impl Into<String>) -> Self {
        self.provider = Some(provider.into());
        self
    }

    /// Only records whose access token expires strictly before this.
    #[must_use]
    pub fn expiring_before(mut self, instant: Timestamp) -> Self {
        self.expiring_before = Some(instant);
        self
    }

    /// Whether an entry meets every condition.
    pub fn matches(&self, entry: &Entry) -> bool {
        let [tenant, user, provider, _] = entry.key.parts();
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.tenant, tenant)
            && is(&self.user, user)
            && is(&self.provider, provider)
            && self.expiring_before.is_none_or(|before| entry.expires_at.is_some_and(|expiry| expiry < before))
    }
}

/// Which page of a list: where to go on, and how many entries at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// [`Page::next`] of the page before, or `None` for the first.
    pub after: Option<Cursor>,
    /// The most entries to return; 0 counts as 1. A storage may return fewer.
    pub limit: usize,
}

/// The first page, of 100 entries.
impl Default for PageRequest {
    fn default() -> Self {
        Self { after: None, limit: 100 }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What was found. May be empty although more pages follow.
    pub entries: Vec<Entry>,
    /// Where the next page starts; `None` says that this was the last.
    pub next: Option<Cursor>,
}

impl Page {
    /// Cuts a page out of entries that come in the order of their keys.
    pub fn collect(entries: impl IntoIterator<Item = Entry>, limit: usize) -> Self {
        let limit = limit.max(1);
        let mut entries: Vec<_> = entries.into_iter().take(limit.saturating_add(1)).collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map(|last| Cursor::after(&last.key));
        Self { entries, next }
    }
}

/// One record in a list: its key, version and hints, without the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Where it is stored.
    pub key: TokenKey,
    /// Which write it came from.
    pub version: Version,
    /// When the access token inside expires.
    pub expires_at: Option<Timestamp>,
    /// Which key of the key ring sealed it.
    pub key_id: Option<String>,
}

impl Entry {
    /// The entry of a record.
    pub fn new(key: TokenKey, version: Version, record: &Record) -> Self {
        Self { key, version, expires_at: record.expires_at, key_id: record.key_id.clone() }
    }
}

/// Where a list goes on. Opaque to callers: hand it back as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// The cursor of a storage that lists in the order of the keys: go on after this one.
    pub fn after(key: &TokenKey) -> Self {
        Self(key.to_bytes())
    }

    /// The key of [`Cursor::after`].
    ///
    /// # Errors
    /// [`StorageError::InvalidCursor`] if it was not made by that function.
    pub fn key(&self) -> Result<TokenKey, StorageError> {
        TokenKey::from_bytes(&self.0).map_err(|_| StorageError::InvalidCursor)
    }

    /// A cursor of the storage's own making.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes it was made of.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a storage declares of itself. Everything not declared is `false` or unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The storage's name, for logs and tables.
    pub name: &'static str,
    /// A write that was acknowledged survives a crash of the application and of the storage's server.
    pub durable: bool,
    /// Several processes can use the same data at once.
    pub shared: bool,
    /// Preconditions hold against every concurrent writer.
    pub atomic: bool,
    /// `list` works.
    pub listable: bool,
    /// A write is taken only until the response of the request that brought the storage has left: nothing may be left to
    /// be written in the background.
    pub request_bound: bool,
    /// The most bytes a payload may have, 1 KiB at least; `None` says that a mebibyte at least is accepted.
    pub max_payload: Option<usize>,
}

impl Capabilities {
    /// A storage that declares nothing yet.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            durable: false,
            shared: false,
            atomic: false,
            listable: false,
            request_bound: false,
            max_payload: None,
        }
    }

    /// Declares durability.
    #[must_use]
    pub const fn with_durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Declares that processes can share the data.
    #[must_use]
    pub const fn with_shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Declares atomic preconditions.
    #[must_use]
    pub const fn with_atomic(mut self, atomic: bool) -> Self {
        self.atomic = atomic;
        self
    }

    /// Declares that `list` works.
    #[must_use]
    pub const fn with_listable(mut self, listable: bool) -> Self {
        self.listable = listable;
        self
    }

    /// Declares that writes are taken only until the response has left.
    #[must_use]
    pub const fn with_request_bound(mut self, request_bound: bool) -> Self {
        self.request_bound = request_bound;
        self
    }

    /// Declares the largest payload, in bytes.
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = Some(bytes);
        self
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: TokenStorage + ?Sized> TokenStorage for Arc<S> {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        (**self).get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        (**self).put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        (**self).delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        (**self).list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        (**self).purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
}
