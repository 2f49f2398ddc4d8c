//! The provider's grants: codes, and families of tokens.
//!
//! All tokens that descend from one code are a family. The provider revokes the whole family if a refresh token or a code is
//! presented twice (RFC 9700 section 4.14.2, RFC 6749 section 4.1.2): it cannot know which of the two presenters is the
//! thief. A client that redeems a refresh token twice therefore loses the user's connection, and a test sees it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{OAuth2Token, Secret, Timestamp, random_bytes};
use serde::{Deserialize, Serialize};

use super::Settings;

/// How long a code is valid.
const CODE_LIFETIME: Duration = Duration::from_secs(60);

/// What a [`TestProvider`](super::TestProvider) has done so far. The most important assertion of a test with concurrent
/// requests is that no family was revoked:
///
/// ```
/// # use oauth_dance::{KeyRing, MemoryStorage, OAuth, User, testing::TestClock};
/// use std::time::Duration;
/// use oauth_dance::testing::TestProvider;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (provider, clock) = (TestProvider::start().await?, TestClock::new());
/// # let oauth = OAuth::builder("http://localhost:3000", MemoryStorage::new(), KeyRing::generate())
/// #     .provider(provider.registration("acme")).clock(clock.clock()).anonymous_users().build()?;
/// # let alice = User::new("alice");
/// # provider.connect(&oauth, "acme", &alice).await?;
/// clock.advance(Duration::from_secs(3601));
/// let (one, two) = tokio::join!(oauth.client("acme", &alice), oauth.client("acme", &alice));
/// assert!(one.is_ok() && two.is_ok());
/// assert_eq!((provider.counters().refreshes, provider.counters().families_revoked), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counters {
    /// Codes issued.
    pub codes_issued: u64,
    /// Codes redeemed for a token.
    pub codes_redeemed: u64,
    /// How often each refresh token was presented by its client, whether or not a token was issued for it.
    pub redemptions: BTreeMap<String, u64>,
    /// Refreshes that issued a token.
    pub refreshes: u64,
    /// Tokens issued to clients for themselves (RFC 6749 section 4.4).
    #[serde(default)]
    pub client_credentials: u64,
    /// Tokens issued in exchange for another (RFC 8693).
    #[serde(default)]
    pub exchanges: u64,
    /// Families revoked because a refresh token or a code was presented twice.
    pub families_revoked: u64,
}

#[derive(Debug, Default)]
pub(super) struct Grants {
    pushed: HashMap<String, Vec<(String, String)>>,
    codes: HashMap<String, Code>,
    access_tokens: HashMap<String, AccessToken>,
    refresh_tokens: HashMap<String, RefreshToken>,
    families: Vec<Family>,
    counters: Counters,
}

/// The authorization of a client, with the properties that its code is bound to.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) user: String,
    pub(super) scope: String,
    /// The thumbprint of the key that the code is bound to (RFC 9449 section 10).
    pub(super) jkt: Option<String>,
    #[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "only ID tokens contain it"))]
    pub(super) nonce: Option<String>,
}

/// The client that presents a code or a refresh token, and the provider's settings.
pub(super) struct Redemption<'a> {
    pub(super) settings: &'a Settings,
    pub(super) client: &'a str,
    /// The thumbprint of the key that the client has proved.
    pub(super) jkt: Option<&'a str>,
}

#[derive(Debug)]
struct Code {
    authorization: Authorization,
    expires_at: Timestamp,
    spent_for: Option<usize>,
}

/// One grant, with every token issued under it.
#[derive(Debug)]
struct Family {
    client: String,
    user: String,
    scope: String,
    expires_at: Option<Timestamp>,
    revoked: bool,
}

#[derive(Debug)]
struct AccessToken {
    family: usize,
    scope: String,
    /// The services that it is for; empty for those of the provider itself.
    audience: Vec<String>,
    expires_at: Timestamp,
    jkt: Option<String>,
}

#[derive(Debug)]
struct RefreshToken {
    family: usize,
    spent: bool,
    jkt: Option<String>,
}

