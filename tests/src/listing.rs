//! `list` shows exactly what is stored, page by page.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oauth_dance_core::{Cursor, Entry, Filter, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey};

use crate::outcome::{Outcome, ensure, ensure_eq, ensure_error};
use crate::show::Show as _;
use crate::subject::{Subject, key, list_all, rich};

/// A storage that does not declare `list` answers `Unsupported`, and not an empty page.
pub async fn an_undeclared_list_is_unsupported(on: Arc<Subject>) -> Outcome {
    if on.capabilities().listable {
        return Err(crate::Stop::not_applicable("listable"));
    }
    on.storage().put(&key("alice")?, &rich("x"), Precondition::Always).await?;
    let page = on.storage().list(&Filter::everything(), PageRequest::default()).await;
    ensure_error!(page, StorageError::Unsupported(_), "list without the capability");
    Ok(())
}

/// The list holds every record once with its version and hints, and nothing that was deleted.
pub async fn the_list_is_exact(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    ensure_eq!(all(&on, &Filter::everything(), 10).await?, vec![], "the list of an empty storage");
    let mut wanted = BTreeMap::new();
    for (index, key) in many()?.into_iter().enumerate() {
        let plain = Record::new("x");
        let record = if index % 2 == 0 { rich("x") } else { plain };
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        wanted.insert(key.clone(), Entry::new(key, version, &record));
    }
    are_listed(&all(&on, &Filter::everything(), 10).await?, &values(&wanted), "the list")?;

    for (index, key) in many()?.into_iter().enumerate() {
        if index % 3 == 0 {
            on.storage().delete(&key, None).await?;
            wanted.remove(&key);
        } else if index % 3 == 1 {
            // Written with a condition, with other hints than before.
            let record = if index % 2 == 0 { Record::new("y") } else { rich("y").with_key_id(Some("2".to_owned())) };
            let before = wanted.get(&key).map(|entry: &Entry| Precondition::Version(entry.version));
            let when = before.unwrap_or(Precondition::Always);
            let version = on.storage().put(&key, &record, when).await?;
            wanted.insert(key.clone(), Entry::new(key, version, &record));
        }
    }
    are_listed(&all(&on, &Filter::everything(), 10).await?, &values(&wanted), "the list after changes")?;
    Ok(())
}

/// Pages of any size cover the list exactly, and none is larger than asked for.
pub async fn pages_of_any_size_cover_the_list(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    let keys: BTreeSet<TokenKey> = many()?.into_iter().take(12).collect();
    for key in &keys {
        on.storage().put(key, &rich("x"), Precondition::Always).await?;
    }
    for limit in [0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 999, 1_000, 1_001, i64::MAX as usize, usize::MAX] {
        let listed = list_all(on.storage().as_ref(), &Filter::everything(), limit).await?;
        ensure_eq!(listed.len(), keys.len(), "entries in pages of {limit}");
        let listed: BTreeSet<_> = listed.into_iter().map(|entry| entry.key).collect();
        ensure!(listed == keys, "pages of {limit} leave out or repeat records");
    }
    Ok(())
}

/// Every condition of a filter is kept, alone and together with others.
pub async fn filters_are_exact(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    let mut entries = Vec::new();
    for (index, key) in many()?.into_iter().enumerate() {
        let expires_at = [None, Some(1_000), Some(1_002), Some(4_294_967_299)][index % 4];
        let expires_at = expires_at.map(Timestamp::from_unix_seconds);
        let record = Record::new("x").with_expires_at(expires_at);
        let version = on.storage().put(&key, &record, Precondition::Always).await?;
        entries.push(Entry::new(key, version, &record));
    }
    let mut filters = Vec::new();
    // The last are beyond 32 bits.
    let befores = [0, 1_000, 1_001, 1_003, 4_294_967_299, 4_294_967_300].map(Some).into_iter().chain([None]);
    let befores: Vec<Option<u64>> = befores.collect();
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
        are_listed(&all(&on, &filter, 5).await?, &wanted, &format!("the list of {filter:?}"))?;
    }
    Ok(())
}

