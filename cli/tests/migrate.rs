//! `oauth-dance migrate`, as an operator runs it. SQLite is always tested; PostgreSQL and MariaDB if `POSTGRES_URL` and
//! `MYSQL_URL` name servers. Otherwise the tests print that they are skipped, or fail if `REQUIRE_BACKENDS=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use oauth_dance_core::{Precondition, Record, TokenKey, TokenStorage};
use oauth_dance_sqlx::{MySqlStorage, PostgresStorage, SqliteStorage};
use program::{Run, backend, oauth_dance, random_name, skip};
use tempfile::TempDir;
use url::Url;

/// The status of a database with all its migrations in one state.
fn all(url: &str, state: &str) -> String {
    let names =
        if url.starts_with("postgres") { &["create tokens", "index users by key"][..] } else { &["create tokens"] };
    let width = names.iter().map(|name| name.len()).max().unwrap();
    let mut lines = format!("version  {:width$}  state\n", "migration");
    for (index, name) in names.iter().enumerate() {
        lines += &format!("{:>7}  {name:width$}  {state}\n", index + 1);
    }
    lines
}

fn pending(url: &str) -> String {
    all(url, "pending")
}

fn applied(url: &str) -> String {
    all(url, "applied")
}

#[test]
fn sqlite_is_migrated_to_up_to_date() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);

    migrates_to_up_to_date(&url, &[]);

    let storage = block_on(SqliteStorage::connect(&url)).unwrap();
    keeps_a_record(&storage);
}

#[test]
fn postgres_is_migrated_to_up_to_date() {
    let Some(url) = backend("POSTGRES_URL") else { return };
    let (table, schema) = (random_name(), random_name());

    migrates_to_up_to_date(&url, &["--table", &table]);
    migrates_to_up_to_date(&url, &["--table", &table, "--schema", &schema]);

    block_on(async {
        let storage = PostgresStorage::connect(&url).await.unwrap();
        keeps_a_record_async(&storage.clone().with_table(&table).unwrap()).await;
        keeps_a_record_async(&storage.with_table(&format!("{schema}.{table}")).unwrap()).await;
    });
    assert!(sql(&url, &format!("DROP SCHEMA {schema} CASCADE; DROP TABLE {table}, _{table}_migrations;")));
}

#[test]
fn mysql_is_migrated_to_up_to_date() {
    let Some(url) = backend("MYSQL_URL") else { return };
    let (table, database) = (random_name(), random_name());

    migrates_to_up_to_date(&url, &["--table", &table]);
    assert!(sql(&url, &format!("CREATE DATABASE {database};")));
    migrates_to_up_to_date(&url, &["--table", &table, "--schema", &database]);

    block_on(async {
        let storage = MySqlStorage::connect(&url).await.unwrap();
        keeps_a_record_async(&storage.clone().with_table(&table).unwrap()).await;
        keeps_a_record_async(&storage.with_table(&format!("{database}.{table}")).unwrap()).await;
    });
    assert!(sql(&url, &format!("DROP DATABASE {database}; DROP TABLE {table}, _{table}_migrations;")));
}

#[test]
fn printed_sql_makes_sqlite_up_to_date() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    for table in ["oauth_dance_tokens", "others"] {
        fs::OpenOptions::new().create(true).append(true).open(folder.path().join("tokens.db")).unwrap();
        assert_eq!(migrate("status", &url, &["--table", table]), (1, pending(&url)));
        if !sql(&url, &printed("sqlite", &["--table", table])) {
            return;
        }
        assert_eq!(migrate("status", &url, &["--table", table]), (0, applied(&url)));
        assert_eq!(migrate("up", &url, &["--table", table]), (0, applied(&url)));
    }
    keeps_a_record(&block_on(SqliteStorage::connect(&url)).unwrap());
}

