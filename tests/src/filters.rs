//! A filter selects exactly the records that match all of its conditions.
//!
//! A filter that selects too little leaves tokens behind when a user's data is erased. One that selects too much erases the
//! tokens of other users. Filters are compared with the parts of a key in the same way as keys with each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Entry, Filter, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage, Version};

use crate::calls::pages;
use crate::listing::{all, are_listed, many};
use crate::lookalikes;
use crate::outcome::{PropertyResult, ensure, ensure_eq};
use crate::paging::keys_are_listed;
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// The conditions of a filter apply to every page, and pages do not end before the list does.
///
/// A storage that filters a page after it has read it must return a cursor even if nothing on that page matches.
pub async fn filters_hold_on_every_page(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    for index in 0..30 {
        let key = TokenKey::new(["github", "google", "slack"][index % 3], format!("user{index:02}"))?;
        on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    }
    for limit in [1, 2, 3, 7, 10, 11] {
        let filter = Filter::everything().provider("google");
        let list = pages(&filter, limit);
        let listed = list_all(on.storage().as_ref(), &filter, limit).await?;
        let users: BTreeSet<_> = listed.iter().map(|entry| entry.key.user().to_owned()).collect();
        let wrong = listed.iter().find(|entry| entry.key.provider() != "google");
        ensure!(wrong.is_none(), "{list} contains a record of another provider: {}", wrong.show());
        ensure_eq!(listed.len(), 10, "{list} of 10 matching records: the number of entries");
        ensure_eq!(users.len(), 10, "{list} of 10 matching records: the number of different users");
    }
    Ok(())
}

/// A record is listed if and only if it matches every condition of the filter, alone and combined.
///
/// Combines tenant, user, provider and `expiring_before` in all ways. A record without `expires_at` matches no
/// `expiring_before`. Each record replaces one with another expiry, which an index has to forget.
pub async fn filters_are_exact(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let mut entries = Vec::new();
    for (index, key) in many()?.into_iter().enumerate() {
        let record = |index: usize| {
            let expires_at = [None, Some(1_000), Some(1_002), Some(4_294_967_299)][index % 4];
            Record::new("x").with_expires_at(expires_at.map(Timestamp::from_unix_seconds))
        };
        let before = on.storage().put(&key, &record(index + 1 + index / 4 % 3), Precondition::Always).await?;
        let when = [Precondition::Always, Precondition::Version(before), Precondition::Absent][index % 3];
        if when == Precondition::Absent {
            on.storage().delete(&key, (index % 2 == 0).then_some(before)).await?;
        }
        let record = record(index);
        let version = on.storage().put(&key, &record, when).await?;
        entries.push(Entry::new(key, version, &record));
    }
    let mut filters = Vec::new();
    // The last two exceed 32 bits.
    let befores = [0, 1_000, 1_001, 1_003, 4_294_967_299, 4_294_967_300].map(Some);
    let befores: Vec<Option<u64>> = [None].into_iter().chain(befores).collect();
    for tenant in [None, Some(""), Some("acme"), Some("no such")] {
        for user in [None, Some("alice"), Some("no such")] {
            for provider in [None, Some("github"), Some("no such")] {
                for before in befores.iter().copied() {
                    let mut filter = Filter::everything();
                    filter.tenant = tenant.map(str::to_owned);
                    filter.user = user.map(str::to_owned);
                    filter.provider = provider.map(str::to_owned);
                    filter.expiring_before = before.map(Timestamp::from_unix_seconds);
                    filters.push(filter);
                }
            }
        }
    }
    for filter in filters {
        let mut wanted: Vec<_> = entries.iter().filter(|entry| filter.matches(entry)).cloned().collect();
        wanted.sort_by(|one, other| one.key.cmp(&other.key));
        // Few records of one user match, and some of them have to be on a later page.
        let limit = if filter.user.is_some() && filter.expiring_before.is_some() { 1 } else { 5 };
        are_listed(&all(&on, &filter, limit).await?, &wanted, &pages(&filter, limit))?;
    }
    Ok(())
}

/// A filter compares like a key, byte by byte: it finds the matching records and none that looks alike. An empty user
/// or provider matches nothing.
///
/// Uses the same texts as the properties of keys. A filter may use another index than a read, with another collation.
pub async fn filters_tell_lookalikes_apart(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    for empty in [Filter::everything().user(""), Filter::everything().provider("")] {
        on.storage().put(&key("bob")?, &rich("x"), Precondition::Always).await?;
        ensure_eq!(
            all(&on, &empty, 10).await?,
            vec![],
            "{}, although no key has an empty part there",
            pages(&empty, 10)
        );
    }
    on.storage().delete(&key("bob")?, None).await?;
    let groups: Vec<_> = lookalikes::ALL.iter().flat_map(|groups| groups.iter()).collect();
    let first = on.random().below(groups.len());
    for index in on.rounds(groups.len(), Duration::from_secs(2)).await? {
        let mut texts: Vec<_> = groups[(first + index) % groups.len()].iter().filter(|text| text.len() <= 64).collect();
        texts.retain(|text| !text.is_empty());
        let parts =
            |text: &str| PropertyResult::Ok([key(text)?, TokenKey::new(text, "bob")?, key("bob")?.with_tenant(text)?]);
        let mut keys = BTreeSet::new();
        for text in &texts {
            keys.extend(parts(text)?);
        }
        on.put_all(keys.iter().map(|key| (key.clone(), Record::new("x"))).collect()).await?;
        let listed: Vec<_> = all(&on, &Filter::everything(), 100).await?.into_iter().map(|entry| entry.key).collect();
        let keys: Vec<_> = keys.into_iter().collect();
        keys_are_listed(listed, &keys, &pages(&Filter::everything(), 100))?;
        for text in texts {
            let filters = [
                Filter::everything().user(*text),
                Filter::everything().provider(*text),
                Filter::everything().tenant(Some(text)),
            ];
            for filter in filters {
                let entry = |key: &TokenKey| Entry::new(key.clone(), Version::from_bytes([0; 16]), &Record::new(""));
                let wanted: Vec<_> = keys.iter().filter(|key| filter.matches(&entry(key))).cloned().collect();
                let listed = all(&on, &filter, 100).await?.into_iter().map(|entry| entry.key).collect();
                keys_are_listed(listed, &wanted, &pages(&filter, 100))?;
            }
        }
        on.concurrently(keys, |storage, key| async move { Ok(storage.delete(&key, None).await?) }).await?;
    }
    Ok(())
}

