use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{OAuth2Token, Subject, Timestamp, Verdict};
use openidconnect::core::CoreJsonWebKeySet;
use url::Url;

use super::cache::Cached;
use super::error::{DiscoveryError, IdTokenError};
use super::id_token::{self, Expected};
use super::identity::Identity;
use super::issuer::Issuer;
use super::metadata::{Metadata, document};
use crate::error::ConfigError;
use crate::http_client::HttpClients;
use crate::provider::{ClientAuthentication, Provider};
use crate::registered::{Registered, parse_endpoint};

const METADATA_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// So that a key which the issuer has withdrawn is not believed for longer.
const KEYS_AGE: Duration = Duration::from_secs(60 * 60);

/// What is known of one provider's issuer.
#[derive(Debug)]
pub(crate) struct OpenId {
    issuer: Issuer,
    metadata_url: Url,
    discovers: bool,
    metadata: Cached<Metadata>,
    keys: Cached<CoreJsonWebKeySet>,
}

impl OpenId {
    /// The issuer of a provider, if it names one that can have metadata.
    pub(crate) fn of(provider: &Provider) -> Result<Option<Self>, ConfigError> {
        let left_open = provider.left_open();
        let Some(issuer) = &provider.issuer else {
            let problem = "is empty, and there is no issuer whose metadata could tell";
            return left_open.map_or(Ok(None), |field| Err(ConfigError::invalid(&provider.name, field, problem)));
        };
        let metadata_url = match &provider.metadata_url {
            Some(url) => parse_endpoint(url).map_err(|problem| (problem, "metadata_url")),
            None => metadata_url(issuer).map_err(|problem| (problem, "issuer")),
        };
        match metadata_url {
            Ok(metadata_url) => Ok(Some(Self {
                issuer: Issuer::new(issuer),
                metadata_url,
                discovers: left_open.is_some(),
                metadata: Cached::new(METADATA_AGE),
                keys: Cached::new(KEYS_AGE),
            })),
            Err((problem, field)) => Err(ConfigError::invalid(&provider.name, field, problem)),
        }
    }

    /// The provider with what its configuration left to the metadata.
    pub(crate) async fn complete(
        &self,
        registered: &Arc<Registered>,
        http: &HttpClients,
        now: Timestamp,
    ) -> Result<Arc<Registered>, DiscoveryError> {
        if !self.discovers {
            return Ok(Arc::clone(registered));
        }
        let metadata = self.metadata(http, now).await?;
        let mut complete = Registered::clone(registered);
        let left_open = &registered.left_open;
        if left_open.authorization_endpoint {
            complete.authorization_endpoint = metadata.authorization_endpoint()?;
        }
        if left_open.token_endpoint {
            complete.token_endpoint = metadata.token_endpoint()?;
        }
        if left_open.refresh_endpoint {
            complete.refresh_endpoint = complete.token_endpoint.clone();
        }
        complete.userinfo_endpoint = registered.userinfo_endpoint.clone().or(metadata.userinfo_endpoint()?);
        complete.revocation_endpoint = registered.revocation_endpoint.clone().or(metadata.revocation_endpoint()?);
        if complete.pushed_authorization_request_endpoint.is_none() {
            complete.pushed_authorization_request_endpoint =
                metadata.required_pushed_authorization_request_endpoint()?;
        }
        complete.requires_issuer |= metadata.authorization_response_iss_parameter_supported;
        // RFC 8414 section 2: the default is Basic.
        let methods = metadata.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
        let offers = |method: &str| methods.iter().any(|offered| offered == method);
        if offers("client_secret_post") && !offers("client_secret_basic") {
            complete.client_authentication = ClientAuthentication::Body;
        }
        let challenges = metadata.code_challenge_methods_supported.as_deref();
        if challenges.is_some_and(|methods| !methods.iter().any(|method| method == "S256"))
            && !complete.quirks.without_pkce
        {
            return Err(DiscoveryError::Answer("it supports PKCE, but not S256"));
        }
        Ok(Arc::new(complete))
    }

