use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::bounded::Bounded;
use super::users::User;
use super::{Now, random_secret};

const CODE_LIFETIME: Duration = Duration::from_secs(60);
const GRANT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

const MAX_SESSIONS: usize = 1_000;
const MAX_GRANTS: usize = 1_000;
const MAX_CREDENTIALS: usize = 10_000;

/// What the provider remembers: sessions, codes, and the grants users gave with their tokens.
///
/// A grant is one consent. Its code and tokens only point to it, so removing it ends them all.
pub(super) struct Store {
    sessions: Bounded<String, &'static User>,
    codes: Bounded<String, Code>,
    grants: Bounded<GrantId, Grant>,
    access_tokens: Bounded<String, AccessToken>,
    refresh_tokens: Bounded<String, RefreshToken>,
    last_grant: GrantId,
}

/// What a user allowed, and what its code is bound to.
pub(super) struct Authorization {
    pub(super) user: &'static User,
    pub(super) scope: String,
    pub(super) redirect_uri: String,
    pub(super) code_challenge: String,
}

/// What a successful token request gives.
pub(super) struct Tokens {
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    pub(super) scope: String,
}

/// Why a token request gives nothing.
pub(super) enum Refusal {
    InvalidGrant,
    InvalidScope,
    NoRandomness,
}

type GrantId = u64;

/// A spent code is remembered for as long as its grant, so that its reuse is noticed.
enum Code {
    Fresh(Authorization),
    Spent(GrantId),
}

struct Grant {
    user: &'static User,
    scope: String,
    expires: Now,
}

struct AccessToken {
    grant: GrantId,
    scope: String,
}

struct RefreshToken {
    grant: GrantId,
    spent: bool,
}

impl Store {
    pub(super) fn sign_in(&mut self, user: &'static User, now: Now) -> Result<String, getrandom::Error> {
        let session = random_secret()?;
        let expires = now.saturating_add(SESSION_LIFETIME);
        self.sessions.insert(session.clone(), user, expires, now);
        Ok(session)
    }

