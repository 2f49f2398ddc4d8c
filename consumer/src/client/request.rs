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

/// How many tokens one call is tried with: the original one, one that was stored in the meantime, and a refreshed one.
const MAX_TOKENS: u32 = 3;

/// A request that is not sent yet. [`ApiRequest::send`] returns any error in it.
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

    /// Adds pairs to the query: any value that serializes as a map or a list of pairs.
    pub fn query(self, pairs: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.query(pairs))
    }

    /// Adds a header. `Authorization`, and the provider's own header for the token if it has one, cannot be set.
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

    /// Sends a JSON body.
    pub fn json(self, body: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.json(body))
    }

    /// Sends a form.
    pub fn form(self, body: &(impl Serialize + ?Sized)) -> Self {
        self.change(|request| request.form(body))
    }

    /// Sends a body unchanged.
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
    /// [`ApiError`].
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
                    client.token = Arc::new(token);
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
