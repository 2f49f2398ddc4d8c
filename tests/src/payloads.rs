//! A payload is any sequence of bytes, up to the size that the storage declares.
//!
//! Payloads are sealed tokens, so every byte value occurs in them and no part of them may be interpreted. The hints beside
//! a payload (`expires_at`, `key_id`) are plain text on purpose, because operators and background jobs search for them.

mod hints;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Precondition, Record, StorageError, Timestamp, TokenKey, Version};

pub use self::hints::{instants_are_exact, key_ids_are_exact};
use crate::calls::Call;
use crate::lookalikes;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::show::{Show as _, difference};
use crate::tested_storage::{TestedStorage, key, rich};

/// The largest payload that every storage accepts that declares no limit.
const MOST: usize = 1_048_576;

/// A payload of any size up to the declared limit, or up to 1 MiB if none is declared, is returned with the same length
/// and bytes.
///
/// Tries the sizes around powers of two, where columns, buffers and chunks end. A column type that is too small
/// truncates: a MySQL `BLOB` ends at 65,535 bytes.
pub async fn sizes_are_exact(on: Arc<TestedStorage>) -> PropertyResult {
    let limit = on.capabilities().max_payload.unwrap_or(usize::MAX);
    let mut sizes = vec![0, 1, 255, 256, 4_095, 4_096, 4_097, 8_000, 16_384, 65_535, 65_536, 65_537, 1_048_576];
    sizes.extend([
        2, 15, 16, 17, 63, 64, 127, 128, 129, 511, 512, 513, 1_023, 1_024, 1_025, 2_047, 2_048, 32_768, 131_073,
    ]);
    sizes.extend(on.limit_to_try());
    for size in sizes.into_iter().filter(|size| *size <= limit) {
        let key = key(&format!("user{size}"))?;
        // Letters only, so that the size is the only possible cause of a failure.
        let payload: Vec<u8> = (0..size).map(|index| b'a' + (index % 23) as u8).collect();
        comes_back(&on, &key, &payload).await?;
        // Some storages keep large payloads elsewhere. A delete has to find them there.
        let delete = Call::delete(&key, None);
        ensure_eq!(on.storage().delete(&key, None).await?, true, "{delete} of a record with {size} bytes");
        ensure_eq!(on.storage().get(&key).await?, None, "get after {delete} of a record with {size} bytes");
    }
    Ok(())
}

/// A payload above the declared limit is rejected with `TooLarge`, the stored record does not change, and smaller ones are
/// accepted as before.
///
/// The error has to contain the size of the payload and the declared limit. Check the size before anything is sent: a
/// server that truncates, or that closes the connection at a large packet, cannot report this.
pub async fn too_large_is_refused(on: Arc<TestedStorage>) -> PropertyResult {
    on.capabilities().max_payload.ok_or_else(|| Stop::not_applicable("no max_payload is declared"))?;
    let limit =
        on.limit_to_try().ok_or_else(|| Stop::not_applicable("the declared max_payload is too large to try"))?;
    let (key, bob) = (key("alice")?, key("bob")?);
    let small = rich("small");
    let version = on.storage().put(&key, &small, Precondition::Always).await?;
    let conditions = [Precondition::Always, Precondition::Version(version), Precondition::Always];
    for (size, when) in [limit + 1, limit + 4_096, 2 * limit + 1_048_576].into_iter().zip(conditions) {
        match on.storage().put(&key, &Record::new(vec![b'x'; size]), when).await {
            Err(StorageError::TooLarge { size: reported, limit: least }) => {
                ensure_eq!(
                    (reported, least),
                    (size, limit),
                    "put({}) of {size} bytes: size and limit in TooLarge",
                    key.show()
                );
            }
            other => {
                let put = format!("put({}) of {size} bytes, with a declared limit of {limit},", key.show());
                return Err(Stop::failed(format_args!("{put} is {}", other.show())));
            }
        }
        let found = on.storage().get(&key).await?.map(|found| (found.value.payload, found.version));
        let what = format!("{} after put of {size} bytes was rejected", Call::get(&key));
        ensure_eq!(found, Some((small.payload.clone(), version)), "{what}");
        // A rejected payload does not count towards a limit of this key, of the user or of all users.
        for other in [TokenKey::new("google", "alice")?, key.clone().with_account("other")?, bob.clone()] {
            on.storage().put(&other, &small, Precondition::Always).await?;
        }
    }
    let when = Precondition::Version(version);
    let put = format!("{} after puts that were too large", Call::put(&key, &small, when));
    let written = on.storage().put(&key, &small, when).await;
    ensure!(written.is_ok(), "{put} is {}", written.show());
    Ok(())
}

