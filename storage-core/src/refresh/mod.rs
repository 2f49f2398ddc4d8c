//! Refreshes a token exactly once, on any storage and with any number of processes, by compare-and-swap alone.
//!
//! If a provider rotates refresh tokens (RFC 9700 section 4.14.2), redeeming one twice can make it revoke the whole
//! grant. So a process first writes a *claim* into the record, conditionally. The process whose write succeeds
//! *redeems* the refresh token, and *commits* the new token by a write that is conditional on the claim. All other
//! processes poll the record.
//!
//! * **The claim comes first.** It is written before the refresh token is sent. A storage that rejects writes is
//!   detected while the refresh token is still unspent.
//! * **Claims are leases.** If the owner of a claim dies, another process takes the claim over after it has seen it
//!   unchanged for the length of the lease, on its own clock. A token request always times out before its lease ends.
//! * **A logout or a new login wins.** It changes the version, so the commit of a refresh in flight fails and its
//!   result is dropped.
//! * **A new token is never lost to an outage.** If the storage fails after the refresh token was spent, the new token
//!   is served from memory and written when the storage is back. The old refresh token is not sent again meanwhile.
//! * **An outage of the provider costs no token.** The record says until when the provider is not asked again, and why.
//!
//! [`Refresher::refresh_due`] refreshes tokens before a caller needs them, on any number of replicas.

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
