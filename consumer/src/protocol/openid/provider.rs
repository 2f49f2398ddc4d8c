//! An issuer in use: its documents, and what they say about a token.
//!
//! The documents are fetched when they are first needed and not at startup, so that an application starts while an issuer is
//! unavailable. The metadata is accepted only from the issuer's own URL, and must name the issuer (OpenID Connect Discovery
//! section 4.3). If an ID token names a key that is not in the cached set, the set is fetched again, at most once a minute:
//! issuers publish a new key before they use it, but a cache may be older.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{OAuth2Token, Subject, Timestamp, Verdict};
use url::Url;

use super::cache::{Cached, CallTime};
use super::discovered::Discovered;
use super::id_token::{self, Expected};
use super::identity::{Identity, subject_in};
use super::keys::KeySet;
use super::metadata::{Metadata, document};
use super::{IdTokenExpectations, json};
use crate::config::hosts::{KnownHosts, Zone};
use crate::config::issuer::Issuer;
use crate::config::provider::Provider;
use crate::error::{ConfigError, DiscoveryError, IdTokenError};
use crate::protocol::http::HttpClients;

const METADATA_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Limits how long a key that the issuer has withdrawn is accepted.
const KEYS_AGE: Duration = Duration::from_secs(60 * 60);

/// The issuer of one provider, with its cached documents.
#[derive(Debug)]
pub(crate) struct OpenId {
    issuer: Issuer,
    metadata_url: Url,
    /// The endpoints that have to come from its metadata.
    discovered_endpoints: Vec<&'static str>,
    has_pushed_endpoint: bool,
    sends_pkce: bool,
    hosts: KnownHosts,
    metadata: Cached<Metadata>,
    keys: Cached<KeySet>,
}

impl OpenId {
    /// The issuer of a provider, if it has one with metadata.
    pub(crate) fn of(provider: &Provider, hosts: &KnownHosts) -> Result<Option<Self>, ConfigError> {
        let discovered_endpoints = provider.discovered_endpoints();
        let Some(issuer) = &provider.issuer else {
            let problem = "is empty, and there is no issuer whose metadata could name it";
            let field = discovered_endpoints.first();
            return field.map_or(Ok(None), |field| Err(ConfigError::invalid(&provider.name, field, problem)));
        };
        // Both are from the configuration, which may name any host.
        let metadata_url = match &provider.metadata_url {
            Some(url) => hosts.parse(url, Zone::Machine).map_err(|problem| (problem, "metadata_url")),
            None => metadata_url(issuer, hosts).map_err(|problem| (problem, "issuer")),
        };
        match metadata_url {
            Ok(metadata_url) => Ok(Some(Self {
                issuer: Issuer::new(issuer),
                metadata_url,
                discovered_endpoints,
                has_pushed_endpoint: provider.pushed_authorization_request_endpoint.is_some(),
                sends_pkce: !provider.quirks.without_pkce,
                hosts: hosts.clone(),
                metadata: Cached::new(METADATA_AGE),
                keys: Cached::new(KEYS_AGE),
            })),
            Err((problem, field)) => Err(ConfigError::invalid(&provider.name, field, problem)),
        }
    }

    /// The part of the metadata that completes the configuration, if that needs any.
    pub(crate) async fn discover(&self, http: &HttpClients) -> Result<Option<Arc<Discovered>>, DiscoveryError> {
        if self.discovered_endpoints.is_empty() {
            return Ok(None);
        }
        let metadata = self.metadata(http, http.clock.now()).await?;
        if metadata.requires_pushed_requests && !self.has_pushed_endpoint {
            metadata.endpoint("pushed_authorization_request_endpoint")?;
        }
        if metadata.refuses_s256() && self.sends_pkce {
            return Err(DiscoveryError::InvalidResponse("it supports PKCE, but not S256"));
        }
        Ok(Some(Arc::clone(&metadata.discovered)))
    }

    /// Fetches what [`verify`](Self::verify) needs, unless it is cached.
    pub(crate) async fn prepare(&self, http: &HttpClients, now: Timestamp) -> Result<(), DiscoveryError> {
        let (metadata, url) = self.metadata_with_keys(http, now).await?;
        self.keys.get(terms(http, now), self.fetch_keys(http, &metadata, url)).await.map(drop)
    }

    /// The identity in an ID token, after verification. For a refresh, `asked` is empty.
    pub(crate) async fn verify(
        &self,
        token: &OAuth2Token,
        asked: IdTokenExpectations<'_>,
        client_id: &str,
        http: &HttpClients,
        now: Timestamp,
    ) -> Result<Identity, IdTokenError> {
        let id_token = token.id_token.as_ref().ok_or(IdTokenError::Missing)?;
        let (metadata, url) = self.metadata_with_keys(http, now).await?;
        let expected = Expected {
            issuer: &metadata.issuer,
            algorithms: &metadata.id_token_algorithms,
            client_id,
            access_token: &token.access_token,
            asked,
            now,
        };
        let keys = self.keys.get(terms(http, now), self.fetch_keys(http, &metadata, url.clone())).await?;
        match id_token::verify(id_token, &keys, &expected) {
            // The issuer may have published new keys.
            Err(error @ (IdTokenError::UnknownKey | IdTokenError::Signature)) => {
                let fetch = self.fetch_keys(http, &metadata, url);
                match self.keys.newer_than(&keys, terms(http, now), fetch).await {
                    Some(keys) => id_token::verify(id_token, &keys, &expected),
                    None => Err(error),
                }
            }
            verified => verified,
        }
    }

