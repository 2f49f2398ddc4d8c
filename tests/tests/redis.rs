//! Redis through the suite: a private server for every property, which can be killed, stopped and filled; a Cluster and
//! a primary under Sentinels as `tests/servers/start` starts them; and whatever server `REDIS_URL` names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../storage-redis/tests/support/mod.rs"]
mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_conformance::{Fault, Harness, HarnessError, HarnessResult, async_trait, process, server_from_env};
use oauth_dance_core::{Filter, PageRequest, TokenKey, TokenStorage, random_bytes};
use oauth_dance_redis::RedisStorage;
use support::{Proxy, Server};
use tokio::sync::Mutex;

const URL: &str = "CONFORMANCE_REDIS_URL";
const PREFIX: &str = "CONFORMANCE_REDIS_PREFIX";

mod private_server {
    use super::*;

    oauth_dance_conformance::conformance_tests!(Private::start);
}

mod named_server {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| Shared::connect("REDIS_URL"));
}

mod cluster {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| Shared::connect("REDIS_CLUSTER_URL"));
}

mod sentinel {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| Shared::connect("REDIS_SENTINEL_URL"));
}

/// Not a test: the properties with several processes start it.
#[test]
#[ignore = "started by the other tests"]
fn another_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = RedisStorage::connect(&std::env::var(URL).unwrap()).await.unwrap();
        let storage = storage.with_prefix(&std::env::var(PREFIX).unwrap()).unwrap();
        process::work(Arc::new(storage)).await.unwrap();
    });
}

fn process(url: &str, prefix: &str) -> HarnessResult<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["another_process", "--exact", "--ignored", "--nocapture"]).env(URL, url).env(PREFIX, prefix);
    Ok(command)
}

/// A private server for one property, behind a proxy that can cut connections.
struct Private {
    storage: RedisStorage,
    proxy: Proxy,
    server: Mutex<Server>,
}

impl Private {
    async fn start() -> HarnessResult<Self> {
        let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
        let missing = || HarnessError::Missing("there is no redis-server or valkey-server".to_owned());
        let server = tokio::task::spawn_blocking(move || Server::start(&arguments)).await?.ok_or_else(missing)?;
        let proxy = Proxy::before(server.port).await;
        let storage = RedisStorage::connect(&proxy.url()).await?.with_timeout(Duration::from_secs(2));
        storage.check().await?;
        Ok(Self { storage, proxy, server: Mutex::new(server) })
    }
}

#[async_trait]
impl Harness for Private {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(self.storage.clone())
    }

    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        Ok(Arc::new(RedisStorage::connect(&self.proxy.url()).await?))
    }

    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        Ok(Arc::new(RedisStorage::connect(&self.proxy.url()).await?.with_prefix(namespace)?))
    }

    async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
        let server = self.server.lock().await;
        let mut dump = server.dump();
        collect(server.folder(), &mut dump)?;
        Ok(dump)
    }

    async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
        let server = self.server.lock().await;
        // Deleting the key shows which record is its record. That record is then written again, damaged.
        let before: Vec<String> = server.command(&["KEYS", "*"]);
        let records: Vec<_> = before.into_iter().filter(|name| name.contains("}:")).collect();
        let contents: Vec<Vec<u8>> = records.iter().map(|name| server.command(&["GET", name])).collect();
        let found = self.storage.get(key).await?.map(|found| found.version);
        for (name, stored) in records.iter().zip(contents) {
            let version = found.map(|version| version.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect());
            if version.is_some_and(|version: String| stored.starts_with(format!("v1 {version}").as_bytes())) {
                server.command::<()>(&["SET", name, "garbage", "KEEPTTL"]);
            }
        }
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> HarnessResult<()> {
        let mut server = self.server.lock().await;
        match fault {
            Fault::Down | Fault::Crash => server.kill(),
            Fault::Silent => server.signal("STOP"),
            Fault::CutReply => self.proxy.cut_replies(true),
            Fault::CutNextReply => self.proxy.cut_next_reply(),
            Fault::ReadOnly => server.command(&["REPLICAOF", "127.0.0.1", "1"]),
            Fault::Full => server.command(&["CONFIG", "SET", "maxmemory", "1000"]),
            _ => return Err(HarnessError::Cannot("do that to Redis")),
        }
        Ok(())
    }

    async fn heal(&self) -> HarnessResult<()> {
        let mut server = self.server.lock().await;
        self.proxy.cut_replies(false);
        if !server.is_running() {
            server.start_again();
        }
        server.signal("CONT");
        server.wait_until_it_responds();
        server.command::<()>(&["REPLICAOF", "NO", "ONE"]);
        server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
        Ok(())
    }

    async fn process(&self) -> HarnessResult<Command> {
        process(&self.proxy.url(), oauth_dance_redis::DEFAULT_PREFIX)
    }

    fn printed(&self) -> HarnessResult<String> {
        Ok(format!("{:?}", self.storage))
    }
}

/// A prefix for one property, on shared servers.
struct Shared {
    storage: RedisStorage,
    url: String,
    prefix: String,
}

impl Shared {
    async fn connect(variable: &'static str) -> HarnessResult<Self> {
        let url = server_from_env(variable)?;
        let prefix = format!("test-{:016x}", u64::from_be_bytes(random_bytes()));
        let storage = RedisStorage::connect(&url).await?.with_prefix(&prefix)?;
        Ok(Self { storage, url, prefix })
    }
}

#[async_trait]
impl Harness for Shared {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(self.storage.clone())
    }

    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        Ok(Arc::new(RedisStorage::connect(&self.url).await?.with_prefix(&self.prefix)?))
    }

    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        let prefix = format!("{}-{namespace}", self.prefix);
        Ok(Arc::new(RedisStorage::connect(&self.url).await?.with_prefix(&prefix)?))
    }

    async fn process(&self) -> HarnessResult<Command> {
        process(&self.url, &self.prefix)
    }

    fn printed(&self) -> HarnessResult<String> {
        Ok(format!("{:?}", self.storage))
    }

    async fn clean_up(&self) {
        let page = || PageRequest { after: None, limit: 1000 };
        while let Ok(found) = self.storage.list(&Filter::everything(), page()).await {
            for entry in &found.entries {
                let _ = self.storage.delete(&entry.key, None).await;
            }
            if found.next.is_none() {
                break;
            }
        }
        let _ = self.storage.purge(usize::MAX).await;
    }
}

/// The bytes of all files below a folder: the data and the log of the server.
fn collect(folder: &std::path::Path, dump: &mut Vec<u8>) -> std::io::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.is_dir() {
            collect(&path, dump)?;
        } else {
            dump.extend(std::fs::read(path)?);
        }
    }
    Ok(())
}
