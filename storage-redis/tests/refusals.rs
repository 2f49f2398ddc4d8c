//! Servers with unsuitable settings, and servers that reject writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version};
use oauth_dance_redis::RedisStorage;
use support::{Cluster, Server, eventually};

fn user(name: &str) -> TokenKey {
    TokenKey::new("github", name).unwrap()
}

async fn write(storage: &RedisStorage, name: &str) -> Result<Version, StorageError> {
    storage.put(&user(name), &Record::new("x"), Precondition::Always).await
}

/// The advice of a `Misconfigured` error.
fn advice<T: std::fmt::Debug>(result: Result<T, StorageError>) -> String {
    match result {
        Err(StorageError::Misconfigured { advice, .. }) => advice,
        other => panic!("not Misconfigured: {other:?}"),
    }
}

#[tokio::test]
async fn replica_is_rejected() {
    let primary = server_or_skip!(Server::start(&[]));
    let replica = Server::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]).unwrap();
    let connected = RedisStorage::connect(&replica.url()).await;
    assert!(advice(connected).contains("read-only replica"));
    let storage = RedisStorage::lazy(&replica.url()).unwrap();
    assert!(advice(storage.get(&user("alice")).await).contains("read-only replica"), "it may be behind");

    // A primary becomes a replica, and then a primary again.
    let storage = RedisStorage::connect(&primary.url()).await.unwrap();
    let version = write(&storage, "alice").await.unwrap();
    primary.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(advice(write(&storage, "alice").await).contains("read-only replica"));
    assert!(advice(storage.delete(&user("alice"), None).await).contains("read-only replica"));
    primary.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(storage.get(&user("alice")).await.unwrap().unwrap().version, version);
    write(&storage, "alice").await.unwrap();
}

#[tokio::test]
async fn full_memory_is_an_error_and_loses_no_record() {
    let server = server_or_skip!(Server::start(&["--maxmemory-policy", "noeviction"]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let version = write(&storage, "alice").await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1000"]);
    assert!(advice(write(&storage, "bob").await).contains("maxmemory"));
    let over = storage.put(&user("alice"), &Record::new("y"), Precondition::Version(version)).await;
    assert!(advice(over).contains("maxmemory"));
    assert_eq!(storage.get(&user("alice")).await.unwrap().unwrap().version, version);
    assert_eq!(storage.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries.len(), 1);
    assert!(storage.delete(&user("alice"), Some(version)).await.unwrap(), "a delete is possible");
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "*"]), Vec::<String>::new(), "a rejected write left a key");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    write(&storage, "bob").await.unwrap();
}

