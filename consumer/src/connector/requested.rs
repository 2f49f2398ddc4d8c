//! Tokens that are requested when they are needed, and stored like any other.
//!
//! The refresh protocol ensures that one request is sent, by all processes together, for a token that has expired. A token
//! that does not exist yet is therefore stored as one that has expired: a placeholder, which contains no secret. Whoever
//! finds it requests the token under the usual claim.
//!
//! Each token contains what it was requested from: a hash of the user's token, for an exchanged one. A stored token that was
//! requested from another one is replaced by a placeholder, together with the state of its refresh, which is discarded.

use std::sync::Arc;

use oauth_dance_core::{
    Extra, OAuth2Token, Precondition, RedeemError, StorageError, Timestamp, Token, TokensError, Versioned,
};

use super::own_key;
use crate::client::stored::{StoredToken, meaning};
use crate::error::{ConnectError, TokenEndpointError};

/// The member of a token that contains what it was requested from.
const ORIGIN: &str = "oauth-dance:origin";

/// A usable token from this origin, requested if necessary. `None` if the record has changed: read the origin, and try
/// again.
///
/// `is_other` is state of the caller: whether the last try found a token from another origin.
pub(super) async fn usable(
    stored: &StoredToken,
    origin: &str,
    is_other: &mut bool,
) -> Result<Option<Arc<Token>>, ConnectError> {
    let error = match stored.usable().await {
        Ok(token) if is_from(&token, origin) => return Ok(Some(token)),
        // It may be from an origin that has just replaced this one.
        Ok(_) if !std::mem::replace(is_other, true) => return Ok(None),
        Ok(_) => None,
        Err(ConnectError::NotConnected) => None,
        // The state may be that of a token from another origin.
        Err(error @ (ConnectError::NeedsAuthorization { .. } | ConnectError::BackingOff { .. })) => Some(error),
        Err(error) => return Err(error),
    };
    let when = match stored.tokens.get(&stored.key).await? {
        None => Precondition::Absent,
        Some(Versioned { value, .. }) if is_from(&value, origin) => return error.map_or(Ok(None), Err),
        Some(Versioned { version, .. }) => Precondition::Version(version),
    };
    match stored.tokens.put(&stored.key, &placeholder(stored, origin), when).await {
        Ok(_) | Err(TokensError::Storage(StorageError::Conflict | StorageError::Ambiguous { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The same token, with its origin.
pub(super) fn from(mut token: OAuth2Token, origin: &str) -> OAuth2Token {
    let mut extra = token.extra.as_map().clone();
    extra.insert(ORIGIN.to_owned(), origin.into());
    token.extra = Extra::from(extra);
    token
}

/// What a failed request means. It has spent nothing, and whether its user has to authorize again is known elsewhere.
pub(super) fn failure(error: &TokenEndpointError) -> RedeemError {
    match meaning(error) {
        RedeemError::Dead { cause } | RedeemError::Refused { cause, .. } => RedeemError::Misconfigured {
            cause: format!(
                "{cause}; check whether the provider allows this client the grant, the audience and the scopes"
            ),
        },
        RedeemError::Unusable { cause, retry_after } | RedeemError::Unknown { cause, retry_after } => {
            RedeemError::NotRedeemed { cause, retry_after }
        }
        error => error,
    }
}

fn is_from(token: &Token, origin: &str) -> bool {
    token.extra().get(ORIGIN).is_some_and(|found| found == origin)
}

/// A token that expired long ago. It differs for each key and origin, so that no two of them are taken for the same token.
fn placeholder(stored: &StoredToken, origin: &str) -> Token {
    let unique = own_key::hash(&[&stored.key.to_bytes(), origin.as_bytes()].concat());
    let mut token = OAuth2Token::bearer(format!("placeholder-{unique}"));
    token.expires_at = Some(Timestamp::from_unix_seconds(0));
    from(token, origin).into()
}
