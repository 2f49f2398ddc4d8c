use super::server::{Server, free_port, program};

/// Three primaries.
pub struct Cluster {
    pub servers: Vec<Server>,
}

impl Cluster {
    pub fn start(arguments: &[&str]) -> Option<Self> {
        program()?;
        let arguments = [&["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"], arguments].concat();
        let servers: Vec<_> = (0..3).map(|_| Server::start_on(free_port(), &arguments)).collect();
        let ranges = [0..5461, 5461..10923, 10923..16384];
        for (index, (server, range)) in servers.iter().zip(ranges).enumerate() {
            let slots: Vec<_> = range.map(|slot: u16| slot.to_string()).collect();
            let command: Vec<_> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
            server.command::<()>(&command);
            server.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for other in &servers[1..] {
            servers[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
        }
        let cluster = Self { servers };
        cluster.wait_until_it_is_whole();
        Some(cluster)
    }

    pub fn url(&self) -> String {
        // One address must be enough. It is the last, so that the slots of the others have to be discovered.
        format!("redis+cluster://{}", self.servers[2].address())
    }

    pub fn wait_until_it_is_whole(&self) {
        let start = std::time::Instant::now();
        let whole = |server: &Server| {
            let info: String = server.command(&["CLUSTER", "INFO"]);
            let has = |line: &str| info.lines().any(|found| found.trim_end() == line);
            has("cluster_state:ok") && has("cluster_known_nodes:3") && has("cluster_slots_ok:16384")
        };
        while !self.servers.iter().all(whole) {
            assert!(start.elapsed().as_secs() < 30, "the cluster does not form");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// The server of a slot, and another one.
    pub fn owner_and_other(&self, slot: u16) -> (&Server, &Server) {
        let owner = self.servers.iter().position(|server| {
            let nodes: String = server.command(&["CLUSTER", "NODES"]);
            let myself = nodes.lines().find(|line| line.contains("myself")).unwrap();
            myself.split(' ').skip(8).filter(|range| !range.starts_with('[')).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (first.parse().unwrap()..=last.parse().unwrap()).contains(&slot)
            })
        });
        let owner = owner.unwrap();
        (&self.servers[owner], &self.servers[(owner + 1) % 3])
    }

    /// Starts to move a slot.
    pub fn begin_move(&self, slot: u16, from: &Server, to: &Server) {
        let (from_id, to_id): (String, String) = (from.command(&["CLUSTER", "MYID"]), to.command(&["CLUSTER", "MYID"]));
        to.command::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &from_id]);
        from.command::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &to_id]);
    }

    /// Moves some keys of the slot, one by one.
    pub fn move_keys(&self, slot: u16, from: &Server, to: &Server, most: usize) {
        let keys: Vec<String> = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &most.to_string()]);
        for key in keys {
            from.command::<()>(&["MIGRATE", "127.0.0.1", &to.port.to_string(), &key, "0", "5000"]);
        }
    }

    /// Ends the move. The slot must be empty.
    pub fn end_move(&self, slot: u16, to: &Server) {
        let to_id: String = to.command(&["CLUSTER", "MYID"]);
        to.command::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &to_id]);
        for server in &self.servers {
            server.command::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &to_id]);
        }
    }
}
