//! `oauth-dance import flask-dance`, on databases that the real Flask-Dance wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance::testing::{CLIENT, TestProvider};
use oauth_dance::{OAuth, User};
use program::storages::{Backend, key, on_every_storage};
use program::{Run, oauth_dance, over_ipv6, skip};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

const E2E: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/e2e");

/// The Python with Flask-Dance.
fn python() -> Option<PathBuf> {
    let read = |path: &str| std::fs::read(Path::new(E2E).join(path)).ok();
    let installed = read(".venv/.installed");
    if installed.is_none() || installed != read("requirements.txt") {
        skip("a Python with the packages of tests/e2e/requirements.txt is missing; `tests/run` installs it");
        return None;
    }
    Some(Path::new(E2E).join(".venv/bin/python"))
}

/// A database of Flask-Dance: on the server of the storage, or a SQLite file if the storage is not a database.
struct Flask<'a> {
    backend: &'a Backend,
    url: String,
    /// A schema or database that is deleted after the test.
    created: Option<String>,
}

impl<'a> Flask<'a> {
    fn new(backend: &'a Backend) -> Self {
        let name = format!("flask_{}", backend.place);
        let (url, created) = match backend.name {
            "PostgreSQL" | "MariaDB" => {
                backend.sql(&format!("CREATE DATABASE {name}"));
                let mut url = url::Url::parse(&backend.url).unwrap();
                url.set_path(&name);
                (url.to_string(), Some(name))
            }
            _ => (format!("sqlite:{}", backend.folder.path().join("flask.db").display()), None),
        };
        Self { backend, url, created }
    }

    /// The URL in the notation of SQLAlchemy.
    fn sqlalchemy(&self) -> String {
        let (url, _) = self.url.split_once('?').unwrap_or((&self.url, ""));
        match url.split_once(':').unwrap() {
            ("sqlite", path) => format!("sqlite:///{path}"),
            ("mysql" | "mariadb", rest) => format!("mysql+pymysql:{rest}"),
            (_, rest) => format!("postgresql+psycopg:{rest}"),
        }
    }

    /// Logs users in, and returns the API's responses.
    fn log_in(&self, python: &Path, provider: &TestProvider, users: &[u32]) -> Value {
        let settings = json!({
            "database": self.sqlalchemy(), "provider": provider.url(), "client": [CLIENT.0, CLIENT.1], "users": users
        });
        let mut command = Command::new(python);
        command.arg(Path::new(E2E).join("flask-dance.py")).arg(settings.to_string()).env("NO_PROXY", "127.0.0.1");
        let run = Run::of(&mut command);
        assert_eq!(run.code, 0, "{}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap()
    }

    fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        self.backend.block_on(async {
            match self.url.split_once(':').unwrap().0 {
                "sqlite" => {
                    sqlx::SqliteConnection::connect(&format!("{}?mode=rwc", self.url))
                        .await
                        .unwrap()
                        .execute(sqlx::raw_sql(sql))
                        .await
                        .unwrap();
                }
                "mysql" | "mariadb" => {
                    sqlx::MySqlConnection::connect(&self.url).await.unwrap().execute(sqlx::raw_sql(sql)).await.unwrap();
                }
                _ => {
                    sqlx::PgConnection::connect(&self.url).await.unwrap().execute(sqlx::raw_sql(sql)).await.unwrap();
                }
            }
        });
    }

    fn import(&self, options: &[&str]) -> Run {
        self.import_from(&self.url, options)
    }

    fn import_from(&self, url: &str, options: &[&str]) -> Run {
        let mut command = oauth_dance();
        command.args(["import", "flask-dance", "--json", "--from", url]).args(self.backend.at(&self.backend.url));
        Run::of(command.arg("--key-file").arg(&self.backend.key_file).args(options))
    }
}

impl Drop for Flask<'_> {
    fn drop(&mut self) {
        if let (Some(name), false) = (&self.created, std::thread::panicking()) {
            let force = if self.backend.name == "PostgreSQL" { " WITH (FORCE)" } else { "" };
            self.backend.sql(&format!("DROP DATABASE {name}{force}"));
        }
    }
}

/// The numbers of rows that were imported, stored already, duplicates, without a user, and failed.
fn counts(run: &Run) -> [u64; 5] {
    let report: Value = serde_json::from_str(run.stdout.trim()).unwrap_or_else(|_| panic!("{}", run.stderr));
    ["imported", "stored_already", "duplicates", "without_user", "failed"].map(|name| report[name].as_u64().unwrap())
}