    /// The verdict of a refresh's ID token on the new token (OpenID Connect Core section 12.2).
    pub(crate) async fn verify_refresh(
        &self,
        was: &Subject,
        token: &OAuth2Token,
        client_id: &str,
        http: &HttpClients,
        now: Timestamp,
    ) -> Verdict {
        let Some(id_token) = &token.id_token else { return Verdict::Accepted };
        let foreign = || Verdict::DifferentSubject { cause: "the ID token is for a different subject".to_owned() };
        match self.verify(token, IdTokenExpectations::default(), client_id, http, now).await {
            // The issuer is the configured one. Its name may have changed since the login, for example to a custom domain.
            Ok(identity) if identity.subject == was.subject => Verdict::Accepted,
            Ok(_) => foreign(),
            // It is not verified, but it came with the token, and it names another subject.
            Err(_) if claimed_subject(id_token).is_some_and(|subject| subject != was.subject) => foreign(),
            Err(error) => Verdict::Unverified { cause: error.to_string() },
        }
    }

    /// The endpoint that ends sessions at the provider, if any (OpenID Connect RP-Initiated Logout section 2.1).
    pub(crate) async fn end_session_endpoint(
        &self,
        http: &HttpClients,
        now: Timestamp,
    ) -> Result<Option<Url>, DiscoveryError> {
        Ok(self.metadata(http, now).await?.end_session_endpoint.clone())
    }

    async fn metadata(&self, http: &HttpClients, now: Timestamp) -> Result<Arc<Metadata>, DiscoveryError> {
        self.metadata.get(terms(http, now), self.fetch_metadata(http)).await
    }

    /// The metadata, and the URL of the keys. If cached metadata lacks the URL, it is fetched again early.
    async fn metadata_with_keys(
        &self,
        http: &HttpClients,
        now: Timestamp,
    ) -> Result<(Arc<Metadata>, Url), DiscoveryError> {
        let metadata = self.metadata(http, now).await?;
        let error = match metadata.endpoint("jwks_uri") {
            Ok(url) => return Ok((metadata, url)),
            Err(error) => error,
        };
        let newer = self.metadata.newer_than(&metadata, terms(http, now), self.fetch_metadata(http)).await;
        let newer = newer.ok_or(error)?;
        let url = newer.endpoint("jwks_uri")?;
        Ok((newer, url))
    }

    fn fetch_metadata(
        &self,
        http: &HttpClients,
    ) -> impl Future<Output = Result<Metadata, DiscoveryError>> + Send + 'static {
        let (http, url, issuer) = (http.clone(), self.metadata_url.clone(), self.issuer.clone());
        let (hosts, discovered_endpoints) = (self.hosts.clone(), self.discovered_endpoints.clone());
        async move {
            let body = document(&http, &url, Zone::Machine).await?;
            let metadata = Metadata::read(&body, &issuer, &hosts, Zone::resolve(&url).await)?;
            // Unusable metadata is not cached.
            discovered_endpoints.iter().try_for_each(|name| metadata.endpoint(name).map(drop))?;
            Ok(metadata)
        }
    }

    fn fetch_keys(
        &self,
        http: &HttpClients,
        metadata: &Metadata,
        url: Url,
    ) -> impl Future<Output = Result<KeySet, DiscoveryError>> + Send + 'static {
        let (http, nearest) = (http.clone(), self.hosts.nearest(&url, metadata.discovered.source));
        async move { KeySet::read(&document(&http, &url, nearest).await?) }
    }
}

fn terms(http: &HttpClients, now: Timestamp) -> CallTime<'_> {
    CallTime { now, clock: &http.clock, timeout: http.limits.timeout }
}

/// The URL of an issuer's metadata (OpenID Connect Discovery section 4).
fn metadata_url(issuer: &str, hosts: &KnownHosts) -> Result<Url, &'static str> {
    if Issuer::new(issuer).is_family() {
        return Err("contains a placeholder for the tenant, so metadata_url must be set");
    }
    let mut url = hosts.parse(issuer, Zone::Machine)?;
    if url.query().is_some() {
        return Err("must not have a query");
    }
    url.set_path(&format!("{}/.well-known/openid-configuration", url.path().trim_end_matches('/')));
    Ok(url)
}

fn claimed_subject(id_token: &oauth_dance_core::Secret) -> Option<String> {
    let claims = id_token::claims(id_token)?;
    claims.get("sub").and_then(subject_in).filter(|subject| json::is_exact(subject))
}
