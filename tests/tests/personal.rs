//! The storage of one person, with a real keyring: first starts of several processes, kills, and keyrings that are locked,
//! slow, absent or gone. `refresh` has the refreshes, and `sql` the suite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]

mod support;

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use oauth_dance_core::{OAuth2Token, Precondition, TokenKey, Tokens};
use oauth_dance_sqlx::{KeyPlace, PersonalError, PersonalStorage};
use serde::{Deserialize, Serialize};
use support::{Desktop, put_on_bus, without_bus};

const SETTINGS: &str = "PERSONAL_SETTINGS";
const PREFIX: &str = "personal says ";
const APPLICATION: &str = "acme-cli";
const PROCESSES: usize = 8;

/// What another process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    folder: PathBuf,
    /// Where the key may be: everywhere, if this is `None`.
    in_file: Option<bool>,
    timeout: Duration,
    stores_a_token: bool,
    /// Another table than the usual one.
    table: Option<String>,
}

/// What it reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    Opened { in_file: bool, key_id: String },
    Failed { variant: String, chain: String },
}

impl Settings {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            in_file: None,
            timeout: Duration::from_secs(20),
            stores_a_token: false,
            table: None,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["another_process", "--exact", "--ignored", "--nocapture"]);
        command.env(SETTINGS, serde_json::to_string(self).unwrap()).stdout(Stdio::piped());
        command
    }

    fn on(&self, desktop: &Desktop) -> Said {
        said(desktop.put_in(&mut self.command()).spawn().unwrap())
    }

    fn without_bus(&self) -> Said {
        said(without_bus(&mut self.command()).spawn().unwrap())
    }
}

fn said(process: Child) -> Said {
    let output = String::from_utf8(process.wait_with_output().unwrap().stdout).unwrap();
    let line = output.lines().find_map(|line| line.strip_prefix(PREFIX)).expect(&output);
    serde_json::from_str(line).unwrap()
}

impl Said {
    fn opened(self) -> (bool, String) {
        match self {
            Self::Opened { in_file, key_id } => (in_file, key_id),
            failed => panic!("{failed:?}"),
        }
    }

    fn failed(self) -> (String, String) {
        match self {
            Self::Failed { variant, chain } => (variant, chain),
            opened => panic!("{opened:?}"),
        }
    }
}

/// Not a test: the tests start it as another process.
#[test]
#[ignore = "started by the other tests"]
fn another_process() {
    let settings: Settings = serde_json::from_str(&std::env::var(SETTINGS).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = runtime.block_on(open(&settings));
    println!("\n{PREFIX}{}", serde_json::to_string(&said).unwrap());
}

async fn open(settings: &Settings) -> Said {
    let mut builder = PersonalStorage::builder(APPLICATION).folder(&settings.folder).keyring_timeout(settings.timeout);
    if let Some(in_file) = settings.in_file {
        builder = builder.key_place(if in_file { KeyPlace::File } else { KeyPlace::Keyring });
    }
    let personal = match builder.open().await {
        Ok(personal) => personal,
        Err(error) => return failed(&error),
    };
    let in_file = personal.key_place() == KeyPlace::File;
    let (mut storage, ring) = personal.into_parts();
    if let Some(table) = &settings.table {
        storage = storage.with_table(table).unwrap();
        storage.migrate().await.unwrap();
    }
    if settings.stores_a_token {
        let key = TokenKey::new("acme", "me").unwrap();
        let tokens = Tokens::sealed(storage, ring.clone());
        tokens.put(&key, &OAuth2Token::bearer("CANARY").into(), Precondition::Always).await.unwrap();
    }
    Said::Opened { in_file, key_id: ring.primary_id() }
}

fn failed(error: &PersonalError) -> Said {
    let shown = format!("{error:?}");
    let variant = shown.split([' ', '(', '{']).next().unwrap().to_owned();
    let (mut chain, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        chain = format!("{chain}: {error}");
        source = error.source();
    }
    Said::Failed { variant, chain }
}

/// A folder that does not exist yet.
fn new_folder() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data").join("oauth");
    (parent, folder)
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
}