/// What a filter asks for is compared byte for byte: it is neither a pattern nor a prefix, and case matters.
pub async fn filters_are_not_patterns(on: Arc<Subject>) -> Outcome {
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
            ensure_eq!(listed.len(), 1, "records whose {part} is {text:?}, of {}", listed.show());
            ensure!(filter.matches(&listed[0]), "list of {filter:?} shows {}", listed[0].show());
        }
    }
    Ok(())
}

/// A filter and pages go together: the conditions hold on every page, and pages do not end early.
pub async fn filters_hold_on_every_page(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    for index in 0..30 {
        let key = TokenKey::new(["github", "google", "slack"][index % 3], format!("user{index:02}"))?;
        on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    }
    for limit in [1, 2, 3, 7, 10, 11] {
        let listed = list_all(on.storage().as_ref(), &Filter::everything().provider("google"), limit).await?;
        let users: BTreeSet<_> = listed.iter().map(|entry| entry.key.user().to_owned()).collect();
        ensure!(listed.iter().all(|entry| entry.key.provider() == "google"), "a later page ignores the filter");
        ensure_eq!((listed.len(), users.len()), (10, 10), "entries and users in pages of {limit}");
    }
    Ok(())
}

/// A record that is there throughout is listed exactly once, whatever is written and deleted between the pages.
pub async fn pages_are_stable_under_writes(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    // What comes and goes before the cursor must not cancel out.
    for (round, (created, deleted)) in [(3, 0), (0, 3), (2, 2)].into_iter().enumerate() {
        let name = |user: String| Outcome::Ok(TokenKey::new(format!("round{round}"), user)?);
        let mut records = Vec::new();
        for index in 0..40 {
            records.push((name(format!("m{index:03}"))?, rich("x")));
            records.push((name(format!("gone{index:03}"))?, rich("x")));
        }
        on.put_all(records).await?;
        let filter = Filter::everything().provider(format!("round{round}"));
        let (mut listed, mut after) = (Vec::new(), None);
        for turn in 0.. {
            ensure!(turn < 1_000, "the list never ends");
            let page = on.storage().list(&filter, PageRequest { after, limit: 5 }).await?;
            listed.extend(page.entries.into_iter().map(|entry| entry.key));
            let Some(next) = page.next else { break };
            after = Some(next);
            for index in (0..created).filter(|_| turn < 30) {
                let prefix = ["a", "z", "m0"][index];
                on.storage().put(&name(format!("{prefix}new{turn}"))?, &rich("x"), Precondition::Always).await?;
            }
            for index in (0..deleted).map(|index| turn * deleted + index) {
                on.storage().delete(&name(format!("gone{index:03}"))?, None).await?;
            }
            on.storage().put(&name(format!("m{:03}", turn * 7 % 40))?, &rich("again"), Precondition::Always).await?;
        }
        for index in 0..40 {
            let key = name(format!("m{index:03}"))?;
            let times = listed.iter().filter(|listed| **listed == key).count();
            ensure_eq!(times, 1, "how often {key:?} was listed although it was there throughout");
        }
    }
    Ok(())
}

