//! A login attempt: what its end needs from its start.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{DpopKey, Timestamp, random_bytes};
use serde::{Deserialize, Serialize};

use crate::config::issuer::OPENID_SCOPE;
use crate::protocol::openid::IdTokenExpectations;
use crate::protocol::registered::Registered;

/// What the response of a provider is compared with. In a web application, it is sealed in a cookie.
#[derive(Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The identifier in the callback: `state`, or in OAuth 1.0a the `oauth_token` of the temporary credentials.
    pub(crate) state: String,
    /// The proof at the token endpoint that both requests belong to one login: the verifier of PKCE, or in OAuth 1.0a the
    /// secret of the temporary credentials.
    pub(crate) verifier: String,
    pub(crate) provider: String,
    pub(crate) next: String,
    /// The private key to bind the token to, if the provider binds tokens (RFC 9449 section 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dpop_key: Option<String>,
    /// The requested scopes, if they differ from the provider's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<Vec<String>>,
    /// Whether OpenID Connect was requested, so that an ID token is required.
    #[serde(default)]
    pub(crate) openid: bool,
    /// The nonce that the ID token must contain (OpenID Connect Core section 3.1.2.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nonce: Option<String>,
    /// The `max_age` of the request in seconds, if any (the same section).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_age: Option<u64>,
    /// The identifier and the tenant of the user who started the login in a web application.
    pub(crate) user: Option<(String, Option<String>)>,
    pub(crate) since: u64,
    /// Whether this browser has received the response to its first callback, which set the cookie that says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_spent: bool,
}

impl Attempt {
    /// An attempt with a state of 256 random bits.
    pub(crate) fn blank(provider: &str, now: Timestamp) -> Self {
        Self {
            state: URL_SAFE_NO_PAD.encode(random_bytes::<32>()),
            verifier: String::new(),
            provider: provider.to_owned(),
            next: String::new(),
            dpop_key: None,
            scopes: None,
            openid: false,
            nonce: None,
            max_age: None,
            user: None,
            since: now.as_unix_seconds(),
            is_spent: false,
        }
    }

    pub(crate) fn bind(&mut self, key: &DpopKey) {
        self.dpop_key = Some(key.expose().to_owned());
    }

    pub(crate) fn dpop_key(&self) -> Option<DpopKey> {
        DpopKey::parse(self.dpop_key.as_deref()?)
    }

    /// Requires an ID token if these scopes ask for one, with a nonce of 256 random bits if the provider repeats it.
    pub(crate) fn expect_id_token_for(&mut self, registered: &Registered, scopes: &[String]) {
        self.openid = registered.openid.is_some() && scopes.iter().any(|scope| scope == OPENID_SCOPE);
        let repeats_nonce = self.openid && !registered.declared.quirks.without_nonce;
        self.nonce = repeats_nonce.then(|| URL_SAFE_NO_PAD.encode(random_bytes::<32>()));
    }

    /// Records the `max_age` of the authorization request, which the ID token will be checked against.
    pub(crate) fn expect_sign_in_within(&mut self, max_age: Option<&String>) {
        self.max_age = max_age.and_then(|seconds| seconds.trim().parse().ok());
    }

    pub(crate) fn id_token_expectations(&self) -> IdTokenExpectations<'_> {
        let signed_in_since = self.max_age.map(|max_age| self.since.saturating_sub(max_age));
        IdTokenExpectations { nonce: self.nonce.as_deref(), signed_in_since }
    }

    /// What remains of it when it is spent: nothing that is secret.
    pub(crate) fn spent(&self) -> Self {
        let spent = Self::blank(&self.provider, Timestamp::from_unix_seconds(self.since));
        Self { state: self.state.clone(), is_spent: true, ..spent }
    }
}

/// A name for a state that does not reveal it.
pub(crate) fn fingerprint(state: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, state.as_bytes()))
}
