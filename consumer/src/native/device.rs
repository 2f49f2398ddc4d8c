//! The login by device grant (RFC 8628), for machines without a browser.

use std::fmt;
use std::time::Duration;

use oauth_dance_core::{DpopKey, TokenKey};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

use super::{LoggedIn, Login};
use crate::connector::Connector;
use crate::error::{Fault, LoginError, TokenEndpointError};
use crate::login::attempt::Attempt;
use crate::login::earlier::Earlier;
use crate::login::parameters::is_denial;
use crate::login::redeem::Redeemer;
use crate::protocol::oauth2::device::{self, DeviceCode};
use crate::protocol::oauth2::token_request;

/// By how much the interval grows if the provider asks for it (section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest interval after errors of the network.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);

impl Connector {
    /// Starts a login for a machine without a browser (RFC 8628): the user opens a page of the provider on any device, and
    /// enters a short code. The token is stored under the key.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::{Connector, TokenKey};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// let me = TokenKey::new("acme", "me")?;
    /// let login = connector.device_login(&me).start().await?;
    /// println!("Open {} and enter {}", login.verification_uri(), login.user_code());
    /// # reqwest::get(login.verification_uri_complete().unwrap()).await?;
    /// login.finish().await?;
    /// assert!(connector.client(&me).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The provider needs a [device authorization endpoint](crate::Provider::device_authorization_endpoint). Prefer
    /// [`loopback_login`](Self::loopback_login) if there is a browser: an attacker can send a device code to a victim,
    /// who then connects the attacker's device (section 5.4).
    pub fn device_login(&self, key: &TokenKey) -> DeviceLogin {
        DeviceLogin { connector: self.clone(), key: key.clone(), scopes: None }
    }
}

/// The settings of a login by device grant; see [`Connector::device_login`].
#[derive(Clone, Debug)]
#[must_use]
pub struct DeviceLogin {
    connector: Connector,
    key: TokenKey,
    scopes: Option<Vec<String>>,
}

impl DeviceLogin {
    /// Requests these scopes instead of those of the provider's configuration.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = Some(scopes.into_iter().map(Into::into).collect());
        self
    }

    /// Requests a code from the provider.
    ///
    /// # Errors
    /// [`LoginError::Unsupported`] if the provider has no device authorization endpoint; [`LoginError::Device`] if it issues
    /// no code; [`LoginError::UnknownProvider`], [`LoginError::Discovery`].
    ///
    /// # Cancel safety
    /// Nothing is stored. A code that was issued expires.
    pub async fn start(self) -> Result<DeviceAttempt, LoginError> {
        let login = Login::start(&self.connector, &self.key, self.scopes).await?;
        let (registered, http) = (&login.registered, self.connector.http());
        let Some(endpoint) = registered.device_authorization_endpoint().filter(|_| registered.oauth1.is_none()) else {
            return Err(LoginError::Unsupported("the provider has no device authorization endpoint"));
        };
        let code = device::authorize(http, registered, endpoint, &login.scopes).await.map_err(LoginError::Device)?;
        let now = Instant::now();
        let (deadline, key) = (now + code.lifetime, registered.dpop_key(None));
        let mut attempt = Attempt::blank(&registered.declared.name, http.clock.now());
        attempt.expect_id_token_for(registered, &login.scopes);
        // The request carries no nonce.
        attempt.nonce = None;
        tracing::info!(provider = registered.declared.name, "login started");
        Ok(DeviceAttempt { login, attempt, key, interval: code.interval, code, deadline })
    }
}

/// A login that waits for the user; see [`Connector::device_login`]. Dropping it ends the login.
#[must_use = "the login ends when this is dropped"]
pub struct DeviceAttempt {
    login: Login,
    attempt: Attempt,
    /// What the token is bound to, if the provider binds tokens.
    key: Option<DpopKey>,
    code: DeviceCode,
    interval: Duration,
    deadline: Instant,
}

impl DeviceAttempt {
    /// The code that the user enters: printable ASCII, of at most 64 characters.
    pub fn user_code(&self) -> &str {
        &self.code.user_code
    }

    /// The page on which the user enters the code.
    pub fn verification_uri(&self) -> &str {
        self.code.verification_uri.as_str()
    }

