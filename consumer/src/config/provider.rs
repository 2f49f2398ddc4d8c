//! Providers as plain data.
//!
//! The fields follow the standards, in the order in which a login uses them. Departures of a provider from the standards are
//! in [`Quirks`], so that this type can be read without them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error_pattern::ErrorPattern;
use super::issuer::OPENID_SCOPE;
use super::oauth1::{OAuth1, SignatureMethod};
use super::quirks::Quirks;

/// Names a provider as a type, for extractors: [`Connected<GitHub>`].
///
/// Every [preset](crate::presets) implements it. For your own provider:
///
/// ```
/// struct Acme;
///
/// impl oauth_dance::ProviderName for Acme {
///     const NAME: &'static str = "acme";
/// }
/// ```
///
/// [`Connected<GitHub>`]: crate::Connected
pub trait ProviderName: Send + Sync + 'static {
    /// The provider's name in this application, as in [`Provider::name`].
    const NAME: &'static str;
}

/// A provider as plain data: an authorization server of OAuth 2.0 or 1.0a, and its API.
///
/// | to start from | use |
/// | --- | --- |
/// | one of over 40 known providers | a [preset](crate::presets), and change what differs |
/// | an OpenID provider, by its issuer | [`Provider::openid`] |
/// | any provider of OAuth 2.0, by its endpoints | [`Provider::new`] |
/// | a provider of OAuth 1.0a | [`Provider::oauth1`] |
/// | a configuration file | [`ProviderConfig`](crate::ProviderConfig) |
///
/// Then register the client that the provider issued to the application ([`Provider::client`]), and pass the result to
/// [`OAuthBuilder::provider`](crate::OAuthBuilder::provider). [`OAuthBuilder::build`](crate::OAuthBuilder::build) checks the
/// data.
///
/// ```
/// use oauth_dance::{KeyRing, MemoryStorage, OAuth, Provider};
///
/// let mut acme = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
/// acme.title = "Acme Notes".to_owned();
/// acme.api_base = Some("https://api.acme.example/v2".to_owned());
/// acme.scopes = vec!["read".to_owned(), "write".to_owned()];
/// acme.revocation_endpoint = Some("https://acme.example/revoke".to_owned());
///
/// let oauth = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
///     .provider(acme.client("our-client-id", "our-client-secret"))
///     .anonymous_users()
///     .build()?;
/// assert_eq!(oauth.providers().next(), Some(("acme", "Acme Notes")));
/// # Ok::<(), oauth_dance::ConfigError>(())
/// ```
///
/// It implements `Serialize` and `Deserialize`: an unknown field is an error, and a missing one has the value of
/// [`Provider::new`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "Provider::unnamed")]
#[non_exhaustive]
pub struct Provider {
    /// The name in this application: part of the routes' paths and of every storage key. If you rename a provider, its
    /// stored tokens are no longer found.
    pub name: String,
    /// The name that users know, for links and for the pages of this library. By default it is [`name`](Self::name).
    pub title: String,
    /// The authorization endpoint (RFC 6749 section 3.1). If it is empty, the issuer's metadata names it; see
    /// [`openid`](Self::openid).
    pub authorization_endpoint: String,
    /// The token endpoint (RFC 6749 section 3.2), or the token credentials endpoint (RFC 5849 section 2.3). If it is empty,
    /// the issuer's metadata names it.
    pub token_endpoint: String,
    /// The endpoint that the parameters of the authorization request are sent to first, so that the browser carries only a
    /// reference to them (RFC 9126). By default (`None`), the browser carries the parameters.
    pub pushed_authorization_request_endpoint: Option<String>,
    /// The device authorization endpoint (RFC 8628 section 3.1), for logins of programs on machines without a browser. By
    /// default (`None`), the issuer's metadata may name it.
    pub device_authorization_endpoint: Option<String>,
    /// The host in the redirect URI of a program on the user's own machine (RFC 8252 section 7.3). The default is the IP
    /// address, which no other program can take over.
    pub loopback_host: LoopbackHost,
    /// The revocation endpoint (RFC 7009). Without one, [`OAuth::disconnect`](crate::OAuth::disconnect) only deletes the
    /// token here. How a token is revoked is [`Quirks::revocation`].
    pub revocation_endpoint: Option<String>,
    /// The endpoint that returns the user's identity for an access token, for
    /// [`ApiClient::userinfo`](crate::ApiClient::userinfo). It also serves to find out whether a token is valid after an API
    /// responded with 401 and no reason.
    pub userinfo_endpoint: Option<String>,
    /// The base URL of the API, to which [`ApiClient`](crate::ApiClient) appends paths. Tokens are sent only to this origin
    /// and to that of the userinfo endpoint.
    pub api_base: Option<String>,
    /// The endpoint that ends the user's session at the provider (OpenID Connect RP-Initiated Logout), if the issuer's
    /// metadata does not name it.
    pub end_session_endpoint: Option<String>,
    /// The authorization server's identifier. If it is set, the callback's `iss` must equal it (RFC 9207). With the cargo
    /// feature `oidc`, the ID token of a login with the scope `openid` is verified, and must name this issuer.
    ///
    /// `{tenantid}` in it matches any tenant, which the ID token names in its claim `tid`, as at Microsoft.
    pub issuer: Option<String>,
    /// The URL of the issuer's metadata, if it is not `/.well-known/openid-configuration` below the issuer.
    pub metadata_url: Option<String>,
    /// Whether the ID token is stored with the access token, to be sent to the provider when the user logs out; see
    /// [`OAuth::end_session`](crate::OAuth::end_session). It is off by default: an ID token is as large as everything else
    /// in the record together, and contains personal data.
    pub store_id_token: bool,
    /// Whether a callback without `iss` is rejected, for a provider that announces that it sends `iss` (RFC 9207 section
    /// 2.4).
    pub requires_issuer: bool,
    /// Whether tokens are bound to a key, so that a stolen token is useless without it (RFC 9449). It is off by default.
    ///
    /// Each login generates its own key (ES256), which is stored sealed with the token. If the provider returns a token that
    /// is not bound, the token is rejected. After this is switched on, earlier tokens are bound at their next refresh. After
    /// it is switched off, bound tokens stay bound.
    ///
    /// ```
    /// use oauth_dance::Provider;
    ///
    /// let mut bank = Provider::new("bank", "https://bank.example/authorize", "https://bank.example/token");
    /// bank.pushed_authorization_request_endpoint = Some("https://bank.example/par".to_owned());
    /// bank.dpop = true;
    /// # let _ = bank;
    /// ```
    pub dpop: bool,
    /// The scopes to request (RFC 6749 section 3.3). The provider, or the user, may grant less; see
    /// [`Authorized::scope_change`](crate::Authorized::scope_change). Tokens that are stored already have the scopes that
    /// were granted at their login: to get more, users log in again.
    pub scopes: Vec<String>,
    /// The separator of scopes in the request. RFC 6749 requires a space; some providers require a comma.
    pub scope_separator: char,
    /// How the client authenticates at the token endpoint.
    pub client_authentication: ClientAuthentication,
    /// Additional parameters of the authorization request, such as `prompt` or `audience`, for every login. For one login,
    /// use [`login_params`](Self::login_params) or [`Hooks::before_login`](crate::Hooks::before_login). Parameters of the
    /// protocol itself, such as `state`, are rejected.
    pub authorization_params: BTreeMap<String, String>,
    /// Parameters of the authorization request that a link or form of the application may set for one login, as in
    /// `/login/google?prompt=select_account`. Use them to let users choose an account (`prompt`, `login_hint`), to have them
    /// authenticate again (`prompt=login`, `max_age=0`), or with a stronger method (`acr_values`; OpenID Connect Core
    /// section 3.1.2.1).
    ///
    /// There are none by default, and they are ignored in a request that another site caused. The user can set any value, so
    /// check it in [`Hooks::before_login`](crate::Hooks::before_login) if it matters.
    ///
    /// ```
    /// use oauth_dance::presets::Google;
    ///
    /// let mut google = Google::provider();
    /// google.login_params = vec!["prompt".to_owned(), "login_hint".to_owned()];
    /// let link = r#"<a href="/login/google?prompt=select_account">Use another account</a>"#;
    /// # let _ = (google.client("id", "secret"), link);
    /// ```
    pub login_params: Vec<String>,
    /// How a refresh token is requested, if the provider does not issue one anyway. Clear it to request none.
    pub offline_access: OfflineAccess,
    /// Headers of every API call, in addition to the token, such as the version of the API. `{client_id}` in a value is
    /// replaced by the client id.
    pub api_headers: BTreeMap<String, String>,
    /// Error responses of the token endpoint that mean a refresh token is no longer valid, in addition to `invalid_grant`.
    pub dead_grants: Vec<ErrorPattern>,
    /// Error responses of the API that mean the access token is no longer valid, in addition to status 401 and the error
    /// `invalid_token` (RFC 6750 section 3.1). The member `body` matches a response that is not JSON.
    pub rejected_tokens: Vec<ErrorPattern>,
    /// Departures of the provider from the standards.
    pub quirks: Quirks,
    /// If set, the provider uses OAuth 1.0a instead of OAuth 2.0; see [`Provider::oauth1`].
    pub oauth1: Option<OAuth1>,
}

