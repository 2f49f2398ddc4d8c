use std::sync::Arc;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::seal::SealingKey;

/// A key management service, which wraps the keys of a [`KeyRing`](crate::KeyRing): Vault, OpenBao, a cloud service, a
/// hardware module, or `age`.
///
/// The key ring is then stored wrapped, as text with a [`WrappedKey`](crate::WrappedKey) on each line. A
/// [`KeyLoader`](crate::KeyLoader) has the service unwrap them when a process starts. The service never sees a token.
///
/// ```
/// use oauth_dance_core::{KeyLoader, KeyProvider, KeyProviderError, KeyRing, OpenError, SealingKey, async_trait};
///
/// /// Wraps keys with another key.
/// struct Master(KeyRing);
///
/// #[async_trait]
/// impl KeyProvider for Master {
///     fn name(&self) -> &str {
///         "master"
///     }
///
///     async fn wrap(&self, key: &SealingKey) -> Result<Vec<u8>, KeyProviderError> {
///         Ok(self.0.seal("key", b"", key.encode().as_bytes()))
///     }
///
///     async fn unwrap(&self, wrapped: &[u8]) -> Result<SealingKey, KeyProviderError> {
///         let opened = self.0.open("key", b"", wrapped).map_err(|error| match error {
///             OpenError::KeyUnavailable { .. } => KeyProviderError::key_unknown(error),
///             error => KeyProviderError::damaged(error),
///         })?;
///         let text = std::str::from_utf8(&opened).map_err(KeyProviderError::damaged)?;
///         SealingKey::parse(text).ok_or_else(|| KeyProviderError::damaged("it is not a key"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let loader = KeyLoader::new(Master(KeyRing::generate()));
/// let key = SealingKey::generate();
/// let text = loader.wrap(&key).await?.to_string();
/// assert_eq!(loader.load(&text).await?.primary_id(), key.id());
/// # Ok(())
/// # }
/// ```
///
/// # What an implementation has to do
///
/// * `wrap` and `unwrap` return within seconds, or an error. A [`KeyLoader`](crate::KeyLoader) stops waiting after
///   [its time-out](crate::KeyLoader::with_timeout), and drops the future.
/// * `unwrap` authenticates what it unwraps: altered bytes are an error. A [`KeyLoader`](crate::KeyLoader) compares the
///   id of the key as well.
/// * No error contains a key or a credential of the service.
/// * Dropping a future at any point leaves nothing to clean up.
#[async_trait]
pub trait KeyProvider: Send + Sync + 'static {
    /// The name of this kind of service, which each wrapped key carries: letters, digits, `-`, `_` and `.`. It must not
    /// change.
    fn name(&self) -> &str;

    /// Wraps a key. The result may be stored anywhere.
    ///
    /// # Errors
    /// [`KeyProviderError`].
    async fn wrap(&self, key: &SealingKey) -> Result<Vec<u8>, KeyProviderError>;

    /// Unwraps the result of [`wrap`](Self::wrap).
    ///
    /// # Errors
    /// [`KeyProviderError`].
    async fn unwrap(&self, wrapped: &[u8]) -> Result<SealingKey, KeyProviderError>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: KeyProvider + ?Sized> KeyProvider for Arc<P> {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn wrap(&self, key: &SealingKey) -> Result<Vec<u8>, KeyProviderError> {
        (**self).wrap(key).await
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<SealingKey, KeyProviderError> {
        (**self).unwrap(wrapped).await
    }
}

/// Why a [`KeyProvider`] did not wrap or unwrap a key. No variant contains a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProviderError {
    /// The service does not respond. Nothing is known about the key.
    #[error("the key management service does not respond; check its address, its state and the network, and try again")]
    Unreachable {
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// The service rejects this process.
    #[error("the key management service denies access; correct the credentials, or permit them to use the key")]
    AccessDenied {
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// The service does not have the key that wrapped this one.
    #[error(
        "the key management service does not have the key that wrapped this one; name the service and the key that \
        wrapped it, or restore that key"
    )]
    KeyUnknown {
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// The wrapped key was truncated or altered.
    #[error("the wrapped key is damaged; restore the key ring from a backup")]
    Damaged {
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// The provider cannot work until its configuration is corrected.
    #[error("{advice}")]
    Misconfigured {
        /// What is wrong, and what to do about it.
        advice: String,
        /// The underlying error.
        #[source]
        source: BoxError,
    },
}

impl KeyProviderError {
    /// Creates an [`Unreachable`](Self::Unreachable) error with its cause.
    pub fn unreachable(source: impl Into<BoxError>) -> Self {
        Self::Unreachable { source: source.into() }
    }

    /// Creates an [`AccessDenied`](Self::AccessDenied) error with its cause.
    pub fn access_denied(source: impl Into<BoxError>) -> Self {
        Self::AccessDenied { source: source.into() }
    }

    /// Creates a [`KeyUnknown`](Self::KeyUnknown) error with its cause.
    pub fn key_unknown(source: impl Into<BoxError>) -> Self {
        Self::KeyUnknown { source: source.into() }
    }

    /// Creates a [`Damaged`](Self::Damaged) error with its cause.
    pub fn damaged(source: impl Into<BoxError>) -> Self {
        Self::Damaged { source: source.into() }
    }

    /// Creates a [`Misconfigured`](Self::Misconfigured) error with what to do and its cause.
    pub fn misconfigured(advice: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Misconfigured { advice: advice.into(), source: source.into() }
    }

    /// Whether the same call may succeed later without any other change.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
