//! `list` returns exactly the records that are stored, page by page.
//!
//! An application lists to show users their accounts, to erase a user's data, to refresh tokens in the background and to
//! find records that are sealed with an old key. A record that is missing in the list is missing in all of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Cursor, Entry, Filter, PageRequest, Precondition, Record, StorageError, TokenKey, Version};

use crate::calls::{Call, pages};
use crate::outcome::{PropertyResult, ensure, ensure_eq, ensure_error};
use crate::show::Show;
use crate::tested_storage::{TestedStorage, key, list_all, retained_for, rich};

/// `list` returns `Unsupported` if the storage does not declare it, and never an empty page.
///
/// An empty page would mean that a user has no tokens, for instance when an operator erases the user's data.
pub async fn an_undeclared_list_is_unsupported(on: Arc<TestedStorage>) -> PropertyResult {
    if on.capabilities().listable {
        return Err(crate::Stop::not_applicable("listable"));
    }
    on.storage().put(&key("alice")?, &rich("x"), Precondition::Always).await?;
    let page = on.storage().list(&Filter::everything(), PageRequest::default()).await;
    ensure_error!(page, StorageError::Unsupported(_), "list of a storage that does not declare it");
    Ok(())
}

/// `list` returns every record once, with its version and hints, and no deleted record.
///
/// Checks one page of 32 records, and again after some of them were deleted and others were written with other hints.
pub async fn the_list_is_exact(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    // One page, and keys that no storage confuses: properties of their own test pages and keys.
    let everything = Filter::everything();
    let list = pages(&everything, 100);
    let keys: Vec<_> = (0..32).map(|index| key(&format!("user{index:02}"))).collect::<PropertyResult<_>>()?;
    ensure_eq!(all(&on, &everything, 100).await?, vec![], "{list} of a new storage");
    let mut wanted = BTreeMap::new();
    for (index, key) in keys.iter().cloned().enumerate() {
        let plain = Record::new("x");
        let record = if index % 2 == 0 { rich("x") } else { plain };
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        wanted.insert(key.clone(), Entry::new(key, version, &record));
    }
    are_listed(&all(&on, &everything, 100).await?, &values(&wanted), &list)?;

    for (index, key) in keys.into_iter().enumerate() {
        if index % 3 == 0 {
            on.storage().delete(&key, None).await?;
            wanted.remove(&key);
        } else if index % 3 == 1 {
            // A conditional write, with other hints than before.
            let record = if index % 2 == 0 { Record::new("y") } else { rich("y").with_key_id(Some("2".to_owned())) };
            let before = wanted.get(&key).map(|entry: &Entry| Precondition::Version(entry.version));
            let when = before.unwrap_or(Precondition::Always);
            let version = on.storage().put(&key, &record, when).await?;
            wanted.insert(key.clone(), Entry::new(key, version, &record));
        }
    }
    let what = format!("{list} after some records were deleted and others written again");
    are_listed(&all(&on, &everything, 100).await?, &values(&wanted), &what)
}

/// Pages of any size cover the list exactly, and no page is larger than requested.
///
/// Tries limits from 0, which must still make progress, to `usize::MAX`, which must not overflow or allocate.
pub async fn pages_of_any_size_cover_the_list(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let mut wanted = Vec::new();
    for index in 0..12 {
        let (key, record) = (key(&format!("user{index:02}"))?, rich("x"));
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        wanted.push(Entry::new(key, version, &record));
    }
    for limit in [0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 999, 1_000, 1_001, i64::MAX as usize, usize::MAX] {
        let listed = all(&on, &Filter::everything(), limit).await?;
        are_listed(&listed, &wanted, &pages(&Filter::everything(), limit))?;
    }
    Ok(())
}

