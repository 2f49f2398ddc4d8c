//! Random histories of single calls, in which each result is compared with that of a model.
//!
//! The model is the contract as a program: a map from keys to records, with versions and retention. It finds combinations
//! that no single property thinks of, such as a stale version after an expired record that was purged through another handle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Entry, Filter, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage, Version};

use crate::calls::{Call, pages};
use crate::listing::are_listed;
use crate::lookalikes;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::{Show as _, difference};
use crate::tested_storage::{Random, TestedStorage, list_all};

/// How many histories are tried, how long each is, and how long all may take.
const HISTORIES: usize = 60;
const STEPS: usize = 60;
const TIME: Duration = Duration::from_millis(1_200);
/// How far a storage's clock may be behind, so that it may still return a record.
const LATE: Duration = Duration::from_millis(300);
const SECOND: Duration = Duration::from_secs(1);

/// In any sequence of calls, one at a time and through several handles, every result is the one that a model of the
/// contract predicts.
///
/// The model is an in-memory map with versions and retention. Up to 60 histories of 60 calls use similar keys, stale
/// versions, repeated bytes and a clock that moves. The failure names the history and the step; the last calls are
/// below it.
pub async fn random_histories_match_the_model(on: Arc<TestedStorage>) -> PropertyResult {
    let handles = on.recorded_handles(3).await?;
    let can_move_time = on.can_move_time().await?;
    let mut random = on.random();
    for history in on.rounds(HISTORIES, TIME).await? {
        let keys = keys(&mut random)?;
        let model = Model { records: BTreeMap::new(), old: Vec::new() };
        let handles = handles.clone();
        let mut player =
            Player { on: &on, handles, keys, model, random: random.clone(), can_move_time, number: history };
        player.play().await?;
        random = player.random;
    }
    Ok(())
}

