//! Two different keys never share a record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Cursor, Filter, PageRequest, Precondition, Record, StorageError, TokenKey};

use crate::apart::are_apart;
use crate::calls::Call;
use crate::lookalikes;
use crate::outcome::{PropertyResult, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all};

/// The most bytes of a key that every storage accepts, if no part has more than 64.
pub(crate) const ACCEPTED: usize = 96;

/// A key that differs in its tenant, user, provider or account alone is another key.
pub async fn every_part_keeps_keys_apart(on: Arc<TestedStorage>) -> PropertyResult {
    let mut keys = Vec::new();
    for tenant in ["", "a", "b"] {
        for (user, provider) in [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")] {
            for account in ["", "a", "b"] {
                keys.push(TokenKey::from_parts(tenant, user, provider, account)?);
            }
        }
    }
    are_apart(&on, &keys).await
}

/// Parts that read the same when joined with a separator are different keys, whatever the separator.
pub async fn separators_keep_keys_apart(on: Arc<TestedStorage>) -> PropertyResult {
    let separators = [
        ":",
        "|",
        "/",
        "\\",
        "%",
        ".",
        ",",
        ";",
        "=",
        "-",
        "_",
        "\0",
        "\u{1f}",
        "::",
        "\"",
        "\n",
        "\t",
        " ",
        "#",
        "~",
        "+",
        "&",
        "@",
        "\u{1e}",
        "->",
        "$",
        "!",
        "'",
        "{",
        "#USER#",
        "#PROVIDER#",
        "#ACCOUNT#",
        ":user:",
        ":provider:",
        ":account:",
        "/users/",
        "/user/",
        "/providers/",
        "/accounts/",
        "USER#",
        "_user_",
        "|user|",
        "--",
        "__",
        ";user=",
        "&user=",
    ];
    let first = on.random().below(separators.len());
    for index in on.rounds(separators.len(), Duration::from_secs(4)).await? {
        let plain = separators[(first + index) % separators.len()];
        let encoded: String = plain.bytes().map(|byte| format!("%{byte:02X}")).collect();
        // As it is, and as one escapes it.
        let mut keys = BTreeSet::new();
        for s in [plain, &encoded, &format!("\\{plain}")] {
            keys.insert(TokenKey::from_parts("", "a", format!("b{s}c"), "")?);
            keys.insert(TokenKey::from_parts("", format!("a{s}b"), "c", "")?);
            keys.insert(TokenKey::from_parts("", "a", "b", format!("{s}c"))?);
            keys.insert(TokenKey::from_parts("", "a", format!("b{s}"), "c")?);
            keys.insert(TokenKey::from_parts("", format!("a{s}"), "b", "c")?);
            keys.insert(TokenKey::from_parts("a", format!("b{s}c"), "d", "")?);
            keys.insert(TokenKey::from_parts(format!("a{s}b"), "c", "d", "")?);
            keys.insert(TokenKey::from_parts("", s, s, "")?);
        }
        // With an escape before the separator, which joins two parts unless it is escaped itself.
        for e in ["\\", "%", "^", "~", "\"", "'", plain] {
            keys.insert(TokenKey::from_parts("", format!("a{e}"), format!("b{plain}c"), "d")?);
            keys.insert(TokenKey::from_parts("", format!("a{plain}b{e}"), "c", "d")?);
        }
        for e in ["\\", plain] {
            keys.insert(TokenKey::from_parts(format!("a{e}"), format!("b{plain}c"), "d", "")?);
            keys.insert(TokenKey::from_parts(format!("a{plain}b{e}"), "c", "d", "")?);
            keys.insert(TokenKey::from_parts("", "a", format!("b{e}"), format!("c{plain}d"))?);
            keys.insert(TokenKey::from_parts("", "a", format!("b{plain}c{e}"), "d")?);
        }
        keys.insert(TokenKey::from_parts("a", "b", "c", "")?);
        keys.insert(TokenKey::from_parts("", "a", "b", "c")?);
        are_apart(&on, &keys.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Keys are compared byte for byte: case, spaces and accents matter, in every part.
pub async fn case_spaces_and_accents_keep_keys_apart(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_apart(&on, lookalikes::CASE_SPACES_AND_ACCENTS).await
}

/// Unicode is not normalized: texts that look alike are different keys, and every character comes back.
pub async fn unicode_keeps_keys_apart(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_apart(&on, lookalikes::UNICODE).await
}

/// No collation applies: kana, width, letters of several languages and characters without weight are all different.
pub async fn collations_do_not_apply_to_keys(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_apart(&on, lookalikes::COLLATIONS).await
}

/// No value stands for an absent part, for a default or for all: `default`, `null`, `-`, `*`, `0` are values like others.
pub async fn no_value_stands_for_none(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_apart(&on, lookalikes::STAND_INS).await
}

/// No word that the medium shows beside a record stands for an absent tenant or account.
pub async fn no_stored_word_stands_for_none(on: Arc<TestedStorage>) -> PropertyResult {
    let alice = key("alice")?;
    on.storage().put(&alice, &Record::new("x"), Precondition::Always).await?;
    let mut shown = on.harness().raw_dump().await?;
    if on.capabilities().listable {
        on.storage().put(&key("bob")?, &Record::new("x"), Precondition::Always).await?;
        let first = PageRequest { after: None, limit: 1 };
        let next = on.storage().list(&Filter::everything(), first).await?.next;
        shown.push(b'\n');
        shown.extend(next.iter().flat_map(Cursor::as_bytes));
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:#$@~".contains(byte);
    let words: BTreeSet<_> = shown.split(|byte| !is_word(byte)).filter(|word| (1..=32).contains(&word.len())).collect();
    for word in words.into_iter().take(2_000) {
        let word = String::from_utf8_lossy(word).into_owned();
        let trimmed = word.trim_matches(|letter: char| !letter.is_alphanumeric() && letter != '_').to_owned();
        for text in BTreeSet::from([word, trimmed]).into_iter().filter(|text| !text.is_empty()) {
            for other in [alice.clone().with_tenant(text.as_str())?, alice.clone().with_account(text.as_str())?] {
                let found = on.storage().get(&other).await?;
                let get = Call::get(&other);
                ensure!(
                    found.is_none(),
                    "{get} shows the record of ({}); the key itself was never written",
                    alice.show()
                );
            }
        }
    }
    Ok(())
}

/// What looks like a number, a date or a truth value is a text.
pub async fn numbers_are_compared_as_text(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_apart(&on, lookalikes::NUMBERS).await
}

/// Addresses, paths and identifiers are neither decoded nor cleaned: `a+b@x`, `a b@x` and `a%20b@x` are three users.
pub async fn addresses_are_not_normalized(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_apart(&on, lookalikes::ADDRESSES).await
}

/// Patterns, quotes and control characters in a key are data to every operation.
pub async fn special_characters_are_data(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_apart(&on, lookalikes::SPECIAL).await
}

/// A long key works, or is refused as `KeyTooLong`; no call cuts it into another key.
pub async fn long_keys_work_or_are_refused(on: Arc<TestedStorage>) -> PropertyResult {
    let lengths = [1, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 191, 192, 199, 200, 201, 250, 254, 255, 256, 257];
    let longer =
        [258, 300, 511, 512, 513, 767, 768, 1023, 1024, 1025, 3072, 4096, 8192, 16_385, 65_535, 65_536, 65_537];
    for part in 0..4 {
        // All of one letter, so that each is the beginning and the end of all that are longer.
        let plain = lengths.iter().chain(&longer).map(|length| long(part, &"k".repeat(*length)));
        let others =
            [64, 65, 128, 129, 200, 255, 256, 257, 300, 513, 1025, 4097].into_iter().flat_map(|length: usize| {
                let stem = "k".repeat(length - 1);
                [long(part, &format!("{stem}x")), long(part, &format!("x{stem}"))]
            });
        are_apart(&on, &plain.chain(others).collect::<PropertyResult<Vec<_>>>()?).await?;
    }
    Ok(())
}

/// A key of 96 bytes, no part longer than 64, works whatever its characters: no way to escape them makes it too long.
pub async fn keys_of_any_characters_work(on: Arc<TestedStorage>) -> PropertyResult {
    let characters =
        ["é", "/", "-", "%", "_", " ", "\u{1}", "\n", "\\", "\"", "'", "\u{7f}", "中", "😀", "A", "\u{10ffff}"];
    let first = on.random().below(characters.len());
    for index in on.rounds(characters.len(), Duration::from_secs(2)).await? {
        let character = characters[(first + index) % characters.len()];
        let lengths = [[0, 64, 32, 0], [0, 32, 64, 0], [24, 24, 24, 24], [8, 8, 16, 64], [64, 8, 12, 12]];
        let keys = lengths.map(|lengths| filled(character, lengths));
        are_apart(&on, &keys.into_iter().collect::<PropertyResult<Vec<_>>>()?).await?;
    }
    Ok(())
}

/// A key whose parts have these lengths and are of one character, but for the rest of a length that is no multiple.
fn filled(character: &str, lengths: [usize; 4]) -> PropertyResult<TokenKey> {
    let [tenant, user, provider, account] = lengths.map(|length| {
        let text = character.repeat(length / character.len());
        format!("{text}{}", "x".repeat(length - text.len()))
    });
    Ok(TokenKey::from_parts(tenant, user, provider, account)?)
}

/// The lengths of a key's parts are not counted modulo 256 or 65,536: no part reaches into the next one.
pub async fn lengths_do_not_wrap(on: Arc<TestedStorage>) -> PropertyResult {
    for one in 0..4 {
        for other in (0..4).filter(|other| *other != one) {
            for (wraps, length) in [(256, usize::from(b'x')), (65_536, usize::from(u16::from_be_bytes(*b"xx")))] {
                // Written down with lengths that wrap, both of these are a short length, a long row of `x`, and another
                // length that is itself spelled `x` or `xx`.
                let first = two_parts(one, 1, other, wraps + length)?;
                let second = two_parts(one, 1 + wraps, other, length)?;
                let third = two_parts(one, 1, other, length)?;
                are_apart(&on, &[first, second, third]).await?;
            }
        }
    }
    Ok(())
}

/// However many keys there are, each has its own record, and none is dropped for another.
pub async fn no_record_is_evicted_for_another(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_room()?;
    let mut written = Vec::new();
    for batch in on.rounds(16, Duration::from_millis(400)).await? {
        let records: Vec<_> = (0..512)
            .map(|index| Ok((key(&format!("user{batch}-{index}"))?, Record::new(format!("{batch}-{index}")))))
            .collect::<PropertyResult<_>>()?;
        on.put_all(records.clone()).await?;
        written.extend(records);
    }
    let count = written.len();
    on.together(written, move |storage, (key, record)| async move {
        let found = storage.get(&key).await?.map(|found| found.value.payload);
        let what = format!("{} after {count} keys were written", Call::get(&key));
        ensure_eq!(found, Some(record.payload), "{what}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// Two storages with different namespaces in one database do not see each other, also where one name begins the other.
pub async fn namespaces_are_apart(on: Arc<TestedStorage>) -> PropertyResult {
    let names = ["a", "ab", "a_b"];
    let name = |index: usize| if index == 0 { "the first" } else { names[index - 1] };
    let mut storages = vec![Arc::clone(on.storage())];
    for name in names {
        storages.push(on.harness().sibling(name).await?);
    }
    let users = ["alice", "balice", "b_alice"];
    for (index, storage) in storages.iter().enumerate() {
        for user in users {
            let payload = format!("{index} {user}");
            let (key, record) = (key(user)?, Record::new(payload));
            let written = storage.put(&key, &record, Precondition::Absent).await;
            let put = Call::put(&key, &record, Precondition::Absent);
            let is_conflict = matches!(written, Err(StorageError::Conflict));
            ensure!(
                !is_conflict,
                "{put} in namespace {:?} is a Conflict, and only other namespaces have one",
                name(index)
            );
            written?;
        }
    }
    for (index, storage) in storages.iter().enumerate() {
        for user in users {
            let found = storage.get(&key(user)?).await?.map(|found| found.value.payload);
            let what = format!("{} in namespace {:?}", Call::get(&key(user)?), name(index));
            ensure_eq!(found, Some(format!("{index} {user}").into_bytes()), "{what}");
        }
        if storage.capabilities().listable {
            let listed = list_all(storage.as_ref(), &Filter::everything(), 100).await?;
            ensure_eq!(listed.len(), 3, "list in namespace {:?}: how many records, of 3 written", name(index));
        }
    }
    storages[1].delete(&key("alice")?, None).await?;
    let found = storages[2].get(&key("alice")?).await?;
    let delete = Call::delete(&key("alice")?, None);
    ensure!(found.is_some(), "get in namespace \"ab\" after {delete} in namespace \"a\" is None");
    Ok(())
}

/// Keys whose payloads are equal share nothing: a write, a delete or the end of a retention of one leaves the others.
pub async fn equal_payloads_have_records_of_their_own(on: Arc<TestedStorage>) -> PropertyResult {
    let size = on.fitting(5_000);
    for (round, payload) in [b"x".to_vec(), vec![b'x'; size], vec![b'y'; size / 2]].into_iter().enumerate() {
        let keys: Vec<_> = (0..5).map(|index| key(&format!("user{index}"))).collect::<PropertyResult<_>>()?;
        for key in &keys {
            on.storage().put(key, &Record::new(payload.clone()), Precondition::Always).await?;
        }
        let expired = Record::new(payload.clone()).with_retain_for(Some(Duration::ZERO));
        for step in ["written over", "purged", "deleted"] {
            match step {
                "written over" => drop(on.storage().put(&keys[0], &Record::new("other"), Precondition::Always).await?),
                "purged" => {
                    on.storage().put(&keys[1], &expired, Precondition::Always).await?;
                    on.storage().purge(100).await?;
                }
                _ => drop(on.storage().delete(&keys[2], None).await?),
            }
            for key in &keys[3..] {
                let found = on.storage().get(key).await?.map(|found| found.value.payload);
                let get = Call::get(key);
                ensure_eq!(
                    found,
                    Some(payload.clone()),
                    "round {round}: {get} after a record with an equal payload was {step}"
                );
            }
        }
    }
    Ok(())
}

/// In any history of writes and deletes, no user ever reads what was written for another.
pub async fn no_user_reads_another_users_record(on: Arc<TestedStorage>) -> PropertyResult {
    let users = ["alice", "Alice", "alice ", "bob", "bob:github", "%", "álice"];
    let mut random = on.random();
    let mut present = [false; 7];
    for step in 0..150 {
        let index = random.below(users.len());
        let key = key(users[index])?;
        match random.below(4) {
            0 => {
                let removed = on.storage().delete(&key, None).await?;
                ensure_eq!(removed, present[index], "step {step}: {}", Call::delete(&key, None));
                present[index] = false;
            }
            1 => {
                let payload = format!("for {:?}, step {step}", users[index]);
                on.storage().put(&key, &Record::new(payload), Precondition::Always).await?;
                present[index] = true;
            }
            _ => {
                let found = on.storage().get(&key).await?;
                let get = Call::get(&key);
                let state = if present[index] { "a record" } else { "no record" };
                ensure!(
                    found.is_some() == present[index],
                    "step {step}: {get} is {}, and this user has {state}",
                    found.show()
                );
                let mine = format!("for {:?},", users[index]);
                let is_mine = found.as_ref().is_none_or(|found| found.value.payload.starts_with(mine.as_bytes()));
                ensure!(is_mine, "step {step}: {get} shows another user's record, {}", found.show());
            }
        }
    }
    Ok(())
}

/// A key with a text as one of its parts, and the others plain.
fn long(part: usize, text: &str) -> PropertyResult<TokenKey> {
    let mut parts = ["", "alice", "github", ""];
    parts[part] = text;
    Ok(TokenKey::from_parts(parts[0], parts[1], parts[2], parts[3])?)
}

/// A key with so many `x` in two of its parts, and as little as can be in the others.
fn two_parts(one: usize, length: usize, other: usize, other_length: usize) -> PropertyResult<TokenKey> {
    let mut parts = ["", "x", "x", ""].map(str::to_owned);
    parts[one] = "x".repeat(length);
    parts[other] = "x".repeat(other_length);
    let [tenant, user, provider, account] = parts;
    Ok(TokenKey::from_parts(tenant, user, provider, account)?)
}

/// Every text of a group in every part of a key, with the other parts plain. A slow storage is tried with some of the
/// groups, and one in which all records of a browser are one cookie, with some texts at a time.
async fn groups_are_apart(on: &TestedStorage, groups: &[&[&str]]) -> PropertyResult {
    let (at_once, time) = if on.capabilities().request_bound { (6, 1) } else { (usize::MAX, 4) };
    let first = on.random().below(groups.len());
    let texts = (0..groups.len()).flat_map(|index| groups[(first + index) % groups.len()].chunks(at_once));
    for (_, texts) in on.rounds(usize::MAX, Duration::from_secs(time)).await?.zip(texts) {
        let mut keys = BTreeSet::from([key("alice")?]);
        for text in texts {
            for part in 0..4 {
                keys.insert(long(part, text)?);
            }
        }
        are_apart(on, &keys.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}
