//! Stores the token of a login.
//!
//! A login replaces the stored token. One part may have to be retained: some providers issue a refresh token only at
//! the first login, and without it the user would have to log in again after an hour.

use crate::error::{StorageError, TokensError};
use crate::key::TokenKey;
use crate::progress::{BackOff, Claim, Progress, Stored};
use crate::record::{Version, Versioned};
use crate::storage::Precondition;
use crate::token::{OAuth2Token, Token};
use crate::tokens::Tokens;

/// The number of tries if the write conflicts with other writers. A refresh writes twice.
const MAX_WRITES: usize = 8;

impl Tokens {
    /// Stores the token of a login. It replaces the stored token, except for a refresh token of the same account.
    ///
    /// Some providers issue a refresh token at the first login only. A new token without a refresh token therefore
    /// retains the stored one, if both tokens have the same [`subject`](OAuth2Token::subject) and the same
    /// [`dpop_key`](OAuth2Token::dpop_key), and the provider has not refused the stored refresh token.
    ///
    /// The write is conditional. If another writer stores a token in the meantime, the record is read again. A refresh
    /// in flight continues. After a logout, nothing is retained.
    ///
    /// Use [`put`](Self::put) if a new login ends the earlier grant at the provider.
    ///
    /// ```
    /// use oauth_dance_core::{KeyRing, MemoryStorage, OAuth2Token, Subject, TokenKey, Tokens};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate());
    /// let key = TokenKey::new("google", "alice")?;
    ///
    /// let mut first = OAuth2Token::bearer("first");
    /// first.subject = Some(Subject { issuer: "https://accounts.google.com".into(), subject: "42".into() });
    /// first.refresh_token = Some("refresh".into());
    /// tokens.put_login(&key, &first.clone().into()).await?;
    ///
    /// let mut second = first;
    /// second.access_token = "second".into();
    /// second.refresh_token = None;
    /// tokens.put_login(&key, &second.into()).await?;
    ///
    /// let stored = tokens.get(&key).await?.expect("a token was stored").value;
    /// let stored = stored.as_oauth2().expect("a token of OAuth 2.0");
    /// assert_eq!(stored.access_token.expose(), "second");
    /// assert_eq!(stored.refresh_token, Some("refresh".into()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TokensError::Storage`] if the storage failed, or if other writers were faster eight times in a row. A stored
    /// record that cannot be read is replaced.
    ///
    /// # Cancel safety
    /// Dropping this future leaves either the old or the new token stored.
    pub async fn put_login(&self, key: &TokenKey, token: &Token) -> Result<Version, TokensError> {
        let Token::OAuth2(new) = token else { return self.put(key, token, Precondition::Always).await };
        if new.refresh_token.is_some() || new.subject.is_none() {
            return self.put(key, token, Precondition::Always).await;
        }
        for _ in 0..MAX_WRITES {
            let found = match self.load(key).await {
                Err(TokensError::Storage(error)) if !matches!(error, StorageError::Corrupt { .. }) => {
                    return Err(error.into());
                }
                found => found.unwrap_or_default(),
            };
            let Some((stored, version)) = found.and_then(|found| retained(found, new)) else {
                return self.put(key, token, Precondition::Always).await;
            };
            match self.save(key, &stored, Precondition::Version(version)).await {
                Err(TokensError::Storage(StorageError::Conflict)) => {}
                written => return written,
            }
        }
        Err(StorageError::Conflict.into())
    }
}

