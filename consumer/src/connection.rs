//! From a stored token to a usable one, by the refresh protocol of the core, and what that needs to know of a provider.

use std::sync::Arc;

use async_trait::async_trait;
use oauth_dance_core::{
    Lease, OAuth1Token, OAuth2Token, Redeem, RedeemError, RefreshEvent, Rejection, Secret, Token, TokenKey, Verdict,
};

use crate::error::{ConnectError, TokenEndpointError};
use crate::oauth::OAuth;
use crate::registered::Registered;
use crate::token_endpoint;

/// Where the token of one user at one provider is.
#[derive(Clone)]
pub(crate) struct StoredToken {
    pub(crate) oauth: OAuth,
    pub(crate) registered: Arc<Registered>,
    pub(crate) key: TokenKey,
}

impl StoredToken {
    /// A token that has not expired, refreshed if need be.
    pub(crate) async fn usable(&self) -> Result<Token, ConnectError> {
        self.reseal().await;
        let refresher = &self.oauth.inner.refresher;
        if self.registered.oauth1.is_some() {
            return Ok(refresher.credentials(&self.oauth.tokens, &self.key).await?.into());
        }
        Ok(refresher.usable(&self.oauth.tokens, &self.key, &self.provider()).await?.into())
    }

    /// Seals a token of this request's storage again, if an older key sealed it. No other process can list it to do so.
    async fn reseal(&self) {
        if !self.oauth.inner.per_request || !self.oauth.inner.keys_change {
            return;
        }
        if let Err(error) = self.oauth.tokens.reseal(&self.key).await {
            // Whatever it is, reading the token says it too.
            tracing::debug!(error = &error as &dyn std::error::Error, "a token was not sealed again");
        }
    }

    /// A token other than one that the API has rejected; `None` if that one stays in use.
    pub(crate) async fn replace_rejected(
        &self,
        rejected: &Secret,
        rejection: Rejection,
    ) -> Result<Option<Token>, ConnectError> {
        let (oauth, provider) = (&self.oauth, self.provider());
        let refresher = &oauth.inner.refresher;
        let replaced = refresher.replace_rejected(rejected, rejection, &oauth.tokens, &self.key, &provider).await?;
        Ok(replaced.map(Token::from))
    }

    /// Notes that the provider no longer accepts these token credentials, and returns others if such are stored by now.
    pub(crate) async fn replace_refused(&self, refused: &OAuth1Token) -> Result<Option<Token>, ConnectError> {
        self.oauth.inner.refresher.refuse(refused, &self.oauth.tokens, &self.key).await?;
        let stored = self.usable().await?;
        Ok(Some(stored).filter(|stored| stored.as_oauth1() != Some(refused)))
    }

    /// What redeems its refresh token.
    pub(crate) fn provider(&self) -> Arc<dyn Redeem> {
        Arc::new(TokenEndpoint { oauth: self.oauth.clone(), registered: Arc::clone(&self.registered) })
    }
}

/// Counts what happened for whoever operates the application. The labels come from its configuration and this code.
pub(crate) fn count(key: &TokenKey, event: &RefreshEvent) {
    let labels = [("provider", key.provider().to_owned()), ("event", event.name().to_owned())];
    metrics::counter!("oauth_dance_refresh_events_total", &labels).increment(1);
}

/// Where one provider's refresh tokens are redeemed.
struct TokenEndpoint {
    oauth: OAuth,
    registered: Arc<Registered>,
}