/// How a refresh token is requested. The scope or the parameters are added to [`Provider::scopes`] and
/// [`Provider::authorization_params`], so that a change of those does not lose it.
///
/// Without a refresh token, the user has to log in again whenever the access token expires, and background jobs stop
/// then. Presets request one if the provider issues any.
///
/// ```
/// use std::collections::BTreeMap;
/// use oauth_dance::presets::Google;
/// use oauth_dance::{OfflineAccess, Provider};
///
/// let mut acme = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
/// acme.offline_access = OfflineAccess::Scope("offline_access".to_owned());
///
/// // Only for sign-in: no refresh token is needed.
/// let mut google = Google::provider();
/// assert!(matches!(google.offline_access, OfflineAccess::Params(_)));
/// google.offline_access = OfflineAccess::NotRequested;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OfflineAccess {
    /// Not at all: the provider always issues one, or never, or according to the client's registration.
    #[default]
    NotRequested,
    /// With a scope, such as `offline_access`.
    Scope(String),
    /// With parameters of the authorization request, such as `access_type=offline`.
    Params(BTreeMap<String, String>),
}

impl Provider {
    /// A provider that follows RFC 6749, without optional settings: no scopes, a client secret in the `Authorization`
    /// header, PKCE, and no API base. Set the other fields before the client is registered.
    ///
    /// The name is part of the routes and of every storage key: choose it once. It may contain ASCII letters, digits, `-`,
    /// `_` and `.`.
    pub fn new(
        name: impl Into<String>,
        authorization_endpoint: impl Into<String>,
        token_endpoint: impl Into<String>,
    ) -> Self {
        let name = name.into();
        Self {
            title: name.clone(),
            name,
            authorization_endpoint: authorization_endpoint.into(),
            token_endpoint: token_endpoint.into(),
            pushed_authorization_request_endpoint: None,
            device_authorization_endpoint: None,
            loopback_host: LoopbackHost::IpAddress,
            revocation_endpoint: None,
            userinfo_endpoint: None,
            api_base: None,
            end_session_endpoint: None,
            issuer: None,
            metadata_url: None,
            store_id_token: false,
            requires_issuer: false,
            dpop: false,
            scopes: Vec::new(),
            scope_separator: ' ',
            client_authentication: ClientAuthentication::Basic,
            authorization_params: BTreeMap::new(),
            login_params: Vec::new(),
            offline_access: OfflineAccess::NotRequested,
            api_headers: BTreeMap::new(),
            dead_grants: Vec::new(),
            rejected_tokens: Vec::new(),
            quirks: Quirks::default(),
            oauth1: None,
        }
    }

