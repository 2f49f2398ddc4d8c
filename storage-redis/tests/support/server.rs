use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue};
use tempfile::TempDir;

/// One private server of the tests.
pub struct Server {
    child: Option<Child>,
    arguments: Vec<String>,
    folder: TempDir,
    pub port: u16,
    password: Option<String>,
}

/// The program of the server, or `None` if there is none.
pub fn program() -> Option<PathBuf> {
    let named = std::env::var("REDIS_SERVER").ok().filter(|name| !name.is_empty());
    let names = named.map_or_else(|| vec!["redis-server".to_owned(), "valkey-server".to_owned()], |name| vec![name]);
    let works = |name: &String| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let found = names.into_iter().find(works).map(PathBuf::from);
    let required = std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1");
    assert!(found.is_some() || !required, "there is no redis-server, although REQUIRE_BACKENDS=1 is set");
    found
}

impl Server {
    /// A server without persistence.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        program()?;
        Some(Self::start_on(free_port(), arguments))
    }

    /// A server that writes to disk before it acknowledges.
    pub fn start_durable() -> Option<Self> {
        Self::start(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub fn start_on(port: u16, arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), port, arguments)
    }

    pub fn start_in(folder: TempDir, port: u16, arguments: &[&str]) -> Self {
        let mut server = Self {
            child: None,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            folder,
            port,
            password: arguments.windows(2).find(|pair| pair[0] == "--requirepass").map(|pair| pair[1].to_owned()),
        };
        server.start_again();
        server.wait_until_it_responds();
        server
    }

    pub fn url(&self) -> String {
        let login = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{login}127.0.0.1:{}/", self.port)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Starts the program on the same port and data, without waiting for it.
    pub fn start_again(&mut self) {
        let mut command = Command::new(program().unwrap());
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        // A separate configuration file makes the server a Sentinel.
        if let Some(file) = self.arguments.iter().find(|argument| argument.ends_with(".conf")) {
            command.arg(self.folder.path().join(file));
        }
        command.args(["--bind", "127.0.0.1", "--dir"]).arg(self.folder.path());
        if !self.arguments.iter().any(|argument| argument == "--sentinel") {
            command.args(["--save", ""]);
        }
        command.args(["--port", &self.port.to_string()]);
        command.args(self.arguments.iter().filter(|argument| !argument.ends_with(".conf")));
        self.child = Some(command.stdin(Stdio::null()).stdout(log).spawn().unwrap());
    }

    pub fn wait_until_it_responds(&self) {
        let start = Instant::now();
        while self.try_connect().is_none() {
            assert!(start.elapsed() < Duration::from_secs(20), "the server does not start; see {:?}", self.folder);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Kills the server with `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        self.start_again();
        self.wait_until_it_responds();
    }

    /// Sends the process a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id();
        assert!(Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap().success());
    }

    /// Runs a command on the server, on a separate connection.
    pub fn command<T: FromRedisValue>(&self, command: &[&str]) -> T {
        // The server may be loading data from its primary.
        self.wait_until_it_responds();
        self.try_command(command).expect("the server does not respond")
    }

    /// The same, if the server is reachable. A server that takes over from its primary drops its connections.
    pub fn try_command<T: FromRedisValue>(&self, command: &[&str]) -> Option<T> {
        let mut connection = self.try_connect()?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection).ok()
    }

    pub fn try_connect(&self) -> Option<Connection> {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }

    /// Every key and its value, in the format of `redis-cli`.
    pub fn dump(&self) -> Vec<u8> {
        let mut dump = Vec::new();
        for key in self.command::<Vec<String>>(&["KEYS", "*"]) {
            let kind: String = self.command(&["TYPE", &key]);
            let values: Vec<Vec<u8>> = match kind.as_str() {
                "zset" => self.command(&["ZRANGE", &key, "0", "-1"]),
                _ => vec![self.command(&["GET", &key])],
            };
            dump.extend(key.into_bytes());
            dump.extend(values.concat());
        }
        dump
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port whose Cluster bus, 10000 higher, is free as well. No two calls of a process return the same port.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| RandomState::new().build_hasher().finish().into());
    loop {
        let port = 10_000 + (NEXT.fetch_add(1, Ordering::Relaxed) % 10_000) as u16;
        if [port, port + 10_000].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}