#[tokio::test]
async fn server_without_required_replicas_is_unavailable() {
    let server = server_or_skip!(Server::start(&["--min-replicas-to-write", "1"]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let refused = write(&storage, "alice").await;
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
    assert_eq!(storage.get(&user("alice")).await.unwrap(), None);
}

#[tokio::test]
async fn rejected_users_are_distinct_from_outages() {
    let server = server_or_skip!(Server::start(&["--requirepass", "right-password"]));
    let without = server.url().replace(":right-password@", "");
    let wrong = server.url().replace("right-password", "wrong-password");
    for url in [&without, &wrong] {
        let refused = RedisStorage::connect(url).await;
        assert!(!format!("{refused:?}").contains("wrong-password"));
        assert!(advice(refused).contains("user name or password"), "{url}");
    }
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    write(&storage, "alice").await.unwrap();
    assert!(!format!("{storage:?}").contains("right-password"));

    server.command::<()>(&["ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+time"]);
    let reader = RedisStorage::lazy(&format!("redis://reader:pw@127.0.0.1:{}/", server.port)).unwrap();
    assert!(reader.get(&user("alice")).await.unwrap().is_some());
    assert!(advice(write(&reader, "alice").await).contains("access rules"));
}

#[tokio::test]
async fn documented_permissions_are_sufficient_and_necessary() {
    let server = server_or_skip!(Server::start(&[]));
    let rules =
        include_str!("../src/lib.rs").lines().find_map(|line| line.strip_prefix("//! ACL SETUSER tokens ")).unwrap();
    let rules: Vec<_> = rules.split(' ').map(|rule| rule.replace(">password", ">pw")).collect();
    let set = |rules: &[String]| {
        let rules: Vec<_> =
            ["ACL", "SETUSER", "tokens", "reset"].into_iter().chain(rules.iter().map(String::as_str)).collect();
        server.command::<()>(&rules);
    };
    set(&rules);
    let url = format!("redis://tokens:pw@127.0.0.1:{}/", server.port);
    let works = async |storage: &RedisStorage| -> Result<(), StorageError> {
        let record = Record::new("x").with_retain_for(Some(std::time::Duration::from_secs(1000)));
        let version = storage.put(&user("alice"), &record, Precondition::Absent).await?;
        let version = storage.put(&user("alice"), &record, Precondition::Version(version)).await?;
        storage.get(&user("alice")).await?;
        storage.list(&Filter::everything(), PageRequest::default()).await?;
        storage.purge(10).await?;
        storage.delete(&user("alice"), Some(version)).await?;
        Ok(())
    };
    works(&RedisStorage::connect(&url).await.unwrap()).await.unwrap();
    // The first two are for reports. Without the third, a write succeeds, but its retention is less exact.
    let optional = ["+info", "+config|get", "+pexpireat"];
    let needed = rules.iter().filter(|rule| rule.starts_with('+') && !optional.contains(&rule.as_str()));
    let mut without = 0;
    for rule in needed {
        let fewer: Vec<_> = rules.iter().filter(|other| *other != rule).cloned().collect();
        set(&fewer);
        server.command::<()>(&["SCRIPT", "FLUSH"]);
        let storage = RedisStorage::lazy(&url).unwrap();
        let refused = works(&storage).await;
        assert!(matches!(refused, Err(StorageError::Misconfigured { .. })), "without {rule}: {refused:?}");
        without += 1;
        server.command::<()>(&["FLUSHALL"]);
    }
    assert!(without > 10);
}

/// A permission is withdrawn from a storage that has been checked. Nothing is rolled back if a command of a script fails.
#[tokio::test]
async fn rejected_write_changes_nothing_after_permissions_change() {
    let server = server_or_skip!(Server::start(&[]));
    server.command::<()>(&["ACL", "SETUSER", "tokens", "on", ">pw", "~*", "+@all"]);
    let storage = RedisStorage::connect(&format!("redis://tokens:pw@127.0.0.1:{}/", server.port)).await.unwrap();
    let retained = |payload| Record::new(payload).with_retain_for(Some(std::time::Duration::from_secs(1000)));
    for command in ["zadd", "zrem", "zrangebyscore", "pexpireat", "time", "set"] {
        for record in [retained("new"), Record::new("new")] {
            let mut current = storage.put(&user("alice"), &retained("old"), Precondition::Always).await.unwrap();
            server.command::<()>(&["ACL", "SETUSER", "tokens", &format!("-{command}")]);
            let result = storage.put(&user("alice"), &record, Precondition::Version(current)).await;
            server.command::<()>(&["ACL", "SETUSER", "tokens", "+@all", &format!("+{command}")]);
            match result {
                Ok(version) => current = version,
                Err(StorageError::Misconfigured { .. }) => {}
                Err(other) => panic!("{command}: {other:?}"),
            }
            let found = storage.get(&user("alice")).await.unwrap().unwrap();
            assert_eq!(found.version, current, "{command}: {result:?}");
            let keys: Vec<String> = server.command(&["KEYS", "*alice*"]);
            let left: i64 = server.command(&["PTTL", &keys[0]]);
            let is_retained = found.value.payload == b"old" || record.retain_for.is_some();
            assert_eq!(left > 0, is_retained, "{command}: {left}");
        }
    }
}

/// The results of a check and of a connect for a user with these rules.
async fn checked(server: &Server, rules: &[&str]) -> (Result<(), String>, Result<(), String>) {
    server.command::<()>(&[&["ACL", "SETUSER", "tokens", "reset", "on", ">pw"], rules].concat());
    let text = |result: Result<(), StorageError>| match result {
        Ok(()) => Ok(()),
        Err(StorageError::Misconfigured { advice, source }) => Err(format!("{source}. {advice}")),
        Err(other) => panic!("{other:?}"),
    };
    let url = format!("redis://tokens:pw@127.0.0.1:{}/", server.port);
    let check = RedisStorage::lazy(&url).unwrap().check().await;
    (text(check), text(RedisStorage::connect(&url).await.map(drop)))
}

#[tokio::test]
async fn check_names_missing_permissions() {
    let server = server_or_skip!(Server::start(&[]));
    let needed = [
        "get",
        "time",
        "getrange",
        "exists",
        "set",
        "del",
        "pexpireat",
        "zadd",
        "zrem",
        "zcount",
        "zlexcount",
        "zrangebylex",
        "zrangebyscore",
        "evalsha",
        "eval",
    ];
    let keys = "~{oauth-dance:*";
    let (check, connected) = checked(&server, &[keys]).await;
    for name in needed {
        for text in [check.as_ref().unwrap_err(), connected.as_ref().unwrap_err()] {
            assert!(text.contains(&format!("+{name}")) && text.contains(&name.to_uppercase()), "{name}: {text}");
        }
        let (check, connected) = checked(&server, &[keys, "+@all", &format!("-{name}")]).await;
        let only = |text: String| {
            text.contains(&format!("+{name}")) && text.matches('+').count() == 1 && !text.contains("prefix")
        };
        assert!(only(check.unwrap_err()) && only(connected.unwrap_err()), "{name}");
    }
    // The prefix may be set after the connect, and the check verifies it.
    for pattern in ["~oauth-dance:*", "~other*", "%R~{oauth-dance:*", "%W~{oauth-dance:*", "~{oauth-dance:*}:*"] {
        let (check, connected) = checked(&server, &[pattern, "+@all"]).await;
        let text = check.unwrap_err();
        assert!(text.contains("~{oauth-dance:*") && text.contains("keys of the prefix"), "{pattern}: {text}");
        connected.unwrap();
    }
    let (check, connected) = checked(&server, &[keys, "+@all"]).await;
    check.unwrap();
    connected.unwrap();
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "*"]), Vec::<String>::new(), "a check left a key");
    let url = format!("redis://tokens:pw@127.0.0.1:{}/", server.port);
    let other = RedisStorage::connect(&url).await.unwrap().with_prefix("other").unwrap();
    assert!(advice(other.check().await).contains("~{other:*"));
}

