//! A provider in use: what was declared and checked, completed by discovery.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use url::{Origin, Url};

use crate::config::checked::Checked;
use crate::config::hosts::{KnownHosts, Zone};
use crate::config::provider::ClientAuthentication;
use crate::config::registration::Registration;
use crate::error::{ConfigError, DiscoveryError};
use crate::protocol::http::HttpClients;
use crate::protocol::oauth1;
use crate::protocol::openid::{Discovered, OpenId};

/// How long a call that does not require an issuer's metadata waits for it.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(3);

/// A provider at which the application is registered. Cloning is cheap.
///
/// It derefs to the configuration. Its methods take discovery into account.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    configured: Arc<Configured>,
    discovered: Option<Arc<Discovered>>,
}

/// What is known without discovery. It is one allocation, because each request clones it several times.
#[derive(Debug)]
pub(crate) struct Configured {
    checked: Checked,
    pub(crate) openid: Option<OpenId>,
    /// The client of a provider of OAuth 1.0a, which signs requests.
    pub(crate) oauth1: Option<oauth1::Client>,
}

impl Registered {
    /// Checks a registration.
    pub(crate) fn check(registration: Registration) -> Result<Self, ConfigError> {
        let (secret, plain_http) = (registration.client_secret.clone(), registration.plain_http.clone());
        let hosts = KnownHosts::of(&registration.provider, &plain_http);
        let openid = OpenId::of(&registration.provider, &hosts)?;
        let checked = Checked::new(registration, hosts)?;
        let oauth1 = checked.declared.oauth1.as_ref().map(|oauth1| {
            oauth1::Client::check(&checked.declared.name, oauth1, &checked.client_id, secret.as_ref(), &plain_http)
        });
        let configured = Configured { checked, openid, oauth1: oauth1.transpose()? };
        Ok(Self { configured: Arc::new(configured), discovered: None })
    }

    /// The same, completed by the issuer's metadata, which may have to be fetched.
    pub(crate) async fn complete(&self, http: &HttpClients) -> Result<Self, DiscoveryError> {
        let discovered = match &self.openid {
            Some(openid) => openid.discover(http).await?,
            None => None,
        };
        Ok(Self { discovered, ..self.clone() })
    }

    /// The same, or only the configuration if the metadata does not arrive soon: most API calls do not need it.
    pub(crate) async fn best_effort(&self, http: &HttpClients) -> Self {
        if self.openid.is_none() {
            return self.clone();
        }
        match timeout(DISCOVERY_TIMEOUT, self.complete(http)).await {
            Ok(Ok(complete)) => complete,
            Ok(Err(_)) | Err(_) => self.clone(),
        }
    }

    /// Where a browser returns after a login. Without an address, it is the value for clients that cannot receive callbacks
    /// (RFC 5849 section 2.1).
    pub(crate) fn redirect_uri(&self) -> &str {
        self.endpoints.redirect.as_ref().map_or("oob", Url::as_str)
    }

    pub(crate) fn authorization_endpoint(&self) -> &Url {
        let discovered = self.discovered().and_then(|found| found.authorization_endpoint.as_ref());
        discovered.filter(|_| self.declared.authorization_endpoint.is_empty()).unwrap_or(&self.endpoints.authorization)
    }

    pub(crate) fn token_endpoint(&self) -> &Url {
        let discovered = self.discovered().and_then(|found| found.token_endpoint.as_ref());
        discovered.filter(|_| self.declared.token_endpoint.is_empty()).unwrap_or(&self.endpoints.token)
    }

    pub(crate) fn refresh_endpoint(&self) -> &Url {
        match &self.declared.quirks.refresh_endpoint {
            Some(_) => &self.endpoints.refresh,
            None => self.token_endpoint(),
        }
    }

    pub(crate) fn pushed_authorization_request_endpoint(&self) -> Option<&Url> {
        let discovered = || self.discovered()?.pushed_authorization_request_endpoint.as_ref();
        self.endpoints.pushed_authorization_request.as_ref().or_else(discovered)
    }

    #[cfg_attr(not(feature = "native"), allow(dead_code, reason = "only programs log in with it"))]
    pub(crate) fn device_authorization_endpoint(&self) -> Option<&Url> {
        let discovered = || self.discovered()?.device_authorization_endpoint.as_ref();
        self.endpoints.device_authorization.as_ref().or_else(discovered)
    }

    pub(crate) fn userinfo_endpoint(&self) -> Option<&Url> {
        self.endpoints.userinfo.as_ref().or_else(|| self.discovered()?.userinfo_endpoint.as_ref())
    }

    pub(crate) fn revocation_endpoint(&self) -> Option<&Url> {
        self.endpoints.revocation.as_ref().or_else(|| self.discovered()?.revocation_endpoint.as_ref())
    }

    /// Whether every callback must name the issuer (RFC 9207).
    pub(crate) fn requires_issuer(&self) -> bool {
        self.declared.requires_issuer || self.discovered().is_some_and(|found| found.names_itself_in_callbacks)
    }

    /// The authentication method at this endpoint of the authorization server.
    pub(crate) fn authentication_at(&self, endpoint: &Url) -> ClientAuthentication {
        let configured = self.declared.client_authentication;
        let Some(discovered) = self.discovered() else { return configured };
        let usual = discovered.token_endpoint_authentication(configured);
        if self.revocation_endpoint() == Some(endpoint) && endpoint != self.token_endpoint() {
            return discovered.revocation_endpoint_authentication(usual);
        }
        usual
    }

    /// The nearest zone that the name in this URL may resolve to.
    pub(crate) fn nearest(&self, url: &Url) -> Zone {
        self.hosts.nearest(url, self.source())
    }

    /// A URL from a token response, if tokens may be sent to it.
    pub(crate) fn named_by_provider(&self, url: &str) -> Option<Url> {
        self.hosts.parse(url, self.source()).ok()
    }

    /// Whether the token may be sent to this origin.
    pub(crate) fn owns(&self, origin: &Origin) -> bool {
        let owned = [self.endpoints.api_base.as_ref(), self.userinfo_endpoint()];
        owned.into_iter().flatten().any(|url| url.origin() == *origin)
    }

    /// The zone of URLs that the configuration does not name.
    fn source(&self) -> Zone {
        self.discovered().map_or_else(|| self.checked.source(), |found| found.source)
    }

    fn discovered(&self) -> Option<&Discovered> {
        self.discovered.as_deref()
    }
}

impl Deref for Registered {
    type Target = Configured;

    fn deref(&self) -> &Configured {
        &self.configured
    }
}

impl Deref for Configured {
    type Target = Checked;

    fn deref(&self) -> &Checked {
        &self.checked
    }
}
