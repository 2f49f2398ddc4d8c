//! Tokens in an encrypted cookie.

mod chunks;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod layer;
mod records;
mod storage;

use std::fmt;
use std::time::Duration;

use oauth_dance_core::{Clock, KeyRing};

pub use layer::CookieTokensService;

/// Browsers cap what they keep at 400 days (RFC 6265bis section 5.5).
const LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);
/// nginx and Apache take a `Cookie` header of 8 KiB by default; a quarter is left for the application's own cookies.
const LIMIT: usize = 6 * 1024;

/// A layer that keeps each browser's tokens in an encrypted cookie of that browser, for an application with no storage on
/// the server.
///
/// Use it with `OAuth::per_request`, outside of its routes and of every handler that asks for tokens:
///
/// ```
/// use axum::{Router, routing::get};
/// use oauth_dance_core::KeyRing;
/// use oauth_dance_session::CookieTokens;
///
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(CookieTokens::new("https://app.example", KeyRing::generate()));
/// # let _ = app;
/// ```
///
/// The cookie is sealed with the key ring and bound to its name, `HttpOnly`, `SameSite=Lax`, and where the base URL is
/// https `Secure` with a name that starts with `__Host-`. Above 4096 bytes it goes on in further cookies, named
/// `oauth-dance-tokens.0`, `.1` and so on, which are joined only as the whole set that one response wrote. What cannot be
/// read is taken as absent, and removed from the browser unless it is sealed with a key that is missing here. A response
/// sets the cookie only where a token was written or deleted, whatever its status, and is then `Cache-Control: no-store`.
///
/// # Limits
///
/// All of a browser's tokens share [6 KiB](Self::with_limit) of the `Cookie` header, or they are refused as
/// [`TooLarge`](oauth_dance_core::StorageError::TooLarge) when written, with the old ones untouched. A token whose key is
/// longer than 256 bytes is [`KeyTooLong`](oauth_dance_core::StorageError::KeyTooLong).
///
/// What the browser keeps cannot be more than the browser can do:
///
/// * **Not atomic**: of two requests at once, the response that arrives last wins. It may bring back a token that the other
///   replaced or deleted. With a [ledger](oauth_dance_core::Refresher::with_ledger) refresh tokens are redeemed once all the
///   same, and a browser that got an older token back finds the newer one when that expires.
/// * **Not durable**: a written token is kept if its response arrives. One that is written after the response has left, or
///   after the browser has gone, is an error ([`Unsupported`](oauth_dance_core::StorageError::Unsupported)) and lost.
/// * **No revocation**: a copy of the cookie from before a logout works again when it is played back, up to the
///   [lifetime](Self::with_lifetime). Have tokens revoked at the provider when they are disconnected.
/// * **Not listable**: each request sees the tokens of its own browser only.
#[derive(Clone)]
pub struct CookieTokens {
    keys: KeyRing,
    name: String,
    https: bool,
    limit: usize,
    lifetime: Duration,
    clock: Clock,
}

impl CookieTokens {
    /// Tokens in cookies sealed with these keys, for an application that browsers reach at `base_url`.
    ///
    /// A cookie sealed by an older key of the ring is sealed again, by the first one, in the response to a request that uses
    /// its tokens. Keep an older key in the ring until the browsers have come back, or for the
    /// [lifetime](Self::with_lifetime) after its last use.
    pub fn new(base_url: &str, keys: KeyRing) -> Self {
        // Whatever is not plainly http is kept as strictly as https.
        let https = !base_url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        let name = "oauth-dance-tokens".to_owned();
        Self { keys, name, https, limit: LIMIT, lifetime: LIFETIME, clock: Clock::system() }
    }

    /// Sets the cookie's name, without `__Host-`. Two applications on one host need two names, for cookies do not tell
    /// ports apart. The default is `oauth-dance-tokens`.
    ///
    /// # Errors
    /// [`InvalidCookieName`] unless it is made of 1 to 64 letters, digits, `-` and `_`.
    pub fn with_name(self, name: impl Into<String>) -> Result<Self, InvalidCookieName> {
        let name = name.into();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !is_plain || name.is_empty() || name.len() > 64 {
            return Err(InvalidCookieName);
        }
        Ok(Self { name, ..self })
    }

    /// Sets how many bytes of the `Cookie` header all tokens of a browser may take, at most 128 KiB. The default, 6 KiB,
    /// passes nginx and Apache as they are set up by default, with 2 KiB to spare; more needs every proxy on the way to
    /// take it, or the browser is locked out until its cookies are cleared.
    #[must_use]
    pub fn with_limit(self, bytes: usize) -> Self {
        Self { limit: bytes.min(chunks::MOST), ..self }
    }

    /// Sets how long a token is kept after its last write, at most. The default is 400 days, the longest that browsers
    /// keep a cookie. It is checked here too, and not left to the browser.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime: lifetime.min(LIFETIME), ..self }
    }

    /// Takes the time from another clock, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// With `__Host-` where TLS allows it: such a cookie was set by this very host over TLS (RFC 6265bis section 4.1.3.2).
    fn full_name(&self) -> String {
        if self.https { format!("__Host-{}", self.name) } else { self.name.clone() }
    }
}

impl fmt::Debug for CookieTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieTokens")
            .field("keys", &self.keys)
            .field("name", &self.full_name())
            .field("limit", &self.limit)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// The name of [`CookieTokens::with_name`] cannot be a cookie's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cookie's name must be made of 1 to 64 letters, digits, - and _")]
pub struct InvalidCookieName;
