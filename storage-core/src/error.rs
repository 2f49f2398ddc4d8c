//! The errors of a storage, and those of the typed handle above it.
//!
//! A storage converts its own errors into [`StorageError`], whose variants say what a caller can do. The underlying
//! error is available as the source of these errors. [`TokensError`] adds what can go wrong between a record and a
//! token.

use crate::key::TokenKey;

/// An underlying error of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of a [`TokenStorage`](crate::TokenStorage), classified by what the caller can do about it.
///
/// | error | has the write taken effect? | what to do |
/// | --- | --- | --- |
/// | [`Conflict`](Self::Conflict) | no | read the record, and decide again |
/// | [`Unavailable`](Self::Unavailable) | no | try again later |
/// | [`Ambiguous`](Self::Ambiguous) | unknown | read the record to find out |
/// | [`Misconfigured`](Self::Misconfigured) | no | follow the advice |
/// | all others | no | correct the call, or remove the record |
///
/// No variant contains a payload, so an error may be logged. No variant means that there is no token, because a missing
/// record is `Ok(None)`.
///
/// ```
/// use oauth_dance_core::{MemoryStorage, Precondition, Record, StorageError, TokenKey, TokenStorage, Version};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), oauth_dance_core::KeyError> {
/// let (storage, key) = (MemoryStorage::new(), TokenKey::new("github", "alice")?);
/// let outdated = Precondition::Version(Version::random());
/// match storage.put(&key, &Record::new("sealed"), outdated).await {
///     Err(StorageError::Conflict) => {} // another writer was faster: read the record, and decide again
///     result => panic!("{result:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The precondition is not met, and nothing has changed. Read the record again before the next write.
    #[error("another writer changed the record first; read it again and retry")]
    Conflict,
    /// The storage is unreachable, overloaded or full. Nothing has changed. Try again later.
    #[error("the token storage is unavailable; try again later")]
    Unavailable {
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// The connection broke after a write was sent. The write took effect completely or not at all. Read the record to
    /// find out.
    #[error("the connection to the token storage broke during a write, which took effect completely or not at all")]
    Ambiguous {
        /// The underlying error.
        #[source]
        source: BoxError,
    },
    /// The record under this key cannot be read. It is unchanged.
    #[error("the stored record of {key} is corrupt; delete it or store a new token")]
    Corrupt {
        /// The key of the record.
        key: Box<TokenKey>,
        /// What is wrong with the record.
        #[source]
        source: BoxError,
    },
    /// A part of the key is too long for this storage.
    #[error("the {part} of the token key has {length} bytes, but this storage accepts at most {limit}")]
    KeyTooLong {
        /// Which part of the key.
        part: &'static str,
        /// The length of that part in bytes.
        length: usize,
        /// The maximum in bytes.
        limit: usize,
    },
    /// The payload is too large for this storage. The stored record is unchanged.
    #[error("the record has {size} bytes, but this storage accepts at most {limit}")]
    TooLarge {
        /// The size of the payload in bytes.
        size: usize,
        /// The maximum in bytes.
        limit: usize,
    },
    /// This storage does not support the operation, as its [`capabilities`](crate::TokenStorage::capabilities) declare.
    #[error("this token storage does not support {0}")]
    Unsupported(&'static str),
    /// This storage did not issue the cursor.
    #[error("the list cursor is not from this storage; start again from the first page")]
    InvalidCursor,
    /// The storage rejects the call until its configuration is corrected: a table is missing, the credentials are
    /// wrong, or writes are not permitted. Nothing has changed.
    #[error("the token storage is misconfigured: {advice}")]
    Misconfigured {
        /// What to do about it.
        advice: String,
        /// The underlying error.
        #[source]
        source: BoxError,
    },
}

impl StorageError {
    /// Creates an [`Unavailable`](Self::Unavailable) error with its cause.
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable { source: source.into() }
    }

    /// Creates an [`Ambiguous`](Self::Ambiguous) error with its cause.
    pub fn ambiguous(source: impl Into<BoxError>) -> Self {
        Self::Ambiguous { source: source.into() }
    }

    /// Creates a [`Corrupt`](Self::Corrupt) error with what is wrong with the record.
    pub fn corrupt(key: &TokenKey, source: impl Into<BoxError>) -> Self {
        Self::Corrupt { key: Box::new(key.clone()), source: source.into() }
    }

    /// Whether the same call may succeed later without any other change.
    ///
    /// This is false for [`Ambiguous`](Self::Ambiguous), because a second write could overwrite a third one.
    ///
    /// ```
    /// use oauth_dance_core::StorageError;
    ///
    /// assert!(StorageError::unavailable("connection refused").is_retryable());
    /// assert!(!StorageError::ambiguous("connection reset").is_retryable());
    /// ```
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// An error of [`Tokens`](crate::Tokens).
///
/// A token that cannot be read is always an error, and its record is unchanged. It is never reported as missing,
/// because an application would then send the user to the login, which overwrites it. No variant contains a token or a
/// part of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The record is sealed with a key that is not in the key ring. The record is intact. Add the key to read it.
    #[error(
        "the token of {key} is sealed with key {key_id}, which is not in the key ring; add that key as an older key"
    )]
    KeyUnavailable {
        /// The key of the record.
        key: Box<TokenKey>,
        /// The id of the missing key.
        key_id: String,
    },
    /// The record was altered after it was sealed, or was moved from another key. It is unchanged.
    #[error("the token of {key} was altered after it was sealed, or was moved from another key; reconnect the account")]
    Tampered {
        /// The key of the record.
        key: Box<TokenKey>,
    },
    /// The record is not sealed, but this handle only reads sealed records. Otherwise anyone with write access to the
    /// storage could plant a token.
    #[error("the token of {key} is stored in plain text, but only sealed tokens are accepted; reconnect the account")]
    NotSealed {
        /// The key of the record.
        key: Box<TokenKey>,
    },
    /// The record is sealed, but this handle was created with
    /// [`dangerous_plaintext`](crate::Tokens::dangerous_plaintext) and has no key ring.
    #[error("the token of {key} is sealed, but there is no key ring to open it; configure the key ring")]
    NoKeyRing {
        /// The key of the record.
        key: Box<TokenKey>,
    },
    /// A newer release wrote the record. It is unchanged.
    #[error("the token of {key} has format {found}, which a newer release wrote; upgrade to read it")]
    NewerFormat {
        /// The key of the record.
        key: Box<TokenKey>,
        /// The number of the format.
        found: u64,
    },
    /// The payload is not a token. The record is unchanged.
    #[error("the stored token of {key} cannot be read: {reason}")]
    Malformed {
        /// The key of the record.
        key: Box<TokenKey>,
        /// Why the payload is not a token. It never quotes the payload.
        reason: &'static str,
    },
}
