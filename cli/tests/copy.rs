//! `oauth-dance copy`, between every two kinds of storages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oauth_dance_core::{Precondition, Record, TokenKey};
use program::storages::{Backend, key};
use program::{Run, oauth_dance};
use serde_json::Value;

const NAMES: [&str; 4] = ["SQLite", "PostgreSQL", "MariaDB", "Redis"];

/// Each storage is the source once and the target once.
fn on_pairs(test: impl Fn(&Backend, &Backend)) {
    for (index, name) in NAMES.iter().enumerate() {
        let other = NAMES[(index + 1) % NAMES.len()];
        if let (Some(from), Some(to)) = (Backend::new(name), Backend::new(other)) {
            test(&from, &to);
        }
    }
}

fn command(from: &Backend, to: &Backend) -> Command {
    command_at(from, &from.url, to, &to.url)
}

fn command_at(from: &Backend, from_url: &str, to: &Backend, to_url: &str) -> Command {
    let option = |backend: &Backend, side: &str| {
        format!("--{side}-{}", if backend.name == "Redis" { "prefix" } else { "table" })
    };
    let mut command = oauth_dance();
    command.args(["copy", "--json", "--from", from_url, "--to", to_url]);
    command.args([option(from, "from"), from.place.clone(), option(to, "to"), to.place.clone()]);
    command
}

fn copy(from: &Backend, to: &Backend, options: &[&str]) -> Run {
    Run::of(command(from, to).args(options))
}

/// The numbers of records that were copied, existed already, were newer already, were deleted in the meantime, and failed.
fn counts(run: &Run) -> [u64; 5] {
    let report: Value =
        serde_json::from_str(run.stdout.trim()).unwrap_or_else(|_| panic!("{}{}", run.stdout, run.stderr));
    ["copied", "already_there", "already_newer", "removed_meanwhile", "failed"]
        .map(|name| report[name].as_u64().unwrap())
}

fn record(backend: &Backend, key: &TokenKey) -> Option<Record> {
    backend.block_on(backend.storage.get(key)).unwrap().map(|found| found.value)
}

fn users(backend: &Backend) -> usize {
    let run = backend.run(&["list", "--json"]);
    run.stdout.lines().count()
}

#[test]
fn records_are_copied_as_they_are() {
    on_pairs(|from, to| {
        let alice = key("github", "alice");
        let bob = key("google", "böb").with_tenant("acme").unwrap().with_account("work").unwrap();
        from.store(&alice, 3600);
        from.store(&bob, 7200);
        let short = Record::new(vec![0, 255, 7]).with_retain_for(Some(Duration::from_secs(600)));
        from.store_record(&key("github", "short"), &short);

        let run = copy(from, to, &["--verify"]);
        assert_eq!((run.code, counts(&run)), (0, [3, 0, 0, 0, 0]), "{} to {}: {}", from.name, to.name, run.stderr);
        for key in [&alice, &bob] {
            let (sealed, copied) = (record(from, key).unwrap(), record(to, key).unwrap());
            assert_eq!(sealed, copied);
            let tokens = from.tokens().with_storage(std::sync::Arc::clone(&to.storage));
            assert!(to.block_on(tokens.get(key)).unwrap().is_some(), "the copy opens with the same key");
        }
        let left = record(to, &key("github", "short")).unwrap().retain_for.unwrap();
        assert!(left <= Duration::from_secs(600) && left > Duration::from_secs(540), "{left:?}");

        let again = copy(from, to, &[]);
        assert_eq!((again.code, counts(&again)), (0, [0, 3, 0, 0, 0]), "{}", again.stderr);
    });
}

#[test]
fn a_record_of_the_target_remains_unless_mirroring() {
    on_pairs(|from, to| {
        for user in ["one", "two"] {
            from.store(&key("github", user), 60);
        }
        to.store(&key("github", "two"), 3600);
        to.store(&key("github", "three"), 3600);
        let newer = record(to, &key("github", "two"));

        let run = copy(from, to, &["--verify"]);
        assert_eq!((run.code, counts(&run)), (1, [1, 0, 1, 0, 0]), "{}", run.stderr);
        assert_eq!(record(to, &key("github", "two")), newer);
        assert!(run.stdout.contains("\"different\":1"), "{}", run.stdout);

        let run = copy(from, to, &["--mirror", "--verify"]);
        assert_eq!((run.code, counts(&run)), (0, [1, 1, 0, 1, 0]), "{}", run.stderr);
        assert_eq!(record(to, &key("github", "two")), record(from, &key("github", "two")));
        assert!(!to.has(&key("github", "three")));
    });
}

#[test]
fn a_verified_move_compares_and_leaves_nothing() {
    on_pairs(|from, to| {
        for user in ["one", "two"] {
            from.store(&key("github", user), 3600);
        }
        let short = Record::new(vec![0, 255, 7]).with_retain_for(Some(Duration::from_secs(600)));
        from.store_record(&key("github", "short"), &short);
        to.store(&key("github", "two"), 60);
        let [one, newer] = [record(from, &key("github", "one")), record(to, &key("github", "two"))];

        let run = copy(from, to, &["--move", "--verify"]);
        assert_eq!((run.code, counts(&run)), (0, [2, 0, 1, 0, 0]), "{} to {}: {}", from.name, to.name, run.stderr);
        assert!(run.stdout.contains("\"left_in_source\":0"), "{}", run.stdout);
        assert_eq!((users(from), users(to)), (0, 3));
        assert_eq!([record(to, &key("github", "one")), record(to, &key("github", "two"))], [one, newer]);

        let again = copy(from, to, &["--move", "--verify"]);
        assert_eq!((again.code, counts(&again)), (0, [0; 5]), "{}", again.stderr);
    });
}

