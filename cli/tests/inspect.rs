//! `oauth-dance show`, `stats`, `expiring` and `verify`, on every storage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::sync::Arc;
use std::time::Duration;

use oauth_dance::testing::TestProvider;
use oauth_dance::{Audience, Connector};
use oauth_dance_core::{Filter, OAuth2Token, PageRequest, Precondition, Token};
use program::storages::{Backend, key, now, on_every_storage};
use program::{Run, column, oauth_dance, objects};
use serde_json::{Value, json};

const READING: [&[&str]; 4] = [&["show", "alice"], &["stats"], &["expiring", "--within", "1h"], &["verify"]];

fn store_some(backend: &Backend) {
    backend.store(&key("github", "alice"), 3600);
    backend.store(&key("github", "bob"), 30 * 60);
    backend.store(&key("google", "carol"), 0);
    let mut token = OAuth2Token::bearer("CANARY-without-refresh");
    token.expires_at = Some(now().saturating_add(Duration::from_secs(40 * 60)));
    backend.store_token(&key("google", "dave"), token.clone());
    token.expires_at = Some(now());
    backend.store_token(&key("google", "erin"), token);
}

#[test]
fn show_names_everything_except_secrets() {
    on_every_storage(|backend| {
        let mut token = OAuth2Token::bearer("CANARY-access-token");
        token.refresh_token = Some("CANARY-refresh".into());
        token.id_token = Some("CANARY-id".into());
        token.scope = Some(vec!["repo".to_owned(), "user:email".to_owned()]);
        token.expires_at = Some(now().saturating_add(Duration::from_secs(3600)));
        token.issued_at = Some(now());
        let tokens = backend.tokens().with_retention(Duration::from_secs(1000));
        let who = key("github", "alice").with_tenant("acme").unwrap().with_account("work").unwrap();
        backend.block_on(tokens.put(&who, &token.into(), Precondition::Always)).unwrap();
        backend.store(&key("google", "alice"), 0);
        backend.store(&key("google", "bob"), 0);

        let show = backend.run_with_keys(&["show", "alice", "--provider", "github", "--json"]);
        assert_eq!((show.code, show.stderr.as_str()), (0, ""));
        let shown = &objects(&show)[0];
        for (name, value) in [
            ("user", json!("alice")),
            ("tenant", json!("acme")),
            ("provider", json!("github")),
            ("account", json!("work")),
            ("state", json!("valid")),
            ("protocol", json!("OAuth 2.0")),
            ("refresh_token", json!(true)),
            ("scope", json!("repo user:email")),
            ("key_id", json!(backend.ring.primary_id())),
        ] {
            assert_eq!(shown[name], value, "{name} on {}", backend.name);
        }
        assert!(shown["size"].as_u64().unwrap() > 100);
        for time in ["expires", "issued", "retained_until"] {
            assert!(shown[time].as_str().unwrap().starts_with("20"), "{time}: {shown}");
        }

        let both = backend.run_with_keys(&["show", "alice"]);
        both.assert_no_secret();
        assert_eq!(both.stdout.matches("user            alice\n").count(), 2, "{}", both.stdout);
        assert!(both.stdout.contains("\n\n"));
        let missing = backend.run_with_keys(&["show", "nobody"]);
        assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    });
}

#[test]
fn stats_count_each_provider_by_state() {
    on_every_storage(|backend| {
        store_some(backend);
        let unreadable = backend.store_unreadable().len();
        let stats = backend.run_with_keys(&["stats", "--json"]);
        assert_eq!((stats.code, stats.stderr.as_str()), (0, ""));
        let row = |provider: &str, counts: [usize; 6]| {
            let [tokens, valid, expiring, backing_off, needs_authorization, unreadable] = counts;
            json!({
                "provider": provider, "tokens": tokens, "valid": valid, "expiring": expiring,
                "backing_off": backing_off, "needs_authorization": needs_authorization, "unreadable": unreadable,
            })
        };
        let expected = [row("github", [2 + unreadable, 2, 0, 0, 0, unreadable]), row("google", [3, 1, 1, 0, 1, 0])];
        assert_eq!(objects(&stats), expected, "{}", backend.name);
    });
}

#[test]
fn expiring_shows_who_has_to_log_in_again() {
    on_every_storage(|backend| {
        store_some(backend);
        let hints = backend.run(&["expiring", "--within", "59min", "--json"]);
        assert_eq!(column(&hints, "user"), ["bob", "carol", "dave", "erin"], "{}", backend.name);
        assert!(!hints.stdout.contains("refreshable"));
        let opened = backend.run_with_keys(&["expiring", "--within", "59min", "--json"]);
        assert_eq!(column(&opened, "refreshable"), [true, true, false, false]);
        let last = backend.run_with_keys(&["expiring", "--within", "59min", "--final", "--json"]);
        assert_eq!(column(&last, "user"), ["dave", "erin"]);
        assert_eq!(column(&last, "state"), ["valid", "needs_authorization"]);
        let none = backend.run(&["expiring", "--within", "59min", "--final"]);
        assert_eq!(none.code, 2);
        none.assert_one_line(&["--key-file"]);
    });
}

