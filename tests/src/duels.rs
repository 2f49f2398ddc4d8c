//! Two calls on two handles at the same instant, more than a thousand times, to find even the shortest race conditions.
//!
//! Two threads meet at a barrier and then make one call each. On a fast storage, such as one in memory, this finds gaps of
//! less than a microsecond between a check and the write that depends on it. [`races`](crate::races) tests many tasks.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage, Version};

use crate::calls::Call;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, retained_for};

/// How many rounds a property tries, as time permits.
const ROUNDS: usize = 1_500;
/// How long it tries.
const TIME: Duration = Duration::from_millis(300);
/// How many expired records a property tries.
const EXPIRED: usize = 300;
/// How often a thread at the barrier spins before it yields.
const SPINS: usize = 1_000;

/// Of two `put` calls with `Absent` at the same instant, one creates the record, and the other is a `Conflict`.
///
/// Two threads start each call together, more than a thousand times on a fast storage. This finds gaps of less than a
/// microsecond between a check and a write.
pub async fn one_of_two_creations_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let duel = Duel::new(&on, "alice").await?;
    for round in on.rounds(ROUNDS, TIME).await? {
        duel.handles[0].delete(&duel.key, None).await?;
        let [one, other] = duel.writes([Precondition::Absent; 2]).await?;
        duel.one_won(round, "put Absent", one, other).await?;
    }
    Ok(())
}

/// Of two `put` calls with `Absent` over an expired record at the same instant, one creates the record, and the other
/// is a `Conflict`.
///
/// A storage that first removes the expired record and then inserts can remove the record of the other call.
pub async fn one_of_two_creations_over_an_expired_record_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let mut duel = Duel::new(&on, "alice").await?;
    let short = on.units(1).await?;
    let rounds = if on.can_move_time().await? { EXPIRED } else { EXPIRED / 10 };
    let keys: Vec<_> = (0..rounds).map(|round| key(&format!("user{round}"))).collect::<PropertyResult<_>>()?;
    on.put_all(keys.iter().map(|key| (key.clone(), retained_for("before", short))).collect()).await?;
    on.pass(25).await?;
    for (round, key) in keys.into_iter().enumerate() {
        duel.key = key;
        let [one, other] = duel.writes([Precondition::Absent; 2]).await?;
        duel.one_won(round, "put Absent over an expired record", one, other).await?;
    }
    Ok(())
}

/// Of two `put` calls with the same version at the same instant, one writes, and the other is a `Conflict`.
///
/// Two requests that claim the same refresh do this.
pub async fn one_of_two_updates_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let duel = Duel::new(&on, "alice").await?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let version = duel.handles[0].put(&duel.key, &Record::new("before"), Precondition::Always).await?;
        let [one, other] = duel.writes([Precondition::Version(version); 2]).await?;
        duel.one_won(round, "put Version", one, other).await?;
    }
    Ok(())
}

/// Of two
/// `put` calls with the same version and the bytes that are already stored, at the same instant, one writes, and the other is a `Conflict`.
///
/// Some databases do not lock a row that an update leaves as it is. The new version makes it a change.
pub async fn one_of_two_updates_without_a_change_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let duel = Duel::new(&on, "alice").await?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let version = duel.handles[0].put(&duel.key, &Record::new("same"), Precondition::Always).await?;
        let write = move |storage: Arc<dyn TokenStorage>, key: TokenKey| async move {
            won(storage.put(&key, &Record::new("same"), Precondition::Version(version)).await)
        };
        let [one, other] = duel.at_once(write, write).await?;
        let (one, other) = (one?, other?);
        let key = duel.key.show();
        let both = format!("round {round}: two concurrent put({key}, {version:?}) of the same bytes");
        ensure!(!(one && other), "{both} both succeeded, although the first one changed the version");
        ensure!(one || other, "{both} were both rejected, although that version was stored");
    }
    Ok(())
}

