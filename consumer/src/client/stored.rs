//! Gets a usable token from a stored one, by the refresh protocol of the core, and implements what that needs from a
//! provider.
//!
//! The protocol knows no provider. It needs to know one thing of a failed token request: whether the refresh token may have
//! been spent. `meaning` decides that. An error before the request was sent means that it was not. A lost response, or a
//! response of a gateway, means that it may have been. Only a refusal that names the grant ends the connection; any other
//! refusal is retried later, because a wrong decision would disconnect a user who cannot be asked.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use oauth_dance_core::{
    Lease, OAuth1Token, OAuth2Token, Redeem, RedeemError, RefreshEvent, Refresher, Rejection, Secret, Token, TokenKey,
    Tokens, Verdict,
};
use url::Url;

use crate::error::{ConnectError, Fault, TokenEndpointError};
use crate::protocol::http::HttpClients;
use crate::protocol::oauth2::revoke::revoke_grant;
use crate::protocol::oauth2::token_request;
use crate::protocol::oauth2::token_response::Reading;
use crate::protocol::registered::Registered;

/// A stored token: usually that of one user at one provider.
#[derive(Clone)]
pub(crate) struct StoredToken {
    pub(crate) refresher: Arc<Refresher>,
    pub(crate) tokens: Tokens,
    pub(crate) http: HttpClients,
    /// Whether a token that an older key sealed is resealed when it is read, because no other process can list it.
    pub(crate) reseals: bool,
    pub(crate) registered: Registered,
    pub(crate) key: TokenKey,
    /// The grant that requests it again, for a token that needs no refresh token.
    pub(crate) grant: Option<Arc<dyn Redeem>>,
    /// The only API that accepts the token, if that is not the provider's usual one.
    pub(crate) api_base: Option<Arc<Url>>,
}

impl StoredToken {
    /// A token that has not expired, refreshed if necessary.
    pub(crate) async fn usable(&self) -> Result<Arc<Token>, ConnectError> {
        self.reseal().await;
        let is_oauth1 = self.registered.oauth1.is_some();
        let cached = self.refresher.cached(&self.tokens, &self.key);
        if let Some(token) = cached.filter(|token| token.as_oauth1().is_some() == is_oauth1) {
            return Ok(token);
        }
        let token = if is_oauth1 {
            self.refresher.credentials(&self.tokens, &self.key).await?.into()
        } else {
            self.refresher.usable(&self.tokens, &self.key, &self.provider()).await?.into()
        };
        Ok(Arc::new(token))
    }

    async fn reseal(&self) {
        if !self.reseals {
            return;
        }
        if let Err(error) = self.tokens.reseal(&self.key).await {
            // Reading the token reports the same error.
            tracing::debug!(error = &error as &dyn std::error::Error, "a token was not resealed");
        }
    }

    /// A token that replaces one that the API has rejected; `None` if that one stays in use.
    pub(crate) async fn replace_rejected(
        &self,
        rejected: &Secret,
        rejection: Rejection,
    ) -> Result<Option<Arc<Token>>, ConnectError> {
        let (tokens, provider) = (&self.tokens, self.provider());
        let replaced = self.refresher.replace_rejected(rejected, rejection, tokens, &self.key, &provider).await?;
        Ok(replaced.map(|token| Arc::new(token.into())))
    }

    /// Records that the provider no longer accepts these token credentials, and returns others if they are stored by now.
    pub(crate) async fn replace_refused(&self, refused: &OAuth1Token) -> Result<Option<Arc<Token>>, ConnectError> {
        self.refresher.mark_refused(refused, &self.tokens, &self.key).await?;
        let stored = self.usable().await?;
        Ok(Some(stored).filter(|stored| stored.as_oauth1() != Some(refused)))
    }

    /// Whether the token can be replaced without the user.
    pub(crate) fn is_renewable(&self, token: &Token) -> bool {
        self.grant.is_some() || token.as_oauth2().is_some_and(|token| token.refresh_token.is_some())
    }

    /// The token endpoint that redeems its refresh token, or the grant that needs none.
    pub(crate) fn provider(&self) -> Arc<dyn Redeem> {
        if let Some(grant) = &self.grant {
            return Arc::clone(grant);
        }
        let (http, registered) = (self.http.clone(), self.registered.clone());
        Arc::new(TokenEndpoint { http, registered, complete: OnceLock::new(), concerns: OnceLock::new() })
    }
}

/// Counts refresh events, for the operator of the application. The labels are from its configuration and this code.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "nothing is counted"))]
pub(crate) fn count(key: &TokenKey, event: &RefreshEvent) {
    #[cfg(feature = "metrics")]
    {
        let labels = [("provider", key.provider().to_owned()), ("event", event.name().to_owned())];
        metrics::counter!("oauth_dance_refresh_events_total", &labels).increment(1);
    }
}

