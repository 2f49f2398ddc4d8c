//! Errors of requests to a provider: to its token endpoint, and to its API.
//!
//! For a token request, the most important property is whether the provider may have processed it. The variants are
//! therefore divided by that: nothing was sent, it is not known, or the provider responded.

use std::time::Duration;

use http::StatusCode;
use oauth_dance_core::BoxError;

use super::ConnectedRejection;

/// Why the token endpoint issued no token, or the pushed authorization request endpoint no request URI. It contains no
/// secret, no URL and no body.
///
/// Applications see it in [`LoginError::Token`](crate::LoginError::Token) and
/// [`LoginError::PushedRequest`](crate::LoginError::PushedRequest). A failed refresh is reported as
/// [`ConnectError`](crate::ConnectError) instead, because it is retried.
///
/// | variant | was the request processed? |
/// | --- | --- |
/// | [`Unreachable`](Self::Unreachable), [`Proof`](Self::Proof), [`LeaseExpired`](Self::LeaseExpired) | no, nothing was sent |
/// | [`Transport`](Self::Transport), [`Timeout`](Self::Timeout) | unknown |
/// | [`Refused`](Self::Refused) | no, for the reason that the provider gives |
/// | [`Status`](Self::Status), [`InvalidResponse`](Self::InvalidResponse) | possibly; the response does not say |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenEndpointError {
    /// The connection could not be opened, so nothing was sent.
    #[error("the provider could not be reached")]
    Unreachable(#[source] BoxError),
    /// The connection broke, possibly after the request was sent.
    #[error("the connection to the provider broke")]
    Transport(#[source] BoxError),
    /// The response did not arrive completely within the timeout.
    #[error("the provider did not respond in time")]
    Timeout,
    /// The provider refused the request (RFC 6749 section 5.2).
    #[error("the provider responded with the error {code}")]
    #[non_exhaustive]
    Refused {
        /// The error code, such as `invalid_grant`, or the provider's substitute for one.
        code: String,
        /// The provider's description of the error.
        description: Option<String>,
        /// The HTTP status.
        status: StatusCode,
        /// How long to wait before the next try, if the provider specifies it.
        retry_after: Option<Duration>,
        /// What caused the refusal.
        fault: Fault,
    },
    /// The response is neither a token nor an error of the protocol.
    #[error("the provider responded with status {status}")]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// How long to wait before the next try, if the provider specifies it.
        retry_after: Option<Duration>,
    },
    /// The response contains no usable token, or no usable request URI.
    #[error("the provider's response is not usable: {0}")]
    InvalidResponse(&'static str),
    /// No proof of possession of the token's key could be created (RFC 9449), so nothing was sent.
    #[error("no DPoP proof could be created")]
    Proof,
    /// This process was suspended for so long that another one may have redeemed the refresh token, so nothing was sent.
    #[error("the claim on the refresh token expired before the request was sent")]
    LeaseExpired,
}

/// Why a provider refused a token request: who can do something about it.
///
/// | fault | who acts |
/// | --- | --- |
/// | [`Grant`](Self::Grant) | the user, with a new login |
/// | [`Client`](Self::Client) | the operator, who corrects the registration or the credentials |
/// | [`Temporary`](Self::Temporary) | no one; the request is repeated later |
/// | [`Unknown`](Self::Unknown) | the operator, if it continues: the log contains the error code |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The grant is dead, by the code of RFC 6749 or by the provider's own; see [`ErrorPattern`](crate::ErrorPattern).
    Grant,
    /// The client, its credentials or its registration (`invalid_client`). Also if the token was issued to another client.
    Client,
    /// A temporary condition, such as a rate limit.
    Temporary,
    /// The response does not show the cause.
    Unknown,
}

