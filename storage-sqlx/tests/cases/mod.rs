//! What every database here must do, each case on an empty table of its own.

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

    /// An empty database without the table, or `None` where there is no server to have one on.
    async fn empty() -> Option<Self>;

    /// A storage on a pool of its own.
    async fn connect(&self) -> Self::Storage;

    fn migrate(storage: &Self::Storage) -> impl Future<Output = Result<(), StorageError>> + Send;

    async fn applied(storage: &Self::Storage) -> Vec<oauth_dance_sqlx::MigrationStatus>;

    fn with_table(storage: Self::Storage, name: &str) -> Self::Storage;

    /// Runs SQL by another way than the storage's; returns the rows it changed.
    async fn execute(&self, sql: &str) -> u64;

    /// The application's own migrations, in sqlx's own table.
    async fn migrate_application(&self);

    /// SQL that makes the table refuse every row.
    const REFUSE_ROWS: &str;

    /// Bytes as a literal of this dialect.
    fn literal(bytes: &[u8]) -> String {
        format!("X'{}'", hex(bytes))
    }

    /// Removes it, if it is not gone with this object.
    async fn remove(self) {}
}

/// Migrations of the application's own, whose version is none of ours.
pub fn application_migrations() -> Migrator {
    let sql = "CREATE TABLE notes (id INTEGER PRIMARY KEY)".into_sql_str();
    Migrator::with_migrations(vec![Migration::new(7, "notes".into(), MigrationType::Simple, sql, false)])
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says that a test is left out, past the test runner, which keeps what a test prints to itself.
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
    /// `None`, and words about it, if the environment names none.
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

/// A storage with its table.
pub async fn ready<D: Database>(database: &D) -> D::Storage {
    let storage = database.connect().await;
    D::migrate(&storage).await.unwrap();
    storage
}

pub fn key(user: &str) -> TokenKey {
    TokenKey::new("github", user).unwrap()
}

pub fn kept_for(seconds: u64) -> Record {
    Record::new("kept for a while").with_retain_for(Some(Duration::from_secs(seconds)))
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
            every_field_comes_back preconditions_guard_every_write a_write_replaces_everything a_write_keeps_the_row
            versions_never_come_again retention_hides_and_purge_frees purge_is_bounded_and_exact
            similar_keys_are_apart long_keys_are_refused_not_cut large_payloads_are_refused
            filters_select_exactly pages_cover_everything_once pages_go_on_in_a_tenant foreign_cursors_are_refused
            corrupt_rows_harm_no_other a_row_without_a_key_is_left_out a_missing_table_says_so
            nothing_secret_is_printed
            increments_are_exact one_creator_wins parallel_puts_make_one_row reads_are_never_torn
            dropped_futures_leave_old_or_new purge_never_takes_a_renewed_record other_pools_read_what_was_written
            migrating_twice_changes_nothing many_migrate_at_once the_application_migrates_beside_us
            tables_are_apart migrating_keeps_what_is_there
        );
    };
}
pub(crate) use run_cases;

macro_rules! run_remote_cases {
    ($Database:ty) => {
        run_cases!($Database);
        run_cases!($Database:
            an_outage_is_an_error_within_the_time_out broken_idle_connections_are_not_noticed
            a_lost_answer_is_ambiguous no_connection_is_lost_to_silence connections_are_kept
            a_held_row_is_unavailable_and_delays_no_other
        );
    };
}
pub(crate) use run_remote_cases;
