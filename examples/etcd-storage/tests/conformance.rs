//! The whole contract, with one test for each property, on one server that can fail in every way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, GetOptions};
use oauth_dance_conformance::{Fault, Harness, HarnessError, HarnessResult, async_trait};
use oauth_dance_core::{TokenKey, TokenStorage};
use oauth_dance_example_etcd_storage::EtcdStorage;
use support::{Node, PREFIX, Proxy, TestClock, login};
use tokio::sync::Mutex;

oauth_dance_conformance::conformance_tests!(OneServer::start);

/// Not a test: the properties with several processes start it.
#[test]
#[ignore = "started by the other tests"]
fn another_process() {
    support::work(login());
}

/// A private server for one property, behind a proxy that can cut connections.
struct OneServer {
    storage: EtcdStorage,
    clock: TestClock,
    proxy: Proxy,
    node: Mutex<Node>,
}

impl OneServer {
    async fn start() -> HarnessResult<Self> {
        let node = Node::start_with(&[]).await?;
        let (proxy, clock) = (Proxy::before(node.port).await?, TestClock::default());
        let harness = Self { storage: open(&proxy, &clock, PREFIX)?, clock, proxy, node: node.into() };
        harness.storage.check().await?;
        Ok(harness)
    }
}

fn open(proxy: &Proxy, clock: &TestClock, prefix: &str) -> HarnessResult<EtcdStorage> {
    let storage = EtcdStorage::lazy(&[proxy.url()], login())?.with_prefix(prefix)?;
    Ok(storage.with_clock(clock.clock()).with_timeout(Duration::from_secs(5)))
}

#[async_trait]
impl Harness for OneServer {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(self.storage.clone())
    }

    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        Ok(Arc::new(open(&self.proxy, &self.clock, PREFIX)?))
    }

    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        Ok(Arc::new(open(&self.proxy, &self.clock, &format!("{PREFIX}-{namespace}"))?))
    }

    async fn advance(&self, by: Duration) -> HarnessResult<()> {
        self.clock.advance(by);
        Ok(())
    }

    async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
        let node = self.node.lock().await;
        let all = node.root().await?.get(PREFIX, Some(GetOptions::new().with_prefix())).await?;
        let mut dump: Vec<u8> = all.kvs().iter().flat_map(|pair| [pair.key(), pair.value()].concat()).collect();
        dump.extend(std::fs::read(node.folder().join("log"))?);
        Ok(dump)
    }

    async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
        let Some(found) = self.storage.get(key).await? else { return Ok(()) };
        // The three keys of a record were written by one transaction, whose revision is the version.
        let revision = i128::from_be_bytes(*found.version.as_bytes()) as i64;
        let of_record = GetOptions::new().with_prefix().with_min_mod_revision(revision).with_max_mod_revision(revision);
        let mut root = self.node.lock().await.root().await?;
        for pair in root.get(PREFIX, Some(of_record)).await?.kvs() {
            root.put(pair.key(), "garbage", None).await?;
        }
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> HarnessResult<()> {
        let mut node = self.node.lock().await;
        match fault {
            Fault::Down | Fault::Crash => {
                self.proxy.refuse().await;
                node.kill()?;
            }
            Fault::Silent => node.signal("STOP")?,
            Fault::CutReply => self.proxy.cut_replies(),
            Fault::CutNextReply => self.proxy.cut_reply_after(0),
            Fault::CutReplyAfter(replies) => self.proxy.cut_reply_after(replies),
            Fault::ReadOnly => node.allow_writes(false).await?,
            Fault::Full => drop(node.root().await?.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await?),
            _ => return Err(HarnessError::Cannot("do that to one server")),
        }
        Ok(())
    }

    async fn heal(&self) -> HarnessResult<()> {
        let mut node = self.node.lock().await;
        self.proxy.heal().await?;
        if !node.is_running() {
            node.start_again()?;
        }
        node.signal("CONT")?;
        node.responds().await?;
        node.allow_writes(true).await?;
        let mut root = node.root().await?;
        Ok(root.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await.map(drop)?)
    }

    async fn process(&self) -> HarnessResult<Command> {
        support::another_process(&[self.proxy.url()], PREFIX)
    }

    fn printed(&self) -> HarnessResult<String> {
        Ok(format!("{:?}", self.storage))
    }
}
