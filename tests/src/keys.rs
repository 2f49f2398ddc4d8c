//! Two different keys never share a record.

use std::collections::BTreeSet;
use std::sync::Arc;

use oauth_dance_core::{Filter, Precondition, Record, StorageError, TokenKey};

use crate::outcome::{Outcome, ensure, ensure_eq};
use crate::subject::{Subject, key, list_all};

/// A key that differs in its tenant, user, provider or account alone is another key.
pub async fn every_part_keeps_keys_apart(on: Arc<Subject>) -> Outcome {
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
pub async fn separators_keep_keys_apart(on: Arc<Subject>) -> Outcome {
    let mut keys = BTreeSet::new();
    for separator in [":", "|", "/", "\\", "%", ".", ",", ";", "=", "-", "_", "\0", "\u{1f}", "::", "%3A", "\"", "\n"] {
        let s = separator;
        keys.insert(TokenKey::from_parts("", "a", format!("b{s}c"), "")?);
        keys.insert(TokenKey::from_parts("", format!("a{s}b"), "c", "")?);
        keys.insert(TokenKey::from_parts("a", "b", "c", "")?);
        keys.insert(TokenKey::from_parts("", "a", "b", "c")?);
        keys.insert(TokenKey::from_parts("", "a", "b", format!("{s}c"))?);
        keys.insert(TokenKey::from_parts("", "a", format!("b{s}"), "c")?);
        keys.insert(TokenKey::from_parts("a", format!("b{s}c"), "d", "")?);
        keys.insert(TokenKey::from_parts(format!("a{s}b"), "c", "d", "")?);
        keys.insert(TokenKey::from_parts("", s, s, "")?);
        keys.insert(TokenKey::from_parts("", s, format!("{s}{s}"), "")?);
    }
    are_apart(&on, &keys.into_iter().collect::<Vec<_>>()).await
}

/// Keys are compared byte for byte: case, spaces at the ends and accents matter, in every part.
pub async fn case_spaces_and_accents_keep_keys_apart(on: Arc<Subject>) -> Outcome {
    let texts = [
        "alice", "Alice", "ALICE", "alice ", " alice", "alice\t", "álice", "alicé", "al1ce", "alice\0", "straße",
        "strasse",
    ];
    are_apart(&on, &in_every_part(&texts)?).await
}

/// Unicode is not normalized: texts that look alike are different keys, and every character comes back.
pub async fn unicode_keeps_keys_apart(on: Arc<Subject>) -> Outcome {
    let texts = [
        "caf\u{e9}",
        "cafe\u{301}",
        "cafe",
        "\u{1f511}",
        "\u{1f511}\u{fe0f}",
        "\u{5d0}\u{5d1}",
        "\u{5d1}\u{5d0}",
        "a\u{200b}b",
        "ab",
        "\u{fb01}",
        "fi",
        "\u{212b}",
        "\u{c5}",
        "\u{ff41}",
        "i\u{307}",
        "\u{130}",
        "\u{131}",
        "\u{10ffff}",
        "\u{fffd}",
    ];
    are_apart(&on, &in_every_part(&texts)?).await
}

/// Patterns, quotes and control characters in a key are data to every operation.
pub async fn special_characters_are_data(on: Arc<Subject>) -> Outcome {
    let texts = [
        "' OR 1=1 --",
        "'; DROP TABLE tokens; --",
        "\"",
        "`",
        "$1",
        "?",
        ":user",
        "%",
        "_",
        "*",
        "a*",
        "[a-z]",
        ".*",
        "^a$",
        "\\",
        "\\0",
        "%00",
        "../..",
        "{tag}",
        "{}",
        "a{b}c",
        "\r\n",
        "\u{7f}",
        "&amp;",
        "<x>",
        "${HOME}",
        "null",
        "NULL",
        "a",
        "b",
    ];
    are_apart(&on, &in_every_part(&texts)?).await
}

/// A long key works, or is refused as `KeyTooLong`; it is never cut into another key.
pub async fn long_keys_work_or_are_refused(on: Arc<Subject>) -> Outcome {
    let mut accepted = Vec::new();
    for length in [1, 63, 64, 65, 127, 128, 129, 199, 200, 201, 254, 255, 256, 257, 767, 768, 1024, 3072, 8192] {
        let text = "k".repeat(length - 1);
        let mut keys = vec![key(&format!("{text}x"))?, key(&format!("{text}y"))?];
        keys.push(TokenKey::new(format!("{text}x"), "alice")?);
        keys.push(key("alice")?.with_tenant(format!("{text}x"))?);
        keys.push(key("alice")?.with_account(format!("{text}y"))?);
        for key in keys {
            match on.storage().put(&key, &Record::new(key.to_bytes()), Precondition::Always).await {
                Ok(_) => accepted.push(key),
                Err(StorageError::KeyTooLong { limit, length, .. }) => {
                    ensure!(length > limit, "{length} bytes are refused as more than {limit}");
                    let found = on.storage().get(&key).await;
                    ensure!(
                        matches!(found, Ok(None) | Err(StorageError::KeyTooLong { .. })),
                        "a key too long to be written reads as {found:?}"
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let short = accepted.iter().filter(|key| key.parts().iter().all(|part| part.len() <= 64)).count();
    ensure!(short == 15, "a key whose parts have no more than 64 bytes is refused");
    for key in &accepted {
        let found = on.storage().get(key).await?.map(|found| found.value.payload);
        ensure!(found == Some(key.to_bytes()), "a key of {} bytes reads the record of another", key.len());
    }
    Ok(())
}

/// Two storages with different namespaces in one database do not see each other, also where one name begins the other.
pub async fn namespaces_are_apart(on: Arc<Subject>) -> Outcome {
    let names = ["a", "ab", "a_b"];
    let mut storages = vec![Arc::clone(on.storage())];
    for name in names {
        storages.push(on.harness().sibling(name).await?);
    }
    let users = ["alice", "balice", "b_alice"];
    for (index, storage) in storages.iter().enumerate() {
        for user in users {
            let payload = format!("{index} {user}");
            storage.put(&key(user)?, &Record::new(payload), Precondition::Absent).await?;
        }
    }
    for (index, storage) in storages.iter().enumerate() {
        for user in users {
            let found = storage.get(&key(user)?).await?.map(|found| found.value.payload);
            ensure_eq!(found, Some(format!("{index} {user}").into_bytes()), "namespace {index}");
        }
        if storage.capabilities().listable {
            ensure_eq!(
                list_all(storage.as_ref(), &Filter::everything(), 100).await?.len(),
                3,
                "records in namespace {index}"
            );
        }
    }
    storages[1].delete(&key("alice")?, None).await?;
    ensure!(storages[2].get(&key("alice")?).await?.is_some(), "a delete reached another namespace");
    Ok(())
}

/// In any history of writes and deletes, no user ever reads what was written for another.
pub async fn nobody_reads_anothers_record(on: Arc<Subject>) -> Outcome {
    let users = ["alice", "Alice", "alice ", "bob", "bob:github", "%", "álice"];
    let mut random = on.random();
    let mut present = [false; 7];
    for step in 0..150 {
        let index = random.below(users.len());
        let key = key(users[index])?;
        match random.below(4) {
            0 => {
                let removed = on.storage().delete(&key, None).await?;
                ensure_eq!(removed, present[index], "step {step}: whether {:?} had a record", users[index]);
                present[index] = false;
            }
            1 => {
                let payload = format!("for {index}, step {step}");
                on.storage().put(&key, &Record::new(payload), Precondition::Always).await?;
                present[index] = true;
            }
            _ => {
                let found = on.storage().get(&key).await?;
                ensure_eq!(found.is_some(), present[index], "step {step}: whether {:?} has a record", users[index]);
                let mine = format!("for {index},").into_bytes();
                let foreign = found.filter(|found| !found.value.payload.starts_with(&mine));
                ensure!(foreign.is_none(), "step {step}: {:?} reads what was written for another user", users[index]);
            }
        }
    }
    Ok(())
}

/// Every text once in every part of a key, with the other parts plain.
fn in_every_part(texts: &[&str]) -> Outcome<Vec<TokenKey>> {
    let mut keys = BTreeSet::new();
    for text in texts {
        keys.insert(TokenKey::from_parts("", *text, "github", "")?);
        keys.insert(TokenKey::from_parts("", "alice", *text, "")?);
        keys.insert(TokenKey::from_parts(*text, "alice", "github", "")?);
        keys.insert(TokenKey::from_parts("", "alice", "github", *text)?);
    }
    Ok(keys.into_iter().collect())
}

/// Writes every key a record of its own, reads and lists all of them, and deletes half without touching the rest.
async fn are_apart(on: &Subject, keys: &[TokenKey]) -> Outcome {
    for key in keys {
        let written = on.storage().put(key, &Record::new(key.to_bytes()), Precondition::Absent).await;
        ensure!(!matches!(written, Err(StorageError::Conflict)), "{key:?} shares its record with an earlier key");
        written?;
    }
    for key in keys {
        let found = on.storage().get(key).await?.map(|found| found.value.payload);
        ensure!(found == Some(key.to_bytes()), "{key:?} reads the record of another key, or none");
    }
    if on.capabilities().listable {
        let listed: Vec<_> = list_all(on.storage().as_ref(), &Filter::everything(), 50).await?;
        let listed: BTreeSet<_> = listed.into_iter().map(|entry| entry.key).collect();
        let missing: Vec<_> = keys.iter().filter(|key| !listed.contains(key)).collect();
        ensure!(missing.is_empty() && listed.len() == keys.len(), "not listed as written: {missing:?}");
    }
    for key in keys.iter().step_by(2) {
        ensure!(on.storage().delete(key, None).await?, "{key:?} was gone when it was to be deleted");
    }
    for (index, key) in keys.iter().enumerate() {
        let found = on.storage().get(key).await?.is_some();
        ensure_eq!(found, index % 2 == 1, "whether {key:?} is still there after every other key was deleted");
    }
    Ok(())
}
