//! The typed handle to a storage.
//!
//! [`wire`] encodes a token together with its key, [`KeyRing`] seals the encoded token bound to the same key, and the
//! storage stores the bytes. On the way back, a record has to pass each of these in the reverse order. A record that
//! was copied from one user to another therefore cannot be read, sealed or not.

mod plaintext;
mod reseal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "cache")]
use crate::cache::{Cache, CachedStorage};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::progress::Stored;
use crate::record::{Record, Version, Versioned};
use crate::seal::{KeyRing, OpenError};
use crate::secret::SecretBytes;
use crate::storage::{Filter, Page, PageRequest, Precondition, TokenStorage};
use crate::token::Token;
use crate::wire;
pub use reseal::{ResealFailure, ResealReport};

/// The purpose for which records are sealed.
const PURPOSE: &str = "oauth-dance token record";

/// The typed handle to a [`TokenStorage`]. It seals the [`Token`]s that it writes, and opens those that it reads.
///
/// A clone is cheap and shares the storage. Each call is one call of the storage, with the same cancel safety: dropping
/// a future leaves the old or the new token, complete. Only a conditional [`put`](Self::put) and
/// [`reseal`](Self::reseal) read the record first.
///
/// ```
/// use oauth_dance_core::{KeyRing, MemoryStorage, OAuth2Token, Precondition, TokenKey, Tokens};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate());
/// let key = TokenKey::new("github", "alice")?;
/// let version = tokens.put(&key, &OAuth2Token::bearer("gho_16C7e42F").into(), Precondition::Always).await?;
///
/// let found = tokens.get(&key).await?.expect("a token was stored");
/// assert_eq!(found.version, version);
/// assert!(tokens.delete(&key, None).await?);
/// assert!(tokens.get(&key).await?.is_none());
/// # Ok(())
/// # }
/// ```
///
/// To use a token for an API call, get it from [`Refresher::usable`](crate::Refresher::usable), which refreshes it if
/// it has expired.
#[derive(Clone)]
pub struct Tokens(Arc<Parts>);

/// What all clones share. It is one allocation, because each request clones a handle several times.
#[derive(Clone)]
struct Parts {
    storage: Arc<dyn TokenStorage>,
    sealing: Sealing,
    retain_for: Option<Duration>,
    /// The cache in front of the storage. If there is one, `storage` is this cache too, so that it sees each write.
    #[cfg(feature = "cache")]
    cache: Option<Arc<CachedStorage>>,
}

/// How a token becomes the payload of a record.
#[derive(Clone, Debug)]
enum Sealing {
    Sealed(KeyRing),
    Plaintext,
}

impl Tokens {
    /// Seals tokens with this key ring, and reads only sealed tokens.
    ///
    /// A sealed token is bound to its key: if a record is copied to another user, [`get`](Self::get) returns
    /// [`TokensError::Tampered`].
    pub fn sealed(storage: impl TokenStorage, ring: KeyRing) -> Self {
        Self::new(Arc::new(storage), Sealing::Sealed(ring))
    }

    /// Stores tokens **in plain text**. Anyone who can read the storage or a backup of it can act as your users.
    ///
    /// A [`dpop_key`](crate::OAuth2Token::dpop_key) is stored in plain text with its token, and no longer protects it.
    /// Use this only for tests, or to read records that another program wrote. [`seal_plaintext`](Self::seal_plaintext)
    /// seals such records.
    pub fn dangerous_plaintext(storage: impl TokenStorage) -> Self {
        Self::new(Arc::new(storage), Sealing::Plaintext)
    }

    fn new(storage: Arc<dyn TokenStorage>, sealing: Sealing) -> Self {
        Self(Arc::new(Parts {
            storage,
            sealing,
            retain_for: None,
            #[cfg(feature = "cache")]
            cache: None,
        }))
    }

    /// A handle with changed parts. Clones of the old handle do not change.
    fn with(self, change: impl FnOnce(&mut Parts)) -> Self {
        let mut parts = Arc::unwrap_or_clone(self.0);
        change(&mut parts);
        Self(Arc::new(parts))
    }

    /// Sets how long the storage retains a token after its last write. By default, a token is retained until it is
    /// deleted.
    ///
    /// Each refresh writes the token, and a read does not. Choose more than the idle time after which the provider
    /// expires a refresh token, so that only useless tokens disappear.
    #[must_use]
    pub fn with_retention(self, retain_for: Duration) -> Self {
        self.with(|parts| parts.retain_for = Some(retain_for))
    }