/// Every byte value is preserved: zeros, line breaks, invalid UTF-8, and all 256 values at the start and at the end.
///
/// Some of the payloads begin like compressed data, and some are as large as the storage accepts. A storage that stores
/// payloads as text, trims them, decompresses what looks compressed, or has no room for what it has escaped fails this.
pub async fn any_bytes_come_back(on: Arc<TestedStorage>) -> PropertyResult {
    let every: Vec<u8> = (0..=255).collect();
    let mut payloads: Vec<Vec<u8>> = vec![
        every.clone(),
        every.into_iter().rev().collect(),
        b"\0".to_vec(),
        b"a\0b".to_vec(),
        b"\r\n\r\n".to_vec(),
        b" padded \n".to_vec(),
        vec![0xff, 0xfe],
        vec![0xc3, 0x28],
        vec![0xed, 0xa0, 0x80],
        b"x\n".to_vec(),
        b"\nx".to_vec(),
        b"x\0".to_vec(),
        b"\0\0\0".to_vec(),
        b"x ".to_vec(),
        b"a\r\nb\rc\nd".to_vec(),
        vec![0xef, 0xbb, 0xbf],
        // These begin like compressed data, or like a container format.
        vec![0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![0x1f, 0x8b],
        vec![0x78, 0x9c, 3, 0, 0, 0, 0, 1],
        vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0],
        vec![0x04, 0x22, 0x4d, 0x18],
        vec![0xff, 0x06, 0, 0, b's', b'N', b'a', b'P', b'p', b'Y'],
        vec![0x80, 0x04, 0x4e, 0x2e],
        vec![0xc0],
        vec![0xf6],
        vec![0; 200],
        vec![0xff; 200],
        b"\\x00\\u0000'\"`".to_vec(),
    ];
    payloads.extend((0..=255u8).step_by(5).map(|byte| vec![byte, b'x', byte]));
    come_back(&on, &payloads).await?;
    // Large payloads may take another path. What cannot be compressed, or has to be escaped, is the largest in there.
    let mut random = on.random();
    for length in BTreeSet::from([5_000, 20_000, 70_000, 300_000, MOST].map(|length| on.accepted_length(length))) {
        come_back(&on, &[random.bytes(length)]).await?;
    }
    for byte in [0, 0xff, b'%', b'"', b'\\', b'\n'] {
        come_back(&on, &[vec![byte; on.accepted_length(MOST)]]).await?;
    }
    Ok(())
}

/// A payload that looks like an encoding is returned unchanged: hexadecimal, base64, JSON, an envelope or a number.
///
/// A storage fails this if it recognizes its own envelope, a tombstone or an absent value by the content of the
/// payload. Store such facts in a field of their own.
pub async fn payloads_that_look_encoded_come_back(on: Arc<TestedStorage>) -> PropertyResult {
    let texts = [
        "",
        " ",
        "0",
        "00",
        "1e5",
        "true",
        "null",
        "NULL",
        "None",
        "{}",
        "[]",
        "{\"a\":1, \"a\":2 }",
        "\"x\"",
        "deadbeef",
        "DEADBEEF",
        "\\xdeadbeef",
        "0x00",
        "ZGVhZA==",
        "$ba$",
        "enc:v1:abc",
        "v1.local.abc",
        "eyJhbGciOiJub25lIn0.e30.",
        "%41",
        "&lt;",
        "+",
        "a b+c%20d",
        "1970-01-01",
        "\u{feff}bom",
        "caf\u{e9}",
        "cafe\u{301}",
        "nil",
        "undefined",
        "NaN",
        "deleted",
        "DELETED",
        "tombstone",
        "TOMBSTONE",
        "__deleted__",
        "__tombstone__",
        "expired",
        "empty",
        "none",
        "false",
        "-",
        "$-1\r\n",
        "*0\r\n",
        "+OK\r\n",
        "v1 00000000000000000000000000000000 - - -\nx",
        "{\"payload\":\"x\",\"version\":1}",
        "{\"b\":1,\"a\":2}",
        "1.0",
        "1.50",
        "12345678901234567890123",
        "\\N",
        "\\u0041",
        "x:y",
        "x|y|z",
        "x,y\n",
        "<?xml version='1.0'?>",
        "-----BEGIN X-----",
        "$2b$12$abc",
        "vault:v1:abc",
        "gAAAAAB",
        "data:;base64,QQ==",
        "YQ",
        "YQ==",
        "0xdeadbeef",
        "'",
        "''",
        "%s",
        "{0}",
        "$1",
        "x'00'",
    ];
    come_back(&on, &texts.map(|text| text.as_bytes().to_vec())).await
}