/// Starts processes at the same time, and returns where they found the key, which is the same for all.
fn start_all(start: impl Fn() -> Child) -> (bool, String) {
    let processes: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    let all: Vec<_> = processes.into_iter().map(|process| said(process).opened()).collect();
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0].clone()
}

#[test]
fn first_starts_create_one_key_in_a_file() {
    let (_parent, folder) = new_folder();
    let settings = Settings::new(&folder);
    let (in_file, key_id) = start_all(|| without_bus(&mut settings.command()).spawn().unwrap());
    assert!(in_file, "there is no keyring");
    assert_eq!(settings.without_bus().opened(), (true, key_id));

    assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (0o700, 0o700));
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    assert_eq!(names, ["key", "lock", "tokens.sqlite"]);
    for name in names {
        assert_eq!(mode(&folder.join(&name)), 0o600, "{name}");
    }
}

#[test]
fn first_starts_create_one_key_in_the_keyring() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    let (_parent, folder) = new_folder();
    let settings = Settings { stores_a_token: true, ..Settings::new(&folder) };
    let (in_file, key_id) = start_all(|| desktop.put_in(&mut settings.command()).spawn().unwrap());
    assert!(!in_file);
    assert_eq!(desktop.entries(APPLICATION).len(), 1, "one key was generated");

    let reference = fs::read_to_string(folder.join("key")).unwrap();
    assert!(reference.contains(&format!("wrapped:keyring:{key_id}:")), "{reference}");
    for file in ["key", "tokens.sqlite", "tokens.sqlite-wal"] {
        let bytes = fs::read(folder.join(file)).unwrap_or_default();
        assert!(!bytes.windows(6).any(|window| window == b"CANARY"), "{file}");
    }
}

/// Whenever a first start is killed, the next one uses the same key, or nothing was stored yet.
#[test]
fn killed_first_starts_leave_one_key() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    let took = {
        let (_parent, folder) = new_folder();
        let start = Instant::now();
        Settings::new(&folder).on(&desktop).opened();
        start.elapsed()
    };
    let (mut entries, mut pending) = (desktop.entries(APPLICATION).len(), 0);
    for round in 0..24 {
        let (_parent, folder) = new_folder();
        let settings = Settings::new(&folder);
        for kill in 0..3 {
            let mut process = desktop.put_in(&mut settings.command()).spawn().unwrap();
            sleep(took * (3 * round + kill) / 72);
            process.kill().unwrap();
            process.wait().unwrap();
            pending += usize::from(folder.join("key.new").exists());
        }
        let (in_file, key_id) = start_all(|| desktop.put_in(&mut settings.command()).spawn().unwrap());
        assert!(!in_file);
        assert_eq!(settings.on(&desktop).opened().1, key_id);
        assert!(!folder.join("key.new").exists());
        entries += 1;
        assert_eq!(desktop.entries(APPLICATION).len(), entries, "round {round}: one key was generated");
    }
    println!("a first start took {took:?}; of 72 that were killed, {pending} had a key pending");
}

#[test]
fn locked_keyring_is_an_error_and_no_second_key() {
    let Some(mut desktop) = Desktop::with_keyring() else { return };
    let (_parent, folder) = new_folder();
    let settings = Settings::new(&folder);
    let before = settings.on(&desktop).opened();

    desktop.lock();
    let (variant, chain) = settings.on(&desktop).failed();
    assert_eq!(variant, "Key", "{chain}");
    assert!(chain.contains(&before.1) && chain.contains("the keyring is locked"), "{chain}");
    let (_parent, other) = new_folder();
    let (variant, chain) = Settings::new(&other).on(&desktop).failed();
    assert_eq!(variant, "Keyring", "{chain}");
    assert!(!other.join("key").exists(), "a locked keyring is no reason for a file");

    desktop.stop_keyring();
    desktop.start_keyring();
    assert_eq!(settings.on(&desktop).opened(), before);
    assert!(!Settings::new(&other).on(&desktop).opened().0);
}

