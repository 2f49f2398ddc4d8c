//! The storage contract of [`oauth-dance`](https://docs.rs/oauth-dance), and what builds on it: OAuth tokens, sealing,
//! and a refresh that redeems each refresh token once. No web framework and no database.
//!
//! # When to use it
//!
//! * To **write a token storage**: implement [`TokenStorage`], whose page is the whole contract. [`storage`] shows a
//!   complete implementation, and [`oauth-dance-conformance`](https://docs.rs/oauth-dance-conformance) tests yours.
//! * To **work with stored tokens outside of a web application**, for example in a migration or an administrator's
//!   tool: use [`Tokens`].
//!
//! A web application depends on `oauth-dance`, which re-exports what it needs, and on the crate of a storage, such as
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
//! let found = tokens.get(&key).await?.expect("just written");
//! assert_eq!(found.value, token);
//! assert!(!format!("{found:?}").contains("gho_"), "a token is never printed");
//! # Ok(())
//! # }
//! ```
//!
//! # Two layers
//!
//! * [`TokenStorage`] stores **opaque bytes under a key, with compare-and-swap**: six methods, which know nothing about
//!   OAuth. [`MemoryStorage`] is the reference.
//! * [`Tokens`] is the typed handle above any storage. It encodes a [`Token`] and seals it with a [`KeyRing`]. When it
//!   reads a token, it verifies that the record belongs to the requested key. [`Refresher`] refreshes tokens, each
//!   exactly once, on any storage and with any number of processes.
//!
//! # Where to go next
//!
//! * [`TokenStorage`]: the contract, and [`Capabilities`], what a storage declares about itself.
//! * [`Tokens::reseal_all`]: how to change the keys of a [`KeyRing`].
//! * [`Migrating`] and [`Copier`]: how to move to another storage.
//! * [`refresh`]: the refresh protocol, and what each [`ConnectionState`] means.
//! * [`RequestStorage`]: storages that belong to one request, such as a cookie.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `cache` | no | `Tokens::with_cache`: a cache in front of a storage, with the crate `moka` |

#[cfg(feature = "cache")]
mod cache;
mod dpop_key;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod key;
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

/// The attribute that an implementation of [`TokenStorage`] or [`Redeem`] needs.
#[doc(no_inline)]
pub use async_trait::async_trait;
#[cfg(feature = "cache")]
pub use cache::Cache;
pub use dpop_key::DpopKey;
pub use error::{BoxError, StorageError, TokensError};
pub use key::{KeyError, TokenKey};
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

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
