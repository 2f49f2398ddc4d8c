//! Flaws that confuse keys in some calls only, or one call with another.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version,
    Versioned,
};
use tokio::sync::{oneshot, watch};

use super::{Notes, Read, Write, flaws, pause};

flaws! {
    HashesKeysWithCrc(()) caught by long_keys_work_or_are_refused {
        async fn get(&self, key: &TokenKey) -> Read {
            self.server.get(&hashed(key)).await
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            self.server.put(&hashed(key), record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            self.server.delete(&hashed(key), only).await
        }

        async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
            Err(StorageError::Unsupported("listing"))
        }

        fn capabilities(&self) -> Capabilities {
            self.server.capabilities().with_listable(false)
        }
    }

    // An unconditional write tries an UPDATE first, whose condition ignores case.
    UpdatesAnotherCase(()) caught by case_spaces_and_accents_keep_keys_apart {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let other = in_lower_case(key);
            let missing = when == Precondition::Always && matches!(self.server.get(key).await, Ok(None));
            if missing && self.server.get(&other).await?.is_some() {
                return self.server.put(&other, record, when).await;
            }
            self.server.put(key, record, when).await
        }
    }

    // After a conditional delete, an unconditional one cleans up, with a condition that ignores case.
    DeletesAnotherCase(()) caught by case_spaces_and_accents_keep_keys_apart {
        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            let removed = self.server.delete(key, only).await?;
            if removed && only.is_some() {
                self.server.delete(&in_lower_case(key), None).await?;
            }
            Ok(removed)
        }
    }

    // Removes the oldest account of a user who has more than fifty.
    EvictsTheOldestAccount(Notes<String, VecDeque<TokenKey>>) caught by no_record_is_evicted_for_another {
        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            let oldest = {
                let mut users = self.own.lock().unwrap();
                let keys = users.entry(key.user().to_owned()).or_default();
                keys.retain(|other| other != key);
                keys.push_back(key.clone());
                if keys.len() > 50 { keys.pop_front() } else { None }
            };
            if let Some(oldest) = oldest {
                self.server.delete(&oldest, None).await?;
            }
            Ok(version)
        }
    }

    // The tenant is a variable of the connection, and all calls use the same connection.
    SetsTheTenantOfTheConnection(Mutex<String>) caught by reads_at_once_return_their_own_records {
        async fn get(&self, key: &TokenKey) -> Read {
            *self.own.lock().unwrap() = key.tenant().unwrap_or_default().to_owned();
            tokio::task::yield_now().await;
            let tenant = self.own.lock().unwrap().clone();
            let [_, user, provider, account] = key.parts();
            self.server.get(&TokenKey::from_parts(&tenant, user, provider, account).unwrap()).await
        }
    }

    // Reads at the same time share a statement, and the rows are matched with the keys by their number.
    MatchesRowsByNumber(Mutex<Vec<(TokenKey, oneshot::Sender<Read>)>>) caught by reads_at_once_return_their_own_records {
        async fn get(&self, key: &TokenKey) -> Read {
            let (sender, receiver) = oneshot::channel();
            let is_first = {
                let mut reads = self.own.lock().unwrap();
                reads.push((key.clone(), sender));
                reads.len() == 1
            };
            if is_first {
                pause().await;
                let reads = std::mem::take(&mut *self.own.lock().unwrap());
                let mut rows = Vec::new();
                for (key, _) in &reads {
                    rows.extend(self.server.get(key).await?);
                }
                let mut rows = rows.into_iter();
                for (_, sender) in reads {
                    let _ = sender.send(Ok(rows.next()));
                }
            }
            receiver.await.unwrap_or_else(|_| Err(StorageError::unavailable("the statement failed")))
        }
    }

    // The reply to a dropped read stays on the connection, and the next read takes it.
    TakesTheReplyOfADroppedRead(Mutex<VecDeque<oneshot::Receiver<Read>>>) caught by dropped_calls_leave_the_storage_usable {
        async fn get(&self, key: &TokenKey) -> Read {
            let (sender, receiver) = oneshot::channel();
            let (server, key) = (self.server.clone(), key.clone());
            self.own.lock().unwrap().push_back(receiver);
            tokio::spawn(async move { sender.send(server.get(&key).await) });
            tokio::task::yield_now().await;
            let next = self.own.lock().unwrap().pop_front();
            next.unwrap().await.unwrap_or_else(|_| Err(StorageError::unavailable("connection closed")))
        }
    }

    // A read locks its key against writes, and a dropped one never releases the lock.
    DroppedReadsLockTheirKey(()) caught by dropped_calls_leave_the_storage_usable {
        async fn get(&self, key: &TokenKey) -> Read {
            let readers = self.server.shared::<Notes<TokenKey, usize>>();
            *readers.lock().unwrap().entry(key.clone()).or_default() += 1;
            let found = self.server.get(key).await;
            *readers.lock().unwrap().entry(key.clone()).or_default() -= 1;
            found
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let readers = self.server.shared::<Notes<TokenKey, usize>>();
            while readers.lock().unwrap().get(key).is_some_and(|readers| *readers > 0) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.server.put(key, record, when).await
        }
    }

    // A read waits for the result of one in progress, even if a write came after that one began.
    SharesReadsInProgress(Mutex<HashMap<TokenKey, Progress>>) caught by reads_do_not_go_back and histories_are_linearizable {
        async fn get(&self, key: &TokenKey) -> Read {
            let in_progress = self.own.lock().unwrap().get(key).cloned();
            if let Some(mut in_progress) = in_progress
                && let Ok(found) = in_progress.wait_for(Option::is_some).await
            {
                return Ok(found.clone().flatten());
            }
            let (sender, receiver) = watch::channel(None);
            self.own.lock().unwrap().insert(key.clone(), receiver);
            let found = self.server.get(key).await;
            pause().await;
            self.own.lock().unwrap().remove(key);
            if let Ok(found) = &found {
                let _ = sender.send(Some(found.clone()));
            }
            found
        }
    }
}

/// The result of a read, once it is there.
type Progress = watch::Receiver<Option<Option<Versioned<Record>>>>;

fn hashed(key: &TokenKey) -> TokenKey {
    TokenKey::new("any", crc32(&key.to_bytes()).to_string()).unwrap()
}

fn in_lower_case(key: &TokenKey) -> TokenKey {
    let [tenant, user, provider, account] = key.parts();
    TokenKey::from_parts(tenant.to_lowercase(), user, provider, account.to_lowercase()).unwrap()
}

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