#[tokio::test]
async fn check_changes_no_data() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    let record = Record::new("x").with_retain_for(Some(std::time::Duration::from_secs(1000)));
    for number in 0..300 {
        storage.put(&user(&format!("user{number}")), &record, Precondition::Always).await.unwrap();
    }
    let mut before = server.dump();
    storage.check().await.unwrap();
    let mut after = server.dump();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before, after);
}

#[tokio::test]
async fn check_names_disabled_commands() {
    for name in ["EVAL", "EVALSHA", "TIME", "ZADD"] {
        let server = server_or_skip!(Server::start(&["--rename-command", name, ""]));
        for refused in [
            RedisStorage::connect(&server.url()).await.map(drop),
            RedisStorage::lazy(&server.url()).unwrap().check().await,
        ] {
            let Err(StorageError::Misconfigured { advice, source }) = refused else { panic!("{name}: {refused:?}") };
            assert!(advice.contains("rename-command"), "{name}: {advice}");
            assert_eq!(source.to_string(), format!("the server does not have the commands {name}"));
        }
    }
}

#[tokio::test]
async fn check_covers_every_server_of_a_cluster() {
    let cluster = server_or_skip!(Cluster::start(&[]));
    for server in &cluster.servers {
        for other in &cluster.servers {
            let rules = if std::ptr::eq(server, other) { "-zadd" } else { "+@all" };
            other.command::<()>(&["ACL", "SETUSER", "tokens", "reset", "on", ">pw", "~*", "+@all", rules]);
        }
        let url = format!("redis+cluster://tokens:pw@{}", cluster.servers[0].address());
        assert!(advice(RedisStorage::connect(&url).await).contains("+zadd"));
        assert!(advice(RedisStorage::lazy(&url).unwrap().check().await).contains("+zadd"));
    }
}