/// Each page shows what is stored when it is asked for: no record that was deleted since the first page, and none as it was.
pub async fn later_pages_are_as_new_as_the_first(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    let keys: Vec<_> = (0..9).map(|index| key(&format!("user{index}"))).collect::<Outcome<_>>()?;
    for limit in [1, 2, 4] {
        for key in &keys {
            on.storage().put(key, &rich("x"), Precondition::Always).await?;
        }
        let mut page = on.storage().list(&Filter::everything(), PageRequest { after: None, limit }).await?;
        let ahead: Vec<_> = keys.iter().filter(|key| page.entries.iter().all(|entry| entry.key != **key)).collect();
        let mut wanted = BTreeMap::new();
        for (index, key) in ahead.iter().enumerate() {
            if index % 2 == 0 {
                on.storage().delete(key, None).await?;
                continue;
            }
            let record = Record::new("y");
            let version = on.storage().put(key, &record, Precondition::Always).await?;
            wanted.insert((*key).clone(), Entry::new((*key).clone(), version, &record));
        }
        let mut listed = BTreeMap::new();
        while let Some(after) = page.next {
            page = on.storage().list(&Filter::everything(), PageRequest { after: Some(after), limit }).await?;
            listed.extend(page.entries.into_iter().map(|entry| (entry.key.clone(), entry)));
        }
        let what = format!("list: later pages of {limit}, after all that lay ahead was deleted or rewritten");
        are_listed(&values(&listed), &values(&wanted), &what)?;
    }
    Ok(())
}

