//! What the provider has granted: codes, and families of tokens.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{OAuth2Token, Timestamp, random_bytes};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Settings;

/// What a [`TestProvider`](super::TestProvider) has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counters {
    /// Codes given.
    pub codes_issued: u64,
    /// Codes redeemed for a token.
    pub codes_redeemed: u64,
    /// How often each refresh token was presented by the client it belongs to, whether or not that gave a token.
    pub redemptions: BTreeMap<String, u64>,
    /// Refreshes that gave a token.
    pub refreshes: u64,
    /// Families revoked because a refresh token or a code came twice.
    pub families_revoked: u64,
}

#[derive(Debug, Default)]
pub(super) struct Grants {
    pushed: HashMap<String, Vec<(String, String)>>,
    codes: HashMap<String, Code>,
    access_tokens: HashMap<String, AccessToken>,
    refresh_tokens: HashMap<String, RefreshToken>,
    families: Vec<String>,
    revoked: HashSet<usize>,
    counters: Counters,
}

/// What an authorization request asked for, kept with its code.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) user: String,
    pub(super) scope: String,
    /// The thumbprint of the key that the code is bound to (RFC 9449 section 10).
    pub(super) jkt: Option<String>,
    #[cfg_attr(not(feature = "oidc"), expect(dead_code, reason = "ID tokens repeat it"))]
    pub(super) nonce: Option<String>,
}

#[derive(Debug)]
struct Code {
    authorization: Authorization,
    spent_for: Option<usize>,
}

#[derive(Debug)]
struct AccessToken {
    family: usize,
    scope: String,
    expires_at: Timestamp,
    jkt: Option<String>,
}

#[derive(Debug)]
struct RefreshToken {
    family: usize,
    client: String,
    scope: String,
    spent: bool,
    jkt: Option<String>,
}