#[test]
fn absent_keyring_is_an_error_once_it_has_the_key() {
    let Some(mut desktop) = Desktop::with_keyring() else { return };
    let (_parent, folder) = new_folder();
    let settings = Settings::new(&folder);
    let before = settings.on(&desktop).opened();
    desktop.stop_keyring();
    for (variant, chain) in [settings.without_bus().failed(), settings.on(&desktop).failed()] {
        assert_eq!(variant, "Key", "{chain}");
        assert!(chain.contains(&before.1) && chain.contains("there is no keyring"), "{chain}");
    }
    desktop.start_keyring();
    assert_eq!(settings.on(&desktop).opened(), before);

    let entries = desktop.entries(APPLICATION);
    desktop.delete(&entries[0]);
    let (variant, chain) = settings.on(&desktop).failed();
    assert_eq!(variant, "Key", "{chain}");
    assert!(chain.contains(&before.1) && chain.contains("no such entry"), "{chain}");
    assert!(desktop.entries(APPLICATION).is_empty());
}

#[test]
fn key_in_a_file_stays_there_if_a_keyring_appears() {
    let Some(mut desktop) = Desktop::without_keyring() else { return };
    let (_parent, folder) = new_folder();
    let settings = Settings::new(&folder);
    let before = settings.on(&desktop).opened();
    assert!(before.0, "the bus has no keyring");

    desktop.start_keyring();
    assert_eq!(settings.on(&desktop).opened(), before);
    assert!(desktop.entries(APPLICATION).is_empty());
    let (variant, chain) = Settings { in_file: Some(false), ..settings }.on(&desktop).failed();
    assert_eq!(variant, "OtherPlace", "{chain}");
    let (_parent, other) = new_folder();
    assert!(Settings { in_file: Some(true), ..Settings::new(&other) }.on(&desktop).opened().0);
}

/// The other side accepts connections, and never answers. The process ends in spite of the thread that waits.
#[test]
fn slow_keyring_ends_in_time() {
    let (parent, folder) = new_folder();
    let bus = parent.path().join("bus");
    let _listener = std::os::unix::net::UnixListener::bind(&bus).unwrap();
    let settings = Settings { timeout: Duration::from_secs(1), ..Settings::new(&folder) };
    let mut command = settings.command();
    put_on_bus(&mut command, &bus);
    let start = Instant::now();
    let (variant, chain) = said(command.spawn().unwrap()).failed();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(variant, "Keyring", "{chain}");
    assert!(chain.contains("did not respond within 1s"), "{chain}");
    assert!(!folder.join("key").exists());
}

/// The bus may have a keyring, and a file would be a surprise at the next start.
#[test]
fn unreachable_keyring_is_an_error_and_no_key_in_a_file() {
    let (parent, folder) = new_folder();
    let bus = parent.path().join("bus");
    // Nothing accepts connections at this socket any more.
    drop(std::os::unix::net::UnixListener::bind(&bus).unwrap());
    let mut command = Settings::new(&folder).command();
    put_on_bus(&mut command, &bus);
    let (variant, chain) = said(command.spawn().unwrap()).failed();
    assert_eq!(variant, "Keyring", "{chain}");
    assert!(chain.contains("the keyring cannot be reached"), "{chain}");
    assert!(!folder.join("key").exists());
    assert!(Settings::new(&folder).without_bus().opened().0);
}

