//! What the commands that change many records do if something fails: one line that names the fix, and nothing half-done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{KeyRing, OAuth2Token, Precondition, Record, SealingKey, TokenKey, Tokens};
use program::storages::{Backend, key, on_every_storage, write_private};
use program::{Run, oauth_dance};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tempfile::TempDir;

/// A command that changes every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Seal,
    Unseal,
    Reseal,
    Import,
    Copy,
    Move,
}

const WORK: [Work; 6] = [Work::Seal, Work::Unseal, Work::Reseal, Work::Import, Work::Copy, Work::Move];

impl Work {
    /// Stores what the command changes, or what it reads.
    fn prepare(self, backend: &Backend, source: &Source, records: usize) {
        let token = OAuth2Token::bearer("CANARY").into();
        let tokens = match self {
            Self::Seal => Tokens::dangerous_plaintext(Arc::clone(&backend.storage)),
            Self::Unseal | Self::Reseal => backend.tokens(),
            Self::Import => return source.fill_flask_dance(backend, records),
            Self::Copy | Self::Move => return source.fill(records),
        };
        backend.block_on(async {
            for user in users(records) {
                tokens.put(&user, &token, Precondition::Always).await.unwrap();
            }
        });
        if self == Self::Reseal {
            let add = Run::of(oauth_dance().args(["key", "add", "--key-file"]).arg(&backend.key_file));
            let promote = ["key", "promote", add.stdout.trim(), "--key-file"];
            assert_eq!(Run::of(oauth_dance().args(promote).arg(&backend.key_file)).code, 0);
        }
    }

    /// The command, on the place of a backend at this URL.
    fn command(self, backend: &Backend, url: &str, source: &Source, key_file: &Path) -> Command {
        let mut command = oauth_dance();
        let place = backend.at(url);
        match self {
            Self::Seal => command.args(["seal"]),
            Self::Unseal => command.args(["unseal", "--dangerously"]),
            Self::Reseal => command.args(["reseal"]),
            Self::Import => command.args(["import", "flask-dance", "--from", &source.flask_url]),
            Self::Copy => command.args(["copy", "--from", &source.url]),
            Self::Move => command.args(["copy", "--move", "--verify", "--from", &source.url]),
        };
        match self {
            Self::Copy | Self::Move => {
                let to = place.iter().map(|part| match part.as_str() {
                    "--storage" => "--to",
                    "--table" => "--to-table",
                    "--prefix" => "--to-prefix",
                    part => part,
                });
                command.args(to);
            }
            _ => {
                command.args(place).arg("--key-file").arg(key_file);
            }
        }
        command
    }

    fn run(self, backend: &Backend, source: &Source) -> Run {
        Run::of(&mut self.command(backend, &backend.url, source, &backend.key_file))
    }

    /// Whether the command has changed this record of its target.
    fn is_done(self, record: Option<&Record>, key_file: &Path) -> bool {
        let Some(record) = record else { return false };
        let primary = KeyRing::parse(&fs::read_to_string(key_file).unwrap()).unwrap().primary_id();
        match self {
            Self::Unseal => record.key_id.is_none(),
            Self::Copy | Self::Move => record.payload == b"copied",
            Self::Seal | Self::Reseal | Self::Import => record.key_id == Some(primary),
        }
    }

    /// How many records of the target the command has changed.
    fn done(self, backend: &Backend, records: usize) -> usize {
        let all = stored(backend, records);
        all.iter().filter(|record| self.is_done(record.as_ref(), &backend.key_file)).count()
    }
}

fn users(records: usize) -> impl Iterator<Item = TokenKey> {
    (0..records).map(|user| key("github", &format!("u{user}")))
}

fn stored(backend: &Backend, records: usize) -> Vec<Option<Record>> {
    backend.block_on(async {
        let mut all = Vec::new();
        for user in users(records) {
            all.push(backend.storage.get(&user).await.unwrap().map(|found| found.value));
        }
        all
    })
}

/// What is read: a storage in a SQLite file, and a table of Flask-Dance beside it.
struct Source {
    backend: Backend,
    url: String,
    flask_url: String,
}

impl Source {
    fn new() -> Self {
        let backend = Backend::new("SQLite").unwrap();
        let url = backend.url.clone();
        let flask_url = format!("sqlite:{}", backend.folder.path().join("flask.db").display());
        // The table that `copy` reads has its default name.
        let migrated = Run::of(oauth_dance().args(["migrate", "up", "--database-url", &backend.url]));
        assert_eq!(migrated.code, 0, "{}", migrated.stderr);
        Self { backend, url, flask_url }
    }