/// What a valid access token gives access to.
#[derive(Default)]
pub(super) struct Access {
    pub(super) user: String,
    pub(super) scope: String,
    pub(super) audience: Vec<String>,
}

/// Why no token is issued (RFC 6749 section 5.2).
pub(super) struct GrantError {
    pub(super) code: &'static str,
    pub(super) why: &'static str,
}

impl GrantError {
    fn invalid_grant(why: &'static str) -> Self {
        Self { code: "invalid_grant", why }
    }
}

impl Family {
    fn is_live(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| end > now)
    }
}

impl Grants {
    pub(super) fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Stores an authorization request, and returns the `request_uri` for it (RFC 9126 section 2.2).
    pub(super) fn push(&mut self, settings: &Settings, parameters: Vec<(String, String)>) -> String {
        let request_uri = format!("urn:ietf:params:oauth:request_uri:{}", random(settings, "request"));
        self.pushed.insert(request_uri.clone(), parameters);
        request_uri
    }

    /// The authorization request of a `request_uri`.
    pub(super) fn pushed(&self, request_uri: &str) -> Option<Vec<(String, String)>> {
        self.pushed.get(request_uri).cloned()
    }

    pub(super) fn forget_pushed(&mut self, request_uri: &str) {
        self.pushed.remove(request_uri);
    }

    pub(super) fn code(&mut self, settings: &Settings, authorization: Authorization) -> String {
        let code = random(settings, "code");
        let expires_at = settings.clock.now().saturating_add(CODE_LIFETIME);
        self.codes.insert(code.clone(), Code { authorization, expires_at, spent_for: None });
        self.counters.codes_issued += 1;
        code
    }

    /// Redeems a code (RFC 6749 section 4.1.3, RFC 7636 section 4.6). Redeeming a code a second time revokes its family. A
    /// wrong redirect URI, verifier or key spends the code, so that no one can guess twice.
    pub(super) fn redeem_code(
        &mut self,
        by: &Redemption<'_>,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<OAuth2Token, GrantError> {
        let now = by.settings.clock.now();
        let Some(found) = self.codes.get(code).filter(|found| found.authorization.client == by.client) else {
            return Err(GrantError::invalid_grant("the code is unknown"));
        };
        if let Some(family) = found.spent_for {
            self.revoke_family(family);
            return Err(GrantError::invalid_grant("the code was used before"));
        }
        let wrong = if found.expires_at <= now {
            Some("the code has expired")
        } else {
            found.authorization.mismatch(redirect_uri, verifier, by.jkt)
        };
        if let Some(why) = wrong {
            self.codes.remove(code);
            return Err(GrantError::invalid_grant(why));
        }
        let (user, scope) = (found.authorization.user.clone(), found.authorization.scope.clone());
        let token = self.issue(by, &user, &scope);
        if let Some(code) = self.codes.get_mut(code) {
            code.spent_for = Some(self.families.len() - 1);
        }
        self.counters.codes_redeemed += 1;
        Ok(token)
    }

    /// A token of a new family.
    pub(super) fn issue(&mut self, by: &Redemption<'_>, user: &str, scope: &str) -> OAuth2Token {
        let family = self.new_family(by, user, scope);
        self.issue_in(family, by, scope)
    }

    /// A token with which the client acts for itself (RFC 6749 section 4.4.3). It has no refresh token.
    pub(super) fn issue_to_client(&mut self, by: &Redemption<'_>, scope: &str, audience: Vec<String>) -> OAuth2Token {
        self.counters.client_credentials += 1;
        let family = self.new_family(by, by.client, scope);
        self.issue_access_token(family, by, scope, audience)
    }

