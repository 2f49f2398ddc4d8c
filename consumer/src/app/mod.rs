//! The value that an application uses: its providers and its users' tokens, with the parts they need.

pub(crate) mod accounts;
mod background;
mod builder;
pub(crate) mod hooks;
#[cfg(feature = "metrics")]
pub(crate) mod measured;
mod no_storage;
pub(crate) mod paths;
mod several;
mod tasks;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::Extensions;
use oauth_dance_core::{
    Clock, Connection, KeyRing, Refresher, RequestStorage, StorageError, Token, TokenKey, TokenStorage, Tokens,
    Versioned,
};

use self::hooks::Hooks;
use self::no_storage::NoStorage;
use self::paths::Paths;
use crate::browser::anonymous::AnonymousUsers;
use crate::browser::attempt::Attempts;
use crate::browser::logout::LogoutState;
use crate::browser::spent::SpentAttempts;
use crate::browser::user::{User, Users};
use crate::client::ApiClient;
use crate::client::stored::StoredToken;
use crate::error::ConnectError;
use crate::protocol::http::HttpClients;
use crate::protocol::oauth2::Revocation;
use crate::protocol::oauth2::revoke::revoke_grant;
use crate::protocol::registered::Registered;

pub use builder::OAuthBuilder;
pub(crate) use tasks::Tasks;

/// How often a token may be replaced while it is being removed. Each refresh writes twice.
const MAX_REMOVE_RETRIES: usize = 8;

/// The providers of an application and its users' tokens.
///
/// Create one at start with [`OAuth::builder`], merge [`OAuth::routes`] into the router, and put it into the router's state,
/// where the extractors find it. Cloning is cheap.
#[derive(Clone)]
pub struct OAuth {
    pub(crate) inner: Arc<Inner>,
    /// Not part of `inner`, because the tokens may belong to one request only.
    pub(crate) tokens: Tokens,
}

pub(crate) struct Inner {
    pub(crate) registered: BTreeMap<String, Registered>,
    pub(crate) per_request: bool,
    /// Whether an older key may have sealed a record.
    pub(crate) keys_change: bool,
    pub(crate) users: UserSource,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) refresher: Refresher,
    pub(crate) attempts: Attempts,
    pub(crate) spent: SpentAttempts,
    /// The logins in flight.
    pub(crate) logins: Tasks,
    pub(crate) logouts: LogoutState,
    pub(crate) http: HttpClients,
    pub(crate) paths: Paths,
    pub(crate) clock: Clock,
}

/// The application's source of users.
pub(crate) enum UserSource {
    Application(Box<dyn Users>),
    Anonymous(AnonymousUsers),
}

impl OAuth {
    /// Starts a configuration.
    ///
    /// `base_url` is the address at which browsers reach the application, such as `https://app.example`. Redirect URIs are
    /// built from it and never from a request's headers, so they are correct behind any proxy. It must be https, unless it
    /// is on this machine. Tokens and cookies are sealed with `keys`.
    pub fn builder(base_url: impl Into<String>, storage: impl TokenStorage, keys: KeyRing) -> OAuthBuilder {
        OAuthBuilder::new(base_url.into(), Tokens::sealed(storage, keys.clone()), keys)
    }

    /// Starts a configuration in which each request has its own token storage, in its session or its cookies. A layer
    /// outside of [`OAuth::routes`] and of every handler puts a [`RequestStorage`] into the request's extensions.
    ///
    /// Everything else is as in [`OAuth::builder`], except that tokens are available only in handlers, through
    /// [`Connected`](crate::Connected) and [`Connections`](crate::Connections). Without a request, as in a background job,
    /// [`OAuth::client`], [`OAuth::connection`], [`OAuth::disconnect`] and [`OAuth::tokens`] return
    /// [`StorageError::Unsupported`](oauth_dance_core::StorageError::Unsupported).
    ///
    /// Requests do not share state: two concurrent requests redeem the same refresh token, and a login attempt is spent once
    /// per process instead of once. Configure a [`ledger`](OAuthBuilder::ledger) if that matters.
    pub fn per_request(base_url: impl Into<String>, keys: KeyRing) -> OAuthBuilder {
        Self::builder(base_url, NoStorage, keys).for_each_request()
    }

    /// A client that acts for this user at this provider without a request, for background jobs. An expired access token is
    /// refreshed first.
    ///
    /// # Errors
    /// [`ConnectError::NotConnected`] if the user has not connected an account there; see [`ConnectError`] for the rest.
    ///
    /// # Cancel safety
    /// A refresh runs in its own task: dropping this future does not lose the new token.
    pub async fn client(&self, provider: &str, user: &User) -> Result<ApiClient, ConnectError> {
        let registered = self.registered(provider)?.best_effort(&self.inner.http).await;
        let stored = self.stored(registered, user.key(provider)?);
        let token = stored.usable().await?;
        Ok(ApiClient::of(stored, token))
    }

