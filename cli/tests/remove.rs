//! `oauth-dance purge`, `erase-user` and `disconnect`, on every storage and with a real provider.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance::testing::{CLIENT, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{Audience, Connector};
use oauth_dance_core::{Filter, PageRequest, Precondition, Record, TokenKey};
use program::storages::{Backend, key, on_every_storage, write_private};
use program::{Run, column, oauth_dance, objects};
use serde_json::json;

#[test]
fn purge_removes_what_is_past_its_retention() {
    on_every_storage(|backend| {
        let short = Record::new("x").with_retain_for(Some(Duration::from_secs(1)));
        let long = Record::new("x").with_retain_for(Some(Duration::from_secs(1000)));
        backend.block_on(async {
            for user in 0..1003 {
                let who = key("github", &format!("short{user}"));
                backend.storage.put(&who, &short, Precondition::Always).await.unwrap();
            }
        });
        backend.store_record(&key("github", "long"), &long);
        backend.store_record(&key("github", "unlimited"), &Record::new("x"));
        std::thread::sleep(Duration::from_millis(2100));

        let purge = backend.run(&["purge", "--json"]);
        assert_eq!((purge.code, purge.stderr.as_str()), (0, ""));
        let purged = objects(&purge)[0]["purged"].as_u64().unwrap();
        // In Redis, later writes remove a part of what expired.
        assert!(purged == 1003 || backend.name == "Redis" && (1..1003).contains(&purged), "{}: {purged}", backend.name);
        assert_eq!(backend.run(&["purge"]).stdout, "purged  0\n");
        assert!(backend.has(&key("github", "long")) && backend.has(&key("github", "unlimited")));
    });
}

/// A provider, and a config file that names it as `acme`.
fn provider(backend: &Backend) -> (TestProvider, String) {
    let provider = backend.block_on(TestProvider::start()).unwrap();
    let path = backend.folder.path().join("providers.toml");
    let (url, (id, secret)) = (provider.url(), CLIENT);
    let config = format!(
        "[providers.acme]\nauthorization_endpoint = \"{url}/authorize\"\ntoken_endpoint = \"{url}/token\"\n\
        revocation_endpoint = \"{url}/revoke\"\nclient_id = \"{id}\"\nclient_secret = \"{secret}\"\n"
    );
    write_private(&path, &config);
    (provider, path.to_str().unwrap().to_owned())
}

/// Alice's tokens in all tenants, at all providers and accounts, and one of Bob.
fn store_some(backend: &Backend, provider: Option<&TestProvider>) -> Vec<TokenKey> {
    let alice = key("acme", "alice");
    let mut keys = vec![
        alice.clone(),
        alice.clone().with_tenant("t1").unwrap(),
        alice.clone().with_tenant("t2").unwrap().with_account("work").unwrap(),
        alice.with_account("home").unwrap(),
    ];
    if provider.is_none() {
        keys.push(key("github", "alice"));
    }
    for key in keys.iter().chain([&key("acme", "bob")]) {
        match provider {
            Some(provider) => backend.store_token(key, provider.issue(key.user())),
            None => backend.store(key, 3600),
        }
    }
    keys
}

fn left(backend: &Backend, keys: &[TokenKey]) -> usize {
    keys.iter().filter(|key| backend.has(key)).count()
}

#[test]
fn erase_removes_all_tokens_of_one_user() {
    on_every_storage(|backend| {
        let mut keys = store_some(backend, None);
        let garbage = key("github", "alice").with_account("garbage").unwrap();
        backend.store_record(&garbage, &Record::new("CANARY"));
        keys.push(garbage);
        let erase = backend.run(&["erase-user", "alice", "--json"]);
        assert_eq!(erase.code, 0, "{}", erase.stderr);
        assert_eq!(erase.stderr, "removed 6 tokens of this user, and left 0 that could not be revoked\n");
        assert_eq!(column(&erase, "revocation"), vec![json!("not_requested"); 6]);
        assert_eq!(left(backend, &keys), 0, "{}", backend.name);
        assert!(backend.has(&key("acme", "bob")));
        let again = backend.run(&["erase-user", "alice"]);
        assert_eq!((again.code, again.stdout.as_str()), (0, ""));
    });
}

#[test]
fn erase_in_one_tenant_leaves_the_others() {
    on_every_storage(|backend| {
        let keys = store_some(backend, None);
        assert_eq!(backend.run(&["erase-user", "alice", "--tenant", "t1"]).code, 0);
        assert_eq!((left(backend, &keys), backend.has(&keys[1])), (4, false));
        assert_eq!(backend.run(&["erase-user", "alice", "--tenant", ""]).code, 0);
        assert_eq!((left(backend, &keys), backend.has(&keys[2])), (1, true));
    });
}

#[test]
fn erase_revokes_each_token_at_its_provider() {
    on_every_storage(|backend| {
        let (provider, config) = provider(backend);
        let keys = store_some(backend, Some(&provider));
        let erase = backend.run_with_keys(&["erase-user", "alice", "--config", &config, "--json"]);
        assert_eq!(erase.code, 0, "{}{}", erase.stdout, erase.stderr);
        assert_eq!(column(&erase, "revocation"), vec![json!("done"); 4]);
        // The refresh token and the access token of each grant.
        assert_eq!(provider.requests_to(Endpoint::Revocation).len(), 8);
        assert_eq!(left(backend, &keys), 0);
        assert!(backend.has(&key("acme", "bob")));
    });
}

