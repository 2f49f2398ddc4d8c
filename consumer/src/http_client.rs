//! The HTTP clients: one for the token endpoint, which follows no redirect, and one for APIs, which stays on its origin.

use std::time::Duration;

use axum::body::Bytes;
use oauth_dance_core::BoxError;
use reqwest::redirect::{Action, Attempt, Policy};

use crate::error::ConfigError;

const USER_AGENT: &str = concat!("oauth-dance/", env!("CARGO_PKG_VERSION"));
const MAX_REDIRECTS: usize = 5;

/// How long calls may take and how much they may bring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For the whole of one call: connecting, sending, and reading the answer.
    pub(crate) timeout: Duration,
    /// The most bytes of one API answer that are read.
    pub(crate) max_response: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(20), max_response: 10 * 1024 * 1024 }
    }
}

/// Neither client keeps cookies or decompresses, so answers are as large as they are read.
#[derive(Clone, Debug)]
pub(crate) struct HttpClients {
    pub(crate) token_endpoint: reqwest::Client,
    pub(crate) api: reqwest::Client,
    pub(crate) limits: Limits,
}

impl HttpClients {
    pub(crate) fn new(limits: Limits) -> Result<Self, ConfigError> {
        let client = |redirects| {
            reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(redirects)
                .referer(false)
                // Another crate of the application may have switched these on for all.
                .no_gzip()
                .no_brotli()
                .no_zstd()
                .no_deflate()
                .connect_timeout(limits.timeout.min(Duration::from_secs(10)))
                .timeout(limits.timeout)
                .build()
                .map_err(|error| ConfigError::Http(error.into()))
        };
        Ok(Self { token_endpoint: client(Policy::none())?, api: client(Policy::custom(stay_on_origin))?, limits })
    }
}

/// A redirect to another origin is not followed but returned: neither the token nor the body may go there.
fn stay_on_origin(attempt: Attempt<'_>) -> Action {
    let same_origin = attempt.previous().iter().all(|url| url.origin() == attempt.url().origin());
    if same_origin && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

/// Why a body could not be read.
pub(crate) enum ReadError {
    TooLarge,
    Broken(reqwest::Error),
}

/// Reads a body, but no more than `limit` bytes of it.
pub(crate) async fn read_body(mut response: reqwest::Response, limit: usize) -> Result<Bytes, ReadError> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(ReadError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(ReadError::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(ReadError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// The error without its URL, whose query may hold a secret.
pub(crate) fn without_url(error: reqwest::Error) -> BoxError {
    error.without_url().into()
}
