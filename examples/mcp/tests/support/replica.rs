use std::fs::{self, File, OpenOptions};
use std::iter;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::Url;

use super::{Browser, McpTestServer, OidcProvider, Page, free_port};

const STARTING: Duration = Duration::from_secs(30);

/// A running process of the example. It is killed when this is dropped.
pub struct Replica {
    child: Child,
    url: String,
}

/// Two replicas on one storage, two MCP servers, and the authorization server of both.
pub struct World {
    pub replicas: [Replica; 2],
    pub notes: McpTestServer,
    pub calendar: McpTestServer,
    pub provider: OidcProvider,
    folder: TempDir,
    _runtime: Runtime,
}

impl World {
    /// Starts all of it, on this storage or a SQLite file. If something is missing, prints that and returns `None`.
    pub fn start(database: Option<&str>) -> Option<Self> {
        let runtime = Runtime::new().unwrap();
        let (notes, calendar) = (McpTestServer::start(&runtime), McpTestServer::start(&runtime));
        let resources = json!({ "clients": [], "resources": [notes.url(), calendar.url()] });
        let provider = OidcProvider::start_with(&resources)?;
        notes.set_issuer(provider.issuer());
        calendar.set_issuer(provider.issuer());

        let folder = TempDir::new().unwrap();
        let sqlite = format!("sqlite:{}", folder.path().join("tokens.sqlite").display());
        let database = database.unwrap_or(&sqlite);
        let servers = format!("notes={} calendar={}", notes.url(), calendar.url());
        let first = free_port();
        let second = iter::repeat_with(free_port).find(|port| *port != first);
        let ports = [first, second.unwrap()];
        let replicas = ports.map(|port| Replica::start(&folder, port, ports[0], database, &servers));
        Some(Self { replicas, notes, calendar, provider, folder, _runtime: runtime })
    }

    /// A browser in which this user is signed in. Both replicas have the same host, so it sends its cookie to both.
    pub fn browser(&self, user: &str) -> Browser {
        let browser = Browser::new();
        let page = browser.open(self.replicas[0].url("/"));
        let page = browser.submit(&page.form("Sign in").fill("user", user));
        assert!(page.text().contains(&format!("Signed in as {user}")), "{}", page.text());
        browser
    }

    /// The callback of a login that was started at the first replica, as the browser receives it.
    pub fn callback(&self, browser: &Browser, user: &str, server: &str) -> Url {
        let page = browser.open(self.replicas[0].url("/"));
        let stopping = browser.stopping_before(self.replicas[0].url("/mcp/"));
        let page = stopping.submit(&page.form(&format!("Connect {server}")));
        let page = self.provider.sign_in_and_consent(&stopping, page, user);
        page.stopped_before.unwrap_or_else(|| panic!("no callback: {}", page.body))
    }

    /// Connects a server by a login that the first replica starts and the second one finishes.
    pub fn connect(&self, browser: &Browser, user: &str, server: &str) {
        let page = self.finish(browser, self.callback(browser, user, server));
        assert!(page.text().contains(&format!("{server}: connected")), "{}", page.body);
    }

    /// Sends a callback to the second replica.
    pub fn finish(&self, browser: &Browser, mut callback: Url) -> Page {
        callback.set_port(Url::parse(&self.replicas[1].url).unwrap().port()).unwrap();
        browser.open(callback)
    }

    /// The output of both replicas, and the bytes of the SQLite files.
    pub fn files(&self) -> Vec<u8> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        files.flat_map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    }
}

impl Replica {
    fn start(folder: &TempDir, port: u16, first: u16, database: &str, servers: &str) -> Self {
        let log = log(folder);
        let child = Command::new(env!("CARGO_BIN_EXE_oauth-dance-example-mcp"))
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .env("BASE_URL", format!("http://127.0.0.1:{first}"))
            .env("DATABASE_URL", database)
            .env("MCP_SERVERS", servers)
            .env("OAUTH_DANCE_KEYS", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I=")
            .env("SESSION_KEY", "s".repeat(64))
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut replica = Self { child, url: format!("http://127.0.0.1:{port}") };
        let until = Instant::now() + STARTING;
        while reqwest::blocking::get(&replica.url).is_err() {
            assert!(replica.child.try_wait().unwrap().is_none(), "{}", text(folder));
            assert!(Instant::now() < until, "the example does not start");
            thread::sleep(Duration::from_millis(20));
        }
        replica
    }

    /// The address of one of its pages.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Calls a tool as the user of this browser.
    pub fn call(&self, browser: &Browser, server: &str, tool: &str) -> (StatusCode, Value) {
        browser.json(self.url(&format!("/mcp/{server}/call/{tool}")))
    }

    /// Presses one of the buttons of the page.
    pub fn press(&self, browser: &Browser, button: &str) -> Page {
        browser.submit(&browser.open(self.url("/")).form(button))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log(folder: &TempDir) -> File {
    OpenOptions::new().create(true).append(true).open(folder.path().join("log")).unwrap()
}

fn text(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("log")).unwrap()
}
