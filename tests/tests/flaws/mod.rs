//! Storages that break one promise each, all of them in front of a server that keeps every promise.

pub(crate) mod aside;
pub(crate) mod beside;
pub(crate) mod caches;
pub(crate) mod dropped;
pub(crate) mod ends;
pub(crate) mod faulty;
pub(crate) mod hints;
pub(crate) mod keys;
pub(crate) mod lists;
pub(crate) mod more;
pub(crate) mod races;
pub(crate) mod rare;
pub(crate) mod shallow;
pub(crate) mod survival;
pub(crate) mod time;
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

/// A storage that breaks a promise, and the properties that must notice.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) front: Front,
    pub(crate) caught_by: &'static [&'static str],
}

/// Passes everything on, but for what the flaw does itself.
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

/// Makes flaws, each with what it keeps of its own and the methods that it does wrong, and the list of them.
macro_rules! flaws {
    ($($name:ident($own:ty) caught by $property:ident $(and $other:ident)* { $($method:item)* })+) => {
        $(
            pub(crate) struct $name {
                server: $crate::bench::Server,
                #[allow(dead_code, reason = "most flaws keep nothing")]
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

/// All of them.
pub(crate) fn cases() -> impl Iterator<Item = &'static Case> {
    let first =
        [writes::CASES, hints::CASES, keys::CASES, keys::one_call::CASES, lists::CASES, time::CASES, dropped::CASES];
    let second = [
        caches::CASES,
        ends::CASES,
        versions::CASES,
        races::CASES,
        rare::CASES,
        faulty::CASES,
        more::CASES,
        aside::CASES,
        beside::CASES,
        shallow::CASES,
        survival::CASES,
    ];
    first.into_iter().chain(second).flatten()
}

/// Lets other tasks come in between.
pub(crate) async fn pause() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// A map that a flaw keeps for itself.
pub(crate) type Notes<K, V> = Arc<std::sync::Mutex<std::collections::HashMap<K, V>>>;