    /// A token of the same grant for other services (RFC 8693 section 2.2.1). It may have a narrower scope, and ends with
    /// the grant.
    pub(super) fn exchange(
        &mut self,
        by: &Redemption<'_>,
        subject_token: &str,
        scope: Option<&str>,
        audience: Vec<String>,
    ) -> Result<OAuth2Token, GrantError> {
        let now = by.settings.clock.now();
        let found = self.access_tokens.get(subject_token).filter(|found| {
            let family = &self.families[found.family];
            family.client == by.client && found.expires_at > now && family.is_live(now)
        });
        // Section 2.2.2 prescribes this code.
        let invalid = GrantError { code: "invalid_request", why: "the subject token is unknown, expired or revoked" };
        let found = found.ok_or(invalid)?;
        let (family, granted) = (found.family, found.scope.clone());
        let scope = scope.unwrap_or(&granted);
        if !granted.is_empty() && !is_within(scope, &granted) {
            return Err(GrantError { code: "invalid_scope", why: "the scope exceeds that of the subject token" });
        }
        self.counters.exchanges += 1;
        Ok(self.issue_access_token(family, by, scope, audience))
    }

    fn new_family(&mut self, by: &Redemption<'_>, user: &str, scope: &str) -> usize {
        let lifetime = by.settings.grant_lifetime;
        self.families.push(Family {
            client: by.client.to_owned(),
            user: user.to_owned(),
            scope: scope.to_owned(),
            expires_at: lifetime.map(|lifetime| by.settings.clock.now().saturating_add(lifetime)),
            revoked: false,
        });
        self.families.len() - 1
    }

    /// Redeems a refresh token (RFC 6749 section 6), or revokes its family if it is spent (RFC 9700 section 4.14.2). The
    /// access token may have a narrower scope.
    pub(super) fn refresh(
        &mut self,
        by: &Redemption<'_>,
        refresh_token: &str,
        scope: Option<&str>,
    ) -> Result<OAuth2Token, GrantError> {
        let found = self.refresh_tokens.get_mut(refresh_token);
        let Some(found) = found.filter(|found| self.families[found.family].client == by.client) else {
            return Err(GrantError::invalid_grant("the refresh token is unknown"));
        };
        *self.counters.redemptions.entry(refresh_token.to_owned()).or_default() += 1;
        let index = found.family;
        let family = &self.families[index];
        if found.spent {
            self.revoke_family(index);
            return Err(GrantError::invalid_grant("the refresh token was used before"));
        }
        if !family.is_live(by.settings.clock.now()) {
            return Err(GrantError::invalid_grant("the grant has ended"));
        }
        if found.jkt.is_some() && found.jkt.as_deref() != by.jkt {
            return Err(GrantError::invalid_grant("the refresh token is bound to another key"));
        }
        let scope = scope.unwrap_or(&family.scope).to_owned();
        if !is_within(&scope, &family.scope) {
            return Err(GrantError { code: "invalid_scope", why: "the scope exceeds what was granted" });
        }
        found.spent = by.settings.rotation;
        let mut token = self.issue_in(index, by, &scope);
        if !by.settings.rotation {
            token.refresh_token = None;
        }
        self.counters.refreshes += 1;
        Ok(token)
    }

    /// The nonce in the authorization request of a code, which the ID token must contain.
    #[cfg(feature = "oidc")]
    pub(super) fn nonce_of(&self, code: &str) -> Option<String> {
        self.codes.get(code)?.authorization.nonce.clone()
    }

    /// What a valid access token that is bound to this key, or to none, gives access to.
    pub(super) fn access_of(&self, settings: &Settings, access_token: &str, jkt: Option<&str>) -> Option<Access> {
        let now = settings.clock.now();
        let found = self.access_tokens.get(access_token).filter(|found| found.jkt.as_deref() == jkt)?;
        let family = &self.families[found.family];
        let is_live = found.expires_at > now && family.is_live(now);
        let Family { user, .. } = family;
        let AccessToken { scope, audience, .. } = found;
        is_live.then(|| Access { user: user.clone(), scope: scope.clone(), audience: audience.clone() })
    }

    /// Revokes a client's access token, or its refresh token with the whole family (RFC 7009 section 2.1).
    pub(super) fn revoke(&mut self, client: &str, token: &str) {
        let is_own = |family: usize| self.families[family].client == client;
        if self.access_tokens.get(token).is_some_and(|found| is_own(found.family)) {
            self.access_tokens.remove(token);
        }
        let family = self.refresh_tokens.get(token).map(|found| found.family).filter(|family| is_own(*family));
        if let Some(family) = family {
            self.refresh_tokens.remove(token);
            self.families[family].revoked = true;
        }
    }

