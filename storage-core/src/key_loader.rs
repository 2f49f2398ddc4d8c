use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::key_provider::{KeyProvider, KeyProviderError};
use crate::seal::{KeyRing, KeyRingError, SealingKey};
use crate::wrapped_key::{RingLine, WrappedKey, ring_lines};

/// How long a call of the provider may take, unless another time-out is set.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many unwrapped keys are cached, unless another number is set. A key ring has two or three during a rotation.
const CACHED_KEYS: usize = 16;
/// How long an unwrapped key is cached, unless another duration is set.
const CACHED_FOR: Duration = Duration::from_secs(60 * 60);

/// Loads a [`KeyRing`] whose keys a [`KeyProvider`] has wrapped. The example is at [`KeyProvider`].
///
/// A [`KeyRing`] contains its keys until its last clone is dropped, so a running application does not need the service
/// again. An application that loads its key ring more often, for example when its file has changed, uses one loader:
///
/// * It caches unwrapped keys: at most 16, each for at most an hour, or [as you choose](Self::with_cache). A key that
///   is in the cache needs no call, so the ring can be loaded while the service is down.
/// * The hour starts when the key was unwrapped. An older key is removed from the cache by the next call, and its memory
///   is overwritten. If the cache is full, the oldest key is removed.
/// * Errors are not cached.
///
/// # Cancel safety
/// Dropping a future drops the call of the provider. Keys that were unwrapped before stay in the cache.
pub struct KeyLoader {
    provider: Box<dyn KeyProvider>,
    timeout: Duration,
    max_keys: usize,
    max_age: Duration,
    /// The oldest first.
    cache: Mutex<Vec<Cached>>,
}

struct Cached {
    wrapped: WrappedKey,
    /// In a place of its own, because the list moves its elements.
    key: Box<SealingKey>,
    unwrapped_at: Instant,
}

impl KeyLoader {
    /// Loads keys with this provider. Each call may take ten seconds.
    pub fn new(provider: impl KeyProvider) -> Self {
        Self {
            provider: Box::new(provider),
            timeout: TIMEOUT,
            max_keys: CACHED_KEYS,
            max_age: CACHED_FOR,
            cache: Mutex::default(),
        }
    }

    /// How long each call of the provider may take. After that, it counts as
    /// [unreachable](KeyProviderError::Unreachable).
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How many unwrapped keys are cached, and how long each. Zero of either disables the cache.
    #[must_use]
    pub fn with_cache(self, max_keys: usize, max_age: Duration) -> Self {
        Self { max_keys, max_age, ..self }
    }

    /// Loads a ring from text with one key per line, plain or [wrapped](WrappedKey). The first key is the primary key.
    /// Empty lines and lines that start with `#` are ignored. Wrapped keys are unwrapped one after the other.
    ///
    /// # Errors
    /// [`KeyLoadError`]. A ring with only some of the keys is never returned, because it could not open some tokens.
    pub async fn load(&self, text: &str) -> Result<KeyRing, KeyLoadError> {
        let mut keys = Vec::new();
        for (line, key) in ring_lines(text)? {
            keys.push(match key {
                RingLine::Plain(key) => key,
                RingLine::Wrapped(wrapped) => self.unwrap(line, wrapped).await?,
            });
        }
        KeyRing::of(keys).ok_or(KeyLoadError::Ring(KeyRingError::Empty))
    }

    /// Wraps a key. The result is a line of a key ring.
    ///
    /// # Errors
    /// [`KeyLoadError::Provider`].
    pub async fn wrap(&self, key: &SealingKey) -> Result<WrappedKey, KeyLoadError> {
        let name = self.provider.name();
        let failed = |source| KeyLoadError::Provider { provider: name.to_owned(), key_id: key.id(), source };
        let wrapped = self.in_time(self.provider.wrap(key)).await.map_err(failed)?;
        WrappedKey::new(name, key.id(), wrapped).ok_or_else(|| {
            let advice =
                "the key provider has an invalid name, or its result is empty or longer than 16 KiB; correct it";
            failed(KeyProviderError::misconfigured(advice, "the wrapped key is invalid"))
        })
    }

    async fn unwrap(&self, line: usize, wrapped: WrappedKey) -> Result<SealingKey, KeyLoadError> {
        let provider = self.provider.name();
        if wrapped.provider() != provider {
            let (found, expected) = (wrapped.provider().to_owned(), provider.to_owned());
            return Err(KeyLoadError::OtherProvider { line, found, expected });
        }
        if let Some(key) = self.cached(&wrapped) {
            return Ok(key);
        }
        let key = self.in_time(self.provider.unwrap(wrapped.as_bytes())).await.map_err(|source| {
            KeyLoadError::Provider { provider: provider.to_owned(), key_id: wrapped.key_id().to_owned(), source }
        })?;
        if key.id() != wrapped.key_id() {
            return Err(KeyLoadError::DifferentKey { line, key_id: wrapped.key_id().to_owned() });
        }
        self.remember(wrapped, key.clone());
        Ok(key)
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, KeyProviderError>>) -> Result<T, KeyProviderError> {
        match timeout(self.timeout, call).await {
            Ok(result) => result,
            Err(elapsed) => Err(KeyProviderError::unreachable(elapsed)),
        }
    }

    fn cached(&self, wrapped: &WrappedKey) -> Option<SealingKey> {
        self.fresh().iter().find(|cached| cached.wrapped == *wrapped).map(|cached| SealingKey::clone(&cached.key))
    }

    fn remember(&self, wrapped: WrappedKey, key: SealingKey) {
        let mut cache = self.fresh();
        // Another call may have unwrapped the same key in the meantime. Its time counts.
        if self.max_age.is_zero() || cache.iter().any(|cached| cached.wrapped == wrapped) {
            return;
        }
        cache.push(Cached { wrapped, key: Box::new(key), unwrapped_at: Instant::now() });
        let excess = cache.len().saturating_sub(self.max_keys);
        cache.drain(..excess);
    }

    /// The cache without keys that are too old.
    fn fresh(&self) -> MutexGuard<'_, Vec<Cached>> {
        // A key is added completely or not at all, so a panic elsewhere has left the cache valid.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|cached| cached.unwrapped_at.elapsed() < self.max_age);
        cache
    }
}

/// Shows the name of the provider and the limits, and no key.
impl fmt::Debug for KeyLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLoader")
            .field("provider", &self.provider.name())
            .field("timeout", &self.timeout)
            .field("max_keys", &self.max_keys)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

/// Why a key ring was not loaded, or a key not wrapped. Never contains a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyLoadError {
    /// The text is not a key ring.
    #[error(transparent)]
    Ring(#[from] KeyRingError),
    /// Another provider wrapped the key.
    #[error(
        "line {line} of the key ring is a key that {found} wrapped, but {expected} is used to unwrap it; load it with \
        {found}, or replace the key"
    )]
    OtherProvider {
        /// The line number, counted from 1.
        line: usize,
        /// The provider that wrapped the key.
        found: String,
        /// The provider of this loader.
        expected: String,
    },
    /// The provider failed.
    #[error("{provider} cannot be used for key {key_id}")]
    Provider {
        /// The name of the provider.
        provider: String,
        /// The id of the key.
        key_id: String,
        /// Why.
        #[source]
        source: KeyProviderError,
    },
    /// The line names another key than it contains.
    #[error("line {line} of the key ring does not contain key {key_id}, which it names; restore it from a backup")]
    DifferentKey {
        /// The line number, counted from 1.
        line: usize,
        /// The id that the line names.
        key_id: String,
    },
}

#[cfg(test)]
mod tests;
