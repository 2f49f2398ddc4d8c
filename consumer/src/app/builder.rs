use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use oauth_dance_core::{Clock, KeyRing, MemoryStorage, Refresher, TokenStorage, Tokens};

use super::hooks::{Hooks, NoHooks};
use super::paths::Paths;
use super::{Inner, OAuth, Tasks, UserSource};
use crate::browser::anonymous::AnonymousUsers;
use crate::browser::attempt::Attempts;
use crate::browser::logout::LogoutState;
use crate::browser::spent::SpentAttempts;
use crate::browser::user::{ByExtractor, User, Users};
use crate::client::stored;
use crate::config::endpoint::PlainHttp;
use crate::config::registration::Registration;
use crate::error::ConfigError;
use crate::protocol::http::{HttpClients, Limits};
use crate::protocol::registered::Registered;

/// Longer than any request takes, and than two responses to the same browser can be apart.
const LEDGER_RETENTION: Duration = Duration::from_secs(600);

/// A configuration in progress; see [`OAuth::builder`].
#[must_use]
pub struct OAuthBuilder {
    base_url: String,
    tokens: Tokens,
    ledger: Option<Tokens>,
    per_request: bool,
    keys: KeyRing,
    registrations: Vec<Registration>,
    users: Option<UserSource>,
    hooks: Arc<dyn Hooks>,
    login_path: String,
    callback_path: String,
    limits: Limits,
    plain_http: Vec<String>,
    retention: Option<Duration>,
    clock: Clock,
    #[cfg(feature = "cache")]
    cache: Option<oauth_dance_core::Cache>,
}

impl OAuthBuilder {
    pub(super) fn new(base_url: String, tokens: Tokens, keys: KeyRing) -> Self {
        Self {
            base_url,
            tokens,
            ledger: None,
            per_request: false,
            keys,
            registrations: Vec::new(),
            users: None,
            hooks: Arc::new(NoHooks),
            login_path: "/login/{provider}".to_owned(),
            callback_path: "/login/{provider}/authorized".to_owned(),
            limits: Limits::default(),
            plain_http: Vec::new(),
            retention: None,
            clock: Clock::system(),
            #[cfg(feature = "cache")]
            cache: None,
        }
    }

    /// Uses the tokens of each request instead of one storage.
    pub(super) fn for_each_request(self) -> Self {
        Self { per_request: true, ..self }
    }

    /// Adds a provider.
    pub fn provider(mut self, registration: Registration) -> Self {
        self.registrations.push(registration);
        self
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
    pub fn user<E, F, Resolved>(self, resolve: F) -> Self
    where
        E: FromRequestParts<()> + Send + 'static,
        F: Fn(E) -> Resolved + Send + Sync + 'static,
        Resolved: Future<Output = Option<User>> + Send + 'static,
    {
        self.users(ByExtractor::new(resolve))
    }

    /// Determines the signed-in user with your own [`Users`].
    pub fn users(self, users: impl Users) -> Self {
        Self { users: Some(UserSource::Application(Box::new(users))), ..self }
    }

    /// For an application without user accounts: each browser is a user, identified by a sealed cookie that is set when its
    /// first login ends and lasts 180 days. [`OAuth::layer`] allows rotating the keys of that cookie.
    pub fn anonymous_users(self) -> Self {
        let users = AnonymousUsers::new(self.keys.clone(), self.clock.clone());
        Self { users: Some(UserSource::Anonymous(users)), ..self }
    }

    /// Sets the application's hooks.
    pub fn hooks(self, hooks: impl Hooks) -> Self {
        Self { hooks: Arc::new(hooks), ..self }
    }

    /// Sets the login route's path. The default is `/login/{provider}`.
    pub fn login_path(self, path: impl Into<String>) -> Self {
        Self { login_path: path.into(), ..self }
    }

    /// Sets the callback route's path, from which redirect URIs are built. The default is `/login/{provider}/authorized`.
    pub fn callback_path(self, path: impl Into<String>) -> Self {
        Self { callback_path: path.into(), ..self }
    }

    /// Sets the timeout of one call of a provider, including its response. The default is 20 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// Allows these hosts to be reached by plain `http`, for development: a provider in another container or on the local
    /// network, or this application at an address that a phone can open. Client secrets and tokens travel there unencrypted.
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
    pub fn dangerously_allow_http<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.plain_http.extend(hosts.into_iter().map(Into::into));
        self
    }

    /// Sets the size limit of an API response in bytes. The default is 10 MiB.
    pub fn max_response(mut self, bytes: usize) -> Self {
        self.limits.max_response = bytes;
        self
    }

    /// Sets how long the storage retains a token after its last write. By default, it retains the token until it is deleted.
    pub fn retention(self, retain_for: Duration) -> Self {
        Self { retention: Some(retain_for), ..self }
    }

