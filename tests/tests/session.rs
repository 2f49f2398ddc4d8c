//! The suite on the storages of one request. Every call is a separate request through the layer, with the cookies of a
//! browser in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response};
use oauth_dance_conformance::{Fault, Harness, HarnessError, HarnessResult};
use oauth_dance_core::{
    Capabilities, Clock, Filter, KeyRing, Page, PageRequest, Precondition, Record, RequestStorage, StorageError,
    TokenKey, TokenStorage, Version, Versioned,
};
use oauth_dance_session::{CookieTokens, SessionTokens};
use tokio::sync::RwLock;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt as _, service_fn};

/// The operation of a request.
enum Call {
    Get(TokenKey),
    Put(TokenKey, Record, Precondition),
    Delete(TokenKey, Option<Version>),
    List(Filter, PageRequest),
    Purge(usize),
    Declare,
}

/// The result of the operation. `Nothing` if no handler has run.
#[derive(Default)]
enum Reply {
    #[default]
    Nothing,
    Got(Result<Option<Versioned<Record>>, StorageError>),
    Put(Result<Version, StorageError>),
    Deleted(Result<bool, StorageError>),
    Listed(Result<Page, StorageError>),
    Purged(Result<u64, StorageError>),
    Declared(Capabilities),
}

type App = BoxCloneSyncService<Request<Call>, Response<Reply>, Infallible>;
type Jar = BTreeMap<String, String>;

/// The application: runs the operation on the storage that the layer provides.
async fn handle(request: Request<Call>) -> Result<Response<Reply>, Infallible> {
    let storage = Arc::clone(request.extensions().get::<RequestStorage>().unwrap().storage());
    let reply = match request.into_body() {
        Call::Get(key) => Reply::Got(storage.get(&key).await),
        Call::Put(key, record, when) => Reply::Put(storage.put(&key, &record, when).await),
        Call::Delete(key, only) => Reply::Deleted(storage.delete(&key, only).await),
        Call::List(filter, page) => Reply::Listed(storage.list(&filter, page).await),
        Call::Purge(limit) => Reply::Purged(storage.purge(limit).await),
        Call::Declare => Reply::Declared(storage.capabilities()),
    };
    Ok(Response::new(reply))
}

/// How many browsers there are.
#[derive(Clone, Copy)]
enum Browsers {
    /// One for all keys.
    One,
    /// One for each key, as if the keys belonged to different users.
    OnePerKey,
}

/// A storage whose calls are requests.
#[derive(Clone)]
struct OverRequests {
    app: App,
    browsers: Browsers,
    jars: Arc<Mutex<HashMap<Vec<u8>, Jar>>>,
    capabilities: Capabilities,
    /// Requests that a browser does not send concurrently, because the storage declares that it would lose one of them.
    alone: fn(&Call) -> bool,
    turn: Arc<RwLock<()>>,
}

/// The result if the session manager responds instead of the handler, because it could not save a session.
fn no_reply<T>() -> Result<T, StorageError> {
    Err(StorageError::ambiguous("the application responded with an error"))
}

impl OverRequests {
    async fn new(app: App, browsers: Browsers) -> Self {
        let request = Request::new(Call::Declare);
        let Reply::Declared(capabilities) = app.clone().oneshot(request).await.unwrap().into_body() else { panic!() };
        Self { app, browsers, jars: Arc::default(), capabilities, alone: |_| false, turn: Arc::default() }
    }

    /// The same browsers with another application.
    fn with_app(&self, app: App) -> Self {
        Self { app, ..self.clone() }
    }

