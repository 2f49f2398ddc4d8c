use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use oauth_dance_core::{OAuth1Token, Token};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::Url;

use crate::challenge;
use crate::connection::StoredToken;
use crate::dpop::{self, Binding};
use crate::error::ApiError;
use crate::http_client::{Answer, HttpClients, SendError, without_url};
use crate::oauth::OAuth;
use crate::oauth1;
use crate::registered::{Registered, parse_endpoint};

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
    http: HttpClients,
    registered: Arc<Registered>,
    token: Arc<Token>,
    /// Where a rejected token is replaced; `None` for one that is not stored yet.
    stored: Option<StoredToken>,
}

impl ApiClient {
    /// A client with a token that is not stored.
    pub(crate) fn new(oauth: &OAuth, registered: Arc<Registered>, token: Token) -> Self {
        Self { http: oauth.inner.http.clone(), registered, token: Arc::new(token), stored: None }
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
            Some(known) if claims.get("sub").and_then(Value::as_str) != Some(&known.subject) => {
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
            Some(base) => parse_endpoint(base.as_str()?).ok().map(Cow::Owned),
            None => self.registered.api_base.as_ref().map(Cow::Borrowed),
        }
    }

    fn request_url(&self, method: Method, url: Result<Url, ApiError>) -> ApiRequest {
        let limit = self.http.limits.max_response;
        let request = url.and_then(|url| {
            let headers = self.headers()?;
            Ok(self.http().request(method, url).headers(headers))
        });
        ApiRequest { request, limit, client: self.clone() }
    }

    /// A proof is for one URL, and so is a signature: where there is either, no redirect is followed.
    fn http(&self) -> &reqwest::Client {
        match binding(&self.token) {
            None if self.registered.oauth1.is_none() => &self.http.api,
            _ => &self.http.token_endpoint,
        }
    }

    /// An answer to a signed request, with what it says is wrong.
    async fn understood(&self, mut answer: ApiResponse, signer: &oauth1::Client, token: &OAuth1Token) -> ApiResponse {
        if !answer.status.is_client_error() {
            return answer;
        }
        answer.problem = signer.problem(&answer.headers, &answer.body, token);
        let is_refused = answer.problem.as_deref().is_some_and(oauth1::is_of_the_token);
        if let Some(stored) = self.stored.as_ref().filter(|_| is_refused)
            && let Err(error) = stored.refuse(token).await
        {
            tracing::warn!(code = error.code(), "that the API refuses the token could not be noted");
        }
        answer
    }

    fn headers(&self) -> Result<HeaderMap, ApiError> {
        let presented = match (&self.registered.oauth1, &*self.token) {
            // Its header is a signature, which the finished request gets.
            (Some(_), Token::OAuth1(_)) => HeaderMap::new(),
            (Some(_), _) => return Err(ApiError::TokenType),
            (None, token) => presented(&self.registered, token)?,
        };
        let mut headers = self.registered.api_headers.clone();
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        headers.extend(presented);
        Ok(headers)
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
    request: Result<reqwest::RequestBuilder, ApiError>,
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
    /// If the API rejects the token with 401, it is replaced by the one that is stored by now, or by a refreshed one, and
    /// the request is sent once more. A second 401 is returned. A token of OAuth 1.0a cannot be replaced: if the provider
    /// says that it is refused, the connection needs the user's authorization from now on.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn send(self) -> Result<ApiResponse, ApiError> {
        let request = self.request?;
        if let (Some(signer), Token::OAuth1(token)) = (&self.client.registered.oauth1, &*self.client.token) {
            let request = signer.sign(request, token, self.client.http.clock.now())?;
            let answer = exchange(&self.client.http, request, &self.client.token, self.limit).await?;
            return Ok(self.client.understood(answer, signer, token).await);
        }
        let again = request.try_clone();
        let ApiClient { http, token, stored, .. } = self.client;
        let answer = exchange(&http, request, &token, self.limit).await?;
        let Some(stored) = stored else { return Ok(answer) };
        let (StatusCode::UNAUTHORIZED, Some(again)) = (answer.status, again) else { return Ok(answer) };
        if dpop::rejects_proof(&answer.headers) {
            return Ok(answer);
        }
        match stored.replace_rejected(token.secret(), challenge::rejection(&answer.headers)).await {
            Ok(None) => Ok(answer),
            Ok(Some(token)) => {
                let headers = presented(&stored.registered, &token)?;
                exchange(&http, again.headers(headers), &token, self.limit).await
            }
            Err(error) => {
                tracing::info!(code = error.code(), "the API rejected the token, and there is no other one");
                Ok(answer)
            }
        }
    }

    fn change(self, change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Self {
        Self { request: self.request.map(change), ..self }
    }
}

impl fmt::Debug for ApiRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiRequest").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// An answer of a provider's API, read whole.
#[derive(Clone)]
pub struct ApiResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    problem: Option<String>,
}

impl ApiResponse {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// This answer, if its status is a success.
    ///
    /// # Errors
    /// [`ApiError::Status`], or [`ApiError::Problem`] where a provider of OAuth 1.0a says more.
    pub fn success(self) -> Result<Self, ApiError> {
        match (self.status, self.problem) {
            (status, _) if status.is_success() => Ok(Self { problem: None, ..self }),
            (status, Some(problem)) => Err(ApiError::Problem { status, problem }),
            (status, None) => Err(ApiError::Status { status }),
        }
    }

    /// The body as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as text.
    ///
    /// # Errors
    /// [`ApiError::Body`] if it is not UTF-8.
    pub fn text(&self) -> Result<String, ApiError> {
        let text = std::str::from_utf8(&self.body);
        text.map(str::to_owned).map_err(|error| ApiError::Body { expected: "text", source: error.into() })
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// [`ApiError::Body`] if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| ApiError::Body { expected: "JSON", source: error.into() })
    }
}

impl fmt::Debug for ApiResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiResponse").field("status", &self.status).field("bytes", &self.body.len()).finish()
    }
}

async fn exchange(
    http: &HttpClients,
    request: reqwest::RequestBuilder,
    token: &Token,
    limit: usize,
) -> Result<ApiResponse, ApiError> {
    match http.send(request, binding(token), limit).await {
        Ok(Answer { status, headers, body }) => Ok(ApiResponse { status, headers, body, problem: None }),
        Err(SendError::TooLarge) => Err(ApiError::TooLarge { limit }),
        Err(SendError::Proof) => Err(ApiError::Request("no DPoP proof could be made".into())),
        Err(SendError::Http(error)) => Err(transport(error)),
    }
}

/// What a call is proved with, where the token is bound to a key.
fn binding(token: &Token) -> Option<Binding<'_>> {
    let token = token.as_oauth2()?;
    Some(Binding { key: token.dpop_key.as_ref()?, access_token: Some(&token.access_token) })
}

/// The header that presents a token (RFC 6750 section 2.1, RFC 9449 section 7.1).
fn presented(registered: &Registered, token: &Token) -> Result<HeaderMap, ApiError> {
    let token = token.as_oauth2().ok_or(ApiError::TokenType)?;
    let is_bound = token.dpop_key.is_some();
    if !registered.quirks.accepts_bound(&token.token_type, is_bound) {
        return Err(ApiError::TokenType);
    }
    registered.present(&token.access_token, is_bound).ok_or(ApiError::TokenType)
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
