use oauth_dance_core::{Filter, PageRequest, Precondition, Record, TokenStorage};
use oauth_dance_sqlx::MigrationState;
use tokio::task::JoinSet;

use super::{Database, key, ready};

pub async fn migrating_twice_changes_nothing<D: Database>(database: &D) {
    let storage = database.connect().await;
    let before = D::applied(&storage).await;
    assert!(!before.is_empty());
    assert!(before.iter().all(|status| status.state == MigrationState::Pending), "{before:?}");

    D::migrate(&storage).await.unwrap();
    let after = D::applied(&storage).await;
    assert!(after.iter().all(|status| status.state == MigrationState::Applied), "{after:?}");
    D::migrate(&storage).await.unwrap();
    assert_eq!(D::applied(&storage).await, after);

    // A newer release has migrated the table, and this one still works.
    let newer = format!(
        "INSERT INTO _oauth_dance_tokens_migrations (version, description, success, checksum, execution_time) \
        VALUES (9999, 'from the future', TRUE, {}, 0)",
        D::literal(b"x"),
    );
    database.execute(&newer).await;
    D::migrate(&storage).await.unwrap();
    assert_eq!(D::applied(&storage).await.last().unwrap().state, MigrationState::Newer);

    let altered = D::literal(b"y");
    database
        .execute(&format!("UPDATE _oauth_dance_tokens_migrations SET checksum = {altered} WHERE version = 1"))
        .await;
    assert_eq!(D::applied(&storage).await[0].state, MigrationState::Altered);
    let error = D::migrate(&storage).await.unwrap_err();
    assert!(matches!(error, oauth_dance_core::StorageError::Misconfigured { .. }), "{error:?}");
}

/// As the program of sqlx leaves a migration that failed on MySQL.
pub async fn failed_migration_is_not_applied<D: Database>(database: &D) {
    let storage = ready(database).await;
    database.execute("UPDATE _oauth_dance_tokens_migrations SET success = FALSE WHERE version = 1").await;
    assert_eq!(D::applied(&storage).await[0].state, MigrationState::Pending);
    let error = D::migrate(&storage).await.unwrap_err();
    assert!(matches!(error, oauth_dance_core::StorageError::Misconfigured { .. }), "{error:?}");
}

pub async fn concurrent_migrations_succeed<D: Database>(database: &D) {
    for round in 0..4 {
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let storage = database.connect().await;
            for _ in 0..8 {
                let storage = storage.clone();
                tasks.spawn(async move { D::migrate(&storage).await });
            }
        }
        for result in tasks.join_all().await {
            result.unwrap();
        }
        let storage = database.connect().await;
        storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
        database.execute("DROP TABLE oauth_dance_tokens").await;
        // Once from an empty database, and once with the bookkeeping of an older release.
        let then = if round % 2 == 0 { "DELETE FROM" } else { "DROP TABLE" };
        database.execute(&format!("{then} _oauth_dance_tokens_migrations")).await;
    }
}

pub async fn application_migrations_do_not_interfere<D: Database>(database: &D) {
    database.migrate_application().await;
    let storage = ready(database).await;
    database.migrate_application().await;
    D::migrate(&storage).await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    assert_eq!(database.execute("UPDATE oauth_dance_tokens SET created_at = 1").await, 1);
    assert_eq!(database.execute("UPDATE _sqlx_migrations SET execution_time = 1").await, 1, "only its own row");
}

pub async fn tables_are_separate<D: Database>(database: &D) {
    let one = ready(database).await;
    let mut others = Vec::new();
    for name in ["a", "ab", "oauth_dance_tokens2", &"t".repeat(48)] {
        let other = D::with_table(database.connect().await, name);
        D::migrate(&other).await.unwrap();
        others.push(other);
    }
    for (index, storage) in std::iter::once(&one).chain(&others).enumerate() {
        storage.put(&key("alice"), &Record::new([index as u8]), Precondition::Absent).await.unwrap();
    }
    for (index, storage) in std::iter::once(&one).chain(&others).enumerate() {
        assert_eq!(storage.get(&key("alice")).await.unwrap().unwrap().value.payload, [index as u8]);
        let entries = storage.list(&Filter::everything(), PageRequest::default()).await.unwrap().entries;
        assert_eq!(entries.len(), 1);
    }
    assert!(others[0].delete(&key("alice"), None).await.unwrap());
    assert!(others[1].get(&key("alice")).await.unwrap().is_some());
}

pub async fn migration_retains_existing_records<D: Database>(database: &D) {
    let storage = ready(database).await;
    let record = Record::new("kept").with_key_id(Some("k".into()));
    let version = storage.put(&key("alice"), &record, Precondition::Absent).await.unwrap();

    let later = ready(database).await;
    let found = later.get(&key("alice")).await.unwrap().unwrap();
    assert_eq!((found.value, found.version), (record, version));
}