/// The token endpoint of one provider, for one refresh.
struct TokenEndpoint {
    http: HttpClients,
    registered: Registered,
    complete: OnceLock<Registered>,
    /// What could not be verified about the new token. Each value redeems one token.
    concerns: OnceLock<String>,
}

#[async_trait]
impl Redeem for TokenEndpoint {
    async fn prepare(&self) -> Result<(), RedeemError> {
        self.complete().await.map(drop)
    }

    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let Some(refresh_token) = &token.refresh_token else {
            return Err(RedeemError::NotRedeemed { cause: "there is no refresh token".to_owned(), retry_after: None });
        };
        let registered = self.complete().await?;
        let http = self.http.within(lease);
        match token_request::refresh(&http, &registered, token, refresh_token, http.clock.now()).await {
            Ok(Reading { token, concerns }) => {
                if !concerns.is_empty() {
                    let _ = self.concerns.set(concerns.join(", "));
                }
                Ok(token)
            }
            Err(error) => {
                let provider = &self.registered.declared.name;
                tracing::warn!(
                    provider,
                    error = &error as &dyn std::error::Error,
                    "the refresh token was not redeemed"
                );
                Err(meaning(&error))
            }
        }
    }

    /// The ID token is verified, but stored only if that is configured.
    fn to_store(&self, old: &OAuth2Token, new: &OAuth2Token) -> OAuth2Token {
        let id_token =
            new.id_token.as_ref().or(old.id_token.as_ref()).filter(|_| self.registered.declared.store_id_token);
        let mut stored = new.clone();
        stored.id_token = id_token.cloned();
        stored
    }

    async fn revoke(&self, token: &OAuth2Token) {
        let registered = self.registered.best_effort(&self.http).await;
        revoke_grant(&self.http, &registered, token).await;
    }

    async fn verify(&self, old: &OAuth2Token, new: &OAuth2Token) -> Verdict {
        let provider = &self.registered.declared.name;
        let concerns = self.concerns.get();
        if let Some(concerns) = concerns {
            tracing::error!(
                provider,
                concerns,
                "a refresh returned a token with unverified properties, and the token was stored"
            );
        }
        let passed = || concerns.map_or(Verdict::Accepted, |concerns| Verdict::Unverified { cause: concerns.clone() });
        // An ID token cannot contain a subject that the application itself named.
        let verified = old.subject.as_ref().filter(|subject| !subject.issuer.is_empty());
        let (Some(openid), Some(subject)) = (&self.registered.openid, verified) else { return passed() };
        let http = &self.http;
        let verdict = openid.verify_refresh(subject, new, &self.registered.client_id, http, http.clock.now()).await;
        if let Verdict::Unverified { cause } | Verdict::DifferentSubject { cause } = &verdict {
            tracing::error!(provider, cause, "a refresh returned an ID token that failed verification");
        }
        if verdict == Verdict::Accepted { passed() } else { verdict }
    }
}

impl TokenEndpoint {
    /// The provider, completed by its metadata, which is fetched once.
    async fn complete(&self) -> Result<Registered, RedeemError> {
        if let Some(complete) = self.complete.get() {
            return Ok(complete.clone());
        }
        let complete = self.registered.complete(&self.http).await;
        let complete =
            complete.map_err(|error| RedeemError::NotRedeemed { cause: error.to_string(), retry_after: None })?;
        Ok(self.complete.get_or_init(|| complete).clone())
    }
}

/// Error codes that a server sends instead of a 5xx status: that of RFC 6749 section 4.1.2.1, and those of Slack, Google and
/// others. Slack says that a part of such a request may have succeeded.
const SERVER_ERRORS: [&str; 6] = [
    "server_error",
    "internal_error",
    "internal_server_error",
    "internal_failure",
    "fatal_error",
    "service_unavailable",
];