impl TokenEndpointError {
    /// Whether the grant is dead, so that the user has to authorize again. In a login, it means that the code is invalid or
    /// was redeemed before.
    pub fn needs_authorization(&self) -> bool {
        matches!(self, Self::Refused { fault: Fault::Grant, .. })
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

/// Why a call to the provider's API failed. It contains neither the token nor the URL.
///
/// It implements [`IntoResponse`](axum::response::IntoResponse), so a handler can return it with `?`: the response is 502,
/// or 504 after a timeout, or 500 if the request could not be built. After [`NeedsAuthorization`](Self::NeedsAuthorization)
/// it is the login.
///
/// ```
/// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::{Endpoint, ScriptedResponse, TestProvider}};
/// use oauth_dance::{ApiClient, ApiError};
///
/// /// How many notes the user has, or `None` if the provider cannot say at the moment.
/// async fn count(acme: &ApiClient) -> Result<Option<u64>, ApiError> {
///     match acme.get("/notes/count").send().await.and_then(|response| response.success()) {
///         Ok(response) => response.json().map(Some),
///         // The page is useful without the number.
///         Err(ApiError::Timeout | ApiError::Transport(_)) => Ok(None),
///         Err(ApiError::Status { status }) if status.is_server_error() => Ok(None),
///         Err(error) => Err(error),
///     }
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
/// # provider.next_response(Endpoint::Api, ScriptedResponse::json(3.into()));
/// assert_eq!(count(&acme).await?, Some(3));
/// # provider.next_response(Endpoint::Api, ScriptedResponse::closed());
/// // The provider closes the connection without a response.
/// assert_eq!(count(&acme).await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The URL is not of the provider's own origin, so the token must not be sent there.
    #[error("the request would send the token to an origin that is not the provider's")]
    ForeignOrigin,
    /// The path does not make a valid URL, or the provider has no API base to append it to.
    #[error("the path cannot be appended to the provider's API base")]
    Url,
    /// A header, the query or the body is not valid, for example because a value cannot be serialized. Nothing was sent.
    #[error("the request could not be built")]
    Request(#[source] BoxError),
    /// A provider of OAuth 1.0a reported what is wrong with the request or its signature: for example `timestamp_refused` if
    /// the clocks differ, or `token_revoked` if the user has to authorize again.
    #[error("the provider's API refused the request: {problem}")]
    Problem {
        /// The status.
        status: StatusCode,
        /// The problem, as the OAuth Problem Reporting extension names it.
        problem: String,
    },
    /// This client cannot present tokens of this type: it requires a proof that is not supported, or the provider was
    /// changed from OAuth 1.0a to 2.0 or back. See [`Quirks::token_types`](crate::Quirks::token_types).
    #[error("this client cannot present tokens of this type")]
    TokenType,
    /// The request failed before the response was complete: no connection, or one that broke. The API may have processed the
    /// request, so repeat it only if it can be processed twice.
    #[error("the provider's API could not be reached")]
    Transport(#[source] BoxError),
    /// The response did not arrive completely within the timeout. The API may have processed the request.
    #[error("the provider's API did not respond in time")]
    Timeout,
    /// The userinfo response is for a different subject than the token.
    #[error("the userinfo response is for a different subject than the token; reconnect the account")]
    OtherSubject,
    /// The response is larger than the limit; see [`ApiRequest::max_response`](crate::ApiRequest::max_response).
    #[error("the response is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body is not in the expected format.
    #[error("the response body cannot be read as {expected}")]
    Body {
        /// `JSON` or `text`.
        expected: &'static str,
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// The API rejected the token, and no replacement was available: the user has to authorize again. This is stored, so the
    /// next [`Connected`](crate::Connected) reports it without a call.
    ///
    /// As a response it is the same as that of `Connected`: a redirect to the login for a browser, 401 for a program.
    #[error("the provider's API no longer accepts the token; the user must authorize again")]
    NeedsAuthorization(ConnectedRejection),
    /// The provider responded with a status that is not a success. To read the body of such a response, do not call
    /// [`ApiResponse::success`](crate::ApiResponse::success).
    #[error("the provider's API responded with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
    },
}

impl ApiError {
    /// Whether the user has to authorize again: the API rejected the token, and no replacement was available.
    pub const fn needs_authorization(&self) -> bool {
        matches!(self, Self::NeedsAuthorization(_))
    }

    /// The matching status for a response of this application: 504 after a timeout, 401 if the user has to authorize again,
    /// 500 for an error of the application itself, and 502 otherwise.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NeedsAuthorization(_) => StatusCode::UNAUTHORIZED,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::ForeignOrigin | Self::Url | Self::Request(_) | Self::TokenType => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}