    fn execute(&self, url: &str, sql: String) {
        self.backend.block_on(async {
            let mut connection = sqlx::SqliteConnection::connect(&format!("{url}?mode=rwc")).await.unwrap();
            connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        });
    }

    fn fill(&self, records: usize) {
        let storage = self.backend.block_on(oauth_dance_sqlx::SqliteStorage::connect(&self.backend.url)).unwrap();
        self.backend.block_on(async {
            for user in users(records) {
                use oauth_dance_core::TokenStorage as _;
                storage.put(&user, &Record::new("copied"), Precondition::Always).await.unwrap();
            }
        });
    }

    /// The first records, as they are.
    fn stored(&self, records: usize) -> Vec<Option<Record>> {
        use oauth_dance_core::TokenStorage as _;
        self.backend.block_on(async {
            let storage = oauth_dance_sqlx::SqliteStorage::connect(&self.backend.url).await.unwrap();
            let mut all = Vec::new();
            for user in users(records) {
                all.push(storage.get(&user).await.unwrap().map(|found| found.value));
            }
            all
        })
    }

    /// How many records are left.
    fn left(&self) -> usize {
        let run = Run::of(oauth_dance().args(["list", "--json", "--storage", &self.backend.url]));
        run.stdout.lines().count()
    }

    fn fill_flask_dance(&self, _: &Backend, records: usize) {
        let mut sql =
            "CREATE TABLE flask_dance_oauth (id INTEGER PRIMARY KEY, provider TEXT, created_at TEXT, token TEXT, \
            user_id TEXT); BEGIN;"
                .to_owned();
        for user in 0..records {
            sql += &format!(
                "INSERT INTO flask_dance_oauth (provider, created_at, token, user_id) \
                VALUES ('github', '2020-01-01 00:00:00', '{{\"access_token\": \"CANARY\"}}', 'u{user}');"
            );
        }
        self.execute(&self.flask_url, sql + "COMMIT");
    }
}

#[test]
fn a_killed_command_is_completed_by_the_next() {
    const RECORDS: usize = 1500;
    for work in WORK {
        on_every_storage(|backend| {
            let source = Source::new();
            work.prepare(backend, &source, RECORDS);
            let mut command = work.command(backend, &backend.url, &source, &backend.key_file);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let start = Instant::now();
            // A page has a thousand records, in any order.
            while work.done(backend, 40) == 0 && start.elapsed() < Duration::from_secs(30) {}
            child.kill().unwrap();
            child.wait().unwrap();
            let before = work.done(backend, RECORDS);
            assert!(before > 0 && before < RECORDS, "{work:?} on {}: {before} when it was killed", backend.name);

            let run = work.run(backend, &source);
            assert_eq!(run.code, 0, "{work:?} on {}: {}{}", backend.name, run.stdout, run.stderr);
            assert_eq!(work.done(backend, RECORDS), RECORDS, "{work:?} on {}", backend.name);
            assert_eq!(source.left(), if work == Work::Copy { RECORDS } else { 0 });
        });
    }
}

#[test]
fn a_failed_storage_is_one_line_and_nothing_changes() {
    for work in WORK {
        on_every_storage(|backend| {
            let source = Source::new();
            work.prepare(backend, &source, 3);
            let before = (stored(backend, 3), source.stored(3));
            for (url, fixes) in [
                (backend.unreachable(), &["start its server, or correct the URL", "check its path"][..]),
                (backend.read_only(), &["permit", "correct the permissions", "grant", "turn the setting off"]),
            ] {
                let run = Run::of(&mut work.command(backend, &url, &source, &backend.key_file));
                assert_eq!(run.code, 2, "{work:?} on {}: {}{}", backend.name, run.stdout, run.stderr);
                run.assert_one_line(&["cannot use the storage"]);
                assert!(
                    fixes.iter().any(|fix| run.stderr.contains(fix)),
                    "{work:?} on {}: {}",
                    backend.name,
                    run.stderr
                );
                assert_eq!((stored(backend, 3), source.stored(3)), before, "{work:?} on {}", backend.name);
            }
            assert_eq!(work.run(backend, &source).code, 0);
            assert_eq!(work.done(backend, 3), 3, "{work:?} on {}", backend.name);
        });
    }
}