    async fn send(&self, key: Option<&TokenKey>, call: Call) -> Reply {
        let browser = match (self.browsers, key) {
            (Browsers::OnePerKey, Some(key)) => key.to_bytes(),
            _ => Vec::new(),
        };
        let (_alone, _together) = match (self.alone)(&call) {
            true => (Some(self.turn.write().await), None),
            false => (None, Some(self.turn.read().await)),
        };
        let mut request = Request::new(call);
        let jar = self.jars.lock().unwrap().get(&browser).cloned().unwrap_or_default();
        let cookies: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.headers_mut().insert(COOKIE, cookies.join("; ").parse().unwrap());

        let response = self.app.clone().oneshot(request).await.unwrap();
        let mut jars = self.jars.lock().unwrap();
        let jar = jars.entry(browser).or_default();
        for set_cookie in response.headers().get_all(SET_COOKIE) {
            let set_cookie = set_cookie.to_str().unwrap();
            assert!(set_cookie.len() <= 4096);
            let (pair, attributes) = set_cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        response.into_body()
    }
}

#[async_trait]
impl TokenStorage for OverRequests {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        let Reply::Got(found) = self.send(Some(key), Call::Get(key.clone())).await else { return no_reply() };
        found
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let (size, limit) = (record.payload.len(), self.capabilities.max_payload.unwrap_or(usize::MAX));
        if size > limit && matches!(self.browsers, Browsers::One) {
            return Err(StorageError::TooLarge { size, limit });
        }
        let Reply::Put(written) = self.send(Some(key), Call::Put(key.clone(), record.clone(), when)).await else {
            return no_reply();
        };
        written
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        let Reply::Deleted(removed) = self.send(Some(key), Call::Delete(key.clone(), only)).await else {
            return no_reply();
        };
        removed
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        let Reply::Listed(listed) = self.send(None, Call::List(filter.clone(), page)).await else { return no_reply() };
        listed
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let Reply::Purged(purged) = self.send(None, Call::Purge(limit)).await else { return no_reply() };
        purged
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
}

/// A clock that tests can move.
#[derive(Clone, Default)]
struct MovedClock(Arc<AtomicU64>);

impl MovedClock {
    fn clock(&self) -> Clock {
        let by = Arc::clone(&self.0);
        Clock::new(move || Clock::system().now().saturating_add(Duration::from_secs(by.load(Ordering::SeqCst))))
    }

    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

struct Cookies {
    config: CookieTokens,
    storage: OverRequests,
    clock: MovedClock,
}

impl Cookies {
    async fn new(browsers: Browsers, limit: Option<usize>) -> Self {
        let clock = MovedClock::default();
        let config = CookieTokens::new("https://app.example", KeyRing::generate()).with_clock(clock.clock());
        let config = match limit {
            Some(limit) => config.with_limit(limit),
            None => config,
        };
        let storage = OverRequests::new(app(&config), browsers).await;
        Self { config, storage, clock }
    }
}

/// The application inside the layer.
fn app<L>(layer: &L) -> App
where
    L: Layer<App>,
    L::Service: Service<Request<Call>, Response = Response<Reply>, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request<Call>>>::Future: Send,
{
    App::new(layer.layer(App::new(service_fn(handle))))
}

#[async_trait]
impl Harness for Cookies {
    fn storage(&self) -> Arc<dyn TokenStorage> {
        Arc::new(self.storage.clone())
    }

    async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
        Ok(Arc::new(self.storage.with_app(app(&self.config.clone()))))
    }

    async fn sibling(&self, namespace: &str) -> HarnessResult<Arc<dyn TokenStorage>> {
        Ok(Arc::new(self.storage.with_app(app(&self.config.clone().with_name(namespace)?))))
    }

    async fn advance(&self, by: Duration) -> HarnessResult<()> {
        self.clock.advance(by);
        Ok(())
    }

    fn printed(&self) -> HarnessResult<String> {
        Ok(format!("{:?}", self.config))
    }
}

/// The cookies of a browser with the default limit: 6 KiB for all tokens.
mod cookie {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async { Ok(Cookies::new(Browsers::OnePerKey, None).await) });
}

/// All tokens of a test in one browser's cookies, in many chunks.
mod cookie_of_one_browser {
    use super::*;

    oauth_dance_conformance::conformance_tests!(|| async {
        let mut cookies = Cookies::new(Browsers::One, Some(128 * 1024)).await;
        // Records share the limit, so the properties must not fill it with one record.
        cookies.storage.capabilities = cookies.storage.capabilities.with_max_payload(9_000);
        // Of two concurrent responses, the one that arrives last sets all cookies.
        cookies.storage.alone = |_| true;
        Ok(cookies)
    });
}

