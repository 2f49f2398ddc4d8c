//! Proxies, a standby, and URLs.

use std::time::{Duration, Instant};

use oauth_dance_core::{Filter, PageRequest, Precondition, Record, TokenStorage as _};
use oauth_dance_sqlx::PostgresStorage;
use sqlx::{Connection as _, PgConnection};
use tokio::net::{TcpListener, TcpStream};

use crate::cases::{Server, key, returned_connection_is_used};
use crate::database::{Database, advice, together, works};

#[tokio::test]
async fn standby_is_rejected_for_reads_and_writes() {
    let Some(standby) = Server::named_by("POSTGRES_STANDBY_URL") else { return };
    let Some(primary) = Database::with("POSTGRES_HAPROXY_URL", "").await else { return };
    let writer = PostgresStorage::connect(&primary.url()).await.unwrap();
    writer.migrate().await.unwrap();
    writer.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let url = standby.url.replace("/postgres?", &format!("/{}?", primary.0.database));
    let storage = loop {
        // The standby follows with a delay.
        match PostgresStorage::connect(&url).await {
            Ok(storage) if storage.migrate().await.is_ok() => break storage,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert!(advice(storage.get(&key("alice")).await).contains("standby"));
    assert!(advice(storage.get(&key("missing")).await).contains("standby"), "and not None");
    assert!(advice(together(&storage, "missing").await).contains("standby"), "and not None");
    assert!(advice(storage.list(&Filter::everything(), PageRequest::default()).await).contains("primary"));
    assert!(advice(storage.put(&key("alice"), &Record::new("y"), Precondition::Always).await).contains("standby"));
    assert!(advice(storage.delete(&key("alice"), None).await).contains("standby"));
    storage.close().await;
    writer.close().await;
    primary.remove().await;
}

/// The proxy closes them after two seconds.
#[tokio::test]
async fn first_write_after_a_broken_connection_succeeds() {
    let Some(database) = Database::with("POSTGRES_HAPROXY_URL", "").await else { return };
    for storage in database.both().await {
        storage.migrate().await.unwrap();
        for round in 0..2 {
            // Several connections, each of which is closed.
            let version = storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
            let reads = (0..8).map(|_| async { storage.get(&key("alice")).await.unwrap().unwrap() });
            futures_util::future::join_all(reads).await;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            match round {
                0 => drop(storage.put(&key("alice"), &Record::new("y"), Precondition::Version(version)).await.unwrap()),
                _ => assert!(storage.delete(&key("alice"), Some(version)).await.unwrap()),
            }
        }
        storage.close().await;
    }
    database.remove().await;
}

/// A call that cannot open a connection uses the one that another call returns.
#[tokio::test]
async fn returned_connection_is_used_while_the_server_is_full() {
    let Some(database) = Database::new().await else { return };
    PostgresStorage::connect(&database.url()).await.unwrap().migrate().await.unwrap();
    let role = format!("{}_app", database.0.database);
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'pw' CONNECTION LIMIT 1")).await;
    database.execute(&format!("GRANT ALL ON oauth_dance_tokens TO {role}")).await;
    let url = database.url();
    let (_, address) = url.split_once('@').unwrap();
    let storage = PostgresStorage::connect(&format!("postgres://{role}:pw@{address}")).await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();

    let mut administrator = PgConnection::connect(&database.url()).await.unwrap();
    let mut lock = administrator.begin().await.unwrap();
    sqlx::raw_sql("SELECT * FROM oauth_dance_tokens FOR UPDATE").execute(&mut *lock).await.unwrap();
    let release = async { lock.rollback().await.unwrap() };
    returned_connection_is_used(&storage, release, Duration::from_secs(4)).await;
    storage.close().await;
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    database.remove().await;
}

#[tokio::test]
async fn ipv6_address_in_a_url_works() {
    let Some(database) = Database::new().await else { return };
    let url = database.url();
    let (login, rest) = url.split_once("@127.0.0.1:").unwrap();
    let (port, rest) = rest.split_once('/').unwrap();
    let server = format!("127.0.0.1:{port}");
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    for url in [
        format!("{login}@[::1]:{port}/{rest}"),
        format!("{login}@nowhere.invalid/{rest}&host=::1&port={port}"),
        format!("{login}@[::1]:{port}/{rest}&target_session_attrs=read-write&connect_timeout=3&pgbouncer=true"),
    ] {
        let storage = PostgresStorage::connect(&url).await.unwrap();
        works(&storage).await;
        storage.close().await;
    }
    database.remove().await;
}

#[tokio::test]
async fn unsupported_url_parameters_are_rejected() {
    for (url, fix) in [
        ("postgres://u:p@a,b/d", "one host"),
        ("postgres://u:p@a:5432,b:5433/d?target_session_attrs=read-write", "one host"),
        ("postgres:///d?host=a,b", "one host"),
        ("postgres://u:p@a/d?target_session_attrs=prefer-standby", "parameter"),
        ("postgres://u:p@a/d?channel_binding=require", "parameter"),
        ("postgres://u:p@a/d?sslmod=require", "parameter"),
        ("postgres://u:p@a/d?service=x", "parameter"),
    ] {
        let error = PostgresStorage::connect(url).await.unwrap_err();
        assert!(advice(Err::<(), _>(error)).contains(fix), "{url}");
    }
}
