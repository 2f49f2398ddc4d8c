//! What can fail.

use oauth_dance_core::{BoxError, KeyError, RefreshError, StorageError, TokensError};
use rmcp::transport::auth::AuthError;

/// Why a login, a token or a call is not available.
///
/// | error | what to do |
/// | --- | --- |
/// | [`Token`](Self::Token) | see [`RefreshError`]; [`needs_login`](Self::needs_login) says whether the user has to log in |
/// | [`UnknownLogin`](Self::UnknownLogin), [`Denied`](Self::Denied) | offer the login again |
/// | [`Sdk`](Self::Sdk), [`TokenRequest`](Self::TokenRequest) | offer the login again later |
/// | [`WrongIssuer`](Self::WrongIssuer) | report it: another server may be trying to obtain a code |
/// | all others | correct the call or the configuration |
///
/// No variant contains a token, a code or a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// There is no usable token.
    #[error(transparent)]
    Token(#[from] RefreshError),
    /// The storage failed.
    #[error("the token storage failed")]
    Storage(#[source] TokensError),
    /// The user or the tenant is empty.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A URL cannot be used.
    #[error("{0}")]
    InvalidUrl(String),
    /// The Rust SDK failed to find the authorization server, or to register at it.
    #[error("the MCP server's authorization server could not be used")]
    Sdk(#[source] Box<AuthError>),
    /// The authorization server's metadata cannot be used.
    #[error("the metadata of the authorization server cannot be used: {0}")]
    Metadata(&'static str),
    /// No login with this state is in progress for this user at this server. It has expired or was already finished, or it
    /// was started by another user.
    #[error("no such login is in progress for this user; it has expired, was finished before, or is another user's")]
    UnknownLogin,
    /// The user or the authorization server has rejected the login. The text comes from the redirect, so escape it.
    #[error("the authorization server rejected the login: {0}")]
    Denied(String),
    /// The callback names another issuer than the one that the login was started at, or none although the authorization
    /// server always sends one (RFC 9207 section 2.4).
    #[error("the callback is not from the authorization server at which the login was started")]
    WrongIssuer,
    /// The authorization server did not exchange the code for a token.
    #[error("the authorization code was not exchanged for a token: {0}")]
    TokenRequest(String),
    /// The login was interrupted, because the runtime is shutting down.
    #[error("the login was interrupted because the runtime is shutting down")]
    Interrupted,
    /// The HTTP client could not be created.
    #[error("the HTTP client could not be created")]
    Http(#[source] BoxError),
}

impl McpError {
    /// Whether the user has to log in at the MCP server, because no token is stored or it can no longer be used.
    ///
    /// ```
    /// use oauth_dance_core::RefreshError;
    /// use oauth_dance_mcp::McpError;
    ///
    /// assert!(McpError::from(RefreshError::NotConnected).needs_login());
    /// assert!(!McpError::from(RefreshError::Busy).needs_login());
    /// ```
    pub fn needs_login(&self) -> bool {
        matches!(self, Self::Token(RefreshError::NotConnected | RefreshError::NeedsAuthorization { .. }))
    }
}

impl From<TokensError> for McpError {
    fn from(error: TokensError) -> Self {
        Self::Storage(error)
    }
}

impl From<StorageError> for McpError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<AuthError> for McpError {
    fn from(error: AuthError) -> Self {
        Self::Sdk(Box::new(error))
    }
}

/// An error with its causes, for the SDK, whose errors are texts.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What an error means to the SDK. An error that needs a login is `None`.
pub(crate) fn to_sdk(error: &McpError) -> Option<AuthError> {
    if error.needs_login() {
        return None;
    }
    let text = with_causes(error);
    Some(match error {
        McpError::Token(RefreshError::BackingOff { .. } | RefreshError::Busy | RefreshError::Interrupted) => {
            AuthError::TokenRefreshFailed(text)
        }
        _ => AuthError::CredentialStoreError(text),
    })
}
