//! A list continues from page to page, whatever changes in between.
//!
//! Lists of all users are long, and run for minutes beside the traffic of the application. A cursor is a position in the
//! order of keys: everything that exists throughout is listed once, and everything else may or may not be.

mod cursors;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oauth_dance_core::{Entry, Filter, PageRequest, Precondition, Record, Timestamp, TokenKey, Version};

pub use self::cursors::{
    a_cursor_is_valid_for_any_filter, a_list_continues_after_an_expired_record, a_list_continues_after_any_key,
    a_list_continues_from_any_cursor, foreign_cursors_are_refused,
};
use crate::calls::pages;
use crate::listing::{all, are_listed, values};
use crate::outcome::{PropertyResult, ensure, ensure_eq};
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key, list_all, rich};

/// A record that exists throughout is listed exactly once, whatever is written and deleted between the pages.
///
/// Offsets fail this: a delete before the current position skips a record, and an insert repeats one. So does an order that
/// a write changes, such as that of the expiries.
pub async fn pages_are_stable_under_writes(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    // Records that are created and deleted before the cursor must not cancel each other out.
    for (round, (created, deleted)) in [(3, 0), (0, 3), (2, 2), (1, 1)].into_iter().enumerate() {
        let name = |user: String| PropertyResult::Ok(TokenKey::new(format!("round{round}"), user)?);
        // Each write changes the expiry. That of the last round is before the end of its filter.
        let record = |number: usize| {
            let seconds = if round == 3 { 1_000 } else { 4_102_444_800 } + number as u64 * 37 % 101;
            rich("x").with_expires_at(Some(Timestamp::from_unix_seconds(seconds)))
        };
        let mut records = Vec::new();
        for index in 0..40 {
            records.push((name(format!("m{index:03}"))?, record(index)));
            records.push((name(format!("gone{index:03}"))?, record(index)));
        }
        on.put_all(records).await?;
        let filter = match round {
            3 => Filter::everything().expiring_before(Timestamp::from_unix_seconds(2_000)),
            _ => Filter::everything().provider(format!("round{round}")),
        };
        let (mut listed, mut after) = (Vec::new(), None);
        for turn in 0.. {
            ensure!(turn < 1_000, "{} does not end: there is a next page after 1,000 pages", pages(&filter, 5));
            let page = on.storage().list(&filter, PageRequest { after, limit: 5 }).await?;
            listed.extend(page.entries.into_iter().map(|entry| entry.key));
            let Some(next) = page.next else { break };
            after = Some(next);
            for index in (0..created).filter(|_| turn < 30) {
                let prefix = ["a", "z", "m0"][index];
                on.storage().put(&name(format!("{prefix}new{turn}"))?, &record(turn), Precondition::Always).await?;
            }
            for index in (0..deleted).map(|index| turn * deleted + index) {
                on.storage().delete(&name(format!("gone{index:03}"))?, None).await?;
            }
            for index in [turn * 7 % 40, (turn * 7 + 20) % 40] {
                on.storage()
                    .put(&name(format!("m{index:03}"))?, &record(index + turn + 1), Precondition::Always)
                    .await?;
            }
        }
        for index in 0..40 {
            let key = name(format!("m{index:03}"))?;
            let times = listed.iter().filter(|listed| **listed == key).count();
            let list = pages(&filter, 5);
            ensure_eq!(times, 1, "{list}: how often ({}) is listed, which exists throughout", key.show());
        }
    }
    Ok(())
}

/// Each page shows the state at the time of its request: no record that was deleted since the first page, and no
/// outdated version.
///
/// A list that is computed once and then returned in slices fails this.
pub async fn later_pages_show_the_current_state(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let keys: Vec<_> = (0..9).map(|index| key(&format!("user{index}"))).collect::<PropertyResult<_>>()?;
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
        let what = format!("list: later pages of {limit}, after all later records were deleted or rewritten");
        are_listed(&values(&listed), &values(&wanted), &what)?;
    }
    Ok(())
}

/// Expired records between live ones do not end a list early.
///
/// A storage that stops at the first page without a live record fails this.
pub async fn expired_records_do_not_end_a_list(on: Arc<TestedStorage>) -> PropertyResult {
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
            let listed = listed.into_iter().map(|entry| entry.key).collect();
            let what = format!("{} with expired records between live ones", pages(&filter, limit));
            keys_are_listed(listed, &live, &what)?;
        }
    }
    Ok(())
}

