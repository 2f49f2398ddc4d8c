#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod once;
mod provider;
mod storage;
