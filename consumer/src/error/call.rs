use std::time::Duration;

use http::StatusCode;
use oauth_dance_core::BoxError;

use super::ConnectedRejection;

/// Why the token endpoint gave no token, or the pushed authorization request endpoint no request URI. It carries no secret,
/// no URL and no body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenEndpointError {
    /// There was no connection, so nothing was sent.
    #[error("the provider could not be reached")]
    Unreachable(#[source] BoxError),
    /// The connection broke after the request may have been sent.
    #[error("the connection to the provider broke")]
    Transport(#[source] BoxError),
    /// No whole answer came within the time-out.
    #[error("the provider did not answer in time")]
    Timeout,
    /// The provider refused (RFC 6749 section 5.2).
    #[error("the provider answered {code}")]
    #[non_exhaustive]
    Refused {
        /// The error code, such as `invalid_grant`; or what the provider has in its place.
        code: String,
        /// What the provider says about it.
        description: Option<String>,
        /// The HTTP status.
        status: StatusCode,
        /// How long to wait before trying again, as the provider asks.
        retry_after: Option<Duration>,
        /// What is at fault.
        fault: Fault,
    },
    /// An answer that is neither a token nor an error of the protocol.
    #[error("the provider answered with status {status}")]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// How long to wait before trying again, as the provider asks.
        retry_after: Option<Duration>,
    },
    /// An answer that is not a usable token, or request URI.
    #[error("the provider's answer cannot be used: {0}")]
    Answer(&'static str),
    /// No proof of the token's key could be made (RFC 9449), so nothing was sent.
    #[error("no DPoP proof could be made")]
    Proof,
    /// This process stood still for so long that another one may have redeemed the refresh token, so nothing was sent.
    #[error("the claim on the refresh token was over before the request left")]
    LeaseOver,
}

/// What is at fault if the provider refuses a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The grant: it is dead, in the words of RFC 6749 or in the provider's own; see [`DeadGrant`](crate::DeadGrant).
    Grant,
    /// The client, its credentials or its registration (`invalid_client`), also if it redeems the token of another client.
    Client,
    /// Something that passes by itself, such as a rate limit.
    Passing,
    /// The answer does not say it.
    Unknown,
}

impl TokenEndpointError {
    /// Whether the grant is dead: only the user can help, by authorizing again.
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

/// Why a call of the provider's API brought no answer. It carries neither the token nor the URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The URL is not of the provider's own origin, so the token may not go there.
    #[error("the request would take the token to another origin than the provider's")]
    ForeignOrigin,
    /// The path cannot be made a URL, or the provider has no API base to append it to.
    #[error("the path cannot be appended to the provider's API base")]
    Url,
    /// A header, the query or the body cannot be sent.
    #[error("the request cannot be built")]
    Request(#[source] BoxError),
    /// The provider of OAuth 1.0a says in a word what is wrong with the request or its signature: `timestamp_refused`
    /// where the clocks differ, `token_revoked` where the user has to authorize again.
    #[error("the provider's API refused the request: {problem}")]
    Problem {
        /// The status.
        status: StatusCode,
        /// The word, from the OAuth Problem Reporting extension.
        problem: String,
    },
    /// The token type is not one that this client can present.
    #[error("tokens of this type cannot be presented")]
    TokenType,
    /// The request failed on the way.
    #[error("the provider's API could not be reached")]
    Transport(#[source] BoxError),
    /// No whole answer came within the time-out.
    #[error("the provider's API did not answer in time")]
    Timeout,
    /// The userinfo response is for a different subject than the token.
    #[error("the userinfo response is for a different subject than the token; reconnect the account")]
    OtherSubject,
    /// The answer is larger than the limit.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body is not what was asked for.
    #[error("the answer's body cannot be read as {expected}")]
    Body {
        /// `JSON` or `text`.
        expected: &'static str,
        /// The error underneath.
        #[source]
        source: BoxError,
    },
    /// The API rejected the token, which could not be replaced: the user has to authorize again. That is stored, so the next
    /// [`Connected`](crate::Connected) says the same without a call.
    ///
    /// As a response it is what `Connected` answers: the login for a browser, 401 for a program.
    #[error("the provider's API no longer accepts the token; the user must authorize again")]
    NeedsAuthorization(ConnectedRejection),
    /// The provider answered with a status that is not a success.
    #[error("the provider's API answered with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
    },
}

impl ApiError {
    /// Whether the user has to authorize again: the API does not accept the token, which could not be replaced either.
    pub const fn needs_authorization(&self) -> bool {
        matches!(self, Self::NeedsAuthorization(_))
    }

    /// The status that fits, for a response of this application.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NeedsAuthorization(_) => StatusCode::UNAUTHORIZED,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::ForeignOrigin | Self::Url | Self::Request(_) | Self::TokenType => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}
