//! MySQL and MariaDB with other configurations, on private servers of these tests.
#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[allow(dead_code, unused_imports, unused_macros, unreachable_pub)]
mod cases;
#[allow(dead_code, unreachable_pub)]
mod private_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use cases::key;
use futures_util::future::join_all;
use oauth_dance_core::{Filter, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage};
use oauth_dance_sqlx::{MAX_PAYLOAD, MigrationState, MySqlStorage};
use private_server::PrivateServer;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, MySqlPool};
use tokio::net::{TcpListener, TcpStream};

fn mariadb(options: &str) -> Option<PrivateServer> {
    PrivateServer::start("mariadb", "MYSQL_URL", "MYSQL_URL", &[("MARIADB_OPTIONS", options)])
}

fn advice<T: std::fmt::Debug>(result: Result<T, StorageError>) -> String {
    match result {
        Err(StorageError::Misconfigured { advice, .. }) => advice,
        other => panic!("not Misconfigured: {other:?}"),
    }
}

/// The longest key and key id, with a payload of a given size.
fn longest_key() -> TokenKey {
    TokenKey::from_parts("t".repeat(255), "u".repeat(1023), "p".repeat(255), "a".repeat(255)).unwrap()
}

fn of_size(bytes: usize) -> Record {
    Record::new(vec![7; bytes]).with_key_id(Some("k".repeat(255)))
}

/// Runs every operation, and reads several records at the same time.
async fn works(storage: &MySqlStorage) {
    storage.migrate().await.unwrap();
    let record = Record::new((0..=255).collect::<Vec<u8>>()).with_key_id(Some("k'\\".into()));
    let users: Vec<_> = (0..6).map(|user| key(&format!("user{user}"))).collect();
    for user in &users {
        assert_eq!(storage.get(user).await.unwrap(), None);
        let first = storage.put(user, &record, Precondition::Absent).await.unwrap();
        assert!(matches!(storage.put(user, &record, Precondition::Absent).await, Err(StorageError::Conflict)));
        storage.put(user, &record, Precondition::Version(first)).await.unwrap();
        assert!(matches!(storage.put(user, &record, Precondition::Version(first)).await, Err(StorageError::Conflict)));
        storage.put(user, &record, Precondition::Always).await.unwrap();
    }
    let found = join_all(users.iter().map(|user| storage.get(user))).await;
    assert!(found.into_iter().all(|found| found.unwrap().unwrap().value == record));
    let (mut page, mut listed) = (PageRequest { after: None, limit: 4 }, 0);
    loop {
        let list = storage.list(&Filter::everything(), page).await.unwrap();
        listed += list.entries.len();
        let Some(next) = list.next else { break };
        page = PageRequest { after: Some(next), limit: 4 };
    }
    assert_eq!(listed, users.len());
    storage.put(&users[0], &cases::retained_for(60), Precondition::Always).await.unwrap();
    assert_eq!(storage.purge(10).await.unwrap(), 0);
    for user in &users {
        assert!(storage.delete(user, None).await.unwrap());
    }
}

#[tokio::test]
async fn settings_of_the_server_have_no_effect() {
    let options = "--log-bin=binlog --server-id=1 --binlog-format=STATEMENT --lower-case-table-names=1 \
        --character-set-server=latin1 --skip-character-set-client-handshake --default-storage-engine=MyISAM";
    let Some(server) = mariadb(options) else { return };
    let mut administrator = MySqlConnection::connect(&server.url).await.unwrap();
    for (setting, default) in [
        ("SET GLOBAL sql_select_limit = 1", "SET GLOBAL sql_select_limit = DEFAULT"),
        ("SET GLOBAL sql_safe_updates = 1", "SET GLOBAL sql_safe_updates = 0"),
        ("SET GLOBAL sql_mode = 'ORACLE'", "SET GLOBAL sql_mode = DEFAULT"),
        (
            "SET GLOBAL sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE'",
            "SET GLOBAL sql_mode = ''",
        ),
        ("SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET GLOBAL sql_mode = DEFAULT"),
        ("SET GLOBAL time_zone = '-11:00'", "ALTER DATABASE oauth_dance CHARACTER SET ucs2"),
    ] {
        sqlx::raw_sql(setting).execute(&mut administrator).await.unwrap();
        let theirs = MySqlStorage::from_pool(MySqlPool::connect(&server.url).await.unwrap());
        for storage in [MySqlStorage::connect(&server.url).await.unwrap(), theirs] {
            works(&storage).await;
            storage.close().await;
        }
        let remove = "DROP TABLE oauth_dance_tokens, _oauth_dance_tokens_migrations";
        sqlx::raw_sql(remove).execute(&mut administrator).await.unwrap();
        sqlx::raw_sql(default).execute(&mut administrator).await.unwrap();
    }
}

