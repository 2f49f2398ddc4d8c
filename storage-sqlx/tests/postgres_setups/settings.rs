//! Settings of the server and the database.

use std::time::Duration;

use oauth_dance_core::{Precondition, Record, TokenStorage as _};
use sqlx::{Connection as _, PgConnection};

use crate::cases::key;
use crate::database::{Database, advice, run, works};

#[tokio::test(flavor = "multi_thread")]
async fn session_settings_have_no_effect() {
    let Some(database) = Database::new().await else { return };
    for setting in [
        "standard_conforming_strings = off",
        "bytea_output = escape",
        "row_security = on",
        "synchronous_commit = off",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_isolation = 'repeatable read'",
        "statement_timeout = '5s'",
        "lock_timeout = '100ms'",
        "idle_in_transaction_session_timeout = '100ms'",
        "TimeZone = 'America/St_Johns'",
        "DateStyle = 'German'",
        "client_encoding = 'LATIN1'",
        "search_path = elsewhere, public",
        "search_path = public, pg_catalog",
        "plan_cache_mode = force_generic_plan",
        "default_transaction_deferrable = on",
        "check_function_bodies = off",
    ] {
        let (name, _) = setting.split_once(" = ").unwrap();
        database.set(setting).await;
        for storage in database.both().await {
            works(&storage).await;
            storage.close().await;
        }
        database.set(&format!("{name} = DEFAULT")).await;
        database.execute("DROP TABLE oauth_dance_tokens, _oauth_dance_tokens_migrations").await;
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_database_encoding_works() {
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let end = format!("ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
        let Some(database) = Database::with("POSTGRES_URL", &end).await else { return };
        for storage in database.both().await {
            works(&storage).await;
            storage.close().await;
        }
        database.remove().await;
    }
}

#[tokio::test]
async fn search_path_without_schemas_names_the_fix() {
    let Some(database) = Database::new().await else { return };
    for path in ["''", "elsewhere", "pg_catalog"] {
        database.set(&format!("search_path = {path}")).await;
        for storage in database.both().await {
            assert!(advice(storage.get(&key("alice")).await).contains("search_path"), "{path}");
            if path != "pg_catalog" {
                assert!(advice(storage.migrate().await).contains("with_table(\"schema.table\")"), "{path}");
            }
            let storage = storage.with_table("public.oauth_dance_tokens").unwrap();
            works(&storage).await;
            storage.close().await;
        }
        database.execute("DROP TABLE public.oauth_dance_tokens, public._oauth_dance_tokens_migrations").await;
    }
    database.remove().await;
}

#[tokio::test]
async fn read_only_database_names_the_fix() {
    let Some(database) = Database::new().await else { return };
    let [writer, _] = database.both().await;
    writer.migrate().await.unwrap();
    writer.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    database.set("default_transaction_read_only = on").await;
    for storage in database.both().await {
        assert!(storage.get(&key("alice")).await.unwrap().is_some());
        let put = storage.put(&key("alice"), &Record::new("y"), Precondition::Always).await;
        assert!(advice(put).contains("default_transaction_read_only"));
        assert!(advice(storage.delete(&key("alice"), None).await).contains("default_transaction_read_only"));
        storage.close().await;
    }
    run(&database.0.url, &format!("ALTER DATABASE {} RESET ALL", database.0.database)).await;
    database.remove().await;
}

/// The `lock_timeout` of the user limits the wait for a table, and not the wait for another process that migrates.
#[tokio::test]
async fn migration_waits_for_another_process_despite_a_lock_timeout() {
    const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('oauth-dance migrates oauth_dance_tokens', 0))";

    let Some(database) = Database::new().await else { return };
    database.set("lock_timeout = '50ms'").await;
    for storage in database.both().await {
        let mut other = PgConnection::connect(&database.url()).await.unwrap();
        let mut transaction = other.begin().await.unwrap();
        sqlx::raw_sql(LOCK).execute(&mut *transaction).await.unwrap();
        let release = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            transaction.rollback().await.unwrap();
        };
        let (migrated, ()) = tokio::join!(storage.migrate(), release);
        migrated.unwrap();
        database.execute("DROP TABLE oauth_dance_tokens, _oauth_dance_tokens_migrations").await;
    }
    database.remove().await;
}
