//! What can go wrong, by where: in the configuration, at a login, for a handler that wants a client, in a call.

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

const NO_REQUEST_STORAGE: &str = "the request brings no token storage; is the layer that does, such as `CookieTokens` or \
     `SessionTokens`, installed, outside of these routes?";

fn storage_status(error: &TokensError) -> StatusCode {
    match error {
        TokensError::Storage(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
