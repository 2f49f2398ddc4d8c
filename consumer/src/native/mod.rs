//! Logins of programs on the user's own machine, which have no server and no browser of their own.
//!
//! Two grants lead to the same end. With a loopback redirect ([`loopback`]) the browser is on the same machine, and carries the
//! code to a listener of the program. With the device grant ([`device`]) the browser is anywhere, and the program asks for its
//! token until the user has decided. What follows is the same code as after a callback of the web part: `login`.

mod device;
mod listener;
mod loopback;
mod page;

use std::time::Duration;

use oauth_dance_core::{ScopeChange, TokenKey};

use crate::connector::Connector;
use crate::error::LoginError;
use crate::login::redeem::{Redeemed, Redeemer};
use crate::protocol::openid::identity::Identity;
use crate::protocol::registered::Registered;

pub use device::{DeviceAttempt, DeviceLogin};
pub use loopback::{LoopbackAttempt, LoopbackLogin};

/// How long a login may take, unless another limit is set.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// A login that has ended, and whose token is stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoggedIn {
    /// The verified identity in the ID token, if the scope `openid` was requested from a provider with an issuer.
    pub identity: Option<Identity>,
    /// How the granted scopes differ from the requested ones. Users can deselect scopes.
    pub scope_change: ScopeChange,
}

/// What both logins need from their start to their end.
struct Login {
    connector: Connector,
    registered: Registered,
    key: TokenKey,
    scopes: Vec<String>,
}

impl Login {
    /// The provider of a key, with everything that a login needs from its issuer.
    async fn start(connector: &Connector, key: &TokenKey, scopes: Option<Vec<String>>) -> Result<Self, LoginError> {
        let registered = connector.registered(key.provider()).map_err(|_| LoginError::UnknownProvider)?;
        let registered = registered.complete(connector.http()).await?;
        let scopes = scopes.unwrap_or_else(|| registered.declared.scopes.clone());
        Ok(Self { connector: connector.clone(), registered, key: key.clone(), scopes })
    }

    /// Stores a token that was just issued, after its identity has been verified.
    async fn end(&self, redeemer: &Redeemer<'_>, redeemed: Redeemed) -> Result<LoggedIn, LoginError> {
        let Redeemed { mut token, identity } = redeemed;
        let granted = token.as_oauth2().and_then(|token| token.scope.as_deref());
        let scope_change = ScopeChange::between(&self.scopes, granted);
        redeemer.retain_id_token_if_declared(&mut token);
        redeemer.store(&self.key, &token).await?;
        tracing::info!(provider = self.registered.declared.name, "login finished");
        Ok(LoggedIn { identity, scope_change })
    }
}
