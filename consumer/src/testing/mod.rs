//! Tools for the tests of applications: a provider of OAuth 2.0 and 1.0a in the test's own process, and a clock that the
//! test advances.
//!
//! Enable the feature `testing` in a dev-dependency:
//!
//! ```
//! use std::time::Duration;
//! use oauth_dance::testing::{ScriptedResponse, TestClock, TestProvider};
//! use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = TestProvider::start().await?;
//! let clock = TestClock::new();
//! let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
//!     .provider(provider.registration("acme"))
//!     .clock(clock.clock())
//!     .anonymous_users()
//!     .build()?;
//!
//! // Connect without a browser:
//! let alice = User::new("alice");
//! provider.connect(&oauth, "acme", &alice).await?;
//! let response = oauth.client("acme", &alice).await?.get("/notes").send().await?;
//! assert_eq!(response.status(), 200);
//!
//! // A scripted failure of the provider:
//! clock.advance(Duration::from_secs(3601));
//! provider.next_token_response(ScriptedResponse::status(503).header("retry-after", "30"));
//! assert!(oauth.client("acme", &alice).await.is_err());
//! clock.advance(Duration::from_secs(60));
//! assert!(oauth.client("acme", &alice).await.is_ok(), "the token is still stored");
//! assert_eq!(provider.counters().families_revoked, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # A login through the routes
//!
//! [`TestProvider::connect`] stores a token directly, which is enough for tests of what an application does with a
//! connection. A test of the login itself follows the redirects as a browser does. Only cookies and redirects are
//! needed, because the provider approves immediately:
//!
//! ```
//! use axum::Router;
//! use oauth_dance::testing::TestProvider;
//! use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};
//! use reqwest::{Client, redirect::Policy};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = TestProvider::start().await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let base = format!("http://{}", listener.local_addr()?);
//! let oauth = OAuth::builder(&base, MemoryStorage::new(), KeyRing::generate())
//!     .provider(provider.registration("acme"))
//!     .user(|_: http::Method| async { Some(User::new("alice")) })
//!     .build()?;
//! let app: Router = Router::new().merge(oauth.routes());
//! tokio::spawn(async move { axum::serve(listener, app).await });
//!
//! let browser = Client::builder().redirect(Policy::none()).build()?;
//! let login = browser.get(format!("{base}/login/acme")).send().await?;
//! let cookie = login.headers()["set-cookie"].to_str()?.split(';').next().unwrap_or_default();
//! let consent = browser.get(login.headers()["location"].to_str()?).send().await?;
//! let callback = browser.get(consent.headers()["location"].to_str()?).header("cookie", cookie).send().await?;
//! assert_eq!(callback.status(), 303);
//! assert!(oauth.connection("acme", &User::new("alice")).await?.is_some());
//! assert_eq!(provider.counters().codes_redeemed, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Not for production
//!
//! The provider grants every request, and logs every secret that it receives. Enable the feature `testing` in
//! `[dev-dependencies]` only.

mod api;
mod authorize;
mod clock;
mod device;
mod dpop;
mod endpoints;
mod grants;
mod log;
mod metadata;
mod oauth1;
#[cfg(feature = "oidc")]
mod openid;
mod reply;
mod resource_owner;
mod scripted_response;
mod settings;
mod token;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
#[cfg(feature = "axum")]
use oauth_dance_core::OAuth1Token;
use oauth_dance_core::{DpopKey, OAuth2Token, Precondition, Token, TokenKey};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::device::Devices;
use self::dpop::Proofs;
use self::grants::{Grants, Redemption};
use self::wire::{Connection, Severable};
#[cfg(feature = "axum")]
use crate::app::OAuth;
#[cfg(feature = "axum")]
use crate::browser::user::User;
use crate::config::provider::Provider;
use crate::config::registration::Registration;
use crate::connector::Connector;
use crate::error::ConnectError;
use crate::protocol::dpop::thumbprint;

pub use self::clock::TestClock;
pub use self::endpoints::Endpoint;
pub use self::grants::Counters;
pub use self::log::LoggedRequest;
#[cfg(feature = "oidc")]
pub use self::openid::{IdToken, IdTokenSignature, SigningAlgorithm};
pub use self::resource_owner::{AuthorizationRequest, Decision, ResourceOwner};
pub use self::scripted_response::ScriptedResponse;
pub use self::settings::{Client, Settings};

/// The identifier and secret of the client that a [`TestProvider`] has by default; see [`Settings::clients`].
pub const CLIENT: (&str, &str) = ("test-client", "test-secret");

