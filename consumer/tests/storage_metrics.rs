//! The metrics of a storage, and the dashboard for all metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use oauth_dance::testing::{ScriptedResponse, TestProvider};
use oauth_dance::{
    ConnectError, KeyRing, MeasuredStorage, MemoryStorage, OAuth, PageRequest, Precondition, StorageError, TokenKey,
    TokenStorage, Tokens, User, async_trait,
};
use oauth_dance_core::{Capabilities, Filter, Page, Record, Version, Versioned};
use support::{Browser, world};

/// Every metric by its name and labels, with its count.
fn recorded(metrics: &Snapshotter) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for (key, _, _, value) in metrics.snapshot().into_vec() {
        let count = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => values.len() as u64,
            DebugValue::Gauge(_) => panic!("{key:?} is a gauge"),
        };
        let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        *found.entry(format!("{} {}", key.key().name(), labels.join(" "))).or_default() += count;
    }
    found
}

/// A storage that is down, or never responds.
#[derive(Clone, Copy)]
struct Down {
    hangs: bool,
}

#[async_trait]
impl TokenStorage for Down {
    async fn get(&self, _: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(StorageError::unavailable("down"))
    }

    async fn put(&self, _: &TokenKey, _: &Record, _: Precondition) -> Result<Version, StorageError> {
        Err(StorageError::ambiguous("down"))
    }

    async fn delete(&self, key: &TokenKey, _: Option<Version>) -> Result<bool, StorageError> {
        Err(StorageError::corrupt(key, "damaged"))
    }

    async fn list(&self, _: &Filter, _: PageRequest) -> Result<Page, StorageError> {
        Err(StorageError::Unsupported("lists"))
    }

    async fn purge(&self, _: usize) -> Result<u64, StorageError> {
        Err(StorageError::Misconfigured { advice: "correct it".to_owned(), source: "wrong".into() })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("down")
    }
}

/// One test, because a process has one recorder.
#[tokio::test]
async fn metrics_are_recorded_and_shown_on_the_dashboard() {
    let recorder = DebuggingRecorder::new();
    let metrics = recorder.snapshotter();
    recorder.install().unwrap();

    each_outcome_is_counted(&metrics).await;
    the_dashboard_shows_what_exists(&metrics).await;
}

async fn each_outcome_is_counted(metrics: &Snapshotter) {
    let (key, record) = (TokenKey::new("acme", "alice-of-wonderland").unwrap(), Record::new("x"));
    let storage = MeasuredStorage::new(MemoryStorage::new());
    storage.put(&key, &record, Precondition::Absent).await.unwrap();
    storage.put(&key, &record, Precondition::Absent).await.unwrap_err();
    storage.get(&key).await.unwrap().unwrap();
    storage.list(&Filter::everything(), PageRequest::default()).await.unwrap();
    storage.purge(1).await.unwrap();
    storage.delete(&key, None).await.unwrap();

    let down = MeasuredStorage::new(Down { hangs: false });
    down.get(&key).await.unwrap_err();
    down.put(&key, &record, Precondition::Always).await.unwrap_err();
    down.delete(&key, None).await.unwrap_err();
    down.list(&Filter::everything(), PageRequest::default()).await.unwrap_err();
    down.purge(1).await.unwrap_err();
    let hanging = MeasuredStorage::new(Down { hangs: true });
    tokio::time::timeout(Duration::from_millis(50), hanging.get(&key)).await.unwrap_err();

    let found = recorded(metrics);
    let expected = [
        ("put", "memory", "ok"),
        ("put", "memory", "conflict"),
        ("get", "memory", "ok"),
        ("list", "memory", "ok"),
        ("purge", "memory", "ok"),
        ("delete", "memory", "ok"),
        ("get", "down", "unavailable"),
        ("put", "down", "ambiguous"),
        ("delete", "down", "corrupt"),
        ("list", "down", "rejected"),
        ("purge", "down", "misconfigured"),
        ("get", "down", "dropped"),
    ];
    for name in ["oauth_dance_storage_operations_total", "oauth_dance_storage_operation_seconds"] {
        for (operation, storage, outcome) in expected {
            let metric = format!("{name} operation={operation} storage={storage} outcome={outcome}");
            assert_eq!(found.get(&metric), Some(&1), "{metric} in {found:#?}");
        }
    }
    assert_eq!(found.len(), 2 * expected.len(), "{found:#?}");
    assert!(found.keys().all(|metric| !metric.contains("wonderland")));
}