/// A key without a tenant would be compared with `NULL`, and every record would look like a missing one.
#[tokio::test]
async fn empty_strings_that_are_null_hide_no_record() {
    let Some(server) = mariadb("") else { return };
    let storage = MySqlStorage::connect(&server.url).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
    let mut administrator = MySqlConnection::connect(&server.url).await.unwrap();
    sqlx::raw_sql("SET GLOBAL sql_mode = 'ORACLE,EMPTY_STRING_IS_NULL'").execute(&mut administrator).await.unwrap();

    let own = MySqlStorage::connect(&server.url).await.unwrap();
    assert!(own.get(&key("alice")).await.unwrap().is_some());
    assert!(own.delete(&key("alice"), None).await.unwrap());
    works(&own).await;
    let theirs = MySqlStorage::from_pool(MySqlPool::connect(&server.url).await.unwrap());
    assert!(advice(theirs.get(&key("alice")).await).contains("EMPTY_STRING_IS_NULL"));
    assert!(advice(theirs.put(&key("alice"), &Record::new("x"), Precondition::Always).await).contains("sql_mode"));
}

/// A call that cannot open a connection uses the one that another call returns.
#[tokio::test]
async fn returned_connection_is_used_while_the_user_has_no_other() {
    let Some(server) = mariadb("") else { return };
    MySqlStorage::connect(&server.url).await.unwrap().migrate().await.unwrap();
    let mut administrator = MySqlConnection::connect(&server.url).await.unwrap();
    for sql in [
        "CREATE USER app@127.0.0.1 IDENTIFIED BY 'pw' WITH MAX_USER_CONNECTIONS 1",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON oauth_dance.* TO app@127.0.0.1",
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut administrator).await.unwrap();
    }
    let (_, address) = server.url.split_once('@').unwrap();
    let storage = MySqlStorage::connect(&format!("mysql://app:pw@{address}")).await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();

    let mut lock = administrator.begin().await.unwrap();
    sqlx::raw_sql("SELECT * FROM oauth_dance_tokens FOR UPDATE").execute(&mut *lock).await.unwrap();
    let release = async { lock.rollback().await.unwrap() };
    cases::returned_connection_is_used(&storage, release, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn payload_larger_than_a_packet_is_too_large() {
    let Some(server) = mariadb("--max-allowed-packet=1M") else { return };
    let own = MySqlStorage::connect(&server.url).await.unwrap();
    own.migrate().await.unwrap();
    let limit = own.capabilities().max_payload.unwrap();
    assert!(((1 << 20) - 16_384..1 << 20).contains(&limit), "{limit}");
    let theirs = MySqlStorage::from_pool(MySqlPool::connect(&server.url).await.unwrap());
    for storage in [own, theirs] {
        let version = storage.put(&longest_key(), &of_size(10), Precondition::Always).await.unwrap();
        for when in [Precondition::Always, Precondition::Absent, Precondition::Version(version)] {
            for size in [limit + 1, 2 << 20, MAX_PAYLOAD] {
                let start = Instant::now();
                let refused = storage.put(&longest_key(), &of_size(size), when).await;
                assert!(matches!(refused, Err(StorageError::TooLarge { .. })), "{size}, {when:?}: {refused:?}");
                assert!(start.elapsed() < Duration::from_secs(3));
            }
        }
        assert_eq!(storage.capabilities().max_payload, Some(limit));
        let version = storage.put(&longest_key(), &of_size(limit), Precondition::Version(version)).await.unwrap();
        storage.put(&longest_key(), &of_size(limit), Precondition::Version(version)).await.unwrap();
        assert_eq!(storage.get(&longest_key()).await.unwrap().unwrap().value, of_size(limit));
        assert!(storage.delete(&longest_key(), None).await.unwrap());
    }
}

#[tokio::test]
async fn ipv6_addresses_are_accepted() {
    let Some(server) = mariadb("--bind-address=*") else { return };
    let mut connection = MySqlConnection::connect(&server.url).await.unwrap();
    for sql in ["CREATE USER far@'::1' IDENTIFIED BY 'pw'", "GRANT ALL ON oauth_dance.* TO far@'::1'"] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }
    let (_, address) = server.url.split_once("@127.0.0.1:").unwrap();
    let storage = MySqlStorage::connect(&format!("mysql://far:pw@[::1]:{address}")).await.unwrap();
    storage.migrate().await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    assert!(storage.get(&key("alice")).await.unwrap().is_some());
}

