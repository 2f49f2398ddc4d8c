//! A registration that was checked: every URL parsed, every value usable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use oauth_dance_core::{DpopKey, Secret, Timestamp};
use tokio::time::timeout;
use url::{Origin, Url};

use crate::config::client_key::SecretMaker;
use crate::config::dead_grant::DeadGrant;
use crate::config::endpoint::{PlainHttp, parse_endpoint, without_parameters};
use crate::config::hosts::{KnownHosts, Zone};
use crate::config::issuer::Issuer;
use crate::config::provider::{ClientAuthentication, OfflineAccess, Provider};
use crate::config::quirks::{Presentation, Quirks, TokenHeader, url_with_client_id, with_client_id};
use crate::config::registration::Registration;
use crate::config::reserved::reserves;
use crate::error::{ConfigError, DiscoveryError};
use crate::protocol::http::HttpClients;
use crate::protocol::oauth1;
use crate::protocol::openid::{Metadata, OpenId};

/// How long a call that can do without an issuer's metadata waits for it.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) authorization_endpoint: Url,
    pub(crate) token_endpoint: Url,
    pub(crate) pushed_authorization_request_endpoint: Option<Url>,
    pub(crate) revocation_endpoint: Option<Url>,
    pub(crate) userinfo_endpoint: Option<Url>,
    pub(crate) api_base: Option<Url>,
    pub(crate) end_session_endpoint: Option<Url>,
    pub(crate) issuer: Option<Issuer>,
    pub(crate) openid: Option<Arc<OpenId>>,
    #[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "only metadata fills it in"))]
    pub(crate) left_to_metadata: LeftToMetadata,
    pub(crate) keep_id_token: bool,
    pub(crate) requires_issuer: bool,
    pub(crate) dpop: bool,
    pub(crate) scopes: Vec<String>,
    pub(crate) scope_separator: char,
    pub(crate) client_authentication: ClientAuthentication,
    /// The same at the revocation endpoint.
    pub(crate) revocation_authentication: ClientAuthentication,
    pub(crate) authorization_params: BTreeMap<String, String>,
    pub(crate) login_params: Vec<String>,
    pub(crate) api_headers: HeaderMap,
    pub(crate) client_id: String,
    client_secret: Option<Secret>,
    maker: Option<Arc<SecretMaker>>,
    pub(crate) redirect_uri: Url,
    pub(crate) refresh_endpoint: Url,
    pub(crate) token_headers: HeaderMap,
    pub(crate) presentation: Presentation,
    pub(crate) dead_grants: Vec<DeadGrant>,
    pub(crate) quirks: Quirks,
    hosts: KnownHosts,
    /// From where URLs come that the configuration does not name.
    pub(crate) source: Zone,
    /// What signs requests, for a provider of OAuth 1.0a.
    pub(crate) oauth1: Option<oauth1::Client>,
}

/// Which endpoints the metadata of the issuer has to say. Until it has, the issuer's URL stands in their place.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "only metadata fills them in"))]
pub(crate) struct LeftToMetadata {
    pub(crate) authorization_endpoint: bool,
    pub(crate) token_endpoint: bool,
    pub(crate) refresh_endpoint: bool,
}