/// A payload that replaces a longer or a shorter one is returned with its own length and bytes.
///
/// This concerns storages that split large payloads: chunks of the previous payload must not remain behind the end of
/// the new one.
pub async fn payloads_of_other_lengths_replace_each_other(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let small = [5_000, 10, 0, 4_096, 4_095, 70_000, 3, 1_024, 1_023, 1, 0, 9_000];
    // For storages that split a payload: fewer chunks than before, and chunks that are just full.
    let large = [1_000_000, 66_000, 300_000, 131_073, 131_072, 65_537, 900_000, 65_536, 700_000, 262_145, 520_000, 2];
    let mut when = Precondition::Always;
    for (turn, (length, letter)) in small.into_iter().chain(large).zip((b'a'..=b'z').cycle()).enumerate() {
        let payload = vec![letter; on.accepted_length(length)];
        let version = comes_back_after(&on, &key, &payload, when).await?;
        // An update may be another statement than an upsert.
        when = if turn % 2 == 0 { Precondition::Version(version) } else { Precondition::Always };
    }
    Ok(())
}

/// Payloads of the same length that differ in one byte or in the order of their bytes are different, over each other and
/// under different keys.
///
/// A storage that skips unchanged writes, or stores equal payloads once, has to compare all bytes or a cryptographic hash.
pub async fn similar_payloads_are_told_apart(on: Arc<TestedStorage>) -> PropertyResult {
    let (alice, has_room) = (key("alice")?, !on.capabilities().request_bound);
    for length in [40, 1_024, 5_000, 70_000].map(|length| on.accepted_length(length)) {
        let plain: Vec<u8> = (0..length).map(|index| b'a' + (index % 23) as u8).collect();
        let mut payloads = vec![plain.clone()];
        for at in
            [0, 1, 16, 32, 64, 128, 256, 1_000, 4_096, length / 3, length / 2, length - 17, length - 2, length - 1]
        {
            let Some(byte) = plain.get(at) else { continue };
            let mut changed = plain.clone();
            changed[at] = byte ^ 1;
            payloads.push(changed);
        }
        let (mut turned, mut swapped) = (plain.clone(), plain.clone());
        turned[1..length - 1].reverse();
        swapped.swap(length / 2, length / 2 + 1);
        payloads.extend([turned, swapped]);
        for text in lookalikes::EQUAL_CHECKSUMS.iter().flatten() {
            let mut changed = plain.clone();
            changed[length / 2..length / 2 + text.len()].copy_from_slice(text.as_bytes());
            payloads.push(changed);
        }
        let mut written = Vec::new();
        for (index, payload) in payloads.into_iter().enumerate() {
            comes_back(&on, &alice, &payload).await?;
            if has_room {
                let other = key(&format!("user{index}"))?;
                on.storage().put(&other, &Record::new(payload.clone()), Precondition::Always).await?;
                written.push((other, payload));
            }
        }
        for (key, payload) in written {
            let found = on.storage().get(&key).await?.map(|found| found.value.payload).unwrap_or_default();
            let what = format!("{} while similar payloads of {length} bytes are stored", Call::get(&key));
            ensure!(found == payload, "{what}: the payload: {}", difference(&payload, &found));
        }
    }
    Ok(())
}

