use std::fmt;

use axum::body::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ConnectedRejection};
use crate::protocol::http::HttpResponse;

/// A complete response of a provider's API.
#[derive(Clone)]
pub struct ApiResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// The problem that a provider of OAuth 1.0a reported.
    pub(crate) problem: Option<String>,
    pub(crate) is_redirected: bool,
    /// Set if the token was rejected and the user has to authorize again.
    rejection: Option<ConnectedRejection>,
}

impl ApiResponse {
    pub(crate) fn new(response: HttpResponse, problem: Option<String>) -> Self {
        let HttpResponse { status, headers, body, is_redirected } = response;
        Self { status, headers, body, problem, is_redirected, rejection: None }
    }

    /// The same response, with what it means for the connection.
    pub(crate) fn rejected(self, rejection: ConnectedRejection) -> Self {
        Self { rejection: Some(rejection), ..self }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// This response, if its status is a success.
    ///
    /// # Errors
    /// [`ApiError::NeedsAuthorization`] if the API rejected the token and it could not be replaced; [`ApiError::Problem`] if
    /// a provider of OAuth 1.0a reported one; [`ApiError::Status`] otherwise.
    pub fn success(self) -> Result<Self, ApiError> {
        match (self.status, self.rejection, self.problem) {
            (status, _, _) if status.is_success() => Ok(Self { rejection: None, problem: None, ..self }),
            (_, Some(rejection), _) => Err(ApiError::NeedsAuthorization(rejection)),
            (status, None, Some(problem)) => Err(ApiError::Problem { status, problem }),
            (status, None, None) => Err(ApiError::Status { status }),
        }
    }

    /// The body, unchanged.
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

    /// The body, parsed as JSON.
    ///
    /// # Errors
    /// [`ApiError::Body`] if it is not JSON of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| ApiError::Body { expected: "JSON", source: error.into() })
    }
}

impl fmt::Debug for ApiResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiResponse").field("status", &self.status).field("bytes", &self.body.len()).finish()
    }
}
