//! Refreshes a token exactly once, on any storage and with any number of processes, by compare-and-swap alone.
//!
//! If a provider rotates refresh tokens (RFC 9700 section 4.14.2), redeeming one twice can make it revoke the whole
//! grant. Therefore a refresh has three steps:
//!
//! 1. **Claim**: the process writes a claim into the record, on the condition that the record has not changed. Of
//!    several processes, one succeeds. The others poll the record until the new token is there.
//! 2. **Redeem**: this process sends the refresh token to the provider.
//! 3. **Commit**: it writes the new token, on the condition that its claim is still there.
//!
//! [`Refresher`] is the entry point. [`Redeem`] is what it needs to know about a provider.
//!
//! # Why this is safe
//!
//! * **The claim comes first.** It is written before the refresh token is sent. A storage that rejects writes is
//!   detected while the refresh token is still unspent. Only the storage of a single request may be too small for a
//!   claim. Other requests would not see the claim, so a short pause is written in its place.
//! * **Claims are leases.** If the owner of a claim dies, another process takes over after the claim has stayed
//!   unchanged for the length of its lease. The other process measures this time on its own clock, so clocks need not
//!   agree. A token request always times out before its lease ends. Only a claim in the storage of a request is
//!   measured from when it was written, because no request waits for long. With a ledger, it ends immediately.
//! * **A logout or a new login takes precedence.** It changes the version, so the commit of a refresh in flight fails,
//!   and its result is dropped.
//! * **An outage of the storage loses no token.** If the storage fails after the refresh token was spent, the new token
//!   is served from memory and written when the storage is back. The old refresh token is not sent again.
//! * **An outage of the provider loses no token.** The record contains when the refresh may be retried, and what
//!   failed.
//! * **One refresh per key in a process.** It runs in its own task, which no caller can abort.
//!
//! One case remains that no protocol can solve: a process dies after the provider has spent the refresh token and
//! before the new token is stored. The next process sends the old refresh token once more. If the provider rejects it,
//! the connection is [dead](DeadReason::ResponseLost), and the user has to authorize again.
//!
//! # Times
//!
//! | what | how long |
//! | --- | --- |
//! | token request | at most 20 seconds; see [`Refresher::with_request_timeout`] |
//! | lease | ten seconds longer than the token request |
//! | pause before a retry | from 2 seconds, doubled up to 5 minutes; up to an hour if the provider refuses the token or sends `Retry-After` |
//! | poll of a record that another process has claimed | from 20 ms, doubled up to half a second |
//! | a call of [`Refresher::usable`] | at most two leases and a token request: 80 seconds |
//!
//! All pauses are random within their second half, so that processes do not act in lockstep.
//!
//! # Where to go next
//!
//! * [`Refresher::usable`] returns a token, and [`Refresher::connection`] the state of a stored token.
//! * [`Refresher::replace_rejected`] is for an access token that the provider's API has rejected.
//! * [`Refresher::refresh_due`] refreshes tokens before a caller needs them, on any number of replicas.
//! * [`Refresher::with_observer`] reports what happened to each connection.

mod commit;
mod connection;
mod credentials;
mod due;
mod error;
mod event;
mod failure;
mod lease;
mod ledger;
mod need;
mod policy;
mod protocol;
mod redeem;
mod refresher;
mod rejected;
#[cfg(test)]
mod simulation;
mod single_flight;
mod successor;
#[cfg(test)]
mod tests;

pub use crate::progress::DeadReason;
pub use connection::{Connection, ConnectionState};
pub use due::{Due, DueReport};
pub use error::RefreshError;
pub use event::RefreshEvent;
pub use lease::Lease;
pub use redeem::{Redeem, RedeemError, Verdict};
pub use refresher::Refresher;
pub use rejected::Rejection;
