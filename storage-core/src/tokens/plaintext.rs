//! Seals the tokens of a storage that began without encryption, and the reverse.

use super::{PURPOSE, Sealing, Tokens, unseal, wire};
use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::record::{Record, Versioned};
use crate::storage::Precondition;

/// The number of retries if a write conflicts with other writers.
const MAX_RETRIES: usize = 10;

impl Tokens {
    /// Seals a record that is stored in plain text. Returns whether this call has sealed it. A sealed record is
    /// unchanged.
    ///
    /// A process without a key ring cannot read the record afterwards, and a process with one cannot read it before.
    /// Therefore, seal all records while the application is stopped.
    ///
    /// ```
    /// use oauth_dance_core::{KeyRing, MemoryStorage, OAuth2Token, Precondition, TokenKey, Tokens};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (storage, key) = (MemoryStorage::new(), TokenKey::new("github", "alice")?);
    /// let before = Tokens::dangerous_plaintext(storage.clone());
    /// before.put(&key, &OAuth2Token::bearer("gho_16C7e42F").into(), Precondition::Always).await?;
    ///
    /// let after = Tokens::sealed(storage, KeyRing::generate());
    /// assert!(after.seal_plaintext(&key).await?);
    /// assert_eq!(after.get(&key).await?.unwrap().value.secret().expose(), "gho_16C7e42F");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TokensError`] if the record is not a token of this key. It is unchanged in this case.
    pub async fn seal_plaintext(&self, key: &TokenKey) -> Result<bool, TokensError> {
        self.replace(key, |sealing, record| {
            let Sealing::Sealed(ring) = sealing else { return Ok(None) };
            if !wire::is_plain(&record.payload) {
                return Ok(None);
            }
            // A record that was copied from another key must not become a genuine token of this key.
            wire::decode(key, &record.payload)?;
            let payload = ring.seal(PURPOSE, &key.to_bytes(), &record.payload);
            Ok(Some(Record { payload, ..record }.with_key_id(Some(ring.primary_id()))))
        })
        .await
    }

    /// Replaces a sealed record by its content **in plain text**. Anyone who can read the storage or a backup of it can
    /// then act as the user. Returns whether this call has replaced the record. A record in plain text is unchanged.
    ///
    /// # Errors
    /// The errors of [`Tokens::get`]. The record is unchanged in this case.
    pub async fn dangerously_unseal(&self, key: &TokenKey) -> Result<bool, TokensError> {
        self.replace(key, |sealing, record| {
            let Sealing::Sealed(ring) = sealing else { return Ok(None) };
            if wire::is_plain(&record.payload) {
                return Ok(None);
            }
            let payload = unseal(ring, key, record.payload)?.into_inner();
            Ok(Some(Record { payload, ..record }.with_key_id(None)))
        })
        .await
    }

    /// Replaces a record by the result of `change`, which returns `None` to leave the record unchanged.
    async fn replace(
        &self,
        key: &TokenKey,
        change: impl Fn(&Sealing, Record) -> Result<Option<Record>, TokensError>,
    ) -> Result<bool, TokensError> {
        let mut conflicts = 0;
        loop {
            let Some(Versioned { value, version }) = self.0.storage.get(key).await? else { return Ok(false) };
            let Some(changed) = change(&self.0.sealing, value)? else { return Ok(false) };
            match self.0.storage.put(key, &changed, Precondition::Version(version)).await {
                Ok(_) => return Ok(true),
                Err(StorageError::Conflict) if conflicts < MAX_RETRIES => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::MemoryStorage;
    use crate::seal::KeyRing;
    use crate::storage::TokenStorage as _;
    use crate::token::{OAuth2Token, Token};

    fn key() -> TokenKey {
        TokenKey::new("github", "alice").unwrap()
    }

    #[tokio::test]
    async fn plain_token_is_sealed_and_unsealed() {
        let (storage, ring) = (MemoryStorage::new(), KeyRing::generate());
        let token = Token::from(OAuth2Token::bearer("CANARY"));
        let plain = Tokens::dangerous_plaintext(storage.clone()).with_retention(Duration::from_secs(60));
        let sealed = Tokens::sealed(storage.clone(), ring.clone());
        plain.put(&key(), &token, Precondition::Always).await.unwrap();

        assert!(sealed.seal_plaintext(&key()).await.unwrap());
        assert!(!sealed.seal_plaintext(&key()).await.unwrap(), "it is sealed already");
        let record = storage.get(&key()).await.unwrap().unwrap().value;
        assert!(!String::from_utf8_lossy(&record.payload).contains("CANARY"));
        assert!(record.key_id == Some(ring.primary_id()) && record.retain_for.is_some());
        assert_eq!(sealed.get(&key()).await.unwrap().unwrap().value, token);

        assert!(sealed.dangerously_unseal(&key()).await.unwrap());
        assert!(!sealed.dangerously_unseal(&key()).await.unwrap(), "it is in plain text already");
        assert_eq!(plain.get(&key()).await.unwrap().unwrap().value, token);
        assert_eq!(storage.get(&key()).await.unwrap().unwrap().value.key_id, None);
    }

    #[tokio::test]
    async fn plain_token_of_another_user_is_not_sealed() {
        let storage = MemoryStorage::new();
        let bob = TokenKey::new("github", "bob").unwrap();
        let plain = Tokens::dangerous_plaintext(storage.clone());
        plain.put(&bob, &OAuth2Token::bearer("x").into(), Precondition::Always).await.unwrap();
        let moved = storage.get(&bob).await.unwrap().unwrap().value;
        storage.put(&key(), &moved, Precondition::Always).await.unwrap();

        let sealed = Tokens::sealed(storage.clone(), KeyRing::generate());
        let error = sealed.seal_plaintext(&key()).await.unwrap_err();
        assert!(matches!(error, TokensError::Tampered { .. }), "{error:?}");
        assert_eq!(storage.get(&key()).await.unwrap().unwrap().value, moved);
    }
}
