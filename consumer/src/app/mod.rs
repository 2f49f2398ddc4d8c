//! The value that a web application uses: its providers and its users' tokens, with the parts they need.
//!
//! It names connections by a provider and a [`User`], and passes what needs no HTTP request to its [`Connector`]. The
//! routes, the extractors and the layer are methods of the same type, in `web`.
//!
//! The parts are in one `Arc`, so that a clone costs one increment. The connector is beside it, because a request can have
//! its own storage: [`OAuth::in_request`] combines the shared parts with that storage, and everything behind it works as
//! usual.

pub(crate) mod accounts;
mod background;
mod builder;
mod disconnect;
pub(crate) mod hooks;
mod no_storage;
pub(crate) mod paths;
mod several;

use std::fmt;
use std::sync::Arc;

use http::Extensions;
use oauth_dance_core::{Connection, KeyRing, RequestStorage, StorageError, TokenKey, TokenStorage, Tokens};

use self::hooks::Hooks;
use self::no_storage::NoStorage;
use self::paths::Paths;
use crate::browser::anonymous::AnonymousUsers;
use crate::browser::attempt::Attempts;
use crate::browser::logout::LogoutState;
use crate::browser::spent::SpentAttempts;
use crate::browser::user::{User, Users};
use crate::client::ApiClient;
use crate::connector::Connector;
use crate::error::ConnectError;
use crate::protocol::http::HttpClients;
use crate::protocol::registered::Registered;

pub use builder::OAuthBuilder;

/// The providers of an application and its users' tokens.
///
/// Create one at startup with [`OAuth::builder`], merge [`OAuth::routes`] into the router, and pass it to the router as
/// its state, from which the extractors take it. Cloning is cheap, and the clones share everything: HTTP connections,
/// metadata of issuers, and the refreshes in flight. Two values that are built separately coordinate their refreshes
/// only through the storage, as two processes do.
///
/// | to | use |
/// | --- | --- |
/// | let users connect accounts | [`routes`](Self::routes), [`login_path`](Self::login_path) |
/// | call an API in a handler | the extractors [`Connected`](crate::Connected) and [`Connections`](crate::Connections) |
/// | call an API in a background job | [`client`](Self::client), [`clients`](Self::clients) |
/// | show which accounts are connected | [`connection`](Self::connection), [`accounts`](Self::accounts) |
/// | disconnect an account, or log out at the provider | [`disconnect`](Self::disconnect), [`end_session`](Self::end_session) |
/// | refresh tokens before a user waits for it | [`refresh_due`](Self::refresh_due), [`keep_refreshing`](Self::keep_refreshing) |
/// | report readiness, and shut down | [`check`](Self::check), [`finish`](Self::finish) |
///
/// If the router has its own state type, let the extractors take the `OAuth` from it:
///
/// ```
/// use axum::extract::FromRef;
/// use axum::{Router, routing::get};
/// use oauth_dance::presets::GitHub;
/// use oauth_dance::{ApiError, Connected, KeyRing, MemoryStorage, OAuth};
///
/// #[derive(Clone)]
/// struct App {
///     oauth: OAuth,
/// }
///
/// impl FromRef<App> for OAuth {
///     fn from_ref(app: &App) -> Self {
///         app.oauth.clone()
///     }
/// }
///
/// async fn home(github: Connected<GitHub>) -> Result<String, ApiError> {
///     github.get("/user").send().await?.success()?.text()
/// }
///
/// # fn main() -> Result<(), oauth_dance::ConfigError> {
/// let oauth = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
///     .provider(GitHub::provider().client("id", "secret"))
///     .anonymous_users()
///     .build()?;
/// let app: Router = Router::new()
///     .route("/", get(home))
///     .merge(oauth.routes())
///     .layer(oauth.layer())
///     .with_state(App { oauth });
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OAuth {
    pub(crate) inner: Arc<Inner>,
    /// Not part of `inner`, because its tokens may belong to one request only.
    pub(crate) connector: Connector,
}

