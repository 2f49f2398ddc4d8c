//! What only etcd has: logins, limits, the quota, leases and compaction.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, DeleteOptions, GetOptions};
use oauth_dance_conformance::HarnessError;
use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version};
use oauth_dance_example_etcd_storage::{ConnectOptions, EtcdStorage};
use support::{Node, PREFIX, login};

/// A server with these options, or `None` if there is no etcd.
async fn node(options: &[&str]) -> Option<Node> {
    match Node::start_with(options).await {
        Ok(node) => Some(node),
        Err(HarnessError::Missing(what)) if std::env::var("REQUIRE_BACKENDS").as_deref() != Ok("1") => {
            println!("SKIP: {what}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn storage(node: &Node) -> EtcdStorage {
    EtcdStorage::lazy(&[node.url()], login()).unwrap().with_prefix(PREFIX).unwrap()
}

fn key(user: &str) -> TokenKey {
    TokenKey::new("github", user).unwrap()
}

fn advice(result: Result<impl Sized, StorageError>) -> String {
    match result.map(drop) {
        Err(StorageError::Misconfigured { advice, .. }) => advice,
        other => panic!("not misconfigured: {other:?}"),
    }
}

#[tokio::test]
async fn a_login_without_the_right_permissions_is_misconfigured() {
    let Some(node) = node(&[]).await else { return };
    let connect = async |options| EtcdStorage::connect(&[node.url()], options).await;
    assert!(advice(connect(ConnectOptions::new()).await).contains("requires a login"));
    let wrong = ConnectOptions::new().with_user("app", "not the password of app");
    assert!(advice(connect(wrong).await).contains("correct the user and the password"));
    // The user may use another prefix only.
    assert!(advice(connect(login()).await).contains("readwrite on the prefix"));
    storage(&node).check().await.unwrap();
    node.allow_writes(false).await.unwrap();
    assert!(advice(storage(&node).check().await).contains("readwrite on the prefix"));
}

#[tokio::test]
async fn addresses_are_checked() {
    assert!(advice(EtcdStorage::lazy(&["http://user:secret@127.0.0.1"], login())).contains("in the options"));
    assert!(advice(EtcdStorage::lazy(&[] as &[&str], login())).contains("addresses"));
    let with_tls = EtcdStorage::lazy(&["https://127.0.0.1:1"], ConnectOptions::new()).unwrap();
    assert!(advice(with_tls.get(&key("alice")).await).contains("addresses and options"));
    let nobody = EtcdStorage::lazy(&["http://127.0.0.1:1", "http://127.0.0.1:2"], ConnectOptions::new()).unwrap();
    for result in [
        nobody.get(&key("alice")).await.map(drop),
        nobody.put(&key("alice"), &Record::new("x"), Precondition::Always).await.map(drop),
        nobody.delete(&key("alice"), None).await.map(drop),
    ] {
        assert!(matches!(result, Err(StorageError::Unavailable { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn a_full_server_can_be_read_and_works_again_with_space() {
    let Some(node) = node(&["--quota-backend-bytes", "3000000"]).await else { return };
    let (storage, large) = (storage(&node), Record::new(vec![7; 500_000]));
    let mut written = 0;
    let full = loop {
        match storage.put(&key(&format!("user{written}")), &large, Precondition::Absent).await {
            Ok(_) => written += 1,
            error => break error,
        }
        assert!(written < 20, "the server never becomes full");
    };
    assert!(advice(full).contains("NOSPACE"));
    assert!(advice(storage.put(&key("user0"), &large, Precondition::Always).await).contains("NOSPACE"));
    assert_eq!(storage.get(&key("user0")).await.unwrap().unwrap().value, large);
    // etcd 3.4 rejects every transaction then, also one that only deletes.
    match storage.delete(&key("user1"), None).await {
        Ok(removed) => assert!(removed),
        error => assert!(advice(error).contains("NOSPACE")),
    }
    let mut root = node.root().await.unwrap();
    root.delete(PREFIX, Some(DeleteOptions::new().with_prefix())).await.unwrap();
    let header = root.get("x", None).await.unwrap().take_header().unwrap();
    root.compact(header.revision(), None).await.unwrap();
    root.defragment().await.unwrap();
    let mut member = AlarmOptions::new();
    member.with_member(header.member_id());
    root.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await.unwrap();
    storage.put(&key("user0"), &large, Precondition::Absent).await.unwrap();
}

#[tokio::test]
async fn a_request_above_the_limit_of_the_server_is_misconfigured() {
    let Some(node) = node(&["--max-request-bytes", "100000"]).await else { return };
    let (storage, large) = (storage(&node), Record::new(vec![7; 200_000]));
    assert!(advice(storage.put(&key("alice"), &large, Precondition::Always).await).contains("--max-request-bytes"));
    assert_eq!(storage.get(&key("alice")).await.unwrap(), None);
}

/// The ids and remaining seconds of all leases.
async fn leases(root: &mut Client) -> Vec<(i64, i64)> {
    let mut leases = Vec::new();
    for lease in root.leases().await.unwrap().leases() {
        leases.push((lease.id(), root.lease_time_to_live(lease.id(), None).await.unwrap().ttl()));
    }
    leases
}

#[tokio::test]
async fn each_retained_record_has_one_lease() {
    let Some(node) = node(&[]).await else { return };
    let (storage, mut root) = (storage(&node), node.root().await.unwrap());
    let retained = |seconds| Record::new("x").with_retain_for(Some(Duration::from_secs(seconds)));
    let is_one = |leases: &[(i64, i64)], least: i64| matches!(leases, [(_, left)] if *left >= least);

    let first = storage.put(&key("alice"), &retained(100), Precondition::Absent).await.unwrap();
    let before = leases(&mut root).await;
    assert!(is_one(&before, 100), "{before:?}");
    let second = storage.put(&key("alice"), &retained(1000), Precondition::Version(first)).await.unwrap();
    let after = leases(&mut root).await;
    assert!(is_one(&after, 1000) && after[0].0 != before[0].0, "{after:?}");
    for stale in [Precondition::Absent, Precondition::Version(first), Precondition::Version(Version::random())] {
        assert!(matches!(storage.put(&key("alice"), &retained(5), stale).await, Err(StorageError::Conflict)));
        assert!(!storage.delete(&key("alice"), Some(first)).await.unwrap());
    }
    assert_eq!(leases(&mut root).await.len(), 1, "rejected calls leave no lease");
    storage.put(&key("alice"), &Record::new("x"), Precondition::Version(second)).await.unwrap();
    assert_eq!(leases(&mut root).await, [], "a record without a retention has no lease");
    storage.put(&key("alice"), &retained(100), Precondition::Always).await.unwrap();
    assert!(storage.delete(&key("alice"), None).await.unwrap());
    assert_eq!(leases(&mut root).await, [], "a deleted record has no lease");

    // The end of a lease removes the record from every list.
    storage.put(&key("alice"), &retained(100), Precondition::Absent).await.unwrap();
    let [(lease, _)] = leases(&mut root).await[..] else { panic!("no lease") };
    root.lease_revoke(lease).await.unwrap();
    let left = root.get(PREFIX, Some(GetOptions::new().with_prefix().with_keys_only())).await.unwrap();
    assert_eq!(left.kvs().len(), 0);
}

#[tokio::test]
async fn a_list_continues_after_a_compaction() {
    let Some(node) = node(&[]).await else { return };
    let (storage, mut root) = (storage(&node), node.root().await.unwrap());
    for user in ["a", "b", "c"] {
        storage.put(&key(user), &Record::new("x"), Precondition::Absent).await.unwrap();
    }
    let page = storage.list(&Filter::everything(), PageRequest { after: None, limit: 2 }).await.unwrap();
    let last = storage.put(&key("b"), &Record::new("y"), Precondition::Always).await.unwrap();
    root.compact(i128::from_be_bytes(*last.as_bytes()) as i64, None).await.unwrap();
    let rest = storage.list(&Filter::everything(), PageRequest { after: page.next, limit: 2 }).await.unwrap();
    let users: Vec<_> = rest.entries.iter().map(|entry| entry.key.user()).collect();
    assert_eq!((users, rest.next), (vec!["c"], None));
    storage.put(&key("b"), &Record::new("z"), Precondition::Version(last)).await.unwrap();
}