/// Why a grant is not redeemed: `invalid_grant` of RFC 6749 section 5.2.
pub(super) struct InvalidGrant(pub(super) &'static str);

impl Grants {
    pub(super) fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Keeps an authorization request, and returns the `request_uri` for it (RFC 9126 section 2.2).
    pub(super) fn push(&mut self, settings: &Settings, params: Vec<(String, String)>) -> String {
        let request_uri = format!("urn:ietf:params:oauth:request_uri:{}", random(settings, "request"));
        self.pushed.insert(request_uri.clone(), params);
        request_uri
    }

    /// The authorization request of a `request_uri`, once.
    pub(super) fn pushed(&mut self, request_uri: &str) -> Option<Vec<(String, String)>> {
        self.pushed.remove(request_uri)
    }

    pub(super) fn code(&mut self, settings: &Settings, authorization: Authorization) -> String {
        let code = random(settings, "code");
        self.codes.insert(code.clone(), Code { authorization, spent_for: None });
        self.counters.codes_issued += 1;
        code
    }

    /// Redeems a code (RFC 6749 section 4.1.3, RFC 7636 section 4.6).
    pub(super) fn redeem_code(
        &mut self,
        settings: &Settings,
        client: &str,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        jkt: Option<&str>,
    ) -> Result<OAuth2Token, InvalidGrant> {
        let Some(Code { authorization, spent_for }) = self.codes.get(code) else {
            return Err(InvalidGrant("there is no such code"));
        };
        if let Some(family) = *spent_for {
            self.revoke_family(family);
            return Err(InvalidGrant("the code was used before"));
        }
        let authorization = authorization.clone();
        if authorization.client != client || authorization.redirect_uri != redirect_uri {
            return Err(InvalidGrant("the code belongs to another client or redirect URI"));
        }
        if authorization.challenge != challenge(verifier) {
            return Err(InvalidGrant("the verifier does not match"));
        }
        if authorization.jkt.is_some() && authorization.jkt.as_deref() != jkt {
            return Err(InvalidGrant("the code is bound to another key"));
        }
        let token = self.issue(settings, client, &authorization.user, &authorization.scope, jkt);
        let family = self.families.len() - 1;
        if let Some(code) = self.codes.get_mut(code) {
            code.spent_for = Some(family);
        }
        self.counters.codes_redeemed += 1;
        Ok(token)
    }

    /// A token of a new family.
    pub(super) fn issue(
        &mut self,
        settings: &Settings,
        client: &str,
        user: &str,
        scope: &str,
        jkt: Option<&str>,
    ) -> OAuth2Token {
        self.families.push(user.to_owned());
        self.issue_in(self.families.len() - 1, settings, client, scope, jkt)
    }

    /// Redeems a refresh token (RFC 6749 section 6), or revokes its family if it was spent (RFC 9700 section 4.14.2).
    pub(super) fn refresh(
        &mut self,
        settings: &Settings,
        client: &str,
        refresh_token: &str,
        jkt: Option<&str>,
    ) -> Result<OAuth2Token, InvalidGrant> {
        let Some(found) = self.refresh_tokens.get_mut(refresh_token).filter(|found| found.client == client) else {
            return Err(InvalidGrant("there is no such refresh token"));
        };
        *self.counters.redemptions.entry(refresh_token.to_owned()).or_default() += 1;
        let (family, scope) = (found.family, found.scope.clone());
        if found.spent {
            self.revoke_family(family);
            return Err(InvalidGrant("the refresh token was used before"));
        }
        if self.revoked.contains(&family) {
            return Err(InvalidGrant("the grant was revoked"));
        }
        if found.jkt.is_some() && found.jkt.as_deref() != jkt {
            return Err(InvalidGrant("the refresh token is bound to another key"));
        }
        found.spent = settings.rotation;
        let mut token = self.issue_in(family, settings, client, &scope, jkt);
        if !settings.rotation {
            token.refresh_token = None;
        }
        self.counters.refreshes += 1;
        Ok(token)
    }

    /// What the authorization request of a code has for the ID token to repeat.
    #[cfg(feature = "oidc")]
    pub(super) fn nonce_of(&self, code: &str) -> Option<&str> {
        self.codes.get(code)?.authorization.nonce.as_deref()
    }

    /// Whose access token this is and for what scope, if it is a good one and bound to this key, or to none.
    pub(super) fn user_of(
        &self,
        settings: &Settings,
        access_token: &str,
        jkt: Option<&str>,
    ) -> Option<(String, String)> {
        let found = self.access_tokens.get(access_token).filter(|found| found.jkt.as_deref() == jkt)?;
        let good = found.expires_at > settings.clock.now() && !self.revoked.contains(&found.family);
        good.then(|| (self.families[found.family].clone(), found.scope.clone()))
    }

    /// Revokes an access token, or a refresh token with its whole family (RFC 7009 section 2.1).
    pub(super) fn revoke(&mut self, token: &str) {
        self.access_tokens.remove(token);
        if let Some(found) = self.refresh_tokens.remove(token) {
            self.revoked.insert(found.family);
        }
    }

    pub(super) fn revoke_all_of(&mut self, user: &str) {
        let families = self.families.iter().enumerate().filter(|(_, owner)| *owner == user).map(|(family, _)| family);
        self.revoked.extend(families);
    }

    fn revoke_family(&mut self, family: usize) {
        self.counters.families_revoked += u64::from(self.revoked.insert(family));
    }

    fn issue_in(
        &mut self,
        family: usize,
        settings: &Settings,
        client: &str,
        scope: &str,
        jkt: Option<&str>,
    ) -> OAuth2Token {
        let jkt = jkt.map(str::to_owned);
        let access_token = random(settings, "access");
        let expires_at = settings.clock.now().saturating_add(settings.access_token_lifetime);
        let record = AccessToken { family, scope: scope.to_owned(), expires_at, jkt: jkt.clone() };
        self.access_tokens.insert(access_token.clone(), record);
        let mut token = OAuth2Token::bearer(access_token);
        if jkt.is_some() {
            token.token_type = "DPoP".to_owned();
        }
        token.expires_at = Some(expires_at);
        token.scope = Some(scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect());
        if settings.refresh_tokens {
            let refresh_token = random(settings, "refresh");
            let record = RefreshToken { family, client: client.to_owned(), scope: scope.to_owned(), spent: false, jkt };
            self.refresh_tokens.insert(refresh_token.clone(), record);
            token.refresh_token = Some(refresh_token.into());
        }
        token
    }
}

/// The S256 challenge of a verifier (RFC 7636 section 4.2).
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

pub(super) fn random(settings: &Settings, kind: &str) -> String {
    format!("{}{kind}-{}", settings.secret_prefix, URL_SAFE_NO_PAD.encode(random_bytes::<24>()))
}
