//! The storage contract of `oauth-dance`: where a web application keeps its users' OAuth tokens.
//!
//! Two layers live here, and nothing else: no web framework, no database.
//!
//! * [`TokenStorage`] keeps **opaque bytes under a key, with compare-and-swap**. Its documentation is the
//!   whole contract; [`storage`] shows a complete implementation. [`MemoryStorage`] is the reference.
//! * [`Tokens`] is the typed handle above any storage: it encodes a [`Token`], seals it with a
//!   [`KeyRing`] and checks on the way back that the record belongs to the key it was asked for.
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
//! assert!(!format!("{found:?}").contains("gho_"), "a token never prints");
//! # Ok(())
//! # }
//! ```

mod dpop_key;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod key;
mod login;
mod memory;
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

pub use dpop_key::DpopKey;
pub use error::{BoxError, StorageError, TokensError};
pub use key::{KeyError, TokenKey};
pub use memory::MemoryStorage;
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
pub use tokens::{LeftAlone, ResealReport, Tokens};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