/// Of two deletes of a record at the same instant, exactly one returns `Ok(true)`.
///
/// Tried with and without the version as a condition.
pub async fn one_of_two_deletes_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let duel = Duel::new(&on, "alice").await?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let version = duel.handles[0].put(&duel.key, &Record::new("before"), Precondition::Always).await?;
        let only = (round % 2 == 0).then_some(version);
        let delete =
            move |storage: Arc<dyn TokenStorage>, key: TokenKey| async move { storage.delete(&key, only).await };
        let [one, other] = duel.at_once(delete, delete).await?;
        let (one, other) = (one?, other?);
        let both =
            format!("round {round}: two concurrent {} are Ok({one}) and Ok({other})", Call::delete(&duel.key, only));
        ensure!(one != other, "{both}: exactly one must be Ok(true)");
        ensure_eq!(duel.handles[0].get(&duel.key).await?, None, "get after {both}");
    }
    Ok(())
}

/// Of a write and a delete of the same version at the same instant, exactly one takes effect.
///
/// The state afterwards has to agree with the results of both calls.
pub async fn an_update_or_a_delete_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let duel = Duel::new(&on, "alice").await?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let version = duel.handles[0].put(&duel.key, &Record::new("before"), Precondition::Always).await?;
        let write = move |storage: Arc<dyn TokenStorage>, key: TokenKey| async move {
            won(storage.put(&key, &Record::new("after"), Precondition::Version(version)).await)
        };
        let delete = move |storage: Arc<dyn TokenStorage>, key: TokenKey| async move {
            storage.delete(&key, Some(version)).await.map_err(Stop::from)
        };
        let [written, deleted] = duel.at_once(write, delete).await?;
        let (written, deleted) = (written?, deleted?);
        let written_is = if written { "succeeded" } else { "is a Conflict" };
        let both = format!(
            "round {round}: put({}, {version:?}) {written_is} and a concurrent delete of that version is Ok({deleted})",
            duel.key.show()
        );
        ensure!(written != deleted, "{both}: exactly one must succeed");
        let is_there = duel.handles[0].get(&duel.key).await?.is_some();
        ensure!(
            is_there == written,
            "{both}, and afterwards the record is {}",
            if is_there { "stored" } else { "not stored" }
        );
    }
    Ok(())
}

/// A conditional write and an unconditional one at the same instant do not lose the unconditional one.
///
/// The conditional write may come first and be overwritten, or come second and conflict. It must not win over a login.
pub async fn an_update_does_not_undo_a_write(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let duel = Duel::new(&on, "alice").await?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let version = duel.handles[0].put(&duel.key, &Record::new("before"), Precondition::Always).await?;
        let [conditional, always] = duel.writes([Precondition::Version(version), Precondition::Always]).await?;
        let always = always?;
        let conditional = won(conditional)?;
        let found = duel.handles[0].get(&duel.key).await?.map(|found| found.version);
        ensure_eq!(
            found,
            Some(always),
            "round {round}: {} after put {version:?} ({}) and a concurrent put Always (succeeded): the version",
            Call::get(&duel.key),
            if conditional { "succeeded" } else { "a Conflict" }
        );
    }
    Ok(())
}

/// Writes of two keys at the same instant are both stored.
///
/// The keys share their user, their provider or their tenant. A storage that has several records in one document loses
/// one of the writes unless it compares and swaps the document.
pub async fn simultaneous_writes_of_two_keys_both_persist(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let duel = Duel::new(&on, "alice").await?;
    let others = neighbours()?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let other = others[round % others.len()].clone();
        let record = Record::new(format!("round {round}"));
        let (mine, theirs, bob) = (record.clone(), record.clone(), other.clone());
        let [one, two] = duel
            .at_once(
                |storage, key| async move { storage.put(&key, &mine, Precondition::Always).await },
                |storage, _| async move { storage.put(&bob, &theirs, Precondition::Always).await },
            )
            .await?;
        for (key, written) in [(&duel.key, one?), (&other, two?)] {
            let found = duel.handles[0].get(key).await?.map(|found| (found.value, found.version));
            ensure_eq!(
                found,
                Some((record.clone(), written)),
                "round {round}: get({}) after concurrent puts of two keys",
                key.show()
            );
        }
    }
    Ok(())
}

