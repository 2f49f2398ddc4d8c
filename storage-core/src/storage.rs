//! The [`TokenStorage`] contract, and a complete storage that fulfils it.
//!
//! # How to write a storage
//!
//! The documentation of [`TokenStorage`] lists everything that a storage must do. The example below stores records in a
//! map. A storage on a database does the same with the database's own compare-and-swap:
//!
//! 1. Store the four parts of a key in columns, or [`TokenKey::to_bytes`] as a key. Compare bytes, without a collation.
//! 2. Write [`Version::random`] with each record. A conditional write is one statement, such as `UPDATE … WHERE version
//!    = ?`, whose number of changed rows shows whether the condition was true.
//! 3. Add [`Record::retain_seconds`] to the database's clock, and filter by that clock when reading.
//! 4. Use [`Cursor::after`] if the database can list in the order of the keys.
//! 5. Classify each error of the database as one of [`StorageError`]. A lost response to a write is `Ambiguous`.
//! 6. Run [`oauth-dance-conformance`](https://docs.rs/oauth-dance-conformance) on it.
//!
//! The conformance suite also runs on this example.
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

mod listing;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::listing::{Cursor, Entry, Filter, Page, PageRequest};
use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version, Versioned};

/// Stores opaque bytes under a [`TokenKey`], with compare-and-swap. Encoding, sealing and refresh are built on top of
/// it, once for all storages.
///
/// # Contract
///
/// An implementation makes the following promises to all callers, in every process that uses the same data.
///
/// ## Keys
/// * Keys are compared **byte by byte**, in every call and in every filter: no trimming, case folding, normalization,
///   decoding or collation, and no value that represents an absent tenant or account. Two different keys never share a
///   record, a limit or a fault: a record that is too large or corrupt affects its own key only.
/// * `put` returns [`StorageError::KeyTooLong`] for a key that is too long, and never truncates it. `get` and `delete`
///   of such a key return the same error, or `Ok(None)` and `Ok(false)`. A key of at most 96 bytes in total is always
///   accepted if no part has more than 64 bytes.
///
/// ## Records
/// * **A write replaces the whole record** atomically: payload, hints and retention. Nothing of the old record
///   survives, even if that record is past its retention. No reader ever sees a mixture of both or a gap between them.
/// * A payload is any sequence of bytes, including none, up to [`Capabilities::max_payload`], which is at least 1 KiB.
/// * A [`key_id`](Record::key_id) is any text of at most 64 bytes. A storage may accept longer ones, and returns
///   [`StorageError::TooLarge`] for those it does not accept. It may report an empty `key_id` as `None`.
/// * **A missing record is `Ok(None)`**. A record whose access token has expired is *not* missing.
/// * A storage never drops a record to make room for another.
///
/// ## Versions
/// * Every write creates a new version, even a write of the same bytes. A version is never reused for its key: not
///   after a delete, the end of a retention, a purge or a restart. `put` and `delete` compare all 16 bytes.
///
/// ## Retention
/// * The retention starts with **each** write, on the storage's own clock, and lasts
///   [`retain_seconds`](Record::retain_seconds): whole seconds, rounded up. Reads, lists and rejected calls do not
///   prolong it. It does not depend on the process or handle that wrote the record.
/// * A storage whose clock counts whole seconds counts from the beginning of the current second, so that a retention
///   ends up to one second early. No storage ends it earlier, and none ends it late. A retention of less than a second
///   counts as one second. It ends at the beginning of the clock's next second at the earliest, and never immediately.
/// * **A retention of zero ends immediately**: the write replaces the old record and returns a version, and the key is
///   absent afterwards.
/// * A record past its retention counts as absent in every call, whether it was purged or not.
/// * A retention that ends after the year 9999 may last indefinitely. Any shorter one is exact.
///
/// ## Corrupt records
/// * `get` of a record that cannot be read returns [`StorageError::Corrupt`], and the record remains.
/// * `put` with [`Precondition::Always`] replaces a corrupt record. `delete` without a version removes it and returns
///   `Ok(true)`.
/// * [`Precondition::Absent`] is not met by a corrupt record. A version is met only if the stored version is readable
///   and equal. Otherwise `put` returns `Conflict` or `Corrupt`, `delete` returns `Ok(false)` or `Corrupt`, and nothing
///   changes.
/// * `list` lists a corrupt record with its key, so that it can be removed together with its user. Unreadable hints are
///   absent. An unreadable version is replaced by a new one that matches nothing. A corrupt record never hides another
///   record.
///
/// ## Failures
/// * **An outage is an error**, never `Ok(None)`, `Ok(false)`, `Ok(0)` or an empty page, and never a cached result.
/// * Any error other than [`StorageError::Ambiguous`] means that nothing has changed, and that nothing changes later.
///   `get` and `list` return [`StorageError::Unavailable`] if the connection breaks before their response is complete.
///   `Ambiguous` is accepted there and means the same, because a read changes nothing.
/// * A storage that **retries a call** internally, because a response was lost, returns the result of the call. It
///   never returns `Conflict`, `Ok(false)` or `Ok(0)` only because its first attempt has already succeeded. If the
///   result is unknown, the call is `Ambiguous`.
/// * After a call has returned, the storage sends nothing more for it. The state that a read shows after an `Ambiguous`
///   call is not undone.
/// * A medium that is read-only or full rejects `put` and `delete` with [`StorageError::Unavailable`] or
///   [`StorageError::Misconfigured`]. A full medium may still delete.
/// * A write that contends with other writes of the same record may return [`StorageError::Unavailable`]. The storage
///   should first retry it for a while, because an application may treat this error as an outage.
/// * **Bounded time**: no call waits indefinitely for a server that does not respond.
///
/// ## Concurrency
/// * **Read your writes**: after `put` or `delete` has returned, every later call through any handle sees the change.
/// * **Cancel safety**: dropping a future at any point leaves either the old or the new record, complete. No lock,
///   connection or transaction remains, and the storage is usable. A dropped call takes effect no later than if it had
///   not been dropped, or never.
///
/// ## Caches
/// * A storage that declares a [`max_age`](Capabilities::max_age) may return a record that was current at most that
///   long ago. For that time, `get` may miss a write through *another* handle, a corruption and an outage. It sees
///   every write through its own handle and clones of it. Only results of `get` are cached, and neither absences nor
///   errors.
/// * A storage without a `max_age` caches nothing.
///
/// ## Secrecy
/// * **No part of the payload** appears in `Debug` output, errors, logs or metrics, in any encoding.
/// * No call returns a record that was deleted, replaced or purged. Its bytes may remain on the medium, in files, logs
///   and backups. Seal payloads with a [`KeyRing`](crate::KeyRing).
///
/// A storage declares in [`capabilities`](Self::capabilities) what it supports, and returns
/// [`StorageError::Unsupported`] for the rest.
///
/// To share a storage, put it into an `Arc`: `Arc<dyn TokenStorage>` is a storage as well.
#[async_trait]
pub trait TokenStorage: Send + Sync + 'static {
    /// Reads the record of a key with its version, or returns `None` if there is none. The record's
    /// [`retain_for`](Record::retain_for) is its remaining retention.
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError>;

    /// Writes a record if the precondition is met, and returns its new version. A stored record past its retention
    /// counts as absent. [`Precondition::Always`] never conflicts.
    ///
    /// A storage without [`Capabilities::atomic`] still enforces preconditions for sequential writes.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if the precondition is not met. Nothing has changed in this case.
    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError>;

    /// Removes the record of a key. If `only` is set, removes the record only if it has that version. Returns whether
    /// this call removed a record.
    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError>;

    /// Lists the stored records without their payloads, page by page, in an order that the storage chooses.
    ///
    /// Across all pages, every matching record that exists during the whole list is listed exactly once, whatever is
    /// written in the meantime, including the record itself and the record at the cursor. Each page shows what is
    /// stored at the time of its call. A cursor is valid for any filter and limit, through any handle to the same data.
    ///
    /// # Errors
    /// [`StorageError::InvalidCursor`] for bytes that this kind of storage cannot have issued, including none.
    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError>;

    /// Removes at most `limit` records past their retention, and returns their number. Such records are already absent
    /// for every other call, so this only frees space. A storage that removes them automatically returns 0.
    ///
    /// Any limit from 0 to `usize::MAX` is accepted. Fewer than `limit` records are removed only if no more are past
    /// their retention.
    async fn purge(&self, limit: usize) -> Result<u64, StorageError>;

    /// What this storage supports in its current configuration. Does not access the data.
    fn capabilities(&self) -> Capabilities;
}

