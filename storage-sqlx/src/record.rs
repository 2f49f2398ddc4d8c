//! How a key and a record become the columns of a row, and back.
//!
//! Times are seconds since 1970 in `bigint` columns, and everything else is binary. No type of a date library is
//! involved, because enabling one in sqlx would change the types of the application's own queries.

use oauth_dance_core::{BoxError, Entry, Record, StorageError, Timestamp, TokenKey, Version, Versioned};

use crate::MAX_PAYLOAD;
use crate::dialect::{Bind, Dialect};

/// The maximum sizes of tenant, user, provider and account in bytes. Together they fit an index entry of PostgreSQL
/// (2704 bytes) and of InnoDB (3072 bytes).
const LIMITS: [(&str, usize); 4] = [("tenant", 255), ("user", 1023), ("provider", 255), ("account", 255)];
/// The maximum size of the id of a sealing key in bytes.
const MAX_KEY_ID: usize = 255;

/// Converts a key to the values of its columns.
///
/// # Errors
/// [`StorageError::KeyTooLong`] if a part exceeds its limit.
pub(crate) fn key_binds(key: &TokenKey) -> Result<[Bind<'_>; 4], StorageError> {
    let parts = key.parts();
    for (part, (name, limit)) in parts.iter().zip(LIMITS) {
        if part.len() > limit {
            return Err(StorageError::KeyTooLong { part: name, length: part.len(), limit });
        }
    }
    Ok(parts.map(|part| Bind::Bytes(part.as_bytes())))
}

/// Converts a record to the values of its columns. The statement adds the retention to the database's clock.
///
/// # Errors
/// [`StorageError::TooLarge`] if the payload or the key id exceeds its limit.
pub(crate) fn record_binds<'a>(record: &'a Record, version: &'a Version) -> Result<[Bind<'a>; 5], StorageError> {
    check_size(record.payload.len(), MAX_PAYLOAD)?;
    check_size(record.key_id.as_ref().map_or(0, String::len), MAX_KEY_ID)?;
    // Limited to the seconds until the year 9999, so that the sum with the clock cannot overflow.
    let retain = record.retain_seconds().map(|seconds| Timestamp::from_unix_seconds(seconds).as_unix_seconds_signed());
    Ok([
        Bind::Bytes(version.as_bytes()),
        Bind::Bytes(&record.payload),
        Bind::OptionalNumber(record.expires_at.map(Timestamp::as_unix_seconds_signed)),
        Bind::OptionalNumber(retain),
        Bind::OptionalBytes(record.key_id.as_deref().map(str::as_bytes)),
    ])
}

fn check_size(size: usize, limit: usize) -> Result<(), StorageError> {
    if size > limit { Err(StorageError::TooLarge { size, limit }) } else { Ok(()) }
}

/// Reads version, payload, expiry, remaining retention and key id from columns 0 to 4.
///
/// # Errors
/// A description of what is wrong with the row.
pub(crate) fn read_record<DB: Dialect>(row: &DB::Row) -> Result<Versioned<Record>, BoxError> {
    let version = version(&DB::bytes(row, 0)?)?;
    let left = DB::optional_number(row, 3)?.map(seconds).transpose()?;
    let record = Record::new(DB::bytes(row, 1)?)
        .with_expires_at(DB::optional_number(row, 2)?.map(instant).transpose()?)
        .with_retain_for(left.map(std::time::Duration::from_secs))
        .with_key_id(DB::optional_bytes(row, 4)?.map(String::from_utf8).transpose()?);
    Ok(Versioned::new(record, version))
}

/// Reads a list entry from version, expiry and key id in columns 4 to 6. An unreadable hint is left out, and an
/// unreadable version is replaced by a random one, which matches nothing. [`read_record`] reports what is wrong.
pub(crate) fn read_entry<DB: Dialect>(key: TokenKey, row: &DB::Row) -> Entry {
    let version = DB::bytes(row, 4).ok().and_then(|bytes| version(&bytes).ok());
    let expires_at = DB::optional_number(row, 5).ok().flatten().and_then(Timestamp::from_unix_seconds_signed);
    let key_id = DB::optional_bytes(row, 6).ok().flatten().and_then(|id| String::from_utf8(id).ok());
    let hints = Record::new([]).with_expires_at(expires_at).with_key_id(key_id);
    Entry::new(key, version.unwrap_or_else(Version::random), &hints)
}

fn version(bytes: &[u8]) -> Result<Version, BoxError> {
    let bytes = bytes.try_into().map_err(|_| format!("the version has {} bytes instead of 16", bytes.len()))?;
    Ok(Version::from_bytes(bytes))
}

fn instant(seconds: i64) -> Result<Timestamp, BoxError> {
    Timestamp::from_unix_seconds_signed(seconds)
        .ok_or_else(|| format!("the expiry, {seconds} s, is not between the years 1970 and 9999").into())
}

fn seconds(left: i64) -> Result<u64, BoxError> {
    u64::try_from(left).map_err(|_| format!("the remaining retention, {left} s, is negative").into())
}
