//! Outcomes of spent attempts, stored where every process of the application can read them.
//!
//! A cookie can be sent twice, so a cookie alone cannot make an attempt work once. Spending an attempt therefore creates a
//! record, on the condition that there is none. Exactly one callback succeeds, and its code is redeemed; the others wait for
//! the outcome and repeat it. The records expire after all cookies of their attempts, and each login purges some of them.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    KeyRing, Precondition, Record, StorageError, Token, TokenKey, TokenStorage, Tokens, Version, random_bytes,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::outcome::LoginOutcome;
use crate::error::LoginError;
use crate::login::attempt::{self, Attempt};

/// Longer than the attempt's cookie can be used, whatever the difference between two machines' clocks.
const RETENTION: Duration = Duration::from_secs(2 * 660);
/// How long a callback may take in addition to the request that redeems its code.
const MARGIN: Duration = Duration::from_secs(10);
const FIRST_POLL: Duration = Duration::from_millis(20);
const LONGEST_POLL: Duration = Duration::from_millis(500);
/// How many writes of an outcome are tried.
const MAX_WRITES: u32 = 6;
const PURPOSE: &str = "oauth-dance spent attempt";

/// Spends each attempt once, and stores its outcome for callbacks that repeat it.
pub(crate) struct SpentAttempts {
    storage: Arc<dyn TokenStorage>,
    /// Tokens that were stored in the storage of one request, for a callback that repeats it.
    handed_on: Tokens,
    keys: KeyRing,
    /// How long a repeated callback waits for the first one.
    timeout: Duration,
}

/// The proof that this callback is the first one of its attempt.
pub(crate) struct Spent {
    key: TokenKey,
    version: Version,
    note: Note,
}

/// The sealed content of an attempt's record.
#[derive(Serialize, Deserialize)]
struct Note {
    /// Identifies the callback that spent the attempt.
    by: u64,
    /// `None` until that callback has ended.
    outcome: Option<LoginOutcome>,
}

impl SpentAttempts {
    pub(crate) fn new(storage: Arc<dyn TokenStorage>, keys: KeyRing, request_timeout: Duration) -> Self {
        let handed_on = Tokens::sealed(Arc::clone(&storage), keys.clone()).with_retention(RETENTION);
        Self { storage, handed_on, keys, timeout: request_timeout + MARGIN }
    }

    /// Spends an attempt. Of all its callbacks, in every process that shares the storage, exactly one gets `Some`.
    ///
    /// This also proves that the storage accepts writes before the code is redeemed.
    pub(crate) async fn spend(&self, attempt: &Attempt, is_in_time: bool) -> Result<Option<Spent>, LoginError> {
        let key = key_of(attempt)?;
        if attempt.is_spent {
            return Ok(None);
        }
        if !is_in_time {
            return if self.read(&key).await?.is_some() { Ok(None) } else { Err(LoginError::Expired) };
        }
        let note = Note { by: u64::from_be_bytes(random_bytes()), outcome: None };
        let version = match self.storage.put(&key, &self.close(&key, &note), Precondition::Absent).await {
            Ok(version) => version,
            Err(StorageError::Conflict) => return Ok(None),
            // The write was interrupted, but may have been applied.
            Err(error @ StorageError::Ambiguous { .. }) => match self.read(&key).await? {
                Some((Ok(found), version, _)) if found.by == note.by => version,
                Some(_) => return Ok(None),
                None => return Err(storage_failed(error)),
            },
            Err(error) => return Err(storage_failed(error)),
        };
        self.purge();
        Ok(Some(Spent { key, version, note }))
    }

    /// Whether a callback has spent the attempt.
    pub(crate) async fn is_spent(&self, attempt: &Attempt) -> Result<bool, LoginError> {
        Ok(attempt.is_spent || self.read(&key_of(attempt)?).await?.is_some())
    }

