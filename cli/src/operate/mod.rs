//! The commands for operators on stored tokens.
//!
//! Each works on every storage that can list, and none prints a token or a key. A command that changes records can be
//! repeated after an interruption.

mod copy;
mod disconnect;
mod doctor;
mod erase;
mod expiring;
mod forget;
mod import;
mod key;
mod list;
mod purge;
mod records;
mod reseal;
mod show;
mod stats;
mod verify;

use std::io;
use std::process::ExitCode;

use clap::Subcommand;
use oauth_dance_core::KeyError;

use crate::UnusableStorage;
use crate::demo::DemoError;
use crate::exit::Exit;
use crate::keys::KeysError;
use crate::migrate::MigrateError;

pub use copy::CopyOptions;
pub use disconnect::DisconnectOptions;
pub use doctor::DoctorOptions;
pub use erase::EraseOptions;
pub use expiring::ExpiringOptions;
pub use forget::RevocationArgs;
pub use import::{FlaskDanceOptions, ImportCommand, SourceError};
pub use key::{FileOptions, KeyCommand, NewKeyOptions, PromoteOptions, RetireError, RetireOptions, UsageOptions};
pub use list::ListOptions;
pub use purge::PurgeOptions;
pub use records::{FilterArgs, RecordsArgs};
pub use reseal::UnsealOptions;
pub use show::ShowOptions;
pub use stats::StatsOptions;
pub use verify::VerifyOptions;

/// A command for operators.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the stored tokens without opening them; with --state, open each and show its state
    List(ListOptions),
    /// Show everything about the tokens of one user except their secrets
    Show(ShowOptions),
    /// Count the tokens of each provider by their state
    Stats(StatsOptions),
    /// List the tokens that expire soon, and whether they can be refreshed
    Expiring(ExpiringOptions),
    /// Open every token without showing it, and list those that cannot be read; exits with 1 if there are any
    Verify(VerifyOptions),
    /// Check for what endangers tokens: the table, the server's settings and clock, the permissions of the key file
    Doctor(DoctorOptions),
    /// Remove records past their retention, which already count as absent
    Purge(PurgeOptions),
    /// Remove all tokens of a user, for all tenants, providers and accounts
    EraseUser(EraseOptions),
    /// Remove the token of a user at one provider
    Disconnect(DisconnectOptions),
    /// Copy or move all records unchanged to another storage; run it again after an interruption
    Copy(CopyOptions),
    /// Import the tokens of another library
    #[command(subcommand)]
    Import(ImportCommand),
    /// Create keys, show which are used, and rotate them
    #[command(subcommand)]
    Key(KeyCommand),
    /// Seal all tokens with the first key of the ring, while the application runs
    #[command(after_help = "Example: the second step of a rotation
  oauth-dance reseal --storage postgres://db/app --key-file keys")]
    Reseal(RecordsArgs),
    /// Seal the tokens of a storage that began without encryption, while the application is stopped
    #[command(after_help = "Example:
  oauth-dance key generate --key-file keys
  oauth-dance seal --storage sqlite:tokens.db --key-file keys")]
    Seal(RecordsArgs),
    /// Store all tokens in plain text, while the application is stopped
    #[command(after_help = "Example:
  oauth-dance unseal --dangerously --storage sqlite:tokens.db --key-file keys")]
    Unseal(UnsealOptions),
}

/// Why a command did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperateError {
    /// No storage was named.
    #[error("set the storage with --storage or OAUTH_DANCE_STORAGE")]
    NoStorage,
    /// The URL is not that of a storage that lists.
    #[error(
        "unknown storage {scheme:?}; use sqlite:FILE, postgres://…, mysql://…, redis://…, redis+cluster://… or \
        redis+sentinel://… (rediss and so on for TLS)"
    )]
    UnknownStorage {
        /// The scheme of the URL. The rest may contain a password.
        scheme: String,
    },
    /// The storage has no such place.
    #[error("--{option} does not apply to {storage}; omit it")]
    Inapplicable {
        /// The option.
        option: &'static str,
        /// The kind of storage.
        storage: &'static str,
    },
    /// The place of the table is invalid.
    #[error(transparent)]
    Table(#[from] MigrateError),
    /// The table is missing, or an older release has created it.
    #[error(
        "the table in {storage} is missing or older than this release; correct --{options}table and --{options}schema, or \
        run `oauth-dance migrate up`"
    )]
    NotMigrated {
        /// The storage, without secrets.
        storage: String,
        /// How the options start that name its place.
        options: &'static str,
    },
    /// The storage cannot be reached or used.
    #[error(transparent)]
    Storage(#[from] UnusableStorage),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The user, the provider, the tenant or the account cannot be part of a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The config file cannot be used.
    #[error(transparent)]
    Config(#[from] Box<DemoError>),
    /// Both URLs of a copy name the same storage.
    #[error("--from and --to are the same storage; choose another table, prefix or database")]
    SameStorage,
    /// Tokens would be stored in plain text.
    #[error("unsealed tokens can be used by anyone who can read the storage or a backup; add --dangerously to confirm")]
    NotConfirmed,
    /// The table of another library cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A key cannot be removed.
    #[error(transparent)]
    Retire(#[from] RetireError),
    /// The output could not be printed.
    #[error("cannot write to the standard output")]
    Print(#[from] io::Error),
}

/// Runs a command, and returns its exit code: 0 if everything was done and nothing was found, 1 if something was found
/// or a part could not be done.
///
/// # Errors
/// [`OperateError`], whose message and sources name the cause and what to do. The program should exit with 2 in this
/// case.
pub async fn run(command: Command) -> Result<ExitCode, OperateError> {
    let exit = match command {
        Command::List(options) => list::run(&options).await,
        Command::Show(options) => show::run(&options).await,
        Command::Stats(options) => stats::run(&options).await,
        Command::Expiring(options) => expiring::run(&options).await,
        Command::Verify(options) => verify::run(&options).await,
        Command::Doctor(options) => doctor::run(&options).await,
        Command::Purge(options) => purge::run(&options).await,
        Command::EraseUser(options) => erase::run(&options).await,
        Command::Disconnect(options) => disconnect::run(&options).await,
        Command::Copy(options) => copy::run(&options).await,
        Command::Import(command) => import::run(&command).await,
        Command::Key(command) => key::run(&command).await,
        Command::Reseal(options) => reseal::reseal(&options).await,
        Command::Seal(options) => reseal::seal(&options).await,
        Command::Unseal(options) => reseal::unseal(&options).await,
    };
    match exit {
        // A reader such as `head` has closed the pipe.
        Err(OperateError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done.into()),
        exit => exit.map(ExitCode::from),
    }
}