    /// Puts a cache in front of the storage, in the memory of this process, so that a usable token that was used recently
    /// is not read again.
    ///
    /// The price is that a write of *another* process is seen late. After a logout there,
    /// [`usable`](crate::Refresher::usable), [`credentials`](crate::Refresher::credentials) and
    /// [`cached`](crate::Refresher::cached) may return the token for as long as a cached record may be old. They return a
    /// cached token only if it is neither due for a refresh nor dead. Everything else reads the storage, including the
    /// refresh protocol. Writes through this handle and its clones are seen immediately.
    ///
    /// A token is opened once while its record is cached, and the memory of the process contains it at least for that
    /// time. Absences and errors are not cached. If the outcome of a write is unknown, because its future was dropped or
    /// its result is [`Ambiguous`](crate::StorageError::Ambiguous), some keys are not cached for a while.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use oauth_dance_core::{Cache, KeyRing, MemoryStorage, OAuth2Token, Precondition, Refresher, TokenKey, Tokens};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate()).with_cache(Cache::new(Duration::from_secs(5)));
    /// let (refresher, key) = (Refresher::new(), TokenKey::new("github", "alice")?);
    /// tokens.put(&key, &OAuth2Token::bearer("gho_16C7e42F").into(), Precondition::Always).await?;
    /// assert!(refresher.cached(&tokens, &key).is_none(), "it was not read yet");
    ///
    /// let read = tokens.get(&key).await?.expect("a token was stored").value;
    /// assert_eq!(refresher.cached(&tokens, &key).as_deref(), Some(&read));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`storage`](Self::storage) then includes the cache: it declares the maximum age in
    /// [`Capabilities::max_age`](crate::Capabilities::max_age), and its `get` may return a cached record. A storage
    /// that [belongs to a request](crate::Capabilities::request_bound) is not cached.
    #[cfg(feature = "cache")]
    #[must_use]
    pub fn with_cache(self, cache: Cache) -> Self {
        if self.0.storage.capabilities().request_bound {
            return self;
        }
        self.with(|parts| {
            let cached = Arc::new(CachedStorage::new(Arc::clone(&parts.storage), cache));
            parts.storage = Arc::clone(&cached) as Arc<dyn TokenStorage>;
            parts.cache = Some(cached);
        })
    }

    /// Uses another storage with the same sealing and retention, and without a cache.
    #[must_use]
    pub fn with_storage(self, storage: Arc<dyn TokenStorage>) -> Self {
        self.with(|parts| {
            parts.storage = storage;
            #[cfg(feature = "cache")]
            {
                parts.cache = None;
            }
        })
    }

    /// Whether tokens are sealed before they are stored.
    pub fn is_sealed(&self) -> bool {
        matches!(self.0.sealing, Sealing::Sealed(_))
    }

    /// The underlying storage, for example to read its [capabilities](TokenStorage::capabilities).
    pub fn storage(&self) -> &Arc<dyn TokenStorage> {
        &self.0.storage
    }

    /// Reads a token with its version. Returns `None` if there is none. An expired token is returned as well.
    ///
    /// # Errors
    /// [`TokensError`]. A token that cannot be read is never reported as missing, and never removed.
    pub async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Token>>, TokensError> {
        Ok(self.load(key).await?.map(|found| Versioned::new(found.value.token, found.version)))
    }

    /// Writes a token if the precondition is met, and returns its new version.
    ///
    /// A write with [`Precondition::Always`] is a new login. It takes precedence over a refresh in flight, and discards
    /// the state of the old token's refresh.
    ///
    /// To change a stored token, read it with [`get`](Self::get) and write it with [`Precondition::Version`]. This
    /// reads the record once more, to retain the state of its refresh. A refresh in flight continues, and stores the
    /// refreshed token together with the members of [`extra`](crate::OAuth2Token::extra) that the provider does not
    /// replace. Only a token with another refresh token starts with a new state.
    ///
    /// ```
    /// use oauth_dance_core::{Extra, KeyRing, MemoryStorage, OAuth2Token, Precondition, Token, TokenKey, Tokens};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate());
    /// # let key = TokenKey::new("github", "alice")?;
    /// # tokens.put(&key, &OAuth2Token::bearer("gho_16C7e42F").into(), Precondition::Always).await?;
    /// let found = tokens.get(&key).await?.expect("a token was stored");
    /// if let Token::OAuth2(mut token) = found.value {
    ///     let members = serde_json::json!({"team": 7});
    ///     token.extra = Extra::from(members.as_object().expect("an object").clone());
    ///     tokens.put(&key, &token.into(), Precondition::Version(found.version)).await?;
    /// }
    /// assert_eq!(tokens.get(&key).await?.unwrap().value.extra().get("team").unwrap(), 7);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StorageError::Conflict`] inside [`TokensError::Storage`] if the precondition is not met. If the stored record
    /// cannot be read, a write with its version returns the error of [`get`](Self::get), and the record is unchanged.
    pub async fn put(&self, key: &TokenKey, token: &Token, when: Precondition) -> Result<Version, TokensError> {
        let Precondition::Version(version) = when else {
            return self.save(key, &Stored::idle(token.clone()), when).await;
        };
        match self.load(key).await? {
            Some(found) if found.version == version => {
                self.save(key, &found.value.with_token(token.clone()), when).await
            }
            _ => Err(StorageError::Conflict.into()),
        }
    }

