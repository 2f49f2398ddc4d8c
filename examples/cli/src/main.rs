//! A command-line program: `acme login`, `acme login --device`, `acme whoami`, `acme logout`.
//!
//! It uses GitHub, with the client in `ACME_CLIENT_ID` and `ACME_CLIENT_SECRET`, or the test provider at `ACME_URL`.
//! The tokens are in the user's data folder, and their key is in the keyring.
#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]

use std::{env, error::Error};

use clap::Parser;
use oauth_dance::{Connector, Registration, TokenKey, presets::GitHub, testing};
use oauth_dance_sqlx::PersonalStorage;

/// Shows who you are.
#[derive(Parser)]
enum Command {
    /// Log in, in the browser
    Login {
        /// Show a code to enter on another device
        #[arg(long)]
        device: bool,
    },
    /// Show the account
    Whoami,
    /// Log out
    Logout,
}

fn registration() -> Result<Registration, Box<dyn Error>> {
    match env::var("ACME_URL") {
        Ok(url) => Ok(testing::provider_at(&url, "acme").public_client("acme-cli")),
        Err(_) => Ok(GitHub::provider().named("acme").client_from_env()?),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let command = Command::parse();
    let (storage, key_ring) = PersonalStorage::open("acme-cli").await?.into_parts();
    let connector = Connector::builder(storage, key_ring).provider(registration()?).build()?;
    let me = TokenKey::new("acme", "me")?;
    match command {
        Command::Login { device: true } => {
            let login = connector.device_login(&me).start().await?;
            println!("Open {} and enter {}", login.verification_uri(), login.user_code());
            login.finish().await?;
        }
        Command::Login { device: false } => {
            let login = connector.loopback_login(&me).start().await?;
            println!("Log in at {}", login.url());
            login.open_browser().await;
            login.finish().await?;
        }
        Command::Whoami => println!("{}", connector.client(&me).await?.userinfo().send().await?.success()?.text()?),
        Command::Logout => _ = connector.disconnect(&me).await?,
    }
    connector.finish().await;
    Ok(())
}
