//! For the tests of applications: a provider of OAuth 2.0 and 1.0a in the test's own process, and a clock to turn.
//!
//! With the feature `testing`, as a dev-dependency:
//!
//! ```
//! use std::time::Duration;
//! use oauth_dance::testing::{Answer, TestClock, TestProvider};
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
//! // Connected without a browser:
//! let alice = User::new("alice");
//! provider.connect(&oauth, "acme", &alice).await?;
//! let answer = oauth.client("acme", &alice).await?.get("/notes").send().await?;
//! assert_eq!(answer.status(), 200);
//!
//! // Whatever can go wrong at the provider, on demand:
//! clock.advance(Duration::from_secs(3601));
//! provider.next_token_answer(Answer::status(503).header("retry-after", "30"));
//! assert!(oauth.client("acme", &alice).await.is_err());
//! clock.advance(Duration::from_secs(60));
//! assert!(oauth.client("acme", &alice).await.is_ok(), "the token is still there");
//! assert_eq!(provider.counters().families_revoked, 0);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here is for production: the provider grants everything to everybody and keeps every secret it sees.

mod answer;
mod clock;
mod dpop;
mod endpoints;
mod grants;
mod log;
mod oauth1;
#[cfg(feature = "oidc")]
mod openid;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use oauth_dance_core::{Clock, OAuth1Token, OAuth2Token, Precondition, Token};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::dpop::Proofs;
use self::grants::Grants;
use self::wire::{Connection, Severable};
use crate::app::OAuth;
use crate::browser::user::User;
use crate::config::provider::Provider;
use crate::config::registration::Registration;
use crate::error::ConnectError;
use crate::protocol::dpop::thumbprint;

pub use self::answer::Answer;
pub use self::clock::TestClock;
pub use self::endpoints::Endpoint;
pub use self::grants::Counters;
pub use self::log::LoggedRequest;
#[cfg(feature = "oidc")]
pub use self::openid::{IdToken, IdTokenSignature, SigningAlgorithm};

/// The client that every [`TestProvider`] knows, and its secret.
pub const CLIENT: (&str, &str) = ("test-client", "test-secret");

/// A provider of OAuth 2.0 and 1.0a on a port of its own of 127.0.0.1, which approves every authorization at once.
///
/// It is strict where a good provider is: clients authenticate in one way, redirect URIs are repeated exactly, PKCE
/// (S256) is required, codes work once, and so do refresh tokens. A refresh token that comes twice revokes its whole
/// family (RFC 9700 section 4.14.2), and a code that comes twice the tokens it was redeemed for (RFC 6749 section
/// 4.1.2). It keeps a log of all requests, and what it answers next can be scripted.
///
/// | path | what |
/// | --- | --- |
/// | `/authorize` | sends the browser back with a code; for the user in `login_hint`, else in [`Settings::user`] |
/// | `/par` | takes pushed authorization requests (RFC 9126) |
/// | `/token` | redeems codes and refresh tokens |
/// | `/revoke` | revokes tokens (RFC 7009) |
/// | `/userinfo` | `{"sub": user}` |
/// | `/api/*` | tells what it was asked, as JSON |
/// | `/oauth1/temporary`, `/oauth1/authorize`, `/oauth1/token` | OAuth 1.0a; see [`TestProvider::oauth1_provider`] |
/// | `/end_session` | sends the browser back (OpenID Connect RP-Initiated Logout) |
/// | `/.well-known/openid-configuration`, `/jwks` | with the cargo feature `oidc`, what an OpenID provider has |
/// | `/counters` | [`Counters`] as JSON, for a test that runs the provider in another process |
///
/// With the cargo feature `oidc`, tokens with the scope `openid` bring an ID token, really signed.
///
/// It stops when it is dropped.
#[derive(Debug)]
pub struct TestProvider {
    shared: Arc<Shared>,
    url: String,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    settings: Mutex<Settings>,
    grants: Mutex<Grants>,
    proofs: Mutex<Proofs>,
    oauth1: Mutex<oauth1::Grants>,
    log: Mutex<Vec<LoggedRequest>>,
    script: Mutex<HashMap<Endpoint, VecDeque<Answer>>>,
    streamed: Arc<AtomicU64>,
    #[cfg(feature = "oidc")]
    openid: Mutex<openid::OpenIdState>,
}