#[test]
fn users_of_flask_dance_need_no_new_login() {
    let Some(python) = python() else { return };
    on_every_storage(|backend| {
        let flask = Flask::new(backend);
        let provider = backend.block_on(TestProvider::start()).unwrap();
        provider.configure(|settings| settings.access_token_lifetime = Duration::from_secs(20));
        let before = flask.log_in(&python, &provider, &[1, 2, 42]);
        assert_eq!(before, json!({"1": "user 1", "2": "user 2", "42": "user 42"}));

        let run = flask.import(&[]);
        assert_eq!((run.code, counts(&run)), (0, [3, 0, 0, 0, 0]), "{}", run.stderr);
        let again = flask.import(&[]);
        assert_eq!((again.code, counts(&again)), (0, [0, 3, 0, 0, 0]), "{}", again.stderr);

        let clock = oauth_dance::testing::TestClock::new();
        let oauth = OAuth::builder("http://localhost:3000", Arc::clone(&backend.storage), backend.ring.clone())
            .provider(provider.registration("acme"))
            .clock(clock.clock())
            .anonymous_users()
            .build()
            .unwrap();
        let call = async |user: &str| {
            let client = oauth.client("acme", &User::new(user)).await.unwrap();
            let response = client.userinfo().send().await.unwrap().success().unwrap();
            response.json::<Value>().unwrap()["sub"].as_str().unwrap().to_owned()
        };
        backend.block_on(async {
            for user in ["1", "2", "42"] {
                assert_eq!(call(user).await, format!("user {user}"));
            }
            clock.advance(Duration::from_secs(60));
            let redeemed = provider.counters().refreshes;
            for user in ["1", "2", "42"] {
                assert_eq!(call(user).await, format!("user {user}"), "with the imported refresh token");
            }
            assert_eq!(provider.counters().refreshes, redeemed + 3);
            assert_eq!(provider.counters().families_revoked, 0);
        });
    });
}

