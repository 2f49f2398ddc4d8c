//! The cases that every database must pass, each on a new empty table.

mod contract;
mod lists;
mod outages;
mod proxy;
mod races;
mod rows;
mod schema;

use std::io::Write as _;
use std::time::Duration;

use oauth_dance_core::{Record, StorageError, TokenKey, TokenStorage};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

pub use contract::*;
pub use lists::*;
pub use outages::*;
pub use races::*;
pub use rows::*;
pub use schema::*;

/// A database for one test.
pub trait Database: Sized + Send + Sync + 'static {
    type Storage: TokenStorage + Clone;

    /// An empty database without the table, or `None` if there is no server.
    async fn empty() -> Option<Self>;

    /// A storage with a new pool.
    async fn connect(&self) -> Self::Storage;

    fn migrate(storage: &Self::Storage) -> impl Future<Output = Result<(), StorageError>> + Send;

    async fn applied(storage: &Self::Storage) -> Vec<oauth_dance_sqlx::MigrationStatus>;

    fn with_table(storage: Self::Storage, name: &str) -> Self::Storage;

    /// Runs SQL on a separate connection. Returns the number of changed rows.
    async fn execute(&self, sql: &str) -> u64;

    /// The migrations of an application, recorded in the table of sqlx.
    async fn migrate_application(&self);

    /// SQL that makes the table reject every row.
    const REFUSE_ROWS: &str;

    /// A literal of this dialect for bytes.
    fn literal(bytes: &[u8]) -> String {
        format!("X'{}'", hex(bytes))
    }

    /// Removes the database, unless dropping this object does.
    async fn remove(self) {}
}

/// Migrations of an application, with a version that this crate does not use.
pub fn application_migrations() -> Migrator {
    let sql = "CREATE TABLE notes (id INTEGER PRIMARY KEY)".into_sql_str();
    Migrator::with_migrations(vec![Migration::new(7, "notes".into(), MigrationType::Simple, sql, false)])
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reports that a test is skipped. Writes to the terminal directly, because the test runner captures the output of
/// tests.
pub fn skip<T>(variable: &str) -> Option<T> {
    assert!(std::env::var_os("REQUIRE_BACKENDS").is_none(), "{variable} is not set; see tests/servers/start");
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {variable} is not set; see tests/servers/start");
    None
}

/// The URL of a server for tests, and of a new database on it.
pub struct Server {
    pub url: String,
    pub database: String,
}

impl Server {
    /// `None`, with a message, if the environment names no server.
    pub fn named_by(variable: &str) -> Option<Self> {
        let url = std::env::var(variable).ok().or_else(|| skip(variable))?;
        let database = format!("test_{}", hex(&oauth_dance_core::random_bytes::<6>()));
        Some(Self { url, database })
    }

    pub fn database_url(&self) -> String {
        let (server, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (server, _) = server.rsplit_once('/').unwrap();
        format!("{server}/{}?{query}", self.database)
    }
}

/// A storage with a migrated table.
pub async fn ready<D: Database>(database: &D) -> D::Storage {
    let storage = database.connect().await;
    D::migrate(&storage).await.unwrap();
    storage
}

pub fn key(user: &str) -> TokenKey {
    TokenKey::new("github", user).unwrap()
}

pub fn retained_for(seconds: u64) -> Record {
    Record::new("retained for a while").with_retain_for(Some(Duration::from_secs(seconds)))
}

macro_rules! run_cases {
    ($Database:ty: $($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let Some(database) = <$Database as cases::Database>::empty().await else { return };
            cases::$case(&database).await;
            cases::Database::remove(database).await;
        }
    )*};
    ($Database:ty) => {
        run_cases!($Database:
            every_field_round_trips preconditions_apply_to_every_write write_replaces_the_whole_record write_updates_the_row_in_place
            versions_are_never_reused retention_hides_and_purge_removes_records purge_is_bounded_and_exact
            similar_keys_are_separate long_keys_are_rejected_and_not_truncated large_payloads_are_rejected
            filters_select_exactly pages_list_every_record_once pages_continue_within_a_tenant foreign_cursors_are_rejected
            corrupt_rows_do_not_affect_other_rows row_without_a_valid_key_is_left_out missing_table_is_reported
            no_secret_is_printed
            increments_are_exact one_creator_wins concurrent_puts_create_one_row reads_are_never_torn
            dropped_futures_leave_old_or_new purge_never_removes_a_renewed_record other_pools_see_acknowledged_writes
            concurrent_reads_get_their_own_results concurrent_reads_are_linearizable
            migrating_twice_changes_nothing failed_migration_is_not_applied concurrent_migrations_succeed
            application_migrations_do_not_interfere
            tables_are_separate migration_retains_existing_records
        );
    };
}
pub(crate) use run_cases;

macro_rules! run_remote_cases {
    ($Database:ty) => {
        run_cases!($Database);
        run_cases!($Database:
            outage_is_an_error_within_the_timeout broken_idle_connections_cause_no_error
            lost_response_is_ambiguous incomplete_statement_is_not_completed silent_server_leaks_no_connection connections_are_reused
            locked_row_is_unavailable_and_delays_no_other
        );

        #[tokio::test]
        async fn idle_and_old_connections_are_closed() {
            let Some(database) = <$Database as cases::Database>::empty().await else { return };
            cases::idle_and_old_connections_are_closed(&database).await;
            cases::Database::remove(database).await;
        }

        #[test]
        fn ended_runtime_causes_no_error() {
            cases::ended_runtime_causes_no_error::<$Database>();
        }
    };
}
pub(crate) use run_remote_cases;
