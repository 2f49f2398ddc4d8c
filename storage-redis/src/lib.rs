//! OAuth token storage on Redis and Valkey.
mod address;
mod cluster;
mod error;
mod layout;
mod link;
mod list;
mod purge;
mod record;
mod script;
mod servers;
mod setup;
mod storage;
#[cfg(feature = "tls")]
mod tls;

use std::time::Duration;

pub use storage::RedisStorage;

/// The prefix of all keys, unless set otherwise.
pub const DEFAULT_PREFIX: &str = "oauth-dance";

/// The longest an operation takes, unless set otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most bytes a payload may have: far less than a server takes, and more than would do it good.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;
