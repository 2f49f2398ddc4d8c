//! The test bench: processes that share a storage and a provider, on tokio's paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, advance};

use super::provider::{Client, Provider, TOKEN_LIFETIME};
use super::storage::FaultyStorage;
use crate::key::TokenKey;
use crate::memory::MemoryStorage;
use crate::progress::Stored;
use crate::record::Versioned;
use crate::refresh::{Connection, Redeem, RefreshError, RefreshEvent, Refresher, Rejection};
use crate::storage::{Precondition, TokenStorage};
use crate::time::{Clock, Timestamp};
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

pub(crate) struct Bench {
    pub(crate) shared: MemoryStorage,
    pub(crate) provider: Arc<Provider>,
    pub(crate) key: TokenKey,
    start: Instant,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            shared: MemoryStorage::new(),
            provider: Arc::default(),
            key: TokenKey::new("example", "alice").unwrap(),
            start: Instant::now(),
        }
    }

    /// A bench in which alice is connected.
    pub(crate) async fn connected() -> Self {
        let bench = Self::new();
        bench.login().await;
        bench
    }

    /// A bench in which alice is connected and her access token has expired.
    pub(crate) async fn expired() -> Self {
        let bench = Self::connected().await;
        advance(TOKEN_LIFETIME).await;
        bench
    }

    pub(crate) async fn login(&self) -> OAuth2Token {
        let token = self.provider.login(&self.clock(0));
        self.tokens().put(&self.key, &token.clone().into(), Precondition::Always).await.unwrap();
        token
    }

    pub(crate) async fn logout(&self) {
        assert!(self.tokens().delete(&self.key, None).await.unwrap());
    }

    /// Stores a record unconditionally.
    pub(crate) async fn store(&self, stored: &Stored) {
        self.tokens().save(&self.key, stored, Precondition::Always).await.unwrap();
    }

    pub(crate) async fn stored(&self) -> Option<Versioned<Stored>> {
        self.tokens().load(&self.key).await.unwrap()
    }

    /// The access token in the storage.
    pub(crate) async fn access(&self) -> String {
        match self.stored().await.unwrap().value.token {
            Token::OAuth2(token) => token.access_token.expose().to_owned(),
            Token::OAuth1(_) => unreachable!(),
        }
    }

    /// A handle to the storage that never fails.
    pub(crate) fn tokens(&self) -> Tokens {
        Tokens::dangerous_plaintext(self.shared.clone())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock(0).now()
    }

    /// A clock that advances with tokio's clock, with a skew in seconds.
    pub(crate) fn clock(&self, skew: i64) -> Clock {
        let start = self.start;
        let base = 1_700_000_000_u64.checked_add_signed(skew).unwrap();
        Clock::new(move || Timestamp::from_unix_seconds(base + start.elapsed().as_secs()))
    }

    pub(crate) fn process(&self) -> Process {
        self.process_with_skew(0)
    }

    pub(crate) fn process_with_skew(&self, skew: i64) -> Process {
        self.process_with_clock(self.clock(skew))
    }

    pub(crate) fn process_with_clock(&self, clock: Clock) -> Process {
        let storage = Arc::new(FaultyStorage::new(self.shared.clone()));
        let events = Arc::new(Mutex::new(Vec::new()));
        let observed = Arc::clone(&events);
        Process {
            tokens: Tokens::dangerous_plaintext(Arc::clone(&storage) as Arc<dyn TokenStorage>),
            storage,
            refresher: Refresher::new()
                .with_clock(clock.clone())
                .with_observer(move |_, event| observed.lock().unwrap().push(event.clone())),
            provider: Arc::new(Client { provider: Arc::clone(&self.provider), clock }),
            key: self.key.clone(),
            events,
        }
    }
}

/// One process of the application. Clones are tasks of the same process.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) refresher: Refresher,
    pub(crate) tokens: Tokens,
    pub(crate) storage: Arc<FaultyStorage>,
    pub(crate) provider: Arc<dyn Redeem>,
    pub(crate) key: TokenKey,
    pub(crate) events: Arc<Mutex<Vec<RefreshEvent>>>,
}

impl Process {
    pub(crate) async fn usable(&self) -> Result<String, RefreshError> {
        let token = self.refresher.usable(&self.tokens, &self.key, &self.provider).await?;
        Ok(token.access_token.expose().to_owned())
    }

    pub(crate) async fn refresh_rejected(&self, rejected: &str) -> Result<String, RefreshError> {
        let rejected = rejected.into();
        let token = self.refresher.refresh_rejected(&rejected, &self.tokens, &self.key, &self.provider).await?;
        Ok(token.access_token.expose().to_owned())
    }

    pub(crate) async fn replace_rejected(
        &self,
        rejected: &str,
        rejection: Rejection,
    ) -> Result<Option<String>, RefreshError> {
        let rejected = rejected.into();
        let token =
            self.refresher.replace_rejected(&rejected, rejection, &self.tokens, &self.key, &self.provider).await?;
        Ok(token.map(|token| token.access_token.expose().to_owned()))
    }

    /// Calls `usable` in a new task.
    pub(crate) fn spawn_usable(&self) -> tokio::task::JoinHandle<Result<String, RefreshError>> {
        let process = self.clone();
        tokio::spawn(async move { process.usable().await })
    }

    pub(crate) async fn connection(&self) -> Option<Connection> {
        self.refresher.connection(&self.tokens, &self.key).await.unwrap()
    }

    pub(crate) fn events(&self) -> Vec<RefreshEvent> {
        self.events.lock().unwrap().clone()
    }

    /// The names of the observed events.
    pub(crate) fn seen(&self) -> Vec<&'static str> {
        self.events().iter().map(RefreshEvent::name).collect()
    }

    /// Kills the process: nothing it does has an effect afterwards.
    pub(crate) fn die(&self) {
        self.storage.die();
    }

    pub(crate) async fn finish(&self) {
        self.refresher.finish().await;
        assert_eq!(self.refresher.in_flight.count(), 0, "no refresh is in flight");
    }
}

/// Runs `work`, and measures its duration on tokio's clock.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let result = work.await;
    (result, start.elapsed())
}
