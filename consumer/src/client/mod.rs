//! The client for a provider's API, and the source of its token.
//!
//! Three rules apply to each call. The token is sent only to an origin of the provider, whatever the path. No redirect takes
//! it to another origin. And neither the token nor the URL, which can contain identifiers of users, is part of an error.
//!
//! A client contains the token that was usable when it was created, and, for a stored token, what is needed to replace it.
//! If the API rejects the token, [`ApiRequest::send`] replaces it and repeats the request; `rejected` decides whether a
//! response is such a rejection.

mod rejected;
mod request;
mod response;
pub(crate) mod stored;
#[cfg(feature = "reqwest-middleware")]
mod through;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};
use oauth_dance_core::Token;
use reqwest::RequestBuilder;
use serde_json::{Map, Value};
use url::Url;

pub use self::request::ApiRequest;
#[cfg(feature = "reqwest-middleware")]
pub(crate) use self::request::MAX_TOKENS;
pub use self::response::ApiResponse;
use self::stored::StoredToken;
use crate::config::hosts::Zone;
use crate::error::{ApiError, Visitor};
use crate::protocol::dpop::Binding;
use crate::protocol::http::{HttpClients, ReadError, SendError, without_url};
use crate::protocol::openid::identity::subject_in;
use crate::protocol::registered::Registered;

/// Calls a provider's API for one user.
///
/// Paths are appended to the provider's API base. The token is sent in the `Authorization` header (RFC 6750 section
/// 2.1), only to the provider's own origin: a request to another origin is [`ApiError::ForeignOrigin`], and a redirect
/// to one is returned instead of followed. For OAuth 1.0a, each request is signed when it is sent, including a form in
/// its body (RFC 5849 section 3.4), and no redirect is followed. Every call has a timeout and a limit on the size of
/// the response.
///
/// If the token is bound to a key ([`Provider::dpop`](crate::Provider::dpop)), every call carries a proof for its URL, so no
/// redirect is followed.
///
/// A client comes from [`Connected`](crate::Connected) or [`Connections`](crate::Connections) in a handler, from
/// [`OAuth::client`](crate::OAuth::client) or [`Connector::client`](crate::Connector::client) in a background job, and from
/// [`Authorized`](crate::Authorized) in a hook.
/// Cloning is cheap, and clones share connections. Requests are built step by step, and nothing is sent before
/// [`ApiRequest::send`]:
///
/// ```no_run
/// # async fn example(github: oauth_dance::ApiClient) -> Result<(), oauth_dance::ApiError> {
/// let issues: serde_json::Value = github
///     .get("/repos/rust-lang/rust/issues")
///     .query(&[("state", "open"), ("per_page", "5")])
///     .send()
///     .await?
///     .success()?
///     .json()?;
/// # let _ = issues;
/// # Ok(())
/// # }
/// ```
///
/// For a generated SDK or another HTTP client, take the access token from [`token`](Self::token) and create the SDK's client
/// for each piece of work. Rejected tokens are then not replaced, and the origin of its requests is not checked.
#[derive(Clone)]
pub struct ApiClient {
    pub(crate) http: HttpClients,
    pub(crate) registered: Registered,
    pub(crate) token: Arc<Token>,
    /// How a rejected token is replaced; `None` for a token that is not stored yet.
    pub(crate) stored: Option<StoredToken>,
    /// The browser that sent the current request, if any.
    pub(crate) browser: Option<Arc<dyn Visitor>>,
}

impl ApiClient {
    /// A client with a token that is not stored.
    pub(crate) fn new(http: HttpClients, registered: Registered, token: Arc<Token>) -> Self {
        Self { http, registered, token, stored: None, browser: None }
    }

    /// A client with a stored token.
    pub(crate) fn of(stored: StoredToken, token: Arc<Token>) -> Self {
        let client = Self::new(stored.http.clone(), stored.registered.clone(), token);
        Self { stored: Some(stored), ..client }
    }

    /// The token that the calls carry. Its [scope](Token::scope) is what was granted, so a handler can check it before
    /// it offers a feature:
    ///
    /// ```
    /// use oauth_dance::ApiClient;
    ///
    /// fn may_write(client: &ApiClient) -> bool {
    ///     // `None` if the provider does not report what was granted.
    ///     client.token().scope().is_none_or(|granted| granted.iter().any(|scope| scope == "write"))
    /// }
    /// # let _ = may_write;
    /// ```
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The provider's name in this application; see [`Provider::name`](crate::Provider::name).
    pub fn provider(&self) -> &str {
        &self.registered.declared.name
    }

    /// A `GET` request. For `path`, see [`request`](Self::request).
    pub fn get(&self, path: &str) -> ApiRequest {
        self.request(Method::GET, path)
    }

