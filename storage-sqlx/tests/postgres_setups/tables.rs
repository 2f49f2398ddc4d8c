//! Partitions, other tables with the same name, and other names of the same table.

use oauth_dance_core::{Precondition, Record, TokenStorage as _};

use crate::cases::key;
use crate::database::{Database, advice, works};

#[tokio::test]
async fn different_table_of_the_same_name_is_rejected() {
    let Some(database) = Database::new().await else { return };
    for columns in [
        "id integer",
        "tenant text, user_id text, provider text, account text, version text, payload text, expires_at bigint, \
            retain_until bigint, key_id text, created_at bigint, updated_at bigint",
        "tenant bytea, user_id bytea, provider bytea, account bytea, version bytea, payload bytea, expires_at bigint, \
            retain_until bigint, key_id bytea, created_at bigint, updated_at bigint",
    ] {
        database.execute(&format!("CREATE TABLE oauth_dance_tokens ({columns})")).await;
        for storage in database.both().await {
            let (key, record) = (key("alice"), Record::new("x"));
            assert!(advice(storage.put(&key, &record, Precondition::Always).await).contains("another"), "{columns}");
            assert!(advice(storage.put(&key, &record, Precondition::Absent).await).contains("another"), "{columns}");
            assert!(advice(storage.migrate().await).contains("with_table"), "{columns}");
            storage.close().await;
        }
        database.execute("DROP TABLE oauth_dance_tokens").await;
    }
    database.remove().await;
}

/// Rows of different partitions can have the same `ctid`.
#[tokio::test]
async fn purge_of_a_partitioned_table_removes_no_other_record() {
    let Some(database) = Database::new().await else { return };
    for storage in database.both().await {
        storage.migrate().await.unwrap();
        database
            .execute(
                "ALTER TABLE oauth_dance_tokens RENAME TO whole; \
                CREATE TABLE oauth_dance_tokens (LIKE whole INCLUDING ALL) PARTITION BY LIST (provider); \
                CREATE TABLE github PARTITION OF oauth_dance_tokens FOR VALUES IN ('github'); \
                CREATE TABLE others PARTITION OF oauth_dance_tokens DEFAULT",
            )
            .await;
        works(&storage).await;
        database
            .execute(
                "TRUNCATE oauth_dance_tokens; INSERT INTO oauth_dance_tokens \
                    (tenant, user_id, provider, account, version, payload, created_at, updated_at, retain_until) \
                VALUES ('', 'alice', 'google', '', decode(repeat('ab', 16), 'hex'), 'x', 1, 1, 1)",
            )
            .await;
        storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
        assert_eq!(storage.purge(10).await.unwrap(), 1);
        assert!(storage.get(&key("alice")).await.unwrap().is_some());
        storage.close().await;
        database.execute("DROP TABLE oauth_dance_tokens, whole, _oauth_dance_tokens_migrations").await;
    }
    database.remove().await;
}

/// The operator names the schema, and the application finds it in the `search_path`, or the schema is renamed.
#[tokio::test]
async fn applied_migrations_are_known_by_every_name_of_the_table() {
    let Some(database) = Database::new().await else { return };
    let [operator, _] = database.both().await;
    operator.with_table("auth.oauth_dance_tokens").unwrap().migrate().await.unwrap();
    database.set("search_path = auth").await;
    for storage in database.both().await {
        storage.migrate().await.unwrap();
        storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    }
    database.execute("ALTER SCHEMA auth RENAME TO renamed").await;
    for storage in database.both().await {
        let storage = storage.with_table("renamed.oauth_dance_tokens").unwrap();
        storage.migrate().await.unwrap();
        assert!(storage.get(&key("alice")).await.unwrap().is_some());
    }
    database.remove().await;
}
