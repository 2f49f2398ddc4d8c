//! `oauth-dance list`, on every storage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use oauth_dance_core::{KeyRing, OAuth2Token, Precondition, Record, Tokens};
use program::storages::{Backend, key, now, on_every_storage, write_private};
use program::{Run, column, oauth_dance};
use serde_json::{Value, json};

fn store_three(backend: &Backend) {
    backend.store(&key("github", "alice"), 3600);
    backend.store(&key("github", "bob").with_tenant("acme").unwrap(), 7200);
    backend.store(&key("google", "carol").with_account("work").unwrap(), 0);
}

#[test]
fn records_are_listed_without_keys() {
    on_every_storage(|backend| {
        store_three(backend);
        let list = backend.run(&["list", "--json"]);
        assert_eq!(list.code, 0, "{}", list.stderr);
        assert_eq!(column(&list, "user"), ["alice", "bob", "carol"]);
        assert_eq!(column(&list, "tenant"), [Value::Null, json!("acme"), Value::Null]);
        assert_eq!(column(&list, "account"), [Value::Null, Value::Null, json!("work")]);
        assert_eq!(column(&list, "key_id"), vec![json!(backend.ring.primary_id()); 3]);
        assert!(column(&list, "expires").iter().all(|time| time.as_str().unwrap().starts_with("20")));
        assert!(list.stdout.lines().all(|line| !line.contains("state")), "{}", list.stdout);
    });
}

#[test]
fn filters_select_records() {
    on_every_storage(|backend| {
        store_three(backend);
        for (filter, users) in [
            (&["--provider", "github"][..], &["alice", "bob"][..]),
            (&["--tenant", "acme"], &["bob"]),
            (&["--tenant", ""], &["alice", "carol"]),
            (&["--user", "carol"], &["carol"]),
            (&["--user", "nobody"], &[]),
        ] {
            let list = backend.run(&[&["list", "--json"][..], filter].concat());
            assert_eq!(column(&list, "user"), users, "{filter:?} on {}", backend.name);
        }
    });
}

#[test]
fn states_are_shown_with_their_reasons() {
    on_every_storage(|backend| {
        backend.store(&key("github", "alice"), 3600);
        backend.store(&key("github", "bob"), 0);
        let mut token = OAuth2Token::bearer("CANARY-without-refresh");
        token.expires_at = Some(now());
        backend.store_token(&key("github", "carol"), token);
        let other = Tokens::sealed(std::sync::Arc::clone(&backend.storage), KeyRing::generate());
        let token = OAuth2Token::bearer("CANARY-other").into();
        backend.block_on(other.put(&key("github", "dave"), &token, Precondition::Always)).unwrap();
        backend.store_record(&key("github", "erin"), &Record::new("CANARY garbage"));

        let list = backend.run_with_keys(&["list", "--state", "--json"]);
        assert_eq!(list.code, 0, "{}", list.stderr);
        let states = ["valid", "expiring", "needs_authorization", "unreadable", "unreadable"];
        assert_eq!(column(&list, "state"), states, "{}", backend.name);
        let reasons = column(&list, "reason");
        assert!(reasons[2].as_str().unwrap().contains("no refresh token"), "{reasons:?}");
        assert!(reasons[3].as_str().unwrap().contains("not in the key ring"), "{reasons:?}");
        assert!(reasons[4].as_str().unwrap().contains("altered"), "{reasons:?}");
    });
}

#[test]
fn a_table_has_a_line_for_each_record() {
    on_every_storage(|backend| {
        store_three(backend);
        let list = backend.run(&["list"]);
        let lines: Vec<_> = list.stdout.lines().collect();
        assert_eq!(lines.len(), 4, "{}", list.stdout);
        assert!(lines[0].starts_with("tenant  user   provider  account  expires"), "{}", list.stdout);
        assert!(list.stdout.contains("-       alice  github    -        20"), "{}", list.stdout);
    });
}

