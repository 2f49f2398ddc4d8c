//! Token storages of [`oauth-dance`](https://docs.rs/oauth-dance) that live inside one request: for an application that
//! has sessions, and for one that has no storage on the server at all.
//!
//! * [`CookieTokens`] keeps a browser's tokens in an encrypted cookie of that browser.
#![cfg_attr(
    any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"),
    doc = "* [`SessionTokens`] keeps them in the application's session store, found from the visitor's session."
)]
//!
//! Both are layers. They bring a [`RequestStorage`](oauth_dance_core::RequestStorage) into every request, from which
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
//!     .each_browser_a_user()
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
//! # When not
//!
//! Tokens that live in requests are there in requests only. Background jobs, listing, and refreshing a token exactly once
//! on any number of replicas all need a storage that everybody shares.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cookie;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use cookie::fuzz;
mod kept;
#[cfg(any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"))]
mod session;

pub use cookie::{CookieTokens, CookieTokensService, InvalidCookieName};
#[cfg(any(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"))]
pub use session::{AnySessionStore, SessionTokens, SessionTokensService};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