/// A record that is rewritten all the time is listed exactly once, and so is what lies beside it.
pub async fn a_record_is_listed_while_it_is_rewritten(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    let handles = on.handles(2).await?;
    let keys: Vec<_> = (0..6).map(|index| key(&format!("user{index}"))).collect::<Outcome<_>>()?;
    for key in &keys {
        on.storage().put(key, &rich("x"), Precondition::Always).await?;
    }
    let done = Arc::new(AtomicBool::new(false));
    let (writer, target, stop) = (Arc::clone(&handles[1]), keys.clone(), Arc::clone(&done));
    let writing = tokio::spawn(async move {
        while !stop.load(Ordering::SeqCst) {
            for key in &target[..3] {
                let version = writer.put(key, &rich("y"), Precondition::Always).await?;
                writer.put(key, &Record::new("z"), Precondition::Version(version)).await?;
            }
            tokio::task::yield_now().await;
        }
        Outcome::Ok(())
    });
    let mut checked = Ok(());
    for round in on.rounds(300, Duration::from_millis(200)).await? {
        let listed = list_all(handles[0].as_ref(), &Filter::everything(), 1 + round % 7).await;
        checked = listed.and_then(|listed| {
            let mut listed: Vec<_> = listed.into_iter().map(|entry| entry.key).collect();
            listed.sort();
            ensure_eq!(listed, keys, "round {round}: list while some of the records are rewritten");
            Ok(())
        });
        if checked.is_err() {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    writing.await??;
    checked
}

/// A list of more than a thousand records is whole, in pages of any size.
pub async fn long_lists_are_whole(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    let count = 1_105;
    let keys: Vec<_> = (0..count).map(|index| key(&format!("user{index}"))).collect::<Outcome<_>>()?;
    on.put_all(keys.iter().map(|key| (key.clone(), Record::new("x"))).collect()).await?;
    for (limit, filter) in [
        (usize::MAX, Filter::everything()),
        (1_100, Filter::everything().tenant(None)),
        (1_000, Filter::everything().provider("github")),
        (500, Filter::everything()),
    ] {
        let listed = list_all(on.storage().as_ref(), &filter, limit).await?;
        let different: BTreeSet<_> = listed.iter().map(|entry| &entry.key).collect();
        ensure_eq!(
            (listed.len(), different.len()),
            (count, count),
            "list of {count} records in pages of {limit}: entries and keys"
        );
    }
    on.together(keys, |storage, key| async move { Ok(storage.delete(&key, None).await?) }).await?;
    let left = list_all(on.storage().as_ref(), &Filter::everything(), usize::MAX).await?;
    ensure_eq!(left.len(), 0, "list after all records were deleted");
    Ok(())
}

/// Records past their retention between live ones neither end the list early nor take a place on a page.
pub async fn expired_records_do_not_end_a_list(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    let one = on.units(1).await?;
    let mut live = Vec::new();
    for index in 0..10 {
        live.push(key(&format!("m{index}5"))?);
        for expired in 0..12 {
            let time = if expired % 2 == 0 { Duration::ZERO } else { one };
            let record = rich("x").with_retain_for(Some(time));
            on.storage().put(&key(&format!("m{index}{expired}x"))?, &record, Precondition::Always).await?;
        }
        on.storage().put(&live[index], &rich("x"), Precondition::Always).await?;
    }
    on.pass(13).await?;
    for limit in [1, 2, 3, 7, 10, 11, 100] {
        for filter in [Filter::everything(), Filter::everything().provider("github").tenant(None)] {
            let listed = all(&on, &filter, limit).await?;
            let listed: Vec<_> = listed.into_iter().map(|entry| entry.key).collect();
            ensure_eq!(listed, live, "list in pages of {limit}, with expired records in between");
        }
    }
    Ok(())
}

/// A user's long-lived record is listed after a short-lived one has ended, whichever was written last.
pub async fn a_short_lived_record_takes_no_other_from_the_list(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    let (one, long) = (on.units(1).await?, on.units(600).await?);
    let short = rich("x").with_retain_for(Some(one));
    let lasting = [Record::new("x"), rich("x").with_retain_for(Some(long))];
    let mut wanted = Vec::new();
    for (index, lasting) in lasting.iter().enumerate() {
        for order in [[true, false], [false, true]] {
            let user = format!("user{index}{}", order[0]);
            let keys = [TokenKey::new("short", &user)?, TokenKey::new("long", &user)?];
            for is_short in order {
                let record = if is_short { &short } else { lasting };
                on.storage().put(&keys[usize::from(!is_short)], record, Precondition::Always).await?;
            }
            wanted.push(keys[1].clone());
        }
    }
    wanted.sort();
    on.pass(13).await?;
    on.storage().purge(100).await?;
    for filter in [Filter::everything(), Filter::everything().tenant(None), Filter::everything().provider("long")] {
        let listed: Vec<_> = all(&on, &filter, 10).await?.into_iter().map(|entry| entry.key).collect();
        ensure_eq!(listed, wanted, "list after each user's short-lived record has ended");
    }
    for key in wanted {
        let listed = all(&on, &Filter::everything().tenant(None).user(key.user()), 10).await?;
        let listed: Vec<_> = listed.into_iter().map(|entry| entry.key).collect();
        ensure_eq!(listed, vec![key], "list of a user whose short-lived record has ended");
    }
    Ok(())
}

/// A list goes on after a record that was deleted meanwhile, with another limit, filter or handle.
pub async fn a_list_goes_on_from_any_cursor(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    let handles = on.recorded_handles(2).await?;
    let keys: Vec<_> = (0..12).map(|index| key(&format!("user{index:02}"))).collect::<Outcome<_>>()?;
    for key in &keys {
        handles[0].put(key, &rich("x"), Precondition::Always).await?;
    }
    let (mut listed, mut after) = (Vec::new(), None);
    for turn in 0..100 {
        let filter = if turn % 3 == 2 { Filter::everything().provider("github") } else { Filter::everything() };
        let page = handles[turn % 2].list(&filter, PageRequest { after, limit: 1 + turn % 3 }).await?;
        for entry in page.entries {
            // All that was listed is deleted, the record of the cursor included.
            ensure!(handles[0].delete(&entry.key, Some(entry.version)).await?, "delete of a listed version");
            listed.push(entry.key);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ensure!(after.is_none(), "list: there is a next page without end");
    listed.sort();
    ensure_eq!(listed, keys, "list, with each record deleted once it was listed");
    Ok(())
}

/// A cursor that no storage handed out is `InvalidCursor`: neither the first page nor an empty one.
pub async fn foreign_cursors_are_refused(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    on.storage().put(&key("alice")?, &rich("x"), Precondition::Always).await?;
    let made_up = [
        vec![],
        vec![0],
        vec![0xff],
        vec![0; 3],
        vec![0xff; 16],
        vec![0xff; 61],
        b"null".to_vec(),
        b"'; DROP TABLE tokens; --".to_vec(),
    ];
    for bytes in made_up {
        let after = Some(Cursor::from_bytes(bytes));
        let page = on.storage().list(&Filter::everything(), PageRequest { after, limit: 10 }).await;
        ensure_error!(page, StorageError::InvalidCursor, "list with a made-up cursor");
    }
    Ok(())
}

/// All of a user's records can be found and removed, and nobody else's go with them.
pub async fn a_user_can_be_removed(on: Arc<Subject>) -> Outcome {
    on.needs_list()?;
    for key in many()? {
        on.storage().put(&key, &rich("x"), Precondition::Always).await?;
    }
    let alice = Filter::everything().tenant(None).user("alice");
    let before = all(&on, &Filter::everything(), 10).await?;
    for entry in all(&on, &alice, 1).await? {
        ensure!(on.storage().delete(&entry.key, Some(entry.version)).await?, "a listed version cannot be deleted");
    }
    ensure_eq!(all(&on, &alice, 10).await?, vec![], "what is left of the user");
    let others: Vec<_> = before.into_iter().filter(|entry| !alice.matches(entry)).collect();
    are_listed(&all(&on, &Filter::everything(), 10).await?, &others, "the others' records")?;
    Ok(())
}

/// Keys in several tenants, users, providers and accounts: 32 of them.
fn many() -> Outcome<Vec<TokenKey>> {
    let mut keys = Vec::new();
    for user in ["alice", "alic", "bob", "Alice"] {
        for provider in ["github", "google"] {
            for (tenant, account) in [("", ""), ("", "work"), ("acme", ""), ("acme", "work")] {
                keys.push(TokenKey::from_parts(tenant, user, provider, account)?);
            }
        }
    }
    Ok(keys)
}

/// The entries are those wanted, in any order. A failure says what is missing, unexpected or changed, and not all.
#[track_caller]
pub(crate) fn are_listed(listed: &[Entry], wanted: &[Entry], what: &str) -> Outcome {
    let among = |entry: &Entry, others: &[Entry]| others.iter().any(|other| other.key == entry.key);
    let keys = |entries: &[Entry], others: &[Entry]| {
        let lone = entries.iter().filter(|entry| !among(entry, others));
        lone.map(|entry| format!("({})", entry.key.show())).collect::<Vec<_>>()
    };
    let changed = listed.iter().filter(|entry| among(entry, wanted) && !wanted.contains(entry)).map(|entry| {
        let due = wanted.iter().find(|due| due.key == entry.key);
        format!("{} instead of {}", entry.show(), due.show())
    });
    let twice = listed.iter().enumerate().filter(|(index, entry)| among(entry, &listed[..*index]));
    let differences = [
        ("missing", keys(wanted, listed)),
        ("unexpected", keys(listed, wanted)),
        ("changed", changed.collect()),
        ("twice", twice.map(|(_, entry)| format!("({})", entry.key.show())).collect()),
    ];
    let differences: Vec<_> = differences.iter().filter(|(_, those)| !those.is_empty()).collect();
    let told: Vec<_> = differences.iter().map(|(name, those)| format!("{name}: {}", some(those))).collect();
    ensure!(told.is_empty(), "{what}: {}", told.join("; "));
    Ok(())
}

/// The first few of many.
fn some(those: &[String]) -> String {
    let shown = those.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    if those.len() > 4 { format!("{shown}, ... ({} in all)", those.len()) } else { shown }
}

/// All pages, in the order of the keys.
async fn all(on: &Subject, filter: &Filter, limit: usize) -> Outcome<Vec<Entry>> {
    let mut entries = list_all(on.storage().as_ref(), filter, limit).await?;
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(entries)
}

fn values(entries: &BTreeMap<TokenKey, Entry>) -> Vec<Entry> {
    entries.values().cloned().collect()
}
