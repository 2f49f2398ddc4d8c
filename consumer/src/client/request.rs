//! A request of an API, from its path to its response.
//!
//! A request can be sent more than once, if the API rejects its token. Its body is therefore in memory: a stream could not
//! be repeated. Errors of the steps, such as an invalid path, are stored in the request and returned by
//! [`ApiRequest::send`], so that a call is one expression with one `?`.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::RequestBuilder;
use serde::Serialize;

use super::{ApiClient, ApiResponse};
use crate::error::ApiError;
use crate::protocol::dpop;

/// How many tokens one call is tried with: the original one, one that was stored in the meantime, and a refreshed one.
pub(crate) const MAX_TOKENS: u32 = 3;

/// A request that is not sent yet. [`ApiRequest::send`] returns any error in it.
///
/// ```
/// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::TestProvider};
/// use std::time::Duration;
/// use http::{HeaderValue, header};
/// use serde_json::Value;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let provider = TestProvider::start().await?;
/// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
/// #     .provider(provider.registration("acme")).anonymous_users().build()?;
/// # let alice = User::new("alice");
/// # provider.connect(&oauth, "acme", &alice).await?;
/// let acme = oauth.client("acme", &alice).await?;
/// let response = acme
///     .get("/search")
///     .query(&[("q", "milk & bread"), ("limit", "10")])
///     .header(header::ACCEPT_LANGUAGE, HeaderValue::from_static("de"))
///     .timeout(Duration::from_secs(5))
///     .max_response(64 * 1024)
///     .send()
///     .await?
///     .success()?;
/// assert_eq!(response.json::<Value>()?["path"], "/api/search");
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct ApiRequest {
    pub(super) request: Result<RequestBuilder, ApiError>,
    limit: usize,
    client: ApiClient,
}

impl ApiRequest {
    pub(super) fn new(request: Result<RequestBuilder, ApiError>, limit: usize, client: ApiClient) -> Self {
        Self { request, limit, client }
    }

    /// Adds pairs to the query: any value that serializes as a map or a list of pairs. Names and values are percent-encoded.
    /// A second call adds to the pairs of the first.
    pub fn query(self, pairs: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.query(pairs))
    }

    /// Sets a header. It replaces a header of [`Provider::api_headers`](crate::Provider::api_headers), and the default
    /// `Accept: application/json`. `Authorization`, and the provider's own header for the token if it has one, cannot be
    /// set: [`send`](Self::send) then returns [`ApiError::Request`].
    pub fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        let is_tokens = [header::AUTHORIZATION, dpop::PROOF].contains(&name);
        if is_tokens || name == self.client.registered.presentation.name {
            return Self { request: Err(ApiError::Request("this header is reserved for the token".into())), ..self };
        }
        self.change(|request| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value);
            request.headers(headers)
        })
    }

    /// Sends this value as JSON, with the matching `Content-Type`. If it cannot be serialized, [`send`](Self::send) returns
    /// [`ApiError::Request`].
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.json(body))
    }

    /// Sends this value as a form (`application/x-www-form-urlencoded`): a map or a list of pairs. With OAuth 1.0a, the
    /// fields are part of the signature (RFC 5849 section 3.4.1.3.1).
    pub fn form(self, body: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.form(body))
    }

    /// Sends a body unchanged, such as a file. Set its `Content-Type` with [`header`](Self::header). The body is in memory,
    /// because the request is sent again if the API rejects the token.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.change(|request| request.body(body.into()))
    }

    /// Sets the timeout of this request including its response, instead of
    /// [`OAuthBuilder::timeout`](crate::OAuthBuilder::timeout). If the API rejects the token and the request is sent again
    /// after a refresh, the timeout starts again.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|request| request.timeout(timeout))
    }

    /// Sets the size limit of this response in bytes, instead of
    /// [`OAuthBuilder::max_response`](crate::OAuthBuilder::max_response).
    pub fn max_response(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }

    /// Sends the request and reads the whole response, whatever its status.
    ///
    /// If the API rejects the token, the token is replaced by the one that is stored by now, or by a refreshed one, and the
    /// request is sent again, whatever its method: an API that rejects the token has not processed the request. If a
    /// redirect was followed, the request may have been processed, and is not sent again.
    ///
    /// A response rejects the token if it has status 401, unless it names a reason that is not the token's, such as
    /// `insufficient_scope`. Another 4xx with `invalid_token` in `WWW-Authenticate` also rejects it (RFC 6750 section 3.1
    /// requires a 401 there, but the reason is clear). After a 401 without a reason, a token that is younger than a minute
    /// is not replaced, and a token that replaced a rejected one is not replaced within ten minutes. In these cases the
    /// API's response is returned.
    ///
    /// If the token is at fault and cannot be replaced, the connection needs the user's authorization from then on
    /// ([`DeadReason::Rejected`](crate::DeadReason::Rejected)), and [`ApiResponse::success`] returns
    /// [`ApiError::NeedsAuthorization`]. If the token can never be refreshed and the API gave no reason, this happens only
    /// if the provider's userinfo endpoint rejects the token too.
    ///
    /// # Errors
    /// [`ApiError`] if there is no complete response: the request is invalid, the provider could not be reached, or a
    /// limit was exceeded. A status such as 404 is not an error here, but one of [`ApiResponse::success`].
    ///
    /// # Cancel safety
    /// If this future is dropped, the provider may or may not have processed the request. A refresh in flight completes in
    /// its own task, and its token is stored.
    pub async fn send(self) -> Result<ApiResponse, ApiError> {
        let Self { request, limit, mut client } = self;
        let mut request = request?;
        let mut left = MAX_TOKENS;
        loop {
            let again = request.try_clone();
            let response = client.exchange(request, limit).await?;
            left -= 1;
            match (client.replacement(&response).await, again) {
                (Ok(Some(token)), Some(again)) if !response.is_redirected && left > 0 => {
                    request = again.headers(client.presented(&token)?);
                    client.token = token;
                }
                (Ok(_), _) => return Ok(response),
                (Err(rejection), _) => return Ok(response.rejected(rejection)),
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