    /// The page with the code in its URL, if the provider has one: for a link or a QR code. Show the code as well, so that
    /// the user can compare it (RFC 8628 section 3.3.1).
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.code.verification_uri_complete.as_ref().map(url::Url::as_str)
    }

    /// How long the code remains valid.
    pub fn expires_in(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits until the user has decided, and stores the token, as [`LoopbackAttempt::finish`](super::LoopbackAttempt::finish)
    /// does.
    ///
    /// It polls at the interval that the provider requires, and less often if the provider or the network is slow.
    ///
    /// # Errors
    /// [`LoginError::Denied`], [`LoginError::Expired`] if the user takes longer than the code is valid; [`LoginError::Token`],
    /// [`LoginError::IdToken`], [`LoginError::Storage`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the login, unless the provider is just issuing the token: then it is stored, and
    /// [`Connector::finish`] waits for it.
    pub async fn finish(self) -> Result<LoggedIn, LoginError> {
        let logins = self.login.connector.logins().clone();
        let (mut interval, deadline) = (self.interval, self.deadline);
        let attempt = std::sync::Arc::new(self);
        loop {
            let next = Instant::now() + interval;
            if next >= deadline {
                sleep_until(deadline).await;
                return Err(LoginError::Expired);
            }
            sleep_until(next).await;
            let asking = std::sync::Arc::clone(&attempt);
            let asked = logins.spawn(async move { asking.ask().await }.in_current_span()).await;
            match asked.unwrap_or(Err(LoginError::Interrupted)) {
                Err(LoginError::Token(error)) => interval = next_interval(error, interval)?,
                ended => return ended,
            }
        }
    }

    /// Asks for the token once, and stores it.
    async fn ask(&self) -> Result<LoggedIn, LoginError> {
        let Self { login, attempt, code, key, .. } = self;
        let (registered, http) = (&login.registered, login.connector.http());
        let now = http.clock.now();
        let token = token_request::redeem_device_code(http, registered, &code.device_code, key.clone(), now).await?;
        let earlier = Earlier::of(&login.connector, Some(&login.key)).await;
        let redeemer = Redeemer { connector: &login.connector, registered, earlier: &earlier };
        let redeemed = redeemer.identified(attempt, token).await?;
        login.end(&redeemer, redeemed).await
    }
}

/// Shows neither code.
impl fmt::Debug for DeviceAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAttempt")
            .field("provider", &self.login.registered.declared.name)
            .field("verification_uri", &self.verification_uri())
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// How long to wait after a refusal (section 3.5), or the end of the login.
fn next_interval(error: TokenEndpointError, interval: Duration) -> Result<Duration, LoginError> {
    let backed_off = (interval * 2).min(MAX_BACK_OFF).max(interval);
    let after = |retry_after: Option<Duration>| Ok(backed_off.max(retry_after.unwrap_or_default()));
    match error {
        TokenEndpointError::Refused { code, .. } if code.eq_ignore_ascii_case("authorization_pending") => Ok(interval),
        TokenEndpointError::Refused { code, .. } if code.eq_ignore_ascii_case("slow_down") => Ok(interval + SLOW_DOWN),
        TokenEndpointError::Refused { code, .. } if code.eq_ignore_ascii_case("expired_token") => {
            Err(LoginError::Expired)
        }
        TokenEndpointError::Refused { code, .. } if is_denial(&code) => Err(LoginError::Denied),
        TokenEndpointError::Refused { fault: Fault::Temporary, retry_after, .. } => after(retry_after),
        TokenEndpointError::Status { status, retry_after }
        | TokenEndpointError::Refused { status, retry_after, .. }
            if status.is_server_error() || matches!(status.as_u16(), 408 | 429) =>
        {
            after(retry_after)
        }
        // A connection that times out is retried less often, as the RFC requires.
        TokenEndpointError::Unreachable(_) | TokenEndpointError::Transport(_) | TokenEndpointError::Timeout => {
            after(None)
        }
        error => Err(LoginError::Token(error)),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn refused(code: &str, status: u16, fault: Fault) -> TokenEndpointError {
        let status = StatusCode::from_u16(status).unwrap();
        TokenEndpointError::Refused { code: code.to_owned(), description: None, status, retry_after: None, fault }
    }

    /// The errors of RFC 8628 section 3.5, and what providers send in their place.
    #[test]
    fn each_refusal_has_its_interval() {
        let seconds = |error| next_interval(error, Duration::from_secs(5)).map(|interval| interval.as_secs());
        let unknown = |code| refused(code, 400, Fault::Unknown);
        assert_eq!(seconds(unknown("authorization_pending")).unwrap(), 5);
        assert_eq!(seconds(unknown("slow_down")).unwrap(), 10);
        assert_eq!(seconds(refused("rate_limited", 400, Fault::Temporary)).unwrap(), 10);
        assert_eq!(seconds(refused("server_error", 503, Fault::Unknown)).unwrap(), 10);
        assert_eq!(seconds(TokenEndpointError::Timeout).unwrap(), 10);
        let retry_after = Some(Duration::from_secs(30));
        let status = |status| TokenEndpointError::Status { status, retry_after };
        assert_eq!(seconds(status(StatusCode::TOO_MANY_REQUESTS)).unwrap(), 30);
        assert!(matches!(seconds(status(StatusCode::NOT_FOUND)), Err(LoginError::Token(_))));

        assert!(matches!(seconds(unknown("expired_token")), Err(LoginError::Expired)));
        for denied in ["access_denied", "authorization_declined"] {
            assert!(matches!(seconds(unknown(denied)), Err(LoginError::Denied)), "{denied}");
        }
        for ended in ["invalid_grant", "bad_verification_code", "incorrect_device_code", "invalid_client"] {
            assert!(matches!(seconds(unknown(ended)), Err(LoginError::Token(_))), "{ended}");
        }
    }

    #[test]
    fn time_outs_back_off_to_a_limit() {
        let mut interval = Duration::from_secs(5);
        for expected in [10, 20, 40, 60, 60] {
            interval = next_interval(TokenEndpointError::Timeout, interval).unwrap();
            assert_eq!(interval.as_secs(), expected);
        }
        let long = Duration::from_secs(90);
        assert_eq!(next_interval(TokenEndpointError::Timeout, long).unwrap(), long);
    }
}
