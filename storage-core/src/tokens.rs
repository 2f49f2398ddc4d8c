mod plaintext;
mod reseal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

#[cfg(feature = "cache")]
use crate::cache::{Cache, CachedStorage};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::progress::Stored;
use crate::record::{Record, Version, Versioned};
use crate::seal::{KeyRing, OpenError};
use crate::storage::{Filter, Page, PageRequest, Precondition, TokenStorage};
use crate::token::Token;
use crate::wire;
pub use reseal::{ResealFailure, ResealReport};

const PURPOSE: &str = "oauth-dance token record";

/// The typed handle to a [`TokenStorage`]. It writes and reads [`Token`]s, sealed.
///
/// Cloning is cheap and shares the storage. Each call is one call of the storage, with the same cancel safety. Only a
/// conditional [`put`](Self::put) and [`reseal`](Self::reseal) read the record first.
#[derive(Clone)]
pub struct Tokens {
    storage: Arc<dyn TokenStorage>,
    sealing: Sealing,
    retain_for: Option<Duration>,
    /// The cache in front of the storage. `storage` is the same one then, so that each write passes it.
    #[cfg(feature = "cache")]
    cache: Option<Arc<CachedStorage>>,
}

#[derive(Clone, Debug)]
enum Sealing {
    Sealed(KeyRing),
    Plaintext,
}

impl Tokens {
    /// Seals tokens with this key ring, and reads only sealed tokens.
    pub fn sealed(storage: impl TokenStorage, ring: KeyRing) -> Self {
        Self::new(Arc::new(storage), Sealing::Sealed(ring))
    }

    /// Stores tokens **in plain text**: anyone who can read the storage or a backup of it can act as your users. A
    /// [`dpop_key`](crate::OAuth2Token::dpop_key) is stored in plain text beside its token, and no longer protects it.
    pub fn dangerous_plaintext(storage: impl TokenStorage) -> Self {
        Self::new(Arc::new(storage), Sealing::Plaintext)
    }

    fn new(storage: Arc<dyn TokenStorage>, sealing: Sealing) -> Self {
        Self {
            storage,
            sealing,
            retain_for: None,
            #[cfg(feature = "cache")]
            cache: None,
        }
    }

    /// Sets how long the storage retains a token after its last write. By default, it is retained until it is deleted.
    /// Choose more than the idle time after which the provider expires a refresh token.
    #[must_use]
    pub fn with_retention(self, retain_for: Duration) -> Self {
        Self { retain_for: Some(retain_for), ..self }
    }

    /// Puts a cache in front of the storage, in the memory of this process, so that a usable token that was used recently
    /// is not read again.
    ///
    /// This gives up one thing: what *another* process writes is seen late. After a logout there,
    /// [`usable`](crate::Refresher::usable) and [`credentials`](crate::Refresher::credentials) can return the token for
    /// at most the cache's age. They return a cached token only if it is neither due for a refresh nor dead. Everything
    /// else reads the storage, and the refresh protocol does so too. Writes through this handle and its clones are seen
    /// at once.
    ///
    /// Records are cached as they are stored, so that sealed tokens stay sealed. Absences and errors are not cached. If
    /// the outcome of a write is unknown, because its future was dropped or its result is
    /// [`Ambiguous`](crate::StorageError::Ambiguous), some keys are not cached for the cache's age.
    ///
    /// [`storage`](Self::storage) is the storage behind the cache: it declares the age in
    /// [`Capabilities::max_age`](crate::Capabilities::max_age), and its `get` can return a cached record. A storage that
    /// [belongs to a request](crate::Capabilities::request_bound) is not cached.
    #[cfg(feature = "cache")]
    #[must_use]
    pub fn with_cache(self, cache: Cache) -> Self {
        if self.storage.capabilities().request_bound {
            return self;
        }
        let cached = Arc::new(CachedStorage::new(self.storage, cache));
        let storage = Arc::clone(&cached) as Arc<dyn TokenStorage>;
        Self { storage, cache: Some(cached), ..self }
    }

    /// The same sealing and retention on another storage, without a cache.
    #[must_use]
    pub fn with_storage(self, storage: Arc<dyn TokenStorage>) -> Self {
        Self { retain_for: self.retain_for, ..Self::new(storage, self.sealing) }
    }

    /// Whether tokens are sealed before they are stored.
    pub fn is_sealed(&self) -> bool {
        matches!(self.sealing, Sealing::Sealed(_))
    }

