//! The hints beside a payload are exact.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Precondition, Record, StorageError, Timestamp};

use crate::calls::Call;
use crate::lookalikes;
use crate::outcome::{PropertyResult, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all};

/// `expires_at` is exact to the second from 1970 to 9999, in any time zone of the process and the server.
///
/// Tries the ends of 32-bit ranges, and hours in which clocks change. Store the seconds as a 64-bit integer: a
/// timestamp column depends on time zones and has a range of its own.
pub async fn instants_are_exact(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    // Among them are the ends of signed and unsigned 32-bit numbers, the end of MySQL's TIMESTAMP, and nights in which
    // clocks change in Europe and America.
    let instants = [
        0,
        1,
        59,
        3_599,
        86_399,
        951_782_400,
        1_711_846_799,
        1_711_846_800,
        1_730_610_000,
        1_730_613_600,
        1_761_440_399,
        2_147_483_647,
        2_147_483_648,
        4_294_967_295,
        4_294_967_296,
        32_536_771_199,
        32_536_771_200,
        253_402_300_798,
        253_402_300_799,
    ];
    for seconds in instants {
        let expires_at = Some(Timestamp::from_unix_seconds(seconds));
        on.storage().put(&key, &Record::new("x").with_expires_at(expires_at), Precondition::Always).await?;
        let found = on.storage().get(&key).await?.and_then(|found| found.value.expires_at);
        ensure_eq!(found, expires_at, "{} after put: expires_at", Call::get(&key));
        if on.capabilities().listable {
            let listed = list_all(on.storage().as_ref(), &oauth_dance_core::Filter::everything(), 10).await?;
            let listed: Vec<_> = listed.into_iter().map(|entry| entry.expires_at).collect();
            ensure_eq!(listed, vec![expires_at], "list, with one record stored, of {}: expires_at", key.show());
        }
    }
    Ok(())
}

/// A `key_id` of at most 64 bytes can be any text, and is read and listed as it was written. So is a longer one, unless it
/// is rejected with `TooLarge`.
///
/// Tries the same texts as the properties of keys. A longer text must not be truncated, because a record that names
/// another key cannot be opened.
pub async fn key_ids_are_exact(on: Arc<TestedStorage>) -> PropertyResult {
    let mut texts: Vec<String> =
        ["0123456789abcdef", "ABCDEF", "Key", " key ", "a/b:c=d", "'", "%", "\n", "a\0b", "\0"]
            .map(str::to_owned)
            .into();
    let repeated = ["k", "%", "\u{e9}", "\0", " ", "/", "\u{1f511}"].into_iter().map(|one| one.repeat(64 / one.len()));
    texts.extend(repeated);
    let groups = lookalikes::ALL.iter().flat_map(|groups| groups.iter()).flat_map(|texts| texts.iter());
    texts.extend(groups.filter(|text| text.len() <= 64 && !text.is_empty()).map(|text| (*text).to_owned()));
    for index in on.rounds(texts.len(), Duration::from_millis(1_500)).await? {
        key_id_comes_back(&on, &texts[index]).await?;
    }
    for length in [65, 100, 128, 255, 256, 257, 1_000, 5_000, 70_000] {
        let record = Record::new("x").with_key_id(Some("k".repeat(length)));
        match on.storage().put(&key("alice")?, &record, Precondition::Always).await {
            Err(StorageError::TooLarge { .. }) => {}
            written => {
                written?;
                key_id_comes_back(&on, &"k".repeat(length)).await?;
            }
        }
    }
    let key = key("alice")?;
    on.storage().put(&key, &Record::new("x").with_key_id(Some(String::new())), Precondition::Always).await?;
    let found = on.storage().get(&key).await?.and_then(|found| found.value.key_id);
    let is_empty = found.as_deref().unwrap_or_default().is_empty();
    ensure!(is_empty, "{} after put with an empty key_id: key_id is {}", Call::get(&key), found.show());
    Ok(())
}

async fn key_id_comes_back(on: &TestedStorage, text: &str) -> PropertyResult {
    let key = key("alice")?;
    let record = Record::new("x").with_key_id(Some(text.to_owned()));
    on.storage().put(&key, &record, Precondition::Always).await?;
    let found = on.storage().get(&key).await?.and_then(|found| found.value.key_id);
    ensure_eq!(found, record.key_id, "{} after put: key_id", Call::get(&key));
    if on.capabilities().listable {
        let listed = list_all(on.storage().as_ref(), &oauth_dance_core::Filter::everything(), 10).await?;
        let listed: Vec<_> = listed.into_iter().map(|entry| entry.key_id).collect();
        ensure_eq!(listed, vec![record.key_id], "list, with one record stored, of {}: key_id", key.show());
    }
    Ok(())
}