#[test]
fn printed_sql_makes_postgres_up_to_date() {
    let Some(url) = backend("POSTGRES_URL") else { return };
    let (table, schema) = (random_name(), random_name());
    for arguments in [&["--table", &table][..], &["--table", &table, "--schema", &schema]] {
        assert_eq!(migrate("status", &url, arguments), (1, pending(&url)));
        if !sql(&url, &printed("postgres", arguments)) {
            return;
        }
        assert_eq!(migrate("status", &url, arguments), (0, applied(&url)));
    }
    assert!(sql(&url, &format!("DROP SCHEMA {schema} CASCADE; DROP TABLE {table}, _{table}_migrations;")));
}

#[test]
fn printed_sql_makes_mysql_up_to_date() {
    let Some(url) = backend("MYSQL_URL") else { return };
    let table = random_name();
    let arguments = ["--table", &table];
    assert_eq!(migrate("status", &url, &arguments), (1, pending(&url)));
    if !sql(&url, &printed("mysql", &arguments)) {
        return;
    }
    assert_eq!(migrate("status", &url, &arguments), (0, applied(&url)));
    assert!(sql(&url, &format!("DROP TABLE {table}, _{table}_migrations;")));
}

/// The program of sqlx applies the files with the `sqlx.toml` of the documentation, and records them.
#[test]
fn files_run_by_sqlx_are_up_to_date() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    block_on(async {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/sqlite");
        let mut migrator = sqlx::migrate::Migrator::new(files).await.unwrap();
        migrator.dangerous_set_table_name("_oauth_dance_tokens_migrations");
        migrator.run(&sqlx::SqlitePool::connect(&format!("{url}?mode=rwc")).await.unwrap()).await.unwrap();
    });
    assert_eq!(migrate("status", &url, &[]), (0, applied(&url)));
}

#[test]
fn printed_sql_omits_applied_migrations() {
    let all = printed("postgres", &[]);
    assert!(all.contains("CREATE TABLE oauth_dance_tokens"));
    let none = printed("postgres", &["--after", "2"]);
    assert!(!none.contains("CREATE TABLE oauth_dance_tokens") && !none.contains("INSERT"), "{none}");
}

#[test]
fn an_error_names_the_missing_right_on_a_schema() {
    let Some(url) = backend("POSTGRES_URL") else { return };
    let (schema, user) = (random_name(), random_name());
    let arguments = ["--schema", schema.as_str()];
    let mut limited = Url::parse(&url).unwrap();
    limited.set_username(&user).unwrap();
    limited.set_password(Some("CANARY")).unwrap();
    let limited = limited.as_str();
    let tables = format!("{schema}.oauth_dance_tokens");
    if !sql(&url, &format!("CREATE ROLE {user} LOGIN PASSWORD 'CANARY'; CREATE SCHEMA {schema};")) {
        return;
    }
    assert!(sql(&url, &format!("GRANT USAGE ON SCHEMA {schema} TO {user};")));

    let refused = run(&["migrate", "up", "--database-url", limited], &arguments);
    assert_eq!(refused.code, 2);
    refused.assert_one_line(&["permission denied for schema"]);
    assert_eq!(migrate("status", limited, &arguments), (1, pending(limited)));

    assert!(sql(&url, &printed("postgres", &arguments)));
    let rights = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {user};
        GRANT SELECT ON {schema}._oauth_dance_tokens_migrations TO {user};"
    );
    assert!(sql(&url, &rights));

    assert_eq!(migrate("up", limited, &arguments), (0, applied(limited)));
    block_on(async {
        let storage = PostgresStorage::connect(limited).await.unwrap().with_table(&tables).unwrap();
        keeps_a_record_async(&storage).await;
    });
    assert!(sql(&url, &format!("DROP SCHEMA {schema} CASCADE; DROP ROLE {user};")));
}