    /// The underlying storage.
    pub fn storage(&self) -> &Arc<dyn TokenStorage> {
        &self.storage
    }

    /// Reads a token with its version, or returns `None` if there is none. An expired access token is returned as well.
    ///
    /// # Errors
    /// [`TokensError`]. A token that cannot be read is never reported as missing, and never removed.
    pub async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Token>>, TokensError> {
        Ok(self.load(key).await?.map(|found| Versioned::new(found.value.token, found.version)))
    }

    /// Writes a token if the precondition holds, and returns its new version.
    ///
    /// To change a stored token, read it with [`get`](Self::get) and write it with [`Precondition::Version`]. This
    /// reads the record once more, because the state of its refresh is retained. A refresh in flight continues: it
    /// stores the refreshed token together with the members of [`extra`](crate::OAuth2Token::extra) that the provider
    /// does not replace. Only a token with another refresh token starts with a new state.
    ///
    /// A write with [`Precondition::Always`] is a new login. It wins over a refresh in flight, and discards the state
    /// of the old token's refresh.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] inside [`TokensError::Storage`] if the precondition does not hold. If the stored
    /// record cannot be read, a write with its version returns the error of [`get`](Self::get), and the record is
    /// unchanged.
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
    /// # Errors
    /// [`TokensError::Storage`].
    pub async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, TokensError> {
        Ok(self.storage.delete(key, only).await?)
    }

    /// Lists tokens without opening them, page by page. A page may have fewer entries than requested, or none, although
    /// more pages follow.
    ///
    /// # Errors
    /// [`TokensError::Storage`].
    pub async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, TokensError> {
        let mut page = self.storage.list(filter, page).await?;
        page.entries.retain(|entry| !entry.key.is_internal());
        Ok(page)
    }

    /// Verifies that the storage responds, with one read of a key under which nothing is stored.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn check(&self) -> Result<(), StorageError> {
        self.read(&TokenKey::for_check()).await.map(drop)
    }

    /// Reads a token and the state of its refresh from the storage, past any cache.
    pub(crate) async fn load(&self, key: &TokenKey) -> Result<Option<Versioned<Stored>>, TokensError> {
        let Some(Versioned { value: record, version }) = self.read(key).await? else {
            return Ok(None);
        };
        Ok(Some(Versioned::new(self.open(key, &record)?, version)))
    }

    /// A token and the state of its refresh from the cache, if it has them. They may be outdated.
    #[cfg(feature = "cache")]
    pub(crate) fn hot(&self, key: &TokenKey) -> Option<Stored> {
        let found = self.cache.as_ref()?.hot(key)?;
        self.open(key, &found.value).ok()
    }

    /// There is no cache.
    #[cfg(not(feature = "cache"))]
    pub(crate) fn hot(&self, _: &TokenKey) -> Option<Stored> {
        None
    }

    /// Reads a record from the storage, past any cache.
    async fn read(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        #[cfg(feature = "cache")]
        if let Some(cache) = &self.cache {
            return cache.fresh(key).await;
        }
        self.storage.get(key).await
    }

    /// Writes a token and the state of its refresh.
    pub(crate) async fn save(
        &self,
        key: &TokenKey,
        stored: &Stored,
        when: Precondition,
    ) -> Result<Version, TokensError> {
        Ok(self.storage.put(key, &self.seal(key, stored), when).await?)
    }

    fn seal(&self, key: &TokenKey, stored: &Stored) -> Record {
        let plain = wire::encode(key, stored);
        let payload = match &self.sealing {
            Sealing::Sealed(ring) => ring.seal(PURPOSE, &key.to_bytes(), &plain),
            Sealing::Plaintext => plain.to_vec(),
        };
        Record::new(payload)
            .with_expires_at(stored.token.expires_at())
            .with_retain_for(self.retain_for)
            .with_key_id(self.key_id())
    }

    fn open(&self, key: &TokenKey, record: &Record) -> Result<Stored, TokensError> {
        match &self.sealing {
            Sealing::Plaintext if !wire::is_plain(&record.payload) && record.key_id.is_some() => {
                Err(TokensError::NoKeyRing { key: Box::new(key.clone()) })
            }
            Sealing::Plaintext => wire::decode(key, &record.payload),
            Sealing::Sealed(ring) => wire::decode(key, &unseal(ring, key, record)?),
        }
    }

    fn key_id(&self) -> Option<String> {
        match &self.sealing {
            Sealing::Sealed(ring) => Some(ring.primary_id()),
            Sealing::Plaintext => None,
        }
    }
}