/// `get` returns what `put` wrote: the payload byte for byte, and every hint.
///
/// Writes random payloads, instants and key ids over each other. If no more specific property fails, repeat the run
/// with the seed that the failure names.
pub async fn records_come_back_exactly(on: Arc<TestedStorage>) -> PropertyResult {
    let mut random = on.random();
    for round in 0..40 {
        let key = key(&format!("user{}", round % 4))?;
        let length = random.below(on.accepted_length(3_000));
        let expires_at = Timestamp::from_unix_seconds(random.next() % 253_402_300_800);
        let key_id = format!("{:016x}", random.next());
        let record = Record::new(random.bytes(length)).with_expires_at(Some(expires_at)).with_key_id(Some(key_id));
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        let found = on.storage().get(&key).await?;
        let put = Call::put(&key, &record, Precondition::Always);
        let found = found.ok_or_else(|| Stop::failed(format_args!("get after {put} is None")))?;
        let is_same = found.value.payload == record.payload;
        ensure!(is_same, "get after {put}: the payload: {}", difference(&record.payload, &found.value.payload));
        ensure_eq!(found.value.expires_at, record.expires_at, "get after {put}: expires_at");
        ensure_eq!(found.value.key_id, record.key_id, "get after {put}: key_id");
        ensure_eq!(found.version, version, "get after {put}: the version");
        ensure_eq!(found.value.retain_for, None, "get after {put}: retain_for");
    }
    Ok(())
}

/// No large record is evicted for another one, and all records of a user together have no size limit.
///
/// Writes up to 40 records of 1 MiB for one user and then reads all of them. A cache of bounded size must not be the
/// only place that has a record.
pub async fn large_records_are_not_evicted(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_many_records()?;
    let size = on.accepted_length(1_048_576);
    let key = |index: usize| PropertyResult::Ok(TokenKey::new(format!("provider{index}"), "alice")?);
    let record = |index: usize| Record::new(vec![b'a' + (index % 26) as u8; size]);
    let mut count = 0;
    for index in on.rounds(40, Duration::from_millis(300)).await? {
        on.storage().put(&key(index)?, &record(index), Precondition::Always).await?;
        count += 1;
    }
    for index in 0..count {
        let found = on.storage().get(&key(index)?).await?.map(|found| found.value);
        let what = format!("{} after {count} writes of {size} bytes each for this user", Call::get(&key(index)?));
        let is_same = found.as_ref() == Some(&record(index));
        ensure!(is_same, "{what}: expected {}, found {}", record(index).show(), found.show());
    }
    Ok(())
}

/// Writes each of these payloads, unless it is too large, and reads it back.
async fn come_back(on: &TestedStorage, payloads: &[Vec<u8>]) -> PropertyResult {
    let key = key("alice")?;
    let limit = on.capabilities().max_payload.unwrap_or(usize::MAX);
    for payload in payloads.iter().filter(|payload| payload.len() <= limit) {
        comes_back(on, &key, payload).await?;
    }
    Ok(())
}

/// Writes a payload and reads it back.
async fn comes_back(on: &TestedStorage, key: &TokenKey, payload: &[u8]) -> PropertyResult {
    comes_back_after(on, key, payload, Precondition::Always).await.map(drop)
}

/// Writes a payload with this condition, reads it back, and returns its version.
async fn comes_back_after(
    on: &TestedStorage,
    key: &TokenKey,
    payload: &[u8],
    when: Precondition,
) -> PropertyResult<Version> {
    let record = Record::new(payload);
    let version = on.storage().put(key, &record, when).await?;
    let found = on.storage().get(key).await?.map(|found| found.value.payload);
    let put = Call::put(key, &record, when);
    let found = found.ok_or_else(|| Stop::failed(format_args!("get after {put} is None")))?;
    ensure!(found == payload, "get after {put}: the payload: {}", difference(payload, &found));
    Ok(version)
}
