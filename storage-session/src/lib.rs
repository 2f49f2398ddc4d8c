//! Token storages of [`oauth-dance`](https://docs.rs/oauth-dance) that belong to one browser, for an application that
//! has sessions, or that stores nothing on the server.
//!
//! # When to use it
//!
//! * [`CookieTokens`] stores the tokens of a browser in an encrypted cookie of that browser. There is nothing to
//!   operate, but space for only a few kilobytes.
#![cfg_attr(
    any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"),
    doc = "* [`SessionTokens`] stores the tokens of a visitor in the application's session store."
)]
//!
//! The tokens of a browser are available only in its requests. Choose a shared storage, such as
//! [`oauth-dance-sqlx`](https://docs.rs/oauth-dance-sqlx) or [`oauth-dance-redis`](https://docs.rs/oauth-dance-redis),
//! if background jobs need the tokens, or if you want to list them.
//!
//! Concurrent requests of one browser do not see each other's writes. If a provider rotates refresh tokens, add a
//! *ledger*, a storage that all requests share for a few minutes, so that each refresh token is redeemed once. See
//! `OAuthBuilder::ledger`.
//!
//! # Example
//!
//! Both storages are layers. They add a [`RequestStorage`](oauth_dance_core::RequestStorage) to each request, and an
//! `OAuth::per_request` finds the tokens there:
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
//! | `tower-sessions-0_14` | `SessionTokens` on session stores of tower-sessions 0.14, which axum-login 0.18 uses |
//! | `tower-sessions-0_15` | `SessionTokens` on session stores of tower-sessions 0.15 |
//!
//! # Where to go next
//!
//! * [`CookieTokens`]: the limits of a cookie, and how to change the keys.
#![cfg_attr(
    any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"),
    doc = "* [`SessionTokens`]: the requirements on a session, and concurrent requests."
)]
//! * [Sessions and
//!   cookies](https://github.com/oauth-dance/oauth-dance/blob/main/docs/storages.md#sessions-and-cookies): what happens
//!   if a response never reaches the browser.
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