/// What a [`TestProvider`] does when nothing else is scripted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Who authorizes where the request has no `login_hint`. The default is `somebody`.
    pub user: String,
    /// The error code that every authorization is refused with; `None`, the default, approves.
    pub refuses: Option<String>,
    /// How long access tokens last. The default is an hour.
    pub access_token_lifetime: Duration,
    /// Whether it gives refresh tokens. The default is `true`.
    pub refresh_tokens: bool,
    /// Whether a refresh gives a new refresh token and spends the old one. The default is `true`.
    pub rotation: bool,
    /// Whether the callback carries `iss` (RFC 9207). The default is `false`.
    pub issuer_parameter: bool,
    /// Whether it refuses authorization requests that were not pushed (RFC 9126 section 5). The default is `false`.
    pub requires_pushed_requests: bool,
    /// Whether it gives tokens only to clients that prove a key (RFC 9449). It binds tokens to a proved key in any case. The
    /// default is `false`.
    pub requires_dpop: bool,
    /// The nonce that every proof must have, which every answer tells. The default is none.
    pub dpop_nonce: Option<String>,
    /// What a form says of the user, where one was asked for by `response_mode=form_post`. The default is nothing.
    pub posted_user: Option<String>,
    /// What ID tokens are signed by. The default is ES256.
    #[cfg(feature = "oidc")]
    pub id_token_algorithm: SigningAlgorithm,
    /// What every code and token begins with, to be found again wherever it should not be. The default is empty.
    pub secret_prefix: String,
    /// Clients besides [`CLIENT`]: id and secret, or no secret for a public client.
    pub clients: HashMap<String, Option<String>>,
    /// Where the provider takes the time from. The default is the system's clock.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            user: "somebody".to_owned(),
            refuses: None,
            access_token_lifetime: Duration::from_secs(3600),
            refresh_tokens: true,
            rotation: true,
            issuer_parameter: false,
            requires_pushed_requests: false,
            requires_dpop: false,
            dpop_nonce: None,
            posted_user: None,
            #[cfg(feature = "oidc")]
            id_token_algorithm: SigningAlgorithm::default(),
            secret_prefix: String::new(),
            clients: HashMap::new(),
            clock: Clock::system(),
        }
    }
}