async fn the_dashboard_shows_what_exists(metrics: &Snapshotter) {
    let (provider, site) = world().await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    Browser::signed_in(&site, "alice").login("acme").await;
    site.clock.advance(Duration::from_secs(3601));
    provider.next_token_response(ScriptedResponse::error(400, "invalid_grant"));
    let refused = site.oauth.client("acme", &User::new("alice")).await;
    assert!(matches!(refused, Err(ConnectError::NeedsAuthorization { .. })));
    MeasuredStorage::new(MemoryStorage::new()).purge(1).await.unwrap();

    let exist: BTreeMap<String, BTreeSet<String>> =
        recorded(metrics).keys().fold(BTreeMap::new(), |mut names, metric| {
            let (name, labels) = metric.split_once(' ').unwrap();
            let labels = labels.split(' ').filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
            names.entry(name.to_owned()).or_insert_with(BTreeSet::new).extend(labels);
            names
        });
    let dashboard = include_str!("../../docs/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut queries = vec![dashboard["templating"]["list"][1]["query"].as_str().unwrap()];
    for panel in dashboard["panels"].as_array().unwrap() {
        queries.extend(panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap()));
    }
    let mut shown = BTreeSet::new();
    for query in queries {
        let names = names_in(query);
        assert!(!names.is_empty(), "{query}");
        for name in names {
            let labels = exist.get(&name).unwrap_or_else(|| panic!("{name} does not exist: {query}"));
            for label in labels_in(query) {
                assert!(labels.contains(&label), "{name} has no label {label}: {query}");
            }
            shown.insert(name);
        }
    }
    assert_eq!(shown, exist.into_keys().collect(), "every metric is shown");
}

/// The metrics of a query, without what an exporter appends to the name of a histogram.
fn names_in(query: &str) -> BTreeSet<String> {
    words(query)
        .filter(|word| word.starts_with("oauth_dance_"))
        .map(|word| word.trim_end_matches("_sum").trim_end_matches("_count").to_owned())
        .collect()
}

/// The labels of a query: those it groups by, and those it compares.
fn labels_in(query: &str) -> BTreeSet<String> {
    let grouped = query.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let mut labels: BTreeSet<String> = grouped.flat_map(words).map(str::to_owned).collect();
    for condition in query.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        labels.extend(condition.split("\",").filter_map(|part| words(part).next()).map(str::to_owned));
    }
    labels
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[tokio::test]
async fn check_fails_while_the_storage_is_down() {
    let oauth = |storage: std::sync::Arc<dyn TokenStorage>| {
        OAuth::builder("http://localhost:3000", storage, KeyRing::generate()).anonymous_users().build().unwrap()
    };
    assert!(oauth(std::sync::Arc::new(MemoryStorage::new())).check().await.is_ok());
    let error = oauth(std::sync::Arc::new(Down { hangs: false })).check().await;
    assert!(matches!(error, Err(StorageError::Unavailable { .. })), "{error:?}");
    let per_request =
        OAuth::per_request("http://localhost:3000", KeyRing::generate()).anonymous_users().build().unwrap();
    assert!(per_request.check().await.is_ok());
}

#[tokio::test]
async fn revoke_leaves_the_token_in_the_storage() {
    let provider = TestProvider::start().await.unwrap();
    let storage = MemoryStorage::new();
    let keys = KeyRing::generate();
    let oauth = OAuth::builder("http://localhost:3000", storage.clone(), keys.clone())
        .provider(provider.registration("acme"))
        .anonymous_users()
        .build()
        .unwrap();
    let alice = User::new("alice");
    provider.connect(&oauth, "acme", &alice).await.unwrap();
    let before = Tokens::sealed(storage.clone(), keys.clone()).get(&alice.key("acme").unwrap()).await.unwrap();

    assert_eq!(oauth.revoke("acme", &alice).await.unwrap(), oauth_dance::Revocation::Done);
    let client = oauth.client("acme", &alice).await.unwrap();
    assert_eq!(client.get("/notes").send().await.map(|answer| answer.status().as_u16()).unwrap_or(401), 401);
    let tokens = Tokens::sealed(storage, keys);
    assert!(before.is_some() && tokens.get(&alice.key("acme").unwrap()).await.unwrap().is_some());
    assert!(matches!(oauth.revoke("none", &alice).await, Err(ConnectError::UnknownProvider(_))));
    let nobody = User::new("nobody");
    assert_eq!(oauth.revoke("acme", &nobody).await.unwrap(), oauth_dance::Revocation::NotPossible);
}
