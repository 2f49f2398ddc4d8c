//! Providers and tokens without a web framework: whatever needs no browser.
//!
//! A `Connector` does all the work that a [`TokenKey`] is enough for. The web part, `OAuth`, contains one, and adds what
//! depends on requests: users, routes, cookies and hooks. A rule of tokens therefore exists once, for handlers and for
//! programs without any.
//!
//! The parts are in one `Arc`, so that a clone costs one increment. The tokens are beside it, because a request can have its
//! own storage.

mod application;
mod audience;
mod background;
mod builder;
mod disconnect;
mod entries;
mod exchange;
#[cfg(feature = "metrics")]
pub(crate) mod measured;
#[cfg(feature = "reqwest-middleware")]
pub(crate) mod middleware;
pub(crate) mod own_key;
mod requested;
mod several;
#[cfg_attr(not(any(feature = "axum", feature = "native")), allow(dead_code, reason = "only logins start tasks"))]
mod tasks;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use oauth_dance_core::{Connection, KeyRing, Refresher, StorageError, Token, TokenKey, TokenStorage, Tokens};

use crate::client::ApiClient;
use crate::client::stored::StoredToken;
use crate::config::endpoint::PlainHttp;
use crate::error::ConnectError;
use crate::protocol::http::HttpClients;
use crate::protocol::registered::Registered;

pub use audience::Audience;
pub use builder::ConnectorBuilder;
#[cfg(feature = "axum")]
pub(crate) use builder::ForRequests;
pub use disconnect::Disconnected;
#[cfg(feature = "axum")]
pub(crate) use several::in_order;
use tasks::Tasks;

/// The providers of a program and the tokens that it has stored, without a web framework.
///
/// Use it in a worker, a command-line program or a service that calls an API for users whose tokens are stored already:
/// by a web application with `OAuth` that shares the storage and the key ring, by an import, or by a login of the
/// program itself. Create one at startup with [`Connector::builder`]. Cloning is cheap, and clones share HTTP
/// connections and the refreshes in flight. Any number of processes can use the same storage: each token is refreshed
/// once.
///
/// A connection is named by its [`TokenKey`]: the provider, the user, and optionally a tenant and an account.
///
/// | to | use |
/// | --- | --- |
/// | call an API | [`client`](Self::client), [`clients`](Self::clients) |
/// | call an API as the application itself | [`client_credentials`](Self::client_credentials) |
/// | get a user's token for another service | [`exchange`](Self::exchange) |
/// | pass the token to another HTTP client | [`token`](Self::token), `middleware` (with the cargo feature `reqwest-middleware`) |
/// | show the state of a connection, or end it | [`connection`](Self::connection), [`disconnect`](Self::disconnect) |
/// | refresh tokens ahead of time | [`refresh_due`](Self::refresh_due), [`keep_refreshing`](Self::keep_refreshing) |
/// | report readiness, and shut down | [`check`](Self::check), [`finish`](Self::finish) |
///
/// ```
/// use oauth_dance::{Connector, KeyRing, MemoryStorage, TokenKey, testing::TestProvider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A provider for tests, so that this example needs no account.
/// let provider = TestProvider::start().await?;
/// let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
///     .provider(provider.registration("acme"))
///     .build()?;
///
/// let alice = TokenKey::new("acme", "alice")?;
/// provider.connect_key(&connector, &alice).await?;
/// let notes = connector.client(&alice).await?.get("/notes").send().await?.success()?;
/// assert_eq!(notes.json::<serde_json::Value>()?["user"], "alice");
///
/// // Wait until refreshes in flight have stored their tokens.
/// connector.finish().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector {
    pub(crate) shared: Arc<Shared>,
    /// Not part of `shared`, because the tokens may belong to one request only.
    pub(crate) tokens: Tokens,
}

pub(crate) struct Shared {
    pub(crate) registered: BTreeMap<String, Registered>,
    pub(crate) refresher: Arc<Refresher>,
    pub(crate) http: HttpClients,
    /// Whether each request has its own storage.
    pub(crate) per_request: bool,
    /// Whether an older key may have sealed a record.
    pub(crate) keys_change: bool,
    pub(crate) plain_http: PlainHttp,
    /// The logins in flight.
    logins: Tasks,
}

impl Connector {
    /// Starts a configuration. Tokens are sealed with `keys`, and stored in `storage`.
    ///
    /// To share the tokens of a web application, use the same storage, the same key ring, and registrations with the same
    /// [names](crate::Provider::name) and clients as the web application.
    pub fn builder(storage: impl TokenStorage, keys: KeyRing) -> ConnectorBuilder {
        ConnectorBuilder::new(Tokens::sealed(storage, keys.clone()), keys)
    }

    /// A client that acts for the user of this key. An expired access token is refreshed first.
    ///
    /// Get a client for each piece of work instead of using one for hours. A client does not read the storage again until
    /// the API rejects its token, so it does not notice that the user has disconnected the account.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::{Connector, TokenKey};
    ///
    /// /// Copies the notes of a user, unless the user has to connect the account first.
    /// async fn sync(connector: &Connector, key: &TokenKey) -> Result<bool, Box<dyn std::error::Error>> {
    ///     let client = match connector.client(key).await {
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
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// let alice = TokenKey::new("acme", "alice")?;
    /// assert!(!sync(&connector, &alice).await?);
    /// provider.connect_key(&connector, &alice).await?;
    /// assert!(sync(&connector, &alice).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::NotConnected`] if nothing is stored under this key; see
    /// [`ConnectError`] for the rest.
    ///
    /// # Cancel safety
    /// A refresh runs in its own task: dropping this future does not lose the new token.
    pub async fn client(&self, key: &TokenKey) -> Result<ApiClient, ConnectError> {
        let stored = self.login(key).await?;
        let token = stored.usable().await?;
        Ok(ApiClient::of(stored, token))
    }

