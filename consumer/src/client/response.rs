//! A response of an API, read completely.
//!
//! The body is read before the response is returned, within the timeout and up to the size limit. The caller can therefore
//! not forget either, and a response that rejects the token is recognized by its body too.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ConnectedRejection};
use crate::protocol::http::HttpResponse;

/// A complete response of a provider's API, whatever its status. [`success`](Self::success) turns an unexpected status into
/// an error:
///
/// ```
/// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::TestProvider};
/// use oauth_dance::ApiError;
/// use oauth_dance::testing::{Endpoint, ScriptedResponse};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Note {
///     text: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let provider = TestProvider::start().await?;
/// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
/// #     .provider(provider.registration("acme")).anonymous_users().build()?;
/// # let alice = User::new("alice");
/// # provider.connect(&oauth, "acme", &alice).await?;
/// # let acme = oauth.client("acme", &alice).await?;
/// # provider.next_response(Endpoint::Api, ScriptedResponse::json(serde_json::json!({ "text": "buy milk" })));
/// # provider.next_response(Endpoint::Api, ScriptedResponse::status(404));
/// let note: Note = acme.get("/notes/1").send().await?.success()?.json()?;
/// assert_eq!(note.text, "buy milk");
///
/// // A status with a meaning is handled before `success`.
/// let response = acme.get("/notes/2").send().await?;
/// let note = if response.status() == 404 { None } else { Some(response.success()?.json::<Note>()?) };
/// assert!(note.is_none());
/// # provider.next_response(Endpoint::Api, ScriptedResponse::status(500));
///
/// let failed = acme.get("/notes/3").send().await?.success();
/// assert!(matches!(failed, Err(ApiError::Status { status }) if status == 500));
/// # Ok(())
/// # }
/// ```
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

    /// The status of the last response, after any redirects and any repetition with another token.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers, for example `link` with the URL of the next page, or `retry-after`. They come from the provider, so
    /// validate their values.
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

    /// The body, unchanged, for formats other than text and JSON.
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as text. It must be UTF-8, whatever `Content-Type` says.
    ///
    /// # Errors
    /// [`ApiError::Body`] if it is not UTF-8.
    pub fn text(&self) -> Result<String, ApiError> {
        let text = std::str::from_utf8(&self.body);
        text.map(str::to_owned).map_err(|error| ApiError::Body { expected: "text", source: error.into() })
    }

    /// The body, parsed as JSON into any type that implements [`Deserialize`](serde::Deserialize), whatever `Content-Type`
    /// says. To read members of an unknown document, use [`serde_json::Value`].
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