/// What an error of the token endpoint means for the refresh token.
///
/// If the response says that the grant is dead, its status does not matter. Otherwise the status comes first: a gateway may
/// respond for a provider that has already spent the refresh token, even with JSON.
pub(crate) fn meaning(error: &TokenEndpointError) -> RedeemError {
    let cause = error.to_string();
    let (status, fault, retry_after) = match error {
        error if error.needs_authorization() => return RedeemError::Dead { cause },
        TokenEndpointError::LeaseExpired => return RedeemError::LeaseExpired,
        TokenEndpointError::Unreachable(_) | TokenEndpointError::Proof => {
            return RedeemError::NotRedeemed { cause, retry_after: None };
        }
        TokenEndpointError::Transport(_) | TokenEndpointError::Timeout => {
            return RedeemError::Unknown { cause, retry_after: None };
        }
        TokenEndpointError::InvalidResponse(_) => return RedeemError::Unusable { cause, retry_after: None },
        TokenEndpointError::Refused { code, retry_after, .. } if SERVER_ERRORS.contains(&code.as_str()) => {
            return RedeemError::Unusable { cause, retry_after: *retry_after };
        }
        TokenEndpointError::Refused { status, fault, retry_after, .. } => (*status, Some(*fault), *retry_after),
        TokenEndpointError::Status { status, retry_after } => (*status, None, *retry_after),
    };
    match (status.as_u16(), fault) {
        // These are rejected before the request is processed (RFC 6585 section 4, RFC 8470 section 5.2, RFC 9110 section
        // 15.5.9).
        (408 | 425 | 429, _) => RedeemError::NotRedeemed { cause, retry_after },
        (300..=399 | 500.., _) | (..300, None) => RedeemError::Unusable { cause, retry_after },
        (_, Some(Fault::Temporary)) => RedeemError::NotRedeemed { cause, retry_after },
        (_, Some(Fault::Client)) => RedeemError::Misconfigured { cause: to_correct(&cause) },
        // Without an error code, these concern the client and its endpoint (RFC 6749 section 5.2).
        (401 | 404 | 405 | 410 | 415, None) => RedeemError::Misconfigured { cause: to_correct(&cause) },
        _ => RedeemError::Refused { cause, retry_after },
    }
}

fn to_correct(cause: &str) -> String {
    format!("{cause}; check the client's registration and the provider's endpoints in the configuration")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    fn refused(status: u16, code: &str, fault: Fault) -> TokenEndpointError {
        let status = StatusCode::from_u16(status).unwrap();
        let retry_after = Some(Duration::from_secs(7));
        TokenEndpointError::Refused { code: code.to_owned(), description: None, status, retry_after, fault }
    }

    fn status(status: u16) -> TokenEndpointError {
        let status = StatusCode::from_u16(status).unwrap();
        TokenEndpointError::Status { status, retry_after: Some(Duration::from_secs(7)) }
    }

    #[test]
    fn only_a_dead_grant_ends_the_connection() {
        for status in [200, 400, 401, 403, 429, 500, 503] {
            let error = refused(status, "invalid_grant", Fault::Grant);
            assert!(matches!(meaning(&error), RedeemError::Dead { .. }), "{status}");
        }
        let unknown = |status, code| refused(status, code, Fault::Unknown);
        let others = [
            unknown(400, "invalid_request"),
            unknown(403, "access_denied"),
            unknown(404, "unspecified"),
            unknown(200, "unspecified"),
            status(400),
            status(403),
        ];
        for other in others {
            assert!(matches!(meaning(&other), RedeemError::Refused { retry_after: Some(_), .. }), "{other:?}");
        }
    }

    #[test]
    fn a_fault_of_the_client_affects_no_grant() {
        for status in [200, 400, 401, 403, 404] {
            let error = meaning(&refused(status, "invalid_client", Fault::Client));
            assert!(matches!(error, RedeemError::Misconfigured { .. }), "{status}");
        }
        for code in [401, 404, 405, 410, 415] {
            assert!(matches!(meaning(&status(code)), RedeemError::Misconfigured { .. }), "{code}");
        }
    }

    /// A gateway responds in JSON too, and does not know whether the refresh token is spent.
    #[test]
    fn the_status_takes_precedence_over_the_error() {
        for code in [300, 302, 500, 502, 503, 504, 599] {
            for error in [status(code), refused(code, "x", Fault::Temporary), refused(code, "x", Fault::Client)] {
                assert!(matches!(meaning(&error), RedeemError::Unusable { retry_after: Some(_), .. }), "{error:?}");
            }
        }
        for code in [408, 425, 429] {
            for error in [status(code), refused(code, "invalid_client", Fault::Client)] {
                assert!(matches!(meaning(&error), RedeemError::NotRedeemed { retry_after: Some(_), .. }), "{error:?}");
            }
        }
        let error = meaning(&refused(400, "slow_down", Fault::Temporary));
        assert!(matches!(error, RedeemError::NotRedeemed { retry_after: Some(_), .. }));
        let error = meaning(&refused(400, "server_error", Fault::Unknown));
        assert!(matches!(error, RedeemError::Unusable { retry_after: Some(_), .. }));
        assert!(matches!(meaning(&status(204)), RedeemError::Unusable { .. }));
        assert!(matches!(meaning(&TokenEndpointError::InvalidResponse("x")), RedeemError::Unusable { .. }));
    }

    #[test]
    fn a_request_without_a_response_may_have_been_sent() {
        for lost in [TokenEndpointError::Timeout, TokenEndpointError::Transport("x".into())] {
            assert!(matches!(meaning(&lost), RedeemError::Unknown { .. }));
        }
        for unsent in [TokenEndpointError::Unreachable("x".into()), TokenEndpointError::Proof] {
            assert!(matches!(meaning(&unsent), RedeemError::NotRedeemed { .. }));
        }
    }
}