impl Registered {
    /// Checks a registration; its callback is at `callback` unless it says otherwise.
    pub(crate) fn check(registration: Registration, callback: &str) -> Result<Self, ConfigError> {
        let Registration { mut provider, client_id, client_secret, client_key, redirect_uri, plain_http } =
            registration;
        ask_for_offline_access(&mut provider);
        let hosts = known_hosts(&provider, &plain_http);
        let openid = OpenId::of(&provider, &hosts)?.map(Arc::new);
        let left_to_metadata = leave_to_metadata(&mut provider);
        let name = provider.name.clone();
        let invalid = |field, problem| ConfigError::invalid(&name, field, problem);

        let usable = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(usable) {
            return Err(invalid("name", "must consist of letters, digits, '-', '_' and '.'"));
        }
        if client_id.is_empty() {
            return Err(ConfigError::missing(&name, "client_id"));
        }
        if client_secret.as_ref().is_some_and(Secret::is_empty) {
            return Err(invalid("client_secret", "is empty; leave it out for a public client"));
        }
        let is_oauth1 = provider.oauth1.is_some();
        let oauth1 = provider.oauth1.take();
        let oauth1 =
            oauth1.map(|oauth1| oauth1::Client::check(&name, oauth1, &client_id, client_secret.as_ref(), &plain_http));
        let oauth1 = oauth1.transpose()?;
        if let Some(field) = of_oauth2_only(&provider).filter(|_| is_oauth1) {
            return Err(invalid(field, "has no meaning in OAuth 1.0a"));
        }
        let is_reserved = |parameter: &str| reserves(is_oauth1, parameter);
        if let Some(parameter) = provider.authorization_params.keys().find(|parameter| is_reserved(parameter)) {
            tracing::error!(provider = name, parameter, "a parameter that belongs to the protocol cannot be set");
            return Err(invalid("authorization_params", "sets a parameter that belongs to the protocol"));
        }
        if provider.login_params.iter().any(|parameter| is_reserved(parameter) || parameter == "next") {
            return Err(invalid("login_params", "names a parameter that belongs to the protocol, or `next`"));
        }
        if provider.scopes.iter().any(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
            return Err(invalid("scopes", "has one that is empty or contains white space"));
        }
        let maker = client_key.map(|key| SecretMaker::new(key, &client_id)).transpose();
        let maker = maker.map_err(|problem| invalid("client_key", problem))?.map(Arc::new);
        provider.dead_grants.iter().try_for_each(|dead| dead.check(&name))?;
        provider.quirks.check(&name, client_secret.is_none() && maker.is_none())?;
        if provider.dpop && provider.quirks.token_header != TokenHeader::Bearer {
            return Err(invalid("dpop", "presents the token in a header of its own, so `token_header` cannot be set"));
        }
        let endpoint = |field, url: &str| parse_endpoint(url, &plain_http).map_err(|problem| invalid(field, problem));
        let optional = |field, url: &Option<String>| url.as_deref().map(|url| endpoint(field, url)).transpose();
        let headers = |field, given: &BTreeMap<String, String>| {
            let problem = "has a name or value that no header can have, or authorization";
            headers(given, &client_id).ok_or_else(|| invalid(field, problem))
        };
        let quirks = provider.quirks;
        let revocation_endpoint = provider.revocation_endpoint.map(|url| url_with_client_id(&url, &client_id));
        let token_endpoint = endpoint("token_endpoint", &provider.token_endpoint)?;
        let registered = Self {
            // A token response names URLs too. What its host's name leads to, nobody asks for that.
            source: Zone::of(&token_endpoint).unwrap_or(Zone::Internet),
            hosts,
            authorization_endpoint: without_parameters(
                &endpoint("authorization_endpoint", &provider.authorization_endpoint)?,
                is_reserved,
            ),
            token_endpoint,
            refresh_endpoint: endpoint(
                "refresh_endpoint",
                quirks.refresh_endpoint.as_deref().unwrap_or(&provider.token_endpoint),
            )?,
            pushed_authorization_request_endpoint: optional(
                "pushed_authorization_request_endpoint",
                &provider.pushed_authorization_request_endpoint,
            )?,
            revocation_endpoint: optional("revocation_endpoint", &revocation_endpoint)?,
            userinfo_endpoint: optional("userinfo_endpoint", &provider.userinfo_endpoint)?,
            api_base: optional("api_base", &provider.api_base)?,
            redirect_uri: endpoint("redirect_uri", redirect_uri.as_deref().unwrap_or(callback))?,
            api_headers: headers("api_headers", &provider.api_headers)?,
            token_headers: headers("token_headers", &quirks.token_headers)?,
            presentation: quirks
                .token_header
                .presentation()
                .ok_or_else(|| invalid("token_header", "has a name or scheme that no header can have"))?,
            end_session_endpoint: optional("end_session_endpoint", &provider.end_session_endpoint)?,
            issuer: provider.issuer.map(Issuer::new),
            openid,
            left_to_metadata,
            keep_id_token: provider.keep_id_token,
            requires_issuer: provider.requires_issuer,
            dpop: provider.dpop,
            title: provider.title,
            scopes: provider.scopes,
            scope_separator: provider.scope_separator,
            client_authentication: provider.client_authentication,
            revocation_authentication: provider.client_authentication,
            authorization_params: provider.authorization_params,
            login_params: provider.login_params,
            dead_grants: provider.dead_grants,
            quirks,
            client_id,
            client_secret,
            maker,
            name,
            oauth1,
        };
        if registered.requires_issuer && registered.issuer.is_none() {
            return Err(ConfigError::missing(&registered.name, "issuer"));
        }
        Ok(registered)
    }

    /// The client's secret at this instant; `None` for a public client.
    pub(crate) fn client_secret(&self, now: Timestamp) -> Option<Secret> {
        match &self.maker {
            Some(maker) => maker.secret(now),
            None => self.client_secret.clone(),
        }
    }

    /// The key for a token that is about to be asked for: the one there is, or a new one if there should be one.
    pub(crate) fn dpop_key(&self, known: Option<DpopKey>) -> Option<DpopKey> {
        known.or_else(|| self.dpop.then(DpopKey::generate))
    }