#[test]
fn a_token_stays_until_it_can_be_revoked() {
    on_every_storage(|backend| {
        let (provider, config) = provider(backend);
        let keys = store_some(backend, Some(&provider));
        backend.store(&key("unconfigured", "alice"), 3600);
        let unreadable = key("acme", "alice").with_account("unreadable").unwrap();
        backend.store_record(&unreadable, &Record::new(vec![1; 60]));
        provider.next_response(Endpoint::Revocation, ScriptedResponse::status(503));

        let erase = ["erase-user", "alice", "--config", &config, "--json"];
        let first = backend.run_with_keys(&erase);
        assert_eq!(first.code, 1, "{}", first.stderr);
        assert!(first.stderr.contains("removed 3 tokens of this user, and left 3"), "{}", first.stderr);
        assert_eq!(left(backend, &keys), 1);
        let again = backend.run_with_keys(&erase);
        assert_eq!((again.code, left(backend, &keys)), (1, 0));
        let mut outcomes: Vec<_> = column(&again, "revocation").iter().map(ToString::to_string).collect();
        outcomes.sort();
        assert_eq!(outcomes, ["\"done\"", "\"not_configured\"", "\"unreadable\""]);

        let forced = backend.run_with_keys(&[&erase[..], &["--force"]].concat());
        assert_eq!(forced.code, 0);
        assert!(!backend.has(&unreadable) && !backend.has(&key("unconfigured", "alice")));
    });
}

#[test]
fn erase_is_completed_after_a_kill() {
    on_every_storage(|backend| {
        let (provider, config) = provider(backend);
        let keys = store_some(backend, Some(&provider));
        provider.next_response(Endpoint::Revocation, ScriptedResponse::normal());
        provider.next_response(Endpoint::Revocation, ScriptedResponse::normal());
        provider.next_response(Endpoint::Revocation, ScriptedResponse::normal().after(Duration::from_secs(20)));
        let mut command = oauth_dance();
        command.args(["erase-user", "alice", "--config", &config]).args(backend.at(&backend.url));
        command.arg("--key-file").arg(&backend.key_file);
        kill_when(&mut command, || provider.requests_to(Endpoint::Revocation).len() == 3);
        assert_eq!(left(backend, &keys), 3, "{}: one is removed, the next is being revoked", backend.name);

        provider.clear_responses();
        let again = backend.run_with_keys(&["erase-user", "alice", "--config", &config]);
        assert_eq!((again.code, left(backend, &keys)), (0, 0), "{}{}", again.stdout, again.stderr);
        assert!(backend.has(&key("acme", "bob")));
    });
}

#[test]
fn purge_is_completed_after_a_kill() {
    on_every_storage(|backend| {
        let record = Record::new("x").with_retain_for(Some(Duration::ZERO));
        backend.block_on(async {
            for user in 0..1500 {
                let who = key("github", &format!("u{user}"));
                backend.storage.put(&who, &record, Precondition::Always).await.unwrap();
            }
        });
        let mut command = oauth_dance();
        command.arg("purge").args(backend.at(&backend.url));
        let start = Instant::now();
        kill_when(&mut command, || start.elapsed() > Duration::from_millis(60));
        let again = backend.run(&["purge", "--json"]);
        assert_eq!(again.code, 0, "{}", again.stderr);
        assert_eq!(backend.run(&["purge"]).stdout, "purged  0\n");
    });
}

