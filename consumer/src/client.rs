use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use oauth_dance_core::Token;
use reqwest::RequestBuilder;
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use crate::connection::StoredToken;
use crate::dpop::{self, Binding};
use crate::error::ApiError;
use crate::http_client::{HttpClients, ReadError, SendError, without_url};
use crate::oauth::OAuth;
use crate::openid::identity::subject_in;
use crate::registered::Registered;
use crate::rejection::Browser;
use crate::response::ApiResponse;

/// How many tokens one call is tried with: the one it began with, one that was stored meanwhile, and a refreshed one.
const MOST_TOKENS: u32 = 3;

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
    pub(crate) registered: Arc<Registered>,
    pub(crate) token: Arc<Token>,
    /// Where a rejected token is replaced; `None` for one that is not stored yet.
    pub(crate) stored: Option<StoredToken>,
    /// The browser whose request it is made for, if any.
    pub(crate) browser: Option<Arc<Browser>>,
}

impl ApiClient {
    /// A client with a token that is not stored.
    pub(crate) fn new(oauth: &OAuth, registered: Arc<Registered>, token: Token) -> Self {
        Self { http: oauth.inner.http.clone(), registered, token: Arc::new(token), stored: None, browser: None }
    }

    /// A client with a stored token.
    pub(crate) fn of(stored: StoredToken, token: Token) -> Self {
        let client = Self::new(&stored.oauth, Arc::clone(&stored.registered), token);
        Self { stored: Some(stored), ..client }
    }

    /// The token that calls carry. Its [scope](Token::scope) is what was granted.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The provider's name.
    pub fn provider(&self) -> &str {
        &self.registered.name
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
    /// [`ApiError::OtherSubject`] if they are of somebody else, or name nobody; [`ApiError`] as for any call. An answer that
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
        let url = self.registered.userinfo_endpoint.clone().ok_or(ApiError::Url);
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

    /// Where the API is: for this user, if the provider said so with the token, and else for everybody.
    fn api_base(&self) -> Option<Cow<'_, Url>> {
        let member = self.registered.quirks.api_base_member.as_ref();
        match member.and_then(|member| self.token.extra().get(member)) {
            Some(base) => self.registered.named_by_provider(base.as_str()?).map(Cow::Owned),
            None => self.registered.api_base.as_ref().map(Cow::Borrowed),
        }
    }

    pub(crate) fn request_url(&self, method: Method, url: Result<Url, ApiError>) -> ApiRequest {
        let limit = self.http.limits.max_response;
        let request = url.and_then(|url| {
            let headers = self.headers()?;
            Ok(self.http(&url)?.request(method, url).headers(headers))
        });
        ApiRequest { request, limit, client: self.clone() }
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
        if !self.registered.quirks.accepts_bound(&token.token_type, is_bound) {
            return Err(ApiError::TokenType);
        }
        self.registered.present(&token.access_token, is_bound).ok_or(ApiError::TokenType)
    }
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiClient").field("provider", &self.registered.name).finish_non_exhaustive()
    }
}

/// A request under way to be sent. What is wrong with it, [`ApiRequest::send`] tells.
#[must_use]
pub struct ApiRequest {
    pub(crate) request: Result<RequestBuilder, ApiError>,
    limit: usize,
    client: ApiClient,
}

impl ApiRequest {
    /// Adds pairs to the query: anything that serializes as a map or a list of pairs.
    pub fn query(self, pairs: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.query(pairs))
    }

    /// Adds a header. `Authorization`, and where the provider has another one for the token, is the token's and cannot be
    /// set.
    pub fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        let is_tokens = [header::AUTHORIZATION, dpop::PROOF].contains(&name);
        if is_tokens || name == self.client.registered.presentation.name {
            return Self { request: Err(ApiError::Request("the token sets this header".into())), ..self };
        }
        self.change(|request| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value);
            request.headers(headers)
        })
    }

    /// Sends a JSON body.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.json(body))
    }

    /// Sends a form.
    pub fn form(self, body: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.form(body))
    }

    /// Sends a body as it is.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.change(|request| request.body(body.into()))
    }

    /// Sets how long this request may take as a whole, in place of [`OAuthBuilder::timeout`](crate::OAuthBuilder::timeout).
    /// Where the API rejects the token and it is sent once more, that has as long again, after the refresh.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|request| request.timeout(timeout))
    }

    /// Sets the most bytes of this answer that are read, in place of
    /// [`OAuthBuilder::max_response`](crate::OAuthBuilder::max_response).
    pub fn max_response(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }

    /// Sends the request and reads the whole answer, whatever its status.
    ///
    /// If the API rejects the token, it is replaced by the one that is stored by now, or by a refreshed one, and the request
    /// is sent again, whatever its method: the API has looked at the token first and done nothing. Once a redirect was
    /// followed the request may have been done, and is not sent again.
    ///
    /// The API rejects the token if it answers 401, unless it names a reason that is not the token's, such as
    /// `insufficient_scope`, or if it answers another 4xx with `invalid_token` in `WWW-Authenticate` (RFC 6750 section 3.1 wants
    /// a 401 there, but the reason is clear). A 401 without a reason does not replace a token that is younger than a minute,
    /// and a token that replaced a rejected one is not replaced within ten minutes. The API's answer is returned then.
    ///
    /// If the token is at fault and cannot be replaced, the connection needs the user's authorization from now on
    /// ([`DeadReason::Rejected`](crate::DeadReason::Rejected)), and [`ApiResponse::success`] is
    /// [`ApiError::NeedsAuthorization`]. If the token can never be refreshed and the API gave no reason, the provider's
    /// userinfo endpoint is asked first whether it rejects the token too.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn send(self) -> Result<ApiResponse, ApiError> {
        let Self { request, limit, mut client } = self;
        let mut request = request?;
        let mut left = MOST_TOKENS;
        loop {
            let again = request.try_clone();
            let answer = client.exchange(request, limit).await?;
            left -= 1;
            match (client.replacement(&answer).await, again) {
                (Ok(Some(token)), Some(again)) if !answer.is_redirected && left > 0 => {
                    request = again.headers(client.presented(&token)?);
                    client.token = Arc::new(token);
                }
                (Ok(_), _) => return Ok(answer),
                (Err(rejection), _) => return Ok(answer.rejected(rejection)),
            }
        }
    }

    fn change(self, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Self {
        Self { request: self.request.map(change), ..self }
    }
}

impl fmt::Debug for ApiRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiRequest").field("limit", &self.limit).finish_non_exhaustive()
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
