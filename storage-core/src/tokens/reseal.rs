//! Reseals stored tokens with another key while the application runs.
//!
//! Resealing opens and seals, and decodes nothing, so that it also works for records of a newer release. Each write is
//! conditional on the version that was read, so it never overwrites a login or a refresh.

use super::{PURPOSE, Sealing, Tokens, unseal};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::record::Versioned;
use crate::storage::{Filter, PageRequest, Precondition};

/// The maximum number of failures in a report.
const MAX_FAILURES: usize = 1000;
/// The number of retries if a write conflicts with other writers.
const MAX_RETRIES: usize = 10;

/// The result of [`Tokens::reseal_all`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ResealReport {
    /// Records that were resealed with the first key.
    pub resealed: u64,
    /// Records that were already sealed with the first key, or that were deleted during the call.
    pub current: u64,
    /// Records that could not be resealed, because they cannot be opened or the storage failed. They are unchanged.
    pub failed: u64,
    /// The first thousand of these failures.
    pub failures: Vec<ResealFailure>,
}

/// A record that could not be resealed. It is unchanged.
#[derive(Debug)]
#[non_exhaustive]
pub struct ResealFailure {
    /// The key of the record.
    pub key: TokenKey,
    /// Why it could not be resealed. [`TokensError::KeyUnavailable`] names the missing key.
    pub error: TokensError,
}

impl ResealReport {
    /// Whether every record had been sealed with the first key before this call. Only then may the older keys be
    /// removed.
    pub fn is_done(&self) -> bool {
        self.resealed == 0 && self.failed == 0
    }
}

