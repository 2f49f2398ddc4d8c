use std::fmt;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use keyring_core::Error as StoreError;
use keyring_core::api::CredentialStoreApi as _;
use tokio::sync::oneshot;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::error::BoxError;
use crate::key_provider::{KeyProvider, KeyProviderError};
use crate::seal::SealingKey;
use crate::wrapped_key::WrappedKey;

#[cfg(target_os = "macos")]
use apple_native_keyring_store::keychain::Store;
#[cfg(windows)]
use windows_native_keyring_store::Store;
#[cfg(all(unix, not(target_vendor = "apple"), not(target_os = "android")))]
use zbus_secret_service_keyring_store::Store;

#[cfg(all(unix, not(target_vendor = "apple"), not(target_os = "android")))]
#[path = "keyring/absence.rs"]
mod absence;

/// The name of this kind of service.
const NAME: &str = "keyring";
/// How long a call waits for the keyring, which may ask the person for a password.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum length of the name of an application, in bytes.
const MAX_SERVICE: usize = 255;

/// Stores keys in the operating system's keyring: the Secret Service of a Linux desktop (GNOME Keyring, KWallet,
/// KeePassXC), the Keychain of macOS, or the Credential Manager of Windows. For programs that run on one person's machine.
///
/// A wrapped key is a reference: it names the application and the id of the key, and the keyring contains the key itself. Each
/// key has its own entry, so no write replaces the key of another process.
///
/// ```no_run
/// use oauth_dance_core::{KeyLoader, KeyringProvider, SealingKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let loader = KeyLoader::new(KeyringProvider::new("acme-cli")).with_timeout(std::time::Duration::from_secs(40));
/// let line = loader.wrap(&SealingKey::generate()).await?.to_string(); // "wrapped:keyring:93b1f0a2c4d5e6f7:…"
/// let ring = loader.load(&line).await?;
/// # Ok(())
/// # }
/// ```
///
/// `PersonalStorage` of `oauth-dance-sqlx` does all of this, including the first start of several processes.
///
/// # Errors
/// | error | cause |
/// | --- | --- |
/// | [`Unreachable`](KeyProviderError::Unreachable) | there is no keyring, or it did not respond in time |
/// | [`AccessDenied`](KeyProviderError::AccessDenied) | the keyring is locked, or the person dismissed its prompt |
/// | [`KeyUnknown`](KeyProviderError::KeyUnknown) | the keyring has no such key |
///
/// # Cancel safety
/// The keyring's interface blocks, so each call has its own thread, which a dropped future does not stop. After a
/// dropped [`wrap`](KeyProvider::wrap), the keyring may contain a key that nothing uses.
#[derive(Clone, Debug)]
pub struct KeyringProvider {
    service: String,
    timeout: Duration,
}

impl KeyringProvider {
    /// Stores keys under the name of an application, which the person sees in the keyring.
    pub fn new(application: impl Into<String>) -> Self {
        Self { service: application.into(), timeout: TIMEOUT }
    }

    /// How long a call may take, instead of 30 seconds. The keyring may prompt the person for a password. Give the
    /// loader [more](crate::KeyLoader::with_timeout).
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Whether there is a keyring. A locked one counts. On Linux, there is none if the session has no D-Bus, or if no program
    /// on it provides the Secret Service and none can be started.
    ///
    /// # Errors
    /// [`KeyProviderError::Unreachable`] if the keyring, or the session's D-Bus, does not respond in time, rejects the
    /// connection or cannot be started, so that neither is known.
    pub async fn is_present(&self) -> Result<bool, KeyProviderError> {
        match self.call(|_| Ok(())).await {
            Ok(()) => Ok(true),
            Err(Failure::Absent(_)) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The reference to a key. [`wrap`](KeyProvider::wrap) returns the same and stores the key; this stores nothing.
    ///
    /// # Errors
    /// [`KeyProviderError::Misconfigured`] if the name of the application is empty or too long.
    pub fn reference(&self, key: &SealingKey) -> Result<WrappedKey, KeyProviderError> {
        let entry = Entry { service: self.service.clone(), key_id: key.id() };
        let is_valid = !entry.service.is_empty() && entry.service.len() <= MAX_SERVICE;
        let reference = WrappedKey::new(NAME, key.id(), entry.to_string().into_bytes()).filter(|_| is_valid);
        reference.ok_or_else(|| {
            let advice = "give the keyring a name of the application with 1 to 255 bytes";
            KeyProviderError::misconfigured(advice, "the name of the application is empty or too long")
        })
    }

    /// Runs a call on a thread of its own.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Keyring) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, receiver) = oneshot::channel();
        // Not a thread of the runtime, which would wait for it at shutdown.
        let thread = thread::Builder::new().name("oauth-dance keyring".to_owned());
        let started = thread.spawn(move || {
            let result = Keyring::connect().and_then(|keyring| call(&keyring).map_err(Failure::Store));
            let _ = sender.send(result);
        });
        started.map_err(|error| Failure::Ended(error.into()))?;
        match timeout(self.timeout, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::Ended("the call of the keyring panicked".into())),
            Err(_) => Err(Failure::TimedOut(self.timeout)),
        }
    }
}

