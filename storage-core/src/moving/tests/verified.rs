//! A move that reads back what it wrote.

use super::*;

/// A storage that changes or loses what is written to it.
struct Altering {
    storage: MemoryStorage,
    loses: bool,
}

#[async_trait]
impl TokenStorage for Altering {
    async fn get(&self, key: &TokenKey) -> Result<Option<Versioned<Record>>, StorageError> {
        self.storage.get(key).await
    }

    async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Result<Version, StorageError> {
        let mut altered = record.clone();
        altered.payload.extend_from_slice(b"!");
        let version = self.storage.put(key, &altered, when).await?;
        // Not the placeholder, whose version the move compares.
        if self.loses && record.retain_for.is_none() {
            self.storage.delete(key, Some(version)).await?;
        }
        Ok(version)
    }

    async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
        self.storage.delete(key, only).await
    }

    async fn list(&self, filter: &Filter, page: PageRequest) -> Result<Page, StorageError> {
        self.storage.list(filter, page).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.storage.purge(limit).await
    }

    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }
}

/// The retention ends in the new storage a second early, because it is rounded.
#[test]
fn a_record_that_expires_during_a_verified_move_is_no_error() {
    let world = World::new(Start::Nowhere);
    let record = Record::new("first").with_retain_for(Some(Duration::from_secs(1)));
    now(world.old.put(&key(), &record, Precondition::Always)).unwrap();
    let migrating = Migrating::new(Arc::new(world.new.clone()), Arc::new(world.old.clone())).verifying();
    assert_eq!(now(migrating.move_record(&key())).unwrap(), Moved::Written);
    assert!(now(world.old.get(&key())).unwrap().is_none());
}

#[test]
fn a_verified_move_loses_no_record_that_was_altered() {
    for loses in [false, true] {
        let world = World::new(Start::Old);
        let altering = Altering { storage: world.new.clone(), loses };
        let migrating = Migrating::new(Arc::new(altering), Arc::new(world.old.clone())).verifying();
        for _ in 0..2 {
            let error = now(migrating.move_record(&key())).unwrap_err();
            assert!(matches!(error, CopyError::Target(StorageError::Misconfigured { .. })), "{loses} {error:?}");
            assert!(now(world.new.get(&key())).unwrap().is_none(), "what is wrong was removed");
            assert_eq!(text(&now(migrating.get(&key())).unwrap().unwrap().value), "first");
        }
        let sound = Migrating::new(Arc::new(world.new.clone()), Arc::new(world.old.clone())).verifying();
        assert_eq!(now(sound.move_record(&key())).unwrap(), Moved::Written);
        assert_eq!(text(&now(world.new.get(&key())).unwrap().unwrap().value), "first");
        assert!(now(world.old.get(&key())).unwrap().is_none());
    }
}
