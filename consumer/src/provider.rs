use std::collections::BTreeMap;
use std::env;

use oauth_dance_core::Secret;
use serde::Deserialize;

use crate::client_key::ClientKey;
use crate::error::ConfigError;
use crate::oauth1::{OAuth1, SignatureMethod};
use crate::openid;
use crate::quirks::Quirks;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Bind tokens to a key, so that they are of no use to whoever steals them without it (RFC 9449). Off by default.
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
    /// None by default, and never for a request that another site made the browser send. Whoever is at the browser can
    /// write any value, which [`Hooks::before_login`](crate::Hooks::before_login) gets to see.
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
    /// Where the provider departs from the standards.
    pub quirks: Quirks,
    /// What makes it a provider of OAuth 1.0a in place of OAuth 2.0; see [`Provider::oauth1`].
    pub oauth1: Option<OAuth1>,
}

/// How a refresh token is asked for. What is named here is asked for besides [`Provider::scopes`] and
/// [`Provider::authorization_params`], so that changing those does not lose it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
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
            quirks: Quirks::default(),
            oauth1: None,
        }
    }

    /// A provider of OAuth 1.0a (RFC 5849), which signs with HMAC-SHA1 unless told otherwise.
    ///
    /// Routes, extractors, hooks and storage are the same as for OAuth 2.0. Its tokens do not expire and are not
    /// refreshed. There are no scopes; what providers have in their place goes into
    /// [`authorization_params`](Self::authorization_params).
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
    /// Needs the cargo feature `oidc`; without it such a registration is a [`ConfigError`].
    ///
    /// ```
    /// # #[cfg(feature = "oidc")]
    /// # fn main() -> Result<(), oauth_dance::ConfigError> {
    /// use oauth_dance::{KeyRing, MemoryStorage, OAuth, Provider};
    ///
    /// let acme = Provider::openid("acme", "https://id.acme.example").with_scopes(["openid", "email"]);
    /// let oauth = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
    ///     .provider(acme.client("our-client-id", "our-client-secret"))
    ///     .each_browser_a_user()
    ///     .build()?;
    /// # let _ = oauth;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "oidc"))]
    /// # fn main() {}
    /// ```
    pub fn openid(name: impl Into<String>, issuer: impl Into<String>) -> Self {
        let mut provider = Self::new(name, "", "").with_scopes([openid::SCOPE]);
        provider.issuer = Some(issuer.into());
        provider
    }

    /// The first endpoint that the issuer's metadata has to say, if any.
    pub(crate) fn left_open(&self) -> Option<&'static str> {
        let endpoints =
            [("authorization_endpoint", &self.authorization_endpoint), ("token_endpoint", &self.token_endpoint)];
        endpoints.into_iter().find(|(_, endpoint)| endpoint.is_empty()).map(|(field, _)| field)
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

    /// Registers this application's client, with the credentials that the provider issued (RFC 6749 section 2.2). For
    /// OAuth 1.0a they are the client key and its shared secret; with RSA-SHA1 the secret is the private key in PEM.
    pub fn client(self, client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Registration {
        Registration {
            provider: self,
            client_id: client_id.into(),
            client_secret: Some(client_secret.into()),
            client_key: None,
            redirect_uri: None,
        }
    }

    /// Registers this application's client by its key, of which a client secret is made whenever one is needed.
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

    /// Registers a public client, which has no secret; PKCE alone protects it.
    pub fn public_client(self, client_id: impl Into<String>) -> Registration {
        Registration {
            provider: self,
            client_id: client_id.into(),
            client_secret: None,
            client_key: None,
            redirect_uri: None,
        }
    }

    /// Registers the client named in the environment: for a provider `github`, `GITHUB_CLIENT_ID` and
    /// `GITHUB_CLIENT_SECRET`. Without a secret it is a public client.
    ///
    /// # Errors
    /// [`ConfigError::MissingVariable`] if there is no client id.
    pub fn client_from_env(self) -> Result<Registration, ConfigError> {
        let prefix: String = self
            .name
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' })
            .collect();
        let client_id = required_variable(&format!("{prefix}_CLIENT_ID"))?;
        let client_secret = variable(&format!("{prefix}_CLIENT_SECRET")).map(Secret::from);
        Ok(Registration { provider: self, client_id, client_secret, client_key: None, redirect_uri: None })
    }
}

