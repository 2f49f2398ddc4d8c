//! What remains true if servers fail: the leader is killed, it is suspended and continues, all servers are restarted, and one
//! server stalls again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use oauth_dance_conformance::{PROPERTIES, Property, PropertyResult, Stop};
use oauth_dance_example_etcd_storage::ConnectOptions;
use support::Cluster;

/// The properties in which servers fail. The others are in `cluster.rs`.
const WITH_FAULTS: [&str; 5] = [
    "acknowledged_writes_survive_a_failover",
    "histories_with_faults_are_linearizable",
    "each_refresh_token_is_redeemed_once",
    "acknowledged_writes_survive_a_server_crash",
    "an_outage_is_an_error",
];

/// The properties that a read from a server that is behind would break.
const WITH_A_STALLING_SERVER: [&str; 3] = [
    "writes_are_seen_through_every_handle",
    "the_next_read_after_a_claim_sees_the_commit",
    "histories_are_linearizable",
];

/// One after the other, because all use the same servers.
#[test]
fn properties_hold_while_servers_fail() {
    for name in WITH_FAULTS {
        check(name, named(name).run(Cluster::alone));
    }
    for name in WITH_A_STALLING_SERVER {
        check(name, named(name).run(Cluster::stalling));
    }
}

fn named(name: &str) -> &'static Property {
    PROPERTIES.iter().find(|property| property.name == name).expect("the suite has this property")
}

fn check(name: &str, outcome: PropertyResult) {
    match outcome {
        Ok(()) => println!("{name} passed"),
        Err(Stop::Missing(what)) if std::env::var("REQUIRE_BACKENDS").as_deref() != Ok("1") => {
            println!("SKIP {name}: {what}; run: eval \"$(tests/servers/start etcd)\"");
        }
        Err(stop) => panic!("{name}: {stop:?}"),
    }
}

/// Not a test: the properties with several processes start it.
#[test]
#[ignore = "started by the other tests"]
fn another_process() {
    support::work(ConnectOptions::new());
}
