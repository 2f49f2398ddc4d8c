//! The requirements on an OAuth client, each tested over real HTTP: an application, a browser and a provider.
//!
//! A test that begins with two letters and a number is one row of the checklist of that area: `ar` authorization
//! request, `cb` callback, `tr` token request and response, `rf` refresh, `ac` API client, `lo` logout, `ft` faults of
//! the provider, `id` OpenID Connect, `mu` many users, `sc` sessions and cookies, `st` storage, `ds` limits, `o1` OAuth 1.0a.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod api;
mod application;
mod authorization;
mod bound;
#[cfg(feature = "cache")]
mod cached;
mod callback;
mod callback_errors;
mod dead_token;
mod failed_logins;
mod faults;
mod form_post;
mod limits;
mod login_params;
mod logout;
mod nonces;
mod oauth1_api;
mod oauth1_dance;
#[cfg(feature = "oidc")]
mod openid;
#[cfg(feature = "oidc")]
mod openid_discovery;
#[cfg(feature = "oidc")]
mod openid_malformed;
#[cfg(feature = "oidc")]
mod openid_refresh;
mod pushed;
mod refresh;
mod rejected;
mod repeated;
mod retained_refresh_token;
mod sessions;
mod stored;
mod token;
mod users;
mod zones;
