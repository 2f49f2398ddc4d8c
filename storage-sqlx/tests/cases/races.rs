use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use oauth_dance_core::{Precondition, Record, StorageError, Timestamp, TokenStorage};
use tokio::task::JoinSet;

use super::{Database, kept_for, key, ready};

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
    assert!(conflicts > 0, "nothing raced");
}

pub async fn one_creator_wins<D: Database>(database: &D) {
    let storage = ready(database).await;
    let other = database.connect().await;
    for round in 0..5 {
        let key = key(&format!("new{round}"));
        if round % 2 == 1 {
            storage.put(&key, &kept_for(60), Precondition::Always).await.unwrap();
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

pub async fn reads_are_never_torn<D: Database>(database: &D) {
    let storage = ready(database).await;
    // Every column of one write contains the same generation.
    let generation = |number: u64| {
        Record::new(number.to_string().repeat(500))
            .with_expires_at(Some(Timestamp::from_unix_seconds(number)))
            .with_key_id(Some(number.to_string()))
    };
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
            storage.put(key, &kept_for(60), Precondition::Always).await.unwrap();
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
