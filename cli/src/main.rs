//! The `oauth-dance` program.

use std::error::Error;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oauth_dance_cli::{demo, migrate};
use tracing_subscriber::EnvFilter;

/// Connect accounts elsewhere and keep their OAuth tokens.
#[derive(Parser)]
#[command(name = "oauth-dance", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a site that shows the whole dance, with a provider of its own unless a config names others
    Demo(demo::Options),
    /// Create the tables of a SQL database, show how they stand, or print their SQL
    #[command(subcommand)]
    Migrate(migrate::Action),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(options) => {
            log("info");
            demo::run(options).await.map_or_else(|error| failed(&error, 1), |()| ExitCode::SUCCESS)
        }
        Command::Migrate(action) => {
            log("warn");
            migrate::run(action).await.unwrap_or_else(|error| failed(&error, 2))
        }
    }
}

/// Logs to the standard error, from this level on unless `RUST_LOG` says otherwise.
fn log(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Of a database's URL it logs the options it does not know, with their values.
    let filter = match "sqlx_postgres::options::parse=off".parse() {
        Ok(silent) => filter.add_directive(silent),
        Err(_) => filter,
    };
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();
}

fn failed(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("oauth-dance: {}", in_one_line(error));
    ExitCode::from(code)
}

/// The error and everything underneath it, without what a message repeats of its cause.
fn in_one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
