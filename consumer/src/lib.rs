//! Lets the users of an [axum](https://docs.rs/axum) application connect accounts at other sites, stores their OAuth tokens,
//! and gives handlers and background jobs an authenticated API client.
//!
//! # When to use it
//!
//! Use it if your application calls the API of another site **on behalf of its users** (GitHub, Google, your own provider),
//! or lets users sign in with an account there. A user connects an account once. From then on, every handler with a
//! [`Connected<GitHub>`](Connected) argument gets a client that calls GitHub for that user, and every background job gets
//! the same client from [`OAuth::client`]. Tokens are sealed, stored in the [`TokenStorage`] of your choice, and refreshed
//! when they expire: once across all requests, processes and machines.
//!
//! A worker, a service or a command-line program without a web framework uses [`Connector`] instead of [`OAuth`], without the
//! cargo feature `axum`: the same storages, providers, refresh and client, for users whose tokens are stored, and for the
//! application itself.
//!
//! This crate is a client. It does not make your application a provider, and it does not verify tokens that others send to
//! your API.
//!
//! # Example
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
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
//!         .provider(GitHub::provider().client_from_env()?)
//!         .anonymous_users()
//!         .build()?;
//!     let app = Router::new().route("/", get(home)).merge(oauth.routes()).layer(oauth.layer()).with_state(oauth.clone());
//!     let listener = tokio::net::TcpListener::bind("localhost:3000").await?;
//!     axum::serve(listener, app).await?;
//!     // Wait until logins and refreshes in flight have stored their tokens.
//!     oauth.finish().await;
//!     Ok(())
//! }
//! ```
//!
//! Register an OAuth app at GitHub with the callback URL `http://localhost:3000/login/github/authorized`, and set
//! `GITHUB_CLIENT_ID` and `GITHUB_CLIENT_SECRET`. In production, replace [`MemoryStorage`] by a durable storage, such as
//! `SqliteStorage` of [`oauth-dance-sqlx`](https://docs.rs/oauth-dance-sqlx), and [`KeyRing::generate`] by a key ring that
//! is stored with the other secrets of the application ([`KeyRing::parse`]), or wrapped by a key management service
//! ([`KeyLoader`]).
//!
//! # Users
//!
//! This crate has no user accounts of its own. The builder needs one source of users, which says who is signed in:
//!
//! | the application | setting |
//! | --- | --- |
//! | signs users in itself, with sessions, a framework or a proxy | [`OAuthBuilder::user`], from any axum extractor |
//! | signs users in with an account at a provider | the same, and a hook that creates the user ([`Hooks::authorized`]) |
//! | has no users | [`OAuthBuilder::anonymous_users`]: each browser is a user |
//!
//! # Background jobs
//!
//! A job has no request, so it names the user. The client is the same, and so is the refresh behind it:
//!
//! ```
//! use oauth_dance::testing::TestProvider;
//! use oauth_dance::{ConnectError, KeyRing, MemoryStorage, OAuth, User};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A provider for tests, so that this example needs no account.
//! let provider = TestProvider::start().await?;
//! let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
//!     .provider(provider.registration("acme"))
//!     .anonymous_users()
//!     .build()?;
//!
//! let (alice, bob) = (User::new("alice"), User::new("bob"));
//! provider.connect(&oauth, "acme", &alice).await?;
//!
//! let notes = oauth.client("acme", &alice).await?.get("/notes").send().await?.success()?;
//! assert_eq!(notes.json::<serde_json::Value>()?["user"], "alice");
//! assert!(matches!(oauth.client("acme", &bob).await, Err(ConnectError::NotConnected)));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `age` | no | `AgeProvider`: a key ring whose keys the program [`age`](https://age-encryption.org) has wrapped |
//! | `axum` | yes | the web part: [`OAuth`], routes, extractors, users and hooks. Without it, no crate of a web framework is compiled |
//! | `cache` | no | a cache in front of the storage (`OAuthBuilder::cache`, `ConnectorBuilder::cache`), through the [`moka`](https://docs.rs/moka) crate |
//! | `decompression` | yes | reads token responses that a server compresses although the request does not allow it, as some gateways do |
//! | `metrics` | no | counters of logins and refreshes, and `MeasuredStorage`, through the [`metrics`](https://docs.rs/metrics) crate |
//! | `native` | no | logins of command-line and desktop programs: `Connector::loopback_login` and `Connector::device_login` |
//! | `oauth1` | no | providers of OAuth 1.0a ([`Provider::oauth1`]), and their presets |
//! | `oidc` | no | OpenID Connect: providers configured by their issuer alone ([`Provider::openid`]), and verified ID tokens ([`Identity`]) |
//! | `reqwest-middleware` | no | `Connector::middleware`: attaches the token to the requests of a client of the [`reqwest-middleware`](https://docs.rs/reqwest-middleware) crate |
//! | `rsa-sha1` | no | `oauth1`, with the signature methods RSA-SHA1 and RSA-SHA256 |
//! | `testing` | no | `oauth1`, with a provider and a clock for the tests of an application: the module `testing` |
//!
//! Features are additive. OAuth 2.0 and its presets need none of them. If a provider needs a feature that is not enabled,
//! [`OAuthBuilder::build`] returns an error that names the feature.
//!
//! # Where to go next
//!
//! * [`Connector`]: without a web framework; the application's own token, and tokens for other services.
//! * [`OAuthBuilder`]: every setting, from the source of users to the paths of the routes.
//! * [`Connected`], [`Connections`] and [`ApiClient`]: what handlers use.
//! * [`presets`], [`Provider`] and [`ProviderConfig`]: providers as data.
//! * [`Hooks`]: take part in a login, to create users, to reject it, or to show your own pages.
//! * [`ApiError`], [`ConnectError`] and [`LoginError`]: what can fail, and what to do about it.
//! * `testing` (with the cargo feature of that name): a provider and a clock for the tests of your application.
//! * [The guide](https://github.com/oauth-dance/oauth-dance/blob/main/docs/guide/README.md), by task, and
//!   [recipes](https://github.com/oauth-dance/oauth-dance/tree/main/examples/recipes/src): complete applications, one for
//!   each way to identify users.
//!
//! # Security
//!
//! Every login has a `state` of 256 bits, PKCE with S256, and its own sealed cookie, which works once, in the browser that
//! started the login. If the provider supports it, options of [`Provider`] push the request first (RFC 9126) and bind the
//! token to a key (RFC 9449). With OAuth 1.0a (RFC 5849), the cookie holds the secret of the temporary credentials, and
//! their identifier takes the place of the state.
//!
//! A token is sent only to its provider's own origin, in a header. Every call has a timeout, and every response has a size
//! limit. No token, code or secret appears in a log, error, `Debug` output or URL of this library. If your application logs
//! requests itself, omit the query of the callback route.
//! [Security](https://github.com/oauth-dance/oauth-dance/blob/main/docs/security.md) has the threat model, and the test for
//! each defence.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "axum")]
mod app;
#[cfg(feature = "axum")]
mod browser;
mod client;
#[cfg_attr(not(feature = "axum"), allow(dead_code, reason = "a login in a browser uses all of it"))]
mod config;
mod connector;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(any(feature = "axum", feature = "native"))]
mod html;
#[cfg(any(feature = "axum", feature = "native"))]
#[cfg_attr(
    not(all(feature = "axum", feature = "native")),
    allow(dead_code, reason = "each kind of login uses a part of it")
)]
mod login;
#[cfg(feature = "native")]
mod native;
pub mod presets;
#[cfg_attr(not(feature = "axum"), allow(dead_code, unused_imports, reason = "a login in a browser uses all of it"))]
mod protocol;
#[cfg(test)]
mod rooms;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "axum")]
mod web;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use app::accounts::Account;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use app::hooks::{Authorized, BeforeLogin, Decision, FailedLogin, Hooks, Repeated};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use app::{OAuth, OAuthBuilder};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use browser::user::{User, Users};
pub use client::{ApiClient, ApiRequest, ApiResponse};
pub use config::client_key::ClientKey;
pub use config::error_pattern::ErrorPattern;
pub use config::oauth1::{OAuth1, SignatureMethod};
pub use config::provider::{ClientAuthentication, LoopbackHost, OfflineAccess, Provider, ProviderName};
pub use config::quirks::{Quirks, RevocationRequest, TokenHeader, TokenRequest};
pub use config::registration::Registration;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use connector::measured::MeasuredStorage;
#[cfg(feature = "reqwest-middleware")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
pub use connector::middleware::TokenMiddleware;
pub use connector::{Audience, Connector, ConnectorBuilder, Disconnected};
pub use error::{
    ApiError, ConfigError, ConnectError, ConnectedRejection, DiscoveryError, Fault, IdTokenError, LoginError,
    TokenEndpointError,
};
#[cfg(feature = "native")]
#[cfg_attr(docsrs, doc(cfg(feature = "native")))]
pub use native::{DeviceAttempt, DeviceLogin, LoggedIn, LoopbackAttempt, LoopbackLogin};
pub use presets::file::{AppleKey, ProviderConfig};
pub use protocol::oauth2::Revocation;
pub use protocol::openid::identity::Identity;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use web::extract::{Connected, Connections};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use web::logout::EndSession;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use web::same_origin::{CrossSiteRejection, SameOrigin};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use web::{OAuthLayer, OAuthService};

#[cfg(feature = "age")]
pub use oauth_dance_core::AgeProvider;
#[cfg(feature = "cache")]
pub use oauth_dance_core::Cache;
/// For implementations of this crate's traits, such as [`Hooks`].
pub use oauth_dance_core::async_trait;
pub use oauth_dance_core::{
    BoxError, Clock, Connection, ConnectionState, DeadReason, Due, DueReport, Extra, Filter, KeyLoadError, KeyLoader,
    KeyProvider, KeyProviderError, KeyRing, MemoryStorage, Migrating, OAuth1Token, OAuth2Token, PageRequest,
    Precondition, RefreshEvent, RequestStorage, ResealFailure, ResealReport, ScopeChange, SealingKey, Secret,
    StorageError, Subject, Timestamp, Token, TokenKey, TokenStorage, Tokens, WrappedKey,
};

/// Compiles the example of the README.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