#[tokio::test]
async fn several_hosts_and_unknown_options_are_rejected() {
    let Ok(url) = std::env::var("MYSQL_URL") else { return cases::skip::<()>("MYSQL_URL").unwrap_or_default() };
    let (login, server) = url.split_once('@').unwrap();
    let (host, rest) = server.split_once('/').unwrap();
    for hosts in [format!("{host},{host}"), format!("localhost,{host}"), format!("[::1],{host}")] {
        assert!(
            advice(MySqlStorage::connect(&format!("{login}@{hosts}/{rest}")).await).contains("one host"),
            "{hosts}"
        );
    }
    for option in ["ssl_mode=VERIFY_IDENTITY", "useSSL=true", "connectTimeout=1"] {
        let refused = MySqlStorage::connect(&format!("{url}&{option}")).await;
        assert!(format!("{refused:?}").contains(option.split('=').next().unwrap()), "{refused:?}");
        assert!(advice(refused).contains("remove the parameter"));
    }
}

#[tokio::test]
async fn read_only_server_is_reported() {
    let Some(server) = mariadb("") else { return };
    let storage = MySqlStorage::connect(&server.url).await.unwrap();
    storage.migrate().await.unwrap();
    let mut administrator = MySqlConnection::connect(&server.url).await.unwrap();
    // A user with all privileges may write to a read-only server. Applications have fewer privileges.
    for sql in [
        "CREATE USER app@127.0.0.1 IDENTIFIED BY 'pw'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON oauth_dance.* TO app@127.0.0.1",
        "SET GLOBAL read_only = 1",
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut administrator).await.unwrap();
    }
    let (_, address) = server.url.split_once('@').unwrap();
    let storage = MySqlStorage::connect(&format!("mysql://app:pw@{address}")).await.unwrap();
    let refused = storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await;
    assert!(advice(refused).contains("read-only"));
    sqlx::raw_sql("SET GLOBAL read_only = 0").execute(&mut administrator).await.unwrap();
    storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap();
}

#[tokio::test]
async fn writes_are_committed_without_autocommit() {
    let Some(server) = mariadb("--autocommit=0") else { return };
    let theirs = MySqlStorage::from_pool(MySqlPool::connect(&server.url).await.unwrap());
    theirs.migrate().await.unwrap();
    let own = MySqlStorage::connect(&server.url).await.unwrap();
    assert!(own.migrations().await.unwrap().iter().all(|migration| migration.state == MigrationState::Applied));
    own.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    let other = MySqlStorage::connect(&server.url).await.unwrap();
    assert!(other.get(&key("alice")).await.unwrap().is_some());
    assert!(other.delete(&key("alice"), None).await.unwrap());
    assert!(own.get(&key("alice")).await.unwrap().is_none());

    assert!(advice(theirs.put(&key("bob"), &Record::new("x"), Precondition::Always).await).contains("autocommit"));
    assert!(advice(theirs.get(&key("bob")).await).contains("autocommit"));
    let commits = MySqlPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async move { sqlx::raw_sql("SET autocommit = 1").execute(connection).await.map(drop) })
    });
    let theirs = MySqlStorage::from_pool(commits.connect(&server.url).await.unwrap());
    theirs.put(&key("bob"), &Record::new("x"), Precondition::Always).await.unwrap();
    assert!(other.get(&key("bob")).await.unwrap().is_some());
}

/// Forwards new connections to the server of the current port, as a name or an address that is moved does.
async fn forwarder(port: &Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (own, port) = (listener.local_addr().unwrap().port(), Arc::clone(port));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", port.load(Ordering::SeqCst))).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    own
}

