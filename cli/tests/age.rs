//! Key rings whose keys the real program `age` has wrapped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{AgeProvider, KeyLoader, OAuth2Token, Precondition, Tokens, WrappedKey};
use program::storages::{Backend, key, on_every_storage, write_private};
use program::{Run, oauth_dance, skip};
use tempfile::TempDir;

/// An identity that `age-keygen` wrote, and the recipient that it has.
struct Age {
    folder: TempDir,
    identity: PathBuf,
    recipient: String,
}

impl Age {
    fn new() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let identity = folder.path().join("identity");
        let recipient = keygen(&identity)?;
        Some(Self { folder, identity, recipient })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str], key_file: &Path) -> Command {
        let mut command = oauth_dance();
        command.args(arguments).arg("--key-file").arg(key_file).arg("--age-identity").arg(&self.identity);
        command
    }

    /// Runs a command, which shows no secret.
    fn run(&self, arguments: &[&str], key_file: &Path) -> Run {
        let run = Run::of(&mut self.command(arguments, key_file));
        self.assert_no_secret(&run);
        run
    }

    fn assert_no_secret(&self, run: &Run) {
        run.assert_no_secret();
        assert!(!format!("{}{}", run.stdout, run.stderr).contains("AGE-SECRET-KEY"), "{}{}", run.stdout, run.stderr);
    }

    /// A folder with a program named `age`, for the `PATH`.
    fn fake(&self, name: &str, script: &str) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("age"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(folder.join("age"), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }
}

/// Writes a new identity, and returns its recipient.
fn keygen(identity: &Path) -> Option<String> {
    let Ok(output) = Command::new("age-keygen").arg("-o").arg(identity).output() else {
        skip("age is not installed; `tests/run` installs it");
        return None;
    };
    assert!(output.status.success());
    let recipient = Command::new("age-keygen").arg("-y").arg(identity).output().unwrap().stdout;
    Some(String::from_utf8(recipient).unwrap().trim().to_owned())
}

