//! Checks a storage, its server and the key file for conditions that endanger tokens.

mod finding;
mod sql;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use oauth_dance_core::{Clock, KeyFileError, StorageError, Timestamp, TokenStorage as _};
use oauth_dance_migrations::MigrationState;
use oauth_dance_redis::RedisStorage;

use super::OperateError;
use crate::connect;
use crate::exit::Exit;
use crate::keys::{KeyArgs, Keys, KeysError};
use crate::open::{Opened, Server, StorageArgs};
use crate::output::{OutputArgs, Rows, on_one_line};
use finding::Finding;

/// The columns of the output.
const COLUMNS: [&str; 4] = ["result", "check", "found", "what_to_do"];
/// A difference between clocks up to which there is no finding, because a response takes some time and clocks count
/// whole seconds.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// A response that takes longer is a finding.
const SLOW: Duration = Duration::from_millis(500);

/// The options of `oauth-dance doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Example: for the readiness of a container
  oauth-dance doctor --quick --storage redis://cache.example

Exits with 0 if all is well, 1 if something endangers tokens, 2 if the storage cannot be used.")]
pub struct DoctorOptions {
    /// Only verify that the storage responds, with one read, and print nothing
    #[arg(long)]
    pub quick: bool,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The keys, whose file is checked.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Exits with 1 if something endangers tokens.
pub(super) async fn run(options: &DoctorOptions) -> Result<Exit, OperateError> {
    let opened = options.storage.open_unmigrated().await?;
    let start = Instant::now();
    let checked = Keys::Plaintext.tokens(&opened.storage).check().await;
    let took = start.elapsed();
    if options.quick {
        return match checked {
            Ok(()) => Ok(Exit::Done),
            Err(error) => Err(opened.explain(error).await),
        };
    }
    let mut findings = schema(&opened).await?;
    let is_migrated = !findings.iter().any(Finding::is_bad);
    match checked {
        Ok(()) => findings.insert(0, connection(took)),
        // The missing table is already a finding.
        Err(_) if !is_migrated => {}
        Err(error) => return Err(opened.explain(error).await),
    }
    if is_migrated {
        findings.push(writes(&opened).await?);
    }
    findings.extend(server(&opened).await?);
    if let Some(file) = &options.keys.key_file {
        findings.push(key_file(&options.keys, file).await);
    }
    let bad = findings.iter().any(Finding::is_bad);
    let mut rows = Rows::new(options.output, &COLUMNS);
    rows.print(&findings.iter().map(Finding::row).collect::<Vec<_>>())?;
    rows.finish()?;
    Ok(Exit::found(bad))
}

fn connection(took: Duration) -> Finding {
    let found = format!("responded in {} ms", took.as_millis());
    match took > SLOW {
        true => Finding::warning(
            "connection",
            found,
            "find out why the server is slow: each request of a user waits for it",
        ),
        false => Finding::ok("connection", found),
    }
}

/// Whether the table is the one that this release expects.
async fn schema(opened: &Opened) -> Result<Vec<Finding>, OperateError> {
    let migrations = match opened.migrations().await {
        Ok(migrations) => migrations,
        Err(error @ StorageError::Misconfigured { .. }) => {
            let advice = "permit this user to read the table of the migrations, or run `oauth-dance migrate status` as the \
                user who migrates";
            return Ok(vec![Finding::unknown("schema", error.to_string(), advice)]);
        }
        Err(error) => return Err(opened.explain(error).await),
    };
    let Some(last) = migrations.last() else { return Ok(Vec::new()) };
    let worst = |state| migrations.iter().find(|status| status.state == state);
    let finding = if let Some(pending) = worst(MigrationState::Pending) {
        let found = format!("migration {} is pending", pending.version);
        Finding::danger("schema", found, "run `oauth-dance migrate up`")
    } else if let Some(altered) = worst(MigrationState::Altered) {
        let found = format!("migration {} differs from the one that was applied", altered.version);
        Finding::danger("schema", found, "compare the table with `oauth-dance migrate sql`")
    } else if let Some(newer) = worst(MigrationState::Newer) {
        let found = format!("migration {} of a newer release was applied", newer.version);
        Finding::warning("schema", found, "upgrade this program, or check that the releases in use fit each other")
    } else {
        Finding::ok("schema", format!("version {}", last.version))
    };
    Ok(vec![finding])
}

/// Whether the storage accepts writes of this user.
async fn writes(opened: &Opened) -> Result<Finding, OperateError> {
    Ok(match opened.try_write().await {
        Ok(()) => Finding::ok("writes", "accepted"),
        Err(StorageError::Misconfigured { advice, .. }) => Finding::danger(
            "writes",
            format!("rejected: {advice}"),
            "if the application uses this user and server, it cannot store logins or refreshes",
        ),
        Err(error) => return Err(opened.explain(error).await),
    })
}

/// The settings of the server, and its clock.
async fn server(opened: &Opened) -> Result<Vec<Finding>, OperateError> {
    let table = opened.table.clone().unwrap_or_default();
    let (mut findings, before, server_time) = match &opened.server {
        Server::Sqlite(storage) => {
            let findings = async { sql::sqlite(storage, &mut opened.sqlite().await?).await };
            return Ok(settings(findings.await));
        }
        Server::Postgres(_) => {
            let found = async {
                let mut connection = connect::postgres(opened.url()).await?;
                let findings = sql::postgres(&mut connection, &table).await?;
                let before = Clock::system().now();
                Ok((findings, before, sql::postgres_clock(&mut connection).await?))
            };
            match found.await {
                Ok(found) => found,
                Err(error) => return Ok(settings(Err(error))),
            }
        }
        Server::MySql(_) => {
            let found = async {
                let mut connection = connect::mysql(opened.url()).await?;
                let findings = sql::mysql(&mut connection, &table).await?;
                let before = Clock::system().now();
                Ok((findings, before, sql::mysql_clock(&mut connection).await?))
            };
            match found.await {
                Ok(found) => found,
                Err(error) => return Ok(settings(Err(error))),
            }
        }
        Server::Redis(storage) => {
            let findings = redis(opened, storage).await?;
            let before = Clock::system().now();
            (findings, before, storage.server_time().await.ok())
        }
    };
    findings.push(clock(server_time, before));
    Ok(findings)
}

/// The findings about the settings of a SQL server. It is also a finding if this user may not read them.
fn settings(read: Result<Vec<Finding>, sqlx::Error>) -> Vec<Finding> {
    read.unwrap_or_else(|error| {
        // The errors of the database cannot quote a token, because the statements contain no values.
        let advice = "permit this user to read the settings of the server, or run this as an administrator";
        vec![Finding::unknown("settings", error.to_string(), advice)]
    })
}

/// Whether the server may lose or evict records, and whether this user has all permissions.
async fn redis(opened: &Opened, storage: &RedisStorage) -> Result<Vec<Finding>, OperateError> {
    let mut findings = Vec::new();
    match storage.check().await {
        Ok(()) => findings.push(Finding::ok("permissions", "complete")),
        Err(StorageError::Misconfigured { advice, .. }) => findings.push(Finding::danger(
            "permissions",
            advice,
            "the application needs these permissions, if it uses this user",
        )),
        Err(error) => return Err(opened.explain(error).await),
    }
    findings.push(match storage.clone().without_eviction().check().await {
        Err(StorageError::Misconfigured { advice, .. }) if advice.contains("maxmemory-policy") => Finding::danger(
            "eviction",
            "the server may evict tokens to free memory",
            "set maxmemory-policy to noeviction, or use a server of its own for tokens",
        ),
        _ => Finding::ok("eviction", "none"),
    });
    findings.push(match storage.capabilities().durable {
        true => Finding::ok("durability", "a write is on disk before it is acknowledged"),
        false => Finding::warning(
            "durability",
            "a crash or a failover of the server may lose acknowledged writes",
            "set appendonly to yes, appendfsync to always and no-appendfsync-on-rewrite to no, and let no replica take over by \
            itself; or accept that some users have to log in again after a crash",
        ),
    });
    Ok(findings)
}

/// Compares the clock of a server with the clock of this machine, which was read directly before.
fn clock(server: Option<Timestamp>, here: Timestamp) -> Finding {
    let Some(server) = server else {
        return Finding::unknown("clock", "the server's clock cannot be read", "permit this user to read it");
    };
    let (difference, is_ahead) = (server.saturating_since(here).max(here.saturating_since(server)), server > here);
    let found = match difference {
        Duration::ZERO => "in sync with this machine".to_owned(),
        _ => format!(
            "{} {} this machine",
            humantime::format_duration(difference),
            if is_ahead { "ahead of" } else { "behind" }
        ),
    };
    match difference > CLOCK_TOLERANCE {
        true => Finding::warning(
            "clock",
            found,
            "synchronize both clocks with NTP: on a machine whose clock is wrong, tokens are refreshed too late or too often",
        ),
        false => Finding::ok("clock", found),
    }
}

/// Whether only its owner can read and change the file of the keys, and whether the keys can be loaded.
async fn key_file(keys: &KeyArgs, path: &Path) -> Finding {
    let shown = path.display();
    match keys.age.ring_in(path).await {
        Ok(ring) => Finding::ok("key_file", format!("{shown}, whose first key is {}", ring.primary_id())),
        Err(KeysError::File(KeyFileError::Exposed { .. })) => Finding::danger(
            "key_file",
            format!("other users of this machine can read or change {shown}"),
            "run `chmod 600` on it, and rotate the keys",
        ),
        Err(KeysError::NoIdentity { .. }) => {
            Finding::unknown("key_file", format!("the keys in {shown} are wrapped"), "add --age-identity")
        }
        Err(error @ KeysError::File(_)) => {
            Finding::danger("key_file", on_one_line(&error), "correct --key-file or the permissions")
        }
        Err(error @ KeysError::NotLoaded { .. }) => {
            Finding::danger("key_file", on_one_line(&error), "correct what the message names")
        }
        Err(error) => {
            Finding::danger("key_file", on_one_line(&error), "name a file with one key of 32 bytes on each line")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::finding::Level;
    use super::*;

    #[test]
    fn clocks_that_differ_are_a_finding() {
        let here = Timestamp::from_unix_seconds(1_000_000);
        for (server, level, found) in [
            (1_000_000, Level::Ok, "in sync with this machine"),
            (1_000_005, Level::Ok, "5s ahead of this machine"),
            (1_000_061, Level::Warning, "1m 1s ahead of this machine"),
            (999_400, Level::Warning, "10m behind this machine"),
        ] {
            let finding = clock(Some(Timestamp::from_unix_seconds(server)), here);
            assert_eq!((finding.level, finding.found.as_str()), (level, found));
        }
        assert_eq!(clock(None, here).level, Level::Unknown);
    }
}