/// A trigger of the target changes what is written, as a proxy or a column type might.
#[test]
fn a_target_that_alters_records_loses_none() {
    for name in ["SQLite", "MariaDB"] {
        let (Some(from), Some(to)) = (Backend::new("SQLite"), Backend::new(name)) else { continue };
        let alice = key("github", "alice");
        from.store(&alice, 3600);
        let place = &to.place;
        let change = match name {
            "SQLite" => format!(
                "CREATE TRIGGER change_{place} AFTER UPDATE OF payload ON {place} WHEN length(new.payload) < 1000 BEGIN \
                UPDATE {place} SET payload = zeroblob(1000) WHERE rowid = new.rowid; END"
            ),
            _ => format!("CREATE TRIGGER change_{place} BEFORE UPDATE ON {place} FOR EACH ROW SET NEW.payload = 'x'"),
        };
        to.sql(&change);
        let run = copy(&from, &to, &["--move", "--verify"]);
        assert_eq!(run.code, 2, "{}{}", run.stdout, run.stderr);
        run.assert_one_line(&["cannot use the storage", "does not return what was written", "still has the record"]);
        assert!(from.has(&alice) && !to.has(&alice));

        to.sql(&format!("DROP TRIGGER change_{place}"));
        let run = copy(&from, &to, &["--move", "--verify"]);
        assert_eq!((run.code, counts(&run)), (0, [1, 0, 0, 0, 0]), "{}", run.stderr);
        let tokens = from.tokens().with_storage(std::sync::Arc::clone(&to.storage));
        assert!(to.block_on(tokens.get(&alice)).unwrap().is_some());
    }
}

#[test]
fn a_killed_copy_continues_when_run_again() {
    for (moves, options) in [(false, &[][..]), (true, &["--move"]), (true, &["--move", "--verify"])] {
        on_pairs(|from, to| {
            const RECORDS: usize = 1000;
            from.store_many(RECORDS);
            let mut child =
                command(from, to).args(options).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let start = Instant::now();
            while !to.has(&key("github", "u10")) && start.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(2));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let before = users(to);
            assert!(before > 0 && before < RECORDS, "{before} of {RECORDS} were copied when it was killed");

            let run = copy(from, to, options);
            let [copied, same, newer, gone, failed] = counts(&run);
            assert_eq!((run.code, gone, failed), (0, 0, 0), "{}", run.stderr);
            assert_eq!(users(to), RECORDS, "{} to {}", from.name, to.name);
            match moves {
                true => {
                    assert_eq!(users(from), 0);
                    assert!(newer <= 16 && (copied + newer) as usize >= RECORDS - before, "{}", run.stdout);
                }
                false => assert_eq!((copied + same, newer), (RECORDS as u64, 0)),
            }
        });
    }
}

/// The application deletes and changes records while a copy reads them.
#[test]
fn concurrent_writes_in_the_target_are_never_lost() {
    on_pairs(|from, to| {
        from.store_many(1000);
        let mut child = command(from, to).args(["--move"]).stdout(Stdio::piped()).spawn().unwrap();
        let newer = Record::new("newer");
        for user in (0..1000).rev() {
            let key = key("github", &format!("u{user}"));
            match to.block_on(to.storage.put(&key, &newer, Precondition::Absent)) {
                Ok(_) => {}
                Err(oauth_dance_core::StorageError::Conflict) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(child.wait().unwrap().success());
        let mut found = 0;
        for user in (0..1000).rev() {
            match record(to, &key("github", &format!("u{user}"))).unwrap().payload.as_slice() {
                b"newer" => found += 1,
                _ => break,
            }
        }
        assert!(found > 0, "{} to {}", from.name, to.name);
        assert_eq!((users(from), users(to)), (0, 1000));
    });
}

#[test]
fn an_error_is_one_line_and_changes_nothing() {
    on_pairs(|from, to| {
        from.store(&key("github", "alice"), 60);
        let run = Run::of(&mut command_at(from, &from.unreachable(), to, &to.url));
        assert_eq!(run.code, 2);
        run.assert_one_line(&["cannot use the storage"]);
        let run = Run::of(&mut command_at(from, &from.url, to, &to.unreachable()));
        assert_eq!(run.code, 2);
        run.assert_one_line(&["cannot use the storage"]);
        let run = Run::of(&mut command_at(from, &from.url, to, &to.read_only()));
        assert_eq!(run.code, 2, "{}", run.stderr);
        run.assert_one_line(&["cannot use the storage"]);
        assert_eq!(users(to), 0);

        let run = copy(from, from, &["--move"]);
        assert_eq!(run.code, 2);
        run.assert_one_line(&["--from and --to are the same storage"]);
        assert!(from.has(&key("github", "alice")));

        // It is enough to read the source.
        let run = Run::of(&mut command_at(from, &from.read_only(), to, &to.url));
        assert_eq!((run.code, counts(&run)), (0, [1, 0, 0, 0, 0]), "{}", run.stderr);
    });
}
