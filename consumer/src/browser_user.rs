use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use oauth_dance_core::{Clock, KeyRing, Timestamp, random_bytes};
use serde::{Deserialize, Serialize};

use crate::cookies::{self, SealedCookies};
use crate::user::User;

/// Followed by the id of the key that sealed it: two applications on one host, where ports do not separate cookies, have
/// one each, and all processes of one application have the same.
const PREFIX: &str = "oauth-dance-user-";
const LIFETIME: Duration = Duration::from_secs(180 * 24 * 3600);

/// Each browser as a user of its own, known by a sealed cookie.
pub(crate) struct BrowserUsers {
    keys: KeyRing,
    clock: Clock,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    id: String,
    since: u64,
}

impl BrowserUsers {
    pub(crate) fn new(keys: KeyRing, clock: Clock) -> Self {
        Self { keys, clock }
    }

    /// The user of this browser, unless it is a new one.
    pub(crate) fn current(&self, headers: &HeaderMap, https: bool) -> Option<User> {
        let cookies = self.cookies(https);
        let prefix = cookies.name(PREFIX);
        let identity: Identity = cookies::all(headers)
            .filter(|(name, _)| name.starts_with(&prefix))
            .find_map(|(name, value)| cookies.read(name, value))?;
        let age = self.clock.now().saturating_since(Timestamp::from_unix_seconds(identity.since));
        (age < LIFETIME).then(|| User::new(identity.id))
    }

    /// A new user, and the cookie that makes this browser theirs.
    pub(crate) fn create(&self, https: bool) -> (User, HeaderValue) {
        let cookies = self.cookies(https);
        let name = cookies.name(&format!("{PREFIX}{}", self.keys.primary_id()));
        let id = format!("browser-{}", URL_SAFE_NO_PAD.encode(random_bytes::<16>()));
        let identity = Identity { id: id.clone(), since: self.clock.now().as_unix_seconds() };
        (User::new(id), cookies.set(&name, &identity, LIFETIME))
    }

    fn cookies(&self, https: bool) -> SealedCookies {
        SealedCookies { keys: self.keys.clone(), purpose: "oauth-dance browser user", https }
    }
}
