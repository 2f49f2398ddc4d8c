//! Rows that row-level security hides.

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, TokenStorage as _};
use oauth_dance_sqlx::PostgresStorage;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use crate::cases::key;
use crate::database::{Database, advice, one_connection, prepared, together};

#[tokio::test]
async fn rows_hidden_after_the_first_read_are_an_error() {
    let Some(database) = Database::new().await else { return };
    let (pool, storage) = one_connection(&database.url()).await;
    let on_connection = async |sql: &str| sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let role = format!("{}_app", database.0.database);
    on_connection(&format!("CREATE ROLE {role}; GRANT ALL ON oauth_dance_tokens TO {role}")).await;
    let hide = "CREATE POLICY few ON oauth_dance_tokens USING (user_id = 'bob')";
    on_connection(hide).await;
    // Prepared by a role without a policy, and by one with a policy.
    for first in ["RESET ROLE", &format!("SET ROLE {role}")] {
        on_connection(&format!("DEALLOCATE ALL; ALTER TABLE oauth_dance_tokens DISABLE ROW LEVEL SECURITY; {first}"))
            .await;
        for _ in 0..8 {
            assert!(storage.get(&key("alice")).await.unwrap().is_some());
            assert!(together(&storage, "alice").await.unwrap().is_some());
        }
        on_connection("RESET ROLE").await;
        on_connection("ALTER TABLE oauth_dance_tokens ENABLE ROW LEVEL SECURITY").await;
        for _ in 0..2 {
            on_connection(&format!("SET ROLE {role}")).await;
            assert!(advice(storage.get(&key("alice")).await).contains("row-level security"), "{first}");
            assert!(advice(together(&storage, "alice").await).contains("row-level security"), "{first}");
            on_connection("RESET ROLE").await;
            assert!(together(&storage, "alice").await.unwrap().is_some());
            assert!(storage.get(&key("alice")).await.unwrap().is_some());
        }
    }
    // Prepared by a client without settings, with the hidden rows left out.
    let left = prepared(&pool).await;
    assert_eq!(left.len(), 2, "{left:?}");
    for (name, statement, _) in left {
        let (_, prepare) = statement.split_once("PREPARE").unwrap();
        on_connection(&format!("SET ROLE {role}; DEALLOCATE {name}; PREPARE{prepare}")).await;
    }
    assert!(advice(storage.get(&key("alice")).await).contains("row-level security"));
    assert!(advice(together(&storage, "alice").await).contains("row-level security"));
    on_connection(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).await;
    pool.close().await;
    database.remove().await;
}

#[tokio::test]
async fn rows_hidden_by_row_level_security_are_an_error() {
    let Some(database) = Database::new().await else { return };
    let [owner, _] = database.both().await;
    owner.migrate().await.unwrap();
    owner.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let role = format!("{}_app", database.0.database);
    database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'app'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; \
            ALTER TABLE oauth_dance_tokens ENABLE ROW LEVEL SECURITY; \
            ALTER TABLE _oauth_dance_tokens_migrations ENABLE ROW LEVEL SECURITY; \
            CREATE POLICY few ON oauth_dance_tokens USING (user_id = 'bob')"
        ))
        .await;
    let (_, host) = database.url().split_once('@').map(|(login, host)| (login.to_owned(), host.to_owned())).unwrap();
    let url = format!("postgres://{role}:app@{host}");
    let own = PostgresStorage::connect(&url).await.unwrap();
    let shared = PostgresStorage::from_pool(PgPool::connect(&url).await.unwrap());
    for storage in [own, shared] {
        assert!(advice(storage.get(&key("alice")).await).contains("row-level security"));
        assert!(advice(together(&storage, "alice").await).contains("row-level security"));
        assert!(
            advice(storage.put(&key("alice"), &Record::new("y"), Precondition::Absent).await).contains("BYPASSRLS")
        );
        assert!(advice(storage.delete(&key("alice"), None).await).contains("row-level security"));
        assert!(advice(storage.list(&Filter::everything(), PageRequest::default()).await).contains("row-level"));
        assert!(advice(storage.migrate().await).contains("row-level security"), "and not pending");
        storage.close().await;
    }
    assert!(owner.get(&key("alice")).await.unwrap().is_some());
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    database.remove().await;
}