    /// Stores the outcome of a callback. If the storage is unavailable for longer than this tries, a repeated callback times
    /// out with an error.
    pub(crate) async fn end(&self, spent: Spent, outcome: LoginOutcome) {
        let Spent { key, mut version, mut note } = spent;
        note.outcome = Some(outcome);
        let record = self.close(&key, &note);
        for tries in 0..MAX_WRITES {
            sleep(FIRST_POLL * (4_u32.pow(tries) - 1)).await;
            match self.storage.put(&key, &record, Precondition::Version(version)).await {
                Ok(_) => return,
                // An earlier write was interrupted but applied, or the storage has lost the note.
                Err(StorageError::Conflict) => match self.read(&key).await {
                    Ok(Some((Ok(found), current, _))) if found.by == note.by && found.outcome.is_none() => {
                        version = current;
                    }
                    Ok(_) => return,
                    Err(_) => {}
                },
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outcome of a login was not stored");
                }
            }
        }
    }

    /// The outcome of an attempt that another callback has spent. Waits for that callback within its time limit.
    pub(crate) async fn outcome(&self, attempt: &Attempt) -> Result<LoginOutcome, LoginError> {
        let key = key_of(attempt)?;
        let give_up = Instant::now() + self.timeout;
        let mut pause = FIRST_POLL;
        loop {
            let Some((note, _, age)) = self.read(&key).await? else { return Err(LoginError::Spent) };
            let Ok(note) = note else { return Err(LoginError::Spent) };
            if let Some(outcome) = note.outcome {
                return Ok(outcome);
            }
            if age >= self.timeout || Instant::now() >= give_up {
                return Err(LoginError::Interrupted);
            }
            sleep(pause).await;
            pause = LONGEST_POLL.min(pause * 2);
        }
    }

    /// Stores a token for a callback that repeats this attempt.
    pub(crate) async fn hand_on(&self, attempt: &Attempt, token: &Token) -> Result<(), LoginError> {
        self.handed_on.put(&token_key_of(attempt)?, token, Precondition::Always).await?;
        Ok(())
    }

    /// The token that [`hand_on`](Self::hand_on) stored.
    pub(crate) async fn handed_on(&self, attempt: &Attempt) -> Result<Option<Token>, LoginError> {
        Ok(self.handed_on.get(&token_key_of(attempt)?).await?.map(|found| found.value))
    }

    /// The note of an attempt, with its version and its age by the storage's own clock. The inner error means that the note
    /// exists and cannot be read here: another release wrote it, or its key is missing.
    async fn read(&self, key: &TokenKey) -> Result<Option<(Result<Note, ()>, Version, Duration)>, LoginError> {
        let Some(found) = self.storage.get(key).await.map_err(storage_failed)? else { return Ok(None) };
        let plain = self.keys.open(PURPOSE, &key.to_bytes(), &found.value.payload);
        let note = plain.map_err(drop).and_then(|plain| serde_json::from_slice(&plain).map_err(drop));
        let age = RETENTION.saturating_sub(found.value.retain_for.unwrap_or(RETENTION));
        Ok(Some((note, found.version, age)))
    }

    fn close(&self, key: &TokenKey, note: &Note) -> Record {
        #[expect(clippy::expect_used, reason = "it is a plain struct of strings and numbers")]
        let plain = serde_json::to_vec(note).expect("a note is always JSON");
        Record::new(self.keys.seal(PURPOSE, &key.to_bytes(), &plain))
            .with_retain_for(Some(RETENTION))
            .with_key_id(Some(self.keys.primary_id()))
    }

    /// Purges expired records, so that an application which never purges does not fill its storage.
    fn purge(&self) {
        let storage = Arc::clone(&self.storage);
        tokio::spawn(async move {
            if let Err(error) = storage.purge(100).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "expired records were not purged");
            }
        });
    }
}

fn key_of(attempt: &Attempt) -> Result<TokenKey, LoginError> {
    Ok(TokenKey::for_attempt(&attempt.provider, attempt::fingerprint(&attempt.state))?)
}

fn token_key_of(attempt: &Attempt) -> Result<TokenKey, LoginError> {
    Ok(key_of(attempt)?.with_account("token")?)
}

fn storage_failed(error: StorageError) -> LoginError {
    LoginError::Storage(error.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use oauth_dance_core::{Clock, MemoryStorage, Timestamp};

    use super::super::attempt::tests::attempts;
    use super::*;

    fn spent(storage: &MemoryStorage, keys: &KeyRing) -> SpentAttempts {
        SpentAttempts::new(Arc::new(storage.clone()), keys.clone(), Duration::from_secs(20))
    }

    #[tokio::test]
    async fn an_attempt_is_spent_once_and_in_time() {
        let (storage, keys) = (MemoryStorage::new(), KeyRing::generate());
        let attempts = attempts().0;
        let attempt = Arc::new(attempts.start("p", "/".to_owned(), None));
        let tries: Vec<_> = (0..20)
            .map(|_| {
                let (process, attempt) = (spent(&storage, &keys), Arc::clone(&attempt));
                tokio::spawn(async move { process.spend(&attempt, true).await.unwrap().is_some() })
            })
            .collect();
        let mut won = 0;
        for spent in tries {
            won += u32::from(spent.await.unwrap());
        }
        assert_eq!(won, 1);

        let process = spent(&storage, &keys);
        assert!(process.spend(&attempt, false).await.unwrap().is_none(), "it was in time the first time");
        let late = attempts.start("p", "/".to_owned(), None);
        assert!(matches!(process.spend(&late, false).await, Err(LoginError::Expired)));
    }

    #[tokio::test]
    async fn the_wait_for_a_dead_callback_is_limited() {
        let (attempts, seconds) = attempts();
        let reading = Arc::clone(&seconds);
        let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
        let (storage, keys) = (MemoryStorage::new().with_clock(clock), KeyRing::generate());
        let attempt = attempts.start("p", "/".to_owned(), None);
        let mut process = spent(&storage, &keys);
        assert_eq!(process.timeout, Duration::from_secs(30));
        assert!(process.spend(&attempt, true).await.unwrap().is_some());
        // By this process's own clock, or at once if the storage's clock says that the time is up.
        process.timeout = Duration::from_millis(50);
        let outcome = process.outcome(&attempt).await;
        assert!(matches!(outcome, Err(LoginError::Interrupted)), "{outcome:?}");
        seconds.fetch_add(30, Ordering::SeqCst);
        let outcome = spent(&storage, &keys).outcome(&attempt).await;
        assert!(matches!(outcome, Err(LoginError::Interrupted)), "{outcome:?}");
    }

    #[tokio::test]
    async fn only_a_key_of_the_ring_reads_an_outcome() {
        let (storage, keys) = (MemoryStorage::new(), KeyRing::generate());
        let attempt = attempts().0.start("p", "/".to_owned(), None);
        let first = spent(&storage, &keys);
        let marker = first.spend(&attempt, true).await.unwrap().unwrap();
        first.end(marker, LoginOutcome::failed(&LoginError::Denied)).await;
        let found = first.outcome(&attempt).await.unwrap();
        assert!(matches!(found.into_error(), Some(LoginError::Denied)));
        let other = spent(&storage, &KeyRing::generate()).outcome(&attempt).await;
        assert!(matches!(other, Err(LoginError::Spent)), "{other:?}");
    }
}