/// A provider of OAuth 2.0 and 1.0a, usually on its own port of 127.0.0.1.
///
/// It is as strict as a correct provider: clients authenticate in exactly one way, redirect URIs must match exactly,
/// `state` and PKCE (S256) are required, codes work once and for a minute, and refresh tokens work once. If a refresh
/// token is presented twice, its whole family is revoked (RFC 9700 section 4.14.2). If a code is presented twice, the
/// tokens that it was redeemed for are revoked (RFC 6749 section 4.1.2). The provider logs all requests, and its next
/// responses can be scripted. Unless a [`ResourceOwner`] decides, it approves every authorization request immediately.
///
/// | path | function |
/// | --- | --- |
/// | `/authorize` | redirects to the client with a code, for the user in `login_hint` or in [`Settings::user`] |
/// | `/par` | accepts pushed authorization requests (RFC 9126) |
/// | `/device_authorization` | issues codes for devices (RFC 8628) |
/// | `/device?user_code=…` | connects the device, for the user in [`Settings::user`] |
/// | `/token` | redeems codes, device codes and refresh tokens, and issues tokens for client credentials (RFC 6749 section 4.4) and in exchange (RFC 8693) |
/// | `/revoke` | revokes tokens (RFC 7009) |
/// | `/userinfo` | `{"sub": user}`, and the claims of a [`ResourceOwner`] |
/// | `/api/*` | returns the request as JSON |
/// | `/oauth1/temporary`, `/oauth1/authorize`, `/oauth1/token` | OAuth 1.0a; see [`TestProvider::oauth1_provider`] |
/// | `/end_session` | redirects to the client (OpenID Connect RP-Initiated Logout) |
/// | `/.well-known/oauth-authorization-server` | metadata (RFC 8414) |
/// | `/.well-known/openid-configuration`, `/jwks` | with the cargo feature `oidc`, metadata and keys of OpenID Connect |
/// | `/counters` | [`Counters`] as JSON, for a test that runs the provider in another process |
///
/// With the cargo feature `oidc`, tokens with the scope `openid` come with a signed ID token.
///
/// It stops when it is dropped.
#[derive(Debug)]
pub struct TestProvider {
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    url: String,
    settings: Mutex<Settings>,
    grants: Mutex<Grants>,
    devices: Mutex<Devices>,
    proofs: Mutex<Proofs>,
    oauth1: Mutex<oauth1::Grants>,
    log: Mutex<Vec<LoggedRequest>>,
    script: Mutex<HashMap<Endpoint, VecDeque<ScriptedResponse>>>,
    streamed: Arc<AtomicU64>,
    #[cfg(feature = "oidc")]
    openid: Mutex<openid::OpenIdState>,
}