#[test]
fn a_wrong_key_changes_no_record() {
    for work in [Work::Unseal, Work::Reseal] {
        on_every_storage(|backend| {
            let source = Source::new();
            work.prepare(backend, &source, 3);
            let before = stored(backend, 3);
            let wrong = backend.folder.path().join("wrong");
            write_private(&wrong, &SealingKey::generate().encode());
            let run = Run::of(work.command(backend, &backend.url, &source, &wrong).arg("--json"));
            assert_eq!(run.code, 1, "{work:?} on {}: {}", backend.name, run.stderr);
            assert_eq!(run.stdout.matches("which is not in the key ring").count(), 3, "{}", run.stdout);
            assert!(run.stdout.contains(&backend.ring.primary_id()), "{}", run.stdout);
            assert_eq!(stored(backend, 3), before);
        });
    }
    for text in ["", "# nothing\n", "CANARY\n"] {
        let Some(backend) = Backend::new("SQLite") else { return };
        let source = Source::new();
        for work in [Work::Seal, Work::Unseal, Work::Reseal, Work::Import] {
            let wrong = backend.folder.path().join("wrong");
            write_private(&wrong, text);
            let run = Run::of(&mut work.command(&backend, &backend.url, &source, &wrong));
            assert_eq!(run.code, 2);
            run.assert_one_line(&["cannot be used", "the key ring"]);
        }
    }
}

/// A file system of this size, which ends with the test.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` without the permission to mount one.
    fn new(size: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    /// Leaves no space for anything else.
    fn fill(&self) {
        let file = self.0.path().join("filler");
        for block in [1 << 16, 1 << 12, 1] {
            while append(&file, block) {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

fn append(file: &Path, bytes: usize) -> bool {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    file.write_all(&vec![0; bytes]).is_ok()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

/// The same command, but it cannot make any file larger.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]).arg(command.get_program());
    limited.args(command.get_args());
    limited.env_remove("OAUTH_DANCE_KEYS").env_remove("OAUTH_DANCE_STORAGE").env_remove("RUST_LOG");
    limited
}

#[test]
fn a_full_disk_is_one_line_and_nothing_changes() {
    for work in WORK {
        let disk = SmallDisk::new("8m");
        let folder = disk.as_ref().map_or_else(TempDir::new, |disk| TempDir::new_in(disk.0.path())).unwrap();
        let backend = Backend::with_folder("SQLite", folder).unwrap();
        let source = Source::new();
        work.prepare(&backend, &source, 50);
        let before = stored(&backend, 50);
        let command = || work.command(&backend, &backend.url, &source, &backend.key_file);
        let check = |run: &Run| {
            assert_eq!(run.code, 2, "{work:?}: {}{}", run.stdout, run.stderr);
            run.assert_one_line(&["cannot use the storage", "its disk"]);
            let after = stored(&backend, 50);
            let is_whole = |(before, after): (&Option<Record>, &Option<Record>)| {
                before == after || work.is_done(after.as_ref(), &backend.key_file)
            };
            assert!(before.iter().zip(&after).all(is_whole), "{work:?}: each record is the old or the new one");
        };
        check(&Run::of(&mut limited(&command())));
        if let Some(disk) = &disk {
            disk.fill();
            check(&Run::of(&mut command()));
            disk.free();
        }
        let run = work.run(&backend, &source);
        assert_eq!((run.code, work.done(&backend, 50)), (0, 50), "{work:?}: {}", run.stderr);
    }
}

#[test]
fn a_key_file_on_a_full_disk_is_unchanged() {
    let folder = TempDir::new().unwrap();
    let disk = SmallDisk::new("64k");
    let folder = disk.as_ref().map_or(folder.path(), |disk| disk.0.path());
    let file = folder.join("keys");
    assert_eq!(Run::of(oauth_dance().args(["key", "generate", "--key-file"]).arg(&file)).code, 0);
    let add = Run::of(oauth_dance().args(["key", "add", "--key-file"]).arg(&file));
    let before = fs::read_to_string(&file).unwrap();
    let check = |is_limited: bool| {
        for (command, target) in
            [(&["add"][..], &file), (&["promote", add.stdout.trim()], &file), (&["generate"], &folder.join("created"))]
        {
            let mut run = oauth_dance();
            run.arg("key").args(command).arg("--key-file").arg(target);
            let run = Run::of(&mut if is_limited { limited(&run) } else { run });
            assert_eq!(run.code, 2, "{command:?}: {}", run.stderr);
            run.assert_one_line(&["cannot be written, and is unchanged", "free space on its disk"]);
            assert!(run.stdout.is_empty(), "no id of a key that is not there: {}", run.stdout);
            assert_eq!(fs::read_to_string(&file).unwrap(), before);
            assert!(!folder.join("created").exists());
            let left = fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "filler");
            assert_eq!(left.count(), 1, "nothing is left over");
        }
    };
    check(true);
    if let Some(disk) = &disk {
        disk.fill();
        check(false);
        disk.free();
    }
    assert_eq!(Run::of(oauth_dance().args(["key", "add", "--key-file"]).arg(&file)).code, 0);
}
