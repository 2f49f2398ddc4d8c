//! Keys of tokens, and their encoding.
//!
//! A key has four parts and not one string, because an operator queries by user or provider, and because a separator in
//! a string could also occur in an identifier. Two keys of this library's own records have reserved tenants.

use std::fmt;

/// The tenant of keys for login attempts.
const ATTEMPTS: &str = "oauth-dance:attempts";
/// The tenant of keys for ledger entries.
const GENERATIONS: &str = "oauth-dance:generations";

/// Identifies a token: a provider and a user, and optionally a tenant and an account.
///
/// * The **provider** is the name of a provider in this application, such as `github`.
/// * The **user** is the application's own identifier of the user, and not an identifier at the provider. Use one that
///   never changes and is never reused: the id of a row, and not an email address.
/// * The **tenant** separates customers of one installation that may have users of the same name.
/// * The **account** distinguishes several accounts that one user has connected at one provider.
///
/// Keys are compared byte by byte, without trimming, case folding or Unicode normalization: `"alice"`, `"Alice"` and
/// `"alice "` are three users. Keys are ordered by the bytes of their parts.
///
/// ```
/// use oauth_dance_core::TokenKey;
///
/// let key = TokenKey::new("google", "42")?.with_tenant("acme")?.with_account("work")?;
/// assert_eq!((key.provider(), key.user()), ("google", "42"));
/// assert_eq!((key.tenant(), key.account()), (Some("acme"), Some("work")));
/// # Ok::<(), oauth_dance_core::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    // An absent tenant or account is the empty string, which `with_tenant` and `with_account` reject.
    tenant: String,
    user: String,
    provider: String,
    account: String,
}

impl TokenKey {
    /// The key of a user's token at a provider, without a tenant and an account.
    ///
    /// # Errors
    /// [`KeyError::Empty`] if one of them is empty. An empty user would be a token that all visitors without an
    /// identifier share, so give each anonymous visitor an identifier.
    pub fn new(provider: impl Into<String>, user: impl Into<String>) -> Result<Self, KeyError> {
        Ok(Self {
            tenant: String::new(),
            user: not_empty("user", user.into())?,
            provider: not_empty("provider", provider.into())?,
            account: String::new(),
        })
    }

    /// Sets the tenant. The same user in another tenant has another key.
    ///
    /// # Errors
    /// [`KeyError::Empty`] if the tenant is empty. Do not call this method for users without a tenant.
    pub fn with_tenant(mut self, tenant: impl Into<String>) -> Result<Self, KeyError> {
        self.tenant = not_empty("tenant", tenant.into())?;
        Ok(self)
    }

    /// Sets the account, if the user has several accounts at the provider.
    ///
    /// # Errors
    /// [`KeyError::Empty`] if the account is empty. Do not call this method for users with one account.
    pub fn with_account(mut self, account: impl Into<String>) -> Result<Self, KeyError> {
        self.account = not_empty("account", account.into())?;
        Ok(self)
    }

    /// The key under which a spent login attempt is recorded. The record belongs to no user and contains no token. Only
    /// for the crates of this workspace.
    ///
    /// # Errors
    /// [`KeyError::Empty`], as for [`TokenKey::new`].
    #[doc(hidden)]
    pub fn for_attempt(provider: impl Into<String>, attempt: impl Into<String>) -> Result<Self, KeyError> {
        Self::new(provider, attempt)?.with_tenant(ATTEMPTS)
    }

    /// The key under which a ledger stores the successor of a spent token. `hash` is a hash of the spent token; see
    /// [`Refresher::with_ledger`](crate::Refresher::with_ledger).
    pub(crate) fn for_generation(provider: impl Into<String>, hash: impl Into<String>) -> Result<Self, KeyError> {
        Self::new(provider, hash)?.with_tenant(GENERATIONS)
    }

    /// A key under which nothing is stored, for a read that tests the storage.
    pub(crate) fn for_check() -> Self {
        let [tenant, user, provider] = [ATTEMPTS, "check", "check"].map(str::to_owned);
        Self { tenant, user, provider, account: String::new() }
    }

    /// Whether this library stores the record for its own purposes. Such a record belongs to no user, and its retention
    /// is a few minutes.
    pub(crate) fn is_internal(&self) -> bool {
        self.tenant == ATTEMPTS || self.tenant == GENERATIONS
    }

    /// The name of the provider in this application.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The identifier of the user in this application. It is never empty.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The tenant. `None` if the key has none.
    pub fn tenant(&self) -> Option<&str> {
        present(&self.tenant)
    }

    /// The account. `None` if the key has none.
    pub fn account(&self) -> Option<&str> {
        present(&self.account)
    }