    /// Puts a cache in front of the storage, in the memory of this process, so that handlers do not read a token again that was
    /// read recently.
    ///
    /// The cost: after a logout or [`disconnect`](OAuth::disconnect) in *another* process, this process can use the token for at
    /// most the cache's age. It sees its own writes at once. Refreshes, logins, [`OAuth::connection`] and [`OAuth::tokens`] read
    /// the storage. [`Tokens::with_cache`](oauth_dance_core::Tokens::with_cache) has the details. The storages of
    /// [`OAuth::per_request`] have no cache.
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
        Self { cache: Some(cache), ..self }
    }

    /// For [`OAuth::per_request`]: records the outcome of each refresh and login attempt in this storage, sealed, for ten
    /// minutes. Each refresh token and code is then redeemed once, however many requests and processes there are, and a late
    /// response that gives a browser an older cookie does no harm.
    ///
    /// All processes should share the storage. If it loses its data, the requests of those minutes are handled as without a
    /// ledger. It contains one record for each refresh of the last minutes, and none for a request without a refresh.
    pub fn ledger(self, storage: impl TokenStorage) -> Self {
        let ledger = Tokens::sealed(storage, self.keys.clone()).with_retention(LEDGER_RETENTION);
        Self { ledger: Some(ledger), ..self }
    }

    /// Stores tokens **in plain text**; cookies stay sealed. A provider with [`dpop`](crate::Provider::dpop) is then
    /// rejected: a key that is stored unsealed beside its token protects nothing.
    pub fn dangerous_plaintext_tokens(self) -> Self {
        Self { tokens: Tokens::dangerous_plaintext(Arc::clone(self.tokens.storage())), ..self }
    }

    /// Sets the clock, for tests.
    pub fn clock(self, clock: Clock) -> Self {
        let builder = Self { clock, ..self };
        match builder.users {
            Some(UserSource::Anonymous(_)) => builder.anonymous_users(),
            _ => builder,
        }
    }

    /// Checks the configuration and builds the [`OAuth`] value.
    ///
    /// # Errors
    /// [`ConfigError`], which names the provider and the field.
    pub fn build(mut self) -> Result<OAuth, ConfigError> {
        if let Some(retain_for) = self.retention {
            self.tokens = self.tokens.with_retention(retain_for);
        }
        if !self.plain_http.is_empty() {
            tracing::warn!(hosts = ?self.plain_http, "secrets and tokens may travel to these hosts unencrypted");
        }
        let plain_http = PlainHttp::new(self.plain_http)?;
        let paths = Paths::new(&self.base_url, &plain_http, self.login_path, self.callback_path)?;
        let mut registered = BTreeMap::new();
        for mut registration in self.registrations {
            registration.plain_http = plain_http.clone();
            let callback = paths.callback_url(registration.name());
            let checked = Registered::check(registration, &callback)?;
            if checked.declared.dpop && !self.tokens.is_sealed() {
                return Err(ConfigError::invalid(
                    &checked.declared.name,
                    "dpop",
                    "needs sealed tokens, because the key is stored with the token",
                ));
            }
            if let Some(other) = registered.insert(checked.declared.name.clone(), checked) {
                return Err(ConfigError::DuplicateProvider { provider: other.declared.name.clone() });
            }
        }
        // If processes do not share a storage, each records the attempts that return to it.
        let notes = self.ledger.as_ref().unwrap_or(&self.tokens).storage();
        let capabilities = notes.capabilities();
        if self.ledger.is_some() && !capabilities.atomic {
            return Err(ConfigError::Ledger { storage: capabilities.name });
        }
        let spent: Arc<dyn TokenStorage> = if capabilities.atomic && (capabilities.shared || self.ledger.is_some()) {
            Arc::clone(notes)
        } else {
            Arc::new(MemoryStorage::new().with_clock(self.clock.clone()))
        };
        let hooks = Arc::clone(&self.hooks);
        let mut refresher = Refresher::new()
            .with_clock(self.clock.clone())
            .with_request_timeout(self.limits.timeout)
            .with_observer(move |key, event| {
                stored::count(key, event);
                hooks.refresh(key, event);
            });
        if let Some(ledger) = self.ledger {
            refresher = refresher.with_ledger(ledger);
        }
        let inner = Inner {
            registered,
            refresher,
            per_request: self.per_request,
            keys_change: self.keys.has_older(),
            users: self.users.ok_or(ConfigError::NoUsers)?,
            hooks: self.hooks,
            logouts: LogoutState::new(self.keys.clone(), paths.is_https()),
            attempts: Attempts::new(self.keys.clone(), self.clock.clone(), paths.is_https()),
            spent: SpentAttempts::new(spent, self.keys, self.limits.timeout),
            logins: Tasks::default(),
            http: HttpClients::new(self.limits, self.clock.clone())?,
            paths,
            clock: self.clock,
        };
        let tokens = self.tokens;
        // Not in front of what else is stored there: the outcome of a login is written by other processes too.
        #[cfg(feature = "cache")]
        let tokens = match self.cache {
            Some(cache) if !self.per_request => tokens.with_cache(cache),
            _ => tokens,
        };
        Ok(OAuth { inner: Arc::new(inner), tokens })
    }
}

impl fmt::Debug for OAuthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthBuilder")
            .field("base_url", &self.base_url)
            .field("registrations", &self.registrations)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