/// The texts of a filter are compared byte by byte: they are not patterns or prefixes, and case is significant.
///
/// `LIKE` in SQL and `MATCH` in Redis fail this without escaping, and `LIKE` ignores case in some databases even with
/// it.
pub async fn filters_are_not_patterns(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let texts = [
        "alice",
        "Alice",
        "alice ",
        "álice",
        "al",
        "alicea",
        "%",
        "_____",
        "*",
        "a*",
        "al[i]ce",
        ".*",
        "?????",
        "al\\ice",
        "' OR ''='",
    ];
    for text in texts {
        for key in [key(text)?, TokenKey::new(text, "bob")?, key("bob")?.with_tenant(text)?] {
            on.storage().put(&key, &rich("x"), Precondition::Absent).await?;
        }
    }
    for text in texts {
        for (part, filter) in [
            ("user", Filter::everything().user(text)),
            ("provider", Filter::everything().provider(text)),
            ("tenant", Filter::everything().tenant(Some(text))),
        ] {
            let listed = all(&on, &filter, 10).await?;
            let (right, wrong): (Vec<_>, Vec<_>) = listed.into_iter().partition(|entry| filter.matches(entry));
            let list = pages(&filter, 10);
            ensure!(wrong.is_empty(), "{list} contains a record of another {part}: {}", wrong[0].show());
            ensure_eq!(right.len(), 1, "{list} of one matching record: the number of entries");
        }
    }
    Ok(())
}

/// A filter compares the whole of a part, however long it is: parts that differ only in their last byte are different.
///
/// An index on the beginning of a column fails this, unless the rest is compared too.
pub async fn filters_compare_long_parts_to_the_end(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let mut keys = BTreeSet::new();
    for length in [9, 16, 17, 24, 32, 33, 40, 48, 64, 65, 66, 100, 128, 129, 200, 255, 256, 300] {
        // That many characters of one byte, and that many bytes in characters of two bytes.
        for stem in ["k".repeat(length - 1), "\u{e9}".repeat(length / 2)] {
            for text in [format!("{stem}a"), format!("{stem}b"), stem] {
                keys.extend([key(&text)?, TokenKey::new(&text, "bob")?, key("bob")?.with_tenant(&text)?]);
            }
        }
    }
    let written = on.concurrently(keys, |storage, key| async move {
        match storage.put(&key, &Record::new("x"), Precondition::Always).await {
            Ok(_) => Ok(Some(key)),
            Err(StorageError::KeyTooLong { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    });
    let filters = written.await?.into_iter().flatten().map(|key| {
        let everything = Filter::everything();
        let filter = match key.parts() {
            ["", "bob", provider, _] => everything.provider(provider),
            [tenant, "bob", ..] => everything.tenant(Some(tenant)),
            [_, user, ..] => everything.user(user),
        };
        (key, filter)
    });
    let look_up = |storage: Arc<dyn TokenStorage>, (key, filter): (TokenKey, Filter)| async move {
        let listed = list_all(storage.as_ref(), &filter, 10).await?.into_iter().map(|entry| entry.key).collect();
        keys_are_listed(listed, &[key], &pages(&filter, 10))
    };
    on.concurrently(filters.collect::<Vec<_>>(), look_up).await?;
    Ok(())
}

/// A filter compares each text only with its own part of the key. The same text in another part does not match.
///
/// A storage fails this if it searches the encoded key as a whole.
pub async fn filters_compare_each_part_with_its_own(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let mut keys = Vec::new();
    for tenant in ["", "ann", "bob"] {
        for user in ["ann", "bob"] {
            for provider in ["ann", "bob"] {
                for account in ["", "ann", "bob", "eve"] {
                    keys.push(TokenKey::from_parts(tenant, user, provider, account)?);
                }
            }
        }
    }
    keys.push(TokenKey::from_parts("eve", "max", "zoe", "ann")?);
    on.put_all(keys.iter().map(|key| (key.clone(), Record::new("x"))).collect()).await?;
    keys.sort();
    let entry = |key: &TokenKey| Entry::new(key.clone(), Version::from_bytes([0; 16]), &Record::new(""));
    let texts = [None, Some("ann"), Some("eve"), Some("max"), Some("zoe")];
    for tenant in texts.into_iter().chain([Some("")]) {
        for user in texts {
            for provider in texts {
                let mut filter = Filter::everything();
                [filter.tenant, filter.user, filter.provider] =
                    [tenant, user, provider].map(|text| text.map(str::to_owned));
                let wanted: Vec<_> = keys.iter().filter(|key| filter.matches(&entry(key))).cloned().collect();
                let listed = all(&on, &filter, 100).await?.into_iter().map(|entry| entry.key).collect();
                keys_are_listed(listed, &wanted, &pages(&filter, 100))?;
            }
        }
    }
    Ok(())
}
