#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod claims;
mod due;
mod edits;
mod failures;
mod in_flight;
mod ledger;
mod once;
mod provider;
mod races;
mod refusals;
mod rejected;
mod storage;
mod suspensions;
mod verification;
mod without_refresh_token;
