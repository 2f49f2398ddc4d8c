//! What became of attempts that are spent, noted where every process of the application can read it.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    KeyRing, Precondition, Record, StorageError, Token, TokenKey, TokenStorage, Tokens, Version, random_bytes,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::attempt::{self, Attempt};
use super::outcome::Outcome;
use crate::error::LoginError;

/// A spent attempt is remembered for longer than its cookie can be used, whatever two machines' clocks say.
const REMEMBERED: Duration = Duration::from_secs(2 * 660);
/// What a callback may take beside the request that redeems its code.
const MARGIN: Duration = Duration::from_secs(10);
const FIRST_POLL: Duration = Duration::from_millis(20);
const LONGEST_POLL: Duration = Duration::from_millis(500);
/// How often the outcome is written before it is given up.
const MOST_WRITES: u32 = 6;
const PURPOSE: &str = "oauth-dance spent attempt";

/// Spends each attempt once, and notes its outcome for the callbacks that repeat it.
pub(crate) struct SpentAttempts {
    storage: Arc<dyn TokenStorage>,
    /// Tokens that went into the storage of one request, for the callback that repeats it.
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

/// What is stored, sealed, under the attempt's key.
#[derive(Serialize, Deserialize)]
struct Note {
    /// Names the callback that spent it.
    by: u64,
    /// `None` until that callback has ended.
    outcome: Option<Outcome>,
}

impl SpentAttempts {
    pub(crate) fn new(storage: Arc<dyn TokenStorage>, keys: KeyRing, request_timeout: Duration) -> Self {
        let handed_on = Tokens::sealed(Arc::clone(&storage), keys.clone()).with_retention(REMEMBERED);
        Self { storage, handed_on, keys, timeout: request_timeout + MARGIN }
    }

    /// Spends an attempt: of all callbacks for it, in every process that shares the storage, one gets `Some`.
    ///
    /// It also proves that the storage takes writes before the code is spent.
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
            // It was cut off, but may have been done.
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

    /// Notes the outcome of a callback. If the storage fails for longer than this tries, a repeated callback waits in
    /// vain, and is told so.
    pub(crate) async fn end(&self, spent: Spent, outcome: Outcome) {
        let Spent { key, mut version, mut note } = spent;
        note.outcome = Some(outcome);
        let record = self.close(&key, &note);
        for tries in 0..MOST_WRITES {
            sleep(FIRST_POLL * (4_u32.pow(tries) - 1)).await;
            match self.storage.put(&key, &record, Precondition::Version(version)).await {
                Ok(_) => return,
                // An earlier write was cut off and has been done, or the storage has lost the note.
                Err(StorageError::Conflict) => match self.read(&key).await {
                    Ok(Some((Ok(found), current, _))) if found.by == note.by && found.outcome.is_none() => {
                        version = current;
                    }
                    Ok(_) => return,
                    Err(_) => {}
                },
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outcome of a login was not noted");
                }
            }
        }
    }

    /// The outcome of an attempt that another callback has spent. Waits for that callback, for as long as it may take.
    pub(crate) async fn outcome(&self, attempt: &Attempt) -> Result<Outcome, LoginError> {
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

    /// Stores a token for the callback that repeats this attempt.
    pub(crate) async fn hand_on(&self, attempt: &Attempt, token: &Token) -> Result<(), LoginError> {
        self.handed_on.put(&token_key_of(attempt)?, token, Precondition::Always).await?;
        Ok(())
    }

    /// The token of [`hand_on`](Self::hand_on).
    pub(crate) async fn handed_on(&self, attempt: &Attempt) -> Result<Option<Token>, LoginError> {
        Ok(self.handed_on.get(&token_key_of(attempt)?).await?.map(|found| found.value))
    }

    /// The note of an attempt, with its version and its age on the storage's own clock. The inner error says that it is
    /// there and cannot be read here: another release wrote it, or a key is missing.
    async fn read(&self, key: &TokenKey) -> Result<Option<(Result<Note, ()>, Version, Duration)>, LoginError> {
        let Some(found) = self.storage.get(key).await.map_err(storage_failed)? else { return Ok(None) };
        let plain = self.keys.open(PURPOSE, &key.to_bytes(), &found.value.payload);
        let note = plain.map_err(drop).and_then(|plain| serde_json::from_slice(&plain).map_err(drop));
        let age = REMEMBERED.saturating_sub(found.value.retain_for.unwrap_or(REMEMBERED));
        Ok(Some((note, found.version, age)))
    }

    fn close(&self, key: &TokenKey, note: &Note) -> Record {
        #[expect(clippy::expect_used, reason = "it is a plain struct of strings and numbers")]
        let plain = serde_json::to_vec(note).expect("a note is always JSON");
        Record::new(self.keys.seal(PURPOSE, &key.to_bytes(), &plain))
            .with_retain_for(Some(REMEMBERED))
            .with_key_id(Some(self.keys.primary_id()))
    }

    /// Frees what earlier attempts left, so that an application which never purges does not fill its storage.
    fn purge(&self) {
        let storage = Arc::clone(&self.storage);
        tokio::spawn(async move {
            if let Err(error) = storage.purge(100).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "old records were not purged");
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
        let attempt = Arc::new(attempts.start("p", &"v".into(), "/".to_owned(), None));
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
        let late = attempts.start("p", &"v".into(), "/".to_owned(), None);
        assert!(matches!(process.spend(&late, false).await, Err(LoginError::Expired)));
    }

    #[tokio::test]
    async fn a_dead_callback_is_waited_for_within_bounds() {
        let (attempts, seconds) = attempts();
        let reading = Arc::clone(&seconds);
        let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
        let (storage, keys) = (MemoryStorage::new().with_clock(clock), KeyRing::generate());
        let attempt = attempts.start("p", &"v".into(), "/".to_owned(), None);
        let mut process = spent(&storage, &keys);
        assert_eq!(process.timeout, Duration::from_secs(30));
        assert!(process.spend(&attempt, true).await.unwrap().is_some());
        // By this process's own clock, and at once if the storage's says that it is over.
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
        let attempt = attempts().0.start("p", &"v".into(), "/".to_owned(), None);
        let first = spent(&storage, &keys);
        let marker = first.spend(&attempt, true).await.unwrap().unwrap();
        first.end(marker, Outcome::failed(&LoginError::Denied)).await;
        let found = first.outcome(&attempt).await.unwrap();
        assert!(matches!(found.into_error(), Some(LoginError::Denied)));
        let other = spent(&storage, &KeyRing::generate()).outcome(&attempt).await;
        assert!(matches!(other, Err(LoginError::Spent)), "{other:?}");
    }
}