/// Opens the payload of a record.
fn unseal(ring: &KeyRing, key: &TokenKey, record: &Record) -> Result<Zeroizing<Vec<u8>>, TokensError> {
    let boxed_key = || Box::new(key.clone());
    if wire::is_plain(&record.payload) {
        return Err(TokensError::NotSealed { key: boxed_key() });
    }
    ring.open(PURPOSE, &key.to_bytes(), &record.payload).map_err(|error| match error {
        OpenError::KeyUnavailable { key_id } => TokensError::KeyUnavailable { key: boxed_key(), key_id },
        OpenError::NotSealed | OpenError::Tampered => TokensError::Tampered { key: boxed_key() },
    })
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("storage", &self.storage.capabilities().name)
            .field("sealing", &self.sealing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dpop_key::DpopKey;
    use crate::memory::MemoryStorage;
    use crate::seal::SealingKey;
    use crate::time::Timestamp;
    use crate::token::{Extra, OAuth1Token, OAuth2Token, Subject};

    fn key() -> TokenKey {
        TokenKey::new("github", "alice").unwrap()
    }

    /// A token in which every field is set.
    fn full_token() -> Token {
        let mut token = OAuth2Token::bearer("CANARY-access");
        token.token_type = "bearer".to_owned();
        token.refresh_token = Some("CANARY-refresh".into());
        token.id_token = Some("CANARY-id".into());
        token.subject = Some(Subject { issuer: "https://p.example".to_owned(), subject: "248289761001".to_owned() });
        token.scope = Some(vec!["repo".to_owned(), "user:email".to_owned()]);
        token.expires_at = Some(Timestamp::from_unix_seconds(4_102_444_800));
        token.issued_at = Some(Timestamp::from_unix_seconds(1_700_000_000));
        token.dpop_key = DpopKey::parse("CANARY-dpop-key-of-43-characters-in-base64s");
        assert!(token.dpop_key.is_some());
        let extra = json!({"authed_user": {"access_token": "CANARY-extra", "n": [1, 2.5, null]}, "instance_url": "x"});
        token.extra = Extra::from(extra.as_object().unwrap().clone());
        token.into()
    }

    #[tokio::test]
    async fn every_token_round_trips() {
        let mut oauth1 = OAuth1Token::new("token", "secret");
        oauth1.extra = Extra::from(json!({"screen_name": "alice"}).as_object().unwrap().clone());
        let mut unscoped = OAuth2Token::bearer("");
        unscoped.scope = Some(Vec::new());
        let all = [full_token(), oauth1.into(), unscoped.into(), OAuth2Token::bearer("\0\u{1F511}\r\n\"").into()];

        for tokens in [
            Tokens::sealed(MemoryStorage::new(), KeyRing::generate()),
            Tokens::dangerous_plaintext(MemoryStorage::new()),
        ] {
            for token in &all {
                let version = tokens.put(&key(), token, Precondition::Always).await.unwrap();
                let found = tokens.get(&key()).await.unwrap();
                assert_eq!(found, Some(Versioned::new(token.clone(), version)));
            }
        }
    }

    #[tokio::test]
    async fn no_secret_is_stored_or_printed() {
        let storage = MemoryStorage::new();
        let ring = KeyRing::generate();
        let tokens = Tokens::sealed(storage.clone(), ring.clone());
        tokens.put(&key(), &full_token(), Precondition::Always).await.unwrap();

        let record = storage.get(&key()).await.unwrap().unwrap().value;
        assert!(!String::from_utf8_lossy(&record.payload).contains("CANARY"));
        assert_eq!(record.key_id, Some(ring.primary_id()));
        assert_eq!(record.expires_at, Some(Timestamp::from_unix_seconds(4_102_444_800)));
        let printed = format!("{:?} {record:?} {tokens:?} {storage:?}", tokens.get(&key()).await.unwrap());
        assert!(printed.contains("authed_user") && !printed.contains("CANARY"), "{printed}");
    }

    #[tokio::test]
    async fn record_moved_to_another_key_is_rejected() {
        for (tokens, storage) in sealed_and_plain() {
            tokens.put(&key(), &full_token(), Precondition::Always).await.unwrap();
            let stolen = storage.get(&key()).await.unwrap().unwrap().value;
            let bob = TokenKey::new("github", "bob").unwrap();
            storage.put(&bob, &stolen, Precondition::Always).await.unwrap();
            let error = tokens.get(&bob).await.unwrap_err();
            assert!(matches!(error, TokensError::Tampered { .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn sealed_and_plain_records_are_not_interchangeable() {
        let storage = MemoryStorage::new();
        let sealed = Tokens::sealed(storage.clone(), KeyRing::generate());
        let plain = Tokens::dangerous_plaintext(storage);
        plain.put(&key(), &full_token(), Precondition::Always).await.unwrap();
        assert!(matches!(sealed.get(&key()).await, Err(TokensError::NotSealed { .. })));
        sealed.put(&key(), &full_token(), Precondition::Always).await.unwrap();
        assert!(matches!(plain.get(&key()).await, Err(TokensError::NoKeyRing { .. })));
    }

    #[tokio::test]
    async fn another_storage_has_the_same_sealing() {
        let (one, two) = (MemoryStorage::new(), MemoryStorage::new());
        let tokens = Tokens::sealed(one.clone(), KeyRing::generate()).with_retention(Duration::from_secs(60));
        tokens
            .clone()
            .with_storage(Arc::new(two.clone()))
            .put(&key(), &full_token(), Precondition::Always)
            .await
            .unwrap();
        assert_eq!(tokens.get(&key()).await.unwrap(), None);

        let record = two.get(&key()).await.unwrap().unwrap().value;
        assert!(record.retain_for.is_some() && record.key_id.is_some());
        one.put(&key(), &record, Precondition::Always).await.unwrap();
        assert_eq!(tokens.get(&key()).await.unwrap().unwrap().value, full_token());
    }

    #[tokio::test]
    async fn reseal_uses_the_first_key_and_retains_the_rest() {
        let storage = MemoryStorage::new();
        let old = SealingKey::generate();
        let before = Tokens::sealed(storage.clone(), KeyRing::new(old.clone())).with_retention(Duration::from_secs(60));
        before.put(&key(), &full_token(), Precondition::Always).await.unwrap();

        let ring = KeyRing::new(SealingKey::generate()).with_older(old);
        let after = Tokens::sealed(storage.clone(), ring.clone());
        assert!(after.reseal(&key()).await.unwrap());
        assert!(!after.reseal(&key()).await.unwrap(), "the record is sealed with the first key already");
        let record = storage.get(&key()).await.unwrap().unwrap().value;
        assert_eq!(record.key_id, Some(ring.primary_id()));
        assert!(record.retain_for.is_some_and(|left| left <= Duration::from_secs(60)));
        assert_eq!(after.get(&key()).await.unwrap().unwrap().value, full_token());
        assert!(matches!(before.get(&key()).await, Err(TokensError::KeyUnavailable { .. })));
    }

    #[tokio::test]
    async fn unreadable_records_are_typed_errors_and_remain() {
        let good = wire::encode(&key(), &Stored::idle(full_token())).to_vec();
        let newer = String::from_utf8(good.clone()).unwrap().replace("\"format\":2", "\"format\":4");
        let garbage: Vec<Vec<u8>> =
            vec![vec![], vec![0], b"{".to_vec(), b"{}".to_vec(), b"null".to_vec(), vec![1; 500], good[..40].to_vec()];
        for (tokens, storage) in sealed_and_plain() {
            for payload in &garbage {
                storage.put(&key(), &Record::new(payload.clone()), Precondition::Always).await.unwrap();
                assert!(tokens.get(&key()).await.is_err(), "{payload:?}");
                assert_eq!(storage.get(&key()).await.unwrap().unwrap().value.payload, *payload);
            }
        }
        let (plain, storage) = sealed_and_plain().pop().unwrap();
        storage.put(&key(), &Record::new(newer), Precondition::Always).await.unwrap();
        let error = plain.get(&key()).await.unwrap_err();
        assert!(matches!(error, TokensError::NewerFormat { found: 4, .. }), "{error:?}");
    }

    fn sealed_and_plain() -> Vec<(Tokens, MemoryStorage)> {
        let (one, two) = (MemoryStorage::new(), MemoryStorage::new());
        vec![(Tokens::sealed(one.clone(), KeyRing::generate()), one), (Tokens::dangerous_plaintext(two.clone()), two)]
    }
}