/// A user's long-lived record stays listed after a short-lived one has expired, whichever was written last.
///
/// A storage fails this if the index entry of a user expires with the record that was written last.
pub async fn long_lived_records_stay_listed_after_short_ones(on: Arc<TestedStorage>) -> PropertyResult {
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
        let listed = all(&on, &filter, 10).await?.into_iter().map(|entry| entry.key).collect();
        let what = format!("{} after each user's short-lived record has ended", pages(&filter, 10));
        keys_are_listed(listed, &wanted, &what)?;
    }
    for key in wanted {
        let filter = Filter::everything().tenant(None).user(key.user());
        let listed = all(&on, &filter, 10).await?.into_iter().map(|entry| entry.key).collect();
        let what = format!("{} after the user's short-lived record has ended", pages(&filter, 10));
        keys_are_listed(listed, &[key], &what)?;
    }
    Ok(())
}

/// A record that is being rewritten is listed exactly once, and so are its neighbours.
///
/// A write that deletes and inserts the row fails this, and so does one that moves the record in the order of the list.
pub async fn a_record_is_listed_while_it_is_rewritten(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let handles = on.handles(2).await?;
    let keys: Vec<_> = (0..6).map(|index| key(&format!("user{index}"))).collect::<PropertyResult<_>>()?;
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
        PropertyResult::Ok(())
    });
    let mut checked = Ok(());
    for round in on.rounds(300, Duration::from_millis(200)).await? {
        let listed = list_all(handles[0].as_ref(), &Filter::everything(), 1 + round % 7).await;
        checked = listed.and_then(|listed| {
            let listed = listed.into_iter().map(|entry| entry.key).collect();
            keys_are_listed(listed, &keys, &format!("round {round}: list while some of the records are rewritten"))
        });
        if checked.is_err() {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    writing.await??;
    checked
}

/// An entry of a list has the hints of the write that created its version, even while the record is being rewritten.
///
/// A storage that reads versions and hints with separate calls fails this.
pub async fn entries_have_the_hints_of_their_version(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_list()?;
    let handles = on.handles(2).await?;
    let alice = key("alice")?;
    let done = Arc::new(AtomicBool::new(false));
    let (writer, target, stop) = (Arc::clone(&handles[1]), alice.clone(), Arc::clone(&done));
    let writing = tokio::spawn(async move {
        let mut with_hints = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            with_hints.push(writer.put(&target, &rich("y"), Precondition::Always).await?);
            writer.put(&target, &Record::new("z"), Precondition::Always).await?;
            tokio::task::yield_now().await;
        }
        PropertyResult::Ok(with_hints)
    });
    let mut listed = Vec::new();
    for _ in on.rounds(400, Duration::from_millis(200)).await? {
        let page = list_all(handles[0].as_ref(), &Filter::everything(), 10).await;
        let is_over = page.is_err();
        listed.push(page);
        if is_over {
            break;
        }
    }
    done.store(true, Ordering::SeqCst);
    let with_hints: BTreeSet<_> = writing.await??.into_iter().map(|version| *version.as_bytes()).collect();
    for entry in listed.into_iter().collect::<PropertyResult<Vec<_>>>()?.into_iter().flatten() {
        let wants = with_hints.contains(entry.version.as_bytes());
        let has = vec![entry.expires_at.is_some(), entry.key_id.is_some()];
        let version = entry.version;
        let what = format!("list while ({}) is rewritten: whether {version:?} has expires_at and key_id", alice.show());
        ensure_eq!(has, vec![wants; 2], "{what}");
    }
    Ok(())
}

/// Exactly these keys are listed, each once and in any order.
#[track_caller]
pub(crate) fn keys_are_listed(mut listed: Vec<TokenKey>, wanted: &[TokenKey], what: &str) -> PropertyResult {
    listed.sort();
    let entry = |key: &TokenKey| Entry::new(key.clone(), Version::from_bytes([0; 16]), &Record::new(""));
    let [listed, wanted] = [&listed, wanted].map(|keys| keys.iter().map(entry).collect::<Vec<_>>());
    are_listed(&listed, &wanted, what)
}