/// A few keys that some storages might confuse.
fn keys(random: &mut Random) -> PropertyResult<Vec<TokenKey>> {
    let group = lookalikes::ALL[random.below(lookalikes::ALL.len())];
    let texts = group[random.below(group.len())];
    let mut keys = vec![TokenKey::new("github", "alice")?];
    for _ in 0..5 {
        let (one, other) = (texts[random.below(texts.len())], texts[random.below(texts.len())]);
        let mut parts = [["", one, other][random.below(3)], one, "github", ["", "", other][random.below(3)]];
        parts.swap(1, 1 + random.below(2));
        let key = TokenKey::from_parts(parts[0], parts[1], parts[2], parts[3])?;
        if key.len() <= crate::keys::ACCEPTED && !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// What is stored according to the contract.
struct Model {
    records: BTreeMap<TokenKey, Stored>,
    /// All versions that were ever written, with their keys.
    old: Vec<(TokenKey, Version)>,
}

#[derive(Clone)]
struct Stored {
    record: Record,
    version: Version,
    /// The times just before and just after it was written.
    written: (Duration, Duration),
}

impl Stored {
    fn lasts(&self) -> Option<Duration> {
        self.record.retain_seconds().map(Duration::from_secs)
    }

    /// Whether the record is live between two instants. `None` if its retention ends around then.
    fn is_live(&self, begun: Duration, ended: Duration) -> Option<bool> {
        let Some(lasts) = self.lasts() else { return Some(true) };
        if lasts.is_zero() || begun > self.written.1 + lasts + LATE {
            return Some(false);
        }
        (ended + SECOND < self.written.0 + lasts).then_some(true)
    }
}

struct Player<'a> {
    on: &'a TestedStorage,
    handles: Vec<Arc<dyn TokenStorage>>,
    keys: Vec<TokenKey>,
    model: Model,
    random: Random,
    can_move_time: bool,
    number: usize,
}

impl Player<'_> {
    async fn play(&mut self) -> PropertyResult {
        for step in 0..STEPS {
            let key = self.keys[self.random.below(self.keys.len())].clone();
            let handle = self.random.below(self.handles.len());
            let storage = Arc::clone(&self.handles[handle]);
            self.step(storage.as_ref(), &key, step).await?;
            let reader = self.random.below(self.handles.len());
            let reader = Arc::clone(&self.handles[reader]);
            self.check(reader.as_ref(), &key, step).await?;
            if step % 10 == 9 {
                for key in self.keys.clone() {
                    self.check(reader.as_ref(), &key, step).await?;
                }
                self.list(reader.as_ref(), step).await?;
            }
        }
        for key in self.keys.clone() {
            self.delete(Arc::clone(self.on.storage()).as_ref(), &key, None, STEPS).await?;
        }
        Ok(())
    }

    async fn step(&mut self, storage: &dyn TokenStorage, key: &TokenKey, step: usize) -> PropertyResult {
        match self.random.below(16) {
            0..=6 => {
                let when = self.condition(key);
                self.put(storage, key, when, step).await
            }
            7..=9 => {
                let only = match self.condition(key) {
                    Precondition::Version(version) => Some(version),
                    _ => None,
                };
                self.delete(storage, key, only, step).await
            }
            10 | 11 => self.check(storage, key, step).await,
            12 => self.list(storage, step).await,
            13 | 14 if self.can_move_time => {
                let seconds = [1, 5, 31, 100, 700, 90_000][self.random.below(6)];
                self.on.advance(Duration::from_secs(seconds)).await?;
                self.leave_the_edge().await
            }
            _ => {
                let limit = [0, 1, 2, 100, usize::MAX][self.random.below(5)];
                let removed = storage.purge(limit).await?;
                ensure!(removed <= limit as u64, "{}: purge({limit}) removed {removed}", self.place(step));
                Ok(())
            }
        }
    }

    /// Advances the clock until it is certain of every record whether its retention has ended.
    async fn leave_the_edge(&self) -> PropertyResult {
        loop {
            let (now, soon) = (self.on.now(), self.on.now() + SECOND);
            if self.model.records.values().all(|stored| stored.is_live(now, soon).is_some()) {
                return Ok(());
            }
            self.on.advance(SECOND).await?;
        }
    }

    /// A condition that is met about half of the time.
    fn condition(&mut self, key: &TokenKey) -> Precondition {
        let current = self.model.records.get(key).map(|stored| stored.version);
        let old: Vec<_> = self.model.old.iter().rev().filter(|(owner, _)| owner == key).take(6).collect();
        let old = (!old.is_empty()).then(|| old[self.random.below(old.len())].1);
        let others = self.model.old.last().map(|(_, version)| *version);
        let chosen = match self.random.below(12) {
            0..=2 => return Precondition::Always,
            3 | 4 => return Precondition::Absent,
            5..=7 => current,
            8 => old,
            9 => others,
            10 => current.or(old).map(|version| {
                let mut bytes = *version.as_bytes();
                bytes[self.random.below(16)] ^= 1 << self.random.below(8);
                Version::from_bytes(bytes)
            }),
            _ => Some(Version::from_bytes([[0, 0xff][self.random.below(2)]; 16])),
        };
        chosen.map_or(Precondition::Absent, Precondition::Version)
    }

    /// A random record, with or without hints and retention. Some payloads repeat.
    fn record(&mut self, step: usize) -> Record {
        let payload = match self.random.below(6) {
            0 => b"the same".to_vec(),
            1 => Vec::new(),
            2 => {
                let length = self.on.accepted_length([700, 5_000][self.random.below(2)]);
                self.random.bytes(length)
            }
            _ => format!("history {}, step {step}", self.number).into_bytes(),
        };
        let expires_at =
            [None, Some(0), Some(1_000), Some(1_001), Some(4_294_967_299), Some(253_402_300_799)][self.random.below(6)];
        let key_id = [None, Some("0123456789abcdef"), Some("B")][self.random.below(3)];
        let millis = [None, None, None, Some(0), Some(60_000), Some(99_001), Some(600_000), Some(86_400_000)];
        let mut retain_for = millis[self.random.below(millis.len())].map(Duration::from_millis);
        if !self.can_move_time {
            // A retention must not end while the history runs, unless it is zero.
            retain_for = retain_for.map(|time| time * 100);
        }
        Record::new(payload)
            .with_expires_at(expires_at.map(Timestamp::from_unix_seconds))
            .with_key_id(key_id.map(str::to_owned))
            .with_retain_for(retain_for)
    }

    async fn put(
        &mut self,
        storage: &dyn TokenStorage,
        key: &TokenKey,
        when: Precondition,
        step: usize,
    ) -> PropertyResult {
        let stored = self.model.records.get(key).map(|stored| stored.record.clone());
        // Sometimes the same record as the stored one.
        let repeated = stored.filter(|_| self.random.below(4) == 0);
        let record = repeated.unwrap_or_else(|| self.record(step));
        let begun = self.on.now();
        let written = storage.put(key, &record, when).await;
        let ended = self.on.now();
        let current = self.current(key, begun, ended)?.map(|stored| stored.version);
        let put = Call::put(key, &record, when);
        let what = format!("{}: {put} while {}", self.place(step), stored_is(current));
        match written {
            Ok(version) if when.holds_for(current) => {
                let again = self.model.old.iter().any(|(owner, old)| owner == key && *old == version);
                ensure!(!again, "{what} returned a version that the key had before, {version:?}");
                self.model.old.push((key.clone(), version));
                self.model.records.insert(key.clone(), Stored { record, version, written: (begun, ended) });
                Ok(())
            }
            Err(StorageError::Conflict) if !when.holds_for(current) => Ok(()),
            other => Err(Stop::failed(format_args!("{what} is {}", other.show()))),
        }
    }

    async fn delete(
        &mut self,
        storage: &dyn TokenStorage,
        key: &TokenKey,
        only: Option<Version>,
        step: usize,
    ) -> PropertyResult {
        let begun = self.on.now();
        let removed = storage.delete(key, only).await?;
        let current = self.current(key, begun, self.on.now())?.map(|stored| stored.version);
        let holds = current.is_some_and(|current| only.is_none_or(|only| only == current));
        let what = format!("{} while {}", Call::delete(key, only), stored_is(current));
        ensure_eq!(removed, holds, "{}: {what}", self.place(step));
        if holds {
            self.model.records.remove(key);
        }
        Ok(())
    }

    /// Reads a key, and compares the whole record with the model.
    async fn check(&mut self, storage: &dyn TokenStorage, key: &TokenKey, step: usize) -> PropertyResult {
        let begun = self.on.now();
        let found = storage.get(key).await?;
        let ended = self.on.now();
        let wanted = self.current(key, begun, ended)?;
        let what = format!("{}: {}", self.place(step), Call::get(key));
        let (found, wanted) = match (found, wanted) {
            (None, None) => return Ok(()),
            (Some(found), Some(wanted)) => (found, wanted),
            (found, wanted) => {
                let wanted = wanted.map(|stored| stored.record);
                return Err(Stop::failed(format_args!("{what}: expected {}, found {}", wanted.show(), found.show())));
            }
        };
        ensure!(
            found.value.payload == wanted.record.payload,
            "{what}: the payload: {}",
            difference(&wanted.record.payload, &found.value.payload)
        );
        ensure_eq!(found.version, wanted.version, "{what}: the version");
        ensure_eq!(found.value.expires_at, wanted.record.expires_at, "{what}: expires_at");
        ensure_eq!(found.value.key_id, wanted.record.key_id, "{what}: key_id");
        let (left, lasts) = (found.value.retain_for, wanted.lasts());
        let right = left.is_some() == lasts.is_some();
        ensure!(right, "{what}: retain_for is {1}, but was written as {0}", lasts.show(), left.show());
        if let (Some(left), Some(lasts)) = (found.value.retain_for, wanted.lasts()) {
            let least = lasts.saturating_sub(ended - wanted.written.0 + SECOND + LATE);
            let most = lasts.saturating_sub(begun.saturating_sub(wanted.written.1)) + SECOND + LATE;
            ensure!(left >= least && left <= most.min(lasts), "{what}: retain_for is {left:?} of {lasts:?}");
        }
        Ok(())
    }

    /// Lists with a random filter, and compares every entry with the model.
    async fn list(&mut self, storage: &dyn TokenStorage, step: usize) -> PropertyResult {
        if !self.on.capabilities().listable {
            return Ok(());
        }
        let filter = self.filter();
        let limit = [0, 1, 2, 3, 100][self.random.below(5)];
        let begun = self.on.now();
        let mut listed = list_all(storage, &filter, limit).await?;
        listed.sort_by(|one, other| one.key.cmp(&other.key));
        let ended = self.on.now();
        let mut wanted = Vec::new();
        for key in self.keys.clone() {
            let stored = self.current(&key, begun, ended)?;
            wanted.extend(stored.map(|stored| Entry::new(key, stored.version, &stored.record)));
        }
        wanted.retain(|entry| filter.matches(entry));
        wanted.sort_by(|one, other| one.key.cmp(&other.key));
        are_listed(&listed, &wanted, &format!("{}: {}", self.place(step), pages(&filter, limit)))
    }

    fn filter(&mut self) -> Filter {
        let mut filter = Filter::everything();
        let [tenant, user, provider, _] = self.keys[self.random.below(self.keys.len())].parts().map(str::to_owned);
        match self.random.below(8) {
            0 => filter.tenant = Some(tenant),
            1 => filter.user = Some(user),
            2 => filter.provider = Some(provider),
            3 => (filter.tenant, filter.user) = (Some(tenant), Some(user)),
            4 => (filter.tenant, filter.user, filter.provider) = (Some(tenant), Some(user), Some(provider)),
            5 => {
                let seconds = [0, 1_001, 5_000, 4_102_444_800, 253_402_300_799][self.random.below(5)];
                filter.expiring_before = Some(Timestamp::from_unix_seconds(seconds));
            }
            _ => {}
        }
        filter
    }

    /// What the model contains for a key during a call.
    fn current(&self, key: &TokenKey, begun: Duration, ended: Duration) -> PropertyResult<Option<Stored>> {
        let Some(stored) = self.model.records.get(key) else { return Ok(None) };
        match stored.is_live(begun, ended) {
            Some(is_live) => Ok(is_live.then(|| stored.clone())),
            // The call was too slow to tell whether the retention has ended. No call should take that long.
            None => Err(Stop::failed("a call took so long that a retention of a minute ended in the meantime")),
        }
    }

    fn place(&self, step: usize) -> String {
        format!("history {}, step {step}", self.number)
    }
}

/// Describes what the model contains.
fn stored_is(current: Option<Version>) -> String {
    current.map_or_else(|| "nothing is stored".to_owned(), |version| format!("{version:?} is stored"))
}
