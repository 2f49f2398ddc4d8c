//! The demo on this storage: connect an account, stop the demo, start it again, and it is still connected.

use std::error::Error;

use oauth_dance_cli::demo::{self, Options};
use oauth_dance_example_custom_storage::RedbStorage;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    Ok(demo::run_on(RedbStorage::open("tokens.redb")?, Options::default()).await?)
}
