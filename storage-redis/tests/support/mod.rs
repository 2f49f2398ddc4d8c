//! Private servers for the tests, each on a free port of 127.0.0.1 with its data in a temporary folder.
//!
//! They need the program `redis-server` or `valkey-server`, or the one that `REDIS_SERVER` names. Without it the tests
//! print `SKIP` and pass, or fail if `REQUIRE_BACKENDS=1`.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "every test file uses a part")]

mod cluster;
mod pair;
mod proxy;
mod server;

pub use cluster::Cluster;
pub use pair::Pair;
pub use proxy::Proxy;
pub use server::{Server, free_port, program};

use std::time::{Duration, Instant};

/// Reports a test that cannot run. Fails if servers are required.
#[macro_export]
macro_rules! server_or_skip {
    ($started:expr) => {
        match $started {
            Some(server) => server,
            None => {
                println!("SKIP {}: no redis-server or valkey-server; set REDIS_SERVER", module_path!());
                return;
            }
        }
    };
}

/// Polls a condition until it holds, for at most 20 seconds.
pub async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < Duration::from_secs(20), "after 20 seconds, not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