impl Tokens {
    /// Reseals one record with the first key of the ring, if another key sealed it. Returns whether this call has
    /// resealed it. A refresh in flight continues.
    ///
    /// # Errors
    /// The errors of [`Tokens::get`]. The record is unchanged in this case.
    pub async fn reseal(&self, key: &TokenKey) -> Result<bool, TokensError> {
        let mut conflicts = 0;
        loop {
            let Some(Versioned { value: record, version }) = self.read(key).await? else {
                return Ok(false);
            };
            let Sealing::Sealed(ring) = &self.0.sealing else { return Ok(false) };
            if record.key_id == self.key_id() {
                return Ok(false);
            }
            // The plaintext is not decoded, because it may have a newer format.
            let mut resealed = record.with_key_id(self.key_id());
            let plain = unseal(ring, key, std::mem::take(&mut resealed.payload))?;
            resealed.payload = ring.seal(PURPOSE, &key.to_bytes(), &plain);
            match self.0.storage.put(key, &resealed, Precondition::Version(version)).await {
                Ok(_) => return Ok(true),
                // The other writer may have used another key.
                Err(StorageError::Conflict) if conflicts < MAX_RETRIES => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reseals every listed record with the first key of the ring, page by page. Records that cannot be opened are
    /// counted and skipped.
    ///
    /// Every write is conditional, so this may run concurrently with refreshes, logins, logouts and other calls of this
    /// function. If a call is interrupted, call it again.
    ///
    /// A rotation of the key while the application runs takes three steps. Complete each step on all processes before
    /// the next one:
    ///
    /// 1. Add the new key as an older key, so that every process can open what the new key will seal.
    /// 2. Make the new key the first one, and the old key an older one. Then call this function until the report [is
    ///    done](ResealReport::is_done).
    /// 3. Remove the old key.
    ///
    /// ```
    /// use oauth_dance_core::{Filter, KeyRing, MemoryStorage, SealingKey, Tokens};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (old, new, storage) = (SealingKey::generate(), SealingKey::generate(), MemoryStorage::new());
    /// let tokens = Tokens::sealed(storage, KeyRing::new(new).with_older(old));
    /// let report = tokens.reseal_all(&Filter::everything()).await?;
    /// for failure in &report.failures {
    ///     eprintln!("{} could not be resealed: {}", failure.key, failure.error);
    /// }
    /// assert!(report.is_done());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TokensError::Storage`] if the storage cannot list.
    ///
    /// # Ledgers
    /// The entries of a [ledger](crate::Refresher::with_ledger) are not listed. Before you remove the old key, wait
    /// until the ledger's retention has passed.
    pub async fn reseal_all(&self, filter: &Filter) -> Result<ResealReport, TokensError> {
        let mut report = ResealReport::default();
        let mut page = PageRequest::default();
        loop {
            let found = self.list(filter, page.clone()).await?;
            for entry in found.entries {
                if entry.key_id == self.key_id() {
                    report.current += 1;
                    continue;
                }
                match self.reseal(&entry.key).await {
                    Ok(true) => report.resealed += 1,
                    Ok(false) => report.current += 1,
                    Err(error) => report.add_failure(entry.key, error),
                }
            }
            match found.next {
                Some(next) => page.after = Some(next),
                None => return Ok(report),
            }
        }
    }
}

impl ResealReport {
    fn add_failure(&mut self, key: TokenKey, error: TokensError) {
        self.failed += 1;
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(ResealFailure { key, error });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::MemoryStorage;
    use crate::record::Record;
    use crate::seal::{KeyRing, SealingKey};
    use crate::storage::TokenStorage as _;
    use crate::token::{OAuth2Token, Token};

    fn key(user: usize) -> TokenKey {
        TokenKey::new("github", format!("user{user}")).unwrap()
    }

    fn token(user: usize) -> Token {
        OAuth2Token::bearer(format!("token{user}")).into()
    }

    async fn put(tokens: &Tokens, user: usize) {
        tokens.put(&key(user), &token(user), Precondition::Always).await.unwrap();
    }

    async fn expect_all(tokens: &Tokens, users: usize) {
        for user in 0..users {
            assert_eq!(tokens.get(&key(user)).await.unwrap().unwrap().value, token(user));
        }
    }

    /// Two processes, which are restarted one after the other in each step.
    #[tokio::test]
    async fn three_steps_rotate_the_key_of_running_processes() {
        let storage = MemoryStorage::new();
        let (old, new) = (SealingKey::generate(), SealingKey::generate());
        let steps = [
            KeyRing::new(old.clone()),
            KeyRing::new(old.clone()).with_older(new.clone()),
            KeyRing::new(new.clone()).with_older(old),
            KeyRing::new(new),
        ]
        .map(|ring| Tokens::sealed(storage.clone(), ring));
        for user in 0..250 {
            put(&steps[0], user).await;
        }
        for (behind, ahead) in [(&steps[0], &steps[1]), (&steps[1], &steps[2])] {
            put(behind, 0).await;
            put(ahead, 1).await;
            expect_all(ahead, 250).await;
            expect_all(behind, 250).await;
        }
        let report = steps[2].reseal_all(&Filter::everything()).await.unwrap();
        assert_eq!((report.resealed, report.current, report.failed), (249, 1, 0));
        assert!(!report.is_done(), "another process may have written with the old key in the meantime");
        assert!(steps[2].reseal_all(&Filter::everything()).await.unwrap().is_done());
        put(&steps[3], 0).await;
        expect_all(&steps[2], 250).await;
        expect_all(&steps[3], 250).await;
    }

    #[tokio::test]
    async fn rotation_in_one_step_locks_out_other_processes() {
        let storage = MemoryStorage::new();
        let (old, new) = (SealingKey::generate(), SealingKey::generate());
        let behind = Tokens::sealed(storage.clone(), KeyRing::new(old.clone()));
        put(&Tokens::sealed(storage, KeyRing::new(new).with_older(old)), 0).await;
        assert!(
            matches!(behind.get(&key(0)).await, Err(TokensError::KeyUnavailable { .. })),
            "this is why the rotation has three steps"
        );
    }

    #[tokio::test]
    async fn unreadable_records_are_reported_and_unchanged() {
        let storage = MemoryStorage::new();
        let (old, new) = (SealingKey::generate(), SealingKey::generate());
        let before = Tokens::sealed(storage.clone(), KeyRing::new(old.clone()));
        for user in 0..10 {
            put(&before, user).await;
        }
        put(&Tokens::sealed(storage.clone(), KeyRing::generate()), 3).await;
        put(&Tokens::dangerous_plaintext(storage.clone()), 4).await;
        let mut moved = storage.get(&key(0)).await.unwrap().unwrap().value;
        moved.retain_for = Some(Duration::from_secs(60));
        storage.put(&key(5), &moved, Precondition::Always).await.unwrap();
        storage.put(&key(6), &Record::new(vec![7; 100]), Precondition::Always).await.unwrap();
        let untouched = async || {
            let mut payloads = Vec::new();
            for user in 3..7 {
                payloads.push(storage.get(&key(user)).await.unwrap().unwrap().value.payload);
            }
            payloads
        };
        let payloads = untouched().await;

        let after = Tokens::sealed(storage.clone(), KeyRing::new(new).with_older(old));
        let report = after.reseal_all(&Filter::everything()).await.unwrap();
        assert_eq!((report.resealed, report.current, report.failed), (6, 0, 4));
        assert!(!report.is_done());
        let mut failures = report.failures;
        failures.sort_by_key(|failure| failure.key.user().to_owned());
        let [missing, plain, moved, garbage] = failures.try_into().unwrap();
        assert!(matches!((missing.key, missing.error), (at, TokensError::KeyUnavailable { .. }) if at == key(3)));
        assert!(matches!((plain.key, plain.error), (at, TokensError::NotSealed { .. }) if at == key(4)));
        assert!(matches!((moved.key, moved.error), (at, TokensError::Tampered { .. }) if at == key(5)));
        assert!(matches!((garbage.key, garbage.error), (at, TokensError::Tampered { .. }) if at == key(6)));
        assert_eq!(untouched().await, payloads);

        let again = after.reseal_all(&Filter::everything()).await.unwrap();
        assert_eq!((again.resealed, again.current, again.failed), (0, 6, 4));
    }

    /// A newer release runs beside this one.
    #[tokio::test]
    async fn reseal_does_not_decode_the_plaintext() {
        let storage = MemoryStorage::new();
        let (old, new) = (SealingKey::generate(), SealingKey::generate());
        let ring = KeyRing::new(new).with_older(old.clone());
        let plain = br#"{"format":1000,"key":["","user0","github",""],"quantum":true}"#;
        let payload = KeyRing::new(old.clone()).seal(PURPOSE, &key(0).to_bytes(), plain);
        let record = Record::new(payload).with_key_id(Some(KeyRing::new(old).primary_id()));
        storage.put(&key(0), &record, Precondition::Always).await.unwrap();

        let tokens = Tokens::sealed(storage.clone(), ring.clone());
        assert!(tokens.reseal(&key(0)).await.unwrap());
        let resealed = storage.get(&key(0)).await.unwrap().unwrap().value;
        assert_eq!(resealed.key_id, Some(ring.primary_id()));
        let opened = ring.open(PURPOSE, &key(0).to_bytes(), &resealed.payload).unwrap();
        assert_eq!(opened.as_slice(), plain);
        let error = tokens.get(&key(0)).await.unwrap_err();
        assert!(matches!(error, TokensError::NewerFormat { found: 1000, .. }), "{error:?}");
    }
}
