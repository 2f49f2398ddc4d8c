use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use oauth_dance_core::{Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage};
use tokio::task::JoinSet;

use super::{Database, key, ready, retained_for};

/// Increments the number under a key by compare-and-swap. Returns the number of conflicts.
pub async fn increment(storage: &impl TokenStorage) -> u32 {
    let key = key("counter");
    for conflicts in 0.. {
        let found = storage.get(&key).await.unwrap().unwrap();
        let number: u64 = String::from_utf8(found.value.payload).unwrap().parse().unwrap();
        let next = Record::new((number + 1).to_string());
        match storage.put(&key, &next, Precondition::Version(found.version)).await {
            Ok(_) => return conflicts,
            Err(StorageError::Conflict) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    unreachable!()
}

pub async fn increments_are_exact<D: Database>(database: &D) {
    let storage = ready(database).await;
    storage.put(&key("counter"), &Record::new("0"), Precondition::Absent).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let storage = database.connect().await;
        for _ in 0..8 {
            let storage = storage.clone();
            tasks.spawn(async move {
                let mut conflicts = 0;
                for _ in 0..50 {
                    conflicts += increment(&storage).await;
                }
                conflicts
            });
        }
    }
    let conflicts: u32 = tasks.join_all().await.into_iter().sum();
    let total = storage.get(&key("counter")).await.unwrap().unwrap().value.payload;
    assert_eq!(String::from_utf8(total).unwrap(), (4 * 8 * 50).to_string());
    assert!(conflicts > 0, "there was no conflict, so nothing was tested");
}

pub async fn one_creator_wins<D: Database>(database: &D) {
    let storage = ready(database).await;
    let other = database.connect().await;
    for round in 0..5 {
        let key = key(&format!("new{round}"));
        if round % 2 == 1 {
            storage.put(&key, &retained_for(60), Precondition::Always).await.unwrap();
            database.execute("UPDATE oauth_dance_tokens SET retain_until = retain_until - 60").await;
        }
        let mut tasks = JoinSet::new();
        for creator in 0..50 {
            let (storage, key) = (if creator % 2 == 0 { storage.clone() } else { other.clone() }, key.clone());
            tasks.spawn(async move {
                let record = Record::new(creator.to_string());
                storage.put(&key, &record, Precondition::Absent).await.map(|version| (version, record))
            });
        }
        let mut winners = Vec::new();
        for result in tasks.join_all().await {
            match result {
                Ok(winner) => winners.push(winner),
                Err(StorageError::Conflict) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        let found = storage.get(&key).await.unwrap().unwrap();
        assert_eq!((found.version, found.value), winners.remove(0));
    }
}

pub async fn concurrent_puts_create_one_row<D: Database>(database: &D) {
    let storage = ready(database).await;
    let mut tasks = JoinSet::new();
    for writer in 0..50 {
        let storage = storage.clone();
        tasks.spawn(
            async move { storage.put(&key("same"), &Record::new([writer]), Precondition::Always).await.unwrap() },
        );
    }
    let versions = tasks.join_all().await;
    assert!(versions.contains(&storage.get(&key("same")).await.unwrap().unwrap().version));
    assert_eq!(database.execute("DELETE FROM oauth_dance_tokens").await, 1);
}

/// A record whose columns all contain the same number.
fn generation(number: u64) -> Record {
    Record::new(number.to_string().repeat(500))
        .with_expires_at(Some(Timestamp::from_unix_seconds(number)))
        .with_key_id(Some(number.to_string()))
}

pub async fn reads_are_never_torn<D: Database>(database: &D) {
    let storage = ready(database).await;
    storage.put(&key("x"), &generation(0), Precondition::Always).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..2 {
        let storage = database.connect().await;
        writers.spawn(async move {
            for number in 0..150 {
                storage.put(&key("x"), &generation(2 * number + writer), Precondition::Always).await.unwrap();
            }
        });
    }
    let mut reads = 0;
    while !writers.is_empty() {
        while writers.try_join_next().is_some_and(|ended| ended.is_ok()) {}
        let found = storage.get(&key("x")).await.unwrap().unwrap().value;
        assert_eq!(found, generation(found.expires_at.unwrap().as_unix_seconds()));
        reads += 1;
    }
    assert!(reads > 10, "only {reads} reads");
}

pub async fn dropped_futures_leave_old_or_new<D: Database>(database: &D) {
    let storage = ready(database).await;
    let key = key("x");
    let mut version = storage.put(&key, &Record::new("0"), Precondition::Always).await.unwrap();
    let (mut dropped, mut done) = (0, 0);
    for round in 1..=300_usize {
        let (old, new) = (Record::new((round - 1).to_string()), Record::new(round.to_string()));
        let write = storage.put(&key, &new, Precondition::Version(version));
        if polled_at_most(round % 8, write).await.is_none() {
            dropped += 1;
        }
        let _ = polled_at_most(round % 5, storage.get(&key)).await;

        // Conditional, so that a delayed write cannot take effect later unnoticed.
        let found = storage.get(&key).await.unwrap().unwrap();
        if found.value == new {
            done += 1;
        } else {
            assert_eq!(found.value, old);
        }
        version = match storage.put(&key, &new, Precondition::Version(found.version)).await {
            Ok(version) => version,
            Err(StorageError::Conflict) => {
                let late = storage.get(&key).await.unwrap().unwrap();
                assert_eq!(late.value, new, "only the dropped write can have come between");
                late.version
            }
            Err(other) => panic!("{other:?}"),
        };
    }
    assert!(dropped > 0 && done > 0, "{dropped} dropped, {done} done: the drops did not hit the middle");

    let storage = Arc::new(storage);
    let all = (0..64).map(|_| {
        let storage = Arc::clone(&storage);
        let key = key.clone();
        async move { storage.get(&key).await.unwrap().unwrap() }
    });
    tokio::time::timeout(Duration::from_secs(8), all.collect::<JoinSet<_>>().join_all())
        .await
        .expect("no connection is lost");
}

/// Polls a future this many times, and drops it.
async fn polled_at_most<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0..times;
    poll_fn(|context| match polls.next().map(|_| future.as_mut().poll(context)) {
        Some(Poll::Pending) if !polls.is_empty() => Poll::Pending,
        Some(Poll::Ready(output)) => Poll::Ready(Some(output)),
        _ => Poll::Ready(None),
    })
    .await
}

pub async fn purge_never_removes_a_renewed_record<D: Database>(database: &D) {
    let storage = ready(database).await;
    for round in 0..20 {
        let keys: Vec<_> = (0..10).map(|user| key(&format!("r{round}u{user}"))).collect();
        for key in &keys {
            storage.put(key, &retained_for(60), Precondition::Always).await.unwrap();
        }
        database.execute("UPDATE oauth_dance_tokens SET retain_until = retain_until - 60").await;
        let purger = {
            let storage = database.connect().await;
            tokio::spawn(async move { storage.purge(1000).await.unwrap() })
        };
        for key in &keys {
            storage.put(key, &Record::new("renewed"), Precondition::Always).await.unwrap();
        }
        purger.await.unwrap();
        for key in &keys {
            assert!(storage.get(key).await.unwrap().is_some(), "{key} was purged after it was renewed");
        }
    }
}

pub async fn other_pools_see_acknowledged_writes<D: Database>(database: &D) {
    let (one, other) = (ready(database).await, database.connect().await);
    for round in 0..100 {
        let version = one.put(&key("x"), &Record::new(round.to_string()), Precondition::Always).await.unwrap();
        assert_eq!(other.get(&key("x")).await.unwrap().unwrap().version, version);
        if round % 10 == 0 {
            assert!(other.delete(&key("x"), None).await.unwrap());
            assert_eq!(one.get(&key("x")).await.unwrap(), None);
        }
    }
}

/// Concurrent reads share statements. Each gets the result for its own key.
pub async fn concurrent_reads_get_their_own_results<D: Database>(database: &D) {
    let storage = ready(database).await;
    let long = "u".repeat(1023);
    let users: Vec<_> =
        (0..150).map(|user| if user == 0 { long.clone() } else { format!("u{user}'\\{{,\"?$1") }).collect();
    for (number, user) in users.iter().enumerate().filter(|(number, _)| number % 3 != 1) {
        let record = if number % 3 == 0 { Record::new(number.to_string()) } else { retained_for(3600) };
        storage.put(&key(user), &record, Precondition::Always).await.unwrap();
    }
    storage.put(&key("gone"), &retained_for(0), Precondition::Always).await.unwrap();
    storage.put(&key("bad"), &Record::new("x"), Precondition::Always).await.unwrap();
    let damage = "UPDATE oauth_dance_tokens SET expires_at = -1 WHERE user_id = ";
    assert_eq!(database.execute(&format!("{damage}{}", D::literal(b"bad"))).await, 1);
    // The padding of a statement finds this row.
    let [version, empty] = [&[1; 16][..], b""].map(D::literal);
    let invalid = format!(
        "INSERT INTO oauth_dance_tokens (tenant, user_id, provider, account, version, payload, created_at, updated_at) \
        VALUES ({empty}, {empty}, {empty}, {empty}, {version}, {empty}, 0, 0)"
    );
    assert_eq!(database.execute(&invalid).await, 1);

    for count in [1, 2, 3, 5, 33, 64, 65, 150] {
        let keys = users[..count].iter().map(|user| key(user)).chain([key("gone"), key("bad"), key("u1")]);
        let keys: Vec<_> = keys.chain([TokenKey::new("github", "x".repeat(1024)).unwrap()]).collect();
        let found = join_all(keys.iter().map(|key| storage.get(key))).await;
        for (number, found) in found.iter().take(count).enumerate() {
            let found = found.as_ref().unwrap().as_ref().map(|found| &found.value);
            match number % 3 {
                0 => assert_eq!(found.unwrap(), &Record::new(number.to_string())),
                1 => assert_eq!(found, None),
                _ => assert!((3590..=3600).contains(&found.unwrap().retain_for.unwrap().as_secs())),
            }
        }
        let [gone, bad, absent, too_long] = &found[count..] else { panic!("{}", found.len()) };
        assert!(matches!((gone, absent), (Ok(None), Ok(None))), "{gone:?} {absent:?}");
        assert!(matches!(bad, Err(StorageError::Corrupt { key: of, .. }) if **of == key("bad")), "{bad:?}");
        assert!(matches!(too_long, Err(StorageError::KeyTooLong { .. })), "{too_long:?}");
    }

    database.execute("DROP TABLE oauth_dance_tokens").await;
    for found in join_all(users[..20].iter().map(async |user| storage.get(&key(user)).await)).await {
        assert!(matches!(found, Err(StorageError::Misconfigured { .. })), "{found:?}");
    }
}

/// A history of one writer and many readers of the same records. No read returns an older record than one that was
/// acknowledged before it started, or a newer one than was written before it ended.
pub async fn concurrent_reads_are_linearizable<D: Database>(database: &D) {
    const RECORDS: usize = 3;

    let storage = ready(database).await;
    let records = Arc::new([const { (AtomicU64::new(0), AtomicU64::new(0)) }; RECORDS]);
    for record in 0..RECORDS {
        storage.put(&key(&record.to_string()), &generation(0), Precondition::Always).await.unwrap();
    }
    let writer = {
        let (storage, records) = (storage.clone(), Arc::clone(&records));
        tokio::spawn(async move {
            for number in 1..=120 {
                let record = number as usize % RECORDS;
                let (started, acknowledged) = &records[record];
                started.store(number, Ordering::SeqCst);
                storage.put(&key(&record.to_string()), &generation(number), Precondition::Always).await.unwrap();
                acknowledged.store(number, Ordering::SeqCst);
            }
        })
    };
    let writer = Arc::new(writer);
    let mut readers = JoinSet::new();
    for reader in 0..24 {
        let (storage, records, writer) = (storage.clone(), Arc::clone(&records), Arc::clone(&writer));
        readers.spawn(async move {
            let (mut reads, mut last) = (0, [0; RECORDS]);
            while !writer.is_finished() {
                let record = (reader + reads) % RECORDS;
                let (started, acknowledged) = &records[record];
                let oldest = acknowledged.load(Ordering::SeqCst).max(last[record]);
                let key = key(&record.to_string());
                let read = storage.get(&key);
                // Some reads are dropped in the middle.
                let found = if reads % 7 == 6 { polled_at_most(2, read).await } else { Some(read.await) };
                if let Some(found) = found {
                    let found = found.unwrap().unwrap().value.expires_at.unwrap().as_unix_seconds();
                    let newest = started.load(Ordering::SeqCst);
                    assert!((oldest..=newest).contains(&found), "{found} is not between {oldest} and {newest}");
                    last[record] = found;
                }
                reads += 1;
            }
            reads
        });
    }
    assert!(readers.join_all().await.into_iter().sum::<usize>() > 200);
    assert!(Arc::into_inner(writer).unwrap().await.is_ok());
}
