//! `oauth-dance doctor`, on every storage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use program::storages::{Backend, on_every_storage};
use program::{Run, oauth_dance, objects, over_ipv6};

/// The result of one check, and what to do.
fn check(run: &Run, name: &str) -> (String, String) {
    let found = objects(run).into_iter().find(|finding| finding["check"] == name);
    let finding = found.unwrap_or_else(|| panic!("no check {name} in {}{}", run.stdout, run.stderr));
    let text = |column: &str| finding[column].as_str().unwrap_or_default().to_owned();
    (text("result"), text("what_to_do"))
}

fn assert_found(run: &Run, name: &str, result: &str, advice: &str) {
    let (found, what_to_do) = check(run, name);
    assert_eq!((found.as_str(), run.code), (result, 1), "{name}: {}", run.stdout);
    assert!(what_to_do.contains(advice), "{name}: {what_to_do}");
}

/// This is one test, because the settings of a server affect all tests that use it.
#[test]
fn settings_that_endanger_tokens_are_found() {
    on_every_storage(|backend| {
        let sound = backend.run_with_keys(&["doctor", "--json"]);
        assert_eq!((sound.code, sound.stderr.as_str()), (0, ""), "{}: {}", backend.name, sound.stdout);
        for name in ["connection", "writes", "key_file"] {
            assert_eq!(check(&sound, name).0, "ok", "{name}");
        }
        match backend.name {
            "SQLite" => sqlite_findings(backend),
            "PostgreSQL" => postgres_findings(backend),
            "MariaDB" => mysql_findings(backend),
            _ => redis_findings(backend),
        }
        let sound = backend.run_with_keys(&["doctor", "--json"]);
        assert_eq!(sound.code, 0, "{}: {}", backend.name, sound.stdout);
    });
}

fn sqlite_findings(backend: &Backend) {
    // Another connection in WAL mode would prevent the change.
    let folder = tempfile::TempDir::new().unwrap();
    let url = format!("sqlite:{}", folder.path().join("other.db").display());
    let up = Run::of(oauth_dance().args(["migrate", "up", "--database-url", &url]));
    assert_eq!(up.code, 0, "{}", up.stderr);
    let doctor = Run::of(oauth_dance().args(["doctor", "--json", "--storage", &url]));
    assert_found(&doctor, "journal_mode", "warning", "WAL");
    assert_eq!(check(&doctor, "file_system").0, "ok");
    assert_eq!(check(&backend.run(&["doctor", "--json"]), "quick_check").0, "ok");
}

fn postgres_findings(backend: &Backend) {
    let place = &backend.place;
    backend.sql(&format!("ALTER TABLE {place} SET UNLOGGED"));
    assert_found(&backend.run(&["doctor", "--json"]), "persistence", "danger", "SET LOGGED");
    backend.sql(&format!("ALTER TABLE {place} SET LOGGED"));
    for (setting, value) in [("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")] {
        backend.sql(&format!("ALTER SYSTEM SET {setting} = {value}"));
        reload(backend);
        let doctor = backend.run(&["doctor", "--json"]);
        backend.sql(&format!("ALTER SYSTEM RESET {setting}"));
        reload(backend);
        assert_found(&doctor, setting, "danger", "default");
    }
}

fn reload(backend: &Backend) {
    backend.sql("SELECT pg_reload_conf()");
    // The processes of the server read the change at their next statement, once the signal has arrived.
    std::thread::sleep(std::time::Duration::from_millis(300));
}

fn mysql_findings(backend: &Backend) {
    let place = &backend.place;
    backend.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 2");
    let doctor = backend.run(&["doctor", "--json"]);
    backend.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    assert_found(&doctor, "innodb_flush_log_at_trx_commit", "danger", "default");

    backend.sql(&format!("ALTER TABLE {place} ENGINE = Aria"));
    assert_found(&backend.run(&["doctor", "--json"]), "engine", "danger", "InnoDB");
    backend.sql(&format!("ALTER TABLE {place} ENGINE = InnoDB"));

    backend.sql(&format!("ALTER TABLE {place} MODIFY provider varchar(255) COLLATE utf8mb4_general_ci NOT NULL"));
    assert_found(&backend.run(&["doctor", "--json"]), "collation", "danger", "binary");
    backend.sql(&format!("ALTER TABLE {place} MODIFY provider varbinary(255) NOT NULL"));
}