    /// Fetches what [`verify`](Self::verify) needs, if it is not there yet.
    pub(crate) async fn prepare(&self, http: &HttpClients, now: Timestamp) -> Result<(), DiscoveryError> {
        let url = self.metadata(http, now).await?.jwks_uri()?;
        self.keys.get(now, document(http, &url)).await.map(drop)
    }

    /// Who an ID token says it is, if it is to be believed. `nonce` is that of the login; a refresh has none.
    pub(crate) async fn verify(
        &self,
        token: &OAuth2Token,
        nonce: Option<&str>,
        client_id: &str,
        http: &HttpClients,
        now: Timestamp,
    ) -> Result<Identity, IdTokenError> {
        let id_token = token.id_token.as_ref().ok_or(IdTokenError::Missing)?;
        let metadata = self.metadata(http, now).await?;
        let url = metadata.jwks_uri()?;
        let expected = Expected {
            issuer: &metadata.issuer,
            algorithms: &metadata.id_token_signing_alg_values_supported,
            client_id,
            access_token: &token.access_token,
            nonce,
            now,
        };
        let keys = self.keys.get(now, document(http, &url)).await?;
        match id_token::verify(id_token, &keys, &expected) {
            // The issuer may have other keys by now.
            Err(error @ (IdTokenError::UnknownKey | IdTokenError::Signature)) => {
                match self.keys.instead_of(&keys, now, document(http, &url)).await? {
                    Some(keys) => id_token::verify(id_token, &keys, &expected),
                    None => Err(error),
                }
            }
            verified => verified,
        }
    }

    /// What the ID token of a refresh says about the new token (OpenID Connect Core section 12.2).
    pub(crate) async fn look_at(
        &self,
        was: &Subject,
        token: &OAuth2Token,
        client_id: &str,
        http: &HttpClients,
        now: Timestamp,
    ) -> Verdict {
        let Some(id_token) = &token.id_token else { return Verdict::Good };
        let foreign = || Verdict::Foreign { cause: "the ID token names somebody else".to_owned() };
        match self.verify(token, None, client_id, http, now).await {
            Ok(identity) if identity.subject() == *was => Verdict::Good,
            Ok(_) => foreign(),
            // It is no proof of anything, but it came with the token, and it does not say what it should.
            Err(_) if claimed(id_token).is_some_and(|subject| subject != *was) => foreign(),
            Err(error) => Verdict::Doubtful { cause: error.to_string() },
        }
    }

    /// Where sessions at the provider are ended, if anywhere (OpenID Connect RP-Initiated Logout section 2.1).
    pub(crate) async fn end_session_endpoint(
        &self,
        http: &HttpClients,
        now: Timestamp,
    ) -> Result<Option<Url>, DiscoveryError> {
        self.metadata(http, now).await?.end_session_endpoint()
    }

    async fn metadata(&self, http: &HttpClients, now: Timestamp) -> Result<Arc<Metadata>, DiscoveryError> {
        let fetch = async {
            let metadata = Metadata::fetch(http, &self.metadata_url, &self.issuer).await?;
            if self.discovers { metadata.check() } else { Ok(metadata) }
        };
        self.metadata.get(now, fetch).await
    }
}

/// Where an issuer's metadata is (OpenID Connect Discovery section 4).
fn metadata_url(issuer: &str) -> Result<Url, &'static str> {
    if Issuer::new(issuer).is_family() {
        return Err("leaves the tenant open, so metadata_url has to say where its metadata is");
    }
    let mut url = parse_endpoint(issuer)?;
    if url.query().is_some() {
        return Err("must not have a query");
    }
    url.set_path(&format!("{}/.well-known/openid-configuration", url.path().trim_end_matches('/')));
    Ok(url)
}

fn claimed(id_token: &oauth_dance_core::Secret) -> Option<Subject> {
    let claims = id_token::claims(id_token)?;
    let text = |name: &str| claims.get(name)?.as_str().map(str::to_owned);
    Some(Subject { issuer: text("iss")?, subject: text("sub")? })
}
