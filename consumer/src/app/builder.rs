//! The configuration of an application, checked as a whole.
//!
//! Setters store and never fail, so that a configuration reads as one expression. [`OAuthBuilder::build`] checks
//! everything at once, at startup, when an operator sees the error: a misconfiguration must not appear only at the
//! first login.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use oauth_dance_core::{Clock, MemoryStorage, TokenStorage, Tokens};

use super::hooks::{Hooks, NoHooks};
use super::paths::Paths;
use super::{Inner, OAuth, UserSource};
use crate::browser::anonymous::AnonymousUsers;
use crate::browser::attempt::Attempts;
use crate::browser::logout::LogoutState;
use crate::browser::spent::SpentAttempts;
use crate::browser::user::{ByExtractor, User, Users};
use crate::config::registration::Registration;
use crate::connector::{ConnectorBuilder, ForRequests};
use crate::error::ConfigError;

/// Longer than any request takes, and than two responses to the same browser can be apart.
const LEDGER_RETENTION: Duration = Duration::from_secs(600);

/// The configuration of an [`OAuth`] value. It starts with [`OAuth::builder`] or [`OAuth::per_request`], and ends with
/// [`build`](Self::build).
///
/// A source of users is required: [`user`](Self::user), [`users`](Self::users) or
/// [`anonymous_users`](Self::anonymous_users). Everything else has a default:
///
/// | setting | default |
/// | --- | --- |
/// | [`provider`](Self::provider) | none; each call adds one |
/// | [`hooks`](Self::hooks) | a login stores the token for the signed-in user |
/// | [`login_path`](Self::login_path), [`callback_path`](Self::callback_path) | `/login/{provider}`, `/login/{provider}/authorized` |
/// | [`timeout`](Self::timeout) | 20 seconds for one request to a provider |
/// | [`max_response`](Self::max_response) | 10 MiB for one API response |
/// | [`retention`](Self::retention) | tokens are stored until they are deleted |
/// | [`ledger`](Self::ledger) | none; only for [`OAuth::per_request`] |
/// | `cache` (with that cargo feature) | none |
/// | [`clock`](Self::clock) | the system's |
///
/// ```
/// use std::time::Duration;
/// use axum::http::HeaderMap;
/// use oauth_dance::presets::{GitHub, Google};
/// use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};
///
/// let oauth = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
///     .provider(GitHub::provider().with_scopes(["repo"]).client("id", "secret"))
///     .provider(Google::provider().client("id", "secret"))
///     .user(|headers: HeaderMap| async move { Some(User::new(headers.get("x-user")?.to_str().ok()?)) })
///     .timeout(Duration::from_secs(10))
///     .login_path("/connect/{provider}")
///     .build()?;
/// assert_eq!(oauth.login_path("github"), "/connect/github");
/// # Ok::<(), oauth_dance::ConfigError>(())
/// ```
#[must_use]
pub struct OAuthBuilder {
    /// Every setting that is not about requests.
    connector: ConnectorBuilder,
    base_url: String,
    requests: ForRequests,
    users: Option<UserSource>,
    hooks: Arc<dyn Hooks>,
    login_path: String,
    callback_path: String,
}

impl OAuthBuilder {
    pub(super) fn new(base_url: String, connector: ConnectorBuilder) -> Self {
        Self {
            connector,
            base_url,
            requests: ForRequests::default(),
            users: None,
            hooks: Arc::new(NoHooks),
            login_path: "/login/{provider}".to_owned(),
            callback_path: "/login/{provider}/authorized".to_owned(),
        }
    }

    /// Uses the tokens of each request instead of one storage.
    pub(super) fn for_each_request(mut self) -> Self {
        self.requests.per_request = true;
        self
    }

