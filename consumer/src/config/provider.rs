//! Providers as data, and what they know this application by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dead_grant::DeadGrant;
use super::issuer::OPENID_SCOPE;
use super::oauth1::{OAuth1, SignatureMethod};
use super::quirks::Quirks;

/// Gives a provider's name to the type system, so that an extractor can ask for it: [`Connected<GitHub>`].
///
/// Every [preset](crate::presets) implements it. For a provider of your own:
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

/// A provider as plain data: an authorization server of OAuth 2.0 or 1.0a, and the API behind it.
///
/// Take a [preset](crate::presets) and change what differs, or fill one in from [`Provider::new`]. It is checked
/// when [`OAuthBuilder::build`](crate::OAuthBuilder::build) gets it.
///
/// ```
/// use oauth_dance::Provider;
///
/// let mut acme = Provider::new("acme", "https://acme.example/authorize", "https://acme.example/token");
/// acme.api_base = Some("https://api.acme.example/v2".to_owned());
/// acme.scopes = vec!["read".to_owned(), "write".to_owned()];
/// let registration = acme.client("our-client-id", "our-client-secret");
/// # let _ = registration;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "Provider::unnamed")]
#[non_exhaustive]
pub struct Provider {
    /// Its name in this application: part of the paths and of every storage key. Renaming it orphans its tokens.
    pub name: String,
    /// Its name as people know it.
    pub title: String,
    /// Where the user is sent (RFC 6749 section 3.1). Empty, it is what the issuer's metadata says; see
    /// [`openid`](Self::openid).
    pub authorization_endpoint: String,
    /// Where tokens are asked for (RFC 6749 section 3.2; RFC 5849 section 2.3). Empty, it is what the issuer's metadata
    /// says.
    pub token_endpoint: String,
    /// Where the parameters of the authorization request are sent first, so that the browser carries nothing but a
    /// reference to them (RFC 9126). `None`, the default, sends them with the browser.
    pub pushed_authorization_request_endpoint: Option<String>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: Option<String>,
    /// Where the user's identity is asked for, with the token.
    pub userinfo_endpoint: Option<String>,
    /// What paths given to [`ApiClient`](crate::ApiClient) are appended to. The token goes to this origin only, and
    /// to that of the userinfo endpoint.
    pub api_base: Option<String>,
    /// Where the user's session at the provider is ended (OpenID Connect RP-Initiated Logout), if the issuer's metadata
    /// does not say it.
    pub end_session_endpoint: Option<String>,
    /// The authorization server's identifier. If set, the callback's `iss` must equal it (RFC 9207), and with the cargo
    /// feature `oidc` the ID token of a login that asks for the scope `openid` is verified and must be by it.
    ///
    /// `{tenantid}` in it stands for any tenant, which the ID token names in its claim `tid`, as Microsoft has it.
    pub issuer: Option<String>,
    /// Where the issuer's metadata is, if not at the issuer with `/.well-known/openid-configuration`.
    pub metadata_url: Option<String>,
    /// Whether the ID token is stored with the access token, to be shown to the provider when the user logs out; see
    /// [`OAuth::end_session`](crate::OAuth::end_session). By default it is not: it is as large as everything else together,
    /// and full of personal data.
    pub keep_id_token: bool,
    /// Refuse a callback without `iss`, for a provider that announces to send it (RFC 9207 section 2.4).
    pub requires_issuer: bool,
    /// Bind tokens to a key, so that a stolen token is of no use without it (RFC 9449). Off by default.
    ///
    /// Every login makes a key of its own (ES256), which is stored sealed with the token. A provider that answers with a
    /// token which is not bound is refused. Tokens from before it was switched on are bound when they are refreshed, and
    /// those that are bound stay so when it is switched off.
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
    /// The scopes to ask for.
    pub scopes: Vec<String>,
    /// What stands between scopes in the request. RFC 6749 says a space; some providers want a comma.
    pub scope_separator: char,
    /// How the client authenticates at the token endpoint.
    pub client_authentication: ClientAuthentication,
    /// More parameters of the authorization request, such as `prompt` or `audience`.
    pub authorization_params: BTreeMap<String, String>,
    /// Parameters of the authorization request that a link or a form of the application may set for one login, as in
    /// `/login/google?prompt=select_account`: to let the user choose the account (`prompt`, `login_hint`), to have them sign
    /// in there once more (`prompt=login`, `max_age=0`), or in a stronger way (`acr_values`; OpenID Connect Core section
    /// 3.1.2.1).
    ///
    /// None by default, and never for a request that another site made the browser send. The user can write
    /// any value, which [`Hooks::before_login`](crate::Hooks::before_login) gets to see.
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
    /// How a refresh token is asked for, where one is not given anyway. Clear it to ask for none.
    pub offline_access: OfflineAccess,
    /// Headers that every API call carries, besides the token. `{client_id}` in a value is filled in.
    pub api_headers: BTreeMap<String, String>,
    /// How the provider says that a refresh token is of no use any more, if not by `invalid_grant`.
    pub dead_grants: Vec<DeadGrant>,
    /// How the API says that the access token is no longer valid, if not by status 401 or the error `invalid_token` (RFC 6750
    /// section 3.1). The form is that of [`dead_grants`](Self::dead_grants); the member `body` is a response that is not JSON.
    pub rejected_tokens: Vec<DeadGrant>,
    /// Where the provider departs from the standards.
    pub quirks: Quirks,
    /// What makes it a provider of OAuth 1.0a in place of OAuth 2.0; see [`Provider::oauth1`].
    pub oauth1: Option<OAuth1>,
}

