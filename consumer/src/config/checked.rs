//! A checked registration: every URL is parsed, and every value is valid.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use oauth_dance_core::{DpopKey, Secret, Timestamp};
use url::Url;

use super::client_key::SecretMaker;
use super::endpoint::{PlainHttp, parse_endpoint, without_parameters};
use super::hosts::{KnownHosts, Zone};
use super::issuer::Issuer;
use super::provider::{OfflineAccess, Provider};
use super::quirks::{Presentation, Quirks, TokenHeader, url_with_client_id, with_client_id};
use super::registration::Registration;
use super::reserved::reserves;
use crate::error::ConfigError;

/// What an application declared about a provider, and what was parsed from it.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The declaration, with the parameters that request a refresh token.
    pub(crate) declared: Provider,
    pub(crate) endpoints: Endpoints,
    pub(crate) issuer: Option<Issuer>,
    pub(crate) client_id: String,
    client_secret: Option<Secret>,
    secret_maker: Option<SecretMaker>,
    pub(crate) api_headers: HeaderMap,
    pub(crate) token_headers: HeaderMap,
    pub(crate) presentation: Presentation,
    pub(crate) hosts: KnownHosts,
}

/// The URLs of the configuration.
#[derive(Debug)]
pub(crate) struct Endpoints {
    /// If this endpoint or one of the next two has to come from the issuer's metadata, the URL of the issuer or its metadata
    /// takes its place, so that a request sent here by mistake reaches no third party.
    pub(crate) authorization: Url,
    pub(crate) token: Url,
    pub(crate) refresh: Url,
    pub(crate) pushed_authorization_request: Option<Url>,
    pub(crate) device_authorization: Option<Url>,
    pub(crate) revocation: Option<Url>,
    pub(crate) userinfo: Option<Url>,
    pub(crate) api_base: Option<Url>,
    pub(crate) end_session: Option<Url>,
    /// Where a browser returns after a login; `None` if the application has no fixed address for it.
    pub(crate) redirect: Option<Url>,
}

impl Checked {
    /// Checks a registration.
    pub(crate) fn new(registration: Registration, hosts: KnownHosts) -> Result<Self, ConfigError> {
        let Registration { provider, client_id, client_secret, client_key, redirect_uri, plain_http } = registration;
        let declared = with_offline_access(provider);
        let name = &declared.name;
        let invalid = |field, problem| ConfigError::invalid(name, field, problem);
        check_texts(&declared)?;
        if client_id.is_empty() {
            return Err(ConfigError::missing(name, "client_id"));
        }
        if client_secret.as_ref().is_some_and(Secret::is_empty) {
            return Err(invalid("client_secret", "is empty; leave it out for a public client"));
        }
        let secret_maker = client_key.map(|key| SecretMaker::new(key, &client_id)).transpose();
        let secret_maker = secret_maker.map_err(|problem| invalid("client_key", problem))?;
        declared.quirks.check(name, client_secret.is_none() && secret_maker.is_none())?;
        let headers = |field, given: &BTreeMap<String, String>| {
            let problem = "has a name or value that is not valid in a header, or sets authorization";
            headers(given, &client_id).ok_or_else(|| invalid(field, problem))
        };
        let checked = Self {
            endpoints: Endpoints::new(&declared, &client_id, &redirect_uri, &plain_http)?,
            issuer: declared.issuer.as_ref().map(Issuer::new),
            api_headers: headers("api_headers", &declared.api_headers)?,
            token_headers: headers("token_headers", &declared.quirks.token_headers)?,
            presentation: (declared.quirks.token_header.presentation())
                .ok_or_else(|| invalid("token_header", "has a name or scheme that is not valid in a header"))?,
            client_id,
            client_secret,
            secret_maker,
            hosts,
            declared,
        };
        if checked.declared.requires_issuer && checked.issuer.is_none() {
            return Err(ConfigError::missing(&checked.declared.name, "issuer"));
        }
        Ok(checked)
    }

    /// The client's secret at this instant; `None` for a public client.
    pub(crate) fn client_secret(&self, now: Timestamp) -> Option<Secret> {
        match &self.secret_maker {
            Some(maker) => maker.secret(now),
            None => self.client_secret.clone(),
        }
    }

    /// The key for a token that is about to be requested: the existing one, or a new one if the provider binds tokens.
    pub(crate) fn dpop_key(&self, known: Option<DpopKey>) -> Option<DpopKey> {
        known.or_else(|| self.declared.dpop.then(DpopKey::generate))
    }

    /// The header that presents a token to the API, or `None` if the token is not valid in a header.
    pub(crate) fn present(&self, token: &Secret, is_bound: bool) -> Option<HeaderMap> {
        if is_bound { Presentation::dpop().present(token) } else { self.presentation.present(token) }
    }

    /// Whether a parameter of the authorization request belongs to the protocol.
    pub(crate) fn reserves(&self, parameter: &str) -> bool {
        reserves(self.declared.oauth1.is_some(), parameter)
    }

    /// The zone of the token endpoint, from which URLs in a token response come. The host is not resolved for this.
    pub(crate) fn source(&self) -> Zone {
        Zone::of(&self.endpoints.token).unwrap_or(Zone::Internet)
    }
}

