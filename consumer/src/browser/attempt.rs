//! A login attempt: what the callback needs from the request that started it, in a sealed cookie.
//!
//! An attempt is in a cookie and not in the storage for two reasons. Anyone can start a login, so a stored attempt would let
//! anyone fill the storage. And the cookie proves that the browser of the callback is the one that started the login: a
//! callback URL that an attacker sends to a user finds no cookie (RFC 6749 section 10.12).
//!
//! Each attempt has a cookie of its own, whose name is derived from the state, so that logins in two tabs do not overwrite
//! each other. The state, the verifier of PKCE and the nonce are random for each attempt. The seal binds the content to the
//! name of the cookie, so that the content of one attempt cannot be sent as another.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use oauth_dance_core::{Clock, KeyRing, Secret, Timestamp};

use super::cookies::{self, SealedCookies};
use super::user::User;
use crate::login::attempt::{Attempt, fingerprint};

/// How long a login may take.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
/// How much longer its cookie lasts, which identifies a browser that repeats the callback.
const REPEATABLE: Duration = Duration::from_secs(60);
/// How many logins one browser can have in progress, and how long their cookies may be together. Proxies accept 8 KiB for
/// all cookies. The oldest attempts are dropped first.
const MAX_PENDING: usize = 5;
const MAX_BYTES: usize = 4096;
const PREFIX: &str = "oauth-dance-login-";
/// A provider's form data, from the `POST` to the `GET` that follows at once.
const POSTED: &str = "oauth-dance-posted";
const POSTED_LIFETIME: Duration = Duration::from_secs(60);
const MAX_POSTED: usize = 1024;

/// Starts attempts, and finds them.
pub(crate) struct Attempts {
    cookies: SealedCookies,
    clock: Clock,
}

impl Attempt {
    pub(crate) fn is_of(&self, user: Option<&User>) -> bool {
        let then = self.user.as_ref().map(|(id, tenant)| (id.as_str(), tenant.as_deref()));
        then == user.map(|user| (user.id(), user.tenant()))
    }
}

impl Attempts {
    pub(crate) fn new(keys: KeyRing, clock: Clock, https: bool) -> Self {
        Self { cookies: SealedCookies { keys, purpose: "oauth-dance login attempt", https }, clock }
    }

    /// A new attempt with a state of 256 random bits.
    pub(crate) fn start(&self, provider: &str, next: String, user: Option<&User>) -> Attempt {
        let user = user.map(|user| (user.id().to_owned(), user.tenant().map(str::to_owned)));
        let mut attempt = Attempt::blank(provider, self.clock.now());
        (attempt.next, attempt.user) = (next, user);
        attempt
    }

    /// Whether a callback may still spend the attempt.
    pub(crate) fn is_in_time(&self, attempt: &Attempt) -> bool {
        self.clock.now().saturating_since(Timestamp::from_unix_seconds(attempt.since)) <= LIFETIME
    }

    /// The cookie of a new attempt, and the removal of older ones that no longer fit.
    pub(crate) fn remember(&self, attempt: &Attempt, headers: &HeaderMap) -> Vec<HeaderValue> {
        let prefix = self.cookies.name(PREFIX);
        let age = |attempt: Attempt| (!attempt.is_spent, attempt.since);
        let mut pending: Vec<((bool, u64), &str, &str)> = cookies::all(headers)
            .filter(|(name, _)| name.starts_with(&prefix))
            .filter_map(|(name, value)| Some((age(self.cookies.read(name, value)?), name, value)))
            .collect();
        pending.sort_unstable_by(|one, other| other.cmp(one));
        let newest = self.cookies.set(&self.name(&attempt.state), attempt, LIFETIME + REPEATABLE);
        let mut bytes = newest.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().len();
        let fits = |(_, name, value): &&((bool, u64), &str, &str)| {
            bytes += "; ".len() + name.len() + "=".len() + value.len();
            bytes <= MAX_BYTES
        };
        let retained = pending.iter().take(MAX_PENDING - 1).take_while(fits).count();
        let mut set: Vec<_> = pending[retained..].iter().map(|(_, name, _)| self.cookies.remove(name)).collect();
        set.push(newest);
        set
    }