impl TestProvider {
    /// Starts a provider on a free port.
    ///
    /// # Errors
    /// If no port is available.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let mut provider = Self::at(format!("http://{}", listener.local_addr()?));
        let service: IntoMakeServiceWithConnectInfo<_, Connection> =
            provider.router().into_make_service_with_connect_info();
        provider.server = Some(tokio::spawn(async move {
            // The server ends only with its task: accepting is retried indefinitely.
            let _ = axum::serve(Severable(listener), service).await;
        }));
        Ok(provider)
    }

    /// A provider at this URL, where the caller must serve its [`router`](Self::router). A response that is
    /// [lost](ScriptedResponse::lost) is then sent nevertheless, because the provider cannot close the connection.
    pub fn at(url: impl Into<String>) -> Self {
        let url = url.into().trim_end_matches('/').to_owned();
        Self { shared: Arc::new(Shared { url, ..Shared::default() }), server: None }
    }

    /// The routes to serve at the root of the provider's URL, for a provider [at](Self::at) an address of your choice:
    /// behind TLS, in a container, or in the router of a demo.
    pub fn router(&self) -> Router {
        Router::new().fallback(endpoints::handle).with_state(Arc::clone(&self.shared))
    }

    /// The URL, which is also the issuer identifier. For a [started](Self::start) provider it is `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// The address that it listens on. `None` for a provider that is not at a plain address, such as one behind TLS.
    pub fn address(&self) -> Option<SocketAddr> {
        self.url().strip_prefix("http://")?.parse().ok()
    }

    /// The declaration of this provider, with this name, to change it before a client is registered:
    ///
    /// ```
    /// use oauth_dance::testing::{CLIENT, TestProvider};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let provider = TestProvider::start().await?;
    /// let mut acme = provider.provider("acme").with_scopes(["read"]);
    /// acme.dpop = true;
    /// let registration = acme.client(CLIENT.0, CLIENT.1);
    /// # let _ = registration;
    /// # Ok(())
    /// # }
    /// ```
    pub fn provider(&self, name: &str) -> Provider {
        provider_at(self.url(), name)
    }

    /// The registration of this provider by its issuer alone, with this name and the client [`CLIENT`].
    #[cfg(feature = "oidc")]
    pub fn openid_registration(&self, name: &str) -> Registration {
        Provider::openid(name, self.url()).client(CLIENT.0, CLIENT.1)
    }

    /// The registration of this provider, with this name and the client [`CLIENT`].
    pub fn registration(&self, name: &str) -> Registration {
        self.provider(name).client(CLIENT.0, CLIENT.1)
    }

    /// The declaration of this provider with OAuth 1.0a, with this name. It verifies signatures with HMAC-SHA1, HMAC-SHA256
    /// and PLAINTEXT, accepts each nonce once, and accepts only the verifier that it issued.
    pub fn oauth1_provider(&self, name: &str) -> Provider {
        let endpoint = |path: &str| format!("{}/oauth1/{path}", self.url());
        let mut provider = Provider::oauth1(name, endpoint("temporary"), endpoint("authorize"), endpoint("token"));
        provider.userinfo_endpoint = Some(format!("{}/userinfo", self.url()));
        provider.api_base = Some(format!("{}/api", self.url()));
        provider
    }

    /// The registration of this provider with OAuth 1.0a, with this name and the client [`CLIENT`].
    pub fn oauth1_registration(&self, name: &str) -> Registration {
        self.oauth1_provider(name).client(CLIENT.0, CLIENT.1)
    }

    /// Changes the settings for all further requests. Tokens that were issued before have the earlier lifetime.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};
    /// use oauth_dance::ConnectError;
    /// use oauth_dance::testing::{TestClock, TestProvider};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (provider, clock) = (TestProvider::start().await?, TestClock::new());
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).clock(clock.clock()).anonymous_users().build()?;
    /// # let alice = User::new("alice");
    /// // A provider without refresh tokens: the connection ends with the access token.
    /// provider.configure(|settings| {
    ///     settings.refresh_tokens = false;
    ///     settings.access_token_lifetime = Duration::from_secs(60);
    /// });
    /// provider.connect(&oauth, "acme", &alice).await?;
    /// clock.advance(Duration::from_secs(61));
    /// let ended = oauth.client("acme", &alice).await;
    /// assert!(matches!(ended, Err(ConnectError::NeedsAuthorization { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.settings());
    }

    /// Scripts the next response of the token endpoint, after those that are already scripted.
    pub fn next_token_response(&self, response: ScriptedResponse) {
        self.next_response(Endpoint::Token, response);
    }

    /// Scripts the next response of an endpoint, after those that are already scripted.
    pub fn next_response(&self, endpoint: Endpoint, response: ScriptedResponse) {
        self.shared.script().entry(endpoint).or_default().push_back(response);
    }

    /// Drops all scripted responses that were not used.
    pub fn clear_responses(&self) {
        self.shared.script().clear();
    }

    /// All requests so far, in the order of arrival. Requests to `/counters` are not among them.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.log().clone()
    }

    /// All requests to one endpoint so far, in the order of arrival.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};
    /// use oauth_dance::testing::{Endpoint, TestProvider};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// # let alice = User::new("alice");
    /// # provider.connect(&oauth, "acme", &alice).await?;
    /// oauth.client("acme", &alice).await?.get("/notes").query(&[("page", "2")]).send().await?;
    /// let requests = provider.requests_to(Endpoint::Api);
    /// assert_eq!((requests.len(), requests[0].path.as_str()), (1, "/api/notes"));
    /// assert_eq!(requests[0].parameter("page"), Some("2"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn requests_to(&self, endpoint: Endpoint) -> Vec<LoggedRequest> {
        self.shared.log().iter().filter(|request| request.endpoint == endpoint).cloned().collect()
    }

    /// Clears the log of requests.
    pub fn clear_requests(&self) {
        self.shared.log().clear();
    }

    /// The numbers of codes and tokens that were issued, redeemed and revoked so far.
    pub fn counters(&self) -> Counters {
        self.shared.grants().counters()
    }

    /// How many bytes of [endless, huge and dripping](ScriptedResponse) bodies have been sent so far. A test of a size limit
    /// asserts that this is not much more than the limit.
    pub fn bytes_streamed(&self) -> u64 {
        self.shared.streamed.load(Ordering::Relaxed)
    }

    /// Issues a token for one of the provider's users, as after a login, without storing it anywhere. Use it for a
    /// token of a different user than [`connect`](Self::connect) stores, or to test an import of tokens.
    pub fn issue(&self, user: &str) -> OAuth2Token {
        let settings = self.shared.settings().clone();
        self.shared.grants().issue(&Redemption { settings: &settings, client: CLIENT.0, jkt: None }, user, "")
    }

    /// Connects the user of a key without a browser: stores a token for the provider's user with the same identifier, bound
    /// to a key if [`Provider::dpop`] is set. With OAuth 1.0a, it stores token credentials. All accounts of a user belong to
    /// the same provider's user. For another one, store a token that was [issued](Self::issue) for it in
    /// [`Connector::tokens`].
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`].
    pub async fn connect_key(&self, connector: &Connector, key: &TokenKey) -> Result<Token, ConnectError> {
        let registered = connector.registered(key.provider())?;
        let token = match registered.oauth1 {
            Some(_) => self.shared.oauth1().issue(&self.shared.settings(), key.user()).into(),
            None => self.issue_to(connector, registered.dpop_key(None), key.user()).into(),
        };
        connector.tokens().put(key, &token, Precondition::Always).await?;
        Ok(token)
    }

    /// A token as after a login, with the application's clock.
    fn issue_to(&self, connector: &Connector, dpop_key: Option<DpopKey>, user: &str) -> OAuth2Token {
        let jkt = dpop_key.as_ref().and_then(thumbprint);
        let settings = self.shared.settings().clone();
        let by = Redemption { settings: &settings, client: CLIENT.0, jkt: jkt.as_deref() };
        let mut token = self.shared.grants().issue(&by, user, "");
        let now = connector.shared.http.clock.now();
        token.issued_at = Some(now);
        token.expires_at = Some(now.saturating_add(settings.access_token_lifetime));
        token.dpop_key = dpop_key;
        token
    }

    /// Connects a user of a web application, as [`connect_key`](Self::connect_key) does, with a token of OAuth 2.0.
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`], [`ConnectError::Key`].
    #[cfg(feature = "axum")]
    pub async fn connect(&self, oauth: &OAuth, provider: &str, user: &User) -> Result<OAuth2Token, ConnectError> {
        let dpop_key = oauth.registered(provider)?.dpop_key(None);
        let token = self.issue_to(oauth.connector(), dpop_key, user.id());
        oauth.tokens().put(&user.key(provider)?, &Token::from(token.clone()), Precondition::Always).await?;
        Ok(token)
    }

    /// The same for a provider that was registered with [`TestProvider::oauth1_registration`].
    ///
    /// # Errors
    /// As [`TestProvider::connect`].
    #[cfg(feature = "axum")]
    pub async fn connect_oauth1(
        &self,
        oauth: &OAuth,
        provider: &str,
        user: &User,
    ) -> Result<OAuth1Token, ConnectError> {
        oauth.registered(provider)?;
        let token = self.shared.oauth1().issue(&self.shared.settings(), user.id());
        oauth.tokens().put(&user.key(provider)?, &Token::from(token.clone()), Precondition::Always).await?;
        Ok(token)
    }

    /// Revokes all grants of one of the provider's users, as the user could do in a provider's settings. The application
    /// notices at its next call or refresh:
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User};
    /// use oauth_dance::ApiError;
    /// use oauth_dance::testing::TestProvider;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// # let alice = User::new("alice");
    /// provider.connect(&oauth, "acme", &alice).await?;
    /// let acme = oauth.client("acme", &alice).await?;
    /// provider.revoke_all_of("alice");
    /// let rejected = acme.get("/notes").send().await?.success();
    /// assert!(matches!(rejected, Err(ApiError::NeedsAuthorization(_))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn revoke_all_of(&self, user: &str) {
        self.shared.oauth1().revoke_all_of(user);
        self.shared.grants().revoke_all_of(user);
    }
}

