//! Events of refreshes, for logs and metrics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::key::TokenKey;
use crate::progress::DeadReason;
use crate::scope_change::ScopeChange;
use crate::time::Timestamp;

/// A callback for events.
pub(super) type Observer = Arc<dyn Fn(&TokenKey, &RefreshEvent) + Send + Sync>;

/// What happened to a connection. Log these events to be able to explain later why a user was logged out.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use oauth_dance_core::{RefreshEvent, Refresher};
///
/// let log = Arc::new(Mutex::new(Vec::new()));
/// let lines = Arc::clone(&log);
/// let refresher = Refresher::new().with_observer(move |key, event| {
///     if let RefreshEvent::NeedsAuthorization { reason } = event {
///         lines.lock().unwrap().push(format!("{key}: {}", reason.describe()));
///     }
/// });
/// # let _ = (refresher, log);
/// assert_eq!(RefreshEvent::Refreshed.name(), "refreshed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshEvent {
    /// The token was refreshed and stored.
    Refreshed,
    /// The refreshed token has another scope than its predecessor. The token is stored and used.
    ScopeChanged(ScopeChange),
    /// Another process or task refreshed the token first. Its token is used.
    Adopted,
    /// This process took over a refresh that another process did not finish.
    TakenOver,
    /// The token could not be refreshed. The refresh is retried later.
    BackingOff {
        /// When the refresh is retried.
        until: Timestamp,
        /// What failed.
        cause: String,
    },
    /// The provider refused the refresh token with an unknown error. The refresh token is retained, and the refresh is
    /// retried later.
    Refused {
        /// When the refresh is retried.
        until: Timestamp,
        /// What the provider reported.
        cause: String,
    },
    /// The token could not be refreshed because the client's configuration is wrong. No connection is lost, but no
    /// token of this provider is refreshed until an operator corrects the configuration.
    Misconfigured {
        /// When the refresh is retried.
        until: Timestamp,
        /// What the provider reported, and what to correct.
        cause: String,
    },
    /// The user must authorize again.
    NeedsAuthorization {
        /// Why.
        reason: DeadReason,
    },
    /// The token was refreshed, but the storage does not accept it. It is served from memory while the write is
    /// retried.
    NotStored,
    /// The user logged out during the refresh. The new token was dropped, and revoked if possible.
    Dropped,
    /// The token was refreshed and stored, but could not be verified. It is used.
    Unverified {
        /// What could not be verified.
        cause: String,
    },
    /// The refreshed token is for a different subject. It was deleted, and revoked if possible.
    DifferentSubject {
        /// What shows that the subject differs.
        cause: String,
    },
}

/// Calls the observer. A panic of the observer must not lose a token that is not stored yet, or interrupt a request.
pub(super) fn observe(observer: &Observer, key: &TokenKey, event: &RefreshEvent) {
    if catch_unwind(AssertUnwindSafe(|| observer(key, event))).is_err() {
        tracing::error!(event = event.name(), "the observer of token refreshes panicked");
    }
}

impl RefreshEvent {
    /// A short name in snake case for logs and metrics. It does not change in later releases.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::ScopeChanged(_) => "scope_changed",
            Self::Adopted => "adopted",
            Self::TakenOver => "taken_over",
            Self::BackingOff { .. } => "backing_off",
            Self::Refused { .. } => "refused",
            Self::Misconfigured { .. } => "misconfigured",
            Self::NeedsAuthorization { .. } => "needs_authorization",
            Self::NotStored => "not_stored",
            Self::Dropped => "dropped",
            Self::Unverified { .. } => "unverified",
            Self::DifferentSubject { .. } => "different_subject",
        }
    }
}
