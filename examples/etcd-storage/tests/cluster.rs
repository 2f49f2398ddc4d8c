//! The whole contract on three servers, whose handles begin with different ones: `tests/servers/start etcd` starts them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use oauth_dance_example_etcd_storage::ConnectOptions;
use support::Cluster;

oauth_dance_conformance::conformance_tests!(Cluster::shared);

/// Not a test: the properties with several processes start it.
#[test]
#[ignore = "started by the other tests"]
fn another_process() {
    support::work(ConnectOptions::new());
}
