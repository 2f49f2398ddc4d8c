//! Grants that need no refresh token: the token is requested again in the same way, by the same protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, advance};

use crate::key::TokenKey;
use crate::memory::MemoryStorage;
use crate::refresh::{Due, Lease, Redeem, RedeemError, RefreshError, Refresher, Rejection};
use crate::seal::KeyRing;
use crate::storage::Precondition;
use crate::time::{Clock, Timestamp};
use crate::token::OAuth2Token;
use crate::tokens::Tokens;

/// Issues a token to an application, and counts the requests.
struct Application {
    requests: AtomicU32,
    clock: Clock,
}

#[async_trait]
impl Redeem for Application {
    fn can_redeem(&self, _: &OAuth2Token) -> bool {
        true
    }

    async fn redeem(&self, _: &OAuth2Token, _: &Lease) -> Result<OAuth2Token, RedeemError> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut token = OAuth2Token::bearer(format!("access-{number}"));
        token.expires_at = Some(self.clock.now().saturating_add(Duration::from_secs(3600)));
        Ok(token)
    }

    async fn revoke(&self, _: &OAuth2Token) {}
}

struct World {
    tokens: Tokens,
    key: TokenKey,
    application: Arc<Application>,
    clock: Clock,
}

impl World {
    /// An expired token without a refresh token, on a clock that the test advances.
    async fn expired() -> Self {
        let start = Instant::now();
        let clock = Clock::new(move || Timestamp::from_unix_seconds(1_000_000 + start.elapsed().as_secs()));
        let tokens = Tokens::sealed(MemoryStorage::new().with_clock(clock.clone()), KeyRing::generate());
        let key = TokenKey::new("acme", "application").unwrap();
        let mut token = OAuth2Token::bearer("access-0");
        token.expires_at = Some(Timestamp::from_unix_seconds(0));
        tokens.put(&key, &token.into(), Precondition::Absent).await.unwrap();
        let application = Arc::new(Application { requests: AtomicU32::new(0), clock: clock.clone() });
        Self { tokens, key, application, clock }
    }

    fn process(&self) -> Refresher {
        Refresher::new().with_clock(self.clock.clone())
    }

    async fn usable(&self, process: &Refresher) -> Result<String, RefreshError> {
        let provider: Arc<dyn Redeem> = Arc::clone(&self.application) as _;
        let token = process.usable(&self.tokens, &self.key, &provider).await?;
        Ok(token.access_token.expose().to_owned())
    }

    fn requests(&self) -> u32 {
        self.application.requests.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn processes_request_one_token() {
    let world = World::expired().await;
    let (one, two) = (world.process(), world.process());
    for expected in 1..=3 {
        let found = tokio::join!(world.usable(&one), world.usable(&two), world.usable(&one));
        let token = format!("access-{expected}");
        let found = [found.0.unwrap(), found.1.unwrap(), found.2.unwrap()];
        assert_eq!((found, world.requests()), ([token.clone(), token.clone(), token], expected));
        advance(Duration::from_secs(3600)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_about_to_expire_is_requested_in_the_background() {
    let world = World::expired().await;
    let process = world.process();
    world.usable(&process).await.unwrap();
    advance(Duration::from_secs(3599)).await;
    assert_eq!(world.usable(&process).await.unwrap(), "access-1");
    process.finish().await;
    assert_eq!((world.usable(&process).await.unwrap(), world.requests()), ("access-2".to_owned(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_requested_again() {
    let world = World::expired().await;
    let (process, provider) = (world.process(), Arc::clone(&world.application) as Arc<dyn Redeem>);
    world.usable(&process).await.unwrap();
    let replace = |rejected: &'static str| {
        let rejected = rejected.into();
        let (process, tokens, key, provider) = (&process, &world.tokens, &world.key, &provider);
        async move { process.replace_rejected(&rejected, Rejection::InvalidToken, tokens, key, provider).await }
    };
    let replaced = replace("access-1").await.unwrap().unwrap();
    assert_eq!(replaced.access_token.expose(), "access-2");
    // It replaced a rejected one a moment ago, so it stays, and is not marked.
    assert_eq!(replace("access-2").await.unwrap(), None);
    assert_eq!(world.usable(&process).await.unwrap(), "access-2");
}

#[tokio::test(start_paused = true)]
async fn a_pass_over_due_tokens_includes_it() {
    let world = World::expired().await;
    let (process, provider) = (world.process(), Arc::clone(&world.application) as Arc<dyn Redeem>);
    let due = Due::expiring_within(Duration::from_secs(60));
    let report = process.refresh_due(&world.tokens, &due, |_| Some(Arc::clone(&provider))).await.unwrap();
    assert_eq!((report.refreshed, world.requests()), (1, 1));
}
