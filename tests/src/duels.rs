//! Two handles on one key at the same instant, thousands of times: what is wrong for less than a microsecond is found too.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oauth_dance_core::{Precondition, Record, StorageError, TokenKey, TokenStorage, Version};

use crate::calls::Call;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, kept_for, key};

/// How many rounds one property tries, if there is time.
const ROUNDS: usize = 1_500;
/// How long it tries.
const TIME: Duration = Duration::from_millis(300);
/// How many expired records one property tries.
const EXPIRED: usize = 300;
/// How often the two look for each other before they let others run.
const SPINS: usize = 1_000;

/// Two `put Absent` at the same instant: one creates the record, and the other is a `Conflict`.
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

/// Two `put Absent` at the same instant over an expired record: one creates the record, and the other is a `Conflict`.
pub async fn one_of_two_creations_over_an_expired_record_wins(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let mut duel = Duel::new(&on, "alice").await?;
    let short = on.units(1).await?;
    let rounds = if on.can_move_time().await? { EXPIRED } else { EXPIRED / 10 };
    let keys: Vec<_> = (0..rounds).map(|round| key(&format!("user{round}"))).collect::<PropertyResult<_>>()?;
    on.put_all(keys.iter().map(|key| (key.clone(), kept_for("before", short))).collect()).await?;
    on.pass(25).await?;
    for (round, key) in keys.into_iter().enumerate() {
        duel.key = key;
        let [one, other] = duel.writes([Precondition::Absent; 2]).await?;
        duel.one_won(round, "put Absent over an expired record", one, other).await?;
    }
    Ok(())
}

/// Two `put Version` of the same version at the same instant: one writes, and the other is a `Conflict`.
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

/// Two `put Version` of the bytes that are already stored, at the same instant: one writes, and the other is a `Conflict`.
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
        let both = format!("round {round}: two times put({key}, {version:?}) of the same bytes at once");
        ensure!(!(one && other), "{both} succeeded: the second one did not have the version that was stored");
        ensure!(one || other, "{both} were refused: one of them had the version that was stored");
    }
    Ok(())
}

/// Two deletes of a record at the same instant: one says that it removed it.
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
            format!("round {round}: two times {} at once are Ok({one}) and Ok({other})", Call::delete(&duel.key, only));
        ensure!(one != other, "{both}: exactly one must be Ok(true)");
        ensure_eq!(duel.handles[0].get(&duel.key).await?, None, "get after {both}");
    }
    Ok(())
}

/// A write and a delete of the same version at the same instant: one happens.
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
            "round {round}: put({}, {version:?}) {written_is} and delete of that version at once is Ok({deleted})",
            duel.key.show()
        );
        ensure!(written != deleted, "{both}: exactly one must succeed");
        let is_there = duel.handles[0].get(&duel.key).await?.is_some();
        ensure!(
            is_there == written,
            "{both}, and afterwards the record is {}",
            if is_there { "there" } else { "gone" }
        );
    }
    Ok(())
}

/// A conditional write and an unconditional one at the same instant: the unconditional one is not lost.
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
            "round {round}: {} after put {version:?} ({}) and put Always (succeeded) at once: the version",
            Call::get(&duel.key),
            if conditional { "succeeded" } else { "a Conflict" }
        );
    }
    Ok(())
}

/// Writes of two keys at the same instant are both there.
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
                "round {round}: get({}) after puts of two keys at once",
                key.show()
            );
        }
    }
    Ok(())
}

/// A write of one key and a delete of another at the same instant: both happen.
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
            "round {round}: {} and {} at once",
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
pub async fn two_writes_at_once_have_two_versions(on: Arc<TestedStorage>) -> PropertyResult {
    let duel = Duel::new(&on, "alice").await?;
    for round in on.rounds(ROUNDS, TIME).await? {
        let [one, other] = duel.writes([Precondition::Always; 2]).await?;
        let (one, other) = (one?, other?);
        let key = duel.key.show();
        ensure!(one != other, "round {round}: two times put({key}, Always) at once both returned {one:?}");
    }
    Ok(())
}

/// Keys that a storage may keep together with that of the duel.
fn neighbours() -> PropertyResult<[TokenKey; 4]> {
    let mine = key("alice")?;
    Ok([key("bob")?, TokenKey::new("google", "alice")?, mine.clone().with_account("work")?, mine.with_tenant("acme")?])
}

/// Two handles on one key.
struct Duel {
    handles: Vec<Arc<dyn TokenStorage>>,
    key: TokenKey,
}

impl Duel {
    async fn new(on: &TestedStorage, user: &str) -> PropertyResult<Self> {
        Ok(Self { handles: on.handles(2).await?, key: key(user)? })
    }

    /// Two calls that begin at the same instant, on two threads if there are two.
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
        let there = Arc::new(AtomicUsize::new(0));
        let (storage, key, barrier) = (Arc::clone(&self.handles[1]), self.key.clone(), Arc::clone(&there));
        let second = tokio::spawn(async move {
            meet(&barrier).await;
            other(storage, key).await
        });
        let (storage, key) = (Arc::clone(&self.handles[0]), self.key.clone());
        let first = tokio::spawn(async move {
            meet(&there).await;
            one(storage, key).await
        });
        Ok([first.await?, second.await?])
    }

    /// Two writes, whose payloads say which is which.
    async fn writes(&self, when: [Precondition; 2]) -> PropertyResult<[Result<Version, StorageError>; 2]> {
        let [first, second] = when;
        self.at_once(
            move |storage, key| async move { storage.put(&key, &Record::new("one"), first).await },
            move |storage, key| async move { storage.put(&key, &Record::new("other"), second).await },
        )
        .await
    }

    /// One of two writes has succeeded, and its record is there.
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
            // A storage that is too busy has changed nothing.
            (Err(error), _) | (_, Err(error)) if error.is_retryable() => return Ok(()),
            _ => {
                let answers = format_args!("{} and {}", one.show(), other.show()).to_string();
                let key = self.key.show();
                return Err(Stop::failed(format_args!(
                    "round {round}: two times {what} of ({key}) at once: {answers}"
                )));
            }
        };
        let found = self.handles[0].get(&self.key).await?.map(|found| (found.value, found.version));
        let wanted = (Record::new(version.0), version.1);
        ensure_eq!(
            found,
            Some(wanted),
            "round {round}: {} after two {what} at once, of which one succeeded",
            Call::get(&self.key)
        );
        Ok(())
    }
}

/// Whether a write succeeded or met another one.
fn won(written: Result<Version, StorageError>) -> PropertyResult<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(StorageError::Conflict) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the other one: first on the spot, and if it has no thread of its own, by letting it run.
async fn meet(there: &AtomicUsize) {
    there.fetch_add(1, Ordering::SeqCst);
    let mut spins = 0;
    while there.load(Ordering::SeqCst) < 2 {
        spins += 1;
        if spins % SPINS == 0 {
            tokio::task::yield_now().await;
        } else {
            std::hint::spin_loop();
        }
    }
}