    /// Adds a provider, with the client that is registered there. The same provider can be added several times under
    /// different [names](crate::Provider::named), for example with different scopes: each has its own routes and tokens.
    ///
    /// ```
    /// use oauth_dance::presets::GitLab;
    /// use oauth_dance::{ConfigError, KeyRing, MemoryStorage, OAuth};
    ///
    /// let builder = || OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate()).anonymous_users();
    /// let (public, work) = (GitLab::provider(), GitLab::at("gitlab.example.com"));
    ///
    /// let same_name = builder()
    ///     .provider(public.clone().client("id", "secret"))
    ///     .provider(work.clone().client("id", "secret"))
    ///     .build();
    /// assert!(matches!(same_name, Err(ConfigError::DuplicateProvider { .. })));
    ///
    /// let both = builder()
    ///     .provider(public.client("id", "secret"))
    ///     .provider(work.named("work").client("id", "secret"))
    ///     .build();
    /// assert!(both.is_ok());
    /// ```
    pub fn provider(self, registration: Registration) -> Self {
        self.with(|connector| connector.provider(registration))
    }

    /// Determines the signed-in user with any axum extractor: a session, `axum-login`'s `AuthSession`, your own user type.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, OAuth, User};
    /// use axum::http::HeaderMap;
    ///
    /// # let builder = OAuth::builder("http://localhost:3000", oauth_dance::MemoryStorage::new(), KeyRing::generate());
    /// // Behind a proxy that authenticates users and sets a header:
    /// let builder = builder.user(|headers: HeaderMap| async move {
    ///     Some(User::new(headers.get("x-authenticated-user")?.to_str().ok()?))
    /// });
    /// # let _ = builder;
    /// ```
    ///
    /// The extractor gets no state, because it must work in every router. Pass what it needs as an
    /// [`Extension`](axum::Extension), or capture it in the closure. If the extractor rejects the request, the request
    /// fails with an error: an application must not treat a user as signed out because its session store is
    /// unavailable. Use `Option<E>` or `Result<E, E::Rejection>` for an extractor that rejects visitors.
    pub fn user<E, F, Resolved>(self, resolve: F) -> Self
    where
        E: FromRequestParts<()> + Send + 'static,
        F: Fn(E) -> Resolved + Send + Sync + 'static,
        Resolved: Future<Output = Option<User>> + Send + 'static,
    {
        self.users(ByExtractor::new(resolve))
    }

    /// Determines the signed-in user with your own [`Users`]: if the lookup can fail, or needs the whole request. Otherwise
    /// [`user`](Self::user) is shorter.
    pub fn users(self, users: impl Users) -> Self {
        Self { users: Some(UserSource::Application(Box::new(users))), ..self }
    }

    /// For an application without user accounts: each browser is a user, identified by a sealed cookie that is set when its
    /// first login ends and lasts 180 days. [`OAuth::layer`] allows rotating the keys of that cookie.
    ///
    /// The cookie is the only identification. A user who deletes it, or uses another browser, has to connect the account
    /// again, and the earlier token remains stored: set a [`retention`](Self::retention).
    pub fn anonymous_users(self) -> Self {
        let users = AnonymousUsers::new(self.connector.keys.clone(), self.connector.clock.clone());
        Self { users: Some(UserSource::Anonymous(users)), ..self }
    }

    /// Sets the application's [`Hooks`], which take part in logins and are notified of refreshes. A later call replaces
    /// them.
    pub fn hooks(self, hooks: impl Hooks) -> Self {
        Self { hooks: Arc::new(hooks), ..self }
    }

    /// Sets the login route's path, which must contain `{provider}` as a whole segment. The default is `/login/{provider}`.
    /// The page that a provider redirects to after a logout is `/ended` below it.
    pub fn login_path(self, path: impl Into<String>) -> Self {
        Self { login_path: path.into(), ..self }
    }

