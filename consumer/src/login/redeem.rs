//! The end of a login: a code becomes a token, the token is verified, and then stored.
//!
//! The token is stored with retries, as the user would otherwise have to log in again. If it cannot be stored or fails
//! verification, it is revoked, unless that could revoke an earlier token of the same grant.

use std::time::Duration;

use oauth_dance_core::{OAuth2Token, Precondition, Secret, StorageError, Token, TokenKey, TokensError};
use tokio::time::{Instant, sleep, timeout};

use super::attempt::Attempt;
use super::earlier::Earlier;
use crate::connector::Connector;
use crate::error::LoginError;
use crate::protocol::oauth1;
use crate::protocol::oauth2::revoke::revoke_grant;
use crate::protocol::oauth2::token_request;
use crate::protocol::openid::identity::Identity;
use crate::protocol::registered::Registered;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// For how long writes to a failing storage are retried, as a fraction of the timeout of a request to the provider.
const RETRY_FRACTION: u32 = 4;

/// A token, and the verified identity of its owner.
pub(crate) struct Redeemed {
    pub(crate) token: Token,
    pub(crate) identity: Option<Identity>,
}

/// A login whose response has arrived.
#[derive(Clone, Copy)]
pub(crate) struct Redeemer<'a> {
    pub(crate) connector: &'a Connector,
    pub(crate) registered: &'a Registered,
    pub(crate) earlier: &'a Earlier,
}

impl Redeemer<'_> {
    /// Redeems a code.
    pub(crate) async fn redeem(
        &self,
        attempt: &Attempt,
        redirect_uri: &str,
        code: &Secret,
    ) -> Result<Redeemed, LoginError> {
        let Self { connector, registered, .. } = self;
        let http = connector.http();
        let now = http.clock.now();
        let Some(client) = &registered.oauth1 else {
            let (key, verifier) = (registered.dpop_key(attempt.dpop_key()), &attempt.verifier);
            let code = code.expose();
            let token = token_request::exchange_code(http, registered, redirect_uri, code, verifier, key, now).await?;
            return self.identified(attempt, token).await;
        };
        let endpoint = registered.token_endpoint();
        let temporary = oauth1::Credentials { token: &attempt.state, secret: &attempt.verifier };
        let token = oauth1::token_credentials(http, client, endpoint, temporary, code.expose(), now).await?;
        Ok(Redeemed { token: token.into(), identity: None })
    }

    /// A token with the verified identity in its ID token, if OpenID Connect was requested. A login with an ID token that
    /// fails verification fails.
    pub(crate) async fn identified(&self, attempt: &Attempt, mut token: OAuth2Token) -> Result<Redeemed, LoginError> {
        let identity = self.or_revoke(Some(&token), self.identify(attempt, &token).await).await?;
        token.subject = identity.as_ref().map(Identity::subject);
        Ok(Redeemed { token: token.into(), identity })
    }

    async fn identify(&self, attempt: &Attempt, token: &OAuth2Token) -> Result<Option<Identity>, LoginError> {
        let Self { connector, registered, .. } = self;
        let http = connector.http();
        let Some(openid) = registered.openid.as_ref().filter(|_| attempt.openid) else { return Ok(None) };
        let (expected, now) = (attempt.id_token_expectations(), http.clock.now());
        Ok(Some(openid.verify(token, expected, &registered.client_id, http, now).await?))
    }

    /// Removes the ID token unless the provider's declaration asks to store it.
    pub(crate) fn retain_id_token_if_declared(&self, token: &mut Token) {
        if let Token::OAuth2(token) = token {
            token.id_token = token.id_token.take().filter(|_| self.registered.declared.store_id_token);
        }
    }

    /// Stores the token over any earlier one: a new login always takes precedence. Otherwise revokes it.
    pub(crate) async fn store(&self, key: &TokenKey, token: &Token) -> Result<(), LoginError> {
        match self.put(key, token).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.revoke_unstored(key, token).await;
                Err(LoginError::Storage(error))
            }
        }
    }

    /// Stores the token, with retries.
    pub(crate) async fn put(&self, key: &TokenKey, token: &Token) -> Result<(), TokensError> {
        let Self { connector, registered, .. } = self;
        let (http, tokens) = (connector.http(), &connector.tokens);
        let give_up = Instant::now() + http.limits.timeout / RETRY_FRACTION;
        let mut pause = FIRST_RETRY;
        loop {
            let written = if registered.declared.quirks.new_login_ends_grant {
                tokens.put(key, token, Precondition::Always).await
            } else {
                tokens.put_login(key, token).await
            };
            let error = match written {
                Ok(_) => return Ok(()),
                Err(error) if !may_be_temporary(&error) || Instant::now() + pause > give_up => return Err(error),
                Err(error) => error,
            };
            tracing::warn!(
                provider = registered.declared.name,
                error = &error as &dyn std::error::Error,
                "the token of a login was not stored; the write is retried"
            );
            sleep(pause).await;
            pause = LONGEST_RETRY.min(pause * 2);
        }
    }

    /// Revokes a token that will not be stored, because this login has failed. Otherwise a provider that issues a refresh
    /// token only once, such as Google, would issue none at the next login.
    pub(crate) async fn or_revoke<T>(
        &self,
        token: Option<&OAuth2Token>,
        step: Result<T, LoginError>,
    ) -> Result<T, LoginError> {
        if let (Err(_), Earlier::None(key)) = (&step, self.earlier)
            && self.is_first(key).await
        {
            self.revoke(token).await;
        }
        step
    }

    /// Revokes the token, which is stored nowhere, if there is certainly no earlier token of the same grant that would be
    /// revoked with it. If the storage is unavailable or has no lists, that is not certain.
    pub(crate) async fn revoke_unstored(&self, key: &TokenKey, token: &Token) {
        if !matches!(self.earlier, Earlier::Some) && self.is_first(key).await {
            self.revoke(token.as_oauth2()).await;
        }
    }

    /// Whether the user of this key still has no token. Another login may have stored one since this one began.
    async fn is_first(&self, key: &TokenKey) -> bool {
        let limit = self.connector.http().limits.timeout;
        match timeout(limit, Earlier::of(self.connector, Some(key))).await {
            Ok(Earlier::None(_)) => true,
            Ok(Earlier::Some) => false,
            Ok(Earlier::Unknown) | Err(_) => matches!(self.earlier, Earlier::None(known) if known == key),
        }
    }

    /// Revokes a token of OAuth 2.0. A token of OAuth 1.0a cannot be revoked.
    async fn revoke(&self, token: Option<&OAuth2Token>) {
        let Some(token) = token else { return };
        let http = self.connector.http();
        let _ = timeout(http.limits.timeout, revoke_grant(http, self.registered, token)).await;
    }
}

/// Whether a retry may succeed.
fn may_be_temporary(error: &TokensError) -> bool {
    let TokensError::Storage(error) = error else { return false };
    matches!(error, StorageError::Unavailable { .. } | StorageError::Ambiguous { .. } | StorageError::Conflict)
}
