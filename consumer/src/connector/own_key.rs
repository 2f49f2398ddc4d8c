//! The keys of tokens that this library requests itself, which no login stores.
//!
//! Both kinds are ordinary records, so that an operator sees them in a list, and they are resealed, copied and purged
//! like any other. A token of the application has a tenant of its own. An exchanged token is stored next to the token
//! that it was exchanged for, under the same tenant, user and provider, so that whatever removes a user's tokens
//! removes it too.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth_dance_core::{KeyError, TokenKey};

use super::{Audience, Connector};

/// The tenant of the application's own tokens.
const APPLICATION: &str = "oauth-dance:application";
/// The beginning of the account of an exchanged token.
const EXCHANGED: &str = "oauth-dance:exchanged:";

/// For tools of an operator, which list the records of all users.
impl Connector {
    /// Whether this library requests the token under this key when it is needed: a token of the
    /// [application](Self::client_credentials), or an [exchanged](Self::exchange) one. It has no refresh token, and no user
    /// has to authorize it again.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::{Connector, Filter, PageRequest, TokenKey};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// connector.client_credentials("acme").await?;
    /// let page = connector.tokens().list(&Filter::everything(), PageRequest::default()).await?;
    /// assert!(page.entries.iter().all(|entry| Connector::is_requested(&entry.key)));
    /// assert!(!Connector::is_requested(&TokenKey::new("acme", "alice")?));
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_requested(key: &TokenKey) -> bool {
        is_own(key)
    }

    /// Whether the token under the key `found` was [exchanged](Self::exchange) for the one under `key`. It serves no purpose
    /// once that one is removed.
    ///
    /// ```
    /// # use oauth_dance::{KeyRing, MemoryStorage, testing::TestProvider};
    /// use oauth_dance::{Audience, Connector, Filter, PageRequest, TokenKey};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let provider = TestProvider::start().await?;
    /// # let connector = Connector::builder(MemoryStorage::new(), KeyRing::generate())
    /// #     .provider(provider.registration("acme")).build()?;
    /// let alice = TokenKey::new("acme", "alice")?;
    /// provider.connect_key(&connector, &alice).await?;
    /// connector.exchange(&alice, &Audience::new("billing")).await?;
    /// let of_alice = Filter::everything().user("alice").provider("acme");
    /// let page = connector.tokens().list(&of_alice, PageRequest::default()).await?;
    /// let exchanged = page.entries.iter().filter(|entry| Connector::is_exchanged(&entry.key, &alice));
    /// assert_eq!(exchanged.count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_exchanged(found: &TokenKey, key: &TokenKey) -> bool {
        is_exchanged_from(found, key)
    }
}

/// The key of the application's own token.
pub(super) fn of_application(provider: &str, client_id: &str, audience: &Audience) -> Result<TokenKey, KeyError> {
    TokenKey::new(provider, client_id)?.with_tenant(APPLICATION)?.with_account(hash(&audience.encoded()))
}

/// The key of a token that the token under `key` is exchanged for.
pub(super) fn of_exchanged(key: &TokenKey, audience: &Audience) -> Result<TokenKey, KeyError> {
    key.clone().with_account(format!("{}{}", exchanged_from(key), hash(&audience.encoded())))
}

/// Whether a token was exchanged for the token under `key`.
pub(super) fn is_exchanged_from(exchanged: &TokenKey, key: &TokenKey) -> bool {
    exchanged.parts()[..3] == key.parts()[..3]
        && exchanged.account().is_some_and(|account| account.starts_with(&exchanged_from(key)))
}

/// Whether no login stores a token under this key.
pub(crate) fn is_own(key: &TokenKey) -> bool {
    key.tenant() == Some(APPLICATION) || key.account().is_some_and(|account| account.starts_with(EXCHANGED))
}

/// The beginning of the accounts of all tokens that the token under `key` is exchanged for. It has a fixed length, so that
/// no account is the beginning of another one.
fn exchanged_from(key: &TokenKey) -> String {
    format!("{EXCHANGED}{}:", hash(key.account().unwrap_or_default().as_bytes()))
}

/// A short text for a value of any length.
pub(super) fn hash(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(account: Option<&str>) -> TokenKey {
        let key = TokenKey::new("acme", "alice").unwrap().with_tenant("t").unwrap();
        account.into_iter().fold(key, |key, account| key.with_account(account).unwrap())
    }

    #[test]
    fn an_exchanged_token_belongs_to_one_account() {
        let (billing, none) = (Audience::new("billing"), key(None));
        let accounts = [None, Some("a"), Some("b"), Some("oauth-dance:exchanged:")];
        for account in accounts {
            let exchanged = of_exchanged(&key(account), &billing).unwrap();
            assert_eq!(exchanged.parts()[..3], none.parts()[..3]);
            assert!(is_own(&exchanged));
            for other in accounts {
                assert_eq!(is_exchanged_from(&exchanged, &key(other)), account == other, "{account:?} {other:?}");
            }
        }
        assert!(!is_own(&key(Some("work"))));
    }

    #[test]
    fn an_application_s_key_names_its_client() {
        let [one, other] = ["one", "other"].map(|client| of_application("acme", client, &Audience::default()).unwrap());
        assert_ne!(one, other);
        assert!(is_own(&one));
        assert_ne!(one, of_application("acme", "one", &Audience::new("billing")).unwrap());
        assert!(of_application("acme", "", &Audience::default()).is_err());
    }
}
