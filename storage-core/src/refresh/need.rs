//! What a caller of a refresh needs.
//!
//! Callers of the same key may need different things: a token that has not expired, or another one than the API has
//! just rejected. A refresh is over for a caller as soon as the stored token meets the caller's need.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::policy::Policy;
use crate::progress::Progress;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::OAuth2Token;

/// The condition that a token has to meet.
#[derive(Clone)]
pub(super) enum Need {
    /// The token has not expired.
    Unexpired,
    /// The token is not due to be refreshed within this margin.
    NotDue(Duration),
    /// The token was issued at this instant or later.
    IssuedSince(Timestamp),
    /// The token is not this one, and has not expired.
    OtherThan(Secret),
    /// The token is a successor of this one, expired or not.
    SuccessorOf(Generation),
}

impl Need {
    /// Whether a token meets the condition now.
    pub(super) fn is_met_by(&self, token: &OAuth2Token, policy: &Policy) -> bool {
        let now = policy.clock.now();
        match self {
            Self::Unexpired => !token.is_expired_at(now),
            Self::NotDue(margin) => !policy.is_due(token, now, *margin),
            Self::IssuedSince(instant) => token.issued_at.is_some_and(|issued_at| issued_at >= *instant),
            Self::SuccessorOf(spent) => generation(token) != *spent,
            Self::OtherThan(rejected) => token.access_token != *rejected && !token.is_expired_at(now),
        }
    }

    /// The state that is stored with a token that was refreshed for this need.
    pub(super) fn progress(&self) -> Progress {
        match self {
            Self::OtherThan(_) => Progress::Replaced,
            _ => Progress::Idle,
        }
    }
}

/// Identifies a token by the hash of its secrets.
pub(super) type Generation = [u8; 32];

/// Computes the hash of a token's secrets. It is one-way, so it may be part of a key in a ledger.
pub(super) fn generation(token: &OAuth2Token) -> Generation {
    let refresh_token = token.refresh_token.as_ref().map(Secret::expose).unwrap_or_default();
    let access_token = token.access_token.expose();
    let length = access_token.len() as u64;
    Sha256::new()
        .chain_update(length.to_be_bytes())
        .chain_update(access_token)
        .chain_update(refresh_token)
        .finalize()
        .into()
}
