use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{Browser, OidcProvider, free_port};

const STARTING: Duration = Duration::from_secs(30);
const STOPPING: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The state that several runs of the demo share: address, SQLite file, keys, configuration and log.
pub struct DemoFiles {
    directory: TempDir,
    port: u16,
    configured: bool,
    storage: Option<&'static str>,
}

/// A running `oauth-dance demo`. It is killed when this is dropped.
pub struct Demo {
    child: Child,
    url: String,
}

impl DemoFiles {
    /// A demo with its own built-in provider.
    pub fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), port: free_port(), configured: false, storage: None }
    }

    /// Stores the tokens in this storage instead of a SQLite file.
    pub fn with_storage(self, url: &'static str) -> Self {
        Self { storage: Some(url), ..self }
    }

    /// The URL of the demo.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The redirect URI of the provider called `acme`.
    pub fn redirect_uri(&self) -> String {
        format!("{}/login/acme/authorized", self.base_url())
    }

    /// Configures a running provider with the name `acme`.
    pub fn with_provider(self, provider: &OidcProvider) -> Self {
        self.with_provider_and(provider, "")
    }

    /// Adds a configuration in TOML.
    pub fn with_configuration(mut self, toml: &str) -> Self {
        fs::write(self.path("demo.toml"), toml).unwrap();
        self.configured = true;
        self
    }

    /// Configures a running provider with additional fields in TOML.
    pub fn with_provider_and(self, provider: &OidcProvider, fields: &str) -> Self {
        self.with_configuration(&configuration(provider, fields))
    }

    /// Starts the demo and waits until it prints its URL.
    pub fn start(&self) -> Demo {
        self.start_on(self.port)
    }

    /// Starts the demo on another port than that of its redirect URIs, as a second process.
    pub fn start_on(&self, port: u16) -> Demo {
        let log = self.log_file();
        let already = fs::metadata(self.path("demo.log")).unwrap().len() as usize;
        let mut child = Command::new(program())
            .arg("demo")
            .args(self.configured.then(|| ["--config".to_owned(), self.text_path("demo.toml")]).into_iter().flatten())
            .args(["--storage", &self.storage()])
            .args(["--key-file", &self.text_path("demo.key")])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--base-url", &self.base_url()])
            .env("RUST_LOG", "trace")
            .env("NO_PROXY", "127.0.0.1")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let said = format!("http://127.0.0.1:{}", self.port);
        if let Err(why) = wait_for(&mut child, || text(&self.log()[already..]).contains(&said)) {
            let _ = child.kill();
            panic!("the demo {why}; its log:\n{}", text(&self.log()[already..]));
        }
        Demo { child, url: format!("http://127.0.0.1:{port}") }
    }

    /// The output of all runs so far.
    pub fn log(&self) -> Vec<u8> {
        fs::read(self.path("demo.log")).unwrap()
    }

    /// The bytes of the SQLite database on the disk, including the write-ahead log.
    pub fn database(&self) -> Vec<u8> {
        let files = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("tokens.sqlite"));
        files.flat_map(|entry| fs::read(entry.path()).unwrap()).collect()
    }

    /// The text of the key file.
    pub fn key_file(&self) -> String {
        fs::read_to_string(self.path("demo.key")).unwrap()
    }

    fn storage(&self) -> String {
        self.storage.map_or_else(|| format!("sqlite://{}", self.text_path("tokens.sqlite")), str::to_owned)
    }

    fn log_file(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.path("demo.log")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

impl Demo {
    /// The address of one of its pages.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Interrupts the program as with Ctrl-C, and returns its exit status.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn interrupt(mut self) -> ExitStatus {
        // The `kill` of the shell, because small systems have no such program.
        let signal = format!("kill -INT {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &signal]).status().unwrap().success(), "{signal}");
        let until = Instant::now() + STOPPING;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "still running {STOPPING:?} after an interrupt");
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Kills the program, as in a crash.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether this browser is connected to `acme`, according to the page of connections.
    pub fn is_connected(&self, browser: &Browser) -> bool {
        let (status, page) = browser.json(self.url("/"));
        assert!(status.is_success(), "{status}: {page}");
        let connected = &provider_named(&page, "acme")["connected"];
        connected.as_bool().unwrap_or_else(|| panic!("`connected` is not a boolean in {page}"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `oauth-dance` program: `OAUTH_DANCE_BIN` if that is set. Otherwise Cargo builds it now.
///
/// Cargo passes to tests only the programs of their own package, and does not always build those of other packages.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("OAUTH_DANCE_BIN") {
        Some(program) => PathBuf::from(program),
        None => build(),
    })
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--package", "oauth-dance-cli", "--bin", "oauth-dance", "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(built.status.success(), "oauth-dance-cli does not build");
    text(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "oauth-dance")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("Cargo names the program it has built")
}

fn wait_for(child: &mut Child, ready: impl Fn() -> bool) -> Result<(), String> {
    let until = Instant::now() + STARTING;
    while !ready() {
        if let Some(status) = child.try_wait().unwrap() {
            return Err(format!("ended with {status}"));
        }
        if Instant::now() > until {
            return Err(format!("did not say within {STARTING:?} where to go"));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

fn configuration(provider: &OidcProvider, fields: &str) -> String {
    let issuer = provider.issuer();
    let (id, secret) = (OidcProvider::CLIENT_ID, OidcProvider::CLIENT_SECRET);
    format!(
        r#"
        [providers.acme]
        title = "Acme"
        authorization_endpoint = "{issuer}/auth"
        token_endpoint = "{issuer}/token"
        userinfo_endpoint = "{issuer}/me"
        revocation_endpoint = "{issuer}/token/revocation"
        scopes = ["openid", "offline_access", "email"]
        client_id = "{id}"
        client_secret = "{secret}"
        {fields}

        [providers.acme.authorization_params]
        prompt = "consent"
        "#
    )
}

/// The object of a provider, in an array or in an object with the names of providers.
fn provider_named<'a>(page: &'a Value, name: &str) -> &'a Value {
    let providers = page.get("providers").or_else(|| page.get("connections")).unwrap_or(page);
    let listed = || {
        let named = |provider: &&Value| provider["name"] == name || provider["provider"] == name;
        providers.as_array()?.iter().find(named)
    };
    providers.get(name).or_else(listed).unwrap_or_else(|| panic!("no {name} in {page}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
