//! The storage contract of [`oauth-dance`](https://docs.rs/oauth-dance), and what builds on it: OAuth tokens, sealing,
//! and a refresh that redeems each refresh token once. The crate depends on no web framework and no database.
//!
//! # When to use it
//!
//! * To **write a token storage**: implement [`TokenStorage`], whose documentation is the complete contract. The module
//!   [`storage`] shows an implementation, and [`oauth-dance-conformance`](https://docs.rs/oauth-dance-conformance)
//!   tests yours.
//! * To **work with stored tokens outside a web application**, for example in a background job, a migration or a tool
//!   for operators: use [`Tokens`] and [`Refresher`].
//!
//! A web application depends on `oauth-dance`, which re-exports what it needs, and on a storage crate, such as
//! [`oauth-dance-sqlx`](https://docs.rs/oauth-dance-sqlx) or [`oauth-dance-redis`](https://docs.rs/oauth-dance-redis).
//!
//! # Example
//!
//! ```
//! use oauth_dance_core::{KeyRing, MemoryStorage, OAuth2Token, Precondition, Token, TokenKey, Tokens};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate());
//! let key = TokenKey::new("github", "alice")?;
//!
//! let token = Token::from(OAuth2Token::bearer("gho_16C7e42F292c6912E7710c838347Ae178B4a"));
//! tokens.put(&key, &token, Precondition::Always).await?;
//!
//! let found = tokens.get(&key).await?.expect("a token was stored");
//! assert_eq!(found.value, token);
//! assert!(!format!("{found:?}").contains("gho_"), "a token is never printed");
//! # Ok(())
//! # }
//! ```
//!
//! # Three layers
//!
//! * [`TokenStorage`] stores **opaque bytes under a key, with compare-and-swap**. It has six methods, and knows nothing
//!   about OAuth. [`MemoryStorage`] is the reference implementation.
//! * [`Tokens`] is the **typed handle** to any storage. It encodes a [`Token`] and seals it with a [`KeyRing`], bound
//!   to its [`TokenKey`]. When it reads a token, it verifies that the record belongs to the requested key.
//! * [`Refresher`] returns **usable tokens**. It redeems each refresh token exactly once, on any storage and with any
//!   number of processes, through a [`Redeem`] implementation for the provider.
//!
//! Encoding, sealing and refresh exist once, above the storage. A storage therefore cannot get them wrong, and a new
//! storage gets them for free.
//!
//! # Secrets
//!
//! Tokens, keys and client secrets are [`Secret`]s. `Debug` never shows them, no error contains them, and their memory
//! is overwritten on drop. The name of a function that disables a protection contains `dangerous`.
//!
//! # Where to go next
//!
//! * [`TokenStorage`]: the contract, and [`Capabilities`], what a storage declares about itself.
//! * [`Tokens::reseal_all`]: how to change the keys of a [`KeyRing`].
//! * [`KeyProvider`] and [`KeyLoader`]: a key ring whose keys a key management service has wrapped.
//! * [`Migrating`] and [`Copier`]: how to move to another storage.
//! * [`refresh`]: the refresh protocol, and what each [`ConnectionState`] means.
//! * [`RequestStorage`]: storages that belong to one request, such as a cookie.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `age` | no | [`AgeProvider`]: keys that the program [`age`](https://age-encryption.org) has wrapped |
//! | `aws-lc` | no | seals and opens with [AWS-LC](https://docs.rs/aws-lc-rs), two to four times as fast, and needs a C compiler; the sealed bytes are the same. The crate `oauth-dance` enables it |
//! | `cache` | no | `Tokens::with_cache`, a cache in front of a storage; adds the crate `moka` |
//! | `keyring` | no | `KeyringProvider`: keys that are stored in the operating system's keyring, through the stores of [`keyring`](https://docs.rs/keyring) |

#[cfg(feature = "age")]
mod age;
#[cfg(feature = "cache")]
mod cache;
mod cipher;
mod dpop_key;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod key;
mod key_file;
mod key_loader;
mod key_provider;
#[cfg(feature = "keyring")]
mod keyring;
mod login;
mod memory;
mod moving;
mod progress;
mod random;
mod record;
pub mod refresh;
mod request_storage;
mod scope_change;
mod seal;
mod secret;
pub mod storage;
mod time;
mod token;
mod tokens;
mod wire;
mod wrapped_key;

#[cfg(feature = "age")]
pub use age::AgeProvider;
/// The attribute that an implementation of [`TokenStorage`], [`KeyProvider`] or [`Redeem`] needs.
#[doc(no_inline)]
pub use async_trait::async_trait;
#[cfg(feature = "cache")]
pub use cache::Cache;
pub use dpop_key::DpopKey;
pub use error::{BoxError, StorageError, TokensError};
pub use key::{KeyError, TokenKey};
pub use key_file::{KeyFileError, read_key_file};
pub use key_loader::{KeyLoadError, KeyLoader};
pub use key_provider::{KeyProvider, KeyProviderError};
#[cfg(feature = "keyring")]
pub use keyring::KeyringProvider;
pub use memory::MemoryStorage;
pub use moving::{Copied, Copier, CopyError, Migrating, Moved};
#[doc(hidden)]
pub use random::random_bytes;
pub use record::{Record, Version, Versioned};
pub use refresh::{
    Connection, ConnectionState, DeadReason, Due, DueReport, Lease, Redeem, RedeemError, RefreshError, RefreshEvent,
    Refresher, Rejection, Verdict,
};
pub use request_storage::RequestStorage;
pub use scope_change::ScopeChange;
pub use seal::{KeyRing, KeyRingError, OpenError, SealingKey};
pub use secret::Secret;
pub use storage::{Capabilities, Cursor, Entry, Filter, Page, PageRequest, Precondition, TokenStorage};
pub use time::{Clock, Timestamp};
pub use token::{Extra, OAuth1Token, OAuth2Token, Subject, Token};
pub use tokens::{ResealFailure, ResealReport, Tokens};
#[doc(hidden)]
pub use wire::is_nested_at_most;
pub use wrapped_key::WrappedKey;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
