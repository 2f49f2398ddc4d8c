use std::fmt;

use axum::body::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ConnectedRejection};
use crate::protocol::http::Answer;

/// An answer of a provider's API, read whole.
#[derive(Clone)]
pub struct ApiResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// What a provider of OAuth 1.0a says is wrong.
    pub(crate) problem: Option<String>,
    pub(crate) is_redirected: bool,
    /// That the token was rejected and only the user can help.
    rejection: Option<ConnectedRejection>,
}

impl ApiResponse {
    pub(crate) fn new(answer: Answer, problem: Option<String>) -> Self {
        let Answer { status, headers, body, is_redirected } = answer;
        Self { status, headers, body, problem, is_redirected, rejection: None }
    }

    /// The same answer with what it means for the connection.
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

    /// This answer, if its status is a success.
    ///
    /// # Errors
    /// [`ApiError::NeedsAuthorization`] if the API rejected the token and it could not be replaced; [`ApiError::Status`], or
    /// [`ApiError::Problem`] where a provider of OAuth 1.0a says more.
    pub fn success(self) -> Result<Self, ApiError> {
        match (self.status, self.rejection, self.problem) {
            (status, _, _) if status.is_success() => Ok(Self { rejection: None, problem: None, ..self }),
            (_, Some(rejection), _) => Err(ApiError::NeedsAuthorization(rejection)),
            (status, None, Some(problem)) => Err(ApiError::Problem { status, problem }),
            (status, None, None) => Err(ApiError::Status { status }),
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
