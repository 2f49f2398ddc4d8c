//! Replaces OAuth 1.0a without its cargo feature: no provider that uses it can be registered.

use http::HeaderMap;
use oauth_dance_core::{OAuth1Token, Secret, Timestamp};
use reqwest::Request;
use url::Url;

use crate::config::endpoint::PlainHttp;
use crate::config::oauth1::OAuth1;
use crate::error::{ApiError, ConfigError, TokenEndpointError};
use crate::protocol::http::HttpClients;

#[derive(Clone, Debug)]
pub(crate) enum Client {}

#[expect(dead_code, reason = "there is no client to send them")]
#[derive(Clone, Copy)]
pub(crate) struct Credentials<'a> {
    pub(crate) token: &'a str,
    pub(crate) secret: &'a str,
}

impl Client {
    pub(crate) fn check(
        provider: &str,
        _: &OAuth1,
        _: &str,
        _: Option<&Secret>,
        _: &PlainHttp,
    ) -> Result<Self, ConfigError> {
        let problem = "is for OAuth 1.0a, which needs the cargo feature `oauth1` of oauth-dance";
        Err(ConfigError::invalid(provider, "temporary_credentials_endpoint", problem))
    }

    pub(crate) fn sign(&self, _: Request, _: &OAuth1Token, _: Timestamp) -> Result<Request, ApiError> {
        match *self {}
    }

    pub(crate) fn problem(&self, _: &HeaderMap, _: &[u8], _: &OAuth1Token) -> Option<String> {
        match *self {}
    }
}

pub(crate) async fn temporary_credentials(
    _: &HttpClients,
    client: &Client,
    _: &str,
    _: Timestamp,
) -> Result<OAuth1Token, TokenEndpointError> {
    match *client {}
}

pub(crate) async fn token_credentials(
    _: &HttpClients,
    client: &Client,
    _: &Url,
    _: Credentials<'_>,
    _: &str,
    _: Timestamp,
) -> Result<OAuth1Token, TokenEndpointError> {
    match *client {}
}

pub(crate) fn authorization_url(endpoint: &Url, _: &Secret, _: impl IntoIterator<Item = (String, String)>) -> Url {
    endpoint.clone()
}

pub(crate) fn is_of_the_token(_: &str) -> bool {
    false
}