/// Stops listening. Open connections remain open until their peers close them.
impl Drop for TestProvider {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

/// The [`TestProvider`] at this URL, possibly in another process, with this name. A test with several processes runs one
/// provider, and passes its [URL](TestProvider::url) to the others.
pub fn provider_at(url: &str, name: &str) -> Provider {
    let mut provider = Provider::new(name, format!("{url}/authorize"), format!("{url}/token"));
    provider.device_authorization_endpoint = Some(format!("{url}/device_authorization"));
    provider.revocation_endpoint = Some(format!("{url}/revoke"));
    provider.userinfo_endpoint = Some(format!("{url}/userinfo"));
    provider.api_base = Some(format!("{url}/api"));
    provider.issuer = Some(url.to_owned());
    provider
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        locked(&self.settings)
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        locked(&self.grants)
    }

    fn devices(&self) -> MutexGuard<'_, Devices> {
        locked(&self.devices)
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        locked(&self.proofs)
    }

    fn oauth1(&self) -> MutexGuard<'_, oauth1::Grants> {
        locked(&self.oauth1)
    }

    fn log(&self) -> MutexGuard<'_, Vec<LoggedRequest>> {
        locked(&self.log)
    }

    fn script(&self) -> MutexGuard<'_, HashMap<Endpoint, VecDeque<ScriptedResponse>>> {
        locked(&self.script)
    }
}

/// A test that panics while it has a lock has already failed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
