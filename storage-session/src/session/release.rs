//! The supported releases of tower-sessions.
//!
//! Their types have the same names and functions, and are different types. A macro implements the same code for each of
//! them. The parameter `Release` makes the implementations distinct, so that both features can be on.

use std::sync::Arc;

use super::vault::Sessions;

/// A session store of any supported release of tower-sessions.
///
/// Every `SessionStore` of these releases implements it, and no other type can. The compiler infers `Release`.
pub trait AnySessionStore<Release>: sealed::Sealed<Release> {
    #[doc(hidden)]
    fn into_sessions(self) -> AnySessions;
}

#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "not part of the public API")]
pub struct AnySessions(pub(super) Arc<dyn Sessions>);

mod sealed {
    pub trait Sealed<Release> {}
}

macro_rules! release {
    ($feature:literal, $module:ident, $core:ident) => {
        #[cfg(feature = $feature)]
        mod $module {
            use std::sync::Arc;
            use std::time::Duration;

            use async_trait::async_trait;
            use http::Extensions;
            use serde_json::Value;
            use time::OffsetDateTime;
            use $core::session::{Error, Id, Record, Session as TowerSession};
            use $core::session_store::{Error as StoreError, SessionStore};

            use super::super::vault::{Data, Session, Sessions, StoreFailure, VaultId};
            use super::{AnySessionStore, AnySessions, sealed};

            /// Identifies this release.
            #[derive(Debug)]
            pub struct Release;

            /// A session store.
            struct Store<S>(Arc<S>);

            /// The session of one request.
            struct InRequest<S> {
                session: TowerSession,
                store: Arc<S>,
            }

            impl<S: SessionStore> sealed::Sealed<Release> for S {}

            impl<S: SessionStore> AnySessionStore<Release> for S {
                fn into_sessions(self) -> AnySessions {
                    AnySessions(Arc::new(Store(Arc::new(self))))
                }
            }

            impl<S: SessionStore> Sessions for Store<S> {
                fn of(&self, extensions: &Extensions) -> Option<Arc<dyn Session>> {
                    let session = extensions.get::<TowerSession>()?.clone();
                    Some(Arc::new(InRequest { session, store: Arc::clone(&self.0) }))
                }
            }

            #[async_trait]
            impl<S: SessionStore> Session for InRequest<S> {
                async fn value(&self, name: &str) -> Result<Option<Value>, StoreFailure> {
                    self.session.get_value(name).await.map_err(in_session)
                }

                async fn set_value(&self, name: &str, value: Value) -> Result<(), StoreFailure> {
                    self.session.insert_value(name, value).await.map(drop).map_err(in_session)
                }

                fn is_known(&self) -> bool {
                    self.session.id().is_some()
                }

                async fn cycle_id(&self) -> Result<(), StoreFailure> {
                    self.session.cycle_id().await.map_err(in_session)
                }

                async fn load(&self, id: VaultId) -> Result<Option<(Data, Duration)>, StoreFailure> {
                    let Some(record) = self.store.load(&Id(id)).await.map_err(in_store)? else { return Ok(None) };
                    let left = record.expiry_date - OffsetDateTime::now_utc();
                    Ok(Some((record.data, left.try_into().unwrap_or_default())))
                }

                async fn create(&self, data: Data, lifetime: Duration) -> Result<VaultId, StoreFailure> {
                    let mut record = Record { id: Id::default(), data, expiry_date: in_future(lifetime) };
                    self.store.create(&mut record).await.map_err(in_store)?;
                    Ok(record.id.0)
                }

                async fn save(&self, id: VaultId, data: Data, lifetime: Duration) -> Result<(), StoreFailure> {
                    let record = Record { id: Id(id), data, expiry_date: in_future(lifetime) };
                    self.store.save(&record).await.map_err(in_store)
                }
            }

            fn in_future(lifetime: Duration) -> OffsetDateTime {
                let lifetime = lifetime.try_into().unwrap_or(time::Duration::MAX);
                OffsetDateTime::now_utc().checked_add(lifetime).unwrap_or(OffsetDateTime::now_utc())
            }

            fn in_session(error: Error) -> StoreFailure {
                match error {
                    Error::Store(error) => in_store(error),
                    error => StoreFailure::Unreadable(error.into()),
                }
            }

            fn in_store(error: StoreError) -> StoreFailure {
                match error {
                    StoreError::Decode(_) => StoreFailure::Unreadable(error.into()),
                    error => StoreFailure::Store(error.into()),
                }
            }
        }
    };
}

release!("tower-sessions-0_14", release_0_14, tower_sessions_core_0_14);
release!("tower-sessions-0_15", release_0_15, tower_sessions_core_0_15);