#[test]
fn eight_processes_at_once_all_succeed() {
    let folder = TempDir::new().unwrap();
    let table = random_name();
    let mut urls = vec![file(&folder)];
    urls.extend(["POSTGRES_URL", "MYSQL_URL"].into_iter().filter_map(backend));
    for url in urls {
        let start = |_| {
            let mut command = oauth_dance();
            command.args(["migrate", "up", "--database-url", &url, "--table", &table]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let running: Vec<Child> = (0..8).map(start).collect();
        for process in running {
            let ended = process.wait_with_output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        }
        assert_eq!(migrate("status", &url, &["--table", &table]), (0, applied(&url)));
        assert!(url.starts_with("sqlite:") || sql(&url, &format!("DROP TABLE {table}, _{table}_migrations;")));
    }
}

#[test]
fn status_makes_no_file() {
    let folder = TempDir::new().unwrap();
    for options in ["", "?mode=rwc", "?mode=rw"] {
        let status = run(&["migrate", "status", "--database-url", &format!("{}{options}", file(&folder))], &[]);
        assert_eq!(status.code, 2);
        status.assert_one_line(&["cannot use the storage sqlite:", "unable to open database file"]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_journal_of_an_existing_file_is_unchanged() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    assert_eq!(migrate("up", &url, &[]).0, 0);
    assert_eq!(migrate("status", &url, &[]).0, 0);
    // The format in the header: 1 for a rollback journal, 2 for a write-ahead log.
    assert_eq!(fs::read(folder.path().join("tokens.db")).unwrap()[18..20], [1, 1]);
}

#[test]
fn an_error_is_reported_when_a_text_differs() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    assert_eq!(migrate("up", &url, &[]).0, 0);
    if !sql(&url, "UPDATE _oauth_dance_tokens_migrations SET checksum = X'00';") {
        return;
    }
    let status = run(&["migrate", "status", "--database-url", &url], &[]);
    assert_eq!(status.code, 2);
    assert!(status.stdout.contains("altered"), "{}", status.stdout);
    status.assert_one_line(&["migration 1 differs from the one that was applied", "_oauth_dance_tokens_migrations"]);
    let up = run(&["migrate", "up", "--database-url", &url], &[]);
    assert_eq!(up.code, 2);
    up.assert_one_line(&["differs from the file of this release"]);
}

#[test]
fn migrations_of_a_newer_release_are_no_error() {
    let folder = TempDir::new().unwrap();
    let url = file(&folder);
    assert_eq!(migrate("up", &url, &[]).0, 0);
    let newer = "INSERT INTO _oauth_dance_tokens_migrations (version, description, success, checksum, execution_time) \
        VALUES (99, 'later', TRUE, X'00', -1);";
    if !sql(&url, newer) {
        return;
    }
    for action in ["status", "up"] {
        let (code, shown) = migrate(action, &url, &[]);
        assert!(code == 0 && shown.contains("applied by a newer release"), "{code}: {shown}");
    }
}

#[test]
fn the_environment_names_the_database() {
    let folder = TempDir::new().unwrap();
    let up = Run::of(oauth_dance().args(["migrate", "up"]).env("DATABASE_URL", file(&folder)));
    assert_eq!((up.code, up.stdout.as_str()), (0, applied("sqlite:").as_str()));

    let help = Run::of(oauth_dance().args(["migrate", "up", "--help"]).env("DATABASE_URL", "postgres://u:CANARY@h/d"));
    assert!(help.stdout.contains("DATABASE_URL") && !help.stdout.contains("CANARY"), "{}", help.stdout);
}

#[test]
fn errors_are_one_line_without_the_password() {
    for (arguments, cause) in [
        (&["up"][..], "--database-url or DATABASE_URL"),
        (&["up", "--database-url", "redis://u:CANARY@h/"], "no migrations for \"redis\""),
        (
            &["up", "--database-url", "postgres://u:CANARY@127.0.0.1:1/d"],
            "127.0.0.1:1/d; start its server, or correct the URL: Connection refused",
        ),
        (
            &["status", "--database-url", "mysql://u:CANARY@127.0.0.1:1/d"],
            "127.0.0.1:1/d; start its server, or correct the URL: Connection refused",
        ),
        (&["status", "--database-url", "postgres://u:CAN/ARY@127.0.0.1:1/d"], "invalid port number"),
        (&["up", "--database-url", "sqlite:a.db", "--schema", "a"], "SQLite has no schemas"),
        (&["up", "--database-url", "sqlite:a.db", "--table", "a;b"], "\"a;b\" is not a table name"),
        (&["sql", "--dialect", "sqlite", "--schema", "a"], "SQLite has no schemas"),
    ] {
        let folder = TempDir::new().unwrap();
        let run = Run::of(oauth_dance().arg("migrate").args(arguments).current_dir(folder.path()));
        assert_eq!(run.code, 2, "{arguments:?}");
        run.assert_one_line(&[cause]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{arguments:?}");
    }
}

#[test]
fn a_wrong_password_is_reported_and_not_shown() {
    for url in ["POSTGRES_URL", "MYSQL_URL"].into_iter().filter_map(backend) {
        let mut url = Url::parse(&url).unwrap();
        url.set_password(Some("CANARY")).unwrap();
        let run = run(&["migrate", "status", "--database-url", url.as_str()], &[]);
        assert_eq!(run.code, 2);
        run.assert_one_line(&["the server rejects this user"]);
    }
}

/// Pending, up, up to date, and up again.
fn migrates_to_up_to_date(url: &str, table: &[&str]) {
    if !url.starts_with("sqlite:") {
        assert_eq!(migrate("status", url, table), (1, pending(url)));
    }
    assert_eq!(migrate("up", url, table), (0, applied(url)));
    assert_eq!(migrate("status", url, table), (0, applied(url)));
    assert_eq!(migrate("up", url, table), (0, applied(url)));
}

fn run(first: &[&str], more: &[&str]) -> Run {
    Run::of(oauth_dance().args(first).args(more))
}

/// The exit code and the output. The standard error must be empty.
fn migrate(action: &str, url: &str, table: &[&str]) -> (i32, String) {
    let run = run(&["migrate", action, "--database-url", url], table);
    assert_eq!(run.stderr, "", "{action} ends with {}", run.code);
    (run.code, run.stdout)
}

fn printed(dialect: &str, table: &[&str]) -> String {
    let run = run(&["migrate", "sql", "--dialect", dialect], table);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    run.stdout
}

fn file(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("tokens.db").display())
}

fn keeps_a_record(storage: &impl TokenStorage) {
    block_on(keeps_a_record_async(storage));
}

async fn keeps_a_record_async(storage: &impl TokenStorage) {
    let key = TokenKey::new("github", "alice").unwrap();
    let version = storage.put(&key, &Record::new(b"sealed".to_vec()), Precondition::Absent).await.unwrap();
    assert_eq!(storage.get(&key).await.unwrap().unwrap().version, version);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    // Several threads, because the pools of a storage work in the background.
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

/// Runs SQL with the database's own client, as an administrator does. `false` if that is not installed.
fn sql(url: &str, script: &str) -> bool {
    let mut client = match url.split(':').next() {
        Some("sqlite") => {
            let mut client = Command::new("sqlite3");
            client.arg("-bail").arg(Path::new(url.strip_prefix("sqlite:").unwrap()));
            client
        }
        Some("mysql") => mariadb(&Url::parse(url).unwrap()),
        _ => {
            let mut client = Command::new("psql");
            client.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", url]);
            client
        }
    };
    let client = client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let Ok(mut running) = client.spawn() else {
        skip(&format!("{:?} is not installed", client.get_program()));
        return false;
    };
    running.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let ended = running.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    true
}

fn mariadb(url: &Url) -> Command {
    let installed = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let mut client = Command::new(["mariadb", "mysql"].into_iter().find(installed).unwrap_or("mariadb"));
    // A server may have `autocommit = 0`.
    client.args(["--no-defaults", "--protocol=TCP", "--init-command=SET autocommit = 0"]);
    client.arg(format!("--host={}", url.host_str().unwrap()));
    client.arg(format!("--port={}", url.port().unwrap_or(3306))).arg(format!("--user={}", url.username()));
    client.arg(url.path().trim_start_matches('/')).env("MYSQL_PWD", url.password().unwrap_or_default());
    client
}
