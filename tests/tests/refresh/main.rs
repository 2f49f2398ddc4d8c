//! The refresh between real processes, on every storage that processes can share.
//!
//! The tests start this program again as [workers](worker), which open the storage by its URL and execute commands. A test
//! can block a worker at any write, kill it, or disconnect it from the storage, and it counts the requests at the provider.
//! `sqlite::` always runs. The other tests use the servers that the environment names (see `tests/servers/start`), and print
//! that they are skipped if there are none.
//!
//! These variables configure the fleets:
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `REFRESH_PROCESSES` | processes of a fleet | 8 |
//! | `REFRESH_TASKS` | tasks in each of them | 50 |
//! | `REFRESH_KEYS` | users whose tokens they use | 50 |
//! | `REFRESH_SECONDS` | for how long | 10 |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod backend;
mod clocks;
mod crashes;
mod cuts;
mod faults;
mod fleet;
mod gate;
mod logouts;
mod moves;
mod openid;
mod personal;
mod process;
mod proxy;
mod site;
mod stops;
mod table;
mod worker;

use backend::{Backend, Kind};

macro_rules! on_every_backend {
    ($($property:ident: $run:path;)*) => {
        on_every_backend!(@ sqlite, Kind::Sqlite; $($property: $run;)*);
        on_every_backend!(@ postgres, Kind::Postgres; $($property: $run;)*);
        on_every_backend!(@ mysql, Kind::MySql; $($property: $run;)*);
        on_every_backend!(@ redis, Kind::Redis; $($property: $run;)*);
        on_every_backend!(@ redis_cluster, Kind::RedisCluster; $($property: $run;)*);
    };
    (@ $backend:ident, $kind:expr; $($property:ident: $run:path;)*) => {
        mod $backend {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $property() {
                let Some(backend) = Backend::of($kind).await else { return };
                $run(&backend).await;
                backend.remove().await;
            })*
        }
    };
}

on_every_backend! {
    one_redemption: fleet::one_redemption;
    one_redemption_at_oidc_provider: openid::one_redemption;
    api_401_retry: fleet::api_401_retry;
    crash_matrix: crashes::crash_matrix;
    stopped: stops::stopped;
    transient_matrix: faults::transient_matrix;
    persist_failure_and_storage_down: cuts::storage_matrix;
    logout_and_login_win: logouts::logout_and_login_win;
    logins_and_logouts_under_load: logouts::under_load;
    skew: clocks::skew;
}

// A pooler may run a statement on the connection of another process.
on_every_backend! {
    @ pgbouncer, Kind::PgBouncer;
    one_redemption: fleet::one_redemption;
    crash_matrix: crashes::crash_matrix;
    persist_failure_and_storage_down: cuts::storage_matrix;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_downtime_from_sqlite_to_postgres() {
    moves::no_downtime(Kind::Sqlite, Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_downtime_from_postgres_to_redis() {
    moves::no_downtime(Kind::Postgres, Kind::Redis).await;
}

/// Not a test: the tests above start it as another process.
#[test]
#[ignore = "started by the other tests"]
fn worker() {
    worker::main();
}
