//! Renewing tokens before anybody asks for them: a task that any replica may run, also all of them at once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::flight::Found;
use super::state::Progress;
use super::{Need, Redeem, RefreshError, Refresher, load};
use crate::key::TokenKey;
use crate::storage::{Filter, PageRequest};
use crate::time::Timestamp;
use crate::tokens::Tokens;

/// A provider that fails this often in a row is left alone for the rest of a pass.
const ENOUGH_FAILURES: u32 = 5;

/// Which tokens to renew, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    which: Which,
    filter: Filter,
    interval: Duration,
    at_once: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Expiring(Duration),
    Idle(Duration),
}

impl Due {
    /// Tokens whose access token has expired or does so within this time, at most a quarter of its life. For
    /// connections that must always be ready: it keeps refreshing tokens that nobody uses.
    pub fn expiring_within(time: Duration) -> Self {
        Self::new(Which::Expiring(time))
    }

    /// Tokens whose access token has expired and that were not refreshed for this long. Choose less than the time after
    /// which the provider lets an unused refresh token expire.
    pub fn idle_for(time: Duration) -> Self {
        Self::new(Which::Idle(time))
    }

    fn new(which: Which) -> Self {
        Self { which, filter: Filter::everything(), interval: Duration::from_millis(200), at_once: 8 }
    }

    /// Only tokens that this filter lists. Its [`expiring_before`](Filter::expiring_before) is not used.
    #[must_use]
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// Sets how many token requests may start in a second, for each provider and in each process. The default is 5.
    #[must_use]
    pub fn with_rate(self, per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), ..self }
    }

    /// Sets how many tokens may be refreshed at the same time. The default is 8.
    #[must_use]
    pub fn with_at_once(self, at_once: usize) -> Self {
        Self { at_once: at_once.max(1), ..self }
    }

    /// Everything that may be due now, by the hints that a storage lists.
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
    /// Tokens that somebody else refreshed meanwhile.
    pub adopted: u64,
    /// Tokens that were listed and left alone: not due yet, of no known provider, backing off, being refreshed
    /// elsewhere, or waiting for their user.
    pub skipped: u64,
    /// Tokens that could not be refreshed or read.
    pub failed: u64,
    /// Tokens left for the next pass, because their provider kept failing.
    pub postponed: u64,
}

/// How one provider fares during a pass.
#[derive(Default)]
struct Pace {
    next: Option<Instant>,
    failures: u32,
}

type Ended = (String, Result<Found, RefreshError>);

/// A pass under way.
struct Pass {
    work: JoinSet<Ended>,
    paces: HashMap<String, Pace>,
    report: DueReport,
}

impl Refresher {
    /// Goes once through the tokens that are due and refreshes them, each exactly once however many processes do the
    /// same. `provider` finds what redeems the tokens of a key; tokens for which it finds nothing are left alone.
    ///
    /// Tokens whose users must authorize again are still listed and read each time.
    ///
    /// # Errors
    /// [`RefreshError::Storage`] if the storage cannot list. A token that cannot be read or refreshed is counted, and
    /// the others go on.
    ///
    /// # Cancel safety
    /// As [`usable`](Self::usable).
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
                        pass.make_room(due.at_once).await;
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

    /// Calls [`refresh_due`](Self::refresh_due) for ever, with pauses of about `period`. Dropping it stops it and loses
    /// nothing.
    pub async fn keep_refreshing(
        &self,
        tokens: &Tokens,
        due: &Due,
        period: Duration,
        provider: impl Fn(&TokenKey) -> Option<Arc<dyn Redeem>>,
    ) -> Infallible {
        loop {
            // Replicas that start together do not stay together.
            sleep(self.policy.jitter(period)).await;
            match self.refresh_due(tokens, due, &provider).await {
                Ok(report) => tracing::info!(?report, "tokens that were due"),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "tokens that are due cannot be listed");
                }
            }
        }
    }

    /// What a token is to be refreshed for, if it is to be and can be.
    async fn need_of(&self, tokens: &Tokens, key: &TokenKey, due: &Due) -> Result<Option<Need>, RefreshError> {
        let (token, progress) = match load(tokens, key).await {
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
                Need::Since(Timestamp::from_unix_seconds(elapsed.as_secs() + 1))
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
        if pace.failures >= ENOUGH_FAILURES {
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

    /// Waits until fewer than `limit` refreshes are under way.
    async fn make_room(&mut self, limit: usize) {
        while self.work.len() >= limit {
            let Some(ended) = self.work.join_next().await else { return };
            self.count(ended);
        }
    }

    fn count(&mut self, ended: Result<Ended, JoinError>) {
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