/// Defines the tests for one release of tower-sessions. The releases have different types with the same names.
macro_rules! sessions {
    ($module:ident, $tower_sessions:ident) => {
        mod $module {
            use std::sync::atomic::AtomicBool;

            use base64::Engine as _;
            use base64::engine::general_purpose::URL_SAFE_NO_PAD;
            use $tower_sessions::cookie::{Key, SameSite};
            use $tower_sessions::session::{Id, Record as SessionRecord};
            use $tower_sessions::session_store::{Error, Result};
            use $tower_sessions::{SessionManagerLayer, SessionStore};

            use super::*;

            oauth_dance_conformance::conformance_tests!(|| async { Ok(Sessions::new().await) });

            #[derive(Clone, Debug, Default)]
            struct Store {
                records: Arc<Mutex<HashMap<Id, SessionRecord>>>,
                is_down: Arc<AtomicBool>,
            }

            impl Store {
                fn records(&self) -> Result<std::sync::MutexGuard<'_, HashMap<Id, SessionRecord>>> {
                    if self.is_down.load(Ordering::SeqCst) {
                        return Err(Error::Backend("it is down".to_owned()));
                    }
                    Ok(self.records.lock().unwrap())
                }
            }

            #[async_trait]
            impl SessionStore for Store {
                async fn create(&self, record: &mut SessionRecord) -> Result<()> {
                    self.records()?.insert(record.id, record.clone());
                    Ok(())
                }

                async fn save(&self, record: &SessionRecord) -> Result<()> {
                    self.records()?.insert(record.id, record.clone());
                    Ok(())
                }

                async fn load(&self, id: &Id) -> Result<Option<SessionRecord>> {
                    Ok(self.records()?.get(id).cloned())
                }

                async fn delete(&self, id: &Id) -> Result<()> {
                    self.records()?.remove(id);
                    Ok(())
                }
            }

            struct Sessions {
                store: Store,
                tokens: SessionTokens,
                key: Key,
                storage: OverRequests,
                clock: MovedClock,
            }

            impl Sessions {
                async fn new() -> Self {
                    let (store, key, clock) = (Store::default(), Key::generate(), MovedClock::default());
                    let tokens = SessionTokens::new(store.clone()).with_clock(clock.clock());
                    let mut storage = OverRequests::new(inside(&store, &key, &tokens), Browsers::One).await;
                    // A login gives the session a new id, and requests with the old one are of no session any more.
                    storage.alone = |call| matches!(call, Call::Put(_, _, Precondition::Always));
                    Self { store, tokens, key, storage, clock }
                }
            }

            fn inside(store: &Store, key: &Key, tokens: &SessionTokens) -> App {
                let sessions = SessionManagerLayer::new(store.clone()).with_same_site(SameSite::Lax);
                app(&ServiceBuilder::new().layer(sessions.with_signed(key.clone())).layer(tokens.clone()).into_inner())
            }

            #[async_trait]
            impl Harness for Sessions {
                fn storage(&self) -> Arc<dyn TokenStorage> {
                    Arc::new(self.storage.clone())
                }

                async fn reopen(&self) -> HarnessResult<Arc<dyn TokenStorage>> {
                    let tokens = SessionTokens::new(self.store.clone()).with_clock(self.clock.clock());
                    Ok(Arc::new(self.storage.with_app(inside(&self.store, &self.key, &tokens))))
                }

                async fn advance(&self, by: Duration) -> HarnessResult<()> {
                    self.clock.advance(by);
                    Ok(())
                }

                async fn raw_dump(&self) -> HarnessResult<Vec<u8>> {
                    Ok(format!("{:?}", self.store.records.lock().unwrap()).into_bytes())
                }

                async fn corrupt(&self, key: &TokenKey) -> HarnessResult<()> {
                    let name = URL_SAFE_NO_PAD.encode(key.to_bytes());
                    let mut records = self.store.records.lock().unwrap();
                    for record in records.values_mut() {
                        record.data.entry(name.clone()).and_modify(|value| *value = "?".into());
                    }
                    Ok(())
                }

                async fn inject(&self, fault: Fault) -> HarnessResult<()> {
                    if fault != Fault::Down {
                        return Err(HarnessError::Cannot("do more to a session store than take it down"));
                    }
                    self.store.is_down.store(true, Ordering::SeqCst);
                    Ok(())
                }

                async fn heal(&self) -> HarnessResult<()> {
                    self.store.is_down.store(false, Ordering::SeqCst);
                    Ok(())
                }

                fn printed(&self) -> HarnessResult<String> {
                    Ok(format!("{:?}", self.tokens))
                }
            }
        }
    };
}

sessions!(session_0_14, tower_sessions_0_14);
sessions!(session_0_15, tower_sessions);