    /// Removes a token. If `only` is set, removes it only if it has that version. Returns whether this call removed a
    /// token.
    ///
    /// This is a logout: if a refresh is in flight, its result is dropped. The token remains valid at the provider
    /// until it is revoked there.
    ///
    /// # Errors
    /// [`TokensError::Storage`].
    pub async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, TokensError> {
        Ok(self.0.storage.delete(key, only).await?)
    }

    /// Lists tokens without opening them, page by page. A page may have fewer entries than requested, or none, although
    /// more pages follow. [`PageRequest`] shows a loop over all pages.
    ///
    /// Records that this library stores for its own purposes are left out.
    ///
    /// # Errors
    /// [`TokensError::Storage`], with [`StorageError::Unsupported`] if the storage is not
    /// [listable](crate::Capabilities::listable).
    pub async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, TokensError> {
        let mut page = self.0.storage.list(filter, page).await?;
        page.entries.retain(|entry| !entry.key.is_internal());
        Ok(page)
    }

    /// Verifies that the storage responds, with one read of a key under which nothing is stored. For a readiness probe.
    ///
    /// # Errors
    /// [`StorageError`] of the read.
    pub async fn check(&self) -> Result<(), StorageError> {
        self.read(&TokenKey::for_check()).await.map(drop)
    }

    /// Reads a token and the state of its refresh from the storage, and not from a cache.
    pub(crate) async fn load(&self, key: &TokenKey) -> Result<Option<Versioned<Stored>>, TokensError> {
        let Some(Versioned { value: record, version }) = self.read(key).await? else {
            return Ok(None);
        };
        Ok(Some(Versioned::new(self.open(key, record)?, version)))
    }

    /// The token from the cache, if it is there and the user need not authorize again. It may be outdated.
    #[cfg(feature = "cache")]
    pub(crate) fn cached(&self, key: &TokenKey) -> Option<Arc<Token>> {
        self.0.cache.as_ref()?.token(key, |record| match self.open(key, record.clone()) {
            Ok(Stored { progress: crate::progress::Progress::Dead { .. }, .. }) | Err(_) => None,
            Ok(Stored { token, .. }) => Some(token),
        })
    }

    /// `None`, because the feature `cache` is off.
    #[cfg(not(feature = "cache"))]
    pub(crate) fn cached(&self, _: &TokenKey) -> Option<Arc<Token>> {
        None
    }

    /// Reads a record from the storage, and not from a cache.
    async fn read(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        #[cfg(feature = "cache")]
        if let Some(cache) = &self.0.cache {
            return cache.fresh(key).await;
        }
        self.0.storage.get(key).await
    }

    /// Writes a token and the state of its refresh.
    pub(crate) async fn save(
        &self,
        key: &TokenKey,
        stored: &Stored,
        when: Precondition,
    ) -> Result<Version, TokensError> {
        Ok(self.0.storage.put(key, &self.seal(key, stored), when).await?)
    }

    /// Encodes and seals a token, with the hints for the storage.
    fn seal(&self, key: &TokenKey, stored: &Stored) -> Record {
        let plain = wire::encode(key, stored);
        let payload = match &self.0.sealing {
            Sealing::Sealed(ring) => ring.seal(PURPOSE, &key.to_bytes(), &plain),
            Sealing::Plaintext => plain.to_vec(),
        };
        Record::new(payload)
            .with_expires_at(stored.token.expires_at())
            .with_retain_for(self.0.retain_for)
            .with_key_id(self.key_id())
    }

    /// Opens and decodes a record, and verifies that it belongs to the key.
    fn open(&self, key: &TokenKey, record: Record) -> Result<Stored, TokensError> {
        match &self.0.sealing {
            Sealing::Plaintext if !wire::is_plain(&record.payload) && record.key_id.is_some() => {
                Err(TokensError::NoKeyRing { key: Box::new(key.clone()) })
            }
            Sealing::Plaintext => wire::decode(key, &record.payload),
            Sealing::Sealed(ring) => wire::decode(key, &unseal(ring, key, record.payload)?),
        }
    }

    /// The id of the key that seals, for the hint of a record.
    fn key_id(&self) -> Option<String> {
        match &self.0.sealing {
            Sealing::Sealed(ring) => Some(ring.primary_id()),
            Sealing::Plaintext => None,
        }
    }
}

/// Opens the payload of a record.
fn unseal(ring: &KeyRing, key: &TokenKey, payload: Vec<u8>) -> Result<SecretBytes, TokensError> {
    let boxed_key = || Box::new(key.clone());
    if wire::is_plain(&payload) {
        return Err(TokensError::NotSealed { key: boxed_key() });
    }
    ring.open_in_place(PURPOSE, &key.to_bytes(), payload).map_err(|error| match error {
        OpenError::KeyUnavailable { key_id } => TokensError::KeyUnavailable { key: boxed_key(), key_id },
        OpenError::NotSealed | OpenError::Tampered => TokensError::Tampered { key: boxed_key() },
    })
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("storage", &self.0.storage.capabilities().name)
            .field("sealing", &self.0.sealing)
            .finish_non_exhaustive()
    }
}
