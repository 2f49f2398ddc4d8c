//! Refreshes tokens before a caller needs them. Any number of replicas may run this at the same time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::need::Need;
use super::refresher::load;
use super::single_flight::Refreshed;
use super::{Redeem, RefreshError, Refresher};
use crate::key::TokenKey;
use crate::progress::Progress;
use crate::storage::{Filter, PageRequest};
use crate::time::Timestamp;
use crate::tokens::Tokens;

/// After this many consecutive failures, the rest of a pass skips the provider.
const MAX_FAILURES: u32 = 5;

/// Which tokens to refresh, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    which: Which,
    filter: Filter,
    interval: Duration,
    concurrency: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Expiring(Duration),
    Idle(Duration),
}

impl Due {
    /// Tokens whose access token has expired or expires within this time, which is at most a quarter of the token's
    /// lifetime. For connections that must always be ready: tokens are refreshed even if they are not used.
    pub fn expiring_within(time: Duration) -> Self {
        Self::new(Which::Expiring(time))
    }

    /// Tokens whose access token has expired and that were not refreshed for this long. Choose less than the idle time
    /// after which the provider expires a refresh token.
    pub fn idle_for(time: Duration) -> Self {
        Self::new(Which::Idle(time))
    }

    fn new(which: Which) -> Self {
        Self { which, filter: Filter::everything(), interval: Duration::from_millis(200), concurrency: 8 }
    }

    /// Only tokens that this filter lists. Its [`expiring_before`](Filter::expiring_before) is not used.
    #[must_use]
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// Sets how many token requests may start per second, for each provider and in each process. The default is 5.
    #[must_use]
    pub fn with_rate(self, per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), ..self }
    }

    /// Sets how many tokens may be refreshed at the same time. The default is 8.
    #[must_use]
    pub fn with_concurrency(self, concurrency: usize) -> Self {
        Self { concurrency: concurrency.max(1), ..self }
    }

    /// Selects everything that may be due now, by the hints that a storage lists.
    fn listed(&self, now: Timestamp) -> Filter {
        let before = match self.which {
            Which::Expiring(time) => now.saturating_add(time),
            Which::Idle(_) => now,
        };
        self.filter.clone().expiring_before(before.saturating_add(Duration::from_secs(1)))
    }
}

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DueReport {
    /// Tokens that were refreshed.
    pub refreshed: u64,
    /// Tokens that another process refreshed meanwhile.
    pub adopted: u64,
    /// Tokens that were listed and not refreshed, because they are not due yet, have no known provider, are backing
    /// off, are refreshed by another process, or need their user.
    pub skipped: u64,
    /// Tokens that could not be refreshed or read.
    pub failed: u64,
    /// Tokens that were left for the next pass because their provider failed repeatedly.
    pub postponed: u64,
}

/// The state of one provider during a pass.
#[derive(Default)]
struct Pace {
    next: Option<Instant>,
    failures: u32,
}

type Finished = (String, Result<Refreshed, RefreshError>);

/// A running pass.
struct Pass {
    work: JoinSet<Finished>,
    paces: HashMap<String, Pace>,
    report: DueReport,
}