/// How a client authenticates at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// HTTP Basic, as the RFC prefers.
    #[serde(alias = "client_secret_basic")]
    Basic,
    /// `client_id` and `client_secret` in the form.
    #[serde(alias = "client_secret_post", alias = "post")]
    Body,
}

/// A [`Provider`] and what it knows this application by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub(crate) provider: Provider,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<Secret>,
    /// What the secret is made of, in its place.
    pub(crate) client_key: Option<ClientKey>,
    pub(crate) redirect_uri: Option<String>,
}

impl Registration {
    /// Sends this redirect URI instead of the base URL with the callback path. It must lead to the callback route all
    /// the same, for instance through a proxy that rewrites paths.
    #[must_use]
    pub fn with_redirect_uri(mut self, redirect_uri: impl Into<String>) -> Self {
        self.redirect_uri = Some(redirect_uri.into());
        self
    }

    /// The provider's name in this application.
    pub fn name(&self) -> &str {
        &self.provider.name
    }
}

/// A [`Registration`] as a configuration file has it, in any format that serde reads.
///
/// With `preset` the other fields change that preset; without it, `authorization_endpoint` and `token_endpoint` are
/// required, or for an OpenID provider `issuer` alone. Credentials stand in the file or, better, in environment variables that the file names.
///
/// ```
/// use oauth_dance::ProviderConfig;
///
/// let config: ProviderConfig = serde_json::from_str(r#"{
///     "preset": "github", "scopes": ["repo"], "client_id": "id", "client_secret": "secret"
/// }"#)?;
/// assert_eq!(config.registration("work")?.name(), "work");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProviderConfig {
    /// The [preset](crate::presets) to start from.
    pub preset: Option<String>,
    /// What fills in the preset's `{host}` or `{tenant}`, where it has one.
    #[serde(alias = "tenant")]
    pub host: Option<String>,
    /// See [`Provider::title`].
    pub title: Option<String>,
    /// See [`OAuth1::temporary_credentials_endpoint`]; with it, or such a preset, it is a provider of OAuth 1.0a.
    #[serde(alias = "request_token_url")]
    pub temporary_credentials_endpoint: Option<String>,
    /// See [`OAuth1::signature_method`].
    pub signature_method: Option<SignatureMethod>,
    /// See [`OAuth1::realm`].
    pub realm: Option<String>,
    /// See [`Provider::authorization_endpoint`].
    #[serde(alias = "authorization_url")]
    pub authorization_endpoint: Option<String>,
    /// See [`Provider::token_endpoint`].
    #[serde(alias = "token_url", alias = "access_token_url")]
    pub token_endpoint: Option<String>,
    /// See [`Provider::pushed_authorization_request_endpoint`].
    pub pushed_authorization_request_endpoint: Option<String>,
    /// See [`Provider::revocation_endpoint`].
    #[serde(alias = "revocation_url")]
    pub revocation_endpoint: Option<String>,
    /// See [`Provider::userinfo_endpoint`].
    #[serde(alias = "userinfo_url")]
    pub userinfo_endpoint: Option<String>,
    /// See [`Provider::api_base`].
    #[serde(alias = "base_url")]
    pub api_base: Option<String>,
    /// See [`Provider::end_session_endpoint`].
    pub end_session_endpoint: Option<String>,
    /// See [`Provider::issuer`].
    pub issuer: Option<String>,
    /// See [`Provider::metadata_url`].
    pub metadata_url: Option<String>,
    /// See [`Provider::keep_id_token`].
    pub keep_id_token: Option<bool>,
    /// See [`Provider::requires_issuer`].
    pub requires_issuer: Option<bool>,
    /// See [`Provider::dpop`].
    pub dpop: Option<bool>,
    /// See [`Provider::scopes`].
    pub scopes: Option<Vec<String>>,
    /// See [`Provider::scope_separator`].
    pub scope_separator: Option<char>,
    /// See [`Provider::client_authentication`].
    pub client_authentication: Option<ClientAuthentication>,
    /// See [`Provider::authorization_params`]; added to those of the preset.
    pub authorization_params: BTreeMap<String, String>,
    /// See [`Provider::login_params`].
    pub login_params: Option<Vec<String>>,
    /// See [`Provider::offline_access`].
    pub offline_access: Option<OfflineAccess>,
    /// See [`Provider::api_headers`]; added to those of the preset.
    pub api_headers: BTreeMap<String, String>,
    /// See [`Provider::quirks`]; in place of those of the preset, all of them.
    pub quirks: Option<Quirks>,
    /// The client id, or the client key of OAuth 1.0a.
    #[serde(alias = "client_key")]
    pub client_id: Option<String>,
    /// The environment variable that holds the client id.
    pub client_id_env: Option<String>,
    /// The client secret; without one, and without `client_secret_env`, it is a public client.
    #[serde(deserialize_with = "secret")]
    pub client_secret: Option<Secret>,
    /// The environment variable that holds the client secret.
    pub client_secret_env: Option<String>,
    /// See [`Registration::with_redirect_uri`].
    pub redirect_uri: Option<String>,
}

