//! What a handler calls a provider's API with, and where its token comes from.

mod rejected;
mod request;
mod response;
pub(crate) mod stored;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};
use oauth_dance_core::Token;
use reqwest::RequestBuilder;
use serde_json::{Map, Value};
use url::Url;

pub use self::request::ApiRequest;
pub use self::response::ApiResponse;
use self::stored::StoredToken;
use crate::error::{ApiError, Visitor};
use crate::protocol::dpop::Binding;
use crate::protocol::http::{HttpClients, ReadError, SendError, without_url};
use crate::protocol::openid::identity::subject_in;
use crate::protocol::registered::Registered;

/// Calls a provider's API for one user.
///
/// Paths are appended to the provider's API base. The token travels in the `Authorization` header (RFC 6750 section 2.1),
/// to the provider's own origin only: another origin is [`ApiError::ForeignOrigin`], and a redirect to one is not followed
/// but returned. For OAuth 1.0a each request is signed as it is sent, a form in its body included (RFC 5849 section 3.4),
/// and no redirect is followed. Every call has a time-out and a limit on the answer's size.
///
/// Where the token is bound to a key ([`Provider::dpop`](crate::Provider::dpop)), every call carries a proof of it, which is
/// for one URL: no redirect is followed then.
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
#[derive(Clone)]
pub struct ApiClient {
    pub(crate) http: HttpClients,
    pub(crate) registered: Registered,
    pub(crate) token: Arc<Token>,
    /// Where a rejected token is replaced; `None` for one that is not stored yet.
    pub(crate) stored: Option<StoredToken>,
    /// The browser whose request it is made for, if any.
    pub(crate) browser: Option<Arc<dyn Visitor>>,
}

impl ApiClient {
    /// A client with a token that is not stored.
    pub(crate) fn new(http: HttpClients, registered: Registered, token: Token) -> Self {
        Self { http, registered, token: Arc::new(token), stored: None, browser: None }
    }

    /// A client with a stored token.
    pub(crate) fn of(stored: StoredToken, token: Token) -> Self {
        let client = Self::new(stored.http.clone(), stored.registered.clone(), token);
        Self { stored: Some(stored), ..client }
    }

    /// The token that calls carry. Its [scope](Token::scope) is what was granted.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The provider's name.
    pub fn provider(&self) -> &str {
        &self.registered.declared.name
    }

    /// A `GET` request.
    pub fn get(&self, path: &str) -> ApiRequest {
        self.request(Method::GET, path)
    }

    /// A `POST` request.
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

    /// The claims of an OpenID provider's userinfo endpoint (OpenID Connect Core section 5.3), of the very subject whose ID
    /// token was verified when this account was connected: section 5.3.2 has a client compare them.
    ///
    /// # Errors
    /// [`ApiError::OtherSubject`] if they are of another subject, or name none; [`ApiError`] as for any call. An answer that
    /// is signed or encrypted (`application/jwt`) is not read.
    pub async fn userinfo_claims(&self) -> Result<Map<String, Value>, ApiError> {
        let claims: Map<String, Value> = self.userinfo().send().await?.success()?.json()?;
        match self.token.as_oauth2().and_then(|token| token.subject.as_ref()) {
            Some(known) if claims.get("sub").and_then(subject_in).as_ref() != Some(&known.subject) => {
                Err(ApiError::OtherSubject)
            }
            _ => Ok(claims),
        }
    }

    /// A `GET` request of the provider's userinfo endpoint: who the user is.
    pub fn userinfo(&self) -> ApiRequest {
        let url = self.registered.userinfo_endpoint().cloned().ok_or(ApiError::Url);
        self.request_url(Method::GET, url)
    }

    /// A request of any method. `path` is appended to the API base, with or without a slash before it, or is an absolute
    /// URL of the provider's own origin.
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
        let bare = url.username().is_empty() && url.password().is_none();
        let origin = url.origin();
        let owned = self.registered.owns(&origin) || self.api_base().is_some_and(|base| base.origin() == origin);
        if bare && owned { Ok(url) } else { Err(ApiError::ForeignOrigin) }
    }

    /// Where the API is: for this user, if the provider said so with the token, and else for all users.
    fn api_base(&self) -> Option<Cow<'_, Url>> {
        let member = self.registered.declared.quirks.api_base_member.as_ref();
        match member.and_then(|member| self.token.extra().get(member)) {
            Some(base) => self.registered.named_by_provider(base.as_str()?).map(Cow::Owned),
            None => self.registered.endpoints.api_base.as_ref().map(Cow::Borrowed),
        }
    }

    pub(crate) fn request_url(&self, method: Method, url: Result<Url, ApiError>) -> ApiRequest {
        let limit = self.http.limits.max_response;
        let request = url.and_then(|url| {
            let headers = self.headers()?;
            Ok(self.http(&url)?.request(method, url).headers(headers))
        });
        ApiRequest::new(request, limit, self.clone())
    }

    /// A proof is for one URL, and so is a signature: where there is either, no redirect is followed.
    fn http(&self, url: &Url) -> Result<&reqwest::Client, ApiError> {
        let clients = match binding(&self.token) {
            None if self.registered.oauth1.is_none() => &self.http.api,
            _ => &self.http.token_endpoint,
        };
        clients.to(self.registered.nearest(url)).map_err(|error| ApiError::Request(without_url(error)))
    }

    /// Sends a request as it is, with a signature or a proof where the token needs one.
    pub(crate) async fn exchange(&self, request: RequestBuilder, limit: usize) -> Result<ApiResponse, ApiError> {
        let request = match (&self.registered.oauth1, &*self.token) {
            (Some(signer), Token::OAuth1(token)) => signer.sign(request, token, self.http.clock.now())?,
            _ => request,
        };
        let answer = match self.http.send(request, binding(&self.token), limit).await {
            Ok(answer) => answer,
            Err(SendError::Cut { why: ReadError::TooLarge, .. }) => return Err(ApiError::TooLarge { limit }),
            Err(SendError::Proof) => return Err(ApiError::Request("no DPoP proof could be made".into())),
            Err(SendError::Http(error) | SendError::Cut { why: ReadError::Broken(error), .. }) => {
                return Err(transport(error));
            }
        };
        let problem = match (&self.registered.oauth1, &*self.token) {
            (Some(signer), Token::OAuth1(token)) if answer.status.is_client_error() => {
                signer.problem(&answer.headers, &answer.body, token)
            }
            _ => None,
        };
        Ok(ApiResponse::new(answer, problem))
    }

    fn headers(&self) -> Result<HeaderMap, ApiError> {
        let mut headers = self.registered.api_headers.clone();
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        headers.extend(self.presented(&self.token)?);
        Ok(headers)
    }

    /// The header that presents a token (RFC 6750 section 2.1, RFC 9449 section 7.1).
    fn presented(&self, token: &Token) -> Result<HeaderMap, ApiError> {
        let token = match (&self.registered.oauth1, token) {
            // Its header is a signature, which the finished request gets.
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

/// What a call is proved with, where the token is bound to a key.
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
