//! What an issuer says about itself (OpenID Connect Discovery section 3).

use std::sync::Arc;

use http::{StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::error::DiscoveryError;
use super::issuer::Issuer;
use crate::http_client::{HttpClients, ReadError, read_body, without_url};
use crate::registered::parse_endpoint;

/// More than any issuer's metadata or keys have.
const MAX_DOCUMENT: usize = 512 * 1024;

/// The members that are needed here. Others are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    jwks_uri: Option<String>,
    pushed_authorization_request_endpoint: Option<String>,
    #[serde(default)]
    require_pushed_authorization_requests: bool,
    #[serde(default)]
    pub(crate) id_token_signing_alg_values_supported: Vec<String>,
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    pub(crate) code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Fetches the metadata and checks whose it is.
    pub(crate) async fn fetch(http: &HttpClients, url: &Url, issuer: &Issuer) -> Result<Self, DiscoveryError> {
        let metadata: Self = document(http, url).await?;
        if !issuer.is_described_by(&metadata.issuer) {
            return Err(DiscoveryError::IssuerMismatch);
        }
        Ok(metadata)
    }

    /// Checks the endpoints that it has, before it is kept.
    pub(crate) fn check(self) -> Result<Self, DiscoveryError> {
        for (endpoint, url) in [
            ("authorization_endpoint", &self.authorization_endpoint),
            ("token_endpoint", &self.token_endpoint),
            ("userinfo_endpoint", &self.userinfo_endpoint),
            ("revocation_endpoint", &self.revocation_endpoint),
        ] {
            optional(endpoint, url.as_deref())?;
        }
        Ok(self)
    }

    pub(crate) fn authorization_endpoint(&self) -> Result<Url, DiscoveryError> {
        required("authorization_endpoint", self.authorization_endpoint.as_deref())
    }

    pub(crate) fn token_endpoint(&self) -> Result<Url, DiscoveryError> {
        required("token_endpoint", self.token_endpoint.as_deref())
    }

    pub(crate) fn jwks_uri(&self) -> Result<Url, DiscoveryError> {
        required("jwks_uri", self.jwks_uri.as_deref())
    }

    /// The endpoint, where requests that are not pushed are refused (RFC 9126 section 5).
    pub(crate) fn required_pushed_authorization_request_endpoint(&self) -> Result<Option<Url>, DiscoveryError> {
        let endpoint = self.pushed_authorization_request_endpoint.as_deref();
        let name = "pushed_authorization_request_endpoint";
        if self.require_pushed_authorization_requests { required(name, endpoint).map(Some) } else { Ok(None) }
    }

    pub(crate) fn userinfo_endpoint(&self) -> Result<Option<Url>, DiscoveryError> {
        optional("userinfo_endpoint", self.userinfo_endpoint.as_deref())
    }

    pub(crate) fn revocation_endpoint(&self) -> Result<Option<Url>, DiscoveryError> {
        optional("revocation_endpoint", self.revocation_endpoint.as_deref())
    }

    pub(crate) fn end_session_endpoint(&self) -> Result<Option<Url>, DiscoveryError> {
        optional("end_session_endpoint", self.end_session_endpoint.as_deref())
    }
}

/// Fetches a JSON document, in bounded time and size and from nowhere else.
pub(crate) async fn document<T: DeserializeOwned>(http: &HttpClients, url: &Url) -> Result<T, DiscoveryError> {
    let unreachable = |error| DiscoveryError::Unreachable(Arc::new(without_url(error)));
    let request = http.token_endpoint.get(url.clone()).header(header::ACCEPT, "application/json");
    let response = request.send().await.map_err(unreachable)?;
    if response.status() != StatusCode::OK {
        return Err(DiscoveryError::Status(response.status().as_u16()));
    }
    let body = match read_body(response, MAX_DOCUMENT).await {
        Ok(body) => body,
        Err(ReadError::TooLarge) => return Err(DiscoveryError::Answer("it is too large")),
        Err(ReadError::Broken(error)) => return Err(unreachable(error)),
    };
    // The parser's own message is dropped: it may quote the body.
    serde_json::from_slice(&body).map_err(|_| DiscoveryError::Answer("it is not the JSON that it should be"))
}

fn required(endpoint: &'static str, url: Option<&str>) -> Result<Url, DiscoveryError> {
    optional(endpoint, url)?.ok_or(DiscoveryError::Endpoint { endpoint })
}

fn optional(endpoint: &'static str, url: Option<&str>) -> Result<Option<Url>, DiscoveryError> {
    url.map(parse_endpoint).transpose().map_err(|_| DiscoveryError::Endpoint { endpoint })
}