impl ProviderConfig {
    /// The registration of the provider that this application calls `name`.
    ///
    /// # Errors
    /// [`ConfigError`], which names the provider and what is wrong or missing.
    pub fn registration(self, name: &str) -> Result<Registration, ConfigError> {
        let client_id = match (self.client_id, &self.client_id_env) {
            (Some(client_id), _) => client_id,
            (None, Some(variable)) => required_variable(variable)?,
            (None, None) => return Err(ConfigError::missing(name, "client_id")),
        };
        let client_secret = match (self.client_secret, &self.client_secret_env) {
            (Some(secret), _) => Some(secret),
            (None, Some(variable)) => Some(required_variable(variable)?.into()),
            (None, None) => None,
        };

        let mut provider = match (&self.preset, &self.issuer, &self.host) {
            (None, Some(issuer), None) => Provider::openid(name, issuer),
            _ => preset(name, self.preset, self.host)?,
        };
        provider.name = name.to_owned();
        let discovers = self.issuer.is_some();
        let required = |value: Option<String>, preset: String, field| match value {
            Some(value) => Ok(value),
            None if preset.is_empty() && !discovers => Err(ConfigError::missing(name, field)),
            None => Ok(preset),
        };
        provider.authorization_endpoint =
            required(self.authorization_endpoint, provider.authorization_endpoint, "authorization_endpoint")?;
        provider.token_endpoint = required(self.token_endpoint, provider.token_endpoint, "token_endpoint")?;
        provider.title = self.title.unwrap_or(provider.title);
        provider.pushed_authorization_request_endpoint =
            self.pushed_authorization_request_endpoint.or(provider.pushed_authorization_request_endpoint);
        provider.revocation_endpoint = self.revocation_endpoint.or(provider.revocation_endpoint);
        provider.userinfo_endpoint = self.userinfo_endpoint.or(provider.userinfo_endpoint);
        provider.api_base = self.api_base.or(provider.api_base);
        provider.end_session_endpoint = self.end_session_endpoint.or(provider.end_session_endpoint);
        provider.issuer = self.issuer.or(provider.issuer);
        provider.metadata_url = self.metadata_url.or(provider.metadata_url);
        provider.keep_id_token = self.keep_id_token.unwrap_or(provider.keep_id_token);
        provider.requires_issuer = self.requires_issuer.unwrap_or(provider.requires_issuer);
        provider.dpop = self.dpop.unwrap_or(provider.dpop);
        provider.scopes = self.scopes.unwrap_or(provider.scopes);
        provider.scope_separator = self.scope_separator.unwrap_or(provider.scope_separator);
        provider.client_authentication = self.client_authentication.unwrap_or(provider.client_authentication);
        provider.authorization_params.extend(self.authorization_params);
        provider.login_params = self.login_params.unwrap_or(provider.login_params);
        provider.offline_access = self.offline_access.unwrap_or(provider.offline_access);
        provider.api_headers.extend(self.api_headers);
        provider.quirks = self.quirks.unwrap_or(provider.quirks);
        let endpoint = self.temporary_credentials_endpoint;
        provider.oauth1 = OAuth1::configured(name, provider.oauth1, endpoint, self.signature_method, self.realm)?;
        Ok(Registration { provider, client_id, client_secret, client_key: None, redirect_uri: self.redirect_uri })
    }
}

