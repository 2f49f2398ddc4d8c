use super::server::{Server, free_port, program};

/// A primary, a replica, and three Sentinels that watch them.
pub struct Pair {
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
}

impl Pair {
    pub fn start() -> Option<Self> {
        program()?;
        let primary = Server::start(&[])?;
        let port = primary.port.to_string();
        let replica = Server::start(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"])?;
        let sentinels = (0..3).map(|_| sentinel(&port)).collect();
        let pair = Self { servers: vec![primary, replica], sentinels };
        pair.wait_until_watched();
        Some(pair)
    }

    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(Server::address).collect();
        format!("redis+sentinel://{}/tokens", addresses.join(","))
    }

    /// Waits until the Sentinels know each other and the replica.
    fn wait_until_watched(&self) {
        let start = std::time::Instant::now();
        loop {
            let knows = |server: &Server| {
                let info: String = server.command(&["INFO", "sentinel"]);
                info.contains("slaves=1") && info.contains("sentinels=3")
            };
            let linked: String = self.servers[1].command(&["INFO", "replication"]);
            if self.sentinels.iter().all(knows) && linked.contains("master_link_status:up") {
                return;
            }
            assert!(start.elapsed().as_secs() < 30, "the Sentinels do not find each other");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn sentinel(primary: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentinel.conf");
    let lines = [
        format!("sentinel monitor tokens 127.0.0.1 {primary} 2"),
        "sentinel down-after-milliseconds tokens 500".to_owned(),
        "sentinel failover-timeout tokens 2000".to_owned(),
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    Server::start_in(folder, free_port(), &["sentinel.conf", "--sentinel"])
}
