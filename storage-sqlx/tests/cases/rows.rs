use std::error::Error as _;

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, Timestamp, TokenStorage};

use super::{Database, key, list_all, ready};

pub async fn corrupt_rows_do_not_affect_other_rows<D: Database>(database: &D) {
    let storage = ready(database).await;
    let damages = [
        ("version", D::literal(b"short")),
        ("version", D::literal(b"")),
        ("expires_at", "-1".to_owned()),
        ("expires_at", "253402300800".to_owned()),
        ("expires_at", i64::MAX.to_string()),
        ("expires_at", i64::MIN.to_string()),
        ("key_id", D::literal(b"\xff\xfe")),
    ];
    for (column, value) in damages {
        let (before, bad, behind) = (key("a"), key("b"), key("c"));
        for key in [&before, &bad, &behind] {
            let record = Record::new("x").with_expires_at(Some(Timestamp::from_unix_seconds(5)));
            storage.put(key, &record, Precondition::Always).await.unwrap();
        }
        let named = format!("user_id = {}", D::literal(b"b"));
        let damage = format!("UPDATE oauth_dance_tokens SET {column} = {value} WHERE {named}");
        assert_eq!(database.execute(&damage).await, 1, "{damage}");

        for _ in 0..2 {
            let error = storage.get(&bad).await.unwrap_err();
            assert!(matches!(&error, StorageError::Corrupt { key, .. } if **key == bad), "{damage}: {error:?}");
            assert!(error.source().is_some());
        }
        for key in [&before, &behind] {
            assert!(storage.get(key).await.unwrap().is_some(), "{damage}");
        }
        for limit in [1, 2, 10] {
            let keys = list_all(&storage, &Filter::everything(), limit).await;
            assert_eq!(keys, [before.clone(), bad.clone(), behind.clone()], "{damage}");
        }
        let absent = storage.put(&bad, &Record::new("y"), Precondition::Absent).await;
        assert!(matches!(absent, Err(StorageError::Conflict)), "corrupt is not absent: {damage}");
        assert!(storage.delete(&bad, None).await.unwrap(), "{damage}");
        assert_eq!(storage.get(&bad).await.unwrap(), None);

        // Only a new write makes the record readable again.
        storage.put(&bad, &Record::new("x"), Precondition::Always).await.unwrap();
        database.execute(&damage).await;
        storage.put(&bad, &Record::new("mended"), Precondition::Always).await.unwrap();
        assert_eq!(storage.get(&bad).await.unwrap().unwrap().value, Record::new("mended"));
    }
}

pub async fn row_without_a_valid_key_is_left_out<D: Database>(database: &D) {
    let storage = ready(database).await;
    for user in ["a", "c", "e"] {
        storage.put(&key(user), &Record::new("x"), Precondition::Always).await.unwrap();
    }
    for (user, provider) in [(&b"b\xff"[..], &b"github"[..]), (b"", b"github"), (b"d", b""), (b"\xff", b"\xff")] {
        let [user, provider, empty] = [user, provider, b""].map(D::literal);
        let version = D::literal(&[1; 16]);
        let insert = format!(
            "INSERT INTO oauth_dance_tokens \
                (tenant, user_id, provider, account, version, payload, created_at, updated_at) \
            VALUES ({empty}, {user}, {provider}, {empty}, {version}, {empty}, 0, 0)"
        );
        assert_eq!(database.execute(&insert).await, 1);
    }
    for limit in [1, 2, 3, 100] {
        let keys = list_all(&storage, &Filter::everything(), limit).await;
        assert_eq!(keys, [key("a"), key("c"), key("e")], "pages of {limit}");
    }
}

pub async fn missing_table_is_reported<D: Database>(database: &D) {
    let storage = database.connect().await;
    let key = key("alice");
    let errors = [
        storage.get(&key).await.unwrap_err(),
        storage.put(&key, &Record::new("x"), Precondition::Always).await.unwrap_err(),
        storage.delete(&key, None).await.unwrap_err(),
        storage.list(&Filter::everything(), PageRequest::default()).await.unwrap_err(),
        storage.purge(1).await.unwrap_err(),
    ];
    for error in errors {
        let StorageError::Misconfigured { advice, .. } = &error else { panic!("{error:?}") };
        assert!(advice.contains("run the migrations"), "{error}");
    }
    D::migrate(&storage).await.unwrap();
    assert_eq!(storage.get(&key).await.unwrap(), None, "the same object works once the table is there");
}

pub async fn no_secret_is_printed<D: Database>(database: &D) {
    let storage = ready(database).await;
    let (key, secret) = (key("alice"), Record::new("gho_canary"));
    let mut printed = format!("{:?} {secret:?}", storage.capabilities());
    storage.put(&key, &secret, Precondition::Always).await.unwrap();
    printed += &format!("{:?}", storage.get(&key).await);
    printed += &format!("{:?}", storage.put(&key, &secret, Precondition::Absent).await);
    database.execute("UPDATE oauth_dance_tokens SET expires_at = -1").await;
    printed += &format!("{:?}", storage.get(&key).await);

    // PostgreSQL quotes a row that it rejects.
    database.execute("DELETE FROM oauth_dance_tokens").await;
    database.execute(D::REFUSE_ROWS).await;
    let refused = storage.put(&key, &secret, Precondition::Always).await.unwrap_err();
    assert!(matches!(refused, StorageError::Unavailable { .. }), "{refused:?}");
    printed += &format!("{refused:?} {refused} {:?} {}", refused.source().unwrap(), refused.source().unwrap());

    database.execute("DROP TABLE oauth_dance_tokens").await;
    printed += &format!("{:?}", storage.put(&key, &secret, Precondition::Always).await);
    printed += &format!("{:?}", storage.list(&Filter::everything(), PageRequest::default()).await);
    for form in ["gho_canary", "67686f5f63616e617279", "[103, 104, 111, 95"] {
        assert!(!printed.contains(form), "{printed}");
    }
}
