//! A cursor is a position in the order of keys, whatever the next call is and whether the record at the position still exists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    Cursor, Entry, Filter, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, Version,
};

use crate::calls::{Call, pages};
use crate::outcome::{PropertyResult, ensure, ensure_eq, ensure_error};
use crate::paging::keys_are_listed;
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_after, list_all, rich};

/// A cursor that the storage did not create is rejected with `InvalidCursor`: the result is neither the first page nor
/// an empty one.
///
/// Tries made-up bytes, and a valid cursor with bytes appended. A list that starts again at the first page never ends
/// for its caller.
pub async fn foreign_cursors_are_refused(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    on.storage().put(&key("alice")?, &rich("x"), Precondition::Always).await?;
    let made_up = [
        vec![],
        vec![0],
        vec![0xff],
        vec![0; 3],
        // The lengths are those of no number and no hash, which may be positions.
        vec![0xff; 19],
        vec![0xff; 61],
        b"null".to_vec(),
        b"'; DROP TABLE tokens; -- ".to_vec(),
    ];
    for bytes in made_up {
        let after = Some(Cursor::from_bytes(bytes.clone()));
        let page = on.storage().list(&Filter::everything(), PageRequest { after, limit: 10 }).await;
        ensure_error!(page, StorageError::InvalidCursor, "list after the made-up cursor {}", bytes.show());
    }
    on.storage().put(&key("bob")?, &rich("x"), Precondition::Always).await?;
    let page = on.storage().list(&Filter::everything(), PageRequest { after: None, limit: 1 }).await?;
    let Some(next) = page.next else { return Ok(()) };
    // A cursor of the storage, with bytes appended that end no text.
    for tail in [&[0xff][..], &[0xff; 16], &[0xfe, 0xff, 0]] {
        let bytes = [next.as_bytes(), tail].concat();
        let after = Some(Cursor::from_bytes(bytes.clone()));
        let page = on.storage().list(&Filter::everything(), PageRequest { after, limit: 10 }).await;
        let what = format!("list after a valid cursor with {} appended, {}", tail.to_vec().show(), bytes.show());
        ensure_error!(page, StorageError::InvalidCursor, "{what}");
    }
    Ok(())
}