/// The condition for a `put`. The enum is exhaustive, because a storage has to implement every precondition.
///
/// ```
/// use oauth_dance_core::{Precondition, Version};
///
/// let (stored, outdated) = (Version::random(), Version::random());
/// assert!(Precondition::Always.holds_for(Some(stored)));
/// assert!(Precondition::Absent.holds_for(None));
/// assert!(Precondition::Version(stored).holds_for(Some(stored)));
/// assert!(!Precondition::Version(outdated).holds_for(Some(stored)));
/// assert!(!Precondition::Version(stored).holds_for(None), "the record was deleted");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Write unconditionally.
    Always,
    /// Write only if no record is stored.
    Absent,
    /// Write only if the stored record has this version.
    Version(Version),
}

impl Precondition {
    /// Whether the condition is met if `current` is the stored version, or `None` if no record is stored.
    pub fn holds_for(self, current: Option<Version>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => current.is_none(),
            Self::Version(version) => current == Some(version),
        }
    }
}

/// What a storage declares about itself, so that an application can detect an unsuitable storage at startup.
///
/// The defaults are `false` and unlimited.
///
/// ```
/// use oauth_dance_core::{Capabilities, MemoryStorage, TokenStorage};
///
/// fn is_suitable(capabilities: Capabilities) -> bool {
///     capabilities.durable && capabilities.shared && capabilities.atomic
/// }
/// assert!(!is_suitable(MemoryStorage::new().capabilities()));
///
/// let declared = Capabilities::new("my database").with_durable(true).with_shared(true).with_atomic(true);
/// assert!(is_suitable(declared));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The name of the storage, for logs and reports.
    pub name: &'static str,
    /// An acknowledged write survives a crash of the application and of the storage's server.
    pub durable: bool,
    /// Several processes can use the same data at the same time.
    pub shared: bool,
    /// Preconditions are enforced against every concurrent writer. Without this, two processes may redeem the same
    /// refresh token.
    pub atomic: bool,
    /// `list` works.
    pub listable: bool,
    /// `list` returns entries in the order of their keys, and accepts [`Cursor::after`] of any key.
    pub ordered: bool,
    /// The storage belongs to one request, and accepts writes only until the response of that request is sent. A write
    /// in the background would be lost.
    pub request_bound: bool,
    /// The maximum size of a payload in bytes, at least 1 KiB. `None` means that at least 1 MiB is accepted.
    pub max_payload: Option<usize>,
    /// How old the result of `get` may be, because it may come from a [cache](crate::Tokens::with_cache). `None` means
    /// that no result is cached.
    pub max_age: Option<Duration>,
}

impl Capabilities {
    /// The defaults, with a name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            durable: false,
            shared: false,
            atomic: false,
            listable: false,
            ordered: false,
            request_bound: false,
            max_payload: None,
            max_age: None,
        }
    }

    /// Declares durability.
    #[must_use]
    pub const fn with_durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Declares that several processes can share the data.
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

    /// Declares that `list` is in the order of the keys.
    #[must_use]
    pub const fn with_ordered(mut self, ordered: bool) -> Self {
        self.ordered = ordered;
        self
    }

    /// Declares that the storage belongs to one request.
    #[must_use]
    pub const fn with_request_bound(mut self, request_bound: bool) -> Self {
        self.request_bound = request_bound;
        self
    }

    /// Declares the maximum size of a payload in bytes.
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = Some(bytes);
        self
    }

    /// Declares that `get` may return a record that was current this long ago.
    #[must_use]
    pub const fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
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
