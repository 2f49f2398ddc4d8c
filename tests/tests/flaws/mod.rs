//! Broken storages. Each of them has one flaw, in front of a server in memory that is correct, and names the properties that
//! have to detect the flaw.

pub(crate) mod caches;
pub(crate) mod confusions;
pub(crate) mod dropped;
pub(crate) mod durability;
pub(crate) mod expiry;
pub(crate) mod faults;
pub(crate) mod further;
pub(crate) mod indexes;
pub(crate) mod keys;
pub(crate) mod large;
pub(crate) mod lifetimes;
pub(crate) mod lists;
pub(crate) mod partial;
pub(crate) mod payloads;
pub(crate) mod races;
pub(crate) mod rare;
pub(crate) mod retention;
pub(crate) mod side_effects;
pub(crate) mod unforeseen;
pub(crate) mod unusual_cases;
pub(crate) mod versions;
pub(crate) mod writes;

use std::sync::Arc;

use oauth_dance_conformance::async_trait;
use oauth_dance_core::{
    Capabilities, Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage, Version,
    Versioned,
};

use crate::bench::{Front, Server};

pub(crate) type Read = Result<Option<Versioned<Record>>, StorageError>;
pub(crate) type Write = Result<Version, StorageError>;

/// A broken storage, and the properties that have to detect it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) front: Front,
    pub(crate) caught_by: &'static [&'static str],
}

/// The operations of a broken storage. By default, each of them passes its call to the server.
#[async_trait]
pub(crate) trait Flaw: Send + Sync + 'static {
    fn server(&self) -> &Server;

    async fn get(&self, key: &TokenKey) -> Read {
        self.server().get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
        self.server().put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.server().delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.server().list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.server().purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.server().capabilities()
    }
}

pub(crate) struct Broken<F>(pub(crate) F);

#[async_trait]
impl<F: Flaw> TokenStorage for Broken<F> {
    async fn get(&self, key: &TokenKey) -> Read {
        self.0.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
        self.0.put(key, record, when).await
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.0.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.0.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.0.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

/// Defines broken storages, each with its own state and its wrong methods, and the list of them.
macro_rules! flaws {
    ($($name:ident($own:ty) caught by $property:ident $(and $other:ident)* { $($method:item)* })+) => {
        $(
            pub(crate) struct $name {
                server: $crate::bench::Server,
                #[allow(dead_code, reason = "most flaws have no state")]
                own: $own,
            }

            #[oauth_dance_conformance::async_trait]
            impl $crate::flaws::Flaw for $name {
                fn server(&self) -> &$crate::bench::Server {
                    &self.server
                }

                $($method)*
            }
        )+

        pub(crate) const CASES: &[$crate::flaws::Case] = &[$($crate::flaws::Case {
            name: stringify!($name),
            front: |server| std::sync::Arc::new($crate::flaws::Broken($name { server, own: Default::default() })),
            caught_by: &[stringify!($property) $(, stringify!($other))*],
        }),+];
    };
}

pub(crate) use flaws;

/// All broken storages.
pub(crate) fn cases() -> impl Iterator<Item = &'static Case> {
    let first = [
        writes::CASES,
        payloads::CASES,
        keys::CASES,
        keys::one_call::CASES,
        lists::CASES,
        retention::CASES,
        dropped::CASES,
    ];
    let second = [
        caches::CASES,
        expiry::CASES,
        versions::CASES,
        races::CASES,
        rare::CASES,
        faults::CASES,
        unforeseen::CASES,
        unusual_cases::CASES,
        side_effects::CASES,
        partial::CASES,
        durability::CASES,
        further::CASES,
    ];
    let third = [large::CASES, indexes::CASES, confusions::CASES, lifetimes::CASES];
    first.into_iter().chain(second).chain(third).flatten()
}

/// Gives other tasks the chance to run in between.
pub(crate) async fn pause() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// A map as the state of a flaw.
pub(crate) type Notes<K, V> = Arc<std::sync::Mutex<std::collections::HashMap<K, V>>>;

/// Writes, and then removes the key from a cache.
pub(crate) async fn put_and_forget<V>(
    server: &Server,
    cache: &Notes<TokenKey, V>,
    key: &TokenKey,
    record: &Record,
    when: Precondition,
) -> Write {
    let written = server.put(key, record, when).await;
    cache.lock().unwrap().remove(key);
    written
}

/// Deletes, and then removes the key from a cache.
pub(crate) async fn delete_and_forget<V>(
    server: &Server,
    cache: &Notes<TokenKey, V>,
    key: &TokenKey,
    only: Option<Version>,
) -> Result<bool, StorageError> {
    let removed = server.delete(key, only).await;
    cache.lock().unwrap().remove(key);
    removed
}