/// What a configuration starts from.
fn preset(name: &str, preset: Option<String>, host: Option<String>) -> Result<Provider, ConfigError> {
    let no_place = ConfigError::invalid(name, "host", "has no place in this preset, or there is no preset");
    match (preset, host) {
        (None, None) => Ok(Provider::new(name, "", "")),
        (None, Some(_)) => Err(no_place),
        (Some(preset), None) => crate::presets::find(&preset)
            .ok_or_else(|| ConfigError::UnknownPreset { provider: name.to_owned(), preset }),
        (Some(preset), Some(host)) if crate::presets::find(&preset).is_some() => {
            crate::presets::find_at(&preset, &host).ok_or(no_place)
        }
        (Some(preset), Some(_)) => Err(ConfigError::UnknownPreset { provider: name.to_owned(), preset }),
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::from))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn required_variable(name: &str) -> Result<String, ConfigError> {
    variable(name).ok_or_else(|| ConfigError::MissingVariable { variable: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> ProviderConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_config_changes_a_preset_field_by_field() {
        let registration = config(
            r#"{"preset": "google", "client_id": "id", "scopes": ["openid"], "client_authentication": "body",
                "token_url": "https://example.com/token", "authorization_params": {"hd": "example.com"}}"#,
        )
        .registration("work")
        .unwrap();
        let preset = crate::presets::Google::provider();
        let provider = &registration.provider;
        assert_eq!(provider.name, "work");
        assert_eq!(provider.authorization_endpoint, preset.authorization_endpoint);
        assert_eq!(provider.token_endpoint, "https://example.com/token");
        assert_eq!(provider.scopes, ["openid"]);
        assert_eq!(provider.client_authentication, ClientAuthentication::Body);
        assert_eq!(provider.authorization_params["hd"], "example.com");
        assert_eq!(registration.client_secret, None);
    }

    #[test]
    fn a_wrong_config_names_the_provider_and_the_field() {
        for (json, cause) in [
            (r#"{"client_id": "id"}"#, "provider acme: authorization_endpoint is missing"),
            (r#"{"client_id": "id", "authorization_endpoint": "https://a.example"}"#, "token_endpoint is missing"),
            (r#"{"preset": "github"}"#, "provider acme: client_id is missing"),
            (r#"{"preset": "nobody", "client_id": "id"}"#, "\"nobody\""),
            (r#"{"client_id_env": "OAUTH_DANCE_TEST_UNSET"}"#, "OAUTH_DANCE_TEST_UNSET"),
        ] {
            let error = config(json).registration("acme").unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
        assert!(serde_json::from_str::<ProviderConfig>(r#"{"token_endpiont": "x"}"#).is_err());
    }

    #[test]
    fn a_config_of_oauth_1_names_its_endpoint_and_method() {
        let registration = config(
            r#"{"client_key": "key", "client_secret": "secret", "request_token_url": "https://a.example/request",
                "authorization_url": "https://a.example/authorize", "access_token_url": "https://a.example/access",
                "signature_method": "PLAINTEXT", "realm": "here"}"#,
        )
        .registration("acme")
        .unwrap();
        let oauth1 = registration.provider.oauth1.unwrap();
        assert_eq!(oauth1.temporary_credentials_endpoint, "https://a.example/request");
        assert_eq!((oauth1.signature_method, oauth1.realm.as_deref()), (SignatureMethod::Plaintext, Some("here")));
        assert_eq!(registration.provider.token_endpoint, "https://a.example/access");

        let error = config(r#"{"preset": "github", "client_id": "id", "signature_method": "HMAC-SHA1"}"#);
        let error = error.registration("acme").unwrap_err().to_string();
        assert!(error.contains("temporary_credentials_endpoint is missing"), "{error}");
        assert!(serde_json::from_str::<ProviderConfig>(r#"{"signature_method": "NONE"}"#).is_err());
    }

    #[test]
    fn secrets_in_a_config_do_not_print() {
        let config = config(r#"{"preset": "github", "client_id": "id", "client_secret": "CANARY"}"#);
        assert!(!format!("{config:?} {:?}", config.clone().registration("github").unwrap()).contains("CANARY"));
    }
}
