//! How a [`TestProvider`](super::TestProvider) behaves.
//!
//! The default is a provider of the present: refresh tokens rotate, PKCE is required. Each setting makes it resemble one
//! that is older, stricter or more limited, which applications have to cope with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Clock, Secret};
use serde_json::{Map, Value};

use super::CLIENT;
#[cfg(feature = "oidc")]
use super::openid::SigningAlgorithm;
use super::resource_owner::ResourceOwner;

/// The behaviour of a [`TestProvider`](super::TestProvider) unless a response is scripted. Change it with
/// [`TestProvider::configure`](super::TestProvider::configure), at any time during a test.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The user who approves a request without a `login_hint`. The default is `test-user`.
    pub user: String,
    /// The error code of every authorization response; `None`, the default, approves requests.
    pub refuses: Option<String>,
    /// Decides on authorization requests instead of [`user`](Self::user) and [`refuses`](Self::refuses). The default is
    /// none.
    pub resource_owner: Option<Arc<dyn ResourceOwner>>,
    /// How long access tokens last. The default is an hour.
    pub access_token_lifetime: Duration,
    /// How long a grant lasts, with all its tokens. By default it does not expire.
    pub grant_lifetime: Option<Duration>,
    /// Whether it issues refresh tokens. The default is `true`.
    pub refresh_tokens: bool,
    /// Whether a refresh issues a new refresh token and spends the old one. The default is `true`.
    pub rotation: bool,
    /// The supported scopes. A request without a scope gets the first. An empty list, the default, supports any scope.
    pub scopes: Vec<String>,
    /// The audiences and resources that tokens can be requested for. An empty list, the default, supports any.
    pub audiences: Vec<String>,
    /// Whether the callback contains `iss` (RFC 9207). The default is `false`.
    pub issuer_parameter: bool,
    /// How long a device has to wait between two token requests (RFC 8628 section 3.2), in whole seconds. The default is one.
    pub device_interval: Duration,
    /// Whether authorization requests must be pushed (RFC 9126 section 5). The default is `false`.
    pub requires_pushed_requests: bool,
    /// Whether clients must prove possession of a key to get a token (RFC 9449). Tokens are bound to a proved key in any
    /// case. The default is `false`.
    pub requires_dpop: bool,
    /// The nonce that every proof must contain, and that every response provides. The default is none.
    pub dpop_nonce: Option<String>,
    /// The member `user` in a response with `response_mode=form_post`. The default is none.
    pub posted_user: Option<String>,
    /// The algorithm that signs ID tokens. The default is ES256.
    #[cfg(feature = "oidc")]
    pub id_token_algorithm: SigningAlgorithm,
    /// The beginning of every code and token, so that a test can search for them. The default is empty.
    pub secret_prefix: String,
    /// The registered clients by their identifiers. The default is [`CLIENT`].
    pub clients: HashMap<String, Client>,
    /// The clock. The default is the system's.
    pub clock: Clock,
    /// The largest body of a request, in bytes. The default is 64 MiB.
    pub max_body: usize,
    /// Whether requests are logged, including their secrets, and `/counters` is served. The default is `true`.
    pub records_requests: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            user: "test-user".to_owned(),
            refuses: None,
            resource_owner: None,
            access_token_lifetime: Duration::from_secs(3600),
            grant_lifetime: None,
            refresh_tokens: true,
            rotation: true,
            scopes: Vec::new(),
            audiences: Vec::new(),
            issuer_parameter: false,
            device_interval: Duration::from_secs(1),
            requires_pushed_requests: false,
            requires_dpop: false,
            dpop_nonce: None,
            posted_user: None,
            #[cfg(feature = "oidc")]
            id_token_algorithm: SigningAlgorithm::default(),
            secret_prefix: String::new(),
            clients: HashMap::from([(CLIENT.0.to_owned(), Client::confidential(CLIENT.1))]),
            clock: Clock::system(),
            max_body: 64 * 1024 * 1024,
            records_requests: true,
        }
    }
}

impl Settings {
    /// The claims that the resource owner adds to `sub`, or `None` without a [`ResourceOwner`].
    pub(super) fn claims(&self, user: &str, scope: &str) -> Option<Map<String, Value>> {
        let owner = self.resource_owner.as_ref()?;
        Some(owner.claims(user, &scope.split(' ').collect::<Vec<_>>()))
    }

    /// Whether every name in a scope is supported.
    pub(super) fn knows(&self, scope: &str) -> bool {
        self.scopes.is_empty() || scope.split(' ').all(|name| self.scopes.iter().any(|known| known == name))
    }
}

/// A client that is registered with a [`TestProvider`](super::TestProvider).
///
/// ```
/// use oauth_dance::testing::{Client, TestProvider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let provider = TestProvider::start().await?;
/// provider.configure(|settings| {
///     let only_here = Client::public().with_redirect_uri("https://app.example/login/acme/authorized");
///     settings.clients.insert("our-id".to_owned(), only_here);
/// });
/// let registration = provider.provider("acme").public_client("our-id");
/// # let _ = registration;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) secret: Option<Secret>,
    redirect_uri: Option<String>,
}

impl Client {
    /// A client that authenticates with a secret, and may use any redirect URI.
    pub fn confidential(secret: impl Into<Secret>) -> Self {
        Self { secret: Some(secret.into()), redirect_uri: None }
    }

    /// A client without a secret (RFC 6749 section 2.1), which may use any redirect URI.
    pub fn public() -> Self {
        Self { secret: None, redirect_uri: None }
    }

    /// Allows only this redirect URI, which requests must repeat exactly.
    pub fn with_redirect_uri(self, uri: impl Into<String>) -> Self {
        Self { redirect_uri: Some(uri.into()), ..self }
    }

    pub(super) fn allows(&self, redirect_uri: &str) -> bool {
        self.redirect_uri.as_ref().is_none_or(|registered| registered == redirect_uri)
    }
}
