//! Every error type: of the configuration, a login, a missing client, and a call.

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

const NO_REQUEST_STORAGE: &str = "the request has no token storage; is the layer that provides one, such as `CookieTokens` or \
     `SessionTokens`, installed outside of these routes?";

fn storage_status(error: &TokensError) -> StatusCode {
    match error {
        TokensError::Storage(StorageError::Unavailable { .. } | StorageError::Ambiguous { .. }) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
