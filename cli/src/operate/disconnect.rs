//! Removes the token of a user at one provider.

use clap::Args;
use oauth_dance_core::TokenKey;

use super::OperateError;
use super::forget::{COLUMNS, Remover, RevocationArgs};
use crate::exit::Exit;
use crate::open::StorageArgs;
use crate::output::{OutputArgs, Rows};

/// The options of `oauth-dance disconnect`.
#[derive(Args, Debug)]
#[command(after_help = "Example: one account of one user, revoked at the provider first
  oauth-dance disconnect 42 github --storage sqlite:tokens.db --config providers.toml --key-file keys")]
pub struct DisconnectOptions {
    /// The user
    pub user: String,
    /// The provider
    pub provider: String,
    /// The user's tenant, if the application has tenants
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// The account, if the user has several at the provider
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// How to revoke.
    #[command(flatten)]
    pub revocation: RevocationArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Removes one token. Exits with 1 if it could not be removed.
pub(super) async fn run(options: &DisconnectOptions) -> Result<Exit, OperateError> {
    let part = |name: &Option<String>| name.clone().unwrap_or_default();
    let key = TokenKey::from_parts(part(&options.tenant), &options.user, &options.provider, part(&options.account))?;
    let remover = Remover::new(&options.storage, &options.revocation).await?;
    let removal = remover.remove(&key).await?;
    let is_left = removal.is_left;
    if !removal.removed && !is_left {
        eprintln!("nothing is stored for this user, provider, tenant and account");
        return Ok(Exit::Done);
    }
    let mut rows = Rows::new(options.output, &COLUMNS);
    rows.print(&[removal.into_row()])?;
    rows.finish()?;
    Ok(Exit::found(is_left))
}