impl Endpoints {
    fn new(
        declared: &Provider,
        client_id: &str,
        redirect: &Option<String>,
        plain_http: &PlainHttp,
    ) -> Result<Self, ConfigError> {
        let endpoint = |field, url: &str| {
            parse_endpoint(url, plain_http).map_err(|problem| ConfigError::invalid(&declared.name, field, problem))
        };
        let optional = |field, url: &Option<String>| url.as_deref().map(|url| endpoint(field, url)).transpose();
        let issuer = declared.metadata_url.as_deref().or(declared.issuer.as_deref()).unwrap_or_default();
        let required = |field, url: &str| endpoint(field, if url.is_empty() { issuer } else { url });
        let is_reserved = |parameter: &str| reserves(declared.oauth1.is_some(), parameter);
        let authorization = required("authorization_endpoint", &declared.authorization_endpoint)?;
        let refresh = declared.quirks.refresh_endpoint.as_ref().unwrap_or(&declared.token_endpoint);
        let revocation = declared.revocation_endpoint.as_ref().map(|url| url_with_client_id(url, client_id));
        Ok(Self {
            authorization: without_parameters(&authorization, is_reserved),
            token: required("token_endpoint", &declared.token_endpoint)?,
            refresh: required("refresh_endpoint", refresh)?,
            pushed_authorization_request: optional(
                "pushed_authorization_request_endpoint",
                &declared.pushed_authorization_request_endpoint,
            )?,
            device_authorization: optional("device_authorization_endpoint", &declared.device_authorization_endpoint)?,
            revocation: optional("revocation_endpoint", &revocation)?,
            userinfo: optional("userinfo_endpoint", &declared.userinfo_endpoint)?,
            api_base: optional("api_base", &declared.api_base)?,
            end_session: optional("end_session_endpoint", &declared.end_session_endpoint)?,
            redirect: optional("redirect_uri", redirect)?,
        })
    }
}

/// Checks everything except URLs and headers.
fn check_texts(declared: &Provider) -> Result<(), ConfigError> {
    let invalid = |field, problem| Err(ConfigError::invalid(&declared.name, field, problem));
    let usable = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    if declared.name.is_empty() || !declared.name.chars().all(usable) {
        return invalid("name", "must consist of letters, digits, '-', '_' and '.'");
    }
    let is_oauth1 = declared.oauth1.is_some();
    if let Some(field) = of_oauth2_only(declared).filter(|_| is_oauth1) {
        return invalid(field, "has no meaning in OAuth 1.0a");
    }
    let is_reserved = |parameter: &String| reserves(is_oauth1, parameter);
    if let Some(parameter) = declared.authorization_params.keys().find(|parameter| is_reserved(parameter)) {
        tracing::error!(provider = declared.name, parameter, "a parameter that belongs to the protocol cannot be set");
        return invalid("authorization_params", "sets a parameter that belongs to the protocol");
    }
    if declared.login_params.iter().any(|parameter| is_reserved(parameter) || parameter == "next") {
        return invalid("login_params", "names a parameter that belongs to the protocol, or `next`");
    }
    if declared.scopes.iter().any(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
        return invalid("scopes", "has one that is empty or contains white space");
    }
    if declared.dpop && declared.quirks.token_header != TokenHeader::Bearer {
        return invalid("dpop", "presents the token in a header of its own, so `token_header` cannot be set");
    }
    declared.dead_grants.iter().try_for_each(|dead| dead.check(&declared.name, "dead_grants"))?;
    declared.rejected_tokens.iter().try_for_each(|rejected| rejected.check(&declared.name, "rejected_tokens"))
}

/// The first field that is set although OAuth 1.0a does not use it.
fn of_oauth2_only(provider: &Provider) -> Option<&'static str> {
    let of_both = Quirks { callback_fragment: false, ..provider.quirks.clone() };
    [
        ("scopes", !provider.scopes.is_empty()),
        ("issuer", provider.issuer.is_some()),
        ("requires_issuer", provider.requires_issuer),
        ("revocation_endpoint", provider.revocation_endpoint.is_some()),
        ("pushed_authorization_request_endpoint", provider.pushed_authorization_request_endpoint.is_some()),
        ("device_authorization_endpoint", provider.device_authorization_endpoint.is_some()),
        ("dpop", provider.dpop),
        ("offline_access", provider.offline_access != OfflineAccess::NotRequested),
        ("dead_grants", !provider.dead_grants.is_empty()),
        ("rejected_tokens", !provider.rejected_tokens.is_empty()),
        ("quirks", of_both != Quirks::default()),
    ]
    .into_iter()
    .find_map(|(field, is_set)| is_set.then_some(field))
}

/// Adds the parameters that request a refresh token.
fn with_offline_access(mut declared: Provider) -> Provider {
    match &declared.offline_access {
        OfflineAccess::NotRequested => {}
        OfflineAccess::Scope(scope) if declared.scopes.contains(scope) => {}
        OfflineAccess::Scope(scope) => declared.scopes.push(scope.clone()),
        OfflineAccess::Params(params) => {
            for (name, value) in params {
                declared.authorization_params.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    declared
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

    fn check(change: impl FnOnce(&mut Provider)) -> Result<Checked, ConfigError> {
        let mut provider = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
        change(&mut provider);
        let registration = provider.client("id", "secret");
        let hosts = KnownHosts::of(&registration.provider, &registration.plain_http);
        Checked::new(registration, hosts)
    }

    #[test]
    fn endpoints_must_be_https_unless_they_are_local() {
        assert!(check(|provider| provider.token_endpoint = "http://localhost:9".to_owned()).is_ok());
        for bad in ["", "/x", "http://a.example", "http://10.0.0.1", "https://{host}/x"] {
            assert!(check(|provider| provider.token_endpoint = bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_retains_its_query_except_our_parameters() {
        let checked =
            check(|provider| provider.authorization_endpoint = "https://p.example/auth?tenant=a&state=x".to_owned());
        assert_eq!(checked.unwrap().endpoints.authorization.as_str(), "https://p.example/auth?tenant=a");
    }

    #[test]
    fn parameters_of_the_protocol_cannot_be_configured() {
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