    /// The canonical encoding: tenant, user, provider and account, each as a 32-bit big-endian length in bytes followed
    /// by its UTF-8 bytes.
    ///
    /// Two different keys never have the same encoding. Sealing binds a record to this encoding, and a key-value
    /// storage may use it as its key.
    ///
    /// ```
    /// use oauth_dance_core::TokenKey;
    ///
    /// let key = TokenKey::new("github", "alice")?;
    /// assert_eq!(TokenKey::from_bytes(&key.to_bytes())?, key);
    ///
    /// let (one, other) = (TokenKey::new("a", "bc")?, TokenKey::new("ab", "c")?);
    /// assert_ne!(one.to_bytes(), other.to_bytes());
    /// # Ok::<(), oauth_dance_core::KeyError>(())
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.len());
        for part in self.parts() {
            // The encoding of a part above 4 GiB would be ambiguous, but no storage accepts such a part.
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }

    /// Decodes the result of [`TokenKey::to_bytes`].
    ///
    /// # Errors
    /// [`KeyError::Malformed`] for all other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut rest = bytes;
        let [tenant, user, provider, account] =
            [take_part(&mut rest)?, take_part(&mut rest)?, take_part(&mut rest)?, take_part(&mut rest)?];
        if !rest.is_empty() {
            return Err(KeyError::Malformed);
        }
        Self::from_parts(tenant, user, provider, account)
    }

    /// Builds a key from its parts. An empty tenant or account means that there is none. For a storage that reads the
    /// parts from columns.
    ///
    /// # Errors
    /// [`KeyError::Empty`] if the user or the provider is empty.
    pub fn from_parts(
        tenant: impl Into<String>,
        user: impl Into<String>,
        provider: impl Into<String>,
        account: impl Into<String>,
    ) -> Result<Self, KeyError> {
        let key = Self::new(provider, user)?;
        Ok(Self { tenant: tenant.into(), account: account.into(), ..key })
    }

    /// Tenant, user, provider and account, in the order of the canonical encoding. Absent parts are empty.
    pub fn parts(&self) -> [&str; 4] {
        [&self.tenant, &self.user, &self.provider, &self.account]
    }

    /// The total length of all parts in bytes. The canonical encoding has 16 bytes more.
    #[expect(clippy::len_without_is_empty, reason = "a key is never empty")]
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// Shows the provider and the user, and the tenant and account if present. Control characters are escaped, so that a
/// user cannot forge a line of a log.
impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "provider {:?}, user {:?}", self.provider, self.user)?;
        if let Some(tenant) = self.tenant() {
            write!(f, ", tenant {tenant:?}")?;
        }
        if let Some(account) = self.account() {
            write!(f, ", account {account:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({self})")
    }
}

/// Why a value is not a [`TokenKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A required part is empty.
    #[error("the {0} of a token key is empty; give every user an identifier, including anonymous visitors")]
    Empty(&'static str),
    /// The bytes are not the canonical encoding of a key.
    #[error("the bytes are not an encoded token key")]
    Malformed,
}

fn not_empty(name: &'static str, part: String) -> Result<String, KeyError> {
    if part.is_empty() { Err(KeyError::Empty(name)) } else { Ok(part) }
}

/// `None` for an absent part, which is stored as the empty string.
fn present(part: &str) -> Option<&str> {
    (!part.is_empty()).then_some(part)
}

/// Removes one part from the beginning of an encoded key.
fn take_part<'a>(rest: &mut &'a [u8]) -> Result<&'a str, KeyError> {
    let (length, tail) = rest.split_first_chunk::<4>().ok_or(KeyError::Malformed)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| KeyError::Malformed)?;
    let (part, tail) = tail.split_at_checked(length).ok_or(KeyError::Malformed)?;
    *rest = tail;
    std::str::from_utf8(part).map_err(|_| KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Checks every key over a small alphabet of separators and letters, for all four parts with lengths 0 to 2.
    #[test]
    fn encoding_is_injective_and_reversible() {
        let alphabet = ["", "a", ":", "/", "\0", "a:", ":a", "\0\0", "é"];
        let mut seen = HashMap::new();
        for tenant in alphabet {
            for user in &alphabet[1..] {
                for provider in &alphabet[1..] {
                    for account in alphabet {
                        let key = TokenKey::from_parts(tenant, *user, *provider, account).unwrap();
                        assert_eq!(TokenKey::from_bytes(&key.to_bytes()).unwrap(), key);
                        assert_eq!(seen.insert(key.to_bytes(), key), None, "two keys have the same encoding");
                    }
                }
            }
        }
    }

    #[test]
    fn empty_parts_are_rejected() {
        assert_eq!(TokenKey::new("github", ""), Err(KeyError::Empty("user")));
        assert_eq!(TokenKey::new("", "alice"), Err(KeyError::Empty("provider")));
        assert_eq!(TokenKey::new("github", "alice").unwrap().with_tenant(""), Err(KeyError::Empty("tenant")));
        assert_eq!(TokenKey::new("github", "alice").unwrap().with_account(""), Err(KeyError::Empty("account")));
    }

    #[test]
    fn malformed_bytes_are_rejected() {
        let valid = TokenKey::new("github", "alice").unwrap().to_bytes();
        for cut in 0..valid.len() {
            assert_eq!(TokenKey::from_bytes(&valid[..cut]), Err(KeyError::Malformed));
        }
        assert_eq!(TokenKey::from_bytes(&[&valid[..], b"x"].concat()), Err(KeyError::Malformed));
        assert_eq!(TokenKey::from_bytes(&[0xff; 16]), Err(KeyError::Malformed));
        assert_eq!(TokenKey::from_bytes(&[0; 16]), Err(KeyError::Empty("user")));
    }
}