    /// The attempt that this browser started with this state.
    pub(crate) fn find(&self, state: &str, headers: &HeaderMap) -> Option<Attempt> {
        let name = self.name(state);
        let attempt: Attempt = cookies::all(headers)
            .filter(|(found, _)| *found == name)
            .find_map(|(_, value)| self.cookies.read(&name, value))?;
        (Secret::new(attempt.state.as_str()) == Secret::new(state)).then_some(attempt)
    }

    /// The cookie of an attempt whose callback has been handled. It no longer contains a secret, and lasts a minute,
    /// for a browser that repeats the callback.
    pub(crate) fn end(&self, attempt: &Attempt) -> HeaderValue {
        self.cookies.set(&self.name(&attempt.state), &attempt.spent(), REPEATABLE)
    }

    /// The header that removes an attempt's cookie.
    pub(crate) fn forget(&self, attempt: &Attempt) -> HeaderValue {
        self.cookies.remove(&self.name(&attempt.state))
    }

    /// The cookie for a provider's form data about the user, which the redirect to the callback does not contain.
    pub(crate) fn remember_posted(&self, state: &str, data: &str) -> Option<HeaderValue> {
        let fits = data.len() <= MAX_POSTED;
        fits.then(|| self.cookies.set(&self.cookies.name(POSTED), &(fingerprint(state), data), POSTED_LIFETIME))
    }

    /// A provider's form data about the user.
    pub(crate) fn posted(&self, attempt: &Attempt, headers: &HeaderMap) -> Option<Secret> {
        let name = self.cookies.name(POSTED);
        let mut found = cookies::all(headers).filter(|(found, _)| *found == name);
        let (state, said) = found.find_map(|(_, value)| self.cookies.read::<(String, String)>(&name, value))?;
        (state == fingerprint(&attempt.state)).then(|| Secret::from(said))
    }

    /// The header that removes that cookie.
    pub(crate) fn forget_posted(&self) -> HeaderValue {
        self.cookies.remove(&self.cookies.name(POSTED))
    }

    fn name(&self, state: &str) -> String {
        self.cookies.name(&format!("{PREFIX}{}", &fingerprint(state)[..16]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::header;

    use super::*;

    pub(crate) fn attempts() -> (Attempts, Arc<AtomicU64>) {
        let seconds = Arc::new(AtomicU64::new(1_000_000));
        let reading = Arc::clone(&seconds);
        let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
        (Attempts::new(KeyRing::generate(), clock, true), seconds)
    }

    fn start_with(attempts: &Attempts, verifier: &Secret, next: String, user: Option<&User>) -> Attempt {
        let mut attempt = attempts.start("p", next, user);
        attempt.verifier = verifier.expose().to_owned();
        attempt
    }

    /// The cookies that a browser sends after it received these headers.
    fn jar(set: &[HeaderValue]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in set {
            let pair = value.to_str().unwrap().split(';').next().unwrap().to_owned();
            headers.append(header::COOKIE, pair.parse().unwrap());
        }
        headers
    }

    #[test]
    fn states_are_fresh_and_long() {
        let (attempts, _) = attempts();
        let states: std::collections::HashSet<_> =
            (0..1000).map(|_| start_with(&attempts, &"v".into(), "/".to_owned(), None).state).collect();
        assert_eq!(states.len(), 1000);
        assert!(states.iter().all(|state| state.len() == 43));
    }

    #[test]
    fn the_cookie_is_sealed_with_strict_attributes() {
        let (attempts, _) = attempts();
        let attempt = start_with(&attempts, &"CANARY".into(), "/".to_owned(), None);
        let cookie = attempts.remember(&attempt, &HeaderMap::new())[0].to_str().unwrap().to_owned();
        for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=660"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(cookie.starts_with("__Host-") && !cookie.contains("Domain"), "{cookie}");
        assert!(!cookie.contains("CANARY") && !cookie.contains(&attempt.state));
        let value = cookie.split(['=', ';']).nth(1).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(value).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"CANARY"));
    }

    #[test]
    fn only_the_same_browser_and_state_find_it() {
        let (attempts, _) = attempts();
        let one = start_with(&attempts, &"1".into(), "/one".to_owned(), Some(&User::new("alice")));
        let two = start_with(&attempts, &"2".into(), "/two".to_owned(), None);
        let mut set = attempts.remember(&one, &HeaderMap::new());
        set.extend(attempts.remember(&two, &jar(&set)));
        assert_eq!(attempts.find(&two.state, &jar(&set)).unwrap().next, "/two");
        let found = attempts.find(&one.state, &jar(&set)).unwrap();
        assert!(found.is_of(Some(&User::new("alice"))) && !found.is_of(None));
        assert!(!found.is_of(Some(&User::new("alice").in_tenant("t"))));

        assert!(attempts.find(&one.state, &HeaderMap::new()).is_none());
        assert!(attempts.find(&one.state.to_lowercase(), &jar(&set)).is_none());
        assert!(attempts.find(&format!("{}=", one.state), &jar(&set)).is_none());
        assert!(attempts.find("", &jar(&set)).is_none());
        let swapped = format!("{}={}", attempts.name(&one.state), "x".repeat(5000));
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, swapped.parse().unwrap());
        assert!(attempts.find(&one.state, &headers).is_none());
    }

