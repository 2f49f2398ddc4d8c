//! Tokens in a session store of either release of tower-sessions, over HTTP.
#![cfg(all(feature = "tower-sessions-0_14", feature = "tower-sessions-0_15"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod support;

/// The same tests for each release, whose types have the same names but are different.
macro_rules! release {
    ($module:ident, $tower_sessions:ident) => {
        mod $module {
            use std::collections::HashMap;
            use std::sync::{Arc, Mutex};
            use std::time::Duration;

            use axum::http::StatusCode;
            use axum::routing::get;
            use axum::{Extension, Router};
            use oauth_dance_core::{Precondition, Record as TokenRecord, RequestStorage, StorageError};
            use oauth_dance_session::SessionTokens;
            use $tower_sessions::cookie::{Key, SameSite};
            use $tower_sessions::session::{Id, Record};
            use $tower_sessions::session_store::{Error, Result};
            use $tower_sessions::{Session, SessionManagerLayer, SessionStore};

            use super::support::{Browser, Page, key, payload, routes, serve};

            /// A session store that tests can inspect, and that fails on demand.
            #[derive(Clone, Debug, Default)]
            struct Store {
                records: Arc<Mutex<HashMap<Id, Record>>>,
                fault: Arc<Mutex<Fault>>,
            }

            #[derive(Clone, Copy, Debug, Default, PartialEq)]
            enum Fault {
                #[default]
                None,
                Down,
                /// Sessions work, but reads of token records fail.
                TokensNotRead,
                /// Writes of token records fail.
                TokensNotWritten,
            }

            fn is_vault(record: &Record) -> bool {
                record.data.keys().all(|name| name.starts_with("AAAA"))
            }

            impl Store {
                fn fail(&self, fault: Fault) {
                    *self.fault.lock().unwrap() = fault;
                }

                fn ids(&self) -> Vec<Id> {
                    self.records.lock().unwrap().keys().copied().collect()
                }

                fn check(&self, fault: Fault) -> Result<()> {
                    let now = *self.fault.lock().unwrap();
                    if now == Fault::Down || now == fault { Err(Error::Backend("down".to_owned())) } else { Ok(()) }
                }

                /// The records that contain tokens, and not a session.
                fn vaults(&self) -> Vec<Record> {
                    self.records.lock().unwrap().values().filter(|record| is_vault(record)).cloned().collect()
                }
            }

            #[async_trait::async_trait]
            impl SessionStore for Store {
                async fn create(&self, record: &mut Record) -> Result<()> {
                    self.check(Fault::Down)?;
                    self.records.lock().unwrap().insert(record.id, record.clone());
                    Ok(())
                }

                async fn save(&self, record: &Record) -> Result<()> {
                    self.check(if is_vault(record) { Fault::TokensNotWritten } else { Fault::Down })?;
                    // Like the Redis store, this only writes existing records.
                    if let Some(there) = self.records.lock().unwrap().get_mut(&record.id) {
                        *there = record.clone();
                    }
                    Ok(())
                }

                async fn load(&self, id: &Id) -> Result<Option<Record>> {
                    self.check(Fault::Down)?;
                    let found = self.records.lock().unwrap().get(id).cloned();
                    // Long enough for other requests to write in the meantime.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    self.check(if found.as_ref().is_some_and(is_vault) { Fault::TokensNotRead } else { Fault::Down })?;
                    Ok(found)
                }

                async fn delete(&self, id: &Id) -> Result<()> {
                    self.check(Fault::Down)?;
                    self.records.lock().unwrap().remove(id);
                    Ok(())
                }
            }

            /// Routes that use the session for the application itself.
            fn own_routes() -> Router {
                async fn visit(session: Session) -> &'static str {
                    session.insert("visited", true).await.unwrap();
                    "visited"
                }
                /// Reads the session immediately, and writes it back much later.
                async fn slow(session: Session) -> &'static str {
                    let _: Option<bool> = session.get("visited").await.unwrap();
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    session.insert("slow", true).await.unwrap();
                    "slow"
                }
                async fn note(session: Session) -> &'static str {
                    session.insert("note", true).await.unwrap();
                    "noted"
                }
                async fn noted(session: Session) -> String {
                    session.get::<bool>("note").await.unwrap().is_some().to_string()
                }
                async fn logout(session: Session) -> &'static str {
                    session.flush().await.unwrap();
                    "out"
                }
                Router::new()
                    .route("/visit", get(visit))
                    .route("/slow", get(slow))
                    .route("/note", get(note))
                    .route("/noted", get(noted))
                    .route("/logout", get(logout))
            }

            async fn start_with(store: &Store, tokens: SessionTokens) -> Browser {
                let sessions = SessionManagerLayer::new(store.clone())
                    .with_secure(false)
                    .with_same_site(SameSite::Lax)
                    .with_signed(Key::generate());
                Browser::new(&serve(routes().merge(own_routes()).layer(tokens).layer(sessions)).await, false)
            }

            async fn start() -> (Store, Browser) {
                let store = Store::default();
                let browser = start_with(&store, SessionTokens::new(store.clone())).await;
                (store, browser)
            }

            /// The id of the session that the browser has.
            fn session_of(browser: &Browser) -> String {
                browser.cookies()["id"].clone()
            }

            #[tokio::test]
            async fn record_is_available_as_long_as_its_session() {
                let (store, browser) = start().await;
                assert_eq!(browser.get("/get/alice").await.body, "none");
                assert!(store.ids().is_empty() && browser.names().is_empty(), "a visit alone stores nothing");
                assert_eq!(browser.get("/put/alice/100").await.body, "put");
                assert_eq!(browser.get("/put/bob/70000").await.body, "put");
                assert_eq!(browser.get("/get/alice").await.body, "100");
                assert_eq!(browser.get("/get/bob").await.body, "70000");
                assert_eq!(store.ids().len(), 2, "one session and one record for all its tokens");
                assert_eq!(browser.get("/delete/alice").await.body, "true");
                assert_eq!(browser.get("/get/alice").await.body, "none");

                let other = Browser::new(browser.url(), false);
                assert_eq!(other.get("/get/bob").await.body, "none", "another session has none of them");
                browser.get("/logout").await;
                assert_eq!(browser.get("/get/bob").await.body, "none");
            }

            /// A slow request overwrites the session with its old content.
            #[tokio::test]
            async fn slow_request_overwrites_no_token() {
                let (_, browser) = start().await;
                browser.get("/put/alice/10").await;
                let browser = Arc::new(browser);
                let slow = tokio::spawn({
                    let browser = Arc::clone(&browser);
                    async move { browser.get("/slow").await.body }
                });
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert_eq!(browser.get("/refresh/alice/20").await.body, "refreshed");
                assert_eq!(browser.get("/note").await.body, "noted");
                let cookies = browser.cookie_header();
                assert_eq!(slow.await.unwrap(), "slow");
                assert_eq!(browser.send("/get/alice", cookies.as_bytes()).await.body, "20");
                assert_eq!(browser.get("/get/alice").await.body, "20");
                assert_eq!(browser.get("/noted").await.body, "false", "values of the session itself are overwritten");
            }

            #[tokio::test]
            async fn concurrent_requests_lose_no_token() {
                let (_, browser) = start().await;
                browser.get("/put/first/1").await;
                let browser = Arc::new(browser);
                let creations: Vec<_> = (0..12)
                    .map(|user| {
                        let browser = Arc::clone(&browser);
                        tokio::spawn(async move { browser.get(&format!("/create/user{user}/5")).await.body })
                    })
                    .collect();
                for creation in creations {
                    assert_eq!(creation.await.unwrap(), "created");
                }
                for user in 0..12 {
                    assert_eq!(browser.get(&format!("/get/user{user}")).await.body, "5", "user{user}");
                }
            }

            #[tokio::test]
            async fn written_tokens_are_stored_for_any_status() {
                let (_, browser) = start().await;
                browser.get("/put/alice/10").await;
                let page = browser.get("/put-500/alice/20").await;
                assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
                assert_eq!(browser.get("/get/alice").await.body, "20");
            }

            /// A login replaces the session id, which an attacker may have fixed. A refresh does not.
            #[tokio::test]
            async fn login_cycles_the_session_id() {
                let (store, browser) = start().await;
                browser.get("/visit").await;
                let (before, ids) = (session_of(&browser), store.ids());
                browser.get("/put/alice/10").await;
                assert_ne!(session_of(&browser), before);
                assert!(ids.iter().all(|id| !store.ids().contains(id)), "the old session is gone");
                let planted = browser.send("/get/alice", format!("id={before}").as_bytes()).await;
                assert_eq!(planted.body, "none");
                assert_eq!(browser.get("/get/alice").await.body, "10");

                let before = session_of(&browser);
                for path in ["/get/alice", "/refresh/alice/20", "/delete/bob", "/idle"] {
                    browser.get(path).await;
                    assert_eq!(session_of(&browser), before, "{path}");
                }
            }

            /// tower-sessions sets no cookie on a server error, so a new id would end the visitor's session.
            #[tokio::test]
            async fn server_error_retains_the_session() {
                let (_, browser) = start().await;
                browser.get("/visit").await;
                browser.get("/put/alice/10").await;
                let before = session_of(&browser);
                browser.get("/put-500/alice/20").await;
                assert_eq!(session_of(&browser), before);
                assert_eq!(browser.get("/get/alice").await.body, "20");
            }

            #[tokio::test]
            async fn outage_is_an_error_and_not_a_missing_token() {
                let (store, browser) = start().await;
                browser.get("/put/alice/10").await;
                for fault in [Fault::Down, Fault::TokensNotRead] {
                    store.fail(fault);
                    for path in ["/get/alice", "/put/alice/20", "/delete/alice"] {
                        let page = browser.send(path, browser.cookie_header().as_bytes()).await;
                        assert!(page.body.starts_with("Unavailable"), "{fault:?}, {path}: {page:?}");
                    }
                    store.fail(Fault::None);
                    assert_eq!(browser.get("/get/alice").await.body, "10");
                }
                store.fail(Fault::TokensNotWritten);
                for path in ["/put/alice/20", "/refresh/alice/20", "/delete/alice"] {
                    let page = browser.send(path, browser.cookie_header().as_bytes()).await;
                    assert!(page.body.starts_with("Ambiguous"), "{path}: {page:?}");
                }
                assert_eq!(browser.get("/get/alice").await.body, "10");
            }

            #[tokio::test]
            async fn damaged_record_in_the_store_is_corrupt_and_remains() {
                let (store, browser) = start().await;
                browser.get("/put/alice/10").await;
                browser.get("/put/bob/20").await;
                let vault = store.vaults()[0].clone();
                let (damaged, _) = vault.data.iter().find(|(_, v)| v.as_str().unwrap().len() == TEN_BYTES).unwrap();
                let damage = |value: serde_json::Value| {
                    let mut records = store.records.lock().unwrap();
                    records.get_mut(&vault.id).unwrap().data.insert(damaged.clone(), value);
                };
                for value in [serde_json::json!("???"), serde_json::json!(7), serde_json::json!("")] {
                    damage(value.clone());
                    let page = browser.get("/get/alice").await;
                    assert!(page.body.starts_with("Corrupt"), "{page:?}");
                    assert_eq!(browser.get("/get/bob").await.body, "20");
                    browser.get("/refresh/bob/20").await;
                    assert_eq!(store.vaults()[0].data[damaged], value, "the record is unchanged");
                }
                assert_eq!(browser.get("/put/alice/30").await.body, "put", "a new login replaces it");
                assert_eq!(browser.get("/get/alice").await.body, "30");
                damage(serde_json::json!("???"));
                assert_eq!(browser.get("/delete/alice").await.body, "true");
            }

            /// The Redis store only writes existing records, so an expired record is created again.
            #[tokio::test]
            async fn dropped_tokens_can_be_stored_again() {
                let (store, browser) = start().await;
                browser.get("/put/alice/10").await;
                let vault = store.vaults()[0].id;
                store.records.lock().unwrap().remove(&vault);
                assert_eq!(browser.get("/get/alice").await.body, "none");
                assert_eq!(browser.get("/delete/alice").await.body, "false");
                assert_eq!(browser.get("/put/alice/20").await.body, "put");
                assert_eq!(browser.get("/get/alice").await.body, "20");
            }

            #[tokio::test]
            async fn use_of_tokens_extends_their_lifetime() {
                let store = Store::default();
                let tokens = SessionTokens::new(store.clone()).with_lifetime(Duration::from_secs(1000));
                let browser = start_with(&store, tokens).await;
                browser.get("/put/alice/10").await;
                let vault = store.vaults()[0].clone();
                let left = |wanted: u64| {
                    let mut vault = vault.clone();
                    vault.expiry_date = time::OffsetDateTime::now_utc() + Duration::from_secs(wanted);
                    store.records.lock().unwrap().insert(vault.id, vault);
                };
                let is_extended = || {
                    let expiry = store.vaults()[0].expiry_date - time::OffsetDateTime::now_utc();
                    expiry > Duration::from_secs(900)
                };
                left(600);
                assert_eq!(browser.get("/get/alice").await.body, "10");
                assert!(!is_extended(), "a read does not write while enough time remains");
                left(400);
                assert_eq!(browser.get("/get/alice").await.body, "10");
                assert!(is_extended());
            }

            /// The error reports a missing session manager, or one of another release.
            #[tokio::test]
            async fn missing_session_is_an_error_that_names_the_fix() {
                let store = Store::default();
                let url = serve(routes().layer(SessionTokens::new(store))).await;
                let page: Page = Browser::new(&url, false).get("/get/alice").await;
                assert!(
                    page.body.starts_with("Misconfigured") && page.body.contains("SessionManagerLayer"),
                    "{page:?}"
                );
            }

            /// The task of the refresh outlives its request.
            #[tokio::test]
            async fn write_after_the_response_is_stored() {
                let store = Store::default();
                let (responses, mut results) = tokio::sync::mpsc::unbounded_channel();
                let late = move |Extension(storage): Extension<RequestStorage>| async move {
                    let found = storage.storage().get(&key("alice")).await.unwrap().unwrap();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        let when = Precondition::Version(found.version);
                        let record = TokenRecord::new(payload(20));
                        responses.send(storage.storage().put(&key("alice"), &record, when).await.map(drop)).unwrap();
                    });
                };
                let sessions = SessionManagerLayer::new(store.clone()).with_secure(false);
                let app = routes().route("/late", get(late)).layer(SessionTokens::new(store)).layer(sessions);
                let browser = Browser::new(&serve(app).await, false);
                browser.get("/put/alice/10").await;
                browser.get("/late").await;
                let result: std::result::Result<(), StorageError> = results.recv().await.unwrap();
                assert!(result.is_ok(), "{result:?}");
                assert_eq!(browser.get("/get/alice").await.body, "20");
            }

            /// The encoded record of ten bytes without hints.
            const TEN_BYTES: usize = ((1 + 16 + 24 + 4 + 10) * 4_usize).div_ceil(3);
        }
    };
}

release!(release_0_14, tower_sessions_0_14);
release!(release_0_15, tower_sessions);
