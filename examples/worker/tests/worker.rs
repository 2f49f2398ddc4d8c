//! The worker, against a real provider and a SQLite file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use oauth_dance::testing::{Endpoint, ScriptedResponse, TestClock, TestProvider};
use oauth_dance::{Connector, KeyRing, TokenKey};
use oauth_dance_example_worker::{Visited, visit};
use oauth_dance_sqlx::SqliteStorage;

#[tokio::test]
async fn every_connected_user_is_visited() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tokens.sqlite").display());
    let (provider, clock, keys) = (TestProvider::start().await.unwrap(), TestClock::new(), KeyRing::generate());
    provider.configure(|settings| settings.clock = clock.clock());
    let mut workers = Vec::new();
    for _ in 0..2 {
        let storage = SqliteStorage::connect(&url).await.unwrap();
        storage.migrate().await.unwrap();
        let registration = provider.registration("acme");
        let builder = Connector::builder(storage, keys.clone()).provider(registration).clock(clock.clock());
        workers.push(builder.build().unwrap());
    }
    for user in ["alice", "bob", "carol"] {
        provider.connect_key(&workers[0], &TokenKey::new("acme", user).unwrap()).await.unwrap();
    }
    provider.revoke_all_of("carol");
    clock.advance(Duration::from_secs(3601));
    for _ in 0..4 {
        provider.next_response(Endpoint::Api, ScriptedResponse::json(serde_json::json!([1, 2])));
    }

    let (one, two) = tokio::join!(visit(&workers[0], "acme", "/notes"), visit(&workers[1], "acme", "/notes"));
    let expected = Visited { items: 4, waiting: 1 };
    assert_eq!((one.unwrap(), two.unwrap()), (expected, Visited { items: 4, waiting: 1 }));
    assert_eq!((provider.counters().refreshes, provider.counters().families_revoked), (2, 0));
    for worker in workers {
        worker.finish().await;
    }
}