    /// A `POST` request, with the body of [`json`](ApiRequest::json), [`form`](ApiRequest::form) or
    /// [`body`](ApiRequest::body).
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::TestProvider};
    /// use serde_json::{Value, json};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// # let alice = User::new("alice");
    /// # provider.connect(&oauth, "acme", &alice).await?;
    /// let acme = oauth.client("acme", &alice).await?;
    /// let response = acme.post("/notes").json(&json!({ "text": "buy milk" })).send().await?.success()?;
    /// // The test provider returns the request.
    /// assert_eq!(response.json::<Value>()?["method"], "POST");
    /// # Ok(())
    /// # }
    /// ```
    pub fn post(&self, path: &str) -> ApiRequest {
        self.request(Method::POST, path)
    }

    /// A `PUT` request.
    pub fn put(&self, path: &str) -> ApiRequest {
        self.request(Method::PUT, path)
    }

    /// A `PATCH` request.
    pub fn patch(&self, path: &str) -> ApiRequest {
        self.request(Method::PATCH, path)
    }

    /// A `DELETE` request.
    pub fn delete(&self, path: &str) -> ApiRequest {
        self.request(Method::DELETE, path)
    }

    /// The claims of an OpenID provider's userinfo endpoint (OpenID Connect Core section 5.3). They are compared with the
    /// subject whose ID token was verified when the account was connected, as section 5.3.2 requires.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::TestProvider};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// # let alice = User::new("alice");
    /// # provider.connect(&oauth, "acme", &alice).await?;
    /// let claims = oauth.client("acme", &alice).await?.userinfo_claims().await?;
    /// assert_eq!(claims["sub"], "alice");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ApiError::OtherSubject`] if the claims are for another subject, or name none; [`ApiError`] as for any call. A
    /// response that is signed or encrypted (`application/jwt`) is not supported.
    pub async fn userinfo_claims(&self) -> Result<Map<String, Value>, ApiError> {
        let claims: Map<String, Value> = self.userinfo().send().await?.success()?.json()?;
        match self.token.as_oauth2().and_then(|token| token.subject.as_ref()) {
            Some(known) if claims.get("sub").and_then(subject_in).as_ref() != Some(&known.subject) => {
                Err(ApiError::OtherSubject)
            }
            _ => Ok(claims),
        }
    }

    /// A `GET` request to the [userinfo endpoint](crate::Provider::userinfo_endpoint), which returns the user's identity in
    /// the format of the provider. If the provider has none, [`ApiRequest::send`] returns [`ApiError::Url`]; if the token is
    /// for [another API](crate::Audience::with_api_base), [`ApiError::ForeignOrigin`], and nothing is sent.
    ///
    /// In a login with OpenID Connect, prefer the verified [`Identity`](crate::Identity), which needs no request.
    pub fn userinfo(&self) -> ApiRequest {
        let url = self.registered.userinfo_endpoint().cloned().ok_or(ApiError::Url);
        self.request_url(Method::GET, url)
    }

    /// A request with any method. `path` is appended to the [API base](crate::Provider::api_base), with or without a
    /// leading slash, or is an absolute URL of the provider's own origin. Many APIs return such URLs, for example that
    /// of the next page.
    ///
    /// A URL of another origin is an error of [`ApiRequest::send`], and nothing is sent:
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::TestProvider};
    /// use http::Method;
    /// use oauth_dance::ApiError;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).anonymous_users().build()?;
    /// # let alice = User::new("alice");
    /// # provider.connect(&oauth, "acme", &alice).await?;
    /// let acme = oauth.client("acme", &alice).await?;
    /// let next = format!("{}/api/notes?page=2", provider.url());
    /// assert!(acme.request(Method::GET, &next).send().await?.status().is_success());
    ///
    /// let stolen = acme.get("https://evil.example/notes").send().await;
    /// assert!(matches!(stolen, Err(ApiError::ForeignOrigin)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn request(&self, method: Method, path: &str) -> ApiRequest {
        self.request_url(method, self.url(path))
    }

    fn url(&self, path: &str) -> Result<Url, ApiError> {
        let url = match Url::parse(path) {
            Ok(absolute) => absolute,
            Err(_) => {
                let base = self.api_base().ok_or(ApiError::Url)?;
                let base = base.as_str().trim_end_matches('/');
                Url::parse(&format!("{base}/{}", path.trim_start_matches('/'))).map_err(|_| ApiError::Url)?
            }
        };
        Ok(url)
    }

    /// Whether the token may be sent to this URL.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        let bare = url.username().is_empty() && url.password().is_none();
        let origin = url.origin();
        if let Some(only) = self.only_api() {
            return bare && only.origin() == origin;
        }
        bare && (self.registered.owns(&origin) || self.api_base().is_some_and(|base| base.origin() == origin))
    }

    /// The API base: for this user, if the token response contained one, or else the provider's.
    fn api_base(&self) -> Option<Cow<'_, Url>> {
        if let Some(only) = self.only_api() {
            return Some(Cow::Borrowed(only));
        }
        let member = self.registered.declared.quirks.api_base_member.as_ref();
        match member.and_then(|member| self.token.extra().get(member)) {
            Some(base) => self.registered.named_by_provider(base.as_str()?).map(Cow::Owned),
            None => self.registered.endpoints.api_base.as_ref().map(Cow::Borrowed),
        }
    }

    /// The only API that accepts the token, if that is not the provider's usual one.
    fn only_api(&self) -> Option<&Url> {
        self.stored.as_ref()?.api_base.as_deref()
    }

    pub(crate) fn request_url(&self, method: Method, url: Result<Url, ApiError>) -> ApiRequest {
        let limit = self.http.limits.max_response;
        let request = url.and_then(|url| {
            if !self.owns(&url) {
                return Err(ApiError::ForeignOrigin);
            }
            let headers = self.headers()?;
            Ok(self.http(&url)?.request(method, url).headers(headers))
        });
        ApiRequest::new(request, limit, self.clone())
    }

    /// The HTTP client for this request. A proof or a signature is valid for one URL, so with either no redirect is
    /// followed.
    fn http(&self, url: &Url) -> Result<&reqwest::Client, ApiError> {
        let clients = match binding(&self.token) {
            None if self.registered.oauth1.is_none() => &self.http.api,
            _ => &self.http.token_endpoint,
        };
        // The application has named this API, so its name may resolve to any address.
        let nearest = self.only_api().map_or_else(|| self.registered.nearest(url), |_| Zone::Machine);
        clients.to(nearest).map_err(|error| ApiError::Request(without_url(error)))
    }

    /// Sends a request once, with a signature or a proof if the token needs one.
    pub(crate) async fn exchange(&self, request: RequestBuilder, limit: usize) -> Result<ApiResponse, ApiError> {
        let request = match (&self.registered.oauth1, &*self.token) {
            (Some(signer), Token::OAuth1(token)) => {
                let (http, request) = request.build_split();
                let request = request.map_err(|error| ApiError::Request(without_url(error)))?;
                RequestBuilder::from_parts(http, signer.sign(request, token, self.http.clock.now())?)
            }
            _ => request,
        };
        let response = match self.http.send(request, binding(&self.token), limit).await {
            Ok(response) => response,
            Err(SendError::Cut { why: ReadError::TooLarge, .. }) => return Err(ApiError::TooLarge { limit }),
            Err(SendError::Proof) => return Err(ApiError::Request("no DPoP proof could be created".into())),
            Err(SendError::Http(error) | SendError::Cut { why: ReadError::Broken(error), .. }) => {
                return Err(transport(error));
            }
        };
        let problem = match (&self.registered.oauth1, &*self.token) {
            (Some(signer), Token::OAuth1(token)) if response.status.is_client_error() => {
                signer.problem(&response.headers, &response.body, token)
            }
            _ => None,
        };
        Ok(ApiResponse::new(response, problem))
    }

    /// The headers of each call. They are for the provider's API, and may contain a key for it, so another service does not
    /// get them.
    fn usual_headers(&self) -> Option<&HeaderMap> {
        Some(&self.registered.api_headers).filter(|_| self.only_api().is_none())
    }

    fn headers(&self) -> Result<HeaderMap, ApiError> {
        let mut headers = self.usual_headers().cloned().unwrap_or_default();
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        headers.extend(self.presented(&self.token)?);
        Ok(headers)
    }

    /// The header that presents a token (RFC 6750 section 2.1, RFC 9449 section 7.1).
    fn presented(&self, token: &Token) -> Result<HeaderMap, ApiError> {
        let token = match (&self.registered.oauth1, token) {
            // The header of OAuth 1.0a is a signature, which is added when the request is complete.
            (Some(_), Token::OAuth1(_)) => return Ok(HeaderMap::new()),
            (None, Token::OAuth2(token)) => token,
            _ => return Err(ApiError::TokenType),
        };
        let is_bound = token.dpop_key.is_some();
        if !self.registered.declared.quirks.accepts_bound(&token.token_type, is_bound) {
            return Err(ApiError::TokenType);
        }
        self.registered.present(&token.access_token, is_bound).ok_or(ApiError::TokenType)
    }
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiClient").field("provider", &self.registered.declared.name).finish_non_exhaustive()
    }
}

/// The key to create proofs with, if the token is bound to one.
fn binding(token: &Token) -> Option<Binding<'_>> {
    let token = token.as_oauth2()?;
    Some(Binding { key: token.dpop_key.as_ref()?, access_token: Some(&token.access_token) })
}

fn transport(error: reqwest::Error) -> ApiError {
    if error.is_timeout() {
        ApiError::Timeout
    } else if error.is_builder() {
        ApiError::Request(without_url(error))
    } else {
        ApiError::Transport(without_url(error))
    }
}
