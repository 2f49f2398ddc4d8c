//! Tokens in an encrypted cookie.
//!
//! All tokens of a browser are one sealed text ([`records`]), which is split into cookies of the size that browsers
//! support ([`chunks`]). A storage decodes them when they are first used ([`storage`]). The layer sets new cookies only
//! if a token was written ([`layer`]).

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

/// The maximum lifetime of a cookie in browsers (RFC 6265bis section 5.5).
const MAX_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);
/// The default share of the `Cookie` header. nginx and Apache accept 8 KiB by default, and a quarter is left for the
/// application's own cookies.
const DEFAULT_LIMIT: usize = 6 * 1024;

/// A layer that stores the tokens of each browser in an encrypted cookie of that browser, for applications without a
/// storage on the server.
///
/// Use it with `OAuth::per_request`. Add the layer after the OAuth routes and all handlers that need tokens, so that it
/// wraps them:
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
/// The cookie is sealed with the key ring and bound to its name. It is `HttpOnly` and `SameSite=Lax`. If the base URL
/// is https, it is also `Secure`, and its name starts with `__Host-`. A cookie above 4096 bytes is split into several
/// cookies, named `oauth-dance-tokens.0`, `.1` and so on. Only a complete set that one response has written is joined.
///
/// A cookie that cannot be read counts as absent. It is removed from the browser, unless it is sealed with a key that
/// is not in the ring. A response of any status sets the cookie if a token was written or deleted, and then also
/// `Cache-Control: no-store`.
///
/// # Limits
///
/// All tokens of a browser share [6 KiB](Self::with_limit) of the `Cookie` header. A write beyond this limit is
/// [`TooLarge`](oauth_dance_core::StorageError::TooLarge), and the old tokens are unchanged. A token whose key is
/// longer than 256 bytes is [`KeyTooLong`](oauth_dance_core::StorageError::KeyTooLong).
///
/// A storage in a browser also has these limits:
///
/// * **Not atomic**: of two concurrent requests, the response that arrives last determines the tokens. It may restore a
///   token that the other request has replaced or deleted. With a [ledger](oauth_dance_core::Refresher::with_ledger),
///   each refresh token is still redeemed once. A browser with an older token gets the newer one when the older token
///   expires.
/// * **Not durable**: a written token is stored if its response arrives. A write after the response was sent, or after
///   the browser has disconnected, is an error ([`Unsupported`](oauth_dance_core::StorageError::Unsupported)).
/// * **No revocation**: a copy of the cookie from before a logout works again if it is replayed, until its
///   [lifetime](Self::with_lifetime) ends. Revoke tokens at the provider when the user disconnects.
/// * **Not listable**: a request sees only the tokens of its own browser.
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
    /// Stores tokens in cookies that are sealed with these keys, for an application that browsers reach at `base_url`.
    ///
    /// The scheme of `base_url` determines the attributes of the cookie. Behind a proxy that terminates TLS, it is
    /// `https`.
    ///
    /// If an older key of the ring sealed a cookie, the response to a request that uses its tokens reseals it with the
    /// first key. Leave an older key in the ring until the browsers have returned, or until the
    /// [lifetime](Self::with_lifetime) after its last use has passed.
    pub fn new(base_url: &str, keys: KeyRing) -> Self {
        // Any URL that is not http gets the strict attributes of https.
        let https = !base_url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        let name = "oauth-dance-tokens".to_owned();
        Self { keys, name, https, limit: DEFAULT_LIMIT, lifetime: MAX_LIFETIME, clock: Clock::system() }
    }

    /// Sets the name of the cookie without `__Host-`. The default is `oauth-dance-tokens`.
    ///
    /// Two applications on one host need different names, because cookies do not distinguish ports.
    ///
    /// ```
    /// use oauth_dance_core::KeyRing;
    /// use oauth_dance_session::CookieTokens;
    ///
    /// let layer = CookieTokens::new("http://localhost:3000", KeyRing::generate());
    /// assert!(layer.clone().with_name("my-app").is_ok());
    /// assert!(layer.with_name("my app").is_err());
    /// ```
    ///
    /// # Errors
    /// [`InvalidCookieName`] unless the name consists of 1 to 64 letters, digits, `-` and `_`.
    pub fn with_name(self, name: impl Into<String>) -> Result<Self, InvalidCookieName> {
        let name = name.into();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !is_plain || name.is_empty() || name.len() > 64 {
            return Err(InvalidCookieName);
        }
        Ok(Self { name, ..self })
    }

    /// Sets how many bytes of the `Cookie` header all tokens of a browser may take, at most 128 KiB.
    ///
    /// The default is 6 KiB, which leaves 2 KiB of the default limits of nginx and Apache. Before you raise it,
    /// configure every proxy to accept such headers. Otherwise a browser is locked out until its cookies are deleted.
    ///
    /// A proxy may also limit the headers of a response, which sets all of these cookies. nginx accepts 4 or 8 KiB by
    /// default (`proxy_buffer_size`), and otherwise responds with 502, so that the browser does not get the token.
    #[must_use]
    pub fn with_limit(self, bytes: usize) -> Self {
        Self { limit: bytes.min(chunks::MAX_SIZE), ..self }
    }

    /// Sets how long a token is stored after its last write. The default is 400 days, the maximum lifetime of a cookie.
    ///
    /// The storage enforces this time, and does not rely on the browser. It is also how long a stolen copy of the
    /// cookie works.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime: lifetime.min(MAX_LIFETIME), ..self }
    }

    /// Reads the time from another clock, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The name, with `__Host-` if the application uses TLS. Browsers accept a cookie of such a name only from this
    /// host over TLS (RFC 6265bis section 4.1.3.2).
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

/// The error of [`CookieTokens::with_name`] for a name that is not a valid cookie name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cookie name is invalid; use 1 to 64 letters, digits, `-` and `_`")]
pub struct InvalidCookieName;