/// A write of one key and a delete of another at the same instant both take effect.
///
/// A storage that removes an empty container, such as the document of a user, can remove the new record with it.
pub async fn a_delete_does_not_undo_a_write_of_another_key(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let duel = Duel::new(&on, "alice").await?;
    let others = neighbours()?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let other = others[round % others.len()].clone();
        duel.handles[0].put(&other, &Record::new("x"), Precondition::Always).await?;
        let record = Record::new(format!("round {round}"));
        let (mine, target) = (record.clone(), other.clone());
        let [written, deleted] = duel
            .at_once(
                |storage, key| async move { storage.put(&key, &mine, Precondition::Always).await.map(Some) },
                |storage, _| async move { storage.delete(&target, None).await.map(|_| None) },
            )
            .await?;
        let (written, _) = (written?, deleted?);
        let both = format!(
            "round {round}: {} and a concurrent {}",
            Call::put(&duel.key, &record, Precondition::Always),
            Call::delete(&other, None)
        );
        let found = duel.handles[0].get(&duel.key).await?.map(|found| found.version);
        ensure_eq!(found, written, "{} after {both}: the version", Call::get(&duel.key));
        ensure_eq!(duel.handles[0].get(&other).await?, None, "{} after {both}", Call::get(&other));
    }
    Ok(())
}

/// Two writes of one key at the same instant have two versions.
///
/// A version that is a timestamp, or a counter that is read and then incremented, fails this.
pub async fn two_writes_at_once_have_two_versions(on: Arc<TestedStorage>) -> PropertyResult {
    let duel = Duel::new(&on, "alice").await?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let [one, other] = duel.writes([Precondition::Always; 2]).await?;
        let (one, other) = (one?, other?);
        let key = duel.key.show();
        ensure!(one != other, "round {round}: two concurrent put({key}, Always) returned the same version, {one:?}");
    }
    Ok(())
}

/// Keys that a storage may store together with that of the duel.
fn neighbours() -> PropertyResult<[TokenKey; 4]> {
    let mine = key("alice")?;
    Ok([key("bob")?, TokenKey::new("google", "alice")?, mine.clone().with_account("work")?, mine.with_tenant("acme")?])
}

/// After two unconditional writes at the same instant through one handle, `get` returns the record that is stored, and not
/// the other one from a cache.
///
/// Only for storages that declare a `max_age`. A cache that stores what it wrote when the reply arrives fails this, because
/// replies may arrive in another order than the writes took effect.
pub async fn a_cache_shows_the_last_of_two_writes(on: Arc<TestedStorage>) -> PropertyResult {
    let max_age = on.capabilities().max_age.ok_or_else(|| Stop::not_applicable("no max_age is declared"))?;
    let mut duel = Duel::new(&on, "alice").await?;
    duel.handles[1] = Arc::clone(&duel.handles[0]);
    let mut shown = Vec::new();
    for round in on.rounds(ROUNDS, TIME).await? {
        duel.key = key(&format!("user{round}"))?;
        for written in duel.writes([Precondition::Always; 2]).await? {
            written?;
        }
        shown.push((duel.key.clone(), duel.handles[0].get(&duel.key).await?.map(|found| found.version)));
    }
    on.set_permit(None);
    tokio::time::sleep(max_age).await;
    for (key, version) in shown {
        let found = duel.handles[0].get(&key).await?.map(|found| found.version);
        let get = Call::get(&key);
        ensure_eq!(
            found,
            version,
            "{get} {max_age:?} after two put Always at once: the version, compared with an earlier get"
        );
    }
    Ok(())
}