#[test]
fn every_page_is_listed_when_there_are_many() {
    on_every_storage(|backend| {
        backend.store_many(2100);
        let list = backend.run(&["list", "--json"]);
        let mut users = column(&list, "user");
        users.dedup();
        assert_eq!(users.len(), 2100, "{}", backend.name);
    });
}

#[test]
fn reading_needs_no_permission_to_write() {
    on_every_storage(|backend| {
        store_three(backend);
        let list = backend.run_at(&backend.read_only(), &["list", "--json"]);
        assert_eq!((list.code, list.stderr.as_str()), (0, ""), "{}", backend.name);
        assert_eq!(list.stdout.lines().count(), 3);
    });
}

#[test]
fn an_error_is_one_line_if_the_storage_fails() {
    on_every_storage(|backend| {
        let list = backend.run_at(&backend.unreachable(), &["list"]);
        assert_eq!(list.code, 2);
        let cause = if backend.name == "SQLite" { "cannot be opened" } else { "127.0.0.1:1" };
        list.assert_one_line(&["cannot use the storage", cause]);
        assert!(!backend.folder.path().join("missing.db").exists());
    });
}

#[test]
fn a_missing_table_names_the_migration() {
    on_every_storage(|backend| {
        if backend.name == "Redis" {
            return;
        }
        let list = Run::of(oauth_dance().args(["list", "--storage", &backend.url, "--table", "another"]));
        assert_eq!(list.code, 2);
        list.assert_one_line(&["oauth-dance migrate up"]);
    });
}

#[test]
fn wrong_arguments_are_one_line() {
    let folder = tempfile::TempDir::new().unwrap();
    let (exposed, garbage) = (folder.path().join("exposed"), folder.path().join("garbage"));
    fs::write(&exposed, "CANARY").unwrap();
    fs::set_permissions(&exposed, PermissionsExt::from_mode(0o644)).unwrap();
    write_private(&garbage, "CANARY\n");
    let (exposed, garbage) = (exposed.to_str().unwrap(), garbage.to_str().unwrap());
    for (arguments, cause) in [
        (&["list"][..], "--storage or OAUTH_DANCE_STORAGE"),
        (&["list", "--storage", "memory:"], "unknown storage \"memory\""),
        (&["list", "--storage", "u:CANARY@host"], "unknown storage"),
        (&["list", "--storage", "sqlite:a.db", "--prefix", "a"], "--prefix does not apply"),
        (&["list", "--storage", "redis://127.0.0.1:1", "--table", "a"], "--table and --schema does not apply"),
        (&["list", "--storage", "sqlite:a.db", "--table", "a;b"], "not a table name"),
        (&["list", "--storage", "sqlite:a.db", "--state"], "--key-file or OAUTH_DANCE_KEYS"),
        (&["list", "--storage", "sqlite:a.db", "--state", "--key-file", "none"], "cannot be read"),
        (&["list", "--storage", "sqlite:a.db", "--state", "--key-file", exposed], "chmod 600"),
        (&["list", "--storage", "sqlite:a.db", "--state", "--key-file", garbage], "line 1 of the key ring"),
    ] {
        let run = Run::of(oauth_dance().args(arguments).current_dir(folder.path()));
        assert_eq!(run.code, 2, "{arguments:?}");
        run.assert_one_line(&[cause]);
    }
}

#[test]
fn the_environment_names_storage_and_keys() {
    let Some(backend) = Backend::new("SQLite") else { return };
    store_three(&backend);
    let mut command = oauth_dance();
    command.args(["list", "--state", "--json", "--table", &backend.place]).env("OAUTH_DANCE_STORAGE", &backend.url);
    command.env("OAUTH_DANCE_KEYS", fs::read_to_string(&backend.key_file).unwrap());
    assert_eq!(column(&Run::of(&mut command), "state"), ["valid", "valid", "expiring"]);
    let help = Run::of(command.arg("--help").env("OAUTH_DANCE_STORAGE", "postgres://u:CANARY@h/d"));
    assert!(help.stdout.contains("Example") && help.stdout.contains("OAUTH_DANCE_STORAGE"), "{}", help.stdout);
    help.assert_no_secret();
}