#[test]
fn keyring_that_does_not_start_is_an_error_and_no_key_in_a_file() {
    let Some(desktop) = Desktop::with_broken_keyring() else { return };
    let (_parent, folder) = new_folder();
    let (variant, chain) = Settings::new(&folder).on(&desktop).failed();
    assert_eq!(variant, "Keyring", "{chain}");
    assert!(chain.contains("the keyring cannot be reached") && chain.contains("Spawn"), "{chain}");
    assert!(!folder.join("key").exists());
}

#[test]
fn lost_key_is_reported_and_not_replaced() {
    let (_parent, folder) = new_folder();
    let settings = Settings { stores_a_token: true, ..Settings::new(&folder) };
    let (_, key_id) = settings.without_bus().opened();
    let key = fs::read(folder.join("key")).unwrap();
    fs::remove_file(folder.join("key")).unwrap();
    for _ in 0..2 {
        let (variant, chain) = settings.without_bus().failed();
        assert_eq!(variant, "KeyLost", "{chain}");
        assert!(chain.contains(&key_id) && chain.contains("restore it from a backup"), "{chain}");
        assert!(!folder.join("key").exists());
    }
    fs::write(folder.join("key"), key).unwrap();
    let (variant, chain) = settings.without_bus().failed();
    assert_eq!(variant, "KeyFile", "others can read it: {chain}");
    set_mode(&folder.join("key"), 0o600);
    assert_eq!(settings.without_bus().opened(), (true, key_id));

    fs::write(folder.join("key"), "CANARY\n").unwrap();
    let (variant, chain) = settings.without_bus().failed();
    assert_eq!(variant, "Key", "{chain}");
    assert!(!chain.contains("CANARY"), "{chain}");
}

/// The application stores its tokens in a table of its own.
#[test]
fn lost_key_of_another_table_is_not_replaced() {
    let (_parent, folder) = new_folder();
    let settings = Settings { table: Some("acme_tokens".to_owned()), ..Settings::new(&folder) };
    settings.without_bus().opened();
    fs::remove_file(folder.join("key")).unwrap();
    let (_, key_id) = Settings { stores_a_token: true, ..settings.clone() }.without_bus().opened();
    fs::remove_file(folder.join("key")).unwrap();
    let (variant, chain) = settings.without_bus().failed();
    assert_eq!(variant, "KeyLost", "{chain}");
    assert!(chain.contains(&key_id), "{chain}");
    assert!(!folder.join("key").exists());
}

#[test]
fn timeout_of_the_keyring_may_be_any() {
    let (_parent, folder) = new_folder();
    let settings = Settings { timeout: Duration::MAX, ..Settings::new(&folder) };
    settings.without_bus().opened();
}

#[test]
fn exposed_folder_is_refused() {
    let (_parent, folder) = new_folder();
    fs::create_dir_all(&folder).unwrap();
    for exposed in [0o755, 0o770, 0o701] {
        set_mode(&folder, exposed);
        let (variant, chain) = Settings::new(&folder).without_bus().failed();
        assert_eq!(variant, "Exposed", "{chain}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing was created");
    }
    set_mode(&folder, 0o700);
    Settings::new(&folder).without_bus().opened();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// A process that hangs while it creates the key blocks the others only for a limited time.
#[test]
fn lock_of_another_process_is_waited_for_in_vain() {
    let (_parent, folder) = new_folder();
    fs::create_dir_all(&folder).unwrap();
    set_mode(&folder, 0o700);
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let settings = Settings { timeout: Duration::from_millis(100), ..Settings::new(&folder) };
    let (variant, chain) = settings.without_bus().failed();
    assert_eq!(variant, "Busy", "{chain}");
    lock.unlock().unwrap();
    settings.without_bus().opened();
}

#[tokio::test]
async fn name_of_the_application_is_that_of_a_folder() {
    for name in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-x", "ü", &"x".repeat(65)] {
        let error = PersonalStorage::open(name).await.unwrap_err();
        assert!(matches!(error, PersonalError::ApplicationName { .. }), "{name}: {error}");
    }
}