    /// Only defaults.
    fn unnamed() -> Self {
        Self::new("", "", "")
    }

    /// A provider of OAuth 1.0a (RFC 5849), which signs with HMAC-SHA1 by default.
    ///
    /// Routes, extractors, hooks and storage are the same as for OAuth 2.0. Tokens do not expire and are not refreshed.
    /// There are no scopes; set the providers' substitutes in [`authorization_params`](Self::authorization_params).
    ///
    /// This needs the cargo feature `oauth1`; without it the registration is a [`ConfigError`](crate::ConfigError).
    ///
    /// ```no_run
    /// use oauth_dance::{ApiError, Connected, Provider, ProviderName, SignatureMethod};
    ///
    /// struct Printer;
    ///
    /// impl ProviderName for Printer {
    ///     const NAME: &'static str = "printer";
    /// }
    ///
    /// let mut printer = Provider::oauth1(
    ///     Printer::NAME,
    ///     "https://printer.example/oauth/request-token",
    ///     "https://printer.example/oauth/authorize",
    ///     "https://printer.example/oauth/access-token",
    /// )
    /// .with_signature_method(SignatureMethod::HmacSha256);
    /// printer.api_base = Some("https://api.printer.example".to_owned());
    /// let registration = printer.client("our-client-key", "our-client-secret");
    ///
    /// async fn print(printer: Connected<Printer>) -> Result<String, ApiError> {
    ///     printer.post("/jobs").form(&[("file", "vacation.jpg")]).send().await?.success()?.text()
    /// }
    /// # let _ = (registration, print);
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "oauth1")))]
    pub fn oauth1(
        name: impl Into<String>,
        temporary_credentials_endpoint: impl Into<String>,
        authorization_endpoint: impl Into<String>,
        token_credentials_endpoint: impl Into<String>,
    ) -> Self {
        let mut provider = Self::new(name, authorization_endpoint, token_credentials_endpoint);
        provider.oauth1 = Some(OAuth1 {
            temporary_credentials_endpoint: temporary_credentials_endpoint.into(),
            signature_method: SignatureMethod::default(),
            realm: None,
        });
        provider
    }

    /// Sets the signature method of a provider of OAuth 1.0a. It has no effect on a provider of OAuth 2.0.
    #[must_use]
    pub fn with_signature_method(mut self, method: SignatureMethod) -> Self {
        if let Some(oauth1) = &mut self.oauth1 {
            oauth1.signature_method = method;
        }
        self
    }

    /// An OpenID provider that is configured by its issuer alone. The endpoints come from its metadata (OpenID Connect
    /// Discovery), which is fetched when it is first needed. The scope `openid` is requested.
    ///
    /// This needs the cargo feature `oidc`; without it the registration is a [`ConfigError`](crate::ConfigError).
    ///
    /// ```
    /// # #[cfg(feature = "oidc")]
    /// # fn main() -> Result<(), oauth_dance::ConfigError> {
    /// use oauth_dance::{KeyRing, MemoryStorage, OAuth, Provider};
    ///
    /// let acme = Provider::openid("acme", "https://id.acme.example").with_scopes(["openid", "email"]);
    /// let oauth = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
    ///     .provider(acme.client("our-client-id", "our-client-secret"))
    ///     .anonymous_users()
    ///     .build()?;
    /// # let _ = oauth;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "oidc"))]
    /// # fn main() {}
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "oidc")))]
    pub fn openid(name: impl Into<String>, issuer: impl Into<String>) -> Self {
        let mut provider = Self::new(name, "", "").with_scopes([OPENID_SCOPE]);
        provider.issuer = Some(issuer.into());
        provider
    }

    /// The endpoints that have to come from the issuer's metadata.
    pub(crate) fn discovered_endpoints(&self) -> Vec<&'static str> {
        let endpoints =
            [("authorization_endpoint", &self.authorization_endpoint), ("token_endpoint", &self.token_endpoint)];
        endpoints.into_iter().filter(|(_, endpoint)| endpoint.is_empty()).map(|(field, _)| field).collect()
    }

    /// The same provider with another name, to use it twice. The title remains; set it too if users see both.
    ///
    /// ```
    /// use oauth_dance::presets::GitHub;
    ///
    /// // Sign-in without access to repositories, and a second connection for those who want it.
    /// let sign_in = GitHub::provider();
    /// let repositories = GitHub::provider().named("github-repos").with_scopes(["repo"]);
    /// assert_eq!((sign_in.name.as_str(), repositories.name.as_str()), ("github", "github-repos"));
    /// ```
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Replaces the scopes to request. A scope for a refresh token is not affected; see [`OfflineAccess`].
    #[must_use]
    pub fn with_scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }
}

/// The host in a loopback redirect URI (RFC 8252 sections 7.3 and 8.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LoopbackHost {
    /// `127.0.0.1`, or `[::1]` on a machine without IPv4. The RFC requires providers to accept it with any port.
    #[default]
    IpAddress,
    /// `localhost`, for providers that accept nothing else. The RFC advises against it, because a machine may resolve the name
    /// to another address.
    Localhost,
}

/// How a client authenticates at the token endpoint (RFC 6749 section 2.3.1). A public client, which has no secret, sends
/// its `client_id` in the form either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// HTTP Basic, which the RFC prefers: `client_secret_basic` in the metadata of OpenID providers. Both parts are
    /// form-encoded first, as the RFC requires.
    #[serde(alias = "client_secret_basic")]
    Basic,
    /// `client_id` and `client_secret` in the form: `client_secret_post` in the metadata of OpenID providers.
    #[serde(alias = "client_secret_post", alias = "post")]
    Body,
}