/// Its name is `keyring`.
#[async_trait]
impl KeyProvider for KeyringProvider {
    fn name(&self) -> &str {
        NAME
    }

    async fn wrap(&self, key: &SealingKey) -> Result<Vec<u8>, KeyProviderError> {
        let reference = self.reference(key)?;
        let (entry, text) = (Entry { service: self.service.clone(), key_id: key.id() }, key.encode());
        let stored = self.call(move |keyring| {
            keyring.write(&entry, text.as_bytes())?;
            // A keyring of the session alone, or a full one, may have accepted it and not stored it.
            Ok(*keyring.read(&entry)? == *text.as_bytes())
        });
        match stored.await? {
            true => Ok(reference.as_bytes().to_vec()),
            false => Err(KeyProviderError::damaged("the keyring did not return the key that was stored")),
        }
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<SealingKey, KeyProviderError> {
        let entry = Entry::parse(wrapped).ok_or_else(|| KeyProviderError::damaged("it is not a reference to a key"))?;
        let secret = self.call(move |keyring| keyring.read(&entry)).await?;
        let key = std::str::from_utf8(&secret).ok().and_then(SealingKey::parse);
        key.ok_or_else(|| KeyProviderError::damaged("the entry of the keyring is not a key"))
    }
}

/// Where the keyring stores a key.
struct Entry {
    service: String,
    key_id: String,
}

impl Entry {
    fn parse(reference: &[u8]) -> Option<Self> {
        let (key_id, service) = std::str::from_utf8(reference).ok()?.split_once('@')?;
        Some(Self { service: service.to_owned(), key_id: key_id.to_owned() })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key_id, self.service)
    }
}

/// A connection to the keyring. Not the default store of `keyring-core`, which belongs to the application.
#[cfg(any(target_os = "macos", windows, all(unix, not(target_vendor = "apple"), not(target_os = "android"))))]
struct Keyring(std::sync::Arc<Store>);

#[cfg(any(target_os = "macos", windows, all(unix, not(target_vendor = "apple"), not(target_os = "android"))))]
impl Keyring {
    fn connect() -> Result<Self, Failure> {
        match Store::new() {
            Ok(store) => Ok(Self(store)),
            Err(error) if means_absent(&error) => Err(Failure::Absent(error.into())),
            Err(error) => Err(Failure::Unconnected(error.into())),
        }
    }

    fn write(&self, entry: &Entry, secret: &[u8]) -> Result<(), StoreError> {
        self.0.build(&entry.service, &entry.key_id, None)?.set_secret(secret)
    }

    fn read(&self, entry: &Entry) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        Ok(Zeroizing::new(self.0.build(&entry.service, &entry.key_id, None)?.get_secret()?))
    }
}

/// Whether an error of a connection means that there is no keyring. Any other error may be that of a keyring that exists.
#[cfg(all(unix, not(target_vendor = "apple"), not(target_os = "android")))]
fn means_absent(error: &StoreError) -> bool {
    absence::is_known_from(error)
}

/// The keyrings of these systems are a part of them.
#[cfg(any(target_os = "macos", windows))]
fn means_absent(_: &StoreError) -> bool {
    false
}

