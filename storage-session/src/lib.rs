//! Token storages of [`oauth-dance`](https://docs.rs/oauth-dance) that belong to one browser: for an application that
//! has sessions, and for one that stores nothing on the server.
//!
//! # When to use it
//!
//! * [`CookieTokens`] stores a browser's tokens in an encrypted cookie of that browser: nothing to operate, a few
//!   kilobytes.
#![cfg_attr(
    any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"),
    doc = "* [`SessionTokens`] stores them in the application's session store, in the visitor's session."
)]
//!
//! Tokens of a browser are available in its requests only. Background jobs, lists of users, and refreshing a token
//! exactly once on any number of replicas all need a shared storage, such as
//! [`oauth-dance-sqlx`](https://docs.rs/oauth-dance-sqlx) or [`oauth-dance-redis`](https://docs.rs/oauth-dance-redis).
//! For the last of these a *ledger* is enough: see `OAuthBuilder::ledger`.
//!
//! # Example
//!
//! Both are layers. They add a [`RequestStorage`](oauth_dance_core::RequestStorage) to every request, from which
//! `OAuth::per_request` takes the tokens:
//!
//! ```
//! use axum::{Router, routing::get};
//! use oauth_dance::{Connected, KeyRing, OAuth, presets::GitHub};
//! use oauth_dance_session::CookieTokens;
//!
//! async fn home(_github: Connected<GitHub>) {}
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (base_url, keys) = ("https://app.example", KeyRing::generate());
//! let oauth = OAuth::per_request(base_url, keys.clone())
//!     .provider(GitHub::provider().client("id", "secret"))
//!     .anonymous_users()
//!     .build()?;
//! let app: Router = Router::new()
//!     .route("/", get(home))
//!     .merge(oauth.routes())
//!     .layer(CookieTokens::new(base_url, keys))
//!     .with_state(oauth);
//! # let _ = app;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! None is on by default, and both may be on.
//!
//! | feature | adds |
//! | --- | --- |
//! | `tower-sessions-0_14` | `SessionTokens` on session stores of tower-sessions 0.14, as axum-login 0.18 has them |
//! | `tower-sessions-0_15` | `SessionTokens` on session stores of tower-sessions 0.15 |
//!
//! # Where to go next
//!
//! * [`CookieTokens`]: limits, and how to change the keys.
#![cfg_attr(
    any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"),
    doc = "* [`SessionTokens`]: which stores it works with, and what it needs of a session."
)]
//! * [Sessions and
//!   cookies](https://github.com/oauth-dance/oauth-dance/blob/main/docs/storages.md#sessions-and-cookies): what is lost
//!   if a response never reaches the browser, and how the ledger helps.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cookie;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use cookie::fuzz;
#[cfg(any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"))]
mod session;
mod stored;

pub use cookie::{CookieTokens, CookieTokensService, InvalidCookieName};
#[cfg(any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"))]
pub use session::{AnySessionStore, SessionTokens, SessionTokensService};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
