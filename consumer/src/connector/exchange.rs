//! A user's token for another service (RFC 8693).

use std::sync::Arc;

use async_trait::async_trait;
use oauth_dance_core::{Lease, OAuth2Token, Redeem, RedeemError, Rejection, Token, TokenKey, Verdict};

use super::application::{MAX_TRIES, complete, not_allowed};
use super::{Audience, Connector, own_key, requested};
use crate::client::ApiClient;
use crate::client::stored::{StoredToken, meaning};
use crate::error::{ConnectError, TokenEndpointError};
use crate::protocol::http::HttpClients;
use crate::protocol::oauth2::revoke::revoke_grant;
use crate::protocol::oauth2::token_request;
use crate::protocol::registered::Registered;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

impl Connector {
    /// A client that acts for the user of this key at another service that trusts the same authorization server: the user's
    /// token is exchanged for one with that [`Audience`] (RFC 8693). The user's token itself is not sent to the service.
    ///
    /// The exchanged token is stored, sealed, next to the user's: under the same tenant, user and provider. All
    /// processes share it, and one of them exchanges the token again when it has expired, or when the service rejects
    /// it. It is bound to the user's token: after a logout, a new login or a refresh, an earlier one is never used
    /// again, and [`disconnect`](Self::disconnect) removes and revokes it.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::{Audience, ConnectError, Connector, TokenKey};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// let alice = TokenKey::new("acme", "alice")?;
    /// provider.connect_key(&connector, &alice).await?;
    /// # let billing_url = format!("{}/api/billing", provider.url());
    /// let billing = Audience::new("billing").with_api_base(billing_url);
    ///
    /// let client = connector.exchange(&alice, &billing).await?;
    /// let invoices = client.get("/invoices").send().await?.success()?.json::<serde_json::Value>()?;
    /// assert_eq!((&invoices["user"], &invoices["audience"][0]), (&"alice".into(), &"billing".into()));
    ///
    /// connector.disconnect(&alice).await?;
    /// assert!(matches!(connector.exchange(&alice, &billing).await, Err(ConnectError::NotConnected)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`client`](Self::client) for the user's own token, which is refreshed first if it has expired;
    /// [`ConnectError::Config`] if the provider uses OAuth 1.0a or the API base is invalid;
    /// [`ConnectError::BackingOff`] if the provider refuses or fails to exchange the token, with its cause, until the
    /// request is retried.
    ///
    /// # Cancel safety
    /// The request runs in its own task. Dropping this future does not lose the token.
    pub async fn exchange(&self, key: &TokenKey, audience: &Audience) -> Result<ApiClient, ConnectError> {
        let subject = self.login(key).await?;
        let registered = &subject.registered;
        if registered.oauth1.is_some() {
            return Err(not_allowed(
                registered,
                "temporary_credentials_endpoint",
                "is for OAuth 1.0a, which has no such grant",
            ));
        }
        let api_base = audience.checked_api_base(key.provider(), &self.shared.plain_http);
        let mut stored = self.stored(registered.clone(), own_key::of_exchanged(key, audience)?);
        stored.api_base = api_base.map_err(ConnectError::Config)?;
        stored.grant = Some(Arc::new(TokenExchange { subject: subject.clone(), audience: audience.clone() }));
        let mut is_other = false;
        for tries in 0..MAX_TRIES {
            let token = match subject.usable().await {
                Err(ConnectError::NotConnected) if tries > 0 => {
                    // A placeholder of the last try would remain.
                    stored.tokens.delete(&stored.key, None).await?;
                    return Err(ConnectError::NotConnected);
                }
                token => token?,
            };
            let origin = origin(&token);
            if let Some(token) = requested::usable(&stored, &origin, &mut is_other).await? {
                return Ok(ApiClient::of(stored, token));
            }
        }
        Err(ConnectError::Busy)
    }
}

/// Identifies the token that another one is exchanged for.
fn origin(subject: &Token) -> String {
    own_key::hash(subject.secret().expose().as_bytes())
}

/// The errors of a request whose audience, resource or scope the server does not accept, whatever the user's token (RFC 8693
/// section 2.2.2, RFC 6749 section 5.2).
const OF_AUDIENCE: [&str; 2] = ["invalid_target", "invalid_scope"];

/// Whether the server may have refused the user's token.
fn may_be_of_subject(error: &TokenEndpointError) -> bool {
    let is_of_audience =
        matches!(error, TokenEndpointError::Refused { code, .. } if OF_AUDIENCE.contains(&code.as_str()));
    !is_of_audience && matches!(meaning(error), RedeemError::Dead { .. } | RedeemError::Refused { .. })
}

/// Exchanges a user's token.
struct TokenExchange {
    subject: StoredToken,
    audience: Audience,
}

impl TokenExchange {
    fn http(&self) -> &HttpClients {
        &self.subject.http
    }

    async fn subject(&self) -> Result<Arc<Token>, RedeemError> {
        let usable = self.subject.usable().await;
        usable.map_err(|error| RedeemError::NotRedeemed { cause: error.to_string(), retry_after: None })
    }

    async fn exchange(
        &self,
        http: &HttpClients,
        registered: &Registered,
        subject: &Token,
        old: &OAuth2Token,
    ) -> Result<OAuth2Token, TokenEndpointError> {
        let scope = self.audience.scope(registered.declared.scope_separator);
        let form: Vec<_> = [
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token", subject.secret().expose()),
            ("subject_token_type", ACCESS_TOKEN),
        ]
        .into_iter()
        .chain(self.audience.parameters(&scope))
        .collect();
        let key = registered.dpop_key(old.dpop_key.clone());
        let token =
            token_request::request(http, registered, &form, Some(subject.secret()), key, http.clock.now()).await?;
        Ok(requested::from(token, &origin(subject)))
    }
}

#[async_trait]
impl Redeem for TokenExchange {
    fn can_redeem(&self, _: &OAuth2Token) -> bool {
        true
    }

    async fn prepare(&self) -> Result<(), RedeemError> {
        complete(&self.subject.registered, self.http()).await?;
        self.subject().await.map(drop)
    }

    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let registered = complete(&self.subject.registered, self.http()).await?;
        let (subject, http) = (self.subject().await?, self.http().within(lease));
        let error = match self.exchange(&http, &registered, &subject, token).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        let provider = &registered.declared.name;
        tracing::warn!(provider, error = &error as &dyn std::error::Error, "a token was not exchanged");
        // The server may no longer accept the user's token, although it has not expired. Section 2.2.2 requires the same
        // error for any other reason, so the usual limits for a rejection without a reason apply.
        if may_be_of_subject(&error)
            && let Ok(Some(other)) = self.subject.replace_rejected(subject.secret(), Rejection::Unexplained).await
        {
            let exchanged = self.exchange(&http, &registered, &other, token).await;
            return exchanged.map_err(|error| requested::failure(&error));
        }
        Err(requested::failure(&error))
    }

    async fn revoke(&self, token: &OAuth2Token) {
        revoke_grant(self.http(), &self.subject.registered.best_effort(self.http()).await, token).await;
    }

    /// The user may have disconnected the account while the token was exchanged.
    async fn verify(&self, _: &OAuth2Token, _: &OAuth2Token) -> Verdict {
        match self.subject.tokens.get(&self.subject.key).await {
            Ok(None) => Verdict::Ended,
            _ => Verdict::Accepted,
        }
    }
}