impl TestProvider {
    /// Starts a provider on a free port.
    ///
    /// # Errors
    /// If no port can be listened on.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(endpoints::handle).with_state((Arc::clone(&shared), url.clone()));
        let service: IntoMakeServiceWithConnectInfo<_, Connection> = router.into_make_service_with_connect_info();
        let server = tokio::spawn(async move {
            // It ends with the task only: accepting is retried for ever.
            let _ = axum::serve(Severable(listener), service).await;
        });
        Ok(Self { shared, url, server })
    }

    /// Where it is: `http://127.0.0.1:PORT`. It is its issuer identifier too.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address it listens on.
    pub fn address(&self) -> Option<SocketAddr> {
        self.url.strip_prefix("http://")?.parse().ok()
    }

    /// This provider under a name, to change what should differ.
    pub fn provider(&self, name: &str) -> Provider {
        provider_at(&self.url, name)
    }

    /// This provider under a name, known by nothing but its issuer and with the client it knows.
    #[cfg(feature = "oidc")]
    pub fn openid_registration(&self, name: &str) -> Registration {
        Provider::openid(name, &self.url).client(CLIENT.0, CLIENT.1)
    }

    /// This provider under a name, with the client it knows.
    pub fn registration(&self, name: &str) -> Registration {
        self.provider(name).client(CLIENT.0, CLIENT.1)
    }

    /// This provider as one of OAuth 1.0a under a name. It wants signatures by HMAC-SHA1, HMAC-SHA256 or PLAINTEXT, which
    /// it checks, nonces that are new, and the verifier that it gave.
    pub fn oauth1_provider(&self, name: &str) -> Provider {
        let endpoint = |path: &str| format!("{}/oauth1/{path}", self.url);
        let mut provider = Provider::oauth1(name, endpoint("temporary"), endpoint("authorize"), endpoint("token"));
        provider.userinfo_endpoint = Some(format!("{}/userinfo", self.url));
        provider.api_base = Some(format!("{}/api", self.url));
        provider
    }

    /// This provider as one of OAuth 1.0a under a name, with the client it knows.
    pub fn oauth1_registration(&self, name: &str) -> Registration {
        self.oauth1_provider(name).client(CLIENT.0, CLIENT.1)
    }

    /// Changes how it behaves from now on.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.settings());
    }

    /// Scripts the next answer of the token endpoint that is not scripted yet.
    pub fn next_token_answer(&self, answer: Answer) {
        self.next_answer(Endpoint::Token, answer);
    }

    /// Scripts the next answer of an endpoint that is not scripted yet.
    pub fn next_answer(&self, endpoint: Endpoint, answer: Answer) {
        self.shared.script().entry(endpoint).or_default().push_back(answer);
    }

    /// Drops all answers that are scripted but were not given.
    pub fn clear_answers(&self) {
        self.shared.script().clear();
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.log().clone()
    }

    /// Every request of one endpoint so far, in the order of arrival.
    pub fn requests_to(&self, endpoint: Endpoint) -> Vec<LoggedRequest> {
        self.shared.log().iter().filter(|request| request.endpoint == endpoint).cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.log().clear();
    }

    /// What was issued, redeemed and revoked so far.
    pub fn counters(&self) -> Counters {
        self.shared.grants().counters()
    }

    /// How many bytes of [endless, huge and dripping](Answer) bodies were taken off its hands so far.
    pub fn bytes_streamed(&self) -> u64 {
        self.shared.streamed.load(Ordering::Relaxed)
    }

    /// Gives a token for one of its users, as if the dance had been done.
    pub fn issue(&self, user: &str) -> OAuth2Token {
        let settings = self.shared.settings().clone();
        self.shared.grants().issue(&settings, CLIENT.0, user, "", None)
    }

    /// Connects a user without a browser: a token for the provider's user of the same name goes into the storage, bound to a
    /// key where [`Provider::dpop`] asks for that. It is the same user there for every [account](User::with_account); for
    /// others, put what [`issue`](Self::issue) gives into [`OAuth::tokens`].
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`], [`ConnectError::Storage`], [`ConnectError::Key`].
    pub async fn connect(&self, oauth: &OAuth, provider: &str, user: &User) -> Result<OAuth2Token, ConnectError> {
        let dpop_key = oauth.registered(provider)?.dpop_key(None);
        let jkt = dpop_key.as_ref().and_then(thumbprint);
        let settings = self.shared.settings().clone();
        let mut token = self.shared.grants().issue(&settings, CLIENT.0, user.id(), "", jkt.as_deref());
        // As after the dance, by the application's clock.
        let now = oauth.inner.clock.now();
        token.issued_at = Some(now);
        token.expires_at = Some(now.saturating_add(settings.access_token_lifetime));
        token.dpop_key = dpop_key;
        oauth.tokens().put(&user.key(provider)?, &Token::from(token.clone()), Precondition::Always).await?;
        Ok(token)
    }

    /// The same for a provider that was registered with [`TestProvider::oauth1_registration`].
    ///
    /// # Errors
    /// As [`TestProvider::connect`].
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

    /// Revokes everything it ever granted to one of its users, as they can do in a provider's settings.
    pub fn revoke_all_of(&self, user: &str) {
        self.shared.oauth1().revoke_all_of(user);
        self.shared.grants().revoke_all_of(user);
    }
}

/// Stops listening. Connections that are open stay open until their peers close them.
impl Drop for TestProvider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The [`TestProvider`] that runs at this URL, perhaps in another process, under a name.
pub fn provider_at(url: &str, name: &str) -> Provider {
    let mut provider = Provider::new(name, format!("{url}/authorize"), format!("{url}/token"));
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

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        locked(&self.proofs)
    }

    fn oauth1(&self) -> MutexGuard<'_, oauth1::Grants> {
        locked(&self.oauth1)
    }

    fn log(&self) -> MutexGuard<'_, Vec<LoggedRequest>> {
        locked(&self.log)
    }

    fn script(&self) -> MutexGuard<'_, HashMap<Endpoint, VecDeque<Answer>>> {
        locked(&self.script)
    }
}

/// A test that panics while it holds a lock has failed already.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