/// A list continues after a record that was deleted in the meantime, with another limit or filter, or through another
/// handle.
///
/// Deletes each record as soon as it is listed. A cursor has to be a position in the order of keys, not an offset, and
/// not a row that must still exist.
pub async fn a_list_continues_from_any_cursor(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let handles = on.recorded_handles(2).await?;
    let alice = key("alice")?;
    let account = |index| Ok(alice.clone().with_account(format!("account{index:02}"))?);
    let keys: Vec<_> = (0..12).map(account).collect::<PropertyResult<_>>()?;
    for key in &keys {
        handles[0].put(key, &rich("x"), Precondition::Always).await?;
    }
    // Each of them may use another index, and all of them match every record.
    let mine = Filter::everything().tenant(None).user("alice");
    let soon = Filter::everything().expiring_before(Timestamp::from_unix_seconds(253_402_300_799));
    let filters = [Filter::everything(), mine.clone(), mine, soon, Filter::everything().provider("github")];
    let (mut listed, mut after) = (Vec::new(), None);
    for turn in 0..100 {
        let filter = filters[turn % filters.len()].clone();
        let page = handles[turn % 2].list(&filter, PageRequest { after, limit: 1 + turn % 3 }).await?;
        for entry in page.entries {
            // Everything that was listed is deleted, including the record at the position of the cursor.
            let delete = Call::delete(&entry.key, Some(entry.version));
            let removed = handles[0].delete(&entry.key, Some(entry.version)).await?;
            ensure_eq!(removed, true, "{delete}, the listed version");
            listed.push(entry.key);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ensure!(after.is_none(), "list does not end: there is a next page after 100 pages");
    keys_are_listed(listed, &keys, "list, with each record deleted as soon as it was listed")
}

/// A cursor is valid for any filter and limit, whether or not the record at its position matches the filter.
///
/// Continues a list with each of several filters, from every position of a list without a filter and of one with a filter
/// on the expiry, which may use another index.
pub async fn a_cursor_is_valid_for_any_filter(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let mut keys = Vec::new();
    for (tenant, user) in [("", "alice"), ("", "bob"), ("acme", "alice"), ("acme", "carol")] {
        for provider in ["github", "google"] {
            keys.push(TokenKey::from_parts(tenant, user, provider, "")?);
            keys.push(TokenKey::from_parts(tenant, user, provider, "work")?);
        }
    }
    keys.sort();
    // The order of the expiries is not that of the keys.
    let expiry = |index: usize| Some(Timestamp::from_unix_seconds(1_000 + index as u64 * 7 % 5));
    let records: BTreeMap<_, _> = keys.iter().cloned().enumerate().map(|(index, key)| (key, expiry(index))).collect();
    let record = |key: &TokenKey| rich("x").with_expires_at(records.get(key).copied().flatten());
    on.put_all(keys.iter().map(|key| (key.clone(), record(key))).collect()).await?;
    let expiring = Filter::everything().expiring_before(Timestamp::from_unix_seconds(2_000));
    let filters = [
        Filter::everything(),
        Filter::everything().expiring_before(Timestamp::from_unix_seconds(1_003)),
        Filter::everything().user("bob"),
        Filter::everything().provider("github"),
        Filter::everything().tenant(None),
        Filter::everything().tenant(Some("acme")).user("alice"),
        Filter::everything().tenant(None).user("alice").provider("google"),
        Filter::everything().user("no such"),
    ];
    let entry = |key: &TokenKey| Entry::new(key.clone(), Version::from_bytes([0; 16]), &record(key));
    for (first, filters) in [(Filter::everything(), &filters[..]), (expiring, &filters[..3])] {
        let (mut before, mut after) = (BTreeSet::new(), None);
        for turn in 0.. {
            let list = pages(&first, 1);
            ensure!(turn < 100, "{list} does not end: there is a next page after 100 pages");
            let page = on.storage().list(&first, PageRequest { after, limit: 1 }).await?;
            before.extend(page.entries.into_iter().map(|entry| entry.key));
            let Some(next) = page.next else { break };
            for filter in filters {
                let limit = 1 + turn % 3;
                let listed = list_from(&on, filter, &next, limit).await?;
                let wanted = keys.iter().filter(|key| filter.matches(&entry(key)) && !before.contains(*key));
                let what = format!("{} from a cursor of {list}", pages(filter, limit));
                keys_are_listed(listed, &wanted.cloned().collect::<Vec<_>>(), &what)?;
            }
            after = Some(next);
        }
    }
    Ok(())
}

/// The keys on all pages after this cursor.
async fn list_from(on: &TestedStorage, filter: &Filter, after: &Cursor, limit: usize) -> PropertyResult<Vec<TokenKey>> {
    let entries = list_after(on.storage().as_ref(), filter, Some(after.clone()), limit).await?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

/// A list continues after any key: long keys, keys of any characters, and keys that read the same when their parts are
/// joined.
///
/// A cursor that contains a key has to encode it without ambiguity, and has to compare it in the order in which the
/// list is sorted.
pub async fn a_list_continues_after_any_key(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let mut keys = BTreeSet::new();
    for s in ["/", ":", "|", "#", "\0", "", " ", "\u{1f}"] {
        keys.insert(TokenKey::from_parts("", format!("a{s}b"), "c", "")?);
        keys.insert(TokenKey::from_parts("", "a", format!("b{s}c"), "")?);
        keys.insert(TokenKey::from_parts("", "a", "b", format!("c{s}"))?);
        keys.insert(TokenKey::from_parts("a", format!("b{s}"), "c", "")?);
    }
    for length in [1, 60, 126, 127, 128, 129, 200, 255, 256, 300, 1_000] {
        keys.insert(key(&"k".repeat(length))?);
        keys.insert(key("kim")?.with_account("é".repeat(length.div_ceil(2)))?);
    }
    for text in ["\u{80}", "ÿ", "中", "😀", "\u{10ffff}", "\u{fffd}", "\n", "\\", "%", "\u{7f}"] {
        keys.insert(key(text)?);
        keys.insert(TokenKey::new(text, "kim")?);
    }
    // Sorted in another order by a language, without regard to case, by their lengths, or as numbers.
    for text in ["A", "b", "C", "Z", "_", "a b", "ab", "aB", "Ab", "9", "10", "1e2", "e", "\u{e9}f", "f"] {
        keys.insert(key(text)?);
        keys.insert(TokenKey::new(text, "kim")?);
        keys.insert(key("kim")?.with_tenant(text)?);
        keys.insert(key("kim")?.with_account(text)?);
    }
    let mut wanted = Vec::new();
    for key in keys {
        match on.storage().put(&key, &Record::new("x"), Precondition::Always).await {
            Ok(_) => wanted.push(key),
            Err(StorageError::KeyTooLong { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for limit in [1, 3] {
        let listed = list_all(on.storage().as_ref(), &Filter::everything(), limit).await?;
        let listed = listed.into_iter().map(|entry| entry.key).collect();
        keys_are_listed(listed, &wanted, &pages(&Filter::everything(), limit))?;
    }
    Ok(())
}

/// A list continues after a record whose retention has ended since it was listed, whether or not it was purged.
///
/// Takes a cursor at every position, lets every second record expire, and continues from each cursor, also after most of a
/// day.
pub async fn a_list_continues_after_an_expired_record(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let one = on.units(1).await?;
    let mut live = Vec::new();
    for index in 0..6 {
        let short = rich("x").with_retain_for(Some(one));
        on.storage().put(&key(&format!("user{index}short"))?, &short, Precondition::Always).await?;
        live.push(key(&format!("user{index}"))?);
        on.storage().put(&live[index], &rich("x"), Precondition::Always).await?;
    }
    // A cursor after each record, whether or not it will expire.
    let mut cursors = vec![None];
    let mut seen = vec![BTreeSet::new()];
    let begun = on.now();
    while let Some(after) = cursors.last().cloned() {
        let page = on.storage().list(&Filter::everything(), PageRequest { after, limit: 1 }).await?;
        let mut so_far = seen.last().cloned().unwrap_or_default();
        so_far.extend(page.entries.into_iter().map(|entry| entry.key));
        let Some(next) = page.next else { break };
        ensure!(cursors.len() < 100, "list(pages of 1) does not end: there is a next page after 100 pages");
        cursors.push(Some(next));
        seen.push(so_far);
    }
    on.pass(13).await?;
    for step in ["expired", "purged", "old"] {
        match step {
            "purged" => drop(on.storage().purge(usize::MAX).await?),
            // The other records are retained for a day.
            "old" if on.can_move_time().await? => on.advance(Duration::from_secs(80_000)).await?,
            _ => {}
        }
        for (after, before) in cursors.iter().flatten().zip(&seen[1..]) {
            let listed = list_from(&on, &Filter::everything(), after, 3).await?;
            let wanted: Vec<_> = live.iter().filter(|key| !before.contains(*key)).cloned().collect();
            let what = format!("list from a cursor, {:?} later and after records have expired", on.now() - begun);
            keys_are_listed(listed, &wanted, &what)?;
        }
    }
    Ok(())
}
