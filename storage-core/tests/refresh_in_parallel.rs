//! Refreshes on real threads: one redemption for each of many expiries.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use async_trait::async_trait;
use oauth_dance_core::{
    Clock, KeyRing, Lease, MemoryStorage, OAuth2Token, Precondition, Redeem, RedeemError, Refresher, Timestamp,
    TokenKey, TokenStorage, Tokens,
};
use tokio::task::JoinSet;

const LIFE: u64 = 3600;

#[derive(Default)]
struct Provider {
    seconds: AtomicU64,
    generation: AtomicU32,
    replays: AtomicU32,
}

impl Provider {
    fn clock(self: &Arc<Self>) -> Clock {
        let provider = Arc::clone(self);
        Clock::new(move || Timestamp::from_unix_seconds(provider.seconds.load(Ordering::SeqCst)))
    }

    fn token(&self, generation: u32) -> OAuth2Token {
        let now = self.seconds.load(Ordering::SeqCst);
        let mut token = OAuth2Token::bearer(format!("access-{generation}"));
        token.refresh_token = Some(generation.to_string().into());
        token.expires_at = Some(Timestamp::from_unix_seconds(now + LIFE));
        token.issued_at = Some(Timestamp::from_unix_seconds(now));
        token
    }
}

#[async_trait]
impl Redeem for Provider {
    async fn redeem(&self, token: &OAuth2Token, _: &Lease) -> Result<OAuth2Token, RedeemError> {
        tokio::task::yield_now().await;
        let sent: u32 = token.refresh_token.as_ref().unwrap().expose().parse().unwrap();
        let spent = self.generation.compare_exchange(sent, sent + 1, Ordering::SeqCst, Ordering::SeqCst);
        if spent.is_err() {
            self.replays.fetch_add(1, Ordering::SeqCst);
            return Err(RedeemError::Dead { cause: "invalid_grant".to_owned() });
        }
        tokio::task::yield_now().await;
        Ok(self.token(sent + 1))
    }

    async fn revoke(&self, _: &OAuth2Token) {
        panic!("no token is revoked in this test")
    }
}

/// Runs all callers of all processes at the same time, for one expiry after another. Some callers are dropped.
async fn expire(expiries: u32, processes: usize, callers: usize) {
    let provider = Arc::new(Provider::default());
    let key = TokenKey::new("example", "alice").unwrap();
    let (storage, ring) = (MemoryStorage::new(), KeyRing::generate());
    let processes: Vec<_> = (0..processes)
        .map(|_| {
            let own: Arc<dyn TokenStorage> = Arc::new(storage.clone());
            (Refresher::new().with_clock(provider.clock()), Tokens::sealed(own, ring.clone()))
        })
        .collect();
    processes[0].1.put(&key, &provider.token(0).into(), Precondition::Always).await.unwrap();

    for expiry in 1..=expiries {
        provider.seconds.fetch_add(LIFE, Ordering::SeqCst);
        let mut calls = JoinSet::new();
        for caller in 0..callers {
            for (refresher, tokens) in processes.clone() {
                let (key, provider) = (key.clone(), Arc::clone(&provider) as Arc<dyn Redeem>);
                let call = calls.spawn(async move { refresher.usable(&tokens, &key, &provider).await });
                if caller % 5 == 1 {
                    call.abort();
                }
            }
        }
        while let Some(ended) = calls.join_next().await {
            match ended {
                Ok(token) => assert_eq!(token.unwrap().access_token.expose(), format!("access-{expiry}")),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
    }
    for (refresher, _) in &processes {
        refresher.finish().await;
    }
    assert_eq!(provider.generation.load(Ordering::SeqCst), expiries, "redemptions");
    assert_eq!(provider.replays.load(Ordering::SeqCst), 0, "replayed refresh tokens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_tasks_of_one_process() {
    expire(500, 1, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_of_eight_processes_redeem_once() {
    expire(60, 8, 50).await;
}
