//! A test suite for token storages of [`oauth-dance`](https://docs.rs/oauth-dance). It tests each property of the contract of
//! [`TokenStorage`](oauth_dance_core::TokenStorage) separately.
//!
//! # When to use it
//!
//! Add it as a dev-dependency to a crate that implements [`TokenStorage`](oauth_dance_core::TokenStorage), on a medium of any
//! kind: a database, a cache, a file, a service. The storages of `oauth-dance` pass the same suite. A storage that passes it
//! works with everything in `oauth-dance`: logins, refreshes across processes, key rotation, and the tools for operators.
//!
//! It is not a benchmark, and it does not test what only some storages have, such as migrations or TLS.
//!
//! # Example
//!
//! `tests/conformance.rs` is one line:
//!
//! ```no_run
//! # use oauth_dance_core::MemoryStorage as MyStorage;
//! oauth_dance_conformance::conformance_tests!(|| async { Ok(MyStorage::new()) });
//! # fn main() {}
//! ```
//!
//! `cargo test` then runs one test for each of the [`PROPERTIES`], with names such as `conformance::map::missing_is_none`. The
//! closure is called once for each test, and has to return an **empty** storage that **no other test uses**: with a new file,
//! table or prefix. The suite never deletes data that it did not write.
//!
//! # More than the storage alone
//!
//! Some properties need more than the trait: the same data through a new pool, a clock that can be moved, the bytes on disk,
//! a server that fails. To test these properties too, return a [`Harness`] instead of the storage:
//!
//! ```
//! use std::sync::Arc;
//! use oauth_dance_conformance::{HarnessResult, Harness, async_trait};
//! use oauth_dance_core::{MemoryStorage, TokenStorage};
//!
//! struct InMemory(MemoryStorage);
//!
//! #[async_trait]
//! impl Harness for InMemory {
//!     fn storage(&self) -> Arc<dyn TokenStorage> {
//!         Arc::new(self.0.clone())
//!     }
//!
//!     async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
//!         Ok(Arc::new(self.0.clone()))
//!     }
//! }
//! ```
//!
//! A property is **not applicable** if the harness cannot do what it needs, or if it is about something that the storage does
//! not declare in its [`Capabilities`](oauth_dance_core::Capabilities). Such properties are counted and listed at the end of
//! the run, so that none is skipped silently. If a server is not available ([`server_from_env`]), the tests print `SKIP`, or
//! fail if `REQUIRE_BACKENDS=1`.
//!
//! # What a failure shows
//!
//! The first line of a failure names the call, the key and the record. The last calls with their results are below it:
//!
//! ```text
//! get after put(user "alice", provider "github", {"b"}, Always) over {"a long payload", ...}: expected ..., found ...
//! The last calls were:
//!   put(user "alice", provider "github", {"a long payload", ...}, Always) -> Ok(Version(...))
//!   put(user "alice", provider "github", {"b"}, Always) -> Ok(Version(...))
//!   get(user "alice", provider "github") -> Ok(Some({"b", key_id "0123456789abcdef"} at Version(...)))
//! To repeat the random choices, set CONFORMANCE_SEED=...
//! ```
//!
//! Up to 64 bytes of a payload are shown as text, with `\x` escapes for what is not ASCII. The documentation of each property
//! says how it is tested, and what usually causes a failure: click its name in the module that it belongs to.
//!
//! Properties depend on more basic ones. If several fail, the summary first lists those that no other failure explains, and
//! names for each of the others the failure to read before it ([`Report::explained_by`]).
//!
//! # How the tests run
//!
//! Each property has a harness of its own, so properties run concurrently: eight at a time, or as many as
//! `--test-threads` or `RUST_TEST_THREADS` permits. One that only waits for time to pass does not count. If all
//! harnesses share a server that faults stop, use `--test-threads=1`, so that properties run one at a time. The suite
//! takes a few seconds for a storage in memory, and less than a minute for one whose calls take 10 ms, because
//! properties with many rounds try fewer of them on a slow storage. The usual filters of `cargo test` select
//! properties.
//!
//! # What the tests write
//!
//! The last test prints a summary. Each outcome is also written to a file in `target/conformance`, and the whole
//! [`Report`] to `target/conformance/<storage>.md`, with versions and date, so that it can be published; see
//! [third-party storages](https://github.com/oauth-dance/oauth-dance/blob/main/docs/third-party-storages.md). `cargo run -p
//! oauth-dance-conformance --example report` prints one table of all storages.
//!
//! # Versions
//!
//! A minor release may add properties. A storage that passed before and then fails did not fulfil the contract before
//! either.
//!
//! # Where to go next
//!
//! * [`conformance_tests!`]: the macro, with an example of several set-ups.
//! * [`Harness`]: what a storage author implements to test more.
//! * [A complete storage with its tests](https://github.com/oauth-dance/oauth-dance/tree/main/examples/custom-storage).
//! * The properties, below. The crate has no cargo features.
//!
//! # All properties
#![doc = include_str!("../PROPERTIES.md")]

mod calls;
pub mod cancellation;
pub mod claims;
pub mod conditions;
pub mod corruption;
pub mod duels;
pub mod faults;
pub mod filters;
mod harness;
pub mod histories;
pub mod keys;
mod leaks;
mod lengths;
mod linearizability;
pub mod listing;
mod lookalikes;
pub mod map;
pub mod model;
mod outcome;
pub mod paging;
mod patient;
pub mod payloads;
pub mod process;
mod properties;
pub mod purging;
pub mod races;
mod recorder;
pub mod renewal;
pub mod repeats;
mod report;
pub mod retention;
mod run;
pub mod secrecy;
mod separate_records;
mod show;
pub mod survival;
mod tested_storage;
mod tests_macro;

pub use async_trait::async_trait;

pub use harness::{Fault, Harness, HarnessError, HarnessResult, server_from_env};
pub use outcome::{PropertyResult, Stop};
pub use properties::PROPERTIES;
pub use report::Report;
pub use run::{Property, run_all};
pub use tested_storage::TestedStorage;

#[doc(hidden)]
pub mod __private {
    pub use crate::tests_macro::Tally;
}

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
