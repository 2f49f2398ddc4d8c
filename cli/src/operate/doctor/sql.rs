//! The settings of SQL databases that endanger tokens.

use oauth_dance_core::Timestamp;
use oauth_dance_migrations::TableName;
use oauth_dance_sqlx::SqliteStorage;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::finding::Finding;

const LOST_WRITES: &str =
    "set it to its default: a crash of the server loses tokens that the application believes stored";

/// The journal, the integrity and the place of a file.
pub(super) async fn sqlite(
    storage: &SqliteStorage,
    connection: &mut SqliteConnection,
) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = Vec::new();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
    findings.push(match journal.as_str() {
        "wal" => Finding::ok("journal_mode", journal),
        _ => Finding::warning(
            "journal_mode",
            journal,
            "run `sqlite3 FILE 'PRAGMA journal_mode = WAL'`, which the file remembers: without it, readers and writers block \
            each other",
        ),
    });
    findings.push(match storage.network_file_system() {
        None => Finding::ok("file_system", "local"),
        Some(kind) => Finding::danger(
            "file_system",
            kind,
            "move the file to a local disk, or use a database server: locks do not work on a network share, and the file \
            becomes corrupt",
        ),
    });
    let damage: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
    findings.push(match damage.as_str() {
        "ok" => Finding::ok("quick_check", damage),
        _ => Finding::danger("quick_check", damage, "stop the application and restore a backup; the file is damaged"),
    });
    Ok(findings)
}

/// Whether an acknowledged write is on disk.
pub(super) async fn postgres(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Finding>, sqlx::Error> {
    let settings = "SELECT current_setting('server_version'), current_setting('fsync'), \
        current_setting('full_page_writes'), current_setting('synchronous_commit'), \
        coalesce((SELECT relpersistence::text FROM pg_class WHERE oid = to_regclass($1)), '-')";
    let row = sqlx::query(settings).persistent(false).bind(table.to_string()).fetch_one(connection).await?;
    let [version, fsync, full_page_writes, synchronous_commit, persistence]: [String; 5] =
        [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?];
    Ok(vec![
        Finding::ok("version", version),
        Finding::setting("fsync", &fsync, fsync == "on", LOST_WRITES),
        Finding::setting("full_page_writes", &full_page_writes, full_page_writes == "on", LOST_WRITES),
        Finding::setting("synchronous_commit", &synchronous_commit, synchronous_commit != "off", LOST_WRITES),
        match persistence.as_str() {
            "u" => Finding::danger(
                "persistence",
                "the table is UNLOGGED",
                "ALTER TABLE … SET LOGGED: a crash of the server empties the table",
            ),
            _ => Finding::ok("persistence", "logged"),
        },
    ])
}

/// Whether an acknowledged write is on disk, and whether keys are compared byte by byte.
pub(super) async fn mysql(connection: &mut MySqlConnection, table: &TableName) -> Result<Vec<Finding>, sqlx::Error> {
    let settings = "SELECT CONVERT(@@version USING utf8mb4), CONVERT(@@innodb_flush_log_at_trx_commit, CHAR), \
        CONVERT(@@innodb_doublewrite, CHAR), CONVERT(@@log_bin, CHAR), CONVERT(@@sync_binlog, CHAR), \
        CONVERT(@@max_allowed_packet, CHAR)";
    let row = sqlx::query(settings).fetch_one(&mut *connection).await?;
    let [version, flush, doublewrite, log_bin, sync_binlog, packet] =
        [text(&row, 0)?, text(&row, 1)?, text(&row, 2)?, text(&row, 3)?, text(&row, 4)?, text(&row, 5)?];
    let doubles = !matches!(doublewrite.as_str(), "0" | "OFF");
    let mut findings = vec![
        Finding::ok("version", version),
        Finding::setting("innodb_flush_log_at_trx_commit", &flush, flush == "1", LOST_WRITES),
        Finding::setting("innodb_doublewrite", &doublewrite, doubles, LOST_WRITES),
        Finding::ok("max_allowed_packet", packet),
    ];
    if matches!(log_bin.as_str(), "1" | "ON") && sync_binlog != "1" {
        findings.push(Finding::warning(
            "sync_binlog",
            sync_binlog,
            "set it to 1: a crash of the server loses the last writes for its replicas",
        ));
    }
    findings.extend(mysql_table(connection, table).await?);
    Ok(findings)
}

async fn mysql_table(connection: &mut MySqlConnection, table: &TableName) -> Result<Vec<Finding>, sqlx::Error> {
    let table = table.to_string();
    let (schema, name) = table
        .rsplit_once('.')
        .map_or(("DATABASE()".to_owned(), table.as_str()), |(schema, name)| (format!("'{schema}'"), name));
    // A table's name consists of letters, digits and underscores.
    let about = format!(
        "SELECT CONVERT(coalesce((SELECT engine FROM information_schema.tables WHERE table_schema = {schema} AND \
        table_name = '{name}'), '-') USING utf8mb4), CONVERT(coalesce((SELECT group_concat(DISTINCT collation_name) FROM \
        information_schema.columns WHERE table_schema = {schema} AND table_name = '{name}' AND \
        column_name IN ('tenant', 'user_id', 'provider', 'account')), '-') USING utf8mb4)"
    );
    let row = sqlx::query(AssertSqlSafe(about)).fetch_one(connection).await?;
    let (engine, collation) = (text(&row, 0)?, text(&row, 1)?);
    let is_innodb = matches!(engine.as_str(), "InnoDB" | "-");
    Ok(vec![
        Finding::setting(
            "engine",
            &engine,
            is_innodb,
            "ALTER TABLE … ENGINE = InnoDB: a crash of the server corrupts other tables or loses writes",
        ),
        match collation.as_str() {
            "-" => Finding::ok("collation", "binary"),
            _ => Finding::danger(
                "collation",
                collation,
                "make the columns of the key binary, as the migrations do: with a collation, one user can get the \
                token of another whose name is almost the same",
            ),
        },
    ])
}

fn text(row: &MySqlRow, column: usize) -> Result<String, sqlx::Error> {
    row.try_get(column)
}

/// The time on the server's clock.
pub(super) async fn postgres_clock(connection: &mut PgConnection) -> Result<Option<Timestamp>, sqlx::Error> {
    let now = "SELECT extract(epoch FROM clock_timestamp())::bigint";
    Ok(Timestamp::from_unix_seconds_signed(sqlx::query_scalar(now).persistent(false).fetch_one(connection).await?))
}

/// The time on the server's clock.
pub(super) async fn mysql_clock(connection: &mut MySqlConnection) -> Result<Option<Timestamp>, sqlx::Error> {
    let now = "SELECT CAST(UNIX_TIMESTAMP() AS SIGNED)";
    Ok(Timestamp::from_unix_seconds_signed(sqlx::query_scalar(now).fetch_one(connection).await?))
}
