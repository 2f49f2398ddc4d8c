//! The names of states.

use oauth_dance::ConnectionState;

/// The state of a connection as one word, for programs.
pub(crate) fn state_name(state: &ConnectionState) -> &'static str {
    match state {
        ConnectionState::Valid => "valid",
        ConnectionState::Expiring => "expiring",
        ConnectionState::Refreshing => "refreshing",
        ConnectionState::OutcomeUnknown => "outcome_unknown",
        ConnectionState::BackingOff { .. } => "backing_off",
        ConnectionState::NeedsAuthorization { .. } => "needs_authorization",
        _ => "unknown",
    }
}
