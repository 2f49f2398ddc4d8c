//! A small OAuth 2.0 authorization server that runs on this machine.
//!
//! It lets a newcomer see the whole dance without signing up anywhere: a login form, a consent page,
//! the authorization code with PKCE, rotating refresh tokens, userinfo and revocation. It is strict
//! where providers should be, so that a client which works here has nothing to unlearn:
//!
//! | path | what |
//! | --- | --- |
//! | `GET /authorize` | authorization endpoint (RFC 6749 section 3.1), PKCE S256 required (RFC 7636) |
//! | `POST /token` | authorization code and refresh token grants (RFC 6749 sections 4.1.3 and 6) |
//! | `GET /userinfo` | who the access token speaks for, as JSON; Bearer (RFC 6750) |
//! | `POST /revoke` | revocation (RFC 7009) |
//! | `GET /.well-known/oauth-authorization-server` | metadata (RFC 8414) |
//!
//! Scopes are `profile` (the name) and `email`; a request without a scope gets `profile`. Authorization
//! responses carry `iss` (RFC 9207). A code or refresh token that is presented twice ends everything
//! issued from the same consent (RFC 9700 section 4.14.2).
//!
//! Its users and their password are shown on the login page, and its state lives in memory: it is for
//! demos and tests, not for keeping anyone out of anything.

mod authorize;
mod bounded;
mod pages;
mod params;
mod session;
mod store;
mod token;
mod userinfo;
mod users;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::map_response_with_state;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::Url;

use store::Store;

const MAX_BODY_BYTES: usize = 16 * 1024;

/// A small authorization server for the demo, with one registered client.
///
/// Clones share their codes, tokens and sessions. See the [module documentation](self) for what it
/// serves.
///
/// ```
/// use oauth_dance_cli::provider::{LocalProvider, Registration};
///
/// # fn main() -> Result<(), url::ParseError> {
/// let provider = LocalProvider::new(
///     "http://127.0.0.1:4001".parse()?,
///     Registration {
///         client_id: "demo".to_owned(),
///         client_secret: "not so secret".to_owned(),
///         redirect_uri: "http://127.0.0.1:4000/login/local/authorized".to_owned(),
///     },
/// );
/// assert_eq!(provider.issuer(), "http://127.0.0.1:4001");
///
/// let router: axum::Router = provider.router(); // serve it where the issuer points
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LocalProvider {
    issuer: Arc<str>,
    cookie_name: Arc<str>,
    registration: Arc<Registration>,
    access_token_lifetime: Duration,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    store: Arc<Mutex<Store>>,
}

/// The one client a [`LocalProvider`] knows.
#[derive(Clone)]
pub struct Registration {
    /// The client's public name; also shown on the consent page.
    pub client_id: String,
    /// What the client proves itself with at the token and revocation endpoints.
    pub client_secret: String,
    /// Where authorization responses go. Requests must repeat it byte for byte.
    pub redirect_uri: String,
}

impl LocalProvider {
    /// A provider that is reachable at `issuer`, an origin such as `http://127.0.0.1:4001`.
    ///
    /// Access tokens live for two minutes, so that a visitor of the demo can watch one expire.
    pub fn new(issuer: Url, registration: Registration) -> Self {
        let port = issuer.port_or_known_default().unwrap_or_default();
        let issuer = String::from(issuer);
        Self {
            issuer: issuer.trim_end_matches('/').into(),
            // Cookies are shared by all ports of a host.
            cookie_name: format!("oauth_dance_local_provider_{port}").into(),
            registration: Arc::new(registration),
            access_token_lifetime: Duration::from_secs(120),
            clock: Arc::new(SystemTime::now),
            store: Arc::default(),
        }
    }

    /// Sets how long access tokens are accepted; `expires_in` says it in whole seconds.
    pub fn with_access_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.access_token_lifetime = lifetime;
        self
    }

    /// Takes the time from `clock` instead of the system, so that tests need not sleep.
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The issuer identifier, without a trailing slash: the `iss` of authorization responses and the
    /// `issuer` of the metadata. The endpoints are this followed by their paths.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The router to serve at the issuer's root.
    pub fn router(self) -> Router {
        Router::new()
            .route("/authorize", get(authorize::show))
            .route("/login", post(authorize::login))
            .route("/logout", post(authorize::logout))
            .route("/consent", post(authorize::consent))
            .route("/token", post(token::token))
            .route("/revoke", post(token::revoke))
            .route("/userinfo", get(userinfo::userinfo))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/style.css", get(pages::style))
            .fallback(pages::not_found)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(map_response_with_state(self.clone(), pages::security_headers))
            .with_state(self)
    }

    fn now(&self) -> Now {
        (self.clock)().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LocalProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalProvider")
            .field("issuer", &self.issuer)
            .field("registration", &self.registration)
            .field("access_token_lifetime", &self.access_token_lifetime)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("client_id", &self.client_id)
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}

/// Time since the Unix epoch.
type Now = Duration;

/// 256 random bits in base64url, 43 characters: a code, a token or a session id.
fn random_secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether `text` has the form of [`random_secret`], which is also that of an S256 code challenge.
fn is_43_base64url(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() == 43 && text.bytes().all(allowed)
}

async fn metadata(State(provider): State<LocalProvider>) -> Json<Value> {
    let issuer = provider.issuer();
    let client_authentication = ["client_secret_basic", "client_secret_post"];
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "scopes_supported": authorize::SCOPES,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": client_authentication,
        "revocation_endpoint_auth_methods_supported": client_authentication,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}