/// Starts a command, and kills it as soon as the condition is met, unless it has ended before.
fn kill_when(command: &mut Command, now: impl Fn() -> bool) {
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !now() {
        assert!(start.elapsed() < Duration::from_secs(20), "the condition is not met");
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = running.kill();
    running.wait().unwrap();
}

#[test]
fn nothing_is_revoked_if_nothing_can_be_removed() {
    on_every_storage(|backend| {
        let (provider, config) = provider(backend);
        let keys = store_some(backend, Some(&provider));
        let url = backend.read_only();
        for command in [&["erase-user", "alice"][..], &["disconnect", "alice", "acme"], &["purge"]] {
            let mut arguments = command.to_vec();
            let key_file = backend.key_file.to_str().unwrap();
            if command != ["purge"] {
                arguments.extend(["--config", &config, "--key-file", key_file]);
            }
            let run = backend.run_at(&url, &arguments);
            assert_eq!(run.code, 2, "{command:?} on {}: {}", backend.name, run.stdout);
            run.assert_one_line(&["cannot use the storage", "misconfigured"]);
        }
        assert!(provider.requests_to(Endpoint::Revocation).is_empty());
        assert_eq!(left(backend, &keys), 4);
    });
}

#[test]
fn a_wrong_key_removes_nothing() {
    on_every_storage(|backend| {
        let (provider, config) = provider(backend);
        let keys = store_some(backend, Some(&provider));
        let wrong = oauth_dance_core::SealingKey::generate();
        let mut command = oauth_dance();
        command.args(["erase-user", "alice", "--config", &config, "--json"]).args(backend.at(&backend.url));
        let erase = Run::of(command.env("OAUTH_DANCE_KEYS", &*wrong.encode()));
        assert_eq!((erase.code, left(backend, &keys)), (1, 4));
        assert_eq!(column(&erase, "revocation"), vec![json!("unreadable"); 4]);
        assert!(erase.stdout.contains("not in the key ring"), "{}", erase.stdout);
        assert!(provider.requests_to(Endpoint::Revocation).is_empty());
    });
}

#[test]
fn disconnect_removes_one_token() {
    on_every_storage(|backend| {
        let (provider, config) = provider(backend);
        let keys = store_some(backend, Some(&provider));
        let work = ["disconnect", "alice", "acme", "--tenant", "t2", "--account", "work"];
        let disconnect = backend.run_with_keys(&[&work[..], &["--config", &config, "--json"]].concat());
        assert_eq!(disconnect.code, 0, "{}", disconnect.stderr);
        assert_eq!(column(&disconnect, "revocation"), [json!("done")]);
        assert_eq!((left(backend, &keys), backend.has(&keys[2])), (3, false));
        let again = backend.run(&work);
        assert_eq!((again.code, again.stdout.as_str()), (0, ""));
        assert!(again.stderr.contains("nothing is stored"), "{}", again.stderr);
        assert_eq!(backend.run(&["disconnect", "alice", "acme", "--account", "home"]).code, 0);
        assert_eq!((left(backend, &keys), backend.has(&keys[0])), (2, true));
    });
}

/// Alice's token, and one that was exchanged for it; her other account has one too.
fn store_exchanged(backend: &Backend, provider: &TestProvider) -> [TokenKey; 4] {
    let connector = Connector::builder(Arc::clone(&backend.storage), backend.ring.clone());
    let connector = connector.provider(provider.registration("acme")).build().unwrap();
    let alice = key("acme", "alice");
    let home = alice.clone().with_account("home").unwrap();
    backend.block_on(async {
        for key in [&alice, &home] {
            provider.connect_key(&connector, key).await.unwrap();
            connector.exchange(key, &Audience::new("billing")).await.unwrap();
        }
        let page = connector.tokens().list(&Filter::everything(), PageRequest::default()).await.unwrap();
        let find = |key: &TokenKey| {
            let mut found = page.entries.iter().map(|entry| &entry.key);
            found.find(|found| Connector::is_exchanged(found, key)).unwrap().clone()
        };
        let exchanged = [find(&alice), find(&home)];
        let [of_alice, of_home] = exchanged;
        [alice, of_alice, home, of_home]
    })
}

#[test]
fn disconnect_removes_what_was_exchanged() {
    on_every_storage(|backend| {
        let (provider, config) = provider(backend);
        let keys = store_exchanged(backend, &provider);
        let disconnect = backend.run_with_keys(&["disconnect", "alice", "acme", "--config", &config, "--json"]);
        assert_eq!(disconnect.code, 0, "{}", disconnect.stderr);
        assert_eq!(column(&disconnect, "revocation"), ["done", "done"], "{}", backend.name);
        assert_eq!(keys.each_ref().map(|key| backend.has(key)), [false, false, true, true], "{}", backend.name);

        // An earlier run was interrupted after the first token.
        backend.block_on(backend.storage.delete(&keys[2], None)).unwrap();
        assert_eq!(backend.run(&["disconnect", "alice", "acme", "--account", "home"]).code, 0);
        assert_eq!(left(backend, &keys), 0, "{}", backend.name);
    });
}

#[test]
fn erase_revokes_what_was_exchanged() {
    on_every_storage(|backend| {
        let (provider, config) = provider(backend);
        let keys = store_exchanged(backend, &provider);
        let erase = backend.run_with_keys(&["erase-user", "alice", "--config", &config, "--json"]);
        assert_eq!((erase.code, left(backend, &keys)), (0, 0), "{}", erase.stderr);
        assert_eq!(column(&erase, "revocation"), vec![json!("done"); 4]);
    });
}

#[test]
fn writing_commands_report_one_line_on_failure() {
    on_every_storage(|backend| {
        for command in [&["erase-user", "alice"][..], &["disconnect", "alice", "acme"], &["purge"]] {
            let run = backend.run_at(&backend.unreachable(), command);
            assert_eq!(run.code, 2, "{command:?} on {}", backend.name);
            run.assert_one_line(&["cannot use the storage"]);
        }
    });
    let Some(backend) = Backend::new("SQLite") else { return };
    for (arguments, cause) in [
        (&["disconnect", "", "acme"][..], "empty"),
        (&["erase-user", "alice", "--config", "missing.toml", "--plaintext"], "missing.toml"),
        (&["erase-user", "alice", "--config", "missing.toml"], "--key-file"),
    ] {
        let run = backend.run(arguments);
        assert_eq!(run.code, 2, "{arguments:?}");
        run.assert_one_line(&[cause]);
    }
}