/// Tokens of the application and exchanged ones have no refresh token, and no user who could log in again.
#[test]
fn a_token_that_is_requested_again_needs_no_user() {
    on_every_storage(|backend| {
        let provider = backend.block_on(TestProvider::start()).unwrap();
        let connector = Connector::builder(Arc::clone(&backend.storage), backend.ring.clone());
        let connector = connector.provider(provider.registration("acme")).build().unwrap();
        let alice = key("acme", "alice");
        let entries = backend.block_on(async {
            provider.connect_key(&connector, &alice).await.unwrap();
            connector.client_credentials("acme").await.unwrap();
            connector.exchange(&alice, &Audience::new("billing")).await.unwrap();
            connector.tokens().list(&Filter::everything(), PageRequest::default()).await.unwrap().entries
        });
        for requested in entries.iter().filter(|entry| Connector::is_requested(&entry.key)) {
            let Token::OAuth2(mut token) =
                backend.block_on(backend.tokens().get(&requested.key)).unwrap().unwrap().value
            else {
                panic!("a token of OAuth 2.0")
            };
            token.expires_at = Some(now());
            backend.store_token(&requested.key, token);
        }
        let stats = &objects(&backend.run_with_keys(&["stats", "--json"]))[0];
        let counts = ["tokens", "expiring", "needs_authorization"].map(|name| stats[name].as_u64().unwrap());
        assert_eq!(counts, [3, 2, 0], "{}: {stats}", backend.name);
        let list = backend.run_with_keys(&["list", "--state", "--json"]);
        assert!(!column(&list, "state").contains(&json!("needs_authorization")), "{}", list.stdout);
        let last = backend.run_with_keys(&["expiring", "--within", "10min", "--final", "--json"]);
        assert_eq!((last.code, last.stdout.as_str()), (0, ""), "{}", backend.name);
    });
}

#[test]
fn verify_lists_unreadable_records() {
    on_every_storage(|backend| {
        store_some(backend);
        let sound = backend.run_with_keys(&["verify"]);
        assert_eq!((sound.code, sound.stdout.as_str()), (0, ""));
        assert_eq!(sound.stderr, "verified 5 records, of which 0 cannot be read\n");

        let unreadable = backend.store_unreadable();
        let verify = backend.run_with_keys(&["verify", "--json"]);
        assert_eq!(verify.code, 1);
        assert_eq!(verify.stderr, "verified 9 records, of which 4 cannot be read\n");
        let found = column(&verify, "user").into_iter().zip(column(&verify, "problem"));
        let expected: Vec<_> = unreadable.into_iter().map(|(user, kind)| (json!(user), json!(kind))).collect();
        assert_eq!(found.collect::<Vec<(Value, Value)>>(), expected, "{}", backend.name);
    });
}

#[test]
fn verify_lists_keys_that_are_not_utf8() {
    on_every_storage(|backend| {
        store_some(backend);
        let place = &backend.place;
        let insert = |bytes: [&str; 2]| {
            let [user, empty] = bytes;
            backend.sql(&format!(
                "INSERT INTO {place} (tenant, user_id, provider, account, version, payload, created_at, updated_at) \
                VALUES ({empty}, {user}, {user}, {empty}, {empty}, {empty}, 0, 0)"
            ));
        };
        match backend.name {
            "SQLite" | "MariaDB" => insert(["X'ff41'", "X''"]),
            "PostgreSQL" => insert([r"'\xff41'", r"'\x'"]),
            _ => backend.redis(&[
                "EVAL",
                "redis.call('ZADD', redis.call('KEYS', ARGV[1])[1], 0, string.char(255) .. 'A')",
                "0",
                &format!("{{{place}:*/index"),
            ]),
        }
        let verify = backend.run_with_keys(&["verify", "--json"]);
        assert_eq!(verify.code, 1, "{}", verify.stderr);
        assert_eq!(column(&verify, "problem"), ["invalid_key"], "{}", backend.name);
        assert!(column(&verify, "detail")[0].as_str().unwrap().contains(r"\xffA"), "{}", verify.stdout);
        assert!(verify.stderr.contains("verified 5 records, of which 1 cannot be read"), "{}", verify.stderr);
        assert_eq!(
            backend.run_with_keys(&["verify", "--provider", "github"]).code,
            0,
            "a filter selects no invalid key"
        );
        let list = backend.run(&["list", "--json"]);
        assert_eq!((list.code, list.stdout.lines().count()), (0, 5), "{}: {}", backend.name, list.stderr);
    });
}

#[test]
fn verify_names_a_wrong_key_and_changes_nothing() {
    on_every_storage(|backend| {
        store_some(backend);
        let wrong = oauth_dance_core::SealingKey::generate();
        let verify = Run::of(
            oauth_dance()
                .args(["verify", "--json"])
                .args(backend.at(&backend.url))
                .env("OAUTH_DANCE_KEYS", &*wrong.encode()),
        );
        assert_eq!(verify.code, 1);
        assert_eq!(column(&verify, "problem"), vec![json!("unknown_key"); 5]);
        assert!(verify.stdout.contains(&backend.ring.primary_id()), "{}", verify.stdout);
        assert_eq!(backend.run_with_keys(&["verify"]).code, 0);
    });
}

#[test]
fn reading_commands_need_no_permission_to_write() {
    on_every_storage(|backend| {
        store_some(backend);
        let url = backend.read_only();
        for command in READING {
            let run =
                Run::of(oauth_dance().args(command).args(backend.at(&url)).arg("--key-file").arg(&backend.key_file));
            assert_eq!(run.code, 0, "{command:?} on {}: {}", backend.name, run.stderr);
            run.assert_no_secret();
        }
    });
}

#[test]
fn reading_commands_report_one_line_on_failure() {
    on_every_storage(|backend| {
        let url = backend.unreachable();
        for command in READING {
            let run =
                Run::of(oauth_dance().args(command).args(backend.at(&url)).arg("--key-file").arg(&backend.key_file));
            assert_eq!(run.code, 2, "{command:?} on {}", backend.name);
            run.assert_one_line(&["cannot use the storage"]);
        }
    });
}