    /// A token that has not expired, refreshed if necessary, for a generated SDK or any other HTTP client. Prefer
    /// [`client`](Self::client): it sends the token only to the provider's own origin, and replaces a rejected one.
    ///
    /// Get the token again for each piece of work, because it expires.
    ///
    /// ```
    /// # use oauth_dance::{Connector, KeyRing, MemoryStorage, TokenKey, testing::TestProvider};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// # let alice = TokenKey::new("acme", "alice")?;
    /// # provider.connect_key(&connector, &alice).await?;
    /// let token = connector.token(&alice).await?;
    /// let url = format!("{}/api/notes", provider.url());
    /// let notes = reqwest::Client::new().get(url).bearer_auth(token.secret().expose()).send().await?;
    /// assert_eq!(notes.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`client`](Self::client).
    ///
    /// # Cancel safety
    /// As [`client`](Self::client).
    pub async fn token(&self, key: &TokenKey) -> Result<Token, ConnectError> {
        Ok(Arc::unwrap_or_clone(self.login(key).await?.usable().await?))
    }

    /// The stored connection under this key, or `None` if nothing is stored. This reads the storage and sends nothing to the
    /// provider. Whether the provider still accepts the token is known only after a call.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`].
    pub async fn connection(&self, key: &TokenKey) -> Result<Option<Connection>, ConnectError> {
        self.registered(key.provider())?;
        Ok(self.shared.refresher.connection(&self.tokens, key).await?)
    }

    /// Verifies that the storage responds, with one read of a key under which nothing is stored. Use it as a readiness
    /// check: while the storage is down, no call that needs a token can succeed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn check(&self) -> Result<(), StorageError> {
        // Storages of requests belong to a request, so there is nothing to verify.
        if self.shared.per_request {
            return Ok(());
        }
        self.tokens.check().await
    }

    /// Waits until no login and no refresh is in flight in this process. Call it before the process exits, so that no new
    /// token is lost, and limit the time: while the storage is unavailable, this waits for it.
    ///
    /// # Cancel safety
    /// Dropping this future, as a timeout does, cancels nothing: the refreshes continue until the runtime shuts down.
    pub async fn finish(&self) {
        // The hook of a login may call an API, which may refresh a token.
        self.shared.logins.all_ended().await;
        self.shared.refresher.finish().await;
    }

    /// The providers' names and titles, sorted by name.
    ///
    /// ```
    /// use oauth_dance::presets::{GitHub, Google};
    /// use oauth_dance::{Connector, KeyRing, MemoryStorage};
    ///
    /// let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    ///     .provider(Google::provider().client("id", "secret"))
    ///     .provider(GitHub::provider().client("id", "secret"))
    ///     .build()?;
    /// assert_eq!(connector.providers().next(), Some(("github", "GitHub")));
    /// # Ok::<(), oauth_dance::ConfigError>(())
    /// ```
    pub fn providers(&self) -> impl Iterator<Item = (&str, &str)> {
        let registered = self.shared.registered.values();
        registered.map(|registered| (registered.declared.name.as_str(), registered.declared.title.as_str()))
    }

    /// The tokens as they are stored: to write a token that was issued elsewhere, to reseal all tokens with a new key, or to
    /// list and purge them. To call an API, use [`client`](Self::client) instead, which refreshes the token.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The token of a login under that key.
    async fn login(&self, key: &TokenKey) -> Result<StoredToken, ConnectError> {
        let registered = self.registered(key.provider())?;
        if own_key::is_own(key) {
            return Err(ConnectError::NotConnected);
        }
        Ok(self.stored(registered.best_effort(&self.shared.http).await, key.clone()))
    }

    /// The token under that key, with everything needed to refresh it.
    pub(crate) fn stored(&self, registered: Registered, key: TokenKey) -> StoredToken {
        StoredToken {
            refresher: Arc::clone(&self.shared.refresher),
            tokens: self.tokens.clone(),
            http: self.shared.http.clone(),
            reseals: self.shared.per_request && self.shared.keys_change,
            registered,
            key,
            grant: None,
            api_base: None,
        }
    }

    #[cfg(any(feature = "axum", feature = "native"))]
    pub(crate) fn http(&self) -> &HttpClients {
        &self.shared.http
    }

    /// The logins in flight, which `finish` waits for.
    #[cfg(any(feature = "axum", feature = "native"))]
    pub(crate) fn logins(&self) -> &Tasks {
        &self.shared.logins
    }

    pub(crate) fn registered(&self, provider: &str) -> Result<&Registered, ConnectError> {
        self.shared.registered.get(provider).ok_or_else(|| ConnectError::UnknownProvider(provider.to_owned()))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("providers", &self.shared.registered.keys())
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