/// The lines of a key file without comments.
fn keys(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// A file with one wrapped key.
fn wrapped(age: &Age) -> PathBuf {
    let file = age.path("keys");
    let run = age.run(&["key", "generate"], &file);
    assert_eq!(run.code, 0, "{}", run.stderr);
    file
}

/// The tokens of a storage under the keys of a file.
fn tokens(backend: &Backend, age: &Age, file: &Path) -> Tokens {
    let loader = KeyLoader::new(AgeProvider::new(&age.identity));
    let ring = backend.block_on(loader.load(&fs::read_to_string(file).unwrap())).unwrap();
    Tokens::sealed(Arc::clone(&backend.storage), ring)
}

#[test]
fn a_generated_key_is_wrapped_for_identity_or_recipient() {
    let Some(age) = Age::new() else { return };
    let file = wrapped(&age);
    let [line] = keys(&file).try_into().unwrap();
    let key = WrappedKey::parse(&line).unwrap();
    assert_eq!(key.provider(), "age");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // A machine without the identity can add keys that the owner of the identity unwraps.
    let mut add = oauth_dance();
    add.args(["key", "add", "--age-recipient", &age.recipient, "--key-file"]).arg(&file);
    let run = Run::of(&mut add);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(keys(&file).len(), 2);
    let promoted = Run::of(oauth_dance().args(["key", "promote", run.stdout.trim(), "--key-file"]).arg(&file));
    assert_eq!(promoted.code, 0, "needs no identity: {}", promoted.stderr);
    assert_eq!(WrappedKey::parse(&keys(&file)[0]).unwrap().key_id(), run.stdout.trim());

    let Some(backend) = Backend::new("SQLite") else { return };
    backend.block_on(tokens(&backend, &age, &file).check()).unwrap();
}

#[test]
fn every_command_with_a_key_ring_takes_a_wrapped_one() {
    let Some(age) = Age::new() else { return };
    let file = wrapped(&age);
    on_every_storage(|backend| {
        let token = OAuth2Token::bearer("CANARY").into();
        let sealed = tokens(backend, &age, &file);
        backend.block_on(sealed.put(&key("github", "alice"), &token, Precondition::Always)).unwrap();
        let at = backend.at(&backend.url);
        let at: Vec<_> = at.iter().map(String::as_str).collect();
        for command in [
            &["list", "--state"][..],
            &["show", "alice"],
            &["stats"],
            &["expiring", "--within", "1h", "--final"],
            &["verify"],
            &["doctor"],
            &["reseal"],
            &["seal"],
            &["unseal", "--dangerously"],
            &["seal"],
            &["verify"],
        ] {
            let run = age.run(&[command, &at].concat(), &file);
            // The servers of the tests need not be safe, which only `doctor` reports.
            let is_done = run.code == 0 || (command == ["doctor"] && run.stdout.contains("whose first key is"));
            assert!(is_done, "{command:?} on {}: {}{}", backend.name, run.stdout, run.stderr);
        }
        let found = backend.block_on(sealed.get(&key("github", "alice"))).unwrap().unwrap().value;
        assert_eq!(found, token, "sealed with the wrapped key at the end");

        let text = fs::read_to_string(&file).unwrap();
        let mut verify = oauth_dance();
        verify.arg("verify").args(&at).env("OAUTH_DANCE_KEYS", text).env("OAUTH_DANCE_AGE_IDENTITY", &age.identity);
        let run = Run::of(&mut verify);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let listed = Run::of(oauth_dance().args(["key", "list", "--json", "--key-file"]).arg(&file).args(&at));
        assert!(listed.code == 0 && listed.stdout.contains("\"seals\""), "{}{}", listed.stdout, listed.stderr);
    });
}

#[test]
fn the_demo_creates_and_loads_a_wrapped_key() {
    let Some(age) = Age::new() else { return };
    let file = age.path("keys");
    for _ in 0..2 {
        let mut command = age.command(&["demo", "--storage", "memory:", "--listen", "127.0.0.1:0"], &file);
        let mut demo = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let first = BufReader::new(demo.stdout.take().unwrap()).lines().next();
        demo.kill().unwrap();
        demo.wait().unwrap();
        assert!(first.unwrap().unwrap().contains("http://127.0.0.1:"));
        let [line] = keys(&file).try_into().unwrap();
        assert!(WrappedKey::parse(&line).is_some());
    }
}

/// From a file with a plain key to one with wrapped keys alone: the steps of docs/operating.md.
#[test]
fn a_plain_key_is_rotated_to_a_wrapped_one() {
    let Some(age) = Age::new() else { return };
    on_every_storage(|backend| {
        let file = &backend.key_file;
        let old = backend.ring.primary_id();
        backend.store(&key("github", "alice"), 3600);
        let at = backend.at(&backend.url);
        let at: Vec<_> = at.iter().map(String::as_str).collect();
        let new = age.run(&["key", "add"], file).stdout.trim().to_owned();
        assert_eq!(keys(file).len(), 2);
        for command in [
            &["key", "promote", &new][..],
            &[&["reseal"], &at[..]].concat(),
            &[&["key", "retire", &old], &at[..]].concat(),
        ] {
            // These change nothing that needs the identity, except `reseal`.
            let run = match command[0] {
                "reseal" => age.run(command, file),
                _ => Run::of(oauth_dance().args(command).arg("--key-file").arg(file)),
            };
            assert_eq!(run.code, 0, "{command:?}: {}", run.stderr);
        }
        let [line] = keys(file).try_into().unwrap();
        assert_eq!(WrappedKey::parse(&line).unwrap().key_id(), new);
        assert_eq!(age.run(&[&["verify"], &at[..]].concat(), file).code, 0);

        let before = fs::read_to_string(file).unwrap();
        let plain = Run::of(oauth_dance().args(["key", "add", "--key-file"]).arg(file));
        assert_eq!(plain.code, 2);
        plain.assert_one_line(&["a new one would not be", "--age-identity or --age-recipient"]);
        assert_eq!(fs::read_to_string(file).unwrap(), before);
    });
}

#[test]
fn each_failure_of_age_is_one_line_with_the_fix() {
    let Some(age) = Age::new() else { return };
    let file = wrapped(&age);
    let good = fs::read_to_string(&file).unwrap();
    let [line] = keys(&file).try_into().unwrap();
    let other = age.path("other");
    keygen(&other).unwrap();
    let path = std::env::var("PATH").unwrap();
    let hangs = age.fake("hangs", "exec sleep 20");
    let fails = age.fake("fails", "echo CANARY AGE-SECRET-KEY-1 >&2; exit 3");
    let prints = age.fake("prints", "cat >/dev/null; echo CANARY");
    let floods = age.fake("floods", "exec cat /dev/zero");
    let is_killed = age.fake("killed", "kill -9 $$");
    let empty = age.path("empty");
    fs::create_dir(&empty).unwrap();
    let garbage = age.path("garbage");
    write_private(&garbage, "CANARY\n");
    let exposed = age.path("exposed");
    fs::copy(&age.identity, &exposed).unwrap();
    fs::set_permissions(&exposed, fs::Permissions::from_mode(0o640)).unwrap();
    let cut = |length: usize| format!("{}\n", &line[..length]);
    let changed = {
        let at = line.len() - 10;
        let other = if &line[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}\n", &line[..at], &line[at + 1..])
    };
    let renamed = good.replace("wrapped:age:", "wrapped:vault:");
    let other_id = format!("wrapped:age:0123456789abcdef:{}\n", line.rsplit(':').next().unwrap());
    let with_path = |folder: &Path| format!("{}:{path}", folder.display());

    type Case<'a> = (&'a str, (String, PathBuf, String), &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        ("wrong identity", (good.clone(), other, path.clone()), &["does not have the key that wrapped"][..]),
        (
            "missing program",
            (good.clone(), age.identity.clone(), empty.display().to_string()),
            &["age is missing; install"],
        ),
        ("hangs", (good.clone(), age.identity.clone(), with_path(&hangs)), &["did not finish within 8s", "try again"]),
        ("floods", (good.clone(), age.identity.clone(), with_path(&floods)), &["age failed; run it"]),
        ("fails", (good.clone(), age.identity.clone(), with_path(&fails)), &["age failed; run it"]),
        ("prints", (good.clone(), age.identity.clone(), with_path(&prints)), &["is damaged; restore"]),
        (
            "is killed",
            (good.clone(), age.identity.clone(), with_path(&is_killed)),
            &["age failed; run it", "signal: 9"],
        ),
        ("truncated", (cut(line.len() - 60), age.identity.clone(), path.clone()), &["is damaged; restore"]),
        ("truncated early", (cut(81), age.identity.clone(), path.clone()), &["is damaged; restore"]),
        (
            "truncated to a word",
            (cut(20), age.identity.clone(), path.clone()),
            &["line 1 of the key ring is not a key"],
        ),
        ("changed", (changed, age.identity.clone(), path.clone()), &["is damaged; restore"]),
        ("other id", (other_id, age.identity.clone(), path.clone()), &["does not contain key 0123456789abcdef"]),
        ("other provider", (renamed, age.identity.clone(), path.clone()), &["vault wrapped, but age is used"]),
        ("no identity", (good.clone(), PathBuf::new(), path.clone()), &["contains wrapped keys; set the age identity"]),
        (
            "missing identity",
            (good.clone(), age.path("none"), path.clone()),
            &["none cannot be read; correct its path"],
        ),
        ("folder", (good.clone(), empty.clone(), path.clone()), &["it is not a regular file"]),
        ("garbage", (good.clone(), garbage, path.clone()), &["not one that `age-keygen` wrote"]),
        ("exposed", (good.clone(), exposed, path.clone()), &["other users of this machine", "`chmod 600`"]),
    ];
    let storage = format!("sqlite:{}", age.path("none.db").display());
    for (name, (text, identity, path), words) in cases {
        write_private(&file, &text);
        let start = Instant::now();
        let mut command = oauth_dance();
        command.args(["verify", "--storage", &storage, "--key-file"]).arg(&file);
        let run = Run::of(command.env("OAUTH_DANCE_AGE_IDENTITY", identity).env("PATH", path));
        assert_eq!(run.code, 2, "{name}: {}{}", run.stdout, run.stderr);
        run.assert_one_line(words);
        age.assert_no_secret(&run);
        assert!(start.elapsed() < Duration::from_secs(15), "{name}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "{name}");
    }
    // With the file as it was, only the storage is missing.
    write_private(&file, &good);
    let run = age.run(&["verify", "--storage", &storage], &file);
    run.assert_one_line(&["cannot use the storage"]);
}

#[test]
fn a_key_that_cannot_be_wrapped_is_not_added() {
    let Some(age) = Age::new() else { return };
    let file = wrapped(&age);
    let before = fs::read_to_string(&file).unwrap();
    let others = keygen(&age.path("other")).unwrap();
    let secret = fs::read_to_string(&age.identity).unwrap().lines().last().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let prints = format!("{}:{path}", age.fake("prints", "cat >/dev/null; echo CANARY").display());
    let identity = age.identity.to_str().unwrap();
    for (options, path, words) in [
        (&["--age-recipient", &others, "--age-identity", identity][..], path.as_str(), &["does not have the key"][..]),
        (&["--age-recipient", "age1CANARY"], &path, &["recipient of age is invalid", "age-keygen -y"]),
        (&["--age-recipient", &secret], &path, &["not a public key"]),
        (&["--age-identity", identity], "/no/such/folder", &["age is missing; install age"]),
        (&["--age-identity", identity], &prints, &["is not age"]),
    ] {
        for command in ["add", "generate"] {
            let target = if command == "add" { file.clone() } else { age.path("created") };
            let mut run = oauth_dance();
            let run =
                Run::of(run.args(["key", command]).args(options).arg("--key-file").arg(&target).env("PATH", path));
            assert_eq!(run.code, 2, "{options:?}: {}", run.stderr);
            run.assert_one_line(&[&["no key was added"], words].concat());
            age.assert_no_secret(&run);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
        assert!(!age.path("created").exists());
    }
    let left: Vec<_> = fs::read_dir(age.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("oauth-dance-new")), "{left:?}");
}

#[test]
fn age_gets_secrets_through_pipes_only() {
    let Some(age) = Age::new() else { return };
    let log = age.path("log");
    let real = String::from_utf8(Command::new("sh").args(["-c", "command -v age"]).output().unwrap().stdout).unwrap();
    let script = format!("(echo \"$@\"; env) >> '{}'\nexec {} \"$@\"", log.display(), real.trim());
    let path = format!("{}:{}", age.fake("logs", &script).display(), std::env::var("PATH").unwrap());
    let file = age.path("keys");
    for command in [&["key", "generate"][..], &["verify", "--storage", "sqlite:/no/such/file"]] {
        let mut command = age.command(command, &file);
        Run::of(
            command.env("PATH", &path).env("OAUTH_DANCE_STORAGE", "sqlite:CANARY").env("OAUTH_DANCE_KEYS", "CANARY"),
        );
    }
    let logged = fs::read_to_string(&log).unwrap();
    assert!(logged.matches("--encrypt").count() == 1 && logged.matches("--decrypt").count() == 2, "{logged}");
    let identity = fs::read_to_string(&age.identity).unwrap();
    let secret = identity.lines().last().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let loader = KeyLoader::new(AgeProvider::new(&age.identity));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ring = runtime.block_on(loader.load(&text)).unwrap();
    assert!(text.contains(&ring.primary_id()));
    for part in ["CANARY", "AGE-SECRET-KEY", secret, "OAUTH_DANCE"] {
        assert!(!logged.contains(part), "{part} in: {logged}");
    }
}

#[test]
fn a_killed_key_command_continues_when_run_again() {
    let Some(age) = Age::new() else { return };
    let file = wrapped(&age);
    let hangs = format!("{}:{}", age.fake("hangs", "exec sleep 20").display(), std::env::var("PATH").unwrap());
    for (arguments, target) in [(["key", "add"], &file), (["key", "generate"], &age.path("created"))] {
        let before = fs::read_to_string(target).ok();
        let pending = target.with_file_name(format!(".{}.oauth-dance-new", target.file_name().unwrap().display()));
        let mut child = age.command(&arguments, target).env("PATH", &hangs).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while !pending.exists() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let busy = age.run(&arguments, target);
        busy.assert_one_line(&["another command is changing the key file"]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pending.exists(), "what the killed command has left");
        assert_eq!(fs::read_to_string(target).ok(), before);

        let run = age.run(&arguments, target);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(keys(target).len(), before.map_or(1, |_| 2));
        assert!(!pending.exists());
    }
}