/// A list that is declared as `ordered` is in the order of the keys, by the bytes of their parts, and continues after any
/// key, whether it is stored or not.
///
/// Only for storages that declare `ordered`. Collations, joined keys and length prefixes have other orders.
pub async fn an_ordered_list_is_in_the_order_of_the_keys(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    if !on.capabilities().ordered {
        return Err(crate::Stop::not_applicable("not ordered"));
    }
    // Their order differs from that by language, case, length, number or UTF-16.
    let texts =
        ["B", "a", "aa", "a b", "b", "b2", "b10", "\u{e9}", "z", "\u{fffd}", "\u{1f511}", "_", "~", "a-b", "ab"];
    let mut keys = BTreeSet::new();
    for text in texts {
        for parts in [["", text, "m", ""], ["", "m", text, ""], [text, "m", "m", ""], ["", "m", "m", text]] {
            keys.insert(TokenKey::from_parts(parts[0], parts[1], parts[2], parts[3])?);
        }
        // If one part is greater, the next one is less.
        for other in ["", "y"] {
            keys.insert(TokenKey::from_parts(other, text, if text < "b" { "z" } else { "c" }, other)?);
        }
    }
    on.put_all(keys.iter().map(|key| (key.clone(), Record::new("x"))).collect()).await?;
    for filter in [Filter::everything(), Filter::everything().tenant(None), Filter::everything().user("m")] {
        let entry = |key: &TokenKey| Entry::new(key.clone(), Version::from_bytes([0; 16]), &Record::new(""));
        let wanted: Vec<_> = keys.iter().filter(|key| filter.matches(&entry(key))).cloned().collect();
        for limit in [1, 7, 1_000] {
            let listed: Vec<_> =
                list_all(on.storage().as_ref(), &filter, limit).await?.into_iter().map(|entry| entry.key).collect();
            in_order(&listed, &wanted, &pages(&filter, limit))?;
        }
    }
    for text in texts {
        let missing = TokenKey::from_parts("", format!("{text}!"), "m", "")?;
        let (mut listed, mut after) = (Vec::new(), Some(Cursor::after(&missing)));
        // A page may be empty although more follow.
        while listed.is_empty() && after.is_some() {
            let page = on.storage().list(&Filter::everything(), PageRequest { after, limit: 1_000 }).await?;
            listed = page.entries.into_iter().map(|entry| entry.key).collect();
            after = page.next;
        }
        let wanted: Vec<_> = keys.range(missing.clone()..).take(listed.len().max(1)).cloned().collect();
        in_order(&listed, &wanted, &format!("list after ({}), which is not stored", missing.show()))?;
    }
    Ok(())
}

fn in_order(listed: &[TokenKey], wanted: &[TokenKey], what: &str) -> PropertyResult {
    let first = (0..listed.len().max(wanted.len())).find(|index| listed.get(*index) != wanted.get(*index));
    let Some(index) = first else { return Ok(()) };
    let [found, wanted] = [listed, wanted].map(|keys| keys.get(index).map(|key| format!("({})", key.show())));
    let [found, wanted] = [found, wanted].map(|key| key.unwrap_or_else(|| "nothing".to_owned()));
    Err(crate::Stop::failed(format_args!(
        "{what}, which is declared to be ordered: number {index} is {found}, not {wanted}"
    )))
}

/// A list of more than a thousand records is complete, in pages of any size.
///
/// Many servers return at most 1,000 entries at a time. All records belong to one user, so the list of that user is long
/// too.
pub async fn long_lists_are_whole(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let alice = key("alice")?;
    let account = |number: usize| Ok(alice.clone().with_account(format!("{number}"))?);
    let keys: Vec<_> = (0..1_105).map(account).collect::<PropertyResult<_>>()?;
    on.put_all(keys.iter().map(|key| (key.clone(), Record::new("x"))).collect()).await?;
    for (limit, filter) in [
        (usize::MAX, Filter::everything()),
        (1_100, Filter::everything().tenant(None)),
        (1_000, Filter::everything().provider("github")),
        (500, Filter::everything().tenant(None).user("alice")),
    ] {
        all_are_listed(&on, &filter, limit, keys.len()).await?;
    }
    on.concurrently(keys, |storage, key| async move { Ok(storage.delete(&key, None).await?) }).await?;
    let left = list_all(on.storage().as_ref(), &Filter::everything(), usize::MAX).await?;
    ensure_eq!(left, vec![], "list after all records were deleted");
    Ok(())
}