    #[test]
    fn many_logins_at_once_do_not_fill_the_jar() {
        assert_eq!(pending_of_many("/", 0), MAX_PENDING);
        for (next, scopes) in [("/", 1024), (&*"x".repeat(768), 0), (&*"x".repeat(768), 1024)] {
            assert!((1..MAX_PENDING).contains(&pending_of_many(next, scopes)), "{scopes}");
        }
    }

    /// How many of fifty logins are retained, with this `next` and this number of bytes of scopes.
    fn pending_of_many(next: &str, scopes: usize) -> usize {
        let (attempts, seconds) = attempts();
        let mut jar_now: Vec<HeaderValue> = Vec::new();
        let mut last = None;
        for _ in 0..50 {
            seconds.fetch_add(1, Ordering::SeqCst);
            let mut attempt = start_with(&attempts, &"v".repeat(43).into(), next.to_owned(), None);
            attempt.scopes = (scopes > 0).then(|| vec!["s".repeat(16); scopes / 16]);
            for set in attempts.remember(&attempt, &jar(&jar_now)) {
                let name = set.to_str().unwrap().split('=').next().unwrap().to_owned();
                jar_now.retain(|kept| !kept.to_str().unwrap().starts_with(&format!("{name}=")));
                if !set.to_str().unwrap().contains("Max-Age=0") {
                    jar_now.push(set);
                }
            }
            last = Some(attempt);
        }
        let size: usize = jar(&jar_now).values().map(|pair| pair.len() + "; ".len()).sum();
        assert!(size <= MAX_BYTES + "; ".len(), "{size}");
        assert!(attempts.find(&last.unwrap().state, &jar(&jar_now)).is_some());
        jar_now.len()
    }

    #[test]
    fn an_ended_attempt_is_dropped_first() {
        let (attempts, seconds) = attempts();
        let mut set = Vec::new();
        for _ in 0..MAX_PENDING {
            seconds.fetch_add(1, Ordering::SeqCst);
            let attempt = start_with(&attempts, &"SECRET".into(), "/".to_owned(), None);
            set.push((attempts.remember(&attempt, &HeaderMap::new()).pop().unwrap(), attempt));
        }
        let ended = attempts.end(&set[3].1);
        assert!(ended.to_str().unwrap().contains("Max-Age=60;") || ended.to_str().unwrap().ends_with("Max-Age=60"));
        set[3].0 = ended;
        let headers = jar(&set.iter().map(|(cookie, _)| cookie.clone()).collect::<Vec<_>>());
        let found = attempts.find(&set[3].1.state, &headers).unwrap();
        assert!(found.is_spent && found.verifier.is_empty());

        let next = start_with(&attempts, &"v".into(), "/".to_owned(), None);
        let removed = attempts.remember(&next, &headers);
        assert_eq!(removed.len(), 2);
        assert!(removed[0].to_str().unwrap().starts_with(&attempts.name(&set[3].1.state)));
    }

    #[test]
    fn an_attempt_is_in_time_for_ten_minutes() {
        let (attempts, seconds) = attempts();
        let attempt = start_with(&attempts, &"v".into(), "/".to_owned(), None);
        seconds.fetch_add(600, Ordering::SeqCst);
        assert!(attempts.is_in_time(&attempt));
        seconds.fetch_add(1, Ordering::SeqCst);
        assert!(!attempts.is_in_time(&attempt));
    }
}