/// How a refresh token is asked for. What is named here is asked for besides [`Provider::scopes`] and
/// [`Provider::authorization_params`], so that changing those does not lose it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OfflineAccess {
    /// It is not asked for: the provider always gives one, or never, or as the client is registered.
    #[default]
    NotAsked,
    /// By a scope, such as `offline_access`.
    Scope(String),
    /// By parameters of the authorization request, such as `access_type=offline`.
    Params(BTreeMap<String, String>),
}

impl Provider {
    /// A provider that keeps to RFC 6749, with everything optional left out.
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
            revocation_endpoint: None,
            userinfo_endpoint: None,
            api_base: None,
            end_session_endpoint: None,
            issuer: None,
            metadata_url: None,
            keep_id_token: false,
            requires_issuer: false,
            dpop: false,
            scopes: Vec::new(),
            scope_separator: ' ',
            client_authentication: ClientAuthentication::Basic,
            authorization_params: BTreeMap::new(),
            login_params: Vec::new(),
            offline_access: OfflineAccess::NotAsked,
            api_headers: BTreeMap::new(),
            dead_grants: Vec::new(),
            rejected_tokens: Vec::new(),
            quirks: Quirks::default(),
            oauth1: None,
        }
    }

    /// Nothing but the defaults.
    fn unnamed() -> Self {
        Self::new("", "", "")
    }

    /// A provider of OAuth 1.0a (RFC 5849), which signs with HMAC-SHA1 unless told otherwise.
    ///
    /// Routes, extractors, hooks and storage are the same as for OAuth 2.0. Its tokens do not expire and are not
    /// refreshed. There are no scopes; what providers have in their place goes into
    /// [`authorization_params`](Self::authorization_params).
    ///
    /// Needs the cargo feature `oauth1`; without it such a registration is a [`ConfigError`](crate::ConfigError).
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

    /// Signs in this way, if it is a provider of OAuth 1.0a.
    #[must_use]
    pub fn with_signature_method(mut self, method: SignatureMethod) -> Self {
        if let Some(oauth1) = &mut self.oauth1 {
            oauth1.signature_method = method;
        }
        self
    }

    /// An OpenID provider, of which nothing need be known but its issuer: the endpoints are in its metadata (OpenID Connect
    /// Discovery), which is fetched when it is first needed. It asks for the scope `openid`.
    ///
    /// Needs the cargo feature `oidc`; without it such a registration is a [`ConfigError`](crate::ConfigError).
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

    /// The endpoints that the issuer's metadata has to name.
    pub(crate) fn discovered_endpoints(&self) -> Vec<&'static str> {
        let endpoints =
            [("authorization_endpoint", &self.authorization_endpoint), ("token_endpoint", &self.token_endpoint)];
        endpoints.into_iter().filter(|(_, endpoint)| endpoint.is_empty()).map(|(field, _)| field).collect()
    }

    /// The same provider under another name, to use it twice.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Asks for these scopes instead.
    #[must_use]
    pub fn with_scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }
}

/// How a client authenticates at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// HTTP Basic, as the RFC prefers.
    #[serde(alias = "client_secret_basic")]
    Basic,
    /// `client_id` and `client_secret` in the form.
    #[serde(alias = "client_secret_post", alias = "post")]
    Body,
}
