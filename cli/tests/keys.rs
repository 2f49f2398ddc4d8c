//! `oauth-dance key`, `reseal`, `seal` and `unseal`, on every storage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance_core::{KeyRing, OAuth2Token, Precondition, SealingKey, TokenKey, Tokens};
use program::storages::{key, on_every_storage, write_private};
use program::{Run, column, oauth_dance};
use serde_json::json;

/// The output contains no key of the file.
fn assert_no_key(run: &Run, file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(!run.stdout.contains(line) && !run.stderr.contains(line), "a key is printed");
    }
}

fn key_command(arguments: &[&str], file: &Path) -> Run {
    let run = Run::of(oauth_dance().arg("key").args(arguments).arg("--key-file").arg(file));
    if file.exists() && fs::metadata(file).unwrap().permissions().mode() & 0o400 != 0 {
        assert_no_key(&run, file);
    }
    run
}

fn ring(file: &Path) -> KeyRing {
    KeyRing::parse(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn a_key_file_is_created_once_for_its_owner_only() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("keys");
    let run = key_command(&["generate"], &file);
    assert_eq!((run.code, run.stdout.trim()), (0, ring(&file).primary_id().as_str()), "{}", run.stderr);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let before = fs::read_to_string(&file).unwrap();
    let run = key_command(&["generate"], &file);
    assert_eq!(run.code, 2);
    run.assert_one_line(&["is not overwritten", "key add"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file remains");

    let run = key_command(&["generate"], &folder.path().join("missing/keys"));
    assert_eq!(run.code, 2);
    run.assert_one_line(&["cannot be written", "--key-file"]);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("keys");
    let id = key_command(&["generate"], &file).stdout.trim().to_owned();
    let before = fs::read_to_string(&file).unwrap();
    let storage = format!("sqlite:{}", folder.path().join("none.db").display());
    for mode in [0o604, 0o602, 0o644, 0o640, 0o620, 0o610, 0o777] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        for arguments in [&["key", "add"][..], &["key", "promote", &id], &["verify", "--storage", &storage]] {
            let run = Run::of(oauth_dance().args(arguments).arg("--key-file").arg(&file));
            assert_eq!(run.code, 2, "{mode:o} {arguments:?}");
            run.assert_one_line(&["other users of this machine can read", "chmod 600"]);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(key_command(&["add"], &file).code, 0);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "as before");
}

#[test]
fn one_command_at_a_time_changes_a_key_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("keys");
    key_command(&["generate"], &file);
    let runs: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| key_command(&["add"], &file))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let text = fs::read_to_string(&file).unwrap();
    let keys = text.lines().filter(|line| !line.starts_with('#')).count();
    let added = runs.iter().filter(|run| run.code == 0).count();
    assert_eq!(keys, 1 + added, "every key that was reported is there");
    for run in runs.iter().filter(|run| run.code != 0) {
        run.assert_one_line(&["another command is changing the key file", "again"]);
    }
    assert!(added > 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
}

/// The steps of docs/operating.md, while another process refreshes tokens with each key ring.
#[test]
fn a_key_is_rotated_and_retired_step_by_step() {
    on_every_storage(|backend| {
        let file = &backend.key_file;
        let old = backend.ring.primary_id();
        for user in 0..20 {
            backend.store(&key("github", &format!("u{user}")), 3600);
        }
        let new = key_command(&["add"], file).stdout.trim().to_owned();
        assert_eq!(ring(file).primary_id(), old, "the new key only opens");

        let retire = |id: &str| {
            Run::of(oauth_dance().args(["key", "retire", id, "--key-file"]).arg(file).args(backend.at(&backend.url)))
        };
        retire(&old).assert_one_line(&["seals new tokens"]);
        assert_eq!(key_command(&["promote", &new], file).code, 0);
        assert_eq!(ring(file).primary_id(), new);
        let refused = retire(&old);
        assert_eq!(refused.code, 2);
        refused.assert_one_line(&["20 stored records are sealed with key", "oauth-dance reseal"]);
        assert!(ring(file).has_older());

        let reseal = backend.run_with_keys(&["reseal"]);
        assert_eq!((reseal.code, reseal.stdout.as_str()), (0, ""), "{}", reseal.stderr);
        assert!(reseal.stderr.contains("resealed 20 records; 0 needed no change"), "{}", reseal.stderr);
        let again = backend.run_with_keys(&["reseal"]);
        assert!(again.stderr.contains("resealed 0 records; 20 needed no change"), "{}", again.stderr);

        let list = backend.run_with_keys(&["key", "list", "--json"]);
        assert_eq!(list.code, 0, "{}", list.stderr);
        let mut expected = [(new.clone(), json!(20), json!("seals")), (old.clone(), json!(0), json!("opens"))];
        expected.sort_by_key(|(id, ..)| id.clone());
        assert_eq!(column(&list, "key_id"), expected.iter().map(|row| json!(row.0)).collect::<Vec<_>>());
        assert_eq!(column(&list, "records"), expected.iter().map(|row| row.1.clone()).collect::<Vec<_>>());
        assert_eq!(column(&list, "state"), expected.iter().map(|row| row.2.clone()).collect::<Vec<_>>());

        let retired = retire(&old);
        assert_eq!(retired.code, 0, "{}", retired.stderr);
        assert!(!ring(file).has_older());
        assert_eq!(backend.run_with_keys(&["verify"]).code, 0);
        retire(&old).assert_one_line(&["has no key"]);
    });
}

#[test]
fn a_killed_reseal_continues_when_run_again() {
    on_every_storage(|backend| {
        const RECORDS: usize = 1500;
        let token = OAuth2Token::bearer("CANARY").into();
        let tokens = backend.tokens();
        backend.block_on(async {
            for user in 0..RECORDS {
                tokens.put(&key("github", &format!("u{user}")), &token, Precondition::Always).await.unwrap();
            }
        });
        let new = key_command(&["add"], &backend.key_file).stdout.trim().to_owned();
        key_command(&["promote", &new], &backend.key_file);
        let resealed = || {
            let list = backend.run(&["list", "--json"]);
            column(&list, "key_id").into_iter().filter(|id| *id == json!(new)).count()
        };

        let mut command = oauth_dance();
        command.arg("reseal").args(backend.at(&backend.url)).arg("--key-file").arg(&backend.key_file);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while resealed() == 0 && start.elapsed() < Duration::from_secs(30) {}
        child.kill().unwrap();
        child.wait().unwrap();
        let before = resealed();
        assert!(before > 0, "{}", backend.name);

        let run = backend.run_with_keys(&["reseal"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains(&format!("resealed {} records", RECORDS - before)), "{}", run.stderr);
        assert_eq!(resealed(), RECORDS);
        assert_eq!(backend.run_with_keys(&["verify"]).code, 0);
    });
}

#[test]
fn unresealable_records_are_listed_and_unchanged() {
    on_every_storage(|backend| {
        backend.store(&key("github", "alice"), 60);
        let unreadable = backend.store_unreadable();
        let new = key_command(&["add"], &backend.key_file).stdout.trim().to_owned();
        key_command(&["promote", &new], &backend.key_file);
        let run = backend.run_with_keys(&["reseal", "--json"]);
        assert_eq!(run.code, 1, "{}", run.stderr);
        let users: Vec<_> = unreadable.iter().map(|(user, _)| json!(user)).collect();
        assert_eq!(column(&run, "user"), users, "{}", backend.name);
        assert!(run.stderr.contains("resealed 1 records; 0 needed no change, and 4 failed"), "{}", run.stderr);
        assert!(!run.stdout.contains("CANARY"));

        let wrong = backend.folder.path().join("wrong");
        write_private(&wrong, &SealingKey::generate().encode());
        let mut command = oauth_dance();
        let run = Run::of(command.arg("reseal").args(backend.at(&backend.url)).arg("--key-file").arg(&wrong));
        assert_eq!(run.code, 1);
        assert!(run.stdout.contains("which is not in the key ring"), "{}", run.stdout);
    });
}

#[test]
fn tokens_in_plain_text_are_sealed_and_unsealed() {
    on_every_storage(|backend| {
        let plain = Tokens::dangerous_plaintext(Arc::clone(&backend.storage));
        let alice: TokenKey = key("github", "alice");
        let token = OAuth2Token::bearer("CANARY").into();
        backend.block_on(plain.put(&alice, &token, Precondition::Always)).unwrap();

        let run = backend.run_with_keys(&["seal"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(backend.block_on(backend.tokens().get(&alice)).unwrap().unwrap().value, token);
        assert_eq!(backend.run_with_keys(&["seal"]).code, 0, "again");

        let run = backend.run_with_keys(&["unseal"]);
        assert_eq!(run.code, 2);
        run.assert_one_line(&["--dangerously"]);
        assert!(backend.block_on(backend.tokens().get(&alice)).is_ok());
        let run = backend.run_with_keys(&["unseal", "--dangerously"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(backend.block_on(plain.get(&alice)).unwrap().unwrap().value, token);
    });
}

#[test]
fn a_key_ring_is_read_from_the_environment() {
    on_every_storage(|backend| {
        backend.store(&key("github", "alice"), 60);
        let keys = fs::read_to_string(&backend.key_file).unwrap();
        let run = Run::of(oauth_dance().arg("reseal").args(backend.at(&backend.url)).env("OAUTH_DANCE_KEYS", keys));
        assert_eq!(run.code, 0, "{}", run.stderr);
        let run = Run::of(oauth_dance().arg("reseal").args(backend.at(&backend.url)).env("OAUTH_DANCE_KEYS", "CANARY"));
        assert_eq!(run.code, 2);
        run.assert_one_line(&["OAUTH_DANCE_KEYS cannot be used", "line 1"]);
    });
}

#[test]
fn an_error_is_one_line_if_the_storage_fails() {
    on_every_storage(|backend| {
        backend.store(&key("github", "alice"), 60);
        let new = key_command(&["add"], &backend.key_file).stdout.trim().to_owned();
        key_command(&["promote", &new], &backend.key_file);
        let keys = ["--key-file", backend.key_file.to_str().unwrap()];
        for url in [backend.unreachable(), backend.read_only()] {
            let run = backend.run_at(&url, &[&["reseal"][..], &keys].concat());
            assert_eq!(run.code, 2, "{} {}", backend.name, run.stderr);
            run.assert_one_line(&["cannot use the storage"]);
        }
        let run = backend.run_at(&backend.unreachable(), &["key", "list"]);
        assert_eq!(run.code, 2);
        run.assert_one_line(&["cannot use the storage"]);
        assert_eq!(backend.run_with_keys(&["verify"]).code, 0);
    });
}
