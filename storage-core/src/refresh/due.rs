//! Refreshes tokens before a caller needs them.
//!
//! A pass lists the tokens by their hints, and refreshes those that are due. Nothing coordinates the replicas: two of
//! them that refresh the same token meet at its claim, and one adopts the token of the other. A rate and a number of
//! consecutive failures protect the provider, each per provider.

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

/// The number of consecutive failures after which the rest of a pass skips the provider.
const MAX_FAILURES: u32 = 5;

/// Which tokens to refresh, and how fast.
///
/// Most applications do not need this, because [`Refresher::usable`] refreshes a token when it is used. Use
/// [`idle_for`](Self::idle_for) if the provider expires refresh tokens that are not used for long, and
/// [`expiring_within`](Self::expiring_within) if no request may wait for a refresh.
///
/// ```
/// use std::time::Duration;
///
/// use oauth_dance_core::{Due, Filter};
///
/// const DAY: Duration = Duration::from_secs(24 * 3600);
///
/// // A provider that expires refresh tokens after 90 idle days.
/// let due = Due::idle_for(60 * DAY).with_filter(Filter::everything().provider("microsoft")).with_rate(2);
/// # let _ = due;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    selection: Selection,
    filter: Filter,
    interval: Duration,
    concurrency: usize,
}

/// What makes a token due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selection {
    Expiring(Duration),
    Idle(Duration),
}

impl Due {
    /// Tokens whose access token has expired or expires within this time, even if they are not used. The time is at
    /// most a quarter of the token's lifetime, so that a token is not refreshed again immediately.
    pub fn expiring_within(time: Duration) -> Self {
        Self::new(Selection::Expiring(time))
    }

    /// Tokens whose access token has expired and that have not been refreshed for this long. Choose less than the idle
    /// time after which the provider expires a refresh token.
    pub fn idle_for(time: Duration) -> Self {
        Self::new(Selection::Idle(time))
    }

    fn new(selection: Selection) -> Self {
        Self { selection, filter: Filter::everything(), interval: Duration::from_millis(200), concurrency: 8 }
    }

    /// Selects only tokens that match this filter. Its [`expiring_before`](Filter::expiring_before) is ignored.
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

    /// The filter for tokens that may be due now, according to their hints.
    fn listed(&self, now: Timestamp) -> Filter {
        let before = match self.selection {
            Selection::Expiring(time) => now.saturating_add(time),
            Selection::Idle(_) => now,
        };
        self.filter.clone().expiring_before(before.saturating_add(Duration::from_secs(1)))
    }
}

/// The result of one pass. Each listed token is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DueReport {
    /// Tokens that were refreshed.
    pub refreshed: u64,
    /// Tokens that another process refreshed first.
    pub adopted: u64,
    /// Tokens that were not refreshed, because they are not due yet, have no known provider, are backing off, are being
    /// refreshed by another process, or need their user.
    pub skipped: u64,
    /// Tokens that could not be refreshed or read.
    pub failed: u64,
    /// Tokens that were left for the next pass because their provider failed repeatedly.
    pub postponed: u64,
}

/// The state of one provider during a pass.
#[derive(Default)]
struct Pace {
    /// When the next token request may start.
    next: Option<Instant>,
    /// The number of consecutive failures.
    failures: u32,
}

/// The provider of a refresh, and its result.
type Finished = (String, Result<Refreshed, RefreshError>);

/// A running pass.
struct Pass {
    work: JoinSet<Finished>,
    paces: HashMap<String, Pace>,
    report: DueReport,
}

impl Refresher {
    /// Refreshes all tokens that are due, in one pass. Each token is refreshed exactly once, even if several processes
    /// do this at the same time.
    ///
    /// `provider` returns the provider that redeems the token of a key. Tokens for which it returns `None` are skipped.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// use oauth_dance_core::{Due, KeyRing, MemoryStorage, Redeem, Refresher, Tokens};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider: Option<Arc<dyn Redeem>> = None;
    /// let (refresher, tokens) = (Refresher::new(), Tokens::sealed(MemoryStorage::new(), KeyRing::generate()));
    /// let due = Due::expiring_within(Duration::from_secs(600));
    /// let report = refresher.refresh_due(&tokens, &due, |key| match key.provider() {
    ///     "github" => provider.clone(),
    ///     _ => None,
    /// });
    /// assert_eq!(report.await?.failed, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RefreshError::Storage`] if the storage cannot list. A token that cannot be read or refreshed is counted in the
    /// report, and the pass continues.
    ///
    /// # Cancel safety
    /// Dropping this future starts no further refresh. Those in flight run to their end, and no token is lost.
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
                let Some(provider) = provider(&entry.key) else {
                    pass.report.skipped += 1;
                    continue;
                };
                match self.need_of(tokens, &entry.key, &provider, due).await {
                    Ok(Some(need)) => {
                        pass.wait_for_slot(due.concurrency).await;
                        pass.start(self, tokens, entry.key, provider, need, due.interval);
                    }
                    Ok(None) => pass.report.skipped += 1,
                    Err(_) => pass.report.failed += 1,
                }
            }
            match found.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        pass.wait_for_slot(1).await;
        Ok(pass.report)
    }

    /// Calls [`refresh_due`](Self::refresh_due) repeatedly, with pauses between a half and the whole of `period`. Run
    /// it in a task, on every replica or on one.
    ///
    /// # Cancel safety
    /// The future ends only by being dropped, which loses no token.
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

    /// The need for which to refresh a token. `None` if the token is not due or cannot be refreshed.
    async fn need_of(
        &self,
        tokens: &Tokens,
        key: &TokenKey,
        provider: &Arc<dyn Redeem>,
        due: &Due,
    ) -> Result<Option<Need>, RefreshError> {
        let (token, progress, _) = match load(tokens, key).await {
            Err(RefreshError::NotConnected | RefreshError::WrongKind) => return Ok(None),
            found => found?,
        };
        let now = self.policy.clock.now();
        let is_free = match progress {
            Progress::Idle | Progress::Replaced => provider.can_redeem(&token),
            Progress::Claimed(claim) => claim.looks_abandoned(now),
            Progress::BackingOff(back_off) => !back_off.is_in_force(now),
            Progress::Dead { .. } => false,
        };
        let need = match due.selection {
            Selection::Expiring(time) => Need::NotDue(time),
            Selection::Idle(time) => {
                let elapsed = Duration::from_secs(now.as_unix_seconds()).saturating_sub(time);
                Need::IssuedSince(Timestamp::from_unix_seconds(elapsed.as_secs() + 1))
            }
        };
        Ok((is_free && !need.is_met_by(&token, &self.policy)).then_some(need))
    }
}

impl Pass {
    /// Starts a refresh in a task, at the pace of its provider.
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
    async fn wait_for_slot(&mut self, limit: usize) {
        while self.work.len() >= limit {
            let Some(ended) = self.work.join_next().await else { return };
            self.count(ended);
        }
    }

    /// Adds a refresh that has ended to the report.
    fn count(&mut self, ended: Result<Finished, JoinError>) {
        let Ok((provider, outcome)) = ended else {
            self.report.failed += 1;
            return;
        };
        let pace = self.paces.entry(provider).or_default();
        match outcome {
            Ok(found) => {
                pace.failures = 0;
                self.report.refreshed += u64::from(found.is_redeemed());
                self.report.adopted += u64::from(!found.is_redeemed());
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
