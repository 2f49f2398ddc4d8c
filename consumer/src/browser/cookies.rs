//! This application's cookies: sealed, inaccessible to scripts, and not sent with cross-site subrequests.
//!
//! They are `SameSite=Lax` and not `Strict`, because the callback is a navigation that the provider's site causes. Each kind
//! of cookie has its own purpose in the seal, so that a value of one kind is invalid as another.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use http::{HeaderMap, HeaderValue, header};
use oauth_dance_core::KeyRing;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Far more than any cookie of this application; browsers accept at most 4096 bytes.
const MAX_VALUE: usize = 4096;

/// Creates and reads cookies of one kind.
pub(crate) struct SealedCookies {
    pub(crate) keys: KeyRing,
    pub(crate) purpose: &'static str,
    pub(crate) https: bool,
}

impl SealedCookies {
    /// Adds `__Host-` if TLS allows it: such a cookie was set by exactly this host over TLS (RFC 6265bis section 4.1.3.2).
    pub(crate) fn name(&self, name: &str) -> String {
        if self.https { format!("__Host-{name}") } else { name.to_owned() }
    }

    /// The `Set-Cookie` header for a value, which is sealed and bound to its cookie's name.
    pub(crate) fn set<T: Serialize>(&self, name: &str, value: &T, max_age: Duration) -> HeaderValue {
        #[expect(clippy::expect_used, reason = "the values are plain structs of strings and numbers")]
        let plain = serde_json::to_vec(value).expect("a cookie's value is always JSON");
        let sealed = self.keys.seal(self.purpose, name.as_bytes(), &plain);
        self.header(name, &URL_SAFE_NO_PAD.encode(sealed), max_age)
    }

    /// The `Set-Cookie` header that removes a cookie.
    pub(crate) fn remove(&self, name: &str) -> HeaderValue {
        self.header(name, "", Duration::ZERO)
    }

    /// The value of a cookie, or `None` if this application did not seal it under that name.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str, value: &str) -> Option<T> {
        if value.len() > MAX_VALUE {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        let plain = self.keys.open(self.purpose, name.as_bytes(), &sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    fn header(&self, name: &str, value: &str, max_age: Duration) -> HeaderValue {
        let max_age = time::Duration::seconds(i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX));
        let cookie = Cookie::build((name, value))
            .path("/")
            .http_only(true)
            .secure(self.https)
            .same_site(SameSite::Lax)
            .max_age(max_age)
            .build();
        #[expect(clippy::expect_used, reason = "the name is fixed text and the value base64")]
        HeaderValue::try_from(cookie.to_string()).expect("such a cookie is ASCII")
    }
}

/// All cookies of a request, as name and value. Unreadable ones are skipped.
pub(crate) fn all(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}
