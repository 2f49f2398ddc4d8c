//! Lets the users of an axum application connect accounts elsewhere, and keeps their OAuth tokens.
//!
//! A user connects an account once; from then on every handler that asks for [`Connected<GitHub>`](Connected) gets a
//! client that calls GitHub for them, and every background job can have the same from [`OAuth::client`]. Tokens are
//! sealed, kept in whatever [`TokenStorage`] the application chooses, and refreshed when they expire.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use oauth_dance::{ApiError, Connected, KeyRing, MemoryStorage, OAuth, presets::GitHub};
//!
//! async fn home(github: Connected<GitHub>) -> Result<String, ApiError> {
//!     let me: serde_json::Value = github.get("/user").send().await?.success()?.json()?;
//!     Ok(format!("Hello, {}!", me["login"]))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
//!     .provider(GitHub::provider().client_from_env()?)
//!     .each_browser_a_user()
//!     .build()?;
//! let app: Router = Router::new().route("/", get(home)).merge(oauth.routes()).with_state(oauth);
//! # let _ = app;
//! # Ok(())
//! # }
//! ```
//!
//! # What to read next
//!
//! * [`OAuthBuilder`]: everything that can be set, from who the user is to the paths of the routes.
//! * [`Connected`], [`Connections`] and [`ApiClient`]: what handlers work with.
//! * [`Provider`], [`presets`] and [`ProviderConfig`]: providers as data.
//! * [`Provider::openid`] and [`Identity`]: OpenID Connect, with the cargo feature `oidc`.
//! * [`Hooks`]: taking part in a login, to create users, to refuse, to show pages of your own.
//!
//! # What it does to be safe
//!
//! Every login has a `state` of 256 bits, PKCE with S256, and a sealed cookie of its own that works once, in the browser
//! that started it. Where the provider knows how, the request is pushed to it first (RFC 9126) and the token bound to a key
//! (RFC 9449), by options of [`Provider`]. In OAuth 1.0a (RFC 5849) the temporary credentials' secret is in that cookie, and
//! their identifier in place of the state. The token goes to the provider's own origin only, in a header. Every call has a
//! time-out and a limit on its answer. No token, code or secret is in any log, error, `Debug` output or URL of ours. A log
//! of requests that the application makes itself should leave out the query of the callback route.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accounts;
mod background;
mod browser_user;
mod challenge;
mod client;
mod client_key;
mod connection;
mod cookies;
mod dance;
mod dead_grant;
mod decompress;
mod dpop;
mod error;
mod extract;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod hooks;
mod hosts;
mod http_client;
mod leased;
mod no_storage;
mod oauth;
mod oauth1;
mod openid;
mod paths;
pub mod presets;
mod provider;
mod pushed_request;
mod quirks;
mod registered;
mod rejected;
mod rejection;
mod response;
mod same_origin;
#[cfg(feature = "testing")]
pub mod testing;
mod token_endpoint;
mod token_response;
mod user;

pub use accounts::Account;
pub use client::{ApiClient, ApiRequest};
pub use client_key::ClientKey;
pub use dance::ended::EndSession;
pub use dance::{OAuthLayer, OAuthService};
pub use dead_grant::DeadGrant;
pub use error::{ApiError, ConfigError, ConnectError, LoginError, TokenEndpointError};
pub use extract::{Connected, Connections};
pub use hooks::{Authorized, BeforeLogin, Decision, Failure, Hooks, Repeated};
pub use oauth::{Disconnected, OAuth, OAuthBuilder, Revocation};
pub use oauth1::{OAuth1, SignatureMethod};
pub use openid::error::{DiscoveryError, IdTokenError};
pub use openid::identity::Identity;
pub use provider::{
    AppleKey, ClientAuthentication, OfflineAccess, Provider, ProviderConfig, ProviderName, Registration,
};
pub use quirks::{Quirks, RevocationRequest, TokenHeader, TokenRequest};
pub use rejection::ConnectedRejection;
pub use response::ApiResponse;
pub use same_origin::{CrossSiteRejection, SameOrigin};
pub use user::{User, Users};

pub use oauth_dance_core::{
    BoxError, Clock, Connection, ConnectionState, DeadReason, Due, DueReport, Extra, Filter, KeyRing, MemoryStorage,
    OAuth1Token, OAuth2Token, PageRequest, Precondition, RefreshEvent, RequestStorage, ResealFailure, ResealReport,
    ScopeChange, Secret, StorageError, Subject, Timestamp, Token, TokenKey, TokenStorage, Tokens,
};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
