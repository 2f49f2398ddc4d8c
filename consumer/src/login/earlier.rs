//! Whether the user of a login has an earlier token, which the revocation of a new token might end.
//!
//! At some providers, one revocation ends all tokens that a user has granted to a client. The earlier token may be stored
//! under another account of the user, or for another registration with the same client.

use oauth_dance_core::{Filter, StorageError, TokenKey, TokensError};

use crate::connector::Connector;
use crate::connector::own_key::is_own;

/// What is known about an earlier token. If both tokens are of the same grant, revoking one may revoke the other.
pub(crate) enum Earlier {
    /// No token of this client was stored for the user of this key.
    None(TokenKey),
    Some,
    Unknown,
}

impl Earlier {
    /// What is known at this moment, before the new token is stored.
    pub(crate) async fn of(connector: &Connector, key: Option<&TokenKey>) -> Self {
        let Some(key) = key else { return Self::Unknown };
        match connector.has_grant(key).await {
            Ok(true) => Self::Some,
            Ok(false) => Self::None(key.clone()),
            // A token of a storage without lists may be stored under a key that is not known here.
            Err(TokensError::Storage(StorageError::Unsupported(_))) => match connector.tokens.get(key).await {
                Ok(Some(_)) => Self::Some,
                Ok(None) | Err(_) => Self::Unknown,
            },
            Err(_) => Self::Unknown,
        }
    }
}

impl Connector {
    /// Whether the user of this key has a token under any account, of any registration with the same client.
    async fn has_grant(&self, key: &TokenKey) -> Result<bool, TokensError> {
        let filter = Filter::everything().tenant(key.tenant()).user(key.user());
        let entries = self.entries(&filter).await?;
        let mut keys = entries.iter().map(|entry| &entry.key);
        Ok(keys.any(|found| !is_own(found) && self.is_same_client(found.provider(), key.provider())))
    }

    /// Whether two providers are the same one, or are registered with the same client.
    fn is_same_client(&self, one: &str, other: &str) -> bool {
        let client = |name| self.registered(name).ok().map(|registered| &registered.client_id);
        one == other || client(one).is_some_and(|id| Some(id) == client(other))
    }
}