    /// The header that presents a token to the API, or `None` if none can.
    pub(crate) fn present(&self, token: &Secret, is_bound: bool) -> Option<HeaderMap> {
        if is_bound { Presentation::dpop().present(token) } else { self.presentation.present(token) }
    }

    /// Whether a parameter of the authorization request belongs to the protocol.
    pub(crate) fn reserves(&self, parameter: &str) -> bool {
        reserves(self.oauth1.is_some(), parameter)
    }

    /// This with everything that its configuration leaves to the issuer's metadata, which may have to be fetched.
    pub(crate) async fn complete(self: &Arc<Self>, http: &HttpClients) -> Result<Arc<Self>, DiscoveryError> {
        let Some(openid) = &self.openid else { return Ok(Arc::clone(self)) };
        match openid.discover(http).await? {
            Some(metadata) => Ok(Arc::new(self.with(&metadata)?)),
            None => Ok(Arc::clone(self)),
        }
    }

    /// The same with what metadata adds.
    #[cfg(feature = "oidc")]
    fn with(&self, metadata: &Metadata) -> Result<Self, DiscoveryError> {
        let mut complete = self.clone();
        complete.source = metadata.source;
        if self.left_to_metadata.authorization_endpoint {
            complete.authorization_endpoint = metadata.endpoint("authorization_endpoint")?;
        }
        if self.left_to_metadata.token_endpoint {
            complete.token_endpoint = metadata.endpoint("token_endpoint")?;
        }
        if self.left_to_metadata.refresh_endpoint {
            complete.refresh_endpoint = complete.token_endpoint.clone();
        }
        let discovered = |configured: &Option<Url>, found: &Option<Url>| configured.clone().or_else(|| found.clone());
        complete.userinfo_endpoint = discovered(&self.userinfo_endpoint, &metadata.userinfo_endpoint);
        complete.revocation_endpoint = discovered(&self.revocation_endpoint, &metadata.revocation_endpoint);
        if complete.pushed_authorization_request_endpoint.is_none() && metadata.requires_pushed_requests {
            complete.pushed_authorization_request_endpoint =
                Some(metadata.endpoint("pushed_authorization_request_endpoint")?);
        }
        complete.requires_issuer |= metadata.names_itself_in_callbacks;
        complete.client_authentication = metadata.token_endpoint_authentication(self.client_authentication);
        complete.revocation_authentication =
            metadata.revocation_endpoint_authentication(complete.client_authentication);
        if metadata.refuses_s256() && !complete.quirks.without_pkce {
            return Err(DiscoveryError::Answer("it supports PKCE, but not S256"));
        }
        Ok(complete)
    }

    #[cfg(not(feature = "oidc"))]
    fn with(&self, metadata: &Metadata) -> Result<Self, DiscoveryError> {
        match *metadata {}
    }

    /// The same, or only what is configured if the issuer does not answer soon: most API calls need nothing of its metadata.
    pub(crate) async fn best_effort(self: &Arc<Self>, http: &HttpClients) -> Arc<Self> {
        match timeout(DISCOVERY_TIMEOUT, self.complete(http)).await {
            Ok(Ok(complete)) => complete,
            Ok(Err(_)) | Err(_) => Arc::clone(self),
        }
    }

    /// How the client authenticates at this endpoint of the authorization server.
    pub(crate) fn authentication_at(&self, endpoint: &Url) -> ClientAuthentication {
        match &self.revocation_endpoint {
            Some(revocation) if revocation == endpoint && *endpoint != self.token_endpoint => {
                self.revocation_authentication
            }
            _ => self.client_authentication,
        }
    }

    /// The nearest zone that the name in this URL may lead to.
    pub(crate) fn nearest(&self, url: &Url) -> Zone {
        self.hosts.nearest(url, self.source)
    }

    /// A URL that the provider named in a token response, if it is one to send tokens to.
    pub(crate) fn named_by_provider(&self, url: &str) -> Option<Url> {
        self.hosts.parse(url, self.source).ok()
    }

    /// Whether the token may be sent there.
    pub(crate) fn owns(&self, origin: &Origin) -> bool {
        [&self.api_base, &self.userinfo_endpoint].into_iter().flatten().any(|url| url.origin() == *origin)
    }
}

