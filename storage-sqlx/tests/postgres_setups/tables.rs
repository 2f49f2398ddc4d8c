//! Other tables with the same name.

use oauth_dance_core::{Precondition, Record, TokenStorage as _};

use crate::cases::key;
use crate::database::{Database, advice};

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
