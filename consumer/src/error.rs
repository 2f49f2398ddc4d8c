use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use oauth_dance_core::{BoxError, DeadReason, KeyError, RefreshError, StorageError, Timestamp, TokensError};

use crate::openid::error::{DiscoveryError, IdTokenError};

const NO_REQUEST_STORAGE: &str = "the request brings no token storage; is the layer that does, such as `CookieTokens` or \
     `SessionTokens`, installed, outside of these routes?";

/// Why [`OAuthBuilder::build`](crate::OAuthBuilder::build) refuses a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A required field of a provider is missing.
    #[error("provider {provider}: {field} is missing")]
    Missing {
        /// The provider's name.
        provider: String,
        /// The field.
        field: &'static str,
    },
    /// A field of a provider has a value that cannot be used.
    #[error("provider {provider}: {field} {problem}")]
    Invalid {
        /// The provider's name.
        provider: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two registrations have one name.
    #[error("two providers are called {provider}; name one of them differently")]
    DuplicateProvider {
        /// The name.
        provider: String,
    },
    /// There is no preset of that name.
    #[error("provider {provider}: there is no preset {preset:?}")]
    UnknownPreset {
        /// The provider's name.
        provider: String,
        /// The preset asked for.
        preset: String,
    },
    /// An environment variable that should hold a credential is not set.
    #[error("the environment variable {variable} is not set")]
    MissingVariable {
        /// Its name.
        variable: String,
    },
    /// The storage given as a ledger cannot keep two requests apart.
    #[error("{storage} cannot be a ledger, for it has no atomic writes")]
    Ledger {
        /// Its name.
        storage: &'static str,
    },
    /// The application's own base URL cannot be used.
    #[error("the base URL {problem}")]
    BaseUrl {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A path setting cannot be used.
    #[error("the {which} path must start with / and contain {{provider}} once")]
    Path {
        /// Which path.
        which: &'static str,
    },
    /// Nothing tells who the user is.
    #[error("nothing tells who the user is; call `user`, `users` or `each_browser_a_user` on the builder")]
    NoUsers,
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
    Http(#[source] BoxError),
}

impl ConfigError {
    pub(crate) fn missing(provider: &str, field: &'static str) -> Self {
        Self::Missing { provider: provider.to_owned(), field }
    }

    pub(crate) fn invalid(provider: &str, field: &'static str, problem: &'static str) -> Self {
        Self::Invalid { provider: provider.to_owned(), field, problem }
    }
}

/// Why a login did not come to its end. [`Hooks::failed`](crate::Hooks::failed) may answer it; otherwise the visitor gets
/// a plain page with [`LoginError::status`].
///
/// Nothing in it is a secret. Text that came from the provider or the query is capped and reduced to printable ASCII,
/// but still must be escaped in HTML.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// No provider of that name is configured.
    #[error("no provider of that name is configured")]
    UnknownProvider,
    /// Another site sent the browser here to change who is connected.
    #[error("the request came from another site")]
    CrossSite,
    /// The browser only looks ahead; the callback was not used up.
    #[error("the page was only prefetched")]
    Prefetch,
    /// The request lacks something, has it twice, or has too much of it.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// This browser started no login with that `state`, or has finished it.
    #[error("this browser has no login under way that this callback belongs to; start again")]
    UnknownAttempt,
    /// The login was started too long ago.
    #[error("the login took too long; start again")]
    Expired,
    /// The callback was used before, as with the browser's back button.
    #[error("this callback was used before")]
    Spent,
    /// Somebody else is signed in now than when the login was started.
    #[error("another user is signed in now than when the login was started")]
    UserChanged,
    /// Tokens are kept in a storage of each request, and this request brings none.
    #[error("{NO_REQUEST_STORAGE}")]
    NoRequestStorage,
    /// Nobody is signed in, and no hook said whose token it is.
    #[error("nobody is signed in to connect the account to")]
    NoUser,
    /// `iss` in the callback is not the provider's issuer (RFC 9207).
    #[error("the callback came from another authorization server")]
    IssuerMismatch,
    /// The user, or the provider for them, said no (RFC 6749 section 4.1.2.1, `access_denied`).
    #[error("access was denied at the provider")]
    Denied,
    /// The provider reported another error in the callback (RFC 6749 section 4.1.2.1).
    #[error("the provider reported the error {code}")]
    Provider {
        /// The error code.
        code: String,
        /// What the provider says about it.
        description: Option<String>,
    },
    /// The provider did not take the pushed authorization request (RFC 9126 section 2.3), so the browser was not sent there.
    #[error("the pushed authorization request failed")]
    PushedRequest(#[source] TokenEndpointError),
    /// The token request failed.
    #[error("the token request failed")]
    Token(#[from] TokenEndpointError),
    /// The provider's endpoints are left to its metadata, which is not there.
    #[error("the provider's metadata could not be fetched")]
    Discovery(#[from] DiscoveryError),
    /// The provider's ID token is not believed, so nothing was stored.
    #[error("the provider's ID token was not accepted")]
    IdToken(#[from] IdTokenError),
    /// The token storage failed.
    #[error("the token storage failed")]
    Storage(#[from] TokensError),
    /// It could not be told who is signed in.
    #[error("it could not be told who is signed in")]
    Users(#[source] BoxError),
    /// The application's hook failed.
    #[error("a login hook failed")]
    Hook(#[source] BoxError),
    /// A hook set a parameter that belongs to the protocol.
    #[error("a login hook may not set the parameter {parameter}")]
    ReservedParameter {
        /// Its name.
        parameter: String,
    },
    /// The user's identifier cannot be a part of a storage key.
    #[error("the user's identifier cannot be used")]
    Key(#[from] KeyError),
}

impl LoginError {
    /// A short name that stays the same, for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownProvider => "unknown_provider",
            Self::CrossSite => "cross_site",
            Self::Prefetch => "prefetch",
            Self::Malformed(_) => "malformed_request",
            Self::UnknownAttempt => "unknown_attempt",
            Self::Expired => "expired",
            Self::Spent => "spent",
            Self::UserChanged => "user_changed",
            Self::NoRequestStorage => "no_request_storage",
            Self::NoUser => "no_user",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::Denied => "denied",
            Self::Provider { .. } => "provider_error",
            Self::PushedRequest(_) => "pushed_request_failed",
            Self::Token(_) => "token_request_failed",
            Self::Discovery(_) => "discovery_failed",
            Self::IdToken(_) => "id_token_refused",
            Self::Storage(_) => "storage_failed",
            Self::Users(_) => "users_failed",
            Self::Hook(_) => "hook_failed",
            Self::ReservedParameter { .. } => "reserved_parameter",
            Self::Key(_) => "invalid_user",
        }
    }

    /// The status that fits.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownProvider => StatusCode::NOT_FOUND,
            Self::CrossSite | Self::Denied => StatusCode::FORBIDDEN,
            Self::Prefetch => StatusCode::TOO_EARLY,
            Self::Malformed(_) | Self::UnknownAttempt | Self::Expired | Self::IssuerMismatch => StatusCode::BAD_REQUEST,
            Self::Spent | Self::UserChanged => StatusCode::CONFLICT,
            Self::NoUser => StatusCode::UNAUTHORIZED,
            Self::Provider { .. } | Self::Discovery(_) | Self::IdToken(_) => StatusCode::BAD_GATEWAY,
            Self::PushedRequest(error) | Self::Token(error) => error.status(),
            Self::Storage(error) => storage_status(error),
            Self::NoRequestStorage | Self::Users(_) | Self::Hook(_) | Self::ReservedParameter { .. } | Self::Key(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

/// Why the token endpoint gave no token, or the pushed authorization request endpoint no request URI. It carries no secret, no URL and no body.
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
    Refused {
        /// The error code, such as `invalid_grant`.
        code: String,
        /// What the provider says about it.
        description: Option<String>,
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
}

impl TokenEndpointError {
    /// Whether the grant is dead: only the user can help, by authorizing again.
    pub fn needs_authorization(&self) -> bool {
        // The second is GitHub's own.
        matches!(self, Self::Refused { code, .. } if code == "invalid_grant" || code == "bad_refresh_token")
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

/// Why there is no client to call the provider with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No provider of that name is configured.
    #[error("no provider called {0:?} is configured")]
    UnknownProvider(String),
    /// The user has not connected an account.
    #[error("no account is connected")]
    NotConnected,
    /// The grant is dead or has run out, and the user must authorize again. The stored token was left as it is.
    #[error("the user must authorize again: {}", .reason.describe())]
    NeedsAuthorization {
        /// Why.
        reason: DeadReason,
        /// Since when that is known.
        since: Timestamp,
    },
    /// The access token has expired and could not be refreshed for now. The stored token was left as it is.
    #[error("the token could not be refreshed ({cause}); it is tried again later")]
    BackingOff {
        /// When it is tried again.
        until: Timestamp,
        /// What failed.
        cause: String,
    },
    /// Another process refreshes the token and takes too long.
    #[error("the token is being refreshed elsewhere, and that takes too long")]
    Busy,
    /// The provider's metadata is not there, and it is needed.
    #[error("the provider's metadata could not be fetched")]
    Discovery(#[from] DiscoveryError),
    /// The token storage failed.
    #[error("the token storage failed")]
    Storage(#[source] Arc<TokensError>),
    /// Tokens are kept in a storage of each request, and this request brings none.
    #[error("{NO_REQUEST_STORAGE}")]
    NoRequestStorage,
    /// The stored token is of another kind than this provider's.
    #[error("the stored token is of another protocol than the provider's")]
    WrongKind,
    /// It could not be told who is signed in.
    #[error("it could not be told who is signed in")]
    Users(#[source] BoxError),
    /// The user's identifier cannot be a part of a storage key.
    #[error("the user's identifier cannot be used")]
    Key(#[from] KeyError),
    /// The refresh was cut short, because the runtime shuts down.
    #[error("the refresh was cut short")]
    Interrupted,
}

impl ConnectError {
    /// Whether a login would help.
    pub const fn needs_login(&self) -> bool {
        matches!(self, Self::NotConnected | Self::NeedsAuthorization { .. })
    }

    /// A short name that stays the same, for logs and JSON answers.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownProvider(_) => "unknown_provider",
            Self::NotConnected => "not_connected",
            Self::NeedsAuthorization { .. } => "needs_authorization",
            Self::BackingOff { .. } => "backing_off",
            Self::Busy => "busy",
            Self::Discovery(_) => "discovery_failed",
            Self::Storage(_) => "storage_failed",
            Self::NoRequestStorage => "no_request_storage",
            Self::WrongKind => "wrong_kind",
            Self::Users(_) => "users_failed",
            Self::Key(_) => "invalid_user",
            Self::Interrupted => "interrupted",
        }
    }

    /// The status that fits.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotConnected | Self::NeedsAuthorization { .. } => StatusCode::UNAUTHORIZED,
            Self::UnknownProvider(_) => StatusCode::NOT_FOUND,
            Self::Storage(error) => storage_status(error),
            Self::BackingOff { .. } | Self::Busy | Self::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
            Self::Discovery(_) => StatusCode::BAD_GATEWAY,
            Self::NoRequestStorage | Self::WrongKind | Self::Users(_) | Self::Key(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl From<TokensError> for ConnectError {
    fn from(error: TokensError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<RefreshError> for ConnectError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::NotConnected => Self::NotConnected,
            RefreshError::NeedsAuthorization { reason, since } => Self::NeedsAuthorization { reason, since },
            RefreshError::BackingOff { until, cause } => Self::BackingOff { until, cause },
            RefreshError::Busy => Self::Busy,
            RefreshError::WrongKind => Self::WrongKind,
            RefreshError::Storage(error) => Self::Storage(error),
            _ => Self::Interrupted,
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
    /// The userinfo endpoint tells of somebody else than the token is of.
    #[error("the userinfo endpoint tells of somebody else")]
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
    /// The provider answered with a status that is not a success.
    #[error("the provider's API answered with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
    },
}

impl ApiError {
    /// Whether the user has to authorize again, as far as the answer tells: the API does not accept the token, which could
    /// not be replaced either. An API that answers 401 for other reasons too is taken at its word.
    pub fn needs_authorization(&self) -> bool {
        match self {
            Self::Status { status } => *status == StatusCode::UNAUTHORIZED,
            Self::Problem { problem, .. } => crate::oauth1::is_of_the_token(problem),
            _ => false,
        }
    }
}

fn storage_status(error: &TokensError) -> StatusCode {
    match error {
        TokensError::Storage(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