#[async_trait]
impl Redeem for TokenEndpoint {
    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let Some(refresh_token) = &token.refresh_token else {
            return Err(RedeemError::NotRedeemed { cause: "there is no refresh token".to_owned(), retry_after: None });
        };
        let oauth = &self.oauth.inner;
        let registered = self.registered.complete(&self.oauth).await;
        let registered =
            registered.map_err(|error| RedeemError::NotRedeemed { cause: error.to_string(), retry_after: None })?;
        let http = oauth.http.within(lease);
        let answer = token_endpoint::refresh(&http, &registered, token, refresh_token, oauth.clock.now()).await;
        answer.map_err(|error| {
            let provider = &self.registered.name;
            tracing::warn!(provider, error = &error as &dyn std::error::Error, "the refresh token was not redeemed");
            meaning(&error)
        })
    }

    /// The ID token is looked at, but only kept where that is asked for.
    fn kept(&self, old: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        let id_token = new.id_token.as_ref().or(old.id_token.as_ref()).filter(|_| self.registered.keep_id_token);
        let mut kept = new.clone();
        kept.id_token = id_token.cloned();
        kept
    }

    async fn revoke(&self, token: &OAuth2Token) {
        let registered = self.registered.as_complete_as_can_be(&self.oauth).await;
        self.oauth.revoke(&registered, token).await;
    }

    async fn look_at(&self, old: &OAuth2Token, new: &OAuth2Token) -> Verdict {
        // What the application named itself no ID token can repeat.
        let verified = old.subject.as_ref().filter(|subject| !subject.issuer.is_empty());
        let (Some(openid), Some(subject)) = (&self.registered.openid, verified) else { return Verdict::Good };
        let oauth = &self.oauth.inner;
        let verdict = openid.look_at(subject, new, &self.registered.client_id, &oauth.http, oauth.clock.now()).await;
        if let Verdict::Doubtful { cause } | Verdict::Foreign { cause } = &verdict {
            tracing::error!(provider = self.registered.name, cause, "a refresh brought an ID token that is not right");
        }
        verdict
    }
}

/// What an error of the token endpoint says about the refresh token.
fn meaning(error: &TokenEndpointError) -> RedeemError {
    let cause = error.to_string();
    match error {
        error if error.needs_authorization() => RedeemError::Dead { cause },
        TokenEndpointError::LeaseOver => RedeemError::LeaseOver,
        // Also a client that is not accepted: that is a mistake in the configuration, and costs no user their token.
        TokenEndpointError::Unreachable(_) | TokenEndpointError::Proof | TokenEndpointError::Refused { .. } => {
            RedeemError::NotRedeemed { cause, retry_after: None }
        }
        TokenEndpointError::Status { status, retry_after } if status.is_client_error() => {
            RedeemError::NotRedeemed { cause, retry_after: *retry_after }
        }
        TokenEndpointError::Status { retry_after, .. } => RedeemError::Unknown { cause, retry_after: *retry_after },
        TokenEndpointError::Transport(_) | TokenEndpointError::Timeout | TokenEndpointError::Answer(_) => {
            RedeemError::Unknown { cause, retry_after: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    #[test]
    fn only_a_dead_grant_is_dead() {
        let refused = |code: &str| TokenEndpointError::Refused { code: code.to_owned(), description: None };
        let status = |code| TokenEndpointError::Status {
            status: StatusCode::from_u16(code).unwrap(),
            retry_after: Some(Duration::from_secs(7)),
        };
        for dead in ["invalid_grant", "bad_refresh_token"] {
            assert!(matches!(meaning(&refused(dead)), RedeemError::Dead { .. }), "{dead}");
        }
        for passing in ["invalid_client", "temporarily_unavailable", "invalid_request", "slow_down"] {
            assert!(matches!(meaning(&refused(passing)), RedeemError::NotRedeemed { .. }), "{passing}");
        }
        for code in [408, 425, 429] {
            let error = meaning(&status(code));
            assert!(matches!(error, RedeemError::NotRedeemed { retry_after: Some(_), .. }), "{code}");
        }
        for code in [200, 302, 500, 503] {
            assert!(matches!(meaning(&status(code)), RedeemError::Unknown { .. }), "{code}");
        }
        let lost =
            [TokenEndpointError::Timeout, TokenEndpointError::Transport("x".into()), TokenEndpointError::Answer("x")];
        for lost in lost {
            assert!(matches!(meaning(&lost), RedeemError::Unknown { .. }));
        }
        assert!(matches!(meaning(&TokenEndpointError::Unreachable("x".into())), RedeemError::NotRedeemed { .. }));
    }
}