/// Other systems have no keyring that is supported.
#[cfg(not(any(target_os = "macos", windows, all(unix, not(target_vendor = "apple"), not(target_os = "android")))))]
struct Keyring(std::convert::Infallible);

#[cfg(not(any(target_os = "macos", windows, all(unix, not(target_vendor = "apple"), not(target_os = "android")))))]
impl Keyring {
    fn connect() -> Result<Self, Failure> {
        Err(Failure::Absent("no keyring of this operating system is supported".into()))
    }

    fn write(&self, _: &Entry, _: &[u8]) -> Result<(), StoreError> {
        match self.0 {}
    }

    fn read(&self, _: &Entry) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        match self.0 {}
    }
}

/// Why a call of the keyring failed.
enum Failure {
    /// There is none.
    Absent(BoxError),
    /// There may be one, and it cannot be reached.
    Unconnected(BoxError),
    TimedOut(Duration),
    /// The thread of the call did not start, or ended without a result.
    Ended(BoxError),
    Store(StoreError),
}

/// No error contains a secret: those of the store that contain what was read are left out.
impl From<Failure> for KeyProviderError {
    fn from(failure: Failure) -> Self {
        let error = match failure {
            Failure::Absent(source) => {
                return Self::unreachable(Because::new("there is no keyring to connect to", source));
            }
            Failure::Unconnected(source) => {
                return Self::unreachable(Because::new(
                    "the keyring cannot be reached; start it, or correct DBUS_SESSION_BUS_ADDRESS",
                    source,
                ));
            }
            Failure::TimedOut(limit) => {
                return Self::unreachable(format!(
                    "the keyring did not respond within {limit:?}; unlock it, or confirm its prompt"
                ));
            }
            Failure::Ended(source) => return Self::unreachable(source),
            Failure::Store(error) => error,
        };
        match error {
            StoreError::NoEntry => Self::key_unknown("the keyring has no such entry"),
            StoreError::NoStorageAccess(source) => Self::access_denied(Because::new(
                "the keyring is locked, has no default collection, or its prompt was dismissed; unlock it",
                source,
            )),
            StoreError::PlatformFailure(source) => Self::unreachable(source),
            StoreError::Ambiguous(_) => Self::misconfigured(
                "the keyring has several entries for the key; delete all but one",
                "the entry is ambiguous",
            ),
            StoreError::BadEncoding(_) | StoreError::BadDataFormat(..) | StoreError::BadStoreFormat(_) => {
                Self::damaged("the entry of the keyring cannot be read")
            }
            other => Self::misconfigured(
                "the keyring rejects the entry; name the application differently",
                other.to_string(),
            ),
        }
    }
}

/// An error with what it means.
#[derive(Debug, thiserror::Error)]
#[error("{meaning}")]
struct Because {
    meaning: &'static str,
    #[source]
    source: BoxError,
}

impl Because {
    fn new(meaning: &'static str, source: BoxError) -> Self {
        Self { meaning, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_the_entry() {
        let key = SealingKey::generate();
        let provider = KeyringProvider::new("an @pp");
        let reference = provider.reference(&key).unwrap();
        assert_eq!((reference.provider(), reference.key_id()), ("keyring", key.id().as_str()));
        let entry = Entry::parse(reference.as_bytes()).unwrap();
        assert_eq!((entry.service, entry.key_id), ("an @pp".to_owned(), key.id()));
        assert!(!reference.to_string().contains(key.encode().as_str()));
        for invalid in ["", &"x".repeat(MAX_SERVICE + 1)] {
            let error = KeyringProvider::new(invalid).reference(&key).unwrap_err();
            assert!(matches!(error, KeyProviderError::Misconfigured { .. }), "{error:?}");
        }
        assert!(Entry::parse(b"no entry").is_none() && Entry::parse(b"\xff@app").is_none());
    }

    #[test]
    fn errors_show_no_secret() {
        for error in [
            StoreError::BadEncoding(b"CANARY".to_vec()),
            StoreError::BadDataFormat(b"CANARY".to_vec(), "malformed".into()),
        ] {
            let error = KeyProviderError::from(Failure::Store(error));
            assert!(matches!(error, KeyProviderError::Damaged { .. }));
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("CANARY") && !shown.contains("67, 65"), "{shown}");
        }
    }
}