pub(crate) struct Inner {
    pub(crate) users: UserSource,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) attempts: Attempts,
    pub(crate) spent: SpentAttempts,
    pub(crate) logouts: LogoutState,
    pub(crate) paths: Paths,
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
    ///
    /// A base URL can have a path, if a proxy strips it before it forwards a request:
    ///
    /// ```
    /// use oauth_dance::presets::GitHub;
    /// use oauth_dance::{KeyRing, MemoryStorage, OAuth};
    ///
    /// let oauth = OAuth::builder("https://example.com/app", MemoryStorage::new(), KeyRing::generate())
    ///     .provider(GitHub::provider().client("id", "secret"))
    ///     .anonymous_users()
    ///     .build()?;
    /// // The route of the router is `/login/{provider}`; browsers see it with the prefix.
    /// assert_eq!(oauth.login_path("github"), "/app/login/github");
    /// assert_eq!(oauth.redirect_uri("github")?, "https://example.com/app/login/github/authorized");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(base_url: impl Into<String>, storage: impl TokenStorage, keys: KeyRing) -> OAuthBuilder {
        OAuthBuilder::new(base_url.into(), Connector::builder(storage, keys))
    }

    /// Starts a configuration in which each request has its own token storage, in its session or its cookies. A layer
    /// around [`OAuth::routes`] and all handlers puts a [`RequestStorage`] into the request's extensions.
    ///
    /// Everything else is as in [`OAuth::builder`], except that tokens are available only in handlers, through
    /// [`Connected`](crate::Connected) and [`Connections`](crate::Connections). Without a request, as in a background job,
    /// [`OAuth::client`], [`OAuth::connection`], [`OAuth::disconnect`] and [`OAuth::tokens`] return
    /// [`StorageError::Unsupported`](oauth_dance_core::StorageError::Unsupported).
    ///
    /// Requests do not share state: two concurrent requests redeem the same refresh token, and a login attempt is spent once
    /// per process instead of once. Configure a [`ledger`](OAuthBuilder::ledger) if that matters.
    ///
    /// Use it if the tokens should not be on the server at all, or not in a database: the application has sessions already,
    /// or should have no state. The token exists only in the browser's cookie or its session, so background jobs and
    /// [`refresh_due`](Self::refresh_due) cannot use it. The crate
    /// [`oauth-dance-session`](https://docs.rs/oauth-dance-session) has the layers: `CookieTokens` and `SessionTokens`.
    ///
    /// ```
    /// use oauth_dance::presets::GitHub;
    /// use oauth_dance::{ConnectError, KeyRing, OAuth, User};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let oauth = OAuth::per_request("https://app.example", KeyRing::generate())
    ///     .provider(GitHub::provider().client("id", "secret"))
    ///     .anonymous_users()
    ///     .build()?;
    /// // There is no request here, so there is no storage.
    /// let outside = oauth.client("github", &User::new("alice")).await;
    /// assert!(matches!(outside, Err(ConnectError::Storage(_))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn per_request(base_url: impl Into<String>, keys: KeyRing) -> OAuthBuilder {
        Self::builder(base_url, NoStorage, keys).for_each_request()
    }

    /// A client that acts for this user at this provider without a request, for background jobs. An expired access token is
    /// refreshed first.
    ///
    /// Get a client for each piece of work instead of using one for hours. A client does not read the storage again until
    /// the API rejects its token, so it does not notice that the user has disconnected the account.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::{ConnectError, OAuth, User};
    ///
    /// /// Copies the notes of a user, unless the user has to connect the account first.
    /// async fn sync(oauth: &OAuth, user: &User) -> Result<bool, Box<dyn std::error::Error>> {
    ///     let client = match oauth.client("acme", user).await {
    ///         Ok(client) => client,
    ///         // The user is not here to log in: skip them until they are.
    ///         Err(error) if error.needs_login() => return Ok(false),
    ///         Err(error) => return Err(error.into()),
    ///     };
    ///     let notes = client.get("/notes").send().await?.success()?;
    ///     assert_eq!(notes.json::<serde_json::Value>()?["path"], "/api/notes");
    ///     Ok(true)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// let alice = User::new("alice");
    /// assert!(!sync(&oauth, &alice).await?);
    /// provider.connect(&oauth, "acme", &alice).await?;
    /// assert!(sync(&oauth, &alice).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::NotConnected`] if the user has not connected an account there; see [`ConnectError`] for the rest.
    ///
    /// # Cancel safety
    /// A refresh runs in its own task: dropping this future does not lose the new token.
    pub async fn client(&self, provider: &str, user: &User) -> Result<ApiClient, ConnectError> {
        self.connector.client(&self.key(provider, user)?).await
    }

    /// The stored connection of this user at this provider, or `None` if nothing is stored. This reads the storage and sends
    /// nothing to the provider, so it is cheap enough for a settings page. Whether the provider still accepts the token is
    /// known only after a call.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::{ConnectError, ConnectionState, OAuth, User};
    ///
    /// async fn status(oauth: &OAuth, user: &User) -> Result<&'static str, ConnectError> {
    ///     let Some(connection) = oauth.connection("acme", user).await? else { return Ok("not connected") };
    ///     Ok(match connection.state {
    ///         ConnectionState::NeedsAuthorization { .. } => "connect again",
    ///         ConnectionState::BackingOff { .. } => "the provider has problems",
    ///         _ => "connected",
    ///     })
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// let alice = User::new("alice");
    /// assert_eq!(status(&oauth, &alice).await?, "not connected");
    /// provider.connect(&oauth, "acme", &alice).await?;
    /// assert_eq!(status(&oauth, &alice).await?, "connected");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn connection(&self, provider: &str, user: &User) -> Result<Option<Connection>, ConnectError> {
        self.connector.connection(&self.key(provider, user)?).await
    }

    /// Verifies that the storage responds, with one read of a key under which nothing is stored. Use it as a readiness
    /// check: while the storage is down, no request that needs a token can succeed.
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
        self.connector.check().await
    }

    /// Waits until no login and no refresh is in flight in this process. Call it after the server has stopped, so that no
    /// new token is lost, and limit the time: while the storage is unavailable, this waits for it.
    ///
    /// A login is in flight from the moment its callback spends the attempt until its token and its outcome are stored, even
    /// if the browser has disconnected.
    ///
    /// # Cancel safety
    /// Dropping this future, as a timeout does, cancels nothing: the tasks continue until the runtime shuts down.
    ///
    /// # Example
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
        self.connector.finish().await;
    }

    /// The providers' names and titles, sorted by name, for a page with one button for each.
    ///
    /// ```
    /// use oauth_dance::presets::{GitHub, Google};
    /// use oauth_dance::{KeyRing, MemoryStorage, OAuth};
    ///
    /// let oauth = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
    ///     .provider(Google::provider().client("id", "secret"))
    ///     .provider(GitHub::provider().client("id", "secret"))
    ///     .anonymous_users()
    ///     .build()?;
    /// let link = |(name, title)| format!("<a href=\"{}\">Connect {title}</a>", oauth.login_path(name));
    /// let links: Vec<_> = oauth.providers().map(link).collect();
    /// assert_eq!(links[0], "<a href=\"/login/github\">Connect GitHub</a>");
    /// # Ok::<(), oauth_dance::ConfigError>(())
    /// ```
    pub fn providers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.connector.providers()
    }

    /// The path at which a browser starts the login at this provider, including any prefix of the base URL. It does not
    /// check that such a provider is configured: otherwise the route responds with 404.
    ///
    /// A link can add `?next=/path`, the local path that the browser is redirected to after the login, and the parameters
    /// that [`Provider::login_params`](crate::Provider::login_params) permits.
    pub fn login_path(&self, provider: &str) -> String {
        self.inner.paths.login(provider)
    }

    /// The redirect URI to register at this provider (RFC 6749 section 3.1.2). Print it at startup, or on an
    /// administration page: providers compare it character by character, and a mismatch is the most frequent
    /// registration mistake.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`].
    pub fn redirect_uri(&self, provider: &str) -> Result<String, ConnectError> {
        Ok(self.registered(provider)?.redirect_uri().to_owned())
    }

    /// The tokens as they are stored: to write a token that was issued elsewhere, to reseal all tokens with a new key, or to
    /// list and purge them. To call an API, use [`client`](Self::client) instead, which refreshes the token.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, testing::TestProvider};
    /// use oauth_dance::{Precondition, Token, User};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// // Take over a token of the application's earlier OAuth library.
    /// let earlier: Token = provider.issue("alice").into();
    /// let alice = User::new("alice");
    /// oauth.tokens().put(&alice.key("acme")?, &earlier, Precondition::Absent).await?;
    /// assert!(oauth.client("acme", &alice).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn tokens(&self) -> &Tokens {
        self.connector.tokens()
    }

    /// The part of this value that needs no web framework. It names a connection by its [`TokenKey`], and shares
    /// everything with this value. Pass it to jobs and libraries that handle no requests.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, testing::TestProvider};
    /// use oauth_dance::{ConnectError, Connector, TokenKey, User};
    ///
    /// /// A job that can run in this process or in a separate worker.
    /// async fn count(connector: &Connector, key: &TokenKey) -> Result<usize, Box<dyn std::error::Error>> {
    ///     let notes = connector.client(key).await?.get("/notes").send().await?.success()?;
    ///     Ok(notes.text()?.len())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// let alice = User::new("alice");
    /// provider.connect(&oauth, "acme", &alice).await?;
    /// assert!(count(oauth.connector(), &alice.key("acme")?).await? > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The key of a user's connection at a provider that is configured.
    fn key(&self, provider: &str, user: &User) -> Result<TokenKey, ConnectError> {
        self.registered(provider)?;
        Ok(user.key(provider)?)
    }

    /// The same with the tokens of a request. `None` if the request lacks the storage that it should have.
    pub(crate) fn in_request(self, extensions: &Extensions) -> Option<Self> {
        if !self.connector.shared.per_request {
            return Some(self);
        }
        let storage = Arc::clone(extensions.get::<RequestStorage>()?.storage());
        let tokens = self.connector.tokens.with_storage(storage);
        Some(Self { inner: self.inner, connector: Connector { shared: self.connector.shared, tokens } })
    }

    pub(crate) fn registered(&self, provider: &str) -> Result<&Registered, ConnectError> {
        self.connector.registered(provider)
    }

    pub(crate) fn http(&self) -> &HttpClients {
        self.connector.http()
    }
}

impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth").field("connector", &self.connector).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
