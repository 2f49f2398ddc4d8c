//! Prepared statements: their names, their plans, and what happens if the server no longer knows them.

use oauth_dance_core::{Precondition, Record, StorageError, TokenStorage as _};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Row as _};

use crate::cases::{self, key};
use crate::database::{Database, advice, one_connection, prepared, together, works};

#[tokio::test]
async fn statement_name_is_derived_from_its_text() {
    let Some(database) = Database::new().await else { return };
    let (pool, storage) = one_connection(&database.url()).await;
    let other = storage.clone().with_table("auth.oauth_dance_tokens").unwrap();
    for storage in [&storage, &other] {
        works(storage).await;
        assert_eq!(together(storage, "alice").await.unwrap(), None);
    }
    let left = prepared(&pool).await;
    assert_eq!(left.len(), 4, "{left:?}");
    for (name, statement, _) in left {
        let (settings, text) = statement.split_once(&format!("PREPARE {name} ")).unwrap();
        assert!(settings.split_terminator("; ").all(|setting| setting.starts_with("SET LOCAL ")), "{settings}");
        assert_eq!(name, format!("oauth_dance_{}", cases::hex(&Sha256::digest(text)[..16])));
        assert!(!text.contains("decode") && !text.contains("E'"), "a value: {text}");
    }
    pool.close().await;
    database.remove().await;
}

/// The planner may choose the primary key or the index of users. Either has to contain the whole key, because a user may
/// have many records.
#[tokio::test]
async fn read_is_planned_once_with_the_whole_key() {
    let Some(database) = Database::new().await else { return };
    let (pool, storage) = one_connection(&database.url()).await;
    storage.migrate().await.unwrap();
    for (user, account) in [("('user' || n)::bytea", "''"), ("'busy'", "n::text::bytea")] {
        let rows = format!(
            "INSERT INTO oauth_dance_tokens (tenant, user_id, provider, account, version, payload, created_at, updated_at) \
            SELECT '', {user}, 'github', {account}, decode(repeat('ab', 16), 'hex'), 'x', 1, 1 FROM generate_series(1, 2000) n"
        );
        database.execute(&rows).await;
    }
    for analyze in ["SELECT 1", "ANALYZE oauth_dance_tokens"] {
        database.execute(analyze).await;
        sqlx::raw_sql("DEALLOCATE ALL").execute(&pool).await.unwrap();
        for number in 1..=10 {
            assert!(storage.get(&key(&format!("user{number}"))).await.unwrap().is_some());
            assert!(together(&storage, "user7").await.unwrap().is_some());
        }
        for (name, statement, generic) in prepared(&pool).await {
            assert!(generic >= 3, "{generic}: {statement}");
            let (values, compared) = match statement.contains("unnest") {
                true => ("'{}', '{}', '{}', '{}'", "wanted."),
                false => ("'', 'a', 'b', ''", "$"),
            };
            let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE {name}({values})"));
            let plan = sqlx::raw_sql(explain).fetch_all(&pool).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
            let condition = plan.iter().find(|line| line.contains("Index Cond")).unwrap();
            for column in ["tenant", "user_id", "provider", "account"] {
                assert!(condition.contains(&format!("({column} = {compared}")), "{plan:#?}");
            }
        }
    }
    pool.close().await;
    database.remove().await;
}

#[tokio::test]
async fn read_succeeds_when_its_name_is_unknown() {
    let Some(database) = Database::new().await else { return };
    let (pool, storage) = one_connection(&database.url()).await;
    let on_connection = async |sql: &str| sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let payload = async || {
        let both = together(&storage, "alice").await.unwrap();
        assert_eq!(storage.get(&key("alice")).await.unwrap().map(|found| found.value.payload), both);
        both
    };
    for change in [
        "SELECT 1",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "ALTER TABLE oauth_dance_tokens ADD COLUMN more integer",
        "SET plan_cache_mode = force_generic_plan",
        "SET search_path = public, pg_catalog",
    ] {
        on_connection(change).await;
        for _ in 0..2 {
            assert_eq!(payload().await.unwrap(), b"x", "{change}");
        }
    }

    // Changes the type of a column, and changes it back.
    on_connection("ALTER TABLE oauth_dance_tokens ALTER key_id TYPE text USING NULL").await;
    for _ in 0..3 {
        assert!(matches!(storage.get(&key("alice")).await, Ok(_) | Err(StorageError::Corrupt { .. })));
        assert!(matches!(together(&storage, "alice").await, Ok(_) | Err(StorageError::Corrupt { .. })));
    }
    on_connection("ALTER TABLE oauth_dance_tokens ALTER key_id TYPE bytea USING NULL").await;
    assert_eq!(payload().await.unwrap(), b"x");

    // Another table of the same name, by another search_path and as a replacement.
    on_connection("CREATE SCHEMA other; CREATE TABLE other.oauth_dance_tokens (LIKE oauth_dance_tokens)").await;
    for (path, found) in [("other", None), ("public", Some(b"x".to_vec())), ("other, public", None)] {
        on_connection(&format!("SET search_path = {path}")).await;
        assert_eq!(payload().await, found, "{path}");
    }
    on_connection("DROP TABLE other.oauth_dance_tokens").await;
    assert_eq!(payload().await.unwrap(), b"x");
    on_connection("ALTER TABLE oauth_dance_tokens RENAME TO old").await;
    assert!(advice(storage.get(&key("alice")).await).contains("migrations"));
    on_connection("ALTER TABLE old RENAME TO oauth_dance_tokens").await;
    assert_eq!(payload().await.unwrap(), b"x");
    pool.close().await;
    database.remove().await;
}