/// The former primary is still running, and serves the connections that it has.
#[tokio::test]
async fn planned_switchover_causes_no_error_and_no_stale_read() {
    let (Some(one), Some(two)) = (mariadb(""), mariadb("")) else { return };
    let mut ports = Vec::new();
    let mut administrators = Vec::new();
    for server in [&one, &two] {
        let mut administrator = MySqlConnection::connect(&server.url).await.unwrap();
        MySqlStorage::connect(&server.url).await.unwrap().migrate().await.unwrap();
        for sql in [
            "CREATE USER app@127.0.0.1 IDENTIFIED BY 'pw'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON oauth_dance.* TO app@127.0.0.1",
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut administrator).await.unwrap();
        }
        administrators.push(administrator);
        ports.push(server.url.rsplit_once("@127.0.0.1:").unwrap().1.split('/').next().unwrap().parse().unwrap());
    }
    let port = Arc::new(AtomicU16::new(ports[0]));
    let url = format!("mysql://app:pw@127.0.0.1:{}/oauth_dance?ssl-mode=DISABLED", forwarder(&port).await);
    let storage = MySqlStorage::connect(&url).await.unwrap();
    let puts = (0..10).map(|user| {
        let storage = &storage;
        async move { storage.put(&key(&user.to_string()), &Record::new("old"), Precondition::Always).await.unwrap() }
    });
    join_all(puts).await;
    storage.put(&key("alice"), &Record::new("old"), Precondition::Always).await.unwrap();

    sqlx::raw_sql("SET GLOBAL read_only = 1").execute(&mut administrators[0]).await.unwrap();
    port.store(ports[1], Ordering::SeqCst);
    storage.put(&key("alice"), &Record::new("new"), Precondition::Always).await.unwrap();
    for _ in 0..20 {
        let reads = (0..10).map(|_| async { storage.get(&key("alice")).await.unwrap().unwrap().value });
        assert!(join_all(reads).await.iter().all(|value| *value == Record::new("new")));
    }
}

#[tokio::test]
async fn read_only_transactions_are_reported() {
    let Some(server) = mariadb("") else { return };
    let storage = MySqlStorage::connect(&server.url).await.unwrap();
    storage.migrate().await.unwrap();
    let mut administrator = MySqlConnection::connect(&server.url).await.unwrap();
    sqlx::raw_sql("SET GLOBAL tx_read_only = 1").execute(&mut administrator).await.unwrap();
    let storage = MySqlStorage::connect(&server.url).await.unwrap();
    let refused = storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await;
    assert!(advice(refused).contains("tx_read_only"));
}

/// A backup holds a global read lock, as `FLUSH TABLES WITH READ LOCK` does.
#[tokio::test]
async fn write_during_a_backup_has_no_late_effect() {
    let Some(server) = mariadb("") else { return };
    let storage = MySqlStorage::connect(&server.url).await.unwrap();
    storage.migrate().await.unwrap();
    let mut backup = MySqlConnection::connect(&server.url).await.unwrap();
    sqlx::raw_sql("FLUSH TABLES WITH READ LOCK").execute(&mut backup).await.unwrap();
    let refused = storage.put(&key("alice"), &Record::new("x"), Precondition::Always).await.unwrap_err();
    assert!(matches!(&refused, StorageError::Unavailable { .. }), "{refused:?}");
    assert!(format!("{refused:?}").contains("Lock wait timeout"), "{refused:?}");
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut backup).await.unwrap();
    assert!(storage.get(&key("alice")).await.unwrap().is_none());
    storage.put(&key("alice"), &Record::new("y"), Precondition::Absent).await.unwrap();
}

/// A proxy closes connections after two seconds, and the next write succeeds.
#[tokio::test]
async fn writes_succeed_after_a_proxy_closed_idle_connections() {
    let Ok(url) = std::env::var("MYSQL_URL") else { return cases::skip::<()>("MYSQL_URL").unwrap_or_default() };
    let proxy = PrivateServer::start("haproxy", "PROXIED_MYSQL_URL", "MYSQL_URL", &[("MYSQL_URL", &url)]).unwrap();
    let table = format!("idle_{}", cases::hex(&oauth_dance_core::random_bytes::<6>()));
    let storage = MySqlStorage::connect(&proxy.url).await.unwrap().with_table(&table).unwrap();
    storage.migrate().await.unwrap();
    let mut last = storage.put(&key("alice"), &Record::new("x"), Precondition::Absent).await.unwrap();
    for round in 0..2 {
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let storage = storage.clone();
            readers.spawn(async move { storage.get(&key("alice")).await.unwrap() });
        }
        readers.join_all().await;
        // HAProxy has no clock that a test could control.
        tokio::time::sleep(Duration::from_millis(2300)).await;
        for write in 0..8 {
            let written = storage.put(&key("alice"), &Record::new("x"), Precondition::Version(last)).await;
            last = written.unwrap_or_else(|error| panic!("round {round}, write {write}: {error:?}"));
        }
    }
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    for table in [table.clone(), format!("_{table}_migrations")] {
        sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE {table}"))).execute(&mut connection).await.unwrap();
    }
}
