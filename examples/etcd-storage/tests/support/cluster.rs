use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, DeleteOptions};
use oauth_dance_conformance::{Fault, Harness, HarnessError, HarnessResult, async_trait, server_from_env};
use oauth_dance_core::{TokenStorage, random_bytes};
use oauth_dance_example_etcd_storage::{ConnectOptions, EtcdStorage};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Proxy, TestClock, another_process, signal};

/// A prefix for one property, on the three servers of `tests/servers/start etcd`.
pub struct Cluster {
    storage: EtcdStorage,
    clock: TestClock,
    servers: Vec<String>,
    /// How the storage reaches the servers: directly, or through these proxies.
    urls: Vec<String>,
    proxies: Vec<Proxy>,
    prefix: String,
    opened: AtomicUsize,
    /// The servers that were killed or suspended.
    failed: Mutex<Vec<usize>>,
    stalling: Mutex<Option<JoinHandle<()>>>,
}

impl Cluster {
    /// For properties that run at the same time, so that no server may fail.
    pub async fn shared() -> HarnessResult<Self> {
        Self::start(false).await
    }

    /// For a property that runs alone.
    pub async fn alone() -> HarnessResult<Self> {
        Self::start(true).await
    }

    /// The same, while a server that is not the leader stalls again and again, so that it is behind the others.
    pub async fn stalling() -> HarnessResult<Self> {
        let cluster = Self::start(true).await?;
        let follower = (cluster.leader(None).await? + 1) % cluster.servers.len();
        let pid = pid_of(follower)?;
        cluster.failed.lock().await.push(follower);
        *cluster.stalling.lock().await = Some(tokio::spawn(async move {
            for name in ["STOP", "CONT"].into_iter().cycle() {
                let _ = signal(&pid, name);
                sleep(Duration::from_millis(40)).await;
            }
        }));
        Ok(cluster)
    }

    async fn start(may_fail: bool) -> HarnessResult<Self> {
        let servers: Vec<_> = server_from_env("ETCD_URL")?.split(',').map(str::to_owned).collect();
        let mut proxies = Vec::new();
        for url in servers.iter().filter(|_| may_fail) {
            let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default();
            proxies.push(Proxy::before(port).await?);
        }
        let urls = if may_fail { proxies.iter().map(Proxy::url).collect() } else { servers.clone() };
        let prefix = format!("test-{:016x}", u64::from_be_bytes(random_bytes()));
        let clock = TestClock::default();
        let storage = EtcdStorage::connect(&urls, ConnectOptions::new()).await?;
        let storage = storage.with_prefix(&prefix)?.with_clock(clock.clock());
        let (opened, failed) = (AtomicUsize::new(1), Mutex::default());
        Ok(Self { storage, clock, servers, urls, proxies, prefix, opened, failed, stalling: Mutex::default() })
    }

    /// Another handle, which begins with another server.
    fn open(&self, prefix: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        let mut urls = self.urls.clone();
        let first = self.opened.fetch_add(1, Ordering::SeqCst) % urls.len();
        urls.rotate_left(first);
        let storage = EtcdStorage::lazy(&urls, ConnectOptions::new())?.with_prefix(prefix)?;
        Ok(Arc::new(storage.with_clock(self.clock.clock())))
    }

    /// The id of a server, and of the leader that it knows.
    async fn ids(&self, server: usize) -> Option<(u64, u64)> {
        let status = async { Client::connect([&self.servers[server]], None).await?.status().await };
        let status = timeout(Duration::from_secs(1), status).await.ok()?.ok()?;
        Some((status.header()?.member_id(), status.leader()))
    }

    /// The index of the leader, once all servers agree on it. `without` has failed.
    async fn leader(&self, without: Option<usize>) -> HarnessResult<usize> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            let mut known = Vec::new();
            for server in (0..self.servers.len()).filter(|server| Some(*server) != without) {
                known.push((server, self.ids(server).await.unwrap_or_default()));
            }
            let (_, (_, leader)) = known[0];
            let is_agreed = leader != 0 && known.iter().all(|(_, (_, other))| *other == leader);
            if let Some((server, _)) = known.iter().find(|(_, (id, _))| is_agreed && *id == leader) {
                return Ok(*server);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(HarnessError::Failed("the servers elect no leader within 30 seconds".into()))
    }

    async fn kill(&self, server: usize) -> HarnessResult<()> {
        signal(&pid_of(server)?, "KILL")?;
        self.proxies[server].refuse().await;
        Ok(())
    }
}

/// The process of a server of `tests/servers/start`.
fn pid_of(server: usize) -> HarnessResult<String> {
    let pids = std::fs::read_to_string(format!("{}/etcd/pids", server_from_env("SERVERS_FOLDER")?))?;
    Ok(pids.lines().nth(server).unwrap_or_default().to_owned())
}

#[async_trait]
impl Harness for Cluster {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(self.storage.clone())
    }

    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        self.open(&self.prefix)
    }

    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        self.open(&format!("{}-{namespace}", self.prefix))
    }

    async fn advance(&self, by: Duration) -> HarnessResult<()> {
        self.clock.advance(by);
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> HarnessResult<()> {
        if self.proxies.is_empty() {
            return Err(HarnessError::Cannot("cause a fault of servers that other properties use"));
        }
        let mut failed = self.failed.lock().await;
        match fault {
            Fault::CutReply => self.proxies.iter().for_each(Proxy::cut_replies),
            Fault::CutNextReply => self.proxies.iter().for_each(|proxy| proxy.cut_reply_after(0)),
            Fault::Failover | Fault::Isolated => {
                let leader = self.leader(None).await?;
                match fault {
                    Fault::Failover => self.kill(leader).await?,
                    _ => signal(&pid_of(leader)?, "STOP")?,
                }
                failed.push(leader);
                self.leader(Some(leader)).await?;
            }
            Fault::Down | Fault::Crash => {
                for server in 0..self.servers.len() {
                    self.kill(server).await?;
                    failed.push(server);
                }
            }
            Fault::Silent => {
                for server in 0..self.servers.len() {
                    signal(&pid_of(server)?, "STOP")?;
                    failed.push(server);
                }
            }
            _ => return Err(HarnessError::Cannot("do that to three servers")),
        }
        Ok(())
    }

    async fn heal(&self) -> HarnessResult<()> {
        for server in self.failed.lock().await.drain(..) {
            signal(&pid_of(server)?, "CONT")?;
            if self.ids(server).await.is_none() {
                let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/servers/restart");
                let number = (server + 1).to_string();
                tokio::task::spawn_blocking(move || Command::new(script).args(["etcd", "0", &number]).status())
                    .await??;
            }
        }
        for proxy in &self.proxies {
            proxy.heal().await?;
        }
        self.leader(None).await.map(drop)
    }

    async fn process(&self) -> HarnessResult<Command> {
        another_process(&self.urls, &self.prefix)
    }

    fn printed(&self) -> HarnessResult<String> {
        Ok(format!("{:?}", self.storage))
    }

    async fn clean_up(&self) {
        if let Some(stalling) = self.stalling.lock().await.take() {
            stalling.abort();
            let _ = stalling.await;
        }
        // A property that has failed did not end its fault.
        let _ = self.heal().await;
        if let Ok(mut client) = Client::connect(&self.servers, None).await {
            let _ = client.delete(self.prefix.as_str(), Some(DeleteOptions::new().with_prefix())).await;
        }
    }
}