    /// Sets the callback route's path, from which redirect URIs are built. It must contain `{provider}` as a whole
    /// segment. The default is `/login/{provider}/authorized`, as in Flask-Dance.
    ///
    /// Providers compare redirect URIs exactly, so a change requires a change of every registration. If only one
    /// provider has another path registered, use
    /// [`Registration::with_redirect_uri`](crate::Registration::with_redirect_uri).
    ///
    /// ```
    /// use oauth_dance::presets::GitHub;
    /// use oauth_dance::{ConfigError, KeyRing, MemoryStorage, OAuth};
    ///
    /// let builder = |path: &str| {
    ///     OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
    ///         .provider(GitHub::provider().client("id", "secret"))
    ///         .anonymous_users()
    ///         .callback_path(path)
    /// };
    /// let oauth = builder("/auth/{provider}/callback").build()?;
    /// assert_eq!(oauth.redirect_uri("github")?, "https://app.example/auth/github/callback");
    /// assert!(matches!(builder("/auth/callback").build(), Err(ConfigError::Path { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn callback_path(self, path: impl Into<String>) -> Self {
        Self { callback_path: path.into(), ..self }
    }

    /// Sets the timeout of one request to a provider, including its response. The default is 20 seconds. It applies to
    /// token requests, to the metadata of issuers and to API calls; one API call can have
    /// [another](crate::ApiRequest::timeout).
    ///
    /// A longer timeout also delays recovery: if a process is killed during a refresh, others take it over only ten
    /// seconds after the timeout. For a refresh, the timeout is at most ten minutes.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|connector| connector.timeout(timeout))
    }

    /// Allows these hosts to be reached by plain `http`, for development: a provider in another container or on the
    /// local network, or this application at an address that a phone can open. Client secrets and tokens are sent there
    /// unencrypted.
    ///
    /// Each is the name or the address of one host, without a port, such as `keycloak` or `192.168.1.5`. The setting applies
    /// to everything in the configuration (the base URL, redirect URIs, issuers, endpoints, API bases) and to everything
    /// that an issuer's metadata or a token response names. On this machine (`localhost`, `127.0.0.1`, `[::1]`) plain `http`
    /// is always allowed. [`build`](Self::build) logs a warning.
    ///
    /// ```
    /// use oauth_dance::{KeyRing, MemoryStorage, OAuth, Provider};
    ///
    /// # #[cfg(feature = "oidc")]
    /// # fn main() -> Result<(), oauth_dance::ConfigError> {
    /// let keycloak = Provider::openid("keycloak", "http://keycloak:8080/realms/dev");
    /// let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    ///     .dangerously_allow_http(["keycloak"])
    ///     .provider(keycloak.client("app", "secret"))
    ///     .anonymous_users()
    ///     .build()?;
    /// # let _ = oauth;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "oidc"))]
    /// # fn main() {}
    /// ```
    pub fn dangerously_allow_http<H: Into<String>>(self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.with(|connector| connector.dangerously_allow_http(hosts))
    }

    /// Sets the size limit of an API response in bytes. The default is 10 MiB. A larger response is
    /// [`ApiError::TooLarge`](crate::ApiError::TooLarge), and is not read to its end. One call can have
    /// [another limit](crate::ApiRequest::max_response). Token responses have a fixed, smaller limit.
    pub fn max_response(self, bytes: usize) -> Self {
        self.with(|connector| connector.max_response(bytes))
    }

    /// Sets how long the storage retains a token after its last write. By default, it retains the token until it is deleted.
    ///
    /// Every login and refresh is a write, so the tokens of users who return are not affected. Choose a time after
    /// which an unused connection may be forgotten: at least the lifetime of the refresh token, and longer than the
    /// pauses between background refreshes. The token is not revoked at the provider when its retention ends.
    pub fn retention(self, retain_for: Duration) -> Self {
        self.with(|connector| connector.retention(retain_for))
    }

    /// Puts a cache in front of the storage, in the memory of this process, so that handlers do not read a recently
    /// read token again.
    ///
    /// The cost: after a logout or [`disconnect`](OAuth::disconnect) in *another* process, this process can use the
    /// token for at most the cache's age. It sees its own writes immediately. Refreshes, logins, [`OAuth::connection`]
    /// and [`OAuth::tokens`] read the storage. [`Tokens::with_cache`](oauth_dance_core::Tokens::with_cache) has the
    /// details. The storages of [`OAuth::per_request`] have no cache.
    ///
    /// ```
    /// use std::time::Duration;
    /// use oauth_dance::{Cache, KeyRing, MemoryStorage, OAuth};
    ///
    /// let builder = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    ///     .cache(Cache::new(Duration::from_secs(5)));
    /// # let _ = builder;
    /// ```
    #[cfg(feature = "cache")]
    pub fn cache(self, cache: oauth_dance_core::Cache) -> Self {
        self.with(|connector| connector.cache(cache))
    }

    /// For [`OAuth::per_request`]: records the outcome of each refresh and login attempt in this storage, sealed, for
    /// ten minutes. Each refresh token and code is then redeemed once, however many requests and processes there are,
    /// and a late response that gives a browser an older cookie is harmless.
    ///
    /// All processes should share the storage. If it loses its data, the requests of those minutes are handled as
    /// without a ledger. It contains one record for each refresh in the last minutes, and none for requests without a
    /// refresh.
    pub fn ledger(mut self, storage: impl TokenStorage) -> Self {
        let ledger = Tokens::sealed(storage, self.connector.keys.clone()).with_retention(LEDGER_RETENTION);
        self.requests.ledger = Some(ledger);
        self
    }

    /// Stores tokens **in plain text**; cookies stay sealed. A provider with [`dpop`](crate::Provider::dpop) is then
    /// rejected: a key that is stored unsealed with its token protects nothing.
    pub fn dangerous_plaintext_tokens(self) -> Self {
        self.with(ConnectorBuilder::dangerous_plaintext_tokens)
    }

    /// Sets the clock, for tests: `testing::TestClock` (with the cargo feature `testing`) is a clock that stands still until
    /// it is advanced. It decides when tokens, login attempts and cookies expire. Timeouts use the real time.
    pub fn clock(self, clock: Clock) -> Self {
        let builder = self.with(|connector| connector.clock(clock));
        match builder.users {
            Some(UserSource::Anonymous(_)) => builder.anonymous_users(),
            _ => builder,
        }
    }

    /// Checks the configuration and builds the [`OAuth`] value. It sends no request: the metadata of an OpenID provider is
    /// fetched when it is first needed, so that an application starts even if a provider is unavailable.
    ///
    /// ```
    /// use oauth_dance::{ConfigError, KeyRing, MemoryStorage, OAuth, Provider};
    ///
    /// let acme = Provider::new("acme", "https://acme.example/authorize", "http://acme.example/token");
    /// let built = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
    ///     .provider(acme.client("id", "secret"))
    ///     .anonymous_users()
    ///     .build();
    /// // Secrets would be sent unencrypted.
    /// assert!(matches!(built, Err(ConfigError::Invalid { field: "token_endpoint", .. })));
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`], which names the provider and the field.
    pub fn build(self) -> Result<OAuth, ConfigError> {
        let (mut connector, hooks) = (self.connector, Arc::clone(&self.hooks));
        let plain_http = connector.plain_http()?;
        let paths = Paths::new(&self.base_url, &plain_http, self.login_path, self.callback_path)?;
        for registration in &mut connector.registrations {
            let callback = paths.callback_url(registration.name());
            registration.redirect_uri.get_or_insert(callback);
        }
        let (keys, clock, timeout) = (connector.keys.clone(), connector.clock.clone(), connector.limits.timeout);
        let spent = spent_storage(&connector, self.requests.ledger.as_ref())?;
        let connector =
            connector.observer(move |key, event| hooks.refresh(key, event)).build_for(&plain_http, self.requests)?;
        let inner = Inner {
            users: self.users.ok_or(ConfigError::NoUsers)?,
            hooks: self.hooks,
            logouts: LogoutState::new(keys.clone(), paths.is_https()),
            attempts: Attempts::new(keys.clone(), clock, paths.is_https()),
            spent: SpentAttempts::new(spent, keys, timeout),
            paths,
        };
        Ok(OAuth { inner: Arc::new(inner), connector })
    }

    fn with(self, change: impl FnOnce(ConnectorBuilder) -> ConnectorBuilder) -> Self {
        Self { connector: change(self.connector), ..self }
    }
}

/// Where the attempts that were spent are recorded. If processes do not share a storage, each records those that return to
/// it.
fn spent_storage(connector: &ConnectorBuilder, ledger: Option<&Tokens>) -> Result<Arc<dyn TokenStorage>, ConfigError> {
    let notes = ledger.unwrap_or(&connector.tokens).storage();
    let capabilities = notes.capabilities();
    if ledger.is_some() && !capabilities.atomic {
        return Err(ConfigError::Ledger { storage: capabilities.name });
    }
    Ok(if capabilities.atomic && (capabilities.shared || ledger.is_some()) {
        Arc::clone(notes)
    } else {
        Arc::new(MemoryStorage::new().with_clock(connector.clock.clone()))
    })
}

impl fmt::Debug for OAuthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthBuilder")
            .field("base_url", &self.base_url)
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}
