//! Removes the token of a user at one provider, and what was exchanged for it.

use clap::Args;
use oauth_dance::Connector;
use oauth_dance_core::{Filter, TokenKey};

use super::OperateError;
use super::forget::{COLUMNS, Removal, Remover, RevocationArgs};
use super::records::Pages;
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

/// Removes one token, and those that were exchanged for it. Exits with 1 if one could not be removed.
pub(super) async fn run(options: &DisconnectOptions) -> Result<Exit, OperateError> {
    let part = |name: &Option<String>| name.clone().unwrap_or_default();
    let key = TokenKey::from_parts(part(&options.tenant), &options.user, &options.provider, part(&options.account))?;
    let remover = Remover::new(&options.storage, &options.revocation).await?;
    // First, so that no other one is exchanged for it.
    let mut removals = vec![remover.remove(&key).await?];
    for exchanged in exchanged_for(&remover, &key).await? {
        removals.push(remover.remove(&exchanged).await?);
    }
    removals.retain(|removal| removal.removed || removal.is_left);
    if removals.is_empty() {
        eprintln!("nothing is stored for this user, provider, tenant and account");
        return Ok(Exit::Done);
    }
    let is_left = removals.iter().any(|removal| removal.is_left);
    let mut rows = Rows::new(options.output, &COLUMNS);
    rows.print(&removals.into_iter().map(Removal::into_row).collect::<Vec<_>>())?;
    rows.finish()?;
    Ok(Exit::found(is_left))
}

/// The keys of the tokens that were exchanged for the one under this key.
async fn exchanged_for(remover: &Remover, key: &TokenKey) -> Result<Vec<TokenKey>, OperateError> {
    let filter = Filter::everything().tenant(key.tenant()).user(key.user()).provider(key.provider());
    let (mut pages, mut exchanged) = (Pages::new(remover.opened(), filter), Vec::new());
    while let Some(page) = pages.next().await? {
        exchanged.extend(page.into_iter().map(|entry| entry.key).filter(|found| Connector::is_exchanged(found, key)));
    }
    Ok(exchanged)
}
