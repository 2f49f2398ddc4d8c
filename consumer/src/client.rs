use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use oauth_dance_core::OAuth2Token;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::error::ApiError;
use crate::http_client::{HttpClients, ReadError, read_body, without_url};
use crate::oauth::OAuth;
use crate::registered::Registered;

/// Calls a provider's API for one user.
///
/// Paths are appended to the provider's API base. The token travels in the `Authorization` header (RFC 6750 section 2.1),
/// to the provider's own origin only: another origin is [`ApiError::ForeignOrigin`], and a redirect to one is not followed
/// but returned. Every call has a time-out and a limit on the answer's size.
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
    token: Arc<OAuth2Token>,
}

impl ApiClient {
    pub(crate) fn new(oauth: &OAuth, registered: Arc<Registered>, token: OAuth2Token) -> Self {
        Self { http: oauth.inner.http.clone(), registered, token: Arc::new(token) }
    }

    /// The token that calls carry. Its scope is what was granted.
    pub fn token(&self) -> &OAuth2Token {
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
                let base = self.registered.api_base.as_ref().ok_or(ApiError::Url)?;
                let base = base.as_str().trim_end_matches('/');
                Url::parse(&format!("{base}/{}", path.trim_start_matches('/'))).map_err(|_| ApiError::Url)?
            }
        };
        let bare = url.username().is_empty() && url.password().is_none();
        if bare && self.registered.owns(&url.origin()) { Ok(url) } else { Err(ApiError::ForeignOrigin) }
    }

    fn request_url(&self, method: Method, url: Result<Url, ApiError>) -> ApiRequest {
        let limit = self.http.limits.max_response;
        let request = url.and_then(|url| {
            let headers = self.headers()?;
            Ok(self.http.api.request(method, url).headers(headers))
        });
        ApiRequest { request, limit }
    }

    fn headers(&self) -> Result<HeaderMap, ApiError> {
        if !self.token.token_type.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::TokenType);
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", self.token.access_token.expose()))
            .map_err(|_| ApiError::TokenType)?;
        authorization.set_sensitive(true);
        let mut headers = self.registered.api_headers.clone();
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        headers.insert(header::AUTHORIZATION, authorization);
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
}

impl ApiRequest {
    /// Adds pairs to the query: anything that serializes as a map or a list of pairs.
    pub fn query(self, pairs: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.query(pairs))
    }

    /// Adds a header. `Authorization` is the token's and cannot be set.
    pub fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        if name == header::AUTHORIZATION {
            return Self { request: Err(ApiError::Request("the token sets Authorization".into())), ..self };
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

    /// Sets how long this call may take as a whole, in place of [`OAuthBuilder::timeout`](crate::OAuthBuilder::timeout).
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
    /// # Errors
    /// [`ApiError`].
    pub async fn send(self) -> Result<ApiResponse, ApiError> {
        let request = self.request?;
        let response = request.send().await.map_err(transport)?;
        let (status, headers) = (response.status(), response.headers().clone());
        match read_body(response, self.limit).await {
            Ok(body) => Ok(ApiResponse { status, headers, body }),
            Err(ReadError::TooLarge) => Err(ApiError::TooLarge { limit: self.limit }),
            Err(ReadError::Broken(error)) => Err(transport(error)),
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
    /// [`ApiError::Status`].
    pub fn success(self) -> Result<Self, ApiError> {
        if self.status.is_success() { Ok(self) } else { Err(ApiError::Status { status: self.status }) }
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

fn transport(error: reqwest::Error) -> ApiError {
    if error.is_timeout() {
        ApiError::Timeout
    } else if error.is_builder() {
        ApiError::Request(without_url(error))
    } else {
        ApiError::Transport(without_url(error))
    }
}