/// The list has this number of entries, all of different keys.
pub(crate) async fn all_are_listed(on: &TestedStorage, filter: &Filter, limit: usize, count: usize) -> PropertyResult {
    let listed = list_all(on.storage().as_ref(), filter, limit).await?;
    let different: BTreeSet<_> = listed.iter().map(|entry| &entry.key).collect();
    let what = pages(filter, limit);
    ensure_eq!(listed.len(), count, "{what} of {count} records: the number of entries");
    ensure_eq!(different.len(), count, "{what} of {count} records: the number of different keys");
    Ok(())
}

/// All records of a user can be listed and removed, and no other user's record is affected.
///
/// Lists with the user as the filter and deletes each version, as an application does when a user closes their account.
pub async fn a_user_can_be_removed(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    for key in many()? {
        on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    }
    let alice = Filter::everything().tenant(None).user("alice");
    let before = all(&on, &Filter::everything(), 10).await?;
    for entry in all(&on, &alice, 1).await? {
        let delete = Call::delete(&entry.key, Some(entry.version));
        let removed = on.storage().delete(&entry.key, Some(entry.version)).await?;
        ensure_eq!(removed, true, "{delete}, the listed version");
    }
    ensure_eq!(all(&on, &alice, 10).await?, vec![], "{} after all listed records were deleted", pages(&alice, 10));
    let others: Vec<_> = before.into_iter().filter(|entry| !alice.matches(entry)).collect();
    are_listed(&all(&on, &Filter::everything(), 10).await?, &others, "list after one user's records were deleted")
}

/// Every record that `get` returns is listed, whatever its size and hints are, until its retention ends.
///
/// An index that is written separately from the records fails this, and so does a list that rounds the retention
/// differently from `get`.
pub async fn no_record_is_hidden_from_the_list(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let mut wanted = BTreeMap::new();
    for size in [0, 1, 1_024, 4_097, 65_537, 262_145, 1_048_576] {
        let size = on.accepted_length(size);
        for (name, hints) in [("plain", Record::new("")), ("rich", rich(""))] {
            let key = key(&format!("{name} {size}"))?;
            let mut record = Record::new(vec![b'x'; size]).with_key_id(hints.key_id);
            record = record.with_expires_at(hints.expires_at).with_retain_for(hints.retain_for);
            let version = on.storage().put(&key, &record, Precondition::Always).await?;
            wanted.insert(key.clone(), Entry::new(key, version, &record));
        }
    }
    for filter in [Filter::everything(), Filter::everything().tenant(None).provider("github")] {
        let what = format!("{} of records of several sizes", pages(&filter, 100));
        are_listed(&all(&on, &filter, 100).await?, &values(&wanted), &what)?;
    }
    for seconds in [1, 2, 3, 5, 10, 30, 60] {
        short_lived_is_listed(&on, seconds).await?;
    }
    Ok(())
}

/// A `list` returns a record if `get` returns it before and after that call.
async fn short_lived_is_listed(on: &TestedStorage, seconds: u64) -> PropertyResult {
    let key = key(&format!("short {seconds}"))?;
    let record = retained_for("x", Duration::from_secs(seconds));
    let filter = Filter::everything().tenant(None).user(key.user());
    let mut hidden = 0;
    // A second of the clock may end between two calls, but not between most of them.
    for _ in 0..40 {
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        let mut is_there = on.storage().get(&key).await?.is_some();
        let listed = all(on, &filter, 10).await?;
        is_there &= on.storage().get(&key).await?.is_some();
        if listed.iter().any(|entry| entry.version == version) {
            return Ok(());
        }
        hidden += usize::from(is_there);
        let what = format!("{} while get returns a record with a retention of {seconds} s", pages(&filter, 10));
        ensure!(hidden < 4, "{what}: the record is missing, in {hidden} of {hidden} attempts");
    }
    Ok(())
}