impl Refresher {
    /// Refreshes all tokens that are due, in one pass. Each token is refreshed exactly once, however many processes do
    /// the same.
    ///
    /// `provider` returns the provider that redeems the token of a key. Tokens for which it returns `None` are skipped.
    /// Tokens whose users must authorize again are still listed and read in each pass.
    ///
    /// # Errors
    /// [`RefreshError::Storage`] if the storage cannot list. A token that cannot be read or refreshed is counted in the
    /// report, and the pass continues.
    ///
    /// # Cancel safety
    /// The same as for [`usable`](Self::usable).
    pub async fn refresh_due(
        &self,
        tokens: &Tokens,
        due: &Due,
        provider: impl Fn(&TokenKey) -> Option<Arc<dyn Redeem>>,
    ) -> Result<DueReport, RefreshError> {
        let filter = due.listed(self.policy.clock.now());
        let mut pass = Pass { work: JoinSet::new(), paces: HashMap::new(), report: DueReport::default() };
        let mut page = PageRequest::default();
        loop {
            let found = tokens.list(&filter, page.clone()).await?;
            for entry in found.entries {
                match (provider(&entry.key), self.need_of(tokens, &entry.key, due).await) {
                    (Some(provider), Ok(Some(need))) => {
                        pass.make_room(due.concurrency).await;
                        pass.start(self, tokens, entry.key, provider, need, due.interval);
                    }
                    (_, Ok(_)) => pass.report.skipped += 1,
                    (_, Err(_)) => pass.report.failed += 1,
                }
            }
            match found.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        pass.make_room(1).await;
        Ok(pass.report)
    }

    /// Calls [`refresh_due`](Self::refresh_due) repeatedly, with pauses of about `period`, until the future is dropped.
    /// Dropping it loses no token.
    pub async fn keep_refreshing(
        &self,
        tokens: &Tokens,
        due: &Due,
        period: Duration,
        provider: impl Fn(&TokenKey) -> Option<Arc<dyn Redeem>>,
    ) -> Infallible {
        loop {
            // The jitter separates replicas that start at the same time.
            sleep(self.policy.jitter(period)).await;
            match self.refresh_due(tokens, due, &provider).await {
                Ok(report) => tracing::info!(?report, "refreshed the tokens that were due"),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the tokens that are due could not be listed"
                    );
                }
            }
        }
    }

    /// The need for which a token is refreshed. `None` if the token is not due or cannot be refreshed.
    async fn need_of(&self, tokens: &Tokens, key: &TokenKey, due: &Due) -> Result<Option<Need>, RefreshError> {
        let (token, progress, _) = match load(tokens, key).await {
            Err(RefreshError::NotConnected | RefreshError::WrongKind) => return Ok(None),
            found => found?,
        };
        let now = self.policy.clock.now();
        let is_free = match progress {
            Progress::Idle | Progress::Replaced => token.refresh_token.is_some(),
            Progress::Claimed(claim) => claim.looks_abandoned(now),
            Progress::BackingOff(back_off) => !back_off.is_in_force(now),
            Progress::Dead { .. } => false,
        };
        let need = match due.which {
            Which::Expiring(time) => Need::NotDue(time),
            Which::Idle(time) => {
                let elapsed = Duration::from_secs(now.as_unix_seconds()).saturating_sub(time);
                Need::IssuedSince(Timestamp::from_unix_seconds(elapsed.as_secs() + 1))
            }
        };
        Ok((is_free && !need.is_met_by(&token, &self.policy)).then_some(need))
    }
}

impl Pass {
    fn start(
        &mut self,
        refresher: &Refresher,
        tokens: &Tokens,
        key: TokenKey,
        provider: Arc<dyn Redeem>,
        need: Need,
        interval: Duration,
    ) {
        let pace = self.paces.entry(key.provider().to_owned()).or_default();
        if pace.failures >= MAX_FAILURES {
            self.report.postponed += 1;
            return;
        }
        let start = pace.next.unwrap_or_else(Instant::now).max(Instant::now());
        pace.next = Some(start + interval);
        let (refresher, tokens) = (refresher.clone(), tokens.clone());
        self.work.spawn(async move {
            sleep_until(start).await;
            let outcome = refresher.refresh(&tokens, &key, &provider, need).await;
            (key.provider().to_owned(), outcome)
        });
    }

    /// Waits until fewer than `limit` refreshes are in flight.
    async fn make_room(&mut self, limit: usize) {
        while self.work.len() >= limit {
            let Some(ended) = self.work.join_next().await else { return };
            self.count(ended);
        }
    }

    fn count(&mut self, ended: Result<Finished, JoinError>) {
        let Ok((provider, outcome)) = ended else {
            self.report.failed += 1;
            return;
        };
        let pace = self.paces.entry(provider).or_default();
        match outcome {
            Ok(found) => {
                pace.failures = 0;
                self.report.refreshed += u64::from(found.redeemed);
                self.report.adopted += u64::from(!found.redeemed);
            }
            Err(error) => {
                if matches!(error, RefreshError::BackingOff { .. }) {
                    pace.failures += 1;
                }
                self.report.failed += 1;
            }
        }
    }
}
