//! The client that an application registered at a provider.
//!
//! A provider and a client are separate types, because a provider is public and can be compiled into the program or shared,
//! while the credentials of a client are the application's own and come from its secrets.

use std::env;

use oauth_dance_core::Secret;

use super::client_key::ClientKey;
use super::endpoint::PlainHttp;
use super::provider::Provider;
use crate::error::ConfigError;

/// A [`Provider`], and the client that the application registered there: the argument of
/// [`OAuthBuilder::provider`](crate::OAuthBuilder::provider).
///
/// It is created by [`Provider::client`], [`Provider::client_from_env`], [`Provider::public_client`],
/// [`Provider::client_with_key`] or [`ProviderConfig::registration`](crate::ProviderConfig::registration). `Debug` does not
/// show the secret:
///
/// ```
/// use oauth_dance::presets::GitHub;
///
/// let registration = GitHub::provider().client("our-id", "our-secret");
/// assert!(!format!("{registration:?}").contains("our-secret"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub(crate) provider: Provider,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<Secret>,
    /// The key that replaces the client secret.
    pub(crate) client_key: Option<ClientKey>,
    pub(crate) redirect_uri: Option<String>,
    /// The hosts that may be reached without TLS. The builder sets them.
    pub(crate) plain_http: PlainHttp,
}

impl Registration {
    /// Sends this redirect URI instead of the base URL with the callback path. It must still lead to the callback route, for
    /// instance through a proxy that rewrites paths. Use it for a registration that cannot be changed.
    ///
    /// ```
    /// use oauth_dance::presets::GitHub;
    /// use oauth_dance::{KeyRing, MemoryStorage, OAuth};
    ///
    /// let registered = "https://www.example.com/oauth/github";
    /// let oauth = OAuth::builder("https://app.example.com", MemoryStorage::new(), KeyRing::generate())
    ///     .provider(GitHub::provider().client("id", "secret").with_redirect_uri(registered))
    ///     .anonymous_users()
    ///     .build()?;
    /// assert_eq!(oauth.redirect_uri("github")?, registered);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_redirect_uri(mut self, redirect_uri: impl Into<String>) -> Self {
        self.redirect_uri = Some(redirect_uri.into());
        self
    }

    /// The provider's name in this application; see [`Provider::name`].
    pub fn name(&self) -> &str {
        &self.provider.name
    }
}

impl Provider {
    /// Registers the application's client, with the credentials that the provider issued (RFC 6749 section 2.2). For OAuth
    /// 1.0a, these are the client key and its shared secret; with RSA-SHA1, the secret is the private key in PEM.
    pub fn client(self, client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Registration {
        Registration {
            provider: self,
            client_id: client_id.into(),
            client_secret: Some(client_secret.into()),
            client_key: None,
            redirect_uri: None,
            plain_http: PlainHttp::default(),
        }
    }

    /// Registers the application's client with its private key, from which client secrets are generated.
    ///
    /// ```no_run
    /// use oauth_dance::ClientKey;
    /// use oauth_dance::presets::Apple;
    ///
    /// let key = std::fs::read_to_string("AuthKey_KEY1234567.p8")?;
    /// let key = ClientKey::apple("TEAM123456", "KEY1234567", key);
    /// let registration = Apple::provider().client_with_key("com.example.app", key);
    /// # let _ = registration;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn client_with_key(self, client_id: impl Into<String>, key: ClientKey) -> Registration {
        Registration { client_key: Some(key), ..self.public_client(client_id) }
    }

    /// Registers a public client, which has no secret (RFC 6749 section 2.1). Only PKCE protects its codes, so a provider
    /// [without PKCE](crate::Quirks::without_pkce) is rejected. A server can protect a secret: use this only if the provider
    /// issues none.
    pub fn public_client(self, client_id: impl Into<String>) -> Registration {
        Registration {
            provider: self,
            client_id: client_id.into(),
            client_secret: None,
            client_key: None,
            redirect_uri: None,
            plain_http: PlainHttp::default(),
        }
    }

    /// Registers the client that the environment names: for a provider `github`, `GITHUB_CLIENT_ID` and
    /// `GITHUB_CLIENT_SECRET`. Without a secret it is a public client. In the names of variables, every character of the
    /// provider's name other than a letter or digit is `_`. An empty variable counts as not set.
    ///
    /// ```
    /// use oauth_dance::{ConfigError, Provider};
    ///
    /// let acme = Provider::new("acme-notes", "https://acme.example/authorize", "https://acme.example/token");
    /// let error = acme.client_from_env().unwrap_err();
    /// assert!(matches!(error, ConfigError::MissingVariable { variable } if variable == "ACME_NOTES_CLIENT_ID"));
    /// ```
    ///
    /// # Errors
    /// [`ConfigError::MissingVariable`] if the client id is not set.
    pub fn client_from_env(self) -> Result<Registration, ConfigError> {
        let prefix: String = self
            .name
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' })
            .collect();
        let client_id = required_variable(&format!("{prefix}_CLIENT_ID"))?;
        let client_secret = variable(&format!("{prefix}_CLIENT_SECRET")).map(Secret::from);
        Ok(Registration { client_secret, ..self.public_client(client_id) })
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn required_variable(name: &str) -> Result<String, ConfigError> {
    variable(name).ok_or_else(|| ConfigError::MissingVariable { variable: name.to_owned() })
}
