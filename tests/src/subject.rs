use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Capabilities, Entry, Filter, PageRequest, Record, TokenKey, TokenStorage};

use crate::harness::Harness;
use crate::outcome::{Outcome, Stop, ensure};

/// What a property is tried on: a storage that is still empty, and its harness.
pub struct Subject {
    harness: Box<dyn Harness>,
    storage: Arc<dyn TokenStorage>,
    seed: u64,
}

impl Subject {
    /// A subject for one property.
    pub fn new(harness: impl Harness, seed: u64) -> Self {
        let storage = harness.storage();
        Self { harness: Box::new(harness), storage, seed }
    }

    /// The storage under test.
    pub fn storage(&self) -> &Arc<dyn TokenStorage> {
        &self.storage
    }

    /// What else can be done to it.
    pub fn harness(&self) -> &dyn Harness {
        self.harness.as_ref()
    }

    /// What the storage declares.
    pub fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }

    /// As many handles on the same data, through pools of their own if the harness can open them.
    pub(crate) async fn handles(&self, count: usize) -> Outcome<Vec<Arc<dyn TokenStorage>>> {
        let mut handles = vec![Arc::clone(&self.storage)];
        while handles.len() < count {
            let next = match self.harness.reopen().await.map_err(Stop::from) {
                Err(Stop::NotApplicable(_)) => Arc::clone(&self.storage),
                other => other?,
            };
            handles.push(next);
        }
        Ok(handles)
    }

    /// Ends the property as not applicable where `list` is not declared.
    pub(crate) fn needs_list(&self) -> Outcome {
        self.capabilities().listable.then_some(()).ok_or_else(|| Stop::not_applicable("not listable"))
    }

    /// Ends the property as not applicable where preconditions are not declared to be atomic.
    pub(crate) fn needs_atomic(&self) -> Outcome {
        self.capabilities().atomic.then_some(()).ok_or_else(|| Stop::not_applicable("not atomic"))
    }

    pub(crate) async fn advance(&self, seconds: u64) -> Outcome {
        Ok(self.harness.advance(Duration::from_secs(seconds)).await?)
    }

    pub(crate) fn random(&self) -> Random {
        Random(self.seed)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("capabilities", &self.capabilities()).field("seed", &self.seed).finish()
    }
}

/// The key of one user, as plain as keys get.
pub(crate) fn key(user: &str) -> Outcome<TokenKey> {
    Ok(TokenKey::new("github", user)?)
}

/// A record with every hint set, kept for a day.
pub(crate) fn rich(payload: impl Into<Vec<u8>>) -> Record {
    let expires_at = oauth_dance_core::Timestamp::from_unix_seconds(4_102_444_800);
    Record::new(payload)
        .with_expires_at(Some(expires_at))
        .with_key_id(Some("0123456789abcdef".to_owned()))
        .with_retain_for(Some(Duration::from_secs(86_400)))
}

/// A record kept for so many seconds.
pub(crate) fn kept_for(payload: impl Into<Vec<u8>>, seconds: u64) -> Record {
    Record::new(payload).with_retain_for(Some(Duration::from_secs(seconds)))
}

/// All pages together.
pub(crate) async fn list_all(storage: &dyn TokenStorage, filter: &Filter, limit: usize) -> Outcome<Vec<Entry>> {
    let (mut entries, mut after) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = storage.list(filter, PageRequest { after, limit }).await?;
        ensure!(page.entries.len() <= limit, "a page of {limit} has {} entries", page.entries.len());
        entries.extend(page.entries);
        let Some(next) = page.next else { return Ok(entries) };
        after = Some(next);
    }
    Err(Stop::failed("the list never ends"))
}

/// SplitMix64: good enough to choose with, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
