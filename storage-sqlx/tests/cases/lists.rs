use std::collections::BTreeSet;

use oauth_dance_core::{
    Cursor, Filter, PageRequest, Precondition, Record, StorageError, Timestamp, TokenKey, TokenStorage,
};

use super::{Database, key, ready};

/// Lists all entries of a filter, with pages of this size.
pub async fn list_all(storage: &impl TokenStorage, filter: &Filter, limit: usize) -> Vec<TokenKey> {
    let (mut keys, mut page) = (Vec::new(), PageRequest { after: None, limit });
    for _ in 0..10_000 {
        let found = storage.list(filter, page).await.unwrap();
        assert!(found.entries.len() <= limit.max(1));
        keys.extend(found.entries.into_iter().map(|entry| entry.key));
        let Some(next) = found.next else { return keys };
        page = PageRequest { after: Some(next), limit };
    }
    panic!("the list has no end");
}

pub async fn filters_select_exactly<D: Database>(database: &D) {
    let storage = ready(database).await;
    let mut entries = Vec::new();
    for tenant in ["", "acme", "acme2"] {
        for user in ["alice", "bob"] {
            for provider in ["github", "google"] {
                for (account, expiry) in [("", None), ("work", Some(100)), ("home", Some(200))] {
                    let key = TokenKey::from_parts(tenant, user, provider, account).unwrap();
                    let record = Record::new("x")
                        .with_expires_at(expiry.map(Timestamp::from_unix_seconds))
                        .with_key_id(Some(account.to_owned()));
                    let version = storage.put(&key, &record, Precondition::Absent).await.unwrap();
                    entries.push(oauth_dance_core::Entry::new(key, version, &record));
                }
            }
        }
    }
    let page = || PageRequest { after: None, limit: 100 };
    let mut filters = vec![Filter::everything()];
    for tenant in [None, Some("acme"), Some("none")] {
        filters.extend(filters.clone().into_iter().map(|filter| filter.tenant(tenant)));
    }
    for user in ["alice", "nobody"] {
        filters.extend(filters.clone().into_iter().map(|filter| filter.user(user)));
    }
    filters.extend(filters.clone().into_iter().map(|filter| filter.provider("google")));
    for before in [100, 101, 201] {
        let before = Timestamp::from_unix_seconds(before);
        filters.extend(filters.clone().into_iter().map(|filter| filter.expiring_before(before)));
    }
    for filter in filters {
        let mut expected: Vec<_> = entries.iter().filter(|entry| filter.matches(entry)).cloned().collect();
        expected.sort_by(|a, b| a.key.cmp(&b.key));
        let found = storage.list(&filter, page()).await.unwrap();
        assert_eq!(found.entries, expected, "{filter:?}");
        assert_eq!(found.next, None);
        let keys: Vec<_> = expected.into_iter().map(|entry| entry.key).collect();
        assert_eq!(list_all(&storage, &filter, 2).await, keys, "{filter:?} by pages");
    }
}

pub async fn pages_list_every_record_once<D: Database>(database: &D) {
    let storage = ready(database).await;
    let here: BTreeSet<_> = (0..97).map(|user| key(&format!("stays{user}"))).collect();
    for key in &here {
        storage.put(key, &Record::new("x"), Precondition::Always).await.unwrap();
    }
    for limit in [1, 7, 96, 97, 98, 5000] {
        let keys = list_all(&storage, &Filter::everything(), limit).await;
        assert!(keys.iter().eq(&here), "pages of {limit}");
    }
    let zero = storage.list(&Filter::everything(), PageRequest { after: None, limit: 0 }).await.unwrap();
    assert_eq!(zero.entries.len(), 1, "a page has at least one entry");

    // While other records are written, replaced and deleted before, between and after them.
    let writer = {
        let (storage, here) = (storage.clone(), here.clone());
        tokio::spawn(async move {
            for round in 0.. {
                for user in ["aaa", "stays5x", "zzz"] {
                    let passing = key(&format!("{user}{round}"));
                    storage.put(&passing, &Record::new("y"), Precondition::Absent).await.unwrap();
                    storage.delete(&passing, None).await.unwrap();
                }
                let rewritten = here.iter().nth(round % here.len()).unwrap();
                storage.put(rewritten, &Record::new("z"), Precondition::Always).await.unwrap();
            }
        })
    };
    for _ in 0..10 {
        let keys = list_all(&storage, &Filter::everything(), 5).await;
        let unique: BTreeSet<_> = keys.iter().cloned().collect();
        assert_eq!(unique.len(), keys.len(), "a key was listed twice");
        assert!(here.is_subset(&unique), "a key was skipped");
    }
    writer.abort();
}

pub async fn pages_continue_within_a_tenant<D: Database>(database: &D) {
    let storage = ready(database).await;
    let in_tenant = |tenant: &str, user: usize| TokenKey::from_parts(tenant, format!("u{user:02}"), "p", "").unwrap();
    for tenant in ["", "a", "b"] {
        for user in 0..10 {
            storage.put(&in_tenant(tenant, user), &Record::new("x"), Precondition::Always).await.unwrap();
        }
    }
    for (wanted, tenant) in [(None, ""), (Some("a"), "a"), (Some("b"), "b")] {
        let expected: Vec<_> = (0..10).map(|user| in_tenant(tenant, user)).collect();
        assert_eq!(list_all(&storage, &Filter::everything().tenant(wanted), 3).await, expected);
    }

    // A cursor is a position among all keys, even for another filter.
    let all = PageRequest { after: None, limit: 15 };
    let middle = storage.list(&Filter::everything(), all).await.unwrap().next;
    for (tenant, first, rest) in
        [(None, None, 0), (Some("a"), Some(in_tenant("a", 5)), 5), (Some("b"), Some(in_tenant("b", 0)), 10)]
    {
        let page = PageRequest { after: middle.clone(), limit: 100 };
        let found = storage.list(&Filter::everything().tenant(tenant), page).await.unwrap();
        assert_eq!(found.entries.len(), rest, "{tenant:?}");
        assert_eq!(found.entries.first().map(|entry| entry.key.clone()), first);
    }
}

pub async fn foreign_cursors_are_rejected<D: Database>(database: &D) {
    let storage = ready(database).await;
    let good = Cursor::after(&key("alice"));
    let mut bad = vec![vec![], vec![0; 15], vec![0xff; 16], [good.as_bytes(), b"x"].concat()];
    bad.extend((0..good.as_bytes().len()).map(|cut| good.as_bytes()[..cut].to_vec()));
    for bytes in bad {
        let page = PageRequest { after: Some(Cursor::from_bytes(bytes.clone())), limit: 10 };
        let found = storage.list(&Filter::everything(), page).await;
        assert!(matches!(found, Err(StorageError::InvalidCursor)), "{bytes:?}: {found:?}");
    }
}
