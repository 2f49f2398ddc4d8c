//! An issuer's metadata (OpenID Connect Discovery section 3, RFC 8414 section 2).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::{Map, Value};
use url::Url;

use super::discovered::Discovered;
use super::json;
use crate::config::hosts::{KnownHosts, Zone};
use crate::config::issuer::Issuer;
use crate::error::DiscoveryError;
use crate::protocol::http::decompress::decompressed;
use crate::protocol::http::text::printable;
use crate::protocol::http::{HttpClients, ReadError, read_body, without_url};

/// More than any issuer's metadata or keys have.
const MAX_DOCUMENT: usize = 512 * 1024;

/// The members that this client uses. Each is read on its own: an invalid one does not affect the others.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) issuer: String,
    /// The part that completes a registration.
    pub(crate) discovered: Arc<Discovered>,
    /// Endpoints that may be required, or what is wrong with them.
    required: BTreeMap<&'static str, Result<Url, &'static str>>,
    pub(crate) end_session_endpoint: Option<Url>,
    pub(crate) requires_pushed_requests: bool,
    pub(crate) id_token_algorithms: Vec<String>,
    code_challenge_methods: Vec<String>,
}

/// Endpoints without which an operation is impossible.
const REQUIRED: [&str; 4] =
    ["authorization_endpoint", "token_endpoint", "jwks_uri", "pushed_authorization_request_endpoint"];

impl Metadata {
    /// Reads metadata from a host in the zone `source`, and checks its issuer.
    pub(crate) fn read(body: &[u8], issuer: &Issuer, hosts: &KnownHosts, source: Zone) -> Result<Self, DiscoveryError> {
        let members = &json::members(body).ok_or(DiscoveryError::InvalidResponse("it is not a JSON object"))?;
        let found = members.get("issuer").and_then(json::exact);
        let found = found.ok_or(DiscoveryError::InvalidResponse("it does not name its issuer"))?;
        if !issuer.is_described_by(found) {
            let (expected, found) = (issuer.as_str().to_owned(), printable(found));
            return Err(DiscoveryError::IssuerMismatch { expected, found });
        }
        let endpoint = |name: &str| match members.get(name) {
            None | Some(Value::Null) => Err("is missing"),
            Some(Value::String(text)) => hosts.parse(text.trim(), source),
            Some(_) => Err("is not a string"),
        };
        let optional = |name: &'static str| match endpoint(name) {
            Ok(url) => Some(url),
            Err(problem) => {
                if members.get(name).is_some_and(|value| !value.is_null()) {
                    tracing::warn!(
                        issuer = found,
                        endpoint = name,
                        problem,
                        "an endpoint in an issuer's metadata was ignored"
                    );
                }
                None
            }
        };
        let requires_pushed_requests = flag(members, "require_pushed_authorization_requests");
        let discovered = Discovered {
            source,
            authorization_endpoint: endpoint("authorization_endpoint").ok(),
            token_endpoint: endpoint("token_endpoint").ok(),
            pushed_authorization_request_endpoint: endpoint("pushed_authorization_request_endpoint")
                .ok()
                .filter(|_| requires_pushed_requests),
            device_authorization_endpoint: optional("device_authorization_endpoint"),
            userinfo_endpoint: optional("userinfo_endpoint"),
            revocation_endpoint: optional("revocation_endpoint"),
            names_itself_in_callbacks: flag(members, "authorization_response_iss_parameter_supported"),
            token_endpoint_methods: list(members, "token_endpoint_auth_methods_supported"),
            revocation_endpoint_methods: list(members, "revocation_endpoint_auth_methods_supported"),
        };
        Ok(Self {
            issuer: found.to_owned(),
            discovered: Arc::new(discovered),
            required: REQUIRED.into_iter().map(|name| (name, endpoint(name))).collect(),
            end_session_endpoint: optional("end_session_endpoint"),
            requires_pushed_requests,
            id_token_algorithms: list(members, "id_token_signing_alg_values_supported"),
            code_challenge_methods: list(members, "code_challenge_methods_supported"),
        })
    }

    /// A required endpoint.
    pub(crate) fn endpoint(&self, endpoint: &'static str) -> Result<Url, DiscoveryError> {
        let found = self.required.get(endpoint).cloned().unwrap_or(Err("is not read"));
        found.map_err(|problem| DiscoveryError::Endpoint { endpoint, problem })
    }

    /// Whether it supports PKCE (RFC 7636), but not with S256.
    pub(crate) fn refuses_s256(&self) -> bool {
        let has = |method: &str| self.code_challenge_methods.iter().any(|found| found == method);
        has("plain") && !has("S256")
    }
}

/// Fetches a document, with a timeout and a size limit and without redirects.
pub(crate) async fn document(http: &HttpClients, url: &Url, nearest: Zone) -> Result<Bytes, DiscoveryError> {
    let failed = |error: reqwest::Error| match error.is_timeout() {
        true => DiscoveryError::Timeout,
        false => DiscoveryError::Unreachable(Arc::new(without_url(error))),
    };
    let client = http.token_endpoint.to(nearest).map_err(failed)?;
    let request = client.get(url.clone()).header(header::ACCEPT, "application/json");
    let response = request.send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(DiscoveryError::Status(response.status().as_u16()));
    }
    let headers = response.headers().clone();
    match read_body(response, MAX_DOCUMENT).await {
        Ok(body) => Ok(decompressed(&headers, body, MAX_DOCUMENT)),
        Err(ReadError::TooLarge) => Err(DiscoveryError::InvalidResponse("it is too large")),
        Err(ReadError::Broken(error)) => Err(failed(error)),
    }
}

fn flag(members: &Map<String, Value>, name: &str) -> bool {
    match members.get(name) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(flag)) => flag.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// The strings in a list. A single string is a list of one; anything else is empty.
fn list(members: &Map<String, Value>, name: &str) -> Vec<String> {
    let values = match members.get(name) {
        Some(Value::Array(values)) => values.as_slice(),
        Some(text @ Value::String(_)) => std::slice::from_ref(text),
        _ => &[],
    };
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
