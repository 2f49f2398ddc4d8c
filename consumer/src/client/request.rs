use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::RequestBuilder;
use serde::Serialize;

use super::{ApiClient, ApiResponse};
use crate::error::ApiError;
use crate::protocol::dpop;

/// How many tokens one call is tried with: the one it began with, one that was stored meanwhile, and a refreshed one.
const MAX_TOKENS: u32 = 3;

/// A request that is not sent yet. What is wrong with it, [`ApiRequest::send`] returns.
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
    /// is sent again, whatever its method: the API verified the token first and did nothing else. Once a redirect was
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
        let mut left = MAX_TOKENS;
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