#[tokio::test]
async fn eviction_policy_is_a_warning_or_an_error() {
    let server = server_or_skip!(Server::start(&["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"]));
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    eventually("it is warned of", async || log.text().contains("volatile-lru")).await;
    assert!(log.text().contains("WARN") && log.text().contains("maxmemory-policy"), "{}", log.text());
    write(&storage, "alice").await.unwrap();
    drop(guard);

    let strict = storage.clone().without_eviction();
    assert!(advice(strict.get(&user("alice")).await).contains("noeviction"));
    assert!(advice(strict.check().await).contains("noeviction"));
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert!(strict.get(&user("alice")).await.unwrap().is_some(), "the corrected setting takes effect");

    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    RedisStorage::connect(&server.url()).await.unwrap();
    assert_eq!(log.text(), "");
}

#[tokio::test]
async fn durability_follows_the_settings_of_the_server() {
    for (arguments, durable) in [
        (&[][..], false),
        (&["--appendonly", "yes", "--appendfsync", "everysec"], false),
        (&["--appendonly", "no", "--appendfsync", "always"], false),
        (&["--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "yes"], false),
        (&["--appendonly", "yes", "--appendfsync", "always"], true),
    ] {
        let server = server_or_skip!(Server::start(arguments));
        let storage = RedisStorage::lazy(&server.url()).unwrap();
        assert!(!storage.capabilities().durable, "nothing is known yet");
        storage.check().await.unwrap();
        assert_eq!(storage.capabilities().durable, durable, "{arguments:?}");
    }
    // A user without permission to read the settings declares nothing.
    let server = Server::start_durable().unwrap();
    server.command::<()>(&["ACL", "SETUSER", "blind", "on", ">pw", "~*", "+@all", "-config"]);
    let storage = RedisStorage::connect(&format!("redis://blind:pw@127.0.0.1:{}/", server.port)).await.unwrap();
    assert!(!storage.capabilities().durable);
    write(&storage, "alice").await.unwrap();
}

#[tokio::test]
async fn url_of_the_wrong_kind_is_reported() {
    let server = server_or_skip!(Server::start(&[]));
    let cluster = RedisStorage::connect(&format!("redis+cluster://{}", server.address())).await;
    assert!(advice(cluster).contains("redis://"));
    let sentinel = RedisStorage::connect(&format!("redis+sentinel://{}/tokens", server.address())).await;
    assert!(matches!(sentinel, Err(StorageError::Misconfigured { .. })), "{sentinel:?}");
    for url in ["", "localhost", "http://localhost", "redis+sentinel://localhost", "redis://:secret@localhost:port"] {
        let refused = RedisStorage::lazy(url);
        assert!(!format!("{refused:?}").contains("secret"));
        assert!(advice(refused).contains("URL"), "{url}");
    }

    let cluster = Cluster::start(&[]).unwrap();
    let mut told = 0;
    for server in &cluster.servers {
        let storage = RedisStorage::connect(&server.url()).await.unwrap();
        told += match write(&storage, "alice").await {
            Ok(_) => 0,
            refused => usize::from(advice(refused).contains("redis+cluster://")),
        };
    }
    assert_eq!(told, 2);
}

#[tokio::test]
async fn keys_of_other_applications_are_unchanged() {
    let server = server_or_skip!(Server::start(&[]));
    let storage = RedisStorage::connect(&server.url()).await.unwrap();
    write(&storage, "alice").await.unwrap();
    let index: Vec<String> = server.command(&["KEYS", "*/index"]);
    server.command::<()>(&["SET", &index[0], "not ours"]);
    let version = storage.get(&user("alice")).await.unwrap().unwrap().version;
    storage.put(&user("alice"), &Record::new("y"), Precondition::Version(version)).await.unwrap_err();
    assert_eq!(storage.get(&user("alice")).await.unwrap().unwrap().version, version, "the version of another write");
    assert!(advice(storage.list(&Filter::everything(), PageRequest::default()).await).contains("prefix"));
}

/// The captured log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
