use crate::key::TokenKey;

/// The error underneath, whatever its type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong in a [`TokenStorage`](crate::TokenStorage), told by what the caller can do about it.
///
/// No variant carries a payload, and none means "there is no token": that is `Ok(None)`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The precondition did not hold and nothing was changed. Read again and decide anew.
    #[error("another write came first")]
    Conflict,
    /// The storage cannot be reached, is too busy, or has no room. Nothing has changed; try again later.
    #[error("the token storage is unavailable; try again later")]
    Unavailable {
        /// The error underneath.
        #[source]
        source: BoxError,
    },
    /// The connection broke after a write was sent: it was done wholly or not at all. Read to find out.
    #[error("the token storage broke off during a write, which was done wholly or not at all")]
    Ambiguous {
        /// The error underneath.
        #[source]
        source: BoxError,
    },
    /// What is stored under this key cannot be read. It was left as it is.
    #[error("the stored record of {key} is corrupt")]
    Corrupt {
        /// Where it is stored.
        key: Box<TokenKey>,
        /// What is wrong with it.
        #[source]
        source: BoxError,
    },
    /// A part of the key is longer than this storage can keep apart.
    #[error("the {part} of the token key has {length} bytes, and this storage takes at most {limit}")]
    KeyTooLong {
        /// Which part of the key.
        part: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The most this storage takes, in bytes.
        limit: usize,
    },
    /// The payload is larger than this storage takes. What was stored before is untouched.
    #[error("the record has {size} bytes, and this storage takes at most {limit}")]
    TooLarge {
        /// Size of the payload in bytes.
        size: usize,
        /// The most this storage takes, in bytes.
        limit: usize,
    },
    /// This storage cannot do that at all; [`capabilities`](crate::TokenStorage::capabilities) says so beforehand.
    #[error("this token storage does not support {0}")]
    Unsupported(&'static str),
    /// The cursor did not come from this storage.
    #[error("this is not a cursor of this storage; start again from the first page")]
    InvalidCursor,
    /// The storage refuses, and will until somebody changes its set-up: a table is missing, credentials are wrong, or it
    /// may not be written to. Nothing has changed.
    #[error("the token storage is not set up: {advice}")]
    Misconfigured {
        /// What to do about it.
        advice: String,
        /// The error underneath.
        #[source]
        source: BoxError,
    },
}

impl StorageError {
    /// An [`Unavailable`](Self::Unavailable) with its cause.
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable { source: source.into() }
    }

    /// An [`Ambiguous`](Self::Ambiguous) with its cause.
    pub fn ambiguous(source: impl Into<BoxError>) -> Self {
        Self::Ambiguous { source: source.into() }
    }

    /// A [`Corrupt`](Self::Corrupt) record with what is wrong with it.
    pub fn corrupt(key: &TokenKey, source: impl Into<BoxError>) -> Self {
        Self::Corrupt { key: Box::new(key.clone()), source: source.into() }
    }

    /// Whether the same call may succeed later with nothing else changed.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// What went wrong between a [`Token`](crate::Token) and its storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The storage itself failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The record was sealed with a key that is not in the key ring. It is intact: add the key to read it.
    #[error(
        "the token of {key} is sealed with key {key_id}, which is not in the key ring; add that key as an older one"
    )]
    KeyUnavailable {
        /// Where it is stored.
        key: Box<TokenKey>,
        /// The missing key.
        key_id: String,
    },
    /// The record was changed, or moved here from another key, since it was sealed. It was left as it is.
    #[error("the token of {key} was altered since it was sealed, or belongs to another key")]
    Tampered {
        /// Where it is stored.
        key: Box<TokenKey>,
    },
    /// The record is not sealed, and this handle reads sealed records only.
    #[error("the token of {key} is stored in plain text, and only sealed tokens are accepted here")]
    NotSealed {
        /// Where it is stored.
        key: Box<TokenKey>,
    },
    /// The record is sealed, and this handle was made without a key ring.
    #[error("the token of {key} is sealed, and there is no key ring to open it with")]
    NoKeyRing {
        /// Where it is stored.
        key: Box<TokenKey>,
    },
    /// A newer release wrote the record. It was left as it is.
    #[error("the token of {key} has format {found}, written by a newer release; upgrade to read it")]
    NewerFormat {
        /// Where it is stored.
        key: Box<TokenKey>,
        /// The format's number.
        found: u64,
    },
    /// The payload is not a token. It was left as it is.
    #[error("the stored token of {key} cannot be read: {reason}")]
    Malformed {
        /// Where it is stored.
        key: Box<TokenKey>,
        /// Which rule it breaks. Never quotes the payload.
        reason: &'static str,
    },
}