    /// The stored connection of this user at this provider, or `None` if nothing is stored. This reads the storage and sends
    /// nothing to the provider.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn connection(&self, provider: &str, user: &User) -> Result<Option<Connection>, ConnectError> {
        self.registered(provider)?;
        Ok(self.inner.refresher.connection(&self.tokens, &user.key(provider)?).await?)
    }

    /// Verifies that the storage responds, with one read of a key under which nothing is stored. Use it for the readiness of a
    /// process: while the storage is down, no request that needs a token can succeed.
    ///
    /// Storages of [`per_request`](Self::per_request) belong to a request, so there is nothing to verify.
    ///
    /// ```
    /// use axum::extract::State;
    /// use http::StatusCode;
    /// use oauth_dance::OAuth;
    ///
    /// async fn ready(State(oauth): State<OAuth>) -> StatusCode {
    ///     oauth.check().await.map_or(StatusCode::SERVICE_UNAVAILABLE, |()| StatusCode::OK)
    /// }
    /// # let _ = ready;
    /// ```
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn check(&self) -> Result<(), StorageError> {
        if self.inner.per_request {
            return Ok(());
        }
        self.tokens.check().await
    }

    /// Waits until no login and no refresh is in flight in this process. Call it after the server has stopped, so that no
    /// new token is lost, and limit the time: while the storage is unavailable, this waits for it.
    ///
    /// A login is in flight from the moment its callback spends the attempt until its token and its outcome are stored, even
    /// if the browser has disconnected.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use oauth_dance::OAuth;
    ///
    /// # async fn serve(listener: tokio::net::TcpListener, app: axum::Router, oauth: OAuth) -> std::io::Result<()> {
    /// # let stopped = std::future::ready(());
    /// axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
    /// if tokio::time::timeout(Duration::from_secs(10), oauth.finish()).await.is_err() {
    ///     eprintln!("stopped before every token was stored");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn finish(&self) {
        // The hook of a login may call an API, which may refresh a token.
        self.inner.logins.all_ended().await;
        self.inner.refresher.finish().await;
    }

    /// Deletes this user's token, then revokes it at the provider if that has a revocation endpoint (RFC 7009).
    ///
    /// The token is deleted here even if the provider cannot be reached; [`Disconnected::revocation`] reports that. The
    /// token of a provider that is no longer configured is deleted too.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`] if no such provider is configured and nothing was stored;
    /// [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn disconnect(&self, provider: &str, user: &User) -> Result<Disconnected, ConnectError> {
        let (removed, token) = self.remove(&user.key(provider)?).await?;
        let revocation = match (self.registered(provider), token) {
            (Ok(registered), Some(Token::OAuth2(token))) => {
                revoke_grant(&self.inner.http, &registered.best_effort(&self.inner.http).await, &token).await
            }
            (Err(error), _) if !removed => return Err(error),
            _ => Revocation::NotPossible,
        };
        tracing::info!(provider, removed, ?revocation, "disconnected");
        Ok(Disconnected { removed, revocation })
    }

    /// Revokes this user's token at the provider (RFC 7009), and leaves it in the storage. To forget it as well, use
    /// [`disconnect`](Self::disconnect). This is for programs that may be killed at any time and run again: they revoke first,
    /// and then remove the version that they revoked.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn revoke(&self, provider: &str, user: &User) -> Result<Revocation, ConnectError> {
        let registered = self.registered(provider)?;
        match self.tokens.get(&user.key(provider)?).await? {
            Some(Versioned { value: Token::OAuth2(token), .. }) => {
                Ok(revoke_grant(&self.inner.http, &registered.best_effort(&self.inner.http).await, &token).await)
            }
            _ => Ok(Revocation::NotPossible),
        }
    }

    /// Removes a token and returns exactly the one that was removed, which a refresh may have stored a moment ago.
    async fn remove(&self, key: &TokenKey) -> Result<(bool, Option<Token>), ConnectError> {
        for _ in 0..MAX_REMOVE_RETRIES {
            match self.tokens.get(key).await {
                Ok(Some(Versioned { value: token, version })) => {
                    if self.tokens.delete(key, Some(version)).await? {
                        return Ok((true, Some(token)));
                    }
                }
                // An unreadable token can still be deleted, but not revoked.
                Ok(None) | Err(_) => break,
            }
        }
        Ok((self.tokens.delete(key, None).await?, None))
    }

    /// The providers' names and titles, sorted by name.
    pub fn providers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner
            .registered
            .values()
            .map(|registered| (registered.declared.name.as_str(), registered.declared.title.as_str()))
    }

    /// The path at which a browser starts the login at this provider, including any prefix of the base URL.
    pub fn login_path(&self, provider: &str) -> String {
        self.inner.paths.login(provider)
    }

    /// The redirect URI to register at this provider (RFC 6749 section 3.1.2).
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`].
    pub fn redirect_uri(&self, provider: &str) -> Result<String, ConnectError> {
        Ok(self.registered(provider)?.endpoints.redirect.as_str().to_owned())
    }

    /// The underlying token storage.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The token under that key, with everything needed to refresh it.
    pub(crate) fn stored(&self, registered: Registered, key: TokenKey) -> StoredToken {
        StoredToken {
            refresher: self.inner.refresher.clone(),
            tokens: self.tokens.clone(),
            http: self.inner.http.clone(),
            reseals: self.inner.per_request && self.inner.keys_change,
            registered,
            key,
        }
    }

    /// The same with the tokens of a request. `None` if the request lacks the storage that it should have.
    pub(crate) fn in_request(&self, extensions: &Extensions) -> Option<Self> {
        if !self.inner.per_request {
            return Some(self.clone());
        }
        let storage = Arc::clone(extensions.get::<RequestStorage>()?.storage());
        Some(Self { inner: Arc::clone(&self.inner), tokens: self.tokens.clone().with_storage(storage) })
    }

    pub(crate) fn registered(&self, provider: &str) -> Result<Registered, ConnectError> {
        self.inner.registered.get(provider).cloned().ok_or_else(|| ConnectError::UnknownProvider(provider.to_owned()))
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
    /// The result of the revocation at the provider.
    pub revocation: Revocation,
}

#[cfg(test)]
mod tests;
