//! Checks that keys do not share records. If two of them do, the failure names both.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use oauth_dance_core::{Filter, Precondition, Record, StorageError, TokenKey, TokenStorage};

use crate::calls::Call;
use crate::keys::ACCEPTED;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::{Show as _, text};
use crate::tested_storage::{TestedStorage, list_all};

/// Writes a record under each key, in random order, and checks before each write that the key has none. Then it reads and
/// lists all records, and deletes them in the same order. Every key is thus observed to be absent while every other key has
/// a record. Every second write and delete has a condition. A key may be too long if all operations agree on that.
pub(crate) async fn have_separate_records(on: &TestedStorage, keys: &[TokenKey]) -> PropertyResult {
    let mut random = on.random();
    let mut order: Vec<_> = (0..keys.len()).collect();
    for index in (1..order.len()).rev() {
        order.swap(index, random.below(index + 1));
    }
    let group = Arc::new(Group { keys: keys.to_vec(), present: Mutex::default() });
    let each = |group: &Arc<Group>, indices: &[usize]| -> Vec<_> {
        indices.iter().map(|index| (Arc::clone(group), *index)).collect()
    };
    let written = on.concurrently(each(&group, &order), |storage, (group, index)| async move {
        group.is_absent(storage.as_ref(), index, "was never written").await?;
        Ok(group.create(storage.as_ref(), index).await?.then_some(index))
    });
    let written: Vec<_> = written.await?.into_iter().flatten().collect();
    let refused: Vec<_> = order.iter().copied().filter(|index| !written.contains(index)).collect();
    on.concurrently(each(&group, &refused), |storage, (group, index)| async move {
        group.is_absent(storage.as_ref(), index, "was rejected as too long").await
    })
    .await?;

    on.concurrently(each(&group, &written), |storage, (group, index)| async move {
        group.has_its_own(storage.as_ref(), index, "other keys were written").await
    })
    .await?;
    if on.capabilities().listable {
        let listed = list_all(on.storage().as_ref(), &Filter::everything(), 50).await?;
        let found: BTreeSet<_> = listed.iter().map(|entry| &entry.key).collect();
        let missing: Vec<_> = written.iter().map(|index| &keys[*index]).filter(|key| !found.contains(key)).collect();
        ensure!(missing.is_empty(), "list: these keys were written but are not listed: {}", missing.show());
        ensure_eq!(listed.len(), written.len(), "list: the number of entries");
    }
    on.concurrently(each(&group, &written), |storage, (group, index)| async move {
        group.has_its_own(storage.as_ref(), index, "other keys were deleted").await?;
        let only = storage.get(&group.keys[index]).await?.map(|found| found.version).filter(|_| index % 2 == 0);
        let delete = Call::delete(&group.keys[index], only);
        ensure_eq!(storage.delete(&group.keys[index], only).await?, true, "{delete} of a record");
        group.mark(index, false);
        group.is_absent(storage.as_ref(), index, "was deleted").await
    })
    .await?;
    Ok(())
}

/// Keys that are tried together. The payload of a record identifies its key.
struct Group {
    keys: Vec<TokenKey>,
    present: Mutex<BTreeSet<usize>>,
}

impl Group {
    fn mark(&self, index: usize, is_present: bool) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if is_present {
            present.insert(index);
        } else {
            present.remove(&index);
        }
    }

    /// Creates the record of a key, unless it is too long.
    async fn create(&self, storage: &dyn TokenStorage, index: usize) -> PropertyResult<bool> {
        let key = &self.keys[index];
        let record = Record::new(payload(index));
        let when = [Precondition::Absent, Precondition::Always][index % 2];
        let put = Call::put(key, &record, when);
        match storage.put(key, &record, when).await {
            Ok(_) => {
                self.mark(index, true);
                Ok(true)
            }
            Err(StorageError::Conflict) => {
                let found = storage.get(key).await?.map(|found| found.value.payload);
                let found = found
                    .map_or_else(|| "get is None".to_owned(), |found| format!("get returns {}", self.owner(&found)));
                Err(Stop::failed(format_args!("{put} is a Conflict, although the key has no record; {found}")))
            }
            Err(StorageError::KeyTooLong { limit, length, .. }) => {
                ensure!(length > limit, "{put}: {length} bytes are rejected as more than {limit}");
                let is_short = key.parts().iter().all(|part| part.len() <= 64) && key.len() <= ACCEPTED;
                ensure!(
                    !is_short,
                    "{put} is KeyTooLong, although every storage has to accept such a key of {} bytes",
                    key.len()
                );
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A key without a record has nothing to read or to delete.
    async fn is_absent(&self, storage: &dyn TokenStorage, index: usize, why: &str) -> PropertyResult {
        let key = &self.keys[index];
        match storage.get(key).await {
            Ok(None) | Err(StorageError::KeyTooLong { .. }) => {}
            Ok(Some(found)) => {
                let owner = self.owner(&found.value.payload);
                return Err(Stop::failed(format_args!(
                    "{} returned {owner}, but the key itself {why}",
                    Call::get(key)
                )));
            }
            Err(error) => return Err(error.into()),
        }
        match storage.delete(key, None).await {
            Ok(false) | Err(StorageError::KeyTooLong { .. }) => Ok(()),
            Ok(true) => {
                let lost = self.first_lost(storage).await?;
                let lost = lost.map_or_else(
                    || "no other key's record is missing".to_owned(),
                    |lost| format!("now {lost} is missing"),
                );
                let delete = Call::delete(key, None);
                Err(Stop::failed(format_args!("{delete} is Ok(true), although the key {why}; {lost}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The key has the record that was written for it.
    async fn has_its_own(&self, storage: &dyn TokenStorage, index: usize, since: &str) -> PropertyResult {
        let key = &self.keys[index];
        let found = storage.get(key).await?.map(|found| found.value.payload);
        let get = Call::get(key);
        match found {
            Some(found) if found == payload(index) => Ok(()),
            Some(found) => Err(Stop::failed(format_args!(
                "{get} after {since} returned {} instead of its own",
                self.owner(&found)
            ))),
            None => Err(Stop::failed(format_args!("{get} after {since} is None: its record is missing"))),
        }
    }

    /// The first record that should be stored and is not.
    async fn first_lost(&self, storage: &dyn TokenStorage) -> PropertyResult<Option<String>> {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for index in present {
            if storage.get(&self.keys[index]).await?.is_none() {
                return Ok(Some(self.owner(&payload(index))));
            }
        }
        Ok(None)
    }

    /// Describes the record with this payload by the key that it was written for.
    fn owner(&self, found: &[u8]) -> String {
        let index = (0..self.keys.len()).find(|index| payload(*index) == found);
        match index {
            Some(index) => format!("the record of ({})", self.keys[index].show()),
            None => format!("{}, which was written for no key", text(found)),
        }
    }
}

/// The payload of one key's record.
fn payload(index: usize) -> Vec<u8> {
    format!("record {index}").into_bytes()
}