    pub(super) fn revoke_all_of(&mut self, user: &str) {
        let families = self.families.iter_mut().filter(|family| family.user == user);
        families.for_each(|family| family.revoked = true);
    }

    fn revoke_family(&mut self, family: usize) {
        let was_revoked = std::mem::replace(&mut self.families[family].revoked, true);
        self.counters.families_revoked += u64::from(!was_revoked);
    }

    fn issue_in(&mut self, family: usize, by: &Redemption<'_>, scope: &str) -> OAuth2Token {
        let mut token = self.issue_access_token(family, by, scope, Vec::new());
        if by.settings.refresh_tokens {
            let (refresh_token, jkt) = (random(by.settings, "refresh"), by.jkt.map(str::to_owned));
            self.refresh_tokens.insert(refresh_token.clone(), RefreshToken { family, spent: false, jkt });
            token.refresh_token = Some(refresh_token.into());
        }
        token
    }

    fn issue_access_token(
        &mut self,
        family: usize,
        by: &Redemption<'_>,
        scope: &str,
        audience: Vec<String>,
    ) -> OAuth2Token {
        let Redemption { settings, jkt, .. } = by;
        let jkt = jkt.map(str::to_owned);
        let access_token = random(settings, "access");
        let expires_at = settings.clock.now().saturating_add(settings.access_token_lifetime);
        let record = AccessToken { family, scope: scope.to_owned(), audience, expires_at, jkt: jkt.clone() };
        self.access_tokens.insert(access_token.clone(), record);
        let mut token = OAuth2Token::bearer(access_token);
        if jkt.is_some() {
            token.token_type = "DPoP".to_owned();
        }
        token.expires_at = Some(expires_at);
        token.scope = Some(scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect());
        token
    }
}

impl Authorization {
    /// Any mismatch between a token request and its authorization request.
    fn mismatch(&self, redirect_uri: &str, verifier: &str, jkt: Option<&str>) -> Option<&'static str> {
        if self.redirect_uri != redirect_uri {
            return Some("the code is bound to another redirect URI");
        }
        if !proves(verifier, &self.challenge) {
            return Some("the verifier does not match");
        }
        (self.jkt.is_some() && self.jkt.as_deref() != jkt).then_some("the code is bound to another key")
    }
}

/// Whether a verifier is well-formed (RFC 7636 section 4.1) and has this S256 challenge (section 4.2).
fn proves(verifier: &str, challenge: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_formed = (43..=128).contains(&verifier.len()) && verifier.bytes().all(is_allowed);
    is_formed && Secret::new(URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))) == Secret::new(challenge)
}

/// Whether each name in a scope is in another scope.
fn is_within(narrower: &str, scope: &str) -> bool {
    let granted: Vec<_> = scope.split(' ').collect();
    narrower.split(' ').all(|name| granted.contains(&name))
}

pub(super) fn random(settings: &Settings, kind: &str) -> String {
    format!("{}{kind}-{}", settings.secret_prefix, URL_SAFE_NO_PAD.encode(random_bytes::<24>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636 appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn pkce_follows_the_rfc_vector() {
        assert!(proves(VERIFIER, CHALLENGE));
        assert!(!proves(&VERIFIER.replace('d', "e"), CHALLENGE));
        assert!(!proves(CHALLENGE, CHALLENGE));
    }

    #[test]
    fn a_malformed_verifier_is_rejected() {
        for verifier in ["short", &"a".repeat(129), &format!("{}+", &VERIFIER[1..])] {
            let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
            assert!(!proves(verifier, &challenge), "{verifier}");
        }
    }

    #[test]
    fn scopes_are_compared_by_name() {
        assert!(is_within("email profile", "profile email"));
        assert!(!is_within("mail", "profile email"));
        assert!(!is_within("email admin", "profile email"));
    }
}
