//! Every error type: of the configuration, a login, a missing client, and a call.
//!
//! There is one type for each situation in which an application decides something, and not one for the whole crate: a
//! handler that calls an API never has to match an error of a login. Each variant is a cause that someone can act on, and
//! each type has methods for the decisions that most applications make, such as `needs_login`, so that a match is rarely
//! needed.
//!
//! No error contains a token, a code, a secret, a URL or a body. Text from outside is truncated and reduced to printable
//! ASCII before it becomes part of an error.

mod call;
mod config;
mod connect;
mod login;
mod openid;
pub(crate) mod rejection;

use http::StatusCode;
use oauth_dance_core::{StorageError, TokensError};

pub use call::{ApiError, Fault, TokenEndpointError};
pub use config::ConfigError;
pub use connect::ConnectError;
pub use login::LoginError;
pub use openid::{DiscoveryError, IdTokenError};
pub use rejection::ConnectedRejection;
pub(crate) use rejection::Visitor;

const NO_REQUEST_STORAGE: &str = "the request has no token storage; does a layer that provides one, such as `CookieTokens` or \
     `SessionTokens`, wrap these routes?";

fn storage_status(error: &TokensError) -> StatusCode {
    match error {
        TokensError::Storage(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
