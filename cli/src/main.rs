//! The `oauth-dance` program.

use std::error::Error;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oauth_dance_cli::demo;
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { command: Command::Demo(options) } = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();

    match demo::run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oauth-dance: {}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
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