/// Two handles that call at the same instant, usually on one key.
struct Duel {
    handles: Vec<Arc<dyn TokenStorage>>,
    key: TokenKey,
    /// How many there were. In every fourth one, both calls use one handle, in which they may share more.
    count: AtomicUsize,
}

impl Duel {
    async fn new(on: &TestedStorage, user: &str) -> PropertyResult<Self> {
        Ok(Self { handles: on.patient_handles(2).await?, key: key(user)?, count: AtomicUsize::new(0) })
    }

    /// Makes two calls at the same instant, on two threads if the runtime has them free.
    async fn at_once<T, F, G>(
        &self,
        one: impl FnOnce(Arc<dyn TokenStorage>, TokenKey) -> F + Send + 'static,
        other: impl FnOnce(Arc<dyn TokenStorage>, TokenKey) -> G + Send + 'static,
    ) -> PropertyResult<[T; 2]>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        G: Future<Output = T> + Send + 'static,
    {
        let arrived = Arc::new(AtomicUsize::new(0));
        let second = usize::from(self.count.fetch_add(1, Ordering::SeqCst) % 4 != 3);
        let (storage, key, barrier) = (Arc::clone(&self.handles[second]), self.key.clone(), Arc::clone(&arrived));
        let second = tokio::spawn(async move {
            meet(&barrier).await;
            other(storage, key).await
        });
        let (storage, key) = (Arc::clone(&self.handles[0]), self.key.clone());
        let first = tokio::spawn(async move {
            meet(&arrived).await;
            one(storage, key).await
        });
        Ok([first.await?, second.await?])
    }

    /// Two writes with different payloads.
    async fn writes(&self, when: [Precondition; 2]) -> PropertyResult<[Result<Version, StorageError>; 2]> {
        let [first, second] = when;
        self.at_once(
            move |storage, key| async move { storage.put(&key, &Record::new("one"), first).await },
            move |storage, key| async move { storage.put(&key, &Record::new("other"), second).await },
        )
        .await
    }

    /// Exactly one of two writes has succeeded, and its record is stored.
    async fn one_won(
        &self,
        round: usize,
        what: &str,
        one: Result<Version, StorageError>,
        other: Result<Version, StorageError>,
    ) -> PropertyResult {
        let version = match (&one, &other) {
            (Ok(version), Err(StorageError::Conflict)) => ("one", *version),
            (Err(StorageError::Conflict), Ok(version)) => ("other", *version),
            // A storage that was too busy has changed nothing.
            (Err(error), _) | (_, Err(error)) if error.is_retryable() => return Ok(()),
            _ => {
                let results = format_args!("{} and {}", one.show(), other.show()).to_string();
                let key = self.key.show();
                return Err(Stop::failed(format_args!(
                    "round {round}: two concurrent {what} of ({key}) are {results}"
                )));
            }
        };
        let found = self.handles[0].get(&self.key).await?.map(|found| (found.value, found.version));
        let wanted = (Record::new(version.0), version.1);
        ensure_eq!(
            found,
            Some(wanted),
            "round {round}: {} after two concurrent {what}, of which one succeeded",
            Call::get(&self.key)
        );
        Ok(())
    }
}

/// Whether a write succeeded. `false` is a conflict.
fn won(written: Result<Version, StorageError>) -> PropertyResult<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(StorageError::Conflict) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits at the barrier until both tasks have arrived. It spins, and yields now and then in case the other task needs this
/// thread.
async fn meet(arrived: &AtomicUsize) {
    arrived.fetch_add(1, Ordering::SeqCst);
    let mut spins = 0;
    while arrived.load(Ordering::SeqCst) < 2 {
        spins += 1;
        if spins % SPINS == 0 {
            tokio::task::yield_now().await;
        } else {
            std::hint::spin_loop();
        }
    }
}
