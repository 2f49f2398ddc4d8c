//! Lists of records, page by page.
//!
//! A list shows hints and no payloads, so that an operator's tool or a background job needs no key to find the records
//! that it is about.

use crate::error::StorageError;
use crate::key::TokenKey;
use crate::record::{Record, Version};
use crate::time::Timestamp;

/// Which records to list. A record has to meet every condition that is set.
///
/// ```
/// use oauth_dance_core::{Entry, Filter, Record, TokenKey, Version};
///
/// let filter = Filter::everything().tenant(None).user("alice");
/// let entry = |key| Entry::new(key, Version::random(), &Record::new("sealed"));
/// let alice = TokenKey::new("github", "alice")?;
/// assert!(filter.matches(&entry(alice.clone())));
/// assert!(!filter.matches(&entry(alice.with_tenant("acme")?)));
/// # Ok::<(), oauth_dance_core::KeyError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Only this tenant. The empty string means "without a tenant", and `None` means all tenants.
    pub tenant: Option<String>,
    /// Only this user. Without [`tenant`](Self::tenant), this matches the user of that name in *every* tenant.
    pub user: Option<String>,
    /// Only this provider.
    pub provider: Option<String>,
    /// Only records whose access token expires strictly before this instant. Records without an expiry are left out.
    pub expiring_before: Option<Timestamp>,
}

impl Filter {
    /// A filter without conditions.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Only this tenant. `None` selects the records without a tenant.
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

    /// Only records whose access token expires strictly before this instant.
    #[must_use]
    pub fn expiring_before(mut self, instant: Timestamp) -> Self {
        self.expiring_before = Some(instant);
        self
    }

    /// Whether an entry meets every condition. For a storage that cannot filter by itself.
    pub fn matches(&self, entry: &Entry) -> bool {
        let [tenant, user, provider, _] = entry.key.parts();
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.tenant, tenant)
            && is(&self.user, user)
            && is(&self.provider, provider)
            && self.expiring_before.is_none_or(|before| entry.expires_at.is_some_and(|expiry| expiry < before))
    }
}

/// Which page of a list to return. The struct is exhaustive, so that callers can write it as a literal.
///
/// ```
/// use oauth_dance_core::{Filter, MemoryStorage, PageRequest, Precondition, Record, TokenKey, TokenStorage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let storage = MemoryStorage::new();
/// for user in ["alice", "bob", "carol"] {
///     storage.put(&TokenKey::new("github", user)?, &Record::new("sealed"), Precondition::Always).await?;
/// }
///
/// let (mut users, mut page) = (Vec::new(), PageRequest { after: None, limit: 2 });
/// loop {
///     let found = storage.list(&Filter::everything(), page.clone()).await?;
///     users.extend(found.entries.iter().map(|entry| entry.key.user().to_owned()));
///     match found.next {
///         Some(next) => page.after = Some(next),
///         None => break,
///     }
/// }
/// assert_eq!(users, ["alice", "bob", "carol"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// [`Page::next`] of the previous page, or `None` for the first page.
    pub after: Option<Cursor>,
    /// The maximum number of entries. 0 counts as 1. A storage may return fewer.
    pub limit: usize,
}

/// The first page, with at most 100 entries.
impl Default for PageRequest {
    fn default() -> Self {
        Self { after: None, limit: 100 }
    }
}

/// One page of a list. The struct is exhaustive, so that a storage can construct it as a literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries. There may be none although more pages follow.
    pub entries: Vec<Entry>,
    /// The position of the next page. `None` if this is the last page.
    pub next: Option<Cursor>,
}

impl Page {
    /// Builds a page of at most `limit` entries. `entries` are the matching entries after the cursor, in the order of
    /// their keys. One more than `limit` is taken from them, to see whether another page follows.
    pub fn collect(entries: impl IntoIterator<Item = Entry>, limit: usize) -> Self {
        let limit = limit.max(1);
        let mut entries: Vec<_> = entries.into_iter().take(limit.saturating_add(1)).collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map(|last| Cursor::after(&last.key));
        Self { entries, next }
    }
}

/// A listed record: its key, version and hints, without the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key of the record.
    pub key: TokenKey,
    /// The version of the record.
    pub version: Version,
    /// When the access token expires.
    pub expires_at: Option<Timestamp>,
    /// Which key of the key ring sealed the record.
    pub key_id: Option<String>,
}

impl Entry {
    /// The entry of a record.
    pub fn new(key: TokenKey, version: Version, record: &Record) -> Self {
        Self { key, version, expires_at: record.expires_at, key_id: record.key_id.clone() }
    }
}

/// The position at which a list continues. Callers pass it back unchanged. Only the storage knows its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// A cursor for storages that list in the order of the keys. The list continues after this key.
    pub fn after(key: &TokenKey) -> Self {
        Self(key.to_bytes())
    }

    /// The key that was passed to [`Cursor::after`].
    ///
    /// # Errors
    /// [`StorageError::InvalidCursor`] if the cursor has another format.
    pub fn key(&self) -> Result<TokenKey, StorageError> {
        TokenKey::from_bytes(&self.0).map_err(|_| StorageError::InvalidCursor)
    }

    /// A cursor in a format that the storage defines.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the cursor, for a storage with a format of its own or a caller that stores the cursor.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