fn redis_findings(backend: &Backend) {
    let set = |name: &str, value: &str| backend.redis(&["CONFIG", "SET", name, value]);
    set("maxmemory", "1gb");
    set("maxmemory-policy", "allkeys-lru");
    let doctor = backend.run(&["doctor", "--json"]);
    set("maxmemory", "0");
    set("maxmemory-policy", "noeviction");
    assert_found(&doctor, "eviction", "danger", "noeviction");

    set("appendfsync", "everysec");
    let doctor = backend.run(&["doctor", "--json"]);
    set("appendfsync", "always");
    assert_found(&doctor, "durability", "warning", "appendfsync");
}

#[test]
fn settings_are_read_from_an_ipv6_address() {
    for (name, setting) in [("PostgreSQL", "synchronous_commit"), ("MariaDB", "innodb_doublewrite")] {
        let Some(backend) = Backend::new(name) else { continue };
        let doctor = backend.run_at(&over_ipv6(&backend.url), &["doctor", "--json"]);
        assert_eq!((doctor.code, doctor.stderr.as_str()), (0, ""), "{name}: {}", doctor.stdout);
        assert_eq!(check(&doctor, setting).0, "ok", "{name}");
    }
}

#[test]
fn a_missing_table_is_a_finding() {
    on_every_storage(|backend| {
        if backend.name == "Redis" {
            return;
        }
        let doctor = Run::of(oauth_dance().args(["doctor", "--json", "--storage", &backend.url, "--table", "another"]));
        assert_found(&doctor, "schema", "danger", "oauth-dance migrate up");
    });
}

#[test]
fn a_storage_that_rejects_writes_is_a_finding() {
    on_every_storage(|backend| {
        let doctor = backend.run_at(&backend.read_only(), &["doctor", "--json"]);
        let name = if backend.name == "Redis" { "permissions" } else { "writes" };
        assert_found(&doctor, name, "danger", "");
    });
}

#[test]
fn a_key_file_that_others_can_read_is_a_finding() {
    let Some(backend) = Backend::new("SQLite") else { return };
    for (mode, result) in [(0o600, "ok"), (0o400, "ok"), (0o640, "danger"), (0o604, "danger"), (0o602, "danger")] {
        fs::set_permissions(&backend.key_file, fs::Permissions::from_mode(mode)).unwrap();
        let doctor = backend.run_with_keys(&["doctor", "--json"]);
        assert_eq!(check(&doctor, "key_file").0, result, "{mode:o}");
        assert_eq!(doctor.code, i32::from(result != "ok"));
    }
    fs::write(&backend.key_file, "CANARY").unwrap();
    fs::set_permissions(&backend.key_file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_found(&backend.run_with_keys(&["doctor", "--json"]), "key_file", "danger", "one key of 32 bytes");
}

#[test]
fn quick_reports_only_whether_the_storage_responds() {
    on_every_storage(|backend| {
        let quick = backend.run(&["doctor", "--quick"]);
        assert_eq!((quick.code, quick.stdout.as_str(), quick.stderr.as_str()), (0, "", ""), "{}", backend.name);
        for command in [&["doctor", "--quick"][..], &["doctor"]] {
            let down = backend.run_at(&backend.unreachable(), command);
            assert_eq!((down.code, down.stdout.as_str()), (2, ""));
            down.assert_one_line(&["cannot use the storage"]);
        }
    });
}

#[test]
fn a_damaged_sqlite_file_is_a_finding() {
    let Some(backend) = Backend::new("SQLite") else { return };
    let path = backend.folder.path().join("damaged.db");
    let url = format!("sqlite:{}", path.display());
    assert_eq!(Run::of(oauth_dance().args(["migrate", "up", "--database-url", &url])).code, 0);
    let mut bytes = fs::read(&path).unwrap();
    // The page of an index. Its header contains the number of its cells.
    let page = bytes.len() - 4096;
    bytes[page..page + 64].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let doctor = Run::of(oauth_dance().args(["doctor", "--json", "--storage", &url]));
    assert_found(&doctor, "quick_check", "danger", "restore a backup");
}
