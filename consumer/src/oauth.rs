use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::{Extensions, StatusCode};
use oauth_dance_core::{
    Clock, Connection, KeyRing, MemoryStorage, OAuth2Token, Refresher, RequestStorage, Token, TokenKey, TokenStorage,
    Tokens, Versioned,
};
use url::Url;

use crate::browser_user::BrowserUsers;
use crate::client::ApiClient;
use crate::connection::{self, StoredToken};
use crate::dance::attempt::Attempts;
use crate::dance::ended::Endings;
use crate::error::{ConfigError, ConnectError, TokenEndpointError};
use crate::hooks::{Hooks, NoHooks};
use crate::http_client::{HttpClients, Limits};
use crate::no_storage::NoStorage;
use crate::paths::Paths;
use crate::provider::Registration;
use crate::registered::Registered;
use crate::token_endpoint;
use crate::user::{ByExtractor, User, Users};

/// Longer than any request takes, and any two answers of one browser are apart.
const LEDGER_RETENTION: Duration = Duration::from_secs(600);

/// How often a token may be replaced while it is being removed. A refresh writes twice.
const MOST_REPLACED: usize = 8;

/// The providers of an application, its users' tokens, and the dance between them.
///
/// Make one at start with [`OAuth::builder`], merge [`OAuth::routes`] into the router, and put it into the router's
/// state, from where the extractors take it. Cloning is cheap.
#[derive(Clone)]
pub struct OAuth {
    pub(crate) inner: Arc<Inner>,
    /// Outside of `inner`, since some are of one request only.
    pub(crate) tokens: Tokens,
}

pub(crate) struct Inner {
    pub(crate) registered: BTreeMap<String, Arc<Registered>>,
    per_request: bool,
    pub(crate) users: UserSource,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) refresher: Refresher,
    pub(crate) attempts: Attempts,
    pub(crate) endings: Endings,
    pub(crate) http: HttpClients,
    pub(crate) paths: Paths,
    pub(crate) clock: Clock,
}

/// What tells who the user is.
pub(crate) enum UserSource {
    Application(Box<dyn Users>),
    Browser(BrowserUsers),
}

impl OAuth {
    /// Starts a configuration.
    ///
    /// `base_url` is where browsers reach the application, such as `https://app.example`; redirect URIs are built on it
    /// and never on a request's headers, so it is right behind any proxy. It must be https, unless it is on this
    /// machine. Tokens and cookies are sealed with `keys`.
    pub fn builder(base_url: impl Into<String>, storage: impl TokenStorage, keys: KeyRing) -> OAuthBuilder {
        OAuthBuilder {
            base_url: base_url.into(),
            tokens: Tokens::sealed(storage, keys.clone()),
            ledger: None,
            per_request: false,
            keys,
            registrations: Vec::new(),
            users: None,
            hooks: Arc::new(NoHooks),
            login_path: "/login/{provider}".to_owned(),
            callback_path: "/login/{provider}/authorized".to_owned(),
            limits: Limits::default(),
            retention: None,
            clock: Clock::system(),
        }
    }

    /// Starts a configuration where each request brings its own token storage, in its session or its cookies: a layer
    /// outside of [`OAuth::routes`] and of every handler puts a [`RequestStorage`] into the request's extensions.
    ///
    /// Everything else is as in [`OAuth::builder`], but tokens are there in handlers only, by
    /// [`Connected`](crate::Connected) and [`Connections`](crate::Connections). Without a request, as in a background job,
    /// [`OAuth::client`], [`OAuth::connection`], [`OAuth::disconnect`] and [`OAuth::tokens`] answer with
    /// [`StorageError::Unsupported`](oauth_dance_core::StorageError::Unsupported).
    ///
    /// Requests know nothing of each other: two at the same time redeem the same refresh token, and a login attempt is
    /// spent once per process rather than once. Give it a [`ledger`](OAuthBuilder::ledger) where that matters.
    pub fn per_request(base_url: impl Into<String>, keys: KeyRing) -> OAuthBuilder {
        OAuthBuilder { per_request: true, ..Self::builder(base_url, NoStorage, keys) }
    }

