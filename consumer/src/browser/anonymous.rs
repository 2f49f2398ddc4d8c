//! Browsers as users, for an application without user accounts.
//!
//! The identity is a random identifier in a sealed cookie. The server stores nothing for it, so a visitor who never logs in
//! costs nothing. The cookie is set when the first login ends, not at the first visit, because a cookie for every visitor
//! would prevent caching, and would need the visitor's consent in some countries.
//!
//! The name of the cookie contains the identifier of the key that sealed it. During a change of keys, a browser can have two
//! cookies, and the one that the primary key sealed takes precedence. With a common name, a process with the earlier key
//! ring could not read the cookie that another process has just replaced, and would treat the browser as a new user.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use oauth_dance_core::{Clock, KeyRing, Timestamp, random_bytes};
use serde::{Deserialize, Serialize};

use super::cookies::{self, SealedCookies};
use super::user::User;

/// Followed by the identifier of the key that sealed it. Ports do not separate cookies, so two applications on one host need
/// different names; all processes of one application use the same.
const PREFIX: &str = "oauth-dance-user-";
const LIFETIME: Duration = Duration::from_secs(180 * 24 * 3600);

/// Treats each browser as a user, identified by a sealed cookie.
pub(crate) struct AnonymousUsers {
    keys: KeyRing,
    clock: Clock,
}

/// The identity of a browser, which the cookie contains sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AnonymousUser {
    id: String,
    since: u64,
}

impl AnonymousUser {
    pub(crate) fn user(&self) -> User {
        User::new(&self.id)
    }
}

impl AnonymousUsers {
    pub(crate) fn new(keys: KeyRing, clock: Clock) -> Self {
        Self { keys, clock }
    }

    /// The user of this browser, or `None` if the browser is new.
    pub(crate) fn current(&self, headers: &HeaderMap, https: bool) -> Option<User> {
        Some(self.find(headers, https)?.0.user())
    }

    /// A new user.
    pub(crate) fn create(&self) -> AnonymousUser {
        let id = format!("browser-{}", URL_SAFE_NO_PAD.encode(random_bytes::<16>()));
        AnonymousUser { id, since: self.clock.now().as_unix_seconds() }
    }

    /// The cookie that identifies a browser as this user, for the rest of the user's lifetime.
    pub(crate) fn cookie(&self, identity: &AnonymousUser, https: bool) -> HeaderValue {
        let cookies = self.cookies(https);
        cookies.set(&self.name(&cookies), identity, LIFETIME.saturating_sub(self.age(identity)))
    }

    /// The headers that replace a cookie sealed with another key than the ring's primary key; none if nothing is to be
    /// replaced.
    pub(crate) fn renewed(&self, headers: &HeaderMap, https: bool) -> Vec<HeaderValue> {
        let cookies = self.cookies(https);
        match self.find(headers, https) {
            Some((identity, name)) if name != self.name(&cookies) => {
                vec![self.cookie(&identity, https), cookies.remove(name)]
            }
            _ => Vec::new(),
        }
    }

    /// The browser's identity and the name of its cookie. The cookie sealed with the primary key takes precedence.
    fn find<'a>(&self, headers: &'a HeaderMap, https: bool) -> Option<(AnonymousUser, &'a str)> {
        let cookies = self.cookies(https);
        let (prefix, current) = (cookies.name(PREFIX), self.name(&cookies));
        let known = cookies::all(headers).filter(|(name, _)| name.starts_with(&prefix)).filter_map(|(name, value)| {
            let identity: AnonymousUser = cookies.read(name, value)?;
            (self.age(&identity) < LIFETIME).then_some((identity, name))
        });
        known.max_by_key(|(_, name)| *name == current)
    }

    fn age(&self, identity: &AnonymousUser) -> Duration {
        self.clock.now().saturating_since(Timestamp::from_unix_seconds(identity.since))
    }

    fn name(&self, cookies: &SealedCookies) -> String {
        cookies.name(&format!("{PREFIX}{}", self.keys.primary_id()))
    }

    fn cookies(&self, https: bool) -> SealedCookies {
        SealedCookies { keys: self.keys.clone(), purpose: "oauth-dance browser user", https }
    }
}