/// Deleting one of a user's many accounts does not hide the others in any list.
///
/// A storage fails this if it removes or rewrites the index entry of a user together with one account.
pub async fn deleting_one_account_hides_no_other(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let mut keys = Vec::new();
    for tenant in ["", "acme"] {
        for account in 0..30 {
            keys.push(TokenKey::from_parts(tenant, "alice", "github", format!("account{account:02}"))?);
        }
    }
    // Some with a retention and some without, because what ends a retention may also clean up after a delete.
    let record = |index: usize| if index.is_multiple_of(3) { rich("x") } else { Record::new("x") };
    let records = keys.iter().enumerate().map(|(index, key)| (key.clone(), record(index))).collect();
    let written = keys.iter().zip(on.put_all(records).await?).enumerate();
    let entries = written.map(|(index, (key, version))| Entry::new(key.clone(), version, &record(index)));
    let mut entries: Vec<_> = entries.collect();
    for (index, is_conditional) in [(0, false), (12, true), (28, true), (56, false), (40, true)] {
        let deleted = entries.remove(index);
        let only = is_conditional.then_some(deleted.version);
        let delete = Call::delete(&deleted.key, only);
        on.storage().delete(&deleted.key, only).await?;
        for filter in [
            Filter::everything(),
            Filter::everything().user("alice"),
            Filter::everything().tenant(None).user("alice"),
            Filter::everything().tenant(Some("acme")).user("alice"),
            Filter::everything().tenant(Some("acme")).user("alice").provider("github"),
        ] {
            let mut wanted: Vec<_> = entries.iter().filter(|entry| filter.matches(entry)).cloned().collect();
            wanted.sort_by(|one, other| one.key.cmp(&other.key));
            are_listed(&all(&on, &filter, 100).await?, &wanted, &format!("{} after {delete}", pages(&filter, 100)))?;
        }
    }
    Ok(())
}

/// 32 keys with several tenants, users, providers and accounts.
pub(crate) fn many() -> PropertyResult<Vec<TokenKey>> {
    let mut keys = Vec::new();
    for user in ["alice", "bob", "carol", "dave"] {
        for provider in ["github", "google"] {
            for (tenant, account) in [("", ""), ("", "work"), ("acme", ""), ("acme", "work")] {
                keys.push(TokenKey::from_parts(tenant, user, provider, account)?);
            }
        }
    }
    Ok(keys)
}

/// The listed entries are the wanted ones, in any order. A failure shows only what is missing, unexpected or changed.
#[track_caller]
pub(crate) fn are_listed(listed: &[Entry], wanted: &[Entry], what: &str) -> PropertyResult {
    let among = |entry: &Entry, others: &[Entry]| others.iter().any(|other| other.key == entry.key);
    let keys = |entries: &[Entry], others: &[Entry]| {
        let lone = entries.iter().filter(|entry| !among(entry, others));
        lone.map(|entry| format!("({})", entry.key.show())).collect::<Vec<_>>()
    };
    let changed = listed.iter().filter(|entry| among(entry, wanted) && !wanted.contains(entry)).map(|entry| {
        let due = wanted.iter().find(|due| due.key == entry.key);
        format!("{} instead of {}", entry.show(), due.map(Show::show).unwrap_or_default())
    });
    let twice = listed.iter().enumerate().filter(|(index, entry)| among(entry, &listed[..*index]));
    let differences = [
        ("missing", keys(wanted, listed)),
        ("unexpected", keys(listed, wanted)),
        ("changed", changed.collect()),
        ("listed twice", twice.map(|(_, entry)| format!("({})", entry.key.show())).collect()),
    ];
    let differences: Vec<_> = differences.iter().filter(|(_, those)| !those.is_empty()).collect();
    let shown: Vec<_> = differences.iter().map(|(name, those)| format!("{name}: {}", some(those))).collect();
    ensure!(shown.is_empty(), "{what}: {}", shown.join("; "));
    Ok(())
}

/// The first few texts, and how many there are.
fn some(those: &[String]) -> String {
    let shown = those.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    if those.len() > 4 { format!("{shown}, ... ({} in all)", those.len()) } else { shown }
}

/// The entries of all pages, sorted by key.
pub(crate) async fn all(on: &TestedStorage, filter: &Filter, limit: usize) -> PropertyResult<Vec<Entry>> {
    let mut entries = list_all(on.storage().as_ref(), filter, limit).await?;
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(entries)
}

pub(crate) fn values(entries: &BTreeMap<TokenKey, Entry>) -> Vec<Entry> {
    entries.values().cloned().collect()
}