    /// A client that acts for this user at this provider, with no request needed: for background jobs. An expired
    /// access token is refreshed first.
    ///
    /// # Errors
    /// [`ConnectError::NotConnected`] if the user has connected no account there; see [`ConnectError`] for the rest.
    ///
    /// # Cancel safety
    /// A refresh runs in a task of its own: dropping this future does not lose the new token.
    pub async fn client(&self, provider: &str, user: &User) -> Result<ApiClient, ConnectError> {
        let registered = self.registered(provider)?.as_complete_as_can_be(self).await;
        let stored = StoredToken { oauth: self.clone(), registered, key: user.key(provider)? };
        let token = stored.usable().await?;
        Ok(ApiClient::of(stored, token))
    }

    /// What is stored for this user at this provider and how it stands, or `None` if nothing is stored. Asks the storage,
    /// not the provider.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn connection(&self, provider: &str, user: &User) -> Result<Option<Connection>, ConnectError> {
        self.registered(provider)?;
        Ok(self.inner.refresher.connection(&self.tokens, &user.key(provider)?).await?)
    }

    /// Waits until no token is being refreshed in this process. Call it when the server has stopped, so that no new token
    /// is lost, and bound the time it may take: while the storage is down, it waits for that.
    pub async fn finish(&self) {
        self.inner.refresher.finish().await;
    }

    /// Forgets this user's token, then revokes it at the provider where that has a revocation endpoint (RFC 7009).
    ///
    /// The token is gone here even if the provider cannot be reached; [`Disconnected::revocation`] tells. One of a provider
    /// that is not configured any more is forgotten too.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`] if no such provider is configured and nothing was stored;
    /// [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn disconnect(&self, provider: &str, user: &User) -> Result<Disconnected, ConnectError> {
        let (removed, token) = self.remove(&user.key(provider)?).await?;
        let revocation = match (self.registered(provider), token) {
            (Ok(registered), Some(Token::OAuth2(token))) => {
                self.revoke(&*registered.as_complete_as_can_be(self).await, &token).await
            }
            (Err(error), _) if !removed => return Err(error),
            _ => Revocation::NotPossible,
        };
        tracing::info!(provider, removed, ?revocation, "disconnected");
        Ok(Disconnected { removed, revocation })
    }

    /// Removes a token and hands it back: the very one that was there last, which a refresh may have just replaced.
    async fn remove(&self, key: &TokenKey) -> Result<(bool, Option<Token>), ConnectError> {
        for _ in 0..MOST_REPLACED {
            match self.tokens.get(key).await {
                Ok(Some(Versioned { value: token, version })) => {
                    if self.tokens.delete(key, Some(version)).await? {
                        return Ok((true, Some(token)));
                    }
                }
                // What cannot be read can still be forgotten; it just cannot be revoked.
                Ok(None) | Err(_) => break,
            }
        }
        Ok((self.tokens.delete(key, None).await?, None))
    }

    /// The providers' names and titles, in the order of their names.
    pub fn providers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner.registered.values().map(|registered| (registered.name.as_str(), registered.title.as_str()))
    }

    /// Where a browser starts the login at this provider: a path with any prefix of the base URL.
    pub fn login_path(&self, provider: &str) -> String {
        self.inner.paths.login(provider)
    }

    /// The redirect URI to register at this provider (RFC 6749 section 3.1.2).
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`].
    pub fn redirect_uri(&self, provider: &str) -> Result<Url, ConnectError> {
        Ok(self.registered(provider)?.redirect_uri.clone())
    }

    /// The typed token storage underneath.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The same with the tokens of a request. `None` if the request should bring a storage and does not.
    pub(crate) fn in_request(&self, extensions: &Extensions) -> Option<Self> {
        if !self.inner.per_request {
            return Some(self.clone());
        }
        let storage = Arc::clone(extensions.get::<RequestStorage>()?.storage());
        Some(Self { inner: Arc::clone(&self.inner), tokens: self.tokens.clone().with_storage(storage) })
    }

    pub(crate) fn registered(&self, provider: &str) -> Result<Arc<Registered>, ConnectError> {
        self.inner.registered.get(provider).cloned().ok_or_else(|| ConnectError::UnknownProvider(provider.to_owned()))
    }

    /// Revokes the refresh token, with which the grant ends, and then the access token, which some providers let live on.
    pub(crate) async fn revoke(&self, registered: &Registered, token: &OAuth2Token) -> Revocation {
        let Some(endpoint) = &registered.revocation_endpoint else { return Revocation::NotPossible };
        let key = token.dpop_key.as_ref();
        let refresh_token = token.refresh_token.as_ref().map(|refresh_token| (refresh_token, "refresh_token"));
        for (secret, hint) in refresh_token.into_iter().chain([(&token.access_token, "access_token")]) {
            match token_endpoint::revoke(&self.inner.http, registered, endpoint, secret, hint, key).await {
                Ok(()) => {}
                // It ended with the grant, and this provider calls that an error.
                Err(TokenEndpointError::Status { status: StatusCode::BAD_REQUEST, .. })
                    if hint == "access_token" && refresh_token.is_some() => {}
                Err(error) => {
                    tracing::warn!(provider = registered.name, %error, "the token could not be revoked at the provider");
                    return Revocation::Failed;
                }
            }
        }
        Revocation::Done
    }
}

impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth")
            .field("providers", &self.inner.registered.keys())
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// What [`OAuth::disconnect`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnected {
    /// Whether a token was stored.
    pub removed: bool,
    /// What became of it at the provider.
    pub revocation: Revocation,
}

/// What became of a token at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The provider says that it is revoked.
    Done,
    /// There was no token, or the provider has no revocation endpoint.
    NotPossible,
    /// The provider could not be reached or refused: the token may live on there.
    Failed,
}

/// A configuration under way; see [`OAuth::builder`].
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
    retention: Option<Duration>,
    clock: Clock,
}

impl OAuthBuilder {
    /// Adds a provider.
    pub fn provider(mut self, registration: Registration) -> Self {
        self.registrations.push(registration);
        self
    }

    /// Tells who is signed in, from any axum extractor: a session, `axum-login`'s `AuthSession`, a user type of your own.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, OAuth, User};
    /// use axum::http::HeaderMap;
    ///
    /// # let builder = OAuth::builder("http://localhost:3000", oauth_dance::MemoryStorage::new(), KeyRing::generate());
    /// // Behind a proxy that authenticates and sets a header of its own:
    /// let builder = builder.user(|headers: HeaderMap| async move {
    ///     Some(User::new(headers.get("x-authenticated-user")?.to_str().ok()?))
    /// });
    /// # let _ = builder;
    /// ```
    pub fn user<E, F, Answer>(self, resolve: F) -> Self
    where
        E: FromRequestParts<()> + Send + 'static,
        F: Fn(E) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Option<User>> + Send + 'static,
    {
        self.users(ByExtractor::new(resolve))
    }

    /// Tells who is signed in, in any way.
    pub fn users(self, users: impl Users) -> Self {
        Self { users: Some(UserSource::Application(Box::new(users))), ..self }
    }

    /// For an application without user accounts: each browser is a user of its own, known by a sealed cookie that is set
    /// when its first login ends and lasts 180 days.
    pub fn each_browser_a_user(self) -> Self {
        let users = BrowserUsers::new(self.keys.clone(), self.clock.clone());
        Self { users: Some(UserSource::Browser(users)), ..self }
    }

    /// Takes part in the dance.
    pub fn hooks(self, hooks: impl Hooks) -> Self {
        Self { hooks: Arc::new(hooks), ..self }
    }

    /// Sets the login route's path. The default is `/login/{provider}`.
    pub fn login_path(self, path: impl Into<String>) -> Self {
        Self { login_path: path.into(), ..self }
    }

    /// Sets the callback route's path, on which redirect URIs are built. The default is `/login/{provider}/authorized`.
    pub fn callback_path(self, path: impl Into<String>) -> Self {
        Self { callback_path: path.into(), ..self }
    }

    /// Sets how long one call of a provider may take as a whole. The default is 20 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// Sets the most bytes of an API answer that are read. The default is 10 MiB.
    pub fn max_response(mut self, bytes: usize) -> Self {
        self.limits.max_response = bytes;
        self
    }

    /// Sets how long the storage keeps a token after its last write. The default is until it is deleted.
    pub fn retention(self, retain_for: Duration) -> Self {
        Self { retention: Some(retain_for), ..self }
    }

    /// For [`OAuth::per_request`]: notes in this storage, for ten minutes and sealed, what became of each refresh token
    /// and login attempt, so that both are redeemed once, however many requests and processes there are. A late answer
    /// that gives a browser an older cookie again does no harm then.
    ///
    /// It should be shared by all processes. If it loses what it has, the requests of those minutes are as without a
    /// ledger. It holds one record for each refresh of the last minutes, and none for a request that needs no refresh.
    pub fn ledger(self, storage: impl TokenStorage) -> Self {
        let ledger = Tokens::sealed(storage, self.keys.clone()).with_retention(LEDGER_RETENTION);
        Self { ledger: Some(ledger), ..self }
    }

    /// Stores tokens **in plain text**; cookies stay sealed. A provider with [`dpop`](crate::Provider::dpop) is
    /// refused then: a key that lies open beside its token protects nothing.
    pub fn dangerous_plaintext_tokens(self) -> Self {
        Self { tokens: Tokens::dangerous_plaintext(Arc::clone(self.tokens.storage())), ..self }
    }

    /// Takes the time from another clock, for tests.
    pub fn clock(self, clock: Clock) -> Self {
        let builder = Self { clock, ..self };
        match builder.users {
            Some(UserSource::Browser(_)) => builder.each_browser_a_user(),
            _ => builder,
        }
    }

    /// Checks everything and puts it together.
    ///
    /// # Errors
    /// [`ConfigError`], which names the provider and the field.
    pub fn build(mut self) -> Result<OAuth, ConfigError> {
        if let Some(retain_for) = self.retention {
            self.tokens = self.tokens.with_retention(retain_for);
        }
        let paths = Paths::new(&self.base_url, self.login_path, self.callback_path)?;
        let mut registered = BTreeMap::new();
        for registration in self.registrations {
            let callback = paths.callback_url(registration.name());
            let checked = Registered::check(registration, &callback)?;
            if checked.dpop && !self.tokens.is_sealed() {
                return Err(ConfigError::invalid(
                    &checked.name,
                    "dpop",
                    "needs tokens to be sealed, for the key's sake",
                ));
            }
            if let Some(other) = registered.insert(checked.name.clone(), Arc::new(checked)) {
                return Err(ConfigError::DuplicateProvider { provider: other.name.clone() });
            }
        }
        // Where processes do not share a storage, each spends the attempts that come back to it.
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
                connection::count(key, event);
                hooks.refresh(key, event);
            });
        if let Some(ledger) = self.ledger {
            refresher = refresher.with_ledger(ledger);
        }
        let inner = Inner {
            registered,
            refresher,
            per_request: self.per_request,
            users: self.users.ok_or(ConfigError::NoUsers)?,
            hooks: self.hooks,
            endings: Endings::new(self.keys.clone(), paths.is_https()),
            attempts: Attempts::new(self.keys, spent, self.clock.clone(), paths.is_https()),
            http: HttpClients::new(self.limits, self.clock.clone())?,
            paths,
            clock: self.clock,
        };
        Ok(OAuth { inner: Arc::new(inner), tokens: self.tokens })
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

#[cfg(test)]
mod tests;