    pub(super) fn signed_in(&self, session: &str, now: Now) -> Option<&'static User> {
        self.sessions.live(session, now).copied()
    }

    pub(super) fn sign_out(&mut self, session: &str) {
        self.sessions.remove(session);
    }

    pub(super) fn issue_code(&mut self, authorization: Authorization, now: Now) -> Result<String, getrandom::Error> {
        let code = random_secret()?;
        let expires = now.saturating_add(CODE_LIFETIME);
        let fresh = Code::Fresh(authorization);
        self.codes.insert(code.clone(), fresh, expires, now);
        Ok(code)
    }

    /// Spends a code. One that was spent before ends the grant it started (RFC 6749 section 4.1.2); one
    /// presented with the wrong redirect URI or verifier is gone, so that nobody can try twice.
    pub(super) fn redeem_code(
        &mut self,
        code: &str,
        redirect_uri: &str,
        code_verifier: &str,
        lifetime: Duration,
        now: Now,
    ) -> Result<Tokens, Refusal> {
        let authorization = match self.codes.live(code, now) {
            None => return Err(Refusal::InvalidGrant),
            Some(Code::Spent(grant)) => {
                let grant = *grant;
                tracing::warn!(grant, "authorization code presented again, grant ended");
                self.grants.remove(&grant);
                return Err(Refusal::InvalidGrant);
            }
            Some(Code::Fresh(authorization)) => authorization,
        };
        let bound = authorization.redirect_uri == redirect_uri && proves(code_verifier, &authorization.code_challenge);
        if !bound {
            self.codes.remove(code);
            return Err(Refusal::InvalidGrant);
        }

        let expires = now.saturating_add(GRANT_LIFETIME);
        let scope = authorization.scope.clone();
        let grant = Grant { user: authorization.user, scope: scope.clone(), expires };
        self.last_grant += 1;
        let id = self.last_grant;
        self.grants.insert(id, grant, expires, now);
        let spent = Code::Spent(id);
        self.codes.insert(code.to_owned(), spent, expires, now);
        self.issue_tokens(id, scope, lifetime, now)
    }

    /// Exchanges a refresh token for a new pair. One that was spent before ends its grant, since nobody
    /// can tell which of the two holders is the thief (RFC 9700 section 4.14.2).
    pub(super) fn refresh(
        &mut self,
        refresh_token: &str,
        scope: Option<&str>,
        lifetime: Duration,
        now: Now,
    ) -> Result<Tokens, Refusal> {
        let found = self.refresh_tokens.live(refresh_token, now);
        let &RefreshToken { grant: id, spent } = found.ok_or(Refusal::InvalidGrant)?;
        let grant = self.grants.live(&id, now).ok_or(Refusal::InvalidGrant)?;
        if spent {
            tracing::warn!(grant = id, "refresh token presented again, grant ended");
            self.grants.remove(&id);
            return Err(Refusal::InvalidGrant);
        }
        let scope = match scope {
            None => grant.scope.clone(),
            Some(narrower) if is_within(narrower, &grant.scope) => narrower.to_owned(),
            Some(_) => return Err(Refusal::InvalidScope),
        };

        let expires = grant.expires;
        let spent = RefreshToken { grant: id, spent: true };
        self.refresh_tokens.insert(refresh_token.to_owned(), spent, expires, now);
        self.issue_tokens(id, scope, lifetime, now)
    }

    /// The user and scope an access token speaks for, while it and its grant live.
    pub(super) fn access(&self, access_token: &str, now: Now) -> Option<(&'static User, &str)> {
        let token = self.access_tokens.live(access_token, now)?;
        let grant = self.grants.live(&token.grant, now)?;
        Some((grant.user, &token.scope))
    }

    /// Ends an access token, or the whole grant of a refresh token (RFC 7009 section 2.1). Unknown
    /// tokens are as good as revoked.
    pub(super) fn revoke(&mut self, token: &str, now: Now) {
        if let Some(refresh_token) = self.refresh_tokens.live(token, now) {
            self.grants.remove(&refresh_token.grant);
        }
        self.access_tokens.remove(token);
    }

    fn issue_tokens(&mut self, grant: GrantId, scope: String, lifetime: Duration, now: Now) -> Result<Tokens, Refusal> {
        let live = self.grants.live(&grant, now);
        let grant_expires = live.ok_or(Refusal::InvalidGrant)?.expires;
        let tokens = Tokens { access_token: random_secret()?, refresh_token: random_secret()?, scope: scope.clone() };
        self.access_tokens.insert(
            tokens.access_token.clone(),
            AccessToken { grant, scope },
            now.saturating_add(lifetime),
            now,
        );
        self.refresh_tokens.insert(
            tokens.refresh_token.clone(),
            RefreshToken { grant, spent: false },
            grant_expires,
            now,
        );
        Ok(tokens)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            sessions: Bounded::new(MAX_SESSIONS),
            codes: Bounded::new(MAX_CREDENTIALS),
            grants: Bounded::new(MAX_GRANTS),
            access_tokens: Bounded::new(MAX_CREDENTIALS),
            refresh_tokens: Bounded::new(MAX_CREDENTIALS),
            last_grant: 0,
        }
    }
}

impl From<getrandom::Error> for Refusal {
    fn from(_: getrandom::Error) -> Self {
        Self::NoRandomness
    }
}

/// Whether `verifier` is well-formed (RFC 7636 section 4.1) and its S256 transform is `challenge`.
fn proves(verifier: &str, challenge: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if !(43..=128).contains(&verifier.len()) || !verifier.bytes().all(allowed) {
        return false;
    }
    let transformed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
    transformed.as_bytes().ct_eq(challenge.as_bytes()).into()
}

fn is_within(narrower: &str, scope: &str) -> bool {
    let granted: Vec<_> = scope.split(' ').collect();
    narrower.split(' ').all(|name| granted.contains(&name))
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
    fn a_malformed_verifier_proves_nothing() {
        for verifier in ["short", &"a".repeat(129), &format!("{}+", &VERIFIER[1..])] {
            let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
            assert!(!proves(verifier, &challenge), "{verifier}");
        }
    }

    #[test]
    fn scopes_compare_by_name_not_by_substring() {
        assert!(is_within("email", "profile email"));
        assert!(is_within("email profile", "profile email"));
        assert!(!is_within("mail", "profile email"));
        assert!(!is_within("email admin", "profile email"));
    }
}