#[test]
fn the_newest_of_duplicate_rows_is_imported() {
    let Some(python) = python() else { return };
    on_every_storage(|backend| {
        let flask = Flask::new(backend);
        let provider = backend.block_on(TestProvider::start()).unwrap();
        flask.log_in(&python, &provider, &[1]);
        let row = |id: u32, user: &str, token: &str| {
            flask.execute(&format!(
                "INSERT INTO flask_dance_oauth (id, provider, created_at, token, user_id) \
                VALUES ({id}, 'acme', '2020-01-01 00:00:00', '{token}', {user})"
            ));
        };
        row(100, "7", r#"{"access_token": "CANARY-old", "expires_at": 2000000000.5}"#);
        row(101, "7", r#"{"access_token": "CANARY-new", "expires_at": 3000000000}"#);
        row(102, "7", r#"{"access_token": "CANARY-without"}"#);
        row(103, "NULL", r#"{"access_token": "CANARY-nobody"}"#);
        row(104, "8", r#"{"not_a_token": "CANARY"}"#);

        let run = flask.import(&[]);
        assert_eq!((run.code, counts(&run)), (1, [2, 0, 2, 1, 1]), "{}", run.stderr);
        assert!(!run.stderr.contains("CANARY"), "{}", run.stderr);
        for part in ["row 101 is used", "row 103 has no user", "row 104: the token has no access_token"] {
            assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
        }
        let stored = backend.block_on(backend.tokens().get(&key("acme", "7"))).unwrap().unwrap().value;
        assert_eq!(stored.secret().expose(), "CANARY-new");
        let run = flask.import(&["--user-of-others", "anonymous"]);
        assert_eq!(counts(&run), [1, 2, 2, 0, 1], "{}", run.stderr);
        assert!(backend.has(&key("acme", "anonymous")));
    });
}

/// A table with text as the user's id, in the default collation of the database.
fn create_table(flask: &Flask<'_>) {
    flask.execute(
        "CREATE TABLE flask_dance_oauth (id INTEGER PRIMARY KEY, provider VARCHAR(50), created_at TIMESTAMP NULL, \
        token TEXT, user_id VARCHAR(256))",
    );
}

/// Inserts rows of id, user and the second at which the token expires.
fn insert_rows(flask: &Flask<'_>, rows: &[(usize, Option<String>, u64)]) {
    let value = |(id, user, expires_at): &(usize, Option<String>, u64)| {
        let user = user.as_ref().map_or("NULL".to_owned(), |user| format!("'{user}'"));
        let token = format!(r#"{{"access_token": "CANARY-{id}", "expires_at": {expires_at}}}"#);
        format!("({id}, 'acme', '2020-01-01 00:00:00', '{token}', {user})")
    };
    for rows in rows.chunks(500) {
        let values: Vec<_> = rows.iter().map(value).collect();
        flask.execute(&format!(
            "INSERT INTO flask_dance_oauth (id, provider, created_at, token, user_id) VALUES {}",
            values.join(", ")
        ));
    }
}

#[test]
fn every_row_of_every_page_is_imported_once() {
    const USERS: usize = 2500;
    on_every_storage(|backend| {
        let flask = Flask::new(backend);
        create_table(&flask);
        let mut rows: Vec<_> = (0..USERS).map(|user| (user, Some(format!("u{user}")), 2_000_000_000)).collect();
        // The duplicates of a user are far from each other, and the one in the middle is the newest.
        rows.push((9_000, Some("u77".to_owned()), 3_000_000_000));
        rows.push((10_000, Some("u77".to_owned()), 2_000_000_000));
        // One user has more rows than a page.
        rows.extend((0..1_200).map(|row| (20_000 + row, Some("many".to_owned()), 2_000_000_000 + row as u64 % 600)));
        // Different users, of which a collation may think otherwise.
        let alike = ["alice", "Alice", "ALICE", "alice ", "\u{e1}lice", "z"];
        rows.extend(
            alike.iter().enumerate().map(|(index, user)| (30_000 + index, Some((*user).to_owned()), 2_000_000_000)),
        );
        rows.extend([(40_000, None, 2_000_000_000), (40_001, Some(String::new()), 2_000_000_000)]);
        insert_rows(&flask, &rows);

        let run = flask.import(&[]);
        let imported = (USERS + alike.len() + 1) as u64;
        assert_eq!(counts(&run), [imported, 0, 2 + 1_199, 2, 0], "{}", backend.name);
        for (user, token) in [("u77", 9_000), ("u0", 0), ("u2499", 2_499), ("many", 21_199), ("alice ", 30_003)] {
            let stored = backend.block_on(backend.tokens().get(&key("acme", user))).unwrap().unwrap().value;
            assert_eq!(stored.secret().expose(), format!("CANARY-{token}"), "{user} on {}", backend.name);
        }
        let again = flask.import(&[]);
        assert_eq!(counts(&again), [0, imported, 2 + 1_199, 2, 0], "{}", backend.name);
    });
}

#[test]
fn rows_without_a_user_and_those_of_their_user_are_one() {
    on_every_storage(|backend| {
        let flask = Flask::new(backend);
        create_table(&flask);
        let rows = [(1, None, 2_000_000_000), (2, Some("bot".to_owned()), 3_000_000_000), (3, None, 2_500_000_000)];
        insert_rows(&flask, &rows);
        let run = flask.import(&["--user-of-others", "bot"]);
        assert_eq!((run.code, counts(&run)), (0, [1, 0, 2, 0, 0]), "{}: {}", backend.name, run.stderr);
        let stored = backend.block_on(backend.tokens().get(&key("acme", "bot"))).unwrap().unwrap().value;
        assert_eq!(stored.secret().expose(), "CANARY-2");
    });
}

/// PostgreSQL reads `user` without quotes as the name of the database user.
#[test]
fn names_that_need_quotes_are_read_exactly() {
    on_every_storage(|backend| {
        let flask = Flask::new(backend);
        let quote = if backend.name == "PostgreSQL" { '"' } else { '`' };
        flask.execute(
            &format!(
                "CREATE TABLE `OAuth` (id INTEGER PRIMARY KEY, provider VARCHAR(50), created_at TIMESTAMP NULL, \
                token TEXT, `user` VARCHAR(256)); \
                INSERT INTO `OAuth` VALUES (1, 'acme', NULL, '{token}', 'alice'), (2, 'acme', NULL, '{token}', 'bob')",
                token = r#"{"access_token": "CANARY"}"#,
            )
            .replace('`', &quote.to_string()),
        );
        let run = flask.import(&["--from-table", "OAuth", "--user-column", "user"]);
        assert_eq!((run.code, counts(&run)), (0, [2, 0, 0, 0, 0]), "{}: {}", backend.name, run.stderr);
        assert!(backend.has(&key("acme", "alice")) && backend.has(&key("acme", "bob")), "{}", backend.name);
        let run = flask.import(&["--from-table", "OAuth", "--user-column", "nothing"]);
        assert_eq!(run.code, 2);
        run.assert_one_line(&["OAuth cannot be read", "--user-column"]);
    });
}

#[test]
fn ipv6_addresses_are_accepted() {
    on_every_storage(|backend| {
        let flask = Flask::new(backend);
        if flask.created.is_none() {
            return;
        }
        create_table(&flask);
        insert_rows(&flask, &[(1, Some("alice".to_owned()), 2_000_000_000)]);
        let run = flask.import_from(&over_ipv6(&flask.url), &[]);
        assert_eq!((run.code, counts(&run)), (0, [1, 0, 0, 0, 0]), "{}: {}", backend.name, run.stderr);
    });
}

#[test]
fn an_error_is_one_line_and_imports_nothing() {
    on_every_storage(|backend| {
        let flask = Flask::new(backend);
        for (url, options, words) in [
            (backend.unreachable(), &[][..], &["cannot use the storage"][..]),
            ("redis://CANARY@host".to_owned(), &[], &["--from names no SQL database"]),
            (flask.url.clone(), &["--from-table", "a;b"], &["a;b", "letters, digits and underscores"]),
        ] {
            if backend.name == "Redis" && url.contains("127.0.0.1:1/") {
                continue;
            }
            let run = flask.import_from(&url, options);
            assert_eq!(run.code, 2, "{} {}", backend.name, run.stderr);
            run.assert_one_line(words);
        }
        if flask.created.is_some() {
            let run = flask.import(&[]);
            assert_eq!(run.code, 2);
            run.assert_one_line(&["flask_dance_oauth cannot be read", "--from-table"]);
        }
        assert_eq!(backend.run(&["list", "--json"]).stdout, "");
    });
}
