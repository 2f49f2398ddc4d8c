//! The application's own token (RFC 6749 section 4.4).

use std::sync::Arc;

use async_trait::async_trait;
use oauth_dance_core::{Lease, OAuth2Token, Redeem, RedeemError};

use super::{Audience, Connector, own_key, requested};
use crate::client::ApiClient;
use crate::error::{ConfigError, ConnectError};
use crate::protocol::http::HttpClients;
use crate::protocol::oauth2::revoke::revoke_grant;
use crate::protocol::oauth2::token_request;
use crate::protocol::registered::Registered;

/// How often the record may change while a token is requested. Processes that start together change it once.
pub(super) const MAX_TRIES: usize = 5;
/// What the application's tokens are requested from. A token of a user under the same key is not one of them.
const ORIGIN: &str = "client_credentials";

impl Connector {
    /// A client that acts for the application itself, with a token from the client credentials grant (RFC 6749 section
    /// 4.4): for an API that is not specific to one user. The server chooses the scopes and the audience;
    /// [`client_credentials_for`](Self::client_credentials_for) requests some.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::Connector;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// let acme = connector.client_credentials("acme").await?;
    /// let notes = acme.get("/notes").send().await?.success()?;
    /// assert_eq!(notes.json::<serde_json::Value>()?["user"], "test-client");
    ///
    /// // The token is stored, and requested again when it has expired.
    /// connector.client_credentials("acme").await?;
    /// assert_eq!(provider.counters().client_credentials, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`client_credentials_for`](Self::client_credentials_for).
    ///
    /// # Cancel safety
    /// As [`client_credentials_for`](Self::client_credentials_for).
    pub async fn client_credentials(&self, provider: &str) -> Result<ApiClient, ConnectError> {
        self.client_credentials_for(provider, &Audience::default()).await
    }

    /// The same for an audience, resources or scopes.
    ///
    /// The token is stored, sealed, next to those of users: under the tenant `oauth-dance:application`, the identifier
    /// of the client as the user, and a hash of the [`Audience`] as the account. All processes share it, and one of
    /// them requests it again when it has expired, or when the API rejects it.
    ///
    /// ```
    /// # use oauth_dance::{Connector, KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::Audience;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// let readers = Audience::default().with_scopes(["notes:read"]);
    /// let acme = connector.client_credentials_for("acme", &readers).await?;
    /// assert_eq!(acme.token().scope(), Some(&["notes:read".to_owned()][..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::UnknownProvider`]; [`ConnectError::Config`] if the client has no secret, the provider uses OAuth
    /// 1.0a, or the API base is invalid; [`ConnectError::BackingOff`] if the provider refuses or fails, with its cause,
    /// until the request is retried; [`ConnectError::Storage`], [`ConnectError::Busy`], [`ConnectError::Interrupted`].
    ///
    /// # Cancel safety
    /// The request runs in its own task. Dropping this future does not lose the token.
    pub async fn client_credentials_for(&self, provider: &str, audience: &Audience) -> Result<ApiClient, ConnectError> {
        let registered = self.registered(provider)?;
        if registered.oauth1.is_some() {
            return Err(not_allowed(
                registered,
                "temporary_credentials_endpoint",
                "is for OAuth 1.0a, which has no such grant",
            ));
        }
        // Section 4.4: only a confidential client may use it.
        if registered.client_secret(self.shared.http.clock.now()).is_none() {
            return Err(ConnectError::Config(ConfigError::missing(provider, "client_secret")));
        }
        let api_base = audience.checked_api_base(provider, &self.shared.plain_http).map_err(ConnectError::Config)?;
        let key = own_key::of_application(provider, &registered.client_id, audience)?;
        let registered = registered.best_effort(&self.shared.http).await;
        let grant = ClientCredentials {
            http: self.shared.http.clone(),
            registered: registered.clone(),
            audience: audience.clone(),
        };
        let mut stored = self.stored(registered, key);
        stored.grant = Some(Arc::new(grant));
        stored.api_base = api_base;
        let mut is_other = false;
        for _ in 0..MAX_TRIES {
            if let Some(token) = requested::usable(&stored, ORIGIN, &mut is_other).await? {
                return Ok(ApiClient::of(stored, token));
            }
        }
        Err(ConnectError::Busy)
    }
}

/// A call that a provider cannot be used for.
pub(super) fn not_allowed(registered: &Registered, field: &'static str, problem: &'static str) -> ConnectError {
    ConnectError::Config(ConfigError::invalid(&registered.declared.name, field, problem))
}

/// Requests the application's token.
struct ClientCredentials {
    http: HttpClients,
    registered: Registered,
    audience: Audience,
}

#[async_trait]
impl Redeem for ClientCredentials {
    fn can_redeem(&self, _: &OAuth2Token) -> bool {
        true
    }

    async fn prepare(&self) -> Result<(), RedeemError> {
        complete(&self.registered, &self.http).await.map(drop)
    }

    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let registered = complete(&self.registered, &self.http).await?;
        let (http, key) = (self.http.within(lease), registered.dpop_key(token.dpop_key.clone()));
        let scope = self.audience.scope(registered.declared.scope_separator);
        let form: Vec<_> =
            [("grant_type", "client_credentials")].into_iter().chain(self.audience.parameters(&scope)).collect();
        let requested = token_request::request(&http, &registered, &form, None, key, http.clock.now()).await;
        requested.map(|token| requested::from(token, ORIGIN)).map_err(|error| {
            let provider = &registered.declared.name;
            tracing::warn!(provider, error = &error as &dyn std::error::Error, "the application got no token");
            requested::failure(&error)
        })
    }

    async fn revoke(&self, token: &OAuth2Token) {
        revoke_grant(&self.http, &self.registered.best_effort(&self.http).await, token).await;
    }
}

/// The provider, completed by its metadata.
pub(super) async fn complete(registered: &Registered, http: &HttpClients) -> Result<Registered, RedeemError> {
    let complete = registered.complete(http).await;
    complete.map_err(|error| RedeemError::NotRedeemed { cause: error.to_string(), retry_after: None })
}