/// The first field that is set and does nothing in OAuth 1.0a.
fn of_oauth2_only(provider: &Provider) -> Option<&'static str> {
    let of_both = Quirks { callback_fragment: false, ..provider.quirks.clone() };
    [
        ("scopes", !provider.scopes.is_empty()),
        ("issuer", provider.issuer.is_some()),
        ("requires_issuer", provider.requires_issuer),
        ("revocation_endpoint", provider.revocation_endpoint.is_some()),
        ("pushed_authorization_request_endpoint", provider.pushed_authorization_request_endpoint.is_some()),
        ("dpop", provider.dpop),
        ("offline_access", provider.offline_access != OfflineAccess::NotAsked),
        ("dead_grants", !provider.dead_grants.is_empty()),
        ("quirks", of_both != Quirks::default()),
    ]
    .into_iter()
    .find_map(|(field, is_set)| is_set.then_some(field))
}

/// Puts the issuer, or its metadata, where that has to say an endpoint: nothing that is sent there by mistake goes astray.
fn leave_to_metadata(provider: &mut Provider) -> LeftToMetadata {
    let left_to_metadata = LeftToMetadata {
        authorization_endpoint: provider.authorization_endpoint.is_empty(),
        token_endpoint: provider.token_endpoint.is_empty(),
        refresh_endpoint: provider.token_endpoint.is_empty() && provider.quirks.refresh_endpoint.is_none(),
    };
    for endpoint in [&mut provider.authorization_endpoint, &mut provider.token_endpoint] {
        if endpoint.is_empty() {
            let issuer = provider.metadata_url.as_deref().or(provider.issuer.as_deref());
            endpoint.push_str(issuer.unwrap_or_default());
        }
    }
    left_to_metadata
}

/// Every host that the configuration names.
fn known_hosts(provider: &Provider, plain_http: &PlainHttp) -> KnownHosts {
    let endpoints = [&provider.authorization_endpoint, &provider.token_endpoint];
    let optional = [
        &provider.pushed_authorization_request_endpoint,
        &provider.revocation_endpoint,
        &provider.userinfo_endpoint,
        &provider.api_base,
        &provider.end_session_endpoint,
        &provider.issuer,
        &provider.metadata_url,
        &provider.quirks.refresh_endpoint,
    ];
    let named = endpoints.into_iter().chain(optional.into_iter().flatten());
    let urls: Vec<Url> = named.filter_map(|url| Url::parse(url).ok()).collect();
    KnownHosts::new(plain_http, &urls)
}

/// Adds what asks for a refresh token to what is asked for anyway.
fn ask_for_offline_access(provider: &mut Provider) {
    match &provider.offline_access {
        OfflineAccess::NotAsked => {}
        OfflineAccess::Scope(scope) if provider.scopes.contains(scope) => {}
        OfflineAccess::Scope(scope) => provider.scopes.push(scope.clone()),
        OfflineAccess::Params(params) => {
            for (name, value) in params {
                provider.authorization_params.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}

fn headers(headers: &BTreeMap<String, String>, client_id: &str) -> Option<HeaderMap> {
    let mut checked = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name).ok().filter(|name| *name != http::header::AUTHORIZATION)?;
        checked.insert(name, HeaderValue::try_from(with_client_id(value, client_id)).ok()?);
    }
    Some(checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reserved::RESERVED;

    fn check(change: impl FnOnce(&mut Provider)) -> Result<Registered, ConfigError> {
        let mut provider = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
        change(&mut provider);
        Registered::check(provider.client("id", "secret"), "https://app.example/callback")
    }

    #[test]
    fn endpoints_must_be_https_unless_they_are_local() {
        assert!(check(|provider| provider.token_endpoint = "http://localhost:9".to_owned()).is_ok());
        for bad in ["", "/x", "http://a.example", "http://10.0.0.1", "https://{host}/x"] {
            assert!(check(|provider| provider.token_endpoint = bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_keeps_its_query_but_not_our_parameters() {
        let registered =
            check(|provider| provider.authorization_endpoint = "https://p.example/auth?tenant=a&state=x".to_owned());
        assert_eq!(registered.unwrap().authorization_endpoint.as_str(), "https://p.example/auth?tenant=a");
    }

    #[test]
    fn what_belongs_to_the_protocol_cannot_be_configured() {
        for parameter in RESERVED {
            let set = |provider: &mut Provider| {
                provider.authorization_params.insert(parameter.to_owned(), "evil".to_owned());
            };
            assert!(check(set).is_err(), "{parameter}");
        }
        for header in ["authorization", "Authorization", "bad name", ""] {
            let set = |provider: &mut Provider| {
                provider.api_headers.insert(header.to_owned(), "x".to_owned());
            };
            assert!(check(set).is_err(), "{header}");
        }
        assert!(check(|provider| provider.name = "a/b".to_owned()).is_err());
        assert!(check(|provider| provider.scopes = vec!["a b".to_owned()]).is_err());
        assert!(check(|provider| provider.requires_issuer = true).is_err());
    }
}
