//! The `oauth-dance` program.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use oauth_dance_cli::{demo, migrate, on_one_line, operate};
use tracing_subscriber::EnvFilter;

/// Connect users' accounts at other services and store their OAuth tokens
#[derive(Parser)]
#[command(name = "oauth-dance", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a demo site that connects accounts, with its own provider unless a config file names others
    Demo(demo::Options),
    /// Create or update the token table of a SQL database, show its migrations, or print their SQL
    #[command(subcommand)]
    Migrate(migrate::Action),
    #[command(flatten)]
    Operate(operate::Command),
    /// Print a shell completion script for the commands and options of this program
    #[command(after_help = "Example:\n  oauth-dance completions bash > /etc/bash_completion.d/oauth-dance")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command into a folder
    #[command(after_help = "Example:\n  oauth-dance man --folder /usr/local/share/man/man1")]
    Man {
        /// Write the pages into this folder
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
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
        Command::Operate(command) => {
            log("warn");
            operate::run(command).await.unwrap_or_else(|error| failed(&error, 2))
        }
        Command::Completions { shell } => written(completions(shell)),
        Command::Man { folder: None } => written(manual()),
        Command::Man { folder: Some(folder) } => written(clap_mangen::generate_to(Arguments::command(), folder)),
    }
}

fn completions(shell: Shell) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "oauth-dance", &mut script);
    io::stdout().lock().write_all(&script)
}

fn manual() -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
    io::stdout().lock().write_all(&page)
}

fn written(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => failed(&error, 2),
        _ => ExitCode::SUCCESS,
    }
}

/// Logs to the standard error, from this level on unless `RUST_LOG` sets another level.
fn log(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // This target logs the values of unknown options of a database URL.
    let filter = match "sqlx_postgres::options::parse=off".parse() {
        Ok(silent) => filter.add_directive(silent),
        Err(_) => filter,
    };
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();
}

fn failed(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("oauth-dance: {}", on_one_line(error));
    ExitCode::from(code)
}