/// Adds the stored refresh token to the new token if it may be retained. Returns the record and the version to replace.
/// The state of a refresh in flight and of a lost response is retained, because it describes that refresh token.
fn retained(found: Versioned<Stored>, new: &OAuth2Token) -> Option<(Stored, Version)> {
    let Versioned { value: Stored { token: Token::OAuth2(old), progress }, version } = found else { return None };
    let is_same = old.subject == new.subject && old.dpop_key == new.dpop_key;
    let (is_refused, progress) = match progress {
        Progress::Dead { .. } => (true, progress),
        Progress::Claimed(Claim { tries, .. }) | Progress::BackingOff(BackOff { tries, .. }) => {
            (tries.needs_user_since().is_some(), progress)
        }
        // These states describe the old access token.
        Progress::Idle | Progress::Replaced => (false, Progress::Idle),
    };
    if !is_same || is_refused {
        return None;
    }
    let mut token = new.clone();
    token.refresh_token = Some(old.refresh_token?);
    // A token that can be refreshed needs an expiry, so that it is refreshed in time.
    let lifetime = old.expires_at.zip(old.issued_at).map(|(expires_at, since)| expires_at.saturating_since(since));
    let usual = lifetime.zip(new.issued_at).map(|(lifetime, now)| now.saturating_add(lifetime));
    token.expires_at = token.expires_at.or(usual);
    Some((Stored { token: Token::OAuth2(token), progress }, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{DeadReason, Tries};
    use crate::token::Subject;
    use crate::{DpopKey, KeyRing, MemoryStorage, Timestamp};

    fn tokens() -> (Tokens, TokenKey) {
        let tokens = Tokens::sealed(MemoryStorage::new(), KeyRing::generate());
        (tokens, TokenKey::new("acme", "alice").unwrap())
    }

    fn token(access: &str, refresh: Option<&str>, subject: Option<&str>) -> OAuth2Token {
        let mut token = OAuth2Token::bearer(access);
        token.refresh_token = refresh.map(Into::into);
        token.issued_at = Some(Timestamp::from_unix_seconds(1_000));
        token.subject =
            subject.map(|subject| Subject { issuer: "https://acme".to_owned(), subject: subject.to_owned() });
        token
    }

    async fn refresh_token(tokens: &Tokens, key: &TokenKey) -> Option<String> {
        let found = tokens.get(key).await.unwrap().unwrap().value;
        found.as_oauth2().unwrap().refresh_token.as_ref().map(|token| token.expose().to_owned())
    }

    #[tokio::test]
    async fn refresh_token_is_retained_for_the_same_account() {
        let mut bound = token("new", None, Some("alice"));
        bound.dpop_key = Some(DpopKey::generate());
        let cases = [
            (token("new", None, Some("alice")), Some("old")),
            (token("new", Some("newer"), Some("alice")), Some("newer")),
            (token("new", None, Some("bob")), None),
            (token("new", None, None), None),
            (bound, None),
        ];
        for (new, expected) in cases {
            let (tokens, key) = tokens();
            let mut old = token("old", Some("old"), Some("alice"));
            old.expires_at = Some(Timestamp::from_unix_seconds(4_600));
            tokens.put(&key, &old.into(), Precondition::Always).await.unwrap();
            tokens.put_login(&key, &new.clone().into()).await.unwrap();
            assert_eq!(refresh_token(&tokens, &key).await.as_deref(), expected, "{new:?}");
            let stored = tokens.get(&key).await.unwrap().unwrap().value;
            assert_eq!(stored.secret().expose(), "new");
            assert_eq!(stored.expires_at().is_some(), expected == Some("old"), "{new:?}");
        }
    }

    #[tokio::test]
    async fn nothing_is_retained_without_a_subject() {
        let (tokens, key) = tokens();
        tokens.put(&key, &token("old", Some("old"), None).into(), Precondition::Always).await.unwrap();
        tokens.put_login(&key, &token("new", None, None).into()).await.unwrap();
        assert_eq!(refresh_token(&tokens, &key).await, None);
    }

    #[tokio::test]
    async fn refused_refresh_token_is_not_retained() {
        let since = Timestamp::from_unix_seconds(1);
        let mut tries = Tries::default();
        for day in 0..30 {
            tries.refused_at(Timestamp::from_unix_seconds(day * 24 * 3600));
        }
        let refused_for_long = BackOff { until: since, cause: String::new(), tries };
        for progress in [Progress::Dead { reason: DeadReason::Refused, since }, Progress::BackingOff(refused_for_long)]
        {
            let (tokens, key) = tokens();
            let old = Token::OAuth2(token("old", Some("old"), Some("alice")));
            tokens.save(&key, &Stored { token: old, progress }, Precondition::Always).await.unwrap();
            tokens.put_login(&key, &token("new", None, Some("alice")).into()).await.unwrap();
            let stored = tokens.load(&key).await.unwrap().unwrap().value;
            assert_eq!(stored, Stored::idle(token("new", None, Some("alice")).into()));
        }
    }

    #[tokio::test]
    async fn refresh_in_flight_continues_after_a_login() {
        let (tokens, key) = tokens();
        let old = Token::OAuth2(token("old", Some("old"), Some("alice")));
        let lease = std::time::Duration::from_secs(30);
        let progress = Progress::Claimed(Claim::new(Timestamp::from_unix_seconds(1_000), lease, Tries::default()));
        tokens.save(&key, &Stored { token: old, progress: progress.clone() }, Precondition::Always).await.unwrap();
        tokens.put_login(&key, &token("new", None, Some("alice")).into()).await.unwrap();
        let stored = tokens.load(&key).await.unwrap().unwrap().value;
        assert_eq!(stored.progress, progress);
        assert_eq!(refresh_token(&tokens, &key).await.as_deref(), Some("old"));
    }

    #[tokio::test]
    async fn nothing_is_retained_after_a_logout() {
        let (tokens, key) = tokens();
        tokens.put(&key, &token("old", Some("old"), Some("alice")).into(), Precondition::Always).await.unwrap();
        tokens.delete(&key, None).await.unwrap();
        tokens.put_login(&key, &token("new", None, Some("alice")).into()).await.unwrap();
        assert_eq!(refresh_token(&tokens, &key).await, None);
    }
}
