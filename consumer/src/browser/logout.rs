//! The state of a logout at the provider.
//!
//! The provider returns the state, which selects a sealed cookie with the target of the redirect. As with a login, several
//! logouts can be in flight, and a return that this browser did not cause has no cookie.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use oauth_dance_core::{KeyRing, Secret};

use super::cookies::{self, SealedCookies};
use crate::login::attempt::fingerprint;

/// How long the logout at the provider may take, including any questions to the user.
const LIFETIME: Duration = Duration::from_secs(600);
const PREFIX: &str = "oauth-dance-logout-";

/// Where the browser is redirected after each logout in flight, in a sealed cookie for each.
pub(crate) struct LogoutState {
    cookies: SealedCookies,
}

impl LogoutState {
    pub(crate) fn new(keys: KeyRing, https: bool) -> Self {
        Self { cookies: SealedCookies { keys, purpose: "oauth-dance logout", https } }
    }

    pub(crate) fn remember(&self, state: &str, next: &str) -> HeaderValue {
        self.cookies.set(&self.name(state), &(state, next), LIFETIME)
    }

    /// Where this browser is redirected after the logout with that state, and the header that removes the cookie.
    pub(crate) fn finish(&self, state: &str, headers: &HeaderMap) -> Option<(String, HeaderValue)> {
        let name = self.name(state);
        let mut found = cookies::all(headers).filter(|(found, _)| *found == name);
        let (remembered, next): (String, String) = found.find_map(|(_, value)| self.cookies.read(&name, value))?;
        (Secret::new(remembered) == Secret::new(state)).then(|| (next, self.cookies.remove(&name)))
    }

    fn name(&self, state: &str) -> String {
        self.cookies.name(&format!("{PREFIX}{}", &fingerprint(state)[..16]))
    }
}
