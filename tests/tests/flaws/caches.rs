//! Caches that declare a `max_age` and exceed it.

use std::time::{Duration, Instant};

use oauth_dance_core::{
    Capabilities, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version, Versioned,
};

use super::{Notes, Read, Write, delete_and_forget, flaws, pause, put_and_forget};

const MAX_AGE: Duration = Duration::from_millis(20);

fn declared(capabilities: Capabilities) -> Capabilities {
    capabilities.with_max_age(MAX_AGE)
}

flaws! {
    CachesWithoutExpiry(Notes<TokenKey, Versioned<Record>>) caught by cached_records_are_no_older_than_declared {
        async fn get(&self, key: &TokenKey) -> Read {
            let cached = self.own.lock().unwrap().get(key).cloned();
            if cached.is_some() {
                return Ok(cached);
            }
            let found = self.server.get(key).await?;
            if let Some(found) = &found {
                self.own.lock().unwrap().insert(key.clone(), found.clone());
            }
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            put_and_forget(&self.server, &self.own, key, record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            delete_and_forget(&self.server, &self.own, key, only).await
        }

        fn capabilities(&self) -> Capabilities {
            declared(self.server.capabilities())
        }
    }

    CachesAbsences(Notes<TokenKey, ()>) caught by cached_records_are_no_older_than_declared {
        async fn get(&self, key: &TokenKey) -> Read {
            if self.own.lock().unwrap().contains_key(key) {
                return Ok(None);
            }
            let found = self.server.get(key).await?;
            if found.is_none() {
                self.own.lock().unwrap().insert(key.clone(), ());
            }
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            put_and_forget(&self.server, &self.own, key, record, when).await
        }

        fn capabilities(&self) -> Capabilities {
            declared(self.server.capabilities())
        }
    }

    // A read that a write overtakes caches the old record.
    CachesWhatAWriteReplaced(Notes<TokenKey, Versioned<Record>>) caught by histories_are_linearizable {
        async fn get(&self, key: &TokenKey) -> Read {
            let cached = self.own.lock().unwrap().get(key).cloned();
            if cached.is_some() {
                return Ok(cached);
            }
            let found = self.server.get(key).await?;
            pause().await;
            if let Some(found) = &found {
                self.own.lock().unwrap().insert(key.clone(), found.clone());
            }
            Ok(found)
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            put_and_forget(&self.server, &self.own, key, record, when).await
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            delete_and_forget(&self.server, &self.own, key, only).await
        }

        fn capabilities(&self) -> Capabilities {
            declared(self.server.capabilities())
        }
    }

    // Caches what it wrote once the answer is there: of two writes, the one whose answer came last.
    CachesInTheOrderOfAnswers(Notes<TokenKey, (Versioned<Record>, Instant)>) caught by a_cache_shows_the_last_of_two_writes {
        async fn get(&self, key: &TokenKey) -> Read {
            let cached = self.own.lock().unwrap().get(key).filter(|(_, since)| since.elapsed() < MAX_AGE).cloned();
            match cached {
                Some((found, _)) => Ok(Some(found)),
                None => self.server.get(key).await,
            }
        }

        async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
            let version = self.server.put(key, record, when).await?;
            pause().await;
            let cached = (Versioned::new(record.clone(), version), Instant::now());
            self.own.lock().unwrap().insert(key.clone(), cached);
            Ok(version)
        }

        async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
            delete_and_forget(&self.server, &self.own, key, only).await
        }

        fn capabilities(&self) -> Capabilities {
            declared(self.server.capabilities())
        }
    }
}
