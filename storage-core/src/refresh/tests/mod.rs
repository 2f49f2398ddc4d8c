#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod edits;
mod failures;
mod fleet;
mod flights;
mod ledger;
mod once;
mod provider;
mod races;
mod refusals;
mod rejected;
mod standstill;
mod storage;
